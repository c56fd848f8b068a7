"""One REINFORCE update at the paper's scale against the bare BiLSTM forward and backward of the same size.

::

    python -m benchmarks.update --repeats 5

64 tasks, pools of 1000, query sets of 100, 512 numbers an image. The two take turns, and the ratio is of their medians.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
import tyro

from activelabel.agents import Reinforce
from activelabel.data import load
from activelabel.envs import SelectiveLabelVectorEnv


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 5
    """Timed turns of each contestant, after one that is not counted."""
    k: tuple[int, ...] = (10, 40, 200, 400)
    """Images to label."""
    n_samples: tuple[int, ...] = (1, 8)
    """Selections for each task; 1 is the paper's."""
    batch: int = 64
    """Tasks an update."""
    pool: int = 1000
    """Images in the pool."""


def main(settings: Settings) -> None:
    """Measure and print the ratios."""
    cohort = load("synthetic-large")
    sizes = f"{settings.batch} x {settings.pool} x {cohort.embedded().shape[1]}"
    print(f"{torch.get_num_threads()} threads, {sizes}, {settings.repeats} repeats")
    print(f"{'K':>4} {'M':>3} {'update, s':>10} {'bare, s':>8} {'ratio':>6} {'rest, ms':>9}")
    for k in settings.k:
        for n_samples in settings.n_samples:
            venv = SelectiveLabelVectorEnv(
                settings.batch, cohort, pool=settings.pool, query=100, k=k, held_out=("Edema", "Atelectasis")
            )
            baseline = "random" if n_samples == 1 else "leave-one-out"
            model = Reinforce(env=venv, batch_size=settings.batch, n_samples=n_samples, baseline=baseline, seed=0)
            update, bare = measure(model, settings)
            rest = (update - bare) * 1e3
            print(f"{k:>4} {n_samples:>3} {update:>10.2f} {bare:>8.2f} {update / bare:>6.3f} {rest:>9.0f}", flush=True)


def measure(model: Reinforce, settings: Settings) -> tuple[float, float]:
    """Return the median seconds of an update and of the bare network."""
    images = torch.randn(settings.batch, settings.pool, 512, generator=torch.Generator().manual_seed(0))
    updates, bare = [], []
    for turn in range(settings.repeats + 1):
        start = time.perf_counter()
        model.learn(settings.batch, log_interval=0, reset_num_timesteps=turn == 0)
        middle = time.perf_counter()
        model.policy.set_training_mode(True)
        model.policy.selector(images).sum().backward()
        end = time.perf_counter()
        model.policy.optimizer.zero_grad()
        if turn:
            updates.append(middle - start)
            bare.append(end - middle)
    return statistics.median(updates), statistics.median(bare)


if __name__ == "__main__":
    main(tyro.cli(Settings))
