"""Docstrings as the code writes them, for griffe: numpydoc's sections with an item a line, and Sphinx's roles."""

from __future__ import annotations

import re
from typing import Any

import griffe
from mkdocs.plugins import get_plugin_logger

_log = get_plugin_logger("docstrings")
_SECTION = re.compile(r"^(Parameters|Raises|Warns|Returns)\n-+\n((?:.+\n?)+)", re.MULTILINE)
_ITEM = re.compile(r"^([*\w]+(?:(?:, | or )[*\w]+)*): ", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")
_LITERAL = re.compile(r"(^|\S)::\n(?=\n)", re.MULTILINE)


class HouseStyle(griffe.Extension):
    """Turns each docstring of a package into what griffe's numpy parser and autorefs read."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Turn them once all modules are there, so that names can be resolved."""
        if pkg.name == "activelabel":
            _turn(pkg)


def _turn(obj: griffe.Object) -> None:
    if isinstance(obj, griffe.Module) and obj.is_init_module:
        obj.exports = None  # what a package exports is shown once, in the module that defines it
    if obj.docstring is not None:
        text = _SECTION.sub(_section, obj.docstring.value + "\n").rstrip()
        text = _LITERAL.sub(lambda found: f"{found[1]}:\n" if found[1] else "\n", text)
        obj.docstring.value = _ROLE.sub(lambda found: _reference(obj, found[1] == "~", found[2]), text)
    for member in obj.members.values():
        if isinstance(member, griffe.Object):
            _turn(member)


def _section(found: re.Match[str]) -> str:
    """Return a section with a line ``name`` and an indented ``what`` for each ``name: what``."""
    name, body = found[1], found[2].rstrip("\n")
    if name == "Returns":
        items = ":\n" + re.sub(r"^", "    ", body, flags=re.MULTILINE)
    else:
        items = _ITEM.sub(r"\1\n    ", body)
    return f"{name}\n{'-' * len(name)}\n{items}\n"


def _reference(obj: griffe.Object, short: bool, name: str) -> str:
    """Return a role as a link where it names something public of ours, else as code."""
    shown = f"`{name.rpartition('.')[2] if short else name}`"
    path = name if name.startswith("activelabel") else _resolved(obj, name)
    if path is None or not path.startswith("activelabel"):
        return shown
    root = obj.modules_collection
    try:
        target = root[path]
    except (KeyError, griffe.AliasResolutionError):
        _log.warning("%s refers to %s, which does not exist", obj.path, name)
        return shown
    while not target.has_docstring and target.parent is not None:  # a field is described in its class's docstring
        target = target.parent
    path = target.canonical_path
    return shown if any(part.startswith("_") for part in path.split(".")) else f"[{shown}][{path}]"


def _resolved(obj: griffe.Object, name: str) -> str | None:
    first, dot, rest = name.partition(".")
    try:
        return obj.resolve(first) + dot + rest
    except griffe.NameResolutionError:
        _log.warning("%s refers to %s, which its module does not know", obj.path, name)
        return None
