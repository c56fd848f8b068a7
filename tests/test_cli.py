"""The two commands: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from run_files import one_run, same_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from activelabel import evaluate, train
from activelabel.agents import Reinforce
from activelabel.agents.checkpoint import read_model
from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation import SelectiveRun, open_run

ROOT = Path(__file__).resolve().parents[1]
SIZES = "--pool 20 --query 12 --k 4 --updates 6 --batch-size 4 --n-samples 2 --hidden 8 --val-every 2 --val-tasks 8"
TINY = [*SIZES.split(), "--test-tasks", "10", "--no-progress", "--device", "cpu", "--threads", "1"]


def arguments(data: str, runs: Path, *more: str) -> list[str]:
    return ["--data", data, "--held-out", "Edema", "Atelectasis", "--runs", str(runs), *TINY, *more]


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert train.main(arguments(data, runs)) == 0
    return one_run(runs)


def test_a_run_is_complete(trained: Path) -> None:
    assert trained.name.startswith("SelectiveLabel-v0__reinforce__0__")
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert (config["k"], config["held_out"]) == (4, ["Edema", "Atelectasis"])
    assert {"python", "torch", "numpy"} <= set(yaml.safe_load((trained / "versions.yaml").read_text()))
    events = EventAccumulator(str(trained)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/reward", "train/loss", "time/fps", "eval/auroc", "eval/random"} <= tags
    assert "eval/kmedoids" in tags
    assert len(events.Scalars("eval/auroc")) == 3
    assert len(events.Scalars("train/loss")) == 6
    assert Reinforce.load(trained / "model.zip").standardizer is not None


def test_a_run_is_opened_from_any_directory(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(data).parent)
    assert train.main(arguments(Path(data).name, tmp_path)) == 0
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(one_run(tmp_path)), "--no-progress", "--tasks", "4"]) == 0


def test_a_run_computes_with_its_own_number_of_threads(trained: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)  # as on a machine of more cores
    run = open_run(trained)
    assert torch.get_num_threads() == 1
    settings = replace(run.settings, threads=2)
    SelectiveRun(tmp_path, settings, progress=False)
    assert torch.get_num_threads() == 2
    with pytest.raises(SettingsError, match="threads=0 must be at least 1"):
        replace(settings, threads=0)


def test_summary_has_the_documented_keys(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert {(r["strategy"], r["k"], r["conditions"]) for r in summary["rows"]} == {
        (s, 4, c) for s in ("random", "kmedoids", "reinforce") for c in ("seen", "held-out")
    }
    for row in summary["rows"]:
        assert set(row) == {"strategy", "k", "conditions", "metric", "mean", "ci", "n", "one_class"}
        assert row["n"] == 10
    for comparison in summary["comparisons"]:
        keys = {"a", "b", "k", "conditions", "metric", "difference", "ci", "n", "verdict"}
        assert set(comparison) == keys
        assert comparison["b"] == "kmedoids"
    assert (trained / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_weights_and_table(trained: Path, data: str, tmp_path: Path) -> None:
    assert train.main(arguments(data, tmp_path)) == 0
    again = one_run(tmp_path)
    assert (again / "table.txt").read_text() == (trained / "table.txt").read_text()
    for name in ("model.zip", "checkpoint.zip"):
        assert same_tensors(read_model(again / name)[1], read_model(trained / name)[1])
    assert train.main(arguments(data, tmp_path / "other", "--seed", "1")) == 0
    other = read_model(one_run(tmp_path / "other") / "checkpoint.zip")[1]
    assert not same_tensors(other["policy"], read_model(trained / "checkpoint.zip")[1]["policy"])


def test_a_run_that_was_killed_ends_like_one_that_was_not(
    trained: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = Reinforce._update

    def killed(self: Reinforce, callback: Any) -> bool:
        if self._n_updates == 5:
            raise KeyboardInterrupt
        return update(self, callback)

    monkeypatch.setattr(Reinforce, "_update", killed)
    assert train.main(arguments(data, tmp_path)) == 130
    run = one_run(tmp_path)
    assert not (run / "summary.json").exists()
    monkeypatch.setattr(Reinforce, "_update", update)
    assert train.main(["--resume", str(run), "--no-progress"]) == 0
    assert (run / "table.txt").read_text() == (trained / "table.txt").read_text()
    for name in ("model.zip", "checkpoint.zip"):
        assert same_tensors(read_model(run / name)[1], read_model(trained / name)[1])
    # A finished run only evaluates again.
    before = (run / "checkpoint.zip").read_bytes()
    assert train.main(["--resume", str(run), "--no-progress"]) == 0
    assert (run / "checkpoint.zip").read_bytes() == before


@pytest.mark.slow
def test_sigkill_loses_no_run(data: str, tmp_path: Path) -> None:
    """The same with a process that is really killed, at whatever moment comes after its first checkpoint."""
    long = [*arguments(data, tmp_path / "killed"), "--updates", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py")]
    with subprocess.Popen([*command, *long], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed").glob("*/checkpoint.zip")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    run = one_run(tmp_path / "killed")
    assert (run / "checkpoint.zip").exists()
    for resumed in (["--resume", str(run), "--no-progress"], [*arguments(data, tmp_path / "whole"), "--updates", "60"]):
        subprocess.run([*command, *resumed], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    whole = one_run(tmp_path / "whole")
    assert same_tensors(read_model(run / "checkpoint.zip")[1], read_model(whole / "checkpoint.zip")[1])
    assert (run / "table.txt").read_text() == (whole / "table.txt").read_text()


def test_evaluate_with_every_strategy_and_several_k(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(trained), "--k", "2", "4", "8", "--against", "random", "kmedoids", "clinical", "--no-progress"]
    assert evaluate.main([*command, "--tasks", "8", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.txt").read_text().strip() in printed
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert {(r["strategy"], r["k"]) for r in rows} == {
        (s, k) for s in ("random", "kmedoids", "clinical", "reinforce") for k in (2, 4, 8)
    }
    assert Reinforce.load(trained / "clinical.zip").policy.inputs == ("clinical",)
    trained_once = (trained / "clinical.zip").read_bytes()
    assert evaluate.main([*command, "--tasks", "8", "--out", str(tmp_path / "b")]) == 0
    assert (trained / "clinical.zip").read_bytes() == trained_once
    assert (tmp_path / "b" / "table.txt").read_text() == (tmp_path / "table.txt").read_text()


def test_what_was_chosen_is_audited(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(trained), "--against", "random", "--no-progress", "--tasks", "12", "--out", str(tmp_path), "--audit"]
    assert evaluate.main(command) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "audit.json").read_text())
    run = open_run(trained, progress=False)
    assert list(found) == [f"{s}, {c} conditions" for s in ("random", "reinforce") for c in run.test]
    for audited in found.values():
        rows = {row["measure"]: row for row in audited["rows"]}
        assert {"mean age", "female", "frontal", "tasks with one class"} <= set(rows)
        assert rows["mean age"]["n"] == 12
    assert printed.count("what ") == len(found)


def test_evaluation_uses_the_standardisation_of_the_model(trained: Path) -> None:
    run = open_run(trained, progress=False)
    assert isinstance(run, SelectiveRun)
    stored = Reinforce.load(trained / "model.zip").standardizer
    assert stored is not None
    np.testing.assert_array_equal(run.test["seen"].standardizer.mean, stored.mean)


BAD = {
    "unknown preset": (["--preset", "medselect-papr"], "Did you mean 'medselect-paper'"),
    "unknown agent": (["--agent", "reinforc"], "Did you mean 'reinforce'"),
    "unknown data": (["--data", "synthetik"], "Did you mean 'synthetic'"),
    "missing file": (["--data", "nowhere.npz"], "nowhere.npz: no such file"),
    "k above the pool": (["--k", "21"], "k=21 images cannot be chosen from a pool of 20"),
    "eval k above the pool": (["--eval-k", "21"], "21 images cannot be chosen from a pool of 20"),
    "unknown condition": (["--held-out", "Edma"], "Did you mean 'Edema'"),
    "too few images": (["--pool", "400"], "needs 206"),
    "unknown class": (["--normal", "Healthy"], "unknown class 'Healthy'"),
    "unknown labels": (["--labels", "label"], "Did you mean 'labels'"),
    "fractions": (["--fractions", "0.5", "0.5", "0.5"], "sum to 1"),
    "no published split": (["--published-split"], "no published split"),
    "unknown strategy": (["--against", "kmedoid"], "Did you mean 'kmedoids'"),
    "leave one out of one": (["--n-samples", "1"], "n_samples=1 must be at least 2"),
    "learning rate": (["--learning-rate", "-1"], "learning_rate=-1.0 must be positive"),
    "no run": (["--resume", "nowhere"], "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_training(
    case: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, message = BAD[case]
    assert train.main(arguments(data, tmp_path, *more)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_preset_without_its_data_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--preset", "kather", "--runs", str(tmp_path / "runs")]) == 2
    assert "preset 'kather' is for a data set of its own: give the file with --data" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_bad_arrays_end_before_training(tmp_path: Path, cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    features = cohort.embedded().copy()
    features[7, 3] = np.nan
    path = tmp_path / "nan.npz"
    np.savez(path, features=features, labels=cohort.labels, label_names=np.array(cohort.classes))
    assert train.main(arguments(str(path), tmp_path / "runs")) == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", ["truncated", "foreign", "missing"])
def test_evaluate_refuses_a_damaged_model(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text((trained / "config.yaml").read_text())
    whole = (trained / "model.zip").read_bytes()
    if case != "missing":
        (tmp_path / "model.zip").write_bytes(whole[: len(whole) // 2] if case == "truncated" else b"PK not a model")
    assert evaluate.main([str(tmp_path), "--no-progress"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "model.zip" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--k", "21"], "k=21"),
        (["--against", "kmeans"], "unknown strategy 'kmeans'"),
        (["--tasks", "0"], "0 test tasks"),
    ],
)
def test_evaluate_refuses_bad_values(
    more: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained), "--no-progress", "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_duplicates_across_the_split_are_reported(
    tmp_path: Path, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    features = cohort.embedded().copy()
    features[1::7] = features[0]
    path = tmp_path / "twins.npz"
    np.savez(path, features=features, labels=cohort.labels, label_names=np.array(cohort.classes))
    assert train.main(arguments(str(path), tmp_path / "runs")) == 0
    error = capsys.readouterr().err
    assert "identical to one of another part" in error
    assert error.startswith("warning: ")
