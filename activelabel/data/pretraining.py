"""A contrastive training while it runs: model, optimizer, images, and what is shown of it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from activelabel.data.augment import augment
from activelabel.data.cohort import Cohort, IntArray
from activelabel.data.encoder import load_exactly, read_tensors, write_encoder, write_tensors
from activelabel.data.knn import knn_accuracy, watched_rows
from activelabel.data.moco import MoCo
from activelabel.data.networks import IMAGENET_MEAN, IMAGENET_STD, drawn
from activelabel.data.pretrain_settings import WATCHING, PretrainSettings
from activelabel.data.squares import Squares, all_grey
from activelabel.errors import ActiveLabelError, CheckpointError, DataError, SettingsError
from activelabel.reading import DAMAGED, first_line, load_optimizer
from activelabel.seeding import torch_stream

CHECKPOINT, ENCODER = "checkpoint.pt", "encoder.pt"
FORMAT = "activelabel-moco"
_EVALUATED = 64


def training_rows(cohort: Cohort) -> IntArray:
    """Return the rows that are pretrained on, int64: the published training part, or all where none is published.

    A published test part is never seen. Without one, later splits of the cohort have test images that were seen here,
    though without labels; give a cohort without them where that matters.

    Raises
    ------
    DataError: if the cohort has no images, or no training part in its published split.
    """
    if cohort.images is None:
        raise DataError(f"{cohort.source.name} has no images to pretrain on.")
    if cohort.split is None:
        return np.arange(len(cohort))
    rows = np.flatnonzero(cohort.split == "train")
    if not len(rows):
        raise DataError(f"{cohort.source.name}: its published split has no training images.")
    return rows


class Pretraining:
    """A training: the model, the optimizer, the images, and the epochs done.

    Parameters
    ----------
    cohort, settings, out, progress, download: see :func:`pretrain`.
    device: where the model is.
    """

    def __init__(
        self,
        cohort: Cohort,
        settings: PretrainSettings,
        out: Path,
        device: torch.device,
        progress: bool,
        download: bool = False,
    ) -> None:
        self.settings, self.out, self.device, self.progress = settings, out, device, progress
        s = settings
        rows = training_rows(cohort)
        self.source, self.done = cohort.source.name, 0
        queue = s.queue_for(len(rows))
        moco = MoCo(
            s.network,
            weights=s.weights,
            stem=s.stem,
            width=s.width,
            dim=s.dim,
            queue=queue,
            momentum=s.momentum,
            temperature=s.temperature,
            batch_size=s.batch_size,
            bn_splits=s.bn_splits,
            symmetric=s.symmetric,
            seed=s.seed,
            download=download,
        )
        # The channels of a pixel side by side are what a processor's convolutions want: faster by a tenth.
        self.moco: MoCo = cast(Any, moco).to(device, memory_format=torch.channels_last)
        trained = [p for p in self.moco.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=s.learning_rate, momentum=s.sgd_momentum, weight_decay=s.weight_decay
        )
        images: Any = cohort.images
        self.grey = all_grey(images, rows)
        shown: dict[str, Any] = {"grey": self.grey, "memory": s.memory, "workers": s.workers, "progress": progress}
        self.images = Squares(images, rows, s.size, **shown)
        self.watched = watched_rows(cohort, rows, s.knn_images, s.seed)
        if self.watched is not None:
            self.voters = np.searchsorted(rows, self.watched.voters)
            self.judged = Squares(images, self.watched.judged, s.size, **{**shown, "progress": False})
        published = s.weights == "published"
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if published else self.images.statistics(s.seed)

    def close(self) -> None:
        """End the threads that read images."""
        self.images.close()
        if self.watched is not None:
            self.judged.close()

    def run(self, deadline: float | None) -> None:
        """Train to the last epoch, or until another epoch would end after the deadline (of ``time.monotonic``)."""
        s, longest, first = self.settings, 0.0, self.done
        writer = cast(Any, SummaryWriter)(str(self.out), purge_step=self.done + 1)
        steps = len(self.images) // s.batch_size
        bar = tqdm(
            total=s.epochs * steps,
            initial=first * steps,
            unit="batch",
            desc="pretraining",
            disable=not self.progress,
            dynamic_ncols=True,
        )
        with bar:
            try:
                while self.done < s.epochs:
                    began = time.monotonic()
                    if deadline is not None and self.done > first and began + longest > deadline:
                        break
                    shown = self._epoch(bar)
                    for name, value in shown.items():
                        writer.add_scalar(f"pretrain/{name}", value, self.done)
                    bar.set_postfix({n: f"{shown[n]:.3f}" for n in ("loss", "knn_accuracy") if n in shown})
                    if self.done % s.checkpoint_every == 0:
                        self.save()
                    longest = max(longest, time.monotonic() - began)
                self.save()
            finally:
                writer.close()

    def _epoch(self, bar: tqdm) -> dict[str, float]:
        """Train one epoch; returns what is to be shown of it."""
        s, began = self.settings, time.monotonic()
        falls = 0.5 * (1 + math.cos(math.pi * self.done / s.epochs))
        rate = s.learning_rate * (falls if s.cosine else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout draws from torch's global generator, which stands at the epoch's own stream meanwhile.
        loss = float(drawn(lambda: self._batches(bar), s.seed, "moco", "dropout", self.done))
        if not math.isfinite(loss):
            raise SettingsError(f"the loss became {loss} in epoch {self.done + 1}; lower learning_rate={rate:g}.")
        self.done += 1
        seen, seconds = len(self.images) // s.batch_size * s.batch_size, time.monotonic() - began
        shown = {"loss": loss, "learning_rate": rate, "images_per_second": seen / max(seconds, 1e-9)}
        if self.watched is not None and (self.done % s.knn_every == 0 or self.done == s.epochs):
            shown["knn_accuracy"] = self.knn_accuracy()
        return shown

    def _batches(self, bar: tqdm) -> float:
        s = self.settings
        generator = torch_stream(s.seed, "moco", "epoch", self.done)
        n = len(self.images) // s.batch_size * s.batch_size
        order = torch.randperm(len(self.images), generator=generator)[:n].numpy()
        total = torch.zeros((), device=self.device)
        self.moco.train()
        for batch in self.images.batches(order, s.batch_size):
            batch = batch.to(self.device)
            first, second = (self._prepared(augment(batch, s.augmentation, generator)) for _ in range(2))
            loss = self.moco(first, second, generator)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            bar.update()
        return float(total) / (n // s.batch_size)

    def _prepared(self, pixels: Tensor) -> Tensor:
        """Return float ``(B, C, size, size)`` of 0 to 1 as the network wants it, ``(B, 3, size, size)``."""
        mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, images: Squares, positions: IntArray) -> Tensor:
        """Return the features before the head, float32 ``(n, features)``, as a frozen encoder gives them."""
        self.moco.eval()
        parts = [
            self.moco.encoder(self._prepared(batch.to(self.device).float() / 255))
            for batch in images.batches(positions, _EVALUATED)
        ]
        return torch.cat(parts)

    def knn_accuracy(self) -> float:
        """Return the share of the watched images whose class their neighbours find, 0 to 1."""
        assert self.watched is not None
        classes = (
            torch.from_numpy(c).to(self.device) for c in (self.watched.voter_classes, self.watched.judged_classes)
        )
        voter_classes, judged_classes = classes
        voters = self.features(self.images, self.voters)
        judged = self.features(self.judged, np.arange(len(self.judged)))
        return knn_accuracy(voters, voter_classes, judged, judged_classes, self.settings.knn_k)

    def save(self) -> None:
        """Write the checkpoint and the encoder."""
        s = self.settings
        facts = {
            "network": s.network,
            "stem": s.stem,
            "width": s.width,
            "size": s.size,
            "mean": self.mean,
            "std": self.std,
            "grey": self.grey,
            "dim": self.moco.features,
            "epochs": self.done,
            "settings": s.to_dict(),
            "source": self.source,
        }
        write_encoder(self.out / ENCODER, self.moco.encoder, facts)
        content = {"model": self.moco.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_tensors(self.out / CHECKPOINT, FORMAT, {**self._identity(), "epochs": self.done, **content})

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        SettingsError: if it was made with other settings or other images.
        CheckpointError: if it is damaged.
        """
        content = read_tensors(path, FORMAT)
        before, now = (
            PretrainSettings.from_dict(content.get("settings", {}), str(path)).to_dict(),
            self.settings.to_dict(),
        )
        changed = [name for name in now if name not in WATCHING and now[name] != before[name]]
        if changed:
            said = ", ".join(f"{name}={before[name]} (not {now[name]})" for name in changed)
            raise SettingsError(f"{path}: made with {said}; a training goes on with its own settings.")
        try:
            for name, value in self._identity().items():
                given = content[name]
                if type(given) is not type(value):
                    raise TypeError(f"its {name} is a {type(given).__name__}")
                if name != "settings" and not given == value:
                    raise SettingsError(f"{path}: made from {name} {given}, not {value}; give it the same images.")
            load_exactly(self.moco, content["model"], path)
            load_optimizer(self.optimizer, content["optimizer"])
            if not 0 <= content["epochs"] <= self.settings.epochs:
                raise ValueError(f"{content['epochs']} of {self.settings.epochs} epochs")
            self.done = int(content["epochs"])
        except ActiveLabelError:
            raise
        except DAMAGED as error:
            raise CheckpointError(f"{path}: damaged: {type(error).__name__} {first_line(error)}.") from None

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "source": self.source,
            "images": len(self.images),
            "mean": self.mean,
            "std": self.std,
        }
