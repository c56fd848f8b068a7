"""Comparing many strategies at once: Wilcoxon tests with Holm's correction, mean ranks, the critical difference."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # not its stats, which take half a second and are loaded where they are used
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from activelabel.errors import SettingsError
from activelabel.evaluation.report import title
from activelabel.evaluation.statistics import FloatArray


def _table(scores: Mapping[str, ArrayLike], least: int) -> FloatArray:
    """Return scores as ``(strategies, n)``; refuses fewer strategies than ``least``, and unpaired or strange scores."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    if len(arrays) < least:
        raise SettingsError(f"{len(arrays)} strategies ({', '.join(arrays)}); at least {least} are compared.")
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise SettingsError(f"each strategy needs one score on each of the same tasks, got {found}.")
    strange = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if strange:
        raise SettingsError(f"scores must be finite; those of {', '.join(strange)} are not.")
    return np.stack(list(arrays.values()))


# -- all pairs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairTest:
    """Wilcoxon's signed rank test of one pair of strategies, two-sided.

    Parameters
    ----------
    a, b: the strategies.
    difference: mean of ``a - b``.
    n: tasks.
    statistic: the smaller of the two sums of signed ranks.
    p: of this pair alone.
    p_holm: corrected for all pairs by Holm's method.
    """

    a: str
    b: str
    difference: float
    n: int
    statistic: float
    p: float
    p_holm: float

    def says(self, level: float = 0.95) -> str:
        """Say of a: ``"better"``, ``"worse"`` or ``"not distinguishable"`` when all pairs are looked at."""
        if not self.p_holm < 1 - level or self.difference == 0:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"


def holm(p: ArrayLike) -> FloatArray:
    """Return p values corrected by Holm's step-down method (1979, Scandinavian Journal of Statistics 6(2)), ``(m,)``.

    The i-th smallest of m, from 0, becomes the largest of ``(m - j) p_j`` over ``j <= i``, and at most 1.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def wilcoxon_holm(scores: Mapping[str, ArrayLike]) -> list[PairTest]:
    """Test all pairs of strategies on the same tasks.

    ``scipy.stats.wilcoxon`` with its defaults: tasks without a difference are left out. Two strategies that are
    equal on every task have p = 1. The test is about the middle of the differences, not about their mean; where the
    two point in opposite directions, ``difference`` is the mean all the same.

    Parameters
    ----------
    scores: ``(n,)`` by strategy, of the same tasks; with several training seeds the mean over them. The test then
        says nothing of other training seeds.

    Returns
    -------
    One for each pair, in the order of the mapping.

    Raises
    ------
    SettingsError: if there are fewer than two strategies, or scores are not paired or not finite.
    """
    table, names = _table(scores, 2), list(scores)
    pairs = list(itertools.combinations(range(len(names)), 2))
    found = [_wilcoxon(table[i] - table[j]) for i, j in pairs]
    corrected = holm([p for _, p in found])
    return [
        PairTest(names[i], names[j], float((table[i] - table[j]).mean()), table.shape[1], w, p, float(q))
        for (i, j), (w, p), q in zip(pairs, found, corrected, strict=True)
    ]


def _wilcoxon(differences: FloatArray) -> tuple[float, float]:
    rest = differences[differences != 0]
    if not rest.size:
        return 0.0, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # older versions of scipy warn of a normal approximation
        found = scipy.stats.wilcoxon(differences)
    return float(found.statistic), float(found.pvalue)


# -- ranks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of strategies over tasks or data sets; rank 1 is the best.

    Parameters
    ----------
    names: from the best mean rank to the worst.
    ranks: mean ranks in that order.
    n: tasks or data sets.
    statistic, p: of Friedman's test, whose null hypothesis is that all strategies are equal.
    critical: Nemenyi's critical difference of two mean ranks.
    level: of ``critical``.
    cliques: groups of strategies that are not distinguishable, each as large as possible, with two members or more; a
        strategy can be in several.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    n: int
    statistic: float
    p: float
    critical: float
    level: float
    cliques: tuple[tuple[str, ...], ...]


def mean_ranks(scores: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Return the mean rank of each strategy; a higher score has a lower rank, and equal scores share theirs.

    Raises
    ------
    SettingsError: if there are fewer than two strategies, or scores are not paired or not finite.
    """
    ranks = scipy.stats.rankdata(-_table(scores, 2), axis=0).mean(1)
    return {name: float(rank) for name, rank in zip(scores, ranks, strict=True)}


def critical_difference(k: int, n: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of the mean ranks of k strategies on n tasks (Demšar 2006, §3.2.2).

    ``q sqrt(k (k + 1) / (6 n))``, where q is the quantile of the studentised range of k means with infinitely many
    degrees of freedom, divided by the square root of 2.
    """
    if k < 2 or n < 1 or not 0 < level < 1:
        raise SettingsError(f"k={k} must be at least 2, n={n} at least 1, and level={level} between 0 and 1.")
    q = float(scipy.stats.studentized_range.ppf(level, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def rank(scores: Mapping[str, ArrayLike], level: float = 0.95) -> Ranking:
    """Rank strategies on each task, and say which are not distinguishable (Demšar 2006, §3.2).

    Parameters
    ----------
    scores: ``(n,)`` by strategy, of the same tasks or data sets, higher is better; with several training seeds the mean
        over them. Ranks, test and critical difference are then conditional on the training seeds that took part, and
        say nothing of other training seeds.
    level: of the critical difference.

    Raises
    ------
    SettingsError: if there are fewer than three strategies, or scores are not paired or not finite.
    """
    table = _table(scores, 3)
    found = mean_ranks(scores)
    names = sorted(found, key=lambda name: found[name])
    ranks = np.array([found[name] for name in names])
    critical = critical_difference(len(table), table.shape[1], level)
    if (table == table[0]).all():  # scipy would divide by zero
        statistic, p = 0.0, 1.0
    else:
        statistic, p = (float(x) for x in scipy.stats.friedmanchisquare(*table))
    cliques = tuple(tuple(names[i : j + 1]) for i, j in _cliques(ranks, critical))
    return Ranking(tuple(names), tuple(ranks.tolist()), table.shape[1], statistic, p, critical, level, cliques)


def _cliques(ranks: NDArray[np.float64], critical: float) -> list[tuple[int, int]]:
    """Return first and last place of each group whose sorted ranks differ by less than ``critical``."""
    last = np.searchsorted(ranks, ranks + critical, side="left") - 1
    return [(i, int(j)) for i, j in enumerate(last) if j > i and (i == 0 or j > last[i - 1])]


def draw_critical_difference(ranking: Ranking) -> Figure:
    """Draw mean ranks on a line, the best at the left, with a bar over each group that is not distinguishable."""
    k, half = len(ranking.names), -(-len(ranking.names) // 2)
    bars = len(ranking.cliques)
    step, first = 0.32, 0.45 + 0.16 * bars  # inches: between names, and from the axis to the first of them
    height = 1.1 + first + step * half
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes: Any = figure.subplots()
    low, high = 1.0, max(float(k), 1.0 + ranking.critical)
    margin = 0.55 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(first + step * half, -1.0))
    axes.axis("off")
    axes.plot([low, high], [0, 0], color="black", linewidth=1)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [-0.08, 0], color="black", linewidth=1)
        axes.text(tick, -0.14, str(tick), ha="center", va="bottom", fontsize=9)
    axes.plot([low, low + ranking.critical], [-0.62, -0.62], color="black", linewidth=1.5)
    for end in (low, low + ranking.critical):
        axes.plot([end, end], [-0.68, -0.56], color="black", linewidth=1.5)
    text = f"critical difference {ranking.critical:.2f} ({ranking.level * 100:g} %, n = {ranking.n})"
    axes.text(low, -0.74, text, ha="left", va="bottom", fontsize=9)
    for place, (name, value) in enumerate(zip(ranking.names, ranking.ranks, strict=True)):
        left = place < half
        y = first + step * (place if left else k - 1 - place)
        x, align = (low - 0.06 * margin, "right") if left else (high + 0.06 * margin, "left")
        axes.plot([value, value, x], [0, y, y], color="0.35", linewidth=0.9)
        label = f"{title(name)}  {value:.2f}" if left else f"{value:.2f}  {title(name)}"
        axes.text(x, y, f" {label} ", ha=align, va="center", fontsize=9)
    of = dict(zip(ranking.names, ranking.ranks, strict=True))
    for i, clique in enumerate(ranking.cliques):
        y = 0.22 + 0.16 * i
        axes.plot([of[clique[0]] - 0.03, of[clique[-1]] + 0.03], [y, y], color="black", linewidth=3.5)
    return figure
