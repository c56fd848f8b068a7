"""How sets of images are drawn, and how likely each was."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from activelabel.agents.selection import SelectionRule, WithoutReplacement, WithReplacement, top
from activelabel.seeding import torch_stream

RULES: dict[str, SelectionRule] = {"without": WithoutReplacement(), "with": WithReplacement()}
extreme = st.sampled_from([-50.0, -1.0, 0.0, 0.5, 50.0])
pools = st.lists(st.one_of(st.floats(-3, 3), extreme), min_size=1, max_size=5)


def outcomes(rule: str, n: int, k: int) -> list[tuple[int, ...]]:
    """Every ordered selection that the rule can draw."""
    if rule == "without":
        return list(itertools.permutations(range(n), k))
    return list(itertools.product(range(n), repeat=k))


def slow_log_prob(rule: str, logits: list[float], selection: tuple[int, ...]) -> float:
    if rule == "without":
        return reference.plackett_luce(logits, selection)
    return sum(reference.plackett_luce(logits, (image,)) for image in selection)


@pytest.mark.parametrize("rule", RULES)
@given(logits=pools, data=st.data())
def test_probabilities_sum_to_one_and_equal_the_reference(rule: str, logits: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, min(len(logits), 4)), label="k")
    every = outcomes(rule, len(logits), k)
    found = RULES[rule].log_prob(torch.tensor([logits], dtype=torch.float64), torch.tensor([every]))
    assert found.shape == (1, len(every))
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-9)
    expected = [slow_log_prob(rule, logits, selection) for selection in every]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 30), scale=st.sampled_from([0.1, 3.0, 50.0]))
def test_float32_is_exact_enough_for_large_pools(rule: str, seed: int, k: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((2, 30)).astype(np.float32) * np.float32(scale)
    chosen = np.stack([[rng.permutation(30)[:k] for _ in range(3)] for _ in range(2)])
    found = RULES[rule].log_prob(torch.from_numpy(logits), torch.from_numpy(chosen))
    assert found.dtype == torch.float32
    for b, m in np.ndindex(2, 3):
        expected = slow_log_prob(rule, logits[b].astype(float).tolist(), tuple(chosen[b, m].tolist()))
        assert float(found[b, m]) == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_gradient_is_that_of_finite_differences(rule: str, k: int) -> None:
    rng = np.random.default_rng(k)
    logits = torch.from_numpy(rng.standard_normal((2, 5))).requires_grad_()
    chosen = torch.from_numpy(np.stack([[rng.permutation(5)[:k] for _ in range(3)] for _ in range(2)]))
    assert torch.autograd.gradcheck(lambda x: RULES[rule].log_prob(x, chosen), (logits,))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("k", [1, 4])
def test_the_gradient_of_extreme_logits_is_finite_and_sums_to_zero(rule: str, k: int) -> None:
    logits = torch.tensor([[-50.0, 50, 0, 50]], requires_grad=True)
    RULES[rule].log_prob(logits, torch.tensor([[[0, 1, 2, 3][:k]]])).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    # Adding the same number to every logit changes no probability.
    assert float(logits.grad.sum()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_frequencies_are_the_probabilities(rule: str, k: int) -> None:
    logits = [0.0, 1.0, -1.0, 0.4]
    count = 20_000
    drawn = RULES[rule].sample(torch.tensor([logits]), k, count, torch_stream(1, "test"))
    assert drawn.shape == (1, count, k)
    assert drawn.dtype == torch.int64
    found = Counter(tuple(row) for row in drawn[0].tolist())
    every = outcomes(rule, 4, k)
    assert set(found) <= set(every)
    expected = np.array([count * math.exp(slow_log_prob(rule, logits, selection)) for selection in every])
    observed = np.array([found[selection] for selection in every])
    likely = expected >= 5  # the usual condition of the test; the rest is one cell
    cells = [(o, e) for o, e in zip(observed[likely], expected[likely], strict=True)]
    if not likely.all():
        cells.append((observed[~likely].sum(), expected[~likely].sum()))
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    assert statistic < chi2.ppf(0.999, len(cells) - 1)


@given(logits=pools, data=st.data())
def test_no_image_is_drawn_twice_without_replacement(logits: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(logits)), label="k")
    seed = data.draw(st.integers(0, 1000), label="seed")
    drawn = RULES["without"].sample(torch.tensor([logits]), k, 20, torch_stream(seed))
    for selection in drawn[0].tolist():
        assert len(set(selection)) == k
        assert set(selection) <= set(range(len(logits)))


@pytest.mark.parametrize("rule", RULES)
@given(logits=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=30), data=st.data())
def test_best_is_the_stable_top_k(rule: str, logits: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(logits)), label="k")
    expected = sorted(range(len(logits)), key=lambda i: -logits[i])[:k]
    assert RULES[rule].best(torch.tensor([logits, logits]), k).tolist() == [expected] * 2


awkward = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, math.nan, -math.inf]))


@given(keys=st.lists(st.lists(awkward, min_size=9, max_size=9), min_size=1, max_size=4), k=st.integers(1, 9))
def test_the_largest_equal_a_stable_sort(keys: list[list[float]], k: int) -> None:
    x = torch.tensor(keys, dtype=torch.float32)
    expected = x.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    assert torch.equal(top(x, k), expected)
    assert torch.equal(top(x[:, None], k), expected[:, None])
    assert torch.equal(top(x[0], k), expected[0])


def test_more_images_than_the_pool_holds_are_refused() -> None:
    logits = torch.zeros(1, 3)
    for rule in RULES.values():
        with pytest.raises(ValueError, match="k=4 images cannot be chosen from a pool of 3"):
            rule.best(logits, 4)
    with pytest.raises(ValueError, match="k=4 images"):
        RULES["without"].sample(logits, 4, 1, torch_stream(0))


@pytest.mark.parametrize("rule", RULES)
def test_samples_depend_on_logits_and_generator_alone(rule: str) -> None:
    logits = torch.randn(3, 6, generator=torch_stream(0))

    def sample(x: torch.Tensor) -> list[list[list[int]]]:
        return RULES[rule].sample(x, 3, 5, torch_stream(2)).tolist()  # type: ignore[no-any-return]

    expected = sample(logits)
    assert sample(logits.t().contiguous().t()) == expected
    assert sample(logits.clone().requires_grad_()) == expected
    assert sample(logits.double()) == expected
    # One pool after the other draws what all together do, from the same generator.
    generator = torch_stream(2)
    each = [RULES[rule].sample(logits[i : i + 1], 3, 5, generator).tolist()[0] for i in range(3)]
    assert each == expected
    with reference.global_rng_untouched():
        assert sample(logits) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES)
def test_a_gpu_draws_what_the_cpu_draws(rule: str) -> None:
    logits = torch.randn(4, 50, generator=torch_stream(0))
    on_cpu = RULES[rule].sample(logits, 10, 8, torch_stream(1))
    on_gpu = RULES[rule].sample(logits.cuda(), 10, 8, torch_stream(1))
    assert on_gpu.device.type == "cuda"
    assert (on_gpu.cpu() == on_cpu).float().mean() > 0.99
    both = (RULES[rule].log_prob(x, on_cpu.to(x.device)).cpu() for x in (logits, logits.cuda()))
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-4)
