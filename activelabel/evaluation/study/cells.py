"""The cells of a study: what is computed once, kept under its key, and never computed again.

A *train* cell is an agent, its settings and a seed; it becomes the directory of a run. An *evaluate* cell is a strategy
on the test tasks of one data set, one set of conditions and one budget. The key of a cell is a digest of all that
determines its result: settings, the content of the data, and the version of the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from activelabel import plugins
from activelabel.agents import AGENTS, DDQN
from activelabel.baselines import BASELINES, POOL_BASELINES, make_baseline, make_pool_baseline
from activelabel.baselines.activeml import PREFIX
from activelabel.data import Cohort
from activelabel.envs import IMAGE_LEARNERS, LEARNERS, ActiveLabelEngine
from activelabel.errors import DuplicateImagesWarning
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.episodes import play_episodes
from activelabel.evaluation.protocol import Strategy, play
from activelabel.evaluation.run import Run, best_model
from activelabel.evaluation.runs import RUNS
from activelabel.evaluation.selective_run import SelectiveRun
from activelabel.evaluation.study.shared import open_shared
from activelabel.evaluation.study.spec import Budget, StudyError
from activelabel.files import write_text
from activelabel.settings import RunSettings

FORMAT = 2
"""Of the files of finished cells."""


@dataclass(frozen=True)
class Data:
    """The data of a cell, by reference.

    Parameters
    ----------
    digest: of the content.
    folder: where it can be mapped from; None where it has to be loaded by the name in the settings.
    """

    digest: str
    folder: Path | None


class Cell(ABC):
    """What is computed as one piece."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return all that determines the result, as plain values."""

    @abstractmethod
    def path(self, out: Path) -> Path:
        """Return the file that is there once the cell is finished, below the study's folder."""

    @abstractmethod
    def work(self, out: Path) -> dict[str, Any]:
        """Compute; returns what goes into the file, as plain values."""

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps({**self.describe(), "version": package_version()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def finished(self, out: Path) -> bool:
        """Say whether there is nothing left to do."""
        return self.path(out).exists()


@dataclass(frozen=True)
class TrainCell(Cell):
    """The training of an agent; the run's directory is ``runs/{agent}-{seed}-{key}``."""

    data: Data
    settings: RunSettings

    def describe(self) -> dict[str, Any]:
        """See :class:`Cell`."""
        settings = asdict(self.settings)
        del settings["data"]  # where the file lies is no matter; the digest says what is in it
        code = _code(self.settings, ("agent", self.settings.agent, AGENTS))
        return {"kind": "train", "data": self.data.digest, "settings": settings, **code}

    def folder(self, out: Path) -> Path:
        """Return the directory of the run."""
        return out / "runs" / f"{plugins.file_name(self.settings.agent)}-{self.settings.seed}-{self.key}"

    def path(self, out: Path) -> Path:
        """See :class:`Cell`."""
        return self.folder(out) / "trained.json"

    def work(self, out: Path) -> dict[str, Any]:
        """Train, or go on where the last checkpoint was written."""
        folder = self.folder(out)
        resumed = (folder / "checkpoint.zip").exists()
        run = open_own(self, out)
        if not (folder / "versions.yaml").exists():
            run.write_config()
        run.train()
        return {"resumed": resumed, "best": run.best()}


@dataclass(frozen=True)
class EvaluateCell(Cell):
    """A strategy on test tasks.

    Parameters
    ----------
    data: the test tasks are drawn of.
    judge: the settings that make the test tasks.
    strategy: of a baseline the name; of an agent without meaning.
    model: the agent's training, or None for a baseline.
    conditions: ``"seen"`` or ``"held-out"``; empty for ``ActiveLabel-v0``.
    budget: what may be labelled.
    n: test tasks or episodes.
    """

    data: Data
    judge: RunSettings
    strategy: str
    model: TrainCell | None
    conditions: str
    budget: Budget
    n: int

    def describe(self) -> dict[str, Any]:
        """See :class:`Cell`."""
        judge = {**asdict(self.judge), **self.judge.env_arguments()}
        # What an agent is trained with is in its own key.
        own = {
            "data",
            "agent",
            "agent_options",
            "preset",
            "against",
            *self.judge.agent_arguments(),
            "lr_factor",
            "lr_start",
        } - {"device"}
        return {
            "kind": "evaluate",
            "data": self.data.digest,
            "judge": {name: value for name, value in judge.items() if name not in own},
            "strategy": self.strategy if self.model is None else self.model.describe(),
            "seed": self.judge.seed,
            "conditions": self.conditions,
            "budget": asdict(self.budget),
            "n": self.n,
            **_code(self.judge, ("baseline", self.strategy, {*BASELINES, *POOL_BASELINES, ""})),
        }

    def path(self, out: Path) -> Path:
        """See :class:`Cell`."""
        return out / "cells" / f"{self.key}.json"

    def work(self, out: Path) -> dict[str, Any]:
        """Play; returns one value of each kind for each task or episode."""
        run = open_judge(self.judge, self.data, out)
        chooser, k = self.chooser(out, self.judge.seed), self.budget.k
        if isinstance(run, SelectiveRun):
            assert k is not None
            scores = play(run.test[self.conditions], chooser, [k], self.n)[k]
            return {"metric": "auroc", "value": scores.reward.tolist(), "one_class": scores.one_class.tolist()}
        assert isinstance(run, ActiveRun)
        curves = play_episodes(self.episodes(run), chooser, self.n)
        return {
            "metric": run.settings.metric,
            "value": curves.final.tolist(),
            "aulc": curves.aulc.tolist(),
            "curve": curves.accuracy.tolist(),
            "spent": curves.labels.tolist(),
        }

    def chooser(self, out: Path, seed: int) -> Strategy:
        """Return the strategy, with a seed if it is a baseline."""
        budget = self.budget
        if self.model is None:
            if budget.k is not None:
                return make_baseline(self.strategy, budget.k, seed)
            assert budget.batch is not None
            return make_pool_baseline(self.strategy, budget.batch, seed)
        model: Strategy = best_model(self.model.folder(out), self.model.settings, self.judge.device)
        if isinstance(model, DDQN) and "batch" not in model.env_settings:
            assert budget.batch is not None
            model.n = budget.batch
        return model

    def episodes(self, run: ActiveRun) -> ActiveLabelEngine:
        """Return the engine of the test episodes."""
        return run.test.sibling(budget=self.budget.labels, batch=self.budget.batch)


def _code(settings: RunSettings, strategy: tuple[str, str, Collection[str]]) -> dict[str, Any]:
    """Return what tells the files of plug-ins apart: a result is of the code that it was computed with."""
    used = [strategy, ("learner", str(getattr(settings, "learner", "softmax")), {*LEARNERS, *IMAGE_LEARNERS})]
    found = [
        plugins.identity(kind, name)
        for kind, name, own in used
        if name not in own and not (kind == "baseline" and name.startswith(PREFIX))
    ]
    return {"plugins": found} if found else {}


def run_cell(cell: Cell, out: Path, study: int) -> None:
    """Compute a cell and write its file, unless it is there; what workers are asked to do.

    Two processes that were given the same cell do not disturb each other: the second waits for the first.

    Parameters
    ----------
    cell: what to compute.
    out: the study's folder.
    study: the process that a local worker ends with, or 0.

    Raises
    ------
    StudyError: if a file cannot be written.
    """
    _end_with(study)
    path = cell.path(out)
    try:
        with _locked(out / "locks" / cell.key):
            if path.exists():
                return
            begun, worked = time.perf_counter(), time.process_time()
            with _one_thread(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DuplicateImagesWarning)  # the study said so when it began
                found = cell.work(out)
            spent = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - worked}
            text = {"format": FORMAT, "version": package_version(), "cell": cell.describe()}
            text |= {name: round(value, 3) for name, value in spent.items()}
            write_text(path, json.dumps({**text, **found}) + "\n")
    except OSError as error:
        raise StudyError(f"{path}: not written ({error}).") from None


def read_cell(cell: Cell, out: Path) -> dict[str, Any]:
    """Return what :func:`run_cell` wrote.

    Raises
    ------
    StudyError: if the file is damaged, or of another version of the format.
    """
    path = cell.path(out)
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        other = found["format"] != FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: not a readable cell ({error}). Delete it, and it is computed again.") from None
    if other:
        raise StudyError(f"{path}: format {found['format']}; this version reads {FORMAT}. Give another --out.")
    return found


def package_version() -> str:
    """Return the version of the package."""
    try:
        return version("activelabel")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"


@lru_cache(maxsize=1)
def open_judge(settings: RunSettings, data: Data, out: Path) -> Run:
    """Return a run that is never trained, for its test tasks; a worker keeps the last one.

    Raises
    ------
    DataError, SettingsError: if data and settings do not fit.
    """
    return _open(settings, data, out / "cells")


def open_own(cell: TrainCell, out: Path) -> Run:
    """Return the run of a training, without training it.

    Raises
    ------
    DataError, SettingsError: if data and settings do not fit.
    """
    return _open(cell.settings, cell.data, cell.folder(out))


def forget() -> None:
    """Let go of the data that this process holds for the next cell."""
    open_judge.cache_clear()
    _mapped.cache_clear()


@lru_cache(maxsize=1)
def _mapped(folder: Path) -> Cohort:
    return open_shared(folder)


def _open(settings: RunSettings, data: Data, folder: Path) -> Run:
    """Open a run on mapped data; its configuration names the data set as the study file does."""
    if data.folder is None:
        return RUNS[settings.env](folder, settings, False)
    with _locked(data.folder / "lock"):  # an engine that is being made needs several times what it keeps
        return RUNS[settings.env](folder, settings, False, _mapped(data.folder))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same path; a process that dies lets go."""
    if sys.platform == "win32":  # there two studies must not share a folder
        yield
        return
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread in every backend: the last digits depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


_watched: list[int] = []


def _end_with(study: int) -> None:
    """Let this process end within a second of the study that started it, so that a killed study leaves no workers."""
    if study in (0, os.getpid(), *_watched):
        return
    _watched.append(study)

    def watch() -> None:
        while os.getppid() == study:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
