"""How far selected images are from each other, and how near the images of a pool are to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from activelabel.data.cohort import IntArray
from activelabel.envs.distances import Geometry, centred


def pairwise(points: ArrayLike) -> NDArray[np.float64]:
    """Return the Euclidean distance of each pair of points ``(n, d)``, float64 ``(n (n - 1) / 2,)``."""
    return np.asarray(pdist(np.asarray(points, dtype=np.float64)), dtype=np.float64)


def mean_and_largest(distances: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and the largest of some distances; NaN where there are none."""
    return (float(distances.mean()), float(distances.max())) if distances.size else (float("nan"), float("nan"))


def structure(points: ArrayLike, selections: Sequence[IntArray]) -> NDArray[np.float64]:
    """Measure selections out of one pool.

    Parameters
    ----------
    points: ``(N, d)``, where the images of the pool are.
    selections: each int64 ``(k,)``, different indices into the pool; k may differ, and be 0.

    Returns
    -------
    float64 ``(len(selections), 3)``: the mean and the largest Euclidean distance between two selected images (NaN under
    two), and the mean distance of the pool's images to the nearest selected one (NaN where none is selected).
    """
    found = np.full((len(selections), 3), np.nan)
    columns = np.unique(np.concatenate(selections))
    if not columns.size:
        return found
    geometry = Geometry.of(centred(torch.from_numpy(np.asarray(points, dtype=np.float64))), "euclidean")
    to_selected = geometry.to(torch.from_numpy(columns)).numpy()
    for i, chosen in enumerate(selections):
        k, own = len(chosen), np.searchsorted(columns, chosen)
        if k > 1:
            among = to_selected[chosen][:, own]  # symmetric, and 0 on the diagonal
            found[i, :2] = among.sum() / (k * (k - 1)), among.max()
        if k:
            found[i, 2] = to_selected[:, own].min(axis=1).mean()
    return found
