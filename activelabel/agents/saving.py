"""What a REINFORCE model file holds, and how a model is made of it again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from activelabel.agents.schedules import StepSchedule
from activelabel.data import Standardizer
from activelabel.envs.sb3 import env_state, restore_env
from activelabel.errors import SettingsError

if TYPE_CHECKING:
    from activelabel.agents.reinforce import Reinforce

_SETTINGS = ("batch_size", "n_samples", "baseline", "replacement", "max_grad_norm", "seed")
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_current_progress_remaining")


def header(model: Reinforce) -> dict[str, Any]:
    """Return everything but tensors, JSON-serialisable.

    Raises
    ------
    SettingsError: if the learning rate, the policy class or its arguments are objects that cannot be written down.
    """
    if model.policy_aliases.get(model.policy_class.__name__) is not model.policy_class:
        raise SettingsError(
            f"{model.policy_class.__name__} is a policy of your own: add it to Reinforce.policy_aliases, "
            "so that a model file can name it."
        )
    try:
        json.dumps(model.policy_kwargs)
    except TypeError as error:
        raise SettingsError(f"policy_kwargs cannot be saved: {error}; give plain numbers, text and lists.") from None
    rate = model.lr_schedule
    if not isinstance(rate, StepSchedule):
        raise SettingsError(
            "a model with a schedule of your own cannot be saved; give a number or a StepSchedule as learning_rate."
        )
    assert isinstance(model.observation_space, gym.spaces.Dict)
    boxes = {}
    for name, box in model.observation_space.spaces.items():
        assert isinstance(box, gym.spaces.Box)
        boxes[name] = {"shape": list(box.shape), "bound": float(box.high.flat[0])}
    assert isinstance(model.action_space, gym.spaces.MultiDiscrete)
    return {
        "policy": model.policy_class.__name__,
        "policy_kwargs": model.policy_kwargs,
        "learning_rate": asdict(rate),
        "settings": {name: getattr(model, name) for name in _SETTINGS},
        "observation": boxes,
        "action": model.action_space.nvec.tolist(),
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "env": None if model.env is None or model._last_obs is None else env_state(model.env),
        "notes": model.notes,
    }


def tensors(model: Reinforce) -> dict[str, Any]:
    """Return weights, optimiser, generators and standardisation."""
    standard = {} if model.standardizer is None else model.standardizer.arrays()
    return {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "generators": {"train": model._train_rng.get_state(), "predict": model._predict_rng.get_state()},
        "standardizer": {name: torch.from_numpy(array.copy()) for name, array in standard.items()},
    }


def restore(
    cls: type[Reinforce],
    header: dict[str, Any],
    tensors: dict[str, Any],
    device: torch.device | str,
    changes: dict[str, Any],
) -> Reinforce:
    """Make the model of a header and its tensors; see :meth:`Reinforce.load` for the rest."""
    settings = {**header["settings"], "learning_rate": StepSchedule(**header["learning_rate"]), **changes}
    model = cls(
        header["policy"],
        None,
        device=device,
        policy_kwargs=header["policy_kwargs"],
        _init_setup_model=False,
        **settings,
    )
    model.observation_space = gym.spaces.Dict(
        {
            name: gym.spaces.Box(-b["bound"], b["bound"], tuple(b["shape"]), np.float32)
            for name, b in header["observation"].items()
        }
    )
    model.action_space = gym.spaces.MultiDiscrete(header["action"])
    model.n_envs, model.k = 1, len(header["action"])
    model._setup_lr_schedule()
    model.set_random_seed(model.seed)
    model._build_policy()
    model.policy.load_state_dict(tensors["policy"])
    model.policy.optimizer.load_state_dict(tensors["optimizer"])
    if tensors["standardizer"]:
        model.standardizer = Standardizer(**{name: t.numpy() for name, t in tensors["standardizer"].items()})
    for name in _COUNTERS:
        setattr(model, name, header["counters"][name])
    model._train_rng.set_state(tensors["generators"]["train"])
    model._predict_rng.set_state(tensors["generators"]["predict"])
    model.notes = header["notes"]
    return model


def attach(model: Reinforce, env: Any, state: list[dict[str, Any]] | None) -> None:
    """Let a restored model train on an env, from the state that the file holds or, without one, from a seeded reset."""
    model.set_env(env)
    assert model.env is not None
    model.env.seed(model.seed)
    if state is not None:
        model._last_obs = restore_env(model.env, state)
