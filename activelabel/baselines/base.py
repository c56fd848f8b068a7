"""What every strategy that does not learn is: ``predict`` as in Stable-Baselines3, without ``learn``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import IntArray
from activelabel.envs.selections import check_k
from activelabel.errors import SettingsError
from activelabel.seeding import stream


class Baseline(ABC):
    """A query strategy for ``SelectiveLabel-v0``.

    Parameters
    ----------
    k: how many images :meth:`predict` chooses; may be changed later.
    seed: of the strategy's own randomness.
    """

    name: str
    """What it is called on the command line and in tables."""

    def __init__(self, k: int = 10, seed: int = 0) -> None:
        if k < 1:
            raise SettingsError(f"k={k} must be at least 1.")
        self.k = k
        self.seed = seed
        self._rng = stream(seed, self.name)

    @abstractmethod
    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """Choose from one pool.

        Parameters
        ----------
        pool: float32 ``(N, d)``.
        clinical: float32 ``(N, 3)``.
        ks: numbers of images, each 1 to N.

        Returns
        -------
        For each K int64 ``(K,)``, indices into the pool.
        """

    def select(
        self, observation: dict[str, NDArray[Any]], ks: Sequence[int], deterministic: bool = True
    ) -> dict[int, IntArray]:
        """Choose K images for several K.

        Parameters
        ----------
        observation: ``pool`` ``(B, N, d)`` and ``clinical`` ``(B, N, 3)``, or without ``B``.
        ks: the numbers of images.
        deterministic: has no effect on a baseline.

        Returns
        -------
        For each K int64 ``(B, K)``, or ``(K,)`` where there was no batch.

        Raises
        ------
        SettingsError: if a K exceeds the pool.
        """
        pool, clinical = np.asarray(observation["pool"]), np.asarray(observation["clinical"])
        batched = pool.ndim == 3
        if not batched:
            pool, clinical = pool[None], clinical[None]
        for k in ks:
            check_k(k, pool.shape[1])
        chosen = [self.choose(p, c, ks) for p, c in zip(pool, clinical, strict=True)]
        stacked = {k: np.stack([each[k] for each in chosen]).astype(np.int64) for k in ks}
        return stacked if batched else {k: indices[0] for k, indices in stacked.items()}

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, tuple[NDArray[Any], ...] | None]:
        """Choose ``self.k`` images; the signature is Stable-Baselines3's."""
        return self.select(observation, [self.k], deterministic)[self.k], state
