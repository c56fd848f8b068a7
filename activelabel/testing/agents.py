"""Checks of agents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from activelabel.agents import find_agent
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.evaluation.plugged import Rounds
from activelabel.testing.shared import (
    Check,
    Observation,
    alone,
    check_actions,
    expect,
    expect_different,
    frozen,
    global_generators_untouched,
    pick,
    run_checks,
    tiny_cohort,
)

AGENT_CHECKS = (
    *("learning", "shape", "single and batch", "single observations", "determinism", "training's random numbers"),
    *("choice's random numbers", "observation", "save and load", "watched while it learns", "repeated images"),
    *("labelled images", "to the end", "one image left", "other pools"),
)
"""Names of the checks of an agent."""

_B = 4
_SIZES: dict[str, dict[str, Any]] = {
    "SelectiveLabel-v0": {"k": 4, "pool": 20, "query": 12},
    "ActiveLabel-v0": {
        **{"budget": 12, "batch": 5, "pool": 40, "state_images": 6, "learner_arguments": {"epochs": 10}},
    },
}


def check_agent(
    maker: Any,
    env_id: str,
    options: dict[str, Any] | None = None,
    steps: int = 48,
    skip: Collection[str] = (),
    **settings: Any,
) -> None:
    """Check an agent by training it for some steps on a tiny environment, several times.

    Parameters
    ----------
    maker: the class, or what else :class:`~activelabel.agents.AgentClass` describes; or its name.
    env_id: ``"SelectiveLabel-v0"`` or ``"ActiveLabel-v0"``.
    options: what the agent is made with, besides env, seed and device.
    steps: of the env that it is trained for, four copies together.
    skip: names of :data:`AGENT_CHECKS` to leave out. A policy of fixed size fails ``"other pools"``; one that knows of
        no mask ``"labelled images"``, ``"repeated images"`` and ``"one image left"``; algorithms of Stable-Baselines3
        seed the global generators, ``"training's random numbers"``.
    **settings: of the environment, in place of the tiny ones.

    Raises
    ------
    ConformanceError: listing what failed.
    """
    checks = _Agent(find_agent(maker) if isinstance(maker, str) else maker, env_id, options or {}, steps, settings)
    run_checks(f"agent {getattr(maker, '__qualname__', maker)} on {env_id}", checks.checks(), skip)


class _Agent:
    def __init__(self, maker: Any, env_id: str, options: dict[str, Any], steps: int, settings: dict[str, Any]) -> None:
        self.maker, self.env_id, self.options, self.steps = maker, env_id, options, steps
        self.active = env_id == "ActiveLabel-v0"
        self.settings = {"cohort": tiny_cohort(), "device": "cpu", **_SIZES[env_id], **settings}
        if observes := tuple(getattr(maker, "observes", ())):
            self.settings["observe"] = observes

    def checks(self) -> dict[str, Check]:
        found = (
            *(self.learning, self.shape, self.single_and_batch, self.single, self.determinism, self.of_training),
            *(self.of_choice, self.observation, self.save_and_load, self.watched, self.repeated, self.labelled),
            *(self.to_the_end, self.one_left, self.other_pools),
        )
        return dict(zip(AGENT_CHECKS, found, strict=True))

    # -- making and asking --------------------------------------------------------------------------------------------

    def envs(self, **changes: Any) -> Any:
        return gym.make_vec(self.env_id, num_envs=_B, **{**self.settings, **changes})

    def trained(self, at_end: Callable[[int, float], None] = lambda done, mean: None, seed: int = 3) -> Any:
        """Return an agent that was trained as a run trains it; and keep how many steps that were."""
        env = Rounds(GymnasiumVecEnv(self.envs()), _B, at_end)
        env.seed(seed)
        agent = self.maker(env=env, seed=seed, device="cpu", **self.options)
        agent.learn(self.steps)
        self.done = env.done
        return agent

    @cached_property
    def agent(self) -> Any:
        return self.trained()

    @cached_property
    def seen(self) -> Observation:
        return self.start()[1]

    def start(self, **changes: Any) -> tuple[Any, Observation]:
        envs = self.envs(**changes)
        observation, _ = envs.reset(seed=11)
        return envs, observation

    def ask(self, agent: Any, observation: Observation) -> NDArray[np.int64]:
        """Return the choices ``(B, K)``."""
        batch = self.settings["batch" if self.active else "k"]
        n, candidates = observation["candidates" if self.active else "pool"].shape[:2]
        chosen, _ = agent.predict(observation, deterministic=True)
        shape = (n,) if self.active and batch == 1 else (n, batch)
        return check_actions(chosen, shape, candidates).reshape(n, batch)

    # -- the checks ---------------------------------------------------------------------------------------------------

    def learning(self) -> None:
        self.trained()
        expect(self.done >= self.steps, f"learn({self.steps}) played {self.done} steps of the env.")

    def shape(self) -> None:
        self.ask(self.agent, self.seen)

    def single_and_batch(self) -> None:
        together = self.ask(self.agent, self.seen)
        for i in range(_B):
            one = self.ask(self.agent, alone(self.seen, i))
            expect((one[0] == together[i]).all(), "a batch of one is chosen from otherwise than a batch of many.")

    def single(self) -> None:
        together = self.ask(self.agent, self.seen)
        chosen, _ = self.agent.predict(pick(self.seen, 0), deterministic=True)
        found = np.asarray(chosen)
        expect(
            found.size == together.shape[1] and found.ndim < 2 and (found.reshape(-1) == together[0]).all(),
            f"an observation without B gives {found.tolist()}, with B = 1 {together[0].tolist()}.",
        )

    def determinism(self) -> None:
        twice = (self.ask(self.agent, self.seen) == self.ask(self.agent, self.seen)).all()
        expect(twice, "asked twice with deterministic=True it chooses differently.")
        same = (self.ask(self.trained(), self.seen) == self.ask(self.agent, self.seen)).all()
        expect(same, "trained twice with the same seed it chooses differently.")

    def of_training(self) -> None:
        with global_generators_untouched("making or training it"):
            self.trained()

    def of_choice(self) -> None:
        agent, observation = self.agent, self.seen
        with global_generators_untouched("predict(deterministic=True)"):
            self.ask(agent, observation)

    def observation(self) -> None:
        self.ask(self.agent, frozen(self.seen))

    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.zip"
            self.agent.save(path)
            written = sorted(p.name for p in Path(folder).iterdir())
            expect(written == ["model.zip"], f"save('model.zip') wrote {', '.join(written) or 'nothing'}.")
            loaded = self.maker.load(path, device="cpu")
            same = (self.ask(loaded, self.seen) == self.ask(self.agent, self.seen)).all()
            expect(same, "saved and loaded it chooses differently.")

    def watched(self) -> None:
        """Ask and save an agent in the middle of its training, as validation does."""
        with tempfile.TemporaryDirectory() as folder:
            agents: list[Any] = []

            def look(done: int, _mean: float) -> None:
                self.ask(agents[0], self.seen)
                agents[0].save(Path(folder) / "model.zip")

            env = Rounds(GymnasiumVecEnv(self.envs()), _B, look)
            env.seed(3)
            agents.append(self.maker(env=env, seed=3, device="cpu", **self.options))
            agents[0].learn(self.steps)
        same = (self.ask(agents[0], self.seen) == self.ask(self.agent, self.seen)).all()
        expect(same, "asked and saved in the middle of its training it learns something else.")

    def repeated(self) -> None:
        expect_different(self.ask(self.agent, self.seen))

    def labelled(self) -> None:
        if not self.active:
            return
        wasted = self._wasted()
        expect(not wasted, f"{wasted} of its choices were labelled already.")

    def _wasted(self) -> int:
        """Play four episodes to the end; returns how many choices were of labelled images."""
        envs, observation = self.start()
        wasted, over = 0, np.zeros(_B, dtype=np.bool_)
        while not over.any():
            chosen = self.ask(self.agent, observation)
            free = observation["action_mask"].astype(bool)
            wasted += int((~np.take_along_axis(free, chosen, axis=1)).sum())
            observation, _, over, _, _ = envs.step(self._action(chosen))
        return wasted

    def _action(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        return chosen[:, 0] if self.active and self.settings["batch"] == 1 else chosen

    def to_the_end(self) -> None:
        if self.active:  # the budget is no multiple of the labels a step
            self._wasted()
            return
        envs, observation = self.start()
        envs.step(self.ask(self.agent, observation))

    def one_left(self) -> None:
        if not self.active:
            return
        observation = {name: array.copy() for name, array in self.seen.items()}
        observation["action_mask"][:] = 0
        observation["action_mask"][:, 7] = 1
        chosen = self.ask(self.agent, observation)
        expect((chosen == 7).any(axis=1).all(), f"one image is left, number 7, and it chose {chosen[0].tolist()}.")

    def other_pools(self) -> None:
        """Choose from larger pools, and from the smallest: as many images as are chosen."""
        if not self.active:
            for pool in (30, self.settings["k"]):
                expect_different(self.ask(self.agent, self.start(pool=pool)[1]))
            return
        self.ask(self.agent, self.start(pool=55)[1])
        expect_different(self.ask(self.agent, self.start(candidates=self.settings["batch"])[1]))
