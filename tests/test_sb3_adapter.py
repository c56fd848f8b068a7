"""A Gymnasium vector env as Stable-Baselines3 sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from activelabel.envs.sb3 import GymnasiumVecEnv, as_vec_env, env_state, restore_env, score_selections
from activelabel.errors import SettingsError

Make = Callable[..., Any]
B = 3


def actions_of(steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(20, size=(B, 4)) for _ in range(steps)]


@pytest.fixture
def adapted(make_vec: Make) -> GymnasiumVecEnv:
    return GymnasiumVecEnv(make_vec(B))


@pytest.fixture
def dummy(make_env: Make) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(make_env())] * B)


def test_seeds_are_those_of_the_vector_env(adapted: GymnasiumVecEnv, make_vec: Make) -> None:
    native = make_vec(B)
    expected, info = native.reset(seed=13)
    adapted.seed(13)
    observation = adapted.reset()
    assert isinstance(observation, dict)
    np.testing.assert_array_equal(observation["pool"], expected["pool"])
    assert [i["task"] for i in adapted.reset_infos] == info["task"].tolist()
    # The seeds are used once: the next reset goes on.
    np.testing.assert_array_equal(adapted.reset()["pool"], native.reset()[0]["pool"])  # type: ignore[call-overload]


def test_it_equals_a_dummy_vec_env_of_monitored_single_envs(adapted: GymnasiumVecEnv, dummy: DummyVecEnv) -> None:
    adapted.seed(2)
    dummy.seed(2)
    ours, theirs = adapted.reset(), dummy.reset()
    for actions in actions_of(5):
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])  # type: ignore[call-overload]
        assert [i["task"] for i in adapted.reset_infos] == [i["task"] for i in dummy.reset_infos]
        ours, rewards, dones, infos = adapted.step(actions)
        theirs, expected, their_dones, their_infos = dummy.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        assert rewards.dtype == expected.dtype
        np.testing.assert_array_equal(dones, their_dones)
        for info, other in zip(infos, their_infos, strict=True):
            assert set(info) == set(other)
            for name, array in other["terminal_observation"].items():
                np.testing.assert_array_equal(info["terminal_observation"][name], array)
            # Monitor rounds the return to six digits.
            assert info["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-6)
            assert info["episode"]["l"] == other["episode"]["l"] == 1
            assert info["TimeLimit.truncated"] is other["TimeLimit.truncated"] is False
            for key in set(other) - {"terminal_observation", "episode"}:
                np.testing.assert_array_equal(info[key], other[key], err_msg=key)
                assert isinstance(info[key], type(other[key])), key


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(make_vec: Make, mode: AutoresetMode) -> None:
    with pytest.raises(SettingsError, match=f"autoreset_mode={mode}.*needs AutoresetMode.SAME_STEP"):
        GymnasiumVecEnv(make_vec(B, autoreset_mode=mode))


def test_any_same_step_vector_env_is_adapted(make_env: Make, adapted: GymnasiumVecEnv) -> None:
    other = GymnasiumVecEnv(SyncVectorEnv([make_env] * B, autoreset_mode=AutoresetMode.SAME_STEP))
    for env in (adapted, other):
        env.seed(1)
    first, second = adapted.reset(), other.reset()
    np.testing.assert_array_equal(first["pool"], second["pool"])  # type: ignore[call-overload]
    for actions in actions_of(2):
        np.testing.assert_array_equal(adapted.step(actions)[1], other.step(actions)[1])


def test_options_given_before_are_used_by_the_reset(adapted: GymnasiumVecEnv) -> None:
    adapted.set_options([{"task": 5}, {"task": 6}, {"task": 7}])
    adapted.reset()
    assert [info["task"] for info in adapted.reset_infos] == [5, 6, 7]
    adapted.set_options({"task": 8})
    adapted.reset()
    assert [info["task"] for info in adapted.reset_infos] == [8, 8, 8]
    # They are used once: the next tasks are drawn.
    adapted.reset()
    assert [info["task"] for info in adapted.reset_infos] != [8, 8, 8]


def test_methods_and_attributes_are_those_of_the_vector_env(adapted: GymnasiumVecEnv) -> None:
    adapted.reset()
    assert adapted.get_attr("num_envs") == [B] * B
    assert adapted.get_attr("num_envs", indices=[0, 2]) == [B] * 2
    adapted.set_attr("render_mode", None)
    assert adapted.env_method("state_dict", indices=0)[0]["task"] == [i["task"] for i in adapted.reset_infos]
    assert adapted.env_is_wrapped(Monitor) == [False] * B
    with pytest.raises(AttributeError):
        adapted.get_attr("no_such_attribute")
    adapted.close()


def test_vector_envs_are_adapted_ids_made_and_the_rest_left(make_env: Make, make_vec: Make, dummy: DummyVecEnv) -> None:
    env = make_env()
    assert as_vec_env(env, 2) is env
    assert as_vec_env(dummy, 2) is dummy
    assert as_vec_env(None, 2) is None
    for adapted, num_envs in ((as_vec_env(make_vec(3), 2), 3), (as_vec_env("SelectiveLabel-v0", 2), 2)):
        assert isinstance(adapted, GymnasiumVecEnv)
        assert adapted.num_envs == num_envs


def test_scores_and_states_are_the_same_through_both_forms(adapted: GymnasiumVecEnv, dummy: DummyVecEnv) -> None:
    selections = np.random.default_rng(1).integers(20, size=(B, 5, 6))
    for env in (adapted, dummy):
        env.seed(3)
        env.reset()
    scores = score_selections(adapted, selections)
    assert scores.shape == (B, 5)
    np.testing.assert_array_equal(scores, score_selections(dummy, selections))
    for env in (adapted, dummy):
        state = env_state(env)
        expected = [env.step(actions)[1].tolist() for actions in actions_of(3)]
        observation = restore_env(env, state)
        assert observation["pool"].shape == (B, 20, 8)
        np.testing.assert_array_equal(score_selections(env, selections), scores)
        assert [env.step(actions)[1].tolist() for actions in actions_of(3)] == expected


def test_a_state_of_another_number_of_envs_is_refused(adapted: GymnasiumVecEnv, make_env: Make, make_vec: Make) -> None:
    adapted.reset()
    other = GymnasiumVecEnv(make_vec(2))
    with pytest.raises(SettingsError, match="state is of 3 environments, this is 2"):
        restore_env(other, env_state(adapted))
    two = DummyVecEnv([make_env] * 2)
    two.reset()
    with pytest.raises(SettingsError, match="state is of 2 environments, this is 1"):
        restore_env(DummyVecEnv([make_env]), env_state(two))


@pytest.mark.slow
def test_ppo_trains_through_it(make_vec: Make) -> None:
    model = PPO("MultiInputPolicy", GymnasiumVecEnv(make_vec(4)), n_steps=8, batch_size=16, n_epochs=2, seed=0)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert len(model.ep_info_buffer or ()) == 64
    assert any((a != b).any() for a, b in zip(before, model.policy.parameters(), strict=True))


def test_options_must_have_the_same_keys(make_vec: Make) -> None:
    adapted = GymnasiumVecEnv(make_vec(2))
    adapted.set_options([{"task": 1}, {}])
    with pytest.raises(SettingsError, match="same keys for every env"):
        adapted.reset()
