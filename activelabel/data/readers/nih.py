"""NIH ChestX-ray14: 112,120 frontal chest X-rays of 30,805 patients with 14 findings.

::

    Data_Entry_2017.csv         or Data_Entry_2017_v2020.csv
    images/00000001_000.png     or images_001/images/00000001_000.png ... images_012/images/...
    train_val_list.txt  test_list.txt                                    (optional: the publisher's split)
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray, Source
from activelabel.data.readers.shared import (
    OLDEST,
    SEX,
    Table,
    data_folder,
    existing,
    file_cohort,
    images_in,
    read_csv,
)
from activelabel.errors import DataError, unknown

SOURCE = Source(
    name="nih-cxr14",
    licence="free to use; acknowledge the NIH Clinical Center, link to the download site, cite the paper",
    citation="Wang et al. 2017, ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
)

CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
    "No Finding",
)

_TABLE = "Data_Entry_2017*.csv"
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_AGE = re.compile(r"(\d+)\s*([YMD]?)", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


def read_nih(root: Path, *, missing: str = "refuse") -> Cohort:
    """Read ChestX-ray14.

    All views are frontal; ``frontal`` is 1 for PA and 0 for AP, the difference that the data has to say about the view.
    Ages are written as ``58``, ``058Y``, ``011M`` or ``004D``; one above 120 years is a slip and becomes NaN. The split
    is "train" and "test" by the two lists, where they are there; the publisher defines no part "val".

    Parameters
    ----------
    root: the folder that holds ``Data_Entry_2017*.csv``; of several such files the last by name, the newest, is read.
    missing: what to do about rows whose image is not there: ``"refuse"``, or ``"skip"``, such as where only some of
        the twelve archives were fetched.

    Raises
    ------
    DataError: if files are missing or hold other values than the publisher's.
    SettingsError: if ``missing`` has an unknown value.
    """
    folder = data_folder(root, (), (_TABLE,), f"{_TABLE} beside images/ or images_001/ to images_012/")
    table = read_csv(max(folder.glob(_TABLE)))
    places = _places(folder)
    names = [places.get(file, f"images/{file}") for file in table.text("Image Index")]
    rows = existing("nih-cxr14", folder, names, missing)
    table, names = table.take(rows), [names[row] for row in rows]
    sex = "Patient Sex" if "Patient Sex" in table.columns else "Patient Gender"
    view = {"pa": 1.0, "ap": 0.0, "": np.nan}
    return file_cohort(
        folder,
        names,
        labels=_labels(table),
        classes=CLASSES,
        normal=CLASSES.index("No Finding"),
        clinical={
            "age": _ages(table),
            "female": table.codes(sex, SEX, "M, F, empty"),
            "frontal": table.codes("View Position", view, "PA, AP, empty"),
        },
        patient=np.array(table.text("Patient ID")),
        split=_split(folder, [Path(name).name for name in names]),
        source=SOURCE,
    )


def _places(folder: Path) -> dict[str, str]:
    """Return the path of each image below the folder by its name."""
    places: dict[str, str] = {}
    parts = [path for path in sorted(folder.glob("images*")) if path.is_dir()]
    for part in [inner for path in parts for inner in (path / "images", path) if inner.is_dir()]:
        for name in images_in(part):
            places.setdefault(name, (part.relative_to(folder) / name).as_posix())
    return places


def _labels(table: Table) -> NDArray[np.int8]:
    labels = np.zeros((len(table), len(CLASSES)), dtype=np.int8)
    for row, cell in enumerate(table.text("Finding Labels")):
        findings = [finding.strip() for finding in cell.split("|")]
        for finding in findings:
            if finding not in CLASSES:
                raise DataError(f"{table.where(row, 'Finding Labels')}: {unknown('finding', finding, CLASSES)}")
            labels[row, CLASSES.index(finding)] = 1
        if "No Finding" in findings and len(findings) > 1:
            raise DataError(f"{table.where(row, 'Finding Labels')}: '{cell}' is No Finding and others at once.")
    return labels


def _ages(table: Table) -> FloatArray:
    ages = np.full(len(table), np.nan, dtype=np.float32)
    for row, cell in enumerate(table.text("Patient Age")):
        match = _AGE.fullmatch(cell)
        if cell and match is None:
            raise DataError(f"{table.where(row, 'Patient Age')}: '{cell}' is no age such as 58 or 058Y.")
        if match is not None:
            ages[row] = int(match[1]) * _YEARS[match[2].upper()]
    ages[ages > OLDEST] = np.nan
    return ages


def _split(folder: Path, files: list[str]) -> NDArray[np.str_] | None:
    lists = {
        part: set((folder / name).read_text(encoding="utf-8").split())
        for part, name in _LISTS.items()
        if (folder / name).is_file()
    }
    if not lists:
        return None
    if len(lists) == 1:
        [(part, listed)] = lists.items()
        other = {"train": "test", "test": "train"}[part]
        return np.array([part if file in listed else other for file in files])
    split = np.array([next((part for part, listed in lists.items() if file in listed), "") for file in files])
    if (split == "").any():
        first = files[int(np.flatnonzero(split == "")[0])]
        raise DataError(f"{folder}: {(split == '').sum()} images are in neither list, the first {first}.")
    return split
