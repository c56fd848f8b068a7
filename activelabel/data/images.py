"""Images: files that are decoded when they are looked at, and the square form that networks take."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from activelabel.errors import DataError

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", ".dicom")
"""Of the files that :func:`read_image` reads, lower case."""

DICOM_SUFFIXES = (".dcm", ".dicom")


class UnreadableImage(DataError):
    """An image file that is missing, damaged, or of no known format."""


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Return an image, uint8 ``(H, W)`` or, where it has colours, ``(H, W, 3)``.

    Images of 16 bits are divided by 257, so that white stays white; other depths are scaled by their range. What is
    transparent is shown on black. Of an animation the first picture is taken.

    Raises
    ------
    UnreadableImage: if the file is missing, damaged or truncated, or of no known format.
    """
    if Path(path).suffix.lower() in DICOM_SUFFIXES:
        from activelabel.data.dicom import read_dicom  # late: it needs pydicom

        return read_dicom(Path(path))
    try:
        _check_regular(path)
        with Image.open(path) as image:
            return _pixels(image)
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image.") from None
    except UnreadableImage:
        raise
    # Pillow's readers let many kinds of errors through on damaged files.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"{path}: not a readable image ({reason}).") from None


def _check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a pipe or a device: reading one may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UnreadableImage(f"{path}: no file of an image, but a folder, a pipe or a device.")


def _pixels(image: Image.Image) -> Pixels:
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        return _eight_bits(np.asarray(image), image.mode)
    if image.mode in ("L", "RGB"):
        return np.array(image)
    grey = image.mode in ("1", "LA", "La") or (image.mode == "P" and _grey_palette(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), shown)
    return np.array(image.convert("L" if grey else "RGB"))


def _grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette() or [], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _eight_bits(values: NDArray[Any], mode: str) -> Pixels:
    """Return deep grey as 8 bits: 16 bits by their whole range, 32 bits by the image's own."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are NaN or infinite")
    if mode != "F" and values.min() >= 0 and values.max() <= 65535:
        return np.round(values / 257).astype(np.uint8)
    low, high = values.min(), values.max()
    scaled = np.round((values - low) * (255 / (high - low) if high > low else 0))
    pixels: Pixels = scaled.astype(np.uint8)
    return pixels


class ImageFiles(Sequence[Pixels]):
    """Images in files, each decoded when it is looked at.

    Parameters
    ----------
    paths: of the files; below ``root`` where it is given.
    root: the folder that they are relative to.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None = None) -> None:
        self.paths = [os.fspath(path) for path in paths]
        self.root = None if root is None else Path(root)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...

    @overload
    def __getitem__(self, index: slice) -> ImageFiles: ...

    def __getitem__(self, index: int | slice) -> Pixels | ImageFiles:
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.root)
        return read_image(self.path(index))

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        path = Path(self.paths[index])
        return path if self.root is None else self.root / path

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> ImageFiles:
        """Return some of the images, in the given order."""
        return ImageFiles([self.paths[int(row)] for row in rows], self.root)


def content(images: Any, index: int) -> bytes:
    """Return 16 bytes that stand for what an image holds: of the file where it is one, without decoding it.

    Raises
    ------
    UnreadableImage: if the file cannot be read.
    """
    if isinstance(images, ImageFiles):
        path = images.path(index)
        try:
            _check_regular(path)
            with path.open("rb") as stream:
                # The suffix says how the bytes are read.
                value = hashlib.blake2b(b"file" + path.suffix.lower().encode(), digest_size=16)
                while block := stream.read(1 << 20):
                    value.update(block)
        except OSError as error:
            raise UnreadableImage(f"{path}: no readable image ({error.strerror}).") from None
        return value.digest()
    return content_of(images[index])


def content_of(image: Any) -> bytes:
    """Return 16 bytes that stand for the values, dtype and shape of an array."""
    image = np.ascontiguousarray(image)
    value = hashlib.blake2b(f"array{image.shape}{image.dtype}".encode(), digest_size=16)
    value.update(image.tobytes())
    return value.digest()


def fit(image: Any, size: int) -> Pixels:
    """Return an image as uint8 ``(size, size, 3)``: the whole of it, scaled to a square; grey three times.

    Findings lie at the borders of an X-ray too, so nothing is cropped. Shrinking is antialiased.

    Raises
    ------
    DataError: if it is not uint8 of shape ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise DataError(f"an image of {image.dtype} {image.shape}; expected uint8 (H, W) or (H, W, 3).")
    if image.shape[:2] != (size, size):
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
