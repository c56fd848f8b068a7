"""Networks for images: torchvision's classifiers, or one of the user's, with weights that are read safely."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from activelabel import plugins
from activelabel.errors import CheckpointError, SettingsError, unknown
from activelabel.reading import DAMAGED, check_unpacked, first_line
from activelabel.seeding import torch_stream

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels, 0 to 1, that torchvision's published weights were trained on."""

STEMS = ("imagenet", "small")


def build_network(
    name: str,
    *,
    weights: str | Path = "published",
    n_out: int | None = None,
    seed: int = 0,
    download: bool = False,
    stem: str = "imagenet",
    width: int = 64,
) -> nn.Module:
    """Return a network.

    Parameters
    ----------
    name: a classifier of torchvision, such as ``"resnet50"``, or one of your own, which is called without arguments and
        returns an ``nn.Module``: ``"module:function"``, or the name of an entry point (:mod:`activelabel.plugins`).
    weights: ``"published"`` (torchvision's newest; for a function of the user's what it returns), ``"random"``, or a
        file of a state dict. Where the file is of another number of classes its last layer is left out.
    n_out: outputs of a new last linear layer in place of the present one; None leaves it.
    seed: of all weights that are drawn.
    download: fetch published weights that are not in torch's cache.
    stem: of a ResNet: ``"imagenet"``, or ``"small"``, a 3 x 3 first convolution of stride 1 without max-pooling, for
        images of some thirty pixels.
    width: channels of a ResNet's first block; other than 64 only without published weights.

    Raises
    ------
    SettingsError: if the name is unknown, or an option does not fit it.
    CheckpointError: if the weights cannot be read, or are of another network.
    """
    if stem not in STEMS:
        raise SettingsError(unknown("stem", stem, STEMS))
    if is_own(name):
        if stem != "imagenet" or width != 64:
            raise SettingsError(f"stem and width are of torchvision's ResNets; '{name}' is a function of your own.")
        function = plugins.load("backbone", name)
        try:
            network = drawn(function, seed, name, "weights")
        except TypeError as error:
            raise SettingsError(f"{name}() failed ({error}); it must take no arguments.") from None
        if not isinstance(network, nn.Module):
            raise SettingsError(f"{name}() returned {type(network).__name__}, not a torch.nn.Module.")
    else:
        network = _torchvision(name, weights, seed, stem, width)
        if weights == "published":
            load_weights(network, read_weights(published_weights(name, download)), f"published weights of {name}")
    if weights not in ("published", "random"):
        load_weights(network, read_weights(weights), str(weights))
    if n_out is not None:
        _replace_last(network, n_out, seed)
    return network


def is_own(name: str) -> bool:
    """Say whether a name is that of a user's function, not of a classifier of torchvision."""
    return ":" in name or (name in plugins.names("backbone") and name not in _classifiers())


def _classifiers() -> list[str]:
    from torchvision import models  # late: it is slow to import, and only image networks need it

    return models.list_models(module=models)  # type: ignore[no-any-return]


def _torchvision(name: str, weights: str | Path, seed: int, stem: str, width: int) -> nn.Module:
    from torchvision import models

    known = [*_classifiers(), *plugins.names("backbone")]
    if name not in known:
        raise SettingsError(f"{unknown('network', name, known)} Or give 'module:function' of your own.")
    if (stem != "imagenet" or width != 64) and not (name.startswith("resnet") and weights != "published"):
        raise SettingsError(
            f"network '{name}', weights '{weights}': stem='{stem}' and width={width} need a ResNet without published "
            "weights."
        )
    if width < 1:
        raise SettingsError(f"width={width} must be at least 1.")
    if (stem, width) == ("imagenet", 64):
        network: nn.Module = drawn(lambda: models.get_model(name, weights=None), seed, name, "weights")
    else:
        network = drawn(lambda: _resnet(name, stem, width), seed, name, "weights")
    return network


def _resnet(name: str, stem: str, width: int) -> nn.Module:
    """Return a ResNet of torchvision's blocks with ``width`` times 1, 2, 4 and 8 channels in its four stages."""
    from torchvision import models

    network: Any = models.get_model(name, weights=None)
    blocks = [len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)]
    block = type(network.layer1[0])
    network.inplanes = width
    small = stem == "small"
    network.conv1 = nn.Conv2d(3, width, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    network.maxpool = nn.Identity() if small else network.maxpool
    for i, n in enumerate(blocks):
        setattr(network, f"layer{i + 1}", network._make_layer(block, width * 2**i, n, stride=1 if i == 0 else 2))
    network.fc = nn.Linear(width * 8 * block.expansion, network.fc.out_features)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    done: nn.Module = network
    return done


def drawn(factory: Callable[[], Any], *identity: int | str) -> Any:
    """Return what ``factory`` makes while torch's global generator stands at a named stream.

    Networks of others draw their first weights from the global generator; it is put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(torch_stream(*identity).get_state())
        return factory()


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the dotted name of the last linear layer, and the layer.

    Raises
    ------
    SettingsError: if there is none.
    """
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found or not found[-1][0]:
        raise SettingsError(f"{type(network).__name__} has no linear layer inside to replace; end it with nn.Linear.")
    return found[-1]


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` in the place with the given dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)


def _replace_last(network: nn.Module, n_out: int, seed: int) -> None:
    name, layer = last_linear(network)
    replace_layer(network, name, drawn(lambda: nn.Linear(layer.in_features, n_out), seed, "last layer", n_out))


def weights_url(name: str) -> str:
    """Return where torchvision publishes the weights of a classifier.

    Raises
    ------
    SettingsError: if it publishes none.
    """
    from torchvision import models

    try:
        url: str = models.get_model_weights(name)["DEFAULT"].url
    except (KeyError, ValueError):
        raise SettingsError(f"torchvision publishes no weights for '{name}'; give a file, or 'random'.") from None
    return url


def published_weights(name: str, download: bool = False) -> Path:
    """Return the file of a torchvision classifier's published weights.

    Parameters
    ----------
    name: of the classifier.
    download: fetch it where it is not in torch's cache (``torch.hub.get_dir()``).

    Raises
    ------
    SettingsError: if it is not there and may not or cannot be fetched.
    """
    url = weights_url(name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    if not download:
        raise SettingsError(
            f"the published weights of {name} are not here: {path} is no file. Fetch them with --download "
            f"(download=True), or from {url}; or give a file of your own, or 'random'."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1])
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"{url} could not be fetched ({error}); fetch it by hand to {path}.") from None
    return path


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return a state dict from a file, on the CPU; nothing in the file is executed.

    A file that holds the state dict under ``"state_dict"`` or ``"model"``, as many training programs write it, will do.

    Raises
    ------
    CheckpointError: if the file is missing, damaged, or holds anything but tensors and plain values.
    """
    loaded = safe_load(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path}: not a state dict (names and tensors).")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def safe_load(path: str | Path) -> Any:
    """Return what ``torch.save`` wrote, read with ``weights_only=True``, on the CPU.

    Raises
    ------
    CheckpointError: if the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        with Path(path).open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    check_unpacked(archive, stream.seek(0, io.SEEK_END))
            stream.seek(0)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise CheckpointError(f"{path}: no such file of weights.") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain values, or is no file of torch.save. Reading it "
            "could run code; save a state dict instead."
        ) from None
    except DAMAGED as error:
        reason = first_line(error)
        raise CheckpointError(f"{path}: not a readable file of weights ({reason}). Is it complete?") from None


_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load_weights(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load a state dict; a last linear layer of another size is left out.

    Raises
    ------
    CheckpointError: if it is of another network; ``where`` names the file.
    """
    own = network.state_dict()
    heads = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    head = {f"{name}.{part}" for name in heads for part in ("weight", "bias")}
    # DenseNets' published files are older than the names of their layers.
    state = {n if n in own else _DENSE.sub(r"\1\2", n): value for n, value in state.items()}
    state = {n: v for n, v in state.items() if not (n in head and n in own and v.shape != own[n].shape)}
    missing = [n for n in own if n not in state and n not in head and not n.endswith("num_batches_tracked")]
    foreign = [n for n in state if n not in own]
    wrong = [n for n, v in state.items() if n in own and v.shape != own[n].shape]
    if missing or foreign or wrong:
        kinds = (("lacks", missing), ("has besides", foreign), ("differs in the shape of", wrong))
        said = "; ".join(f"{kind} {len(names)} tensors ({names[0]}, ...)" for kind, names in kinds if names)
        raise CheckpointError(f"{where}: not the weights of this {type(network).__name__}: it {said}.")
    network.load_state_dict(state, strict=False)


def digest(network: nn.Module) -> str:
    """Return 16 hexadecimal digits that stand for all weights and buffers of a network, and for its code's name."""
    value = hashlib.blake2b(f"{type(network).__module__}.{type(network).__qualname__}".encode(), digest_size=8)
    for name, tensor in sorted(network.state_dict().items()):
        value.update(name.encode())
        value.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for _, module in network.named_modules():  # a network without weights differs by its code alone
        value.update(type(module).__qualname__.encode())
    return value.hexdigest()
