"""Running a study: what is missing is computed, in parallel; what is finished stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from activelabel.baselines import make_baseline, make_pool_baseline
from activelabel.data import Cohort
from activelabel.errors import ActiveLabelError, SettingsError, unknown
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.study.backends import Workers, check_backend, connected
from activelabel.evaluation.study.cells import (
    Cell,
    Data,
    EvaluateCell,
    TrainCell,
    forget,
    open_judge,
    open_own,
    read_cell,
)
from activelabel.evaluation.study.choices import AGAIN, Choices, ChooseCell, open_cohort, read_choices
from activelabel.evaluation.study.findings import Findings, find
from activelabel.evaluation.study.provenance import Record, Training
from activelabel.evaluation.study.results import Block, check_results, write_results
from activelabel.evaluation.study.shared import content_digest, share
from activelabel.evaluation.study.spec import ACTIVE, SELECTIVE, DataEntry, Grid, Study, StudyError
from activelabel.evaluation.study.tables import Table, build_tables
from activelabel.settings import RunSettings, SelectiveRunSettings

FILES = ("csv", "parquet")
"""What the results can be written as."""

_ATTEMPTS = 3
"""How often in a row workers may die before one cell is finished."""


@dataclass(frozen=True)
class Planned:
    """An evaluation of a study, and how its rows in the results begin."""

    keys: dict[str, str | int | None]
    cell: EvaluateCell


@dataclass(frozen=True)
class Finished:
    """A study that was run.

    Parameters
    ----------
    study: what was run.
    blocks: the results.
    tables: of the results.
    findings: who is better than whom.
    choices: what the strategies chose in the first test tasks.
    cohorts: for each grid and data set how to open the data.
    seconds: processor time of the training of each seed, by grid, data set, strategy, labels and labels a step (or 0).
    files: that hold results and tables.
    """

    study: Study
    blocks: list[Block]
    tables: list[Table]
    findings: Findings
    choices: list[Choices]
    cohorts: Mapping[tuple[str, str], Callable[[], Cohort]]
    seconds: dict[tuple[str, str, str, int, int], list[float]]
    files: list[Path]


def run_study(
    study: Study,
    out: Path,
    backend: str = "loky",
    address: str | None = None,
    jobs: int = 2,
    file: str = "csv",
    progress: bool = True,
) -> Finished:
    """Compute what is missing of a study, and write its results.

    ``out`` gets ``results.csv`` (or ``.parquet``), ``provenance.json``, ``tables/``, and what makes a study resumable:
    ``cells/``, ``runs/`` and ``data/``. Results depend on the study file, the data and the version alone; when and
    where they were computed is in the provenance.

    Parameters
    ----------
    study: see :func:`~activelabel.evaluation.study.reading.read_study`.
    out: the study's folder; with a cluster, one that all its machines see.
    backend, address, jobs: see :func:`~activelabel.evaluation.study.backends.connected`.
    file: one of :data:`FILES`.
    progress: show a bar with the time that is left.

    Raises
    ------
    DataError, SettingsError: if data, settings or backend do not fit, before anything is computed.
    StudyError: if results of another version are in the way, the disk is full, a cluster cannot be reached, or workers
        keep dying. What was finished stays.
    """
    if file not in FILES:
        raise SettingsError(unknown("kind of results file", file, FILES))
    check_backend(backend, address, jobs)
    out = out.resolve()
    results = out / f"results.{file}"
    check_results([results])
    try:
        planned, described = _plan(study, out)
        record = Record(study, out / "provenance.json", _trainings(planned), described)
        record.begin(backend, address, jobs)
        _compute([each.cell for each in planned], out, (backend, address, jobs), study.name, progress)
        played = [each for each in planned if not isinstance(each.cell, ChooseCell)]
        blocks = [_block(each, out) for each in played]
        write_results(blocks, results)
        references = {grid.name: grid.reference for grid in study.grids}
        findings = find(blocks, references)
        tables = build_tables(blocks, references, findings)
        written = [path for table in tables for path in table.write(out / "tables", study.name)]
        record.end(out)
    except OSError as error:
        raise StudyError(f"{out}: not written ({error}). {_KEPT}") from None
    choices = [read_choices(each.keys, each.cell, out) for each in planned if isinstance(each.cell, ChooseCell)]
    files = [results, record.path, *written]
    cohorts, seconds = _cohorts(study, planned), _seconds(played, out)
    return Finished(study, blocks, tables, findings, choices, cohorts, seconds, files)


_KEPT = "What was finished stays: make room where that is the trouble, and run the same command again."


# -- what there is to do ----------------------------------------------------------------------------------------------


def _plan(study: Study, out: Path) -> tuple[list[Planned], list[dict[str, Any]]]:
    """Return the evaluations of a study in the order of its results, and what is known of its data."""
    planned: list[Planned] = []
    loaded: dict[tuple[Any, ...], tuple[Data, dict[str, Any]]] = {}
    described = {}

    def shared(entry: DataEntry) -> Data:
        s = entry.settings
        source = (s.data, s.labels, s.normal, s.patient)
        if source not in loaded:
            loaded[source] = _share(s, out)
        data, facts = loaded[source]
        described[f"{entry.name} {data.digest}"] = {"name": entry.name, **facts}
        return data

    for grid in study.grids:
        for entry in grid.data:
            where = f"{study.path}: grids.{grid.name}: data '{entry.name}'"
            try:
                data = shared(entry)
                own = list(_evaluations(study, grid, entry, data, shared))
                _check(grid, entry, data, [each.cell for each in own], out)
                if entry.images is not None:
                    open_cohort(own[0].cell, entry.images)
            except ActiveLabelError as error:
                raise type(error)(f"{where}: {error}") from None
            planned += own
    forget()
    return planned, list(described.values())


def _share(settings: RunSettings, out: Path) -> tuple[Data, dict[str, Any]]:
    cohort = settings.cohort()
    digest = content_digest(cohort)
    facts = {
        "data": settings.data,
        "digest": digest,
        "images": len(cohort),
        "features": None if cohort.features is None else int(np.shape(cohort.features)[1]),
        "classes": list(cohort.classes),
        "source": asdict(cohort.source),
    }
    return Data(digest, share(cohort, out / "data" / digest)), facts


def _evaluations(
    study: Study, grid: Grid, entry: DataEntry, data: Data, shared: Callable[[DataEntry], Data]
) -> Iterator[Planned]:
    s = entry.settings
    sets: tuple[str, ...] = ("",)
    if isinstance(s, SelectiveRunSettings):
        sets = ("seen", "held-out") if s.held_out else ("seen",)
    for budget in grid.budgets:
        for conditions in sets:
            for strategy in grid.strategies:
                trained = strategy.agent is not None
                for seed in grid.seeds if trained else (None,):
                    model = None
                    if seed is not None:
                        own = data if strategy.trained_on is None else shared(strategy.trained_on)
                        model = TrainCell(own, grid.training(strategy, entry, budget, seed))
                    name = "" if trained else strategy.name
                    keys = {
                        "study": study.name,
                        "grid": grid.name,
                        "data": entry.name,
                        "env": grid.env,
                        "conditions": conditions,
                        "strategy": strategy.name,
                        "preset": (strategy.preset or s.preset) if trained else "",
                        "seed": seed,
                        **asdict(budget),
                    }
                    yield Planned(keys, EvaluateCell(data, s, name, model, conditions, budget, grid.n))
                    if grid.audit and budget == grid.budgets[0] and seed in (None, grid.seeds[0]):
                        kept = ChooseCell(data, s, name, model, conditions, budget, grid.audit)
                        yield Planned(keys, kept)
                        if name == "random" and grid.env == SELECTIVE:
                            yield Planned({**keys, "strategy": AGAIN}, replace(kept, again=True))


def _trainings(planned: Sequence[Planned]) -> list[Training]:
    """Return each training once, with what tables call the first evaluation that it is for."""
    found: dict[str, Training] = {}
    for each in planned:
        if each.cell.model is not None:
            keys = {
                name: value for name, value in each.keys.items() if value not in (None, "") and name != "conditions"
            }
            found.setdefault(each.cell.model.key, (keys, each.cell.model))
    return list(found.values())


def _check(grid: Grid, entry: DataEntry, data: Data, cells: Sequence[EvaluateCell], out: Path) -> None:
    """Make what the cells will make, so that what does not fit ends the study before anything is computed."""
    if all(cell.finished(out) for cell in cells):
        return
    run = open_judge(entry.settings, data, out)
    for budget in grid.budgets:
        if isinstance(run, ActiveRun):
            run.test.sibling(budget=budget.labels, batch=budget.batch)
    make = make_pool_baseline if grid.env == ACTIVE else make_baseline
    for strategy in grid.strategies:
        if strategy.agent is None:
            make(strategy.name)
    seen = set()
    for cell in cells:
        if cell.model is not None and not cell.model.finished(out):
            alike = json.dumps({**cell.model.describe()["settings"], "seed": 0}, sort_keys=True)
            if alike not in seen:
                open_own(cell.model, out)
            seen.add(alike)


# -- doing it ---------------------------------------------------------------------------------------------------------


def _compute(
    evaluations: Sequence[EvaluateCell], out: Path, where: tuple[str, str | None, int], name: str, progress: bool
) -> None:
    baselines = [cell for cell in evaluations if cell.model is None]
    agents = [cell for cell in evaluations if cell.model is not None]
    trainings = [cell.model for cell in agents if cell.model is not None]
    # Baselines fill the time in which the last trainings end.
    waves = [_once([*trainings, *baselines]), _once(agents)]
    everything = [cell for wave in waves for cell in wave]
    with _bar(everything, out, name, progress):
        if all(cell.finished(out) for cell in everything):
            return
        with connected(*where) as workers:
            for wave in waves:
                _compute_wave(wave, out, workers)


def _compute_wave(wave: Sequence[Cell], out: Path, workers: Workers) -> None:
    """Compute cells; when a worker dies, what it had not finished is given to others."""
    deaths = 0
    missing = [cell for cell in wave if not cell.finished(out)]
    while missing:
        try:
            workers.compute(missing, out)
        except workers.lost as error:
            left = [cell for cell in missing if not cell.finished(out)]
            deaths = deaths + 1 if len(left) == len(missing) else 0
            missing = left
            if deaths == _ATTEMPTS:
                raise StudyError(
                    f"workers died {deaths} times before a cell was finished ({type(error).__name__}); was there too "
                    f"little memory? {_KEPT}"
                ) from None
        except StudyError as error:
            raise StudyError(f"{error} {_KEPT}") from None
        else:
            return


def _once(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells without those that are there before under the same key."""
    return list({cell.path(Path()): cell for cell in cells}.values())


@contextmanager
def _bar(cells: Sequence[Cell], out: Path, name: str, progress: bool) -> Iterator[None]:
    """Show how many cells are finished and the time that is left; workers report by their files alone."""
    left = [cell.path(out) for cell in cells]
    before = sum(path.exists() for path in left)
    over = threading.Event()
    with tqdm(total=len(left), initial=before, unit="cell", desc=name, disable=not progress, dynamic_ncols=True) as bar:

        def look() -> None:
            nonlocal left
            left = [path for path in left if not path.exists()]
            bar.update(len(cells) - len(left) - bar.n)
            bar.refresh()

        def watch() -> None:
            while not over.wait(1):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look()


def _cohorts(study: Study, planned: Sequence[Planned]) -> dict[tuple[str, str], Callable[[], Cohort]]:
    images = {(grid.name, entry.name): entry.images for grid in study.grids for entry in grid.data}
    cells = {(str(each.keys["grid"]), str(each.keys["data"])): each.cell for each in planned}
    return {where: partial(open_cohort, cell, images[where]) for where, cell in cells.items()}


def _seconds(planned: Sequence[Planned], out: Path) -> dict[tuple[str, str, str, int, int], list[float]]:
    found: dict[tuple[str, str, str, int, int], dict[str, float]] = {}
    for each in planned:
        if (cell := each.cell.model) is not None:
            grid, data, strategy = (str(each.keys[name]) for name in ("grid", "data", "strategy"))
            of = (grid, data, strategy, each.cell.budget.labels or 0, each.cell.budget.batch or 0)
            found.setdefault(of, {})[cell.key] = float(read_cell(cell, out)["cpu_seconds"])
    return {of: list(seconds.values()) for of, seconds in found.items()}


def _block(planned: Planned, out: Path) -> Block:
    found = read_cell(planned.cell, out)

    def column(name: str, kind: type[Any]) -> Any:
        return np.array(found[name], dtype=kind) if name in found else None

    keys = {**planned.keys, "metric": str(found["metric"])}
    return Block(
        keys,
        column("value", np.float64),
        column("one_class", np.bool_),
        column("aulc", np.float64),
        column("curve", np.float64),
    )
