"""Episodes of ``ActiveLabel-v0`` while they run, ``B`` at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data.cohort import IntArray
from activelabel.envs.actions import StepResult, check_actions, marked
from activelabel.envs.active_engine import ActiveLabelEngine
from activelabel.envs.asking import NO_ANSWER, Questions, answered, check_together, paid, relative_prices
from activelabel.envs.candidates import FEATURES, PROGRESS, STATES, Candidates, rows_at
from activelabel.envs.distances import Geometry, centred, scaled
from activelabel.envs.learners import checked, checked_latent
from activelabel.envs.metrics import METRICS
from activelabel.envs.selections import first_occurrences
from activelabel.errors import SettingsError
from activelabel.seeding import stream


class RunningEpisodes:
    """``B`` episodes: what is labelled, the classifiers, and the running sums of distances.

    Every episode's numbers depend on itself alone, whatever others run beside it.

    Parameters
    ----------
    engine: the data.
    n: how many episodes, B.

    Raises
    ------
    SettingsError: if they are several and the oracle answers one at a time.
    """

    def __init__(self, engine: ActiveLabelEngine, n: int) -> None:
        self.engine = e = engine
        check_together(e.oracle, n)
        self.n = n
        self.index = np.zeros(n, dtype=np.int64)
        self.spent = np.zeros(n, dtype=np.int64)
        self.filled, self.before = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.over = np.ones(n, dtype=np.bool_)
        self.quality = np.zeros(n)
        self.pool = self._zeros(e.pool, dtype=torch.int64)
        self.labelled = self._zeros(e.pool, dtype=torch.bool)
        self.asked = self._zeros(e.pool, dtype=torch.bool)
        self.draws = self._zeros(e.pool, e.oracle.draws, dtype=torch.float64)
        self.slots = self._zeros(e.n_labels, dtype=torch.int64)
        self.classes = self._zeros(e.n_labels, dtype=torch.int64)
        self.weight = self._zeros(e.n_labels)
        self.sum_labelled, self.sum_unlabelled = self._zeros(e.pool), self._zeros(e.pool)
        self.nearest, self.density = self._zeros(e.pool), self._zeros(e.pool)
        seen = e.on_images and {"embeddings", "labelled"} & set(e.settings.observe)
        self.latent = self._zeros(e.pool, e.latent_size) if seen else None
        self.state = self._zeros(e.settings.state_images, e.n_classes)
        self.offered = self._zeros(e.m, dtype=torch.int64)
        self.mask = self._zeros(e.m, dtype=torch.bool)
        self.probabilities = self._zeros(e.m, e.n_classes)
        self.warm: Tensor | None = None
        self.actions: list[list[list[int]]] = [[] for _ in range(n)]
        self.curves: list[list[tuple[int, float, float]]] = [[] for _ in range(n)]
        self._target = e.target() if e.settings.reward == "target" else None

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.n, *shape, dtype=dtype, device=self.engine.device)

    # -- starting -----------------------------------------------------------------------------------------------------

    def begin(self, which: IntArray, index: Sequence[int] | IntArray) -> None:
        """Start episodes.

        Parameters
        ----------
        which: int64 ``(b,)``, the places to start them in.
        index: their numbers, ``(b,)``.
        """
        if not len(which):
            return
        e, at = self.engine, self._places(which)
        drawn = e.sampler.batch(index)
        self.index[which], self.spent[which], self.over[which] = drawn.index, 0, False
        self.pool[at] = torch.from_numpy(drawn.pool).to(e.device)
        self.labelled[at], self.weight[at], self.sum_labelled[at] = False, 0, 0
        self.slots[at], self.nearest[at] = 0, float("inf")
        self.density[at] = e.density[self.pool[at]]
        if e.geometry is not None and not e.sparse and "unlabelled" in e.settings.features:
            self.sum_unlabelled[at] = self._pool_sums(e.geometry, self.pool[at])
        for i in which:
            self.actions[i], self.curves[i] = [], []
        if self.warm is not None:
            self.warm[at] = 0
        initial = torch.from_numpy(drawn.initial).to(e.device)
        self._add(at, initial, e.y["pool"][self.pool[at].gather(1, initial)], 0)
        self.asked[at], self.filled[which], self.before[which] = self.labelled[at], e.n_initial, 0
        self.draws[at] = e.draws(drawn.index)
        self._refresh(which, fresh=True)

    def _places(self, which: IntArray) -> Tensor:
        return torch.from_numpy(np.asarray(which)).to(self.engine.device)

    def _pool_sums(self, geometry: Geometry, pool: Tensor) -> Tensor:
        """Return ``(b, P)``: for each image of each pool the sum of distances to the pool's images."""
        if pool.shape[1] == len(geometry):  # every episode has the whole part, in an order of its own
            return geometry.sums()[pool]
        return torch.stack([geometry.take(rows).sums() for rows in pool])

    # -- labelling ----------------------------------------------------------------------------------------------------

    def label(self, actions: IntArray) -> StepResult:
        """Label candidates in every episode that is not over, and train again.

        Parameters
        ----------
        actions: int64 ``(B, N)``, indices into the candidates; the rows of episodes that are over have no effect.

        Raises
        ------
        SettingsError: if the shape is wrong, an index is not one of a candidate, or the oracle cannot answer.
        """
        e, s = self.engine, self.engine.settings
        actions = check_actions(actions, (self.n, s.batch), e.m)
        running = np.flatnonzero(~self.over)
        at = self._places(running)
        chosen = torch.from_numpy(actions[running]).to(e.device)
        slots = self.offered[at].gather(1, chosen)
        fresh = torch.from_numpy(first_occurrences(actions[running])).to(e.device)
        free = self.mask[at].gather(1, chosen) & fresh
        draws, positions = self.draws[at[:, None], slots], self.pool[at].gather(1, slots)
        counted, cost = paid(e.oracle, draws, free, self._places(s.budget - self.spent[running]))
        asked, rows = counted & free, e.sampler.rows["pool"][positions.cpu().numpy()]
        answers = answered(e.oracle, Questions(e.cohort, e.classes, rows, e.y["pool"][positions], asked, draws))
        self.asked[at] = marked(self.asked[at], slots, asked)
        start, width = self.filled[running], counted.sum(dim=1).cpu().numpy()
        for places in sorted(set(zip(start.tolist(), width.tolist(), strict=True))):
            group = self._places(np.flatnonzero((start == places[0]) & (width == places[1])))
            self._add(at[group], slots[group, : places[1]], answers[group, : places[1]], places[0])
        self.spent[running] += cost.cpu().numpy()
        self.filled[running], self.before[running] = start + width, start
        for i in running:
            self.actions[i].append(actions[i].tolist())
        before = self.quality.copy()
        self._refresh(running)
        reward = np.zeros(self.n)
        if self._target is None:
            reward[running] = (self.quality - before)[running]
            self.over[running] = self.spent[running] >= s.budget
        else:
            reward[running] = -1.0
            reached = self.quality[running] >= self._target
            self.over[running] = reached | (self.spent[running] >= s.budget)
        ids, labels = (np.full((self.n, s.batch), -1, dtype=np.int64) for _ in range(2))
        ids[running], labels[running] = np.where(asked.cpu().numpy(), rows, -1), answers.cpu().numpy()
        return StepResult(reward, self.over.copy(), ids, labels)

    def _add(self, at: Tensor, slots: Tensor, answers: Tensor, start: int) -> None:
        """Label ``slots`` ``(b, n)`` of the pools where there is an answer, in the places from ``start`` on."""
        if not slots.shape[1]:
            return
        e, new = self.engine, answers != NO_ANSWER
        places = slice(start, start + slots.shape[1])
        positions = self.pool[at].gather(1, slots)
        self.slots[at, places], self.classes[at, places] = slots, answers.clamp(min=0)
        self.weight[at, places] = new.float()
        self.labelled[at] = marked(self.labelled[at], slots, new)
        if (space := e.geometry) is None or e.sparse:  # distances come with the next model, or with the candidates
            return
        d = space.between(positions, self.pool[at])
        d.scatter_(2, slots[:, :, None], 0)
        total = (d * new[:, :, None]).sum(dim=1)
        self.sum_labelled[at] += total
        self.sum_unlabelled[at] -= total
        near = d.masked_fill_(~new[:, :, None], float("inf")).amin(dim=1)
        self.nearest[at] = torch.minimum(self.nearest[at], near)

    def _refresh(self, which: IntArray, fresh: bool = False) -> None:
        """Train the classifiers of some episodes and take from them all that is needed until the next label."""
        for filled in np.unique(self.filled[which]):
            # Only episodes with as many labels go together: sums of another length round otherwise.
            group = which[self.filled[which] == filled]
            for some in self._together(group):
                self._fit(some, int(filled), fresh)

    def _together(self, which: IntArray) -> list[IntArray]:
        """Return which episodes are trained at once: all, or one at a time where each has a network and a copy of its
        pool's images."""
        return np.split(which, len(which)) if self.engine.on_images else [which]

    def _fit(self, which: IntArray, places: int, fresh: bool) -> None:
        e, at = self.engine, self._places(which)
        b, c = len(which), e.n_classes
        positions = self.pool[at].gather(1, self.slots[at, :places])
        previous = None if fresh or self.warm is None else self.warm[at]
        model = e.learner.fit(e.x["pool"][positions], self.classes[at, :places], self.weight[at, :places], c, previous)
        self._keep_warm(model, at)
        self._offer(which, at)
        judge = METRICS[e.settings.metric]
        on = {}
        for part in ("state", "reward", "test"):
            x = e.x[part]
            on[part] = checked(model.predict_proba(x), (b, len(x), c), e.learner)
        self.state[at] = on["state"]
        # The test figures go nowhere but into the curve, which is told at the end of the episode.
        reward, test = (judge(on[part], e.y[part]).cpu().numpy() for part in ("reward", "test"))
        self.quality[which] = reward
        for i, on_reward, on_test in zip(which, reward, test, strict=True):
            self.curves[i].append((int(self.spent[i]), float(on_reward), float(on_test)))
        offered = self._offered_of(self.pool)[at]
        n = len(e.x["pool"])
        if e.on_images:
            self.probabilities[at] = rows_at(self._see_pool(model, at), self.offered[at])
        elif n <= 4 * e.m:  # one product for all episodes, then each takes its own
            everywhere = checked(model.predict_proba(e.x["pool"]), (b, n, c), e.learner)
            self.probabilities[at] = rows_at(everywhere, offered)
        else:
            self.probabilities[at] = checked(model.predict_proba(e.x["pool"][offered]), (b, e.m, c), e.learner)

    def _see_pool(self, model: Any, at: Tensor) -> Tensor:
        """Take the latent space of an episode's new model, and distances in it; returns probabilities ``(1, P, C)``."""
        e, s = self.engine, self.engine.settings
        images = e.x["pool"][self.pool[at]]
        probabilities = checked(model.predict_proba(images), (1, e.pool, e.n_classes), e.learner)
        latent = scaled(checked_latent(model, images, e.latent_size, e.learner)[0])
        if self.latent is not None:
            self.latent[at] = latent
        if e.geometry is None:
            space = Geometry.of(latent if s.distance == "cosine" else centred(latent), s.distance)
            d = space.to(self.labelled[at][0].nonzero()[:, 0])
            self.sum_labelled[at], self.nearest[at] = d.sum(dim=1), d.amin(dim=1)
            self.sum_unlabelled[at] = space.sums() - d.sum(dim=1)
            if "density" in s.features:
                self.density[at] = space.density()
        return probabilities

    def _keep_warm(self, model: Any, at: Tensor) -> None:
        warm = getattr(model, "warm", None) if getattr(self.engine.learner, "warm", False) else None
        if warm is None:
            return
        if self.warm is None:
            self.warm = self._zeros(warm.shape[1], self.engine.n_labels + 1)
        padded = warm.new_zeros(*warm.shape[:2], self.engine.n_labels + 1)
        padded[:, :, : warm.shape[2] - 1], padded[:, :, -1] = warm[:, :, :-1], warm[:, :, -1]
        self.warm[at] = padded

    def _offer(self, which: IntArray, at: Tensor) -> None:
        """Choose the candidates of the coming step."""
        e = self.engine
        if e.m == e.pool:
            self.offered[at] = torch.arange(e.pool, device=e.device)
            self.mask[at] = ~self.asked[at]
            return
        for i, known in zip(which, self.asked[at].cpu().numpy(), strict=True):
            free = np.flatnonzero(~known)
            rng = stream(
                e.settings.episode_seed, e.settings.split, "candidates", int(self.index[i]), len(self.actions[i])
            )
            some = rng.permutation(free)[: e.m]
            padded = np.zeros(e.m, dtype=np.int64)
            padded[: len(some)] = some
            self.offered[i] = torch.from_numpy(padded).to(e.device)
            self.mask[i] = torch.arange(e.m, device=e.device) < len(some)

    # -- observing ----------------------------------------------------------------------------------------------------

    def candidates(self) -> Candidates:
        """Return what the features of the present candidates are made of."""
        e = self.engine
        n_labelled = self.labelled.sum(dim=1, keepdim=True)
        share = torch.zeros(self.n, e.n_classes, device=e.device).scatter_add_(1, self.classes, self.weight)
        if e.geometry is not None and e.sparse:
            own, known, there = self._offered_of(self.pool), self.pool.gather(1, self.slots), self.weight > 0
            labelled, unlabelled, nearest = e.geometry.sums_of(own, known, there, self.pool)
        else:
            sums = (self.sum_labelled, self.sum_unlabelled, self.nearest)
            labelled, unlabelled, nearest = (self._offered_of(values) for values in sums)
        return Candidates(
            self.probabilities,
            labelled / n_labelled.clamp(min=1),
            unlabelled.clamp(min=0) / (e.pool - n_labelled).clamp(min=1),
            nearest,
            self._offered_of(self.density),
            share / n_labelled.clamp(min=1),
            self._offered_of(relative_prices(e.oracle, self.draws)) if "cost" in e.settings.features else None,
        )

    def _offered_of(self, values: Tensor) -> Tensor:
        """Return ``(B, M)`` of ``(B, P)``: those of the candidates."""
        return values if self.engine.m == self.engine.pool else values.gather(1, self.offered)

    def observe(self) -> dict[str, NDArray[Any]]:
        """Return fresh arrays of the observation, each with B first."""
        e, s = self.engine, self.engine.settings
        described = self.candidates()
        parts = [
            torch.from_numpy((self.spent / s.budget).astype(np.float32))[:, None].to(e.device)
            if name == PROGRESS
            else STATES[name](self.state)
            for name in s.state
        ]
        out = {
            "state": torch.cat(parts, dim=1),
            "candidates": torch.stack([FEATURES[name](described) for name in s.features], dim=-1),
            "action_mask": self.mask.to(torch.int8),
        }
        extra: dict[str, Callable[[], dict[str, Tensor]]] = {
            "probabilities": lambda: {"probabilities": self.probabilities},
            "embeddings": lambda: {"embeddings": self._latent_of(self.offered)},
            "labelled": self._observe_labelled,
        }
        for name in s.observe:
            out.update(extra[name]())
        return {name: value.cpu().numpy().copy() for name, value in out.items()}

    def _latent_of(self, slots: Tensor) -> Tensor:
        """Return the latent features of places in the pools ``(B, n)``, ``(B, n, d)``."""
        if self.latent is None:
            return self.engine.x["pool"][self.pool.gather(1, slots)]
        return self.latent[torch.arange(self.n, device=self.engine.device)[:, None], slots]

    def _observe_labelled(self) -> dict[str, Tensor]:
        x = self._latent_of(self.slots)
        there = self.weight > 0
        return {
            "labelled": torch.where(there[:, :, None], x, 0),
            "labels": torch.where(there, self.classes, -1),
        }

    def ids(self) -> IntArray:
        """Return the cohort's rows of the candidates, int64 ``(B, M)``."""
        ids: IntArray = self.engine.sampler.rows["pool"][self._offered_of(self.pool).cpu().numpy()]
        return ids

    def initial_rows(self) -> IntArray:
        """Return the cohort's rows of the images that the episodes started from, int64 ``(B, I)``."""
        initial = self.slots[:, : self.engine.n_initial]
        rows: IntArray = self.engine.sampler.rows["pool"][self.pool.gather(1, initial).cpu().numpy()]
        return rows

    def try_labels(self, candidates: IntArray) -> NDArray[np.float64]:
        """Return what the metric on D_R would be with one candidate more, labelled truly; nothing changes.

        Parameters
        ----------
        candidates: int64 ``(B, T)``, indices of candidates that are not labelled.

        Returns
        -------
        float64 ``(B, T)``; without meaning for episodes that are over.
        """
        e, tries = self.engine, candidates.shape[1]
        places = int(self.filled[~self.over].max(initial=e.n_initial))
        extra = self.offered.gather(1, torch.from_numpy(candidates).to(e.device)).reshape(-1, 1)
        pool = self.pool.repeat_interleave(tries, dim=0)
        slots = torch.cat([self.slots[:, :places].repeat_interleave(tries, dim=0), extra], dim=1)
        positions = pool.gather(1, slots)
        weight = self.weight[:, : places + 1].repeat_interleave(tries, dim=0)
        weight[:, -1] = 1
        previous = None if self.warm is None else self.warm.repeat_interleave(tries, dim=0)
        x, quality = e.x["reward"], np.zeros(len(slots))
        for some in self._together(np.arange(len(slots))):
            at = self._places(some)
            own, warm = positions[at], None if previous is None else previous[at]
            model = e.learner.fit(e.x["pool"][own], e.y["pool"][own], weight[at], e.n_classes, warm)
            probabilities = checked(model.predict_proba(x), (len(some), len(x), e.n_classes), e.learner)
            quality[some] = METRICS[e.settings.metric](probabilities, e.y["reward"]).cpu().numpy()
        return quality.reshape(self.n, tries)

    # -- saving -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs: an episode is its number and what was done in it."""
        return {"index": self.index.tolist(), "actions": [list(done) for done in self.actions]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Play the saved episodes again up to the moment of :meth:`state_dict`.

        Raises
        ------
        SettingsError: if they are of another number of episodes.
        """
        if len(saved["index"]) != self.n:
            raise SettingsError(f"the saved state is of {len(saved['index'])} episodes, this is {self.n}.")
        self.begin(np.arange(self.n), saved["index"])
        for step in range(max((len(done) for done in saved["actions"]), default=0)):
            idle = np.array([len(done) <= step for done in saved["actions"]])
            held = self.over | idle
            self.over, before = held.copy(), self.over.copy()
            nothing = [0] * self.engine.settings.batch
            self.label(np.array([nothing if idle[i] else done[step] for i, done in enumerate(saved["actions"])]))
            self.over = np.where(held, before, self.over)
