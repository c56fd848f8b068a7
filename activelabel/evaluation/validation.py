"""Validation and checkpoints while an agent trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn
from tqdm import tqdm

from activelabel.agents import DDQN, Reinforce
from activelabel.data.cohort import IntArray
from activelabel.envs import ActiveLabelEngine, RunningEpisodes, SelectiveLabelEngine
from activelabel.evaluation.episodes import areas, play_episodes
from activelabel.evaluation.protocol import Strategy, play
from activelabel.evaluation.report import title
from activelabel.files import remove_abandoned

SHOWN = 10
"""Tasks or episodes of a validation, the first, of which TensorBoard gets histograms."""


class Validation(BaseCallback, ABC):
    """Judges the agent now and then, keeps the best model, and writes checkpoints that training resumes from.

    The best result so far is in ``model.notes``: ``last``, ``best``, ``best_{unit}`` and ``history``.

    Parameters
    ----------
    every: updates (rounds) between validations; the last one is validated too.
    references: what other strategies reach on the same tasks, by name.
    best: where the best model is written.
    checkpoint: where the last state is written.
    bar: progress bar that is advanced and shows the results; or None.
    notes: what else is kept with the model.
    """

    unit: str
    """What ``every`` counts."""

    model: Any

    def __init__(
        self,
        every: int,
        references: dict[str, float],
        best: Path,
        checkpoint: Path,
        bar: tqdm | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.notes = notes or {}
        self.every = every
        self.references = references
        self.best = best
        self.checkpoint = checkpoint
        self.bar = bar

    @abstractmethod
    def count(self) -> int:
        """Return how many updates (rounds) are done."""

    @abstractmethod
    def judge(self) -> dict[str, float]:
        """Return what the agent reaches, by name; the first is what the best model is chosen by."""

    @abstractmethod
    def keep(self, path: Path) -> None:
        """Write the best model."""

    @abstractmethod
    def position(self) -> int:
        """Return how far the progress bar is."""

    @abstractmethod
    def shown(self) -> str:
        """Return what the progress bar says of the training itself."""

    def _on_training_start(self) -> None:
        self.model.notes.update(self.notes)
        for path in (self.best, self.checkpoint):
            remove_abandoned(path)
        if self.bar is not None:  # what a resumed training has behind it is no part of its speed
            self.bar.initial = self.bar.n = self.position()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Runs when an update (round) is complete."""
        model = self.model
        last = model.num_timesteps >= model._total_timesteps or model.notes.get("stopped", False)
        if self.count() % self.every == 0 or last:
            self._validate()
        if self.bar is not None:
            text = self.shown()
            if "last" in model.notes:
                references = ", ".join(
                    f"{title(name)} {value:.3f}" for name, value in self.references.items() if "/" not in name
                )
                text += f" | validation {model.notes['last']:.3f}, best {model.notes['best']:.3f} ({references})"
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(self.position() - self.bar.n)

    def show(self, name: str, values: Tensor) -> None:
        """Give TensorBoard the histogram ``eval/{name}`` of values, where they are finite."""
        finite = values[values.isfinite()]
        if len(finite):
            self.logger.record(f"eval/{name}", finite.cpu())

    def _validate(self) -> None:
        notes = self.model.notes
        found = self.judge()
        for name, value in (found | self.references).items():
            self.logger.record(f"eval/{name}", value)
        result = next(iter(found.values()))
        notes["last"] = result
        notes.setdefault("history", []).append([self.count(), result])
        if result > notes.get("best", -np.inf):
            notes["best"], notes[f"best_{self.unit}"] = result, self.count()
            self.keep(self.best)
        self.model.save(self.checkpoint)


class MetaValidation(Validation):
    """Judges a selector on meta-validation tasks of ``SelectiveLabel-v0``.

    TensorBoard gets ``eval/auroc`` beside the references, and the histogram ``eval/logits`` of the pools' logits.

    Parameters
    ----------
    engine: of the validation part; its tasks ``0 .. n_tasks - 1`` are used every time.
    n_tasks: how many.
    *arguments: ``every``, ``references``, ``best``, ``checkpoint`` and ``bar`` of :class:`Validation`.
    """

    unit = "update"
    model: Reinforce

    def __init__(self, engine: SelectiveLabelEngine, n_tasks: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.engine = engine
        self.n_tasks = n_tasks

    def count(self) -> int:
        """See :class:`Validation`."""
        return self.model._n_updates

    position = count

    def judge(self) -> dict[str, float]:
        """See :class:`Validation`."""
        k = self.model.k
        with _returned(self.model.policy) as logits:
            scores = play(self.engine, self.model, [k], self.n_tasks)[k]
        if logits:  # a policy of the user's own may score otherwise than by being called
            self.show("logits", logits[0][:SHOWN])
        return self.reached(scores.reward)

    def reached(self, reward: NDArray[np.float64]) -> dict[str, float]:
        """Return what :meth:`judge` does of the AUROC of each task, ``(n_tasks,)``."""
        return {"auroc": float(np.mean(reward))}

    def keep(self, path: Path) -> None:
        """See :class:`Validation`."""
        self.model.save(path)

    def shown(self) -> str:
        """See :class:`Validation`."""
        recorded = self.model.logger.name_to_value
        return f"reward {recorded['rollout/reward']:.3f} (random {recorded['rollout/random_reward']:.3f})"


class EpisodeValidation(Validation):
    """Judges an agent on episodes of the validation part of ``ActiveLabel-v0``, by what it reaches on the reward set.

    TensorBoard gets ``eval/aulc`` and ``eval/accuracy`` (or another metric's name), the area under the learning curve
    and its end, beside the references' areas, and the histogram ``eval/q_values`` of the candidates' values at every
    step. Of several data sets these are means, the area of each is ``eval/aulc/{data set}``, and the histogram is of
    the first. Test sets are not looked at.

    Parameters
    ----------
    engines: of the validation part of each data set, by name; their episodes ``0 .. n_episodes - 1`` are used every
        time.
    n_episodes: how many, of each.
    steps: of an episode.
    *arguments: ``every``, ``references``, ``best``, ``checkpoint`` and ``bar`` of :class:`Validation`.
    """

    unit = "round"
    model: DDQN

    def __init__(self, engines: Mapping[str, ActiveLabelEngine], n_episodes: int, steps: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.engines = engines
        self.n_episodes = n_episodes
        self.steps = steps

    def count(self) -> int:
        """See :class:`Validation`."""
        return len(self.model.returns)

    def position(self) -> int:
        """See :class:`Validation`."""
        return self.model.num_timesteps // self.steps

    def judge(self) -> dict[str, float]:
        """See :class:`Validation`."""
        valued = _Valued(self.model)
        found = self.reached(valued)
        self.show("q_values", torch.cat(valued.values))
        return found

    def reached(self, strategy: Strategy) -> dict[str, float]:
        """Return the areas under a strategy's curves and where they end, by name."""
        found = {data: play_episodes(engine, strategy, self.n_episodes) for data, engine in self.engines.items()}
        metric = next(iter(self.engines.values())).settings.metric
        end = float(np.mean([curves.reward[:, -1].mean() for curves in found.values()]))
        return areas("aulc", found) | {metric: end}

    def keep(self, path: Path) -> None:
        """See :class:`Validation`."""
        self.model.save(path, exclude=["replay"])

    def shown(self) -> str:
        """See :class:`Validation`."""
        return f"return {self.model.returns[-1]:.3f}, epsilon {self.model.epsilon:.2f}"


@contextmanager
def _returned(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield what a network returns in the block, call by call; nothing is computed for it."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output.detach())

    handle = network.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


class _Valued:
    """Chooses as an agent does, and keeps how it valued what it could label in the first episodes."""

    def __init__(self, model: DDQN) -> None:
        self._model = model
        self._network = model.policy.q_target if model.act_with == "target" else model.policy.q
        self._batches = 0
        self.env_settings = model.env_settings
        self.values: list[Tensor] = []

    def attach(self, episodes: RunningEpisodes) -> None:
        """Count the batches of episodes."""
        self._batches += 1

    def predict(self, observation: dict[str, NDArray[Any]], *arguments: Any, **keywords: Any) -> tuple[IntArray, Any]:
        """Choose."""
        if self._batches > 1:
            return self._model.predict(observation, *arguments, **keywords)
        with _returned(self._network) as blocks:
            chosen = self._model.predict(observation, *arguments, **keywords)
        mask = np.asarray(observation["action_mask"][:SHOWN], dtype=np.bool_)
        self.values.append(torch.cat(blocks)[:SHOWN].cpu()[torch.from_numpy(mask)])
        return chosen
