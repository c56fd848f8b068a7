"""What a paper says, and whether a study shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activelabel.evaluation.page import Lines
from activelabel.evaluation.statistics import Interval, verdict

AGREES, OPPOSITE, OPEN, MISSING = "as in the paper", "opposite", "not distinguishable", "not measured here"
"""What a table says of a number's direction."""

UNCORRECTED = (
    "Each comparison is judged by its own 95 % interval, over test tasks or episodes and training seeds. The intervals "
    "are not corrected for how many there are: of 20 with no difference behind them one is expected to show one."
)

_SAYS = {AGREES: "reproduced", OPPOSITE: OPPOSITE, OPEN: OPEN, MISSING: MISSING}


def direction(found: Interval | None, paper: float = 1) -> str:
    """Compare the sign of a difference with the paper's, by its interval.

    Parameters
    ----------
    found: here; None where it was not measured.
    paper: any number with the paper's sign.
    """
    if found is None:
        return MISSING
    shown = {"better": 1, "worse": -1}.get(verdict(found))
    if shown is None:
        return OPEN
    return AGREES if shown == np.sign(paper) else OPPOSITE


@dataclass(frozen=True)
class Part:
    """One comparison that a claim is about.

    Parameters
    ----------
    name: such as ``"K = 10"``.
    says: one of the words of :func:`direction`.
    shown: the numbers behind it.
    """

    name: str
    says: str
    shown: str = ""


def part(name: str, found: Interval | None, paper: float = 1) -> Part:
    """Return a part of a claim that says that a difference has the sign of ``paper``."""
    return Part(name, direction(found, paper), "" if found is None else interval(found))


def interval(found: Interval) -> str:
    """Return a mean and its interval in words."""
    if np.isnan(found.low):
        return f"{found.mean:+.4f}, no interval"
    return f"{found.mean:+.4f}, {found.low:+.4f} to {found.high:+.4f}"


@dataclass(frozen=True)
class Claim:
    """What a paper says, and what was found.

    Parameters
    ----------
    says: where and what, such as ``"§4.1: MedSelect is above clustering"``.
    parts: the comparisons it is about.
    note: what else has to be known.
    """

    says: str
    parts: Sequence[Part]
    note: str = ""

    def line(self) -> str:
        """Return one line: for each outcome the parts that have it."""
        found = []
        for word, shown in _SAYS.items():
            own = [f"{p.name} ({p.shown})" if p.shown else p.name for p in self.parts if p.says == word]
            if word == MISSING and len(own) == len(self.parts) > 1:
                found.append("Not measured here.")
            elif own:
                found.append(f"{shown[0].upper()}{shown[1:]}: {'; '.join(own)}.")
        return " ".join([f"{self.says}.", *found, *([self.note] if self.note else [])])


def lines(claims: Sequence[Claim]) -> Lines:
    """Return the lines of some claims, for a report."""
    return Lines([claim.line() for claim in claims], "verdict")


def directions_of(rows: Sequence[dict[str, Any]]) -> list[Part]:
    """Return the parts of the analyses of :mod:`activelabel.evaluation.medselect`."""
    return [Part(row["measure"], row["direction"].replace("not measured", MISSING)) for row in rows]
