"""The tables of Slade & Branson from a study's results, on hand-made ones whose outcome is known."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from activelabel.evaluation.page import Lines, Picture, Section, Sheet
from activelabel.evaluation.papers import Outcome, sections, text
from activelabel.evaluation.papers.outcome import Found, band
from activelabel.evaluation.papers.slade2022_numbers import (
    AGENT,
    OTHERS,
    PAPER_AFTER_10,
    PAPER_GAIN,
    PAPER_SLOWER,
    PAPER_TABLE_2,
    deviations,
    slope,
)
from activelabel.evaluation.statistics import hierarchical_difference
from activelabel.evaluation.study.results import Block
from activelabel.seeding import stream

EPISODES = 20
SEEDS = (0, 1, 2, 3, 4)
ENDS = {"random": 0.6, "margin": 0.65, "entropy": 0.7, "uncertainty": 0.63, "average-confidence": 0.6, "lal-rl": 0.5}
"""What strategies end with; DDQN is above margin, below entropy and as good as uncertainty."""


def block(grid: str, data: str, strategy: str, end: float, seed: int | None = None, **keys: Any) -> Block:
    labels, batch, spread = 50, keys.get("batch", 1), keys.get("spread", 0.01)
    steps = math.ceil(labels / batch)
    noise = stream(seed or 0, f"{grid} {data} {strategy}", batch).normal(0, spread, (EPISODES, steps + 1))
    spent = np.minimum(np.arange(steps + 1) * batch, labels)
    curve = 0.2 + (end - 0.2) * spent / labels + noise - noise.mean(axis=0)
    own = {"study": "made", "grid": grid, "data": data, "env": "ActiveLabel-v0", "conditions": "", "preset": ""}
    own |= {"strategy": strategy, "seed": seed, "k": None, "labels": labels, "batch": batch, "metric": "accuracy"}
    return Block(own, curve[:, -1], None, curve.mean(axis=1), curve)


def figure_1(data: str = "colorectal", seeds: tuple[int, ...] = SEEDS, spread: float = 0.01) -> list[Block]:
    trained = {"lal-rl": 0.5, AGENT: 0.63}
    found = [block("figure-1", data, name, end) for name, end in ENDS.items() if name not in trained]
    return found + [
        block("figure-1", data, name, end + 0.002 * (seed - 2), seed, spread=spread)
        for name, end in trained.items()
        for seed in seeds
    ]


def table_2(ends: dict[int, float]) -> list[Block]:
    return [block("table-2", "colorectal", AGENT, end, seed, batch=n) for n, end in ends.items() for seed in (0, 1, 2)]


def outcome(blocks: list[Block], **seconds: Any) -> Outcome:
    return Outcome(blocks, seconds.get("seconds", {}), {})


def rows(found: list[Section], caption: str) -> list[dict[str, Any]]:
    (one,) = [e for s in found for e in s.elements if isinstance(e, Sheet) and e.caption == caption]
    names = [f"{name} {one.columns[:i].count(name)}".removesuffix(" 0") for i, name in enumerate(one.columns)]
    return [dict(zip(names, row, strict=True)) for row in one.rows]


def claim(found: list[Section], *words: str) -> str:
    lines = [line for s in found for e in s.elements if isinstance(e, Lines) for line in e.lines]
    (one,) = [line for line in lines if all(word in line for word in words)]
    return one


def slow_band(curves: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Point by point, by scipy: 68 % intervals of the mean of ``(values, points)``."""
    ends = []
    for column in curves.T:
        error = np.sqrt(sum((v - sum(column) / len(column)) ** 2 for v in column) / (len(column) - 1) / len(column))
        ends.append(stats.t.interval(0.68, len(column) - 1, sum(column) / len(column), error))
    low, high = zip(*ends, strict=True)
    return list(low), list(high)


# -- bands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "over"),
    [((0, 1, 2, 3, 4), "5 training seeds"), ((0,), "20 episodes of one training seed"), ((None,), "20 episodes")],
)
def test_bands_are_over_seeds_or_else_over_episodes(seeds: tuple[int | None, ...], over: str) -> None:
    found = Found([block("figure-1", "colorectal", AGENT, 0.6, seed) for seed in seeds])
    curves = np.stack([b.curve for b in found.blocks if b.curve is not None])
    shown = band(found, lambda b: b.curve)
    assert shown is not None
    low, high = slow_band(curves.mean(axis=1) if len(seeds) > 1 else curves[0])
    np.testing.assert_allclose(shown.low, low)
    np.testing.assert_allclose(shown.high, high)
    np.testing.assert_allclose(shown.mean, curves.mean(axis=(0, 1)))
    assert shown.over == over


# -- Figure 1 ---------------------------------------------------------------------------------------------------------


def test_ddqn_is_compared_with_each_strategy() -> None:
    found = sections("slade2022", outcome(figure_1()))
    shown = {
        (row["DDQN minus"], row["accuracy"]): row
        for row in rows(found, "DDQN and the others")
        if row["data set"] == "colorectal"
    }
    assert shown["margin", "area"]["direction"] == "opposite"
    assert shown["random", "area"]["direction"] == shown["LAL-RL", "area"]["direction"] == "as in the paper"
    assert shown["uncertainty", "area"]["direction"] == "not distinguishable"
    assert shown["random", "in the end"]["difference"] == pytest.approx(0.03)
    assert shown["entropy", "after 10"]["difference"] == pytest.approx(-0.07 / 5)
    for name in OTHERS:
        title = {"lal-rl": "LAL-RL", "average-confidence": "average confidence"}.get(name, name)
        paper = shown[title, "after 10"]["paper"]
        assert paper == pytest.approx(PAPER_AFTER_10[AGENT][0] - PAPER_AFTER_10[name][0])
    line = claim(found, "on average above", "colorectal")
    assert all(words in line for words in ("Reproduced: LAL-RL", "Opposite: margin", "Not distinguishable: unc"))
    assert claim(found, "on average above", "pneumonia").endswith("Not measured here.")


def test_accuracies_stand_beside_the_papers() -> None:
    blocks = figure_1()
    found = {
        (r["data set"], r["strategy"]): r
        for r in rows(sections("slade2022", outcome(blocks)), "Accuracy on the test set")
    }
    ours = [b for b in blocks if b.keys["strategy"] == AGENT]
    curves = np.stack([b.curve.mean(axis=0) for b in ours if b.curve is not None])
    low, high = slow_band(curves)
    row = found["colorectal", "DDQN"]
    assert (row["after 10"], row["±"]) == pytest.approx((curves[:, 10].mean(), (high[10] - low[10]) / 2))
    assert (row["in the end"], row["± 1"]) == pytest.approx((curves[:, 50].mean(), (high[50] - low[50]) / 2))
    assert (row["paper"], row["paper ±"]) == PAPER_AFTER_10[AGENT]
    assert (row["paper 1"], row["paper ± 1"]) == PAPER_TABLE_2[1][:2]
    assert row["deviation"] == pytest.approx(np.std([b.value for b in ours]))
    assert (row["± over"], found["colorectal", "random"]["± over"]) == ("5 training seeds", "20 episodes")
    assert found["pneumonia", "DDQN"]["± over"] == "not measured here"
    assert found["pneumonia", "DDQN"]["paper"] is None


def test_the_papers_numbers_are_those_of_the_benchmark_of_corruption() -> None:
    if importlib.util.find_spec("monai") is None:
        pytest.skip("MONAI is not installed (extra monai)")
    from benchmarks.corruption import PAPER

    assert {name: numbers[0] for name, numbers in PAPER.items()} == PAPER_AFTER_10


def test_who_varies_less_is_said_by_distances_from_the_median() -> None:
    steady = sections("slade2022", outcome(figure_1(spread=0.001)))
    assert "Reproduced: uncertainty" in claim(steady, "DDQN varies less", "colorectal")
    wild = sections("slade2022", outcome(figure_1(spread=0.1)))
    assert "Opposite: uncertainty" in claim(wild, "LAL-RL varies less", "colorectal")
    found = deviations(Found([block("figure-1", "colorectal", AGENT, end, 0) for end in (0.5, 0.7)]))
    assert found is not None
    median = np.median([block("figure-1", "colorectal", AGENT, end, 0).value for end in (0.5, 0.7)])
    np.testing.assert_allclose(
        found.blocks[1].value, abs(block("figure-1", "colorectal", AGENT, 0.7, 0).value - median)
    )


def test_training_times_are_compared_seed_by_seed() -> None:
    base = np.array([10.0, 12.0, 11.0])
    keys = [("figure-1", "colorectal", name, 50, 1) for name in ("lal-rl", AGENT)]
    for factor, word in ((4.0, "Reproduced"), (0.5, "Opposite")):
        seconds = {keys[0]: factor * base * np.exp([0.01, 0, -0.01]), keys[1]: base}
        found = sections("slade2022", outcome(figure_1(), seconds=seconds))
        assert f"{word}: colorectal ({factor:.2f} times" in claim(found, str(PAPER_SLOWER))
    found = sections("slade2022", outcome(figure_1(), seconds={keys[0]: [40.0], keys[1]: [10.0]}))
    assert "Not distinguishable: colorectal (4.00 times, no interval)" in claim(found, str(PAPER_SLOWER))


# -- Figure 2 ---------------------------------------------------------------------------------------------------------


def test_the_larger_model_is_compared_with_the_smaller_one() -> None:
    large = [block("figure-2", "colorectal", AGENT, 0.68, seed, batch=2) for seed in SEEDS]
    worse = [block("figure-2", "pneumonia", AGENT, 0.6, seed, batch=2) for seed in SEEDS]
    against = [block("figure-2", "colorectal", "margin", 0.7, batch=2)]
    found = sections("slade2022", outcome([*figure_1(), *figure_1("pneumonia"), *large, *worse, *against]))
    shown = {row["data set"]: row for row in rows(found, "The larger model")}
    assert shown["colorectal"]["difference"] == pytest.approx(0.05)
    assert [shown[data]["direction"] for data in ("colorectal", "pneumonia")] == ["as in the paper", "opposite"]
    assert {data: row['paper, "up to"'] for data, row in shown.items()} == PAPER_GAIN
    assert shown["colorectal"]["largest"] == pytest.approx(0.05)
    assert shown["colorectal"]["at labels"] == 50
    assert "Opposite: colorectal, margin" in claim(found, "larger model is above")


# -- Table 2 ----------------------------------------------------------------------------------------------------------


def test_table_2_has_accuracy_and_time_beside_the_papers() -> None:
    blocks = table_2({1: 0.6, 2: 0.65, 5: 0.55, 10: 0.6})
    seconds = {("table-2", "colorectal", AGENT, 50, n): [s, 2 * s, 3 * s] for n, s in ((1, 8), (2, 4), (10, 2))}
    found = sections("slade2022", outcome(blocks, seconds=seconds))
    accuracy = {row["N"]: row for row in rows(found, "Table 2: accuracy")}
    assert {n: (row["paper"], row["paper ±"]) for n, row in accuracy.items()} == {
        n: numbers[:2] for n, numbers in PAPER_TABLE_2.items()
    }
    directions = {n: row["direction"] for n, row in accuracy.items() if n in (1, 2, 3, 5, 10)}
    assert directions == {
        **{1: "", 2: "as in the paper", 3: "not measured here", 5: "opposite", 10: "not distinguishable"},
    }
    gap = hierarchical_difference(
        np.stack([b.value for b in blocks if b.keys["batch"] == 2]),
        np.stack([b.value for b in blocks if b.keys["batch"] == 1]),
    )
    assert (accuracy[2]["minus N = 1"], accuracy[2]["low"], accuracy[2]["high"]) == (gap.mean, gap.low, gap.high)
    times = {row["N"]: row for row in rows(found, "Table 2: training time")}
    assert {n: row["paper, seconds"] for n, row in times.items()} == {n: p[2] for n, p in PAPER_TABLE_2.items()}
    shares = (times[2]["seconds"], times[2]["share of N = 1"], times[2]["paper, share"])
    assert shares == pytest.approx((8, 0.5, 1633 / 1511))
    assert [times[n]["direction"] for n in (2, 3, 10)] == ["opposite", "not measured here", "opposite"]
    assert "Opposite: N = 10, paper 4.30 times (0.25 times, 0.25 to 0.25)" in claim(found, "N > 8")


def test_no_slope_is_as_in_the_paper_and_one_is_not() -> None:
    rising = {n: Found(table_2({n: 0.5 + 0.01 * n})) for n in (2, 3, 5, 9)}
    found = slope(rising)
    assert found is not None
    assert found.mean == pytest.approx(0.01)
    values = np.stack([[b.value for b in one.blocks] for one in rising.values()])  # (N, seeds, episodes)
    slow = [[stats.linregress((2, 3, 5, 9), values[:, s, e]).slope for e in range(EPISODES)] for s in range(3)]
    expected = hierarchical_difference(slow, np.zeros(EPISODES))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert slope(dict(list(rising.items())[:2])) is None
    rising_blocks = [b for one in rising.values() for b in one.blocks]
    assert "Opposite: a label more" in claim(sections("slade2022", outcome(rising_blocks)), "slope")
    flat = table_2(dict.fromkeys((2, 3, 5, 9), 0.6))
    assert "Reproduced: a label more" in claim(sections("slade2022", outcome(flat)), "slope")


# -- all of it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_the_text_has_every_number_of_the_paper(full: bool) -> None:
    shown = text("slade2022", outcome([*figure_1(), *table_2({1: 0.6, 2: 0.6})] if full else []))
    numbers = [f"{number:.4f}" for pair in PAPER_AFTER_10.values() for number in pair]
    for accuracy, error, spent in PAPER_TABLE_2.values():
        numbers += [f"{accuracy:.4f}", f"{error:.4f}", str(spent), f"{spent / PAPER_TABLE_2[1][2]:.2f}"]
    numbers += [f"{gain:.1%}" for gain in PAPER_GAIN.values()] + [str(PAPER_SLOWER)]
    assert [number for number in numbers if number not in shown] == []


def test_partial_studies_are_no_trouble() -> None:
    for seeds in ((3,), (0, 1)):
        assert "DDQN" in text("slade2022", outcome(figure_1(seeds=seeds)))
    coarse = [block("figure-1", "colorectal", name, 0.6, batch=3) for name in ("random", "margin")]
    early = {
        r["strategy"]: r["after 10"]
        for r in rows(sections("slade2022", outcome(coarse)), "Accuracy on the test set")[7:]
    }
    assert early["random"] is None
    found = sections("slade2022", outcome(table_2({3: 0.6})))
    assert next(e.caption for s in found for e in s.elements if isinstance(e, Picture)).startswith("Figure 4")
    assert not [e for s in sections("slade2022", outcome([])) for e in s.elements if isinstance(e, Picture)]


def test_a_strategy_has_its_colour_in_every_panel() -> None:
    found = sections("slade2022", outcome([*figure_1(), *figure_1("pneumonia")[1:]]))
    figure = next(e.figure for s in found for e in s.elements if isinstance(e, Picture))
    colours: dict[Any, set[Any]] = {}
    for axis in figure.axes:
        for line in axis.lines:
            colours.setdefault(line.get_label(), set()).add(line.get_color())
    assert set(map(len, colours.values())) == {1}
    assert len({next(iter(own)) for own in colours.values()}) == len(colours) == 7
