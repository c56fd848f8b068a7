"""Choosing batches of candidates by their values, and the targets that values are learned from (§3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.agents.qnetworks import QPolicy
from activelabel.agents.replay import Transitions


@dataclass(frozen=True)
class Seen:
    """Encoded observations of ``B`` envs.

    Parameters
    ----------
    state, candidates, mask: see :meth:`QPolicy.encode`.
    best: int64 ``(B, N)``, the batch that the network that acts prefers.
    """

    state: Tensor
    candidates: Tensor
    mask: Tensor
    best: Tensor


def transitions(
    seen: Seen,
    chosen: Tensor,
    used: NDArray[np.bool_],
    rewards: NDArray[np.float32],
    dones: NDArray[np.bool_],
    following: Seen,
    others: int,
    generator: torch.Generator,
) -> Transitions:
    """Return a step of ``B`` envs as the replay buffer keeps it.

    Parameters
    ----------
    seen, following: before and after it. After the end of an episode nothing is looked up, so ``following`` may be of
        the next one.
    chosen: int64 ``(B, N)``, the candidates that were chosen.
    used: bool ``(B, N)``, whether each was labelled.
    rewards, dones: ``(B,)``.
    others: how many random candidates of the next step are kept besides the preferred batch; 0 keeps all.
    generator: draws them.
    """
    device = seen.state.device
    candidates, mask = following.candidates, following.mask
    if others:
        keys = torch.rand(mask.shape, generator=generator).to(device) + mask.float()
        keys.scatter_(1, following.best, -1.0)
        drawn = top(keys, min(others, keys.shape[1] - following.best.shape[1]))
        kept = torch.cat([following.best, drawn], dim=1)
        candidates, mask = rows(candidates, kept), mask.gather(1, kept)
    return Transitions(
        seen.state,
        rows(seen.candidates, chosen),
        torch.from_numpy(used).to(device),
        torch.from_numpy(rewards).to(device),
        following.state,
        candidates,
        mask,
        torch.from_numpy(np.asarray(dones)).to(device),
    )


def td_error(
    policy: QPolicy, steps: Transitions, n: int, gamma: float, credit: str, target: str
) -> tuple[Tensor, Tensor]:
    """Return target less value, ``(k,)`` or with ``credit="each"`` ``(k, N)``, and the values ``(k, N)``.

    Parameters
    ----------
    policy: its two networks.
    steps: k of them.
    n: how many candidates the next batch has.
    gamma, credit, target: see :class:`~activelabel.agents.ddqn.DDQN`.
    """
    values: Tensor = policy.q(steps.state, steps.action)
    following = steps.reward + gamma * ~steps.done * next_value(policy, steps, n, credit, target)
    used = steps.used.float()
    if credit == "each":
        return (following[:, None] - values) * used, values
    total = (values * used).sum(dim=1)
    return following - (total if credit == "sum" else total / used.sum(dim=1).clamp(min=1)), values


def next_value(policy: QPolicy, steps: Transitions, n: int, credit: str, target: str) -> Tensor:
    """Return the value ``(k,)`` of the best next batch, without gradients; see :func:`td_error`."""
    online = policy.values(steps.next_state, steps.next_candidates)
    lagging = policy.values(steps.next_state, steps.next_candidates, target=True)
    choosing, valuing = (online, lagging) if target == "double" else (lagging, online)
    best = top(choosing.masked_fill(~steps.next_mask, -math.inf), n)
    there = steps.next_mask.gather(1, best).float()
    total: Tensor = (valuing.gather(1, best) * there).sum(dim=1)
    return total if credit == "sum" else total / there.sum(dim=1).clamp(min=1)


def top(values: Tensor, n: int) -> Tensor:
    """Return the indices ``(B, n)`` of the largest values, equal ones in their order."""
    best: Tensor = values.sort(dim=1, descending=True, stable=True).indices[:, :n]
    return best


def mixed(best: Tensor, mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the indices ``(B, N)`` with each replaced, with probability ``share``, by another random candidate.

    No candidate comes twice; those that the mask forbids come only where there are no others.
    """
    flip = (torch.rand(best.shape, generator=generator) < share).to(best.device)
    keys = torch.rand(mask.shape, generator=generator).to(best.device) + mask.float()
    kept = torch.zeros_like(mask).scatter(1, best, ~flip)
    others = top(keys.masked_fill(kept, -1.0), best.shape[1])
    return torch.where(flip, others.gather(1, (flip.cumsum(dim=1) - 1).clamp(min=0)), best)


def directed(seen: Seen, share: float, generator: torch.Generator) -> Tensor:
    """Return the preferred batches ``(B, N)``, each with probability ``share`` replaced by one of a random direction.

    The direction is a normal vector, and the batch the candidates that have the largest products with it.
    """
    batch, _, features = seen.candidates.shape
    direction = torch.randn(batch, features, 1, generator=generator).to(seen.candidates.device)
    products = (seen.candidates @ direction).squeeze(-1).masked_fill(~seen.mask, -math.inf)
    flip = (torch.rand(batch, 1, generator=generator) < share).to(products.device)
    return torch.where(flip, top(products, seen.best.shape[1]), seen.best)


def rows(vectors: Tensor, chosen: Tensor) -> Tensor:
    """Return ``(B, n, F)``: the vectors ``(B, M, F)`` at the indices ``(B, n)``."""
    return vectors.gather(1, chosen[:, :, None].expand(-1, -1, vectors.shape[2]))
