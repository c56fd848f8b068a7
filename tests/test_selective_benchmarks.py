"""The benchmarks of ``SelectiveLabel-v0`` measure what they say; how long anything takes is no matter here."""

from __future__ import annotations

import numpy as np
import pytest

from activelabel.agents import Reinforce
from activelabel.data import Cohort
from benchmarks import estimators, evaluation, paper_size, precision, update


@pytest.fixture
def small(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of a small cohort in place of the large one."""
    monkeypatch.setattr(paper_size, "load", lambda name: cohort)


@pytest.mark.usefixtures("small")
def test_the_parts_of_an_update_are_within_it() -> None:
    for n_samples in (1, 3):
        found = update.measure(4, n_samples, update.Settings(repeats=1, batch=4, pool=20))
        assert set(found.parts) == set(update.PARTS)
        assert min(found.parts.values()) > 0
        assert sum(found.parts.values()) < found.rest < found.update


@pytest.mark.usefixtures("small")
def test_the_parts_of_an_evaluation_are_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    forward = Reinforce.policy_aliases["BiLSTMPolicy"].forward
    monkeypatch.setattr(
        Reinforce.policy_aliases["BiLSTMPolicy"], "forward", lambda *a: (passes.append(1), forward(*a))[1]
    )
    found = evaluation.measure(evaluation.Settings(tasks=64, k=(2, 5), pool=20, query=12, repeats=1))
    # Two batches in the evaluation and two alone, in each of two turns: one pass serves every K.
    assert len(passes) == (2 + 2) * 2
    assert set(found.strategies) == {"random", "kmedoids", "reinforce", "report"}
    assert sum(found.strategies.values()) == pytest.approx(found.evaluation)
    assert found.forward + found.kmedoids == pytest.approx(found.alone)


def test_the_ratio_of_the_estimators_is_that_of_median_seconds() -> None:
    found = {
        estimators.THEIRS: np.array([[30, 6.0], [10, 2.0], [50, 9.0]]),
        estimators.OURS: np.array([[1, 0.5], [np.inf, np.inf], [2, 3.0]]),
    }
    assert estimators.ratio(found, estimators.OURS) == pytest.approx(0.5)


@pytest.mark.usefixtures("small")
def test_both_precisions_are_timed() -> None:
    (found,) = precision.limits(precision.Settings(selectors=("mlp",), repeats=1, batch=2, pool=110))
    assert found[0].startswith("REINFORCE update with mlp")
    assert found[1] > 0
    assert found[2] == pytest.approx(2 / 3)
