"""A selector for large pools: the gated one against the BiLSTM at pool 1000, and choosing from up to a million images.

::

    OMP_NUM_THREADS=2 python -m benchmarks.large_pool

First a forward pass and a whole REINFORCE update of both selectors at 64 x 1000 x 512, in turns. Then the gated
one (or with ``--selector`` mlp or deep-sets), trained at pool 1000 by these few updates alone, since time does not
depend on the weights, selects from feature files that are memory-mapped, in a fresh process each. Beside its seconds
stand those of what cannot be left out: one pass over the file (the sum of its numbers) and the product of the images
with the weights of the first layer.

Memory is of the fresh process (``/proc``, Linux). VmHWM is the peak of all its pages, those of the mapped file among
them, which the system takes back when it needs them; RssAnon, looked at every 5 ms, is what is its own. The file was
just written, so that most of it is read from the page cache.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from activelabel.agents import SELECTORS, Reinforce, select_images
from activelabel.data.derived import ROWS, blocks
from activelabel.seeding import stream
from benchmarks.paper_size import paper_env
from benchmarks.processes import in_fresh_process

FASTER = 5.0
"""How many times faster than the BiLSTM the other has to be at least."""
SECONDS = {100_000: 2.0, 1_000_000: 60.0}
"""What selecting from so many images may take."""
GIGABYTES = 4.0
"""Memory that it may take."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurement."""

    repeats: int = 3
    """Timed turns of each contestant, after one that is not counted."""
    batch: int = 64
    """Tasks an update."""
    pool: int = 1000
    """Images in the pool of a task."""
    k: int = 10
    """Images to choose."""
    n_samples: int = 8
    """Selections for each task."""
    selector: str = "gated"
    """What is compared with the BiLSTM: gated, mlp or deep-sets."""
    hidden: int = 64
    """Units of its layers; the BiLSTM has the paper's 256."""
    images: tuple[int, ...] = (100_000, 1_000_000)
    """Images to select from."""


@dataclass(frozen=True)
class Selection:
    """What selecting from a file of features cost: seconds (medians) of it and of the bare parts, and gigabytes."""

    seconds: float
    read: float
    product: float
    peak: float
    anonymous: float


def main(settings: Settings) -> None:
    """Measure and print."""
    s = settings
    print(f"{torch.get_num_threads()} threads, {s.repeats} repeats, K = {s.k}, M = {s.n_samples}")
    bilstm, model = make_model("bilstm", 256, s), make_model(s.selector, s.hidden, s)
    sizes = f"{s.batch} x {s.pool} x {model.policy.dims['pool']}"
    print(f"{sizes}: {'BiLSTM, s':>10} {s.selector:>9}, s {'times faster':>13}")
    for what, (slow, fast) in measure_speed(bilstm, model, s).items():
        print(f"{what:<15} {slow:>12.3f} {fast:>12.3f} {slow / fast:>13.1f}  (bar {FASTER:g})", flush=True)
    titles = f"{'bar':>4} {'one read':>9} {'product':>8} {'ratio':>6} {'VmHWM, GB':>10} {'RssAnon':>8}"
    print(f"{'images':>9} {'s':>6} {titles}")
    for n in s.images:
        f = measure_selection(model, n, s)
        ratio = f.seconds / (f.read + f.product)
        parts = f"{f.read:>9.2f} {f.product:>8.2f} {ratio:>6.2f} {f.peak:>10.2f} {f.anonymous:>8.2f}"
        print(f"{n:>9} {f.seconds:>6.2f} {SECONDS.get(n, float('nan')):>4g} {parts}", flush=True)


def limits(settings: Settings) -> list[tuple[str, float, float]]:
    """Return what is measured, the figure, and what it may be at most."""
    s = settings
    bilstm, model = make_model("bilstm", 256, s), make_model(s.selector, s.hidden, s)
    found = [
        (f"{what} of {s.selector} / of the BiLSTM", fast / slow, 1 / FASTER)
        for what, (slow, fast) in measure_speed(bilstm, model, s).items()
    ]
    for n in s.images:
        selection = measure_selection(model, n, s)
        found.append((f"selecting from {n:,} images on disk, s", selection.seconds, SECONDS.get(n, float("nan"))))
        found.append((f"selecting from {n:,} images on disk, peak, GB", selection.peak, GIGABYTES))
    return found


def make_model(selector: str, hidden: int, settings: Settings) -> Reinforce:
    """Return an untrained selector with an env of the paper's sizes."""
    s = settings
    return Reinforce(
        SELECTORS[selector],
        paper_env(s.batch, pool=s.pool, k=s.k, device="cpu"),
        batch_size=s.batch,
        n_samples=s.n_samples,
        policy_kwargs={"hidden": hidden},
        seed=0,
        device="cpu",
    )


def measure_speed(bilstm: Reinforce, other: Reinforce, settings: Settings) -> dict[str, tuple[float, float]]:
    """Return the median seconds of the BiLSTM and of the other for a forward pass and for an update."""
    shape = (settings.batch, settings.pool, other.policy.dims["pool"])
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[list[float]]] = {"forward": [[], []], "update": [[], []]}
    for turn in range(settings.repeats + 1):
        for place, model in enumerate((bilstm, other)):
            start = time.perf_counter()
            with torch.no_grad():
                model.policy.selector(images)
            middle = time.perf_counter()
            model.learn(settings.batch, log_interval=0, reset_num_timesteps=turn == 0)
            end = time.perf_counter()
            if turn:
                found["forward"][place].append(middle - start)
                found["update"][place].append(end - middle)
    return {name: (statistics.median(slow), statistics.median(fast)) for name, (slow, fast) in found.items()}


def measure_selection(model: Reinforce, n: int, settings: Settings) -> Selection:
    """Select from a memory-mapped file of ``n`` images in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.zip")
        write_features(Path(folder) / "features.npy", n, model.policy.dims["pool"])
        return in_fresh_process(_measure_here, Path(folder), settings, torch.get_num_threads())


def write_features(path: Path, n: int, dim: int) -> None:
    """Write normally distributed float32 features ``(n, dim)``, some rows at a time."""
    rng = stream(0, "large pool")
    features = np.lib.format.open_memmap(path, "w+", np.float32, (n, dim))
    for block in blocks(n):
        features[block] = rng.standard_normal((block.stop - block.start, dim), dtype=np.float32)
    features.flush()


def _measure_here(folder: Path, settings: Settings, threads: int) -> Selection:
    torch.set_num_threads(threads)
    model = Reinforce.load(folder / "model.zip", device="cpu")
    features = np.load(folder / "features.npy", mmap_mode="r")
    seconds, read, product = [], [], []
    ended = threading.Event()
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(ended, peak))
    watch.start()
    for _ in range(settings.repeats):
        start = time.perf_counter()
        select_images(model, features, settings.k)
        seconds.append(time.perf_counter() - start)
    ended.set()
    watch.join()
    largest = _memory("VmHWM")
    weights = torch.zeros(features.shape[1], settings.hidden)
    for _ in range(settings.repeats):
        start = time.perf_counter()
        for block in blocks(len(features)):
            features[block].sum()
        read.append(time.perf_counter() - start)
        images = torch.zeros(ROWS, features.shape[1])
        start = time.perf_counter()
        for _ in blocks(len(features)):
            images @ weights
        product.append(time.perf_counter() - start)
    middle = statistics.median
    return Selection(middle(seconds), middle(read), middle(product), largest, peak[0])


def _watch(ended: threading.Event, peak: list[float]) -> None:
    while not ended.wait(0.005):
        peak[0] = max(peak[0], _memory("RssAnon"))


def _memory(name: str) -> float:
    """Return a size of ``/proc/self/status`` in gigabytes (10^9 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024e-9 for line in lines if line.startswith(f"{name}:")), float("nan"))


if __name__ == "__main__":
    main(tyro.cli(Settings))
