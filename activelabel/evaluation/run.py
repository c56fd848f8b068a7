"""What the runs of every environment have in common: the directory, and training that can be interrupted."""

from __future__ import annotations

import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from activelabel.agents import extends_ours, find_agent
from activelabel.data import Cohort
from activelabel.errors import CheckpointError
from activelabel.evaluation.audit import Audit
from activelabel.evaluation.board import Views, training_logger
from activelabel.evaluation.plugged import OfAnyAgent, PluggedAgent, learn_plugged, read_notes
from activelabel.evaluation.report import Report
from activelabel.evaluation.validation import Validation
from activelabel.files import write_text
from activelabel.settings import RunSettings

_PACKAGES = ("activelabel", "numpy", "torch", "gymnasium", "stable-baselines3", "kmedoids", "scikit-learn")

Watch = Callable[[Path, Path, tqdm], Validation]
"""Makes the callback from where the best model goes, where checkpoints go, and the progress bar."""


class Run(ABC):
    """A directory with ``config.yaml``, TensorBoard events, models and results.

    ``model.zip`` is the model that was best on validation, ``checkpoint.zip`` the last state, ``versions.yaml`` what
    it was made with; beside the model of an agent of somebody else's there is ``model.json``. A run sets the number of
    torch's threads, for the whole process, as the settings say. Make one with
    :func:`~activelabel.evaluation.create_run`, open it with :func:`~activelabel.evaluation.open_run`.

    Parameters
    ----------
    folder: the directory.
    settings: of the run.
    progress: show progress bars.
    cohort: the data, where it is at hand; by default it is loaded as the settings say.

    Raises
    ------
    DataError: if the data set cannot be read or has too few images in any part.
    SettingsError: if the agent is somebody else's and cannot be imported.
    """

    def __init__(
        self, folder: Path, settings: RunSettings, progress: bool = True, cohort: Cohort | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.progress = progress
        torch.set_num_threads(settings.threads)
        self.agent = find_agent(settings.agent)
        """The class of the agent, or what makes it; imported now, so that a fault ends the run before anything else."""
        self.cohort = settings.cohort() if cohort is None else cohort

    @abstractmethod
    def describe(self) -> str:
        """Return one line on what is trained on what."""

    @abstractmethod
    def best(self) -> str:
        """Return one line on the best model."""

    def choice(self) -> list[str]:
        """Return lines on what the agent was chosen from, if from something."""
        return []

    @abstractmethod
    def train(self) -> None:
        """Train the agent, or go on where the last checkpoint was written."""

    @abstractmethod
    def evaluate(self) -> Report:
        """Compare the agent with other strategies."""

    @abstractmethod
    def audits(self, against: Sequence[str] | None = None, n: int = 200) -> dict[str, Audit]:
        """Return what the strategies of :meth:`evaluate` choose, audited, by strategy and set of conditions.

        Parameters
        ----------
        against: names of strategies; by default the settings'.
        n: test tasks or episodes.

        Raises
        ------
        SettingsError: if a strategy is unknown, or ``n`` is below 1.
        """

    @abstractmethod
    def views(self, report: Report) -> Views:
        """Return what TensorBoard shows of an evaluation.

        Parameters
        ----------
        report: what :meth:`evaluate` returned.
        """

    def write_config(self) -> None:
        """Write ``config.yaml`` and ``versions.yaml``."""
        write_text(self.folder / "config.yaml", self.settings.to_yaml())
        write_text(self.folder / "versions.yaml", yaml.safe_dump(versions()))

    def _learn(
        self,
        name: str,
        settings: RunSettings,
        env: Any,
        arguments: dict[str, Any],
        total: int,
        watch: Watch,
        shown: tuple[int, str],
    ) -> None:
        """Train the run's own model (``name="model"``) or one that it is compared with, unless that is done.

        Parameters
        ----------
        name: the best model becomes ``{name}.zip``.
        settings: name the agent.
        env: to train on.
        arguments: of the agent.
        total: steps of the env in all.
        watch: see :data:`Watch`.
        shown: what the progress bar counts to, and of what.
        """
        own = name == "model"
        last = self.folder / ("checkpoint.zip" if own else f"{name}-checkpoint.zip")
        agent = find_agent(settings.agent)
        if not extends_ours(agent):
            self._learn_plugged(env, total, watch, shown)
            return
        if last.exists():
            model: Any = agent.load(last, env=env, device=settings.device, force_reset=False)
        else:
            model = agent(env=env, **arguments)
        left = total - model.num_timesteps
        if left <= 0 or model.notes.get("stopped", False):
            return
        logger = training_logger(self.folder if own else self.folder / name, model.num_timesteps)
        model.set_logger(logger)
        what = "training" if own else f"training {name}"
        try:
            with tqdm(total=shown[0], unit=shown[1], desc=what, disable=not self.progress, dynamic_ncols=True) as bar:
                model.learn(left, callback=watch(self.folder / f"{name}.zip", last, bar), reset_num_timesteps=False)
        finally:
            logger.close()

    def _learn_plugged(self, env: Any, total: int, watch: Watch, shown: tuple[int, str]) -> None:
        """Train the run's own agent, which is somebody else's, unless that is done. It cannot be resumed."""
        best, last = self.folder / "model.zip", self.folder / "checkpoint.zip"
        if read_notes(best).get("finished", False):
            return
        what = "training from the start" if last.exists() else "training"
        logger = training_logger(self.folder, 0)
        try:
            with tqdm(total=shown[0], unit=shown[1], desc=what, disable=not self.progress, dynamic_ncols=True) as bar:
                validation = watch(best, last, bar)
                assert isinstance(validation, OfAnyAgent)
                learn_plugged(self.settings, env, total, validation, logger, self._try)
        finally:
            logger.close()

    @abstractmethod
    def _try(self, agent: PluggedAgent) -> None:
        """Let an agent of somebody else's choose once wherever it will be judged.

        Raises
        ------
        SettingsError: if it does not choose as it should.
        """


def best_model(folder: Path, settings: RunSettings, device: str) -> Any:
    """Return the best model of a run.

    Raises
    ------
    CheckpointError: if there is none yet, or the file is damaged.
    SettingsError: if the agent is somebody else's and cannot be imported. Its file is read by its own code.
    """
    path = folder / "model.zip"
    if not path.exists():
        raise CheckpointError(f"{path}: this run has no model yet; finish it with: python train.py --resume {folder}")
    agent = find_agent(settings.agent)
    return agent.load(path, device=device) if extends_ours(agent) else PluggedAgent.load(path, settings, device)


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that decide a result."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "not installed"
    return found
