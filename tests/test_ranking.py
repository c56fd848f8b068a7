"""Many strategies: tests of pairs, ranks and the critical difference, against scipy and published figures."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from activelabel.errors import SettingsError
from activelabel.evaluation.ranking import (
    Ranking,
    critical_difference,
    draw_critical_difference,
    holm,
    mean_ranks,
    rank,
    wilcoxon_holm,
)
from activelabel.seeding import stream

# AUC of four decision trees on 14 data sets: Demšar 2006, Table 6. The last but one of C4.5+cf is printed there as
# 0.975, as that of C4.5+m+cf is, and ranked before it.
PUBLISHED = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.9751, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.970],
}


def made(n: int, **above: float) -> dict[str, np.ndarray]:
    rng = stream(n, "made")
    return {name: value + rng.standard_normal(n) for name, value in above.items()}


# -- all pairs -----------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.9]) == pytest.approx([1, 1, 1])
    assert holm([0.02]) == pytest.approx([0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_definition(p: list[float]) -> None:
    order = sorted(range(len(p)), key=lambda i: p[i])
    for place, i in enumerate(order):
        expected = max(min(1, (len(p) - j) * p[order[j]]) for j in range(place + 1))
        assert holm(p)[i] == pytest.approx(expected)


def test_holm_is_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = stream(0, "p").random(30) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


@pytest.mark.parametrize("n", [8, 30, 80])
def test_each_pair_is_scipys(n: int) -> None:
    scores = made(n, random=0, margin=0.3, reinforce=1.5)
    scores["margin"][:3] = scores["random"][:3]  # no difference on three tasks
    found = wilcoxon_holm(scores)
    assert [(test.a, test.b) for test in found] == list(itertools.combinations(scores, 2))
    for test in found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # older versions warn of a normal approximation
            expected = stats.wilcoxon(scores[test.a], scores[test.b])
        assert (test.statistic, test.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert test.difference == pytest.approx(scores[test.a].mean() - scores[test.b].mean())
        assert test.n == n
    assert [test.p_holm for test in found] == pytest.approx(holm([test.p for test in found]))


def test_what_a_pair_says() -> None:
    scores = made(40, low=0, high=2)
    scores |= {"same": scores["high"].copy()}
    found = {(test.a, test.b): test for test in wilcoxon_holm(scores)}
    assert found["low", "high"].says() == "worse"
    assert found["high", "same"].says() == "not distinguishable"
    assert found["high", "same"].p == found["high", "same"].p_holm == 1
    backwards = wilcoxon_holm({"high": scores["high"], "low": scores["low"]})[0]
    assert backwards.says() == "better"
    assert backwards.says(1 - backwards.p_holm / 2) == "not distinguishable"


# -- ranks ---------------------------------------------------------------------------------------------------------


def test_ranks_are_the_published_ones() -> None:
    found = rank(PUBLISHED)
    ranks = dict(zip(found.names, found.ranks, strict=True))
    assert [ranks[name] for name in PUBLISHED] == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert mean_ranks(PUBLISHED) == pytest.approx(ranks)
    assert found.names[0] == "C4.5+m+cf"
    # Published without the correction for ties: 9.28.
    plain = 12 * 14 / 20 * (sum(r**2 for r in found.ranks) - 4 * 25 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    expected = stats.friedmanchisquare(*PUBLISHED.values())
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.statistic > plain
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert found.cliques == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    assert rank(PUBLISHED, 0.90).critical == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(
    ("k", "level", "q"), [(2, 0.95, 1.960), (5, 0.95, 2.728), (10, 0.95, 3.164), (2, 0.9, 1.645), (10, 0.9, 2.920)]
)
def test_critical_difference_has_the_published_quantiles(k: int, level: float, q: float) -> None:
    assert critical_difference(k, 30, level) / np.sqrt(k * (k + 1) / 180) == pytest.approx(q, abs=1e-3)


def test_groups_are_as_large_as_possible() -> None:
    n = 20  # the critical difference of five strategies is 1.364
    best = np.arange(n, dtype=float)
    found = rank({"e": best, "a": best + 4, "b": best + 3, "d": best + 1, "c": best + 2})
    assert found.names == ("a", "b", "c", "d", "e")
    assert found.ranks == (1, 2, 3, 4, 5)
    assert found.critical == pytest.approx(2.728 * np.sqrt(30 / 120), abs=1e-3)
    assert found.cliques == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert len(rank(made(5, a=0, b=0.1, c=0.2)).cliques) == 1
    apart = {"a": best + 9, "b": best + 5, "c": best}
    assert rank({name: np.tile(x, 5) for name, x in apart.items()}).cliques == ()


def test_strategies_that_are_equal_everywhere() -> None:
    found = rank(dict.fromkeys("abc", np.arange(6.0)))
    assert (found.ranks, found.p) == ((2, 2, 2), 1)
    assert found.cliques == (("a", "b", "c"),)


@pytest.mark.parametrize(
    ("function", "scores", "match"),
    [
        (rank, {"a": [1, 2], "b": [2, 1]}, "at least 3"),
        (wilcoxon_holm, {"a": [1, 2]}, "at least 2"),
        (rank, {"a": [1, 2], "b": [2, 1], "c": [1]}, r"c \(1,\)"),
        (rank, {"a": [[1, 2]], "b": [[2, 1]], "c": [[1, 1]]}, "one score on each"),
        (wilcoxon_holm, {"a": [], "b": []}, "one score on each"),
        (wilcoxon_holm, {"a": [1, np.nan], "b": [2, 1]}, "those of a are not"),
    ],
)
def test_bad_scores_are_refused(function: Any, scores: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        function(scores)
    with pytest.raises(SettingsError, match="k=1"):
        critical_difference(1, 5)


def lines_of(figure: Figure, width: float) -> list[tuple[float, float]]:
    """Return where lines of a width begin and end."""
    lines = [line for line in figure.axes[0].lines if line.get_linewidth() == width]
    return [(float(np.min(line.get_xdata())), float(np.max(line.get_xdata()))) for line in lines]


@pytest.mark.parametrize("names", ["abc", "abcd", "abcdefghijk"])
def test_the_diagram_shows_ranks_groups_and_the_critical_difference(names: str) -> None:
    ranking = rank(made(15, **{name: i / 3 for i, name in enumerate(names)}))
    figure = draw_critical_difference(ranking)
    figure.canvas.draw()
    texts = " | ".join(text.get_text() for text in figure.axes[0].texts)
    for name, value in zip(ranking.names, ranking.ranks, strict=True):
        assert f"{name}  {value:.2f}" in texts or f"{value:.2f}  {name}" in texts
    assert f"critical difference {ranking.critical:.2f} (95 %, n = 15)" in texts
    places = dict(zip(ranking.names, ranking.ranks, strict=True))
    bars = [(places[clique[0]], places[clique[-1]]) for clique in ranking.cliques]
    assert np.array(lines_of(figure, 3.5)) == pytest.approx(np.array(bars), abs=0.05)
    assert (1.0, 1.0 + ranking.critical) in lines_of(figure, 1.5)


def test_the_diagram_calls_strategies_by_their_titles() -> None:
    ranking = Ranking(("ddqn", "kmedoids", "random"), (1.2, 1.9, 2.9), 9, 8.0, 0.02, 1.1, 0.95, (("ddqn", "kmedoids"),))
    texts = " | ".join(text.get_text() for text in draw_critical_difference(ranking).axes[0].texts)
    assert "DDQN" in texts
    assert "K-Medoids" in texts
