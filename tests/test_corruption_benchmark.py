"""The benchmark of corrupted images, on small ones: what is corrupted, the table's arithmetic, and going on."""

from __future__ import annotations

import importlib.util
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from activelabel.data import Cohort, Source, load
from activelabel.data.backbones import make_backbone
from activelabel.data.corruption import CorruptedImages
from activelabel.evaluation import mean_interval, paired_difference
from activelabel.files import write_text
from activelabel.settings import ActiveRunSettings, preset
from benchmarks import corruption as benchmark
from benchmarks.corruption import PAPER, STRATEGIES, Cell, Settings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("monai") is None, reason="MONAI is not installed (extra monai)"
)

TINY: dict[str, Any] = {
    "fractions": (0.4, 0.3, 0.3),
    "shares": (0.5, 0.1, 0.2, 0.2),
    "test_shares": (0.4, 0.1, 0.2, 0.3),
    "pool": 30,
    "state_images": 5,
    "learner_epochs": 20,
    "hidden": (8,),
    "envs": 4,
    "batch_size": 8,
    "buffer_size": 100,
    "warm_start_episodes": 4,
    "gradient_steps": 2,
    "next_candidates": 4,
}
SIZES = "--labels 3 --episodes 8 --components 3 --val-every 2 --val-episodes 4 --test-episodes 10"
N = 400


def pixels() -> nn.Module:
    """A backbone whose features are the pixels."""
    return nn.Flatten()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 images of 8 x 8, two a patient, bright on one side or on the other."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, N)
    images = rng.normal(110, 45, (N, 8, 8))
    images[:, :, :4] += np.where(side == 0, 30, 0)[:, None, None]
    images[:, :, 4:] += np.where(side == 1, 30, 0)[:, None, None]
    cohort = Cohort(
        labels=np.eye(2, dtype=np.int8)[side],
        classes=("left", "right"),
        images=np.clip(images, 0, 255).astype(np.uint8),
        patient=np.arange(N) // 2,
        source=Source(name="sides"),
    )
    path = tmp_path_factory.mktemp("data") / "sides.npz"
    cohort.save(path)
    return path


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of tiny trainings."""

    def small(name: str, agent: str, env: str, data: str | None = None) -> ActiveRunSettings:
        found = preset(name, agent, env, data)
        assert isinstance(found, ActiveRunSettings)
        if agent == "lal-rl":
            return replace(found, episodes=4, envs=4, warm_start_episodes=4, gradient_steps=2, val_every=4)
        return replace(found, **TINY)

    monkeypatch.setattr(benchmark, "preset", small)
    monkeypatch.setattr("activelabel.evaluation.active_run.preset", small)


def command(data: Path, work: Path, *more: str) -> list[str]:
    backbone = ["--backbone", "test_corruption_benchmark:pixels", "--size", "8", "--jobs", "1"]
    return ["--data", str(data), "--work", str(work), *backbone, *SIZES.split(), *more]


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"work": tmp_path_factory.mktemp("work")}


def once(measured: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """Run the command, the first time, and return its folder and what it printed."""
    if "printed" not in measured:
        assert benchmark.main(command(data, measured["work"])) == 0
        measured["printed"] = capsys.readouterr().out
    return measured["work"], measured["printed"]


def cells(work: Path) -> dict[float, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in work.glob("*/cell.json")]
    return {cell["share"]: cell for cell in found}


def test_the_figures_are_those_of_the_episodes(
    measured: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, printed = once(measured, data, capsys)
    finals = {share: cell["finals"] for share, cell in cells(work).items()}
    assert sorted(finals) == [0, 0.1, 1]
    written = json.loads((work / "corruption.json").read_text())
    assert [(row["share"], row["strategy"]) for row in written["rows"]] == [
        (share, name) for share in (0, 0.1, 1) for name in STRATEGIES
    ]
    for row in written["rows"]:
        values = finals[row["share"]][row["strategy"]]
        assert len(values) == row["n"] == 10
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["seeds"] == pytest.approx([np.mean(values)])
        assert row["deviation"] == pytest.approx(np.std(values, ddof=1))
        for name, level in (("ci68", 0.68), ("ci95", 0.95)):
            interval = mean_interval(values, level)
            assert row[name] == pytest.approx([interval.low, interval.high])
        if not row["share"]:
            assert "difference" not in row
            continue
        gap = paired_difference(values, finals[0][row["strategy"]])
        assert row["difference"]["mean"] == pytest.approx(gap.mean)
        assert row["difference"]["ci95"] == pytest.approx([gap.low, gap.high])
    assert written["settings"]["labels"] == 3
    table = printed[printed.index("strategy  ") :].splitlines()
    for line, (name, shown) in zip(table[2:], STRATEGIES.items(), strict=False):
        rows = [row for row in written["rows"] if row["strategy"] == name]
        assert line.startswith(shown)
        entries = [f"{r['mean']:.4f} ± {(r['ci68'][1] - r['ci68'][0]) / 2:.4f}" for r in rows]
        entries += [f"{mean:.4f} ± {error:.4f}" for mean, error in PAPER[name]]
        assert line.removeprefix(shown).strip() == "  ".join(entries)
    difference = next(row["difference"] for row in written["rows"] if row["share"] == 1)
    assert f"{difference['mean']:+.4f} ({difference['ci95'][0]:+.4f}, {difference['ci95'][1]:+.4f})" in printed


def test_only_images_that_are_labelled_are_corrupted(
    measured: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, _ = once(measured, data, capsys)
    settings = {share: ActiveRunSettings(**tuples(cell["settings"])) for share, cell in cells(work).items()}
    features = {share: load(s.data).embedded() for share, s in settings.items()}
    clean = load(data)
    assert np.array_equal(features[0], make_backbone("test_corruption_benchmark:pixels", size=8)(colours(clean.images)))
    rows = benchmark.pool_rows(settings[0])
    run = benchmark.ActiveRun(Path("not written"), settings[1], progress=False)
    assert sum(len(engine.sampler.rows["pool"]) for engine in (run.engine, run.val, run.test)) == len(rows)
    assert 0.4 * N < len(rows) < 0.5 * N
    changed = {share: (features[share] != features[0]).any(axis=1) for share in features}
    assert np.array_equal(np.flatnonzero(changed[1]), rows)
    assert changed[0.1].sum() == round(0.1 * len(rows))
    assert not (changed[0.1] & ~changed[1]).any()
    assert np.array_equal(features[0.1][changed[0.1]], features[1][changed[0.1]])
    for engine in (run.engine, run.val, run.test):
        for part in ("state", "reward", "test"):
            assert not changed[1][engine.sampler.rows[part]].any()
    # They are the features of the images that CorruptedImages shows.
    images = CorruptedImages(np.asarray(clean.images), Settings((data,)).corruption(1.0), rows)
    backbone = make_backbone("test_corruption_benchmark:pixels", size=8)
    assert np.array_equal(features[1], backbone(colours(images)))
    assert "100 % corrupted" in load(settings[1].data).source.notes


def tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def colours(images: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.repeat(np.asarray(images)[:, :, :, None], 3, axis=3)


def test_what_is_done_is_not_done_again(
    measured: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, printed = once(measured, data, capsys)
    trained: list[float] = []
    play = benchmark.play
    monkeypatch.setattr(benchmark, "embed", lambda *given, **more: pytest.fail("embedded again"))
    monkeypatch.setattr(benchmark, "play", lambda cell: trained.append(cell.share) or play(cell))
    assert benchmark.main(command(data, work)) == 0
    again = capsys.readouterr().out
    assert trained == []
    assert again[again.index("\nsides") :] == printed[printed.index("\nsides") :]
    # A cell that was interrupted is finished, with the same figures; the others stay as they are.
    (lost,) = (path for path in work.glob("*/cell.json") if json.loads(path.read_text())["share"] == 0.1)
    lost.unlink()
    assert benchmark.main(command(data, work)) == 0
    assert trained == [0.1]
    finished = capsys.readouterr().out
    assert finished[finished.index("\nsides") :] == printed[printed.index("\nsides") :]


def test_other_settings_are_other_cells(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = load(data).with_pixels()
    monkeypatch.setattr(benchmark, "_write", lambda s, cohort, backbone, out: features.save(out))

    def folders(**changes: Any) -> set[Path]:
        given = {"backbone": "test_corruption_benchmark:pixels", "size": 8, "labels": 4, "components": 3}
        settings = Settings((data,), shares=(1.0,), work=tmp_path, **{**given, **changes})
        return {cell.folder for cell in benchmark.make_cells(settings)}

    same = folders()
    assert folders(test_episodes=400, jobs=1) == same
    changes: list[dict[str, Any]] = [{"labels": 5}, {"episodes": 9}, {"split_seed": 1}, {"noise": 0.2}, {"size": 7}]
    found = [folders(**change) for change in changes]
    assert len(set.union(same, *found)) == 1 + len(changes)
    assert len(folders(seeds=(0, 1)) | same) == 2


def made_up(folder: Path, data: str, share: float, seed: int) -> Cell:
    """A finished cell of random figures."""
    settings = Settings((Path(f"{data}.npz"),)).of_run(Path(f"{data}.npz"), seed)
    cell = Cell(data, share, settings, folder / f"{data}-{share}-{seed}")
    rng = np.random.default_rng([seed, int(100 * share)])
    write_text(cell.result, json.dumps({"finals": {name: rng.random(20).tolist() for name in STRATEGIES}}))
    return cell


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    done = [made_up(tmp_path, data, share, seed) for data in "ab" for share in (0.0, 0.5) for seed in (0, 3)]
    rows = benchmark.summarise(done)
    assert len(rows) == 2 * 2 * len(STRATEGIES)
    found = {(c.data, c.share, c.settings.seed): np.array(c.read()["finals"]["margin"]) for c in done}
    (row,) = (r for r in rows if (r["data"], r["share"], r["strategy"]) == ("b", 0.5, "margin"))
    noisy, clean = (np.mean([found["b", share, seed] for seed in (0, 3)], axis=0) for share in (0.5, 0.0))
    assert row["seeds"] == pytest.approx([found["b", 0.5, seed].mean() for seed in (0, 3)])
    assert (row["mean"], row["n"]) == (pytest.approx(noisy.mean()), 20)
    assert row["ci95"][0] == pytest.approx(mean_interval(noisy).low)
    assert row["difference"]["ci68"][1] == pytest.approx(paired_difference(noisy, clean, 0.68).high)
    table = benchmark.table(rows, "b")
    assert "20 test episodes, 2 training seeds" in table
    assert "by training seed:" in table
    # Without the clean images there is nothing to compare with.
    alone = benchmark.summarise([cell for cell in done if cell.share])
    assert not any("difference" in r for r in alone)
    assert "less the accuracy without noise" not in benchmark.table(alone, "a")


def test_a_cell_can_be_sent_to_a_process(tmp_path: Path) -> None:
    cell = made_up(tmp_path, "a", 0.5, 0)
    play, sent = pickle.loads(pickle.dumps((benchmark.play, cell)))
    assert play(sent) == cell  # it is done: nothing is trained


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shares", "0", "1.5"], "share=1.5"),
        (["--shares", "0", "0"], "one is named twice"),
        (["--jobs", "0"], "jobs=0"),
        (["--preset", "kermani"], "Did you mean 'kermany'"),
        (["--backbone", "nowhere:network"], "nowhere"),
        (["--labels", "31"], "exceed the pool"),
        (["--data", "nowhere.npz"], "nowhere.npz: no such file"),
    ],
)
def test_bad_values_are_refused_in_one_line(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main([*command(data, tmp_path), *more]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_features_alone_cannot_be_corrupted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "features.npz"
    replace(load(data).with_pixels(), images=None).save(path)
    assert benchmark.main(command(path, tmp_path)) == 2
    assert "it holds features but no images" in capsys.readouterr().err
