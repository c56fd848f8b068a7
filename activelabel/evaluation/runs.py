"""Making and opening runs of any environment."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from activelabel.data.catalog import absolute
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.run import Run
from activelabel.evaluation.selective_run import SelectiveRun
from activelabel.plugins import file_name
from activelabel.settings import ActiveRunSettings, RunSettings, read_config

RUNS: dict[str, type[Run]] = {"SelectiveLabel-v0": SelectiveRun, "ActiveLabel-v0": ActiveRun}
"""The class of a run, by environment id."""


def create_run(settings: RunSettings, root: Path = Path("runs"), progress: bool = True) -> Run:
    """Make the directory ``{env}__{agent}__{seed}__{time}`` of a new run, unless settings and data do not fit."""
    name = f"{settings.env}__{file_name(settings.agent)}__{settings.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    settings = replace(settings, data=absolute(settings.data))  # the run can then be opened from any directory
    if isinstance(settings, ActiveRunSettings):
        settings = replace(settings, train_also=tuple(map(absolute, settings.train_also)))
    run = RUNS[settings.env](root / name, settings, progress)
    run.folder = _claimed(root, name)
    run.write_config()
    return run


def _claimed(root: Path, name: str) -> Path:
    """Make a directory that no other run has, also not one that starts in the same second."""
    taken = 0
    while True:
        folder = root / (f"{name}-{taken}" if taken else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            taken += 1
        else:
            return folder


def open_run(folder: Path, progress: bool = True) -> Run:
    """Open the directory of a run.

    Raises
    ------
    SettingsError: if it is not one.
    CheckpointError: if its model is damaged.
    """
    settings = read_config(folder / "config.yaml")
    return RUNS[settings.env](folder, settings, progress)
