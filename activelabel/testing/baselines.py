"""Checks of baselines, the strategies that do not learn."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.baselines import Baseline, PoolBaseline
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, RunningEpisodes
from activelabel.seeding import stream
from activelabel.testing.shared import (
    Check,
    ConformanceError,
    Observation,
    alone,
    check_actions,
    expect,
    expect_different,
    frozen,
    global_generators_untouched,
    pick,
    run_checks,
    tiny_cohort,
)

BASELINE_CHECKS = (
    *("name", "shape", "single and batch", "determinism", "global random numbers", "repeated images", "several K"),
    *("tiny pools", "observation"),
)
"""Names of the checks of a baseline of ``SelectiveLabel-v0``."""

POOL_BASELINE_CHECKS = (
    *("name", "shape", "single and batch", "determinism", "global random numbers", "labelled images"),
    *("tiny pools", "observation"),
)
"""Names of the checks of a baseline of ``ActiveLabel-v0``."""

_B, _N, _K = 3, 17, 4


def check_baseline(maker: Callable[..., Any], skip: Collection[str] = ()) -> None:
    """Check a baseline of either environment.

    Parameters
    ----------
    maker: the class, or a function that is called as the class is: ``(k, seed)`` for a
        :class:`~activelabel.baselines.Baseline`, ``(batch, seed)`` for a :class:`~activelabel.baselines.PoolBaseline`.
    skip: names of :data:`BASELINE_CHECKS` or :data:`POOL_BASELINE_CHECKS` to leave out.

    Raises
    ------
    ConformanceError: listing what failed.
    """
    what = getattr(maker, "__qualname__", repr(maker))
    try:
        made = maker(_K, 0)
    except Exception as error:  # of the code that is checked
        raise ConformanceError(f"{what}({_K}, 0) raised {type(error).__name__}: {error}") from error
    if isinstance(made, Baseline):
        run_checks(what, _Once(maker).checks(), skip)
    elif isinstance(made, PoolBaseline):
        run_checks(what, _Pool(maker).checks(), skip)
    else:
        raise ConformanceError(f"{what} is {type(made).__name__}; a baseline extends Baseline or PoolBaseline.")


def _check_name(made: Any) -> None:
    name = getattr(made, "name", None)
    expect(isinstance(name, str) and name, f"its name is {name!r}; it must be a text.")


class _Once:
    """A baseline of ``SelectiveLabel-v0``."""

    def __init__(self, maker: Callable[..., Any]) -> None:
        self.maker = maker

    def checks(self) -> dict[str, Check]:
        found = (
            *(self.name, self.shape, self.single_and_batch, self.determinism, self.generators, self.repeats),
            *(self.several_k, self.tiny, self.observation),
        )
        return dict(zip(BASELINE_CHECKS, found, strict=True))

    def observe(self, n: int = _N) -> Observation:
        rng = stream(1, "testing", n)
        clinical = np.concatenate([rng.standard_normal((_B, n, 1)), rng.integers(0, 2, (_B, n, 2))], axis=2)
        pool = rng.standard_normal((_B, n, 6))
        return {"pool": pool.astype(np.float32), "clinical": clinical.astype(np.float32)}

    def choose(self, observation: Observation, k: int = _K, seed: int = 0) -> NDArray[np.int64]:
        shape = observation["pool"].shape
        return check_actions(self.maker(k, seed).predict(observation)[0], (*shape[:-2], k), shape[-2])

    def name(self) -> None:
        _check_name(self.maker(_K, 0))

    def shape(self) -> None:
        self.choose(self.observe())
        self.choose(self.observe(), 1)
        changed = self.maker(_K, 0)
        changed.k = 2
        check_actions(changed.predict(self.observe())[0], (_B, 2), _N)

    def single_and_batch(self) -> None:
        observation = self.observe()
        together = self.choose(observation)
        one = self.maker(_K, 0)
        for i in range(_B):
            single = check_actions(one.predict(pick(observation, i))[0], (_K,), _N)
            expect((single == together[i]).all(), "a pool alone is chosen from otherwise than among others.")

    def determinism(self) -> None:
        observation = self.observe()
        same = (self.choose(observation, seed=7) == self.choose(observation, seed=7)).all()
        expect(same, "two with the same seed choose differently.")

    def generators(self) -> None:
        observation = self.observe()
        with global_generators_untouched("it"):
            self.choose(observation)

    def repeats(self) -> None:
        expect_different(self.choose(self.observe()))
        expect_different(self.choose({name: np.zeros_like(array) for name, array in self.observe().items()}))

    def several_k(self) -> None:
        chosen = self.maker(_K, 0).select(self.observe(), [1, _K])
        for k in (1, _K):
            expect_different(check_actions(chosen[k], (_B, k), _N))

    def tiny(self) -> None:
        expect_different(self.choose(self.observe(_K)))
        self.choose(self.observe(1), 1)

    def observation(self) -> None:
        self.choose(frozen(self.observe()))


class _Pool:
    """A baseline of ``ActiveLabel-v0``, in real episodes."""

    def __init__(self, maker: Callable[..., Any]) -> None:
        self.maker = maker
        self.observes = tuple(getattr(maker(1, 0), "observes", ()))

    def checks(self) -> dict[str, Check]:
        found = (
            *(self.name, self.shape, self.single_and_batch, self.determinism, self.generators, self.labelled),
            *(self.tiny, self.observation),
        )
        return dict(zip(POOL_BASELINE_CHECKS, found, strict=True))

    def episodes(self, index: Collection[int] = range(_B), batch: int = 5, **changes: Any) -> RunningEpisodes:
        sizes = {"pool": 40, "budget": 12, "state_images": 6, "learner_arguments": {"epochs": 10}, **changes}
        settings = ActiveLabelSettings.make(**{"batch": batch, "observe": self.observes, **sizes})
        running = RunningEpisodes(ActiveLabelEngine(tiny_cohort(), settings, "cpu"), len(index))
        running.begin(np.arange(len(index)), np.array(list(index)))
        return running

    def made(self, episodes: RunningEpisodes, seed: int = 0) -> Any:
        made = self.maker(episodes.engine.settings.batch, seed)
        self.attach(made, episodes)
        return made

    def attach(self, made: Any, episodes: RunningEpisodes) -> None:
        if hasattr(made, "attach"):
            made.attach(episodes)

    def ask(self, made: Any, episodes: RunningEpisodes, observation: Observation | None = None) -> NDArray[np.int64]:
        batch = episodes.engine.settings.batch
        seen = episodes.observe() if observation is None else observation
        free = seen["action_mask"]
        shape = (*free.shape[:-1], batch) if batch > 1 else free.shape[:-1]
        return check_actions(made.predict(seen)[0], shape, free.shape[-1])

    def name(self) -> None:
        _check_name(self.maker(1, 0))

    def shape(self) -> None:
        for batch in (1, 5):
            episodes = self.episodes(batch=batch)
            self.ask(self.made(episodes), episodes)

    def single_and_batch(self) -> None:
        together = self.episodes()
        chosen = self.ask(self.made(together), together)
        first = self.episodes([0])
        one = self.made(first)
        for i in range(_B):
            episodes = first if i == 0 else self.episodes([i])
            self.attach(one, episodes)
            single = self.ask(one, episodes, pick(episodes.observe(), 0))
            expect((single == chosen[i]).all(), "an episode alone is chosen from otherwise than among others.")
        batched = self.ask(self.made(first), first, alone(first.observe(), 0))
        expect((batched[0] == chosen[0]).all(), "a batch of one is chosen from otherwise than a batch of many.")

    def determinism(self) -> None:
        episodes = self.episodes()
        chosen = [self.ask(self.made(episodes, seed=7), episodes) for _ in range(2)]
        expect((chosen[0] == chosen[1]).all(), "two with the same seed choose differently.")

    def generators(self) -> None:
        episodes = self.episodes()
        with global_generators_untouched("it"):
            self.ask(self.made(episodes), episodes)

    def labelled(self) -> None:
        """Play to the end of a budget that the batch does not divide."""
        episodes = self.episodes()
        made = self.made(episodes)
        while not episodes.over.all():
            free = episodes.observe()["action_mask"].astype(bool)
            chosen = self.ask(made, episodes)
            wasted = ~np.take_along_axis(free, chosen, axis=1)
            expect(not wasted.any(), f"it chose {chosen[wasted][:3].tolist()}, which are labelled already.")
            expect_different(chosen)
            episodes.label(chosen)

    def tiny(self) -> None:
        """Label the whole pool: at the end one image is left, where five are asked for, and then none."""
        episodes = self.episodes(pool=19, budget=16)  # 3 are labelled from the start
        made = self.made(episodes)
        while not episodes.over.all():
            free = episodes.observe()["action_mask"].astype(bool)
            chosen = self.ask(made, episodes)
            for row, left in zip(chosen, free, strict=True):
                found = len(set(row[left[row]].tolist()))
                want = min(int(left.sum()), chosen.shape[1])
                expect(found == want, f"of {int(left.sum())} images that are left it chose {found} where {want} go.")
            episodes.label(chosen)
        self.ask(made, episodes)

    def observation(self) -> None:
        episodes = self.episodes()
        self.ask(self.made(episodes), episodes, frozen(episodes.observe()))
