"""Kather 2016: 5,000 tiles of colorectal histology, eight tissues (the colorectal data of Slade & Branson).

::

    Kather_texture_2016_image_tiles_5000/
      01_TUMOR/10009_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif ...
      ...
      08_EMPTY/...
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from activelabel.data.cohort import Cohort, Source
from activelabel.data.readers.shared import data_folder, file_cohort, images_below, one_hot, refuse_empty
from activelabel.errors import DataError

SOURCE = Source(
    name="kather2016",
    licence="CC BY 4.0",
    citation="Kather et al. 2016, Multi-class texture analysis in colorectal cancer histology, Scientific Reports 6",
    url="https://zenodo.org/records/53169",
)

CLASSES = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")
"""The tissues; the folder of the first is ``01_TUMOR``, and so on."""

FOLDER = "Kather_texture_2016_image_tiles_5000"

_SLIDE = re.compile(r"CRC-Prim-HE-(\d+)")


def read_kather(root: Path) -> Cohort:
    """Read Kather's tiles.

    The slide that a tile was cut from, ``"01"`` to ``"10"``, takes the place of the patient. MUCOSA, the normal mucosa,
    is the normal class. The publisher defines no split.

    Parameters
    ----------
    root: the folder that holds ``01_TUMOR`` to ``08_EMPTY``, or the one around it.

    Raises
    ------
    DataError: if a class has no image, or a file is not named as the publisher does.
    """
    places = [f"{number:02d}_{name}" for number, name in enumerate(CLASSES, start=1)]
    expected = f"the folders {places[0]}/ to {places[-1]}/ of .tif files"
    folder = data_folder(root, (FOLDER,), places, expected)
    rows = [images_below(folder / place, folder) for place in places]
    names = [name for part in rows for name in part]
    if not names:
        raise DataError(f"{folder}: no images. Expected {expected}.")
    labels = one_hot(np.repeat(np.arange(len(CLASSES)), [len(part) for part in rows]).tolist(), len(CLASSES))
    refuse_empty(str(folder), labels, CLASSES)
    return file_cohort(
        folder,
        names,
        labels=labels,
        classes=CLASSES,
        normal=CLASSES.index("MUCOSA"),
        patient=np.array([slide(name) for name in names]),
        source=SOURCE,
    )


def slide(name: str) -> str:
    """Return the slide that a tile was cut from, such as ``"07"``.

    Raises
    ------
    DataError: if the name does not tell.
    """
    match = _SLIDE.search(name)
    if match is None:
        raise DataError(
            f"{name}: no slide in the name, such as 07 in 10A0_CRC-Prim-HE-07_014.tif_Row_301_Col_2401.tif."
        )
    return match[1]
