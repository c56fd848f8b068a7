"""Plug-ins: agents, baselines, learners, backbones and data sets from outside the package, found by name.

A name is one of the package's own, which always wins; or a class path, ``package.module:Name``; or the name of an entry
point that an installed distribution declares in one of :data:`GROUPS`. Nothing of a plug-in is imported before it is
used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from activelabel.errors import SettingsError, unknown

GROUPS: dict[str, str] = {
    "agent": "activelabel.agents",
    "baseline": "activelabel.baselines",
    "learner": "activelabel.learners",
    "backbone": "activelabel.backbones",
    "data set": "activelabel.datasets",
}
"""The group of entry points of each kind of plug-in. Baselines of both environments share one."""

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_path(name: str) -> bool:
    """Say whether a name has the form of a class path, ``package.module:Name``."""
    return _PATH.fullmatch(name) is not None


def names(kind: str) -> tuple[str, ...]:
    """Return the names of the entry points of a kind of plug-in, sorted; nothing is imported.

    Parameters
    ----------
    kind: a key of :data:`GROUPS`.
    """
    return tuple(sorted({point.name for point in entry_points(group=GROUPS[kind])}))


def exists(kind: str, name: str) -> bool:
    """Say whether a name can be a plug-in's: a class path, or the name of an entry point. Nothing is imported."""
    return is_path(name) or name in names(kind)


def not_known(kind: str, name: str, own: Iterable[str], called: str = "") -> str:
    """Return the message for a name that is neither one of ``own`` nor a plug-in's, with the closest match of both.

    Parameters
    ----------
    kind: a key of :data:`GROUPS`.
    name: what the user gave.
    own: the names that the package has of that kind.
    called: what the message calls the kind.
    """
    return f"{unknown(called or kind, name, {*own, *names(kind)})} One of your own is package.module:Name."


def check(kind: str, name: str, own: Iterable[str], called: str = "") -> None:
    """Check that a name is one of ``own`` or can be a plug-in's, without importing it.

    Parameters
    ----------
    kind, name, own, called: see :func:`not_known`.

    Raises
    ------
    SettingsError: if it cannot.
    """
    if name not in own and not exists(kind, name):
        raise SettingsError(not_known(kind, name, own, called))


def find(kind: str, name: str, own: Mapping[str, Any]) -> Any:
    """Return what a name stands for: one of the package's own, else a plug-in.

    Parameters
    ----------
    kind: a key of :data:`GROUPS`.
    name: what the user gave.
    own: what the package has of that kind.

    Raises
    ------
    SettingsError: if there is no such name (with the closest match), or see :func:`load`.
    """
    if name in own:
        return own[name]
    check(kind, name, own)
    return load(kind, name)


def load(kind: str, name: str) -> Any:
    """Import a plug-in, and return the class or function.

    A class path is looked for in the current folder too, so that ``train.py`` finds a file that lies there.

    Parameters
    ----------
    kind: a key of :data:`GROUPS`.
    name: a class path, or the name of an entry point.

    Raises
    ------
    SettingsError: if it cannot be imported, is no callable, or several distributions have different plug-ins of that
        name; the message has the distribution, the entry point and the fault.
    """
    if is_path(name):
        module, _, attribute = name.partition(":")
        _look_in_current_folder(module)
        return _imported(module, attribute, f"{kind} '{name}'")
    point = _entry_point(kind, name)
    return _imported(point.module, point.attr, f"{kind} '{name}', {_describe(kind, point)},")


def described(kind: str) -> dict[str, str]:
    """Return for each entry point of a kind what it is and whose; nothing is imported."""
    return {point.name: _describe(kind, point) for point in entry_points(group=GROUPS[kind])}


def identity(kind: str, name: str) -> str:
    """Return text that changes with the file that a plug-in's module is in.

    Raises
    ------
    SettingsError: if there is no such entry point or module.
    """
    module = name.partition(":")[0] if is_path(name) else _entry_point(kind, name).module
    _look_in_current_folder(module)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SettingsError(f"{kind} '{name}': there is no module '{module}'.")
    source = Path(spec.origin or "")
    digest = hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest() if source.is_file() else ""
    return f"{name} {digest}"


def file_name(name: str) -> str:
    """Return a name as part of a file's or folder's name."""
    return re.sub(r"[^\w.-]", "-", name)


def _entry_point(kind: str, name: str) -> EntryPoint:
    found = [point for point in entry_points(group=GROUPS[kind]) if point.name == name]
    if not found:
        raise SettingsError(not_known(kind, name, ()))
    if len({point.value for point in found}) > 1:
        every = "; ".join(_describe(kind, point) for point in found)
        raise SettingsError(
            f"{kind} '{name}' is declared more than once: {every}. Uninstall one, or give the class path of the one "
            "that you mean."
        )
    return found[0]


def _describe(kind: str, point: EntryPoint) -> str:
    owner = "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return f"entry point '{point.name} = {point.value}' of {owner} in {GROUPS[kind]}"


def _look_in_current_folder(module: str) -> None:
    """Put the current folder at the end of the path where a module is not found without it."""
    top = module.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)
        importlib.invalidate_caches()  # the file may be younger than what was looked up before


def _imported(module: str, attribute: str, what: str) -> Any:
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the code of others does when it is imported
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            hint = " Install it, or put its folder on PYTHONPATH."
        raise SettingsError(f"{what} cannot be imported: {type(error).__name__}: {error}.{hint}") from error
    for name in filter(None, attribute.split(".")):
        if not hasattr(found, name):
            raise SettingsError(f"{what}: '{module}' has no '{name}'.")
        found = getattr(found, name)
    if not callable(found):
        raise SettingsError(f"{what} is no function or class, but {type(found).__name__}.")
    return found
