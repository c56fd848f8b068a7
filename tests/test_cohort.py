"""What a cohort refuses, and that nothing is lost on the way to a file and back."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from activelabel import Cohort, load
from activelabel.data import CLINICAL, Source
from activelabel.data.catalog import BUILT_IN
from activelabel.data.cohort import NORMAL_NAMES, guess_normal
from activelabel.errors import ActiveLabelError, DataError, SettingsError


def tiny(**changes: Any) -> Cohort:
    values: dict[str, Any] = {
        "labels": np.array([[1, 0], [0, 1], [-1, 0]], np.int8),
        "classes": ("Edema", "No Finding"),
        "features": np.arange(6, dtype=np.float32).reshape(3, 2),
        "source": Source(name="tiny"),
    }
    return Cohort(**{**values, **changes})


def with_value(value: float) -> np.ndarray:
    features = np.zeros((3, 2), np.float32)
    features[1, 0] = value
    return features


REFUSALS = {
    "NaN": ({"features": with_value(np.nan)}, r"features has 1 values.*\(nan\) in row 1, column 0"),
    "inf": ({"features": with_value(np.inf)}, r"features has 1 values.*\(inf\) in row 1, column 0"),
    "-inf": ({"features": with_value(-np.inf)}, r"\(-inf\) in row 1, column 0"),
    "fewer features": ({"features": np.zeros((2, 4), np.float32)}, "features has 2 rows but labels has 3"),
    "flat features": ({"features": np.zeros(3, np.float32)}, r"features must be \(n, d\).*\(3,\)"),
    "no columns": ({"features": np.zeros((3, 0), np.float32)}, r"d > 0, got \(3, 0\)"),
    "no data": ({"features": None}, "needs features or images"),
    "more images": ({"images": np.zeros((4, 2, 2), np.uint8)}, "images has 4 rows but labels has 3"),
    "fewer patients": ({"patient": np.zeros(1)}, "patient has 1 rows but labels has 3"),
    "label value": ({"labels": np.array([[1, 0], [0, 7], [0, 0]], np.int8)}, "label 7 in row 1 of class 'No Finding'"),
    "label below": ({"labels": np.array([[1, 0], [0, 0], [-2, 0]], np.int8)}, "label -2 in row 2 of class 'Edema'"),
    "flat labels": ({"labels": np.zeros(3, np.int8)}, r"labels must be .* got \(3,\)"),
    "no rows": ({"labels": np.zeros((0, 2), np.int8)}, r"n > 0, got \(0, 2\)"),
    "class names": ({"classes": ("Edema",)}, "2 label columns but 1 class names"),
    "same names": ({"classes": ("Edema", "Edema")}, "not unique: Edema, Edema"),
    "normal": ({"normal": 2}, "normal=2 is not the index of one of 2 classes"),
    "normal below": ({"normal": -1}, "normal=-1 is not"),
    "clinical name": ({"clinical": {"ages": np.zeros(3, np.float32)}}, "'ages'.*Did you mean 'age'"),
    "clinical rows": ({"clinical": {"age": np.zeros(2, np.float32)}}, "age has 2 rows but labels has 3"),
    "clinical inf": ({"clinical": {"age": np.array([1, np.inf, 2], np.float32)}}, "age has infinite values"),
    "clinical flag": ({"clinical": {"female": np.array([0, 2, 1], np.float32)}}, "female"),
    "split name": ({"split": np.array(["train", "test", "dev"])}, r"split has \['dev'\]"),
    "split rows": ({"split": np.array(["train"])}, "split has 1 rows but labels has 3"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_data_is_refused_by_name(case: str) -> None:
    changes, message = REFUSALS[case]
    with pytest.raises(DataError, match=f"^tiny: .*{message}"):
        tiny(**changes)


def test_every_refusal_is_a_value_error() -> None:
    assert issubclass(DataError, ActiveLabelError)
    assert issubclass(ActiveLabelError, ValueError)


def test_a_good_cohort_is_accepted_and_has_its_length() -> None:
    cohort = tiny()
    assert len(cohort) == 3
    assert cohort.embedded() is cohort.features


def test_unknown_class_is_named_with_the_closest_match() -> None:
    with pytest.raises(DataError, match=r"unknown class 'Edma'.*Did you mean 'Edema'"):
        tiny().class_index("Edma")
    with pytest.raises(DataError, match="unknown class 'Edma'"):
        tiny().with_normal("Edma")


def test_with_normal_changes_the_normal_class_alone() -> None:
    before = tiny(normal=0)
    after = before.with_normal("No Finding")
    assert (before.normal, after.normal) == (0, 1)
    assert after.conditions() == ("Edema",)
    assert after.labels is before.labels
    assert after.features is before.features


def test_conditions_are_all_classes_where_none_is_normal() -> None:
    assert tiny().conditions() == ("Edema", "No Finding")


def test_prevalence_counts_certain_positives() -> None:
    assert tiny().prevalence("Edema") == pytest.approx(1 / 3)


def test_clinical_matrix_has_its_columns_in_order_and_nan_for_missing() -> None:
    age = np.array([30, np.nan, 50], np.float32)
    frontal = np.array([1, 0, 1], np.float32)
    matrix = tiny(clinical={"frontal": frontal, "age": age}).clinical_matrix()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix[:, CLINICAL.index("age")], age)
    np.testing.assert_array_equal(matrix[:, CLINICAL.index("frontal")], frontal)
    assert np.isnan(matrix[:, CLINICAL.index("female")]).all()


def test_clinical_matrix_of_a_cohort_without_any_is_nan() -> None:
    matrix = tiny().clinical_matrix()
    assert matrix.shape == (3, 3)
    assert np.isnan(matrix).all()


def test_with_pixels_flattens_and_scales() -> None:
    images = np.array([[[0, 255]], [[51, 0]], [[255, 102]]], np.uint8)
    cohort = tiny(features=None, images=images).with_pixels()
    np.testing.assert_allclose(cohort.embedded(), [[0, 1], [0.2, 0], [1, 0.4]], rtol=1e-6)
    assert cohort.embedded().dtype == np.float32
    assert cohort.source.backbone == "pixels"


def test_with_pixels_needs_images_of_one_size() -> None:
    with pytest.raises(DataError, match="has no images"):
        tiny().with_pixels()
    images = [np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8)]
    with pytest.raises(DataError, match="images of 2 sizes"):
        tiny(features=None, images=images).with_pixels()


def test_images_alone_have_no_embedding() -> None:
    with pytest.raises(DataError, match=r"images but no features.*with_pixels\(\)"):
        tiny(features=None, images=np.zeros((3, 2, 2), np.uint8)).embedded()


def test_deepcopy_shares_the_arrays() -> None:
    # gym.make deep-copies its arguments: a cohort of gigabytes must not be copied for every env.
    cohort = tiny()
    assert copy.deepcopy(cohort) is cohort
    spec = gym.spec("SelectiveLabel-v0")
    assert copy.deepcopy({"cohort": cohort, "spec": spec})["cohort"].features is cohort.features


def test_a_cohort_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().normal = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", NORMAL_NAMES)
def test_the_normal_class_is_guessed_by_name(name: str) -> None:
    assert guess_normal(("Edema", name.upper())) == 1
    assert guess_normal(("Edema", f"not {name}")) is None


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    n = draw(st.integers(1, 6))
    classes = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    finite = st.floats(-1e6, 1e6, width=32)
    clinical = {
        key: draw(hnp.arrays(np.float32, n, elements=st.sampled_from([np.nan, 0, 1, *([2, 71.5] * (key == "age"))])))
        for key in draw(st.lists(st.sampled_from(CLINICAL), unique=True))
    }
    size = draw(st.sampled_from([(2, 3), (3, 2, 3), (1, 1)]))
    kinds = draw(st.sampled_from([("features",), ("images",), ("features", "images")]))
    patient = draw(st.sampled_from([None, np.int64, np.dtype("<U3"), np.float64]))
    split = draw(st.one_of(st.none(), st.lists(st.sampled_from(["train", "val", "test"]), min_size=n, max_size=n)))
    return Cohort(
        labels=draw(hnp.arrays(np.int8, (n, len(classes)), elements=st.integers(-1, 1))),
        classes=tuple(classes),
        features=draw(hnp.arrays(np.float32, (n, draw(st.integers(1, 5))), elements=finite))
        if "features" in kinds
        else None,
        images=draw(hnp.arrays(np.uint8, (n, *size))) if "images" in kinds else None,
        normal=draw(st.one_of(st.none(), st.integers(0, len(classes) - 1))),
        clinical=clinical,
        patient=None if patient is None else np.arange(n).astype(patient),
        split=None if split is None else np.array(split),
        source=Source(*(draw(st.text(st.characters(codec="utf-8"), max_size=6)) for _ in dataclasses.fields(Source))),
    )


@given(cohort=cohorts())
def test_save_and_load_keep_everything(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort) -> None:
    path = tmp_path_factory.mktemp("cohort") / "c.npz"
    cohort.save(path)
    back = load(path)
    for field in ("labels", "features", "images", "patient", "split"):
        before, after = getattr(cohort, field), getattr(back, field)
        assert (before is None) == (after is None), field
        if before is not None:
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after, err_msg=field)
    assert back.classes == cohort.classes
    # Without a stored normal class the reader guesses by name, as it does for any file.
    assert back.normal == (guess_normal(cohort.classes) if cohort.normal is None else cohort.normal)
    assert back.source == cohort.source
    assert set(back.clinical) == set(cohort.clinical)
    for key in cohort.clinical:
        np.testing.assert_array_equal(back.clinical[key], cohort.clinical[key])


def test_object_arrays_cannot_be_saved(tmp_path: Path) -> None:
    cohort = tiny(patient=np.array(["a", 1, None], dtype=object))
    with pytest.raises(DataError, match="patient_id cannot be saved without pickling"):
        cohort.save(tmp_path / "c.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_cohorts_load_by_name(name: str) -> None:
    cohort = load(name)
    assert name.startswith(cohort.source.name)  # sizes of one set share its name
    assert cohort.normal is not None
    assert len(cohort.embedded()) == len(cohort)
    assert load(name, normal=cohort.classes[1]).normal == 1
    with pytest.raises(SettingsError, match="built in"):
        load(name, labels="subtype")
    with pytest.raises(SettingsError, match="built in"):
        load(name, patient="slide")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'sinthetic'.*Did you mean 'synthetic'.*\.npz"):
        load("sinthetic")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(DataError, match=r"x\.csv: no rows"):
        load(tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        load(tmp_path / "nowhere.npz")
