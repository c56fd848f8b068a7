"""Choosing a selector for conditions that nobody trained on, by validation alone.

What helps on the conditions of the training can harm on others, and on those it does not show. So the command lets the
selectors learn from made-up conditions as well (:mod:`activelabel.envs.augmentation`), and each of
:data:`SELECTORS_TRIED` is trained while some of the seen conditions are left out, the conditions in turn
(:func:`groups`). It validates on unseen images of the conditions that it was trained on and of those left out, and what
counts is the mean of the two: AUROC less that of K-Medoids on the same tasks. Selector and number of updates are chosen
together; then it is trained on all seen conditions for so many updates, several times, and the mean of the logits of
these trainings chooses (:mod:`activelabel.agents.ensemble`).

Two things keep it from doing harm where it has not proved itself:

- On pools that are not familiar (:mod:`activelabel.agents.familiarity`) it leaves the choice to K-Medoids, and is
  judged with this guard, unless it was above K-Medoids on what was left out by more than chance: the lower end of the
  one-sided 95 % interval over conditions is above 0.
- What loses to K-Medoids on conditions that were left out, with the guard if it has one, is not chosen; if there is
  nothing else, K-Medoids chooses of all pools.

Of fewer than :data:`ENOUGH` conditions none is left out: a training on one condition alone does not show what several
teach. The selectors validate on unseen images of these conditions, nothing is known of others and no guard can be
judged, and the choice says so. Nothing says when to stop, so that it is trained for all the updates; and a selector
that chooses freely of the whole pool, which is the one that can do most harm, has to gain :data:`FREEDOM` more than one
that is bound to clusters.

::

    python train.py --generalise
    python train.py --generalise --preset kather --data kather2016_texture_features.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import stats

FOLDS = 2
"""Groups of conditions that are left out in turn; as many as there are conditions where these are fewer than four."""

ENOUGH = 3
"""Conditions from which on some are left out, and an interval over them is made."""

FREEDOM = 0.01
"""What a free choice of the whole pool has to gain more, on conditions of the training, where none can be left out."""

SELECTORS_TRIED: dict[str, dict[str, Any]] = {
    "mlp": {"selector": "mlp", "hidden": 128},
    "gated, anchored": {
        **{"selector": "gated-anchored", "hidden": 64, "anchor": 1.0, "anchor_distance": "cosine"},
        **{"learning_rate": 2e-3, "n_samples": 16},
    },
    "discriminant": {"selector": "discriminant", "hidden": 16, "learning_rate": 5e-3},
}
"""The settings that differ between what is tried, by name; the same for every data set."""

FREE = "every pool"
"""What a selector chooses of that has proved itself, or of which nothing is known."""

GUARDED = "familiar pools"
"""What another one chooses of; K-Medoids chooses of the rest."""

CLUSTERING = "no pool"
"""What a selector chooses of where nothing was better than K-Medoids."""


@dataclass(frozen=True)
class Trial:
    """What a selector is worth after some updates: AUROC less that of K-Medoids on the same validation tasks.

    Parameters
    ----------
    updates: gradient steps.
    seen: on the conditions that it was trained on, mean over the groups that were left out.
    left_out: on each condition that was left out.
    guarded: the same, if K-Medoids chooses of pools that are not familiar.
    """

    updates: int
    seen: float
    left_out: dict[str, float] = field(default_factory=dict)
    guarded: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, updates: int, judged: Sequence[dict[str, Any]]) -> Trial:
        """Return the trial of what was found with each group left out
        (:meth:`~activelabel.evaluation.leaving_out.LeftOutValidation.reached`)."""
        merged: dict[str, dict[str, float]] = {"left_out": {}, "guarded": {}}
        for found in judged:
            for name, gains in merged.items():
                gains.update(found.get(name, {}))
        return cls(updates, float(np.mean([found["seen"] for found in judged])), **merged)

    @property
    def proven(self) -> bool:
        """Whether it is above K-Medoids on conditions that are new to it by more than chance."""
        gains = np.array(list(self.left_out.values()))
        if len(gains) < ENOUGH:
            return False
        error = gains.std(ddof=1) / np.sqrt(len(gains))
        return bool(gains.mean() - stats.t.ppf(0.95, len(gains) - 1) * error > 0)

    @property
    def chooses_of(self) -> str:
        """What it is to choose of: :data:`FREE` or :data:`GUARDED`."""
        return FREE if self.proven or not self.left_out else GUARDED

    @property
    def on_others(self) -> float:
        """The mean over the conditions that were left out, with the guard if it has one; 0 where there are none."""
        gains = self.left_out if self.chooses_of == FREE else self.guarded
        return float(np.mean(list(gains.values()))) if gains else 0.0

    @property
    def worth(self) -> float:
        """What it is chosen by: of two equally likely cases, a condition of the training and one that is new."""
        return 0.5 * (self.seen + self.on_others)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Parameters
    ----------
    selector: one of :data:`SELECTORS_TRIED`.
    updates: gradient steps.
    chooses_of: :data:`FREE`, :data:`GUARDED` or :data:`CLUSTERING`.
    left_out: the groups of conditions; a single empty one where nothing could be left out.
    trials: of each selector, in the order of updates.
    """

    selector: str
    updates: int
    chooses_of: str
    left_out: tuple[tuple[str, ...], ...]
    trials: dict[str, list[Trial]]

    @classmethod
    def of(cls, left_out: Sequence[tuple[str, ...]], trials: dict[str, list[Trial]]) -> Choice:
        """Choose the selector and the number of updates of the largest worth; of equal ones the first, and the fewest.

        Those that do no harm on conditions that were left out come before those that do. Where none was, the updates
        are all, and a selector that is not bound to clusters is worth :data:`FREEDOM` less.

        Parameters
        ----------
        left_out: the groups of conditions.
        trials: see the class.
        """
        every = [(name, trial, 0.0) for name, own in trials.items() for trial in own]
        if not any(left_out):
            bound = [name for name, own in SELECTORS_TRIED.items() if "anchor" in own]
            every = [(name, own[-1], 0.0 if name in bound else 0.5 * FREEDOM) for name, own in trials.items()]
        selector, best, _ = max(every, key=lambda each: (each[1].on_others >= 0, each[1].worth - each[2]))
        harmless = best.on_others >= 0 and best.worth > 0
        return cls(selector, best.updates, best.chooses_of if harmless else CLUSTERING, tuple(left_out), trials)

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> Choice:
        """Return what :meth:`notes` described."""
        trials = {name: [Trial(**trial) for trial in own] for name, own in notes["trials"].items()}
        left_out = tuple(tuple(group) for group in notes["left_out"])
        return cls(notes["selector"], int(notes["updates"]), notes["chooses_of"], left_out, trials)

    def notes(self) -> dict[str, Any]:
        """Return it as plain values, which are kept with the model."""
        return asdict(self) | {"left_out": [list(group) for group in self.left_out]}

    def summary(self) -> str:
        """Return one line on what was chosen."""
        if not any(self.left_out):
            on = "unseen images of the conditions of the training, too few to leave one out"
        else:
            on = f"conditions left out in turn ({'; '.join(', '.join(group) for group in self.left_out)})"
        text = f"chosen by meta-validation on {on}: {self.selector}, {self.updates} updates"
        return text if self.chooses_of == FREE else f"{text}; it chooses of {self.chooses_of}, K-Medoids of the rest"

    def table(self) -> list[str]:
        """Return the validations of everything that was tried as a table in text."""
        parts = {"seen": lambda trial: trial.seen}
        if any(self.left_out):
            parts |= {
                "left out": lambda trial: float(np.mean(list(trial.left_out.values()))),
                "guarded": lambda trial: float(np.mean(list(trial.guarded.values()))),
            }
        names = {(name, part): f"{name}: {part}" for name in self.trials for part in parts}
        width = max(len("updates"), *map(len, names.values()))
        steps = " ".join(f"{trial.updates:>6}" for trial in self.trials[self.selector])
        lines = ["AUROC less that of K-Medoids on the same validation tasks:", f"{'updates':<{width}} {steps}"]
        for (name, part), shown in names.items():
            gains = " ".join(f"{parts[part](trial):+6.3f}" for trial in self.trials[name])
            lines.append(f"{shown:<{width}} {gains}")
        return lines


def groups(conditions: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of conditions that are left out in turn: each condition is in one of them, and at least two are
    in the others.

    Fewer than :data:`ENOUGH` conditions give a single empty group.
    """
    if len(conditions) < ENOUGH:
        return [()]
    n = FOLDS if len(conditions) - len(conditions[::FOLDS]) > 1 else len(conditions)
    return [tuple(conditions[i::n]) for i in range(n)]
