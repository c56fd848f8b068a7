"""``python evaluate.py RUN``: judge a trained agent against other strategies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from activelabel.cli import run_command
from activelabel.evaluation import Run
from activelabel.train import report_on


@dataclass(frozen=True)
class Evaluate:
    """Judge the agent of a run on test tasks that training has not seen, against other strategies on the same tasks."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    k: tuple[int, ...] = ()
    """Numbers of images to label; by default those of the run."""
    against: tuple[str, ...] | None = None
    """Strategies to compare with: random, kmedoids, clinical (trained on first use); by default those of the run."""
    tasks: int | None = None
    """Test tasks for seen and for held-out conditions each; by default those of the run."""
    out: Path | None = None
    """Folder for the table, the figure and summary.json; by default the run's."""
    progress: bool = True
    """Show progress bars."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    command = tyro.cli(Evaluate, args=None if arguments is None else list(arguments), prog="evaluate.py")
    return run_command(lambda: evaluate(command))


def evaluate(command: Evaluate) -> None:
    """Evaluate and print the table."""
    run = Run.open(command.run, command.progress)
    report_on(run, command.out or command.run, command.k or None, command.against, command.tasks)


if __name__ == "__main__":
    sys.exit(main())
