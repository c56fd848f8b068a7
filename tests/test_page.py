"""The page of a report: what is in the file, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from activelabel.errors import ActiveLabelError, DataError, SettingsError
from activelabel.evaluation.inline import CONTRAST, INK, PAPER, TILE, contrast, cycle_colour, on_dark, tile_png
from activelabel.evaluation.page import Element, Lines, Mosaic, Picture, Section, Sheet, Text, Tile, write_page

EVIL = "<script>alert('1')</script> & \"quoted\" \x00\udcff"
SHOWN = "<script>alert('1')</script> & \"quoted\" \ufffd\ufffd"
VOID = {"meta", "link", "img"}


class Parsed(HTMLParser):
    """Elements of a page: each its name, attributes and the text inside; refuses what is not well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        text: list[str] = []
        self.found.append((tag, dict(attrs), text))
        if tag not in VOID:
            self._open.append((tag, text))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, text in self._open:
            text.append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        return [(a, "".join(t)) for name, a, t in self.found if name == tag and wanted.items() <= a.items()]

    def texts(self, tag: str) -> list[str]:
        return [text for _, text in self.all(tag)]


def line() -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1, 2], marker="o", label=EVIL)
    axis.plot([0, 1, 2], color="#000080")
    axis.legend().get_texts()[0].set_parse_math(False)
    return figure


def page(path: Path, *elements: Element) -> Parsed:
    return Parsed(write_page(path / "report.html", "heading", "lead", [Section("part", elements)]).read_text("utf-8"))


def everything() -> list[Section]:
    tiles = [Tile(np.full((8, 8), 9, dtype=np.uint8), EVIL, EVIL), Tile(np.zeros((3, 4, 3), dtype=np.uint8))]
    sheet = Sheet([EVIL, "n"], [[EVIL, 1.5], ["", None]], ["", ".2f"], EVIL, EVIL)
    return [
        Section(EVIL, [Text(EVIL), *(Lines([EVIL, EVIL], kind) for kind in ("verdict", "warning", "note"))]),
        Section("second", [sheet, Picture(line(), EVIL), Picture(line()), Mosaic(tiles, EVIL), Lines([])]),
    ]


def test_text_is_never_read_as_html(tmp_path: Path) -> None:
    parsed = Parsed(write_page(tmp_path / "a.html", EVIL, EVIL, everything()).read_text("utf-8"))
    assert len(parsed.all("script")) == 1
    assert parsed.texts("title") == parsed.texts("h1") == [SHOWN]
    assert parsed.texts("h2") == [SHOWN, "second"]
    assert [text for _, text in parsed.all("p")].count(SHOWN) == 3  # lead, text, note of the table
    assert parsed.texts("caption") == [f"Table 1. {SHOWN}"]
    assert parsed.texts("figcaption") == [f"Figure 1. {SHOWN}", "Figure 2.", f"Figure 3. {SHOWN}"]
    assert [a["aria-label"] for a, _ in parsed.all("svg")] == [f"Figure 1. {SHOWN}", "Figure 2"]
    assert [a["alt"] for a, _ in parsed.all("img")] == [f"{SHOWN}, {SHOWN}", "image 2"]
    # The labels of matplotlib are text in the page.
    assert parsed.texts("text").count(SHOWN) == 2


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = write_page(tmp_path / "a.html", "heading", "lead", everything()).read_text("utf-8")
    parsed, links = Parsed(text), []
    for tag, attributes, _ in parsed.found:
        assert not {name for name in attributes if name.startswith("on")}
        links += [(tag, attributes[name]) for name in ("src", "href", "srcset", "action", "data") if name in attributes]
    anchors = {str(link)[1:] for _, link in links if not str(link).startswith("data:")}
    ids = [str(attributes["id"]) for _, attributes, _ in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert anchors <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")
    (policy,) = (a["content"] for a, _ in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    ((_, script),) = parsed.all("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert str(policy).startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in str(policy)


def test_structure(tmp_path: Path) -> None:
    parsed = Parsed(write_page(tmp_path / "a.html", "heading", "lead", everything()).read_text("utf-8"))
    assert parsed.all("html", lang="en")
    assert len(parsed.all("h1")) == len(parsed.all("main")) == len(parsed.all("nav")) == 1
    links = [(a["href"], text) for a, text in parsed.all("a")]
    assert links == [("#section-1", SHOWN), ("#section-2", "second")]
    assert [a["id"] for a, _ in parsed.all("h2")] == ["section-1", "section-2"]
    assert len(parsed.all("th", scope="col")) == len(parsed.all("th", scope="row")) == 2
    assert [text.split()[0] for a, text in parsed.all("div") if "lines" in str(a.get("class"))] == [
        "Verdict",
        "Warning",
        "Note",
    ]
    assert not Parsed(write_page(tmp_path / "b.html", "heading", "", []).read_text("utf-8")).all("nav")


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    sections = everything()
    first = write_page(tmp_path / "a.html", "heading", "lead", sections).read_bytes()
    assert write_page(tmp_path / "b.html", "heading", "lead", sections).read_bytes() == first  # the same figures
    assert write_page(tmp_path / "c.html", "heading", "lead", everything()).read_bytes() == first
    assert write_page(tmp_path / "c.html", "heading", "lead", everything()[:1]).read_bytes() != first


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_page(tmp_path / "a.html", "heading", "lead", [])
    before = path.read_bytes()
    wrong: Any = "no element"
    with pytest.raises(SettingsError, match="not str"):
        write_page(path, "heading", "lead", [Section("part", [wrong])])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_cells(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["a", 0.12345678901234566, np.float32(0.5), "x"],
        ["b", None, float("nan"), 3],
        ["c", -1e-9, float("-inf"), None],
        ["d" * 61, True, np.int64(7), ""],
    ]
    parsed = page(tmp_path, Sheet(["name", "p", "q", "mixed"], rows, ["", "+.3f", "", ""]))
    assert [a.get("class") for a, _ in parsed.all("th", scope="col")] == [None, "number", "number", None]
    cells = [(a.get("data-value"), text) for a, text in parsed.all("td")]
    assert cells == [
        ("0.12345678901234566", "+0.123"),
        ("0.5", "0.5"),
        (None, "x"),
        (None, ""),
        (None, ""),
        ("3.0", "3"),
        ("-1e-09", "-0.000"),
        ("-Infinity", "-inf"),
        (None, ""),
        ("1.0", "+1.000"),
        ("7.0", "7"),
        (None, ""),
    ]
    assert [a.get("class") for a, _ in parsed.all("th", scope="row")] == [None, None, None, "long"]


def test_figures_in_both_themes(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 2))
    axis = figure.subplots()
    axis.imshow([[0, 1], [2, 3]])
    axis.plot([0, 1], color="#000080")
    parsed = page(tmp_path, Picture(line()), Picture(figure))
    drawn, plain = (a for a, _ in parsed.all("svg"))
    assert "class" not in drawn
    assert plain["class"] == "plain"  # its colours are values
    assert {"width", "height"}.isdisjoint(drawn)
    assert drawn["style"] == "--width: 288px"
    styles = [str(a["style"]) for _, a, _ in parsed.found if "style" in a]
    navy = [style for style in styles if "#000080" in style]
    assert any(f"stroke: #000080; stroke: light-dark(#000080, {on_dark('#000080')})" in style for style in navy)
    assert any("light-dark" not in style for style in navy)
    assert not [style for style in styles if "font-family" in style]


def test_colours_of_the_dark_theme() -> None:
    def rgb(colour: str) -> list[int]:
        return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)  # by the calculator of WebAIM
    for i in range(10):
        light, dark = re.findall("#[0-9a-f]{6}", cycle_colour(i))
        assert contrast(rgb(dark), PAPER) >= 4.4  # the grey turns round
        assert light == dark or contrast(rgb(light), PAPER) < CONTRAST
    assert cycle_colour(10) == cycle_colour(0)
    assert rgb(on_dark("#000000")) == list(INK)
    assert rgb(on_dark("#ffffff")) == list(PAPER)
    assert contrast(rgb(on_dark("#00000a")), PAPER) >= CONTRAST
    style = resources.files("activelabel.evaluation").joinpath("assets", "report.css").read_text("utf-8")
    for name, colour in (("ink", INK), ("paper", PAPER)):
        assert re.search(rf"--{name}: light-dark\(#\w+, #{bytes(colour).hex()}\)", style)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((8, 8), (160, 160)),
        ((28, 28, 1), (140, 140)),
        ((3, 4, 3), (160, 120)),
        ((320, 160), (80, 160)),
        ((1, 900), (160, 1)),
    ],
)
def test_tiles_have_one_size(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    shown = Image.open(io.BytesIO(tile_png(image)))
    assert shown.size == size
    if max(shape) <= TILE:
        times = size[1] // shape[0]
        np.testing.assert_array_equal(np.asarray(shown)[times // 2 :: times, times // 2 :: times], image.squeeze())


def test_marks_keep_their_colours(tmp_path: Path) -> None:
    def tiles(*marks: str) -> list[Tile]:
        return [Tile(np.zeros((2, 2), dtype=np.uint8), "", mark) for mark in marks]

    parsed = page(
        tmp_path, Mosaic(tiles("positive", ""), "", ("negative", "positive")), Mosaic(tiles("new", "positive"))
    )
    styles = [a.get("style") for a, text in parsed.all("li") if not text.startswith("part")]
    colour = [f"--colour: {cycle_colour(i)}" for i in (0, 1)]
    assert styles == [colour[1], None, colour[0], colour[1]]
    assert [text for a, text in parsed.all("span")] == ["positive", "new", "positive"]


@pytest.mark.parametrize(
    ("columns", "rows", "formats", "message"),
    [
        ([], [], [], "at least one column"),
        (["a", "b"], [[1, 2], [1]], ["", ""], "row 1 has 1 values for the 2 columns"),
        (["a", "b"], [[1, 2]], [""], "1 formats for the 2 columns a, b"),
        (["a"], [[1.5]], ["d"], "row 0, column 'a': 1.5 cannot be written as 'd'"),
        (["a"], [[[1]]], [".3f"], r"row 0, column 'a': \[1\] cannot be written"),
    ],
)
def test_tables_that_are_refused(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], formats: Sequence[str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Sheet(columns, rows, formats)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 2), np.uint8), [[1]]]
)
def test_images_that_are_refused(image: Any) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(H, W\)"):
        Tile(image)


def test_kinds_of_lines() -> None:
    with pytest.raises(ActiveLabelError, match="Did you mean 'warning'"):
        Lines(["a"], "warnings")
