"""The benchmarks of ActiveLabel-v0 run, and both contestants do the same. Nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import active_pool, ddqn_speed, env_step, single_env, vector_env


@pytest.mark.parametrize("batch", [1, 5])
def test_vector_env_and_sync_vector_env_play_alike(batch: int) -> None:
    """The trajectories are compared within."""
    figures = vector_env.measure(batch, vector_env.Settings(1, envs=3, budget=10, pool=60, classes=3, dim=8))
    assert figures.ratio > 0


def test_a_step_alone_is_the_plain_one() -> None:
    settings = single_env.Settings(2, pool=100, dim=6)
    assert single_env.selective(settings).ratio > 0
    assert single_env.active("softmax", 1, settings).ratio > 0


def test_the_parts_of_a_round_make_the_whole() -> None:
    figures = ddqn_speed.measure(ddqn_speed.Settings(1, envs=16, budget=10, pool=60, gradient_steps=2))
    assert 0 < figures.rest < 1
    assert all(seconds > 0 for seconds in figures.seconds.values())
    assert sum(figures.seconds.values()) == pytest.approx(16 / figures.episodes)


@pytest.mark.parametrize("candidates", [0, 20])
def test_a_pool_on_disk_is_played(candidates: int, tmp_path: Path) -> None:
    settings = active_pool.Settings(dim=6, classes=3, steps=2)
    active_pool.draw(tmp_path / "features.npy", 200, settings)
    figures = active_pool.play(tmp_path / "features.npy", candidates, settings)
    assert figures.peak >= figures.anonymous > 0


def test_an_engine_has_the_pool_it_was_asked_for() -> None:
    engine = env_step.make_engine(env_step.Settings(pool=100, dim=6, labelled=20), "softmax", 2)
    assert len(engine.sampler.rows["pool"]) == engine.pool == 100
