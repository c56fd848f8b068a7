"""The vector form of ``ActiveLabel-v0`` against single envs, to the last bit."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from active_reference import listed
from conftest import ACTIVE, EVERYTHING
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from activelabel.data import Cohort
from activelabel.envs import LEARNERS, METRICS, RunningEpisodes
from activelabel.envs.candidates import FEATURES
from activelabel.envs.sb3 import GymnasiumVecEnv, env_state, restore_env
from activelabel.errors import SettingsError

Make = Callable[..., Any]
MODES = list(AutoresetMode)
B = 3

TARGET: dict[str, Any] = {"reward": "target", "tolerance": 0.93, "batch": 2}
"""Episodes of different lengths."""

QUICK = {"softmax": {"epochs": 9}, "logistic": {"max_iter": 9}}
"""Learners that take less time than by default."""

GAMES: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "target": {**TARGET, **EVERYTHING},
    "target, few candidates": {**TARGET, "candidates": 15},
    "target, warm": {**TARGET, "learner_arguments": {"epochs": 4, "warm": True}},
    "one at a time": {"batch": 1, "budget": 4},
    "few candidates": {"candidates": 7, "features": tuple(FEATURES)},
    "the pool runs out": {"pool": 20, "candidates": 19, "budget": 16},
    "the whole part": {"pool": None, "distance": "cosine", "features": tuple(FEATURES)},
    "data space": {"space": "data", "components": 3},
    "two classes": {"classes": ("D", "A"), "initial": 2},
    **{f"learner {name}": {"learner": name, "learner_arguments": QUICK.get(name, {})} for name in LEARNERS},
    **{f"metric {name}": {"metric": name} for name in METRICS},
}


def actions_of(env: Any, steps: int) -> list[np.ndarray]:
    """Random candidates, labelled and repeated ones among them."""
    rng = np.random.default_rng(0)
    shape = env.action_space.shape
    return [rng.integers(env.unwrapped.engine.m, size=shape) for _ in range(steps)]


def of(info: dict[str, Any], i: int) -> dict[str, Any]:
    """The info of sub-environment ``i``, by the masks."""
    return {
        key: of(value, i) if isinstance(value, dict) else value[i]
        for key, value in info.items()
        if not key.startswith("_") and info[f"_{key}"][i]
    }


class ByHand:
    """Single envs, one after the other, that are reset by the rules of a mode."""

    def __init__(self, make: Make, mode: AutoresetMode) -> None:
        self.envs = [make() for _ in range(B)]
        self.mode = mode
        self.over = [False] * B

    def reset(self, i: int, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        self.over[i] = False
        observation, info = self.envs[i].reset(**arguments)
        return observation, info

    def step(self, i: int, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.over[i] and self.mode == AutoresetMode.NEXT_STEP:
            observation, info = self.reset(i)
            return observation, 0.0, False, False, info
        observation, reward, over, truncated, info = self.envs[i].step(action)
        self.over[i] = over
        if over and self.mode == AutoresetMode.SAME_STEP:
            following, start = self.reset(i)
            return following, reward, over, truncated, {**start, "final_obs": observation, "final_info": info}
        return observation, reward, over, truncated, info


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GAMES)
def test_it_equals_single_envs_to_the_last_bit(
    make_active: Make, make_active_vec: Make, name: str, mode: AutoresetMode
) -> None:
    native = make_active_vec(B, autoreset_mode=mode, **GAMES[name])
    singles = ByHand(lambda: make_active(**GAMES[name]), mode)
    observation, info = native.reset(seed=7)
    for i in range(B):
        alone = singles.reset(i, seed=7 + i)
        np.testing.assert_equal(({key: array[i] for key, array in observation.items()}, of(info, i)), alone)
    ends = []
    for step, actions in enumerate(actions_of(native, 8)):
        if mode == AutoresetMode.DISABLED and any(singles.over):
            mask = np.array(singles.over)
            observation, info = native.reset(options={"reset_mask": mask})
            for i in range(B):
                alone = singles.reset(i) if mask[i] else (singles.envs[i]._observe(), {})
                np.testing.assert_equal(({key: array[i] for key, array in observation.items()}, of(info, i)), alone)
        observation, rewards, terminated, truncated, info = native.step(actions)
        assert native.observation_space.contains(observation)
        assert rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == np.bool_
        for i in range(B):
            found = ({key: array[i] for key, array in observation.items()}, rewards[i], terminated[i], truncated[i])
            expected = singles.step(i, actions[i])
            np.testing.assert_equal((*found, of(info, i)), expected, err_msg=f"{step}, {i}")
        ends.append(terminated.tolist())
    assert any(map(any, ends)), "an episode must have ended"
    if name.startswith("target"):
        assert any(any(end) and not all(end) for end in ends), "at different times"
    # A reset without a seed goes on with the generators.
    assert native.reset()[1]["episode_id"].tolist() == [singles.reset(i)[1]["episode_id"] for i in range(B)]


def test_gym_make_vec_in_sync_mode_gives_the_same_game(blobs: Cohort) -> None:
    arguments: dict[str, Any] = {"cohort": blobs, "device": "cpu", **ACTIVE}
    native = gym.make_vec("ActiveLabel-v0", num_envs=B, **arguments)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    sync = gym.make_vec("ActiveLabel-v0", num_envs=B, vectorization_mode="sync", vector_kwargs=mode, **arguments)
    assert isinstance(sync.unwrapped, SyncVectorEnv)
    assert native.single_observation_space == sync.single_observation_space
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space
    ours, theirs = native.reset(seed=1), sync.reset(seed=1)
    for actions in actions_of(native, 7):
        np.testing.assert_equal(listed(ours[:-1]), listed(theirs[:-1]))
        for i in range(B):
            np.testing.assert_equal(of(ours[-1], i), of(theirs[-1], i))
        ours, theirs = native.step(actions), sync.step(actions)


def test_sub_env_i_is_the_single_env_of_seed_plus_i_in_any_number_of_them(make_active_vec: Make) -> None:
    few, many = make_active_vec(2, **TARGET), make_active_vec(17, **TARGET)
    few.reset(seed=45)
    many.reset(seed=40)
    for actions in actions_of(many, 6):
        a, b = few.step(actions[5:7]), many.step(actions)
        for i in range(2):
            np.testing.assert_equal(of(a[-1], i), of(b[-1], i + 5))
            np.testing.assert_equal(
                [part[i] for part in (*a[0].values(), *a[1:4])], [part[i + 5] for part in (*b[0].values(), *b[1:4])]
            )


def test_the_mode_is_announced(make_active_vec: Make) -> None:
    for mode in MODES:
        assert make_active_vec(2, autoreset_mode=mode.value).metadata["autoreset_mode"] == mode
    assert make_active_vec(2).metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_one_seed_for_each_and_none(make_active: Make, make_active_vec: Make) -> None:
    native = make_active_vec(B)
    ids = native.reset(seed=[5, 2, 9])[1]["episode_id"]
    assert ids.tolist() == [make_active().reset(seed=s)[1]["episode_id"] for s in (5, 2, 9)]
    again = native.reset(seed=[None, 2, None])[1]["episode_id"]
    assert again[1] == ids[1]
    assert again[0] != ids[0]
    with pytest.raises(SettingsError, match="2 seeds for 3 environments"):
        native.reset(seed=[1, 2])


def test_episodes_are_chosen_by_number(make_active: Make, make_active_vec: Make) -> None:
    native = make_active_vec(B)
    observation, info = native.reset(seed=0, options={"episode": np.array([4, 4, 9])})
    assert info["episode_id"].tolist() == [4, 4, 9]
    alone, _ = make_active().reset(options={"episode": 9})
    for name, array in alone.items():
        np.testing.assert_array_equal(observation[name][2], array)
        np.testing.assert_array_equal(observation[name][0], observation[name][1])
    for bad in ([1, 2], [0.5, 1, 2], 3):
        with pytest.raises(SettingsError, match="episode must be 3 integers"):
            native.reset(options={"episode": bad})
    with pytest.raises(SettingsError, match="episode -2 must not be negative"):
        native.reset(options={"episode": [0, -2, 0]})


def test_a_reset_mask_resets_some_and_leaves_the_others(make_active_vec: Make) -> None:
    native = make_active_vec(B, autoreset_mode="Disabled")
    with pytest.raises(SettingsError, match="the first reset must be of all"):
        native.reset(options={"reset_mask": np.array([True, False, True])})
    native.reset(seed=3)
    actions = actions_of(native, 3)
    before = native.step(actions[0])[0]
    mask = np.array([True, False, True])
    after, info = native.reset(options={"reset_mask": mask, "episode": np.array([1, 2, 3])})
    for name in after:
        np.testing.assert_array_equal(after[name][1], before[name][1])
    assert info["_episode_id"].tolist() == mask.tolist()
    assert info["episode_id"][mask].tolist() == [1, 3]
    # Number 1 is a step ahead and ends before the others.
    native.step(actions[1])
    assert native.step(actions[2])[2].tolist() == [False, True, False]
    with pytest.raises(RuntimeError, match="call reset"):
        native.step(actions[0])
    native.reset(options={"reset_mask": ~mask})
    assert native.step(actions[0])[2].tolist() == [True, False, True]
    for bad in (np.ones(2, np.bool_), np.ones(3)):
        with pytest.raises(SettingsError, match=r"reset_mask must be bool \(3,\)"):
            native.reset(options={"reset_mask": bad})


def test_the_test_curve_comes_with_the_final_info_alone(make_active_vec: Make) -> None:
    native = make_active_vec(B, **TARGET)
    infos = [native.reset(seed=0)[1]]
    lengths = np.zeros(B, int)
    for actions in actions_of(native, 9):
        *_, over, _, info = native.step(actions)
        lengths += 1
        infos.append(info)
        assert ("final_info" in info) == over.any()
        for i in np.flatnonzero(over):
            assert info["final_info"]["test_curve"][i].shape == (lengths[i] + 1,)
            assert info["final_info"]["curve_labels"][i].tolist() == list(range(0, 2 * lengths[i] + 1, 2))
            lengths[i] = 0
        for i in np.flatnonzero(~over):
            assert "final_info" not in info or not of(info["final_info"], i)
    assert not [info for info in infos if {"test_curve", "curve_labels"} & set(info)]
    assert sum("final_info" in info for info in infos) > 1


def test_returned_arrays_are_never_written_again(make_active: Make, make_active_vec: Make) -> None:
    for env in (make_active_vec(B, **EVERYTHING), make_active(**EVERYTHING)):
        kept: list[Any] = [env.reset(seed=0)]
        copies = copy.deepcopy(kept)
        for actions in actions_of(env, 3):
            kept.append(env.step(actions))
            copies.append(copy.deepcopy(kept[-1]))
        env.reset(seed=1)
        np.testing.assert_equal(listed(kept), listed(copies))


def test_writing_into_what_was_returned_does_not_change_the_game(make_active: Make, make_active_vec: Make) -> None:
    def scribble(value: Any) -> None:
        for entry in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
            if isinstance(entry, np.ndarray) and entry.dtype != object:
                entry[...] = 1
            scribble(entry)

    for make in (lambda: make_active_vec(B, **EVERYTHING), lambda: make_active(**EVERYTHING)):
        env, touched = make(), make()
        env.reset(seed=0)
        scribble(touched.reset(seed=0))
        actions = actions_of(env, 4)
        for each in actions[:2]:
            env.step(each)
            scribble(touched.step(each))
        for each in actions[2:3]:
            np.testing.assert_equal(listed(touched.step(each)), listed(env.step(each)))


# -- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *[("target", mode) for mode in MODES],
        *[(name, AutoresetMode.SAME_STEP) for name in ("target, few candidates", "target, warm", "the pool runs out")],
    ],
)
def test_the_state_continues_exactly(make_active_vec: Make, name: str, mode: AutoresetMode) -> None:
    def play(env: Any, actions: np.ndarray, over: np.ndarray) -> Any:
        if mode == AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
        return env.step(actions)

    native = make_active_vec(B, autoreset_mode=mode, **GAMES[name])
    results: list[Any] = [(native.reset(seed=2)[0], None, np.zeros(B, np.bool_))]
    states = []
    steps = actions_of(native, 8)
    for actions in steps:
        states.append(json.dumps(native.state_dict()))
        results.append(play(native, actions, results[-1][2]))
    other = make_active_vec(B, autoreset_mode=mode, **GAMES[name])
    other.reset(seed=77)
    # From the start, and from where an episode has just ended while others are unequally far.
    ends = [at for at in range(8) if results[at][2].any()]
    assert ends
    for at in (0, 1, ends[0], ends[-1]):
        np.testing.assert_equal(other.load_state_dict(json.loads(states[at])), results[at][0])
        for ahead in range(at, min(at + 3, 8)):
            found = play(other, steps[ahead], results[ahead][2])
            np.testing.assert_equal(listed(found), listed(results[ahead + 1]))
    with pytest.raises(SettingsError, match="the saved state is of 3 environments, this is 2"):
        make_active_vec(2, **GAMES[name]).load_state_dict(native.state_dict())


def test_the_state_is_that_of_a_running_episode(make_active_vec: Make) -> None:
    with pytest.raises(RuntimeError, match="reset"):
        make_active_vec(2).state_dict()
    native = make_active_vec(2)
    native.reset(seed=0)
    with pytest.raises(SettingsError, match="the saved state is of 2 episodes, this is 3"):
        RunningEpisodes(native.unwrapped.engine, 3).load_state_dict(native.state_dict()["episodes"])


PROGRAM = """
import json
import gymnasium as gym
import numpy as np
import activelabel

arguments = {"cohort": "digits", "device": "cpu", "budget": 9, "batch": 4, "candidates": 30, "learner": "softmax"}
env = gym.make_vec("ActiveLabel-v0", num_envs=2, features=["confidence", "nearest", "unlabelled"], **arguments)
rng = np.random.default_rng(0)
played = [env.reset(options={"episode": EPISODES})]
played += [env.step(rng.integers(30, size=(2, 4))) for _ in range(2)]
"""


def test_an_episode_is_the_same_in_another_process_and_beside_others(root: Path) -> None:
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.replace("EPISODES", "[7, 123456789]") + "print(json.dumps(played, default=lambda a: a.tolist()))",
        ],
        **{"cwd": root, "capture_output": True, "text": True, "check": True},
    )
    scope: dict[str, Any] = {}
    exec(PROGRAM.replace("EPISODES", "[7, 5]"), scope)  # the same program here
    for theirs, ours in zip(json.loads(printed.stdout), scope["played"], strict=True):
        for name, array in ours[0].items():
            assert theirs[0][name][0] == array[0].tolist()
        for name, array in ours[-1].items():
            assert theirs[-1][name][0] == array[0].tolist(), name


# -- wrappers and adapters --------------------------------------------------------------------------------------------


def test_the_number_of_envs_is_positive(blobs: Cohort) -> None:
    with pytest.raises(SettingsError, match="num_envs=0 must be at least 1"):
        gym.make_vec("ActiveLabel-v0", num_envs=0, cohort=blobs)


def test_gymnasium_counts_its_episodes(make_active_vec: Make) -> None:
    wrapped = RecordEpisodeStatistics(make_active_vec(B, **TARGET, autoreset_mode="NextStep"))
    wrapped.reset(seed=0)
    returns = []
    for actions in actions_of(wrapped, 8):
        *_, over, _, info = wrapped.step(actions)
        returns += [(info["episode"]["r"][i], info["episode"]["l"][i]) for i in np.flatnonzero(over)]
    assert len(returns) > 3
    assert all(r == -length for r, length in returns)


def test_stable_baselines3_sees_the_same_through_both_forms(make_active: Make, make_active_vec: Make) -> None:
    adapted = GymnasiumVecEnv(make_active_vec(B, **TARGET))
    dummy = DummyVecEnv([lambda: Monitor(make_active(**TARGET))] * B)
    adapted.seed(2)
    dummy.seed(2)
    ours, theirs = adapted.reset(), dummy.reset()
    lengths = []
    for actions in actions_of(adapted.venv, 10):
        np.testing.assert_equal(dict(ours), dict(theirs))
        np.testing.assert_equal(adapted.reset_infos, dummy.reset_infos)
        ours, rewards, dones, infos = adapted.step(actions)
        theirs, expected, their_dones, their_infos = dummy.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(dones, their_dones)
        for done, info, other in zip(dones, infos, their_infos, strict=True):
            assert ("episode" in info) == done
            if done:
                lengths.append(info["episode"]["l"])
                assert info["episode"]["r"] == -info["episode"]["l"]
                for timed in (info, other):
                    assert timed["episode"].pop("t") >= 0
            np.testing.assert_equal(info, other)
    assert len(set(lengths)) > 1


def test_the_adapter_continues_exactly(make_active_vec: Make) -> None:
    adapted = GymnasiumVecEnv(make_active_vec(B, **TARGET))
    adapted.seed(5)
    adapted.reset()
    steps = actions_of(adapted.venv, 8)
    observation = [adapted.step(actions) for actions in steps[:3]][-1][0]
    state = env_state(adapted)
    expected = [adapted.step(actions)[1].tolist() for actions in steps[3:]]
    np.testing.assert_equal(restore_env(adapted, state), observation)
    assert [adapted.step(actions)[1].tolist() for actions in steps[3:]] == expected
