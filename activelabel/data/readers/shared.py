"""What the readers share: finding images below a folder, CSV tables, and the cohort of images that are in files."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, FloatArray
from activelabel.data.images import IMAGE_SUFFIXES, ImageFiles
from activelabel.errors import DataError, SettingsError, unknown

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names that publishers give to the parts, lower case, and ours."""

SEX = {"male": 0.0, "m": 0.0, "0": 0.0, "female": 1.0, "f": 1.0, "1": 1.0, "": np.nan, "unknown": np.nan}
"""``female`` of what is written for the sex, lower case."""

OLDEST = 120.0
"""Years; an age above it is a slip of the pen, and counts as missing."""


def data_folder(root: Path, inner: Sequence[str], marks: Sequence[str], expected: str) -> Path:
    """Return ``root`` or the first folder of ``inner`` below it that holds something of a data set.

    Parameters
    ----------
    root: what the user gave.
    inner: folders that the publisher's archive may have put around the data.
    marks: patterns; a folder that has a match of one of them is the one.
    expected: what should be there, for the message.

    Raises
    ------
    DataError: if there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Expected {expected}.")
    for folder in (root, *(root / name for name in inner)):
        if any(next(folder.glob(mark), None) is not None for mark in marks):
            return folder
    raise DataError(f"{root}: not the folder of the data set. Expected {expected}.")


def visible(name: str) -> bool:
    """Whether a file or folder is part of the data, not left there by an operating system."""
    return not name.startswith(".") and name != "__MACOSX"


def folders_in(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if visible(entry.name) and entry.is_dir())


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return visible(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def images_in(folder: Path) -> list[str]:
    """Return the names of the images that lie directly in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name) and entry.is_file())


def images_below(folder: Path, root: Path, refused: list[str] | None = None) -> list[str]:
    """Return the paths of all images below a folder, relative to ``root``, with forward slashes, sorted.

    Parameters
    ----------
    folder: where to look; one that is not there has none.
    root: that the paths are relative to.
    refused: gets a message for each folder that may not be read.

    Raises
    ------
    DataError: if a folder may not be read and there is no list to say so.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            message = f"{error.filename}: a folder that may not be read ({error.strerror})."
            if refused is None:
                raise DataError(message)
            refused.append(message)

    found: list[str] = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if visible(name)]
        named = [Path(here) / name for name in files if is_image(name)]
        # A pipe of that name would be waited on for ever; a link that leads nowhere is told when it is read.
        found += [path.relative_to(root).as_posix() for path in named if path.is_file() or not path.exists()]
    return sorted(found)


def existing(source: str, root: Path, names: Sequence[str], missing: str) -> NDArray[np.int64]:
    """Return the rows whose image is there.

    Parameters
    ----------
    source: name of the data set, for the message.
    root: the folder that ``names`` are relative to.
    names: of the images.
    missing: ``"refuse"``, or ``"skip"`` to leave out the rows without an image.

    Raises
    ------
    DataError: if an image is not there, or with ``"skip"`` none is.
    SettingsError: if ``missing`` is neither.
    """
    if missing not in ("refuse", "skip"):
        raise SettingsError(unknown("way with missing images", missing, ("refuse", "skip")))
    there = np.array([os.path.isfile(os.path.join(root, name)) for name in names], dtype=bool)
    if not there.all() and (missing == "refuse" or not there.any()):
        first = int(np.flatnonzero(~there)[0])
        hint = "" if not there.any() else " Fetch them, or leave their rows out with missing='skip'."
        raise DataError(
            f"{source}: {int((~there).sum())} of {len(names)} images are not there, the first {root / names[first]}."
            f"{hint}"
        )
    return np.flatnonzero(there)


def file_cohort(root: Path, names: Sequence[str], **fields: Any) -> Cohort:
    """Return a cohort of images in files, none of which is opened.

    Parameters
    ----------
    root: the folder of the data set.
    names: the images' paths below it.
    **fields: the other fields of :class:`~activelabel.data.cohort.Cohort`.
    """
    return Cohort(images=ImageFiles(names, root), names=np.array(names, dtype=np.str_), **fields)


def one_hot(codes: Sequence[int], classes: int) -> NDArray[np.int8]:
    """Return int8 ``(n, classes)`` with a 1 in the column of each row's class."""
    matrix = np.zeros((len(codes), classes), dtype=np.int8)
    matrix[np.arange(len(codes)), np.asarray(codes, dtype=np.int64)] = 1
    return matrix


def refuse_empty(source: str, labels: NDArray[np.int8], classes: Sequence[str]) -> None:
    """Check that every class has an image.

    Raises
    ------
    DataError: if one has none.
    """
    empty = [name for name, count in zip(classes, (labels == 1).sum(axis=0), strict=True) if not count]
    if empty:
        raise DataError(f"{source}: no image of {', '.join(empty)}. Is the download complete?")


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV file as text.

    Parameters
    ----------
    path: the file.
    columns: the header.
    rows: the cells of each row; at least as many as there are columns that are read.
    lines: the line of the file that each row ends on, for messages.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Table:
        """Return the table of some of the rows."""
        return replace(self, rows=[self.rows[i] for i in rows], lines=[self.lines[i] for i in rows])

    def text(self, column: str) -> list[str]:
        """Return the cells of a column without the blanks around them.

        Raises
        ------
        DataError: if there is no such column, or more than one, or a row is too short.
        """
        if self.columns.count(column) != 1:
            if column in self.columns:
                raise DataError(f"{self.path}: {self.columns.count(column)} columns are named '{column}'.")
            raise DataError(f"{self.path}: {unknown('column', column, filter(None, self.columns))}")
        place = self.columns.index(column)
        try:
            return [row[place].strip() for row in self.rows]
        except IndexError:
            number = next(number for number, row in enumerate(self.rows) if len(row) <= place)
            raise DataError(f"{self.where(number, column)}: the row has {len(self.rows[number])} cells only.") from None

    def where(self, row: int, column: str) -> str:
        """Return the place of a cell, for messages."""
        return f"{self.path}, line {self.lines[row]}, column '{column}'"

    def codes(self, column: str, meaning: Mapping[str, float], known: str) -> FloatArray:
        """Return a number for each cell, float32 ``(n,)``.

        Parameters
        ----------
        column: of the table.
        meaning: the number for each text, lower case.
        known: what may be written, for the message.

        Raises
        ------
        DataError: if something else is written.
        """
        cells = [cell.lower() for cell in self.text(column)]
        if strange := set(cells).difference(meaning):
            row = next(row for row, cell in enumerate(cells) if cell in strange)
            raise DataError(f"{self.where(row, column)}: '{cells[row]}'; known: {known}.")
        return np.array([meaning[cell] for cell in cells], dtype=np.float32)

    def numbers(self, column: str) -> FloatArray:
        """Return float32 ``(n,)``, NaN for empty cells, ``nan`` and ``unknown``.

        Raises
        ------
        DataError: if a cell is no finite number.
        """
        values = np.full(len(self), np.nan, dtype=np.float32)
        for row, cell in enumerate(self.text(column)):
            if cell.lower() in ("", "nan", "na", "unknown"):
                continue
            try:
                with np.errstate(over="ignore"):  # beyond float32: infinite, and refused below
                    values[row] = float(cell)
            except ValueError:
                raise DataError(f"{self.where(row, column)}: '{cell}' is no number.") from None
            if not np.isfinite(values[row]):
                raise DataError(f"{self.where(row, column)}: '{cell}' is not finite.")
        return values


def read_csv(path: Path) -> Table:
    """Read a CSV file with a header.

    Raises
    ------
    DataError: if it cannot be read or has no rows.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error}).") from None
    if not rows:
        raise DataError(f"{path}: no rows below a header.")
    return Table(path, tuple(name.strip() for name in header), rows, lines)
