"""``python evaluate.py RUN``: judge a trained agent against other strategies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from activelabel.cli import run_command
from activelabel.errors import SettingsError
from activelabel.evaluation import ActiveRun, Report, Run, SelectiveRun, open_run
from activelabel.train import publish


@dataclass(frozen=True)
class Evaluate:
    """Judge the agent of a run on test data that training has not seen, against other strategies on the same tasks or
    episodes.
    """

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    against: tuple[str, ...] | None = None
    """Strategies to compare with; by default those of the run. SelectiveLabel-v0: random, kmedoids, clinical.
    ActiveLabel-v0: random, margin, entropy, uncertainty, average-confidence, k-center, badge, typiclust, oracle,
    skactiveml:NAME, lal-rl. Clinical and lal-rl are trained on first use."""
    k: tuple[int, ...] = ()
    """SelectiveLabel-v0: numbers of images to label; by default those of the run."""
    tasks: int | None = None
    """SelectiveLabel-v0: test tasks for seen and for held-out conditions each; by default those of the run."""
    budget: int | None = None
    """ActiveLabel-v0: labels in an episode; by default as in training."""
    batch: int | None = None
    """ActiveLabel-v0: labels a step; by default as in training."""
    episodes: int | None = None
    """ActiveLabel-v0: test episodes; by default those of the run."""
    also: tuple[Path, ...] = ()
    """ActiveLabel-v0: directories of other runs, whose agents label here as they are."""
    out: Path | None = None
    """Folder for the table, the figure and summary.json; by default the run's."""
    progress: bool = True
    """Show progress bars."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    command = tyro.cli(Evaluate, args=None if arguments is None else list(arguments), prog="evaluate.py")
    return run_command(lambda: evaluate(command))


def evaluate(command: Evaluate) -> None:
    """Evaluate and print the table.

    Raises
    ------
    SettingsError: if an option is for another environment than the run's.
    """
    run = open_run(command.run, command.progress)
    publish(run, _report(run, command), command.out or command.run)


def _report(run: Run, command: Evaluate) -> Report:
    of_selective = {"k": command.k or None, "tasks": command.tasks}
    of_active = {n: getattr(command, n) for n in ("budget", "batch", "episodes")} | {"also": command.also or None}
    for name, value in (of_active if isinstance(run, SelectiveRun) else of_selective).items():
        if value is not None:
            raise SettingsError(f"--{name} is not for a run of {run.settings.env}.")
    if isinstance(run, SelectiveRun):
        return run.evaluate(command.k or None, command.against, command.tasks)
    assert isinstance(run, ActiveRun)
    return run.evaluate(command.budget, command.batch, command.against, command.episodes, command.also)


if __name__ == "__main__":
    sys.exit(main())
