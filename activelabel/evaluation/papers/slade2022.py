"""Slade & Branson 2022: Figures 1, 2 and 4, Table 2, and what their text says of them.

Table 1 and Figure 3, corrupted images, have a command of their own: ``python -m benchmarks.corruption``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from activelabel.evaluation.page import Element, Picture, Section, Sheet, Text
from activelabel.evaluation.papers.claims import MISSING, UNCORRECTED, direction, lines
from activelabel.evaluation.papers.outcome import (
    Band,
    Found,
    Measure,
    Outcome,
    after,
    area,
    band,
    cells,
    difference,
    known,
    value,
)
from activelabel.evaluation.papers.slade2022_claims import VARIES, claims
from activelabel.evaluation.papers.slade2022_figures import LARGER, Curves, draw_curves, draw_table_2
from activelabel.evaluation.papers.slade2022_numbers import (
    AGENT,
    DATA,
    FIGURE_1,
    FIGURE_2,
    OTHERS,
    PAPER_AFTER_10,
    PAPER_GAIN,
    PAPER_TABLE_2,
    RIVAL,
    TABLE_2,
    log_ratio,
    reached,
    seconds,
)
from activelabel.evaluation.report import title

Cells = list[str | float | int | None]
_EMPTY = "An empty cell: not measured here, or not printed in the paper, whose Figures 1, 2 and 4 are plots alone."
_HALF = "±: half the length of the 68 % interval of the mean"


def sections(outcome: Outcome) -> list[Section]:
    """Return what the paper says, Figures 1 and 2, the spread, and Table 2 with Figure 4."""
    return [
        Section("What Slade & Branson say", [lines(claims(outcome)), Text(f"{UNCORRECTED} {VARIES}")]),
        Section("Slade & Branson, Figure 1: accuracy against labels", _figure_1(outcome)),
        Section("Slade & Branson, Figure 2: the larger model", _figure_2(outcome)),
        Section("Slade & Branson, Table 2 and Figure 4: N labels a step", _table_2(outcome)),
    ]


def _figures_of(found: Band | None) -> tuple[float | None, float | None]:
    """Return a mean and its half width for a table."""
    if found is None:
        return None, None
    return known(found.mean[0]), known((found.high[0] - found.low[0]) / 2)


# -- Figure 1 ---------------------------------------------------------------------------------------------------------


def _figure_1(outcome: Outcome) -> list[Element]:
    rows: list[Cells] = []
    for data in DATA:
        found = reached(outcome, FIGURE_1, data)
        for name in (AGENT, *OTHERS, *(name for name in found if name not in (AGENT, *OTHERS))):
            rows.append([data, title(name), *_reached_cells(data, name, found.get(name))])
    columns = ["data set", "strategy", "after 10", "±", "paper", "paper ±", "in the end", "±", "paper", "paper ±"]
    columns += ["deviation", "± over"]
    formats = ["", "", *[".3f", ".3f", ".4f", ".4f"] * 2, ".3f", ""]
    note = (
        f"{_HALF}, over what the last column says. Paper: after 10 labels Table 1 without noise, in the end "
        f"(50 labels) Table 2 at N = 1. Deviation: standard deviation of the accuracy in the end over "
        f"episodes and training seeds. {_EMPTY}"
    )
    elements: list[Element] = [Text(_ABOUT_FIGURE_1)]
    curves = {data: _curves(reached(outcome, FIGURE_1, data)) for data in DATA}
    if any(curves.values()):
        elements.append(Picture(draw_curves(curves, only=(AGENT, RIVAL)), "Figure 1. Bands: 68 % intervals."))
    elements.append(Sheet(columns, rows, formats, "Accuracy on the test set", note))
    return [*elements, _differences(outcome)]


_ABOUT_FIGURE_1 = (
    "Mean accuracy on the test set over test episodes against labels. The bands are 68 % intervals of the mean "
    "(Student's t), as in the paper over training seeds for what is trained; what is not trained has none, and "
    "its bands are over test episodes, each from other initial labels."
)


def _curves(found: Mapping[str, Found]) -> Curves:
    bands = {name: (one.blocks[0].spent.tolist(), band(one, lambda block: block.curve)) for name, one in found.items()}
    return {name: (labels, one) for name, (labels, one) in bands.items() if one is not None}


def _reached_cells(data: str, name: str, found: Found | None) -> Cells:
    early, late = (None, None) if found is None else (band(found, after(10)), band(found, value))
    paper_early = PAPER_AFTER_10.get(name) if data == "colorectal" else None
    paper_late = PAPER_TABLE_2[1][:2] if (data, name) == ("colorectal", AGENT) else None
    deviation = None if found is None else known(float(np.std([block.value for block in found.blocks])))
    numbers = [*_figures_of(early), *(paper_early or (None, None)), *_figures_of(late), *(paper_late or (None, None))]
    return [*numbers, deviation, MISSING if late is None else late.over]


def _differences(outcome: Outcome) -> Sheet:
    rows: list[Cells] = []
    measures: dict[str, Measure] = {"area": area, "after 10": after(10), "in the end": value}
    for data in DATA:
        found = reached(outcome, FIGURE_1, data)
        for name in OTHERS:
            for shown, measure in measures.items():
                gap = difference(found.get(AGENT), found.get(name), measure)
                paper = None
                if data == "colorectal" and shown == "after 10":
                    paper = PAPER_AFTER_10[AGENT][0] - PAPER_AFTER_10[name][0]
                rows.append([data, title(name), shown, *cells(gap), direction(gap), paper])
    columns = ["data set", "DDQN minus", "accuracy", "difference", "low", "high", "direction", "paper"]
    note = (
        "95 % intervals, over episodes and training seeds, paired by episode. Area: under the learning curve, the mean "
        "accuracy over the labels. The paper's direction is that DDQN is above; its numbers are from Table 1."
    )
    return Sheet(columns, rows, ["", "", "", "+.4f", "+.4f", "+.4f", "", "+.4f"], "DDQN and the others", note)


# -- Figure 2 ---------------------------------------------------------------------------------------------------------


def _figure_2(outcome: Outcome) -> list[Element]:
    rows: list[Cells] = []
    curves = {}
    for data in DATA:
        small, large = (reached(outcome, grid, data).get(AGENT) for grid in (FIGURE_1, FIGURE_2))
        more = {} if large is None else {LARGER: large}
        curves[data] = _curves(reached(outcome, FIGURE_1, data) | more)
        ends = [None if one is None else band(one, value) for one in (small, large)]
        gap, best = difference(large, small), _largest(large, small)
        rows.append([data, *_figures_of(ends[0]), *_figures_of(ends[1]), *cells(gap), direction(gap), *best])
        rows[-1].append(PAPER_GAIN[data])
    columns = ["data set", "DDQN", "±", "larger DDQN", "±", "difference", "low", "high", "direction"]
    columns += ["largest", "at labels", 'paper, "up to"']
    formats = ["", ".3f", ".3f", ".3f", ".3f", "+.1%", "+.1%", "+.1%", "", "+.1%", "d", "+.1%"]
    note = (
        f"Accuracy with all labels. {_HALF}, over training seeds. Difference: 95 % interval over episodes and "
        "training seeds, in points of accuracy. Largest: of the differences of the mean curves, without an interval, "
        "since the largest of many is above 0 by chance. The paper does not say whether its per cent are points."
    )
    about = (
        "The larger model: 128 episodes of warm start instead of 16, and two labels a step instead of one. The curves "
        "of Figure 1 with the larger model's. It is compared where both have spent all labels."
    )
    elements: list[Element] = [Text(about)]
    if any(curves.values()):
        elements.append(Picture(draw_curves(curves), "Figure 2. Bands: 68 % intervals of the mean, as in Figure 1."))
    return [*elements, Sheet(columns, rows, formats, "The larger model", note)]


def _largest(large: Found | None, small: Found | None) -> tuple[float | None, int | None]:
    """Return the largest difference of the mean curves where both have a point, and the labels there."""
    if large is None or small is None:
        return None, None
    means = []
    for found in (large, small):
        curve = np.mean([block.curve.mean(axis=0) for block in found.blocks if block.curve is not None], axis=0)
        means.append(dict(zip(found.blocks[0].spent.tolist(), curve.tolist(), strict=True)))
    gains = {labels: means[0][labels] - means[1][labels] for labels in means[0] if labels and labels in means[1]}
    if not gains:
        return None, None
    labels = max(gains, key=lambda at: gains[at])
    return gains[labels], labels


# -- Table 2 and Figure 4 ---------------------------------------------------------------------------------------------


def _table_2(outcome: Outcome) -> list[Element]:
    found = {n: reached(outcome, TABLE_2, "colorectal", batch=n) for n in PAPER_TABLE_2}
    agents = {n: there[AGENT] for n, there in found.items() if AGENT in there}
    accuracy, time = [], []
    base, _, first = PAPER_TABLE_2[1]
    for n, (paper, error, spent) in PAPER_TABLE_2.items():
        ours = _figures_of(band(agents[n], value) if n in agents else None)
        chance = float(found[n]["random"].blocks[0].value.mean()) if "random" in found[n] else None
        gap = difference(agents.get(n), agents.get(1))
        compared: Cells = [*cells(gap), paper - base, direction(gap, paper - base)]
        accuracy.append([n, *ours, paper, error, *([None] * 4 + [""] if n == 1 else compared), chance])
        own, alone = (seconds(outcome, TABLE_2, "colorectal", AGENT, batch) for batch in (n, 1))
        ratio = log_ratio(own, alone)
        times = [None] * 3 if ratio is None else [known(math.exp(end)) for end in (ratio.mean, ratio.low, ratio.high)]
        mean = None if own is None else float(own.mean())
        time.append([n, mean, *times, spent, spent / first, "" if n == 1 else direction(ratio, spent - first)])
    elements: list[Element] = [Text(_ABOUT_TABLE_2)]
    if agents:
        bands = {n: known_band for n, one in agents.items() if (known_band := band(one, value)) is not None}
        shares = {int(row[0]): row[2] for row in time if row[2] is not None}
        figure = draw_table_2(bands, shares)
        elements.append(Picture(figure, "Figure 4 and the times of Table 2; bars: 68 % intervals."))
    return [*elements, _accuracy_sheet(accuracy), _times_sheet(time)]


_ABOUT_TABLE_2 = (
    "DDQN on the colorectal set, 50 labels, N of them a step, each N trained anew for as many episodes. Seconds are of "
    "another machine than the paper's and of another classifier: only the shares of N = 1 compare."
)


def _accuracy_sheet(rows: list[Cells]) -> Sheet:
    columns = ["N", "accuracy", "±", "paper", "paper ±", "minus N = 1", "low", "high", "paper", "direction", "random"]
    formats = ["d", ".4f", ".4f", ".4f", ".4f", "+.4f", "+.4f", "+.4f", "+.4f", "", ".4f"]
    note = (
        "±: half the length of the 68 % interval, over training seeds (over episodes where there is one). Minus N = 1: "
        "95 % interval over episodes and training seeds. Random: the accuracy of as many random labels a step."
    )
    return Sheet(columns, rows, formats, "Table 2: accuracy", note)


def _times_sheet(rows: list[Cells]) -> Sheet:
    columns = ["N", "seconds", "share of N = 1", "low", "high", "paper, seconds", "paper, share", "direction"]
    formats = ["d", ".0f", ".2f", ".2f", ".2f", ".0f", ".2f", ""]
    note = "Seconds: mean over seeds, validation included. Share: geometric mean over seeds with its 95 % interval."
    return Sheet(columns, rows, formats, "Table 2: training time", note)
