"""Features that were computed before, on disk, by what the images hold."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from activelabel.data.cohort import FloatArray
from activelabel.errors import DataError


def default_folder() -> Path:
    """Return the folder of caches: ``ACTIVELABEL_CACHE``, or ``activelabel`` in the user's cache folder."""
    given = os.environ.get("ACTIVELABEL_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "activelabel" / "embeddings"


class FeatureCache:
    """Features of one backbone, by the content of the images; a SQLite file that several processes may use.

    What was put in and committed survives a crash.

    Parameters
    ----------
    path: of the file, made if it is not there; None for a temporary one on disk, which vanishes with the object.
    dim: features an image.

    Raises
    ------
    DataError: if the file cannot be opened, or is no such cache.
    """

    def __init__(self, path: Path | None, dim: int) -> None:
        self.path, self.dim = path, dim
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as unusable:
                self._base = sqlite3.connect(path or "", timeout=60, check_same_thread=False)
                unusable.callback(self._base.close)
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute(
                    "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
                )
                self._base.commit()
                unusable.pop_all()
        except sqlite3.Error as error:
            raise DataError(
                f"{path}: no usable cache of features ({error}). Where the disk is full, make room; else delete it, or "
                "give another."
            ) from None

    def __contains__(self, key: bytes) -> bool:
        with self._lock:
            found = self._base.execute("SELECT length(value) FROM features WHERE key = ?", (key,)).fetchone()
        return found is not None and found[0] == 4 * self.dim

    def put(self, keys: Sequence[bytes], features: FloatArray) -> None:
        """Keep features, float32 ``(len(keys), dim)``, and commit.

        Raises
        ------
        DataError: if they cannot be written, as on a full disk; what was there stays.
        """
        rows = [(key, np.ascontiguousarray(row, "<f4").tobytes()) for key, row in zip(keys, features, strict=True)]
        with self._lock:
            try:
                with self._base:
                    self._base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
            except sqlite3.Error as error:
                raise DataError(
                    f"{self.path}: features could not be kept ({error}). Those of before stay: make room, and give the "
                    "command again."
                ) from None

    def get(self, keys: Sequence[bytes]) -> FloatArray:
        """Return features, float32 ``(len(keys), dim)``.

        Raises
        ------
        DataError: if one is missing or damaged.
        """
        out = np.empty((len(keys), self.dim), np.float32)
        with self._lock:
            try:
                for i, key in enumerate(keys):
                    found = self._base.execute("SELECT value FROM features WHERE key = ?", (key,)).fetchone()
                    if found is None or len(found[0]) != 4 * self.dim:
                        raise DataError(
                            f"{self.path}: no features of an image in the cache; was it changed by another program?"
                        )
                    out[i] = np.frombuffer(found[0], "<f4")
            except sqlite3.Error as error:
                raise DataError(f"{self.path}: not a readable cache ({error}). Delete it.") from None
        return out

    def __len__(self) -> int:
        with self._lock:
            return int(self._base.execute("SELECT count(*) FROM features").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._base.close()
