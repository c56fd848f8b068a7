"""SB3's A2C and DQN and sb3-contrib's RecurrentPPO, unchanged, on both environments.

    python examples/sb3_others.py --algorithm a2c
    python examples/sb3_others.py --algorithm dqn --env ActiveLabel-v0
    python examples/sb3_others.py --algorithm recurrent-ppo     # needs pip install "activelabel[contrib]"

A2C gives scores, of which the best are labelled; DQN chooses one image at a time; RecurrentPPO gives scores as well,
from a memory of the episode. Each is judged on test episodes that random choice plays too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from stable_baselines3 import A2C, DQN

import activelabel  # noqa: F401  (registers the environments)
from activelabel.agents.set_encoder import SetDQNPolicy, SetExtractor, SetPolicy
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import VectorOneAtATime, VectorScoresToTopK
from activelabel.evaluation import mean_interval, paired_difference
from activelabel.seeding import stream


@dataclass
class Settings:
    """Train one of them and judge it."""

    algorithm: Literal["a2c", "dqn", "recurrent-ppo"] = "a2c"
    """Which algorithm."""
    env: Literal["SelectiveLabel-v0", "ActiveLabel-v0"] = "SelectiveLabel-v0"
    """Which environment."""
    data: str = "synthetic"
    """Data set, as for train.py."""
    pool: int = 100
    """Images to choose from."""
    labels: int = 10
    """Labels in an episode."""
    envs: int = 16
    """Episodes played at once."""
    steps: int = 10_000
    """Steps to train for."""
    split: str = "test"
    """Part of the data that it is judged on; settings are to be chosen on "val"."""
    episodes: int = 200
    """How many episodes it is judged on."""
    seed: int = 0
    """Of the agent."""


def make(settings: Settings, split: str, n: int) -> GymnasiumVecEnv:
    """Return the environment as the algorithm takes it."""
    one = settings.algorithm == "dqn"
    sizes: dict[str, Any] = {"cohort": settings.data, "pool": settings.pool, "split": split}
    if settings.env == "SelectiveLabel-v0":
        env = gym.make_vec(settings.env, num_envs=n, k=settings.labels, **sizes)
        return GymnasiumVecEnv(VectorOneAtATime(env) if one else VectorScoresToTopK(env))
    env = gym.make_vec(settings.env, num_envs=n, budget=settings.labels, batch=1 if one else 5, **sizes)
    return GymnasiumVecEnv(env if one else VectorScoresToTopK(env))


def make_model(settings: Settings, env: GymnasiumVecEnv) -> Any:
    """Return the algorithm, with the set encoder in its place."""
    common: dict[str, Any] = {"seed": settings.seed, "device": "cpu"}
    if settings.algorithm == "a2c":
        return A2C(SetPolicy, env, n_steps=8, learning_rate=3e-4, **common)
    if settings.algorithm == "dqn":
        # The buffer holds whole pools, so it is small.
        replay: dict[str, Any] = {"buffer_size": 5_000, "learning_starts": 500, "train_freq": 1, "gradient_steps": 4}
        explore: dict[str, Any] = {"exploration_fraction": 0.5, "target_update_interval": 500}
        return DQN(SetDQNPolicy, env, gamma=1.0, learning_rate=1e-3, **replay, **explore, **common)
    from sb3_contrib import RecurrentPPO

    # Its memory reads all embeddings side by side, so they are few.
    encoder = {"features_extractor_class": SetExtractor, "features_extractor_kwargs": {"hidden": 4}}
    kwargs = {"lstm_hidden_size": 64, "log_std_init": -1.0, **encoder}
    return RecurrentPPO(
        "MultiInputLstmPolicy", env, n_steps=8, batch_size=64, n_epochs=4, policy_kwargs=kwargs, **common
    )


def play(settings: Settings, model: Any | None) -> NDArray[np.float64]:
    """Return the sum of rewards of each episode, with random actions where there is no model."""
    env = make(settings, settings.split, settings.episodes)
    number = "task" if settings.env == "SelectiveLabel-v0" else "episode"
    env.set_options([{number: i} for i in range(settings.episodes)])
    observation: Any = env.reset()
    state = None
    first = np.ones(settings.episodes, dtype=bool)
    env.action_space.seed(int(stream(settings.seed, "random").integers(2**31)))
    returns, over = np.zeros(settings.episodes), np.zeros(settings.episodes, dtype=bool)
    while not over.all():
        if model is None:
            actions = np.stack([env.action_space.sample() for _ in range(settings.episodes)])
        else:
            actions, state = model.predict(observation, state, first, deterministic=True)
        observation, rewards, dones, _ = env.step(actions)
        returns += np.where(over, 0, rewards)
        over, first = over | dones, dones
    return returns


def main(settings: Settings) -> None:
    """Train, judge and print."""
    model = make_model(settings, make(settings, "train", settings.envs))
    model.learn(settings.steps)
    found, random = play(settings, model), play(settings, None)
    gap = paired_difference(found, random)
    print(
        f"{settings.algorithm} on {settings.env} after {model.num_timesteps} steps: return {found.mean():.3f}, random "
        f"{mean_interval(random).mean:.3f}, difference {gap.mean:+.3f}, 95 % interval {gap.low:+.3f}, {gap.high:+.3f} "
        f"({settings.episodes} {settings.split} episodes)"
    )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
