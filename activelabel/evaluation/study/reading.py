"""Reading and checking a study file; :mod:`~activelabel.evaluation.study.spec` has its format."""

from __future__ import annotations

import importlib.resources
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from activelabel import plugins
from activelabel.agents import AGENTS, find_agent
from activelabel.baselines import BASELINES, POOL_BASELINES
from activelabel.baselines.activeml import PREFIX
from activelabel.data.catalog import CATALOG, absolute, data_root
from activelabel.data.own import is_own
from activelabel.data.synthetic import numbered
from activelabel.envs.selections import check_k
from activelabel.errors import SettingsError, unknown
from activelabel.evaluation.study.spec import (
    ACTIVE,
    AUDITED,
    BUDGETS,
    FIXED,
    PAPERS,
    SELECTIVE,
    Budget,
    DataEntry,
    Grid,
    StrategyEntry,
    Study,
)
from activelabel.reading import given_path, naming, read_yaml
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

_LARGEST = 5000
_STUDY = ("about", "paper", "seeds", "grids")
_GRID = ("env", "data", "strategies", "preset", "settings", "seeds", "reference", "audit", "train_each")


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
    path = known.get(name_or_path, given_path(name_or_path))
    if name_or_path not in known and path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{unknown('study', name_or_path, known)} Or give the path of a .yaml file.")
    try:
        text, values = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file. Studies that come with the package: {', '.join(known)}.") from None
    try:
        return _study(path, text, values)
    except SettingsError as error:
        raise SettingsError(naming(path, error)) from None


def _study(path: Path, text: str, values: Any) -> Study:
    where = str(path)
    _check_keys(values, _STUDY, where, required=("grids",))
    paper = values.get("paper")
    if paper is not None and paper not in PAPERS:
        raise SettingsError(f"{where}: paper: {unknown('paper', str(paper), PAPERS)}")
    seeds = _numbers(values.get("seeds", [0]), f"{where}: seeds", 0)
    grids = values["grids"]
    if not isinstance(grids, dict) or not grids:
        raise SettingsError(f"{where}: grids must be names, each with a grid, got {grids!r}.")
    read = tuple(_grid(str(name), grid, f"{where}: grids.{name}", seeds, path.parent) for name, grid in grids.items())
    return Study(path.stem, path, text, str(values.get("about", "")), read, paper)


def _grid(name: str, values: Any, where: str, seeds: tuple[int, ...], beside: Path) -> Grid:
    _check_keys(values, (*_GRID, *itertools.chain(*BUDGETS.values())), where, required=("env", "data", "strategies"))
    env = values["env"]
    if env not in ENVS:
        raise SettingsError(f"{where}.env: {unknown('environment', str(env), ENVS)}")
    for other, keys in BUDGETS.items():
        for key in keys:
            if other != env and key in values:
                raise SettingsError(f"{where}.{key}: is for {other}; {env} has {', '.join(BUDGETS[env])}.")
    common = _settings(values.get("settings", {}), SETTINGS[env], f"{where}.settings")
    start = str(values.get("preset", "default"))
    data = tuple(
        _data(entry, env, start, common, f"{where}.data[{i}]", beside)
        for i, entry in enumerate(_list(values["data"], f"{where}.data"))
    )
    strategies = tuple(
        _strategy(
            entry, env, f"{where}.strategies[{i}]", lambda other, at: _data(other, env, start, common, at, beside)
        )
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
    n_key = BUDGETS[env][-1]
    default = first.test_tasks if isinstance(first, SelectiveRunSettings) else getattr(first, "test_episodes", 1)
    (n,) = _numbers([values.get(n_key, default)], f"{where}.{n_key}", 1)
    (kept,) = _numbers([values.get("audit", min(AUDITED, n))], f"{where}.audit", 0)
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
        kept,
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
    _check_size(len(labels) * len(batches), "budgets", where)
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
    agents = sum(entry.agent is not None for entry in grid.strategies)
    _check_size(len(grid.data) * len(grid.budgets) * (1 + agents), "pairs of a data set, a budget and an agent", where)
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


def _check_size(count: int, what: str, where: str) -> None:
    """Refuse what would take minutes to check."""
    if count > _LARGEST:
        raise SettingsError(f"{where}: {count} {what}; a grid has at most {_LARGEST}. Split it.")


def _data(entry: Any, env: str, start: str, common: dict[str, Any], where: str, beside: Path) -> DataEntry:
    values = {"data": entry} if isinstance(entry, str) else entry
    _check_keys(values, ("data", "name", "images", "preset", "settings"), where, required=("data",))
    found = _find(str(values["data"]), beside, where)
    images = None if "images" not in values else _find(str(values["images"]), beside, f"{where}.images")
    own = _settings(values.get("settings", {}), SETTINGS[env], f"{where}.settings")
    try:
        base = preset(str(values.get("preset", start)), None, env, found)
        start_from = {**asdict(base), "threads": 1}  # cells run side by side
        settings = type(base).from_mapping({**start_from, **common, **own, "data": found, "against": []}, where)
    except SettingsError as error:
        raise SettingsError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    given = str(values["data"])
    return DataEntry(str(values.get("name", given if is_own(given, CATALOG) else Path(given).stem)), settings, images)


def _find(given: str, beside: Path, where: str) -> str:
    """Return a name of the catalogue or of a user's own data set, or an absolute path."""
    if given in CATALOG or numbered(given) or is_own(given, CATALOG):
        return given
    if given.partition(":")[0] in {*CATALOG, "medmnist"} and ":" in given:
        return absolute(given)
    for folder in (beside, Path(), data_root()):
        path = folder / given_path(given)
        if os.path.exists(path):  # False, not an error, where the name is too long
            return str(path.resolve())
    raise SettingsError(
        f"{where}: {plugins.not_known('data set', given, CATALOG)} Nor is there such a file beside the study file, "
        f"in the current folder, or in {data_root()} (set ACTIVELABEL_DATA)."
    )


def _strategy(entry: Any, env: str, where: str, data: Callable[[Any, str], DataEntry]) -> StrategyEntry:
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
        if plugins.exists("baseline", entry) or plugins.exists("agent", entry):
            return StrategyEntry(entry, entry) if _learns(entry, where) else StrategyEntry(entry)
        every = {*known, *agents, *plugins.names("agent")}
        raise SettingsError(f"{where}: {plugins.not_known('baseline', entry, every, 'strategy')}")
    _check_keys(entry, ("agent", "name", "preset", "settings", "trained_on"), where, required=("agent",))
    agent = str(entry["agent"])
    if agent in AGENTS and agent not in agents:
        raise SettingsError(f"{where}.agent: {unknown('agent', agent, agents)}")
    try:
        find_agent(agent)
    except SettingsError as error:
        raise SettingsError(f"{where}.agent: {error}") from None
    own = _settings(entry.get("settings", {}), SETTINGS[env], f"{where}.settings")
    for name in own:
        if name in (*FIXED[env], "env", "agent", "preset", "seed", "against"):
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
    if "trained_on" in entry and env == SELECTIVE:
        raise SettingsError(f"{where}.trained_on: is for {ACTIVE}; a selector reads the vectors of its own data.")
    trained_on = data(entry["trained_on"], f"{where}.trained_on") if "trained_on" in entry else None
    return StrategyEntry(str(entry.get("name", agent)), agent, None if start is None else str(start), own, trained_on)


def _learns(name: str, where: str) -> bool:
    """Say whether a strategy of a user's own is an agent; a name of both a baseline and an agent is the baseline's.

    Raises
    ------
    SettingsError: if it cannot be imported.
    """
    kind = "baseline" if plugins.is_path(name) or name in plugins.names("baseline") else "agent"
    try:
        return hasattr(plugins.load(kind, name), "learn")
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


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
