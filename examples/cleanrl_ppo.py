"""PPO in one file, in CleanRL's style, on either environment: a network shared by all candidates, and K distinct picks.

    python examples/cleanrl_ppo.py active                   # ActiveLabel-v0, one label a step
    python examples/cleanrl_ppo.py selective                # SelectiveLabel-v0, ten labels at once
    python examples/cleanrl_ppo.py active --seed 2 --total-timesteps 40000

Both are one algorithm: the network gives each candidate a logit, K candidates are drawn without replacement in
proportion to ``exp(logit)`` (Plackett-Luce), and the log-probability of the draw is exact. Where K is 1, that is the
usual masked categorical. PPO is Schulman et al. 2017 with the generalised advantages of Schulman et al. 2016.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import activelabel  # noqa: F401  (registers the environments)
from activelabel.baselines import KMedoids, Random, make_pool_baseline
from activelabel.envs.candidates import LONG
from activelabel.evaluation import Strategy, mean_interval, paired_difference, play, play_episodes

Observation = dict[str, NDArray[Any]]


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
    """Of the agent and of the training episodes."""
    name: str = "cleanrl_ppo"
    """What the run is called."""
    runs: Path = Path("runs")
    """Where TensorBoard's files go."""

    total_timesteps: int = 20_000
    learning_rate: float = 1e-3
    """At the start; it falls linearly to 0."""
    num_envs: int = 32
    """Episodes played as one batch."""
    num_steps: int = 20
    """Steps in each of them between two updates."""
    gamma: float = 0.9
    gae_lambda: float = 0.9
    num_minibatches: int = 4
    update_epochs: int = 4
    clip_coef: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden: int = 64
    """Units of the network's layers."""

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


# -- the environment -----------------------------------------------------------------------------------------------


def make_envs(args: Args, num_envs: int, split: str = "train") -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the environment's own vector form: all episodes are one batch of tensors."""
    settings: dict[str, Any] = {"cohort": args.data, "pool": args.pool, "fractions": args.fractions, "device": "cpu"}
    if args.env_id == "ActiveLabel-v0":
        settings |= {"budget": args.labels, "batch": 1, "features": LONG}
        settings |= {"learner_arguments": {"epochs": args.learner_epochs}}
        # Of pool, state set, reward set and test set: rewards for training, test images for judging.
        settings |= {"shares": (0.4, 0.06, 0.4, 0.14) if split == "train" else (0.4, 0.06, 0.2, 0.34)}
    else:
        settings |= {"k": args.labels}
    return gym.make_vec(args.env_id, num_envs=num_envs, split=split, **settings)


class Inputs(NamedTuple):
    """What the network reads, of ``B`` observations."""

    candidates: Tensor
    """float32 ``(B, M, F)``, standardised within each pool."""
    context: Tensor
    """float32 ``(B, S)``, what is known besides them; S may be 0."""
    mask: Tensor
    """bool ``(B, M)``, which may be chosen."""

    @classmethod
    def of(cls, observation: Observation) -> Inputs:
        """Read an observation of either environment."""
        if "pool" in observation:  # SelectiveLabel-v0
            candidates = torch.from_numpy(np.concatenate([observation["pool"], observation["clinical"]], axis=-1))
            context = candidates.new_zeros(len(candidates), 0)
            mask = torch.ones(candidates.shape[:2], dtype=torch.bool)
        else:
            candidates, context = torch.from_numpy(observation["candidates"]), torch.from_numpy(observation["state"])
            mask = torch.from_numpy(observation["action_mask"]).bool()
        free = mask[:, :, None]
        count = free.sum(dim=1, keepdim=True).clamp(min=1)
        centred = (candidates - (candidates * free).sum(dim=1, keepdim=True) / count) * free
        deviation = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
        return cls(centred / (deviation + 1e-6), context, mask)

    def take(self, rows: Tensor) -> Inputs:
        """Return some of the observations."""
        return Inputs(*(part[rows] for part in self))


# -- the agent -----------------------------------------------------------------------------------------------------


def layer(n_in: int, n_out: int, gain: float = math.sqrt(2)) -> nn.Linear:
    """Return a linear layer with orthogonal weights."""
    linear = nn.Linear(n_in, n_out)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """Scores candidates by weights that all of them share, so that their order and number do not count.

    A candidate's logit follows from its own embedding, the mean and the maximum of the embeddings of its pool, and the
    context; the value of the state from the last three.
    """

    k = 1
    """How many candidates :meth:`predict` chooses."""

    def __init__(self, inputs: Inputs, hidden: int) -> None:
        super().__init__()
        whole = 2 * hidden + inputs.context.shape[1]
        features = inputs.candidates.shape[2]
        self.embed = nn.Sequential(layer(features, hidden), nn.ReLU(), layer(hidden, hidden), nn.ReLU())
        self.own, self.shared = layer(hidden, hidden), layer(whole, hidden)
        self.logit = layer(hidden, 1, gain=0.01)
        self.critic = nn.Sequential(layer(whole, hidden), nn.ReLU(), layer(hidden, 1, gain=1.0))

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, M)``, -inf where the mask is False, and values ``(B,)``."""
        each = self.embed(inputs.candidates) * inputs.mask[:, :, None]
        mean = each.sum(dim=1) / inputs.mask.sum(dim=1, keepdim=True).clamp(min=1)
        whole = torch.cat([mean, each.amax(dim=1), inputs.context], dim=1)
        logits = self.logit((self.own(each) + self.shared(whole)[:, None, :]).relu()).squeeze(2)
        return logits.masked_fill(~inputs.mask, -math.inf), self.critic(whole).squeeze(1)

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the K best candidates ``(B, K)``, as a Stable-Baselines3 model does; always deterministic."""
        with torch.no_grad():
            return self(Inputs.of(observation))[0].topk(self.k, dim=1).indices.numpy(), state


def draw(logits: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return K different candidates ``(B, K)`` in the order of the draw: the largest of logits with Gumbel noise."""
    noise = -torch.empty_like(logits).exponential_(generator=generator).log()
    return (logits + noise).topk(k, dim=1).indices


def log_prob_and_entropy(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability ``(B,)`` of drawing ``chosen`` ``(B, K)`` in that order, and an entropy ``(B,)``.

    A draw is K categorical ones, each among the candidates that are left. The sum of their entropies, given what was
    drawn before, is an unbiased estimate of the entropy of the whole.
    """
    log_prob, entropy = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
    for one in chosen.unbind(dim=1):
        logs = logits.log_softmax(dim=1)
        log_prob = log_prob + logs.gather(1, one[:, None])[:, 0]
        entropy = entropy - (logs.exp() * logs.clamp(min=-1e9)).sum(dim=1)  # 0 * -inf would be NaN
        logits = logits.scatter(1, one[:, None], -math.inf)
    return log_prob, entropy


# -- learning ------------------------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """``T`` steps of ``B`` episodes, one after the other: ``T * B`` rows."""

    inputs: Inputs
    chosen: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor


def advantages(rewards: Tensor, values: Tensor, ended: Tensor, last: Tensor, args: Args) -> Tensor:
    """Return generalised advantages ``(T, B)``; ``last`` ``(B,)`` are the values after the last step."""
    found, following = torch.zeros_like(rewards), torch.zeros_like(last)
    for t in reversed(range(len(rewards))):
        more = 1 - ended[t]
        ahead = last if t == len(rewards) - 1 else values[t + 1]
        following = rewards[t] + args.gamma * more * ahead - values[t] + args.gamma * args.gae_lambda * more * following
        found[t] = following
    return found


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, data: Rollout, args: Args, generator: torch.Generator
) -> dict[str, float]:
    """Make the epochs of one update; returns what TensorBoard shows of it."""
    seen: dict[str, list[float]] = {}
    n = len(data.target)
    for _ in range(args.update_epochs):
        for rows in torch.randperm(n, generator=generator).chunk(args.num_minibatches):
            logits, value = agent(data.inputs.take(rows))
            log_prob, entropy = log_prob_and_entropy(logits, data.chosen[rows])
            log_ratio = log_prob - data.log_prob[rows]
            ratio = log_ratio.exp()
            advantage = data.advantage[rows]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
            value_loss = 0.5 * (value - data.target[rows]).square().mean()
            loss = policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
            found = {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy.mean(),
                "approx_kl": (ratio - 1 - log_ratio).mean(),
                "clipfrac": ((ratio - 1).abs() > args.clip_coef).float().mean(),
            }
            for name, number in found.items():
                seen.setdefault(name, []).append(number.item())
    explained = 1 - (data.target - data.value).var() / (data.target.var() + 1e-12)
    return {name: float(np.mean(numbers)) for name, numbers in seen.items()} | {"explained_variance": explained.item()}


def train(args: Args, writer: SummaryWriter) -> Agent:
    """Return an agent trained for ``total_timesteps`` steps."""
    torch.manual_seed(args.seed)  # of the weights
    generator = torch.Generator().manual_seed(args.seed)
    envs = make_envs(args, args.num_envs)
    observation, _ = envs.reset(seed=args.seed)
    inputs = Inputs.of(observation)
    agent = Agent(inputs, args.hidden)
    agent.k = 1 if args.env_id == "ActiveLabel-v0" else args.labels
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    returns, lengths = np.zeros(args.num_envs), np.zeros(args.num_envs)
    start, updates = time.perf_counter(), max(1, args.total_timesteps // (args.num_envs * args.num_steps))
    for number in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - number / updates)
        steps: list[tuple[Inputs, Tensor, Tensor, Tensor]] = []
        rewards, ended = torch.zeros(2, args.num_steps, args.num_envs)
        finished = []
        for t in range(args.num_steps):
            with torch.no_grad():
                logits, value = agent(inputs)
                chosen = draw(logits, agent.k, generator)
                steps.append((inputs, chosen, log_prob_and_entropy(logits, chosen)[0], value))
            actions = chosen.numpy().reshape(envs.action_space.shape)
            observation, reward, terminated, _, _ = envs.step(actions)  # nothing is ever truncated
            inputs = Inputs.of(observation)
            rewards[t], ended[t] = torch.from_numpy(reward), torch.from_numpy(terminated)
            returns, lengths = returns + reward, lengths + 1
            finished += list(zip(returns[terminated], lengths[terminated], strict=True))
            returns[terminated], lengths[terminated] = 0, 0
        with torch.no_grad():
            last = agent(inputs)[1]
        values = torch.stack([value for *_, value in steps])
        advantage = advantages(rewards, values, ended, last, args)
        data = Rollout(
            Inputs(*(torch.cat(parts) for parts in zip(*(step[0] for step in steps), strict=True))),
            torch.cat([step[1] for step in steps]),
            torch.cat([step[2] for step in steps]),
            values.flatten(),
            advantage.flatten(),
            (advantage + values).flatten(),
        )
        losses = update(agent, optimizer, data, args, generator)
        done = (number + 1) * args.num_envs * args.num_steps
        charts = {"learning_rate": optimizer.param_groups[0]["lr"], "SPS": done / (time.perf_counter() - start)}
        if finished:
            charts |= dict(zip(("episodic_return", "episodic_length"), np.mean(finished, axis=0), strict=True))
        for group, scalars in (("charts", charts), ("losses", losses)):
            for name, scalar in scalars.items():
                cast(Any, writer).add_scalar(f"{group}/{name}", scalar, done)
        if number % max(1, updates // 10) == 0 or number == updates - 1:
            shown = f"return {charts['episodic_return']:.4f}" if finished else "no episode has ended"
            print(f"{done:7d} steps, {charts['SPS']:5.0f} a second: {shown}, entropy {losses['entropy']:.2f}")
    envs.close()
    return agent


# -- judging -------------------------------------------------------------------------------------------------------


def evaluate(args: Args, agent: Agent) -> dict[str, NDArray[np.float64]]:
    """Return what each strategy reached in episodes ``0 .. eval_episodes - 1`` of ``eval_split``, the same for all.

    For ActiveLabel-v0 the area under the curve of test accuracy, for SelectiveLabel-v0 the AUROC on the query set.
    """
    engine = cast(Any, make_envs(args, 1, args.eval_split).unwrapped).engine
    if args.env_id == "ActiveLabel-v0":
        strategies = {name: make_pool_baseline(name, batch=1) for name in ("random", "margin")} | {"PPO": agent}
        return {name: play_episodes(engine, s, args.eval_episodes).aulc for name, s in strategies.items()}
    k = args.labels
    choosers: dict[str, Strategy] = {"random": Random(k), "K-Medoids": KMedoids(k), "PPO": agent}
    return {name: play(engine, s, [k], args.eval_episodes)[k].reward for name, s in choosers.items()}


def main(args: Args) -> dict[str, NDArray[np.float64]]:
    """Train, judge, and print; returns :func:`evaluate`'s figures."""
    torch.set_num_threads(1)  # the last digits of a sum depend on the number of threads
    run = args.runs / f"{args.env_id}__{args.name}__{args.seed}__{int(time.time())}"
    writer = cast(Any, SummaryWriter)(str(run))
    rows = "\n".join(f"|{name}|{value}|" for name, value in asdict(args).items())
    writer.add_text("hyperparameters", f"|param|value|\n|-|-|\n{rows}")
    agent = train(args, writer)
    scores = evaluate(args, agent)
    measure = "AULC" if args.env_id == "ActiveLabel-v0" else "AUROC"
    print(f"\n{measure} in {args.eval_episodes} {args.eval_split} episodes, 95 % intervals over episodes")
    for name, values in scores.items():
        own = mean_interval(values)
        line = f"{name:10s} {own.mean:.4f} ({own.low:.4f}, {own.high:.4f})"
        if name != "PPO":
            d = paired_difference(scores["PPO"], values)
            line += f"   PPO minus it {d.mean:+.4f} ({d.low:+.4f}, {d.high:+.4f})"
            writer.add_scalar(f"charts/{args.eval_split}_minus_{name}", d.mean, args.total_timesteps)
        print(line)
    writer.close()
    print(f"TensorBoard: tensorboard --logdir {args.runs}   (run {run.name})")
    return scores


if __name__ == "__main__":
    main(tyro.cli(tyro.extras.subcommand_type_from_defaults(PRESETS)))
