"""A run: its directory, its training, and its evaluation."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from stable_baselines3.common.logger import configure
from tqdm import tqdm

from activelabel.agents import AGENTS, Reinforce
from activelabel.baselines import BASELINES
from activelabel.data import Standardizer
from activelabel.envs import SelectiveLabelVectorEnv
from activelabel.envs.selective_engine import check_k
from activelabel.errors import CheckpointError, SettingsError, unknown
from activelabel.evaluation.protocol import Strategy, play
from activelabel.evaluation.report import Report, build_report
from activelabel.evaluation.validation import MetaValidation
from activelabel.files import write_text
from activelabel.settings import STRATEGIES, RunSettings, read_config

_PACKAGES = ("activelabel", "numpy", "torch", "gymnasium", "stable-baselines3", "kmedoids", "scikit-learn")


class Run:
    """A directory with ``config.yaml``, TensorBoard events, models and results.

    ``model.zip`` is the model that was best on meta-validation, ``checkpoint.zip`` the last state, ``clinical.zip``
    the clinical baseline once it was asked for, ``versions.yaml`` what it was made with.

    Parameters
    ----------
    folder: the directory.
    settings: of the run.
    progress: show progress bars.
    standardizer: the one that came with a model; by default it is fitted on the training part.

    Raises
    ------
    DataError: if the data set cannot be read or has too few images for the tasks of any part.
    """

    def __init__(
        self, folder: Path, settings: RunSettings, progress: bool = True, standardizer: Standardizer | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.progress = progress
        self.train_env = SelectiveLabelVectorEnv(
            settings.batch_size,
            settings.cohort(),
            standardizer=standardizer,
            device=settings.device,
            **settings.env_arguments(),
        )
        engine = self.train_env.engine
        # Made now, so that a part with too few images ends the run before any training.
        self.val = engine.sibling(split="val", pool=settings.val_pool or settings.pool)
        self.test = {"seen": engine.sibling(split="test")}
        if settings.held_out:
            self.test["held-out"] = engine.sibling(split="test", conditions=settings.held_out, held_out=())

    @classmethod
    def create(cls, settings: RunSettings, root: Path = Path("runs"), progress: bool = True) -> Run:
        """Make the directory ``{env}__{agent}__{seed}__{time}`` of a new run, unless settings and data do not fit."""
        name = f"{settings.env}__{settings.agent}__{settings.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        folder = next(p for i in range(1000) if not (p := root / (name + (f"-{i}" if i else ""))).exists())
        if Path(settings.data).suffix == ".npz":  # the run can then be opened from any directory
            settings = replace(settings, data=str(Path(settings.data).expanduser().resolve()))
        run = cls(folder, settings, progress)
        write_text(folder / "config.yaml", settings.to_yaml())
        write_text(folder / "versions.yaml", yaml.safe_dump(_versions()))
        return run

    @classmethod
    def open(cls, folder: Path, progress: bool = True) -> Run:
        """Open the directory of a run; a model that is there brings its standardisation.

        Raises
        ------
        SettingsError: if it is not one.
        CheckpointError: if its model is damaged.
        """
        settings = read_config(folder / "config.yaml")
        best = folder / "model.zip"
        standardizer = AGENTS[settings.agent].load(best).standardizer if best.exists() else None
        return cls(folder, settings, progress, standardizer)

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train the agent, or go on where the last checkpoint was written."""
        self._train("model", "checkpoint", None)

    def _train(self, best: str, checkpoint: str, inputs: tuple[str, ...] | None) -> None:
        s = self.settings
        last = self.folder / f"{checkpoint}.zip"
        agent = AGENTS[s.agent]
        if last.exists():
            model = agent.load(last, env=self.train_env, device=s.device, force_reset=False)
        else:
            model = agent(env=self.train_env, **s.agent_arguments(inputs))
        model.set_logger(configure(str(self.folder if inputs is None else self.folder / best), ["tensorboard"]))
        left = s.updates * s.batch_size - model.num_timesteps
        if left <= 0:
            return
        bar = tqdm(
            total=s.updates, initial=model._n_updates, unit="update", disable=not self.progress, dynamic_ncols=True
        )
        bar.set_description("training" if inputs is None else f"training the {best} baseline")
        with bar:
            watch = MetaValidation(
                self.val, s.val_tasks, s.val_every, self._references(), self.folder / f"{best}.zip", last, bar
            )
            model.learn(left, callback=watch, reset_num_timesteps=False)

    def _references(self) -> dict[str, float]:
        k, n = self.settings.k, self.settings.val_tasks
        return {
            name: float(play(self.val, BASELINES[name](k), [k], n)[k].reward.mean()) for name in ("random", "kmedoids")
        }

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def model(self) -> Reinforce:
        """Return the best model.

        Raises
        ------
        CheckpointError: if there is none yet, or the file is damaged.
        """
        path = self.folder / "model.zip"
        if not path.exists():
            raise CheckpointError(
                f"{path}: this run has no model yet; finish it with: python train.py --resume {self.folder}"
            )
        return AGENTS[self.settings.agent].load(path, device=self.settings.device)

    def evaluate(
        self, ks: Sequence[int] | None = None, against: Sequence[str] | None = None, n_tasks: int | None = None
    ) -> Report:
        """Compare the agent with other strategies on the test tasks.

        Parameters
        ----------
        ks: numbers of images to label; by default the settings'.
        against: names out of :data:`STRATEGIES`; ``"clinical"`` is trained on first use.
        n_tasks: tasks for seen and for held-out conditions each.

        Raises
        ------
        SettingsError: if a strategy is unknown or a K exceeds the pool.
        """
        s = self.settings
        ks = sorted(set(ks or s.eval_k or (s.k,)))
        n_tasks = s.test_tasks if n_tasks is None else n_tasks
        if n_tasks < 1:
            raise SettingsError(f"{n_tasks} test tasks; it must be at least 1.")
        for k in ks:
            check_k(k, s.pool)
        strategies = self._strategies(s.against if against is None else against)
        total = n_tasks * len(strategies) * len(self.test)
        results = {}
        with tqdm(total=total, unit="task", desc="testing", disable=not self.progress, dynamic_ncols=True) as bar:
            for conditions, engine in self.test.items():
                results[conditions] = {
                    name: play(engine, strategy, ks, n_tasks, advance=bar.update)
                    for name, strategy in strategies.items()
                }
        return build_report(results)

    def _strategies(self, against: Sequence[str]) -> dict[str, Strategy]:
        for name in against:
            if name not in STRATEGIES:
                raise SettingsError(unknown("strategy", name, STRATEGIES))
        model = self.model()
        strategies: dict[str, Strategy] = {}
        for name in dict.fromkeys(against):
            strategies[name] = self._clinical() if name == "clinical" else BASELINES[name](model.k, self.settings.seed)
        strategies[self.settings.agent] = model
        return strategies

    def _clinical(self) -> Reinforce:
        self._train("clinical", "clinical-checkpoint", ("clinical",))
        return AGENTS[self.settings.agent].load(self.folder / "clinical.zip", device=self.settings.device)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "not installed"
    return found
