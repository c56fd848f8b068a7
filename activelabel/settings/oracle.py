"""The settings of who labels in a run, which both environments have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activelabel.errors import SettingsError, unknown
from activelabel.settings.base import RunSettings

_ORACLE = {
    "perfect": {},
    "noisy": {"oracle_rate": "rate", "oracle_confusion": "confusion"},
    "abstaining": {"oracle_rate": "rate"},
    "annotators": {
        "oracle_errors": "errors",
        "oracle_costs": "costs",
        "oracle_abstain": "abstain",
        "oracle_shares": "shares",
    },
}
"""What each oracle that can answer in many episodes at once calls the settings that are its own."""

ORACLE = ("oracle", *dict.fromkeys(name for own in _ORACLE.values() for name in own))
"""The settings that say who labels."""


@dataclass(frozen=True)
class OracleSettings(RunSettings):
    """Settings of a run whose oracle can be chosen."""

    oracle: str = "perfect"
    """Who labels, in training and in every evaluation: perfect, noisy, abstaining or annotators."""
    oracle_rate: float | None = None
    """Share of images that the noisy oracle gets wrong, or on which the abstaining one gives no answer."""
    oracle_confusion: tuple[float, ...] | None = None
    """Of the noisy oracle instead of a rate: how often an image of each class is given each class, row by row; in
    SelectiveLabel-v0 negative comes before positive."""
    oracle_errors: tuple[float, ...] | None = None
    """Share of images that each of several annotators gets wrong."""
    oracle_costs: tuple[int, ...] | None = None
    """What a label of each annotator takes of the budget; by default 1."""
    oracle_abstain: tuple[float, ...] | None = None
    """Share of images on which each annotator gives no answer; by default 0."""
    oracle_shares: tuple[float, ...] | None = None
    """Shares of the images that are the work of each annotator; by default alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.oracle not in _ORACLE:
            raise SettingsError(
                f"{unknown('oracle of a run', self.oracle, _ORACLE)} A person answers in one episode at a time only."
            )

    @property
    def oracle_arguments(self) -> dict[str, Any]:
        """Arguments of the oracle."""
        return self._own_arguments("oracle", _ORACLE)

    def _own_arguments(self, kind: str, names_of: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        """Return the arguments of what the setting ``kind`` names, as it calls them itself."""
        # What is off or None is left to the learner or oracle.
        given = {name: getattr(self, name) for own in names_of.values() for name in own}
        given = {name: value for name, value in given.items() if value is not None and value is not False}
        chosen = getattr(self, kind)
        names = names_of.get(chosen, {})
        for name, value in given.items():
            if chosen in names_of and name not in names:
                raise SettingsError(f"{name}={value} does not go with the {kind} '{chosen}'.")
        return {names[name]: value for name, value in given.items() if name in names}
