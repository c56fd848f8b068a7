"""Query strategies on large pools, against scikit-activeml's, both in one run.

::

    OMP_NUM_THREADS=2 python -m benchmarks.baselines

100 images are chosen of generated pools of 1,000 to 100,000 images, float32, 512 numbers each, 30 groups, 50 images
labelled. k-center, BADGE and TypiClust take turns with scikit-activeml's CoreSet, Badge and TypiClust; the ratio is of
their medians, after a query of a small pool that is not counted. Both are given the class probabilities of one
classifier. k-center is deterministic: the selections are compared. Where theirs needs more memory than ``--memory`` or,
by the time of the size before, more than ``--patience`` seconds a query, it is left out.

K-Medoids has no counterpart there. Of pools above its ``limit`` it takes the best of several samples; shown is its loss
(the sum of all distances to the nearest medoid) over that of the exact search at 10,000 images, and its time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from activelabel.baselines import KMedoids, make_pool_baseline
from activelabel.baselines.kmedoids import total_distance
from activelabel.seeding import stream

CLASSES, GROUPS, LABELLED = 4, 30, 50

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    pools: tuple[int, ...] = (1000, 10_000, 100_000)
    """Images in the pool."""
    dim: int = 512
    """Numbers an image."""
    batch: int = 100
    """Images chosen."""
    k: tuple[int, ...] = (10, 100)
    """Medoids."""
    repeats: int = 3
    """Timed turns of each contestant."""
    memory: float = 8.0
    """GB that the arrays of a contestant may take."""
    patience: float = 240.0
    """Seconds that a query may take."""


def generate(n: int, s: Settings) -> dict[str, NDArray[Any]]:
    """Return an observation of ``ActiveLabel-v0`` of ``n`` candidates."""
    rng = stream(0, "benchmark", n)
    groups = rng.standard_normal((GROUPS, s.dim)).astype(np.float32)
    classes = rng.integers(CLASSES, size=GROUPS)

    def draw(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        group = rng.integers(GROUPS, size=count)
        noise = rng.standard_normal((count, s.dim), dtype=np.float32)
        return groups[group] + noise, classes[group]

    (images, labels), (labelled, known) = draw(n), draw(LABELLED)
    logits = 2.0 * np.eye(CLASSES)[labels] + rng.standard_normal((n, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "embeddings": images,
        "probabilities": probabilities.astype(np.float32),
        "action_mask": np.ones(n, dtype=np.int8),
        "labelled": labelled,
        "labels": known,
    }


class Given:
    """A classifier of scikit-activeml's kind that knows the probabilities; it is asked for all images at once."""

    def __init__(self, observation: dict[str, NDArray[Any]]) -> None:
        from skactiveml.classifier import SklearnClassifier
        from sklearn.linear_model import LogisticRegression

        class Fixed(SklearnClassifier):  # type: ignore[misc]
            def predict_proba(self, X: Any, **named: Any) -> NDArray[np.float64]:
                return observation["probabilities"].astype(np.float64)

        self.classifier = Fixed(LogisticRegression(), classes=np.arange(CLASSES))


def theirs(name: str, observation: dict[str, NDArray[Any]], s: Settings) -> NDArray[np.int64]:
    """Query scikit-activeml, as its users do, with the pool and its labels in one array."""
    import skactiveml.pool

    n = len(observation["embeddings"])
    images = np.concatenate([observation["embeddings"], observation["labelled"]])
    y = np.concatenate([np.full(n, np.nan), observation["labels"].astype(np.float64)])
    more = {"clf": Given(observation).classifier, "fit_clf": False} if name == "Badge" else {}
    strategy = getattr(skactiveml.pool, name)(random_state=0)
    return np.asarray(strategy.query(images, y, batch_size=s.batch, **more))


COUNTERPARTS = {"k-center": "CoreSet", "badge": "Badge", "typiclust": "TypiClust"}


def needs(name: str, n: int, s: Settings) -> float:
    """Return the GB of the largest arrays of scikit-activeml's strategy."""
    # Badge writes out C x d numbers a candidate, in double precision, and their squares.
    return 2 * n * CLASSES * s.dim * 8 / 1e9 if name == "Badge" else 2 * n * s.dim * 8 / 1e9


def own_choice(name: str, observation: dict[str, NDArray[Any]], s: Settings) -> NDArray[np.int64]:
    """Query the package's own strategy."""
    return make_pool_baseline(name, s.batch).predict(observation)[0]


def timed(query: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of a call and what it returned."""
    start = time.perf_counter()
    found = query()
    return time.perf_counter() - start, found


@dataclass(frozen=True)
class Query:
    """A strategy's query of a pool: median seconds, ours and theirs or why theirs is left out, and the selections."""

    pool: int
    name: str
    seconds: float
    theirs: float | str
    selection: str = ""

    def __str__(self) -> str:
        line = f"{self.pool:>8,}  {self.name:<10} {self.seconds:8.3f}"
        if isinstance(self.theirs, str):
            return f"{line}  theirs left out: {self.theirs}"
        return f"{line}  {self.theirs:8.3f}  {self.theirs / self.seconds:6.1f}  {self.selection}"


def queries(s: Settings) -> Iterator[Query]:
    """Measure the strategies of ``ActiveLabel-v0``, each pool and strategy as soon as it is done."""
    last: dict[str, float] = {}
    for ours, name in COUNTERPARTS.items():  # the first call of either imports what it needs
        small = generate(2 * s.batch, s)
        own_choice(ours, small, s)
        theirs(name, small, s)
    for n in s.pools:
        observation = generate(n, s)
        for ours, name in COUNTERPARTS.items():
            expected = last.get(name, 0.0) * n / max((p for p in s.pools if p < n), default=n)
            why = ""
            if needs(name, n, s) > s.memory:
                why = f"{needs(name, n, s):.0f} GB"
            elif expected > s.patience:
                why = f"about {expected:.0f} s"
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(s.repeats):
                seconds, chosen = timed(partial(own_choice, ours, observation, s))
                times[0].append(seconds)
                if not why:
                    seconds, other = timed(partial(theirs, name, observation, s))
                    times[1].append(seconds)
            own = statistics.median(times[0])
            if why:
                yield Query(n, ours, own, why)
                continue
            last[name] = statistics.median(times[1])
            same = "the same" if np.array_equal(chosen, other) else f"{len(np.intersect1d(chosen, other))} in common"
            yield Query(n, ours, own, last[name], same)


def limits(s: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, our seconds over theirs, and what that may be at most."""
    with threadpool_limits(torch.get_num_threads()):
        return [
            (f"{q.name}, pool {q.pool:,} / scikit-activeml's", q.seconds / q.theirs, 0.2 if q.pool == 10_000 else 1.0)
            for q in queries(s)
            if not isinstance(q.theirs, str)
        ]


def medoids(s: Settings) -> None:
    """Measure and print K-Medoids, exact up to 10,000 images, and by samples from there on."""
    print(f"\n{'pool':>8}  {'K':>4}  {'search':<7}  {'seconds':>8}  {'loss':>12}  over exact")
    for n in s.pools:
        pool, clinical = generate(n, s)["embeddings"], np.zeros((n, 0), dtype=np.float32)
        for k in s.k:
            exact = None
            for search, limit in (("exact", n), ("samples", 1)):
                if (search == "exact" and n > 10_000) or (search == "samples" and n < 10_000):
                    continue
                seconds, found = timed(partial(KMedoids(k, limit=limit).choose, pool, clinical, [k]))
                chosen = found[k]
                loss = total_distance(pool, chosen)
                exact = loss if search == "exact" else exact
                over = "" if exact is None else f"{loss / exact:10.4f}"
                print(f"{n:>8,}  {k:>4}  {search:<7}  {seconds:8.2f}  {loss:12.0f}  {over}", flush=True)


def main(s: Settings) -> None:
    """Measure and print both tables."""
    threads = torch.get_num_threads()
    print(f"{threads} threads, {s.batch} of n x {s.dim} chosen, {LABELLED} labelled, {s.repeats} repeats")
    print(f"{'pool':>8}  {'strategy':<10} {'seconds':>8}  {'theirs':>8}  {'ratio':>6}  selection")
    with threadpool_limits(threads):
        for query in queries(s):
            print(query, flush=True)
        medoids(s)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
