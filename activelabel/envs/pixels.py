"""Images of a cohort as one tensor, for learners that train on images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data import Cohort
from activelabel.data.cohort import IntArray
from activelabel.data.images import fit
from activelabel.errors import DataError, SettingsError


def pixels(cohort: Cohort, rows: IntArray, size: int | None) -> Tensor:
    """Return the images of some rows, uint8 ``(n, H, W, 1)``, or ``(n, H, W, 3)`` where one has colours.

    They are read one by one, so that lazy sequences will do, and all stay in memory.

    Parameters
    ----------
    cohort: with images.
    rows: int64 ``(n,)``, which.
    size: side of the square that each is scaled to; None takes them as they are.

    Raises
    ------
    DataError: if there are no images, or one is not uint8 ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
    SettingsError: if they differ in size and ``size`` is None.
    """
    name = cohort.source.name
    if cohort.images is None:
        raise DataError(
            f"{name} has no images, and the learner trains on images: load a file with 'images', or take a learner of "
            "features, such as 'softmax'."
        )
    each = [_image(cohort.images[int(row)], size, f"{name}: image {row}") for row in rows]
    shapes = sorted({image.shape[:2] for image in each})
    if len(shapes) > 1:
        some = ", ".join(f"{h} x {w}" for h, w in shapes[:3])
        raise SettingsError(f"{name}: images of {len(shapes)} sizes ({some}); give the learner size=..., such as 224.")
    colours = max(image.shape[2] for image in each)
    stacked = np.empty((len(each), *shapes[0], colours), dtype=np.uint8)
    for i, image in enumerate(each):
        stacked[i] = image  # grey among colours is repeated
    return torch.from_numpy(stacked)


def _image(image: Any, size: int | None, where: str) -> NDArray[np.uint8]:
    """Return an image as ``(H, W, 1)`` or ``(H, W, 3)``."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise DataError(f"{where} is {array.dtype} {array.shape}; expected uint8 (H, W), (H, W, 1) or (H, W, 3).")
    colours = array.shape[2] if array.ndim == 3 else 1
    if size is None:
        return array.reshape(*array.shape[:2], colours)
    return fit(array, size)[:, :, :colours]
