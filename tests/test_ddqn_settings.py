"""DDQN: its schedules, when it stops, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ddqn_play import ROUND, Make, Record, agent_maker, every_agent, observe
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from activelabel.agents.arguments import StepSchedule
from activelabel.errors import SettingsError


@pytest.fixture
def make_agent(make_active_vec: Make) -> Make:
    return agent_maker(make_active_vec)


# -- schedules --------------------------------------------------------------------------------------------------------


@every_agent
def test_it_is_an_algorithm_of_stable_baselines3(make_agent: Make, cls: Any) -> None:
    model = make_agent(cls)
    assert isinstance(model, OffPolicyAlgorithm)
    assert set(model.get_parameters()) == {"policy", "policy.optimizer"}


def test_exploration_falls_to_its_end_exactly(make_agent: Make) -> None:
    model = make_agent(exploration_initial=1.0, exploration_final=0.05, exploration_fraction=0.5)
    record = Record(lambda model, seen: (model.num_timesteps, model._episode_num, model.epsilon))
    model.learn(10 * ROUND, callback=record)
    for steps, episodes, epsilon in record.steps:
        share = min(1.0, steps / (10 * ROUND) / 0.5)
        assert epsilon == pytest.approx(1.0 if episodes < 4 else 1 - share * 0.95)
    assert record.steps[-1][2] == 0.05


@pytest.mark.parametrize(("warm", "updates"), [(0, [3, 6, 9]), (4, [3, 6, 9]), (5, [0, 3, 6]), (9, [0, 0, 3])])
def test_the_warm_start_is_random_and_rounded_up_to_whole_rounds(
    make_agent: Make, warm: int, updates: list[int]
) -> None:
    model = make_agent(warm_start_episodes=warm, exploration_initial=0.5, exploration_fraction=1.0)
    record = Record(lambda model, seen: model.epsilon, lambda model: model._n_updates)
    model.learn(4 * ROUND, callback=record)
    assert record.rounds[:3] == updates
    # Seen after a step: the one that ends the warm start is of a lower value already.
    random = 3 * sum(n == 0 for n in updates) + 2 if warm else 0
    assert record.steps[:random] == [1.0] * random
    assert max(record.steps[random:]) < 0.5


@pytest.mark.parametrize(("interval", "tau"), [(1, 0.01), (3, 1.0), (2, 0.5)])
def test_the_target_network_follows(make_agent: Make, interval: int, tau: float) -> None:
    model = make_agent(warm_start_episodes=1000, target_update_interval=interval, tau=tau)
    model.learn(ROUND)
    expected = [p.clone() for p in model.policy.q_target.parameters()]
    for update in range(1, 8):
        model.train(1, 8)
        assert model._n_updates == update
        if update % interval == 0:
            expected = [
                ((1 - tau) * old + tau * new).detach()
                for old, new in zip(expected, model.policy.q.parameters(), strict=True)
            ]
        for found, old in zip(model.policy.q_target.parameters(), expected, strict=True):
            torch.testing.assert_close(found, old)
    first = make_agent().policy.q.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(model.policy.q.parameters(), first, strict=True))


@every_agent
def test_the_values_start_from_the_bias(make_agent: Make, cls: Any) -> None:
    plain = make_agent(cls, value_bias=0.0, learning_rate=1e-12).learn(2 * ROUND)
    observation = observe(np.ones((2, 4), bool))
    for bias in (3.0, "duration"):
        model = make_agent(
            cls, value_bias=bias, learning_rate=1e-12, warm_start_episodes=8, reward_scale=20.0, target="double"
        )
        model.learn(3 * ROUND)
        assert model._n_updates == 6, "trained twice, shifted once"
        moved = 20.0 * 0.5 * float(np.mean(model.returns[:2])) if bias == "duration" else 3.0
        assert abs(moved) > 0.1
        for network in ("q", "q_target"):
            state, candidates, _, _ = model.policy.encode(observation)
            a, b = (getattr(m.policy, network)(state, candidates).detach() for m in (model, plain))
            torch.testing.assert_close(a - b, torch.full_like(a, moved), rtol=1e-3, atol=1e-3)


def test_the_gradient_is_clipped(make_agent: Make) -> None:
    norms = []
    for limit in (None, 1e-4):
        model = make_agent(max_grad_norm=limit).learn(ROUND)
        norms.append(float(torch.stack([p.grad.norm() for p in model.policy.q.parameters()]).norm()))
    assert norms[0] > 2e-4
    assert norms[1] == pytest.approx(1e-4, rel=1e-3)


def test_the_learning_rate_follows_the_schedule(make_agent: Make) -> None:
    record = Record(at_round=lambda model: model.policy.optimizer.param_groups[0]["lr"])
    make_agent(learning_rate=StepSchedule(0.01, 0.1, 0.5)).learn(4 * ROUND, callback=record)
    assert record.rounds == pytest.approx([0.01, 0.001, 0.001, 0.001])


def settled(returns: list[float], patience: int) -> bool:
    recent, before = returns[-patience:], returns[-2 * patience : -patience]
    return len(returns) >= 2 * patience and sum(recent) / patience <= sum(before) / patience


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_when_returns_have_settled(make_agent: Make, tmp_path: Path, patience: int) -> None:
    total, explored = 200 * ROUND, 0.03
    model = make_agent(patience=patience, exploration_fraction=explored)
    model.learn(total)
    rounds = len(model.returns)
    assert model.notes["stopped"] is True
    assert model.num_timesteps == rounds * ROUND < total
    # Not before exploration ended, then at the first round of which it is true.
    first = next(r for r in range(1, 201) if r >= 200 * explored and settled(model.returns[:r], patience))
    assert rounds == first
    model.save(tmp_path / "m")
    resumed = type(model).load(tmp_path / "m", env=model.env, device="cpu", force_reset=False)
    assert resumed.learn(total, reset_num_timesteps=False).num_timesteps == rounds * ROUND, "it stays stopped"
    assert model.learn(ROUND).num_timesteps == ROUND, "a new training starts"


def test_without_patience_training_does_not_stop(make_agent: Make) -> None:
    model = make_agent(patience=None, exploration_fraction=0.0).learn(12 * ROUND)
    assert model.num_timesteps == 12 * ROUND
    assert "stopped" not in model.notes


# -- bad input --------------------------------------------------------------------------------------------------------

BAD = [
    ({"credit": "means"}, "unknown credit 'means'.*Did you mean 'mean'"),
    ({"target": "single"}, "unknown target 'single'"),
    ({"exploration": "direction"}, "unknown exploration 'direction'.*Did you mean 'directions'"),
    ({"act_with": "both"}, "unknown act_with 'both'"),
    *[({name: 0}, f"{name}=0 must be") for name in ("buffer_size", "batch_size", "gradient_steps", "patience")],
    ({"target_update_interval": 0}, "target_update_interval=0"),
    ({"warm_start_episodes": -1}, "warm_start_episodes=-1"),
    ({"next_candidates": 1.5}, r"next_candidates=1\.5 must be a whole number"),
    *[({name: 1.1}, rf"{name}=1\.1 must be from 0 to 1") for name in ("gamma", "tau", "exploration_initial")],
    *[({name: "x"}, f"{name}='?x'?") for name in ("gamma", "reward_scale", "learning_rate", "max_grad_norm")],
    ({"gamma": None}, "gamma=None"),
    ({"gamma": float("nan")}, "gamma=nan"),
    ({"exploration_final": -0.1}, r"exploration_final=-0\.1"),
    ({"exploration_fraction": 2}, "exploration_fraction=2"),
    ({"reward_scale": 0}, "reward_scale=0 must be positive"),
    ({"priority_exponent": -1}, "priority_exponent=-1"),
    ({"value_bias": "time"}, "value_bias='time' must be a number or 'duration'"),
    ({"value_bias": float("nan")}, "value_bias=nan"),
    ({"max_grad_norm": 0.0}, r"max_grad_norm=0\.0 must be positive"),
    ({"learning_rate": 0}, "learning_rate=0 must be positive"),
    ({"policy_kwargs": {"hidden": ()}}, r"hidden=\[\] must be sizes"),
]


@every_agent
@pytest.mark.parametrize(("changes", "message"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_bad_settings_are_refused(make_agent: Make, changes: dict[str, Any], message: str, cls: Any) -> None:
    with pytest.raises(SettingsError, match=message):
        make_agent(cls, **changes)
