"""Judging a selector on conditions that were left out of its training, beside those that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.agents.familiarity import Familiarity, condition_means
from activelabel.baselines import KMedoids
from activelabel.envs import SelectiveLabelEngine
from activelabel.evaluation.protocol import play
from activelabel.evaluation.validation import MetaValidation

POOLS = 400
"""Training tasks whose pools say what is familiar."""

SLACK = 2.0
"""What the largest T of a validation pool of the trained conditions is multiplied by. Those pools are drawn again and
again from few images, so that they differ less than pools of other images will. Conditions left out of training had a T
seven to a hundred times as large (Kather, the synthetic cohort), or one that nothing tells apart (NIH)."""

JUDGED = "judged"
"""The note of a model that has, for each validation, what :meth:`LeftOutValidation.reached` finds."""


def learn_familiarity(train: SelectiveLabelEngine, val: SelectiveLabelEngine, n_tasks: int) -> Familiarity:
    """Return what tells pools of the conditions of the training from others.

    Parameters
    ----------
    train: whose tasks a selector is trained on.
    val: of the validation part, with the same conditions; its pools set the limit.
    n_tasks: tasks of it.
    """
    train = train.sibling(task_augmentation=0.0)  # what is made up is not what is known
    tasks = train.sampler.batch(np.arange(POOLS))
    images = train.features[np.unique(tasks.pool)].cpu().numpy()
    means = np.concatenate([pools.mean(axis=1) for pools in _pools(train, POOLS)])
    found = Familiarity.fit(images, condition_means(means, tasks.condition))
    return found.limited(SLACK * max(found.statistic(pools).max() for pools in _pools(val, n_tasks)))


def _pools(engine: SelectiveLabelEngine, n_tasks: int, batch: int = 32) -> Iterator[NDArray[np.float32]]:
    """Yield the pools of tasks ``0 .. n_tasks - 1``, float32 ``(B, N, d)``."""
    for start in range(0, n_tasks, batch):
        tasks = engine.sampler.batch(np.arange(start, min(start + batch, n_tasks)))
        yield engine.features[tasks.pool].cpu().numpy()


class LeftOutValidation(MetaValidation):
    """Judges a selector on left-out conditions, and notes what it is worth there and where it was trained.

    The best model is the one with the largest AUROC on what was left out. TensorBoard has it as ``eval/auroc``, beside
    ``eval/auroc_seen``, on validation images of the conditions of the training, and ``eval/auroc_guarded``, on what
    was left out if K-Medoids chooses of pools that are not familiar.

    Parameters
    ----------
    engine: of the validation part, with the conditions that were left out.
    n_tasks: of each of the two engines.
    seen: of the validation part, with the conditions of the training.
    familiarity: of the training.
    clustering: float64 ``(n_tasks,)``, what K-Medoids reaches on each task of ``engine``.
    *arguments: of :class:`~activelabel.evaluation.validation.Validation`.
    """

    def __init__(
        self,
        engine: SelectiveLabelEngine,
        n_tasks: int,
        seen: SelectiveLabelEngine,
        familiarity: Familiarity,
        clustering: NDArray[np.float64],
        *arguments: Any,
    ) -> None:
        super().__init__(engine, n_tasks, *arguments)
        self.seen = seen
        self.familiarity = familiarity
        self.clustering = clustering

    @cached_property
    def _clustering_seen(self) -> float:
        """What K-Medoids reaches on the conditions of the training."""
        k = self.model.k
        return float(play(self.seen, KMedoids(k), [k], self.n_tasks)[k].reward.mean())

    @cached_property
    def _conditions(self) -> dict[str, NDArray[np.bool_]]:
        """Which tasks are of each condition that was left out."""
        numbers = self.engine.sampler.batch(np.arange(self.n_tasks)).condition
        return {self.engine.cohort.classes[number]: numbers == number for number in np.unique(numbers)}

    @cached_property
    def _familiar(self) -> NDArray[np.bool_]:
        """Which pools of what was left out are familiar all the same."""
        return np.concatenate([self.familiarity.familiar(pools) for pools in _pools(self.engine, self.n_tasks)])

    def reached(self, reward: NDArray[np.float64]) -> dict[str, float]:
        """Return the three AUROCs, and note them less those of K-Medoids on the same tasks: ``seen`` as one number,
        ``left_out`` and ``guarded`` of each condition that was left out."""
        k = self.model.k
        on_seen = play(self.seen, self.model, [k], self.n_tasks)[k].reward
        guarded = np.where(self._familiar, reward, self.clustering)
        gains = {"left_out": reward - self.clustering, "guarded": guarded - self.clustering}
        found: dict[str, Any] = {"seen": float(on_seen.mean()) - self._clustering_seen}
        for name, gain in gains.items():
            found[name] = {condition: float(gain[own].mean()) for condition, own in self._conditions.items()}
        self.model.notes.setdefault(JUDGED, []).append(found)
        return super().reached(reward) | {"auroc_seen": float(on_seen.mean()), "auroc_guarded": float(guarded.mean())}
