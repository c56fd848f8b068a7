"""The report of ``SelectiveLabel-v0``: AUROC against the number of labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from activelabel.evaluation.protocol import Scores
from activelabel.evaluation.report import Report, comparison, summary_row, title

Results = Mapping[str, Mapping[str, Mapping[int, Scores]]]
"""``results[conditions][strategy][k]``, where ``conditions`` is ``"seen"`` or ``"held-out"``."""


@dataclass(frozen=True)
class SelectiveReport(Report):
    """All figures of an evaluation, as ``summary.json`` holds them.

    Parameters
    ----------
    rows: one for each strategy, K and set of conditions: ``strategy``, ``k``, ``conditions``, ``metric``, ``mean``,
        ``ci``, ``n``, and ``one_class``, the share of tasks in which only one class was labelled.
    comparisons: one for each strategy but the reference: ``a``, ``b`` (the reference), ``k``, ``conditions``,
        ``metric``, ``difference`` (a - b, paired by task), ``ci``, ``n``, ``verdict``.
    """

    def table(self) -> str:
        """Return the table as text: AUROC of each strategy and K, and the paired difference to the reference."""
        width = max(len("strategy"), *(len(title(row["strategy"])) for row in self.rows))
        reference = self.comparisons[0]["b"] if self.comparisons else None
        head = f"{'conditions':<10}  {'K':>4}  {'strategy':<{width}}  AUROC  {'95 % interval':>14}  one class"
        if reference is not None:
            head += f"  {'minus ' + title(reference):>15}  {'95 % interval':>16}  verdict"
        compared = {(c["a"], c["k"], c["conditions"]): c for c in self.comparisons}
        lines, previous = [head, "-" * len(head)], None
        for row in sorted(self.rows, key=lambda r: (r["conditions"] != "seen", r["k"])):
            if previous not in (None, (row["conditions"], row["k"])):
                lines.append("")
            previous = (row["conditions"], row["k"])
            line = f"{row['conditions']:<10}  {row['k']:>4}  {title(row['strategy']):<{width}}  {row['mean']:5.3f}"
            line += f"  {row['ci'][0]:6.3f}, {row['ci'][1]:6.3f}  {row['one_class']:9.1%}"
            c = compared.get((row["strategy"], row["k"], row["conditions"]))
            if c is not None:
                line += f"  {c['difference']:>+15.3f}  {c['ci'][0]:>+7.3f}, {c['ci'][1]:>+7.3f}  {c['verdict']}"
            lines.append(line)
        lines.append(
            f"n = {self.rows[0]['n']} test tasks in each row, the same for every strategy; intervals over tasks."
        )
        return "\n".join(lines)

    def draw(self) -> Figure:
        """Draw AUROC against K for each set of conditions, and the paired differences (after MedSelect's Figure 2)."""
        sets = list(dict.fromkeys(row["conditions"] for row in self.rows))
        columns = len(sets) + bool(self.comparisons)
        figure = Figure(figsize=(4.2 * columns, 3.6), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        strategies = list(dict.fromkeys(row["strategy"] for row in self.rows))
        colours = dict(zip(strategies, matplotlib.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
        ks = sorted({row["k"] for row in self.rows})
        for axis, conditions in zip(axes, sets, strict=False):
            for offset, strategy in enumerate(strategies):
                rows = [r for r in self.rows if r["conditions"] == conditions and r["strategy"] == strategy]
                _line(axis, rows, "mean", ks, offset - len(strategies) / 2, colours[strategy], title(strategy), "-")
            axis.set(title=f"{conditions} conditions", ylabel="AUROC on the query set")
            axis.legend(fontsize=8)
        for offset, strategy in enumerate(strategies):
            for conditions, style in zip(sets, ("-", "--"), strict=False):
                rows = [c for c in self.comparisons if c["a"] == strategy and c["conditions"] == conditions]
                if rows:
                    label = f"{title(strategy)}, {conditions}"
                    _line(axes[-1], rows, "difference", ks, offset / 2, colours[strategy], label, style)
        if self.comparisons:
            axes[-1].axhline(0, color="0.5", linewidth=0.8)
            axes[-1].set(title=f"difference to {title(self.comparisons[0]['b'])}", ylabel="AUROC, paired by task")
            axes[-1].legend(fontsize=8)
        for axis in axes:
            axis.set(xlabel="labelled images K", xscale="log" if len(ks) > 1 else "linear")
            axis.set_xticks(ks, [str(k) for k in ks])
            axis.minorticks_off()
        return figure


def build_report(results: Results, reference: str = "kmedoids") -> SelectiveReport:
    """Summarise what strategies reached; differences are to ``reference`` where it took part."""
    rows, comparisons = [], []
    for conditions, strategies in results.items():
        for strategy, by_k in strategies.items():
            for k, scores in by_k.items():
                keys = {"k": k, "conditions": conditions, "metric": "auroc"}
                rows.append(summary_row(strategy, keys, scores.reward) | {"one_class": float(scores.one_class.mean())})
                if reference in strategies and strategy != reference:
                    other = strategies[reference][k].reward
                    comparisons.append(comparison(strategy, reference, keys, scores.reward, other))
    return SelectiveReport(rows, comparisons)


def _line(
    axis: Any, rows: list[dict[str, Any]], value: str, ks: list[int], offset: float, colour: Any, label: str, style: str
) -> None:
    """Draw one strategy with its intervals, moved sideways a little so that intervals do not hide each other."""
    x = [row["k"] * (1 + 0.012 * offset) for row in rows]
    y = [row[value] for row in rows]
    error = [[row[value] - row["ci"][0] for row in rows], [row["ci"][1] - row[value] for row in rows]]
    axis.errorbar(x, y, error, fmt=f"o{style}", markersize=3.5, linewidth=1.3, capsize=2, color=colour, label=label)
