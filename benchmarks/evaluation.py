"""The closing evaluation of ``SelectiveLabel-v0`` against what in it cannot be left out.

::

    python -m benchmarks.evaluation --tasks 64 --repeats 3

Random, K-Medoids and the BiLSTM choose K = 10 to 400 of 1000 images with 512 numbers, and what they chose is judged and
summarised, as ``train.py`` does at its end. Beside it, on the same tasks: one forward pass of the selector for each
batch, and K-Medoids for all K, alone. The two take turns, and the ratio is of their medians. Time is the same for every
task and whatever the weights are: 1000 tasks take as many times longer than ``--tasks`` as they are more.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
import tyro

from activelabel.agents import Reinforce
from activelabel.baselines import KMedoids, Random
from activelabel.envs import SelectiveLabelEngine
from activelabel.evaluation import play
from activelabel.evaluation.protocol import Strategy
from activelabel.evaluation.selective_report import build_report
from benchmarks.paper_size import paper_env

BATCH = 32
"""Tasks at a time, as :func:`activelabel.evaluation.play` takes them."""

LIMIT = 1.3
"""The evaluation over its forward passes and K-Medoids."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    tasks: int = 64
    """Tasks, a multiple of 32."""
    k: tuple[int, ...] = (10, 20, 40, 80, 200, 400)
    """Images to label."""
    pool: int = 1000
    """Images in the pool."""
    query: int = 100
    """Images in the query set."""
    repeats: int = 3
    """Timed turns of each contestant, after one that is not counted."""


@dataclass(frozen=True)
class Figures:
    """Median seconds.

    Parameters
    ----------
    strategies: of the evaluation of each strategy, and of the report.
    forward, kmedoids: of the forward passes and of K-Medoids alone.
    evaluation: of all strategies and the report.
    alone: ``forward`` and ``kmedoids`` together.
    """

    strategies: dict[str, float]
    forward: float
    kmedoids: float
    evaluation: float
    alone: float


def main(settings: Settings) -> None:
    """Measure and print the ratio and what it is made of."""
    s, found = settings, measure(settings)
    print(f"{torch.get_num_threads()} threads, {s.tasks} tasks, pool {s.pool}, K = {', '.join(map(str, s.k))}")
    for name, seconds in found.strategies.items():
        print(f"{name:<14} {seconds:>8.2f} s")
    print(f"evaluation     {found.evaluation:>8.2f} s, {found.evaluation / s.tasks * 1e3:.0f} ms a task")
    print(f"forward alone  {found.forward:>8.2f} s")
    print(f"medoids alone  {found.kmedoids:>8.2f} s")
    print(f"ratio          {found.evaluation / found.alone:>8.3f}")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    found = measure(settings)
    return [("evaluation / its forward passes and K-Medoids alone", found.evaluation / found.alone, LIMIT)]


def measure(settings: Settings) -> Figures:
    """Return the figures."""
    ks, k = settings.k, settings.k[0]
    env = paper_env(BATCH, pool=settings.pool, query=settings.query, k=k)
    engine = env.engine.sibling(split="test")
    model = Reinforce(env=env, batch_size=BATCH, seed=0)
    strategies: dict[str, Strategy] = {"random": Random(k), "kmedoids": KMedoids(k), "reinforce": model}
    turns: dict[str, list[float]] = {name: [] for name in (*strategies, "report", "forward", "medoids", "all", "alone")}
    for turn in range(settings.repeats + 1):
        times, results = {}, {}
        for name, strategy in strategies.items():
            start = time.perf_counter()
            results[name] = play(engine, strategy, ks, settings.tasks, BATCH)
            times[name] = time.perf_counter() - start
        start = time.perf_counter()
        build_report({"seen": results})
        times["report"] = time.perf_counter() - start
        times["all"] = sum(times.values())
        times["forward"], times["medoids"] = alone(model, engine, settings)
        times["alone"] = times["forward"] + times["medoids"]
        if turn:
            for name, seconds in times.items():
                turns[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in turns.items()}
    parts = {name: medians[name] for name in (*strategies, "report")}
    return Figures(parts, medians["forward"], medians["medoids"], medians["all"], medians["alone"])


def alone(model: Reinforce, engine: SelectiveLabelEngine, settings: Settings) -> tuple[float, float]:
    """Return the seconds of the selector's forward passes alone, and of K-Medoids alone."""
    kmedoids = KMedoids(settings.k[0])
    forward = medoids = 0.0
    for first in range(0, settings.tasks, BATCH):
        observation = engine.observe(engine.tasks(range(first, first + BATCH)))
        tensors, _ = model.policy.tensors(observation)
        start = time.perf_counter()
        with torch.no_grad():
            model.policy(tensors)
        middle = time.perf_counter()
        for pool, clinical in zip(observation["pool"], observation["clinical"], strict=True):
            kmedoids.choose(pool, clinical, settings.k)
        forward += middle - start
        medoids += time.perf_counter() - middle
    return forward, medoids


if __name__ == "__main__":
    main(tyro.cli(Settings))
