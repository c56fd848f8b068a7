"""Which pools are of the conditions of the training, and who chooses of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from activelabel.agents import Familiarity, Reinforce, select_images
from activelabel.agents.familiarity import COMPONENTS, condition_means
from activelabel.baselines import KMedoids
from activelabel.data import Cohort
from activelabel.errors import CheckpointError, DataError, SettingsError

Make = Callable[..., Any]


def draw(rng: np.random.Generator, *shape: int, at: float = 0.0) -> np.ndarray:
    """Images whose numbers vary differently and together; ``at`` moves them along one direction."""
    mixing = np.random.default_rng(99).standard_normal((6, 6)) * np.arange(1, 7)
    return (rng.standard_normal((*shape, 6)) @ mixing + at).astype(np.float32)


def slow_statistic(images: np.ndarray, means: np.ndarray, pool: np.ndarray) -> float:
    """The slow reference: squared Mahalanobis distances by the inverse of the covariance."""
    inverse = np.linalg.inv(np.cov(images.astype(np.float64).T, bias=True))
    differences = pool.astype(np.float64).mean(axis=0) - means.astype(np.float64)
    return float(min(d @ inverse @ d for d in differences) * len(pool) / images.shape[1])


@pytest.mark.parametrize("n", [1, 20, 200])
def test_it_is_hotellings_statistic_of_the_nearest_condition(n: int) -> None:
    rng = np.random.default_rng(0)
    images, means = draw(rng, 500), np.stack([draw(rng, 400, at=at).mean(axis=0) for at in (0, 3)])
    pools = draw(rng, 5, n, at=1.0)
    expected = [slow_statistic(images, means, pool) for pool in pools]
    np.testing.assert_allclose(Familiarity.fit(images, means).statistic(pools), expected, rtol=1e-3)


def test_pools_of_a_known_condition_are_about_1_and_of_another_far_above() -> None:
    rng = np.random.default_rng(1)
    found = Familiarity.fit(draw(rng, 5000), draw(rng, 1, 5000).mean(axis=1))
    for n in (20, 200):
        assert 0.9 < found.statistic(draw(rng, 400, n)).mean() < 1.1
    limited = found.limited(4)
    assert limited.familiar(draw(rng, 50, 200)).all()
    assert not limited.familiar(draw(rng, 50, 200, at=10.0)).any()
    assert not found.familiar(draw(rng, 50, 200)).any()  # with the limit of 0 nothing is


def test_images_of_more_numbers_than_components_and_of_numbers_that_do_not_vary() -> None:
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((100, 3 * COMPONENTS)).astype(np.float32)
    assert Familiarity.fit(wide, wide[:2]).whitening.shape == (3 * COMPONENTS, COMPONENTS)
    constant = np.concatenate([draw(rng, 100), np.ones((100, 4), np.float32)], axis=1)
    found = Familiarity.fit(constant, constant[:1])
    assert found.whitening.shape == (10, 6)
    assert np.isfinite(found.statistic(constant[None])).all()


def test_images_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(DataError, match="all 5 images of the training have the same features"):
        Familiarity.fit(np.ones((5, 3), np.float32), np.ones((1, 3), np.float32))


def test_the_mean_of_each_conditions_pools() -> None:
    pools = draw(np.random.default_rng(3), 6, 9)
    found = condition_means(pools.mean(axis=1), [7, 3, 7, 7, 3, 3])
    np.testing.assert_allclose(found[0], pools[[1, 4, 5]].reshape(-1, 6).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], pools[[0, 2, 3]].reshape(-1, 6).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    whole = Familiarity.fit(draw(np.random.default_rng(4), 50), np.zeros((2, 6), np.float32)).arrays()
    assert Familiarity.of_arrays(whole).arrays().keys() == whole.keys()
    for name, value in (("centre", np.zeros(5)), ("means", np.zeros((0, 6))), ("limit", np.nan)):
        with pytest.raises(ValueError, match=r"fit together|not finite"):
            Familiarity.of_arrays({**whole, name: value})
    with pytest.raises(SettingsError, match="compared with images of 6 numbers; these have 5"):
        Familiarity.of_arrays(whole).statistic(np.zeros((1, 3, 5), np.float32))


# -- an agent with one ------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(make_vec: Make) -> Reinforce:
    """An agent with pools around 0 for familiar."""
    model = Reinforce("MLPPolicy", make_vec(4), batch_size=4, seed=1, device="cpu", policy_kwargs={"hidden": 8})
    images = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    model.familiarity = Familiarity.fit(images, np.zeros((1, 8), np.float32)).limited(4)
    return model


def some_pools() -> dict[str, Any]:
    """Of four pools the first and the last are familiar."""
    pools = np.random.default_rng(5).standard_normal((4, 30, 8)).astype(np.float32)
    pools[1:3] += 5
    return {"pool": pools, "clinical": np.zeros((4, 30, 3), np.float32)}


def test_k_medoids_chooses_of_what_is_not_familiar(guarded: Reinforce) -> None:
    pools = some_pools()
    chosen = guarded.select(pools, [3, 5])
    medoids = KMedoids().select(pools, [3, 5])
    familiarity, guarded.familiarity = guarded.familiarity, None
    free = guarded.select(pools, [3, 5])
    for k in (3, 5):
        np.testing.assert_array_equal(chosen[k][1:3], medoids[k][1:3])
        np.testing.assert_array_equal(chosen[k][[0, 3]], free[k][[0, 3]])
        assert not np.array_equal(free[k][1:3], medoids[k][1:3])
    guarded.familiarity = familiarity
    for i in range(4):  # and without a batch
        one = {name: value[i] for name, value in pools.items()}
        assert guarded.select(one, [5])[5].tolist() == chosen[5][i].tolist()
    with pytest.raises(SettingsError, match="the observation has no 'pool'"):
        guarded.select({"clinical": pools["clinical"]}, [3])


def test_it_is_saved_with_the_model(guarded: Reinforce, tmp_path: Path) -> None:
    guarded.save(tmp_path / "m.zip")
    back = Reinforce.load(tmp_path / "m.zip", device="cpu")
    np.testing.assert_array_equal(back.select(some_pools(), [5])[5], guarded.select(some_pools(), [5])[5])
    assert back.familiarity is not None
    assert back.familiarity.limit == 4
    assert guarded.familiarity is not None
    guarded.familiarity = Familiarity(np.zeros(7, np.float32), np.eye(7, dtype=np.float32), np.eye(7)[:1], 1.0)
    guarded.save(tmp_path / "m.zip")
    with pytest.raises(CheckpointError, match="pools of 8 numbers an image, compared with 7"):
        Reinforce.load(tmp_path / "m.zip")


def test_training_is_not_concerned(make_vec: Make) -> None:
    weights = []
    for limit in (None, 0.0):
        model = Reinforce("MLPPolicy", make_vec(4), batch_size=4, seed=1, device="cpu", policy_kwargs={"hidden": 8})
        if limit is not None:
            images = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
            model.familiarity = Familiarity.fit(images, np.zeros((1, 8), np.float32)).limited(limit)
        model.learn(12)
        weights.append(torch.cat([weight.detach().flatten() for weight in model.policy.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_selecting_from_many_images(guarded: Reinforce, cohort: Cohort) -> None:
    features, rows = cohort.embedded(), np.arange(5, 65)
    assert guarded.standardizer is not None
    pool = guarded.standardizer.features(features[rows])
    assert guarded.familiarity is not None
    for limit in (0.0, 1e9):
        guarded.familiarity = guarded.familiarity.limited(limit)
        found, scores = select_images(guarded, features, 4, rows)
        clinical = np.zeros((60, 3), np.float32)
        assert found.tolist() == rows[guarded.select({"pool": pool, "clinical": clinical}, [4])[4]].tolist()
        assert scores.any() == (limit > 0)


def test_infinite_features_are_refused_with_a_guard_too(guarded: Reinforce) -> None:
    for value in (np.inf, np.nan):
        features = np.random.default_rng(6).standard_normal((40, 8)).astype(np.float32)
        features[3, 2] = value
        with pytest.raises(DataError, match="features or clinical variables are infinite, or features NaN"):
            select_images(guarded, features, 4)
