"""``python train.py``: train an agent and judge it against the baselines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from activelabel.cli import run_command
from activelabel.evaluation import Report, Run, create_run, open_run
from activelabel.evaluation.audit import Audit
from activelabel.evaluation.board import write_views
from activelabel.evaluation.run_page import write_run_page
from activelabel.settings import RunSettings, preset


@dataclass(frozen=True)
class Train:
    """Train an agent on an environment, validate it while it trains, and judge it against the baselines on test tasks.

    Without arguments: the REINFORCE selector of SelectiveLabel-v0 on the embedded cohort. With --env ActiveLabel-v0:
    the DDQN that labels batch after batch. A preset fills in the settings; what is given here overrides it.
    """

    settings: Annotated[RunSettings, tyro.conf.arg(name="")]
    runs: Path = Path("runs")
    """Folder in which the directory of the run is made."""
    resume: Path | None = None
    """Directory of a run that was interrupted: go on with its own settings."""
    progress: bool = True
    """Show progress bars."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: train(parse(given)))


def parse(arguments: Sequence[str]) -> Train:
    """Return the command that the arguments describe; the preset among them gives the defaults of the others.

    Raises
    ------
    SettingsError: if the preset, the agent or the environment is unknown, or a value out of range.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "agent", "env", "data"):
        first.add_argument(f"--{name}")
    first.add_argument("--generalise", action="store_true")
    known, _ = first.parse_known_args(list(arguments))
    env = known.env or "SelectiveLabel-v0"
    start = preset(known.preset or "default", known.agent, env, known.data, known.generalise)
    return tyro.cli(Train, args=list(arguments), default=Train(start), prog="train.py")


def train(command: Train) -> None:
    """Train, evaluate, and print where everything is."""
    if command.resume is not None:
        run = open_run(command.resume, command.progress)
    else:
        run = create_run(command.settings, command.runs, command.progress)
    print(f"{run.describe()}\n{run.folder}", flush=True)
    run.train()
    publish(run, run.evaluate(), run.folder)


def publish(run: Run, report: Report, out: Path, audits: Mapping[str, Audit] | None = None) -> None:
    """Print the table, and write it with the figure, ``summary.json`` and ``report.html`` to ``out``; where that is the
    run's directory, what TensorBoard shows of it too.

    Parameters
    ----------
    run: the run.
    report: of its evaluation.
    out: folder for the files.
    audits: of what strategies chose, by name, for the page; or None.
    """
    print("\n" + "\n".join([run.best(), *run.choice()]) + "\n")
    print(report.table())
    written = report.write(out, run=run.folder.name, preset=run.settings.preset, data=run.settings.data)
    views = run.views(report)
    written.append(write_run_page(run, report, views.selections, audits or {}, out))
    print(f"\nwritten: {', '.join(str(path) for path in written)}")
    if out.resolve() == run.folder.resolve():
        write_views(run.folder, run.settings, run.cohort, views)


if __name__ == "__main__":
    sys.exit(main())
