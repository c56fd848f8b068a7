"""Networks that value candidates: how much return labelling one will bring."""

from __future__ import annotations

import copy
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

from activelabel.agents.policies import draw_weights
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream

_CLIP = 5.0
_BLOCK = 1024


class QNetwork(nn.Module):
    """Hidden layers of ReLU units over [state, candidate] and one linear output (§4.2: three of 128).

    The first layer's share of the state is computed once for all candidates.

    Parameters
    ----------
    n_state, n_features: lengths of the state and of a candidate's vector.
    hidden: units of each hidden layer.
    """

    def __init__(self, n_state: int, n_features: int, hidden: Sequence[int] = (128, 128, 128)) -> None:
        super().__init__()
        # Made without memory first: the layers' own initialisation would advance torch's global generator.
        with torch.device("meta"):
            self.of_state = nn.Linear(n_state, hidden[0])
            self.of_candidate = nn.Linear(n_features, hidden[0], bias=False)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(hidden, [*hidden[1:], 1], strict=True))
        self.to_empty(device="cpu")

    def reset_parameters(self, generator: torch.Generator, bias: float = 0.0) -> None:
        """Draw the weights; ``bias`` is added to the output's."""
        first = self.of_state.in_features + self.of_candidate.in_features
        draw_weights(self.of_state, first, generator)
        draw_weights(self.of_candidate, first, generator)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            draw_weights(layer, layer.in_features, generator)
        self.shift(bias)

    def shift(self, bias: float) -> None:
        """Add ``bias`` to every value."""
        with torch.no_grad():
            last = self.layers[-1]
            assert isinstance(last, nn.Linear)
            last.bias.add_(bias)

    def forward(self, state: Tensor, candidates: Tensor) -> Tensor:
        """Return values ``(B, M)`` of states ``(B, S)`` and candidates ``(B, M, F)``."""
        x = self.of_candidate(candidates) + self.of_state(state)[:, None, :]
        for layer in self.layers:
            x = layer(torch.relu(x))
        values: Tensor = x.squeeze(-1)
        return values


class LalRlNetwork(nn.Module):
    """LAL-RL's: the state to 10 sigmoid units, these and the candidate to 5, and one linear output.

    Parameters
    ----------
    n_state, n_features: lengths of the state and of a candidate's vector.
    hidden: units of the two layers.
    """

    def __init__(self, n_state: int, n_features: int, hidden: Sequence[int] = (10, 5)) -> None:
        super().__init__()
        with torch.device("meta"):
            self.of_state = nn.Linear(n_state, hidden[0])
            self.joint = nn.Linear(hidden[0] + n_features, hidden[1])
            self.value = nn.Linear(hidden[1], 1)
        self.to_empty(device="cpu")

    def reset_parameters(self, generator: torch.Generator, bias: float = 0.0) -> None:
        """Draw the weights by Glorot's uniform rule, as TensorFlow's layers do; ``bias`` is the output's."""
        for layer in (self.of_state, self.joint, self.value):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        self.shift(bias)

    def shift(self, bias: float) -> None:
        """Add ``bias`` to every value."""
        with torch.no_grad():
            self.value.bias.add_(bias)

    def forward(self, state: Tensor, candidates: Tensor) -> Tensor:
        """Return values ``(B, M)`` of states ``(B, S)`` and candidates ``(B, M, F)``."""
        seen = torch.sigmoid(self.of_state(state))[:, None, :].expand(-1, candidates.shape[1], -1)
        values: Tensor = self.value(torch.sigmoid(self.joint(torch.cat([seen, candidates], dim=-1)))).squeeze(-1)
        return values


class QPolicy(BasePolicy):
    """A network that values candidates and its target copy, as a Stable-Baselines3 policy.

    It works for any number of candidates, so for any pool, and any number of classes.

    Parameters
    ----------
    observation_space: a ``Dict`` with ``state`` ``Box(S,)`` and ``candidates`` ``Box(M, F)``.
    action_space: ``Discrete`` or ``MultiDiscrete``.
    lr_schedule: learning rate as a function of the progress that remains.
    hidden: units of the hidden layers.
    standardize: candidates' features are scaled to mean 0 and deviation 1 among the candidates that can be labelled, so
        that they mean the same in another data set; False takes them as they are.
    init_scale: what the first weights of the candidates' features are multiplied by. Features that say the same of
        every candidate of the training, as margin and confidence do of two classes, are never told apart by it: their
        first weights stay, and on other data they are noise, of this size.
    init_seed: of the weights.

    Raises
    ------
    SettingsError: if the observation lacks a part, or a value is out of range.
    """

    network_class: type[QNetwork] | type[LalRlNetwork] = QNetwork
    default_hidden: tuple[int, ...] = (128, 128, 128)

    def __init__(
        self,
        observation_space: gym.spaces.Space[Any],
        action_space: gym.spaces.Space[Any],
        lr_schedule: Schedule,
        hidden: Sequence[int] | None = None,
        standardize: bool = True,
        init_scale: float = 1.0,
        init_seed: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        if not isinstance(observation_space, gym.spaces.Dict) or not {"state", "candidates"} <= set(
            observation_space.spaces
        ):
            raise SettingsError(f"the policy reads state and candidates; the env gives {observation_space}.")
        hidden = self.default_hidden if hidden is None else tuple(hidden)
        if not hidden or min(hidden) < 1 or (self.network_class is LalRlNetwork and len(hidden) != 2):
            raise SettingsError(f"hidden={list(hidden)} must be sizes of layers, such as {list(self.default_hidden)}.")
        self.n_state = int(observation_space["state"].shape[-1])  # type: ignore[index]
        self.n_features = int(observation_space["candidates"].shape[-1])  # type: ignore[index]
        self.standardize = standardize
        self.q = self.network_class(self.n_state, self.n_features, hidden)
        self.q.reset_parameters(torch_stream(init_seed, "weights"))
        if init_scale != 1:
            if not isinstance(self.q, QNetwork) or not 0 < init_scale < math.inf:
                raise SettingsError(f"init_scale={init_scale} must be positive; LAL-RL's network has none.")
            with torch.no_grad():
                self.q.of_candidate.weight.mul_(init_scale)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=lr_schedule(1))

    def forward(self, state: Tensor, candidates: Tensor) -> Tensor:
        """Return values ``(B, M)`` of encoded states and candidates."""
        values: Tensor = self.q(state, candidates)
        return values

    def values(self, state: Tensor, candidates: Tensor, target: bool = False) -> Tensor:
        """Return values ``(B, M)`` as :meth:`forward`, without gradients; ``target`` takes the target network's.

        In blocks whose activations stay in the processor's cache, which is twice as fast.
        """
        network = self.q_target if target else self.q
        size = max(1, _BLOCK // candidates.shape[1]) if self.device.type == "cpu" else len(state)
        with torch.no_grad():
            blocks = [network(state[i : i + size], candidates[i : i + size]) for i in range(0, len(state), size)]
        return torch.cat(blocks)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        raise NotImplementedError("how many candidates are labelled is the agent's: call DDQN.predict()")

    def encode(self, observation: dict[str, NDArray[Any]]) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return state ``(B, S)``, candidates ``(B, M, F)``, mask ``(B, M)`` and whether there was a batch dimension.

        Raises
        ------
        SettingsError: if a part is missing or its length is not the one that the policy was made for.
        """
        arrays = {}
        for name, kind in (("state", np.float32), ("candidates", np.float32), ("action_mask", np.bool_)):
            if name not in observation:
                raise SettingsError(f"the observation has no '{name}', only {', '.join(observation)}.")
            arrays[name] = np.require(observation[name], kind, ["C", "W"])
        batched = arrays["state"].ndim == 2
        if not batched:
            arrays = {name: array[None] for name, array in arrays.items()}
        for name, length in (("state", self.n_state), ("candidates", self.n_features)):
            if arrays[name].shape[-1] != length:
                raise SettingsError(
                    f"the policy was made for '{name}' of {length} numbers, got {arrays[name].shape[-1]}; make the env "
                    "with the features and state that the agent was trained on."
                )
        state, candidates, mask = (torch.from_numpy(array).to(self.device) for array in arrays.values())
        return state, self.scaled(candidates, mask) if self.standardize else candidates, mask, batched

    @staticmethod
    def scaled(candidates: Tensor, mask: Tensor) -> Tensor:
        """Return candidates with mean 0 and deviation 1 over those that the mask lets through, at most 5 away."""
        weight = mask[:, :, None].to(candidates.dtype)
        count = weight.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (candidates * weight).sum(dim=1, keepdim=True) / count
        spread = (((candidates - mean) * weight).square().sum(dim=1, keepdim=True) / count).sqrt()
        return ((candidates - mean) / spread.clamp(min=1e-6)).clamp(-_CLIP, _CLIP) * weight


class LalRlPolicy(QPolicy):
    """:class:`QPolicy` with LAL-RL's network and features as they are."""

    network_class = LalRlNetwork
    default_hidden = (10, 5)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"standardize": False, **kwargs})
