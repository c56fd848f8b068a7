"""The paper's gradient estimator against the leave-one-out one: updates and seconds until each passes K-Medoids.

::

    python -m benchmarks.estimators --seeds 3

Both start from the same weights and see the same tasks at the same learning rate, the paper's 1e-4. "Passes" means:
the first meta-validation whose mean AUROC is above that of K-Medoids on the same tasks. Seconds are of training,
without the validations.
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


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    data: str = "synthetic"
    """Data set."""
    held_out: tuple[str, ...] = ("Edema", "Atelectasis")
    """Conditions kept out."""
    seeds: int = 3
    """Training seeds."""
    batch_size: int = 32
    """Tasks an update."""
    n_samples: int = 16
    """Selections for each task of the leave-one-out estimator."""
    learning_rate: float = 1e-4
    """Of both; the paper's."""
    updates: int = 400
    """After which a contestant gives up."""
    every: int = 5
    """Updates between validations."""
    tasks: int = 200
    """Validation tasks."""


class UntilPassed(BaseCallback):
    """Stops training when the mean reward on the validation tasks exceeds a bar."""

    model: Reinforce

    def __init__(self, engine: SelectiveLabelEngine, settings: Settings, bar: float) -> None:
        super().__init__()
        self.engine, self.settings, self.bar = engine, settings, bar
        self.validating = 0.0
        self.passed: int | None = None

    def _on_step(self) -> bool:
        if self.model._n_updates % self.settings.every == 0:
            start = time.perf_counter()
            reward = play(self.engine, self.model, [10], self.settings.tasks)[10].reward.mean()
            self.validating += time.perf_counter() - start
            if reward > self.bar:
                self.passed = self.model._n_updates
        return self.passed is None


def main(settings: Settings) -> None:
    """Train both from the same weights on the same tasks and print when each passed."""
    env = SelectiveLabelVectorEnv(settings.batch_size, settings.data, held_out=settings.held_out)
    engine = env.engine.sibling(split="val")
    bar = float(play(engine, KMedoids(10), [10], settings.tasks)[10].reward.mean())
    print(
        f"{settings.data}: K-Medoids {bar:.4f} on {settings.tasks} validation tasks; {torch.get_num_threads()} threads"
    )
    print(f"{'seed':>4} {'estimator':<14} {'updates':>7} {'seconds':>8}")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(settings.seeds):
        for name, baseline, samples in (
            ("paper's", "random", 1),
            ("leave-one-out", "leave-one-out", settings.n_samples),
        ):
            model = Reinforce(
                env=env,
                batch_size=settings.batch_size,
                n_samples=samples,
                baseline=baseline,
                learning_rate=settings.learning_rate,
                seed=seed,
            )
            watch = UntilPassed(engine, settings, bar)
            start = time.perf_counter()
            model.learn(settings.updates * settings.batch_size, callback=watch, log_interval=0)
            seconds = time.perf_counter() - start - watch.validating
            updates = watch.passed if watch.passed is not None else float("inf")
            found.setdefault(name, []).append((updates, seconds))
            print(f"{seed:>4} {name:<14} {updates:>7} {seconds:>8.1f}", flush=True)
    paper, ours = (np.median(np.array(found[name]), axis=0) for name in ("paper's", "leave-one-out"))
    print(f"medians: paper's {paper[0]:.0f} updates, {paper[1]:.1f} s; leave-one-out {ours[0]:.0f}, {ours[1]:.1f} s")
    print(f"leave-one-out needs {ours[0] / paper[0]:.2f} of the updates and {ours[1] / paper[1]:.2f} of the seconds")


if __name__ == "__main__":
    main(tyro.cli(Settings))
