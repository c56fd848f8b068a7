"""Stable-Baselines3's PPO with a set encoder on ``SelectiveLabel-v0``, judged against random choice and K-Medoids.

    python examples/sb3_ppo.py

The action is a score for each image of the pool, of which the K best are labelled. All strategies play the same test
tasks, of images that PPO has not seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro
from numpy.typing import NDArray
from stable_baselines3 import PPO

import activelabel  # noqa: F401  (registers the environments)
from activelabel.agents.set_encoder import SetPolicy
from activelabel.baselines import BASELINES
from activelabel.data.cohort import IntArray
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import VectorScoresToTopK, top_k
from activelabel.evaluation import Strategy, build_report, paired_difference, play


@dataclass
class Settings:
    """Train PPO and judge it."""

    steps: int = 102_400
    """Tasks to train on."""
    data: str = "synthetic"
    """Data set, as for train.py."""
    k: int = 10
    """Images to label."""
    pool: int = 200
    """Images to choose from."""
    envs: int = 64
    """Tasks played at once."""
    learning_rate: float = 5e-4
    """At the start; it falls to 0."""
    split: str = "test"
    """Part of the data that the strategies are judged on; settings were chosen on "val"."""
    tasks: int = 1000
    """How many tasks they are judged on."""
    seed: int = 0
    """Of PPO."""
    save: Path | None = None
    """Where to save the model."""


class Best:
    """What the vector env's wrapper does with scores, as a strategy: the K best are labelled."""

    def __init__(self, model: Any, k: int) -> None:
        self.model, self.k = model, k

    def predict(
        self, observation: dict[str, NDArray[Any]], *_: Any, deterministic: bool = False, **__: Any
    ) -> tuple[IntArray, None]:
        """Return the indices of the K best of each pool."""
        scores, _state = self.model.predict(observation, deterministic=deterministic)
        return top_k(scores, self.k), None


def train(settings: Settings) -> tuple[Any, Any]:
    """Return the trained model and the environment's engine."""
    envs = gym.make_vec(
        "SelectiveLabel-v0", num_envs=settings.envs, cohort=settings.data, k=settings.k, pool=settings.pool
    )
    model = PPO(
        SetPolicy,
        GymnasiumVecEnv(VectorScoresToTopK(envs)),
        n_steps=8,
        batch_size=2 * settings.envs,
        n_epochs=2,
        learning_rate=lambda left: settings.learning_rate * left,
        seed=settings.seed,
        device="cpu",
    )
    model.learn(settings.steps)
    return model, envs.unwrapped.engine  # type: ignore[attr-defined]


def main(settings: Settings) -> None:
    """Train, judge and print."""
    start = time.perf_counter()
    model, engine = train(settings)
    print(f"trained on {model.num_timesteps} tasks in {time.perf_counter() - start:.0f} s")
    if settings.save is not None:
        model.save(settings.save)
    strategies: dict[str, Strategy] = {
        name: BASELINES[name](settings.k, settings.seed) for name in ("random", "kmedoids")
    }
    strategies["PPO"] = Best(model, settings.k)
    judge = engine.sibling(split=settings.split)
    scores = {name: play(judge, strategy, [settings.k], settings.tasks) for name, strategy in strategies.items()}
    print(build_report({"seen": scores}, reference="random").table())
    gap = paired_difference(scores["PPO"][settings.k].reward, scores["kmedoids"][settings.k].reward)
    print(f"PPO minus K-Medoids: {gap.mean:+.3f}, 95 % interval {gap.low:+.3f}, {gap.high:+.3f}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
