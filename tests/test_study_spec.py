"""The study file: what it means, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_files import ACTIVE, SELECTIVE, STUDY, study_file, write

from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation.study import read_study, shipped
from activelabel.evaluation.study.spec import Budget, Grid, Study
from activelabel.settings import ActiveRunSettings, SelectiveRunSettings, preset


@pytest.fixture
def study(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> Study:
    return read_study(str(study_file(tmp_path, cohort, blobs)))


def strategy(grid: Grid, name: str) -> Any:
    return next(entry for entry in grid.strategies if entry.name == name)


def test_a_file_is_read_as_its_grids(study: Study, tmp_path: Path) -> None:
    once, episodes = study.grids
    assert (study.name, once.name, episodes.name) == ("tiny", "once", "episodes")
    assert once.budgets == (Budget(k=2), Budget(k=4))
    assert episodes.budgets == (Budget(labels=7, batch=3), Budget(labels=7, batch=2))
    assert once.seeds == episodes.seeds == (0, 1)
    assert (once.n, episodes.n) == (6, 5)
    assert (once.reference, episodes.reference) == ("kmedoids", "ddqn")
    assert [d.name for d in (*once.data, *episodes.data)] == ["cohort", "four blobs"]
    assert once.data[0].settings.data == str(tmp_path / "cohort.npz")
    assert [s.agent for s in once.strategies] == [None, None, "reinforce", "reinforce"]


def test_an_agent_is_trained_with_the_settings_of_the_data_set(study: Study) -> None:
    once = study.grids[0]
    settings = once.training(strategy(once, "reinforce"), once.data[0], once.budgets[0], 1)
    assert isinstance(settings, SelectiveRunSettings)
    assert (settings.seed, settings.k, settings.updates, settings.pool) == (1, 4, 4, 20)


def test_a_preset_of_its_own_keeps_the_data_and_its_sizes(study: Study) -> None:
    once = study.grids[0]
    settings = once.training(strategy(once, "printed"), once.data[0], once.budgets[0], 0)
    printed = preset("medselect-paper")
    assert isinstance(settings, SelectiveRunSettings)
    assert (settings.n_samples, settings.baseline, settings.learning_rate) == (1, "random", printed.learning_rate)
    assert (settings.pool, settings.query, settings.k, settings.held_out) == (20, 12, 4, ("Edema", "Atelectasis"))
    assert settings.updates == 2


@pytest.mark.parametrize("threads", [None, 2])
def test_a_training_has_one_thread_unless_the_file_says_otherwise(
    threads: int | None, tmp_path: Path, cohort: Cohort, blobs: Cohort
) -> None:
    given = {} if threads is None else {"threads": threads}
    changes = {"settings": {**STUDY["grids"]["once"]["settings"], **given}}
    once = read_study(str(study_file(tmp_path, cohort, blobs, **changes))).grids[0]
    assert preset("default").threads == 2  # other than on its own: trainings run side by side
    for name in ("reinforce", "printed"):
        assert once.training(strategy(once, name), once.data[0], once.budgets[0], 0).threads == (threads or 1)


def test_lal_rl_is_what_it_is(study: Study) -> None:
    episodes = study.grids[1]
    settings = episodes.training(strategy(episodes, "lal-rl"), episodes.data[0], episodes.budgets[0], 0)
    assert isinstance(settings, ActiveRunSettings)
    assert (settings.learner, settings.reward, settings.batch) == ("logistic", "target", 1)
    assert (settings.budget, settings.pool, settings.fractions) == (7, 60, (0.4, 0.3, 0.3))
    assert settings.state_images == 5  # as in the comparison that a run makes


def test_training_for_each_budget(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    study = read_study(str(study_file(tmp_path, cohort, blobs, train_each=True)))
    once = study.grids[0]
    entry = strategy(once, "reinforce")
    trained = [once.training(entry, once.data[0], budget, 0) for budget in once.budgets]
    assert [s.k for s in trained if isinstance(s, SelectiveRunSettings)] == [2, 4]


def test_a_clinical_selector_sees_clinical_variables_alone(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    study = read_study(str(study_file(tmp_path, cohort, blobs, strategies=["clinical"])))
    once = study.grids[0]
    settings = once.training(once.strategies[0], once.data[0], once.budgets[0], 0)
    assert isinstance(settings, SelectiveRunSettings)
    assert (settings.inputs, once.reference) == (("clinical",), "clinical")


AGENT = {"agent": "reinforce", "name": "mine"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "environment": ({"env": "SelectiveLabel-v1"}, "grids.once.env: .*Did you mean 'SelectiveLabel-v0'"),
    "key of a grid": ({"strategy": []}, "grids.once: unknown key 'strategy'. Did you mean 'strategies'"),
    "key of another env": ({"batch": [1]}, "grids.once.batch: is for ActiveLabel-v0; SelectiveLabel-v0 has k, tasks"),
    "strategy": ({"strategies": ["kmedoid"]}, r"strategies\[0\]: .*Did you mean 'kmedoids'"),
    "strategy twice": ({"strategies": ["random", "random"]}, "'random' is there twice"),
    "agent": ({"strategies": [{"agent": "reinforc"}]}, r"strategies\[0\].agent: .*Did you mean 'reinforce'"),
    "agent of another env": ({"strategies": [{"agent": "ddqn"}]}, r"strategies\[0\].agent: unknown agent 'ddqn'"),
    "preset": (
        {"strategies": ["random", {**AGENT, "preset": "medselect-papr"}]},
        r"strategies\[1\].preset: .*Did you mean 'medselect-paper'",
    ),
    "preset of the data": ({"preset": "kathr"}, r"data\[0\]: .*Did you mean 'kather'"),
    "data set": ({"data": ["synthetik"]}, r"data\[0\]: unknown data set 'synthetik'. Did you mean 'synthetic'"),
    "key of a data set": ({"data": [{"data": "digits", "nam": "d"}]}, r"data\[0\]: unknown key 'nam'. Did you mean"),
    "no data": ({"data": [{"name": "d"}]}, r"data\[0\]: has no 'data'"),
    "setting": ({"settings": {"pol": 20}}, "grids.once.settings: unknown key 'pol'. Did you mean 'pool'"),
    "value": ({"settings": {"pool": "many"}}, r"data\[0\]: pool must be int, got 'many'"),
    "range": ({"settings": {"k": 30, "pool": 20}}, r"data\[0\]: k=30 images cannot be chosen"),
    "k above the pool": ({"k": [2, 21]}, r"data\[0\]: k=21 images cannot be chosen from a pool of 20"),
    "k": ({"k": [0]}, "grids.once.k: 0 must be a whole number of at least 1"),
    "k twice": ({"k": [2, 2]}, "has a number twice"),
    "k of no list": ({"k": 2}, "grids.once.k must be a list"),
    "tasks": ({"tasks": 0}, "grids.once.tasks: 0 must be"),
    "seeds": ({"seeds": [-1]}, "grids.once.seeds: -1 must be"),
    "reference": ({"reference": "kmedoid"}, "grids.once.reference: .*Did you mean 'kmedoids'"),
    "train_each": ({"train_each": "yes"}, "train_each must be true or false"),
    "what is the same for all": (
        {"strategies": [{**AGENT, "settings": {"held_out": []}}]},
        r"strategies\[0\].settings.held_out: is the same for every strategy",
    ),
    "an agent's range": (
        {"strategies": [{**AGENT, "settings": {"n_samples": 1}}]},
        r"strategies\[0\] on 'cohort': .*n_samples=1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_file_and_place(case: str, tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    changes, message = BAD[case]
    path = study_file(tmp_path, cohort, blobs, **changes)
    with pytest.raises(SettingsError, match=message) as refused:
        read_study(str(path))
    assert str(refused.value).startswith(str(path))


def test_the_outer_keys_are_checked(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    study = {**copy.deepcopy(STUDY), "seed": 3}
    with pytest.raises(SettingsError, match=r"tiny.yaml: unknown key 'seed'. Did you mean 'seeds'"):
        read_study(str(write(tmp_path, study, cohort, blobs)))
    for grids in ({}, [SELECTIVE]):
        with pytest.raises(SettingsError, match="grids must be names"):
            read_study(str(write(tmp_path, {"grids": grids}, cohort, blobs)))


def test_unknown_pool_strategies_are_refused(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    grid = {**ACTIVE, "strategies": ["margn"]}
    with pytest.raises(SettingsError, match=r"grids.e.strategies\[0\]: .*Did you mean 'margin'"):
        read_study(str(write(tmp_path, {"grids": {"e": grid}}, cohort, blobs)))
    grid = {**ACTIVE, "batch": [8]}
    with pytest.raises(SettingsError, match="batch=8 labels a step exceed the budget of 7"):
        read_study(str(write(tmp_path, {"grids": {"e": grid}}, cohort, blobs)))


def test_no_such_study(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown study 'quik'. Did you mean 'quick'"):
        read_study("quik")
    with pytest.raises(SettingsError, match=r"none.yaml: no such file. Studies that come with the package: generalise"):
        read_study(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("grids: [")
    with pytest.raises(SettingsError, match=r"bad.yaml: not readable as YAML"):
        read_study(str(tmp_path / "bad.yaml"))


@pytest.mark.data
def test_shipped_studies_are_there(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVELABEL_DATA", str(data_dir))
    assert set(shipped()) == {"generalise", "quick", "medselect", "slade2022", "noise", "selectors"}
    for name in shipped():
        study = read_study(name)
        assert study.about
        assert yaml.safe_load(study.text)["grids"].keys() == {grid.name for grid in study.grids}


def test_quick_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVELABEL_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert {data.settings.data for grid in read_study("quick").grids for data in grid.data} <= {"synthetic", "digits"}
