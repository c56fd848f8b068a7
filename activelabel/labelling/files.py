"""The files of a batch: a CSV file to fill in and the import of Label Studio; and reading both back.

Label Studio takes a list of tasks, ``{"data": {...}}``, and exports them with ``annotations`` (JSON), or each task as
its data with the answer under the name of the control, ``"label"`` (JSON-MIN, CSV).
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import quoteattr

from activelabel.data.readers.shared import read_csv
from activelabel.errors import DataError, unknown
from activelabel.files import write_text
from activelabel.labelling.project import Batch, ProjectSettings, Statement
from activelabel.reading import encodable, first_line

COLUMNS = ("rank", "image", "label", "why", "score", "key")
"""Of the CSV file."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = "label"


# -- writing ----------------------------------------------------------------------------------------------------------


def files_of(out: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return the paths of a batch's files: ``"csv"``, ``"tasks"``, and with classes ``"config"``."""
    found = {"csv": out, "tasks": out.with_suffix(".tasks.json")}
    return {**found, "config": out.with_suffix(".config.xml")} if classes else found


def write_batch(batch: Batch, settings: ProjectSettings) -> list[Path]:
    """Write the files of a batch that are not there; one that is may hold labels already and is left alone.

    Returns
    -------
    The files that were written.
    """
    texts = {
        "csv": lambda: table_text(batch),
        "tasks": lambda: tasks_text(batch, settings),
        "config": lambda: config_text(settings.classes),
    }
    missing = {kind: path for kind, path in files_of(batch.out, settings.classes).items() if not path.exists()}
    for kind, path in missing.items():
        write_text(path, texts[kind]())
    return list(missing.values())


def table_text(batch: Batch) -> str:
    """Return the CSV file, with a byte-order mark, by which spreadsheets know UTF-8.

    No cell can be taken for a formula: a path that begins like one gets ``./`` before it.
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(COLUMNS)
    for item in batch.items:
        path = f"./{item.path}" if item.path.startswith(_FORMULA) else item.path
        table.writerow([item.rank, path, "", item.why, "" if item.score is None else f"{item.score:.6g}", item.key])
    return "\ufeff" + stream.getvalue()


def tasks_text(batch: Batch, settings: ProjectSettings) -> str:
    """Return the tasks to import into Label Studio, in the order of the ranks."""
    root = Path(settings.images)
    url = f"/data/local-files/?d={quote(root.name)}/" if settings.url is None else settings.url
    tasks = [
        {
            "data": {
                "image": url + quote(item.path),
                "rank": item.rank,
                "path": item.path,
                "why": item.why,
                "key": item.key,
            }
        }
        for item in batch.items
    ]
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def config_text(classes: Sequence[str]) -> str:
    """Return Label Studio's labelling interface: the image and one choice of the classes."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <Choices name="{_CONTROL}" toName="image" choice="single" required="true">\n{choices}\n  </Choices>\n'
        "</View>\n"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Reading:
    """What files of labels say.

    Parameters
    ----------
    statements: the labels and skipped images.
    patients: the patient of each key, where a file has that column.
    problems: a message for each label that could not be taken.
    empty: images in the files that have no label yet.
    """

    statements: list[Statement] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    empty: int = 0


def read_labels(files: Sequence[Path], paths: Mapping[str, str], settings: ProjectSettings) -> Reading:
    """Read labels; what cannot be taken is told, the rest is taken.

    Parameters
    ----------
    files: CSV files with the columns ``label`` and ``key`` or ``image`` (and ``patient``), or exports of Label Studio:
        JSON, JSON-MIN, CSV.
    paths: the key of each path below the folder of images.
    settings: of the project.

    Raises
    ------
    DataError: if a file cannot be read, or has other columns.
    """
    reading, look = Reading(), _Lookup(paths, settings)
    for file in files:
        (_read_export if file.suffix.lower() == ".json" else _read_table)(file, look, settings.classes, reading)
    # JSON can hold halves of surrogate pairs, which cannot be printed.
    reading.problems = [text.encode("utf-8", "backslashreplace").decode() for text in reading.problems]
    return reading


class _Lookup:
    """Finds the image that a row or a task is about."""

    def __init__(self, paths: Mapping[str, str], settings: ProjectSettings) -> None:
        self.paths, self.keys = paths, frozenset(paths.values())
        self.root, self.url = Path(settings.images), settings.url

    def __call__(self, known: Mapping[str, Any]) -> str | None:
        """Return the key of an image by its ``key``, ``path`` or ``image``, a path or a URL; None for another image."""
        if isinstance(known.get("key"), str) and known["key"] in self.keys:
            return str(known["key"])
        for name in ("path", "image"):
            text = known.get(name)
            if isinstance(text, str):
                for path in self._paths(text):
                    if path in self.paths:
                        return self.paths[path]
        return None

    def _paths(self, text: str) -> list[str]:
        """Return the paths that a text may mean."""
        plain = posixpath.normpath(text.replace("\\", "/")) if text not in self.paths else text
        found = [text, plain]
        if Path(text).is_absolute() and Path(text).is_relative_to(self.root):
            found.append(Path(text).relative_to(self.root).as_posix())
        if self.url is not None and text.startswith(self.url):
            found.append(unquote(text[len(self.url) :]))
        _, sign, query = text.partition("/data/local-files/?")
        if sign:
            found += [path.removeprefix(f"{self.root.name}/") for path in parse_qs(query).get("d", [])]
        return found


def _take(reading: Reading, file: Path, where: str, key: str, label: str, classes: Sequence[str]) -> None:
    if not encodable(label):
        reading.problems.append(f"{where}: {label!r} is no text: half of a surrogate pair.")
    elif classes and label not in classes:
        reading.problems.append(f"{where}: {unknown('class', label, classes)}")
    else:
        reading.statements.append(Statement(key, label, str(file.resolve())))


def _read_table(file: Path, look: _Lookup, classes: Sequence[str], reading: Reading) -> None:
    table = read_csv(file)
    if len(table.columns) == 1 and any(sign in table.columns[0] for sign in ";\t"):
        raise DataError(f"{file}: its columns are not separated by commas; save it as CSV with commas, UTF-8.")
    labels = table.text(_CONTROL)
    names = [name for name in ("key", "path", "image") if name in table.columns]
    if not names:
        raise DataError(f"{file}: no column 'key' or 'image' that tells which image a label is of.")
    known = {name: table.text(name) for name in names}
    patients = table.text("patient") if "patient" in table.columns else None
    for row, label in enumerate(labels):
        where = f"{file}, line {table.lines[row]}"
        key = look({name: cells[row] for name, cells in known.items()})
        if key is None:
            reading.problems.append(f"{where}: '{known[names[-1]][row]}' is not in the folder of images.")
            continue
        if patients is not None and patients[row]:
            reading.patients[key] = patients[row]
        if label:
            _take(reading, file, where, key, label, classes)
        else:
            reading.empty += 1


def _read_export(file: Path, look: _Lookup, classes: Sequence[str], reading: Reading) -> None:
    try:
        tasks = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON ({first_line(error)}).") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{file}: not an export of Label Studio: expected a list of tasks.")
    for number, task in enumerate(tasks, start=1):
        named = task.get("id", number)
        where = f"{file}, task {named if isinstance(named, (str, int)) else number}"
        data = task["data"] if isinstance(task.get("data"), dict) else task
        key = look(data)
        if key is None:
            reading.problems.append(f"{where}: {reprlib.repr(data.get('image'))} is not in the folder of images.")
            continue
        answers = _answers(task)
        reading.empty += not answers
        for answer in answers:
            if len(answer) > 1:
                reading.problems.append(
                    f"{where}: {len(answer)} classes ({', '.join(answer)}) for one image; give one."
                )
            elif answer:
                _take(reading, file, where, key, answer[0], classes)
            else:
                reading.statements.append(Statement(key, None, str(file.resolve())))


def _answers(task: Mapping[str, Any]) -> list[list[str]]:
    """Return the classes that each annotator chose; none where the task was skipped."""
    given = task.get("annotations", task.get("completions"))  # their name before version 1
    if not isinstance(given, list):
        return [_texts(task[_CONTROL])] if task.get(_CONTROL) else []
    found = []
    for annotation in given:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        results = results if isinstance(results, list) else []
        results = [part for part in results if isinstance(part, dict) and part.get("type") == "choices"]
        named = [part for part in results if part.get("from_name") == _CONTROL] or results
        classes = [text for part in named for text in _texts(part.get("value"))]
        if classes or (isinstance(annotation, dict) and annotation.get("was_cancelled")):
            found.append([] if annotation.get("was_cancelled") else classes)
    return found


def _texts(value: Any) -> list[str]:
    """Return the choices in a value, which is one of them, a list, or ``{"choices": [...]}``."""
    if isinstance(value, dict):
        value = value.get("choices")
    texts = value if isinstance(value, list) else [value]
    found = [str(text).strip() for text in texts if isinstance(text, (str, int, float))]
    return [text for text in found if text]
