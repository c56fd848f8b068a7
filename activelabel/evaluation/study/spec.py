"""The study file: a YAML text that says which cells a study has; :mod:`~activelabel.evaluation.study.reading` reads it.

::

    about: what the study is for                 # optional
    paper: medselect                             # optional: whose figures and tables to make of it; or slade2022
    seeds: [0, 1, 2]                             # of training; by default [0]
    grids:
      chest:                                     # any name
        env: SelectiveLabel-v0
        data: [synthetic, {data: nih.npz, name: NIH, images: nih_images.npz, preset: nih, settings: {pool: 40}}]
        strategies: [random, kmedoids, clinical, reinforce,
                     {agent: reinforce, name: as printed, preset: medselect-paper, settings: {updates: 300}}]
        k: [10, 20]                              # SelectiveLabel-v0
        tasks: 500                               # SelectiveLabel-v0; for seen and for held-out conditions each
        labels: [50]                             # ActiveLabel-v0: labels in an episode
        batch: [1, 5]                            # ActiveLabel-v0: labels a step
        episodes: 200                            # ActiveLabel-v0
        preset: default                          # where the settings of every data set start
        settings: {pool: 200}                    # of every data set of the grid
        seeds: [0]                               # instead of the study's
        reference: kmedoids                      # the strategy that differences are to
        audit: 100                               # test tasks or episodes of which the choices are kept; 0 for none
        train_each: false                        # train agents anew for each k (labels and batch)

A grid is a full product. Preset and settings of a data set make the test tasks, which are the same for every strategy.
An agent without a preset of its own is trained with them too; one with a preset takes from them what the data are and
how large tasks are, and its own settings come last. A file is looked for beside the study file, in the current folder,
and in the folder of all data sets (``ACTIVELABEL_DATA``). Data sets, strategies and agents can be a user's own
(:mod:`activelabel.plugins`): ``package.module:Name``, or the name of an entry point; what an agent is made with is
``settings: {agent_options: {...}}``. ``images`` is a data set with the images of the same rows,
for the report alone. In ``ActiveLabel-v0`` an agent can be trained on other data than those that it labels, as in
``{agent: ddqn, name: of Kather, trained_on: {data: kather.npz, preset: kather}}``: ``trained_on`` is read like a data
set of the grid, but no test task is of it. What is kept of choices is of the first budget and the first seed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from activelabel.agents import AGENTS
from activelabel.errors import ActiveLabelError
from activelabel.settings import ActiveRunSettings, RunSettings, SelectiveRunSettings, preset
from activelabel.settings.oracle import ORACLE
from activelabel.settings.selective import GENERALISE

SELECTIVE, ACTIVE = SelectiveRunSettings.env, ActiveRunSettings.env

_OF_THE_DATA = ("data", "labels", "normal", "patient", "fractions", "published_split", "split_seed")
FIXED = {
    SELECTIVE: (*_OF_THE_DATA, "conditions", "held_out"),
    ACTIVE: (*_OF_THE_DATA, "classes", "components", "shares", "test_shares"),
}
"""Settings that make the test tasks or the latent space: no strategy has its own."""

_MACHINE = ("threads", "device")
TAKEN = {
    SELECTIVE: ("k", "pool", "query", "positive_fraction", "uncertain", "val_pool", "val_tasks", *_MACHINE, *ORACLE),
    ACTIVE: ("budget", "pool", "initial", "state_images", "metric", "val_episodes", *_MACHINE, *ORACLE),
}
"""Settings that an agent with a preset of its own takes from the data set's, unless it gives them itself."""

BUDGETS = {SELECTIVE: ("k", "tasks"), ACTIVE: ("labels", "batch", "episodes")}
"""The keys of a grid that say what may be labelled and on how many tasks."""

PAPERS = ("medselect", "slade2022")
"""The papers whose figures and tables can be made of a study."""

AUDITED = 100
"""Test tasks or episodes of which the choices are kept, where nothing is said and there are so many."""


class StudyError(ActiveLabelError):
    """A study that cannot go on: its results are of another version, the disk is full, a cluster is not there."""


@dataclass(frozen=True)
class Budget:
    """What may be labelled: ``k`` images at once, or ``labels`` in an episode, ``batch`` a step."""

    k: int | None = None
    labels: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class DataEntry:
    """A data set of a grid: its name in tables, the settings that make its test tasks, and what has its images."""

    name: str
    settings: RunSettings
    images: str | None = None


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy of a grid.

    Parameters
    ----------
    name: in tables.
    agent: what is trained, or None for a baseline.
    preset: where the agent's settings start; None for the data set's.
    settings: that come last.
    trained_on: what the agent is trained on; None for the data set that it is judged on.
    """

    name: str
    agent: str | None = None
    preset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    trained_on: DataEntry | None = None


@dataclass(frozen=True)
class Grid:
    """One product of data sets, strategies, budgets and training seeds.

    Parameters
    ----------
    n: test tasks (for seen and for held-out conditions each) or episodes.
    reference: the strategy that differences are to.
    audit: test tasks or episodes of which the choices are kept.
    """

    name: str
    env: str
    data: tuple[DataEntry, ...]
    strategies: tuple[StrategyEntry, ...]
    budgets: tuple[Budget, ...]
    n: int
    seeds: tuple[int, ...]
    reference: str
    train_each: bool
    audit: int = 0

    def training(self, entry: StrategyEntry, data: DataEntry, budget: Budget, seed: int) -> RunSettings:
        """Return the settings that an agent is trained with.

        Raises
        ------
        SettingsError: if they do not fit each other.
        """
        assert entry.agent is not None
        base = (entry.trained_on or data).settings
        start = asdict(base) | {"agent": entry.agent}
        if entry.agent not in AGENTS:
            start = base.shared(start)
        if entry.preset is not None:
            taken = {name: start[name] for name in (*FIXED[self.env], *TAKEN[self.env])}
            start = asdict(preset(entry.preset, entry.agent, self.env, base.data)) | taken
        if entry.settings.get("generalise"):
            start |= GENERALISE
        changes = {**entry.settings, "seed": seed, "against": []}
        if self.train_each:
            sizes = {"k": budget.k, "budget": budget.labels, "batch": budget.batch}
            if entry.agent == "lal-rl":  # one label a step is part of what it is
                del sizes["batch"]
            changes |= {name: value for name, value in sizes.items() if value is not None}
        # What happens after training is no part of it.
        changes |= {"eval_k": [], "test_tasks": 1} if self.env == SELECTIVE else {"test_episodes": 1}
        return type(base).from_mapping(start | changes, f"strategy '{entry.name}'")


@dataclass(frozen=True)
class Study:
    """A study file that was read and checked.

    Parameters
    ----------
    name: of the file, without its suffix.
    path: of the file.
    text: of the file.
    paper: whose figures and tables are made of it, or None.
    """

    name: str
    path: Path
    text: str
    about: str
    grids: tuple[Grid, ...]
    paper: str | None = None
