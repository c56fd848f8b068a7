"""Runs and studies of agents from outside the package; and the example of docs/extending.md, installed and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_play import HERE, First, MyDDQN
from run_files import one_run, same_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from activelabel import evaluate, load, plugins, train
from activelabel.agents.checkpoint import read_model
from activelabel.data.__main__ import main as data_main
from activelabel.evaluation import ActiveRun, open_run
from activelabel.evaluation.plugged import PluggedAgent
from activelabel.evaluation.study.cells import Data, EvaluateCell, TrainCell
from activelabel.evaluation.study.spec import Budget
from activelabel.settings import preset

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "plugin"

ONCE = "--pool 20 --query 12 --k 4 --updates 6 --batch-size 4 --val-every 2 --val-tasks 8 --test-tasks 10"
PPO = ["--agent", "stable_baselines3:PPO", "--agent-options"]
OPTIONS = "{policy: MultiInputPolicy, n_steps: 2, batch_size: 8, n_epochs: 1}"
EPISODES = (
    "--env ActiveLabel-v0 --budget 7 --batch 3 --pool 60 --state-images 5 --learner-epochs 20 --episodes 8 --envs 4"
)
PARTS = "--fractions 0.4 0.3 0.3 --test-shares 0.4 0.1 0.2 0.3 --val-every 1 --val-episodes 4 --test-episodes 5"
QUIET = ["--no-progress", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def once(data: str) -> list[str]:
    return [*ONCE.split(), "--data", data, *QUIET]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*EPISODES.split(), *PARTS.split(), "--data", "digits", *QUIET]


@pytest.fixture(scope="module")
def ppo(once: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    more = ["--held-out", "Edema", "--against", "random", f"{HERE}MyRandom"]
    assert train.main([*once, *PPO, OPTIONS, "--runs", str(runs), *more]) == 0
    return one_run(runs)


def notes(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "model.json").read_text())
    return found


def test_a_run_of_somebody_else_s_agent_is_complete(ppo: Path) -> None:
    assert ppo.name.startswith("SelectiveLabel-v0__stable_baselines3-PPO__0__")
    for name in ("model.zip", "checkpoint.zip", "config.yaml", "report.html", "figure.png", "table.txt"):
        assert (ppo / name).stat().st_size > 0
    found = notes(ppo)
    assert [n for n, _ in found["history"]] == [2, 4, 6]
    assert found["best"] == max(value for _, value in found["history"])
    assert found["finished"]
    rows = json.loads((ppo / "summary.json").read_text())["rows"]
    assert {r["strategy"] for r in rows} == {"random", f"{HERE}MyRandom", "stable_baselines3:PPO"}
    events = EventAccumulator(str(ppo)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"eval/auroc", "eval/random", "eval/kmedoids", "rollout/return", "rollout/ep_rew_mean", "train/loss"} <= tags
    assert [event.step for event in events.Scalars("eval/auroc")] == [8, 16, 24]


def test_it_is_evaluated_again_and_not_trained_again(ppo: Path, tmp_path: Path) -> None:
    before = (ppo / "model.zip").read_bytes(), (ppo / "table.txt").read_text()
    assert train.main(["--resume", str(ppo), "--no-progress"]) == 0
    assert ((ppo / "model.zip").read_bytes(), (ppo / "table.txt").read_text()) == before
    assert evaluate.main([str(ppo), "--tasks", "4", "--no-progress", "--audit", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "audit.json").exists()


def test_another_k_and_the_clinical_baseline_are_refused(ppo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(ppo), "--k", "2", "--no-progress"]) == 2
    assert "chose (10, 4) where (10, 2) was asked for" in capsys.readouterr().err
    assert evaluate.main([str(ppo), "--against", "clinical", "--no-progress"]) == 2
    assert "this run has another agent" in capsys.readouterr().err


def test_one_that_was_interrupted_starts_again_and_ends_alike(
    once: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of = [*once, "--agent", f"{HERE}First", "--agent-options", "{skill: 2.0}", "--runs"]
    assert train.main([*run_of, str(tmp_path / "whole")]) == 0
    step, steps = First.save, []

    def killed(self: First, path: Path) -> None:
        steps.append(path)
        if len(steps) == 4:
            raise KeyboardInterrupt
        step(self, path)

    monkeypatch.setattr(First, "save", killed)
    assert train.main([*run_of, str(tmp_path / "half")]) == 130
    half, whole = one_run(tmp_path / "half"), one_run(tmp_path / "whole")
    assert "finished" not in notes(half)
    monkeypatch.setattr(First, "save", step)
    assert train.main(["--resume", str(half), "--no-progress"]) == 0
    assert notes(half) == notes(whole)
    assert (half / "table.txt").read_text() == (whole / "table.txt").read_text()


def test_an_agent_that_extends_ours_is_resumed_exactly(
    episodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "{warm_start_episodes: 4, gradient_steps: 3, batch_size: 8, policy_kwargs: {hidden: [8]}}"
    run_of = [*episodes, "--agent", f"{HERE}MyDDQN", "--agent-options", own, "--against", f"{HERE}MyMargin", "--runs"]
    assert train.main([*run_of, str(tmp_path / "whole")]) == 0
    play = MyDDQN._play_round

    def killed(self: MyDDQN, callback: Any) -> bool:
        if len(self.returns) == 1:
            raise KeyboardInterrupt
        return play(self, callback)

    monkeypatch.setattr(MyDDQN, "_play_round", killed)
    assert train.main([*run_of, str(tmp_path / "half")]) == 130
    monkeypatch.setattr(MyDDQN, "_play_round", play)
    half, whole = one_run(tmp_path / "half"), one_run(tmp_path / "whole")
    assert train.main(["--resume", str(half), "--no-progress"]) == 0
    assert same_tensors(read_model(half / "checkpoint.zip")[1], read_model(whole / "checkpoint.zip")[1])
    assert not (half / "model.json").exists()


def test_ppo_labels_episodes_and_those_of_another_run(episodes: list[str], tmp_path: Path) -> None:
    run_of = [*episodes, *PPO, OPTIONS, "--against", "random", "--runs", str(tmp_path)]
    assert train.main([*run_of, "--features", "margin", "entropy", "--train-also", "synthetic-1"]) == 0
    first = one_run(tmp_path)
    own = open_run(first, False)
    assert isinstance(own, ActiveRun)
    assert list(own.vals) == ["digits", "synthetic-1"]
    assert isinstance(own.model(), PluggedAgent)
    assert [n for n, _ in notes(first)["history"]] == [1, 2]
    # Another budget; and another run's agent on other features, as it is.
    assert train.main([*run_of[:-1], str(tmp_path / "second")]) == 0
    second = one_run(tmp_path / "second")
    arguments = ["--also", str(first), "--batch", "2", "--budget", "5", "--episodes", "3", "--no-progress"]
    assert evaluate.main([str(second), *arguments, "--out", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "stable_baselines3:PPO of digits" in table
    assert "5 labels, 2 a step" in table


@pytest.mark.parametrize(
    ("agent", "more", "message"),
    [
        ("plugin_play:First", ["--agent-options", "{talent: 1}"], "cannot be made with.*talent"),
        ("stable_baselines3:PPO", [], "policy.*given with agent_options"),
        ("stable_baselines3:DQN", ["--agent-options", "{policy: MultiInputPolicy}"], "MultiDiscrete"),
        ("plugin_play:Wrong", [], r"chose \(2, 2\) where \(2, 4\) was asked for"),
        ("plugin_play:Unsaved", [], r"save\(path\) must write one file"),
        ("plugin_play:First", ["--eval-k", "4", "6"], r"K = 4, 6.*where \(2, 6\) was asked for"),
        ("plugin_play:MyDDQN", [], "DDQN trains on ActiveLabel-v0"),
        ("plugin_play:First", ["--against", "nowhere.at:All"], "cannot be imported"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_line(
    agent: str, more: list[str], message: str, once: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*once, "--agent", agent, *more, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert re.search(message, said, re.DOTALL), said


def test_pools_of_other_sizes_are_found_out_before_the_training(
    once: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*once, *PPO, OPTIONS, "--val-pool", "16", "--runs", str(tmp_path)]
    assert train.main(arguments) == 2
    said = capsys.readouterr().err
    assert "the pools of 16 images of the part 'val'" in said
    assert "needs pools of the same size" in said
    assert not (one_run(tmp_path) / "model.json").exists()


@pytest.mark.parametrize("name", ["model.zip", "model.json"])
def test_damaged_files_are_told(name: str, ppo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ppo, tmp_path / "run")
    (tmp_path / "run" / name).write_text("[")
    assert evaluate.main([str(tmp_path / "run"), "--no-progress"]) == 2
    assert re.search(rf"error: .*{name}: (agent .* cannot load it|damaged)", capsys.readouterr().err)


def test_a_result_is_of_the_code_that_it_was_computed_with() -> None:
    ours, theirs = (TrainCell(Data("x", None), preset("default", agent)) for agent in (None, f"{HERE}First"))
    assert "plugins" not in ours.describe()
    assert theirs.describe()["plugins"] == [plugins.identity("agent", f"{HERE}First")]
    judged = EvaluateCell(Data("x", None), ours.settings, f"{HERE}MyRandom", None, "seen", Budget(k=4), 5)
    assert judged.describe()["plugins"] == [plugins.identity("baseline", f"{HERE}MyRandom")]
    learner = preset("default", None, env="ActiveLabel-v0")
    for cell in (TrainCell, lambda data, s: EvaluateCell(data, s, "random", None, "", Budget(labels=5, batch=1), 5)):
        assert cell(Data("x", None), replace(learner, learner=f"{HERE}Learner")).describe()["plugins"]
        assert "plugins" not in cell(Data("x", None), learner).describe()


# -- the example -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as its wheel is installed. Built with setuptools, which torch brings, and unpacked, which is what pip
    does with it: so that neither pip nor a network is needed."""
    folder = tmp_path_factory.mktemp("example")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_wheel('wheels')"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build], cwd=folder / "source", check=True, capture_output=True
    )
    (wheel,) = (folder / "source" / "wheels").glob("activelabel_example-1.0-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def with_example(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return installed


def test_the_example_trains_through_the_script(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--env ActiveLabel-v0 --agent evolved --data stripes --learner nearest-mean --against random level"
    sizes = "--pool 60 --state-images 10 --budget 7 --batch 3 --episodes 16 --envs 8 --val-every 1 --val-episodes 4"
    parts = "--fractions 0.5 0.2 0.3 --shares 0.6 0.1 0.2 0.1 --test-shares 0.7 0.1 0.1 0.1 --test-episodes 5"
    options = ["--agent-options", "{spread: 2.0}", "--learner-options", "{temperature: 0.5}", "--runs", str(tmp_path)]
    command = [sys.executable, str(ROOT / "train.py"), *arguments.split(), *sizes.split(), *parts.split(), *options]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([*command, *QUIET], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("evolved on ActiveLabel-v0, stripes", "level ", "random "):
        assert name in done.stdout
    # Where it is not installed, that is told.
    assert evaluate.main([str(one_run(tmp_path)), "--no-progress"]) == 2
    assert "unknown agent 'evolved'" in capsys.readouterr().err


def test_the_example_is_evaluated_and_studied(with_example: Path, tmp_path: Path) -> None:
    assert (
        evaluate.main(["--study", str(EXAMPLE / "study.yaml"), "--jobs", "1", "--out", str(tmp_path), *QUIET[:1]]) == 0
    )
    results = (tmp_path / "results.csv").read_text()
    for name in ("central", "PPO", "level", "evolved"):
        assert f",{name}," in results
    runs = {path.name.partition("-0-")[0]: path for path in (tmp_path / "runs").iterdir()}
    assert set(runs) == {"stable_baselines3-PPO", "evolved"}


def test_the_example_embeds(with_example: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "f.npz")
    options = ["--option", "n=30", "--cache", "None", "--no-progress"]
    assert data_main(["embed", "stripes", "--backbone", "thumbnail", "--out", out, *options]) == 0
    assert np.shape(load(out).features) == (30, 192)


def test_the_docs_have_the_whole_example() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    for path in [EXAMPLE / "pyproject.toml", EXAMPLE / "study.yaml", *(EXAMPLE / "activelabel_example").glob("*.py")]:
        if path.name != "__init__.py":
            assert path.read_text().strip() in page, f"docs/extending.md differs from {path}"
