"""How often intervals of no difference miss 0, and how often "better" is said of equals.

::

    python -m benchmarks.coverage                    # about a minute
    python -m benchmarks.coverage --noise 0 0.2 0.8 --seeds 2 3 --tails normal

A study is the difference of two equal strategies on S training seeds and T tasks: an effect of each seed, one of each
task, and noise, each with mean 0. ``share`` is the seeds' share of the variance of a single difference; ``noise`` is
the noise's share of the rest. Four intervals of 95 % are judged on the same studies:

- ``crossed``: :func:`activelabel.evaluation.statistics.hierarchical_difference`, what verdicts rest on;
- ``bootstrap``: :func:`activelabel.evaluation.bootstrap.hierarchical_bootstrap`;
- ``over tasks``: paired t over tasks of the means over seeds, as if the seeds were all that there are;
- ``one seed``: the same with the first seed alone.

A 95 % interval should miss in 5 %, and "better" be said in 2.5 %. Heavy tails are Student's t with 3 degrees of
freedom; skewed effects are exponential, where no interval from 3 or 5 seeds holds what it says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tyro
from scipy import stats

from activelabel.errors import SettingsError, unknown
from activelabel.evaluation.bootstrap import resampled_means
from activelabel.evaluation.statistics import FloatArray, crossed_intervals
from activelabel.seeding import stream

TAILS = ("normal", "heavy", "skewed")

LEVEL = 0.95

_NUMBERS = 4_000_000
"""Numbers that are held at once."""


@dataclass(frozen=True)
class Settings:
    """What is simulated."""

    studies: int = 4000
    """For each row; the share of misses has a standard error of 0.34 % at 5 %."""
    seeds: tuple[int, ...] = (3, 5, 10)
    """Training seeds, S."""
    tasks: tuple[int, ...] = (50, 200)
    """Tasks, T."""
    share: tuple[float, ...] = (0.0, 0.02, 0.3, 0.7)
    """Of the seeds."""
    noise: tuple[float, ...] = (0.3,)
    """Of the noise in the rest."""
    tails: tuple[str, ...] = TAILS
    """Of all effects: normal, heavy, skewed."""
    n_boot: int = 500
    """Resamples of the bootstrap; 0 leaves it out."""
    seed: int = 0
    """Of everything."""


def effects(rng: np.random.Generator, tails: str, shape: tuple[int, ...]) -> FloatArray:
    """Return values of mean 0 and variance 1."""
    if tails == "normal":
        return rng.standard_normal(shape)
    if tails == "heavy":
        return np.asarray(rng.standard_t(3, shape) / np.sqrt(3))
    if tails == "skewed":
        return rng.standard_exponential(shape) - 1
    raise SettingsError(unknown("kind of tails", tails, TAILS))


def null_studies(
    rng: np.random.Generator, n: int, seeds: int, tasks: int, share: float, noise: float, tails: str
) -> FloatArray:
    """Return differences of equal strategies, float64 ``(n, seeds, tasks)``."""
    parts = (share, (1 - share) * (1 - noise), (1 - share) * noise)
    shapes = ((n, seeds, 1), (n, 1, tasks), (n, seeds, tasks))
    total = np.zeros(shapes[-1])
    for part, shape in zip(parts, shapes, strict=True):
        total += np.sqrt(part) * effects(rng, tails, shape)
    return total


@dataclass(frozen=True)
class Found:
    """Shares of studies.

    Parameters
    ----------
    misses: whose interval does not contain 0.
    better: whose interval is above 0.
    """

    misses: float
    better: float


def _over_tasks(by_task: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of t intervals of ``(n, T)``."""
    t = by_task.shape[1]
    mean, error = by_task.mean(1), by_task.std(1, ddof=1) / np.sqrt(t)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, t - 1)) * error
    return mean - half, mean + half


def simulate(
    studies: int, seeds: int, tasks: int, share: float, noise: float, tails: str, n_boot: int = 0, seed: int = 0
) -> dict[str, Found]:
    """Return what each interval does on the same studies under the null hypothesis.

    Parameters
    ----------
    studies: how many.
    seeds, tasks, share, noise, tails: see :func:`null_studies`.
    n_boot: resamples of the bootstrap, which 0 leaves out.
    seed: of everything.

    Raises
    ------
    SettingsError: if the kind of tails is unknown.
    """
    names = [str(x) for x in (seeds, tasks, share, noise)]
    rng = stream(seed, "coverage", tails, *names)
    ends: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    chunk = max(1, _NUMBERS // max(seeds * tasks, n_boot))
    for start in range(0, studies, chunk):
        d = null_studies(rng, min(chunk, studies - start), seeds, tasks, share, noise, tails)
        mean, half = crossed_intervals(d, LEVEL)
        ends.setdefault("crossed", []).append((mean - half, mean + half))
        if n_boot:
            low, high = np.quantile(resampled_means(d, n_boot, seed), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=-1)
            ends.setdefault("bootstrap", []).append((low, high))
        ends.setdefault("over tasks", []).append(_over_tasks(d.mean(1)))
        ends.setdefault("one seed", []).append(_over_tasks(d[:, 0]))
    found = {}
    for name, pairs in ends.items():
        low, high = (np.concatenate(side) for side in zip(*pairs, strict=True))
        better = float((low > 0).mean())
        found[name] = Found(better + float((high < 0).mean()), better)
    return found


def main(settings: Settings) -> None:
    """Print a row for each kind of study."""
    s = settings
    columns = ["crossed", *(["bootstrap"] if s.n_boot else []), "over tasks", "one seed"]
    print(f"{s.studies} studies of equal strategies in each row; % of 95 % intervals that miss 0, and of 'better'")
    head = f"{'effects':>8} {'noise':>6} {'seeds':>6} {'tasks':>6} {'share':>6}"
    print(head + "".join(f"  {name:>12}" for name in columns))
    seen = []
    for tails in s.tails:
        for noise in s.noise:
            for n_seeds in s.seeds:
                for n_tasks in s.tasks:
                    for share in s.share:
                        found = simulate(s.studies, n_seeds, n_tasks, share, noise, tails, s.n_boot, s.seed)
                        seen.append((tails, found["crossed"]))
                        line = f"{tails:>8} {noise:>6.2f} {n_seeds:>6} {n_tasks:>6} {share:>6.2f}"
                        figures = (f"{found[name].misses:7.1%} {found[name].better:6.1%}" for name in columns)
                        print(line + "".join(f"{figure:>14}" for figure in figures), flush=True)
    for tails in s.tails:
        of = [found for name, found in seen if name == tails]
        misses = [found.misses for found in of]
        print(
            f"{tails}: 'crossed' misses in {min(misses):.1%} to {max(misses):.1%}, "
            f"says 'better' in at most {max(found.better for found in of):.1%}"
        )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
