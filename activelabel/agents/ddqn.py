"""Double DQN whose actions are vectors (Slade & Branson 2022), as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from activelabel.agents import ddqn_saving as saving
from activelabel.agents.arguments import check_ddqn_arguments
from activelabel.agents.qnetworks import LalRlPolicy, QPolicy
from activelabel.agents.replay import Replay
from activelabel.agents.saved import SavedAgent
from activelabel.agents.targets import Seen, directed, mixed, td_error, top, transitions
from activelabel.data.cohort import IntArray
from activelabel.envs.sb3 import as_vec_env
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream


class DDQN(SavedAgent, OffPolicyAlgorithm):  # type: ignore[misc]  # load has arguments of its own
    """Learns ``Q(state, candidate)`` and labels the N candidates of the largest values (Eq. 3).

    A round: every env plays one episode, then ``gradient_steps`` steps on the replay buffer. The value of a batch of N
    is the mean of its candidates' (``credit="mean"``), their sum (``"sum"``, Eq. 3 as printed), or each candidate is
    a transition of its own with the whole reward (``"each"``, RALIS).

    Parameters
    ----------
    policy: ``"QPolicy"``, ``"LalRlPolicy"`` or a subclass.
    env: ``ActiveLabel-v0`` in any form: an id (64 copies played as one), a single env, a Gymnasium vector env
        (fastest), or a Stable-Baselines3 ``VecEnv``.
    learning_rate: of Adam; a number or a function of the progress that remains. (Paper: 1e-4.)
    buffer_size: steps that the replay buffer keeps.
    warm_start_episodes: random episodes before the first gradient step, rounded up to whole rounds. (Paper: 16; 128.)
    batch_size: steps in a gradient step.
    gradient_steps: after each round.
    gamma: discount of a step, 0 to 1. (Paper: 0.99.)
    credit: see above.
    target: ``"double"``: the next batch is chosen by the online network and valued by the target network (van Hasselt
        et al. 2016); ``"printed"``: the other way round, as Eq. 4 has it.
    act_with: the network that chooses, ``"online"`` or ``"target"``: with a small ``tau`` the target network is an
        average of the online network's past, which noisy rewards throw about less.
    tau: share of the online network in the target at each update of it.
    target_update_interval: gradient steps between updates of the target network.
    exploration: with probability epsilon, ``"uniform"`` replaces each candidate of a batch by a random one, and
        ``"directions"`` the batch by the extreme one in a random direction of the candidates' vectors.
    exploration_initial, exploration_final, exploration_fraction: epsilon falls from the first to the second during the
        third's share of the training.
    next_candidates: random candidates of the next step that are stored with a step, besides the batch that would be
        chosen there; 0 stores all.
    reward_scale: rewards are multiplied by it for learning.
    priority_exponent: of prioritised replay; 0 draws uniformly.
    value_bias: what the output's bias starts from: a number, or ``"duration"``, minus half the mean return of the
        warm start under ``reward="target"``, as LAL-RL does it.
    patience: early stopping (§4.2): stop when the mean return of this many rounds is not above that of as many before
        them, once exploration is at its end; None never stops.
    max_grad_norm: gradients are clipped to this norm; None leaves them.
    policy_kwargs: see :class:`~activelabel.agents.qnetworks.QPolicy`; others as in Stable-Baselines3.
    seed: of weights, exploration, replay and env; None draws one. No global generator is touched.

    Raises
    ------
    SettingsError: if a value is out of range or does not fit the env.
    """

    observed: ClassVar[tuple[str, ...]] = ("features", "state", "state_images", "distance", "space")
    """The settings of ``ActiveLabel-v0`` that decide what the numbers of an observation mean."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"QPolicy": QPolicy, "LalRlPolicy": LalRlPolicy}
    policy: QPolicy

    def __init__(
        self,
        policy: str | type[QPolicy] = "QPolicy",
        env: Any = None,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 50_000,
        warm_start_episodes: int = 16,
        batch_size: int = 256,
        gradient_steps: int = 100,
        gamma: float = 0.99,
        credit: str = "mean",
        target: str = "double",
        act_with: str = "online",
        tau: float = 1.0,
        target_update_interval: int = 100,
        exploration: str = "uniform",
        exploration_initial: float = 1.0,
        exploration_final: float = 0.05,
        exploration_fraction: float = 0.5,
        next_candidates: int = 24,
        reward_scale: float = 1.0,
        priority_exponent: float = 0.0,
        value_bias: float | str = 0.0,
        patience: int | None = None,
        max_grad_norm: float | None = 10.0,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            as_vec_env(env, 64),
            learning_rate,
            buffer_size=buffer_size,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            gradient_steps=gradient_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=secrets.randbits(31) if seed is None else seed,
            sde_support=False,
            supported_action_spaces=(gym.spaces.Discrete, gym.spaces.MultiDiscrete),
        )
        self.warm_start_episodes, self.credit, self.target = warm_start_episodes, credit, target
        self.act_with, self.target_update_interval = act_with, target_update_interval
        self.exploration, self.exploration_fraction = exploration, exploration_fraction
        self.exploration_initial, self.exploration_final = exploration_initial, exploration_final
        self.next_candidates, self.reward_scale = next_candidates, reward_scale
        self.priority_exponent, self.value_bias = priority_exponent, value_bias
        self.patience, self.max_grad_norm = patience, max_grad_norm
        check_ddqn_arguments(self)
        self.returns: list[float] = []
        """Mean return of each round."""
        self._running_returns = np.zeros(0)
        self.env_settings: dict[str, Any] = {}
        """Those of :attr:`observed`, of the env that it was trained on."""
        self.notes: dict[str, Any] = {}
        """JSON-serialisable notes that callbacks keep with the model, such as the best validation result."""
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.env is None:
            raise SettingsError("DDQN needs an env to learn its sizes from; use DDQN.load() for a trained model.")
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._adopt_env()
        self._build_policy()

    def _build_policy(self) -> None:
        kwargs = {"init_seed": self.seed, **self.policy_kwargs}
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **kwargs)
        assert isinstance(policy, QPolicy)
        self.policy = policy.to(self.device)
        self.replay = Replay(self.buffer_size, self.priority_exponent)

    def _adopt_env(self) -> None:
        """Take the batch size and the observation's settings from the env."""
        assert self.env is not None
        self.env_settings = self._settings_of(self.env)
        self._scalar = isinstance(self.action_space, gym.spaces.Discrete)
        self.n = 1 if self._scalar else len(self.action_space.nvec)  # type: ignore[attr-defined]

    def _settings_of(self, env: VecEnv) -> dict[str, Any]:
        try:
            settings = env.get_attr("engine", 0)[0].settings
            return {name: getattr(settings, name) for name in self.observed}
        except AttributeError as error:
            raise SettingsError(f"DDQN trains on ActiveLabel-v0; this is another env ({error}).") from None

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed exploration, replay and the env; global generators are left alone."""
        if seed is None:
            return
        self.seed = seed
        self._explore_rng = torch_stream(seed, "exploration")
        self._replay_rng = torch_stream(seed, "replay")
        self._predict_rng = torch_stream(seed, "predict")
        if self.env is not None:
            self.env.seed(seed)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Train on another env from now on; data, classes, pool and number of envs may differ, vectors must not.

        Raises
        ------
        SettingsError: if states or candidates have another number of features.
        """
        env = self._wrap_env(as_vec_env(env, 64), self.verbose)
        for name, length in (("state", self.policy.n_state), ("candidates", self.policy.n_features)):
            found = env.observation_space[name].shape[-1]
            if found != length:
                raise SettingsError(f"the policy was made for '{name}' of {length} numbers, the env gives {found}.")
        for name, value in self._settings_of(env).items():
            if self.env_settings.get(name, value) != value:
                raise SettingsError(
                    f"the agent was trained with {name}={self.env_settings[name]}, the env has {value}."
                )
        n = 1 if isinstance(env.action_space, gym.spaces.Discrete) else len(env.action_space.nvec)
        if len(self.replay) and n != self.n:
            raise SettingsError(f"the replay buffer holds batches of {self.n}, the env labels {n} a step.")
        self.env, self.n_envs = env, env.num_envs
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._adopt_env()
        if force_reset:
            self._last_obs = None
            self._running_returns = np.zeros(0)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "DDQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> DDQN:
        """Train for ``total_timesteps`` steps of the envs, rounded up to whole rounds, or until returns have settled.

        ``callback.on_rollout_end`` is called when a round and its gradient steps are complete, so a checkpoint written
        there continues exactly.
        """
        if self.env is None:
            raise SettingsError("this model has no env to train on; give it one with set_env().")
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        if reset_num_timesteps:
            self.returns = []
            self.notes.pop("stopped", None)
        if reset_num_timesteps or len(self._running_returns) != self.n_envs:
            self._running_returns = np.zeros(self.n_envs)
        going = not self.notes.get("stopped", False)
        while going and self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            going = self._play_round(callback)
            if going and self._episode_num >= self.warm_start_episodes:
                self._warm_up()
                self.train(self.gradient_steps, self.batch_size)
            if going and self._settled():
                self.notes["stopped"], going = True, False
            callback.on_rollout_end()
            if log_interval and len(self.returns) % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _play_round(self, callback: BaseCallback) -> bool:
        """Play until as many episodes have ended as there are envs; returns whether to go on."""
        assert self.env is not None
        returns: list[float] = []
        self.policy.set_training_mode(False)
        assert isinstance(self._last_obs, dict)
        seen, rng = self._see(self._last_obs), self._explore_rng
        while len(returns) < self.n_envs:
            chosen = self._explore(seen)
            actions = chosen.cpu().numpy()
            new_obs, rewards, dones, infos = self.env.step(actions[:, 0] if self._scalar else actions)
            assert isinstance(new_obs, dict)
            self.num_timesteps += self.n_envs
            following = self._see(new_obs)
            scaled = np.asarray(rewards, np.float32) * np.float32(self.reward_scale)
            used = np.array([info["ids"] for info in infos]) >= 0
            self.replay.add(transitions(seen, chosen, used, scaled, dones, following, self.next_candidates, rng))
            self._last_obs, seen = new_obs, following
            self._update_info_buffer(infos, dones)
            self._episode_num += int(dones.sum())
            self._running_returns += rewards
            returns += self._running_returns[dones].tolist()
            self._running_returns[dones] = 0
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        self.returns.append(float(np.mean(returns)))
        self.logger.record("rollout/return", self.returns[-1])
        self.logger.record("rollout/epsilon", self.epsilon)
        return True

    @property
    def epsilon(self) -> float:
        """The present probability of a random candidate."""
        if self._episode_num < self.warm_start_episodes:
            return 1.0
        left = 1 - min(1.0, (1 - self._current_progress_remaining) / max(self.exploration_fraction, 1e-9))
        return self.exploration_final + left * (self.exploration_initial - self.exploration_final)

    def _see(self, observation: dict[str, NDArray[Any]]) -> Seen:
        state, candidates, mask, _ = self.policy.encode(observation)
        return Seen(state, candidates, mask, self._best(state, candidates, mask))

    def _best(self, state: Tensor, candidates: Tensor, mask: Tensor) -> Tensor:
        """Return the batch ``(B, N)`` of the largest values."""
        values = self.policy.values(state, candidates, target=self.act_with == "target")
        return top(values.masked_fill_(~mask, -math.inf), self.n)

    def _explore(self, seen: Seen) -> Tensor:
        """Return ``(B, N)`` candidates: the best, some of them replaced by random ones."""
        if self.exploration == "uniform" or self._episode_num < self.warm_start_episodes:
            return mixed(seen.best, seen.mask, self.epsilon, self._explore_rng)
        return directed(seen, self.epsilon, self._explore_rng)

    def _warm_up(self) -> None:
        """Before the first gradient step: start the values near the returns that were seen."""
        if self._n_updates or not self.value_bias:
            return
        bias = (
            0.5 * float(np.mean(self.returns)) * self.reward_scale if self.value_bias == "duration" else self.value_bias
        )
        for network in (self.policy.q, self.policy.q_target):
            network.shift(float(bias))

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Make gradient steps on the replay buffer and update the target network."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses, means = [], []
        for _ in range(gradient_steps):
            steps, places = self.replay.sample(batch_size, self._replay_rng)
            error, values = td_error(self.policy, steps, self.n, self.gamma, self.credit, self.target)
            loss = error.square().mean()
            self.policy.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.policy.q.parameters(), self.max_grad_norm or math.inf)
            self.policy.optimizer.step()
            self._n_updates += 1
            self.replay.update(places, error.mean(dim=1) if error.ndim == 2 else error)
            if self._n_updates % self.target_update_interval == 0:
                polyak_update(self.policy.q.parameters(), self.policy.q_target.parameters(), self.tau)
            losses.append(loss.detach())
            means.append(values.detach().mean())
        self.policy.set_training_mode(False)
        self.logger.record("train/loss", float(torch.stack(losses).mean()))
        self.logger.record("train/q_values", float(torch.stack(means).mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _settled(self) -> bool:
        if self.patience is None or len(self.returns) < 2 * self.patience or self.epsilon > self.exploration_final:
            return False
        recent, before = self.returns[-self.patience :], self.returns[-2 * self.patience : -self.patience]
        return bool(np.mean(recent) <= np.mean(before))

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, tuple[NDArray[Any], ...] | None]:
        """Choose ``self.n`` candidates; ``n`` is the env's batch and may be set to another value.

        Parameters
        ----------
        observation: of ``ActiveLabel-v0``, with or without a batch dimension.
        deterministic: the candidates of the largest values; otherwise each is replaced by a random one with
            probability ``exploration_final``.

        Returns
        -------
        int64 ``(B, N)``, or ``(N,)`` where there was no batch; without the last dimension for N = 1.
        """
        values, candidates, mask, batched = self.policy.encode(observation)
        if self.n > mask.shape[1]:
            raise SettingsError(f"n={self.n} candidates cannot be chosen of {mask.shape[1]}.")
        chosen = self._best(values, candidates, mask)
        if not deterministic:
            chosen = mixed(chosen, mask, self.exploration_final, self._predict_rng)
        actions: IntArray = chosen.cpu().numpy()
        actions = actions[:, 0] if self.n == 1 else actions
        return (actions if batched else actions[0]), state

    optional: ClassVar[tuple[str, ...]] = ("replay",)

    def _contents(self, exclude: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        return saving.header(self), saving.tensors(self, "replay" not in exclude)

    @classmethod
    def _restored(cls, header: dict[str, Any], tensors: dict[str, Any], device: torch.device | str) -> DDQN:
        return saving.restore(cls, header, tensors, device)

    def _change(self, settings: dict[str, Any]) -> None:
        saving.change(self, settings)
