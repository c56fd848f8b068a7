"""Momentum contrast: loss, queue, slow copy, and batch normalisation in parts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import reference
import torch
from torch import Tensor
from torch.nn import functional as F

from activelabel.data.moco import MoCo, headless, info_nce
from activelabel.data.networks import build_network
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream

SMALL: dict[str, Any] = {"stem": "small", "width": 2, "dim": 6, "queue": 24, "batch_size": 8, "bn_splits": 2}


def make(**changes: Any) -> MoCo:
    return MoCo(**{**SMALL, **changes})


def views(n: int = 8, seed: int = 0) -> Tensor:
    return torch.randn((n, 3, 8, 8), generator=torch_stream(seed, "views"))


def unit(rows: int, columns: int, seed: int) -> Tensor:
    return F.normalize(torch.randn((rows, columns), generator=torch_stream(seed, "unit")), dim=1)


def weights(*modules: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


# -- the loss ---------------------------------------------------------------------------------------------------------


def slow_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> float:
    """The mean over images of -log of the share of the right key, number by number."""
    total = 0.0
    for i in range(len(queries)):
        right = math.exp(sum(float(a) * float(b) for a, b in zip(queries[i], keys[i], strict=True)) / temperature)
        wrong = 0.0
        for column in range(queue.shape[1]):
            likeness = sum(float(a) * float(b) for a, b in zip(queries[i], queue[:, column], strict=True))
            wrong += math.exp(likeness / temperature)
        total -= math.log(right / (right + wrong))
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_the_loss_is_that_of_a_double_loop(temperature: float) -> None:
    queries, keys, queue = unit(5, 4, 0), unit(5, 4, 1), unit(7, 4, 2).T
    found = float(info_nce(queries, keys, queue, temperature))
    assert found == pytest.approx(slow_loss(queries, keys, queue, temperature), rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_batch_is_compared_with_the_queue_as_it_was_before(symmetric: bool) -> None:
    moco = make(symmetric=symmetric, queue=32, temperature=0.3)
    twin = copy.deepcopy(moco)
    first, second = views(seed=1), views(seed=2)
    loss = float(moco(first, second, torch_stream(0)).detach())
    twin.update_keys()
    generator = torch_stream(0)
    keys = twin.keys(second, generator)
    expected = slow_loss(twin.queries(first).detach(), keys, twin.queue, 0.3)
    if symmetric:
        others = twin.keys(first, generator)
        expected = (expected + slow_loss(twin.queries(second).detach(), others, twin.queue, 0.3)) / 2
        keys = torch.cat([keys, others])
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(moco.queue[:, : len(keys)], keys.T)
    assert int(moco.pointer) == len(keys)


def test_queries_and_keys_have_length_one() -> None:
    moco = make()
    for vectors in (moco.queries(views()), moco.keys(views(), torch_stream(0)), moco.queue.T):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


# -- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_is_first_in_first_out_and_wraps() -> None:
    moco = make()
    waiting = list(moco.queue.T.clone())
    for step in range(7):
        batch = unit(8, 6, step)
        moco.enqueue(batch)
        waiting = waiting[8:] + list(batch)
        oldest_first = torch.roll(moco.queue, -int(moco.pointer), dims=1).T
        assert torch.equal(oldest_first, torch.stack(waiting))


@pytest.mark.parametrize(("queue", "symmetric"), [(23, False), (20, False), (4, False), (0, False), (24, True)])
def test_a_queue_that_batches_do_not_fill_is_refused(queue: int, symmetric: bool) -> None:
    with pytest.raises(SettingsError, match=f"queue={queue} must be a multiple"):
        make(queue=queue, symmetric=symmetric)


def test_the_first_keys_come_from_the_seed() -> None:
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(one.queue, same.queue)
    assert not torch.equal(one.queue, other.queue)
    assert reference.digest(one.state_dict()) == reference.digest(same.state_dict())


# -- the slow copy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_the_copy_moves_by_exactly_its_momentum(momentum: float) -> None:
    moco = make(momentum=momentum)
    with torch.no_grad():
        for parameter in (*moco.encoder.parameters(), *moco.head.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch_stream(0)))
    fast, slow = weights(moco.encoder, moco.head), weights(moco.key_encoder, moco.key_head)
    moco.update_keys()
    for now, f, s in zip(weights(moco.key_encoder, moco.key_head), fast, slow, strict=True):
        torch.testing.assert_close(now, momentum * s + (1 - momentum) * f, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(weights(moco.encoder, moco.head), fast, strict=True))


def test_the_copy_starts_as_the_network_and_gets_no_gradient() -> None:
    moco = make()
    for a, b in zip(weights(moco.encoder, moco.head), weights(moco.key_encoder, moco.key_head), strict=True):
        assert torch.equal(a, b)
    assert not moco.keys(views(), torch_stream(0)).requires_grad
    moco(views(seed=1), views(seed=2), torch_stream(0)).backward()
    assert all(p.grad is None for p in (*moco.key_encoder.parameters(), *moco.key_head.parameters()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in moco.head.parameters())
    assert sum(float(p.grad.abs().sum()) > 0 for p in moco.encoder.parameters() if p.grad is not None) > 50


def test_keys_pull_on_nothing_but_queries() -> None:
    moco = make()
    first, second = views(seed=1).requires_grad_(), views(seed=2).requires_grad_()
    moco(first, second, torch_stream(0)).backward()
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0
    assert second.grad is None


# -- batch normalisation ----------------------------------------------------------------------------------------------


def test_each_part_of_a_batch_is_normalised_by_itself() -> None:
    moco, whole = make(), make(bn_splits=1)
    batch = views()
    together = F.normalize(whole.head(whole.encoder(batch)), dim=1)
    torch.testing.assert_close(whole.queries(batch), together)
    halves = [copy.deepcopy(moco).encoder(half) for half in (batch[:4], batch[4:])]
    torch.testing.assert_close(moco.queries(batch), F.normalize(moco.head(torch.cat(halves)), dim=1))
    assert not torch.allclose(moco.queries(batch), together, atol=1e-3)


def test_keys_are_parted_in_another_order_and_come_back_in_their_own() -> None:
    moco = make()
    batch = views()
    order = torch.randperm(8, generator=torch_stream(5))
    assert set(order[:4].tolist()) not in ({0, 1, 2, 3}, {4, 5, 6, 7}), "this order shows nothing"
    features = torch.zeros(8, moco.features)
    for half in (order[:4], order[4:]):
        features[half] = copy.deepcopy(moco.key_encoder)(batch[half])
    expected = F.normalize(moco.key_head(features), dim=1)
    torch.testing.assert_close(moco.keys(batch, torch_stream(5)), expected)
    # With the copy still equal to the network, only the parts tell keys from queries.
    assert not torch.allclose(moco.queries(batch), expected, atol=1e-3)


@pytest.mark.parametrize(("batch_size", "bn_splits"), [(8, 3), (8, 8), (8, 0), (0, 1)])
def test_parts_that_do_not_divide_the_batch_are_refused(batch_size: int, bn_splits: int) -> None:
    with pytest.raises(SettingsError, match=f"bn_splits={bn_splits} must divide batch_size={batch_size}"):
        make(batch_size=batch_size, bn_splits=bn_splits)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_the_encoder_gives_what_the_last_layer_would_have_seen() -> None:
    network = build_network("resnet18", weights="random", stem="small", width=2).eval()
    encoder, features = headless(copy.deepcopy(network))
    assert features == 16
    assert torch.equal(network.fc(encoder(views())), network(views()))


@pytest.mark.parametrize(
    "given", [{"momentum": 1.0}, {"momentum": -0.1}, {"temperature": 0.0}, {"dim": 0}, {"stem": "large"}]
)
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        make(**given)


def test_no_global_generator_is_used() -> None:
    with reference.global_rng_untouched():
        make()(views(seed=1), views(seed=2), torch_stream(0)).backward()
