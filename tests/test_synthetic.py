"""The embedded cohort: deterministic, and with the phenomena that its documentation promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from activelabel.data import Cohort, SyntheticSettings, load, make_synthetic
from activelabel.data.synthetic import CONDITIONS, numbered, shaped
from activelabel.errors import DataError, SettingsError

SETTINGS = SyntheticSettings(n=12_000, dim=32)


@pytest.fixture(scope="module")
def large() -> Cohort:
    return make_synthetic(SETTINGS)


def test_the_same_settings_give_the_same_cohort(large: Cohort) -> None:
    again = make_synthetic(SETTINGS)
    np.testing.assert_array_equal(large.embedded(), again.embedded())
    np.testing.assert_array_equal(large.labels, again.labels)
    np.testing.assert_array_equal(large.clinical_matrix(), again.clinical_matrix())
    np.testing.assert_array_equal(large.patient, again.patient)  # type: ignore[arg-type]
    other = make_synthetic(dataclasses.replace(SETTINGS, seed=1))
    assert not np.array_equal(large.embedded(), other.embedded())
    assert not np.array_equal(large.labels, other.labels)


def test_shape_and_names(large: Cohort) -> None:
    assert large.embedded().shape == (SETTINGS.n, SETTINGS.dim)
    assert large.embedded().dtype == np.float32
    assert large.classes == (*CONDITIONS, "No Finding")
    assert large.classes[large.normal or 0] == "No Finding"
    assert set(large.clinical) == {"age", "female", "frontal"}
    ages = large.clinical["age"]
    assert ages.min() >= 18
    assert ages.max() <= 95


def test_each_condition_is_as_common_as_documented(large: Cohort) -> None:
    for name, prevalence in CONDITIONS.items():
        column = large.labels[:, large.class_index(name)]
        # Missed and false calls balance, so certain and uncertain calls together keep the prevalence.
        deviation = np.sqrt(prevalence * (1 - prevalence) / SETTINGS.n)
        assert abs((column != 0).mean() - prevalence) < 4 * deviation, name
        assert 0.02 < (column == -1).sum() / (column != 0).sum() < 0.09, name


def test_no_finding_is_every_image_without_a_call(large: Cohort) -> None:
    calls = large.labels[:, :-1] != 0
    np.testing.assert_array_equal(large.labels[:, -1] == 1, ~calls.any(axis=1))


def test_patients_have_one_to_three_images_and_one_age(large: Cohort) -> None:
    assert large.patient is not None
    _, first, counts = np.unique(large.patient, return_index=True, return_counts=True)
    assert set(counts.tolist()) == {1, 2, 3}
    for key in ("age", "female"):
        values = large.clinical[key]
        np.testing.assert_array_equal(np.repeat(values[first], counts), values)
    assert not np.array_equal(np.repeat(large.clinical["frontal"][first], counts), large.clinical["frontal"])


def separation(cohort: Cohort, rows: np.ndarray, name: str) -> float:
    """Distance of the class means along their difference, in units of the spread of the negatives."""
    positive = cohort.embedded()[rows & (cohort.labels[:, cohort.class_index(name)] == 1)]
    negative = cohort.embedded()[rows & (cohort.labels[:, -1] == 1)]
    direction = positive.mean(axis=0) - negative.mean(axis=0)
    direction /= np.linalg.norm(direction)
    return float((positive @ direction).mean() - (negative @ direction).mean()) / float((negative @ direction).std())


def test_lateral_images_carry_a_weaker_signal(large: Cohort) -> None:
    frontal = large.clinical["frontal"] == 1
    for name in CONDITIONS:
        assert separation(large, frontal, name) > 1.15 * separation(large, ~frontal, name), name


def test_images_of_older_patients_carry_a_weaker_signal(large: Cohort) -> None:
    frontal, age = large.clinical["frontal"] == 1, large.clinical["age"]
    # The model's own ratio is 0.93 / 0.77 = 1.2; a single condition has too few old patients to show it surely.
    young, old = (sum(separation(large, frontal & part, name) for name in CONDITIONS) for part in (age < 45, age > 70))
    assert young > 1.1 * old


def spread_ratio(cohort: Cohort) -> list[float]:
    """Standard deviation of positives over that of negatives, along the direction of each condition.

    Among frontal images of one age group, since view and age scatter both classes.
    """
    rows = (cohort.clinical["frontal"] == 1) & (abs(cohort.clinical["age"] - 50) < 10)
    ratios = []
    for name in CONDITIONS:
        positive = cohort.embedded()[rows & (cohort.labels[:, cohort.class_index(name)] == 1)]
        negative = cohort.embedded()[rows & (cohort.labels[:, -1] == 1)]
        direction = positive.mean(axis=0) - negative.mean(axis=0)
        direction /= np.linalg.norm(direction)
        ratios.append(float((positive @ direction).std() / (negative @ direction).std()))
    return ratios


def test_positives_are_more_dispersed_than_negatives(large: Cohort) -> None:
    dispersed = spread_ratio(large)
    assert min(dispersed) > 1.2
    compact = spread_ratio(make_synthetic(dataclasses.replace(SETTINGS, dispersion=0.0)))
    # The parameter is what does it: without it, less of the spread is left for every condition.
    assert all(c < d for c, d in zip(compact, dispersed, strict=True))


def test_unclear_images_scatter_more(large: Cohort) -> None:
    normal = large.labels[:, -1] == 1
    frontal = large.clinical["frontal"] == 1
    middle = abs(large.clinical["age"] - 58) < 5
    spread = [large.embedded()[normal & middle & part].var(axis=0).sum() for part in (frontal, ~frontal)]
    assert spread[1] > 1.15 * spread[0]


def test_label_noise_can_be_switched_off() -> None:
    clean = make_synthetic(dataclasses.replace(SETTINGS, n=500, missed=0.0, uncertain=0.0))
    assert not (clean.labels == -1).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 9}, "n >= 10.*got 9,"),
        ({"dim": 1, "rank": 1}, "dim >= 2.*got 12000, 1, 1"),
        ({"rank": 0}, "0 < rank"),
        ({"rank": 33}, "rank <= dim; got 12000, 32, 33"),
        ({"missed": 1.0}, "missed=1.0"),
        ({"uncertain": -0.1}, "uncertain=-0.1"),
        ({"conditions": 0}, "conditions=0 of a synthetic cohort must be from 1 to 8"),
        ({"conditions": 9}, "conditions=9"),
    ],
)
def test_sizes_and_shares_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_synthetic(dataclasses.replace(SETTINGS, **changes))


def test_every_number_has_a_shape_of_its_own() -> None:
    shapes = [shaped(number) for number in range(1, 200)]
    assert [s.seed for s in shapes] == list(range(1, 200))
    assert {s.n for s in shapes} == {6000}
    ends = {
        "dim": (32, 256),
        "rank": (4, 24),
        "conditions": (1, 8),
        "strength_shared": (0.5, 2),
        "strength_own": (3, 8),
        "dispersion": (0.1, 0.6),
        "nuisance": (0.3, 0.9),
        "noise": (0.2, 0.6),
        "lateral_clarity": (0.25, 1),
        "flaw_fade": (0, 0.7),
        "missed": (0, 0.03),
        "uncertain": (0, 0.05),
    }
    for name, (low, high) in ends.items():
        values = np.array([getattr(s, name) for s in shapes])
        assert low <= values.min() < low + 0.1 * (high - low), name
        assert high >= values.max() > high - 0.1 * (high - low), name
    # What is not drawn is that of every synthetic cohort.
    plain = {name: getattr(SyntheticSettings(), name) for name in ends}
    assert {dataclasses.replace(s, **plain, n=24_000, seed=0) for s in shapes} == {SyntheticSettings()}
    assert shaped(7) == numbered("synthetic-7")
    with pytest.raises(SettingsError, match="synthetic-0: the cohorts are numbered from 1"):
        shaped(0)


@pytest.mark.parametrize("conditions", [1, 3])
def test_few_conditions_are_as_many_calls(conditions: int) -> None:
    cohort = make_synthetic(dataclasses.replace(SETTINGS, conditions=conditions))
    assert cohort.classes == (*list(CONDITIONS)[:conditions], "No Finding")
    assert cohort.normal == conditions
    calls = (cohort.labels[:, :-1] != 0).sum(axis=1).mean()
    assert calls == pytest.approx(sum(CONDITIONS.values()), abs=0.03)


def test_numbered_cohorts_load_by_name() -> None:
    cohort, other = load("synthetic-7"), load("synthetic-8")
    assert cohort.embedded().shape == (6000, shaped(7).dim)
    assert cohort.embedded().shape != other.embedded().shape
    np.testing.assert_array_equal(cohort.labels, make_synthetic(shaped(7)).labels)
    # A classifier needs every class in the smallest part: fifteen in a hundred images, and five in a hundred of these.
    for number in range(1, 30):
        labels = make_synthetic(shaped(number)).labels
        assert (labels[(labels == 1).sum(axis=1) == 1] == 1).sum(axis=0).min() > 100
    assert cohort.classes == (*list(CONDITIONS)[: shaped(7).conditions], "No Finding")
    assert load("synthetic-7", normal="Consolidation").normal == 0
    with pytest.raises(SettingsError, match="'synthetic-7' is built in"):
        load("synthetic-7", labels="subtype")


@pytest.mark.parametrize(
    "name", ["synthetic-0", "synthetic-x", "synthetic-", "synthetic--1", "synthetic-01", "synthetic-1.5"]
)
def test_other_names_are_no_cohort(name: str) -> None:
    with pytest.raises(DataError, match=f"unknown data set '{name}'. Did you mean 'synthetic"):
        load(name)
