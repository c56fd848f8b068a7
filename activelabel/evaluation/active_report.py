"""The report of ``ActiveLabel-v0``: learning curves, the area under them, and the final accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from activelabel.errors import SettingsError
from activelabel.evaluation.episodes import Curves
from activelabel.evaluation.report import Report, comparison, summary_row, title

AREA = "aulc"
"""The metric of a whole episode: the area under the learning curve, as a share of the range of labels."""

BAND = (16.0, 84.0)
"""Percentiles of the episodes between which 68 % of them are."""


@dataclass(frozen=True)
class ActiveReport(Report):
    """All figures of an evaluation, as ``summary.json`` holds them.

    Parameters
    ----------
    rows: two for each strategy: ``strategy``, ``budget``, ``batch``, ``metric`` (``"aulc"``, the area under the
        learning curve, or what was measured after the last label, such as ``"accuracy"``), ``mean``, ``ci``, ``n``.
    comparisons: two for each strategy but the reference: ``a`` (the reference), ``b``, ``budget``, ``batch``,
        ``metric``, ``difference`` (a - b, paired by episode), ``ci``, ``n``, ``verdict`` on a.
    curves: one for each strategy: ``strategy``, ``labels`` (besides the initial ones), ``mean``, ``low`` and ``high``
        of the metric on the test set, the last two with 68 % of the episodes between them.
    """

    curves: list[dict[str, Any]]

    @property
    def _names(self) -> list[str]:
        return [curve["strategy"] for curve in self.curves]

    @property
    def _metric(self) -> str:
        return next(str(row["metric"]) for row in self.rows if row["metric"] != AREA)

    def _of(self, entries: list[dict[str, Any]], key: str, metric: str) -> dict[str, dict[str, Any]]:
        return {entry[key]: entry for entry in entries if entry["metric"] == metric}

    def table(self) -> str:
        """Return the table as text: area and final accuracy of each strategy, and how far the reference is above it."""
        areas, finals = self._of(self.rows, "strategy", AREA), self._of(self.rows, "strategy", self._metric)
        gaps = self._of(self.comparisons, "b", AREA)
        width = max(len("strategy"), *(len(title(name)) for name in self._names))
        final = f"final {self._metric}"
        head = f"{'strategy':<{width}}   AULC  {'95 % interval':>14}  {final}  {'95 % interval':>14}"
        if gaps:
            reference = f"{title(self.comparisons[0]['a'])} minus it"
            head += f"  {reference:>15}  {'95 % interval':>16}  verdict"
        lines = [head, "-" * len(head)]
        for name in self._names:
            area, last = areas[name], finals[name]
            line = f"{title(name):<{width}}  {area['mean']:5.3f}  {_interval(area, '6.3f')}"
            line += f"  {last['mean']:>{len(final)}.3f}  {_interval(last, '6.3f')}"
            if name in gaps:
                gap = gaps[name]
                line += f"  {gap['difference']:>+15.3f}  {_interval(gap, '+7.3f')}  {gap['verdict']}"
            lines.append(line)
        first = self.rows[0]
        lines.append(
            f"{first['budget']} labels, {first['batch']} a step; AULC: area under {self._metric} on the test set. "
            f"n = {first['n']} test episodes in each row,"
        )
        lines.append("each started from the same labelled images by every strategy; intervals over episodes.")
        return "\n".join(lines)

    def draw(self) -> Figure:
        """Draw the learning curves (after Slade & Branson's Figure 1) and the paired differences of the areas."""
        figure = Figure(figsize=(12 if self.comparisons else 7, 4.4), layout="constrained")
        axes = figure.subplots(1, 1 + bool(self.comparisons), squeeze=False)[0]
        palette = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
        colours = {name: palette[(2 * i + i // 10) % 20] for i, name in enumerate(reversed(self._names))}
        for curve in self.curves:
            name, x = curve["strategy"], curve["labels"]
            main = name == self._names[-1]
            axes[0].fill_between(x, curve["low"], curve["high"], color=colours[name], alpha=0.12, linewidth=0)
            axes[0].plot(x, curve["mean"], color=colours[name], linewidth=2.2 if main else 1.2, label=title(name))
        axes[0].set(title="mean, and 68 % of the episodes", xlabel="labels", ylabel=f"{self._metric} on the test set")
        figure.legend(fontsize=8, ncols=6, loc="outside lower center")
        gaps = self._of(self.comparisons, "b", AREA)
        for place, (name, gap) in enumerate(gaps.items()):
            error = [[gap["difference"] - gap["ci"][0]], [gap["ci"][1] - gap["difference"]]]
            axes[1].errorbar(gap["difference"], place, xerr=error, fmt="o", capsize=3, color=colours[name])
        if gaps:
            axes[1].axvline(0, color="0.5", linewidth=0.8)
            axes[1].set_yticks(range(len(gaps)), [title(name) for name in gaps])
            axes[1].invert_yaxis()
            axes[1].set(title=f"{title(self._names[-1])} minus", xlabel="area under the curve, paired, 95 % interval")
        return figure


def _interval(entry: dict[str, Any], form: str) -> str:
    return f"{entry['ci'][0]:{form}}, {entry['ci'][1]:{form}}"


def build_active_report(
    results: Mapping[str, Curves], reference: str, batch: int, metric: str = "accuracy"
) -> ActiveReport:
    """Summarise what strategies reached.

    Parameters
    ----------
    results: by strategy; all played the same episodes.
    reference: the strategy that is compared with every other; it comes last.
    batch: labels a step.
    metric: what was measured on the test set.

    Raises
    ------
    SettingsError: if the reference did not take part.
    """
    if reference not in results:
        raise SettingsError(f"'{reference}' is compared with the others, but only {', '.join(results)} took part.")
    ordered = {name: results[name] for name in (*(n for n in results if n != reference), reference)}
    best = results[reference]
    rows, comparisons, bands = [], [], []
    for name, found in ordered.items():
        keys = {"budget": int(found.labels[-1]), "batch": batch}
        for measured, values, of_best in ((AREA, found.aulc, best.aulc), (metric, found.final, best.final)):
            rows.append(summary_row(name, keys | {"metric": measured}, values))
            if name != reference:
                comparisons.append(comparison(reference, name, keys | {"metric": measured}, of_best, values))
        low, high = np.percentile(found.accuracy, BAND, axis=0)
        mean = found.accuracy.mean(axis=0)
        band = {"labels": found.labels, "mean": mean, "low": low, "high": high}
        bands.append({"strategy": name, **{key: values.tolist() for key, values in band.items()}})
    return ActiveReport(rows, comparisons, bands)
