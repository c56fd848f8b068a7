"""The tasks of the paper's size that several benchmarks share."""

from __future__ import annotations

from activelabel.data import load
from activelabel.envs import SelectiveLabelVectorEnv

POOL, QUERY, K = 1000, 100, 10
"""Images in the pool and the query set (MedSelect, §2), and images to label."""


def paper_env(
    batch: int, *, pool: int = POOL, query: int = QUERY, k: int = K, device: str = "auto"
) -> SelectiveLabelVectorEnv:
    """Return training tasks of 512 numbers an image.

    Parameters
    ----------
    batch: tasks at once.
    pool, query, k, device: see :class:`~activelabel.envs.SelectiveLabelEnv`.
    """
    held_out = ("Edema", "Atelectasis")
    return SelectiveLabelVectorEnv(
        batch, load("synthetic-large"), pool=pool, query=query, k=k, held_out=held_out, device=device
    )
