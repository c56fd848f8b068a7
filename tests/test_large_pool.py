"""Selecting from features that are read in blocks: the same images as from one observation of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from activelabel.agents import SELECTORS, Reinforce, select_images
from activelabel.agents.gated import GatedSelector
from activelabel.agents.mlp import DeepSetsSelector, MLPSelector, PooledSelector
from activelabel.data import Cohort, derived
from activelabel.errors import DataError, SettingsError

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "ROWS", 7)


@pytest.fixture
def make_agent(make_vec: Make) -> Make:
    def make(selector: str = "deep-sets", **policy: Any) -> Reinforce:
        kwargs = {"hidden": 8, **policy}
        name = SELECTORS[selector].__name__
        return Reinforce(name, make_vec(2), batch_size=2, n_samples=2, policy_kwargs=kwargs, seed=0, device="cpu")

    return make


def from_one_observation(
    model: Reinforce, cohort: Cohort, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The slow reference: all images standardised at once, one forward pass."""
    assert model.standardizer is not None
    observation = {
        "pool": model.standardizer.features(cohort.embedded()[rows]),
        "clinical": model.standardizer.clinical(cohort.clinical_matrix()[rows]),
    }
    places = model.select(observation, [k])[k]
    tensors, _ = model.policy.tensors(observation)
    logits, _ = model.policy.scored(tensors, [k], model.rule)[k]
    return rows[places], logits[0, places].detach().numpy()


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("inputs", [("pool",), ("clinical",), ("pool", "clinical")])
def test_the_images_are_those_of_one_observation(
    make_agent: Make, cohort: Cohort, selector: str, inputs: tuple[str, ...]
) -> None:
    model = make_agent(selector, inputs=inputs)
    rng = np.random.default_rng(0)
    for m, k in ((1, 1), (7, 3), (8, 8), (90, 5)):
        rows = rng.permutation(len(cohort))[:m]
        found, logits = select_images(model, cohort.embedded(), k, rows, cohort.clinical_matrix())
        expected, expected_logits = from_one_observation(model, cohort, rows, k)
        assert found.tolist() == expected.tolist()
        np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
        assert (found.dtype, logits.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_features_may_be_mapped_and_of_any_dtype(make_agent: Make, tmp_path: Path, dtype: Any) -> None:
    model = make_agent()
    features = (9 * np.random.default_rng(0).standard_normal((50, 8))).astype(dtype)
    for order in "CF":
        np.save(tmp_path / "features.npy", np.asarray(features, order=order))
        mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
        found, logits = select_images(model, mapped, 9)
        plain, plain_logits = select_images(model, features.astype(np.float32), 9)
        assert found.tolist() == plain.tolist()
        np.testing.assert_array_equal(logits, plain_logits)
    assert sorted(logits.tolist(), reverse=True) == logits.tolist()


def test_clinical_variables_count_as_missing(make_agent: Make, cohort: Cohort) -> None:
    model, features = make_agent(inputs=("pool", "clinical")), cohort.embedded()[:40]
    missing = np.full((40, 3), np.nan, np.float32)
    assert select_images(model, features, 5)[0].tolist() == select_images(model, features, 5, None, missing)[0].tolist()


def test_equal_images_in_the_order_of_the_rows(make_agent: Make) -> None:
    rows = np.array([31, 4, 15, 0, 26, 5, 9, 2, 6])
    found, _ = select_images(make_agent(), np.ones((32, 8), np.float32), 8, rows)
    assert found.tolist() == rows[:8].tolist()


def slow_mlp(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    context = np.concatenate([x.mean(axis=0), x.max(axis=0)])
    first = x @ weights["of_image.weight"].T + weights["of_image.bias"] + weights["of_pool.weight"] @ context
    second = np.maximum(first, 0) @ weights["second.weight"].T + weights["second.bias"]
    return np.maximum(second, 0) @ weights["logit.weight"][0] + weights["logit.bias"]


def slow_deep_sets(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    first = np.maximum(x @ weights["first.weight"].T + weights["first.bias"], 0)
    context = np.concatenate([first.mean(axis=0), first.max(axis=0)])
    second = first @ weights["of_image.weight"].T + weights["of_image.bias"] + weights["of_pool.weight"] @ context
    return np.maximum(second, 0) @ weights["logit.weight"][0] + weights["logit.bias"]


def slow_gated(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    mean, deviation = x.mean(axis=0), np.sqrt(x.var(axis=0) + 1e-4)
    first = x @ weights["of_image.weight"].T + weights["of_image.bias"]
    first += (x - mean) / deviation @ weights["of_place.weight"].T
    first += weights["of_pool.weight"] @ np.concatenate([mean, deviation])
    gate, value = np.split(first, 2, axis=1)
    units = 1 / (1 + np.exp(-gate)) * np.tanh(value)
    second = np.tanh(units @ weights["second.weight"].T + weights["second.bias"])
    return second @ weights["logit.weight"][0] + weights["logit.bias"]


@pytest.mark.parametrize(
    ("selector", "reference"),
    [(MLPSelector, slow_mlp), (DeepSetsSelector, slow_deep_sets), (GatedSelector, slow_gated)],
)
def test_the_network_in_blocks_is_the_network(selector: type[PooledSelector], reference: Make) -> None:
    """Against plain NumPy in float64, far from the origin, where a running float32 sum would have lost digits."""
    network = selector(4, 6)
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    pool = (np.random.default_rng(0).standard_normal((2, 20_000, 4)) + 300).astype(np.float32)
    expected = [reference(weights, x) for x in pool.astype(np.float64)]
    images = torch.from_numpy(pool)
    order = torch.from_numpy(np.random.default_rng(1).permutation(20_000))
    np.testing.assert_allclose(network(images).detach().numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(network(images[:, order]), network(images)[:, order])
    with torch.no_grad():
        np.testing.assert_allclose(network(images).numpy(), expected, rtol=1e-5)
        for rows in (1000, 999, 20_000):
            found = network.score_blocks(lambda size=rows: images.split(size, dim=1))
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_what_cannot_be_selected_from_is_refused(make_agent: Make) -> None:
    features = np.ones((30, 8), np.float32)
    for selector in SELECTORS:
        model = make_agent(selector)
        for value in (np.nan, np.inf, -np.inf):
            bad = features.copy()
            bad[29, 3] = value
            with pytest.raises(DataError, match="NaN"):
                select_images(model, bad, 4)
        with pytest.raises(SettingsError, match="k=31"):
            select_images(model, features, 31)
        with pytest.raises(SettingsError, match="k=4"):
            select_images(model, features, 4, np.arange(3))
        with pytest.raises(DataError, match="9 features"):
            select_images(model, np.ones((30, 9), np.float32), 4)
        with pytest.raises(DataError, match="must be numbers"):
            select_images(model, np.array([["a"]]), 1)
        with pytest.raises(DataError, match="must be numbers"):
            select_images(model, features[0], 1)
