"""The data sets that are known by name, and finding a cohort by name or by path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from activelabel import plugins
from activelabel.data.cohort import Cohort, Source
from activelabel.data.npz import load_npz
from activelabel.data.own import check_options, is_own, load_own, options_of
from activelabel.data.readers import (
    chexpert,
    kather,
    kermany,
    medmnist,
    nih,
    read_chexpert,
    read_folder,
    read_kather,
    read_kermany,
    read_medmnist,
    read_nih,
    read_table,
)
from activelabel.data.synthetic import SyntheticSettings, make_synthetic, numbered
from activelabel.errors import DataError, SettingsError, unknown
from activelabel.reading import given_path

LARGE = SyntheticSettings(n=80_000, dim=512)
"""Of ``synthetic-large``."""

NUMBERED = "Generated embeddings; each number has a shape of its own"
"""What ``synthetic-1``, ``synthetic-2`` ... are."""

DIGITS = Source(
    name="digits",
    licence="CC BY 4.0",
    citation="Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI",
    url="https://archive.ics.uci.edu/dataset/80",
    backbone="pixels",
)
"""Provenance of ``digits``."""


@dataclass(frozen=True)
class DataSet:
    """What the catalogue knows of a data set.

    Parameters
    ----------
    name: as :func:`load` takes it.
    title: what the images show.
    images: how many there are in all.
    classes: of the cohort that is read without options.
    licence, citation, url: as in :class:`~activelabel.data.cohort.Source`.
    by_hand: what the user has to download and how it must lie in its folder; empty for what needs no file.
    reader: reads the data set's folder, with the options of its keywords; None for what needs no file.
    folder: where the data set lies below the folder of all data sets.
    """

    name: str
    title: str
    images: int
    classes: tuple[str, ...]
    licence: str
    citation: str
    url: str
    by_hand: str = ""
    reader: Callable[..., Cohort] | None = None
    folder: str = ""

    def options(self) -> tuple[str, ...]:
        """Return the names of the options that :func:`load` takes for it."""
        return () if self.reader is None else options_of(self.reader)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    labels: str | Sequence[str] = "labels",
    normal: str | None = None,
    patient: str | None = None,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Cohort:
    """Return a cohort.

    Parameters
    ----------
    name_or_path: one of

        - a name of the catalogue (:func:`listing`): ``"synthetic"`` (the embedded default), ``"synthetic-1"``,
          ``"synthetic-2"`` ... (:func:`~activelabel.data.synthetic.shaped`), ``"digits"`` (scikit-learn's 1797 real
          8 x 8 images), ``"chexpert"``, ``"pathmnist"`` ...; all but the built-in ones are files that were downloaded
          before;
        - ``NAME:FOLDER``, a set of the catalogue that lies in another folder, such as
          ``"chexpert:/data/CheXpert-v1.0-small"``; ``"medmnist:pathmnist"`` is the same as ``"pathmnist"``;
        - a data set of your own, ``package.module:function`` or the name of an entry point
          (:mod:`activelabel.plugins`): a function that returns a cohort, whose keyword-only parameters are its options;
        - an ``.npz`` file in the format of :mod:`activelabel.data.npz`;
        - a ``.csv`` file of image paths and labels (:func:`~activelabel.data.readers.read_table`);
        - a folder of class folders (:func:`~activelabel.data.readers.read_folder`).
    labels: which labels are meant: in an npz file the array; in a CSV file the column of classes, or several columns of
        1, 0 and -1 as a sequence or with commas between them; for Kermany ``"pneumonia"`` or ``"subtype"``.
    normal: the class to tell conditions from; by default the one that the data marks or that is named so. For
        digits ``"0"``.
    patient: what groups the images for splitting: in an npz file the array, in a CSV file the column, for a folder a
        regular expression that finds the patient in an image's path.
    root: the folder of all data sets of the catalogue, each in a folder of its own; by default the environment variable
        ``ACTIVELABEL_DATA``, or ``~/.cache/activelabel/data``. For a CSV file, what its paths are relative to.
    **options: of the data set's reader, such as ``view="frontal"`` for CheXpert or ``size=64`` for MedMNIST.

    Raises
    ------
    DataError: if there is no such data set or file, or the files are not of the format. Of a set that has to be
        downloaded first, the message says what and where to put it.
    SettingsError: if an option is given that the data set does not have, or one of your own cannot be imported.
    """
    name = os.fspath(name_or_path)
    chosen = {"labels": labels, "patient": patient}
    chosen = {key: value for key, value in chosen.items() if value not in ("labels", None)} | options
    shape = numbered(name)
    if name in BUILT_IN or shape is not None:
        if "labels" in chosen or "patient" in chosen:
            raise SettingsError(f"labels= and patient= choose arrays of a file; '{name}' is built in.")
        check_options(name, chosen, ())
        cohort = BUILT_IN[name]() if shape is None else make_synthetic(shape)
    elif (entry := _entry(name)) is not None:
        cohort = _load_catalogued(*entry, root, chosen)
    elif is_own(name, CATALOG):
        cohort = load_own(name, chosen)
    else:
        return _load_path(name, given_path(name), root, normal, chosen)
    return cohort if normal is None else cohort.with_normal(normal)


def absolute(name_or_path: str) -> str:
    """Return a name that means the same from any directory: a path, alone or in ``NAME:FOLDER``, made absolute."""
    if name_or_path in ("", *CATALOG) or numbered(name_or_path) or is_own(name_or_path, CATALOG):
        return name_or_path
    entry = _entry(name_or_path)
    if entry is not None:
        return name_or_path if entry[1] is None else f"{entry[0].name}:{entry[1].resolve()}"
    path = given_path(name_or_path)
    # Unlike the path's own method, os.path.exists takes a name that is too long for one that is not there.
    return str(path.resolve()) if os.path.exists(path) else name_or_path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all data sets: ``root``, else ``ACTIVELABEL_DATA``, else ``~/.cache/activelabel/data``."""
    return given_path(root or os.environ.get("ACTIVELABEL_DATA") or "~/.cache/activelabel/data")


def folder_of(entry: DataSet, root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that a data set of the catalogue is read from.

    MedMNIST's sets lie in ``medmnist`` below the folder of all data sets where there is such a folder, otherwise where
    the package keeps them, in ``~/.medmnist``.
    """
    folder = data_root(root) / entry.folder
    if entry.folder == MEDMNIST and root is None and not os.path.isdir(folder):
        return given_path("~/.medmnist")
    return folder


def find(name: str) -> DataSet:
    """Return what the catalogue knows of a name.

    Raises
    ------
    DataError: if there is no such data set; the message has the closest match.
    """
    if shape := numbered(name):
        return replace(CATALOG["synthetic"], name=name, images=shape.n, title=NUMBERED, classes=shape.classes)
    if name not in CATALOG:
        raise DataError(plugins.not_known("data set", name, CATALOG))
    return CATALOG[name]


def describe(name: str) -> str:
    """Return all that the catalogue knows of a data set, as text of several lines.

    Raises
    ------
    DataError: as :func:`find`.
    """
    entry = find(name)
    lines = [
        f"{entry.name}: {entry.title}",
        f"  images    {entry.images:,}",
        f"  classes   {', '.join(entry.classes)}",
        f"  licence   {entry.licence}",
        f"  citation  {entry.citation}",
    ]
    if entry.url:
        lines.append(f"  url       {entry.url}")
    if entry.reader is None:
        lines.append("  files     none: it is built in")
    else:
        folder = folder_of(entry)
        lines.append(f"  files     {entry.by_hand}")
        lines.append(f"  folder    {folder} ({'there' if os.path.isdir(folder) else 'not there'}), or {name}:FOLDER")
        lines.append(f"  options   {', '.join(entry.options()) or 'none'}")
    return "\n".join(lines)


def listing() -> str:
    """Return a table of the catalogue: name, number of images and classes, licence, what the images show; and below it
    the data sets of entry points.

    "own terms" stands for a licence that :func:`describe` gives.
    """
    rows = [("name", "images", "classes", "licence", "what")]
    for entry in (find("synthetic-1"), *CATALOG.values()):
        licence = entry.licence if len(entry.licence) <= 12 else "own terms"
        rows.append((entry.name, f"{entry.images:,}", str(len(entry.classes)), licence, entry.title))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:<{widths[3]}}  {e}" for a, b, c, d, e in rows]
    own = plugins.described("data set").items()
    return "\n".join([*lines, *(f"{name:<{widths[0]}}  {what}" for name, what in own if name not in CATALOG)])


def _entry(name: str) -> tuple[DataSet, Path | None] | None:
    """Return the catalogue's entry and the folder that a name gives, or None where it is the name of neither."""
    if name in CATALOG:
        return CATALOG[name], None
    start, colon, rest = name.partition(":")
    if not colon or start not in (*CATALOG, MEDMNIST) or start in BUILT_IN:
        return None
    if start != MEDMNIST:
        return CATALOG[start], given_path(rest)
    if rest in medmnist.SETS:
        return CATALOG[rest], None
    kind = "volumes; only the 2-D sets are read." if rest in medmnist.THREE_D else ""
    raise DataError(f"{rest} holds {kind}" if kind else unknown("MedMNIST set", rest, medmnist.SETS))


def _load_catalogued(
    entry: DataSet, given: Path | None, root: str | os.PathLike[str] | None, options: dict[str, Any]
) -> Cohort:
    assert entry.reader is not None  # the built-in ones have been taken out
    check_options(entry.name, options, entry.options())
    folder = folder_of(entry, root) if given is None else given
    if not os.path.isdir(folder) and not options.get("download"):
        raise DataError(
            f"{entry.name} is not in {folder}. {entry.by_hand} Another folder is given as {entry.name}:FOLDER. Its "
            f"licence: {entry.licence}."
        )
    return entry.reader(folder, **options)


def _load_path(
    name: str, path: Path, root: str | os.PathLike[str] | None, normal: str | None, options: dict[str, Any]
) -> Cohort:
    if path.suffix.lower() == ".npz":
        check_options(str(path), options, ("labels", "patient"))
        return load_npz(path, normal=normal, **options)
    if path.suffix.lower() == ".csv":
        if isinstance(columns := options.get("labels"), str):
            del options["labels"]
            options |= {"labels": columns.split(",")} if "," in columns else {"label": columns}
        check_options(str(path), options, options_of(read_table))
        cohort = read_table(path, root=root, **options)
    elif os.path.isdir(path):
        check_options(str(path), options, options_of(read_folder))
        cohort = read_folder(path, **options)
    elif os.path.exists(path):
        raise DataError(f"{path}: not a cohort. Give an .npz file, a .csv file, or a folder of class folders.")
    else:
        raise DataError(
            f"{plugins.not_known('data set', name, CATALOG)} Or give the path of an .npz file, a .csv file, or a "
            "folder of class folders."
        )
    return cohort if normal is None else cohort.with_normal(normal)


@lru_cache(maxsize=1)
def _synthetic() -> Cohort:
    return make_synthetic()


def _synthetic_large() -> Cohort:
    return make_synthetic(LARGE)


@lru_cache(maxsize=1)
def _digits() -> Cohort:
    from sklearn.datasets import load_digits  # late: it imports half of scikit-learn

    bunch = load_digits()
    images = np.asarray(bunch.images)
    return Cohort(
        labels=np.eye(10, dtype=np.int8)[bunch.target],
        classes=tuple(str(digit) for digit in range(10)),
        features=images.reshape(len(images), -1).astype(np.float32),
        images=(images * (255 / 16)).astype(np.uint8),
        normal=0,
        source=DIGITS,
    )


BUILT_IN: dict[str, Callable[[], Cohort]] = {
    "synthetic": _synthetic,
    "synthetic-large": _synthetic_large,
    "digits": _digits,
}
"""The data sets that need no file."""

MEDMNIST = "medmnist"
"""The folder of MedMNIST's sets, and what may stand before their names."""


def _built_in(name: str, title: str, images: int, classes: tuple[str, ...], source: Source) -> DataSet:
    return DataSet(name, title, images, classes, source.licence, source.citation, source.url)


def _published(
    source: Source,
    title: str,
    images: int,
    classes: tuple[str, ...],
    by_hand: str,
    reader: Callable[..., Cohort],
    folder: str,
) -> DataSet:
    return DataSet(
        source.name, title, images, classes, source.licence, source.citation, source.url, by_hand, reader, folder
    )


def _entries() -> Iterable[DataSet]:
    generated = Source(licence="CC0", citation="activelabel.data.synthetic")
    yield _built_in("synthetic", "Generated embeddings", SyntheticSettings().n, LARGE.classes, generated)
    yield _built_in("synthetic-large", "More of them, wider", LARGE.n, LARGE.classes, generated)
    yield _built_in("digits", "Handwritten digits, 8 x 8", 1797, tuple("0123456789"), DIGITS)
    yield _published(
        chexpert.SOURCE,
        "Chest X-rays, frontal and lateral, 14 observations",
        223_648,
        chexpert.CLASSES,
        f"Register at {chexpert.SOURCE.url}, download CheXpert-v1.0-small (11 GB) or CheXpert-v1.0 (439 GB), and "
        "unpack it so that the folder holds train.csv, valid.csv, train/ and valid/. It has no part 'test'.",
        read_chexpert,
        "CheXpert-v1.0-small",
    )
    yield _published(
        kermany.SOURCE,
        "Paediatric chest X-rays, pneumonia or not",
        5_856,
        kermany.CLASSES["pneumonia"],
        f"Download the chest X-rays (1.2 GB; ChestXRay2017.zip in version 2) from {kermany.SOURCE.url}, and unpack "
        "them so that the folder holds train/NORMAL/, train/PNEUMONIA/, test/NORMAL/ and test/PNEUMONIA/.",
        read_kermany,
        "chest_xray",
    )
    yield _published(
        kather.SOURCE,
        "Colorectal histology, tiles of eight tissues",
        5_000,
        kather.CLASSES,
        f"Download {kather.FOLDER}.zip (250 MB) from {kather.SOURCE.url}, and unpack it so that the folder holds "
        "01_TUMOR/ to 08_EMPTY/.",
        read_kather,
        kather.FOLDER,
    )
    yield _published(
        nih.SOURCE,
        "Chest X-rays, frontal, 14 findings",
        112_120,
        nih.CLASSES,
        "Download Data_Entry_2017_v2020.csv, train_val_list.txt, test_list.txt and the twelve archives of images "
        f"(42 GB) from {nih.SOURCE.url}, and unpack them so that the folder holds the three files and images/, or "
        "images_001/ to images_012/. It has no part 'val'.",
        read_nih,
        "ChestX-ray14",
    )
    for name, known in medmnist.SETS.items():
        yield _published(
            medmnist.source(name),
            known.title,
            sum(known.images),
            known.all_classes(),
            f"Download {name}.npz (28 x 28), {name}_64.npz, {name}_128.npz or {name}_224.npz from "
            "https://doi.org/10.5281/zenodo.10519652 into the folder, or load it with download=True.",
            partial(read_medmnist, name),
            MEDMNIST,
        )


CATALOG: dict[str, DataSet] = {entry.name: entry for entry in _entries()}
"""The data sets by name; :func:`describe` says all about one."""
