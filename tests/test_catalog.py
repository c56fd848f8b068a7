"""The catalogue: what it says of each data set, and how `load` finds one by name or path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import TREES, write_chexpert, write_classes, write_kermany, write_medmnist, write_nih, write_table

from activelabel.data import load
from activelabel.data.catalog import BUILT_IN, CATALOG, absolute, data_root, describe, find, folder_of, listing
from activelabel.data.readers.medmnist import SETS
from activelabel.errors import DataError, SettingsError

PUBLISHED = [name for name in CATALOG if name not in BUILT_IN]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no ACTIVELABEL_DATA."""
    monkeypatch.delenv("ACTIVELABEL_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_catalogue_holds_every_set() -> None:
    assert set(CATALOG) == {*BUILT_IN, "chexpert", "kermany", "kather2016", "nih-cxr14", *SETS}
    assert len(SETS) == 12
    assert {tree.name for tree in TREES.values() if tree.catalogued} <= set(CATALOG)


@pytest.mark.parametrize("name", CATALOG)
def test_all_of_a_set_is_known_and_described(name: str) -> None:
    entry = find(name)
    assert entry.name == name
    assert entry.title
    assert entry.images > 500
    assert len(entry.classes) > 1
    assert entry.licence not in ("", "unknown")
    assert entry.citation
    text = describe(name)
    for part in (name, entry.title, f"{entry.images:,}", *entry.classes, entry.licence, entry.citation, entry.url):
        assert part in text
    if name in PUBLISHED:
        assert entry.by_hand in text
        assert entry.url.startswith("https://")
        assert str(folder_of(entry)) in text
        assert all(option in text for option in entry.options())
    assert max(map(len, listing().splitlines())) < 130
    assert any(line.split()[0] == name for line in listing().splitlines())


@pytest.mark.parametrize("name", ["synthetic", "synthetic-3", "digits"])
def test_the_facts_of_what_is_built_in(name: str) -> None:
    cohort, entry = load(name), find(name)
    assert name in describe(name)
    assert (len(cohort), cohort.classes) == (entry.images, entry.classes)
    source = cohort.source
    assert (source.licence, source.citation, source.url) == (entry.licence, entry.citation, entry.url)


@pytest.mark.parametrize("kind", [kind for kind, tree in TREES.items() if tree.catalogued])
def test_a_set_is_read_from_its_own_folder(kind: str, tmp_path: Path) -> None:
    tree = TREES[kind]
    entry = CATALOG[tree.name]
    tree.write(tmp_path / entry.folder)
    cohort = load(tree.name, root=tmp_path, **dict(tree.options))
    assert len(cohort) == tree.rows
    assert (cohort.source.name, cohort.source.licence) == (tree.name, entry.licence)
    if not tree.options:
        assert cohort.classes == entry.classes


def test_where_data_sets_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert data_root() == home / ".cache" / "activelabel" / "data"
    write_kermany(home / ".cache" / "activelabel" / "data" / "chest_xray")
    assert len(load("kermany")) == 8
    monkeypatch.setenv("ACTIVELABEL_DATA", str(tmp_path / "sets"))
    assert data_root() == tmp_path / "sets"
    with pytest.raises(DataError, match=r"kermany is not in .*sets/chest_xray\."):
        load("kermany")
    write_kermany(tmp_path / "sets" / "chest_xray")
    assert len(load("kermany")) == 8
    assert data_root("~/x") == home / "x"


def test_where_medmnist_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write_medmnist(home / ".medmnist")
    assert len(load("pneumoniamnist")) == len(load("medmnist:pneumoniamnist")) == 9
    with pytest.raises(DataError, match=r"pneumoniamnist is not in .*/medmnist\."):
        load("pneumoniamnist", root=tmp_path)
    monkeypatch.setenv("ACTIVELABEL_DATA", str(tmp_path))
    assert len(load("pneumoniamnist")) == 9  # still the package's folder
    write_medmnist(tmp_path / "medmnist", size=64)
    assert np.shape(load("pneumoniamnist", size=64).images) == (9, 64, 64)
    assert len(load(f"pneumoniamnist:{home / '.medmnist'}")) == 9


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_has_to_be_fetched_by_hand_is_said(name: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name)
    message = str(caught.value)
    entry = CATALOG[name]
    for part in (str(folder_of(entry)), entry.by_hand, f"{name}:FOLDER", entry.licence):
        assert part in message
    with pytest.raises(DataError, match=f"{name} is not in .*nowhere"):
        load(f"{name}:nowhere")


def test_nothing_is_made_or_fetched_by_asking(home: Path) -> None:
    for name in PUBLISHED:
        with pytest.raises(DataError):
            load(name)
        describe(name)
    listing()
    assert not home.exists()


def test_options_reach_the_reader(tmp_path: Path) -> None:
    folder = write_chexpert(tmp_path / "a")
    assert len(load(f"chexpert:{folder}", view="lateral")) == 1
    assert load(f"chexpert:{folder}", uncertain="positive").labels.min() == 0
    assert load(f"kermany:{write_kermany(tmp_path / 'b')}", labels="subtype", normal="virus").normal == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chexpert", {"veiw": "frontal"}, r"unknown option of chexpert 'veiw'. Did you mean 'view'\?"),
        ("chexpert", {"labels": "Edema"}, "unknown option of chexpert 'labels'.* Known: missing, uncertain, view"),
        ("nih-cxr14", {"patient": "study"}, "unknown option of nih-cxr14 'patient'"),
        ("pathmnist", {"sizes": 64}, r"unknown option of pathmnist 'sizes'. Did you mean 'size'\?"),
        ("kather2016", {"size": 64}, "unknown option of kather2016 'size'. Known: none"),
        ("digits", {"size": 64}, "unknown option of digits 'size'"),
        ("x.npz", {"view": "frontal"}, r"unknown option of x\.npz 'view'.* Known: labels, patient"),
        ("x.csv", {"pth": "file"}, r"unknown option of x\.csv 'pth'. Did you mean 'path'\?"),
        (".", {"labels": "subtype"}, r"unknown option of \. 'labels'. Known: allow_empty, patient"),
    ],
)
def test_an_unknown_option_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(name, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chexprt", r"unknown data set 'chexprt'\. Did you mean 'chexpert'.*\.npz file, a \.csv file, or a folder"),
        ("chexprt:/data", r"unknown data set 'chexprt:/data'"),
        ("medmnist:pathmist", r"unknown MedMNIST set 'pathmist'\. Did you mean 'pathmnist'"),
        ("medmnist:organmnist3d", "organmnist3d holds volumes; only the 2-D sets are read"),
        ("digits:folder", "unknown data set 'digits:folder'"),
    ],
)
def test_an_unknown_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)
    with pytest.raises(DataError, match="unknown data set"):
        describe(name)


@pytest.mark.parametrize("name", ["9" * 5000, "~nobody-of-that-name/x"])
@pytest.mark.parametrize("form", ["{}", "{}.npz", "{}.csv", "kermany:{}"])
def test_a_name_that_no_file_can_have_is_refused(form: str, name: str) -> None:
    name = form.format(name)
    assert absolute(name).removeprefix("kermany:").endswith(name.removeprefix("kermany:"))
    with pytest.raises(DataError):
        load(name)


@pytest.mark.parametrize("name", ["a\0b", "a\0b.npz", "a\0b.csv", "kermany:a\0b"])
@pytest.mark.parametrize("used", [load, absolute])
def test_a_name_with_a_nul_is_refused(used: Callable[[str], object], name: str) -> None:
    with pytest.raises(SettingsError, match=r"a\\x00b.* has a NUL"):
        used(name)


def test_a_path_is_read_by_what_it_is(tmp_path: Path) -> None:
    assert load(write_classes(tmp_path / "scans")).source.name == "scans"
    assert load(write_table(tmp_path / "table"), path="file", label="finding").source.name == "list"
    np.savez(tmp_path / "c.npz", features=np.ones((2, 3)), labels=np.array([0, 1]))
    assert load(tmp_path / "c.npz").source.name == "c"
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(DataError, match=r"notes\.txt: not a cohort\. Give an \.npz file, a \.csv file, or a folder"):
        load(tmp_path / "notes.txt")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data: no class folders.*NAME:FOLDER"):
        load(tmp_path / "data")


def test_a_cohort_of_images_says_how_to_embed_it(tmp_path: Path) -> None:
    cohort = load(f"nih-cxr14:{write_nih(tmp_path)}").with_normal("Mass")
    assert cohort.classes[cohort.normal or 0] == "Mass"
    assert "Mass" not in cohort.conditions()
    with pytest.raises(DataError, match=r"activelabel\.data embed"):
        cohort.embedded()


def test_a_name_can_be_made_to_mean_the_same_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "digits").mkdir()  # a name of the catalogue stays one
    assert absolute("digits") == "digits"
    (tmp_path / "synthetic-2").mkdir()
    assert absolute("synthetic-2") == "synthetic-2"
    assert absolute("") == ""  # a preset without its data
    assert absolute("scans") == str(tmp_path / "scans")
    assert absolute("kermany:scans") == f"kermany:{tmp_path / 'scans'}"
    assert absolute("medmnist:bloodmnist") == "medmnist:bloodmnist"
    assert absolute("nowhere.npz") == "nowhere.npz"
