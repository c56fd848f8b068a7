"""From research to use: which images of one's own folder to label next, and going on from the labels.

:func:`select` and :func:`update` are what ``python -m activelabel`` does; a :class:`Project` remembers.
"""

from __future__ import annotations

from activelabel.labelling.choosing import STRATEGIES, make_chooser
from activelabel.labelling.commands import Result, select, update
from activelabel.labelling.files import read_labels, write_batch
from activelabel.labelling.judging import Judgement, cross_validate
from activelabel.labelling.project import Batch, Project, ProjectSettings

__all__ = [
    "STRATEGIES",
    "Batch",
    "Judgement",
    "Project",
    "ProjectSettings",
    "Result",
    "cross_validate",
    "make_chooser",
    "read_labels",
    "select",
    "update",
    "write_batch",
]
