"""LAL-RL (Konyushkova et al. 2018): the agent that Slade & Branson's descends from."""

from __future__ import annotations

from typing import Any, ClassVar

from activelabel.agents.ddqn import DDQN

LAL_RL_ENV: dict[str, Any] = {
    "batch": 1,
    "features": ("probability", "unlabelled", "labelled"),
    "state": ("probability",),
    "distance": "cosine",
    "space": "data",
    "learner": "logistic",
    "reward": "target",
}
"""The settings of ``ActiveLabel-v0`` that make LAL-RL's environment: one label a step, logistic regression, the
probability of the first class, mean cosine distances in data space, and -1 a step until the target quality is reached.
The distances are running sums here; the published code computes all of them anew at every reset."""


class LalRl(DDQN):
    """:class:`~activelabel.agents.ddqn.DDQN` with LAL-RL's network and settings, as far as its released code has them.

    The state goes through 10 sigmoid units, these and the candidate through 5; Adam 1e-3; discount 1; prioritised
    replay of 10,000 steps with exponent 0.5; every candidate of the next step is looked at; the target network
    follows by a hundredth at every gradient step; 60 gradient steps after each round.

    Parameters
    ----------
    policy, env, **settings: see :class:`~activelabel.agents.ddqn.DDQN`; what is given replaces the above. Make the env
        with :data:`LAL_RL_ENV`.
    """

    observed: ClassVar[tuple[str, ...]] = (*DDQN.observed, "learner", "batch")

    def __init__(self, policy: Any = "LalRlPolicy", env: Any = None, **settings: Any) -> None:
        published = {
            "learning_rate": 1e-3,
            "buffer_size": 10_000,
            "warm_start_episodes": 128,
            "batch_size": 32,
            "gradient_steps": 60,
            "gamma": 1.0,
            "tau": 0.01,
            "target_update_interval": 1,
            "exploration_final": 0.1,
            "next_candidates": 0,
            "priority_exponent": 0.5,
            "value_bias": "duration",
            "max_grad_norm": None,
        }
        super().__init__(policy, env, **{**published, **settings})
