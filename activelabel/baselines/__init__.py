"""Who chooses without learning. Every baseline has the ``predict`` of a Stable-Baselines3 model."""

from __future__ import annotations

from activelabel.baselines.base import Baseline
from activelabel.baselines.kmedoids import KMedoids
from activelabel.baselines.random import Random

BASELINES: dict[str, type[Baseline]] = {cls.name: cls for cls in (Random, KMedoids)}
"""Every baseline by the name that the command line knows it by."""

__all__ = ["BASELINES", "Baseline", "KMedoids", "Random"]
