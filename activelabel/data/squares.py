"""The images of a training as squares of one size: in memory where they fit, else decoded batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from activelabel.data.cohort import IntArray
from activelabel.data.images import Pixels, fit
from activelabel.seeding import stream

_AHEAD = 2
_SAMPLE = 64
_STATISTICS = 1024


class Squares:
    """Some of a cohort's images, uint8 ``(C, size, size)`` each.

    Threads decode and resize: Pillow and NumPy let go of the interpreter's lock meanwhile. Close it when done.

    Parameters
    ----------
    images: a sequence of uint8 images.
    rows: int64, which of them, in this order; no repeats are looked for.
    size: side, pixels.
    grey: keep one channel, else three; a coloured image then becomes the mean of its colours.
    memory: GiB; where all images take no more they are decoded once, now.
    workers: threads.
    progress: show a bar while decoding.

    Raises
    ------
    DataError: if an image cannot be read; here, or when its batch is looked at.
    """

    def __init__(
        self, images: Any, rows: IntArray, size: int, *, grey: bool, memory: float, workers: int, progress: bool = False
    ) -> None:
        self._images, self._rows, self._size, self._grey = images, rows, size, grey
        self._pool = ThreadPoolExecutor(workers)
        self._memory: NDArray[np.uint8] | None = None
        self.shape = (1 if grey else 3, size, size)
        if len(rows) * np.prod(self.shape) > memory * 2**30:
            return
        stored = np.empty((len(rows), *self.shape), dtype=np.uint8)
        with tqdm(total=len(rows), unit="img", desc="reading images", disable=not progress, dynamic_ncols=True) as bar:
            for start in range(0, len(rows), 1024):
                positions = range(start, min(start + 1024, len(rows)))
                for position, square in zip(positions, self._pool.map(self._square, positions), strict=True):
                    stored[position] = square
                bar.update(len(positions))
        self._memory = stored

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def in_memory(self) -> bool:
        """Whether all images are decoded already."""
        return self._memory is not None

    def batches(self, positions: IntArray, size: int) -> Iterator[Tensor]:
        """Yield uint8 ``(size, C, side, side)``, the last one maybe shorter; decoding runs two batches ahead.

        Parameters
        ----------
        positions: int64, numbers from 0 to ``len(self) - 1``.
        size: images in a batch.
        """
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]
        if self._memory is not None:
            for part in parts:
                yield torch.from_numpy(self._memory[part])
            return
        coming: deque[list[Future[Pixels]]] = deque()
        try:
            for i in range(len(parts) + _AHEAD):
                if i < len(parts):
                    coming.append([self._pool.submit(self._square, int(position)) for position in parts[i]])
                if i >= _AHEAD:
                    yield torch.from_numpy(np.stack([future.result() for future in coming.popleft()]))
        finally:
            for future in (f for futures in coming for f in futures):
                future.cancel()

    def statistics(self, seed: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return mean and standard deviation of each colour, for pixels from 0 to 1, over at most 1024 images.

        Parameters
        ----------
        seed: of the choice of images.
        """
        chosen = np.sort(stream(seed, "pixel statistics").permutation(len(self))[:_STATISTICS])
        count, total, squared = 0, np.zeros(self.shape[0]), np.zeros(self.shape[0])
        for batch in self.batches(chosen, 64):
            pixels = batch.numpy().astype(np.float64) / 255
            count += pixels.size // self.shape[0]
            total += pixels.sum(axis=(0, 2, 3))
            squared += (pixels**2).sum(axis=(0, 2, 3))
        mean = total / count
        deviation = np.sqrt(np.maximum(squared / count - mean**2, 1e-6))  # of black images too
        return _three(mean), _three(deviation)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _square(self, position: int) -> Pixels:
        square = fit(self._images[int(self._rows[position])], self._size)
        if not self._grey:
            return np.ascontiguousarray(square.transpose(2, 0, 1))
        if _is_grey(square):
            return square[None, :, :, 0]
        mixed: Pixels = np.round(square.mean(axis=2)).astype(np.uint8)
        return mixed[None]


def all_grey(images: Sequence[Any], rows: IntArray) -> bool:
    """Return whether images have no colours, as 64 of them say that are spread over the rows.

    Parameters
    ----------
    images: a sequence of uint8 images ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
    rows: int64, which of them.
    """
    spread = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
    return all(_is_grey(np.atleast_3d(np.asarray(images[int(row)]))) for row in rows[spread])


def _is_grey(image: NDArray[Any]) -> bool:
    return bool((image == image[:, :, :1]).all())


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.broadcast_to(values, (3,)).tolist()
    return red, green, blue
