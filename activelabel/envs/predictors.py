"""The predictors of the one-shot problem and its reward, for many tasks and many selections at once.

Everything here is computed in float64 and the scores are rounded to float32 before they are ranked: a batch of 64
tasks and a batch of one may then differ in the last bits of a sum and still rank, and tie, alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from activelabel.errors import SettingsError, unknown

Predictor = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``predictor(support, positive, negative, query) -> scores``.

``support`` float64 ``(B, S, d)`` holds the images that any of ``M`` selections of each of ``B`` tasks chose, and
perhaps others; ``positive`` and ``negative`` float64 ``(B, M, S)`` say how many times an image counts as one or the
other in a selection, 0 where it was not chosen; ``query`` float64 ``(B, Q, d)``. The result ``(B, M, Q)`` is higher
where the query image looks more positive.
"""

_SHORTEST = 1e-12
"""Images are scaled to unit length by their length, but by no less than this."""

_FEW = 128
"""Up to so many images a comparison of all pairs takes less time than a sort."""

_CHUNK_BYTES = 16 * 2**20
"""Of images in float64 that are judged at once: what stays in the processor's cache, half as long as with 64 MiB."""


def prototype(support: Tensor, positive: Tensor, negative: Tensor, query: Tensor) -> Tensor:
    """Cosine to the mean positive image minus cosine to the mean negative image (MedSelect §3.2, as printed)."""
    # A sum has the direction of its mean.
    sums = _class_sums(support, positive, negative)
    return _difference(sums / torch.linalg.vector_norm(sums, dim=-1, keepdim=True).clamp_min(_SHORTEST), query)


def mean_cosine(support: Tensor, positive: Tensor, negative: Tensor, query: Tensor) -> Tensor:
    """Mean cosine to the positive images minus mean cosine to the negative ones (MedSelect's released code)."""
    sums = _class_sums(normalize(support, dim=-1), positive, negative)
    counts = torch.cat([positive, negative], dim=1).sum(dim=-1, keepdim=True).clamp(min=1)
    return _difference(sums / counts, query)


def _class_sums(support: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return ``(B, 2 M, d)``, those of the positive images first; the sum of a class that has no image is 0, so that
    its term is 0."""
    return torch.cat([positive, negative], dim=1) @ support


def _difference(means: Tensor, query: Tensor) -> Tensor:
    """Return the query images' projections on the positive mean less those on the negative one, ``(B, M, Q)``."""
    positive, negative = means.chunk(2, dim=1)
    # The length of a query image divides one number here, not its d before; one of length 0 is at right angles to all.
    length = torch.linalg.vector_norm(query, dim=-1).clamp_min(_SHORTEST)
    cosines: Tensor = (positive - negative) @ query.transpose(1, 2) / length[:, None, :]
    return cosines


PREDICTORS: dict[str, Predictor] = {"prototype": prototype, "mean-cosine": mean_cosine}
"""How a query image is scored from the labelled ones, by name."""


def make_predictor(predictor: str | Predictor) -> Predictor:
    """Return a predictor by name, or the given one.

    Raises
    ------
    SettingsError: if the name is unknown.
    """
    if callable(predictor):
        return predictor
    if predictor not in PREDICTORS:
        raise SettingsError(unknown("predictor", predictor, PREDICTORS))
    return PREDICTORS[predictor]


def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve along the last dimension, ties counted as one half.

    Parameters
    ----------
    scores: ``(..., Q)``, compared as they are: round before if sums of different order must tie.
    labels: bool, broadcastable to the shape of ``scores``; both classes present in every row.

    Returns
    -------
    float64 ``(...)``, 0 to 1.
    """
    labels = labels.expand(scores.shape)
    scores = scores.contiguous()
    if scores.device.type == "cpu" and scores.shape[-1] <= _FEW:
        area = _pairs(scores.detach().numpy(), labels.numpy())
        if area is not None:
            return torch.as_tensor(area)
    ordered = scores.sort(dim=-1).values
    # The mean rank of a tie group, counted from one, is the mean of its first and last position; twice that is whole.
    first = torch.searchsorted(ordered, scores, side="left")
    last = torch.searchsorted(ordered, scores, side="right")
    ranks = first.add_(last).add_(1)
    positives = labels.sum(dim=-1)
    negatives = labels.shape[-1] - positives
    above = ranks.mul_(labels).sum(dim=-1) - positives * (positives + 1)
    return above.double() / (2 * positives * negatives)


def _pairs(scores: NDArray[np.floating[Any]], labels: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return :func:`auroc` by comparing all pairs; None where rows differ in their number of positives, or lack a
    class."""
    positives = np.count_nonzero(labels, axis=-1)
    if not 0 < positives.flat[0] < labels.shape[-1] or (positives != positives.flat[0]).any():
        return None
    positive = scores[labels].reshape(*scores.shape[:-1], -1, 1)
    negative = scores[~labels].reshape(*scores.shape[:-1], 1, -1)
    wins = np.count_nonzero(positive > negative, axis=(-2, -1))
    ties = np.count_nonzero(positive == negative, axis=(-2, -1))
    area: NDArray[np.float64] = (wins + 0.5 * ties) / (positive.shape[-2] * negative.shape[-1])
    return area


def support_auroc(
    predictor: Predictor,
    features: Tensor,
    support: Tensor,
    labels: Tensor,
    counts: Tensor,
    query: Tensor,
    query_labels: Tensor,
) -> Tensor:
    """Return the AUROC on the query set of each selection; memory stays bounded whatever the sizes.

    Parameters
    ----------
    predictor: what is fitted on the selected images.
    features: float32 ``(n, d)`` of the cohort.
    support: int64 ``(B, S)``, the rows of the cohort that selections are made of.
    labels: bool ``(B, S)``, their labels.
    counts: float64 ``(B, M, S)``, how many times each counts in a selection; 0 where it was not chosen.
    query: int64 ``(B, Q)``, rows of the query sets.
    query_labels: bool ``(B, Q)``.

    Returns
    -------
    float64 ``(B, M)``.
    """
    per_task = 8 * features.shape[1] * (support.shape[1] + query.shape[1])
    chunk = max(1, _CHUNK_BYTES // per_task)
    if len(support) > chunk:
        parts = zip(*(torch.split(a, chunk) for a in (support, labels, counts, query, query_labels)), strict=True)
        return torch.cat([support_auroc(predictor, features, *part) for part in parts])
    positive = counts * labels[:, None, :]
    scores = predictor(_rows(features, support), positive, counts - positive, _rows(features, query))
    return auroc(scores.float(), query_labels[:, None, :])


def _rows(features: Tensor, rows: Tensor) -> Tensor:
    """Return the features ``(B, n, d)`` of rows ``(B, n)`` in float64."""
    return features.index_select(0, rows.flatten()).double().reshape(*rows.shape, -1)
