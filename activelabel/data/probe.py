"""How much a cohort's features know: a linear probe, cross-validated by patient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from activelabel.data.cohort import Cohort, IntArray
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import stream


@dataclass(frozen=True, eq=False)
class Probe:
    """AUROC of a linear probe.

    Parameters
    ----------
    auroc: float64 ``(folds,)``; of several classes the mean over those, each against the rest.
    n: images.
    grouped: whether the folds keep the images of one patient together.
    """

    auroc: NDArray[np.float64]
    n: int
    grouped: bool

    @property
    def mean(self) -> float:
        """The mean over folds."""
        return float(self.auroc.mean())


def linear_probe(
    cohort: Cohort, rows: IntArray | None = None, *, folds: int = 5, c: float = 1.0, seed: int = 0
) -> Probe:
    """Judge features by a logistic regression on them, standardised on the training folds.

    Images that are uncertain for a class are left out for it. The folds depend on labels, patients and seed alone, so
    that two embeddings of the same images can be compared fold by fold (:func:`difference`).

    Parameters
    ----------
    cohort: with features.
    rows: of the images to use; by default all.
    folds: of the cross-validation.
    c: inverse strength of the regularisation.
    seed: of the folds.

    Raises
    ------
    SettingsError: if ``folds`` or ``c`` is out of range.
    DataError: if no class has positive and negative images enough for the folds.
    """
    from sklearn.linear_model import LogisticRegression  # late: half of scikit-learn
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if folds < 2 or not c > 0:
        raise SettingsError(f"folds={folds} must be at least 2 and c={c} positive.")
    rows = np.arange(len(cohort)) if rows is None else rows
    features = cohort.embedded()
    found = []
    for column in _columns(cohort, rows, folds):
        used = rows[cohort.labels[rows, column] >= 0]
        y = cohort.labels[used, column]
        scores = []
        for train, test in _folds(cohort, used, y, folds, seed):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a feature that is constant, in its variance
                model.fit(features[used[train]], y[train])
            scores.append(roc_auc_score(y[test], model.decision_function(features[used[test]])))
        found.append(scores)
    return Probe(np.mean(found, axis=0), len(rows), cohort.patient is not None)


def _columns(cohort: Cohort, rows: IntArray, folds: int) -> list[int]:
    """Return the classes that can be probed; of two that exclude each other the second alone."""
    labels = cohort.labels[rows]
    enough = [
        i for i in range(len(cohort.classes)) if min((labels[:, i] == 1).sum(), (labels[:, i] == 0).sum()) >= 2 * folds
    ]
    if len(cohort.classes) == 2 and (labels.sum(axis=1) == 1).all() and (labels >= 0).all():
        enough = [i for i in enough if i == (1 if cohort.normal is None else 1 - cohort.normal)]
    if not enough:
        raise DataError(f"{cohort.source.name}: no class has {2 * folds} positive and negative images.")
    return enough


def _folds(
    cohort: Cohort, rows: IntArray, y: NDArray[np.int8], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    state = int(stream(seed, "probe").integers(2**31))
    if cohort.patient is None:
        return list(StratifiedKFold(folds, shuffle=True, random_state=state).split(rows, y))
    group = np.unique(cohort.patient[rows], return_inverse=True)[1]
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(rows, y, group))


def difference(a: Probe, b: Probe, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean difference ``a - b`` over folds and the ends of its paired t interval.

    Folds share training images, so the interval is a little too narrow.

    Raises
    ------
    DataError: if the two are not of the same number of images and folds.
    """
    if a.n != b.n or a.auroc.shape != b.auroc.shape:
        raise DataError(f"probes of {a.n} and {b.n} images, {len(a.auroc)} and {len(b.auroc)} folds, are not paired.")
    gaps = a.auroc - b.auroc
    mean, folds = float(gaps.mean()), len(gaps)
    half = float(special.stdtrit(folds - 1, (1 + level) / 2) * gaps.std(ddof=1) / np.sqrt(folds))
    return mean, mean - half, mean + half
