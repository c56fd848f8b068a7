"""The settings of a training run, and the presets that fill them in."""

from __future__ import annotations

import dataclasses
import importlib.resources
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from activelabel.agents import AGENTS, StepSchedule
from activelabel.agents.arguments import check_arguments
from activelabel.agents.policies import INPUTS
from activelabel.baselines import BASELINES
from activelabel.data import Cohort, load
from activelabel.envs import SelectiveLabelSettings
from activelabel.errors import SettingsError, unknown

ENVS = ("SelectiveLabel-v0",)
"""Environments that the command line trains on."""

STRATEGIES = (*BASELINES, "clinical")
"""What an agent is compared with: the baselines, and the same selector on age, sex and view alone (MedSelect §3.4)."""

OF_THE_DATA = ("labels", "normal", "patient", "conditions", "held_out")
"""Settings that name arrays or classes: a preset that brings its own data set loses them when another is given."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that determines a run; ``config.yaml`` in its directory."""

    env: str = "SelectiveLabel-v0"
    """Environment id."""
    agent: str = "reinforce"
    """Name of the agent; ``hyperparams/<agent>.yml`` holds its presets."""
    preset: str = "default"
    """Which preset the other settings start from."""
    data: str = "synthetic"
    """``synthetic``, ``synthetic-large``, ``digits``, or the path of an .npz cohort."""
    labels: str = "labels"
    """Which label array of the file to use."""
    normal: str | None = None
    """Class that conditions are told from; by default the one that the data marks."""
    patient: str | None = None
    """Array of the file that groups images for splitting; by default patient_id."""
    conditions: tuple[str, ...] | None = None
    """Conditions to train on; by default all with 5 % prevalence that are not held out."""
    held_out: tuple[str, ...] = ()
    """Conditions kept out of training and tested apart."""
    k: int = 10
    """Images to label."""
    pool: int = 200
    """Images in the unlabelled pool."""
    query: int = 100
    """Images in the query set."""
    positive_fraction: float = 0.5
    """Share of positives in pool and query set."""
    predictor: str = "prototype"
    """Prototype (the paper) or mean-cosine (the released code)."""
    duplicates: str = "once"
    """Once or repeat: what a repeated index counts as."""
    uncertain: str = "positive"
    """Positive, negative or ignore: what an uncertain label counts as."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of images (by patient) for training, validation and test."""
    published_split: bool = False
    """Use the data set's own split instead of fractions."""
    split_seed: int = 0
    """Of the split."""
    n_tasks: int = 10_000
    """Different training tasks."""
    seed: int = 0
    """Of weights, selections, and order of tasks."""
    updates: int = 200
    """Gradient steps."""
    batch_size: int = 32
    """Tasks in a gradient step."""
    n_samples: int = 16
    """Selections judged for each task."""
    baseline: str = "leave-one-out"
    """Leave-one-out, random (the paper) or none."""
    replacement: bool = False
    """Draw selections with replacement (the released code)."""
    learning_rate: float = 1e-3
    """Of Adam."""
    lr_factor: float = 1.0
    """What the learning rate is multiplied by, once."""
    lr_start: float = 0.4
    """Share of the training after which it is."""
    hidden: int = 256
    """Units of the LSTM in each direction."""
    inputs: tuple[str, ...] = ("pool",)
    """What the selector sees of an image: pool, clinical, or both."""
    val_every: int = 20
    """Updates between meta-validations (and checkpoints)."""
    val_pool: int | None = None
    """Images in the pool of a meta-validation task; by default as in training. Fewer leave more to train on."""
    val_tasks: int = 200
    """Tasks of a meta-validation."""
    test_tasks: int = 1000
    """Tasks of the closing evaluation, for seen and for held-out conditions each."""
    eval_k: tuple[int, ...] = ()
    """Values of K of the closing evaluation; by default k alone."""
    against: tuple[str, ...] = ("random", "kmedoids")
    """Strategies of the closing evaluation."""
    device: str = "auto"
    """Auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if self.env not in ENVS:
            raise SettingsError(unknown("environment", self.env, ENVS))
        if self.agent not in AGENTS:
            raise SettingsError(unknown("agent", self.agent, AGENTS))
        SelectiveLabelSettings.make(**self.env_arguments())
        for name in ("updates", "val_every", "val_tasks", "test_tasks", "hidden"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.seed < 0 or self.split_seed < 0:
            raise SettingsError(f"seed={self.seed} and split_seed={self.split_seed} must not be negative.")
        if not self.k <= (self.val_pool or self.pool):
            raise SettingsError(f"k={self.k} images cannot be chosen from validation pools of {self.val_pool}.")
        for k in self.eval_k:
            if not 1 <= k <= self.pool:
                raise SettingsError(f"eval_k: {k} images cannot be chosen from a pool of {self.pool}.")
        for name in self.against:
            if name not in STRATEGIES:
                raise SettingsError(unknown("strategy", name, STRATEGIES))
        for name in self.inputs or ("",):
            if name not in INPUTS:
                raise SettingsError(unknown("policy input", name, INPUTS))
        arguments = self.agent_arguments()
        check_arguments(*(arguments[name] for name in ("learning_rate", "batch_size", "n_samples", "baseline")))

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

    def env_arguments(self) -> dict[str, Any]:
        """Return the environment's keyword arguments, but for the cohort and the device."""
        shared = {f.name: getattr(self, f.name) for f in fields(SelectiveLabelSettings) if hasattr(self, f.name)}
        shared["fractions"] = "published" if self.published_split else self.fractions
        return shared

    def agent_arguments(self, inputs: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return the agent's keyword arguments.

        Parameters
        ----------
        inputs: what the selector sees instead of the setting's, such as ``("clinical",)``.
        """
        return {
            "learning_rate": StepSchedule(self.learning_rate, self.lr_factor, self.lr_start),
            "policy_kwargs": {"inputs": list(inputs or self.inputs), "hidden": self.hidden},
            **{n: getattr(self, n) for n in ("batch_size", "n_samples", "baseline", "replacement", "seed", "device")},
        }

    def to_yaml(self) -> str:
        """Return the settings as YAML text."""
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def from_mapping(cls, values: Any, where: str) -> RunSettings:
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
            clean[name] = _typed(value, known[name].default, f"{where}: {name}")
        try:
            return cls(**clean)
        except TypeError as error:  # an entry of a list, or a value whose default is None
            raise SettingsError(f"{where}: a value has the wrong type ({error}).") from None


def _typed(value: Any, default: Any, where: str) -> Any:
    """Return a YAML value as the type of the field's default."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = type(default)
    if default is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise SettingsError(f"{where} must be {expected.__name__}, got {value!r}.")
    return value


def presets(agent: str, env: str) -> dict[str, dict[str, Any]]:
    """Return the presets of an agent for an environment, by name.

    Raises
    ------
    SettingsError: if the agent or the environment is unknown.
    """
    if agent not in AGENTS:
        raise SettingsError(unknown("agent", agent, AGENTS))
    if env not in ENVS:
        raise SettingsError(unknown("environment", env, ENVS))
    text = importlib.resources.files("activelabel").joinpath("hyperparams", f"{agent}.yml").read_text("utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)[env]
    return found


def preset(name: str, agent: str = "reinforce", env: str = "SelectiveLabel-v0", data: str | None = None) -> RunSettings:
    """Return the settings of a preset.

    Parameters
    ----------
    name: of the preset.
    agent, env: what it is for.
    data: the data set; given another than the preset's own, the preset's class names do not apply.

    Raises
    ------
    SettingsError: if there is no such preset (with the closest match).
    """
    known = presets(agent, env)
    if name not in known:
        raise SettingsError(unknown("preset", name, known))
    values = dict(known[name])
    if data is not None and values.get("data") not in ("", None, data):
        values = {n: v for n, v in values.items() if n not in OF_THE_DATA}
    if data is not None:
        values["data"] = data
    return RunSettings.from_mapping({**values, "env": env, "agent": agent, "preset": name}, f"preset '{name}'")


def read_config(path: Path) -> RunSettings:
    """Read the ``config.yaml`` of a run.

    Raises
    ------
    SettingsError: if the file is missing or not one.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; is {path.parent} the directory of a run?") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}).") from None
    return RunSettings.from_mapping(values, str(path))
