"""``python -m activelabel``: choosing, labelling, going on, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelling_play import BACKBONE, QUIET, batches, fill_in, rows_of, write_images, write_rows
from PIL import Image

from activelabel.__main__ import main
from activelabel.labelling import Project, commands
from activelabel.labelling.commands import UNREADABLE

HERE = Path(__file__).parent
NAMES = ["a b.png", "c,d.png", "=1+1.png", "sub/-x.png", "@y.png", "sub/ß.png"] + [f"{i}.png" for i in range(10)]

Labels = dict[str, str]


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labels:
    """Sixteen images in ``images``, and their classes."""
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path / "images", NAMES)


def select(*more: str, strategy: str = "random", out: str = "to_label.csv", k: int = 6) -> list[str]:
    return ["select", "--images", "images", "--out", out, "--k", str(k), "--strategy", strategy, *BACKBONE, *more]


def update(*more: str, labels: str = "to_label.csv") -> list[str]:
    return ["update", "--labels", labels, *QUIET, *more]


def given(project: str = "to_label.project") -> list[list[str]]:
    """The paths of each batch."""
    return [[item.path for item in batch.items] for batch in batches(Path(project))]


def test_a_folder_is_labelled_to_its_end(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select("--classes", "dark", "light", strategy="kmedoids")) == 0
    assert "16 images\nbatch 1: 6 images chosen by kmedoids" in capsys.readouterr().out
    tasks = json.loads(Path("to_label.tasks.json").read_text())
    assert [task["data"]["path"] for task in tasks] == given()[0]
    fill_in(Path("to_label.csv"), truth)
    assert main(update("--strategy", "margin", "--k", "7")) == 0
    told = capsys.readouterr().out
    assert "6 new labels, 6 in all" in told
    assert "accuracy " in told
    assert "say little" in told
    rows = rows_of(Path("to_label-2.csv"))
    assert len(rows) == 7
    assert rows[0]["why"].startswith("rank 1 of 10 images by margin: the classifier's probabilities of dark and light")
    fill_in(Path("to_label-2.csv"), truth)
    assert main(update(labels="to_label-2.csv")) == 0  # of the project, not of its own name
    told = capsys.readouterr().out
    assert "only 3 images are left" in told
    fill_in(Path("to_label-3.csv"), truth)
    assert main(update(labels="to_label-3.csv")) == 0
    assert "16 labels, dark 8, light 8" in (told := capsys.readouterr().out)
    assert "accuracy 1.000" in told
    assert "nothing left" in told
    assert sorted(name for batch in given() for name in batch) == sorted(NAMES)


def test_the_same_command_again_changes_nothing(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path().glob("to_label*.*") if path.is_file()}

    assert main(select()) == 0
    before = state()
    assert main(select()) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert state() == before
    fill_in(Path("to_label.csv"), truth)
    assert main(update()) == 0
    before = state()
    assert set(before) == {"to_label.csv", "to_label.tasks.json", "to_label-2.csv", "to_label-2.tasks.json"}
    for command in (update(), update("--next"), update(labels="to_label-2.csv"), select()):
        assert main(command) == 0
        assert state() == before
    assert len(given()) == 2


def test_half_of_the_labels(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select()) == 0
    fill_in(Path("to_label.csv"), truth, 2)
    assert main(update()) == 0
    assert "4 images that were given out have no label yet. The next batch follows" in capsys.readouterr().out
    assert len(given()) == 1
    assert main(update("--next", "--k", "3", "--out", "more.csv")) == 0
    assert [len(batch) for batch in given()] == [6, 3]
    assert len(rows_of(Path("more.csv"))) == 3
    fill_in(Path("to_label.csv"), truth)
    fill_in(Path("more.csv"), truth)
    assert main(["update", "--labels", "more.csv", "to_label.csv", *QUIET]) == 0
    assert "7 new labels, 9 in all" in capsys.readouterr().out
    names = [name for batch in given() for name in batch]
    assert len(names) == len(set(names)) == 12


def test_label_studio_there_and_back(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select("--classes", "dark", "light")) == 0
    tasks = json.loads(Path("to_label.tasks.json").read_text())
    for number, task in enumerate(tasks):
        value = {"choices": [truth[task["data"]["path"]] if number else "drak"]}
        task["annotations"] = [{"result": [{"type": "choices", "from_name": "label", "value": value}]}]
    Path("project-1-at-2026-01-01.json").write_text(json.dumps(tasks))
    assert main(update(labels="project-1-at-2026-01-01.json")) == 0
    told = capsys.readouterr().out
    assert "5 new labels" in told
    assert "unknown class 'drak'. Did you mean 'dark'?" in told
    assert "1 images that were given out have no label yet" in told


def test_conflicts_and_corrections_are_told(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select()) == 0
    fill_in(Path("to_label.csv"), truth)
    rows = rows_of(Path("to_label.csv"))
    rows[0]["label"] = {"dark": "light", "light": "dark"}[rows[0]["label"]]
    write_rows(Path("second.csv"), rows)
    assert main(["update", "--labels", "to_label.csv", "second.csv", *QUIET]) == 0
    told = capsys.readouterr().out
    assert (
        f"1 images have several labels and count as unlabelled until they agree:\n  {given()[0][0]}: dark, light"
        in told
    )
    assert len(given()) == 1
    assert main(update(labels="second.csv")) == 0  # no news
    assert "several labels" in capsys.readouterr().out
    shutil.copy("to_label.csv", "settled.csv")
    assert main(update(labels="settled.csv")) == 0
    assert "several labels" not in capsys.readouterr().out
    assert len(given()) == 2


def test_what_cannot_be_read_and_what_is_there_twice(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0.png", "a b.png"):
        shutil.copy(f"images/{name}", f"images/sub/copy of {name}")
    Path("images/broken.png").write_bytes(b"no image")
    Path("images/cut.png").write_bytes(Path("images/1.png").read_bytes()[:60])
    os.close(os.open(b"images/\xff.png", os.O_CREAT))
    assert main(select(k=50)) == 0
    told = capsys.readouterr().out
    assert "16 images; 2 files hold the same as another and count once" in told
    assert "3 files or folders cannot be used and are left out" in told
    listed = Path("to_label.project", UNREADABLE).read_text()
    assert [word in listed for word in ("broken.png", "cut.png", "\\udcff.png")] == [True] * 3
    assert "only 16 images are left" in told
    assert sorted(given()[0]) == sorted(NAMES)
    rows = rows_of(Path("to_label.csv"))  # a label of the copy is one of the image
    write_rows(Path("own.csv"), [{"image": "sub/copy of a b.png", "label": "dark"}])
    assert main(update(labels="own.csv")) == 0
    project = Project(Path("to_label.project"))
    assert project.answers().labels == {row["key"]: "dark" for row in rows if row["image"] == "a b.png"}
    project.close()


def test_a_folder_that_may_not_be_read_is_told(
    truth: Labels, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, locked = os.scandir, "sub"

    def refuse(path: Any) -> Any:
        if Path(path).name == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, who runs tests in containers, may read every folder
    assert main(select(k=50)) == 0
    told = capsys.readouterr().out
    assert "14 images\n1 files or folders cannot be used and are left out" in told
    assert "images/sub: a folder that may not be read (Permission denied)" in told
    locked = "images"
    assert main(select(out="other.csv")) == 2
    assert "images: no images in it that can be read" in capsys.readouterr().err


def test_images_come_and_go(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select(k=14)) == 0
    labelled, dropped = given()[0][:11], given()[0][11]
    fill_in(Path("to_label.csv"), truth, 11)
    for name in (labelled[0], dropped):
        Path("images", name).unlink()
    Image.open(f"images/{given()[0][12]}").transpose(Image.Transpose.ROTATE_90).save(f"images/{given()[0][12]}")
    truth |= write_images(Path("images"), ["new 1.png", "new 2.png"], seed=1)
    assert main(update("--next")) == 0
    told = capsys.readouterr().out
    assert "16 images\n11 labels" in told  # the label of the image that is gone is used
    # Never given out: the two that are left, the two new ones, and what lies under an old name now.
    rest = set(truth) - set(given()[0])
    assert set(given()[1]) == rest | {given()[0][12]}
    assert "1 images that were given out have no label yet" not in told


@pytest.mark.parametrize("step", ["give_out", "write_batch", "written", "add", "keep_images", "keep", "cross_validate"])
def test_a_crash_at_any_step_is_made_up_for(truth: Labels, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    class Crash(BaseException):
        pass

    def crashing(call: Callable[..., Any], first: bool) -> Callable[..., Any]:
        def crash(*args: Any, **kwargs: Any) -> Any:
            if not first:
                call(*args, **kwargs)
            raise Crash

        return crash

    def files() -> dict[str, str]:
        return {path.name: path.read_text() for path in Path().glob("to_label*.[cj]s*")}

    place: Any = Project if hasattr(Project, step) else commands
    name = "write_batch" if step == "written" else step
    crashes = 0
    for commanded in (select(strategy="k-center"), update()):
        for first in (True, False):
            with monkeypatch.context() as patch, contextlib.suppress(Crash):
                patch.setattr(place, name, crashing(getattr(place, name), first and step != "written"))
                crashes += 1
                main(commanded)
                crashes -= 1  # this command does not come by here
        assert main(commanded) == 0
        if commanded[0] == "select":
            fill_in(Path("to_label.csv"), truth)
    assert crashes >= 2
    crashed = files()
    shutil.rmtree("to_label.project")
    for path in crashed:
        Path(path).unlink()
    assert main(select(strategy="k-center")) == 0
    fill_in(Path("to_label.csv"), truth)
    assert main(update()) == 0
    assert files() == crashed
    assert len(crashed) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked commands")
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "labelling_play.py"), str(tmp_path), "2", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True, cwd=HERE)
    calm, disturbed = json.loads(ended.stdout.splitlines()[-1])
    assert calm["right"]
    assert disturbed["right"]
    assert disturbed["order"] == calm["order"]
    assert (calm["hits"], disturbed["hits"] >= 3) == (0, True)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["select", "--images", "none", "--out", "a.csv", *BACKBONE], "no such folder"),
        (["select", "--images", "empty", "--out", "a.csv", *BACKBONE], "no images in it"),
        (select(out="to_label.txt"), "ends in .csv"),
        (select(strategy="margin"), "needs labels of two classes"),
        (select(strategy="medoids"), "Did you mean 'kmedoids'"),
        (select(strategy="oracle"), "unknown strategy 'oracle'"),
        (select("--model", "run"), "not both"),
        (select(k=0), "at least 1"),
        (select("--classes", "dark,light"), "one class, 'dark,light', leaves nothing to choose"),
        (select("--patient", "p(\\d"), "no regular expression"),
        (select("--patient", "p(\\d+)"), "finds no patient"),
        (select(out="mine.csv"), "mine.csv exists"),
        (update(), "no project beside it"),
        (update("--project", "none.project"), "no labelling project"),
    ],
)
def test_bad_input_is_told_in_a_line(
    truth: Labels, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    Path("mine.csv").write_text("my labels")
    Path("empty").mkdir()
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert Path("mine.csv").read_text() == "my labels"


def test_a_project_keeps_its_images_and_backbone(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(select()) == 0
    Path("others").mkdir()
    shutil.copy("images/0.png", "others")
    assert main(["select", "--images", "others", "--out", "b.csv", "--project", "to_label.project", *BACKBONE]) == 2
    assert "this project has the folder" in capsys.readouterr().err
    other = ["--out", "b.csv", "--project", "to_label.project", *QUIET]
    assert main(["select", "--images", "images", "--size", "18", *other]) == 2
    assert "this project has the backbone" in capsys.readouterr().err
    assert main(["select", "--images", "images", "--k", "20", *other]) == 0  # a second batch, before any label
    assert "only 10 images are left" in capsys.readouterr().out
    assert sorted(name for batch in given() for name in batch) == sorted(NAMES)


@pytest.mark.parametrize("slip", ["empty", "none"])
def test_a_folder_without_images_is_not_remembered(truth: Labels, slip: str) -> None:
    Path("empty").mkdir()
    assert main(["select", "--images", slip, "--out", "to_label.csv", *BACKBONE]) == 2
    assert main(select()) == 0
    assert len(given()) == 1


def test_patients_stay_together(truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("images")
    truth |= write_images(Path("images"), [f"p{i // 3}_{i}.png" for i in range(15)])
    assert main(select("--patient", "p(\\d+)_", k=15)) == 0
    fill_in(Path("to_label.csv"), truth)
    assert main(update()) == 0
    assert "the images of one of 5 patients always together" in capsys.readouterr().out
