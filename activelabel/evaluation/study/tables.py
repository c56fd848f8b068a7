"""What a study found: a report for each data set and budget, and lines that say who is better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelabel.evaluation.active_report import build_active_report
from activelabel.evaluation.episodes import Curves
from activelabel.evaluation.protocol import Scores
from activelabel.evaluation.report import Report, title
from activelabel.evaluation.selective_report import build_report
from activelabel.evaluation.statistics import hierarchical_difference, judge
from activelabel.evaluation.study.results import Block
from activelabel.evaluation.study.spec import SELECTIVE

_NO_STRATEGY = ("oracle",)
"""What knows the labels, and is therefore not recommended."""


@dataclass(frozen=True)
class Table:
    """The report of one data set, and for ``ActiveLabel-v0`` of one budget.

    Parameters
    ----------
    name: of the folder that it is written to.
    heading: one line that says what it is of.
    report: rows, comparisons and figure; a trained strategy counts with its mean over training seeds.
    verdicts: one line for each budget and set of conditions.
    """

    name: str
    heading: str
    report: Report
    verdicts: list[str]

    def text(self) -> str:
        """Return heading, table and verdicts."""
        return "\n".join((self.heading, "", self.report.table(), "", *self.verdicts))

    def write(self, folder: Path, study: str) -> list[Path]:
        """Write ``summary.json``, ``table.txt`` and ``figure.png`` to a folder of the table's own."""
        return self.report.write(folder / self.name, study=study, heading=self.heading, verdicts=self.verdicts)


def build_tables(blocks: Sequence[Block], references: Mapping[str, str]) -> list[Table]:
    """Summarise results.

    Parameters
    ----------
    blocks: of one study.
    references: for each grid the strategy that differences are to.

    Raises
    ------
    SettingsError: if a reference did not take part.
    """
    tables = []
    for (grid, data, env, labels, batch), group in _grouped(blocks, ("grid", "data", "env", "labels", "batch")):
        reference = references[str(grid)]
        budget = "" if labels is None else f", {labels} labels, {batch} a step"
        name = _slug(f"{grid}-{data}" + ("" if labels is None else f"-{labels}-{batch}"))
        report = _selective(group, reference) if env == SELECTIVE else _active(group, reference)
        verdicts = [_verdict(str(data), cell) for _, cell in _grouped(group, ("conditions", "k", "labels", "batch"))]
        tables.append(Table(name, f"{grid}: {data} on {env}{budget}; {_seeds(group)}", report, verdicts))
    return tables


def _grouped(blocks: Iterable[Block], keys: Sequence[str]) -> list[tuple[tuple[str | int | None, ...], list[Block]]]:
    """Return blocks that agree in some keys, in order of first appearance."""
    found: dict[tuple[str | int | None, ...], list[Block]] = {}
    for block in blocks:
        found.setdefault(tuple(block.keys[key] for key in keys), []).append(block)
    return list(found.items())


def _by_strategy(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return the blocks of each strategy: one for each training seed."""
    return {str(name): found for (name,), found in _grouped(blocks, ("strategy",))}


def _selective(blocks: Sequence[Block], reference: str) -> Report:
    results: dict[str, dict[str, dict[int, Scores]]] = {}
    for (conditions, k), group in _grouped(blocks, ("conditions", "k")):
        assert isinstance(k, int)
        for name, seeds in _by_strategy(group).items():
            one_class = np.stack([block.one_class for block in seeds if block.one_class is not None])
            scores = Scores(_stacked(seeds).mean(axis=0), one_class)
            results.setdefault(str(conditions), {}).setdefault(name, {})[k] = scores
    return build_report(results, reference)


def _active(blocks: Sequence[Block], reference: str) -> Report:
    results = {}
    for name, seeds in _by_strategy(blocks).items():
        mean = np.mean([block.curve for block in seeds if block.curve is not None], axis=0)
        results[name] = Curves(seeds[0].spent, mean, np.full_like(mean, np.nan))  # the study keeps no reward curves
    keys = blocks[0].keys
    assert isinstance(keys["batch"], int)
    return build_active_report(results, reference, keys["batch"], str(keys["metric"]))


def _compared(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Return the scores of a strategy, ``(seeds, tasks)``, or ``(tasks,)`` of one that is not trained."""
    scores = _stacked(blocks)
    return scores if blocks[0].keys["seed"] is not None else scores[0]


def _stacked(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Return what a study compares by, ``(seeds, tasks)``: the area under the curve of episodes, else the value."""
    return np.stack([block.value if block.aulc is None else block.aulc for block in blocks])


def _verdict(data: str, blocks: Sequence[Block]) -> str:
    """Say which strategy to use, and which of the others it is really better than."""
    scores = {name: _compared(seeds) for name, seeds in _by_strategy(blocks).items() if name not in _NO_STRATEGY}
    keys = blocks[0].keys
    where = f"{data}, {keys['conditions']} conditions, K = {keys['k']}"
    if keys["k"] is None:
        where = f"{data}, {keys['labels']} labels, {keys['batch']} a step"
    if not scores:
        return f"{where}: no strategy but the oracle took part"
    leader = max(scores, key=lambda name: float(scores[name].mean()))
    measure = str(keys["metric"]) if blocks[0].aulc is None else f"area under {keys['metric']}"
    text = f"{where}: highest mean {measure}: {title(leader)}, {scores[leader].mean():.3f}"
    if len(scores) == 1:
        return text
    found: dict[str, list[str]] = {}
    for name, other in scores.items():
        if name != leader:
            gap = hierarchical_difference(scores[leader], other)
            shown = judge(gap)
            said = f"{title(name)} ({gap.mean:+.3f}; {gap.low:+.3f} to {gap.high:+.3f}; {gap.holds_for}"
            said += ")" if shown.says == "better" else f"; {shown.needs()})"
            found.setdefault(shown.says, []).append(said)
    for says, words in {"better": "better than", "not distinguishable": "not distinguishable from"}.items():
        text += f"; {words} {', '.join(found[says])}" if says in found else ""
    return text


def _seeds(blocks: Sequence[Block]) -> str:
    seeds = sorted({block.keys["seed"] for block in blocks if isinstance(block.keys["seed"], int)})
    if not seeds:
        return "nothing was trained"
    counted = f"{len(seeds)} training seed{'s' if len(seeds) > 1 else ''}"
    one = f"{counted}; intervals hold for {'these' if len(seeds) > 1 else 'this'} alone"
    return one if len(seeds) == 1 else f"{one}, those of the verdicts for others too"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "table"
