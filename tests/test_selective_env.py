"""``SelectiveLabel-v0``: the single env; what holds for every env is in ``test_every_env.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
from gymnasium.vector import AutoresetMode

import activelabel
from activelabel.data import SPLITS, Cohort, Standardizer
from activelabel.envs import PREDICTORS, SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.envs.selective_engine import DUPLICATES
from activelabel.errors import SettingsError

Make = Callable[..., Any]


def test_gym_make_passes_the_settings_on(cohort: Cohort) -> None:
    arguments: dict[str, Any] = {"cohort": cohort, "k": 3, "pool": 10, "query": 8, "predictor": "mean-cosine"}
    env = gym.make("SelectiveLabel-v0", **arguments)
    assert isinstance(env.unwrapped, SelectiveLabelEnv)
    assert env.unwrapped.engine.settings.predictor == "mean-cosine"
    assert env.unwrapped.engine.cohort is cohort
    assert env.observation_space["pool"].shape == (10, 8)  # type: ignore[index]
    assert env.observation_space["clinical"].shape == (10, 3)  # type: ignore[index]
    assert env.action_space == gym.spaces.MultiDiscrete([10] * 3)
    vector = gym.make_vec("SelectiveLabel-v0", num_envs=5, **arguments)
    assert isinstance(vector.unwrapped, SelectiveLabelVectorEnv)
    assert vector.single_observation_space == env.observation_space
    assert vector.observation_space["pool"].shape == (5, 10, 8)  # type: ignore[index]
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_the_observation_is_the_pool_of_the_task(make_env: Make, cohort: Cohort) -> None:
    env = make_env()
    observation, info = env.reset(seed=3)
    tasks = env.engine.tasks([info["task"]])
    train = env.engine.splits.train
    standard = Standardizer.fit(cohort, train)
    np.testing.assert_allclose(
        observation["pool"], standard.features(cohort.embedded())[tasks.pool[0]], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        observation["clinical"], standard.clinical(cohort.clinical_matrix())[tasks.pool[0]], rtol=1e-6, atol=1e-6
    )
    assert info == {"task": info["task"], "condition": cohort.classes[tasks.condition[0]]}
    assert set(np.unique([*tasks.pool[0], *tasks.query[0]])) <= set(train)


@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_the_reward_equals_the_slow_reference(make_env: Make, predictor: str, duplicates: str) -> None:
    env = make_env(predictor=predictor, duplicates=duplicates, standardize=False)
    rng = np.random.default_rng(0)
    for seed in range(8):
        _, info = env.reset(seed=seed)
        tasks = env.engine.tasks([info["task"]])
        action = rng.integers(6, size=4)  # of few images, so that some repeat
        _, reward, terminated, truncated, info = env.step(action)
        assert (terminated, truncated) == (True, False)
        arguments = (env.engine.cohort.embedded(), tasks.pool[0][action], tasks.pool_labels[0][action])
        asked = (tasks.query[0], tasks.query_labels[0])
        expected = reference.reward(predictor, *arguments, *asked, once=duplicates == "once")
        assert reward == pytest.approx(expected, abs=1e-9)
        different = set(action.tolist())
        assert info["n_labelled"] == len(different)
        assert info["positives"] == sum(bool(tasks.pool_labels[0][i]) for i in different)
        assert info["one_class"] == (info["positives"] in (0, len(different)))
        np.testing.assert_array_equal(info["ids"], tasks.pool[0][action])
        np.testing.assert_array_equal(info["labels"], tasks.pool_labels[0][action])
        assert 0 <= info["random_reward"] <= 1


def test_a_repeated_index_is_lost_once_and_counts_again_with_repeat(make_env: Make) -> None:
    rewards = {}
    for duplicates in DUPLICATES:
        env = make_env(duplicates=duplicates)
        scored = []
        for task in range(30):
            env.reset(options={"task": task})
            scored.append(env.score_selections([[0, 0, 1, 2]])[0])
            if duplicates == "once":
                assert scored[-1] == env.score_selections([[0, 1, 2]])[0]
        rewards[duplicates] = scored
    assert rewards["once"] != rewards["repeat"]


def test_the_reward_depends_on_the_selected_set_alone(make_env: Make) -> None:
    rng = np.random.default_rng(1)
    env = make_env()
    for task in range(10):
        env.reset(options={"task": task})
        action = rng.choice(20, 4, replace=False)
        orders = np.stack([rng.permutation(action) for _ in range(6)])
        assert len(set(env.score_selections(orders).tolist())) == 1
        others = np.stack([np.setdiff1d(np.arange(20), action)[:4], action])
        assert env.score_selections(others)[1] == env.score_selections(orders)[0]


def test_selections_of_any_size_are_scored_and_end_nothing(make_env: Make, make_vec: Make) -> None:
    env, vector = make_env(), make_vec(2)
    env.reset(seed=0)
    vector.reset(seed=0)
    for k in (1, 7, 20):
        each = np.stack([np.random.default_rng(i).permutation(20)[:k] for i in range(3)])
        rewards = env.score_selections(each)
        assert rewards.shape == (3,)
        np.testing.assert_array_equal(vector.score_selections(np.stack([each, each]))[0], rewards)
    action = np.array([3, 1, 4, 15])
    expected = env.score_selections(action[None])[0]
    assert env.step(action)[1] == expected


def test_the_random_reward_is_fixed_for_each_task(make_env: Make) -> None:
    env = make_env()
    found = []
    for action in ([0, 1, 2, 3], [4, 5, 6, 7]):
        env.reset(options={"task": 11})
        found.append(env.step(np.array(action))[4]["random_reward"])
    assert found[0] == found[1]
    tasks = env.engine.tasks([11])
    drawn = env.engine.random_selections(tasks, 4)
    assert len(set(drawn[0].tolist())) == 4
    assert found[0] == env.engine.score(tasks, drawn[:, None]).reward[0, 0]


def test_n_tasks_bounds_what_reset_draws(make_env: Make, make_vec: Make) -> None:
    env = make_env(n_tasks=3)
    assert {env.reset(seed=seed)[1]["task"] for seed in range(40)} == {0, 1, 2}
    vector = make_vec(40, n_tasks=3)
    assert set(vector.reset(seed=0)[1]["task"].tolist()) == {0, 1, 2}
    # A task that reset would not draw may be asked for.
    assert env.reset(options={"task": 99})[1]["task"] == 99


def test_held_out_conditions_are_played_only_when_named(make_env: Make) -> None:
    seen = make_env(held_out=["Edema"])
    assert {seen.reset(seed=s)[1]["condition"] for s in range(100)} == set(seen.engine.cohort.conditions()) - {"Edema"}
    unseen = make_env(conditions=["Edema"])
    assert {unseen.reset(seed=s)[1]["condition"] for s in range(5)} == {"Edema"}
    with pytest.raises(SettingsError, match="'Edema' cannot be both drawn and held out"):
        make_env(conditions=["Edema"], held_out=["Edema"])


@pytest.mark.parametrize("split", SPLITS)
def test_the_spaces_are_those_of_every_part(make_env: Make, split: str) -> None:
    assert make_env(split=split).observation_space == make_env().observation_space


def test_the_three_parts_share_no_patient(make_env: Make, cohort: Cohort) -> None:
    assert cohort.patient is not None
    patients = []
    for split in SPLITS:
        tasks = make_env(split=split).engine.tasks(range(60))
        patients.append(set(cohort.patient[np.concatenate([tasks.pool, tasks.query], axis=1)].ravel().tolist()))
    assert sum(len(part) for part in patients) == len(set.union(*patients))


def test_the_standardizer_of_a_model_is_used(make_env: Make, make_vec: Make, cohort: Cohort) -> None:
    identity = Standardizer.identity(8)
    for env in (make_env(standardizer=identity), make_env(standardize=False)):
        observation, info = env.reset(seed=0)
        np.testing.assert_array_equal(observation["pool"], cohort.embedded()[env.engine.tasks([info["task"]]).pool[0]])
    assert make_env(standardizer=identity).standardizer is identity
    assert make_vec(2, standardizer=identity).standardizer is identity
    fitted = make_env().standardizer
    np.testing.assert_array_equal(fitted.mean, Standardizer.fit(cohort, make_env().engine.splits.train).mean)
    with pytest.raises(ValueError, match=r"the data has 8 features an image.*5"):
        make_env(standardizer=Standardizer.identity(5))


def test_actions_that_are_no_selection_are_refused(make_env: Make, make_vec: Make) -> None:
    env, vector = make_env(), make_vec(2)
    env.reset(seed=0)
    vector.reset(seed=0)
    cases: list[tuple[Any, str]] = [
        (np.arange(3), r"shape \(4,\) each, got int64 \(3,\)"),
        (np.arange(4)[None], r"shape \(4,\) each, got int64 \(1, 4\)"),
        (np.arange(4.0), "got float64"),
        (np.array([True] * 4), "got bool"),
        (np.array([0, 1, 2, 20]), r"index 20 is not in the pool of 20 images \(0 to 19\)"),
        (np.array([0, 1, 2, -1]), "index -1 is not in the pool"),
    ]
    for action, message in cases:
        with pytest.raises(SettingsError, match=message):
            env.step(action)
        with pytest.raises(SettingsError, match=message):
            vector.step(np.stack([action, action]))
    # Refused actions end nothing.
    assert env.step([0, 1, 2, 3])[2]
    assert vector.step([[0, 1, 2, 3]] * 2)[2].all()
    for selections in ([[0.5]], np.zeros((2, 0), int), 3):
        env.reset(seed=0)
        with pytest.raises(SettingsError, match=r"selections must be integers \(1, M, K\)"):
            env.score_selections(selections)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 21}, "k=21 images cannot be chosen from a pool of 20"),
        ({"k": 2.5}, "k=2.5 must be a whole number"),
        ({"k": "4"}, "k='4' must be a whole number"),
        ({"conditions": "Edema"}, "is one text; give a list of names"),
        ({"held_out": "Edema"}, "is one text; give a list of names"),
        ({"k": 0}, "k=0 must be a whole number of at least 1"),
        ({"pool": 0}, "pool=0 must be a whole number of at least 1"),
        ({"query": 0}, "query=0 must be a whole number of at least 1"),
        ({"n_tasks": 0}, "n_tasks=0 must be a whole number of at least 1"),
        ({"pol": 20}, "unknown setting.*'pol'.*Did you mean 'pool'"),
        ({"predictor": "prototipe"}, "unknown predictor 'prototipe'.*Did you mean 'prototype'"),
        ({"duplicates": "twice"}, "unknown treatment of duplicates 'twice'"),
        ({"uncertain": "negativ"}, "'negativ'.*Did you mean 'negative'"),
        ({"split": "trian"}, "unknown split 'trian'.*Did you mean 'train'"),
        ({"fractions": "publish"}, "fractions='publish'"),
        ({"fractions": "published"}, "no published split"),
        ({"fractions": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"conditions": ["Edma"]}, "unknown class 'Edma'.*Did you mean 'Edema'"),
        ({"pool": 2000, "split": "test"}, "test part: too few images for pool=2000"),
        ({"cohort": "sintetic"}, "unknown data set 'sintetic'"),
    ],
)
def test_bad_settings_are_refused_by_both_forms(
    make_env: Make, make_vec: Make, settings: dict[str, Any], message: str
) -> None:
    for make in (make_env, make_vec):
        with pytest.raises(ValueError, match=message) as refusal:
            make(**settings)
        assert isinstance(refusal.value, activelabel.errors.ActiveLabelError)


def test_images_without_features_are_refused_with_advice(make_env: Make, cohort: Cohort) -> None:
    images = np.zeros((len(cohort), 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"images but no features.*with_pixels\(\)"):
        make_env(cohort=dataclasses.replace(cohort, features=None, images=images))


def test_an_episode_is_reset_before_and_ended_after_its_step(make_env: Make) -> None:
    env = make_env()
    with pytest.raises(RuntimeError, match=r"call reset"):
        env.step(np.arange(4))
    env.reset(seed=0)
    env.step(np.arange(4))
    with pytest.raises(RuntimeError, match=r"call reset"):
        env.step(np.arange(4))
    env.reset()
    assert env.step(np.arange(4))[2]


def test_the_state_continues_a_single_env_exactly(make_env: Make) -> None:
    env, other = make_env(), make_env()
    env.reset(seed=5)
    env.reset()
    state = env.state_dict()
    observation = other.load_state_dict(state)
    action = np.array([1, 2, 3, 4])
    np.testing.assert_array_equal(observation["pool"], env._observe()["pool"])
    assert other.step(action)[1] == env.step(action)[1]
    assert [other.reset()[1] for _ in range(3)] == [env.reset()[1] for _ in range(3)]
    env.step(action)
    other.load_state_dict(env.state_dict())
    with pytest.raises(RuntimeError, match="before step"):
        other.step(action)


def test_a_refused_task_leaves_the_episode_as_it_was(make_env: Make) -> None:
    env = make_env()
    with pytest.raises(SettingsError, match="task -1"):
        env.reset(seed=0, options={"task": -1})
    with pytest.raises(RuntimeError, match=r"call reset"):
        env.step(np.arange(4))


def test_selections_are_scored_only_after_a_reset(make_env: Make, make_vec: Make) -> None:
    with pytest.raises(RuntimeError, match="reset"):
        make_env().score_selections([[0]])
    with pytest.raises(RuntimeError, match="reset"):
        make_vec(1).score_selections([[[0]]])
