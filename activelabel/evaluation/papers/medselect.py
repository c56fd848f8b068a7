"""Smit et al. 2021: Figure 2, §4.2 and Figure 3, and what their text says of them, for each data set of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from activelabel.evaluation.medselect import NAMES, PAPER, PAPER_SHIFT, compare_selections, shift_from_random
from activelabel.evaluation.page import Element, Lines, Picture, Section, Sheet, Text
from activelabel.evaluation.papers.claims import (
    MISSING,
    UNCORRECTED,
    Claim,
    Part,
    direction,
    directions_of,
    lines,
    part,
)
from activelabel.evaluation.papers.outcome import Found, Outcome, average, cells, difference, strategies, together
from activelabel.evaluation.report import title
from activelabel.evaluation.selective_report import SelectiveReport
from activelabel.evaluation.statistics import Difference, hierarchical_difference, seed_task_differences

SELECTOR, CLUSTERING = NAMES
ENV = "SelectiveLabel-v0"
CONDITIONS = ("seen", "held-out")
PAPER_K = (10, 20, 40, 80, 200, 400)

PAPER_AUROC = {
    ("seen", 10, "random"): 0.663,
    ("seen", 10, "clinical"): 0.666,
    ("seen", 10, CLUSTERING): 0.693,
    ("held-out", 10, "random"): 0.808,
    ("held-out", 10, "clinical"): 0.815,
    ("held-out", 10, CLUSTERING): 0.850,
}
"""§4.1, by conditions, K and strategy: all that is printed."""

PAPER_GAIN = {("seen", 10): (0.052, 0.046, 0.058), ("held-out", 20): (0.008, 0.006, 0.010)}
"""§4.1, by conditions and K: improvement over clustering with its 95 % interval, the largest of each; others are not
printed."""

_ORDER = (SELECTOR, CLUSTERING, "random", "clinical")
_EMPTY = "An empty cell: not measured here, or not printed in the paper, whose Figure 2 is a plot alone."
_ABOUT = (
    "AUROC on the query set against the number of labelled images K. Intervals: 95 %, over test tasks and, of what is "
    "trained, training seeds (over tasks alone where there is one seed)."
)

Reached = Mapping[tuple[str, int], Mapping[str, Found]]
"""By conditions and K what each strategy reached."""


@dataclass(frozen=True)
class DataSet:
    """The results of one data set.

    Parameters
    ----------
    grid, data: its names in the study.
    reached: see :data:`Reached`.
    """

    grid: str
    data: str
    reached: Reached

    def found(self, conditions: str, k: int, strategy: str) -> Found | None:
        """Return what a strategy reached; None where it was not measured."""
        return self.reached.get((conditions, k), {}).get(strategy)

    def gain(self, conditions: str, k: int, a: str = SELECTOR, b: str = CLUSTERING) -> Difference | None:
        """Return how far ``a`` is above ``b``."""
        return difference(self.found(conditions, k, a), self.found(conditions, k, b))

    def ks(self, conditions: str) -> list[int]:
        """Return the paper's K and those of the study."""
        return sorted({*PAPER_K, *(k for where, k in self.reached if where == conditions)})

    @property
    def names(self) -> list[str]:
        """Strategies that took part, the paper's first, so that each has its colour in every figure."""
        there = {name for found in self.reached.values() for name in found}
        return [name for name in _ORDER if name in there] + sorted(there - set(_ORDER))

    @property
    def selectors(self) -> list[str]:
        """Strategies that are compared with clustering: what is trained on images."""
        others = [name for name in self.names if name not in (*_ORDER, "oracle")]
        return [SELECTOR, *others]


def sections(outcome: Outcome) -> list[Section]:
    """Return for each data set the paper's claims, Figure 2, §4.2 and Figure 3."""
    found = [section for one in data_sets(outcome) for section in _sections(one, outcome)]
    return found or _sections(DataSet("", "no data set", {}), outcome)


def data_sets(outcome: Outcome) -> list[DataSet]:
    """Return the data sets of the study, in its order."""
    blocks = [block for block in outcome.blocks if block.keys["env"] == ENV]
    found = []
    for grid, data in dict.fromkeys((str(b.keys["grid"]), str(b.keys["data"])) for b in blocks):
        own = [block for block in blocks if (block.keys["grid"], block.keys["data"]) == (grid, data)]
        budgets = dict.fromkeys((str(b.keys["conditions"]), int(b.keys["k"] or 0)) for b in own)
        reached = {(where, k): strategies(own, conditions=where, k=k) for where, k in budgets}
        found.append(DataSet(grid, data, reached))
    return found


def _sections(one: DataSet, outcome: Outcome) -> list[Section]:
    claims = _claims(one)
    analyses, more = _analyses(one, outcome)
    return [
        Section(f"What MedSelect says: {one.data}", [lines([*claims, *more]), Text(UNCORRECTED)]),
        Section(f"MedSelect, Figure 2: {one.data}", _figure_2(one)),
        Section(f"MedSelect, §4.2 and Figure 3: {one.data}", analyses),
    ]


# -- Figure 2 ---------------------------------------------------------------------------------------------------------


def _figure_2(one: DataSet) -> list[Element]:
    elements: list[Element] = [Text(_ABOUT)]
    if one.reached:
        caption = f"{one.data}: AUROC and the difference to clustering. Diamonds: what the paper prints of CheXpert."
        elements.append(Picture(_draw(one), caption))
    return [*elements, _auroc(one), _gains(one)]


def _auroc(one: DataSet) -> Sheet:
    rows: list[list[str | float | int | None]] = []
    for conditions in CONDITIONS:
        for k in one.ks(conditions):
            names = [*one.names, *(name for name in _ORDER if name not in one.names)]
            for name in names:
                found, paper = one.found(conditions, k, name), PAPER_AUROC.get((conditions, k, name))
                if found is None and paper is None:
                    continue
                mean = None if found is None else average(found.scores())
                sizes = (None, None) if mean is None else (mean.n, mean.seeds or None)
                rows.append([conditions, k, title(name), *cells(mean), *sizes, paper])
    columns = ["conditions", "K", "strategy", "AUROC", "low", "high", "tasks", "seeds", "paper (CheXpert)"]
    formats = ["", "d", "", ".3f", ".3f", ".3f", "d", "d", ".3f"]
    note = f"MedSelect itself is not printed; for K = 10, seen, 0.693 and the improvement make 0.745. {_EMPTY}"
    return Sheet(columns, rows, formats, "AUROC", note)


def _gains(one: DataSet) -> Sheet:
    rows: list[list[str | float | int | None]] = []
    for conditions in CONDITIONS:
        for k in one.ks(conditions):
            for name in one.selectors:
                gain = one.gain(conditions, k, name)
                paper = PAPER_GAIN.get((conditions, k)) if name == SELECTOR else None
                if gain is not None or name == SELECTOR:
                    rows.append(
                        [conditions, k, title(name), *cells(gain), direction(gain), *(paper or (None, None, None))]
                    )
    columns = ["conditions", "K", "strategy", "minus clustering", "low", "high", "direction"]
    columns += ["paper", "paper low", "paper high"]
    formats = ["", "d", "", "+.4f", "+.4f", "+.4f", "", "+.3f", "+.3f", "+.3f"]
    note = f"In the paper every one is above 0. The numbers are the largest of each kind of condition. {_EMPTY}"
    return Sheet(columns, rows, formats, "Improvement over clustering, paired by task", note)


def _draw(one: DataSet) -> Figure:
    """Draw the three panels of Figure 2, and what the paper prints of the third."""
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    for name in one.names:
        for (conditions, k), there in one.reached.items():
            keys = {"conditions": conditions, "k": k}
            found = there.get(name)
            mean = None if found is None else average(found.scores())
            if mean is not None:
                rows.append({"strategy": name, **keys, "mean": mean.mean, "ci": [mean.low, mean.high]})
            gap = one.gain(conditions, k, name) if name in one.selectors else None
            if gap is not None:
                both = {"a": name, "b": CLUSTERING, "difference": gap.mean, "ci": [gap.low, gap.high]}
                gaps.append({**both, **keys})
    figure = SelectiveReport(rows, gaps).draw()
    if gaps:
        axis = figure.axes[-1]
        for (conditions, k), (mean_gain, low, high) in PAPER_GAIN.items():
            error = [[mean_gain - low], [high - mean_gain]]
            filled = "0.35" if conditions == "seen" else "white"
            label = f"paper, {conditions}"
            axis.errorbar(k, mean_gain, error, fmt="D", color="0.35", markerfacecolor=filled, capsize=2, label=label)
        axis.legend(fontsize=8)
    return figure


# -- what the text says -----------------------------------------------------------------------------------------------


def _claims(one: DataSet) -> list[Claim]:
    found = []
    for conditions in CONDITIONS:
        for other in (CLUSTERING, "random", "clinical"):
            says = f"§4.1: MedSelect is above {_called(other)} at every K, {conditions} conditions"
            found.append(Claim(says, _parts(one, conditions, SELECTOR, other)))
    for conditions in CONDITIONS:
        for other in ("random", "clinical"):
            says = f"§4.1: clustering is above {_called(other)}, especially for small K, {conditions} conditions"
            found.append(Claim(says, _parts(one, conditions, CLUSTERING, other)))
    for (conditions, k), numbers in PAPER_GAIN.items():
        says = f"§4.1: the improvement over clustering is largest at K = {k} ({numbers[0]:+.3f}), {conditions} "
        others = [other for other in one.ks(conditions) if other != k]
        parts = [_between(one, (conditions, k), (conditions, other), f"than at K = {other}") for other in others]
        found.append(Claim(says + "conditions", parts))
    both = [k for k in one.ks("seen") if k in one.ks("held-out")]
    parts = [_between(one, ("seen", k), ("held-out", k), f"K = {k}") for k in both]
    return [*found, Claim("§4.1: the improvement is smaller on held-out conditions than on seen ones", parts)]


def _called(strategy: str) -> str:
    return "clustering" if strategy == CLUSTERING else strategy


def _parts(one: DataSet, conditions: str, a: str, b: str) -> list[Part]:
    return [part(f"K = {k}", one.gain(conditions, k, a, b)) for k in one.ks(conditions)]


def _between(one: DataSet, first: tuple[str, int], second: tuple[str, int], name: str) -> Part:
    """Compare two improvements; those of different tasks are paired by number alone, which costs nothing."""
    found = together(*(one.found(*where, who) for where in (first, second) for who in (SELECTOR, CLUSTERING)))
    if found is None:
        return Part(name, MISSING)
    a, b, c, d = (scores for each in found if (scores := each.scores()) is not None)
    gains = [seed_task_differences(x, y)[0] for x, y in ((a, b), (c, d))]
    return part(name, hierarchical_difference(gains[0], gains[1]))


# -- §4.2 and Figure 3 ------------------------------------------------------------------------------------------------


def _analyses(one: DataSet, outcome: Outcome) -> tuple[list[Element], list[Claim]]:
    """Return §4.2 and Figure 3 of seen conditions, and the claims."""
    chosen = {name: outcome.selections.get((one.grid, one.data, "seen", name)) for name in (*NAMES, "random")}
    cohort, a = chosen[SELECTOR] or (None, None)
    _, b = chosen[CLUSTERING] or (None, None)
    _, random = chosen["random"] or (None, None)
    _, again = outcome.selections.get((one.grid, one.data, "seen", "random, again")) or (None, None)
    compared = shifts = None
    about = "Choices were not kept, or not of both strategies: the paper's numbers alone."
    if cohort is not None and a is not None and b is not None:
        compared = compare_selections(cohort, a, b)
        about = (
            f"What {title(SELECTOR)} (its first training seed) and {title(CLUSTERING)} chose on the first {len(a)} "
            f"test tasks of seen conditions, {a.chosen.shape[1]} images each (the paper: 10). The difference is paired "
            "by task; the direction is that of the paper's own test, the t-test of independent samples at 5 %. "
            "Distances depend on the embedding: only their order compares."
        )
        if random is not None and again is not None:
            shifts = shift_from_random(cohort, a, b, random, again)
    rows = [_unmeasured(name, paper) for name, paper in PAPER.items()] if compared is None else compared.rows
    moved = [_unmeasured(name, paper) for name, paper in PAPER_SHIFT.items()] if shifts is None else shifts.rows
    elements: list[Element] = [Text(about), _comparison(rows, "§4.2, means over tasks", PAPER)]
    elements.append(_comparison(moved, "Figure 3: Wasserstein distance from random choices", PAPER_SHIFT, control=True))
    if shifts is not None:
        elements.append(Picture(shifts.draw(), f"Figure 3, {one.data}: histograms over tasks."))
    else:
        elements.append(Lines([f"Figure 3: {MISSING}; it needs two random selections besides."]))
    says = "§4.2: MedSelect chooses more frontal images, more women, younger patients and closer images than clustering"
    further = "Figure 3: MedSelect is further from random choices than clustering, by distances and by age"
    return elements, [Claim(says, directions_of(rows)), Claim(further, directions_of(moved))]


def _unmeasured(measure: str, paper: tuple[float, float]) -> dict[str, Any]:
    empty = dict.fromkeys(("a", "b", "difference", "ci", "p", "random"))
    unit = "share" if measure in ("frontal", "female") else ""
    return {"measure": measure, "unit": unit, "n": 0, "direction": "not measured", **empty} | {
        "paper_a": paper[0],
        "paper_b": paper[1],
    }


def _comparison(
    rows: list[dict[str, Any]], caption: str, paper: Mapping[str, tuple[float, float]], control: bool = False
) -> Sheet:
    shown: list[list[str | float | int | None]] = []
    for row in rows:
        scale = 100 if row["unit"] == "share" else 1
        low, high = row["ci"] or (None, None)
        printed = paper[row["measure"]]
        numbers = (row["a"], row["b"], *([row["random"]] if control else []), row["difference"], low, high)
        scaled = [None if number is None else scale * number for number in numbers]
        name = row["measure"] + (" (%)" if scale == 100 else "")
        direct = row["direction"].replace("not measured", MISSING)
        shown.append([name, *scaled, row["p"], row["n"], *(scale * number for number in printed), direct])
    columns = ["measure", title(SELECTOR), title(CLUSTERING), *(["random again"] if control else [])]
    columns += ["difference", "low", "high", "p", "tasks", "paper: MedSelect", "paper: clustering", "direction"]
    formats = ["", ".2f", ".2f", *([".2f"] if control else []), "+.2f", "+.2f", "+.2f", ".2g", "d", ".2f", ".2f", ""]
    return Sheet(columns, shown, formats, caption, "Every difference of the paper has p < 0.001.")
