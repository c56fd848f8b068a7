"""A TorchRL loop on either environment: GymWrapper, Collector, GAE and ClipPPOLoss around a network over candidates.

    pip install "activelabel[torchrl]"
    python examples/torchrl_ppo.py active                   # ActiveLabel-v0, one label a step, MaskedCategorical
    python examples/torchrl_ppo.py selective                # SelectiveLabel-v0, ten labels at once, without replacement

``GymWrapper`` takes the environments' own vector form, so that all episodes are one batch of tensors. It wants
``autoreset_mode="Disabled"``: TorchRL resets what is over by itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import ActionMask, CatTensors, Compose, DTypeCastTransform, EnvBase, GymWrapper, TransformedEnv
from torchrl.modules import MaskedCategorical, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import activelabel  # noqa: F401  (registers the environments)
from activelabel.agents.selection import WithoutReplacement
from activelabel.baselines import KMedoids, Random, make_pool_baseline
from activelabel.envs.candidates import LONG
from activelabel.evaluation import Strategy, mean_interval, paired_difference, play, play_episodes


@dataclass
class Args:
    """What the command line sets."""

    env_id: Literal["ActiveLabel-v0", "SelectiveLabel-v0"] = "ActiveLabel-v0"
    data: str = "digits"
    """A data set's name, or a file or folder of one."""
    fractions: tuple[float, float, float] = (0.4, 0.3, 0.3)
    """Shares of the images for training, validation and test."""
    pool: int = 200
    """Candidates in an episode."""
    labels: int = 20
    """ActiveLabel-v0: the budget, one label a step. SelectiveLabel-v0: K, all at once."""
    learner_epochs: int = 50
    """ActiveLabel-v0: of the classifier that is trained after every label."""
    seed: int = 1

    total_frames: int = 20_000
    """Steps in all."""
    num_envs: int = 32
    """Episodes played as one batch."""
    num_steps: int = 20
    """Steps in each of them between two updates."""
    learning_rate: float = 1e-3
    """At the start; it falls linearly to 0."""
    gamma: float = 0.9
    gae_lambda: float = 0.9
    minibatches: int = 4
    update_epochs: int = 4
    clip_epsilon: float = 0.2
    hidden: int = 64
    """Units of the networks' layers."""

    eval_split: Literal["val", "test"] = "test"
    """Settings are to be chosen on val."""
    eval_episodes: int = 400


PRESETS = {
    "active": Args(),
    "selective": Args(
        env_id="SelectiveLabel-v0",
        data="synthetic",
        fractions=(0.7, 0.15, 0.15),
        labels=10,
        num_envs=128,
        num_steps=2,
        update_epochs=2,
    ),
}
"""What the first word of the command line chooses."""


def make_envs(args: Args, num_envs: int, split: str = "train") -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the environment's own vector form."""
    settings: dict[str, Any] = {"cohort": args.data, "pool": args.pool, "fractions": args.fractions, "device": "cpu"}
    if args.env_id == "ActiveLabel-v0":
        settings |= {"budget": args.labels, "batch": 1, "features": LONG}
        settings |= {"learner_arguments": {"epochs": args.learner_epochs}}
        # Of pool, state set, reward set and test set: rewards for training, test images for judging.
        settings |= {"shares": (0.4, 0.06, 0.4, 0.14) if split == "train" else (0.4, 0.06, 0.2, 0.34)}
    else:
        settings |= {"k": args.labels}
    return gym.make_vec(args.env_id, num_envs=num_envs, split=split, autoreset_mode="Disabled", **settings)


def for_torchrl(args: Args, envs: gym.vector.VectorEnv[Any, Any, Any]) -> EnvBase:
    """Return the vector env as TorchRL's, with a key ``candidates`` ``(B, M, F)``."""
    env = GymWrapper(envs, categorical_action_encoding=True)
    if args.env_id == "ActiveLabel-v0":
        as_bool = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
        return TransformedEnv(env, Compose(as_bool, ActionMask()))  # random actions, too, keep to the mask
    return TransformedEnv(env, CatTensors(["pool", "clinical"], "candidates", dim=-1, sort=False))


class SetNetwork(nn.Module):
    """Scores candidates by weights that all of them share, so that their order and number do not count.

    Parameters
    ----------
    candidates, context: numbers a candidate, and numbers that are known besides.
    hidden: units of the layers.
    value: give one number for the whole, ``(B, 1)``, in place of a logit for each candidate, ``(B, M)``.
    """

    def __init__(self, candidates: int, context: int, hidden: int, value: bool) -> None:
        super().__init__()
        self.value = value
        self.embed = nn.Sequential(nn.Linear(candidates, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.own, self.shared = nn.Linear(hidden, hidden), nn.Linear(2 * hidden + context, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)  # training starts from chance

    def forward(self, candidates: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return logits or values of ``(..., M, F)``; each candidate is standardised within its pool."""
        scale = candidates.std(dim=-2, keepdim=True) + 1e-6
        each = self.embed((candidates - candidates.mean(dim=-2, keepdim=True)) / scale)
        if mask is not None:
            each = each * mask[..., None]
        parts = [each.mean(dim=-2), each.amax(dim=-2)] + ([] if context is None else [context])
        shared = self.shared(torch.cat(parts, dim=-1))
        if self.value:
            return cast(Tensor, self.out(shared.relu()))
        return cast(Tensor, self.out((self.own(each) + shared[..., None, :]).relu()).squeeze(-1))


class DistinctCandidates(Distribution):
    """K of N candidates, drawn one after the other in proportion to ``exp(logit)`` among those that are left.

    Parameters
    ----------
    logits: ``(..., N)``.
    k: how many.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (declared so by torch)

    def __init__(self, logits: Tensor, k: int) -> None:
        self.logits, self.k = logits, k
        super().__init__(logits.shape[:-1], torch.Size([k]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return int64 ``(..., K)`` in the order of the draw: the largest of logits with Gumbel noise."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        return (logits - torch.empty_like(logits).exponential_().log()).topk(self.k).indices

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the exact log-probability ``(...)`` of drawing ``value`` ``(..., K)`` in that order."""
        flat = self.logits.flatten(0, -2), value.flatten(0, -2)[:, None]
        return WithoutReplacement().log_prob(*flat).reshape(value.shape[:-1])

    @property
    def deterministic_sample(self) -> Tensor:
        """The K largest logits, int64 ``(..., K)``; the name is TorchRL's."""
        return self.logits.topk(self.k).indices


class Agent:
    """An actor and a critic for TorchRL, and ``predict`` for the evaluation."""

    def __init__(self, args: Args, env: EnvBase) -> None:
        self.active = args.env_id == "ActiveLabel-v0"
        self.k = 1 if self.active else args.labels
        seen = env.observation_spec
        # TorchRL calls "observation" what the environment calls "state".
        keys = ["candidates", "observation", "action_mask"] if self.active else ["candidates"]
        sizes = seen["candidates"].shape[-1], seen["observation"].shape[-1] if self.active else 0, args.hidden
        self.network = SetNetwork(*sizes, value=False)
        self.critic = TensorDictModule(SetNetwork(*sizes, value=True), in_keys=keys, out_keys=["state_value"])
        self.actor = ProbabilisticActor(
            TensorDictModule(self.network, in_keys=keys, out_keys=["logits"]),
            in_keys={"logits": "logits", "mask": "action_mask"} if self.active else ["logits"],
            distribution_class=MaskedCategorical if self.active else DistinctCandidates,
            distribution_kwargs={} if self.active else {"k": self.k},
            return_log_prob=True,
        )

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the K best candidates ``(B, K)``, as a Stable-Baselines3 model does; always deterministic."""
        seen = {name: torch.from_numpy(array) for name, array in observation.items()}
        with torch.no_grad():
            if self.active:
                logits = self.network(seen["candidates"], seen["state"], seen["action_mask"])
                logits = logits.masked_fill(seen["action_mask"] == 0, -math.inf)
            else:
                logits = self.network(torch.cat([seen["pool"], seen["clinical"]], dim=-1))
        return logits.topk(self.k, dim=1).indices.numpy(), state


def train(args: Args) -> Agent:
    """Return an agent trained for ``total_frames`` steps."""
    torch.manual_seed(args.seed)  # TorchRL draws from torch's global generator
    env = for_torchrl(args, make_envs(args, args.num_envs))
    env.set_seed(args.seed)
    agent = Agent(args, env)
    frames = args.num_envs * args.num_steps
    updates = max(1, args.total_frames // frames)
    collector = Collector(
        env,
        agent.actor,
        frames_per_batch=frames,
        total_frames=updates * frames,
        auto_register_policy_transforms=False,  # the policy has no memory that they would reset
    )
    advantage = GAE(gamma=args.gamma, lmbda=args.gae_lambda, value_network=agent.critic)
    loss = ClipPPOLoss(
        agent.actor,
        agent.critic,
        clip_epsilon=args.clip_epsilon,
        entropy_bonus=False,
        critic_coeff=0.5,
        normalize_advantage=True,
    )
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(frames), sampler=SamplerWithoutReplacement(), batch_size=frames // args.minibatches
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=args.learning_rate)
    start = time.perf_counter()
    for number, data in enumerate(collector):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - number / updates)
        with torch.no_grad():
            advantage(data)
        buffer.extend(data.exclude("next").reshape(-1))
        for _ in range(args.update_epochs):
            for batch in buffer:
                losses = loss(batch)
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"]).backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
        if number % max(1, updates // 10) == 0 or number == updates - 1:
            done = (number + 1) * frames
            a_second, reward = done / (time.perf_counter() - start), data["next", "reward"].mean()
            print(f"{done:7d} steps, {a_second:5.0f} a second: mean reward {reward:.4f}")
    collector.shutdown()
    return agent


def evaluate(args: Args, agent: Agent) -> dict[str, NDArray[np.float64]]:
    """Return what each strategy reached in episodes ``0 .. eval_episodes - 1`` of ``eval_split``, the same for all.

    For ActiveLabel-v0 the area under the curve of test accuracy, for SelectiveLabel-v0 the AUROC on the query set.
    """
    engine = cast(Any, make_envs(args, 1, args.eval_split).unwrapped).engine
    if args.env_id == "ActiveLabel-v0":
        strategies = {name: make_pool_baseline(name, batch=1) for name in ("random", "margin")} | {"PPO": agent}
        return {name: play_episodes(engine, s, args.eval_episodes).aulc for name, s in strategies.items()}
    choosers: dict[str, Strategy] = {"random": Random(agent.k), "K-Medoids": KMedoids(agent.k), "PPO": agent}
    return {name: play(engine, s, [agent.k], args.eval_episodes)[agent.k].reward for name, s in choosers.items()}


def main(args: Args) -> dict[str, NDArray[np.float64]]:
    """Train, judge, and print; returns :func:`evaluate`'s figures."""
    torch.set_num_threads(1)  # the last digits of a sum depend on the number of threads
    scores = evaluate(args, train(args))
    measure = "AULC" if args.env_id == "ActiveLabel-v0" else "AUROC"
    print(f"\n{measure} in {args.eval_episodes} {args.eval_split} episodes, 95 % intervals over episodes")
    for name, values in scores.items():
        own, d = mean_interval(values), paired_difference(scores["PPO"], values)
        difference = "" if name == "PPO" else f"   PPO minus it {d.mean:+.4f} ({d.low:+.4f}, {d.high:+.4f})"
        print(f"{name:10s} {own.mean:.4f} ({own.low:.4f}, {own.high:.4f}){difference}")
    return scores


if __name__ == "__main__":
    main(tyro.cli(tyro.extras.subcommand_type_from_defaults(PRESETS)))
