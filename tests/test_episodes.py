"""The four parts of the data and where an episode of ``ActiveLabel-v0`` starts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.stats import chi2

from activelabel.data import SPLITS, Cohort, split_cohort
from activelabel.data.episodes import PARTS, WHOLE_POOL, EpisodeSampler, class_of_rows
from activelabel.data.splits import divide
from activelabel.errors import DataError, SettingsError


def plain(labels: list[int], patient: list[int] | None = None) -> Cohort:
    """One class an image, numbered."""
    matrix = np.eye(max(labels) + 1, dtype=np.int8)[labels]
    ids = None if patient is None else np.array(patient)
    names = tuple("abcdefgh"[: matrix.shape[1]])
    return Cohort(matrix, names, np.arange(len(labels), dtype=np.float32)[:, None], patient=ids)


def make_sampler(cohort: Cohort, **changes: Any) -> EpisodeSampler:
    return EpisodeSampler(cohort, np.arange(len(cohort)), **{"pool": 60, "state": 10, **changes})


def listed(batch: Any, i: int) -> list[Any]:
    return [batch.index[i].item(), batch.pool[i].tolist(), batch.initial[i].tolist()]


# -- classes ----------------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=3, max_size=3), min_size=1, max_size=20),
    chosen=st.permutations(["a", "b", "c"]).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n])),
)
def test_the_class_of_an_image_is_its_only_positive_one(rows: list[list[int]], chosen: list[str]) -> None:
    cohort = Cohort(np.array(rows, np.int8), ("a", "b", "c"), np.zeros((len(rows), 1), np.float32))
    found = class_of_rows(cohort, chosen)
    for row, values in enumerate(rows):
        seen = [values["abc".index(name)] for name in chosen]
        expected = seen.index(1) if seen.count(1) == 1 and -1 not in seen else -1
        assert found[row] == expected


def test_images_without_one_class_stand_in_no_part(blobs: Cohort) -> None:
    sampler = make_sampler(blobs)
    rows = np.concatenate([sampler.rows[part] for part in ("pool", "reward", "test")])
    assert (class_of_rows(blobs, blobs.classes) < 0).sum() > 60
    assert (class_of_rows(blobs, blobs.classes)[rows] >= 0).all()
    # Images of the classes that are not asked for are left out as well.
    two = make_sampler(blobs, classes=("C", "A"))
    assert two.classes == ("C", "A")
    for part in PARTS:
        assert (blobs.labels[two.rows[part]][:, [2, 0]].sum(axis=1) == 1).all()
        np.testing.assert_array_equal(two.labels[part], blobs.labels[two.rows[part], 0])
    assert make_sampler(blobs, classes=("A", "B", "A")).classes == ("A", "B")


# -- parts ------------------------------------------------------------------------------------------------------------


@given(
    groups=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    shares=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    seed=st.integers(0, 100),
)
def test_divide_keeps_groups_together_and_the_shares_as_near_as_they_allow(
    groups: list[int], shares: list[int], seed: int
) -> None:
    fractions = np.array(shares) / sum(shares)
    ids = np.array(groups)
    side = divide(ids, fractions.tolist(), np.random.default_rng(seed))
    assert side.shape == ids.shape
    assert side.min() >= 0
    assert side.max() < len(shares)
    for group in set(groups):
        assert len(set(side[ids == group].tolist())) == 1
    largest = np.bincount(ids).max()
    for part, fraction in enumerate(fractions):
        # Half a group can stick out at either end.
        assert abs((side == part).sum() - fraction * len(ids)) <= largest + 1e-9
    np.testing.assert_array_equal(side, divide(ids, fractions.tolist(), np.random.default_rng(seed)))
    np.testing.assert_array_equal(side, divide(ids.astype(str), fractions.tolist(), np.random.default_rng(seed)))


@given(
    n=st.integers(40, 150),
    classes=st.integers(2, 4),
    per_patient=st.integers(1, 3),
    initial=st.integers(1, 2),
    split_seed=st.integers(0, 20),
    pool=st.sampled_from([None, 12, 30]),
)
def test_episodes_hold_what_they_say(
    n: int, classes: int, per_patient: int, initial: int, split_seed: int, pool: int | None
) -> None:
    labels = np.random.default_rng(n).integers(classes, size=n)
    labels[:classes] = np.arange(classes)
    patient = np.arange(n) // per_patient
    cohort = plain(labels.tolist(), patient.tolist())
    arguments: dict[str, Any] = {"initial": initial, "split_seed": split_seed, "pool": pool, "state": 3}
    try:
        sampler = make_sampler(cohort, shares=(0.4, 0.1, 0.3, 0.2), **arguments)
    except DataError as error:
        event("too few images")
        assert "needs" in str(error) or "but its" in str(error)  # noqa: PT017
        return
    event("enough images")
    rows = np.concatenate([sampler.rows[part] for part in PARTS])
    assert len(set(rows.tolist())) == len(rows), "the parts must be disjoint"
    patients = [set(patient[sampler.rows[part]].tolist()) for part in PARTS]
    assert sum(map(len, patients)) == len(set.union(*patients)), "and disjoint by patient"
    assert len(sampler.rows["state"]) == 3
    for part in PARTS:
        np.testing.assert_array_equal(sampler.labels[part], labels[sampler.rows[part]])
    size = min(len(sampler.rows["pool"]), WHOLE_POOL) if pool is None else pool
    batch = sampler.batch(range(4))
    assert batch.pool.shape == (4, size)
    assert batch.initial.shape == (4, initial * classes)
    for drawn, start in zip(batch.pool, batch.initial, strict=True):
        assert len(set(drawn.tolist())) == size
        assert len(set(start.tolist())) == initial * classes
        assert 0 <= drawn.min() <= drawn.max() < len(sampler.rows["pool"])
        assert sampler.labels["pool"][drawn[start]].tolist() == np.repeat(np.arange(classes), initial).tolist()


def test_the_parts_have_the_asked_shares_and_depend_on_their_seed_alone(blobs: Cohort) -> None:
    shares = (0.4, 0.1, 0.3, 0.2)
    sampler = make_sampler(blobs, shares=shares)
    n = (class_of_rows(blobs, blobs.classes) >= 0).sum()
    for part, share in zip(PARTS, shares, strict=True):
        if part != "state":
            assert abs(len(sampler.rows[part]) - share * n) <= 2
    same = make_sampler(blobs, shares=shares, seed=5, pool=20, initial=3)
    other = make_sampler(blobs, shares=shares, split_seed=1)
    for part in PARTS:
        np.testing.assert_array_equal(sampler.rows[part], same.rows[part])
        assert not np.array_equal(sampler.rows[part], other.rows[part])


def test_a_smaller_state_set_moves_nothing_else(blobs: Cohort) -> None:
    small, large = make_sampler(blobs, state=5), make_sampler(blobs, state=20)
    assert (len(small.rows["state"]), len(large.rows["state"])) == (5, 20)
    assert set(small.rows["state"]) < set(large.rows["state"])
    for part in ("pool", "reward", "test"):
        np.testing.assert_array_equal(small.rows[part], large.rows[part])


@pytest.mark.parametrize("split", SPLITS)
def test_the_parts_stay_within_the_given_rows(blobs: Cohort, split: str) -> None:
    rows = split_cohort(blobs, (0.4, 0.3, 0.3)).rows(split)
    sampler = EpisodeSampler(blobs, rows, state=5, name=split)
    for part in PARTS:
        assert set(sampler.rows[part]) <= set(rows)


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_episode_i_is_the_same_alone_and_in_any_batch(blobs: Cohort) -> None:
    sampler = make_sampler(blobs)
    batch = sampler.batch([7, 3, 10**12, 7])
    assert batch.index.tolist() == [7, 3, 10**12, 7]
    assert listed(batch, 0) == listed(batch, 3) == listed(sampler.batch([7]), 0)
    assert listed(batch, 2) == listed(make_sampler(blobs).batch(np.array([10**12])), 0)
    assert batch.pool[0].tolist() != batch.pool[1].tolist()
    assert batch.initial[0].tolist() != batch.initial[1].tolist()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"name": "other"}])
def test_seed_and_name_make_other_episodes(blobs: Cohort, changes: dict[str, Any]) -> None:
    assert listed(make_sampler(blobs).batch([0]), 0) != listed(make_sampler(blobs, **changes).batch([0]), 0)


def test_the_order_of_a_pool_carries_no_information() -> None:
    sampler = make_sampler(plain([0, 1] * 100), pool=20, state=3)
    count = 1500
    batch = sampler.batch(range(count))
    # An initial label is at any place of the pool, as often as another.
    places = np.bincount(batch.initial.ravel(), minlength=20)
    expected = count * 2 / 20
    statistic = ((places - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, 19)
    # And every image is drawn about equally often, a class at a time.
    members = np.bincount(batch.pool.ravel(), minlength=len(sampler.rows["pool"]))
    share = 20 / len(members)
    z = (members - count * share) / np.sqrt(count * share * (1 - share))
    assert (z**2).sum() < chi2.ppf(0.999, len(members) - 1)


def test_without_a_size_the_pool_is_the_whole_part_up_to_a_thousand(blobs: Cohort) -> None:
    whole = make_sampler(blobs, pool=None)
    assert whole.pool == len(whole.rows["pool"]) < WHOLE_POOL
    assert sorted(whole.batch([0]).pool[0].tolist()) == list(range(whole.pool))
    large = plain([0, 1] * 1500)
    assert make_sampler(large, pool=None, state=3).batch([1]).pool.shape == (1, WHOLE_POOL)
    assert make_sampler(large, pool=1200, state=3).batch([1]).pool.shape == (1, 1200)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("A",)}, "two classes or more, got A"),
        ({"classes": ()}, "two classes or more, got none"),
        ({"classes": ("A", "A")}, "two classes or more, got A"),
        ({"classes": ("A", "Bb")}, "unknown class 'Bb'.*Did you mean 'B'"),
        ({"shares": (0.5, 0.5, 0.1, 0.1)}, "shares .* must be four positive numbers that sum to 1"),
        ({"shares": (0.5, 0.3, 0.2)}, "must be four positive numbers"),
        ({"shares": (0.5, 0.3, 0.2, 0.0)}, "must be four positive numbers"),
        ({"shares": (0.5, float("nan"), 0.2, 0.3)}, "must be four positive numbers"),
        ({"pool": 500}, r"blobs, episodes part: pool=500 images, but its pool part has 3\d\d"),
        ({"state": 50}, r"blobs, episodes part: state=50 images, but its state part has 3\d"),
        ({"initial": 40, "pool": 200}, r"class 'D' has \d+ images in the pool set and needs 40"),
        ({"pool": 3}, "pool=3"),  # four classes start with a label each
        ({"pool": 0}, "pool=0"),
        ({"state": 0}, "state=0"),
        ({"initial": 0}, "initial=0"),
    ],
)
def test_bad_settings_are_refused(blobs: Cohort, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, DataError), match=message):
        make_sampler(blobs, **changes)


@pytest.mark.parametrize("part", ["pool", "reward", "test"])
def test_a_class_that_a_part_lacks_is_named(blobs: Cohort, part: str) -> None:
    rows = make_sampler(blobs).rows[part]
    labels = blobs.labels.copy()
    gone = rows[labels[rows, 1] == 1]
    labels[gone] = [1, 0, 0, 0]  # its images are called A
    without = dataclasses.replace(blobs, labels=labels)
    with pytest.raises(DataError, match=f"class 'B' has 0 images in the {part} set and needs 1. Leave the class out"):
        make_sampler(without)
    assert make_sampler(without, classes=("A", "C", "D")).classes == ("A", "C", "D")


def test_every_class_that_is_missing_is_named_at_once() -> None:
    cohort = plain([0] * 40 + [1, 2])
    with pytest.raises(DataError) as refusal:
        make_sampler(cohort, pool=5, state=1)
    for name in "bc":
        assert str(refusal.value).count(f"class '{name}' has 0 images") == 2


def test_rows_without_any_class_are_refused(blobs: Cohort) -> None:
    nothing = np.flatnonzero(class_of_rows(blobs, blobs.classes) < 0)
    with pytest.raises(DataError, match="no image belongs to one of A, B, C, D"):
        EpisodeSampler(blobs, nothing)


def test_episodes_that_are_no_number_are_refused(blobs: Cohort) -> None:
    with pytest.raises(SettingsError, match="episode -1 must not be negative"):
        make_sampler(blobs).batch([0, -1])
    with pytest.raises(SettingsError, match="seed -3 must not be negative"):
        make_sampler(blobs, seed=-3).batch([0])
    with pytest.raises(SettingsError, match="at least one episode"):
        make_sampler(blobs).batch([])
