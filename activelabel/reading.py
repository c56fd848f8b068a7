"""Reading files of strangers: only plain values come out, and a small file cannot take much memory or time.

Every reader of a format that can be larger inside than outside goes through here: YAML with aliases, zips (npz cohorts
and model files), and what ``torch.save`` wrote.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import pickle
import pickletools
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from activelabel.errors import DataError, SettingsError

YAML_BYTES = 2**16
"""The longest YAML file that is read; ours have some 2 kB."""

FREE_BYTES, RATIO = 2**24, 64
"""An archive may unpack to so many bytes, and to so many times its own size besides."""

CLASSES = 2**25
"""Labels, rows times classes, of a file that is smaller than they are."""

_NODES, _DEPTH = 50_000, 50


class Unfit(ValueError):
    """What is wrong with a file; the caller puts its name before it."""


def read_yaml(path: Path) -> tuple[str, Any]:
    """Return the text of a YAML file, and its values: dicts, lists, texts, finite numbers, true, false and null.

    Raises
    ------
    FileNotFoundError: if there is none.
    SettingsError: if it cannot be read, is longer than :data:`YAML_BYTES`, or holds something else: tags, dates,
        numbers beyond 64 bits, aliases that refer to themselves or stand for more than 50,000 values, or 50 levels.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(YAML_BYTES + 1)
        if len(raw) > YAML_BYTES:
            raise Unfit(f"longer than {YAML_BYTES} bytes")
        text = raw.decode("utf-8")
        return text, _yaml_values(text)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML ({first_line(error)}).") from None


def _yaml_values(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _expand(node, _nodes_in)
        values = loader.construct_document(node)
    except RecursionError:
        raise Unfit(f"more than {_DEPTH} levels") from None
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:  # of !!int, !!timestamp ... that are none
        raise Unfit(f"a value is not of its type: {error!r}") from None
    finally:
        loader.dispose()
    _check_plain(values)
    return values


def _nodes_in(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return (part for pair in node.value for part in pair)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _expand(root: Any, inside: Callable[[Any], Iterable[Any]]) -> None:
    """Refuse what is too large, too deep or without an end once every reference is followed."""
    sizes: dict[int, int] = {}
    opened: set[int] = set()

    def size(value: Any) -> int:
        place = id(value)
        if place in opened:
            raise Unfit("a value that contains itself")
        if place not in sizes:
            opened.add(place)
            if len(opened) > _DEPTH:
                raise Unfit(f"more than {_DEPTH} levels")
            sizes[place] = 1 + sum(size(part) for part in inside(value))
            opened.remove(place)
            if sizes[place] > _NODES:
                raise Unfit(f"more than {_NODES} values, references counted as often as they are used")
        return sizes[place]

    size(root)


def _check_plain(value: Any) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_plain(key)
            _check_plain(entry)
    elif isinstance(value, list):
        for entry in value:
            _check_plain(entry)
    elif isinstance(value, str):
        if not encodable(value):
            raise Unfit(f"{value!r} is no text: half of a surrogate pair")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Unfit(f"{value} is not finite")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Unfit(f"a whole number of {value.bit_length()} bits")
    elif value is not None:
        raise Unfit(f"a {type(value).__name__}; put text in quotes")


def naming(path: str | os.PathLike[str], error: Exception) -> str:
    """Return an error's message, with the name of the file at its head if it has it nowhere."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def given_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as a user writes it: a leading ``~`` is a home folder, where there is such a user.

    Raises
    ------
    SettingsError: if it has a NUL in it.
    """
    if "\0" in os.fspath(path):
        raise SettingsError(f"{os.fspath(path)!r} has a NUL in it, as no path may.")
    return Path(os.path.expanduser(path))  # Path.expanduser fails where there is none


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON and numpy can hold halves of surrogate pairs, which cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# -- archives and tensors ---------------------------------------------------------------------------------------------

DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,  # of torch and zipfile, RecursionError and NotImplementedError among them
    MemoryError,  # of a header that says "huge"
    SyntaxError,  # of numpy's parser of headers
    tokenize.TokenError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What numpy, torch and zipfile raise while they read a damaged file."""

_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Bool")}
    | {f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte")}
)


def allowed_bytes(size: int) -> int:
    """Return what a file of ``size`` bytes may take of memory where it says itself how much."""
    return FREE_BYTES + RATIO * size


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Check that an archive is not far larger inside than outside; no member gives more than it declares.

    Parameters
    ----------
    archive: opened.
    size: of the file, bytes.

    Raises
    ------
    ValueError: if it is.
    """
    inside = sum(info.file_size for info in archive.infolist())
    if inside > allowed_bytes(size):
        raise Unfit(f"its {size} bytes unpack to {inside}; store them uncompressed")


def check_classes(where: str, rows: int, classes: int, size: int) -> None:
    """Check that a column of class names is one: a matrix of rows and classes is made of it.

    Parameters
    ----------
    where: the file and the column, for the message.
    rows, classes: how many there are.
    size: of the file, bytes.

    Raises
    ------
    DataError: if the matrix would be larger than :data:`CLASSES` numbers and than the file.
    """
    if rows * classes > max(CLASSES, size):
        raise DataError(f"{where}: {classes} classes in {rows} rows; are these labels, or names of images?")


def first_line(error: BaseException) -> str:
    """Return an error's message in one line of at most 300 characters, or its type where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_tensors(stream: BinaryIO) -> Any:
    """Return what ``torch.save`` wrote, on the CPU: dicts, lists, tuples, plain values and dense tensors.

    Nothing is unpickled but these: any other class or function that the file names is refused before it is looked up.

    Raises
    ------
    ValueError: if the file is damaged, holds something else, or is larger inside than outside.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused
            return _loaded(stream)
    except Unfit:
        raise
    except DAMAGED as error:
        raise Unfit(first_line(error)) from None


def _loaded(stream: BinaryIO) -> Any:
    size = stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        check_unpacked(archive, size)
        pickled = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise Unfit("no file of torch.save")
        _check_pickle(archive.read(pickled[0]))
        if (damaged := archive.testzip()) is not None:
            raise Unfit(f"its part {damaged} is damaged")
    stream.seek(0)
    loaded = torch.load(stream, map_location="cpu", weights_only=True)
    _expand(loaded, _values_in)
    if _bytes_of(loaded) > allowed_bytes(size):
        raise Unfit("its tensors are larger than the file")
    return loaded


def _check_pickle(raw: bytes) -> None:
    for operation, argument, _ in pickletools.genops(raw):
        name = operation.name
        if name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") and argument not in _GLOBALS:
            raise Unfit(f"refused: it names '{argument}', and reading that could run code; save tensors alone")


def _values_in(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    return value if isinstance(value, (list, tuple)) else ()


def _bytes_of(value: Any) -> int:
    """Return the bytes of all tensors; refuses what is neither a dense tensor nor a plain value."""
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        taken = value.numel() * value.element_size()
        if not dense or value.is_complex() or taken > value.untyped_storage().nbytes():
            raise Unfit(f"a tensor of {value.dtype} {tuple(value.shape)} that is not dense")
        return taken
    if isinstance(value, (dict, list, tuple)):
        return sum(_bytes_of(part) for part in _values_in(value))
    if value is not None and not isinstance(value, (str, int, float)):
        raise Unfit(f"a {type(value).__name__}")
    if isinstance(value, str) and not encodable(value):
        raise Unfit(f"{value!r} is no text: half of a surrogate pair")
    return 0


_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.empty_like, Tensor.new_zeros)


class AtMost(TorchFunctionMode):
    """Refuses, while the block runs, to make new tensors of more than so many bytes in all.

    A model file says how large its network is; this finds out whether that is true before the memory is taken.

    Parameters
    ----------
    limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the size of what ``func`` will make."""
        kwargs = kwargs or {}
        if func in _MAKERS and str(kwargs.get("device")) != "meta":
            planned = func(*args, **{**kwargs, "device": "meta"})
            self.left -= planned.numel() * planned.element_size()
            if self.left < 0:
                raise Unfit("it says that it is far larger than the file is")
        return func(*args, **kwargs)


def load_state(module: nn.Module, state: Any) -> None:
    """Load a state dict that has every tensor of a module, of its shape and type, finite, and no other.

    Raises
    ------
    ValueError: if it does not.
    """
    own = module.state_dict()
    if not isinstance(state, dict) or set(state) != set(own):
        raise Unfit("its weights are of another network")
    for name, tensor in own.items():
        _check_like(state[name], tensor, f"weights '{name}'")
    module.load_state_dict({name: state[name] for name in own})


def _check_like(given: Any, own: Tensor, what: str) -> None:
    if not isinstance(given, Tensor) or given.shape != own.shape or given.dtype != own.dtype:
        found = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise Unfit(f"{what}: {found} instead of {own.dtype} {tuple(own.shape)}")
    if given.is_floating_point() and not bool(given.isfinite().all()):
        raise Unfit(f"{what} are not finite")


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Load the state of an optimizer of the same parameters.

    Raises
    ------
    ValueError: if its numbers are of other shapes, or not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    groups, moments = state["param_groups"], state["state"]
    for group in groups:
        for name, value in group.items():
            numbers = value if isinstance(value, (list, tuple)) else [value]
            if not all(v is None or (isinstance(v, (int, float)) and math.isfinite(v)) for v in numbers):
                raise Unfit(f"its optimizer's {name} is {value!r}")
    for number, entry in moments.items():
        for name, value in entry.items():
            if value is not None:
                own = parameters[number] if name != "step" else torch.zeros(())
                _check_like(value, own, f"its optimizer's '{name}'")
    optimizer.load_state_dict(state)
