"""Which selector carries over to conditions that it was not trained on, by validation alone.

::

    python -m benchmarks.left_out --data kather2016_texture_features.npz synthetic

One seen condition after the other is left out of training and validates (``left_out``), for every selector and training
seed. Shown is the AUROC on the left-out condition less that of K-Medoids on the same tasks, in the course of training:
the mean over left-out conditions and seeds, and at the best of its validations. Images and conditions of the test are
not touched. Every selector is trained alike on all sets; only the sizes of tasks are the data set's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from joblib import Parallel, delayed

from activelabel.agents import Reinforce
from activelabel.cli import run_command
from activelabel.errors import SettingsError, unknown
from activelabel.evaluation import SelectiveRun
from activelabel.settings import SelectiveRunSettings, preset

SELECTORS: dict[str, dict[str, Any]] = {
    "bilstm": {"selector": "bilstm"},
    "mlp": {"selector": "mlp"},
    "anchored, 1": {"selector": "anchored", "anchor": 1.0},
    "anchored, 3": {"selector": "anchored", "anchor": 3.0},
    "anchored, 3, half": {"selector": "anchored", "anchor": 3.0, "clusters_share": 0.5},
    "cosine, 1": {"selector": "anchored", "anchor": 1.0, "anchor_distance": "cosine"},
    "cosine, 3": {"selector": "anchored", "anchor": 3.0, "anchor_distance": "cosine"},
    "cosine, 10": {"selector": "anchored", "anchor": 10.0, "anchor_distance": "cosine"},
    "cosine, 3, half": {"selector": "anchored", "anchor": 3.0, "anchor_distance": "cosine", "clusters_share": 0.5},
}
"""Settings by the name in the table."""

SETS: dict[str, dict[str, Any]] = {
    "kather": {"preset": "kather", "conditions": ("TUMOR", "STROMA"), "held_out": ("COMPLEX", "LYMPHO", "DEBRIS")},
    "nih": {
        **{"preset": "nih", "split_seed": 10, "val_pool": 24},
        **{"conditions": ("Cardiomegaly", "Edema", "Infiltration"), "held_out": ("Atelectasis", "Effusion")},
    },
    "synthetic": {"preset": "default"},
}
"""Conditions of each data set, by the beginning of its file's name."""


@dataclass(frozen=True)
class Settings:
    """What is trained."""

    data: tuple[str, ...] = ("synthetic",)
    """Data sets: synthetic, or a file whose name begins with kather or nih."""
    selectors: tuple[str, ...] = tuple(SELECTORS)
    """Rows of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training."""
    at_once: int = 1
    """Conditions that are left out of one training, in the order of the data."""
    updates: int = 160
    """Gradient steps."""
    val_every: int = 20
    """Gradient steps between validations."""
    val_tasks: int = 200
    """Tasks of a validation."""
    learning_rate: float = 1e-3
    """Of Adam."""
    batch_size: int = 32
    """Tasks in a gradient step."""
    n_samples: int = 8
    """Selections judged for each task."""
    hidden: int = 64
    """Units of the networks' layers."""
    jobs: int = 2
    """Trainings that run at once, on one thread each."""


def base(data: str, s: Settings) -> SelectiveRunSettings:
    """Return the settings of a data set, but for what is left out and who selects."""
    name = next((name for name in SETS if Path(data).name.startswith(name)), None)
    if name is None:
        raise SettingsError(unknown("data set", Path(data).name, SETS))
    own = dict(SETS[name])
    start = preset(own.pop("preset"), data=data)
    assert isinstance(start, SelectiveRunSettings)
    same = {key: value for key, value in asdict(s).items() if key in asdict(start) and key != "data"}
    return replace(start, **own, **same, lr_factor=1.0, against=(), device="cpu", threads=1)


def cells(s: Settings, rows: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str, SelectiveRunSettings]]:
    """Yield data set, row and settings of each training.

    Parameters
    ----------
    s: what is trained.
    rows: the settings of all rows that there are, by name.
    """
    for data in s.data:
        start = base(data, s)
        with tempfile.TemporaryDirectory() as folder:
            seen = SelectiveRun(Path(folder), start, progress=False).train_env.engine.sampler.conditions
        for name in s.selectors:
            if name not in rows:
                raise SettingsError(unknown("selector", name, rows))
            for first in range(0, len(seen), s.at_once):
                left_out = seen[first : first + s.at_once]
                for seed in s.seeds:
                    yield Path(data).stem, name, replace(start, **rows[name], left_out=left_out, seed=seed)


def gains(settings: SelectiveRunSettings) -> list[float]:
    """Return AUROC less K-Medoids' on the left-out condition, at each validation of a training."""
    with tempfile.TemporaryDirectory() as folder:
        run = SelectiveRun(Path(folder), settings, progress=False)
        run.train()
        last = Reinforce.load(Path(folder) / "checkpoint.zip", device="cpu")
        clustering = run.references["kmedoids"]
    return [value - clustering for _, value in last.notes["history"]]


def measure(s: Settings) -> None:
    """Train and print."""
    planned = list(cells(s, SELECTORS))
    found = Parallel(n_jobs=s.jobs)(delayed(gains)(settings) for _, _, settings in planned)
    show(s, [(data, name, curve) for (data, name, _), curve in zip(planned, found, strict=True)])


def show(s: Settings, found: Sequence[tuple[str, str, list[float]]]) -> None:
    """Print the table.

    Parameters
    ----------
    s: what was trained.
    found: data set, row and what :func:`gains` returns of each training, in the order of :func:`cells`.
    """
    table: dict[tuple[str, str], list[list[float]]] = {}
    for data, name, curve in found:
        table.setdefault((data, name), []).append(curve)
    steps = [min(s.updates, s.val_every * (i + 1)) for i in range(len(found[0][-1]))]
    width = max(18, *(len(name) for _, name in table))
    head = f"{'data':<28} {'selector':<{width}} n  {' '.join(f'{step:>7}' for step in steps)}     best  "
    head += f"per {'condition' if s.at_once == 1 else 'group of conditions'}, at the end"
    print(f"{head}\n{'-' * len(head)}")
    for (data, name), curves in table.items():
        values = np.array(curves)
        shown = " ".join(f"{value:+7.4f}" for value in values.mean(axis=0))
        each = values[:, -1].reshape(-1, len(s.seeds)).mean(axis=1)
        ends = " ".join(f"{value:+.4f}" for value in each)
        print(f"{data:<28} {name:<{width}} {len(values):>2} {shown}  {values.max(axis=1).mean():+7.4f}  {ends}")
    print("AUROC on the left-out condition less K-Medoids', mean over left-out conditions and seeds, by updates.")


def main() -> int:
    """Run the command."""
    return run_command(lambda: measure(tyro.cli(Settings, description=__doc__)))


if __name__ == "__main__":
    raise SystemExit(main())
