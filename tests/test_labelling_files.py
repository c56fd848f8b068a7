"""The files of a labelling project: what is written can be read back, and nothing that was said is lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from activelabel.errors import DataError, SettingsError
from activelabel.labelling.files import Reading, read_labels, table_text, tasks_text, write_batch
from activelabel.labelling.project import STATE, Batch, Item, Project, ProjectSettings, Statement

HOSTILE = (
    "plain.png",
    "two words.png",
    "a,b;c.png",
    'say "x".png',
    "=1+1.png",
    "+cmd.png",
    "-2.png",
    "@sum.png",
    "\ttab.png",
    "röntgen/Lunge °ß 肺.png",
    "100%25.png",
    "a&b=c#d?e.png",
    "line\nbreak.png",
    " blank .png",
    "back\\slash.png",
)
KEYS = {name: f"i{number:032x}" for number, name in enumerate(HOSTILE)}


@pytest.fixture
def settings(tmp_path: Path) -> ProjectSettings:
    return ProjectSettings(str(tmp_path / "my scans"), "b", None, None, "b 1", classes=("no", "<yes & no>"))


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    items = [Item(key, name, rank, -0.5 * rank, "why, not") for rank, (name, key) in enumerate(KEYS.items(), start=1)]
    return Batch(1, tmp_path / "to_label.csv", "margin", 0, tuple(items))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.removeprefix("\ufeff").splitlines(keepends=True)))


def labelled(batch: Batch, *drop: str) -> list[dict[str, str]]:
    """The rows of the CSV file, labelled in turns, without some columns."""
    rows = rows_of(table_text(batch))
    for i, row in enumerate(rows):
        row["label"] = ("no", "<yes & no>")[i % 2]
    return [{name: cell for name, cell in row.items() if name not in drop} for row in rows]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def found(reading: Reading) -> dict[str, str | None]:
    return {statement.key: statement.label for statement in reading.statements}


EXPECTED = {key: ("no", "<yes & no>")[i % 2] for i, key in enumerate(KEYS.values())}


def test_no_cell_of_the_table_is_a_formula(batch: Batch) -> None:
    rows = rows_of(table_text(batch))
    assert [row["key"] for row in rows] == list(KEYS.values())
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, len(HOSTILE) + 1)]
    for row, name in zip(rows, HOSTILE, strict=True):
        for column in ("image", "why", "key", "rank", "label"):
            assert not row[column].startswith(("=", "+", "-", "@", "\t", "\r"))
        float(row["score"])  # a number, whatever its sign
        assert (Path("x") / row["image"]) == Path("x") / name  # it is still the file's path


@pytest.mark.parametrize("drop", [(), ("key",), ("image", "why", "rank", "score")])
def test_a_filled_table_is_read_back(
    batch: Batch, settings: ProjectSettings, tmp_path: Path, drop: tuple[str, ...]
) -> None:
    path = write_csv(tmp_path / "filled.csv", labelled(batch, *drop))
    reading = read_labels([path], KEYS, settings)
    if "key" in drop:  # blanks around a name do not survive without the key
        assert len(reading.problems) == 1
        assert found(reading) == {key: label for key, label in EXPECTED.items() if key != KEYS[" blank .png"]}
    else:
        assert found(reading) == EXPECTED
        assert not reading.problems


def test_half_filled_and_wrong_rows_are_told(batch: Batch, settings: ProjectSettings, tmp_path: Path) -> None:
    rows = labelled(batch)
    rows[0]["label"], rows[1]["label"], rows[2]["label"] = "", "  ", "noo"
    rows[3] |= {"key": "", "image": "elsewhere.png"}
    reading = read_labels([write_csv(tmp_path / "half.csv", rows)], KEYS, settings)
    assert found(reading) == dict(list(EXPECTED.items())[4:])
    assert reading.empty == 2
    assert "line 4" in reading.problems[0]
    assert "Did you mean 'no'?" in reading.problems[0]
    assert "'elsewhere.png' is not in the folder" in reading.problems[1]


def test_patients_come_with_the_table(batch: Batch, settings: ProjectSettings, tmp_path: Path) -> None:
    rows = [{**row, "patient": "" if i else "p1"} for i, row in enumerate(labelled(batch))]
    reading = read_labels([write_csv(tmp_path / "p.csv", rows)], KEYS, settings)
    assert reading.patients == {KEYS["plain.png"]: "p1"}


# -- Label Studio -----------------------------------------------------------------------------------------------------


def answered(task: dict[str, Any], *choices: list[str], cancelled: bool = False) -> dict[str, Any]:
    """A task as Label Studio exports it, with an annotation for each list of choices."""
    annotations = [
        {
            "id": number,
            "completed_by": number,
            "was_cancelled": cancelled,
            "lead_time": 3.5,
            "result": [
                {
                    "id": "x1",
                    "from_name": "label",
                    "to_name": "image",
                    "type": "choices",
                    "origin": "manual",
                    "value": {"choices": chosen},
                }
            ],
        }
        for number, chosen in enumerate(choices, start=1)
    ]
    return {"id": 7, "annotations": annotations, "predictions": [], "meta": {}, "project": 1, **task}


def test_tasks_name_the_images_as_label_studio_serves_them(batch: Batch, settings: ProjectSettings) -> None:
    tasks = json.loads(tasks_text(batch, settings))
    assert [task["data"]["key"] for task in tasks] == list(KEYS.values())
    for task, name in zip(tasks, HOSTILE, strict=True):
        start, address = "/data/local-files/?d=my%20scans/", task["data"]["image"]
        assert address.startswith(start)
        assert not set(address[len(start) :]) & set(" &=#?\n\\")
        assert unquote(address[len(start) :]) == name


@pytest.mark.parametrize("url", [None, "https://example.org/scans/"])
@pytest.mark.parametrize("known", ["key", "path", "image"])
def test_an_export_is_read_back(
    batch: Batch, settings: ProjectSettings, tmp_path: Path, url: str | None, known: str
) -> None:
    settings = ProjectSettings(**{**vars(settings), "url": url})
    tasks = json.loads(tasks_text(batch, settings))
    done = [answered({"data": {known: task["data"][known]}}, [EXPECTED[task["data"]["key"]]]) for task in tasks]
    short = [{known: task["data"][known], "label": EXPECTED[task["data"]["key"]], "annotator": 1} for task in tasks]
    for number, export in enumerate((done, short)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(export))
        reading = read_labels([path], KEYS, settings)
        assert not reading.problems
        assert found(reading) == EXPECTED


def test_skipped_open_and_doubtful_tasks(batch: Batch, settings: ProjectSettings, tmp_path: Path) -> None:
    tasks = json.loads(tasks_text(batch, settings))
    keys = list(KEYS.values())
    export = [
        answered(tasks[0], ["no"], cancelled=True),
        answered(tasks[1]),
        answered(tasks[2], ["no"], ["<yes & no>"]),
        answered(tasks[3], ["no", "<yes & no>"]),
        answered(tasks[4], ["maybe"]),
        answered({"data": {"image": "/data/upload/1/other.png"}}, ["no"]),
        {"data": tasks[5]["data"], "completions": [{"result": [{"type": "choices", "value": {"choices": ["no"]}}]}]},
        {**tasks[6]["data"], "label": {"choices": ["no", "<yes & no>"]}},
        {"data": tasks[7]["data"], "annotations": [None, {"result": None}, {"result": [None, {"type": "choices"}]}]},
    ]
    path = tmp_path / "export.json"
    path.write_text("\ufeff" + json.dumps(export), encoding="utf-8")
    reading = read_labels([path], KEYS, settings)
    said = [(s.key, s.label) for s in reading.statements]
    assert said == [(keys[0], None), (keys[2], "no"), (keys[2], "<yes & no>"), (keys[5], "no")]
    assert reading.empty == 2
    assert len(reading.problems) == 4
    assert "2 classes" in reading.problems[0]
    assert "unknown class 'maybe'" in reading.problems[1]


def test_the_interface_offers_the_classes(batch: Batch, settings: ProjectSettings) -> None:
    written = write_batch(batch, settings)
    assert [path.name for path in written] == ["to_label.csv", "to_label.tasks.json", "to_label.config.xml"]
    view = ElementTree.parse(written[2]).getroot()
    assert [choice.get("value") for choice in view.iter("Choice")] == ["no", "<yes & no>"]
    assert next(view.iter("Image")).get("value") == "$image"
    (batch.out).write_text("mine")
    written[1].unlink()
    assert write_batch(batch, settings) == [written[1]]
    assert batch.out.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image;label\nx.png;no\n", "not separated by commas"),
        ("a.csv", "image,klass\nx.png,no\n", "unknown column 'label'"),
        ("a.csv", "file,label\nx.png,no\n", "no column 'key' or 'image'"),
        ("a.json", "{}", "expected a list of tasks"),
        ("a.json", "[1]", "expected a list of tasks"),
        ("a.json", "[{", "not readable as JSON"),
        ("a.json", "[" * 100_000, "not readable as JSON"),
        ("none.json", "", "no such file"),
        ("none.csv", "", "no such file"),
    ],
)
def test_other_files_are_refused(settings: ProjectSettings, tmp_path: Path, name: str, text: str, message: str) -> None:
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels([tmp_path / name], KEYS, settings)


# -- the project ------------------------------------------------------------------------------------------------------


def said(label: str | None, source: str = "a.csv", key: str = "k") -> Statement:
    return Statement(key, label, source)


def test_the_last_reading_with_news_counts(tmp_path: Path) -> None:
    project = Project(tmp_path / "p.project", create=True)
    assert project.add([said("no"), said("yes", key="l")]).new == 2
    assert project.add([said("no"), said("yes", key="l")]).new == 0
    assert project.seen() == 2
    found = project.add([said("yes"), said("yes", key="l")])
    assert (found.new, found.changed) == (0, {"k": ("no", "yes")})
    assert project.answers().labels == {"k": "yes", "l": "yes"}
    project.add([said("no", "b.csv"), said("yes")])
    assert project.answers().conflicts == {"k": ("no", "yes")}
    assert project.answers().labels == {"l": "yes"}
    seen = project.seen()
    project.add([said("no", "b.csv"), said("yes")])
    assert project.seen() == seen  # told again, it is no news
    project.add([said("yes", "b.csv")])
    assert project.answers().labels == {"k": "yes", "l": "yes"}
    assert not project.answers().conflicts
    project.close()


def test_a_second_annotator_who_skips_takes_no_label_away(tmp_path: Path) -> None:
    project = Project(tmp_path / "p.project", create=True)
    project.add([said("no", "export.json")])
    project.add([said("no", "export.json"), said(None, "export.json")])
    project.add([said(None, "other.json")])
    assert project.answers().labels == {"k": "no"}
    project.add([said(None, "export.json", "l")])
    assert project.answers().skipped == {"l"}
    project.close()


def test_no_image_is_given_out_twice(tmp_path: Path) -> None:
    project = Project(tmp_path / "p.project", create=True)
    item = Item("k", "k.png", 1, None, "drawn at random")
    project.give_out(tmp_path / "a.csv", "random", [item], 0)
    for out in ("a.csv", "b.csv"):
        with pytest.raises(DataError, match="give the command again"):
            project.give_out(tmp_path / out, "random", [item], 0)
    assert [(batch.out, batch.items) for batch in project.batches()] == [((tmp_path / "a.csv").resolve(), (item,))]
    project.close()


def test_a_project_moves_with_its_files(tmp_path: Path) -> None:
    project = Project(tmp_path / "here" / "p.project", create=True)
    project.give_out(tmp_path / "here" / "a.csv", "random", [], 0)
    project.close()
    (tmp_path / "here").rename(tmp_path / "there")
    project = Project(tmp_path / "there" / "p.project")
    assert project.batches()[0].out == (tmp_path / "there" / "a.csv").resolve()
    project.close()


def test_foreign_and_damaged_projects_are_refused(tmp_path: Path, settings: ProjectSettings) -> None:
    folder = tmp_path / "p.project"
    with pytest.raises(SettingsError, match="no labelling project"):
        Project(folder)
    project = Project(folder, create=True)
    assert project.settings is None
    project.keep(settings)
    assert project.settings == settings
    project._base.execute("UPDATE settings SET value = '{}'")
    with pytest.raises(DataError, match="damaged settings"):
        _ = project.settings
    project._base.execute("PRAGMA user_version = 7")
    project.close()
    with pytest.raises(DataError, match="another version"):
        Project(folder)
    (folder / STATE).write_bytes(b"no database " * 100)
    with pytest.raises(DataError, match="not a usable project"):
        Project(folder)


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"candidates": 0}, {"seed": -1}, {"classes": ("a", "a")}, {"classes": ("a ",)}, {"patient": "("}],
)
def test_settings_out_of_range_are_refused(settings: ProjectSettings, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        ProjectSettings(**{**vars(settings), **change})
