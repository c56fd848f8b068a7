"""Runs of ActiveLabel-v0 that train on several data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_files import arguments, killed_in_round, one_run, rows, same_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from activelabel import train
from activelabel.agents.checkpoint import read_model
from activelabel.baselines import make_pool_baseline
from activelabel.data import Cohort
from activelabel.data.cohort import Source
from activelabel.envs import MixedVectorEnv
from activelabel.evaluation import ActiveRun, open_run, play_episodes
from activelabel.evaluation.episodes import area
from activelabel.settings import ActiveRunSettings, preset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, blobs: Cohort) -> str:
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    blobs.save(path)
    return str(path)


def three_classes(n: int) -> Cohort:
    """Three classes in 4 dimensions."""
    rng = np.random.default_rng(1)
    label = np.arange(n) % 3
    features = 1.5 * rng.standard_normal((3, 4))[label] + rng.standard_normal((n, 4))
    labels = np.eye(3, dtype=np.int8)[label]
    return Cohort(labels, ("a", "b", "c"), features.astype(np.float32), source=Source(name="three"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "three.npz"
    three_classes(500).save(path)
    return str(path)


def test_a_run_on_two_data_sets(data: str, three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It validates on both and tests on one; interrupted and resumed it ends as at once."""
    more = ["--train-also", three, "--classes", "A", "B", "D", "--components", "5", "--envs", "5"]
    monkeypatch.chdir(Path(three).parent)
    assert train.main(arguments(data, tmp_path / "whole", *more[:1], "three.npz", *more[2:])) == 0
    whole = one_run(tmp_path / "whole")
    monkeypatch.chdir(tmp_path)  # the file is found from anywhere
    run = open_run(whole, progress=False)
    assert isinstance(run, ActiveRun)
    assert run.settings.train_also == (three,)
    assert "trained on" in run.describe()
    # What names classes belongs to data alone, and there are no five components of four features.
    assert [engine.classes for engine in run.trained] == [("A", "B", "D"), ("a", "b", "c")]
    assert [engine.space.components for engine in run.trained] == [5, 4]
    env = run._env(run.settings, run.trained, run.settings.envs)
    assert isinstance(env, MixedVectorEnv)
    assert [part.num_envs for part in env.parts] == [3, 2]
    run.settings = replace(run.settings, also_share=0.25)
    env = run._env(run.settings, run.trained, run.settings.envs)
    assert isinstance(env, MixedVectorEnv)
    assert [part.num_envs for part in env.parts] == [4, 1]
    # The best model is the best on the mean of the validation parts.
    model, events = run.model(), EventAccumulator(str(whole)).Reload()
    for tag in ("aulc", "random", "margin"):
        found = {
            name: play_episodes(engine, model if tag == "aulc" else make_pool_baseline(tag, 3, 0), 6)
            for name, engine in run.vals.items()
        }
        each = [area(curves.labels, curves.reward).mean() for curves in found.values()]
        assert list(found) == ["blobs", "three"]
        if tag == "aulc":
            assert np.mean(each) == pytest.approx(model.notes["best"])
            at = [e.value for e in events.Scalars("eval/aulc")].index(pytest.approx(model.notes["best"]))
        for name, value in zip(("", "/blobs", "/three"), (np.mean(each), *each), strict=True):
            assert events.Scalars(f"eval/{tag}{name}")[at].value == pytest.approx(value)
    assert set(rows(whole)) == {"random", "margin", "ddqn"}

    # One round after the checkpoint.
    stopped = killed_in_round(3, arguments(data, tmp_path / "killed", *more), tmp_path / "killed")
    assert train.main(["--resume", str(stopped), "--no-progress"]) == 0
    assert (stopped / "table.txt").read_text() == (whole / "table.txt").read_text()
    for name in ("model.zip", "checkpoint.zip"):
        assert same_tensors(read_model(stopped / name)[1], read_model(whole / name)[1])


def test_lal_rl_is_trained_on_the_same_data_sets(
    data: str, three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"episodes": 2, "envs": 1, "warm_start_episodes": 2, "gradient_steps": 2, "val_every": 1}
    own = preset("lal-rl", "lal-rl", env="ActiveLabel-v0").__dict__
    monkeypatch.setattr(
        "activelabel.evaluation.active_run.preset", lambda *given: ActiveRunSettings(**{**own, **short})
    )
    assert train.main(arguments(data, tmp_path, "--train-also", three, "--against", "lal-rl")) == 0
    header, _ = read_model(one_run(tmp_path) / "lal-rl-checkpoint.zip")
    assert [len(part["rng"]) for part in header["env"][0]["parts"]] == [1, 1]


def test_another_data_set_that_is_too_small_is_named(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "few.npz"
    three_classes(90).save(path)
    runs = tmp_path / "runs"
    runs.mkdir()
    assert train.main(arguments(data, runs, "--train-also", str(path))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert "pool=60" in error
    # So are sets that cannot be played together.
    assert train.main(arguments(data, runs, "--train-also", "digits", "--pool", "60", "--state", "per-class")) == 2
    assert "shape of observation 'state'=(50,) of part 1 (digits)" in capsys.readouterr().err
    assert list(runs.iterdir()) == []
