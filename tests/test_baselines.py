"""Strategies that do not learn: one template for all, and what each promises of its own."""

from __future__ import annotations

import itertools
from typing import Any

import kmedoids
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from activelabel.baselines import BASELINES, Baseline, KMedoids
from activelabel.baselines.kmedoids import SAMPLES, import_sklearn_extra, total_distance
from activelabel.errors import SettingsError
from activelabel.seeding import stream

every = pytest.mark.parametrize("name", BASELINES)
N, D, B = 15, 3, 4


def observe(seed: int, b: int | None = B, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (n,) if b is None else (b, n)
    return {
        "pool": rng.standard_normal((*shape, D)).astype(np.float32),
        "clinical": rng.standard_normal((*shape, 3)).astype(np.float32),
    }


def pick(observation: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: array[i] for name, array in observation.items()}


@every
@pytest.mark.parametrize("k", [1, 5, N])
@pytest.mark.parametrize("deterministic", [True, False])
def test_it_chooses_k_different_images_of_the_pool(name: str, k: int, deterministic: bool) -> None:
    chosen, state = BASELINES[name](k).predict(observe(0), deterministic=deterministic)
    assert state is None
    assert chosen.shape == (B, k)
    assert chosen.dtype == np.int64
    for selection in chosen:
        assert len(set(selection.tolist())) == k
        assert set(selection.tolist()) <= set(range(N))


@every
def test_the_whole_pool_is_the_whole_pool(name: str) -> None:
    for n in (1, 2, N):
        chosen, _ = BASELINES[name](n).predict(observe(1, None, n))
        assert sorted(chosen.tolist()) == list(range(n))


@every
def test_a_batch_is_one_pool_after_the_other(name: str) -> None:
    observation = observe(2)
    ks = (1, 4)
    together = BASELINES[name](seed=3).select(observation, ks)
    alone = BASELINES[name](seed=3)
    for i in range(B):
        chosen = alone.select(pick(observation, i), ks)
        for k in ks:
            assert chosen[k].shape == (k,)
            np.testing.assert_array_equal(chosen[k], together[k][i])


@every
def test_predict_is_select_of_its_k(name: str) -> None:
    observation = observe(3)
    first = BASELINES[name](6, seed=1).select(observation, [6])[6]
    np.testing.assert_array_equal(BASELINES[name](6, seed=1).predict(observation)[0], first)
    changed = BASELINES[name](6, seed=1)
    changed.k = 2
    assert changed.predict(observation)[0].shape == (B, 2)


@every
def test_the_seed_decides_and_no_global_generator_is_used(name: str) -> None:
    observation = observe(4)
    with reference.global_rng_untouched():
        first = [BASELINES[name](5, seed=9).predict(observation)[0] for _ in range(2)]
    np.testing.assert_array_equal(*first)


@every
def test_it_does_not_write_into_the_observation(name: str) -> None:
    observation = observe(5)
    before = {key: array.copy() for key, array in observation.items()}
    BASELINES[name](5).predict(observation)
    for key, array in observation.items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.usefixtures("every_torch_warning")
@every
def test_a_read_only_observation_is_accepted(name: str) -> None:
    observation = observe(5)
    for array in observation.values():
        array.flags.writeable = False
    assert BASELINES[name](5).predict(observation)[0].shape == (B, 5)


@every
def test_identical_images_are_still_different_choices(name: str) -> None:
    observation = {"pool": np.zeros((N, D), np.float32), "clinical": np.zeros((N, 3), np.float32)}
    assert len(set(BASELINES[name](6).predict(observation)[0].tolist())) == 6


@every
def test_more_than_the_pool_and_less_than_one_are_refused(name: str) -> None:
    for k in (0, N + 1):
        with pytest.raises(SettingsError, match=f"k={k} images cannot be chosen from a pool of {N}"):
            BASELINES[name]().select(observe(0), [k])
    with pytest.raises(SettingsError, match="k=0 must be at least 1"):
        BASELINES[name](0)
    with pytest.raises(SettingsError, match=f"k={N + 1} images"):
        BASELINES[name](N + 1).predict(observe(0, None))


@every
def test_it_plays_the_env(name: str, make_vec: Any) -> None:
    vector = make_vec(3)
    observation, _ = vector.reset(seed=0)
    baseline: Baseline = BASELINES[name](4)
    for _ in range(2):
        observation, rewards, *_ = vector.step(baseline.predict(observation)[0])
        assert ((rewards >= 0) & (rewards <= 1)).all()


@every
def test_the_registered_name_is_its_own(name: str) -> None:
    assert BASELINES[name].name == name


# -- random -----------------------------------------------------------------------------------------------------------


def test_random_draws_every_image_equally_often_and_anew_each_time() -> None:
    baseline = BASELINES["random"](5)
    observation = observe(0, 1)
    drawn = np.concatenate([baseline.predict(observation)[0] for _ in range(900)])
    counts = np.bincount(drawn.ravel(), minlength=N)
    assert np.abs(counts - 300).max() < 4.5 * np.sqrt(900 / 3 * 2 / 3)
    other = BASELINES["random"](5, seed=1).predict(observation)[0]
    assert not np.array_equal(other, drawn[:1])


# -- K-Medoids --------------------------------------------------------------------------------------------------------


def loss(distances: np.ndarray, medoids: Any) -> float:
    return float(distances[:, list(medoids)].min(axis=1).sum())


@given(seed=st.integers(0, 10_000), n=st.integers(3, 12), k=st.integers(1, 4), start=st.integers(0, 3))
def test_no_swap_of_one_medoid_improves_the_loss(seed: int, n: int, k: int, start: int) -> None:
    k = min(k, n)
    observation = observe(seed, None, n)
    distances = cdist(observation["pool"], observation["pool"])
    medoids = KMedoids(k, seed=start).predict(observation)[0].tolist()
    reached = loss(distances, medoids)
    for position, image in itertools.product(range(k), range(n)):
        swapped = [*medoids[:position], image, *medoids[position + 1 :]]
        assert loss(distances, swapped) >= reached - 1e-6


def test_the_loss_is_near_the_best_of_all_selections() -> None:
    ratios = []
    for seed in range(40):
        observation = observe(seed, None, 10)
        distances = cdist(observation["pool"], observation["pool"])
        best = min(loss(distances, chosen) for chosen in itertools.combinations(range(10), 3))
        ratios.append(loss(distances, KMedoids(3).predict(observation)[0]) / best)
    assert min(ratios) >= 1 - 1e-6
    # A local optimum may be worse than the best one now and then.
    assert np.quantile(ratios, 0.8) <= 1.05
    assert np.mean(ratios) <= 1.05


def test_clusters_that_lie_apart_get_a_medoid_each() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [50, 0], [0, 50], [50, 50]])
    pool = (centres[np.arange(40) % 4] + rng.standard_normal((40, 2))).astype(np.float32)
    for seed in range(5):
        chosen = KMedoids(4, seed=seed).predict({"pool": pool, "clinical": np.zeros((40, 3), np.float32)})[0]
        assert sorted(chosen % 4) == [0, 1, 2, 3]


def test_a_large_pool_is_clustered_by_the_best_of_several_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activelabel.baselines.kmedoids.SAMPLED", 60)
    observation = observe(3, None, 500)
    distances = cdist(observation["pool"], observation["pool"])
    exact = KMedoids(5).predict(observation)[0]
    found = KMedoids(5, limit=499).predict(observation)[0]
    assert len(set(found.tolist())) == 5
    np.testing.assert_array_equal(found, KMedoids(5, limit=499).predict(observation)[0])
    np.testing.assert_array_equal(exact, KMedoids(5, limit=500).predict(observation)[0])
    assert loss(distances, exact) < loss(distances, found) <= 1.1 * loss(distances, exact)
    # The best of the samples by the loss on all images, which is what total_distance says.
    samples = []
    for turn in range(SAMPLES):
        rows = np.sort(stream(0, "kmedoids", "sample", turn).choice(500, 60, replace=False))
        part = {name: array[rows] for name, array in observation.items()}
        samples.append(loss(distances, rows[KMedoids(5).predict(part)[0]]))
    assert loss(distances, found) == pytest.approx(min(samples))
    assert min(samples) < max(samples)
    assert total_distance(observation["pool"], found, chunk=7) == pytest.approx(loss(distances, found), rel=1e-5)


def test_all_of_a_large_pool_can_be_chosen() -> None:
    assert sorted(KMedoids(30, limit=10).predict(observe(0, None, 30))[0].tolist()) == list(range(30))


def test_an_unknown_backend_is_named_with_the_closest_match() -> None:
    with pytest.raises(SettingsError, match=r"unknown K-Medoids backend 'fasterpan'.*Did you mean 'fasterpam'"):
        KMedoids(backend="fasterpan")


def missing() -> str:
    """Why scikit-learn-extra cannot be imported; empty where it can."""
    try:
        import_sklearn_extra()
    except SettingsError as error:
        return str(error)
    return ""


REASON = missing()


@pytest.mark.skipif(not REASON, reason="scikit-learn-extra can be imported here")
def test_a_missing_backend_says_what_it_needs() -> None:
    with pytest.raises(SettingsError, match=r"'sklearn-extra' cannot be imported \(.*numpy 1.*activelabel\[sklearn"):
        KMedoids(backend="sklearn-extra").predict(observe(0))


@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.parametrize("seed", range(5))
def test_the_sklearn_extra_backend_is_that_algorithm(seed: int) -> None:
    """Its default, an alternating search from the K most central images, is reproduced by the kmedoids package."""
    pool = observe(seed)["pool"][0]
    distances = cdist(pool, pool)
    chosen = KMedoids(4, backend="sklearn-extra").predict({"pool": pool, "clinical": np.zeros((len(pool), 3))})[0]
    start = np.argpartition(distances.sum(axis=1), 3)[:4].astype(np.uint64)
    expected = kmedoids.alternating(distances, start)
    assert distances[chosen].min(axis=0).sum() == pytest.approx(expected.loss, rel=1e-12)
