"""What the settings of every run have in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import yaml

from activelabel.agents import AGENTS
from activelabel.data import Cohort, load
from activelabel.errors import SettingsError, unknown

S = TypeVar("S", bound="RunSettings")


@dataclass(frozen=True)
class RunSettings(ABC):
    """Everything that determines a run; ``config.yaml`` in its directory. There is a subclass for each environment."""

    agents: ClassVar[tuple[str, ...]]
    """The agents that play the environment; the first is the default."""

    env: str = ""
    """Environment id."""
    agent: str = ""
    """Name of the agent; ``hyperparams/<agent>.yml`` holds its presets."""
    preset: str = "default"
    """Which preset the other settings start from."""
    data: str = "synthetic"
    """``synthetic``, ``synthetic-large``, ``digits``, or the path of an .npz cohort; with the learner finetune anything
    that has images: a data set of the catalogue, NAME:FOLDER, a CSV file, a folder of class folders."""
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

    def __post_init__(self) -> None:
        if self.env != type(self).env:
            raise SettingsError(f"{type(self).__name__} are settings of {type(self).env}, not of {self.env}.")
        self.check_agent(self.agent)
        if self.seed < 0 or self.split_seed < 0:
            raise SettingsError(f"seed={self.seed} and split_seed={self.split_seed} must not be negative.")

    @classmethod
    def check_agent(cls, agent: str) -> None:
        """Check that an agent plays the environment.

        Raises
        ------
        SettingsError: if it is unknown or plays another.
        """
        if agent not in AGENTS:
            raise SettingsError(unknown("agent", agent, AGENTS))
        if agent not in cls.agents:
            raise SettingsError(f"agent '{agent}' does not play {cls.env}; its agents: {', '.join(cls.agents)}.")

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
        known = {f.name: f for f in fields(cls)}
        clean = {}
        for name, value in values.items():
            if name not in known:
                raise SettingsError(f"{where}: {unknown('setting', str(name), known)}")
            clean[name] = _typed(value, known[name], f"{where}: {name}")
        try:
            return cls(**clean)
        except TypeError as error:  # an entry of a list, or a value whose default is None
            raise SettingsError(f"{where}: a value has the wrong type ({error}).") from None


def _typed(value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    """Return a YAML value as the type of the field's default."""
    default = field.default
    if value is None and "None" in str(field.type):
        return None
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = type(default)
    if default is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise SettingsError(f"{where} must be {expected.__name__}, got {value!r}.")
    return value
