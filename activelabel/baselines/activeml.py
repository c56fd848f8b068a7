"""Any pool strategy of scikit-activeml, by name."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines.pool import Observation, PoolBaseline
from activelabel.data.cohort import IntArray
from activelabel.errors import SettingsError, unknown

PREFIX = "skactiveml:"
"""What the name of a strategy of scikit-activeml begins with on the command line."""

REGULARISATION = 30.0

_CLASSIFIERS = ("clf", "estimator", "discriminator", "ensemble")
_GIVEN = ("self", "X", "y", "candidates", "batch_size")


class SkactivemlStrategy(PoolBaseline):
    """A strategy of ``skactiveml.pool`` (needs the extra ``baselines``).

    It sees the latent features of labelled images and candidates. One that asks for a classifier gets a new one at
    each step, fitted on what is labelled. Numbers of the strategy's own stream seed whatever has a ``random_state``;
    ``CostEmbeddingAL`` advances numpy's global generator all the same.

    Parameters
    ----------
    strategy: name of the class in ``skactiveml.pool``, such as ``"CoreSet"``.
    batch, seed: see :class:`PoolBaseline`.
    classifier: of scikit-learn or scikit-activeml, for the strategies that need one; by default
        ``LogisticRegression(C=30)``, as strongly regularised as the environment's softmax head. A committee is a
        ``BaggingClassifier`` of it.
    **arguments: of the strategy's class.

    Raises
    ------
    SettingsError: if scikit-activeml is not installed, the name or an argument is unknown, or the strategy is for
        regression.
    """

    observes = ("embeddings", "labelled")

    def __init__(self, strategy: str, batch: int = 5, seed: int = 0, classifier: Any = None, **arguments: Any) -> None:
        pool = import_skactiveml()
        names = [name for name in pool.__all__ if inspect.isclass(getattr(pool, name))]
        if strategy not in names:
            raise SettingsError(unknown("strategy of scikit-activeml", strategy, names))
        self.name = PREFIX + strategy
        self.strategy: Any = getattr(pool, strategy)
        needed = inspect.signature(self.strategy.query).parameters
        if "reg" in needed:
            raise SettingsError(f"{self.name} is a strategy for regression; ActiveLabel-v0 tells classes apart.")
        self._takes = inspect.signature(self.strategy).parameters
        if "query_strategy" in self._takes and "query_strategy" not in arguments:
            raise SettingsError(f"{self.name} wraps another: SkactivemlStrategy('{strategy}', query_strategy=...).")
        self.classifier, self.arguments = classifier, arguments
        self._asks = [name for name in _CLASSIFIERS if name in needed]
        super().__init__(batch, seed)
        self._make(np.arange(2), 0)

    def _make(self, classes: IntArray, seed: int) -> Any:
        own = {"classes": classes, "random_state": seed, "cluster_algo_dict": {"random_state": seed}}
        own = {name: value for name, value in own.items() if name in self._takes}
        try:
            return self.strategy(**{**own, **self.arguments})
        except TypeError as error:
            raise SettingsError(f"{self.name}: {error}.") from None

    def choose(self, observation: Observation) -> IntArray:
        """See :meth:`PoolBaseline.choose`.

        Raises
        ------
        SettingsError: if the strategy refuses the classifier or an argument.
        """
        free, there = observation["action_mask"], observation["labels"] >= 0
        seeds = self._rng.integers(2**31, size=len(free))
        chosen = np.full((len(free), self.batch), -1, dtype=np.int64)
        for b in range(len(free)):
            candidates, known = np.flatnonzero(free[b]), observation["labelled"][b][there[b]]
            images = np.concatenate([known, observation["embeddings"][b][candidates]]).astype(np.float64)
            classes = observation["labels"][b][there[b]]
            found = self._query(images, classes, int(seeds[b])) - len(known)
            chosen[b, : len(found)] = candidates[found]
        return chosen

    def _query(self, images: NDArray[np.float64], labels: IntArray, seed: int) -> IntArray:
        """Return indices into ``images``, of which the first are labelled; as many as wanted and there."""
        from skactiveml.utils import MISSING_LABEL

        classes = np.unique(labels)
        y = np.concatenate([labels.astype(np.float64), np.full(len(images) - len(labels), MISSING_LABEL)])
        asked = {name: self._classifier(name, classes, seed) for name in self._asks}
        strategy = self._make(classes, seed)
        chosen: list[int] = []
        wanted = min(self.batch, len(images) - len(labels))
        while len(chosen) < wanted:  # some strategies return an image twice
            left = np.setdiff1d(np.arange(len(labels), len(images)), chosen)
            try:
                found = strategy.query(images, y, candidates=left, batch_size=wanted - len(chosen), **asked)
            except (TypeError, ValueError) as error:
                raise SettingsError(
                    f"{self.name}: {error} Give SkactivemlStrategy the classifier or the arguments that it needs."
                ) from error
            chosen += list(dict.fromkeys(int(index) for index in found))
        return np.array(chosen, dtype=np.int64)

    def _classifier(self, role: str, classes: IntArray, seed: int) -> Any:
        from skactiveml.base import SkactivemlClassifier
        from skactiveml.classifier import SklearnClassifier
        from sklearn.base import clone
        from sklearn.ensemble import BaggingClassifier
        from sklearn.linear_model import LogisticRegression

        if self.classifier is None:
            model = LogisticRegression(C=REGULARISATION, max_iter=1000)
        else:
            model = clone(self.classifier)
        if not isinstance(model, SkactivemlClassifier):
            model = SklearnClassifier(BaggingClassifier(model) if role == "ensemble" else model)
        # A discriminator tells labelled images from the others.
        model.set_params(classes=[0, 1] if role == "discriminator" else classes)
        names = [name for name, value in model.get_params().items() if value is None]
        return model.set_params(**{name: seed for name in names if name.split("__")[-1] == "random_state"})


def import_skactiveml() -> ModuleType:
    """Return the module ``skactiveml.pool``.

    Raises
    ------
    SettingsError: if it is not installed.
    """
    try:
        import skactiveml.pool
    except ImportError as error:
        raise SettingsError(
            f'strategies of scikit-activeml cannot be imported ({error}): pip install "activelabel[baselines]".'
        ) from None
    pool: ModuleType = skactiveml.pool
    return pool
