"""The wrappers for other people's agents: against the environment that they wrap, and one form against the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
from conftest import ACTIVE, TINY
from gymnasium.spaces import Box, Discrete, flatten
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv
from wrapped_play import B, Wrapped

from activelabel.data import Cohort
from activelabel.envs import wrappers
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import (
    FlattenCandidates,
    OneAtATime,
    ScoresToTopK,
    VectorFlattenCandidates,
    VectorOneAtATime,
    VectorScoresToTopK,
    top_k,
)
from activelabel.errors import SettingsError

ONE = {**ACTIVE, "batch": 1, "budget": 4}
KEYS = ("action_mask", "pool")

CASES: dict[str, tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "scores, selective": ("SelectiveLabel-v0", TINY, [("ScoresToTopK", {})]),
    "scores, active": ("ActiveLabel-v0", ACTIVE, [("ScoresToTopK", {})]),
    "scores, active, some candidates": ("ActiveLabel-v0", {**ACTIVE, "candidates": 9}, [("ScoresToTopK", {})]),
    "scores, one label a step": ("ActiveLabel-v0", ONE, [("ScoresToTopK", {})]),
    "one at a time": ("SelectiveLabel-v0", TINY, [("OneAtATime", {})]),
    "one at a time, scores": ("SelectiveLabel-v0", TINY, [("OneAtATime", {}), ("ScoresToTopK", {})]),
    "flat, selective": ("SelectiveLabel-v0", TINY, [("FlattenCandidates", {})]),
    "flat, active": ("ActiveLabel-v0", ACTIVE, [("FlattenCandidates", {})]),
    "one at a time, flat": ("SelectiveLabel-v0", TINY, [("OneAtATime", {}), ("FlattenCandidates", {"keys": KEYS})]),
    "all": ("SelectiveLabel-v0", TINY, [(n, {}) for n in ("OneAtATime", "FlattenCandidates", "ScoresToTopK")]),
}
"""Environment, its settings, and the wrappers around it from the inside out."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, cohort: Cohort, blobs: Cohort) -> Wrapped:
    env, settings, around = CASES[request.param]
    data = cohort if env == "SelectiveLabel-v0" else blobs
    return Wrapped(wrappers, env, {"cohort": data, "device": "cpu", **settings}, around)


# That it is wrapped is what the check finds; everything else that it warns of is an error.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
def test_gymnasium_has_no_complaint(case: Wrapped) -> None:
    check_env(case.single())


@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape:UserWarning")
def test_stable_baselines3_has_no_complaint(case: Wrapped) -> None:
    sb3_check_env(case.single())


def test_it_is_made_again_from_its_spec(case: Wrapped) -> None:
    env = case.single()
    again = gym.make(env.spec)
    np.testing.assert_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
    assert again.action_space == env.action_space


def test_no_global_generator_is_used(case: Wrapped) -> None:
    with reference.global_rng_untouched():
        for env in (case.single(), case.vector()):
            env.reset(seed=0)
            env.action_space.seed(0)
            env.step(env.action_space.sample())


def test_an_episode_is_the_same_again(case: Wrapped) -> None:
    episodes = []
    env = case.single()
    for _ in range(2):
        env.action_space.seed(1)
        played: list[Any] = [env.reset(seed=3)]
        while len(played) == 1 or not played[-1][2]:
            played.append(env.step(env.action_space.sample()))
            assert env.observation_space.contains(played[-1][0])
        episodes.append(played)
    np.testing.assert_equal(episodes[0], episodes[1])


def test_a_sub_environment_equals_the_single_one(case: Wrapped) -> None:
    vector, singles = case.vector(), [case.single() for _ in range(B)]
    vector.action_space.seed(2)
    assert vector.single_observation_space == singles[0].observation_space
    assert vector.single_action_space == singles[0].action_space
    observations, infos = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i) for i, env in enumerate(singles)]
    for _ in range(12):
        assert vector.observation_space.contains(observations)
        for i, (observation, info) in enumerate(expected):
            np.testing.assert_equal(row(observations, i), observation)
            np.testing.assert_equal({name: infos[name][i] for name in info}, info)
        actions = vector.action_space.sample()
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        assert not truncated.any()
        for i, env in enumerate(singles):
            observation, reward, over, _, info = env.step(actions[i])
            assert (reward, over) == (rewards[i], terminated[i])
            if over:
                np.testing.assert_equal(infos["final_obs"][i], observation)
                np.testing.assert_equal({name: infos["final_info"][name][i] for name in info}, info)
                observation, info = env.reset()
            expected[i] = observation, info


def row(observations: Any, i: int) -> Any:
    return {name: v[i] for name, v in observations.items()} if isinstance(observations, dict) else observations[i]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_those_of_the_vector_env(case: Wrapped, mode: AutoresetMode) -> None:
    env, same_step = case.vector(autoreset_mode=mode), case.vector()
    env.action_space.seed(0)
    ours, theirs = env.reset(seed=1), same_step.reset(seed=1)
    for _ in range(10):
        np.testing.assert_equal(ours[0], theirs[0])
        actions = env.action_space.sample()
        ours, theirs = env.step(actions), same_step.step(actions)
        np.testing.assert_equal(ours[1:4], theirs[1:4])
        if theirs[2].all():
            np.testing.assert_equal([row(ours[0], i) for i in range(B)], list(theirs[4]["final_obs"]))
            if mode is AutoresetMode.DISABLED:
                with pytest.raises(RuntimeError, match="reset"):
                    env.step(actions)
                ours = env.reset()
            else:
                ours = env.step(actions)
                assert not np.any(ours[1:3])


# -- scores -----------------------------------------------------------------------------------------------------------


def slow_top_k(scores: list[float], k: int, allowed: list[bool]) -> list[int]:
    """Python's own sort, of allowed ones first, then by score, then by index."""
    return sorted(range(len(scores)), key=lambda i: (not allowed[i], -scores[i] if allowed[i] else 0, i))[:k]


@given(st.data())
def test_the_best_are_taken_and_of_equal_ones_the_first(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    k = data.draw(st.integers(1, n))
    scores = data.draw(st.lists(st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0]), min_size=n, max_size=n))
    allowed = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    rows = np.array([scores, scores[::-1]], np.float32)
    masks = np.array([allowed, allowed[::-1]])
    expected = [slow_top_k(scores, k, allowed), slow_top_k(scores[::-1], k, allowed[::-1])]
    assert top_k(rows, k, masks).tolist() == expected
    assert top_k(rows[:1], k).tolist() == [slow_top_k(scores, k, [True] * n)]


def test_scores_play_the_best_in_the_env_inside(make_env: Callable[..., Any]) -> None:
    env, inside = ScoresToTopK(make_env()), make_env()
    rng = np.random.default_rng(0)
    for seed in range(5):
        scores = rng.uniform(-1, 1, 20).round(1).astype(np.float32)
        observation, _ = env.reset(seed=seed)
        np.testing.assert_equal(inside.reset(seed=seed)[0], observation)
        best = slow_top_k(scores.tolist(), 4, [True] * 20)
        np.testing.assert_equal(env.step(scores), inside.step(np.array(best)))


@pytest.mark.parametrize("settings", [ACTIVE, ONE], ids=["five a step", "one a step"])
def test_a_labelled_image_is_never_labelled_again(make_active: Callable[..., Any], settings: dict[str, Any]) -> None:
    env = ScoresToTopK(make_active(**settings))
    observation, info = env.reset(seed=0)
    # Labelled ones have the best scores, always.
    scores = np.where(observation["action_mask"] == 0, 1, np.linspace(0.5, -1, env.action_space.shape[0]))
    start, over = info["n_labelled"], False
    while not over:
        _, _, over, _, info = env.step(scores.astype(np.float32))
        ids = info["ids"]
    assert info["n_labelled"] == start + settings["budget"]
    # Of the last step what is left of the budget, the best of them.
    assert (ids >= 0).sum() == settings["budget"] % settings["batch"] or settings["batch"] == 1


@pytest.mark.parametrize("bad", [np.zeros(19, np.float32), np.full(20, np.nan), np.array(["a"] * 20)])
def test_scores_of_another_kind_are_refused(make_env: Any, make_vec: Any, bad: np.ndarray) -> None:
    env, vector = ScoresToTopK(make_env()), VectorScoresToTopK(make_vec(2))
    env.reset(seed=0)
    vector.reset(seed=0)
    with pytest.raises(SettingsError, match=r"must be scores of shape \(20,\)|must be finite"):
        env.step(bad)
    with pytest.raises(SettingsError, match=r"must be scores of shape \(2, 20\)|must be finite"):
        vector.step(np.stack([bad, bad]))


# -- one label at a time ----------------------------------------------------------------------------------------------


def test_the_reward_is_that_of_the_set(make_env: Callable[..., Any]) -> None:
    inside, env = make_env(), OneAtATime(make_env())

    @given(seed=st.integers(0, 99), chosen=st.lists(st.integers(0, 19), min_size=4, max_size=4))
    def holds(seed: int, chosen: list[int]) -> None:
        pool, _ = inside.reset(seed=seed)
        env.reset(seed=seed)
        for step, index in enumerate(chosen):
            observation, reward, over, truncated, info = env.step(index)
            left = [int(i not in chosen[: step + 1]) for i in range(20)]
            assert observation["action_mask"].tolist() == left == env.action_masks().astype(int).tolist()
            np.testing.assert_equal(observation["pool"], pool["pool"])
            assert (over, truncated) == (step == 3, False)
            if step < 3:
                assert reward == 0
        np.testing.assert_equal((reward, info), inside.step(np.array(chosen))[1::3])

    holds()


def test_steps_out_of_turn_are_refused(make_env: Any, make_vec: Any) -> None:
    env, vector = OneAtATime(make_env()), VectorOneAtATime(make_vec(2))
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step(0)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        vector.step(np.zeros(2, np.int64))
    env.reset(seed=0)
    vector.reset(seed=0)
    with pytest.raises(SettingsError, match="index 20 is not one of the 20 candidates"):
        env.step(20)
    with pytest.raises(SettingsError, match="actions must be integers"):
        vector.step(np.zeros((2, 4), np.int64))
    with pytest.raises(SettingsError, match="all sub-environments are reset at once"):
        vector.reset(options={"reset_mask": np.array([True, False])})
    for _ in range(4):
        env.step(0)
    with pytest.raises(RuntimeError, match="4 steps long"):
        env.step(0)


# -- a flat vector ----------------------------------------------------------------------------------------------------


def test_the_vector_is_gymnasiums(make_active: Any) -> None:
    env, theirs = FlattenCandidates(make_active()), FlattenObservation(make_active())
    assert isinstance(env.observation_space, Box)
    np.testing.assert_array_equal(env.observation_space.high, theirs.observation_space.high)  # type: ignore[attr-defined]
    ours, _ = env.reset(seed=0)
    np.testing.assert_array_equal(ours, theirs.reset(seed=0)[0])
    assert ours.dtype == np.float32


def test_the_vector_is_made_of_the_keys_that_are_named(make_active: Any) -> None:
    env, inside = FlattenCandidates(make_active(), ["candidates", "state"]), make_active()
    observation, _ = inside.reset(seed=0)
    parts = [flatten(inside.observation_space[name], observation[name]) for name in ("candidates", "state")]
    np.testing.assert_array_equal(env.reset(seed=0)[0], np.concatenate(parts))
    with pytest.raises(SettingsError, match=r"'candidate'\. Did you mean 'candidates'"):
        FlattenCandidates(make_active(), ["candidate"])
    with pytest.raises(SettingsError, match="keys is empty"):
        FlattenCandidates(make_active(), [])


# -- what is not wrapped, and masks -----------------------------------------------------------------------------------


def test_other_environments_are_refused(make_env: Any, make_active: Any, make_vec: Any, make_active_vec: Any) -> None:
    with pytest.raises(SettingsError, match="not SelectiveLabel-v0; ActiveLabel-v0 has batch=1"):
        OneAtATime(make_active())
    with pytest.raises(SettingsError, match="not SelectiveLabel-v0; ActiveLabel-v0 has batch=1"):
        VectorOneAtATime(make_active_vec(2))
    with pytest.raises(SettingsError, match="must be indices of candidates"):
        ScoresToTopK(ScoresToTopK(make_env()))
    with pytest.raises(SettingsError, match="must be a Dict"):
        FlattenCandidates(FlattenCandidates(make_env()))
    for wrapper in (VectorScoresToTopK, VectorOneAtATime, VectorFlattenCandidates):
        with pytest.raises(SettingsError, match="wrap its single environments instead"):
            wrapper(SyncVectorEnv([make_env] * 2, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("form", ["vector", "dummy"])
@pytest.mark.parametrize("batch", [1, 5])
def test_masks_are_found_through_wrappers_and_adapters(
    make_active: Any, make_active_vec: Any, form: str, batch: int
) -> None:
    env: Any = DummyVecEnv([lambda: FlattenCandidates(make_active(batch=batch))] * B)
    if form == "vector":
        env = GymnasiumVecEnv(VectorFlattenCandidates(make_active_vec(B, batch=batch)))
    env.seed(0)
    env.reset()
    assert env.has_attr("action_masks")
    for _ in range(2):
        masks = np.stack(env.env_method("action_masks"))
        expected = [np.tile(info["action_mask"], batch) for info in env.reset_infos]
        assert masks.dtype == bool
        np.testing.assert_array_equal(masks, expected)
        np.testing.assert_array_equal(env.env_method("action_masks", indices=[2])[0], expected[2])
        chosen = masks[:, :60].argmax(axis=1)
        infos = env.step(chosen if batch == 1 else np.repeat(chosen[:, None], batch, 1))[3]
        env.reset_infos = infos


def test_masks_of_one_at_a_time_are_found(make_env: Any, make_vec: Any) -> None:
    for env in (DummyVecEnv([lambda: OneAtATime(make_env())] * B), GymnasiumVecEnv(VectorOneAtATime(make_vec(B)))):
        env.reset()
        env.step(np.array([3, 4, 5]))
        masks = np.stack(env.env_method("action_masks"))
        assert masks.shape == (B, 20)
        assert [np.flatnonzero(~mask).tolist() for mask in masks] == [[3], [4], [5]]
    assert not GymnasiumVecEnv(make_vec(B)).has_attr("action_masks")
    assert isinstance(env.action_space, Discrete)
