"""What every selector's policy is, and the paper's: a BiLSTM over the pool."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from activelabel.agents.selection import SelectionRule
from activelabel.errors import SettingsError, unknown
from activelabel.seeding import torch_stream

INPUTS = ("pool", "clinical")


class Selector(nn.Module, ABC):
    """A network that gives each image of a pool a logit.

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of its layers.
    """

    def __init__(self, input_dim: int, hidden: int) -> None:
        super().__init__()
        # Made without memory first: the layers' own initialisation would advance torch's global generator.
        with torch.device("meta"):
            self._make_layers(input_dim, hidden)
        self.to_empty(device="cpu")
        self.reset_parameters(torch_stream(0, "weights"))

    @property
    def reads_blocks(self) -> bool:
        """Whether it can :meth:`score_blocks`."""
        return False

    def score_blocks(self, blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
        """Return logits ``(B, N)`` of a pool that is too large to be one tensor.

        Parameters
        ----------
        blocks: returns the pool from its beginning each time: float32 ``(B, n, input_dim)``, the n of which add up to
            N.
        """
        raise NotImplementedError(f"{type(self).__name__} reads a pool as a whole")

    @abstractmethod
    def _make_layers(self, input_dim: int, hidden: int) -> None:
        """Make the layers; their weights are drawn afterwards."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, N)`` of float32 ``(B, N, input_dim)``."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's own layers do, from the given generator."""


class Ensemble(Selector):
    """Several networks of one kind; the logit of an image is the mean of theirs.

    Parameters
    ----------
    members: the networks.
    """

    def __init__(self, members: Iterable[Selector]) -> None:
        nn.Module.__init__(self)  # the layers are the members', which are made already
        self.members = nn.ModuleList(members)

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        raise NotImplementedError("an ensemble is made of its members")

    @property
    def reads_blocks(self) -> bool:
        """See :class:`Selector`."""
        return all(member.reads_blocks for member in self.members)

    def forward(self, images: Tensor) -> Tensor:
        """See :class:`Selector`."""
        return torch.stack([member(images) for member in self.members]).mean(dim=0)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights of one member after the other."""
        for member in self.members:
            member.reset_parameters(generator)  # type: ignore[operator]

    def score_blocks(self, blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
        """See :class:`Selector`; each member reads the blocks."""
        return torch.stack([member.score_blocks(blocks) for member in self.members]).mean(dim=0)  # type: ignore[operator]


def draw_weights(layer: nn.Module, fan_in: int, generator: torch.Generator) -> None:
    """Draw weights and bias as PyTorch's layers of ``fan_in`` inputs (or, recurrent, units) do."""
    bound = 1 / math.sqrt(fan_in)
    for weight in layer.parameters():
        nn.init.uniform_(weight, -bound, bound, generator=generator)


class SelectorPolicy(BasePolicy):
    """A network that gives each image of a pool a logit, as a Stable-Baselines3 policy; works for any pool size.

    A subclass names its network in ``selector_class``. By default the agent's rule draws K images of the whole pool;
    one that decides otherwise which sets may be chosen overrides :meth:`scored` and sets ``own_rule``.

    Parameters
    ----------
    observation_space: a ``Dict`` with the keys of ``inputs``, each ``Box(N, f)``.
    action_space: ``MultiDiscrete([N] * K)``.
    lr_schedule: learning rate as a function of the progress that remains.
    inputs: which parts of the observation each image's vector is made of: ``("pool",)`` is MedSelect,
        ``("clinical",)`` its clinical baseline (§3.4), both are concatenated.
    hidden: units of the network's layers.
    init_seed: of the weights.
    optimizer_class, optimizer_kwargs: by default Adam.
    members: networks whose logits are averaged, with weights of their own. What :func:`~activelabel.agents.join` makes
        of several trainings has as many; trained further, or from the start, they learn together as one network.

    Raises
    ------
    SettingsError: if the inputs are none, unknown or not in the observation, or ``hidden`` or ``members`` below 1.
    """

    selector_class: ClassVar[type[Selector]]
    """The network, made as ``selector_class(numbers an image, hidden)``."""
    own_rule: ClassVar[bool] = False
    """Whether the policy draws by a rule of its own, always without replacement."""
    n_extra: ClassVar[int] = 0
    """Numbers an image that the network reads besides the inputs."""

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
        members: int = 1,
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
        for name, value in {"hidden": hidden, "members": members}.items():
            if value < 1:
                raise SettingsError(f"{name}={value} must be at least 1.")
        self.inputs = tuple(inputs)
        self.dims = {name: int(observation_space[name].shape[-1]) for name in self.inputs}  # type: ignore[index]
        made = [self.selector_class(self.input_dim, hidden) for _ in range(members)]
        self.selector = made[0] if members == 1 else Ensemble(made)
        self.selector.reset_parameters(torch_stream(init_seed, "weights"))
        self.optimizer = optimizer_class(self.parameters(), lr=lr_schedule(1), **(optimizer_kwargs or {}))  # type: ignore[call-arg]

    @property
    def input_dim(self) -> int:
        """Numbers an image that the network reads."""
        return sum(self.dims.values()) + self.n_extra

    def prepare(self, env: VecEnv) -> None:
        """Take what the policy has to know of the env that it is to be trained on; once, when the agent is made.

        Raises
        ------
        SettingsError: if the env does not know it.
        """

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return logits ``(B, N)`` of an observation of tensors ``(B, N, f)``."""
        logits: Tensor = self.selector(self.images(observation))
        return logits

    def images(self, observation: dict[str, Tensor]) -> Tensor:
        """Return the inputs of an observation side by side, ``(B, N, f)``."""
        parts = [observation[name] for name in self.inputs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def scored(
        self, observation: dict[str, Tensor], ks: Sequence[int], rule: SelectionRule
    ) -> dict[int, tuple[Tensor, SelectionRule]]:
        """Return for each K the logits ``(B, N)`` and the rule that K images are drawn from them by.

        Parameters
        ----------
        observation: tensors ``(B, N, f)``.
        ks: numbers of images to choose, each 1 to N.
        rule: the agent's.
        """
        return dict.fromkeys(ks, (self(observation), rule))

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


class BiLSTMSelector(Selector):
    """Bidirectional LSTM over the pool and one linear unit on its two states (MedSelect §3.1).

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of the LSTM in each direction.
    """

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        self.lstm = nn.LSTM(input_dim, hidden, batch_first=True, bidirectional=True)
        self.logit = nn.Linear(2 * hidden, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See :class:`Selector`."""
        states, _ = self.lstm(images)
        logits: Tensor = self.logit(states).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """See :class:`Selector`."""
        draw_weights(self.lstm, self.lstm.hidden_size, generator)
        draw_weights(self.logit, self.logit.in_features, generator)


class BiLSTMPolicy(SelectorPolicy):
    """The paper's selector: a bidirectional LSTM reads the pool, K images are drawn of all of it (MedSelect §3.1).

    Parameters
    ----------
    hidden: units of the LSTM in each direction.
    inputs, init_seed, ...: see :class:`SelectorPolicy`.
    """

    selector_class = BiLSTMSelector
