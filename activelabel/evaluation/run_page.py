"""``report.html`` of a run: its tables and figure, what was chosen, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from activelabel.evaluation.audit import Audit
from activelabel.evaluation.gallery import selection_elements
from activelabel.evaluation.page import Lines, Section, write_page
from activelabel.evaluation.page_parts import audit_elements, report_elements
from activelabel.evaluation.report import Report, title
from activelabel.evaluation.run import Run
from activelabel.evaluation.selections import Selections


def write_run_page(run: Run, report: Report, chosen: Selections, audits: Mapping[str, Audit], out: Path) -> Path:
    """Write the page; returns its path.

    Parameters
    ----------
    run: the run.
    report: of its evaluation.
    chosen: by its agent, in the first test task.
    audits: of strategies, by name; may be empty.
    out: the folder of the page.
    """
    sections = [Section("Who chose better", report_elements(report))]
    if audits:
        sections.append(Section("What was chosen, in many tasks", audit_elements(audits)))
    agent = title(run.settings.agent)
    sections.append(Section("What was chosen, in one task", selection_elements(run.cohort, chosen, agent)))
    if choice := run.choice():
        sections.append(Section("What the selector was chosen from", [Lines(choice)]))
    sections.append(Section("Settings", [Lines(run.settings.to_yaml().splitlines())]))
    return write_page(out / "report.html", f"{agent}: {run.folder.name}", f"{run.describe()}. {run.best()}.", sections)
