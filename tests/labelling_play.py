"""Labelling a small folder with commands that are killed at random moments; also as a script, in a process of its own.

python labelling_play.py FOLDER KILLS SEED
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from activelabel.__main__ import main
from activelabel.labelling import Batch, Project

BACKBONE = ["--backbone", "test_embedding:Small", "--device", "cpu", "--threads", "1", "--no-progress"]
QUIET = ["--device", "cpu", "--threads", "1", "--no-progress"]
CLASSES = ("dark", "light")


def write_images(folder: Path, names: list[str], seed: int = 0) -> dict[str, str]:
    """Write an image for each name, every other one dark; returns their classes."""
    rng = np.random.default_rng(seed)
    truth = {}
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        low = 130 * (i % 2)
        Image.fromarray(rng.integers(low, low + 120, (9, 8), dtype=np.uint8)).save(folder / name, format="PNG")
        truth[name] = CLASSES[i % 2]
    return truth


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as a spreadsheet would read them."""
    with table.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def write_rows(table: Path, rows: list[dict[str, str]]) -> None:
    """Write them back."""
    with table.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fill_in(table: Path, truth: dict[str, str], n: int | None = None) -> None:
    """Fill in the labels of the first n rows."""
    rows = rows_of(table)
    for row in rows[:n]:
        row["label"] = truth[row["image"].removeprefix("./")]
    write_rows(table, rows)


def batches(project: Path) -> list[Batch]:
    """Return what a project has given out."""
    opened = Project(project)
    try:
        return opened.batches()
    finally:
        opened.close()


def killed(arguments: list[str], delay: float) -> bool:
    """Start a command, kill it after a delay; returns whether that came before its end."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(arguments))
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def play(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Label 12 images in batches of 4, each command killed some times before it may end; returns what came of it."""
    rng = np.random.default_rng(seed)
    images, first = folder / "images", folder / "to_label.csv"
    truth = write_images(images, [f"{i:02}.png" for i in range(12)])
    command = ["select", "--images", str(images), "--out", str(first), "--k", "4", *BACKBONE, "--strategy", "k-center"]
    hits, took = 0, 1.0
    table: Path | None = None
    while True:
        for _ in range(kills):
            hits += killed(command, float(rng.uniform(0, 1.1 * took)))
        before = time.perf_counter()
        assert main(command) == 0
        took = time.perf_counter() - before
        given = batches(folder / "to_label.project")
        if given[-1].out == table:
            break
        table = given[-1].out
        fill_in(table, truth)
        command = ["update", "--labels", str(table), *QUIET, "--strategy", "margin"]
    opened = Project(folder / "to_label.project")
    labels = opened.answers().labels
    opened.close()
    order = [[item.path for item in batch.items] for batch in given]
    found = {item.path: labels.get(item.key) for batch in given for item in batch.items}
    kept = {row["image"]: row["label"] for batch in given for row in rows_of(batch.out)}
    return {"order": order, "right": found == truth == kept, "hits": hits}


if __name__ == "__main__":
    where, times = Path(sys.argv[1]), int(sys.argv[2])
    result = [play(where / str(kills), kills, int(sys.argv[3])) for kills in (0, times)]
    print("\n" + json.dumps(result))
