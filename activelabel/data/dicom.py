"""DICOM images (extra ``dicom``: pydicom)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.images import Pixels, UnreadableImage
from activelabel.errors import DataError


def read_dicom(path: Path) -> Pixels:
    """Return the image of a DICOM file, uint8 ``(H, W)`` or ``(H, W, 3)``.

    Grey values go through the file's modality transform (rescale slope and intercept, or a table), then through its
    first VOI window or table, whose range becomes 0 to 255; without one the image's own range does. MONOCHROME1, where
    low values are bright, is inverted, so that bone is bright in every file. Colours are kept, as RGB.

    Raises
    ------
    UnreadableImage: if the file is missing, damaged or compressed in a way that no installed package decodes, or holds
        several frames or no image.
    DataError: if pydicom is not installed.
    """
    try:
        pydicom = importlib.import_module("pydicom")
        pixels = importlib.import_module("pydicom.pixels")
    except ImportError:
        raise DataError(f'{path}: DICOM files need pip install "activelabel[dicom]".') from None
    try:
        dataset = pydicom.dcmread(path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > 1:
            raise UnreadableImage(f"{path}: {frames} frames; only single images are read.")
        if "PixelData" not in dataset:
            raise UnreadableImage(f"{path}: a DICOM file without an image.")
        values = pixels.pixel_array(dataset)  # YBR becomes RGB here
        kind = str(dataset.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            values = pixels.apply_color_lut(values, dataset)[..., :3]
        return _colours(values) if values.ndim == 3 else _grey(values, dataset, pixels)
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image.") from None
    # pydicom and its decoders let many kinds of errors through on damaged files.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"{path}: not a readable DICOM file ({reason}).") from None


def _colours(values: NDArray[Any]) -> Pixels:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return np.round(values / 257).astype(np.uint8)


def _grey(values: NDArray[Any], dataset: Any, pixels: Any) -> Pixels:
    values = pixels.apply_modality_lut(values, dataset)
    shown = pixels.apply_voi_lut(values, dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # Where a window puts what lies far below and far above it.
        low, high = pixels.apply_voi_lut(np.array([-np.inf, np.inf]), dataset)
    else:
        low, high = shown.min(), shown.max()
    scaled = (shown - low) / (high - low) if high != low else np.zeros_like(shown)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        scaled = 1 - scaled
    grey: Pixels = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return grey
