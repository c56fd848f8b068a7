"""REINFORCE: what it refuses, its schedule, its callbacks and its logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml
from stable_baselines3.common.callbacks import BaseCallback

from activelabel.agents.anchored import AnchoredPolicy
from activelabel.agents.arguments import StepSchedule
from activelabel.agents.policies import BiLSTMPolicy
from activelabel.agents.reinforce import SELECTORS, Reinforce
from activelabel.errors import SettingsError
from activelabel.settings import SelectiveRunSettings

Make = Callable[..., Any]
SMALL: dict[str, Any] = {"batch_size": 8, "n_samples": 3, "seed": 1, "device": "cpu", "policy_kwargs": {"hidden": 4}}


@pytest.fixture
def make_agent(make_vec: Make) -> Make:
    return lambda **changes: Reinforce(env=make_vec(4), **{**SMALL, **changes})


@pytest.fixture
def saved_model(make_agent: Make, tmp_path: Path) -> Path:
    make_agent().save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "leave-one-in"}, "unknown baseline of REINFORCE 'leave-one-in'.*Did you mean 'leave-one-out'"),
        ({"n_samples": 1}, "n_samples=1 must be at least 2"),
        ({"n_samples": 0, "baseline": "none"}, "n_samples=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 6}, "batch_size=6 is not a multiple of the 4 envs"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0 must be positive"),
        ({"learning_rate": 0}, "learning_rate=0 must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be positive"),
        ({"policy_kwargs": {"inputs": ("pol",)}}, "unknown policy input 'pol'.*Did you mean 'pool'"),
        ({"policy_kwargs": {"inputs": ()}}, "inputs is empty"),
        ({"policy_kwargs": {"hidden": 0}}, "hidden=0 must be at least 1"),
        ({"policy": "AnchoredPolicy", "replacement": True}, "AnchoredPolicy draws without replacement"),
    ],
)
def test_bad_settings_are_refused(make_agent: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_agent(**changes)


@pytest.mark.parametrize("selector", SELECTORS)
def test_the_settings_of_a_run_name_the_policy(make_vec: Make, selector: str) -> None:
    run = SelectiveRunSettings(selector=selector, hidden=4, anchor=1.5, clusters_share=0.5, anchor_distance="cosine")
    assert run.from_mapping(yaml.safe_load(run.to_yaml()), "config") == run
    model = Reinforce(env=make_vec(4), **{**run.agent_arguments(), "device": "cpu"})
    assert type(model.policy) is SELECTORS[selector]
    assert model.policy_kwargs["hidden"] == 4
    if isinstance(model.policy, AnchoredPolicy):
        assert (model.policy.anchor, model.policy.clusters_share) == (1.5, 0.5)
        assert model.policy.distance == "cosine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selector": "anchord"}, "unknown selector 'anchord'.*Did you mean 'anchored'"),
        ({"selector": "anchored", "replacement": True}, "'anchored' draws without replacement"),
        ({"anchor": -0.5}, "anchor=-0.5 must be"),
        ({"clusters_share": 0.0}, "clusters_share=0.0 must be"),
        ({"anchor_distance": "cosin"}, "unknown distance 'cosin'.*Did you mean 'cosine'"),
    ],
)
def test_bad_selectors_of_a_run_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SelectiveRunSettings(**changes)


class Unscored(gym.Env[Any, Any]):
    """Spaces like ours, but selections cannot be scored."""

    observation_space = gym.spaces.Dict(pool=gym.spaces.Box(-1, 1, (5, 2)), clinical=gym.spaces.Box(-1, 1, (5, 3)))
    action_space = gym.spaces.MultiDiscrete([5, 5])


def test_an_env_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="trains on SelectiveLabel-v0"):
        Reinforce(env=Unscored(), **SMALL)
    with pytest.raises(SettingsError, match="needs an env"):
        Reinforce(**SMALL)


def test_cart_pole_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"MultiDiscrete actions; this env has Discrete\(2\)"):
        Reinforce(env=gym.make("CartPole-v1"), **SMALL)


def test_the_step_schedule_drops_once() -> None:
    schedule = StepSchedule(1e-3, factor=0.1, start=0.4)
    assert [schedule(remaining) for remaining in (1.0, 0.61, 0.6, 0.0)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert StepSchedule(0.5)(0.0) == 0.5


def test_the_learning_rate_follows_the_schedule(make_agent: Make) -> None:
    rates = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.model.policy, BiLSTMPolicy)
            rates.append(self.model.policy.optimizer.param_groups[0]["lr"])
            return True

    make_agent(learning_rate=StepSchedule(0.01, 0.1, 0.5)).learn(32, callback=Watch())
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_a_callback_ends_training_after_a_whole_update(make_agent: Make) -> None:
    class Stop(BaseCallback):
        updates = 0

        def _on_step(self) -> bool:
            return self.num_timesteps < 16

        def _on_rollout_end(self) -> None:
            self.updates += 1

    callback = Stop()
    model = make_agent().learn(800, callback=callback)
    assert (model.num_timesteps, model._n_updates, callback.updates) == (16, 2, 2)


def test_steps_are_rounded_up_to_whole_updates(make_agent: Make) -> None:
    assert make_agent().learn(9).num_timesteps == 16


def test_tensorboard_gets_rollout_train_and_time(make_agent: Make, tmp_path: Path) -> None:
    make_agent(tensorboard_log=str(tmp_path)).learn(16, tb_log_name="run")
    (file,) = tmp_path.glob("run_1/events.out.tfevents.*")
    content = file.read_bytes()
    tags = ("rollout/reward", "rollout/random_reward", "train/loss", "train/entropy", "train/grad_norm", "time/fps")
    for tag in tags:
        assert tag.encode() in content, tag


def test_a_model_without_an_env_says_so(saved_model: Path) -> None:
    with pytest.raises(SettingsError, match="no env to train on"):
        Reinforce.load(saved_model, device="cpu").learn(8)


def test_an_env_of_another_scaling_is_refused(saved_model: Path, make_vec: Make) -> None:
    """Training on would change what the numbers mean to the model."""
    with pytest.raises(SettingsError, match=r"standardizer=model\.standardizer"):
        Reinforce.load(saved_model, device="cpu", env=make_vec(4, standardize=False))
    model = Reinforce.load(saved_model, device="cpu")
    other = make_vec(4, split_seed=3, standardizer=model.standardizer)
    Reinforce.load(saved_model, device="cpu", env=other).learn(8)
