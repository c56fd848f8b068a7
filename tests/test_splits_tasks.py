"""Splitting by patient, standardising on the training part, and the tasks of the one-shot problem."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.stats import chi2

from activelabel.data import SPLITS, Cohort, Splits, Standardizer, TaskSampler, split_cohort
from activelabel.data.splits import report_duplicates
from activelabel.data.tasks import UNCERTAIN
from activelabel.errors import DataError, DuplicateImagesWarning, SettingsError


def plain(n: int, **changes: Any) -> Cohort:
    values: dict[str, Any] = {
        "labels": np.eye(2, dtype=np.int8)[np.arange(n) % 2],
        "classes": ("Edema", "No Finding"),
        "features": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        "normal": 1,
    }
    return Cohort(**{**values, **changes})


# -- splits -----------------------------------------------------------------------------------------------------------


@given(
    patient=st.lists(st.integers(0, 12), min_size=12, max_size=60),
    seed=st.integers(0, 5),
    text=st.booleans(),
)
def test_no_patient_stands_in_two_parts(patient: list[int], seed: int, text: bool) -> None:
    ids = np.array(patient)
    cohort = plain(len(ids), patient=ids.astype(str) if text else ids)
    try:
        splits = split_cohort(cohort, (0.4, 0.3, 0.3), seed=seed)
    except DataError as error:
        # A patient with a third of the images can swallow a part; nothing else may fail.
        assert "part has no images" in str(error)  # noqa: PT017
        assert np.bincount(ids).max() >= 0.3 * len(ids)
        return
    rows = np.concatenate([splits.rows(name) for name in SPLITS])
    assert sorted(rows.tolist()) == list(range(len(ids)))
    parts = [set(ids[splits.rows(name)].tolist()) for name in SPLITS]
    assert sum(len(part) for part in parts) == len(set(patient))
    again = split_cohort(cohort, (0.4, 0.3, 0.3), seed=seed)
    for name in SPLITS:
        np.testing.assert_array_equal(splits.rows(name), again.rows(name))
        assert (np.diff(splits.rows(name)) > 0).all()


def test_the_parts_have_the_asked_sizes_and_depend_on_the_seed(cohort: Cohort) -> None:
    splits = split_cohort(cohort, (0.6, 0.3, 0.1))
    shares = [len(splits.rows(name)) / len(cohort) for name in SPLITS]
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=3 / len(cohort))
    assert not np.array_equal(splits.train, split_cohort(cohort, (0.6, 0.3, 0.1), seed=1).train)


def test_without_patients_every_image_is_its_own() -> None:
    splits = split_cohort(plain(100))
    assert [len(splits.rows(name)) for name in SPLITS] == [70, 15, 15]


@pytest.mark.parametrize("fractions", [(0.85, 0.15, 0.15), (0.5, 0.5, 0.0), (1.2, -0.1, -0.1), (0.0, 0.0, 0.0)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match=r"fractions \(.*must be three positive numbers that sum to 1"):
        split_cohort(plain(100), fractions)


@pytest.mark.parametrize("fractions", [(0.25, 0.25, 0.25, 0.25), (0.5, 0.5), (float("nan"), 0.5, 0.5)])
def test_fractions_that_are_not_three_numbers_are_refused(fractions: Any) -> None:
    with pytest.raises(SettingsError, match="must be three positive numbers"):
        split_cohort(plain(100), fractions)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match=r"part has no images \(2 in all\)"):
        split_cohort(plain(2))


def test_the_published_split_is_used_as_it_is() -> None:
    names = np.array(["test", "train", "val", "train"])
    splits = split_cohort(plain(4, split=names), published=True)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([1, 3], [2], [0])
    with pytest.raises(SettingsError, match="no published split"):
        split_cohort(plain(4), published=True)
    with pytest.raises(DataError, match="the test part has no images"):
        split_cohort(plain(2, split=np.array(["train", "val"])), published=True)


def test_a_part_is_asked_for_by_name() -> None:
    splits = Splits(np.array([0]), np.array([1]), np.array([2]))
    assert splits.rows("val").tolist() == [1]
    with pytest.raises(SettingsError, match=r"unknown split 'tests'.*Did you mean 'test'"):
        splits.rows("tests")


@pytest.mark.parametrize("kind", ["features", "images"])
def test_identical_images_on_two_sides_are_reported(kind: str) -> None:
    rows = np.arange(8, dtype=np.uint8).reshape(4, 2)
    rows[3] = rows[1]
    data = {"features": rows.astype(np.float32)} if kind == "features" else {"images": rows[:, None], "features": None}
    cohort = plain(4, split=np.array(["train", "train", "val", "test"]), **data)
    with pytest.warns(DuplicateImagesWarning, match=r"1 images of the val or test part.*rows 3\)"):
        splits = split_cohort(cohort, published=True)
    with pytest.warns(DuplicateImagesWarning):
        assert report_duplicates(cohort, splits) == 1


def test_identical_images_on_one_side_are_not_reported() -> None:
    rows = np.zeros((4, 2), np.float32)
    rows[2:] = [[1, 1], [2, 2]]
    # Warnings are errors here: a report would fail the test.
    splits = split_cohort(plain(4, features=rows, split=np.array(["train", "train", "val", "test"])), published=True)
    assert report_duplicates(plain(4, features=rows), splits) == 0


# -- standardisation --------------------------------------------------------------------------------------------------


def test_the_standardizer_knows_the_training_rows_alone(cohort: Cohort) -> None:
    splits = split_cohort(cohort)
    before = Standardizer.fit(cohort, splits.train)
    features = cohort.embedded().copy()
    clinical = {key: value.copy() for key, value in cohort.clinical.items()}
    others = np.concatenate([splits.val, splits.test])
    features[others] = 1e6
    for value in clinical.values():
        value[others] = 0
    changed = Cohort(cohort.labels, cohort.classes, features, clinical=clinical)
    after = Standardizer.fit(changed, splits.train)
    for name, array in before.arrays().items():
        np.testing.assert_array_equal(array, after.arrays()[name], err_msg=name)
    assert not np.array_equal(before.mean, Standardizer.fit(cohort, splits.test).mean)


def test_standardised_training_rows_have_mean_0_and_deviation_1(cohort: Cohort) -> None:
    rows = split_cohort(cohort).train
    standardizer = Standardizer.fit(cohort, rows)
    features = standardizer.features(cohort.embedded())
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[rows].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features[rows].std(axis=0), 1, atol=1e-5)
    clinical = standardizer.clinical(cohort.clinical_matrix())
    np.testing.assert_allclose(clinical[rows].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(clinical[rows, 0].std(), 1, atol=1e-5)
    flag = cohort.clinical["female"]
    np.testing.assert_allclose(clinical[:, 1], flag - flag[rows].mean(), atol=1e-6)
    back = features * standardizer.scale + standardizer.mean
    np.testing.assert_allclose(back, cohort.embedded(), rtol=1e-5, atol=1e-5)


def test_constant_and_missing_columns_do_no_harm() -> None:
    age = np.array([50, np.nan, 70, 60], np.float32)
    features = np.array([[5, 1], [5, 2], [5, 3], [5, 4]], np.float32)
    cohort = plain(4, features=features, clinical={"age": age})
    standardizer = Standardizer.fit(cohort, np.arange(3))
    np.testing.assert_array_equal(standardizer.features(features)[:, 0], 0)
    clinical = standardizer.clinical(cohort.clinical_matrix())
    np.testing.assert_allclose(clinical, [[-1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], atol=1e-6)
    nothing = Standardizer.fit(cohort, np.array([1]))
    np.testing.assert_array_equal(nothing.clinical_mean, 0)
    np.testing.assert_array_equal(nothing.clinical_scale, 1)


def test_the_identity_changes_nothing_but_missing_values() -> None:
    cohort = plain(3, clinical={"age": np.array([50, np.nan, 70], np.float32)})
    identity = Standardizer.identity(2)
    np.testing.assert_array_equal(identity.features(cohort.embedded()), cohort.embedded())
    np.testing.assert_array_equal(identity.clinical(cohort.clinical_matrix())[:, 0], [50, 0, 70])


def test_a_standardizer_survives_its_arrays_and_refuses_another_width(cohort: Cohort) -> None:
    standardizer = Standardizer.fit(cohort, np.arange(10))
    back = Standardizer(**standardizer.arrays())
    np.testing.assert_array_equal(back.features(cohort.embedded()[:5]), standardizer.features(cohort.embedded()[:5]))
    with pytest.raises(DataError, match=r"the data has 3 features an image.*8"):
        standardizer.features(np.zeros((2, 3), np.float32))


# -- tasks ------------------------------------------------------------------------------------------------------------


def candidates(labels: np.ndarray, column: int, uncertain: str) -> tuple[set[int], set[int]]:
    """Positive and negative rows, one row at a time; the last column is the normal class."""
    positive, negative = set(), set()
    for row, values in enumerate(labels.tolist()):
        if values[column] == 1 or (values[column] == -1 and uncertain == "positive"):
            positive.add(row)
        elif values[-1] == 1 and not (values[column] == -1 and uncertain == "ignore"):
            negative.add(row)
    return positive, negative


@given(
    n=st.integers(30, 120),
    uncertain=st.sampled_from(UNCERTAIN),
    fraction=st.sampled_from([0.25, 0.5, 0.75]),
    seed=st.integers(0, 1000),
)
def test_tasks_hold_what_they_say(n: int, uncertain: str, fraction: float, seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([-1, 0, 1], np.int8), (n, 3), p=[0.2, 0.4, 0.4])
    cohort = Cohort(labels, ("a", "b", "n"), np.zeros((len(labels), 1), np.float32), normal=2)
    pool, query = 8, 4
    needed = int(pool * fraction) + int(query * fraction)
    known = {column: candidates(labels, column, uncertain) for column in (0, 1)}
    enough = all(len(yes) >= needed and len(no) >= pool + query - needed for yes, no in known.values())
    event(f"enough images: {enough}")
    arguments: dict[str, Any] = {"uncertain": uncertain, "seed": seed, "positive_fraction": fraction}
    if not enough:
        with pytest.raises(DataError, match="too few images"):
            TaskSampler(cohort, ("a", "b"), pool, query, **arguments)
        return
    tasks = TaskSampler(cohort, ("a", "b"), pool, query, **arguments).batch(range(6))
    assert len(tasks) == 6
    for i in range(6):
        positive, negative = known[int(tasks.condition[i])]
        drawn = [*tasks.pool[i].tolist(), *tasks.query[i].tolist()]
        assert len(set(drawn)) == pool + query, "U and Q must be disjoint and without repetition"
        assert tasks.pool_labels[i].sum() == int(pool * fraction)
        assert tasks.query_labels[i].sum() == int(query * fraction)
        for row, label in zip(drawn, [*tasks.pool_labels[i], *tasks.query_labels[i]], strict=True):
            assert row in (positive if label else negative)


def make_sampler(cohort: Cohort, **changes: Any) -> TaskSampler:
    return TaskSampler(cohort, **{"pool": 20, "query": 12, **changes})


def listed(tasks: Any, i: int) -> list[Any]:
    arrays = (tasks.condition, tasks.pool, tasks.query, tasks.pool_labels, tasks.query_labels)
    return [array[i].tolist() for array in arrays]


def test_task_i_is_the_same_alone_and_in_any_batch(cohort: Cohort) -> None:
    sampler = make_sampler(cohort)
    batch = sampler.batch([7, 3, 10**12, 7])
    assert batch.index.tolist() == [7, 3, 10**12, 7]
    assert listed(batch, 0) == listed(batch, 3) == listed(sampler.batch([7]), 0)
    assert listed(batch, 2) == listed(make_sampler(cohort).batch([10**12]), 0)
    assert listed(batch, 0) != listed(batch, 1)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"name": "other"}])
def test_seed_and_name_make_other_tasks(cohort: Cohort, changes: dict[str, Any]) -> None:
    assert listed(make_sampler(cohort).batch([0]), 0) != listed(make_sampler(cohort, **changes).batch([0]), 0)


def test_task_i_is_the_same_in_another_process(cohort: Cohort, root: Path) -> None:
    program = (
        "from activelabel.data import *\n"
        "c = make_synthetic(SyntheticSettings(n=3000, dim=8, rank=4))\n"
        "t = TaskSampler(c, pool=20, query=12).batch([5, 123456789])\n"
        "print([a.tolist() for a in (t.condition, t.pool, t.query, t.pool_labels, t.query_labels)])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    tasks = make_sampler(cohort).batch([5, 123456789])
    arrays = (tasks.condition, tasks.pool, tasks.query, tasks.pool_labels, tasks.query_labels)
    assert result.stdout.strip() == str([array.tolist() for array in arrays])


def test_held_out_conditions_are_never_drawn(cohort: Cohort) -> None:
    sampler = make_sampler(cohort, held_out=("Edema", "Atelectasis"))
    assert set(sampler.conditions) == set(cohort.conditions()) - {"Edema", "Atelectasis"}
    drawn = {cohort.classes[c] for c in sampler.batch(range(200)).condition}
    assert drawn == set(sampler.conditions)


def test_rows_outside_of_the_part_are_never_drawn(cohort: Cohort) -> None:
    rows = split_cohort(cohort).test
    tasks = make_sampler(cohort, rows=rows).batch(range(50))
    assert set(np.unique([*tasks.pool.ravel(), *tasks.query.ravel()])) <= set(rows)


def test_conditions_below_five_percent_are_left_out_unless_named() -> None:
    labels = np.zeros((1000, 3), np.int8)
    labels[:50, 0] = 1  # 5.0 %
    labels[50:99, 1] = 1  # 4.9 %
    labels[99:, 2] = 1
    cohort = Cohort(labels, ("common", "rare", "normal"), np.zeros((1000, 1), np.float32), normal=2)
    assert make_sampler(cohort).conditions == ("common",)
    assert make_sampler(cohort, min_prevalence=0.04).conditions == ("common", "rare")
    assert make_sampler(cohort, conditions=("rare",)).conditions == ("rare",)
    with pytest.raises(SettingsError, match=r"no condition to draw tasks of.*at least 50%"):
        make_sampler(cohort, min_prevalence=0.5)


def test_too_few_images_name_the_condition_what_it_has_and_needs() -> None:
    labels = np.eye(3, dtype=np.int8)[[0] * 30 + [1] * 9 + [2] * 15]
    cohort = Cohort(labels, ("many", "few", "normal"), np.zeros((54, 1), np.float32), normal=2)
    with pytest.raises(DataError) as refusal:
        make_sampler(cohort)
    message = str(refusal.value)
    assert "pool=20 and query=12" in message
    assert "'few' has 9 positive images and needs 16" in message
    assert "'many' has 15 'normal' images against it and needs 16" in message
    assert "'many' has 30" not in message


def test_settings_out_of_range_are_refused(cohort: Cohort) -> None:
    with pytest.raises(SettingsError, match=r"query=1 with positive_fraction=0.5 has 0 positives and 1 negatives"):
        make_sampler(cohort, query=1)
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(SettingsError, match=f"positive_fraction={fraction}"):
            make_sampler(cohort, positive_fraction=fraction)
    with pytest.raises(SettingsError, match=r"'ignored'.*Did you mean 'ignore'"):
        make_sampler(cohort, uncertain="ignored")
    with pytest.raises(SettingsError, match="'No Finding' is the normal class itself"):
        make_sampler(cohort, conditions=("No Finding",))
    with pytest.raises(SettingsError, match="'Edema' cannot be both drawn and held out"):
        make_sampler(cohort, conditions=("Edema",), held_out=("Edema",))
    for name in ("conditions", "held_out"):
        with pytest.raises(DataError, match=r"unknown class 'Edma'.*Did you mean 'Edema'"):
            make_sampler(cohort, **{name: ("Edma",)})
    with pytest.raises(SettingsError, match="task -1 must not be negative"):
        make_sampler(cohort).batch([0, -1])
    with pytest.raises(SettingsError, match="at least one task"):
        make_sampler(cohort).batch([])


def test_tasks_need_a_normal_class(cohort: Cohort) -> None:
    without = Cohort(cohort.labels, cohort.classes, cohort.features)
    with pytest.raises(DataError, match=r"tasks need a normal class.*normal=.*Edema"):
        make_sampler(without)


def test_the_order_of_a_pool_carries_no_information(cohort: Cohort) -> None:
    count = 800
    tasks = make_sampler(cohort).batch(range(count))
    for labels in (tasks.pool_labels, tasks.query_labels):
        size = labels.shape[1]
        # Half of each row is positive: a position is with probability 1/2, and size - 1 of the positions are free.
        z = (labels.sum(axis=0) - count / 2) / np.sqrt(count / 4)
        assert (z**2).sum() * (size - 1) / size < chi2.ppf(0.999, size - 1)
    # Nor are the rows of the cohort in any order.
    positions = np.tile(np.arange(20), count)
    assert abs(np.corrcoef(positions, tasks.pool.ravel())[0, 1]) < 4 / np.sqrt(len(positions))


def test_every_candidate_is_drawn_equally_often() -> None:
    labels = np.eye(2, dtype=np.int8)[np.arange(40) % 2]
    cohort = Cohort(labels, ("a", "n"), np.zeros((40, 1), np.float32), normal=1)
    count = 1000
    tasks = TaskSampler(cohort, pool=8, query=4).batch(range(count))
    expected = count * 4 / 20
    drawn = np.bincount(tasks.pool.ravel(), minlength=40)
    # Drawn without replacement, 4 of 20 each time: the variance of a count is that of a Bernoulli.
    statistic = ((drawn - expected) ** 2 / (count * 0.2 * 0.8)).sum() * 19 / 20
    assert statistic < chi2.ppf(0.999, 38)
