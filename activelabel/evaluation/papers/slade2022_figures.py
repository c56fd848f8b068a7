"""Figures 1, 2 and 4 of Slade & Branson 2022, and the times of Table 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from activelabel.evaluation.papers.outcome import Band
from activelabel.evaluation.papers.slade2022_numbers import AGENT, OTHERS, PAPER_TABLE_2
from activelabel.evaluation.report import title

LARGER = "larger DDQN"
"""What Figure 2 adds."""

Curves = Mapping[str, tuple[Sequence[int], Band]]
"""By strategy the labels at the points of a curve, and the curve."""

_PLACES = {
    name: place for place, name in enumerate((AGENT, LARGER, "random", *(name for name in OTHERS if name != "random")))
}
_STYLES = ("-", "-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def draw_curves(curves: Mapping[str, Curves], only: Sequence[str] = ()) -> Figure:
    """Draw a column for each data set: all strategies, and below, where ``only`` is given, those alone."""
    rows = [tuple(dict.fromkeys(name for found in curves.values() for name in found))]
    rows += [tuple(only)] if only else []
    figure = Figure(figsize=(5.4 * len(curves), 3.9 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(curves), squeeze=False)
    for line, names in zip(axes, rows, strict=True):
        for axis, (data, found) in zip(line, curves.items(), strict=True):
            axis.set(title=data, xlabel="labels", ylabel="accuracy on the test set")
            for name in [name for name in names if name in found]:
                _curve(axis, name, *found[name], place=_PLACES.get(name, len(_PLACES) + rows[0].index(name)))
            if axis.lines:
                axis.legend(fontsize=8, ncols=2, loc="lower right")
            else:
                axis.text(0.5, 0.5, "not measured here", ha="center", va="center", transform=axis.transAxes)
    return figure


def _curve(axis: Any, name: str, labels: Sequence[int], band: Band, place: int) -> None:
    colour = matplotlib.colormaps["tab10"].colors[place % 10]  # type: ignore[attr-defined]
    width = 2.2 if name in (AGENT, LARGER) else 1.3
    axis.fill_between(labels, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
    style = _STYLES[place % len(_STYLES)]
    axis.plot(labels, band.mean, color=colour, linewidth=width, linestyle=style, label=title(name))


def draw_table_2(accuracy: Mapping[int, Band], shares: Mapping[int, float]) -> Figure:
    """Draw accuracy (left) and training time as a share of N = 1's (right) against N, ours and the paper's.

    Parameters
    ----------
    accuracy: by N, bands of one point.
    shares: by N.
    """
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    ours, theirs = (matplotlib.colormaps["tab10"].colors[i] for i in (0, 7))  # type: ignore[attr-defined]
    means = [float(band.mean[0]) for band in accuracy.values()]
    halves = [float(band.high[0] - band.low[0]) / 2 for band in accuracy.values()]
    left.errorbar(list(accuracy), means, halves, fmt="o-", color=ours, capsize=3, label="here")
    paper = list(PAPER_TABLE_2)
    values, errors, seconds = zip(*PAPER_TABLE_2.values(), strict=True)
    left.errorbar(paper, values, errors, fmt="s--", color=theirs, capsize=3, label="paper")
    right.plot(list(shares), list(shares.values()), "o-", color=ours, label="here")
    right.plot(paper, [spent / seconds[0] for spent in seconds], "s--", color=theirs, label="paper")
    right.axhline(1, color="0.5", linewidth=0.8)
    left.set(title="accuracy with 50 labels", ylabel="accuracy on the test set")
    right.set(title="training time", ylabel="share of N = 1", yscale="log")
    right.minorticks_off()
    right.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    for axis in (left, right):
        axis.set(xlabel="labels a step, N")
        axis.set_xticks(paper)
        axis.legend(fontsize=8)
    return figure
