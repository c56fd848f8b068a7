"""LAL-RL as its authors released it, for :mod:`benchmarks.lal_rl_time`: what each reset and each step compute.

Written from the descriptions of Konyushkova et al. (2018) and of their code: at every reset the data are divided in
halves anew, scaled, and *all* pairwise cosine distances of the training half are computed in data space; at every step
scikit-learn's logistic regression is fitted on the labelled images, and the mean distances are taken from the N x N
matrix by indexing. Nothing here is used by the package.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, pairwise_distances
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from activelabel.agents.qnetworks import LalRlNetwork
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.seeding import stream, torch_stream

DISTANCES: dict[str, Callable[[FloatArray], NDArray[np.float64]]] = {
    "pdist": lambda x: squareform(pdist(x, metric="cosine")),
    "products": lambda x: pairwise_distances(x, metric="cosine"),
}
"""How the N x N matrix is computed: ``pdist``, pair by pair, is what the released code calls; ``products`` is
scikit-learn's matrix product, which is much faster for many features."""

Actions = NDArray[np.float64]


class PublishedEnv:
    """The environment that ends at a target quality.

    Parameters
    ----------
    x: float32 ``(n, d)``.
    y: int64 ``(n,)``, classes.
    budget: labels after which an episode ends at the latest.
    distances: of :data:`DISTANCES`.
    seed: of halves and initial labels.
    n_state: images of the state set.
    tolerance: share of the quality of the whole training half that ends an episode.
    """

    def __init__(
        self,
        x: FloatArray,
        y: IntArray,
        budget: int,
        distances: str = "pdist",
        seed: int = 0,
        n_state: int = 30,
        tolerance: float = 0.98,
    ) -> None:
        self.x, self.y, self.budget, self.n_state, self.tolerance = x, y, budget, n_state, tolerance
        self.distance_matrix = DISTANCES[distances]
        self.rng = stream(seed, "published")
        self.seconds: dict[str, float] = defaultdict(float)
        """Time spent on each part."""

    def reset(self) -> tuple[NDArray[np.float64], Actions]:
        """Divide the data anew and start from one label of each class."""
        self._divide()
        start = time.perf_counter()
        self.distances = self.distance_matrix(self.train)
        self.seconds["distances"] += time.perf_counter() - start
        start = time.perf_counter()
        best = self._fitted(self.train, self.train_labels)
        self.target = self.tolerance * self._quality(best)
        self.seconds["target"] += time.perf_counter() - start
        first = [self.rng.choice(np.flatnonzero(self.train_labels == c)) for c in np.unique(self.train_labels)]
        self.known = np.array(first)
        self.unknown = self.rng.permutation(np.setdiff1d(np.arange(len(self.train)), self.known))
        self.spent = 0
        return self._observe()

    def _divide(self) -> None:
        """Halves at random, scaled as the training half; the state set is taken from it."""
        start = time.perf_counter()
        while True:
            order = self.rng.permutation(len(self.y))
            half = len(order) // 2
            train, test = order[:half], order[half:]
            state, train = train[: self.n_state], train[self.n_state :]
            if len(np.unique(self.y[train])) == len(np.unique(self.y[test])):
                break
        scaler = StandardScaler().fit(self.x[order[:half]])
        self.train, self.train_labels = scaler.transform(self.x[train]), self.y[train]
        self.test, self.test_labels = scaler.transform(self.x[test]), self.y[test]
        self.state = scaler.transform(self.x[state])
        self.seconds["halves"] += time.perf_counter() - start

    def step(self, action: int) -> tuple[NDArray[np.float64], Actions, float, bool]:
        """Label the unlabelled image at a position; returns state, candidates, reward and whether it is over."""
        start = time.perf_counter()
        self.known = np.append(self.known, self.unknown[action])
        self.unknown = np.delete(self.unknown, action)
        self.spent += 1
        state, actions = self._observe()
        over = self._quality(self.model) >= self.target or self.spent == self.budget
        self.seconds["steps"] += time.perf_counter() - start
        return state, actions, -1.0, over

    def _observe(self) -> tuple[NDArray[np.float64], Actions]:
        """Return the sorted p(class 0) on the state set, and for each candidate, ``(n, 3)``, its p(class 0) and its
        mean distances to the unlabelled and to the labelled images."""
        self.model = self._fitted(self.train[self.known], self.train_labels[self.known])
        state = np.sort(self.model.predict_proba(self.state)[:, 0])
        score = self.model.predict_proba(self.train[self.unknown])[:, 0]
        to_unlabelled = self.distances[self.unknown, :][:, self.unknown].mean(axis=0)
        to_labelled = self.distances[self.known, :][:, self.unknown].mean(axis=0)
        return state, np.stack([score, to_unlabelled, to_labelled], axis=1)

    def _fitted(self, x: FloatArray, y: IntArray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression().fit(x, y)

    def _quality(self, model: Any) -> float:
        return float(accuracy_score(self.test_labels, model.predict(self.test)))


@dataclass(frozen=True)
class Step:
    """A step as it is kept: the candidates of the next one as a whole."""

    state: Tensor
    action: Tensor
    reward: float
    next_state: Tensor
    next_actions: Tensor
    over: bool


class PublishedAgent:
    """The agent: Q-network of 10 and 5 sigmoid units, Adam 1e-3, double Q-learning without discount, prioritised replay
    of exponent 0.5, a target network that follows by a hundredth at every gradient step.

    Parameters
    ----------
    n_state: length of the state.
    seed: of weights, exploration and replay.
    """

    def __init__(self, n_state: int, seed: int = 0) -> None:
        self.online, self.old = LalRlNetwork(n_state, 3), LalRlNetwork(n_state, 3)
        self.online.reset_parameters(torch_stream(seed, "weights"))
        self.old.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=1e-3)
        self.rng = stream(seed, "agent")
        self.steps: list[Step] = []
        self.errors: list[float] = []

    def values(self, network: LalRlNetwork, state: Tensor, actions: Tensor) -> Tensor:
        """Return values ``(n,)`` of the candidates ``(n, 3)`` in one state."""
        with torch.no_grad():
            found: Tensor = network(state[None], actions[None])[0]
        return found

    def choose(self, state: Tensor, actions: Tensor, epsilon: float) -> int:
        """Return the position of a candidate; the network is asked in any case."""
        best = int(self.values(self.online, state, actions).argmax())
        return int(self.rng.integers(len(actions))) if self.rng.random() < epsilon else best

    def keep(self, step: Step) -> None:
        """Put a step into the replay buffer, with the largest error so far."""
        self.steps.append(step)
        self.errors.append(max(self.errors, default=1000.0))

    def train(self, batch_size: int) -> None:
        """Make a gradient step; the next step's values are looked up transition by transition."""
        weights = np.array(self.errors) ** 0.5
        size = min(batch_size, len(self.steps))
        chosen = self.rng.choice(len(self.steps), size, replace=False, p=weights / weights.sum())
        batch = [self.steps[i] for i in chosen]
        targets = []
        for step in batch:
            best = self.values(self.online, step.next_state, step.next_actions).argmax()
            following = self.values(self.old, step.next_state, step.next_actions)[best]
            targets.append(step.reward + (0.0 if step.over else float(following)))
        states, actions = torch.stack([s.state for s in batch]), torch.stack([s.action for s in batch])
        error = torch.tensor(targets) - self.online(states, actions[:, None])[:, 0]
        self.optimizer.zero_grad()
        error.square().sum().backward()
        self.optimizer.step()
        for i, found in zip(chosen, error.tolist(), strict=True):
            self.errors[i] = max(abs(found), 1e-12)
        with torch.no_grad():
            for mine, theirs in zip(self.old.parameters(), self.online.parameters(), strict=True):
                mine.lerp_(theirs, 0.01)


def train(env: PublishedEnv, episodes: int, at_once: int, gradient_steps: int, batch_size: int) -> int:
    """Train for some episodes, with gradient steps after every ``at_once`` of them; returns the labels that it took."""
    agent, labels = PublishedAgent(env.n_state), 0
    for episode in range(episodes):
        start = time.perf_counter()
        state, actions = _tensors(*env.reset())
        over = False
        while not over:
            action = agent.choose(state, actions, epsilon=1 - 0.9 * episode / episodes)
            chosen = actions[action]
            found, candidates, reward, over = env.step(action)
            next_state, actions = _tensors(found, candidates)
            agent.keep(Step(state, chosen, reward, next_state, actions, over))
            state, labels = next_state, labels + 1
        if (episode + 1) % at_once == 0 or episode + 1 == episodes:
            for _ in range(gradient_steps):
                agent.train(batch_size)
        print(f"  as published, episode {episode + 1}: {time.perf_counter() - start:.1f} s", flush=True)
    return labels


def _tensors(state: NDArray[np.float64], actions: Actions) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(state).float(), torch.from_numpy(actions).float()
