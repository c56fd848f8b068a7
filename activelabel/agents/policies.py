"""Networks that score the images of a pool, one logit each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from activelabel.errors import SettingsError, unknown
from activelabel.seeding import torch_stream

INPUTS = ("pool", "clinical")


class BiLSTMSelector(nn.Module):
    """Bidirectional LSTM over the pool and one linear unit on its two states (MedSelect §3.1).

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of the LSTM in each direction.
    """

    def __init__(self, input_dim: int, hidden: int = 256) -> None:
        super().__init__()
        # Made without memory first: the layers' own initialisation would advance torch's global generator.
        with torch.device("meta"):
            self.lstm = nn.LSTM(input_dim, hidden, batch_first=True, bidirectional=True)
            self.logit = nn.Linear(2 * hidden, 1)
        self.to_empty(device="cpu")
        self.reset_parameters(torch_stream(0, "weights"))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, N)`` of float32 ``(B, N, input_dim)``."""
        states, _ = self.lstm(images)
        logits: Tensor = self.logit(states).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's own layers do, from the given generator."""
        bound = 1 / math.sqrt(self.lstm.hidden_size)
        for weight in self.lstm.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        bound = 1 / math.sqrt(self.logit.in_features)
        for weight in self.logit.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=generator)


class BiLSTMPolicy(BasePolicy):
    """The BiLSTM selector as a Stable-Baselines3 policy; works for any pool size.

    Parameters
    ----------
    observation_space: a ``Dict`` with the keys of ``inputs``, each ``Box(N, f)``.
    action_space: ``MultiDiscrete([N] * K)``.
    lr_schedule: learning rate as a function of the progress that remains.
    inputs: which parts of the observation each image's vector is made of: ``("pool",)`` is MedSelect,
        ``("clinical",)`` its clinical baseline (§3.4), both are concatenated.
    hidden: units of the LSTM in each direction.
    init_seed: of the weights.
    optimizer_class, optimizer_kwargs: by default Adam.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Space[Any],
        action_space: gym.spaces.Space[Any],
        lr_schedule: Schedule,
        inputs: Sequence[str] = ("pool",),
        hidden: int = 256,
        init_seed: int = 0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        if not inputs:
            raise SettingsError(f"inputs is empty; choose of {', '.join(INPUTS)}.")
        for name in inputs:
            if name not in INPUTS:
                raise SettingsError(unknown("policy input", name, INPUTS))
        if not isinstance(observation_space, gym.spaces.Dict) or not set(inputs) <= set(observation_space.spaces):
            raise SettingsError(
                f"the policy reads {', '.join(inputs)} from a Dict observation; the env gives {observation_space}."
            )
        self.inputs = tuple(inputs)
        self.dims = {name: int(observation_space[name].shape[-1]) for name in self.inputs}  # type: ignore[index]
        self.selector = BiLSTMSelector(sum(self.dims.values()), hidden)
        self.selector.reset_parameters(torch_stream(init_seed, "weights"))
        self.optimizer = optimizer_class(self.parameters(), lr=lr_schedule(1), **(optimizer_kwargs or {}))  # type: ignore[call-arg]

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return logits ``(B, N)`` of an observation of tensors ``(B, N, f)``."""
        parts = [observation[name] for name in self.inputs]
        logits: Tensor = self.selector(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
        return logits

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        raise NotImplementedError("a pool's K is the agent's: call Reinforce.predict()")

    def tensors(self, observation: dict[str, NDArray[Any]]) -> tuple[dict[str, Tensor], bool]:
        """Return the inputs as float32 tensors ``(B, N, f)`` on the policy's device, and whether there was a batch
        dimension.

        Raises
        ------
        SettingsError: if an input is missing, or its images have another number of features than the policy was
            trained on.
        """
        tensors = {}
        batched = True
        for name, dim in self.dims.items():
            if name not in observation:
                raise SettingsError(f"the observation has no '{name}', only {', '.join(observation)}.")
            # Writable, since torch warns of arrays that are not; copied only where they are not.
            array = np.require(observation[name], np.float32, ["C", "W"])
            if array.ndim not in (2, 3) or array.shape[-1] != dim:
                raise SettingsError(
                    f"the policy was made for {dim} numbers an image in '{name}', (N, {dim}) or (B, N, {dim}); "
                    f"got {array.shape}."
                )
            batched = array.ndim == 3
            tensors[name] = torch.from_numpy(array if batched else array[None]).to(self.device)
        return tensors, batched
