"""The settings of a training run, and the presets that fill them in."""

from __future__ import annotations

from activelabel.settings.active import POOL_STRATEGIES, ActiveRunSettings
from activelabel.settings.base import OF_THE_DATA, RunSettings
from activelabel.settings.presets import ENVS, SETTINGS, preset, presets, read_config
from activelabel.settings.selective import STRATEGIES, SelectiveRunSettings

__all__ = [
    "ENVS",
    "OF_THE_DATA",
    "POOL_STRATEGIES",
    "SETTINGS",
    "STRATEGIES",
    "ActiveRunSettings",
    "RunSettings",
    "SelectiveRunSettings",
    "preset",
    "presets",
    "read_config",
]
