"""Validation on seen conditions that are left out of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activelabel.agents import Reinforce
from activelabel.baselines import KMedoids
from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation import SelectiveRun
from activelabel.evaluation.leaving_out import learn_familiarity
from activelabel.evaluation.protocol import play
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


def test_what_each_validation_notes(cohort: Cohort, tmp_path: Path) -> None:
    """Against the obvious computation, task by task, with the last model."""
    found = run(tmp_path, cohort, left_out=("Cardiomegaly", "Pneumothorax"), updates=1)
    found.train()
    model = found.model()
    assert isinstance(model, Reinforce)
    noted = model.notes["judged"][-1]
    familiarity = learn_familiarity(found.train_env.engine, found.val_seen, 6)
    gains: dict[str, list[tuple[float, float]]] = {}
    for i in range(6):
        task = found.val.sampler.batch([i])
        pool = found.val.features[task.pool].numpy()
        own = model.select({"pool": pool, "clinical": np.zeros((1, 20, 3), np.float32)}, [4])[4]
        medoids = KMedoids(4).select({"pool": pool, "clinical": np.zeros((1, 20, 0), np.float32)}, [4])[4]
        reward, clustering = (float(found.val.score(task, chosen[:, None]).reward[0, 0]) for chosen in (own, medoids))
        with_guard = reward if familiarity.familiar(pool)[0] else clustering
        condition = cohort.classes[int(task.condition[0])]
        gains.setdefault(condition, []).append((reward - clustering, with_guard - clustering))
    for column, name in enumerate(("left_out", "guarded")):
        assert noted[name] == pytest.approx({c: np.mean(own, axis=0)[column] for c, own in gains.items()})
    on_seen = [play(found.val_seen, strategy, [4], 6)[4].reward.mean() for strategy in (model, KMedoids(4))]
    assert noted["seen"] == pytest.approx(on_seen[0] - on_seen[1])
    assert found.judged() == {1: noted}


def test_pools_of_the_trained_conditions_are_familiar(cohort: Cohort, tmp_path: Path) -> None:
    found = run(tmp_path, cohort, left_out=("Cardiomegaly",))
    familiarity = learn_familiarity(found.train_env.engine, found.val_seen, 50)
    tasks = found.val_seen.sampler.batch(np.arange(50))
    statistics = familiarity.statistic(found.val_seen.features[tasks.pool].numpy())
    assert familiarity.limit == pytest.approx(2 * statistics.max())


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
