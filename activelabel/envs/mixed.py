"""Several data sets played as one vector environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from activelabel.data.cohort import IntArray
from activelabel.envs.actions import check_actions
from activelabel.envs.active import ActiveLabelVectorEnv
from activelabel.envs.rendering import VECTOR_MODES, Renderer, Scene
from activelabel.envs.shared import BatchedVectorEnv, Info, Observation, chosen_numbers, reset_mask, spread
from activelabel.errors import SettingsError

ALIKE = ("budget", "batch", "features", "state", "state_images", "observe", "distance", "space")
"""Settings in which environments that are played together agree: they decide what is seen and done."""


class MixedVectorEnv(BatchedVectorEnv):
    """Vector environments of ``ActiveLabel-v0``, each on its own data, as one: what an agent trains on that is to label
    more than one data set.

    Sub-environments stand part after part. Each gives what it gives in its part alone, seeded likewise:
    ``reset(seed=s)`` seeds number ``i`` of all with ``s + i``. In infos, arrays whose rows differ in length from part
    to part (``initial_ids``, where the data have other numbers of classes) are arrays of objects, a row each.

    Parameters
    ----------
    parts: the environments; they are this one's from now on. Classes, images and learners may differ.
    render_mode: ``"rgb_array"`` or None.

    Raises
    ------
    SettingsError: if there is none, or they differ in the number of candidates, the shape of an observation, what
        happens at the end of an episode, or a setting of :data:`ALIKE`. Bounds of observations may differ; this one
        has those that hold for all.
    """

    def __init__(self, parts: Sequence[ActiveLabelVectorEnv], *, render_mode: str | None = None) -> None:
        renderer = Renderer("ActiveLabel-v0 (mixed)", render_mode, VECTOR_MODES, "pca")
        if not parts:
            raise SettingsError("a mixed environment needs parts; parts is empty.")
        self.parts = tuple(parts)
        self._check("candidates", [part.engine.m for part in parts], " Give a pool, or candidates, that all have.")
        for name in ALIKE:
            self._check(name, [getattr(part.engine.settings, name) for part in parts])
        self._check("autoreset_mode", [part.autoreset_mode.value for part in parts])
        space = self._common_space()
        self.engine = parts[0].engine
        """That of the first part."""
        ends = np.cumsum([part.num_envs for part in parts]).tolist()
        self._places = [slice(end - part.num_envs, end) for part, end in zip(parts, ends, strict=True)]
        self._set_up(ends[-1], (space, parts[0].single_action_space), parts[0].autoreset_mode, renderer)
        self._begun = False

    def _check(self, name: str, values: Sequence[Any], hint: str = "") -> None:
        """Refuse parts that differ in something."""
        sources = [part.engine.cohort.source.name for part in self.parts]
        for i, value in enumerate(values):
            if value != values[0]:
                raise SettingsError(
                    f"{name}={value!r} of part {i} ({sources[i]}) is not the {values[0]!r} of part 0 ({sources[0]}); "
                    f"environments that are played together must agree in it.{hint}"
                )

    def _common_space(self) -> Dict:
        """Return the observation space of the parts, with bounds that hold in each."""
        common = {}
        parts = [part.single_observation_space for part in self.parts]
        for name in parts[0]:  # type: ignore[attr-defined]  # a Dict
            spaces = [part[name] for part in parts]  # type: ignore[index]
            self._check(f"shape of observation '{name}'", [space.shape for space in spaces])
            common[name] = spaces[0]
            if isinstance(spaces[0], Box):
                low, high = np.min([s.low for s in spaces], axis=0), np.max([s.high for s in spaces], axis=0)
                common[name] = Box(low, high, dtype=spaces[0].dtype)
        return Dict(common)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start an episode in each sub-environment; seed and options are those of
        :meth:`~activelabel.envs.active.ActiveLabelVectorEnv.reset`, for the sub-environments of all parts.

        Raises
        ------
        SettingsError: if seeds or options are not of as many environments.
        """
        options = options or {}
        seeds, mask = spread(seed, self.num_envs), reset_mask(options, self.num_envs)
        episodes = chosen_numbers(options, "episode", self.num_envs)
        played = []
        for part, at in zip(self.parts, self._places, strict=True):
            own = {"reset_mask": mask[at], "episode": None if episodes is None else episodes[at]}
            played.append(part.reset(seed=seeds[at], options=own))
        self._begun = True
        observations, infos = zip(*played, strict=True)
        return _together(observations), self._joined(infos)

    def step(
        self, actions: IntArray
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Label the chosen candidates of every episode, part after part.

        Parameters
        ----------
        actions: int64 ``(B, N)``, or ``(B,)`` for N = 1.

        Raises
        ------
        SettingsError: if the actions have another shape, or are not indices of candidates.
        RuntimeError: before the first reset, or if an episode is over with autoreset disabled.
        """
        idle = self.autoreset_mode == AutoresetMode.DISABLED and any(part.episodes.over.any() for part in self.parts)
        if not self._begun or idle:
            raise RuntimeError("ActiveLabel-v0: call reset() first, and for every environment whose episode is over.")
        actions = np.asarray(actions)
        actions = actions[:, None] if actions.ndim == 1 else actions
        # Of all parts before any is played: an action that one refuses leaves the others where they are, too.
        actions = check_actions(actions, (self.num_envs, self.engine.settings.batch), self.engine.m)
        played = [part.step(actions[at]) for part, at in zip(self.parts, self._places, strict=True)]
        observations, rewards, terminated, truncated, infos = zip(*played, strict=True)
        return (
            _together(observations),
            np.concatenate(rewards),
            np.concatenate(terminated),
            np.concatenate(truncated),
            self._joined(infos),
        )

    def _joined(self, infos: Sequence[Info]) -> Info:
        """Return the infos of all parts as one; what a part has not is masked there."""
        joined: Info = {}
        for name in dict.fromkeys(name for info in infos for name in info):
            like = next(info[name] for info in infos if name in info)
            if isinstance(like, dict):
                joined[name] = self._joined([info.get(name, {}) for info in infos])
                continue
            nothing = None if like.dtype == object else 0
            joined[name] = _rows(
                info[name] if name in info else np.full((part.num_envs, *like.shape[1:]), nothing, like.dtype)
                for info, part in zip(infos, self.parts, strict=True)
            )
        return joined

    def _scene(self, i: int) -> Scene:
        part, at = next(found for found in zip(self.parts, self._places, strict=True) if i < found[1].stop)
        return part._scene(i - at.start)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the parts, and free the figure of what was drawn."""
        super().close_extras(**kwargs)
        for part in getattr(self, "parts", ()):
            part.close()

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which candidates may be labelled, bool ``(B, M)``."""
        return np.concatenate([part.action_masks() for part in self.parts])

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on exactly here.

        Raises
        ------
        RuntimeError: before the first reset.
        """
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> Observation:
        """Go on where :meth:`state_dict` was called; returns the observation of that moment.

        Raises
        ------
        SettingsError: if the state is of other numbers of parts or environments.
        """
        saved = state.get("parts", [state])
        if len(saved) != len(self.parts):
            raise SettingsError(f"the saved state is of {len(saved)} data sets, this is {len(self.parts)}.")
        observation = _together([part.load_state_dict(own) for part, own in zip(self.parts, saved, strict=True)])
        self._begun = True
        return observation


def _together(observations: Iterable[Observation]) -> Observation:
    every = list(observations)
    return {name: np.concatenate([observation[name] for observation in every]) for name in every[0]}


def _rows(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of all arrays: one array, of objects where they differ in length."""
    every = list(arrays)
    if len({array.shape[1:] for array in every}) == 1:
        return np.concatenate(every)
    rows = np.empty(sum(map(len, every)), object)
    for i, row in enumerate(row for array in every for row in array):
        rows[i] = row
    return rows
