"""Model files: a zip of ``header.json`` and ``tensors.pt``, written atomically and read without unpickling anything.

Stable-Baselines3 pickles spaces, schedules and classes into its zips; reading one runs code from the file. Here the
header is JSON and the tensors are read by :mod:`activelabel.reading`, so that a model from a stranger is safe to open.

A path that ends in ``.safetensors`` is written, and read, in that format: the same tensors, one by one, and in its
metadata the same header and where in the nested dicts and lists each tensor stands.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from activelabel.errors import CheckpointError
from activelabel.files import atomic_path
from activelabel.reading import DAMAGED, check_unpacked, first_line, load_tensors

FORMAT = "activelabel-model"
VERSION = 1
SAFETENSORS = ".safetensors"
"""Suffix of model files in the format of that name."""


def write_model(path: str | os.PathLike[str], agent: str, header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a model file.

    Parameters
    ----------
    path: ``.zip`` is added where there is no suffix, as Stable-Baselines3 does; or it ends in ``.safetensors``.
    agent: name of the class that can read it.
    header: JSON-serialisable.
    tensors: nested dicts and lists of tensors and plain numbers.
    """
    path = model_path(path)
    text = json.dumps({"format": FORMAT, "version": VERSION, "agent": agent, **header}, indent=1)
    if path.suffix == SAFETENSORS:
        flat: dict[str, Tensor] = {}
        metadata = {"header": text, "structure": json.dumps(_described(tensors, "", flat))}
        with atomic_path(path) as temporary:
            save_file(flat, temporary, metadata)
        return
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("header.json", text)
        archive.writestr("tensors.pt", buffer.getvalue())


def _described(value: Any, name: str, flat: dict[str, Tensor]) -> Any:
    """Put the tensors of nested values into ``flat``; returns the rest as JSON, for :func:`_restored`."""
    if isinstance(value, Tensor):
        flat[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _described(entry, f"{name}/{key}", flat)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_described(entry, f"{name}/{i}", flat) for i, entry in enumerate(value)]}
    return {"value": value}


def _restored(found: Any, flat: dict[str, Tensor]) -> Any:
    """Return the nested values that :func:`_described` described."""
    ((kind, inside),) = found.items()
    if kind == "tensor":
        return flat[inside]
    if kind == "dict":
        return {key: _restored(entry, flat) for key, entry in inside}
    if kind in ("list", "tuple"):
        entries = [_restored(entry, flat) for entry in inside]
        return entries if kind == "list" else tuple(entries)
    if kind != "value" or isinstance(inside, dict | list):
        raise ValueError("its structure is not that of a model")
    return inside


def _read_safetensors(path: Path) -> tuple[Any, Any]:
    """Return header and tensors, unchecked."""
    try:
        with safe_open(path, "pt", "cpu") as file:
            metadata = file.metadata() or {}
            if not {"header", "structure"} <= set(metadata):
                raise CheckpointError(f"{path}: not an ActiveLabel model (it has no header).")
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except SafetensorError as error:
        raise ValueError(first_line(error)) from None
    return json.loads(metadata["header"]), _restored(json.loads(metadata["structure"]), flat)


def _read_zip(path: Path) -> tuple[Any, bytes]:
    """Return the header, unchecked, and the file of the tensors."""
    with zipfile.ZipFile(path) as archive:
        check_unpacked(archive, path.stat().st_size)
        names = set(archive.namelist())
        if "header.json" not in names or "tensors.pt" not in names:
            hint = (
                " It is a file of Stable-Baselines3's own save, with pickled objects: reading them could run code. "
                "Where you trust it, load it with the class that saved it."
                if {"data", "pytorch_variables.pth"} <= names
                else ""
            )
            raise CheckpointError(
                f"{path}: not an ActiveLabel model (it holds {', '.join(sorted(names)) or 'nothing'}).{hint}"
            )
        return json.loads(archive.read("header.json")), archive.read("tensors.pt")


def model_path(path: str | os.PathLike[str]) -> Path:
    """Return the path with ``.zip`` added where it has no suffix."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(".zip")


def read_model(path: str | os.PathLike[str], agent: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a model file; returns its header and its tensors, on the CPU.

    Parameters
    ----------
    path: the file.
    agent: the agent that it must be of; by default any.

    Raises
    ------
    CheckpointError: if the file is missing, truncated, of another program, of a newer version, or of another agent.
    """
    path = model_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such model file.")
    try:
        header, tensors = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_zip(path)
        json.dumps(header, ensure_ascii=False).encode()  # text that cannot be printed is found here
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not an ActiveLabel model.")
        if header.get("version") != VERSION:
            raise CheckpointError(
                f"{path}: model format {header.get('version')}, this version reads {VERSION}; upgrade activelabel."
            )
        if agent is not None and header.get("agent") != agent:
            raise CheckpointError(f"{path}: a model of {header.get('agent')}, not of {agent}.")
        if isinstance(tensors, bytes):
            tensors = load_tensors(io.BytesIO(tensors))
        if not isinstance(tensors, dict):
            raise CheckpointError(f"{path}: not an ActiveLabel model: its tensors have no names.")
    except CheckpointError:
        raise
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: damaged or not a model file ({first_line(error)}). Use a copy of it, or train again."
        ) from None
    return header, tensors
