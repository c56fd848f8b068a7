"""REINFORCE in bfloat16 against float32: seconds of an update, and what the trained selector is worth.

::

    python -m benchmarks.precision --repeats 4
    python -m benchmarks.precision --selectors --seeds 3

First command: updates at the paper's scale, the two precisions taking turns on the same tasks, and the ratio of their
medians. Second: both are trained with a preset from the same weights on the same tasks, and compared on meta-validation
tasks, paired by task, the mean over the training seeds each.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from activelabel.agents import SELECTORS, Reinforce
from activelabel.agents.arguments import PRECISIONS
from activelabel.envs import SelectiveLabelVectorEnv
from activelabel.evaluation import play
from activelabel.evaluation.statistics import Interval, paired_difference
from activelabel.settings import preset
from benchmarks.paper_size import paper_env

SPEED_LIMIT = 1 / 1.5
"""Seconds of an update in bfloat16 over those in float32."""


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    selectors: tuple[str, ...] = ("bilstm", "mlp")
    """Selectors whose updates are timed."""
    repeats: int = 4
    """Timed updates of each precision, after one that is not counted."""
    batch: int = 64
    """Tasks of a timed update."""
    pool: int = 1000
    """Images in its pools."""
    seeds: int = 0
    """Training seeds of the comparison by AUROC; 0 leaves it out."""
    preset: str = "default"
    """What is trained there."""
    data: str | None = None
    """Data set; by default the preset's."""


def main(settings: Settings) -> None:
    """Time the updates, train, and print."""
    print(f"{torch.get_num_threads()} threads")
    for selector in settings.selectors:
        full, reduced = seconds(selector, settings)
        print(
            f"{selector}, {settings.batch} x {settings.pool}: {full:.3f} s in float32, {reduced:.3f} s in bfloat16, "
            f"{full / reduced:.2f} times faster",
            flush=True,
        )
    if settings.seeds:
        found, difference = quality(settings)
        means = ", ".join(f"{precision} {rewards.mean():.4f}" for precision, rewards in found.items())
        print(f"meta-validation AUROC, {settings.seeds} seeds: {means}")
        print(f"bfloat16 - float32: {difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured for each selector, the figure, and what it may be at most."""
    found = {selector: seconds(selector, settings) for selector in settings.selectors}
    return [
        (f"REINFORCE update with {selector} in bfloat16 / in float32", reduced / full, SPEED_LIMIT)
        for selector, (full, reduced) in found.items()
    ]


def seconds(selector: str, settings: Settings) -> tuple[float, float]:
    """Return the median seconds of an update in float32 and in bfloat16; K = 10, M = 8."""
    env = paper_env(settings.batch, pool=settings.pool)
    models = [
        Reinforce(
            SELECTORS[selector].__name__, env, batch_size=settings.batch, n_samples=8, seed=0, precision=precision
        )
        for precision in PRECISIONS
    ]
    taken: list[list[float]] = [[], []]
    for turn in range(settings.repeats + 1):
        for model, times in zip(models, taken, strict=True):
            start = time.perf_counter()
            model.learn(settings.batch, log_interval=0, reset_num_timesteps=turn == 0)
            if turn:
                times.append(time.perf_counter() - start)
    full, reduced = (statistics.median(times) for times in taken)
    return full, reduced


def quality(settings: Settings) -> tuple[dict[str, NDArray[np.float64]], Interval]:
    """Return for each precision the rewards ``(seeds, tasks)`` on the validation tasks, and the paired difference."""
    run = preset(settings.preset, data=settings.data)
    env = SelectiveLabelVectorEnv(run.batch_size, run.cohort(), copy=False, **run.env_arguments())
    engine = env.engine.sibling(split="val", pool=run.val_pool or run.pool)
    rewards: dict[str, list[NDArray[np.float64]]] = {precision: [] for precision in PRECISIONS}
    for seed in range(settings.seeds):
        for precision, found in rewards.items():
            changes: dict[str, Any] = {"seed": seed, "precision": precision}
            model = Reinforce(env=env, **{**run.agent_arguments(), **changes})
            start = time.perf_counter()
            model.learn(run.updates * run.batch_size, log_interval=0)
            taken = time.perf_counter() - start
            found.append(play(engine, model, [run.k], run.val_tasks)[run.k].reward)
            print(f"seed {seed}, {precision}: {taken:.1f} s of training, {found[-1].mean():.4f}", flush=True)
    arrays = {precision: np.stack(found) for precision, found in rewards.items()}
    full, reduced = (arrays[precision].mean(axis=0) for precision in PRECISIONS)
    return arrays, paired_difference(reduced, full)


if __name__ == "__main__":
    main(tyro.cli(Settings))
