"""A set encoder for Stable-Baselines3's own algorithms: the same weights for every candidate.

SB3's ``MultiInputPolicy`` flattens a pool of 200 images of 64 numbers into one vector of 12,800 and learns about each
place of it anew, though the order of the pool is random. Here every candidate goes through one network, which also sees
what it stands among (Zaheer et al. 2017, "Deep Sets")::

    e_i = relu(A x_i)        c = [mean_j e_j, max_j e_j, s]        h_i = relu(B e_i + C c)

with x_i all that is observed of candidate i and s what is observed of the whole, such as the classifier's state. The
score of candidate i is linear in h_i and the value of the state is a small network of c, so that permuting the
candidates permutes their scores and leaves the value as it is. Time and memory grow with the number of candidates.

::

    PPO(SetPolicy, GymnasiumVecEnv(VectorScoresToTopK(gym.make_vec("SelectiveLabel-v0", num_envs=64))))

The weights are drawn from torch's global generator, which ``seed=`` of an SB3 algorithm seeds, as SB3's policies do.
They do not depend on the number of candidates: ``model.set_parameters(other.get_parameters())`` takes them over from a
model that was made for another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from activelabel.errors import SettingsError

CANDIDATE_KEYS = ("pool", "clinical", "candidates", "action_mask", "probabilities", "embeddings", "costs")
"""Keys of the environments' observations that have a row, or a number, for each candidate."""

WHOLE_KEYS = ("state", "class_costs")
"""Keys that describe the whole."""


class SetExtractor(BaseFeaturesExtractor):
    """An embedding of each candidate, made with weights that all of them share, and what they have in common.

    Its output is flat, as SB3 wants it: N times ``hidden`` numbers, candidate by candidate, and ``n_context`` of the
    whole. SB3's own policies can be given it as ``features_extractor_class``; those of this module keep the candidates
    apart to the end.

    Parameters
    ----------
    observation_space: a ``Dict`` with at least one of the keys ``candidates``; what is in neither tuple is not read.
    hidden: numbers in an embedding.
    candidates: keys whose first dimension is the candidates.
    whole: keys that describe the whole.

    Raises
    ------
    SettingsError: if there is no such key, or two have another number of candidates.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Space[Any],
        hidden: int = 64,
        candidates: Sequence[str] = CANDIDATE_KEYS,
        whole: Sequence[str] = WHOLE_KEYS,
    ) -> None:
        spaces = observation_space.spaces if isinstance(observation_space, Dict) else {}
        self._candidates = [name for name in candidates if name in spaces]
        self._whole = [name for name in whole if name in spaces]
        shapes = {name: spaces[name].shape or () for name in self._candidates}
        if len({shape[0] for shape in shapes.values()}) != 1:
            raise SettingsError(
                f"the set encoder reads a Dict with keys of one row a candidate, such as {', '.join(candidates[:3])}; "
                f"the env gives {observation_space}."
            )
        self.n = int(next(iter(shapes.values()))[0])
        numbers = sum(math.prod(shape[1:]) for shape in shapes.values())
        state = sum(math.prod(spaces[name].shape or ()) for name in self._whole)
        self.hidden, self.n_context = hidden, 2 * hidden + state
        super().__init__(observation_space, self.n * hidden + self.n_context)
        self.first = nn.Linear(numbers, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.of_context = nn.Linear(self.n_context, hidden, bias=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return embeddings and context side by side, ``(B, N * hidden + n_context)``."""
        numbers = [x.float().reshape(len(x), self.n, -1) for x in (observations[name] for name in self._candidates)]
        embedded = torch.relu(self.first(torch.cat(numbers, dim=-1)))
        whole = [observations[name].float().flatten(1) for name in self._whole]
        context = torch.cat([embedded.mean(dim=1), embedded.amax(dim=1), *whole], dim=-1)
        # The context's share of the second layer is computed once for all candidates.
        second = torch.relu(self.second(embedded) + self.of_context(context)[:, None, :])
        return torch.cat([second.flatten(1), context], dim=-1)


class _Latents(nn.Module):
    """What SB3 calls the MLP extractor: the candidates for the actor, a hidden layer of the context for the critic."""

    def __init__(self, extractor: SetExtractor) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = extractor.n * extractor.hidden, extractor.hidden
        self.value = nn.Sequential(nn.Linear(extractor.n_context, extractor.hidden), nn.ReLU())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return features[:, : self.latent_dim_pi]

    def forward_critic(self, features: Tensor) -> Tensor:
        value: Tensor = self.value(features[:, self.latent_dim_pi :])
        return value


class _Scores(nn.Module):
    """A linear score of each candidate for each of an action's slots, ``(B, slots * N)``, slot by slot."""

    def __init__(self, extractor: SetExtractor, slots: int, bounded: bool = False) -> None:
        super().__init__()
        self.n, self.hidden, self.bounded = extractor.n, extractor.hidden, bounded
        self.score = nn.Linear(self.hidden, slots)

    def forward(self, features: Tensor) -> Tensor:
        embedded = features[:, : self.n * self.hidden].reshape(-1, self.n, self.hidden)
        scores: Tensor = self.score(embedded).transpose(1, 2).flatten(1)
        return torch.tanh(scores) if self.bounded else scores


def _slots(space: gym.spaces.Space[Any], n: int) -> int:
    """Return how many candidates an action names; a score for each of them is one."""
    if isinstance(space, Discrete) and space.n == n:
        return 1
    if isinstance(space, MultiDiscrete) and (space.nvec == n).all():
        return len(space.nvec)
    if isinstance(space, Box) and space.shape == (n,):
        return 1
    raise SettingsError(f"the policy scores {n} candidates: Discrete, MultiDiscrete or Box of {n}, not {space}.")


def make_layers(policy: Any, lr_schedule: Schedule) -> None:
    """Give an actor-critic policy, SB3's or sb3-contrib's, the layers that keep its candidates apart.

    Raises
    ------
    SettingsError: if its features are not the set encoder's, or its actions are not of the candidates.
    """
    extractor = policy.features_extractor
    if not isinstance(extractor, SetExtractor):
        raise SettingsError(f"features_extractor_class must be a SetExtractor, not {type(extractor).__name__}.")
    slots = _slots(policy.action_space, extractor.n)
    policy.mlp_extractor = _Latents(extractor)
    # Means outside the Box would be clipped and no longer differ.
    policy.action_net = _Scores(extractor, slots, bounded=isinstance(policy.action_space, Box))
    policy.value_net = nn.Linear(extractor.hidden, 1)
    if isinstance(policy.action_space, Box):
        # One for all candidates, where SB3 has one for each place.
        policy.log_std = nn.Parameter(torch.full((1,), float(policy.log_std_init)))
    # SB3's gains, but for the value: at first it is the same everywhere. A random one would drown the advantages.
    gains = {policy.features_extractor: math.sqrt(2), policy.mlp_extractor: math.sqrt(2)}
    if not policy.share_features_extractor:
        gains[policy.vf_features_extractor] = math.sqrt(2)
    for module, gain in {**gains, policy.action_net: 0.01, policy.value_net: 0.01}.items():
        module.apply(partial(policy.init_weights, gain=gain))
    policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)


class SetPolicy(ActorCriticPolicy):
    """The set encoder for SB3's ``PPO`` and ``A2C``: a score for each candidate, and the value of the whole.

    Its actions are ``Discrete(N)``, ``MultiDiscrete([N] * K)``, where each of the K slots has weights of its own for
    the scores, or ``Box(N)``, where the scores are the means of Gaussians.

    Parameters
    ----------
    *args, **kwargs: as for SB3's ``ActorCriticPolicy``; ``features_extractor_kwargs`` are those of
        :class:`SetExtractor`. ``net_arch``, ``activation_fn`` and ``ortho_init`` have no effect.
    log_std_init: of ``Box`` actions. Those beyond -1 and 1 are clipped and no longer differ, so it is small.

    Raises
    ------
    SettingsError: if the observation has no candidates, the actions are not of them, or ``use_sde`` is asked for.
    """

    def __init__(self, *args: Any, log_std_init: float = -1.6, **kwargs: Any) -> None:
        if kwargs.get("use_sde"):
            raise SettingsError("the set policy has no state-dependent exploration; leave out use_sde.")
        kwargs = {"features_extractor_class": SetExtractor, "log_std_init": log_std_init, **kwargs}
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        make_layers(self, lr_schedule)


class SetQNetwork(QNetwork):
    """SB3's Q network with a linear value of each candidate's embedding, the lowest for what the mask excludes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": [1]})  # small, since it is replaced
        assert isinstance(self.features_extractor, SetExtractor)
        _slots(self.action_space, self.features_extractor.n)
        self.q_net = nn.Sequential(_Scores(self.features_extractor, 1))

    def forward(self, obs: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # a Dict's
        """Return values ``(B, N)``."""
        values = super().forward(obs)
        if "action_mask" not in obs:
            return values
        # Without a gradient, so that what exploration tried in spite of the mask teaches nothing.
        lowest = values.detach().amin(dim=1, keepdim=True) - 1
        return torch.where(obs["action_mask"].bool(), values, lowest)


class SetDQNPolicy(DQNPolicy):
    """The set encoder for SB3's ``DQN``: a value for each candidate, ``Discrete(N)``.

    Where the observation has an ``action_mask``, what it excludes is never the best; DQN's random exploration, which
    knows no masks, may still try it.

    Parameters
    ----------
    *args, **kwargs: as for SB3's ``DQNPolicy``; ``features_extractor_kwargs`` are those of :class:`SetExtractor`.
        ``net_arch`` and ``activation_fn`` have no effect.

    Raises
    ------
    SettingsError: if the observation has no candidates, or the actions are not of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": SetExtractor, **kwargs})

    def make_q_net(self) -> SetQNetwork:
        """See SB3's ``DQNPolicy``."""
        return SetQNetwork(**self._update_features_extractor(self.net_args)).to(self.device)
