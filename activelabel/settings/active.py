"""The settings of a run of ``ActiveLabel-v0``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any, ClassVar

from activelabel import plugins
from activelabel.agents import StepSchedule
from activelabel.agents.arguments import DDQN_ARGUMENTS, check_ddqn_arguments
from activelabel.baselines import POOL_BASELINES
from activelabel.baselines.activeml import PREFIX
from activelabel.envs import ActiveLabelSettings
from activelabel.envs.candidates import PROGRESS, SHORT
from activelabel.errors import SettingsError
from activelabel.settings.base import OF_THE_DATA, Options, check_plain
from activelabel.settings.oracle import OracleSettings

POOL_STRATEGIES = (*POOL_BASELINES, "lal-rl")
"""What an agent is compared with: the baselines, and LAL-RL, which is trained for it."""

_LEARNER = {
    "softmax": {"learner_c": "c", "learner_epochs": "epochs", "learner_warm": "warm"},
    "logistic": {"learner_c": "c", "learner_epochs": "max_iter"},
    "finetune": {
        "learner_epochs": "epochs",
        "learner_rate": "learning_rate",
        "network": "network",
        "weights": "weights",
        "image_size": "size",
        "download": "download",
    },
}
"""What each learner calls the settings that are its own."""
_AGENT = (*(name for name in DDQN_ARGUMENTS if name != "value_bias"), "device")
"""Of the command line; where values start is the agent's own affair."""
_OF_AGENTS = tuple(name for name in _AGENT if name not in ("seed", "device"))


def check_pool_strategies(names: Sequence[str]) -> None:
    """Check names of strategies; whether scikit-activeml has one, or one of the user's own is one, is found out where
    it is made.

    Raises
    ------
    SettingsError: if one is unknown (with the closest match).
    """
    for name in names:
        if not (name in POOL_STRATEGIES or name.startswith(PREFIX) or plugins.exists("baseline", name)):
            said = plugins.not_known("baseline", name, POOL_STRATEGIES, "strategy")
            raise SettingsError(f"{said} One of scikit-activeml: {PREFIX}NAME.")


def _equally(n: int, parts: int) -> list[int]:
    """Return n in so many parts; what is left over goes to the first."""
    return [n // parts + (i < n % parts) for i in range(parts)]


@dataclass(frozen=True)
class ActiveRunSettings(OracleSettings):
    """Everything that determines a run of ``ActiveLabel-v0``."""

    agents: ClassVar[tuple[str, ...]] = ("ddqn", "lal-rl", "pretrained")
    of_agents: ClassVar[tuple[str, ...]] = (
        *_OF_AGENTS,
        *("learning_rate", "lr_factor", "lr_start", "hidden", "scale_candidates", "init_scale"),
    )

    env: str = "ActiveLabel-v0"
    """Environment id."""
    agent: str = "ddqn"
    """Ddqn, lal-rl, or pretrained, a ddqn that is not trained here; ``hyperparams/<agent>.yml`` holds its presets. Or
    one of your own: package.module:Class, or the name of an entry point."""
    against: tuple[str, ...] = (
        "random",
        "margin",
        "entropy",
        "uncertainty",
        "average-confidence",
        "k-center",
        "badge",
    )
    """Strategies of the closing evaluation: random, margin, entropy, uncertainty, average-confidence, k-center, badge,
    typiclust, oracle, skactiveml:NAME, lal-rl (trained on first use), or one of your own."""
    train_also: tuple[str, ...] = ()
    """Further data sets that are trained on beside data, and that the best model is chosen on: names or files, as data.
    All settings but labels, normal, patient and classes are theirs too. The test is on data alone."""
    also_share: float | None = None
    """Share of the envs that play the sets of train_also, as many for each; by default all sets have as many."""
    classes: tuple[str, ...] | None = None
    """Classes to tell apart; by default all."""
    components: int | None = None
    """Principal components that make the latent space; by default all features."""
    budget: int = 50
    """Labels in an episode, besides the initial ones."""
    batch: int = 5
    """Labels a step, N."""
    pool: int | None = None
    """Images in the unlabelled pool; by default the whole pool part, at most 1000. In validation and test at most the
    whole part."""
    initial: int = 1
    """Labels of each class that an episode starts from."""
    candidates: int | None = None
    """Unlabelled images that are offered at each step; by default the whole pool."""
    features: tuple[str, ...] = SHORT
    """What describes a candidate: confidence, probability, margin, entropy, labelled, unlabelled, nearest, density,
    balance, cost."""
    state: tuple[str, ...] = ("confidence", PROGRESS)
    """What describes the classifier: confidence, probability, per-class, progress."""
    state_images: int = 30
    """Images of the state set."""
    learner: str = "softmax"
    """The classifier in an episode: softmax or logistic on features, finetune, a network on images, or one of your own:
    package.module:Class, or the name of an entry point."""
    learner_options: Options = field(default_factory=dict, hash=False)
    """What a learner of your own is made with: '{neighbours: 5}'."""
    learner_c: float | None = None
    """Inverse strength of its regularisation; by default its own."""
    learner_epochs: int | None = None
    """Its epochs, or steps at most; by default its own."""
    learner_warm: bool = False
    """Train the softmax classifier on from its last weights instead of from scratch."""
    learner_rate: float | None = None
    """Learning rate of finetune; by default 1e-4."""
    network: str | None = None
    """What finetune trains: a classifier of torchvision or module:function; by default resnet50."""
    weights: str | None = None
    """Where finetune starts: published (the default), random, or a file of a state dict."""
    image_size: int | None = None
    """Side in pixels that finetune scales images to; by default they stay as they are."""
    download: bool = False
    """Let finetune fetch published weights that are not here."""
    distance: str = "euclidean"
    """Euclidean or cosine."""
    space: str = "latent"
    """Where distances are taken: latent or data."""
    metric: str = "accuracy"
    """Accuracy, balanced-accuracy or auroc."""
    reward: str = "change"
    """Change of the metric on the reward set, or target (LAL-RL): -1 a step until a target is reached."""
    tolerance: float = 0.98
    """The target, as a share of what the whole pool part would give."""
    shares: tuple[float, float, float, float] = (0.5, 0.05, 0.3, 0.15)
    """Shares of pool, state set, reward set and test set in the training part."""
    test_shares: tuple[float, float, float, float] = (0.5, 0.05, 0.1, 0.35)
    """The same in the test part, whose test set judges, and in the validation part, where the last two change places:
    there the reward set judges."""
    episodes: int = 3840
    """Training episodes of the whole budget; with the reward target as many steps."""
    envs: int = 64
    """Episodes played at once: a round."""
    learning_rate: float = 1e-4
    """Of Adam."""
    lr_factor: float = 1.0
    """What the learning rate is multiplied by, once."""
    lr_start: float = 0.4
    """Share of the training after which it is."""
    hidden: tuple[int, ...] = (128, 128, 128)
    """Units of the Q-network's layers."""
    scale_candidates: bool = True
    """Scale candidates' features to mean 0 and deviation 1 among those that can be labelled."""
    buffer_size: int = 50_000
    """Steps in the replay buffer."""
    warm_start_episodes: int = 16
    """Random episodes before the first gradient step."""
    batch_size: int = 256
    """Steps in a gradient step."""
    gradient_steps: int = 100
    """After each round."""
    gamma: float = 0.99
    """Discount of a step."""
    credit: str = "mean"
    """The value of a batch: mean or sum of its candidates', or each a transition of its own."""
    target: str = "double"
    """Double, or printed: which network chooses the next batch and which values it (Eq. 4)."""
    init_scale: float = 1.0
    """What the first weights of the candidates' features are multiplied by; with small ones, what the training data
    never told apart has little say on other data."""
    act_with: str = "online"
    """The network that chooses: online, or target, which with a small tau is an average of the online one's past."""
    tau: float = 1.0
    """Share of the online network in the target network at each update of it."""
    target_update_interval: int = 100
    """Gradient steps between updates of the target network."""
    exploration: str = "uniform"
    """What exploration tries: uniform, single random candidates, or directions, batches that are extreme in a random
    direction."""
    exploration_initial: float = 1.0
    """Share of exploration at the start."""
    exploration_final: float = 0.05
    """Share of exploration at the end."""
    exploration_fraction: float = 0.5
    """Share of the training in which it falls from the first to the second."""
    next_candidates: int = 24
    """Random candidates of the next step that the replay buffer keeps with a step; 0 keeps all."""
    reward_scale: float = 1.0
    """What rewards are multiplied by for learning."""
    priority_exponent: float = 0.0
    """Of prioritised replay; 0 draws uniformly."""
    patience: int | None = None
    """Rounds of early stopping: stop when the mean return of so many is not above that of as many before; by default
    never."""
    max_grad_norm: float | None = 10.0
    """Gradients are clipped to this norm."""
    val_every: int = 5
    """Rounds between validations (and checkpoints)."""
    val_episodes: int = 100
    """Episodes of a validation."""
    test_episodes: int = 200
    """Episodes of the closing evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ActiveLabelSettings.make(**self.env_arguments())
        self._at_least_one(("episodes", "envs", "val_every", "val_episodes", "test_episodes"))
        sets = (self.data, *self.train_also)
        if len(set(sets)) < len(sets):
            raise SettingsError(f"train_also={list(self.train_also)} beside data={self.data} has a data set twice.")
        if self.envs < len(sets):
            raise SettingsError(f"envs={self.envs} are fewer than the {len(sets)} data sets that are trained on.")
        if self.also_share is not None:
            self._check_also_share(self.also_share)
        if not self.hidden or min(self.hidden) < 1:
            raise SettingsError(f"hidden={list(self.hidden)} must be sizes of layers, such as 128 128 128.")
        for name in ("shares", "test_shares"):
            shares = getattr(self, name)
            if len(shares) != 4 or not min(shares) > 0 or not abs(sum(shares) - 1) <= 1e-6:
                raise SettingsError(f"{name}={list(shares)} must be four positive numbers that sum to 1.")
        check_pool_strategies(self.against)
        check_plain("learner_options", self.learner_options)
        if not self.plugged:
            check_ddqn_arguments(SimpleNamespace(**self.agent_arguments(), value_bias=0.0))

    @property
    def learner_arguments(self) -> dict[str, Any]:
        """Arguments of the learner."""
        if self.learner in _LEARNER:
            if self.learner_options:
                raise SettingsError(
                    f"learner_options={self.learner_options} are for a learner of your own; '{self.learner}' has "
                    "settings."
                )
            return self._own_arguments("learner", _LEARNER)
        if plugins.exists("learner", self.learner):  # another name is refused where the learner is made
            self._own_arguments("learner", {**_LEARNER, self.learner: {}})  # refuses what is another learner's
        return dict(self.learner_options)

    @property
    def val_shares(self) -> tuple[float, float, float, float]:
        """Shares in the validation part."""
        pool, state, reward, test = self.test_shares
        return pool, state, test, reward

    @property
    def rounds(self) -> int:
        """Rounds of training: in each, every env plays an episode."""
        return -(-self.episodes // self.envs)

    @property
    def steps(self) -> int:
        """Steps of an episode that spends the whole budget."""
        return -(-self.budget // self.batch)

    def further(self) -> list[ActiveRunSettings]:
        """Return the settings for each data set of ``train_also``, as its ``data``."""
        reset: dict[str, Any] = {f.name: f.default for f in fields(self) if f.name in OF_THE_DATA}
        return [replace(self, **reset, data=name, train_also=(), also_share=None) for name in self.train_also]

    def shared_out(self, envs: int) -> list[int]:
        """Return how many of ``envs`` environments play ``data`` and each set of ``train_also``; each has one at least.

        What is left over of an equal division goes to the first.
        """
        also = len(self.train_also)
        if self.also_share is None:
            return _equally(envs, 1 + also)
        others = min(max(round(self.also_share * envs), also), envs - 1)
        return [envs - others, *_equally(others, also)]

    def _check_also_share(self, share: float) -> None:
        if not self.train_also:
            raise SettingsError(f"also_share={share} is of the sets of train_also, and there is none; leave it out.")
        if not 0 < share < 1:
            raise SettingsError(f"also_share={share} must be above 0 and below 1.")

    def env_arguments(self) -> dict[str, Any]:
        """Return the environment's keyword arguments, but for the cohort and the device."""
        return self._env_fields(ActiveLabelSettings)

    def agent_arguments(self) -> dict[str, Any]:
        """Return the agent's keyword arguments."""
        if self.plugged:
            return self._plugged_arguments()
        policy = {"hidden": list(self.hidden), "standardize": self.scale_candidates, "init_scale": self.init_scale}
        return {
            "learning_rate": StepSchedule(self.learning_rate, self.lr_factor, self.lr_start),
            "policy_kwargs": policy,
            **{name: getattr(self, name) for name in _AGENT},
        }
