"""What the settings of every run have in common."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from tyro.constructors import PrimitiveConstructorSpec

from activelabel import plugins
from activelabel.agents import AGENTS
from activelabel.data import Cohort, load
from activelabel.errors import SettingsError, unknown

S = TypeVar("S", bound="RunSettings")

OF_THE_DATA = ("labels", "normal", "patient", "conditions", "held_out", "classes")
"""Settings that name arrays or classes, and so belong to one data set."""


def read_options(texts: list[str]) -> dict[str, Any]:
    """Return the names and values of a YAML (or JSON) mapping, as the command line gives it.

    Raises
    ------
    ValueError: if it is none.
    """
    try:
        found = yaml.safe_load(texts[0])
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("give names and values, such as '{learning_rate: 0.001}'")
    return found


Options = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="YAML",
        instance_from_str=read_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
"""Names and values that one of the user's own is made with: a mapping in YAML files, its text on the command line."""


@dataclass(frozen=True)
class RunSettings(ABC):
    """Everything that determines a run; ``config.yaml`` in its directory. There is a subclass for each environment."""

    agents: ClassVar[tuple[str, ...]]
    """The agents that play the environment; the first is the default."""
    of_agents: ClassVar[tuple[str, ...]]
    """The settings that belong to these agents alone."""

    env: str = ""
    """Environment id."""
    agent: str = ""
    """Name of the agent; ``hyperparams/<agent>.yml`` holds its presets. Or one of your own: package.module:Class, or
    the name of an entry point."""
    agent_options: Options = field(default_factory=dict, hash=False)
    """What an agent of your own is made with: '{learning_rate: 0.001}'."""
    preset: str = "default"
    """Which preset the other settings start from."""
    data: str = "synthetic"
    """``synthetic``, ``synthetic-large``, ``synthetic-1`` and on, ``digits``, or the path of an .npz cohort; with
    the learner finetune anything that has images: a data set of the catalogue, NAME:FOLDER, a CSV file, a folder of
    class folders."""
    labels: str = "labels"
    """Which label array of the file to use."""
    normal: str | None = None
    """Class that conditions are told from; by default the one that the data marks."""
    patient: str | None = None
    """Array of the file that groups images for splitting; by default patient_id."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of images (by patient) for training, validation and test."""
    published_split: bool = False
    """Use the data set's own split instead of fractions."""
    split_seed: int = 0
    """Of the split."""
    seed: int = 0
    """Of weights, selections, and order of tasks or episodes."""
    against: tuple[str, ...] = ()
    """Strategies of the closing evaluation."""
    device: str = "auto"
    """Auto, cpu or cuda."""
    threads: int = 1
    """Of torch on the CPU, whatever the number of cores: the last digits of a gradient, and with them what is learned,
    depend on it."""

    def __post_init__(self) -> None:
        if self.env != type(self).env:
            raise SettingsError(f"{type(self).__name__} are settings of {type(self).env}, not of {self.env}.")
        self.check_agent(self.agent)
        self._check_options()
        if self.seed < 0 or self.split_seed < 0:
            raise SettingsError(f"seed={self.seed} and split_seed={self.split_seed} must not be negative.")
        self._at_least_one(("threads",))

    @classmethod
    def check_agent(cls, agent: str) -> None:
        """Check that an agent plays the environment.

        Raises
        ------
        SettingsError: if it is unknown or plays another.
        """
        plugins.check("agent", agent, AGENTS)
        if agent in AGENTS and agent not in cls.agents:
            raise SettingsError(f"agent '{agent}' does not play {cls.env}; its agents: {', '.join(cls.agents)}.")

    @property
    def plugged(self) -> bool:
        """Whether the agent is one of the user's own; it is not imported to find out."""
        return self.agent not in AGENTS

    @classmethod
    def shared(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that are not those of the package's agents alone."""
        return {name: value for name, value in values.items() if name not in cls.of_agents}

    def _check_options(self) -> None:
        """Check that each agent is given its own settings."""
        options = self.agent_options
        if not self.plugged:
            if options:
                raise SettingsError(
                    f"agent_options={options} are for an agent of your own; '{self.agent}' has settings."
                )
            return
        check_plain("agent_options", options)
        for name, default in ((f.name, f.default) for f in fields(self) if f.name in self.of_agents):
            if getattr(self, name) != default:
                raise SettingsError(
                    f"{name}={getattr(self, name)} is a setting of {self.agents[0]}; '{self.agent}' is given its own "
                    "with agent_options."
                )

    def _plugged_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of an agent of the user's own."""
        return {"seed": self.seed, "device": self.device, **self.agent_options}

    def _at_least_one(self, names: Iterable[str]) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be at least 1.")

    def cohort(self) -> Cohort:
        """Load the data set.

        Raises
        ------
        SettingsError: if the preset leaves it to the user and none was given.
        """
        if not self.data:
            raise SettingsError(
                f"preset '{self.preset}' is for a data set of its own: give the file with --data FILE.npz."
            )
        return load(self.data, labels=self.labels, normal=self.normal, patient=self.patient)

    @abstractmethod
    def env_arguments(self) -> dict[str, Any]:
        """Return the environment's keyword arguments, but for the cohort and the device."""

    @abstractmethod
    def agent_arguments(self) -> dict[str, Any]:
        """Return the agent's keyword arguments."""

    def _env_fields(self, of: type[Any]) -> dict[str, Any]:
        """Return the settings that are fields of the environment's own settings too."""
        shared = {f.name: getattr(self, f.name) for f in fields(of) if hasattr(self, f.name)}
        shared["fractions"] = "published" if self.published_split else self.fractions
        return shared

    def to_yaml(self) -> str:
        """Return the settings as YAML text."""
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def from_mapping(cls: type[S], values: Any, where: str) -> S:
        """Build from plain values.

        Raises
        ------
        SettingsError: if a name is unknown or a value has the wrong type; the message starts with ``where``.
        """
        if not isinstance(values, dict):
            raise SettingsError(f"{where}: expected names and values, got {type(values).__name__}.")
        known = _types(cls)
        clean = {}
        for name, value in values.items():
            if name not in known:
                raise SettingsError(f"{where}: {unknown('setting', str(name), known)}")
            clean[name] = _typed(value, known[name], f"{where}: {name}")
        try:
            return cls(**clean)
        except TypeError as error:
            raise SettingsError(f"{where}: a value has the wrong type ({error}).") from None


@lru_cache
def _types(cls: type[RunSettings]) -> dict[str, Any]:
    """Return the type of each field."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def check_plain(name: str, options: Any) -> None:
    """Check that options are names and plain values, which a YAML file can hold.

    Raises
    ------
    SettingsError: if they are not.
    """
    try:
        yaml.safe_dump(options)
    except yaml.YAMLError:
        raise SettingsError(f"{name}={options!r} must be plain values: numbers, text, lists and mappings.") from None
    if not all(isinstance(key, str) for key in options):
        raise SettingsError(f"{name}={options!r} must be names and values.")


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return a YAML value as the type of a field: a list as a tuple, a whole number as a float where it is one."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _typed(value, next(kind for kind in inner if kind is not type(None)), where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(entry, inner[0], f"{where}[{i}]") for i, entry in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise SettingsError(f"{where} must be {expected.__name__}, got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where} must be finite, got {value!r}.")
    return value
