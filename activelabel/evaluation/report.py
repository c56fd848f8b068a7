"""The result of an evaluation: a table, a figure and ``summary.json``."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from activelabel.evaluation.statistics import Interval, mean_interval, paired_difference, verdict
from activelabel.files import atomic_path, write_text

TITLES = {
    "kmedoids": "K-Medoids",
    "kmedoids-cosine": "cosine K-Medoids",
    "facility-location": "facility location",
    "reinforce": "REINFORCE",
    "average-confidence": "average confidence",
    "badge": "BADGE",
    "typiclust": "TypiClust",
    "ddqn": "DDQN",
    "lal-rl": "LAL-RL",
}


def title(strategy: str) -> str:
    """Return how a strategy is called in tables and figures."""
    return TITLES.get(strategy, strategy)


@dataclass(frozen=True)
class Report(ABC):
    """All figures of an evaluation, as ``summary.json`` holds them.

    Parameters
    ----------
    rows: see :func:`summary_row`.
    comparisons: see :func:`comparison`.
    """

    rows: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]

    @abstractmethod
    def table(self) -> str:
        """Return the table as text."""

    @abstractmethod
    def draw(self) -> Figure:
        """Draw the figure."""

    def write(self, folder: str | os.PathLike[str], **context: Any) -> list[Path]:
        """Write ``summary.json``, ``table.txt`` and ``figure.png``, each atomically; returns their paths.

        Parameters
        ----------
        folder: where to.
        **context: more keys of ``summary.json``, such as the settings.
        """
        folder = Path(folder)
        write_text(folder / "summary.json", json.dumps({**context, **asdict(self)}, indent=1) + "\n")
        write_text(folder / "table.txt", self.table() + "\n")
        with atomic_path(folder / "figure.png") as temporary:
            self.draw().savefig(temporary, dpi=120)
        return [folder / name for name in ("summary.json", "table.txt", "figure.png")]


def summary_row(strategy: str, keys: dict[str, Any], values: ArrayLike) -> dict[str, Any]:
    """Return ``strategy``, the keys, and ``mean``, ``ci`` and ``n`` of values, one for each task or episode."""
    interval = mean_interval(values)
    return {"strategy": strategy, **keys, "mean": interval.mean, "ci": _ci(interval), "n": interval.n}


def comparison(a: str, b: str, keys: dict[str, Any], of_a: ArrayLike, of_b: ArrayLike) -> dict[str, Any]:
    """Return ``a``, ``b``, the keys, and ``difference`` (a - b, paired), its ``ci``, ``n`` and ``verdict``."""
    gap = paired_difference(of_a, of_b)
    found = {"difference": gap.mean, "ci": _ci(gap), "n": gap.n, "verdict": verdict(gap)}
    return {"a": a, "b": b, **keys, **found}


def _ci(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
