"""Whether a pool is like those that a selector was trained on: Hotelling's test of its mean.

What a selector learned of its conditions can do harm on others, and a pool shows whether it is of one of them before
any image is labelled: the mean of its images is where the pools of that condition have theirs, or it is not. With W
what whitens the images of the training in their q leading principal components, m the mean of a pool of N images, and
m_c that of the training pools of condition c::

    T(pool) = min over c of  N |W (m - m_c)|^2 / q

Of a pool of one of these conditions it is about 1 (N |W (m - m_c)|^2 is Hotelling's T-squared for a known covariance,
and has q degrees of freedom; Hotelling 1931), whatever N and the data; how much larger it gets on images that were not
trained on is found out on validation images. Labels have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.errors import DataError, SettingsError
from activelabel.principal import principal_axes

COMPONENTS = 32
"""Principal components in which pools are compared, at most."""


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Which pools a selector is to judge; see the module.

    Parameters
    ----------
    centre: float32 ``(d,)``, the mean of the images of the training.
    whitening: float32 ``(d, q)``; of images less ``centre``, their product with it has the unit covariance.
    means: float32 ``(C, q)``, where the mean of the training pools of each condition is then.
    limit: above which T a pool is none of these.

    Raises
    ------
    ValueError: if the arrays do not fit together, or a number is not finite.
    """

    centre: NDArray[np.float32]
    whitening: NDArray[np.float32]
    means: NDArray[np.float32]
    limit: float

    def __post_init__(self) -> None:
        d, q = self.whitening.shape
        if self.centre.shape != (d,) or self.means.shape[1:] != (q,) or not len(self.means) or not q:
            raise ValueError(f"shapes {self.centre.shape}, {(d, q)} and {self.means.shape} do not fit together")
        if not all(np.isfinite(value).all() for value in asdict(self).values()):
            raise ValueError("a number is not finite")

    @classmethod
    def fit(cls, images: NDArray[np.float32], means: NDArray[np.float32]) -> Familiarity:
        """Return what tells the pools of some conditions from others; its limit is 0 until :meth:`limited` sets it.

        Parameters
        ----------
        images: float32 ``(n, d)``, those of the training, at least two different ones.
        means: float32 ``(C, d)``, the mean image of the training pools of each condition.

        Raises
        ------
        DataError: if the images are all the same.
        """
        centre = images.mean(axis=0, dtype=np.float64)
        axes, deviations = principal_axes(images - centre, COMPONENTS)
        if not len(axes):
            raise DataError(
                f"all {len(images)} images of the training have the same features; there is nothing to learn."
            )
        whitening = (axes / deviations[:, None]).T
        places = (means - centre) @ whitening
        return cls(centre.astype(np.float32), whitening.astype(np.float32), places.astype(np.float32), 0.0)

    def limited(self, limit: float) -> Familiarity:
        """Return it with another limit."""
        return replace(self, limit=float(limit))

    def statistic(self, pools: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return T ``(B,)`` of pools ``(B, N, d)``.

        Raises
        ------
        SettingsError: if the images have another number of features.
        """
        return self.statistic_of_means(pools.mean(axis=1, dtype=np.float64), pools.shape[1])

    def statistic_of_means(self, means: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """Return :meth:`statistic` of pools of ``n`` images by their means ``(B, d)``."""
        if means.shape[-1] != len(self.centre):
            raise SettingsError(
                f"pools are compared with images of {len(self.centre)} numbers; these have {means.shape[-1]}."
            )
        places = (means - self.centre) @ self.whitening.astype(np.float64)
        squares = np.square(places[:, None] - self.means.astype(np.float64)).sum(axis=-1)
        found: NDArray[np.float64] = squares.min(axis=1) * n / self.means.shape[1]
        return found

    def familiar(self, pools: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return for pools ``(B, N, d)`` whether T is within the limit, ``(B,)``."""
        within: NDArray[np.bool_] = self.statistic(pools) <= self.limit
        return within

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.float64]]:
        """Return everything as arrays by name, from which :meth:`of_arrays` makes it again."""
        return {**asdict(self), "limit": np.array(self.limit, dtype=np.float64)}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any]) -> Familiarity:
        """Return what :meth:`arrays` described.

        Raises
        ------
        KeyError, TypeError, ValueError: if they describe none.
        """
        centre, whitening, means = (np.asarray(arrays[name], np.float32) for name in ("centre", "whitening", "means"))
        return cls(centre, whitening, means, float(arrays["limit"]))


def condition_means(means: NDArray[np.float32], conditions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean ``(C, d)`` over the pools of each condition, in the order of the conditions' numbers.

    Parameters
    ----------
    means: ``(B, d)``, the mean image of each pool.
    conditions: ``(B,)``, the condition of each.
    """
    numbers = np.asarray(conditions)
    found = [means[numbers == number].mean(axis=0, dtype=np.float64) for number in np.unique(numbers)]
    return np.stack(found).astype(np.float32)
