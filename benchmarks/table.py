"""All that is promised of speed and scale in one table.

::

    OMP_NUM_THREADS=2 python -m benchmarks
    OMP_NUM_THREADS=2 python -m benchmarks --only update baselines

Each line is a figure, what it may be at most, and the one over the other: below 1 the promise is kept. Every benchmark
runs in a process of its own with settings that make it quick; run it by its name (``python -m benchmarks.update``) for
more turns and for the parts. Two lines at the top say what the machine can do at all: a large float32 product and the
bandwidth of the memory, with as many threads as the benchmarks have.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from activelabel.errors import SettingsError, unknown
from benchmarks.processes import in_fresh_process

QUICK: dict[str, dict[str, Any]] = {
    "startup": {"repeats": 3},
    "update": {"repeats": 2, "k": (10,), "n_samples": (8,)},
    "precision": {"repeats": 4, "batch": 32},
    "estimators": {},
    "evaluation": {"tasks": 32, "repeats": 3},
    "large_pool": {"repeats": 1, "batch": 16},
    "vector_env": {"repeats": 1},
    "active_pool": {"images": (1_000_000,), "steps": 4},
    "ddqn_speed": {"rounds": 2},
    "single_env": {"repeats": 10},
    "baselines": {"pools": (1000, 10_000), "repeats": 1},
}
"""The benchmarks with promises, and the settings for the table."""

Row = tuple[str, float, float]
"""What is measured, the figure, and what it may be at most."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    only: tuple[str, ...] = ()
    """Names of benchmarks; by default all."""


def main(settings: Settings) -> None:
    """Run the benchmarks and print the table.

    Raises
    ------
    SettingsError: if there is no such benchmark.
    """
    for name in settings.only:
        if name not in QUICK:
            raise SettingsError(unknown("benchmark", name, QUICK))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"float32 product of 2048 x 2048: {product():.0f} GFLOP/s; copy of 256 MB: {bandwidth():.1f} GB/s\n")
    print(f"{'':<64} {'figure':>9} {'at most':>8} {'ratio':>6}")
    for name in settings.only or QUICK:
        for what, figure, limit in in_fresh_process(run, name):
            over = "" if figure <= limit else "  OVER"
            print(f"{what:<64} {figure:>9.3f} {limit:>8.3f} {figure / limit:>6.2f}{over}", flush=True)


def run(name: str) -> list[Row]:
    """Return the rows of a benchmark of :data:`QUICK`."""
    module = importlib.import_module(f"benchmarks.{name}")
    rows: list[Row] = module.limits(module.Settings(**QUICK[name]))
    return rows


def median_seconds(act: Callable[[], object]) -> float:
    """Return the median seconds of five calls, after one that is not counted."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def product() -> float:
    """Return the GFLOP/s of a product of two float32 matrices of 2048 x 2048."""
    a, b, out = torch.ones(2048, 2048), torch.ones(2048, 2048), torch.empty(2048, 2048)
    return 2 * 2048**3 / median_seconds(lambda: torch.mm(a, b, out=out)) / 1e9


def bandwidth() -> float:
    """Return the GB/s, read and written, of copying 256 MB."""
    a, b = torch.ones(2**26), torch.empty(2**26)
    return 2 * a.nbytes / median_seconds(lambda: b.copy_(a)) / 1e9
