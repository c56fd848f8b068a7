"""The greedy oracle: an upper bound that knows the labels before it asks for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.pool import Observation, ScoreBaseline, best, repeated
from activelabel.envs.running import RunningEpisodes
from activelabel.errors import SettingsError


class GreedyOracle(ScoreBaseline):
    """Tries some candidates with their true labels and takes the N after which the classifier is best on D_R.

    It is no strategy: it sees the labels of what it does not choose and the reward set. Each candidate is tried alone,
    so a batch is not the best batch. It must be attached to the episodes that the observations come from.

    Parameters
    ----------
    batch, seed: see :class:`PoolBaseline`; the seed decides which candidates are tried.
    tries: how many candidates of each episode are tried, at random among those not labelled; at least N are.
    """

    name = "oracle"

    def __init__(self, batch: int = 5, seed: int = 0, tries: int = 32) -> None:
        super().__init__(batch, seed)
        if tries < 1:
            raise SettingsError(f"tries={tries} must be at least 1.")
        self.tries = tries
        self.episodes: RunningEpisodes | None = None

    def attach(self, episodes: RunningEpisodes) -> None:
        """Set the episodes that ``predict`` will be asked about: ``env.unwrapped.episodes``."""
        self.episodes = episodes

    def score(self, observation: Observation) -> NDArray[np.float64]:
        """Return the metric on D_R with each candidate, ``(B, M)``; -1 where it was not tried.

        Raises
        ------
        SettingsError: if no episodes are attached, the observation is not their present one, or they are not equally
            far.
        """
        episodes, free = self.episodes, observation["action_mask"]
        if episodes is None:
            raise SettingsError("the oracle plays nothing yet: attach it first, oracle.attach(env.unwrapped.episodes).")
        present = episodes.mask.cpu().numpy()
        if free.shape != present.shape or (free != present).any():
            raise SettingsError(
                f"the observation of {free.shape[0]} episodes and {free.shape[1]} candidates is not the present one of "
                f"the {present.shape[0]} attached; attach the oracle to the environment that plays."
            )
        scores = np.full(free.shape, -1.0)
        if episodes.over.all():
            return scores
        if len(set(episodes.filled[~episodes.over].tolist())) > 1:
            raise SettingsError("the oracle needs episodes that are equally far: reset all of them together.")
        tried = repeated(best(self._rng.random(free.shape), free, min(max(self.tries, self.batch), free.shape[1])))
        np.put_along_axis(scores, tried, episodes.try_labels(tried), axis=1)
        return scores
