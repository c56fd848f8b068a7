"""The file of a pretrained encoder, ``encoder.pt``: weights and what one must know to use them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from activelabel.data.moco import headless
from activelabel.data.networks import build_network
from activelabel.errors import CheckpointError
from activelabel.files import atomic_path
from activelabel.reading import DAMAGED, AtMost, allowed_bytes, first_line, load_state, load_tensors

FORMAT, VERSION = "activelabel-encoder", 1

_WIDEST = 2**28
"""Bytes of the largest ResNet, which is there for a moment before a narrow one is."""

_KINDS: dict[str, type] = {
    "network": str,
    "stem": str,
    "width": int,
    "size": int,
    "mean": tuple,
    "std": tuple,
    "grey": bool,
    "dim": int,
    "epochs": int,
    "settings": dict,
    "source": str,
}


def write_encoder(path: Path, encoder: nn.Module, facts: dict[str, Any]) -> None:
    """Write an encoder, atomically.

    Parameters
    ----------
    path: the file.
    encoder: the network without its last linear layer.
    facts: ``network``, ``stem`` and ``width`` (see :func:`activelabel.data.networks.build_network`), ``size`` (side of
        its images, pixels), ``mean`` and ``std`` (three numbers each, for pixels from 0 to 1), ``grey`` (whether it saw
        grey images), ``dim`` (features an image), ``epochs`` (trained), ``settings``, ``source`` (the cohort's name).
    """
    write_tensors(path, FORMAT, {**{name: facts[name] for name in _KINDS}, "state": encoder.state_dict()})


def load_encoder(path: str | Path, network: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Return a frozen feature extractor and what is known of it; nothing in the file is executed.

    Parameters
    ----------
    path: the file, or the folder that holds it as ``encoder.pt``.
    network: ``"module:function"``, where the encoder is a network of your own: the function is called only if it is
        given here too, since a file from a stranger could name any.

    Returns
    -------
    A module in evaluation mode that maps float32 ``(B, 3, size, size)``, from which ``mean`` was taken and that was
    divided by ``std``, to ``(B, dim)``; grey images have their channel three times. And the facts that
    :func:`write_encoder` lists.

    Raises
    ------
    CheckpointError: if the file is missing, damaged, or no encoder of this format.
    """
    path = Path(path)
    path = path / "encoder.pt" if path.is_dir() else path
    content = read_tensors(path, FORMAT)
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name), kind):
            raise CheckpointError(f"{path}: a damaged encoder: its '{name}' is {content.get(name)!r}.")
    if not isinstance(content.get("state"), dict):
        raise CheckpointError(f"{path}: a damaged encoder: it has no weights.")
    own = content["network"]
    if ":" in own and network != own:
        raise CheckpointError(
            f"{path}: made with a network of somebody's own, '{own}'. Where you trust that function, "
            f"load_encoder(path, network='{own}') calls it."
        )
    try:
        with AtMost(allowed_bytes(path.stat().st_size) + _WIDEST):
            built = build_network(own, weights="random", stem=content["stem"], width=content["width"])
    except DAMAGED as error:
        raise CheckpointError(f"{path}: its network cannot be built: {first_line(error)}") from None
    encoder, _ = headless(built)
    load_exactly(encoder, content.pop("state"), path)
    return encoder.eval().requires_grad_(False), {name: content[name] for name in _KINDS}


def write_tensors(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically.

    Parameters
    ----------
    path: the file.
    kind: name of the format, kept with its version.
    content: dicts, lists and tuples of tensors and plain values.
    """
    buffer = io.BytesIO()  # torch tells no OSError where a file cannot be written
    torch.save({"format": kind, "version": VERSION, **content}, buffer)
    with atomic_path(path) as temporary:
        # No view of the buffer: one that outlives a full disk, in a traceback, keeps it from being closed.
        temporary.write_bytes(buffer.getvalue())


def read_tensors(path: Path, kind: str) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote, on the CPU.

    Raises
    ------
    CheckpointError: if the file is missing, damaged, of another program, or of another version.
    """
    try:
        with path.open("rb") as stream:
            content = load_tensors(stream)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable {kind} ({first_line(error)}). Is it complete?") from None
    values: dict[str, Any] = content if isinstance(content, dict) else {}
    form, version = values.get("format"), values.get("version")
    # The types first: whether a tensor equals something may have no single answer.
    if not isinstance(form, str) or form != kind:
        raise CheckpointError(f"{path}: not a file of the format {kind}.")
    if not isinstance(version, int) or version != VERSION:
        raise CheckpointError(f"{path}: {kind} {version}, this version reads {VERSION}; upgrade activelabel.")
    return values


def load_exactly(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that has every tensor of a module and no other.

    Raises
    ------
    CheckpointError: if it does not.
    """
    try:
        load_state(module, state)
    except DAMAGED as error:
        raise CheckpointError(f"{path}: its weights do not fit its network ({first_line(error)}).") from None
