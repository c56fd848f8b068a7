"""Which medical images to label, as a decision problem: Gymnasium environments, RL agents and baselines.

Importing the package registers the environments::

    import gymnasium as gym
    import activelabel

    env = gym.make("ActiveLabel-v0")
    envs = gym.make_vec("SelectiveLabel-v0", num_envs=64)
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from activelabel.data import Cohort, load

__version__ = "0.1.0"
__all__ = ["Cohort", "__version__", "load", "register_envs"]


def register_envs() -> None:
    """Register the environments with Gymnasium; calling it again changes nothing."""
    for name, module in (("SelectiveLabel", "selective"), ("ActiveLabel", "active")):
        if f"{name}-v0" not in registry:
            register(
                id=f"{name}-v0",
                entry_point=f"activelabel.envs.{module}:{name}Env",
                vector_entry_point=f"activelabel.envs.{module}:{name}VectorEnv",
            )


register_envs()
