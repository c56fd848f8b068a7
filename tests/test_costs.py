"""What a label costs, as agents and baselines of ``ActiveLabel-v0`` see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle_play import engine_of

from activelabel.data import Cohort
from activelabel.envs import RunningEpisodes
from activelabel.evaluation.episodes import play_episodes

Make = Callable[..., Any]

PRICED: dict[str, Any] = {
    "oracle": "annotators",
    "oracle_arguments": {"errors": [0.3, 0.0], "costs": [2, 6], "shares": [0.75, 0.25]},
}


class ByCost:
    """Chooses the cheapest candidates that can be labelled, or the dearest; it sees nothing but costs."""

    def __init__(self, sign: int, n: int) -> None:
        self.sign, self.n = sign, n
        self.env_settings = {"features": ("cost",)}
        self.episodes: RunningEpisodes | None = None

    def attach(self, episodes: RunningEpisodes) -> None:
        self.episodes = episodes

    def predict(
        self, observation: dict[str, NDArray[Any]], *, deterministic: bool = True
    ) -> tuple[NDArray[np.int64], None]:
        assert observation["candidates"].shape[-1] == 1
        worst = np.where(observation["action_mask"] > 0, self.sign * observation["candidates"][:, :, 0], np.inf)
        return np.argsort(worst, axis=1, kind="stable")[:, : self.n], None


@pytest.mark.parametrize("candidates", [None, 20])
def test_the_cost_of_a_candidate_is_relative_to_the_mean_of_the_pool(make_active: Make, candidates: int | None) -> None:
    env = make_active(features=("margin", "cost"), candidates=candidates, **PRICED)
    observation, info = env.reset(options={"episode": 4})
    prices = np.where(env.engine.draws(np.array([4]))[0, :, 0].numpy() < 0.75, 2, 6)
    rows = env.engine.sampler.rows["pool"][env.episodes.pool[0].numpy()]
    of = dict(zip(rows.tolist(), (prices / prices.mean()).tolist(), strict=True))
    assert set(prices.tolist()) == {2, 6}
    over = False
    while not over:
        expected = [of[row] for row in info["candidate_ids"].tolist()]
        np.testing.assert_allclose(observation["candidates"][:, 1], expected, rtol=1e-6)
        assert env.observation_space.contains(observation)
        observation, _, over, _, info = env.step(np.flatnonzero(observation["action_mask"])[:5])


def test_it_has_no_scale(make_active: Make) -> None:
    seen = []
    for factor in (1, 10):
        arguments = {**PRICED["oracle_arguments"], "costs": [factor, 3 * factor]}
        env = make_active(features=("cost",), oracle="annotators", oracle_arguments=arguments)
        seen.append(env.reset(options={"episode": 0})[0]["candidates"])
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-6)
    assert len(np.unique(seen[0])) == 2


@pytest.mark.parametrize("oracle", ["perfect", "abstaining"])
def test_where_all_cost_the_same_it_is_1(make_active: Make, oracle: str) -> None:
    env = make_active(features=("cost",), oracle=oracle)
    assert (env.reset(seed=0)[0]["candidates"] == 1).all()


def test_a_bound_holds_the_dearest_of_all(make_active: Make) -> None:
    arguments = {"errors": [0.0, 0.0], "costs": [1, 10**6], "shares": [0.95, 0.05]}
    env = make_active(features=("cost",), oracle="annotators", oracle_arguments=arguments)
    largest = 0.0
    for episode in range(6):
        observation, _ = env.reset(options={"episode": episode})
        assert env.observation_space.contains(observation)
        largest = max(largest, float(observation["candidates"].max()))
    assert largest > 10


def test_who_sees_costs_gets_more_labels_for_the_budget(blobs: Cohort) -> None:
    engine = engine_of(blobs, budget=24, batch=3, **PRICED)
    labelled = {}
    for sign in (1, -1):
        strategy = ByCost(sign, 3)
        play_episodes(engine, strategy, 3)
        assert strategy.episodes is not None
        labelled[sign] = strategy.episodes.labelled.sum(dim=1).tolist()
    # 24 pay for 12 labels of 2, or 4 of 6; each episode starts from 4.
    assert labelled == {1: [16] * 3, -1: [8] * 3}
