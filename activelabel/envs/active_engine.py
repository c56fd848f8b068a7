"""What both forms of ``ActiveLabel-v0`` are made of: settings, the parts of the data, and the latent space."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelabel.data import Cohort, Standardizer, load, split_cohort
from activelabel.data.cohort import FloatArray
from activelabel.data.episodes import PARTS, EpisodeSampler
from activelabel.envs.candidates import FEATURES, PROGRESS, SHORT, STATES, state_size
from activelabel.envs.learners import Learner, make_learner
from activelabel.envs.metrics import METRICS
from activelabel.envs.selective_engine import resolve_device
from activelabel.envs.shared import make_settings
from activelabel.errors import SettingsError, unknown

OBSERVABLE = ("probabilities", "embeddings", "labelled")
"""What can be observed besides state and candidates."""

DENSITY_NEIGHBOURS = 10
_REFERENCES = 4096


@dataclass(frozen=True)
class ActiveLabelSettings:
    """The arguments of ``gym.make("ActiveLabel-v0", ...)``.

    Parameters
    ----------
    budget: labels in an episode, besides the initial ones.
    batch: labels a step, N; the last step of an episode labels what is left of the budget.
    pool: images in the unlabelled pool; by default the whole pool part, at most 1000.
    initial: labels of each class that an episode starts from.
    candidates: how many unlabelled images are offered at each step, drawn anew; by default the whole pool.
    features: which numbers describe a candidate, of :data:`~activelabel.envs.candidates.FEATURES`.
    state: which numbers describe the classifier, of :data:`~activelabel.envs.candidates.STATES` and ``"progress"``.
    state_images: images of the state set D_s.
    observe: more keys of the observation: ``"probabilities"``, ``"embeddings"``, ``"labelled"``.
    learner: ``"softmax"``, ``"logistic"``, or an object with ``fit``; see :mod:`activelabel.envs.learners`.
    learner_arguments: of a learner that is given by name.
    distance: ``"euclidean"`` or ``"cosine"``.
    space: where distances are taken: ``"latent"``, where the classifier works, or ``"data"``, before ``components``.
    metric: accuracy, balanced-accuracy or auroc (macro, one against the rest), on D_R and on the test set.
    reward: ``"change"`` of the metric on D_R (Eq. 2), or ``"target"``: -1 a step until it reaches ``tolerance``
        times what the whole pool part would give (LAL-RL).
    tolerance: see ``reward``.
    classes: the classes to tell apart; by default all. Images with none or several of them are left out.
    components: principal components, fitted on the training part, that make the latent space; None keeps all features.
    standardize: scale features with the training part's mean and deviation.
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
        if not isinstance(self.learner_arguments, dict):
            raise SettingsError(f"learner_arguments={self.learner_arguments!r} must be names and values.")
        if isinstance(self.fractions, str) and self.fractions != "published":
            raise SettingsError(f"fractions='{self.fractions}'; give three shares or 'published'.")
        make_learner(self.learner, **self.learner_arguments)

    @classmethod
    def make(cls, **settings: Any) -> ActiveLabelSettings:
        """Build from keywords; lists become tuples.

        Raises
        ------
        SettingsError: if a keyword is unknown (with the closest match) or a value out of range.
        """
        return make_settings(cls, "ActiveLabel-v0", settings)


def _check_names(setting: str, names: Any, known: Iterable[str]) -> None:
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting}={names!r} must be a list of names, of {', '.join(sorted(known))}.")
    for name in names:
        if name not in known:
            raise SettingsError(unknown(f"entry of {setting}", name, known))


class ActiveLabelEngine:
    """The data of episodes: features in latent space, and the four parts. What runs is
    :class:`~activelabel.envs.running.RunningEpisodes`.

    Parameters
    ----------
    cohort: a cohort with features, or what :func:`activelabel.data.load` takes.
    settings: see :class:`ActiveLabelSettings`.
    device: ``"auto"`` (CUDA if there, else CPU) or a torch device.

    Raises
    ------
    DataError: if a class is missing from a part or a part has too few images.
    SettingsError: if the budget exceeds the pool.
    """

    def __init__(
        self, cohort: Cohort | str, settings: ActiveLabelSettings, device: str | torch.device = "auto"
    ) -> None:
        self.cohort = cohort if isinstance(cohort, Cohort) else load(cohort)
        self.device = resolve_device(device)
        published = isinstance(settings.fractions, str)
        fractions = (0.7, 0.15, 0.15) if isinstance(settings.fractions, str) else settings.fractions
        self.splits = split_cohort(self.cohort, fractions, seed=settings.split_seed, published=published)
        raw = self.cohort.embedded()
        scaled = Standardizer.fit(self.cohort, self.splits.train).features(raw) if settings.standardize else raw
        self._data = scaled
        self._latent = self._project(scaled, settings.components)
        self._configure(settings)

    def _project(self, scaled: FloatArray, components: int | None) -> FloatArray:
        """Return the latent features: principal components, scaled to unit mean squared norm on the training part."""
        if components is not None:
            if components > min(scaled.shape[1], len(self.splits.train)):
                raise SettingsError(
                    f"components={components} exceed the {scaled.shape[1]} features or the {len(self.splits.train)} "
                    "training images."
                )
            from sklearn.decomposition import PCA
            from threadpoolctl import threadpool_limits

            with threadpool_limits(1):  # the last digits would depend on the number of cores
                model = PCA(components, svd_solver="covariance_eigh").fit(scaled[self.splits.train])
                scaled = model.transform(scaled).astype(np.float32)
        size = float(np.sqrt((scaled[self.splits.train].astype(np.float64) ** 2).sum(axis=1).mean()))
        return scaled / np.float32(size or 1)

    def _configure(self, settings: ActiveLabelSettings) -> None:
        self.settings = settings
        self.learner = make_learner(settings.learner, **settings.learner_arguments)
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
        self.n_initial = settings.initial * self.n_classes
        self.pool = self.sampler.pool
        if settings.budget + self.n_initial > self.pool:
            raise SettingsError(
                f"budget={settings.budget} and {self.n_initial} initial labels exceed the pool of {self.pool} images."
            )
        self.m = self.pool if settings.candidates is None else min(settings.candidates, self.pool)
        rows = self.sampler.rows
        self.x = {part: torch.from_numpy(self._latent[rows[part]]).to(self.device) for part in PARTS}
        self.y = {part: torch.from_numpy(self.sampler.labels[part]).to(self.device) for part in PARTS}
        space = self._latent if settings.space == "latent" else self._data
        points = torch.from_numpy(space[rows["pool"]]).to(self.device)
        if settings.distance == "cosine":
            points = torch.nn.functional.normalize(points, dim=1)
        self.points = points
        self.norms = (points * points).sum(dim=1)
        self.distance_bound = 2.0 if settings.distance == "cosine" else 2 * float(self.norms.max().sqrt()) + 1e-3
        self.density = self._density() if "density" in settings.features else torch.zeros_like(self.norms)

    def sibling(self, **changes: Any) -> ActiveLabelEngine:
        """Return an engine that plays other episodes of the same data, sharing memory and latent space.

        Raises
        ------
        SettingsError: if a change concerns the split or the latent space.
        """
        fixed = {"fractions", "standardize", "components", "split_seed"} & set(changes)
        if fixed:
            raise SettingsError(f"{', '.join(sorted(fixed))}: make a new engine for another split or latent space.")
        other = copy.copy(self)
        present = {f.name: getattr(self.settings, f.name) for f in fields(self.settings)}
        other._configure(ActiveLabelSettings.make(**{**present, **changes}))
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

    def distances(self, squared_products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return distances from inner products ``(..., n, m)`` and squared norms ``(..., n, 1)``, ``(..., 1, m)``."""
        if self.settings.distance == "cosine":
            return (1 - squared_products).clamp_(0, 2)
        return squared_products.mul_(-2).add_(a).add_(b).clamp_(min=0).sqrt_()

    def _density(self) -> Tensor:
        """Return ``1 / (1 + d)`` for each image of the pool part, d the mean distance to its nearest neighbours.

        Neighbours are looked for among at most 4096 images of the pool part, evenly spaced.
        """
        n = len(self.points)
        reference = torch.arange(0, n, max(1, -(-n // _REFERENCES)), device=self.device)
        k = min(DENSITY_NEIGHBOURS, len(reference) - 1)
        found = []
        for start in range(0, n, 1024):
            part = torch.arange(start, min(start + 1024, n), device=self.device)
            products = self.points[part] @ self.points[reference].T
            d = self.distances(products, self.norms[part][:, None], self.norms[reference][None, :])
            d[part[:, None] == reference[None, :]] = float("inf")
            found.append(d.topk(k, dim=1, largest=False).values.mean(dim=1))
        return 1 / (1 + torch.cat(found))

    def target(self) -> float:
        """Return the metric on D_R at which an episode of ``reward="target"`` ends.

        It is ``tolerance`` times what a classifier trained on the whole pool part reaches.
        """
        x, y = self.x["pool"][None], self.y["pool"][None]
        model = self.learner.fit(x, y, torch.ones_like(x[:, :, 0]), self.n_classes, None)
        quality = METRICS[self.settings.metric](model.predict_proba(self.x["reward"]), self.y["reward"])
        return self.settings.tolerance * float(quality[0])
