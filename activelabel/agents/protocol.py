"""What an agent of somebody else's must be, to be trained and judged by ``train.py`` and ``evaluate.py``."""

from __future__ import annotations

import os
from typing import Any, Protocol

from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from activelabel.data.cohort import IntArray


class Agent(Protocol):
    """An agent. Every algorithm of Stable-Baselines3 is one; nothing has to be inherited.

    It can have besides:

    - ``observes``, of the class: names for ``observe`` of ``ActiveLabel-v0``, what it wants to see besides state,
      candidates and mask;
    - ``select(observation, ks, deterministic)``, as :class:`~activelabel.baselines.base.Baseline` has it: an agent of
      ``SelectiveLabel-v0`` with it is asked for any K, one without it for the K that it was trained for;
    - ``set_logger(logger)``: a logger of Stable-Baselines3, for TensorBoard.
    """

    def learn(self, total_timesteps: int) -> Any:
        """Train for so many steps of the env, each copy counted: 64 copies make 64 steps at once.

        The agent is validated and saved in between: :meth:`predict` and :meth:`save` are called while this runs,
        between two steps of the env. A few steps more or less than asked for do no harm.
        """

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, Any]:
        """Choose.

        Parameters
        ----------
        observation: the env's, each array with B first, for any B; or without B, as a single env gives it, which no
            run does.
        state, episode_start: not given.
        deterministic: True in every evaluation.

        Returns
        -------
        The actions, integers ``(B, K)``, or ``(B,)`` where one image is labelled a step; and a state, which is ignored.
        """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file; the path ends in ``.zip``, whatever the file is."""


class AgentClass(Protocol):
    """What makes agents: a class, or a function that has an attribute ``load``."""

    def __call__(self, *, env: VecEnv, seed: int, device: str, **options: Any) -> Agent:
        """Make an untrained agent.

        Parameters
        ----------
        env: to train on, copies of the environment as one Stable-Baselines3 ``VecEnv``.
        seed: of all that is random; the env is seeded already.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        **options: ``agent_options`` of the settings.
        """

    def load(self, path: str | os.PathLike[str], *, device: str) -> Agent:
        """Return the agent that ``save`` wrote, ready to predict."""
