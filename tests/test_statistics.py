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
from activelabel.evaluation.statistics import (
    Components,
    Difference,
    crossed_intervals,
    hierarchical_difference,
    judge,
)
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


# -- tasks and training seeds --------------------------------------------------------------------------------------


def scores(seeds: int, tasks: int, *, seed: float = 0.02, task: float = 0.05, noise: float = 0.03) -> np.ndarray:
    rng = stream(seeds, "scores", tasks)
    parts = (seed, (seeds, 1)), (task, (1, tasks)), (noise, (seeds, tasks))
    return 0.8 + sum(deviation * rng.standard_normal(shape) for deviation, shape in parts)


def slow_interval(d: np.ndarray, level: float) -> tuple[float, float]:
    """Return mean and half width as the docstring defines them, cell by cell."""
    n_seeds, n_tasks = d.shape
    mean = sum(map(float, d.ravel())) / d.size
    rows = [sum(map(float, row)) / n_tasks for row in d]
    columns = [sum(map(float, column)) / n_seeds for column in d.T]
    seed = n_tasks * sum((row - mean) ** 2 for row in rows) / (n_seeds - 1)
    task = n_seeds * sum((column - mean) ** 2 for column in columns) / (n_tasks - 1)
    total = sum((d[s, t] - rows[s] - columns[t] + mean) ** 2 for s in range(n_seeds) for t in range(n_tasks))
    noise = total / (n_seeds - 1) / (n_tasks - 1)
    task = max(task, noise)
    t_seeds, t_tasks = (stats.t(n - 1).ppf((1 + level) / 2) for n in (n_seeds, n_tasks))
    c = stats.chi2(n_seeds - 1).ppf(0.5) / (n_seeds - 1)
    squared = t_seeds**2 * max(seed - c * noise, 0) + t_tasks**2 * (task - (1 - c) * noise)
    return mean, math.sqrt(max(squared, t_tasks**2 * task) / (n_seeds * n_tasks))


@pytest.mark.parametrize(("seeds", "tasks"), [(2, 5), (3, 20), (5, 7)])
@pytest.mark.parametrize("seed", [0.0, 0.05])
@pytest.mark.parametrize("level", [0.68, 0.95])
def test_hierarchical_difference_is_the_slow_one(seeds: int, tasks: int, seed: float, level: float) -> None:
    a, b = scores(seeds, tasks, seed=seed), scores(1, tasks)
    found = hierarchical_difference(a, b, level)
    mean, half = slow_interval(a - b, level)
    assert (found.mean, found.half_width) == pytest.approx((mean, half), rel=1e-9)
    assert (found.n, found.seeds, found.level) == (tasks, seeds, level)


def test_without_seed_effects_and_noise_it_is_the_interval_over_tasks() -> None:
    tasks = scores(1, 30)[0]
    found, expected = hierarchical_difference(np.tile(tasks, (4, 1)), np.zeros(30)), mean_interval(tasks)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_with_seed_effects_alone_it_is_the_interval_over_seeds() -> None:
    seeds = scores(5, 1)
    found, expected = hierarchical_difference(np.tile(seeds, (1, 40)), np.zeros(40)), mean_interval(seeds)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_components_are_found() -> None:
    found = hierarchical_difference(scores(200, 300), np.zeros(300)).components
    assert [math.sqrt(x) for x in (found.seed, found.task, found.noise)] == pytest.approx([0.02, 0.05, 0.03], rel=0.1)


def test_a_strategy_that_is_not_trained_stands_beside_every_seed() -> None:
    a, b = scores(3, 20), scores(1, 20)[0]
    expected = hierarchical_difference(a, np.tile(b, (3, 1)))
    assert hierarchical_difference(a, b) == hierarchical_difference(a, b[None]) == expected


def test_the_other_way_round_it_is_the_negative() -> None:
    a, b = scores(3, 20), scores(4, 20)[:3]
    one, other = hierarchical_difference(a, b), hierarchical_difference(b, a)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


@pytest.mark.parametrize(("rows", "trained", "words"), [(0, 0, "20 tasks"), (1, 1, "for this training seed alone")])
def test_one_seed_is_the_interval_over_tasks_and_says_so(rows: int, trained: int, words: str) -> None:
    a, b = scores(1, 20), scores(2, 20)[1]
    found = hierarchical_difference(a if rows else a[0], b)
    expected = paired_difference(a[0], b)
    assert (found.mean, found.low, found.high, found.n) == (expected.mean, expected.low, expected.high, 20)
    assert found.seeds == trained
    assert found.holds_for.endswith(words)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_task_has_no_interval(seeds: int) -> None:
    found = hierarchical_difference(scores(seeds, 1), [0.8])
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    judged = judge(found)
    assert (judged.says, judged.tasks) == ("not distinguishable", None)
    assert "says nothing of others" in judged.line("A", "B")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((3, 5)), np.zeros((2, 5))),
        (np.zeros((3, 5)), np.zeros((3, 4))),
        (np.zeros((2, 3, 5)), np.zeros(5)),
        (np.zeros((3, 0)), np.zeros(0)),
        (np.full((3, 5), np.nan), np.zeros(5)),
    ],
)
def test_scores_that_are_not_paired_are_refused(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="scores must be"):
        hierarchical_difference(a, b)


# -- verdicts ------------------------------------------------------------------------------------------------------


def gap(mean: float, tasks: int, seeds: int, parts: Components) -> Difference:
    """Return a difference that is not distinguishable."""
    return Difference(mean, mean - 2 * abs(mean) - 1, mean + 2 * abs(mean) + 1, tasks, seeds, 0.95, parts)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_tasks_that_settle_one_seed_are_those_of_published_tables(effect: float, n: int) -> None:
    judged = judge(gap(effect, 4, 1, Components(math.nan, 1.0, 0.0)))
    assert (judged.tasks, judged.seeds, judged.limited_by_seeds) == (n, 1, False)
    assert f"would take {n} tasks" in judged.line("A", "B")


@pytest.mark.parametrize(
    ("mean", "parts", "by_seeds"),
    [
        (0.01, Components(0.0, 0.004, 0.002), False),
        (-0.01, Components(0.00002, 0.004, 0.002), False),
        (0.015, Components(0.0003, 0.004, 0.002), True),
        (0.02, Components(0.0003, 0.002, 0.002), True),
    ],
)
def test_a_study_of_the_size_that_settles_it_has_that_power(mean: float, parts: Components, by_seeds: bool) -> None:
    judged = judge(gap(mean, 50, 5, parts))
    assert judged.limited_by_seeds is by_seeds
    assert judged.tasks is not None
    assert judged.seeds is not None
    assert ("more tasks alone cannot" in judged.needs()) is by_seeds
    rng, n = stream(0, "power"), 600
    shapes = (n, judged.seeds, 1), (n, 1, judged.tasks), (n, judged.seeds, judged.tasks)
    variances = (parts.seed, parts.task, parts.noise)
    studies = sum(math.sqrt(v) * rng.standard_normal(shape) for v, shape in zip(variances, shapes, strict=True))
    found, half = crossed_intervals(mean + studies)
    assert (np.abs(found) > half).mean() == pytest.approx(0.8, abs=0.06)


def test_a_verdict_that_is_settled_asks_for_no_more() -> None:
    a = scores(5, 50, seed=0.001)
    for better, said in ((a + 0.2, "better"), (a - 0.2, "worse")):
        judged = judge(hierarchical_difference(better, scores(1, 50)))
        assert (judged.says, judged.tasks, judged.seeds, judged.needs()) == (said, None, None, "settled")
        line = judged.line("A", "B")
        assert line.startswith(f"A is {said} than B: ")
        assert "50 tasks, 5 training seeds" in line


def test_no_difference_is_never_settled() -> None:
    judged = judge(hierarchical_difference(scores(3, 20), scores(3, 20)))
    assert (judged.says, judged.tasks) == ("not distinguishable", None)
    assert "no feasible number" in judged.line("A", "B")


def test_a_larger_power_takes_more() -> None:
    difference = gap(0.3, 4, 1, Components(math.nan, 1.0, 0.0))
    some, more = judge(difference).tasks, judge(difference, 0.95).tasks
    assert some is not None
    assert more is not None
    assert some < more
    with pytest.raises(SettingsError, match="power"):
        judge(difference, 1.0)
