"""Parts of a page that runs and studies share: the sheets of a report and of audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activelabel.evaluation.audit import Audit
from activelabel.evaluation.page import Element, Lines, Picture, Sheet
from activelabel.evaluation.report import Report, title

_HEADS = {
    "n": "tasks",
    "k": "K",
    "a": "strategy",
    "b": "against",
    "batch": "a step",
    "budget": "labels",
    "one_class": "one class",
}
_SHARES = ("one_class",)
_SIGNED = ("difference",)
_NAMES = ("strategy", "a", "b")


def sheet(rows: Sequence[Mapping[str, Any]], caption: str = "", note: str = "") -> Sheet:
    """Return plain values as a table.

    Parameters
    ----------
    rows: with the same keys; ``ci`` becomes two columns, strategies get their titles.
    caption, note: above and below it.
    """
    columns: list[str] = []
    formats: list[str] = []
    for key in rows[0]:
        if key == "ci":
            columns += ["95 % low", "95 % high"]
            formats += [formats[-1]] * 2
        else:
            columns.append(_HEADS.get(key, key))
            floats = any(isinstance(row[key], float) for row in rows)
            formats.append(".1%" if key in _SHARES else "+.3f" if key in _SIGNED else ".3f" if floats else "")
    return Sheet(columns, [_cells(row) for row in rows], formats, caption, note)


def _cells(row: Mapping[str, Any]) -> list[str | float | int | None]:
    cells: list[str | float | int | None] = []
    for key, value in row.items():
        if key == "ci":
            cells += [None, None] if value is None else list(value)
        else:
            cells.append(title(value) if key in _NAMES else value)
    return cells


def report_elements(report: Report) -> list[Element]:
    """Return the figure of a report and its tables."""
    found: list[Element] = [Picture(report.draw()), sheet(report.rows, "Means, with intervals over tasks")]
    if report.comparisons:
        found.append(sheet(report.comparisons, "Paired differences, with intervals over tasks"))
    return found


def audit_elements(audits: Mapping[str, Audit]) -> list[Element]:
    """Return what audits of strategies on the same tasks found: warnings first, then one table.

    Parameters
    ----------
    audits: by strategy.
    """
    warnings = [f"{title(name)}: {text}" for name, found in audits.items() for text in found.warnings]
    notes = [f"{title(name)}: {text}" for name, found in audits.items() for text in found.notes]
    rows = [{"strategy": name, **row} for name, found in audits.items() for row in found.rows]
    elements: list[Element] = [Lines(warnings, "warning")] if warnings else []
    if rows:
        elements.append(sheet(rows, "What was chosen, against the pools or random choices; means over tasks"))
    return [*elements, *([Lines(notes)] if notes else [])]
