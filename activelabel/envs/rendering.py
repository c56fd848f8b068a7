"""What ``render_mode`` shows of an episode: the pool as a map, what is labelled, and what it was worth.

Nothing here is computed before the first frame. How a :class:`Scene` becomes a picture is in
:mod:`activelabel.envs.drawing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.data import Cohort, TaskBatch
from activelabel.data.cohort import IntArray
from activelabel.data.derived import blocks
from activelabel.errors import SettingsError, unknown

if TYPE_CHECKING:
    from activelabel.envs.active_engine import ActiveLabelEngine
    from activelabel.envs.drawing import Screen
    from activelabel.envs.running import RunningEpisodes
    from activelabel.envs.selective_engine import SelectiveLabelEngine

Frame = NDArray[np.uint8]

Played = tuple[IntArray, dict[str, NDArray[Any]], NDArray[np.float64]]
"""One step of ``SelectiveLabel-v0``: actions ``(B, K)``, the arrays of its info, and rewards ``(B,)``."""

MODES = ("human", "rgb_array")
"""Of the single environments."""

VECTOR_MODES = ("rgb_array",)
"""Of the vector environments: one window would not show which episode it is of."""

MAPS = ("pca", "umap")
"""How a pool becomes a map: by its first two principal components, or by UMAP."""

FPS = 2
"""Frames a second in films, and in windows at most."""

SHOWN = 18
"""Images beside the map, at most."""

FITTED = 1000
"""Images that a map is fitted on, at most; evenly spread over the part."""

THUMBNAIL = 16
"""Side of the images whose pixels make the map where there are no lasting features."""


@dataclass(frozen=True)
class Curve:
    """Quality by labels spent: ``labels`` and ``quality`` of one length, the ``budget``, and the metric's ``name``."""

    labels: Sequence[int]
    quality: Sequence[float]
    budget: int
    name: str

    def lasting(self) -> tuple[Any, ...]:
        """Return what is the same in all frames of an episode."""
        return (Curve, self.budget, self.name)


@dataclass(frozen=True)
class Bars:
    """Values from 0 to 1 by name, None where there is none yet, and what they are."""

    values: Mapping[str, float | None]
    name: str

    def lasting(self) -> tuple[Any, ...]:
        """Return what is the same in all frames of an episode."""
        return (Bars, *self.values, self.name)


@dataclass(frozen=True, eq=False)
class Scene:
    """All that a frame shows.

    Parameters
    ----------
    title, status: two lines above: what is played, and how far it is.
    places: float64 ``(P, 2)``, the pool on the map.
    bounds: ``((left, right), (bottom, top))`` of the map, the same in every episode of an environment.
    classes: int64 ``(P,)``, the class of each labelled image, -1 where there is no label.
    fresh: int64 ``(n,)``, indices into the pool: what was labelled last, in order.
    names: of the classes.
    panel: what the labels are worth.
    images: of the first :data:`SHOWN` of ``fresh``; None where the cohort has no images.
    """

    title: str
    status: str
    places: NDArray[np.float64]
    bounds: tuple[tuple[float, float], tuple[float, float]]
    classes: IntArray
    fresh: IntArray
    names: tuple[str, ...]
    panel: Curve | Bars
    images: Sequence[Any] | None


class PoolMap:
    """Places of a part's images, fitted once.

    Parameters
    ----------
    n: how many images.
    take: returns the points of some, ``(m, d)``, by their numbers from 0.
    kind: of :data:`MAPS`.
    """

    def __init__(self, n: int, take: Callable[[IntArray], NDArray[Any]], kind: str) -> None:
        from activelabel.envs.drawing import Plane, Umap  # late: it imports matplotlib

        some = take(np.unique(np.linspace(0, n - 1, min(n, FITTED)).astype(np.int64)))
        fitted = Plane.fit(some) if kind == "pca" else Umap.fit(some)
        numbers = np.arange(n)
        self.places = np.concatenate([fitted.places(take(numbers[block])) for block in blocks(n)])
        low, high = self.places.min(axis=0), self.places.max(axis=0)
        margin = np.where(high > low, 0.05 * (high - low), 1)
        (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
        self.bounds = (left, right), (bottom, top)


class ActiveScenes:
    """Scenes of running episodes of ``ActiveLabel-v0``. The test set is in none of them."""

    def __init__(self, episodes: RunningEpisodes, kind: str) -> None:
        self.episodes, self.kind = episodes, kind

    @cached_property
    def map(self) -> PoolMap:
        """The map of the pool part."""
        engine = self.episodes.engine
        return PoolMap(len(engine.sampler.rows["pool"]), _points(engine), self.kind)

    def scene(self, i: int) -> Scene:
        """Return what there is to see of episode ``i`` now; what is new are the labels of the last step."""
        running, engine = self.episodes, self.episodes.engine
        spent, quality, _ = zip(*running.curves[i], strict=True)
        done, start = int(running.filled[i]), int(running.before[i])
        slots, classes = running.slots[i].cpu().numpy(), running.classes[i].cpu().numpy()
        there = running.weight[i].cpu().numpy() > 0
        labelled = np.full(engine.pool, -1)
        labelled[slots[:done][there[:done]]] = classes[:done][there[:done]]
        fresh = slots[start:done][there[start:done]]
        positions = running.pool[i].cpu().numpy()
        metric, budget = engine.settings.metric, engine.settings.budget
        return Scene(
            f"ActiveLabel-v0, {engine.cohort.source.name}, episode {running.index[i]}",
            f"{spent[-1]} of {budget} labels spent, {metric} {quality[-1]:.3f}",
            self.map.places[positions],
            self.map.bounds,
            labelled,
            fresh,
            engine.classes,
            Curve(spent, quality, budget, f"{metric} on the reward set"),
            _images(engine.cohort, engine.sampler.rows["pool"][positions[fresh]]),
        )


def _points(engine: ActiveLabelEngine) -> Callable[[IntArray], NDArray[Any]]:
    """Return what gives the points of the pool part: where distances are taken, or the features, or the pixels."""
    features, rows = engine.cohort.features, engine.sampler.rows["pool"]
    if engine.geometry is not None:
        points = engine.points
        return lambda at: points[torch.from_numpy(at).to(points.device)].cpu().numpy()
    if features is not None:
        return lambda at: features[rows[at]]
    images = engine.x["pool"]

    def thumbnails(at: IntArray) -> NDArray[Any]:
        some = images[torch.from_numpy(at).to(images.device)].permute(0, 3, 1, 2).float()
        small: NDArray[Any] = torch.nn.functional.adaptive_avg_pool2d(some, THUMBNAIL).flatten(1).cpu().numpy()
        return small

    return thumbnails


class SelectiveScenes:
    """Scenes of tasks of ``SelectiveLabel-v0``, before and after their one step."""

    def __init__(self, engine: SelectiveLabelEngine, kind: str) -> None:
        self.engine, self.kind = engine, kind

    @cached_property
    def rows(self) -> IntArray:
        """The cohort's rows that tasks are drawn from, sorted."""
        return self.engine.splits.rows(self.engine.settings.split)

    @cached_property
    def map(self) -> PoolMap:
        """The map of these rows."""
        features = self.engine.features

        def take(at: IntArray) -> NDArray[Any]:
            return features[torch.from_numpy(self.rows[at]).to(features.device)].cpu().numpy()

        return PoolMap(len(self.rows), take, self.kind)

    def scene(self, tasks: TaskBatch, i: int, played: Played | None) -> Scene:
        """Return what there is to see of task ``i``.

        Parameters
        ----------
        tasks: ``B`` tasks.
        i: which of them.
        played: the actions ``(B, K)`` of their step, its info and rewards ``(B,)``; None before it.
        """
        engine, k = self.engine, self.engine.settings.k
        rows, condition = engine.rows_of(tasks.pool[i]), engine.cohort.classes[tasks.condition[i]]
        labelled, fresh = np.full(len(rows), -1), np.empty(0, dtype=np.int64)
        values: dict[str, float | None] = {"chosen": None, "random": None}
        status = f"before the step: {k} of {len(rows)} images may be labelled"
        if played is not None:
            actions, info, rewards = played
            heard = info["labels"][i] >= 0
            fresh = actions[i][heard]
            labelled[fresh] = info["labels"][i][heard]
            _, first = np.unique(fresh, return_index=True)
            fresh = fresh[np.sort(first)]
            random = float(info["random_reward"][i])
            values = {"chosen": float(rewards[i]), "random": None if np.isnan(random) else random}
            status = f"{len(fresh)} of {len(rows)} images labelled, {info['positives'][i]} positive"
        normal = engine.cohort.normal
        return Scene(
            f"SelectiveLabel-v0, {engine.cohort.source.name}, task {tasks.index[i]}: {condition}",
            status,
            self.map.places[np.searchsorted(self.rows, rows)],
            self.map.bounds,
            labelled,
            fresh,
            ("negative" if normal is None else engine.cohort.classes[normal], condition),
            Bars(values, "AUROC on the query set"),
            _images(engine.cohort, rows[fresh]),
        )


def _images(cohort: Cohort, rows: IntArray) -> list[Any] | None:
    return None if cohort.images is None else [cohort.images[int(row)] for row in rows[:SHOWN]]


class Renderer:
    """Answers ``render`` as Gymnasium defines it; draws nothing where ``render_mode`` is None.

    Parameters
    ----------
    env: the environment's name.
    mode: the ``render_mode`` that was asked for.
    modes: those that it has.
    kind: of the map; one of :data:`MAPS`.

    Raises
    ------
    SettingsError: if the mode is not one of them, the map unknown, or its package not installed.
    """

    def __init__(self, env: str, mode: str | None, modes: Sequence[str], kind: str) -> None:
        if mode is not None and mode not in modes:
            why = " Windows are of single environments; show the frames." if mode == "human" else ""
            known = ", ".join(repr(known) for known in modes)
            raise SettingsError(f"render_mode={mode!r} of {env} must be {known} or None.{why}")
        if kind not in MAPS:
            raise SettingsError(unknown("render_map", kind, MAPS))
        if kind == "umap" and find_spec("umap") is None:
            raise SettingsError('render_map="umap" needs umap-learn: pip install "activelabel[umap]".')
        self.env, self.mode = env, mode
        self._screen: Screen | None = None

    @property
    def screen(self) -> Screen:
        """What is drawn on; made at the first frame."""
        if self._screen is None:
            from activelabel.envs.drawing import Screen  # late: it imports matplotlib

            self._screen = Screen(window=self.mode == "human")
        return self._screen

    def single(self, scene: Callable[[], Scene]) -> Frame | None:
        """Return a frame, uint8 ``(540, 960, 3)``; or show it in a window and return None."""
        if self.mode is None:
            self._warn()
            return None
        if self.mode == "human":
            self.after_step(scene)
            return None
        return self.screen.frame(scene())

    def each(self, scene: Callable[[int], Scene], n: int) -> tuple[Frame, ...] | None:
        """Return a frame of each of ``n`` sub-environments."""
        if self.mode is None:
            self._warn()
            return None
        return tuple(self.screen.frame(scene(i)) for i in range(n))

    def after_step(self, scene: Callable[[], Scene]) -> None:
        """Show what a reset or step has led to, if there is a window to show it in."""
        if self.mode == "human":
            self.screen.show(scene(), 1 / FPS)

    def _warn(self) -> None:
        gym.logger.warn(
            f"{self.env}: render() shows nothing, because the environment was made without a render_mode; give it one, "
            'such as render_mode="rgb_array".'
        )

    def close(self) -> None:
        """Free the figure and close its window; the next frame makes another."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None
