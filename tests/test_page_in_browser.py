"""The page of a report in a browser: a copy of it with a script that uses it as a reader does and tells what it saw."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from activelabel.evaluation.page import Lines, Mosaic, Picture, Section, Sheet, Text, Tile, write_page

SCRIPT = """
const seen = { errors: [] };
addEventListener("error", (e) => seen.errors.push(e.message ?? `not loaded: ${e.target.outerHTML}`), true);
addEventListener("securitypolicyviolation", (e) => seen.errors.push(`${e.violatedDirective} ${e.blockedURI}`));
if (STORAGE === "none") {
  Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });
}
addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const root = document.documentElement;
  const [table] = all("table");
  const heads = [...table.tHead.rows[0].cells];
  const state = (column) => {
    heads[column].querySelector("button").click();
    return { order: [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join(""),
             sorted: heads.map((head) => head.getAttribute("aria-sort")) };
  };
  const colours = () => ({
    page: getComputedStyle(root).backgroundColor, text: getComputedStyle(document.body).color,
    black: getComputedStyle(all('svg [style*="stroke: #000000"]')[0]).stroke,
    label: all("#theme")[0].textContent, shown: all("#theme")[0].checkVisibility(),
  });
  const toggled = () => { all("#theme")[0].click(); return colours(); };
  heads[1].querySelector("button").focus();
  const ids = all("[id]").map((element) => element.id);
  Object.assign(seen, {
    width: innerWidth, page: root.scrollWidth, tables: all(".sheet .scroll").map((b) => [b.clientWidth, b.scrollWidth]),
    focused: document.activeElement === heads[1].querySelector("button") && document.activeElement.type === "button",
    before: heads.map((head) => head.getAttribute("aria-sort")),
    numbers: [state(1), state(1), state(1)], mixed: [state(2), state(2)], ties: [state(3), state(3)], names: state(0),
    themes: [colours(), toggled(), toggled()],
    kept: STORAGE === "none" ? null : localStorage.getItem("activelabel-theme"),
    images: all("img").map((image) => [image.naturalWidth, image.width, image.height]),
    figures: all("svg").map((svg) => svg.getBoundingClientRect().width),
    missing: [...all("svg [href^='#'], nav a").map((a) => a.getAttribute("href").slice(1)),
              ...all("svg [clip-path]").map((clipped) => clipped.getAttribute("clip-path").slice(5, -1)),
             ].filter((id) => !ids.includes(id)),
    twice: ids.filter((id, place) => ids.indexOf(id) !== place),
    requests: performance.getEntriesByType("resource").map((e) => e.name).filter((name) => !name.startsWith("data:")),
    scripts: all("script").length, bold: all("b").map((b) => b.textContent),
  });
  parent.postMessage(JSON.stringify(seen), "*");
});
"""

# A window has a least width, a frame has not.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><pre></pre>
<script>addEventListener("message", (e) => { document.querySelector("pre").textContent = e.data; });</script>
<iframe src="copy.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>
"""


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on the path")


def line() -> Figure:
    figure = Figure(figsize=(8, 2))
    axis = figure.subplots()
    axis.plot([0, 1, 2], marker="o")
    return figure


def report(path: Path) -> Path:
    rows: list[list[Any]] = [
        ["a", 10.0, "x10", 1],
        ["b", 9.0, None, 1],
        ["c", None, 3, 0],
        ["d", 0.002, "x9", 1],
        ["e", 0.001, -20, 0],
        ["f", -1.5, 100, 1],
        ["g", float("inf"), "", 0],
        ["h", float("nan"), "X1", 0],
    ]
    # By what is shown, 10 stands before 9 and 0.001 beside 0.002.
    sheet = Sheet(["name", "number", "mixed", "ties"], rows, ["", ".2f", "", ""], "caption")
    wide = Sheet([f"column {i}" for i in range(30)], [list(range(30))], [""] * 30, "a caption of a wide table " * 9)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    sections = [
        Section("<b>first</b>", [Lines(["word" * 60], "warning"), Text("text"), sheet, wide]),
        Section("second", [Picture(line(), "<i>"), Picture(line()), Mosaic([Tile(i, "text", "mark") for i in images])]),
    ]
    return write_page(path, "a heading " * 9, "lead", sections)


def look(tmp_path: Path, width: int, *, dark: bool, storage: str) -> dict[str, Any]:
    page = report(tmp_path / "report.html").read_text(encoding="utf-8")
    # Before the policy, which would refuse it.
    script = f'<head><script>"use strict"; const STORAGE = "{storage}"; {SCRIPT}</script>'
    (tmp_path / "copy.html").write_text(page.replace("<head>", script, 1), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [browser(), "--headless", "--disable-gpu", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search("<pre>(.+?)</pre>", done.stdout, flags=re.DOTALL)
    assert found, f"the script did not end: {done.stderr[-2000:]}"
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    seen["console"] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return seen


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look(tmp_path_factory.mktemp("narrow"), 400, dark=False, storage="none")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look(tmp_path_factory.mktemp("wide"), 1280, dark=True, storage="some")


@pytest.mark.parametrize("size", ["narrow", "wide"])
def test_nothing_fails_and_nothing_is_requested(size: str, request: pytest.FixtureRequest) -> None:
    seen = request.getfixturevalue(size)
    assert seen["errors"] == seen["console"] == seen["requests"] == []
    assert seen["missing"] == seen["twice"] == []
    assert seen["scripts"] == 2  # that of the page and that of the test
    assert "first" not in seen["bold"]


def test_tables_sort(narrow: dict[str, Any]) -> None:
    assert narrow["focused"]
    assert narrow["before"] == ["none"] * 4
    up, down, again = narrow["numbers"]
    assert up == {"order": "fedbagch", "sorted": ["none", "ascending", "none", "none"]}
    assert down == {"order": "gabdefch", "sorted": ["none", "descending", "none", "none"]}
    assert again == up
    # Numbers before text, text by the numbers in it, empty cells last; those keep the order that they had.
    up, down = narrow["mixed"]
    assert up["order"] == "ecfhda" + "bg"
    assert down["order"] == "adhfce" + "bg"
    # Rows that are equal keep the order of before, in both directions.
    up, down = narrow["ties"]
    assert up["order"] == "hceg" + "adfb"
    assert down["order"] == "adfb" + "hceg"
    assert narrow["names"]["order"] == "abcdefgh"
    assert narrow["names"]["sorted"] == ["ascending", "none", "none", "none"]


@pytest.mark.parametrize("size", ["narrow", "wide"])
def test_the_page_never_scrolls_sideways(size: str, request: pytest.FixtureRequest) -> None:
    seen = request.getfixturevalue(size)
    assert seen["width"] == {"narrow": 400, "wide": 1280}[size]
    assert seen["page"] <= seen["width"]
    client, scroll = seen["tables"][1]
    assert client < seen["width"]
    assert scroll > client  # the box of the table does
    (natural, *_), sides = seen["images"][0], {tuple(sides) for _, *sides in seen["images"]}
    assert natural == 160
    assert len(sides) == 1
    assert len(set(*sides)) == 1  # squares


def test_figures_shrink_to_a_readable_size(narrow: dict[str, Any], wide: dict[str, Any]) -> None:
    assert wide["figures"] == [768] * 2  # 8 inches
    assert narrow["figures"] == pytest.approx([0.62 * 768] * 2, abs=1)


def test_themes(narrow: dict[str, Any], wide: dict[str, Any]) -> None:
    light, dark, back = narrow["themes"]  # a page that can remember nothing
    assert back == light
    assert light == {
        "page": "rgb(255, 255, 255)",
        "text": "rgb(27, 31, 36)",
        "black": "rgb(0, 0, 0)",
        "label": "Dark theme",
        "shown": True,
    }
    assert dark == {
        "page": "rgb(20, 23, 27)",
        "text": "rgb(230, 232, 235)",
        "black": "rgb(230, 232, 235)",
        "label": "Light theme",
        "shown": True,
    }
    assert wide["themes"] == [dark, light, dark]  # the system's theme is dark
    assert wide["kept"] == "dark"
