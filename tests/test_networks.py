"""Networks: how they are built, and that a file of weights can do nothing but hold weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from activelabel.data.networks import (
    build_network,
    digest,
    drawn,
    last_linear,
    published_weights,
    read_weights,
    replace_layer,
)
from activelabel.errors import CheckpointError, SettingsError


def small() -> nn.Module:
    """A network of a user's."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def needs_an_argument(size: int) -> nn.Module:
    return nn.Linear(size, 2)


def no_module() -> int:
    return 3


def no_linear() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3))


HERE = f"{__name__}:"


class Harmful:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo harm > harmed",)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", f"{HERE}small"])
def test_weights_come_from_the_seed_alone_and_no_global_generator_moves(name: str) -> None:
    weights = "published" if ":" in name else "random"
    before = torch.get_rng_state()
    a = build_network(name, weights=weights, seed=1)
    torch.rand(3)
    b = build_network(name, weights=weights, seed=1)
    c = build_network(name, weights=weights, seed=2)
    assert digest(a) == digest(b) != digest(c)
    torch.set_rng_state(before)
    build_network(name, weights=weights, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawn_puts_the_generator_back_after_an_error() -> None:
    before = torch.get_rng_state()

    def fails() -> None:
        torch.rand(1)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        drawn(fails, 0, "x")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("width", "stem"), [(64, "small"), (16, "small"), (16, "imagenet")])
def test_resnets_of_other_widths_and_stems(width: int, stem: str) -> None:
    network: Any = build_network("resnet18", weights="random", width=width, stem=stem, n_out=7)
    assert network.fc.in_features == 8 * width
    assert network.eval()(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    x = network.maxpool(network.conv1(torch.zeros(1, 3, 28, 28)))
    assert x.shape == (1, width, *((28, 28) if stem == "small" else (7, 7)))


def test_a_plain_width_is_torchvisions_own_network() -> None:
    from torchvision.models import resnet18

    network = build_network("resnet18", weights="random")
    assert [(n, p.shape) for n, p in network.named_parameters()] == [
        (n, p.shape) for n, p in resnet18().named_parameters()
    ]


def test_a_new_last_layer() -> None:
    network = build_network(f"{HERE}small", n_out=3)
    assert last_linear(network)[0] == "3"
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    replace_layer(network, "3", nn.Identity())
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


def test_weights_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    source = build_network("resnet18", weights="random", seed=5, width=8)
    for saved in (source.state_dict(), {"state_dict": {f"module.{n}": v for n, v in source.state_dict().items()}}):
        torch.save(saved, path)
        assert digest(build_network("resnet18", weights=path, seed=6, width=8)) == digest(source)
    torch.save(build_network("resnet18", weights="random", seed=5, width=8, n_out=3).state_dict(), path)
    # Of three classes: its last layer is left out.
    other: Any = build_network("resnet18", weights=path, seed=5, width=8)
    assert other.fc.out_features == 1000
    assert torch.equal(other.conv1.weight, source.get_parameter("conv1.weight"))


def test_published_densenets_have_older_names(tmp_path: Path) -> None:
    source = build_network("densenet121", weights="random", seed=1)
    old = {n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for n, v in source.state_dict().items()}
    assert set(old) != set(source.state_dict())
    torch.save(old, tmp_path / "d.pth")
    assert digest(build_network("densenet121", weights=tmp_path / "d.pth", seed=2)) == digest(source)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {"weights": "random"}, r"unknown network 'resnet81'\. Did you mean 'resnet18'"),
        ("resnet18", {"weights": "random", "stem": "smal"}, "Did you mean 'small'"),
        ("resnet18", {"width": 32}, "need a ResNet without published weights"),
        ("densenet121", {"weights": "random", "stem": "small"}, "need a ResNet"),
        ("resnet18", {"weights": "random", "width": 0}, "width=0"),
        ("nowhere:f", {}, "No module named 'nowhere'"),
        (f"{HERE}nothing", {}, "has no 'nothing'"),
        (f"{HERE}HERE", {}, "is no function"),
        (f"{HERE}needs_an_argument", {}, "must take no arguments"),
        (f"{HERE}no_module", {}, "returned int"),
        (f"{HERE}no_linear", {"n_out": 2}, "no linear layer"),
        (f"{HERE}small", {"stem": "small"}, "function of your own"),
    ],
)
def test_bad_requests_are_told(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_network(name, **options)


def test_nothing_is_downloaded_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[str] = []

    def fetch(url: str, path: str, hash_prefix: str) -> None:
        asked.append(url)
        torch.save(build_network("resnet18", weights="random", seed=3).state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(SettingsError, match=r"--download.*resnet18-.*pth"):
        build_network("resnet18")
    assert not asked
    network = build_network("resnet18", download=True)
    assert digest(network) == digest(build_network("resnet18", weights="random", seed=3))
    assert len(asked) == 1
    assert digest(build_network("resnet18")) == digest(network)  # from the cache now
    assert published_weights("resnet18").is_relative_to(tmp_path)


def test_a_failed_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fetch(url: str, path: str, hash_prefix: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(SettingsError, match=r"could not be fetched \(no route\)"):
        build_network("resnet18", download=True)


@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    else:
        torch.save({"a": Harmful()}, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(CheckpointError, match=r"w\.pt: refused"):
        read_weights(path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "text", "list", "other network"])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.pt"
    state = build_network(f"{HERE}small").state_dict()
    torch.save(state, path)
    if damage == "missing":
        path.unlink()
    elif damage in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: 700 if damage == "truncated" else 0])
    elif damage == "text":
        path.write_text("weights")
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        torch.save({**state, "5.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        build_network(f"{HERE}small", weights=path)
