"""What starting costs: importing the package, making an environment, and the help of ``train.py``.

::

    python -m benchmarks.startup --repeats 5

Each is measured in a fresh process, beside a process that imports torch and gymnasium alone; they take turns, and the
figures are medians. Python's own compiled files have been written by an uncounted first turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import tyro

ENVS = ("SelectiveLabel-v0", "ActiveLabel-v0")
IMPORT_LIMIT, MAKE_LIMIT, HELP_LIMIT = 0.5, 0.3, 4.0
"""Seconds that the import adds, that ``gym.make`` takes, and that the help takes."""

PROGRAM = """
import sys, time
import torch
import gymnasium as gym
start = time.perf_counter()
import activelabel
middle = time.perf_counter()
gym.make(sys.argv[1])
print(middle - start, time.perf_counter() - middle)
"""


@dataclass(frozen=True)
class Settings:
    """Size of the measurement."""

    repeats: int = 5
    """Timed turns, after one that is not counted."""


def main(settings: Settings) -> None:
    """Measure and print."""
    found = measure(settings)
    print(f"import torch and gymnasium  {found['bare']:.2f} s")
    print(f"import activelabel          {found['import']:.3f} s more")
    for name in ENVS:
        print(f"gym.make({name!r:<19})  {found[name]:.3f} s")
    print(f"train.py --help             {found['help']:.2f} s, {found['help'] / found['bare']:.2f} of the bare import")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    found = measure(settings)
    return [
        ("import activelabel after torch and gymnasium, s", found["import"], IMPORT_LIMIT),
        *((f"gym.make of {name}, s", found[name], MAKE_LIMIT) for name in ENVS),
        ("train.py --help, s", found["help"], HELP_LIMIT),
    ]


def measure(settings: Settings) -> dict[str, float]:
    """Return the median seconds of the bare import, of what the package adds, of each env, and of the help."""
    script = str(Path(__file__).parents[1] / "train.py")
    turns: dict[str, list[float]] = defaultdict(list)
    for turn in range(settings.repeats + 1):
        times = {"bare": run("-c", "import torch, gymnasium")[0], "help": run(script, "--help")[0]}
        for name in ENVS:
            added, times[name] = map(float, run("-c", PROGRAM, name)[1].split())
            times["import"] = max(added, times.get("import", 0.0))
        if turn:
            for name, seconds in times.items():
                turns[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in turns.items()}


def run(*arguments: str) -> tuple[float, str]:
    """Return the seconds of a Python process from start to end, and what it printed."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment)
    return time.perf_counter() - start, ended.stdout


if __name__ == "__main__":
    main(tyro.cli(Settings))
