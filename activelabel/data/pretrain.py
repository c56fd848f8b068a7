"""Contrastive pretraining: MoCo v2 on the images of a cohort, without their labels (after MoCo-CXR).

``encoder.pt`` in the output folder is what one keeps; ``checkpoint.pt`` is what a training goes on from. Both are
tensors and plain values, written atomically and read without unpickling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from activelabel.data.catalog import load
from activelabel.data.cohort import Cohort
from activelabel.data.encoder import load_encoder, read_tensors
from activelabel.data.pretrain_settings import PRETRAIN_PRESETS, PretrainSettings, pretrain_preset
from activelabel.data.pretraining import CHECKPOINT, ENCODER, FORMAT, Pretraining, training_rows
from activelabel.devices import resolve_device
from activelabel.errors import CheckpointError, SettingsError

__all__ = [
    "PRETRAIN_PRESETS",
    "Pretrain",
    "PretrainSettings",
    "command_default",
    "load_encoder",
    "pretrain",
    "pretrain_preset",
    "read_settings",
    "training_rows",
]


def pretrain(
    cohort: Cohort,
    settings: PretrainSettings,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    device: str | torch.device = "auto",
    minutes: float | None = None,
    download: bool = False,
) -> Path:
    """Pretrain a network on the images of :func:`training_rows`; returns the path of its encoder.

    Random numbers depend on the seed and the epoch, so that a training that was interrupted, at any time, goes on from
    its last checkpoint to the same weights, bit for bit on a CPU with as many threads. TensorBoard shows
    ``pretrain/loss``, ``pretrain/learning_rate``, ``pretrain/images_per_second`` and ``pretrain/knn_accuracy``: how
    often the nearest training images tell the class of a validation image, by the features before the head (see
    :mod:`activelabel.data.knn`). No weight depends on a label.

    Parameters
    ----------
    cohort: with images; labels are used for watching only.
    settings: see :class:`~activelabel.data.pretrain_settings.PretrainSettings`.
    out: folder of ``checkpoint.pt``, ``encoder.pt`` and TensorBoard's events.
    resume: go on from the checkpoint in ``out``.
    progress: show progress bars.
    device: ``"auto"`` or a torch device.
    minutes: stop before this time is over, after the last epoch that is expected to end in it, and after one in any
        case; the learning rate falls as planned for all epochs, and ``resume`` goes on. None trains to the end.
    download: fetch published weights that are not in torch's cache.

    Raises
    ------
    DataError: if there are no images, or one cannot be read.
    SettingsError: if settings do not fit the cohort, the checkpoint, or each other.
    CheckpointError: if ``out`` has a checkpoint and ``resume`` is not set, or the other way round, or it is damaged.
    """
    started = time.monotonic()
    if minutes is not None and not minutes > 0:
        raise SettingsError(f"minutes={minutes} must be above 0.")
    path = out / CHECKPOINT
    if resume and not path.exists():
        raise CheckpointError(f"{path}: no checkpoint to go on from; leave resume away to start.")
    if not resume and path.exists():
        raise CheckpointError(f"{path}: there is a training already; go on with resume, or give another folder.")
    with ExitStack() as stack:
        stack.enter_context(_threads(settings.threads))
        training = Pretraining(cohort, settings, out, resolve_device(device), progress, download)
        stack.callback(training.close)
        if resume:
            training.restore(path)
        training.run(None if minutes is None else started + 60 * minutes)
    return out / ENCODER


def read_settings(out: Path) -> PretrainSettings:
    """Return the settings of the training in a folder.

    Raises
    ------
    CheckpointError: if it has no checkpoint, or a damaged one.
    """
    path = out / CHECKPOINT
    return PretrainSettings.from_dict(read_tensors(path, FORMAT).get("settings", {}), str(path))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Give torch so many threads while the block runs."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Pretrain:
    """Pretrain a network on the images of a data set, without their labels: MoCo v2 with the views of MoCo-CXR.

    A preset fills in the settings; what is given here overrides it. Embed with the result by --backbone moco:OUT.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Name of a data set, or path of one."""
    out: Path
    """Folder of the encoder, the checkpoint and TensorBoard's events."""
    settings: Annotated[PretrainSettings, tyro.conf.arg(name="")] = field(default_factory=PretrainSettings)
    preset: str = "default"
    """Settings to start from: default (MoCo v2), moco-cxr (its released code), pneumoniamnist (28 x 28, two cores)."""
    resume: bool = False
    """Go on from the checkpoint in the folder, with its own settings where none are given here."""
    minutes: float | None = None
    """Stop after the last epoch that ends before so many minutes are over."""
    device: str = "auto"
    """auto, cpu or cuda."""
    download: bool = False
    """Fetch published weights that are not here."""
    progress: bool = True
    """Show progress bars."""

    def run(self, cohort: Cohort | None = None) -> None:
        """Pretrain and print where the encoder is; the cohort is that of ``source`` unless it is given."""
        settings = self.settings
        if self.resume and settings == pretrain_preset(self.preset):
            settings = read_settings(self.out)
        path = pretrain(
            load(self.source) if cohort is None else cohort,
            settings,
            self.out,
            resume=self.resume,
            progress=self.progress,
            device=self.device,
            minutes=self.minutes,
            download=self.download,
        )
        _, facts = load_encoder(path, settings.network)
        print(f"{path}: {facts['epochs']} of {settings.epochs} epochs, {facts['dim']} features an image")


def command_default(arguments: Sequence[str]) -> Pretrain:
    """Return the :class:`Pretrain` that fills in what is not given: its settings are those of the ``--preset``.

    Parameters
    ----------
    arguments: of the command line; only ``--preset`` is looked for.

    Raises
    ------
    SettingsError: if the preset is unknown.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    name = first.parse_known_args(list(arguments))[0].preset
    return Pretrain(source=tyro.MISSING, out=tyro.MISSING, settings=pretrain_preset(name), preset=name)
