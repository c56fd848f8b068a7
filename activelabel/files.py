"""Writing files so that a crash, a full disk or a power cut leaves the old one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from activelabel.errors import WriteError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, since ``numpy.savez`` and matplotlib choose by it. The file is flushed
    to disk before the rename, so that a power cut cannot leave an empty file under the final name, and the folder
    after it, so that of two files that were written one after the other the second is never there without the first.

    Raises
    ------
    WriteError: if the system refuses to write: a full disk, a folder without permission.
    """
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; the final one gets the permissions a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        raise WriteError(
            f"{target}: not written ({error.strerror or error}). What was there before is whole: make room, or name a "
            "folder that you may write to, and give the command again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can: the rename itself is done."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_abandoned(path: str | os.PathLike[str]) -> None:
    """Remove what :func:`atomic_path` left beside ``path`` in a process that was killed.

    For files that one process at a time writes: another's unfinished file would be removed too.
    """
    target = Path(path)
    for entry in list(os.scandir(target.parent)):
        if entry.name.startswith(f".{target.stem}-") and entry.name.endswith(target.suffix):
            Path(entry.path).unlink(missing_ok=True)


def reserve(path: str | os.PathLike[str]) -> None:
    """Take the room on disk that a file of holes will need, where the system can.

    Writing to a memory map on a full disk kills the process.

    Raises
    ------
    OSError: if there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with Path(path).open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
