"""Momentum contrast: MoCo v2 (He et al. 2020; Chen et al. 2020).

Two views of one image shall have like features, views of different images unlike ones. A *query* is the feature of one
view by the network that is trained, its *key* that of the other view by a slow copy of the network, and the keys of
the last batches wait in a queue to be what the query must differ from::

    loss = -log( exp(q·k / T) / ( exp(q·k / T) + sum over the queue of exp(q·k' / T) ) )

Batch normalisation tells the network which views came in one batch, and with that which key is the right one: the loss
falls and nothing is learned. MoCo normalises on each of eight GPUs by itself and shuffles the keys between the GPUs. On
one device the same is had by sending the batch through the network in ``bn_splits`` parts, each normalised by its own
statistics, with the keys parted in another order than the queries. ``bn_splits=1`` leaves the leak open.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from activelabel.data.networks import build_network, drawn, last_linear, replace_layer
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream


class MoCo(nn.Module):
    """The network, its slow copy, and the queue.

    ``encoder`` is what one keeps: images ``(B, 3, H, W)`` to features ``(B, features)``, what the last linear layer
    would have seen. In that layer's place stands a head of two layers (MoCo v2) to ``dim`` numbers, thrown away later.

    Parameters
    ----------
    network, weights, stem, width, seed, download: see :func:`activelabel.data.networks.build_network`.
    dim: numbers in a query or a key.
    queue: how many keys wait, Q; a multiple of the keys in a batch, so that the queue's end falls between batches.
    momentum: of the copy: it becomes ``momentum * copy + (1 - momentum) * network`` before each batch.
    temperature: T above.
    batch_size: images in a batch, B.
    bn_splits: parts of a batch that are normalised each by itself; they divide ``batch_size``.
    symmetric: each view is query and key once, at twice the cost; a batch then leaves 2 B keys.

    Raises
    ------
    SettingsError: if a value is out of range, or sizes do not divide each other.
    """

    queue: Tensor
    """float32 ``(dim, Q)``, each column of length 1; random ones at first, from the stream of ``seed``."""
    pointer: Tensor
    """int64 ``()``: the column that is overwritten next."""

    def __init__(
        self,
        network: str = "resnet18",
        *,
        weights: str | Path = "random",
        stem: str = "imagenet",
        width: int = 64,
        dim: int = 128,
        queue: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        batch_size: int = 256,
        bn_splits: int = 8,
        symmetric: bool = False,
        seed: int = 0,
        download: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise SettingsError(f"dim={dim} must be at least 1.")
        if not 0 <= momentum < 1:
            raise SettingsError(f"momentum={momentum} must be from 0 to below 1.")
        if not temperature > 0:
            raise SettingsError(f"temperature={temperature} must be above 0.")
        check_batch(batch_size, bn_splits)
        self.batch_keys = batch_size * (2 if symmetric else 1)
        if queue < 1 or queue % self.batch_keys:
            raise SettingsError(f"queue={queue} must be a multiple of the {self.batch_keys} keys of a batch.")
        self.batch_size, self.bn_splits, self.symmetric = batch_size, bn_splits, symmetric
        self.momentum, self.temperature = momentum, temperature
        built = build_network(network, weights=weights, seed=seed, download=download, stem=stem, width=width)
        self.encoder, self.features = headless(built)
        self.head = drawn(
            lambda: nn.Sequential(nn.Linear(self.features, self.features), nn.ReLU(), nn.Linear(self.features, dim)),
            seed,
            "moco",
            "head",
        )
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.key_head = copy.deepcopy(self.head).requires_grad_(False)
        keys = torch.randn((dim, queue), generator=torch_stream(seed, "moco", "queue"))
        self.register_buffer("queue", F.normalize(keys, dim=0))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch, after moving the copy one step; its keys then take the places of the oldest.

        Parameters
        ----------
        first, second: float ``(B, 3, H, W)``, two views of the same images.
        generator: on the CPU, shuffles the keys.

        Returns
        -------
        float32 ``()``, the mean over the batch.
        """
        self.update_keys()
        keys = self.keys(second, generator)
        waiting = self.queue.clone()  # the gradient needs it as it is now
        loss = info_nce(self.queries(first), keys, waiting, self.temperature)
        if self.symmetric:
            others = self.keys(first, generator)
            loss = (loss + info_nce(self.queries(second), others, waiting, self.temperature)) / 2
            keys = torch.cat([keys, others])
        self.enqueue(keys)
        return loss

    def queries(self, images: Tensor) -> Tensor:
        """Return the queries, float32 ``(B, dim)`` of length 1, with gradient."""
        return F.normalize(self.head(self._in_parts(self.encoder, images)), dim=1)

    @torch.no_grad()
    def keys(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the keys, float32 ``(B, dim)`` of length 1, without gradient; ``generator`` orders the parts."""
        order = torch.randperm(len(images), generator=generator).to(images.device)
        features = self._in_parts(self.key_encoder, images[order])
        return F.normalize(self.key_head(features), dim=1)[torch.argsort(order)]

    @torch.no_grad()
    def update_keys(self) -> None:
        """Move the copy towards the network by ``1 - momentum`` of what parts them.

        Running statistics of batch normalisation are not moved: the copy has its own.
        """
        for mine, slow in ((self.encoder, self.key_encoder), (self.head, self.key_head)):
            for parameter, copied in zip(mine.parameters(), slow.parameters(), strict=True):
                copied.mul_(self.momentum).add_(parameter, alpha=1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put the keys of a batch, ``(batch_keys, dim)``, in the places of the oldest."""
        start = int(self.pointer)
        self.queue[:, start : start + len(keys)] = keys.T
        self.pointer.fill_((start + len(keys)) % self.queue.shape[1])

    def _in_parts(self, encoder: nn.Module, images: Tensor) -> Tensor:
        if self.bn_splits == 1:
            features: Tensor = encoder(images)
            return features
        return torch.cat([encoder(part) for part in images.chunk(self.bn_splits)])


def headless(network: nn.Module) -> tuple[nn.Module, int]:
    """Return a network without its last linear layer, and how many features it gives an image; in place."""
    name, layer = last_linear(network)
    replace_layer(network, name, nn.Identity())
    return network, layer.in_features


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return the loss at the head of this module, the mean over the batch.

    Parameters
    ----------
    queries, keys: ``(B, dim)`` of length 1; row i of both is of one image.
    queue: ``(dim, Q)`` of length 1, keys of other images.
    temperature: above 0.
    """
    right = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([right, queries @ queue], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def check_batch(batch_size: int, bn_splits: int) -> None:
    """Check the parts of a batch.

    Raises
    ------
    SettingsError: if they do not divide the batch or have less than two images.
    """
    if bn_splits < 1 or batch_size % bn_splits or batch_size // bn_splits < 2:
        raise SettingsError(
            f"bn_splits={bn_splits} must divide batch_size={batch_size} into parts of at least 2 images; batch "
            "normalisation needs two."
        )
