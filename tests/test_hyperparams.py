"""Every preset of every agent, tested by being in its file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from activelabel.agents import AGENTS, Reinforce
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelVectorEnv
from activelabel.errors import SettingsError
from activelabel.settings import ENVS, OF_THE_DATA, RunSettings, preset, presets, read_config

ALL = [(agent, env, name) for agent in AGENTS for env in ENVS for name in presets(agent, env)]


@pytest.mark.parametrize(("agent", "env", "name"), ALL)
def test_preset_is_valid_and_survives_config_yaml(agent: str, env: str, name: str, tmp_path: Path) -> None:
    settings = preset(name, agent, env)
    assert (settings.agent, settings.env, settings.preset) == (agent, env, name)
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    assert read_config(tmp_path / "config.yaml") == settings


@pytest.mark.parametrize(("agent", "env", "name"), ALL)
def test_preset_makes_the_agent_that_it_describes(agent: str, env: str, name: str, cohort: Cohort) -> None:
    settings = preset(name, agent, env)
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
    assert all(getattr(other, name) == getattr(RunSettings(), name) for name in OF_THE_DATA)
    assert preset("medselect-paper", data="chexpert.npz").held_out == ("Edema", "Atelectasis")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("defualt",), "unknown preset 'defualt'. Did you mean 'default'"),
        (("default", "reinfroce"), "unknown agent 'reinfroce'. Did you mean 'reinforce'"),
        (("default", "reinforce", "SelectiveLabel-v1"), "Did you mean 'SelectiveLabel-v0'"),
    ],
)
def test_unknown_names_get_the_closest_match(arguments: tuple[str, ...], message: str) -> None:
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
        ({"eval_k": ["ten"]}, "a value has the wrong type"),
        ({"val_pool": "small"}, "a value has the wrong type"),
        ({"lr_start": 1.5}, "cannot change at 1.5 of the training"),
        ({"seed": -1}, "seed=-1"),
        ({"predictor": "prototyp"}, "Did you mean 'prototype'"),
        ([], "expected names and values, got list"),
    ],
)
def test_bad_values_are_named(values: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RunSettings.from_mapping(values, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1", ""])
def test_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        read_config(path)
    with pytest.raises(SettingsError, match="no such file"):
        read_config(tmp_path / "none" / "config.yaml")


def test_every_setting_explains_itself_on_the_command_line() -> None:
    text = (Path(__file__).parents[1] / "activelabel" / "settings.py").read_text()
    for field in fields(RunSettings):
        declaration = text.index(f"    {field.name}: ")
        assert text[declaration:].split("\n")[1].strip().startswith('"""'), field.name
