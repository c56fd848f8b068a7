"""The report as a page: one file of HTML that needs nothing else, with tables, figures and images."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from numbers import Real
from pathlib import Path
from typing import TypeGuard

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from activelabel.errors import DataError, SettingsError, unknown
from activelabel.evaluation.inline import cycle_colour, printable, tile_png, to_svg
from activelabel.files import write_text

LABELS = {"verdict": "Verdict", "warning": "Warning", "note": "Note"}
"""The kinds of :class:`Lines`, and what is written above each."""

LONG = 60
"""Letters of a cell that are broken into lines if there are more."""

_NUMBER = ' class="number"'

Cell = str | float | int | None


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text; line breaks are kept."""

    text: str


@dataclass(frozen=True)
class Lines:
    """Sentences that stand out, one a line.

    Parameters
    ----------
    lines: the sentences; without any, nothing is shown.
    kind: ``"verdict"``, ``"warning"`` or ``"note"``.

    Raises
    ------
    SettingsError: if there is no such kind.
    """

    lines: Sequence[str]
    kind: str = "note"

    def __post_init__(self) -> None:
        if self.kind not in LABELS:
            raise SettingsError(unknown("kind of lines", self.kind, LABELS))


@dataclass(frozen=True)
class Sheet:
    """A table that sorts by a click on a head.

    Parameters
    ----------
    columns: the heads.
    rows: one value a column; None and NaN are empty cells, which sort last.
    formats: a format specification a column, such as ``".3f"`` or ``"+.1%"``, for its numbers; text is shown as it is.
    caption: above the table.
    note: below it.

    Raises
    ------
    SettingsError: if there is no column, a row or the formats are not one a column, or a format does not fit a number.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    formats: Sequence[str]
    caption: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        width = len(self.columns)
        if not width:
            raise SettingsError("a table needs at least one column.")
        if len(self.formats) != width:
            raise SettingsError(f"{len(self.formats)} formats for the {width} columns {', '.join(self.columns)}.")
        for number, row in enumerate(self.rows):
            if len(row) != width:
                raise SettingsError(f"row {number} has {len(row)} values for the {width} columns: {list(row)}.")
            for name, value, spec in zip(self.columns, row, self.formats, strict=True):
                if not _empty(value):
                    _shown(value, spec, f"row {number}, column '{name}'")


@dataclass(frozen=True)
class Picture:
    """A figure, drawn as SVG; ``caption`` stands below it."""

    figure: Figure
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of a mosaic.

    Parameters
    ----------
    image: uint8 ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
    text: below it.
    mark: what the colour of its border stands for, such as its class; written below it as well.

    Raises
    ------
    DataError: if the image is of another dtype or shape.
    """

    image: NDArray[np.uint8]
    text: str = ""
    mark: str = ""

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.image), getattr(self.image, "dtype", type(self.image).__name__)
        if dtype != np.uint8 or 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
            raise DataError(f"an image of {dtype} {shape}; expected uint8 (H, W), (H, W, 1) or (H, W, 3).")


@dataclass(frozen=True)
class Mosaic:
    """Images side by side, all shown at one size; ``caption`` stands below them.

    Colours are given to the ``marks`` in their order, then to marks of tiles that are not among them: a mark has the
    same colour in all mosaics with the same ``marks``, which is that of matplotlib's colour cycle.
    """

    tiles: Sequence[Tile]
    caption: str = ""
    marks: Sequence[str] = ()


Element = Text | Lines | Sheet | Picture | Mosaic


@dataclass(frozen=True)
class Section:
    """A part of the page with a title, to which the navigation leads."""

    title: str
    elements: Sequence[Element]


def write_page(path: str | os.PathLike[str], heading: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write a page, one file of HTML, atomically; the same input gives the same bytes.

    All that is given is text: none of it is read as HTML. The page asks for nothing from elsewhere, and a content
    security policy keeps it so. Sorting and the switch of themes need JavaScript, nothing else does.

    Parameters
    ----------
    path: of the file.
    heading: of the page.
    lead: a paragraph below the heading.
    sections: the parts.

    Raises
    ------
    SettingsError: if something is not an element.
    """
    path = Path(path)
    write_text(path, _page(heading, lead, sections))
    return path


def _page(heading: str, lead: str, sections: Sequence[Section]) -> str:
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    writer, ids = _Writer(), [f"section-{i}" for i, _ in enumerate(sections, 1)]
    parts = [
        f'<section aria-labelledby="{i}">\n<h2 id="{i}">{_text(section.title)}</h2>\n'
        + "".join(writer.write(element) for element in section.elements)
        + "</section>\n"
        for i, section in zip(ids, sections, strict=True)
    ]
    links = "".join(f'<li><a href="#{i}">{_text(s.title)}</a></li>\n' for i, s in zip(ids, sections, strict=True))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{_text(heading)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n<script>{script}</script>\n</head>\n<body>\n"
        f'<header>\n<h1>{_text(heading)}</h1>\n<button type="button" id="theme" hidden></button>\n'
        f"{_paragraph('lead', lead)}</header>\n"
        + (f'<nav aria-label="Sections">\n<ol>\n{links}</ol>\n</nav>\n' if sections else "")
        + f"<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


class _Writer:
    """Writes elements, and counts tables and figures."""

    def __init__(self) -> None:
        self._tables = 0
        self._figures = 0

    def write(self, element: Element) -> str:
        match element:
            case Text():
                return _paragraph("text", element.text)
            case Lines():
                return _lines(element)
            case Sheet():
                self._tables += 1
                return _sheet(element, self._tables)
            case Picture():
                self._figures += 1
                return _picture(element, self._figures)
            case Mosaic():
                self._figures += 1
                return _mosaic(element, self._figures)
        raise SettingsError(f"a page has Text, Lines, Sheet, Picture and Mosaic, not {type(element).__name__}.")


def _lines(element: Lines) -> str:
    if not element.lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>\n" for line in element.lines)
    label = f'<p class="label">{LABELS[element.kind]}</p>'
    return f'<div class="lines {element.kind}">\n{label}\n<ul>\n{items}</ul>\n</div>\n'


def _sheet(sheet: Sheet, number: int) -> str:
    columns = range(len(sheet.columns))
    numeric = [all(_number(row[c]) or _empty(row[c]) for row in sheet.rows) for c in columns]
    heads = "".join(
        f'<th scope="col"{_NUMBER if is_numeric else ""}>{_text(name)}</th>'
        for name, is_numeric in zip(sheet.columns, numeric, strict=True)
    )
    body = ""
    for row in sheet.rows:
        cells = (_cell(row[c], sheet.formats[c], numeric[c], first=c == 0) for c in columns)
        body += f"<tr>{''.join(cells)}</tr>\n"
    name = f"table-{number}"
    return (
        f'<div class="sheet">\n<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">\n<table>\n'
        f'<caption><div id="{name}">{_caption(f"Table {number}", sheet.caption)}</div></caption>\n'
        f"<thead>\n<tr>{heads}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
        f"{_paragraph('fine', sheet.note)}</div>\n"
    )


def _cell(value: Cell, spec: str, numeric: bool, first: bool) -> str:
    tag, kind = ("th", ' scope="row"') if first else ("td", "")
    text = "" if _empty(value) else _text(_shown(value, spec))
    kind += _NUMBER if numeric else ' class="long"' if len(text) > LONG else ""
    if _number(value) and text:
        exact = repr(float(value)).replace("inf", "Infinity")  # as JavaScript reads it
        kind += f' data-value="{exact}"'
    return f"<{tag}{kind}>{text}</{tag}>"


def _number(value: Cell) -> TypeGuard[float]:
    return isinstance(value, Real)  # numpy's as well


def _empty(value: Cell) -> bool:
    return value is None or value == "" or (_number(value) and math.isnan(value))


def _shown(value: Cell, spec: str, place: str = "") -> str:
    if isinstance(value, str):
        return value
    try:
        return format(value, spec)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{place}: {value!r} cannot be written as '{spec}' ({error}).") from None


def _picture(picture: Picture, number: int) -> str:
    name = f"Figure {number}"
    label = f"{name}. {picture.caption}" if picture.caption else name
    drawing = to_svg(picture.figure, f"figure-{number}-", label)
    return _figure("picture", f'<div class="scroll">{drawing}</div>', name, picture.caption)


def _mosaic(mosaic: Mosaic, number: int) -> str:
    marks = dict.fromkeys([*mosaic.marks, *(tile.mark for tile in mosaic.tiles if tile.mark)])
    colour = {mark: f' style="--colour: {cycle_colour(i)}"' for i, mark in enumerate(marks)}
    items = ""
    for i, tile in enumerate(mosaic.tiles, 1):
        alt = _text(", ".join(filter(None, (tile.text, tile.mark))) or f"image {i}")
        source = base64.b64encode(tile_png(tile.image)).decode()
        items += f'<li{colour.get(tile.mark, "")}><img alt="{alt}" src="data:image/png;base64,{source}">'
        items += f'<span class="mark">{_text(tile.mark)}</span>' if tile.mark else ""
        items += (f"<span>{_text(tile.text)}</span>" if tile.text else "") + "</li>\n"
    return _figure("mosaic", f"<ul>\n{items}</ul>", f"Figure {number}", mosaic.caption)


def _figure(kind: str, content: str, name: str, caption: str) -> str:
    return f'<figure class="{kind}">\n{content}\n<figcaption>{_caption(name, caption)}</figcaption>\n</figure>\n'


def _caption(name: str, text: str) -> str:
    return f"<b>{name}.</b> {_text(text)}" if text else f"<b>{name}.</b>"


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{_text(text)}</p>\n' if text else ""


def _text(text: str) -> str:
    return html.escape(printable(text))


def _asset(name: str) -> str:
    text = resources.files("activelabel.evaluation").joinpath("assets", name).read_text(encoding="utf-8")
    # Nothing of it can end the element that it stands in.
    assert not re.search(r"</(style|script)|<!--", text)
    return text
