"""Cohorts on disk that every worker maps into memory instead of holding a copy.

A folder has ``features.npy`` and ``images.npy`` where the cohort has them, and ``columns.npz`` with the rest in the
format of :mod:`activelabel.data.npz`; it is written last, so that a folder with it is whole.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data import CLINICAL, Cohort, Source
from activelabel.data.npz import read_arrays
from activelabel.files import atomic_path

_BYTES = 1 << 26
"""Read at once where an array is hashed."""


def content_digest(cohort: Cohort) -> str:
    """Return 16 hexadecimal digits that change with anything in a cohort but its source.

    Of images that lie in files their names count, not their pixels.
    """
    found = hashlib.sha256()
    arrays = cohort.columns()
    del arrays["source"]
    wide = {"features": cohort.features, "images": cohort.images}
    arrays |= {name: array for name, array in wide.items() if isinstance(array, np.ndarray)}
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        rows = max(1, _BYTES // max(1, array[:1].nbytes)) if array.ndim else 1
        for start in range(0, len(array) if array.ndim else 1, rows):
            found.update((array[start : start + rows] if array.ndim else array).tobytes())
    return found.hexdigest()[:16]


def share(cohort: Cohort, folder: Path) -> Path | None:
    """Write a cohort so that :func:`open_shared` maps it, unless that was done; returns the folder.

    Returns None where it cannot be mapped, since its images lie in files.
    """
    if cohort.images is not None and not isinstance(cohort.images, np.ndarray):
        return None
    if not (folder / "columns.npz").exists():
        wide = {"features": cohort.features, "images": cohort.images}
        for name, array in wide.items():
            if array is not None:
                with atomic_path(folder / f"{name}.npy") as temporary:
                    np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)
        columns: dict[str, Any] = cohort.columns()
        with atomic_path(folder / "columns.npz") as temporary:
            np.savez(temporary, **columns)
    return folder


def open_shared(folder: Path) -> Cohort:
    """Return a cohort whose features and images are read-only memory maps of :func:`share`'s files.

    Raises
    ------
    DataError: if the files are damaged or missing.
    """
    columns = read_arrays(folder / "columns.npz")
    classes = tuple(str(name) for name in columns["label_names"])
    stored = json.loads(str(columns["source"]))
    return Cohort(
        labels=columns["labels"],
        classes=classes,
        features=_mapped(folder / "features.npy"),
        images=_mapped(folder / "images.npy"),
        normal=classes.index(str(columns["normal"])) if "normal" in columns else None,
        clinical={name: columns[name] for name in CLINICAL if name in columns},
        patient=columns.get("patient_id"),
        split=columns.get("split"),
        names=columns.get("filename"),
        source=Source(**{f.name: str(stored[f.name]) for f in fields(Source)}),
        scratch=folder,
    )


def _mapped(path: Path) -> NDArray[Any] | None:
    if not path.exists():
        return None
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
