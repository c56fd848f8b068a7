"""The one-shot strategies that cover the pool or stand for it, against slow loops over every image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from test_baselines import loss, observe
from test_pool_references import typical_reference

from activelabel.baselines import (
    BASELINES,
    CosineKMedoids,
    FacilityLocation,
    KMedoids,
    OneShotKCenter,
    OneShotTypiClust,
)
from activelabel.baselines.kmedoids import unit
from activelabel.seeding import stream

Points = NDArray[np.float64]


def farness(x: Points, chosen: list[int], image: int) -> float:
    """Minus the distance that k-center wants largest; of the first image, the distance to the mean."""
    if not chosen:
        return float(np.linalg.norm(x[image] - x.mean(axis=0)))
    return -min(float(np.linalg.norm(x[image] - x[j])) for j in chosen)


def left(x: Points, chosen: list[int], image: int) -> float:
    """Sum over the pool of the distance to the nearest chosen image, were this one chosen too."""
    return sum(min(float(np.linalg.norm(x[i] - x[j])) for j in [*chosen, image]) for i in range(len(x)))


def off(x: Points, chosen: list[int], image: int) -> float:
    """Distance of the means of the pool and of the chosen images, were this one chosen too."""
    return float(np.linalg.norm(x.mean(axis=0) - x[[*chosen, image]].mean(axis=0)))


COSTS: dict[str, Callable[[Points, list[int], int], float]] = {
    "k-center": farness,
    "facility-location": left,
    "herding": off,
}
"""What each greedy strategy wants least of."""

NEW = ["kmedoids-cosine", "typiclust", *COSTS]
greedy = pytest.mark.parametrize("name", COSTS)


def choose(name: str, pool: NDArray[Any], ks: list[int], seed: int = 0) -> dict[int, list[int]]:
    observation = {"pool": pool.astype(np.float32), "clinical": np.zeros((len(pool), 3), np.float32)}
    return {k: chosen.tolist() for k, chosen in BASELINES[name](seed=seed).select(observation, ks).items()}


def check_greedy(name: str, pool: NDArray[np.float32], order: list[int]) -> None:
    """Check that no free image is better than the one chosen, turn by turn, and no earlier one just as good."""
    x = pool.astype(np.float64)
    scale = len(x) * (1 + float(np.abs(x).max()))
    for turn, image in enumerate(order):
        costs = {i: COSTS[name](x, order[:turn], i) for i in range(len(x)) if i not in order[:turn]}
        assert costs[image] <= min(costs.values()) + 1e-8 * scale
        assert all((pool[i] != pool[image]).any() for i in costs if i < image)


@st.composite
def pools(draw: st.DrawFn) -> NDArray[np.float32]:
    """Pools of any size, of which any share may be the same image."""
    n, different = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    images = rng.standard_normal((different, 3)) * draw(st.sampled_from([1e-3, 1, 1e3])) + draw(st.sampled_from([0, 5]))
    found: NDArray[np.float32] = images[rng.integers(different, size=n)].astype(np.float32)
    return found


@greedy
@given(pool=pools())
def test_every_choice_is_the_best_of_all_free_images(name: str, pool: NDArray[np.float32]) -> None:
    check_greedy(name, pool, choose(name, pool, [len(pool)])[len(pool)])


@greedy
def test_so_it_is_in_a_larger_pool(name: str) -> None:
    pool = observe(0, None, 60)["pool"]
    check_greedy(name, pool, choose(name, pool, [15])[15])


@pytest.mark.parametrize("name", NEW)
@given(pool=pools(), k=st.integers(1, 14), seed=st.integers(0, 3))
def test_k_different_images_come_out(name: str, pool: NDArray[np.float32], k: int, seed: int) -> None:
    k = min(k, len(pool))
    chosen = choose(name, pool, [k, 1, len(pool)], seed)
    for size, images in chosen.items():
        assert len(images) == len(set(images)) == size
        assert set(images) <= set(range(len(pool)))
    assert choose(name, pool, [k], seed)[k] == chosen[k]  # whatever other K are asked for


@greedy
def test_fewer_images_are_the_first_of_more(name: str) -> None:
    pool = observe(1, None, 30)["pool"]
    chosen = choose(name, pool, [30, 1, 7])
    assert chosen[1] == chosen[30][:1]
    assert chosen[7] == chosen[30][:7]
    assert choose(name, pool, [7], seed=5)[7] == chosen[7]


@greedy
def test_identical_images_are_taken_in_the_order_of_the_pool(name: str) -> None:
    for value in (0.0, 0.1, -7e4):
        assert choose(name, np.full((9, 4), value), [5])[5] == [0, 1, 2, 3, 4]


def test_no_k_at_all_is_no_choice() -> None:
    for name in NEW:
        assert choose(name, observe(0, None)["pool"], []) == {}


@given(pool=pools(), powers=st.lists(st.integers(-20, 20), min_size=14, max_size=14), k=st.integers(1, 14))
def test_the_length_of_an_image_is_nothing_to_cosine_k_medoids(
    pool: NDArray[np.float32], powers: list[int], k: int
) -> None:
    k = min(k, len(pool))
    scaled = pool * 2.0 ** np.array(powers[: len(pool)])[:, None]  # of two, so that nothing is rounded
    assert choose("kmedoids-cosine", scaled, [k]) == choose("kmedoids-cosine", pool, [k])


def test_cosine_k_medoids_are_those_of_the_unit_sphere() -> None:
    right, up = np.eye(2)
    pool = np.repeat([100 * right, right, up], [10, 12, 10], axis=0)
    pool += np.random.default_rng(0).uniform(-0.1, 0.1, pool.shape)
    of = ["right"] * 22 + ["up"] * 10
    chosen = choose("kmedoids-cosine", pool, [2])[2]
    assert {of[i] for i in chosen} == {"right", "up"}
    assert {of[i] for i in choose("kmedoids", pool, [2])[2]} == {"right"}  # a long and a short one
    sphere = pool.astype(np.float32)
    assert chosen == KMedoids(2).predict({"pool": unit(sphere), "clinical": np.zeros((32, 3))})[0].tolist()


def test_unit_length_leaves_zeros() -> None:
    points = np.array([[3, 4], [0, 0], [1e-30, 0], [-1e30, 0]], np.float32)
    np.testing.assert_array_equal(unit(points), np.array([[0.6, 0.8], [0, 0], [1, 0], [-1, 0]], np.float32))
    assert unit(points).dtype == np.float32
    found = CosineKMedoids(2).predict({"pool": np.zeros((5, 2), np.float32), "clinical": np.zeros((5, 3))})[0]
    assert len(set(found.tolist())) == 2


def test_k_center_is_within_twice_the_best_radius() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 3)) * 30
    offsets = rng.standard_normal((60, 3))
    offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
    pool = np.concatenate([centres, np.repeat(centres, 10, axis=0) + offsets])  # the best radius is 1
    chosen = OneShotKCenter(6).predict({"pool": pool.astype(np.float32), "clinical": np.zeros((66, 3))})[0]
    assert cdist(pool, pool[chosen]).min(axis=1).max() <= 2 + 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_typiclust_takes_the_most_typical_of_each_cluster(seed: int) -> None:
    pool = observe(seed, None, 50)["pool"]
    start = int(stream(seed, "typiclust").integers(2**31))
    baseline = OneShotTypiClust(seed=seed)
    chosen = baseline.select({"pool": pool, "clinical": np.zeros((50, 3))}, [3, 8])
    for k in (3, 8):
        assert chosen[k].tolist() == typical_reference(pool, pool[:0], k, start)
    again = baseline.select({"pool": pool, "clinical": np.zeros((50, 3))}, [8])[8]
    assert again.tolist() == chosen[8].tolist()  # whatever was chosen before


def test_facility_location_comes_near_k_medoids() -> None:
    ratios = []
    for seed in range(20):
        observation = observe(seed, None, 80)
        distances = cdist(observation["pool"], observation["pool"])
        chosen = FacilityLocation(8).predict(observation)[0]
        ratios.append(loss(distances, chosen) / loss(distances, KMedoids(8).predict(observation)[0]))
    assert 1 <= np.mean(ratios) <= 1.1


def test_facility_location_of_a_large_pool_is_that_of_the_best_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activelabel.baselines.kmedoids.SAMPLED", 60)
    observation = observe(3, None, 500)
    distances = cdist(observation["pool"], observation["pool"])
    exact = FacilityLocation(5, limit=500).predict(observation)[0]
    found = FacilityLocation(5, limit=499).predict(observation)[0]
    assert len(set(found.tolist())) == 5
    assert loss(distances, found) <= 1.15 * loss(distances, exact)
    best = min(
        loss(distances, rows[FacilityLocation(5).predict({key: a[rows] for key, a in observation.items()})[0]])
        for rows in (
            np.sort(stream(0, "facility-location", "sample", t).choice(500, 60, replace=False)) for t in range(5)
        )
    )
    assert loss(distances, found) == pytest.approx(best)


def test_herding_keeps_the_mean_better_than_chance() -> None:
    observation = observe(0, 30, 200)
    pool = observation["pool"].astype(np.float64)

    def error(name: str) -> float:
        means = np.take_along_axis(pool, BASELINES[name](20).predict(observation)[0][:, :, None], axis=1).mean(axis=1)
        return float(np.linalg.norm(means - pool.mean(axis=1), axis=1).mean())

    assert error("herding") < 0.2 * error("random")
