"""What a DDQN model file holds, and how a model is made of it again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from activelabel.agents.arguments import DDQN_ARGUMENTS, StepSchedule, check_ddqn_arguments
from activelabel.agents.saving import (
    COUNTERS,
    check_header,
    check_saveable,
    check_types,
    checked_shape,
    restore_counters,
)
from activelabel.envs.sb3 import env_state
from activelabel.errors import SettingsError, unknown
from activelabel.reading import load_optimizer, load_state

if TYPE_CHECKING:
    from activelabel.agents.ddqn import DDQN

_GENERATORS = ("explore", "replay", "predict")


def header(model: DDQN) -> dict[str, Any]:
    """Return everything but tensors, JSON-serialisable.

    Raises
    ------
    SettingsError: if the learning rate, the policy class or its arguments are objects that cannot be written down.
    """
    rate = check_saveable(model)
    if not isinstance(model.env_settings.get("learner", ""), str):
        raise SettingsError("a model that was trained with a learner of your own cannot name it in its file.")
    return {
        "policy": model.policy_class.__name__,
        "policy_kwargs": model.policy_kwargs,
        "learning_rate": asdict(rate),
        "settings": {name: getattr(model, name) for name in DDQN_ARGUMENTS},
        "observation": {"state": model.policy.n_state, "features": model.policy.n_features},
        "batch": model.n,
        "env_settings": model.env_settings,
        "counters": {name: getattr(model, name) for name in COUNTERS},
        "returns": model.returns,
        "running_returns": model._running_returns.tolist(),
        "env": None if model.env is None or model._last_obs is None else env_state(model.env),
        "notes": model.notes,
    }


def tensors(model: DDQN, replay: bool) -> dict[str, Any]:
    """Return weights, optimiser and generators, and the replay buffer where it is wanted."""
    generators = {name: getattr(model, f"_{name}_rng").get_state() for name in _GENERATORS}
    return {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "generators": generators,
        "replay": model.replay.state_dict() if replay else None,
    }


def restore(cls: type[DDQN], header: dict[str, Any], tensors: dict[str, Any], device: torch.device | str) -> DDQN:
    """Make the model of a header and its tensors; see :meth:`DDQN.load` for the rest."""
    check_header(header)
    check_types(header, {"env_settings": dict, "returns": list, "running_returns": list, "batch": int})
    settings = {**header["settings"], "learning_rate": StepSchedule(**header["learning_rate"])}
    check_types(settings, {"seed": int})
    model = cls(
        policy=header["policy"],
        env=None,
        device=device,
        policy_kwargs=header["policy_kwargs"],
        _init_setup_model=False,
        **settings,
    )
    seen, n = header["observation"], header["batch"]
    (states,), (n, features) = checked_shape([seen["state"]]), checked_shape([n, seen["features"]])
    model.observation_space = gym.spaces.Dict(
        {
            "state": gym.spaces.Box(0, 1, (states,), np.float32),
            "candidates": gym.spaces.Box(0, 1, (n, features), np.float32),
            "action_mask": gym.spaces.MultiBinary(n),
        }
    )
    model.action_space = gym.spaces.Discrete(n) if n == 1 else gym.spaces.MultiDiscrete([n] * n)
    model.n_envs, model.n = 1, n
    model._setup_lr_schedule()
    model.set_random_seed(model.seed)
    model._build_policy()
    load_state(model.policy, tensors["policy"])
    load_optimizer(model.policy.optimizer, tensors["optimizer"])
    if tensors["replay"] is not None:
        model.replay.load_state_dict(tensors["replay"], model.device)
    restore_counters(model, header)
    for name in _GENERATORS:
        getattr(model, f"_{name}_rng").set_state(tensors["generators"][name])
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in header["env_settings"].items()}
    model.env_settings, model.returns, model.notes = lists, header["returns"], header["notes"]
    model._running_returns = np.array(header["running_returns"], dtype=np.float64)
    return model


_CHANGEABLE = (*(name for name in DDQN_ARGUMENTS if name not in ("buffer_size", "seed")), "learning_rate")
_LOGGING = ("tensorboard_log", "verbose")


def change(model: DDQN, settings: dict[str, Any]) -> None:
    """Change settings of a restored model, and check them together.

    Raises
    ------
    SettingsError: if one is unknown or out of range.
    """
    for name, value in settings.items():
        if name not in (*_CHANGEABLE, *_LOGGING):
            raise SettingsError(unknown("setting of a loaded model", name, (*_CHANGEABLE, *_LOGGING)))
        setattr(model, name, value)
    check_ddqn_arguments(model)
    model._setup_lr_schedule()
    model.replay.exponent = model.priority_exponent
