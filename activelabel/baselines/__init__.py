"""Who chooses without learning. Every baseline has the ``predict`` of a Stable-Baselines3 model."""

from __future__ import annotations

from activelabel.baselines.activeml import PREFIX, SkactivemlStrategy
from activelabel.baselines.base import Baseline
from activelabel.baselines.diverse import Badge, KCenter, TypiClust
from activelabel.baselines.kmedoids import KMedoids
from activelabel.baselines.oracle import GreedyOracle
from activelabel.baselines.pool import AverageConfidence, Entropy, Margin, PoolBaseline, PoolRandom, Uncertainty
from activelabel.baselines.random import Random
from activelabel.errors import SettingsError, unknown

BASELINES: dict[str, type[Baseline]] = {cls.name: cls for cls in (Random, KMedoids)}
"""Every baseline of ``SelectiveLabel-v0`` by the name that the command line knows it by."""

_POOL: tuple[type[PoolBaseline], ...] = (
    PoolRandom,
    Margin,
    Entropy,
    Uncertainty,
    AverageConfidence,
    KCenter,
    Badge,
    TypiClust,
    GreedyOracle,
)

POOL_BASELINES: dict[str, type[PoolBaseline]] = {cls.name: cls for cls in _POOL}
"""Every baseline of ``ActiveLabel-v0`` by the name that the command line knows it by."""


def make_pool_baseline(name: str, batch: int = 5, seed: int = 0) -> PoolBaseline:
    """Return a query strategy for ``ActiveLabel-v0``.

    Parameters
    ----------
    name: one of :data:`POOL_BASELINES`, or ``"skactiveml:CoreSet"`` for a strategy of scikit-activeml.
    batch, seed: see :class:`~activelabel.baselines.pool.PoolBaseline`.

    Raises
    ------
    SettingsError: if the name is unknown (with the closest match), or scikit-activeml is needed and not installed.
    """
    if name.startswith(PREFIX):
        return SkactivemlStrategy(name.removeprefix(PREFIX), batch, seed)
    if name not in POOL_BASELINES:
        raise SettingsError(
            f"{unknown('query strategy', name, POOL_BASELINES)} One of scikit-activeml is '{PREFIX}' and its class."
        )
    return POOL_BASELINES[name](batch, seed)


__all__ = [
    "BASELINES",
    "POOL_BASELINES",
    "AverageConfidence",
    "Badge",
    "Baseline",
    "Entropy",
    "GreedyOracle",
    "KCenter",
    "KMedoids",
    "Margin",
    "PoolBaseline",
    "PoolRandom",
    "Random",
    "SkactivemlStrategy",
    "TypiClust",
    "Uncertainty",
    "make_pool_baseline",
]
