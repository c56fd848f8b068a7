"""What the strategies of a study choose in its first test tasks: kept and audited, as cells of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from activelabel.data import Cohort, load
from activelabel.errors import DataError
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.audit import Audit, audit
from activelabel.evaluation.selections import Selections, collect, collect_episodes
from activelabel.evaluation.selective_run import SelectiveRun
from activelabel.evaluation.study.cells import EvaluateCell, open_judge, read_cell
from activelabel.evaluation.study.shared import open_shared

AGAIN = "random, again"
"""What the random strategy is called where it takes part a second time, with another seed, as a control."""


@dataclass(frozen=True)
class ChooseCell(EvaluateCell):
    """What a strategy chooses in the first ``n`` test tasks or episodes.

    Parameters
    ----------
    again: as a second strategy of the same kind, with the next seed.
    """

    again: bool = False

    def describe(self) -> dict[str, Any]:
        """See :class:`~activelabel.evaluation.study.cells.Cell`."""
        return {**super().describe(), "kind": "choose", "again": self.again}

    def work(self, out: Path) -> dict[str, Any]:
        """Play, and audit what was chosen with the distances that the strategy sees."""
        run = open_judge(self.judge, self.data, out)
        chooser = self.chooser(out, self.judge.seed + self.again)
        if isinstance(run, SelectiveRun):
            assert self.budget.k is not None
            found = collect(run.test[self.conditions], chooser, self.budget.k, self.n)
        else:
            assert isinstance(run, ActiveRun)
            found = collect_episodes(self.episodes(run), chooser, self.n)
        arrays = {name: getattr(found, name).tolist() for name in ("index", "pool", "pool_labels", "chosen")}
        return {"audit": asdict(audit(run.cohort, found)), "classes": list(found.classes), **arrays}


@dataclass(frozen=True, eq=False)
class Choices:
    """What one strategy chose.

    Parameters
    ----------
    keys: as of a :class:`~activelabel.evaluation.study.results.Block`, but the metric.
    selections: without points.
    audit: of them.
    """

    keys: Mapping[str, str | int | None]
    selections: Selections
    audit: Audit


def read_choices(keys: Mapping[str, str | int | None], cell: ChooseCell, out: Path) -> Choices:
    """Return what a finished cell found.

    Raises
    ------
    StudyError: if its file is damaged, or of another version of the format.
    """
    found = read_cell(cell, out)
    index, pool, labels, chosen = (
        np.array(found[n], dtype=np.int64) for n in ("index", "pool", "pool_labels", "chosen")
    )
    return Choices(keys, Selections(index, pool, labels, chosen, tuple(found["classes"])), Audit(**found["audit"]))


def open_cohort(cell: EvaluateCell, images: str | None) -> Cohort:
    """Return the data that a cell is of, mapped where they can be.

    Parameters
    ----------
    cell: of the study.
    images: what has the images of the same rows, for :func:`activelabel.data.load`; or None.

    Raises
    ------
    DataError: if it has no images, or those of other rows.
    """
    cohort = cell.judge.cohort() if cell.data.folder is None else open_shared(cell.data.folder)
    return cohort if images is None else _with_images(cohort, images)


def _with_images(cohort: Cohort, path: str) -> Cohort:
    other = load(path)
    if other.images is None:
        raise DataError(f"{path}: it holds no images.")
    if len(other) != len(cohort):
        raise DataError(f"{path}: {len(other)} images, but {cohort.source.name} has {len(cohort)} rows.")
    if cohort.names is not None and other.names is not None and not np.array_equal(cohort.names, other.names):
        raise DataError(f"{path}: its images are called otherwise, or in another order, than {cohort.source.name}'s.")
    return replace(cohort, images=other.images)
