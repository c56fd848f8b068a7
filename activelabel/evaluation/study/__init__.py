"""Studies: grids of data sets, strategies, budgets and training seeds; resumable, on one machine or a cluster."""

from __future__ import annotations

from activelabel.evaluation.study.backends import BACKENDS
from activelabel.evaluation.study.reading import read_study, shipped
from activelabel.evaluation.study.results import Block, read_results, write_results
from activelabel.evaluation.study.run import Finished, run_study
from activelabel.evaluation.study.spec import Study, StudyError
from activelabel.evaluation.study.tables import Table, build_tables

__all__ = [
    "BACKENDS",
    "Block",
    "Finished",
    "Study",
    "StudyError",
    "Table",
    "build_tables",
    "read_results",
    "read_study",
    "run_study",
    "shipped",
    "write_results",
]
