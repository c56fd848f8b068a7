"""What is asked of an oracle, what it answers, and what that takes of the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from activelabel.data import Cohort
from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError
from activelabel.seeding import stream

NO_ANSWER = -1
"""In the place of a class: the label is spent, and nothing is learnt of the image."""


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked in a step of ``B`` episodes; in ``SelectiveLabel-v0`` in ``B`` tasks of one condition.

    Parameters
    ----------
    cohort: of the images.
    classes: names of the ``C`` classes.
    rows: int64 ``(B, N)``, rows of the cohort.
    truth: int64 ``(B, N)``, their classes, 0 to C - 1.
    asked: bool ``(B, N)``; elsewhere any answer will do.
    draws: float64 ``(B, N, D)``, numbers that are uniform from 0 to below 1: the same for the same image in the same
        episode or task, whoever labels it and whenever.
    """

    cohort: Cohort
    classes: tuple[str, ...]
    rows: IntArray
    truth: Tensor
    asked: Tensor
    draws: Tensor


class Oracle(Protocol):
    """Who answers.

    An answer must follow from the question alone, so that an image that is asked again is answered alike. One that has
    ``one_at_a_time = True`` cannot answer several episodes at once.
    """

    draws: int
    """D, how many random numbers an answer takes."""

    def check(self, cohort: Cohort, classes: tuple[str, ...]) -> None:
        """Refuse, with a :class:`~activelabel.errors.SettingsError`, classes that the oracle cannot answer on."""

    def costs(self, draws: Tensor) -> Tensor:
        """Return what the images with these draws ``(B, N, D)`` cost of the budget, int64 ``(B, N)``, at least 1."""

    def answers(self, questions: Questions) -> Tensor:
        """Return classes, int64 ``(B, N)``, :data:`NO_ANSWER` where there is none."""


class Perfect:
    """Always right, at a cost of 1. A good base for others."""

    draws = 0

    def check(self, cohort: Cohort, classes: tuple[str, ...]) -> None:
        """See :class:`Oracle`."""

    def costs(self, draws: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        return torch.ones(draws.shape[:2], dtype=torch.int64, device=draws.device)

    def answers(self, questions: Questions) -> Tensor:
        """See :class:`Oracle`."""
        return questions.truth


def check_together(oracle: Oracle, n: int) -> None:
    """Check that an oracle can answer in ``n`` episodes or tasks at once.

    Raises
    ------
    SettingsError: if they are several and it answers one at a time.
    """
    if n > 1 and getattr(oracle, "one_at_a_time", False):
        raise SettingsError(f"oracle {type(oracle).__name__} answers in one episode or task at a time, not in {n}.")


def draws_of(oracle: Oracle, images: int, seed: int, split: str, numbers: IntArray) -> Tensor:
    """Return what an oracle's answers on the pools of episodes or tasks are drawn with, float64 ``(B, images, D)``.

    The oracle is no part of a stream's name: each errs on some of the images on which a worse one does.
    """
    shape = (images, oracle.draws)
    if not oracle.draws:
        return torch.zeros(len(numbers), *shape, dtype=torch.float64)
    return torch.from_numpy(np.stack([stream(seed, split, "oracle", int(i)).random(shape) for i in numbers]))


def prices(oracle: Oracle, draws: Tensor) -> Tensor:
    """Return what images with these draws ``(B, N, D)`` cost of the budget, int64 ``(B, N)``.

    Raises
    ------
    SettingsError: if a cost is not a whole number of at least 1.
    """
    found = oracle.costs(draws)
    _check_whole(oracle, "costs", found, draws.shape[:2], 1, None)
    return found


def relative_prices(oracle: Oracle, draws: Tensor) -> Tensor:
    """Return :func:`prices` as multiples of their mean over ``N``, float32 ``(B, N)``."""
    found = prices(oracle, draws).float()
    return found / found.mean(dim=1, keepdim=True)


def answered(oracle: Oracle, questions: Questions) -> Tensor:
    """Return what an oracle answers, int64 ``(B, N)``; :data:`NO_ANSWER` too where it is not asked.

    Raises
    ------
    SettingsError: if it is not a tensor of classes or :data:`NO_ANSWER`.
    """
    found, c = oracle.answers(questions), len(questions.classes)
    _check_whole(oracle, "answers", found, questions.truth.shape, NO_ANSWER, c - 1)
    return torch.where(questions.asked, found, NO_ANSWER)


def paid(oracle: Oracle, draws: Tensor, asks: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Return which indices of an action the budget pays for, bool ``(B, N)``, and what it takes, int64 ``(B,)``.

    They are paid one after the other; an index that asks nobody takes 1. With the first that is too dear the rest of
    the budget is gone.

    Parameters
    ----------
    oracle: it says what images cost.
    draws: see :class:`Questions`.
    asks: bool ``(B, N)``, where there is an image that can be labelled.
    left: int64 ``(B,)``, of the budget.

    Raises
    ------
    SettingsError: if a cost is not a whole number of at least 1.
    """
    total = torch.where(asks, prices(oracle, draws), 1).cumsum(dim=1)
    return total <= left[:, None], torch.minimum(total[:, -1], left)


def _check_whole(oracle: Oracle, method: str, found: Any, shape: tuple[int, ...], low: int, high: int | None) -> None:
    good = isinstance(found, Tensor) and found.shape == shape and found.dtype == torch.int64
    if good and found.numel():
        good = int(found.min()) >= low and (high is None or int(found.max()) <= high)
    if not good:
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise SettingsError(f"oracle {type(oracle).__name__}: {method} must be int64 {tuple(shape)} {limits}.")
