"""Reading images: every kind of file that publishers ship, and those that are broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from activelabel.data.images import ImageFiles, UnreadableImage, content, content_of, fit, read_image
from activelabel.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".PNG"])
def test_eight_bits_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_image(_save(tmp_path / f"g{suffix}", Image.fromarray(GREY))), GREY)
    assert np.array_equal(read_image(_save(tmp_path / f"c{suffix}", Image.fromarray(COLOUR))), COLOUR)


def test_sixteen_bits_are_scaled_by_the_whole_range(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535], [32896, 128, 129]], dtype=np.uint16)
    for suffix in (".png", ".tif"):
        read = read_image(_save(tmp_path / f"d{suffix}", Image.fromarray(deep)))
        assert read.dtype == np.uint8
        assert read.tolist() == [[0, 1, 255], [128, 0, 1]]


def test_floats_are_scaled_by_their_own_range_and_must_be_finite(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0], [1.0, 3.0]], dtype=np.float32)
    assert read_image(_save(tmp_path / "f.tif", Image.fromarray(values))).tolist() == [[0, 64], [128, 255]]
    assert read_image(_save(tmp_path / "flat.tif", Image.fromarray(values * 0))).tolist() == [[0, 0], [0, 0]]
    values[0, 0] = np.nan
    with pytest.raises(UnreadableImage, match="NaN"):
        read_image(_save(tmp_path / "nan.tif", Image.fromarray(values)))


def test_what_is_transparent_is_black_and_opaque_colours_stay(tmp_path: Path) -> None:
    alpha = np.full((12, 9), 255, np.uint8)
    alpha[0] = 0
    read = read_image(_save(tmp_path / "a.png", Image.fromarray(np.dstack([COLOUR, alpha]))))
    assert read.shape == (12, 9, 3)
    assert (read[0] == 0).all()
    assert np.array_equal(read[1:], COLOUR[1:])
    with_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    grey = read_image(_save(tmp_path / "la.png", with_alpha))
    assert grey.ndim == 2
    assert np.array_equal(grey[1:], GREY[1:])


def test_palettes_and_single_bits(tmp_path: Path) -> None:
    one = read_image(_save(tmp_path / "1.png", Image.fromarray(GREY > 128)))
    assert np.array_equal(one, np.where(GREY > 128, 255, 0))
    palette = Image.fromarray(COLOUR).quantize(16)
    read = read_image(_save(tmp_path / "p.png", palette))
    assert np.array_equal(read, np.array(palette.convert("RGB")))
    grey = read_image(_save(tmp_path / "pg.gif", Image.fromarray(GREY)))
    assert grey.ndim == 2
    assert np.array_equal(grey, GREY)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "empty", "folder"])
def test_what_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.jpg"
    if damage == "truncated":
        _save(path, Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)))
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "text":
        path.write_text("not an image")
    elif damage == "empty":
        path.touch()
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UnreadableImage, match=r"x\.jpg"):
        read_image(path)
    if damage in ("missing", "folder"):
        with pytest.raises(UnreadableImage, match=r"x\.jpg"):
            content(ImageFiles(["x.jpg"], tmp_path), 0)


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImage, match="bomb"):
        read_image(_save(tmp_path / "big.png", Image.fromarray(GREY)))


def test_files_are_decoded_when_they_are_looked_at(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", Image.fromarray(GREY))
    files = ImageFiles(["a.png", "missing.png"], tmp_path)
    assert len(files) == 2
    assert np.array_equal(files[0], GREY)
    assert files[:1].paths == ["a.png"]
    assert files.take(np.array([1, 0])).paths == ["missing.png", "a.png"]
    with pytest.raises(UnreadableImage, match="missing"):
        files[1]


def test_content_is_of_the_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _save(tmp_path / f"{name}.png", Image.fromarray(GREY))
    _save(tmp_path / "c.png", Image.fromarray(COLOUR))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.png").read_bytes())
    files = ImageFiles(["a.png", "b.png", "c.png", "a.tif"], tmp_path)
    keys = [content(files, i) for i in range(4)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3  # the suffix says how bytes are read, so it counts
    assert content(np.stack([GREY, GREY]), 1) == content_of(GREY)
    assert content_of(GREY) != content_of(GREY.T)
    assert content_of(GREY) != content_of(GREY.reshape(9, 12))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.booleans())
def test_fit_gives_squares_of_three_colours(height: int, width: int, size: int, colour: bool) -> None:
    image = np.full((height, width, 3) if colour else (height, width), 77, np.uint8)
    fitted = fit(image, size)
    assert fitted.shape == (size, size, 3)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()


def test_fit_keeps_the_whole_image_and_averages() -> None:
    wide = np.zeros((4, 8), np.uint8)
    wide[:, 4:] = 200
    dark, bright = fit(wide, 2)[0, :, 0].tolist()
    assert dark < 60  # both halves are seen, blurred into each other a little
    assert bright > 140
    assert np.array_equal(fit(COLOUR[:9], 9), COLOUR[:9])
    assert np.array_equal(fit(GREY[:9, :, None], 9), fit(GREY[:9], 9))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (0, 4), (1, 4, 4, 3)])
def test_fit_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected uint8"):
        fit(np.zeros(shape, np.uint8), 4)
    with pytest.raises(DataError, match="float64"):
        fit(np.zeros((4, 4)), 4)
