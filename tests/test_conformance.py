"""The conformance kit: what we have ourselves passes it, and each of its checks fails what is broken so."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from finetune_play import QUICK
from plugin_play import CALLS, fails, network

from activelabel import load
from activelabel.agents import AGENTS
from activelabel.baselines import BASELINES, POOL_BASELINES, Margin, PoolRandom, Random
from activelabel.envs import IMAGE_LEARNERS, LEARNERS
from activelabel.envs.learners import SoftmaxHead
from activelabel.errors import SettingsError
from activelabel.testing import (
    BASELINE_CHECKS,
    LEARNER_CHECKS,
    POOL_BASELINE_CHECKS,
    ConformanceError,
    check_agent,
    check_backbone,
    check_baseline,
    check_cohort,
    check_learner,
)

# -- what is ours ------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"warm_start_episodes": 4, "gradient_steps": 3, "batch_size": 8}
OURS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "reinforce": ("SelectiveLabel-v0", {"batch_size": 4, "n_samples": 2, "policy_kwargs": {"hidden": 4}}, {}),
    "ddqn": ("ActiveLabel-v0", {**SMALL, "policy_kwargs": {"hidden": [8]}}, {}),
    "lal-rl": ("ActiveLabel-v0", SMALL, {"batch": 1, "state": ("confidence",)}),
}
"""For each agent an environment, what it is made with, and settings of the environment."""


@pytest.mark.parametrize("name", OURS)
def test_our_agents_pass(name: str) -> None:
    env, options, settings = OURS[name]
    check_agent(name, env, options, **settings)


def test_none_of_our_agents_is_left_out() -> None:
    assert {AGENTS[name] for name in OURS} == set(AGENTS.values())


@pytest.mark.parametrize("maker", [*BASELINES.values(), *POOL_BASELINES.values()], ids=lambda cls: cls.__name__)
def test_our_baselines_pass(maker: Any) -> None:
    check_baseline(maker)


@pytest.mark.parametrize("name", [*LEARNERS, *IMAGE_LEARNERS])
def test_our_learners_pass(name: str) -> None:
    more: dict[str, Any] = {"skip": ("learning",), **QUICK, "size": 16} if name in IMAGE_LEARNERS else {}
    check_learner(name, **more)


def test_our_data_and_the_rest_pass() -> None:
    check_learner(SoftmaxHead, warm=True)
    check_cohort(lambda: load("digits"))
    check_backbone(network)


def test_what_is_skipped_must_be_a_check() -> None:
    with pytest.raises(SettingsError, match=r"unknown check 'repeated'\. Did you mean 'repeated images'"):
        check_baseline(Random, skip=("repeated",))


# -- broken baselines --------------------------------------------------------------------------------------------------


class Once(Random):
    """Chooses well; what is broken is in the classes below."""

    name = "once"

    def predict(self, observation: Any, *rest: Any, **more: Any) -> Any:
        chosen, state = super().predict(observation, *rest, **more)
        return self.broken(np.asarray(observation["pool"]), chosen), state

    def broken(self, pool: Any, chosen: Any) -> Any:
        return chosen


def once(broken: Callable[..., Any]) -> type[Once]:
    """Return a baseline whose choices a function breaks."""
    return type(broken.__name__, (Once,), {"broken": lambda self, pool, chosen: broken(self, pool, chosen)})


@once
def wrong_dtype(self: Once, pool: Any, chosen: Any) -> Any:
    return chosen.astype(np.float32)


@once
def batch_matters(self: Once, pool: Any, chosen: Any) -> Any:
    return chosen if pool.ndim == 2 else np.sort((chosen + 1) % pool.shape[1], axis=1)


@once
def not_seeded(self: Once, pool: Any, chosen: Any) -> Any:
    CALLS.append(1)
    return (chosen + len(CALLS)) % pool.shape[-2]


@once
def uses_the_global(self: Once, pool: Any, chosen: Any) -> Any:
    np.random.seed(0)  # noqa: NPY002
    return chosen


@once
def twice_the_same(self: Once, pool: Any, chosen: Any) -> Any:
    return np.zeros_like(chosen)


@once
def writes(self: Once, pool: Any, chosen: Any) -> Any:
    pool[...] = 0
    return chosen


class NoName(Once):
    name = ""


class OneK(Once):
    def select(self, observation: Any, ks: Any, deterministic: bool = True) -> Any:
        return {ks[0]: super().select(observation, ks)[ks[0]]}


class NotTiny(Once):
    def choose(self, pool: Any, clinical: Any, ks: Any) -> Any:
        if len(pool) == max(ks):
            raise IndexError("too small")
        return super().choose(pool, clinical, ks)


BROKEN: dict[str, Any] = {
    "name": NoName,
    "shape": wrong_dtype,
    "single and batch": batch_matters,
    "determinism": not_seeded,
    "global random numbers": uses_the_global,
    "repeated images": twice_the_same,
    "several K": OneK,
    "tiny pools": NotTiny,
    "observation": writes,
}


@pytest.mark.parametrize("check", BASELINE_CHECKS)
def test_a_broken_baseline_fails(check: str) -> None:
    fails(check, check_baseline, BROKEN[check])


class Pool(PoolRandom):
    """The same for the other environment."""

    def choose(self, observation: Any) -> Any:
        return self.broken(observation, super().choose(observation))

    def broken(self, observation: Any, chosen: Any) -> Any:
        return chosen


def pool(broken: Callable[..., Any]) -> type[Pool]:
    return type(broken.__name__, (Pool,), {"broken": lambda self, seen, chosen: broken(self, seen, chosen)})


class NoPoolName(Pool):
    name = ""


@pool
def too_many(self: Pool, seen: Any, chosen: Any) -> Any:
    return np.concatenate([chosen, chosen], axis=1)


@pool
def depends_on_the_batch(self: Pool, seen: Any, chosen: Any) -> Any:
    return chosen if len(chosen) == 1 else chosen[:, ::-1]


@pool
def counts(self: Pool, seen: Any, chosen: Any) -> Any:
    CALLS.append(1)
    return np.roll(chosen, len(CALLS), axis=1)


@pool
def draws_globally(self: Pool, seen: Any, chosen: Any) -> Any:
    random.random()
    return chosen


@pool
def ignores_the_mask(self: Pool, seen: Any, chosen: Any) -> Any:
    return np.argsort(seen["action_mask"], axis=1, kind="stable")[:, : chosen.shape[1]]


@pool
def forgets_the_last(self: Pool, seen: Any, chosen: Any) -> Any:
    return np.where(seen["action_mask"].sum(axis=1, keepdims=True) < 5, -1, chosen)


@pool
def writes_into(self: Pool, seen: Any, chosen: Any) -> Any:
    seen["candidates"][...] = 0
    return chosen


POOL_BROKEN: dict[str, Any] = {
    "name": NoPoolName,
    "shape": too_many,
    "single and batch": depends_on_the_batch,
    "determinism": counts,
    "global random numbers": draws_globally,
    "labelled images": ignores_the_mask,
    "tiny pools": forgets_the_last,
    "observation": writes_into,
}


@pytest.mark.parametrize("check", POOL_BASELINE_CHECKS)
def test_a_broken_pool_baseline_fails(check: str) -> None:
    fails(check, check_baseline, POOL_BROKEN[check])


def test_what_is_no_baseline_is_told() -> None:
    with pytest.raises(ConformanceError, match="SoftmaxHead; a baseline extends Baseline or PoolBaseline"):
        check_baseline(lambda k, seed: SoftmaxHead())
    with pytest.raises(ConformanceError, match=r"Margin\(4, 0\) raised|raised TypeError"):
        check_baseline(lambda: Margin())


# -- broken learners ---------------------------------------------------------------------------------------------------


class Learner(SoftmaxHead):
    """What is broken is done to the model or to what is fitted."""

    def __init__(self, how: str) -> None:
        super().__init__(epochs=20, warm=how == "warm")
        self.how = how

    def fit(self, x: Any, y: Any, weight: Any, n_classes: int, previous: Any) -> Any:
        if self.how == "global random numbers":
            torch.rand(1)
        if self.how == "single and batch" and len(x) > 1:
            y = y.flip(1)
        if self.how == "padding":
            weight = torch.ones_like(weight)
        if self.how == "inputs":
            x.mul_(1.0).add_(0.1)
        if self.how == "one image a class" and x.shape[1] == n_classes:
            raise ValueError("too few")
        model = super().fit(x, y, weight, n_classes, None if self.how == "warm" else previous)
        return Broken(model, self.how)


class Broken:
    def __init__(self, model: Any, how: str) -> None:
        self.model, self.how = model, how

    def predict_proba(self, x: Any) -> Any:
        found = self.model.predict_proba(x)
        if self.how == "shape":
            return found * 0.5
        if self.how == "determinism":
            CALLS.append(1)
            return (found + 0.1 * (len(CALLS) % 7)) / (1 + 0.3 * (len(CALLS) % 7))
        if self.how == "shared images" and x.ndim == 3:
            return found.flip(2)
        return found.flip(2) if self.how == "learning" else found


@pytest.mark.parametrize("check", LEARNER_CHECKS)
def test_a_broken_learner_fails(check: str) -> None:
    fails(check, check_learner, Learner, how=check)
