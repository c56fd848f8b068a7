"""Training time of LAL-RL as released, of our port of it, and of our DDQN (Slade & Branson 2022, §4.4: 267 times).

::

    python -m benchmarks.lal_rl_time --rows 4000              # 18 minutes on 2 cores
    python -m benchmarks.lal_rl_time --rows 1000 --dim 6750   # in half a minute

With nothing else running: linear algebra of several threads waits for its slowest.

Generated data of the colorectal images' shape: 5000 images of 150 x 150 x 3 numbers, 8 classes. Each contestant starts
from the same array and trains for 5 episodes of 20 labels, one label a step, from one label of each class, with the
same number of gradient steps of the same batch size and without warm-start episodes, in pools of about half of the
rows.

``published``: :mod:`benchmarks.lal_rl_published`. ``port``: ``LalRl`` in ``ActiveLabel-v0`` with ``LAL_RL_ENV``: the
same agent and features, distances in data space as running sums, the target computed once, episodes played at once.
``ddqn``: ``DDQN`` with its defaults in the latent space of a frozen embedding. On generated data a backbone would have
nothing to see: a fixed Gaussian projection to 512 numbers stands in for it, and its time counts.
"""

from __future__ import annotations

import contextlib
import io
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import tyro
from threadpoolctl import threadpool_limits

from activelabel.agents import DDQN, LAL_RL_ENV, LalRl
from activelabel.data import Cohort, Source
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, ActiveLabelVectorEnv
from activelabel.seeding import stream
from benchmarks import lal_rl_published as published

ROWS, DIM = 5000, 67_500

_SPLIT: dict[str, Any] = {"fractions": (0.98, 0.01, 0.01), "shares": (0.51, 0.04, 0.39, 0.06)}
"""Nearly all rows are training's, and half of these are the pool, as the released code halves the data."""

Result = tuple[float, int, str]
"""Seconds, labels, and a note on what took how long."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    rows: int = ROWS
    """Images."""
    dim: int = DIM
    """Numbers an image."""
    classes: int = 8
    """Classes, of equal size."""
    episodes: int = 5
    """Training episodes."""
    budget: int = 20
    """Labels in an episode."""
    at_once: int = 5
    """Episodes between gradient steps; ours plays them at once. (Released code: 10.)"""
    gradient_steps: int = 60
    """Gradient steps after these. (Released code: 60.)"""
    batch_size: int = 32
    """Transitions in a gradient step. (Released code: 32.)"""
    latent: int = 512
    """Numbers an image in the latent space of ``ddqn``."""
    distances: Literal["pdist", "products"] = "pdist"
    """How ``published`` computes all distances; pdist is what the released code calls."""
    published_threads: int = 1
    """Threads of linear algebra in ``published``. More make it slower: they wait for each other in the many small
    products of scikit-learn's descent."""
    contestants: tuple[Literal["ddqn", "port", "published"], ...] = ("ddqn", "port", "published")
    """Who runs, in this order."""
    seed: int = 0
    """Of the data and of everybody."""


def generate(s: Settings) -> tuple[FloatArray, IntArray]:
    """Return images float32 ``(rows, dim)`` and their classes.

    Forty hidden factors, whose means differ a little by class, seen through a random map under noise: classes overlap,
    so that twenty labels reach no episode's target.
    """
    rng = stream(s.seed, "data")
    y = rng.permutation(np.arange(s.rows) % s.classes)
    factors = 0.45 * rng.standard_normal((s.classes, 40))[y] + rng.standard_normal((s.rows, 40))
    x = rng.standard_normal((s.rows, s.dim), dtype=np.float32)
    x += factors.astype(np.float32) @ rng.standard_normal((40, s.dim), dtype=np.float32)
    return x, y


def cohort(x: FloatArray, y: IntArray, classes: int) -> Cohort:
    """Return the images as a cohort."""
    labels = np.eye(classes, dtype=np.int8)[y]
    return Cohort(labels, tuple(f"class {c}" for c in range(classes)), x, source=Source(name="generated"))


def _train(s: Settings, agent: type[DDQN], data: Cohort, **settings: Any) -> int:
    """Train an agent of ours; returns the labels that it took."""
    arguments = {"batch": 1, "budget": s.budget, **_SPLIT, **settings}
    engine = ActiveLabelEngine(data, ActiveLabelSettings.make(**arguments), "cpu")
    engine = engine.sibling(pool=len(engine.sampler.rows["pool"]))
    model = agent(
        env=ActiveLabelVectorEnv(s.at_once, engine=engine),
        warm_start_episodes=0,
        gradient_steps=s.gradient_steps,
        batch_size=s.batch_size,
        seed=s.seed,
        device="cpu",
    )
    model.learn(s.episodes * s.budget, log_interval=0)
    return model.num_timesteps


def run_ddqn(x: FloatArray, y: IntArray, s: Settings) -> Result:
    """Embed, and train DDQN in latent space."""
    start = time.perf_counter()
    projection = stream(s.seed, "projection").standard_normal((s.dim, s.latent), dtype=np.float32) / math.sqrt(s.dim)
    features = (torch.from_numpy(x) @ torch.from_numpy(projection)).numpy()
    embedded = time.perf_counter() - start
    labels = _train(s, DDQN, cohort(features, y, s.classes))
    seconds = time.perf_counter() - start
    return seconds, labels, f"embedding {embedded:.2f} s, the rest {seconds - embedded:.2f} s"


def run_port(x: FloatArray, y: IntArray, s: Settings) -> Result:
    """Train our LAL-RL in data space."""
    start = time.perf_counter()
    labels = _train(s, LalRl, cohort(x, y, s.classes), **LAL_RL_ENV)
    return time.perf_counter() - start, labels, "distances computed once"


def run_published(x: FloatArray, y: IntArray, s: Settings) -> Result:
    """Train LAL-RL as released."""
    start = time.perf_counter()
    env = published.PublishedEnv(x, y, s.budget, s.distances, s.seed)
    with threadpool_limits(s.published_threads):
        labels = published.train(env, s.episodes, s.at_once, s.gradient_steps, s.batch_size)
    seconds = time.perf_counter() - start
    return seconds, labels, ", ".join(f"{part} {spent:.1f} s" for part, spent in env.seconds.items())


RUNS: dict[str, Callable[[FloatArray, IntArray, Settings], Result]] = {
    "ddqn": run_ddqn,
    "port": run_port,
    "published": run_published,
}


def main(s: Settings) -> None:
    """Measure and print seconds and ratios."""
    # The first call of many functions imports and compiles: a turn of everybody on little data does not count.
    little = replace(s, rows=1000, dim=50, episodes=1, at_once=1, budget=2)
    with contextlib.redirect_stdout(io.StringIO()):
        for name in s.contestants:
            RUNS[name](*generate(little), little)
    x, y = generate(s)
    share = s.rows * s.dim / (ROWS * DIM)
    print(f"{torch.get_num_threads()} threads; {s.rows} x {s.dim} of {ROWS} x {DIM} ({share:.1%} of the data)")
    print(f"{s.episodes} episodes of {s.budget} labels; distances of the released code by {s.distances}")
    results = {}
    for name in s.contestants:
        results[name] = RUNS[name](x, y, s)
        seconds, labels, note = results[name]
        print(f"{name:>9}: {seconds:9.2f} s, {labels} labels ({note})", flush=True)
        assert labels == s.episodes * s.budget, f"{name} took {labels} labels: not the same work"
    if "published" in results:
        slowest = results["published"][0]
        for name in [n for n in results if n != "published"]:
            print(f"published / {name}: {slowest / results[name][0]:.1f}")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.1f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Settings))
