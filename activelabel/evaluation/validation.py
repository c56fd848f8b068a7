"""Meta-validation and checkpoints while an agent trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from activelabel.agents import Reinforce
from activelabel.envs import SelectiveLabelEngine
from activelabel.evaluation.protocol import play
from activelabel.evaluation.report import title


class MetaValidation(BaseCallback):
    """Judges the agent on meta-validation tasks, keeps the best model, and writes checkpoints that training resumes
    from.

    TensorBoard gets ``eval/auroc`` beside ``eval/random`` and ``eval/kmedoids``. The best reward so far is in
    ``model.notes``.

    Parameters
    ----------
    engine: of the validation part; its tasks ``0 .. n_tasks - 1`` are used every time.
    n_tasks: how many.
    every: updates between validations; the last update is validated too.
    references: mean AUROC of other strategies on the same tasks, by name.
    best: where the best model is written.
    checkpoint: where the last state is written.
    bar: progress bar that is advanced and shows the rewards; or None.
    """

    model: Reinforce

    def __init__(
        self,
        engine: SelectiveLabelEngine,
        n_tasks: int,
        every: int,
        references: dict[str, float],
        best: Path,
        checkpoint: Path,
        bar: tqdm | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.n_tasks = n_tasks
        self.every = every
        self.references = references
        self.best = best
        self.checkpoint = checkpoint
        self.bar = bar

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Runs when an update is complete."""
        model = self.model
        last = model.num_timesteps >= model._total_timesteps
        if model._n_updates % self.every == 0 or last:
            self._validate()
        if self.bar is not None:
            recorded = model.logger.name_to_value
            reward, random = recorded["rollout/reward"], recorded["rollout/random_reward"]
            shown = f"reward {reward:.3f} (random {random:.3f})"
            if "last" in model.notes:
                references = ", ".join(f"{title(name)} {value:.3f}" for name, value in self.references.items())
                shown += f" | validation {model.notes['last']:.3f}, best {model.notes['best']:.3f} ({references})"
            self.bar.set_postfix_str(shown, refresh=False)
            self.bar.update(1)

    def _validate(self) -> None:
        model = self.model
        k = model.k
        reward = float(np.mean(play(self.engine, model, [k], self.n_tasks)[k].reward))
        self.logger.record("eval/auroc", reward)
        for name, value in self.references.items():
            self.logger.record(f"eval/{name}", value)
        model.notes["last"] = reward
        model.notes.setdefault("history", []).append([model._n_updates, reward])
        if reward > model.notes.get("best", -np.inf):
            model.notes.update(best=reward, best_update=model._n_updates)
            model.save(self.best)
        model.save(self.checkpoint)
