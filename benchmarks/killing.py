"""Running a command that is killed (SIGKILL) at a random moment, or is not, and what came of many of them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activelabel.seeding import stream

ROOT = Path(__file__).resolve().parents[1]

_TICK = 0.002
_AFTER = ("start", "touch", "touch", "write")


@dataclass(frozen=True)
class Moment:
    """When a command is killed: a share of the time or of the files that it takes when it is left alone.

    Parameters
    ----------
    after: what time counts from, ``"start"`` or the first ``"touch"`` of a file; or ``"write"``: files are counted.
    share: in [0, 1).
    """

    after: str
    share: float

    def sooner(self) -> Moment:
        """Return the moment to try next, where the command had ended before this one came."""
        return replace(self, share=0.8 * self.share)

    def is_due(self, seconds: float, touched: float | None, written: int, whole: Ended) -> bool:
        """Say whether it is there, ``seconds`` from the start."""
        if self.after == "start":
            return seconds >= self.share * whole.seconds
        if touched is None:
            return False
        if self.after == "touch":
            return seconds - touched >= self.share * (whole.seconds - (whole.touched or 0.0))
        return written > self.share * whole.written


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Parameters
    ----------
    killed: before its own end.
    seconds: that it took.
    touched: seconds until its folder looked other than before, or None.
    written: files that were seen while they were written.
    left: names of temporary files that it left.
    said: what it wrote to standard error.
    """

    killed: bool
    seconds: float
    touched: float | None
    written: int
    left: frozenset[str]
    said: str


def moments(seed: int, name: str, n: int) -> list[Moment]:
    """Return n random moments of a kind of command, of all sorts."""
    shares = stream(seed, "kills", name).random(n)
    return [Moment(_AFTER[i % len(_AFTER)], float(share)) for i, share in enumerate(shares)]


def run(command: list[str], folder: Path, moment: Moment | None = None, whole: Ended | None = None) -> Ended:
    """Run a command that writes to a folder; kill it at a moment, if there is one.

    Raises
    ------
    RuntimeError: if it fails by itself.
    """
    before, written, touched = _files(folder), set[str](), None
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        killed = False
        while process.poll() is None:
            now = _files(folder)
            seconds = time.perf_counter() - begun
            if touched is None and now != before:
                touched = seconds
            written |= _temporary(now) - _temporary(before)
            if moment is not None and whole is not None and moment.is_due(seconds, touched, len(written), whole):
                process.kill()
                killed = process.wait() < 0
            time.sleep(_TICK)
        said.seek(0)
        text = said.read()
    if process.returncode and not killed:
        raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}:\n{text}")
    left = frozenset(_temporary(_files(folder)) - _temporary(before))
    return Ended(killed, time.perf_counter() - begun, touched, len(written), left, text)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file below a folder."""
    found = {}
    for here, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(here, name)
            try:
                known = os.stat(path)
            except FileNotFoundError:  # a temporary one that has taken its place meanwhile
                continue
            found[path] = (known.st_size, known.st_mtime_ns)
    return found


def _temporary(files: dict[str, Any]) -> set[str]:
    return {path for path in files if os.path.basename(path).startswith(".")}


@dataclass
class Outcome:
    """What came of the kills of a kind of command.

    Parameters
    ----------
    name: of the kind.
    kills: how many by what the command was doing.
    games: trainings or folders that were carried to their end.
    again: those that had to be started again, since nothing was there to go on from.
    differences: from the undisturbed one, in words.
    """

    name: str
    kills: Counter[str] = field(default_factory=Counter)
    games: int = 0
    again: int = 0
    differences: list[str] = field(default_factory=list)
