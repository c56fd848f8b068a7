"""A step of ``ActiveLabel-v0`` by the size of the pool, up to a million images whose features lie on disk.

::

    OMP_NUM_THREADS=2 python -m benchmarks.active_pool

One environment of ``gym.make``, 512 numbers an image, 8 classes, 5 labels a step; the features are a read-only memory
map, all images of the pool are candidates, or 1000 drawn anew at each step. Each size has a process of its own, and the
peak is of its resident memory, mapped pages included (``VmHWM``, Linux). ``make`` is what ``gym.make`` takes, with the
checks of the data, ``reset`` the first one, with the sums of distances, and ``next`` another.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro

import activelabel  # noqa: F401  # registers the environments
from benchmarks.env_step import OTHERS, generated
from benchmarks.processes import in_fresh_process

STEP_LIMIT, MEMORY_LIMIT = 1.0, 4000.0
"""Seconds of a step on a million images, and megabytes."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    images: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Images in the pool."""
    candidates: tuple[int, ...] = (0, 1000)
    """Images offered at each step; 0 is the whole pool."""
    dim: int = 512
    """Numbers an image."""
    classes: int = 8
    """Classes to tell apart."""
    steps: int = 10
    """Steps of the episode, 5 labels each; the median is printed."""


@dataclass(frozen=True)
class Figures:
    """Seconds, and megabytes."""

    make: float
    reset: float
    following: float
    """Another reset."""
    step: float
    peak: float
    anonymous: float
    """Resident memory at the end that is not the page cache's."""


def main(settings: Settings) -> None:
    """Measure and print."""
    s = settings
    print(f"{torch.get_num_threads()} threads, {s.dim} numbers an image, {s.classes} classes")
    print(f"{'pool':>9} {'candidates':>10} {'make, s':>8} {'reset, s':>8} {'next, s':>8} {'step, ms':>9} ", end="")
    print(f"{'us/image':>8} {'peak, MB':>9} {'anonymous':>9}")
    for images in s.images:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder) / "features.npy", images, s)
            for candidates in s.candidates:
                f = in_fresh_process(play, Path(folder) / "features.npy", candidates, s)
                print(
                    f"{images:>9} {candidates or images:>10} {f.make:>8.2f} {f.reset:>8.2f} {f.following:>8.2f} ",
                    end="",
                )
                print(
                    f"{f.step * 1e3:>9.1f} {f.step / images * 1e6:>8.2f} {f.peak:>9.0f} {f.anonymous:>9.0f}", flush=True
                )
    print(f"limits at a million: {STEP_LIMIT:.0f} s a step, {MEMORY_LIMIT:.0f} MB")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured at each number of candidates, the figure, and what it may be at most at a million."""
    found = []
    for images in settings.images:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.npy"
            draw(path, images, settings)
            for candidates in settings.candidates:
                figures = in_fresh_process(play, path, candidates, settings)
                which = f"{candidates or 'all'} of {images:,} images"
                found.append((f"a step of ActiveLabel-v0, {which}, s", figures.step, STEP_LIMIT))
                found.append((f"its peak, {which}, MB", figures.peak, MEMORY_LIMIT))
    return found


def draw(path: Path, images: int, settings: Settings) -> None:
    """Write normal features of a pool and of the other parts."""
    rng = np.random.default_rng(0)
    shape = (images + sum(OTHERS) + 2, settings.dim)
    features = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(features), 8192):
        block = features[start : start + 8192]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
    features.flush()


def play(path: Path, candidates: int, settings: Settings) -> Figures:
    """Return what an episode takes."""
    s = settings
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    start = time.perf_counter()
    cohort, parts = generated(features, s.classes)
    pool = len(features) - 2 - sum(OTHERS)
    env = gym.make(
        "ActiveLabel-v0", cohort=cohort, budget=5 * s.steps, pool=pool, candidates=candidates or None, **parts
    )
    made = time.perf_counter() - start
    resets = []
    for seed in range(2):
        start = time.perf_counter()
        _, info = env.reset(seed=seed)
        resets.append(time.perf_counter() - start)
    steps = []
    for _ in range(s.steps):
        action = np.flatnonzero(info["action_mask"])[:5]
        start = time.perf_counter()
        *_, info = env.step(action)
        steps.append(time.perf_counter() - start)
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    peak, anonymous = (int(lines[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))
    return Figures(made, resets[0], resets[1], statistics.median(steps), peak, anonymous)


if __name__ == "__main__":
    main(tyro.cli(Settings))
