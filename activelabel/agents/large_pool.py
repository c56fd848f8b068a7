"""Selecting from many images at once: the features of a whole archive, a file of them that is larger than memory.

The BiLSTM reads a pool as one sequence and keeps its states, the anchored selector compares all pairs of images. The
gated, deep-sets and MLP selectors need of the pool two numbers for each of an image's alone, so they read the features
twice, 8192 rows at a time: once for these, once to score the images. Time grows with the number of images; memory does
not, but for a score an image.

::

    model = Reinforce.load("runs/RUN/model.zip")
    rows, scores = select_images(model, np.load("features.npy", mmap_mode="r"), k=100)

How good a selection is out of far more images than the model was trained on is not known: train with pools as large as
the data allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.baselines import KMedoids
from activelabel.data.cohort import CLINICAL, FloatArray, IntArray
from activelabel.data.derived import blocks
from activelabel.envs.selections import check_k
from activelabel.errors import DataError

if TYPE_CHECKING:
    from activelabel.agents.reinforce import Reinforce


def select_images(
    model: Reinforce,
    features: NDArray[Any],
    k: int,
    rows: IntArray | None = None,
    clinical: FloatArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Choose K images by their features as they are, which are standardised as those that the model was trained on.

    The images are the ones that ``model.select`` chooses, largest logits first, from an observation of all of them. A
    selector that does not read blocks (:attr:`~activelabel.agents.policies.Selector.reads_blocks`) is given that
    observation, and needs its memory.

    Parameters
    ----------
    model: trained.
    features: of any real dtype, ``(n, d)``; may be memory-mapped.
    k: number of images to choose.
    rows: int64 ``(m,)``, the images that may be chosen, such as those without a label; by default all. Of images with
        equal logits the earlier is chosen.
    clinical: float32 ``(n, 3)``, age in years, female, frontal, NaN where missing; by default all are missing.

    Returns
    -------
    The rows int64 ``(K,)`` of the chosen images, and their logits float32 ``(K,)``; 0 of images that K-Medoids chose,
    because the model leaves pools to it that are not familiar.

    Raises
    ------
    SettingsError: if K exceeds the number of images.
    DataError: if the features are not those of the model, or not finite.
    """
    if features.ndim != 2 or features.dtype.kind not in "biuf":
        raise DataError(f"features must be numbers (n, d), got {features.dtype} {features.shape}.")
    m = len(features) if rows is None else len(rows)
    check_k(k, m)
    policy = model.policy

    def shown(part: slice) -> dict[str, FloatArray]:
        return _observation(model, features, part if rows is None else rows[part], clinical)

    def check(finite: bool) -> None:
        if not finite:
            raise DataError("features or clinical variables are infinite, or features NaN; impute or drop them.")

    def observed(part: slice) -> dict[str, Tensor]:
        tensors, _ = policy.tensors(shown(part))
        check(all(bool(tensor.sum().isfinite()) for tensor in tensors.values()))
        return tensors

    def parts() -> Iterator[Tensor]:
        return (policy.images(observed(part)) for part in blocks(m))

    if model.familiarity is not None:
        mean = np.sum([shown(part)["pool"][0].sum(axis=0, dtype=np.float64) for part in blocks(m)], axis=0) / m
        check(bool(np.isfinite(mean).all()))
        if model.familiarity.statistic_of_means(mean[None], m)[0] > model.familiarity.limit:
            pool = shown(slice(0, m))["pool"][0]
            medoids = KMedoids(k).choose(pool, np.zeros((m, 0), np.float32), [k])[k]
            return (medoids if rows is None else rows[medoids]), np.zeros(k, np.float32)
    with torch.no_grad():
        if policy.selector.reads_blocks and not policy.own_rule:
            logits, rule = policy.selector.score_blocks(parts), model.rule
        else:
            logits, rule = policy.scored(observed(slice(0, m)), [k], model.rule)[k]
    best = rule.best(logits, k)[0]
    places = best.cpu().numpy()
    return (places if rows is None else rows[places]), logits[0, best].cpu().numpy()


def _observation(
    model: Reinforce, features: NDArray[Any], rows: slice | IntArray, clinical: FloatArray | None
) -> dict[str, FloatArray]:
    """Return some images as the environment shows them: ``pool`` ``(1, m, d)`` and ``clinical`` ``(1, m, 3)``."""
    standardizer = model.standardizer
    assert standardizer is not None
    images = np.asarray(features[rows], np.float32)
    known = np.full((len(images), len(CLINICAL)), np.nan, np.float32) if clinical is None else clinical[rows]
    return {"pool": standardizer.features(images)[None], "clinical": standardizer.clinical(known)[None]}
