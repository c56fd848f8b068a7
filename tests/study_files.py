"""A tiny study: both environments, trained and untrained strategies, seconds long."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from activelabel.data import Cohort

SELECTIVE: dict[str, Any] = {
    "env": "SelectiveLabel-v0",
    "data": ["cohort.npz"],
    "settings": {
        **{"pool": 20, "query": 12, "k": 4, "updates": 4, "batch_size": 4, "n_samples": 2, "hidden": 8, "val_every": 2},
        **{"val_tasks": 8, "held_out": ["Edema", "Atelectasis"], "device": "cpu"},
    },
    "strategies": [
        "random",
        "kmedoids",
        "reinforce",
        {
            "agent": "reinforce",
            "name": "printed",
            "preset": "medselect-paper",
            "settings": {"updates": 2, "batch_size": 4, "val_every": 1, "hidden": 8},
        },
    ],
    "k": [2, 4],
    "tasks": 6,
}
ACTIVE: dict[str, Any] = {
    "env": "ActiveLabel-v0",
    "data": [{"data": "blobs.npz", "name": "four blobs"}],
    "settings": {
        **{"budget": 7, "batch": 3, "pool": 60, "state_images": 5, "learner_epochs": 20, "episodes": 8, "envs": 4},
        **{"fractions": [0.4, 0.3, 0.3], "test_shares": [0.4, 0.1, 0.2, 0.3], "hidden": [8, 8]},
        **{"warm_start_episodes": 4, "gradient_steps": 3, "batch_size": 8, "next_candidates": 4, "buffer_size": 40},
        **{"val_every": 2, "val_episodes": 4, "device": "cpu"},
    },
    "strategies": [
        "random",
        "margin",
        "k-center",
        "ddqn",
        {"agent": "lal-rl", "settings": {"episodes": 4, "envs": 4, "warm_start_episodes": 4, "gradient_steps": 2}},
    ],
    "batch": [3, 2],
    "episodes": 5,
}
STUDY: dict[str, Any] = {"about": "a test", "seeds": [0, 1], "grids": {"once": SELECTIVE, "episodes": ACTIVE}}
CELLS = 2 * 2 + 4 * 2 + 2 * 2 * 4 + 2 * 5 + 2 * 2 + 3 * 2 + 2 * 2 * 2 + 5
"""Trainings of the first grid, baselines' and agents' evaluations, and their choices; the same of the second."""


def study_file(folder: Path, cohort: Cohort, blobs: Cohort, **changes: Any) -> Path:
    """Write the study and its data; ``changes`` replace entries of the first grid."""
    study = copy.deepcopy(STUDY)
    study["grids"]["once"] |= changes
    return write(folder, study, cohort, blobs)


def write(folder: Path, study: dict[str, Any], cohort: Cohort, blobs: Cohort) -> Path:
    """Write any study beside the two cohorts."""
    for name, found in (("cohort.npz", cohort), ("blobs.npz", blobs)):
        if not (folder / name).exists():
            found.save(folder / name)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def finished(out: Path) -> set[str]:
    """Return the cells that are finished."""
    return {str(p.relative_to(out)) for p in [*out.glob("cells/*.json"), *out.glob("runs/*/trained.json")]}


def sessions(out: Path) -> list[dict[str, Any]]:
    """Return the sessions in the provenance."""
    found: list[dict[str, Any]] = json.loads((out / "provenance.json").read_text())["sessions"]
    return found
