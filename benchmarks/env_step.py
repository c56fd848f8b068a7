"""One step of ``ActiveLabel-v0`` against the same step written plainly with scikit-learn, episode by episode.

::

    python -m benchmarks.env_step --repeats 5

64 episodes, pools of 1000, 512 numbers an image, 8 classes, 50 labelled images. A step labels N candidates, trains
every classifier, judges it on the reward, state and test set, scores all candidates and describes them (the paper's
three features). Both minimise the same loss. They take turns, and the ratio is of their medians.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from activelabel.data import Cohort, Source
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, RunningEpisodes
from activelabel.envs.learners import SoftmaxHead


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 5
    """Timed turns of each contestant, after one that is not counted."""
    episodes: int = 64
    """Episodes played as one batch, B."""
    batch: tuple[int, ...] = (5, 1)
    """Labels a step, N."""
    labelled: int = 50
    """Images that are labelled when the clock starts."""
    pool: int = 1000
    """Images in the pool."""
    classes: int = 8
    """Classes to tell apart."""
    dim: int = 512
    """Numbers an image."""
    learner: tuple[str, ...] = ("softmax", "logistic")
    """Learners of the batched engine."""
    max_iter: int = 200
    """Iterations that scikit-learn may take."""


def main(settings: Settings) -> None:
    """Measure and print the ratios."""
    s = settings
    sizes = f"{s.episodes} episodes, pool {s.pool} x {s.dim}, {s.classes} classes, {s.labelled} labelled"
    print(f"{torch.get_num_threads()} threads, {sizes}, {s.repeats} repeats")
    print(f"{'learner':>9} {'N':>2} {'ms/episode':>11} {'scikit-learn':>13} {'ratio':>6} {'steps/s':>8} {'their':>8}")
    for learner in s.learner:
        for batch in s.batch:
            ours, plain = measure(make_engine(s, learner, batch), s)
            figures = (
                f"{ours * 1e3:>11.2f} {plain * 1e3:>13.2f} {ours / plain:>6.3f} {1 / ours:>8.0f} {1 / plain:>8.0f}"
            )
            print(f"{learner:>9} {batch:>2} {figures}", flush=True)


def make_engine(settings: Settings, learner: str, batch: int, budget: int | None = None) -> ActiveLabelEngine:
    """Return an engine on generated images; by default for ten steps more than there are labelled images."""
    s = settings
    rng = np.random.default_rng(0)
    n = s.pool + sum(OTHERS)
    features = rng.standard_normal((n + 2, s.dim)).astype(np.float32)
    features[:n] += 0.1 * rng.standard_normal((s.classes, s.dim))[np.arange(n) % s.classes]
    cohort, parts = generated(features, s.classes)
    budget = s.labelled - s.classes + 10 * batch if budget is None else budget
    return ActiveLabelEngine(
        cohort, ActiveLabelSettings.make(budget=budget, batch=batch, pool=s.pool, learner=learner, **parts)
    )


OTHERS = (30, 300, 150)
"""Images of the state, reward and test part."""


def generated(features: NDArray[np.float32], classes: int) -> tuple[Cohort, dict[str, Any]]:
    """Return a cohort of features, and the settings of ``ActiveLabel-v0`` with which the pool part has all its images
    but those of the other parts, and two.

    Parameters
    ----------
    features: float32 ``(n, d)``.
    classes: how many; they take turns.
    """
    n = len(features) - 2
    # A published split whose training part holds all images, but for one each.
    split = np.array(["train"] * n + ["val", "test"])
    labels = np.eye(classes, dtype=np.int8)[[*(np.arange(n) % classes), 0, 0]]
    names = tuple(f"class {i}" for i in range(classes))
    cohort = Cohort(labels, names, features, split=split, source=Source("generated"))
    shares = tuple(float(size / n) for size in (n - sum(OTHERS), *OTHERS))
    return cohort, {"fractions": "published", "shares": shares}


def measure(engine: ActiveLabelEngine, settings: Settings) -> tuple[float, float]:
    """Return the median seconds of a step of one episode: of the engine, and of scikit-learn."""
    episodes = RunningEpisodes(engine, settings.episodes)
    batch = engine.settings.batch
    ours, plain = [], []
    for turn in range(settings.repeats + 1):
        episodes.begin(np.arange(settings.episodes), np.arange(settings.episodes) + turn * settings.episodes)
        rng = np.random.default_rng(turn)
        while episodes.spent[0] + engine.n_initial < settings.labelled:
            episodes.label(_choose(episodes, rng))
        loop = [PlainEpisode(engine, episodes, i, settings.max_iter) for i in range(settings.episodes)]
        actions = _choose(episodes, rng)
        start = time.perf_counter()
        episodes.label(actions)
        episodes.observe()
        middle = time.perf_counter()
        for episode, action in zip(loop, actions, strict=True):
            episode.step(action)
        end = time.perf_counter()
        assert all(len(episode.labelled) == episodes.spent[0] + engine.n_initial for episode in loop), batch
        if turn:
            ours.append((middle - start) / settings.episodes)
            plain.append((end - middle) / settings.episodes)
    return statistics.median(ours), statistics.median(plain)


def _choose(episodes: RunningEpisodes, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return random candidates that are not labelled."""
    keys = rng.random(tuple(episodes.mask.shape)) + ~episodes.mask.cpu().numpy()
    chosen: NDArray[np.int64] = keys.argsort(axis=1)[:, : episodes.engine.settings.batch]
    return chosen


class PlainEpisode:
    """One episode as one would write it for scikit-learn: NumPy arrays, a classifier, running sums of distances.

    Parameters
    ----------
    engine: the data.
    episodes, i: the running episode that it starts as.
    max_iter: iterations that scikit-learn may take.
    """

    def __init__(self, engine: ActiveLabelEngine, episodes: RunningEpisodes, i: int, max_iter: int) -> None:
        position = episodes.pool[i].cpu().numpy()
        self.x = {part: x.cpu().numpy() for part, x in engine.x.items()}
        self.y = {part: y.cpu().numpy() for part, y in engine.y.items()}
        self.x["pool"], self.y["pool"] = self.x["pool"][position], self.y["pool"][position]
        self.labelled = episodes.slots[i][episodes.weight[i] > 0].tolist()
        self.sums = [s[i].cpu().numpy().astype(np.float64) for s in (episodes.sum_labelled, episodes.sum_unlabelled)]
        # The engine's logistic regression counts its c for features of unit variance each.
        c = SoftmaxHead().c if engine.settings.learner == "softmax" else engine.x["pool"].shape[1]
        self.classifier = LogisticRegression(C=c, max_iter=max_iter)

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Label candidates; returns their features, the state, and the accuracies on reward and test set."""
        for slot in action:
            self.labelled.append(int(slot))
            d = np.linalg.norm(self.x["pool"] - self.x["pool"][slot], axis=1)
            self.sums[0] += d
            self.sums[1] -= d
        model = self.classifier.fit(self.x["pool"][self.labelled], self.y["pool"][self.labelled])
        p = {part: model.predict_proba(x) for part, x in self.x.items()}
        n, size = len(self.labelled), len(self.x["pool"])
        features = np.stack([p["pool"].max(axis=1), self.sums[0] / n, self.sums[1] / (size - n)], axis=1)
        accuracies = [np.mean(p[part].argmax(axis=1) == self.y[part]) for part in ("reward", "test")]
        return features, np.sort(p["state"].max(axis=1)), np.array(accuracies)


if __name__ == "__main__":
    main(tyro.cli(Settings))
