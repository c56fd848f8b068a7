"""Clustering (MedSelect §3.4): the medoids of K clusters of the pool are labelled.

The distances of all pairs of a pool of 10,000 images take 800 MB. A larger pool is clustered as CLARA does (Kaufman and
Rousseeuw 1990), with larger samples: the medoids of each of several random samples are found as if it were the whole
pool, and those are taken whose loss, the sum of the distances of *all* images to their nearest medoid, is least.
``python -m benchmarks.baselines`` measures what that costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.baselines.base import Baseline
from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError, unknown
from activelabel.seeding import stream

BACKENDS = ("fasterpam", "sklearn-extra")

SAMPLES = 5
"""Random samples of a pool that is too large for the distances of all pairs."""

SAMPLED = 2000
"""Images in such a sample; more where K is above a tenth of them."""


class KMedoids(Baseline):
    """Chooses the K medoids of the pool in Euclidean distance.

    Parameters
    ----------
    k, seed: see :class:`Baseline`; the seed starts the search.
    backend: ``"fasterpam"`` (Schubert and Rousseeuw 2021, the ``kmedoids`` package), or ``"sklearn-extra"``
        (scikit-learn-extra's default, an alternating search that ends at a higher loss; needs the extra
        ``sklearn-extra``).
    max_iter: of the search.
    limit: largest pool whose medoids are looked for among all pairs of its images; the medoids of a larger one are
        those of the best of 5 samples of 2000 of its images, or 10 K if that is more.

    Raises
    ------
    SettingsError: if the backend is unknown or ``limit`` below 1.
    """

    name = "kmedoids"

    def __init__(
        self, k: int = 10, seed: int = 0, backend: str = "fasterpam", max_iter: int = 300, limit: int = 10_000
    ) -> None:
        super().__init__(k, seed)
        if limit < 1:
            raise SettingsError(f"limit={limit} must be at least 1.")
        if backend not in BACKENDS:
            raise SettingsError(unknown("K-Medoids backend", backend, BACKENDS))
        self.backend = backend
        self.max_iter = max_iter
        self.limit = limit

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`; the distances are computed once for all K."""
        if len(pool) > self.limit:
            return {k: self._sampled(pool, k) for k in ks}
        distances = pair_distances(pool)
        return {k: self._medoids(distances, k) for k in ks}

    def _sampled(self, pool: NDArray[np.float32], k: int) -> IntArray:
        """Return the medoids of the best of several samples of the pool."""
        size = min(len(pool), max(SAMPLED, 10 * k))
        best, least = np.arange(0), np.inf
        for turn in range(SAMPLES):
            rows = np.sort(stream(self.seed, self.name, "sample", turn).choice(len(pool), size, replace=False))
            medoids = rows[self._medoids(pair_distances(pool[rows]), k)]
            loss = total_distance(pool, medoids)
            if loss < least:
                best, least = medoids, loss
        return best

    def _medoids(self, distances: NDArray[np.float64], k: int) -> IntArray:
        if k == len(distances):
            return np.arange(k)
        if self.backend == "sklearn-extra":
            return self._alternating(distances, k)
        import kmedoids  # late: it imports half of scikit-learn

        # Both arguments matter: otherwise the search is seeded from numpy's global generator and, from 1000 points on,
        # runs on several threads whose order of swaps is not fixed.
        found = kmedoids.fasterpam(distances, k, max_iter=self.max_iter, init="random", random_state=self.seed, n_cpu=1)
        return np.asarray(found.medoids, dtype=np.int64)

    def _alternating(self, distances: NDArray[np.float64], k: int) -> IntArray:
        model = import_sklearn_extra()(k, metric="precomputed", max_iter=self.max_iter, random_state=self.seed).fit(
            distances
        )
        return np.asarray(model.medoid_indices_, dtype=np.int64)


class CosineKMedoids(KMedoids):
    """Chooses the K medoids of the images scaled to unit length: near is what has a high cosine.

    That is how the prototype predictor of ``SelectiveLabel-v0`` judges. Images that are all zero stay so.
    """

    name = "kmedoids-cosine"

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`."""
        return super().choose(unit(pool), clinical, ks)


def unit(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return points ``(n, d)`` scaled to length 1, float32; zeros stay zero."""
    lengths = np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (points / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return scaled


def pair_distances(points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the Euclidean distances ``(n, n)`` of points ``(n, d)``."""
    double = torch.from_numpy(np.array(points, dtype=np.float64))
    distances: NDArray[np.float64] = torch.cdist(double, double).numpy()
    return distances


def total_distance(pool: NDArray[np.float32], medoids: IntArray, chunk: int = 10_000) -> float:
    """Return the sum of the distances of all images of a pool ``(N, d)`` to the nearest of its ``medoids`` ``(K,)``.

    Images are taken ``chunk`` at a time, so that a memory-mapped pool is never in memory as a whole.
    """
    centres = torch.from_numpy(np.array(pool[medoids], dtype=np.float32))
    total = 0.0
    for start in range(0, len(pool), chunk):
        part = torch.from_numpy(np.array(pool[start : start + chunk], dtype=np.float32))
        total += float(torch.cdist(part, centres).amin(dim=1).double().sum())
    return total


def import_sklearn_extra() -> Any:
    """Return scikit-learn-extra's ``KMedoids`` class.

    Raises
    ------
    SettingsError: if it is not installed, or was built for another numpy.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compares versions with distutils
            from sklearn_extra.cluster import KMedoids as Alternating
    except (ImportError, ValueError) as error:  # ValueError: compiled for numpy 1, imported under numpy 2
        raise SettingsError(
            f"the K-Medoids backend 'sklearn-extra' cannot be imported ({error}); it needs numpy 1: "
            'pip install "activelabel[sklearn-extra]" in an environment of its own.'
        ) from None
    return Alternating
