"""The study file: a YAML text that says which cells a study has.

::

    about: what the study is for                 # optional
    seeds: [0, 1, 2]                             # of training; by default [0]
    grids:
      chest:                                     # any name
        env: SelectiveLabel-v0
        data: [synthetic, {data: nih.npz, name: NIH, preset: nih, settings: {pool: 40}}]
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
        train_each: false                        # train agents anew for each k (labels and batch)

A grid is a full product. Preset and settings of a data set make the test tasks, which are the same for every strategy.
An agent without a preset of its own is trained with them too; one with a preset takes from them what the data are and
how large tasks are, and its own settings come last. A file is looked for beside the study file, in the current folder,
and in the folder of all data sets (``ACTIVELABEL_DATA``).
"""

from __future__ import annotations

import importlib.resources
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from activelabel.agents import AGENTS
from activelabel.baselines import BASELINES, POOL_BASELINES
from activelabel.baselines.activeml import PREFIX
from activelabel.data.catalog import CATALOG, absolute, data_root
from activelabel.envs.selective_engine import check_k
from activelabel.errors import ActiveLabelError, SettingsError, unknown
from activelabel.settings import (
    ENVS,
    SETTINGS,
    STRATEGIES,
    ActiveRunSettings,
    RunSettings,
    SelectiveRunSettings,
    preset,
)
from activelabel.settings.active import POOL_STRATEGIES

SELECTIVE, ACTIVE = SelectiveRunSettings.env, ActiveRunSettings.env

_OF_THE_DATA = ("data", "labels", "normal", "patient", "fractions", "published_split", "split_seed")
_FIXED = {
    SELECTIVE: (*_OF_THE_DATA, "conditions", "held_out"),
    ACTIVE: (*_OF_THE_DATA, "classes", "components", "shares", "test_shares"),
}
"""Settings that make the test tasks or the latent space: no strategy has its own."""

_TAKEN = {
    SELECTIVE: ("k", "pool", "query", "positive_fraction", "uncertain", "val_pool", "val_tasks", "device"),
    ACTIVE: ("budget", "pool", "initial", "state_images", "metric", "val_episodes", "threads", "device"),
}
"""Settings that an agent with a preset of its own takes from the data set's, unless it gives them itself."""

_BUDGETS = {SELECTIVE: ("k", "tasks"), ACTIVE: ("labels", "batch", "episodes")}
_GRID = ("env", "data", "strategies", "preset", "settings", "seeds", "reference", "train_each")


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
    """A data set of a grid: its name in tables, and the settings that make its test tasks."""

    name: str
    settings: RunSettings


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy of a grid.

    Parameters
    ----------
    name: in tables.
    agent: what is trained, or None for a baseline.
    preset: where the agent's settings start; None for the data set's.
    settings: that come last.
    """

    name: str
    agent: str | None = None
    preset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """One product of data sets, strategies, budgets and training seeds.

    Parameters
    ----------
    n: test tasks (for seen and for held-out conditions each) or episodes.
    reference: the strategy that differences are to.
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

    def training(self, entry: StrategyEntry, data: DataEntry, budget: Budget, seed: int) -> RunSettings:
        """Return the settings that an agent is trained with.

        Raises
        ------
        SettingsError: if they do not fit each other.
        """
        assert entry.agent is not None
        base = data.settings
        start = asdict(base) | {"agent": entry.agent}
        if entry.preset is not None:
            taken = {name: start[name] for name in (*_FIXED[self.env], *_TAKEN[self.env])}
            start = asdict(preset(entry.preset, entry.agent, self.env, base.data)) | taken
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
    """

    name: str
    path: Path
    text: str
    about: str
    grids: tuple[Grid, ...]


def shipped() -> dict[str, Path]:
    """Return the study files that come with the package, by name."""
    folder = Path(str(importlib.resources.files("activelabel").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_study(name_or_path: str) -> Study:
    """Read and check a study file.

    Parameters
    ----------
    name_or_path: of a shipped study (:func:`shipped`), or the path of a ``.yaml`` file.

    Raises
    ------
    SettingsError: if there is none, or something in it is unknown or out of range; the message has the file, the place
        in it, and the closest match.
    """
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path).expanduser())
    if name_or_path not in known and path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{unknown('study', name_or_path, known)} Or give the path of a .yaml file.")
    try:
        text = path.read_text("utf-8")
        values = yaml.safe_load(text)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file. Studies that come with the package: {', '.join(known)}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML ({' '.join(str(error).split())}).") from None
    where = str(path)
    _check_keys(values, ("about", "seeds", "grids"), where, required=("grids",))
    seeds = _numbers(values.get("seeds", [0]), f"{where}: seeds", 0)
    grids = values["grids"]
    if not isinstance(grids, dict) or not grids:
        raise SettingsError(f"{where}: grids must be names, each with a grid, got {grids!r}.")
    read = tuple(_grid(str(name), grid, f"{where}: grids.{name}", seeds, path.parent) for name, grid in grids.items())
    return Study(path.stem, path, text, str(values.get("about", "")), read)


def _grid(name: str, values: Any, where: str, seeds: tuple[int, ...], beside: Path) -> Grid:
    _check_keys(values, (*_GRID, *itertools.chain(*_BUDGETS.values())), where, required=("env", "data", "strategies"))
    env = values["env"]
    if env not in ENVS:
        raise SettingsError(f"{where}.env: {unknown('environment', str(env), ENVS)}")
    for other, keys in _BUDGETS.items():
        for key in keys:
            if other != env and key in values:
                raise SettingsError(f"{where}.{key}: is for {other}; {env} has {', '.join(_BUDGETS[env])}.")
    common = _settings(values.get("settings", {}), SETTINGS[env], f"{where}.settings")
    start = str(values.get("preset", "default"))
    data = tuple(
        _data(entry, env, start, common, f"{where}.data[{i}]", beside)
        for i, entry in enumerate(_list(values["data"], f"{where}.data"))
    )
    strategies = tuple(
        _strategy(entry, env, f"{where}.strategies[{i}]")
        for i, entry in enumerate(_list(values["strategies"], f"{where}.strategies"))
    )
    for kind, names in (("data", [d.name for d in data]), ("strategies", [s.name for s in strategies])):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise SettingsError(f"{where}.{kind}: '{twice[0]}' is there twice; give each a name of its own.")
    each = values.get("train_each", False)
    if not isinstance(each, bool):
        raise SettingsError(f"{where}.train_each must be true or false, got {each!r}.")
    first = data[0].settings
    n_key = _BUDGETS[env][-1]
    default = first.test_tasks if isinstance(first, SelectiveRunSettings) else getattr(first, "test_episodes", 1)
    (n,) = _numbers([values.get(n_key, default)], f"{where}.{n_key}", 1)
    grid = Grid(
        name,
        env,
        data,
        strategies,
        _budgets(values, env, first, where),
        n,
        _numbers(values["seeds"], f"{where}.seeds", 0) if "seeds" in values else seeds,
        _reference(values.get("reference"), strategies, env, where),
        each,
    )
    _check_grid(grid, where)
    return grid


def _budgets(values: dict[str, Any], env: str, first: RunSettings, where: str) -> tuple[Budget, ...]:
    if isinstance(first, SelectiveRunSettings):
        ks = _numbers(values.get("k", [first.k]), f"{where}.k", 1)
        return tuple(Budget(k=k) for k in ks)
    assert isinstance(first, ActiveRunSettings)
    labels = _numbers(values.get("labels", [first.budget]), f"{where}.labels", 1)
    batches = _numbers(values.get("batch", [first.batch]), f"{where}.batch", 1)
    return tuple(Budget(labels=n, batch=b) for n, b in itertools.product(labels, batches))


def _reference(given: Any, strategies: tuple[StrategyEntry, ...], env: str, where: str) -> str:
    names = [s.name for s in strategies]
    if given is not None:
        if given not in names:
            raise SettingsError(f"{where}.reference: {unknown('strategy of the grid', str(given), names)}")
        return str(given)
    if env == SELECTIVE and "kmedoids" in names:
        return "kmedoids"
    return next((s.name for s in strategies if s.agent is not None), names[0])


def _check_grid(grid: Grid, where: str) -> None:
    """Check what only shows when entries come together."""
    for i, data in enumerate(grid.data):
        for budget in grid.budgets:
            try:
                if isinstance(data.settings, SelectiveRunSettings):
                    assert budget.k is not None
                    check_k(budget.k, data.settings.pool)
                else:
                    replace(data.settings, budget=budget.labels, batch=budget.batch)  # type: ignore[call-arg]
            except SettingsError as error:
                raise SettingsError(f"{where}.data[{i}]: {error}") from None
            for j, entry in enumerate(grid.strategies):
                if entry.agent is not None:
                    try:
                        grid.training(entry, data, budget, grid.seeds[0])
                    except SettingsError as error:
                        raise SettingsError(f"{where}.strategies[{j}] on '{data.name}': {error}") from None


def _data(entry: Any, env: str, start: str, common: dict[str, Any], where: str, beside: Path) -> DataEntry:
    values = {"data": entry} if isinstance(entry, str) else entry
    _check_keys(values, ("data", "name", "preset", "settings"), where, required=("data",))
    given = str(values["data"])
    found = _find(given, beside)
    if found is None:
        raise SettingsError(
            f"{where}: {unknown('data set', given, CATALOG)} Nor is there such a file beside the study file, in the "
            f"current folder, or in {data_root()} (set ACTIVELABEL_DATA)."
        )
    own = _settings(values.get("settings", {}), SETTINGS[env], f"{where}.settings")
    try:
        base = preset(str(values.get("preset", start)), None, env, found)
        settings = type(base).from_mapping({**asdict(base), **common, **own, "data": found, "against": []}, where)
    except SettingsError as error:
        raise SettingsError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return DataEntry(str(values.get("name", Path(given).stem)), settings)


def _find(given: str, beside: Path) -> str | None:
    """Return a name of the catalogue or an absolute path; None where neither is there."""
    if given in CATALOG:
        return given
    if given.partition(":")[0] in {*CATALOG, "medmnist"} and ":" in given:
        return absolute(given)
    for folder in (beside, Path(), data_root()):
        path = folder / Path(given).expanduser()
        if path.exists():
            return str(path.resolve())
    return None


def _strategy(entry: Any, env: str, where: str) -> StrategyEntry:
    known = STRATEGIES if env == SELECTIVE else POOL_STRATEGIES
    agents = SETTINGS[env].agents
    if isinstance(entry, str):
        if entry == "clinical" and env == SELECTIVE:
            return StrategyEntry(entry, agents[0], None, {"inputs": ["clinical"]})
        if entry == "lal-rl" and env == ACTIVE:
            return StrategyEntry(entry, entry, "lal-rl")
        if entry in agents:
            return StrategyEntry(entry, entry)
        if entry in (BASELINES if env == SELECTIVE else POOL_BASELINES) or (env == ACTIVE and entry.startswith(PREFIX)):
            return StrategyEntry(entry)
        raise SettingsError(f"{where}: {unknown('strategy', entry, {*known, *agents})}")
    _check_keys(entry, ("agent", "name", "preset", "settings"), where, required=("agent",))
    agent = str(entry["agent"])
    if agent not in agents:
        raise SettingsError(f"{where}.agent: {unknown('agent', agent, agents if agent in AGENTS else AGENTS)}")
    own = _settings(entry.get("settings", {}), SETTINGS[env], f"{where}.settings")
    for name in own:
        if name in (*_FIXED[env], "env", "agent", "preset", "seed", "against"):
            raise SettingsError(
                f"{where}.settings.{name}: is the same for every strategy; set it for the data set, the grid or the "
                "study."
            )
    start = entry.get("preset", "lal-rl" if agent == "lal-rl" else None)
    if start is not None:
        try:
            preset(str(start), agent, env)
        except SettingsError as error:
            raise SettingsError(f"{where}.preset: {error}") from None
    return StrategyEntry(str(entry.get("name", agent)), agent, None if start is None else str(start), own)


def _settings(values: Any, cls: type[RunSettings], where: str) -> dict[str, Any]:
    _check_keys(values, [f.name for f in fields(cls)], where)
    found: dict[str, Any] = values
    return found


def _check_keys(values: Any, known: Iterable[str], where: str, required: Iterable[str] = ()) -> None:
    if not isinstance(values, dict):
        raise SettingsError(f"{where}: expected names and values, got {values!r}.")
    for key in values:
        if key not in known:
            raise SettingsError(f"{where}: {unknown('key', str(key), known)}")
    for key in required:
        if key not in values:
            raise SettingsError(f"{where}: has no '{key}'.")


def _list(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise SettingsError(f"{where} must be a list with at least one entry, got {values!r}.")
    return values


def _numbers(values: Any, where: str, least: int) -> tuple[int, ...]:
    numbers = _list(values, where)
    for value in numbers:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SettingsError(f"{where}: {value!r} must be a whole number of at least {least}.")
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"{where}: {numbers} has a number twice.")
    return tuple(numbers)
