"""What both forms of ``SelectiveLabel-v0`` are made of: settings, parts of the data, and the batched game."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel.data import Cohort, Standardizer, TaskBatch, TaskSampler, load, split_cohort
from activelabel.data.cohort import FloatArray, IntArray
from activelabel.data.derived import largest
from activelabel.devices import resolve_device
from activelabel.envs.asking import NO_ANSWER, Oracle, Perfect, Questions, answered, check_together, draws_of, paid
from activelabel.envs.augmentation import AugmentedSampler
from activelabel.envs.discriminant import Discriminant
from activelabel.envs.oracles import make_oracle
from activelabel.envs.predictors import Predictor, make_predictor, support_auroc
from activelabel.envs.selections import check_k, check_selections, first_occurrences, support_of
from activelabel.envs.shared import make_settings
from activelabel.errors import SettingsError, unknown
from activelabel.seeding import stream

DUPLICATES = ("once", "repeat")


@dataclass(frozen=True)
class SelectiveLabelSettings:
    """The arguments of ``gym.make("SelectiveLabel-v0", ...)``.

    Parameters
    ----------
    k: how many images may be labelled.
    pool, query: sizes of the unlabelled pool U and the query set Q. (Paper: 1000 and 100.)
    positive_fraction: share of positives in both.
    split: which part of the data the tasks come from: ``"train"``, ``"val"`` or ``"test"``; no patient is in two of
        them.
    conditions: the conditions to draw tasks of; by default all with 5 % prevalence, less ``held_out``.
    held_out: conditions that tasks are never drawn of.
    predictor: ``"prototype"`` (cosine to the class mean, the paper), ``"mean-cosine"`` (mean of the cosines, the
        released code), or a callable.
    oracle: who labels: ``"perfect"``, ``"noisy"``, ``"abstaining"``, ``"annotators"``, ``"human"``, or an object; see
        :mod:`activelabel.envs.oracles`. The classes are the normal one and the condition; the query set is true with
        any.
    oracle_arguments: of an oracle that is given by name.
    duplicates: ``"once"``: a repeated index is labelled once and the rest of its budget is lost; ``"repeat"``: it
        counts as often as it was drawn.
    uncertain: what a label of -1 counts as: ``"positive"``, ``"negative"`` or ``"ignore"``.
    standardize: scale features with the training part's mean and deviation; without it they are used as they are.
    fractions: shares of the three parts, or ``"published"`` for the data set's own split.
    split_seed: of the split by patient.
    task_seed: of the tasks; task ``i`` of a part is the same for every env that agrees in this and the sizes.
    n_tasks: how many different tasks ``reset`` draws from. (Paper: 10,000 for meta-training.)
    task_augmentation: share of the tasks of the training part whose condition is made up from the others, 0 to 1; see
        :mod:`activelabel.envs.augmentation`.
    """

    k: int = 10
    pool: int = 200
    query: int = 100
    positive_fraction: float = 0.5
    split: str = "train"
    conditions: tuple[str, ...] | None = None
    held_out: tuple[str, ...] = ()
    predictor: str | Predictor = "prototype"
    oracle: str | Oracle = "perfect"
    oracle_arguments: dict[str, Any] = field(default_factory=dict)
    duplicates: str = "once"
    uncertain: str = "positive"
    standardize: bool = True
    fractions: tuple[float, float, float] | str = (0.7, 0.15, 0.15)
    split_seed: int = 0
    task_seed: int = 0
    n_tasks: int = 10_000
    task_augmentation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("k", "pool", "query", "n_tasks"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise SettingsError(f"{name}={value!r} must be a whole number of at least 1.")
        for name in ("conditions", "held_out"):
            if isinstance(getattr(self, name), str):
                raise SettingsError(f"{name}='{getattr(self, name)}' is one text; give a list of names.")
        check_k(self.k, self.pool)
        if self.duplicates not in DUPLICATES:
            raise SettingsError(unknown("treatment of duplicates", self.duplicates, DUPLICATES))
        if isinstance(self.fractions, str) and self.fractions != "published":
            raise SettingsError(f"fractions='{self.fractions}'; give three shares or 'published'.")
        if not (isinstance(self.task_augmentation, (int, float)) and 0 <= self.task_augmentation <= 1):
            raise SettingsError(
                f"task_augmentation={self.task_augmentation!r} is a share of tasks, a number from 0 to 1."
            )
        make_predictor(self.predictor)
        if not isinstance(self.oracle_arguments, dict):
            raise SettingsError(f"oracle_arguments={self.oracle_arguments!r} must be names and values.")
        make_oracle(self.oracle, **self.oracle_arguments)

    @classmethod
    def make(cls, **settings: Any) -> SelectiveLabelSettings:
        """Build from keywords; lists become tuples.

        Raises
        ------
        SettingsError: if a keyword is unknown (with the closest match) or a value out of range.
        """
        return make_settings(cls, "SelectiveLabel-v0", settings)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What ``M`` selections of each of ``B`` tasks are worth.

    Parameters
    ----------
    reward: float64 ``(B, M)``, AUROC on the query set.
    n_labelled: int64 ``(B, M)``, how many different images were labelled.
    positives: int64 ``(B, M)``, how many of them the oracle called positive.
    answers: int64 ``(B, M, K)``, what it said of each index: 1 positive, 0 negative, -1 nothing, or never asked because
        the budget was spent.
    """

    reward: NDArray[np.float64]
    n_labelled: IntArray
    positives: IntArray
    answers: IntArray

    @property
    def one_class(self) -> NDArray[np.bool_]:
        """Whether a class is missing from the labelled images, so that its prototype's term is 0."""
        missing: NDArray[np.bool_] = (self.positives == 0) | (self.positives == self.n_labelled)
        return missing


class SelectiveLabelEngine:
    """Plays ``B`` tasks at once on torch tensors. The vector env is one engine, the single env an engine at B = 1.

    Parameters
    ----------
    cohort: a cohort with features and a normal class, or what :func:`activelabel.data.load` takes.
    settings: see :class:`SelectiveLabelSettings`.
    standardizer: the one that came with a model; by default it is fitted on the training part.
    device: ``"auto"`` (CUDA if there, else CPU) or a torch device.
    """

    def __init__(
        self,
        cohort: Cohort | str,
        settings: SelectiveLabelSettings,
        standardizer: Standardizer | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.cohort = cohort if isinstance(cohort, Cohort) else load(cohort)
        self.settings = settings
        self.device = resolve_device(device)
        raw = self.cohort.embedded()
        if isinstance(settings.fractions, str):
            self.splits = split_cohort(self.cohort, published=True)
        else:
            self.splits = split_cohort(self.cohort, settings.fractions, seed=settings.split_seed)
        self.oracle = make_oracle(settings.oracle, **settings.oracle_arguments)
        self.sampler = self._make_sampler()
        if standardizer is None:
            fit = settings.standardize
            standardizer = (
                Standardizer.fit(self.cohort, self.splits.train) if fit else Standardizer.identity(raw.shape[1])
            )
        self.standardizer = standardizer
        features = standardizer.features(raw, self.cohort.scratch)
        clinical = standardizer.clinical(self.cohort.clinical_matrix())
        # Finite bounds that hold for every row, so that the spaces of the three parts are equal.
        self.feature_bound = largest(features)
        self.clinical_bound = float(max(1.0, np.abs(clinical).max()))
        self.features = torch.from_numpy(features).to(self.device)
        self.clinical = torch.from_numpy(clinical).to(self.device)
        self.predictor = make_predictor(settings.predictor)
        self._augment()

    def _make_sampler(self) -> TaskSampler:
        settings = self.settings
        sampler = TaskSampler(
            self.cohort,
            settings.conditions,
            settings.pool,
            settings.query,
            settings.positive_fraction,
            held_out=settings.held_out,
            rows=self.splits.rows(settings.split),
            uncertain=settings.uncertain,
            seed=settings.task_seed,
            name=settings.split,
        )
        for condition in sampler.conditions:
            self.oracle.check(self.cohort, self._classes(self.cohort.class_index(condition)))
        return sampler

    def _augment(self) -> None:
        """Put the images of made-up conditions behind those of the cohort, where the settings ask for them."""
        n = len(self.cohort)
        self.features, self.clinical = self.features[:n], self.clinical[:n]
        self.origin = np.arange(n)
        if self.settings.task_augmentation and self.settings.split == "train":
            features = self.features.cpu().numpy()
            sampler = AugmentedSampler(self.sampler, features, self.settings.task_augmentation)
            self.sampler = sampler
            self.origin = np.concatenate([self.origin, sampler.origin])
            self.features = torch.cat([self.features, torch.from_numpy(sampler.features).to(self.device)])
            self.clinical = torch.cat([self.clinical, self.clinical[torch.from_numpy(sampler.origin).to(self.device)]])

    def discriminant(self) -> Discriminant:
        """Return how images of the conditions of the tasks differ from normal ones, in the training part."""
        train = self if self.settings.split == "train" else self.sibling(split="train")
        return Discriminant.fit(self.features.cpu().numpy(), train.sampler.images())

    def rows_of(self, images: IntArray) -> IntArray:
        """Return the rows of the cohort of images of tasks; of one that was moved, the row that it was."""
        return self.origin[images]

    def _classes(self, condition: int) -> tuple[str, str]:
        """Return the names of the two classes of a task: negative, positive."""
        cohort = self.cohort
        assert cohort.normal is not None
        return cohort.classes[cohort.normal], cohort.classes[condition]

    def sibling(self, **changes: Any) -> SelectiveLabelEngine:
        """Return an engine that plays other tasks of the same data, with the same standardisation and memory.

        Parameters
        ----------
        **changes: of the settings: sizes, ``split``, ``conditions``, ``held_out``, ``predictor``, ... but not how the
            data are split and scaled.

        Raises
        ------
        SettingsError: if a change concerns the split or the scaling.
        """
        fixed = {"fractions", "split_seed", "standardize"} & set(changes)
        if fixed:
            raise SettingsError(f"{', '.join(sorted(fixed))}: make a new engine for another split or scaling.")
        other = copy.copy(self)
        other.settings = replace(self.settings, **changes)
        other.predictor = make_predictor(other.settings.predictor)
        if {"oracle", "oracle_arguments"} & set(changes):
            other.oracle = make_oracle(other.settings.oracle, **other.settings.oracle_arguments)
        other.sampler = other._make_sampler()
        other._augment()
        return other

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self.features.shape[1])

    def tasks(self, indices: Sequence[int] | IntArray) -> TaskBatch:
        """Return the tasks with the given numbers."""
        return self.sampler.batch(indices)

    def observe(self, tasks: TaskBatch, out: dict[str, FloatArray] | None = None) -> dict[str, FloatArray]:
        """Return ``pool`` float32 ``(B, N, d)`` and ``clinical`` float32 ``(B, N, 3)``.

        Parameters
        ----------
        tasks: ``B`` tasks.
        out: arrays of an earlier observation of as many tasks of the same size, to be written over; by default new
            ones are made.
        """
        rows = torch.from_numpy(tasks.pool).to(self.device)
        tables = {"pool": self.features, "clinical": self.clinical}
        if out is None:
            # NumPy's memory comes in huge pages where the system has them: a new array is filled in half of the time.
            out = {name: np.empty((*rows.shape, table.shape[1]), np.float32) for name, table in tables.items()}
        for name, table in tables.items():
            into = torch.from_numpy(out[name]).reshape(-1, table.shape[1])
            if table.device.type == "cpu":
                torch.index_select(table, 0, rows.ravel(), out=into)
            else:
                into.copy_(table.index_select(0, rows.ravel()))
        return out

    def score(self, tasks: TaskBatch, selections: IntArray) -> Outcome:
        """Return what selections are worth, without ending anything.

        Parameters
        ----------
        tasks: ``B`` tasks.
        selections: int64 ``(B, M, K)``, indices into each task's pool; any K from 1 to N, which is the budget too.

        Raises
        ------
        SettingsError: if the shape is wrong, an index is outside the pool, or the oracle cannot answer.
        """
        check_together(self.oracle, len(tasks))
        selections = check_selections(selections, len(tasks), tasks.pool.shape[1])
        # Small arrays: NumPy handles them in a fraction of the time that torch takes for each step.
        fresh = first_occurrences(selections)
        answers = self._ask(tasks, selections, fresh)
        heard, positive = answers != NO_ANSWER, answers == 1
        labelled = fresh & heard
        counts = labelled if self.settings.duplicates == "once" else heard
        parts = (*support_of(tasks.pool, positive, selections, counts), tasks.query, tasks.query_labels)
        reward = support_auroc(
            self.predictor, self.features, *(torch.from_numpy(part).to(self.device) for part in parts)
        )
        return Outcome(reward.cpu().numpy(), labelled.sum(axis=-1), (labelled & positive).sum(axis=-1), answers)

    def _ask(self, tasks: TaskBatch, selections: IntArray, fresh: NDArray[np.bool_]) -> IntArray:
        """Return what the oracle says of selections ``(B, M, K)``, int64; one index after the other while K pays."""
        s, (batch, m, k) = self.settings, selections.shape
        true = tasks.pool_labels[np.arange(batch)[:, None, None], selections].astype(np.int64)
        if type(self.oracle) is Perfect:  # its answers are known, and asking took a fifth of a single env's step
            return true
        slots, truth = (torch.from_numpy(x.reshape(batch, -1)).to(self.device) for x in (selections, true))
        draws = draws_of(self.oracle, s.pool, s.task_seed, s.split, tasks.index).to(self.device)
        draws = draws.gather(1, slots[:, :, None].expand(-1, -1, self.oracle.draws))
        each = draws.reshape(batch * m, k, self.oracle.draws)
        budget = torch.full((batch * m,), k, device=self.device)
        asks = torch.from_numpy(fresh.reshape(batch * m, k)).to(self.device)
        asked = paid(self.oracle, each, asks, budget)[0].reshape(batch, -1)
        rows = self.rows_of(np.take_along_axis(tasks.pool, selections.reshape(batch, -1), axis=1))
        answers = torch.empty_like(slots)
        for condition in np.unique(tasks.condition):  # the classes of a question have names
            of = np.flatnonzero(tasks.condition == condition)
            at, classes = torch.from_numpy(of).to(self.device), self._classes(int(condition))
            asking = Questions(self.cohort, classes, rows[of], truth[at], asked[at], draws[at])
            answers[at] = answered(self.oracle, asking)
        return answers.reshape(selections.shape).cpu().numpy()

    def play(self, tasks: TaskBatch, actions: IntArray) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
        """Return rewards ``(B,)`` of one action ``(B, K)`` a task, and the arrays of the step's info, ``(B, ...)``."""
        actions = np.asarray(actions)
        if actions.ndim != 2:
            raise SettingsError(f"actions must be ({len(tasks)}, K) indices into the pools, got shape {actions.shape}.")
        selections = actions[:, None]
        if not getattr(self.oracle, "one_at_a_time", False):
            random = self.random_selections(tasks, actions.shape[1])
            selections = np.stack([actions, random], axis=1)
        outcome = self.score(tasks, selections)
        info = {
            **self.task_info(tasks),
            "ids": self.rows_of(np.take_along_axis(tasks.pool, actions, axis=1)),
            "labels": outcome.answers[:, 0].astype(np.int8),
            "n_labelled": outcome.n_labelled[:, 0],
            "positives": outcome.positives[:, 0],
            "one_class": outcome.one_class[:, 0],
            "random_reward": outcome.reward[:, 1] if selections.shape[1] > 1 else np.full(len(tasks), np.nan),
        }
        return outcome.reward[:, 0], info

    def task_info(self, tasks: TaskBatch) -> dict[str, NDArray[Any]]:
        """Return the arrays of the info at reset, each ``(B,)``: the number of the task and its condition."""
        names = np.array(self.cohort.classes, dtype=object)
        return {"task": tasks.index.copy(), "condition": names[tasks.condition]}

    def random_selections(self, tasks: TaskBatch, k: int) -> IntArray:
        """Return the random selector's choice for each task, int64 ``(B, k)``: one draw, the same for the same task."""
        name, seed, n = self.settings.split, self.settings.task_seed, tasks.pool.shape[1]
        draws = [stream(seed, name, int(i), "random", k).choice(n, k, replace=False) for i in tasks.index]
        return np.stack(draws)
