"""Files of pretraining: a damaged, foreign or dangerous one is refused in one line and runs nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_play import RESNET, TINY, train

from activelabel.data.pretrain import load_encoder
from activelabel.errors import CheckpointError


class Dangerous:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training."""
    out = tmp_path_factory.mktemp("trained")
    train(out, RESNET, minutes=1e-9)
    return out


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("weights")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Dangerous()))


def pickled_inside(path: Path) -> None:
    torch.save({"format": "activelabel-encoder", "version": 1, "state": Dangerous()}, path)


def foreign(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)


def a_list(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def newer(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "version": 2}, path)


DAMAGES = (missing, truncated, empty, text, pickled, pickled_inside, foreign, a_list, newer)


def refused(path: Path, read: Callable[[], Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def copy_of(trained: Path, tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.write_bytes((trained / name).read_bytes())
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_encoder_is_refused(
    damage: Callable[[Path], None], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy_of(trained, tmp_path, "encoder.pt")
    damage(path)
    refused(path, lambda: load_encoder(path))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_checkpoint_is_refused(
    damage: Callable[[Path], None], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy_of(trained, tmp_path, "checkpoint.pt")
    damage(path)
    refused(path, lambda: train(tmp_path, RESNET, resume=True))
    assert not (tmp_path / "was-run").exists()


def changed(path: Path, **values: Any) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, **values}, path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": "8"}, "its 'size' is '8'"),
        ({"mean": None}, "its 'mean'"),
        ({"state": 3}, "no weights"),
        ({"state": {"conv1.weight": torch.zeros(2)}}, "do not fit its network"),
        ({"width": 3}, "do not fit its network"),
        ({"width": 0}, "width=0"),
        ({"network": "resnet81"}, "cannot be built: unknown network"),
    ],
)
def test_a_damaged_encoder_is_refused(values: dict[str, Any], said: str, trained: Path, tmp_path: Path) -> None:
    path = copy_of(trained, tmp_path, "encoder.pt")
    changed(path, **values)
    assert said in refused(path, lambda: load_encoder(path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"settings": {"epochs": 4}}, "settings are of another version"),
        ({"settings": {**RESNET.to_dict(), "width": -1}}, "settings are of another version"),
        ({"settings": None}, "settings are of another version"),
        ({"model": {}}, "do not fit"),
        ({"optimizer": {"param_groups": [], "state": {}}}, "damaged"),
        ({"epochs": "many"}, "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(values: dict[str, Any], said: str, trained: Path, tmp_path: Path) -> None:
    path = copy_of(trained, tmp_path, "checkpoint.pt")
    changed(path, **values)
    assert said in refused(path, lambda: train(tmp_path, RESNET, resume=True))


def test_a_file_cannot_name_the_function_that_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = train(tmp_path, TINY, minutes=1e-9)
    assert "pretrain_play:small_net" in refused(path, lambda: load_encoder(path))
    encoder, facts = load_encoder(path, "pretrain_play:small_net")
    assert encoder(torch.zeros(1, 3, 8, 8)).shape == (1, facts["dim"])
    monkeypatch.chdir(tmp_path)
    changed(path, network="os:getcwd")
    refused(path, lambda: load_encoder(path, "pretrain_play:small_net"))


def test_a_folder_has_one_training(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is a training already"):
        train(trained, TINY)
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        train(tmp_path, RESNET, resume=True)


def test_a_crash_while_writing_leaves_the_old_files(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("encoder.pt", "checkpoint.pt"):
        copy_of(trained, tmp_path, name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def crash(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="disk is full"):
        train(tmp_path, RESNET, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
