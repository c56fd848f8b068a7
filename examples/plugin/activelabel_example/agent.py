"""An agent for ActiveLabel-v0: a linear score of the candidates, improved by the cross-entropy method."""

import json
from pathlib import Path

import numpy as np


class Evolved:
    """In a round every copy of the env plays an episode with weights of its own; the best of them make the next."""

    def __init__(self, env, seed, device, spread=1.0, keep=0.25):
        self.env, self.keep = env, keep
        self.rng = np.random.default_rng(seed)
        self.n = len(getattr(env.action_space, "nvec", [1]))
        self.mean = np.zeros(env.observation_space["candidates"].shape[-1])
        self.spread = np.full_like(self.mean, spread)

    def learn(self, total_timesteps):
        """Train for so many steps of all copies together."""
        done, copies, observation = 0, self.env.num_envs, self.env.reset()
        while done < total_timesteps:
            weights = self.rng.normal(self.mean, self.spread, (copies, len(self.mean)))
            returns, over = np.zeros(copies), np.zeros(copies, dtype=bool)
            while not over.all():
                observation, rewards, dones, _ = self.env.step(self.choose(observation, weights))
                returns += rewards * ~over
                over |= dones
                done += copies
            best = weights[np.argsort(-returns)[: max(2, int(self.keep * copies))]]
            self.mean, self.spread = best.mean(axis=0), best.std(axis=0) + 0.05
        return self

    def choose(self, observation, weights):
        """Return the candidates of the largest scores, weights (B, features)."""
        scores = np.einsum("bmf,bf->bm", observation["candidates"], weights)
        scores = np.where(observation["action_mask"] == 1, scores, -np.inf)  # nothing is labelled twice
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.n]
        return best if self.n > 1 else best[:, 0]

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """Choose with the mean of the best weights; arrays with or without B."""
        single = observation["candidates"].ndim == 2
        if single:
            observation = {name: array[None] for name, array in observation.items()}
        chosen = self.choose(observation, np.tile(self.mean, (len(observation["candidates"]), 1)))
        return (chosen[0] if single else chosen), state

    def save(self, path):
        """Write one file."""
        Path(path).write_text(json.dumps({"n": self.n, "mean": self.mean.tolist()}))

    @classmethod
    def load(cls, path, device):
        """Read what save wrote."""
        found, model = json.loads(Path(path).read_text()), cls.__new__(cls)
        model.n, model.mean = found["n"], np.array(found["mean"])
        return model
