"""Other people's agents, unchanged, on both environments, and the examples of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import ACTIVE, TINY
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from activelabel.agents.set_encoder import SetDQNPolicy, SetExtractor, SetPolicy
from activelabel.data import Cohort
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import (
    FlattenCandidates,
    OneAtATime,
    ScoresToTopK,
    VectorFlattenCandidates,
    VectorOneAtATime,
    VectorScoresToTopK,
)

ONE = {**ACTIVE, "batch": 1, "budget": 6}
SMALL: dict[str, Any] = {"features_extractor_kwargs": {"hidden": 8}}
ROLLOUT: dict[str, Any] = {"n_steps": 16, "seed": 0, "device": "cpu"}
UPDATES: dict[str, Any] = {**ROLLOUT, "batch_size": 24, "n_epochs": 1}
REPLAY: dict[str, Any] = {"learning_starts": 32, "buffer_size": 300, "train_freq": 8, "seed": 0, "device": "cpu"}

WRAPPERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "": (lambda env: env, lambda env: env),
    "scores": (ScoresToTopK, VectorScoresToTopK),
    "one at a time": (OneAtATime, VectorOneAtATime),
    "flat": (FlattenCandidates, VectorFlattenCandidates),
    "one at a time, flat": (
        lambda env: FlattenCandidates(OneAtATime(env)),
        lambda env: VectorFlattenCandidates(VectorOneAtATime(env)),
    ),
}
"""By name, for one env and for a vector env."""

COMBINATIONS: list[tuple[type[Any], Any, str, str]] = [
    (PPO, SetPolicy, "selective", ""),
    (PPO, SetPolicy, "selective", "scores"),
    (PPO, SetPolicy, "active", "scores"),
    (PPO, SetPolicy, "active", ""),
    (PPO, "MlpPolicy", "active", "flat"),
    (PPO, "MultiInputPolicy", "selective", "one at a time"),
    (A2C, SetPolicy, "selective", "scores"),
    (A2C, SetPolicy, "active", "scores"),
    (A2C, SetPolicy, "one label", ""),
    (A2C, "MlpPolicy", "selective", "flat"),
    (DQN, SetDQNPolicy, "selective", "one at a time"),
    (DQN, SetDQNPolicy, "one label", ""),
    (DQN, "MlpPolicy", "selective", "one at a time, flat"),
    (DQN, "MlpPolicy", "one label", "flat"),
]
"""Algorithm, policy, environment and wrapper."""


@pytest.fixture
def make(cohort: Cohort, blobs: Cohort) -> Callable[..., Any]:
    """Makes a wrapped env as SB3 takes it, three at once, in either form."""

    def made(env: str, wrapper: str, form: str = "vector", **changes: Any) -> Any:
        env_id, settings, data = {
            "selective": ("SelectiveLabel-v0", TINY, cohort),
            "active": ("ActiveLabel-v0", ACTIVE, blobs),
            "one label": ("ActiveLabel-v0", ONE, blobs),
        }[env]
        arguments = {"cohort": data, "device": "cpu", **settings, **changes}
        single, vector = WRAPPERS[wrapper]
        if form == "vector":
            return GymnasiumVecEnv(vector(gym.make_vec(env_id, num_envs=3, **arguments)))
        return DummyVecEnv([lambda: Monitor(single(gym.make(env_id, **arguments)))] * 3)

    return made


def trained(algorithm: type[Any], policy: Any, env: Any, steps: int = 300, **changes: Any) -> Any:
    """Train for some hundred steps; the weights have moved, and the agent can be asked."""
    settings = {**{DQN: REPLAY, A2C: ROLLOUT}.get(algorithm, UPDATES), **changes}
    if not isinstance(policy, str):
        settings.setdefault("policy_kwargs", SMALL)
    model = algorithm(policy, env, **settings)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(steps)
    assert model.num_timesteps >= steps
    assert model.ep_info_buffer
    after = list(model.policy.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "policy", "env", "wrapper"),
    COMBINATIONS,
    ids=[f"{a.__name__} {getattr(p, '__name__', p)} {e} {w}".strip() for a, p, e, w in COMBINATIONS],
)
def test_stable_baselines3_trains(make: Any, algorithm: type[Any], policy: Any, env: str, wrapper: str) -> None:
    venv = make(env, wrapper)
    model = trained(algorithm, policy, venv)
    actions, _ = model.predict(venv.reset(), deterministic=True)
    assert all(venv.action_space.contains(action) for action in actions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "policy", "env", "wrapper"),
    [
        (PPO, SetPolicy, "selective", "scores"),
        (A2C, SetPolicy, "active", "scores"),
        (DQN, SetDQNPolicy, "one label", ""),
    ],
    ids=["PPO", "A2C", "DQN"],
)
def test_stable_baselines3_trains_on_single_environments(
    make: Any, algorithm: type[Any], policy: Any, env: str, wrapper: str
) -> None:
    trained(algorithm, policy, make(env, wrapper, "dummy"), 60)


def test_the_same_seed_gives_the_same_agent(make: Any) -> None:
    first, second = (trained(PPO, SetPolicy, make("selective", "scores"), 96) for _ in range(2))
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_actor_and_the_critic_can_have_an_encoder_each(make: Any) -> None:
    kwargs = {**SMALL, "share_features_extractor": False}
    model = trained(PPO, SetPolicy, make("selective", "scores"), 96, policy_kwargs=kwargs)
    assert model.policy.vf_features_extractor is not model.policy.pi_features_extractor


# -- sb3-contrib ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "wrapper", "form", "policy"),
    [
        ("selective", "one at a time", "vector", "set"),
        ("selective", "one at a time", "dummy", "MultiInputPolicy"),
        ("one label", "", "vector", "set"),
        ("one label", "", "dummy", "MultiInputPolicy"),
        ("active", "", "vector", "set"),
    ],
)
def test_maskable_ppo_never_picks_a_labelled_image(make: Any, env: str, wrapper: str, form: str, policy: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    from activelabel.agents.maskable import MaskableSetPolicy

    venv = make(env, wrapper, form)
    picked = {"labelled": 0, "steps": 0}

    def count(local: dict[str, Any], _: dict[str, Any]) -> bool:
        masks, actions = local["action_masks"], local["actions"].reshape(3, -1)
        allowed = masks.reshape(3, actions.shape[1], -1)
        picked["labelled"] += int((~np.take_along_axis(allowed, actions[:, :, None], axis=2)).sum())
        picked["steps"] += len(actions)
        shown = np.asarray(local["obs_tensor"]["action_mask"]).astype(bool)
        np.testing.assert_array_equal(allowed, np.repeat(shown[:, None], actions.shape[1], axis=1))
        return True

    chosen = MaskableSetPolicy if policy == "set" else policy
    model = contrib.MaskablePPO(chosen, venv, policy_kwargs=SMALL if policy == "set" else None, **UPDATES)
    model.learn(288, callback=count)
    assert picked == {"labelled": 0, "steps": 288}
    masks = np.stack(venv.env_method("action_masks"))
    actions, _ = model.predict(venv.reset(), action_masks=masks, deterministic=False)
    assert all(venv.action_space.contains(action) for action in actions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "wrapper", "form"),
    [("selective", "one at a time", "vector"), ("active", "scores", "vector"), ("one label", "", "dummy")],
)
def test_recurrent_ppo_trains(make: Any, env: str, wrapper: str, form: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    extractor = {"features_extractor_class": SetExtractor, "features_extractor_kwargs": {"hidden": 4}}
    kwargs = {"policy_kwargs": {"lstm_hidden_size": 8, **extractor}}
    trained(
        contrib.RecurrentPPO, "MultiInputLstmPolicy", make(env, wrapper, form), 96 if form == "dummy" else 240, **kwargs
    )


# -- the examples -----------------------------------------------------------------------------------------------------


def example(root: Path, name: str) -> Any:
    """An example's module."""
    spec = importlib.util.spec_from_file_location(name, root / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # tyro looks there for the types of the settings
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_ppo_example_prints_its_comparison(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ppo = example(root, "sb3_ppo")
    ppo.main(ppo.Settings(steps=64, pool=20, k=4, envs=8, tasks=10, split="val", save=tmp_path / "ppo"))
    printed = capsys.readouterr().out
    assert "trained on 64 tasks" in printed
    assert all(name in printed for name in ("random", "K-Medoids", "PPO", "minus random", "PPO minus K-Medoids"))
    assert "n = 10 test tasks" in printed
    PPO.load(tmp_path / "ppo")


@pytest.mark.slow
@pytest.mark.parametrize("env", ["ActiveLabel-v0", "SelectiveLabel-v0"])
def test_the_maskable_example_counts_nothing(root: Path, capsys: pytest.CaptureFixture[str], env: str) -> None:
    pytest.importorskip("sb3_contrib")
    maskable = example(root, "sb3_maskable")
    settings = maskable.Settings(env=env, pool=30, labels=5, envs=4, steps=40, plays=50)
    assert maskable.main(settings) == 0
    assert f"{env}: 60 steps played, a labelled image was picked 0 times" in capsys.readouterr().out
    # The count does count: without masks some are picked again.
    env_ = maskable.make(settings)
    env_.reset()
    infos, dones = [{}] * 4, np.zeros(4)
    picked = 0
    for _ in range(5):
        _, _, dones, infos = env_.step(np.zeros(4, np.int64))
        picked += maskable.repeated(infos, dones, settings)
    assert picked >= 16


@pytest.mark.slow
@pytest.mark.parametrize("env", ["ActiveLabel-v0", "SelectiveLabel-v0"])
@pytest.mark.parametrize("algorithm", ["a2c", "dqn", "recurrent-ppo"])
def test_the_examples_of_the_others_print_a_result(
    root: Path, capsys: pytest.CaptureFixture[str], env: str, algorithm: str
) -> None:
    if algorithm == "recurrent-ppo":
        pytest.importorskip("sb3_contrib")
    others = example(root, "sb3_others")
    others.main(
        others.Settings(algorithm=algorithm, env=env, pool=20, labels=5, envs=4, steps=64, split="val", episodes=4)
    )
    assert f"{algorithm} on {env} after 64 steps: return" in capsys.readouterr().out
