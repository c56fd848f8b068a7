"""Who learns to choose: agents, each a Stable-Baselines3 algorithm."""

from __future__ import annotations

from activelabel.agents.anchored import AnchoredPolicy
from activelabel.agents.arguments import StepSchedule
from activelabel.agents.ddqn import DDQN
from activelabel.agents.lal_rl import LAL_RL_ENV, LalRl
from activelabel.agents.mlp import MLPPolicy
from activelabel.agents.policies import BiLSTMPolicy
from activelabel.agents.qnetworks import LalRlPolicy, QPolicy
from activelabel.agents.reinforce import SELECTORS, Reinforce

AGENTS: dict[str, type[Reinforce] | type[DDQN]] = {"reinforce": Reinforce, "ddqn": DDQN, "lal-rl": LalRl}
"""Every agent by the name that the command line knows it by."""

__all__ = [
    "AGENTS",
    "DDQN",
    "LAL_RL_ENV",
    "SELECTORS",
    "AnchoredPolicy",
    "BiLSTMPolicy",
    "LalRl",
    "LalRlPolicy",
    "MLPPolicy",
    "QPolicy",
    "Reinforce",
    "StepSchedule",
]
