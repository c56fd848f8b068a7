"""Where the cells of a study are computed: processes here, or a cluster that runs already; through joblib.

Cells carry settings and paths, never arrays. A cluster's machines must see the study's folder and the package.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from activelabel.errors import SettingsError, unknown
from activelabel.evaluation.study.cells import Cell, run_cell
from activelabel.evaluation.study.spec import StudyError

BACKENDS = ("loky", "dask", "ray")
"""Processes on this machine; Dask and Ray, here or on a cluster."""

TIMEOUT = 12
"""Seconds for a connection, and as many for an answer, after which a cluster counts as unreachable."""


@dataclass(frozen=True)
class Workers:
    """What computes cells.

    Parameters
    ----------
    compute: computes all cells; ends at the first error.
    lost: the errors that say that a worker died; what it had not finished can be computed again.
    """

    compute: Callable[[Sequence[Cell], Path], None]
    lost: tuple[type[BaseException], ...]


def check_backend(name: str, address: str | None, jobs: int) -> None:
    """Check the choice of a backend.

    Raises
    ------
    SettingsError: if it is unknown, its package is missing, or the address is not for it.
    """
    if name not in BACKENDS:
        raise SettingsError(unknown("backend", name, BACKENDS))
    if address is not None and name == "loky":
        raise SettingsError(f"--address {address}: loky's workers are on this machine; give --backend dask or ray.")
    if jobs < 1:
        raise SettingsError(f"--jobs {jobs}: must be at least 1.")
    if name != "loky":
        _package("distributed" if name == "dask" else name, name)


@contextmanager
def connected(name: str, address: str | None = None, jobs: int = 2) -> Iterator[Workers]:
    """Connect to workers, or start them.

    Parameters
    ----------
    name: one of :data:`BACKENDS`.
    address: of a running cluster: Dask's scheduler (``tcp://host:8786``), Ray (``host:6379``, ``ray://host:10001``,
        ``auto``).
    jobs: cells at a time; a cluster that runs already is used whole.

    Raises
    ------
    SettingsError: as :func:`check_backend`.
    StudyError: if there is no cluster at the address.
    """
    check_backend(name, address, jobs)
    start = {"loky": _loky, "dask": _dask, "ray": _ray}[name]
    with start(address, jobs) as workers:
        yield workers


@contextmanager
def _loky(address: str | None, jobs: int) -> Iterator[Workers]:
    with parallel_config("loky", n_jobs=jobs):
        yield Workers(lambda cells, out: _parallel(cells, out, os.getpid()), (BrokenProcessPool,))


@contextmanager
def _dask(address: str | None, jobs: int) -> Iterator[Workers]:
    distributed = _package("distributed", "dask")
    if address is not None:
        _reach(address, 8786)
    cluster = None
    if address is None:
        cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    client = _answer("Dask scheduler", address, lambda: distributed.Client(address or cluster, timeout=TIMEOUT))
    try:
        with parallel_config("dask", client=client):
            yield Workers(lambda cells, out: _parallel(cells, out, 0), (distributed.KilledWorker, CancelledError))
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


@contextmanager
def _ray(address: str | None, jobs: int) -> Iterator[Workers]:
    ray = _package("ray", "ray")
    if address not in (None, "auto"):
        _reach(str(address), 6379)
    # Without "local" it would join a cluster that happens to run on this machine.
    own = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
    local = own if address is None else {"address": address}
    _answer("Ray cluster", address, lambda: ray.init(log_to_driver=False, logging_level="ERROR", **local))
    try:
        _package("ray.util.joblib", "ray").register_ray()
        with parallel_config("ray", n_jobs=jobs if address is None else -1):
            yield Workers(lambda cells, out: _parallel(cells, out, 0), (ray.exceptions.RayError,))
    finally:
        ray.shutdown()


def _parallel(cells: Sequence[Cell], out: Path, study: int) -> None:
    Parallel(batch_size=1)(delayed(run_cell)(cell, out, study) for cell in cells)


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise SettingsError(f"--backend {extra} needs a package: pip install 'activelabel[{extra}]'.") from None


def _reach(address: str, port: int) -> None:
    """Raise a StudyError where nothing listens at ``[scheme://]host[:port]``."""
    host, _, given = address.rpartition("://")[2].partition(":")
    if "://" in address and not given:
        port = {"ray": 10001}.get(address.partition("://")[0], port)
    try:
        with socket.create_connection((host, int(given or port)), timeout=TIMEOUT):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise StudyError(_unreachable("cluster", address, error)) from None


def _answer(what: str, address: str | None, connect: Callable[[], Any]) -> Any:
    """Return what ``connect`` returns; a StudyError where it fails or where something answers that is no cluster.

    Both packages would then wait for minutes, or for ever. What is started here takes as long as it takes, and in this
    thread: what Ray starts ends with the thread that started it.
    """
    if address is None:
        return connect()
    found: list[Any] = []
    trouble: list[BaseException] = [TimeoutError(f"no answer within {TIMEOUT} s")]

    def work() -> None:
        try:
            found.append(connect())
        except (Exception, SystemExit) as error:
            trouble[0] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if not found:
        raise StudyError(_unreachable(what, address, trouble[0]))
    return found[0]


def _unreachable(what: str, address: str | None, error: BaseException) -> str:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return f"no {what} at {address} ({reason}). Is it running, and can this machine reach it?"
