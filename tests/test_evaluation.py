"""Playing the same tasks with every strategy, and what is reported of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from activelabel.baselines import BASELINES, KMedoids, Random
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelSettings
from activelabel.errors import SettingsError
from activelabel.evaluation import Scores, build_report, play

KS = (1, 4, 20)


@pytest.fixture
def engine(cohort: Cohort) -> SelectiveLabelEngine:
    return SelectiveLabelEngine(cohort, SelectiveLabelSettings(k=4, pool=20, query=12, split="test"), device="cpu")


class FirstImages:
    """A user's object: nothing but ``predict``, made for one K."""

    def __init__(self, k: int) -> None:
        self.k = k

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        return np.tile(np.arange(self.k), (len(observation["pool"]), 1)), state


@pytest.mark.parametrize("name", BASELINES)
def test_batches_do_not_matter(engine: SelectiveLabelEngine, name: str) -> None:
    whole = play(engine, BASELINES[name](4), KS, 10, batch=10)
    parts = play(engine, BASELINES[name](4), KS, 10, batch=3)
    for k in KS:
        np.testing.assert_array_equal(whole[k].reward, parts[k].reward)
        np.testing.assert_array_equal(whole[k].one_class, parts[k].one_class)


def test_scores_are_those_of_single_episodes(engine: SelectiveLabelEngine) -> None:
    found = play(engine, FirstImages(4), [4], 6)[4]
    for i in range(6):
        tasks = engine.tasks([i])
        outcome = engine.score(tasks, np.arange(4)[None, None])
        assert found.reward[i] == outcome.reward[0, 0]
        assert found.one_class[i] == (tasks.pool_labels[0, :4].sum() in (0, 4))


def test_every_strategy_plays_the_same_tasks(engine: SelectiveLabelEngine) -> None:
    seen: list[NDArray[np.float32]] = []

    class Watch(Random):
        def select(self, observation: dict[str, NDArray[Any]], ks: Any, deterministic: bool = True) -> dict[int, Any]:
            seen.append(observation["pool"])
            return super().select(observation, ks, deterministic)

    play(engine, Watch(4), [4], 5)
    play(engine, Watch(4, seed=9), [4], 5)
    np.testing.assert_array_equal(seen[0], seen[1])


def test_choosing_everything_makes_strategies_equal(engine: SelectiveLabelEngine) -> None:
    a, b = play(engine, Random(20), [20], 8)[20], play(engine, KMedoids(20), [20], 8)[20]
    np.testing.assert_array_equal(a.reward, b.reward)


@pytest.mark.parametrize("k", [0, 21])
def test_k_beyond_the_pool_is_refused(engine: SelectiveLabelEngine, k: int) -> None:
    with pytest.raises(SettingsError, match=f"k={k} images cannot be chosen from a pool of 20"):
        play(engine, Random(4), [k], 2)


def test_a_strategy_of_another_k_is_refused(engine: SelectiveLabelEngine) -> None:
    with pytest.raises(SettingsError, match=r"chose \(2, 3\) where \(2, 4\)"):
        play(engine, FirstImages(3), [4], 2)


def scores(values: list[float]) -> Scores:
    return Scores(np.array(values), np.array([True] + [False] * (len(values) - 1)))


RESULTS = {
    "seen": {
        "kmedoids": {10: scores([0.5, 0.6, 0.7]), 20: scores([0.6, 0.7, 0.8])},
        "reinforce": {10: scores([0.6, 0.71, 0.8]), 20: scores([0.6, 0.71, 0.79])},
    },
    "held-out": {
        "kmedoids": {10: scores([0.5, 0.6, 0.7]), 20: scores([0.6, 0.7, 0.8])},
        "reinforce": {10: scores([0.4, 0.51, 0.6]), 20: scores([0.6, 0.71, 0.79])},
    },
}


def test_report_has_a_row_for_all_and_pairs_by_task(tmp_path: Path) -> None:
    report = build_report(RESULTS)
    assert len(report.rows) == 8
    assert len(report.comparisons) == 4
    written = report.write(tmp_path, run="r")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["run"] == "r"
    assert all(path.stat().st_size for path in written)
    for row in summary["rows"]:
        values = RESULTS[row["conditions"]][row["strategy"]][row["k"]].reward
        assert row["mean"] == pytest.approx(values.mean())
        assert row["ci"][0] < row["mean"] < row["ci"][1]
        assert (row["n"], row["metric"], row["one_class"]) == (3, "auroc", pytest.approx(1 / 3))
    verdicts = {}
    for c in summary["comparisons"]:
        a, b = (RESULTS[c["conditions"]][name][c["k"]].reward for name in (c["a"], c["b"]))
        assert c["difference"] == pytest.approx((a - b).mean())
        assert c["ci"][0] <= c["difference"] <= c["ci"][1]
        verdicts[c["conditions"], c["k"]] = c["verdict"]
    assert verdicts == {
        ("seen", 10): "better",
        ("seen", 20): "not distinguishable",
        ("held-out", 10): "worse",
        ("held-out", 20): "not distinguishable",
    }
    table = (tmp_path / "table.txt").read_text()
    assert all(word in table for word in ("better", "worse", "not distinguishable", "K-Medoids", "n = 3 test tasks"))


def test_without_the_reference_nothing_is_compared() -> None:
    report = build_report({"seen": {"reinforce": {10: scores([0.5, 0.6])}}})
    assert report.comparisons == []
    assert "minus" not in report.table()
