"""Strategies of ``SelectiveLabel-v0`` that cover the pool or stand for it, none of whose images is labelled yet.

They have no randomness of their own but that of TypiClust's clustering. Of images that are equally good the first in
the pool is chosen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.base import Baseline
from activelabel.baselines.diverse import FloatingArray, spread, squared_norms, typical
from activelabel.baselines.kmedoids import KMedoids, pair_distances
from activelabel.data.cohort import IntArray
from activelabel.seeding import stream

ROUNDING = 1e-6
"""Share of the largest distance below which two images are the same: what is left of it there is rounding."""

TIE = 1e-9
"""Share of the largest gain that facility location could make by which gains may differ and be equal."""

AHEAD = 0.95
"""Share of the best gain from which on gains are computed anew together: less work than one by one in small pools."""


class OneByOne(Baseline):
    """Chooses one image after the other, whatever K is: the first of those that it chooses for the largest K."""

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`; all K cost as much as the largest."""
        order = self.order(from_first(pool), max(ks, default=0))
        return {k: order[:k] for k in ks}

    @abstractmethod
    def order(self, x: NDArray[np.float64], n: int) -> IntArray:
        """Choose from one pool.

        Parameters
        ----------
        x: float64 ``(N, d)``, see :func:`from_first`.
        n: how many to choose.

        Returns
        -------
        int64 ``(n,)``, in the order of choice.
        """


class OneShotKCenter(OneByOne):
    """Chooses the image farthest from all chosen ones, again and again (coreset; Sener & Savarese 2018).

    It is their greedy 2-approximation of the k-center problem in Euclidean distance, without labelled images to begin
    with: the first is the image nearest to the mean of the pool.
    """

    name = "k-center"

    def order(self, x: NDArray[np.float64], n: int) -> IntArray:
        """See :meth:`OneByOne.order`."""

        def pick(nearest: FloatingArray, free: NDArray[np.bool_], turn: int) -> IntArray:
            far = nearest if turn else -squared_norms(x - x.mean(axis=0))[None]
            at: IntArray = np.where(free, far, -np.inf).argmax(axis=1)
            return at

        # Differences, not inner products: the distance of identical images is 0, not what rounding leaves of it.
        chosen = spread(
            np.full((1, len(x)), np.inf),
            np.ones((1, len(x)), dtype=bool),
            n,
            lambda at: squared_norms(x - x[at])[None],
            pick,
        )
        order: IntArray = chosen[0]
        return order


class Herding(OneByOne):
    """Chooses the image that brings the mean of the chosen ones nearest to the mean of the pool, again and again.

    It is kernel herding (Welling 2009; Chen et al. 2010) with the linear kernel, as the greedy minimisation of the
    maximum mean discrepancy and without replacement. Herding's own step, the largest inner product, is the same where
    all images have one length.
    """

    name = "herding"

    def order(self, x: NDArray[np.float64], n: int) -> IntArray:
        """See :meth:`OneByOne.order`."""
        mean = x.mean(axis=0)
        wanted, free = mean, np.ones(len(x), dtype=bool)
        chosen = np.zeros(n, dtype=np.int64)
        for turn in range(n):
            at = np.where(free, squared_norms(x - wanted), np.inf).argmin()
            chosen[turn], free[at] = at, False
            wanted = wanted + mean - x[at]  # (turn + 2) means of the pool less the sum of the chosen
        return chosen


class OneShotTypiClust(Baseline):
    """Chooses the most typical image of each of K clusters, the largest first (Hacohen et al. 2022, TPC_RP).

    Clusters and typicality are those of :class:`~activelabel.baselines.diverse.TypiClust`, with nothing labelled.

    Parameters
    ----------
    k, seed: see :class:`Baseline`; the seed starts k-means.
    """

    name = "typiclust"

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`; each K has clusters of its own."""
        from threadpoolctl import threadpool_limits

        seed = int(stream(self.seed, self.name).integers(2**31))
        with threadpool_limits(1):  # threads add up the clusters' means in any order
            return {k: typical(pool, pool[:0], k, seed) for k in ks}


class FacilityLocation(KMedoids):
    """Chooses the image that brings all images nearest to a chosen one, again and again.

    That maximises greedily ``sum_i max_{j in S} s_ij``, s being the largest distance of the pool less the Euclidean
    distance of two images: the submodular function of facility location (Wei et al. 2015), of which the greedy choice
    reaches at least 1 - 1/e of the best (Nemhauser et al. 1978), and K-Medoids' loss turned round. Gains that were
    large are computed anew first (Minoux 1978).

    Parameters
    ----------
    k, seed, limit: see :class:`~activelabel.baselines.kmedoids.KMedoids`, also for pools above ``limit``; the seed
        matters to those alone.
    """

    name = "facility-location"

    def __init__(self, k: int = 10, seed: int = 0, limit: int = 10_000) -> None:
        super().__init__(k, seed, limit=limit)

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`; up to ``limit`` images all K cost as much as the largest."""
        if len(pool) > self.limit:
            return super().choose(pool, clinical, ks)
        order = self._medoids(pair_distances(from_first(pool)), max(ks, default=0))
        return {k: order[:k] for k in ks}

    def _medoids(self, distances: NDArray[np.float64], k: int) -> IntArray:
        n, largest = len(distances), float(distances.max())
        distances[distances < ROUNDING * largest] = 0
        tie = TIE * n * largest
        nearest, free = np.full(n, largest), np.ones(n, dtype=bool)
        # Of a gain that is not fresh this is an upper bound: no image gains more than it did with fewer chosen.
        gains, fresh = n * largest - distances.sum(axis=1), np.ones(n, dtype=bool)
        chosen = np.zeros(k, dtype=np.int64)
        for turn in range(k):
            while True:
                best = gains[free].max()
                near = free & (gains >= best - tie)
                if best <= tie or fresh[near].all():
                    break
                stale = np.flatnonzero(free & ~fresh & (gains >= AHEAD * best - tie))
                gains[stale] = np.maximum(nearest - distances[stale], 0).sum(axis=1)
                fresh[stale] = True
            at = np.flatnonzero(near)[0]
            chosen[turn], free[at] = at, False
            nearest = np.minimum(nearest, distances[at])
            fresh[:] = False
        return chosen


def from_first(pool: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a pool ``(N, d)`` as seen from its first image, float64: what all images share costs no digits."""
    shifted: NDArray[np.float64] = pool.astype(np.float64) - pool[0]
    return shifted
