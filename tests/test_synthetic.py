"""The embedded cohort: deterministic, and with the phenomena that its documentation promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from activelabel.data import Cohort, SyntheticSettings, make_synthetic
from activelabel.data.synthetic import CONDITIONS
from activelabel.errors import SettingsError

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
    ],
)
def test_sizes_and_shares_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_synthetic(dataclasses.replace(SETTINGS, **changes))
