"""Presets, and the ``config.yaml`` of a run."""

from __future__ import annotations

import copy
import importlib.resources
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import yaml

from activelabel.agents import AGENTS
from activelabel.errors import SettingsError, unknown
from activelabel.reading import naming, read_yaml
from activelabel.settings.active import ActiveRunSettings
from activelabel.settings.base import OF_THE_DATA, RunSettings
from activelabel.settings.selective import GENERALISE, SelectiveRunSettings

SETTINGS: dict[str, type[RunSettings]] = {cls.env: cls for cls in (SelectiveRunSettings, ActiveRunSettings)}
"""The settings of a run, by environment id."""

ENVS = tuple(SETTINGS)
"""Environments that the command line trains on."""


def _settings_of(env: str) -> type[RunSettings]:
    if env not in ENVS:
        raise SettingsError(unknown("environment", env, ENVS))
    return SETTINGS[env]


@lru_cache
def _shipped(file: str) -> dict[str, dict[str, dict[str, Any]]]:
    text = importlib.resources.files("activelabel").joinpath("hyperparams", f"{file}.yml").read_text("utf-8")
    found: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    return found


def presets(agent: str, env: str) -> dict[str, dict[str, Any]]:
    """Return the presets of an agent for an environment, by name.

    An agent of the user's own has those of the environment's first agent, without that one's own settings: the same
    tasks on the same data.

    Raises
    ------
    SettingsError: if the agent or the environment is unknown, or the agent does not play it.
    """
    settings = _settings_of(env)
    for name, other in SETTINGS.items():
        if agent in other.agents and agent not in settings.agents:
            raise SettingsError(f"agent '{agent}' does not play {env}; give it --env {name}.")
    settings.check_agent(agent)
    file = agent if agent in AGENTS else settings.agents[0]
    found: dict[str, dict[str, Any]] = copy.deepcopy(_shipped(file)[env])
    return found if agent == file else {name: settings.shared(values) for name, values in found.items()}


@overload
def preset(
    name: str,
    agent: str | None = None,
    env: Literal["SelectiveLabel-v0"] = "SelectiveLabel-v0",
    data: str | None = None,
    generalise: bool = False,
) -> SelectiveRunSettings: ...


@overload
def preset(
    name: str, agent: str | None = None, *, env: str, data: str | None = None, generalise: bool = False
) -> RunSettings: ...


@overload
def preset(
    name: str, agent: str | None, env: str, data: str | None = None, generalise: bool = False
) -> RunSettings: ...


def preset(
    name: str,
    agent: str | None = None,
    env: str = "SelectiveLabel-v0",
    data: str | None = None,
    generalise: bool = False,
) -> RunSettings:
    """Return the settings of a preset.

    Parameters
    ----------
    name: of the preset.
    agent, env: what it is for; by default the environment's first agent.
    data: the data set; given another than the preset's own, the preset's class names do not apply.
    generalise: train for conditions that nobody has seen (:data:`~activelabel.settings.selective.GENERALISE`).

    Raises
    ------
    SettingsError: if there is no such preset (with the closest match), the agent does not play the environment, or
        what is to generalise is no selector.
    """
    settings = _settings_of(env)
    agent = settings.agents[0] if agent is None else agent
    known = presets(agent, env)
    if name not in known:
        raise SettingsError(unknown("preset", name, known))
    values = dict(known[name])
    if data is not None and values.get("data") not in ("", None, data):
        values = {n: v for n, v in values.items() if n not in OF_THE_DATA}
    if data is not None:
        values["data"] = data
    if generalise:
        if agent != SelectiveRunSettings.agent:
            raise SettingsError(f"generalise chooses a selector of reinforce in SelectiveLabel-v0; '{agent}' has none.")
        values |= GENERALISE
    return settings.from_mapping({**values, "env": env, "agent": agent, "preset": name}, f"preset '{name}'")


def read_config(path: Path) -> RunSettings:
    """Read the ``config.yaml`` of a run.

    Raises
    ------
    SettingsError: if the file is missing or not one.
    """
    try:
        _, values = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; is {path.parent} the directory of a run?") from None
    env = values.get("env", ENVS[0]) if isinstance(values, dict) else ENVS[0]
    try:
        return _settings_of(str(env)).from_mapping(values, str(path))
    except SettingsError as error:
        raise SettingsError(naming(path, error)) from None
