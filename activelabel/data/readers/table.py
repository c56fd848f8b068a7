"""A CSV of image paths and labels, with columns of the user's choosing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray, Source, guess_normal
from activelabel.data.readers.shared import SEX, SPLIT_NAMES, Table, existing, file_cohort, one_hot, read_csv
from activelabel.errors import DataError, SettingsError
from activelabel.reading import check_classes, given_path, naming

_LABELS = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}
_VIEWS = {"frontal": 1.0, "pa": 1.0, "ap": 1.0, "lateral": 0.0, "l": 0.0, "ll": 0.0, "rl": 0.0, "1": 1.0, "0": 0.0}
_UNKNOWN = {"": np.nan, "unknown": np.nan}


def read_table(
    csv: Path,
    *,
    path: str = "path",
    label: str | None = None,
    labels: Sequence[str] | None = None,
    patient: str | None = None,
    age: str | None = None,
    sex: str | None = None,
    view: str | None = None,
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    missing: str = "refuse",
) -> Cohort:
    """Read a CSV file with a row for each image.

    Parameters
    ----------
    csv: the file, UTF-8, comma-separated, with a header.
    path: the column of the images' paths, absolute or relative to ``root``.
    label: the column of the class, one an image; by default ``"label"``. The classes are the values, sorted.
    labels: instead, columns of 1 (positive), 0 (negative) and -1 (uncertain); they are the classes.
    patient: the column of the patients' ids, none of them empty.
    age: the column of the age in years.
    sex: the column of the sex: F, M, female, male, or 1 for female and 0, or empty.
    view: the column of the view: frontal, lateral, PA, AP, or 1 for frontal and 0, or empty. Without lateral views PA
        counts as frontal and AP as not: the difference is all that the file has to say about the view.
    split: the column of the parts: train, val (or valid, validation) and test.
    root: the folder that the paths are relative to; by default the file's own.
    missing: what to do about rows whose image is not there: ``"refuse"`` or ``"skip"``.

    Raises
    ------
    DataError: if the file or a column is missing, or a cell has another value; the message names line and column.
    SettingsError: if ``label`` and ``labels`` are both given, or ``missing`` has an unknown value.
    """
    if label is not None and labels is not None:
        raise SettingsError("label= names one column of classes, labels= columns of 1, 0 and -1; give one of them.")
    if labels is not None and (isinstance(labels, str) or not labels):
        raise SettingsError(f"labels={labels!r} must be a list of columns.")
    folder = csv.parent if root is None else given_path(root)
    columns = {"patient": patient, "age": age, "sex": sex, "view": view, "split": split}
    try:
        return _cohort(csv, folder, path, label, labels, missing, columns)
    except DataError as error:
        raise DataError(naming(csv, error)) from None


def _cohort(
    csv: Path,
    folder: Path,
    path: str,
    label: str | None,
    labels: Sequence[str] | None,
    missing: str,
    columns: dict[str, str | None],
) -> Cohort:
    patient, age, sex, view, split = columns.values()
    table = read_csv(csv)
    names = _filled(table, path)
    rows = existing(str(csv), folder, names, missing)
    table, names = table.take(rows), [names[row] for row in rows]
    if labels is None:
        column = label or "label"
        cells = _filled(table, column)
        classes = tuple(sorted(set(cells)))
        check_classes(f"{csv}, column '{column}'", len(cells), len(classes), csv.stat().st_size)
        place = {name: number for number, name in enumerate(classes)}
        matrix = one_hot([place[cell] for cell in cells], len(classes))
    else:
        classes = tuple(labels)
        matrix = np.stack([table.codes(c, _LABELS, "1, 0, -1 (uncertain)") for c in classes], axis=1).astype(np.int8)
    clinical: dict[str, FloatArray] = {}
    if age is not None:
        clinical["age"] = table.numbers(age)
    if sex is not None:
        clinical["female"] = table.codes(sex, SEX, "F, M, female, male, 1 (female), 0, empty")
    if view is not None:
        clinical["frontal"] = _frontal(table, view)
    return file_cohort(
        folder,
        names,
        labels=matrix,
        classes=classes,
        normal=guess_normal(classes),
        clinical=clinical,
        patient=None if patient is None else np.array(_filled(table, patient)),
        split=None if split is None else _splits(table, split),
        source=Source(name=csv.stem),
    )


def _filled(table: Table, column: str) -> list[str]:
    cells = table.text(column)
    for row, cell in enumerate(cells):
        if not cell:
            raise DataError(f"{table.where(row, column)}: empty.")
    return cells


def _frontal(table: Table, column: str) -> FloatArray:
    meaning = _VIEWS | _UNKNOWN
    written = {cell.lower() for cell in table.text(column)}
    if not any(meaning.get(cell) == 0 for cell in written):
        meaning["ap"] = 0.0 if "pa" in written else 1.0
    return table.codes(column, meaning, "frontal, lateral, PA, AP, 1 (frontal), 0, empty")


def _splits(table: Table, column: str) -> NDArray[np.str_]:
    cells = [cell.lower() for cell in table.text(column)]
    for row, cell in enumerate(cells):
        if cell not in SPLIT_NAMES:
            raise DataError(f"{table.where(row, column)}: '{cell}'; known: train, val, test.")
    return np.array([SPLIT_NAMES[cell] for cell in cells])
