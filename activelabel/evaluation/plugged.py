"""Training and loading agents of somebody else's, which know nothing of runs: validation, best model, notes.

What ours do in callbacks is done here from outside, between two steps of the env that the agent trains on, so that an
agent needs no more than :class:`~activelabel.agents.protocol.Agent` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from activelabel.agents import DDQN, Agent, find_agent
from activelabel.data.cohort import IntArray
from activelabel.envs.sb3 import as_vec_env
from activelabel.errors import ActiveLabelError, CheckpointError, SettingsError
from activelabel.evaluation.protocol import play
from activelabel.evaluation.validation import EpisodeValidation, MetaValidation, Validation
from activelabel.files import atomic_path, write_text
from activelabel.settings import ActiveRunSettings, RunSettings, SelectiveRunSettings


class PluggedAgent:
    """An agent of somebody else's in a run: what strategies are asked for, and the notes that ours keep in their files.

    Parameters
    ----------
    agent: see :class:`~activelabel.agents.protocol.Agent`.
    settings: of the run that it is trained in.
    path: of the best model; the notes are beside it, in a ``.json``.
    """

    def __init__(self, agent: Agent, settings: RunSettings, path: Path) -> None:
        self.agent = agent
        self.path = path.with_suffix(".json")
        self.notes: dict[str, Any] = {}
        """The best validation result and the history, as in ours; ``finished`` once training is."""
        self.num_timesteps = 0
        self._total_timesteps = 0
        self.mean_return = float("nan")
        """Of the episodes of the last round."""
        self.logger: Logger
        self.observes: tuple[str, ...] = tuple(getattr(agent, "observes", ()))
        self.env_settings: dict[str, Any] = {}
        if isinstance(settings, ActiveRunSettings):
            self.env_settings = {name: getattr(settings, name) for name in (*DDQN.observed, "batch")}
        self.k = settings.k if isinstance(settings, SelectiveRunSettings) else 0
        if hasattr(agent, "select"):
            self.select: Callable[..., dict[int, IntArray]] = agent.select

    def __repr__(self) -> str:
        return f"{type(self.agent).__module__}:{type(self.agent).__qualname__}"

    @classmethod
    def load(cls, path: Path, settings: RunSettings, device: str) -> PluggedAgent:
        """Read the best model of a run.

        Raises
        ------
        SettingsError: if the agent's class cannot be imported.
        CheckpointError: if the class cannot read the file, or the notes are damaged.
        """
        maker = find_agent(settings.agent)
        try:
            found = cls(maker.load(path, device=device), settings, path)
        except ActiveLabelError:
            raise
        except Exception as error:  # whatever the code of others does with a damaged file
            raise CheckpointError(
                f"{path}: agent '{settings.agent}' cannot load it ({type(error).__name__}: {error})."
            ) from error
        found.notes = read_notes(path)
        return found

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, Any]:
        """Choose; see :class:`~activelabel.agents.protocol.Agent`."""
        return self.agent.predict(observation, deterministic=deterministic)

    def save(self, path: Path, exclude: Sequence[str] = ()) -> None:
        """Write the model, and the notes beside the best one; each atomically.

        Raises
        ------
        SettingsError: if the agent's ``save`` does not write the file.
        """
        with atomic_path(path) as temporary:
            temporary.unlink()
            self.agent.save(temporary)
            if not temporary.is_file():
                raise SettingsError(f"{self!r}: save(path) must write one file, {path.name}, and nothing else.")
        write_text(self.path, json.dumps(self.notes) + "\n")


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes beside a model; empty where there are none.

    Raises
    ------
    CheckpointError: if the file is damaged.
    """
    file = path.with_suffix(".json")
    try:
        notes: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if not isinstance(notes, dict):
            raise ValueError("no notes")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{file}: damaged ({error}). Delete it, and the training starts again.") from None
    return notes


class Rounds(VecEnvWrapper):
    """Calls back after every so many steps of all copies together.

    Parameters
    ----------
    venv: the env.
    steps: in a round.
    at_end: called with the number of steps so far and the mean return of the episodes that ended since the last call.
    """

    def __init__(self, venv: VecEnv, steps: int, at_end: Callable[[int, float], None]) -> None:
        super().__init__(venv)
        self.steps, self._at_end = steps, at_end
        self.done = 0
        self._returns: list[float] = []

    def reset(self) -> VecEnvObs:
        """Reset all."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Play the actions; at the end of a round call back."""
        played = self.venv.step_wait()
        self.done += self.num_envs
        self._returns += [info["episode"]["r"] for info in played[3] if "episode" in info]
        if self.done % self.steps < self.num_envs:
            mean = float(np.mean(self._returns)) if self._returns else float("nan")
            self._returns.clear()
            self._at_end(self.done, mean)
        return played


class OfAnyAgent(Validation):
    """A validation that counts from outside.

    Parameters
    ----------
    round_steps: steps of the env in a round (update), all copies together.
    *arguments: see :class:`~activelabel.evaluation.validation.Validation`.
    """

    def __init__(self, round_steps: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.round_steps = round_steps

    def count(self) -> int:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        agent: PluggedAgent = self.model
        return agent.num_timesteps // self.round_steps

    def keep(self, path: Path) -> None:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        self.model.save(path)

    def shown(self) -> str:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        return f"return {self.model.mean_return:.3f}"


class PluggedMetaValidation(OfAnyAgent, MetaValidation):
    """:class:`~activelabel.evaluation.validation.MetaValidation` of an agent of somebody else's, without histogram.

    Parameters
    ----------
    round_steps: steps of the env in an update.
    *arguments: of that class.
    """

    def position(self) -> int:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        return self.count()

    def judge(self) -> dict[str, float]:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        agent: Any = self.model
        return {"auroc": float(np.mean(play(self.engine, agent, [agent.k], self.n_tasks)[agent.k].reward))}


class PluggedEpisodeValidation(OfAnyAgent, EpisodeValidation):
    """:class:`~activelabel.evaluation.validation.EpisodeValidation` of an agent of somebody else's, without histogram.

    Parameters
    ----------
    round_steps: steps of the env in a round.
    *arguments: of that class.
    """

    def judge(self) -> dict[str, float]:
        """See :class:`~activelabel.evaluation.validation.Validation`."""
        return self.reached(self.model)


def learn_plugged(
    settings: RunSettings,
    env: Any,
    total: int,
    validation: OfAnyAgent,
    logger: Logger,
    tried: Callable[[PluggedAgent], None],
) -> None:
    """Train an agent of somebody else's from the start to the end.

    Parameters
    ----------
    settings: name the agent and what it is made with.
    env: to train on.
    total: steps of the env.
    validation: judges the agent after rounds, keeps the best model, and knows where it goes.
    logger: gets ``rollout/return``, ``eval/`` and what the agent itself logs.
    tried: lets the agent choose once from whatever it will be judged on, before any training.

    Raises
    ------
    SettingsError: if the agent cannot be made, or does not choose as it should.
    """

    def at_end(done: int, mean: float) -> None:
        plugged.mean_return = mean
        logger.record("rollout/return", mean)
        if done < total:  # what there is at the end is judged when the agent has learnt from it
            plugged.num_timesteps = done
            validation.on_rollout_end()
        logger.dump(done)

    venv = Rounds(as_vec_env(env, 1), validation.round_steps, at_end)
    plugged = PluggedAgent(_made(settings, venv), settings, validation.best)
    tried(plugged)
    plugged.logger, plugged._total_timesteps = logger, total
    if callable(set_logger := getattr(plugged.agent, "set_logger", None)):
        set_logger(logger)
    validation.init_callback(plugged)  # type: ignore[arg-type]  # it asks no more of it than there is
    validation.on_training_start({}, {})
    plugged.agent.learn(total)
    plugged.num_timesteps = max(total, venv.done)
    validation.on_rollout_end()
    logger.dump(plugged.num_timesteps)
    plugged.notes["finished"] = True
    write_text(plugged.path, json.dumps(plugged.notes) + "\n")


def _made(settings: RunSettings, env: VecEnv) -> Agent:
    env.seed(settings.seed)
    arguments = settings.agent_arguments()
    try:
        agent: Agent = find_agent(settings.agent)(env=env, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise SettingsError(
            f"agent '{settings.agent}' cannot be made with {arguments}: {str(error).strip()} Its own arguments are "
            "given with agent_options."
        ) from error
    return agent


def check_choices(agent: PluggedAgent, where: str, choose: Callable[[], Any]) -> None:
    """Let an agent choose once, so that one that cannot is found out before it is trained.

    Parameters
    ----------
    agent: whose choice it is, for the message.
    where: what it chooses from.
    choose: does it.

    Raises
    ------
    SettingsError: if it fails.
    """
    try:
        choose()
    except Exception as error:  # whatever the code of others does with an observation
        raise SettingsError(
            f"{agent!r} does not choose from {where}: {error} An agent that was made for observations of one size "
            "needs pools of the same size in training, validation and test."
        ) from error
