"""Wrappers that show an agent more: the candidates' images, and what their labels cost.

Each stands twice: ``X`` wraps an environment of ``gym.make``, ``VectorX`` one of ``gym.make_vec``, and sub-environment
``i`` of the second equals the first with the same seed. They want the ``Dict`` observations of the environments: put
those that flatten them outside. Annotators that err are no wrapper: ``oracle="noisy"``, see
:mod:`activelabel.envs.oracles`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from activelabel.data.cohort import FloatArray, IntArray
from activelabel.envs.active import ActiveLabelEnv, ActiveLabelVectorEnv
from activelabel.envs.active_engine import ActiveLabelEngine
from activelabel.envs.pixels import pixels
from activelabel.envs.selections import first_occurrences
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.envs.selective_engine import SelectiveLabelEngine
from activelabel.envs.shared import Info, Observation, masked
from activelabel.errors import DataError, SettingsError, unknown

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    _VectorWrapper = VectorWrapper  # became generic after Gymnasium 1.1

Engine = ActiveLabelEngine | SelectiveLabelEngine
VectorStep = tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]
Costs = float | Sequence[float] | NDArray[Any] | Mapping[str, float]


def _engine(env: Any) -> Engine:
    """Return the engine inside the wrappers."""
    inner = env.unwrapped
    if not isinstance(inner, (ActiveLabelEnv, ActiveLabelVectorEnv, SelectiveLabelEnv, SelectiveLabelVectorEnv)):
        raise SettingsError(f"{inner} is not of gym.make or gym.make_vec with ActiveLabel-v0 or SelectiveLabel-v0.")
    return inner.engine


class _Shown(ABC):
    """What is shown of the candidates besides the observation.

    Parameters
    ----------
    engine: of the environment.
    """

    spaces: dict[str, Space[Any]]
    """The keys to add, of one sub-environment."""
    dropped: tuple[str, ...] = ()
    """The keys to leave out."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._tasks, self._pool = np.empty(0, np.int64), np.empty((0, 0), np.int64)

    @abstractmethod
    def of(self, rows: IntArray) -> Observation:
        """Return the keys ``(B, ...)`` of candidates that are rows ``(B, M)`` of the cohort, as arrays of their own."""

    @property
    def candidates(self) -> int:
        """M, how many there are."""
        return self.engine.m if isinstance(self.engine, ActiveLabelEngine) else self.engine.settings.pool

    def rows(self, info: Info) -> IntArray:
        """Return which rows of the cohort the candidates are, int64 ``(B, M)``, of the info of B sub-environments."""
        if isinstance(self.engine, ActiveLabelEngine):
            rows: IntArray = info["candidate_ids"]
            return rows
        if not np.array_equal(self._tasks, info["task"]):  # a task keeps its pool; drawing it again takes time
            self._tasks = np.array(info["task"])
            self._pool = self.engine.tasks(self._tasks).pool
        return self._pool

    def space(self, space: Space[Any]) -> Dict:
        """Return the space with the keys."""
        if not isinstance(space, Dict):
            kind = type(space).__name__
            raise SettingsError(f"the observation must be a Dict, not a {kind}; flatten it outside this wrapper.")
        return Dict({name: part for name, part in space.spaces.items() if name not in self.dropped} | self.spaces)

    def add(self, observation: Observation, shown: Observation) -> Observation:
        """Return the observation with the keys."""
        return {name: array for name, array in observation.items() if name not in self.dropped} | shown


def _batch_of_one(info: Info) -> Info:
    """Return the info of a single environment as that of B = 1, as far as this module reads it."""
    names = ("task", "candidate_ids", "ids", "labels", "condition")
    return {name: np.asarray(info[name])[None] for name in names if name in info}


class _Observing(gym.Wrapper[Observation, Any, Observation, Any], RecordConstructorArgs):
    """A wrapper of a single environment that shows something of the candidates."""

    def _show(self, shown: _Shown) -> None:
        self._shown = shown
        self.observation_space = shown.space(self.env.observation_space)  # type: ignore[assignment]

    def _see(self, observation: Observation, info: Info) -> Observation:
        found = self._shown.of(self._shown.rows(_batch_of_one(info)))
        return self._shown.add(observation, {name: array[0] for name, array in found.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin an episode; see the environment for the options."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._see(observation, info), info

    def step(self, action: Any) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Play the action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._see(observation, info), reward, terminated, truncated, info


class _VectorObserving(_VectorWrapper):
    """The same of a vector environment, with any ``autoreset_mode``."""

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """What happens at the end of an episode; TorchRL asks for it here, Gymnasium's wrappers have the metadata."""
        mode: AutoresetMode = self.metadata["autoreset_mode"]
        return mode

    def _show(self, shown: _Shown) -> None:
        self._shown = shown
        self.single_observation_space = shown.space(self.env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def _see(self, observation: Observation, info: Info) -> Observation:
        return self._shown.add(observation, self._shown.of(self._shown.rows(info)))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin episodes; see the vector environment for seeds and options."""
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._see(observation, info), info

    def step(self, actions: Any) -> VectorStep:
        """Play the actions."""
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:  # those episodes had other candidates than the ones that have just begun
            ended = np.flatnonzero(info["_final_obs"])
            found = self._shown.of(self._shown.rows(info["final_info"])[ended])
            for place, i in enumerate(ended):
                shown = {name: array[place] for name, array in found.items()}
                info["final_obs"][i] = self._shown.add(info["final_obs"][i], shown)
        return self._see(observation, info), rewards, terminated, truncated, info


# -- images -----------------------------------------------------------------------------------------------------------


class _Images(_Shown):
    def __init__(self, engine: Engine, size: int | None, replace: bool) -> None:
        super().__init__(engine)
        cohort = engine.cohort
        if cohort.images is None:
            raise DataError(
                f"{cohort.source.name} has no images to observe: load a data set or a file that has them ('images')."
            )
        if isinstance(engine, ActiveLabelEngine):
            rows = engine.sampler.rows["pool"]
        else:
            rows = engine.splits.rows(engine.settings.split)
        self.images = pixels(cohort, rows, size).numpy()
        self.place = np.full(len(cohort), -1)
        self.place[rows] = np.arange(len(rows))
        self.spaces = {"images": Box(0, 255, (self.candidates, *self.images.shape[1:]), np.uint8)}
        self.dropped = ("pool", "embeddings") if replace else ()

    def of(self, rows: IntArray) -> Observation:
        return {"images": self.images[self.place[rows]]}


class ImageObservation(_Observing):
    """The observation has besides ``images``, ``Box(0, 255, (M, H, W, C), uint8)``, the candidates' pixels, C 1 or 3.

    Memory: ``M * H * W * C`` bytes an observation, 0.8 MB for 200 images of 64 x 64, which a rollout or replay buffer
    keeps once for every step it holds; and the images of the part that pools are drawn from, read when this is made.

    Parameters
    ----------
    env: of ``gym.make``; its cohort has images.
    size: side of the square that each is scaled to; None takes them as they are, all of one size.
    replace: leave out what the embeddings are in: ``pool``, and ``embeddings`` where it was asked for.

    Raises
    ------
    DataError: if the cohort has no images.
    SettingsError: if they differ in size and ``size`` is None, or the observation is no ``Dict``.
    """

    def __init__(self, env: gym.Env[Observation, Any], size: int | None = None, replace: bool = False) -> None:
        RecordConstructorArgs.__init__(self, size=size, replace=replace)
        super().__init__(env)
        self._show(_Images(_engine(env), size, replace))


class VectorImageObservation(_VectorObserving):
    """:class:`ImageObservation` of a vector env of ``gym.make_vec``: ``(B, M, H, W, C)``, B times the memory.

    Parameters
    ----------
    env, size, replace: as for :class:`ImageObservation`.

    Raises
    ------
    DataError, SettingsError: as there.
    """

    def __init__(self, env: VectorEnv[Observation, Any, Any], size: int | None = None, replace: bool = False) -> None:
        super().__init__(env)
        self._show(_Images(_engine(env), size, replace))


# -- costs ------------------------------------------------------------------------------------------------------------


def _checked(values: Any, shape: tuple[int, ...], what: str) -> FloatArray:
    try:
        costs = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise SettingsError(f"costs must be numbers, got {str(values)[:100]}.") from None
    if costs.shape != shape:
        raise SettingsError(f"costs has shape {costs.shape}; give one number, or {shape[0]}: {what}.")
    if not np.isfinite(costs).all() or (costs < 0).any():
        raise SettingsError("costs must be finite and not negative; a reward for labelling is not a cost.")
    return costs.astype(np.float32)


class _LabelCosts(_Shown):
    def __init__(self, engine: Engine, costs: Costs) -> None:
        super().__init__(engine)
        classes = engine.classes if isinstance(engine, ActiveLabelEngine) else engine.cohort.classes
        self.by_class: FloatArray | None = None
        if isinstance(costs, Mapping):
            for name in costs:
                if name not in classes:
                    raise SettingsError(unknown("class in costs", str(name), classes))
            missing = [name for name in classes if name not in costs]
            if missing:
                raise SettingsError(f"costs has no {', '.join(missing)}; each class must have a cost.")
            self.by_class = _checked([costs[name] for name in classes], (len(classes),), "one a class")
            self.spaces = {"class_costs": Box(0, self._most(self.by_class), self.by_class.shape, np.float32)}
            return
        n = len(engine.cohort)
        one = np.full(n, costs) if np.ndim(costs) == 0 else costs
        self.by_row = _checked(one, (n,), "one a row of the cohort")
        self.spaces = {"costs": Box(0, self._most(self.by_row), (self.candidates,), np.float32)}

    @staticmethod
    def _most(costs: FloatArray) -> float:
        return float(costs.max()) or 1.0

    def of(self, rows: IntArray) -> Observation:
        if self.by_class is None:
            return {"costs": self.by_row[rows]}
        return {"class_costs": np.tile(self.by_class, (len(rows), 1))}

    def paid(self, info: Info) -> NDArray[np.float64]:
        """Return what the labels of a step cost, float64 ``(B,)``, of the info of B sub-environments."""
        ids, labels = info["ids"], np.asarray(info["labels"], np.int64)
        new = first_occurrences(ids) & (labels >= 0)
        if self.by_class is None:
            each = self.by_row[ids]
        else:
            each = self.by_class[labels if isinstance(self.engine, ActiveLabelEngine) else self._classes(info, labels)]
        total: NDArray[np.float64] = np.where(new, each, 0).sum(axis=1, dtype=np.float64)
        return total

    def _classes(self, info: Info, labels: IntArray) -> IntArray:
        """Return the columns of the cohort that labels of tasks mean: the condition or the normal class."""
        assert isinstance(self.engine, SelectiveLabelEngine)
        cohort = self.engine.cohort
        assert cohort.normal is not None
        condition = np.array([cohort.class_index(str(name)) for name in info["condition"]])
        found: IntArray = np.where(labels == 1, condition[:, None], cohort.normal)
        return found


class LabelCost(_Observing):
    """The reward of a step less what its labels cost; the observation has the costs, so that an agent can weigh them.

    Each image that gets an answer costs once. An index that labels nothing, because its image was labelled already or
    the oracle is silent, costs nothing of the reward; of the budget it takes its part as before. The costs of
    ``oracle="annotators"`` are another matter: they are taken from the budget, so that dear labels are fewer, and may
    be used besides. ``info["label_cost"]`` is what was subtracted.

    The observation has ``costs``, ``Box(M,)``, what each candidate's label would cost; or, where costs are by class,
    ``class_costs``, ``Box(C,)``: of a single candidate it would tell the label.

    ``score_selections``, from which REINFORCE learns, is the environment's and knows no costs.

    Parameters
    ----------
    env: of ``gym.make``.
    costs: in the unit of the reward: one number for every label; or ``(n,)``, one for each row of the cohort, such as
        an image's reading time; or the cost of each class by name, of ``ActiveLabel-v0``'s classes, or of the cohort's
        for ``SelectiveLabel-v0``. That is paid by the oracle's answer.

    Raises
    ------
    SettingsError: if the costs are negative, not finite, of another number, or of an unknown class, or the observation
        is no ``Dict``.
    """

    def __init__(self, env: gym.Env[Observation, Any], costs: Costs) -> None:
        RecordConstructorArgs.__init__(self, costs=costs)
        super().__init__(env)
        self._costs = _LabelCosts(_engine(env), costs)
        self._show(self._costs)

    def step(self, action: Any) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Play the action, and pay."""
        observation, reward, terminated, truncated, info = super().step(action)
        paid = float(self._costs.paid(_batch_of_one(info))[0]) if "labels" in info else 0.0
        return observation, float(reward) - paid, terminated, truncated, {**info, "label_cost": paid}


class VectorLabelCost(_VectorObserving):
    """:class:`LabelCost` of a vector env of ``gym.make_vec``.

    Parameters
    ----------
    env, costs: as for :class:`LabelCost`.

    Raises
    ------
    SettingsError: as there.
    """

    def __init__(self, env: VectorEnv[Observation, Any, Any], costs: Costs) -> None:
        super().__init__(env)
        self._costs = _LabelCosts(_engine(env), costs)
        self._show(self._costs)

    def step(self, actions: Any) -> VectorStep:
        """Play the actions, and pay."""
        observation, rewards, terminated, truncated, info = super().step(actions)
        paid = np.zeros(self.num_envs)
        for part in (info, info.get("final_info", {})):
            if "labels" in part:
                stepped = part["_labels"]
                paid[stepped] = self._costs.paid(part)[stepped]
                part |= masked({"label_cost": np.where(stepped, paid, 0.0)}, stepped)
        return observation, rewards - paid, terminated, truncated, info
