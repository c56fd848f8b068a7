"""Model files in the format of safetensors: the same models, and the same refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import same_tensors
from safetensors.torch import save_file

from activelabel.agents import DDQN, Reinforce
from activelabel.agents.checkpoint import read_model, write_model
from activelabel.errors import CheckpointError
from benchmarks.fuzzing import targets

AGENTS: dict[str, Any] = {"reinforce": Reinforce, "ddqn": DDQN}


@pytest.fixture(scope="module", params=AGENTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "m.zip"
    path.write_bytes(targets.TARGETS[request.param](folder).valid[0])
    return AGENTS[request.param].load(path, device="cpu")


def test_both_formats_hold_the_same(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m.zip")
    model.save(tmp_path / "m.safetensors")
    header, tensors = read_model(tmp_path / "m.zip")
    again, same = read_model(tmp_path / "m.safetensors")
    assert again == header
    assert same_tensors(same, tensors)
    loaded = type(model).load(tmp_path / "m.safetensors", device="cpu")
    loaded.save(tmp_path / "n.zip")
    assert same_tensors(read_model(tmp_path / "n.zip")[1], tensors)
    other = DDQN if isinstance(model, Reinforce) else Reinforce
    with pytest.raises(CheckpointError, match=f"a model of {type(model).__name__}, not of {other.__name__}"):
        other.load(tmp_path / "m.safetensors")


def test_what_is_nested_comes_back(tmp_path: Path) -> None:
    value = {"a": [torch.arange(3), (1, 2.5, None)], "b": {0: torch.zeros(()), 1: "x"}, "c": {}, "d": []}
    write_model(tmp_path / "m.safetensors", "X", {}, value)
    found = read_model(tmp_path / "m.safetensors")[1]
    assert same_tensors(found, value)
    assert list(found["b"]) == [0, 1]
    assert isinstance(found["a"][1], tuple)


def test_a_truncated_file_is_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for n in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(CheckpointError, match=r"m.safetensors: damaged or not a model file .* train again"):
            type(model).load(path)


def other_structure(change: Callable[[Any], Any]) -> dict[str, str]:
    header = {"format": "activelabel-model", "version": 1, "agent": "DDQN"}
    return {"header": json.dumps(header), "structure": json.dumps(change({"dict": [["policy", {"tensor": "w"}]]}))}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "not an ActiveLabel model"),
        ({"header": "{}"}, "not an ActiveLabel model"),
        ({"header": "{}", "structure": '{"dict": []}'}, "not an ActiveLabel model"),
        (other_structure(lambda s: []), "damaged or not a model file"),
        (other_structure(lambda s: {"dict": [], "list": []}), "damaged or not a model file"),
        (other_structure(lambda s: {"tensor": "another"}), "damaged or not a model file"),
        (other_structure(lambda s: {"call": "print"}), "its structure is not that of a model"),
        (other_structure(lambda s: {"value": {"dict": []}}), "its structure is not that of a model"),
        (other_structure(lambda s: {"tensor": "w"}), "its tensors have no names"),
        (other_structure(lambda s: s), "contents do not fit"),
    ],
)
def test_another_file_is_refused(metadata: dict[str, str] | None, said: str, tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(CheckpointError, match=said):
        DDQN.load(tmp_path / "m.safetensors")
