"""Clustering (MedSelect §3.4): the medoids of K clusters of the pool are labelled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import kmedoids
import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.baselines.base import Baseline
from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError, unknown

BACKENDS = ("fasterpam", "sklearn-extra")


class KMedoids(Baseline):
    """Chooses the K medoids of the pool in Euclidean distance.

    Parameters
    ----------
    k, seed: see :class:`Baseline`; the seed starts the search.
    backend: ``"fasterpam"`` (Schubert and Rousseeuw 2021, the ``kmedoids`` package), or ``"sklearn-extra"``
        (scikit-learn-extra's default, an alternating search that ends at a higher loss; needs the extra
        ``sklearn-extra``).
    max_iter: of the search.
    """

    name = "kmedoids"

    def __init__(self, k: int = 10, seed: int = 0, backend: str = "fasterpam", max_iter: int = 300) -> None:
        super().__init__(k, seed)
        if backend not in BACKENDS:
            raise SettingsError(unknown("K-Medoids backend", backend, BACKENDS))
        self.backend = backend
        self.max_iter = max_iter

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`; the distances are computed once for all K."""
        points = torch.from_numpy(np.array(pool, dtype=np.float64))
        distances = torch.cdist(points, points).numpy()
        return {k: self._medoids(distances, k) for k in ks}

    def _medoids(self, distances: NDArray[np.float64], k: int) -> IntArray:
        if k == len(distances):
            return np.arange(k)
        if self.backend == "sklearn-extra":
            return self._alternating(distances, k)
        # Both arguments matter: otherwise the search is seeded from numpy's global generator and, from 1000 points on,
        # runs on several threads whose order of swaps is not fixed.
        found = kmedoids.fasterpam(distances, k, max_iter=self.max_iter, init="random", random_state=self.seed, n_cpu=1)
        return np.asarray(found.medoids, dtype=np.int64)

    def _alternating(self, distances: NDArray[np.float64], k: int) -> IntArray:
        model = import_sklearn_extra()(k, metric="precomputed", max_iter=self.max_iter, random_state=self.seed).fit(
            distances
        )
        return np.asarray(model.medoid_indices_, dtype=np.int64)


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
