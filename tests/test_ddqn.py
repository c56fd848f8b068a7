"""DDQN: its temporal-difference error, its choices, and its schedules, each against the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
import torch
from conftest import ACTIVE
from ddqn_play import ROUND, SMALL, Make, Record, agent_maker, every_agent, observe
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from activelabel.agents import DDQN
from activelabel.agents.arguments import CREDITS, NETWORKS, TARGETS
from activelabel.agents.replay import Transitions
from activelabel.agents.targets import Seen, directed, td_error


@pytest.fixture
def make_agent(make_active_vec: Make) -> Make:
    return agent_maker(make_active_vec)


def weights(network: torch.nn.Module) -> str:
    return reference.digest(network.state_dict())


# -- the error --------------------------------------------------------------------------------------------------------


def transitions(seed: int, n: int = 12, slots: int = 3, k: int = 7, n_state: int = 11, f: int = 3) -> Transitions:
    """Made-up steps: some are the last of an episode, some have few candidates or none left, some slots are unused."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    used, mask = rng.random((n, slots)) < 0.7, rng.random((n, k)) < 0.5
    used[0], mask[1], mask[2, 1:] = False, False, False
    flags = [torch.from_numpy(flag) for flag in (used, mask, rng.random(n) < 0.3)]
    flags[2][:3] = False
    return Transitions(
        normal(n, n_state), normal(n, slots, f), flags[0], normal(n), normal(n, n_state), normal(n, k, f), *flags[1:]
    )


def slow_errors(model: DDQN, steps: Transitions) -> list[list[torch.Tensor]]:
    """For each step its errors, one, or with ``credit="each"`` one a slot; written from Eq. 2 to 4."""

    def value(network: Any, state: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return network(state[None], vector[None, None])[0, 0]

    online, old = model.policy.q, model.policy.q_target
    choosing, valuing = (online, old) if model.target == "double" else (old, online)
    errors = []
    for i in range(len(steps.reward)):
        target = steps.reward[i]
        if not steps.done[i]:
            there = [vector for vector, left in zip(steps.next_candidates[i], steps.next_mask[i], strict=True) if left]
            there.sort(key=lambda vector, s=steps.next_state[i]: -float(value(choosing, s, vector).detach()))
            best = [value(valuing, steps.next_state[i], vector).detach() for vector in there[: model.n]]
            total = sum(best, torch.zeros(()))
            target = target + model.gamma * (total if model.credit == "sum" else total / max(1, len(best)))
        mine = [value(online, steps.state[i], vector) for vector in steps.action[i]]
        known = [v for v, used in zip(mine, steps.used[i], strict=True) if used]
        if model.credit == "each":
            errors.append([target - v if u else torch.zeros(()) for v, u in zip(mine, steps.used[i], strict=True)])
        else:
            total = sum(known, torch.zeros(()))
            errors.append([target - (total if model.credit == "sum" else total / max(1, len(known)))])
    return errors


def fast_errors(model: DDQN, steps: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
    return td_error(model.policy, steps, model.n, model.gamma, model.credit, model.target)


def untrained(make_agent: Make, **changes: Any) -> DDQN:
    """An agent whose two networks differ."""
    model = make_agent(**changes)
    model.n = 3
    model.policy.q_target.reset_parameters(torch.Generator().manual_seed(5))
    return model


@every_agent
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("credit", CREDITS)
def test_the_error_and_the_gradient_equal_the_slow_reference(
    make_agent: Make, credit: str, target: str, cls: Any
) -> None:
    model = untrained(make_agent, cls=cls, credit=credit, target=target, gamma=0.8, max_grad_norm=None)
    steps = transitions(0)
    expected = slow_errors(model, steps)
    found, values = fast_errors(model, steps)
    flat = torch.stack([torch.stack(row) for row in expected])
    torch.testing.assert_close(found, flat if credit == "each" else flat[:, 0], rtol=1e-4, atol=1e-5)
    assert values.shape == (12, 3)

    loss = flat.square().mean()
    gradients = torch.autograd.grad(loss, list(model.policy.q.parameters()), allow_unused=True)
    before = weights(model.policy.q_target)
    model.replay.add(steps)
    model.replay.sample = lambda n, rng: (steps, torch.arange(12))  # type: ignore[method-assign]
    model._setup_learn(12)
    model.train(1, 12)
    assert model.logger.name_to_value["train/loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert model.logger.name_to_value["train/q_values"] == pytest.approx(float(values.mean().detach()), rel=1e-4)
    if cls is DDQN:  # LAL-RL's target follows at every step
        assert weights(model.policy.q_target) == before
    for parameter, gradient in zip(model.policy.q.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    if model.priority_exponent:
        priority = flat.detach().mean(dim=1).abs().double()
        torch.testing.assert_close(model.replay.errors[:12], priority, rtol=1e-3, atol=1e-5)


def test_the_readings_of_the_paper_differ(make_agent: Make) -> None:
    found = []
    for credit in ("mean", "sum"):
        for target in TARGETS:
            error, _ = fast_errors(untrained(make_agent, credit=credit, target=target), transitions(1))
            found.append(error.detach())
    for i, j in [(0, 1), (0, 2), (2, 3), (1, 3)]:
        assert float((found[i] - found[j]).abs().max()) > 0.05


def test_what_is_masked_unused_or_after_the_end_does_not_matter(make_agent: Make) -> None:
    model, steps = untrained(make_agent), transitions(2)
    error, _ = fast_errors(model, steps)
    over = steps.done[:, None]
    other = transitions(3)
    mixed = replace(
        steps,
        action=torch.where(steps.used[:, :, None], steps.action, other.action),
        next_state=torch.where(over, other.next_state, steps.next_state),
        next_candidates=torch.where((steps.next_mask & ~over)[:, :, None], steps.next_candidates, other.action[0, 0]),
        next_mask=torch.where(over, other.next_mask, steps.next_mask),
    )
    assert not torch.equal(mixed.next_candidates, steps.next_candidates)
    torch.testing.assert_close(fast_errors(model, mixed)[0], error)


@pytest.mark.parametrize("next_candidates", [0, 4, 1000])
def test_the_buffer_holds_what_happened(make_agent: Make, make_active_vec: Make, next_candidates: int) -> None:
    """Played again with the recorded actions, step by step."""
    env = make_active_vec(4, observe=())
    model = make_agent(next_candidates=next_candidates, reward_scale=3.0, warm_start_episodes=1000)
    record = Record(lambda model, seen: seen["actions"].copy())
    model.learn(2 * ROUND, callback=record)
    assert len(model.replay) == 2 * ROUND
    columns = model.replay.columns
    observation, _ = env.reset(seed=1)
    for step, actions in enumerate(record.steps):
        following, reward, done, _, info = env.step(actions)
        ids = np.stack(info["final_info"]["ids"]) if done.all() else info["ids"]
        for i in range(4):
            row = 4 * step + i
            alone, after = ({name: a[i] for name, a in o.items()} for o in (observation, following))
            (state, candidates, _, _), (next_state, nexts, mask, _) = map(model.policy.encode, (alone, after))
            torch.testing.assert_close(columns["state"][row], state[0])
            torch.testing.assert_close(columns["action"][row], candidates[0, actions[i]])
            assert columns["used"][row].tolist() == (ids[i] >= 0).tolist()
            assert float(columns["reward"][row]) == pytest.approx(3 * reward[i], abs=1e-6)
            assert bool(columns["done"][row]) is bool(done[i])
            if done[i]:
                continue
            torch.testing.assert_close(columns["next_state"][row], next_state[0])
            kept = [tuple(v) for v in columns["next_candidates"][row][columns["next_mask"][row]].tolist()]
            left = [tuple(v) for v in nexts[0][mask[0]].tolist()]
            assert len(kept) == min(len(left), 60 if next_candidates != 4 else 4 + 5)
            assert len({*kept} - {*left}) == 0
            best = torch.stack([model.policy.q(next_state, v[None, None])[0, 0] for v in nexts[0]])
            order = [j for j in best.argsort(descending=True).tolist() if mask[0, j]]
            assert {tuple(nexts[0, j].tolist()) for j in order[:5]} <= {*kept}, "the preferred batch is always kept"
        observation = following


# -- choosing ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chooser(blobs: Any) -> DDQN:
    env = gym.make_vec("ActiveLabel-v0", num_envs=2, cohort=blobs, device="cpu", **ACTIVE)
    return DDQN(env=env, **SMALL)


@given(data=st.data(), m=st.integers(1, 12), seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_no_candidate_is_chosen_twice_or_against_the_mask(
    chooser: DDQN, data: st.DataObject, m: int, seed: int, share: float
) -> None:
    mask = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=1, max_size=3)))
    chooser.n = n = data.draw(st.integers(1, m))
    chooser.exploration_final = share
    observation = observe(mask, seed)
    chosen = np.reshape(chooser.predict(observation, deterministic=share == 0)[0], (len(mask), n))
    for row, left in zip(chosen, mask, strict=True):
        assert len(set(row.tolist())) == n
        # Where fewer than N are left, the env counts the first indices alone.
        assert left[row[: left.sum()]].all()


@every_agent
def test_the_n_best_are_chosen_and_equal_ones_in_their_order(make_agent: Make, cls: Any) -> None:
    model = make_agent(cls)
    observation = observe(np.random.default_rng(1).random((4, 20)) < 0.7)
    observation["candidates"][:, 10:] = observation["candidates"][:, :10]
    state, candidates, mask, _ = model.policy.encode(observation)
    values = model.policy.q(state, candidates).detach().numpy()
    for n in (1, 2, 7):
        model.n = n
        chosen, nothing = model.predict(observation, deterministic=True)
        assert nothing is None
        assert chosen.dtype == np.int64
        assert chosen.shape == ((4,) if n == 1 else (4, n))
        for i in range(4):
            left = [j for j in range(20) if mask[i, j]]
            assert np.atleast_1d(chosen[i]).tolist() == sorted(left, key=lambda j, i=i: -values[i, j])[:n]
            # Alone, equal candidates can differ in the last bit, which then decides between them.
            alone = {name: array[i] for name, array in observation.items()}
            own = model.policy.q(*model.policy.encode(alone)[:2]).detach().numpy()[0]
            np.testing.assert_allclose(own, values[i], rtol=1e-5)
            expected = sorted(left, key=lambda j, own=own: -own[j])[:n]
            assert np.atleast_1d(model.predict(alone, deterministic=True)[0]).tolist() == expected


def test_exploring_takes_every_candidate_as_often(chooser: DDQN) -> None:
    mask = np.ones((1, 8), bool)
    mask[0, 6:] = False
    observation = {name: np.repeat(array, 1500, axis=0) for name, array in observe(mask).items()}
    chooser.n, chooser.exploration_final = 2, 1.0
    chosen, _ = chooser.predict(observation)
    counts = np.bincount(chosen.ravel(), minlength=8)
    assert (counts[6:] == 0).all()
    # Two of six without replacement: the variance is 2/3 x 4/5 of a multinomial's; without correction it is safe.
    assert ((counts[:6] - 500) ** 2 / 500).sum() < chi2.ppf(0.999, 5)


def test_a_share_of_the_choices_is_explored(chooser: DDQN) -> None:
    observation = observe(np.ones((400, 60), bool))
    chooser.n, chooser.exploration_final = 5, 0.3
    best, some = chooser.predict(observation, deterministic=True)[0], chooser.predict(observation)[0]
    kept = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(best.tolist(), some.tolist(), strict=True)])
    assert 0.66 < kept < 0.74
    assert (best == some).mean() == pytest.approx(0.7, abs=0.04)


@pytest.mark.parametrize("candidates", [5, 6, 9])
def test_no_label_is_lost_where_few_candidates_are_offered(
    make_agent: Make, make_active_vec: Make, candidates: int
) -> None:
    model = make_agent(env=make_active_vec(4, candidates=candidates), exploration_final=0.5, exploration_fraction=0.0)
    record = Record(lambda model, seen: [(np.array(info["ids"]) >= 0).sum() for info in seen["infos"]])
    model.learn(6 * ROUND, callback=record)
    assert record.steps == [[5] * 4, [5] * 4, [2] * 4] * 6


@given(data=st.data(), m=st.integers(2, 9), seed=st.integers(0, 99))
def test_exploring_by_directions_takes_the_extreme_candidates(data: st.DataObject, m: int, seed: int) -> None:
    """Of vectors of one number the extreme ones in a random direction are the largest or the smallest."""
    n = data.draw(st.integers(1, m))
    left = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=1, max_size=4)))
    left[left.sum(axis=1) < n] = True
    numbers = np.random.default_rng(seed).permuted(np.tile(np.arange(m, dtype=np.float32), (len(left), 1)), axis=1)
    preferred = torch.from_numpy(left).int().sort(dim=1, descending=True, stable=True).indices[:, :n]
    seen = Seen(torch.zeros(len(left), 1), torch.from_numpy(numbers)[:, :, None], torch.from_numpy(left), preferred)
    found = {share: directed(seen, share, torch.Generator().manual_seed(seed)) for share in (0.0, 0.5, 1.0)}
    assert torch.equal(found[0.0], preferred)
    for i, row in enumerate(found[1.0].tolist()):
        order = sorted(np.flatnonzero(left[i]).tolist(), key=lambda j, i=i: numbers[i, j])
        assert row in (order[:n], order[::-1][:n])
        assert found[0.5][i].tolist() in (row, preferred[i].tolist()), "a batch is replaced as a whole"


def test_directions_are_explored_after_a_uniform_warm_start(make_agent: Make) -> None:
    """A direction's batch lies together: its candidates differ less than random ones."""
    changes = {"exploration_initial": 1.0, "exploration_final": 1.0, "next_candidates": 0}
    spread = {}
    for exploration in ("uniform", "directions"):
        model = make_agent(exploration=exploration, warm_start_episodes=8, **changes).learn(8 * ROUND)
        explored = model.replay.columns["action"][2 * ROUND : 8 * ROUND]
        spread[exploration] = float(explored.std(dim=1).mean())
    assert spread["directions"] < 0.8 * spread["uniform"]
    warm = [make_agent(exploration=e, warm_start_episodes=1000, **changes).learn(2 * ROUND) for e in spread]
    assert torch.equal(*[model.replay.columns["action"] for model in warm])


def test_either_network_can_choose(make_agent: Make) -> None:
    observation = observe(np.ones((6, 30), bool))
    chosen = {}
    for name in NETWORKS:
        model = untrained(make_agent, act_with=name)
        state, candidates, _, _ = model.policy.encode(observation)
        network = model.policy.q if name == "online" else model.policy.q_target
        chosen[name] = model.predict(observation, deterministic=True)[0]
        best = network(state, candidates).argsort(dim=1, descending=True)[:, :3]
        np.testing.assert_array_equal(chosen[name], best.numpy())
    assert not np.array_equal(chosen["online"], chosen["target"])
