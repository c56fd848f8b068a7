"""The same study on every backend: identical results; what is lost with a worker; unreachable clusters."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from study_files import ACTIVE, SELECTIVE, finished, write

from activelabel.data import Cohort
from activelabel.errors import SettingsError
from activelabel.evaluation.study import StudyError, backends, read_study, run_study
from activelabel.evaluation.study import run as running
from activelabel.evaluation.study.cells import Cell, TrainCell
from activelabel.evaluation.study.run import _compute_wave

pytestmark = pytest.mark.filterwarnings(
    # Of joblib, where a worker was killed, and of the packages themselves.
    "ignore:A worker stopped:UserWarning",
    "ignore::DeprecationWarning:ray",
    "ignore::FutureWarning:ray",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

PACKAGES = {"loky": "joblib", "dask": "distributed", "ray": "ray"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, blobs: Cohort) -> Path:
    once = {**SELECTIVE, "strategies": ["random", "kmedoids", "reinforce"], "k": [4]}
    episodes = {**ACTIVE, "strategies": ["random", "margin"], "batch": [3]}
    study = {"seeds": [0, 1], "grids": {"once": once, "episodes": episodes}}
    return write(tmp_path_factory.mktemp("study"), study, cohort, blobs)


@pytest.fixture(scope="module")
def alone(path: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of one process."""
    out = tmp_path_factory.mktemp("alone")
    run_study(read_study(str(path)), out, jobs=1, progress=False)
    return (out / "results.csv").read_bytes()


@pytest.mark.parametrize("backend", PACKAGES)
def test_every_backend_finds_the_same_to_the_last_digit(backend: str, path: Path, alone: bytes, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[backend])
    run_study(read_study(str(path)), tmp_path, backend, jobs=2, progress=False)
    assert (tmp_path / "results.csv").read_bytes() == alone


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_killed_worker_loses_nothing(
    backend: str, path: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(PACKAGES[backend])
    connected = backends.connected
    killed, over = threading.Event(), threading.Event()

    @backends.contextmanager
    def watched(*where: Any) -> Iterator[backends.Workers]:
        """Kill one worker once some cells are finished."""
        with connected(*where) as workers:

            def compute(cells: Sequence[Cell], out: Path) -> None:
                def kill() -> None:
                    while not (over.is_set() or killed.is_set()):
                        time.sleep(0.05)
                        for pid in _busy(out)[:1] if len(finished(out)) >= 2 else []:
                            os.kill(pid, signal.SIGKILL)
                            killed.set()

                if not killed.is_set():
                    threading.Thread(target=kill, daemon=True).start()
                workers.compute(cells, out)

            yield backends.Workers(compute, workers.lost)

    monkeypatch.setattr(running, "connected", watched)
    try:
        run_study(read_study(str(path)), tmp_path, backend, jobs=2, progress=False)
    finally:
        over.set()
    assert killed.is_set()
    assert (tmp_path / "results.csv").read_bytes() == alone


def _busy(out: Path) -> list[int]:
    """Return the processes that hold the lock of a cell open."""
    found = []
    for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            held = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if pid != os.getpid() and any(str(out / "locks") in name for name in held):
            found.append(pid)
    return found


def test_workers_that_keep_dying_end_the_study(tmp_path: Path) -> None:
    class Lost(Exception):
        pass

    calls = []

    def compute(cells: Sequence[Cell], out: Path) -> None:
        calls.append(len(cells))
        raise Lost

    class Never(TrainCell):
        def __init__(self) -> None:
            pass

        def finished(self, out: Path) -> bool:
            return False

    with pytest.raises(StudyError, match="workers died 3 times before a cell was finished"):
        _compute_wave([Never()], tmp_path, backends.Workers(compute, (Lost,)))
    assert calls == [1, 1, 1]


@pytest.mark.parametrize(("backend", "address"), [("dask", "tcp://127.0.0.1:{}"), ("ray", "127.0.0.1:{}")])
def test_an_address_where_nobody_listens(backend: str, address: str, path: Path, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[backend])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = address.format(taken.getsockname()[1])
        begun = time.monotonic()
        with (
            pytest.raises(StudyError, match=f"no cluster at {where} .*Is it running"),
            backends.connected(backend, where),
        ):
            pass
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(("backend", "address"), [("dask", "tcp://127.0.0.1:{}"), ("ray", "ray://127.0.0.1:{}")])
def test_an_address_where_something_else_listens(backend: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    pytest.importorskip(PACKAGES[backend])
    monkeypatch.setattr(backends, "TIMEOUT", 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = address.format(server.getsockname()[1])
        begun = time.monotonic()
        with pytest.raises(StudyError, match=f"at {where} "), backends.connected(backend, where):
            pass
    assert time.monotonic() - begun < 15


def test_addresses() -> None:
    for address in ("no.such.host.invalid:1", "127.0.0.1:port", "127.0.0.1:99999999"):
        with pytest.raises(StudyError, match="no cluster at"):
            backends._reach(address, 6379)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(backends, "import_module", missing)
    for name in ("dask", "ray"):
        with pytest.raises(SettingsError, match=rf"pip install 'activelabel\[{name}\]'"):
            backends.check_backend(name, None, 2)
