"""Who chose better: protocols, statistics, reports, and the directory of a run."""

from __future__ import annotations

from activelabel.evaluation.active_report import ActiveReport, build_active_report
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.episodes import Curves, play_episodes
from activelabel.evaluation.protocol import Scores, Strategy, play
from activelabel.evaluation.report import Report
from activelabel.evaluation.run import Run
from activelabel.evaluation.runs import create_run, open_run
from activelabel.evaluation.selective_report import SelectiveReport, build_report
from activelabel.evaluation.selective_run import SelectiveRun
from activelabel.evaluation.statistics import Interval, mean_interval, paired_difference, verdict

__all__ = [
    "ActiveReport",
    "ActiveRun",
    "Curves",
    "Interval",
    "Report",
    "Run",
    "Scores",
    "SelectiveReport",
    "SelectiveRun",
    "Strategy",
    "build_active_report",
    "build_report",
    "create_run",
    "mean_interval",
    "open_run",
    "paired_difference",
    "play",
    "play_episodes",
    "verdict",
]
