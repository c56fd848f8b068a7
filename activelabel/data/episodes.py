"""Episodes of pool-based labelling: four disjoint parts of the data, and where an episode starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, IntArray
from activelabel.data.splits import divide
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import stream

PARTS = ("pool", "state", "reward", "test")
"""The unlabelled pool, the set that describes the classifier (D_s), the set that rewards (D_R), and the test set."""

WHOLE_POOL = 1000
"""The size of an episode's pool where none is given, if the part has as many images."""


def class_of_rows(cohort: Cohort, classes: Sequence[str]) -> IntArray:
    """Return the class of each image, int64 ``(n,)``: its index in ``classes``, or -1.

    An image belongs to a class if it is positive for that one alone of ``classes`` and uncertain for none.
    """
    columns = cohort.labels[:, [cohort.class_index(name) for name in classes]]
    single = ((columns == 1).sum(axis=1) == 1) & ~(columns == -1).any(axis=1)
    return np.where(single, (columns == 1).argmax(axis=1), -1)


@dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """Where ``B`` episodes start.

    Parameters
    ----------
    index: int64 ``(B,)``, the numbers of the episodes.
    pool: int64 ``(B, P)``, positions in the pool part, in random order.
    initial: int64 ``(B, I)``, indices into each pool: the images that are labelled from the start, class by class.
    """

    index: IntArray
    pool: IntArray
    initial: IntArray


class EpisodeSampler:
    """Divides rows into pool, state, reward and test part, and draws episodes (Slade & Branson 2022, §3.1).

    The parts stay the same; episode ``i`` has a pool drawn from the pool part and initial labels, and depends on
    ``seed``, ``name`` and ``i`` alone.

    Parameters
    ----------
    cohort: what is labelled.
    rows: rows of the cohort to divide, such as one side of a split; images without a class are left out.
    classes: the classes that are told apart; by default all.
    shares: of the four parts, by patient where the cohort has them; they sum to 1.
    pool: images in the pool of an episode; by default the whole part, at most 1000.
    state: images of the state part that are used.
    initial: labels of each class to start from.
    split_seed: of the four parts.
    seed, name: identify the stream of episodes.

    Raises
    ------
    SettingsError: if a size or share is out of range.
    DataError: if a class is missing from a part (named), or a part has too few images.
    """

    def __init__(
        self,
        cohort: Cohort,
        rows: IntArray,
        classes: Sequence[str] | None = None,
        shares: tuple[float, float, float, float] = (0.5, 0.05, 0.3, 0.15),
        pool: int | None = None,
        state: int = 30,
        initial: int = 1,
        *,
        split_seed: int = 0,
        seed: int = 0,
        name: str = "episodes",
    ) -> None:
        self.cohort, self.seed, self.name, self.initial = cohort, seed, name, initial
        self.classes = tuple(cohort.classes if classes is None else dict.fromkeys(classes))
        if len(self.classes) < 2:
            raise SettingsError(f"a classifier needs two classes or more, got {', '.join(self.classes) or 'none'}.")
        if len(shares) != 4 or not min(shares) > 0 or not abs(sum(shares) - 1) <= 1e-6:
            raise SettingsError(f"shares {shares} must be four positive numbers that sum to 1: {', '.join(PARTS)}.")
        if initial < 1 or state < 1 or (pool is not None and pool < initial * len(self.classes)):
            raise SettingsError(
                f"pool={pool}, state={state}, initial={initial}: each must be at least 1, and the pool must hold "
                f"{initial} initial labels of {len(self.classes)} classes."
            )
        labels = class_of_rows(cohort, self.classes)
        rows = rows[labels[rows] >= 0]
        if not len(rows):
            raise DataError(f"{cohort.source.name}, {name} part: no image belongs to one of {', '.join(self.classes)}.")
        groups = rows if cohort.patient is None else cohort.patient[rows]
        side = divide(groups, shares, stream(split_seed, name, "parts"))
        self.rows: dict[str, IntArray] = {part: rows[side == index] for index, part in enumerate(PARTS)}
        self._check_sizes(pool, state)
        chosen = stream(split_seed, name, "state").permutation(len(self.rows["state"]))[:state]
        self.rows["state"] = self.rows["state"][np.sort(chosen)]
        self.labels: dict[str, IntArray] = {part: labels[found] for part, found in self.rows.items()}
        self._check_classes()
        self.pool = min(len(self.rows["pool"]), WHOLE_POOL) if pool is None else pool
        self._members = [np.flatnonzero(self.labels["pool"] == c) for c in range(len(self.classes))]

    def _check_sizes(self, pool: int | None, state: int) -> None:
        for part, needed in (("pool", pool or 1), ("state", state)):
            if len(self.rows[part]) < needed:
                raise DataError(
                    f"{self.cohort.source.name}, {self.name} part: {part}={needed} images, but its {part} part has "
                    f"{len(self.rows[part])}. Ask for fewer, or give it a larger share."
                )

    def _check_classes(self) -> None:
        problems = []
        for part, needed in (("pool", self.initial), ("reward", 1), ("test", 1)):
            counts = np.bincount(self.labels[part], minlength=len(self.classes))
            problems += [
                f"class '{name}' has {count} images in the {part} set and needs {needed}"
                for name, count in zip(self.classes, counts, strict=True)
                if count < needed
            ]
        if problems:
            raise DataError(
                f"{self.cohort.source.name}, {self.name} part: {'; '.join(problems)}. Leave the class out with "
                "classes=..., or change fractions, shares or split_seed."
            )

    def batch(self, indices: Sequence[int] | IntArray) -> EpisodeBatch:
        """Return where the episodes with the given numbers start; any non-negative integers."""
        drawn = [self._draw(int(index)) for index in indices]
        if not drawn:
            raise SettingsError("a batch needs at least one episode.")
        return EpisodeBatch(np.asarray(indices, np.int64), *(np.stack(part) for part in zip(*drawn, strict=True)))

    def _draw(self, index: int) -> tuple[IntArray, NDArray[np.int64]]:
        if index < 0:
            raise SettingsError(f"episode {index} must not be negative.")
        rng = stream(self.seed, self.name, "episode", index)
        initial = np.concatenate([rng.choice(members, self.initial, replace=False) for members in self._members])
        others = np.delete(np.arange(len(self.rows["pool"])), initial)
        pool = np.concatenate([initial, rng.permutation(others)[: self.pool - len(initial)]])
        order = rng.permutation(self.pool)
        return pool[order], np.argsort(order)[: len(initial)]
