"""``ActiveLabelVectorEnv`` against Gymnasium's ``SyncVectorEnv`` over the same single environment.

::

    OMP_NUM_THREADS=1 python -m benchmarks.vector_env

64 environments, pools of 1000, 512 numbers an image, 8 classes, 50 labels an episode. Both play the same episodes with
the same actions, a whole episode each in turn, and every observation, reward and end must be equal to the last bit.
Resets at the ends are the caller's (``AutoresetMode.DISABLED``): ``SyncVectorEnv`` cannot put test curves into its
infos together with those of environments that go on.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from activelabel.envs import ActiveLabelEngine, ActiveLabelEnv, ActiveLabelVectorEnv
from benchmarks import env_step

LIMIT = 10.0
"""Times as many steps a second."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 3
    """Episodes of each environment that are timed, after one that is not."""
    envs: int = 64
    """Environments."""
    batch: tuple[int, ...] = (5, 1)
    """Labels a step, N."""
    budget: int = 50
    """Labels an episode."""
    pool: int = 1000
    """Images in the pool."""
    classes: int = 8
    """Classes to tell apart."""
    dim: int = 512
    """Numbers an image."""


@dataclass(frozen=True)
class Figures:
    """Steps of a single environment a second, medians, resets apart; and seconds of a reset of all."""

    ours: float
    gymnasium: float
    reset: float
    reset_gymnasium: float

    @property
    def ratio(self) -> float:
        """Times as many steps a second; see :data:`LIMIT`."""
        return self.ours / self.gymnasium


def main(settings: Settings) -> None:
    """Measure and print."""
    s = settings
    sizes = f"{s.envs} environments, pool {s.pool} x {s.dim}, {s.classes} classes, {s.budget} labels"
    print(f"{torch.get_num_threads()} threads, {sizes}, {s.repeats} repeats")
    print(
        f"{'N':>2} {'steps/s':>8} {'SyncVectorEnv':>14} {'ratio':>6} {'reset, s':>9} {'its':>6}  (at least {LIMIT:.0f})"
    )
    for batch in s.batch:
        f = measure(batch, s)
        print(f"{batch:>2} {f.ours:>8.0f} {f.gymnasium:>14.0f} {f.ratio:>6.1f} {f.reset:>9.2f} ", end="")
        print(f"{f.reset_gymnasium:>6.2f}", flush=True)


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    return [
        (f"seconds of a vector env's step / SyncVectorEnv's, N = {n}", 1 / measure(n, settings).ratio, 1 / LIMIT)
        for n in settings.batch
    ]


def measure(batch: int, settings: Settings) -> Figures:
    """Return the figures of both with ``batch`` labels a step.

    Raises
    ------
    AssertionError: if their trajectories differ.
    """
    s = settings
    sizes = env_step.Settings(pool=s.pool, classes=s.classes, dim=s.dim)
    engine = env_step.make_engine(sizes, "softmax", batch, s.budget)
    ours = ActiveLabelVectorEnv(s.envs, engine=engine, autoreset_mode=AutoresetMode.DISABLED)
    theirs = SyncVectorEnv([lambda: ActiveLabelEnv(engine=engine)] * s.envs, autoreset_mode=AutoresetMode.DISABLED)
    rates: list[tuple[float, float]] = []
    resets: list[tuple[float, float]] = []
    for turn in range(s.repeats + 1):
        actions = _actions(engine, s.envs, turn)
        played = [_play(env, actions, 1000 * turn) for env in (ours, theirs)]
        for mine, its in zip(played[0][0], played[1][0], strict=True):
            np.testing.assert_equal(mine, its)
        if turn:
            a, b = (s.envs * len(actions) / seconds for _, seconds, _ in played)
            rates.append((a, b))
            resets.append((played[0][2], played[1][2]))
    figures = [statistics.median(values) for values in (*zip(*rates, strict=True), *zip(*resets, strict=True))]
    return Figures(*figures)


def _actions(engine: ActiveLabelEngine, envs: int, turn: int) -> list[NDArray[np.int64]]:
    """Return random actions of an episode, ``(B, N)`` or ``(B,)`` each."""
    rng, n = np.random.default_rng(turn), engine.settings.batch
    orders = rng.random((envs, engine.m)).argsort(axis=1)[:, : engine.settings.budget]
    steps = np.split(orders, range(n, orders.shape[1], n), axis=1)
    return [step[:, 0] if n == 1 else step for step in steps]


def _play(env: VectorEnv[Any, Any, Any], actions: list[NDArray[np.int64]], seed: int) -> tuple[list[Any], float, float]:
    """Play an episode in each environment; returns what was seen, and the seconds of steps and of the reset."""
    start = time.perf_counter()
    observation, _ = env.reset(seed=seed)
    reset, seconds = time.perf_counter() - start, 0.0
    seen: list[Any] = [_copy(observation)]
    for action in actions:
        start = time.perf_counter()
        observation, reward, terminated, truncated, _ = env.step(action)
        seconds += time.perf_counter() - start
        seen.append((_copy(observation), reward.copy(), terminated.copy(), truncated.copy()))
    assert terminated.all()
    return seen, seconds, reset


def _copy(observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array.copy() for name, array in observation.items()}


if __name__ == "__main__":
    main(tyro.cli(Settings))
