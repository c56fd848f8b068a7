"""Where the time of training the DDQN on ``ActiveLabel-v0`` goes, and how many episodes a second that gives.

::

    OMP_NUM_THREADS=2 python -m benchmarks.ddqn_speed

64 environments at once, pools of 1000, 512 numbers an image, 8 classes, 50 labels an episode, 5 a step, the default
agent: a round is 64 episodes and 100 gradient steps. The parts are timed inside :meth:`DDQN.learn`, one within another,
and each has what is not in those within it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import tyro

from activelabel.agents import DDQN
from activelabel.agents.qnetworks import QNetwork, QPolicy
from activelabel.agents.replay import Replay
from activelabel.envs import ActiveLabelVectorEnv, RunningEpisodes
from activelabel.envs.descent import LinearModel
from activelabel.envs.distances import Geometry
from activelabel.envs.learners import SoftmaxHead
from benchmarks import env_step

EPISODES_LIMIT, REST_LIMIT = 20.0, 0.2
"""Episodes a second at least, and the share of time outside environment and network at most."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    rounds: int = 5
    """Rounds of training that are timed, after one that is not."""
    envs: int = 64
    """Episodes at once, B."""
    batch: int = 5
    """Labels a step, N."""
    budget: int = 50
    """Labels an episode."""
    pool: int = 1000
    """Images in the pool."""
    gradient_steps: int = 100
    """After each round."""


@dataclass(frozen=True)
class Figures:
    """Episodes a second, and the seconds of a round by part."""

    episodes: float
    seconds: dict[str, float]

    @property
    def rest(self) -> float:
        """Share of the time outside environment and network; see :data:`REST_LIMIT`."""
        outside = sum(s for part, s in self.seconds.items() if not part.startswith(("environment", "network")))
        return outside / sum(self.seconds.values())


def main(settings: Settings) -> None:
    """Measure and print."""
    s, f = settings, measure(settings)
    print(
        f"{torch.get_num_threads()} threads, B = {s.envs}, N = {s.batch}, pool {s.pool} x 512, {s.budget} labels, ",
        end="",
    )
    print(f"{s.gradient_steps} gradient steps a round of {s.envs} episodes, {s.rounds} rounds")
    total = sum(f.seconds.values())
    for part, seconds in f.seconds.items():
        print(f"{part:<36} {seconds:>7.3f} s {seconds / total:>6.1%}")
    print(f"{'a round':<36} {total:>7.3f} s")
    print(f"{f.episodes:.1f} episodes a second (at least {EPISODES_LIMIT:.0f})")
    print(f"{f.rest:.1%} outside environment and network (at most {REST_LIMIT:.0%})")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    found = measure(settings)
    return [
        ("a training episode of the DDQN, s", 1 / found.episodes, 1 / EPISODES_LIMIT),
        ("its share outside environment and network", found.rest, REST_LIMIT),
    ]


def measure(settings: Settings) -> Figures:
    """Return the figures of some rounds of training."""
    s = settings
    sizes = env_step.Settings(pool=s.pool)
    engine = env_step.make_engine(sizes, "softmax", s.batch, s.budget)
    model = DDQN("QPolicy", ActiveLabelVectorEnv(s.envs, engine=engine), gradient_steps=s.gradient_steps, seed=0)
    steps = s.envs * -(-s.budget // s.batch)
    model.learn(steps)
    clock = Clock()
    with clock.patched():
        start = time.perf_counter()
        model.learn(steps * s.rounds, reset_num_timesteps=False)
        total = time.perf_counter() - start
    parts = {part: seconds / s.rounds for part, seconds in clock.seconds.items()}
    parts["the rest"] = total / s.rounds - sum(parts.values())
    return Figures(s.rounds * s.envs / total, parts)


class Clock:
    """Seconds of parts of a program, less those of the parts within them."""

    PARTS: tuple[tuple[str, Any, str], ...] = (
        ("environment: the classifiers' fit", SoftmaxHead, "fit"),
        ("environment: their predictions", LinearModel, "predict_proba"),
        ("environment: distances", Geometry, "between"),
        ("environment: observation", RunningEpisodes, "observe"),
        ("environment: a step's rest", RunningEpisodes, "label"),
        ("environment: new episodes", RunningEpisodes, "begin"),
        ("environment: infos", ActiveLabelVectorEnv, "step"),
        ("network: forward", QNetwork, "forward"),
        ("network: blocks of candidates", QPolicy, "values"),
        ("network: backward", torch.Tensor, "backward"),
        ("network: Adam", torch.optim.Adam, "step"),
        ("replay: add", Replay, "add"),
        ("replay: sample", Replay, "sample"),
    )
    """A name, and the method that is it."""

    def __init__(self) -> None:
        self.seconds = {part: 0.0 for part, _, _ in self.PARTS}
        self._within = [0.0]

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Time the parts."""
        with ExitStack() as stack:
            for part, owner, name in self.PARTS:
                stack.enter_context(mock.patch.object(owner, name, self._timed(part, getattr(owner, name))))
            yield

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self._within.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                passed = time.perf_counter() - start
                self.seconds[part] += passed - self._within.pop()
                self._within[-1] += passed

        return timed


if __name__ == "__main__":
    main(tyro.cli(Settings))
