"""Who learns to choose: agents, each a Stable-Baselines3 algorithm."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from activelabel import plugins
from activelabel.agents.anchored import AnchoredPolicy, GatedAnchoredPolicy
from activelabel.agents.arguments import StepSchedule
from activelabel.agents.ddqn import DDQN
from activelabel.agents.discriminant import DiscriminantPolicy
from activelabel.agents.ensemble import join
from activelabel.agents.familiarity import Familiarity
from activelabel.agents.gated import GatedPolicy
from activelabel.agents.lal_rl import LAL_RL_ENV, LalRl
from activelabel.agents.large_pool import select_images
from activelabel.agents.mlp import DeepSetsPolicy, MLPPolicy
from activelabel.agents.policies import BiLSTMPolicy
from activelabel.agents.protocol import Agent, AgentClass
from activelabel.agents.qnetworks import LalRlPolicy, QPolicy
from activelabel.agents.reinforce import SELECTORS, Reinforce
from activelabel.agents.saved import SavedAgent
from activelabel.agents.set_encoder import SetDQNPolicy, SetExtractor, SetPolicy
from activelabel.errors import SettingsError

PRETRAINED = "pretrained"
"""The name of the DDQN that comes with the package and is not trained further; see :func:`load_pretrained`."""

AGENTS: dict[str, type[Reinforce] | type[DDQN]] = {
    "reinforce": Reinforce,
    "ddqn": DDQN,
    "lal-rl": LalRl,
    PRETRAINED: DDQN,
}
"""Every agent by the name that the command line knows it by."""


def load_pretrained(device: str = "auto") -> DDQN:
    """Return the DDQN that comes with the package, to label data that it never saw.

    It plays ``ActiveLabel-v0`` with the features and the state of the preset ``generalise``; ``notes["command"]`` is
    the command that trained it.

    Parameters
    ----------
    device: where to.

    Raises
    ------
    CheckpointError: if the file is missing from the installation, or damaged.
    """
    folder = Path(str(importlib.resources.files("activelabel"))) / "pretrained"
    return DDQN.load(folder / "ddqn.safetensors", device=device)


def find_agent(name: str) -> Any:
    """Return the class of an agent: one of :data:`AGENTS`, or somebody else's, an
    :class:`~activelabel.agents.protocol.AgentClass`.

    Parameters
    ----------
    name: one of :data:`AGENTS`, or a class path or the name of an entry point (:mod:`activelabel.plugins`).

    Raises
    ------
    SettingsError: if the name is unknown (with the closest match), or of something that is no agent.
    """
    found = plugins.find("agent", name, AGENTS)
    methods = ("learn", "predict", "save", "load") if isinstance(found, type) else ("load",)
    missing = [method for method in methods if not callable(getattr(found, method, None))]
    if missing:
        raise SettingsError(f"agent '{name}' has no {', '.join(missing)}; see activelabel.agents.protocol.")
    return found


def extends_ours(agent: Any) -> bool:
    """Say whether an agent's class is one of ours or extends it, so that its training can be resumed exactly."""
    return isinstance(agent, type) and issubclass(agent, SavedAgent)


__all__ = [
    "AGENTS",
    "DDQN",
    "LAL_RL_ENV",
    "PRETRAINED",
    "SELECTORS",
    "Agent",
    "AgentClass",
    "AnchoredPolicy",
    "BiLSTMPolicy",
    "DeepSetsPolicy",
    "DiscriminantPolicy",
    "Familiarity",
    "GatedAnchoredPolicy",
    "GatedPolicy",
    "LalRl",
    "LalRlPolicy",
    "MLPPolicy",
    "QPolicy",
    "Reinforce",
    "SetDQNPolicy",
    "SetExtractor",
    "SetPolicy",
    "StepSchedule",
    "extends_ours",
    "find_agent",
    "join",
    "load_pretrained",
    "select_images",
]
