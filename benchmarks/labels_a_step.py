"""Accuracy and training time for N = 1 to 10 labels a step (Slade & Branson 2022, Table 2).

    python -m benchmarks.labels_a_step --data kather2016_texture_features.npz

For each N an agent is trained for the same number of episodes of 50 labels and judged on the same test episodes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from activelabel.evaluation import create_run, mean_interval
from activelabel.evaluation.active_run import ActiveRun
from activelabel.evaluation.episodes import play_episodes
from activelabel.settings import ActiveRunSettings, preset


def measure(settings: ActiveRunSettings, folder: Path) -> str:
    """Train and judge one agent; returns a row of the table."""
    run = create_run(settings, folder, progress=False)
    assert isinstance(run, ActiveRun)
    start = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - start
    curves = play_episodes(run.test, run.model(), settings.test_episodes)
    accuracy = mean_interval(curves.final)
    under = mean_interval(curves.aulc)
    spread = curves.final.std(ddof=1)
    return (
        f"{settings.batch:>2}  {accuracy.mean:8.4f}  {accuracy.low:.4f}, {accuracy.high:.4f}  {spread:9.4f}  "
        f"{under.mean:.4f}  {seconds:7.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--preset", default="kather")
    parser.add_argument("--data", required=True)
    parser.add_argument("--episodes", type=int, default=960, help="training episodes for each N")
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--batches", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--test-episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = preset(given.preset, "ddqn", "ActiveLabel-v0", given.data)
    assert isinstance(start, ActiveRunSettings)
    # One validation, at the end and of two episodes: the time is the training's.
    few = {"val_every": 10_000, "val_episodes": 2, "test_episodes": given.test_episodes}
    fixed = replace(start, budget=given.budget, episodes=given.episodes, seed=given.seed, **few)
    print(f"{given.episodes} training episodes of {given.budget} labels each, {given.test_episodes} test episodes")
    print(" N  accuracy     95 % interval  deviation    AULC  seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for n in given.batches:
            print(measure(replace(fixed, batch=n), Path(folder)), flush=True)


if __name__ == "__main__":
    main()
