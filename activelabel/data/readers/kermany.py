"""Kermany: 5,856 paediatric chest X-rays, pneumonia or not (the pneumonia data of Slade & Branson).

::

    chest_xray/
      train/NORMAL/IM-0115-0001.jpeg, NORMAL2-IM-0383-0001.jpeg ...
      train/PNEUMONIA/person1_bacteria_1.jpeg, person1000_virus_1681.jpeg ...
      test/...  val/...                                                          (val in Kaggle's copy only)

A later version names its files ``NORMAL-28501-0001.jpeg``, ``BACTERIA-7422-0001.jpeg``, ``VIRUS-3452-0001.jpeg``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from activelabel.data.cohort import Cohort, Source
from activelabel.data.readers.shared import data_folder, file_cohort, images_below, one_hot, refuse_empty
from activelabel.errors import DataError, SettingsError, unknown

SOURCE = Source(
    name="kermany",
    licence="CC BY 4.0",
    citation="Kermany et al. 2018, Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning, "
    "Cell 172(5)",
    url="https://data.mendeley.com/datasets/rscbjbr9sj",
)

CLASSES = {"pneumonia": ("NORMAL", "PNEUMONIA"), "subtype": ("normal", "bacteria", "virus")}
"""The classes for each kind of ``labels``."""

_SPLITS = ("train", "val", "test")
_NORMAL = re.compile(r"((?:NORMAL\d*-)?IM-\d+)-|(NORMAL-\d+)-")
_PNEUMONIA = re.compile(r"(person\d+)_(bacteria|virus)_|((BACTERIA|VIRUS)-\d+)-")
_EXPECTED = "train/ and test/, each with folders NORMAL/ and PNEUMONIA/ of .jpeg files"


def read_kermany(root: Path, *, labels: str = "pneumonia") -> Cohort:
    """Read Kermany's chest X-rays.

    The patient comes from the name. One number is used for a bacterial and for a viral file, in ``train`` and in
    ``test``; whether it is one child is not said, so the images of a number are kept together.

    Parameters
    ----------
    root: the folder ``chest_xray``, or the one around it.
    labels: ``"pneumonia"`` (NORMAL, PNEUMONIA) or ``"subtype"`` (normal, bacteria, virus).

    Raises
    ------
    DataError: if folders are missing, a class has no image, or a file is not named as the publisher does.
    SettingsError: if ``labels`` is neither.
    """
    if labels not in CLASSES:
        raise SettingsError(unknown("kind of labels", labels, CLASSES))
    classes = CLASSES[labels]
    # Kaggle's archive holds a second copy in chest_xray/chest_xray.
    folder = data_folder(root, ("chest_xray", "chest_xray/chest_xray"), ("train", "test"), _EXPECTED)
    names = {
        split: [n for kind in CLASSES["pneumonia"] for n in images_below(folder / split / kind, folder)]
        for split in _SPLITS
    }
    rows = [name for split in _SPLITS for name in names[split]]
    if not rows:
        raise DataError(f"{folder}: no images. Expected {_EXPECTED}.")
    parsed = [parse_name(name) for name in rows]
    for name, (_, subtype) in zip(rows, parsed, strict=True):
        if (subtype == "normal") != (name.split("/")[1] == "NORMAL"):
            raise DataError(f"{folder / name}: a file of the kind '{subtype}' in that folder.")
    codes = [
        CLASSES["pneumonia"].index(name.split("/")[1]) if labels == "pneumonia" else classes.index(subtype)
        for name, (_, subtype) in zip(rows, parsed, strict=True)
    ]
    matrix = one_hot(codes, len(classes))
    refuse_empty(str(folder), matrix, classes)
    return file_cohort(
        folder,
        rows,
        labels=matrix,
        classes=classes,
        normal=0,
        patient=np.array([patient for patient, _ in parsed]),
        split=np.repeat(_SPLITS, [len(names[split]) for split in _SPLITS]),
        source=SOURCE,
    )


def parse_name(name: str) -> tuple[str, str]:
    """Return the patient and the subtype (normal, bacteria, virus) that a file's name tells.

    Raises
    ------
    DataError: if the name is not of the publisher's form.
    """
    file = name.rsplit("/", 1)[-1]
    if match := _NORMAL.match(file):
        return match[1] or match[2], "normal"
    if match := _PNEUMONIA.match(file):
        return match[1] or match[3], (match[2] or match[4]).lower()
    raise DataError(f"{name}: no name such as person1_bacteria_1.jpeg, person1_virus_6.jpeg or IM-0115-0001.jpeg.")
