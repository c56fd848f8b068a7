"""The classifiers that an episode trains, behind one small protocol, for many episodes at once."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from activelabel import plugins
from activelabel.envs.descent import LinearModel, descend
from activelabel.envs.finetune import FineTune
from activelabel.errors import SettingsError


class Model(Protocol):
    """Fitted classifiers of ``B`` episodes."""

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return class probabilities ``(B, n, C)`` of images ``(n, d)`` shared by all, or ``(B, n, d)``."""


class ImageModel(Model, Protocol):
    """What a learner of images returns; its images are uint8 ``(n, H, W, 1 or 3)``, or with B before them."""

    def latent(self, x: Tensor) -> Tensor:
        """Return the latent features ``(B, n, d)`` of images, such as what goes into the last linear layer."""


class Learner(Protocol):
    """What trains a classifier on labelled images.

    A learner of your own needs this one method; see :class:`SklearnLearner` for one that wraps any scikit-learn
    classifier. It is given features. One that has ``on_images = True`` is given images instead, uint8
    ``(B, L, H, W, 1 or 3)``, one episode at a time, and its models are :class:`ImageModel`; it has ``latent_size``, the
    d of their latent features, and may have ``size``, the side of the square that images are scaled to.
    """

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> Model:
        """Fit one classifier an episode.

        Parameters
        ----------
        x: float32 ``(B, L, d)``, the labelled images, in the order in which they were labelled.
        y: int64 ``(B, L)``, their classes, 0 to ``n_classes - 1``.
        weight: float32 ``(B, L)``, 1, or 0 for a place that holds no image: nothing of it may have an effect.
        n_classes: how many classes there are; all of them are among the labelled images.
        previous: what the last model of the same episodes had as ``warm``, padded with zeros; None at the start of an
            episode and for learners whose models have no ``warm``.
        """


class SoftmaxHead:
    """A linear layer with softmax on frozen features, trained by full-batch gradient descent (§4.1, §4.2).

    It minimises ``mean cross-entropy + ||W||^2 / (2 c L)`` from zero, with Nesterov's momentum and the step that the
    curvature allows, for a fixed number of epochs; the bias is not regularised. From zero, every iterate is a
    combination of the labelled images, so the descent runs on their ``L x L`` inner products, whatever ``d`` is.

    Parameters
    ----------
    c: inverse strength of the regularisation, as scikit-learn's ``C``.
    epochs: passes over the labelled images.
    warm: start from the last model of the episode instead of from zero; not in an episode that starts from more than
        1024 labels, and from more than features.
    """

    def __init__(self, c: float = 30.0, epochs: int = 200, warm: bool = False) -> None:
        if not c > 0 or epochs < 1:
            raise SettingsError(f"c={c} must be positive and epochs={epochs} at least 1.")
        self.c, self.epochs, self.warm = c, epochs, warm

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> LinearModel:
        """See :class:`Learner`."""
        return descend(x, y, weight, n_classes, self.c, self.epochs, previous if self.warm else None)


class LogisticRegression:
    """Logistic regression for many episodes at once: scikit-learn's ``LogisticRegression(C=c)``, as near to its optimum
    as that one's default comes.

    Parameters
    ----------
    c: inverse strength of the regularisation for features of unit variance each (the engine's have unit mean squared
        norm), so that the default is scikit-learn's default on standardised data, as LAL-RL uses it.
    max_iter: steps of the descent at most.
    tolerance: it ends earlier where no entry of the gradient is larger.
    """

    warm = False

    def __init__(self, c: float = 1.0, max_iter: int = 1000, tolerance: float = 3e-5) -> None:
        if not c > 0 or max_iter < 1 or not tolerance > 0:
            raise SettingsError(f"c={c} and tolerance={tolerance} must be positive, max_iter={max_iter} at least 1.")
        self.c, self.max_iter, self.tolerance = c, max_iter, tolerance

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> LinearModel:
        """See :class:`Learner`."""
        # Two weight vectors share the penalty of scikit-learn's one.
        c = self.c * x.shape[-1] / (2 if n_classes == 2 else 1)
        return descend(x, y, weight, n_classes, c, self.max_iter, None, self.tolerance)


class SklearnLearner:
    """Any scikit-learn classifier with ``predict_proba``, fitted in a loop over episodes.

    Parameters
    ----------
    estimator: it is cloned for every fit.
    """

    warm = False

    def __init__(self, estimator: Any) -> None:
        if not hasattr(estimator, "predict_proba"):
            raise SettingsError(f"{estimator!r} has no predict_proba; give a classifier that has.")
        self.estimator = estimator

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> SklearnModel:
        """See :class:`Learner`."""
        from sklearn.base import clone

        fitted = []
        for images, classes, there in zip(x.cpu().numpy(), y.cpu().numpy(), weight.cpu().numpy() > 0, strict=True):
            fitted.append(clone(self.estimator).fit(images[there], classes[there]))
        return SklearnModel(fitted, n_classes)


class SklearnModel:
    """One fitted scikit-learn classifier an episode."""

    def __init__(self, fitted: list[Any], n_classes: int) -> None:
        self.fitted, self.n_classes = fitted, n_classes

    def predict_proba(self, x: Tensor) -> Tensor:
        """See :class:`Model`."""
        images = x.cpu().numpy()
        out = np.zeros((len(self.fitted), images.shape[-2], self.n_classes), np.float32)
        for i, estimator in enumerate(self.fitted):
            out[i][:, estimator.classes_] = estimator.predict_proba(images if x.ndim == 2 else images[i])
        return torch.from_numpy(out).to(x.device)


LEARNERS: dict[str, type[SoftmaxHead] | type[LogisticRegression]] = {
    "softmax": SoftmaxHead,
    "logistic": LogisticRegression,
}
"""The learners of features by name."""

IMAGE_LEARNERS: dict[str, type[FineTune]] = {"finetune": FineTune}
"""The learners of images by name."""


def make_learner(learner: str | Learner, **arguments: Any) -> Learner:
    """Return a learner by name, or the given one.

    Parameters
    ----------
    learner: a name of :data:`LEARNERS` or :data:`IMAGE_LEARNERS`, or one of your own, a class path or the name of an
        entry point (:mod:`activelabel.plugins`); or a learner.
    **arguments: of a learner that is given by name.

    Raises
    ------
    SettingsError: if the name is unknown, an argument is, or the object has no ``fit``.
    """
    if not isinstance(learner, str):
        if arguments:
            raise SettingsError(f"learner arguments {arguments} go with a name, not with an object.")
        return _with_fit(learner)
    factory = plugins.find("learner", learner, {**LEARNERS, **IMAGE_LEARNERS})
    try:
        return _with_fit(factory(**arguments))
    except TypeError as error:
        raise SettingsError(f"learner '{learner}': {error}.") from None


def _with_fit(learner: Any) -> Learner:
    if not callable(getattr(learner, "fit", None)):
        raise SettingsError(f"learner={learner!r} has no fit(x, y, weight, n_classes, previous).")
    return learner  # type: ignore[no-any-return]


def checked(probabilities: Any, shape: tuple[int, int, int], learner: Learner) -> Tensor:
    """Return what a model predicted, float32.

    Raises
    ------
    SettingsError: if it is not a tensor of that shape, or has values that are not finite or outside 0 to 1.
    """
    values, low, high = _finite(probabilities, shape, learner, "predict_proba")
    if low < -1e-4 or high > 1 + 1e-4:
        raise SettingsError(
            f"learner {type(learner).__name__}: predict_proba returned values outside 0 to 1, such as scores or logits."
        )
    return values


def checked_latent(model: Any, x: Tensor, size: int, learner: Learner) -> Tensor:
    """Return the latent features of images ``(B, n, H, W, 1 or 3)``, float32 ``(B, n, size)``.

    Raises
    ------
    SettingsError: if the model has no ``latent``, or it returns something else, or values that are not finite.
    """
    if not callable(getattr(model, "latent", None)):
        raise SettingsError(f"learner {type(learner).__name__}: a model on images must have latent(x).")
    return _finite(model.latent(x), (*x.shape[:2], size), learner, "latent")[0]


def _finite(found: Any, shape: tuple[int, ...], learner: Learner, method: str) -> tuple[Tensor, float, float]:
    """Return what a model returned, float32, with its smallest and its largest value."""
    name = type(learner).__name__
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        got = tuple(found.shape) if hasattr(found, "shape") else type(found).__name__
        raise SettingsError(f"learner {name}: {method} must return a tensor {shape}, got {got}.")
    values: Tensor = found.float()
    low, high = (float(limit) for limit in values.aminmax())  # NaN if any value is
    if not math.isfinite(low) or not math.isfinite(high):
        raise SettingsError(f"learner {name}: {method} returned values that are NaN or infinite.")
    return values, low, high
