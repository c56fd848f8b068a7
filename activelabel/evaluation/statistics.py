"""Means, paired differences, their confidence intervals over tasks and training seeds, and what they show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from activelabel.errors import SettingsError

FloatArray = NDArray[np.float64]

MOST_TASKS = 10**6
"""More tasks than these are not asked for."""

MOST_SEEDS = 1000
"""More training seeds than these are not asked for."""


@dataclass(frozen=True)
class Interval:
    """A mean, or another statistic, with its confidence interval.

    Parameters
    ----------
    mean, low, high: in the unit of the values; ``low`` and ``high`` are NaN where the values do not tell.
    n: how many values or tasks.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean and Student's t interval of independent values.

    Raises
    ------
    SettingsError: if there are no values, or some are not finite.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if not array.size or not np.isfinite(array).all():
        raise SettingsError(
            f"an interval needs finite values, got {array.size} of which {np.isfinite(array).sum()} finite."
        )
    mean, n = float(array.mean()), array.size
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * array.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of ``a - b`` over tasks that both played, with its interval.

    Raises
    ------
    SettingsError: if the two do not have one value for each task.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise SettingsError(f"a paired comparison needs the same tasks, got {a.shape} and {b.shape}.")
    return mean_interval(a - b, level)


def verdict(difference: Interval) -> str:
    """Say what an interval of ``a - b`` shows: ``"better"``, ``"worse"`` or ``"not distinguishable"``."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"


# -- tasks and training seeds --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """Where the variance of one difference (one seed, one task) comes from.

    Parameters
    ----------
    seed: of what a training seed does on all tasks; NaN where there is one seed.
    task: of what a task does with all seeds; where there is one seed, all of the variance.
    noise: the rest; 0 where there is one seed.
    """

    seed: float
    task: float
    noise: float


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of ``a - b`` over training seeds and tasks, with its interval.

    Parameters
    ----------
    mean, low, high: in the unit of the scores.
    n: tasks.
    seeds: training seeds; with 1 the interval holds for that training seed alone, 0 says that neither was trained.
    level: of the interval.
    components: of the variance.
    """

    seeds: int
    level: float
    components: Components = field(repr=False)

    @property
    def holds_for(self) -> str:
        """What the interval holds for, in words."""
        if self.seeds == 0:
            return f"{self.n} tasks"
        if self.seeds == 1:
            return f"{self.n} tasks, for this training seed alone"
        return f"{self.n} tasks, {self.seeds} training seeds"


def seed_task_differences(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, int]:
    """Return ``a - b``, float64 ``(S, T)``, and how many training seeds are behind it.

    Parameters
    ----------
    a, b: scores ``(seeds, tasks)``, row s of both of the same seed, or ``(tasks,)`` of a strategy that is not trained.
        One row is compared with every row of the other.

    Raises
    ------
    SettingsError: if tasks or seeds differ, or a score is not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    trained = max(array.shape[0] if array.ndim == 2 else 0 for array in (a, b))
    two = np.atleast_2d(a), np.atleast_2d(b)
    rows = {len(array) for array in two} - {1}
    if any(array.ndim != 2 or not array.size for array in two) or two[0].shape[1] != two[1].shape[1] or len(rows) > 1:
        raise SettingsError(
            f"scores must be (seeds, tasks) of the same tasks and seeds, or one row, got {a.shape} and {b.shape}."
        )
    found: FloatArray = two[0] - two[1]
    if not np.isfinite(found).all():
        raise SettingsError(
            f"scores must be finite; {(~np.isfinite(found)).sum()} of {found.size} differences are not."
        )
    return found, trained


def crossed_intervals(differences: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return means and half widths of intervals over seeds and tasks that are both drawn at random.

    The model is that of a two-way layout without replicates, ``d = mean + seed + task + noise`` (Searle, Casella and
    McCulloch 1992, Variance Components, ch. 4). With the mean squares MS of its analysis of variance the variance of
    the mean is ``(MS_seed + MS_task - MS_noise) / (S T)``. Three seeds tell little of it: Satterthwaite's degrees of
    freedom count the tasks' as well where MS_seed is small by chance, and the interval misses too often just there.
    Here each part has Student's quantile of its own::

        half^2 = (t^2_{S-1} A + t^2_{T-1} B) / (S T),    and at least    t^2_{T-1} MS_task / (S T)
        A = max(MS_seed - c MS_noise, 0)
        B = MS_task - (1 - c) MS_noise                   with MS_task at least MS_noise
        c = median of chi^2_{S-1} / (S - 1)

    so that A is what MS_seed has above the noise in it, which is c MS_noise in half of all studies. Both limits, no
    seed effect beside large task effects and nothing but seed effects, are Student's t exactly.
    Measured (``python -m benchmarks.coverage``): 95 % intervals of 3, 5 and 10 seeds and 50 and 200 tasks miss in 3 to
    6 %, also with heavy tails. With 3 seeds it is 2 to 8 % over all shares of the components, most where there are seed
    effects and noise but no task effects; two seeds miss in up to 10 % there. Strongly skewed seed effects: up to 12 %.

    Parameters
    ----------
    differences: float64 ``(..., S, T)``, S and T at least 2.
    level: of the intervals.

    Returns
    -------
    Two of float64 ``(...)``.
    """
    n_seeds, n_tasks = differences.shape[-2:]
    half = _half_width(_mean_squares(differences), n_seeds, n_tasks, level)
    return differences.mean((-2, -1)), half


def _mean_squares(d: FloatArray) -> FloatArray:
    """Return MS of seeds, tasks and noise, ``(3, ...)``, of ``(..., S, T)``."""
    n_seeds, n_tasks = d.shape[-2:]
    d = d - d.mean((-2, -1), keepdims=True)
    by_seed, by_task = d.mean(-1, keepdims=True), d.mean(-2, keepdims=True)
    rest = ((d - by_seed - by_task) ** 2).sum((-2, -1)) / ((n_seeds - 1) * (n_tasks - 1))
    seed = n_tasks * (by_seed**2).sum((-2, -1)) / (n_seeds - 1)
    task = n_seeds * (by_task**2).sum((-2, -1)) / (n_tasks - 1)
    return np.stack([seed, task, rest])


def _half_width(squares: FloatArray, n_seeds: int, n_tasks: int, level: float) -> FloatArray:
    """Return the half widths that :func:`crossed_intervals` defines, of mean squares ``(3, ...)``."""
    seed, task, noise = squares
    of_seeds, of_tasks = (float(special.stdtrit(n - 1, 0.5 + level / 2)) for n in (n_seeds, n_tasks))
    share = 2 * float(special.gammaincinv((n_seeds - 1) / 2, 0.5)) / (n_seeds - 1)  # the median of chi^2 by its freedom
    task = np.maximum(task, noise)
    above = of_seeds**2 * np.maximum(seed - share * noise, 0) + of_tasks**2 * (task - (1 - share) * noise)
    half: FloatArray = np.sqrt(np.maximum(above, of_tasks**2 * task) / (n_seeds * n_tasks))
    return half


def hierarchical_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Difference:
    """Return the mean of ``a - b``, paired over tasks and training seeds, with its interval.

    That of :func:`crossed_intervals`: for new tasks of the same kind and for new training seeds. With one seed it is
    :func:`paired_difference` and holds for that training alone; with one task there is no interval (NaN).

    Parameters
    ----------
    a, b: see :func:`seed_task_differences`.
    level: of the interval.

    Raises
    ------
    SettingsError: if tasks or seeds differ, or a score is not finite.
    """
    found, trained = seed_task_differences(a, b)
    n_seeds, n_tasks = found.shape
    if n_seeds == 1 or n_tasks == 1:
        one = mean_interval(found[0], level) if n_seeds == 1 else Interval(float(found.mean()), math.nan, math.nan, 1)
        variance = float(found[0].var(ddof=1)) if n_tasks > 1 else math.nan
        parts = Components(math.nan, variance, 0.0)
        return Difference(one.mean, one.low, one.high, n_tasks, trained, level, parts)
    seed, task, noise = (float(x) for x in _mean_squares(found))
    parts = Components(max(seed - noise, 0.0) / n_tasks, max(task - noise, 0.0) / n_seeds, noise)
    mean, half = (float(x) for x in crossed_intervals(found, level))
    return Difference(mean, mean - half, mean + half, n_tasks, trained, level, parts)


# -- verdicts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a comparison of two strategies shows, and what it would take to settle it.

    Parameters
    ----------
    says: of a: ``"better"``, ``"worse"`` or ``"not distinguishable"``.
    difference: of a and b.
    tasks, seeds: how many would settle it together, if the true difference and the components of the variance are the
        observed ones: a new study of that size has an interval without 0 with probability ``power``. None where it is
        settled already, where nothing up to :data:`MOST_TASKS` and :data:`MOST_SEEDS` would do, and where one task
        says nothing of others.
    power: see ``tasks``.
    """

    says: str
    difference: Difference
    tasks: int | None
    seeds: int | None
    power: float

    @property
    def limited_by_seeds(self) -> bool:
        """Whether more tasks cannot settle it with the training seeds that there are."""
        return self.seeds is not None and self.seeds > max(self.difference.seeds, 1)

    def line(self, a: str, b: str) -> str:
        """Return it in words."""
        d = self.difference
        if math.isnan(d.low):
            return f"{a} against {b}: {d.mean:+.4f} on one task, which says nothing of others."
        figures = f"{d.mean:+.4f} ({d.level * 100:g} % interval {d.low:+.4f} to {d.high:+.4f}; {d.holds_for})"
        if self.says != "not distinguishable":
            return f"{a} is {self.says} than {b}: {figures}."
        return f"{a} and {b} are not distinguishable at this budget: {figures}; {self.needs()}."

    def needs(self) -> str:
        """Return in words what would settle it."""
        d = self.difference
        if self.says != "not distinguishable":
            return "settled"
        if self.tasks is None:
            return "no feasible number of tasks and training seeds would settle so small a difference"
        if not self.limited_by_seeds:
            return f"a difference of this size would take {self.tasks} tasks"
        more = f"{self.seeds} training seeds"
        where = "" if self.tasks == d.n else f" and {self.tasks} tasks"
        return f"more tasks alone cannot settle it, a difference of this size would take {more}{where}"


def judge(difference: Difference, power: float = 0.8) -> Verdict:
    """Say whether a is better or worse than b or not distinguishable, and how much more would settle it.

    First more tasks are tried with the seeds that there are; where the seeds' variance alone is too large for that,
    more seeds with these tasks or two, four, ... times as many, whichever has the fewest pairs of seed and task. The
    probability that an interval excludes 0 is that of a noncentral t variable with Satterthwaite's degrees of freedom
    (1946, Biometrics Bulletin 2(6)); for one seed it is the usual power of the paired t test.

    Raises
    ------
    SettingsError: if the power is not between 0 and 1.
    """
    if not 0 < power < 1:
        raise SettingsError(f"power {power} must be between 0 and 1.")
    says = verdict(difference)
    size = _settling(difference, power) if says == "not distinguishable" else None
    seeds, tasks = (None, None) if size is None else size
    return Verdict(says, difference, tasks, seeds, power)


def _settling(d: Difference, power: float) -> tuple[int, int] | None:
    """Return the seeds (as many as there are, where they suffice) and tasks that settle a difference."""
    if d.mean == 0 or math.isnan(d.low):
        return None

    def enough(seeds: int, tasks: int) -> bool:
        return _power(d, seeds, tasks) >= power

    present = max(d.seeds, 1)
    if enough(present, MOST_TASKS):
        return d.seeds, _smallest(partial(enough, present), d.n, MOST_TASKS)
    if present == 1:
        return None
    doubled = [tasks for tasks in (d.n << i for i in range(MOST_TASKS.bit_length())) if tasks <= MOST_TASKS]
    sizes = [
        (_smallest(partial(enough, tasks=tasks), present, MOST_SEEDS), tasks)
        for tasks in doubled
        if enough(MOST_SEEDS, tasks)
    ]
    return min(sizes, key=lambda size: size[0] * size[1], default=None)


def _smallest(enough: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest number above ``low`` and up to ``high`` that is enough, where ``high`` is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _power(d: Difference, seeds: int, tasks: int) -> float:
    """Return how probably the interval of a study of that size excludes 0, if the mean and components are the truth."""
    parts = d.components
    if seeds == 1:
        variance, freedom = parts.task / tasks, float(tasks - 1)
        half = float(special.stdtrit(tasks - 1, 0.5 + d.level / 2)) * math.sqrt(variance)
    else:
        seed, task = parts.noise + tasks * parts.seed, parts.noise + seeds * parts.task
        squares = np.array([seed, task, parts.noise])
        half = float(_half_width(squares, seeds, tasks, d.level))
        total = seed + task - parts.noise
        variance = total / (seeds * tasks)
        uncertain = float((squares**2 / (seeds - 1, tasks - 1, (seeds - 1) * (tasks - 1))).sum())
        freedom = total**2 / uncertain if uncertain else math.inf
    if variance == 0:
        return 1.0
    error = math.sqrt(variance)
    return 1 - float(special.nctdtr(min(freedom, 1e6), abs(d.mean) / error, half / error))
