"""Plug-ins for the tests: an agent of a fixed size, one that extends ours, broken ones; and installing by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from activelabel.agents import DDQN
from activelabel.baselines import Margin, Random
from activelabel.envs.learners import SoftmaxHead
from activelabel.testing import ConformanceError

HERE = f"{__name__}:"

CALLS: list[int] = []
"""Grows with every call of what must not depend on how often it was called, and does."""


def install(folder: Path, name: str, entries: dict[str, list[str]], module: str = "", source: str = "") -> None:
    """Write what installing a distribution leaves: its metadata, and a module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[activelabel.{group}]\n" + "\n".join(given) + "\n" for group, given in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    if module:
        (folder / f"{module}.py").write_text(source)


class MyDDQN(DDQN):
    """Extends ours, and is resumed exactly."""


class MyRandom(Random):
    """A baseline of SelectiveLabel-v0."""

    name = "my-random"


class MyMargin(Margin):
    """A baseline of ActiveLabel-v0."""

    name = "my-margin"


class Learner(SoftmaxHead):
    """A learner."""


class First:
    """Chooses the first images of a pool; of SelectiveLabel-v0."""

    observes: tuple[str, ...] = ()

    def __init__(self, env: Any, seed: int, device: str, skill: float = 1.0) -> None:
        self.env, self.k, self.skill = env, env.action_space.shape[0], skill

    def learn(self, total_timesteps: int) -> First:
        self.env.reset()
        done = 0
        while done < total_timesteps:
            self.env.step(np.tile(np.arange(self.k), (self.env.num_envs, 1)))
            done += self.env.num_envs
        return self

    def predict(self, observation: dict[str, Any], *_: Any, **__: Any) -> tuple[Any, None]:
        return np.tile(np.arange(self.k), (len(observation["pool"]), 1)), None

    def save(self, path: Path) -> None:
        Path(path).write_text(json.dumps(self.k))

    @classmethod
    def load(cls, path: Path, device: str) -> First:
        model = cls.__new__(cls)
        model.k = int(json.loads(Path(path).read_text()))
        return model


class Unsaved(First):
    """Its save writes nothing."""

    def save(self, path: Path) -> None:
        pass


class Wrong(First):
    """Chooses as many images as it likes."""

    def predict(self, observation: dict[str, Any], *_: Any, **__: Any) -> tuple[Any, None]:
        return np.zeros((len(observation["pool"]), 2), np.int64), None


def made(env: Any, seed: int, device: str) -> First:
    """A function that makes agents; it has no ``load``."""
    return First(env, seed, device)


class NoAgent:
    """Has nothing of an agent."""


def number() -> int:
    """Not a baseline, learner, data set or network."""
    return 3


def network() -> nn.Module:
    made = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    made.size = 16
    return made


def fails(check: str, run: Callable[..., None], *given: Any, **more: Any) -> str:
    """Check that a check of the conformance kit fails; returns what it says."""
    with pytest.raises(ConformanceError) as caught:
        run(*given, **more)
    said = [line for line in str(caught.value).splitlines() if line.startswith(f"- {check}: ")]
    assert said, str(caught.value)
    return said[0]
