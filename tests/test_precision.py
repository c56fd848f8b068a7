"""REINFORCE whose network multiplies in bfloat16: what stays float32, that it is saved, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import yaml

from activelabel.agents.arguments import PRECISIONS
from activelabel.agents.checkpoint import read_model, write_model
from activelabel.agents.reinforce import SELECTORS, Reinforce
from activelabel.errors import CheckpointError, SettingsError
from activelabel.settings import SelectiveRunSettings

Make = Callable[..., Any]
SMALL: dict[str, Any] = {"batch_size": 8, "n_samples": 3, "seed": 1, "device": "cpu", "policy_kwargs": {"hidden": 8}}
POLICIES = [cls.__name__ for cls in SELECTORS.values()]


@pytest.fixture
def make_agent(make_vec: Make) -> Make:
    return lambda **changes: Reinforce(env=make_vec(4), **{**SMALL, "precision": "bfloat16", **changes})


def gradient(model: Reinforce) -> torch.Tensor:
    """The gradient of the last update."""
    return torch.cat([p.grad.ravel() for p in model.policy.parameters()])  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_gradient_is_near_that_of_float32(make_agent: Make, policy: str) -> None:
    full, reduced = (make_agent(policy=policy, precision=precision).learn(8) for precision in PRECISIONS)
    assert torch.nn.functional.cosine_similarity(gradient(full), gradient(reduced), dim=0) > 0.95
    assert not torch.equal(gradient(full), gradient(reduced)), "the network must have computed in bfloat16"


@pytest.mark.parametrize("policy", POLICIES)
def test_everything_but_the_network_is_float32(make_agent: Make, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    model, seen = make_agent(policy=policy), []
    scored = model.policy.scored

    def watched(*arguments: Any) -> dict[int, tuple[torch.Tensor, Any]]:
        found = scored(*arguments)
        (rule,) = [rule for _, rule in found.values()]
        for name in ("sample", "log_prob", "entropy"):
            method = getattr(rule, name)
            if not hasattr(method, "watched"):
                monkeypatch.setattr(rule, name, noting(method))
        return found

    def noting(method: Make) -> Make:
        def noted(logits: torch.Tensor, *arguments: Any) -> Any:
            found = method(logits, *arguments)
            seen.append((method.__name__, logits.dtype, found.dtype))
            return found

        noted.watched = True  # type: ignore[attr-defined]
        return noted

    monkeypatch.setattr(model.policy, "scored", watched)
    model.learn(8)
    full = torch.float32
    assert set(seen) == {("sample", full, torch.int64), ("log_prob", full, full), ("entropy", full, full)}
    assert {p.dtype for p in model.policy.parameters()} == {full} == {p.grad.dtype for p in model.policy.parameters()}


@pytest.mark.parametrize("policy", POLICIES)
def test_it_chooses_in_float32(make_agent: Make, make_vec: Make, policy: str) -> None:
    model, full = make_agent(policy=policy).learn(8), make_agent(policy=policy, precision="float32")
    full.policy.load_state_dict(model.policy.state_dict())
    observation, _ = make_vec(3).reset(seed=0)
    np.testing.assert_array_equal(model.predict(observation)[0], full.predict(observation)[0])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_training_equals_an_uninterrupted_one(
    make_agent: Make, make_vec: Make, tmp_path: Path, policy: str
) -> None:
    whole = make_agent(policy=policy).learn(16)
    whole.save(tmp_path / "half")
    whole.learn(16, reset_num_timesteps=False)
    resumed = Reinforce.load(tmp_path / "half", env=make_vec(4), device="cpu", force_reset=False)
    assert resumed.precision == "bfloat16"
    resumed.learn(16, reset_num_timesteps=False)
    assert reference.digest(resumed.policy.state_dict()) == reference.digest(whole.policy.state_dict())


def test_a_model_file_keeps_it_and_older_ones_are_float32(make_agent: Make, tmp_path: Path) -> None:
    make_agent().save(tmp_path / "new")
    assert Reinforce.load(tmp_path / "new", precision="float32").precision == "float32"
    with pytest.raises(SettingsError, match=r"unknown precision 'bfloat61'.*Did you mean 'bfloat16'"):
        Reinforce.load(tmp_path / "new", precision="bfloat61")
    header, tensors = read_model(tmp_path / "new", "Reinforce")
    del header["settings"]["precision"]
    write_model(tmp_path / "old", "Reinforce", header, tensors)
    assert Reinforce.load(tmp_path / "old").precision == "float32"
    for damaged in ("float8", 16, ["bfloat16"], None):
        header["settings"]["precision"] = damaged
        write_model(tmp_path / "damaged", "Reinforce", header, tensors)
        with pytest.raises(CheckpointError, match="unknown precision"):
            Reinforce.load(tmp_path / "damaged")


def test_an_unknown_one_is_refused(make_agent: Make) -> None:
    for make in (make_agent, SelectiveRunSettings):
        with pytest.raises(SettingsError, match=r"unknown precision 'bfloat'.*Did you mean 'bfloat16'"):
            make(precision="bfloat")


def test_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from activelabel.agents import arguments

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old one")
    arguments.check_precision("float32", torch.device("cuda"))
    with pytest.raises(SettingsError, match="an old one does not compute in it"):
        arguments.check_precision("bfloat16", torch.device("cuda"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_settings_of_a_run_name_it(make_vec: Make, precision: str) -> None:
    run = SelectiveRunSettings(precision=precision, hidden=4)
    assert run.from_mapping(yaml.safe_load(run.to_yaml()), "config") == run
    assert Reinforce(env=make_vec(4), **{**run.agent_arguments(), "device": "cpu"}).precision == precision
