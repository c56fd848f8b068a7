"""Looking at the directories of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def one_run(folder: Path) -> Path:
    """Return the one directory in a folder."""
    (run,) = folder.iterdir()
    return run


def same_tensors(a: Any, b: Any) -> bool:
    """Say whether nested dicts and lists hold the same tensors and numbers, to the last bit."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(same_tensors(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same_tensors(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)
