"""The vector form of ``SelectiveLabel-v0`` against Gymnasium's own vector env of single ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from activelabel.errors import SettingsError

Make = Callable[..., Any]
MODES = list(AutoresetMode)
B = 3


def same(ours: Any, theirs: Any, where: str = "") -> None:
    """Compare observations or infos, nested as they are."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, tuple) or (
        isinstance(theirs, np.ndarray) and theirs.dtype == object and isinstance(theirs[0], dict)
    ):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{where}[{i}]")
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
        if isinstance(theirs, np.ndarray) and theirs.dtype.kind in "bf":
            assert ours.dtype == theirs.dtype, where


@pytest.fixture
def pair(make_vec: Make, make_env: Make) -> Callable[..., tuple[Any, SyncVectorEnv]]:
    def make(mode: AutoresetMode, **changes: Any) -> tuple[Any, SyncVectorEnv]:
        single = [lambda: make_env(**changes)] * B
        return make_vec(B, autoreset_mode=mode, **changes), SyncVectorEnv(single, autoreset_mode=mode)

    return make


def actions_of(steps: int, k: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(20, size=(B, k)) for _ in range(steps)]


@pytest.mark.parametrize("mode", MODES)
def test_it_equals_a_sync_vector_env_of_single_ones(pair: Make, mode: AutoresetMode) -> None:
    native, sync = pair(mode)
    same(native.reset(seed=7), sync.reset(seed=7))
    for step, actions in enumerate(actions_of(6)):
        ours, theirs = native.step(actions), sync.step(actions)
        same(ours, theirs, f"step {step}")
        assert native.observation_space.contains(ours[0])
        if mode == AutoresetMode.DISABLED:
            options = {"reset_mask": np.ones(B, np.bool_)}
            same(native.reset(options=dict(options)), sync.reset(options=dict(options)))
    # A reset without a seed goes on with the generators.
    same(native.reset(), sync.reset())


@pytest.mark.parametrize("mode", MODES)
def test_without_copies_an_observation_is_good_for_two_steps(make_vec: Make, mode: AutoresetMode) -> None:
    saving, copying = make_vec(B, autoreset_mode=mode, copy=False), make_vec(B, autoreset_mode=mode)
    steps, expected = [saving.reset(seed=7)[0]], [copying.reset(seed=7)[0]]
    for actions in actions_of(4):
        ours, theirs = saving.step(actions), copying.step(actions)
        same(ours, theirs)
        steps.append(ours[0])
        expected.append(theirs[0])
        same(steps[-2], expected[-2])
        if mode == AutoresetMode.DISABLED:
            for env, kept in ((saving, steps), (copying, expected)):
                kept.append(env.reset(options={"reset_mask": np.ones(B, np.bool_)})[0])
    assert all(steps[i]["pool"] is steps[i + 2]["pool"] for i in range(len(steps) - 2))
    assert not any(a["pool"] is b["pool"] for a in expected for b in expected if a is not b)


def test_gym_make_vec_in_sync_mode_gives_the_same_game(cohort: Any) -> None:
    arguments: dict[str, Any] = {"cohort": cohort, "k": 4, "pool": 20, "query": 12, "device": "cpu"}
    native = gym.make_vec("SelectiveLabel-v0", num_envs=B, **arguments)
    sync = gym.make_vec(
        "SelectiveLabel-v0",
        num_envs=B,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **arguments,
    )
    assert isinstance(sync.unwrapped, SyncVectorEnv)
    same(native.reset(seed=1), sync.reset(seed=1))
    for actions in actions_of(3):
        same(native.step(actions), sync.step(actions))


@pytest.mark.parametrize("mode", [m.value for m in MODES])
def test_the_mode_is_announced(make_vec: Make, mode: str) -> None:
    vector = make_vec(2, autoreset_mode=mode)
    assert vector.metadata["autoreset_mode"] == AutoresetMode(mode)
    assert make_vec(2).metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


@pytest.mark.parametrize("i", range(B))
def test_sub_env_i_is_the_single_env_of_seed_plus_i(make_vec: Make, make_env: Make, i: int) -> None:
    native, single = make_vec(B), make_env()
    observation, info = native.reset(seed=40)
    alone, alone_info = single.reset(seed=40 + i)
    for actions in actions_of(4):
        for name in alone:
            np.testing.assert_array_equal(observation[name][i], alone[name])
        assert info["task"][i] == alone_info["task"]
        observation, rewards, _, _, info = native.step(actions)
        _, reward, _, _, final = single.step(actions[i])
        assert rewards[i] == reward
        assert info["final_info"]["random_reward"][i] == final["random_reward"]
        alone, alone_info = single.reset()


def test_one_seed_for_each_and_none(pair: Make) -> None:
    native, sync = pair(AutoresetMode.SAME_STEP)
    same(native.reset(seed=[5, 2, 9]), sync.reset(seed=[5, 2, 9]))
    same(native.reset(seed=[None, 2, None]), sync.reset(seed=[None, 2, None]))
    with pytest.raises(SettingsError, match="2 seeds for 3 environments"):
        native.reset(seed=[1, 2])
    unseeded = native.reset(seed=None)[1]["task"]
    assert unseeded.shape == (B,)


def test_tasks_are_chosen_by_number(make_vec: Make, make_env: Make) -> None:
    native, single = make_vec(B), make_env()
    observation, info = native.reset(seed=0, options={"task": np.array([4, 4, 9])})
    assert info["task"].tolist() == [4, 4, 9]
    alone, alone_info = single.reset(options={"task": 9})
    np.testing.assert_array_equal(observation["pool"][2], alone["pool"])
    assert info["condition"][2] == alone_info["condition"]
    for bad in ([1, 2], [0.5, 1, 2], 3):
        with pytest.raises(SettingsError, match="task must be 3 integers"):
            native.reset(options={"task": bad})
    with pytest.raises(SettingsError, match="task -2 must not be negative"):
        native.reset(options={"task": [0, -2, 0]})


def test_a_reset_mask_resets_some_and_leaves_the_others(pair: Make) -> None:
    native, sync = pair(AutoresetMode.DISABLED)
    before, _ = native.reset(seed=3)
    sync.reset(seed=3)
    native.step(actions_of(1)[0])
    mask = np.array([True, False, True])
    after, info = native.reset(options={"reset_mask": mask.copy(), "task": np.array([1, 2, 3])})
    np.testing.assert_array_equal(after["pool"][1], before["pool"][1])
    assert info["_task"].tolist() == mask.tolist()
    assert info["task"][mask].tolist() == [1, 3]
    with pytest.raises(RuntimeError, match="reset the environments that ended"):
        native.step(actions_of(1)[0])
    native.reset(options={"reset_mask": ~mask})
    assert native.step(actions_of(1)[0])[2].all()
    for bad in (np.ones(2, np.bool_), np.ones(3)):
        with pytest.raises(SettingsError, match=r"reset_mask must be bool \(3,\)"):
            native.reset(options={"reset_mask": bad})


def test_the_step_comes_after_a_reset(make_vec: Make) -> None:
    with pytest.raises(RuntimeError, match=r"call reset"):
        make_vec(2).step(np.zeros((2, 4), int))


def test_final_observation_and_info_are_those_of_the_episode(make_vec: Make) -> None:
    native = make_vec(B)
    observation, first = native.reset(seed=0)
    actions = actions_of(1)[0]
    expected = native.score_selections(actions[:, None])[:, 0]
    following, rewards, terminated, truncated, info = native.step(actions)
    np.testing.assert_array_equal(rewards, expected)
    assert terminated.all()
    assert not truncated.any()
    for i in range(B):
        for name in observation:
            np.testing.assert_array_equal(info["final_obs"][i][name], observation[name][i])
    np.testing.assert_array_equal(info["final_info"]["task"], first["task"])
    assert info["final_info"]["ids"].shape == (B, 4)
    # What comes with the result is already the next task.
    assert info["task"].tolist() != first["task"].tolist()
    np.testing.assert_array_equal(native.reset(options={"task": info["task"]})[0]["pool"], following["pool"])


def test_returned_arrays_are_never_written_again(make_vec: Make) -> None:
    native = make_vec(B)
    kept = [native.reset(seed=0)]
    copies = copy.deepcopy(kept)
    for actions in actions_of(4):
        result = native.step(actions)
        kept.append(result)
        copies.append(copy.deepcopy(result))
    for before, now in zip(copies, kept, strict=True):
        same(now, before)
    pools = [step[0]["pool"] for step in kept]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(pools) for b in pools[:i])
    assert not np.shares_memory(kept[1][2], kept[2][2])


def test_writing_into_an_observation_does_not_change_the_game(make_vec: Make, make_env: Make) -> None:
    for env, actions in ((make_vec(B), actions_of(1)[0]), (make_env(), actions_of(1)[0][0])):
        env.reset(seed=0)
        expected = env.step(actions)[1]
        observation, _ = env.reset(seed=0)
        observation["pool"][:] = 0
        np.testing.assert_array_equal(env.step(actions)[1], expected)


def test_the_state_continues_exactly(make_vec: Make) -> None:
    native, other = make_vec(B), make_vec(B)
    native.reset(seed=2)
    steps = actions_of(4)
    native.step(steps[0])
    state = native.state_dict()
    expected = [native.step(actions) for actions in steps[1:]]
    other.load_state_dict(state)
    for actions, result in zip(steps[1:], expected, strict=True):
        same(other.step(actions), result)
    with pytest.raises(SettingsError, match="the saved state is of 3 environments, this is 2"):
        make_vec(2).load_state_dict(state)


def test_the_number_of_envs_is_positive(cohort: Any) -> None:
    with pytest.raises(SettingsError, match="num_envs=0 must be at least 1"):
        gym.make_vec("SelectiveLabel-v0", num_envs=0, cohort=cohort)


def test_a_reward_is_the_same_in_any_batch(make_vec: Make, make_env: Make) -> None:
    # Sums of another order could break a tie that another batch size keeps.
    many, single = make_vec(16), make_env()
    tasks = np.arange(16)
    many.reset(options={"task": tasks})
    selections = np.random.default_rng(3).integers(20, size=(16, 5, 4))
    together = many.score_selections(selections)
    for i in tasks:
        single.reset(options={"task": i})
        np.testing.assert_array_equal(single.score_selections(selections[i]), together[i])
        for selection, reward in zip(selections[i], together[i], strict=True):
            assert single.score_selections(selection[None])[0] == reward
