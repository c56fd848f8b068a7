"""Networks of a few weights, images to fine-tune them on, and fine-tuning written down plainly; for several files."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from activelabel.data import Cohort, Source
from activelabel.data.networks import build_network, drawn
from activelabel.envs.finetune import FineTune
from activelabel.seeding import torch_stream

ROWS: list[int] = []
"""Of every forward pass of :func:`counted`."""


def tiny() -> nn.Module:
    """Two convolutions, 8 latent features."""
    layers = (nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def normed() -> nn.Module:
    """The same with batch normalisation."""
    layers = (nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8))
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def dropping() -> nn.Module:
    """Dropout, for images of 8 x 8."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(96, 5))


def wider() -> nn.Module:
    """Learns more in as many epochs."""
    layers = (nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32))
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 2))


class Counted(nn.Sequential):
    """Keeps how many images each forward pass has."""

    def forward(self, x: Tensor) -> Tensor:
        ROWS.append(len(x))
        return super().forward(x)  # type: ignore[no-any-return]


def counted() -> nn.Module:
    return Counted(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))


QUICK: dict[str, Any] = {"network": "finetune_play:tiny", "epochs": 3, "learning_rate": 0.01, "batch_size": 4}
"""Arguments of the learner."""

SIZES: dict[str, Any] = {"budget": 7, "batch": 3, "pool": 30, "state_images": 8, "device": "cpu"}
SIZES |= {"learner": "finetune", "learner_arguments": QUICK}


def corners(n: int = 300, side: int = 8, colours: int = 0, classes: int = 3, seed: int = 0) -> Cohort:
    """Noise that is brighter in one corner, by class; images only."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=n)
    shape = (n, side, side, colours) if colours else (n, side, side)
    images = rng.integers(0, 120, shape)
    half = side // 2
    for i, c in enumerate(label):
        images[i, half * (c // 2) :, half * (c % 2) :][:half, :half] += 80
    names = tuple("ABCD"[:classes])
    return Cohort(
        np.eye(classes, dtype=np.int8)[label], names, images=images.astype(np.uint8), source=Source("corners")
    )


CORNERS = corners()


def make(**changes: Any) -> Any:
    """A tiny env, without Gymnasium's wrappers."""
    return gym.make("ActiveLabel-v0", **{"cohort": CORNERS, **SIZES, **changes}).unwrapped


def make_vec(num_envs: int, **changes: Any) -> Any:
    """The vector env."""
    return gym.make_vec("ActiveLabel-v0", num_envs=num_envs, **{"cohort": CORNERS, **SIZES, **changes})


def quick(**changes: Any) -> dict[str, Any]:
    """Some arguments of the learner changed."""
    return {"learner_arguments": {**QUICK, **changes}}


def prepared(images: NDArray[np.uint8]) -> Tensor:
    """Images ``(n, H, W)`` or ``(n, H, W, 3)`` as the network takes them."""
    x = torch.from_numpy(np.asarray(images)).float()
    x = torch.stack([x] * 3, dim=1) if x.ndim == 3 else torch.stack([x[..., c] for c in range(3)], dim=1)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x / 255 - mean[:, None, None]) / deviation[:, None, None]


def plain_fit(learner: FineTune, images: NDArray[np.uint8], classes: list[int], n_classes: int) -> nn.Module:
    """A network trained as the learner does; its last layer is the last of a Sequential."""
    network: Any = build_network(learner.network, weights=learner.weights, seed=learner.seed)
    n, dim = len(classes), network[-1].in_features
    network[-1] = drawn(lambda: nn.Linear(dim, n_classes), learner.seed, "finetune", n, "layer")
    network.train()
    if learner.frozen:
        [m.eval() for m in network if isinstance(m, nn.BatchNorm2d)]
    adam = torch.optim.Adam(network.parameters(), lr=learner.learning_rate)
    x, y, order = prepared(images), torch.tensor(classes), torch_stream(learner.seed, "finetune", n)
    for _ in range(learner.epochs):
        shuffled = torch.randperm(n, generator=order).tolist()
        for part in np.array_split(shuffled, int(np.ceil(n / learner.batch_size))):
            adam.zero_grad()
            loss = -network(x[part]).log_softmax(dim=1)[range(len(part)), y[part]].mean()
            loss.backward()
            adam.step()
    return network.eval()  # type: ignore[no-any-return]


def plain_look(network: Any, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Class probabilities and latent features."""
    with torch.no_grad():
        x = prepared(images)
        return network(x).softmax(dim=1), network[:-1](x)


def game(seed: int, b: int, images: int, classes: int, colours: int = 1, side: int = 8) -> dict[str, Any]:
    """Labelled images of ``b`` episodes, all classes there, and others to predict."""
    cohort = corners(b * images + 30, side, colours, classes, seed)
    x, y = torch.from_numpy(np.asarray(cohort.images)), torch.from_numpy(cohort.labels.argmax(axis=1))
    mine = y[: b * images].reshape(b, images).clone()
    mine[:, :classes] = torch.arange(classes)
    return {
        "x": x[: b * images].reshape(b, images, *x.shape[1:]),
        "y": mine,
        "weight": torch.ones(b, images),
        "n_classes": classes,
        "other": x[b * images :],
    }
