"""What a study found: a report for each data set and budget, and lines that say who is better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activelabel.evaluation.active_report import build_active_report
from activelabel.evaluation.episodes import Curves
from activelabel.evaluation.protocol import Scores
from activelabel.evaluation.report import Report
from activelabel.evaluation.selective_report import build_report
from activelabel.evaluation.study.comparisons import by_strategy, grouped, stacked
from activelabel.evaluation.study.findings import Findings, find
from activelabel.evaluation.study.results import Block
from activelabel.evaluation.study.spec import SELECTIVE

_OF_A_TABLE = ("grid", "data", "env", "labels", "batch")


@dataclass(frozen=True)
class Table:
    """The report of one data set, and for ``ActiveLabel-v0`` of one budget.

    Parameters
    ----------
    name: of the folder that it is written to.
    place: grid, data set and budget in words.
    heading: one line that says what it is of.
    report: rows, comparisons and figure; a trained strategy counts with its mean over training seeds.
    verdicts: one line for each budget and set of conditions.
    """

    name: str
    place: str
    heading: str
    report: Report
    verdicts: list[str]

    def text(self) -> str:
        """Return heading and table."""
        return f"{self.heading}\n\n{self.report.table()}"

    def write(self, folder: Path, study: str) -> list[Path]:
        """Write ``summary.json``, ``table.txt`` and ``figure.png`` to a folder of the table's own."""
        return self.report.write(folder / self.name, study=study, heading=self.heading, verdicts=self.verdicts)


def build_tables(
    blocks: Sequence[Block], references: Mapping[str, str], findings: Findings | None = None
) -> list[Table]:
    """Summarise results.

    Parameters
    ----------
    blocks: of one study.
    references: for each grid the strategy that differences are to.
    findings: of the same blocks; without, they are found here.

    Raises
    ------
    SettingsError: if a reference did not take part.
    """
    findings = findings or find(blocks, references)
    tables = []
    for (grid, data, env, labels, batch), group in grouped(blocks, _OF_A_TABLE):
        reference = references[str(grid)]
        budget = "" if labels is None else f", {labels} labels, {batch} a step"
        name = slug(f"{grid}-{data}" + ("" if labels is None else f"-{labels}-{batch}"))
        report = _selective(group, reference) if env == SELECTIVE else _active(group, reference)
        own = (grid, data, env, labels, batch)
        verdicts = [c.line() for c in findings.comparisons if tuple(c.keys[key] for key in _OF_A_TABLE) == own]
        heading = f"{grid}: {data} on {env}{budget}; {_seeds(group)}"
        tables.append(Table(name, f"{grid}, {data}{budget}", heading, report, verdicts))
    return tables


def _selective(blocks: Sequence[Block], reference: str) -> Report:
    results: dict[str, dict[str, dict[int, Scores]]] = {}
    for (conditions, k), group in grouped(blocks, ("conditions", "k")):
        assert isinstance(k, int)
        for name, seeds in by_strategy(group).items():
            one_class = np.stack([block.one_class for block in seeds if block.one_class is not None])
            scores = Scores(stacked(seeds).mean(axis=0), one_class)
            results.setdefault(str(conditions), {}).setdefault(name, {})[k] = scores
    return build_report(results, reference)


def _active(blocks: Sequence[Block], reference: str) -> Report:
    results = {}
    for name, seeds in by_strategy(blocks).items():
        mean = np.mean([block.curve for block in seeds if block.curve is not None], axis=0)
        results[name] = Curves(seeds[0].spent, mean, np.full_like(mean, np.nan))  # the study keeps no reward curves
    keys = blocks[0].keys
    assert isinstance(keys["batch"], int)
    return build_active_report(results, reference, keys["batch"], str(keys["metric"]))


def _seeds(blocks: Sequence[Block]) -> str:
    seeds = sorted({block.keys["seed"] for block in blocks if isinstance(block.keys["seed"], int)})
    if not seeds:
        return "nothing was trained"
    counted = f"{len(seeds)} training seed{'s' if len(seeds) > 1 else ''}"
    one = f"{counted}; intervals hold for {'these' if len(seeds) > 1 else 'this'} alone"
    return one if len(seeds) == 1 else f"{one}, those of the verdicts for others too"


def slug(text: str) -> str:
    """Return a text as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "table"
