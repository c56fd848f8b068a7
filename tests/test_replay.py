"""The replay buffer: the last steps, how often each is drawn, and how little it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from activelabel.agents.replay import Replay, Transitions

CPU = torch.device("cpu")
S, N, F, K = 4, 2, 3, 5


def steps(first: int, n: int, k: int = K) -> Transitions:
    """Steps ``first .. first + n - 1``, each full of its own number."""
    number = torch.arange(first, first + n)

    def full(*shape: int) -> torch.Tensor:
        return number.float().reshape(-1, *[1] * len(shape)).expand(n, *shape).clone()

    return Transitions(
        state=full(S),
        action=full(N, F),
        used=(number % 2 == 0)[:, None].expand(n, N),
        reward=full(),
        next_state=full(S) + 1,
        next_candidates=full(k, F) + 2,
        next_mask=(number % 3 == 0)[:, None].expand(n, k),
        done=number % 5 == 0,
    )


def numbers(drawn: Transitions) -> list[int]:
    return [int(reward) for reward in drawn.reward]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(replay: Replay, n: int, draws: int) -> np.ndarray:
    """How often each place is drawn."""
    rng, found = generator(), np.zeros(len(replay))
    for _ in range(draws):
        _, places = replay.sample(n, rng)
        np.add.at(found, places.numpy(), 1)
    return found


# -- what is kept -----------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 12), added=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_last_steps_are_kept(size: int, added: list[int]) -> None:
    replay, total = Replay(size), 0
    for n in added:
        replay.add(steps(total, n))
        total += n
        assert len(replay) == min(total, size)
        everything, places = replay.sample(40 * size, generator())
        present = range(max(0, total - size), total)
        assert set(numbers(everything)) <= set(present)
        assert set(replay.columns["reward"][: len(replay)].int().tolist()) == set(present)
        assert places.max() < len(replay)


def test_every_part_of_a_step_stays_together() -> None:
    replay = Replay(7)
    for first in (0, 5, 10):
        replay.add(steps(first, 5))
    drawn, _ = replay.sample(30, generator())
    for row, number in enumerate(numbers(drawn)):
        expected = steps(number, 1)
        for name in vars(expected):
            found = getattr(drawn, name)[row]
            assert torch.equal(found, getattr(expected, name)[0]), name
            assert found.dtype == getattr(expected, name).dtype


def test_what_was_added_can_be_changed_afterwards() -> None:
    replay, mine = Replay(4), steps(3, 1)
    replay.add(mine)
    mine.state.fill_(99)
    drawn, _ = replay.sample(1, generator())
    drawn.action.fill_(99)
    again, _ = replay.sample(1, generator())
    assert (again.state == 3).all()
    assert (again.action == 3).all()


def test_a_step_takes_few_numbers_and_not_a_pool() -> None:
    replay = Replay(1000)
    replay.add(steps(0, 3))
    kept = sum(column[0].numel() for column in replay.columns.values() if column.dtype == torch.float32)
    assert kept == 2 * S + (N + K) * F + 1
    assert sum(column[0].numel() for column in replay.columns.values()) == kept + N + K + 1
    assert all(column.shape[0] == 3 for column in replay.columns.values())  # room for 1000 only when they are there


def test_steps_with_more_or_fewer_next_candidates_go_together() -> None:
    """Another pool: the buffer is as wide as the widest step, and what a step lacks is masked."""
    replay = Replay(8)
    for first, width in ((0, K), (3, K + 3), (6, K - 2)):
        replay.add(steps(first, 2, width))
    for _ in range(2):
        drawn, _ = replay.sample(60, generator())
        assert set(numbers(drawn)) == {0, 1, 3, 4, 6, 7}
        for row, number in enumerate(numbers(drawn)):
            width = {0: K, 1: K + 3, 2: K - 2}[number // 3]
            assert (drawn.next_candidates[row, :width] == number + 2).all()
            assert drawn.next_mask[row].tolist() == [number % 3 == 0] * width + [False] * (K + 3 - width)
        other = Replay(8)
        other.load_state_dict(replay.state_dict(), CPU)
        replay = other


# -- how often --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("added", [6, 25])
def test_without_priorities_every_step_is_drawn_as_often(added: int) -> None:
    replay = Replay(10)
    replay.add(steps(0, added))
    replay.update(torch.arange(3), torch.tensor([100.0, 0.0, 50.0]))  # of no effect
    found = counts(replay, 50, 200)
    expected = found.sum() / len(replay)
    assert len(found) == min(added, 10)
    assert ((found - expected) ** 2 / expected).sum() < chi2.ppf(0.999, len(replay) - 1)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_by_priority_a_step_is_drawn_in_proportion_to_a_power_of_its_error(exponent: float) -> None:
    replay = Replay(6, exponent)
    replay.add(steps(0, 6))
    errors = torch.tensor([1.0, -2.0, 3.0, -4.0, 0.5, 5.0])
    replay.update(torch.arange(6), errors)
    found = counts(replay, 1, 2500)
    weights = errors.abs().numpy() ** exponent
    expected = 2500 * weights / weights.sum()
    assert ((found - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 5)


def test_by_priority_no_step_is_drawn_twice_at_once() -> None:
    replay = Replay(20, 0.5)
    replay.add(steps(0, 12))
    replay.update(torch.arange(12), torch.linspace(0, 1, 12))
    rng = generator()
    for n in (1, 5, 12, 50):
        drawn, places = replay.sample(n, rng)
        assert len(set(places.tolist())) == len(places) == min(n, 12)
        assert numbers(drawn) == places.tolist()


def test_new_steps_count_as_the_largest_error() -> None:
    replay = Replay(6, 1.0)
    replay.add(steps(0, 3))
    assert replay.errors[:3].tolist() == [Replay.FIRST_ERROR] * 3
    replay.update(torch.tensor([0, 1, 2]), torch.tensor([0.5, -7.0, 2.0]))
    assert replay.errors[:3].tolist() == [0.5, 7.0, 2.0]
    replay.add(steps(3, 2))
    assert replay.errors[3:5].tolist() == [7.0, 7.0]
    replay.add(steps(5, 2))  # over the first
    assert replay.errors.tolist() == [7.0, 7.0, 2.0, 7.0, 7.0, 7.0]


def test_a_step_without_any_error_can_still_be_drawn() -> None:
    replay = Replay(3, 0.5)
    replay.add(steps(0, 3))
    replay.update(torch.arange(3), torch.zeros(3))
    assert len(replay.sample(3, generator())[1]) == 3


# -- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_draws_follow_the_generator_alone(exponent: float) -> None:
    replay = Replay(10, exponent)
    replay.add(steps(0, 8))
    with reference.global_rng_untouched():
        first = replay.sample(5, generator(1))[1]
        again, other = replay.sample(5, generator(1))[1], replay.sample(5, generator(2))[1]
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("added", [3, 8, 13])
def test_a_saved_buffer_goes_on_as_the_first(added: int, exponent: float) -> None:
    first = Replay(8, exponent)
    first.add(steps(0, added))
    first.update(torch.tensor([0, 2]), torch.tensor([3.0, 4.0]))
    saved = first.state_dict()
    kept = reference.digest(saved)
    second = Replay(8, exponent)
    second.load_state_dict(saved, CPU)
    for replay in (first, second):
        replay.add(steps(20, 3))
        replay.update(torch.tensor([1]), torch.tensor([5.0]))
    assert reference.digest(saved) == kept, "what was saved must not change afterwards"
    assert len(first) == len(second)
    for _ in range(3):
        drawn = [replay.sample(6, generator(4)) for replay in (first, second)]
        assert drawn[0][1].tolist() == drawn[1][1].tolist()
        assert reference.digest(vars(drawn[0][0])) == reference.digest(vars(drawn[1][0]))


def test_an_empty_buffer_can_be_saved() -> None:
    other = Replay(8)
    other.load_state_dict(Replay(8).state_dict(), CPU)
    assert len(other) == 0
    other.add(steps(0, 2))
    assert len(other) == 2


def stored(value: Any) -> int:
    """Bytes that torch.save writes for nested dicts of tensors."""
    if isinstance(value, dict):
        return sum(map(stored, value.values()))
    return value.untyped_storage().nbytes() if isinstance(value, torch.Tensor) else 0


def test_room_that_is_not_used_is_not_saved() -> None:
    sizes = []
    for size in (10, 100_000):
        replay = Replay(size)
        replay.add(steps(0, 4))
        sizes.append(stored(replay.state_dict()))
    assert sizes[0] == sizes[1] < 3000
