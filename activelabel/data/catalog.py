"""Finding a cohort by name or by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from activelabel.data.cohort import Cohort, Source
from activelabel.data.npz import load_npz
from activelabel.data.synthetic import SyntheticSettings, make_synthetic
from activelabel.errors import DataError, SettingsError, unknown


def load(
    name_or_path: str | os.PathLike[str],
    *,
    labels: str = "labels",
    normal: str | None = None,
    patient: str | None = None,
) -> Cohort:
    """Return a cohort.

    Parameters
    ----------
    name_or_path: ``"synthetic"`` (the embedded default), ``"digits"`` (scikit-learn's 1797 real 8 x 8 images, no
        download), or an ``.npz`` file in the format of :mod:`activelabel.data.npz`.
    labels: in a file, which array holds the labels.
    normal: the class to tell conditions from; by default the one that the data marks or that is named so. For
        digits ``"0"``.
    patient: in a file, which array groups the images for splitting.

    Raises
    ------
    DataError: if there is no such data set or file, or the file is not of the format.
    SettingsError: if an option is given that the data set does not have.
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        if labels != "labels" or patient is not None:
            raise SettingsError(f"labels= and patient= choose arrays of a file; '{name}' is built in.")
        cohort = BUILT_IN[name]()
        return cohort if normal is None else cohort.with_normal(normal)
    path = Path(name).expanduser()
    if path.suffix == ".npz":
        return load_npz(path, labels=labels, normal=normal, patient=patient)
    if path.exists():
        raise DataError(f"{path}: only .npz cohorts can be read; save yours with Cohort.save or numpy.savez.")
    raise DataError(f"{unknown('data set', name, BUILT_IN)} Or give the path of an .npz file.")


@lru_cache(maxsize=1)
def _synthetic() -> Cohort:
    return make_synthetic()


def _synthetic_large() -> Cohort:
    return make_synthetic(SyntheticSettings(n=80_000, dim=512))


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
        source=Source(
            name="digits",
            licence="CC BY 4.0",
            citation="Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI",
            url="https://archive.ics.uci.edu/dataset/80",
            backbone="pixels",
        ),
    )


BUILT_IN: dict[str, Callable[[], Cohort]] = {
    "synthetic": _synthetic,
    "synthetic-large": _synthetic_large,
    "digits": _digits,
}
"""The data sets that need no file."""
