"""What a study found, by strategy: scores over training seeds and tasks, differences, and bands around curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from activelabel.data import Cohort
from activelabel.evaluation.selections import Selections
from activelabel.evaluation.statistics import Difference, hierarchical_difference
from activelabel.evaluation.study.results import Block

FloatArray = NDArray[np.float64]
Measure = Callable[[Block], FloatArray | None]
"""Gives float64 ``(n,)``, one number for each task of a block, or None where it has none."""

BAND = 0.68
"""Level of the bands around curves (Slade & Branson 2022, §4.2)."""


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Parameters
    ----------
    blocks: all results.
    seconds: of each training, one for each seed, by (grid, data, strategy, labels, batch).
    selections: the cohort and the choices on the first test tasks by (grid, data, conditions, strategy); ``"random"``
        with a second seed is ``"random, again"``.
    """

    blocks: Sequence[Block]
    seconds: Mapping[tuple[str, str, str, int, int], Sequence[float]]
    selections: Mapping[tuple[str, str, str, str], tuple[Cohort, Selections]]


def value(block: Block) -> FloatArray:
    """Return what a task or an episode ended with."""
    return block.value


def area(block: Block) -> FloatArray | None:
    """Return the area under the learning curve, as a share of the range of labels."""
    return block.aulc


def after(labels: int) -> Measure:
    """Return the measure of what was reached after some labels; None where a step does not end there."""

    def measure(block: Block) -> FloatArray | None:
        if block.curve is None:
            return None
        (place,) = np.nonzero(block.spent == labels)
        return block.curve[:, place[0]] if place.size else None

    return measure


@dataclass(frozen=True, eq=False)
class Found:
    """What one strategy reached on the same tasks.

    Parameters
    ----------
    blocks: one for each training seed, in their order, or one of a strategy that is not trained.
    """

    blocks: Sequence[Block]

    @property
    def trained(self) -> bool:
        """Whether there are training seeds."""
        return self.blocks[0].keys["seed"] is not None

    @property
    def tasks(self) -> int:
        """How many tasks or episodes all of the blocks have."""
        return min(len(block.value) for block in self.blocks)

    def scores(self, measure: Measure = value) -> FloatArray | None:
        """Return float64 ``(seeds, tasks)``, or ``(tasks,)`` where nothing was trained; None where one is missing."""
        found = [measure(block) for block in self.blocks]
        known = [values[: self.tasks] for values in found if values is not None]
        if len(known) < len(found):
            return None
        return np.stack(known) if self.trained else known[0]

    def limited(self, seeds: Iterable[int | str | None], tasks: int) -> Found | None:
        """Return what was reached with some of the seeds on the first tasks; None where there is no such seed."""
        blocks = [
            Block(
                block.keys,
                block.value[:tasks],
                None if block.one_class is None else block.one_class[:tasks],
                None if block.aulc is None else block.aulc[:tasks],
                None if block.curve is None else block.curve[:tasks],
            )
            for block in self.blocks
            if block.keys["seed"] in set(seeds)
        ]
        return Found(blocks) if blocks else None


def strategies(blocks: Sequence[Block], **keys: str | int) -> dict[str, Found]:
    """Return what each strategy reached, of the blocks with these keys; they must leave one budget and data set."""
    found: dict[str, list[Block]] = {}
    for block in blocks:
        if all(block.keys[name] == wanted for name, wanted in keys.items()):
            found.setdefault(str(block.keys["strategy"]), []).append(block)
    return {name: Found(sorted(own, key=lambda block: block.keys["seed"] or 0)) for name, own in found.items()}


def together(*found: Found | None) -> tuple[Found, ...] | None:
    """Limit some to the tasks and, among those that were trained, the training seeds that all have.

    Returns None where one is missing or no seed is common.
    """
    there = [each for each in found if each is not None]
    if not there or len(there) < len(found):
        return None
    tasks = min(each.tasks for each in there)
    sets = [{block.keys["seed"] for block in each.blocks} for each in there if each.trained]
    seeds = set.intersection(*sets) if sets else set()
    limited = [each.limited(seeds if each.trained else {None}, tasks) for each in there]
    common = tuple(each for each in limited if each is not None)
    return common if len(common) == len(there) else None


def difference(a: Found | None, b: Found | None, measure: Measure = value) -> Difference | None:
    """Return the mean of ``a - b`` over tasks and training seeds, with its 95 % interval; None where one is missing."""
    pair = together(a, b)
    if pair is None:
        return None
    scores = [found for each in pair if (found := each.scores(measure)) is not None]
    return hierarchical_difference(scores[0], scores[1]) if len(scores) == 2 else None


def average(scores: FloatArray | None) -> Difference | None:
    """Return the mean of scores ``(seeds, tasks)`` or ``(tasks,)`` over both, with its 95 % interval."""
    return None if scores is None else hierarchical_difference(scores, np.zeros(scores.shape[-1]))


@dataclass(frozen=True, eq=False)
class Band:
    """A mean with its 68 % interval, at each point of a curve.

    Parameters
    ----------
    mean, low, high: float64 ``(P,)``; the last two NaN where one value is all there is.
    over: what the interval is over, such as ``"5 training seeds"``.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    over: str


def band(found: Found, measure: Measure) -> Band | None:
    """Return the mean over episodes with a 68 % interval (Student's t): over training seeds where there are several.

    Of a strategy that is not trained, and of one training seed, it is over episodes, each from other initial labels.

    Parameters
    ----------
    found: of a strategy.
    measure: one number for each task, or a curve ``(n, P)``.
    """
    scores = found.scores(measure)
    if scores is None:
        return None
    if found.trained and len(scores) > 1:
        values, over = scores.mean(axis=1), f"{len(scores)} training seeds"
    else:
        values = scores[0] if found.trained else scores
        over = f"{len(values)} episodes" + (" of one training seed" if found.trained else "")
    values = values.reshape(len(values), -1)
    n, mean = len(values), values.mean(axis=0)
    half = np.full_like(mean, math.nan)
    if n > 1:
        half = special.stdtrit(n - 1, 0.5 + BAND / 2) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return Band(mean, mean - half, mean + half, over)


def known(number: float | None) -> float | None:
    """Return a number for a cell of a table: None where it is not one."""
    return None if number is None or math.isnan(number) else float(number)


def cells(interval: Difference | None) -> tuple[float | None, float | None, float | None]:
    """Return mean, low and high for a table."""
    return (None, None, None) if interval is None else (known(interval.mean), known(interval.low), known(interval.high))
