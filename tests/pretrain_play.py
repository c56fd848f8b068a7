"""A tiny contrastive training, which several test files share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import reference
import torch
from torch import nn

from activelabel.data import Cohort, Source
from activelabel.data.pretrain import PretrainSettings, pretrain
from activelabel.seeding import stream

TINY = PretrainSettings(
    network="pretrain_play:small_net",
    size=8,
    dim=4,
    batch_size=8,
    bn_splits=2,
    queue=16,
    epochs=4,
    momentum=0.9,
    checkpoint_every=1,
    knn_every=1,
    knn_k=3,
    knn_images=12,
)


def small_net() -> nn.Module:
    """A network of a user's own, with dropout, which draws from torch's global generator."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 2)
    )


RESNET = replace(TINY, network="resnet18", stem="small", width=2)


def pixels(n: int = 40, side: int = 8) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return stream(0, "pixels").integers(0, 256, (n, side, side)).astype(np.uint8)


def cohort(images: Any = None, **changes: Any) -> Cohort:
    """Forty images, every fourth one in the test part, every fourth in the validation part."""
    images = pixels() if images is None else images
    n = len(images)
    split = np.array(["train", "val", "train", "test"])[np.arange(n) % 4] if n == 40 else None
    labels = np.eye(2, dtype=np.int8)[np.arange(n) // 2 % 2]
    source = Source(name="tiny")
    return Cohort(
        **{"labels": labels, "classes": ("a", "b"), "images": images, "split": split, "source": source, **changes}
    )


def train(out: Path, settings: PretrainSettings = TINY, data: Cohort | None = None, **given: Any) -> Path:
    return pretrain(data or cohort(), settings, out, **{"progress": False, "device": "cpu", **given})


def content(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)
    return loaded


def state(out: Path) -> str:
    """All that training changed."""
    saved = content(out)
    return reference.digest({name: saved[name] for name in ("epochs", "model", "optimizer")})
