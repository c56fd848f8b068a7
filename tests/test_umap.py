"""Maps of pools by UMAP; skipped where umap-learn is not installed, but for what is said then."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import reference

from activelabel.envs import rendering
from activelabel.envs.active import ActiveLabelEnv, ActiveLabelVectorEnv
from activelabel.envs.drawing import Umap
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.errors import SettingsError

Make = Callable[..., Any]

installed = pytest.mark.skipif(find_spec("umap") is None, reason='umap-learn: pip install "activelabel[umap]"')


@pytest.mark.parametrize("env", [ActiveLabelEnv, ActiveLabelVectorEnv, SelectiveLabelEnv, SelectiveLabelVectorEnv])
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"unknown render_map 'umpa'\. Did you mean 'umap'"):
        env(cohort="no such cohort", render_map="umpa")
    monkeypatch.setattr(rendering, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'umap-learn: pip install "activelabel\[umap\]"'):
        env(cohort="no such cohort", render_map="umap")


@installed
def test_groups_stay_together_and_nothing_is_left_to_chance() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(8 * np.eye(5), 30, axis=0) + rng.standard_normal((150, 5))
    with reference.global_rng_untouched():
        places = Umap.fit(points).places(points)
    assert places.shape == (150, 2)
    assert places.dtype == np.float64
    np.testing.assert_array_equal(Umap.fit(points).places(points), places)
    group = np.repeat(np.arange(5), 30)
    nearest = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(150)
    assert (group[nearest.argmin(axis=1)] == group).mean() > 0.95
    line = Umap.fit(points[:, :1]).places(points[:, :1])
    assert np.isfinite(line).all()


@installed
def test_frames_of_both_environments(make_active: Make, make_env: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = Umap.fit
    monkeypatch.setattr(Umap, "fit", lambda points: fitted.append(len(points)) or fit(points))
    monkeypatch.setattr(rendering, "FITTED", 60)  # the others are placed among these
    for make, step in ((make_active, np.arange(5)), (make_env, np.arange(4))):
        env, plain = (make(render_mode="rgb_array", render_map=kind) for kind in rendering.MAPS[::-1])
        for each in (env, plain):
            each.reset(seed=0)
            each.step(step)
        frame = env.render()
        assert frame.shape == (540, 960, 3)
        assert (frame != plain.render()).any()
        env.reset(seed=1)
        env.render()
        places, ((left, right), (bottom, top)) = env._scene().places, env._scene().bounds
        assert ((places > [left, bottom]) & (places < [right, top])).all()
    assert fitted == [60, 60]
