"""Model files: a zip of ``header.json`` and ``tensors.pt``, written atomically and read without unpickling anything.

Stable-Baselines3 pickles spaces, schedules and classes into its zips; reading one runs code from the file. Here the
header is JSON and the tensors are read by :mod:`activelabel.reading`, so that a model from a stranger is safe to open.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from activelabel.errors import CheckpointError
from activelabel.files import atomic_path
from activelabel.reading import DAMAGED, check_unpacked, first_line, load_tensors

FORMAT = "activelabel-model"
VERSION = 1


def write_model(path: str | os.PathLike[str], agent: str, header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a model file.

    Parameters
    ----------
    path: ``.zip`` is added where there is no suffix, as Stable-Baselines3 does.
    agent: name of the class that can read it.
    header: JSON-serialisable.
    tensors: nested dicts and lists of tensors and plain numbers.
    """
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    text = json.dumps({"format": FORMAT, "version": VERSION, "agent": agent, **header}, indent=1)
    with atomic_path(model_path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("header.json", text)
        archive.writestr("tensors.pt", buffer.getvalue())


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
            header = json.loads(archive.read("header.json"))
            json.dumps(header, ensure_ascii=False).encode()  # text that cannot be printed is found here
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not an ActiveLabel model.")
            if header.get("version") != VERSION:
                raise CheckpointError(
                    f"{path}: model format {header.get('version')}, this version reads {VERSION}; upgrade activelabel."
                )
            if agent is not None and header.get("agent") != agent:
                raise CheckpointError(f"{path}: a model of {header.get('agent')}, not of {agent}.")
            tensors = load_tensors(io.BytesIO(archive.read("tensors.pt")))
            if not isinstance(tensors, dict):
                raise CheckpointError(f"{path}: not an ActiveLabel model: its tensors have no names.")
    except CheckpointError:
        raise
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: damaged or not a model file ({first_line(error)}). Use a copy of it, or train again."
        ) from None
    return header, tensors
