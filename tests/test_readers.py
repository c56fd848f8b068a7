"""What every reader promises, and the readers of one's own images: class folders and CSV tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import TREES, Tree, truncate, write_classes, write_image, write_table
from PIL import Image

from activelabel.data import Cohort, images, load, split_cohort
from activelabel.data.images import ImageFiles, UnreadableImage
from activelabel.data.readers import read_folder, read_table
from activelabel.data.readers.shared import images_below
from activelabel.errors import DataError, DuplicateImagesWarning, SettingsError


def read(tree: Tree, folder: Path) -> Cohort:
    place = tree.write(folder / "data")
    return load(f"{tree.name}:{place}" if tree.catalogued else place, **dict(tree.options))


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest) -> Tree:
    return TREES[request.param]


def test_every_reader_is_lazy(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("an image was opened")

    place = tree.write(tmp_path / "data")
    monkeypatch.setattr(images, "read_image", fail)
    monkeypatch.setattr(Image, "open", fail)
    cohort = load(f"{tree.name}:{place}" if tree.catalogued else place, **dict(tree.options))
    if isinstance(cohort.images, ImageFiles):
        with pytest.raises(AssertionError, match="opened"):
            cohort.images[0]


def test_every_reader_finds_the_images_and_who_made_them(tree: Tree, tmp_path: Path) -> None:
    cohort = read(tree, tmp_path)
    assert len(cohort) == tree.rows
    assert cohort.images is not None
    assert cohort.names is not None
    assert len(set(cohort.names.tolist())) == tree.rows
    assert all(not Path(name).is_absolute() for name in cohort.names)
    for row in range(tree.rows):
        pixels = np.asarray(cohort.images[row])
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2 or pixels.shape[2] == 3
    if isinstance(cohort.images, ImageFiles):
        assert cohort.images.paths == cohort.names.tolist()
        assert all(cohort.images.path(row).is_file() for row in range(tree.rows))
    assert (None if cohort.normal is None else cohort.classes[cohort.normal]) == tree.normal
    assert cohort.source.name == tree.name
    if tree.catalogued:
        assert cohort.source.licence != "unknown"
        assert cohort.source.citation
        assert cohort.source.url.startswith("https://")


def test_the_normal_class_can_be_chosen(tree: Tree, tmp_path: Path) -> None:
    place = tree.write(tmp_path / "data")
    source = f"{tree.name}:{place}" if tree.catalogued else place
    other = load(source, **dict(tree.options)).classes[1]
    assert load(source, normal=other, **dict(tree.options)).normal == 1
    with pytest.raises(DataError, match="unknown class 'nothing'"):
        load(source, normal="nothing", **dict(tree.options))


def test_an_option_that_a_reader_does_not_have_is_refused(tree: Tree, tmp_path: Path) -> None:
    place = tree.write(tmp_path / "data")
    with pytest.raises(SettingsError, match=r"unknown option of .*'colour'"):
        load(f"{tree.name}:{place}" if tree.catalogued else place, colour="red")


def test_a_damaged_image_is_named_when_it_is_looked_at(tmp_path: Path) -> None:
    write_classes(tmp_path)
    truncate(write_image(tmp_path / "tumour" / "z.jpg", size=(64, 64)))
    cohort = read_folder(tmp_path)
    assert len(cohort) == 7
    assert cohort.images is not None
    assert cohort.names is not None
    row = cohort.names.tolist().index("tumour/z.jpg")
    with pytest.raises(UnreadableImage, match=r"tumour/z\.jpg: not a readable image"):
        cohort.images[row]


def test_class_folders(tmp_path: Path) -> None:
    cohort = read_folder(write_classes(tmp_path / "scans"))
    assert cohort.classes == ("normal", "tumour")
    assert cohort.names is not None
    assert cohort.names.tolist() == [
        "normal/2019/c.bmp",
        "normal/a.png",
        "normal/b.png",
        "tumour/d.JPG",
        "tumour/e.jpg",
        "tumour/f.jpg",
    ]
    assert cohort.labels.tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    assert (cohort.patient, cohort.split, cohort.clinical, cohort.source.name) == (None, None, {}, "scans")
    assert cohort.images is not None
    grey, colour = (8, 10), (8, 10, 3)
    assert [np.shape(image) for image in cohort.images] == [colour, colour, grey, colour, grey, colour]
    np.testing.assert_array_equal(cohort.images[2], np.round(np.arange(80).reshape(8, 10) * 800 / 257))


def test_class_folders_below_a_split(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a/1.png", "train/b/2.png", "Validation/b/3.png", "test/a/4.png")):
        write_image(tmp_path / name, number)
    cohort = read_folder(tmp_path)
    assert cohort.classes == ("a", "b")
    assert cohort.names is not None
    assert cohort.split is not None
    assert dict(zip(cohort.names.tolist(), cohort.split.tolist(), strict=True)) == {
        "train/a/1.png": "train",
        "train/b/2.png": "train",
        "Validation/b/3.png": "val",
        "test/a/4.png": "test",
    }


def test_duplicates_on_two_sides_of_a_split_are_kept_and_reported(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a/1.png", "val/b/3.png", "test/a/4.png")):
        write_image(tmp_path / name, number)
    (tmp_path / "test" / "a" / "5.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes())
    cohort = read_folder(tmp_path)
    assert len(cohort) == 4
    with pytest.warns(DuplicateImagesWarning, match="1 images"):
        split_cohort(cohort, published=True)


def test_the_patient_in_a_path(tmp_path: Path) -> None:
    for number, name in enumerate(("a/p1_x.png", "a/p1_y.png", "b/p22_x.png")):
        write_image(tmp_path / name, number)
    assert load(tmp_path, patient=r"p\d+").patient.tolist() == ["p1", "p1", "p22"]  # type: ignore[union-attr]
    assert read_folder(tmp_path, patient=r"p(\d+)_").patient.tolist() == ["1", "1", "22"]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"a/p1_x\.png: patient='q' finds no patient"):
        read_folder(tmp_path, patient="q")
    with pytest.raises(SettingsError, match="no regular expression"):
        read_folder(tmp_path, patient="(")


def test_an_empty_class(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "cyst").mkdir()
    (tmp_path / "cyst" / "readme.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"no images in cyst\. Remove the folder, or keep .* allow_empty=True"):
        read_folder(tmp_path)
    cohort = read_folder(tmp_path, allow_empty=True)
    assert cohort.classes == ("cyst", "normal", "tumour")
    assert cohort.labels.sum(axis=0).tolist() == [0, 3, 3]


def test_what_is_no_folder_of_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no class folders\. Expected a folder for each class"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no images in a"):
        read_folder(tmp_path, allow_empty=True)
    write_image(tmp_path / "a" / "1.png")
    write_image(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"1 images lie outside of the class folders, the first 2\.png"):
        read_folder(tmp_path)
    (tmp_path / "2.png").unlink()
    write_image(tmp_path / "train" / "b" / "1.png")
    with pytest.raises(DataError, match="folders train are a split, but a beside them are not"):
        read_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "training")
    with pytest.raises(DataError, match="two are the same part"):
        read_folder(tmp_path)


COLUMNS: dict[str, Any] = {"path": "file", "patient": "who", "age": "years", "sex": "gender", "view": "projection"}


def test_a_table_of_classes(tmp_path: Path) -> None:
    cohort = read_table(write_table(tmp_path), label="finding", split="part", **COLUMNS)
    assert cohort.classes == ("edema", "effusion", "normal")
    assert cohort.labels.argmax(axis=1).tolist() == [2, 0, 0, 1]
    assert cohort.normal == 2
    assert cohort.names is not None
    assert cohort.names.tolist() == ["scans/a.png", "scans/b.png", "scans/c,1.png", "scans/d.png"]
    assert cohort.patient is not None
    assert cohort.patient.tolist() == ["p1", "p1", "p2", "p3"]
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train", "train", "val", "test"]
    np.testing.assert_array_equal(cohort.clinical["age"], np.float32([61, 61, np.nan, 0.5]))
    np.testing.assert_array_equal(cohort.clinical["female"], np.float32([1, 1, 0, np.nan]))
    np.testing.assert_array_equal(cohort.clinical["frontal"], np.float32([1, 0, 1, np.nan]))


def test_a_table_of_several_labels(tmp_path: Path) -> None:
    cohort = read_table(write_table(tmp_path), path="file", labels=["Edema", "Effusion"])
    assert cohort.classes == ("Edema", "Effusion")
    assert cohort.labels.tolist() == [[0, 0], [1, -1], [1, 0], [0, 1]]
    assert cohort.normal is None


@pytest.mark.parametrize("labels", ["Edema,Effusion", ["Edema", "Effusion"]])
def test_load_names_the_columns_of_a_table(tmp_path: Path, labels: Any) -> None:
    path = write_table(tmp_path)
    assert load(path, path="file", labels=labels, patient="who").classes == ("Edema", "Effusion")
    assert load(path, path="file", labels="finding", normal="edema").normal == 0


def test_without_lateral_views_pa_is_told_from_ap(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    for cells, expected in ((("PA", "AP", ""), [1, 0, np.nan]), (("AP", "frontal", "AP"), [1, 1, 1])):
        lines = [f"{name}.png,x,{cell}" for name, cell in zip("abc", cells, strict=True)]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,view", *lines]))
        frontal = read_table(tmp_path / "t.csv", view="view").clinical["frontal"]
        np.testing.assert_array_equal(frontal, np.float32(expected))


def test_a_table_whose_images_lie_elsewhere(tmp_path: Path) -> None:
    image = write_image(tmp_path / "disk" / "a.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,x\n")
    assert load(tmp_path / "t.csv", root=tmp_path / "disk").images[0].shape == (8, 10)  # type: ignore[index]
    (tmp_path / "t.csv").write_text(f"path,label\n{image},x\n")
    assert load(tmp_path / "t.csv").images[0].shape == (8, 10)  # type: ignore[index]


def test_missing_images_are_counted_or_skipped(tmp_path: Path) -> None:
    path = write_table(tmp_path)
    for name in ("b.png", "d.png"):
        (tmp_path / "scans" / name).unlink()
    with pytest.raises(DataError, match=r"2 of 4 images are not there, the first .*b\.png\. .*missing='skip'"):
        read_table(path, path="file", label="finding")
    cohort = read_table(path, path="file", label="finding", missing="skip", patient="who")
    assert (len(cohort), cohort.classes) == (2, ("edema", "normal"))
    assert cohort.patient is not None
    assert cohort.patient.tolist() == ["p1", "p2"]
    with pytest.raises(SettingsError, match="'ignore'"):
        read_table(path, path="file", label="finding", missing="ignore")
    for name in ("a.png", "c,1.png"):
        (tmp_path / "scans" / name).unlink()
    with pytest.raises(DataError, match="4 of 4 images are not there"):
        read_table(path, path="file", label="finding", missing="skip")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("a.png,x,\n", {"path": "pth"}, r"unknown column 'pth'. Did you mean 'path'\?"),
        ("a.png,x,\n", {"label": "class"}, "unknown column 'class'"),
        ("a.png,,\n", {}, r"t\.csv, line 2, column 'label': empty"),
        (",x,\n", {}, r"line 2, column 'path': empty"),
        ("a.png,x,1\n\na.png,x,2\n", {"labels": ["more"]}, r"line 4, column 'more': '2'; known: 1, 0, -1"),
        ("a.png,x,\n", {"labels": ["more"]}, r"line 2, column 'more': ''"),
        ("a.png,x\n", {"patient": "more"}, r"line 2, column 'more': the row has 2 cells only"),
        ("a.png,x,old\n", {"age": "more"}, r"line 2, column 'more': 'old' is no number"),
        ("a.png,x,inf\n", {"age": "more"}, "'inf' is not finite"),
        ("a.png,x,q\n", {"sex": "more"}, "'q'; known: F, M"),
        ("a.png,x,oblique\n", {"view": "more"}, "'oblique'; known: frontal"),
        ("a.png,x,dev\n", {"split": "more"}, "'dev'; known: train, val, test"),
        ("", {}, "no rows below a header"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, rows: str, options: dict[str, Any], message: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,more\n" + rows)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv", **options)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: no such file"):
        load(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00garbage\n")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path,label,label\na,b,c\n")
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="2 columns are named 'label'"):
        read_table(tmp_path / "t.csv")
    for options in ({"label": "a", "labels": ["b"]}, {"labels": []}, {"labels": "text"}):
        with pytest.raises(SettingsError, match="labels="):
            read_table(tmp_path / "t.csv", **options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_that_is_named_like_an_image_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "A" / "a.png")
    os.mkfifo(tmp_path / "A" / "pipe.png")
    (tmp_path / "A" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert images_below(tmp_path, tmp_path) == ["A/a.png", "A/nowhere.png"]
