"""Watching features without training anything on them: the class of an image by a vote of its nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from activelabel.data.cohort import Cohort, IntArray
from activelabel.data.splits import divide
from activelabel.seeding import stream

_SHARPNESS = 0.07


@dataclass(frozen=True, eq=False)
class Watched:
    """Whose classes are voted on, and who votes.

    Parameters
    ----------
    voters, judged: int64, rows of the cohort; no patient is in both unless the publisher's split has it so.
    voter_classes, judged_classes: int64, their classes.
    """

    voters: IntArray
    judged: IntArray
    voter_classes: IntArray
    judged_classes: IntArray


def watched_rows(cohort: Cohort, rows: IntArray, limit: int, seed: int) -> Watched | None:
    """Choose the images that a training is watched on; of the published test part there are none.

    Only images of exactly one class, without doubt, take part. Those that are voted on come from the published
    validation part. Where there is none they are the images of a tenth of the training patients; these are then trained
    on too, as all without their labels, but do not vote.

    Parameters
    ----------
    cohort: with labels.
    rows: int64, the training images.
    limit: at most so many vote, and at most so many are voted on.
    seed: of the choice.

    Returns
    -------
    None if no image can be judged, or all that could vote are of one class.
    """
    single = ((cohort.labels == 1).sum(axis=1) == 1) & ~(cohort.labels == -1).any(axis=1)
    voters, judged = rows, np.zeros(0, dtype=np.int64)
    if cohort.split is not None:
        judged = np.flatnonzero(single & (cohort.split == "val"))
    rng = stream(seed, "knn")
    if not len(judged):
        side = divide(rows if cohort.patient is None else cohort.patient[rows], (0.9, 0.1), rng)
        voters, judged = rows[side == 0], rows[side == 1]
    voters, judged = (np.sort(rng.permutation(r[single[r]])[:limit]) for r in (voters, judged))
    classes = cohort.labels.argmax(axis=1)
    if not len(judged) or len(np.unique(classes[voters])) < 2:
        return None
    return Watched(voters, judged, classes[voters], classes[judged])


@torch.no_grad()
def knn_accuracy(voters: Tensor, voter_classes: Tensor, judged: Tensor, judged_classes: Tensor, k: int) -> float:
    """Return the share of images whose class the vote of their nearest neighbours finds, 0 to 1.

    Neighbours are nearest by cosine and vote with the weight exp(cosine / 0.07) (Wu et al. 2018, §3.4).

    Parameters
    ----------
    voters, judged: float ``(n, d)`` and ``(m, d)``.
    voter_classes, judged_classes: int64 ``(n,)`` and ``(m,)``.
    k: how many vote; all where there are fewer.
    """
    likeness = F.normalize(judged, dim=1) @ F.normalize(voters, dim=1).T
    nearest, who = likeness.topk(min(k, len(voters)), dim=1)
    votes = torch.zeros((len(judged), int(voter_classes.max()) + 1), device=judged.device, dtype=nearest.dtype)
    votes.scatter_add_(1, voter_classes[who], torch.exp((nearest - 1) / _SHARPNESS))
    return float((votes.argmax(dim=1) == judged_classes).float().mean())
