"""Playing the same episodes of ActiveLabel with every strategy, and what is reported of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from activelabel.baselines import make_pool_baseline
from activelabel.data import Cohort
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, RunningEpisodes
from activelabel.errors import SettingsError
from activelabel.evaluation import Curves, build_active_report, play_episodes
from activelabel.evaluation.episodes import area

SIZES: dict[str, Any] = {
    "budget": 7,
    "batch": 3,
    "pool": 40,
    "state_images": 5,
    "learner_arguments": {"epochs": 20},
    "split": "test",
    "fractions": (0.3, 0.2, 0.5),
    "shares": (0.4, 0.1, 0.2, 0.3),
}


def make_engine(cohort: Cohort, **changes: Any) -> ActiveLabelEngine:
    return ActiveLabelEngine(cohort, ActiveLabelSettings.make(**{**SIZES, **changes}), "cpu")


@pytest.fixture
def engine(blobs: Cohort) -> ActiveLabelEngine:
    return make_engine(blobs)


class First:
    """A user's object: nothing but ``predict``; takes the first candidates that are not labelled."""

    def __init__(self, n: int = 3) -> None:
        self.n = n

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        return np.argsort(-observation["action_mask"], axis=1, kind="stable")[:, : self.n], state


class Least(First):
    """Takes the candidates of the smallest confidence; keeps what it saw."""

    def __init__(self, n: int = 3, **env_settings: Any) -> None:
        super().__init__(n)
        self.env_settings = env_settings
        self.seen: list[dict[str, NDArray[Any]]] = []

    def predict(self, observation: dict[str, NDArray[Any]], *args: Any, **kwargs: Any) -> tuple[NDArray[Any], Any]:
        self.seen.append(observation)
        confidence = np.where(observation["action_mask"], observation["candidates"][:, :, 0], np.inf)
        return np.argsort(confidence, axis=1, kind="stable")[:, : self.n], None


def by_hand(engine: ActiveLabelEngine, choose: Any, index: int) -> list[tuple[int, float, float]]:
    """Play one episode without the protocol."""
    episodes = RunningEpisodes(engine, 1)
    episodes.begin(np.arange(1), [index])
    while not episodes.over.all():
        episodes.label(choose(episodes.observe()))
    return episodes.curves[0]


def same(a: Curves, b: Curves) -> None:
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.accuracy, b.accuracy)
    np.testing.assert_array_equal(a.reward, b.reward)


def test_curves_are_those_of_single_episodes(engine: ActiveLabelEngine) -> None:
    done: list[int] = []
    found = play_episodes(engine, First(), 5, batch=2, advance=done.append)
    assert done == [2, 2, 1]
    assert found.labels.tolist() == [0, 3, 6, 7]
    assert found.accuracy.shape == found.reward.shape == (5, 4)
    for i in range(5):
        expected = by_hand(engine, lambda seen: First().predict(seen)[0], i)
        assert [s for s, _, _ in expected] == found.labels.tolist()
        np.testing.assert_array_equal(found.reward[i], [r for _, r, _ in expected])
        np.testing.assert_array_equal(found.accuracy[i], [t for _, _, t in expected])


@pytest.mark.parametrize("name", ["margin", "k-center"])
def test_batches_do_not_matter(engine: ActiveLabelEngine, name: str) -> None:
    same(*(play_episodes(engine, make_pool_baseline(name, 3, 0), 5, batch=b) for b in (5, 2)))


def test_every_strategy_starts_from_the_same_labels(engine: ActiveLabelEngine) -> None:
    starts = [play_episodes(engine, make_pool_baseline(n, 3, 0), 4).accuracy[:, 0] for n in ("random", "margin")]
    np.testing.assert_array_equal(*starts)
    assert len(np.unique(starts[0])) > 1


def test_a_target_does_not_end_an_evaluation(blobs: Cohort) -> None:
    target = make_engine(blobs, reward="target", tolerance=0.1)
    same(play_episodes(target, First(), 3), play_episodes(make_engine(blobs), First(), 3))


@pytest.mark.parametrize("candidates", [None, 8])
def test_other_eyes_do_not_change_the_judge(blobs: Cohort, candidates: int | None) -> None:
    """An agent that sees other features than the engine offers labels what it would label in an env of its own."""
    own = {"features": ("confidence", "entropy"), "state": ("per-class",), "state_images": 3, "distance": "cosine"}
    strategy = Least(**own)
    found = play_episodes(make_engine(blobs, features=("labelled",), candidates=candidates), strategy, 4)
    assert strategy.seen[0]["candidates"].shape[2] == 2
    assert strategy.seen[0]["state"].shape == (4, 12)
    same(found, play_episodes(make_engine(blobs, **own, candidates=candidates), Least(), 4))


@pytest.mark.parametrize("candidates", [None, 8])
def test_another_classifier_to_look_through_does_not_judge(blobs: Cohort, candidates: int | None) -> None:
    """The images that were chosen through a classifier of one's own are given to the judge, N at a time."""
    engine = make_engine(blobs, candidates=candidates)
    strategy = Least(1, learner="logistic", batch=1)
    found = play_episodes(engine, strategy, 3)
    assert len(strategy.seen) == 7
    view = make_engine(blobs, candidates=candidates, learner="logistic", learner_arguments={}, batch=1)
    judge = make_engine(blobs)
    for i in range(3):
        looks, judged = (RunningEpisodes(e, 1) for e in (view, judge))
        for episodes in (looks, judged):
            episodes.begin(np.arange(1), [i])
        chosen: list[int] = []
        while not looks.over.all():
            action = Least(1).predict(looks.observe())[0]
            chosen.append(int(looks.offered[0, action[0, 0]]))
            looks.label(action)
        for step in ([0, 1, 2], [3, 4, 5], [6, 6, 6]):
            judged.label(np.array([[chosen[s] for s in step]]))
        np.testing.assert_array_equal(found.accuracy[i], [t for _, _, t in judged.curves[0]])
    softmax = play_episodes(engine, Least(1, batch=1), 3)
    assert (softmax.accuracy != found.accuracy).any()


def test_a_wasted_choice_is_wasted_for_the_judge_too(blobs: Cohort) -> None:
    class Stubborn(First):
        env_settings = {"batch": 1}  # noqa: RUF012

        def predict(self, observation: dict[str, NDArray[Any]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            return np.zeros(len(observation["state"]), dtype=np.int64), None

    found = play_episodes(make_engine(blobs), Stubborn(), 3)
    once = play_episodes(make_engine(blobs, budget=1, batch=1), Stubborn(), 3)
    np.testing.assert_array_equal(found.accuracy[:, 1:], np.repeat(once.accuracy[:, 1:], 3, axis=1))


def test_the_oracle_is_attached_to_what_it_plays(engine: ActiveLabelEngine) -> None:
    oracle = play_episodes(engine, make_pool_baseline("oracle", 3, 0), 6, batch=4)
    random = play_episodes(engine, make_pool_baseline("random", 3, 0), 6)
    assert area(oracle.labels, oracle.reward).mean() > area(random.labels, random.reward).mean()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (First(2), r"chose \(4, 2\) where \(4, 3\)"),
        (Least(pool=30), "asks for pool, which would make other episodes"),
        (Least(features=("margn",)), "Did you mean 'margin'"),
    ],
)
def test_what_does_not_fit_is_refused(engine: ActiveLabelEngine, strategy: First, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        play_episodes(engine, strategy, 4)


def test_area_by_hand() -> None:
    labels = np.array([0, 2, 3])
    # Two labels at a mean of .6, one at a mean of .75.
    np.testing.assert_allclose(area(labels, np.array([[0.5, 0.7, 0.8]])), [(2 * 0.6 + 0.75) / 3])
    np.testing.assert_allclose(area(labels, np.full((2, 3), 0.4)), [0.4, 0.4])


def curves(final: list[float]) -> Curves:
    """Straight lines from 0.5."""
    ends = np.array(final)
    values = np.stack([np.full(len(ends), 0.5), (ends + 0.5) / 2, ends], axis=1)
    return Curves(np.array([0, 5, 10]), values, values)


RESULTS = {
    "ddqn": curves([0.70, 0.80, 0.90]),
    "random": curves([0.60, 0.69, 0.80]),
    "margin": curves([0.71, 0.80, 0.89]),
    "oracle": curves([0.90, 0.99, 1.00]),
}


def test_the_agent_is_compared_with_each_strategy_by_episode(tmp_path: Path) -> None:
    report = build_active_report(RESULTS, "ddqn", 5)
    written = report.write(tmp_path, run="r")
    assert all(path.stat().st_size for path in written)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["run"] == "r"
    assert [row["strategy"] for row in summary["rows"][::2]] == ["random", "margin", "oracle", "ddqn"]
    for row in summary["rows"]:
        assert set(row) == {"strategy", "budget", "batch", "metric", "mean", "ci", "n"}
        values = RESULTS[row["strategy"]]
        expected = values.aulc if row["metric"] == "aulc" else values.accuracy[:, -1]
        assert row["mean"] == pytest.approx(expected.mean())
        assert row["ci"][0] < row["mean"] < row["ci"][1]
        assert (row["budget"], row["batch"], row["n"]) == (10, 5, 3)
    found = {}
    for c in summary["comparisons"]:
        assert set(c) == {"a", "b", "budget", "batch", "metric", "difference", "ci", "n", "verdict"}
        assert c["a"] == "ddqn"
        a, b = (RESULTS[name] for name in (c["a"], c["b"]))
        gap = a.aulc - b.aulc if c["metric"] == "aulc" else a.final - b.final
        assert c["difference"] == pytest.approx(gap.mean())
        assert c["ci"][0] <= c["difference"] <= c["ci"][1]
        found[c["b"], c["metric"]] = c["verdict"]
    verdicts = {"random": "better", "margin": "not distinguishable", "oracle": "worse"}
    assert found == {(name, metric): v for name, v in verdicts.items() for metric in ("aulc", "accuracy")}
    assert [set(c) for c in summary["curves"]] == [{"strategy", "labels", "mean", "low", "high"}] * 4
    lines = {line.split()[0]: line for line in (tmp_path / "table.txt").read_text().splitlines()}
    assert all(lines[name].endswith(said) for name, said in verdicts.items())
    assert lines["DDQN"].split() == ["DDQN", "0.650", "0.526,", "0.774", "0.800", "0.552,", "1.048"]
    assert "n = 3 test episodes" in lines["10"]


def test_the_band_holds_two_thirds_of_the_episodes() -> None:
    values = np.linspace(0, 1, 101)[:, None]
    accuracy = np.concatenate([values, values / 2], axis=1)
    report = build_active_report({"ddqn": Curves(np.array([0, 1]), accuracy, accuracy)}, "ddqn", 1)
    (band,) = report.curves
    assert band["low"] == pytest.approx([0.16, 0.08])
    assert band["high"] == pytest.approx([0.84, 0.42])
    assert band["mean"] == pytest.approx([0.5, 0.25])
    # Alone there is nothing to compare with, and the figure has one panel.
    assert report.comparisons == []
    assert "verdict" not in report.table()
    assert len(report.draw().axes) == 1


def test_a_reference_that_did_not_play_is_refused() -> None:
    with pytest.raises(SettingsError, match="'lal-rl' is compared with the others"):
        build_active_report(RESULTS, "lal-rl", 5)


def test_figure_has_a_colour_for_every_strategy() -> None:
    many = {f"strategy {i}": curves([0.6, 0.7, 0.8 + i / 100]) for i in range(15)}
    figure = build_active_report(many, "strategy 3", 5, "auroc").draw()
    left, right = figure.axes
    assert left.get_ylabel() == "auroc on the test set"
    assert len(left.lines) == len({line.get_color() for line in left.lines}) == 15
    assert len(right.get_yticks()) == 14
