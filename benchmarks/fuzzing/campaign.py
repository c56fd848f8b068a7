"""Feeding inputs to a reader: what is counted, and what is a fault."""

from __future__ import annotations

import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activelabel.errors import ActiveLabelError
from benchmarks.fuzzing.mutation import Random
from benchmarks.fuzzing.targets import Target

HANG = 5.0
"""Seconds that an input may take."""

MEMORY = 2**30
"""Bytes that reading may add to what the process had before the first input."""


class Hang(BaseException):
    """An input took longer than :data:`HANG`."""


@dataclass
class Outcome:
    """What came of the inputs so far.

    Parameters
    ----------
    accepted, refused: inputs that were read, and inputs that were refused as they should be.
    slowest: seconds of the slowest input.
    peak: most memory during an input, bytes more than before the first.
    faults: for each kind of fault its first input and how often it came.
    """

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak: int = 0
    faults: dict[str, tuple[Path, int]] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.accepted + self.refused + sum(count for _, count in self.faults.values())

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs: {self.accepted} accepted, {self.refused} refused, "
            f"{len(self.faults)} kinds of fault; slowest {self.slowest:.2f} s, "
            f"peak memory {self.peak / 2**20:.0f} MiB above the start"
        )


class Campaign:
    """Gives inputs to a reader, each as a file of the same name.

    Parameters
    ----------
    target: the reader.
    folder: of its file.
    kept: where inputs that are at fault are written.
    """

    def __init__(self, target: Target, folder: Path, kept: Path) -> None:
        self.target, self.path, self.kept = target, folder / target.file, kept
        self.outcome = Outcome()
        for data in target.valid:
            self.path.write_bytes(data)
            target.read(self.path)
        with suppress(OSError):  # Linux alone: the peak is that of reading, not of making the valid files
            Path("/proc/self/clear_refs").write_text("5")
        self._start = _peak()

    def feed(self, data: bytes) -> bool:
        """Read one input; returns whether all was as it should be."""
        self.path.write_bytes(data)
        try:
            seconds, refused, fault = self._read()
        except Hang:
            # A campaign that was suspended meanwhile is late too; what hangs does so again.
            seconds, refused, fault = self._read(last=True)
        self.outcome.slowest = max(self.outcome.slowest, seconds)
        grown = _peak() - self._start
        if grown > self.outcome.peak:
            self.outcome.peak = grown
            if grown > MEMORY:
                fault = fault or "memory"
                self._start += grown  # the next such fault is told by what it takes more
        if fault is not None:
            self._keep(fault, data)
        elif refused:
            self.outcome.refused += 1
        else:
            self.outcome.accepted += 1
        return fault is None

    def _read(self, last: bool = False) -> tuple[float, bool, str | None]:
        """Return the seconds it took, whether the file was refused, and the fault; a hang is one the last time."""
        began, refused, fault = time.perf_counter(), False, None
        try:
            with warnings.catch_warnings(), _alarm():
                warnings.simplefilter("error")
                self.target.read(self.path)
        except ActiveLabelError as error:
            refused, fault = True, _message_fault(str(error), self.path)
        except Exception as error:
            fault = _place_of(error)
        except Hang as error:
            if not last:
                raise
            fault = _place_of(error)
        return time.perf_counter() - began, refused, fault

    def _keep(self, fault: str, data: bytes) -> None:
        first, count = self.outcome.faults.get(fault, (None, 0))
        if first is None:
            self.kept.mkdir(parents=True, exist_ok=True)
            first = self.kept / f"{len(self.outcome.faults)}-{self.target.file}"
            first.write_bytes(data)
            print(f"FAULT {fault}\n  {first}", flush=True)
        self.outcome.faults[fault] = first, count + 1


def _peak() -> int:
    """Return the most memory that the process ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang(f"over {HANG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _message_fault(message: str, path: Path) -> str | None:
    """Return what is wrong with the message of a refusal."""
    if str(path) not in message:
        return f"a message without the file: {message[:80]}"
    if not len(str(path)) + 8 < len(message) < 5000:
        return f"a message too short or too long: {message[:80]}"
    try:
        message.encode()
    except UnicodeEncodeError:
        return "a message that cannot be printed"
    return None


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "activelabel" in f.filename] or list(frames)
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"
    return f"{type(error).__name__} at {place}"


def inputs(target: Target, seed: int, start: int = 0) -> Iterator[bytes]:
    """Yield changed files without end, the same for the same seed; each depends on its number alone.

    Parameters
    ----------
    target: the reader.
    seed: of all.
    start: number of the first.
    """
    number = start
    while True:
        rng = Random(f"{seed}-{number}")
        if target.hostile and rng.random() < 0.003:
            yield rng.choice(target.hostile)()
        else:
            data = rng.choice(target.valid)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                data = target.change(data, rng)
            yield data
        number += 1
