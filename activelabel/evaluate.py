"""``python evaluate.py RUN``: judge a trained agent against other strategies; ``--study FILE``: a grid of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from activelabel.cli import run_command
from activelabel.errors import SettingsError
from activelabel.evaluation import ActiveRun, Report, Run, SelectiveRun, open_run
from activelabel.evaluation.audit import Audit
from activelabel.evaluation.report import title
from activelabel.evaluation.study import read_study, run_study
from activelabel.evaluation.study_page import publish_study
from activelabel.files import write_text
from activelabel.train import publish


@dataclass(frozen=True)
class Evaluate:
    """Judge the agent of a run on test data that training has not seen, against other strategies on the same tasks or
    episodes; or, with --study, train and judge all that a study file lists.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run."""
    study: str | None = None
    """Instead of a run: a study file, or the name of one that comes with the package: quick, medselect, slade2022,
    noise, selectors, generalise. What is finished is not computed again; after an interruption give the same
    command."""
    backend: str = "loky"
    """With --study: loky, processes on this machine; dask or ray, here or on a running cluster."""
    address: str | None = None
    """With --study: of the running cluster, such as tcp://host:8786 (Dask), host:6379 or auto (Ray)."""
    jobs: int = 2
    """With --study: cells at a time; a running cluster is used whole."""
    results: str = "csv"
    """With --study: csv or parquet."""
    against: tuple[str, ...] | None = None
    """Strategies to compare with; by default those of the run. SelectiveLabel-v0: random, kmedoids,
    kmedoids-cosine, k-center, typiclust, facility-location, herding, clinical. ActiveLabel-v0: random, margin, entropy,
    uncertainty, average-confidence, k-center, badge, typiclust, oracle, skactiveml:NAME, lal-rl. Clinical and lal-rl
    are trained on first use. Or one of your own: package.module:Class, or the name of an entry point."""
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
    audit: bool = False
    """Say what each strategy chose as well, with the run's own K or budget: classes, duplicates, patient groups that it
    leaves out, distances."""
    out: Path | None = None
    """Folder for the table, the figure and summary.json; by default the run's. Of a study: its folder, by default
    studies/NAME."""
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
    SettingsError: if an option is for another environment than the run's, or for a study where there is a run.
    """
    if command.study is not None:
        _study(command, command.study)
        return
    if command.run is None:
        raise SettingsError("give the directory of a run, or --study with a study file.")
    _refuse(command, _OF_STUDIES, "goes with --study")
    run = open_run(command.run, command.progress)
    report, out = _report(run, command), command.out or command.run
    audits = _audit(run, command) if command.audit else {}
    publish(run, report, out, audits)
    for name, audited in audits.items():
        print(f"\nwhat {title(name)} chose\n\n{audited.table()}")
    if audits:
        plain = {name: asdict(audited) for name, audited in audits.items()}
        write_text(out / "audit.json", json.dumps(plain, indent=1) + "\n")
        print(f"\nwritten: {out / 'audit.json'}")


def _audit(run: Run, command: Evaluate) -> dict[str, Audit]:
    n = command.tasks or command.episodes
    return run.audits(command.against) if n is None else run.audits(command.against, n)


_OF_STUDIES = ("backend", "address", "jobs", "results")
_OF_RUNS = ("run", "against", "k", "tasks", "budget", "batch", "episodes", "also", "audit")


def _refuse(command: Evaluate, options: Sequence[str], why: str) -> None:
    for name in options:
        if getattr(command, name) != getattr(Evaluate, name):
            raise SettingsError(f"{'RUN' if name == 'run' else f'--{name}'} {why}.")


def _study(command: Evaluate, name: str) -> None:
    _refuse(command, _OF_RUNS, "does not go with --study: the study file says what is evaluated")
    study = read_study(name)
    out = command.out or Path("studies") / study.name
    finished = run_study(study, out, command.backend, command.address, command.jobs, command.results, command.progress)
    for table in finished.tables:
        print(f"\n{table.text()}")
    said, files = publish_study(finished, out)
    print(f"\n{said}")
    print(f"\nwritten: {', '.join(str(path) for path in [*finished.files, *files])}")


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
