"""A baseline for each environment."""

import numpy as np

from activelabel.baselines import Baseline
from activelabel.baselines.pool import ScoreBaseline


class Central(Baseline):
    """SelectiveLabel-v0: chooses the images that are nearest to the mean of the pool."""

    name = "central"

    def choose(self, pool, clinical, ks):
        """Choose from one pool (N, d), for each K."""
        order = np.argsort(((pool - pool.mean(axis=0)) ** 2).sum(axis=1), kind="stable")
        return {k: order[:k] for k in ks}


class Level(ScoreBaseline):
    """ActiveLabel-v0: chooses where the classifier's probabilities are most alike."""

    name = "level"
    observes = ("probabilities",)

    def score(self, observation):
        """Return how much each candidate is wanted, (B, M)."""
        return -observation["probabilities"].var(axis=-1)
