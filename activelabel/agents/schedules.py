"""Learning-rate schedules that can be saved with a model."""

from __future__ import annotations

from dataclasses import dataclass

from activelabel.errors import SettingsError


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
