"""What a strategy chose, against the pools that it chose from: classes, patients, duplicates, distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.images import content
from activelabel.errors import SettingsError
from activelabel.evaluation.distances import structure
from activelabel.evaluation.selections import Selections, check_cohort
from activelabel.evaluation.statistics import Interval, paired_difference
from activelabel.seeding import stream

Values = NDArray[np.float64]

DRAWS = 5
"""Random selections of a task that distances and classes are compared with; their mean counts."""

LEAST = 10.0
"""A patient group is judged if chance would put so many of its images among all that were selected."""

FACTOR = 0.5
"""A patient group is left out if its share among the selected is significantly below so much of its share in the pool.
"""


@dataclass(frozen=True)
class Audit:
    """What an audit found, in plain values.

    Parameters
    ----------
    rows: each ``kind`` (``"classes"``, ``"duplicates"``, ``"patients"``, ``"distances"``), ``measure``, ``unit``,
        ``selected`` (mean over tasks), ``against`` (``"pool"``, ``"random"`` or None), ``reference`` (the same of the
        pools or of random choices), ``difference`` (paired by task), its 95 % interval ``ci``, ``n`` (tasks in which
        both are known) and ``finding``; None where there is no value.
    warnings: sentences, one for each patient group that is left out.
    notes: sentences on what could not be judged.
    """

    rows: list[dict[str, Any]]
    warnings: list[str]
    notes: list[str]

    def table(self) -> str:
        """Return the table as text, with the warnings and the notes below it."""
        width = max(len("measure"), *(len(row["measure"]) for row in self.rows))
        head = f"{'measure':<{width}}  selected  {'against':<7}  reference  difference  {'95 % interval':>18}  tasks  "
        lines, kind = [head + "finding", "-" * (len(head) + len("not distinguishable"))], None
        for row in self.rows:
            if kind not in (None, row["kind"]):
                lines.append("")
            kind = row["kind"]
            show = _shown(row["unit"])
            low, high = row["ci"] or (None, None)
            interval = "" if low is None else f"{show(low, '+')}, {show(high, '+')}"
            line = f"{row['measure']:<{width}}  {show(row['selected']):>8}  {row['against'] or '':<7}  "
            line += f"{show(row['reference']):>9}  {show(row['difference'], '+'):>10}  {interval:>18}  {row['n']:>5}  "
            lines.append((line + row["finding"]).rstrip())
        lines += [f"WARNING: {warning}" for warning in self.warnings] + self.notes
        return "\n".join(lines)


def _shown(unit: str) -> Callable[..., str]:
    def show(value: float | None, sign: str = "") -> str:
        if value is None:
            return ""
        return f"{value:{sign}.1%}" if unit == "share" else f"{value:{sign}.2f}"

    return show


def audit(cohort: Cohort, selections: Selections, *, factor: float = FACTOR, seed: int = 0) -> Audit:
    """Compare what was selected with what could be selected, task by task (after MedSelect §4.2).

    A repeated image counts once. Distances are Euclidean, between ``selections.points``. A missing clinical value
    counts neither among the selected nor in the pool. Images that are not frontal are lateral, or AP where the data set
    tells PA and AP apart and nothing else.

    Parameters
    ----------
    cohort: the one that the selections are of.
    selections: see :func:`~activelabel.evaluation.selections.collect` and ``collect_episodes``.
    factor: a patient group (sex, view, thirds of the ages in the pools) is left out if the 95 % interval of its share
        among the selected less ``factor`` times its share in the pool is below 0; between 0 and 1. It is judged if at
        least :data:`LEAST` images of it would be among all that were selected by chance.
    seed: of the random selections.

    Raises
    ------
    SettingsError: if the selections are not of the cohort, nothing was selected, or the factor is out of range.
    """
    if not 0 < factor <= 1:
        raise SettingsError(f"factor={factor} must be above 0 and at most 1.")
    new = check_cohort(cohort, selections)
    found = Audit([], [], [])
    random = _random(selections, new, seed)
    _classes(found.rows, selections, new, random)
    _duplicates(found.rows, cohort, selections, new)
    _patients(found, cohort, selections, new, factor)
    points = selections.points if selections.points is not None else cohort.features
    if points is None:
        found.notes.append("distances: the cohort has no features, so they were not measured.")
    else:
        _distances(found.rows, points, selections, new, random)
    if len(selections) == 1:
        found.notes.append("one task alone shows no differences: no intervals, and no group can be judged.")
    return found


def masked_mean(values: NDArray[Any], there: NDArray[np.bool_]) -> Values:
    """Return the mean of each row of ``values`` ``(T, n)`` where ``there``, float64 ``(T,)``; NaN where nowhere."""
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _row(
    kind: str, measure: str, unit: str, selected: Values, reference: Values | None = None, against: str | None = None
) -> dict[str, Any]:
    known = np.isfinite(selected) if reference is None else np.isfinite(selected) & np.isfinite(reference)
    row: dict[str, Any] = {"kind": kind, "measure": measure, "unit": unit, "selected": None, "against": against}
    row |= {"reference": None, "difference": None, "ci": None, "n": int(known.sum()), "finding": ""}
    if not known.any():
        return row
    row["selected"] = float(selected[known].mean())
    if reference is not None:
        gap = paired_difference(selected[known], reference[known])
        row |= {"reference": float(reference[known].mean()), "difference": gap.mean, "finding": _finding(gap)}
        row["ci"] = None if gap.n == 1 else [gap.low, gap.high]
    return row


def _finding(gap: Interval) -> str:
    if gap.n == 1:
        return ""
    if gap.low > 0:
        return "higher"
    return "lower" if gap.high < 0 else "not distinguishable"


def _random(selections: Selections, new: NDArray[np.bool_], seed: int) -> list[list[IntArray]]:
    """Return for each task :data:`DRAWS` random selections of as many different images as the strategy's."""
    size = selections.pool.shape[1]
    return [
        [stream(seed, "audit", int(task), draw).choice(size, int(n), replace=False) for draw in range(DRAWS)]
        for task, n in zip(selections.index, new.sum(axis=1), strict=True)
    ]


def _classes(
    rows: list[dict[str, Any]], selections: Selections, new: NDArray[np.bool_], random: list[list[IntArray]]
) -> None:
    everywhere = np.ones(selections.pool.shape, dtype=np.bool_)
    two = len(selections.classes) == 2
    for index, name in list(enumerate(selections.classes))[1 if two else 0 :]:
        own = masked_mean(selections.labels == index, new)
        rows.append(
            _row("classes", name, "share", own, masked_mean(selections.pool_labels == index, everywhere), "pool")
        )
    labels = zip(selections.labels, new, selections.pool_labels, random, strict=True)
    alone = [(_single(own[there]), np.mean([_single(pool[r]) for r in draws])) for own, there, pool, draws in labels]
    own, by_chance = np.array(alone).T
    rows.append(_row("classes", "tasks with one class", "share", own, by_chance, "random"))


def _single(labels: IntArray) -> float:
    """Whether all labels are of one class; NaN where there are none."""
    return float((labels == labels[0]).all()) if len(labels) else float("nan")


def _duplicates(rows: list[dict[str, Any]], cohort: Cohort, selections: Selections, new: NDArray[np.bool_]) -> None:
    def repeats(keys: NDArray[Any]) -> Values:
        """Return how many of the selected images of each task have a key that another before them has."""
        return np.array([own.sum() - len(set(k[own])) for k, own in zip(keys, new, strict=True)], dtype=np.float64)

    spent = (~new).sum(axis=1).astype(np.float64)
    rows.append(_row("duplicates", "labels spent on nothing new", "images", spent))
    # As where parts are compared: features stand for images that lie in files.
    arrays = isinstance(cohort.images, np.ndarray) or cohort.features is None
    source = cohort.images if arrays else cohort.features
    used, place = np.unique(np.where(new, selections.rows, selections.pool[0, 0]), return_inverse=True)
    digests = np.array([content(source, int(row)) for row in used], dtype=object)
    identical = repeats(digests[place].reshape(new.shape))
    rows.append(_row("duplicates", "identical to another selected", "images", identical))
    if cohort.patient is not None:
        rows.append(
            _row("duplicates", "of a patient selected before", "images", repeats(cohort.patient[selections.rows]))
        )


def _patients(found: Audit, cohort: Cohort, selections: Selections, new: NDArray[np.bool_], factor: float) -> None:
    rows, clinical = selections.rows, cohort.clinical_matrix().astype(np.float64)

    def means(column: Values) -> tuple[Values, Values, IntArray]:
        """Return the means of a column of the cohort in selections and pools, and how many selected it is known of."""
        own, pool = column[rows], column[selections.pool]
        there = new & np.isfinite(own)
        return masked_mean(own, there), masked_mean(pool, np.isfinite(pool)), there.sum(axis=1)

    for name, column in zip(("age", "sex", "view"), clinical.T, strict=True):
        values = column[selections.pool]
        unknown = float(np.isnan(values).mean())
        if unknown == 1:
            found.notes.append(f"{name}: the cohort does not have it for any image of the pools; it was not audited.")
            continue
        if unknown:
            found.notes.append(f"{name}: unknown of {unknown:.1%} of the pools' images, which count nowhere here.")
        if name == "age":
            found.rows.append(_row("patients", "mean age", "years", *means(column)[:2], "pool"))
        for group, member in _groups(name, column, values):
            own, pool, known = means(member)
            row = _row("patients", group, "share", own, pool, "pool")
            found.rows.append(row)
            expected = float(np.nansum(known * pool))
            _judge(found, row, own, pool, expected, factor)


def _groups(name: str, column: Values, in_pools: Values) -> list[tuple[str, Values]]:
    """Return the patient groups of a clinical variable: who is in one (1), who is not (0), of whom it is unknown."""
    if name != "age":
        yes, no = {"sex": ("female", "male"), "view": ("frontal", "not frontal")}[name]
        return [(yes, column), (no, 1 - column)]
    low, high = np.nanquantile(in_pools, (1 / 3, 2 / 3))
    parts = {
        f"age up to {low:.3g}": column <= low,
        f"age {low:.3g} to {high:.3g}": (column > low) & (column <= high),
        f"age above {high:.3g}": column > high,
    }
    return [(group, np.where(np.isfinite(column), part, np.nan)) for group, part in parts.items()]


def _judge(found: Audit, row: dict[str, Any], own: Values, pool: Values, expected: float, factor: float) -> None:
    """Say whether a patient group is left out, or that it is too small to judge."""
    group = row["measure"]
    if expected < LEAST:
        row["finding"] = "not judged"
        found.notes.append(
            f"{group}: not judged; by chance {expected:.1f} images of it would be among all that were selected, and a "
            f"judgement needs {LEAST:g}."
        )
        return
    known = np.isfinite(own) & np.isfinite(pool)
    if paired_difference(own[known], factor * pool[known]).high < 0:
        row["finding"] = "left out"
        found.warnings.append(
            f"{group}: left out. {row['selected']:.1%} of the selected images and {row['reference']:.1%} of the pools' "
            f"(n = {row['n']} tasks); its share is significantly below {factor:g} times that in the pools."
        )


def _distances(
    rows: list[dict[str, Any]],
    points: FloatArray,
    selections: Selections,
    new: NDArray[np.bool_],
    random: list[list[IntArray]],
) -> None:
    own, by_chance = np.empty((2, len(selections), 3))
    for i, draws in enumerate(random):
        measured = structure(points[selections.pool[i]], [selections.chosen[i, new[i]], *draws])
        own[i], by_chance[i] = measured[0], measured[1:].mean(axis=0)
    names = ("mean distance between selected", "largest distance between selected", "pool to nearest selected, mean")
    for column, name in enumerate(names):
        rows.append(_row("distances", name, "distance", own[:, column], by_chance[:, column], "random"))
