"""Means, paired differences and their confidence intervals over tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from activelabel.errors import SettingsError


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Parameters
    ----------
    mean, low, high: in the unit of the values; ``low`` and ``high`` are NaN for a single value.
    n: how many values.
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
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
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
