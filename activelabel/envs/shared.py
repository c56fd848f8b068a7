"""What the environments share: generators of sub-environments, options of reset, and infos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from gymnasium.spaces import Space
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from activelabel.data.cohort import IntArray
from activelabel.envs.rendering import FPS, VECTOR_MODES, Frame, Renderer, Scene
from activelabel.errors import SettingsError, unknown

Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]
Settings = TypeVar("Settings")


def make_settings(cls: type[Settings], env: str, keywords: dict[str, Any]) -> Settings:
    """Build a dataclass of settings from keywords; lists become tuples.

    Raises
    ------
    SettingsError: if a keyword is unknown (with the closest match) or a value out of range.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # a dataclass
    for name in keywords:
        if name not in known:
            raise SettingsError(unknown(f"setting of {env}", name, known))
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in keywords.items()})


class BatchedVectorEnv(VectorEnv[Observation, IntArray, NDArray[Any]]):
    """What the vector environments are: B sub-environments, each with a generator of its own, played as one batch."""

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared so by Gymnasium)
        "render_modes": list(VECTOR_MODES),
        "render_fps": FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def _set_up(
        self,
        num_envs: int,
        spaces: tuple[Space[Any], Space[Any]],
        autoreset_mode: AutoresetMode | str,
        renderer: Renderer,
    ) -> None:
        """Set what Gymnasium asks for; ``spaces`` are the observation's and the action's of one sub-environment."""
        self.num_envs = num_envs
        self._renderer, self.render_mode = renderer, renderer.mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = []

    def render(self) -> tuple[Frame, ...] | None:
        """Return a frame of each sub-environment, uint8 ``(540, 960, 3)``; the figure is one and the same.

        Where ``step`` resets what is over, the frames after it show the new episodes.
        """
        return self._renderer.each(self._scene, self.num_envs)

    def _scene(self, i: int) -> Scene:
        raise NotImplementedError

    def close_extras(self, **kwargs: Any) -> None:
        """Free the figure of :meth:`render`."""
        # Gymnasium 1.1 closes an environment that could not be made, too.
        if hasattr(self, "_renderer"):
            self._renderer.close()


def check_num_envs(num_envs: int) -> None:
    """Check how many sub-environments are asked for, before anything is loaded.

    Raises
    ------
    SettingsError: if it is less than 1.
    """
    if num_envs < 1:
        raise SettingsError(f"num_envs={num_envs} must be at least 1.")


def spread(seed: int | Sequence[int | None] | None, n: int) -> list[int | None]:
    """Return the seeds of ``n`` sub-environments.

    Parameters
    ----------
    seed: of sub-environment 0, the others count on from it; or one for each; or None.

    Raises
    ------
    SettingsError: if there are not ``n``.
    """
    if seed is None or isinstance(seed, (int, np.integer)):
        return [None if seed is None else int(seed) + i for i in range(n)]
    if len(seed) != n:
        raise SettingsError(f"{len(seed)} seeds for {n} environments.")
    return list(seed)


def next_generators(
    old: list[np.random.Generator], seed: int | Sequence[int | None] | None, n: int
) -> list[np.random.Generator]:
    """Return the generators of ``n`` sub-environments: new ones where a seed is given, and where there are none yet.

    Parameters
    ----------
    old: those there are, or an empty list.
    seed: see :func:`spread`.

    Raises
    ------
    SettingsError: if there are not ``n`` seeds.
    """
    present: list[np.random.Generator | None] = [*old] or [None] * n
    return [
        rng if s is None and rng is not None else seeding.np_random(s)[0]
        for s, rng in zip(spread(seed, n), present, strict=True)
    ]


def restored_generators(states: list[dict[str, Any]], n: int) -> list[np.random.Generator]:
    """Return generators that go on where saved ones were.

    Raises
    ------
    SettingsError: if the states are not those of ``n`` environments.
    """
    if len(states) != n:
        raise SettingsError(f"the saved state is of {len(states)} environments, this is {n}.")
    generators = [seeding.np_random(0)[0] for _ in states]
    for rng, saved in zip(generators, states, strict=True):
        rng.bit_generator.state = saved
    return generators


def reset_mask(options: dict[str, Any], n: int) -> NDArray[np.bool_]:
    """Return which sub-environments ``reset(options={"reset_mask": ...})`` is for, bool ``(n,)``; by default all.

    Raises
    ------
    SettingsError: if the mask has another type or shape.
    """
    mask = np.asarray(options.get("reset_mask", np.ones(n, dtype=np.bool_)))
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise SettingsError(f"reset_mask must be bool ({n},), got {mask.dtype} {mask.shape}.")
    return mask


def chosen_numbers(options: dict[str, Any], name: str, n: int) -> IntArray | None:
    """Return the numbers of tasks or episodes that ``reset(options={name: ...})`` asks for, or None.

    Raises
    ------
    SettingsError: if they are not ``n`` integers.
    """
    if options.get(name) is None:
        return None
    chosen = np.asarray(options[name])
    if chosen.shape != (n,) or chosen.dtype.kind not in "iu":
        raise SettingsError(f"{name} must be {n} integers, got {chosen.dtype} {chosen.shape}.")
    return chosen.astype(np.int64)


def masked(info: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> Info:
    """Return a vector info: each array with its ``_name`` mask, as Gymnasium defines it."""
    return {**info, **{f"_{name}": mask.copy() for name in info}}


def first(info: dict[str, NDArray[Any]]) -> Info:
    """Return the info of the first task, scalars as Python's own types."""
    return {k: v[0] if v.ndim > 1 or v.dtype == object else v[0].item() for k, v in info.items()}
