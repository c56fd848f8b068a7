"""The analyses of MedSelect §4.2 and Figure 3, against hand-made tasks and scipy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hand_made import hand_chosen, hand_made
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import pdist

from activelabel.baselines import KMedoids, Random
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelSettings
from activelabel.errors import DataError, SettingsError
from activelabel.evaluation import paired_difference
from activelabel.evaluation.medselect import (
    PAPER,
    PAPER_SHIFT,
    compare_selections,
    describe,
    shift_from_random,
    wasserstein,
)
from activelabel.evaluation.selections import Selections, collect
from activelabel.seeding import stream

NAN = float("nan")
K = 5


def two_views(**clinical: NDArray[np.float32]) -> Cohort:
    """The hand-made cohort with more images that are not frontal."""
    frontal = np.array([1, 1, 0, 1, 1, 0, 0, 0], dtype=np.float32)
    return hand_made(clinical={**hand_made().clinical, "frontal": frontal, **clinical})


class YoungFrontal:
    """Chooses the youngest frontal images."""

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        clinical = observation["clinical"]
        return np.argsort(clinical[:, :, 0] - 100 * clinical[:, :, 2], axis=1, kind="stable")[:, :K], state


@pytest.fixture(scope="module")
def chosen(cohort: Cohort) -> dict[str, Selections]:
    settings = SelectiveLabelSettings(k=K, pool=40, query=12, split="test")
    engine = SelectiveLabelEngine(cohort, settings, device="cpu")
    strategies = {"a": YoungFrontal(), "b": KMedoids(K), "random": Random(K), "control": Random(K, seed=1)}
    return {name: collect(engine, strategy, K, 40) for name, strategy in strategies.items()}


# -- §4.2 --------------------------------------------------------------------------------------------------------------


def test_measures_of_hand_made_tasks() -> None:
    found = describe(two_views(), hand_chosen([[0, 1, 2], [0, 3, 3]]))  # rows 0, 1, 2 and 4, 7
    expected = {
        "frontal": [2 / 3, 1 / 2],
        "female": [2 / 3, 1 / 2],
        "age": [30, 75],
        "mean distance": [(5 + 10 + 5) / 3, 9],
        "largest distance": [10, 9],
        "mean distance, frontal": [5, NAN],
        "largest distance, frontal": [5, NAN],
    }
    assert set(found) == set(PAPER) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_missing_values_count_nowhere() -> None:
    age = np.array([NAN, 30, 40, 50, NAN, 70, 80, NAN], dtype=np.float32)
    frontal = np.array([1, NAN, 1, 0, 1, 1, 0, NAN], dtype=np.float32)
    found = describe(two_views(age=age, frontal=frontal), hand_chosen([[0, 1, 2], [0, 3, -1]]))
    np.testing.assert_allclose(found["age"], [35, NAN])
    np.testing.assert_allclose(found["frontal"], [1, 1])
    np.testing.assert_allclose(found["mean distance, frontal"], [10, NAN])


def test_distances_are_where_the_strategy_sees_the_images() -> None:
    cohort = hand_made()
    doubled = hand_chosen([[0, 1], [0, 1]], points=2 * cohort.embedded())
    np.testing.assert_allclose(describe(cohort, doubled)["mean distance"], [10, 2])
    images = np.zeros((8, 2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match="made has no features"):
        describe(hand_made(features=None, images=images), hand_chosen([[0, 1], [0, 1]]))


def test_comparison_is_scipys_t_test(cohort: Cohort, chosen: dict[str, Selections]) -> None:
    a, b = describe(cohort, chosen["b"]), describe(cohort, chosen["random"])
    found = compare_selections(cohort, chosen["b"], chosen["random"], ("kmedoids", "random"))
    assert [row["measure"] for row in found.rows] == list(PAPER)
    for row in found.rows:
        x, y = a[row["measure"]], b[row["measure"]]
        known = np.isfinite(x), np.isfinite(y)
        expected = stats.ttest_ind(x[known[0]], y[known[1]])
        assert (row["t"], row["p"]) == pytest.approx((expected.statistic, expected.pvalue))
        assert (row["a"], row["b"]) == pytest.approx((x[known[0]].mean(), y[known[1]].mean()))
        both = known[0] & known[1]
        gap = paired_difference(x[both], y[both])
        assert (row["difference"], row["ci"], row["n"]) == (gap.mean, [gap.low, gap.high], both.sum())
        assert (row["paper_a"], row["paper_b"]) == PAPER[row["measure"]]
    assert json.loads(json.dumps(found.rows, allow_nan=False)) == found.rows


def test_directions_are_compared_with_the_papers(cohort: Cohort, chosen: dict[str, Selections]) -> None:
    def directions(first: str, second: str) -> dict[str, str]:
        found = compare_selections(cohort, chosen[first], chosen[second])
        return {row["measure"]: row["direction"] for row in found.rows}

    forth, back = directions("a", "b"), directions("b", "a")
    assert forth["frontal"] == forth["age"] == "as in the paper"
    assert back["frontal"] == back["age"] == "opposite"
    assert directions("random", "control")["frontal"] == "not distinguishable"
    table = compare_selections(cohort, chosen["a"], chosen["b"]).table()
    for text in ("REINFORCE", "K-Medoids", "99.96%", "77.58%", "45.20", "54.80", "12.37", "< 0.001", "as in the paper"):
        assert text in table


def test_constant_samples_have_no_t_test() -> None:
    first, second = hand_chosen([[0, 1], [0, 0]]), hand_chosen([[2, 2], [1, 2]])  # all frontal; none
    rows = {row["measure"]: row for row in compare_selections(two_views(), first, second).rows}
    assert (rows["frontal"]["t"], rows["frontal"]["p"]) == (None, 0.0)
    assert rows["frontal"]["direction"] == "as in the paper"
    rows = {row["measure"]: row for row in compare_selections(two_views(), first, first).rows}
    assert (rows["frontal"]["t"], rows["frontal"]["p"]) == (None, None)
    assert rows["frontal"]["direction"] == "not distinguishable"
    varied = hand_chosen([[0, 2], [0, 0]])  # shares 1 / 2 and 1 against 1 and 1: t is the square root of 1
    rows = {row["measure"]: row for row in compare_selections(two_views(), first, varied).rows}
    assert (rows["frontal"]["t"], rows["frontal"]["p"]) == pytest.approx((1, 2 * stats.t.sf(1, 2)))


def test_without_clinical_variables_it_is_said(cohort: Cohort, chosen: dict[str, Selections]) -> None:
    bare = replace(cohort, clinical={})
    found = compare_selections(bare, chosen["a"], chosen["b"])
    rows = {row["measure"]: row for row in found.rows}
    missing = ["frontal", "female", "age", "mean distance, frontal", "largest distance, frontal"]
    for name in missing:
        assert (rows[name]["a"], rows[name]["p"], rows[name]["n"]) == (None, None, 0)
        assert rows[name]["direction"] == "not measured"
    assert f"Not measured here, since too few of the selected images have it: {', '.join(missing)}." in found.table()
    assert rows["mean distance"]["n"] == 40
    shift = shift_from_random(bare, chosen["a"], chosen["b"], chosen["random"], chosen["control"])
    assert [row["direction"] == "not measured" for row in shift.rows] == [False, True]
    assert "age -" in shift.table()
    assert "not in this cohort" in [text.get_text() for text in shift.draw().axes[1].texts]


# -- Figure 3 ----------------------------------------------------------------------------------------------------------


def test_wasserstein_is_the_area_between_quantile_functions() -> None:
    rng = stream(0, "wasserstein")
    a, b = [rng.normal(50, 10, 12) for _ in range(8)], [rng.normal(45, 20, 12) for _ in range(8)]
    equal = [np.abs(np.sort(x) - np.sort(y)).mean() for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(wasserstein(a, b), equal)
    c = [x[:4] for x in b]  # 12 and 4 values: each of the four stands for three
    unequal = [np.abs(np.sort(x) - np.repeat(np.sort(y), 3)).mean() for x, y in zip(a, c, strict=True)]
    np.testing.assert_allclose(wasserstein(a, c), unequal)
    empty = np.array([])
    assert np.isnan(wasserstein([a[0], empty], [empty, b[0]])).all()


def test_shift_of_hand_made_tasks() -> None:
    a, b = hand_chosen([[0, 1], [0, 1]]), hand_chosen([[0, 2], [0, 0]])
    random, control = hand_chosen([[2, 3], [2, 3]]), hand_chosen([[0, 3], [1, 3]])
    found = shift_from_random(hand_made(), a, b, random, control)
    # Ages 20, 30 and 60, 70; 20, 40 and 60; 40, 50 and 80, 90; 20, 50 and 70, 90.
    np.testing.assert_allclose(found.values["age"]["reinforce"], [20, 20])
    np.testing.assert_allclose(found.values["age"]["kmedoids"], [15, 25])
    np.testing.assert_allclose(found.values["age"]["random"], [10, 5])
    # Distances 5 and 1; 10 and none; sqrt(85) and 4; 1 and 8.
    np.testing.assert_allclose(found.values["distances"]["reinforce"], [85**0.5 - 5, 3])
    np.testing.assert_allclose(found.values["distances"]["kmedoids"], [10 - 85**0.5, NAN])
    np.testing.assert_allclose(found.values["distances"]["random"], [85**0.5 - 1, 4])
    rows = {row["measure"]: row for row in found.rows}
    assert (rows["age"]["a"], rows["age"]["b"], rows["age"]["random"]) == (20, 20, 7.5)
    assert rows["distances"]["n"] == 1
    assert json.loads(json.dumps(found.rows, allow_nan=False)) == found.rows


def test_shift_is_scipys_task_by_task(cohort: Cohort, chosen: dict[str, Selections]) -> None:
    found = shift_from_random(cohort, chosen["a"], chosen["b"], chosen["random"], chosen["control"])
    age = cohort.clinical["age"]
    points = chosen["a"].points
    assert points is not None
    for name, key in (("reinforce", "a"), ("kmedoids", "b"), ("random", "control")):
        for task in range(0, 40, 7):
            own, base = chosen[key].rows[task], chosen["random"].rows[task]
            expected = stats.wasserstein_distance(age[own], age[base])
            assert found.values["age"][name][task] == pytest.approx(expected)
            expected = stats.wasserstein_distance(pdist(points[own]), pdist(points[base]))
            assert found.values["distances"][name][task] == pytest.approx(expected, rel=1e-5)
    rows = {row["measure"]: row for row in found.rows}
    test = stats.ttest_ind(found.values["age"]["reinforce"], found.values["age"]["kmedoids"])
    assert (rows["age"]["t"], rows["age"]["p"]) == pytest.approx((test.statistic, test.pvalue))
    assert (rows["age"]["paper_a"], rows["age"]["paper_b"]) == PAPER_SHIFT["age"] == (13.58, 8.43)
    assert rows["age"]["direction"] == "as in the paper"  # the youngest are further from random ones than medoids are
    for text in ("13.58", "8.43", "2.01", "1.22", "Between two random choices: distances"):
        assert text in found.table()


def test_missing_ages_count_nowhere() -> None:
    age = np.array([20, NAN, 40, 50, 60, 70, NAN, NAN], dtype=np.float32)
    chosen = [hand_chosen(c) for c in ([[0, 1], [0, 1]], [[0, 2], [0, 1]], [[2, 3], [2, 3]], [[1, 3], [1, 3]])]
    found = shift_from_random(two_views(age=age), *chosen)
    np.testing.assert_allclose(found.values["age"]["reinforce"], [25, NAN])
    assert [row["n"] for row in found.rows if row["measure"] == "age"] == [1]


def test_a_repeated_index_counts_once() -> None:
    once = [hand_chosen(c) for c in ([[0, 1], [0, 1]], [[0, 2], [0, 3]], [[2, 3], [2, 3]], [[1, 3], [1, 3]])]
    twice = [replace(s, chosen=np.concatenate([s.chosen, s.chosen[:, :1]], axis=1)) for s in once]
    found, expected = (shift_from_random(hand_made(), *some) for some in (twice, once))
    for measure, values in expected.values.items():
        for name, own in values.items():
            np.testing.assert_array_equal(found.values[measure][name], own)
    assert compare_selections(hand_made(), *twice[:2]) == compare_selections(hand_made(), *once[:2])


def test_the_figure_has_every_task(cohort: Cohort, chosen: dict[str, Selections]) -> None:
    found = shift_from_random(cohort, chosen["a"], chosen["b"], chosen["random"], chosen["control"])
    figure = found.draw()
    assert isinstance(figure, Figure)
    for axis, (measure, values) in zip(figure.axes, found.values.items(), strict=True):
        labels = [text.get_text() for text in axis.get_legend().get_texts()]
        names = ("REINFORCE", "K-Medoids", "random")
        means = [own.mean() for own in values.values()]
        assert labels == [f"{name}, mean {mean:.2f}" for name, mean in zip(names, means, strict=True)], measure
        for polygon in axis.patches:  # the outline of a histogram of 40 bins
            assert polygon.get_xy()[1:80:2, 1].sum() == 40
        assert axis.get_xlim()[1] >= max(own.max() for own in values.values())


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_other_tasks_are_refused(chosen: dict[str, Selections], cohort: Cohort) -> None:
    fewer = Selections(*(getattr(chosen["b"], n)[:39] for n in ("index", "pool", "pool_labels", "chosen")), ("n", "p"))
    with pytest.raises(SettingsError, match="'kmedoids' and 'reinforce' did not choose on the same tasks"):
        compare_selections(cohort, chosen["a"], fewer)
    with pytest.raises(SettingsError, match="'the first random choice' and 'reinforce'"):
        shift_from_random(cohort, chosen["a"], chosen["b"], fewer, chosen["control"])


def test_one_random_choice_is_no_control(chosen: dict[str, Selections], cohort: Cohort) -> None:
    with pytest.raises(SettingsError, match="give them different seeds"):
        shift_from_random(cohort, chosen["a"], chosen["b"], chosen["random"], chosen["random"])
    with pytest.raises(SettingsError, match="'random' is the control"):
        shift_from_random(cohort, chosen["a"], chosen["b"], chosen["random"], chosen["control"], ("a", "random"))
