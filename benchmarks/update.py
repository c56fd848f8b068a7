"""One REINFORCE update at the paper's scale against the bare BiLSTM forward and backward of the same size.

::

    python -m benchmarks.update --repeats 5

64 tasks, pools of 1000, query sets of 100, 512 numbers an image. The two take turns, and the ratio is of their medians.
Everything in an update that is not the network's forward and backward is measured inside the same update, in parts.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import tyro

from activelabel.agents import Reinforce
from activelabel.envs import SelectiveLabelVectorEnv
from benchmarks.paper_size import paper_env

PARTS = ("tasks", "observation", "selections", "log-probability", "rewards", "baseline")
"""What an update does besides the network. Rewards are those of all selections, of the action and of the random
selector; the log-probability is forward and backward, to the logits; the optimiser is in the rest."""

RATIO_LIMIT, REST_LIMIT, TASKS_LIMIT = 1.15, 0.150, 0.040
"""Update over bare network; seconds of everything else, and of drawing the tasks."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 5
    """Timed turns of each contestant, after one that is not counted."""
    k: tuple[int, ...] = (10, 40, 200, 400)
    """Images to label."""
    n_samples: tuple[int, ...] = (1, 8)
    """Selections for each task; 1 is the paper's."""
    batch: int = 64
    """Tasks an update."""
    pool: int = 1000
    """Images in the pool."""


@dataclass(frozen=True)
class Figures:
    """Median seconds.

    Parameters
    ----------
    update, bare: of an update and of the bare network's forward and backward.
    parts: of each of :data:`PARTS`.
    rest: of the update without its network.
    """

    update: float
    bare: float
    parts: dict[str, float]
    rest: float


def main(settings: Settings) -> None:
    """Measure and print the ratios and the parts."""
    sizes = f"{settings.batch} x {settings.pool} x 512"
    print(f"{torch.get_num_threads()} threads, {sizes}, {settings.repeats} repeats; parts and rest in ms")
    heads = " ".join(f"{name:>{max(6, len(name))}}" for name in (*PARTS, "rest"))
    print(f"{'K':>4} {'M':>3} {'update, s':>10} {'bare, s':>8} {'ratio':>6} {heads}")
    for k in settings.k:
        for n_samples in settings.n_samples:
            found = measure(k, n_samples, settings)
            row = f"{k:>4} {n_samples:>3} {found.update:>10.2f} {found.bare:>8.2f} {found.update / found.bare:>6.3f}"
            for name, seconds in (*found.parts.items(), ("rest", found.rest)):
                row += f" {seconds * 1e3:>{max(6, len(name))}.1f}"
            print(row, flush=True)


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured for the first K and number of selections, the figure, and what it may be at most."""
    found = measure(settings.k[0], settings.n_samples[0], settings)
    return [
        ("REINFORCE update / bare BiLSTM", found.update / found.bare, RATIO_LIMIT),
        ("REINFORCE update without its network, s", found.rest, REST_LIMIT),
        ("drawing the tasks of an update, s", found.parts["tasks"], TASKS_LIMIT),
    ]


def measure(k: int, n_samples: int, settings: Settings) -> Figures:
    """Return the figures of updates with K images and M selections a task."""
    venv = paper_env(settings.batch, pool=settings.pool, k=k)
    baseline = "random" if n_samples == 1 else "leave-one-out"
    model = Reinforce(env=venv, batch_size=settings.batch, n_samples=n_samples, baseline=baseline, seed=0)
    watch = Watch(model, venv)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(settings.batch, settings.pool, venv.engine.dim, generator=generator).to(model.device)
    turns: dict[str, list[float]] = defaultdict(list)
    for turn in range(settings.repeats + 1):
        watch.seconds.clear()
        start = time.perf_counter()
        model.learn(settings.batch, log_interval=0, reset_num_timesteps=turn == 0)
        middle = time.perf_counter()
        model.policy.set_training_mode(True)
        model.policy.selector(images).sum().backward()
        end = time.perf_counter()
        model.policy.optimizer.zero_grad()
        if turn:
            turns["update"].append(middle - start)
            turns["bare"].append(end - middle)
            turns["rest"].append(middle - start - watch.seconds["network"])
            for name in PARTS:
                turns[name].append(watch.seconds[name])
    medians = {name: statistics.median(seconds) for name, seconds in turns.items()}
    return Figures(medians["update"], medians["bare"], {name: medians[name] for name in PARTS}, medians["rest"])


class Watch:
    """Adds up the seconds of the parts of a model's updates.

    Parameters
    ----------
    model, venv: the model, and the vector env that it trains on; both are changed for good.
    """

    def __init__(self, model: Reinforce, venv: SelectiveLabelVectorEnv) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = 0.0
        for owner, name, part in (
            (venv.engine, "tasks", "tasks"),
            (venv.engine, "observe", "observation"),
            (model.policy, "tensors", "observation"),
            (model.policy, "forward", "network"),
            (model.rule, "sample", "selections"),
            (model.rule, "log_prob", "log-probability"),
            (model.rule, "entropy", "log-probability"),
            (venv, "score_selections", "rewards"),
            (venv.engine, "play", "rewards"),
            (model, "_advantages", "baseline"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part))
        model.rule.log_prob = self._with_backward(model.rule.log_prob)  # type: ignore[method-assign]
        model.rule.entropy = self._after_backward(model.rule.entropy)  # type: ignore[method-assign]

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return timed

    def _lap(self, part: str | None) -> None:
        now = time.perf_counter()
        if part is not None:
            self.seconds[part] += now - self._last
        self._last = now

    def _with_backward(self, log_prob: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Watch the gradient too: it reaches the log-probability first, then the logits, then the network."""

        def watched(logits: torch.Tensor, selections: torch.Tensor) -> torch.Tensor:
            found = log_prob(logits, selections)
            found.register_hook(lambda _: self._lap(None))  # type: ignore[no-untyped-call]
            logits.register_hook(lambda _: self._lap("log-probability"))  # type: ignore[no-untyped-call]
            return found

        return watched

    def _after_backward(self, entropy: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The entropy is the first thing after the backward pass."""

        def watched(logits: torch.Tensor) -> torch.Tensor:
            self._lap("network")
            return entropy(logits)

        return watched


if __name__ == "__main__":
    main(tyro.cli(Settings))
