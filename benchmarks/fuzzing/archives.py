"""Changing zips: npz cohorts and what ``torch.save`` wrote, their members, headers, arrays and pickles."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from activelabel.reading import DAMAGED
from benchmarks.fuzzing.mutation import (
    FLOATS,
    NUMBERS,
    TEXTS,
    Random,
    any_value,
    change_bytes,
    change_json,
    change_tree,
    value_like,
)


def members(data: bytes) -> dict[str, bytes]:
    """Return the members of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], packed: bool = False) -> bytes:
    """Return a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


@lru_cache
def zip_bomb(name: str, head: bytes, size: int = 3 * 2**29) -> bytes:
    """Return a small zip with a member of ``size`` bytes, zeros after ``head``."""
    stream, block = io.BytesIO(), bytes(2**20)
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        member.write(head)
        for left in range(size - len(head), 0, -len(block)):
            member.write(block[:left])
    return stream.getvalue()


DTYPES = (
    *(
        "<f4",
        "<f8",
        "<f2",
        ">f4",
        "<i8",
        "|i1",
        "|u1",
        "<u8",
        "|b1",
        "<U1",
        "<U0",
        "|S0",
        "|S3",
        "|V0",
        "|V8",
        "|O",
        "<c8",
    ),
    *("<M8[s]", "<m8", "<f16", "<U1000000000", "|S2147483647", "<i3", "x", ">U4"),
)
ARRAY_NAMES = (
    *("features", "embeddings", "images", "labels", "label_names", "no_finding", "normal", "age", "sex", "female"),
    *("view", "frontal", "patient_id", "split", "split_names", "filename", "source"),
)


def npy(dtype: str, shape: str, body: bytes, fortran: str = "False", version: int = 1) -> bytes:
    """Return a member of an npz file with any header."""
    header = (
        f"{{'descr': {dtype if dtype[:1] in '[(' else repr(dtype)}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    )
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + size + header.encode("latin-1", "replace") + body


def _any_array(rng: Random, rows: int) -> bytes:
    if rng.random() < 0.3:
        sizes = rng.choices((rows, *NUMBERS), k=rng.randrange(4))
        written = "(" + "".join(f"{size}," for size in sizes) + ")"
        dtype = rng.choice(DTYPES) if rng.random() < 0.9 else "[('a', '<f4'), ('b', '|O')]"
        return npy(
            dtype,
            written,
            rng.randbytes(rng.choice((0, 8, 64))),
            rng.choice(("False", "True", "2")),
            rng.choice((1, 2, 3, 9)),
        )
    shape = (rows, *rng.choices((1, 2, 3), k=rng.randrange(3)))
    kind = rng.randrange(6)
    array: Any
    if kind == 0:
        array = np.array(rng.choices(FLOATS, k=int(np.prod(shape)))).reshape(shape)
    elif kind == 1:
        array = np.array([n % 2**63 for n in rng.choices(NUMBERS, k=int(np.prod(shape)))]).reshape(shape)
    elif kind == 2:
        array = np.array([t[:20] for t in rng.choices(TEXTS, k=rows)])
    elif kind == 3:
        array = np.array([t[:20].encode("utf-8") for t in rng.choices(TEXTS, k=rows)])
    elif kind == 4:
        array = np.array(any_text(rng))
    else:
        array = (
            np.random.default_rng(rng.randrange(99))
            .integers(-1, 2, shape)
            .astype(rng.choice(("i1", "u1", "f4", "bool")))
        )
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def any_text(rng: Random) -> str:
    """Return a text, at times JSON."""
    return json.dumps(any_value(rng)) if rng.random() < 0.5 else rng.choice(TEXTS)


def change_npz(data: bytes, rng: Random) -> bytes:
    """Return a changed npz file."""
    try:
        parts = members(data)
    except DAMAGED:
        parts = {}
    if not parts or rng.random() < 0.25:
        return change_bytes(data, rng, (b"PK\x01\x02", b"PK\x05\x06", b"|O", b"\x93NUMPY"))
    rows = rng.choice((6, 6, 6, 6, 0, 1, 5))
    for _ in range(1 + int(rng.expovariate(0.9))):
        name, kind = rng.choice(list(parts)), rng.randrange(8)
        if kind < 3:
            parts[name] = _any_array(rng, rows)
        elif kind == 3:
            parts[rng.choice(ARRAY_NAMES) + ".npy"] = _any_array(rng, rows)
        elif kind == 4 and len(parts) > 1:
            del parts[name]
        elif kind == 5:
            parts[rng.choice((*(f"{n}.npy" for n in ARRAY_NAMES), "../x.npy", "/etc/x.npy", " ", "x"))] = parts[name]
        elif kind == 6:
            parts[name] = change_bytes(parts[name], rng)
        else:
            parts[name] = parts[rng.choice(list(parts))]
    return zipped(parts, packed=rng.random() < 0.2)


_PICKLED = (
    *(
        b"cos\nsystem\n",
        b"cbuiltins\nbytearray\n",
        b"ccollections\nCounter\n",
        b"ctorch._utils\n_rebuild_sparse_tensor\n",
    ),
    *(
        b"\x8a\xffxxx",
        b"h\x00",
        b"R",
        b"b",
        b"}",
        b"(",
        b"t",
        b"N",
        b"\x88",
        b"J\xff\xff\xff\x7f",
        b"M\xff\xff",
        b"K\x00",
        b"0",
        b"2",
    ),
)


def any_tensor(rng: Random, before: Any) -> Any:
    """Return a tensor that differs from ``before``, or no tensor at all."""
    if not isinstance(before, torch.Tensor) or rng.random() < 0.2:
        value = value_like(rng, before)
        return value if rng.random() < 0.8 else torch.tensor(rng.choice(FLOATS))
    kind = rng.randrange(8)
    if kind == 0:
        return before.to(
            rng.choice((torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64))
        )
    if kind == 1:
        return torch.full_like(before, rng.choice(FLOATS) if before.is_floating_point() else 1)
    if kind == 2:
        return torch.zeros(rng.choices((0, 1, 2, 3, 7), k=rng.randrange(4)))
    if kind == 3:
        return torch.zeros(1).expand(rng.choice((10, 10**6, 10**12)))
    if kind == 4 and before.dim():
        return before[: rng.randrange(len(before) + 1)].clone()
    if kind == 5:
        return before.flatten() if before.dim() != 1 else before[None]
    if kind == 6:
        return torch.zeros(2, 2).to_sparse()
    return (
        torch.from_numpy(np.frombuffer(rng.randbytes(before.numel()), np.uint8).copy())
        .to(before.dtype)
        .view(before.shape)
    )


def torch_bytes(tree: Any) -> bytes:
    """Return what ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(tree, stream)
    return stream.getvalue()


def change_torch(data: bytes, rng: Random) -> bytes:
    """Return a changed file of ``torch.save``."""
    kind = rng.random()
    try:
        if kind < 0.55:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = torch.load(io.BytesIO(data), weights_only=True)
            return torch_bytes(change_tree(tree, rng, any_tensor))
        if kind < 0.8:
            parts = members(data)
            name = next(n for n in parts if n.endswith("data.pkl")) if rng.random() < 0.7 else rng.choice(list(parts))
            parts[name] = change_bytes(parts[name], rng, _PICKLED)
            return zipped(parts, packed=rng.random() < 0.1)
    except Exception:  # the bytes were changed before, so that they are no such file
        pass
    return change_bytes(data, rng, _PICKLED)


def change_model(data: bytes, rng: Random) -> bytes:
    """Return a changed model file."""
    try:
        parts = members(data)
        header, tensors = parts["header.json"], parts["tensors.pt"]
    except Exception:  # as above
        return change_bytes(data, rng)
    kind = rng.randrange(10)
    if kind < 5:
        parts["header.json"] = change_json(header, rng)
    elif kind < 8:
        parts["tensors.pt"] = change_torch(tensors, rng)
    elif kind == 8:
        return change_bytes(data, rng)
    else:
        parts[rng.choice(("../../x", "/etc/x", "data", "pytorch_variables.pth", "header.json", "tensors.pt"))] = (
            rng.choice((header, tensors, b""))
        )
    return zipped(parts, packed=rng.random() < 0.1)
