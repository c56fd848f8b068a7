"""Training tasks of made-up conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from activelabel.baselines import KMedoids
from activelabel.data import Cohort, TaskSampler
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelSettings, augmentation
from activelabel.envs.augmentation import ASIDE, CONDITIONS, TIMES, TOWARDS, WIDTH, AugmentedSampler
from activelabel.errors import SettingsError
from activelabel.evaluation.selections import collect
from activelabel.settings import SelectiveRunSettings

SEEN, HELD_OUT = ("Cardiomegaly", "Consolidation", "Pneumothorax"), ("Edema", "Atelectasis")
SETTINGS = SelectiveLabelSettings(k=4, pool=20, query=12, conditions=SEEN, held_out=HELD_OUT, task_augmentation=0.5)


@pytest.fixture(scope="module")
def engine(cohort: Cohort) -> SelectiveLabelEngine:
    return SelectiveLabelEngine(cohort, SETTINGS, device="cpu")


@pytest.fixture(scope="module")
def plain(engine: SelectiveLabelEngine) -> SelectiveLabelEngine:
    return engine.sibling(task_augmentation=0.0)


def sampler_of(engine: SelectiveLabelEngine) -> AugmentedSampler:
    assert isinstance(engine.sampler, AugmentedSampler)
    return engine.sampler


def test_what_is_moved_is_of_the_training_and_of_seen_conditions(
    engine: SelectiveLabelEngine, plain: SelectiveLabelEngine
) -> None:
    sampler, cohort = sampler_of(engine), engine.cohort
    assert np.isin(sampler.origin, engine.splits.train).all()
    assert len(engine.features) == len(engine.clinical) == len(cohort) + len(sampler.origin)
    for i, made in enumerate(sampler._made):
        rows = engine.rows_of(made)
        assert len(np.unique(rows)) == len(rows) <= TIMES * 16  # 16 positives in a task
        condition = cohort.class_index(SEEN[i % len(SEEN)])
        assert (np.abs(cohort.labels[rows, condition]) == 1).all()
    assert len(sampler._made) == CONDITIONS
    np.testing.assert_array_equal(engine.clinical[len(cohort) :], engine.clinical[sampler.origin])
    np.testing.assert_array_equal(engine.features[: len(cohort)], plain.features)
    assert engine.features.abs().max() <= engine.feature_bound  # the spaces are those without


def test_made_up_conditions_are_where_the_module_says(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula by eigenvectors, where all images are moved."""
    monkeypatch.setattr(augmentation, "TIMES", 100)
    rows = np.random.default_rng(0).choice(len(cohort), len(cohort), replace=False)
    plain = TaskSampler(cohort, SEEN, 100, 60, held_out=HELD_OUT, rows=rows)
    assert cohort.features is not None
    # Far from the largest number, so that none is cut off.
    features = np.concatenate([cohort.features, np.full((1, cohort.features.shape[1]), 1e4, np.float32)])
    sampler = AugmentedSampler(plain, features, 1.0)
    centre = features[np.unique(np.concatenate(plain._negatives))].mean(axis=0)
    around = [features[np.unique(np.concatenate(plain._negatives))] - centre]
    means = []
    for images in plain._positives:
        means.append(features[images].mean(axis=0))
        around.append(features[images] - means[-1])
    values, vectors = np.linalg.eigh(np.cov(np.concatenate(around).T))
    for i, made in enumerate(sampler._made):
        moved, was = sampler.features[made - len(features)], sampler.origin[made - len(features)]
        of = i % len(SEEN)
        np.testing.assert_array_equal(np.sort(was), np.sort(plain._positives[of]))
        # One factor of all differences.
        ratio = (moved - moved.mean(axis=0)) / (features[was] - means[of])
        assert np.median(ratio) == pytest.approx(np.mean(np.clip(ratio, 0.9, 1.6)), abs=2e-2)
        assert WIDTH[0] - 1e-3 <= np.median(ratio) <= WIDTH[1] + 1e-3
        # A share of the way to the condition, and a step in a random direction as long as a share of the whole way.
        place, away = (
            vectors.T @ (to - centre) / np.sqrt(values) for to in (moved.mean(axis=0).astype(np.float64), means[of])
        )
        length = np.linalg.norm(away)
        shares = np.linspace(*TOWARDS, 2001)
        aside = np.linalg.norm(place - shares[:, None] * away, axis=1) / length
        assert aside.min() <= ASIDE[1] + 1e-2
        assert aside.max() >= ASIDE[0] - 1e-2
    places = {tuple(np.round(sampler.features[made - len(features)].mean(axis=0), 3)) for made in sampler._made}
    assert len(places) == CONDITIONS


def test_a_share_of_the_tasks_has_other_positives(engine: SelectiveLabelEngine, plain: SelectiveLabelEngine) -> None:
    n = 400
    found, before = engine.tasks(range(n)), plain.tasks(range(n))
    for name in ("index", "condition", "pool_labels", "query_labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(before, name))
    changed = []
    for i in range(n):
        np.testing.assert_array_equal(found.pool[i][~found.pool_labels[i]], before.pool[i][~before.pool_labels[i]])
        np.testing.assert_array_equal(found.query[i][~found.query_labels[i]], before.query[i][~before.query_labels[i]])
        positives = np.concatenate([found.pool[i][found.pool_labels[i]], found.query[i][found.query_labels[i]]])
        assert len(np.unique(positives)) == len(positives)  # pool and query set are disjoint
        moved = positives >= len(engine.cohort)
        assert moved.all() or not moved.any()
        changed.append(bool(moved.any()))
        if changed[-1]:
            (made,) = {j for j, each in enumerate(sampler_of(engine)._made) if np.isin(positives, each).any()}
            assert engine.cohort.class_index(SEEN[made % len(SEEN)]) == found.condition[i]
        else:
            np.testing.assert_array_equal(found.pool[i], before.pool[i])
    assert abs(sum(changed) - n * 0.5) < 4 * np.sqrt(n * 0.25)
    # A task is the same alone, in any batch and in another engine.
    alone = SelectiveLabelEngine(engine.cohort, SETTINGS, device="cpu")
    np.testing.assert_array_equal(alone.tasks([7]).pool[0], found.pool[7])
    np.testing.assert_array_equal(alone.features, engine.features)


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_parts_are_as_they_were(split: str, engine: SelectiveLabelEngine, plain: SelectiveLabelEngine) -> None:
    found, before = (each.sibling(split=split) for each in (engine, plain))
    np.testing.assert_array_equal(found.tasks(range(50)).pool, before.tasks(range(50)).pool)
    np.testing.assert_array_equal(found.features, before.features)


def test_a_task_is_judged_by_the_moved_images(engine: SelectiveLabelEngine) -> None:
    """As an engine without augmentation judges a cohort that has them as images of their own."""
    tasks = engine.tasks(range(30))
    assert engine.cohort.features is not None
    assert (tasks.query >= len(engine.cohort)).any()
    selections = np.random.default_rng(0).integers(20, size=(30, 3, 4))
    reward = engine.score(tasks, selections).reward
    features = engine.features.numpy()
    for i in range(30):
        for j in range(3):
            chosen = np.unique(selections[i, j])
            score = np.zeros(12)
            query = features[tasks.query[i]]
            for sign, label in ((1, True), (-1, False)):
                of = chosen[tasks.pool_labels[i][chosen] == label]
                if len(of):
                    mean = features[tasks.pool[i][of]].mean(axis=0)
                    score += sign * (query @ mean) / np.linalg.norm(query, axis=1) / np.linalg.norm(mean)
            positive = tasks.query_labels[i]
            pairs = score[positive][:, None] - score[~positive][None]
            assert reward[i, j] == pytest.approx(((pairs > 1e-6) + 0.5 * (np.abs(pairs) <= 1e-6)).mean(), abs=0.03)


def test_ids_are_rows_of_the_cohort(engine: SelectiveLabelEngine, cohort: Cohort) -> None:
    tasks = engine.tasks(range(20))
    actions = np.tile(np.arange(4), (20, 1))
    _, info = engine.play(tasks, actions)
    np.testing.assert_array_equal(info["ids"], engine.rows_of(tasks.pool[:, :4]))
    assert info["ids"].max() < len(cohort)
    assert (tasks.pool[:, :4] >= len(cohort)).any()
    noisy = engine.sibling(oracle="annotators", oracle_arguments={"errors": [0.5, 0.2]})
    _, heard = noisy.play(tasks, actions)
    np.testing.assert_array_equal(heard["ids"], info["ids"])
    chosen = collect(engine, KMedoids(4), 4, 20)
    assert chosen.pool.max() < len(cohort)
    assert chosen.points is not None
    assert len(chosen.points) == len(cohort)


def test_environments_have_it(make_env: Callable[..., gym.Env[Any, Any]], make_vec: Callable[..., Any]) -> None:
    env, vec = make_env(task_augmentation=1.0, render_mode="rgb_array"), make_vec(2, task_augmentation=1.0)
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    several, _ = vec.reset(seed=3)
    np.testing.assert_array_equal(observation["pool"], several["pool"][0])
    assert make_env().observation_space == env.observation_space
    env.step(env.action_space.sample())
    assert np.asarray(env.render()).ndim == 3


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
def test_a_share_is_from_0_to_1(share: Any) -> None:
    with pytest.raises(SettingsError, match=f"task_augmentation={share!r} is a share of tasks, a number from 0 to 1"):
        replace(SETTINGS, task_augmentation=share)
    with pytest.raises(SettingsError, match="task_augmentation"):
        SelectiveRunSettings(task_augmentation=share)


def test_images_that_are_all_alike_are_moved_nowhere(cohort: Cohort) -> None:
    assert cohort.features is not None
    flat = np.ones_like(cohort.features)
    np.testing.assert_array_equal(AugmentedSampler(TaskSampler(cohort, SEEN, 100, 60), flat, 1.0).features, 1)
