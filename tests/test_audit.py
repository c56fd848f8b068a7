"""What a strategy chose, and the audit of it, on tasks whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import hand_chosen, hand_made, row
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from activelabel.baselines import KMedoids, Random
from activelabel.data import Cohort
from activelabel.envs import (
    SelectiveLabelEngine,
    SelectiveLabelSettings,
)
from activelabel.errors import SettingsError
from activelabel.evaluation import paired_difference
from activelabel.evaluation.audit import DRAWS, audit
from activelabel.evaluation.distances import pairwise, structure
from activelabel.evaluation.selections import Selections, collect
from activelabel.seeding import stream

NAN = float("nan")


@pytest.fixture
def engine(cohort: Cohort) -> SelectiveLabelEngine:
    return SelectiveLabelEngine(cohort, SelectiveLabelSettings(k=4, pool=20, query=12, split="test"), device="cpu")


# -- the audit on tasks whose answers are known ------------------------------------------------------------------------


def test_hand_made_tasks() -> None:
    # Selected: rows 0 and 2 (both positive), rows 4 and 5 (one of each class).
    found = audit(hand_made(), hand_chosen([[0, 2], [0, 1]]))
    expected = {
        "positive": (0.75, 0.5),
        "mean age": ((30 + 65) / 2, (35 + 75) / 2),
        "female": (1.0, 0.5),
        "male": (0.0, 0.5),
        "frontal": (1.0, 0.75),
        "not frontal": (0.0, 0.25),
    }
    for measure, (selected, pool) in expected.items():
        one = row(found, measure)
        assert (one["selected"], one["reference"], one["against"], one["n"]) == (
            pytest.approx(selected),
            pytest.approx(pool),
            "pool",
            2,
        )
        assert one["difference"] == pytest.approx(selected - pool)
    interval = paired_difference([1.0, 0.5], [0.5, 0.5])
    assert row(found, "positive")["ci"] == [interval.low, interval.high]
    assert [r["measure"] for r in found.rows if r["kind"] == "classes"] == ["positive", "tasks with one class"]
    assert row(found, "tasks with one class")["selected"] == 0.5
    assert row(found, "mean distance between selected")["selected"] == pytest.approx((10 + 1) / 2)
    assert row(found, "largest distance between selected")["selected"] == pytest.approx((10 + 1) / 2)
    # First pool: rows 1 and 3 are 5 and 1 from the nearest selected; second: rows 6 and 7 are 4 and 8.
    assert row(found, "pool to nearest selected, mean")["selected"] == pytest.approx((6 / 4 + 12 / 4) / 2)
    for measure in ("labels spent on nothing new", "identical to another selected"):
        assert row(found, measure)["selected"] == 0
        assert row(found, measure)["reference"] is None
    assert [r for r in found.rows if r["measure"].startswith("of a patient")] == []


def test_age_thirds_are_those_of_the_pools() -> None:
    found = audit(hand_made(), hand_chosen([[0, 1], [3, 3]]))
    ages = [r["measure"] for r in found.rows if r["measure"].startswith("age")]
    assert ages == ["age up to 43.3", "age 43.3 to 66.7", "age above 66.7"]
    shares = [(row(found, name)["selected"], row(found, name)["reference"]) for name in ages]
    assert shares == [(0.5, 3 / 8), (0, 2 / 8), (0.5, 3 / 8)]


def test_a_repeated_index_counts_once_and_is_reported() -> None:
    once = audit(hand_made(), hand_chosen([[0, 2, -1], [0, 1, -1]]))
    found = audit(hand_made(), hand_chosen([[0, 2, 0], [1, 1, 0]]))
    assert row(found, "labels spent on nothing new")["selected"] == 1
    for measure in ("positive", "mean age", "female", "mean distance between selected", "tasks with one class"):
        assert row(found, measure) == row(once, measure)
    alone = audit(hand_made(), hand_chosen([[1, 1, 1], [0, 1, 2]]))
    assert row(alone, "labels spent on nothing new")["selected"] == 1
    assert row(alone, "mean distance between selected")["n"] == 1  # a single image has no distance to another
    assert row(alone, "pool to nearest selected, mean")["n"] == 2
    assert row(alone, "tasks with one class")["selected"] == 0.5


def test_a_task_without_a_label_counts_nowhere() -> None:
    found = audit(hand_made(), hand_chosen([[-1, -1], [0, 1]]))
    assert row(found, "labels spent on nothing new")["selected"] == 1
    for measure in ("positive", "tasks with one class", "mean age", "pool to nearest selected, mean"):
        assert row(found, measure)["n"] == 1
        assert row(found, measure)["ci"] is None
    assert row(found, "mean age")["selected"] == 65


def test_identical_images_are_found() -> None:
    features = hand_made().embedded().copy()
    features[2], features[5] = features[0], features[0]  # the last is in the other pool
    found = audit(hand_made(features=features), hand_chosen([[0, 2], [1, 2]]))
    assert row(found, "identical to another selected")["selected"] == pytest.approx(0.5)
    assert row(found, "labels spent on nothing new")["selected"] == 0
    # Where there are images, they decide.
    images = np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2)
    found = audit(hand_made(features=features, images=images), hand_chosen([[0, 2], [1, 2]]))
    assert row(found, "identical to another selected")["selected"] == 0
    images[1] = images[2] = images[0]
    found = audit(hand_made(images=images), hand_chosen([[0, 1, 2], [0, 1, 2]]))
    assert row(found, "identical to another selected")["selected"] == 1


def test_images_of_one_patient_are_counted() -> None:
    patient = np.array(["a", "b", "a", "a", "c", "c", "d", "e"])
    found = audit(hand_made(patient=patient), hand_chosen([[0, 2, 3], [1, 1, 3]]))
    assert row(found, "of a patient selected before")["selected"] == 1


def test_missing_clinical_values_count_nowhere() -> None:
    clinical = dict(hand_made().clinical)
    clinical["age"] = np.array([NAN, 30, 40, NAN, NAN, NAN, 80, 90], dtype=np.float32)
    clinical["frontal"] = np.full(8, NAN, dtype=np.float32)
    found = audit(hand_made(clinical=clinical), hand_chosen([[0, 2], [0, 1]]))
    age = row(found, "mean age")  # in the second task no selected image has one
    assert (age["selected"], age["reference"], age["n"]) == (40, 35, 1)
    young = row(found, "age up to 40")
    assert (young["selected"], young["reference"], young["n"]) == (1, 1, 1)
    assert any("age: unknown of 50.0% of the pools' images" in note for note in found.notes)
    assert any(note.startswith("view: the cohort does not have it") for note in found.notes)
    assert [r for r in found.rows if r["measure"] in ("frontal", "not frontal")] == []
    assert row(found, "female")["n"] == 2


def test_a_cohort_without_clinical_variables_is_said_so() -> None:
    found = audit(hand_made(clinical={}), hand_chosen([[0, 2], [0, 1]]))
    for name in ("age", "sex", "view"):
        assert any(note.startswith(f"{name}: the cohort does not have it") for note in found.notes)
        assert f"{name}: the cohort does not have it" in found.table()
    assert {r["kind"] for r in found.rows} == {"classes", "duplicates", "distances"}
    assert found.warnings == []


def test_without_features_distances_are_not_measured() -> None:
    images = np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2)
    found = audit(hand_made(features=None, images=images), hand_chosen([[0, 2], [0, 1]]))
    assert any("distances" in note for note in found.notes)
    assert "distances" not in {r["kind"] for r in found.rows}
    points = hand_made().features
    found = audit(hand_made(features=None, images=images), hand_chosen([[0, 2], [0, 1]], points=points))
    assert row(found, "mean distance between selected")["selected"] == pytest.approx(5.5)


def test_rows_are_plain_values() -> None:
    for chosen in ([[0, 2], [0, 1]], [[-1, -1], [1, 1]]):
        found = audit(hand_made(), hand_chosen(chosen))
        assert json.loads(json.dumps(found.rows, allow_nan=False)) == found.rows
        assert all(set(r) == set(found.rows[0]) for r in found.rows)


def test_choosing_everything_is_choosing_at_random(engine: SelectiveLabelEngine, cohort: Cohort) -> None:
    found = audit(cohort, collect(engine, KMedoids(20), 20, 6))
    for one in found.rows:
        if one["difference"] is not None:
            assert one["difference"] == pytest.approx(0, abs=1e-9), one
    assert row(found, "pool to nearest selected, mean")["selected"] == 0


def test_classes_of_many() -> None:
    labels = np.array([[0, 1, 2, 2], [0, 1, 2, 2]])
    chosen = hand_chosen([[2, 3], [0, 3]], pool_labels=labels, classes=("a", "b", "c"))
    found = audit(hand_made(), chosen)
    shares = {name: (row(found, name)["selected"], row(found, name)["reference"]) for name in "abc"}
    assert shares == {"a": (0.25, 0.25), "b": (0.0, 0.25), "c": (0.75, 0.5)}
    assert row(found, "tasks with one class")["selected"] == 0.5


# -- random choices to compare with ------------------------------------------------------------------------------------


def test_random_choices_are_as_many_and_seeded(engine: SelectiveLabelEngine, cohort: Cohort) -> None:
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    selections = collect(engine, Random(4), 4, 5)
    found = audit(cohort, selections)
    assert found == audit(cohort, selections)
    assert found != audit(cohort, selections, seed=1)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert selections.points is not None
    coverage, largest = [], []
    for task in range(5):
        points = selections.points[selections.pool[task]].astype(np.float64)
        for draw in range(DRAWS):
            some = points[stream(0, "audit", task, draw).choice(20, 4, replace=False)]
            coverage.append(cdist(points, some).min(axis=1).mean())
            largest.append(pdist(some).max())
    assert row(found, "pool to nearest selected, mean")["reference"] == pytest.approx(np.mean(coverage))
    assert row(found, "largest distance between selected")["reference"] == pytest.approx(np.mean(largest))


def test_structure_is_scipys() -> None:
    rng = stream(0, "structure")
    points = rng.standard_normal((30, 7)) + 100  # far from the origin, where squares would lose digits
    picks = [rng.choice(30, k, replace=False) for k in (1, 2, 5, 30)]
    found = structure(points, [*picks, np.array([], dtype=np.int64)])
    for measured, chosen in zip(found, picks, strict=False):
        nearest = cdist(points, points[chosen]).min(axis=1).mean()
        assert measured[2] == pytest.approx(nearest, abs=1e-9)
        if len(chosen) > 1:
            among = pdist(points[chosen])
            np.testing.assert_allclose(measured[:2], [among.mean(), among.max()])
            np.testing.assert_array_equal(pairwise(points[chosen]), among)
    assert np.isnan(found[0, :2]).all()
    assert np.isnan(found[-1]).all()
    assert np.isnan(structure(points, [np.array([], dtype=np.int64)])).all()


# -- patient groups ----------------------------------------------------------------------------------------------------


def many(cohort: Cohort, weight: Callable[[NDArray[np.int64]], NDArray[Any]], tasks: int, k: int, seed: int = 0) -> Any:
    """Tasks of 60 random images, of which k are drawn with given weights."""
    rng = stream(seed, "many")
    pool = np.stack([rng.choice(len(cohort), 60, replace=False) for _ in range(tasks)])
    chosen = [rng.choice(60, k, replace=False, p=weight(rows) / weight(rows).sum()) for rows in pool]
    labels = np.tile(np.arange(60) % 2, (tasks, 1))
    return Selections(np.arange(tasks), pool, labels, np.array(chosen), ("negative", "positive"))


def even(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.ones(len(rows))


def test_a_group_that_is_left_out_is_warned_of(cohort: Cohort) -> None:
    frontal, age = cohort.clinical["frontal"], cohort.clinical["age"]
    found = audit(cohort, many(cohort, lambda rows: 0.02 + frontal[rows] * (age[rows] < 60), 100, 5))
    left = {r["measure"] for r in found.rows if r["finding"] == "left out"}
    assert "not frontal" in left
    assert any(name.startswith("age above") for name in left)
    assert not {"female", "male", "frontal"} & left
    assert len(found.warnings) == len(left)
    for name in left:
        assert any(warning.startswith(f"{name}: left out.") for warning in found.warnings)
        assert f"WARNING: {name}: left out." in found.table()


def test_a_smaller_share_within_the_factor_is_no_warning(cohort: Cohort) -> None:
    female = cohort.clinical["female"]
    fewer = many(cohort, lambda rows: 1 - 0.3 * female[rows], 200, 8)  # a share of about .83 of the pool's
    found = audit(cohort, fewer)
    assert row(found, "female")["finding"] == "lower"
    assert found.warnings == []
    strict = audit(cohort, fewer, factor=1.0)
    assert row(strict, "female")["finding"] == "left out"


def test_random_choices_are_hardly_ever_warned_of(cohort: Cohort) -> None:
    clinical = {name: values.copy() for name, values in cohort.clinical.items()}
    clinical["frontal"] = (np.arange(len(cohort)) % 25 > 0).astype(np.float32)  # 4 % are not: close to too few
    images = np.arange(len(cohort), dtype=np.uint8).reshape(-1, 1, 1)
    rare = replace(cohort, clinical=clinical, features=None, images=images)  # nothing else takes as long as distances
    found = [audit(rare, many(rare, even, 60, 5, seed)) for seed in range(30)]
    assert sum(row(one, "not frontal")["finding"] != "not judged" for one in found) > 25
    assert sum(bool(one.warnings) for one in found) <= 1


@pytest.mark.parametrize(("tasks", "judged"), [(20, False), (200, True)])
def test_groups_too_small_are_named(cohort: Cohort, tasks: int, judged: bool) -> None:
    clinical = {name: values.copy() for name, values in cohort.clinical.items()}
    clinical["frontal"] = (np.arange(len(cohort)) % 30 > 0).astype(np.float32)
    rare = replace(cohort, clinical=clinical)
    found = audit(rare, many(rare, lambda rows: clinical["frontal"][rows], tasks, 5))
    assert row(found, "not frontal")["selected"] == 0
    assert row(found, "not frontal")["finding"] == ("left out" if judged else "not judged")
    assert any(note.startswith("not frontal: not judged; by chance") for note in found.notes) is not judged
    assert bool(found.warnings) is judged


def test_one_task_is_not_enough_to_judge(cohort: Cohort) -> None:
    frontal = cohort.clinical["frontal"]
    found = audit(cohort, many(cohort, lambda rows: 0.001 + frontal[rows], 1, 40))
    assert found.warnings == []
    assert any("one task alone" in note for note in found.notes)
    assert all(r["ci"] is None for r in found.rows)
    json.dumps(found.rows, allow_nan=False)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_another_cohort_is_refused() -> None:
    small = hand_made().take(np.arange(7))
    with pytest.raises(SettingsError, match="not of this cohort of 7 images"):
        audit(small, hand_chosen([[0, 1], [0, 1]]))
    with pytest.raises(SettingsError, match="not of this cohort of 8 images"):
        audit(hand_made(), hand_chosen([[0, 1], [0, 1]], points=small.features))


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(SettingsError, match="nothing was selected"):
        audit(hand_made(), hand_chosen([[-1, -1], [-1, -1]]))
    for factor in (0.0, 1.5):
        with pytest.raises(SettingsError, match=f"factor={factor}"):
            audit(hand_made(), hand_chosen([[0, 1], [0, 1]]), factor=factor)
