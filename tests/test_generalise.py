"""Choosing a selector by conditions that are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activelabel.agents import Reinforce
from activelabel.agents.anchored import AnchoredPolicy
from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation import SelectiveRun
from activelabel.evaluation.generalise import FOLDS, SELECTORS_TRIED, Choice, groups
from activelabel.settings import SelectiveRunSettings, preset

CONDITIONS = ("Cardiomegaly", "Consolidation", "Pneumothorax")
TINY: dict[str, Any] = {
    **{"pool": 20, "query": 12, "k": 4, "updates": 2, "batch_size": 4, "n_samples": 2, "val_every": 1},
    **{"val_tasks": 6, "test_tasks": 4, "held_out": ("Edema", "Atelectasis"), "device": "cpu", "threads": 1},
    **{"conditions": CONDITIONS, "generalise": True},
}


def run(folder: Path, cohort: Cohort, **changes: Any) -> SelectiveRun:
    return SelectiveRun(folder, SelectiveRunSettings(**{**TINY, **changes}), False, cohort)


def some_pools(cohort: Cohort) -> dict[str, Any]:
    assert cohort.features is not None
    return {"pool": np.random.default_rng(0).normal(size=(3, 20, cohort.features.shape[1])).astype(np.float32)}


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_each_condition_is_left_out_once(n: int) -> None:
    conditions = [str(i) for i in range(n)]
    found = groups(conditions)
    assert sorted(name for group in found for name in group) == conditions
    assert len(found) == min(n, FOLDS)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_one_condition_cannot_be_left_out() -> None:
    assert groups(["a"]) == [()]


def test_selector_and_updates_are_those_of_the_largest_mean() -> None:
    histories = {
        "first": [[(10, 0.5), (20, 0.9)], [(10, 0.6), (20, 0.1)]],
        "second": [[(10, 0.5), (20, 0.7)], [(10, 0.6), (20, 0.5)]],
        "third": [[(10, 0.6), (20, 0.6)], [(10, 0.6), (20, 0.6)]],
    }
    found = Choice.of([("a",), ("b",)], [0.4, 0.6], histories)
    assert (found.selector, found.updates) == ("second", 20)  # of equal means the first
    assert found.curves["first"] == [(10, 0.55), (20, 0.5)]
    assert found.clustering == 0.5
    assert Choice.from_notes(found.notes()) == found
    assert found.summary() == "chosen by meta-validation on conditions left out in turn (a; b): second, 20 updates"
    assert found.table()[2] == "first   +0.050 +0.000"


def test_it_trains_what_was_chosen_on_all_conditions(cohort: Cohort, tmp_path: Path) -> None:
    found = run(tmp_path, cohort)
    found.train()
    model = found.model()
    assert isinstance(model, Reinforce)
    choice = Choice.from_notes(model.notes["choice"])
    assert choice.left_out == tuple(groups(CONDITIONS))
    assert list(choice.curves) == list(SELECTORS_TRIED)
    # What is chosen follows from the runs that left conditions out, whose files are there.
    curves = {}
    for name, own in SELECTORS_TRIED.items():
        of_name = []
        for i, left_out in enumerate(groups(CONDITIONS)):
            folder = tmp_path / "search" / f"{name.replace(', ', '--')}-{i}"
            settings = replace(found.settings, generalise=False, against=(), left_out=left_out, **own)
            assert (folder / "config.yaml").read_text() == settings.to_yaml()
            of_name.append([value for _, value in Reinforce.load(folder / "checkpoint.zip").notes["history"]])
        curves[name] = np.mean(of_name, axis=0)
    for name, curve in curves.items():
        np.testing.assert_allclose([value for _, value in choice.curves[name]], curve)
    assert curves[choice.selector][choice.updates - 1] == max(map(max, curves.values()))
    # And the model is that of a plain run with these settings.
    chosen = {**SELECTORS_TRIED[choice.selector], "updates": choice.updates, "val_every": choice.updates}
    plain = run(tmp_path / "plain", cohort, generalise=False, **chosen)
    plain.train()
    observation = some_pools(cohort)
    np.testing.assert_array_equal(model.select(observation, [4])[4], plain.model().select(observation, [4])[4])
    assert isinstance(model.policy, AnchoredPolicy) == ("anchored" in choice.selector)
    assert found.best() == choice.summary()
    assert found.choice() == choice.table()
    assert plain.choice() == []


def test_an_interrupted_search_goes_on(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole", cohort)
    whole.train()
    train, done = SelectiveRun.train, []

    def interrupted(self: SelectiveRun) -> None:
        if self.settings.left_out:
            done.append(self.folder)
            if len(done) == 5:
                raise KeyboardInterrupt
        train(self)

    with monkeypatch.context() as patch:
        patch.setattr(SelectiveRun, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", cohort).train()
    again = run(tmp_path / "parts", cohort)
    again.train()
    assert again.model().notes == whole.model().notes
    observation = some_pools(cohort)
    np.testing.assert_array_equal(again.model().select(observation, [4])[4], whole.model().select(observation, [4])[4])
    # What is finished is not searched for again.
    written = (tmp_path / "parts" / "model.zip").stat().st_mtime_ns
    monkeypatch.setattr(SelectiveRun, "_choose", lambda self: pytest.fail("searched again"))
    run(tmp_path / "parts", cohort).train()
    assert (tmp_path / "parts" / "model.zip").stat().st_mtime_ns == written


def test_one_condition_is_validated_on_itself(cohort: Cohort, tmp_path: Path) -> None:
    found = run(tmp_path, cohort, conditions=("Pneumothorax",), updates=1)
    found.train()
    assert "on the only condition's own validation images: " in found.best()


def test_the_command_line_brings_the_settings_with_it() -> None:
    settings = preset("kather", data="kather.npz", generalise=True)
    assert (settings.generalise, settings.updates, settings.batch_size) == (True, 160, 32)
    assert settings.conditions is not None
    with pytest.raises(SettingsError, match=r"generalise chooses a selector of reinforce.*; 'ddqn' has none"):
        preset("kather", env="ActiveLabel-v0", generalise=True)


def test_it_cannot_leave_out_more_than_all() -> None:
    with pytest.raises(SettingsError, match=r"give it no left_out=\['Pneumothorax'\]"):
        SelectiveRunSettings(generalise=True, left_out=("Pneumothorax",))
