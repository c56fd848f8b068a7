"""How a set of K images is drawn from one logit an image, and how likely it was.

Two rules, each with ``sample``, ``log_prob``, ``best`` and ``entropy``. All take logits ``(B, N)`` and give or take
ordered selections int64 ``(B, M, K)``: M selections of each of B pools. The rule is what decides which sets may be
chosen; a network only scores images. A third, one image of each cluster, is in :mod:`activelabel.agents.anchored`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class SelectionRule(Protocol):
    """What REINFORCE needs of a distribution over selections."""

    def sample(self, logits: Tensor, k: int, samples: int, generator: torch.Generator) -> Tensor:
        """Return int64 ``(B, M, K)`` drawn with the CPU generator, whatever the device."""

    def log_prob(self, logits: Tensor, selections: Tensor) -> Tensor:
        """Return ``(B, M)``, the log-probability of each ordered selection; differentiable in ``logits``."""

    def best(self, logits: Tensor, k: int) -> Tensor:
        """Return int64 ``(B, K)``, the K images of the largest logits, largest first; equal logits in pool order."""

    def entropy(self, logits: Tensor) -> Tensor:
        """Return ``(B,)``, the entropy of a first draw in nats; differentiable in ``logits``."""


def gumbel(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return Gumbel noise, float32 of the given shape on the device of ``like``, drawn with the CPU generator."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float32)
    # rand() can return 0, and 1 - 2^-24 is the largest value below 1: both logarithms stay finite.
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 2**-24))).to(like.device)


def top(keys: Tensor, k: int) -> Tensor:
    """Return int64 ``(..., K)``, where the K largest of ``(..., N)`` are, largest first; equal ones in pool order."""
    if k > keys.shape[-1]:
        raise ValueError(f"k={k} images cannot be chosen from a pool of {keys.shape[-1]}.")
    if k == keys.shape[-1]:
        return keys.sort(dim=-1, descending=True, stable=True).indices
    # A partial sort is many times faster. It leaves open what it does with equal keys and NaN: such rows are sorted.
    largest, indices = keys.topk(k + 1, dim=-1)
    doubtful = ~(largest[..., :-1] > largest[..., 1:]).all(dim=-1)
    if bool(doubtful.any()):
        indices[doubtful] = keys[doubtful].sort(dim=-1, descending=True, stable=True).indices[..., : k + 1]
    return indices[..., :k]


def log_prob_in_order(logits: Tensor, selections: Tensor, start: int = 0) -> Tensor:
    """Return ``(B, M)``, the log-probability of drawing the images from number ``start`` on, those before being gone.

    Each is drawn in proportion to ``exp(logit)`` among those that are left. The denominators, ``logsumexp`` over the
    images that are left before each draw, are one running ``logcumsumexp`` from the end: first everything that was
    never drawn, then the last draw, the last but one, and so on. Nothing is subtracted, so nothing cancels.

    Parameters
    ----------
    logits: ``(B, N)``.
    selections: int64 ``(B, M, K)``, no image twice.
    start: 0 to K - 1.
    """
    batch, samples, k = selections.shape
    n = logits.shape[-1]
    expanded = logits[:, None, :].expand(batch, samples, n)
    chosen = expanded.gather(-1, selections[..., start:])
    backwards = chosen.flip(-1)
    if k < n:
        drawn = torch.zeros(batch, samples, n, dtype=torch.bool, device=logits.device).scatter_(-1, selections, True)
        rest = expanded.masked_fill(drawn, float("-inf")).logsumexp(dim=-1, keepdim=True)
        backwards = torch.cat([rest, backwards], dim=-1)
    left = backwards.logcumsumexp(dim=-1)[..., start - k :].flip(-1)
    return (chosen - left).sum(dim=-1)


def entropy_of_a_draw(logits: Tensor) -> Tensor:
    """Return ``(B,)``, the entropy of ``softmax(logits)``."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


class WithoutReplacement:
    """Plackett-Luce: images are drawn one after the other, each in proportion to ``exp(logit)`` among those that
    are left.

    Sampling perturbs the logits with Gumbel noise and takes the K largest, which draws from exactly this
    distribution in one sort (Yellott 1977; Kool et al. 2019).
    """

    def sample(self, logits: Tensor, k: int, samples: int, generator: torch.Generator) -> Tensor:
        """See :class:`SelectionRule`."""
        batch, n = logits.shape
        noise = gumbel((batch, samples, n), generator, logits)
        return top(logits.detach()[:, None, :] + noise, k)

    def log_prob(self, logits: Tensor, selections: Tensor) -> Tensor:
        """Return the exact log-probability of drawing the images in this order."""
        return log_prob_in_order(logits, selections)

    def best(self, logits: Tensor, k: int) -> Tensor:
        """See :class:`SelectionRule`."""
        return top(logits, k)

    def entropy(self, logits: Tensor) -> Tensor:
        """See :class:`SelectionRule`."""
        return entropy_of_a_draw(logits)


class WithReplacement:
    """K independent draws from ``softmax(logits)``, duplicates and all, as MedSelect's released code does."""

    def sample(self, logits: Tensor, k: int, samples: int, generator: torch.Generator) -> Tensor:
        """See :class:`SelectionRule`."""
        batch = len(logits)
        probabilities = logits.detach().softmax(dim=-1).double().cpu()
        drawn = torch.multinomial(probabilities, samples * k, replacement=True, generator=generator)
        return drawn.reshape(batch, samples, k).to(logits.device)

    def log_prob(self, logits: Tensor, selections: Tensor) -> Tensor:
        """Return the sum of the K log-probabilities."""
        batch, samples, k = selections.shape
        log_probabilities = logits.log_softmax(dim=-1)
        return log_probabilities.gather(-1, selections.reshape(batch, -1)).reshape(batch, samples, k).sum(dim=-1)

    def best(self, logits: Tensor, k: int) -> Tensor:
        """See :class:`SelectionRule`: the K most likely images, without repetition."""
        return top(logits, k)

    def entropy(self, logits: Tensor) -> Tensor:
        """See :class:`SelectionRule`."""
        return entropy_of_a_draw(logits)
