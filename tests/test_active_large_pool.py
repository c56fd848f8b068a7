"""What ActiveLabel-v0 does for pools of a million images, on small ones: the same numbers by other routes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from active_reference import gradient_descent
from conftest import EVERYTHING

from activelabel.data import Cohort, Standardizer, splits
from activelabel.data.derived import taken
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, active_engine, descent, distances
from activelabel.envs.distances import Geometry
from activelabel.envs.learners import LogisticRegression, SoftmaxHead

Make = Callable[..., Any]


@pytest.mark.parametrize("learner", [SoftmaxHead(epochs=50), SoftmaxHead(0.5, 7, warm=True), LogisticRegression()])
@pytest.mark.parametrize("classes", [2, 4])
def test_many_images_are_learnt_without_their_inner_products(
    learner: Any, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((3, 40, 6)).astype(np.float32))
    y = torch.from_numpy(rng.integers(classes, size=(3, 40)))
    weight = torch.from_numpy((rng.random((3, 40)) < 0.9).astype(np.float32))
    usual = learner.fit(x, y, weight, classes, None)
    monkeypatch.setattr(descent, "_MANY_IMAGES", 39)
    monkeypatch.setattr(descent, "_BLOCK", 17)
    monkeypatch.setattr(descent, "_Dual", None)
    found = learner.fit(x, y, weight, classes, None)
    assert found.warm is None
    # Logistic regression ends earlier or later: its gradient is another.
    near = 1e-3 if isinstance(learner, LogisticRegression) else 1e-4
    np.testing.assert_allclose(found.weight, usual.weight, rtol=0, atol=near)
    np.testing.assert_allclose(found.bias, usual.bias, rtol=0, atol=near)
    if isinstance(learner, SoftmaxHead):
        there = weight[0] > 0
        w, b = gradient_descent(x[0][there].double().numpy(), y[0][there].tolist(), classes, learner.c, learner.epochs)
        np.testing.assert_allclose(found.weight[0], w, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.bias[0], b, rtol=0, atol=1e-4)


def test_the_target_of_many_images_is_the_same(blobs: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ActiveLabelSettings.make(budget=12, reward="target", pool=60, state_images=5)
    usual = ActiveLabelEngine(blobs, settings, "cpu").target()
    monkeypatch.setattr(descent, "_MANY_IMAGES", 50)
    monkeypatch.setattr(descent, "_Dual", None)
    assert ActiveLabelEngine(blobs, settings, "cpu").target() == usual


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_distances_of_some_points_are_those_of_all(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    geometry = Geometry.of(torch.randn(300, 7, generator=generator), distance)
    every = geometry.to(torch.arange(300))
    some, pools = torch.randint(300, (3, 4), generator=generator), torch.stack([torch.randperm(300)[:50]] * 3)
    expected = every[some[:, :, None], pools[:, None, :]]
    usual = geometry.between(some, pools)
    for few in (1, 1000):  # the pools' own points, or all
        monkeypatch.setattr(distances, "POOLS", few)
        np.testing.assert_allclose(geometry.between(some, pools), expected, rtol=0, atol=2e-3)
        assert torch.equal(geometry.between(some, pools)[1:2], geometry.between(some[1:2], pools[1:2]))
    np.testing.assert_allclose(usual, expected, rtol=0, atol=2e-3)
    monkeypatch.setattr(distances, "_ROWS", 32)
    for references in (4096, 25):
        monkeypatch.setattr(distances, "_REFERENCES", references)
        pool, fresh = pools[0], Geometry(geometry.points, geometry.norms, geometry.cosine)
        np.testing.assert_allclose(fresh.sums(), fresh.sums(torch.arange(300), torch.arange(300)), rtol=1e-5)
        own = fresh.take(pool).sums()
        np.testing.assert_allclose(fresh.sums(pool[:9], pool), own[:9], rtol=1e-5)
        assert fresh.sums() is fresh.sums()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("pool", [60, None])
def test_few_candidates_of_a_large_pool_are_described_alike(
    make_active_vec: Make, distance: str, pool: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their distances are taken at each step instead of being summed for the whole pool."""
    arguments = {**EVERYTHING, "candidates": 15, "distance": distance, "pool": pool}
    usual = make_active_vec(3, **arguments)
    monkeypatch.setattr(active_engine, "LARGE", 1)
    monkeypatch.setattr(active_engine, "POOLS", 2)
    sparse = make_active_vec(3, **arguments)
    assert sparse.engine.sparse
    assert not usual.engine.sparse
    (expected, _), (found, info) = usual.reset(seed=0), sparse.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(4):
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4)
        action = rng.permuted(np.tile(np.arange(15), (3, 1)), axis=1)[:, : sparse.engine.settings.batch]
        (expected, reward, *_), (found, own, *_, info) = usual.step(action), sparse.step(action)
        np.testing.assert_array_equal(own, reward)
    assert "candidate_ids" in info


def test_large_products_have_the_same_bits_wherever_their_rows_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "LARGE", 100)
    a, x = torch.randn(50, 70), torch.randn(100, 70)
    whole = descent.shared_product(a, x)
    np.testing.assert_allclose(whole, a @ x.T, rtol=0, atol=1e-4)
    assert all(torch.equal(descent.shared_product(a[i : i + 3], x), whole[i : i + 3]) for i in range(0, 47, 5))


def test_what_lies_on_disk_gives_the_same_numbers(blobs: Cohort, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", blobs.embedded())
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    rows = np.array([5, 3, 600])
    for array in (mapped, blobs.embedded(), np.load(tmp_path / "features.npy", mmap_mode="c")):
        np.testing.assert_array_equal(taken(array, rows), blobs.embedded()[rows])
        np.testing.assert_array_equal(taken(array, (rows, slice(1, 3))), blobs.embedded()[rows, 1:3])
    np.testing.assert_array_equal(mapped, blobs.embedded())


def test_moments_of_many_rows_are_taken_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).standard_normal((300, 150)).astype(np.float32)
    cohort, rows = Cohort(np.ones((300, 1), np.int8), ("a",), features), np.arange(0, 300, 2)
    usual = Standardizer.fit(cohort, rows)
    monkeypatch.setattr(splits, "_MANY_ROWS", 100)
    assert Standardizer.fit(cohort, rows).equals(usual)
