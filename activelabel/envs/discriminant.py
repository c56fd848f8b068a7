"""The direction in which the conditions of the training differ from normal images.

What tells conditions from normal images is known of the training part, whose images are labelled: with m_c the mean of
the images of condition c, and n_c that of its negatives, each scaled to length 1, the direction is the mean over the
conditions of m_c - n_c. The place of an image along it is what the prototypes of MedSelect (§3.2) would score it by, if
they were the means of all training images: its cosine to the one less that to the other.

Places are shifted and scaled, so that those of the training images have mean 0 and deviation 1. Images of other parts
have no part in it, nor have those of conditions that are held out, and made-up ones
(:mod:`activelabel.envs.augmentation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.derived import blocks


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Where an image x is: ``x / |x| . direction - offset``; see the module.

    Parameters
    ----------
    direction: float32 ``(d,)``.
    offset: what is subtracted.
    """

    direction: FloatArray
    offset: float

    @classmethod
    def fit(cls, features: FloatArray, images: Sequence[tuple[IntArray, IntArray]]) -> Discriminant:
        """Return the direction of some conditions.

        Parameters
        ----------
        features: float32 ``(n, d)``.
        images: for each condition the rows of its positive and of its negative images.
        """
        ends = [[_unit(features[rows].mean(axis=0, dtype=np.float64)) for rows in sides] for sides in images]
        direction = np.mean([positive - negative for positive, negative in ends], axis=0)
        rows = np.unique(np.concatenate([row for sides in images for row in sides]))
        places = np.concatenate(
            [_unit(features[rows[part]].astype(np.float64)) @ direction for part in blocks(len(rows))]
        )
        deviation = places.std()
        if deviation < 1e-9:  # images that differ by rounding alone; all are of length 1
            deviation = 1.0
        return cls((direction / deviation).astype(np.float32), float(places.mean() / deviation))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors ``(..., d)`` scaled to length 1; zeros stay."""
    found: NDArray[np.float64] = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1).numpy()
    return found
