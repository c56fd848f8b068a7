"""``report.html`` of a study: the answer, the papers' figures, every table, what was chosen, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from activelabel.data import Cohort
from activelabel.evaluation.gallery import compare_selections_elements
from activelabel.evaluation.page import Element, Lines, Picture, Section, Text, write_page
from activelabel.evaluation.page_parts import audit_elements, report_elements, sheet
from activelabel.evaluation.papers import Outcome, sections, text
from activelabel.evaluation.report import title
from activelabel.evaluation.study import Finished
from activelabel.evaluation.study.choices import AGAIN, Choices
from activelabel.evaluation.study.tables import slug
from activelabel.files import atomic_path, write_text

Where = tuple[str, str, str]
"""Grid, data set and conditions."""


def publish_study(finished: Finished, out: Path) -> tuple[str, list[Path]]:
    """Write ``report.html``, ``findings.json``, ``audits.json`` and, of a paper's study, ``paper.txt`` and its figures.

    Parameters
    ----------
    finished: the study.
    out: its folder.

    Returns
    -------
    What to print, and the paths of the files.
    """
    study = finished.study
    findings = finished.findings
    groups = _groups(finished.choices)
    cohorts = {where[:2]: finished.cohorts[where[:2]]() for where in groups}
    said = findings.text()
    files = [out / "findings.json", out / "audits.json"]
    write_text(files[0], json.dumps(findings.values(), indent=1) + "\n")
    write_text(files[1], json.dumps([{**c.keys, **vars(c.audit)} for c in finished.choices], indent=1) + "\n")
    printed: list[Section] = []
    if study.paper is not None:
        outcome = Outcome(finished.blocks, finished.seconds, _selections(groups, cohorts))
        printed, beside = sections(study.paper, outcome), text(study.paper, outcome)
        said += f"\n\n{beside}"
        files.append(out / "paper.txt")
        write_text(files[-1], beside + "\n")
        files += _figures(printed, out / "paper")
    for where, group in groups.items():
        for name, one in _shown(group).items():
            for warning in one.audit.warnings:
                said += f"\n{', '.join(filter(None, where))}: WARNING: {title(name)}: {warning}"
    answer, *pairs = findings.sections()
    page = [answer, *printed, *_tables(finished), *pairs, *_chosen(groups, cohorts), *_origin(finished, out)]
    files.append(write_page(out / "report.html", study.name, study.about, page))
    return said, files


def _figures(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write the figures of some sections, under the sections' titles; returns their paths."""
    found = []
    for section in sections:
        pictures = [element for element in section.elements if isinstance(element, Picture)]
        for number, picture in enumerate(pictures, 1):
            found.append(folder / f"{slug(section.title)}{f'-{number}' if len(pictures) > 1 else ''}.png")
            with atomic_path(found[-1]) as temporary:
                picture.figure.savefig(temporary, dpi=110)
    return found


def _tables(finished: Finished) -> list[Section]:
    return [
        Section(f"Results: {table.place}", [Text(f"{table.heading}."), *report_elements(table.report)])
        for table in finished.tables
    ]


def _groups(choices: Sequence[Choices]) -> dict[Where, list[Choices]]:
    """Return what was chosen on the same tasks together."""
    found: dict[Where, list[Choices]] = {}
    for one in choices:
        where = (str(one.keys["grid"]), str(one.keys["data"]), str(one.keys["conditions"]))
        found.setdefault(where, []).append(one)
    return found


def _selections(groups: Mapping[Where, Sequence[Choices]], cohorts: Mapping[tuple[str, str], Cohort]) -> dict[Any, Any]:
    return {
        (*where, str(one.keys["strategy"])): (cohorts[where[:2]], one.selections)
        for where, group in groups.items()
        for one in group
    }


def _shown(group: Sequence[Choices]) -> dict[str, Choices]:
    """Return choices by strategy, without the control."""
    return {str(one.keys["strategy"]): one for one in group if one.keys["strategy"] != AGAIN}


def _chosen(groups: Mapping[Where, Sequence[Choices]], cohorts: Mapping[tuple[str, str], Cohort]) -> list[Section]:
    found = []
    for where, group in groups.items():
        shown = _shown(group)
        n = len(group[0].selections)
        budget = ", ".join(f"{name} {group[0].keys[name]}" for name in ("k", "labels", "batch") if group[0].keys[name])
        elements: list[Element] = [Text(f"The first {n} test tasks; {budget}; agents of the first training seed.")]
        elements += audit_elements({name: one.audit for name, one in shown.items()})
        chosen = {title(name): one.selections for name, one in shown.items()}
        elements += compare_selections_elements(cohorts[where[:2]], chosen, 0)
        found.append(Section(f"What was chosen: {', '.join(filter(None, where))}", elements))
    return found


def _origin(finished: Finished, out: Path) -> list[Section]:
    """Say what the study was computed from, out of ``provenance.json``."""
    made = json.loads((out / "provenance.json").read_text("utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    elements: list[Element] = [
        Text(f"Study {finished.study.name}, commit {made['commit'] or 'unknown'}; {versions}."),
        sheet(
            [{**data, "classes": ", ".join(data["classes"]), "source": data["source"]["name"]} for data in made["data"]]
        ),
    ]
    trained = [
        {
            **{name: row.get(name) for name in ("grid", "data", "strategy", "seed")},
            "best": row["best"],
            "processor seconds": row["cpu_seconds"],
        }
        for row in made["trainings"]
    ]
    if trained:
        elements.append(sheet(trained, "Trainings"))
    return [Section("Where it comes from", [*elements, Lines(finished.study.text.splitlines())])]
