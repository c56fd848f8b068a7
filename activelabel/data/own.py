"""Data sets of a user's own, by name; and the options that a reader takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from activelabel import plugins
from activelabel.data.cohort import Cohort
from activelabel.errors import DataError, SettingsError, unknown


def is_own(name: str, catalogue: Container[str]) -> bool:
    """Say whether a name is that of a user's data set: an entry point's, or a class path and no file.

    Parameters
    ----------
    name: of a data set.
    catalogue: the names of the package's own; ``NAME:FOLDER`` with one of them is no class path.
    """
    if name.partition(":")[0] in catalogue:
        return False
    return name in plugins.names("data set") or (plugins.is_path(name) and not Path(name).exists())


def load_own(name: str, options: dict[str, Any]) -> Cohort:
    """Return the cohort of a user's function.

    Parameters
    ----------
    name: see :func:`activelabel.plugins.load`.
    options: of the function, whose keyword-only parameters they are.

    Raises
    ------
    DataError: if it returns something else.
    SettingsError: if it cannot be imported, or has no such option.
    """
    function = plugins.load("data set", name)
    check_options(name, options, options_of(function))
    cohort = function(**options)
    if not isinstance(cohort, Cohort):
        raise DataError(f"data set '{name}' gave {type(cohort).__name__}; the function must return a Cohort.")
    return cohort


def options_of(reader: Callable[..., Cohort]) -> tuple[str, ...]:
    """Return the names of a reader's keyword-only parameters."""
    parameters = inspect.signature(reader).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def check_options(name: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Check the names of options that a data set is given.

    Raises
    ------
    SettingsError: if it has one of them not (with the closest match).
    """
    for option in given:
        if option not in known:
            raise SettingsError(unknown(f"option of {name}", option, known))
