"""Sections of a report as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from activelabel.evaluation.page import Element, Lines, Picture, Section, Sheet, Text

_WIDTH = 120


def plain(sections: Sequence[Section]) -> str:
    """Return the texts, lines and tables of some sections; of pictures only the captions."""
    found = []
    for section in sections:
        parts = [f"{section.title}\n{'=' * len(section.title)}"]
        parts += [text for text in map(_element, section.elements) if text]
        found.append("\n\n".join(parts))
    return "\n\n\n".join(found) + "\n"


def _element(element: Element) -> str:
    if isinstance(element, Text):
        return textwrap.fill(element.text, _WIDTH)
    if isinstance(element, Lines):
        return "\n".join(textwrap.fill(f"- {line}", _WIDTH, subsequent_indent="  ") for line in element.lines)
    if isinstance(element, Sheet):
        return _sheet(element)
    if isinstance(element, Picture) and element.caption:
        return textwrap.fill(f"[{element.caption}]", _WIDTH)
    return ""


def _sheet(sheet: Sheet) -> str:
    rows = [[_cell(v, form) for v, form in zip(row, sheet.formats, strict=True)] for row in sheet.rows]
    widths = [max(map(len, column)) for column in zip(sheet.columns, *rows, strict=True)]
    words = [any(isinstance(row[i], str) for row in sheet.rows) for i in range(len(widths))]

    def line(cells: Sequence[str]) -> str:
        shown = [f"{c:<{w}}" if left else f"{c:>{w}}" for c, w, left in zip(cells, widths, words, strict=True)]
        return "  ".join(shown).rstrip()

    head = line(sheet.columns)
    notes = [textwrap.fill(note, _WIDTH) for note in (sheet.note,) if note]
    return "\n".join([*([sheet.caption] if sheet.caption else []), head, "-" * len(head), *map(line, rows), *notes])


def _cell(cell: str | float | int | None, form: str) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else format(cell, form)
