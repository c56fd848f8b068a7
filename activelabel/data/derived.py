"""Large arrays that follow from a cohort's features: in memory, or in a folder from which processes map one copy."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import FloatArray
from activelabel.files import atomic_path, reserve

ROWS = 8192
"""Rows that are computed at once."""


def derived(folder: Path | None, what: str, *made_with: object) -> Path | None:
    """Return where an array is kept that follows from a cohort's features; None where it is to be in memory.

    Parameters
    ----------
    folder: of one cohort (:attr:`~activelabel.data.Cohort.scratch`), or None.
    what: the array is.
    *made_with: arrays and plain values that determine it besides the features.
    """
    if folder is None:
        return None
    found = hashlib.sha256()
    for value in made_with:
        found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return folder / f"{what}-{found.hexdigest()[:16]}.npy"


def by_rows(
    source: NDArray[Any], columns: int, compute: Callable[[NDArray[Any]], FloatArray], path: Path | None = None
) -> FloatArray:
    """Return what a function makes of the rows of an array, computed block by block, float32 ``(n, columns)``.

    Parameters
    ----------
    source: ``(n, ...)``.
    columns: that ``compute`` returns.
    compute: of some rows ``(m, d)``, each for itself.
    path: where the result is kept, written if it is not there; the array then maps it copy-on-write. None: in memory.
    """
    if path is None and len(source) <= ROWS:
        return np.ascontiguousarray(compute(source), dtype=np.float32)
    if path is None:
        found = np.empty((len(source), columns), dtype=np.float32)
        _fill(found, source, compute)
        return found
    if not path.exists():
        with atomic_path(path) as temporary:
            written = np.lib.format.open_memmap(temporary, "w+", np.float32, (len(source), columns))
            reserve(temporary)
            _fill(written, source, compute)
            written.flush()
            del written
    mapped: FloatArray = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped


def taken(array: FloatArray, index: Any) -> FloatArray:
    """Return ``array[index]``; of an array that is mapped read-only, no page stays in this process's memory."""
    found: FloatArray = array[index]
    base: Any = array.base if isinstance(array, np.memmap) and array.mode == "r" else None
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
    return found


def _fill(found: FloatArray, source: NDArray[Any], compute: Callable[[NDArray[Any]], FloatArray]) -> None:
    for block in blocks(len(source)):
        found[block] = compute(source[block])


def blocks(n: int) -> Iterator[slice]:
    """Yield slices of at most :data:`ROWS` rows that cover ``n``."""
    for start in range(0, n, ROWS):
        yield slice(start, min(start + ROWS, n))


def largest(array: FloatArray) -> float:
    """Return the largest absolute value of ``(n, d)``."""
    return max(float(np.abs(array[block]).max()) for block in blocks(len(array)))
