"""A run of ``ActiveLabel-v0``: its training and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from activelabel.agents import DDQN, LAL_RL_ENV, LalRl, extends_ours, find_agent
from activelabel.baselines import make_pool_baseline
from activelabel.data import Cohort
from activelabel.data.catalog import CATALOG
from activelabel.data.own import is_own
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, ActiveLabelVectorEnv
from activelabel.errors import SettingsError
from activelabel.evaluation.active_report import AREA, ActiveReport, build_active_report
from activelabel.evaluation.audit import Audit, audit
from activelabel.evaluation.board import Views
from activelabel.evaluation.episodes import Curves, area, play_episodes
from activelabel.evaluation.plugged import PluggedAgent, PluggedEpisodeValidation, check_choices
from activelabel.evaluation.protocol import Strategy
from activelabel.evaluation.report import Report, title
from activelabel.evaluation.run import Run, best_model
from activelabel.evaluation.selections import collect_episodes
from activelabel.evaluation.validation import EpisodeValidation
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
    DataError: if the data set cannot be read, or a class or enough images are missing from a part.
    SettingsError: if the budget exceeds a pool, or a strategy of scikit-activeml cannot be made.
    """

    settings: ActiveRunSettings

    def __init__(
        self, folder: Path, settings: ActiveRunSettings, progress: bool = True, cohort: Cohort | None = None
    ) -> None:
        super().__init__(folder, settings, progress, cohort)
        arguments = ActiveLabelSettings.make(**settings.env_arguments())
        self.engine = ActiveLabelEngine(self.cohort, arguments, settings.device)
        # Made now, so that a part with too few images ends the run before any training; and so are the strategies.
        self.val = self._judge("val", settings.val_shares)
        self.test = self._judge("test", settings.test_shares)
        for name in settings.against:
            self._baseline(name, settings.batch)
        self._references: dict[str, float] = {}

    def _judge(self, split: str, shares: tuple[float, float, float, float]) -> ActiveLabelEngine:
        """Return the engine of another split; a pool part that is smaller than the training pools gives what it has."""
        whole = self.engine.sibling(split=split, shares=shares, reward="change", pool=None)
        pool = self.settings.pool
        return whole if pool is None or whole.pool < pool else whole.sibling(pool=pool)

    def describe(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        s = self.settings
        pools = ", ".join(str(engine.pool) for engine in (self.engine, self.val, self.test))
        return (
            f"{s.agent} on {s.env}, {s.data}: {s.budget} labels, {s.batch} a step, {self.engine.n_classes} classes; "
            f"pools of {pools} images in training, validation, test"
        )

    def best(self) -> str:
        """See :class:`~activelabel.evaluation.run.Run`."""
        notes = self.model().notes
        return f"best on validation: round {notes['best_round']}, area under {self.settings.metric} {notes['best']:.3f}"

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train the agent, or go on where the last checkpoint was written."""
        self._train("model", self.settings, self.engine)

    def _train(self, name: str, s: ActiveRunSettings, engine: ActiveLabelEngine) -> None:
        episodes = s.rounds * s.envs

        agent = find_agent(s.agent)

        def watch(best: Path, checkpoint: Path, bar: tqdm) -> EpisodeValidation:
            own = self.settings.val_episodes
            given = (self.val, own, s.steps, s.val_every, self._on_validation(), best, checkpoint, bar)
            return (
                EpisodeValidation(*given) if extends_ours(agent) else PluggedEpisodeValidation(s.envs * s.steps, *given)
            )

        if observes := tuple(getattr(agent, "observes", ())):
            engine = engine.sibling(observe=observes)
        env = ActiveLabelVectorEnv(s.envs, engine=engine)
        self._learn(name, s, env, s.agent_arguments(), episodes * s.steps, watch, (episodes, "episode"))

    def _try(self, agent: PluggedAgent) -> None:
        """See :class:`~activelabel.evaluation.run.Run`."""
        for engine in (self.val, self.test):
            where = f"the pools of {engine.pool} images of the part '{engine.settings.split}'"
            check_choices(agent, where, lambda engine=engine: play_episodes(engine, agent, 2))  # type: ignore[misc]

    def _on_validation(self) -> dict[str, float]:
        """Return the area under the curves of the references on the validation episodes."""
        for name in REFERENCES:
            if name not in self._references:
                strategy = make_pool_baseline(name, self.settings.batch, self.settings.seed)
                found = play_episodes(self.val, strategy, self.settings.val_episodes)
                self._references[name] = float(area(found.labels, found.reward).mean())
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
            data = settings.data if is_own(settings.data, CATALOG) else Path(settings.data).stem
            name = f"{title(settings.agent)} of {data}"
            name = name if name not in found else f"{name} ({folder.name})"
            found[name] = best_model(folder, settings, self.settings.device)
        return found

    def _lal_rl(self) -> DDQN:
        """Return LAL-RL trained on the run's data, budget and pools; all else is its own preset."""
        s = self.settings
        published = preset(LAL_RL, LAL_RL, s.env)
        assert isinstance(published, ActiveRunSettings)
        lal = replace(published, budget=s.budget, initial=s.initial, seed=s.seed, device=s.device)
        own = lal.env_arguments()
        self._train(
            LAL_RL, lal, self.engine.sibling(**{name: own[name] for name in (*LAL_RL_ENV, "learner_arguments")})
        )
        return LalRl.load(self.folder / f"{LAL_RL}.zip", device=s.device)
