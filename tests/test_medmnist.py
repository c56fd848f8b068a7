"""MedMNIST: the package's files, its facts, and that nothing is fetched unless told to."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torchvision.datasets.utils
from image_trees import write_medmnist

from activelabel.data.readers import read_medmnist
from activelabel.data.readers.medmnist import SETS, SIZES, THREE_D, file_name
from activelabel.errors import DataError, SettingsError


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_medmnist(tmp_path: Path, name: str) -> None:
    known = SETS[name]
    cohort = read_medmnist(name, write_medmnist(tmp_path, name, classes=len(known.classes)))
    assert cohort.classes == known.all_classes()
    assert (None if cohort.normal is None else cohort.classes[cohort.normal]) == known.normal
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    with np.load(tmp_path / f"{name}.npz") as file:
        np.testing.assert_array_equal(np.asarray(cohort.images)[4:6], file["val_images"])
        stored = file["val_labels"].astype(int)
    if name == "chestmnist":
        assert cohort.labels[4:6, :14].tolist() == stored.tolist()
        assert cohort.labels[:, 14].tolist() == (~cohort.labels[:, :14].any(axis=1)).astype(int).tolist()
    else:
        assert cohort.labels[4:6].argmax(axis=1).tolist() == stored[:, 0].tolist()
        assert cohort.labels.sum(axis=1).tolist() == [1] * 9
    assert cohort.source.licence.startswith("CC BY")


def test_the_images_of_chestmnist_without_a_finding_are_normal(tmp_path: Path) -> None:
    write_medmnist(tmp_path, "chestmnist")
    with np.load(tmp_path / "chestmnist.npz") as file:
        arrays = dict(file)
    arrays["test_labels"][1] = 0
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    cohort = read_medmnist("chestmnist", tmp_path)
    assert cohort.labels[7].tolist() == [0] * 14 + [1]


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_of_medmnist(tmp_path: Path, size: int) -> None:
    cohort = read_medmnist("pathmnist", write_medmnist(tmp_path, "pathmnist", size), size=size)
    assert np.asarray(cohort.images).shape == (9, size, size, 3)
    assert (tmp_path / file_name("pathmnist", size)).is_file()


def test_what_medmnist_does_not_have_is_refused(tmp_path: Path) -> None:
    write_medmnist(tmp_path)
    with pytest.raises(SettingsError, match="size=32: MedMNIST comes in 28, 64, 128, 224"):
        read_medmnist("pneumoniamnist", tmp_path, size=32)
    for name in THREE_D:
        with pytest.raises(DataError, match="holds volumes"):
            read_medmnist(name, tmp_path)
    with pytest.raises(DataError, match=r"'pathmist'. Did you mean 'pathmnist'"):
        read_medmnist("pathmist", tmp_path)
    with pytest.raises(DataError, match=r"pneumoniamnist_64\.npz: no such file. Get it from .*download=True"):
        read_medmnist("pneumoniamnist", tmp_path, size=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, "unknown array 'val_labels'"),
        ({"val_labels": np.uint8([[2], [0]])}, r"expected \(n, 1\) of 0 to 1"),
        ({"val_labels": np.uint8([[1]])}, r"val_labels is uint8 \(1, 1\) for 2 images"),
        ({"val_images": np.zeros((2, 28, 28), np.float32)}, "val_images is float32"),
        ({"val_images": np.zeros((2, 64, 64), np.uint8)}, r"expected uint8 \(n, 28, 28\)"),
        ({"val_labels": np.array([[0], [None]], dtype=object)}, "free of object arrays"),
    ],
)
def test_a_damaged_file_of_medmnist_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_medmnist(tmp_path) / "pneumoniamnist.npz"
    with np.load(path) as file:
        arrays = {key: value for key, value in {**file, **changes}.items() if value is not None}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        read_medmnist("pneumoniamnist", tmp_path)


def test_medmnist_is_fetched_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(url: str, root: str, filename: str, md5: str) -> None:
        asked.append((url, md5))
        if "broken" in url:
            raise RuntimeError("File not found or corrupted.")
        content = (write_medmnist(tmp_path / "server", size=64) / "pneumoniamnist_64.npz").read_bytes()
        (Path(root) / filename).write_bytes(content)

    info = {"url_64": "https://x/p_64.npz", "MD5_64": "abc", "url_128": "https://x/broken", "MD5_128": "def"}
    monkeypatch.setitem(sys.modules, "medmnist", SimpleNamespace(INFO={"pneumoniamnist": info}))
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    folder = tmp_path / "new"
    with pytest.raises(DataError, match="no such file"):
        read_medmnist("pneumoniamnist", folder, size=64)
    assert not asked
    assert len(read_medmnist("pneumoniamnist", folder, size=64, download=True)) == 9
    assert len(read_medmnist("pneumoniamnist", folder, size=64, download=True)) == 9
    assert asked == [("https://x/p_64.npz", "abc")]
    with pytest.raises(DataError, match=r"could not be fetched from https://x/broken \(File not found"):
        read_medmnist("pneumoniamnist", folder, size=128, download=True)
    assert [path.name for path in folder.iterdir()] == ["pneumoniamnist_64.npz"]


def test_fetching_medmnist_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medmnist", None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r'pip install "activelabel\[medmnist\]"'):
        read_medmnist("pathmnist", tmp_path, download=True)


def test_the_facts_are_those_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("medmnist")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("medmnist is not installed (extra medmnist)")
    monkeypatch.setenv("HOME", str(tmp_path))  # the package makes a folder there
    info = runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "info.py"))["INFO"]
    assert set(info) == {*SETS, *THREE_D}
    for name, known in SETS.items():
        assert tuple(info[name]["label"][str(n)] for n in range(len(known.classes))) == known.classes
        assert len(info[name]["label"]) == len(known.classes)
        assert tuple(info[name]["n_samples"][part] for part in ("train", "val", "test")) == known.images
        assert info[name]["license"] == known.licence
        assert ("multi-label" in info[name]["task"]) == known.multi_label
        assert all({f"url_{size}", f"MD5_{size}"} <= set(info[name]) for size in SIZES[1:])
