"""Choosing a selector by conditions that are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from activelabel.agents import Reinforce
from activelabel.agents.anchored import AnchoredPolicy
from activelabel.baselines import KMedoids
from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation import SelectiveRun
from activelabel.evaluation.generalise import (
    CLUSTERING,
    FOLDS,
    FREE,
    FREEDOM,
    GUARDED,
    SELECTORS_TRIED,
    Choice,
    Trial,
    groups,
)
from activelabel.settings import SelectiveRunSettings, preset

CONDITIONS = ("Cardiomegaly", "Consolidation", "Pneumothorax")
TINY: dict[str, Any] = {
    **{"pool": 20, "query": 12, "k": 4, "updates": 2, "batch_size": 4, "n_samples": 2, "val_every": 1},
    **{"val_tasks": 6, "test_tasks": 4, "held_out": ("Edema", "Atelectasis"), "device": "cpu", "threads": 1},
    **{"conditions": CONDITIONS, "generalise": True, "members": 2},
}


def run(folder: Path, cohort: Cohort, **changes: Any) -> SelectiveRun:
    return SelectiveRun(folder, SelectiveRunSettings(**{**TINY, **changes}), False, cohort)


def some_pools(cohort: Cohort) -> dict[str, Any]:
    assert cohort.features is not None
    return {"pool": np.random.default_rng(0).normal(size=(3, 20, cohort.features.shape[1])).astype(np.float32)}


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_each_condition_is_left_out_once(n: int) -> None:
    conditions = [str(i) for i in range(n)]
    found = groups(conditions)
    assert sorted(name for group in found for name in group) == conditions
    assert len(found) == (FOLDS if n > 3 else n)
    assert max(map(len, found)) <= n - 2  # a training on one condition does not show what several teach
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("n", [1, 2])
def test_few_conditions_cannot_be_left_out(n: int) -> None:
    assert groups([str(i) for i in range(n)]) == [()]


def trial(updates: int, seen: float, left_out: list[float], guarded: list[float] | None = None) -> Trial:
    own = {str(i): gain for i, gain in enumerate(left_out)}
    return Trial(updates, seen, own, own if guarded is None else {str(i): gain for i, gain in enumerate(guarded)})


@pytest.mark.parametrize(
    ("left_out", "proven"),
    [
        ([0.02, 0.03, 0.04], True),
        ([0.02, 0.02], False),  # two conditions do not say how much conditions differ
        ([0.001, 0.03, 0.06], False),
        ([-0.02, -0.03, -0.04], False),
        ([0.02] * 3, True),
        ([0.0] * 3, False),
        ([], False),
    ],
)
def test_what_is_proven_is_above_0_by_more_than_chance(left_out: list[float], proven: bool) -> None:
    found = trial(1, 0.0, left_out)
    assert found.proven == proven
    if len(set(left_out)) > 2:
        end = stats.ttest_1samp(left_out, 0, alternative="greater").confidence_interval(0.95).low
        assert proven == (end > 0)
    assert found.chooses_of == (FREE if proven or not left_out else GUARDED)


def test_what_is_proven_is_worth_what_it_gains_and_else_what_it_gains_with_the_guard() -> None:
    assert trial(1, 0.04, [0.02, 0.03, 0.04], [0.0, 0.0, 0.0]).worth == pytest.approx(0.035)
    assert trial(1, 0.04, [0.02, 0.02], [0.0, 0.01]).worth == pytest.approx(0.0225)
    assert trial(1, 0.04, []).worth > trial(1, 0.03, []).worth


def test_selector_and_updates_are_those_of_the_largest_worth() -> None:
    trials = {
        "first": [trial(10, 0.03, [-0.1, 0.1], [0, 0]), trial(20, 0.04, [-0.1, 0.1], [0, 0])],
        "second": [trial(10, 0.04, [-0.1, 0.1], [0, 0]), trial(20, 0.05, [-0.1, -0.1], [-0.01, 0])],
    }
    found = Choice.of([("a",), ("b",)], trials)
    assert (found.selector, found.updates, found.chooses_of) == ("first", 20, GUARDED)  # of equal ones the first
    assert Choice.from_notes(json.loads(json.dumps(found.notes()))) == found
    said = "chosen by meta-validation on conditions left out in turn (a; b): first, 20 updates; "
    assert found.summary() == said + "it chooses of familiar pools, K-Medoids of the rest"
    assert found.table()[1:] == [
        "updates              10     20",
        "first: seen      +0.030 +0.040",
        "first: left out  +0.000 +0.000",
        "first: guarded   +0.000 +0.000",
        "second: seen     +0.040 +0.050",
        "second: left out +0.000 -0.100",
        "second: guarded  +0.000 -0.005",
    ]


@pytest.mark.parametrize(
    "trials",
    [
        [trial(10, 0.05, [-0.1, 0.0], [-0.02, 0.0])],  # does harm on other conditions, even with the guard
        [trial(10, -0.01, [0.1, 0.1], [0.0, 0.0])],  # gains nothing
        [trial(10, -0.01, [])],
    ],
)
def test_where_nothing_is_better_k_medoids_chooses(trials: list[Trial]) -> None:
    found = Choice.of([("a",), ("b",)] if trials[0].left_out else [()], {"first": trials})
    assert found.chooses_of == CLUSTERING
    assert found.summary().endswith("it chooses of no pool, K-Medoids of the rest")


@pytest.mark.parametrize("more", [0.9 * FREEDOM, 1.1 * FREEDOM])
def test_where_none_is_left_out_a_free_choice_has_to_gain_more_and_all_updates_are_made(more: float) -> None:
    trials = {
        "mlp": [trial(10, 0.9, []), trial(20, 0.02 + more, [])],
        "gated, anchored": [trial(10, 0.8, []), trial(20, 0.02, [])],
    }
    found = Choice.of([()], trials)
    chosen = "mlp" if more > FREEDOM else "gated, anchored"
    assert (found.selector, found.updates, found.chooses_of) == (chosen, 20, FREE)
    # With conditions that were left out, what is gained is what counts, at any of the updates.
    with_others = {name: [trial(t.updates, t.seen, [0.0]) for t in own] for name, own in trials.items()}
    found = Choice.of([("0",)], with_others)
    assert (found.selector, found.updates) == ("mlp", 10)


def test_it_trains_what_was_chosen_on_all_conditions(cohort: Cohort, tmp_path: Path) -> None:
    found = run(tmp_path, cohort)
    found.train()
    model = found.model()
    assert isinstance(model, Reinforce)
    choice = Choice.from_notes(model.notes["choice"])
    assert choice.left_out == tuple(groups(CONDITIONS))
    assert list(choice.trials) == list(SELECTORS_TRIED)
    # What is chosen follows from the runs that left conditions out, whose files are there.
    for name, own in SELECTORS_TRIED.items():
        judged = []
        for i, left_out in enumerate(groups(CONDITIONS)):
            folder = tmp_path / "search" / f"{name.replace(', ', '--')}-{i}"
            settings = replace(found.settings, generalise=False, against=(), left_out=left_out, members=1, **own)
            assert (folder / "config.yaml").read_text() == settings.to_yaml()
            judged.append(Reinforce.load(folder / "checkpoint.zip").notes["judged"])
            assert set(judged[-1][0]["left_out"]) <= set(left_out)
        for point, *each in zip(choice.trials[name], *judged, strict=True):
            assert point.seen == pytest.approx(np.mean([one["seen"] for one in each]))
            assert point.left_out == {condition: gain for one in each for condition, gain in one["left_out"].items()}
    assert Choice.of(choice.left_out, choice.trials) == choice
    # And the model is that of a plain run with these settings, but for the guard.
    chosen = {**SELECTORS_TRIED[choice.selector], "updates": choice.updates, "val_every": choice.updates}
    chosen["members"] = 1 if choice.chooses_of == CLUSTERING else 2
    plain = run(tmp_path / "plain", cohort, generalise=False, **chosen)
    plain.train()
    observation, expected = some_pools(cohort), plain.model()
    assert isinstance(expected, Reinforce)
    expected.familiarity = model.familiarity
    np.testing.assert_array_equal(model.select(observation, [4])[4], expected.select(observation, [4])[4])
    assert isinstance(model.policy, AnchoredPolicy) == ("anchored" in choice.selector)
    of_all = "; the mean of the logits of 2 trainings"
    assert found.best() == choice.summary() + ("" if choice.chooses_of == CLUSTERING else of_all)
    assert found.choice() == choice.table()
    assert plain.choice() == []


@pytest.mark.parametrize("chooses_of", [FREE, GUARDED, CLUSTERING])
def test_the_model_has_the_guard_that_was_chosen(
    chooses_of: str, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path, cohort)
    choice = Choice("mlp", 1, chooses_of, (("Cardiomegaly",), ("Consolidation", "Pneumothorax")), {"mlp": []})
    monkeypatch.setattr(SelectiveRun, "_choose", lambda self: choice)
    train, guard = SelectiveRun._train, SelectiveRun._guard
    monkeypatch.setattr(SelectiveRun, "_guard", lambda self, choice: None)  # as if interrupted before it
    found.train()
    monkeypatch.setattr(SelectiveRun, "_guard", guard)
    found = run(tmp_path, cohort)
    found.train()
    model = found.model()
    assert isinstance(model, Reinforce)
    pools = found.val.features[found.val.sampler.batch(np.arange(6)).pool].numpy()
    medoids = KMedoids().select({"pool": pools, "clinical": np.zeros((6, 20, 0), np.float32)}, [4])[4]
    clinical = np.zeros((6, 20, 3), np.float32)
    same = (model.select({"pool": pools, "clinical": clinical}, [4])[4] == medoids).all(axis=1)
    assert (model.familiarity is None) == (chooses_of == FREE)
    if chooses_of == CLUSTERING:
        assert same.all()
    else:  # validation pools of the trained conditions set the limit, so they are familiar
        assert not same.all()
        far = model.select({"pool": pools + 50, "clinical": clinical}, [4])[4]
        at_medoids = far == KMedoids().select({"pool": pools + 50, "clinical": clinical}, [4])[4]
        assert at_medoids.all() == (chooses_of == GUARDED)
    written = (tmp_path / "model.zip").stat().st_mtime_ns
    monkeypatch.setattr(SelectiveRun, "_train", lambda *arguments: pytest.fail("trained again"))
    run(tmp_path, cohort).train()
    assert (tmp_path / "model.zip").stat().st_mtime_ns == written
    monkeypatch.setattr(SelectiveRun, "_train", train)


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


@pytest.mark.parametrize("conditions", [("Pneumothorax",), ("Pneumothorax", "Consolidation")])
def test_few_conditions_are_validated_on_themselves(
    conditions: tuple[str, ...], cohort: Cohort, tmp_path: Path
) -> None:
    found = run(tmp_path, cohort, conditions=conditions, updates=1)
    found.train()
    assert "on unseen images of the conditions of the training, too few to leave one out: " in found.best()
    notes = Reinforce.load(tmp_path / "search" / "mlp-0" / "checkpoint.zip").notes
    choice = Choice.from_notes(found.model().notes["choice"])
    (judged,) = choice.trials["mlp"]
    assert judged == Trial(1, notes["history"][0][1] - found.references["kmedoids"])
    assert choice.chooses_of == (FREE if max(each.seen for (each,) in choice.trials.values()) > 0 else CLUSTERING)


def test_the_command_line_brings_the_settings_with_it() -> None:
    settings = preset("kather", data="kather.npz", generalise=True)
    assert (settings.generalise, settings.updates, settings.batch_size) == (True, 200, 32)
    assert (settings.task_augmentation, settings.members) == (0.5, 3)
    assert settings.conditions is not None
    with pytest.raises(SettingsError, match=r"generalise chooses a selector of reinforce.*; 'ddqn' has none"):
        preset("kather", env="ActiveLabel-v0", generalise=True)


def test_it_cannot_leave_out_more_than_all() -> None:
    with pytest.raises(SettingsError, match=r"give it no left_out=\['Pneumothorax'\]"):
        SelectiveRunSettings(generalise=True, left_out=("Pneumothorax",))
