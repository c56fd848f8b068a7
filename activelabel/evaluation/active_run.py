"""A run of ``ActiveLabel-v0``: its training and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from activelabel.agents import DDQN, LAL_RL_ENV, PRETRAINED, LalRl, extends_ours, find_agent, load_pretrained
from activelabel.baselines import make_pool_baseline
from activelabel.data import Cohort
from activelabel.data.catalog import CATALOG
from activelabel.data.own import is_own
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, ActiveLabelVectorEnv, MixedVectorEnv
from activelabel.envs.shared import BatchedVectorEnv
from activelabel.errors import ActiveLabelError, SettingsError
from activelabel.evaluation.active_report import AREA, ActiveReport, build_active_report
from activelabel.evaluation.audit import Audit, audit
from activelabel.evaluation.board import Views
from activelabel.evaluation.episodes import Curves, areas, play_episodes
from activelabel.evaluation.plugged import PluggedAgent, PluggedEpisodeValidation, check_choices
from activelabel.evaluation.protocol import Strategy
from activelabel.evaluation.report import Report, title
from activelabel.evaluation.run import Run, best_model
from activelabel.evaluation.selections import collect_episodes
from activelabel.evaluation.validation import EpisodeValidation
from activelabel.reading import naming
from activelabel.settings import ActiveRunSettings, preset, read_config
from activelabel.settings.active import check_pool_strategies

LAL_RL = "lal-rl"
"""The strategy that is trained for the comparison."""

REFERENCES = ("random", "margin")
"""Strategies beside which a validation stands."""


class ActiveRun(Run):
    """A run of ``ActiveLabel-v0``; ``lal-rl.zip`` is LAL-RL trained for the comparison once it was asked for.

    Parameters
    ----------
    folder, settings, progress, cohort: see :class:`~activelabel.evaluation.run.Run`.

    Raises
    ------
    DataError: if a data set cannot be read, or a class or enough images are missing from a part.
    SettingsError: if the budget exceeds a pool, a strategy of scikit-activeml cannot be made, or the data sets to train
        on cannot be played together (:class:`~activelabel.envs.MixedVectorEnv`).
    """

    settings: ActiveRunSettings

    def __init__(
        self, folder: Path, settings: ActiveRunSettings, progress: bool = True, cohort: Cohort | None = None
    ) -> None:
        super().__init__(folder, settings, progress, cohort)
        # Made now, so that a part with too few images ends the run before any training; and so are the strategies.
        self.engine, self.val = self._engines(settings, self.cohort)
        self.test = self._judge(self.engine, "test", settings.test_shares)
        trained, judged = [self.engine], [self.val]
        for own in settings.further():
            engine, val = self._further(own)
            trained.append(engine)
            judged.append(val)
        self.trained = trained
        """Of the training part of ``data``, and of each set of ``train_also``."""
        data = (settings.data, *settings.train_also)
        names = [_short(name) for name in data]
        self.vals = dict(zip(names if len(set(names)) == len(names) else data, judged, strict=True))
        """Of their validation parts, by the data set's name."""
        if settings.train_also:
            self._env(settings, trained, len(trained))
        for name in settings.against:
            self._baseline(name, settings.batch)
        self._references: dict[str, float] = {}

    def _engines(self, s: ActiveRunSettings, cohort: Cohort) -> tuple[ActiveLabelEngine, ActiveLabelEngine]:
        """Return what trains and what validates on a data set."""
        engine = ActiveLabelEngine(cohort, ActiveLabelSettings.make(**s.env_arguments()), s.device)
        return engine, self._judge(engine, "val", s.val_shares)

    def _further(self, s: ActiveRunSettings) -> tuple[ActiveLabelEngine, ActiveLabelEngine]:
        """Return them for a set of ``train_also``; an error names it."""
        try:
            cohort = s.cohort()
            if s.components is not None and cohort.features is not None:
                s = replace(s, components=min(s.components, cohort.features.shape[1]))
            return self._engines(s, cohort)
        except ActiveLabelError as error:
            raise type(error)(naming(s.data, error)) from None

    def _judge(
        self, engine: ActiveLabelEngine, split: str, shares: tuple[float, float, float, float]
    ) -> ActiveLabelEngine:
        """Return the engine of another split; a pool part that is smaller than the training pools gives what it has."""
        whole = engine.sibling(split=split, shares=shares, reward="change", pool=None)
        pool = self.settings.pool
        return whole if pool is None or whole.pool < pool else whole.sibling(pool=pool)

    def describe(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        s = self.settings
        pools = ", ".join(str(engine.pool) for engine in (self.engine, self.val, self.test))
        return (
            f"{s.agent} on {s.env}, {s.data}: {s.budget} labels, {s.batch} a step, {self.engine.n_classes} classes; "
            f"pools of {pools} images in training, validation, test"
            + (f"; trained on {', '.join(s.train_also)} too" if s.train_also else "")
        )

    def best(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        notes = self.model().notes
        if self.settings.agent == PRETRAINED:
            return f"not trained here, but by: {notes['command']}"
        return f"best on validation: round {notes['best_round']}, area under {self.settings.metric} {notes['best']:.3f}"

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train the agent, or go on where the last checkpoint was written; one that is pretrained is copied."""
        if self.settings.agent == PRETRAINED:
            load_pretrained("cpu").save(self.folder / "model.zip", exclude=DDQN.optional)
            return
        self._train("model", self.settings, self.trained)

    def _train(self, name: str, s: ActiveRunSettings, engines: Sequence[ActiveLabelEngine]) -> None:
        episodes = s.rounds * s.envs

        agent = find_agent(s.agent)

        def watch(best: Path, checkpoint: Path, bar: tqdm) -> EpisodeValidation:
            own = self.settings.val_episodes
            given = (self.vals, own, s.steps, s.val_every, self._on_validation(), best, checkpoint, bar)
            return (
                EpisodeValidation(*given) if extends_ours(agent) else PluggedEpisodeValidation(s.envs * s.steps, *given)
            )

        env = self._env(s, engines, s.envs)
        self._learn(name, s, env, s.agent_arguments(), episodes * s.steps, watch, (episodes, "episode"))

    def _env(self, s: ActiveRunSettings, engines: Sequence[ActiveLabelEngine], envs: int) -> BatchedVectorEnv:
        """Return ``envs`` copies of the environment that the agent observes, shared out among the engines."""
        if observes := tuple(getattr(find_agent(s.agent), "observes", ())):
            engines = [engine.sibling(observe=observes) for engine in engines]
        shares = self.settings.shared_out(envs) if len(engines) > 1 else [envs]
        parts = [ActiveLabelVectorEnv(n, engine=engine) for n, engine in zip(shares, engines, strict=True)]
        return parts[0] if len(parts) == 1 else MixedVectorEnv(parts)

    def _try(self, agent: PluggedAgent) -> None:
        """See :class:`~activelabel.evaluation.run.Run`."""
        for engine in (*self.vals.values(), self.test):
            where = f"the pools of {engine.pool} images of the part '{engine.settings.split}'"
            check_choices(agent, where, lambda engine=engine: play_episodes(engine, agent, 2))  # type: ignore[misc]

    def _on_validation(self) -> dict[str, float]:
        """Return the area under the curves of the references on the validation episodes."""
        s = self.settings
        for name in REFERENCES:
            if name not in self._references:
                found = {
                    data: play_episodes(val, make_pool_baseline(name, s.batch, s.seed), s.val_episodes)
                    for data, val in self.vals.items()
                }
                self._references |= areas(name, found)
        return self._references

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def model(self) -> DDQN | PluggedAgent:
        """Return the best model.

        Raises
        ------
        CheckpointError: if there is none yet, or the file is damaged.
        """
        model = best_model(self.folder, self.settings, self.settings.device)
        assert isinstance(model, DDQN | PluggedAgent)
        return model

    def evaluate(
        self,
        budget: int | None = None,
        batch: int | None = None,
        against: Sequence[str] | None = None,
        n_episodes: int | None = None,
        also: Sequence[Path] = (),
    ) -> ActiveReport:
        """Compare the agent with other strategies on the test episodes; see :meth:`curves`."""
        results = self.curves(budget, batch, against, n_episodes, also)
        return build_active_report(results, self.settings.agent, batch or self.settings.batch, self.settings.metric)

    def curves(
        self,
        budget: int | None = None,
        batch: int | None = None,
        against: Sequence[str] | None = None,
        n_episodes: int | None = None,
        also: Sequence[Path] = (),
    ) -> dict[str, Curves]:
        """Return what the other strategies and the agent, in this order, reach in each test episode, by name.

        Parameters
        ----------
        budget, batch: labels in an episode and a step; by default the settings'.
        against: names out of :data:`~activelabel.settings.POOL_STRATEGIES`, of scikit-activeml or of your own;
            ``"lal-rl"`` is trained on first use.
        n_episodes: how many.
        also: directories of other runs, whose agents label here as they are.

        Raises
        ------
        SettingsError: if a strategy is unknown, the budget exceeds the pool, or another run is not of this environment.
        CheckpointError: if a model is missing or damaged.
        """
        s = self.settings
        n_episodes = s.test_episodes if n_episodes is None else n_episodes
        if n_episodes < 1:
            raise SettingsError(f"{n_episodes} test episodes; it must be at least 1.")
        batch = s.batch if batch is None else batch
        engine = self.test.sibling(budget=s.budget if budget is None else budget, batch=batch)
        strategies = self._strategies(s.against if against is None else against, batch, also)
        total = n_episodes * len(strategies)
        with tqdm(total=total, unit="episode", desc="testing", disable=not self.progress, dynamic_ncols=True) as bar:
            return {
                name: play_episodes(engine, strategy, n_episodes, advance=bar.update)
                for name, strategy in strategies.items()
            }

    def audits(self, against: Sequence[str] | None = None, n: int = 200) -> dict[str, Audit]:
        """See :class:`~activelabel.evaluation.run.Run`; with the settings' budget and labels a step."""
        s = self.settings
        strategies = self._strategies(s.against if against is None else against, s.batch, ())
        engine = self.test.sibling(budget=s.budget, batch=s.batch)
        return {
            name: audit(engine.cohort, collect_episodes(engine, strategy, n)) for name, strategy in strategies.items()
        }

    def views(self, report: Report) -> Views:
        """See :class:`~activelabel.evaluation.run.Run`; the outcome of another budget or batch than the settings' is
        named by them.
        """
        assert isinstance(report, ActiveReport)
        s, model = self.settings, self.model()
        curves = {
            curve["strategy"]: {f"test/{s.metric}": list(zip(curve["labels"], curve["mean"], strict=True))}
            for curve in report.curves
        }
        outcome = {f"validation_{AREA}": float(model.notes["best"])}
        for row in report.rows:
            if row["strategy"] == s.agent:
                outcome[row["metric"] + self._at(row)] = row["mean"]
        for found in report.comparisons:
            if found["metric"] == AREA:
                outcome[f"minus_{found['b']}{self._at(found)}"] = found["difference"]
        return Views(curves, outcome, collect_episodes(self.test, model, 1))

    def _at(self, entry: dict[str, Any]) -> str:
        budget, batch = entry["budget"], entry["batch"]
        return "" if (budget, batch) == (self.settings.budget, self.settings.batch) else f"_{budget}_by_{batch}"

    def _strategies(self, against: Sequence[str], batch: int, also: Sequence[Path]) -> dict[str, Strategy]:
        check_pool_strategies(against)
        own = self.model()  # first: an error ends the evaluation before anything is trained
        others = self._others(also)
        strategies: dict[str, Strategy] = {}
        for name in dict.fromkeys(against):
            baseline = self._baseline(name, batch)
            if name != self.settings.agent:
                strategies[name] = self._lal_rl() if baseline is None else baseline
        strategies |= others
        strategies[self.settings.agent] = own
        for strategy in strategies.values():
            if isinstance(strategy, DDQN) and "batch" not in strategy.env_settings:
                strategy.n = batch
        return strategies

    def _baseline(self, name: str, batch: int) -> Strategy | None:
        return None if name == LAL_RL else make_pool_baseline(name, batch, self.settings.seed)

    def _others(self, folders: Sequence[Path]) -> dict[str, Strategy]:
        """Return the agents of other runs, each under a name that says what it was trained on."""
        found: dict[str, Strategy] = {}
        for folder in folders:
            settings = read_config(folder / "config.yaml")
            if not isinstance(settings, ActiveRunSettings):
                raise SettingsError(f"{folder}: a run of {settings.env}; its agent cannot play {self.settings.env}.")
            name = f"{title(settings.agent)} of {_short(settings.data)}"
            name = name if name not in found else f"{name} ({folder.name})"
            found[name] = best_model(folder, settings, self.settings.device)
        return found

    def _lal_rl(self) -> DDQN:
        """Return LAL-RL trained on the run's data sets, budget and pools; all else is its own preset."""
        s = self.settings
        published = preset(LAL_RL, LAL_RL, s.env)
        assert isinstance(published, ActiveRunSettings)
        envs = max(published.envs, len(self.trained))
        lal = replace(published, budget=s.budget, initial=s.initial, seed=s.seed, device=s.device, envs=envs)
        own = lal.env_arguments()
        changes = {name: own[name] for name in (*LAL_RL_ENV, "learner_arguments")}
        self._train(LAL_RL, lal, [engine.sibling(**changes) for engine in self.trained])
        return LalRl.load(self.folder / f"{LAL_RL}.zip", device=s.device)


def _short(data: str) -> str:
    """Return what a data set is called in tables and charts: a file's name, any other name as it is."""
    return data if is_own(data, CATALOG) else Path(data).stem
