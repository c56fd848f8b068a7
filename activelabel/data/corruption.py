"""Corrupted images: zoom, rotation and multiplicative noise (Slade & Branson 2022, §4.4.2)."""

from __future__ import annotations

import copy
import importlib
import math
import operator
import random
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, IntArray
from activelabel.data.images import Pixels
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import stream

_TRACKING = threading.Lock()


@dataclass(frozen=True)
class Corruption:
    """How many images are corrupted, and how.

    The paper zooms, rotates by up to ±π/12 and multiplies by Gaussian noise, with MONAI. It says neither how far it
    zooms nor how strong the noise is: the defaults are those of MONAI's ``RandZoom`` and ``RandGaussianNoise``.

    Parameters
    ----------
    share: of the images, 0 to 1. Whatever it is, the images of a smaller share are among those of a larger one, and a
        corrupted image is the same.
    seed: of which images are corrupted, and of what happens to each.
    zoom: smallest and largest factor, uniform between them; above 1 the middle is seen larger. MONAI rounds the zoomed
        image's sides down to whole pixels.
    rotation: largest angle, radians, uniform up to it in both directions.
    noise: standard deviation of the Gaussian noise n in ``x * (1 + n)``, drawn for each pixel and colour.

    Raises
    ------
    SettingsError: if a value is out of range.
    """

    share: float
    seed: int = 0
    zoom: tuple[float, float] = (0.9, 1.1)
    rotation: float = math.pi / 12
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise SettingsError(f"share={self.share} of corrupted images must be 0 to 1.")
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed} of the corruption must not be negative.")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise SettingsError(f"zoom={self.zoom} must be the smallest and the largest factor, both above 0.")
        if not 0 <= self.rotation <= math.pi:
            raise SettingsError(f"rotation={self.rotation} must be an angle in radians, 0 to pi.")
        if not 0 <= self.noise < math.inf:
            raise SettingsError(f"noise={self.noise} must be a standard deviation, 0 or above.")

    def __str__(self) -> str:
        return (
            f"{100 * self.share:g} % corrupted (zoom {self.zoom[0]:g} to {self.zoom[1]:g}, rotation up to "
            f"{math.degrees(self.rotation):g} degrees, noise {self.noise:g}, seed {self.seed})"
        )

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """Draw the factor of the zoom and the angle in radians for one image."""
        return float(rng.uniform(*self.zoom)), float(rng.uniform(-self.rotation, self.rotation))

    def choose(self, rows: IntArray) -> IntArray:
        """Return the rows to corrupt, ``round(share * len(rows))`` of the given ones, int64 and sorted."""
        order = stream(self.seed, "corrupted").permutation(len(rows))
        return np.sort(rows[order[: round(self.share * len(rows))]])


def corrupt(image: Pixels, corruption: Corruption, rng: np.random.Generator) -> Pixels:
    """Return an image zoomed, rotated about its middle, and multiplied by noise; what leaves the frame is cut off.

    Zoom and rotation are MONAI's ``Zoom`` and ``Rotate`` as they are by default: the border is repeated where there is
    no image.

    Parameters
    ----------
    image: uint8 ``(H, W)`` or ``(H, W, C)``.
    corruption: how strong; its ``share`` and ``seed`` have no effect.
    rng: of zoom, angle and noise.

    Returns
    -------
    uint8 of the same shape.

    Raises
    ------
    DataError: if the image is no such array, or too small to be zoomed.
    SettingsError: if MONAI is not installed.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise DataError(f"an image of {image.dtype} {image.shape} cannot be corrupted; expected uint8 (H, W[, C]).")
    factor, angle = corruption.draw(rng)
    if int(min(image.shape[:2]) * factor) < 1:
        raise DataError(f"an image of {image.shape[0]} x {image.shape[1]} has no pixels left at zoom {factor:.3g}.")
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = _turned(image, factor, angle) * (1 + np.float32(corruption.noise) * noise)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _turned(image: Pixels, factor: float, angle: float) -> NDArray[np.float32]:
    """Return the image zoomed and rotated, float32 of the same shape, 0 to 255."""
    spatial = _monai("transforms")
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    x = torch.from_numpy(np.ascontiguousarray(channels, np.float32))
    with _untracked():
        turned: NDArray[np.float32] = spatial.Rotate(angle)(spatial.Zoom(factor)(x)).numpy()
    return turned[0] if image.ndim == 2 else np.moveaxis(turned, 0, -1)


@contextmanager
def _untracked() -> Iterator[None]:
    """Switch off MONAI's history of each image, which takes longer than the transforms; the switch is the process's."""
    data = _monai("data")
    with _TRACKING:
        before = data.get_track_meta()
        data.set_track_meta(False)
        try:
            yield
        finally:
            data.set_track_meta(before)


@lru_cache
def _monai(part: str) -> ModuleType:
    """Return ``monai.transforms`` or ``monai.data``; the first import takes some 10 s."""
    numbers = random.getstate()
    try:
        with warnings.catch_warnings():  # MONAI puts a function of its own in place of warnings.showwarning
            warnings.simplefilter("ignore")
            return importlib.import_module(f"monai.{part}")
    except ImportError as error:
        raise SettingsError(f'corruption needs MONAI ({error}): pip install "activelabel[monai]".') from None
    finally:
        random.setstate(numbers)  # something that MONAI imports draws from Python's global generator


class CorruptedImages(Sequence[Pixels]):
    """Images of which some are corrupted when they are looked at.

    Image ``i`` is corrupted by numbers of the stream of ``seed`` and ``i`` alone: it is the same in every process, in
    every order of use, and for every share that corrupts it.

    Parameters
    ----------
    images: uint8 ``(H, W)`` or ``(H, W, C)`` each.
    corruption: how many, and how.
    rows: which images may be corrupted; by default all. ``share`` is a share of these.

    Raises
    ------
    DataError: if a row is none of the images' or named twice.
    SettingsError: if some are to be corrupted and MONAI is not installed.
    """

    corrupted: NDArray[np.bool_]
    """Whether each image is corrupted, ``(n,)``."""

    def __init__(self, images: Sequence[Any] | Pixels, corruption: Corruption, rows: Any = None) -> None:
        self.images, self.corruption = images, corruption
        n = len(images)
        self.rows = np.arange(n) if rows is None else _checked(rows, n)
        self.corrupted = np.zeros(n, dtype=np.bool_)
        self.corrupted[corruption.choose(self.rows)] = True
        self._numbers: IntArray = np.arange(n)
        if self.corrupted.any():
            _monai("transforms")  # now, so that its absence is an error here and not at the first such image

    def __len__(self) -> int:
        return len(self.corrupted)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...

    @overload
    def __getitem__(self, index: slice) -> CorruptedImages: ...

    def __getitem__(self, index: int | slice) -> Pixels | CorruptedImages:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = range(len(self))[operator.index(index)]
        image: Pixels = np.asarray(self.images[place])
        if not self.corrupted[place]:
            return image
        number = int(self._numbers[place])
        try:
            return corrupt(image, self.corruption, stream(self.corruption.seed, "corruption", number))
        except DataError as error:
            raise DataError(f"image {number}: {error}") from None

    def take(self, rows: Sequence[int] | IntArray) -> CorruptedImages:
        """Return some of the images, in the given order; each is corrupted or not as it is here."""
        rows = np.asarray(rows, np.int64)
        other = copy.copy(self)
        if isinstance(self.images, np.ndarray):
            other.images = self.images[rows]
        elif hasattr(self.images, "take"):
            other.images = self.images.take(rows)
        else:
            other.images = [self.images[int(row)] for row in rows]
        other.rows = np.flatnonzero(np.isin(rows, self.rows))
        other.corrupted, other._numbers = self.corrupted[rows], self._numbers[rows]
        return other


def _checked(rows: Any, n: int) -> IntArray:
    """Return the rows, int64 and sorted."""
    given = np.asarray(rows)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise DataError(f"rows to corrupt must be whole numbers (r,), got {given.dtype} {given.shape}.")
    found = np.unique(given).astype(np.int64)
    if len(found) != len(given):
        raise DataError(f"rows to corrupt: {len(given) - len(found)} of {len(given)} are named twice.")
    if len(found) and not 0 <= found[0] <= found[-1] < n:
        bad = found[0] if found[0] < 0 else found[-1]
        raise DataError(f"row {bad} to corrupt is none of {n} images.")
    return found


def corrupt_cohort(cohort: Cohort, corruption: Corruption, rows: Any = None) -> Cohort:
    """Return a cohort of which some images are corrupted when they are looked at, and without features.

    Parameters
    ----------
    cohort: with images.
    corruption: how many, and how; ``source.notes`` says it.
    rows: which images may be corrupted, such as those of the pool parts; by default all.

    Raises
    ------
    DataError: if the cohort has no images, or a row is none of them.
    SettingsError: if some are to be corrupted and MONAI is not installed.
    """
    if cohort.images is None:
        raise DataError(f"{cohort.source.name} has no images to corrupt.")
    images = CorruptedImages(cohort.images, corruption, rows)
    note = f"images: {corruption}" + ("" if rows is None else f" of {len(images.rows)}")
    notes = f"{cohort.source.notes}; {note}" if cohort.source.notes else note
    return replace(cohort, images=images, features=None, source=replace(cohort.source, notes=notes))
