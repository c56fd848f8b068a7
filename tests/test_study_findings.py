"""What a study says of its strategies, against scipy and loops over the same blocks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from activelabel.errors import SettingsError
from activelabel.evaluation.page import Lines, Picture, Sheet
from activelabel.evaluation.study import Block, build_tables
from activelabel.evaluation.study.aggregates import aggregate
from activelabel.evaluation.study.comparisons import Comparison, Pair
from activelabel.evaluation.study.findings import Findings, find
from activelabel.seeding import stream

TASKS, SEEDS = 30, (0, 1, 2)
TRAINED = ("ddqn", "lal-rl", "reinforce")


def made(
    grid: str, data: str, strategy: str, seed: int | None, lift: float = 0.0, k: int | None = None, n: int = TASKS
) -> Block:
    """A block of either environment, with ``k`` of SelectiveLabel-v0; a training moves all tasks alike."""
    rng = stream(0, data, strategy, 99 if seed is None else seed, k or 0)
    task = 0.05 * stream(0, data, "tasks").standard_normal(n)
    training = 0.02 * rng.standard_normal() if seed is not None else 0.0
    level = 0.6 + lift + training + task + 0.03 * rng.standard_normal(n)
    keys: dict[str, str | int | None] = {"grid": grid, "data": data, "strategy": strategy, "seed": seed, "k": k}
    keys |= {"study": "made", "preset": "", "labels": None, "batch": None}
    if k is not None:
        keys |= {"env": "SelectiveLabel-v0", "conditions": "seen", "metric": "auroc"}
        return Block(keys, level + 0.1 * math.log10(k), level > 2)
    keys |= {"env": "ActiveLabel-v0", "conditions": "", "labels": 9, "batch": 2, "metric": "accuracy"}
    curve = level[:, None] + 0.1 * np.sqrt(np.arange(6)) + 0.01 * rng.standard_normal((n, 6))
    aulc = np.array([sum((y[i] + y[i + 1]) / 2 * w for i, w in enumerate((2, 2, 2, 2, 1))) / 9 for y in curve])
    return Block(keys, curve[:, -1], None, aulc, curve)


def strategies(grid: str, data: str, names: Sequence[str], ks: Sequence[int | None] = (None,)) -> list[Block]:
    """The later a strategy is named, the better it is; the oracle is far above them."""
    return [
        made(grid, data, name, seed, 0.3 if name == "oracle" else 0.012 * i, k)
        for k in ks
        for i, name in enumerate(names)
        for seed in (SEEDS if name in TRAINED else (None,))
    ]


NAMES = ("random", "margin", "ddqn", "lal-rl", "oracle")
BLOCKS = [
    *itertools.chain(*(strategies("episodes", data, NAMES) for data in ("a", "b", "c"))),
    *strategies("once", "d", ("random", "kmedoids", "reinforce"), (5, 10, 40)),
]
REFERENCES = {"episodes": "random", "once": "random"}


@pytest.fixture(scope="module")
def findings() -> Findings:
    return find(BLOCKS, REFERENCES)


def scores(comparison: Comparison) -> dict[str, np.ndarray]:
    """``(seeds, tasks)`` by strategy, straight from the blocks."""
    found: dict[str, list[np.ndarray]] = {}
    for block in BLOCKS:
        if all(block.keys[key] == value for key, value in comparison.keys.items()):
            found.setdefault(str(block.keys["strategy"]), []).append(block.value if block.aulc is None else block.aulc)
    return {name: np.array(rows) for name, rows in found.items() if name != "oracle"}


def pairs(findings: Findings) -> list[tuple[Pair, np.ndarray, np.ndarray]]:
    return [(p, scores(c)[p.a], scores(c)[p.b]) for c in findings.comparisons for p in c.pairs]


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_every_pair_meets_once_in_every_place(findings: Findings) -> None:
    assert [(c.keys["data"], c.keys["k"]) for c in findings.comparisons] == [
        *(("a", None), ("b", None), ("c", None)),
        *(("d", 5), ("d", 10), ("d", 40)),
    ]
    for c in findings.comparisons:
        names = set(scores(c))
        assert {frozenset((p.a, p.b)) for p in c.pairs} == {frozenset(x) for x in itertools.combinations(names, 2)}
        assert c.means == pytest.approx({name: rows.mean() for name, rows in scores(c).items()})
        assert list(c.means.values()) == sorted(c.means.values(), reverse=True)
        assert [p.b for p in c.rivals] == list(c.means)[1:]


def interval_by_loops(d: np.ndarray) -> tuple[float, float]:
    """The definition in crossed_intervals, on sums of squares in loops."""
    n_seeds, n_tasks = d.shape
    if n_seeds == 1:
        found = stats.ttest_1samp(d[0], 0).confidence_interval()
        return float(found.low), float(found.high)
    mean = d.mean()
    seed = n_tasks * sum((d[s].mean() - mean) ** 2 for s in range(n_seeds)) / (n_seeds - 1)
    task = n_seeds * sum((d[:, t].mean() - mean) ** 2 for t in range(n_tasks)) / (n_tasks - 1)
    rest = 0.0
    for s, t in itertools.product(range(n_seeds), range(n_tasks)):
        rest += (d[s, t] - d[s].mean() - d[:, t].mean() + mean) ** 2
    rest /= (n_seeds - 1) * (n_tasks - 1)
    c = stats.chi2.median(n_seeds - 1) / (n_seeds - 1)
    t_seed, t_task = stats.t.ppf(0.975, n_seeds - 1), stats.t.ppf(0.975, n_tasks - 1)
    squared = t_seed**2 * max(seed - c * rest, 0) + t_task**2 * (max(task, rest) - (1 - c) * rest)
    half = math.sqrt(max(squared, t_task**2 * max(task, rest)) / (n_seeds * n_tasks))
    return mean - half, mean + half


def test_differences_are_over_tasks_and_training_seeds(findings: Findings) -> None:
    said = set()
    for pair, a, b in pairs(findings):
        d, found = a - b, pair.verdict.difference
        low, high = interval_by_loops(d)
        assert (found.mean, found.low, found.high) == pytest.approx((d.mean(), low, high))
        assert (found.n, found.seeds) == (TASKS, 3 if {pair.a, pair.b} & set(TRAINED) else 0)
        assert pair.verdict.says == ("better" if low > 0 else "not distinguishable")
        assert (pair.verdict.needs() == "settled") == (low > 0)
        said.add(pair.verdict.says)
    assert said == {"better", "not distinguishable"}


def test_wilcoxon_is_scipys_corrected_by_holms_definition(findings: Findings) -> None:
    for c in findings.comparisons:
        own = scores(c)
        p = [stats.wilcoxon(own[pair.a].mean(0), own[pair.b].mean(0)).pvalue for pair in c.pairs]
        assert [pair.test.p for pair in c.pairs] == pytest.approx(p)
        for pair, mine in zip(c.pairs, p, strict=True):
            smaller = [other for other in p if other <= mine]
            expected = max((len(p) - sorted(p).index(other)) * other for other in smaller)
            assert pair.test.p_holm == pytest.approx(min(1, expected))


def test_probability_of_improvement_is_mann_whitneys(findings: Findings) -> None:
    for pair, a, b in pairs(findings)[::5]:
        won = [stats.mannwhitneyu(a[:, t], b[:, t]).statistic / (len(a) * len(b)) for t in range(TASKS)]
        assert pair.improvement.mean == pytest.approx(np.mean(won))
        assert pair.improvement.low <= pair.improvement.mean <= pair.improvement.high


# -- aggregates ------------------------------------------------------------------------------------------------------


def test_aggregates_are_those_of_all_scores(findings: Findings) -> None:
    for c in findings.comparisons:
        for name, rows in scores(c).items():
            found = c.aggregates[name]
            assert found.iqm.mean == pytest.approx(stats.trim_mean(rows, 0.25, axis=None))
            assert found.gap.mean == pytest.approx(np.mean([max(1 - x, 0) for x in rows.ravel()]))
            assert found.iqm.low < found.iqm.mean < found.iqm.high
    overall = findings.overall[0]
    of_data = [scores(c) for c in findings.comparisons[:3]]
    for name in ("random", "margin", "ddqn", "lal-rl"):
        together = np.concatenate([own[name] for own in of_data], axis=None)
        assert overall.aggregates[name].iqm.mean == pytest.approx(stats.trim_mean(together, 0.25))
        assert overall.means[name] == pytest.approx(np.mean([own[name].mean() for own in of_data]))
    for (a, b), improvement in overall.improvements.items():
        won = [x > y for own in of_data for t in range(TASKS) for x in own[a][:, t] for y in own[b][:, t]]
        assert improvement.mean == pytest.approx(np.mean(won))


def test_intervals_of_aggregates_are_those_of_a_loop() -> None:
    """Other random numbers, so that it is the distribution that agrees; two data sets, one of wild trainings."""
    rng = stream(0, "loop")
    parts = {
        name: [rng.normal(0.5, spread, (4, 1)) + 0.1 * rng.standard_normal((4, n)) for spread, n in ((0.3, 12), (0, 8))]
        for name in ("x", "y")
    }
    draws: dict[str, list[float]] = {"iqm": [], "gap": [], "improvement": []}
    for _ in range(1500):
        tasks = [rng.integers(n, size=n) for n in (12, 8)]
        drawn = {}
        for name, arrays in parts.items():
            seeds = [rng.integers(4, size=4) for _ in arrays]
            chosen = [x[np.ix_(s, t)] for x, s, t in zip(arrays, seeds, tasks, strict=True)]
            drawn[name] = np.concatenate(chosen, axis=1)
        draws["iqm"].append(stats.trim_mean(drawn["x"], 0.25, axis=None))
        draws["gap"].append(np.maximum(1 - drawn["x"], 0).mean())
        draws["improvement"].append((drawn["x"][:, None] > drawn["y"][None]).mean())
    aggregates, improvements = aggregate(parts, n_boot=4000)
    for key, found in (
        *(("iqm", aggregates["x"].iqm), ("gap", aggregates["x"].gap)),
        ("improvement", improvements["x", "y"]),
    ):
        expected = np.quantile(draws[key], [0.025, 0.975])
        assert (found.low, found.high) == pytest.approx(expected, abs=0.08 * float(expected[1] - expected[0])), key


def test_resampling_in_pieces_changes_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"x": [stream(0, "p").random((3, 20))]}
    whole = aggregate(parts)[0]["x"].iqm
    monkeypatch.setattr("activelabel.evaluation.study.aggregates._NUMBERS", 200)
    pieces = aggregate(parts)[0]["x"].iqm
    assert pieces.mean == whole.mean
    assert pieces.low == pytest.approx(whole.low, abs=0.1 * (whole.high - whole.low))


# -- ranks and labels ------------------------------------------------------------------------------------------------


def test_ranks_are_of_mean_scores_on_tasks_and_on_data_sets(findings: Findings) -> None:
    tables = [{name: rows.mean(0) for name, rows in scores(c).items()} for c in findings.comparisons]
    overall = findings.overall[0]
    over_sets = {name: np.array([table[name].mean() for table in tables[:3]]) for name in tables[0]}
    rankings = [*(c.ranking for c in findings.comparisons), overall.ranking]
    assert [r.n for r in rankings if r is not None] == [*[TASKS] * 6, 3]
    for table, ranking in zip([*tables, over_sets], rankings, strict=True):
        assert ranking is not None
        ranks = dict(zip(ranking.names, ranking.ranks, strict=True))
        for name, own in table.items():
            places = [1 + sum(other[t] > own[t] for other in table.values()) for t in range(len(own))]
            assert ranks[name] == pytest.approx(np.mean(places))
        assert ranking.p == pytest.approx(stats.friedmanchisquare(*table.values()).pvalue)


def test_labels_saved_are_read_off_the_mean_curves(findings: Findings) -> None:
    labels = {"episodes": [0, 2, 4, 6, 8, 9], "once": [5, 10, 40]}
    assert {(s.keys["data"], s.strategy, s.found.at) for s in findings.savings} == {
        *itertools.product("abc", ("margin", "ddqn", "lal-rl"), (6, 9)),
        *itertools.product("d", ("kmedoids", "reinforce"), (10, 40)),
    }
    reached = 0
    for saving in findings.savings:
        x = labels[str(saving.keys["grid"])]
        curves = []
        for name in (saving.strategy, "random"):
            own = [b for b in BLOCKS if (b.keys["data"], b.keys["strategy"]) == (saving.keys["data"], name)]
            if own[0].curve is not None:
                curves.append(np.mean([b.curve for b in own if b.curve is not None], axis=(0, 1)))
            else:
                curves.append([np.mean([b.value for b in own if b.keys["k"] == k]) for k in x])
        goal = np.interp(saving.found.at, x, curves[0])
        assert saving.found.reached == pytest.approx(goal)
        fine = np.linspace(x[0], x[-1], 200_001)
        there = np.interp(fine, x, curves[1]) >= goal
        if there.any():
            assert saving.found.needed == pytest.approx(fine[there.argmax()], abs=1e-3)
            reached += 1
        else:
            assert math.isnan(saving.found.needed)
    assert 0 < reached < len(findings.savings)


# -- what is said of it ----------------------------------------------------------------------------------------------


def test_the_oracle_is_neither_recommended_nor_ranked(findings: Findings) -> None:
    assert max(BLOCKS[:15], key=lambda b: b.value.mean()).keys["strategy"] == "oracle"
    values = findings.values()
    del values["how"]
    assert "oracle" not in json.dumps(values) + findings.text()


def test_values_are_json_and_the_same_again(findings: Findings) -> None:
    text = json.dumps(findings.values(), allow_nan=False)
    assert json.dumps(find(BLOCKS, REFERENCES).values(), allow_nan=False) == text
    values = json.loads(text)
    pair, found = values["comparisons"][0]["pairs"][0], findings.comparisons[0].pairs[0]
    assert pair["difference_ci"] == [found.verdict.difference.low, found.verdict.difference.high]
    assert (pair["verdict"], pair["needs"]) == (found.verdict.says, found.verdict.needs())
    assert pair["wilcoxon"]["p_holm"] == found.test.p_holm
    assert values["over_data_sets"][0]["data"] == ["a", "b", "c"]
    beyond = [s for s in findings.savings if math.isnan(s.found.needed)]
    assert sum(s["needed"] is None for s in values["labels_saved"]) == len(beyond)


def test_sections_hold_every_pair_and_diagram(findings: Findings) -> None:
    sections = findings.sections()
    titles = [
        "Which strategy is better",
        *(f"All pairs: {where}" for where in ("episodes, a", "episodes, b", "episodes, c", "once, d")),
    ]
    assert [s.title for s in sections] == [*titles, "Over data sets: episodes"]
    elements = [e for s in sections for e in s.elements]
    assert next(e.lines for e in elements if isinstance(e, Lines) and e.kind == "verdict") == findings.verdicts()
    assert sum(isinstance(e, Picture) for e in elements) == 7
    assert sum(isinstance(e, Picture) and "3 data sets" in e.caption for e in elements) == 1
    for sheet in (e for e in elements if isinstance(e, Sheet)):
        assert len(sheet.columns) == len(sheet.formats) == len(set(sheet.columns))
        for row in sheet.rows:
            assert len(row) == len(sheet.columns)
            for cell, form in zip(row, sheet.formats, strict=True):
                assert cell is None or format(cell, form) not in ("", "nan")
    once = [e for e in sections[4].elements if isinstance(e, Sheet)]
    assert [len(sheet.rows) for sheet in once] == [9, 9, 4]
    assert list(once[1].columns[:4]) == ["conditions", "K", "a", "b"]
    assert list(once[2].columns[:2]) == ["conditions", "strategy"]


def test_text_has_verdicts_then_warnings_then_the_rest() -> None:
    lines = find([b for b in BLOCKS if b.keys["seed"] in (0, None)], REFERENCES).text().splitlines()
    kinds = ["warning" if s.startswith("warning: ") else "more" if " has with " in s else "verdict" for s in lines]
    kinds = ["more" if ": over " in s else kind for s, kind in zip(lines, kinds, strict=True)]
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["verdict", "warning", "more"]
    assert kinds.count("more") == 1 + 4
    assert "warning: episodes: one training seed; what is said of agents holds for these trainings alone" in lines


def test_a_verdict_of_tables_is_that_of_the_findings(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("found twice")

    monkeypatch.setattr("activelabel.evaluation.study.tables.find", refuse)
    tables = build_tables(BLOCKS, REFERENCES, findings)
    assert [t.verdicts for t in tables] == [
        *([c.line()] for c in findings.comparisons[:3]),
        [c.line() for c in findings.comparisons[3:]],
    ]


# -- what is missing -------------------------------------------------------------------------------------------------


def every_form(blocks: Sequence[Block]) -> Findings:
    """Findings, without data set c, whose text, values and sections can all be made."""
    found = find([b for b in blocks if b.keys["data"] != "c"], REFERENCES)
    json.dumps(found.values(), allow_nan=False)
    assert found.text()
    assert found.sections()
    return found


def test_a_strategy_that_is_missing_somewhere() -> None:
    left = [b for b in BLOCKS if (b.keys["strategy"], b.keys["data"]) != ("ddqn", "b")]
    left = [b for b in left if (b.keys["strategy"], b.keys["k"]) != ("kmedoids", 10)]
    found = every_form(left)
    assert "episodes: b, 9 labels, 2 a step: DDQN took no part" in found.warnings()
    assert "once: d, seen conditions, K = 10: K-Medoids took no part" in found.warnings()
    assert found.overall[0].left_out == ("ddqn",)
    assert "ddqn" not in found.overall[0].means
    assert {s.strategy for s in found.savings if s.keys["data"] == "d"} == {"reinforce"}  # two values of K are too few
    without = [b for b in BLOCKS if b.keys["strategy"] != "random" or b.keys["data"] != "d"]
    assert all(s.keys["data"] != "d" for s in find(without, REFERENCES).savings)


def test_one_seed_and_no_training_at_all() -> None:
    one = every_form([b for b in BLOCKS if b.keys["seed"] in (0, None)])
    assert {p.verdict.difference.seeds for c in one.comparisons for p in c.pairs} == {0, 1}
    none = every_form([b for b in BLOCKS if b.keys["seed"] is None])
    assert {p.verdict.difference.seeds for c in none.comparisons for p in c.pairs} == {0}
    assert not any("seed" in line for line in none.warnings())
    assert all(c.ranking is None for c in none.comparisons)
    assert math.isfinite(none.comparisons[0].aggregates["random"].iqm.low)


def test_strategies_of_different_seeds_are_compared_on_those_that_both_have() -> None:
    blocks = [b for b in BLOCKS if b.keys["data"] == "a" and b.keys["strategy"] in ("ddqn", "lal-rl")]
    ddqn, lal = blocks[:3], blocks[3:]
    found = every_form([ddqn[0], *lal[::-1]])
    pair = found.comparisons[0].pairs[0]
    ours, theirs = (lal[0].aulc, ddqn[0].aulc) if pair.a == "lal-rl" else (ddqn[0].aulc, lal[0].aulc)
    assert ours is not None
    assert theirs is not None
    assert pair.verdict.difference.mean == pytest.approx((ours - theirs).mean())
    assert pair.verdict.difference.seeds == 1
    assert any("training seeds differ" in line for line in found.warnings())
    with pytest.raises(SettingsError, match=r"ddqn \(0\).* have no training seed in common"):
        find([ddqn[0], *lal[1:]], REFERENCES)


def test_few_strategies_and_one_task() -> None:
    one = every_form([b for b in BLOCKS if b.keys["strategy"] == "random"])
    assert all(not c.pairs and c.leader == "random" for c in one.comparisons)
    known = every_form([b for b in BLOCKS if b.keys["strategy"] == "oracle"])
    assert known.comparisons[0].line() == "a, 9 labels, 2 a step: no strategy but the oracle took part"

    def cut(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[:1]

    short = [replace(b, value=b.value[:1], aulc=cut(b.aulc), curve=cut(b.curve)) for b in BLOCKS]
    found = every_form(short)
    assert all(math.isnan(p.verdict.difference.low) for c in found.comparisons for p in c.pairs)
    assert math.isnan(found.comparisons[0].aggregates["random"].iqm.low)


def test_a_lead_that_many_pairs_make_unsure_is_a_warning() -> None:
    rng = stream(0, "unsure")
    tasks = rng.standard_normal(60)
    own = {"random": 0.0, **{f"s{i}": 0.0 for i in range(6)}, "margin": 0.12}
    base = made("episodes", "a", "random", None, n=60)
    blocks = []
    for name, lift in own.items():
        value = tasks + lift + 0.25 * rng.standard_normal(60)
        blocks.append(replace(base, keys={**base.keys, "strategy": name}, value=value, aulc=None))
    found = find(blocks, REFERENCES)
    c = found.comparisons[0]
    expected = [p.b for p in c.rivals if p.verdict.difference.low > 0 and p.test.p_holm >= 0.05]
    assert 0 < len(expected) < len(c.rivals)
    warning = next(line for line in found.warnings() if "28 pairs" in line)
    assert all(f"{name} (p = " in warning for name in expected)
    assert warning.count("(p = ") == len(expected)
