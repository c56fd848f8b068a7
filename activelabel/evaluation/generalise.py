"""Choosing a selector for conditions that nobody trained on, by validation alone.

What helps on the conditions of the training can harm on others: a selector that takes the K best images of the pool
learns its conditions by heart, and that does not show on them. So each selector of :data:`SELECTORS_TRIED` is trained
while some of the seen conditions are left out, and validates on those: the conditions in turn, in at most
:data:`FOLDS` groups. The selector and the number of updates are chosen together, by the mean over the groups; then it
is trained on all seen conditions for so many updates. Where there is one condition, none can be left out: it validates
on its own validation images, and the choice says so.

::

    python train.py --generalise
    python train.py --generalise --preset kather --data kather2016_texture_features.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 2
"""Groups of conditions that are left out in turn, at most."""

SELECTORS_TRIED: dict[str, dict[str, Any]] = {
    "bilstm": {"selector": "bilstm", "hidden": 64},
    "mlp": {"selector": "mlp", "hidden": 128},
    "anchored": {"selector": "anchored", "hidden": 64, "anchor": 3.0},
    "anchored, cosine": {"selector": "anchored", "hidden": 64, "anchor": 3.0, "anchor_distance": "cosine"},
}
"""The settings that differ between what is tried, by name; the same for every data set."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Parameters
    ----------
    selector: one of :data:`SELECTORS_TRIED`.
    updates: gradient steps.
    left_out: the groups of conditions; a single empty one where nothing could be left out.
    clustering: AUROC of K-Medoids on the same validation tasks, mean over the groups.
    curves: of each selector the number of updates and the AUROC of each validation, mean over the groups.
    """

    selector: str
    updates: int
    left_out: tuple[tuple[str, ...], ...]
    clustering: float
    curves: dict[str, list[tuple[int, float]]]

    @classmethod
    def of(
        cls,
        left_out: Sequence[tuple[str, ...]],
        clustering: Sequence[float],
        histories: dict[str, list[list[tuple[int, float]]]],
    ) -> Choice:
        """Choose the selector and the number of updates with the largest mean; of equal ones the first, and the fewest.

        Parameters
        ----------
        left_out: the groups of conditions.
        clustering: AUROC of K-Medoids on the validation tasks of each.
        histories: of each selector for each group ``(updates, AUROC)`` of its validations.
        """
        curves = {}
        for name, found in histories.items():
            means = np.array([[value for _, value in history] for history in found]).mean(axis=0)
            curves[name] = [(int(step), float(mean)) for (step, _), mean in zip(found[0], means, strict=True)]
        selector, (updates, _) = max(
            ((name, point) for name, curve in curves.items() for point in curve), key=lambda each: each[1][1]
        )
        return cls(selector, updates, tuple(left_out), float(np.mean(clustering)), curves)

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> Choice:
        """Return what :meth:`notes` described."""
        curves = {name: [(int(u), float(v)) for u, v in curve] for name, curve in notes["curves"].items()}
        left_out = tuple(tuple(group) for group in notes["left_out"])
        return cls(notes["selector"], int(notes["updates"]), left_out, float(notes["clustering"]), curves)

    def notes(self) -> dict[str, Any]:
        """Return it as plain values, which are kept with the model."""
        return {
            "selector": self.selector,
            "updates": self.updates,
            "left_out": [list(group) for group in self.left_out],
            "clustering": self.clustering,
            "curves": {name: [list(point) for point in curve] for name, curve in self.curves.items()},
        }

    def summary(self) -> str:
        """Return one line on what was chosen."""
        if not any(self.left_out):
            on = "the only condition's own validation images"
        else:
            on = f"conditions left out in turn ({'; '.join(', '.join(group) for group in self.left_out)})"
        return f"chosen by meta-validation on {on}: {self.selector}, {self.updates} updates"

    def table(self) -> list[str]:
        """Return the validations of everything that was tried as a table in text."""
        steps = [step for step, _ in self.curves[self.selector]]
        width = max(len("updates"), *(len(name) for name in self.curves))
        lines = [
            f"AUROC less that of K-Medoids ({self.clustering:.3f}) on the same validation tasks:",
            f"{'updates':<{width}} " + " ".join(f"{step:>6}" for step in steps),
        ]
        for name, curve in self.curves.items():
            gains = " ".join(f"{value - self.clustering:+6.3f}" for _, value in curve)
            lines.append(f"{name:<{width}} {gains}")
        return lines


def groups(conditions: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of conditions that are left out in turn: each condition is in one of them.

    One condition alone gives a single empty group.
    """
    if len(conditions) < 2:
        return [()]
    n = min(FOLDS, len(conditions))
    return [tuple(conditions[i::n]) for i in range(n)]
