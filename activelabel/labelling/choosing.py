"""Choosing the next images to label, with a reason for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from activelabel import plugins
from activelabel.agents import DDQN, Reinforce, select_images
from activelabel.baselines import POOL_BASELINES, KMedoids, PoolBaseline, make_pool_baseline
from activelabel.baselines.activeml import PREFIX
from activelabel.baselines.pool import ProbabilityBaseline
from activelabel.data.cohort import IntArray
from activelabel.envs.candidates import margin
from activelabel.envs.learners import make_learner
from activelabel.errors import SettingsError
from activelabel.evaluation.run import best_model
from activelabel.labelling.project import ProjectSettings
from activelabel.labelling.seeing import View, latent, observe, observe_as_agent
from activelabel.seeding import stream
from activelabel.settings import ActiveRunSettings, SelectiveRunSettings, read_config

KMEDOIDS = "kmedoids"
STRATEGIES = (KMEDOIDS, *(name for name in POOL_BASELINES if name != "oracle"))
"""The baselines that can choose; those of scikit-activeml come besides. The oracle knows all labels."""

Chosen = list[tuple[int, float | None, str]]
"""For each chosen image, in the order of labelling: its row, the number that it was chosen by, and why."""


class Chooser(ABC):
    """A strategy that chooses images of a folder.

    Parameters
    ----------
    seed: of what is random in it.
    """

    name: str
    needs_labels = False
    """Whether it asks a classifier."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def check(self, backbone: str, dim: int) -> None:
        """Check that it can choose by ``dim`` features of a backbone; called before anything is embedded.

        Raises
        ------
        SettingsError: if it was trained on others.
        """
        return

    def notes(self, pool: int) -> list[str]:
        """Return what the user should know of a choice out of ``pool`` images."""
        return []

    @abstractmethod
    def choose(self, view: View, k: int) -> Chosen:
        """Choose ``k`` of the candidates, the most wanted first."""


def make_chooser(settings: ProjectSettings, batch: int, device: str = "auto") -> Chooser:
    """Return what chooses a project's batch of that number.

    Raises
    ------
    SettingsError: if the strategy is unknown, or the run cannot choose here.
    CheckpointError: if the run has no model or it is damaged.
    """
    seed = int(stream(settings.seed, "labelling", batch).integers(2**31))
    if settings.model is not None:
        return _of_run(Path(settings.model), seed, device)
    if settings.strategy == KMEDOIDS:
        return Medoids(seed)
    name = settings.strategy
    if name not in STRATEGIES and not name.startswith(PREFIX) and not plugins.exists("baseline", name):
        said = plugins.not_known("baseline", name, STRATEGIES, "strategy")
        raise SettingsError(f"{said} One of scikit-activeml: {PREFIX}NAME.")
    return Query(make_pool_baseline(settings.strategy, settings.k, seed), seed)


def _of_run(folder: Path, seed: int, device: str) -> Chooser:
    settings = read_config(folder / "config.yaml")
    model = best_model(folder, settings, device)
    if isinstance(settings, SelectiveRunSettings) and isinstance(model, Reinforce):
        return Selector(model, settings, seed)
    if isinstance(settings, ActiveRunSettings) and isinstance(model, DDQN):
        return Agent(model, settings, seed)
    raise SettingsError(f"{folder}: agent '{settings.agent}' of {settings.env} cannot choose images of a folder.")


def _rank(place: int, m: int) -> str:
    return f"rank {place + 1} of {m} images"


class Medoids(Chooser):
    """K-Medoids, the medoid of the largest cluster first."""

    name = KMEDOIDS

    def choose(self, view: View, k: int) -> Chosen:
        """See :class:`Chooser`."""
        _, space = latent(view.cohort)
        x = space.numpy()[view.candidates]
        medoids = KMedoids(k, self.seed).choose(x, np.zeros((len(x), 3), np.float32), [k])[k]
        sizes = followers(x, medoids)
        return [
            (int(view.candidates[medoids[i]]), float(sizes[i]), _standing("the centre of a cluster", sizes[i]))
            for i in np.argsort(-sizes, kind="stable")
        ]


def followers(x: NDArray[np.float32], chosen: IntArray) -> IntArray:
    """Return how many of the images ``(m, d)`` are nearest to each chosen one, itself included, int64 ``(k,)``."""
    nearest = torch.cdist(torch.from_numpy(x).double(), torch.from_numpy(x[chosen]).double()).argmin(dim=1).numpy()
    nearest[chosen] = np.arange(len(chosen))
    return np.bincount(nearest, minlength=len(chosen)).astype(np.int64)


def _standing(place: str, size: int) -> str:
    return f"{place} of {size} similar images" if size > 1 else "unlike the others: stands for itself alone"


class Query(Chooser):
    """A baseline of ``ActiveLabel-v0``."""

    def __init__(self, baseline: PoolBaseline, seed: int) -> None:
        super().__init__(seed)
        self.baseline, self.name = baseline, baseline.name
        self.needs_labels = "probabilities" in baseline.observes or baseline.name.startswith(PREFIX)

    def choose(self, view: View, k: int) -> Chosen:
        """See :class:`Chooser`."""
        _, space = latent(view.cohort)
        self.baseline.batch = k
        seen = observe(view, space, self.baseline.observes)
        places = np.asarray(self.baseline.predict(seen)[0]).reshape(-1)
        scores, why = self._reasons(view, seen, places)
        rows = view.candidates[places]
        return [(int(row), score, text) for row, score, text in zip(rows, scores, why, strict=True)]

    def _reasons(
        self, view: View, seen: dict[str, NDArray[np.float32]], places: IntArray
    ) -> tuple[Sequence[float | None], list[str]]:
        m = len(view.candidates)
        ranks = [_rank(i, m) for i in range(len(places))]
        if self.name == "random":
            return [None] * len(places), ["drawn at random"] * len(places)
        if self.name == "k-center":
            far = _farthest(seen, places)
            texts = [
                "the first of all, drawn at random"
                if np.isinf(d)
                else f"far from all labelled and chosen images: {d:.3g}"
                for d in far
            ]
            return [None if np.isinf(d) else float(d) for d in far], texts
        if self.name == "typiclust":
            sizes = followers(seen["embeddings"][0], places)
            return sizes.tolist(), [_standing("typical of a group", size) for size in sizes]
        if isinstance(self.baseline, ProbabilityBaseline):
            scores = self.baseline.score(seen)[0][places]
            doubts = torn(view.classes, seen["probabilities"][0][places])
            return scores.tolist(), [
                f"{rank} by {self.name}: {doubt}" for rank, doubt in zip(ranks, doubts, strict=True)
            ]
        texts = [f"{rank} by {self.name}" for rank in ranks]
        if "probabilities" in seen:
            doubts = torn(view.classes, seen["probabilities"][0][places])
            texts = [f"{text}: {doubt}" for text, doubt in zip(texts, doubts, strict=True)]
        return [None] * len(places), texts


def _farthest(seen: dict[str, NDArray[np.float32]], places: IntArray) -> NDArray[np.float64]:
    """Return the distance of each chosen candidate to the labelled ones and those chosen before it."""
    x = torch.from_numpy(seen["embeddings"][0][places]).double()
    known = torch.from_numpy(seen["labelled"][0][seen["labels"][0] >= 0]).double()
    among = torch.cdist(x, x)
    among[torch.ones_like(among, dtype=torch.bool).triu()] = torch.inf
    nearest = torch.cat([among, torch.cdist(x, known)], dim=1).amin(dim=1)
    found: NDArray[np.float64] = nearest.numpy()
    return found


def torn(classes: Sequence[str], probabilities: NDArray[np.float32]) -> list[str]:
    """Say between which two classes the classifier hesitates, in the classes' order, which does not tell the likelier.

    An annotator who is told what a classifier believes is led by it.

    Parameters
    ----------
    classes: names.
    probabilities: ``(n, C)``.
    """
    gaps = margin(torch.from_numpy(probabilities)).numpy()
    pairs = np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :2], axis=1)
    return [
        f"the classifier's probabilities of {classes[a]} and {classes[b]} differ by {gap:.2f}"
        for (a, b), gap in zip(pairs, gaps, strict=True)
    ]


class Selector(Chooser):
    """The trained agent of a run of ``SelectiveLabel-v0``."""

    def __init__(self, model: Reinforce, settings: SelectiveRunSettings, seed: int) -> None:
        super().__init__(seed)
        self.name, self.model, self.settings = settings.agent, model, settings
        if model.policy.inputs == ("clinical",):
            raise SettingsError(
                "this agent chooses by age, sex and view alone, which a folder of images does not tell."
            )

    def check(self, backbone: str, dim: int) -> None:
        """See :class:`Chooser`."""
        expected = self.model.policy.dims["pool"]
        if dim != expected:
            raise SettingsError(
                f"the model was trained on {expected} features an image; backbone '{backbone}' gives {dim}. Name the "
                f"backbone that made the features of {self.settings.data} with --backbone (and --weights), or choose "
                "with a --strategy, which takes any."
            )

    def notes(self, pool: int) -> list[str]:
        """See :class:`Chooser`."""
        found = []
        if pool != self.settings.pool:
            found.append(f"the agent was trained to choose out of {self.settings.pool} images, here out of {pool}.")
        if "clinical" in self.model.policy.inputs:
            found.append("the agent looks at age, sex and view too; here they count as unknown.")
        return found

    def choose(self, view: View, k: int) -> Chosen:
        """See :class:`Chooser`."""
        cohort, m = view.cohort, len(view.candidates)
        chosen = select_images(self.model, cohort.embedded(), k, view.candidates, cohort.clinical_matrix())
        return [
            (int(row), float(score), f"{_rank(i, m)} by the agent {self.name}: score {score:.3g}")
            for i, (row, score) in enumerate(zip(*chosen, strict=True))
        ]


class Agent(Chooser):
    """The trained agent of a run of ``ActiveLabel-v0``, with the classifier that it was trained with."""

    needs_labels = True

    def __init__(self, model: DDQN, settings: ActiveRunSettings, seed: int) -> None:
        super().__init__(seed)
        self.name, self.model, self.settings = settings.agent, model, settings
        if settings.learner == "finetune":
            raise SettingsError(
                "this agent was trained with a network that is fine-tuned on the images; choosing from a folder goes "
                "with the learners softmax and logistic."
            )
        self.learner = make_learner(settings.learner, **settings.learner_arguments)

    def notes(self, pool: int) -> list[str]:
        """See :class:`Chooser`."""
        s = self.settings
        trained = f"{s.batch} images a step out of {s.pool or 'its whole pool'}, and {s.budget} in all"
        return [f"the agent was trained to choose {trained}; here out of {pool}."]

    def choose(self, view: View, k: int) -> Chosen:
        """See :class:`Chooser`."""
        every = np.concatenate([view.candidates, view.labelled])
        images = self.settings.state_images
        states = stream(self.seed, "state images").choice(every, images, replace=len(every) < images)
        own = View(view.cohort, view.candidates, view.labelled, view.labels, view.classes, self.learner)
        observation, predicted = observe_as_agent(own, self.settings, states)
        self.model.n = k
        places = np.asarray(self.model.predict(observation, deterministic=True)[0]).reshape(-1)
        policy = self.model.policy
        state, candidates, _, _ = policy.encode(observation)
        values = policy.values(state, candidates, target=self.model.act_with == "target")[0].cpu().numpy()
        m, doubts = len(view.candidates), torn(view.classes, predicted.numpy()[places])
        return [
            (int(view.candidates[at]), float(values[at]), f"{_rank(i, m)} by the agent {self.name}: {doubts[i]}")
            for i, at in enumerate(places)
        ]
