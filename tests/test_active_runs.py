"""The two commands for ActiveLabel-v0: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_files import EVALUATION, SIZES, arguments, killed_in_round, one_run, rows, same_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from activelabel import evaluate, train
from activelabel.agents import DDQN, LAL_RL_ENV, LalRl
from activelabel.agents.checkpoint import read_model
from activelabel.data import Cohort
from activelabel.data.episodes import EpisodeSampler
from activelabel.evaluation import ActiveRun, open_run, play_episodes
from activelabel.evaluation.episodes import area
from activelabel.settings import ActiveRunSettings, preset

ROOT = Path(__file__).resolve().parents[1]
TAGS = {"rollout/ep_rew_mean", "rollout/epsilon", "train/loss", "train/q_values", "time/fps"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, blobs: Cohort) -> str:
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    blobs.save(path)
    return str(path)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert train.main(arguments(data, runs)) == 0
    return one_run(runs)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on another data set: three digits instead of four blobs, other features, another pool."""
    runs = tmp_path_factory.mktemp("other")
    more = ["--classes", "3", "5", "8", "--features", "margin", "density", "--state", "confidence", "--pool", "50"]
    assert train.main(arguments("digits", runs, *more)) == 0
    return one_run(runs)


def test_a_run_is_complete(trained: Path) -> None:
    assert trained.name.startswith("ActiveLabel-v0__ddqn__0__")
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert (config["budget"], config["batch"], config["against"]) == (7, 3, ["random", "margin"])
    events = EventAccumulator(str(trained)).Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= TAGS | {"eval/aulc", "eval/accuracy", "eval/random", "eval/margin"}
    # Five rounds of four episodes, validated after 2, 4 and the last.
    assert len(events.Scalars("rollout/epsilon")) == 5
    assert [event.step for event in events.Scalars("eval/aulc")] == [24, 48, 60]
    notes = DDQN.load(trained / "checkpoint.zip").notes
    assert [entry[0] for entry in notes["history"]] == [2, 4, 5]
    best = DDQN.load(trained / "model.zip")
    assert best.notes["best"] == notes["best"] == max(entry[1] for entry in notes["history"])
    # What is enough to predict takes less room.
    assert len(best.replay) == 0
    assert len(DDQN.load(trained / "checkpoint.zip").replay) == 40


def test_summary_has_the_documented_keys(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert set(summary) == {"run", "preset", "data", "rows", "comparisons", "curves"}
    assert {(r["strategy"], r["metric"], r["budget"], r["batch"], r["n"]) for r in summary["rows"]} == {
        (s, m, 7, 3, 10) for s in ("random", "margin", "ddqn") for m in ("aulc", "accuracy")
    }
    assert {(c["a"], c["b"]) for c in summary["comparisons"]} == {("ddqn", "random"), ("ddqn", "margin")}
    assert [c["labels"] for c in summary["curves"]] == [[0, 3, 6, 7]] * 3
    assert (trained / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_model_is_chosen_on_the_validation_reward_set(trained: Path) -> None:
    run = open_run(trained, progress=False)
    assert isinstance(run, ActiveRun)
    model = run.model()
    found = play_episodes(run.val, model, 6)
    assert area(found.labels, found.reward).mean() == pytest.approx(model.notes["best"])
    # Nobody looks at its test set, so the larger share goes to its reward set.
    assert len(run.val.y["reward"]) > len(run.val.y["test"])
    assert len(run.test.y["reward"]) < len(run.test.y["test"])
    rows = [set(engine.sampler.rows[p]) for engine in (run.engine, run.val, run.test) for p in engine.sampler.rows]
    assert sum(map(len, rows)) == len(set.union(*rows))


def test_another_seed_is_another_run(trained: Path, data: str, tmp_path: Path) -> None:
    assert train.main(arguments(data, tmp_path, "--seed", "1")) == 0
    other = read_model(one_run(tmp_path) / "checkpoint.zip")[1]
    assert not same_tensors(other["policy"], read_model(trained / "checkpoint.zip")[1]["policy"])


def test_a_run_that_was_killed_ends_like_one_that_was_not(trained: Path, data: str, tmp_path: Path) -> None:
    run = killed_in_round(4, arguments(data, tmp_path), tmp_path)  # one round after the checkpoint
    assert not (run / "summary.json").exists()
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
    """A process that is killed, at whatever moment comes after its first checkpoint, and goes on in another one, ends
    like one that was not.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py")]
    long = ["--episodes", "80"]
    killed = [*command, *arguments(data, tmp_path / "killed", *long)]
    with subprocess.Popen(killed, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed").glob("*/checkpoint.zip")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    run = one_run(tmp_path / "killed")
    assert not (run / "summary.json").exists()
    assert train.main(["--resume", str(run), "--no-progress"]) == 0
    assert train.main(arguments(data, tmp_path / "whole", *long)) == 0
    whole = one_run(tmp_path / "whole")
    assert same_tensors(read_model(run / "checkpoint.zip")[1], read_model(whole / "checkpoint.zip")[1])
    assert (run / "table.txt").read_text() == (whole / "table.txt").read_text()


def test_a_training_that_has_settled_is_complete(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DDQN, "_settled", lambda self: len(self.returns) == 3)
    assert train.main(arguments(data, tmp_path, "--patience", "1")) == 0
    run = one_run(tmp_path)
    model = DDQN.load(run / "checkpoint.zip")
    assert model.notes["stopped"]
    # The round that it stopped after is validated, whatever val_every says.
    assert [entry[0] for entry in model.notes["history"]] == [2, 3]
    before = (run / "checkpoint.zip").read_bytes()
    assert train.main(["--resume", str(run), "--no-progress"]) == 0
    assert (run / "checkpoint.zip").read_bytes() == before


def test_evaluate_at_another_budget_and_batch(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(trained), "--no-progress", "--out", str(tmp_path), "--budget", "4", "--batch", "2"]
    assert evaluate.main([*command, "--episodes", "5", "--against", "random", "typiclust", "oracle"]) == 0
    assert (tmp_path / "table.txt").read_text().strip() in capsys.readouterr().out
    found = rows(tmp_path)
    assert list(found) == ["random", "typiclust", "oracle", "ddqn"]
    assert {(row["budget"], row["batch"], row["n"]) for row in found.values()} == {(4, 2, 5)}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["curves"][0]["labels"] == [0, 2, 4]


def test_what_was_labelled_is_audited(trained: Path, tmp_path: Path) -> None:
    command = [str(trained), "--no-progress", "--out", str(tmp_path), "--against", "random", "margin", "--audit"]
    assert evaluate.main([*command, "--episodes", "6"]) == 0
    found = json.loads((tmp_path / "audit.json").read_text())
    assert list(found) == ["random", "margin", "ddqn"]
    for audited in found.values():
        spent = next(row for row in audited["rows"] if row["measure"] == "labels spent on nothing new")
        assert (spent["selected"], spent["n"]) == (0, 6)


def test_lal_rl_is_trained_on_first_use(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"episodes": 8, "envs": 4, "warm_start_episodes": 4, "gradient_steps": 2, "val_every": 1}
    own = preset("lal-rl", "lal-rl", env="ActiveLabel-v0").__dict__
    monkeypatch.setattr(
        "activelabel.evaluation.active_run.preset", lambda *given: ActiveRunSettings(**{**own, **short})
    )
    command = [str(trained), "--no-progress", "--against", "lal-rl", "random", "--episodes", "4"]
    assert evaluate.main([*command, "--out", str(tmp_path)]) == 0
    assert set(rows(tmp_path)) == {"lal-rl", "random", "ddqn"}
    model = LalRl.load(trained / "lal-rl.zip")
    assert (model.n, model.env_settings["learner"], model.env_settings["state_images"]) == (1, "logistic", 5)
    assert all(model.env_settings[name] == LAL_RL_ENV[name] for name in model.env_settings if name in LAL_RL_ENV)
    # The test's judge labels three a step, and the curve has its steps.
    assert json.loads((tmp_path / "summary.json").read_text())["curves"][0]["labels"] == [0, 3, 6, 7]
    once = (trained / "lal-rl.zip").read_bytes()
    assert evaluate.main([*command, "--out", str(tmp_path / "b")]) == 0
    assert (trained / "lal-rl.zip").read_bytes() == once
    assert (tmp_path / "b" / "table.txt").read_text() == (tmp_path / "table.txt").read_text()
    for path in trained.glob("lal-rl*.zip"):  # other tests use the run without it
        path.unlink()


def test_agents_of_other_runs_join_the_table(
    trained: Path, other: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on other images, classes, features and pools, and used as they are."""
    command = ["--no-progress", "--against", "random", "--episodes", "5"]
    assert evaluate.main([str(trained), *command, "--also", str(other), str(trained), "--out", str(tmp_path)]) == 0
    found = rows(tmp_path)
    assert list(found) == ["random", "DDQN of digits", "DDQN of blobs", "ddqn"]
    assert found["DDQN of blobs"]["mean"] == found["ddqn"]["mean"]
    assert found["DDQN of digits"]["mean"] != found["ddqn"]["mean"]
    table = (tmp_path / "table.txt").read_text()
    (same,) = (line for line in table.splitlines() if line.startswith("DDQN of blobs"))
    assert same.endswith("not distinguishable")
    comparisons = json.loads((tmp_path / "summary.json").read_text())["comparisons"]
    assert {c["b"] for c in comparisons} == {"random", "DDQN of digits", "DDQN of blobs"}
    twice = [str(other), *command, "--also", str(trained), str(trained), "--out", str(tmp_path / "b")]
    assert evaluate.main(twice) == 0
    assert list(rows(tmp_path / "b"))[1:3] == ["DDQN of blobs", f"DDQN of blobs ({trained.name})"]


def test_a_run_of_lal_rl_itself(data: str, tmp_path: Path) -> None:
    more = ["--agent", "lal-rl", "--env", "ActiveLabel-v0", "--data", data, "--runs", str(tmp_path), *SIZES.split()]
    more += [*EVALUATION.split(), "--warm-start-episodes", "4", "--gradient-steps", "2", "--val-every", "4"]
    more[more.index("--learner-epochs") + 1] = "50"
    more[more.index("--batch") + 1] = "1"
    assert train.main([*more, "--against", "random", "lal-rl"]) == 0
    run = one_run(tmp_path)
    assert run.name.startswith("ActiveLabel-v0__lal-rl__")
    assert list(rows(run)) == ["random", "lal-rl"]
    assert LalRl.load(run / "model.zip").n == 1


BAD = {
    "unknown preset": (["--preset", "slade202"], "Did you mean 'slade2022'"),
    "unknown agent": (["--agent", "dqn"], "Did you mean 'ddqn'"),
    "agent of another env": (["--agent", "reinforce"], "agent 'reinforce' does not play ActiveLabel-v0"),
    "unknown data": (["--data", "synthetik"], "Did you mean 'synthetic'"),
    "class missing from a part": (["--test-shares", "0.9", "0.05", "0.025", "0.025"], "class 'D' has 0 images"),
    "budget above the pool": (["--budget", "57"], "budget=57 and 4 initial labels exceed the pool of 60"),
    "batch above the budget": (["--batch", "8"], "batch=8 labels a step exceed the budget of 7"),
    "batch above the candidates": (["--candidates", "2"], "cannot be chosen from candidates=2"),
    "pool above the part": (["--pool", "400"], "pool=400"),
    "unknown further data": (["--train-also", "synthetik"], "Did you mean 'synthetic'"),
    "further data twice": (["--train-also", "digits", "digits"], "train_also=['digits', 'digits'] beside data="),
    "fewer envs than data": (["--train-also", "digits", "--envs", "1"], "envs=1 are fewer than the 2 data sets"),
    "share of no data": (["--also-share", "0.5"], "also_share=0.5 is of the sets of train_also, and there is none"),
    "unknown class": (["--classes", "A", "Bee"], "unknown class 'Bee'"),
    "unknown feature": (["--features", "margn"], "Did you mean 'margin'"),
    "unknown learner": (["--learner", "softmx"], "Did you mean 'softmax'"),
    "argument of another learner": (["--learner", "logistic", "--learner-warm"], "does not go with the learner"),
    "strength of the learner": (["--learner-c", "0"], "c=0.0 must be positive"),
    "shares": (["--shares", "0.5", "0.5", "0.5", "0.5"], "shares=[0.5, 0.5, 0.5, 0.5] must be four positive"),
    "too many components": (["--components", "7"], "components=7 exceed the 6 features"),
    "unknown strategy": (["--against", "margn"], "Did you mean 'margin'"),
    "strategy of the other env": (["--against", "kmedoids"], "unknown strategy 'kmedoids'"),
    "unknown strategy of scikit-activeml": (["--against", "skactiveml:Nothing"], "scikit-activeml"),
    "credit": (["--credit", "most"], "unknown credit 'most'"),
    "no layers": (["--hidden", "0"], "hidden=[0] must be sizes of layers"),
    "learning rate": (["--learning-rate", "-1"], "learning_rate=-1.0 must be positive"),
    "no episodes": (["--episodes", "0"], "episodes=0 must be at least 1"),
    "negative seed": (["--seed", "-1"], "seed=-1"),
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


def test_an_agent_of_the_other_env_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--agent", "ddqn", "--runs", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error == "error: agent 'ddqn' does not play SelectiveLabel-v0; give it --env ActiveLabel-v0."


def test_a_preset_without_its_data_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--env", "ActiveLabel-v0", "--preset", "kather", "--runs", str(tmp_path / "runs")]
    assert train.main(given) == 2
    assert "preset 'kather' is for a data set of its own: give the file with --data" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", ["truncated", "foreign", "missing", "of another agent"])
def test_evaluate_refuses_a_damaged_model(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (trained / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(
        config.replace("agent: ddqn", "agent: lal-rl") if case == "of another agent" else config
    )
    whole = (trained / "model.zip").read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "foreign": b"PK not a model", "of another agent": whole}
    if case in contents:
        (tmp_path / "model.zip").write_bytes(contents[case])
    for given in ([str(tmp_path)], [str(trained), "--out", str(tmp_path / "out"), "--also", str(tmp_path)]):
        assert evaluate.main([*given, "--no-progress"]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert "model.zip" in error
        assert "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "57"], "budget=57"),
        (["--batch", "0"], "batch=0"),
        (["--episodes", "0"], "0 test episodes"),
        (["--against", "kmeans"], "unknown strategy 'kmeans'"),
        (["--k", "3"], "--k is not for a run of ActiveLabel-v0"),
        (["--tasks", "3"], "--tasks is not for a run of ActiveLabel-v0"),
        (["--also", "nowhere"], "no such file"),
    ],
)
def test_evaluate_refuses_bad_values(
    more: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained), "--no-progress", "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scrambled_test_labels_change_nothing_but_the_figures(
    trained: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, validation and choices know nothing of any test set."""
    divide = EpisodeSampler.__init__

    def scrambled(self: EpisodeSampler, *args: Any, **kwargs: Any) -> None:
        divide(self, *args, **kwargs)
        self.labels["test"] = self.labels["test"][::-1].copy()

    monkeypatch.setattr(EpisodeSampler, "__init__", scrambled)
    assert train.main(arguments(data, tmp_path)) == 0
    run = one_run(tmp_path)
    for name in ("model.zip", "checkpoint.zip"):
        assert same_tensors(read_model(run / name)[1], read_model(trained / name)[1])
    for strategy, row in rows(run).items():
        assert row["mean"] < rows(trained)[strategy]["mean"]
