"""A run of ``SelectiveLabel-v0``: its training and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from activelabel.agents import Reinforce, extends_ours, join
from activelabel.baselines import BASELINES, make_baseline
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelVectorEnv
from activelabel.envs.selections import check_k
from activelabel.errors import SettingsError
from activelabel.evaluation.audit import Audit, audit
from activelabel.evaluation.board import Views
from activelabel.evaluation.generalise import CLUSTERING, FREE, GUARDED, SELECTORS_TRIED, Choice, Trial, groups
from activelabel.evaluation.leaving_out import JUDGED, LeftOutValidation, learn_familiarity
from activelabel.evaluation.plugged import PluggedAgent, PluggedMetaValidation, check_choices
from activelabel.evaluation.protocol import Strategy, play
from activelabel.evaluation.report import Report
from activelabel.evaluation.run import Run, best_model
from activelabel.evaluation.selections import collect
from activelabel.evaluation.selective_report import SelectiveReport, build_report
from activelabel.evaluation.validation import MetaValidation
from activelabel.plugins import file_name
from activelabel.seeding import stream
from activelabel.settings import SelectiveRunSettings
from activelabel.settings.selective import check_strategies


class SelectiveRun(Run):
    """A run of ``SelectiveLabel-v0``; ``clinical.zip`` is the clinical baseline once it was asked for, ``member-0.zip``
    and on are the trainings of an ensemble.

    A model that is there brings its standardisation; without one it is fitted on the training part.

    Parameters
    ----------
    folder, settings, progress, cohort: see :class:`~activelabel.evaluation.run.Run`.

    Raises
    ------
    DataError: if the data set cannot be read or has too few images for the tasks of any part.
    CheckpointError: if the model is damaged.
    """

    settings: SelectiveRunSettings

    def __init__(
        self, folder: Path, settings: SelectiveRunSettings, progress: bool = True, cohort: Cohort | None = None
    ) -> None:
        super().__init__(folder, settings, progress, cohort)
        best = folder / "model.zip"
        ours = extends_ours(self.agent)
        self.train_env = SelectiveLabelVectorEnv(
            settings.batch_size,
            self.cohort,
            standardizer=self.agent.load(best).standardizer if ours and best.exists() else None,
            device=settings.device,
            # New memory for every observation takes longer than all else that is not the network; agents of others
            # may keep what they have seen.
            copy=not ours,
            **settings.env_arguments(),
        )
        engine = self.train_env.engine
        # Made now, so that a part with too few images ends the run before any training.
        seen = {"conditions": settings.conditions, "held_out": settings.held_out}
        val = {"split": "val", "pool": settings.val_pool or settings.pool}
        self.val = self.val_seen = engine.sibling(**val)
        if settings.left_out:
            self.val = engine.sibling(**val, conditions=settings.left_out, held_out=())
        self.test = {"seen": engine.sibling(split="test", **seen)}
        if settings.held_out:
            self.test["held-out"] = engine.sibling(split="test", conditions=settings.held_out, held_out=())
        for name in settings.against:
            self._baseline(name, settings.k)

    def describe(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        s = self.settings
        classes = f"held out: {', '.join(s.held_out)}" if s.held_out else "no condition held out"
        return f"{s.agent} on {s.env}, {s.data}: K = {s.k} of {s.pool} images, {classes}"

    def best(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        notes = self.model().notes
        members = notes.get("members", [])
        of_all = f"the mean of the logits of {len(members)} trainings"
        if "choice" in notes:
            return Choice.from_notes(notes["choice"]).summary() + (f"; {of_all}" if members else "")
        left_out = self.settings.left_out
        on = f" of {', '.join(left_out)}, left out of training" if left_out else ""
        best = f"best on meta-validation{on}: update"
        if members:
            updates = ", ".join(str(member["best_update"]) for member in members)
            return f"{of_all}, each {best} {updates}; together AUROC {notes['best']:.3f}"
        return f"{best} {notes['best_update']}, AUROC {notes['best']:.3f}"

    def choice(self) -> list[str]:
        """See :class:`~activelabel.evaluation.run.Run`."""
        notes = self.model().notes
        return Choice.from_notes(notes["choice"]).table() if "choice" in notes else []

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train the agent, or go on where the last checkpoint was written.

        To generalise, the runs that leave conditions out are made first, in the folder ``search``.
        """
        if not self.settings.generalise:
            self._train_model(self.settings)
        elif not self._finished():
            choice = self._choose()
            chosen = {**SELECTORS_TRIED[choice.selector], "updates": choice.updates, "val_every": choice.updates}
            if choice.chooses_of == CLUSTERING:
                chosen["members"] = 1  # it is never asked
            self._train_model(replace(self.settings, **chosen), {"choice": choice.notes()})
            if choice.chooses_of != FREE:
                self._guard(choice)

    def _train_model(self, s: SelectiveRunSettings, kept: dict[str, Any] | None = None) -> None:
        """Train the run's own model, or the members of the ensemble that it is."""
        if s.members == 1:
            self._train("model", None, s, kept)
            return
        members = []
        for i in range(s.members):
            name = f"member-{i}"
            # The first is what a single training of this seed is.
            seed = int(stream(s.seed, "member", i).integers(2**31)) if i else s.seed
            self._train(name, None, replace(s, seed=seed))
            members.append(self.agent.load(self.folder / f"{name}.zip", device=s.device))
        model = join(members)
        reached = float(play(self.val, model, [model.k], s.val_tasks)[model.k].reward.mean())
        of_members = [{name: member.notes[name] for name in ("best_update", "best")} for member in members]
        model.notes = {"best": reached, "members": of_members, **(kept or {})}
        model.save(self.folder / "model.zip")

    def _finished(self) -> bool:
        best = self.folder / "model.zip"
        if not best.exists():
            return False
        model = Reinforce.load(best, device="cpu")  # of the only validation, after the last update
        choice = Choice.from_notes(model.notes["choice"])
        return choice.chooses_of == FREE or model.familiarity is not None

    def _guard(self, choice: Choice) -> None:
        """Give the trained model what tells it which pools to leave to K-Medoids."""
        model = Reinforce.load(self.folder / "model.zip", device=self.settings.device)
        familiarity = learn_familiarity(self.train_env.engine, self.val, self.settings.val_tasks)
        model.familiarity = familiarity if choice.chooses_of == GUARDED else familiarity.limited(0)
        model.save(self.folder / "model.zip")

    def _choose(self) -> Choice:
        """Choose a selector and the number of updates; see :mod:`~activelabel.evaluation.generalise`."""
        left_out = groups(self.train_env.engine.sampler.conditions)
        trials = {}
        for name, own in SELECTORS_TRIED.items():
            found = []
            for i, group in enumerate(left_out):
                settings = replace(self.settings, generalise=False, against=(), left_out=group, members=1, **own)
                folder = self.folder / "search" / f"{file_name(name)}-{i}"
                run = SelectiveRun(folder, settings, self.progress, self.cohort)
                run.write_config()
                run.train()
                found.append(run.judged())
            judged = zip(*(own.values() for own in found), strict=True)
            trials[name] = [Trial.of(step, each) for step, each in zip(found[0], judged, strict=True)]
        return Choice.of(left_out, trials)

    def judged(self) -> dict[int, dict[str, Any]]:
        """Return by the number of updates what each validation found, less what K-Medoids reaches: ``seen``, and where
        conditions were left out of the training ``left_out`` and ``guarded`` of each of them."""
        notes = Reinforce.load(self.folder / "checkpoint.zip", device="cpu").notes
        if self.settings.left_out:
            return {step: found for (step, _), found in zip(notes["history"], notes[JUDGED], strict=True)}
        return {step: {"seen": value - self.references["kmedoids"]} for step, value in notes["history"]}

    def _train(
        self,
        name: str,
        inputs: tuple[str, ...] | None,
        s: SelectiveRunSettings,
        kept: dict[str, Any] | None = None,
    ) -> None:
        def watch(best: Path, checkpoint: Path, bar: tqdm) -> MetaValidation:
            given = (s.val_every, self.references, best, checkpoint, bar)
            if not extends_ours(self.agent):
                return PluggedMetaValidation(s.batch_size, self.val, s.val_tasks, *given)
            if s.left_out:
                familiarity = learn_familiarity(self.train_env.engine, self.val_seen, s.val_tasks)
                clustering = self._rewards["kmedoids"]
                return LeftOutValidation(self.val, s.val_tasks, self.val_seen, familiarity, clustering, *given, kept)
            return MetaValidation(self.val, s.val_tasks, *given, kept)

        steps = s.updates * s.batch_size
        self._learn(name, s, self.train_env, s.agent_arguments(inputs), steps, watch, (s.updates, "update"))

    def _try(self, agent: PluggedAgent) -> None:
        """See :class:`~activelabel.evaluation.run.Run`."""
        ks = sorted({agent.k, *self.settings.eval_k})
        for engine in (self.val, *self.test.values()):
            s = engine.settings
            where = f"the pools of {s.pool} images of the part '{s.split}', K = {', '.join(map(str, ks))}"
            asked = ks if s.split == "test" else [agent.k]
            check_choices(agent, where, lambda engine=engine, asked=asked: play(engine, agent, asked, 2))  # type: ignore[misc]

    @cached_property
    def _rewards(self) -> dict[str, NDArray[np.float64]]:
        """What random choice and K-Medoids reach on each validation task."""
        k, n = self.settings.k, self.settings.val_tasks
        return {name: play(self.val, BASELINES[name](k), [k], n)[k].reward for name in ("random", "kmedoids")}

    @property
    def references(self) -> dict[str, float]:
        """Return what random choice and K-Medoids reach on the validation tasks."""
        return {name: float(rewards.mean()) for name, rewards in self._rewards.items()}

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def model(self) -> Reinforce | PluggedAgent:
        """Return the best model.

        Raises
        ------
        CheckpointError: if there is none yet, or the file is damaged.
        """
        model = best_model(self.folder, self.settings, self.settings.device)
        assert isinstance(model, Reinforce | PluggedAgent)
        return model

    def evaluate(
        self, ks: Sequence[int] | None = None, against: Sequence[str] | None = None, n_tasks: int | None = None
    ) -> SelectiveReport:
        """Compare the agent with other strategies on the test tasks.

        Parameters
        ----------
        ks: numbers of images to label; by default the settings'.
        against: names out of :data:`~activelabel.settings.STRATEGIES` or of your own; ``"clinical"`` is trained on
            first use.
        n_tasks: tasks for seen and for held-out conditions each.

        Raises
        ------
        SettingsError: if a strategy is unknown or a K exceeds the pool.
        """
        s = self.settings
        ks = sorted(set(ks or s.eval_k or (s.k,)))
        n_tasks = s.test_tasks if n_tasks is None else n_tasks
        if n_tasks < 1:
            raise SettingsError(f"{n_tasks} test tasks; it must be at least 1.")
        for k in ks:
            check_k(k, s.pool)
        strategies = self._strategies(s.against if against is None else against)
        total = n_tasks * len(strategies) * len(self.test)
        results = {}
        with tqdm(total=total, unit="task", desc="testing", disable=not self.progress, dynamic_ncols=True) as bar:
            for conditions, engine in self.test.items():
                results[conditions] = {
                    name: play(engine, strategy, ks, n_tasks, advance=bar.update)
                    for name, strategy in strategies.items()
                }
        return build_report(results)

    def audits(self, against: Sequence[str] | None = None, n: int = 200) -> dict[str, Audit]:
        """See :class:`~activelabel.evaluation.run.Run`; with the settings' K."""
        return {
            f"{name}, {conditions} conditions": audit(engine.cohort, collect(engine, strategy, self.settings.k, n))
            for name, strategy in self._strategies(self.settings.against if against is None else against).items()
            for conditions, engine in self.test.items()
        }

    def views(self, report: Report) -> Views:
        """See :class:`~activelabel.evaluation.run.Run`; the outcome at another K than the settings' is named by it."""
        s, model = self.settings, self.model()
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        outcome = {"validation_auroc": float(model.notes["best"])}
        for row in report.rows:
            of_strategy = curves.setdefault(row["strategy"], {})
            of_strategy.setdefault(f"test/auroc_{row['conditions']}", []).append((row["k"], row["mean"]))
            if row["strategy"] == s.agent:
                outcome[f"auroc_{row['conditions']}{self._at(row['k'])}"] = row["mean"]
        for found in report.comparisons:
            if found["a"] == s.agent:
                outcome[f"minus_{found['b']}_{found['conditions']}{self._at(found['k'])}"] = found["difference"]
        return Views(curves, outcome, collect(self.test["seen"], model, s.k, 1))

    def _at(self, k: int) -> str:
        return "" if k == self.settings.k else f"_k{k}"

    def _strategies(self, against: Sequence[str]) -> dict[str, Strategy]:
        check_strategies(against, self.settings.plugged)
        model = self.model()
        strategies: dict[str, Strategy] = {}
        for name in dict.fromkeys(against):
            baseline = self._baseline(name, model.k)
            strategies[name] = self._clinical() if baseline is None else baseline
        strategies[self.settings.agent] = model
        return strategies

    def _baseline(self, name: str, k: int) -> Strategy | None:
        return None if name == "clinical" else make_baseline(name, k, self.settings.seed)

    def _clinical(self) -> Reinforce:
        self._train("clinical", ("clinical",), self.settings)
        return Reinforce.load(self.folder / "clinical.zip", device=self.settings.device)
