"""The tasks of the paper's size that several benchmarks share."""

from __future__ import annotations

from activelabel.data import load
from activelabel.envs import SelectiveLabelVectorEnv


def paper_env(
    batch: int, *, pool: int = 1000, query: int = 100, k: int = 10, device: str = "auto"
) -> SelectiveLabelVectorEnv:
    """Return training tasks of 512 numbers an image, by default of the sizes of MedSelect (§2), as ``train.py`` plays
    them.

    Parameters
    ----------
    batch: tasks at once.
    pool, query, k, device: see :class:`~activelabel.envs.SelectiveLabelEnv`.
    """
    held_out = ("Edema", "Atelectasis")
    return SelectiveLabelVectorEnv(
        batch, load("synthetic-large"), pool=pool, query=query, k=k, held_out=held_out, device=device, copy=False
    )
