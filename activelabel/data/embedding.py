"""Embedding: from the images of a cohort to its features."""

from __future__ import annotations

import os
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from activelabel.data.backbones import Backbone
from activelabel.data.cache import FeatureCache
from activelabel.data.cohort import Cohort, IntArray
from activelabel.data.images import ImageFiles, Pixels, UnreadableImage, content, content_of, fit
from activelabel.errors import DataError, SettingsError, unknown
from activelabel.files import atomic_path

UNREADABLE = ("refuse", "skip")
"""What is done about images that cannot be read."""

_CHUNK = 4096


@dataclass(frozen=True)
class EmbedSettings:
    """How images are embedded.

    Parameters
    ----------
    batch_size: images in a forward pass. Every pass has as many, so that an image's features do not depend on what
        was embedded with it or before it.
    workers: threads that read, decode and resize ahead of the network.
    unreadable: ``"refuse"`` (look at all images, keep what was embedded, then refuse with a list) or ``"skip"``.
    progress: show a bar with the time left.

    Raises
    ------
    SettingsError: if a value is out of range.
    """

    batch_size: int = 32
    workers: int = 2
    unreadable: str = "refuse"
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise SettingsError(f"batch_size={self.batch_size} and workers={self.workers} must be at least 1.")
        if self.unreadable not in UNREADABLE:
            raise SettingsError(unknown("choice of unreadable", self.unreadable, UNREADABLE))


@dataclass(frozen=True, eq=False)
class Embedded:
    """What :func:`fill` found.

    Parameters
    ----------
    rows: int64, the images that could be read.
    keys: of their features in the cache, one an image of ``rows``, 16 bytes each.
    problems: a message for each that could not.
    computed: how many were not in the cache before.
    """

    rows: IntArray
    keys: NDArray[np.void]
    problems: list[str]
    computed: int


def embed(
    cohort: Cohort, backbone: Backbone, *, cache: Path | None = None, settings: EmbedSettings | None = None
) -> Cohort:
    """Return the cohort with features; images that were skipped are left out of it.

    Parameters
    ----------
    cohort: with images.
    backbone: see :func:`~activelabel.data.backbones.make_backbone`.
    cache: folder of caches, where features that were computed before are looked up; None for none.
    settings: see :class:`EmbedSettings`.

    Raises
    ------
    DataError: if there are no images, or some cannot be read.
    """
    settings = settings or EmbedSettings()
    with closing(_open(cache, backbone)) as store:
        found = fill(cohort.images, backbone, store, settings, cohort.source.name)
        features = np.concatenate(list(_chunks(found, store)))
    return replace(_kept(cohort, backbone, found), features=features)


def embed_file(
    cohort: Cohort, backbone: Backbone, out: Path, *, cache: Path | None = None, settings: EmbedSettings | None = None
) -> Cohort:
    """Embed a cohort's images and write the cohort to an npz file; in memory there are never more than some thousand
    images' features.

    Parameters
    ----------
    cohort, backbone, cache, settings: see :func:`embed`.
    out: the file; images that were held as an array are not written to it.

    Returns
    -------
    The cohort as it was written, without features.

    Raises
    ------
    DataError: as :func:`embed`.
    """
    if out.suffix != ".npz":
        raise SettingsError(f"{out}: a cohort's file ends in .npz.")
    settings = settings or EmbedSettings()
    with closing(_open(cache, backbone)) as store:
        found = fill(cohort.images, backbone, store, settings, cohort.source.name)
        kept = _kept(cohort, backbone, found)
        shape = (len(found.rows), backbone.dim)
        with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            for name, array in kept.columns().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as stream:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for chunk in _chunks(found, store):
                    stream.write(chunk.astype("<f4").tobytes())
    return kept


def _open(folder: Path | None, backbone: Backbone) -> FeatureCache:
    name = f"{backbone.name.partition(':')[0]}-{backbone.key}.sqlite"
    return FeatureCache(None if folder is None else folder / name, backbone.dim)


def _kept(cohort: Cohort, backbone: Backbone, found: Embedded) -> Cohort:
    source = replace(cohort.source, backbone=backbone.identity)
    if found.problems:
        left_out = f"{len(found.problems)} unreadable images left out: {'; '.join(found.problems[:3])}"
        source = replace(source, notes=f"{source.notes}; {left_out}" if source.notes else left_out)
    return replace(cohort if not found.problems else cohort.take(found.rows), source=source)


def _chunks(found: Embedded, cache: FeatureCache) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(found.keys), _CHUNK):
        yield cache.get([key.tobytes() for key in found.keys[start : start + _CHUNK]])


def fill(images: Any, backbone: Backbone, cache: FeatureCache, settings: EmbedSettings, name: str) -> Embedded:
    """Compute the features that the cache has not yet; reading runs ahead of the network.

    Parameters
    ----------
    images: a sequence of uint8 images.
    backbone, cache, settings: what computes, where to, and how.
    name: of the cohort, for messages.

    Raises
    ------
    DataError: if there are no images, or some cannot be read and that is refused.
    """
    if images is None:
        raise DataError(f"{name} has no images to embed.")
    n, computed = len(images), 0
    keys = np.zeros(n, dtype="V16")
    readable = np.ones(n, dtype=np.bool_)
    problems: list[str] = []
    waiting: list[tuple[bytes, Pixels]] = []
    with tqdm(total=n, desc=f"embedding {name}", unit="img", disable=not settings.progress) as bar:
        for row, result in enumerate(_ahead(images, backbone.size, cache, settings)):
            if isinstance(result, UnreadableImage):
                problems.append(str(result))
                readable[row] = False
            else:
                keys[row] = np.void(result[0])
                if result[1] is not None:
                    waiting.append((result[0], result[1]))
            if len(waiting) == settings.batch_size or (waiting and row == n - 1):
                _compute(waiting, backbone, cache, settings.batch_size)
                computed += len(waiting)
                waiting.clear()
            bar.update()
    if problems and (settings.unreadable == "refuse" or not readable.any()):
        more = f"\n... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(
            f"{name}: {len(problems)} of {n} images cannot be read:\n" + "\n".join(problems[:10]) + more + "\nMend or "
            "remove them, or leave them out with --unreadable skip (unreadable='skip'); the others' features are kept."
        )
    return Embedded(np.flatnonzero(readable), keys[readable], problems, computed)


def _compute(waiting: list[tuple[bytes, Pixels]], backbone: Backbone, cache: FeatureCache, batch_size: int) -> None:
    """Embed a batch, filled up with black images to its full size."""
    batch = np.zeros((batch_size, backbone.size, backbone.size, 3), np.uint8)
    for i, (_, image) in enumerate(waiting):
        batch[i] = image
    features = backbone(batch)[: len(waiting)]
    if not np.isfinite(features).all():
        raise DataError(f"backbone '{backbone.name}' gave features that are NaN or infinite; are its weights sound?")
    cache.put([key for key, _ in waiting], features)


def _ahead(
    images: Any, size: int, cache: FeatureCache, settings: EmbedSettings
) -> Iterator[tuple[bytes, Pixels | None] | UnreadableImage]:
    """Yield for each image its key, and the image where the cache has no features of it; or why it cannot be read.

    Some batches are read ahead by threads, never more.
    """

    def prepare(row: int) -> tuple[bytes, Pixels | None] | UnreadableImage:
        try:
            if isinstance(images, ImageFiles):  # most of the time is decoding, which a known file does not need
                key = content(images, row)
                return key, None if key in cache else fit(images[row], size)
            image = images[row]
            key = content_of(image)
            return key, None if key in cache else fit(image, size)
        except UnreadableImage as error:
            return error
        except DataError as error:
            return UnreadableImage(f"image {row}: {error}")

    ahead = 3 * settings.batch_size
    running: deque[Future[tuple[bytes, Pixels | None] | UnreadableImage]] = deque()
    with ThreadPoolExecutor(settings.workers) as pool:
        try:
            for row in range(len(images)):
                running.append(pool.submit(prepare, row))
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def default_workers() -> int:
    """Return how many threads read ahead by default: one a core, at most 8."""
    return min(8, os.cpu_count() or 1)
