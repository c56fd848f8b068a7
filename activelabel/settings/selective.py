"""The settings of a run of ``SelectiveLabel-v0``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from activelabel import plugins
from activelabel.agents import SELECTORS, AnchoredPolicy, StepSchedule
from activelabel.agents.arguments import check_anchor, check_arguments, check_precision
from activelabel.agents.policies import INPUTS
from activelabel.baselines import BASELINES
from activelabel.envs import SelectiveLabelSettings
from activelabel.errors import SettingsError, unknown
from activelabel.settings.oracle import OracleSettings

STRATEGIES = (*BASELINES, "clinical")
"""What an agent is compared with: the baselines, and the same selector on age, sex and view alone (MedSelect §3.4)."""


GENERALISE: dict[str, Any] = {
    **{"generalise": True, "updates": 200, "val_every": 40, "batch_size": 32, "n_samples": 8},
    **{"baseline": "leave-one-out", "replacement": False, "learning_rate": 1e-3, "lr_factor": 0.1, "lr_start": 0.6},
    **{"task_augmentation": 0.5, "members": 3},
}
"""What ``--generalise`` brings with it, the same on every preset."""


def check_strategies(names: Sequence[str], plugged: bool = False) -> None:
    """Check names of strategies; whether one of the user's own is one is found out where it is made.

    Parameters
    ----------
    names: of strategies.
    plugged: whether the agent that they are compared with is one of the user's own.

    Raises
    ------
    SettingsError: if one is unknown (with the closest match), or does not go with the agent.
    """
    for name in names:
        plugins.check("baseline", name, STRATEGIES, "strategy")
        if name == "clinical" and plugged:
            raise SettingsError("'clinical' is the selector of reinforce on other inputs; this run has another agent.")


@dataclass(frozen=True)
class SelectiveRunSettings(OracleSettings):
    """Everything that determines a run of ``SelectiveLabel-v0``."""

    agents: ClassVar[tuple[str, ...]] = ("reinforce",)
    of_agents: ClassVar[tuple[str, ...]] = (
        *("n_samples", "baseline", "replacement", "learning_rate", "lr_factor", "lr_start"),
        *("selector", "hidden", "anchor", "anchor_distance", "clusters_share", "inputs", "members", "precision"),
        *("generalise",),
    )

    env: str = "SelectiveLabel-v0"
    """Environment id."""
    agent: str = "reinforce"
    """Name of the agent; ``hyperparams/<agent>.yml`` holds its presets. Or one of your own: package.module:Class, or
    the name of an entry point."""
    against: tuple[str, ...] = ("random", "kmedoids")
    """Strategies of the closing evaluation: random, kmedoids, kmedoids-cosine, k-center, typiclust, facility-location,
    herding, clinical, or one of your own."""
    conditions: tuple[str, ...] | None = None
    """Conditions to train on; by default all with 5 % prevalence that are not held out."""
    held_out: tuple[str, ...] = ()
    """Conditions kept out of training and tested apart."""
    left_out: tuple[str, ...] = ()
    """Seen conditions that are not trained on but validate: the model is chosen by conditions that are new to it."""
    generalise: bool = False
    """Choose the selector, the size of its layers and the number of updates, at most those given, by conditions that
    are left out of training in turn; then train on all. It is for conditions that nobody has seen."""
    threads: int = 2
    """Of torch on the CPU, whatever the number of cores: the last digits of a gradient, and with them what is learned,
    depend on it."""
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
    task_augmentation: float = 0.0
    """Share of the training tasks whose condition is made up from the others."""
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
    selector: str = "bilstm"
    """Bilstm (the paper), gated (per image, by its place in the pool), deep-sets (with mean and maximum of what it
    reads in the pool), mlp (with those of the images' numbers), anchored (an mlp, one image of each cluster of
    K-Medoids), gated-anchored (the same with what gated has for an mlp), or discriminant (by one number an image: its
    place between normal images and the conditions of the training)."""
    hidden: int = 256
    """Units of the LSTM in each direction, or of each layer of the other selectors."""
    anchor: float = 3.0
    """Of the anchored selectors: what an image's score loses for each median distance to its medoid; 0 is free."""
    anchor_distance: str = "euclidean"
    """Of the anchored selectors: euclidean, or cosine, which clusters the images scaled to unit length."""
    clusters_share: float = 1.0
    """Of the anchored selectors: share of the K images that are bound to a cluster each; the rest is free."""
    inputs: tuple[str, ...] = ("pool",)
    """What the selector sees of an image: pool, clinical, or both."""
    members: int = 1
    """Trainings with seeds of their own, the mean of whose logits is what chooses: an ensemble."""
    precision: str = "float32"
    """Float32, or bfloat16, in which a processor or GPU that has it trains the selector in less time."""
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
        self._at_least_one(("updates", "batch_size", "val_every", "val_tasks", "test_tasks", "hidden", "members"))
        if not self.k <= (self.val_pool or self.pool):
            raise SettingsError(f"k={self.k} images cannot be chosen from validation pools of {self.val_pool}.")
        for k in self.eval_k:
            if not 1 <= k <= self.pool:
                raise SettingsError(f"eval_k: {k} images cannot be chosen from a pool of {self.pool}.")
        self._check_left_out()
        check_strategies(self.against, self.plugged)
        for name in self.inputs or ("",):
            if name not in INPUTS:
                raise SettingsError(unknown("policy input", name, INPUTS))
        if self.selector not in SELECTORS:
            raise SettingsError(unknown("selector", self.selector, SELECTORS))
        check_anchor(self.anchor, self.clusters_share, self.anchor_distance)
        check_precision(self.precision)
        if self.replacement and SELECTORS[self.selector].own_rule:
            raise SettingsError(f"the selector '{self.selector}' draws without replacement; leave out --replacement.")
        if not self.plugged:
            arguments = self.agent_arguments()
            check_arguments(*(arguments[name] for name in ("learning_rate", "batch_size", "n_samples", "baseline")))

    def _check_left_out(self) -> None:
        if self.generalise and self.left_out:
            raise SettingsError(
                f"generalise leaves out every condition in turn; give it no left_out={list(self.left_out)}."
            )
        for name in self.left_out:
            if name in self.held_out:
                raise SettingsError(f"left_out: '{name}' is held out; what is left out is a seen condition.")
            if self.conditions is not None and name not in self.conditions:
                raise SettingsError(f"left_out: {unknown('seen condition', name, self.conditions)}")
        if self.conditions is not None and not set(self.conditions) - set(self.left_out):
            raise SettingsError(f"left_out={list(self.left_out)} leaves no condition to train on.")

    def env_arguments(self) -> dict[str, Any]:
        """Return the training environment's keyword arguments, but for the cohort and the device."""
        found = self._env_fields(SelectiveLabelSettings)
        if self.left_out:
            found["held_out"] = (*self.held_out, *self.left_out)
            if self.conditions is not None:
                found["conditions"] = tuple(name for name in self.conditions if name not in self.left_out)
        return found

    def agent_arguments(self, inputs: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return the agent's keyword arguments.

        Parameters
        ----------
        inputs: what the selector sees instead of the setting's, such as ``("clinical",)``.
        """
        if self.plugged:
            return self._plugged_arguments()
        policy: dict[str, Any] = {"inputs": list(inputs or self.inputs), "hidden": self.hidden}
        if issubclass(SELECTORS[self.selector], AnchoredPolicy):
            policy |= {"anchor": self.anchor, "clusters_share": self.clusters_share, "distance": self.anchor_distance}
        return {
            "policy": SELECTORS[self.selector].__name__,
            "learning_rate": StepSchedule(self.learning_rate, self.lr_factor, self.lr_start),
            "policy_kwargs": policy,
            **{n: getattr(self, n) for n in ("batch_size", "n_samples", "baseline", "replacement")},
            **{n: getattr(self, n) for n in ("precision", "seed", "device")},
        }
