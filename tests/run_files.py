"""Making tiny runs of ActiveLabel-v0, and looking at the directories of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from activelabel import train
from activelabel.agents import DDQN

SPLIT = "--fractions 0.4 0.3 0.3 --test-shares 0.4 0.1 0.2 0.3"
SIZES = f"--budget 7 --batch 3 --pool 60 --state-images 5 --learner-epochs 20 --episodes 18 --envs 4 {SPLIT}"
AGENT = "--hidden 8 8 --warm-start-episodes 8 --gradient-steps 3 --batch-size 8 --next-candidates 4 --buffer-size 40"
EVALUATION = "--val-every 2 --val-episodes 6 --test-episodes 10 --against random margin --no-progress --device cpu"
TINY = [*SIZES.split(), *AGENT.split(), *EVALUATION.split()]


def arguments(data: str, runs: Path, *more: str) -> list[str]:
    """Return what the training command is given."""
    return ["--env", "ActiveLabel-v0", "--data", data, "--runs", str(runs), *TINY, *more]


def killed_in_round(n: int, given: list[str], runs: Path) -> Path:
    """Train, but be interrupted in the gradient steps of round ``n``; returns the run's directory."""
    gradient_steps = DDQN.train

    def killed(self: DDQN, *args: Any) -> None:
        if len(self.returns) == n:
            raise KeyboardInterrupt
        gradient_steps(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DDQN, "train", killed)
        assert train.main(given) == 130
    return one_run(runs)


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


def rows(folder: Path, metric: str = "aulc") -> dict[str, dict[str, Any]]:
    """Return the rows of summary.json by strategy."""
    found = json.loads((folder / "summary.json").read_text())["rows"]
    return {row["strategy"]: row for row in found if row["metric"] == metric}
