"""An episode of ``ActiveLabel-v0`` written from the definitions alone: float64, one episode, nothing kept running."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings
from activelabel.seeding import stream

Array = NDArray[np.float64]


def spaces(cohort: Cohort, train: NDArray[np.int64], settings: ActiveLabelSettings) -> tuple[Array, Array]:
    """Features in data space and in latent space; the axes of the latter may point the other way."""
    x = cohort.embedded().astype(np.float64)
    if settings.standardize:
        deviation = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(deviation > 1e-8, deviation, 1)
    latent = x
    if settings.components is not None:
        latent = x - x[train].mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(latent[train].T))
        latent = latent @ axes[:, ::-1][:, : settings.components]
    return x, latent / np.sqrt((latent[train] ** 2).sum(axis=1).mean())


def softmax(scores: Array) -> Array:
    """Probabilities of the classes of each image, ``(n, C)``."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def gradient_descent(
    x: Array, labels: list[int], n_classes: int, c: float, epochs: int, start: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Weights ``(C, d)`` and biases ``(C,)`` of a softmax classifier after Nesterov's descent.

    Of ``mean cross-entropy + |W|^2 / (2 c n)``, whose curvature is at most half the norm of ``X'X / n`` (X with a
    column of ones for the biases) plus ``1 / (c n)``.
    """
    n = len(x)
    decay = 1 / (c * n)
    ones = np.column_stack([x, np.ones(n)])
    step = 1 / (0.5 * np.linalg.norm(ones.T @ ones) / n + decay)
    root = np.sqrt(step * decay)
    target = np.eye(n_classes)[labels]
    w, b = (np.zeros((n_classes, x.shape[1])), np.zeros(n_classes)) if start is None else start
    ahead_w, ahead_b = w, b
    for epoch in range(epochs):
        error = (softmax(x @ ahead_w.T + ahead_b) - target) / n
        new_w = ahead_w - step * (error.T @ x + decay * ahead_w)
        new_b = ahead_b - step * error.sum(axis=0)
        momentum = min(epoch / (epoch + 3), (1 - root) / (1 + root))
        ahead_w, ahead_b = new_w + momentum * (new_w - w), new_b + momentum * (new_b - b)
        w, b = new_w, new_b
    return w, b


def quality(metric: str, probabilities: Array, labels: list[int]) -> float:
    """The metric on a set of images."""
    right = [int(np.argmax(p)) == label for p, label in zip(probabilities, labels, strict=True)]
    classes = range(probabilities.shape[1])
    if metric == "accuracy":
        return float(np.mean(right))
    if metric == "balanced-accuracy":
        shares = [[r for r, label in zip(right, labels, strict=True) if label == c] for c in classes]
        return float(np.mean([np.mean(share) for share in shares]))
    columns = [reference.auroc(list(probabilities[:, c]), [label == c for label in labels]) for c in classes]
    return float(np.mean(columns))


def pick(draw: float, shares: list[float]) -> int:
    """The first of shares, one behind the other, that a number from 0 to 1 does not go beyond."""
    total = float(sum(shares))
    return [i for i in range(len(shares)) if draw * total < sum(shares[: i + 1])][0]  # noqa: RUF015


def ask(oracle: Any, given: dict[str, Any], draws: list[float], truth: int, n_classes: int) -> tuple[int, int]:
    """What a label of an oracle costs, and what it is, -1 where there is no answer."""
    if oracle == "perfect":
        return 1, truth
    errors = given.get("errors", [given.get("confusion", given.get("rate"))])
    costs, abstain, shares = (given.get(name) for name in ("costs", "abstain", "shares"))
    if oracle == "abstaining":
        errors, abstain = [0.0], [given["rate"]]
    which, silent, wrong, other = draws
    who = pick(which, shares or [1] * len(errors))
    cost, error = costs[who] if costs else 1, errors[who]
    if abstain and silent < abstain[who]:
        return cost, -1
    if isinstance(error, float):
        given_to = [1 - error if c == truth else 1.0 for c in range(n_classes)]
    else:
        given_to = error[truth]
    if wrong >= 1 - given_to[truth]:
        return cost, truth
    return cost, pick(other, [0 if c == truth else share for c, share in enumerate(given_to)])


def listed(value: Any) -> Any:
    """Arrays of objects, as the infos of vector envs have them, as lists, so that NumPy's assertions compare them."""
    if isinstance(value, dict):
        return {key: listed(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [listed(entry) for entry in value]
    return value


def play(env: Any, seed: int = 0, **options: Any) -> list[Any]:
    """An episode of random candidates, repeated and labelled ones among them."""
    rng = np.random.default_rng(seed)
    s = env.engine.settings
    played: list[Any] = [env.reset(seed=seed, options=options)]
    while len(played) == 1 or not played[-1][2]:
        action = rng.integers(env.engine.m, size=s.batch)
        played.append(env.step(action[0] if s.batch == 1 else action))
    return played


class SlowEpisode:
    """One episode; images are called by their rows of the cohort throughout.

    Parameters
    ----------
    engine: says which rows the four parts and the pool of an episode hold.
    number: of the episode.
    """

    def __init__(self, engine: ActiveLabelEngine, number: int) -> None:
        self.s = engine.settings
        self.data, self.latent = spaces(engine.cohort, engine.splits.train, self.s)
        self.parts = {name: rows.tolist() for name, rows in engine.sampler.rows.items()}
        self.columns = [engine.cohort.class_index(name) for name in engine.classes]
        self.truth = engine.cohort.labels
        drawn = engine.sampler.batch([number])
        self.pool = [self.parts["pool"][i] for i in drawn.pool[0]]
        self.labelled = [self.pool[i] for i in drawn.initial[0]]
        self.asked = list(self.labelled)
        self.answers = [self.label(row) for row in self.labelled]
        drawn_of_images = stream(self.s.episode_seed, self.s.split, "oracle", number).random((len(self.pool), 4))
        self.draws = dict(zip(self.pool, drawn_of_images.tolist(), strict=True))
        self.spent = 0
        self.model: tuple[Array, Array] | None = None
        self.curve: list[tuple[int, float]] = []
        self.train()

    def label(self, row: int) -> int:
        """The class of an image."""
        return [i for i, column in enumerate(self.columns) if self.truth[row, column] == 1][0]  # noqa: RUF015

    def ask(self, row: int) -> tuple[int, int]:
        """What the label of an image costs, and what it is, -1 where there is no answer."""
        return ask(self.s.oracle, self.s.oracle_arguments, self.draws[row], self.label(row), len(self.columns))

    def fit(
        self, rows: list[int], start: tuple[Array, Array] | None, answers: list[int] | None = None
    ) -> tuple[Array, Array]:
        """Train a classifier, by default on true labels."""
        arguments: dict[str, Any] = dict(self.s.learner_arguments)
        n_classes, labels = len(self.columns), answers or [self.label(row) for row in rows]
        if self.s.learner == "logistic":
            c = arguments.get("c", 1.0) * self.latent.shape[1] / (2 if n_classes == 2 else 1)
            return gradient_descent(self.latent[rows], labels, n_classes, c, arguments.get("max_iter", 1000))
        start = start if arguments.get("warm") else None
        c, epochs = arguments.get("c", 30.0), arguments.get("epochs", 200)
        return gradient_descent(self.latent[rows], labels, n_classes, c, epochs, start)

    def train(self) -> None:
        """Train the classifier on what is labelled, and judge it."""
        self.model = self.fit(self.labelled, self.model, self.answers)
        self.quality = self.judge("reward", self.model)
        self.curve.append((self.spent, self.judge("test", self.model)))

    def predict(self, rows: list[int], model: tuple[Array, Array] | None = None) -> Array:
        """Class probabilities of images."""
        w, b = model or self.model or ()
        return softmax(self.latent[rows] @ w.T + b)

    def judge(self, part: str, model: tuple[Array, Array]) -> float:
        """The metric on a part."""
        return quality(
            self.s.metric, self.predict(self.parts[part], model), [self.label(row) for row in self.parts[part]]
        )

    def target(self) -> float:
        """What ends an episode of ``reward="target"``."""
        return self.s.tolerance * self.judge("reward", self.fit(self.parts["pool"], None))

    def step(self, rows: list[int], mask: list[int], action: list[int]) -> tuple[float, bool, list[int]]:
        """Label candidates; returns reward, whether the episode is over, and the rows asked about, or -1."""
        ids = [-1] * len(action)
        for place, index in enumerate(action):
            new = mask[index] and rows[index] not in self.asked
            cost, answer = self.ask(rows[index]) if new else (1, -1)
            self.spent += cost
            if self.spent > self.s.budget:  # cannot be paid, nor what comes after it
                break
            if new:
                self.asked.append(rows[index])
                ids[place] = rows[index]
            if answer >= 0:
                self.labelled.append(rows[index])
                self.answers.append(answer)
        self.spent = min(self.spent, self.s.budget)
        before = self.quality
        self.train()
        over = self.spent == self.s.budget
        if self.s.reward == "target":
            return -1.0, over or self.quality >= self.target(), ids
        return self.quality - before, over, ids

    def distance(self, row: int, others: list[int]) -> Array:
        """Distances of an image to others."""
        points = self.latent if self.s.space == "latent" else self.data
        if self.s.distance == "cosine":
            lengths = np.linalg.norm(points[others], axis=1) * np.linalg.norm(points[row])
            return 1 - points[others] @ points[row] / lengths
        return np.sqrt(((points[others] - points[row]) ** 2).sum(axis=1))

    def features(self, row: int) -> dict[str, float]:
        """Every feature of a candidate."""
        p = self.predict([row])[0]
        best = sorted(p, reverse=True)
        unlabelled = [other for other in self.pool if other not in self.labelled]
        to_labelled = self.distance(row, self.labelled)
        to_others = np.sort(self.distance(row, [other for other in self.parts["pool"] if other != row]))
        return {
            "confidence": best[0],
            "probability": p[0],
            "margin": best[0] - best[1],
            "entropy": -sum(q * np.log(q) for q in p) / np.log(len(p)),
            "labelled": to_labelled.mean(),
            "unlabelled": self.distance(row, unlabelled).mean() if unlabelled else 0.0,
            "nearest": to_labelled.min(),
            "density": 1 / (1 + to_others[:10].mean()),
            "balance": sum(q * self.answers.count(c) / len(self.answers) for c, q in enumerate(p)),
            "cost": self.ask(row)[0] / np.mean([self.ask(other)[0] for other in self.pool]),
        }

    def state(self) -> list[float]:
        """The numbers that describe the classifier."""
        p = self.predict(self.parts["state"])
        described = {
            "confidence": sorted(p.max(axis=1)),
            "probability": sorted(p[:, 0]),
            # Image by image of the order, and class by class within.
            "per-class": np.sort(p, axis=0).flatten().tolist(),
            "progress": [self.spent / self.s.budget],
        }
        return [float(number) for name in self.s.state for number in described[name]]
