"""Splitting by patient, and the standardisation that is fitted on the training part alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray, IntArray
from activelabel.data.derived import by_rows, derived, taken
from activelabel.data.images import content
from activelabel.errors import DataError, DuplicateImagesWarning, SettingsError, unknown
from activelabel.seeding import stream

SPLITS = ("train", "val", "test")
"""The parts of a cohort, no patient in two of them: for learning, for choices of settings, and for the figures."""

_COLUMNS = 64
"""Columns that are taken into double precision at once; a quarter of them where there are many rows."""

_MANY_ROWS = 500_000


@dataclass(frozen=True)
class Splits:
    """Row numbers of the meta-training, meta-validation and meta-test images, each int64 and sorted."""

    train: IntArray
    val: IntArray
    test: IntArray

    def rows(self, name: str) -> IntArray:
        """Return the rows of ``"train"``, ``"val"`` or ``"test"``.

        Raises
        ------
        SettingsError: for any other name.
        """
        if name not in SPLITS:
            raise SettingsError(unknown("split", name, SPLITS))
        rows: IntArray = getattr(self, name)
        return rows


def split_cohort(
    cohort: Cohort,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    *,
    seed: int = 0,
    published: bool = False,
) -> Splits:
    """Split a cohort so that no patient's images stand on two sides.

    MedSelect §2 gives 85/15/15 %, which is 115 %; the default is 70/15/15.

    Parameters
    ----------
    cohort: what to split; without ``patient`` every image is its own patient.
    fractions: shares of train, val and test; they sum to 1.
    seed: of the shuffle of the patients.
    published: use ``cohort.split`` instead.

    Raises
    ------
    SettingsError: if the fractions are not positive or do not sum to 1, or no published split exists.
    DataError: if a part would be empty.

    Warns
    -----
    DuplicateImagesWarning: if identical images stand on two sides.
    """
    n = len(cohort)
    if published:
        if cohort.split is None:
            raise SettingsError(f"{cohort.source.name} has no published split; use fractions.")
        parts = {name: np.flatnonzero(cohort.split == name) for name in SPLITS}
    else:
        if len(fractions) != 3 or not min(fractions) > 0 or not abs(sum(fractions) - 1) <= 1e-6:
            raise SettingsError(f"fractions {fractions} must be three positive numbers that sum to 1.")
        side = divide(np.arange(n) if cohort.patient is None else cohort.patient, fractions, stream(seed, "split"))
        parts = {name: np.flatnonzero(side == index) for index, name in enumerate(SPLITS)}
    for name in SPLITS:
        if not len(parts[name]):
            raise DataError(f"{cohort.source.name}: the {name} part has no images ({n} in all).")
    splits = Splits(**parts)
    report_duplicates(cohort, splits)
    return splits


def divide(groups: NDArray[Any], fractions: Sequence[float], rng: np.random.Generator) -> IntArray:
    """Divide images into parts so that no group's images stand in two of them.

    Parameters
    ----------
    groups: ``(n,)``, such as the patient of each image.
    fractions: shares of the parts; they sum to 1.
    rng: shuffles the groups.

    Returns
    -------
    int64 ``(n,)``, the number of the part of each image.
    """
    _, group = np.unique(groups, return_inverse=True)
    order = rng.permutation(int(group.max()) + 1)
    # A group falls where the middle of its images falls when all are laid out in the shuffled order.
    sizes = np.bincount(group)[order]
    middle = (np.cumsum(sizes) - sizes / 2) / len(group)
    part_of_group = np.empty(len(order), dtype=np.int64)
    part_of_group[order] = np.searchsorted(np.cumsum(fractions[:-1]), middle, side="right")
    return part_of_group[group]


def report_duplicates(cohort: Cohort, splits: Splits) -> int:
    """Count, and warn about, images of val or test that are identical to one of another part.

    Identical means the same bytes, of the image where there is one, else of its features.

    Returns
    -------
    The number of val and test rows that have a twin in an earlier part.
    """
    rows: Any = cohort.images if isinstance(cohort.images, np.ndarray) else cohort.features
    if rows is None:  # images in files: identical files are found without decoding them
        rows = cohort.images
    seen: set[bytes] = set()
    crossing: list[int] = []
    # What is alike is looked at closely; of thousands of images that is next to none.
    suspects = _alike(rows) if isinstance(rows, np.ndarray) else np.ones(len(rows), dtype=np.bool_)
    for name in SPLITS:
        mine, own = set(), splits.rows(name)
        for row in own[suspects[own]]:
            digest = content(rows, int(row))
            if digest in seen:
                crossing.append(int(row))
            mine.add(digest)
        seen |= mine
    if crossing:
        warnings.warn(
            f"{cohort.source.name}: {len(crossing)} images of the val or test part are identical to one of another "
            f"part (rows {', '.join(map(str, crossing[:5]))}{', ...' if len(crossing) > 5 else ''}). Results on them "
            "flatter a learned strategy; drop them or give them one patient id.",
            DuplicateImagesWarning,
            stacklevel=3,
        )
    return len(crossing)


def _alike(rows: NDArray[Any], chunk_bytes: int = 2**25) -> NDArray[np.bool_]:
    """Return bool ``(n,)``: False where no other row of an array ``(n, ...)`` has the same bytes.

    By chance it is True of rows of other bytes as well: what is compared is a random sum of their words.
    """
    size = math.prod(rows.shape[1:]) * rows.itemsize
    words = -(-size // 8)
    factors = stream(0, "rows").integers(2**63, size=words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.empty(len(rows), dtype=np.uint64)
    step = max(1, chunk_bytes // max(8 * words, 1))
    for start in range(0, len(rows), step):
        part = np.ascontiguousarray(rows[start : start + step])
        padded = np.zeros((len(part), 8 * words), dtype=np.uint8)
        padded[:, :size] = part.reshape(len(part), -1).view(np.uint8)
        keys[start : start + step] = padded.view(np.uint64) @ factors
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    alike: NDArray[np.bool_] = counts[which] > 1
    return alike


def _moments(features: FloatArray, rows: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of some rows, ``(d,)``; a few columns at a time, in double precision."""
    mean, deviation = (np.empty(features.shape[1], dtype=np.float64) for _ in range(2))
    step = _COLUMNS if len(rows) < _MANY_ROWS else _COLUMNS // 4
    for start in range(0, features.shape[1], step):
        columns = slice(start, start + step)
        block = taken(features, (rows, columns)).astype(np.float64)
        mean[columns], deviation[columns] = block.mean(axis=0), block.std(axis=0)
    return mean, deviation


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Shift and scale of features and clinical variables, fitted on training rows and kept with a model.

    Parameters
    ----------
    mean, scale: float32 ``(d,)``; a constant feature has scale 1.
    clinical_mean, clinical_scale: float32 ``(3,)`` for age, female and frontal. The two flags are centred, not scaled;
        a variable that is missing everywhere has mean 0.
    """

    mean: FloatArray
    scale: FloatArray
    clinical_mean: FloatArray
    clinical_scale: FloatArray

    @classmethod
    def fit(cls, cohort: Cohort, rows: IntArray) -> Standardizer:
        """Fit on the given rows alone."""
        mean, deviation = _moments(cohort.embedded(), rows)
        clinical = cohort.clinical_matrix()[rows].astype(np.float64)
        known = np.isfinite(clinical)
        count = np.maximum(known.sum(axis=0), 1)
        middle = np.where(known, clinical, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, clinical - middle, 0) ** 2).sum(axis=0) / count)
        scale = np.array([spread[0] if spread[0] > 0 else 1.0, 1.0, 1.0])
        return cls(
            mean.astype(np.float32),
            np.where(deviation > 1e-8, deviation, 1).astype(np.float32),
            middle.astype(np.float32),
            scale.astype(np.float32),
        )

    @classmethod
    def identity(cls, dim: int) -> Standardizer:
        """Return the one that changes nothing but missing clinical values, which become 0."""
        zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32), zeros, ones)

    def features(self, features: FloatArray, scratch: Path | None = None) -> FloatArray:
        """Return the standardised features, float32 ``(n, d)``.

        Parameters
        ----------
        features: ``(n, d)``.
        scratch: the folder of their cohort, where it has one: the result is kept there and mapped.

        Raises
        ------
        DataError: if ``d`` is not the one that it was fitted on.
        """
        if features.shape[1] != len(self.mean):
            raise DataError(
                f"the data has {features.shape[1]} features an image, the standardisation that came with the model "
                f"{len(self.mean)}. Embed the images with the backbone that the model was trained on."
            )
        path = derived(scratch, "standardised", self.mean, self.scale)
        return by_rows(features, features.shape[1], self.scaled, path)

    def scaled(self, features: FloatArray) -> FloatArray:
        """Return standardised features, float32 ``(n, d)``, of ``(n, d)``."""
        found: FloatArray = features - self.mean
        found /= self.scale  # in place: the memory of another array takes longer than the division
        return found

    def clinical(self, clinical: FloatArray) -> FloatArray:
        """Return the standardised clinical variables, float32 ``(n, 3)``; missing values become 0, the mean."""
        standardised: FloatArray = (clinical - self.clinical_mean) / self.clinical_scale
        return np.nan_to_num(standardised, nan=0.0)

    def equals(self, other: Standardizer) -> bool:
        """Whether both shift and scale alike, to the last bit."""
        mine, theirs = self.arrays(), other.arrays()
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the four arrays by name, for saving."""
        return {name: getattr(self, name) for name in ("mean", "scale", "clinical_mean", "clinical_scale")}
