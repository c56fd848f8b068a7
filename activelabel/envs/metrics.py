"""How good classifiers are on one set of images, for many at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from activelabel.envs.predictors import auroc

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(probabilities, labels)``: float32 ``(B, n, C)`` and int64 ``(n,)`` give float64 ``(B,)``, 0 to 1."""


def _predicted(probabilities: Tensor) -> Tensor:
    # Over the middle of the layout that the linear models leave, which is many times faster than over its last.
    return probabilities.transpose(1, 2).argmax(dim=1)


def accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images whose most likely class is theirs."""
    return (_predicted(probabilities) == labels).double().mean(dim=-1)


def balanced_accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over classes of the share of its images that are recognised."""
    member = one_hot(labels, probabilities.shape[-1]).double()
    right = (_predicted(probabilities) == labels).double()
    return ((right @ member) / member.sum(dim=0)).mean(dim=-1)


def macro_auroc(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over classes of the AUROC of one against the rest."""
    member = one_hot(labels, probabilities.shape[-1]).T.to(torch.bool)
    return auroc(probabilities.transpose(1, 2), member[None]).mean(dim=-1)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced-accuracy": balanced_accuracy,
    "auroc": macro_auroc,
}
"""The metrics by name."""
