"""Who chooses without learning. Every baseline has the ``predict`` of a Stable-Baselines3 model."""

from __future__ import annotations

from typing import Any

from activelabel import plugins
from activelabel.baselines.activeml import PREFIX, SkactivemlStrategy
from activelabel.baselines.base import Baseline
from activelabel.baselines.diverse import Badge, KCenter, TypiClust
from activelabel.baselines.kmedoids import CosineKMedoids, KMedoids
from activelabel.baselines.one_shot import FacilityLocation, Herding, OneShotKCenter, OneShotTypiClust
from activelabel.baselines.oracle import GreedyOracle
from activelabel.baselines.pool import AverageConfidence, Entropy, Margin, PoolBaseline, PoolRandom, Uncertainty
from activelabel.baselines.random import Random
from activelabel.errors import SettingsError

_ONE_SHOT: tuple[type[Baseline], ...] = (
    Random,
    KMedoids,
    CosineKMedoids,
    OneShotKCenter,
    OneShotTypiClust,
    FacilityLocation,
    Herding,
)

BASELINES: dict[str, type[Baseline]] = {cls.name: cls for cls in _ONE_SHOT}
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


def make_baseline(name: str, k: int = 10, seed: int = 0) -> Baseline:
    """Return a strategy for ``SelectiveLabel-v0``.

    Parameters
    ----------
    name: one of :data:`BASELINES`, or one of your own, a class path or the name of an entry point
        (:mod:`activelabel.plugins`).
    k, seed: see :class:`~activelabel.baselines.base.Baseline`.

    Raises
    ------
    SettingsError: if the name is unknown (with the closest match), or that of no such strategy.
    """
    made: Baseline = _made(plugins.find("baseline", name, BASELINES), Baseline, name, k, seed)
    return made


def make_pool_baseline(name: str, batch: int = 5, seed: int = 0) -> PoolBaseline:
    """Return a query strategy for ``ActiveLabel-v0``.

    Parameters
    ----------
    name: one of :data:`POOL_BASELINES`, ``"skactiveml:CoreSet"`` for a strategy of scikit-activeml, or one of your own
        as in :func:`make_baseline`.
    batch, seed: see :class:`~activelabel.baselines.pool.PoolBaseline`.

    Raises
    ------
    SettingsError: if the name is unknown (with the closest match) or that of no such strategy, or scikit-activeml is
        needed and not installed.
    """
    if name.startswith(PREFIX):
        return SkactivemlStrategy(name.removeprefix(PREFIX), batch, seed)
    if name not in POOL_BASELINES and not plugins.exists("baseline", name):
        raise SettingsError(
            f"{plugins.not_known('baseline', name, POOL_BASELINES, 'query strategy')} One of scikit-activeml is "
            f"'{PREFIX}' and its class."
        )
    made: PoolBaseline = _made(plugins.find("baseline", name, POOL_BASELINES), PoolBaseline, name, batch, seed)
    return made


def _made(factory: Any, base: type[Any], name: str, *arguments: int) -> Any:
    """Return what a class or function makes; it must be of the base class that the environment's baselines have."""
    env = "SelectiveLabel-v0" if base is Baseline else "ActiveLabel-v0"
    where = f"baseline '{name}' is none of {env}: it must extend activelabel.baselines.{base.__name__}"
    if isinstance(factory, type) and not issubclass(factory, base):
        raise SettingsError(f"{where}.")
    try:
        made = factory(*arguments)
    except TypeError as error:
        raise SettingsError(f"baseline '{name}' cannot be made: {error}.") from error
    if not isinstance(made, base):
        raise SettingsError(f"{where}, but gave {type(made).__name__}.")
    return made


__all__ = [
    "BASELINES",
    "POOL_BASELINES",
    "AverageConfidence",
    "Badge",
    "Baseline",
    "CosineKMedoids",
    "Entropy",
    "FacilityLocation",
    "GreedyOracle",
    "Herding",
    "KCenter",
    "KMedoids",
    "Margin",
    "OneShotKCenter",
    "OneShotTypiClust",
    "PoolBaseline",
    "PoolRandom",
    "Random",
    "SkactivemlStrategy",
    "TypiClust",
    "Uncertainty",
    "make_baseline",
    "make_pool_baseline",
]
