"""DDQN's model files: training continues exactly, and damaged or foreign files are refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
import torch
from conftest import ACTIVE
from ddqn_play import CLASSES, ROUND, SMALL, Make, every_agent
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from activelabel.agents import DDQN, LalRl, QPolicy, StepSchedule
from activelabel.agents.checkpoint import read_model, write_model
from activelabel.envs.learners import SklearnLearner
from activelabel.errors import CheckpointError, SettingsError

SMALLEST = {**SMALL, "policy_kwargs": {"hidden": [3, 2]}, "buffer_size": 30, "next_candidates": 2}


@pytest.fixture(params=["native", "dummy"])
def make_four(request: pytest.FixtureRequest, make_active_vec: Make, make_active: Make) -> Make:
    """Makes four envs, in one of the two forms."""
    return lambda: make_active_vec(4) if request.param == "native" else DummyVecEnv([make_active] * 4)


@pytest.fixture(scope="module")
def saved(blobs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that was written in the middle of training."""
    env = gym.make_vec("ActiveLabel-v0", num_envs=4, cohort=blobs, device="cpu", **ACTIVE)
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    DDQN(env=env, **SMALLEST).learn(2 * ROUND).save(path)
    return path


def state(model: DDQN) -> str:
    return reference.digest(
        {
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "replay": model.replay.state_dict(),
            "generators": [model._explore_rng.get_state(), model._replay_rng.get_state()],
            "counters": [model.num_timesteps, model._n_updates, model._episode_num],
            "returns": model.returns,
        }
    )


class SaveAt(BaseCallback):
    """Saves at the end of a round, or at a step."""

    def __init__(self, path: Path, steps: int, inside: bool = False) -> None:
        super().__init__()
        self.path, self.steps, self.inside = path, steps, inside

    def _on_step(self) -> bool:
        if self.inside and self.num_timesteps == self.steps:
            self.model.save(self.path)
        return not (self.inside and self.num_timesteps == self.steps)

    def _on_rollout_end(self) -> None:
        if not self.inside and self.num_timesteps == self.steps:
            self.model.save(self.path)


# -- going on ---------------------------------------------------------------------------------------------------------


@every_agent
def test_a_resumed_training_equals_an_uninterrupted_one(make_four: Make, tmp_path: Path, cls: Any) -> None:
    arguments = {**SMALL, "learning_rate": StepSchedule(0.01, 0.1, 0.5), "buffer_size": 40, "patience": 50}
    arguments |= {"priority_exponent": 0.5, "credit": "each", "target_update_interval": 2, "act_with": "target"}
    arguments |= {"exploration": "directions"}
    whole = cls(env=make_four(), **arguments).learn(5 * ROUND, callback=SaveAt(tmp_path / "half", 2 * ROUND))
    resumed = cls.load(tmp_path / "half", env=make_four(), device="cpu", force_reset=False)
    assert resumed.num_timesteps == 2 * ROUND
    resumed.learn(3 * ROUND, reset_num_timesteps=False)
    assert resumed.num_timesteps == 5 * ROUND
    assert state(resumed) == state(whole)
    anew = cls.load(tmp_path / "half", env=make_four(), device="cpu")
    anew.learn(3 * ROUND, reset_num_timesteps=False)
    assert state(anew) != state(whole), "with force_reset the env starts anew"


def test_training_goes_on_from_the_middle_of_an_episode(make_four: Make, tmp_path: Path) -> None:
    """What the episodes have returned so far is in the file."""
    first = DDQN(env=make_four(), **SMALL)
    first.learn(10 * ROUND, callback=SaveAt(tmp_path / "inside", ROUND + 4, inside=True))
    assert first.num_timesteps == ROUND + 4
    resumed = DDQN.load(tmp_path / "inside", env=make_four(), device="cpu", force_reset=False)
    for model in (first, resumed):
        model.learn(8, reset_num_timesteps=False)
    assert state(resumed) == state(first)
    assert len(first.returns) == 2


@pytest.mark.parametrize("reset", ["load", "set_env"])
def test_abandoned_episodes_leave_no_reward_behind(make_active_vec: Make, tmp_path: Path, reset: str) -> None:
    model = DDQN(env=make_active_vec(4), **SMALL)
    model.learn(ROUND, callback=SaveAt(tmp_path / "inside", 4, inside=True))
    if reset == "load":
        model = DDQN.load(tmp_path / "inside", env=make_active_vec(4), device="cpu")
    else:
        model.set_env(make_active_vec(4))
    seen: list[Any] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(np.array(self.locals["rewards"], float))
            return True

    model.learn(ROUND, callback=Watch(), reset_num_timesteps=False)
    assert model.returns == pytest.approx([np.sum(seen[:3], axis=0).mean()], abs=1e-6)


def test_saving_does_not_disturb_training(make_four: Make, tmp_path: Path) -> None:
    plain, saving = (DDQN(env=make_four(), **SMALL) for _ in range(2))
    for _ in range(3):
        plain.learn(ROUND, reset_num_timesteps=False)
        saving.learn(ROUND, reset_num_timesteps=False)
        saving.save(tmp_path / "m.zip")
        saving.save(tmp_path / "n.zip", exclude=["replay"])
    assert state(plain) == state(saving)


@every_agent
def test_a_loaded_model_chooses_as_the_saved_one(make_active_vec: Make, tmp_path: Path, cls: Any) -> None:
    changes = {"max_grad_norm": 0.5, "credit": "sum", "target": "printed", "gamma": 0.5, "value_bias": 1.5}
    model = cls(env=make_active_vec(4, features=("margin", "density"), distance="cosine"), **{**SMALL, **changes})
    model.learn(2 * ROUND)
    model.notes["best"] = 0.75
    model.save(tmp_path / "m")
    model.save(tmp_path / "small", exclude=["replay"])
    observation, _ = make_active_vec(3, features=("margin", "density"), pool=30).reset(seed=0)
    expected = [model.predict(observation, deterministic=d)[0] for d in (True, False)]
    for name, replay in (("m", len(model.replay)), ("small", 0)):
        back = cls.load(tmp_path / name, device="cpu")
        for found, deterministic in zip(expected, (True, False), strict=True):
            np.testing.assert_array_equal(back.predict(observation, deterministic=deterministic)[0], found)
        assert len(back.replay) == replay
        assert type(back) is cls
        assert type(back.policy) is type(model.policy)
        plain = ("n", "seed", "notes", "returns", "env_settings", "num_timesteps", "learning_rate", "lr_schedule")
        for setting in (*plain, *SMALL, *changes):
            if setting not in ("device", "learning_rate"):
                assert getattr(back, setting) == getattr(model, setting), setting
    assert back.env_settings["features"] == ("margin", "density")
    assert set(back.env_settings) == set(cls.observed)


def test_without_its_replay_buffer_a_model_can_be_trained_on(make_active_vec: Make, tmp_path: Path) -> None:
    DDQN(env=make_active_vec(4), **SMALL).learn(2 * ROUND).save(tmp_path / "m", exclude=["replay"])
    model = DDQN.load(tmp_path / "m", env=make_active_vec(4), device="cpu")
    before, updates = state(model), model._n_updates
    model.learn(ROUND, reset_num_timesteps=False)
    assert len(model.replay) == ROUND
    assert model._n_updates == updates + 3
    assert state(model) != before


def test_a_model_of_another_batch_can_label(make_active_vec: Make, tmp_path: Path) -> None:
    DDQN(env=make_active_vec(4), **SMALL).save(tmp_path / "m")
    model = DDQN.load(tmp_path / "m", device="cpu")
    observation, _ = make_active_vec(2, batch=1).reset(seed=0)
    for n, shape in ((1, (2,)), (3, (2, 3)), (5, (2, 5))):
        model.n = n
        assert model.predict(observation)[0].shape == shape


def test_an_empty_buffer_takes_no_room(make_active_vec: Make, tmp_path: Path) -> None:
    sizes = []
    for room in (50, 50_000):
        path = tmp_path / f"{room}.zip"
        DDQN(env=make_active_vec(4), **{**SMALL, "buffer_size": room}).learn(ROUND).save(path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0] + 1000


def test_settings_can_be_changed_when_loading(saved: Path, make_active_vec: Make) -> None:
    model = DDQN.load(
        saved, env=make_active_vec(2), device="cpu", learning_rate=1e-4, gradient_steps=5, priority_exponent=1.0
    )
    updates = model._n_updates
    model.learn(6, reset_num_timesteps=False)
    assert model._n_updates == updates + 5
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-4
    assert model.replay.exponent == 1.0
    for changes, message in (
        ({"custom_objects": {"x": 1}}, "no custom_objects"),
        ({"buffer_size": 3}, "unknown setting of a loaded model 'buffer_size'"),
        ({"gama": 0.5}, "unknown setting of a loaded model 'gama'.*Did you mean 'gamma'"),
        # Not blamed on the file:
        ({"gamma": 2}, "gamma=2 must be from 0 to 1"),
        ({"gamma": "x"}, "gamma="),
    ):
        with pytest.raises(SettingsError, match=message):
            DDQN.load(saved, device="cpu", **changes)  # type: ignore[arg-type]


def test_a_state_of_other_envs_is_refused_when_going_on(saved: Path, make_active_vec: Make) -> None:
    with pytest.raises(SettingsError, match="state is of 4 environments, this is 2"):
        DDQN.load(saved, env=make_active_vec(2), device="cpu", force_reset=False)


def test_a_model_without_an_env_says_so(saved: Path) -> None:
    with pytest.raises(SettingsError, match="no env to train on"):
        DDQN.load(saved, device="cpu").learn(8)


def test_what_cannot_be_saved_leaves_no_file(make_active_vec: Make, tmp_path: Path) -> None:
    model = DDQN(env=make_active_vec(2), **{**SMALL, "learning_rate": lambda progress: 0.01 * progress + 1e-6}).learn(6)
    with pytest.raises(SettingsError, match="schedule of your own cannot be saved"):
        model.save(tmp_path / "m")
    for arguments in ({"exclude": ["seed"]}, {"exclude": ["replay", "seed"]}, {"include": ["seed"]}):
        with pytest.raises(SettingsError, match=r"takes a path alone, and exclude=\['replay'\]"):
            model.save(tmp_path / "m", **arguments)
    with pytest.raises(SettingsError, match="takes a path alone"):
        model.save(io.BytesIO())
    own = {"learner": SklearnLearner(LogisticRegression()), "learner_arguments": {}}
    with pytest.raises(SettingsError, match="learner of your own"):
        LalRl(env=make_active_vec(2, **own), **SMALL).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    DDQN(env=make_active_vec(2, **own), **SMALL).save(tmp_path / "m")


class OwnPolicy(QPolicy):
    """A policy of the user."""


def test_a_policy_of_the_user_is_saved_once_it_has_a_name(
    make_active_vec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DDQN(OwnPolicy, env=make_active_vec(2), **SMALL)
    with pytest.raises(SettingsError, match=r"OwnPolicy is a policy of your own.*policy_aliases"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(DDQN.policy_aliases, "OwnPolicy", OwnPolicy)
    model.save(tmp_path / "m")
    assert type(DDQN.load(tmp_path / "m", device="cpu").policy) is OwnPolicy


# -- damaged and foreign files ----------------------------------------------------------------------------------------


def refusal(path: Path, content: bytes) -> str | None:
    """The message that a file with this content is refused with, or None where it is read."""
    path.write_bytes(content)
    try:
        DDQN.load(path, device="cpu")
    except CheckpointError as error:
        return str(error)
    return None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.zip: no such model file"):
        DDQN.load(tmp_path / "nowhere")


def test_truncated_files_are_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for cut in sorted({*range(0, len(content), max(1, len(content) // 30)), len(content) - 1, len(content) - 30}):
        message = refusal(tmp_path / "t.zip", content[:cut])
        assert message is not None, f"cut at {cut} of {len(content)}"
        assert "t.zip: damaged or not a model file" in message or "t.zip: not an ActiveLabel model" in message


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"PK\x03\x04" + b)))
@example(content=b"")
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    message = refusal(tmp_path_factory.getbasetemp() / "r.zip", content)
    assert message is not None
    assert "r.zip" in message


@given(share=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), tail=st.booleans())
def test_flipped_bytes_are_read_or_refused(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, share: float, value: int, tail: bool
) -> None:
    content = bytearray(saved.read_bytes())
    span = 200 if tail else len(content)
    content[len(content) - span + int(share * span)] ^= value
    message = refusal(tmp_path_factory.getbasetemp() / "f.zip", bytes(content))
    assert message is None or "f.zip" in message


def test_models_of_other_agents_are_refused(saved: Path, make_active_vec: Make, tmp_path: Path) -> None:
    PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(CheckpointError, match=r"ppo\.zip: not an ActiveLabel model \(it holds .*policy\.pth"):
        DDQN.load(tmp_path / "ppo")
    write_model(tmp_path / "other", "Reinforce", {}, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"other\.zip: a model of Reinforce, not of DDQN"):
        DDQN.load(tmp_path / "other")
    for cls in CLASSES.values():
        if cls is not DDQN:
            with pytest.raises(CheckpointError, match=f"a model of DDQN, not of {cls.__name__}"):
                cls.load(saved)


def rewrite(saved: Path, path: Path, change: Callable[[dict[str, Any]], Any], tensors: bytes | None = None) -> None:
    """Write a copy of a model file with another header, and other tensors."""
    with zipfile.ZipFile(saved) as archive:
        header = json.loads(archive.read("header.json"))
        kept = archive.read("tensors.pt")
    changed = change(header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header if changed is None else changed))
        archive.writestr("tensors.pt", kept if tensors is None else tensors)


def header_keys(saved: Path) -> list[str]:
    return [key for key in read_model(saved)[0] if key not in ("format", "version", "agent")]


OTHER_KINDS = [None, [], {}, "x", -1, [None], {"x": None}]


@pytest.mark.parametrize("value", OTHER_KINDS)
def test_headers_with_other_values_are_read_or_refused(saved: Path, tmp_path: Path, value: Any) -> None:
    path = tmp_path / "m.zip"
    settings = list(read_model(saved)[0]["settings"])
    escaped = []
    for key in [*header_keys(saved), *settings]:

        def change(header: dict[str, Any], key: str = key) -> None:
            (header["settings"] if key in settings else header)[key] = value

        rewrite(saved, path, change)
        try:
            DDQN.load(path, device="cpu")
        except CheckpointError as error:
            assert "m.zip" in str(error)  # noqa: PT017 (some values are right)
        except Exception as error:
            escaped.append(f"{key}: {error!r}")
    assert escaped == []


@pytest.mark.parametrize("value", OTHER_KINDS[1:])
def test_a_damaged_state_of_the_env_is_refused(saved: Path, tmp_path: Path, value: Any, make_active_vec: Make) -> None:
    rewrite(saved, tmp_path / "m.zip", lambda h: h.update(env=value))
    with pytest.raises(CheckpointError, match=r"m\.zip"):
        DDQN.load(tmp_path / "m.zip", env=make_active_vec(4), device="cpu", force_reset=False)


def test_headers_without_a_key_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    for key in header_keys(saved):
        if key == "env":  # of use only to go on
            continue
        rewrite(saved, path, lambda h, key=key: h.pop(key) and None)
        with pytest.raises(CheckpointError, match=r"m\.zip"):
            DDQN.load(path, device="cpu")


def test_tensors_that_are_not_the_models_are_refused(saved: Path, tmp_path: Path) -> None:
    _, tensors = read_model(saved)
    path = tmp_path / "m.zip"
    wider = {**tensors, "policy": {k: torch.zeros(3, 3) for k in tensors["policy"]}}
    longer = {**tensors["replay"], "errors": torch.zeros(10_000, dtype=torch.float64)}
    parts = [{**tensors["replay"], name: value} for name, value in (("next", "x"), ("columns", {"state": 3}))]
    without = [{k: v for k, v in tensors.items() if k != name} for name in tensors]
    others = [{**tensors, "replay": part} for part in (longer, *parts, {}, 3)]
    for other in (wider, *without, *others, {}, [1], torch.zeros(2)):
        stream = io.BytesIO()
        torch.save(other, stream)
        rewrite(saved, path, lambda h: None, stream.getvalue())
        with pytest.raises(CheckpointError, match=r"m\.zip"):
            DDQN.load(path, device="cpu")
