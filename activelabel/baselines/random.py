"""The random selector (MedSelect §3.4): K images without replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.base import Baseline
from activelabel.data.cohort import IntArray


class Random(Baseline):
    """Chooses K images uniformly without replacement; the expected lower bound of a serious strategy."""

    name = "random"

    def choose(
        self, pool: NDArray[np.float32], clinical: NDArray[np.float32], ks: Sequence[int]
    ) -> dict[int, IntArray]:
        """See :meth:`Baseline.choose`."""
        return {k: self._rng.choice(len(pool), k, replace=False) for k in ks}
