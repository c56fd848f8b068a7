"""``python -m activelabel.data``: list data sets, embed images, pretrain a backbone, judge features."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from activelabel.cli import run_command
from activelabel.data import load
from activelabel.data.backbones import Backbone, make_backbone
from activelabel.data.cache import default_folder
from activelabel.data.catalog import describe, listing
from activelabel.data.cohort import Cohort
from activelabel.data.corruption import Corruption, corrupt_cohort
from activelabel.data.embedding import EmbedSettings, default_workers, embed, embed_file
from activelabel.data.pretrain import Pretrain, command_default
from activelabel.data.probe import linear_probe
from activelabel.errors import SettingsError


@dataclass(frozen=True)
class SourceOptions:
    """Options of the data set that is read."""

    labels: str = "labels"
    """In an npz file, which array holds the labels; of Kermany's set, pneumonia or subtype."""
    normal: str | None = None
    """The class of images without abnormality; by default the one that the data marks or that is named so."""
    patient: str | None = None
    """In a file, which array or column groups the images."""
    root: Path | None = None
    """The folder in which data sets lie; by default ACTIVELABEL_DATA, or activelabel/data in the cache folder."""
    option: tuple[str, ...] = ()
    """More options of the reader, as NAME=VALUE: uncertain=ignore, size=64, label=diagnosis, ..."""

    def load(self, source: str) -> Cohort:
        """Return the cohort."""
        options: dict[str, Any] = dict(_pair(text) for text in self.option)
        return load(source, labels=self.labels, normal=self.normal, patient=self.patient, root=self.root, **options)


def _pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise SettingsError(f"--option {text}: give NAME=VALUE.")
    plain: dict[str, Any] = {"true": True, "false": False, "none": None}
    return name, int(value) if value.lstrip("-").isdigit() else plain.get(value.lower(), value)


@dataclass(frozen=True)
class BackboneOptions:
    """Options of the network."""

    backbone: str = "resnet50"
    """A classifier of torchvision (resnet18, resnet50, densenet121, ...), efficientnet-lite0, moco:FILE, or
    module:function of your own."""
    weights: str | None = None
    """published (the default), random, or a file of a state dict."""
    size: int | None = None
    """Side of the network's input, pixels; by default its own."""
    download: bool = False
    """Fetch published weights that are not in torch's cache."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int | None = None
    """Of torch on the CPU; by default its own choice."""

    def make(self) -> Backbone:
        """Return the backbone."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return make_backbone(
            self.backbone, weights=self.weights, size=self.size, device=self.device, download=self.download
        )


@dataclass(frozen=True)
class RunOptions:
    """Options of the run."""

    cache: Path | None = field(default_factory=default_folder)
    """Folder in which features are kept by what the images hold, so that an interrupted run goes on where it was."""
    batch_size: int = 32
    """Images in a forward pass."""
    workers: int = field(default_factory=default_workers)
    """Threads that read, decode and resize ahead of the network."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What is done about images that cannot be read."""
    progress: bool = True
    """Show a progress bar."""

    def settings(self) -> EmbedSettings:
        """Return them in the form of the library."""
        return EmbedSettings(self.batch_size, self.workers, self.unreadable, self.progress)


_Data = Annotated[SourceOptions, tyro.conf.arg(name="")]
_Network = Annotated[BackboneOptions, tyro.conf.arg(name="")]
_How = Annotated[RunOptions, tyro.conf.arg(name="")]
Source = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class List:
    """List the data sets that are known by name."""

    def run(self) -> None:
        """Print the list."""
        print(listing())


@dataclass(frozen=True)
class Show:
    """Say everything about one data set: size, classes, licence, citation, what to download and where to put it."""

    name: Source
    """Of the data set."""

    def run(self) -> None:
        """Print it."""
        print(describe(self.name))


@dataclass(frozen=True)
class Embed:
    """Turn the images of a data set into a cohort file of features."""

    source: Source
    """A data set's name, NAME:PATH, an .npz with images, a .csv, or a folder of class folders."""
    out: Path
    """The .npz file to write."""
    data: _Data = SourceOptions()
    network: _Network = BackboneOptions()
    how: _How = field(default_factory=RunOptions)
    corrupt: float = 0.0
    """Share of the images that are corrupted before (Slade & Branson 2022, section 4.4.2), 0 to 1."""
    corrupt_split: Literal["train", "val", "test"] | None = None
    """Corrupt images of this published part alone."""
    corrupt_seed: int = 0
    """Of the corruption."""

    def run(self) -> None:
        """Embed."""
        cohort = self.data.load(self.source)
        rows = None
        if self.corrupt_split is not None:
            if cohort.split is None:
                raise SettingsError(f"--corrupt-split {self.corrupt_split}: {self.source} has no published split.")
            rows = np.flatnonzero(cohort.split == self.corrupt_split)
        if self.corrupt:
            cohort = corrupt_cohort(cohort, Corruption(self.corrupt, self.corrupt_seed), rows)
        backbone = self.network.make()
        written = embed_file(cohort, backbone, self.out, cache=self.how.cache, settings=self.how.settings())
        print(f"{self.out}: {len(written)} images x {backbone.dim} features of {written.source.backbone}")
        if written.source.notes:
            print(written.source.notes)


@dataclass(frozen=True)
class Judge:
    """Cross-validate a linear probe on features, by patient where patients are known; images are embedded first."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets with features, or with images."""
    data: _Data = SourceOptions()
    network: _Network = BackboneOptions()
    how: _How = field(default_factory=RunOptions)
    folds: int = 5
    """Of the cross-validation."""
    c: float = 1.0
    """Inverse strength of the logistic regression's regularisation."""

    def run(self) -> None:
        """Print a line for each."""
        if not self.sources:
            raise SettingsError("name a data set to judge.")
        for source in self.sources:
            cohort = self.data.load(source)
            if cohort.features is None:
                cohort = embed(cohort, self.network.make(), cache=self.how.cache, settings=self.how.settings())
            probe = linear_probe(cohort, folds=self.folds, c=self.c)
            folds = ", ".join(f"{value:.4f}" for value in probe.auroc)
            by = "by patient" if probe.grouped else "by image"
            print(f"{source}: {cohort.source.backbone or 'features'}: {probe.n} images, {self.folds} folds {by}")
            print(f"  AUROC {probe.mean:.4f} ({folds})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def command() -> None:
        parse(given).run()

    return run_command(command)


def parse(arguments: Sequence[str]) -> List | Show | Embed | Pretrain | Judge:
    """Return the command that the arguments describe.

    Raises
    ------
    SettingsError: if a preset is unknown, or a value out of range.
    """
    named: Any = tyro.conf.subcommand
    # Not an annotation of the function's: the default of one command depends on the arguments.
    commands: Any = (
        Annotated[List, named("list")]
        | Annotated[Show, named("show")]
        | Annotated[Embed, named("embed")]
        | Annotated[Pretrain, named("pretrain", default=command_default(arguments))]
        | Annotated[Judge, named("probe")]
    )
    chosen: List | Show | Embed | Pretrain | Judge = tyro.cli(
        commands,
        prog="python -m activelabel.data",
        description=__doc__,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    return chosen


if __name__ == "__main__":
    sys.exit(main())
