"""The paper's gradient estimator against the leave-one-out one: updates and seconds until each passes K-Medoids.

::

    python -m benchmarks.estimators --seeds 3
    python -m benchmarks.estimators --preset kather --data kather2016_texture_features.npz

Both start from the same weights and see the same tasks at the same learning rate. "Passes" means: the first
meta-validation whose mean AUROC is above that of K-Medoids on the same tasks. Seconds are of training, without the
validations.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from stable_baselines3.common.callbacks import BaseCallback

from activelabel.agents import Reinforce
from activelabel.baselines import KMedoids
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelVectorEnv
from activelabel.evaluation import play
from activelabel.settings import preset


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    preset: str = "default"
    """Where tasks, network and batch size come from."""
    data: str | None = None
    """Data set; by default the preset's."""
    learning_rate: float = 1e-4
    """Of both, constant; 1e-4 is the paper's."""
    seeds: int = 3
    """Training seeds."""
    updates: int = 400
    """After which a contestant gives up."""
    every: int = 5
    """Updates between validations."""


class UntilPassed(BaseCallback):
    """Stops training when the mean reward on the validation tasks exceeds a bar."""

    model: Reinforce

    def __init__(self, engine: SelectiveLabelEngine, every: int, tasks: int, bar: float) -> None:
        super().__init__()
        self.engine, self.every, self.tasks, self.bar = engine, every, tasks, bar
        self.validating = 0.0
        self.passed: int | None = None

    def _on_step(self) -> bool:
        if self.model._n_updates % self.every == 0:
            start = time.perf_counter()
            reward = play(self.engine, self.model, [self.model.k], self.tasks)[self.model.k].reward.mean()
            self.validating += time.perf_counter() - start
            if reward > self.bar:
                self.passed = self.model._n_updates
        return self.passed is None


def main(settings: Settings) -> None:
    """Train both from the same weights on the same tasks and print when each passed."""
    run = preset(settings.preset, data=settings.data)
    env = SelectiveLabelVectorEnv(run.batch_size, run.cohort(), **run.env_arguments())
    engine = env.engine.sibling(split="val", pool=run.val_pool or run.pool)
    bar = float(play(engine, KMedoids(run.k), [run.k], run.val_tasks)[run.k].reward.mean())
    print(f"{run.data}, learning rate {settings.learning_rate}, {torch.get_num_threads()} threads")
    print(f"K-Medoids {bar:.4f} on {run.val_tasks} validation tasks, a validation every {settings.every} updates")
    print(f"{'seed':>4} {'estimator':<14} {'updates':>7} {'seconds':>8}")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(settings.seeds):
        for baseline, samples in (("random", 1), ("leave-one-out", run.n_samples)):
            changes = {
                "baseline": baseline,
                "n_samples": samples,
                "seed": seed,
                "learning_rate": settings.learning_rate,
            }
            model = Reinforce(env=env, **{**run.agent_arguments(), **changes})
            watch = UntilPassed(engine, settings.every, run.val_tasks, bar)
            start = time.perf_counter()
            model.learn(settings.updates * run.batch_size, callback=watch, log_interval=0)
            seconds = time.perf_counter() - start - watch.validating
            updates = watch.passed if watch.passed is not None else float("inf")
            name = "paper's" if baseline == "random" else baseline
            found.setdefault(name, []).append((updates, seconds))
            print(f"{seed:>4} {name:<14} {updates:>7} {seconds:>8.1f}", flush=True)
    for name, results in found.items():
        updates, seconds = np.median(np.array(results), axis=0)
        print(f"median of {settings.seeds}: {name} {updates:.0f} updates, {seconds:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Settings))
