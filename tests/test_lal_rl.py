"""LAL-RL: its settings as published, its environment, and training in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ddqn_play import Record

from activelabel.agents import LAL_RL_ENV, LalRl, LalRlPolicy
from activelabel.envs import ActiveLabelSettings, ActiveLabelVectorEnv, RunningEpisodes
from activelabel.envs.learners import LogisticRegression
from activelabel.evaluation import play_episodes

SIZES: dict[str, Any] = {"cohort": "digits", "classes": ("0", "1"), "device": "cpu", "pool": 60, "budget": 8}
SIZES |= {"state_images": 10, "tolerance": 0.97, "learner_arguments": {"max_iter": 60}}


def make_env(num_envs: int = 4, **changes: Any) -> ActiveLabelVectorEnv:
    return ActiveLabelVectorEnv(num_envs, **{**SIZES, **LAL_RL_ENV, **changes})


@pytest.fixture(scope="module")
def trained() -> tuple[LalRl, list[Any]]:
    """An agent after some rounds, and what it did: rewards, ends and infos of every step."""
    model = LalRl(env=make_env(), seed=0, device="cpu", warm_start_episodes=8, gradient_steps=20)
    record = Record(lambda model, seen: [np.array(seen[name]) for name in ("rewards", "dones")] + [seen["infos"]])
    model.learn(160, callback=record)
    return model, record.steps


def test_the_settings_are_those_of_the_paper_and_its_code() -> None:
    model = LalRl(env=make_env(), device="cpu")
    expected = {
        "learning_rate": 1e-3,
        "buffer_size": 10_000,
        "warm_start_episodes": 128,
        "batch_size": 32,
        "gradient_steps": 60,
        "gamma": 1.0,
        "tau": 0.01,
        "target_update_interval": 1,
        "priority_exponent": 0.5,
        "value_bias": "duration",
        "next_candidates": 0,
        "max_grad_norm": None,
        "target": "double",
    }
    assert {name: getattr(model, name) for name in expected} == expected
    assert isinstance(model.policy, LalRlPolicy)
    assert [p.shape for p in model.policy.q.parameters()] == [(10, 10), (10,), (5, 13), (5,), (1, 5), (1,)]
    assert not model.policy.standardize
    assert LalRl(env=make_env(), device="cpu", gamma=0.9, batch_size=8).gamma == 0.9


def test_the_environment_is_the_papers() -> None:
    env = make_env(2)
    settings = env.engine.settings
    assert ActiveLabelSettings.make(**LAL_RL_ENV).batch == settings.batch == 1
    assert isinstance(env.engine.learner, LogisticRegression)
    observation, _ = env.reset(seed=0)
    episodes = env.episodes
    assert observation["state"].shape == (2, 10)
    np.testing.assert_array_equal(observation["state"], np.sort(observation["state"], axis=1))
    data = env.engine.space.data(env.engine.sampler.rows["pool"])
    for i in range(2):
        x = data[episodes.pool[i]].astype(np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        labelled = episodes.labelled[i].numpy()
        distance = 1 - x @ x.T
        found = observation["candidates"][i]
        np.testing.assert_allclose(found[:, 0], episodes.probabilities[i, :, 0].numpy(), atol=1e-6)
        np.testing.assert_allclose(found[:, 1], distance[:, ~labelled].mean(axis=1), atol=1e-4)
        np.testing.assert_allclose(found[:, 2], distance[:, labelled].mean(axis=1), atol=1e-4)


def test_a_step_costs_one_until_the_target_is_reached(trained: tuple[LalRl, list[Any]]) -> None:
    model, steps = trained
    env = model.env.venv  # type: ignore[union-attr]
    target = env.engine.target()
    duration, returns = np.zeros(4, int), []
    early = 0
    for reward, done, infos in steps:
        duration += 1
        assert (reward == -1).all()
        for i, info in enumerate(infos):
            reached = info["reward_accuracy"] >= target
            assert bool(done[i]) is bool(reached or duration[i] == 8)
            if done[i]:
                assert info["episode"]["r"] == -duration[i] == -info["episode"]["l"]
                early += reached and duration[i] < 8
                returns.append(-duration[i])
                duration[i] = 0
    assert early > 3, "some episodes must end at the target"
    # Rounds end when four episodes have; the episodes of a round are not those of the four envs.
    assert np.mean(model.returns) == pytest.approx(np.mean(returns), abs=0.5)
    assert model._episode_num == len(returns)


def test_the_bias_starts_at_half_of_the_mean_duration() -> None:
    model = LalRl(env=make_env(), seed=0, device="cpu", warm_start_episodes=8, gradient_steps=1, learning_rate=1e-12)
    record = Record(at_round=lambda model: model._n_updates)
    model.learn(80, callback=record)
    first = record.rounds.index(1)
    assert float(model.policy.q.value.bias.detach()) == pytest.approx(np.mean(model.returns[: first + 1]) / 2, abs=1e-4)
    assert float(model.policy.q_target.value.bias) == pytest.approx(float(model.policy.q.value.bias.detach()), abs=1e-6)
    assert model.policy.q.value.bias < -0.5


def test_it_is_trained_with_priorities_and_finite(trained: tuple[LalRl, list[Any]]) -> None:
    model, _ = trained
    assert model._n_updates > 0
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    errors = model.replay.errors[: len(model.replay)]
    assert len(set(errors.tolist())) > 20
    assert errors.max() < 100, "every step has been drawn, or counts as much as the largest that has"
    assert model.replay.columns["next_candidates"].shape[1:] == (60, 3)


def test_a_trained_agent_labels_where_another_classifier_judges(
    trained: tuple[LalRl, list[Any]], tmp_path: Path
) -> None:
    model, _ = trained
    judge = make_env(1, features=("margin",), state=("confidence",), learner="softmax", learner_arguments={}, batch=4)
    engine = judge.engine.sibling(reward="change", split="test", pool=20, shares=(0.5, 0.2, 0.15, 0.15))
    curves = play_episodes(engine, model, 6)
    assert curves.labels.tolist() == [0, 4, 8]
    assert curves.accuracy.shape == (6, 3)
    model.save(tmp_path / "m")
    again = play_episodes(engine, LalRl.load(tmp_path / "m", device="cpu"), 6)
    np.testing.assert_array_equal(again.accuracy, curves.accuracy)


def test_the_same_seed_gives_the_same_training() -> None:
    arguments: dict[str, Any] = {"seed": 3, "device": "cpu", "warm_start_episodes": 4, "gradient_steps": 5}
    first, second = (LalRl(env=make_env(), **arguments).learn(64) for _ in range(2))
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.returns == second.returns


def test_an_episode_ends_with_its_budget_at_the_latest() -> None:
    engine = make_env(1, tolerance=1.0, budget=3).engine
    episodes = RunningEpisodes(engine, 12)
    episodes.begin(np.arange(12), np.arange(12))
    ends = []
    for step in range(3):
        ends.append(episodes.label(episodes.mask.int().argmax(dim=1, keepdim=True).numpy()).over)
        assert ends[-1].tolist() == ((episodes.quality >= engine.target()) | (step == 2)).tolist()
    assert 0 < ends[1].sum() < 12, "some end before, some with the budget"
