"""Oracles in studies: what a data set's oracle means for agents, and the study of noise curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_files import ACTIVE, write

from activelabel.data import Cohort
from activelabel.evaluation.study import read_study
from activelabel.evaluation.study.results import KEYS, Block
from activelabel.settings import ActiveRunSettings
from benchmarks.noise_curves import TRUE_LABELS, draw, rates, table

NOISY: dict[str, Any] = {"oracle": "noisy", "oracle_rate": 0.2}


def test_agents_are_trained_with_the_oracle_of_the_data_set(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    own = [
        "ddqn",
        "lal-rl",
        {"agent": "ddqn", "name": "printed", "preset": "slade2022"},
        {"agent": "ddqn", "name": "true", "settings": {"oracle": "perfect", "oracle_rate": None}},
    ]
    active = {**ACTIVE, "settings": {**ACTIVE["settings"], **NOISY}, "strategies": own}
    (grid,) = read_study(str(write(tmp_path, {"grids": {"episodes": active}}, cohort, blobs))).grids
    found = {}
    for entry in grid.strategies:
        settings = grid.training(entry, grid.data[0], grid.budgets[0], 0)
        assert isinstance(settings, ActiveRunSettings)
        found[entry.name] = settings.oracle, settings.oracle_rate
    assert found == {**dict.fromkeys(["ddqn", "lal-rl", "printed"], ("noisy", 0.2)), "true": ("perfect", None)}


@pytest.mark.data
def test_the_study_judges_under_each_rate(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVELABEL_DATA", str(data_dir))
    judged = {}
    for grid in read_study("noise").grids:
        for data in grid.data:
            assert isinstance(data.settings, ActiveRunSettings)
            trained = [grid.training(e, data, grid.budgets[0], 0) for e in grid.strategies if e.agent is not None]
            of = [(s.oracle, s.oracle_rate) for s in trained if isinstance(s, ActiveRunSettings)]
            judged[data.name] = [(data.settings.oracle, data.settings.oracle_rate), *of]
    true = ("perfect", None)
    assert judged.pop("0 % wrong") == [true, true]
    assert judged == {f"{rate} % wrong": [("noisy", rate / 100), ("noisy", rate / 100), true] for rate in (10, 20, 30)}


def test_the_table_and_the_figure_of_noise_curves() -> None:
    rng = np.random.default_rng(0)
    blocks = []
    for rate in (0, 10):
        for name, seeds in (("random", [None]), ("margin", [None]), ("ddqn", [0, 1, 2]), (TRUE_LABELS, [0, 1, 2])):
            if rate == 0 and name == TRUE_LABELS:
                continue
            for seed in seeds:
                keys = {**dict.fromkeys(KEYS), "data": f"{rate} % wrong", "strategy": name, "seed": seed}
                area = rng.normal(0.5 + 0.1 * (name == "ddqn"), 0.01, 20)
                blocks.append(Block(keys, area + 0.1, None, area, None))
    areas, finals = rates(blocks, final=False), rates(blocks, final=True)
    assert list(areas) == [0, 10]
    np.testing.assert_array_equal(areas[0][TRUE_LABELS], areas[0]["ddqn"])
    np.testing.assert_allclose(finals[10]["ddqn"], areas[10]["ddqn"] + 0.1)
    assert areas[10]["ddqn"].shape == (3, 20)
    rows = [line.split("|") for line in table(areas).splitlines()]
    assert len({len(row) for row in rows}) == 1
    assert float(rows[3][5].split()[0]) == pytest.approx(areas[10]["ddqn"].mean(), abs=5e-4)
    assert float(rows[3][6].split()[0]) == pytest.approx(0.1, abs=0.02)
    assert float(rows[3][8].split()[0]) == pytest.approx(0.1, abs=0.02)
    assert rows[2][8].strip() == ""
    left, right = draw(areas, finals).axes
    assert [len(axis.containers) for axis in (left, right)] == [4, 4]
