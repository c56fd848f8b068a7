"""The arguments of ``ActiveLabel-v0``: each is passed on and changes the game, and bad ones are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from active_reference import play
from conftest import ACTIVE

import activelabel
from activelabel.data import Cohort
from activelabel.envs import ActiveLabelEngine, ActiveLabelEnv, ActiveLabelSettings
from activelabel.envs.candidates import LONG, SHORT
from activelabel.errors import SettingsError
from activelabel.settings import OF_THE_DATA, ActiveRunSettings

Make = Callable[..., Any]

CHANGED: dict[str, Any] = {
    "budget": 9,
    "batch": 3,
    "pool": 50,
    "initial": 2,
    "candidates": 20,
    "features": ("margin", "nearest"),
    "state": ("per-class",),
    "state_images": 7,
    "observe": ("probabilities",),
    "learner": "logistic",
    "learner_arguments": {"max_iter": 20},
    "oracle": "noisy",
    "oracle_arguments": {"rate": 0.3},
    "distance": "cosine",
    "space": "data",
    "metric": "auroc",
    "reward": "target",
    "tolerance": 0.5,
    "classes": ("B", "C"),
    "components": 3,
    "standardize": False,
    "split": "val",
    "fractions": (0.4, 0.4, 0.2),
    "shares": (0.5, 0.1, 0.2, 0.2),
    "split_seed": 3,
    "episode_seed": 4,
    "n_episodes": 5,
}
"""Another value of every argument than the default."""


def test_every_argument_is_tested_here() -> None:
    assert list(CHANGED) == [f.name for f in dataclasses.fields(ActiveLabelSettings)]
    default = ActiveLabelSettings()
    assert not [name for name, value in CHANGED.items() if getattr(default, name) == value]


def test_gym_make_passes_all_settings_on(blobs: Cohort) -> None:
    env = gym.make("ActiveLabel-v0", cohort=blobs, device="cpu", **CHANGED).unwrapped
    assert isinstance(env, ActiveLabelEnv)
    assert env.engine.cohort is blobs
    assert {name: getattr(env.engine.settings, name) for name in CHANGED} == CHANGED
    vector = gym.make_vec("ActiveLabel-v0", num_envs=2, cohort=blobs, device="cpu", **CHANGED)
    assert vector.unwrapped.engine.settings == env.engine.settings  # type: ignore[attr-defined]
    assert vector.single_observation_space == env.observation_space
    # Lists, as a configuration file has them, are tuples afterwards.
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in CHANGED.items()}
    assert ActiveLabelSettings.make(**listed) == env.engine.settings


@pytest.mark.parametrize("name", [name for name in CHANGED if name not in ("tolerance", "n_episodes")])
def test_every_argument_makes_another_game(make_active: Make, name: str) -> None:
    base: dict[str, Any] = {"fractions": (0.5, 0.4, 0.1), "shares": (0.4, 0.1, 0.3, 0.2)}
    change = {name: CHANGED[name]}
    if name == "learner":
        change["learner_arguments"] = {}
    if name == "learner_arguments":
        change = {name: {"epochs": 2}}
    if name.startswith("oracle"):
        base["oracle"] = "abstaining"
        change = {"oracle": {"oracle": "noisy", "oracle_arguments": {"rate": 0.3}}}.get(name, {name: {"rate": 0.5}})
    if name == "space":
        base["components"] = 3
    if name == "split":
        change["pool"] = base["pool"] = 40
    played = [play(make_active(**{**base, **changes}), episode=1) for changes in ({}, change)]
    with pytest.raises(AssertionError):
        np.testing.assert_equal(played[1], played[0])


def test_the_defaults_are_those_of_the_paper() -> None:
    s = ActiveLabelSettings()
    assert (s.features, s.learner, s.distance, s.space, s.metric, s.reward) == (
        SHORT,
        "softmax",
        "euclidean",
        "latent",
        "accuracy",
        "change",
    )


# -- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_is_shared_and_has_siblings(blobs: Cohort) -> None:
    settings = ActiveLabelSettings.make(**ACTIVE, fractions=(0.5, 0.3, 0.2), shares=(0.5, 0.1, 0.3, 0.1))
    engine = ActiveLabelEngine(blobs, settings, "cpu")
    env, vector = gym.make("ActiveLabel-v0", engine=engine), gym.make_vec("ActiveLabel-v0", num_envs=2, engine=engine)
    assert env.unwrapped.engine is vector.unwrapped.engine is engine  # type: ignore[attr-defined]
    other = engine.sibling(split="test", pool=30, features=list(LONG), state_images=4)
    assert other.settings.split == "test"
    assert other.settings.budget == 12
    assert (engine.settings, engine.m) == (settings, 60)
    assert other.space is engine.space
    alone = ActiveLabelEngine(blobs, other.settings, "cpu")
    np.testing.assert_equal(play(ActiveLabelEnv(engine=other)), play(ActiveLabelEnv(engine=alone)))
    for changes in ({"components": 3}, {"fractions": (0.4, 0.3, 0.3)}, {"standardize": False}, {"split_seed": 1}):
        with pytest.raises(SettingsError, match=f"{next(iter(changes))}: make a new engine"):
            engine.sibling(**changes)
    with pytest.raises(SettingsError, match=r"'poool'\. Did you mean 'pool'"):
        engine.sibling(poool=3)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[({name: 0}, f"{name}=0 must be a whole number of at least 1") for name in ("budget", "batch", "pool")],
        *[({name: 2.5}, f"{name}=2.5 must be a whole") for name in ("initial", "candidates", "components")],
        *[({name: True}, f"{name}=True must be a whole number") for name in ("state_images", "n_episodes")],
        ({"batch": 13}, "batch=13 labels a step exceed the budget of 12"),
        ({"candidates": 4}, "batch=5 images cannot be chosen from candidates=4"),
        ({"budget": 57}, "budget=57 and 4 initial labels exceed the pool of 60 images"),
        ({"pool": None, "budget": 1000}, "budget=1000 and 4 initial labels exceed the pool"),
        ({"pool": 1000}, "pool=1000 images, but its pool part has"),
        ({"state_images": 100}, "state=100 images, but its state part has"),
        ({"features": ["confidance"]}, "'confidance'.*Did you mean 'confidence'"),
        ({"features": "margin"}, "features='margin' must be a list of names"),
        ({"features": [3]}, "features=.* must be a list of names"),
        ({"features": []}, "features and state must each name something"),
        ({"state": ["progres"]}, "'progres'.*Did you mean 'progress'"),
        ({"state": []}, "must each name something"),
        ({"observe": ["embedings"]}, "'embedings'.*Did you mean 'embeddings'"),
        ({"distance": "euclidian"}, "'euclidian'.*Did you mean 'euclidean'"),
        ({"space": "latnt"}, "'latnt'.*Did you mean 'latent'"),
        ({"metric": "acuracy"}, "'acuracy'.*Did you mean 'accuracy'"),
        ({"metric": ["accuracy"]}, "metric"),
        ({"reward": "chnge"}, "'chnge'.*Did you mean 'change'"),
        ({"learner": "softmx"}, "unknown learner 'softmx'.*Did you mean 'softmax'"),
        ({"learner_arguments": {"epoch": 3}}, "learner 'softmax'.*epoch"),
        ({"tolerance": 0.0}, "tolerance=0.0 must be a share"),
        ({"tolerance": "much"}, "tolerance='much' must be a share"),
        ({"buget": 3}, "unknown setting of ActiveLabel-v0 'buget'.*Did you mean 'budget'"),
        ({"classes": ["A"]}, "two classes or more, got A"),
        ({"classes": ["A", "E"]}, "unknown class 'E'"),
        ({"classes": "AB"}, "classes='AB' is one text"),
        ({"components": 7}, "components=7 exceed the 6 features"),
        ({"split": "trian"}, "unknown split 'trian'.*Did you mean 'train'"),
        ({"fractions": "publish"}, "fractions='publish'"),
        ({"fractions": "published"}, "no published split"),
        ({"fractions": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"shares": [0.5, 0.5, 0.5, 0.5]}, "sum to 1"),
        ({"shares": [0.6, 0.37, 0.02, 0.01]}, "class 'D' has 0 images in the test set and needs 1"),
        ({"cohort": "sintetic"}, "unknown data set 'sintetic'"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_both_forms(
    make_active: Make, make_active_vec: Make, settings: dict[str, Any], message: str
) -> None:
    for make in (make_active, make_active_vec):
        with pytest.raises(ValueError, match=message) as refusal:
            make(**settings)
        assert isinstance(refusal.value, activelabel.errors.ActiveLabelError)


def test_labels_of_a_file_that_are_no_class_are_refused(tmp_path: Path, blobs: Cohort) -> None:
    path = tmp_path / "bad.npz"
    labels = np.arange(700) % 4
    np.savez(path, features=blobs.embedded(), labels=labels, label_names=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match=r"labels\[3\] = 3 is none of the 3 classes a, b, c"):
        gym.make("ActiveLabel-v0", cohort=str(path))
    np.savez(path, features=blobs.embedded(), labels=labels, label_names=np.array(["a", "b", "c", "d"]))
    assert gym.make("ActiveLabel-v0", cohort=str(path), **ACTIVE).reset(seed=0)[1]["n_labelled"] == 4


def test_data_of_one_class_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, features=np.random.default_rng(0).random((200, 3)), labels=np.zeros(200, int))
    with pytest.raises(ValueError, match="a classifier needs two classes or more, got class 0"):
        gym.make("ActiveLabel-v0", cohort=str(path))


def test_an_engine_is_not_given_with_other_settings(make_active: Callable[..., Any]) -> None:
    engine = make_active().engine
    assert gym.make("ActiveLabel-v0", engine=engine).unwrapped.engine is engine
    with pytest.raises(SettingsError, match=r"engine\.sibling\(\) to change batch"):
        gym.make("ActiveLabel-v0", engine=engine, batch=2)


# -- runs -------------------------------------------------------------------------------------------------------------


def test_further_data_sets_have_the_settings_of_a_run_but_for_names() -> None:
    own: dict[str, Any] = {"labels": "x", "normal": "y", "patient": "z", "classes": ("a", "b")}
    run = ActiveRunSettings(data="a.npz", train_also=("b.npz", "digits"), pool=70, components=3, batch=2, **own)
    assert ActiveRunSettings.from_mapping(yaml.safe_load(run.to_yaml()), "config.yaml") == run
    further = run.further()
    assert [(s.data, s.train_also) for s in further] == [("b.npz", ()), ("digits", ())]
    alone = ActiveRunSettings(data="b.npz", pool=70, components=3, batch=2)
    assert further[0] == alone
    assert set(own) <= set(OF_THE_DATA)
    assert ActiveRunSettings().further() == []
    with pytest.raises(SettingsError, match=r"train_also=\['digits', 'a'\] beside data=a has a data set twice"):
        ActiveRunSettings(data="a", train_also=("digits", "a"))
    with pytest.raises(SettingsError, match="envs=2 are fewer than the 3 data sets that are trained on"):
        dataclasses.replace(run, envs=2)


def test_further_data_sets_have_their_share_of_the_envs() -> None:
    run = ActiveRunSettings(data="a", train_also=("b", "c", "d"), envs=96)
    assert run.shared_out(96) == [24, 24, 24, 24]
    assert run.shared_out(6) == [2, 2, 1, 1]
    few = dataclasses.replace(run, also_share=0.125)
    assert few.shared_out(96) == [84, 4, 4, 4]
    assert few.shared_out(40) == [35, 2, 2, 1]
    assert few.shared_out(4) == [1, 1, 1, 1]  # each has one, whatever the share
    assert dataclasses.replace(run, also_share=0.999).shared_out(7) == [1, 2, 2, 2]
    assert {s.also_share for s in few.further()} == {None}
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(SettingsError, match=f"also_share={share} must be above 0 and below 1"):
            dataclasses.replace(run, also_share=share)
    with pytest.raises(SettingsError, match=r"also_share=0.5 is of the sets of train_also, and there is none"):
        ActiveRunSettings(also_share=0.5)
