"""Nothing is lost when a disk is full, or a process is killed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from run_files import one_run
from torch.utils.tensorboard import SummaryWriter

from activelabel import train
from activelabel.agents.checkpoint import write_model
from activelabel.data import Cohort
from activelabel.data.backbones import make_backbone
from activelabel.data.derived import by_rows
from activelabel.data.embedding import EmbedSettings, embed_file
from activelabel.data.encoder import write_tensors
from activelabel.data.images import ImageFiles
from activelabel.errors import DataError, WriteError
from activelabel.evaluation.report import Report
from activelabel.evaluation.validation import Validation
from activelabel.files import reserve, write_text
from activelabel.labelling import Batch, Project, ProjectSettings, write_batch
from activelabel.labelling.project import STATE, Item, Statement
from benchmarks import killing
from benchmarks.kills import State, kill_training, unlike_folder, unlike_run

SIZES = "--pool 20 --query 12 --k 4 --updates 6 --batch-size 4 --n-samples 2 --hidden 8 --val-every 2 --val-tasks 8"
TINY = f"{SIZES} --test-tasks 10 --against random"


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond ``room`` bytes: writing ends half-way, as on a disk that is full."""
    resource: Any = pytest.importorskip("resource")  # Windows has none
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- a full disk ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers(Report):
    def table(self) -> str:
        return "numbers"

    def draw(self) -> Figure:
        figure = Figure()
        figure.subplots().imshow(np.random.default_rng(len(self.rows)).random((200, 200)))
        return figure


def write_report(path: Path, version: int) -> None:
    Numbers([{"strategy": "random", "mean": i} for i in range(20 + version)], []).write(path.parent)


def write_cohort(path: Path, version: int) -> None:
    features = np.random.default_rng(version).random((500, 8), np.float32)
    Cohort(np.ones((500, 1), np.int8), ("a",), features).save(path)


def write_embedded(path: Path, version: int) -> None:
    names = [f"{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        (path.parent / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 40 * version + i, np.uint8)).save(path.parent / "images" / name)
    images = Cohort(np.ones((40, 1), np.int8), ("a",), images=ImageFiles(names, path.parent / "images"))
    embed_file(images, make_backbone("test_embedding:Small", device="cpu"), path, settings=EmbedSettings(8, 1))


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "model.zip": lambda path, v: write_model(path, "Reinforce", {"version": v}, {"w": torch.full((900,), float(v))}),
    "encoder.pt": lambda path, v: write_tensors(path, "weights", {"w": torch.full((900,), float(v))}),
    "cohort.npz": write_cohort,
    "embedded.npz": write_embedded,
    "config.yaml": lambda path, v: write_text(path, f"seed: {v}\n" * 999),
    "summary.json": write_report,
    "figure.png": write_report,
}


# Python 3.10's zipfile tries to write again when an archive that met a full disk is collected.
@pytest.mark.filterwarnings(*["ignore::pytest.PytestUnraisableExceptionWarning"] * (sys.version_info < (3, 11)))
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, name: str) -> None:
    path, write = tmp_path / name, WRITERS[name]
    write(path, 1)
    before, names = path.read_bytes(), set(os.listdir(tmp_path))
    with full_disk(len(before) // 2), pytest.raises(WriteError, match=rf"{name}: not written .* make room"):
        write(path, 2)
    assert path.read_bytes() == before
    assert set(os.listdir(tmp_path)) == names
    write(path, 2)
    assert path.read_bytes() != before


def test_a_full_disk_leaves_nothing_of_a_new_file(tmp_path: Path) -> None:
    x = np.ones((500, 8), np.float32)
    with full_disk(9000), pytest.raises(WriteError):
        by_rows(x, 8, lambda rows: rows + 1, tmp_path / "mapped.npy")
    assert not os.listdir(tmp_path)
    assert (by_rows(x, 8, lambda rows: rows + 1, tmp_path / "mapped.npy") == 2).all()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_memory_map_has_its_room_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    with path.open("wb") as stream:
        stream.truncate(1 << 20)
    reserve(path)
    assert path.stat().st_size == 1 << 20 <= 512 * path.stat().st_blocks


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"a\.txt: not written .* name a folder that you may write to"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_a_full_disk_keeps_a_projects_labels(tmp_path: Path) -> None:
    few, many = ([Statement(f"{i:0100}", "dark", "a.csv") for i in range(n)] for n in (3, 3000))
    with closing(Project(tmp_path, create=True)) as project:
        project.add(few)
        with full_disk((tmp_path / STATE).stat().st_size + 9000):
            with pytest.raises(DataError, match=r"could not be written \(d.*\)\. What was there before is whole"):
                project.add(many)
            assert len(project.answers().labels) == 3
        assert project.add(many).new == 2997
    with closing(Project(tmp_path)) as project:
        assert len(project.answers().labels) == 3000


def test_a_batch_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    settings = ProjectSettings("/scans", "resnet18", None, None, "", classes=("dark", "light"))
    items = tuple(Item(f"k{i}", f"{i}.png", i, None, "drawn at random") for i in range(100))
    batch = Batch(1, tmp_path / "out" / "to_label.csv", "random", 0, items)
    with full_disk(5000), pytest.raises(WriteError):
        write_batch(batch, settings)
    names = set(os.listdir(batch.out.parent))
    assert names == {"to_label.csv"}  # the tasks are larger
    assert len(write_batch(batch, settings)) == 2


# -- training ---------------------------------------------------------------------------------------------------------


def arguments(data: str, runs: Path, *more: str) -> list[str]:
    quiet = ["--no-progress", "--device", "cpu", "--threads", "1"]
    return ["--data", data, "--runs", str(runs), *TINY.split(), *quiet, *more]


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert train.main(arguments(data, runs)) == 0
    return one_run(runs)


def test_a_full_disk_at_a_checkpoint_keeps_the_previous_one(
    data: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate, kept = Validation._validate, dict[str, bytes]()

    def full(self: Validation) -> None:
        if self.count() < 4:
            return validate(self)
        kept.update({path.name: path.read_bytes() for path in self.checkpoint.parent.glob("*.zip")})
        with full_disk(len(kept["checkpoint.zip"]) // 2):
            return validate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "_validate", full)
        assert train.main(arguments(data, tmp_path)) == 1
    run = one_run(tmp_path)
    told = capsys.readouterr().err
    assert told.startswith(f"error: {run}")
    assert "What was there before is whole: make room" in told
    assert {path.name: path.read_bytes() for path in run.glob("*.zip")} == kept
    assert set(kept) == {"model.zip", "checkpoint.zip"}
    (run / ".checkpoint-k1lled.zip").write_bytes(b"PK half of a file")
    (run / ".mine.zip").touch()
    assert train.main(["--resume", str(run), "--no-progress"]) == 0
    assert unlike_run(run, whole) == []
    assert not (run / ".checkpoint-k1lled.zip").exists(), "what a kill left is removed"
    assert (run / ".mine.zip").exists()


def test_what_differs_is_found(data: str, whole: Path, tmp_path: Path) -> None:
    assert train.main(arguments(data, tmp_path, "--seed", "1")) == 0
    other = one_run(tmp_path)
    assert unlike_run(other, whole) == ["model.zip", "checkpoint.zip", "summary.json", "TensorBoard's steps or values"]
    shutil.copytree(whole, tmp_path / "copy")
    assert unlike_run(tmp_path / "copy", whole) == []
    with closing(SummaryWriter(tmp_path / "copy")) as writer:
        writer.add_scalar("train/loss", 0.5, 24)  # a step that is there
    assert unlike_run(tmp_path / "copy", whole) == ["TensorBoard's steps or values"]
    reference = State({"a.csv": "1"}, [["x", "y"]], {"x": "dark", "y": "light"})
    found = replace(reference, files={"a.csv": "2"}, given=[["x", "y"], ["x"]], labels={"x": "dark"})
    assert unlike_folder(reference, reference) == []
    assert unlike_folder(found, reference) == [
        "x was given out 2 times",
        "y has lost its label",
        "other images, or in another order",
        "a.csv differs",
    ]


@pytest.mark.slow
def test_a_kill_while_a_model_is_written_loses_nothing(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process; kills at any other moment are in the tests of the two commands."""
    monkeypatch.setattr(killing, "_AFTER", ("write",))
    outcome = kill_training("SelectiveLabel-v0", f"--data {data} {TINY} --updates 30", 1, 0, tmp_path)
    assert outcome.differences == []
    assert sum(outcome.kills.values()) == 1
    assert outcome.again == 0
