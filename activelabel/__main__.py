"""``python -m activelabel``: choose images of a folder to label, and go on from the labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from activelabel.cli import run_command
from activelabel.data.backbones import LITE0, MOCO, Backbone, make_backbone
from activelabel.errors import SettingsError
from activelabel.labelling import Project, ProjectSettings, Result, select, update
from activelabel.labelling.project import STATE


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """How the next images are chosen; what is left out is as it was, at first the default."""

    model: Path | None = None
    """Directory of a run, whose trained agent chooses."""
    strategy: str | None = None
    """Instead of a model: kmedoids (the default), typiclust, k-center or random; once there are labels also margin,
    entropy, uncertainty, badge, average-confidence or skactiveml:NAME."""
    k: int | None = None
    """Images a batch (default: 50)."""
    classes: tuple[str, ...] = ()
    """The labels that may be given. Without them any label will do, and there is no labelling interface for Label
    Studio."""
    learner: str | None = None
    """The classifier of the labels: softmax (the default) or logistic."""
    candidates: int | None = None
    """Images that are considered for a batch at most (default: 5000); of more, so many are drawn at random."""
    project: Path | None = None
    """Folder that remembers everything; by default NAME.project beside NAME.csv."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int | None = None
    """Of torch on the CPU; by default its own choice."""
    progress: bool = True
    """Show a progress bar."""

    def applied(self, settings: ProjectSettings, **more: Any) -> ProjectSettings:
        """Return settings with what is given here."""
        if self.model is not None and self.strategy is not None:
            raise SettingsError("give --model or --strategy, not both.")
        model = None if self.model is None else str(self.model.resolve())
        given: dict[str, Any] = {
            "model": model,
            "strategy": self.strategy,
            "k": self.k,
            "classes": self.classes or None,
        }
        given |= {"learner": self.learner, "candidates": self.candidates, **more}
        settings = settings if self.strategy is None else replace(settings, model=None)
        return replace(settings, **{name: value for name, value in given.items() if value is not None})

    def network(self, settings: ProjectSettings, download: bool) -> Backbone:
        """Return the backbone of a project."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return make_backbone(
            settings.backbone, weights=settings.weights, size=settings.size, device=self.device, download=download
        )


@dataclass(frozen=True, kw_only=True)
class Select(_Choice):
    """Choose images of a folder to label; writes a CSV file and the tasks for Label Studio."""

    images: Path
    """The folder."""
    out: Path
    """The CSV file; NAME.tasks.json and NAME.config.xml are written beside it."""
    backbone: str | None = None
    """efficientnet-lite0 (the default), a classifier of torchvision, moco:FOLDER, or module:function of your own. For a
    model of SelectiveLabel-v0 the one that made its features."""
    weights: str | None = None
    """published (the default), random, or a file of a state dict."""
    size: int | None = None
    """Side of the network's input, pixels; by default its own."""
    download: bool = False
    """Fetch published weights that are not in torch's cache."""
    patient: str | None = None
    """A regular expression that finds the patient in an image's path: its first group, or all that it matches."""
    url: str | None = None
    """What stands before an image's path in Label Studio; by default its local file serving."""
    seed: int | None = None
    """Of all that is random (default: 0)."""

    def run(self) -> None:
        """Select."""
        folder = self.project or self.out.with_suffix(".project")
        old = _settings_in(folder)
        named = self.backbone or (LITE0 if old is None else old.backbone)
        if named.startswith(MOCO):
            named = f"{MOCO}{Path(named.removeprefix(MOCO)).resolve()}"
        weights = str(Path(self.weights).resolve()) if self.weights and Path(self.weights).exists() else self.weights
        first = ProjectSettings(str(self.images.resolve()), named, weights, self.size, "")
        if old is not None and self.backbone is None:
            first = replace(first, weights=weights or old.weights, size=self.size or old.size)
        network = self.network(first, self.download)
        start = first if old is None else replace(old, **{n: getattr(first, n) for n in ("images", *_NETWORK)})
        own = {"patient": self.patient, "url": self.url, "seed": self.seed, "identity": network.identity}
        _tell(select(folder, self.out, self.applied(start, **own), network, self.device, self.progress))


@dataclass(frozen=True, kw_only=True)
class Update(_Choice):
    """Read finished labels, say how good the classifier is that they make, and choose the next images."""

    labels: tuple[Path, ...]
    """The CSV file with its column label filled in, all or in part, or Label Studio's export: JSON, JSON-MIN or CSV."""
    out: Path | None = None
    """The CSV file of the next batch; by default NAME-2.csv, NAME-3.csv, ..."""
    next: bool = False
    """Choose the next images though some of the last have no label yet."""

    def run(self) -> None:
        """Update."""
        if not self.labels:
            raise SettingsError("name a file of labels.")
        folder = self.project or _project_of(self.labels[0])
        with closing(Project(folder)) as project:
            old = project.settings
            if old is None:
                raise SettingsError(f"{folder}: nothing was given out yet; give the select command again.")
            network = self.network(old, False)
            if network.identity != old.identity:
                raise SettingsError(
                    f"{folder}: was made with the backbone {old.identity}; it is now {network.identity}."
                )
            found = update(
                project, self.labels, self.applied(old), network, self.out, self.next, self.device, self.progress
            )
        _tell(found)


_NETWORK = ("backbone", "weights", "size")


def _settings_in(folder: Path) -> ProjectSettings | None:
    if not (folder / STATE).exists():
        return None
    with closing(Project(folder)) as project:
        return project.settings


def _project_of(labels: Path) -> Path:
    """Return the project that a file of labels belongs to: the one that gave it out, or the only one beside it."""
    found = sorted(path.parent for path in labels.parent.glob(f"*.project/{STATE}"))
    for folder in found:
        with closing(Project(folder)) as project:
            if any(batch.out == labels.resolve() for batch in project.batches()):
                return folder
    if len(found) != 1:
        many = f"{len(found)} projects" if found else "no project"
        raise SettingsError(f"{labels}: {many} beside it; say which with --project NAME.project.")
    return found[0]


def _tell(result: Result) -> None:
    print("\n".join(result.lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    named: Any = tyro.conf.subcommand
    commands: Any = Annotated[Select, named("select")] | Annotated[Update, named("update")]

    def command() -> None:
        tyro.cli(commands, prog="python -m activelabel", description=__doc__, args=given).run()

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
