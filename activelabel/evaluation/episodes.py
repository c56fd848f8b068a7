"""Playing the same episodes of ``ActiveLabel-v0`` with every strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import IntArray
from activelabel.envs import ActiveLabelEngine, RunningEpisodes
from activelabel.errors import SettingsError
from activelabel.evaluation.protocol import Advance, Strategy

LOOKS = ("features", "state", "state_images", "observe", "distance", "space")
"""Settings that change what is seen of an episode, and nothing that happens in it."""

PLAYS = ("learner", "learner_arguments", "batch")
"""Settings of a strategy's own that change what happens: it then looks through a classifier that does not judge it."""


@dataclass(frozen=True, eq=False)
class Curves:
    """What a strategy reached in each episode.

    Parameters
    ----------
    labels: int64 ``(T + 1,)``, labels spent, or what was spent on them, from 0 to the budget.
    accuracy: float64 ``(E, T + 1)``, the metric on the test set.
    reward: float64 ``(E, T + 1)``, the metric on D_R.
    """

    labels: IntArray
    accuracy: NDArray[np.float64]
    reward: NDArray[np.float64]

    @property
    def aulc(self) -> NDArray[np.float64]:
        """Area under the learning curve on the test set, ``(E,)``; see :func:`area`."""
        return area(self.labels, self.accuracy)

    @property
    def final(self) -> NDArray[np.float64]:
        """The metric on the test set when the budget is spent, ``(E,)``."""
        return self.accuracy[:, -1]


def area(labels: IntArray, curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under curves ``(E, T + 1)`` by the trapezoid rule, as a share of the range of labels: 0 to 1."""
    means = (curves[:, 1:] + curves[:, :-1]) / 2
    areas: NDArray[np.float64] = means @ np.diff(labels) / (labels[-1] - labels[0])
    return areas


def areas(name: str, found: Mapping[str, Curves]) -> dict[str, float]:
    """Return the area under a strategy's mean curve on D_R: the mean over data sets.

    Parameters
    ----------
    name: what it is called; of several data sets there is each one's own too, as ``{name}/{data set}``.
    found: the curves, by data set.
    """
    each = {f"{name}/{data}": float(area(curves.labels, curves.reward).mean()) for data, curves in found.items()}
    return {name: float(np.mean(list(each.values()))), **(each if len(each) > 1 else {})}


def play_episodes(
    engine: ActiveLabelEngine, strategy: Strategy, n_episodes: int, batch: int = 50, advance: Advance | None = None
) -> Curves:
    """Let a strategy label in episodes ``0 .. n_episodes - 1`` of an engine, until the budget is spent.

    A strategy can have, besides ``predict``:

    - ``observes``, names for the environment's ``observe``;
    - ``env_settings``, the settings out of :data:`LOOKS` and :data:`PLAYS` that its observations must be made with.
      Whatever they are, the curves are those of the engine's own classifier, trained on the same images in the same
      order with the engine's number of labels a step;
    - ``attach(episodes)``, called with the :class:`~activelabel.envs.RunningEpisodes` that are then played.

    Parameters
    ----------
    engine: it judges.
    strategy: who labels.
    n_episodes: how many episodes.
    batch: how many are played at once; without influence on a strategy that has no randomness of its own.
    advance: called when some are done.

    Raises
    ------
    SettingsError: if the strategy needs settings that change the episodes, or chooses other than ``(B, N)`` candidates.
    """
    changes = _changes(engine, strategy)
    view = engine.sibling(**changes) if changes else engine
    judge = engine.sibling(reward="change", candidates=None) if set(changes) & set(PLAYS) else None
    grid = np.unique([*range(0, engine.settings.budget, engine.settings.batch), engine.settings.budget])
    curves = []
    for start in range(0, n_episodes, batch):
        index = np.arange(start, min(start + batch, n_episodes))
        episodes = _begin(view, index)
        if hasattr(strategy, "attach"):
            strategy.attach(episodes)
        slots = _play(episodes, strategy)
        if judge is not None:
            episodes = _label_again(_begin(judge, index), slots)
        curves += [_on_grid(curve, grid) for curve in episodes.curves]
        if advance is not None:
            advance(len(index))
    figures = np.stack(curves)
    return Curves(grid, figures[:, :, 1], figures[:, :, 0])


def _on_grid(curve: list[tuple[int, float, float]], grid: IntArray) -> NDArray[np.float64]:
    """Return what an episode had reached when so much was spent: on D_R and on the test set, ``(T + 1, 2)``.

    Where labels have costs, its steps end elsewhere, and it stays at what the last of them gave.
    """
    spent, *reached = np.array(curve, dtype=np.float64).T
    found: NDArray[np.float64] = np.stack(reached, axis=1)[np.searchsorted(spent, grid, side="right") - 1]
    return found


def _changes(engine: ActiveLabelEngine, strategy: Strategy) -> dict[str, Any]:
    """Return how the engine that makes the observations differs from the one that judges."""
    asked: dict[str, Any] = {"observe": tuple(getattr(strategy, "observes", ()))}
    asked |= getattr(strategy, "env_settings", {})
    strange = sorted(set(asked) - {*LOOKS, *PLAYS, "reward", "tolerance"})
    if strange:
        raise SettingsError(f"{strategy!r} asks for {', '.join(strange)}, which would make other episodes of them.")
    asked |= {"reward": "change", "tolerance": engine.settings.tolerance}  # an evaluation goes to the end of the budget
    if "learner" in asked and asked["learner"] != engine.settings.learner:
        asked.setdefault("learner_arguments", {})
    return {name: value for name, value in asked.items() if value != getattr(engine.settings, name)}


def _begin(engine: ActiveLabelEngine, index: IntArray) -> RunningEpisodes:
    episodes = RunningEpisodes(engine, len(index))
    episodes.begin(np.arange(len(index)), index)
    return episodes


def _play(episodes: RunningEpisodes, strategy: Strategy) -> IntArray:
    """Play to the end; returns the images of the pools that were chosen, int64 ``(B, budget)``.

    In place of a choice that labelled nothing there is an image that was labelled from the start.
    """
    settings = episodes.engine.settings
    shape = (episodes.n, settings.batch)
    chosen = []
    while not episodes.over.all():
        actions = np.asarray(strategy.predict(episodes.observe(), deterministic=True)[0])
        if actions.shape == shape[:1] and settings.batch == 1:
            actions = actions[:, None]
        if actions.shape != shape:
            raise SettingsError(f"{strategy!r} chose {actions.shape} where {shape} was asked for.")
        offered = episodes.offered.cpu().numpy().copy()  # labelling writes the next ones over them
        start = episodes.slots[:, :1].cpu().numpy()
        labelled = episodes.label(actions).ids >= 0
        chosen.append(np.where(labelled, np.take_along_axis(offered, actions, axis=1), start))
    return np.concatenate(chosen, axis=1)[:, : settings.budget]


def _label_again(episodes: RunningEpisodes, slots: IntArray) -> RunningEpisodes:
    """Label the given images of the pools in the steps of other episodes, whose candidates are the whole pool."""
    batch = episodes.engine.settings.batch
    steps = -(-slots.shape[1] // batch)
    padded = np.pad(slots, ((0, 0), (0, steps * batch - slots.shape[1])), mode="edge")
    for step in np.split(padded, steps, axis=1):
        episodes.label(step)
    return episodes
