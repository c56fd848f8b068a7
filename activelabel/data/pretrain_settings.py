"""Settings of the contrastive pretraining, and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from activelabel.data.augment import Augmentation
from activelabel.data.moco import check_batch
from activelabel.data.networks import STEMS
from activelabel.errors import CheckpointError, SettingsError, unknown
from activelabel.reading import DAMAGED, first_line

WATCHING = ("checkpoint_every", "knn_k", "knn_every", "knn_images", "workers", "threads", "memory")
"""Settings that change no weight beyond rounding: they may differ when a training goes on."""


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that decides the weights of a pretrained network, and how training is watched.

    The defaults are MoCo v2's (Chen et al. 2020) with the views of MoCo-CXR (Sowrirajan et al. 2021).

    Raises
    ------
    SettingsError: if a value is out of range, or sizes do not divide each other.
    """

    network: str = "resnet18"
    """A classifier of torchvision, or module:function of your own."""
    weights: str = "random"
    """Start from: random, published (ImageNet's), or a file of a state dict."""
    stem: str = "imagenet"
    """First layers of a ResNet: imagenet, or small for images of some thirty pixels."""
    width: int = 64
    """Channels of a ResNet's first block; 16 or 32 for a processor without a GPU."""
    size: int = 224
    """Side of the images, pixels."""
    dim: int = 128
    """Numbers in a query or a key."""
    batch_size: int = 256
    """Images in a batch; what is left of an epoch after the last whole batch is left out."""
    bn_splits: int = 8
    """Parts of a batch that are normalised each by itself, so that batch normalisation does not give the key away."""
    symmetric: bool = False
    """Each view is query and key once, at twice the cost."""
    queue: int | None = None
    """Keys that wait: a multiple of the batch, at most as many as there are training images. By default 65536, or as
    many whole batches as half the training images make, where that is fewer: an image then seldom meets its own key of
    the epoch before among those that it must differ from."""
    momentum: float = 0.999
    """Of the slow copy that makes the keys."""
    temperature: float = 0.2
    """Of the loss."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How two views of an image differ."""
    epochs: int = 200
    """Times that each training image is seen."""
    learning_rate: float = 0.03
    """At the start, of stochastic gradient descent."""
    cosine: bool = True
    """Lower the learning rate to 0 along half a cosine, epoch by epoch; else it stays."""
    sgd_momentum: float = 0.9
    """Of stochastic gradient descent."""
    weight_decay: float = 1e-4
    """Of all weights."""
    seed: int = 0
    """Of the first weights, the order of the images, and the views."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""
    knn_k: int = 20
    """Neighbours that vote on the class of a validation image."""
    knn_every: int = 5
    """Epochs between such votes."""
    knn_images: int = 2000
    """At most so many images vote, and at most so many are voted on."""
    workers: int = 2
    """Threads that decode and resize images."""
    threads: int | None = None
    """Threads of the network on a CPU; by default torch's."""
    memory: float = 4.0
    """GiB that the resized images may take; where they need more, each batch is decoded anew."""

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise SettingsError(unknown("stem", self.stem, STEMS))
        for name in ("width", "size", "dim", "epochs", "checkpoint_every", "knn_k", "knn_every", "workers"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("seed", "knn_images", "memory", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name}={getattr(self, name)} must not be negative.")
        for name in ("momentum", "sgd_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be from 0 to below 1.")
        for name in ("temperature", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(f"{name}={getattr(self, name)} must be above 0 and finite.")
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"threads={self.threads} must be at least 1.")
        check_batch(self.batch_size, self.bn_splits)

    def queue_for(self, images: int) -> int:
        """Return the length of the queue with so many training images.

        Raises
        ------
        SettingsError: if ``queue`` is given and does not fit, or there are not enough images for one batch.
        """
        if images < self.batch_size:
            raise SettingsError(
                f"batch_size={self.batch_size}, but there are {images} training images; lower it to {images} or less."
            )
        keys = self.batch_size * (2 if self.symmetric else 1)
        if self.queue is None:
            return max(keys, min(65536, images // 2) // keys * keys)
        if self.queue < 1 or self.queue % keys or self.queue > max(images, keys):
            raise SettingsError(
                f"queue={self.queue} must be a multiple of the {keys} keys of a batch, and at most the {images} "
                "training images: more would hold the same images twice. Leave it out to have it fitted."
            )
        return self.queue

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, to be written to a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> PretrainSettings:
        """Return the settings that :meth:`to_dict` gave.

        Parameters
        ----------
        values: what was read.
        where: the file, for messages.

        Raises
        ------
        CheckpointError: if they are of another version, or have values that cannot be.
        """
        try:
            plain = _plain_fields(cls, values)
            views = _plain_fields(Augmentation, plain.pop("augmentation"))
            return cls(augmentation=Augmentation(**{**views, "crop": tuple(views["crop"])}), **plain)
        except DAMAGED as error:
            raise CheckpointError(f"{where}: its settings are of another version ({first_line(error)}).") from None


def _plain_fields(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each field of a dataclass, a number where its default is one, and no tensor anywhere."""
    default, found = cls(), {}
    for name in (f.name for f in fields(cls)):
        value, kind = values[name], type(getattr(default, name))
        allowed = {float: (float, int), type(None): (int, type(None)), tuple: (tuple, list)}.get(kind, kind)
        if kind is Augmentation:
            allowed = dict
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is a {type(value).__name__}")
        found[name] = value
    return found


PRETRAIN_PRESETS: dict[str, PretrainSettings] = {
    "default": PretrainSettings(),
    # The released code's: one GPU, so nothing closes the leak of batch normalisation; the rate does not fall.
    "moco-cxr": PretrainSettings(
        weights="published",
        size=320,
        batch_size=16,
        bn_splits=1,
        epochs=20,
        learning_rate=1e-4,
        cosine=False,
        checkpoint_every=1,
        knn_every=1,
    ),
    # Small images on two cores of a processor in a quarter of an hour: narrow, and with a copy that moves faster than
    # 0.999, which needs more batches than there are. Chosen by a probe of training and validation images alone.
    "pneumoniamnist": PretrainSettings(
        stem="small",
        width=16,
        size=28,
        bn_splits=4,
        queue=2048,
        momentum=0.99,
        augmentation=Augmentation(brightness=0.3, contrast=0.3),
        epochs=60,
        learning_rate=0.06,
    ),
}
"""Settings by name; ``default`` is MoCo v2's."""


def pretrain_preset(name: str) -> PretrainSettings:
    """Return a preset.

    Raises
    ------
    SettingsError: if there is none of that name.
    """
    if name not in PRETRAIN_PRESETS:
        raise SettingsError(unknown("preset", name, PRETRAIN_PRESETS))
    return PRETRAIN_PRESETS[name]
