"""Running a study: results, resuming, and what ends it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_files import CELLS, finished, sessions, study_file

from activelabel import evaluate
from activelabel.data import Cohort
from activelabel.evaluation import create_run
from activelabel.evaluation.study import (
    Block,
    Finished,
    StudyError,
    build_tables,
    cells,
    read_results,
    read_study,
    run_study,
    write_results,
)
from activelabel.evaluation.study.shared import content_digest, open_shared, share
from activelabel.settings import SelectiveRunSettings

ROOT = Path(__file__).resolve().parents[1]


def run(path: Path, out: Path, **options: Any) -> Finished:
    return run_study(read_study(str(path)), out, **{"jobs": 1, "progress": False, **options})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, blobs: Cohort) -> Path:
    return study_file(tmp_path_factory.mktemp("study"), cohort, blobs)


@pytest.fixture(scope="module")
def done(path: Path, tmp_path_factory: pytest.TempPathFactory, blobs: Cohort) -> tuple[Path, Finished]:
    out = tmp_path_factory.mktemp("out")
    return out, run(path, out)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, blobs: Cohort) -> Path:
    """The first grid alone, with one agent and one seed: 11 cells."""
    path = study_file(
        tmp_path_factory.mktemp("small"), cohort, blobs, strategies=["random", "reinforce"], k=[4], seeds=[0]
    )
    path.write_text(path.read_text().partition("  episodes:\n")[0])
    return path


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of the small study without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    run(small, out)
    return (out / "results.csv").read_bytes()


def test_every_cell_is_there_once(done: tuple[Path, Finished]) -> None:
    out, found = done
    assert len(finished(out)) == CELLS
    keys = [tuple(block.keys.values()) for block in found.blocks]
    assert len(keys) == len(set(keys)) == 2 * 2 * (2 + 2 * 2) + 2 * (3 + 2 * 2)
    trained = [b for b in found.blocks if b.keys["strategy"] in ("reinforce", "printed", "ddqn", "lal-rl")]
    assert {b.keys["seed"] for b in trained} == {0, 1}
    assert {b.keys["preset"] for b in trained} == {"default", "medselect-paper", "lal-rl"}
    assert all(b.keys["seed"] is None and b.keys["preset"] == "" for b in found.blocks if b not in trained)
    assert {len(b.value) for b in found.blocks if b.aulc is None} == {6}
    assert {len(b.value) for b in found.blocks if b.aulc is not None} == {5}


@pytest.mark.parametrize(("grid", "name"), [(0, "reinforce"), (1, "ddqn")])
def test_values_are_those_of_a_run(
    grid: int, name: str, done: tuple[Path, Finished], path: Path, tmp_path: Path
) -> None:
    """The study's numbers against training and evaluating the same agent without a study."""
    g = read_study(str(path)).grids[grid]
    settings = g.training(next(s for s in g.strategies if s.name == name), g.data[0], g.budgets[0], 1)
    alone = create_run(replace(settings, against=()), tmp_path, progress=False)
    alone.train()
    given = {"ks": [4], "n_tasks": 6} if grid == 0 else {"batch": 2, "n_episodes": 5}
    rows = alone.evaluate(**given).rows  # type: ignore[call-arg]
    means = {(r.get("conditions", ""), r["metric"]): r["mean"] for r in rows if r["strategy"] == name}
    compared = 0
    for block in done[1].blocks:
        keys = block.keys
        if (keys["strategy"], keys["seed"]) == (name, 1) and (keys["k"] == 4 or keys["batch"] == 2):
            assert block.value.mean() == pytest.approx(means[keys["conditions"], keys["metric"]], abs=1e-12)
            if block.aulc is not None:
                assert block.aulc.mean() == pytest.approx(means["", "aulc"], abs=1e-12)
            compared += 1
    assert compared == (2 if grid == 0 else 1)


def test_results_are_read_back(done: tuple[Path, Finished], tmp_path: Path) -> None:
    out, found = done
    again = read_results(out / "results.csv")
    assert [b.keys for b in again] == [b.keys for b in found.blocks]
    for a, b in zip(again, found.blocks, strict=True):
        for name in ("value", "one_class", "aulc", "curve"):
            one, other = getattr(a, name), getattr(b, name)
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, other)
    lines = (out / "results.csv").read_text().splitlines()
    assert lines[0] == "# activelabel study results, format 1"
    assert lines[1].startswith("study,grid,data,env,conditions,strategy,preset,seed,k,labels,batch,task,metric,value")
    assert len(lines) == 2 + sum(len(b.value) for b in found.blocks)
    write_results(again, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (out / "results.csv").read_bytes()
    episode = next(b for b in again if b.aulc is not None and b.keys["batch"] == 2)
    assert episode.spent.tolist() == [0, 2, 4, 6, 7]
    assert episode.curve is not None
    np.testing.assert_array_equal(episode.curve[:, -1], episode.value)


def test_parquet_holds_the_same(done: tuple[Path, Finished], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_results(done[1].blocks, tmp_path / "r.parquet")
    write_results(read_results(tmp_path / "r.parquet"), tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == (done[0] / "results.csv").read_bytes()


def test_a_finished_study_is_not_computed_again(
    done: tuple[Path, Finished], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = done
    before = (out / "results.csv").read_bytes()

    def refuse(*_: Any) -> None:
        raise AssertionError("a finished cell was computed")

    monkeypatch.setattr(cells.TrainCell, "work", refuse)
    monkeypatch.setattr(cells.EvaluateCell, "work", refuse)
    run(path, out)
    assert (out / "results.csv").read_bytes() == before


def test_a_strategy_more_costs_its_own_cells(
    done: tuple[Path, Finished], cohort: Cohort, blobs: Cohort, tmp_path: Path
) -> None:
    """Keys depend on contents: the same data elsewhere, another name of the study, another order."""
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    before = finished(out)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = study_file(folder, cohort, blobs, strategies=["kmedoids", "random"], k=[4, 3])
    run(path.rename(folder / "other.yaml"), out)
    # Seen and held out: K = 3 of two strategies; what they choose with the K that is now the first, random twice.
    assert len(finished(out) - before) == 2 * 2 + 2 * 3
    assert before <= finished(out)


def test_other_data_are_other_cells(cohort: Cohort, tmp_path: Path) -> None:
    other = cohort.take(np.arange(len(cohort)))
    assert content_digest(other) == content_digest(cohort)
    assert other.features is not None
    other.features[7, 3] += 1e-3
    assert content_digest(other) != content_digest(cohort)


def test_shared_data_are_mapped(cohort: Cohort, tmp_path: Path) -> None:
    folder = share(cohort, tmp_path / "c")
    assert folder is not None
    mapped = open_shared(folder)
    assert isinstance(mapped.features, np.memmap)
    assert mapped.features.mode == "r"
    assert content_digest(mapped) == content_digest(cohort)
    assert (mapped.normal, mapped.classes, mapped.source) == (cohort.normal, cohort.classes, cohort.source)


def test_tables_and_verdicts(done: tuple[Path, Finished]) -> None:
    out, found = done
    assert [t.name for t in found.tables] == ["once-cohort", "episodes-four-blobs-7-3", "episodes-four-blobs-7-2"]
    for table in found.tables:
        assert (out / "tables" / table.name / "figure.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((out / "tables" / table.name / "summary.json").read_text())["study"] == "tiny"
    rows = {(r["strategy"], r["k"], r["conditions"]): r["mean"] for r in found.tables[0].report.rows}
    seeds = [
        b.value.mean()
        for b in found.blocks
        if (b.keys["strategy"], b.keys["k"], b.keys["conditions"]) == ("printed", 2, "held-out")
    ]
    assert rows["printed", 2, "held-out"] == pytest.approx(np.mean(seeds))
    assert len(found.tables[0].verdicts) == 4
    assert "cohort, seen conditions, K = 2: highest mean auroc: " in found.tables[0].verdicts[0]
    assert "7 labels, 3 a step: highest mean area under accuracy" in found.tables[1].verdicts[0]


def _block(strategy: str, seed: int | None, value: np.ndarray) -> Block:
    keys = {"grid": "g", "data": "d", "env": "SelectiveLabel-v0", "conditions": "seen", "strategy": strategy, "k": 2}
    return Block({**keys, "seed": seed, "labels": None, "batch": None, "metric": "auroc"}, value, value > 2, None, None)


def test_a_verdict_is_over_tasks_and_training_seeds() -> None:
    rng = np.random.default_rng(0)
    tasks = rng.standard_normal(200)
    # Three trainings, of which one is far above the others: sure of these three, not of a fourth.
    trained = [_block("reinforce", seed, tasks + lift) for seed, lift in enumerate((0.1, 0.2, 1.5))]
    blocks = [_block("random", None, tasks), *trained]
    table = build_tables(blocks, {"g": "random"})[0]
    assert table.report.comparisons[0]["verdict"] == "better"
    assert "not distinguishable from random (+0.600" in table.verdicts[0]
    assert "200 tasks, 3 training seeds" in table.verdicts[0]
    assert "training seeds" in table.verdicts[0].rpartition("would take")[2]
    alike = [_block("reinforce", seed, tasks + lift) for seed, lift in enumerate((0.5, 0.6, 0.7))]
    assert "better than random (+0.600" in build_tables([blocks[0], *alike], {"g": "random"})[0].verdicts[0]


def test_provenance(done: tuple[Path, Finished], path: Path) -> None:
    found = json.loads((done[0] / "provenance.json").read_text())
    assert found["file"] == path.read_text()
    assert {"python", "torch", "activelabel"} <= set(found["versions"])
    assert {(d["images"], d["source"]["name"]) for d in found["data"]} == {(3000, "synthetic"), (700, "blobs")}
    assert all(s["ended"] for s in found["sessions"])
    assert found["settings"]["once: cohort"]["pool"] == 20
    trained = found["trainings"]
    assert {(t["strategy"], t["seed"]) for t in trained} >= {("ddqn", 1), ("lal-rl", 0)}
    for training in trained:
        assert training["seconds"] > 0
        assert (done[0] / training["run"] / "model.zip").exists()
        assert not training["resumed"]


def test_training_for_each_budget(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    path = study_file(tmp_path, cohort, blobs, strategies=["random", "reinforce"], train_each=True, seeds=[0])
    path.write_text(path.read_text().partition("  episodes:\n")[0])
    run(path, tmp_path / "out")
    trained = json.loads((tmp_path / "out" / "provenance.json").read_text())["trainings"]
    assert [(t["k"], t["settings"]["k"]) for t in trained] == [(2, 2), (4, 4)]


class Full:
    """A disk that is full after some cells."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = cells.write_text

    def __call__(self, path: Path, text: str) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        self.write(path, text)


def test_a_full_disk_ends_the_study_and_keeps_what_is_finished(
    small: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cells, "write_text", Full(3))
        with pytest.raises(StudyError, match=r"No space left on device.* What was finished stays: make room"):
            run(small, tmp_path / "out")
    assert len(finished(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "results.csv").exists()
    run(small, tmp_path / "out")
    assert (tmp_path / "out" / "results.csv").read_bytes() == whole
    assert [bool(s["ended"]) for s in sessions(tmp_path / "out")] == [False, True]


def test_results_of_another_version_are_refused(path: Path, done: tuple[Path, Finished], tmp_path: Path) -> None:
    old = tmp_path / "results.csv"
    old.write_text((done[0] / "results.csv").read_text().replace("format 1", "format 0", 1))
    for read in (lambda: read_results(old), lambda: run(path, tmp_path)):
        with pytest.raises(StudyError, match=r"results.csv: results of format 0; this version .* format 1"):
            read()
    assert not finished(tmp_path)
    old.write_text("a,b\n1,2\n")
    with pytest.raises(StudyError, match="not a results file of a study"):
        run(path, tmp_path)
    lines = (done[0] / "results.csv").read_text().splitlines(keepends=True)
    for text in ("".join(lines[:3]) + "x,y\n", "".join(lines[:2] + lines[3:])):
        old.write_text(text)
        with pytest.raises(StudyError, match="damaged"):
            read_results(old)
    with pytest.raises(StudyError, match="not readable"):
        read_results(tmp_path / "none.csv")


def test_cells_of_another_version_or_damaged_are_refused(path: Path, done: tuple[Path, Finished]) -> None:
    out = done[0]
    cell = min(out.glob("cells/*.json"))
    text = cell.read_text()
    for bad, message in ((text.replace('"format": 2', '"format": 1', 1), "format 1"), (text[:50], "Delete it")):
        cell.write_text(bad)
        try:
            with pytest.raises(StudyError, match=f"{cell.name}: .*{message}"):
                run(path, out)
        finally:
            cell.write_text(text)


def test_what_does_not_fit_the_data_is_found_first(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    settings = {"pool": 2000, "device": "cpu"}
    path = study_file(tmp_path, cohort, blobs, settings=settings)
    with pytest.raises(ValueError, match=r"tiny.yaml: grids.once: data 'cohort': .*needs") as refused:
        run(path, tmp_path / "out")
    assert type(refused.value).__name__ == "DataError"
    assert not finished(tmp_path / "out")


def test_command(path: Path, done: tuple[Path, Finished], capsys: pytest.CaptureFixture[str]) -> None:
    out, found = done
    assert evaluate.main(["--study", str(path), "--out", str(out), "--jobs", "1", "--no-progress"]) == 0
    printed = capsys.readouterr().out
    assert all(table.text() in printed for table in found.tables)
    assert str(out / "results.csv") in printed


REFUSED = {
    "nothing": ([], "give the directory of a run, or --study"),
    "both": (["runs/x", "--study", "quick"], "RUN does not go with --study"),
    "of runs": (["--study", "quick", "--tasks", "3"], "--tasks does not go with --study"),
    "of studies": (["runs/x", "--jobs", "3"], "--jobs goes with --study"),
    "backend": (["--study", "quick", "--backend", "lok"], "Did you mean 'loky'"),
    "address": (["--study", "quick", "--address", "h:1"], "give --backend dask or ray"),
    "jobs": (["--study", "quick", "--jobs", "0"], "--jobs 0: must be at least 1"),
    "results": (["--study", "quick", "--results", "parket"], "Did you mean 'parquet'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_options_are_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = REFUSED[case]
    assert evaluate.main([*options, "--no-progress"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert message in error


@pytest.mark.slow
def test_a_study_that_is_killed_ends_like_one_that_is_not(small: Path, whole: bytes, tmp_path: Path) -> None:
    """Two workers; SIGKILL as soon as the first cells are finished, in the middle of others."""
    command = [sys.executable, str(ROOT / "evaluate.py"), "--study", str(small), "--no-progress"]
    command += ["--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not finished(tmp_path) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "results.csv").exists()
    assert finished(tmp_path)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert len(finished(tmp_path)) == 11
    assert (tmp_path / "results.csv").read_bytes() == whole
    assert [bool(s["ended"]) for s in sessions(tmp_path)] == [False, True]


def test_training_goes_on_from_its_checkpoint(
    small: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activelabel.agents import Reinforce

    update = Reinforce._update

    def stop(self: Reinforce, callback: Any) -> bool:
        if self._n_updates == 3:
            raise KeyboardInterrupt
        return update(self, callback)

    with monkeypatch.context() as patch:
        patch.setattr(Reinforce, "_update", stop)
        with pytest.raises(KeyboardInterrupt):
            run(small, tmp_path)
    seen = []

    def watch(self: Reinforce, callback: Any) -> bool:
        seen.append(self._n_updates)
        return update(self, callback)

    monkeypatch.setattr(Reinforce, "_update", watch)
    run(small, tmp_path)
    assert seen[:2] == [2, 3]  # its checkpoint is of the second update
    assert (tmp_path / "results.csv").read_bytes() == whole
    trained = json.loads((tmp_path / "provenance.json").read_text())["trainings"]
    assert [t["resumed"] for t in trained].count(True) == 1


def test_settings_are_hashable() -> None:
    """Workers keep the last data by their settings."""
    assert hash(SelectiveRunSettings()) == hash(SelectiveRunSettings())
