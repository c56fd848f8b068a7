"""Backbones side by side: a linear probe of their features, and SelectiveLabel-v0 trained on them.

::

    python -m activelabel.data pretrain pneumoniamnist_union28.npz --preset pneumoniamnist --out runs/moco
    python -m benchmarks.backbones --data pneumoniamnist_union28.npz --encoder runs/moco

The probe is cross-validated over all images; differences between two backbones are paired by fold. The selector is
trained on the published training part, its model is chosen on the validation part, and it is compared with K-Medoids on
tasks of the test part; the same tasks and settings for every backbone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from activelabel.data import Cohort, load
from activelabel.data.backbones import LITE0, MOCO, make_backbone
from activelabel.data.cache import default_folder
from activelabel.data.embedding import EmbedSettings, embed
from activelabel.data.probe import Probe, difference, linear_probe
from activelabel.evaluation import create_run
from activelabel.evaluation.selective_report import SelectiveReport
from activelabel.settings import SelectiveRunSettings


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    data: Path
    """An npz file with images and a published split."""
    encoder: Path
    """Folder or file of a pretrained encoder; the same network untrained is compared as well."""
    work: Path = Path("runs/backbones")
    """Folder of the embedded cohorts and of the runs."""
    cache: Path | None = None
    """Folder of caches of features; by default the user's."""
    pretrained: bool = True
    """Compare EfficientNet-Lite0 too (extra pretrained)."""
    k: int = 10
    """Images to label."""
    pool: int = 200
    """Images in the pool of a task."""
    val_pool: int = 80
    """The same in validation, whose part is small."""
    updates: int = 150
    """Of the selector."""
    test_tasks: int = 1000
    """Tasks of the comparison."""
    folds: int = 5
    """Of the probe."""
    seed: int = 0
    """Of the selector."""


def embedded(settings: Settings) -> dict[str, Cohort]:
    """Return the cohort with the features of every backbone, by name."""
    images = load(settings.data)
    moco = f"{MOCO}{settings.encoder}"
    backbones = {"untrained": (moco, "random"), "MoCo": (moco, None)}
    if settings.pretrained:
        backbones[LITE0] = (LITE0, None)
    found = {"pixels": images.with_pixels()}
    for name, (backbone, weights) in backbones.items():
        made = make_backbone(backbone, weights=weights)
        how = EmbedSettings(progress=True)
        found[name] = embed(images, made, cache=settings.cache or default_folder(), settings=how)
    return found


def select(name: str, cohort: Cohort, settings: Settings) -> SelectiveReport:
    """Train a selector on the features and compare it with K-Medoids."""
    path = settings.work / f"{name}.npz"
    cohort.save(path)
    run = create_run(
        SelectiveRunSettings(
            data=str(path),
            k=settings.k,
            pool=settings.pool,
            val_pool=settings.val_pool,
            updates=settings.updates,
            test_tasks=settings.test_tasks,
            published_split=True,
            seed=settings.seed,
        ),
        settings.work,
        progress=False,
    )
    run.train()
    report = run.evaluate()
    assert isinstance(report, SelectiveReport)
    return report


def line(name: str, probe: Probe, untrained: Probe, report: SelectiveReport) -> str:
    """Return a line of the table."""
    text = f"{name:<18} {probe.mean:.4f}"
    gap = difference(probe, untrained) if probe is not untrained else None
    text += f"  {'' if gap is None else f'{gap[0]:+.4f} ({gap[1]:+.4f}, {gap[2]:+.4f})':<27}"
    means = {row["strategy"]: row["mean"] for row in report.rows}
    text += "".join(f"  {means[s]:9.3f}" for s in ("random", "kmedoids", "reinforce"))
    ours = next(c for c in report.comparisons if c["a"] == "reinforce")
    return f"{text}  {ours['difference']:+.3f} ({ours['ci'][0]:+.3f}, {ours['ci'][1]:+.3f})"


def main(settings: Settings) -> None:
    """Print the table, a line as soon as it is known."""
    cohorts = embedded(settings)
    probes = {name: linear_probe(cohort, folds=settings.folds) for name, cohort in cohorts.items()}
    one = next(iter(probes.values()))
    print(f"{settings.data.name}: {one.n} images, {torch.get_num_threads()} threads")
    print(
        f"{settings.folds} folds {'by patient' if one.grouped else 'by image'}; K = {settings.k}, pool {settings.pool}"
    )
    print(
        f"{'features':<18} {'probe':>6}  {'minus untrained (95 %)':<27}  {'random':>9}  {'K-Medoids':>9}  "
        f"{'REINFORCE':>9}  REINFORCE minus K-Medoids (95 %)"
    )
    for name, cohort in cohorts.items():
        start = time.perf_counter()
        report = select(name, cohort, settings)
        seconds = time.perf_counter() - start
        print(f"{line(name, probes[name], probes['untrained'], report)}  [{seconds:.0f} s]", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
