"""Training tasks that were tried: pseudo-conditions, and mixtures of classes as negatives.

Both draw on images that no task of the training has otherwise. None of them has a condition that is held out or left
out, so these stay as new to the selector as they are in every other training.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.diverse import clusters
from activelabel.data import TaskSampler
from activelabel.data.cohort import IntArray
from activelabel.envs import SelectiveLabelEngine
from activelabel.errors import DataError
from activelabel.seeding import stream

CLUSTERS = 20
"""Of k-means, whose unions are pseudo-conditions."""

PSEUDO_SHARE = 0.5
"""Share of the tasks that have a pseudo-condition."""

OTHERS_SHARE = 0.5
"""Share of the negatives that are no normal images."""

Drawn = tuple[np.int64, IntArray, NDArray[np.bool_], IntArray, NDArray[np.bool_]]
"""Condition, pool, its labels, query set, its labels."""


def allowed(engine: SelectiveLabelEngine) -> IntArray:
    """Return the rows of the training part without any condition that is held out or left out, sure or uncertain."""
    rows, cohort = engine.splits.train, engine.cohort
    kept = np.ones(len(rows), dtype=bool)
    for name in engine.settings.held_out:  # of an engine that trains what is left out is among them
        label = cohort.labels[rows, cohort.class_index(name)]
        kept &= (label != 1) & (label != -1)
    found: IntArray = rows[kept]
    return found


class ChangedTasks(TaskSampler):
    """The tasks of an engine's sampler, some of whose images are others; task ``i`` depends on nothing but ``i``.

    Parameters
    ----------
    engine: that trains; its own sampler stays as it is.
    """

    def __init__(self, engine: SelectiveLabelEngine) -> None:
        vars(self).update(vars(engine.sampler))
        self.rows = allowed(engine)

    def _draw(self, index: int) -> Drawn:
        condition, pool, pool_labels, query, query_labels = super()._draw(index)
        images, labels = np.concatenate([pool, query]), np.concatenate([pool_labels, query_labels])
        condition = self._change(stream(self.seed, type(self).__name__, index), condition, images, labels)
        return condition, images[: len(pool)], pool_labels, images[len(pool) :], query_labels

    @abstractmethod
    def _change(
        self, rng: np.random.Generator, condition: np.int64, images: IntArray, labels: NDArray[np.bool_]
    ) -> np.int64:
        """Put other rows of the cohort into ``images``, none twice, and return the condition."""


class PseudoConditions(ChangedTasks):
    """Half of the tasks have a union of k-means clusters for a condition.

    The allowed training images (:func:`allowed`) are clustered as they are standardised, normal ones among them and
    without a look at their labels. Clusters are added in random order until there are enough positives; a cluster is
    passed over that would leave too few normal images outside of the union, of which the negatives are drawn. The
    class that stands for such a condition is the normal one.

    Parameters
    ----------
    engine: see :class:`ChangedTasks`.
    """

    def __init__(self, engine: SelectiveLabelEngine) -> None:
        super().__init__(engine)
        normal = engine.cohort.normal
        assert normal is not None
        self._normal = normal
        features = engine.features.cpu().numpy()[self.rows]
        self._cluster = clusters(features, min(CLUSTERS, len(self.rows)), seed=self.seed)
        self._is_normal: NDArray[np.bool_] = engine.cohort.labels[self.rows, normal] == 1

    def _change(
        self, rng: np.random.Generator, condition: np.int64, images: IntArray, labels: NDArray[np.bool_]
    ) -> np.int64:
        if rng.random() >= PSEUDO_SHARE:
            return condition
        positives = int(labels.sum())
        inside = self._union(rng, positives, len(labels) - positives)
        images[labels] = rng.choice(self.rows[inside], positives, replace=False)
        images[~labels] = rng.choice(self.rows[self._is_normal & ~inside], len(labels) - positives, replace=False)
        return np.int64(self._normal)

    def _union(self, rng: np.random.Generator, positives: int, negatives: int) -> NDArray[np.bool_]:
        inside = np.zeros(len(self.rows), dtype=bool)
        for number in rng.permutation(self._cluster.max() + 1):
            wider = inside | (self._cluster == number)
            if (self._is_normal & ~wider).sum() >= negatives:
                inside = wider
            if inside.sum() >= positives:
                return inside
        raise DataError(f"no union of clusters leaves {positives} positives and {negatives} normal images.")


class MixedNegatives(ChangedTasks):
    """Half of the negatives, or as many as there are, are images of other classes than the normal one.

    They are allowed training images (:func:`allowed`), neither normal nor of the condition of the task, sure or
    uncertain.

    Parameters
    ----------
    engine: see :class:`ChangedTasks`.
    """

    def _change(
        self, rng: np.random.Generator, condition: np.int64, images: IntArray, labels: NDArray[np.bool_]
    ) -> np.int64:
        known = self.cohort.labels[self.rows]
        others = self.rows[(known[:, self.cohort.normal] != 1) & (known[:, condition] == 0)]
        negative = np.flatnonzero(~labels)
        n = min(round(OTHERS_SHARE * len(negative)), len(others))
        images[rng.choice(negative, n, replace=False)] = rng.choice(others, n, replace=False)
        return condition
