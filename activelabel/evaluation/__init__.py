"""Who chose better: protocols, statistics, reports, and the directory of a run."""

from __future__ import annotations

from activelabel.evaluation.protocol import Scores, Strategy, play
from activelabel.evaluation.report import Report, build_report
from activelabel.evaluation.runs import Run
from activelabel.evaluation.statistics import Interval, mean_interval, paired_difference, verdict

__all__ = [
    "Interval",
    "Report",
    "Run",
    "Scores",
    "Strategy",
    "build_report",
    "mean_interval",
    "paired_difference",
    "play",
    "verdict",
]
