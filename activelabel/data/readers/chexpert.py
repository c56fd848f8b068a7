"""CheXpert: 223,648 chest X-rays of 64,740 patients with 14 observations (the data of MedSelect §2).

::

    CheXpert-v1.0-small/        or CheXpert-v1.0/
      train.csv  valid.csv
      train/patient00001/study1/view1_frontal.jpg ...
      valid/...

or the full release as it is unpacked, four folders ``CheXpert-v1.0 batch 1 (validate & csv)`` to ``batch 4 (train 3)``
side by side.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, Source
from activelabel.data.readers.shared import SEX, Table, data_folder, existing, file_cohort, read_csv
from activelabel.errors import DataError, SettingsError, unknown

SOURCE = Source(
    name="chexpert",
    licence="Stanford University Dataset Research Use Agreement: research only, not to be passed on",
    citation="Irvin et al. 2019, CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels, AAAI",
    url="https://stanfordmlgroup.github.io/competitions/chexpert/",
)

CLASSES = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 observations, in the order of the file."""

UNCERTAIN = {"positive": 1.0, "negative": 0.0, "ignore": -1.0}
"""What becomes of an observation that the publisher's labeller calls uncertain (-1.0)."""

VIEWS = ("all", "frontal", "lateral", "ap", "pa")

_FILES = {"train": "train.csv", "val": "valid.csv"}
_BATCHES = "CheXpert-v1.0 batch *"
_TABLES = "CheXpert-v1.0 batch 1 (validate & csv)"
_PATH = re.compile(r"(?:^|/)(train|valid)/(patient\d+)/(study\d+)/([^/]+)$")
_EXPECTED = "train.csv and valid.csv, beside the folders train/ and valid/ of patient00001/study1/view1_frontal.jpg"


def read_chexpert(root: Path, *, uncertain: str = "ignore", view: str = "all", missing: str = "refuse") -> Cohort:
    """Read CheXpert.

    An empty cell means that the report does not mention the observation; it counts as negative. Sex ``Unknown`` and
    age 0, the publisher's sign for an unknown age, become NaN. ``train.csv`` is the part "train" and ``valid.csv`` the
    part "val"; there is no part "test", so split by fractions (by patient) rather than as published. The patients are
    ``patient00001`` ...; :func:`studies` gives the study of each image.

    Parameters
    ----------
    root: the folder that holds ``train.csv``, or the one around it.
    uncertain: ``"ignore"`` keeps uncertain observations as -1, ``"positive"`` and ``"negative"`` make them 1 and 0.
    view: ``"all"``, ``"frontal"``, ``"lateral"``, or of the frontal ones ``"ap"`` or ``"pa"``.
    missing: what to do about rows whose image is not there: ``"refuse"`` or ``"skip"``.

    Raises
    ------
    DataError: if files are missing or hold other values than the publisher's.
    SettingsError: if an option has an unknown value.
    """
    if uncertain not in UNCERTAIN:
        raise SettingsError(unknown("way with uncertain labels", uncertain, UNCERTAIN))
    if view not in VIEWS:
        raise SettingsError(unknown("view", view, VIEWS))
    inner = ("CheXpert-v1.0-small", "CheXpert-v1.0")
    folder = data_folder(root, inner, (*_FILES.values(), f"{_TABLES}/train.csv"), _EXPECTED)
    tables = folder / _TABLES if (folder / _TABLES).is_dir() else folder
    batches = _batches(folder)
    parts = {}
    for split, name in _FILES.items():
        if (tables / name).is_file():
            table = _views(read_csv(tables / name), view)
            names = [_name(table, row, path, batches) for row, path in enumerate(table.text("Path"))]
            rows = existing("chexpert", folder, names, missing) if names else np.empty(0, np.int64)
            parts[split] = (table.take(rows), [names[row] for row in rows])
    names = [name for _, part in parts.values() for name in part]
    if not names:
        raise DataError(f"{tables}: no image of view '{view}'.")
    meaning = {"": 0.0, "0.0": 0.0, "0": 0.0, "1.0": 1.0, "1": 1.0}
    meaning |= dict.fromkeys(("-1.0", "-1"), UNCERTAIN[uncertain])
    labels = [
        np.stack([table.codes(c, meaning, "1.0, 0.0, -1.0, empty") for c in CLASSES], axis=1)
        for table, _ in parts.values()
    ]
    age = np.concatenate([table.numbers("Age") for table, _ in parts.values()])
    frontal = {"frontal": 1.0, "lateral": 0.0}
    return file_cohort(
        folder,
        names,
        labels=np.concatenate(labels).astype(np.int8),
        classes=CLASSES,
        normal=CLASSES.index("No Finding"),
        clinical={
            "age": np.where(age > 0, age, np.nan).astype(np.float32),
            "female": np.concatenate([t.codes("Sex", SEX, "Male, Female, Unknown") for t, _ in parts.values()]),
            "frontal": np.concatenate(
                [t.codes("Frontal/Lateral", frontal, "Frontal, Lateral") for t, _ in parts.values()]
            ),
        },
        patient=np.array([name.split("/")[-3] for name in names]),
        split=np.repeat(list(parts), [len(part) for _, part in parts.values()]),
        source=SOURCE,
    )


def studies(names: Iterable[str]) -> NDArray[np.str_]:
    """Return the study of each image, such as ``patient00001/study1``, ``(n,)``, from the cohort's ``names``."""
    return np.array(["/".join(name.split("/")[-3:-1]) for name in names])


def _views(table: Table, view: str) -> Table:
    if view == "all":
        return table
    column = "AP/PA" if view in ("ap", "pa") else "Frontal/Lateral"
    return table.take([row for row, cell in enumerate(table.text(column)) if cell.lower() == view])


def _name(table: Table, row: int, path: str, batches: dict[str, str]) -> str:
    """Return an image's path below the data set's folder; ``Path`` begins with that folder's original name."""
    match = _PATH.search(path)
    if match is None:
        raise DataError(
            f"{table.where(row, 'Path')}: '{path}' is no path such as "
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg."
        )
    part, patient, *rest = match.groups()
    folder = batches.get(patient, part) if part == "train" else batches.get(part, part)
    return "/".join((folder, patient, *rest))


def _batches(folder: Path) -> dict[str, str]:
    """Return where the full release has each training patient, and ``valid``; empty for the other layouts."""
    places: dict[str, str] = {}
    for batch in sorted(folder.glob(_BATCHES)):
        if batch.is_dir():
            places |= {entry.name: batch.name for entry in os.scandir(batch) if entry.name.startswith("patient")}
            if (batch / "valid").is_dir():
                places["valid"] = f"{batch.name}/valid"
    return places
