"""Query strategies of ActiveLabel-v0 with something to choose from, for several test files."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from activelabel.baselines import GreedyOracle, PoolBaseline, make_pool_baseline

needs_skactiveml = pytest.mark.skipif(
    find_spec("skactiveml") is None, reason='scikit-activeml is not installed: pip install "activelabel[baselines]"'
)

ADAPTED = [
    pytest.param(f"skactiveml:{name}", marks=needs_skactiveml)
    for name in ("CoreSet", "Badge", "TypiClust", "ProbCover", "UncertaintySampling", "RandomSampling")
]
SIZES: dict[str, Any] = {"cohort": "digits", "device": "cpu", "pool": 60, "budget": 12, "batch": 3}
SIZES |= {"classes": ("0", "1", "2", "3"), "state_images": 20, "learner_arguments": {"epochs": 20}}
Observation = dict[str, NDArray[Any]]


def sizes(changes: dict[str, Any], agent: PoolBaseline) -> dict[str, Any]:
    return {**SIZES, "observe": agent.observes, "batch": agent.batch, **changes}


def attached(agent: PoolBaseline, env: Any) -> PoolBaseline:
    if isinstance(agent, GreedyOracle):
        agent.tries = 4
        agent.attach(env.episodes)
    return agent


def play(name: str, batch: int = 3, seed: int = 0, num_envs: int = 3, **changes: Any) -> tuple[PoolBaseline, Any]:
    """A strategy and the vector env that it observes."""
    agent = make_pool_baseline(name, batch, seed)
    envs = gym.make_vec("ActiveLabel-v0", num_envs=num_envs, **sizes(changes, agent))
    return attached(agent, envs), envs


def observe(
    seed: int, b: int = 4, m: int = 30, c: int = 3, d: int = 5, labels: int = 6, places: int = 9
) -> Observation:
    """A made-up observation; about a third of the candidates are labelled."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((b, m, d)).astype(np.float32)
    known = np.full((b, places), -1)
    known[:, :labels] = np.arange(labels) % c
    labelled = np.where(known[:, :, None] >= 0, rng.standard_normal((b, places, d)), 0).astype(np.float32)
    return {
        "state": rng.random((b, 2)).astype(np.float32),
        "candidates": rng.random((b, m, 3)).astype(np.float32),
        "action_mask": (rng.random((b, m)) < 0.7).astype(np.int8),
        "probabilities": rng.dirichlet(np.ones(c), (b, m)).astype(np.float32),
        "embeddings": x,
        "labelled": labelled,
        "labels": known,
    }


def pick(observation: Observation, i: int) -> Observation:
    return {name: array[i] for name, array in observation.items()}


def ranked(scores: list[float], free: NDArray[Any], n: int) -> list[int]:
    """Largest first, ties in the candidates' order."""
    return sorted(np.flatnonzero(free).tolist(), key=lambda i: -scores[i])[:n]
