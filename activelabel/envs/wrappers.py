"""Wrappers that give other people's agents the actions and observations that they know.

Each stands twice: ``X`` wraps an environment of ``gym.make``, ``VectorX`` one of ``gym.make_vec``, and sub-environment
``i`` of the second equals the first with the same seed. Observations stay what they are where nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, flatten_space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from activelabel.data.cohort import FloatArray, IntArray
from activelabel.envs.actions import check_actions
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.envs.shared import BatchedVectorEnv, Info, Observation, reset_mask
from activelabel.errors import SettingsError, unknown

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    _VectorWrapper = VectorWrapper  # became generic after Gymnasium 1.1

VectorStep = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]


def _choice(space: Space[Any]) -> tuple[int, int]:
    """Return of how many candidates an action names how many."""
    if isinstance(space, Discrete):
        return int(space.n), 1
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and (space.nvec == space.nvec[0]).all():
        return int(space.nvec[0]), len(space.nvec)
    raise SettingsError(f"the actions must be indices of candidates, Discrete or MultiDiscrete([N] * K), not {space}.")


def _batched(env: VectorEnv[Any, Any, Any]) -> BatchedVectorEnv:
    """Return the vector env inside its wrappers."""
    inner = env.unwrapped
    if not isinstance(inner, BatchedVectorEnv):
        raise SettingsError(f"{inner} is not of gym.make_vec; wrap its single environments instead.")
    return inner


def vector_attribute(env: VectorEnv[Any, Any, Any], name: str) -> Any:
    """Return an attribute of a vector env, the outermost wrapper's that has it.

    Raises
    ------
    AttributeError: if none has.
    """
    while isinstance(env, VectorWrapper) and not hasattr(env, name):
        env = env.env
    return getattr(env, name)


# -- scores -----------------------------------------------------------------------------------------------------------


def top_k(scores: NDArray[Any], k: int, allowed: NDArray[np.bool_] | None = None) -> IntArray:
    """Return the indices of the ``k`` largest scores of each row, largest first; of equal ones the lower index.

    Parameters
    ----------
    scores: ``(B, N)``.
    k: 1 to N.
    allowed: bool ``(B, N)``; the others are taken only where there are not ``k`` of these.

    Returns
    -------
    int64 ``(B, k)``.

    Raises
    ------
    SettingsError: if a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise SettingsError("scores must be finite; an agent that gives NaN has diverged.")
    least = -np.asarray(scores, dtype=np.float64)
    if allowed is not None:
        least[~allowed] = np.inf
    best: IntArray = least.argsort(axis=1, kind="stable")[:, :k]
    return best


def _check_scores(action: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    scores = np.asarray(action)
    if scores.shape != shape or scores.dtype.kind not in "fiu":
        raise SettingsError(f"the action must be scores of shape {shape}, got {scores.dtype} {scores.shape}.")
    return scores


class ScoresToTopK(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """The action is a score for each candidate, ``Box(-1, 1, (N,))``; the best are labelled, as many as a step takes.

    For agents of continuous actions. Of equal scores the lower index is taken; candidates that the environment's
    ``action_masks()`` excludes, such as labelled ones, are not, so that nothing of the budget is lost.

    Parameters
    ----------
    env: its actions are indices of candidates.

    Raises
    ------
    SettingsError: if they are not.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._n, self._k = _choice(env.action_space)
        self.action_space = Box(-1, 1, (self._n,), np.float32)

    def action(self, action: FloatArray) -> Any:
        """Return the indices of the best candidates, best first.

        Raises
        ------
        SettingsError: if the action is not N finite numbers.
        """
        scores = _check_scores(action, (self._n,))
        masked = self.env.has_wrapper_attr("action_masks")
        # For several labels a step the mask stands once for each of them.
        allowed = self.env.get_wrapper_attr("action_masks")()[None, : self._n] if masked else None
        best = top_k(scores[None], self._k, allowed)[0]
        return best[0] if isinstance(self.env.action_space, Discrete) else best


class VectorScoresToTopK(_VectorWrapper):
    """:class:`ScoresToTopK` of a vector env of ``gym.make_vec``: scores ``(B, N)``.

    Raises
    ------
    SettingsError: if the env is another, or its actions are not indices of candidates.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        _batched(env)
        super().__init__(env)
        self._n, self._k = _choice(env.single_action_space)
        self.single_action_space = Box(-1, 1, (self._n,), np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def step(self, actions: FloatArray) -> VectorStep:
        """Label each episode's best candidates.

        Raises
        ------
        SettingsError: if the actions are not ``(B, N)`` finite numbers.
        """
        scores = _check_scores(actions, (self.num_envs, self._n))
        try:
            masks = vector_attribute(self.env, "action_masks")
        except AttributeError:  # SelectiveLabel-v0 has none: everything may be chosen
            masks = None
        best = top_k(scores, self._k, None if masks is None else masks())
        return self.env.step(best[:, 0] if isinstance(self.env.single_action_space, Discrete) else best)


# -- one label at a time ----------------------------------------------------------------------------------------------


def _with_mask(space: Space[Any], n: int) -> Dict:
    assert isinstance(space, Dict)
    return Dict({**space.spaces, "action_mask": MultiBinary(n)})


class OneAtATime(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """``SelectiveLabel-v0`` as an episode of K steps that choose one image each, ``Discrete(N)``.

    The observation has besides ``action_mask``, ``MultiBinary(N)``, 0 where an image was chosen; it is what
    :meth:`action_masks` returns. An image that is chosen again spends its part of the budget. The reward is 0 until the
    last step, which gives that of the set and its info.

    Parameters
    ----------
    env: ``SelectiveLabel-v0``. (``ActiveLabel-v0`` takes one label a step with ``batch=1``.)

    Raises
    ------
    SettingsError: if it is another.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        if not isinstance(env.unwrapped, SelectiveLabelEnv):
            raise SettingsError(f"{env.unwrapped} is not SelectiveLabel-v0; ActiveLabel-v0 has batch=1 for this.")
        self._n, self._k = _choice(env.action_space)
        self.observation_space = _with_mask(env.observation_space, self._n)
        self.action_space = Discrete(self._n)
        self._chosen: list[int] = []
        self._observation: Observation = {}
        self._info: Info = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Draw a task; ``options={"task": i}`` chooses task ``i``."""
        self._observation, self._info = self.env.reset(seed=seed, options=options)
        self._chosen = []
        return self._observe(), dict(self._info)

    def _observe(self) -> Observation:
        copies = {name: array.copy() for name, array in self._observation.items()}
        return {**copies, "action_mask": self.action_masks().astype(np.int8)}

    def step(self, action: int) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Choose an image; with the last of K they are labelled.

        Raises
        ------
        SettingsError: if the action is not the index of an image.
        RuntimeError: if the episode is over.
        """
        if not self._observation or len(self._chosen) == self._k:
            raise RuntimeError(f"OneAtATime: call reset() before step(); an episode is {self._k} steps long.")
        self._chosen.append(int(check_actions(np.asarray(action).reshape(1, -1), (1, 1), self._n)[0, 0]))
        if len(self._chosen) < self._k:
            return self._observe(), 0.0, False, False, dict(self._info)
        self._observation, reward, terminated, truncated, info = self.env.step(np.array(self._chosen))
        return self._observe(), reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which images were not chosen yet, bool ``(N,)``."""
        masks = np.ones(self._n, dtype=np.bool_)
        masks[self._chosen] = False
        return masks


class VectorOneAtATime(_VectorWrapper):
    """:class:`OneAtATime` of ``gym.make_vec("SelectiveLabel-v0", ...)``; all episodes are at the same step.

    At the ends of episodes it does what the ``autoreset_mode`` of the vector env says.

    Raises
    ------
    SettingsError: if the env is another.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        if not isinstance(_batched(env), SelectiveLabelVectorEnv):
            raise SettingsError(f"{env.unwrapped} is not SelectiveLabel-v0; ActiveLabel-v0 has batch=1 for this.")
        self._n, k = _choice(env.single_action_space)
        self.single_observation_space = _with_mask(env.single_observation_space, self._n)
        self.single_action_space = Discrete(self._n)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._chosen = np.zeros((self.num_envs, k), dtype=np.int64)
        self._begin({}, {})

    def _begin(self, observation: Observation, info: Info) -> None:
        self._observation, self._spent = observation, 0
        self._info = {name: value for name, value in info.items() if "final_" not in name}
        self._masks = np.ones((self.num_envs, self._n), dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Draw a task for each sub-environment; see the vector env for seeds and options.

        Raises
        ------
        SettingsError: if a ``reset_mask`` leaves some as they are, which would no longer be at the same step.
        """
        if not reset_mask(options or {}, self.num_envs).all():
            raise SettingsError("reset_mask: with one label at a time all sub-environments are reset at once.")
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._begin(observation, info)
        return self._observe(), info

    def _observe(self) -> Observation:
        copies = {name: array.copy() for name, array in self._observation.items()}
        return {**copies, "action_mask": self._masks.astype(np.int8)}

    def step(self, actions: IntArray) -> VectorStep:
        """Choose an image for each task; with the last of K they are labelled.

        Raises
        ------
        SettingsError: if the actions are not ``(B,)`` indices of images.
        RuntimeError: before the first reset, or after the end of an episode with autoreset disabled.
        """
        if not self._observation:
            raise RuntimeError("VectorOneAtATime: call reset() before step().")
        if self._spent == self._chosen.shape[1]:  # over; the env resets, or refuses to
            observation, *rest, info = self.env.step(self._chosen)
            self._begin(observation, info)
            return self._observe(), *rest, info
        column = check_actions(np.asarray(actions).reshape(self.num_envs, -1), (self.num_envs, 1), self._n)[:, 0]
        self._chosen[:, self._spent] = column
        self._masks[np.arange(self.num_envs), column] = False
        self._spent += 1
        if self._spent < self._chosen.shape[1]:
            still = np.zeros(self.num_envs, dtype=np.bool_)
            info = {name: value.copy() for name, value in self._info.items()}
            return self._observe(), np.zeros(self.num_envs), still, still.copy(), info
        self._observation, rewards, terminated, truncated, info = self.env.step(self._chosen)
        if self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            for final, mask in zip(info["final_obs"], self._masks, strict=True):
                final["action_mask"] = mask.astype(np.int8)
            self._begin(self._observation, info)
        return self._observe(), rewards, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which images were not chosen yet, bool ``(B, N)``."""
        return self._masks.copy()


# -- a flat vector ----------------------------------------------------------------------------------------------------


def _flat_space(space: Space[Any], keys: Sequence[str] | None) -> tuple[Box, tuple[str, ...]]:
    """Return the space of the concatenated keys, and their names."""
    if not isinstance(space, Dict):
        raise SettingsError(f"the observation must be a Dict, not a {type(space).__name__}.")
    names = tuple(space.spaces) if keys is None else tuple(keys)
    for name in names:
        if name not in space.spaces:
            raise SettingsError(unknown("key of the observation", name, space.spaces))
    if not names:
        raise SettingsError("keys is empty; name what the vector is made of.")
    parts: list[Any] = [flatten_space(space[name]) for name in names]
    low = np.concatenate([part.low for part in parts], dtype=np.float32)
    high = np.concatenate([part.high for part in parts], dtype=np.float32)
    return Box(low, high, dtype=np.float32), names


def _flat(observation: Observation, keys: Sequence[str], shape: tuple[int, ...]) -> FloatArray:
    """Return the keys side by side; ``shape`` is ``(-1,)`` or, of a batch, ``(B, -1)``."""
    return np.concatenate([observation[name].reshape(shape) for name in keys], axis=-1, dtype=np.float32)


class FlattenCandidates(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """The observation is one vector, a ``Box`` of float32: the keys of the ``Dict`` one after the other.

    For agents that take nothing else. What it costs: the agent no longer knows which numbers belong to one image.

    Parameters
    ----------
    env: its observation is a ``Dict`` of arrays.
    keys: which of them, in this order; by default all, as Gymnasium's ``FlattenObservation`` puts them.

    Raises
    ------
    SettingsError: if the observation is no ``Dict``, or has no such key.
    """

    def __init__(self, env: gym.Env[Any, Any], keys: Sequence[str] | None = None) -> None:
        RecordConstructorArgs.__init__(self, keys=keys)
        super().__init__(env)
        self.observation_space, self._keys = _flat_space(env.observation_space, keys)

    def observation(self, observation: Observation) -> FloatArray:
        """Return the vector."""
        return _flat(observation, self._keys, (-1,))


class VectorFlattenCandidates(_VectorWrapper):
    """:class:`FlattenCandidates` of a vector env of ``gym.make_vec``, with any ``autoreset_mode``.

    Raises
    ------
    SettingsError: if the env is another, its observation is no ``Dict``, or has no such key.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], keys: Sequence[str] | None = None) -> None:
        _batched(env)
        super().__init__(env)
        self.single_observation_space, self._keys = _flat_space(env.single_observation_space, keys)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def _flat(self, observation: Observation) -> FloatArray:
        return _flat(observation, self._keys, (self.num_envs, -1))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, Info]:
        """Begin episodes; see the vector env for seeds and options."""
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._flat(observation), info

    def step(self, actions: Any) -> VectorStep:
        """Play the actions."""
        observation, *rest, info = self.env.step(actions)
        if "final_obs" in info:
            for i in np.flatnonzero(info["_final_obs"]):
                info["final_obs"][i] = _flat(info["final_obs"][i], self._keys, (-1,))
        return self._flat(observation), *rest, info
