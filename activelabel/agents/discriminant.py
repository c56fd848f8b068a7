"""The discriminant selector: what it knows of an image is one number.

Where images are few, a network that reads hundreds of numbers of each learns the images of the training, and on others
it is worse than clustering. This one is told of an image only where it lies between normal images and the conditions of
the training (:mod:`activelabel.envs.discriminant`), and in training it finds out which places of a pool are worth a
label: those at both ends, or others. The gated units of :mod:`activelabel.agents.gated` see the place as it is, and
among those of the pool; one number leaves them little to learn by heart.

Clinical variables, where they are among the inputs, are read as they are.

::

    python train.py --selector discriminant --hidden 16
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from activelabel.agents.gated import GatedSelector
from activelabel.agents.policies import SelectorPolicy
from activelabel.envs.discriminant import Discriminant
from activelabel.errors import SettingsError


class DiscriminantPolicy(SelectorPolicy):
    """The discriminant selector as a Stable-Baselines3 policy; see the module.

    Its place is 0 for every image until it :meth:`prepare` itself for an env.

    Parameters
    ----------
    *arguments, **named: of :class:`~activelabel.agents.policies.SelectorPolicy`.
    """

    selector_class = GatedSelector
    direction: Tensor
    offset: Tensor

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.register_buffer("direction", torch.zeros(self.dims.get("pool", 0)))
        self.register_buffer("offset", torch.zeros(()))

    @property
    def input_dim(self) -> int:
        """See :class:`~activelabel.agents.policies.SelectorPolicy`."""
        return sum(1 if name == "pool" else dim for name, dim in self.dims.items())

    def prepare(self, env: VecEnv) -> None:
        """Take the direction from the env that the policy is to be trained on.

        Raises
        ------
        SettingsError: if the env has none.
        """
        if "pool" not in self.dims:
            return
        try:
            found: Discriminant = env.get_attr("discriminant")[0]
        except AttributeError:
            raise SettingsError(
                "the discriminant selector learns from SelectiveLabel-v0, which knows how conditions differ from "
                "normal images; this env has no such attribute 'discriminant'."
            ) from None
        self.direction.copy_(torch.from_numpy(found.direction))
        self.offset.fill_(found.offset)

    def images(self, observation: dict[str, Tensor]) -> Tensor:
        """Return the places of the images, and other inputs beside them, ``(B, N, f)``."""
        return torch.cat([self._read(name, observation[name]) for name in self.inputs], dim=-1)

    def _read(self, name: str, values: Tensor) -> Tensor:
        if name != "pool":
            return values
        places = torch.nn.functional.normalize(values, dim=-1) @ self.direction - self.offset
        return places[..., None]
