"""A wrapper in its single and its vector form."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import gymnasium as gym

B = 3


class Wrapped:
    """Makes both forms of an environment, wrapped.

    Parameters
    ----------
    module: has each wrapper ``X`` and its twin ``VectorX``.
    env: environment id.
    arguments: of the environment.
    wrappers: names and arguments, from the inside out.
    """

    def __init__(
        self, module: ModuleType, env: str, arguments: dict[str, Any], wrappers: Iterable[tuple[str, dict[str, Any]]]
    ) -> None:
        self.module, self.id, self.arguments, self.wrappers = module, env, arguments, list(wrappers)

    def inside(self) -> Any:
        return gym.make(self.id, **self.arguments)

    def single(self) -> Any:
        env = self.inside()
        for name, arguments in self.wrappers:
            env = getattr(self.module, name)(env, **arguments)
        return env

    def vector(self, **changes: Any) -> Any:
        env: Any = gym.make_vec(self.id, num_envs=B, **self.arguments, **changes)
        for name, arguments in self.wrappers:
            env = getattr(self.module, f"Vector{name}")(env, **arguments)
        return env
