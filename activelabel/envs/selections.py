"""Selections of images as arrays of indices: their checks, what is new in them, and the images they are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError

_FEW = 32
"""Up to so many indices of a selection are compared in pairs."""

_EARLIER = np.tri(_FEW, k=-1, dtype=np.bool_)
"""Which index stands before which."""


def check_k(k: int, pool: int) -> None:
    """Check that K images can be chosen.

    Raises
    ------
    SettingsError: if K is not 1 to the size of the pool.
    """
    if not 1 <= k <= pool:
        raise SettingsError(f"k={k} images cannot be chosen from a pool of {pool}; choose k from 1 to {pool}.")


def check_selections(selections: IntArray, batch: int, pool: int) -> IntArray:
    """Return selections as int64 ``(B, M, K)``.

    Raises
    ------
    SettingsError: if the shape is not that, or an index is not in ``0 .. pool - 1``.
    """
    selections = np.asarray(selections)
    if selections.ndim != 3 or len(selections) != batch or not selections.size or selections.dtype.kind not in "iu":
        raise SettingsError(f"selections must be integers ({batch}, M, K), got {selections.dtype} {selections.shape}.")
    if selections.min() < 0 or selections.max() >= pool:
        bad = int(selections.min()) if selections.min() < 0 else int(selections.max())
        raise SettingsError(f"index {bad} is not in the pool of {pool} images (0 to {pool - 1}).")
    return np.ascontiguousarray(selections, dtype=np.int64)


def support_of(
    pool: IntArray, positive: NDArray[np.bool_], selections: IntArray, counts: NDArray[np.bool_]
) -> tuple[IntArray, NDArray[np.bool_], NDArray[np.float64]]:
    """Return the rows ``(B, S)`` that the selections are made of, their labels, and counts ``(B, M, S)``.

    The selections side by side while they are fewer images than the pool, else the pool.

    Parameters
    ----------
    pool: int64 ``(B, N)``, rows of the cohort.
    positive: bool ``(B, M, K)``, which indices were called positive: the same image always or never.
    selections: int64 ``(B, M, K)``, indices into the pools.
    counts: bool ``(B, M, K)``, which indices count.
    """
    batch, samples, k = selections.shape
    task = np.arange(batch)[:, None, None]
    if samples * k < pool.shape[1]:
        own = np.zeros((batch, samples, samples, k))
        own[:, np.arange(samples), np.arange(samples)] = counts
        rows = pool[task, selections].reshape(batch, -1)
        return rows, positive.reshape(batch, -1), own.reshape(batch, samples, -1)
    labels = np.zeros(pool.shape, np.bool_)
    labels[np.broadcast_to(task, selections.shape)[positive], selections[positive]] = True
    spread = np.zeros((batch, samples, pool.shape[1]))
    np.add.at(spread, (task, np.arange(samples)[:, None], selections), counts)
    return pool, labels, spread


def first_occurrences(selections: IntArray) -> NDArray[np.bool_]:
    """Return bool ``(..., K)``: True where an index of ``(..., K)`` has not stood before in its selection."""
    k = selections.shape[-1]
    if k <= _FEW:  # one comparison of all pairs takes less time than a sort
        same = selections[..., :, None] == selections[..., None, :]
        fresh: NDArray[np.bool_] = ~(same & _EARLIER[:k, :k]).any(axis=-1)
        return fresh
    order = selections.argsort(axis=-1, kind="stable")
    ordered = np.take_along_axis(selections, order, axis=-1)
    first = np.ones(ordered.shape, np.bool_)
    first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    fresh = np.empty_like(first)
    np.put_along_axis(fresh, order, first, axis=-1)
    return fresh
