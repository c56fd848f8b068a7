"""The reward: AUROC of a predictor that is fitted on the selected images, for many tasks at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from activelabel.envs import PREDICTORS, auroc, predictors
from activelabel.envs.predictors import make_predictor, mean_cosine, prototype, support_auroc
from activelabel.envs.selections import first_occurrences
from activelabel.errors import SettingsError

# -- AUROC ------------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 4),
    length=st.integers(2, 40) | st.integers(predictors._FEW - 1, predictors._FEW + 2),
    values=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    alike=st.booleans(),
)
def test_auroc_is_that_of_scikit_learn_with_many_ties(
    seed: int, rows: int, length: int, values: int, dtype: torch.dtype, alike: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(values, size=(rows, length)) / 7 - 0.3
    labels = rng.random((rows, length)) < 0.4
    labels[:, 0], labels[:, 1] = True, False
    if alike:  # as many positives in every row
        labels = rng.permuted(np.tile(labels[0], (rows, 1)), axis=1)
    found = auroc(torch.from_numpy(scores).to(dtype), torch.from_numpy(labels))
    assert found.dtype == torch.float64
    expected = [roc_auc_score(label, score) for label, score in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_auroc_of_known_cases() -> None:
    labels = torch.tensor([True, True, False, False])
    cases = torch.tensor([[4.0, 3, 2, 1], [1, 2, 3, 4], [1, 1, 1, 1], [2, 1, 2, 1], [3, 2, 2, 1]])
    assert auroc(cases, labels).tolist() == [1, 0, 0.5, 0.5, 0.875]


def test_auroc_spreads_labels_over_leading_dimensions() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal((3, 4, 10)))
    labels = torch.from_numpy(np.tile([True, False], 5))
    together = auroc(scores, labels[None, None])
    assert together.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert together[i, j] == auroc(scores[i, j], labels)


@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_auroc_depends_on_ranks_alone(scale: float, shift: float) -> None:
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(rng.integers(5, size=20).astype(float))
    labels = torch.from_numpy(np.arange(20) % 3 == 0)
    assert auroc(scores * scale + shift, labels) == auroc(scores, labels)
    assert auroc(-scores, labels) == pytest.approx(1 - float(auroc(scores, labels)))


# -- predictors -------------------------------------------------------------------------------------------------------


def game(seed: int, b: int, m: int, images: int, q: int, d: int, n: int = 30) -> dict[str, Any]:
    """Random selections of random tasks; an image counts not at all, once or twice."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    support = rng.integers(n, size=(b, images))
    query = np.stack([rng.permutation(n)[:q] for _ in range(b)])
    query_labels = rng.random((b, q)) < 0.5
    query_labels[:, 0], query_labels[:, 1] = True, False
    return {
        "features": rng.standard_normal((n, d)).astype(np.float32),
        "support": support,
        "labels": labels[support],
        "counts": rng.integers(3, size=(b, m, images)).astype(float),
        "query": query,
        "query_labels": query_labels,
    }


def batched(name: Any, played: dict[str, Any]) -> np.ndarray:
    reward = support_auroc(make_predictor(name), **{key: torch.from_numpy(array) for key, array in played.items()})
    assert reward.dtype == torch.float64
    return reward.numpy()


def one_by_one(name: str, played: dict[str, Any], i: int, j: int) -> float:
    times = played["counts"][i, j].astype(int)
    return reference.reward(
        name,
        played["features"],
        np.repeat(played["support"][i], times),
        np.repeat(played["labels"][i], times),
        played["query"][i],
        played["query_labels"][i],
        once=False,
    )


@pytest.mark.parametrize("name", PREDICTORS)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(2, 9), st.integers(1, 5)),
)
def test_every_predictor_equals_its_slow_reference(name: str, seed: int, sizes: tuple[int, int, int, int, int]) -> None:
    played = game(seed, *sizes)
    found = batched(name, played)
    assert found.shape == sizes[:2]
    for i, j in np.ndindex(*found.shape):
        assert found[i, j] == pytest.approx(one_by_one(name, played, i, j), abs=1e-6)


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("label", [True, False])
def test_the_term_of_a_missing_class_is_zero(name: str, label: bool) -> None:
    played = game(3, 2, 2, 4, 8, 3)
    played["labels"][:] = label
    played["counts"][0, 0] = 0  # nothing chosen at all
    support = torch.from_numpy(played["features"][played["support"]]).double()
    query = torch.from_numpy(played["features"][played["query"]]).double()
    counts, nothing = torch.from_numpy(played["counts"]), torch.zeros(2, 2, 4, dtype=torch.float64)
    scores = make_predictor(name)(support, *((counts, nothing) if label else (nothing, counts)), query)
    for i, j, q in np.ndindex(*scores.shape):
        chosen = list(np.repeat(support[i].numpy(), played["counts"][i, j].astype(int), axis=0))
        expected = reference.SCORES[name](chosen, [label] * len(chosen), query[i, q].numpy())
        assert float(scores[i, j, q]) == pytest.approx(expected, abs=1e-12)
    assert (scores[0, 0] == 0).all()


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("size", [1, 700, 3000])
def test_the_size_of_a_chunk_does_not_matter(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    played = game(5, 7, 2, 5, 9, 4)
    calls = []

    def counted(*tensors: torch.Tensor) -> torch.Tensor:
        calls.append(len(tensors[0]))
        return PREDICTORS[name](*tensors)

    whole = batched(counted, played)
    assert calls == [7]
    monkeypatch.setattr(predictors, "_CHUNK_BYTES", size)
    np.testing.assert_array_equal(batched(counted, played), whole)
    assert len(calls) > 2, "the chunks of this test must be smaller than its batch"


@pytest.mark.parametrize("name", PREDICTORS)
def test_an_image_of_zeros_scores_zero(name: str) -> None:
    support = torch.tensor([[[1.0, 0], [0, 1]]], dtype=torch.float64)
    one, none = torch.tensor([[[1.0, 0]]], dtype=torch.float64), torch.tensor([[[0.0, 1]]], dtype=torch.float64)
    scores = make_predictor(name)(support, one, none, torch.zeros(1, 1, 2, dtype=torch.float64))
    assert scores.tolist() == [[[0.0]]]


def test_the_two_predictors_differ() -> None:
    # A long positive pulls the mean image its way, but counts as one in the mean of the cosines.
    support = torch.tensor([[[10.0, 0], [0, 1], [-1, -1]]], dtype=torch.float64)
    positive = torch.tensor([[[1.0, 1, 0]]], dtype=torch.float64)
    query = torch.tensor([[[1.0, 0], [0, 1]]], dtype=torch.float64)
    first = prototype(support, positive, 1 - positive, query)[0, 0]
    second = mean_cosine(support, positive, 1 - positive, query)[0, 0]
    assert first[0] > first[1] + 0.5
    assert float(second[0]) == pytest.approx(float(second[1]))
    root = 0.5**0.5
    assert second.tolist() == pytest.approx([0.5 + root, 0.5 + root])
    assert first.tolist() == pytest.approx([10 / 101**0.5 + root, 1 / 101**0.5 + root])


def test_a_predictor_of_the_user_is_used(make_env: Any) -> None:
    shapes = []

    def first_feature(support: Any, positive: Any, negative: Any, query: Any) -> Any:
        shapes.append((support.shape, positive.shape, negative.shape, query.shape))
        return query[:, None, :, 0].expand(*positive.shape[:2], -1)

    env = make_env(predictor=first_feature)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.arange(4))
    tasks = env.engine.tasks([env.state_dict()["task"][0]])
    column = env.engine.features[torch.from_numpy(tasks.query[0]), 0]
    assert reward == float(auroc(column, torch.from_numpy(tasks.query_labels[0])))
    # The action and the random selection are played together: two selections of four images each.
    assert shapes == [((1, 8, 8), (1, 2, 8), (1, 2, 8), (1, 12, 8))]


def test_an_unknown_predictor_is_named_with_the_closest_match() -> None:
    with pytest.raises(SettingsError, match=r"unknown predictor 'prototypes'.*Did you mean 'prototype'"):
        make_predictor("prototypes")


@given(seed=st.integers(0, 1000), k=st.integers(1, 80), pool=st.integers(1, 60))
def test_an_index_is_new_where_it_has_not_stood_before(seed: int, k: int, pool: int) -> None:
    selections = np.random.default_rng(seed).integers(pool, size=(2, 3, k))
    found = first_occurrences(selections)
    for i, j in np.ndindex(2, 3):
        row = selections[i, j].tolist()
        assert found[i, j].tolist() == [index not in row[:place] for place, index in enumerate(row)]
