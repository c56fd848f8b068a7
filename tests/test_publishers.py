"""The readers of published data sets: labels, patients, splits and oddities as the publishers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import (
    write_chexpert,
    write_chexpert_batches,
    write_image,
    write_kather,
    write_kermany,
    write_nih,
)

from activelabel.data import Cohort
from activelabel.data.readers import read_chexpert, read_kather, read_kermany, read_nih
from activelabel.data.readers.chexpert import studies
from activelabel.data.readers.kather import slide
from activelabel.data.readers.kermany import parse_name
from activelabel.errors import DataError, SettingsError


def column(cohort: Cohort, name: str) -> list[int]:
    return cohort.labels[:, cohort.class_index(name)].tolist()  # type: ignore[no-any-return]


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("write", [write_chexpert, write_chexpert_batches])
def test_chexpert(tmp_path: Path, write: Any) -> None:
    cohort = read_chexpert(write(tmp_path))
    assert len(cohort.classes) == 14
    assert column(cohort, "No Finding") == [1, 0, 0, 0, 0, 0]
    assert column(cohort, "Edema") == [0, -1, -1, 1, 0, 0]  # blank is 0, -1.0 stays uncertain
    assert column(cohort, "Fracture") == [0, 1, 1, 0, 0, 0]
    assert cohort.labels[5].tolist() == [0] * 14
    np.testing.assert_array_equal(cohort.clinical["age"], np.float32([68, 87, 87, 83, np.nan, 73]))
    np.testing.assert_array_equal(cohort.clinical["female"], np.float32([1, 0, 0, 0, np.nan, 0]))
    np.testing.assert_array_equal(cohort.clinical["frontal"], np.float32([1, 1, 0, 1, 1, 1]))
    assert cohort.patient is not None
    assert cohort.patient.tolist() == [f"patient{n:05d}" for n in (1, 2, 2, 2, 3, 64541)]
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train"] * 5 + ["val"]
    assert cohort.names is not None
    assert studies(cohort.names)[[1, 2, 3]].tolist() == [f"patient00002/study{n}" for n in (2, 2, 1)]
    assert cohort.images is not None
    assert [np.shape(image) for image in cohort.images] == [(8, 10)] * 6


@pytest.mark.parametrize(("uncertain", "value"), [("positive", 1), ("negative", 0), ("ignore", -1)])
def test_chexperts_uncertain_labels(tmp_path: Path, uncertain: str, value: int) -> None:
    assert column(read_chexpert(write_chexpert(tmp_path), uncertain=uncertain), "Edema") == [0, value, value, 1, 0, 0]
    with pytest.raises(SettingsError, match="'maybe'"):
        read_chexpert(tmp_path, uncertain="maybe")


def test_chexperts_views(tmp_path: Path) -> None:
    write_chexpert(tmp_path / "CheXpert-v1.0-small")  # the folder around it is as good
    counts = {view: len(read_chexpert(tmp_path, view=view)) for view in ("all", "frontal", "lateral", "ap", "pa")}
    assert counts == {"all": 6, "frontal": 5, "lateral": 1, "ap": 4, "pa": 1}
    [name] = read_chexpert(tmp_path, view="lateral").names.tolist()  # type: ignore[union-attr]
    assert name == "train/patient00002/study2/view2_lateral.jpg"
    with pytest.raises(SettingsError, match="'side'"):
        read_chexpert(tmp_path, view="side")


def test_chexpert_with_images_missing(tmp_path: Path) -> None:
    write_chexpert(tmp_path)
    (tmp_path / "train/patient00001/study1/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 5 images are not there, the first .*patient00001.study1"):
        read_chexpert(tmp_path)
    cohort = read_chexpert(tmp_path, missing="skip")
    assert column(cohort, "Edema") == [-1, -1, 1, 0, 0]
    (tmp_path / "valid.csv").unlink()
    cohort = read_chexpert(tmp_path, missing="skip")
    assert cohort.split is not None
    assert set(cohort.split) == {"train"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",Unknown,", ",Other,", r"train\.csv, line 6, column 'Sex': 'other'; known: Male, Female, Unknown"),
        (",-1.0,", ",2.0,", r"line 3, column 'Edema': '2\.0'"),
        (",Lateral,", ",Side,", "line 4, column 'Frontal/Lateral': 'side'"),
        (",83,", ",eighty,", "line 5, column 'Age': 'eighty' is no number"),
        ("patient00003/study1", "patient/study1", "line 6, column 'Path'.* is no path such as"),
        ("Pleural Other", "Pleural", r"unknown column 'Pleural Other'. Did you mean 'Pleural"),
    ],
)
def test_what_chexpert_does_not_hold_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    replace_text(write_chexpert(tmp_path) / "train.csv", old, new)
    with pytest.raises(DataError, match=message):
        read_chexpert(tmp_path)


def test_a_folder_that_is_not_the_data_sets(tmp_path: Path) -> None:
    for read, expected in (
        (read_chexpert, "train.csv and valid.csv"),
        (read_kermany, "NORMAL/ and PNEUMONIA/"),
        (read_kather, "01_TUMOR/ to 08_EMPTY/"),
        (read_nih, "images_001/ to images_012/"),
    ):
        with pytest.raises(DataError, match=f"not the folder of the data set. Expected .*{expected}"):
            read(tmp_path)
        with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected"):
            read(tmp_path / "nowhere")


def test_kermany(tmp_path: Path) -> None:
    cohort = read_kermany(write_kermany(tmp_path / "chest_xray").parent)
    assert cohort.classes == ("NORMAL", "PNEUMONIA")
    assert cohort.labels.argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert cohort.patient is not None
    assert cohort.patient.tolist() == [
        *("IM-0115", "IM-0131", "NORMAL2-IM-0383"),
        *("person1372", "person1", "person1", "person1946", "IM-0001"),
    ]
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train"] * 6 + ["val"] + ["test"]
    subtypes = read_kermany(tmp_path, labels="subtype")
    assert subtypes.classes == ("normal", "bacteria", "virus")
    assert subtypes.labels.argmax(axis=1).tolist() == [0, 0, 0, 2, 1, 2, 1, 0]
    with pytest.raises(SettingsError, match=r"'subtyp'. Did you mean 'subtype'"):
        read_kermany(tmp_path, labels="subtyp")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IM-0115-0001.jpeg", ("IM-0115", "normal")),
        ("train/NORMAL/IM-0131-0001-0002.jpeg", ("IM-0131", "normal")),
        ("NORMAL2-IM-0383-0001.jpeg", ("NORMAL2-IM-0383", "normal")),
        ("NORMAL-28501-0001.jpeg", ("NORMAL-28501", "normal")),
        ("person1_bacteria_2.jpeg", ("person1", "bacteria")),
        ("person1372_virus_2365_3.jpeg", ("person1372", "virus")),
        ("BACTERIA-7422-0001.jpeg", ("BACTERIA-7422", "bacteria")),
        ("VIRUS-3452-0002.jpeg", ("VIRUS-3452", "virus")),
    ],
)
def test_kermanys_names(name: str, expected: tuple[str, str]) -> None:
    assert parse_name(name) == expected


def test_what_kermany_does_not_hold_is_refused(tmp_path: Path) -> None:
    write_kermany(tmp_path)
    odd = write_image(tmp_path / "train" / "NORMAL" / "person7_virus_1.jpeg")
    with pytest.raises(DataError, match="a file of the kind 'virus' in that folder"):
        read_kermany(tmp_path)
    odd.rename(odd.with_name("scan.jpeg"))
    with pytest.raises(DataError, match=r"train/NORMAL/scan\.jpeg: no name such as person1_bacteria"):
        read_kermany(tmp_path)
    for image in (tmp_path / "train" / "PNEUMONIA").iterdir():
        image.unlink()
    odd.with_name("scan.jpeg").unlink()
    with pytest.raises(DataError, match="no image of virus"):
        read_kermany(tmp_path, labels="subtype")


@pytest.mark.data
def test_kermanys_real_names_give_patient_and_subtype(data_dir: Path) -> None:
    with np.load(data_dir / "kermany_cxr96.npz") as file:
        names, patients, subtypes = file["filename"], file["patient_id"], file["subtype_names"][file["subtype"]]
    parsed = [parse_name(name) for name in names]
    assert len(parsed) == 5216
    groups = np.unique(patients, return_inverse=True)[1]
    pairs = set(zip(groups.tolist(), (patient for patient, _ in parsed), strict=True))
    assert len(pairs) == len(set(groups.tolist())) == len({patient for patient, _ in parsed}) == 2846
    assert [subtype for _, subtype in parsed] == subtypes.tolist()


def test_kather(tmp_path: Path) -> None:
    cohort = read_kather(write_kather(tmp_path))
    assert cohort.labels.argmax(axis=1).tolist() == list(range(8))
    assert cohort.patient is not None
    assert cohort.patient.tolist() == [f"{n:02d}" for n in range(1, 9)]
    odd = write_image(tmp_path / "08_EMPTY" / "scan.tif")
    with pytest.raises(DataError, match=r"08_EMPTY/scan\.tif: no slide in the name"):
        read_kather(tmp_path)
    for image in odd.parent.iterdir():
        image.unlink()
    with pytest.raises(DataError, match="no image of EMPTY"):
        read_kather(tmp_path)


@pytest.mark.data
def test_kathers_real_tiles_and_names(data_dir: Path) -> None:
    cohort = read_kather(data_dir / "kather_tiles")
    assert cohort.labels.sum(axis=0).tolist() == [3] * 8
    assert cohort.names is not None
    assert cohort.patient is not None
    assert cohort.images is not None
    assert [np.shape(image) for image in cohort.images] == [(150, 150, 3)] * 24
    with np.load(data_dir / "kather2016_texture_features.npz") as file:
        names, labels, slides = file["filename"], file["labels"], file["slide"]
    assert [slide(name) for name in names] == slides.tolist()
    assert len(names) == 5000
    row = {str(name): number for number, name in enumerate(names)}
    rows = [row[name] for name in cohort.names]
    assert cohort.labels.argmax(axis=1).tolist() == labels[rows].tolist()
    assert cohort.patient.tolist() == slides[rows].tolist()


def test_nih(tmp_path: Path) -> None:
    cohort = read_nih(write_nih(tmp_path))
    assert len(cohort.classes) == 15
    assert column(cohort, "Cardiomegaly") == [1, 1, 0, 0, 0]
    assert column(cohort, "Emphysema") == [0, 1, 0, 0, 0]
    assert column(cohort, "Pleural_Thickening") == column(cohort, "Mass") == [0, 0, 0, 1, 0]
    assert column(cohort, "No Finding") == [0, 0, 1, 0, 1]
    np.testing.assert_array_equal(cohort.clinical["age"], np.float32([58, 58, 1.5, np.nan, np.nan]))
    np.testing.assert_array_equal(cohort.clinical["female"], np.float32([0, 0, 1, 1, 0]))
    np.testing.assert_array_equal(cohort.clinical["frontal"], np.float32([1, 1, 0, np.nan, 0]))
    assert cohort.patient is not None
    assert cohort.patient.tolist() == [f"{n:08d}" for n in (1, 1, 2, 3, 4)]
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert cohort.names is not None
    assert cohort.names[3] == "images_002/images/00000003_000.png"


def test_nihs_other_releases(tmp_path: Path) -> None:
    write_nih(tmp_path)
    replace_text(tmp_path / "Data_Entry_2017.csv", "Patient Gender", "Patient Sex")
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        for image in (tmp_path / f"images_{number:03d}" / "images").iterdir():
            image.rename(tmp_path / "images" / image.name)
    (tmp_path / "train_val_list.txt").unlink()
    cohort = read_nih(tmp_path)
    assert cohort.names is not None
    assert cohort.names[3] == "images/00000003_000.png"
    assert cohort.split is not None
    assert cohort.split.tolist() == ["train"] * 3 + ["test"] * 2
    (tmp_path / "test_list.txt").unlink()
    assert read_nih(tmp_path).split is None
    # The release of 2020 lies beside the first: it is the one that is read.
    replace_text(tmp_path / "Data_Entry_2017.csv", "058Y", "057Y")
    (tmp_path / "Data_Entry_2017.csv").rename(tmp_path / "Data_Entry_2017_v2020.csv")
    write_nih(tmp_path)
    assert read_nih(tmp_path).clinical["age"][0] == 57


def test_nih_with_some_of_the_archives(tmp_path: Path) -> None:
    write_nih(tmp_path)
    (tmp_path / "images_002").rename(tmp_path / "not yet")
    with pytest.raises(DataError, match="2 of 5 images are not there"):
        read_nih(tmp_path)
    cohort = read_nih(tmp_path, missing="skip")
    assert len(cohort) == 3
    assert cohort.split is not None
    assert set(cohort.split) == {"train"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("No Finding,", "No Finding|Mass,", "line 4, column 'Finding Labels': 'No Finding.Mass' is No Finding and"),
        ("|Emphysema", "|Emphysem", r"line 3, column 'Finding Labels': unknown finding 'Emphysem'. Did you mean"),
        (",058Y,", ",old,", "line 2, column 'Patient Age': 'old' is no age"),
        (",PA,", ",LL,", "line 2, column 'View Position': 'll'"),
    ],
)
def test_what_nih_does_not_hold_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    replace_text(write_nih(tmp_path) / "Data_Entry_2017.csv", old, new)
    with pytest.raises(DataError, match=message):
        read_nih(tmp_path)


def test_an_image_in_neither_of_nihs_lists_is_refused(tmp_path: Path) -> None:
    (write_nih(tmp_path) / "test_list.txt").write_text("00000003_000.png\n")
    with pytest.raises(DataError, match=r"1 images are in neither list, the first 00000004_000\.png"):
        read_nih(tmp_path)
