"""What is labelled: cohorts, splits by patient, and tasks."""

from activelabel.data.catalog import load
from activelabel.data.cohort import CLINICAL, Cohort, Source
from activelabel.data.splits import SPLITS, Splits, Standardizer, split_cohort
from activelabel.data.synthetic import SyntheticSettings, make_synthetic
from activelabel.data.tasks import TaskBatch, TaskSampler

__all__ = [
    "CLINICAL",
    "SPLITS",
    "Cohort",
    "Source",
    "Splits",
    "Standardizer",
    "SyntheticSettings",
    "TaskBatch",
    "TaskSampler",
    "load",
    "make_synthetic",
    "split_cohort",
]
