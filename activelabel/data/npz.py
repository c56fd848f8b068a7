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
``view``                text (frontal, lateral, PA, AP, empty), or ``frontal``: 0 and 1. In a file without lateral
views PA
                        counts as frontal and AP as not: the difference is all that the file has to say about the view
``patient_id``          ``(n,)`` of any type but objects
``split``               text train, val, test; or numbers with ``split_names``
``source``              provenance as JSON text
======================  ===========================================================================================

Pickled (object) arrays are refused: reading one runs code from the file.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray, Source, guess_normal
from activelabel.errors import DataError, unknown

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
    arrays = _read(path)
    matrix, classes = _labels(path, arrays, labels)
    if "no_finding" in arrays and labels == "labels" and "No Finding" not in classes:
        matrix = np.column_stack([matrix, _binary(path, "no_finding", arrays["no_finding"])])
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
        patient=None if group is None else _get(path, arrays, group),
        split=_split(path, arrays),
        source=_source(path, arrays),
    )


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path}: holds one bare array; save it with numpy.savez(path, features=..., labels=...)."
                )
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path}: not a readable npz file ({error}). Is it complete, and free of object arrays?"
        ) from None


def _get(path: Path, arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise DataError(f"{path}: {unknown('array', name, arrays)}")
    return arrays[name]


def _binary(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.int8]:
    if array.dtype.kind not in "biuf" or not np.isin(array, (-1, 0, 1)).all():
        raise DataError(f"{path}: {name} must hold 1, 0 and -1 (uncertain) only.")
    return array.astype(np.int8)


def _labels(path: Path, arrays: Arrays, name: str) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    array = _get(path, arrays, name)
    stem = "label" if name == "labels" else name
    names = arrays.get(f"{stem}_names")
    classes = None if names is None else tuple(str(n) for n in names)
    if array.ndim == 2:
        classes = classes or tuple(f"class {i}" for i in range(array.shape[1]))
        return _binary(path, name, array), classes
    if array.ndim != 1:
        raise DataError(f"{path}: {name} must be (n,) or (n, n_classes), got {array.shape}.")
    if array.dtype.kind in "US":
        classes = classes or tuple(str(n) for n in np.unique(array))
        codes = np.array([classes.index(str(v)) if str(v) in classes else -1 for v in array])
    elif array.dtype.kind in "biu":
        codes = array.astype(np.int64)
        classes = classes or tuple(f"class {i}" for i in range(int(codes.max(initial=0)) + 1))
    else:
        raise DataError(f"{path}: {name} has dtype {array.dtype}; give integers, strings, or a matrix of 1, 0, -1.")
    outside = (codes < 0) | (codes >= len(classes))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{path}: {name}[{row}] = {array[row]!s} is none of the {len(classes)} classes {', '.join(classes)}."
        )
    return np.eye(len(classes), dtype=np.int8)[codes], classes


def _features(path: Path, arrays: Arrays) -> FloatArray | None:
    array = arrays.get("features", arrays.get("embeddings"))
    if array is None:
        if "images" not in arrays:
            raise DataError(
                f"{path}: has neither 'features', 'embeddings' nor 'images', but {', '.join(arrays) or 'nothing'}."
            )
        return None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: features have dtype {array.dtype}, not numbers.")
    return np.ascontiguousarray(array, dtype=np.float32)


def _images(path: Path, arrays: Arrays) -> NDArray[np.uint8] | None:
    array = arrays.get("images")
    if array is not None and (array.dtype != np.uint8 or array.ndim not in (3, 4)):
        raise DataError(f"{path}: images must be uint8 (n, H, W) or (n, H, W, C), got {array.dtype} {array.shape}.")
    return array


def _clinical(path: Path, arrays: Arrays) -> dict[str, FloatArray]:
    clinical: dict[str, FloatArray] = {}
    if "age" in arrays:
        if arrays["age"].dtype.kind not in "biuf":
            raise DataError(f"{path}: age has dtype {arrays['age'].dtype}, not numbers.")
        clinical["age"] = arrays["age"].astype(np.float32)
    for key, text, ones, zeros in (
        ("female", "sex", ("f", "female"), ("m", "male")),
        ("frontal", "view", ("frontal", "pa"), ("lateral", "l", "ll", "rl")),
    ):
        if key in arrays:
            clinical[key] = arrays[key].astype(np.float32)
        elif text in arrays:
            clinical[key] = _coded(path, text, arrays[text], ones, zeros)
    return clinical


def _coded(path: Path, name: str, array: NDArray[Any], ones: tuple[str, ...], zeros: tuple[str, ...]) -> FloatArray:
    if array.dtype.kind in "biuf":
        if not np.isin(array[np.isfinite(array)], (0, 1)).all():
            raise DataError(f"{path}: {name} as numbers must be 0 and 1.")
        return array.astype(np.float32)
    text = np.char.lower(array.astype(str))
    if name == "view":  # AP is frontal too, unless PA and AP are all that the file tells apart
        ones, zeros = ((*ones, "ap"), zeros) if np.isin(text, zeros).any() else (ones, (*zeros, "ap"))
    missing = np.isin(text, ("", "unknown", "nan", "u", "o"))
    known = np.isin(text, ones) | np.isin(text, zeros) | missing
    if not known.all():
        raise DataError(
            f"{path}: {name} has '{array[np.flatnonzero(~known)[0]]}'; known: {', '.join((*ones, *zeros))}, or empty."
        )
    return np.where(missing, np.nan, np.isin(text, ones)).astype(np.float32)


def _split(path: Path, arrays: Arrays) -> NDArray[np.str_] | None:
    array = arrays.get("split")
    if array is None:
        return None
    if array.dtype.kind in "US":
        return array.astype(np.str_)
    names = arrays.get("split_names")
    if names is None or array.dtype.kind not in "biu" or not ((array >= 0) & (array < len(names))).all():
        raise DataError(f"{path}: split must be text, or numbers that index split_names.")
    return names.astype(np.str_)[array]


def _source(path: Path, arrays: Arrays) -> Source:
    array = arrays.get("source")
    if array is None or array.ndim or array.dtype.kind != "U":  # another publisher's array of that name
        return Source(name=path.stem)
    try:
        stored = json.loads(str(array))
        return Source(**{f.name: str(stored[f.name]) for f in fields(Source) if f.name in stored})
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path}: source is not the JSON text of the format ({error}).") from None
