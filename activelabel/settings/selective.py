"""The settings of a run of ``SelectiveLabel-v0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from activelabel.agents import StepSchedule
from activelabel.agents.arguments import check_arguments
from activelabel.agents.policies import INPUTS
from activelabel.baselines import BASELINES
from activelabel.envs import SelectiveLabelSettings
from activelabel.errors import SettingsError, unknown
from activelabel.settings.base import RunSettings

STRATEGIES = (*BASELINES, "clinical")
"""What an agent is compared with: the baselines, and the same selector on age, sex and view alone (MedSelect §3.4)."""


@dataclass(frozen=True)
class SelectiveRunSettings(RunSettings):
    """Everything that determines a run of ``SelectiveLabel-v0``."""

    agents: ClassVar[tuple[str, ...]] = ("reinforce",)

    env: str = "SelectiveLabel-v0"
    """Environment id."""
    agent: str = "reinforce"
    """Name of the agent; ``hyperparams/<agent>.yml`` holds its presets."""
    against: tuple[str, ...] = ("random", "kmedoids")
    """Strategies of the closing evaluation: random, kmedoids, clinical."""
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
    n_tasks: int = 10_000
    """Different training tasks."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        SelectiveLabelSettings.make(**self.env_arguments())
        self._at_least_one(("updates", "val_every", "val_tasks", "test_tasks", "hidden"))
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

    def env_arguments(self) -> dict[str, Any]:
        """Return the environment's keyword arguments, but for the cohort and the device."""
        return self._env_fields(SelectiveLabelSettings)

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
