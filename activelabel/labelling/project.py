"""A labelling project: what was given out, and every label that came back, in a file that survives a kill."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from activelabel.errors import DataError, SettingsError
from activelabel.reading import first_line

STATE = "project.sqlite"
"""The file in a project's folder that holds all but the features."""

_UNREADABLE = (sqlite3.Error, UnicodeError)  # of a message that quotes a damaged name
_KINDS: dict[str, Any] = {"i": int, "t": str, "T": (str, type(None)), "F": (float, int, type(None))}
"""Types of SQLite's columns: whole number, text, text or none, number or none. SQLite itself takes anything."""

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS paths (path TEXT PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS patients (key TEXT PRIMARY KEY, patient TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY, place TEXT NOT NULL UNIQUE, strategy TEXT NOT NULL, seen INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS given (
    key TEXT PRIMARY KEY, batch INTEGER NOT NULL, rank INTEGER NOT NULL, path TEXT NOT NULL, score REAL,
    why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS statements (
    id INTEGER PRIMARY KEY AUTOINCREMENT, reading INTEGER NOT NULL, key TEXT NOT NULL, label TEXT, source TEXT NOT NULL,
    time TEXT NOT NULL);
"""


@dataclass(frozen=True)
class ProjectSettings:
    """What a project is about, and how its next batch is chosen.

    Parameters
    ----------
    images: the folder of images, absolute.
    backbone, weights, size: see :func:`~activelabel.data.backbones.make_backbone`.
    identity: of the backbone, with a digest of its weights.
    classes: the labels that may be given; none means any.
    patient: a regular expression that finds the patient in an image's path, or None.
    url: what stands before an image's path in Label Studio's tasks; None for its local file serving.
    strategy: name of a baseline; without effect where there is a ``model``.
    model: directory of a run, absolute, or None.
    k: images a batch.
    learner: the classifier that is fitted on the labels.
    candidates: how many images are considered for a batch at most.
    seed: of all that is random.
    """

    images: str
    backbone: str
    weights: str | None
    size: int | None
    identity: str
    classes: tuple[str, ...] = ()
    patient: str | None = None
    url: str | None = None
    strategy: str = "kmedoids"
    model: str | None = None
    k: int = 50
    learner: str = "softmax"
    candidates: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.candidates < 1 or self.seed < 0:
            raise SettingsError(
                f"k={self.k} and candidates={self.candidates} must be at least 1, and seed={self.seed} not negative."
            )
        if len(self.classes) == 1:
            raise SettingsError(
                f"one class, '{self.classes[0]}', leaves nothing to choose: name all, with blanks between them, as in "
                "--classes NORMAL PNEUMONIA."
            )
        if len(set(self.classes)) != len(self.classes) or not all(name.strip() == name != "" for name in self.classes):
            raise SettingsError(
                f"classes {', '.join(map(repr, self.classes))}: each must be named once, without blanks around it."
            )
        try:
            re.compile(self.patient or "")
        except re.error as error:
            raise SettingsError(f"--patient '{self.patient}' is no regular expression ({error}).") from None


@dataclass(frozen=True)
class Item:
    """An image that is given out.

    Parameters
    ----------
    key: of what it holds.
    path: below the folder of images, with forward slashes.
    rank: from 1, the order in which images should be labelled.
    score: what it was chosen by, where the strategy has a number; larger is more wanted.
    why: the reason in words.
    """

    key: str
    path: str
    rank: int
    score: float | None
    why: str


@dataclass(frozen=True)
class Batch:
    """Images that were given out together.

    Parameters
    ----------
    number: from 1.
    out: the CSV file that they are written to, absolute.
    strategy: that chose them.
    seen: how many statements there were then.
    items: by rank.
    """

    number: int
    out: Path
    strategy: str
    seen: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Statement:
    """What a file says about an image; ``label`` None means that an annotator skipped it."""

    key: str
    label: str | None
    source: str


@dataclass(frozen=True, eq=False)
class Added:
    """What :meth:`Project.add` found: how many images have a label for the first time, and those whose label became
    another, by key, before and after."""

    new: int
    changed: dict[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Answers:
    """What is known of the images, by key.

    Parameters
    ----------
    labels: the label.
    skipped: images that the annotators skipped.
    conflicts: images that the last reading has several labels of; they have none until that is settled.
    """

    labels: dict[str, str]
    skipped: frozenset[str]
    conflicts: dict[str, tuple[str, ...]]


class Project:
    """A folder with a SQLite file; every change is one transaction.

    Parameters
    ----------
    folder: of the project.
    create: make it where it is not there.

    Raises
    ------
    SettingsError: if it is not there and is not to be made.
    DataError: if its file cannot be opened or is none of ours.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder, path = folder, folder / STATE
        if not path.exists() and not create:
            raise SettingsError(f"{folder}: no labelling project; python -m activelabel select makes one.")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
        except sqlite3.Error as error:
            raise DataError(f"{path}: not a usable project ({error}).") from None
        try:
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise DataError(f"{path}: a project of another version of ActiveLabel ({version}, not {_VERSION}).")
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA user_version = {_VERSION}")
        except DataError:
            self._base.close()
            raise
        except _UNREADABLE as error:
            self._base.close()
            raise DataError(f"{path}: not a usable project ({first_line(error)}).") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, on disk at the end; others wait."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # a full disk may have ended it
                    self._base.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise DataError(
                f"{self.folder / STATE}: could not be written ({error}). What was there before is whole: make room "
                "where the disk is full, and give the command again."
            ) from None

    def _rows(self, kinds: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what is found; ``kinds`` has a letter of :data:`_KINDS` for each column."""
        try:
            found = self._base.execute(query, values).fetchall()
        except _UNREADABLE as error:
            raise DataError(f"{self.folder / STATE}: not readable ({error}).") from None
        types = [_KINDS[kind] for kind in kinds]
        for row in found:
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                raise DataError(f"{self.folder / STATE}: damaged: '{query}' finds {row!r}.")
        return found

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    # -- settings and images ------------------------------------------------------------------------------------------

    @property
    def settings(self) -> ProjectSettings | None:
        """The settings, or None in a new project.

        Raises
        ------
        DataError: if they are damaged.
        """
        found = self._rows("t", "SELECT value FROM settings WHERE name = 'settings'")
        if not found:
            return None
        try:
            values = json.loads(found[0][0])
            values["classes"] = tuple(values["classes"])
            return ProjectSettings(**{f.name: values[f.name] for f in fields(ProjectSettings)})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{self.folder / STATE}: damaged settings ({error!r}).") from None

    def keep(self, settings: ProjectSettings) -> None:
        """Write the settings."""
        with self._transaction():
            self._base.execute(
                "INSERT OR REPLACE INTO settings VALUES ('settings', ?)", (json.dumps(asdict(settings)),)
            )

    def keep_images(self, paths: Mapping[str, str], patients: Mapping[str, str]) -> None:
        """Remember the key of each path and the patient of each key; those that are not named are kept."""
        with self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO paths VALUES (?, ?)", paths.items())
            self._base.executemany("INSERT OR REPLACE INTO patients VALUES (?, ?)", patients.items())

    def paths(self) -> dict[str, str]:
        """Return the key of every path that was ever seen."""
        return dict(self._rows("tt", "SELECT path, key FROM paths"))

    def patients(self) -> dict[str, str]:
        """Return the patient of each key that has one."""
        return dict(self._rows("tt", "SELECT key, patient FROM patients"))

    # -- giving out ---------------------------------------------------------------------------------------------------

    def give_out(self, out: Path, strategy: str, items: Sequence[Item], seen: int) -> Batch:
        """Record a new batch.

        Parameters
        ----------
        out: the file that it will be written to.
        strategy: that chose the images.
        items: which.
        seen: statements that the choice knew.

        Raises
        ------
        DataError: if an image was given out before, or the file belongs to another batch: another process did it.
        """
        with self._transaction():
            number = self._base.execute("SELECT coalesce(max(number), 0) + 1 FROM batches").fetchone()[0]
            # Relative, so that a project may be moved together with its files.
            place = os.path.relpath(out.resolve(), self.folder.resolve())
            try:
                self._base.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (number, place, strategy, seen))
                rows = [(i.key, number, i.rank, i.path, i.score, i.why) for i in items]
                self._base.executemany("INSERT INTO given VALUES (?, ?, ?, ?, ?, ?)", rows)
            except sqlite3.IntegrityError:
                raise DataError(
                    f"{self.folder}: another process has given out images meanwhile; give the command again."
                ) from None
        return Batch(number, out.resolve(), strategy, seen, tuple(items))

    def batches(self) -> list[Batch]:
        """Return all batches, the first first."""
        found = []
        for number, place, strategy, seen in self._rows(
            "itti", "SELECT number, place, strategy, seen FROM batches ORDER BY number"
        ):
            items = self._rows(
                "ttiFt", "SELECT key, path, rank, score, why FROM given WHERE batch = ? ORDER BY rank", number
            )
            if "\0" in place:
                raise DataError(f"{self.folder / STATE}: damaged: a batch written to {place!r}.")
            out = (self.folder / place).resolve()
            found.append(Batch(number, out, strategy, seen, tuple(Item(*item) for item in items)))
        return found

    # -- labels -------------------------------------------------------------------------------------------------------

    def add(self, statements: Iterable[Statement]) -> Added:
        """Append what files say of the images of which one says something else than when it was last read.

        All statements of a call are one reading. What the last reading with news of an image says of it counts.
        """
        said: dict[str, dict[str, set[str | None]]] = {}
        for statement in statements:
            said.setdefault(statement.key, {}).setdefault(statement.source, set()).add(statement.label)
        with self._transaction():
            before, earlier = self.answers(), self._last_of_each_source()
            reading = self._base.execute("SELECT coalesce(max(reading), 0) + 1 FROM statements").fetchone()[0]
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            self._base.executemany(
                "INSERT INTO statements (reading, key, label, source, time) VALUES (?, ?, ?, ?, ?)",
                [
                    (reading, key, label, source, now)
                    for key, sources in said.items()
                    if any(earlier.get((source, key)) != labels for source, labels in sources.items())
                    for source, labels in sources.items()
                    for label in sorted(labels, key=lambda label: label or "")
                ],
            )
            after = self.answers()
        known = set(before.labels) | set(before.conflicts)
        changed = {
            key: (before.labels[key], label)
            for key, label in after.labels.items()
            if before.labels.get(key, label) != label
        }
        return Added(len(set(after.labels) - known), changed)

    def _last_of_each_source(self) -> dict[tuple[str, str], set[str | None]]:
        found: dict[tuple[str, str], tuple[int, set[str | None]]] = {}
        for reading, key, label, source in self._rows(
            "itTt", "SELECT reading, key, label, source FROM statements ORDER BY id"
        ):
            if found.get((source, key), (0,))[0] != reading:
                found[source, key] = (reading, set())
            found[source, key][1].add(label)
        return {place: labels for place, (_, labels) in found.items()}

    def seen(self) -> int:
        """Return how many statements there are."""
        return int(self._rows("i", "SELECT count(*) FROM statements")[0][0])

    def answers(self) -> Answers:
        """Return the present labels; that somebody skipped an image takes away no label."""
        last: dict[str, tuple[int, set[str]]] = {}
        skipped = set()
        for reading, key, label in self._rows("itT", "SELECT reading, key, label FROM statements ORDER BY id"):
            if label is None:
                skipped.add(key)
                continue
            if last.get(key, (0,))[0] != reading:
                last[key] = (reading, set())
            last[key][1].add(label)
        return Answers(
            {key: next(iter(labels)) for key, (_, labels) in last.items() if len(labels) == 1},
            frozenset(skipped - set(last)),
            {key: tuple(sorted(labels)) for key, (_, labels) in last.items() if len(labels) > 1},
        )
