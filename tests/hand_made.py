"""Tasks whose selections can be checked by hand, for several test files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data import Cohort, Source
from activelabel.evaluation.audit import Audit
from activelabel.evaluation.selections import Selections


def hand_made(**changes: Any) -> Cohort:
    """Eight images on a line and a plane; the first four are one pool, the others another."""
    points = [[0, 0], [3, 4], [6, 8], [0, 1], [0, 0], [1, 0], [5, 0], [9, 0]]
    given: dict[str, Any] = {
        "labels": np.array([[1, 0], [0, 1], [1, 0], [0, 1]] * 2, dtype=np.int8),
        "classes": ("Edema", "No Finding"),
        "features": np.array(points, dtype=np.float32),
        "clinical": {
            "age": np.array([20, 30, 40, 50, 60, 70, 80, 90], dtype=np.float32),
            "female": np.array([1, 0, 1, 0, 1, 1, 0, 0], dtype=np.float32),
            "frontal": np.array([1, 1, 1, 0, 1, 1, 1, 0], dtype=np.float32),
        },
        "source": Source(name="made"),
    }
    return Cohort(**{**given, **changes})


def hand_chosen(choice: list[list[int]], **changes: Any) -> Selections:
    pool = np.arange(8).reshape(2, 4)
    labels = np.array([[1, 0, 1, 0]] * 2)
    made = Selections(np.arange(2), pool, labels, np.array(choice), ("negative", "positive"))
    return replace(made, **changes)


def row(found: Audit, measure: str) -> dict[str, Any]:
    (one,) = [r for r in found.rows if r["measure"] == measure]
    return one


class Fixed:
    """Chooses the same indices everywhere."""

    def __init__(self, *indices: int) -> None:
        self.indices = np.array(indices)

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        assert deterministic
        return np.tile(self.indices, (len(next(iter(observation.values()))), 1)), state
