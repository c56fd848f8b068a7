"""``python -m activelabel.data``, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from activelabel.data import Cohort, load
from activelabel.data.__main__ import main

BACKBONE = ["--backbone", "test_embedding:Small", "--device", "cpu", "--no-progress"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of class folders."""
    rng = np.random.default_rng(0)
    for name, low in (("healthy", 0), ("ill", 120)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            image = rng.integers(low, low + 130, (18, 20), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


def test_a_folder_becomes_a_cohort(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort.npz"
    cache = ["--cache", str(tmp_path / "c")]
    assert main(["embed", str(folder), "--out", str(out), *BACKBONE, *cache, "--normal", "healthy"]) == 0
    assert "24 images x 5 features of test_embedding:Small" in capsys.readouterr().out
    cohort = load(out)
    assert cohort.classes == ("healthy", "ill")
    assert cohort.normal == 0
    assert cohort.names is not None
    assert sorted(cohort.names)[0] == "healthy/0.png"
    assert main(["probe", str(out)]) == 0
    told = capsys.readouterr().out
    assert "24 images, 5 folds by image" in told
    assert "AUROC 1.0000" in told
    assert main(["probe", str(folder), *BACKBONE, *cache]) == 0
    assert capsys.readouterr().out.replace(str(folder), str(out)) == told


def test_a_part_of_the_images_can_be_corrupted(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("monai", reason="the extra 'monai' is not installed")
    features = {}
    for share in ("0", "0.5"):
        out = tmp_path / f"{share}.npz"
        assert main(["embed", str(folder), "--out", str(out), *BACKBONE, "--corrupt", share, "--size", "18"]) == 0
        features[share] = load(out)
    changed = (features["0"].embedded() != features["0.5"].embedded()).any(axis=1)
    assert changed.sum() == 12
    assert features["0.5"].source != features["0"].source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "{set}x", "--out", "o.npz"], "{set}x"),
        (["embed", "{set}", "--out", "o.txt"], "ends in .npz"),
        (
            ["embed", "{set}", "--out", "o.npz", "--backbone", "resnet81", "--weights", "random"],
            "Did you mean 'resnet18'",
        ),
        (["embed", "{set}", "--out", "o.npz", "--weights", "missing.pt"], "missing.pt: no such file of weights"),
        (["embed", "{set}", "--out", "o.npz", "--option", "x"], "give NAME=VALUE"),
        (["embed", "{set}", "--out", "o.npz", "--option", "colour=red"], "colour"),
        (["embed", "{set}", "--out", "o.npz", "--corrupt", "2"], "2"),
        (["embed", "{set}", "--out", "o.npz", "--corrupt-split", "train"], "no published split"),
        (["embed", "synthetic", "--out", "o.npz"], "no images to embed"),
        (["probe"], "name a data set"),
        (["show", "chexpret"], "Did you mean 'chexpert'"),
        (["pretrain", "synthetic", "--out", "{set}/../p"], "images"),
    ],
)
def test_bad_input_is_told_in_a_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    extra = [] if arguments[0] != "embed" or "--backbone" in arguments or "--weights" in arguments else BACKBONE
    assert main([a.format(set=folder) for a in arguments] + extra) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message.format(set=folder) in told
    assert not list(folder.parent.glob("o.*"))


@pytest.mark.parametrize("arguments", [["list"], ["show", "chexpert"], ["show", "kermany"], ["show", "digits"]])
def test_the_catalogue_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    told = capsys.readouterr().out
    for word in ("chexpert", "kather2016", "digits") if arguments == ["list"] else ("licence", "classes"):
        assert word in told.lower()


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    for name in ("list", "show", "embed", "pretrain", "probe"):
        assert name in told


@pytest.mark.data
def test_images_of_the_shared_files_go_through(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'pretrained' is not installed")
    from activelabel.data.backbones import make_backbone
    from activelabel.data.embedding import embed

    images: Any = load(data_dir / "kermany_cxr96.npz")
    shared: Cohort = load(data_dir / "kermany_cxr96_efflite0.npz")
    rows = np.array([0, 17, 4000, 5215])
    found = embed(images.take(rows), make_backbone("efficientnet-lite0", device="cpu")).embedded()
    expected = shared.embedded()[rows]
    # Those were made from the large originals, so they are alike, not equal.
    length = np.linalg.norm(found, axis=1)[:, None] * np.linalg.norm(expected, axis=1)[None, :]
    similar = found @ expected.T / length
    assert (similar.argmax(axis=1) == np.arange(len(rows))).all()
    assert (similar.diagonal() > 0.75).all()
