"""Reading the npz cohort format.

======================  ===========================================================================================
array                   meaning
======================  ===========================================================================================
``features``            float ``(n, d)``; ``embeddings`` is the same under another name
``images``              uint8 ``(n, H, W)`` or ``(n, H, W, C)``
``labels``              integer or string ``(n,)``, one class an image; or ``(n, n_classes)`` of 1, 0, -1 (uncertain)
``label_names``         names of the classes; for another label array ``x`` they stand in ``x_names``
``no_finding``          0 or 1 ``(n,)``: becomes the class "No Finding", the normal one
``normal``              name of the normal class (text), where it is one of ``label_names``
``age``                 years ``(n,)``
``sex`` or ``female``   text (F, M, empty for missing), or 0 and 1
``view``                text (frontal, lateral, PA, AP, empty), or ``frontal``: 0 and 1. Without lateral views PA
                        counts as frontal and AP as not: the difference is all that the file has to say about the view
``patient_id``          ``(n,)`` of any type but objects
``split``               text train, val, test; or numbers with ``split_names``
``filename``            text ``(n,)``: the name of each image, such as its path below the data set's folder
``source``              provenance as JSON text
======================  ===========================================================================================

Pickled (object) arrays are refused: reading one runs code from the file.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray, Source, guess_normal
from activelabel.errors import DataError, unknown
from activelabel.reading import DAMAGED, check_classes, check_unpacked, encodable, first_line, naming

Arrays = dict[str, NDArray[Any]]


def load_npz(path: Path, *, labels: str = "labels", normal: str | None = None, patient: str | None = None) -> Cohort:
    """Read a cohort.

    Parameters
    ----------
    path: the file.
    labels: which array holds the labels, such as ``"subtype"``.
    normal: the class of images without abnormality; by default the file's own, or the class named "normal".
    patient: which array groups the images for splitting, such as ``"slide"``; by default ``patient_id`` if present.

    Raises
    ------
    DataError: if the file cannot be read, an array is missing, or its values are not those of the format.
    """
    arrays = read_arrays(path)
    try:
        return _cohort(path, arrays, labels, normal, patient)
    except DataError as error:
        raise DataError(naming(path, error)) from None


def _cohort(path: Path, arrays: Arrays, labels: str, normal: str | None, patient: str | None) -> Cohort:
    matrix, classes = _labels(path, arrays, labels)
    if "no_finding" in arrays and labels == "labels" and "No Finding" not in classes:
        column = _binary(path, "no_finding", _column(path, arrays, "no_finding", "biuf"))
        matrix = np.column_stack([matrix, column])
        classes = (*classes, "No Finding")
    if normal is None and "normal" in arrays and str(arrays["normal"]) in classes:
        normal = str(arrays["normal"])
    if normal is not None and normal not in classes:
        raise DataError(f"{path}: {unknown('class', normal, classes)}")
    group = patient or ("patient_id" if "patient_id" in arrays else None)
    return Cohort(
        labels=matrix,
        classes=classes,
        features=_features(path, arrays),
        images=_images(path, arrays),
        normal=guess_normal(classes) if normal is None else classes.index(normal),
        clinical=_clinical(path, arrays),
        patient=None if group is None else _column(path, arrays, group),
        split=_split(path, arrays),
        names=_names_of_rows(path, arrays),
        source=_source(path, arrays),
    )


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of an npz file by name; nothing is unpickled.

    Raises
    ------
    DataError: if the file is missing, damaged, or holds objects.
    """
    try:
        # Opened here: np.load leaves the file open where it is not a zip.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of headers that Python 2 wrote: they are read all the same
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as members:
                    check_unpacked(members, path.stat().st_size)
            stream.seek(0)
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path}: one bare array; save a cohort with numpy.savez(path, features=..., labels=...)."
                )
            with archive:
                return {name: _decoded(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(
            f"{path}: not a readable npz file ({first_line(error)}). Is it complete, and free of object arrays?"
        ) from None


_LARGEST_EMPTY = 2**40
"""Product of the other dimensions of an array without values: NumPy counts them in bytes, and fails beyond 2**63."""


def _decoded(array: Any) -> NDArray[Any]:
    """Return byte strings as text, everything else as it is.

    Raises
    ------
    ValueError: if it is no array, or takes no bytes for its many values, or has none and a shape that no array of
        another dtype can have, or is text that cannot be.
    """
    if not isinstance(array, np.ndarray):  # numpy returns the bytes of a member that is none
        raise ValueError("a member is no array")
    if array.size and not array.dtype.itemsize:
        raise ValueError(f"{array.size} values of no bytes")
    if not array.size and math.prod(n for n in array.shape if n) > _LARGEST_EMPTY:
        raise ValueError(f"an empty array of shape {array.shape}")
    if array.dtype.kind == "S":
        try:
            return array.astype(np.str_)  # plain ASCII, which is much faster
        except UnicodeDecodeError:
            return np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        points = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
            raise ValueError("text with characters that do not exist")
    return array


def _get(path: Path, arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise DataError(f"{path}: {unknown('array', name, arrays)}")
    return arrays[name]


def _column(path: Path, arrays: Arrays, name: str, kinds: str = "biufU") -> NDArray[Any]:
    """Return an array with one value a row: ``kinds`` are the kinds of dtype that it may have, b, i, u, f or U."""
    array = _get(path, arrays, name)
    labels = arrays.get("labels", array)
    rows = len(labels) if labels.ndim else 0
    if array.ndim != 1 or len(array) != rows or array.dtype.kind not in kinds:
        raise DataError(
            f"{path}: {name} is {array.dtype} {array.shape}; it must hold one "
            f"{'value' if 'U' in kinds else 'number'} for each of the {rows} rows."
        )
    return array


def _names(path: Path, arrays: Arrays, name: str) -> tuple[str, ...] | None:
    array = arrays.get(name)
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind not in "Uiu":
        raise DataError(f"{path}: {name} is {array.dtype} {array.shape}; it must be a list of names.")
    return tuple(str(n) for n in array)


def _binary(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.int8]:
    if array.dtype.kind not in "biuf" or not np.isin(array, (-1, 0, 1)).all():
        raise DataError(f"{path}: {name} must hold 1, 0 and -1 (uncertain) only.")
    return array.astype(np.int8)


def _labels(path: Path, arrays: Arrays, name: str) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    array = _get(path, arrays, name)
    if array.ndim and not array.size:
        raise DataError(f"{path}: {name} is empty: {array.shape}.")
    classes = _names(path, arrays, "label_names" if name == "labels" else f"{name}_names")
    if array.ndim == 2:
        return _binary(path, name, array), classes or tuple(f"class {i}" for i in range(array.shape[1]))
    if array.ndim != 1:
        raise DataError(f"{path}: {name} must be (n,) or (n, n_classes), got {array.shape}.")
    if array.dtype.kind == "U":
        classes = classes or tuple(str(n) for n in np.unique(array))
        place = {c: i for i, c in enumerate(classes)}
        codes = np.array([place.get(str(v), -1) for v in array], dtype=np.int64)
    elif array.dtype.kind in "biu":
        codes = array.astype(np.int64)
        if classes is None and codes.max(initial=0) >= len(codes):
            raise DataError(
                f"{path}: {name} goes up to {codes.max()} in {len(codes)} rows; number classes 0, 1, 2, ..."
            )
        classes = classes or tuple(f"class {i}" for i in range(int(codes.max(initial=0)) + 1))
    else:
        raise DataError(f"{path}: {name} has dtype {array.dtype}; give integers, strings, or a matrix of 1, 0, -1.")
    outside = (codes < 0) | (codes >= len(classes))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{path}: {name}[{row}] = {array[row]!s} is none of the {len(classes)} classes {', '.join(classes)}."
        )
    check_classes(f"{path}: {name}", len(codes), len(classes), path.stat().st_size)
    matrix = np.zeros((len(codes), len(classes)), dtype=np.int8)
    matrix[np.arange(len(codes)), codes] = 1
    return matrix, classes


def _features(path: Path, arrays: Arrays) -> FloatArray | None:
    array = arrays.get("features", arrays.get("embeddings"))
    if array is None:
        if "images" not in arrays:
            found = ", ".join(arrays) or "nothing"
            raise DataError(f"{path}: has neither 'features', 'embeddings' nor 'images', but {found}.")
        return None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: features have dtype {array.dtype}, not numbers.")
    # A float64 beyond float32 becomes infinite, and NaN of some kinds warns: the cohort refuses both.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _images(path: Path, arrays: Arrays) -> NDArray[np.uint8] | None:
    array = arrays.get("images")
    if array is not None and (array.dtype != np.uint8 or array.ndim not in (3, 4)):
        raise DataError(f"{path}: images must be uint8 (n, H, W) or (n, H, W, C), got {array.dtype} {array.shape}.")
    return array


def _clinical(path: Path, arrays: Arrays) -> dict[str, FloatArray]:
    clinical: dict[str, FloatArray] = {}
    if "age" in arrays:
        with np.errstate(over="ignore"):  # see _features
            clinical["age"] = _column(path, arrays, "age", "biuf").astype(np.float32)
    for key, text, ones, zeros in (
        ("female", "sex", ("f", "female"), ("m", "male")),
        ("frontal", "view", ("frontal", "pa"), ("lateral", "l", "ll", "rl")),
    ):
        if key in arrays or text in arrays:
            name = key if key in arrays else text
            clinical[key] = _coded(path, name, _column(path, arrays, name), ones, zeros)
    return clinical


def _coded(path: Path, name: str, array: NDArray[Any], ones: tuple[str, ...], zeros: tuple[str, ...]) -> FloatArray:
    if array.dtype.kind != "U":
        if not np.isin(array[np.isfinite(array)], (0, 1)).all() or np.isinf(array).any():
            raise DataError(f"{path}: {name} as numbers must be 0, 1, or NaN where missing.")
        return array.astype(np.float32)
    text = np.char.lower(array)
    if name == "view":  # AP is frontal too, unless PA and AP are all that the file tells apart
        ones, zeros = ((*ones, "ap"), zeros) if np.isin(text, zeros).any() else (ones, (*zeros, "ap"))
    missing = np.isin(text, ("", "unknown", "nan", "u", "o"))
    known = np.isin(text, ones) | np.isin(text, zeros) | missing
    if not known.all():
        first = array[np.flatnonzero(~known)[0]]
        raise DataError(f"{path}: {name} has '{first}'; known: {', '.join((*ones, *zeros))}, or empty.")
    return np.where(missing, np.nan, np.isin(text, ones)).astype(np.float32)


def _split(path: Path, arrays: Arrays) -> NDArray[np.str_] | None:
    if "split" not in arrays:
        return None
    array = _column(path, arrays, "split")
    if array.dtype.kind == "U":
        return array.astype(np.str_)
    names = _names(path, arrays, "split_names")
    if names is None or array.dtype.kind not in "biu" or not ((array >= 0) & (array < len(names))).all():
        raise DataError(f"{path}: split must be text, or numbers that index split_names.")
    return np.array(names)[array.astype(np.int64)]


def _names_of_rows(path: Path, arrays: Arrays) -> NDArray[np.str_] | None:
    return _column(path, arrays, "filename", "U").astype(np.str_) if "filename" in arrays else None


def _source(path: Path, arrays: Arrays) -> Source:
    array = arrays.get("source")
    if array is None or array.ndim or array.dtype.kind != "U":  # another publisher's array of that name
        return Source(name=path.stem)
    try:
        stored = json.loads(str(array))
        known = {f.name: str(stored[f.name]) for f in fields(Source) if f.name in stored}
        if not all(map(encodable, known.values())):
            raise ValueError("text with characters that do not exist")
        return Source(**known)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: source is not the JSON text of the format ({first_line(error)}).") from None
