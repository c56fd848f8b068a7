"""REINFORCE for selecting K images at once (MedSelect §3.3), as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean

from activelabel.agents import saving
from activelabel.agents.anchored import AnchoredPolicy, GatedAnchoredPolicy
from activelabel.agents.arguments import check_arguments, check_precision
from activelabel.agents.discriminant import DiscriminantPolicy
from activelabel.agents.familiarity import Familiarity
from activelabel.agents.gated import GatedPolicy
from activelabel.agents.mlp import DeepSetsPolicy, MLPPolicy
from activelabel.agents.policies import BiLSTMPolicy, SelectorPolicy
from activelabel.agents.saved import SavedAgent
from activelabel.agents.selection import SelectionRule, WithoutReplacement, WithReplacement
from activelabel.baselines import KMedoids
from activelabel.data import Standardizer
from activelabel.data.cohort import IntArray
from activelabel.envs.sb3 import as_vec_env, score_selections
from activelabel.envs.selections import check_k
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream

SELECTORS: dict[str, type[SelectorPolicy]] = {
    "bilstm": BiLSTMPolicy,
    "gated": GatedPolicy,
    "deep-sets": DeepSetsPolicy,
    "mlp": MLPPolicy,
    "anchored": AnchoredPolicy,
    "gated-anchored": GatedAnchoredPolicy,
    "discriminant": DiscriminantPolicy,
}
"""Every policy of REINFORCE by the name that the command line knows it by."""


class Reinforce(SavedAgent, BaseAlgorithm):  # type: ignore[misc]  # load has arguments of its own
    """Policy gradient on one-step episodes whose action is a set of K images.

    One update: ``batch_size`` tasks, one forward pass each, ``n_samples`` selections of each from that pass; the
        gradient of
    ``mean[(R - b) log P(selection | pool)]``, R the AUROC on the query set and b the baseline.

    ``baseline="leave-one-out"`` (default): b is the mean reward of the other selections of the same task, so it
    depends on the task, not on the selection, and the estimate stays unbiased (Kool et al. 2019).
    ``baseline="random"`` is the paper's: b is the reward of K images chosen at random.

    Parameters
    ----------
    policy: ``"BiLSTMPolicy"`` (the paper's), ``"GatedPolicy"``, ``"DeepSetsPolicy"`` and ``"MLPPolicy"`` (in no order,
        for large pools), ``"AnchoredPolicy"`` and ``"GatedAnchoredPolicy"`` (one image of each cluster),
        ``"DiscriminantPolicy"`` (by one number an image), or a subclass
        of :class:`~activelabel.agents.policies.SelectorPolicy`.
    env: ``SelectiveLabel-v0`` in any form: an id (``batch_size`` copies played as one), a single env, a Gymnasium
        vector env (fastest), or a Stable-Baselines3 ``VecEnv``.
    learning_rate: of Adam; a number or a function of the progress that remains. (Paper: 1e-4.)
    batch_size: tasks an update; a multiple of the number of envs. (Paper: 64.)
    n_samples: selections a task, M. (Paper: 1.)
    baseline: ``"leave-one-out"``, ``"random"`` or ``"none"``.
    replacement: draw with replacement, as the released code does; by default without (§3.1).
    max_grad_norm: gradients are clipped to this norm; None leaves them.
    policy_kwargs: see :class:`~activelabel.agents.policies.BiLSTMPolicy`,
        :class:`~activelabel.agents.gated.GatedPolicy`, :class:`~activelabel.agents.mlp.DeepSetsPolicy`,
        :class:`~activelabel.agents.mlp.MLPPolicy` and
        :class:`~activelabel.agents.anchored.AnchoredPolicy`; ``members``: see :func:`~activelabel.agents.join`.
    stats_window_size, tensorboard_log, verbose, device: as in Stable-Baselines3.
    seed: of weights, selections and env. No global generator is touched. None draws one.
    precision: ``"float32"``, or ``"bfloat16"``: in training the network multiplies in it, which takes less time on a
        processor or GPU that has it. Weights, logits, log-probabilities and rewards are float32, and so is choosing.

    Raises
    ------
    SettingsError: if a value is out of range or does not fit the env.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {cls.__name__: cls for cls in SELECTORS.values()}
    policy: SelectorPolicy

    def __init__(
        self,
        policy: str | type[SelectorPolicy] = "BiLSTMPolicy",
        env: Any = None,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 64,
        n_samples: int = 8,
        baseline: str = "leave-one-out",
        replacement: bool = False,
        max_grad_norm: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        precision: str = "float32",
        _init_setup_model: bool = True,
    ) -> None:
        check_arguments(learning_rate, batch_size, n_samples, baseline, max_grad_norm)
        env = as_vec_env(env, batch_size)
        if env is not None and not isinstance(env.action_space, gym.spaces.MultiDiscrete):
            raise SettingsError(
                f"Reinforce selects sets of images, MultiDiscrete actions; this env has {env.action_space}."
            )
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs,
            stats_window_size,
            tensorboard_log,
            verbose,
            device,
            support_multi_env=True,
            seed=secrets.randbits(31) if seed is None else seed,
        )
        self.batch_size = batch_size
        self.n_samples = n_samples
        self.baseline = baseline
        self.replacement = replacement
        self.max_grad_norm = max_grad_norm
        self.precision = precision
        check_precision(precision, self.device)
        self.rule: SelectionRule = WithReplacement() if replacement else WithoutReplacement()
        self.standardizer: Standardizer | None = None
        self.familiarity: Familiarity | None = None
        """Which pools the policy is to judge; of the others :class:`~activelabel.baselines.KMedoids` chooses. None: it
        judges all. Training is not concerned."""
        self.notes: dict[str, Any] = {}
        """JSON-serialisable notes that callbacks keep with the model, such as the best validation reward."""
        if _init_setup_model:
            self._setup_model()

    # -- setting up ---------------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        if self.env is None:
            raise SettingsError(
                "Reinforce needs an env to learn its sizes from; use Reinforce.load() for a trained model."
            )
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._adopt_env()
        self._build_policy()
        self.policy.prepare(self.env)

    def _build_policy(self) -> None:
        kwargs = {"init_seed": self.seed, **self.policy_kwargs}
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **kwargs)
        assert isinstance(policy, SelectorPolicy)
        if self.replacement and policy.own_rule:
            raise SettingsError(f"{type(policy).__name__} draws without replacement; leave out replacement=True.")
        self.policy = policy.to(self.device)

    def _adopt_env(self) -> None:
        """Take K, the spaces and the standardisation from the env."""
        assert self.env is not None
        if self.batch_size % self.n_envs:
            raise SettingsError(f"batch_size={self.batch_size} is not a multiple of the {self.n_envs} envs.")
        try:
            self.env.get_attr("score_selections")
            standardizer: Standardizer = self.env.get_attr("standardizer")[0]
        except AttributeError:
            raise SettingsError(
                "Reinforce trains on SelectiveLabel-v0, whose selections can be scored; this env has no such method."
            ) from None
        if self.standardizer is not None and not self.standardizer.equals(standardizer):
            raise SettingsError(
                "the env scales its observations otherwise than the one that the model was trained on; "
                "make it with standardizer=model.standardizer."
            )
        self.standardizer = standardizer
        self.k = len(self.action_space.nvec)  # type: ignore[attr-defined]

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the selections and the env; global generators are left alone."""
        if seed is None:
            return
        self.seed = seed
        self._train_rng = torch_stream(seed, "selections")
        self._predict_rng = torch_stream(seed, "predict")
        if self.env is not None:
            self.env.seed(seed)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Train on another env from now on; pool size, K and number of envs may differ, the features an image must not.

        Raises
        ------
        SettingsError: if the env's images have another number of features.
        """
        env = self._wrap_env(as_vec_env(env, self.batch_size), self.verbose)
        for name, dim in self.policy.dims.items():
            found = env.observation_space[name].shape[-1]
            if found != dim:
                raise SettingsError(
                    f"the policy was made for {dim} numbers an image in '{name}', the env gives {found}."
                )
        self.env = env
        self.n_envs = env.num_envs
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._adopt_env()
        if force_reset:
            self._last_obs = None

    # -- learning -----------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "Reinforce",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Reinforce:
        """Train on ``total_timesteps`` tasks, rounded up to whole updates; a step of the env is a task.

        ``callback.on_rollout_end`` is called when an update is complete, so a checkpoint written there continues
        exactly.
        """
        if self.env is None:
            raise SettingsError("this model has no env to train on; give it one with set_env() or load(path, env=...).")
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        going = True
        while going and self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self._update_learning_rate(self.policy.optimizer)
            going = self._update(callback)
            if log_interval and self._n_updates % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _update(self, callback: BaseCallback) -> bool:
        """Make one update; returns whether to go on."""
        callback.on_rollout_start()
        self.policy.set_training_mode(True)
        self.policy.optimizer.zero_grad()
        rounds = self.batch_size // self.n_envs
        statistics = [self._accumulate(rounds) for _ in range(rounds)]
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm or float("inf"))
        self.policy.optimizer.step()
        self._n_updates += 1
        self.policy.set_training_mode(False)
        means = {name: float(np.mean([s[name] for s in statistics])) for name in statistics[0]}
        for name, value in means.items():
            self.logger.record(name, value)
        self.logger.record("train/grad_norm", float(norm))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        callback.update_locals(locals())
        going = callback.on_step()
        callback.on_rollout_end()
        return going

    def _accumulate(self, rounds: int) -> dict[str, float]:
        """Play one task in every env, add its share of the gradient, and return statistics."""
        assert isinstance(self._last_obs, dict)
        assert self.env is not None
        observation, _ = self.policy.tensors(self._last_obs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits, rule = self.policy.scored(observation, [self.k], self.rule)[self.k]
        logits = logits.float()
        selections = rule.sample(logits, self.k, self.n_samples, self._train_rng)
        chosen = selections.cpu().numpy()
        rewards = score_selections(self.env, chosen)
        self._last_obs, _, _, infos = self.env.step(chosen[:, 0])
        self.num_timesteps += self.n_envs
        self._update_info_buffer(infos)
        random = np.array([info["random_reward"] for info in infos])
        advantages = self._advantages(rewards, random)
        log_prob = rule.log_prob(logits, selections)
        weight = torch.as_tensor(advantages, dtype=log_prob.dtype, device=log_prob.device)
        loss = -(weight * log_prob).mean() / rounds
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            entropy = rule.entropy(logits).mean()
        return {
            "rollout/reward": float(rewards.mean()),
            "rollout/random_reward": float(random.mean()),
            "rollout/one_class": float(np.mean([info["one_class"] for info in infos])),
            "train/loss": float(loss.detach()) * rounds,
            "train/advantage_std": float(advantages.std()),
            "train/entropy": float(entropy),
        }

    def _advantages(self, rewards: NDArray[np.float64], random: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``R - b``, float64 ``(B, M)``, from rewards ``(B, M)`` and those of the random selector ``(B,)``."""
        if self.baseline == "random":
            rewards = rewards - random[:, None]
        if self.baseline == "leave-one-out":
            others = (rewards.sum(axis=1, keepdims=True) - rewards) / (self.n_samples - 1)
            rewards = rewards - others
        return rewards

    def dump_logs(self) -> None:
        """Write what was recorded since the last call to the logger's outputs."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", elapsed)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    # -- choosing -----------------------------------------------------------------------------------------------------

    def select(
        self, observation: dict[str, NDArray[Any]], ks: Sequence[int], deterministic: bool = True
    ) -> dict[int, IntArray]:
        """Choose K images for several K, from one forward pass where the policy's logits do not depend on K.

        Parameters
        ----------
        observation: ``pool`` ``(B, N, d)`` and ``clinical`` ``(B, N, 3)``, or without ``B``; any N.
        ks: the numbers of images to choose.
        deterministic: the images of the largest logits that the policy may choose; otherwise a draw from it.

        Returns
        -------
        For each K int64 ``(B, K)``, or ``(K,)`` where there was no batch.

        Raises
        ------
        SettingsError: if a K exceeds the pool, or the observation does not fit.
        """
        tensors, batched = self.policy.tensors(observation)
        for k in ks:
            check_k(k, next(iter(tensors.values())).shape[1])
        with torch.no_grad():
            scored = self.policy.scored(tensors, ks, self.rule)
        chosen = {}
        for k, (logits, rule) in scored.items():
            best = rule.best(logits, k) if deterministic else rule.sample(logits, k, 1, self._predict_rng)[:, 0]
            chosen[k] = best.cpu().numpy()
        if self.familiarity is not None:
            self._leave_to_clustering(observation, batched, chosen)
        return chosen if batched else {k: found[0] for k, found in chosen.items()}

    def _leave_to_clustering(
        self, observation: dict[str, NDArray[Any]], batched: bool, chosen: dict[int, IntArray]
    ) -> None:
        """Replace what was chosen of pools that are not familiar."""
        assert self.familiarity is not None
        if "pool" not in observation:
            raise SettingsError(f"the observation has no 'pool' to be compared, only {', '.join(observation)}.")
        pools = np.asarray(observation["pool"], dtype=np.float32)
        pools = pools if batched else pools[None]
        other = np.flatnonzero(~self.familiarity.familiar(pools))
        if len(other):
            clinical = np.zeros((*pools.shape[:2], 0), np.float32)  # K-Medoids does not look at it
            found = KMedoids().select({"pool": pools[other], "clinical": clinical[other]}, list(chosen))
            for k, images in found.items():
                chosen[k][other] = images

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[IntArray, tuple[NDArray[Any], ...] | None]:
        """Choose ``self.k`` images; see :meth:`select`. ``k`` is the env's and may be set to another value."""
        return self.select(observation, [self.k], deterministic)[self.k], state

    # -- saving -------------------------------------------------------------------------------------------------------

    def _contents(self, exclude: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        return saving.header(self), saving.tensors(self)

    @classmethod
    def _restored(cls, header: dict[str, Any], tensors: dict[str, Any], device: torch.device | str) -> Reinforce:
        return saving.restore(cls, header, tensors, device)

    def _change(self, settings: dict[str, Any]) -> None:
        saving.change(self, settings)
