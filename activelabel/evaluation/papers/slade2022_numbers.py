"""What Slade & Branson 2022 print, and the same numbers of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from activelabel.evaluation.papers.outcome import FloatArray, Found, Outcome, strategies, together
from activelabel.evaluation.statistics import Interval, hierarchical_difference, mean_interval

FIGURE_1, FIGURE_2, TABLE_2 = "figure-1", "figure-2", "table-2"
"""Grids of the study."""

DATA = ("pneumonia", "colorectal")
AGENT, RIVAL = "ddqn", "lal-rl"
OTHERS = (RIVAL, "uncertainty", "random", "margin", "entropy", "average-confidence")
CLASSIC = OTHERS[1:]

PAPER_AFTER_10 = {
    AGENT: (0.6202, 0.0981),
    RIVAL: (0.3151, 0.0238),
    "uncertainty": (0.4952, 0.0493),
    "random": (0.4698, 0.0540),
    "margin": (0.5063, 0.0204),
    "entropy": (0.4560, 0.0168),
    "average-confidence": (0.4579, 0.0539),
}
"""Table 1, "no noise": accuracy on the colorectal set after 10 labels and its error."""

PAPER_TABLE_2 = {
    1: (0.6468, 0.0197, 1511),
    2: (0.7147, 0.0220, 1633),
    3: (0.7151, 0.0307, 2505),
    4: (0.6762, 0.0272, 3313),
    5: (0.7295, 0.0168, 2123),
    6: (0.7091, 0.0185, 1222),
    7: (0.7347, 0.0321, 1255),
    8: (0.6916, 0.0203, 1290),
    9: (0.7084, 0.0148, 3374),
    10: (0.6939, 0.0206, 6504),
}
"""By N: accuracy on the colorectal set with 50 labels, its error, and seconds of training."""

PAPER_GAIN = {"pneumonia": 0.115, "colorectal": 0.233}
"""§4.4.1: "up to" so much more accuracy by the larger model."""

PAPER_SLOWER = 267
"""§4.4: how many times as long LAL-RL trains (colorectal set, 5 episodes, 20 labels)."""


def reached(outcome: Outcome, grid: str, data: str, **keys: int) -> dict[str, Found]:
    """Return what each strategy reached in the first budget of a grid on a data set (and with these keys)."""
    wanted = {"grid": grid, "data": data, **keys}
    own = [block for block in outcome.blocks if all(block.keys[name] == key for name, key in wanted.items())]
    same = [block for block in own if all(block.keys[key] == own[0].keys[key] for key in ("labels", "batch"))]
    return strategies([block for block in same if block.curve is not None])


def deviations(found: Found | None) -> Found | None:
    """Replace what episodes ended with by its distance from the median of all (Brown & Forsythe 1974)."""
    if found is None:
        return None
    median = np.median(np.concatenate([block.value for block in found.blocks]))
    return Found([replace(block, value=np.abs(block.value - median)) for block in found.blocks])


def slope(found: Mapping[int, Found]) -> Interval | None:
    """Return the slope of accuracy over N with its 95 % interval: least squares in each seed and episode."""
    limited = together(*found.values()) if len(found) > 2 else None
    if limited is None:
        return None
    x = np.array(list(found), dtype=np.float64)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    scores = np.stack([scores for each in limited if (scores := each.scores()) is not None])
    return hierarchical_difference(np.tensordot(weights, scores, axes=1), np.zeros(scores.shape[-1]))


def seconds(outcome: Outcome, grid: str, data: str, strategy: str, batch: int | None = None) -> FloatArray | None:
    """Return the seconds of training of each seed, in the first budget (with this batch); None if not known."""
    for (*names, _, step), spent in outcome.seconds.items():
        if names == [grid, data, strategy] and batch in (None, step) and len(spent):
            return np.asarray(spent, dtype=np.float64)
    return None


def log_ratio(a: FloatArray | None, b: FloatArray | None) -> Interval | None:
    """Return the mean of ``log(a / b)`` over seeds with its 95 % interval; None where one is missing."""
    if a is None or b is None:
        return None
    n = min(len(a), len(b))
    return mean_interval(np.log(a[:n]) - np.log(b[:n]))
