"""Playing the same tasks with every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from activelabel.data import TaskBatch
from activelabel.data.cohort import IntArray
from activelabel.envs import SelectiveLabelEngine
from activelabel.envs.selections import check_k
from activelabel.errors import SettingsError

Advance = Callable[[int], None]
"""Called with the number of tasks that are done since the last call."""


class Strategy(Protocol):
    """Whatever chooses: an agent, a baseline, or a user's own object."""

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, Any]:
        """Return the action and the recurrent state, as a Stable-Baselines3 model does."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a strategy reached on each task.

    Parameters
    ----------
    reward: float64 ``(n_tasks,)``, AUROC.
    one_class: bool ``(n_tasks,)``, whether only one class was labelled.
    """

    reward: NDArray[np.float64]
    one_class: NDArray[np.bool_]


def play(
    engine: SelectiveLabelEngine,
    strategy: Strategy,
    ks: Sequence[int],
    n_tasks: int,
    batch: int = 32,
    advance: Advance | None = None,
) -> dict[int, Scores]:
    """Let a strategy choose on tasks ``0 .. n_tasks - 1`` of an engine, deterministically.

    A strategy with ``select(observation, ks, deterministic)`` is asked once for all K; another is asked ``predict``
    for the one K that it was made for.

    Raises
    ------
    SettingsError: if K exceeds the pool, or what comes back is not ``(B, K)`` indices.
    """
    rewards: dict[int, list[NDArray[np.float64]]] = {k: [] for k in ks}
    one_class: dict[int, list[NDArray[np.bool_]]] = {k: [] for k in ks}
    for tasks, chosen in choices(engine, strategy, ks, n_tasks, batch):
        for k, actions in chosen.items():
            outcome = engine.score(tasks, actions[:, None])
            rewards[k].append(outcome.reward[:, 0])
            one_class[k].append(outcome.one_class[:, 0])
        if advance is not None:
            advance(len(tasks))
    return {k: Scores(np.concatenate(rewards[k]), np.concatenate(one_class[k])) for k in ks}


def choices(
    engine: SelectiveLabelEngine, strategy: Strategy, ks: Sequence[int], n_tasks: int, batch: int = 32
) -> Iterator[tuple[TaskBatch, dict[int, IntArray]]]:
    """Yield tasks ``0 .. n_tasks - 1`` of an engine, ``batch`` at a time, and for each K what a strategy chose of them.

    What it chose is ``(B, K)``, deterministic. Whether the indices are in the pool is left to who uses them; parameters
    and errors are those of :func:`play`.
    """
    for k in ks:
        check_k(k, engine.settings.pool)
    for start in range(0, n_tasks, batch):
        tasks = engine.tasks(range(start, min(start + batch, n_tasks)))
        chosen = {k: np.asarray(actions) for k, actions in _choose(strategy, engine.observe(tasks), ks).items()}
        for k, actions in chosen.items():
            if actions.shape != (len(tasks), k):
                raise SettingsError(f"{strategy!r} chose {actions.shape} where {(len(tasks), k)} was asked for.")
        yield tasks, chosen


def _choose(strategy: Strategy, observation: dict[str, NDArray[Any]], ks: Sequence[int]) -> Mapping[int, IntArray]:
    select = getattr(strategy, "select", None)
    if select is not None:
        chosen: Mapping[int, IntArray] = select(observation, ks, deterministic=True)
        return chosen
    return {k: strategy.predict(observation, deterministic=True)[0] for k in ks}
