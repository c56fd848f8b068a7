"""A cohort: everything the rest of the package knows of a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.errors import DataError, unknown
from activelabel.files import atomic_path

_BLOCK = 65_536

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

CLINICAL = ("age", "female", "frontal")
"""The clinical variables, in the order of the observation's three columns (MedSelect §3.4)."""

NORMAL_NAMES = ("no finding", "no_finding", "normal")
"""Class names, lower case, that are taken for the images without abnormality when none is given."""


@dataclass(frozen=True)
class Source:
    """Where a cohort comes from.

    ``backbone`` names the network and the weights that made the features, where they are embeddings; ``notes`` say what
    else was done to the data.
    """

    name: str = "unnamed"
    licence: str = "unknown"
    citation: str = ""
    url: str = ""
    backbone: str = ""
    notes: str = ""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images, what is known of them, and their labels.

    Arrays are checked when the cohort is made, so that bad data is refused before any training.

    Parameters
    ----------
    labels: int8 ``(n, n_classes)``: 1 positive, 0 negative, -1 uncertain. A multi-class set is the one-hot case.
    classes: the names of the columns of ``labels``.
    features: float32 ``(n, d)``, finite; or None until the images are embedded.
    images: a sequence of ``n`` uint8 images ``(H, W)`` or ``(H, W, C)``; or None.
    normal: the index of the class of images without abnormality ("No Finding"), or None.
    clinical: ``age`` (years), ``female`` (0 or 1), ``frontal`` (0 or 1), each float32 ``(n,)``, NaN where missing.
    patient: ids ``(n,)`` of any type; splits keep the images of one patient together.
    split: ``"train"``, ``"val"`` or ``"test"`` for each image where the publisher defines it, ``(n,)`` of str.
    names: of the images, ``(n,)`` of str, such as their paths below the data set's folder.
    source: provenance.
    scratch: a folder of this cohort's own, in which arrays that follow from its features are kept, so that processes
        that open it share one copy; by default each process holds its own in memory.

    Raises
    ------
    DataError: if an array has the wrong shape, values that are not finite, or labels other than -1, 0 and 1.
    """

    labels: NDArray[np.int8]
    classes: tuple[str, ...]
    features: FloatArray | None = None
    images: Sequence[Any] | NDArray[np.uint8] | None = None
    normal: int | None = None
    clinical: Mapping[str, FloatArray] = field(default_factory=dict)
    patient: NDArray[Any] | None = None
    split: NDArray[np.str_] | None = None
    names: NDArray[np.str_] | None = None
    source: Source = field(default_factory=Source)
    scratch: Path | None = None

    def __post_init__(self) -> None:
        name = self.source.name
        if self.labels.ndim != 2 or not len(self.labels):
            raise DataError(f"{name}: labels must be (n, n_classes) with n > 0, got {self.labels.shape}.")
        if self.labels.shape[1] != len(self.classes):
            raise DataError(f"{name}: {self.labels.shape[1]} label columns but {len(self.classes)} class names.")
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f"{name}: class names are not unique: {', '.join(self.classes)}.")
        bad = ~np.isin(self.labels, (-1, 0, 1))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"{name}: label {self.labels[row, column]} in row {row} of class '{self.classes[column]}'; "
                "labels are 1 (positive), 0 (negative) or -1 (uncertain)."
            )
        if self.features is None and self.images is None:
            raise DataError(f"{name}: a cohort needs features or images.")
        if self.normal is not None and not 0 <= self.normal < len(self.classes):
            raise DataError(f"{name}: normal={self.normal} is not the index of one of {len(self.classes)} classes.")
        for key in self.clinical:
            if key not in CLINICAL:
                raise DataError(f"{name}: {unknown('clinical variable', key, CLINICAL)}")
        rows: dict[str, Any] = {"features": self.features, "images": self.images, "patient": self.patient}
        for key, array in {**rows, "split": self.split, "names": self.names, **self.clinical}.items():
            if array is not None and len(array) != len(self.labels):
                raise DataError(f"{name}: {key} has {len(array)} rows but labels has {len(self.labels)}.")
        columns = {"patient": self.patient, "split": self.split, "names": self.names}
        for key, array in {**columns, **self.clinical}.items():
            if array is not None and np.ndim(array) != 1:
                raise DataError(f"{name}: {key} must be (n,), got {np.shape(array)}.")
        self._check_values(name)

    def _check_values(self, name: str) -> None:
        if self.features is not None:
            if self.features.ndim != 2 or not self.features.shape[1]:
                raise DataError(f"{name}: features must be (n, d) with d > 0, got {self.features.shape}.")
            bad, first = 0, (0, 0)
            for start in range(0, len(self.features), _BLOCK):  # they may lie on disk
                places = np.argwhere(~np.isfinite(self.features[start : start + _BLOCK]))
                if len(places) and not bad:
                    first = (start + int(places[0][0]), int(places[0][1]))
                bad += len(places)
            if bad:
                raise DataError(
                    f"{name}: features has {bad} values that are NaN or infinite, the first "
                    f"({self.features[first]}) in row {first[0]}, column {first[1]}. Impute or drop them."
                )
        for key, array in self.clinical.items():
            if np.isinf(array).any():
                raise DataError(f"{name}: {key} has infinite values; use NaN for a missing value.")
            if key != "age" and not np.isin(array[np.isfinite(array)], (0, 1)).all():
                raise DataError(f"{name}: {key} must hold 0, 1, and NaN where it is missing.")
        if self.split is not None and not np.isin(self.split, ("train", "val", "test")).all():
            found = sorted(set(np.unique(self.split).tolist()) - {"train", "val", "test"})
            raise DataError(f"{name}: split has {found}; it may hold 'train', 'val' and 'test'.")

    def __len__(self) -> int:
        return len(self.labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> Cohort:
        # Nothing in a cohort changes, and gym.make deep-copies its arguments: share the arrays.
        return self

    def embedded(self) -> FloatArray:
        """Return the features, float32 ``(n, d)``.

        Raises
        ------
        DataError: if the cohort holds images only.
        """
        if self.features is None:
            raise DataError(
                f"{self.source.name} has images but no features. Embed them: python -m activelabel.data embed SOURCE "
                "--backbone NAME --out cohort.npz; or use with_pixels() to take small images' pixels as features."
            )
        return self.features

    def class_index(self, name: str) -> int:
        """Return the column of a class.

        Raises
        ------
        DataError: if there is no such class; the message has the closest match.
        """
        if name not in self.classes:
            raise DataError(f"{self.source.name}: {unknown('class', name, self.classes)}")
        return self.classes.index(name)

    def conditions(self) -> tuple[str, ...]:
        """Return every class but the normal one."""
        return tuple(c for i, c in enumerate(self.classes) if i != self.normal)

    def prevalence(self, name: str) -> float:
        """Return the share of images labelled positive (1) for a class, 0 to 1."""
        return float((self.labels[:, self.class_index(name)] == 1).mean())

    def clinical_matrix(self) -> FloatArray:
        """Return float32 ``(n, 3)``: age in years, female, frontal; NaN where missing."""
        missing = np.full(len(self), np.nan, dtype=np.float32)
        return np.stack([np.asarray(self.clinical.get(key, missing), np.float32) for key in CLINICAL], axis=1)

    def with_normal(self, name: str) -> Cohort:
        """Return the same cohort with the class ``name`` taken as the images without abnormality."""
        return replace(self, normal=self.class_index(name))

    def with_pixels(self) -> Cohort:
        """Return the same cohort with the flattened images, scaled to 0..1, as its features.

        Raises
        ------
        DataError: if there are no images or they differ in size.
        """
        if self.images is None:
            raise DataError(f"{self.source.name} has no images.")
        shapes = {np.shape(image) for image in self.images}
        if len(shapes) != 1:
            raise DataError(f"{self.source.name}: images of {len(shapes)} sizes; pixels need one size.")
        pixels = np.stack([np.asarray(image, np.float32).ravel() / 255.0 for image in self.images])
        return replace(self, features=pixels, scratch=None, source=replace(self.source, backbone="pixels"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cohort as an npz file that :func:`activelabel.data.load` reads back; atomic.

        Images that lie in files stay there: only their names are written.

        Raises
        ------
        DataError: if an array would have to be pickled, or nothing but images in files is there.
        """
        with atomic_path(path) as temporary:
            arrays: dict[str, Any] = {**self.columns(), **self._wide()}
            np.savez(temporary, **arrays)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the npz format (see :mod:`activelabel.data.npz`) but features and images.

        Raises
        ------
        DataError: if one would have to be pickled.
        """
        arrays: dict[str, Any] = {
            "labels": self.labels,
            "label_names": np.asarray(self.classes),
            "source": np.asarray(json.dumps(asdict(self.source))),
            **{key: np.asarray(value, np.float32) for key, value in self.clinical.items()},
        }
        if self.normal is not None:
            arrays["normal"] = np.asarray(self.classes[self.normal])
        rows = {
            "patient_id": self.patient,
            "split": self.split,
            "filename": self.names,
        }
        arrays.update({key: np.asarray(value) for key, value in rows.items() if value is not None})
        for key, value in arrays.items():
            if value.dtype.hasobject:
                raise DataError(f"{self.source.name}: {key} cannot be saved without pickling; give it one dtype.")
        return arrays

    def _wide(self) -> dict[str, NDArray[Any]]:
        images = self.images if isinstance(self.images, np.ndarray) else None
        if self.features is None and images is None:
            raise DataError(f"{self.source.name}: its images lie in files; embed them before it is saved.")
        return {name: value for name, value in (("features", self.features), ("images", images)) if value is not None}

    def take(self, rows: IntArray) -> Cohort:
        """Return the cohort of some of the images, in the given order."""
        found = {n: getattr(self, n) for n in ("labels", "features", "patient", "split", "names")}
        columns: dict[str, Any] = {name: None if value is None else value[rows] for name, value in found.items()}
        images = self.images
        if images is not None and not isinstance(images, np.ndarray):
            take = getattr(images, "take", None)
            images = take(rows) if take is not None else [images[int(row)] for row in rows]
        elif images is not None:
            images = images[rows]
        return replace(
            self,
            images=images,
            scratch=None,
            clinical={key: value[rows] for key, value in self.clinical.items()},
            **columns,
        )


def guess_normal(classes: Sequence[str]) -> int | None:
    """Return the index of the class whose name says that it is the normal one, or None."""
    for index, name in enumerate(classes):
        if name.lower() in NORMAL_NAMES:
            return index
    return None
