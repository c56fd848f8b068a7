"""What a study found: who is better than whom and how sure that is, as text, as plain values, and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from activelabel.evaluation.page import Element, Lines, Picture, Section, Sheet, Text
from activelabel.evaluation.ranking import Ranking, draw_critical_difference
from activelabel.evaluation.report import title
from activelabel.evaluation.statistics import Interval
from activelabel.evaluation.study.aggregates import LEVEL, RESAMPLES
from activelabel.evaluation.study.comparisons import (
    Comparison,
    Keys,
    Overall,
    Pair,
    Saving,
    compare,
    over_data_sets,
    savings,
)
from activelabel.evaluation.study.results import Block
from activelabel.evaluation.study.spec import SELECTIVE

_HOW = (
    "Differences and verdicts are over test tasks and training seeds, each pair alone; intervals are "
    f"{LEVEL * 100:g} %. Where many pairs are looked at, p is Wilcoxon's with Holm's correction for all pairs of one "
    "data set and budget; it and the ranks are of means over the training seeds that took part, and say nothing of "
    "others. Interquartile mean, optimality gap (how far scores are below 1 in the mean) and the probability that a "
    f"beats b on a task have percentile intervals of {RESAMPLES} resamples of tasks and of whole trainings, too narrow "
    "with few training seeds; no verdict depends on them. A strategy that knows the labels (the oracle) is left out."
)
_RANKS = "Strategies under one bar are not distinguishable by Nemenyi's test; "


@dataclass(frozen=True)
class Findings:
    """All comparisons of a study.

    Parameters
    ----------
    comparisons: one for each data set, budget and set of conditions.
    overall: over the data sets of a grid, where it has two or more.
    savings: labels that the reference needs for what the others have.
    """

    comparisons: list[Comparison]
    overall: list[Overall]
    savings: list[Saving]

    def verdicts(self) -> list[str]:
        """Return for each comparison one line that says which strategy leads, and what it is better than."""
        return [f"{c.keys['grid']}: {c.line()}" for c in self.comparisons]

    def warnings(self) -> list[str]:
        """Return what makes findings less sure than they look, one line each."""
        grids: dict[str, list[Comparison]] = {}
        for comparison in self.comparisons:
            grids.setdefault(str(comparison.keys["grid"]), []).append(comparison)
        return [f"{grid}: {line}" for grid, own in grids.items() for line in _warnings(own)]

    def text(self) -> str:
        """Return verdicts, warnings, and one line each for what is over data sets and for labels saved."""
        lines = []
        for comparison in self.comparisons:
            first, *rest = comparison.parts(short=True)
            lines += [f"{comparison.keys['grid']}: {first}", *(f"  {line}" for line in rest)]
        lines += [f"warning: {line}" for line in self.warnings()]
        lines += [f"{overall.keys['grid']}: {overall.line()}" for overall in self.overall]
        lines += [f"{s.keys['grid']}: {_where(s.keys)}: {_saving_line(s)}" for s in self._best_savings()]
        return "\n".join(lines)

    def _best_savings(self) -> list[Saving]:
        """Return for each curve what the strategy saves that is best with half of the labels."""
        best: dict[tuple[Any, ...], Saving] = {}
        for saving in self.savings:
            key = tuple(saving.keys.values())
            there = best.get(key)
            if there is None or (-saving.found.at, saving.found.reached) > (-there.found.at, there.found.reached):
                best[key] = saving
        return list(best.values())

    def values(self) -> dict[str, Any]:
        """Return everything as plain values; None where there is no number."""
        found: dict[str, Any] = _plain(
            {
                "level": LEVEL,
                "resamples": RESAMPLES,
                "how": _HOW,
                "verdicts": self.verdicts(),
                "warnings": self.warnings(),
                "comparisons": [_comparison_values(c) for c in self.comparisons],
                "over_data_sets": [_overall_values(o) for o in self.overall],
                "labels_saved": [
                    {
                        **s.keys,
                        "strategy": s.strategy,
                        "reference": s.reference,
                        **asdict(s.found),
                        "line": _saving_line(s),
                    }
                    for s in self.savings
                ],
            }
        )
        return found

    def sections(self) -> list[Section]:
        """Return the sections of the page: the answer, each data set of each grid, each grid over its data sets."""
        first: list[Element] = [_answers(self.comparisons)]
        if self.warnings():
            first.append(Lines(self.warnings(), "warning"))
        first.append(Lines(self.verdicts(), "verdict"))
        sections = [Section("Which strategy is better", [*first, Text(_HOW)])]
        places: dict[tuple[Any, ...], list[Comparison]] = {}
        for comparison in self.comparisons:
            places.setdefault(tuple(comparison.keys[key] for key in ("grid", "data", "env")), []).append(comparison)
        for (grid, data, env), own in places.items():
            saved = [
                s for s in self.savings if tuple(s.keys[key] for key in ("grid", "data", "env")) == (grid, data, env)
            ]
            sections.append(Section(f"All pairs: {grid}, {data}", list(_elements(own, saved))))
        for grid in dict.fromkeys(overall.keys["grid"] for overall in self.overall):
            own_grid = [overall for overall in self.overall if overall.keys["grid"] == grid]
            sections.append(Section(f"Over data sets: {grid}", list(_overall_elements(own_grid))))
        return sections


def find(blocks: Sequence[Block], references: Mapping[str, str]) -> Findings:
    """Compare all strategies of a study; deterministic.

    Parameters
    ----------
    blocks: of one study.
    references: for each grid the strategy whose labels are counted.

    Raises
    ------
    SettingsError: see :func:`~activelabel.evaluation.study.comparisons.compare`.
    """
    return Findings(compare(blocks), over_data_sets(blocks), savings(blocks, references))


# -- words -----------------------------------------------------------------------------------------------------------


def _where(keys: Keys) -> str:
    if keys["env"] == SELECTIVE:
        return f"{keys['data']}, {keys['conditions']} conditions"
    return f"{keys['data']}, {keys['labels']} labels, {keys['batch']} a step"


def _saving_line(saving: Saving) -> str:
    return saving.found.line(title(saving.strategy), title(saving.reference))


def _warnings(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield the warnings of one grid."""
    seeds = {len(own) for c in comparisons for own in c.seeds.values() if own}
    if seeds and max(seeds) == 1:
        yield "one training seed; what is said of agents holds for these trainings alone"
    if seeds and max(seeds) == 2:
        yield f"two training seeds; intervals of {LEVEL * 100:g} % then miss in up to 10 %"
    everywhere = dict.fromkeys(name for c in comparisons for name in c.means)
    for c in comparisons:
        missing = [title(name) for name in everywhere if name not in c.means]
        if missing:
            yield f"{c.where}: {', '.join(missing)} took no part"
        trained = {name: own for name, own in c.seeds.items() if own}
        if len({tuple(sorted(own)) for own in trained.values()}) > 1:
            had = "; ".join(f"{title(name)} {', '.join(map(str, own))}" for name, own in trained.items())
            yield f"{c.where}: training seeds differ ({had}); a pair is compared on those that both have"
        unsure = [p for p in c.rivals if p.verdict.says == "better" and p.test.says(LEVEL) != "better"]
        if c.leader is not None and unsure:
            names = ", ".join(f"{title(p.b)} (p = {p.test.p_holm:.2g})" for p in unsure)
            yield (
                f"{c.where}: that {title(c.leader)} is better is not sure when all {len(c.pairs)} pairs are looked at, "
                f"by Wilcoxon's test with Holm's correction: {names}"
            )


# -- plain values ----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return a value with None for NaN and infinity, which JSON does not know, and lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval(name: str, interval: Interval) -> dict[str, Any]:
    return {name: interval.mean, f"{name}_ci": [interval.low, interval.high]}


def _strategy_values(found: Comparison | Overall, name: str) -> dict[str, Any]:
    both = found.aggregates[name]
    values = {"mean": found.means[name], **_interval("iqm", both.iqm), **_interval("optimality_gap", both.gap)}
    return {"strategy": name, **values, "rank": _rank_of(found.ranking, name)}


def _comparison_values(c: Comparison) -> dict[str, Any]:
    return {
        **c.keys,
        "measure": c.measure,
        "leader": c.leader,
        "line": c.line(),
        "strategies": [{**_strategy_values(c, name), "seeds": c.seeds[name]} for name in c.means],
        "pairs": [_pair_values(pair) for pair in c.pairs],
        "ranking": None if c.ranking is None else asdict(c.ranking),
    }


def _pair_values(pair: Pair) -> dict[str, Any]:
    verdict, gap = pair.verdict, pair.verdict.difference
    return {
        "a": pair.a,
        "b": pair.b,
        **_interval("difference", gap),
        "verdict": verdict.says,
        "holds_for": gap.holds_for,
        "needs": verdict.needs(),
        "tasks_needed": verdict.tasks,
        "seeds_needed": verdict.seeds,
        "components": asdict(gap.components),
        **_interval("probability_of_improvement", pair.improvement),
        "wilcoxon": {"statistic": pair.test.statistic, "p": pair.test.p, "p_holm": pair.test.p_holm},
        "wilcoxon_verdict": pair.test.says(LEVEL),
        "line": verdict.line(title(pair.a), title(pair.b)),
    }


def _overall_values(o: Overall) -> dict[str, Any]:
    return {
        **o.keys,
        "data": o.data,
        "measure": o.measure,
        "line": o.line(),
        "left_out": o.left_out,
        "strategies": [_strategy_values(o, name) for name in o.means],
        "pairs": [
            {"a": a, "b": b, **_interval("probability_of_improvement", found)}
            for (a, b), found in o.improvements.items()
        ],
        "ranking": None if o.ranking is None else asdict(o.ranking),
    }


def _rank_of(ranking: Ranking | None, name: str) -> float | None:
    return None if ranking is None else ranking.ranks[ranking.names.index(name)]


# -- the page --------------------------------------------------------------------------------------------------------

Cell = str | float | int | None


def _answers(comparisons: Sequence[Comparison]) -> Sheet:
    """Return the leader of each comparison, and how the others stand to it."""
    heads = ("better than", "not distinguishable from")
    rows = []
    for c in comparisons:
        of = {
            says: [title(pair.b) for pair in c.rivals if pair.verdict.says == says]
            for says in ("better", "not distinguishable")
        }
        leader = None if c.leader is None else title(c.leader)
        rows.append(
            [
                c.where,
                leader,
                None if c.leader is None else c.means[c.leader],
                *(", ".join(names) or None for names in of.values()),
            ]
        )
    columns = ["where", "highest mean", "mean", *heads]
    return Sheet(columns, rows, ["", "", ".3f", "", ""], "Who leads, over test tasks and training seeds")


def _budget_columns(keys: Keys) -> dict[str, str]:
    """Return the keys that tell the rows of one data set apart, with their heads."""
    return (
        {"conditions": "conditions", "k": "K"} if keys["env"] == SELECTIVE else {"labels": "labels", "batch": "a step"}
    )


def _sheet(keys: Keys, heads: Mapping[str, str], rows: Sequence[tuple[Keys, list[Cell]]], **words: str) -> Sheet:
    """Return a table whose rows begin with budget and conditions; ``heads`` are the other columns and their formats."""
    budget = {key: head for key, head in _budget_columns(keys).items() if any(own[key] is not None for own, _ in rows)}
    cells = [[*(own[key] for key in budget), *map(_cell, row)] for own, row in rows]
    return Sheet([*budget.values(), *heads], cells, [*("" for _ in budget), *heads.values()], **words)


def _cell(value: Cell) -> Cell:
    return None if isinstance(value, float) and math.isnan(value) else value


def _three(interval: Interval) -> list[Cell]:
    return [interval.mean, interval.low, interval.high]


def _heads(name: str, of: str, form: str) -> dict[str, str]:
    return {name: form, f"{of} low": form, f"{of} high": form}


_AGGREGATES = {
    "strategy": "",
    "mean": ".4f",
    **_heads("interquartile mean", "IQM", ".4f"),
    **_heads("optimality gap", "gap", ".4f"),
    "mean rank": ".2f",
}
_PAIRS = {
    "a": "",
    "b": "",
    **_heads("a - b", "a - b", "+.4f"),
    "a is": "",
    "what would settle it": "",
    **_heads("P(a beats b)", "P", ".3f"),
    "p (Wilcoxon, Holm)": ".2g",
    "a is, of all pairs": "",
}
_SAVED = {
    "strategy": "",
    "with labels": ".0f",
    "has": ".4f",
    **_heads("reference needs", "needs", ".1f"),
    "reference does not get there": ".1%",
}


def _aggregate_row(found: Comparison | Overall, name: str) -> list[Cell]:
    both = found.aggregates[name]
    return [title(name), found.means[name], *_three(both.iqm), *_three(both.gap), _rank_of(found.ranking, name)]


def _pair_row(pair: Pair) -> list[Cell]:
    shown = pair.verdict
    row: list[Cell] = [title(pair.a), title(pair.b), *_three(shown.difference), shown.says, shown.needs()]
    return [*row, *_three(pair.improvement), pair.test.p_holm, pair.test.says(LEVEL)]


def _elements(comparisons: Sequence[Comparison], saved: Sequence[Saving]) -> Iterator[Element]:
    """Yield the tables and diagrams of one data set."""
    keys, measure = comparisons[0].keys, comparisons[0].measure
    strategies = [(c.keys, _aggregate_row(c, name)) for c in comparisons for name in c.means]
    yield _sheet(keys, _AGGREGATES, strategies, caption=f"Strategies by {measure}")
    pairs = [(c.keys, _pair_row(pair)) for c in comparisons for pair in c.pairs]
    if pairs:
        yield _sheet(keys, _PAIRS, pairs, caption=f"All pairs by {measure}; a has the higher mean")
    if saved:
        rows = [(s.keys, _saved_row(s)) for s in saved]
        caption = f"Labels that {title(saved[0].reference)} needs for what each strategy has"
        note = "By mean curves; an empty cell is beyond the budget. Intervals are over tasks, not over training seeds."
        yield _sheet(keys, _SAVED, rows, caption=caption, note=note)
    for c in comparisons:
        if c.ranking is not None:
            caption = f"Mean ranks over {c.ranking.n} test tasks of {c.where}. {_RANKS}"
            yield Picture(
                draw_critical_difference(c.ranking), f"{caption}of means over the training seeds that took part."
            )


def _saved_row(saving: Saving) -> list[Cell]:
    found = saving.found
    return [title(saving.strategy), found.at, found.reached, found.needed, found.low, found.high, found.not_reached]


def _overall_elements(overall: Sequence[Overall]) -> Iterator[Element]:
    """Yield the tables and diagrams over the data sets of one grid."""
    keys, measure = overall[0].keys, overall[0].measure
    yield Lines([o.line() for o in overall])
    out = [
        f"{o.where}: not everywhere and left out: {', '.join(map(title, o.left_out))}" for o in overall if o.left_out
    ]
    if out:
        yield Lines(out, "warning")
    strategies = [(o.keys, _aggregate_row(o, name)) for o in overall for name in o.means]
    note = "Scores of all data sets count alike."
    yield _sheet(keys, _AGGREGATES, strategies, caption=f"Strategies by {measure} over data sets", note=note)
    heads = {head: _PAIRS[head] for head in ("a", "b", *_heads("P(a beats b)", "P", ""))}
    pairs = [(o.keys, [title(a), title(b), *_three(p)]) for o in overall for (a, b), p in o.improvements.items()]
    if pairs:
        yield _sheet(keys, heads, pairs, caption="All pairs, on a task of a data set drawn at random")
    for o in overall:
        if o.ranking is not None:
            caption = f"Mean ranks over {o.ranking.n} data sets, {o.where}. {_RANKS}of means over tasks."
            yield Picture(draw_critical_difference(o.ranking), caption)
