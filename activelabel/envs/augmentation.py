"""Task augmentation: training tasks of conditions that are made up from those that there are.

A selector that learns from two conditions learns these two. Meta-learning with few tasks makes more of them (task
augmentation; by interpolation, Yao, Zhang and Finn 2022), and here what a condition is has a simple form: where its
images are, seen from the normal ones, and how they vary. With d_c the mean of the training images of condition c less
that of the normal ones, in coordinates in which images vary within classes with the unit covariance (:data:`COMPONENTS`
principal components), a made-up condition has its mean at::

    normal mean + a d_c + b |d_c| u        a from 0 to 0.5, b from 0.3 to 1.3, u a random direction of length 1

and its images are training images of c, moved there, their differences from their mean times 1 to 1.5. So it lies in
another direction from the normal images than c does, mostly nearer to them, and varies more. Its negatives are the
normal images as they are; pools and query sets are drawn as always.

Images of other parts and of conditions that are held out have no part in this.

::

    gym.make("SelectiveLabel-v0", task_augmentation=0.5)
    python train.py --selector gated-anchored --task-augmentation 0.5
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activelabel.data import TaskSampler
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.derived import largest
from activelabel.data.tasks import DrawnTask
from activelabel.principal import principal_axes
from activelabel.seeding import stream

CONDITIONS = 96
"""Made-up conditions, at least; they are made of the given ones in turn."""

COMPONENTS = 20
"""Principal components in which they are placed, at most."""

TOWARDS, ASIDE, WIDTH = (0.0, 0.5), (0.3, 1.3), (1.0, 1.5)
"""From where to where a, b and the factor of the differences are drawn, evenly."""

TIMES = 2
"""How many times as many images as a task has positives are moved for each of them, at most."""


class AugmentedSampler(TaskSampler):
    """The tasks of a sampler, some of them with positives of a made-up condition instead.

    Which task is changed, and to what, depends on ``seed``, ``name`` and its number alone. Its condition is the one
    that the made-up one was made of. Moved images are rows behind those of the cohort.

    Parameters
    ----------
    sampler: whose tasks; it stays as it is.
    features: float32 ``(n, d)``, of all rows of the cohort.
    share: of the tasks that have a made-up condition, above 0, at most 1.
    """

    def __init__(self, sampler: TaskSampler, features: FloatArray, share: float) -> None:
        vars(self).update(vars(sampler))
        self.share = share
        rng = stream(self.seed, self.name, "augmentation")
        most = TIMES * sum(self.n_positive.values())
        images = [_some(rng, rows, most) for rows in self._positives]
        of = [i % len(images) for i in range(max(CONDITIONS, len(images)))]
        self.origin: IntArray = np.concatenate([images[each] for each in of])
        """Which rows of the cohort were moved, int64 ``(V,)``; they are the rows from ``n`` on."""
        ends = np.cumsum([len(images[each]) for each in of])[:-1]
        self._made = np.split(np.arange(len(self.origin)) + len(features), ends)
        normal = _some(rng, np.unique(np.concatenate(self._negatives)), most)
        self.features: FloatArray = _moved(rng, [features[rows] for rows in images], features[normal], of)
        """The moved images, float32 ``(V, d)``, no number beyond the largest of the cohort."""
        bound = largest(features)
        np.clip(self.features, -bound, bound, out=self.features)

    def _draw(self, index: int) -> DrawnTask:
        condition, pool, pool_labels, query, query_labels = super()._draw(index)
        rng = stream(self.seed, self.name, "augmentation", index)
        if rng.random() < self.share:
            of = [self.cohort.class_index(name) for name in self.conditions].index(int(condition))
            made = self._made[int(rng.choice(np.arange(of, len(self._made), len(self.conditions))))]
            drawn = rng.choice(made, sum(self.n_positive.values()), replace=False)
            pool[pool_labels], query[query_labels] = np.split(drawn, [self.n_positive["pool"]])
        return condition, pool, pool_labels, query, query_labels


def _some(rng: np.random.Generator, rows: IntArray, most: int) -> IntArray:
    """Return the rows, or so many of them."""
    return rows if len(rows) <= most else rng.choice(rows, most, replace=False)


def _moved(
    rng: np.random.Generator, images: Sequence[FloatArray], normal: FloatArray, made_of: Sequence[int]
) -> FloatArray:
    """Return the images of the made-up conditions, float32 ``(V, d)``, from those of each condition ``(n, d)``."""
    means = [part.mean(axis=0, dtype=np.float64) for part in images]
    centre = normal.mean(axis=0, dtype=np.float64)
    around = [part - mean for part, mean in zip((*images, normal), (*means, centre), strict=True)]
    axes, scales = principal_axes(np.concatenate(around), COMPONENTS)
    moved = []
    for of in made_of:
        away = axes @ (means[of] - centre) / scales
        aside = rng.normal(size=len(scales))
        aside *= np.linalg.norm(away) / max(np.linalg.norm(aside), np.finfo(np.float64).tiny)
        place = rng.uniform(*TOWARDS) * away + rng.uniform(*ASIDE) * aside
        moved.append(centre + (place * scales) @ axes + rng.uniform(*WIDTH) * around[of])
    return np.concatenate(moved).astype(np.float32)
