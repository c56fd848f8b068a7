"""Agents that label data that they were not trained on: of a study, and the one that comes with the package."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_files import ACTIVE, SELECTIVE, write

from activelabel.agents import DDQN, PRETRAINED, load_pretrained
from activelabel.data import Cohort, load
from activelabel.errors import SettingsError
from activelabel.evaluation import ActiveRun
from activelabel.evaluation.episodes import play_episodes
from activelabel.evaluation.study import read_study, run_study
from activelabel.settings import ActiveRunSettings, preset

ELSEWHERE = {"data": "digits", "name": "other", "settings": {"pool": 50}}


def study(folder: Path, cohort: Cohort, blobs: Cohort, **entry: Any) -> Path:
    """A study of an agent trained on the data that it labels, and of one that is trained as ``entry`` says."""
    grid = copy.deepcopy(ACTIVE)
    own = {"agent": "ddqn", "name": "here"}
    grid |= {"strategies": ["random", own, {**own, "name": "elsewhere", **entry}], "batch": [3], "audit": 0}
    return write(folder, {"seeds": [0], "grids": {"episodes": grid}}, cohort, blobs)


def test_a_study_trains_on_other_data(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    read = read_study(str(study(tmp_path, cohort, blobs, trained_on=ELSEWHERE)))
    (grid,) = read.grids
    _, here, elsewhere = grid.strategies
    assert here.trained_on is None
    assert elsewhere.trained_on is not None
    settings = grid.training(elsewhere, grid.data[0], grid.budgets[0], 0)
    assert isinstance(settings, ActiveRunSettings)
    assert (settings.data, settings.pool, settings.episodes) == ("digits", 50, 8)

    done = run_study(read, tmp_path / "out", jobs=1, progress=False)
    values = {block.keys["strategy"]: block.value for block in done.blocks}
    found = [path.parent for path in (tmp_path / "out").glob("runs/*/config.yaml")]
    trained = next(folder for folder in found if "data: digits" in (folder / "config.yaml").read_text())
    assert len(found) == 2
    # It is the agent of the digits that labels the blobs.
    run = ActiveRun(tmp_path / "judge", grid.data[0].settings, False, blobs)  # type: ignore[arg-type]
    curves = play_episodes(run.test.sibling(budget=7, batch=3), DDQN.load(trained / "model.zip", device="cpu"), 5)
    np.testing.assert_array_equal(values["elsewhere"], curves.final)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert {facts["name"] for facts in provenance["data"]} == {"four blobs", "other"}


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        ({"data": "digit"}, r"strategies\[2\].trained_on: unknown data set 'digit'.*Did you mean 'digits'"),
        ({"name": "other"}, r"strategies\[2\].trained_on: has no 'data'"),
        ({"data": "digits", "settings": {"pol": 5}}, r"trained_on.settings: unknown key 'pol'.*Did you mean 'pool'"),
    ],
)
def test_what_it_is_trained_on_is_checked(
    trained_on: Any, message: str, tmp_path: Path, cohort: Cohort, blobs: Cohort
) -> None:
    with pytest.raises(SettingsError, match=message):
        read_study(str(study(tmp_path, cohort, blobs, trained_on=trained_on)))


def test_a_selector_is_of_its_own_data(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    grid = {**SELECTIVE, "strategies": [{"agent": "reinforce", "trained_on": "digits"}]}
    path = write(tmp_path, {"grids": {"once": grid}}, cohort, blobs)
    with pytest.raises(SettingsError, match="trained_on: is for ActiveLabel-v0; a selector reads the vectors"):
        read_study(str(path))


def test_the_pretrained_agent_labels_any_data(tmp_path: Path, blobs: Cohort) -> None:
    settings = preset("default", PRETRAINED, "ActiveLabel-v0")
    assert isinstance(settings, ActiveRunSettings)
    model = load_pretrained("cpu")
    for name in ("features", "state", "state_images", "distance", "space"):
        assert model.env_settings[name] == getattr(settings, name)
    digits = load("digits")
    sizes: dict[str, Any] = {"pool": 80, "budget": 6, "batch": 3, "against": ("random",), "test_episodes": 4}
    for cohort in (blobs, digits):
        small = ActiveRunSettings.from_mapping(
            {**vars(settings), **sizes, "fractions": (0.4, 0.3, 0.3), "device": "cpu"}, "small"
        )
        run = ActiveRun(tmp_path / str(len(cohort)), small, False, cohort)
        run.train()
        table = run.evaluate().table()
        assert PRETRAINED in table
        assert run.best() == f"not trained here, but by: {model.notes['command']}"
        found = run.model()
        assert isinstance(found, DDQN)
        assert all((a == b).all() for a, b in zip(found.policy.parameters(), model.policy.parameters(), strict=True))


def test_the_pretrained_agent_is_small() -> None:
    folder = Path(load_pretrained.__code__.co_filename).parents[1] / "pretrained"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
