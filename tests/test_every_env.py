"""What holds for every registered environment of the package."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
from conftest import ACTIVE, EVERYTHING, TINY
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor

import activelabel
from activelabel.data import SPLITS, Cohort
from activelabel.envs.candidates import LONG
from activelabel.envs.sb3 import GymnasiumVecEnv

OURS = sorted(i for i, spec in gym.registry.items() if str(spec.entry_point).startswith("activelabel."))
"""Every registered env of the package."""

THIRDS = {"fractions": (0.4, 0.3, 0.3), "shares": (0.4, 0.1, 0.3, 0.2)}
"""So that every part of the small cohort has enough images."""

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "SelectiveLabel-v0": {"tiny": TINY},
    "ActiveLabel-v0": {
        "tiny": {**ACTIVE, **THIRDS},
        "one at a time": {**ACTIVE, **THIRDS, "batch": 1, "features": LONG},
        "everything": {**ACTIVE, **THIRDS, **EVERYTHING, "components": 4},
        "data space": {**ACTIVE, **THIRDS, "space": "data", "components": 3},
        "cosine, few candidates": {**ACTIVE, **THIRDS, "distance": "cosine", "candidates": 9, "features": LONG},
        "fewer than asked for": {**ACTIVE, **THIRDS, "pool": 20, "budget": 16, "candidates": 19},
        "target": {**ACTIVE, **THIRDS, "reward": "target", "metric": "balanced-accuracy", "initial": 2},
        "auroc, warm": {**ACTIVE, **THIRDS, "metric": "auroc", "learner_arguments": {"epochs": 9, "warm": True}},
    },
}
"""Settings to test by id; an env without an entry is tested at its defaults."""

CASES = [(env_id, name) for env_id in OURS for name in SETTINGS.get(env_id, {"defaults": {}})]


@pytest.fixture(params=CASES, ids=[": ".join(case) for case in CASES])
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def env_id(case: tuple[str, str]) -> str:
    return case[0]


@pytest.fixture
def arguments(case: tuple[str, str], cohort: Cohort, blobs: Cohort) -> dict[str, Any]:
    env_id, name = case
    data = blobs if env_id == "ActiveLabel-v0" else cohort
    return {"cohort": data, "device": "cpu", **SETTINGS.get(env_id, {}).get(name, {})}


def lengths_of_episodes(env: gym.Env[Any, Any]) -> list[int]:
    """Random actions; what the wrapper counted at the end of each episode."""
    lengths = []
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(15):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            lengths.append(info["episode"]["l"])
            env.reset()
    return lengths


def test_gymnasium_has_no_complaint(env_id: str, arguments: dict[str, Any]) -> None:
    # Warnings are errors: the checker's advice counts too.
    check_env(gym.make(env_id, **arguments).unwrapped)


# A pool is a matrix on purpose: the policies read it image by image.
@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape:UserWarning")
def test_stable_baselines3_has_no_complaint(env_id: str, arguments: dict[str, Any]) -> None:
    sb3_check_env(gym.make(env_id, **arguments).unwrapped)


def test_registering_again_changes_nothing(env_id: str) -> None:
    before = gym.registry[env_id]
    activelabel.register_envs()
    assert gym.registry[env_id] is before


def test_no_global_generator_is_used(env_id: str, arguments: dict[str, Any]) -> None:
    with reference.global_rng_untouched():
        env = gym.make(env_id, **arguments)
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
        vector = gym.make_vec(env_id, num_envs=2, **arguments)
        vector.reset(seed=0)
        vector.action_space.seed(0)
        vector.step(vector.action_space.sample())


@pytest.mark.parametrize("split", SPLITS)
def test_the_bounds_hold_every_observation_of_every_part(env_id: str, arguments: dict[str, Any], split: str) -> None:
    env = gym.make(env_id, **{**arguments, "split": split})
    env.action_space.seed(0)
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            assert env.observation_space.contains(observation)
            observation, reward, over, *_ = env.step(env.action_space.sample())
            assert np.isfinite(reward)
        assert env.observation_space.contains(observation)


def test_an_episode_is_the_same_again_and_nothing_of_it_is_written_later(
    env_id: str, arguments: dict[str, Any]
) -> None:
    env, other = gym.make(env_id, **arguments), gym.make(env_id, **arguments)
    other.reset(seed=99)
    kept = []
    for again in (env, other, env):
        again.action_space.seed(1)
        played: list[Any] = [again.reset(seed=3)]
        while len(played) == 1 or not played[-1][2]:
            played.append(again.step(again.action_space.sample()))
        kept.append(played)
    for played in kept[1:]:
        np.testing.assert_equal(played, kept[0])


def test_the_wrappers_of_others_work(env_id: str, arguments: dict[str, Any]) -> None:
    env = gym.make(env_id, **arguments)
    lengths = lengths_of_episodes(RecordEpisodeStatistics(env))
    assert lengths
    assert lengths_of_episodes(Monitor(env)) == lengths
    flat = FlattenObservation(env)
    observation, _ = flat.reset(seed=0)
    assert flat.observation_space.contains(observation)
    limited = TimeLimit(env, 1)
    limited.reset(seed=0)
    limited.action_space.seed(0)
    *_, terminated, truncated, _ = limited.step(limited.action_space.sample())
    assert truncated or terminated


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:2] + CASES[-1:], indirect=True)
@pytest.mark.parametrize("form", ["single", "vector"])
def test_stable_baselines3_trains_on_it(env_id: str, arguments: dict[str, Any], form: str) -> None:
    env: Any = gym.make(env_id, **arguments)
    if form == "vector":
        env = GymnasiumVecEnv(gym.make_vec(env_id, num_envs=2, **arguments))
    model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(32)
    assert {"r", "l", "t"} <= set((model.ep_info_buffer or [{}])[0])
