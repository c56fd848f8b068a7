"""The conformance kit: each check of agents, data sets and backbones fails what is broken so."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin_play import CALLS, fails
from torch import nn

from activelabel.agents import DDQN
from activelabel.data import Cohort, Source
from activelabel.testing import (
    AGENT_CHECKS,
    BACKBONE_CHECKS,
    COHORT_CHECKS,
    ConformanceError,
    check_agent,
    check_backbone,
    check_cohort,
)
from activelabel.testing.shared import tiny_cohort

# -- broken agents -----------------------------------------------------------------------------------------------------


class Agent:
    """Takes the candidates of the largest first feature; what is broken is named by ``how``."""

    def __init__(self, env: Any, seed: int, device: str, how: str = "") -> None:
        self.env, self.seed, self.how, self.asked = env, seed, how, 0
        self.n = len(env.action_space.nvec)

    def learn(self, total_timesteps: int) -> Agent:
        if self.how == "training's random numbers":
            torch.manual_seed(self.seed)
        if self.how == "determinism":
            CALLS.append(1)
            self.asked = len(CALLS)
        observation, done = self.env.reset(), 0
        while done < total_timesteps and self.how != "learning":
            observation = self.env.step(self.best(observation))[0]
            done += self.env.num_envs
        return self

    def best(self, seen: Any) -> Any:
        mask = seen["action_mask"]
        score = np.where(mask == 1, seen["candidates"][..., 0], -np.inf if self.how != "labelled images" else 2.0)
        if self.how == "other pools":
            score = score + np.arange(40)
        order = np.argsort(-score, axis=1, kind="stable")
        if self.how in ("determinism", "watched while it learns"):
            order = np.roll(order, self.asked, axis=1)
        return order[:, : self.n]

    def predict(self, seen: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        how, single = self.how, seen["action_mask"].ndim == 1
        if single and how != "single observations":
            seen = {name: array[None] for name, array in seen.items()}
        if how == "watched while it learns":
            self.asked += self.env is not None and len(seen["action_mask"]) > 1
        if how == "choice's random numbers":
            np.random.random()  # noqa: NPY002
        if how == "observation":
            seen["state"] *= 0
        chosen = self.best(seen)
        if how == "shape":
            chosen = chosen.astype(np.float32)
        if how == "single and batch" and len(chosen) == 1:
            chosen = chosen[:, ::-1]
        if how == "repeated images":
            chosen = chosen[:, [0] * self.n]
        if how == "to the end" and seen["state"][0, -1] > 0.5:
            raise RuntimeError("the budget is no multiple")
        if how == "one image left" and (seen["action_mask"].sum(axis=1) == 1).all():
            chosen = np.arange(self.n)[None].repeat(len(chosen), axis=0)
        return (chosen[0] if single else chosen), state

    def save(self, path: Path) -> None:
        Path(path).write_text(str(self.n))
        if self.how == "save and load":
            Path(path).with_suffix(".more").write_text("")

    @classmethod
    def load(cls, path: Path, device: str) -> Agent:
        model = cls.__new__(cls)
        model.n, model.how, model.asked, model.env = int(Path(path).read_text()), "", 0, None
        return model


def test_the_agent_that_is_broken_below_is_whole() -> None:
    check_agent(Agent, "ActiveLabel-v0")


@pytest.mark.parametrize("check", AGENT_CHECKS)
def test_a_broken_agent_fails(check: str) -> None:
    fails(check, check_agent, Agent, "ActiveLabel-v0", {"how": check})


def test_an_agent_s_options_and_name_are_in_the_message() -> None:
    with pytest.raises(
        ConformanceError, match=r"agent DDQN on ActiveLabel-v0 failed (.|\n)*unexpected keyword argument 'x'"
    ):
        check_agent(DDQN, "ActiveLabel-v0", {"x": 1}, skip=AGENT_CHECKS[1:])


# -- broken data and backbones -----------------------------------------------------------------------------------------


def changed(how: str) -> Any:
    """Return a data set that is broken so."""
    if how == "cohort":
        return 3
    if how == "global random numbers":
        random.random()
    whole = tiny_cohort()
    features = np.array(whole.features)
    if how == "determinism":
        CALLS.append(1)
        features += len(CALLS)
    rows = slice(0, 2) if how == "split" else slice(0, 480)
    labels = whole.labels[rows].copy()
    if how == "content":
        labels[5:, 1] = 0
    return Cohort(labels, whole.classes, features[rows], normal=2, source=Source(name="changed"))


@pytest.mark.parametrize("check", COHORT_CHECKS)
def test_a_broken_data_set_fails(check: str) -> None:
    fails(check, check_cohort, changed, how=check)


class Odd(nn.Module):
    size = 16
    how = ""

    def forward(self, x: Any) -> Any:
        found = x.mean(dim=(2, 3))
        if self.how == "shape":
            return found * float("nan")
        if self.how == "global random numbers":
            torch.rand(1)
        if self.how == "determinism":
            CALLS.append(1)
            return found + len(CALLS)
        if self.how == "single and batch":
            return found / len(x)
        return found * 0 if self.how == "content" else found


def odd() -> nn.Module:
    return Odd()


@pytest.mark.parametrize("check", BACKBONE_CHECKS)
def test_a_broken_backbone_fails(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "how", check)
    fails(check, check_backbone, odd)
