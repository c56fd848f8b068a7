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
    """Return ``argmax`` over the classes, int64 ``(B, n)``, the first of equal ones.

    Ten times as fast as torch's on a CPU, whose argmax over a short dimension takes one element at a time.
    """
    columns = probabilities.transpose(1, 2)  # the layout that the linear models leave
    classes = columns.shape[1]
    rank = torch.arange(classes, 0, -1, dtype=torch.int16, device=columns.device)[None, :, None]
    first = ((columns == columns.amax(dim=1, keepdim=True)).to(torch.int16) * rank).amax(dim=1)
    return classes - first.long()


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
