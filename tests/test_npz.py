"""The npz format: what is read from it, what is refused, and that writing never harms the old file."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activelabel import Cohort, load
from activelabel.errors import DataError
from activelabel.files import atomic_path, write_text

BASE: dict[str, Any] = {"features": np.arange(6, dtype=np.float32).reshape(3, 2), "labels": np.array([0, 1, 0])}


def read(folder: Path, labels_of: str = "labels", **arrays: Any) -> Cohort:
    path = folder / "c.npz"
    np.savez(path, **{k: v for k, v in {**BASE, **arrays}.items() if v is not None})
    return load(path, labels=labels_of)


def one_hot(cohort: Cohort) -> list[list[int]]:
    return cohort.labels.tolist()  # type: ignore[no-any-return]


def test_the_least_that_a_file_holds(tmp_path: Path) -> None:
    cohort = read(tmp_path)
    np.testing.assert_array_equal(cohort.embedded(), BASE["features"])
    assert cohort.classes == ("class 0", "class 1")
    assert one_hot(cohort) == [[1, 0], [0, 1], [1, 0]]
    assert cohort.labels.dtype == np.int8
    assert (cohort.normal, cohort.patient, cohort.split, cohort.clinical) == (None, None, None, {})
    assert cohort.source.name == "c"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.bool_])
def test_features_of_any_number_type_become_float32(tmp_path: Path, dtype: Any) -> None:
    array = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    cohort = read(tmp_path, features=array)
    assert cohort.embedded().dtype == np.float32
    np.testing.assert_array_equal(cohort.embedded(), array.astype(np.float32))


def test_embeddings_is_another_name_of_features(tmp_path: Path) -> None:
    embeddings = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(read(tmp_path, features=None, embeddings=embeddings).embedded(), embeddings)


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 2, 4, 1), (3, 2, 4, 3)])
def test_images_alone_are_enough(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    cohort = read(tmp_path, features=None, images=images)
    assert cohort.features is None
    np.testing.assert_array_equal(np.asarray(cohort.images), images)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_labels_as_integers_with_names(tmp_path: Path, dtype: Any) -> None:
    cohort = read(tmp_path, labels=np.array([0, 1, 0], dtype), label_names=np.array(["Normal", "Edema"]))
    assert cohort.classes == ("Normal", "Edema")
    assert one_hot(cohort) == [[1, 0], [0, 1], [1, 0]]
    assert cohort.normal == 0


def test_labels_as_strings_with_and_without_names(tmp_path: Path) -> None:
    text = np.array(["tumor", "normal", "tumor"])
    cohort = read(tmp_path, labels=text)
    assert cohort.classes == ("normal", "tumor")
    assert one_hot(cohort) == [[0, 1], [1, 0], [0, 1]]
    named = read(tmp_path, labels=text, label_names=np.array(["tumor", "stroma", "normal"]))
    assert named.classes == ("tumor", "stroma", "normal")
    assert one_hot(named) == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_labels_as_a_matrix_keep_uncertain_ones(tmp_path: Path) -> None:
    matrix = np.array([[1, -1], [0, 1], [0, 0]])
    cohort = read(tmp_path, labels=matrix, label_names=np.array(["Edema", "Pneumonia"]))
    assert one_hot(cohort) == matrix.tolist()
    assert read(tmp_path, labels=matrix).classes == ("class 0", "class 1")


def test_another_label_array_by_name(tmp_path: Path) -> None:
    arrays = {
        "label_names": np.array(["sick", "healthy"]),
        "subtype": np.array([2, 0, 1]),
        "subtype_names": np.array(["normal", "bacteria", "virus"]),
    }
    cohort = read(tmp_path, labels_of="subtype", **arrays)
    assert cohort.classes == ("normal", "bacteria", "virus")
    assert one_hot(cohort) == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert cohort.normal == 0
    del arrays["subtype_names"]
    assert read(tmp_path, labels_of="subtype", **arrays).classes == ("class 0", "class 1", "class 2")


def test_another_label_array_stands_alone(tmp_path: Path) -> None:
    arrays = {"subtype": np.array(["virus", "normal", "virus"]), "age": np.array([1, 2, 3])}
    cohort = read(tmp_path, labels_of="subtype", labels=None, **arrays)
    assert cohort.classes == ("normal", "virus")
    assert cohort.clinical["age"].tolist() == [1, 2, 3]


def test_no_finding_becomes_the_normal_class(tmp_path: Path) -> None:
    matrix = np.array([[1], [0], [0]])
    cohort = read(tmp_path, labels=matrix, label_names=np.array(["Edema"]), no_finding=np.array([0, 1, 1]))
    assert cohort.classes == ("Edema", "No Finding")
    assert cohort.normal == 1
    assert one_hot(cohort) == [[1, 0], [0, 1], [0, 1]]


def test_the_normal_class_of_the_file_and_of_the_caller(tmp_path: Path) -> None:
    names = np.array(["Normal", "Mucosa"])
    path = tmp_path / "c.npz"
    np.savez(path, **BASE, label_names=names, normal=np.array("Mucosa"))
    assert load(path).normal == 1
    assert load(path, normal="Normal").normal == 0
    with pytest.raises(DataError, match=r"unknown class 'Mukosa'.*Did you mean 'Mucosa'"):
        load(path, normal="Mukosa")


def test_sex_is_text_or_numbers(tmp_path: Path) -> None:
    expected = [1, 0, np.nan]
    for sex in (np.array(["F", "male", ""]), np.array(["female", "m", "unknown"]), np.array([1.0, 0.0, np.nan])):
        np.testing.assert_array_equal(read(tmp_path, sex=sex).clinical["female"], expected)
    np.testing.assert_array_equal(read(tmp_path, female=np.array([1, 0, 1])).clinical["female"], [1, 0, 1])
    np.testing.assert_array_equal(read(tmp_path, female=np.array(["F", "M", "F"])).clinical["female"], [1, 0, 1])
    with pytest.raises(DataError, match="sex has 'Q'"):
        read(tmp_path, sex=np.array(["F", "Q", "M"]))
    with pytest.raises(DataError, match="sex as numbers"):
        read(tmp_path, sex=np.array([0, 1, 2]))


def test_ap_is_frontal_where_lateral_views_exist_and_not_where_none_do(tmp_path: Path) -> None:
    view = read(tmp_path, view=np.array(["PA", "AP", "PA"])).clinical["frontal"]
    np.testing.assert_array_equal(view, [1, 0, 1])
    view = read(tmp_path, view=np.array(["PA", "AP", "LATERAL"])).clinical["frontal"]
    np.testing.assert_array_equal(view, [1, 1, 0])
    view = read(tmp_path, view=np.array(["Frontal", "", "LL"])).clinical["frontal"]
    np.testing.assert_array_equal(view, [1, np.nan, 0])
    with pytest.raises(DataError, match="view has 'oblique'"):
        read(tmp_path, view=np.array(["PA", "oblique", "PA"]))


def test_age_in_years_with_missing_values(tmp_path: Path) -> None:
    age = read(tmp_path, age=np.array([30, np.nan, 71])).clinical["age"]
    assert age.dtype == np.float32
    np.testing.assert_array_equal(age, [30, np.nan, 71])
    with pytest.raises(DataError, match=r"age is .*one number for each of the 3 rows"):
        read(tmp_path, age=np.array(["30", "40", "50"]))


def test_the_published_split_as_text_or_numbers(tmp_path: Path) -> None:
    split = np.array(["train", "val", "test"])
    assert read(tmp_path, split=split).split.tolist() == split.tolist()  # type: ignore[union-attr]
    coded = read(tmp_path, split=np.array([2, 0, 1]), split_names=split)
    assert coded.split.tolist() == ["test", "train", "val"]  # type: ignore[union-attr]
    for bad in (np.array([0, 1, 3]), np.array([-1, 0, 1])):
        with pytest.raises(DataError, match="split must be text, or numbers that index split_names"):
            read(tmp_path, split=bad, split_names=split)
    with pytest.raises(DataError, match="split must be"):
        read(tmp_path, split=np.array([0, 1, 2]))
    with pytest.raises(DataError, match=r"split has \['dev'\]"):
        read(tmp_path, split=np.array(["train", "dev", "test"]))


def test_the_patient_array_is_patient_id_or_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, **BASE, patient_id=np.array(["a", "b", "a"]), slide=np.array([7, 7, 8]))
    assert load(path).patient.tolist() == ["a", "b", "a"]  # type: ignore[union-attr]
    assert load(path, patient="slide").patient.tolist() == [7, 7, 8]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"unknown array 'slides'.*Did you mean 'slide'"):
        load(path, patient="slides")


def test_the_source_is_kept_and_a_foreign_array_of_that_name_ignored(tmp_path: Path) -> None:
    stored = np.array(json.dumps({"name": "set", "licence": "CC0", "extra": 1}))
    source = read(tmp_path, source=stored).source
    assert (source.name, source.licence, source.url) == ("set", "CC0", "")
    assert read(tmp_path, source=np.array(["scanner a", "scanner b", "scanner a"])).source.name == "c"
    with pytest.raises(DataError, match="source is not the JSON"):
        read(tmp_path, source=np.array("{name:"))


REFUSALS = {
    "no labels": ({"labels": None, "label": np.array([0, 1, 0])}, "unknown array 'labels'.*Did you mean 'label'"),
    "no data": ({"features": None}, "neither 'features', 'embeddings' nor 'images', but labels"),
    "above": (
        {"labels": np.array([0, 1, 2]), "label_names": np.array(["a", "b"])},
        r"labels\[2\] = 2 is none of the 2",
    ),
    "below": ({"labels": np.array([0, -1, 1])}, r"labels\[1\] = -1 is none"),
    "unnamed": ({"labels": np.array(["a", "c", "a"]), "label_names": np.array(["a", "b"])}, r"labels\[1\] = c is none"),
    "float": ({"labels": np.array([0.0, 1.0, 0.5])}, "labels has dtype float64"),
    "matrix": ({"labels": np.array([[0.5], [1], [0]])}, "labels must hold 1, 0 and -1"),
    "nan": ({"labels": np.array([[np.nan], [1], [0]])}, "labels must hold 1, 0 and -1"),
    "cube": ({"labels": np.zeros((3, 2, 2), int)}, r"labels must be .* got \(3, 2, 2\)"),
    "no finding": ({"labels": np.zeros((3, 1), int), "no_finding": np.array([0, 1, 2])}, "no_finding must hold"),
    "text features": ({"features": np.array([["a"], ["b"], ["c"]])}, "features have dtype"),
    "complex": ({"features": np.zeros((3, 2), complex)}, "features have dtype complex128, not numbers"),
    "rows": ({"features": np.zeros((4, 2))}, "features has 4 rows but labels has 3"),
    "float images": ({"images": np.zeros((3, 2, 2))}, r"images must be uint8 .* got float64 \(3, 2, 2\)"),
    "flat images": ({"images": np.zeros((3, 4), np.uint8)}, r"images must be uint8 .* got uint8 \(3, 4\)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_of_the_format_is_refused_by_name(tmp_path: Path, case: str) -> None:
    arrays, message = REFUSALS[case]
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


MALFORMED = {
    "label_names 0-d": {"label_names": np.array("x")},
    "split 0-d": {"split": np.array("train")},
    "split_names 0-d": {"split": np.array([0, 0, 0]), "split_names": np.array("train")},
    "patient_id 0-d": {"patient_id": np.array(3)},
    "age 0-d": {"age": np.array(3.0)},
    "age 2-d": {"age": np.zeros((3, 1))},
    "split 2-d": {"split": np.array([["train"]] * 3)},
    "no_finding length": {"no_finding": np.zeros(2, int)},
    "female 7": {"female": np.array([7, 1, 0])},
    "sex bytes": {"sex": np.array([b"\xff", b"F", b"M"])},
    "huge features": {"features": np.full((3, 2), 1e300)},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_arrays_are_data_errors(tmp_path: Path, case: str) -> None:
    with pytest.raises(DataError):
        read(tmp_path, **MALFORMED[case])


def test_names_stored_as_bytes_are_text(tmp_path: Path) -> None:
    cohort = read(tmp_path, label_names=np.array([b"normal", b"edema"]))
    assert cohort.classes == ("normal", "edema")
    assert cohort.normal == 0


def test_object_arrays_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.npz: not a readable npz file .*object arrays"):
        read(tmp_path, patient_id=np.array(["a", 1, None], dtype=object))


def test_a_bare_array_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(DataError, match="one bare array; save a cohort with"):
        load(path)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"folder\.npz"):
        load(tmp_path / "folder.npz")


def small_file() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **BASE, label_names=np.array(["normal", "edema"]), age=np.array([1, 2, 3]))
    return stream.getvalue()


SMALL = small_file()


def refusal(path: Path, content: bytes) -> str | None:
    """The message that a file with this content is refused with, or None where it is read."""
    path.write_bytes(content)
    message = None
    # A file left open would be reported in whichever test runs next; it has a test of its own below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            load(path)
        except DataError as error:
            message = str(error)
    return message


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    message = refusal(tmp_path / "t.npz", SMALL[: int(share * len(SMALL))])
    assert message is not None
    assert "t.npz: not a readable npz file" in message


@given(length=st.integers(0, len(SMALL) - 1))
def test_no_truncation_is_readable(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    assert refusal(tmp_path_factory.getbasetemp() / "t.npz", SMALL[:length]) is not None


def encrypted_flag(archive: bytes) -> tuple[int, int]:
    # Bit 0 of the flags in the first entry of the zip's central directory says that the entry is encrypted.
    return archive.index(b"PK\x01\x02") + 8, 1


@given(flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example(flips=[encrypted_flag(SMALL)])
def test_flipped_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(SMALL)
    for position, value in flips:
        content[position] ^= value
    message = refusal(tmp_path_factory.getbasetemp() / "f.npz", bytes(content))
    # Reading may succeed, where the flip is in a field that nothing depends on; no other exception may escape.
    assert message is None or "f.npz" in message or message.startswith("f:")


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(SMALL[:100])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError):
            load(path)
    assert [str(w.message) for w in caught] == []


def test_a_failing_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    read(tmp_path).save(path)
    before = path.read_bytes()

    def write_half() -> None:
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".npz"
            assert temporary.parent == path.parent
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_replaces_the_old_file_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "text.txt"
    write_text(path, "old")
    with path.open(encoding="utf-8") as reader:
        write_text(path, "néw")
        # Who had the old file open reads it to its end: the new one took its name, not its place on the disk.
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "néw"
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert path.stat().st_mode == plain.stat().st_mode
    assert os.listdir(path.parent) == ["text.txt"]
