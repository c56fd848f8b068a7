"""Who learns to choose: agents, each a Stable-Baselines3 algorithm."""

from __future__ import annotations

from activelabel.agents.arguments import StepSchedule
from activelabel.agents.policies import BiLSTMPolicy
from activelabel.agents.reinforce import Reinforce

AGENTS: dict[str, type[Reinforce]] = {"reinforce": Reinforce}
"""Every agent by the name that the command line knows it by."""

__all__ = ["AGENTS", "BiLSTMPolicy", "Reinforce", "StepSchedule"]
