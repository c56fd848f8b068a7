"""``ActiveLabel-v0``: which images to label next, until the budget is spent (Slade & Branson 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.data.cohort import IntArray
from activelabel.envs.actions import StepResult
from activelabel.envs.active_engine import ActiveLabelEngine, ActiveLabelSettings
from activelabel.envs.candidates import DISTANCES
from activelabel.envs.rendering import FPS, MODES, VECTOR_MODES, ActiveScenes, Frame, Renderer, Scene
from activelabel.envs.running import RunningEpisodes
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


def _spaces(engine: ActiveLabelEngine) -> tuple[Dict, Space[Any]]:
    s, m = engine.settings, engine.m
    bounds = {"cost": float(engine.pool), **dict.fromkeys(DISTANCES, engine.distance_bound)}
    high = np.array([bounds.get(name, 1.0) for name in s.features], np.float32)
    size, dim = engine.latent_bound, engine.latent_size
    spaces: dict[str, Space[Any]] = {
        "state": Box(0, 1, (engine.n_state,), np.float32),
        "candidates": Box(0, np.broadcast_to(high, (m, len(high))).copy(), dtype=np.float32),
        "action_mask": MultiBinary(m),
    }
    if "probabilities" in s.observe:
        spaces["probabilities"] = Box(0, 1, (m, engine.n_classes), np.float32)
    if "embeddings" in s.observe:
        spaces["embeddings"] = Box(-size, size, (m, dim), np.float32)
    if "labelled" in s.observe:
        spaces["labelled"] = Box(-size, size, (engine.n_labels, dim), np.float32)
        spaces["labels"] = Box(-1, engine.n_classes - 1, (engine.n_labels,), np.int64)
    return Dict(spaces), Discrete(m) if s.batch == 1 else MultiDiscrete(np.full(s.batch, m))


def _engine(
    engine: ActiveLabelEngine | None, cohort: Cohort | str, settings: dict[str, Any], device: str | torch.device
) -> ActiveLabelEngine:
    """Return the given engine, or a new one."""
    if engine is None:
        return ActiveLabelEngine(cohort, ActiveLabelSettings.make(**settings), device)
    if settings:
        raise SettingsError(f"engine= brings its settings; use engine.sibling() to change {', '.join(settings)}.")
    return engine


def _draw(engine: ActiveLabelEngine, rng: np.random.Generator) -> int:
    return int(rng.integers(engine.settings.n_episodes))


def _start_info(episodes: RunningEpisodes) -> dict[str, NDArray[Any]]:
    initial = episodes.initial_rows()
    return {
        "episode_id": episodes.index.copy(),
        "initial_ids": initial,
        **_present_info(episodes),
    }


def _present_info(episodes: RunningEpisodes) -> dict[str, NDArray[Any]]:
    return {
        "action_mask": episodes.mask.to(torch.int8).cpu().numpy(),
        "candidate_ids": episodes.ids(),
        "reward_accuracy": episodes.quality.copy(),
        "n_labelled": episodes.labelled.sum(dim=1).cpu().numpy(),
    }


def _step_info(episodes: RunningEpisodes, result: StepResult) -> dict[str, NDArray[Any]]:
    return {"episode_id": episodes.index.copy(), "ids": result.ids, "labels": result.labels, **_present_info(episodes)}


def _end_info(episodes: RunningEpisodes, over: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the learning curves of the episodes that are over; arrays of objects, None elsewhere."""
    curves: dict[str, NDArray[Any]] = {
        name: np.full(len(over), None, object) for name in ("curve_labels", "test_curve")
    }
    for i in np.flatnonzero(over):
        spent, _, test = zip(*episodes.curves[i], strict=True)
        curves["curve_labels"][i], curves["test_curve"][i] = np.array(spent), np.array(test)
    return curves


class ActiveLabelEnv(gym.Env[Observation, IntArray]):
    """Choose the next N images to label, again and again until the budget is spent.

    ## Description
    A pool of unlabelled images, a few initial labels of each class, and a classifier that is trained on what is
    labelled. At each step the agent sees how sure the classifier is and what it thinks of every candidate, chooses N
    of them, an oracle labels them, and the classifier is trained again, from scratch or warm. The oracle may be wrong,
    silent or dear (:mod:`activelabel.envs.oracles`): what is seen is made of its answers, what rewards of true labels.
    The problem is Slade & Branson's (2022, §3), after LAL-RL (Konyushkova et al. 2018). The data have four disjoint
    parts, by patient where there are patients: pool, state set D_s, reward set D_R and test set.

    ## Action Space
    ``MultiDiscrete([M] * N)``, or ``Discrete(M)`` for N = 1: indices into the candidates. The order does not count.
    An index that is repeated, or whose image was asked about already, labels nothing and spends its part of the budget.
    Indices are paid one after the other, a label by what its annotator costs (1 by default), any other index by 1; with
    the first that is too dear the rest of the budget is gone.

    ## Observation Space
    ``Dict``:

    - ``state``: ``Box(S,)`` float32, 0 to 1, the classifier on the state set, by default its 30 largest class
      probabilities in ascending order (§3.1.1) and the share of the budget that is spent.
    - ``candidates``: ``Box(M, F)`` float32, a vector for each candidate (§3.1.2): by default its largest class
      probability, its mean distance to the labelled images and that to the unlabelled ones. See
      :mod:`activelabel.envs.candidates` for the others.
    - ``action_mask``: ``MultiBinary(M)`` int8, 1 where it was not asked about yet.
    - with ``observe=("probabilities",)``: ``probabilities``, ``Box(M, C)``.
    - with ``observe=("embeddings",)``: ``embeddings``, ``Box(M, d)``, latent features: the classifier's own, which
      change with every label, where it is a network that is fine-tuned (``learner="finetune"``).
    - with ``observe=("labelled",)``: ``labelled``, ``Box(L, d)``, latent features of the labelled images in the order
      of labelling, and ``labels``, ``Box(L,)`` int64, their classes, -1 where there is none yet.

    A candidate keeps its index for the whole episode, unless ``candidates=M`` draws M new ones at each step.

    ## Rewards
    The change of the classifier's accuracy on D_R (Eq. 2), -1 to 1; or of its balanced accuracy or macro AUROC. With
    ``reward="target"`` -1 a step until a target quality is reached (LAL-RL).

    ## Starting State
    An episode: a pool, and ``initial`` labels of each class. ``reset(options={"episode": i})`` plays episode ``i``;
    otherwise it is drawn from ``n_episodes``.

    ## Episode End
    Terminated when the budget is spent, or the target of ``reward="target"`` is reached.

    ## Arguments
    ``cohort``: a :class:`~activelabel.data.Cohort` or what :func:`activelabel.data.load` takes, by default
    ``"synthetic"``. ``device``: ``"auto"``, or a torch device. ``engine``: an engine to share instead. All others are
    the fields of :class:`~activelabel.envs.active_engine.ActiveLabelSettings`.

    ```python
    env = gym.make("ActiveLabel-v0", cohort="digits", budget=20, batch=1)
    ```

    ## Information
    ``reset``: ``initial_ids`` (I,) rows of the cohort. Always: ``episode_id`` its number, ``action_mask`` (M,) int8,
    ``candidate_ids`` (M,) rows of the cohort, ``reward_accuracy`` the metric on D_R, ``n_labelled``. ``step``,
    besides: ``ids`` (N,) rows that were asked about, -1 where an index asked nothing, and ``labels`` (N,) the answers,
    -1 there and where there was none. ``n_labelled`` counts images with an answer.
    At the end of the episode, and only then: ``test_curve`` (T + 1,), the metric on the test set before the first and
    after every step, and ``curve_labels`` (T + 1,), what was spent of the budget.

    ## Rendering
    ``render_mode="rgb_array"``: a map of the pool by principal components (of the pool part, fitted once; with
    ``render_map="umap"`` by UMAP) with what is labelled and what was labelled last, these images where the cohort has
    any, and ``reward_accuracy`` by labels spent. ``"human"`` shows the same in a window of matplotlib's backend; one
    without windows shows nothing.

    ## Version History
    * v0: initial version.
    """

    metadata: dict[str, Any] = {"render_modes": list(MODES), "render_fps": FPS}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(
        self,
        cohort: Cohort | str = "synthetic",
        *,
        device: str | torch.device = "auto",
        engine: ActiveLabelEngine | None = None,
        render_mode: str | None = None,
        render_map: str = "pca",
        **settings: Any,
    ) -> None:
        self._renderer, self.render_mode = Renderer("ActiveLabel-v0", render_mode, MODES, render_map), render_mode
        self.engine = _engine(engine, cohort, settings, device)
        self.observation_space, self.action_space = _spaces(self.engine)  # type: ignore[assignment]
        self.episodes = RunningEpisodes(self.engine, 1)
        self._scenes = ActiveScenes(self.episodes, render_map)
        self._begun = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start an episode; ``options={"episode": i}`` chooses episode ``i``."""
        super().reset(seed=seed)
        chosen = (options or {}).get("episode")
        numbers = None if chosen is None else chosen_numbers({"episode": [chosen]}, "episode", 1)
        self.episodes.begin(np.arange(1), [_draw(self.engine, self.np_random)] if numbers is None else numbers)
        self._begun = True
        self._renderer.after_step(self._scene)
        return self._observe(), first(_start_info(self.episodes))

    def _observe(self) -> Observation:
        return {name: array[0] for name, array in self.episodes.observe().items()}

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, Info]:
        """Label the chosen candidates and train the classifier.

        Raises
        ------
        SettingsError: if the action does not hold N indices of candidates.
        RuntimeError: before the first reset, or if the episode is over.
        """
        if not self._begun or self.episodes.over[0]:
            raise RuntimeError("ActiveLabel-v0: call reset() before step(); no episode is running.")
        actions = np.asarray(action)
        result = self.episodes.label(actions.reshape(1, 1) if actions.ndim == 0 else actions[None])
        info = first(_step_info(self.episodes, result))
        over = bool(result.over[0])
        if over:
            info |= {name: curves[0] for name, curves in _end_info(self.episodes, result.over).items()}
        self._renderer.after_step(self._scene)
        return self._observe(), float(result.reward[0]), over, False, info

    def render(self) -> Frame | None:
        """Return the episode as a picture, uint8 ``(540, 960, 3)``; with ``render_mode="human"`` it is in a window."""
        return self._renderer.single(self._scene)

    def _scene(self) -> Scene:
        if not self._begun:
            raise RuntimeError("ActiveLabel-v0: call reset() before render().")
        return self._scenes.scene(0)

    def close(self) -> None:
        """Close the window and free the figure of :meth:`render`."""
        self._renderer.close()

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which candidates may be labelled, bool ``(M,)``, or ``(N * M,)`` as sb3-contrib wants it for N > 1."""
        mask: NDArray[np.bool_] = self.episodes.mask[0].cpu().numpy()
        return np.tile(mask, self.engine.settings.batch)

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on exactly here."""
        if not self._begun:
            raise RuntimeError("ActiveLabel-v0: call reset() first.")
        return {"rng": [self.np_random.bit_generator.state], "episodes": self.episodes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> Observation:
        """Go on where :meth:`state_dict` was called; returns the observation of that moment."""
        self._np_random = restored_generators(state["rng"], 1)[0]
        self.episodes.load_state_dict(state["episodes"])
        self._begun = True
        return self._observe()


class ActiveLabelVectorEnv(BatchedVectorEnv):
    """``B`` copies of :class:`ActiveLabelEnv` played as one batch; what ``gym.make_vec("ActiveLabel-v0", num_envs=B)``
    makes.

    Each sub-environment has its own generator: ``reset(seed=s)`` seeds number ``i`` with ``s + i``, and it then
    equals a single env that was reset with ``s + i``, observation by observation.

    Parameters
    ----------
    num_envs: ``B``.
    cohort, device, engine, **settings: as for the single env.
    render_mode, render_map: ``"rgb_array"`` or None, and as for the single env.
    autoreset_mode: what happens at the end of an episode. ``SAME_STEP`` (default): ``step`` returns the next
        episode's first observation, the last one and its info are in ``final_obs`` and ``final_info``; ``NEXT_STEP``:
        the following ``step`` ignores the action of that sub-environment and resets it; ``DISABLED``: the caller
        resets.
    """

    def __init__(
        self,
        num_envs: int = 1,
        cohort: Cohort | str = "synthetic",
        *,
        device: str | torch.device = "auto",
        engine: ActiveLabelEngine | None = None,
        render_mode: str | None = None,
        render_map: str = "pca",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **settings: Any,
    ) -> None:
        check_num_envs(num_envs)
        renderer = Renderer("ActiveLabel-v0 (vector)", render_mode, VECTOR_MODES, render_map)
        self.engine = _engine(engine, cohort, settings, device)
        self._set_up(num_envs, _spaces(self.engine), autoreset_mode, renderer)
        self.episodes = RunningEpisodes(self.engine, num_envs)
        self._scenes = ActiveScenes(self.episodes, render_map)
        self._begun = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start an episode in each sub-environment.

        Parameters
        ----------
        seed: of sub-environment 0, the others count on from it; or one for each.
        options: ``{"episode": (B,)}`` chooses the episodes; ``{"reset_mask": (B,) bool}`` resets some and leaves the
            others as they are.
        """
        options = options or {}
        self._rngs = next_generators(self._rngs, seed, self.num_envs)
        mask = reset_mask(options, self.num_envs)
        if not self._begun and not mask.all():
            raise SettingsError("the first reset must be of all environments, not of a reset_mask.")
        self._start(mask, chosen_numbers(options, "episode", self.num_envs))
        self._begun = True
        return self.episodes.observe(), masked(_start_info(self.episodes), mask)

    def _start(self, mask: NDArray[np.bool_], chosen: IntArray | None = None) -> None:
        which = np.flatnonzero(mask)
        drawn = [_draw(self.engine, self._rngs[i]) for i in which] if chosen is None else chosen[mask]
        self.episodes.begin(which, drawn)

    def step(
        self, actions: IntArray
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Label the chosen candidates of every episode; see ``autoreset_mode`` for what happens at their ends.

        Raises
        ------
        SettingsError: if the actions are not ``(B, N)`` indices of candidates, or ``(B,)`` for N = 1.
        RuntimeError: before the first reset, or if an episode is over with autoreset disabled.
        """
        ended = self.episodes.over.copy()
        if not self._begun or (ended.any() and self.autoreset_mode != AutoresetMode.NEXT_STEP):
            raise RuntimeError("ActiveLabel-v0: call reset() first, and for every environment whose episode is over.")
        actions = np.asarray(actions)
        result = self.episodes.label(actions[:, None] if actions.ndim == 1 else actions)
        over = result.over & ~ended
        info = masked(_step_info(self.episodes, result), ~ended)
        if over.any():
            info |= masked(_end_info(self.episodes, over), over)
        if ended.any():  # NEXT_STEP: these begin now
            self._start(ended)
            started = _start_info(self.episodes)
            info |= masked(started, np.ones(self.num_envs, dtype=np.bool_)) | {"_initial_ids": ended}
        elif over.any() and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = self._restart(over, info)
        return self.episodes.observe(), result.reward, over, np.zeros(self.num_envs, dtype=np.bool_), info

    def _restart(self, over: NDArray[np.bool_], info: Info) -> Info:
        """Begin new episodes where one is over; returns the infos of both."""
        last = self.episodes.observe()
        final = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(over):
            final[i] = {name: array[i] for name, array in last.items()}
        self._start(over)
        following = masked(_start_info(self.episodes), over)
        following |= {name: info[name] for name in ("ids", "labels")} | {"_ids": ~over, "_labels": ~over}
        for name in ("action_mask", "candidate_ids", "reward_accuracy", "n_labelled", "episode_id"):
            following[f"_{name}"] = np.ones(self.num_envs, dtype=np.bool_)
        final_info = {**info, **{n: over & m for n, m in info.items() if n.startswith("_")}}
        return {
            **following,
            "final_obs": final,
            "_final_obs": over,
            "final_info": final_info,
            "_final_info": over.copy(),
        }

    def _scene(self, i: int) -> Scene:
        if not self._begun:
            raise RuntimeError("ActiveLabel-v0: call reset() before render().")
        return self._scenes.scene(i)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which candidates may be labelled, bool ``(B, M)``."""
        masks: NDArray[np.bool_] = self.episodes.mask.cpu().numpy()
        return masks

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on exactly here."""
        if not self._begun:
            raise RuntimeError("ActiveLabel-v0: call reset() first.")
        return {"rng": [r.bit_generator.state for r in self._rngs], "episodes": self.episodes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> Observation:
        """Go on where :meth:`state_dict` was called; returns the observation of that moment.

        Raises
        ------
        SettingsError: if the state is of another number of environments.
        """
        self._rngs = restored_generators(state["rng"], self.num_envs)
        self.episodes.load_state_dict(state["episodes"])
        self._begun = True
        return self.episodes.observe()
