"""The linear probe, against scikit-learn used directly and against what must come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from activelabel.data import Cohort, Source, load
from activelabel.data.probe import Probe, difference, linear_probe
from activelabel.errors import DataError, SettingsError


def _cohort(signal: float, n: int = 300, patients: bool = True, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    features = rng.standard_normal((n, 6)) + signal * y[:, None] * np.eye(6)[0]
    return Cohort(
        np.eye(2, dtype=np.int8)[y],
        ("healthy", "ill"),
        features.astype(np.float32),
        normal=0,
        patient=np.arange(n) // 3 if patients else None,
        source=Source("some"),
    )


def test_no_signal_gives_a_half_and_a_strong_one_nearly_one() -> None:
    assert linear_probe(_cohort(0, n=2000)).mean == pytest.approx(0.5, abs=0.05)
    assert linear_probe(_cohort(8)).mean > 0.999


def test_a_patient_is_on_one_side_of_a_fold() -> None:
    # The patient is all that the features say: known patients give the answer away, new ones do not.
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(100), 6)
    y = rng.integers(0, 2, 100)[patient]
    features = np.eye(100, dtype=np.float32)[patient]
    cohort = Cohort(np.eye(2, dtype=np.int8)[y], ("a", "b"), features, patient=patient)
    assert linear_probe(cohort).mean < 0.7
    assert linear_probe(replace(cohort, patient=None)).mean > 0.99


def test_it_equals_scikit_learn_used_directly() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from activelabel.seeding import stream

    cohort = _cohort(1)
    x, y = cohort.embedded(), cohort.labels[:, 1]
    state = int(stream(3, "probe").integers(2**31))
    expected = []
    for train, test in StratifiedGroupKFold(4, shuffle=True, random_state=state).split(x, y, cohort.patient):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x[train], y[train])
        expected.append(roc_auc_score(y[test], model.predict_proba(x[test])[:, 1]))
    found = linear_probe(cohort, folds=4, c=0.1, seed=3)
    np.testing.assert_allclose(found.auroc, expected, atol=1e-6)
    assert (found.n, found.grouped) == (300, True)


def test_several_classes_are_averaged_and_uncertain_labels_left_out() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((400, 3)) < 0.4).astype(np.int8)
    features = np.column_stack([4.0 * labels[:, 0], rng.standard_normal((400, 2))]).astype(np.float32)
    cohort = Cohort(labels, ("a", "b", "c"), features)
    both = linear_probe(cohort)
    assert both.mean == pytest.approx(2 / 3, abs=0.06)
    labels = labels.copy()
    labels[:50, 0] = -1  # and their feature lies
    features[:50, 0] = 4.0 * (1 - labels[:50, 1])
    one = Cohort(labels[:, :1], ("a",), features)
    assert linear_probe(one).mean > 0.999
    labels[:, 2] = 0  # a class without positives is none to probe
    assert linear_probe(Cohort(labels[:, [0, 2]], ("a", "c"), features)).mean > 0.999


def test_rows_choose() -> None:
    cohort = _cohort(1)
    rows = np.arange(0, 300, 2)
    assert np.array_equal(linear_probe(cohort, rows).auroc, linear_probe(cohort.take(rows)).auroc)


def test_differences_are_paired_by_fold() -> None:
    a, b = linear_probe(_cohort(1.5)), linear_probe(_cohort(0.5))
    mean, low, high = difference(a, b)
    expected = stats.ttest_rel(a.auroc, b.auroc).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx(((a.auroc - b.auroc).mean(), expected.low, expected.high))
    with pytest.raises(DataError, match="300 and 10 images"):
        difference(a, Probe(b.auroc, 10, True))


def test_bad_requests_are_told() -> None:
    with pytest.raises(SettingsError, match="folds=1"):
        linear_probe(_cohort(1), folds=1)
    with pytest.raises(SettingsError, match="c=0"):
        linear_probe(_cohort(1), c=0)
    with pytest.raises(DataError, match="no class has 10 positive and negative images"):
        linear_probe(_cohort(1).take(np.arange(12)))


@pytest.mark.data
def test_the_shared_embeddings_know_pneumonia(data_dir: Path) -> None:
    cohort = load(data_dir / "kermany_cxr96_efflite0.npz")
    rows = np.random.default_rng(0).permutation(len(cohort))[:1500]
    assert linear_probe(cohort, rows, c=0.01).mean > 0.97
