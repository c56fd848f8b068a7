"""Fuzzing that is guided by coverage, with atheris (libFuzzer)."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

INSTRUMENTED = ["activelabel", "yaml"]
"""Packages whose branches libFuzzer sees."""


def run(reader: str, runs: int, seed: int, kept: Path) -> None:
    """Fuzz one reader; ends the process, with status 1 where there was a fault.

    Parameters
    ----------
    reader: its name.
    runs: inputs.
    seed: of libFuzzer.
    kept: folder of inputs that were at fault.
    """
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit('error: the engine atheris needs a package: pip install "activelabel[fuzz]"')
    for name in ("torch", "torchvision", "stable_baselines3"):  # their branches would drown ours
        importlib.import_module(name)
    with atheris.instrument_imports(include=INSTRUMENTED):
        campaigns = importlib.import_module("benchmarks.fuzzing.campaign")
        targets = importlib.import_module("benchmarks.fuzzing.targets")
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    target = targets.TARGETS[reader](folder)
    campaign = campaigns.Campaign(target, folder, kept)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.valid):
        (corpus / str(number)).write_bytes(data)
    fed = 0

    def feed(data: bytes) -> None:
        nonlocal fed
        campaign.feed(data)
        fed += 1
        if fed % 10_000 == 0 or fed == runs:
            print(f"{reader}: {campaign.outcome}", flush=True)
        if fed >= runs:  # libFuzzer ends by _exit, which leaves folders behind
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(int(bool(campaign.outcome.faults)))

    def change(data: bytes, limit: int, number: int) -> bytes:
        rng = campaigns.Random(number)
        changed: bytes = target.change(data, rng) if rng.random() < 0.5 else atheris.Mutate(data, limit)
        return changed[:limit]

    options = [f"-seed={seed + 1}", "-max_len=500000", "-timeout=600", "-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], feed, custom_mutator=change)
    atheris.Fuzz()
