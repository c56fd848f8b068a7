"""Query strategies that choose a batch whose images differ from each other: k-center, BADGE and TypiClust."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.pool import Observation, PoolBaseline
from activelabel.data.cohort import IntArray

FloatingArray = NDArray[np.floating[Any]]


def spread(
    start: FloatingArray,
    free: NDArray[np.bool_],
    n: int,
    distances: Callable[[IntArray], FloatingArray],
    pick: Callable[[FloatingArray, NDArray[np.bool_], int], IntArray],
) -> IntArray:
    """Choose one candidate after the other by its squared distance to the nearest centre, the chosen being centres.

    Parameters
    ----------
    start: ``(B, M)``, squared distances to the centres that there are; infinite where there is none.
    free: bool ``(B, M)``, which candidates may be chosen.
    n: how many to choose, N.
    distances: returns the squared distances ``(B, M)`` to one candidate of each pool, ``(B,)``.
    pick: ``pick(nearest, free, turn)`` returns the next candidate of each pool, ``(B,)``; what it returns for a pool
        of which nothing is free has no effect.

    Returns
    -------
    int64 ``(B, N)``, in the order of choice, -1 where none is left.
    """
    rows, nearest, free = np.arange(len(free)), start, free.copy()
    chosen = np.full((len(free), n), -1, dtype=np.int64)
    for turn in range(min(n, free.shape[1])):
        at = pick(nearest, free, turn)
        chosen[:, turn] = np.where(free.any(axis=1), at, -1)
        free[rows, at] = False
        if turn + 1 < n:
            nearest = np.minimum(nearest, distances(at))
    return chosen


def squared_norms(x: FloatingArray) -> FloatingArray:
    """Return ``(...)`` of ``(..., d)``."""
    norms: FloatingArray = np.einsum("...d,...d->...", x, x)
    return norms


def products_with(x: FloatingArray, at: IntArray) -> FloatingArray:
    """Return the inner products ``(B, M)`` of all rows of ``x`` ``(B, M, d)`` with row ``at[b]`` of each."""
    products: FloatingArray = (x @ x[np.arange(len(x)), at][:, :, None])[:, :, 0]
    return products


class KCenter(PoolBaseline):
    """Chooses the candidate farthest from all labelled images, again and again (coreset; Sener & Savarese 2018).

    It is their greedy 2-approximation of the k-center problem, with Euclidean distances in latent space.
    """

    name = "k-center"
    observes = ("embeddings", "labelled")

    def choose(self, observation: Observation) -> IntArray:
        """See :meth:`PoolBaseline.choose`."""
        x, centres, there = observation["embeddings"], observation["labelled"], observation["labels"] >= 0
        norms = squared_norms(x)
        terms = x @ centres.transpose(0, 2, 1)
        terms *= -2
        terms += np.where(there, squared_norms(centres), np.inf)[:, None, :]
        return spread(
            terms.min(axis=2) + norms,
            observation["action_mask"],
            self.batch,
            lambda at: norms + norms[np.arange(len(at)), at][:, None] - 2 * products_with(x, at),
            lambda nearest, free, _: np.where(free, nearest, -np.inf).argmax(axis=1),
        )


class Badge(PoolBaseline):
    """Chooses by k-means++ among the gradients that the candidates would give (BADGE; Ash et al. 2020).

    The gradient embedding of an image x with class probabilities p, as if its most likely class were true, is the
    outer product of ``p - onehot(argmax p)`` and x: that of the weights of a linear layer, without the bias, as in the
    released code. Like there, the first choice is the longest gradient; each further one is drawn with a probability
    proportional to the squared distance to the nearest one chosen. Inner products of outer products are products of
    inner products, so no embedding of C times d numbers is made.
    """

    name = "badge"
    observes = ("probabilities", "embeddings")

    def choose(self, observation: Observation) -> IntArray:
        """See :meth:`PoolBaseline.choose`."""
        x, errors = observation["embeddings"], output_errors(observation["probabilities"])
        norms = squared_norms(errors) * squared_norms(x)
        numbers = self._rng.random((len(x), self.batch))

        def pick(nearest: FloatingArray, free: NDArray[np.bool_], turn: int) -> IntArray:
            if turn == 0:
                longest: IntArray = np.where(free, norms, -1).argmax(axis=1)
                return longest
            weights = np.where(free, nearest, 0)
            return drawn(np.where(weights.any(axis=1, keepdims=True), weights, free), numbers[:, turn])

        return spread(
            np.full(norms.shape, np.inf),
            observation["action_mask"],
            self.batch,
            lambda at: gradient_distances(errors, x, norms, at),
            pick,
        )


def output_errors(probabilities: FloatingArray) -> NDArray[np.float64]:
    """Return ``p - onehot(argmax p)``, float64 ``(..., C)``."""
    likely = probabilities.argmax(axis=-1)[..., None]
    errors = probabilities.astype(np.float64)
    np.put_along_axis(errors, likely, np.take_along_axis(errors, likely, axis=-1) - 1, axis=-1)
    return errors


def gradient_distances(
    errors: NDArray[np.float64], x: FloatingArray, norms: FloatingArray, at: IntArray
) -> FloatingArray:
    """Return squared distances ``(B, M)`` of the gradient embeddings to that of candidate ``at[b]`` of each pool.

    Parameters
    ----------
    errors: ``(B, M, C)`` and ``x``: ``(B, M, d)``, whose outer products are the gradient embeddings.
    norms: ``(B, M)``, squared norms of the gradient embeddings.
    at: int64 ``(B,)``.
    """
    own = norms[np.arange(len(at)), at][:, None]
    return np.maximum(norms + own - 2 * products_with(errors, at) * products_with(x, at), 0)


def drawn(weights: FloatingArray, numbers: NDArray[np.float64]) -> IntArray:
    """Return one index of each row, int64 ``(B,)``, with probabilities proportional to weights ``(B, M)``.

    ``numbers`` ``(B,)`` are uniform in 0 to 1; an index of weight 0 is not returned unless all of a row are 0.
    """
    sums = np.cumsum(weights, axis=1, dtype=np.float64)
    total = sums[:, -1]
    below = np.minimum(numbers * total, np.nextafter(total, 0))
    chosen: IntArray = (sums > below[:, None]).argmax(axis=1)
    return chosen


MAX_CLUSTERS = 500
NEIGHBOURS = 20
SMALL = 5
_EXACT = 50
_MANY = 5000
_STARTS = 5
_ITERATIONS = 7


class TypiClust(PoolBaseline):
    """Chooses the most typical image of clusters in which little is labelled (Hacohen et al. 2022, TPC_RP).

    Labelled images and candidates are clustered by k-means into as many clusters as there will be labels, at most 500.
    More than 50 clusters of more than 5000 images, which the released code finds in mini-batches of 5000, are found by
    seven of k-means' iterations in single precision that start from k-means++, one draw a centre, on five images a
    cluster. From the cluster with the fewest labelled images, the largest among those, the candidate is chosen whose
    mean distance to its 20 nearest neighbours (half the cluster if it has fewer than 40) is smallest; then from the
    next cluster. As in the released code, neighbours are looked for among the images that are not labelled. There,
    clusters of five images or fewer are left out; here they come last, because small pools may have no others.
    """

    name = "typiclust"
    observes = ("embeddings", "labelled")

    def choose(self, observation: Observation) -> IntArray:
        """See :meth:`PoolBaseline.choose`."""
        from threadpoolctl import threadpool_limits

        free, there = observation["action_mask"], observation["labels"] >= 0
        seeds = self._rng.integers(2**31, size=len(free))
        chosen = np.full((len(free), self.batch), -1, dtype=np.int64)
        with threadpool_limits(1):  # threads add up the clusters' means in any order
            for b, (x, labelled) in enumerate(zip(observation["embeddings"], observation["labelled"], strict=True)):
                candidates, known = np.flatnonzero(free[b]), labelled[there[b]]
                found = typical(x[candidates], known, self.batch, int(seeds[b]))
                chosen[b, : len(found)] = candidates[found]
        return chosen


def typical(candidates: FloatingArray, labelled: FloatingArray, n: int, seed: int) -> IntArray:
    """Choose from one pool as :class:`TypiClust` does.

    Parameters
    ----------
    candidates: ``(m, d)``, none of them labelled.
    labelled: ``(l, d)``.
    n: how many to choose.
    seed: of the clustering.

    Returns
    -------
    int64 ``(min(n, m),)``, different indices into ``candidates``.
    """
    if not len(candidates):
        return np.zeros(0, dtype=np.int64)
    x = np.concatenate([candidates, labelled])
    cluster = clusters(x, min(len(labelled) + n, MAX_CLUSTERS, len(x)), seed)
    sizes = np.bincount(cluster)
    counts = np.bincount(cluster[len(candidates) :], minlength=len(sizes))
    left = cluster[: len(candidates)].copy()
    order = np.lexsort((-sizes, counts, sizes <= SMALL))
    chosen: list[int] = []
    while len(chosen) < min(n, len(candidates)):
        for number in order:
            members = np.flatnonzero(left == number)
            if len(members) and len(chosen) < n:
                chosen.append(int(members[typicality(x[members].astype(np.float64)).argmax()]))
                left[chosen[-1]] = -1
    return np.array(chosen, dtype=np.int64)


def clusters(x: FloatingArray, k: int, seed: int) -> IntArray:
    """Return the cluster of each image, ``(n,)``, from k-means with ``k`` clusters as :class:`TypiClust` says;
    identical images may leave some empty."""
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    if k > _EXACT and len(x) > _MANY:
        rng = np.random.RandomState(seed)  # scikit-learn takes no other
        rows = rng.choice(len(x), min(_STARTS * k, len(x)), replace=False)
        start = kmeans_plusplus(x[rows].astype(np.float64), k, random_state=rng, n_local_trials=1)[0]
        x = x.astype(np.float32, copy=False)
        model = KMeans(k, init=start.astype(np.float32), n_init=1, max_iter=_ITERATIONS)
    else:
        # scikit-learn is slower with float32 while few images make it start in all of them.
        model, x = KMeans(k, n_init=1, random_state=seed), x.astype(np.float64, copy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different images than clusters, or not settled
        found: IntArray = model.fit_predict(x)
    return found


def typicality(x: FloatingArray) -> FloatingArray:
    """Return the inverse mean distance of each image ``(n, d)`` to its nearest neighbours, ``(n,)``; see
    :class:`TypiClust`."""
    from sklearn.metrics import euclidean_distances

    k = min(NEIGHBOURS, len(x) // 2)
    if k == 0:
        return np.ones(len(x))
    distances = euclidean_distances(x)
    np.fill_diagonal(distances, np.inf)
    inverse: FloatingArray = 1 / (np.partition(distances, k - 1, axis=1)[:, :k].mean(axis=1) + 1e-5)
    return inverse
