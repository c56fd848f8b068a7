"""Where classifiers of features work: the cohort's features, scaled and projected as they are asked for."""

from __future__ import annotations

import numpy as np

from activelabel.data import Cohort, Standardizer
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.derived import blocks, by_rows, derived, taken
from activelabel.errors import SettingsError


class LatentSpace:
    """Features of a cohort in data space and in latent space: standardised; and with ``components`` projected, scaled
    to unit mean squared norm on the training part.

    Rows are computed when they are taken: a cohort that lies on disk stays there. Only principal components, which are
    few, are held of all images.

    Parameters
    ----------
    cohort: with features.
    train: int64, the rows that everything is fitted on.
    standardize: whether to shift and scale with their mean and deviation.
    components: how many principal components make the latent space; None keeps all features.

    Raises
    ------
    DataError: if the cohort lacks features.
    SettingsError: if there are fewer features or training images than components.
    """

    def __init__(self, cohort: Cohort, train: IntArray, standardize: bool, components: int | None) -> None:
        self.cohort, self.train, self.components = cohort, train, components
        self.dim = cohort.embedded().shape[1]
        self.standardizer = Standardizer.fit(cohort, train) if standardize else None
        self._projected = None if components is None else self._project(components)
        squares = [(self._unscaled(train[block]).astype(np.float64) ** 2).sum(axis=1) for block in blocks(len(train))]
        self.size = np.float32(float(np.sqrt(np.concatenate(squares).mean())) or 1)

    def _project(self, components: int) -> FloatArray:
        if components > min(self.dim, len(self.train)):
            raise SettingsError(
                f"components={components} exceed the {self.dim} features or the {len(self.train)} training images."
            )
        from sklearn.decomposition import PCA
        from threadpoolctl import threadpool_limits

        data = self.cohort.embedded()
        if self.standardizer is not None:
            data = self.standardizer.features(data, self.cohort.scratch)
        with threadpool_limits(1):  # the last digits would depend on the number of cores
            model = PCA(components, svd_solver="covariance_eigh").fit(data[self.train])
            projected: FloatArray = model.transform(data).astype(np.float32)
        return projected

    def data(self, rows: IntArray) -> FloatArray:
        """Return features in data space, float32 ``(n, dim)``."""
        found = taken(self.cohort.embedded(), rows)
        return found if self.standardizer is None else self.standardizer.scaled(found)

    def _unscaled(self, rows: IntArray) -> FloatArray:
        return self.data(rows) if self._projected is None else self._projected[rows]

    def latent(self, rows: IntArray) -> FloatArray:
        """Return features in latent space, float32 ``(n, components or dim)``."""
        found: FloatArray = self._unscaled(rows) / self.size
        return found

    def part(self, rows: IntArray, space: str) -> FloatArray:
        """Return features of some rows in ``"data"`` or ``"latent"`` space, ``(n, d)``; where the cohort has a folder
        for what follows from its features, they are kept and mapped there, but for components."""
        if space == "latent" and self.components is not None:
            return self.latent(rows)
        path = derived(self.cohort.scratch, space, self.standardizer is not None, self.train, self.size, rows)
        return by_rows(rows, self.dim, self.data if space == "data" else self.latent, path)
