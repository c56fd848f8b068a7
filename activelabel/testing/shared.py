"""What the checks have in common: collecting what fails, tiny data, and the global generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.data import Cohort, Source
from activelabel.errors import ActiveLabelError, SettingsError, unknown
from activelabel.seeding import stream

Observation = dict[str, NDArray[Any]]
Check = Callable[[], None]


class ConformanceError(ActiveLabelError):
    """What was checked does not keep what it must; the message lists all that failed."""


class Failed(Exception):
    """One check failed; the text says how."""


def run_checks(what: str, checks: Mapping[str, Check], skip: Collection[str]) -> None:
    """Run checks, all of them, and tell which failed.

    Parameters
    ----------
    what: is checked, for the message.
    checks: by name.
    skip: names of those to leave out.

    Raises
    ------
    ConformanceError: if some failed.
    SettingsError: if ``skip`` names no check.
    """
    for name in skip:
        if name not in checks:
            raise SettingsError(unknown("check", name, checks))
    failed = []
    for name, check in checks.items():
        if name in skip:
            continue
        try:
            check()
        except Failed as error:
            failed.append(f"{name}: {error}")
        except Exception as error:  # of the code that is checked
            failed.append(f"{name}: it raised {type(error).__name__}: {error}")
    if failed:
        raise ConformanceError("\n- ".join([f"{what} failed {len(failed)} of {len(checks)} checks:", *failed]))


def expect(holds: Any, said: str) -> None:
    """Fail unless something holds.

    Raises
    ------
    Failed: with what is said, if it does not.
    """
    if not holds:
        raise Failed(said)


@lru_cache(maxsize=1)
def tiny_cohort() -> Cohort:
    """Return 480 images of three classes in 6 dimensions, the last of them without a finding; fit for both
    environments."""
    rng = stream(0, "testing")
    label = np.arange(480) % 3
    features = 1.2 * rng.standard_normal((3, 6))[label] + rng.standard_normal((480, 6))
    return Cohort(
        np.eye(3, dtype=np.int8)[label],
        ("Mass", "Nodule", "No Finding"),
        features.astype(np.float32),
        normal=2,
        source=Source(name="tiny"),
    )


@contextmanager
def global_generators_untouched(who: str) -> Iterator[None]:
    """Fail if the block uses or seeds a global generator of Python, NumPy or torch.

    Raises
    ------
    Failed: if it does; the message says which.
    """
    kept = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 (it is what is checked)
    try:
        # What seeds them all alike, again and again, would leave them where they were.
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        before = _states()
        yield
        moved = [name for name, state in _states().items() if state != before[name]]
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
    expect(
        not moved,
        f"{who} uses or seeds the global random numbers of {', '.join(moved)}, so that what runs beside it changes; "
        "take a generator of its own, such as activelabel.seeding.stream(seed, name).",
    )


def _states() -> dict[str, Any]:
    _, words, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "Python": random.getstate(),
        "NumPy": (np.asarray(words).tobytes(), position),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def pick(observation: Observation, i: int) -> Observation:
    """Return the observation of one task or episode, without B."""
    return {name: array[i] for name, array in observation.items()}


def alone(observation: Observation, i: int) -> Observation:
    """Return the observation of one task or episode, with B = 1."""
    return {name: array[i : i + 1] for name, array in observation.items()}


def frozen(observation: Observation) -> Observation:
    """Return a copy that cannot be written to."""
    copies = {name: array.copy() for name, array in observation.items()}
    for array in copies.values():
        array.flags.writeable = False
    return copies


def check_actions(actions: Any, shape: tuple[int, ...], below: int) -> NDArray[np.int64]:
    """Return what was chosen.

    Raises
    ------
    Failed: if it is no array of integers of that shape, or an index is not one of a candidate.
    """
    array = np.asarray(actions)
    expect(array.dtype.kind in "iu", f"it chose {array.dtype}; choices are integers.")
    expect(array.shape == shape, f"it chose {array.shape} where {shape} was asked for.")
    outside = array[(array < 0) | (array >= below)]
    expect(not outside.size, f"it chose {outside[:3].tolist()} of {below} candidates.")
    return array.astype(np.int64)


def expect_different(actions: NDArray[np.int64]) -> None:
    """Fail if a row of choices ``(B, K)`` has an index twice.

    Raises
    ------
    Failed: with the row.
    """
    for row in actions.reshape(len(actions), -1).tolist():
        expect(len(set(row)) == len(row), f"it chose {row}: an image twice, whose second label is lost.")
