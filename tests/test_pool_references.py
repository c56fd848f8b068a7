"""Each query strategy of ActiveLabel-v0 against a slow, obvious reference of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pool_play import Observation, observe, play, ranked
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from activelabel.baselines import Badge, GreedyOracle, KCenter, TypiClust, make_pool_baseline
from activelabel.baselines.diverse import clusters, drawn, gradient_distances, output_errors, squared_norms, typical
from activelabel.baselines.pool import AverageConfidence
from activelabel.errors import SettingsError
from activelabel.seeding import stream


def least_confident(p: list[float]) -> float:
    return 1 - max(p)


def least_margin(p: list[float]) -> float:
    first, second = sorted(p)[-1], sorted(p)[-2]
    return second - first


def most_entropy(p: list[float]) -> float:
    return -sum(q * float(np.log(q)) for q in p if q > 0)


SCORES = {"uncertainty": least_confident, "margin": least_margin, "entropy": most_entropy}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("c", [2, 8])
def test_a_score_ranks_as_its_definition(name: str, c: int) -> None:
    observation = observe(3, m=50, c=c)
    chosen = make_pool_baseline(name, 6).predict(observation)[0]
    for b, probabilities in enumerate(observation["probabilities"].tolist()):
        scores = [SCORES[name](p) for p in probabilities]
        assert chosen[b].tolist() == ranked(scores, observation["action_mask"][b], 6)


@pytest.mark.parametrize("name", [*SCORES, "average-confidence"])
def test_ties_are_taken_in_the_order_of_the_candidates(name: str) -> None:
    observation = observe(4, b=2, m=20)
    observation["probabilities"][:] = [0.5, 0.25, 0.25]
    for b, row in enumerate(make_pool_baseline(name, 4).predict(observation)[0]):
        np.testing.assert_array_equal(row, np.flatnonzero(observation["action_mask"][b])[:4])


def test_average_confidence_ranks_several_labels_and_ties_on_exclusive_ones() -> None:
    observation = observe(5, m=40, c=7)
    exclusive = make_pool_baseline("average-confidence", 5).predict(observation)[0]
    for b, row in enumerate(exclusive):  # whatever the rounding of the sums
        np.testing.assert_array_equal(row, np.flatnonzero(observation["action_mask"][b])[:5])
    observation["probabilities"] = np.random.default_rng(0).random((4, 40, 7)).astype(np.float32)
    several = make_pool_baseline("average-confidence", 5).predict(observation)[0]
    for b, probabilities in enumerate(observation["probabilities"].tolist()):
        means = [sum(p) / len(p) for p in probabilities]
        assert several[b].tolist() == ranked(means, observation["action_mask"][b], 5)
    assert AverageConfidence.measure(torch.tensor([[0.9, 0.6], [0.3, 0.7]]))[0] == pytest.approx(0.75)


def test_random_is_uniform_and_its_stream_has_a_name() -> None:
    observation = observe(6, b=2000, m=5)
    observation["action_mask"][:] = [1, 1, 0, 1, 1]
    chosen = make_pool_baseline("random", 2, 7).predict(observation)[0]
    pairs, counts = np.unique(chosen, axis=0, return_counts=True)
    assert len(pairs) == 12
    assert abs(counts - 2000 / 12).max() < 5 * np.sqrt(2000 / 12)
    numbers = stream(7, "pool", "random").random((2000, 5))
    assert chosen[3].tolist() == ranked(numbers[3].tolist(), observation["action_mask"][3], 2)


def farthest_first(x: NDArray[Any], centres: NDArray[Any], free: NDArray[Any], n: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(n):
        points = [*centres, *x[chosen]]
        gaps = {int(i): min(float(np.linalg.norm(x[i] - p)) for p in points) for i in np.flatnonzero(free)}
        chosen.append(max((i for i in gaps if i not in chosen), key=gaps.__getitem__))
    return chosen


@pytest.mark.parametrize("seed", range(3))
def test_k_center_takes_the_farthest_first(seed: int) -> None:
    observation = observe(seed, m=40)
    chosen = make_pool_baseline("k-center", 6).predict(observation)[0]
    for b, row in enumerate(chosen):
        x = observation["embeddings"][b].astype(np.float64)
        known = observation["labelled"][b][observation["labels"][b] >= 0].astype(np.float64)
        assert row.tolist() == farthest_first(x, known, observation["action_mask"][b], 6)


def test_k_center_covers() -> None:
    """Greedy is at most twice the radius of any choice of as many centres (Sener & Savarese, Theorem 1)."""
    rng = np.random.default_rng(0)
    observation = observe(1, b=1, m=200, d=2)
    observation["action_mask"][:] = 1
    x = observation["embeddings"][0].astype(np.float64)
    known = observation["labelled"][0, :6].astype(np.float64)

    def radius(chosen: NDArray[np.int64]) -> float:
        return float(cdist(x, np.concatenate([known, x[chosen]])).min(axis=1).max())

    found = radius(KCenter(8).predict(observation)[0][0])
    others = [radius(rng.choice(200, 8, replace=False)) for _ in range(200)]
    assert found <= 2 * min(others)
    assert found < min(others)
    # and its clusters are all found where there are as many as centres
    blobs = rng.integers(7, size=200)
    observation["embeddings"][0] = rng.standard_normal((7, 2))[blobs] * 10 + rng.standard_normal((200, 2)) * 0.01
    observation["labelled"][0, :6] = observation["embeddings"][0, np.flatnonzero(blobs == 0)[0]]
    assert sorted(blobs[KCenter(6).predict(observation)[0][0]]) == [1, 2, 3, 4, 5, 6]


def gradients(observation: Observation, b: int) -> NDArray[np.float64]:
    """Explicit gradient embeddings, ``(M, C * d)``."""
    rows = []
    for p, x in zip(observation["probabilities"][b], observation["embeddings"][b], strict=True):
        error = p.astype(np.float64)
        error[np.argmax(p)] -= 1
        rows.append(np.outer(error, x.astype(np.float64)).ravel())
    return np.array(rows)


def test_badge_distances_are_those_of_explicit_gradients() -> None:
    observation = observe(7, m=50, c=4, d=6)
    errors, x = output_errors(observation["probabilities"]), observation["embeddings"]
    norms, at = squared_norms(errors) * squared_norms(x), np.array([3, 0, 49, 7])
    found = gradient_distances(errors, x, norms, at)
    for b in range(4):
        explicit = gradients(observation, b)
        np.testing.assert_allclose(norms[b], (explicit**2).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found[b], ((explicit - explicit[at[b]]) ** 2).sum(axis=1), rtol=1e-5, atol=1e-5)


def test_badge_is_k_means_plus_plus_on_explicit_gradients() -> None:
    observation = observe(8, m=30)
    chosen = Badge(5, seed=3).predict(observation)[0]
    numbers = stream(3, "pool", "badge").random((4, 5))
    for b in range(4):
        explicit, free = gradients(observation, b), observation["action_mask"][b] > 0
        expected = [int(np.where(free, np.linalg.norm(explicit, axis=1), -1).argmax())]
        while len(expected) < 5:
            squared = (cdist(explicit, explicit[expected]) ** 2).min(axis=1) * free
            sums = np.cumsum(squared / squared.sum())
            expected.append(int(np.searchsorted(sums, numbers[b, len(expected)], side="right")))
        assert chosen[b].tolist() == expected


def test_badge_draws_in_proportion_to_the_squared_distance() -> None:
    numbers = stream(0, "test").random(20_000)
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    counts = np.bincount(drawn(np.tile(weights, (len(numbers), 1)), numbers), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[3] / len(numbers) == pytest.approx(0.75, abs=0.015)
    edges = np.array([0.0, np.nextafter(1.0, 0.0)])
    assert drawn(np.tile(weights, (2, 1)), edges).tolist() == [1, 3]
    assert drawn(np.array([[0.0, 5e-324]]), np.array([0.9])).tolist() == [1]  # the smallest number there is
    # Certain predictions have no gradient: then all are alike.
    observation = observe(9, b=300, m=4)
    observation["probabilities"][:] = [1, 0, 0]
    observation["action_mask"][:] = [0, 1, 1, 1]
    pairs = np.unique(Badge(2).predict(observation)[0], axis=0)
    assert pairs.tolist() == [[1, 2], [1, 3]]


def typical_reference(candidates: NDArray[Any], labelled: NDArray[Any], n: int, seed: int) -> list[int]:
    x = np.concatenate([candidates, labelled]).astype(np.float64)
    of = clusters(x, len(labelled) + n, seed).tolist()
    known = of[len(candidates) :]
    order = sorted(set(of), key=lambda k: (of.count(k) <= 5, known.count(k), -of.count(k), k))
    chosen: list[int] = []
    while len(chosen) < n:
        for k in order:
            members = [i for i in range(len(candidates)) if of[i] == k and i not in chosen]
            if not members or len(chosen) == n:
                continue
            nearest = min(20, len(members) // 2)
            gaps = []
            for i in members:
                others = sorted(float(np.linalg.norm(x[i] - x[j])) for j in members if j != i)
                gaps.append(float(np.mean(others[:nearest])) if nearest else 0.0)
            chosen.append(members[int(np.argmin(gaps))])
    return chosen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("m", [12, 90])
def test_typiclust_takes_the_most_typical_of_the_least_labelled_clusters(seed: int, m: int) -> None:
    observation = observe(seed, m=m, d=3)
    for b in range(4):
        known = observation["labelled"][b, : 2 + b]
        found = typical(observation["embeddings"][b], known, 4, seed)
        assert found.tolist() == typical_reference(observation["embeddings"][b], known, 4, seed)


def test_typiclust_goes_where_nothing_is_labelled() -> None:
    rng = np.random.default_rng(0)
    blobs = np.repeat(np.arange(5), [10, 40, 30, 20, 50])
    centres = rng.standard_normal((5, 4)) * 20
    observation = observe(0, b=1, m=150, d=4, labels=2, places=2)
    observation["embeddings"][0] = centres[blobs] + rng.standard_normal((150, 4))
    observation["labels"][0] = [0, 1]
    observation["labelled"][0] = centres[[4, 1]]
    observation["action_mask"][:] = 1
    chosen = TypiClust(3).predict(observation)[0][0]
    assert blobs[chosen].tolist() == [2, 3, 0]  # largest first
    for index, blob in zip(chosen, blobs[chosen], strict=True):
        gaps = np.linalg.norm(observation["embeddings"][0] - centres[blob], axis=1)
        assert gaps[index] < np.median(gaps[blobs == blob])  # in the middle of its cluster


def test_typiclust_clusters_many_images_in_few_iterations() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 3))[rng.integers(60, size=5100)] * 30 + rng.standard_normal((5100, 3)) * 0.01
    found = clusters(x, 60, 0)
    exact = KMeans(60, n_init=1, random_state=0).fit_predict(x)
    assert (found != exact).any()
    assert adjusted_rand_score(found, exact) > 0.95
    np.testing.assert_array_equal(clusters(x[:5000], 60, 0), KMeans(60, n_init=1, random_state=0).fit_predict(x[:5000]))
    assert len(np.unique(clusters(np.repeat(x[:2], 10, axis=0), 5, 0))) == 2  # fewer different images than clusters


# -- the oracle --------------------------------------------------------------------------------------------------------


def test_the_oracle_takes_what_labelling_each_candidate_shows_to_be_best() -> None:
    oracle, envs = play("oracle", 1, num_envs=2)
    assert isinstance(oracle, GreedyOracle)
    oracle.tries = 1000  # all
    observation, _ = envs.reset(seed=4)
    observation, *_ = envs.step(oracle.predict(observation)[0])
    saved = envs.state_dict()
    chosen = oracle.predict(observation)[0]
    assert envs.state_dict() == saved  # looking changes nothing
    rewards = np.full(observation["action_mask"].shape, -np.inf)
    copy = play("random", 1, num_envs=2)[1]
    for candidate in range(rewards.shape[1]):
        copy.load_state_dict(saved)
        reward = copy.step(np.full(2, candidate))[1]
        free = observation["action_mask"][:, candidate] > 0
        rewards[free, candidate] = reward[free]
    assert (rewards.max(axis=1) > 0).all()
    np.testing.assert_allclose(rewards[np.arange(2), chosen], rewards.max(axis=1), atol=1e-9)


def test_the_oracle_tries_as_many_as_it_is_told() -> None:
    oracle, envs = play("oracle", 3, num_envs=2)
    assert isinstance(oracle, GreedyOracle)
    observation, _ = envs.reset(seed=0)
    arrays = {**observation, "action_mask": observation["action_mask"] > 0}
    for tries, found in ((7, 7), (1, 3), (1000, 56)):
        oracle.tries = tries
        tried = oracle.score(arrays) >= 0
        assert tried.sum(axis=1).tolist() == [found, found]
        assert not (tried & ~arrays["action_mask"]).any()


def test_the_oracle_is_above_random() -> None:
    final = {}
    for name in ("oracle", "random"):
        agent, envs = play(name, 3, num_envs=16)
        observation, _ = envs.reset(seed=0)
        total = np.zeros(16)
        for _ in range(4):
            observation, reward, _, _, _ = envs.step(agent.predict(observation)[0])
            total += reward
        final[name] = float(total.mean())
    assert final["oracle"] > final["random"] + 0.03


def test_the_oracle_refuses_what_it_does_not_play() -> None:
    oracle = GreedyOracle(3)
    with pytest.raises(SettingsError, match=r"attach it first, oracle\.attach\(env\.unwrapped\.episodes\)"):
        oracle.predict(observe(0))
    with pytest.raises(SettingsError, match="tries=0 must be at least 1"):
        GreedyOracle(tries=0)
    _, envs = play("oracle")
    oracle.attach(envs.episodes)
    observation, _ = envs.reset(seed=0)
    with pytest.raises(SettingsError, match="of 2 episodes and 60 candidates is not the present one of the 3 attached"):
        oracle.predict({name: array[:2] for name, array in observation.items()})
    envs.step(oracle.predict(observation)[0])
    with pytest.raises(SettingsError, match="is not the present one"):
        oracle.predict(observation)
    half = envs.reset(options={"reset_mask": np.array([True, False, False])})[0]
    with pytest.raises(SettingsError, match="equally far"):
        oracle.predict(half)


def test_the_oracle_has_nothing_to_try_after_the_end() -> None:
    agent, envs = play("oracle", 3, budget=3, autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=0)
    observation, _, over, _, _ = envs.step(agent.predict(observation)[0])
    assert over.all()
    assert agent.predict(observation)[0].shape == (3, 3)
