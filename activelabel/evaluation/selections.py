"""What a strategy chose in many tasks or episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.envs import ActiveLabelEngine, RunningEpisodes, SelectiveLabelEngine
from activelabel.envs.selections import check_selections, first_occurrences
from activelabel.errors import SettingsError
from activelabel.evaluation.episodes import play_episodes
from activelabel.evaluation.protocol import Strategy, choices


@dataclass(frozen=True, eq=False)
class Selections:
    """What a strategy chose in ``T`` tasks or episodes.

    Parameters
    ----------
    index: int64 ``(T,)``, the numbers of the tasks.
    pool: int64 ``(T, N)``, rows of the cohort that could be chosen.
    pool_labels: int64 ``(T, N)``, indices into ``classes``.
    chosen: int64 ``(T, K)``, indices into each pool in the order in which they were chosen; -1 where the budget was
        spent on nothing. One that stands twice was chosen twice.
    classes: names of the labels.
    points: float32 ``(n, d)``, where the images of the cohort are for the strategy; None: where its features are.

    Raises
    ------
    SettingsError: if shapes do not go together or an index is out of range.
    """

    index: IntArray
    pool: IntArray
    pool_labels: IntArray
    chosen: IntArray
    classes: tuple[str, ...]
    points: FloatArray | None = None

    def __post_init__(self) -> None:
        shapes = [np.shape(array) for array in (self.index, self.pool, self.pool_labels, self.chosen)]
        tasks, n, k = len(self.index), self.pool.shape[-1], self.chosen.shape[-1]
        if not tasks or not k or shapes != [(tasks,), (tasks, n), (tasks, n), (tasks, k)]:
            raise SettingsError(f"selections need T tasks, pools and labels (T, N) and choices (T, K), got {shapes}.")
        if self.chosen.min() < -1 or self.chosen.max() >= self.pool.shape[1]:
            bad = int(self.chosen.min()) if self.chosen.min() < -1 else int(self.chosen.max())
            raise SettingsError(f"choice {bad} is neither in the pool of {self.pool.shape[1]} images nor -1.")
        if self.pool_labels.min() < 0 or self.pool_labels.max() >= len(self.classes):
            raise SettingsError(f"pool labels must be indices of the {len(self.classes)} classes.")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def new(self) -> NDArray[np.bool_]:
        """Where an image was chosen that had not been chosen before in the task, bool ``(T, K)``."""
        return first_occurrences(self.chosen) & (self.chosen >= 0)

    @property
    def rows(self) -> IntArray:
        """Rows of the cohort that were chosen, int64 ``(T, K)``; -1 where nothing was."""
        return self._of(self.pool)

    @property
    def labels(self) -> IntArray:
        """Classes of what was chosen, int64 ``(T, K)``; -1 where nothing was."""
        return self._of(self.pool_labels)

    def _of(self, values: IntArray) -> IntArray:
        return np.where(self.chosen >= 0, np.take_along_axis(values, np.maximum(self.chosen, 0), axis=1), -1)


def collect(engine: SelectiveLabelEngine, strategy: Strategy, k: int, n_tasks: int) -> Selections:
    """Return what a strategy chooses on tasks ``0 .. n_tasks - 1`` of an engine, as in
    :func:`~activelabel.evaluation.protocol.play`.

    Raises
    ------
    SettingsError: if there is no task, K exceeds the pool, or what comes back is not ``(B, K)`` indices into the pools.
    """
    played = list(choices(engine, strategy, [k], n_tasks))
    if not played:
        raise SettingsError(f"{n_tasks} tasks; it must be at least 1.")
    size = engine.settings.pool
    return Selections(
        np.concatenate([tasks.index for tasks, _ in played]),
        np.concatenate([engine.rows_of(tasks.pool) for tasks, _ in played]),
        np.concatenate([tasks.pool_labels for tasks, _ in played]).astype(np.int64),
        np.concatenate([check_selections(chosen[k][:, None], len(tasks), size)[:, 0] for tasks, chosen in played]),
        ("negative", "positive"),
        engine.features[: len(engine.cohort)].cpu().numpy(),
    )


def collect_episodes(engine: ActiveLabelEngine, strategy: Strategy, n_episodes: int) -> Selections:
    """Return what a strategy labels in episodes ``0 .. n_episodes - 1`` of an engine, as in :func:`play_episodes`.

    The images that are labelled from the start are no part of the pools: no strategy chooses them.

    Raises
    ------
    SettingsError: if there is no episode, or see :func:`play_episodes`.
    """
    if n_episodes < 1:
        raise SettingsError(f"{n_episodes} episodes; it must be at least 1.")
    watched = _Watched(strategy)
    play_episodes(engine, watched, n_episodes)
    rows, labels = (found["pool"] for found in (engine.sampler.rows, engine.sampler.labels))
    pool, chosen = (np.concatenate(part) for part in zip(*watched.finish(), strict=True))
    points = None
    if not engine.on_images:
        latent = engine.x["pool"].cpu().numpy()
        points = np.full((len(engine.cohort), latent.shape[1]), np.nan, dtype=np.float32)  # no other image is in a pool
        points[rows] = latent
    return Selections(np.arange(n_episodes), rows[pool], labels[pool], chosen, engine.classes, points)


class _Watched:
    """Chooses as a strategy does, and keeps what was labelled in the episodes."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.observes = tuple(getattr(strategy, "observes", ()))
        self.env_settings = dict(getattr(strategy, "env_settings", {}))
        self._running: RunningEpisodes | None = None
        self._done: list[tuple[IntArray, IntArray]] = []

    def __repr__(self) -> str:
        return repr(self._strategy)

    def attach(self, episodes: RunningEpisodes) -> None:
        """Note what was played before, and let the strategy know of the episodes that come."""
        self.finish()
        self._running = episodes
        if hasattr(self._strategy, "attach"):
            self._strategy.attach(episodes)

    def predict(self, observation: dict[str, NDArray[Any]], *arguments: Any, **keywords: Any) -> tuple[IntArray, Any]:
        """Choose."""
        return self._strategy.predict(observation, *arguments, **keywords)

    def finish(self) -> list[tuple[IntArray, IntArray]]:
        """Return for each batch of episodes the places in the pool part that could be chosen, and which ones were."""
        if self._running is not None:
            self._done.append(_labelled(self._running))
            self._running = None
        return self._done


def _labelled(episodes: RunningEpisodes) -> tuple[IntArray, IntArray]:
    n = episodes.engine.n_initial
    slots, there = episodes.slots.cpu().numpy(), episodes.weight.cpu().numpy()[:, n:] > 0
    pool = episodes.pool.cpu().numpy()
    free = np.ones(pool.shape, dtype=np.bool_)
    np.put_along_axis(free, slots[:, :n], False, axis=1)
    place = np.cumsum(free, axis=1) - 1
    return pool[free].reshape(len(pool), -1), np.where(there, np.take_along_axis(place, slots[:, n:], axis=1), -1)


def check_cohort(cohort: Cohort, selections: Selections) -> NDArray[np.bool_]:
    """Return ``selections.new``.

    Raises
    ------
    SettingsError: if the selections are not of the cohort, or nothing was selected.
    """
    n, points = len(cohort), selections.points
    if selections.pool.min() < 0 or selections.pool.max() >= n or (points is not None and len(points) != n):
        raise SettingsError(f"the selections are not of this cohort of {n} images ({cohort.source.name}).")
    new = selections.new
    if not new.any():
        raise SettingsError("nothing was selected in any task.")
    return new
