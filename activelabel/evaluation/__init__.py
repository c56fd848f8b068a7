"""Who chose better: protocols, statistics, reports, and the directory of a run."""

from __future__ import annotations

from activelabel.evaluation.active_report import ActiveReport, build_active_report
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.bootstrap import (
    LabelsSaved,
    hierarchical_bootstrap,
    iqm,
    labels_saved,
    optimality_gap,
    probability_of_improvement,
    stratified_bootstrap,
)
from activelabel.evaluation.episodes import Curves, play_episodes
from activelabel.evaluation.medselect import compare_selections, shift_from_random
from activelabel.evaluation.protocol import Scores, Strategy, play
from activelabel.evaluation.ranking import critical_difference, draw_critical_difference, rank, wilcoxon_holm
from activelabel.evaluation.report import Report
from activelabel.evaluation.run import Run
from activelabel.evaluation.runs import create_run, open_run
from activelabel.evaluation.selections import Selections, collect, collect_episodes
from activelabel.evaluation.selective_report import SelectiveReport, build_report
from activelabel.evaluation.selective_run import SelectiveRun
from activelabel.evaluation.statistics import (
    Difference,
    Interval,
    Verdict,
    hierarchical_difference,
    judge,
    mean_interval,
    paired_difference,
    verdict,
)

__all__ = [
    "ActiveReport",
    "ActiveRun",
    "Curves",
    "Difference",
    "Interval",
    "LabelsSaved",
    "Report",
    "Run",
    "Scores",
    "Selections",
    "SelectiveReport",
    "SelectiveRun",
    "Strategy",
    "Verdict",
    "build_active_report",
    "build_report",
    "collect",
    "collect_episodes",
    "compare_selections",
    "create_run",
    "critical_difference",
    "draw_critical_difference",
    "hierarchical_bootstrap",
    "hierarchical_difference",
    "iqm",
    "judge",
    "labels_saved",
    "mean_interval",
    "open_run",
    "optimality_gap",
    "paired_difference",
    "play",
    "play_episodes",
    "probability_of_improvement",
    "rank",
    "shift_from_random",
    "stratified_bootstrap",
    "verdict",
    "wilcoxon_holm",
]
