"""The papers' own figures and tables from the results of a study, ours beside the paper's numbers."""

from __future__ import annotations

from activelabel.errors import SettingsError, unknown
from activelabel.evaluation.page import Section
from activelabel.evaluation.papers import medselect, slade2022
from activelabel.evaluation.papers.outcome import Outcome
from activelabel.evaluation.papers.plain import plain

__all__ = ["PAPERS", "Outcome", "sections", "text"]

PAPERS = {"medselect": medselect.sections, "slade2022": slade2022.sections}
"""By the name of the study that plays a paper's protocol."""


def sections(paper: str, outcome: Outcome) -> list[Section]:
    """Return a paper's figures and tables, and what it says with what was found.

    What is missing in the outcome is shown as not measured.

    Parameters
    ----------
    paper: one of :data:`PAPERS`.
    outcome: of the study.

    Raises
    ------
    SettingsError: if the paper is unknown; and see :func:`~activelabel.evaluation.medselect.compare_selections`.
    """
    if paper not in PAPERS:
        raise SettingsError(unknown("paper", paper, PAPERS))
    return PAPERS[paper](outcome)


def text(paper: str, outcome: Outcome) -> str:
    """Return the same as plain text, without the figures; raises as :func:`sections`."""
    return plain(sections(paper, outcome))
