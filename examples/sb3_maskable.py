"""sb3-contrib's MaskablePPO with a set encoder: train it, then count how often it picks an image that is labelled.

    python examples/sb3_maskable.py                             # ActiveLabel-v0, one label a step
    python examples/sb3_maskable.py --env SelectiveLabel-v0     # K steps of one image each

Needs ``pip install "activelabel[contrib]"``. The count does not rest on the masks: it is taken from what the
environment says that it labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from sb3_contrib import MaskablePPO

import activelabel  # noqa: F401  (registers the environments)
from activelabel.agents.maskable import MaskableSetPolicy
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import VectorOneAtATime


@dataclass
class Settings:
    """Train MaskablePPO, then play."""

    env: Literal["ActiveLabel-v0", "SelectiveLabel-v0"] = "ActiveLabel-v0"
    """Which environment."""
    data: str = "synthetic"
    """Data set, as for train.py."""
    pool: int = 100
    """Images to choose from."""
    labels: int = 20
    """Labels in an episode."""
    envs: int = 20
    """Episodes played at once."""
    steps: int = 2_000
    """Steps to train for."""
    plays: int = 10_000
    """Steps to play afterwards, drawing actions from the policy."""
    seed: int = 0
    """Of the agent and the episodes."""


def make(settings: Settings) -> GymnasiumVecEnv:
    """Return the environment with one label a step."""
    sizes: dict[str, Any] = {"num_envs": settings.envs, "cohort": settings.data, "pool": settings.pool}
    if settings.env == "SelectiveLabel-v0":
        return GymnasiumVecEnv(VectorOneAtATime(gym.make_vec(settings.env, k=settings.labels, **sizes)))
    return GymnasiumVecEnv(gym.make_vec(settings.env, budget=settings.labels, batch=1, **sizes))


def repeated(infos: list[dict[str, Any]], dones: Any, settings: Settings) -> int:
    """Return how many picks of a step labelled nothing, since the image was labelled before.

    ``SelectiveLabel-v0`` tells at the end of an episode, of all its picks.
    """
    if settings.env == "SelectiveLabel-v0":
        return sum(settings.labels - info["n_labelled"] for info, done in zip(infos, dones, strict=True) if done)
    return sum(int((info["ids"] < 0).sum()) for info in infos)


def main(settings: Settings) -> int:
    """Train, play and print; returns the count."""
    env = make(settings)
    model = MaskablePPO(
        MaskableSetPolicy, env, n_steps=settings.labels, batch_size=100, n_epochs=2, seed=settings.seed, device="cpu"
    )
    model.learn(settings.steps)
    env.seed(settings.seed + 1)
    observation: Any = env.reset()
    steps = picked = 0
    # To the end of the last episodes, which have all begun together.
    while steps < settings.plays or steps % (settings.envs * settings.labels):
        masks = np.stack(env.env_method("action_masks"))
        actions, _ = model.predict(observation, action_masks=masks)
        observation, _, dones, infos = env.step(actions)
        picked += repeated(infos, dones, settings)
        steps += settings.envs
    print(f"{settings.env}: {steps} steps played, a labelled image was picked {picked} times")
    return picked


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
