"""``SelectiveLabel-v0``: which K images of an unlabelled pool to label, in one shot (MedSelect, Smit et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, MultiDiscrete
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from activelabel.data import Cohort, Standardizer, TaskBatch
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.envs.asking import check_together
from activelabel.envs.discriminant import Discriminant
from activelabel.envs.rendering import FPS, MODES, VECTOR_MODES, Frame, Played, Renderer, Scene, SelectiveScenes
from activelabel.envs.selective_engine import SelectiveLabelEngine, SelectiveLabelSettings
from activelabel.envs.shared import (
    BatchedVectorEnv,
    Info,
    Observation,
    check_num_envs,
    chosen_numbers,
    first,
    masked,
    next_generators,
    reset_mask,
    restored_generators,
)
from activelabel.errors import SettingsError


def _spaces(engine: SelectiveLabelEngine) -> tuple[Dict, MultiDiscrete]:
    n, k = engine.settings.pool, engine.settings.k
    observation = Dict(
        pool=Box(-engine.feature_bound, engine.feature_bound, (n, engine.dim), np.float32),
        clinical=Box(-engine.clinical_bound, engine.clinical_bound, (n, 3), np.float32),
    )
    return observation, MultiDiscrete(np.full(k, n))


def _draw(engine: SelectiveLabelEngine, rng: np.random.Generator) -> int:
    return int(rng.integers(engine.settings.n_tasks))


class SelectiveLabelEnv(gym.Env[Observation, IntArray]):
    """Choose the K images of a pool whose labels make the best classifier.

    ## Description
    A task is a medical condition, an unlabelled pool of N images and a query set. The agent sees the pool's
    embeddings and chooses K images at once; an oracle labels them; a prototype classifier is fitted on its answers and
    judged by the true labels of the query set. The problem is MedSelect's (Smit et al. 2021, §2 and §3), whose oracle
    is always right; others may be wrong, silent or dear (:mod:`activelabel.envs.oracles`).

    ## Action Space
    ``MultiDiscrete([N] * K)``: indices into the pool. The action is a set: the order does not count, and a repeated
    index is labelled once while the rest of its budget is lost (``duplicates="repeat"`` counts it as often as it
    was drawn, as the released code does). Only where labels have costs does the order count: indices are paid one after
    the other out of a budget of K, a repeated one by 1, and with the first that is too dear the rest of it is gone.

    ## Observation Space
    ``Dict``:

    - ``pool``: ``Box(N, d)`` float32, the embeddings, standardised with the mean and deviation of the training part.
    - ``clinical``: ``Box(N, 3)`` float32, age (standardised), female and frontal (0 or 1, less the training mean);
      0 where missing.

    The order of the images in the pool is random and carries no information.

    ## Rewards
    The AUROC, 0 to 1, of the predictor on the query set, ties counted as one half. If the oracle called no image
    positive or none negative, the term of the missing class is 0.

    ## Starting State
    A task, drawn from ``n_tasks`` of the part ``split``. ``reset(options={"task": i})`` plays task ``i``.

    ## Episode End
    Always terminated after one step.

    ## Arguments
    ``cohort``: a :class:`~activelabel.data.Cohort` or what :func:`activelabel.data.load` takes, by default
    ``"synthetic"``. ``standardizer``: the one that came with a model. ``device``: ``"auto"``, or a torch device.
    All others are the fields of :class:`~activelabel.envs.selective_engine.SelectiveLabelSettings`: ``k=10``,
    ``pool=200``, ``query=100``, ``split="train"``, ``conditions``, ``held_out``, ``predictor="prototype"``, ...

    ```python
    env = gym.make("SelectiveLabel-v0", cohort="digits", k=5, pool=50, query=20)
    ```

    ## Information
    ``reset``: ``task`` (its number) and ``condition`` (its name). ``step``, besides these: ``ids`` (K,) rows of the
    cohort that were chosen, ``labels`` (K,) what the oracle said, -1 where that was nothing or the budget was gone,
    ``n_labelled`` how many different images were labelled, ``positives`` among them, ``one_class`` whether a class was
    missing, and ``random_reward`` what K images chosen at random would have earned with the same oracle (one draw,
    fixed for each task; NaN where a person would have to be asked for it).

    ## Rendering
    ``render_mode="rgb_array"``: a map of the pool by principal components (of the part ``split``, fitted once; with
    ``render_map="umap"`` by UMAP), before the step and after it; then with what was labelled, these images where the
    cohort has any, and ``random_reward`` beside the reward. ``"human"`` shows the same in a window of matplotlib's
    backend; one without windows shows nothing.

    ## Version History
    * v0: initial version.
    """

    metadata: dict[str, Any] = {"render_modes": list(MODES), "render_fps": FPS}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(
        self,
        cohort: Cohort | str = "synthetic",
        *,
        standardizer: Standardizer | None = None,
        device: str | torch.device = "auto",
        render_mode: str | None = None,
        render_map: str = "pca",
        **settings: Any,
    ) -> None:
        self._renderer, self.render_mode = Renderer("SelectiveLabel-v0", render_mode, MODES, render_map), render_mode
        self.engine = SelectiveLabelEngine(cohort, SelectiveLabelSettings.make(**settings), standardizer, device)
        observation_space, action_space = _spaces(self.engine)
        self.observation_space, self.action_space = observation_space, action_space  # type: ignore[assignment]
        self._scenes = SelectiveScenes(self.engine, render_map)
        self._played: Played | None = None
        self._tasks: TaskBatch | None = None
        self._over = False

    @property
    def standardizer(self) -> Standardizer:
        """The shift and scale that the observations were made with."""
        return self.engine.standardizer

    @property
    def discriminant(self) -> Discriminant:
        """How conditions differ from normal images, in the training part."""
        return self.engine.discriminant()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Draw a task; ``options={"task": i}`` chooses task ``i``."""
        super().reset(seed=seed)
        chosen = (options or {}).get("task")
        self._tasks = self.engine.tasks([_draw(self.engine, self.np_random) if chosen is None else int(chosen)])
        self._over, self._played = False, None
        self._renderer.after_step(self._scene)
        return self._observe(), first(self.engine.task_info(self._tasks))

    def _observe(self) -> Observation:
        return {name: array[0] for name, array in self.engine.observe(_begun(self._tasks)).items()}

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, Info]:
        """Label the chosen images and end the episode.

        Raises
        ------
        SettingsError: if the action does not hold K indices into the pool.
        RuntimeError: if the episode is over.
        """
        if self._over:
            raise RuntimeError("SelectiveLabel-v0: call reset() before step(); an episode is one step long.")
        tasks = _begun(self._tasks)
        action = _check_actions(np.asarray(action)[None], (1, self.engine.settings.k))
        reward, info = self.engine.play(tasks, action)
        self._over, self._played = True, (action.copy(), info, reward)
        self._renderer.after_step(self._scene)
        return self._observe(), float(reward[0]), True, False, first(info)

    def render(self) -> Frame | None:
        """Return the task as a picture, uint8 ``(540, 960, 3)``; with ``render_mode="human"`` it is in a window."""
        return self._renderer.single(self._scene)

    def _scene(self) -> Scene:
        return self._scenes.scene(_begun(self._tasks), 0, self._played)

    def close(self) -> None:
        """Close the window and free the figure of :meth:`render`."""
        self._renderer.close()

    def score_selections(self, selections: IntArray) -> NDArray[np.float64]:
        """Return the rewards ``(M,)`` of selections ``(M, K)`` of the current task, for any K; the episode goes on."""
        rewards: NDArray[np.float64] = self.engine.score(_begun(self._tasks), np.asarray(selections)[None]).reward[0]
        return rewards

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on exactly here."""
        return {
            "rng": [self.np_random.bit_generator.state],
            "task": _begun(self._tasks).index.tolist(),
            "over": self._over,
        }

    def load_state_dict(self, state: dict[str, Any]) -> Observation:
        """Go on where :meth:`state_dict` was called; returns the observation of that moment."""
        self.np_random.bit_generator.state = state["rng"][0]
        self._tasks, self._over = self.engine.tasks(state["task"]), state["over"]
        self._played = None
        return self._observe()


def _begun(tasks: TaskBatch | None) -> TaskBatch:
    if tasks is None:
        raise RuntimeError("SelectiveLabel-v0: call reset() first.")
    return tasks


def _check_actions(actions: NDArray[Any], shape: tuple[int, int]) -> IntArray:
    if actions.shape != shape or actions.dtype.kind not in "iu":
        raise SettingsError(
            f"the action must be integers of shape {shape[1:]} each, got {actions.dtype} {actions.shape[1:]}."
        )
    return actions.astype(np.int64, copy=False)


class SelectiveLabelVectorEnv(BatchedVectorEnv):
    """``B`` copies of :class:`SelectiveLabelEnv` played as one batch; what ``gym.make_vec("SelectiveLabel-v0",
    num_envs=B)`` makes.

    Each sub-environment has its own generator: ``reset(seed=s)`` seeds number ``i`` with ``s + i``, and it then
    equals a single env that was reset with ``s + i``, observation by observation.

    Parameters
    ----------
    num_envs: ``B``.
    cohort, standardizer, device, **settings: as for the single env.
    render_mode, render_map: ``"rgb_array"`` or None, and as for the single env.
    autoreset_mode: what happens after the one step of an episode. ``SAME_STEP`` (default): ``step`` returns the
        next task, the last observation and info are in ``final_obs`` (views of the arrays that were returned
        before) and ``final_info``; ``NEXT_STEP``: the following ``step`` ignores its actions and resets;
        ``DISABLED``: the caller resets.
    copy: as in Gymnasium's vector envs. False is faster where observations are large, and each is written over two
        steps later.
    """

    def __init__(
        self,
        num_envs: int = 1,
        cohort: Cohort | str = "synthetic",
        *,
        standardizer: Standardizer | None = None,
        device: str | torch.device = "auto",
        render_mode: str | None = None,
        render_map: str = "pca",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        copy: bool = True,
        **settings: Any,
    ) -> None:
        check_num_envs(num_envs)
        renderer = Renderer("SelectiveLabel-v0 (vector)", render_mode, VECTOR_MODES, render_map)
        self.engine = SelectiveLabelEngine(cohort, SelectiveLabelSettings.make(**settings), standardizer, device)
        check_together(self.engine.oracle, num_envs)
        self._set_up(num_envs, _spaces(self.engine), autoreset_mode, renderer)
        self._scenes = SelectiveScenes(self.engine, render_map)
        self._played: Played | None = None
        self._tasks: TaskBatch | None = None
        self._over = np.ones(num_envs, dtype=np.bool_)
        self._copy = copy
        self._last: dict[str, FloatArray] = {}
        self._before: dict[str, FloatArray] = {}

    @property
    def standardizer(self) -> Standardizer:
        """The shift and scale that the observations were made with."""
        return self.engine.standardizer

    @property
    def discriminant(self) -> Discriminant:
        """How conditions differ from normal images, in the training part."""
        return self.engine.discriminant()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Draw a task for each sub-environment.

        Parameters
        ----------
        seed: of sub-environment 0, the others count on from it; or one for each.
        options: ``{"task": (B,)}`` chooses the tasks; ``{"reset_mask": (B,) bool}`` resets some and leaves the
            others as they are.
        """
        options = options or {}
        self._rngs = next_generators(self._rngs, seed, self.num_envs)
        mask = reset_mask(options, self.num_envs)
        self._next_tasks(mask, chosen_numbers(options, "task", self.num_envs))
        return self._observe(), masked(self.engine.task_info(_begun(self._tasks)), mask)

    def _next_tasks(self, mask: NDArray[np.bool_], chosen: IntArray | None = None) -> None:
        drawn = [_draw(self.engine, self._rngs[i]) for i in np.flatnonzero(mask)] if chosen is None else chosen[mask]
        index = np.zeros(self.num_envs, dtype=np.int64) if self._tasks is None else self._tasks.index.copy()
        index[mask] = drawn
        self._tasks = self.engine.tasks(index)
        self._over[mask] = False

    def _observe(self) -> Observation:
        out, self._before = self._before or None, {} if self._copy else self._last
        self._last = self.engine.observe(_begun(self._tasks), out)
        return dict(self._last)

    def step(
        self, actions: IntArray
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Label the chosen images of every task; see ``autoreset_mode`` for what is returned with the result.

        Raises
        ------
        SettingsError: if the actions are not ``(B, K)`` indices into the pools.
        RuntimeError: before the first reset, or after the end of an episode with autoreset disabled.
        """
        tasks = _begun(self._tasks)
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        if self._over.any():
            if self.autoreset_mode != AutoresetMode.NEXT_STEP:
                raise RuntimeError("SelectiveLabel-v0: an episode is one step long; reset the environments that ended.")
            self._next_tasks(everyone)
            idle = np.zeros(self.num_envs, dtype=np.bool_)
            info = masked(self.engine.task_info(_begun(self._tasks)), everyone)
            return self._observe(), np.zeros(self.num_envs), idle, idle.copy(), info
        actions = _check_actions(np.asarray(actions), (self.num_envs, self.engine.settings.k))
        reward, arrays = self.engine.play(tasks, actions)
        info = masked(arrays, everyone)
        self._over[:], self._played = True, (actions.copy(), arrays, reward)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            # Labelling changes nothing that is observed: the final observation is the one that was acted on.
            final = np.empty(self.num_envs, dtype=object)
            final[:] = [{name: array[i] for name, array in self._last.items()} for i in range(self.num_envs)]
            self._next_tasks(everyone)
            following = masked({**self.engine.task_info(_begun(self._tasks)), "final_obs": final}, everyone)
            info = {**following, "final_info": info, "_final_info": everyone.copy()}
        return self._observe(), reward, everyone, np.zeros(self.num_envs, dtype=np.bool_), info

    def _scene(self, i: int) -> Scene:
        return self._scenes.scene(_begun(self._tasks), i, self._played if self._over[i] else None)

    def score_selections(self, selections: IntArray) -> NDArray[np.float64]:
        """Return the rewards ``(B, M)`` of selections ``(B, M, K)`` of the current tasks, for any K; nothing ends."""
        return self.engine.score(_begun(self._tasks), selections).reward

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on exactly here."""
        states = [rng.bit_generator.state for rng in self._rngs]
        return {"rng": states, "task": _begun(self._tasks).index.tolist(), "over": self._over.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> Observation:
        """Go on where :meth:`state_dict` was called; returns the observation of that moment.

        Raises
        ------
        SettingsError: if the state is of another number of environments.
        """
        self._rngs = restored_generators(state["rng"], self.num_envs)
        self._over, self._played = np.asarray(state["over"], dtype=np.bool_), None
        self._tasks = self.engine.tasks(state["task"])
        return self._observe()
