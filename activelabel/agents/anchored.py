"""The anchored selector: clustering says where to look, a network which image to take there.

A selector that takes the K best images of a pool learns the conditions that it is trained on; on others it can be worse
than clustering. This one keeps the coverage of clustering and learns what clustering cannot know: which of several
neighbours is worth a label.

1. K-Medoids, the package's own baseline, splits the pool of N images into C clusters, ``C = ceil(clusters_share K)``,
   at least 1. The medoids are those that :class:`~activelabel.baselines.KMedoids` would label; every other image goes
   to its nearest one.
2. A per-image MLP with the pool's mean and maximum (:mod:`activelabel.agents.mlp`) gives image i a score s_i. It sees
   the image's vector and six numbers without a scale: the logarithm of its cluster's size over the mean size N / C, and
   its distances to its medoid and to its 1st, 5th, 20th and 50th neighbour in the pool (the last one, where there are
   fewer) over the median distance of two images of the pool.
3. The logit is ``l_i = s_i - anchor d_i``, d_i being the distance to the medoid among these numbers.
4. One image is drawn from each cluster with the softmax of the logits of its images; the other K - C images, if any,
   are drawn one after the other from all that are left, in proportion to ``exp(l_i)``.

The log-probability of a selection is exact: the sum of C terms ``l_i - logsumexp(l over the cluster)``, and of the
Plackett-Luce terms of the other images. Deterministically it is the image of the largest logit of each cluster, and the
largest of what is left.

The prototypes of ``SelectiveLabel-v0`` judge by angles, and clusters of angles can be the better ones: with
``distance="cosine"`` the images are scaled to unit length before they are clustered and their distances taken. The
network sees them as they are.

Two settings lead from clustering to free choice. ``anchor`` is how much score a step away from the medoid has to be
worth: as it grows the selection becomes that of K-Medoids. ``clusters_share`` is which share of the K images is bound
to a cluster: with 1 all are, with a small one a single image is, and with ``anchor=0`` as well the selection is the
Plackett-Luce draw of K images of the pool that the other policies make.

Clusters depend on the pool and C alone, so that all selections of a task share one clustering, and a task that comes
again (in training, and in every validation) finds it in a cache of limited size. Any K and N at any time; what is
costly, the distances of all pairs of images, grows with N squared.

::

    python train.py --selector anchored --hidden 64
    python train.py --selector anchored --hidden 64 --anchor-distance cosine
    python train.py --selector gated-anchored --hidden 64 --anchor-distance cosine
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.agents.arguments import check_anchor
from activelabel.agents.gated import GatedSelector
from activelabel.agents.mlp import MLPSelector
from activelabel.agents.policies import Selector, SelectorPolicy
from activelabel.agents.selection import SelectionRule, gumbel, log_prob_in_order, top
from activelabel.baselines import KMedoids
from activelabel.data.cohort import IntArray

NEIGHBOURS = (1, 5, 20, 50)
"""Which neighbours of an image the network is told the distances of."""

CACHE_BYTES = 2**26
"""Memory of the clusterings that a policy keeps; 64 MiB are some ten thousand pools of 200 images."""

_MEDOID = 1
"""Where the distance to the medoid stands among the extra numbers; before it is the size, after it the neighbours."""


# -- clusters ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of a pool.

    Parameters
    ----------
    cluster: int32 ``(N,)``, the cluster of each image, 0 to C - 1 in the pool's order of their medoids; none is empty.
    extra: float32 ``(N, 6)``, what the network is told of each image; see the module.
    """

    cluster: NDArray[np.int32]
    extra: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.cluster.nbytes + self.extra.nbytes


def cluster_pool(pool: NDArray[np.float32], c: int) -> Clustering:
    """Split a pool around the medoids that K-Medoids chooses.

    Parameters
    ----------
    pool: float32 ``(N, d)``.
    c: number of clusters, 1 to N.
    """
    return cluster_around(pool, np.sort(KMedoids(c).choose(pool, np.zeros((len(pool), 0), np.float32), [c])[c]))


def cluster_around(pool: NDArray[np.float32], medoids: IntArray) -> Clustering:
    """Split a pool around some of its images: every image goes to the nearest of them, Euclidean.

    Parameters
    ----------
    pool: float32 ``(N, d)``.
    medoids: int64 ``(C,)``, different images.
    """
    n, c = len(pool), len(medoids)
    distances = _relative_distances(pool)
    cluster = distances[:, medoids].argmin(axis=1).astype(np.int32)
    cluster[medoids] = np.arange(c)  # of identical images several can be medoids: each keeps its cluster
    sizes = np.bincount(cluster, minlength=c)
    orders = [min(order, n - 1) for order in NEIGHBOURS]
    nearest = np.sort(distances, axis=1)[:, orders]  # the 0th is the image itself
    to_medoid = distances[np.arange(n), medoids[cluster]]
    extra = np.column_stack([np.log(sizes[cluster] * c / n), to_medoid, nearest])
    return Clustering(cluster, extra.astype(np.float32))


def _relative_distances(pool: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distances ``(N, N)`` of all images over their median.

    Where more than half of the pairs are identical it is over their mean; where all are, every distance is 0.
    """
    # From the first image, so that identical images far from the origin do not differ by rounding.
    points = torch.from_numpy(pool.astype(np.float64) - pool[0].astype(np.float64))
    distances: NDArray[np.float64] = torch.cdist(points, points).numpy()
    distances[distances < 1e-6 * distances.max()] = 0
    pairs = distances[np.tri(len(pool), k=-1, dtype=bool)]
    if not pairs.any():
        return distances
    scale = float(np.median(pairs))
    distances /= scale if scale > 0 else pairs.mean()
    return distances


class ClusterCache:
    """Clusterings by the content of the pool; those that were not asked for the longest make room for new ones.

    Parameters
    ----------
    limit: memory in bytes.
    compute: what makes one of a pool and a number; what it returns has ``nbytes``.
    """

    def __init__(
        self, limit: int = CACHE_BYTES, compute: Callable[[NDArray[np.float32], int], Any] = cluster_pool
    ) -> None:
        self.limit = limit
        self.compute = compute
        self.nbytes = 0
        """Memory in use."""
        self.hits = 0
        """Clusterings that were found."""
        self.misses = 0
        """Clusterings that were made."""
        self._kept: OrderedDict[tuple[bytes, tuple[int, ...], int], Any] = OrderedDict()

    def get(self, pool: NDArray[np.float32], c: int) -> Any:
        """Return what is made of a pool float32 ``(N, d)`` and ``c``, by default its :class:`Clustering`."""
        key = (hashlib.blake2b(np.ascontiguousarray(pool).data, digest_size=16).digest(), pool.shape, c)
        found = self._kept.get(key)
        if found is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return found
        self.misses += 1
        made = self.compute(pool, c)
        self._kept[key] = made
        self.nbytes += made.nbytes
        while self.nbytes > self.limit:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes
        return made


def number_of_clusters(k: int, share: float) -> int:
    """Return C, ``ceil(share K)`` and at least 1."""
    return max(1, math.ceil(share * k - 1e-9))  # .55 x 100 is not above 55


# -- the rule ---------------------------------------------------------------------------------------------------------


class OnePerCluster:
    """Draws one image of each cluster, and then the rest without replacement from the whole pool.

    A :class:`~activelabel.agents.selection.SelectionRule`. Image j of a selection, j < C, is of cluster j.

    Parameters
    ----------
    cluster: int64 ``(B, N)``, the cluster of each image, 0 to C - 1, none empty.
    c: number of clusters, C.
    """

    def __init__(self, cluster: Tensor, c: int) -> None:
        self.cluster = cluster
        self.c = c

    def sample(self, logits: Tensor, k: int, samples: int, generator: torch.Generator) -> Tensor:
        """Return int64 ``(B, M, K)``, K from C to N, drawn with the CPU generator, whatever the device.

        The largest of the logits of a cluster, each with Gumbel noise, is a draw from their softmax. The other images
        need noise of their own: what is known of the first, that it did not win, would change the distribution.
        """
        batch, n = logits.shape
        rounds = 1 if k == self.c else 2
        noise = gumbel((batch, samples, rounds, n), generator, logits)
        keys = logits.detach()[:, None, None, :] + noise
        return self._largest(keys[:, :, 0], keys[:, :, -1], k)

    def log_prob(self, logits: Tensor, selections: Tensor) -> Tensor:
        """Return ``(B, M)``, the log-probability of each ordered selection; minus infinity where image j is not of
        cluster j."""
        batch, samples, k = selections.shape
        first = selections[..., : self.c]
        totals = self._logsumexp(logits)[:, None, :]
        chosen = logits[:, None, :].expand(batch, samples, -1).gather(-1, first)
        found = (chosen - totals).sum(dim=-1)
        if k > self.c:
            found = found + log_prob_in_order(logits, selections, self.c)
        clusters = self.cluster[:, None, :].expand(batch, samples, -1).gather(-1, first)
        wrong = (clusters != torch.arange(self.c, device=clusters.device)).any(dim=-1)
        return found.masked_fill(wrong, float("-inf"))

    def best(self, logits: Tensor, k: int) -> Tensor:
        """Return int64 ``(B, K)``, the image of the largest logit of each cluster, then the largest of what is left.

        Of equal logits it is the first in the pool.
        """
        keys = logits.detach()[:, None, :]
        return self._largest(keys, keys, k)[:, 0]

    def entropy(self, logits: Tensor) -> Tensor:
        """Return ``(B,)``, the mean over the clusters of the entropy of a draw from each, in nats."""
        log_probabilities = logits - self._logsumexp(logits).gather(-1, self.cluster)
        return -(log_probabilities.exp() * log_probabilities).sum(dim=-1) / self.c

    def _largest(self, keys: Tensor, others: Tensor, k: int) -> Tensor:
        """Return where the largest key ``(B, M, N)`` of each cluster is, and of the rest the largest of ``others``."""
        if not self.c <= k <= keys.shape[-1]:
            raise ValueError(f"k={k} must be from the {self.c} clusters to the {keys.shape[-1]} images of the pool.")
        # By key and then, keeping that order, by cluster: the first of each cluster is its largest.
        order = keys.sort(dim=-1, descending=True, stable=True).indices
        clusters = self.cluster[:, None, :].expand(keys.shape).gather(-1, order)
        order = order.gather(-1, clusters.sort(dim=-1, stable=True).indices)
        sizes = torch.zeros(len(keys), self.c, dtype=torch.int64, device=keys.device)
        sizes = sizes.scatter_add_(-1, self.cluster, torch.ones_like(self.cluster))
        starts = sizes.cumsum(dim=-1) - sizes
        first = order.gather(-1, starts[:, None, :].expand(-1, keys.shape[1], -1))
        if k == self.c:
            return first
        left = others.scatter(-1, first, float("-inf"))
        return torch.cat([first, top(left, k - self.c)], dim=-1)

    def _logsumexp(self, logits: Tensor) -> Tensor:
        """Return ``(B, C)``, ``logsumexp`` of the logits ``(B, N)`` of each cluster."""
        largest = logits.detach().new_full((len(logits), self.c), float("-inf"))
        largest = largest.scatter_reduce(-1, self.cluster, logits.detach(), "amax")
        terms = (logits - largest.gather(-1, self.cluster)).exp()
        return largest + torch.zeros_like(largest).scatter_add(-1, self.cluster, terms).log()


# -- the policy -------------------------------------------------------------------------------------------------------


class AnchoredPolicy(SelectorPolicy):
    """The anchored selector as a Stable-Baselines3 policy; see the module.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.policies.SelectorPolicy`; the first of ``inputs`` is what is
        clustered.
    anchor: what the score loses for each median distance between image and medoid, at least 0.
    clusters_share: share of the K images that are bound to a cluster, above 0, at most 1.
    distance: ``"euclidean"``, or ``"cosine"``: clusters and distances are those of the images scaled to unit length.

    Raises
    ------
    SettingsError: if a value is out of range.
    """

    selector_class: ClassVar[type[Selector]] = MLPSelector
    own_rule = True
    n_extra = 2 + len(NEIGHBOURS)

    def __init__(
        self,
        *arguments: Any,
        anchor: float = 3.0,
        clusters_share: float = 1.0,
        distance: str = "euclidean",
        **named: Any,
    ) -> None:
        check_anchor(anchor, clusters_share, distance)
        super().__init__(*arguments, **named)
        self.anchor = anchor
        self.clusters_share = clusters_share
        self.distance = distance
        self.cache = ClusterCache()

    def clusters(self, observation: dict[str, Tensor], k: int) -> tuple[Tensor, OnePerCluster]:
        """Return what the network is told besides the images, float32 ``(B, N, 6)``, and the rule of the clusters.

        Parameters
        ----------
        observation: tensors ``(B, N, f)``.
        k: number of images to choose, 1 to N.
        """
        c = number_of_clusters(k, self.clusters_share)
        images = observation[self.inputs[0]]
        if self.distance == "cosine":  # of unit vectors the Euclidean distance says what the angle says
            images = torch.nn.functional.normalize(images, dim=-1)
        found = [self.cache.get(pool, c) for pool in images.cpu().numpy()]
        extra = torch.from_numpy(np.stack([each.extra for each in found])).to(self.device)
        cluster = torch.from_numpy(np.stack([each.cluster for each in found])).to(self.device).long()
        return extra, OnePerCluster(cluster, c)

    def forward(self, observation: dict[str, Tensor], extra: Tensor) -> Tensor:  # type: ignore[override]
        """Return logits ``(B, N)`` of an observation of tensors ``(B, N, f)`` and what :meth:`clusters` says of it."""
        scores: Tensor = self.selector(torch.cat([self.images(observation), extra], dim=-1))
        return scores - self.anchor * extra[..., _MEDOID]

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`; the agent's rule has no part in it."""
        found: dict[int, tuple[Tensor, SelectionRule]] = {}
        for k in ks:
            extra, own = self.clusters(observation, k)
            found[k] = self(observation, extra), own
        return found


class GatedAnchoredPolicy(AnchoredPolicy):
    """The anchored selector with the gated units of :mod:`activelabel.agents.gated` in place of the MLP.

    Parameters
    ----------
    *arguments, **named: see :class:`AnchoredPolicy`.
    """

    selector_class = GatedSelector
