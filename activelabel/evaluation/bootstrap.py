"""Bootstrap intervals: over tasks and training seeds, of robust aggregates, and of labels saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError
from activelabel.evaluation.statistics import FloatArray, Interval, seed_task_differences
from activelabel.seeding import stream

_NUMBERS = 2_000_000
"""Resampled scores that are held at once."""

Statistic = Callable[..., FloatArray]
"""From one or more arrays ``(..., S, T)`` to ``(...)``."""


def _percentiles(draws: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _check(level: float, n_boot: int) -> None:
    if not 0 < level < 1 or n_boot < 1:
        raise SettingsError(f"level={level} must be between 0 and 1 and n_boot={n_boot} at least 1.")


# -- tasks and training seeds --------------------------------------------------------------------------------------


def resampled_means(differences: FloatArray, n_boot: int, seed: int) -> FloatArray:
    """Return bootstrap means ``(..., n_boot)`` of ``(..., S, T)``: seeds and tasks are drawn again, each with repeats.

    A drawn seed keeps its scores on all drawn tasks, for every seed played the same ones.
    """
    n_seeds, n_tasks = differences.shape[-2:]
    rng = stream(seed, "hierarchical bootstrap")
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_boot) / n_seeds
    tasks = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=n_boot) / n_tasks
    # The sum over seeds and tasks, without an array of (..., n_boot, T).
    parts = [(differences[..., s, :] @ tasks.T) * seeds[:, s] for s in range(n_seeds)]
    means: FloatArray = np.sum(parts, axis=0)
    return means


def hierarchical_bootstrap(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of ``a - b`` with the percentile interval of :func:`resampled_means`.

    Too narrow with few training seeds: the variance between S seeds is underestimated by ``(S - 1) / S``, and S draws
    do not know their tails; with 3 seeds a 95 % interval can miss in more than 20 %. See
    :func:`~activelabel.evaluation.statistics.hierarchical_difference` for one that keeps its level.

    Parameters
    ----------
    a, b: see :func:`~activelabel.evaluation.statistics.seed_task_differences`.
    level: of the interval.
    n_boot: resamples.
    seed: of the resamples.

    Raises
    ------
    SettingsError: if tasks or seeds differ, a score is not finite, or ``level`` or ``n_boot`` is out of range.
    """
    _check(level, n_boot)
    found, _ = seed_task_differences(a, b)
    low, high = _percentiles(resampled_means(found, n_boot, seed), level) if found.shape[1] > 1 else (math.nan,) * 2
    return Interval(float(found.mean()), low, high, found.shape[1])


# -- robust aggregates (Agarwal et al. 2021) -----------------------------------------------------------------------


def iqm(scores: FloatArray) -> FloatArray:
    """Return the interquartile mean of all runs and tasks, ``(...)`` of ``(..., S, T)``.

    The mean of what is left when ``int(n / 4)`` values at either end are cut off (Agarwal et al. 2021, §4.3).
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    found: FloatArray = flat[..., cut : flat.shape[-1] - cut].mean(-1)
    return found


def optimality_gap(scores: FloatArray, gamma: float = 1.0) -> FloatArray:
    """Return by how much scores fall short of ``gamma`` in the mean, ``(...)`` of ``(..., S, T)``.

    A score above ``gamma`` falls short by 0 (Agarwal et al. 2021, §4.3).
    """
    found: FloatArray = gamma - np.minimum(scores, gamma).mean((-2, -1))
    return found


def probability_of_improvement(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return how probably a run of a beats one of b on a task, ``(...)`` of ``(..., S, T)`` and ``(..., S', T)``.

    The mean over tasks of the Mann-Whitney statistic over the pairs of runs; a tie counts one half (Agarwal et al.
    2021, §4.3).
    """
    of_pairs = [
        (np.mean(a > b[..., i : i + 1, :], axis=(-2, -1)) + np.mean(a >= b[..., i : i + 1, :], axis=(-2, -1))) / 2
        for i in range(b.shape[-2])
    ]
    found: FloatArray = np.mean(of_pairs, axis=0)
    return found


def stratified_bootstrap(
    statistic: Statistic,
    *scores: ArrayLike,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
    resample_tasks: bool = False,
) -> Interval:
    """Return a statistic with its percentile interval, where the runs of each task are drawn again.

    As rliable 1.2.0: within a task runs are drawn with repeats, for each task and each strategy on its own. It answers
    what other training seeds would have given on the same tasks; few seeds make it too narrow. The runs of each task
    are taken to be trainings of their own; where one training plays all tasks, scores of a row depend on each other and
    the interval is far too narrow: :func:`~activelabel.evaluation.study.aggregates.aggregate` draws whole trainings.

    Parameters
    ----------
    statistic: such as :func:`iqm`, :func:`optimality_gap`, :func:`probability_of_improvement`.
    *scores: ``(seeds, tasks)`` of each strategy that the statistic takes; ``(tasks,)`` is one seed.
    level: of the interval.
    n_boot: resamples.
    seed: of the resamples.
    resample_tasks: draw the tasks again as well, the same for all strategies. Without it, one seed a strategy has
        nothing to draw from: low and high are NaN.

    Raises
    ------
    SettingsError: if the tasks differ, a score is not finite, or ``level`` or ``n_boot`` is out of range.
    """
    _check(level, n_boot)
    arrays = [np.atleast_2d(np.asarray(array, dtype=np.float64)) for array in scores]
    shapes = ", ".join(str(array.shape) for array in arrays)
    if not arrays or any(x.ndim != 2 or not x.size for x in arrays) or len({x.shape[1] for x in arrays}) > 1:
        raise SettingsError(f"scores must be (seeds, tasks) of the same tasks, got {shapes or 'none'}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise SettingsError(f"scores must be finite; some of {shapes} are not.")
    point, n_tasks = float(statistic(*arrays)), arrays[0].shape[1]
    if all(len(array) == 1 for array in arrays) and (not resample_tasks or n_tasks == 1):
        return Interval(point, math.nan, math.nan, n_tasks)
    rng = stream(seed, "stratified bootstrap")
    chunk = max(1, _NUMBERS // max(array.size for array in arrays))
    draws = []
    for start in range(0, n_boot, chunk):
        n = min(chunk, n_boot - start)
        tasks = rng.integers(n_tasks, size=(n, 1, n_tasks)) if resample_tasks else np.arange(n_tasks)
        drawn = [array[rng.integers(len(array), size=(n, *array.shape)), tasks] for array in arrays]
        draws.append(statistic(*drawn))
    low, high = _percentiles(np.concatenate(draws), level)
    return Interval(point, low, high, n_tasks)


# -- labels saved --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelsSaved:
    """How many labels b needs to reach what a has with n.

    Parameters
    ----------
    at: n.
    reached: the mean curve of a there.
    needed: labels of b; NaN where its mean curve does not reach it within the budget.
    low, high: of the interval of ``needed``; NaN where that end is beyond the budget, or there is one episode.
    budget: the last label of the curves.
    not_reached: share of resamples in which b does not reach it; NaN with one episode.
    n: episodes.
    level: of the interval.
    """

    at: float
    reached: float
    needed: float
    low: float
    high: float
    budget: int
    not_reached: float
    n: int
    level: float

    @property
    def saved(self) -> float:
        """Labels that a saves beside b; negative where it costs more, NaN where b does not get there."""
        return self.needed - self.at

    def line(self, a: str, b: str) -> str:
        """Return it in words."""
        goal = f"what {a} has with {self.at:g} labels ({self.reached:.3f})"
        ends = " to ".join(f"over {self.budget}" if math.isnan(x) else f"{x:.0f}" for x in (self.low, self.high))
        interval = f" ({self.level * 100:g} % interval {ends}; {self.n} tasks)" if self.n > 1 else " (one task)"
        if math.isnan(self.needed):
            return f"{b} does not reach {goal} with {self.budget} labels{interval}"
        return f"{b} needs {self.needed:.0f} labels for {goal}{interval}"


def labels_saved(
    labels: IntArray,
    curve_a: ArrayLike,
    curve_b: ArrayLike,
    at: float | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> LabelsSaved:
    """Return how many labels b needs to reach what a has with ``at`` labels.

    Mean curves over episodes, linear between labels; b reaches the value where its mean curve first does. Where curves
    go up and down that is early, in b's favour. The interval is that of percentiles over resampled episodes, the same
    for both; it says nothing of other training seeds.

    Parameters
    ----------
    labels: ``(T + 1,)``, increasing, as in :class:`~activelabel.evaluation.episodes.Curves`.
    curve_a, curve_b: ``(E, T + 1)`` of the same episodes.
    at: labels of a; by default the last.
    level: of the interval.
    n_boot: resamples.
    seed: of the resamples.

    Raises
    ------
    SettingsError: if shapes do not fit, values are not finite, ``at`` is beyond the curves, or ``level`` or ``n_boot``
        is out of range.
    """
    _check(level, n_boot)
    x = np.asarray(labels, dtype=np.float64)
    a, b = np.asarray(curve_a, dtype=np.float64), np.asarray(curve_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or not len(a) or a.shape[1:] != x.shape or np.any(np.diff(x) <= 0):
        raise SettingsError(
            f"curves must be (episodes, labels) of the same episodes over increasing labels, "
            f"got {a.shape} and {b.shape} over {x.shape}."
        )
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise SettingsError("curves must be finite.")
    at = float(x[-1]) if at is None else float(at)
    if not x[0] <= at <= x[-1]:
        raise SettingsError(f"at={at:g} labels is outside the curves' {x[0]:g} to {x[-1]:g}.")
    goal, needed = _needed(x, a.mean(0)[None], b.mean(0)[None], at)
    n = len(a)
    low = high = not_reached = math.nan
    if n > 1:
        drawn = stream(seed, "labels saved").multinomial(n, np.full(n, 1 / n), size=n_boot) / n
        _, draws = _needed(x, drawn @ a, drawn @ b, at)
        ends = [0.5 - level / 2, 0.5 + level / 2]
        # Beyond the budget sorts last; no interpolation, which infinity would spoil.
        found = np.quantile(np.where(np.isnan(draws), np.inf, draws), ends, method="inverted_cdf")
        low, high = (float(end) if np.isfinite(end) else math.nan for end in found)
        not_reached = float(np.isnan(draws).mean())
    return LabelsSaved(at, float(goal[0]), float(needed[0]), low, high, int(x[-1]), not_reached, n, level)


def _needed(x: FloatArray, a: FloatArray, b: FloatArray, at: float) -> tuple[FloatArray, FloatArray]:
    """Return the values of curves a ``(B, T + 1)`` at ``at``, and the labels with which curves b first have them."""
    i = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    weight = (at - x[i - 1]) / (x[i] - x[i - 1])
    goal = a[:, i - 1] * (1 - weight) + a[:, i] * weight
    reached = b >= goal[:, None]
    first = reached.argmax(1)
    after = np.maximum(first, 1)
    rows = np.arange(len(b))
    y0, y1 = b[rows, after - 1], b[rows, after]
    # No rise where it is there from the start, or never; neither is interpolated.
    rise = np.where(y1 > y0, y1 - y0, 1.0)
    between = x[after - 1] + (goal - y0) / rise * (x[after] - x[after - 1])
    found: FloatArray = np.where(first > 0, between, np.where(reached[:, 0], x[0], np.nan))
    return goal, found
