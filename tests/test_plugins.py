"""Agents, baselines, learners, backbones and data sets from outside the package: how they are found, and refused."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_play import HERE, MyMargin, MyRandom, install

from activelabel import load, plugins, train
from activelabel.agents import AGENTS, find_agent
from activelabel.baselines import Margin, make_baseline, make_pool_baseline
from activelabel.data.backbones import make_backbone
from activelabel.data.catalog import CATALOG, absolute, listing
from activelabel.envs.learners import SoftmaxHead, make_learner
from activelabel.errors import ActiveLabelError, SettingsError
from activelabel.evaluation.study import read_study
from activelabel.settings import ActiveRunSettings, SelectiveRunSettings, preset, read_config

ASKED: dict[str, Callable[[str], Any]] = {
    "agent": find_agent,
    "baseline": make_baseline,
    "baseline of the other environment": make_pool_baseline,
    "learner": make_learner,
    "backbone": make_backbone,
    "data set": load,
}
"""Who asks for a name of each kind."""

GROUP = {kind: kind.partition(" of ")[0] for kind in ASKED}
SHORT = {kind: plugins.GROUPS[GROUP[kind]].removeprefix("activelabel.") for kind in ASKED}

every = pytest.mark.parametrize("kind", ASKED)


@every
def test_an_unknown_name_lists_plug_ins_among_the_closest(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme", {SHORT[kind]: ["acme-thing = acme.core:Thing"]})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ActiveLabelError, match=r"Did you mean 'acme-thing'\?"):
        ASKED[kind]("acme-think")
    assert "acme" not in sys.modules


@every
@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("", "has no 'Thing'"),
        ("Thing = 3", "no function or class"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_named(
    kind: str, source: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"acme_{zlib.crc32(f'{kind} {source}'.encode())}"
    install(tmp_path, "acme", {SHORT[kind]: [f"acme-thing = {module}:Thing"]}, module, source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=rf"'acme-thing = {module}:Thing' of acme 1\.0 in activelabel.*{fault}"):
        ASKED[kind]("acme-thing")
    with pytest.raises(SettingsError, match=rf"'{module}:Thing'.*{fault}"):
        ASKED[kind](f"{module}:Thing")


def test_a_module_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(
        SettingsError, match=r"agent 'nowhere\.at:All' cannot be imported.*put its folder on PYTHONPATH"
    ):
        find_agent("nowhere.at:All")


def test_two_of_a_name_are_refused_unless_they_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target in (("acme", "one"), ("other", "two")):
        install(tmp_path, name, {"learners": [f"clash = {target}:Learner", "same = plugin_play:number"]})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=r"declared more than once.*acme 1\.0.*other 1\.0|other.*acme"):
        make_learner("clash")
    with pytest.raises(SettingsError, match="learner=3 has no fit"):
        make_learner("same")


def test_the_package_s_own_names_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "agents": ["ddqn = acme:X"],
        "baselines": ["margin = acme:X"],
        "learners": ["softmax = acme:X"],
        "datasets": ["digits = acme:X"],
        "backbones": ["resnet18 = acme:X"],
    }
    install(tmp_path, "acme", entries)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_agent("ddqn") is AGENTS["ddqn"]
    assert type(make_pool_baseline("margin")) is Margin
    assert isinstance(make_learner("softmax"), SoftmaxHead)
    assert load("digits").source.name == "digits"
    assert make_backbone("resnet18", weights="random", size=32).dim == 512


def test_nothing_is_imported_for_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [group.removeprefix("activelabel.") for group in plugins.GROUPS.values()]
    install(tmp_path, "acme", {group: ["lazy = acme_lazy:X"] for group in groups}, "acme_lazy", "1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for arguments in (["--help"], ["--agent", "lazy", "--help"], ["--agent", "acme_lazy:X", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            train.parse(arguments)
    assert "lazy " in listing()
    assert plugins.names("agent") == ("lazy",)
    assert "acme_lazy" not in sys.modules


def test_a_class_path_is_looked_for_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "just_here.py").write_text("from plugin_play import MyMargin as Mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert type(make_pool_baseline("just_here:Mine")) is MyMargin
    assert "Did you mean" not in plugins.identity("baseline", "just_here:Mine")


def test_identity_is_the_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme", {"agents": ["thing = acme_file:X"]}, "acme_file", "X = 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = plugins.identity("agent", "thing")
    assert before == plugins.identity("agent", "thing")
    (tmp_path / "acme_file.py").write_text("X = 2")
    assert plugins.identity("agent", "thing") != before
    assert "acme_file" not in sys.modules
    with pytest.raises(SettingsError, match="there is no module 'nowhere'"):
        plugins.identity("agent", "nowhere:X")


def test_baselines_of_both_environments_are_told_apart() -> None:
    assert type(make_baseline(f"{HERE}MyRandom", 3, 1)) is MyRandom
    assert make_baseline(f"{HERE}MyRandom", 3, 1).k == 3
    with pytest.raises(SettingsError, match=r"MyMargin' is none of SelectiveLabel-v0.*baselines\.Baseline"):
        make_baseline(f"{HERE}MyMargin")
    with pytest.raises(SettingsError, match=r"MyRandom' is none of ActiveLabel-v0.*baselines\.PoolBaseline"):
        make_pool_baseline(f"{HERE}MyRandom")
    with pytest.raises(SettingsError, match=r"number' cannot be made: number\(\) takes 0 positional arguments"):
        make_pool_baseline(f"{HERE}number")


def test_what_is_no_agent_and_no_data_set_is_refused() -> None:
    with pytest.raises(SettingsError, match="NoAgent' has no learn, predict, save, load"):
        find_agent(f"{HERE}NoAgent")
    with pytest.raises(SettingsError, match="made' has no load"):
        find_agent(f"{HERE}made")
    with pytest.raises(ActiveLabelError, match="number' gave int; the function must return a Cohort"):
        load(f"{HERE}number")
    with pytest.raises(SettingsError, match=r"unknown option of .*number 'labels'"):
        load(f"{HERE}number", labels="x")


def test_files_and_the_catalogue_come_before_class_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    with pytest.raises(ActiveLabelError, match=r"class folder|no class"):
        load("a:b")
    with pytest.raises(ActiveLabelError, match="kermany is not in"):
        load("kermany:here")
    assert absolute("some.module:function") == "some.module:function"
    assert not plugins.is_path("C:\\data")
    assert all(not plugins.is_path(name) for name in CATALOG)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["SelectiveLabel-v0", "ActiveLabel-v0"])
def test_a_plug_in_has_the_tasks_of_a_preset_and_none_of_our_agents_settings(env: str) -> None:
    ours, theirs = preset("kather", None, env, "x.npz"), preset("kather", f"{HERE}First", env, "x.npz")
    for name in ("data", "fractions", "val_every"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert theirs.learning_rate == type(theirs)().learning_rate != ours.learning_rate
    assert theirs.agent_arguments() == {"seed": 0, "device": "auto"}


def test_options_are_read_from_yaml_and_the_command_line(tmp_path: Path) -> None:
    options = {"policy": "MultiInputPolicy", "policy_kwargs": {"net_arch": [8, 8]}, "gamma": 0.5}
    given = train.parse(["--agent", f"{HERE}First", "--agent-options", yaml.safe_dump(options)]).settings
    assert given.agent_options == options
    assert given.agent_arguments() == {"seed": 0, "device": "auto", **options}
    (tmp_path / "config.yaml").write_text(given.to_yaml())
    again = read_config(tmp_path / "config.yaml")
    assert again == given
    assert hash(again) == hash(given)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (SelectiveRunSettings, {"agent_options": {"x": 1}}, "are for an agent of your own; 'reinforce' has settings"),
        (SelectiveRunSettings, {"agent": "a.b:C", "hidden": 8}, "hidden=8 is a setting of reinforce; 'a.b:C' is given"),
        (ActiveRunSettings, {"agent": "a.b:C", "gamma": 0.5}, "gamma=0.5 is a setting of ddqn"),
        (SelectiveRunSettings, {"agent": "a.b:C", "against": ["clinical"]}, "'clinical' is the selector of reinforce"),
        (ActiveRunSettings, {"agent": "a.b:C", "agent_options": {1: 2}}, "must be names and values"),
        (ActiveRunSettings, {"agent": "a.b:C", "agent_options": [1]}, "agent_options must be dict"),
        (ActiveRunSettings, {"learner_options": {"x": 1}}, "are for a learner of your own; 'softmax' has settings"),
        (
            ActiveRunSettings,
            {"learner": f"{HERE}number", "learner_c": 2.0},
            "learner_c=2.0 does not go with the learner",
        ),
        (ActiveRunSettings, {"agent": "ddnq"}, "unknown agent 'ddnq'. Did you mean 'ddqn'"),
        (SelectiveRunSettings, {"against": ["kmedoid"]}, "unknown strategy 'kmedoid'. Did you mean 'kmedoids'"),
    ],
)
def test_settings_that_do_not_go_together(settings: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.from_mapping(values, "here")


def test_options_that_no_file_can_hold_are_refused() -> None:
    with pytest.raises(SettingsError, match="must be plain values"):
        SelectiveRunSettings(agent="a.b:C", agent_options={"policy": object()})


@pytest.mark.parametrize("text", ["3", "[1]", "{", "a"])
def test_options_must_be_a_mapping(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.parse(["--agent", f"{HERE}First", "--agent-options", text])
    assert "agent-options" in capsys.readouterr().err


# -- study files -------------------------------------------------------------------------------------------------------


def study(folder: Path, strategies: list[Any], env: str = "SelectiveLabel-v0", data: str = "digits") -> Path:
    path = folder / "own.yaml"
    settings = {"pool": 20, "query": 12, "k": 4} if env == "SelectiveLabel-v0" else {}
    grid = {"env": env, "data": [data], "settings": settings, "strategies": strategies}
    path.write_text(yaml.safe_dump({"grids": {"g": grid}}))
    return path


def test_a_study_takes_plug_ins(tmp_path: Path) -> None:
    own = {"agent": f"{HERE}First", "name": "first", "settings": {"agent_options": {"skill": 2.0}}}
    found = read_study(str(study(tmp_path, ["random", f"{HERE}MyRandom", f"{HERE}First", own], data=f"{HERE}number")))
    (grid,) = found.grids
    assert grid.data[0].name == grid.data[0].settings.data == f"{HERE}number"
    assert [s.agent for s in grid.strategies] == [None, None, f"{HERE}First", f"{HERE}First"]
    settings = grid.training(grid.strategies[3], grid.data[0], grid.budgets[0], 5)
    assert (settings.agent_options, settings.seed) == ({"skill": 2.0}, 5)


@pytest.mark.parametrize(
    ("strategies", "message"),
    [
        (["random", f"{HERE}Nothing"], r"strategies\[1\]: .*has no 'Nothing'"),
        (["random", {"agent": f"{HERE}Nothing"}], r"strategies\[1\]\.agent: .*has no 'Nothing'"),
        ([{"agent": "renforce"}], r"strategies\[0\]\.agent: unknown agent 'renforce'\. Did you mean 'reinforce'"),
        (["kmedoid"], r"strategies\[0\]: unknown strategy 'kmedoid'\. Did you mean 'kmedoids'"),
        ([{"agent": "ddqn"}], r"strategies\[0\]\.agent: unknown agent 'ddqn'"),
    ],
)
def test_a_study_refuses_what_is_not_there(strategies: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        read_study(str(study(tmp_path, strategies)))
