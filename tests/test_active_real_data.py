"""``ActiveLabel-v0`` on real images: parts by patient, presets, and agents that move between data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activelabel.agents import DDQN
from activelabel.baselines import make_pool_baseline
from activelabel.evaluation import create_run
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.episodes import play_episodes
from activelabel.settings import ActiveRunSettings, preset

pytestmark = pytest.mark.data

FILES = {"kather": "kather2016_texture_features.npz", "kermany": "kermany_cxr96_efflite0.npz"}


@pytest.fixture(params=[(name, budget) for name in FILES for budget in ("", "-20")], ids="".join)
def settings(request: Any, data_dir: Path) -> ActiveRunSettings:
    """The preset of a real set, cut down to a few episodes."""
    name, budget = request.param
    found = preset(name + budget, "ddqn", "ActiveLabel-v0", str(data_dir / FILES[name]))
    assert isinstance(found, ActiveRunSettings)
    small = {"episodes": 16, "envs": 8, "val_episodes": 4, "test_episodes": 8, "val_every": 1, "gradient_steps": 2}
    return replace(found, against=("random", "margin"), device="cpu", **small)


def test_the_parts_of_every_split_share_no_patient(settings: ActiveRunSettings, tmp_path: Path) -> None:
    run = create_run(settings, tmp_path, progress=False)
    assert isinstance(run, ActiveRun)
    patients = run.engine.cohort.patient
    seen: set[Any] = set()
    for engine in (run.engine, run.val, run.test):
        for rows in engine.sampler.rows.values():
            mine = set(rows.tolist() if patients is None else patients[rows].tolist())
            assert not mine & seen
            seen |= mine


def test_labels_help_and_a_tiny_training_ends_with_a_table(settings: ActiveRunSettings, tmp_path: Path) -> None:
    run = create_run(settings, tmp_path, progress=False)
    assert isinstance(run, ActiveRun)
    curves = play_episodes(run.test, make_pool_baseline("random", settings.batch, 0), 20)
    assert curves.accuracy[:, -1].mean() > curves.accuracy[:, 0].mean() + 0.05
    run.train()
    table = run.evaluate().table()
    assert "DDQN" in table
    assert "margin" in table


def test_an_agent_of_one_set_labels_the_other_unchanged(data_dir: Path, tmp_path: Path) -> None:
    runs = {}
    for name, file in FILES.items():
        found = preset(name, "ddqn", "ActiveLabel-v0", str(data_dir / file))
        small = {"episodes": 8, "envs": 8, "val_episodes": 4, "test_episodes": 6, "gradient_steps": 2, "device": "cpu"}
        features = ("confidence", "labelled", "unlabelled")
        run = create_run(replace(found, against=("random",), features=features, **small), tmp_path / name, False)
        run.train()
        runs[name] = run
    for name, run in runs.items():
        assert isinstance(run, ActiveRun)
        (other,) = (r for n, r in runs.items() if n != name)
        weights = DDQN.load(other.folder / "model.zip").policy.state_dict()
        report = run.evaluate(also=[other.folder])
        strategies = {row["strategy"] for row in report.rows}
        assert strategies == {"random", "ddqn", f"DDQN of {Path(other.settings.data).stem}"}
        after = DDQN.load(other.folder / "model.zip").policy.state_dict()
        assert all(np.array_equal(weights[key], after[key]) for key in weights)
