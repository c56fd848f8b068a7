"""Errors a user can act on.

Every refusal of bad input is a subclass of :class:`ActiveLabelError`, itself a ``ValueError``, with a message
that names the value and says what to do. The command line prints the message alone; anything else that escapes
is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 4000


class ActiveLabelError(ValueError):
    """Base of all errors that bad input causes.

    A message quotes what was read, which can be as long as a file; it is cut at 4000 characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ... ({len(message)} characters)"
        )


class DataError(ActiveLabelError):
    """A cohort, a file of one, or a task that cannot be drawn from it."""


class SettingsError(ActiveLabelError):
    """A setting that is unknown or out of range."""


class CheckpointError(ActiveLabelError):
    """A model file that is missing, truncated, foreign, or of another kind of agent."""


class WriteError(ActiveLabelError, OSError):
    """A file that the system refuses to write: a full disk, a folder without permission. The old one is whole."""


class DuplicateImagesWarning(UserWarning):
    """The same image stands on both sides of a split."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not known, with the closest match first.

    Parameters
    ----------
    kind: what the name was meant to be, such as ``"preset"``.
    name: what the user gave.
    known: the names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}."
