"""What strategies and agents see of a folder: the classifier of the labels so far, and where images lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data import Cohort, Standardizer
from activelabel.data.cohort import IntArray
from activelabel.envs.candidates import FEATURES, PROGRESS, STATES, Candidates
from activelabel.envs.distances import Geometry, scaled
from activelabel.envs.learners import Learner, Model, checked
from activelabel.settings import ActiveRunSettings


@dataclass(frozen=True, eq=False)
class View:
    """What is known when a batch is chosen.

    Parameters
    ----------
    cohort: all images, with features.
    candidates: int64 ``(m,)``, rows that may be chosen, in random order, so that ties are broken at random.
    labelled: int64 ``(l,)``, rows of the labelled images.
    labels: int64 ``(l,)``, their classes.
    classes: names of the classes that are among the labels.
    learner: the classifier that strategies ask.
    """

    cohort: Cohort
    candidates: IntArray
    labelled: IntArray
    labels: IntArray
    classes: tuple[str, ...]
    learner: Learner


def latent(cohort: Cohort, components: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the features as ``ActiveLabel-v0`` has them: data space and latent space, float32 ``(n, d)``.

    Standardised, and in latent space scaled to unit mean squared norm, after principal components where asked for (at
    most as many as there are images); fitted on all images, labelled or not.
    """
    raw = cohort.embedded()
    data = Standardizer.fit(cohort, np.arange(len(raw))).features(raw)
    space = data
    if components is not None:
        from sklearn.decomposition import PCA

        model = PCA(min(components, *data.shape), svd_solver="covariance_eigh")
        space = model.fit_transform(data).astype(np.float32)
    return torch.from_numpy(data), scaled(torch.from_numpy(space))


def fit(learner: Learner, x: Tensor, labels: IntArray, classes: int) -> Model:
    """Return one classifier of images ``(l, d)`` with classes ``(l,)``."""
    return learner.fit(x[None], torch.from_numpy(labels)[None], torch.ones(1, len(x)), classes, None)


def probabilities(view: View, x: Tensor, model: Model) -> Tensor:
    """Return the class probabilities ``(n, C)`` of images ``(n, d)``."""
    return checked(model.predict_proba(x), (1, len(x), len(view.classes)), view.learner)[0]


def observe(view: View, space: Tensor, wanted: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return an observation of ``ActiveLabel-v0`` for a baseline, one episode.

    Parameters
    ----------
    view: what is known.
    space: latent features ``(n, d)``.
    wanted: what the baseline observes.
    """
    seen: dict[str, Any] = {"action_mask": torch.ones(1, len(view.candidates), dtype=torch.bool)}
    x = space[torch.from_numpy(view.candidates)]
    known = space[torch.from_numpy(view.labelled)]
    if "probabilities" in wanted:
        model = fit(view.learner, known, view.labels, len(view.classes))
        seen["probabilities"] = probabilities(view, x, model)[None]
    if "embeddings" in wanted:
        seen["embeddings"] = x[None]
    if "labelled" in wanted:  # one place that holds no image, where nothing is labelled
        nothing = torch.zeros(0 if len(known) else 1, x.shape[1])
        seen["labelled"] = torch.cat([known, nothing])[None]
        seen["labels"] = torch.from_numpy(np.append(view.labels, np.full(len(nothing), -1)))[None]
    return {name: value.numpy() for name, value in seen.items()}


def observe_as_agent(view: View, run: ActiveRunSettings, states: IntArray) -> tuple[dict[str, NDArray[Any]], Tensor]:
    """Return the observation that an agent of ``ActiveLabel-v0`` was trained on, and the probabilities ``(m, C)``.

    The state set is ``states`` ``(s,)``, rows of any images, since the state is made of predictions alone; the budget
    is spent by the labels beyond those that an episode starts from.
    """
    data, space = latent(view.cohort, run.components)
    own = torch.from_numpy(view.candidates)
    known = torch.from_numpy(view.labelled)
    model = fit(view.learner, space[known], view.labels, len(view.classes))
    predicted = probabilities(view, space[own], model)
    geometry = Geometry.of((data if run.space == "data" else space)[torch.cat([own, known])], run.distance)
    m, n_labelled = len(own), len(known)
    to_labelled = geometry.to(torch.arange(m, m + n_labelled))
    total = to_labelled.sum(dim=1)
    density = geometry.density() if "density" in run.features else torch.zeros(m + n_labelled)
    share = np.bincount(view.labels, minlength=len(view.classes)) / n_labelled
    described = Candidates(
        predicted[None],
        (total / n_labelled)[None, :m],
        ((geometry.sums() - total).clamp(min=0) / m)[None, :m],
        to_labelled.amin(dim=1)[None, :m],
        density[None, :m],
        torch.from_numpy(share.astype(np.float32))[None],
    )
    on_states = probabilities(view, space[torch.from_numpy(states)], model)[None]
    spent = min(1.0, max(0, n_labelled - run.initial * len(view.classes)) / run.budget)
    parts = [torch.tensor([[spent]]) if name == PROGRESS else STATES[name](on_states) for name in run.state]
    observation = {
        "state": torch.cat(parts, dim=1).float().numpy(),
        "candidates": torch.stack([FEATURES[name](described) for name in run.features], dim=-1).numpy(),
        "action_mask": np.ones((1, m), dtype=np.int8),
    }
    return observation, predicted
