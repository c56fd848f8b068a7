"""Tasks of the one-shot problem: a condition, an unlabelled pool and a query set (MedSelect §2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, IntArray
from activelabel.errors import DataError, SettingsError, unknown
from activelabel.seeding import stream

UNCERTAIN = ("positive", "negative", "ignore")

DrawnTask = tuple[np.int64, IntArray, NDArray[np.bool_], IntArray, NDArray[np.bool_]]
"""A task's condition, pool, which of it are positive, query set, which of it are."""


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """``B`` tasks with pools of ``N`` and query sets of ``Q`` images.

    Parameters
    ----------
    index: int64 ``(B,)``, the numbers of the tasks.
    condition: int64 ``(B,)``, the class that is to be told from the normal one.
    pool, query: int64 ``(B, N)`` and ``(B, Q)``, rows of the cohort, in random order. From
        ``len(cohort)`` on they are images that were moved (:mod:`activelabel.envs.augmentation`).
    pool_labels, query_labels: bool ``(B, N)`` and ``(B, Q)``, True where the image is positive.
    """

    index: IntArray
    condition: IntArray
    pool: IntArray
    query: IntArray
    pool_labels: NDArray[np.bool_]
    query_labels: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)


class TaskSampler:
    """Draws tasks ``(condition, U, Q)``: positives of the condition against No Finding, U and Q disjoint.

    Task ``i`` depends on ``seed``, ``name`` and ``i`` alone, so it is the same task in every run, process, batch
    and epoch.

    Parameters
    ----------
    cohort: must have a normal class.
    conditions: names of the classes to draw tasks of; by default every one with at least ``min_prevalence`` in the
        cohort.
    pool, query: how many images U and Q hold.
    positive_fraction: share of positives in U and in Q, between 0 and 1.
    held_out: conditions that are never drawn.
    rows: rows of the cohort to draw from, such as one side of a split; by default all.
    uncertain: what a label of -1 counts as. ``"positive"``: positive, as in the released code. ``"negative"``: not
        positive. ``"ignore"``: neither, so that a No Finding image with an uncertain condition is not a negative of
        it either.
    min_prevalence: conditions with a smaller share of positives are left out unless they are named (MedSelect: 5 %).
    seed, name: identify the stream of tasks.

    Raises
    ------
    SettingsError: if a size or share is out of range, or a condition unknown.
    DataError: if there is no normal class, or a condition has too few images: the message says which, how many it has
        and how many the tasks need.
    """

    def __init__(
        self,
        cohort: Cohort,
        conditions: Sequence[str] | None = None,
        pool: int = 1000,
        query: int = 100,
        positive_fraction: float = 0.5,
        *,
        held_out: Sequence[str] = (),
        rows: IntArray | None = None,
        uncertain: str = "positive",
        min_prevalence: float = 0.05,
        seed: int = 0,
        name: str = "tasks",
    ) -> None:
        if cohort.normal is None:
            raise DataError(
                f"{cohort.source.name}: tasks need a normal class to tell conditions from; "
                f"name one with normal=... (classes: {', '.join(cohort.classes)})."
            )
        if uncertain not in UNCERTAIN:
            raise SettingsError(unknown("treatment of uncertain labels", uncertain, UNCERTAIN))
        self.cohort, self.seed, self.name = cohort, seed, name
        self.pool, self.query = pool, query
        self.n_positive = {}
        for part, size in (("pool", pool), ("query", query)):
            count = round(size * positive_fraction)
            if not 0 < count < size:
                raise SettingsError(
                    f"{part}={size} with positive_fraction={positive_fraction} has {count} positives and "
                    f"{size - count} negatives; both must be at least 1."
                )
            self.n_positive[part] = count
        self.conditions = self._eligible(conditions, held_out, min_prevalence)
        rows = np.arange(len(cohort)) if rows is None else rows
        self._positives: list[IntArray] = []
        self._negatives: list[IntArray] = []
        for condition in self.conditions:
            positive, negative = self._candidates(cohort.class_index(condition), rows, uncertain)
            self._positives.append(positive)
            self._negatives.append(negative)
        self._check_counts()

    def _eligible(
        self, conditions: Sequence[str] | None, held_out: Sequence[str], min_prevalence: float
    ) -> tuple[str, ...]:
        cohort = self.cohort
        for name in held_out:
            cohort.class_index(name)
        if conditions is None:
            common = (c for c in cohort.conditions() if cohort.prevalence(c) >= min_prevalence)
            chosen = tuple(c for c in common if c not in held_out)
        else:
            chosen = tuple(dict.fromkeys(conditions))
            for condition in chosen:
                if cohort.class_index(condition) == cohort.normal:
                    raise SettingsError(f"condition '{condition}' is the normal class itself.")
                if condition in held_out:
                    raise SettingsError(f"condition '{condition}' cannot be both drawn and held out.")
        if not chosen:
            raise SettingsError(
                f"{cohort.source.name}: no condition to draw tasks of (prevalence at least {min_prevalence:.0%})."
            )
        return chosen

    def _candidates(self, column: int, rows: IntArray, uncertain: str) -> tuple[IntArray, IntArray]:
        label = self.cohort.labels[rows, column]
        positive = (label == 1) | (label == -1) if uncertain == "positive" else label == 1
        negative = (self.cohort.labels[rows, self.cohort.normal] == 1) & ~positive
        if uncertain == "ignore":
            negative &= label != -1
        return rows[positive], rows[negative]

    def _check_counts(self) -> None:
        need_positive = sum(self.n_positive.values())
        need_negative = self.pool + self.query - need_positive
        assert self.cohort.normal is not None
        normal = self.cohort.classes[self.cohort.normal]
        problems = []
        for condition, positive, negative in zip(self.conditions, self._positives, self._negatives, strict=True):
            if len(positive) < need_positive:
                problems.append(f"'{condition}' has {len(positive)} positive images and needs {need_positive}")
            if len(negative) < need_negative:
                problems.append(
                    f"'{condition}' has {len(negative)} '{normal}' images against it and needs {need_negative}"
                )
        if problems:
            raise DataError(
                f"{self.cohort.source.name}, {self.name} part: too few images for pool={self.pool} and "
                f"query={self.query}: {'; '.join(problems)}. Leave the condition out, or make the pool, the query "
                "set or the other parts of the split smaller."
            )

    def images(self) -> list[tuple[IntArray, IntArray]]:
        """Return for each condition the rows of the images that are drawn for it: positive, negative."""
        return list(zip(self._positives, self._negatives, strict=True))

    def batch(self, indices: Sequence[int] | IntArray) -> TaskBatch:
        """Return the tasks with the given numbers, which may be any non-negative integers."""
        drawn = [self._draw(int(index)) for index in indices]
        if not drawn:
            raise SettingsError("a batch needs at least one task.")
        condition, pool, pool_labels, query, query_labels = (np.stack(part) for part in zip(*drawn, strict=True))
        return TaskBatch(np.asarray(indices, np.int64), condition, pool, query, pool_labels, query_labels)

    def _draw(self, index: int) -> DrawnTask:
        if index < 0:
            raise SettingsError(f"task {index} must not be negative.")
        rng = stream(self.seed, self.name, index)
        which = int(rng.integers(len(self.conditions)))
        in_pool, in_query = self.n_positive["pool"], self.n_positive["query"]
        # Both parts come from one draw without replacement, which makes them disjoint.
        positive = rng.choice(self._positives[which], in_pool + in_query, replace=False)
        negative = rng.choice(self._negatives[which], self.pool + self.query - in_pool - in_query, replace=False)
        cut = self.pool - in_pool
        pool, pool_labels = _shuffled(rng, positive[:in_pool], negative[:cut])
        query, query_labels = _shuffled(rng, positive[in_pool:], negative[cut:])
        return (
            np.int64(self.cohort.class_index(self.conditions[which])),
            pool,
            pool_labels,
            query,
            query_labels,
        )


def _shuffled(rng: np.random.Generator, positive: IntArray, negative: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    rows = np.concatenate([positive, negative])
    order = rng.permutation(len(rows))
    return rows[order], order < len(positive)
