"""What an agent sees and earns: an episode equals one that is played by the definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from active_reference import SlowEpisode
from conftest import EVERYTHING
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from activelabel.data import Cohort, load
from activelabel.envs import METRICS, ActiveLabelEngine, ActiveLabelSettings, RunningEpisodes
from activelabel.envs.candidates import DISTANCES, LONG, SHORT, STATES, entropy, margin, state_size

Make = Callable[..., Any]

GAMES: dict[str, dict[str, Any]] = {
    "defaults of the paper": {"features": SHORT, "learner_arguments": {}},
    "cosine": {"distance": "cosine"},
    "data space": {"space": "data", "components": 3},
    "data space, cosine": {"space": "data", "distance": "cosine", "standardize": False},
    "one at a time": {"batch": 1, "budget": 7},
    "few candidates": {"candidates": 15},
    "fewer candidates than asked for": {"candidates": 19, "pool": 20, "budget": 16},
    "the whole pool is labelled": {"pool": 20, "budget": 16, "batch": 4},
    "the whole part is the pool": {"pool": None, "features": LONG},
    "warm": {"learner_arguments": {"epochs": 5, "warm": True}},
    "two initial labels": {"initial": 2},
    "two classes": {"classes": ("C", "A"), "metric": "auroc"},
    "balanced accuracy": {"metric": "balanced-accuracy"},
    "macro AUROC": {"metric": "auroc"},
    "logistic": {"learner": "logistic", "learner_arguments": {"max_iter": 100, "tolerance": 1e-9}},
    "logistic of two classes": {
        "learner": "logistic",
        "learner_arguments": {"c": 0.1, "max_iter": 60, "tolerance": 1e-9},
        "classes": ("A", "B"),
    },
    "target": {"reward": "target", "tolerance": 0.93},
    "another split": {"split": "val", "pool": 30, "state_images": 4, "fractions": (0.5, 0.4, 0.1)},
}
"""Every feature and state is compared in nearly every game: one that is new needs a definition in the reference."""


def random_action(rng: np.random.Generator, m: int, batch: int) -> list[int]:
    """Candidates with a repeated one and, from the second step on, mostly one that is labelled already."""
    action = rng.integers(m, size=batch).tolist()
    if batch > 2:
        action[1], action[2] = action[0], 3
    return action


@pytest.mark.parametrize("name", GAMES)
def test_an_episode_equals_the_slow_reference(make_active: Make, name: str) -> None:
    env = make_active(**{**EVERYTHING, **GAMES[name]})
    rng = np.random.default_rng(1)
    for number in (3, 8):
        observation, info = env.reset(options={"episode": number})
        slow = SlowEpisode(env.engine, number)
        assert info["initial_ids"].tolist() == slow.labelled
        over = False
        while not over:
            compare(observation, info, slow)
            action = random_action(rng, env.engine.m, env.engine.settings.batch)
            before = (info["candidate_ids"].tolist(), info["action_mask"].tolist())
            observation, reward, over, truncated, info = env.step(action[0] if len(action) == 1 else action)
            expected, ends, ids = slow.step(*before, action)
            assert (over, truncated) == (ends, False)
            # The same images are recognised: equal but for the sums of their shares.
            assert reward == pytest.approx(expected, abs=1e-12)
            assert info["ids"].tolist() == ids
            assert info["labels"].tolist() == [-1 if row < 0 else slow.label(row) for row in ids]
        compare(observation, info, slow)
        labels, curve = zip(*slow.curve, strict=True)
        assert info["curve_labels"].tolist() == list(labels)
        np.testing.assert_allclose(info["test_curve"], curve, rtol=0, atol=1e-12)


def compare(observation: dict[str, Any], info: dict[str, Any], slow: SlowEpisode) -> None:
    rows, mask = info["candidate_ids"].tolist(), info["action_mask"].tolist()
    free = [row for row in slow.pool if row not in slow.labelled]
    offered = [row for row, there in zip(rows, mask, strict=True) if there]
    if len(rows) == len(slow.pool):
        assert rows == slow.pool
        assert offered == free
    else:
        assert len(offered) == len(set(offered)) == min(len(rows), len(free))
        assert set(offered) <= set(free)
    np.testing.assert_array_equal(observation["action_mask"], mask)
    assert info["n_labelled"] == len(slow.labelled)
    assert info["reward_accuracy"] == pytest.approx(slow.quality, abs=1e-12)
    # float32 against float64: a few hundred rounded steps of the descent.
    np.testing.assert_allclose(observation["state"], slow.state(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(observation["probabilities"], slow.predict(rows), rtol=0, atol=2e-5)
    described = [slow.features(row) for row in rows]
    for i, name in enumerate(slow.s.features):
        # A distance is the root of a difference of squares, so the rounding of the squares' size counts by its root.
        scale = float(np.abs(slow.data).max()) if slow.s.space == "data" else 1.0
        tolerance = 1e-4 * scale if name in DISTANCES else 2e-5
        expected = [features[name] for features in described]
        np.testing.assert_allclose(observation["candidates"][:, i], expected, rtol=0, atol=tolerance, err_msg=name)


def test_every_feature_and_state_has_another_value_for_another_image(make_active: Make) -> None:
    # Else the comparison above could pass on constants.
    env = make_active(**EVERYTHING, oracle="annotators", oracle_arguments={"errors": [0.0, 0.0], "costs": [1, 2]})
    env.reset(seed=0)
    observation = env.step(np.arange(5))[0]
    assert (observation["candidates"].std(axis=0) > 1e-3).all()
    assert len(set(observation["state"].tolist())) > 40


def test_the_features_come_in_the_order_asked_for(make_active: Make) -> None:
    forward = make_active(features=LONG).reset(seed=0)[0]["candidates"]
    backward = make_active(features=LONG[::-1]).reset(seed=0)[0]["candidates"]
    np.testing.assert_array_equal(forward, backward[:, ::-1])
    assert LONG[:3] == SHORT
    twice = make_active(features=["margin", "margin"]).reset(seed=0)[0]["candidates"]
    np.testing.assert_array_equal(twice[:, 0], twice[:, 1])
    np.testing.assert_array_equal(twice[:, 0], forward[:, LONG.index("margin")])


# -- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([1.0, 0, 0], (1, 0)),
        ([0.5, 0.5, 0], (0, np.log(2) / np.log(3))),
        ([1 / 3] * 3, (0, 1)),
        ([0, 0.25, 0.75], None),
    ],
)
def test_margin_and_entropy_of_known_cases(p: list[float], expected: tuple[float, float] | None) -> None:
    found = (float(margin(torch.tensor(p))), float(entropy(torch.tensor(p))))
    by_hand = expected or (0.5, (0.25 * np.log(4) + 0.75 * np.log(4 / 3)) / np.log(3))
    assert found == pytest.approx(by_hand, abs=1e-6)
    assert 0 <= found[1] <= 1


@given(seed=st.integers(0, 1000), images=st.integers(1, 9), classes=st.integers(2, 5))
def test_states_are_sorted_and_do_not_depend_on_the_order_of_the_images(seed: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.ones(classes), size=(2, images)))
    for name, describe in STATES.items():
        numbers = describe(p)
        assert numbers.shape == (2, state_size((name,), images, classes))
        assert torch.equal(numbers, describe(p[:, torch.from_numpy(rng.permutation(images))]))
    for name in ("confidence", "probability"):
        assert (STATES[name](p).diff(dim=1) >= 0).all()
    assert state_size(("progress", *STATES), images, classes) == 1 + images * (2 + classes)


SCIKIT = {
    "accuracy": lambda y, p: accuracy_score(y, p.argmax(axis=1)),
    "balanced-accuracy": lambda y, p: balanced_accuracy_score(y, p.argmax(axis=1)),
    "auroc": lambda y, p: np.mean([roc_auc_score(y == c, p[:, c]) for c in range(p.shape[1])]),
}


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 5), extra=st.integers(0, 20))
def test_metrics_are_those_of_scikit_learn(name: str, seed: int, classes: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=extra)])
    # One decimal: many ties for the ranking; continuous ones for the largest, whose ties are nobody's business.
    p = rng.dirichlet(np.ones(classes), size=(3, len(labels)))
    p = np.round(p, 1 if name == "auroc" else 9).astype(np.float32)
    found = METRICS[name](torch.from_numpy(p), torch.from_numpy(labels))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, [SCIKIT[name](labels, each) for each in p], rtol=0, atol=1e-12)


# -- running sums -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    number=st.integers(0, 50),
    batch=st.integers(1, 6),
    distance=st.sampled_from(["euclidean", "cosine"]),
    space=st.sampled_from(["latent", "data"]),
    candidates=st.sampled_from([None, 6, 30]),
)
def test_running_sums_of_distances_equal_the_definition(
    blobs: Cohort, seed: int, number: int, batch: int, distance: str, space: str, candidates: int | None
) -> None:
    chosen = ActiveLabelSettings.make(
        budget=30, batch=batch, pool=40, state_images=2, distance=distance, space=space, candidates=candidates,
        features=LONG, learner_arguments={"epochs": 1}, components=4,
    )  # fmt: skip
    engine = ActiveLabelEngine(blobs, chosen, "cpu")
    episodes = RunningEpisodes(engine, 2)
    episodes.begin(np.arange(2), [number, number + 1])
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 30 // batch + 1)):
        mask = episodes.mask.numpy()
        # Never a labelled one is offered, whatever was chosen before.
        assert not (episodes.labelled.gather(1, episodes.offered).numpy() & mask).any()
        episodes.label(rng.integers(engine.m, size=(2, batch)))
    points = engine.points.double()
    for i in range(2):
        mine = points[episodes.pool[i]]
        d = (
            1 - mine @ mine.T
            if distance == "cosine"
            else torch.cdist(mine, mine, compute_mode="donot_use_mm_for_euclid_dist")
        )
        known = episodes.labelled[i]
        scale = float(points.norm(dim=1).max())
        free = ~known
        for found, expected in (
            (episodes.sum_labelled[i], d[:, known].sum(dim=1)),
            (episodes.sum_unlabelled[i], d[:, free].sum(dim=1)),
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=40 * 1e-4 * scale)
        np.testing.assert_allclose(episodes.nearest[i][free], d[free][:, known].amin(dim=1), rtol=0, atol=2e-3 * scale)


def test_density_has_the_distance_to_the_nearest_of_the_part() -> None:
    engine = ActiveLabelEngine(load("digits"), ActiveLabelSettings.make(features=("density",), pool=100), "cpu")
    points = engine.points.double()
    d = torch.cdist(points, points).fill_diagonal_(float("inf"))
    expected = 1 / (1 + d.topk(10, dim=1, largest=False).values.mean(dim=1))
    np.testing.assert_allclose(engine.density, expected, rtol=0, atol=1e-5)
