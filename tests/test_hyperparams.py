"""Every preset of every agent, tested by being in its file."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from activelabel.agents import AGENTS, DDQN, LAL_RL_ENV, LalRl, Reinforce
from activelabel.data import Cohort
from activelabel.envs import IMAGE_LEARNERS, ActiveLabelVectorEnv, SelectiveLabelVectorEnv
from activelabel.errors import SettingsError
from activelabel.settings import (
    OF_THE_DATA,
    SETTINGS,
    ActiveRunSettings,
    RunSettings,
    SelectiveRunSettings,
    preset,
    presets,
    read_config,
)
from activelabel.settings.oracle import OracleSettings

ALL = [(agent, env, name) for env, of in SETTINGS.items() for agent in of.agents for name in presets(agent, env)]
SELECTIVE, ACTIVE = ([preset_ for preset_ in ALL if preset_[1] == env] for env in SETTINGS)


def active(name: str, agent: str | None = None) -> ActiveRunSettings:
    settings = preset(name, agent, env="ActiveLabel-v0")
    assert isinstance(settings, ActiveRunSettings)
    return settings


def test_every_agent_plays_an_env_and_has_a_default() -> None:
    assert sorted(AGENTS) == sorted(agent for of in SETTINGS.values() for agent in of.agents)
    for env, of in SETTINGS.items():
        for agent in of.agents:
            assert "default" in presets(agent, env)
        assert preset("default", env=env).agent == of.agents[0]


@pytest.mark.parametrize(("agent", "env", "name"), ALL)
def test_preset_is_valid_and_survives_config_yaml(agent: str, env: str, name: str, tmp_path: Path) -> None:
    settings = preset(name, agent, env)
    assert (settings.agent, settings.env, settings.preset) == (agent, env, name)
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    assert read_config(tmp_path / "config.yaml") == settings


@pytest.mark.parametrize(("agent", "env", "name"), SELECTIVE)
def test_preset_makes_the_agent_that_it_describes(agent: str, env: str, name: str, cohort: Cohort) -> None:
    settings = preset(name, agent, env)
    assert isinstance(settings, SelectiveRunSettings)
    # The environment shrinks to the test's cohort; what the agent is made of stays.
    shrunk = {**settings.env_arguments(), "pool": 20, "query": 12, "k": 4, "conditions": None, "held_out": ()}
    venv = SelectiveLabelVectorEnv(settings.batch_size, cohort, device="cpu", **shrunk)
    model = AGENTS[agent](env=venv, **{**settings.agent_arguments(), "device": "cpu"})
    assert isinstance(model, Reinforce)
    for key in ("batch_size", "n_samples", "baseline", "replacement", "seed"):
        assert getattr(model, key) == getattr(settings, key)
    assert model.policy.selector.lstm.hidden_size == settings.hidden
    assert model.lr_schedule(1) == pytest.approx(settings.learning_rate)
    assert model.lr_schedule(0) == pytest.approx(settings.learning_rate * settings.lr_factor)


@pytest.mark.parametrize(("agent", "env", "name"), ACTIVE)
def test_preset_makes_the_active_agent_that_it_describes(agent: str, env: str, name: str, blobs: Cohort) -> None:
    settings = active(name, agent)
    sizes = {"pool": 40, "state_images": 5, "budget": 4, "components": None, "classes": None, "candidates": None}
    shrunk = {**settings.env_arguments(), **sizes, "batch": min(4, settings.batch), "fractions": (0.6, 0.2, 0.2)}
    if settings.learner in IMAGE_LEARNERS:  # the test's cohort has no images
        shrunk |= {"learner": "softmax", "learner_arguments": {}}
    model = AGENTS[agent](
        env=ActiveLabelVectorEnv(2, blobs, device="cpu", **shrunk), **{**settings.agent_arguments(), "device": "cpu"}
    )
    assert isinstance(model, DDQN)
    for key in ("warm_start_episodes", "batch_size", "gradient_steps", "gamma", "credit", "target", "patience", "seed"):
        assert getattr(model, key) == getattr(settings, key)
    assert model.lr_schedule(1) == pytest.approx(settings.learning_rate)
    assert model.lr_schedule(0) == pytest.approx(settings.learning_rate * settings.lr_factor)
    assert model.policy.standardize == settings.scale_candidates
    assert model.env_settings["features"] == settings.features


def test_slade_2022_is_the_paper() -> None:
    """§3.1, Eq. 3 and 4, §4.2; §4.4.1 for the larger one."""
    paper, large = active("slade2022"), active("slade2022-large")
    for settings in (paper, large):
        assert (settings.features, settings.state) == (("confidence", "labelled", "unlabelled"), ("confidence",))
        assert (settings.distance, settings.space) == ("euclidean", "latent")
        assert (settings.hidden, settings.learning_rate, settings.gamma) == ((128, 128, 128), 1e-4, 0.99)
        assert (settings.reward, settings.metric) == ("change", "accuracy")
        assert (settings.learner, settings.learner_arguments) == ("softmax", {"epochs": 200})
        assert (settings.credit, settings.target) == ("sum", "printed")
        assert settings.patience is not None
        assert {"random", "margin", "entropy", "uncertainty", "average-confidence", "lal-rl"} == set(settings.against)
    assert (paper.warm_start_episodes, paper.batch) == (16, 1)
    assert (large.warm_start_episodes, large.batch) == (128, 2)


def test_lal_rl_is_the_agents_own_settings(blobs: Cohort) -> None:
    """The preset repeats what the class and its environment are; here is where they would part."""
    settings = active("lal-rl", "lal-rl")
    arguments = settings.env_arguments()
    assert {name: arguments[name] for name in LAL_RL_ENV} == LAL_RL_ENV
    env = ActiveLabelVectorEnv(2, blobs, device="cpu", pool=40, state_images=5, budget=4, **LAL_RL_ENV)
    own, given = LalRl(env=env, device="cpu", seed=0), settings.agent_arguments()
    for name, value in given.items():
        if name not in ("policy_kwargs", "learning_rate", "device"):
            assert getattr(own, name) == value, name
    assert own.lr_schedule(1) == settings.learning_rate
    assert own.policy.standardize == settings.scale_candidates
    assert own.policy.default_hidden == settings.hidden


def test_learner_arguments_go_by_the_learners_names() -> None:
    assert ActiveRunSettings().learner_arguments == {}
    assert ActiveRunSettings(learner_c=2.0, learner_warm=True).learner_arguments == {"c": 2.0, "warm": True}
    assert ActiveRunSettings(learner="logistic", learner_epochs=9).learner_arguments == {"max_iter": 9}


def test_rounds_and_steps_are_rounded_up() -> None:
    settings = ActiveRunSettings(episodes=65, envs=64, budget=7, batch=3)
    assert (settings.rounds, settings.steps) == (2, 3)


def test_the_papers_presets_are_the_papers() -> None:
    """MedSelect §2, §3.1 and §3.3; the code's departures are DESIGN's table."""
    paper, code = preset("medselect-paper"), preset("medselect-code")
    for settings in (paper, code):
        assert (settings.pool, settings.query, settings.n_tasks, settings.batch_size) == (1000, 100, 10_000, 64)
        assert (settings.learning_rate, settings.n_samples, settings.baseline, settings.hidden) == (
            1e-4,
            1,
            "random",
            256,
        )
        assert settings.eval_k == (10, 20, 40, 80, 200, 400)
        # five epochs of 10,000 tasks
        assert settings.updates * settings.batch_size == pytest.approx(50_000, rel=0.01)
    assert (paper.predictor, paper.replacement, paper.duplicates, paper.lr_factor) == ("prototype", False, "once", 1.0)
    assert (code.predictor, code.replacement, code.duplicates, code.lr_factor) == ("mean-cosine", True, "repeat", 0.1)


def test_class_names_of_a_presets_own_data_go_with_it() -> None:
    assert preset("default").held_out
    assert preset("default", data="synthetic").held_out == preset("default").held_out
    other = preset("default", data="digits")
    known = [name for name in OF_THE_DATA if name != "classes"]
    assert all(getattr(other, name) == getattr(SelectiveRunSettings(), name) for name in known)
    assert preset("medselect-paper", data="chexpert.npz").held_out == ("Edema", "Atelectasis")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("defualt",), "unknown preset 'defualt'. Did you mean 'default'"),
        (("default", "reinfroce"), "unknown agent 'reinfroce'. Did you mean 'reinforce'"),
        (("default", "reinforce", "SelectiveLabel-v1"), "Did you mean 'SelectiveLabel-v0'"),
        (("default", None, "ActivLabel-v0"), "Did you mean 'ActiveLabel-v0'"),
        (("default", "ddqn"), "agent 'ddqn' does not play SelectiveLabel-v0; give it --env ActiveLabel-v0"),
        (("lal-rl", "ddqn", "ActiveLabel-v0"), "unknown preset 'lal-rl'"),
    ],
)
def test_unknown_names_get_the_closest_match(arguments: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        preset(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1.0}, "Did you mean 'learning_rate'"),
        ({"updates": "many"}, "updates must be int, got 'many'"),
        ({"updates": True}, "updates must be int, got True"),
        ({"updates": 0}, "updates=0 must be at least 1"),
        ({"k": 300}, "k=300 images cannot be chosen from a pool of 200"),
        ({"eval_k": [201]}, "eval_k: 201 images cannot be chosen from a pool of 200"),
        ({"eval_k": ["ten"]}, "eval_k[0] must be int, got 'ten'"),
        ({"val_pool": "small"}, "val_pool must be int, got 'small'"),
        ({"lr_start": 1.5}, "cannot change at 1.5 of the training"),
        ({"seed": -1}, "seed=-1"),
        ({"predictor": "prototyp"}, "Did you mean 'prototype'"),
        ([], "expected names and values, got list"),
    ],
)
def test_bad_values_are_named(values: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SelectiveRunSettings.from_mapping(values, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budgt": 1}, "Did you mean 'budget'"),
        ({"batch": 0}, "batch=0 must be a whole number of at least 1"),
        ({"pool": "small"}, "pool must be int, got 'small'"),
        ({"patience": "long"}, "patience must be int, got 'long'"),
        ({"max_grad_norm": -1.0}, "max_grad_norm=-1.0 must be positive"),
        ({"features": []}, "features and state must each name something"),
        ({"hidden": []}, "hidden=[] must be sizes of layers"),
        ({"hidden": ["many"]}, "hidden[0] must be int, got 'many'"),
        ({"test_shares": [0.5, 0.5]}, "test_shares=[0.5, 0.5] must be four positive numbers that sum to 1"),
        ({"against": ["skactiveml"]}, "One of scikit-activeml: skactiveml:NAME"),
        ({"env": "SelectiveLabel-v0"}, "settings of ActiveLabel-v0, not of SelectiveLabel-v0"),
        ({"agent": "reinforce"}, "agent 'reinforce' does not play ActiveLabel-v0; its agents: ddqn, lal-rl"),
    ],
)
def test_bad_values_of_the_active_env_are_named(values: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ActiveRunSettings.from_mapping(values, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1", ""])
def test_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        read_config(path)
    with pytest.raises(SettingsError, match="no such file"):
        read_config(tmp_path / "none" / "config.yaml")


@pytest.mark.parametrize("settings", SETTINGS.values())
def test_every_setting_explains_itself_on_the_command_line(settings: type[RunSettings]) -> None:
    sources = [inspect.getsource(of) for of in (settings, OracleSettings, RunSettings)]
    for field in fields(settings):
        text = next(source for source in sources if f"\n    {field.name}: " in source)
        declaration = text[text.index(f"\n    {field.name}: ") :]
        assert re.match(
            r'\n    \w+: [^=]+ = ([^\n(]*(\([^\n]*\))?|\(\n.*?\n    \))\n    """', declaration, re.DOTALL
        ), field.name
