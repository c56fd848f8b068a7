"""Bootstraps against scipy and against loops."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from activelabel.errors import SettingsError
from activelabel.evaluation import bootstrap
from activelabel.evaluation.bootstrap import (
    hierarchical_bootstrap,
    iqm,
    labels_saved,
    optimality_gap,
    probability_of_improvement,
    resampled_means,
    stratified_bootstrap,
)
from activelabel.seeding import stream

GENERATOR = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
"""What SciPy calls it; before 1.15 it was the latter."""


def draw(name: str, *shape: int) -> np.ndarray:
    return 0.7 + 0.1 * stream(0, name).standard_normal(shape)


# -- tasks and training seeds --------------------------------------------------------------------------------------


def test_hierarchical_resamples_are_those_of_a_loop() -> None:
    d = draw("d", 2, 3, 7)
    found = resampled_means(d, 40, seed=5)
    rng = stream(5, "hierarchical bootstrap")
    seeds, tasks = (rng.multinomial(n, [1 / n] * n, size=40) for n in (3, 7))
    for study in range(2):
        for i in range(40):
            rows, columns = np.repeat(np.arange(3), seeds[i]), np.repeat(np.arange(7), tasks[i])
            assert found[study, i] == pytest.approx(d[study][np.ix_(rows, columns)].mean(), rel=1e-12)


def test_hierarchical_bootstrap_of_one_seed_is_scipys() -> None:
    a, b = draw("a", 1, 60), draw("b", 60)
    found = hierarchical_bootstrap(a, b, n_boot=8000)
    rng = stream(1, "scipy")
    options: dict[str, Any] = {"method": "percentile", "n_resamples": 8000}
    expected = stats.bootstrap((a[0] - b,), np.mean, **{GENERATOR: rng}, **options).confidence_interval
    assert found.mean == pytest.approx((a[0] - b).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)


def test_hierarchical_bootstrap_knows_seeds() -> None:
    a = draw("a", 8, 60) + np.linspace(-0.2, 0.2, 8)[:, None]
    narrow = hierarchical_bootstrap(a.mean(0), np.zeros(60))
    assert hierarchical_bootstrap(a, np.zeros(60)).half_width > 3 * narrow.half_width
    assert math.isnan(hierarchical_bootstrap([[0.5], [0.7]], [0.1]).low)


# -- aggregates ----------------------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 100))


@given(SHAPES)
def test_iqm_is_scipys_trimmed_mean(shape: tuple[int, int, int]) -> None:
    scores = stream(shape[2], "iqm").standard_normal((2, *shape[:2]))
    assert iqm(scores) == pytest.approx([stats.trim_mean(x, 0.25, axis=None) for x in scores])


def test_optimality_gap_by_hand() -> None:
    scores = np.array([[0.5, 0.9], [1.5, 0.7]])
    assert optimality_gap(scores) == pytest.approx((0.5 + 0.1 + 0 + 0.3) / 4)
    assert optimality_gap(scores, 0.6) == pytest.approx(0.1 / 4)
    assert optimality_gap(np.stack([scores, scores + 1])) == pytest.approx([0.225, 0.0])


@given(SHAPES, st.integers(1, 5))
def test_probability_of_improvement_is_mann_whitneys(shape: tuple[int, int, int], runs: int) -> None:
    rng = stream(shape[2], "poi")
    a, b = (rng.integers(4, size=(n, shape[1])) / 4 for n in (shape[0], runs))  # many ties
    beaten = [stats.mannwhitneyu(x, y, method="asymptotic").statistic for x, y in zip(a.T, b.T, strict=True)]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(beaten) / (shape[0] * runs))
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1)


@pytest.mark.parametrize("resample_tasks", [False, True])
@pytest.mark.parametrize("statistic", [iqm, optimality_gap, probability_of_improvement])
def test_stratified_bootstrap_is_that_of_a_loop(
    statistic: Any, resample_tasks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_NUMBERS", 5000)  # several chunks
    scores = [draw(name, runs, 6) for name, runs in (("a", 5), ("b", 4))]
    scores = scores if statistic is probability_of_improvement else scores[:1]
    found = stratified_bootstrap(statistic, *scores, n_boot=8000, resample_tasks=resample_tasks)
    rng, draws = stream(1, "loop"), []
    for _ in range(800):
        tasks = rng.integers(6, size=6) if resample_tasks else range(6)
        drawn = [np.stack([rng.choice(x[:, t], len(x)) for t in tasks], axis=1) for x in scores]
        draws.append(float(statistic(*drawn)))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.mean == pytest.approx(float(statistic(*scores)))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found.n == 6


def test_stratified_bootstrap_of_one_task_is_scipys() -> None:
    scores = draw("one", 30, 1)
    found = stratified_bootstrap(lambda x: x.mean((-2, -1)), scores, n_boot=8000, level=0.9)
    options: dict[str, Any] = {"method": "percentile", "n_resamples": 8000, "confidence_level": 0.9}
    generator = {GENERATOR: stream(1, "scipy")}
    expected = stats.bootstrap((scores[:, 0],), np.mean, **generator, **options).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)


def test_one_run_has_no_spread_within_a_task() -> None:
    scores = draw("single", 40)
    found = stratified_bootstrap(iqm, scores)
    assert found.mean == pytest.approx(stats.trim_mean(scores, 0.25))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    over_tasks = stratified_bootstrap(iqm, scores, resample_tasks=True)
    assert over_tasks.low < over_tasks.mean < over_tasks.high


def test_seeds_decide_and_nothing_else() -> None:
    scores = draw("a", 5, 12)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = stratified_bootstrap(iqm, scores, seed=3)
    assert found == stratified_bootstrap(iqm, scores, seed=3)
    assert found != stratified_bootstrap(iqm, scores, seed=4)
    assert hierarchical_bootstrap(scores, scores[0], seed=3) == hierarchical_bootstrap(scores, scores[0], seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        ((), {}),
        ((np.zeros((2, 3)), np.zeros((2, 4))), {}),
        ((np.zeros((0, 3)),), {}),
        ((np.zeros((2, 2, 3)),), {}),
        ((np.array([[np.nan, 1.0]]),), {}),
        ((np.zeros((2, 3)),), {"level": 1.0}),
        ((np.zeros((2, 3)),), {"n_boot": 0}),
    ],
)
def test_bad_scores_are_refused(scores: tuple[np.ndarray, ...], options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"scores must be|level="):
        stratified_bootstrap(iqm, *scores, **options)


# -- labels saved --------------------------------------------------------------------------------------------------

LABELS = np.array([0, 10, 20, 40])
A = np.array([[0.5, 0.7, 0.8, 0.9]])
B = np.array([[0.5, 0.6, 0.7, 0.85]])


@pytest.mark.parametrize(
    ("at", "needed"),
    [(10, 20), (20, 20 + 20 * 0.1 / 0.15), (15, 20 + 20 * 0.05 / 0.15), (0, 0), (5, 10), (40, math.nan)],
)
def test_labels_that_b_needs(at: int, needed: float) -> None:
    found = labels_saved(LABELS, A, B, at)
    assert found.needed == pytest.approx(needed, nan_ok=True)
    assert found.saved == pytest.approx(needed - at, nan_ok=True)
    assert math.isnan(found.low)
    assert found.budget == 40


def test_a_strategy_saves_nothing_beside_itself_and_costs_beside_a_better_one() -> None:
    for at in (0, 10, 25, 40):
        assert labels_saved(LABELS, A, A, at).saved == pytest.approx(0)
    assert labels_saved(LABELS, B, A, 20).saved == pytest.approx(-10)


def test_the_interval_of_labels_is_that_of_a_loop() -> None:
    rng = stream(0, "episodes")
    a, b = (curve + 0.05 * rng.standard_normal((25, 4)) for curve in (A, B))
    found = labels_saved(LABELS, a, b, 15, n_boot=403, seed=2)
    counts = stream(2, "labels saved").multinomial(25, [1 / 25] * 25, size=403)
    needed = []
    for count in counts:
        rows = np.repeat(np.arange(25), count)
        goal, curve = np.interp(15, LABELS, a[rows].mean(0)), b[rows].mean(0)
        fine = np.linspace(0, 40, 40001)
        reached = np.interp(fine, LABELS, curve) >= goal
        needed.append(fine[reached.argmax()] if reached.any() else math.inf)
    low, high = np.quantile(needed, [0.025, 0.975], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)
    assert found.low < found.needed < found.high
    assert found.not_reached == pytest.approx(np.mean(np.isinf(needed)))


def test_beyond_the_budget_is_said() -> None:
    rng = stream(0, "episodes")
    a, b = (curve + 0.02 * rng.standard_normal((25, 4)) for curve in (A, B))
    never = labels_saved(LABELS, a, b)
    assert math.isnan(never.needed)
    assert never.not_reached == 1
    assert never.line("DDQN", "random").startswith("random does not reach what DDQN has with 40 labels")
    unsure = labels_saved(LABELS, A[:, [0, 1, 2, 2]] + 0.05 + a - A, b)
    assert math.isfinite(unsure.low)
    assert math.isnan(unsure.high)
    assert 0.025 < unsure.not_reached < 1
    assert "to over 40; 25 tasks" in unsure.line("DDQN", "random")


@pytest.mark.parametrize(
    ("labels", "a", "b", "options", "match"),
    [
        (LABELS, A, B[:, :3], {}, "curves must be"),
        (LABELS, A, np.repeat(B, 2, axis=0), {}, "curves must be"),
        (LABELS[::-1], A, B, {}, "increasing"),
        (LABELS, A * np.nan, B, {}, "finite"),
        (LABELS, A, B, {"at": 41}, "at=41 labels is outside the curves' 0 to 40"),
        (LABELS, A, B, {"level": 0}, "level=0"),
    ],
)
def test_bad_curves_are_refused(
    labels: np.ndarray, a: np.ndarray, b: np.ndarray, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        labels_saved(labels, a, b, **options)
