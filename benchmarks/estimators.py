"""The paper's gradient estimator against ours: updates and seconds until each passes K-Medoids.

::

    python -m benchmarks.estimators
    python -m benchmarks.estimators --preset kather --data kather2016_texture_features.npz --learning-rate 5e-3

The paper's estimator, of 64 tasks an update as printed, and the leave-one-out estimator, of as many as the preset has,
start from the same weights and see the same tasks at the same learning rate. Third is the leave-one-out estimator with
the gated selector, at a learning rate of its own. "Passes" means: the first meta-validation whose mean AUROC is above
that of K-Medoids on the same tasks. Seconds are of training from a cold start, without the validations; who never
passes has taken forever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from activelabel.agents import Reinforce
from activelabel.baselines import KMedoids
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelVectorEnv
from activelabel.evaluation import play
from activelabel.settings import SelectiveRunSettings, preset

THEIRS, OURS, GATED = "paper's", "leave-one-out", "leave-one-out, gated"
"""The contestants: one selection a task against the random selector's reward, several against each other with the same
network, and with the gated selector."""

LIMIT = 1 / 3
"""Median seconds of ours over the paper's."""


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    preset: str = "default"
    """Where tasks, network and batch size come from."""
    data: str | None = None
    """Data set; by default the preset's."""
    learning_rate: float = 1e-4
    """Of both estimators with the BiLSTM, constant; 1e-4 is the paper's."""
    paper_batch: int = 64
    """Tasks an update of the paper's estimator; a multiple of the preset's."""
    gated_learning_rate: float = 1e-3
    """With the gated selector."""
    gated_hidden: int = 64
    """Units of its layers."""
    seeds: int = 5
    """Training seeds."""
    updates: int = 400
    """After which a contestant gives up."""
    every: int = 1
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
    """Print when each passed, the medians over the seeds and their ranges."""
    print(f"{settings.preset}, learning rate {settings.learning_rate}, {torch.get_num_threads()} threads")
    found = measure(settings, partial(print, flush=True))
    for name, results in found.items():
        (updates, seconds), (least, fewest), (most, longest) = (
            function(results, axis=0) for function in (np.median, np.min, np.max)
        )
        print(
            f"median of {settings.seeds}: {name} {updates:.0f} updates ({least:.0f} to {most:.0f}), "
            f"{seconds:.2f} s ({fewest:.2f} to {longest:.2f})"
        )
    for name in (OURS, GATED):
        print(f"ratio of the medians, seconds, {name}: {ratio(found, name):.2f}")


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    found = measure(settings, lambda _: None)
    title = f"time to beat K-Medoids / the paper's estimator's, {settings.preset}"
    return [(f"{title}, {name}", ratio(found, name), LIMIT) for name in (OURS, GATED)]


def ratio(found: dict[str, NDArray[np.float64]], name: str) -> float:
    """Return the median seconds of one of ours over the paper's."""
    return float(np.median(found[name][:, 1]) / np.median(found[THEIRS][:, 1]))


def measure(settings: Settings, tell: Callable[[str], None]) -> dict[str, NDArray[np.float64]]:
    """Train all contestants on the same tasks.

    Parameters
    ----------
    settings: what is compared.
    tell: takes the lines of a table, one when each contestant has ended.

    Returns
    -------
    For each contestant ``(seeds, 2)``: updates and seconds until it passed, infinite where it never did.
    """
    run = preset(settings.preset, data=settings.data)
    assert isinstance(run, SelectiveRunSettings)
    env = SelectiveLabelVectorEnv(run.batch_size, run.cohort(), copy=False, **run.env_arguments())
    engine = env.engine.sibling(split="val", pool=run.val_pool or run.pool)
    bar = float(play(engine, KMedoids(run.k), [run.k], run.val_tasks)[run.k].reward.mean())
    tell(f"K-Medoids {bar:.4f} on {run.val_tasks} validation tasks, a validation every {settings.every} updates")
    tell(f"{'seed':>4} {'estimator':<20} {'updates':>7} {'seconds':>8}")
    same = {**run.agent_arguments(), "learning_rate": settings.learning_rate}
    gated = replace(run, selector="gated", hidden=settings.gated_hidden).agent_arguments()
    contestants: dict[str, dict[str, Any]] = {
        THEIRS: {**same, "baseline": "random", "n_samples": 1, "batch_size": settings.paper_batch},
        OURS: {**same, "baseline": "leave-one-out"},
        GATED: {**gated, "baseline": "leave-one-out", "learning_rate": settings.gated_learning_rate},
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for seed in range(settings.seeds):
        for name, arguments in contestants.items():
            model = Reinforce(env=env, **{**arguments, "seed": seed})
            watch = UntilPassed(engine, settings.every, run.val_tasks, bar)
            start = time.perf_counter()
            model.learn(settings.updates * model.batch_size, callback=watch, log_interval=0)
            seconds = time.perf_counter() - start - watch.validating
            passed = (float("inf"), float("inf")) if watch.passed is None else (watch.passed, seconds)
            found[name].append(passed)
            tell(f"{seed:>4} {name:<20} {passed[0]:>7} {passed[1]:>8.2f}")
    return {name: np.array(results) for name, results in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Settings))
