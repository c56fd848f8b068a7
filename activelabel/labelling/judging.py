"""How good the classifier of the labels so far is: cross-validation, and what it cannot tell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from activelabel.data.cohort import IntArray
from activelabel.envs.learners import Learner
from activelabel.evaluation.statistics import Interval
from activelabel.labelling.seeing import fit
from activelabel.seeding import stream

FOLDS = 5
REPEATS = 5
"""Of the cross-validation; each repeat divides the images anew."""

_FEW = 30


@dataclass(frozen=True, eq=False)
class Judgement:
    """What cross-validation found.

    Parameters
    ----------
    accuracy: share of images whose class the classifiers told that were fitted without them, with its interval; None
        where no two classes have two labels (of two patients).
    folds: of each repeat.
    patients: how many patients the images are of, where patients are known.
    counts: labels of each class, by name, in the classes' order.
    recalls: of each class that was cross-validated, the share of its images that were told.
    commonest: the share of the commonest class, which guessing reaches.
    """

    accuracy: Interval | None
    folds: int
    patients: int | None
    counts: dict[str, int]
    recalls: dict[str, float]
    commonest: float

    def lines(self) -> list[str]:
        """Return it in words."""
        labels = sum(self.counts.values())
        told = [f"{labels} labels" + "".join(f", {name} {count}" for name, count in self.counts.items())]
        unit = "label" if self.patients is None else "patient"
        if self.accuracy is None:
            return [*told, f"accuracy: not known yet; it takes two classes with two {unit}s each."]
        a = self.accuracy
        by = "" if self.patients is None else f", the images of one of {self.patients} patients always together"
        told += [
            f"accuracy {a.mean:.3f} (95 %: {a.low:.3f} to {a.high:.3f}), cross-validated in {self.folds} folds{by}",
            f"always guessing the commonest class: {self.commonest:.3f}",
            "recognised: " + ", ".join(f"{name} {share:.0%}" for name, share in self.recalls.items()),
        ]
        if left_out := [name for name in self.counts if name not in self.recalls]:
            told.append(f"not judged, with fewer than two {unit}s: {', '.join(left_out)}")
        if a.n < _FEW:
            told.append(f"{a.n} {unit}s say little: expect this figure to move.")
        told.append("The labelled images were chosen, not drawn at random: on the whole folder it may be another.")
        return told


def cross_validate(
    x: Tensor,
    labels: IntArray,
    classes: Sequence[str],
    groups: NDArray[np.str_] | None,
    learner: Learner,
    seed: int = 0,
) -> Judgement:
    """Judge a learner on labelled images.

    Stratified by class, in at most five folds, five times; where there are patients, no fold divides one. The interval
    is Wilson's for as many independent trials as there are images, or patients: patients' images are alike. It is
    approximate, since the classifiers share images.

    Parameters
    ----------
    x: float32 ``(n, d)``.
    labels: int64 ``(n,)``.
    classes: names.
    groups: the patient of each image ``(n,)``, or None.
    learner: that is fitted.
    seed: of the folds.
    """
    n_classes = len(classes)
    numbers = np.bincount(labels, minlength=n_classes)
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = np.array([len(np.unique(unit[labels == c])) for c in range(n_classes)])
    counts = {name: int(count) for name, count in zip(classes, numbers, strict=True)}
    judged = np.flatnonzero(units >= 2)
    used = np.flatnonzero(np.isin(labels, judged))
    patients = None if groups is None else len(np.unique(unit[used]))
    if len(judged) < 2:
        return Judgement(None, 0, patients, counts, {}, 0.0)
    own = np.searchsorted(judged, labels[used])
    folds = min(FOLDS, int(units[judged].min()))
    right = np.mean(
        [
            _right(x[used], own, len(judged), None if groups is None else unit[used], learner, folds, seed, repeat)
            for repeat in range(REPEATS)
        ],
        axis=0,
    )
    trials = len(used) if patients is None else patients
    return Judgement(
        wilson(float(right.mean()), trials),
        folds,
        patients,
        counts,
        {classes[int(c)]: float(right[own == i].mean()) for i, c in enumerate(judged)},
        float(numbers[judged].max() / len(used)),
    )


def _right(
    x: Tensor,
    y: IntArray,
    n_classes: int,
    groups: IntArray | None,
    learner: Learner,
    folds: int,
    seed: int,
    repeat: int,
) -> NDArray[np.float64]:
    """Return 1 for each image that a classifier fitted without its fold tells, else 0, ``(n,)``."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    state = int(stream(seed, "labelling folds", repeat).integers(2**31))
    split = StratifiedKFold if groups is None else StratifiedGroupKFold
    right = np.zeros(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds, where patients go first
        for train, test in split(folds, shuffle=True, random_state=state).split(y, y, groups):
            model = fit(learner, x[train], y[train], n_classes)
            right[test] = model.predict_proba(x[test])[0].argmax(dim=-1).numpy() == y[test]
    return right


def wilson(share: float, n: int, level: float = 0.95) -> Interval:
    """Return a share of ``n`` trials with Wilson's interval, which stays within 0 to 1."""
    z = float(special.ndtri(0.5 + level / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), n)
