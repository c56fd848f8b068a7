"""The results of a study: one row for each test task or episode, in a CSV or Parquet file.

================  =====================================================================================================
column            meaning
================  =====================================================================================================
study, grid       names of the study and of the grid in it
data, env         name of the data set, environment id
conditions        SelectiveLabel-v0: ``seen`` or ``held-out``
strategy, preset  who chose; the preset of an agent
seed              of an agent's training; empty for a strategy that is not trained
k                 SelectiveLabel-v0: images that were labelled
labels, batch     ActiveLabel-v0: labels in an episode, and a step
task              number of the test task or episode, the same for every strategy
metric, value     what was measured, and its value; of an episode after the last label
one_class         SelectiveLabel-v0: 1 where only one class was labelled, else 0
aulc              ActiveLabel-v0: area under the learning curve, as a share of the range of labels
curve             ActiveLabel-v0: the metric after 0, ``batch``, 2 ``batch`` ... ``labels`` labels, with spaces between
================  =====================================================================================================

The first line of the CSV file is a comment with the version of the format; numbers have as many digits as it takes to
read the same number back.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.errors import SettingsError
from activelabel.evaluation.study.spec import StudyError
from activelabel.files import atomic_path, write_text

FORMAT = 1
"""Of the results file."""

KEYS = ("study", "grid", "data", "env", "conditions", "strategy", "preset", "seed", "k", "labels", "batch", "metric")
"""Columns that are the same for all tasks of a block."""

COLUMNS = (*KEYS[:-1], "task", "metric", "value", "one_class", "aulc", "curve")
"""Columns of the file, in order."""

_COMMENT = "# activelabel study results, format "
_INTEGERS = ("seed", "k", "labels", "batch")


@dataclass(frozen=True, eq=False)
class Block:
    """What one strategy reached on the test tasks of one data set, one set of conditions and one budget.

    Parameters
    ----------
    keys: a value for each of :data:`KEYS`; None where it does not apply.
    value: float64 ``(n,)``, for tasks ``0 .. n - 1``.
    one_class: bool ``(n,)``, or None.
    aulc: float64 ``(n,)``, or None.
    curve: float64 ``(n, T + 1)``, or None.
    """

    keys: dict[str, str | int | None]
    value: NDArray[np.float64]
    one_class: NDArray[np.bool_] | None = None
    aulc: NDArray[np.float64] | None = None
    curve: NDArray[np.float64] | None = None

    @property
    def spent(self) -> NDArray[np.int64]:
        """Labels at the points of the curve, int64 ``(T + 1,)``."""
        assert self.curve is not None
        labels, batch = self.keys["labels"], self.keys["batch"]
        assert isinstance(labels, int)
        assert isinstance(batch, int)
        return np.minimum(np.arange(self.curve.shape[1]) * batch, labels)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row for each task, with every column; None where it does not apply."""
        for task, value in enumerate(self.value.tolist()):
            yield {
                **self.keys,
                "task": task,
                "value": value,
                "one_class": None if self.one_class is None else int(self.one_class[task]),
                "aulc": None if self.aulc is None else float(self.aulc[task]),
                "curve": None if self.curve is None else " ".join(map(repr, self.curve[task].tolist())),
            }


def write_results(blocks: Sequence[Block], path: str | os.PathLike[str]) -> None:
    """Write a results file, atomically; ``.parquet`` or anything else for CSV.

    Raises
    ------
    SettingsError: if Parquet is asked for and pyarrow is missing.
    """
    path = Path(path)
    rows = itertools.chain.from_iterable(block.rows() for block in blocks)
    if path.suffix == ".parquet":
        pa, pq = _pyarrow()
        kinds = {name: pa.int64() for name in (*_INTEGERS, "task", "one_class")}
        kinds |= {"value": pa.float64(), "aulc": pa.float64()}
        schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
        table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata({"activelabel": _COMMENT + str(FORMAT)}))
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)
        return
    text = io.StringIO()
    text.write(f"{_COMMENT}{FORMAT}\n")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: repr(v) if isinstance(v, float) else v for name, v in row.items()})
    write_text(path, text.getvalue())


def read_results(path: str | os.PathLike[str]) -> list[Block]:
    """Read a results file, in the order in which it was written.

    Raises
    ------
    StudyError: if it is missing, damaged, no results file, or of another version of the format.
    SettingsError: if it is Parquet and pyarrow is missing.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"{path}: not readable ({error}).") from None
        first, _, rest = text.partition("\n")
        _check_format(path, first)
        rows = csv.DictReader(io.StringIO(rest))
    blocks = []
    try:
        for _, group in itertools.groupby(rows, lambda row: tuple(row[name] for name in KEYS)):
            blocks.append(_block(list(group)))
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path}: damaged ({error!r}). Run the study again; what was finished is kept.") from None
    return blocks


def _block(rows: list[dict[str, Any]]) -> Block:
    def column(name: str, kind: type[Any]) -> NDArray[Any] | None:
        return None if rows[0][name] in ("", None) else np.array([float(row[name]) for row in rows]).astype(kind)

    keys = {name: rows[0][name] for name in KEYS}
    keys |= {name: None if keys[name] in ("", None) else int(keys[name]) for name in _INTEGERS}
    value = column("value", np.float64)
    if value is None or [int(row["task"]) for row in rows] != list(range(len(rows))):
        raise ValueError(f"tasks of {keys['strategy']}")
    curves = rows[0]["curve"] in ("", None)
    curve = None if curves else np.array([[float(v) for v in row["curve"].split()] for row in rows])
    return Block(keys, value, column("one_class", np.bool_), column("aulc", np.float64), curve)


def check_results(paths: Iterable[Path]) -> None:
    """Check that results files, where they are there, are of this version and may be replaced.

    Raises
    ------
    StudyError: if one is not.
    """
    for path in paths:
        if not path.exists():
            continue
        if path.suffix == ".parquet":
            _, pq = _pyarrow()
            _check_format(path, _parquet_comment(path, pq))
        else:
            with path.open("rb") as stream:
                _check_format(path, stream.readline(200).decode("utf-8", "replace").rstrip("\n"))


def _check_format(path: Path, first: str) -> None:
    if not first.startswith(_COMMENT):
        raise StudyError(f"{path}: not a results file of a study; it begins with {first[:60]!r}.")
    found = first.removeprefix(_COMMENT)
    if found != str(FORMAT):
        raise StudyError(
            f"{path}: results of format {found}; this version of activelabel reads and writes format {FORMAT}. Read it "
            "with the version that wrote it (provenance.json names it), or give another --out."
        )


def _parquet_comment(path: Path, pq: Any) -> str:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: not a readable Parquet file ({error}).") from None
    comment: str = metadata.get(b"activelabel", b"").decode("utf-8", "replace")
    return comment


def _parquet_rows(path: Path) -> Iterable[dict[str, Any]]:
    _, pq = _pyarrow()
    _check_format(path, _parquet_comment(path, pq))
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise SettingsError("Parquet needs a package: pip install pyarrow. Or keep to CSV.") from None
