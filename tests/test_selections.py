"""What strategies chose: collected as it was played."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import ACTIVE
from hand_made import Fixed, hand_chosen, row

from activelabel.baselines import BASELINES, GreedyOracle, make_pool_baseline
from activelabel.data import Cohort
from activelabel.envs import (
    ActiveLabelEngine,
    ActiveLabelSettings,
    RunningEpisodes,
    SelectiveLabelEngine,
    SelectiveLabelSettings,
)
from activelabel.errors import SettingsError
from activelabel.evaluation import play, play_episodes
from activelabel.evaluation.audit import audit
from activelabel.evaluation.selections import collect, collect_episodes


@pytest.fixture
def engine(cohort: Cohort) -> SelectiveLabelEngine:
    return SelectiveLabelEngine(cohort, SelectiveLabelSettings(k=4, pool=20, query=12, split="test"), device="cpu")


@pytest.mark.parametrize("name", BASELINES)
def test_collected_is_what_was_played(engine: SelectiveLabelEngine, name: str) -> None:
    selections = collect(engine, BASELINES[name](4), 4, 40)  # more than the 32 that are played at once
    played = play(engine, BASELINES[name](4), [4], 40)[4]
    tasks = engine.tasks(range(40))
    outcome = engine.score(tasks, selections.chosen[:, None])
    np.testing.assert_array_equal(outcome.reward[:, 0], played.reward)
    np.testing.assert_array_equal(selections.pool, tasks.pool)
    np.testing.assert_array_equal(selections.index, np.arange(40))
    np.testing.assert_array_equal(selections.rows, np.take_along_axis(tasks.pool, selections.chosen, axis=1))
    np.testing.assert_array_equal(selections.labels.sum(axis=1), outcome.positives[:, 0])
    np.testing.assert_array_equal(selections.points, engine.features.numpy())
    assert selections.new.all()


def test_a_strategy_that_repeats_an_index(engine: SelectiveLabelEngine, cohort: Cohort) -> None:
    selections = collect(engine, Fixed(3, 5, 3, 3), 4, 7)
    np.testing.assert_array_equal(selections.new, [[True, True, False, False]] * 7)
    tasks = engine.tasks(range(7))
    found = audit(cohort, selections)
    assert row(found, "labels spent on nothing new")["selected"] == 2
    age = cohort.clinical["age"][tasks.pool[:, [3, 5]]]
    assert row(found, "mean age")["selected"] == pytest.approx(age.mean())
    outcome = engine.score(tasks, selections.chosen[:, None])
    assert row(found, "tasks with one class")["selected"] == pytest.approx(outcome.one_class.mean())


@pytest.mark.parametrize(
    ("strategy", "k", "n_tasks", "message"),
    [
        (Fixed(0, 1), 2, 0, "0 tasks; it must be at least 1"),
        (Fixed(0, 1), 3, 2, r"chose \(2, 2\) where \(2, 3\)"),
        (Fixed(*range(21)), 21, 2, "k=21 images cannot be chosen"),
        (Fixed(0, 20), 2, 2, "index 20 is not in the pool of 20"),
        (Fixed(0, -1), 2, 2, "index -1 is not in the pool of 20"),
    ],
)
def test_collecting_refuses(engine: SelectiveLabelEngine, strategy: Fixed, k: int, n_tasks: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        collect(engine, strategy, k, n_tasks)


@pytest.fixture
def active(blobs: Cohort) -> ActiveLabelEngine:
    return ActiveLabelEngine(blobs, ActiveLabelSettings.make(split="train", **ACTIVE), device="cpu")


def test_labelled_images_of_episodes(active: ActiveLabelEngine, blobs: Cohort) -> None:
    n = 53  # more than are played at once
    strategy = make_pool_baseline("random", active.settings.batch)
    selections = collect_episodes(active, strategy, n)
    drawn = active.sampler.batch(range(n))
    rows, labels = active.sampler.rows["pool"], active.sampler.labels["pool"]
    assert selections.chosen.shape == (n, 12)
    assert selections.classes == ("A", "B", "C", "D")
    for i in range(n):
        free = np.setdiff1d(np.arange(60), drawn.initial[i])
        np.testing.assert_array_equal(selections.pool[i], rows[drawn.pool[i, free]])
        np.testing.assert_array_equal(selections.pool_labels[i], labels[drawn.pool[i, free]])
    assert selections.new.all()
    np.testing.assert_array_equal(blobs.labels[selections.rows, selections.labels], 1)
    assert selections.points is not None
    np.testing.assert_array_equal(selections.points[rows], active.x["pool"].numpy())
    found = audit(blobs, selections)
    assert {r["measure"] for r in found.rows if r["kind"] == "classes"} == {"A", "B", "C", "D", "tasks with one class"}


def test_episodes_keep_the_order_and_what_labelled_nothing(active: ActiveLabelEngine) -> None:
    strategy = Fixed(7, 2, 7, 9, 11)
    selections = collect_episodes(active, strategy, 3)
    episodes = RunningEpisodes(active, 3)
    episodes.begin(np.arange(3), np.arange(3))
    expected = []
    while not episodes.over.all():
        expected.append(episodes.label(np.tile(strategy.indices, (3, 1))).ids)
    ids = np.concatenate(expected, axis=1)[:, :12]
    np.testing.assert_array_equal(selections.rows, ids)
    assert (ids[:, 5:] == -1).all()  # the second step chooses what is labelled
    assert (selections.chosen[:, 2] == -1).all()


def test_a_strategy_is_asked_as_it_is_in_an_evaluation(active: ActiveLabelEngine) -> None:
    small = active.sibling(budget=4, batch=2)
    selections = collect_episodes(small, GreedyOracle(2, tries=3), 2)  # it wants to be attached
    assert selections.new.all()
    curves = play_episodes(small, GreedyOracle(2, tries=3), 2)
    replayed = RunningEpisodes(small, 2)
    replayed.begin(np.arange(2), np.arange(2))
    for step in range(2):
        wanted = selections.rows[:, 2 * step : 2 * step + 2]
        replayed.label(np.array([[list(ids).index(w) for w in own] for ids, own in zip(replayed.ids(), wanted)]))  # noqa: B905
    np.testing.assert_array_equal([[p[2] for p in curve] for curve in replayed.curves], curves.accuracy)
    margin = collect_episodes(active, make_pool_baseline("margin", 5), 2)  # it wants to see more than is shown
    assert margin.new.all()


def test_no_episodes_are_refused(active: ActiveLabelEngine) -> None:
    with pytest.raises(SettingsError, match="0 episodes"):
        collect_episodes(active, Fixed(0, 1, 2, 3, 4), 0)
    with pytest.raises(SettingsError, match=r"Fixed.* chose \(2, 3\) where \(2, 5\)"):
        collect_episodes(active, Fixed(0, 1, 2), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": np.array([[0, 4], [0, 1]])}, "choice 4 is neither in the pool of 4 images nor -1"),
        ({"chosen": np.array([[0, -2], [0, 1]])}, "choice -2"),
        ({"chosen": np.array([[0, 1]])}, "need T tasks"),
        ({"chosen": np.zeros((2, 0), dtype=np.int64)}, "need T tasks"),
        ({"pool": np.arange(8)}, "need T tasks"),
        ({"pool_labels": np.array([[0, 1, 2, 0]] * 2)}, "indices of the 2 classes"),
    ],
)
def test_bad_selections_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        hand_chosen([[0, 1], [0, 1]], **changes)
