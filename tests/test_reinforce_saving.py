"""REINFORCE's model files: training continues exactly, and damaged or foreign files are refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from activelabel.agents.arguments import StepSchedule
from activelabel.agents.checkpoint import read_model, write_model
from activelabel.agents.policies import BiLSTMPolicy
from activelabel.agents.reinforce import SELECTORS, Reinforce
from activelabel.errors import CheckpointError, SettingsError

Make = Callable[..., Any]
SMALL: dict[str, Any] = {"batch_size": 8, "n_samples": 3, "seed": 1, "device": "cpu", "policy_kwargs": {"hidden": 4}}


POLICIES = [cls.__name__ for cls in SELECTORS.values()]


@pytest.fixture(params=["native", "dummy"])
def make_four(request: pytest.FixtureRequest, make_vec: Make, make_env: Make) -> Make:
    """Makes four envs, in one of the two forms."""
    return lambda: make_vec(4) if request.param == "native" else DummyVecEnv([make_env] * 4)


@pytest.fixture(scope="module")
def saved(cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that was written in the middle of training."""
    import gymnasium as gym

    env = gym.make_vec("SelectiveLabel-v0", num_envs=4, cohort=cohort, device="cpu", k=4, pool=20, query=12)
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    Reinforce(env=env, **SMALL).learn(16).save(path)
    return path


def state(model: Reinforce) -> str:
    return reference.digest(
        {
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "train": model._train_rng.get_state(),
            "counters": [model.num_timesteps, model._n_updates],
        }
    )


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_training_equals_an_uninterrupted_one(make_four: Make, tmp_path: Path, policy: str) -> None:
    whole = Reinforce(policy, make_four(), **SMALL)
    whole.learn(16)
    whole.save(tmp_path / "half")
    whole.learn(32, reset_num_timesteps=False)
    resumed = Reinforce.load(tmp_path / "half", env=make_four(), device="cpu", force_reset=False)
    resumed.learn(32, reset_num_timesteps=False)
    assert resumed.num_timesteps == 48
    assert state(resumed) == state(whole)
    anew = Reinforce.load(tmp_path / "half", env=make_four(), device="cpu")
    anew.learn(32, reset_num_timesteps=False)
    assert state(anew) != state(whole), "with force_reset the env starts anew"


def test_a_checkpoint_of_a_callback_continues_under_a_schedule(make_four: Make, tmp_path: Path) -> None:
    class Save(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.num_timesteps == 24:
                self.model.save(tmp_path / "at24")

    arguments = {**SMALL, "learning_rate": StepSchedule(0.01, 0.1, 0.5), "baseline": "random"}
    whole = Reinforce(env=make_four(), **arguments).learn(64, callback=Save())
    resumed = Reinforce.load(tmp_path / "at24", env=make_four(), device="cpu", force_reset=False)
    assert resumed.lr_schedule == StepSchedule(0.01, 0.1, 0.5)
    assert resumed.baseline == "random"
    resumed.learn(64 - 24, reset_num_timesteps=False)
    assert state(resumed) == state(whole)


def test_saving_does_not_disturb_training(make_four: Make, tmp_path: Path) -> None:
    plain, saving = Reinforce(env=make_four(), **SMALL), Reinforce(env=make_four(), **SMALL)
    for _ in range(2):
        plain.learn(8, reset_num_timesteps=False)
        saving.learn(8, reset_num_timesteps=False)
        saving.save(tmp_path / "m.zip")
    assert state(plain) == state(saving)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loaded_model_chooses_as_the_saved_one(make_vec: Make, tmp_path: Path, policy: str) -> None:
    own_rule = Reinforce.policy_aliases[policy].own_rule
    arguments = {**SMALL, "max_grad_norm": 0.5, "replacement": not own_rule}
    if own_rule:
        arguments["policy_kwargs"] = {"hidden": 4, "anchor": 0.5, "clusters_share": 0.3, "distance": "cosine"}
    model = Reinforce(policy, make_vec(4), **arguments).learn(8)
    model.notes["best"] = 0.75
    model.save(tmp_path / "m")
    back = Reinforce.load(tmp_path / "m", device="cpu")
    observation, _ = make_vec(3, pool=30).reset(seed=0)
    for deterministic in (True, False):
        np.testing.assert_array_equal(
            back.predict(observation, deterministic=deterministic)[0],
            model.predict(observation, deterministic=deterministic)[0],
        )
    assert back.standardizer is not None
    assert model.standardizer is not None
    for name, array in model.standardizer.arrays().items():
        np.testing.assert_array_equal(back.standardizer.arrays()[name], array)
    for name in ("k", "seed", "batch_size", "n_samples", "baseline", "replacement", "max_grad_norm", "notes"):
        assert getattr(back, name) == getattr(model, name), name
    assert back.observation_space == model.observation_space
    assert back.action_space == model.action_space
    assert type(back.rule) is type(model.rule)
    assert type(back.policy) is type(model.policy)


def test_settings_can_be_changed_when_loading(saved: Path, make_vec: Make) -> None:
    model = Reinforce.load(saved, env=make_vec(2), device="cpu", learning_rate=1e-4, batch_size=4, verbose=0)
    assert model.batch_size == 4
    model.learn(4, reset_num_timesteps=False)
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-4
    with pytest.raises(SettingsError, match="batch_size=8 is not a multiple of the 3 envs"):
        Reinforce.load(saved, env=make_vec(3), device="cpu")
    with pytest.raises(SettingsError, match="no custom_objects"):
        Reinforce.load(saved, custom_objects={"x": 1})


def test_a_bad_setting_of_the_caller_is_not_blamed_on_the_file(saved: Path) -> None:
    with pytest.raises(SettingsError, match="n_samples=1 must be at least 2"):
        Reinforce.load(saved, device="cpu", n_samples=1)


def test_a_state_of_other_envs_is_refused_when_going_on(saved: Path, make_vec: Make) -> None:
    with pytest.raises(SettingsError, match="state is of 4 environments, this is 2"):
        Reinforce.load(saved, env=make_vec(2), device="cpu", force_reset=False)


def test_zip_is_added_to_a_bare_name(make_vec: Make, tmp_path: Path) -> None:
    model = Reinforce(env=make_vec(4), **SMALL)
    model.save(tmp_path / "bare")
    model.save(tmp_path / "named.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.zip", "named.zip"]
    assert state(Reinforce.load(tmp_path / "bare.zip", device="cpu")) == state(model)


def test_what_cannot_be_saved_leaves_no_file(make_vec: Make, tmp_path: Path) -> None:
    model = Reinforce(env=make_vec(4), **SMALL, learning_rate=lambda progress: 0.01 * progress)
    model.learn(8)
    with pytest.raises(SettingsError, match="schedule of your own cannot be saved"):
        model.save(tmp_path / "m")
    for arguments in ({"exclude": ["seed"]}, {"include": ["seed"]}):
        with pytest.raises(SettingsError, match="takes a path alone"):
            model.save(tmp_path / "m", **arguments)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="takes a path alone"):
        model.save(io.BytesIO())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


class OwnPolicy(BiLSTMPolicy):
    """A policy of the user."""


def test_a_policy_of_the_user_is_saved_once_it_has_a_name(
    make_vec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Reinforce(OwnPolicy, env=make_vec(4), **SMALL)
    with pytest.raises(SettingsError, match=r"OwnPolicy is a policy of your own.*policy_aliases"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(Reinforce.policy_aliases, "OwnPolicy", OwnPolicy)
    model.save(tmp_path / "m")
    assert type(Reinforce.load(tmp_path / "m", device="cpu").policy) is OwnPolicy


# -- damaged and foreign files ----------------------------------------------------------------------------------------


def refusal(path: Path, content: bytes) -> str | None:
    """The message that a file with this content is refused with, or None where it is read."""
    path.write_bytes(content)
    try:
        Reinforce.load(path, device="cpu")
    except CheckpointError as error:
        return str(error)
    return None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.zip: no such model file"):
        Reinforce.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no such model file"):
        Reinforce.load(tmp_path)


def test_truncated_files_are_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    cuts = {*range(0, len(content), max(1, len(content) // 60)), 1, 2, 3, len(content) - 1, len(content) - 30}
    for cut in sorted(cuts):
        message = refusal(tmp_path / "t.zip", content[:cut])
        assert message is not None, f"cut at {cut} of {len(content)}"
        # What is left may end with the zip of the tensors, and then reads as a foreign archive.
        assert "t.zip: damaged or not a model file" in message or "t.zip: not an ActiveLabel model" in message


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"PK\x03\x04" + b)))
@example(content=b"")
@example(content=b"PK\x05\x06" + bytes(18))  # an empty archive
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    message = refusal(tmp_path_factory.getbasetemp() / "r.zip", content)
    assert message is not None
    assert "r.zip" in message


@given(share=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), tail=st.booleans())
def test_flipped_bytes_are_read_or_refused(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, share: float, value: int, tail: bool
) -> None:
    content = bytearray(saved.read_bytes())
    # The directory at the end is small and full of fields: half of the flips go there.
    span = 200 if tail else len(content)
    content[len(content) - span + int(share * span)] ^= value
    message = refusal(tmp_path_factory.getbasetemp() / "f.zip", bytes(content))
    assert message is None or "f.zip" in message


def test_a_model_of_stable_baselines3_is_refused(tmp_path: Path) -> None:
    PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(CheckpointError, match=r"ppo\.zip: not an ActiveLabel model \(it holds .*policy\.pth"):
        Reinforce.load(tmp_path / "ppo")


def test_a_model_of_another_agent_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "other", "Ddqn", {}, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"other\.zip: a model of Ddqn, not of Reinforce"):
        Reinforce.load(tmp_path / "other")
    header, tensors = read_model(tmp_path / "other")
    assert header["agent"] == "Ddqn"
    assert tensors["x"].tolist() == [0]


def rewrite(saved: Path, path: Path, change: Callable[[dict[str, Any]], Any], tensors: bytes | None = None) -> None:
    """Write a copy of a model file with another header, and other tensors."""
    with zipfile.ZipFile(saved) as archive:
        header = json.loads(archive.read("header.json"))
        kept = archive.read("tensors.pt")
    changed = change(header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header if changed is None else changed))
        archive.writestr("tensors.pt", kept if tensors is None else tensors)


def test_another_format_and_a_newer_version_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    rewrite(saved, path, lambda h: h.update(version=99))
    with pytest.raises(CheckpointError, match="model format 99, this version reads 1; upgrade"):
        Reinforce.load(path)
    for change in (lambda h: h.update(format="x"), lambda h: [h], lambda h: 3):
        rewrite(saved, path, change)
        with pytest.raises(CheckpointError, match="not an ActiveLabel model"):
            Reinforce.load(path)


def header_keys(saved: Path) -> list[str]:
    return [key for key in read_model(saved)[0] if key not in ("format", "version", "agent")]


OTHER_KINDS = [None, [], {}, "x", -1, [None], {"x": None}]


@pytest.mark.parametrize("value", OTHER_KINDS)
def test_headers_with_other_values_are_read_or_refused(saved: Path, tmp_path: Path, value: Any) -> None:
    path = tmp_path / "m.zip"
    escaped = []
    for key in header_keys(saved):
        rewrite(saved, path, lambda h, key=key: h.update({key: value}))
        try:
            Reinforce.load(path, device="cpu")
        except CheckpointError as error:
            assert "m.zip" in str(error)  # noqa: PT017 (some values are right)
        except Exception as error:
            escaped.append(f"{key}: {error!r}")
    assert escaped == []


@pytest.mark.parametrize("value", OTHER_KINDS[1:])
def test_a_damaged_state_of_the_env_is_refused(saved: Path, tmp_path: Path, value: Any, make_vec: Make) -> None:
    rewrite(saved, tmp_path / "m.zip", lambda h: h.update(env=value))
    with pytest.raises(CheckpointError, match=r"m\.zip"):
        Reinforce.load(tmp_path / "m.zip", env=make_vec(4), device="cpu", force_reset=False)


def test_headers_without_a_key_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    for key in header_keys(saved):
        if key == "env":  # of use only to go on
            continue
        rewrite(saved, path, lambda h, key=key: h.pop(key) and None)
        with pytest.raises(CheckpointError, match=r"m\.zip"):
            Reinforce.load(path, device="cpu")


def test_tensors_that_are_not_the_models_are_refused(saved: Path, tmp_path: Path) -> None:
    _, tensors = read_model(saved)
    path = tmp_path / "m.zip"
    wider = {**tensors, "policy": {k: torch.zeros(3, 3) for k in tensors["policy"]}}
    without = {k: v for k, v in tensors.items() if k != "optimizer"}
    for other in (wider, without, {}, [1], torch.zeros(2)):
        stream = io.BytesIO()
        torch.save(other, stream)
        rewrite(saved, path, lambda h: None, stream.getvalue())
        with pytest.raises(CheckpointError, match=r"m\.zip"):
            Reinforce.load(path, device="cpu")


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_a_file_with_pickled_code_does_not_run_it(saved: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    torch.save({"policy": Evil()}, stream)
    rewrite(saved, tmp_path / "m.zip", lambda h: None, stream.getvalue())
    with pytest.raises(CheckpointError, match=r"m\.zip"):
        Reinforce.load(tmp_path / "m.zip", device="cpu")
    assert not Path("evil-was-here").exists()
