"""Arrays that follow from features: kept in a folder and mapped, or in memory, with the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from activelabel.data import Cohort, Standardizer, derived
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, SelectiveLabelEngine, SelectiveLabelSettings


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "ROWS", 7)


def test_moments_are_those_of_the_whole_array() -> None:
    rng = np.random.default_rng(0)
    features = (5 + rng.normal(size=(300, 150)) * rng.uniform(0.1, 9, 150)).astype(np.float32)
    features[:, 70] = 3
    cohort = Cohort(np.ones((300, 1), np.int8), ("a",), features)
    rows = np.sort(rng.choice(300, 211, replace=False))
    found, taken = Standardizer.fit(cohort, rows), features[rows].astype(np.float64)
    scale = taken.std(axis=0)
    np.testing.assert_array_equal(found.mean, taken.mean(axis=0).astype(np.float32))
    np.testing.assert_array_equal(found.scale, np.where(scale > 1e-8, scale, 1).astype(np.float32))
    np.testing.assert_array_equal(found.features(features), (features - found.mean) / found.scale)
    assert derived.largest(features) == np.abs(features).max()


def test_selective_engine_maps_one_copy(cohort: Cohort, tmp_path: Path) -> None:
    settings = SelectiveLabelSettings(pool=20, query=12, k=4)
    alone = SelectiveLabelEngine(cohort, settings, device="cpu")
    shared = [SelectiveLabelEngine(replace(cohort, scratch=tmp_path), settings, device="cpu") for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 1
    for engine in shared:
        np.testing.assert_array_equal(engine.features.numpy(), alone.features.numpy())
    shared[0].features[0, 0] += 1  # copy-on-write: nobody else sees it
    assert shared[1].features[0, 0] == alone.features[0, 0]
    other = SelectiveLabelEngine(replace(cohort, scratch=tmp_path), replace(settings, standardize=False), device="cpu")
    np.testing.assert_array_equal(other.features.numpy(), cohort.embedded())


@pytest.mark.parametrize("changes", [{}, {"standardize": False}, {"components": 3}, {"space": "data"}])
def test_active_engine_maps_one_copy(changes: dict[str, object], blobs: Cohort, tmp_path: Path) -> None:
    settings = ActiveLabelSettings.make(
        budget=6, batch=2, pool=60, state_images=5, fractions=(0.4, 0.3, 0.3), **changes
    )
    alone = ActiveLabelEngine(blobs, settings, "cpu")
    first = ActiveLabelEngine(replace(blobs, scratch=tmp_path), settings, "cpu")
    there = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = ActiveLabelEngine(replace(blobs, scratch=tmp_path), settings, "cpu")
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == there
    assert there
    for engine in (first, second):
        for part, x in alone.x.items():
            np.testing.assert_array_equal(engine.x[part].numpy(), x.numpy())
        np.testing.assert_array_equal(engine.points.numpy(), alone.points.numpy())
        assert engine.latent_bound == alone.latent_bound


def test_rows_of_a_cohort_have_no_folder(blobs: Cohort, tmp_path: Path) -> None:
    """What is kept there is of all rows."""
    assert replace(blobs, scratch=tmp_path).take(np.arange(5)).scratch is None
