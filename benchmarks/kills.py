"""Kills at random moments, and what they cost: nothing.

::

    python -m benchmarks.kills train --kills 20
    python -m benchmarks.kills labelling --kills 20

``train``: runs of ``train.py`` are killed (SIGKILL) and resumed until they end, as many kills on each environment.
Weights, optimisers, generators and counters of ``model.zip`` and ``checkpoint.zip``, the figures of ``summary.json``
and the steps and values that TensorBoard shows must be those of a run that was left alone, bit for bit. A run that was
killed before its directory had settings cannot be resumed; it is started again, and counted.

``labelling``: ``python -m activelabel select`` and ``update`` are killed and given again until they end, as many kills
of each, batch after batch. All files, what was given out and every label must be those of a folder that was labelled
undisturbed.

A kill comes at a random moment: of the whole time, of the time from the first file that the command touches, or when a
file is being written. The exit status is 1 where anything differs. Needs a system with SIGKILL.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from activelabel.agents.checkpoint import read_model
from activelabel.cli import run_command
from activelabel.labelling import Project
from activelabel.seeding import stream
from benchmarks.killing import Ended, Outcome, moments, run

# -- training ---------------------------------------------------------------------------------------------------------

RUNS = {
    "SelectiveLabel-v0": "--pool 100 --query 40 --k 5 --updates 60 --batch-size 16 --n-samples 8 --hidden 64 "
    "--val-every 5 --val-tasks 100 --test-tasks 60",
    "ActiveLabel-v0": "--data digits --pool 300 --state-images 10 --budget 20 --batch 5 --episodes 160 --envs 16 "
    "--gradient-steps 40 --batch-size 128 --buffer-size 2000 --val-every 2 --val-episodes 20 --test-episodes 30 "
    "--against random margin",
}
"""Settings of what is trained, by environment."""


def kill_training(env: str, settings: str, n: int, seed: int, folder: Path) -> Outcome:
    """Kill trainings on an environment n times, resume them, and compare them with one that was left alone."""
    outcome, waiting = Outcome(env), moments(seed, env, n)
    whole = run(_train(env, settings, folder / "whole"), folder / "whole")
    reference = _begun(folder / "whole")
    assert reference is not None
    while waiting:
        outcome.games += 1
        runs = folder / str(outcome.games)
        ended, begun = None, None
        while ended is None or ended.killed:
            outcome.again += ended is not None and begun is None
            command = _train(env, settings, runs) if begun is None else _resume(begun)
            ended = run(command, runs, waiting[0] if waiting else None, whole)
            begun = _begun(runs)
            if ended.killed:
                waiting.pop(0)
                outcome.kills[_training_phase(runs, ended)] += 1
            elif waiting:
                waiting[0] = waiting[0].sooner()
        assert begun is not None
        outcome.differences += [f"training {outcome.games}: {text}" for text in unlike_run(begun, reference)]
    return outcome


def _begun(runs: Path) -> Path | None:
    """Return the directory of the run that can be resumed."""
    return next((path.parent for path in runs.glob("*/config.yaml")), None)


def _train(env: str, settings: str, runs: Path) -> list[str]:
    return [sys.executable, "train.py", "--env", env, *settings.split(), "--runs", str(runs), "--device", "cpu"]


def _resume(run: Path) -> list[str]:
    return [sys.executable, "train.py", "--resume", str(run)]


def _training_phase(runs: Path, ended: Ended) -> str:
    """Say what a training was doing when it was killed."""
    if ended.touched is None or _begun(runs) is None:
        return "start-up"
    if ended.left:
        return "writing a file"
    if list(runs.glob("*/summary.json")):
        return "writing the report"
    if "testing" in ended.said:
        return "evaluation"
    return "training or validation" if list(runs.glob("*/checkpoint.zip")) else "before the first checkpoint"


def unlike_run(run: Path, reference: Path) -> list[str]:
    """Say in which models, figures and events two runs differ."""
    models = ("model.zip", "checkpoint.zip")
    found = [name for name in models if not _same(read_model(run / name), read_model(reference / name))]
    figures, expected = (json.loads((folder / "summary.json").read_text()) for folder in (run, reference))
    if figures | {"run": ""} != expected | {"run": ""}:
        found.append("summary.json")
    if _events(run) != _events(reference):
        found.append("TensorBoard's steps or values")
    return found


def _same(a: Any, b: Any) -> bool:
    """Say whether nested containers hold the same tensors, numbers and text, to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    return bool(a == b)


def _events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of the scalars that TensorBoard shows of a training, but for speeds."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumption
    found = EventAccumulator(str(run)).Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if not tag.startswith(("time/", "rollout/ep_"))  # the second is a running mean, which begins anew
    }


# -- labelling --------------------------------------------------------------------------------------------------------

_NETWORK = ["--backbone", "resnet18", "--weights", "random", "--size", "32"]
_CLASSES = ("dark", "light")
_AT_MOST = {"select": 5, "update": 2}  # kills of a command; then it is left to end


def kill_labelling(images: int, k: int, n: int, seed: int, folder: Path) -> Outcome:
    """Kill both commands n times while folders of images are labelled, and compare with one that was left alone."""
    outcome, scans = Outcome("select and update"), folder / "scans"
    _write_images(scans, images, seed)
    whole: dict[str, Ended] = {}
    for name, command in _commands(scans, k, folder / "whole"):
        ended = run(command, folder / "whole")
        whole[name] = max(whole.get(name, ended), ended, key=lambda one: one.seconds)
    reference = _state(folder / "whole")
    waiting = {name: moments(seed, name, n) for name in whole}
    while any(waiting.values()):
        outcome.games += 1
        place = folder / str(outcome.games)
        for name, command in _commands(scans, k, place):
            killed = 0
            while killed < _AT_MOST[name] and waiting[name]:
                ended = run(command, place, waiting[name][0], whole[name])
                if not ended.killed:
                    waiting[name][0] = waiting[name][0].sooner()
                    break
                killed += 1
                waiting[name].pop(0)
                outcome.kills[f"{name} in {_labelling_phase(place, ended)}"] += 1
            else:
                run(command, place)
        found = unlike_folder(_state(place), reference)
        outcome.differences += [f"folder {outcome.games}: {text}" for text in found]
    return outcome


def _commands(scans: Path, k: int, place: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that label a folder to its end; labels are filled in between."""
    place.mkdir()
    start, tables = [sys.executable, "-m", "activelabel"], [place / "to_label.csv"]
    quiet = ["--device", "cpu", "--no-progress"]
    chosen = ["--k", str(k), "--strategy", "k-center", "--classes", *_CLASSES]
    yield "select", [*start, "select", "--images", str(scans), "--out", str(tables[0]), *chosen, *_NETWORK, *quiet]
    while tables[-1].exists():
        _fill_in(tables[-1])
        yield "update", [*start, "update", "--labels", str(tables[-1]), "--strategy", "margin", *quiet]
        tables.append(place / f"to_label-{len(tables) + 1}.csv")


def _labelling_phase(place: Path, ended: Ended) -> str:
    """Say what a command was doing when it was killed; the project's file is not opened, which would mend it."""
    if ended.touched is None:
        return "start-up"
    if ended.left:
        return "writing a file"
    return "a transaction" if list(place.glob("*.project/project.sqlite-journal")) else "reading, embedding or choosing"


def _write_images(folder: Path, n: int, seed: int) -> None:
    folder.mkdir()
    rng = stream(seed, "kills", "images")
    for i in range(n):
        pixels = rng.integers(120 * (i % 2), 120 * (i % 2) + 130, (40, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03} {_CLASSES[i % 2]}.png")


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _fill_in(table: Path) -> None:
    rows = _rows(table)
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": Path(row["image"]).stem.split()[1]} for row in rows)


@dataclass(frozen=True)
class State:
    """What there is when a folder is labelled.

    Parameters
    ----------
    files: text by name.
    given: paths that were given out, batch by batch, in their order.
    labels: by path.
    """

    files: dict[str, str]
    given: list[list[str]]
    labels: dict[str, str]


def _state(place: Path) -> State:
    with closing(Project(place / "to_label.project")) as project:
        given = [[item.path for item in batch.items] for batch in project.batches()]
        names, labels = {key: path for path, key in project.paths().items()}, project.answers().labels
    files = {path.name: path.read_text("utf-8") for path in sorted(place.glob("to_label*.*")) if path.is_file()}
    return State(files, given, {names[key]: label for key, label in labels.items()})


def unlike_folder(found: State, reference: State) -> list[str]:
    """Say in what two labelled folders differ."""
    given = Counter(path for batch in found.given for path in batch)
    texts = [f"{path} was given out {count} times" for path, count in given.items() if count > 1]
    texts += [f"{path} has lost its label" for path in reference.labels if path not in found.labels]
    texts += [] if found.labels == reference.labels or texts else ["other labels"]
    texts += [] if found.given == reference.given else ["other images, or in another order"]
    names = found.files.keys() | reference.files.keys()
    return texts + [f"{name} differs" for name in sorted(names) if found.files.get(name) != reference.files.get(name)]


# -- the command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Train:
    """Kill and resume trainings."""

    kills: int = 20
    """On each environment."""
    envs: tuple[str, ...] = tuple(RUNS)
    """Which."""
    seed: int = 0
    """Of the moments."""

    def outcomes(self, folder: Path) -> list[Outcome]:
        """Return what came of it."""
        return [kill_training(env, RUNS[env], self.kills, self.seed, folder / env) for env in self.envs]


@dataclass(frozen=True)
class Labelling:
    """Kill select and update, and give them again."""

    kills: int = 20
    """Of each command."""
    images: int = 200
    """In the folder."""
    k: int = 40
    """Images a batch."""
    seed: int = 0
    """Of the moments and the images."""

    def outcomes(self, folder: Path) -> list[Outcome]:
        """Return what came of it."""
        return [kill_labelling(self.images, self.k, self.kills, self.seed, folder)]


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as text."""
    lines = []
    for one in outcomes:
        phases = ", ".join(f"{count} {phase}" for phase, count in one.kills.most_common())
        lines += [
            f"{one.name}: {sum(one.kills.values())} kills ({phases})",
            f"  {one.games} carried to the end, {one.again} started again, {len(one.differences)} differences",
            *(f"  DIFFERENT: {text}" for text in one.differences),
        ]
    return "\n".join(lines)


def main() -> int:
    status = [0]

    def command() -> None:
        named: Any = tyro.conf.subcommand
        commands: Any = Annotated[Train, named("train")] | Annotated[Labelling, named("labelling")]
        chosen = tyro.cli(commands, prog="python -m benchmarks.kills", description=__doc__)
        with tempfile.TemporaryDirectory() as folder:
            outcomes = chosen.outcomes(Path(folder))
        print(table(outcomes))
        status[0] = int(any(one.differences for one in outcomes))

    return run_command(command) or status[0]


if __name__ == "__main__":
    sys.exit(main())
