"""Intervals and verdicts against a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from activelabel.errors import SettingsError
from activelabel.evaluation import Interval, mean_interval, paired_difference, verdict
from activelabel.seeding import stream

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


@given(VALUES)
def test_interval_is_scipys(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    error = stats.sem(values)
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.half_width == pytest.approx((found.high - found.low) / 2)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = stream(0, "coverage")
    covered = [i.low <= 0 <= i.high for i in (mean_interval(rng.standard_normal(20)) for _ in range(2000))]
    assert 0.93 < np.mean(covered) < 0.97


def test_one_value_has_no_interval() -> None:
    single = mean_interval([0.5])
    assert single.mean == 0.5
    assert math.isnan(single.low)
    assert math.isnan(single.high)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf"), 0.0]])
def test_values_that_have_no_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(SettingsError, match="finite values"):
        mean_interval(values)


@given(VALUES)
def test_pairing_removes_what_tasks_share(values: list[float]) -> None:
    difference = paired_difference(np.array(values) + 0.25, values)
    assert difference.mean == pytest.approx(0.25, abs=1e-9)
    assert difference.half_width == pytest.approx(0, abs=1e-9)


def test_pairs_must_match() -> None:
    with pytest.raises(SettingsError, match="same tasks"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.02, "better"),
        (-0.02, -0.01, "worse"),
        (-0.01, 0.01, "not distinguishable"),
        (0.0, 0.1, "not distinguishable"),
    ],
)
def test_verdict(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high, 10)) == said
