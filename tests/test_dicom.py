"""DICOM: modality transform, window, MONOCHROME1, colours, and what is refused."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import write_image

from activelabel.data.dicom import read_dicom
from activelabel.data.images import UnreadableImage, read_image
from activelabel.data.readers import read_folder
from activelabel.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra dicom")

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
"""0 to 1100."""


def write_dicom(path: Path, pixels: Any = GREY, kind: str = "MONOCHROME2", **tags: Any) -> Path:
    """Write an uncompressed DICOM file; ``tags`` are further elements by keyword."""
    uid = importlib.import_module("pydicom.uid")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=["test"])
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if kind != "RGB" else pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = kind
    dataset.SamplesPerPixel = 1
    if kind == "RGB":
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    if kind == "PALETTE COLOR":
        for colour, shift in (("Red", 0), ("Green", 1), ("Blue", 2)):
            table = np.roll(np.arange(256, dtype=np.uint8), shift)
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", table.tobytes())
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_without_a_window_the_images_own_range_is_shown(tmp_path: Path) -> None:
    image = read_dicom(write_dicom(tmp_path / "a.dcm"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.round(GREY / 1100 * 255))
    constant = write_dicom(tmp_path / "b.dcm", np.full((3, 4), 7, np.uint16))
    assert read_dicom(constant).tolist() == [[0] * 4] * 3


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    image = read_dicom(write_dicom(tmp_path / "a.dcm", kind="MONOCHROME1"))
    np.testing.assert_array_equal(image, np.round((1 - GREY / 1100) * 255))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_clips_and_keeps_its_own_range(tmp_path: Path, kind: str) -> None:
    # PS3.3 C.11.2.1.2: ((x - (c - 0.5)) / (w - 1) + 0.5) between c - 0.5 - (w - 1) / 2 and c - 0.5 + (w - 1) / 2.
    path = write_dicom(tmp_path / "a.dcm", kind=kind, WindowCenter=800, WindowWidth=1001)
    share = np.clip((GREY - 799.5) / 1000 + 0.5, 0, 1)
    expected = np.round((share if kind == "MONOCHROME2" else 1 - share) * 255)
    np.testing.assert_array_equal(read_dicom(path), expected)
    assert 0 < share.max() < 1  # the image does not reach the window's upper end, and is not stretched to it


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=[300, 800], WindowWidth=[401, 100])
    np.testing.assert_array_equal(read_dicom(path), np.round(np.clip((GREY - 299.5) / 400 + 0.5, 0, 1) * 255))


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_rescaling_comes_before_the_window(tmp_path: Path, slope: float) -> None:
    pixels = GREY.astype(np.int16) - 500
    tags = {"RescaleSlope": slope, "RescaleIntercept": -100, "WindowCenter": 0, "WindowWidth": 801}
    image = read_dicom(write_dicom(tmp_path / "a.dcm", pixels, **tags))
    hounsfield = pixels * slope - 100
    np.testing.assert_array_equal(image, np.round(np.clip((hounsfield + 0.5) / 800 + 0.5, 0, 1) * 255))


def test_a_table_of_values(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor = [1200, 0, 16]
    item.add_new("LUTData", "US", np.minimum(np.arange(1200) * 100, 65535).tolist())
    image = read_dicom(write_dicom(tmp_path / "a.dcm", VOILUTSequence=[item]))
    np.testing.assert_array_equal(image, np.round(np.minimum(GREY * 100.0, 65535) / 65535 * 255))


def test_colours_are_kept(tmp_path: Path) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(read_dicom(write_dicom(tmp_path / "a.dcm", pixels, "RGB")), pixels)
    deep = np.arange(36, dtype=np.uint16).reshape(3, 4, 3) * 1800
    np.testing.assert_array_equal(read_dicom(write_dicom(tmp_path / "b.dcm", deep, "RGB")), np.round(deep / 257))
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) + 10
    image = read_dicom(write_dicom(tmp_path / "c.dcm", index, "PALETTE COLOR"))
    np.testing.assert_array_equal(image, np.stack([index, index - 1, index - 2], axis=2))


def test_dicom_files_are_images_as_others_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a" / "1.dcm")), np.round(GREY / 1100 * 255))
    write_image(tmp_path / "b" / "2.png")
    cohort = read_folder(tmp_path)
    assert cohort.images is not None
    assert [np.shape(image) for image in cohort.images] == [(3, 4), (8, 10)]


def test_what_is_no_single_image_is_refused(tmp_path: Path) -> None:
    frames = write_dicom(tmp_path / "frames.dcm", np.zeros((2, 3, 4), np.uint16), NumberOfFrames=2)
    with pytest.raises(UnreadableImage, match=r"frames\.dcm: 2 frames; only single images are read"):
        read_dicom(frames)
    report = pydicom.dcmread(write_dicom(tmp_path / "report.dcm"))
    del report.PixelData
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(UnreadableImage, match=r"report\.dcm: a DICOM file without an image"):
        read_dicom(tmp_path / "report.dcm")
    with pytest.raises(UnreadableImage, match=r"nowhere\.dcm: no such image"):
        read_dicom(tmp_path / "nowhere.dcm")


@pytest.mark.parametrize("keep", [0, 100, 200, -1])
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what it finds on the way
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((30, 40), np.uint16))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnreadableImage, match=r"a\.dcm: "):
        read_dicom(path)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\x80\x04\x95cposix\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(UnreadableImage, match=r"a\.dcm: not a readable DICOM file"):
        read_dicom(tmp_path / "a.dcm")


def test_dicom_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r'pip install "activelabel\[dicom\]"'):
        read_image(path)
