"""Where the results of a study come from: ``provenance.json``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import activelabel
from activelabel.evaluation.run import versions
from activelabel.evaluation.study.cells import TrainCell, read_cell
from activelabel.evaluation.study.results import FORMAT
from activelabel.evaluation.study.spec import Study, StudyError
from activelabel.files import write_text

Training = tuple[Mapping[str, str | int | None], TrainCell]
"""What tables call a training, and its cell."""


class Record:
    """``provenance.json``: what a study was computed from, with what, when and where.

    Parameters
    ----------
    study: the study.
    path: of the file; the sessions in one that is there are kept.
    trainings: its trainings, each with what tables call it.
    data: what is known of its data.
    """

    def __init__(
        self, study: Study, path: Path, trainings: Sequence[Training], data: Sequence[Mapping[str, Any]]
    ) -> None:
        self.path = path
        self.trainings = trainings
        sessions = []
        if path.exists():
            try:
                sessions = json.loads(path.read_text("utf-8"))["sessions"]
            except (ValueError, KeyError, TypeError):
                raise StudyError(f"{path}: damaged. Delete it, or give another --out.") from None
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "study": study.name,
            "file": study.text,
            "versions": versions(),
            "commit": commit(),
            "data": list(data),
            "settings": {
                f"{grid.name}: {entry.name}": asdict(entry.settings) for grid in study.grids for entry in grid.data
            },
            "trainings": [],
            "sessions": sessions,
        }

    def begin(self, backend: str, address: str | None, jobs: int) -> None:
        """Note that a session begins."""
        machine = {"name": platform.node(), "processor": platform.machine(), "cores": os.cpu_count()}
        where = {"backend": backend, "address": address, "jobs": jobs, "machine": machine}
        made_with = {"activelabel": self.content["versions"]["activelabel"], "commit": self.content["commit"]}
        self.content["sessions"].append({"begun": _now(), "ended": None, **where, **made_with})
        self._write()

    def end(self, out: Path) -> None:
        """Note that the study is finished, with the directory, settings and seconds of each training."""
        self.content["trainings"] = []
        for keys, cell in self.trainings:
            found = read_cell(cell, out)
            facts = {name: found[name] for name in ("seconds", "cpu_seconds", "resumed", "best")}
            run = {"run": str(cell.folder(out).relative_to(out)), "settings": found["cell"]["settings"]}
            self.content["trainings"].append({**keys, **facts, **run})
        self.content["sessions"][-1]["ended"] = _now()
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(self.content, indent=1) + "\n")


def commit() -> str | None:
    """Return the commit of the package's checkout, with ``+changes`` where files differ from it; None without one."""
    folder = Path(activelabel.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    found = []
    for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            run = subprocess.run(("git", *command), cwd=folder, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if run.returncode:
            return None
        found.append(run.stdout.strip())
    return found[0] + ("+changes" if found[1] else "")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
