"""Pools as maps and images as pictures: what frames of episodes and pages of results are drawn with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from activelabel.envs.rendering import Bars, Curve, Scene
from activelabel.errors import DataError
from activelabel.seeding import stream

Points = NDArray[np.float64]

# -- maps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plane:
    """The first two principal components of points.

    Of each component the largest coefficient is positive, so that nothing is left to chance.

    Parameters
    ----------
    centre: float64 ``(d,)``, the mean.
    axes: float64 ``(2, d)``, 0 where there is but one component.
    shares: of the variance, 0 to 1.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: tuple[float, float]

    @classmethod
    def fit(cls, points: NDArray[Any]) -> Plane:
        """Fit on points, float ``(n, d)``, finite."""
        centre = points.mean(axis=0, dtype=np.float64)
        _, size, axes = np.linalg.svd(points.astype(np.float64) - centre, full_matrices=False)
        axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
        variance, here = size**2, min(2, len(axes))
        total = variance.sum()
        shown, shares = np.zeros((2, points.shape[1])), np.zeros(2)
        shown[:here] = axes[:here]
        shares[:here] = variance[:here] / total if total > 0 else 0.0
        return cls(centre, shown, (float(shares[0]), float(shares[1])))

    def places(self, points: NDArray[Any]) -> Points:
        """Return where points ``(n, d)`` lie in the plane, float64 ``(n, 2)``."""
        found: Points = (points.astype(np.float64) - self.centre) @ self.axes.T
        return found


def principal_components(points: NDArray[Any]) -> tuple[Points, tuple[float, float]]:
    """Return the first two principal components of points, and their shares of the variance; see :class:`Plane`.

    Parameters
    ----------
    points: float ``(n, d)``, finite.

    Returns
    -------
    float64 ``(n, 2)``, the second column 0 where there is but one component; and two shares, 0 to 1.
    """
    plane = Plane.fit(points)
    return plane.places(points), plane.shares


class Umap:
    """Points of a plane that are near each other where the given ones are (UMAP, by umap-learn).

    It starts from the :class:`Plane` and is the same every time; how far groups are from each other means little.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def fit(cls, points: NDArray[Any]) -> Umap:
        """Fit on points, float ``(n, d)``, finite, at least three."""
        with warnings.catch_warnings():  # that it has no Tensorflow, which nothing here needs
            warnings.simplefilter("ignore", ImportWarning)
            from umap import UMAP
        start = Plane.fit(points).places(points)
        seed = int(stream(0, "umap").integers(2**31))
        model = UMAP(
            n_neighbors=min(15, len(points) - 1),
            init=start if start.any(axis=0).all() else "random",
            random_state=seed,
            transform_seed=seed,
            n_jobs=1,
        )
        return cls(model.fit(points))

    def places(self, points: NDArray[Any]) -> Points:
        """Return where points ``(n, d)`` lie, float64 ``(n, 2)``."""
        found: Points = self._model.transform(points).astype(np.float64)
        return found


def class_colour(label: int) -> Any:
    """Return the colour of a class; after ten they come again."""
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    return colours[label % len(colours)]


def as_map(axis: Axes) -> None:
    """Take the ticks from a map's axes, which have no unit."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_color("0.8")


# -- images --------------------------------------------------------------------------------------------------------


def to_uint8(image: Any) -> NDArray[np.uint8]:
    """Return an image as uint8 ``(H, W)`` or ``(H, W, 3)``, to be looked at.

    Values of other dtypes are scaled: from 0 to 1 where they are floats in that range or booleans, else by their own
    range; what is not finite becomes 0. Of four channels the first three are shown, of other than
    1 or 3 the mean.

    Raises
    ------
    DataError: if it is not ``(H, W)`` or ``(H, W, C)``, or empty.
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise DataError(f"an image of shape {pixels.shape}; expected (H, W) or (H, W, C).")
    if pixels.dtype != np.uint8:
        values = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        if pixels.dtype.kind in "bf" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        pixels = np.round((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        pixels = pixels[:, :, :3] if pixels.shape[2] == 4 else np.round(pixels.mean(axis=2)).astype(np.uint8)
    return pixels


LARGEST, FRAME, GAP = 132, 4, 4
"""Pixels of a tile's side at most, of the colour around its image, and between tiles."""


def mosaic(images: Sequence[Any], labels: Sequence[int], width: int, height: int) -> NDArray[np.uint8]:
    """Return images side by side, each framed in the colour of its class, uint8 ``(height, width, 3)``.

    The tiles are as large as the place allows; each image keeps its proportions.
    """
    sheet = Image.new("RGB", (width, height), "white")
    n = len(images)
    sides = {columns: min(width // columns, height // -(-n // columns), LARGEST + GAP) for columns in range(1, n + 1)}
    columns = max(sides, key=lambda count: sides[count], default=1)
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(place, columns)
        side = sides[columns] - GAP
        colour = tuple(round(255 * part) for part in class_colour(label))
        tile, inner = Image.new("RGB", (side, side), colour), side - 2 * FRAME
        shown = Image.fromarray(to_uint8(image).squeeze()).convert("RGB")
        scale = inner / max(shown.size)
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        # Large pixels stay square; shrinking is antialiased.
        shown = shown.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR)
        tile.paste("black", (FRAME, FRAME, side - FRAME, side - FRAME))
        tile.paste(shown, ((side - size[0]) // 2, (side - size[1]) // 2))
        sheet.paste(tile, (column * (side + GAP), row * (side + GAP)))
    return np.asarray(sheet)


# -- frames --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, DPI = 960, 540, 100
"""Of a frame, in pixels (even, as video codecs want them), and pixels to the inch."""

LEGEND = 10
"""Classes that are named below the map, at most: after that many the colours come again."""

LONGEST = 13
"""Letters of a class's name that are shown, at most."""

INK, QUIET = "0.15", "0.45"

_MAP = (16, 72, 516, 404)
"""Left, bottom, width and height in pixels."""

_CURVE, _WHOLE = (610, 312, 330, 164), (610, 72, 330, 404)
_IMAGES = (556, 20, 390, 216)


class Screen:
    """A figure on which scenes are drawn, one after the other.

    Parameters
    ----------
    window: show it in a window of matplotlib's backend; one without windows, such as Agg, draws and shows nothing.
    """

    def __init__(self, *, window: bool = False) -> None:
        style: dict[str, Any] = {"figsize": (WIDTH / DPI, HEIGHT / DPI), "dpi": DPI, "facecolor": "white"}
        if window:
            from matplotlib import pyplot  # late: it chooses a backend

            self.figure = pyplot.figure(**style)
        else:
            self.figure = Figure(**style)
            FigureCanvasAgg(self.figure)
        self._lasting: tuple[Any, ...] = ()

    def frame(self, scene: Scene) -> NDArray[np.uint8]:
        """Return a scene as pixels, uint8 ``(HEIGHT, WIDTH, 3)``; the same scene gives the same."""
        self._draw(scene)
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()  # type: ignore[no-untyped-call]
        return pixels

    def show(self, scene: Scene, seconds: float) -> None:
        """Show a scene in the window for some seconds; nothing where someone has closed it."""
        from matplotlib import pyplot

        if not pyplot.fignum_exists(self.figure.number):
            return
        self._draw(scene)
        manager = self.figure.canvas.manager
        if manager is not None and type(manager).show is not FigureManagerBase.show:
            manager.show()
            self.figure.canvas.start_event_loop(seconds)

    def close(self) -> None:
        """Close the window, if there is one, and free the figure."""
        if self.figure.canvas.manager is not None:
            from matplotlib import pyplot

            pyplot.close(self.figure)
        self.figure.clear()

    def _draw(self, scene: Scene) -> None:
        lasting = (scene.names, scene.bounds, scene.images is None, *scene.panel.lasting())
        if lasting != self._lasting:  # axes and their ticks take longest: they stay for as long as they can
            self._arrange(scene)
            self._lasting = lasting
        self._title.set_text(scene.title)
        self._status.set_text(scene.status)
        for part in self._parts:
            part.update(scene)
        self.figure.canvas.draw()

    def _arrange(self, scene: Scene) -> None:
        self.figure.clear()
        self._title = _text(self.figure, 16, 512, 12, INK)
        self._status = _text(self.figure, 16, 489, 10, QUIET)
        panel = self._axes(_WHOLE if scene.images is None else _CURVE)
        self._parts: list[_Part] = [
            _Map(self._axes(_MAP), scene),
            _CurvePanel(panel, scene.panel) if isinstance(scene.panel, Curve) else _BarsPanel(panel, scene.panel),
        ]
        if scene.images is not None:
            self._parts.append(_Tiles(self.figure, self._axes(_IMAGES)))

    def _axes(self, place: tuple[int, int, int, int]) -> Axes:
        left, bottom, width, height = place
        return self.figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def _text(figure: Figure, x: int, y: int, size: int, colour: str) -> Text:
    return figure.text(x / WIDTH, y / HEIGHT, "", fontsize=size, color=colour, parse_math=False)


class _Part(Protocol):
    """A part of the figure whose axes stay while what they show changes."""

    def update(self, scene: Scene) -> None: ...


class _Map:
    def __init__(self, axis: Axes, scene: Scene) -> None:
        def dots(size: float, **style: Any) -> Line2D:
            return axis.plot([], [], "o", ms=size, **style)[0]

        self.unlabelled = dots(3.5, color="0.78", mew=0)
        self.classes = [dots(7.5, color=class_colour(label), mec="white", mew=0.7) for label in range(len(scene.names))]
        self.fresh = dots(13, mfc="none", mec=INK, mew=1.4)
        as_map(axis)
        axis.set(xlim=scene.bounds[0], ylim=scene.bounds[1])
        named = {"unlabelled": self.unlabelled, "just labelled": self.fresh}
        if len(scene.names) <= LEGEND:
            named |= dict(zip(scene.names, self.classes, strict=True))
        names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in named]
        legend = axis.legend(
            list(named.values()),
            names,
            loc="upper left",
            bbox_to_anchor=(-0.01, -0.01),
            ncols=_columns(names),
            frameon=False,
            fontsize=8.5,
            handletextpad=0.2,
            columnspacing=1.2,
            labelcolor=INK,
        )
        legend.legend_handles[1].set_markersize(9)  # type: ignore[union-attr]  # a line
        for text in legend.get_texts():
            text.set_parse_math(False)

    def update(self, scene: Scene) -> None:
        self.unlabelled.set_data(*scene.places[scene.classes < 0].T)
        for label, dots in enumerate(self.classes):
            dots.set_data(*scene.places[scene.classes == label].T)
        self.fresh.set_data(*scene.places[scene.fresh].T)


def _columns(names: Sequence[str]) -> int:
    """Return how many columns of a legend fit below the map, by what a letter and a mark take in pixels, about."""
    for columns in range(6, 1, -1):
        parts = np.array_split(np.array([len(name) for name in names]), columns)
        if sum(34 + 7 * part.max(initial=0) for part in parts) <= _MAP[2]:
            return columns
    return 1


def _as_panel(axis: Axes, name: str) -> None:
    axis.set_title(name, fontsize=9, color=QUIET, loc="left")
    axis.tick_params(labelsize=8, colors=QUIET)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("0.8")


class _CurvePanel:
    def __init__(self, axis: Axes, curve: Curve) -> None:
        (self.line,) = axis.plot([], [], "-o", color=INK, ms=3.5, lw=1.5, clip_on=False)
        (self.end,) = axis.plot([], [], "o", color=INK, ms=7, clip_on=False)
        axis.set(xlim=(0, curve.budget), ylim=(0, 1), yticks=np.linspace(0, 1, 6))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
        axis.set_xlabel("labels spent", fontsize=8.5, color=QUIET, labelpad=2)
        _as_panel(axis, curve.name)

    def update(self, scene: Scene) -> None:
        assert isinstance(scene.panel, Curve)
        labels, quality = scene.panel.labels, scene.panel.quality
        self.line.set_data(labels, quality)
        self.end.set_data(labels[-1:], quality[-1:])


class _BarsPanel:
    def __init__(self, axis: Axes, bars: Bars) -> None:
        n = len(bars.values)
        places = np.arange(n)[::-1]
        self.bars = axis.barh(places, np.zeros(n), 0.5, color=[INK, *["0.72"] * (n - 1)]).patches
        self.texts = [axis.text(0, place, "", va="center", fontsize=9, color=INK) for place in places]
        axis.set(xlim=(0, 1.12), ylim=(-0.6, n - 0.4), xticks=np.linspace(0, 1, 6), yticks=places)
        axis.set_yticklabels(list(bars.values))
        _as_panel(axis, bars.name)

    def update(self, scene: Scene) -> None:
        assert isinstance(scene.panel, Bars)
        for bar, text, value in zip(self.bars, self.texts, scene.panel.values.values(), strict=True):
            bar.set_width(value or 0.0)
            text.set(x=(value or 0.0) + 0.015, text="" if value is None else f"{value:.3f}")


class _Tiles:
    def __init__(self, figure: Figure, axis: Axes) -> None:
        axis.set_axis_off()
        self.above = _text(figure, 556, 246, 9, QUIET)
        *_, width, height = _IMAGES
        self.sheet = axis.imshow(np.zeros((height, width, 3), np.uint8), interpolation="none", aspect="auto")

    def update(self, scene: Scene) -> None:
        assert scene.images is not None
        n, shown = len(scene.fresh), len(scene.images)
        self.above.set_text(f"Just labelled: {n or 'none'}" + (f", the first {shown}" if shown < n else ""))
        *_, width, height = _IMAGES
        self.sheet.set_data(mosaic(scene.images, scene.classes[scene.fresh[:shown]].tolist(), width, height))
