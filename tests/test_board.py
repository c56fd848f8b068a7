"""What TensorBoard shows of a run, read back from its files."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from google.protobuf import text_format
from PIL import Image
from run_files import one_run, same_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter

from activelabel import evaluate, train
from activelabel.agents import DDQN, Reinforce
from activelabel.agents.checkpoint import read_model
from activelabel.envs import RunningEpisodes
from activelabel.evaluation import Run, board, collect, collect_episodes, create_run, open_run, play, validation
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.episodes import area
from activelabel.evaluation.run import best_model
from activelabel.evaluation.selective_run import SelectiveRun

SELECTIVE = (
    "--pool 20 --query 12 --k 4 --updates 5 --batch-size 4 --n-samples 2 --hidden 8 --val-every 2 --val-tasks 40 "
    "--test-tasks 6 --eval-k 2 4 --normal 0 --held-out 3 4 --conditions 1 2 5"
)
ACTIVE = (
    "--env ActiveLabel-v0 --budget 7 --batch 3 --pool 60 --state-images 5 --learner-epochs 10 --episodes 18 --envs 4 "
    "--hidden 8 8 --warm-start-episodes 8 --gradient-steps 3 --batch-size 8 --next-candidates 4 --buffer-size 40 "
    "--val-every 2 --val-episodes 12 --test-episodes 4 --against random margin"
)
ENVS = {"SelectiveLabel-v0": SELECTIVE, "ActiveLabel-v0": ACTIVE}
HISTOGRAM = {"SelectiveLabel-v0": "eval/logits", "ActiveLabel-v0": "eval/q_values"}


def arguments(env: str, runs: Path) -> list[str]:
    return ["--data", "digits", "--runs", str(runs), "--no-progress", "--device", "cpu", *ENVS[env].split()]


@pytest.fixture(scope="module", params=list(ENVS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert train.main(arguments(request.param, runs)) == 0
    return one_run(runs)


def another(trained: Path, runs: Path) -> Run:
    """The same run once more, not yet trained."""
    return create_run(train.parse(arguments(env_of(trained), runs)).settings, runs, progress=False)


def same_models(a: Path, b: Path) -> bool:
    return all(same_model(read_model(a / name), read_model(b / name)) for name in ("model.zip", "checkpoint.zip"))


def same_model(a: Any, b: Any) -> bool:
    return same_tensors(a[1], b[1]) and a[0]["notes"] == b[0]["notes"]


def env_of(run: Path) -> str:
    return run.name.split("__")[0]


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0, "tensors": 0}).Reload()


def opened(folder: Path) -> SelectiveRun | ActiveRun:
    run = open_run(folder, progress=False)
    assert isinstance(run, SelectiveRun | ActiveRun)
    return run


def first_choice(run: SelectiveRun | ActiveRun) -> Any:
    if isinstance(run, SelectiveRun):
        return collect(run.test["seen"], run.model(), run.settings.k, 1)
    return collect_episodes(run.test, run.model(), 1)


# -- while it trains --------------------------------------------------------------------------------------------------


def test_histograms_stand_at_every_validation(trained: Path) -> None:
    found = events(trained)
    shown = found.Histograms(HISTOGRAM[env_of(trained)])
    selective = env_of(trained) == "SelectiveLabel-v0"
    validated = [e.step for e in found.Scalars("eval/auroc" if selective else "eval/aulc")]
    assert [e.step for e in shown] == validated
    run = opened(trained)
    if selective:
        numbers = {validation.SHOWN * 20}
    else:  # three steps; what is labelled cannot be labelled again
        pool = run.val.pool - run.val.n_initial
        numbers = {validation.SHOWN * (3 * pool - 3 - 6)}
    assert {e.histogram_value.num for e in shown} == numbers
    # What a validation computes anyway, again, with the network of the last one.
    last = last_model(trained)
    values = values_at_first(run, last)
    assert shown[-1].histogram_value.min == pytest.approx(values.min(), abs=1e-6)
    assert shown[-1].histogram_value.max == pytest.approx(values.max(), abs=1e-6)


def last_model(folder: Path) -> Any:
    return (Reinforce if env_of(folder) == "SelectiveLabel-v0" else DDQN).load(folder / "checkpoint.zip", device="cpu")


def values_at_first(run: SelectiveRun | ActiveRun, model: Any) -> np.ndarray:
    """The same values, written down step by step."""
    if isinstance(run, SelectiveRun):
        observation = run.val.observe(run.val.tasks(range(validation.SHOWN)))
        with torch.no_grad():
            return model.policy(model.policy.tensors(observation)[0]).numpy()
    episodes = RunningEpisodes(run.val, validation.SHOWN)
    episodes.begin(np.arange(validation.SHOWN), np.arange(validation.SHOWN))
    seen = []
    while not episodes.over.all():
        observation = episodes.observe()
        state, candidates, mask, _ = model.policy.encode(observation)
        seen.append(model.policy.values(state, candidates)[mask].numpy())
        episodes.label(model.predict(observation, deterministic=True)[0])
    return np.concatenate(seen)


def test_values_that_are_not_finite_end_no_training(trained: Path) -> None:
    run = opened(trained)
    model = last_model(trained)
    with torch.no_grad():
        next(model.policy.parameters()).fill_(float("nan"))
    recorded: dict[str, Any] = {}

    class Recorder:
        def record(self, name: str, value: Any) -> None:
            recorded[name] = value

    if isinstance(run, SelectiveRun):
        watcher: Any = validation.MetaValidation(run.val, 4, 1, {}, trained, trained, None)
    else:
        watcher = validation.EpisodeValidation(run.vals, 2, 3, 1, {}, trained, trained, None)
    watcher.model = model
    model.set_logger(Recorder())
    watcher.judge()
    assert recorded == {}
    watcher.show("some", torch.tensor([1.0, float("inf"), float("nan"), 2.0]))
    assert recorded["eval/some"].tolist() == [1.0, 2.0]


def test_the_views_change_no_weight(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_was(self: validation.MetaValidation) -> dict[str, float]:
        k = self.model.k
        return {"auroc": float(np.mean(play(self.engine, self.model, [k], self.n_tasks)[k].reward))}

    def as_it_was_in_episodes(self: validation.EpisodeValidation) -> dict[str, float]:
        found = validation.play_episodes(self.engines["digits"], self.model, self.n_episodes)
        return {"aulc": float(area(found.labels, found.reward).mean())}

    monkeypatch.setattr(validation.MetaValidation, "judge", as_it_was)
    monkeypatch.setattr(validation.EpisodeValidation, "judge", as_it_was_in_episodes)
    plain = another(trained, tmp_path)
    plain.train()
    assert events(plain.folder).Tags()["histograms"] == []
    assert same_models(plain.folder, trained)


def test_a_resumed_run_has_every_event_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls: Any = {"SelectiveLabel-v0": Reinforce, "ActiveLabel-v0": DDQN}[env_of(trained)]
    dump, dumped = cls.dump_logs, Counter[str]()

    def killed(self: Any) -> None:
        dump(self)
        dumped["logs"] += 1
        if dumped["logs"] == 3:  # one update (round) after the first checkpoint
            raise KeyboardInterrupt

    monkeypatch.setattr(cls, "dump_logs", killed)
    with pytest.raises(KeyboardInterrupt):
        another(trained, tmp_path).train()
    monkeypatch.setattr(cls, "dump_logs", dump)
    run = one_run(tmp_path)
    first = set(run.glob("events*"))
    logged = [e.step for e in events(run).Scalars("train/learning_rate")]
    time.sleep(1.01 - time.time() % 1)  # files are read in the order of their names, which say the second
    opened(run).train()
    (again,) = set(run.glob("events*")) - first
    steps = [e.step for e in EventFileLoader(str(again)).Load() if e.HasField("summary")]
    assert min(steps) <= logged[-1]  # the interrupted one had logged more than it had saved
    found, whole = events(run), events(trained)
    tags = whole.Tags()
    for tag in tags["scalars"]:
        assert [e.step for e in found.Scalars(tag)] == [e.step for e in whole.Scalars(tag)]
        if not tag.startswith(("time/", "rollout/ep_")):  # those begin anew
            assert [e.value for e in found.Scalars(tag)] == [e.value for e in whole.Scalars(tag)]
    (tag,) = tags["histograms"]
    assert [(e.step, e.histogram_value) for e in found.Histograms(tag)] == [
        (e.step, e.histogram_value) for e in whole.Histograms(tag)
    ]
    # A finished training adds nothing.
    opened(run).train()
    assert set(run.glob("events*")) == {*first, again}


def test_a_full_disk_ends_the_training_which_can_be_resumed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = RecordWriter.write, Counter[str]()

    def full(self: RecordWriter, data: bytes) -> None:
        written["records"] += 1
        if written["records"] > 30 and written["full"] == 0:
            written["full"] = 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)
    with pytest.raises(OSError, match="No space left"):
        another(trained, tmp_path).train()
    run = one_run(tmp_path)
    opened(run).train()
    assert same_models(run, trained)


# -- after the evaluation ---------------------------------------------------------------------------------------------


def test_learning_curves_stand_beside_each_other(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    folders = {folder.name: events(folder) for folder in (trained / board.CURVES).iterdir()}
    expected: dict[str, dict[str, list[tuple[int, float]]]] = {}
    if env_of(trained) == "SelectiveLabel-v0":
        for row in summary["rows"]:
            tag = f"test/auroc_{row['conditions']}"
            expected.setdefault(row["strategy"], {}).setdefault(tag, []).append((row["k"], row["mean"]))
    else:
        for curve in summary["curves"]:
            points = zip(curve["labels"], curve["mean"], strict=True)
            expected[curve["strategy"]] = {"test/accuracy": list(points)}
    assert set(folders) == set(expected)
    for strategy, curves in expected.items():
        assert set(folders[strategy].Tags()["scalars"]) == set(curves)
        for tag, points in curves.items():
            found = [(e.step, e.value) for e in folders[strategy].Scalars(tag)]
            assert [step for step, _ in found] == [labels for labels, _ in points]
            np.testing.assert_allclose([v for _, v in found], [v for _, v in points], rtol=1e-6)


def test_the_mosaic_shows_what_was_selected_in_order(trained: Path) -> None:
    run = opened(trained)
    chosen = first_choice(run)
    (shown,) = events(trained / board.OUTCOME).Images("selected")
    picture = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
    k = chosen.chosen.shape[1]
    assert picture.shape == (shown.height, shown.width, 3) == (board.TILE + 15, 10 * board.TILE, 3)
    images: Any = run.cohort.images
    for place, row in enumerate(chosen.rows[0]):
        tile = Image.fromarray(images[row]).resize((board.TILE, board.TILE), Image.Resampling.BILINEAR)
        left = place * board.TILE
        np.testing.assert_array_equal(picture[: board.TILE, left : left + board.TILE, 0], np.asarray(tile))
        assert (picture[board.TILE :, left : left + board.TILE] < 128).any()  # its number and label
    assert (picture[:, k * board.TILE :] == 255).all()


def test_the_projector_has_the_pool_with_the_selected_marked(trained: Path) -> None:
    run, folder = opened(trained), trained / board.OUTCOME
    chosen = first_choice(run)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (pool,) = config.embeddings
    points = np.loadtxt(folder / pool.tensor_path, delimiter="\t")
    assert points.shape == tuple(pool.tensor_shape)
    np.testing.assert_allclose(points, chosen.points[chosen.pool[0]], rtol=1e-4, atol=1e-8)
    head, *lines = [line.split("\t") for line in (folder / pool.metadata_path).read_text().splitlines()]
    assert head == ["image", "class", "selected", "order"]
    assert [int(line[0]) for line in lines] == chosen.pool[0].tolist()
    assert [line[1] for line in lines] == [chosen.classes[label] for label in chosen.pool_labels[0]]
    order = {place: str(turn + 1) for turn, place in enumerate(chosen.chosen[0].tolist())}
    assert [line[3] for line in lines] == [order.get(place, "-") for place in range(len(lines))]
    assert [line[2] for line in lines] == ["yes" if place in order else "no" for place in range(len(lines))]
    sprite = np.asarray(Image.open(folder / pool.sprite.image_path))
    width, height = pool.sprite.single_image_dim
    columns = sprite.shape[1] // width
    images: Any = run.cohort.images
    for place in (0, len(lines) - 1):
        y, x = place // columns * height, place % columns * width
        tile = Image.fromarray(images[chosen.pool[0, place]]).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(sprite[y : y + height, x : x + width, 0], np.asarray(tile))


def test_hparams_hold_the_settings_and_the_outcome(trained: Path) -> None:
    found = events(trained / board.OUTCOME)
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    for name, value in yaml.safe_load((trained / "config.yaml").read_text()).items():
        if value is None:
            assert name not in hparams
        elif isinstance(value, bool):
            assert hparams[name].WhichOneof("kind") == "bool_value"
            assert hparams[name].bool_value == value
        elif isinstance(value, list):
            assert hparams[name].string_value == " ".join(map(str, value))
        elif isinstance(value, dict):
            assert json.loads(hparams[name].string_value) == value
        else:
            assert value in (hparams[name].number_value, hparams[name].string_value)
    # TensorBoard would show of every run what the first that wrote an experiment says.
    assert metadata.EXPERIMENT_TAG not in found.Tags()["tensors"]
    outcome = {tag.removeprefix("outcome/"): found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    summary = json.loads((trained / "summary.json").read_text())
    run = opened(trained)
    best = best_model(trained, run.settings, "cpu").notes["best"]
    if env_of(trained) == "SelectiveLabel-v0":
        expected = {"validation_auroc": best}
        for conditions in ("seen", "held-out"):
            for k, name in ((4, ""), (2, "_k2")):
                key = {"k": k, "conditions": conditions}
                expected[f"auroc_{conditions}{name}"] = only(summary["rows"], strategy="reinforce", **key)["mean"]
                gap = only(summary["comparisons"], a="reinforce", **key)["difference"]
                expected[f"minus_kmedoids_{conditions}{name}"] = gap
    else:
        expected = {"validation_aulc": best}
        for metric in ("aulc", "accuracy"):
            expected[metric] = only(summary["rows"], strategy="ddqn", metric=metric)["mean"]
        for other in ("random", "margin"):
            expected[f"minus_{other}"] = only(summary["comparisons"], b=other, metric="aulc")["difference"]
    assert outcome == pytest.approx(expected, abs=1e-6)


def only(entries: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    (entry,) = [e for e in entries if all(e[key] == value for key, value in keys.items())]
    return entry


def test_another_evaluation_replaces_the_views(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / trained.name
    shutil.copytree(trained, copy)
    size = ["--tasks", "3"] if env_of(trained) == "SelectiveLabel-v0" else ["--episodes", "3", "--budget", "5"]
    command = [str(copy), "--against", "random", "--no-progress", *size]
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert evaluate.main([*command, "--out", str(tmp_path / "elsewhere")]) == 0
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    monkeypatch.chdir(copy)
    assert evaluate.main([".", *command[1:]]) == 0
    agent = {"SelectiveLabel-v0": "reinforce", "ActiveLabel-v0": "ddqn"}[env_of(trained)]
    assert {folder.name for folder in (copy / board.CURVES).iterdir()} == {"random", agent}
    assert len(list((copy / board.OUTCOME).glob("events*"))) == 1
    tags = set(events(copy / board.OUTCOME).Tags()["scalars"])
    if env_of(trained) == "ActiveLabel-v0":  # not the budget of the settings
        of_test = {"aulc_5_by_3", "accuracy_5_by_3", "minus_random_5_by_3"}
        assert tags == {f"outcome/{name}" for name in ("validation_aulc", *of_test)}


def test_a_cohort_without_images_or_features(trained: Path, tmp_path: Path) -> None:
    run: Run = opened(trained)
    chosen = first_choice(run)  # type: ignore[arg-type]
    views = board.Views({"of a/b: c": {"test/accuracy": [(0, 0.5)]}}, {"aulc": 0.5}, chosen)
    board.write_views(tmp_path / "a", run.settings, replace(run.cohort, images=None), views)
    assert [folder.name for folder in (tmp_path / "a" / board.CURVES).iterdir()] == ["of a-b- c"]
    assert events(tmp_path / "a" / board.OUTCOME).Tags()["images"] == []
    assert not (tmp_path / "a" / board.OUTCOME / "sprite.png").exists()
    assert "sprite" not in (tmp_path / "a" / board.OUTCOME / "projector_config.pbtxt").read_text()
    wide = np.random.default_rng(0).standard_normal((len(run.cohort), 100)).astype(np.float32)
    nothing = board.Views({}, {}, replace(chosen, chosen=np.full_like(chosen.chosen, -1), points=wide))
    rgba = [np.zeros((4, 6, 4), np.uint8)] * len(run.cohort)
    names = np.array([f"a\tb\n{i}" for i in range(len(run.cohort))])
    board.write_views(tmp_path / "b", run.settings, replace(run.cohort, images=rgba, names=names), nothing)
    points = np.loadtxt(tmp_path / "b" / board.OUTCOME / "tensors.tsv", delimiter="\t")
    assert points.shape[1] == min(64, len(points))
    given = wide[chosen.pool[0]]
    if len(points) <= 64:  # then nothing is lost
        np.testing.assert_allclose(
            np.linalg.norm(points[0] - points[1]), np.linalg.norm(given[0] - given[1]), rtol=1e-3
        )
    lines = (tmp_path / "b" / board.OUTCOME / "metadata.tsv").read_text().splitlines()
    assert len(lines) == len(points) + 1
    assert all(len(line.split("\t")) == 4 for line in lines)
    bare = replace(run.cohort, features=None)
    board.write_views(tmp_path / "c", run.settings, bare, replace(views, selections=replace(chosen, points=None)))
    assert not (tmp_path / "c" / board.OUTCOME / "projector_config.pbtxt").exists()
    assert events(tmp_path / "c" / board.OUTCOME).Tags()["images"] == ["selected"]
