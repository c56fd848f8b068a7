"""Peak memory of a study with one worker and with two that share its data.

::

    python -m benchmarks.study_memory

Runs the same evaluations on features of CheXpert's size (drawn at random: only their size matters) with one worker (the
study's own process) and with two loky workers beside it, and adds up the proportional set sizes of all these processes
(``/proc``, Linux): a page that several map counts once. What two need should stay under 1.3 times what one needs, and
the data. Each process needs some 300 MB for its imports alone, so that data below about 400 MB miss it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
import yaml

from activelabel.data import Cohort
from activelabel.seeding import stream


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    images: int = 224_316
    """Images of the cohort."""
    features: int = 1280
    """Numbers that describe an image."""
    tasks: int = 400
    """Test tasks of a cell."""


def processes(root: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it has just ended
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def megabytes(pid: int) -> float:
    """Return the proportional set size of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def peak(study: Path, out: Path, jobs: int) -> float:
    """Return the peak of all processes of a study in megabytes, once its workers are there."""
    for name in ("results.csv", "cells"):
        subprocess.run(("rm", "-rf", str(out / name)), check=True)
    command = [sys.executable, "-m", "activelabel.evaluate", "--study", str(study), "--out", str(out)]
    found = 0.0
    with subprocess.Popen(
        [*command, "--jobs", str(jobs), "--no-progress"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        while process.poll() is None:
            sizes = [size for size in map(megabytes, processes(process.pid)) if size > 100]
            if len(sizes) > 1 or jobs == 1:
                found = max(found, sum(sizes))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return found


def draw(s: Settings) -> Cohort:
    """Return images of one condition and of none, in equal parts."""
    sick = np.arange(s.images) % 2 == 1
    features = stream(0, "memory").standard_normal((s.images, s.features), dtype=np.float32)
    features[sick, 0] += 1
    labels = np.stack([~sick, sick], axis=1).astype(np.int8)
    return Cohort(labels, ("No Finding", "Edema"), features, normal=0)


def main() -> None:
    """Measure and print."""
    s = tyro.cli(Settings)
    grid = {
        "env": "SelectiveLabel-v0",
        "data": ["large.npz"],
        "settings": {"device": "cpu"},
        "strategies": ["random", "kmedoids"],
        "k": [10, 20, 40, 80],
        "tasks": s.tasks,
    }
    with tempfile.TemporaryDirectory() as folder:
        study, out = Path(folder) / "memory.yaml", Path(folder) / "out"
        draw(s).save(Path(folder) / "large.npz")
        study.write_text(yaml.safe_dump({"grids": {"memory": grid}}))
        peak(study, out, 2)  # writes the shared data
        one, two = (peak(study, out, jobs) for jobs in (1, 2))
        kept = [*out.glob("data/*/columns.npz"), *out.glob("data/*/features.npy")]  # and nothing that is derived
        size = sum(path.stat().st_size for path in kept) / 2**20
    bound = 1.3 * one + size
    print(f"one worker {one:.0f} MB, two {two:.0f} MB, data {size:.0f} MB")
    print(f"two against 1.3 x one + data: {two:.0f} against {bound:.0f} MB ({two / bound:.2f})")


if __name__ == "__main__":
    main()
