"""Selectors that were tried beside those of the package: other clusters, disturbed training, attention, pruning.

All give exact log-probabilities of what was drawn, and take their random numbers from streams of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from activelabel.agents.anchored import (
    AnchoredPolicy,
    ClusterCache,
    Clustering,
    OnePerCluster,
    cluster_around,
    cluster_pool,
)
from activelabel.agents.mlp import MLPPolicy, MLPSelector
from activelabel.agents.policies import Selector, SelectorPolicy, draw_weights
from activelabel.agents.selection import SelectionRule, WithoutReplacement, entropy_of_a_draw, log_prob_in_order, top
from activelabel.baselines import FacilityLocation, KMedoids, OneShotKCenter, OneShotTypiClust
from activelabel.baselines.base import Baseline
from activelabel.baselines.kmedoids import unit
from activelabel.data.cohort import IntArray
from activelabel.seeding import torch_stream

FloatArray = NDArray[np.float32]

COMPONENTS = 32
"""Leading principal components of the training images that are rotated."""

ROTATIONS = 8
"""Fixed rotations over which the logits are averaged when nothing is trained."""

HEADS = 4
"""Of the attention; the units of the layers are a multiple of it."""

SHARED_BYTES = 2**28
"""Memory of the clusterings of one kind; those of six trainings of 160 updates take two thirds of it."""

FORBIDDEN = -1e9
"""Logit of an image that may not be chosen; not minus infinity, so that entropies are numbers."""


# -- clusters of other kinds ------------------------------------------------------------------------------------------


def chosen_by(baseline: type[Baseline], pool: FloatArray, c: int) -> IntArray:
    """Return the ``c`` images that a baseline chooses of a pool, in the order of the pool."""
    return np.sort(baseline(c).choose(pool, np.zeros((len(pool), 0), np.float32), [c])[c])


def cells(baseline: type[Baseline], pool: FloatArray, c: int) -> Clustering:
    """Split a pool around the images that a baseline chooses."""
    return cluster_around(pool, chosen_by(baseline, pool, c))


_KINDS: dict[str, Callable[[FloatArray, int], Clustering]] = {
    "k-medoids": cluster_pool,
    "k-medoids, cosine": lambda pool, c: cluster_pool(unit(pool), c),
    "k-center": partial(cells, OneShotKCenter),
    "typiclust": partial(cells, OneShotTypiClust),
    "facility location": partial(cells, FacilityLocation),
}

KINDS = {name: ClusterCache(SHARED_BYTES, compute) for name, compute in _KINDS.items()}
"""Clusterings of a pool by name, shared by all policies of a process: their tasks are the same."""

MEDOIDS = ClusterCache(SHARED_BYTES, partial(chosen_by, KMedoids))
"""The images that K-Medoids chooses of a pool."""


class ClustersPolicy(AnchoredPolicy):
    """The anchored selector with clusters of other kinds, one or several.

    Of several, one is drawn at random for each task of the training, whatever the weights: the log-probability is that
    of a draw from it. Otherwise the network scores all of them, and that one is taken whose best images, one a cluster,
    have the largest sum of logits. (Sums of log-probabilities would favour clusters of a single image, whose choice is
    certain.)

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.anchored.AnchoredPolicy`.
    kinds: names out of :data:`KINDS`.
    """

    def __init__(self, *arguments: Any, kinds: Sequence[str] = ("k-medoids",), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.kinds = [KINDS[kind].get for kind in kinds]
        self._rng = torch_stream(named.get("init_seed", 0), "clusterings")

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        pools = observation[self.inputs[0]].cpu().numpy()
        found: dict[int, tuple[Tensor, SelectionRule]] = {}
        for k in ks:
            if self.training:
                drawn = torch.randint(len(self.kinds), (len(pools),), generator=self._rng).tolist()
                each = [self.kinds[i](pool, k) for i, pool in zip(drawn, pools, strict=True)]
                found[k] = self._clustered(observation, each, k)
                continue
            options = [[kind(pool, k) for pool in pools] for kind in self.kinds]
            totals = []
            for option in options:
                logits, own = self._clustered(observation, option, k)
                totals.append(logits.gather(-1, own.best(logits, k)).sum(dim=-1))
            best = torch.stack(totals).argmax(dim=0).tolist()
            found[k] = self._clustered(observation, [options[i][b] for b, i in enumerate(best)], k)
        return found

    def _clustered(
        self, observation: dict[str, Tensor], found: Sequence[Clustering], k: int
    ) -> tuple[Tensor, OnePerCluster]:
        extra = torch.from_numpy(np.stack([each.extra for each in found])).to(self.device)
        cluster = torch.from_numpy(np.stack([each.cluster for each in found])).to(self.device).long()
        return self(observation, extra), OnePerCluster(cluster, k)


# -- what disturbs the training ---------------------------------------------------------------------------------------


class DisturbedPolicy(MLPPolicy):
    """The MLP, which in training reads numbers with noise, or without some of them.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.mlp.MLPPolicy`.
    noise: standard deviation of Gaussian noise on each number.
    dropout: share of the numbers that are 0; the others are larger by as much.
    """

    def __init__(self, *arguments: Any, noise: float = 0.0, dropout: float = 0.0, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.noise, self.dropout = noise, dropout
        self._rng = torch_stream(named.get("init_seed", 0), "disturbance")

    def images(self, observation: dict[str, Tensor]) -> Tensor:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        images = super().images(observation)
        if self.training and self.noise:
            images = images + self.noise * torch.randn(images.shape, generator=self._rng).to(images.device)
        if self.training and self.dropout:
            kept = torch.rand(images.shape, generator=self._rng).to(images.device) >= self.dropout
            images = images * kept / (1 - self.dropout)
        return images


def orthogonal(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Return ``n`` random orthogonal matrices ``(n, d, d)``, uniformly distributed."""
    q, r = torch.linalg.qr(torch.randn(n, d, d, generator=generator))
    # QR leaves the signs open; with those of R's diagonal the distribution is uniform (Mezzadri 2007).
    found: Tensor = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return found


class ComponentsSelector(MLPSelector):
    """The MLP for the leading principal components.

    Parameters
    ----------
    input_dim: numbers an image before they are projected.
    hidden: units of each of the two hidden layers.
    """

    def __init__(self, input_dim: int, hidden: int) -> None:
        super().__init__(min(COMPONENTS, input_dim), hidden)


class RotatedPolicy(SelectorPolicy):
    """The MLP on the leading principal components of the training images, which are rotated at random for each task.

    The components are not whitened: a rotation leaves the angles and distances as they are, by which prototypes judge.
    When nothing is trained the logits are the mean over a few rotations that stay the same.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.policies.SelectorPolicy`.
    basis: the components, ``(d, c)``.
    rotate: False: they are read as they are, for comparison.
    """

    selector_class = ComponentsSelector

    def __init__(self, *arguments: Any, basis: FloatArray, rotate: bool = True, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._basis, self.rotate = torch.from_numpy(basis), rotate
        seed = named.get("init_seed", 0)
        self._rng = torch_stream(seed, "rotations")
        self._fixed = orthogonal(ROTATIONS, basis.shape[1], torch_stream(seed, "rotations", "fixed"))

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        images = self.images(observation) @ self._basis.to(self.device)
        if not self.rotate:
            logits: Tensor = self.selector(images)
        elif self.training:
            logits = self.selector(images @ orthogonal(len(images), images.shape[-1], self._rng).to(self.device))
        else:
            each = [self.selector(images @ rotation) for rotation in self._fixed.to(self.device)]
            logits = torch.stack(each).mean(dim=0)
        return logits


# -- attention --------------------------------------------------------------------------------------------------------


class SummarySelector(Selector):
    """Clusters attend to each other, and an image is scored by its own numbers and by its cluster's.

    A cluster is summed up by the means of its images' numbers, which are their embeddings and what the anchored
    selector is told besides: among it the cluster's size and the distances to the medoid.

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of the layers.
    """

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        self.token = nn.Linear(input_dim, hidden)
        self.attention = nn.MultiheadAttention(hidden, HEADS, batch_first=True)
        self.of_image = nn.Linear(input_dim, hidden)
        self.of_token = nn.Linear(hidden, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.logit = nn.Linear(hidden, 1)

    def forward(self, images: Tensor, cluster: Tensor) -> Tensor:  # type: ignore[override]
        """Return logits ``(B, N)`` of float32 ``(B, N, input_dim)`` whose clusters are int64 ``(B, N)``, none empty."""
        belongs = nn.functional.one_hot(cluster).to(images.dtype)
        means = belongs.transpose(1, 2) @ images / belongs.sum(dim=1)[:, :, None]
        tokens = torch.relu(self.token(means))
        tokens = self.of_token(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        own = tokens.gather(1, cluster[:, :, None].expand(-1, -1, tokens.shape[-1]))
        first = torch.relu(self.of_image(images) + own)
        logits: Tensor = self.logit(torch.relu(self.second(first))).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's linear layers do, from the given generator."""
        for layer in (self.token, self.of_image, self.of_token, self.second, self.logit):
            draw_weights(layer, layer.in_features, generator)
        draw_weights(self.attention, self.attention.embed_dim, generator)


class AttentionPolicy(AnchoredPolicy):
    """Self-attention over the clusters of K-Medoids; the K best images of the pool, or one of each cluster.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.anchored.AnchoredPolicy`.
    one_per_cluster: take the best image of each cluster.
    """

    selector_class = SummarySelector

    def __init__(self, *arguments: Any, one_per_cluster: bool = False, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.one_per_cluster = one_per_cluster

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        found: dict[int, tuple[Tensor, SelectionRule]] = {}
        for k in ks:
            extra, own = self.clusters(observation, k)
            scores = self.selector(torch.cat([self.images(observation), extra], dim=-1), own.cluster)
            found[k] = scores - self.anchor * extra[..., 1], own if self.one_per_cluster else rule
        return found


# -- twice as many, and pruning ---------------------------------------------------------------------------------------


class OfMedoidsPolicy(MLPPolicy):
    """The MLP, which chooses its K images of 2K medoids.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.mlp.MLPPolicy`.
    """

    own_rule = True

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        logits, pools = self(observation), observation[self.inputs[0]].cpu().numpy()
        found: dict[int, tuple[Tensor, SelectionRule]] = {}
        for k in ks:
            medoids = np.stack([MEDOIDS.get(pool, min(2 * k, len(pool))) for pool in pools])
            barred = torch.ones_like(logits, dtype=torch.bool)
            barred.scatter_(-1, torch.from_numpy(medoids).to(self.device), False)
            found[k] = logits.masked_fill(barred, FORBIDDEN), WithoutReplacement()
        return found


class Pruned:
    """Draws 2K images without replacement, of which the K medoids are chosen; of one pass, with what it drew last.

    A :class:`~activelabel.agents.selection.SelectionRule`. What is drawn, and has a log-probability, are the 2K images:
    pruning them depends on nothing that is learned, so that the gradient is that of the reward.

    Parameters
    ----------
    pools: float32 ``(B, N, d)``, whose Euclidean distances count.
    """

    def __init__(self, pools: FloatArray) -> None:
        self._pools = pools
        self._drawn: Tensor | None = None

    def sample(self, logits: Tensor, k: int, samples: int, generator: torch.Generator) -> Tensor:
        """Return int64 ``(B, M, K)``, drawn with the CPU generator, whatever the device."""
        self._drawn = WithoutReplacement().sample(logits, min(2 * k, logits.shape[-1]), samples, generator)
        return self._pruned(self._drawn, k)

    def log_prob(self, logits: Tensor, selections: Tensor) -> Tensor:
        """Return ``(B, M)``, the log-probability of the 2K images that the last selections were pruned from."""
        if self._drawn is None or self._drawn.shape[:2] != selections.shape[:2]:
            raise ValueError("these selections were not drawn by this rule.")
        return log_prob_in_order(logits, self._drawn)

    def best(self, logits: Tensor, k: int) -> Tensor:
        """Return int64 ``(B, K)``, the medoids of the 2K images of the largest logits."""
        return self._pruned(top(logits, min(2 * k, logits.shape[-1]))[:, None], k)[:, 0]

    def entropy(self, logits: Tensor) -> Tensor:
        """Return ``(B,)``, the entropy of a first draw in nats."""
        return entropy_of_a_draw(logits)

    def _pruned(self, wide: Tensor, k: int) -> Tensor:
        kept = [
            [each[chosen_by(KMedoids, pool[each], k)] for each in of_pool]
            for pool, of_pool in zip(self._pools, wide.cpu().numpy(), strict=True)
        ]
        return torch.from_numpy(np.array(kept)).to(wide.device)


class PrunedPolicy(MLPPolicy):
    """The MLP, of whose 2K images K-Medoids leaves K.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.mlp.MLPPolicy`.
    """

    own_rule = True

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        logits, pools = self(observation), observation[self.inputs[0]].cpu().numpy()
        return {k: (logits, Pruned(pools)) for k in ks}
