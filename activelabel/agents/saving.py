"""What a REINFORCE model file holds, and how a model is made of it again."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from activelabel.agents.arguments import StepSchedule, check_arguments, check_precision
from activelabel.agents.familiarity import Familiarity
from activelabel.data import Standardizer
from activelabel.envs.sb3 import env_state, restore_env
from activelabel.errors import CheckpointError, SettingsError, unknown
from activelabel.reading import DAMAGED, first_line, load_optimizer, load_state

if TYPE_CHECKING:
    from activelabel.agents.reinforce import Reinforce

_LARGEST_SPACE = 2**25
"""Numbers in an observation of which a space is made again: gymnasium keeps several arrays of its size."""

_SETTINGS = ("batch_size", "n_samples", "baseline", "replacement", "max_grad_norm", "precision", "seed")
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_current_progress_remaining")
"""Attributes of an algorithm that say how far its training is."""


def check_saveable(model: BaseAlgorithm) -> StepSchedule:
    """Return the learning rate of a model that can be written down.

    Raises
    ------
    SettingsError: if the learning rate, the policy class or its arguments are objects that cannot.
    """
    if model.policy_aliases.get(model.policy_class.__name__) is not model.policy_class:
        raise SettingsError(
            f"{model.policy_class.__name__} is a policy of your own: add it to {type(model).__name__}.policy_aliases, "
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
    return rate


def header(model: Reinforce) -> dict[str, Any]:
    """Return everything but tensors, JSON-serialisable.

    Raises
    ------
    SettingsError: if the learning rate, the policy class or its arguments are objects that cannot be written down.
    """
    rate = check_saveable(model)
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
        "counters": {name: getattr(model, name) for name in COUNTERS},
        "env": None if model.env is None or model._last_obs is None else env_state(model.env),
        "notes": model.notes,
    }


def tensors(model: Reinforce) -> dict[str, Any]:
    """Return weights, optimiser, generators, standardisation, and which pools are familiar."""
    standard = {} if model.standardizer is None else model.standardizer.arrays()
    familiar = {} if model.familiarity is None else model.familiarity.arrays()
    return {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "generators": {"train": model._train_rng.get_state(), "predict": model._predict_rng.get_state()},
        "standardizer": {name: torch.from_numpy(array.copy()) for name, array in standard.items()},
        "familiarity": {name: torch.from_numpy(array.copy()) for name, array in familiar.items()},
    }


def restore(
    cls: type[Reinforce],
    header: dict[str, Any],
    tensors: dict[str, Any],
    device: torch.device | str,
) -> Reinforce:
    """Make the model of a header and its tensors; see :meth:`Reinforce.load` for the rest."""
    check_header(header)
    _check_members(header, tensors)
    model = without_weights(cls, header, device)
    load_state(model.policy, tensors["policy"])
    load_optimizer(model.policy.optimizer, tensors["optimizer"])
    if tensors["standardizer"]:
        model.standardizer = Standardizer(**{name: t.numpy() for name, t in tensors["standardizer"].items()})
    if tensors.get("familiarity"):  # files of earlier versions have none
        model.familiarity = Familiarity.of_arrays({n: t.numpy() for n, t in tensors["familiarity"].items()})
        d = header["observation"]["pool"]["shape"][-1]
        if len(model.familiarity.centre) != d:
            raise ValueError(f"pools of {d} numbers an image, compared with {len(model.familiarity.centre)}")
    restore_counters(model, header)
    model._train_rng.set_state(tensors["generators"]["train"])
    model._predict_rng.set_state(tensors["generators"]["predict"])
    model.notes = header["notes"]
    return model


def without_weights(cls: type[Reinforce], header: dict[str, Any], device: torch.device | str) -> Reinforce:
    """Make the model of a header, with the weights that its seed gives, and without an env."""
    settings = {**header["settings"], "learning_rate": StepSchedule(**header["learning_rate"])}
    check_types(settings, {"batch_size": int, "n_samples": int, "replacement": bool, "seed": int})
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
            name: gym.spaces.Box(-b["bound"], b["bound"], checked_shape(b["shape"]), np.float32)
            for name, b in header["observation"].items()
        }
    )
    model.action_space = gym.spaces.MultiDiscrete(header["action"])
    model.n_envs, model.k = 1, len(header["action"])
    model._setup_lr_schedule()
    model.set_random_seed(model.seed)
    model._build_policy()
    return model


def _check_members(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Check that there are weights for every member of an ensemble, before any is made.

    Raises
    ------
    ValueError: if there are not.
    """
    members = header["policy_kwargs"].get("members", 1)
    found = {name.split(".")[2] for name in tensors["policy"] if name.startswith("selector.members.")}
    if members != max(1, len(found)):
        raise ValueError(f"{reprlib.repr(members)} members, and weights of {len(found)}")


def check_header(header: dict[str, Any]) -> None:
    """Check the parts that every model file has.

    Raises
    ------
    TypeError, KeyError: if one has another type, or is missing.
    """
    named = ("policy_kwargs", "learning_rate", "settings", "observation", "counters", "notes")
    check_types(header, {"policy": str, **dict.fromkeys(named, dict)})


def check_types(values: dict[str, Any], types: dict[str, type]) -> None:
    """Check the types of values that came from JSON; true is no number.

    Raises
    ------
    TypeError, KeyError: if one has another type, or is missing.
    """
    for name, kind in types.items():
        value = values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is {reprlib.repr(value)}, not {kind.__name__}")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of a space.

    Raises
    ------
    ValueError: if it is none, or larger than any environment's.
    """
    sizes = tuple(shape)
    if not all(isinstance(size, int) and size >= 1 for size in sizes) or math.prod(sizes) > _LARGEST_SPACE:
        raise ValueError(f"an observation of shape {reprlib.repr(sizes)}")
    return sizes


def restore_counters(model: BaseAlgorithm, header: dict[str, Any]) -> None:
    """Set how far the training of a model is.

    Raises
    ------
    TypeError, KeyError, ValueError: if a counter is missing or no number.
    """
    for name in COUNTERS:
        value = header["counters"][name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise TypeError(f"{name} is {reprlib.repr(value)}, not a number")
        setattr(model, name, value)


_CHANGEABLE = (
    *("learning_rate", "batch_size", "n_samples", "baseline", "max_grad_norm", "precision"),
    *("tensorboard_log", "verbose"),
)


def change(model: Reinforce, settings: dict[str, Any]) -> None:
    """Change settings of a restored model, and check them together.

    Raises
    ------
    SettingsError: if one is unknown or out of range.
    """
    for name, value in settings.items():
        if name not in _CHANGEABLE:
            raise SettingsError(unknown("setting of a loaded model", name, _CHANGEABLE))
        setattr(model, name, value)
    check_arguments(model.learning_rate, model.batch_size, model.n_samples, model.baseline, model.max_grad_norm)
    check_precision(model.precision, model.device)
    model._setup_lr_schedule()


def restore_env_state(env: VecEnv, header: dict[str, Any]) -> dict[str, NDArray[Any]] | None:
    """Continue the env where the model was saved; returns its observation, or None if it was saved before a reset."""
    return None if header["env"] is None else restore_env(env, header["env"])


@contextmanager
def damage(path: str | os.PathLike[str], settings: bool = True) -> Iterator[None]:
    """Turn whatever goes wrong while the contents of a file are used into a :class:`CheckpointError`.

    Parameters
    ----------
    path: the file.
    settings: also a :class:`SettingsError`; False where the caller's env can be the cause of one.
    """
    try:
        yield
    except SettingsError as error:
        if not settings:
            raise
        raise CheckpointError(f"{path}: the model's contents do not fit ({error}).") from error
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: the model's contents do not fit ({type(error).__name__}: {first_line(error)})."
        ) from error
