"""What the tests of oracles share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from conftest import ACTIVE
from torch import Tensor

from activelabel.data import Cohort
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings
from activelabel.envs.asking import Questions

CONFUSION = [[0.7, 0.3, 0.0, 0.0], [0.2, 0.5, 0.2, 0.1], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]]


def three_annotators(confusion: list[list[float]]) -> dict[str, Any]:
    """An environment's arguments: error rates and a confusion, costs, abstentions and shares at once."""
    arguments = {
        "errors": [0.5, 0.1, confusion],
        "costs": [1, 3, 2],
        "abstain": [0.3, 0.0, 0.5],
        "shares": [0.5, 0.3, 0.2],
    }
    return {"oracle": "annotators", "oracle_arguments": arguments}


def questions(cohort: Cohort, truth: list[int], classes: int = 4, draws: Tensor | None = None) -> Questions:
    """Everything is asked, in one episode."""
    y = torch.tensor([truth])
    draws = torch.zeros(1, len(truth), 4, dtype=torch.float64) if draws is None else draws
    rows = np.arange(len(truth))[None]
    return Questions(cohort, cohort.classes[:classes], rows, y, torch.ones_like(y) > 0, draws)


def engine_of(cohort: Cohort, **changes: Any) -> ActiveLabelEngine:
    return ActiveLabelEngine(cohort, ActiveLabelSettings.make(**{**ACTIVE, **changes}), "cpu")
