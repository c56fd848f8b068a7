"""Fuzzing: every reader of files with files that are almost right.

::

    python -m benchmarks.fuzz --runs 1000                              # every reader
    python -m benchmarks.fuzz --readers npz config --runs 100000 --seed 1
    python -m benchmarks.fuzz --engine atheris --readers npz --runs 100000

An input is a valid file that was changed: bits and bytes; rows, cells and nodes; headers, members and tensors. It must
be read, or refused by an :class:`~activelabel.errors.ActiveLabelError` whose message has the file's name, within
5 seconds and 1 GiB. What is not is kept in ``--kept``. The engine ``mutation`` draws inputs by number from ``--seed``;
``atheris`` is guided by coverage (``pip install "activelabel[fuzz]"``), one reader at a time.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.fuzzing import READERS, guided


@dataclass(frozen=True)
class Settings:
    """What is fuzzed and how long."""

    readers: tuple[str, ...] = READERS
    """Readers by name."""
    runs: int = 1000
    """Inputs to each."""
    seed: int = 0
    """Of the inputs."""
    start: int = 0
    """Number of the first input, to go on from."""
    engine: Literal["mutation", "atheris"] = "mutation"
    """Where inputs come from."""
    kept: Path = Path("fuzz-faults")
    """Folder of inputs that were at fault."""


def main(settings: Settings) -> int:
    """Fuzz; returns 1 if there was a fault."""
    for name in settings.readers:
        if name not in READERS:
            sys.exit(f"error: unknown reader '{name}'. Known: {', '.join(READERS)}.")
    if settings.engine == "mutation":
        return int(sum(mutated(name, settings) for name in settings.readers) > 0)
    if len(settings.readers) == 1:
        guided.run(settings.readers[0], settings.runs, settings.seed, settings.kept / settings.readers[0])
    # What is instrumented cannot be put back: a process for each.
    command = [sys.executable, "-m", "benchmarks.fuzz", "--engine", "atheris", "--kept", str(settings.kept)]
    numbers = ["--runs", str(settings.runs), "--seed", str(settings.seed)]
    return max(subprocess.call([*command, *numbers, "--readers", name]) for name in settings.readers)


def mutated(name: str, settings: Settings) -> int:
    """Feed a reader changed files; returns how many kinds of fault there were."""
    import torch  # late, as what it imports: atheris must see the readers being imported

    from benchmarks.fuzzing.campaign import Campaign, inputs
    from benchmarks.fuzzing.targets import TARGETS

    torch.set_num_threads(1)
    faulthandler.enable(sys.__stderr__ or 2)  # a crash says where
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        target = TARGETS[name](Path(folder))
        campaign = Campaign(target, Path(folder), settings.kept / name)
        drawn, began = inputs(target, settings.seed, settings.start), time.monotonic()
        for number in range(settings.start, settings.start + settings.runs):
            if number % 1000 == 0:
                faulthandler.dump_traceback_later(
                    600, exit=True, file=sys.__stderr__ or 2
                )  # a loop in C hears no alarm
            if number % 10_000 == 0 and campaign.outcome.inputs:
                print(f"{name}: before input {number}: {campaign.outcome}", flush=True)
            campaign.feed(next(drawn))
        faulthandler.cancel_dump_traceback_later()
    rate = settings.runs / (time.monotonic() - began)
    print(f"{name}: {campaign.outcome}; {rate:.0f} inputs a second", flush=True)
    for fault, (first, count) in campaign.outcome.faults.items():
        print(f"  {count} x {fault} ({first})", flush=True)
    return len(campaign.outcome.faults)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__.partition("\n")[0])))
