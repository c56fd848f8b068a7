"""Uncertainty, margin, entropy and average confidence choose what modAL chooses.

modAL needs a scikit-learn that is older than the newest, so these tests run in an environment of its own.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from pool_play import play
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from activelabel.baselines import make_pool_baseline
from activelabel.envs.candidates import entropy, margin

REASON = ""
if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 8):
    REASON = f"modAL does not work with scikit-learn {sklearn.__version__}"
else:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what it imports compares versions with distutils
            from modAL import models, multilabel, uncertainty
    except ImportError as error:
        REASON = f"modAL cannot be imported ({error})"
if REASON:
    pytest.skip(
        f'{REASON}: pip install "activelabel[test,modal]" in an environment of its own', allow_module_level=True
    )

THEIRS = {
    "uncertainty": uncertainty.uncertainty_sampling,
    "margin": uncertainty.margin_sampling,
    "entropy": uncertainty.entropy_sampling,
}
C = 5


class Known:
    """A classifier that knows its probabilities already."""

    def __init__(self, probabilities: NDArray[Any]) -> None:
        self.probabilities = probabilities

    def predict_proba(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.probabilities[x[:, 0]]


def chosen_by(name: str, probabilities: NDArray[Any], n: int, mask: NDArray[Any] | None = None) -> list[int]:
    mask = np.ones(len(probabilities), np.int8) if mask is None else mask
    chosen, _ = make_pool_baseline(name, n).predict({"action_mask": mask, "probabilities": probabilities})
    return sorted(np.atleast_1d(chosen).tolist())


def data(seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(C), rng.integers(C, size=25)])
    images = rng.standard_normal((C, 6))[classes] + rng.standard_normal((30, 6))
    return images, classes, rng.standard_normal((200, 6)) * 1.5


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_an_active_learner_asks_for_the_same_images(name: str, n: int, seed: int) -> None:
    images, classes, pool = data(seed)
    learner = models.ActiveLearner(
        LogisticRegression(), query_strategy=THEIRS[name], X_training=images, y_training=classes
    )
    theirs = sorted(learner.query(pool, n_instances=n)[0].tolist())
    assert chosen_by(name, learner.predict_proba(pool), n) == theirs


@pytest.mark.parametrize("c", [2, 8])
def test_the_measures_are_equal(c: int) -> None:
    probabilities = np.random.default_rng(c).dirichlet(np.ones(c), 300)
    classifier, rows = Known(probabilities), np.arange(300)[:, None]
    ours = torch.from_numpy(probabilities)
    np.testing.assert_allclose(margin(ours).numpy(), uncertainty.classifier_margin(classifier, rows), atol=1e-14)
    theirs = uncertainty.classifier_entropy(classifier, rows) / np.log(c)
    np.testing.assert_allclose(entropy(ours).numpy(), theirs, rtol=1e-12)


@pytest.mark.parametrize("name", THEIRS)
def test_they_agree_on_what_the_environment_shows(name: str) -> None:
    agent, envs = play(name, 3)
    observation, _ = envs.reset(seed=0)
    for _ in range(4):
        actions, _ = agent.predict(observation)
        for b, row in enumerate(actions):
            free = np.flatnonzero(observation["action_mask"][b])
            classifier = Known(observation["probabilities"][b].astype(np.float64))
            theirs, _ = THEIRS[name](classifier, free[:, None], n_instances=3)
            assert sorted(row.tolist()) == sorted(free[theirs].tolist())
        observation = envs.step(actions)[0]


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_average_confidence_of_several_labels_an_image(n: int, seed: int) -> None:
    images, classes, pool = data(seed)
    several = np.eye(C, dtype=np.int64)[classes] | np.eye(C, dtype=np.int64)[classes[::-1]]
    model = OneVsRestClassifier(LogisticRegression()).fit(images, several)
    theirs, _ = multilabel.avg_confidence(model, pool, n_instances=n)
    assert chosen_by("average-confidence", model.predict_proba(pool), n) == sorted(theirs.tolist())


def test_average_confidence_of_exclusive_classes_is_a_tie_in_modal_too() -> None:
    """Its mean is ``1 / C`` for every image but for rounding, which decides there; here the order decides."""
    images, classes, pool = data(0)
    model = LogisticRegression().fit(images, classes)
    _, means = multilabel.avg_confidence(model, pool, n_instances=len(pool))
    np.testing.assert_allclose(means, 1 / C, atol=1e-15)
    assert chosen_by("average-confidence", model.predict_proba(pool), 4) == [0, 1, 2, 3]
