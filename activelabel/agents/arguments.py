"""The learning-rate schedule, and the checks of arguments that need no env."""

from __future__ import annotations

from dataclasses import dataclass

from stable_baselines3.common.type_aliases import Schedule

from activelabel.errors import SettingsError, unknown

BASELINES = ("leave-one-out", "random", "none")


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
