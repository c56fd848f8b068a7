"""Replay of labelling steps that keeps what is needed and not whole pools."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIELDS = ("state", "action", "used", "reward", "next_state", "next_candidates", "next_mask", "done")


@dataclass(frozen=True)
class Transitions:
    """``n`` steps.

    Parameters
    ----------
    state, next_state: float32 ``(n, S)``.
    action: float32 ``(n, N, F)``, vectors of the candidates that were chosen.
    used: bool ``(n, N)``, False where the budget had ended.
    reward: float32 ``(n,)``.
    next_candidates: float32 ``(n, K, F)``, vectors of some of the candidates of the next step.
    next_mask: bool ``(n, K)``, which of them there are.
    done: bool ``(n,)``.
    """

    state: Tensor
    action: Tensor
    used: Tensor
    reward: Tensor
    next_state: Tensor
    next_candidates: Tensor
    next_mask: Tensor
    done: Tensor


class Replay:
    """The last steps, drawn uniformly or by priority.

    A step with a pool of 5000 takes 5000 F numbers; one here takes ``2 S + (N + K) F``.

    Parameters
    ----------
    size: how many steps are kept.
    exponent: a step is drawn in proportion to its last absolute TD error to this power (Schaul et al. 2016; LAL-RL
        0.5); 0 is uniform. New steps have the largest error so far.
    """

    FIRST_ERROR = 1000.0
    """What the error of a step counts as before any has been computed (LAL-RL)."""

    def __init__(self, size: int, exponent: float = 0.0) -> None:
        self.size, self.exponent = size, exponent
        self.kept = 0
        self.next = 0
        self.largest = self.FIRST_ERROR
        self.columns: dict[str, Tensor] = {}
        self.errors = torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return self.kept

    def add(self, steps: Transitions) -> None:
        """Keep steps, over the oldest where there is no room."""
        n = len(steps.reward)
        if not self.columns:
            for name in _FIELDS:
                value: Tensor = getattr(steps, name)
                self.columns[name] = value.new_zeros(0, *value.shape[1:])
        self._reserve(min(self.size, self.next + n))
        places = torch.arange(self.next, self.next + n) % self.size
        for name in self.columns:
            value, column = self._fitted(name, getattr(steps, name))
            column[places.to(column.device)] = value
        self.errors[places] = self.largest
        self.next = (self.next + n) % self.size
        self.kept = min(self.kept + n, self.size)

    def _reserve(self, steps: int) -> None:
        """Make room for so many steps: as the buffer fills, so that one of a large ``size`` takes no memory before."""
        if steps > len(self.errors):
            room = min(self.size, max(steps, 2 * len(self.errors)))
            self.errors = _longer(self.errors, room)
            self.columns = {name: _longer(column, room) for name, column in self.columns.items()}

    def _fitted(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return a value and its column, both as wide as the wider of them: pools may differ in size."""
        if name in ("next_candidates", "next_mask"):
            wide = max(value.shape[1], self.columns[name].shape[1])
            value, self.columns[name] = _widened(value, wide), _widened(self.columns[name], wide)
        return value, self.columns[name]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Transitions, Tensor]:
        """Return ``n`` steps and their places, drawn with the CPU generator; by priority each at most once."""
        if self.exponent:
            weights = self.errors[: self.kept].clamp(min=1e-12) ** self.exponent
            places = torch.multinomial(weights, min(n, self.kept), replacement=False, generator=generator)
        else:
            places = torch.randint(self.kept, (n,), generator=generator)
        picked = {name: column[places.to(column.device)] for name, column in self.columns.items()}
        return Transitions(**picked), places

    def update(self, places: Tensor, errors: Tensor) -> None:
        """Set the absolute TD errors of steps."""
        if self.exponent:
            self.errors[places] = errors.detach().abs().double().cpu()
            self.largest = float(self.errors[: self.kept].max())

    def state_dict(self) -> dict[str, object]:
        """Return what :meth:`load_state_dict` needs."""
        # Cloned: a view would take the whole storage into the file.
        columns = {name: column[: self.kept].clone() for name, column in self.columns.items()}
        return {
            "columns": columns,
            "errors": self.errors[: self.kept].clone(),
            "next": self.next,
            "largest": self.largest,
        }

    def load_state_dict(self, saved: dict[str, object], device: torch.device) -> None:
        """Take over what was saved."""
        errors, columns, following, largest = (saved[n] for n in ("errors", "columns", "next", "largest"))
        if not isinstance(errors, Tensor) or not isinstance(columns, dict) or not isinstance(following, int):
            raise TypeError("a replay buffer is saved as errors, columns, and where the next step goes")
        if not isinstance(largest, float):
            raise TypeError("the largest error must be a number")
        kept = len(errors)
        if (
            errors.ndim != 1
            or kept > self.size
            or (kept < self.size and following != kept)
            or not 0 <= following <= kept
        ):
            raise ValueError(f"a replay buffer of {tuple(errors.shape)} steps, the next at {following} of {self.size}")
        if set(columns) != set(_FIELDS if kept else ()):
            raise ValueError(f"a replay buffer with the columns {', '.join(map(str, columns))}")
        for name, column in columns.items():
            if not isinstance(column, Tensor) or len(column) != kept or not bool(column.isfinite().all()):
                raise ValueError(f"a replay buffer whose {name} is not finite, or not of {kept} steps")
        self.kept, self.next, self.largest = kept, following, largest
        self.errors = errors.to(torch.float64, copy=True)
        self.columns = {name: column.to(device, copy=True) for name, column in columns.items()}


def _longer(values: Tensor, length: int) -> Tensor:
    """Return ``(n, ...)`` with zeros up to ``(length, ...)``."""
    return torch.cat([values, values.new_zeros(length - len(values), *values.shape[1:])])


def _widened(values: Tensor, width: int) -> Tensor:
    """Return ``(n, K, ...)`` with zeros up to ``(n, width, ...)``."""
    if values.shape[1] == width:
        return values
    wide = values.new_zeros(len(values), width, *values.shape[2:])
    wide[:, : values.shape[1]] = values
    return wide
