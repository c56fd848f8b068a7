"""The learning-rate schedule, and the checks of arguments that need no env."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule

from activelabel.errors import SettingsError, unknown

BASELINES = ("leave-one-out", "random", "none")
PRECISIONS = ("float32", "bfloat16")
DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True)
class StepSchedule:
    """A learning rate that is multiplied once, when a share of the training is done.

    Parameters
    ----------
    initial: rate at the start.
    factor: what it is multiplied by. (MedSelect's released code: 0.1.)
    start: share of the training, 0 to 1, after which it is. (Released code: from the third of five epochs on, 0.4.)
    """

    initial: float
    factor: float = 1.0
    start: float = 0.4

    def __post_init__(self) -> None:
        if not self.initial > 0 or not self.factor > 0:
            raise SettingsError(f"learning_rate={self.initial} must be positive, and so must its factor {self.factor}.")
        if not 0 <= self.start <= 1:
            raise SettingsError(f"the learning rate cannot change at {self.start} of the training; give 0 to 1.")

    def __call__(self, progress_remaining: float) -> float:
        """Return the rate for a progress that goes from 1 to 0."""
        return self.initial * (self.factor if 1 - progress_remaining >= self.start - 1e-9 else 1.0)


def check_arguments(
    learning_rate: float | Schedule, batch_size: int, n_samples: int, baseline: str, max_grad_norm: float | None = None
) -> None:
    """Check what can be checked without an env.

    Raises
    ------
    SettingsError: if a value is out of range.
    """
    if baseline not in BASELINES:
        raise SettingsError(unknown("baseline of REINFORCE", baseline, BASELINES))
    if batch_size < 1 or n_samples < 1:
        raise SettingsError(f"batch_size={batch_size} and n_samples={n_samples} must be at least 1.")
    if baseline == "leave-one-out" and n_samples < 2:
        raise SettingsError(
            f"baseline='leave-one-out' compares selections of one task: n_samples={n_samples} must be at least 2."
        )
    if max_grad_norm is not None and max_grad_norm <= 0:
        raise SettingsError(f"max_grad_norm={max_grad_norm} must be positive, or None.")
    if not callable(learning_rate) and not learning_rate > 0:
        raise SettingsError(f"learning_rate={learning_rate} must be positive.")


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Check the precision of a network in training.

    Parameters
    ----------
    precision: its name.
    device: where the network is, if that is known.

    Raises
    ------
    SettingsError: if it is unknown (with the closest match), or none of the GPU's.
    """
    if precision not in PRECISIONS:
        raise SettingsError(unknown("precision", str(precision), PRECISIONS))
    on_gpu = device is not None and device.type == "cuda"
    if precision == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SettingsError(f"precision='bfloat16': {torch.cuda.get_device_name(device)} does not compute in it.")


def check_anchor(anchor: float, clusters_share: float, distance: str) -> None:
    """Check the settings of the anchored selector.

    Raises
    ------
    SettingsError: if a value is out of range or the distance unknown.
    """
    if distance not in DISTANCES:
        raise SettingsError(unknown("distance", str(distance), DISTANCES))
    if not _is_number(anchor) or anchor < 0:
        raise SettingsError(f"anchor={anchor!r} must be a number, not negative.")
    if not _is_number(clusters_share) or not 0 < clusters_share <= 1:
        raise SettingsError(f"clusters_share={clusters_share!r} must be above 0, at most 1.")


CREDITS = ("mean", "sum", "each")
TARGETS = ("double", "printed")
NETWORKS = ("online", "target")
EXPLORATIONS = ("uniform", "directions")
DDQN_ARGUMENTS = (
    "buffer_size",
    "warm_start_episodes",
    "batch_size",
    "gradient_steps",
    "gamma",
    "credit",
    "target",
    "act_with",
    "tau",
    "target_update_interval",
    "exploration",
    "exploration_initial",
    "exploration_final",
    "exploration_fraction",
    "next_candidates",
    "reward_scale",
    "priority_exponent",
    "value_bias",
    "patience",
    "max_grad_norm",
    "seed",
)
"""Arguments of DDQN that are plain values, and kept in its file."""


def check_ddqn_arguments(model: Any) -> None:
    """Check the settings of a DDQN, which are its attributes.

    Raises
    ------
    SettingsError: if a value is out of range.
    """
    for name, known in (
        ("credit", CREDITS),
        ("target", TARGETS),
        ("exploration", EXPLORATIONS),
        ("act_with", NETWORKS),
    ):
        if getattr(model, name) not in known:
            raise SettingsError(unknown(name, str(getattr(model, name)), known))
    least = {"buffer_size": 1, "warm_start_episodes": 0, "batch_size": 1, "gradient_steps": 1, "next_candidates": 0}
    least |= {"target_update_interval": 1, "patience": 1}
    for name, low in least.items():
        value = getattr(model, name)
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not (value is None and name == "patience") and (not whole or value < low):
            raise SettingsError(f"{name}={value!r} must be a whole number of at least {low}.")
    for name in ("gamma", "tau", "exploration_initial", "exploration_final", "exploration_fraction"):
        if not (_is_number(getattr(model, name)) and 0 <= getattr(model, name) <= 1):
            raise SettingsError(f"{name}={getattr(model, name)!r} must be from 0 to 1.")
    if not _is_number(model.priority_exponent) or model.priority_exponent < 0:
        raise SettingsError(f"priority_exponent={model.priority_exponent!r} must be a number, not negative.")
    if not _is_number(model.value_bias) and model.value_bias != "duration":
        raise SettingsError(f"value_bias={model.value_bias!r} must be a number or 'duration'.")
    for name in ("reward_scale", "max_grad_norm", "learning_rate"):
        value = getattr(model, name)
        if (value is None and name == "max_grad_norm") or (callable(value) and name == "learning_rate"):
            continue
        if not _is_number(value) or not value > 0:
            raise SettingsError(f"{name}={value!r} must be positive{', or None' if name == 'max_grad_norm' else ''}.")


def _is_number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)
