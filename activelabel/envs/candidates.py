"""What an agent sees: numbers that describe a candidate image, and numbers that describe the classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SHORT = ("confidence", "labelled", "unlabelled")
"""The paper's three (§3.1.2): score, mean distance to the labelled, mean distance to the unlabelled."""

LONG = (*SHORT, "margin", "entropy", "nearest", "density", "balance")
"""The longer set."""


@dataclass(frozen=True)
class Candidates:
    """What features are made of, for ``M`` candidates of each of ``B`` episodes.

    Parameters
    ----------
    probabilities: ``(B, M, C)``.
    labelled, unlabelled: ``(B, M)``, mean distance to the labelled images and to the unlabelled ones of the pool.
    nearest: ``(B, M)``, distance to the nearest labelled image.
    density: ``(B, M)``, see :data:`FEATURES`.
    shares: ``(B, C)``, share of each class among the labelled images.
    cost: ``(B, M)``, what a label takes of the budget, relative to the mean of the episode's pool; None: all the same.
    """

    probabilities: Tensor
    labelled: Tensor
    unlabelled: Tensor
    nearest: Tensor
    density: Tensor
    shares: Tensor
    cost: Tensor | None = None


def rows_at(values: Tensor, chosen: Tensor) -> Tensor:
    """Return ``(B, M, C)``: the rows of ``(B, n, C)`` at ``(B, M)``, class by class as the linear models leave them."""
    columns = values.transpose(1, 2)
    return columns.gather(2, chosen[:, None, :].expand(-1, columns.shape[1], -1)).transpose(1, 2)


def margin(probabilities: Tensor) -> Tensor:
    """Return the difference of the two largest probabilities, ``(..., C) -> (...)``."""
    best = probabilities.topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def entropy(probabilities: Tensor) -> Tensor:
    """Return Shannon's entropy as a share of its maximum, 0 to 1, ``(..., C) -> (...)``."""
    logarithms = probabilities.clamp(min=1e-12).log()
    return (-(probabilities * logarithms).sum(dim=-1) / math.log(probabilities.shape[-1])).clamp(0, 1)


FEATURES: dict[str, Callable[[Candidates], Tensor]] = {
    "confidence": lambda c: c.probabilities.amax(dim=-1),
    "probability": lambda c: c.probabilities[..., 0],
    "margin": lambda c: margin(c.probabilities),
    "entropy": lambda c: entropy(c.probabilities),
    "labelled": lambda c: c.labelled,
    "unlabelled": lambda c: c.unlabelled,
    "nearest": lambda c: c.nearest,
    "density": lambda c: c.density,
    "balance": lambda c: (c.probabilities * c.shares[:, None, :]).sum(dim=-1),
    "cost": lambda c: torch.ones_like(c.labelled) if c.cost is None else c.cost,
}
"""The numbers that can describe a candidate, by name.

``confidence``: largest class probability. ``probability``: that of the first class (LAL-RL). ``margin``: largest less
second largest. ``entropy``: share of its maximum. ``labelled``, ``unlabelled``: mean distance to the labelled images
and to the unlabelled ones of the pool, itself included. ``nearest``: distance to the nearest labelled image.
``density``: ``1 / (1 + d)``, d the mean distance to the ten nearest images of the pool part, or of the episode's pool
where the latent space is that of a network that is fine-tuned. ``balance``: the share of labelled images that have its
class, expected under its probabilities. ``cost``: what its label takes of the budget, with several annotators that of
the one whose work it is, as a multiple of the mean over the episode's pool; 1 where all cost the same. Distances are
unbounded, cost is at most the size of the pool, the rest is 0 to 1.
"""

DISTANCES = ("labelled", "unlabelled", "nearest")
"""The features that are distances."""

STATES: dict[str, Callable[[Tensor], Tensor]] = {
    "confidence": lambda p: p.amax(dim=-1).sort(dim=-1).values,
    "probability": lambda p: p[..., 0].sort(dim=-1).values,
    "per-class": lambda p: p.sort(dim=1).values.flatten(1),
}
"""What describes the classifier, from its probabilities ``(B, S, C)`` on the state set: sorted largest probabilities,
sorted probabilities of the first class (LAL-RL), or sorted probabilities of every class."""

PROGRESS = "progress"
"""State number: share of the budget that is spent."""


def state_size(names: tuple[str, ...], images: int, classes: int) -> int:
    """Return how many numbers the state has."""
    return sum({PROGRESS: 1, "per-class": images * classes}.get(name, images) for name in names)
