"""What goes into a step of ``ActiveLabel-v0``, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step of ``B`` episodes gave.

    Parameters
    ----------
    reward: float64 ``(B,)``.
    over: bool ``(B,)``, whether the episode has ended.
    ids: int64 ``(B, N)``, rows of the cohort that were asked about, -1 where an index was no new image or
        could not be paid.
    labels: int64 ``(B, N)``, the answers, -1 likewise and where there was none.
    """

    reward: NDArray[np.float64]
    over: NDArray[np.bool_]
    ids: IntArray
    labels: IntArray


def check_actions(actions: Any, shape: tuple[int, int], candidates: int) -> IntArray:
    """Return actions as int64.

    Raises
    ------
    SettingsError: if the shape is wrong, they are not integers, or one is not the index of a candidate.
    """
    actions = np.asarray(actions)
    if actions.shape != shape or actions.dtype.kind not in "iu":
        raise SettingsError(
            f"actions must be integers of shape {shape}, one row an episode; got {actions.dtype} {actions.shape}."
        )
    if actions.size and (actions.min() < 0 or actions.max() >= candidates):
        bad = int(actions.min()) if actions.min() < 0 else int(actions.max())
        raise SettingsError(f"index {bad} is not one of the {candidates} candidates (0 to {candidates - 1}).")
    checked_actions: IntArray = actions.astype(np.int64, copy=False)
    return checked_actions


def marked(marks: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    """Return marks ``(b, P)``, bool, True too at ``slots`` ``(b, n)`` where ``new``."""
    episode, place = new.nonzero(as_tuple=True)
    return marks.index_put((episode, slots[episode, place]), torch.ones_like(episode, dtype=torch.bool))
