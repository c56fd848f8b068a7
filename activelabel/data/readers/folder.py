"""A folder of class folders: anyone's own images.

::

    scans/tumour/a.png  scans/tumour/2019/b.dcm  scans/healthy/c.jpg
    scans/train/tumour/...  scans/test/tumour/...                       with a split
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, Source, guess_normal
from activelabel.data.images import IMAGE_SUFFIXES
from activelabel.data.readers.shared import SPLIT_NAMES, file_cohort, folders_in, images_below, images_in, one_hot
from activelabel.errors import DataError, SettingsError

_EXPECTED = (
    "Expected a folder for each class with images in it, such as tumour/a.png and healthy/b.png, or the same below "
    f"train/, val/ and test/. Images are files that end in {', '.join(IMAGE_SUFFIXES)}. For a data set of the "
    "catalogue write NAME:FOLDER."
)


def read_folder(root: Path, *, patient: str | None = None, allow_empty: bool = False) -> Cohort:
    """Read a folder of class folders.

    The classes are the folders' names, sorted; their images may lie in folders further below. Where the folders of the
    first level are ``train``, ``val`` (or ``valid``, ``validation``) and ``test``, or some of these, they are the split
    and the classes stand below them. Hidden files and files of other kinds are left out. A class named "normal" or
    "no finding" is the normal one.

    Parameters
    ----------
    root: the folder.
    patient: a regular expression that finds the patient in an image's path below the folder: its first group, or all
        that it matches. Without it every image is its own patient.
    allow_empty: whether a class without images is kept, as a class without positives, rather than refused.

    Raises
    ------
    DataError: if there are no class folders, a class is empty, images lie outside of the class folders, or a path has
        no patient.
    SettingsError: if ``patient`` is no regular expression.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    parts = _parts(root)
    kinds = {part: folders_in(root / part) for part in parts}
    classes = tuple(sorted({kind for found in kinds.values() for kind in found}))
    for part in parts:
        if loose := images_in(root / part):
            raise DataError(
                f"{root / part}: {len(loose)} images lie outside of the class folders, the first {loose[0]}. "
                f"{_EXPECTED}"
            )
    if not classes:
        raise DataError(f"{root}: no class folders. {_EXPECTED}")
    names: list[str] = []
    codes: list[int] = []
    splits: list[str] = []
    for part, found in kinds.items():
        for kind in found:
            below = images_below(root / part / kind, root)
            names += below
            codes += [classes.index(kind)] * len(below)
            splits += [parts[part]] * len(below)
    empty = [name for code, name in enumerate(classes) if code not in set(codes)]
    if not names or (empty and not allow_empty):
        raise DataError(
            f"{root}: no images in {', '.join(empty)}. Remove the folder, or keep the class with allow_empty=True. "
            f"{_EXPECTED}"
        )
    return file_cohort(
        root,
        names,
        labels=one_hot(codes, len(classes)),
        classes=classes,
        normal=guess_normal(classes),
        patient=None if patient is None else _patients(names, patient),
        split=np.array(splits) if "" not in parts.values() else None,
        source=Source(name=root.resolve().name),
    )


def _parts(root: Path) -> dict[str, str]:
    """Return the split of each folder that holds class folders; ``{"": ""}`` where there is none."""
    found = folders_in(root)
    parts = {name: SPLIT_NAMES[name.lower()] for name in found if name.lower() in SPLIT_NAMES}
    if not parts:
        return {"": ""}
    if len(parts) < len(found):
        others = [name for name in found if name not in parts]
        raise DataError(
            f"{root}: the folders {', '.join(parts)} are a split, but {', '.join(others)} beside them are not. Move "
            "them apart."
        )
    if len(set(parts.values())) < len(parts):
        raise DataError(f"{root}: of the folders {', '.join(parts)} two are the same part of a split.")
    return parts


def _patients(names: list[str], pattern: str) -> NDArray[np.str_]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"patient='{pattern}' is no regular expression ({error}).") from None
    found = []
    for name in names:
        match = expression.search(name)
        if match is None:
            raise DataError(f"{name}: patient='{pattern}' finds no patient in it.")
        found.append(match[1] if expression.groups else match[0])
    return np.array(found)
