"""Model files of strangers: nothing in them is executed, and what they say of their size is not believed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from test_safe_formats import Dangerous, refused

from activelabel.agents import DDQN, Reinforce
from activelabel.agents.checkpoint import read_model, write_model
from activelabel.data.encoder import read_tensors
from activelabel.data.npz import load_npz
from activelabel.reading import AtMost, load_tensors
from benchmarks.fuzzing import targets
from benchmarks.fuzzing.archives import torch_bytes, zipped


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model file of each agent."""
    folder = tmp_path_factory.mktemp("models")
    return {name: targets.TARGETS[name](folder).valid[0] for name in ("reinforce", "ddqn")}


def test_a_file_of_stable_baselines3_is_refused_with_the_reason(tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo.zip")
    for read in (read_model, Reinforce.load, DDQN.load):
        message = refused(read, tmp_path / "ppo.zip")
        assert "not an ActiveLabel model (it holds" in message
        assert "Stable-Baselines3's own save, with pickled objects: reading them could run code" in message


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"policy": Dangerous()}, "refused: it names"),
        ({"policy": bytearray(3)}, "refused: it names"),
        ({"policy": torch.zeros(3, 3).to_sparse()}, "refused: it names 'torch._utils _rebuild_sparse_tensor'"),
        ({"policy": torch.zeros(1).expand(10**12)}, "that is not dense"),
        ({"policy": "\ud800"}, "half of a surrogate pair"),
        ([1], "tensors have no names"),
    ],
)
def test_more_than_tensors_and_plain_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, bytes], tensors: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(io.BytesIO(models["reinforce"])) as archive:
        header = archive.read("header.json")
    data = zipped({"header.json": header, "tensors.pt": torch_bytes(tensors)})
    assert said in refused(Reinforce.load, tmp_path / "m.zip", data)
    if isinstance(tensors, dict):
        path = tmp_path / "c.pt"
        path.write_bytes(torch_bytes({"format": "f", "version": 1, **tensors}))
        assert said in refused(lambda path: read_tensors(path, "f"), path)
    assert not (tmp_path / "was-run").exists()


def test_references_in_a_pickle_do_not_multiply(tmp_path: Path) -> None:
    tree: Any = [0] * 10
    for _ in range(9):
        tree = [tree] * 10
    with pytest.raises(ValueError, match="more than 50000 values"):
        load_tensors(io.BytesIO(torch_bytes(tree)))


def with_header(data: bytes, *place: Any, value: Any) -> bytes:
    """Return a model file with another value in its header."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        header, tensors = json.loads(archive.read("header.json")), archive.read("tensors.pt")
    holder = header
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return zipped({"header.json": json.dumps(header).encode(), "tensors.pt": tensors})


@pytest.mark.parametrize(
    ("agent", "place", "value", "said"),
    [
        ("reinforce", ("policy_kwargs", "hidden"), 20_000, "far larger than the file"),
        ("reinforce", ("policy_kwargs", "hidden"), 3, "weights 'selector"),
        ("reinforce", ("policy_kwargs", "members"), 10**9, "1000000000 members, and weights of 0"),
        ("reinforce", ("policy_kwargs", "members"), 2, "2 members, and weights of 0"),
        ("reinforce", ("observation", "pool", "shape"), [200_000, 4000], "observation of shape"),
        ("reinforce", ("action",), "x", "contents do not fit"),
        ("reinforce", ("settings", "seed"), 1.5, "seed is 1.5, not int"),
        ("reinforce", ("settings", "replacement"), 1, "replacement is 1, not bool"),
        ("reinforce", ("counters", "num_timesteps"), "many", "num_timesteps is 'many', not a number"),
        ("reinforce", ("notes",), [], "notes is [], not dict"),
        ("reinforce", ("policy",), {}, "policy is {}, not str"),
        ("reinforce", ("notes", "a"), "\ud800", "surrogates not allowed"),
        ("ddqn", ("policy_kwargs", "hidden"), [30_000, 30_000], "far larger than the file"),
        ("ddqn", ("batch",), 10**9, "observation of shape"),
        ("ddqn", ("observation", "state"), 10**9, "observation of shape"),
        ("ddqn", ("returns",), 3, "returns is 3, not list"),
        ("ddqn", ("settings", "gamma"), 3, "gamma=3 must be from 0 to 1"),
        ("ddqn", ("settings", "buffer_size"), 1, "a replay buffer of"),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, models: dict[str, bytes], agent: str, place: tuple[Any, ...], value: Any, said: str
) -> None:
    cls: Any = {"reinforce": Reinforce, "ddqn": DDQN}[agent]
    data = with_header(models[agent], *place, value=value)
    assert said in refused(lambda path: cls.load(path, device="cpu"), tmp_path / "m.zip", data)


def test_a_large_buffer_takes_memory_as_it_fills(tmp_path: Path, models: dict[str, bytes]) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(with_header(models["ddqn"], "settings", "buffer_size", value=10**9))
    model = DDQN.load(path, device="cpu")
    assert model.replay.size == 10**9
    assert model.replay.errors.numel() < 100


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("policy", float("nan"), "are not finite"),
        ("optimizer", float("inf"), "are not finite"),
        ("replay", float("nan"), "is not finite"),
    ],
)
def test_numbers_that_are_none_are_refused(
    tmp_path: Path, models: dict[str, bytes], part: str, value: float, said: str
) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(models["ddqn"])
    header, tensors = read_model(path)
    found = {
        "policy": tensors["policy"],
        "replay": tensors["replay"]["columns"],
        "optimizer": tensors["optimizer"]["state"][0],
    }
    next(t for t in found[part].values() if t.is_floating_point() and t.numel() > 1).view(-1)[0] = value
    write_model(path, "DDQN", {k: v for k, v in header.items() if k not in ("format", "version", "agent")}, tensors)
    assert said in refused(lambda path: DDQN.load(path, device="cpu"), path)


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt"])
def test_members_with_paths_write_nothing(tmp_path: Path, models: dict[str, bytes], name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    with zipfile.ZipFile(io.BytesIO(models["reinforce"])) as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    (folder / "m.zip").write_bytes(zipped({**parts, name: b"x"}))
    Reinforce.load(folder / "m.zip", device="cpu")
    np.savez(folder / "c.npz", features=np.zeros((2, 1)), labels=[0, 1], **{name: np.zeros(2)})
    load_npz(folder / "c.npz")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.npz", "inner", "m.zip"]


def test_at_most_counts_what_is_made() -> None:
    with AtMost(1000):
        torch.zeros(100)
        torch.empty(100, 10**9, device="meta")
        with pytest.raises(ValueError, match="far larger"):
            torch.empty((100, 2))
    with AtMost(1000), pytest.raises(ValueError, match="far larger"):
        torch.nn.Linear(10**6, 10**5)
