"""What both forms of ``ActiveLabel-v0`` are made of: settings, the parts of the data, and the latent space."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelabel.data import Cohort, load, split_cohort
from activelabel.data.cohort import IntArray
from activelabel.data.derived import ROWS
from activelabel.data.episodes import PARTS, EpisodeSampler
from activelabel.devices import resolve_device
from activelabel.envs.asking import Oracle, draws_of
from activelabel.envs.candidates import FEATURES, PROGRESS, SHORT, STATES, state_size
from activelabel.envs.descent import LARGE
from activelabel.envs.distances import POOLS, Geometry
from activelabel.envs.latent import LatentSpace
from activelabel.envs.learners import Learner, make_learner
from activelabel.envs.metrics import METRICS
from activelabel.envs.oracles import make_oracle
from activelabel.envs.pixels import pixels
from activelabel.envs.shared import make_settings
from activelabel.errors import SettingsError, unknown

OBSERVABLE = ("probabilities", "embeddings", "labelled")
"""What can be observed besides state and candidates."""


@dataclass(frozen=True)
class ActiveLabelSettings:
    """The arguments of ``gym.make("ActiveLabel-v0", ...)``.

    Parameters
    ----------
    budget: labels in an episode, besides the initial ones, or what they may cost.
    batch: labels a step, N; the last step of an episode labels what is left of the budget.
    pool: images in the unlabelled pool; by default the whole pool part, at most 1000.
    initial: labels of each class that an episode starts from.
    candidates: how many unlabelled images are offered at each step, drawn anew; by default the whole pool.
    features: which numbers describe a candidate, of :data:`~activelabel.envs.candidates.FEATURES`.
    state: which numbers describe the classifier, of :data:`~activelabel.envs.candidates.STATES` and ``"progress"``.
    state_images: images of the state set D_s.
    observe: more keys of the observation: ``"probabilities"``, ``"embeddings"``, ``"labelled"``.
    learner: ``"softmax"``, ``"logistic"``, ``"finetune"``, or an object with ``fit``; see
        :mod:`activelabel.envs.learners`. Those of images, such as finetune, take the cohort's images, not its features.
    learner_arguments: of a learner that is given by name.
    oracle: who labels: ``"perfect"``, ``"noisy"``, ``"abstaining"``, ``"annotators"``, ``"human"``, or an object; see
        :mod:`activelabel.envs.oracles`. The initial labels, D_s, D_R and the test set are true with any.
    oracle_arguments: of an oracle that is given by name.
    distance: ``"euclidean"`` or ``"cosine"``.
    space: where distances are taken: ``"latent"``, where the classifier works, or ``"data"``, before ``components``.
        The latent space of a learner of images is that of its present model, anew after every fit, scaled to unit mean
        squared norm over the pool. Data space are the cohort's features, which ``"data"`` needs with any learner.
    metric: accuracy, balanced-accuracy or auroc (macro, one against the rest), on D_R and on the test set.
    reward: ``"change"`` of the metric on D_R (Eq. 2), or ``"target"``: -1 a step until it reaches ``tolerance``
        times what the whole pool part would give (LAL-RL).
    tolerance: see ``reward``.
    classes: the classes to tell apart; by default all. Images with none or several of them are left out.
    components: principal components, fitted on the training part, that make the latent space; None keeps all features,
        as learners of images need it.
    standardize: scale features with the training part's mean and deviation; images are none.
    split: which part of the data the episodes come from: ``"train"``, ``"val"`` or ``"test"``.
    fractions: shares of these three, or ``"published"``.
    shares: shares of pool, state set, reward set and test set within the split.
    split_seed: of fractions and shares.
    episode_seed: of the episodes; episode ``i`` of a split is the same for every env that agrees in this and sizes.
    n_episodes: how many different episodes ``reset`` draws from.
    """

    budget: int = 50
    batch: int = 5
    pool: int | None = None
    initial: int = 1
    candidates: int | None = None
    features: tuple[str, ...] = SHORT
    state: tuple[str, ...] = ("confidence", PROGRESS)
    state_images: int = 30
    observe: tuple[str, ...] = ()
    learner: str | Learner = "softmax"
    learner_arguments: dict[str, Any] = field(default_factory=dict)
    oracle: str | Oracle = "perfect"
    oracle_arguments: dict[str, Any] = field(default_factory=dict)
    distance: str = "euclidean"
    space: str = "latent"
    metric: str = "accuracy"
    reward: str = "change"
    tolerance: float = 0.98
    classes: tuple[str, ...] | None = None
    components: int | None = None
    standardize: bool = True
    split: str = "train"
    fractions: tuple[float, float, float] | str = (0.7, 0.15, 0.15)
    shares: tuple[float, float, float, float] = (0.5, 0.05, 0.3, 0.15)
    split_seed: int = 0
    episode_seed: int = 0
    n_episodes: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("budget", "batch", "initial", "state_images", "n_episodes", "pool", "candidates", "components"):
            value = getattr(self, name)
            optional = name in ("pool", "candidates", "components") and value is None
            if not optional and (not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1):
                raise SettingsError(f"{name}={value!r} must be a whole number of at least 1.")
        if self.batch > self.budget:
            raise SettingsError(f"batch={self.batch} labels a step exceed the budget of {self.budget}.")
        if self.candidates is not None and self.candidates < self.batch:
            raise SettingsError(f"batch={self.batch} images cannot be chosen from candidates={self.candidates}.")
        one = {
            "distance": ("euclidean", "cosine"),
            "space": ("latent", "data"),
            "metric": METRICS,
            "reward": ("change", "target"),
        }
        for name, known in one.items():
            _check_names(name, (getattr(self, name),), known)
        several = {"features": FEATURES, "state": (*STATES, PROGRESS), "observe": OBSERVABLE}
        for name, known in several.items():
            _check_names(name, getattr(self, name), known)
        if not self.features or not self.state:
            raise SettingsError("features and state must each name something.")
        if isinstance(self.classes, str):
            raise SettingsError(f"classes='{self.classes}' is one text; give a list of names.")
        if not isinstance(self.tolerance, (int, float)) or not 0 < self.tolerance <= 1:
            raise SettingsError(f"tolerance={self.tolerance!r} must be a share of the reachable quality, above 0 to 1.")
        for name in ("learner_arguments", "oracle_arguments"):
            if not isinstance(getattr(self, name), dict):
                raise SettingsError(f"{name}={getattr(self, name)!r} must be names and values.")
        if isinstance(self.fractions, str) and self.fractions != "published":
            raise SettingsError(f"fractions='{self.fractions}'; give three shares or 'published'.")
        make_oracle(self.oracle, **self.oracle_arguments)
        learner = make_learner(self.learner, **self.learner_arguments)
        if takes_images(learner) and self.components is not None:
            raise SettingsError(
                f"components={self.components} make a latent space of features; learner {type(learner).__name__} "
                "trains on images and has its own."
            )

    @classmethod
    def make(cls, **settings: Any) -> ActiveLabelSettings:
        """Build from keywords; lists become tuples.

        Raises
        ------
        SettingsError: if a keyword is unknown (with the closest match) or a value out of range.
        """
        return make_settings(cls, "ActiveLabel-v0", settings)


def takes_images(learner: Learner) -> bool:
    """Return whether a learner trains on images instead of features."""
    return bool(getattr(learner, "on_images", False))


def _check_names(setting: str, names: Any, known: Iterable[str]) -> None:
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting}={names!r} must be a list of names, of {', '.join(sorted(known))}.")
    for name in names:
        if name not in known:
            raise SettingsError(unknown(f"entry of {setting}", name, known))


class ActiveLabelEngine:
    """The data of episodes: features in latent space or images, and the four parts. What runs is
    :class:`~activelabel.envs.running.RunningEpisodes`.

    Parameters
    ----------
    cohort: a cohort with what the learner trains on, features or images, or what :func:`activelabel.data.load` takes.
    settings: see :class:`ActiveLabelSettings`.
    device: ``"auto"`` (CUDA if there, else CPU) or a torch device.

    Raises
    ------
    DataError: if a class is missing from a part, a part has too few images, or the cohort lacks features or images.
    SettingsError: if the budget exceeds the pool, or the learner's network cannot be made.
    """

    def __init__(
        self, cohort: Cohort | str, settings: ActiveLabelSettings, device: str | torch.device = "auto"
    ) -> None:
        self.cohort = cohort if isinstance(cohort, Cohort) else load(cohort)
        self.device = resolve_device(device)
        published = isinstance(settings.fractions, str)
        fractions = (0.7, 0.15, 0.15) if isinstance(settings.fractions, str) else settings.fractions
        self.splits = split_cohort(self.cohort, fractions, seed=settings.split_seed, published=published)
        self._space: LatentSpace | None = None
        self._images: dict[tuple[bytes, int | None], Tensor] = {}
        self.learner = make_learner(settings.learner, **settings.learner_arguments)
        self.oracle = make_oracle(settings.oracle, **settings.oracle_arguments)
        self._configure(settings)

    @property
    def space(self) -> LatentSpace:
        """The cohort's features in data space and in latent space; made at first use, images do not need them.

        Raises
        ------
        DataError: if the cohort lacks features.
        SettingsError: if there are fewer features or training images than ``components``.
        """
        if self._space is None:
            s = self.settings
            self._space = LatentSpace(self.cohort, self.splits.train, s.standardize, s.components)
        return self._space

    def _part(self, space: str, rows: IntArray) -> Tensor:
        return torch.from_numpy(self.space.part(rows, space)).to(self.device)

    def _configure(self, settings: ActiveLabelSettings) -> None:
        self.settings = settings
        self.on_images = takes_images(self.learner)
        self._target: float | None = None
        self.sampler = EpisodeSampler(
            self.cohort,
            self.splits.rows(settings.split),
            settings.classes,
            settings.shares,
            settings.pool,
            settings.state_images,
            settings.initial,
            split_seed=settings.split_seed,
            seed=settings.episode_seed,
            name=settings.split,
        )
        self.oracle.check(self.cohort, self.classes)
        self.n_initial = settings.initial * self.n_classes
        self.pool = self.sampler.pool
        if settings.budget + self.n_initial > self.pool:
            raise SettingsError(
                f"budget={settings.budget} and {self.n_initial} initial labels exceed the pool of {self.pool} images."
            )
        self.m = self.pool if settings.candidates is None else min(settings.candidates, self.pool)
        rows = self.sampler.rows
        self.y = {part: torch.from_numpy(self.sampler.labels[part]).to(self.device) for part in PARTS}
        self.geometry: Geometry | None = None
        if self.on_images:
            self.x = self._shown(rows)
            self.latent_size = self._size_of_latent()
            # Of the pool's points, scaled; the root of what none can exceed.
            self.latent_bound = math.sqrt(self.pool) + 1e-3
        else:
            self.x = {part: self._part("latent", rows[part]) for part in PARTS}
            pool = self.x["pool"]
            self.latent_size = pool.shape[1]
            self.latent_bound = max(float(x.abs().max()) for x in torch.split(pool, ROWS))
        if settings.space == "data" or not self.on_images:
            own = self._part("data", rows["pool"]) if settings.space == "data" else self.x["pool"]
            self.geometry = Geometry.of(own, settings.distance)
        self.sparse = self.geometry is not None and self.pool >= LARGE and POOLS * self.m <= self.pool
        """Whether the candidates are so few that their distances are taken anew at each step, not summed for all."""
        self.distance_bound = self._distance_bound()
        self.density = torch.zeros(len(rows["pool"]), device=self.device)
        if self.geometry is not None and "density" in settings.features:
            self.density = self.geometry.density()

    def _shown(self, rows: Mapping[str, IntArray]) -> dict[str, Tensor]:
        """Return the images of each part; those that an engine has read its siblings do not read again."""
        size = getattr(self.learner, "size", None)
        keys = {part: (rows[part].tobytes(), size) for part in PARTS}
        self._images = {
            key: self._images[key] if key in self._images else pixels(self.cohort, rows[part], size).to(self.device)
            for part, key in keys.items()
        }
        return {part: self._images[key] for part, key in keys.items()}

    def _size_of_latent(self) -> int:
        size = getattr(self.learner, "latent_size", None)
        if not isinstance(size, int) or size < 1:
            raise SettingsError(
                f"learner {type(self.learner).__name__} trains on images and must have latent_size, how many latent "
                f"features its models give; it is {size!r}."
            )
        return size

    def _distance_bound(self) -> float:
        """Return what no distance exceeds."""
        if self.settings.distance == "cosine":
            return 2.0
        if self.geometry is None:
            return math.sqrt(2 * self.pool) + 1e-3
        return 2 * float(self.geometry.norms.max().sqrt()) + 1e-3

    @property
    def points(self) -> Tensor:
        """Where the images of the pool part are among each other, float32 ``(n, d)``.

        Raises
        ------
        SettingsError: if that changes with the model, as with learners of images.
        """
        if self.geometry is None:
            raise SettingsError("the latent space of a learner of images is its model's: there are no lasting points.")
        return self.geometry.points

    def sibling(self, **changes: Any) -> ActiveLabelEngine:
        """Return an engine that plays other episodes of the same data, sharing memory and latent space.

        Raises
        ------
        SettingsError: if a change concerns the split or the latent space.
        """
        fixed = {"fractions", "standardize", "components", "split_seed"} & set(changes)
        if fixed:
            raise SettingsError(f"{', '.join(sorted(fixed))}: make a new engine for another split or latent space.")
        other, s = copy.copy(self), self.settings
        settings = ActiveLabelSettings.make(**{**{f.name: getattr(s, f.name) for f in fields(s)}, **changes})
        if (settings.learner, settings.learner_arguments) != (s.learner, s.learner_arguments):
            other.learner = make_learner(settings.learner, **settings.learner_arguments)
        if (settings.oracle, settings.oracle_arguments) != (s.oracle, s.oracle_arguments):
            other.oracle = make_oracle(settings.oracle, **settings.oracle_arguments)
        other._configure(settings)
        return other

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that are told apart."""
        return self.sampler.classes

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.sampler.classes)

    @property
    def n_labels(self) -> int:
        """Most labels that an episode can have: the initial ones and the budget."""
        return self.n_initial + self.settings.budget

    @property
    def n_state(self) -> int:
        """Numbers that describe the classifier."""
        return state_size(self.settings.state, self.settings.state_images, self.n_classes)

    def draws(self, index: IntArray) -> Tensor:
        """Return what the oracle's answers on the pools of episodes are drawn with, float64 ``(b, P, D)``."""
        s = self.settings
        return draws_of(self.oracle, self.pool, s.episode_seed, s.split, index).to(self.device)

    def target(self) -> float:
        """Return the metric on D_R at which an episode of ``reward="target"`` ends.

        It is ``tolerance`` times what a classifier trained on the whole pool part, labelled truly, reaches.
        """
        if self._target is None:
            x, y = self.x["pool"][None], self.y["pool"][None]
            model = self.learner.fit(x, y, torch.ones(y.shape, device=self.device), self.n_classes, None)
            quality = METRICS[self.settings.metric](model.predict_proba(self.x["reward"]), self.y["reward"])
            self._target = self.settings.tolerance * float(quality[0])
        return self._target
