"""The real images of ``../shared/data``: they load, split by patient, and their known traps are reported."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from activelabel import Cohort, load
from activelabel.data import SPLITS, TaskSampler, split_cohort
from activelabel.errors import DataError, DuplicateImagesWarning

pytestmark = pytest.mark.data

NIH = 15
KATHER = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")

FILES: dict[str, dict[str, Any]] = {
    "kermany_cxr96": {"n": 5216, "classes": 2, "normal": "NORMAL", "dim": None, "patients": 2846},
    "kermany_cxr96_efflite0": {"n": 5216, "classes": 2, "normal": "NORMAL", "dim": 1280, "patients": 2846},
    "kather2016_texture_features": {"n": 5000, "classes": 8, "normal": None, "dim": 84, "patients": None},
    "nih_cxr14_subset64": {"n": 1993, "classes": NIH, "normal": "No Finding", "dim": None, "patients": 940},
    "nih_cxr14_subset64_efflite0": {"n": 1993, "classes": NIH, "normal": "No Finding", "dim": 1280, "patients": 940},
    "pneumoniamnist_union28": {"n": 5856, "classes": 2, "normal": "normal", "dim": None, "patients": None},
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_cohort(data_dir: Path, name: str) -> None:
    expected = FILES[name]
    cohort = load(data_dir / f"{name}.npz")
    assert len(cohort) == expected["n"]
    assert len(cohort.classes) == expected["classes"]
    assert (None if cohort.normal is None else cohort.classes[cohort.normal]) == expected["normal"]
    assert (None if cohort.features is None else cohort.features.shape[1]) == expected["dim"]
    assert (cohort.features is None) == (cohort.images is not None)
    patients = None if cohort.patient is None else len(np.unique(cohort.patient))
    assert patients == expected["patients"]


def test_the_labels_are_counted_as_documented(data_dir: Path) -> None:
    kermany = load(data_dir / "kermany_cxr96_efflite0.npz")
    assert kermany.labels.sum(axis=0).tolist() == [1341, 3875]
    subtype = load(data_dir / "kermany_cxr96_efflite0.npz", labels="subtype")
    assert subtype.classes == ("normal", "bacteria", "virus")
    assert subtype.labels.sum(axis=0).tolist() == [1341, 2530, 1345]
    assert subtype.normal == 0
    kather = load(data_dir / "kather2016_texture_features.npz", normal="MUCOSA")
    assert kather.classes == KATHER
    assert kather.labels.sum(axis=0).tolist() == [625] * 8
    assert kather.classes[kather.normal or 0] == "MUCOSA"
    nih = load(data_dir / "nih_cxr14_subset64_efflite0.npz")
    counts = dict(zip(nih.classes, nih.labels.sum(axis=0, dtype=int).tolist(), strict=True))
    known = {"Infiltration": 346, "Effusion": 257, "Atelectasis": 207, "Edema": 125, "Cardiomegaly": 97}
    assert {name: counts[name] for name in known} == known
    assert (counts["Consolidation"], counts["Pneumonia"], counts["No Finding"]) == (75, 504, 999)


def test_the_clinical_variables_of_nih(data_dir: Path) -> None:
    path = data_dir / "nih_cxr14_subset64_efflite0.npz"
    cohort = load(path)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(cohort.clinical["age"], arrays["age"])
        np.testing.assert_array_equal(cohort.clinical["female"], arrays["sex"] == "F")
        # All views are frontal: PA or AP is all that the file tells.
        np.testing.assert_array_equal(cohort.clinical["frontal"], arrays["view"] == "PA")
    assert not np.isnan(cohort.clinical_matrix()).any()


GROUPED = {
    "kermany_cxr96_efflite0": None,
    "nih_cxr14_subset64_efflite0": None,
    "kather2016_texture_features": "slide",
}


@pytest.mark.parametrize("name", GROUPED)
def test_no_patient_or_slide_stands_in_two_parts(data_dir: Path, name: str) -> None:
    cohort = load(data_dir / f"{name}.npz", patient=GROUPED[name])
    assert cohort.patient is not None
    for seed in range(3):
        with warnings.catch_warnings():
            # Exact duplicates of another patient are another matter, reported as such.
            warnings.simplefilter("ignore", DuplicateImagesWarning)
            splits = split_cohort(cohort, seed=seed)
        parts = [set(cohort.patient[splits.rows(part)].tolist()) for part in SPLITS]
        assert sum(len(part) for part in parts) == len(set(cohort.patient.tolist()))
        assert sum(len(splits.rows(part)) for part in SPLITS) == len(cohort)
        # Ten slides split coarsely; thousands of patients do not.
        assert len(splits.train) / len(cohort) == pytest.approx(0.7, abs=0.1 if GROUPED[name] else 0.01)


def test_the_published_split_of_pneumoniamnist_has_duplicates(data_dir: Path) -> None:
    cohort = load(data_dir / "pneumoniamnist_union28.npz")
    with pytest.warns(DuplicateImagesWarning, match="8 images of the val or test part are identical"):
        splits = split_cohort(cohort, published=True)
    assert [len(splits.rows(part)) for part in SPLITS] == [4708, 524, 624]


@pytest.mark.filterwarnings("ignore::activelabel.errors.DuplicateImagesWarning")
def test_images_alone_need_an_embedding_or_their_pixels(data_dir: Path) -> None:
    path = data_dir / "pneumoniamnist_union28.npz"
    sizes: dict[str, Any] = {"k": 4, "pool": 40, "query": 20, "device": "cpu"}
    with pytest.raises(DataError, match=r"pneumoniamnist_union28 has images but no features.*with_pixels\(\)"):
        gym.make("SelectiveLabel-v0", cohort=str(path), **sizes)
    pixels = load(path).with_pixels()
    assert pixels.embedded().shape == (5856, 28 * 28)
    assert pixels.embedded().max() == 1
    env = gym.make("SelectiveLabel-v0", cohort=pixels, fractions="published", **sizes)
    _, info = env.reset(seed=0)
    assert info["condition"] == "pneumonia"
    assert 0 <= env.step(np.arange(4))[1] <= 1


def test_rare_conditions_of_nih_are_too_few_for_a_pool_of_1000(data_dir: Path) -> None:
    cohort = load(data_dir / "nih_cxr14_subset64_efflite0.npz")
    with pytest.raises(DataError) as refusal:
        TaskSampler(cohort, ("Edema", "Cardiomegaly", "Infiltration"), pool=1000, query=100)
    message = str(refusal.value)
    assert "'Edema' has 125 positive images and needs 550" in message
    assert "'Cardiomegaly' has 97 positive images and needs 550" in message
    assert "'Infiltration' has 346 positive images and needs 550" in message
    with pytest.raises(DataError, match="'Edema' has"):
        gym.make("SelectiveLabel-v0", cohort=cohort, conditions=["Edema"], pool=1000)
    # By default a condition of less than 5 % is not drawn at all.
    common = TaskSampler(cohort, pool=40, query=20).conditions
    assert "Edema" in common
    assert not {"Consolidation", "Cardiomegaly", "Hernia"} & set(common)


def play_random(cohort: Cohort, conditions: list[str], **sizes: Any) -> float:
    """Mean reward of the random selector over 64 tasks."""
    env = gym.make_vec("SelectiveLabel-v0", num_envs=64, cohort=cohort, conditions=conditions, device="cpu", **sizes)
    env.reset(seed=0)
    n, k = sizes["pool"], sizes["k"]
    rng = np.random.default_rng(0)
    _, rewards, _, _, info = env.step(np.stack([rng.permutation(n)[:k] for _ in range(64)]))
    assert abs(info["final_info"]["random_reward"].mean() - rewards.mean()) < 0.1
    return float(rewards.mean())


def test_random_selections_score_about_as_measured(data_dir: Path) -> None:
    # The data's README: .891 on five histology classes at pool 200, K = 10; bacteria are easy, .95.
    kather = load(data_dir / "kather2016_texture_features.npz", normal="MUCOSA")
    five = ["TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS"]
    assert play_random(kather, five, k=10, pool=60, query=40, split="test") == pytest.approx(0.89, abs=0.04)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DuplicateImagesWarning)
        kermany = load(data_dir / "kermany_cxr96_efflite0.npz", labels="subtype")
        assert play_random(kermany, ["bacteria"], k=10, pool=100, query=40) == pytest.approx(0.95, abs=0.04)
