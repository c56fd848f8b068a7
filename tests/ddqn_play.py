"""DDQN and its subclasses at a size that trains in milliseconds, for several test files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from activelabel.agents import AGENTS, DDQN, PRETRAINED

Make = Callable[..., Any]
CLASSES = {name: cls for name, cls in AGENTS.items() if issubclass(cls, DDQN) and name != PRETRAINED}
SMALL: dict[str, Any] = {"seed": 1, "device": "cpu", "warm_start_episodes": 4, "gradient_steps": 3, "batch_size": 8}
SMALL |= {"buffer_size": 100, "policy_kwargs": {"hidden": [6, 5]}, "learning_rate": 0.01}
every_agent = pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
ROUND = 4 * 3
"""Steps in which four envs spend a budget of 12, five at a time."""


def agent_maker(make_active_vec: Make) -> Make:
    """Makes a tiny agent, by default a DDQN in four envs."""

    def make(cls: Any = DDQN, env: Any = None, **changes: Any) -> DDQN:
        return cls(env=make_active_vec(4) if env is None else env, **{**SMALL, **changes})

    return make


def observe(mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """A made-up observation with the given mask, ``(B, M)``."""
    rng = np.random.default_rng(seed)
    b, m = mask.shape
    made = {"state": rng.random((b, 11)), "candidates": rng.normal(1, 2, (b, m, 3))}
    return {**{name: array.astype(np.float32) for name, array in made.items()}, "action_mask": mask.astype(np.int8)}


class Record(BaseCallback):
    """Keeps what a function of the model and its callback's locals returns, at every step or round."""

    def __init__(self, at_step: Any = None, at_round: Any = None) -> None:
        super().__init__()
        self.at_step, self.at_round = at_step, at_round
        self.steps: list[Any] = []
        self.rounds: list[Any] = []

    def _on_step(self) -> bool:
        if self.at_step is not None:
            self.steps.append(self.at_step(self.model, self.locals))
        return True

    def _on_rollout_end(self) -> None:
        if self.at_round is not None:
            self.rounds.append(self.at_round(self.model))
