"""Principal axes of images: where they vary, and by how much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_axes(centred: NDArray[np.floating], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the leading principal axes, float64 ``(q, d)`` of length 1, and the deviations along them, ``(q,)``.

    Directions that do not vary are left out: they say nothing, and could not be divided by. Of images that are all the
    same there is none.

    Parameters
    ----------
    centred: ``(n, d)``, images less their mean.
    most: q is at most this.
    """
    _, scales, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    q = min(most, int((scales > 1e-6 * scales[0]).sum()))
    return axes[:q], scales[:q] / np.sqrt(len(centred))
