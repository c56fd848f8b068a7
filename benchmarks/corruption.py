"""Accuracy after 10 labels where training images are corrupted (Slade & Branson 2022, §4.4.2 and Table 1).

::

    python -m benchmarks.corruption --data kermany_cxr96.npz pneumoniamnist_union28.npz --shares 0 0.1 1

For each data set, share of corrupted images and training seed, a *cell*: DDQN and LAL-RL are trained, and label with
the paper's other strategies on the same test episodes, one label a step. Corrupted are the images that are labelled,
those of the pool parts, in training, validation and test; what describes, rewards and judges (state, reward and test
parts) is clean. Features are those of a frozen backbone. Their scale and principal components are fitted on the
training part as it is, with the corrupted images in it.

Everything is kept in ``--work``: embeddings by content, and what a cell found. A command that was interrupted goes on
where it stopped, and a cell whose settings are the same is not run again. A cell takes about five minutes of one core
(DDQN one, LAL-RL three): two data sets and three shares a quarter of an hour on two, besides the embedding.

The table shows means over test episodes, each the mean over the training seeds, and half the length of their 68 %
interval. Its intervals say nothing of the split of the data, and of another training only where there are seeds.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import activelabel
from activelabel.cli import run_command
from activelabel.data import Cohort, load
from activelabel.data.backbones import Backbone, make_backbone
from activelabel.data.cohort import IntArray
from activelabel.data.corruption import Corruption, corrupt_cohort
from activelabel.data.embedding import EmbedSettings, embed
from activelabel.errors import DataError, DuplicateImagesWarning, SettingsError
from activelabel.evaluation import create_run, mean_interval, open_run, paired_difference, verdict
from activelabel.evaluation.active_run import ActiveRun
from activelabel.files import write_text
from activelabel.settings import ActiveRunSettings, preset

STRATEGIES = {
    "ddqn": "DDQN (ours)",
    "lal-rl": "LAL-RL",
    "uncertainty": "uncertainty sampling",
    "random": "random sampling",
    "margin": "margin sampling",
    "entropy": "entropy sampling",
    "average-confidence": "average confidence",
}
"""The rows of Table 1, in its order."""

PAPER_SHARES = (0.0, 0.1, 1.0)

PAPER = {
    "ddqn": ((0.6202, 0.0981), (0.6348, 0.0638), (0.6534, 0.0226)),
    "lal-rl": ((0.3151, 0.0238), (0.3143, 0.0633), (0.2978, 0.0463)),
    "uncertainty": ((0.4952, 0.0493), (0.4813, 0.0285), (0.4802, 0.0670)),
    "random": ((0.4698, 0.0540), (0.4516, 0.0385), (0.4552, 0.0697)),
    "margin": ((0.5063, 0.0204), (0.5111, 0.0435), (0.4849, 0.0628)),
    "entropy": ((0.4560, 0.0168), (0.5020, 0.0673), (0.5067, 0.0589)),
    "average-confidence": ((0.4579, 0.0539), (0.4655, 0.0630), (0.4611, 0.0731)),
}
"""Table 1: accuracy and its error on the colorectal set, for each of :data:`PAPER_SHARES`."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long it takes."""

    data: tuple[Path, ...]
    """Files of cohorts with images, .npz."""
    shares: tuple[float, ...] = PAPER_SHARES
    """Shares of the pool parts' images that are corrupted."""
    labels: int = 10
    """Labels in an episode, one a step, besides the initial ones."""
    preset: str = "kermany-20"
    """Of the DDQN; the other settings override it."""
    episodes: int = 1440
    """Training episodes of the DDQN."""
    components: int | None = 64
    """Principal components that make the latent space."""
    val_every: int = 3
    """Rounds of the DDQN's training between validations."""
    val_episodes: int = 200
    """Episodes of a validation."""
    test_episodes: int = 400
    """Test episodes, the same for every strategy and share."""
    seeds: tuple[int, ...] = (0,)
    """Of the training; a cell each."""
    split_seed: int = 0
    """Of the division of the images."""
    backbone: str = "efficientnet-lite0"
    """What embeds the images; see python -m activelabel.data embed --help."""
    size: int | None = None
    """Side of the backbone's input, pixels; by default its own."""
    corruption_seed: int = 0
    """Of which images are corrupted, and of what happens to each."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest factor."""
    rotation: float = math.pi / 12
    """Largest angle, radians."""
    noise: float = 0.1
    """Standard deviation of the multiplicative noise."""
    jobs: int = 2
    """Cells that run at once, on one thread each."""
    work: Path = Path("runs/corruption")
    """Folder of embeddings, runs and finished cells."""
    out: Path | None = None
    """Where the figures are written as JSON; by default corruption.json in the work folder."""

    def check(self) -> None:
        """Check the values, where a message can be told in one line.

        Raises
        ------
        SettingsError: if one is missing, named twice, or out of range.
        """
        if not self.data or not self.shares or not self.seeds or self.jobs < 1:
            raise SettingsError(f"data, shares and seeds need an entry each, and jobs={self.jobs} must be at least 1.")
        for name in ("data", "shares", "seeds"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise SettingsError(f"{name}: {', '.join(map(str, getattr(self, name)))}: one is named twice.")
        stems = [path.stem for path in self.data]
        if len(set(stems)) != len(stems):
            raise SettingsError(f"data: two files are called {', '.join(stems)}; the table would not tell them apart.")
        for share in self.shares:
            self.corruption(share)

    def corruption(self, share: float) -> Corruption:
        """Return the corruption of a share of the images."""
        return Corruption(share, self.corruption_seed, self.zoom, self.rotation, self.noise)

    def of_run(self, data: Path, seed: int) -> ActiveRunSettings:
        """Return the settings of a run on a file of features."""
        start = preset(self.preset, "ddqn", "ActiveLabel-v0", str(data.resolve()))
        assert isinstance(start, ActiveRunSettings)
        own = ("episodes", "components", "val_every", "val_episodes", "test_episodes", "split_seed")
        against = tuple(name for name in STRATEGIES if name != "ddqn")
        return replace(
            start,
            budget=self.labels,
            batch=1,
            seed=seed,
            against=against,
            device="cpu",
            **{name: getattr(self, name) for name in own},
        )


@dataclass(frozen=True)
class Cell:
    """An entry of the table: a data set, a share of corrupted images, and a training seed.

    Parameters
    ----------
    data: name of the data set.
    share: of the pool parts' images that are corrupted.
    settings: of the run; ``data`` is the file of its features.
    folder: of the run and the result; another for other settings.
    """

    data: str
    share: float
    settings: ActiveRunSettings
    folder: Path

    @property
    def result(self) -> Path:
        """The file that is there once the cell is done."""
        return self.folder / "cell.json"

    def read(self) -> dict[str, Any]:
        """Return what was found: ``finals``, the accuracy of each test episode by strategy, and ``seconds``, of the
        process that ended it.
        """
        found: dict[str, Any] = json.loads(self.result.read_text("utf-8"))
        return found


def play(cell: Cell) -> Cell:
    """Train and judge, going on where an earlier process stopped; writes the result."""
    if cell.result.exists():
        return cell
    times = [time.perf_counter()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DuplicateImagesWarning)  # said once, where the images are divided
        begun = sorted(path.parent for path in cell.folder.glob("runs/*/config.yaml"))
        run = open_run(begun[0], False) if begun else create_run(cell.settings, cell.folder / "runs", False)
    assert isinstance(run, ActiveRun)
    run.train()
    times.append(time.perf_counter())
    finals = {name: found.final.tolist() for name, found in run.curves().items()}  # this trains LAL-RL
    times.append(time.perf_counter())
    spent = dict(zip(("ddqn", "lal-rl and test"), np.diff(times).round(1).tolist(), strict=True))
    content = {"data": cell.data, "share": cell.share, "settings": asdict(cell.settings)}
    write_text(cell.result, json.dumps({**content, "seconds": spent, "finals": finals}, indent=1) + "\n")
    return cell


def pool_rows(settings: ActiveRunSettings) -> IntArray:
    """Return the rows of the images that are labelled: the pool parts of training, validation and test, sorted."""
    run = ActiveRun(Path("not written"), settings, progress=False)
    return np.sort(np.concatenate([engine.sampler.rows["pool"] for engine in (run.engine, run.val, run.test)]))


def prepare(s: Settings, path: Path, backbone: Backbone) -> dict[float, Path]:
    """Return for each share the file of the features, made where it is not there.

    The clean images are embedded first and the largest share next, so that the cache has the features of every other.
    """
    cohort = load(path)
    if cohort.images is None:
        raise DataError(f"{path}: it holds features but no images; nothing can be corrupted and embedded.")
    clean = s.of_run(Path("features.npz"), 0)
    division = {name: getattr(clean, name) for name in ("fractions", "published_split", "shares", "test_shares")}
    what = (_bytes(path), backbone.identity, repr(s.corruption(0.0)), repr(division), s.split_seed)
    folder = s.work / f"{path.stem}-{digest(*map(str, what))}"
    files = {share: folder / f"features-{share:g}.npz" for share in (0.0, *s.shares)}
    if not files[0.0].exists():
        _write(s, cohort, backbone, files[0.0])
    missing = sorted((share for share in s.shares if not files[share].exists()), reverse=True)
    rows = pool_rows(s.of_run(files[0.0], 0)) if missing else None
    for share in missing:
        _write(s, corrupt_cohort(cohort, s.corruption(share), rows), backbone, files[share])
    return files


def _write(s: Settings, cohort: Cohort, backbone: Backbone, out: Path) -> None:
    told = EmbedSettings(progress=sys.stderr.isatty())
    replace(embed(cohort, backbone, cache=s.work / "embeddings", settings=told), images=None).save(out)


def _bytes(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def digest(*parts: str) -> str:
    """Return 12 hexadecimal digits that stand for texts."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


def make_cells(s: Settings) -> list[Cell]:
    """Return the cells of the table, their features embedded."""
    backbone = make_backbone(s.backbone, size=s.size)
    cells = []
    for path in s.data:
        files = prepare(s, path, backbone)
        for share in s.shares:
            for seed in s.seeds:
                settings = s.of_run(files[share], seed)
                # The file's place does not count, and its name says what is in it.
                same = replace(settings, data=f"{files[share].parent.name}/{files[share].name}")
                key = digest(activelabel.__version__, same.to_yaml())
                cells.append(Cell(path.stem, share, settings, s.work / f"{path.stem}-{share:g}-{seed}-{key}"))
    return cells


def run_cells(cells: Sequence[Cell], jobs: int) -> Iterator[Cell]:
    """Run cells, some at once, and yield each when it is done."""
    if jobs == 1 or len(cells) == 1:
        yield from map(play, cells)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # of the new processes
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(play, cell) for cell in cells]
        try:
            for done in as_completed(running):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def summarise(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a row for each data set, share and strategy.

    Its keys: ``data``, ``share``, ``strategy``; ``mean``, ``deviation`` (over episodes), ``ci68``, ``ci95``, ``n`` of
    the accuracy after the last label; ``seeds``, the mean for each training seed; and, paired by episode with ``mean``,
    ``ci68`` and ``ci95``, ``behind``, what the DDQN is above it, and ``difference`` to share 0 where that was run too,
    with a ``verdict``.
    """
    finals: dict[tuple[str, float], list[dict[str, list[float]]]] = {}
    for cell in cells:
        finals.setdefault((cell.data, cell.share), []).append(cell.read()["finals"])
    rows = []
    for (data, share), of_seeds in finals.items():
        clean = finals.get((data, 0.0))
        for name in STRATEGIES:
            by_seed = np.array([found[name] for found in of_seeds])
            values = by_seed.mean(axis=0)
            row: dict[str, Any] = {"data": data, "share": share, "strategy": name, **_figures(mean_interval, values)}
            row |= {"deviation": float(values.std(ddof=1)) if len(values) > 1 else None, "n": len(values)}
            row["seeds"] = by_seed.mean(axis=1).tolist()
            if name != "ddqn":
                ours = np.mean([found["ddqn"] for found in of_seeds], axis=0)
                row["behind"] = _figures(paired_difference, ours, values)
            if share and clean is not None:
                without = np.mean([found[name] for found in clean], axis=0)
                row["difference"] = _figures(paired_difference, values, without)
                row["difference"]["verdict"] = verdict(paired_difference(values, without))
            rows.append(row)
    return rows


def _figures(interval: Any, *values: Any) -> dict[str, Any]:
    inner, outer = interval(*values, level=0.68), interval(*values)
    return {"mean": outer.mean, "ci68": [inner.low, inner.high], "ci95": [outer.low, outer.high]}


def table(rows: Sequence[dict[str, Any]], data: str) -> str:
    """Return the table of a data set as text, laid out as the paper's Table 1, its figures beside it."""
    mine = {(row["share"], row["strategy"]): row for row in rows if row["data"] == data}
    shares = list(dict.fromkeys(share for share, _ in mine))
    width = max(map(len, STRATEGIES.values()))
    heads = [_share(share) for share in shares]
    paper = [f"paper, {_share(share)}" for share in PAPER_SHARES]
    lines = [f"{'strategy':<{width}}  " + "  ".join(f"{head:>15}" for head in (*heads, *paper))]
    lines.append("-" * len(lines[0]))
    for name, shown in STRATEGIES.items():
        found = [mine[share, name] for share in shares]
        entries = [f"{row['mean']:.4f} ± {(row['ci68'][1] - row['ci68'][0]) / 2:.4f}" for row in found]
        entries += [f"{mean:.4f} ± {error:.4f}" for mean, error in PAPER[name]]
        lines.append(f"{shown:<{width}}  " + "  ".join(f"{entry:>15}" for entry in entries))
    n = next(iter(mine.values()))["n"]
    seeds = len(next(iter(mine.values()))["seeds"])
    lines.append(f"{n} test episodes, {seeds} training seed{'s' * (seeds > 1)}; ± half the 68 % interval of the mean.")
    lines.append("The paper's figures are of the colorectal set (8 classes).")
    titles = {"difference": "less the accuracy without noise", "behind": "DDQN less the strategy"}
    for key, title in titles.items():
        names = [name for name in STRATEGIES if key in mine[shares[-1], name]]
        different = [share for share in shares if names and key in mine[share, names[0]]]
        lines += ["", f"{title}, paired by episode, 95 % interval:"] if different else []
        lines += [f"{'':<{width}}  " + "  ".join(f"{_share(share):>25}" for share in different)] if different else []
        for name in names:
            gaps = [mine[share, name][key] for share in different]
            entries = [f"{gap['mean']:+.4f} ({gap['ci95'][0]:+.4f}, {gap['ci95'][1]:+.4f})" for gap in gaps]
            lines.append(f"{STRATEGIES[name]:<{width}}  " + "  ".join(f"{entry:>25}" for entry in entries))
    if seeds > 1:
        lines += ["", "by training seed:"]
        for name in ("ddqn", "lal-rl"):
            each = "; ".join(
                f"{_share(share)} " + ", ".join(f"{mean:.4f}" for mean in mine[share, name]["seeds"])
                for share in shares
            )
            lines.append(f"{STRATEGIES[name]:<{width}}  {each}")
    return "\n".join(lines)


def _share(share: float) -> str:
    return f"{100 * share:g} %" if share else "no noise"


def measure(s: Settings) -> None:
    """Run what is not done yet, print the tables, and write the figures."""
    s.check()
    cells = make_cells(s)
    waiting = [cell for cell in cells if not cell.result.exists()]
    print(f"{len(cells)} cells, {len(waiting)} to run; {s.work}", flush=True)
    for done, cell in enumerate(run_cells(waiting, s.jobs), 1):
        spent = ", ".join(f"{part} {seconds} s" for part, seconds in cell.read()["seconds"].items())
        what = f"{cell.data}, {_share(cell.share)}, seed {cell.settings.seed}"
        print(f"{done}/{len(waiting)}: {what}: {spent}", flush=True)
    rows = summarise(cells)
    for path in s.data:
        first = cells[0].settings
        print(
            f"\n{path.stem}: accuracy on the test set after {s.labels} labels, {first.initial} of each class before\n"
        )
        print(table(rows, path.stem))
    out = s.out or s.work / "corruption.json"
    plain = json.loads(json.dumps(asdict(s), default=str))
    paper = {name: [list(entry) for entry in entries] for name, entries in PAPER.items()}
    write_text(out, json.dumps({"settings": plain, "paper": paper, "rows": rows}, indent=1) + "\n")
    print(f"\nwritten: {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = None if arguments is None else list(arguments)
    return run_command(lambda: measure(tyro.cli(Settings, args=given, prog="python -m benchmarks.corruption")))


if __name__ == "__main__":
    sys.exit(main())
