"""What every query strategy of ``ActiveLabel-v0`` is, and those that rank the candidates by one number each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data.cohort import IntArray
from activelabel.envs.candidates import entropy, margin
from activelabel.errors import SettingsError
from activelabel.seeding import stream

Observation = dict[str, NDArray[Any]]


class PoolBaseline(ABC):
    """A query strategy for ``ActiveLabel-v0``.

    Parameters
    ----------
    batch: how many candidates :meth:`predict` chooses, N, as the environment's ``batch``.
    seed: of the strategy's own randomness.

    Raises
    ------
    SettingsError: if ``batch`` is below 1.
    """

    name: str
    """What it is called on the command line and in tables."""

    observes: tuple[str, ...] = ()
    """What it needs of the environment's ``observe``."""

    def __init__(self, batch: int = 5, seed: int = 0) -> None:
        if not isinstance(batch, (int, np.integer)) or isinstance(batch, bool) or batch < 1:
            raise SettingsError(f"batch={batch!r} must be a whole number of at least 1.")
        self.batch = int(batch)
        self.seed = seed
        self._rng = stream(seed, "pool", self.name)

    @abstractmethod
    def choose(self, observation: Observation) -> IntArray:
        """Choose in each of ``B`` pools.

        Parameters
        ----------
        observation: what :meth:`predict` was given, with B first and ``action_mask`` as bool ``(B, M)``.

        Returns
        -------
        int64 ``(B, N)``, different indices of candidates whose mask is True, best first; -1 where none is left.
        """

    def predict(
        self,
        observation: Observation,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, tuple[NDArray[Any], ...] | None]:
        """Choose N candidates that are not labelled yet; the signature is Stable-Baselines3's.

        Parameters
        ----------
        observation: of ``ActiveLabel-v0``, each array with or without B first; it must have what ``observes`` names.
        state: returned as it is.
        episode_start, deterministic: have no effect.

        Returns
        -------
        int64 ``(B, N)``, or ``(N,)`` where there was no B; for N = 1 ``(B,)`` or ``()``. Where fewer than N
        candidates are left, the first choice is repeated (index 0 if there was none), which labels nothing.

        Raises
        ------
        SettingsError: if a key is missing from the observation.
        """
        self._check_keys(observation)
        batched = np.ndim(observation["action_mask"]) == 2
        arrays = {
            name: np.asarray(array) if batched else np.asarray(array)[None] for name, array in observation.items()
        }
        arrays["action_mask"] = arrays["action_mask"].astype(np.bool_)
        actions = repeated(self.choose(arrays))
        if self.batch == 1:
            actions = actions[:, 0]
        return actions if batched else actions.squeeze(axis=0), state

    def _check_keys(self, observation: Observation) -> None:
        if "action_mask" not in observation:
            raise SettingsError(
                f"the observation has no 'action_mask' but {', '.join(observation) or 'nothing'}; give one of "
                "ActiveLabel-v0."
            )
        labels = ("labels",) if "labelled" in self.observes else ()
        for key in (*self.observes, *labels):
            if key not in observation:
                raise SettingsError(
                    f"{self.name} needs '{key}' in the observation, which has {', '.join(observation)}: make the "
                    f"environment with observe={self.observes}."
                )


def best(scores: NDArray[np.floating[Any]], free: NDArray[np.bool_], n: int) -> IntArray:
    """Return the candidates of the largest scores, ties in the candidates' order.

    Parameters
    ----------
    scores: ``(B, M)``, finite.
    free: bool ``(B, M)``, which candidates may be chosen.
    n: how many to choose, N.

    Returns
    -------
    int64 ``(B, N)``, best first, -1 where none is left.
    """
    ranked = np.argsort(np.where(free, -scores, np.inf), axis=1, kind="stable")[:, :n]
    chosen = np.full((len(scores), n), -1, dtype=np.int64)
    chosen[:, : ranked.shape[1]] = np.where(np.take_along_axis(free, ranked, axis=1), ranked, -1)
    return chosen


def repeated(chosen: IntArray) -> IntArray:
    """Return ``(B, N)`` with the first choice in place of -1, or 0 where the first is -1 itself."""
    return np.where(chosen < 0, np.maximum(chosen[:, :1], 0), chosen)


class ScoreBaseline(PoolBaseline):
    """A query strategy that takes the N candidates of the largest score, ties in the candidates' order.

    An episode's pool is in random order, so that among ties the choice is a random one.
    """

    @abstractmethod
    def score(self, observation: Observation) -> NDArray[np.floating[Any]]:
        """Return how much each candidate is wanted, ``(B, M)``; see :meth:`PoolBaseline.choose` for the argument."""

    def choose(self, observation: Observation) -> IntArray:
        """See :meth:`PoolBaseline.choose`."""
        return best(self.score(observation), observation["action_mask"], self.batch)


class PoolRandom(ScoreBaseline):
    """Chooses uniformly without replacement."""

    name = "random"

    def score(self, observation: Observation) -> NDArray[np.float64]:
        """See :meth:`ScoreBaseline.score`."""
        return self._rng.random(observation["action_mask"].shape)


class ProbabilityBaseline(ScoreBaseline):
    """A score of the class probabilities alone, in double precision."""

    observes = ("probabilities",)

    @staticmethod
    @abstractmethod
    def measure(probabilities: Tensor) -> Tensor:
        """Return the score of class probabilities, ``(..., C) -> (...)``."""

    def score(self, observation: Observation) -> NDArray[np.float64]:
        """See :meth:`ScoreBaseline.score`."""
        probabilities = torch.from_numpy(np.array(observation["probabilities"], dtype=np.float64))
        scores: NDArray[np.float64] = self.measure(probabilities).numpy()
        return scores


class Uncertainty(ProbabilityBaseline):
    """Chooses where the largest class probability is smallest (least confident; modAL's ``uncertainty_sampling``)."""

    name = "uncertainty"

    @staticmethod
    def measure(probabilities: Tensor) -> Tensor:
        """Return 1 less the largest probability."""
        return 1 - probabilities.amax(dim=-1)


class Margin(ProbabilityBaseline):
    """Chooses where the two largest class probabilities differ least (modAL's ``margin_sampling``)."""

    name = "margin"

    @staticmethod
    def measure(probabilities: Tensor) -> Tensor:
        """Return the negative of :func:`activelabel.envs.candidates.margin`."""
        return -margin(probabilities)


class Entropy(ProbabilityBaseline):
    """Chooses where the entropy of the class probabilities is largest (modAL's ``entropy_sampling``)."""

    name = "entropy"

    @staticmethod
    def measure(probabilities: Tensor) -> Tensor:
        """Return :func:`activelabel.envs.candidates.entropy`."""
        return entropy(probabilities)


class AverageConfidence(ProbabilityBaseline):
    """Chooses where the mean class probability is largest (modAL's ``avg_confidence``; Esuli & Sebastiani 2009).

    It was made for classifiers of several labels an image, whose probabilities do not sum to 1. Those of a softmax do,
    so that every candidate has the mean ``1 / C``, and modAL chooses by the rounding error of a sum. Here a sum within
    1e-5 of 1 counts as 1: all such candidates tie, and the first of the pool's random order are chosen. With the
    learners of ``ActiveLabel-v0`` it is therefore a second random choice; it is here because the paper has it
    (Slade & Branson 2022, §4.2).
    """

    name = "average-confidence"

    @staticmethod
    def measure(probabilities: Tensor) -> Tensor:
        """Return the mean probability."""
        total = probabilities.sum(dim=-1)
        return torch.where((total - 1).abs() <= 1e-5, 1.0, total) / probabilities.shape[-1]
