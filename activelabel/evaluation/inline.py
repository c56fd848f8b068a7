"""Figures and images in a form that stands inside of a page."""

from __future__ import annotations

import colorsys
import copy
import io
import re
import warnings
from collections.abc import Sequence
from functools import cache
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

TILE = 160
"""Pixels of the longer side of an image in a page, at most; twice what a screen of low resolution shows."""

INK, PAPER = (0xE6, 0xE8, 0xEB), (0x14, 0x17, 0x1B)
"""Text and background of the dark theme, as in ``report.css``."""

CONTRAST = 4.5
"""Of colours with the dark background, at least."""

# Control characters, halves of surrogate pairs and what is no character: HTML and XML have no way to write them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_REFERENCE = re.compile(r"url\(#")
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def printable(text: str) -> str:
    """Return text with a replacement character for each character that HTML cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Return a figure as an ``svg`` element to stand in HTML; the same figure gives the same text.

    Text stays text, in the page's font. Backgrounds are transparent, and each colour has a second one for the dark
    theme. A figure with an image or a mesh, whose values are read from colours, stays as it is, on white.

    Parameters
    ----------
    figure: the figure.
    prefix: of all ids, so that those of several figures in a page differ.
    label: what is read out.
    """
    plain = bool(figure.findobj(AxesImage) or figure.findobj(QuadMesh))
    # A copy, since each drawing moves what a layout engine places a little further.
    figure, stream = copy.deepcopy(figure), io.StringIO()
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    with matplotlib.rc_context({"svg.hashsalt": "activelabel", "svg.fonttype": "none"}), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=not plain)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _attribute(_local(key), value, prefix, plain) for key, value in element.items()}
        if element.tag not in ("text", "tspan"):
            element.text = element.tail = None
    width = float(root.attrib.pop("width").removesuffix("pt")) * 4 / 3
    del root.attrib["height"]
    # A name of its own for the width, since the least width depends on it.
    root.attrib |= {"role": "img", "aria-label": printable(label), "style": f"--width: {width:.0f}px"}
    if plain:
        root.set("class", "plain")
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _attribute(name: str, value: str, prefix: str, plain: bool) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else re.sub(r"\s", "", value)
    value = _REFERENCE.sub(f"url(#{prefix}", value)
    return _style(value, plain) if name == "style" else value


def _style(style: str, plain: bool) -> str:
    declarations = []
    for declaration in style.split("; "):
        name, _, value = declaration.partition(": ")
        if name == "font-family":
            continue
        declarations.append(declaration)
        if _COLOUR.fullmatch(value) and not plain:
            # After the plain one, for browsers that do not know light-dark().
            declarations.append(f"{name}: light-dark({value}, {on_dark(value)})")
    return "; ".join(declarations)


@cache
def on_dark(colour: str) -> str:
    """Return the colour ``#rrggbb`` that stands for another in the dark theme.

    Greys change places, from the dark theme's ink for black to its background for white; other colours get lighter,
    with the same hue, until their contrast with the background is :data:`CONTRAST`.
    """
    rgb: list[float] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    if max(rgb) - min(rgb) <= 8:
        share = 1 - sum(rgb) / 765
        return _hex([share * ink + (1 - share) * paper for ink, paper in zip(INK, PAPER, strict=True)])
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in rgb))
    while contrast(rgb, PAPER) < CONTRAST:
        light = min(light + 0.01, 1.0)
        rgb = [round(255 * value) for value in colorsys.hls_to_rgb(hue, light, saturation)]
    return _hex(rgb)


def cycle_colour(index: int) -> str:
    """Return a colour of matplotlib's default cycle for both themes, as CSS."""
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    colour = to_hex(colours[index % len(colours)])
    return f"light-dark({colour}, {on_dark(colour)})"


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the contrast of two colours ``(r, g, b)`` of 0 to 255: 1 to 21, as WCAG 2 defines it."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: Sequence[float]) -> float:
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.asarray(rgb) / 255)
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def _hex(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{round(value):02x}" for value in rgb)


def tile_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` as PNG, its longer side near :data:`TILE` pixels.

    Small images are enlarged by whole numbers, each pixel to a square; large ones shrink, antialiased.
    """
    shown = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    width, height = shown.size
    longer = max(width, height)
    if longer <= TILE:
        times = TILE // longer
        shown = shown.resize((width * times, height * times), Image.Resampling.NEAREST)
    else:
        less = TILE / longer
        size = max(1, round(width * less)), max(1, round(height * less))
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, format="png", optimize=True)
    return stream.getvalue()
