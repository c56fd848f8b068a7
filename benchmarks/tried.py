"""What was tried so that a selector carries over to conditions it was not trained on, by validation alone.

::

    python -m benchmarks.tried --data kather2016_texture_features.npz
    python -m benchmarks.tried --at-once 2

Protocol, settings of the training and table are those of :mod:`benchmarks.left_out`: conditions that are left out of
the training validate, and shown is the AUROC on them less K-Medoids'. Images and conditions of the test are not
touched. The selectors are in :mod:`benchmarks.tried_selectors`, the training tasks in :mod:`benchmarks.tried_tasks`.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from joblib import Parallel, delayed
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from activelabel.agents import AnchoredPolicy, DiscriminantPolicy, GatedAnchoredPolicy, MLPPolicy, Reinforce
from activelabel.agents.policies import Ensemble, Selector, SelectorPolicy
from activelabel.cli import run_command
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelEngine
from activelabel.evaluation import SelectiveRun
from activelabel.evaluation.protocol import Strategy, play
from activelabel.settings import SelectiveRunSettings
from benchmarks import left_out
from benchmarks.tried_selectors import (
    COMPONENTS,
    KINDS,
    AttentionPolicy,
    ClustersPolicy,
    DisturbedPolicy,
    OfMedoidsPolicy,
    PrunedPolicy,
    RotatedPolicy,
)
from benchmarks.tried_tasks import ChangedTasks, MixedNegatives, PseudoConditions


@dataclass(frozen=True)
class Variant:
    """What is tried.

    Parameters
    ----------
    policy: the selector.
    arguments: of the policy, besides what the settings say.
    settings: of the run.
    tasks: the training tasks; by default those of the package.
    members: selectors that are trained with seeds of their own and choose together.
    """

    policy: type[SelectorPolicy] = MLPPolicy
    arguments: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"selector": "mlp"})
    tasks: type[ChangedTasks] | None = None
    members: int = 1


_ANCHORED = {"selector": "anchored", "anchor": 3.0}
_GATED = {"selector": "gated-anchored", "anchor": 1.0, "anchor_distance": "cosine"}
_FREE = {"selector": "anchored", "anchor": 0.0}

VARIANTS: dict[str, Variant] = {
    "mlp": Variant(),
    "anchored": Variant(AnchoredPolicy, settings=_ANCHORED),
    "anchored, cosine": Variant(AnchoredPolicy, settings={**_ANCHORED, "anchor_distance": "cosine"}),
    "cells of k-center": Variant(ClustersPolicy, {"kinds": ("k-center",)}, _ANCHORED),
    "cells of TypiClust": Variant(ClustersPolicy, {"kinds": ("typiclust",)}, _ANCHORED),
    "cells of facility location": Variant(ClustersPolicy, {"kinds": ("facility location",)}, _ANCHORED),
    "three clusterings": Variant(ClustersPolicy, {"kinds": ("k-medoids", "k-medoids, cosine", "typiclust")}, _ANCHORED),
    "pseudo-conditions": Variant(tasks=PseudoConditions),
    "feature noise": Variant(DisturbedPolicy, {"noise": 0.5}),
    "dropout": Variant(DisturbedPolicy, {"dropout": 0.2}),
    "32 components": Variant(RotatedPolicy, {"rotate": False}),
    "32 components, rotated": Variant(RotatedPolicy),
    "mixed negatives": Variant(tasks=MixedNegatives),
    "ensemble of 5": Variant(members=5),
    "attention": Variant(AttentionPolicy, settings=_FREE),
    "attention, one a cluster": Variant(AttentionPolicy, {"one_per_cluster": True}, _ANCHORED),
    "K of 2K medoids": Variant(OfMedoidsPolicy),
    "2K, pruned to K": Variant(PrunedPolicy),
    "task augmentation": Variant(settings={"selector": "mlp", "task_augmentation": 0.5}),
    "gated, anchored": Variant(GatedAnchoredPolicy, settings=_GATED),
    "the same, task augmentation": Variant(GatedAnchoredPolicy, settings={**_GATED, "task_augmentation": 0.5}),
    "gated, anchored, ensemble of 5": Variant(GatedAnchoredPolicy, settings=_GATED, members=5),
    "discriminant": Variant(DiscriminantPolicy, settings={"selector": "discriminant"}),
}
"""What is tried, by the name in the table."""


@dataclass(frozen=True)
class Settings(left_out.Settings):
    """What is trained."""

    selectors: tuple[str, ...] = tuple(VARIANTS)
    """Rows of the table."""


def components(engine: SelectiveLabelEngine) -> NDArray[np.float32]:
    """Return the leading principal components of the training images, ``(d, c)``, for which no label is read."""
    images = engine.features.cpu().numpy()[engine.splits.train].astype(np.float64)
    found = np.linalg.eigh(np.cov(images, rowvar=False))[1][:, ::-1][:, :COMPONENTS]
    basis: NDArray[np.float32] = np.ascontiguousarray(found, dtype=np.float32)
    return basis


def learner(variant: Variant, run: SelectiveRun, seed: int) -> Reinforce:
    """Return the agent of a variant, not trained yet.

    Parameters
    ----------
    variant: what is tried.
    run: whose training env it learns in; its tasks become those of the variant.
    seed: of the agent.
    """
    engine, arguments = run.train_env.engine, run.settings.agent_arguments()
    own = {**arguments.pop("policy_kwargs"), **variant.arguments}
    if issubclass(variant.policy, RotatedPolicy):
        own["basis"] = components(engine)
    if variant.tasks is not None:
        engine.sampler = variant.tasks(engine)
    model = Reinforce(env=run.train_env, **{**arguments, "policy": variant.policy, "policy_kwargs": own, "seed": seed})
    if isinstance(model.policy, AnchoredPolicy):
        model.policy.cache = KINDS["k-medoids"]
    model.set_logger(Logger(None, []))  # SB3's own would make a folder
    return model


class Judge(BaseCallback):
    """Judges an agent now and then by what is left out.

    Parameters
    ----------
    run: whose validation tasks are played.
    """

    model: Reinforce

    def __init__(self, run: SelectiveRun) -> None:
        super().__init__()
        self.run = run
        self.values: list[float] = []
        """AUROC at each validation."""
        self.networks: list[Selector] = []
        """The networks of these moments."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        s, done = self.run.settings, self.model._n_updates
        if done % s.val_every == 0 or done == s.updates:
            self.values.append(auroc(self.run, self.model))
            self.networks.append(copy.deepcopy(self.model.policy.selector))


def auroc(run: SelectiveRun, strategy: Strategy) -> float:
    """Return what a strategy reaches on the validation tasks of a run."""
    k = run.settings.k
    return float(play(run.val, strategy, [k], run.settings.val_tasks)[k].reward.mean())


def gains(name: str, settings: SelectiveRunSettings, cohort: Cohort | None = None) -> dict[str, list[float]]:
    """Return AUROC less K-Medoids' on what is left out, at each validation, by row of the table.

    Parameters
    ----------
    name: one of :data:`VARIANTS`. An ensemble makes a second row, the mean of its members.
    settings: of the run.
    cohort: the data, where it is at hand.
    """
    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        run = SelectiveRun(Path(folder), settings, progress=False, cohort=cohort)
        judges = []
        for i in range(variant.members):
            model = learner(variant, run, settings.seed * variant.members + i)
            judges.append(Judge(run))
            model.learn(settings.updates * settings.batch_size, callback=judges[-1], log_interval=0)
        clustering = run.references["kmedoids"]
        singly = (np.mean([judge.values for judge in judges], axis=0) - clustering).tolist()
        if variant.members == 1:
            return {name: singly}
        together = []
        for networks in zip(*(judge.networks for judge in judges), strict=True):
            model.policy.selector = Ensemble(networks)
            together.append(auroc(run, model) - clustering)
    return {name: together, f"{name}: members": singly}


def measure(s: Settings) -> None:
    """Train and print."""
    rows = {name: variant.settings for name, variant in VARIANTS.items()}
    planned = list(left_out.cells(s, rows))
    found = Parallel(n_jobs=s.jobs)(delayed(gains)(name, settings) for _, name, settings in planned)
    left_out.show(
        s, [(data, row, curve) for (data, _, _), own in zip(planned, found, strict=True) for row, curve in own.items()]
    )


def main() -> int:
    """Run the command."""
    return run_command(lambda: measure(tyro.cli(Settings, description=__doc__)))


if __name__ == "__main__":
    raise SystemExit(main())
