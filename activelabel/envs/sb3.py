"""A Gymnasium vector env as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from activelabel.data.cohort import IntArray
from activelabel.envs.wrappers import vector_attribute
from activelabel.errors import SettingsError


class GymnasiumVecEnv(VecEnv):
    """Adapts a vector env so that any Stable-Baselines3 algorithm trains on it.

    The infos get ``episode`` (return, length, seconds) at the end of an episode, as SB3's ``Monitor`` writes it.

    Parameters
    ----------
    venv: a Gymnasium vector env that resets in the same step, such as ``gym.make_vec("SelectiveLabel-v0",
        num_envs=64)``.

    Raises
    ------
    SettingsError: if it resets in another way.
    """

    def __init__(self, venv: VectorEnv[Any, Any, Any]) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise SettingsError(
                f"the vector env has autoreset_mode={mode}; Stable-Baselines3 needs AutoresetMode.SAME_STEP."
            )
        self.venv = venv
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)
        self._start = time.perf_counter()
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> VecEnvObs:
        """Reset all; seeds and options given before are used once. Options must have the same keys for every env."""
        seed = None if all(s is None for s in self._seeds) else list(self._seeds)
        if any(set(o) != set(self._options[0]) for o in self._options):
            raise SettingsError(f"options must have the same keys for every env, got {self._options}.")
        options = {name: [o[name] for o in self._options] for name in self._options[0]} if any(self._options) else None
        observation, infos = self.venv.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self.reset_infos = [_unstack(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        return observation  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play the actions."""
        observation, rewards, terminated, truncated, infos = self.venv.step(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        listed = []
        for i in range(self.num_envs):
            info = _unstack(infos["final_info"] if dones[i] else infos, i)
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            if dones[i]:
                info["terminal_observation"] = infos["final_obs"][i]
                seconds = round(time.perf_counter() - self._start, 6)
                info["episode"] = {"r": float(self._returns[i]), "l": int(self._lengths[i]), "t": seconds}
                self.reset_infos[i] = _unstack(infos, i)
            listed.append(info)
        self._returns[dones] = 0
        self._lengths[dones] = 0
        return observation, rewards.astype(np.float32), dones, listed

    def close(self) -> None:
        """Close the vector env."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector env, the outermost wrapper's that has it, once for each index."""
        return [vector_attribute(self.venv, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector env as a whole."""
        setattr(self.venv.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector env, the outermost wrapper's that has it; its result stands once for each index.

        Of ``action_masks`` each index gets its own row, with N labels a step N times, as MaskablePPO wants it.
        """
        result = vector_attribute(self.venv, method_name)(*args, **kwargs)
        wanted = list(self._get_indices(indices))
        if method_name == "action_masks":
            slots = len(self.action_space.nvec) if isinstance(self.action_space, MultiDiscrete) else 1
            return [np.tile(result[i], slots) for i in wanted]
        return [result] * len(wanted)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Say no: there are no single envs to wrap."""
        return [False] * len(list(self._get_indices(indices)))


def _unstack(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Return the info of sub-environment ``i`` from a vector info."""
    single = {}
    for key, value in infos.items():
        if key.startswith("_") or key in ("final_info", "final_obs") or not infos.get(f"_{key}", [True] * (i + 1))[i]:
            continue
        if isinstance(value, dict):
            single[key] = _unstack(value, i)
        elif isinstance(value, (np.ndarray, Sequence)):
            element = value[i]
            single[key] = element.item() if isinstance(element, np.generic) else element
    return single


def as_vec_env(env: Any, num_envs: int) -> Any:
    """Return a Gymnasium vector env adapted, anything else as it is; of an id ``num_envs`` copies are made as one."""
    if isinstance(env, str):
        env = gym.make_vec(env, num_envs=num_envs)
    return GymnasiumVecEnv(env) if isinstance(env, VectorEnv) else env


def score_selections(env: VecEnv, selections: IntArray) -> NDArray[np.float64]:
    """Return rewards ``(B, M)`` of selections ``(B, M, K)`` of the envs' current tasks."""
    if isinstance(env.unwrapped, GymnasiumVecEnv):
        scored: NDArray[np.float64] = env.env_method("score_selections", selections, indices=0)[0]
        return scored
    return np.stack([env.env_method("score_selections", s, indices=i)[0] for i, s in enumerate(selections)])


def env_state(env: VecEnv) -> list[dict[str, Any]]:
    """Return what :func:`restore_env` needs to continue each env exactly."""
    return env.env_method("state_dict", indices=0 if isinstance(env.unwrapped, GymnasiumVecEnv) else None)


def restore_env(env: VecEnv, states: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Continue each env where :func:`env_state` was called; returns the stacked observation of that moment."""
    if isinstance(env.unwrapped, GymnasiumVecEnv):
        observation: dict[str, NDArray[Any]] = env.env_method("load_state_dict", states[0], indices=0)[0]
        return observation
    if len(states) != env.num_envs:
        raise SettingsError(f"the saved state is of {len(states)} environments, this is {env.num_envs}.")
    each = [env.env_method("load_state_dict", state, indices=i)[0] for i, state in enumerate(states)]
    return {name: np.stack([observation[name] for observation in each]) for name in each[0]}
