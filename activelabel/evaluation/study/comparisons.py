"""Every strategy of a study against every other, on each data set, budget and set of conditions, and over data sets."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError
from activelabel.evaluation.bootstrap import LabelsSaved, labels_saved
from activelabel.evaluation.ranking import PairTest, Ranking, rank, wilcoxon_holm
from activelabel.evaluation.report import title
from activelabel.evaluation.statistics import FloatArray, Interval, Verdict, hierarchical_difference, judge
from activelabel.evaluation.study.aggregates import LEVEL, RESAMPLES, Aggregate, Improvements, aggregate
from activelabel.evaluation.study.results import Block
from activelabel.evaluation.study.spec import SELECTIVE

Keys = dict[str, str | int | None]

PLACE = ("grid", "data", "env", "conditions", "k", "labels", "batch", "metric")
"""Keys of the blocks that are compared with each other."""

_NO_STRATEGY = ("oracle",)
"""What knows the labels: it is compared with nothing, recommended nowhere, and has no rank."""


def grouped(blocks: Iterable[Block], keys: Sequence[str]) -> list[tuple[tuple[str | int | None, ...], list[Block]]]:
    """Return blocks that agree in some keys, in order of first appearance."""
    found: dict[tuple[str | int | None, ...], list[Block]] = {}
    for block in blocks:
        found.setdefault(tuple(block.keys[key] for key in keys), []).append(block)
    return list(found.items())


def by_strategy(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    """Return the blocks of each strategy: one for each training seed."""
    return {str(name): found for (name,), found in grouped(blocks, ("strategy",))}


def stacked(blocks: Sequence[Block]) -> FloatArray:
    """Return what a study compares by, ``(seeds, tasks)``: the area under the curve of episodes, else the value."""
    return np.stack([block.value if block.aulc is None else block.aulc for block in blocks])


# -- one data set, budget and set of conditions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same test tasks.

    Parameters
    ----------
    a, b: the strategies, the one with the higher mean first.
    verdict: of a, over tasks and training seeds, for this pair alone.
    test: Wilcoxon's, on means over training seeds, corrected for all pairs of the comparison.
    improvement: how probably a beats b on a task; see :func:`aggregate`.
    """

    a: str
    b: str
    verdict: Verdict
    test: PairTest
    improvement: Interval


@dataclass(frozen=True)
class Comparison:
    """All strategies on one data set, one budget and one set of conditions; the oracle takes no part.

    Parameters
    ----------
    keys: a value for each of :data:`PLACE`.
    measure: what is compared.
    means: over tasks and training seeds, the highest first.
    seeds: of training; none for a strategy that is not trained.
    aggregates: by strategy.
    pairs: all, in the order of ``means``.
    ranking: over the test tasks, of means over training seeds; None with fewer than three strategies.
    """

    keys: Keys
    measure: str
    means: dict[str, float]
    seeds: dict[str, tuple[int, ...]]
    aggregates: dict[str, Aggregate]
    pairs: list[Pair]
    ranking: Ranking | None

    @property
    def where(self) -> str:
        """Data set, budget and conditions, in words."""
        return f"{self.keys['data']}, {budget_in_words(self.keys)}"

    @property
    def leader(self) -> str | None:
        """The strategy with the highest mean."""
        return next(iter(self.means), None)

    @property
    def rivals(self) -> list[Pair]:
        """The leader with each of the others."""
        return [pair for pair in self.pairs if pair.a == self.leader]

    def parts(self, short: bool = False) -> list[str]:
        """Return in words which strategy has the highest mean, which it is better than, and which not.

        With ``short`` nothing is said of how many tasks and training seeds an interval holds for.
        """
        if self.leader is None:
            return [f"{self.where}: no strategy but the oracle took part"]
        parts = [f"{self.where}: highest mean {self.measure}: {title(self.leader)}, {self.means[self.leader]:.3f}"]
        found: dict[str, list[str]] = {}
        for pair in self.rivals:
            gap = pair.verdict.difference
            said = f"{title(pair.b)} ({gap.mean:+.3f}; {gap.low:+.3f} to {gap.high:+.3f}"
            said += "" if short else f"; {gap.holds_for}"
            said += f"; {pair.verdict.needs()})" if pair.verdict.says == "not distinguishable" else ")"
            found.setdefault(pair.verdict.says, []).append(said)
        words = {
            "better": "better than",
            "not distinguishable": "not distinguishable from",
            "worse": "worse, on the training seeds that both have, than",
        }
        return parts + [f"{words[says]} {', '.join(found[says])}" for says in words if says in found]

    def line(self) -> str:
        """Return :meth:`parts` in one line."""
        return "; ".join(self.parts())


def budget_in_words(keys: Mapping[str, str | int | None]) -> str:
    """Return what may be labelled and, for ``SelectiveLabel-v0``, of which conditions."""
    if keys["env"] == SELECTIVE:
        return f"{keys['conditions']} conditions, K = {keys['k']}"
    return f"{keys['labels']} labels, {keys['batch']} a step"


def compare(blocks: Sequence[Block]) -> list[Comparison]:
    """Compare the strategies of a study wherever they met, in order of first appearance.

    Differences and verdicts are those of :func:`~activelabel.evaluation.statistics.hierarchical_difference`: over
    tasks and the training seeds that both strategies have.

    Raises
    ------
    SettingsError: if two strategies were trained, but have no training seed or not the same number of tasks in common.
    """
    return [_compare(dict(zip(PLACE, values, strict=True)), group) for values, group in grouped(blocks, PLACE)]


def _compare(keys: Keys, blocks: Sequence[Block]) -> Comparison:
    found = _strategies(blocks)
    seeds = {name: _seeds(own) for name, own in found.items()}
    scores = {name: stacked(own) for name, own in found.items()}
    means = {name: float(x.mean()) for name, x in scores.items()}
    means = dict(sorted(means.items(), key=lambda item: -item[1]))
    by_task = {name: scores[name].mean(0) for name in means}
    aggregates, improvements = aggregate({name: [scores[name]] for name in means}) if means else ({}, {})
    tests = wilcoxon_holm(by_task) if len(means) > 1 else []
    pairs = [
        Pair(t.a, t.b, _verdict(found[t.a], found[t.b]), t, improvements[t.a, t.b])
        for t in tests  # of all pairs, in the order of the means
    ]
    ranking = rank(by_task, LEVEL) if len(means) > 2 else None
    return Comparison(
        keys, _measure(blocks[0]), means, {name: seeds[name] for name in means}, aggregates, pairs, ranking
    )


def _strategies(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    return {name: found for name, found in by_strategy(blocks).items() if name not in _NO_STRATEGY}


def _measure(block: Block) -> str:
    return str(block.keys["metric"]) if block.aulc is None else f"area under {block.keys['metric']}"


def _seeds(blocks: Sequence[Block]) -> tuple[int, ...]:
    return tuple(seed for block in blocks if isinstance(seed := block.keys["seed"], int))


def _verdict(a: Sequence[Block], b: Sequence[Block]) -> Verdict:
    """Judge a against b on the training seeds that both have."""
    of_a, of_b = set(_seeds(a)), set(_seeds(b))
    shared = of_a & of_b if of_a and of_b else of_a | of_b
    if of_a and of_b and not shared:
        names = " and ".join(f"{x[0].keys['strategy']} ({', '.join(map(str, _seeds(x)))})" for x in (a, b))
        raise SettingsError(f"{names} have no training seed in common; give all strategies of a grid the same.")
    return judge(hierarchical_difference(_rows(a, shared), _rows(b, shared), LEVEL))


def _rows(blocks: Sequence[Block], seeds: Container[int]) -> FloatArray:
    """Return scores ``(seeds, tasks)`` in the order of the seeds, or ``(tasks,)`` of what is not trained."""
    if not _seeds(blocks):
        return blocks[0].value if blocks[0].aulc is None else blocks[0].aulc
    ordered = sorted(zip(_seeds(blocks), blocks, strict=True), key=lambda own: own[0])
    return stacked([block for seed, block in ordered if seed in seeds])


# -- over data sets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overall:
    """The strategies of a grid over its data sets, at one budget and for one set of conditions.

    Parameters
    ----------
    keys: a value for each of :data:`PLACE` but ``data``.
    measure: what is compared; the same on all data sets.
    data: the data sets, two or more.
    means: over data sets, the highest first; of the strategies that took part in all, with the same seeds.
    left_out: the other strategies.
    aggregates: by strategy, of the scores on all data sets.
    improvements: by pair, in the order of ``means``: on a task of a data set drawn at random.
    ranking: over data sets, of means over tasks and training seeds; None with fewer than three data sets or strategies.
    """

    keys: Keys
    measure: str
    data: tuple[str, ...]
    means: dict[str, float]
    left_out: tuple[str, ...]
    aggregates: dict[str, Aggregate]
    improvements: Improvements
    ranking: Ranking | None

    @property
    def where(self) -> str:
        """Data sets, budget and conditions, in words."""
        return f"over {', '.join(self.data)}, {budget_in_words(self.keys)}"

    def line(self) -> str:
        """Return which strategy has the highest interquartile mean and which the best mean rank, in words."""
        best = max(self.aggregates, key=lambda name: self.aggregates[name].iqm.mean)
        figures = self.aggregates[best].iqm
        text = f"{self.where}: highest interquartile mean of {self.measure}: {title(best)}, {figures.mean:.3f}"
        text += f" ({figures.low:.3f} to {figures.high:.3f})"
        if self.ranking is None:
            return text
        return f"{text}; best mean rank: {title(self.ranking.names[0])}, {self.ranking.ranks[0]:.2f}"


def over_data_sets(blocks: Sequence[Block]) -> list[Overall]:
    """Aggregate over the data sets of each grid that have budget, conditions and metric in common.

    All metrics are shares of 1, so that scores of several data sets can be put together; a data set on which all score
    alike counts with as many scores as one on which they do not.
    """
    keys = tuple(key for key in PLACE if key != "data")
    found = [_overall(dict(zip(keys, values, strict=True)), group) for values, group in grouped(blocks, keys)]
    return [overall for overall in found if overall is not None]


def _overall(keys: Keys, blocks: Sequence[Block]) -> Overall | None:
    sets = {str(data): _strategies(own) for (data,), own in grouped(blocks, ("data",))}
    names = list(_strategies(blocks))
    complete = [name for name in names if len({_seeds(own.get(name, ())) for own in sets.values()}) == 1]
    complete = [name for name in complete if all(name in own for own in sets.values())]
    if len(sets) < 2 or not complete:
        return None
    scores = {name: [stacked(own[name]) for own in sets.values()] for name in complete}
    of_sets = {name: np.array([part.mean() for part in parts]) for name, parts in scores.items()}
    ordered = sorted(complete, key=lambda name: -float(of_sets[name].mean()))
    aggregates, improvements = aggregate({name: scores[name] for name in ordered})
    ranking = rank({name: of_sets[name] for name in ordered}, LEVEL) if len(sets) > 2 and len(ordered) > 2 else None
    means = {name: float(of_sets[name].mean()) for name in ordered}
    left_out = tuple(name for name in names if name not in complete)
    return Overall(keys, _measure(blocks[0]), tuple(sets), means, left_out, aggregates, improvements, ranking)


# -- labels saved ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saving:
    """How many labels the reference needs to reach what a strategy has with some.

    Parameters
    ----------
    keys: a value for each of :data:`PLACE`; ``k`` is None, for the curve is over the values of K.
    strategy, reference: who.
    found: the labels.
    """

    keys: Keys
    strategy: str
    reference: str
    found: LabelsSaved


def savings(blocks: Sequence[Block], references: Mapping[str, str]) -> list[Saving]:
    """Return how many labels the reference of a grid needs to reach what each other strategy has.

    With all labels, and with half: in the middle of the points of the curve. For ``ActiveLabel-v0`` the curve is that
    of the episodes; for ``SelectiveLabel-v0`` it is made of the values of K that both have, at least three. Curves are
    means over training seeds, and intervals say nothing of other seeds.
    """
    found = []
    one_curve = tuple(key for key in PLACE if key != "k")
    for values, group in grouped(blocks, one_curve):
        keys: Keys = {**dict(zip(one_curve, values, strict=True)), "k": None}
        strategies = _strategies(group)
        reference = references[str(keys["grid"])]
        for name, own in strategies.items():
            if name != reference and reference in strategies:
                labels, curve, of_reference = _curves(own, strategies[reference])
                for at in () if len(labels) < 3 else (labels[len(labels) // 2], labels[-1]):
                    saved = labels_saved(labels, curve, of_reference, float(at), LEVEL, RESAMPLES)
                    found.append(Saving(keys, name, reference, saved))
    return found


def _curves(a: Sequence[Block], b: Sequence[Block]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return labels ``(T + 1,)`` and the mean curves of two strategies, each ``(tasks, T + 1)``."""
    if a[0].curve is not None:
        of_a, of_b = (np.mean([x.curve for x in blocks if x.curve is not None], axis=0) for blocks in (a, b))
        return a[0].spent, of_a, of_b
    by_k = [{k: stacked(group).mean(0) for (k,), group in grouped(blocks, ("k",))} for blocks in (a, b)]
    ks = sorted(k for k in by_k[0].keys() & by_k[1].keys() if isinstance(k, int))
    of_a, of_b = (np.array([own[k] for k in ks]).T for own in by_k)
    return np.array(ks, dtype=np.int64), of_a, of_b
