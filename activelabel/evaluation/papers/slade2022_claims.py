"""What the text of Slade & Branson 2022 says, and whether a study shows it."""

from __future__ import annotations

import math

from activelabel.evaluation.papers.claims import AGREES, MISSING, OPEN, OPPOSITE, Claim, Part, direction, interval, part
from activelabel.evaluation.papers.outcome import Found, Outcome, after, area, difference
from activelabel.evaluation.papers.slade2022_numbers import (
    AGENT,
    CLASSIC,
    DATA,
    FIGURE_1,
    FIGURE_2,
    OTHERS,
    PAPER_AFTER_10,
    PAPER_GAIN,
    PAPER_SLOWER,
    PAPER_TABLE_2,
    RIVAL,
    TABLE_2,
    deviations,
    log_ratio,
    reached,
    seconds,
    slope,
)
from activelabel.evaluation.report import title
from activelabel.evaluation.statistics import Interval

VARIES = (
    "How much a strategy varies is the mean distance of its accuracy in the end from the median, over episodes and "
    "training seeds. Without noise the widest interval of the paper's own Table 1 is DDQN's."
)


def claims(outcome: Outcome) -> list[Claim]:
    """Return the claims of §4.4."""
    return [*_figure_1(outcome), *_figure_2(outcome), *_table_2(outcome)]


def _figure_1(outcome: Outcome) -> list[Claim]:
    above, early, stable = [], [], []
    for data in DATA:
        found = reached(outcome, FIGURE_1, data)
        gaps = [part(title(name), difference(found.get(AGENT), found.get(name), area)) for name in OTHERS]
        above.append(Claim(f"§4.4: DDQN is on average above every other strategy, {data} (area under the curve)", gaps))
        for agent in (AGENT, RIVAL):
            gaps = [_less(title(name), found.get(agent), found.get(name)) for name in CLASSIC]
            says = f"§4.4: {title(agent)} varies less than the strategies that are not trained, {data}"
            stable.append(Claim(says, gaps))
        if data == "colorectal":
            for name in OTHERS:
                paper = PAPER_AFTER_10[AGENT][0] - PAPER_AFTER_10[name][0]
                gap = difference(found.get(AGENT), found.get(name), after(10))
                early.append(part(f"{title(name)}, paper {paper:+.4f}", gap, paper))
    spent = (seconds(outcome, FIGURE_1, "colorectal", name) for name in (RIVAL, AGENT))
    slower = _times("colorectal", log_ratio(*spent))
    few = Part("no training on the whole pool to compare with", MISSING)
    apart = Part("python -m benchmarks.corruption measures it", MISSING)
    return [
        *above,
        Claim("Table 1, no noise: DDQN is above every other strategy after 10 labels, colorectal", early),
        *stable,
        Claim("§4.4: DDQN is nearly optimal on the colorectal set with very few labels", [few]),
        Claim(f"§4.4: LAL-RL trains longer than DDQN (in the paper {PAPER_SLOWER} times as long)", [slower]),
        Claim("§4.4.2, Table 1 and Figure 3: all strategies stand corrupted images", [apart]),
    ]


def _less(name: str, a: Found | None, b: Found | None) -> Part:
    """Return a part of a claim that says that a varies less than b."""
    return part(name, difference(deviations(a), deviations(b)), -1)


def _figure_2(outcome: Outcome) -> list[Claim]:
    better, stable, above = [], [], []
    for data in DATA:
        large, small = reached(outcome, FIGURE_2, data), reached(outcome, FIGURE_1, data).get(AGENT)
        better.append(part(data, difference(large.get(AGENT), small)))
        stable.append(_less(data, large.get(AGENT), small))
        for name in [name for name in large if name != AGENT] or ["random", "margin"]:
            above.append(part(f"{data}, {title(name)}", difference(large.get(AGENT), large.get(name), area)))
    gains = " and ".join(f"{gain:.1%} ({data})" for data, gain in PAPER_GAIN.items())
    return [
        Claim(f"§4.4.1: the larger model is more accurate, by up to {gains} (here with all labels)", better),
        Claim("§4.4.1: the larger model varies less", stable),
        Claim("§4.4.1: the larger model is above the other strategies (here with as many labels a step)", above),
    ]


def _table_2(outcome: Outcome) -> list[Claim]:
    found = {n: reached(outcome, TABLE_2, "colorectal", batch=n).get(AGENT) for n in PAPER_TABLE_2}
    more, longer = [], []
    base, _, time = PAPER_TABLE_2[1]
    for n, (accuracy, _, spent) in PAPER_TABLE_2.items():
        if n > 1:
            more.append(part(f"N = {n}, paper {accuracy - base:+.4f}", difference(found[n], found[1])))
        if n > 8:
            ours = (seconds(outcome, TABLE_2, "colorectal", AGENT, batch) for batch in (n, 1))
            longer.append(_times(f"N = {n}, paper {spent / time:.2f} times", log_ratio(*ours)))
    trend = _level(slope({n: one for n, one in found.items() if n > 1 and one is not None}))
    note = "In the paper's own table N = 3, 4 and 5 take longer than N = 1 as well."
    return [
        Claim("§4.4.3: more than one label a step is more accurate than N = 1", more),
        Claim("§4.4.3: from N = 2 on more labels a step neither help nor hinder (slope of accuracy)", [trend]),
        Claim("§4.4.3: training takes longer than with N = 1 where N > 8", longer, note),
    ]


def _times(name: str, ratio: Interval | None) -> Part:
    """Return a part of a claim that says that something takes longer."""
    if ratio is None:
        return Part(name, MISSING)
    low, mean, high = (math.exp(end) for end in (ratio.low, ratio.mean, ratio.high))
    shown = f"{mean:.2f} times, " + ("no interval" if math.isnan(low) else f"{low:.2f} to {high:.2f}")
    return Part(name, direction(ratio), shown)


def _level(found: Interval | None) -> Part:
    """Return a part of a claim that says that there is no slope: reproduced where none can be told from 0."""
    if found is None:
        return Part("N = 2 to 10", MISSING)
    says = OPEN if math.isnan(found.low) else AGREES if found.low <= 0 <= found.high else OPPOSITE
    return Part("a label more a step", says, interval(found))
