"""Validation on seen conditions that are left out of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation import SelectiveRun
from activelabel.settings import SelectiveRunSettings

HELD_OUT = ("Edema", "Atelectasis")
TINY: dict[str, Any] = {
    **{"pool": 20, "query": 12, "k": 4, "updates": 2, "batch_size": 4, "n_samples": 2, "hidden": 8, "val_every": 1},
    **{"val_tasks": 6, "test_tasks": 4, "held_out": HELD_OUT, "device": "cpu", "threads": 1},
}


def run(folder: Path, cohort: Cohort, **changes: Any) -> SelectiveRun:
    return SelectiveRun(folder, SelectiveRunSettings(**{**TINY, **changes}), False, cohort)


@pytest.mark.parametrize("conditions", [None, ("Cardiomegaly", "Consolidation", "Pneumothorax")])
def test_what_is_left_out_validates_and_is_not_trained_on(
    conditions: tuple[str, ...] | None, cohort: Cohort, tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", cohort, conditions=conditions)
    found = run(tmp_path / "some", cohort, conditions=conditions, left_out=("Cardiomegaly",))
    trained = found.train_env.engine.sampler.conditions
    assert set(trained) == set(whole.train_env.engine.sampler.conditions) - {"Cardiomegaly"}
    assert found.val.sampler.conditions == ("Cardiomegaly",)
    for name, engine in found.test.items():  # the test tasks are those of a run that leaves nothing out
        assert engine.sampler.conditions == whole.test[name].sampler.conditions
    found.train()
    assert "best on meta-validation of Cardiomegaly, left out of training: update" in found.best()


def test_the_best_model_is_chosen_by_what_is_left_out(cohort: Cohort, tmp_path: Path) -> None:
    found = run(tmp_path, cohort, left_out=("Cardiomegaly",), updates=4)
    found.train()
    history = found.model().notes["history"]
    assert found.model().notes["best"] == max(value for _, value in history)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"left_out": ("Edema",)}, "left_out: 'Edema' is held out"),
        ({"conditions": ("Pneumothorax",), "left_out": ("Pneumothora",)}, "left_out: .*Did you mean 'Pneumothorax'"),
        (
            {"conditions": ("Pneumothorax",), "left_out": ("Pneumothorax",)},
            r"left_out=\['Pneumothorax'\] leaves no condition",
        ),
    ],
)
def test_what_cannot_be_left_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SelectiveRunSettings(**{**TINY, **changes})


def test_an_unknown_condition_is_named(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Cardiomegali.*Did you mean 'Cardiomegaly'"):
        run(tmp_path, cohort, left_out=("Cardiomegali",))
