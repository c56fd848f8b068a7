"""Slow, obvious references that the batched computations are compared with."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Cosine of two vectors; 0 where one has no length."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def auroc(scores: list[float], labels: list[bool]) -> float:
    """Share of pairs of a positive and a negative that are ranked right, ties one half."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    right = sum((p > n) + 0.5 * (p == n) for p, n in itertools.product(positives, negatives))
    return right / (len(positives) * len(negatives))


def prototype_score(support: list[NDArray[np.float64]], labels: list[bool], image: NDArray[np.float64]) -> float:
    """Cosine to the mean positive less cosine to the mean negative."""
    terms = []
    for wanted in (True, False):
        mine = [s for s, label in zip(support, labels, strict=True) if label is wanted]
        terms.append(cosine(np.mean(mine, axis=0), image) if mine else 0.0)
    return terms[0] - terms[1]


def mean_cosine_score(support: list[NDArray[np.float64]], labels: list[bool], image: NDArray[np.float64]) -> float:
    """Mean cosine to the positives less mean cosine to the negatives."""
    terms = []
    for wanted in (True, False):
        mine = [cosine(s, image) for s, label in zip(support, labels, strict=True) if label is wanted]
        terms.append(float(np.mean(mine)) if mine else 0.0)
    return terms[0] - terms[1]


SCORES: dict[str, Callable[..., float]] = {"prototype": prototype_score, "mean-cosine": mean_cosine_score}
"""The reference of each predictor; a newly registered predictor needs one here to be tested."""


def reward(
    name: str,
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    query: NDArray[np.int64],
    query_labels: NDArray[np.bool_],
    *,
    once: bool = True,
) -> float:
    """AUROC on the query set of a predictor fitted on the given rows, one image at a time."""
    kept: dict[int, int] = {}
    for position, row in enumerate(rows.tolist()):
        kept.setdefault(row if once else position, position)
    positions = list(kept.values())
    support = [features[rows[p]].astype(np.float64) for p in positions]
    known = [bool(labels[p]) for p in positions]
    scores = [SCORES[name](support, known, features[q].astype(np.float64)) for q in query]
    # Rounded as the package rounds: what differs in the last bits of a sum ties.
    return auroc([float(np.float32(s)) for s in scores], [bool(label) for label in query_labels])


def plackett_luce(logits: list[float], selection: tuple[int, ...]) -> float:
    """Log-probability of drawing the images in this order without replacement."""
    left = set(range(len(logits)))
    total = 0.0
    for image in selection:
        top = max(logits[i] for i in left)
        total += logits[image] - top - math.log(sum(math.exp(logits[i] - top) for i in left))
        left.remove(image)
    return total


@contextmanager
def global_rng_untouched() -> Iterator[None]:
    """Fail if the block reads or writes a global generator of Python, NumPy or torch."""
    before = _global_states()
    yield
    assert _global_states() == before


def _global_states() -> tuple[Any, ...]:
    kind, words, *rest = np.random.get_state()  # noqa: NPY002 (its state is what is checked)
    return random.getstate(), (kind, words.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


def digest(tensors: dict[str, Any]) -> str:
    """A hash of nested dicts of tensors and numbers, equal only if every bit is."""
    summary = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                summary.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for element in value:
                add(element)
        elif isinstance(value, torch.Tensor):
            summary.update(value.detach().cpu().numpy().tobytes())
        else:
            summary.update(repr(value).encode())

    add(tensors)
    return summary.hexdigest()
