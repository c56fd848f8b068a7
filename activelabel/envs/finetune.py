"""The classifier of Slade & Branson (2022, §4.1, §4.2): a pretrained network, fine-tuned on the labelled images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from activelabel.data.networks import IMAGENET_MEAN, IMAGENET_STD, build_network, drawn, last_linear, replace_layer
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream

_ROWS = 64
"""Images that are predicted at once."""


class FineTune:
    """A pretrained network with a new linear layer, all of it trained on the labelled images by Adam at a fixed rate.

    Every fit starts from the pretrained weights. What is random in it (the new layer, the order of the images,
    dropout) comes from the stream of ``seed`` and the number of labelled images, so that a classifier depends on its
    own labelled images and their order alone. On a GPU the passes run in half precision unless that is declined, and
    cuDNN is held to its deterministic algorithms.

    Images are normalised with ImageNet's mean and deviation; grey is repeated three times. Episodes are trained one
    after the other. With ``ActiveLabel-v0`` there is one network at a time, whatever the number of episodes.

    Parameters
    ----------
    network: a classifier of torchvision, or ``"module:function"``; see
        :func:`~activelabel.data.networks.build_network`. Its last linear layer is replaced, and what goes into that
        layer is the latent space.
    weights: ``"published"``, ``"random"``, or a file of a state dict.
    epochs: passes over the labelled images. (Paper: 200.)
    learning_rate: of Adam. (Paper: 1e-4.)
    batch_size: images in a gradient step at most; the batches of an epoch are as equal as can be.
    size: side in pixels of the square that the environment scales images to; by default they stay as they are, and
        must be alike. (ResNet-50's own: 224.)
    download: fetch published weights that are not in torch's cache.
    freeze_batch_norm: keep the means and deviations of the pretraining in batch normalisation, whose scales and shifts
        are trained all the same. By default where there was a pretraining: a few labelled images, repeated 200 times,
        estimate them badly, while random weights have none worth keeping.
    mixed_precision: half precision on a GPU: bfloat16 where it has that, else float16 with scaled gradients.
    seed: of what is random.

    Raises
    ------
    SettingsError: if a value is out of range. Whether the network and its weights are there is found out at first use.
    """

    on_images = True
    warm = False

    def __init__(
        self,
        network: str = "resnet50",
        weights: str | Path = "published",
        epochs: int = 200,
        learning_rate: float = 1e-4,
        batch_size: int = 32,
        size: int | None = None,
        download: bool = False,
        freeze_batch_norm: bool | None = None,
        mixed_precision: bool = True,
        seed: int = 0,
    ) -> None:
        if not isinstance(network, str) or not network:
            raise SettingsError(f"network={network!r} must be a name of torchvision's or 'module:function'.")
        if not isinstance(weights, (str, Path)) or not str(weights):
            raise SettingsError(f"weights={weights!r} must be 'published', 'random' or a file.")
        whole = {"epochs": (epochs, 1), "batch_size": (batch_size, 1), "size": (size, 1), "seed": (seed, 0)}
        for name, (value, least) in whole.items():
            optional = name == "size" and value is None
            if not optional and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise SettingsError(f"{name}={value!r} must be a whole number of at least {least}.")
        if not isinstance(learning_rate, (int, float)) or isinstance(learning_rate, bool) or not 0 < learning_rate < 1:
            raise SettingsError(f"learning_rate={learning_rate!r} must be above 0 and below 1.")
        switches = {"download": download, "mixed_precision": mixed_precision, "freeze_batch_norm": freeze_batch_norm}
        for name, switch in switches.items():
            if not isinstance(switch, bool) and not (name == "freeze_batch_norm" and switch is None):
                raise SettingsError(f"{name}={switch!r} must be True or False.")
        self.frozen = str(weights) != "random" if freeze_batch_norm is None else freeze_batch_norm
        if not self.frozen and batch_size < 3:
            # From 3 on, equal batches have two images or more, of which there is a deviation.
            raise SettingsError(f"batch_size={batch_size}: batch normalisation that is not frozen needs 3 or more.")
        self.network, self.weights, self.epochs, self.learning_rate = network, weights, epochs, learning_rate
        self.batch_size, self.size, self.download, self.seed = batch_size, size, download, seed
        self.mixed_precision = mixed_precision
        self._pretrained: nn.Module | None = None

    @property
    def latent_size(self) -> int:
        """How many numbers go into the last linear layer.

        Raises
        ------
        SettingsError: if there is no such network, or its published weights are not here.
        CheckpointError: if the weights cannot be read, or are of another network.
        """
        return last_linear(self._start())[1].in_features

    def _start(self) -> nn.Module:
        """Return the pretrained network; it is not to be changed."""
        if self._pretrained is None:
            self._pretrained = build_network(self.network, weights=self.weights, seed=self.seed, download=self.download)
        return self._pretrained

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> FineTunedModel:
        """See :class:`~activelabel.envs.learners.Learner`; ``x`` is uint8 ``(B, L, H, W, 1 or 3)``.

        Raises
        ------
        SettingsError: if the network cannot take images of that size, or gives no logits.
        """
        fitted = [
            self._train(images[there], classes[there], n_classes)
            for images, classes, there in zip(x, y, weight > 0, strict=True)
        ]
        return FineTunedModel(fitted, self.mixed_precision)

    def _train(self, images: Tensor, classes: Tensor, n_classes: int) -> nn.Module:
        """Return a network trained on ``(n, H, W, C)`` images of the classes ``(n,)``."""
        n, device = len(images), images.device
        network = copy.deepcopy(self._start())
        name, old = last_linear(network)
        layer = drawn(lambda: nn.Linear(old.in_features, n_classes), self.seed, "finetune", n, "layer")
        replace_layer(network, name, layer)
        network.to(device).train()
        for module in network.modules():
            if self.frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        half = half_precision(device) if self.mixed_precision else None
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=self.learning_rate)
        scaler = torch.amp.GradScaler("cuda", enabled=half == torch.float16)
        order = torch_stream(self.seed, "finetune", n)
        batches = -(-n // self.batch_size)
        dropout = torch_stream(self.seed, "finetune", n, "dropout")
        with forked(device, dropout), deterministic(device), torch.enable_grad():
            for _ in range(self.epochs):
                for rows in torch.randperm(n, generator=order).to(device).tensor_split(batches):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(logits(network, images[rows], n_classes, half), classes[rows])
                    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                    scaler.step(optimizer)
                    scaler.update()
        return network.eval()


class FineTunedModel:
    """One fine-tuned network an episode.

    Parameters
    ----------
    networks: in evaluation mode.
    mixed_precision: predict in half precision on a GPU.
    """

    def __init__(self, networks: list[nn.Module], mixed_precision: bool) -> None:
        self.networks, self.mixed_precision = networks, mixed_precision
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return class probabilities, float32 ``(B, n, C)``, of images ``(n, H, W, 1 or 3)`` shared by all or
        ``(B, n, H, W, 1 or 3)``."""
        return self._look(x)[0]

    def latent(self, x: Tensor) -> Tensor:
        """Return what goes into the last linear layer, float32 ``(B, n, d)``; it costs nothing for images that were the
        last to be predicted."""
        return self._look(x)[1]

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self._seen is None or self._seen[0] is not x:
            own = [x] * len(self.networks) if x.ndim == 4 else list(x)
            each = [look(net, images, self.mixed_precision) for net, images in zip(self.networks, own, strict=True)]
            self._seen = (x, torch.stack([p for p, _ in each]), torch.stack([latent for _, latent in each]))
        return self._seen[1:]


def look(network: nn.Module, images: Tensor, mixed_precision: bool) -> tuple[Tensor, Tensor]:
    """Return class probabilities ``(n, C)`` and latent features ``(n, d)`` of images ``(n, H, W, C)``, both float32.

    Raises
    ------
    SettingsError: if the last linear layer is not used once a pass, on one vector an image.
    """
    _, layer = last_linear(network)
    half = half_precision(images.device) if mixed_precision else None
    latent: list[Tensor] = []
    probabilities = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: latent.append(inputs[0].float()))
    try:
        with torch.no_grad(), deterministic(images.device):
            for start in range(0, len(images), _ROWS):
                some = images[start : start + _ROWS]
                probabilities.append(logits(network, some, layer.out_features, half).softmax(dim=1))
                if len(latent) != len(probabilities) or latent[-1].shape != (len(some), layer.in_features):
                    raise SettingsError(
                        f"{type(network).__name__} does not put each image once, as one vector, through its last "
                        "linear layer, so that it has no latent space."
                    )
    finally:
        handle.remove()
    return torch.cat(probabilities), torch.cat(latent)


def logits(network: nn.Module, images: Tensor, n_classes: int, half: torch.dtype | None) -> Tensor:
    """Return what a network gives for images ``(n, H, W, C)``, float32 ``(n, n_classes)``.

    Parameters
    ----------
    network, images, n_classes: see above.
    half: the type of its multiplications on a GPU, None for float32.

    Raises
    ------
    SettingsError: if it fails, or gives something else.
    """
    precision: Any = nullcontext() if half is None else torch.autocast(images.device.type, dtype=half)
    name = type(network).__name__
    try:
        with precision:
            out = network(normalised(images))
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            f"{name} failed on {len(images)} images of {images.shape[1]} x {images.shape[2]} pixels "
            f"({str(error).splitlines()[0]}). Give another size, or a smaller batch_size."
        ) from None
    if not isinstance(out, Tensor):
        out = out[0]  # those of torchvision's with auxiliary outputs in training have the logits first
    if tuple(out.shape) != (len(images), n_classes):
        raise SettingsError(f"{name} returned {tuple(out.shape)} for {len(images)} images of {n_classes} classes.")
    values: Tensor = out.float()
    return values


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images ``(n, H, W, 1 or 3)`` as networks for ImageNet take them, float32 ``(n, 3, H, W)``."""
    x = images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float().contiguous() / 255
    mean, deviation = (x.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / deviation


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the half precision to compute in: on a GPU bfloat16 where it has that, else float16; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Hold cuDNN to deterministic algorithms, which do not depend on what ran before."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True):
        yield


@contextmanager
def forked(device: torch.device, generator: torch.Generator) -> Iterator[None]:
    """Set torch's global generators, which dropout draws from, to a stream, and put them back as they were."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.set_state(generator.get_state())
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(generator.initial_seed())
        yield
