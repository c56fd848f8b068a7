"""The discriminant selector: by one number an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelabel.agents import DiscriminantPolicy, Reinforce, join
from activelabel.baselines import KMedoids
from activelabel.data import Cohort, derived
from activelabel.envs import SelectiveLabelVectorEnv
from activelabel.envs.discriminant import Discriminant
from activelabel.errors import SettingsError
from activelabel.evaluation.protocol import play

Make = Callable[..., Any]


def direction_by_hand(x: np.ndarray, images: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The slow reference, before it is scaled."""
    differences = []
    for positive, negative in images:
        m, n = (sum(x[row].astype(float) for row in rows) / len(rows) for rows in (positive, negative))
        differences.append(m / np.sqrt((m**2).sum()) - n / np.sqrt((n**2).sum()))
    return np.asarray(sum(differences) / len(differences))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([1e-3, 1.0, 1e4]))
def test_the_direction_is_the_mean_difference_of_the_class_means(seed: int, conditions: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = (scale * (rng.normal(size=(30, 4)) + 0.5)).astype(np.float32)
    images = [(rng.permutation(15)[:5], 15 + rng.permutation(15)[:6]) for _ in range(conditions)]
    found = Discriminant.fit(x, images)
    expected = direction_by_hand(x, images)
    rows = np.unique(np.concatenate([row for sides in images for row in sides]))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    places = unit @ found.direction - found.offset
    assert np.corrcoef(places, unit @ expected)[0, 1] == pytest.approx(1, abs=1e-4)
    assert found.direction @ expected > 0
    assert (places[rows].mean(), places[rows].std()) == pytest.approx((0, 1), abs=1e-3)
    assert found.direction.dtype == np.float32


def test_images_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, images = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), [(np.arange(30), np.arange(30, 50))]
    whole = Discriminant.fit(x, images)
    monkeypatch.setattr(derived, "ROWS", 7)
    parts = Discriminant.fit(x, images)
    np.testing.assert_allclose(parts.direction, whole.direction, rtol=1e-6)
    assert parts.offset == pytest.approx(whole.offset)


def test_images_that_are_all_alike_have_one_place() -> None:
    for n in (4, 7):
        x = np.tile(np.array([0.1, 0.7, 0.3], np.float32), (n, 1))
        found = Discriminant.fit(x, [(np.arange(2), np.arange(2, n))])
        assert np.abs(found.direction).max() < 1e-9
    zeros = Discriminant.fit(np.zeros((4, 3), np.float32), [(np.arange(2), np.arange(2, 4))])
    assert (zeros.direction.tolist(), zeros.offset) == ([0, 0, 0], 0)


def test_it_is_of_the_conditions_and_images_of_the_training(make_vec: Make) -> None:
    env = make_vec(2, conditions=["Edema", "Pneumothorax"], held_out=["Cardiomegaly"])
    engine = env.engine
    found = env.discriminant
    labels, normal, train = engine.cohort.labels, engine.cohort.normal, engine.splits.train
    images = []
    for name in ("Edema", "Pneumothorax"):
        positive = np.abs(labels[train, engine.cohort.class_index(name)]) == 1  # uncertain ones count as positive
        images.append((train[positive], train[(labels[train, normal] == 1) & ~positive]))
    expected = direction_by_hand(engine.features.numpy(), images)
    np.testing.assert_allclose(
        found.direction / np.linalg.norm(found.direction), expected / np.linalg.norm(expected), atol=1e-5
    )
    # The same in every part, and whatever the images of the others are.
    for part in ("val", "test"):
        same = engine.sibling(split=part).discriminant()
        np.testing.assert_array_equal(same.direction, found.direction)
    augmented = engine.sibling(task_augmentation=0.5).discriminant()
    np.testing.assert_array_equal(augmented.direction, found.direction)
    engine.features[np.setdiff1d(np.arange(len(labels)), train)] = 7
    np.testing.assert_array_equal(engine.discriminant().direction, found.direction)


@pytest.fixture
def make_agent(make_vec: Make) -> Make:
    def make(seed: int = 0, inputs: tuple[str, ...] = ("pool",), **env: Any) -> Reinforce:
        return Reinforce(
            "DiscriminantPolicy",
            make_vec(2, **env),
            batch_size=2,
            n_samples=2,
            policy_kwargs={"hidden": 4, "inputs": list(inputs)},
            seed=seed,
            device="cpu",
        )

    return make


@pytest.mark.parametrize("inputs", [("pool",), ("pool", "clinical"), ("clinical", "pool"), ("clinical",)])
def test_it_reads_one_number_of_the_pool(make_agent: Make, inputs: tuple[str, ...], tmp_path: Path) -> None:
    model = make_agent(inputs=inputs)
    assert isinstance(model.policy, DiscriminantPolicy)
    (found,) = model.env.get_attr("discriminant")[:1]
    space = model.observation_space["pool"].shape
    rng = np.random.default_rng(0)
    observation = {
        "pool": rng.normal(size=(3, *space)).astype(np.float32),
        "clinical": rng.normal(size=(3, space[0], 3)).astype(np.float32),
    }
    tensors, _ = model.policy.tensors(observation)
    read = model.policy.images(tensors).numpy()
    pool = observation["pool"]
    places = (pool / np.linalg.norm(pool, axis=-1, keepdims=True)) @ found.direction - found.offset
    expected = [places[..., None] if name == "pool" else observation["clinical"] for name in inputs]
    np.testing.assert_allclose(read, np.concatenate(expected, axis=-1), atol=1e-4)
    # What is not along the direction does not count.
    model.learn(4)
    model.save(tmp_path / "model")
    again = Reinforce.load(tmp_path / "model", device="cpu")
    for name in ("direction", "offset"):
        assert torch.equal(getattr(again.policy, name), getattr(model.policy, name))
    assert again.select(observation, [4])[4].tolist() == model.select(observation, [4])[4].tolist()


def test_another_env_does_not_change_the_direction(make_agent: Make, make_vec: Make) -> None:
    model = make_agent()
    before = model.policy.direction.clone()
    model.set_env(make_vec(2, conditions=["Edema"]))
    assert not np.array_equal(make_vec(2, conditions=["Edema"]).discriminant.direction, before.numpy())
    model.learn(2)
    assert torch.equal(model.policy.direction, before)


def test_an_ensemble_has_the_direction_of_its_members(make_agent: Make) -> None:
    members = [make_agent(seed) for seed in range(2)]
    assert torch.equal(join(members).policy.direction, members[0].policy.direction)
    with pytest.raises(SettingsError, match="model 1 was prepared for another env than model 0"):
        join([members[0], make_agent(1, conditions=["Edema"])])


def test_an_env_that_does_not_know_it_is_refused(make_vec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SelectiveLabelVectorEnv, "discriminant")
    with pytest.raises(SettingsError, match="no such attribute 'discriminant'"):
        Reinforce("DiscriminantPolicy", make_vec(2), batch_size=2, n_samples=2, seed=0, device="cpu")


def test_a_single_env_knows_it_too(make_env: Make) -> None:
    env: gym.Env[Any, Any] = make_env()
    model = Reinforce("DiscriminantPolicy", env, batch_size=1, n_samples=2, seed=0, device="cpu")
    np.testing.assert_array_equal(model.policy.direction, env.get_wrapper_attr("discriminant").direction)


def test_it_learns_where_images_are_few_and_have_many_numbers(make_vec: Make) -> None:
    """One direction of 50 tells the condition; 48 images of it are there for the training."""
    labels = np.eye(2, dtype=np.int8)[np.repeat([0, 1], 120)]
    features = np.random.default_rng(0).normal(size=(240, 50)).astype(np.float32)
    features[:, 0] += 2.5 * labels[:, 1]
    cohort = Cohort(labels, ("normal", "sick"), features, normal=0)
    env = make_vec(8, cohort=cohort, pool=40, query=16, k=8, fractions=(0.4, 0.4, 0.2))
    arguments = {"learning_rate": 5e-3, "batch_size": 8, "n_samples": 8, "policy_kwargs": {"hidden": 8}, "seed": 0}
    model = Reinforce("DiscriminantPolicy", env, device="cpu", **arguments)
    val = env.unwrapped.engine.sibling(split="val")
    clustering = play(val, KMedoids(8), [8], 200)[8].reward
    model.learn(8 * 60)
    gain = play(val, model, [8], 200)[8].reward - clustering
    assert gain.mean() > 2 * gain.std() / np.sqrt(200)
