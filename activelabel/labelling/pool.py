"""A folder of unlabelled images as features: every image once, whatever lies in the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activelabel.data import Cohort, Source
from activelabel.data.backbones import Backbone
from activelabel.data.cache import FeatureCache
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.embedding import EmbedSettings, default_workers, fill
from activelabel.data.images import IMAGE_SUFFIXES, ImageFiles
from activelabel.data.readers.shared import images_below
from activelabel.errors import DataError


@dataclass(frozen=True, eq=False)
class Pool:
    """The different images of a folder, and labelled ones that have been removed from it.

    Parameters
    ----------
    keys: text that stands for what an image holds, ``(n,)``.
    names: a path of each below the folder, ``(n,)``.
    features: float32 ``(n, d)``.
    present: rows that are in the folder now.
    paths: the key of every readable path, copies and all.
    unreadable: a message for each file or folder that cannot be used.
    """

    keys: list[str]
    names: list[str]
    features: FloatArray
    present: IntArray
    paths: dict[str, str]
    unreadable: list[str]

    @property
    def row(self) -> dict[str, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    @property
    def copies(self) -> int:
        """How many files hold the same as another."""
        return len(self.paths) - len(self.present)

    def patients(self, pattern: str | None) -> dict[str, str]:
        """Return the patient of each key by its path: the first group of a regular expression, or all that it matches.

        Raises
        ------
        DataError: if a path has no patient.
        """
        found: dict[str, str] = {}
        for path, key in self.paths.items() if pattern is not None else ():
            match = re.search(pattern or "", path)
            if match is None:
                raise DataError(f"{path}: --patient '{pattern}' finds no patient in it.")
            found.setdefault(key, match[1] if match.re.groups else match[0])
        return found

    def cohort(self) -> Cohort:
        """Return the images as a cohort in which nothing is labelled."""
        nothing = np.zeros((len(self.keys), 1), np.int8)
        return Cohort(nothing, ("unlabelled",), self.features, source=Source(name="the folder of images"))


def read_pool(
    folder: Path,
    backbone: Backbone,
    cache: Path,
    known: Mapping[str, str],
    labelled: Iterable[str],
    progress: bool = False,
) -> Pool:
    """Embed a folder; what was embedded before is looked up, also after an interruption.

    Parameters
    ----------
    folder: of the images, which may lie in folders further below.
    backbone: what computes features.
    cache: folder of the features.
    known: keys of paths that were seen before.
    labelled: keys of labelled images; those that the folder has no more are in the pool all the same, if they were
        embedded.
    progress: show a bar.

    Raises
    ------
    DataError: if there are no images, or none can be read.
    """
    names, unreadable = _found(folder)
    settings = EmbedSettings(workers=default_workers(), unreadable="skip", progress=progress)
    with closing(FeatureCache(cache / f"features-{backbone.key}.sqlite", backbone.dim)) as store:
        found = fill(ImageFiles(names, folder), backbone, store, settings, str(folder))
        keys = [_text(key.tobytes()) for key in found.keys]
        paths = {names[row]: key for row, key in zip(found.rows, keys, strict=True)}
        first = {key: name for name, key in reversed(paths.items())}
        present = dict(sorted(first.items(), key=lambda item: item[1]))
        before = {key: name for name, key in known.items()}
        gone = [key for key in labelled if key not in first and key in before and _bytes(key) in store]
        every = [*present, *gone]
        features = store.get([_bytes(key) for key in every])
    return Pool(
        every,
        [*present.values(), *(before[key] for key in gone)],
        features,
        np.arange(len(present)),
        paths,
        [*unreadable, *found.problems],
    )


def _found(folder: Path) -> tuple[list[str], list[str]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images.")
    names: list[str] = []
    unreadable: list[str] = []
    for name in images_below(folder, folder, unreadable):
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes that are no UTF-8: no CSV or JSON file could name it
            unreadable.append(f"{folder}/{name!a}: a name that is not UTF-8; rename the file.")
        else:
            names.append(name)
    if not names:
        if unreadable:
            raise DataError(f"{folder}: no images in it that can be read. {unreadable[0]}")
        raise DataError(f"{folder}: no images in it. Images are files that end in {', '.join(IMAGE_SUFFIXES)}.")
    return names, unreadable


def _text(key: bytes) -> str:
    """Return a key as a cell that no spreadsheet takes for a number."""
    return f"i{key.hex()}"


def _bytes(key: str) -> bytes:
    return bytes.fromhex(key[1:])
