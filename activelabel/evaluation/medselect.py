"""How two strategies' selections differ: the analyses of MedSelect §4.2 and its Figure 3, beside the paper's numbers.

In the paper ``a`` is MedSelect and ``b`` the clustering baseline, with K = 10 on seen conditions of CheXpert and
distances between MoCo embeddings. Distances depend on the embedding: only their order can be compared. A repeated image
counts once, and a missing clinical value nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import scipy  # not its stats, which take half a second and are loaded where they are used
from matplotlib.figure import Figure
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.data.cohort import FloatArray
from activelabel.errors import DataError, SettingsError
from activelabel.evaluation.audit import masked_mean
from activelabel.evaluation.distances import mean_and_largest, pairwise
from activelabel.evaluation.report import title
from activelabel.evaluation.selections import Selections, check_cohort
from activelabel.evaluation.statistics import paired_difference

Values = NDArray[np.float64]

PAPER = {
    "frontal": (0.9996, 0.7758),
    "female": (0.4231, 0.3946),
    "age": (45.2, 54.8),
    "mean distance": (7.76, 8.78),
    "largest distance": (11.06, 12.37),
    "mean distance, frontal": (7.76, 8.22),
    "largest distance, frontal": (11.06, 11.69),
}
"""§4.2, MedSelect and clustering; each p < 0.001 in an independent two-sample t-test over tasks."""

PAPER_SHIFT = {"distances": (2.01, 1.22), "age": (13.58, 8.43)}
"""Figure 3, mean Wasserstein distances from the random baseline, MedSelect and clustering; each p < 0.001."""

NAMES = ("reinforce", "kmedoids")
"""What the two strategies are called where nothing else is said."""

_LEVEL = 0.05
_UNITS = {"frontal": "share", "female": "share", "age": "years"}
_PANELS = {"distances": "pairwise L2 distances", "age": "age (years)"}


def describe(cohort: Cohort, selections: Selections) -> dict[str, Values]:
    """Return the measures of §4.2, the keys of :data:`PAPER`, for each task.

    Returns
    -------
    Each float64 ``(T,)``: the shares of frontal images and of women, the mean age, and the mean and the largest
    pairwise distance, of all selected images and of the frontal ones; NaN where a task has no value.

    Raises
    ------
    SettingsError: if the selections are not of the cohort, or nothing was selected.
    DataError: if there are no features.
    """
    new, rows = check_cohort(cohort, selections), selections.rows
    clinical = cohort.clinical_matrix()[rows].astype(np.float64)
    age, female, frontal = (masked_mean(values, new & np.isfinite(values)) for values in np.moveaxis(clinical, -1, 0))
    points = _points(cohort, selections)
    found = {"frontal": frontal, "female": female, "age": age}
    for suffix, there in (("", new), (", frontal", new & (clinical[..., 2] == 1))):
        measured = [mean_and_largest(pairwise(points[own[some]])) for own, some in zip(rows, there, strict=True)]
        found["mean distance" + suffix], found["largest distance" + suffix] = np.array(measured).T
    return found


def _points(cohort: Cohort, selections: Selections) -> FloatArray:
    points = selections.points if selections.points is not None else cohort.features
    if points is None:
        raise DataError(f"{cohort.source.name} has no features, and distances need them. Embed its images first.")
    return points


def _check_same(selections: Mapping[str, Selections]) -> None:
    names = list(selections)
    first = selections[names[0]]
    for name in names[1:]:
        other = selections[name]
        if not (np.array_equal(other.index, first.index) and np.array_equal(other.pool, first.pool)):
            raise SettingsError(f"'{name}' and '{names[0]}' did not choose on the same tasks.")


def _compare(measure: str, unit: str, of_a: Values, of_b: Values, paper: tuple[float, float]) -> dict[str, Any]:
    """Return a row of :class:`SelectionComparison` from one value of each strategy for each task."""
    a, b, both = of_a[np.isfinite(of_a)], of_b[np.isfinite(of_b)], np.isfinite(of_a) & np.isfinite(of_b)
    t, p = _t_test(a, b) if min(a.size, b.size) > 1 else (None, None)
    row: dict[str, Any] = {
        "measure": measure,
        "unit": unit,
        "a": float(a.mean()) if a.size else None,
        "b": float(b.mean()) if b.size else None,
        "difference": None,
        "ci": None,
        "n": int(both.sum()),
        "t": t,
        "p": p,
        "paper_a": paper[0],
        "paper_b": paper[1],
        "direction": "not distinguishable" if both.any() else "not measured",
    }
    if both.any():
        gap = paired_difference(of_a[both], of_b[both])
        row |= {"difference": gap.mean, "ci": None if gap.n == 1 else [gap.low, gap.high]}
    if p is not None and p < _LEVEL:
        row["direction"] = "as in the paper" if (a.mean() > b.mean()) == (paper[0] > paper[1]) else "opposite"
    return row


def _t_test(a: Values, b: Values) -> tuple[float | None, float | None]:
    """Return t and p of the independent two-sample t-test.

    Where neither sample varies, t is None, and p is None if they are equal and 0 if not.
    """
    if not (np.ptp(a) or np.ptp(b)):
        return None, None if a[0] == b[0] else 0.0
    # From moments: scipy's own ttest_ind warns where one sample is constant, as the share of frontal images may be.
    moments = [f for x in (a, b) for f in (x.mean(), x.std(ddof=1), x.size)]
    t, p = scipy.stats.ttest_ind_from_stats(*moments)
    return float(t), float(p)


@dataclass(frozen=True)
class SelectionComparison:
    """§4.2 of two strategies, in plain values.

    Parameters
    ----------
    names: of the two strategies.
    rows: each ``measure``, ``unit``, ``a`` and ``b`` (means over tasks), ``difference`` (a - b, paired by task), its
        95 % interval ``ci``, ``n`` (tasks in which both have a value), ``t`` and ``p`` of the independent two-sample
        t-test, ``paper_a``, ``paper_b``, and ``direction``: ``"as in the paper"``, ``"opposite"``, ``"not
        distinguishable"`` (p of 0.05 or more, or none) or ``"not measured"``. None where there is no value.
    """

    names: tuple[str, str]
    rows: list[dict[str, Any]]

    def table(self) -> str:
        """Return the table as text, ours beside the paper's."""
        return _table(self.names, self.rows, "mean over tasks")


def compare_selections(
    cohort: Cohort, a: Selections, b: Selections, names: tuple[str, str] = NAMES
) -> SelectionComparison:
    """Compare what two strategies chose on the same tasks (MedSelect §4.2).

    The paper's t-tests take the two as independent samples; the interval of the difference is paired by task, which is
    what the design allows.

    Raises
    ------
    SettingsError: if the tasks are not the same; and see :func:`describe`.
    """
    _check_same(dict(zip(names, (a, b), strict=True)))
    of_a, of_b = describe(cohort, a), describe(cohort, b)
    rows = [_compare(key, _UNITS.get(key, "distance"), of_a[key], of_b[key], paper) for key, paper in PAPER.items()]
    return SelectionComparison(names, rows)


def wasserstein(a: list[Values], b: list[Values]) -> Values:
    """Return for each task i the first Wasserstein distance between ``a[i]`` and ``b[i]``; NaN where one is empty."""
    return np.array(
        [scipy.stats.wasserstein_distance(x, y) if len(x) and len(y) else np.nan for x, y in zip(a, b, strict=True)],
        dtype=np.float64,
    )


@dataclass(frozen=True)
class ShiftFromRandom:
    """Figure 3: how far the distributions of selections are from those of random ones.

    Parameters
    ----------
    names: of the two strategies.
    rows: as in :class:`SelectionComparison`, of the two strategies' Wasserstein distances, with ``random``, the mean
        between two random selections, besides.
    values: ``values[measure][strategy]`` float64 ``(T,)``; measures ``"distances"`` and ``"age"``, strategies the two
        and ``"random"``, NaN where a task has no value.
    """

    names: tuple[str, str]
    rows: list[dict[str, Any]]
    values: dict[str, dict[str, Values]] = field(repr=False)

    def table(self) -> str:
        """Return the table as text, ours beside the paper's."""
        lines = [_table(self.names, self.rows, "Wasserstein distance from random choices, mean over tasks")]
        found = ", ".join(f"{row['measure']} {_number(row['random'], row['unit'])}" for row in self.rows)
        return "\n".join([*lines, f"Between two random choices: {found}."])

    def draw(self, bins: int = 40) -> Figure:
        """Draw the histograms over tasks: pairwise distances left, age right."""
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
        for axis, (measure, label) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
            known = {name: values[np.isfinite(values)] for name, values in self.values[measure].items()}
            together = np.concatenate(list(known.values()))
            axis.set(title=label, xlabel="Wasserstein distance from random choices", ylabel="tasks")
            if not together.size:
                axis.text(0.5, 0.5, "not in this cohort", ha="center", va="center", transform=axis.transAxes)
                continue
            edges = np.histogram_bin_edges(together, bins)
            for (name, values), colour in zip(known.items(), colours, strict=False):
                if not values.size:
                    continue
                shown = f"{title(name)}, mean {values.mean():.2f}"
                axis.hist(values, edges, histtype="stepfilled", color=colour, alpha=0.35, label=shown)
                axis.axvline(values.mean(), color=colour, linewidth=1.2)
            axis.legend(fontsize=8)
        return figure


def shift_from_random(
    cohort: Cohort,
    a: Selections,
    b: Selections,
    random: Selections,
    control: Selections,
    names: tuple[str, str] = NAMES,
) -> ShiftFromRandom:
    """Compare two strategies' selections with random ones, and random ones among themselves (MedSelect Figure 3).

    For each task the first Wasserstein distance between the ages of what a strategy selected and of what ``random``
    did, and between the pairwise distances of their images.

    Parameters
    ----------
    cohort: the one that all selections are of.
    a, b: of the two strategies.
    random, control: of the random strategy with two seeds; ``control`` is compared with ``random`` as a and b are.
    names: of the two strategies.

    Raises
    ------
    SettingsError: if the tasks are not the same, or both random selections are one; and see :func:`describe`.
    """
    if "random" in names:
        raise SettingsError(f"names={names}: 'random' is the control.")
    compared = {**dict(zip(names, (a, b), strict=True)), "random": control}
    _check_same({**compared, "the first random choice": random})
    if np.array_equal(random.chosen, control.chosen):
        raise SettingsError("both random strategies chose the same images; give them different seeds.")
    samples = {name: _samples(cohort, one) for name, one in compared.items()}
    base = _samples(cohort, random)
    values = {
        measure: {name: wasserstein(found[measure], base[measure]) for name, found in samples.items()}
        for measure in _PANELS
    }
    rows = []
    for measure, found in values.items():
        row = _compare(measure, _UNITS.get(measure, "distance"), found[names[0]], found[names[1]], PAPER_SHIFT[measure])
        known = found["random"][np.isfinite(found["random"])]
        rows.append(row | {"random": float(known.mean()) if known.size else None})
    return ShiftFromRandom(names, rows, values)


def _samples(cohort: Cohort, selections: Selections) -> dict[str, list[Values]]:
    """Return for each task the pairwise distances and the known ages of what was selected."""
    points, age = _points(cohort, selections), cohort.clinical_matrix()[:, 0].astype(np.float64)
    selected = [own[there] for own, there in zip(selections.rows, check_cohort(cohort, selections), strict=True)]
    return {
        "distances": [pairwise(points[rows]) for rows in selected],
        "age": [age[rows][np.isfinite(age[rows])] for rows in selected],
    }


def _number(value: float | None, unit: str, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.2%}" if unit == "share" else f"{value:{sign}.2f}"


def _table(names: tuple[str, str], rows: list[dict[str, Any]], caption: str) -> str:
    width = max(len(row["measure"]) for row in rows)
    of_a, of_b = (title(name) for name in names)
    sizes = [max(len(text), 8) for text in (of_a, of_b)]
    head = f"{'':<{width}}  {of_a:>{sizes[0]}}  {of_b:>{sizes[1]}}  difference  {'95 % interval':>18}  t-test p  "
    head += "paper: MedSelect  clustering  direction"
    lines = [head, "-" * (len(head) + 10)]
    for row in rows:
        unit, p = row["unit"], row["p"]
        shown = "-" if row["ci"] is None else ", ".join(_number(end, unit, "+") for end in row["ci"])
        line = (
            f"{row['measure']:<{width}}  {_number(row['a'], unit):>{sizes[0]}}  {_number(row['b'], unit):>{sizes[1]}}  "
        )
        line += f"{_number(row['difference'], unit, '+'):>10}  {shown:>18}  "
        line += f"{'-' if p is None else '< 0.001' if p < 0.001 else f'{p:.3f}':>8}  "
        line += f"{_number(row['paper_a'], unit):>16}  {_number(row['paper_b'], unit):>10}  {row['direction']}"
        lines.append(line)
    n = max(row["n"] for row in rows)
    lines.append(f"{caption}; n = {n} tasks at most, the difference paired by task, the t-test of independent samples.")
    missing = [row["measure"] for row in rows if row["direction"] == "not measured"]
    if missing:
        lines.append(f"Not measured here, since too few of the selected images have it: {', '.join(missing)}.")
    return "\n".join(lines)
