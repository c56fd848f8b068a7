"""A step of each environment alone against the same step written plainly with NumPy and scikit-learn.

::

    OMP_NUM_THREADS=1 python -m benchmarks.single_env

Single environments of ``gym.make``, pools of 1000, 512 numbers an image. ``SelectiveLabel-v0``: 10 images are labelled,
100 scored by the cosine to their classes' means, the AUROC is the reward, and the random selector's is told beside it;
plainly with scikit-learn's ``roc_auc_score``, or by all pairs, which is the fastest for so few.
``ActiveLabel-v0``: a step at 50 labels as in :mod:`benchmarks.env_step`, 8 classes. ``unwrapped`` is without the
wrappers of Gymnasium (``PassiveEnvChecker``, ``OrderEnforcing``). They take turns, and the ratios are of their medians.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from activelabel.data import Cohort, TaskBatch
from activelabel.envs import ActiveLabelEnv, SelectiveLabelEnv
from benchmarks import env_step

LIMIT = 1.5
"""Times the plain step."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 30
    """Steps of each contestant that are timed."""
    pool: int = 1000
    """Images in the pool."""
    dim: int = 512
    """Numbers an image."""
    batch: tuple[int, ...] = (5, 1)
    """Labels a step of ``ActiveLabel-v0``."""
    learner: tuple[str, ...] = ("softmax", "logistic")
    """Its learners."""


@dataclass(frozen=True)
class Figures:
    """Median seconds of a step."""

    env: float
    unwrapped: float
    plain: float

    @property
    def ratio(self) -> float:
        """Times the plain step; see :data:`LIMIT`."""
        return self.env / self.plain


def main(settings: Settings) -> None:
    """Measure and print."""
    s = settings
    print(f"{torch.get_num_threads()} threads, pool {s.pool} x {s.dim}, {s.repeats} repeats")
    print(f"{'':<32} {'env, ms':>8} {'unwrapped':>9} {'plain':>7} {'ratio':>6}  (at most {LIMIT})")
    _print("SelectiveLabel-v0, scikit-learn", selective(s))
    _print("SelectiveLabel-v0, pairs", selective(s, pairs=True))
    for learner in s.learner:
        for batch in s.batch:
            _print(f"ActiveLabel-v0, {learner}, N = {batch}", active(learner, batch, s))


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    s = settings
    found = {"SelectiveLabel-v0, scikit-learn's AUROC": selective(s), "SelectiveLabel-v0, pairs": selective(s, True)}
    found |= {f"ActiveLabel-v0, {name}, N = {n}": active(name, n, s) for name in s.learner for n in s.batch}
    return [(f"one env's step / plain: {name}", figures.ratio, LIMIT) for name, figures in found.items()]


def _print(name: str, f: Figures) -> None:
    milliseconds = f"{f.env * 1e3:>8.2f} {f.unwrapped * 1e3:>9.2f} {f.plain * 1e3:>7.2f}"
    print(f"{name:<32} {milliseconds} {f.ratio:>6.2f}", flush=True)


def active(learner: str, batch: int, settings: Settings) -> Figures:
    """Return the figures of ``ActiveLabel-v0``."""
    s, times = settings, []
    sizes = env_step.Settings(pool=s.pool, dim=s.dim)
    engine = env_step.make_engine(sizes, learner, batch)
    wrapped = gym.make("ActiveLabel-v0", engine=engine)
    env = wrapped.unwrapped
    assert isinstance(env, ActiveLabelEnv)
    for turn in range(s.repeats + 1):
        taken = []
        for player in (wrapped, env):
            _, info = player.reset(seed=turn)
            while info["n_labelled"] < sizes.labelled:
                *_, info = player.step(_first(info["action_mask"], batch))
            plain = env_step.PlainEpisode(engine, env.episodes, 0, sizes.max_iter)
            action = _first(info["action_mask"], batch)
            start = time.perf_counter()
            player.step(action)
            taken.append(time.perf_counter() - start)
        start = time.perf_counter()
        plain.step(np.atleast_1d(action))
        times.append((*taken, time.perf_counter() - start))
    return Figures(*(statistics.median(values) for values in zip(*times[1:], strict=True)))


def _first(mask: NDArray[np.int8], n: int) -> NDArray[np.int64]:
    """Return the first ``n`` candidates that are free, or one number for one."""
    free = np.flatnonzero(mask)[:n]
    return free[0] if n == 1 else free


def selective(settings: Settings, pairs: bool = False) -> Figures:
    """Return the figures of ``SelectiveLabel-v0``.

    Parameters
    ----------
    settings: sizes.
    pairs: the plain step compares all pairs instead of calling scikit-learn's ``roc_auc_score``.

    Raises
    ------
    AssertionError: if the plain reward is another.
    """
    s, times = settings, []
    rng = np.random.default_rng(0)
    label = np.arange(8 * s.pool) % 2
    features = rng.standard_normal((len(label), s.dim)).astype(np.float32)
    features[label == 1] += 0.1 * rng.standard_normal(s.dim).astype(np.float32)
    cohort = Cohort(np.eye(2, dtype=np.int8)[label], ("No Finding", "Edema"), features, normal=0)
    wrapped = gym.make("SelectiveLabel-v0", cohort=cohort, pool=s.pool, query=100, k=10)
    env = wrapped.unwrapped
    assert isinstance(env, SelectiveLabelEnv)
    for turn in range(s.repeats + 1):
        taken, rewards = {}, {}
        action = rng.choice(s.pool, 10, replace=False)
        _, info = wrapped.reset(seed=turn)
        plain = PlainTask(env, env.engine.tasks([info["task"]]), pairs)
        players = (wrapped, env, plain)
        # Who comes first finds less in the processor's caches.
        for player in (*players[turn % 3 :], *players[: turn % 3]):
            player.reset(seed=turn)
            start = time.perf_counter()
            _, reward, *_ = player.step(action)
            taken[player] = time.perf_counter() - start
            rewards[player] = float(reward)
        times.append([taken[player] for player in players])
        np.testing.assert_allclose(list(rewards.values()), rewards[plain], atol=1e-6)
    return Figures(*(statistics.median(values) for values in zip(*times[1:], strict=True)))


class PlainTask:
    """One task as one would write it with NumPy arrays.

    Parameters
    ----------
    env: the data.
    tasks: a batch of one.
    pairs: whether the AUROC is that of all pairs, much faster for a hundred images, or scikit-learn's.
    """

    def __init__(self, env: SelectiveLabelEnv, tasks: TaskBatch, pairs: bool) -> None:
        self.pairs = pairs
        self.features, self.clinical = (table.cpu().numpy() for table in (env.engine.features, env.engine.clinical))
        self.pool, self.labels = tasks.pool[0], tasks.pool_labels[0]
        self.query, self.query_labels = tasks.query[0], tasks.query_labels[0]
        self.rng = np.random.default_rng(int(tasks.index[0]))

    def reset(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Return the observation; the task is the same."""
        return self._observe()

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        return {"pool": self.features[self.pool], "clinical": self.clinical[self.pool]}

    def step(self, action: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.float32]], float, float]:
        """Label images; returns the observation, the reward and the random selector's."""
        random = self.rng.choice(len(self.pool), len(action), replace=False)
        return self._observe(), self._auroc(action), self._auroc(random)

    def _auroc(self, chosen: NDArray[np.int64]) -> float:
        x, y = self.features[self.pool[chosen]].astype(np.float64), self.labels[chosen]
        query = self.features[self.query].astype(np.float64)
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        scores = np.zeros(len(query))
        for sign, own in ((1, x[y]), (-1, x[~y])):
            if len(own):
                mean = own.mean(axis=0)
                scores += sign * (query @ (mean / np.linalg.norm(mean)))
        if self.pairs:  # no two scores are equal here
            return float(np.mean(scores[self.query_labels][:, None] > scores[~self.query_labels]))
        return float(roc_auc_score(self.query_labels, scores))


if __name__ == "__main__":
    main(tyro.cli(Settings))
