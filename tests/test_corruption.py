"""Corrupted images: which, how, and that nothing else changes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from activelabel.data import Cohort, Source, corruption
from activelabel.data.corruption import CorruptedImages, Corruption, corrupt, corrupt_cohort
from activelabel.data.images import ImageFiles
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import stream

ALL = Corruption(1.0)
NOTHING: dict[str, Any] = {"zoom": (1.0, 1.0), "rotation": 0.0, "noise": 0.0}


def global_state() -> list[Any]:
    """What belongs to the whole process and must stay as it is."""
    numbers = [random.getstate(), *np.random.get_state(), torch.get_rng_state().tolist()]  # noqa: NPY002
    torch_state = [torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()]
    torch_state += [torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()]
    return [*(n.tolist() if isinstance(n, np.ndarray) else n for n in numbers), *torch_state]


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    """MONAI's data package, imported as the product imports it."""
    if importlib.util.find_spec("monai") is None:
        pytest.skip("MONAI is not installed (extra monai)")
    before = global_state()
    corrupt(photo((8, 8)), ALL, stream(0))
    assert global_state() == before, "the first use of MONAI changed a global state"
    found: ModuleType = corruption._monai("data")
    return found


def photo(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A smooth image of that shape, without symmetry, from 30 to 220."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape[:2])
    grey = 125 + 45 * np.sin(4 * x + 1) + 50 * np.cos(3 * y + 2 * x)
    if len(shape) == 2:
        return np.rint(grey).astype(np.uint8)
    return np.rint(np.stack([np.clip(grey - 12 * c, 30, 220) for c in range(shape[2])], axis=2)).astype(np.uint8)


def photos(n: int = 40, side: int = 12) -> NDArray[np.uint8]:
    """Different images, uint8 (n, side, side)."""
    return np.stack([np.roll(photo((side, side)), i, axis=1) for i in range(n)])


# -- which images -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_shares_are_exact_and_nested(n: int, a: float, b: float, seed: int) -> None:
    rows = np.arange(n) * 3
    less, more = (set(Corruption(share, seed).choose(rows).tolist()) for share in sorted((a, b)))
    assert (len(less), len(more)) == (round(min(a, b) * n), round(max(a, b) * n))
    assert less <= more <= set(rows.tolist())


def test_the_seed_says_which() -> None:
    rows = np.arange(1000)
    chosen = [Corruption(0.1, seed).choose(rows) for seed in (0, 0, 1)]
    assert np.array_equal(chosen[0], chosen[1])
    assert len(np.intersect1d(chosen[0], chosen[2])) < 50
    # They lie everywhere, not at the beginning.
    assert 350 < chosen[0].mean() < 650


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_only_rows_that_may_be_are_corrupted(share: float, monai: ModuleType) -> None:
    clean, rows = photos(), np.arange(5, 40, 2)
    images = CorruptedImages(clean, Corruption(share), rows[::-1])
    assert images.corrupted.sum() == round(share * len(rows))
    assert set(np.flatnonzero(images.corrupted)) <= set(rows)
    for row, image in enumerate(images):
        assert np.array_equal(image, clean[row]) == (not images.corrupted[row])


def test_share_zero_changes_nothing_and_needs_no_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, "_monai", lambda part: pytest.fail("MONAI was imported"))
    clean = photos()
    images = CorruptedImages(clean, Corruption(0.0))
    assert not images.corrupted.any()
    assert np.array_equal(np.asarray(images), clean)
    assert not CorruptedImages(clean, ALL, []).corrupted.any()


# -- how --------------------------------------------------------------------------------------------------------------


@given(st.floats(0.2, 2), st.floats(0, 2), st.floats(0, math.pi), st.integers(0, 2**32))
def test_parameters_stay_within_bounds(low: float, more: float, rotation: float, seed: int) -> None:
    settings = Corruption(0.5, zoom=(low, low + more), rotation=rotation)
    factor, angle = settings.draw(stream(seed))
    assert low <= factor <= low + more
    assert -rotation <= angle <= rotation


def test_parameters_fill_the_range() -> None:
    drawn = np.array([ALL.draw(stream(0, "corruption", i)) for i in range(2000)])
    assert np.allclose(drawn.min(axis=0), [0.9, -math.pi / 12], atol=0.002)
    assert np.allclose(drawn.max(axis=0), [1.1, math.pi / 12], atol=0.002)
    assert np.allclose(drawn.mean(axis=0), [1.0, 0.0], atol=0.005)


@pytest.mark.parametrize("shape", [(28, 28), (33, 20), (17, 40, 3), (9, 9, 1), (2, 2)])
def test_shape_and_dtype_stay(shape: tuple[int, ...], monai: ModuleType) -> None:
    image = photo(shape)
    for seed in range(4):
        found = corrupt(image, ALL, stream(seed))
        assert (found.shape, found.dtype) == (shape, np.uint8)
        assert not np.array_equal(found, image)


@pytest.mark.parametrize("shape", [(28, 28), (17, 40, 3)])
def test_nothing_to_do_is_the_identity(shape: tuple[int, ...], monai: ModuleType) -> None:
    image = photo(shape)
    assert np.array_equal(corrupt(image, replace(ALL, **NOTHING), stream(0)), image)


def test_the_noise_is_multiplicative(monai: ModuleType) -> None:
    noisy = replace(ALL, zoom=(1.0, 1.0), rotation=0.0, noise=0.2)
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, :, 1:] = (50, 120)
    found = corrupt(image, noisy, stream(0)).astype(np.float64)
    assert np.allclose(found.mean(axis=(0, 1)), [0, 50, 120], atol=0.5)
    assert np.allclose(found.std(axis=(0, 1)), [0, 10, 24], rtol=0.02)
    # Each colour and each pixel has numbers of its own.
    assert abs(np.corrcoef(found[:, :, 1].ravel(), found[:, :, 2].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(found[1:, :, 1].ravel(), found[:-1, :, 1].ravel())[0, 1]) < 0.02
    bright = corrupt(np.full((50, 50), 250, np.uint8), noisy, stream(0))
    assert bright.max() == 255  # clipped: it does not begin again at 0
    assert 0.4 < (bright == 255).mean() < 0.6


def reference(image: NDArray[np.uint8], factor: float, angle: float) -> NDArray[np.float64]:
    """Zoom by averages over areas, cut or repeat the border to the old size, and rotate by bilinear interpolation."""
    height, width = image.shape
    new = (math.floor(height * factor), math.floor(width * factor))
    zoomed = np.empty(new)
    for i in range(new[0]):
        for j in range(new[1]):
            top, bottom = math.floor(i * height / new[0]), math.ceil((i + 1) * height / new[0])
            left, right = math.floor(j * width / new[1]), math.ceil((j + 1) * width / new[1])
            zoomed[i, j] = image[top:bottom, left:right].mean()
    for axis, (old, now) in enumerate(zip(image.shape, new, strict=True)):
        if now < old:
            before = (old - now) // 2
            zoomed = np.pad(zoomed, [(before, old - now - before) if a == axis else (0, 0) for a in (0, 1)], "edge")
        else:
            zoomed = np.take(zoomed, np.arange(old) + (now // 2 - old // 2), axis=axis)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2
    turned: NDArray[np.float64] = ndimage.affine_transform(
        zoomed, matrix, middle - matrix @ middle, order=1, mode="nearest"
    )
    return turned


@pytest.mark.parametrize("shape", [(30, 30), (41, 28)])
@pytest.mark.parametrize(("factor", "angle"), [(0.9, 0.0), (1.1, 0.0), (1.0, 0.25), (1.08, -0.2), (0.83, 0.11)])
def test_zoom_and_rotation_agree_with_a_slow_reference(
    shape: tuple[int, int], factor: float, angle: float, monai: ModuleType
) -> None:
    image = photo(shape)
    found = corruption._turned(image, factor, angle)
    assert np.abs(found - reference(image, factor, angle)).max() < 0.05
    as_colours = corruption._turned(np.repeat(image[:, :, None], 3, axis=2), factor, angle)
    assert np.array_equal(as_colours, np.repeat(found[:, :, None], 3, axis=2))


# -- the same image, whoever looks ------------------------------------------------------------------------------------


def test_an_image_depends_on_seed_and_row_alone(monai: ModuleType) -> None:
    clean = photos()
    images = CorruptedImages(clean, ALL)
    forwards = [images[i] for i in range(40)]
    backwards = [images[i] for i in reversed(range(40))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(images.__getitem__, range(40)))
    assert np.array_equal(forwards, backwards)
    assert np.array_equal(forwards, threads)
    assert monai.get_track_meta()  # MONAI's switch is as it was
    half = CorruptedImages(clean, replace(ALL, share=0.5))
    for row in np.flatnonzero(half.corrupted):
        assert np.array_equal(half[row], forwards[row])
    other = CorruptedImages(clean, replace(ALL, seed=1))
    assert not any(np.array_equal(a, b) for a, b in zip(other, forwards, strict=True))


def test_another_process_draws_the_same(tmp_path: Path) -> None:
    code = (
        "import json; import numpy as np\n"
        "from activelabel.data.corruption import Corruption\n"
        "from activelabel.seeding import stream\n"
        "c = Corruption(0.3, 7)\n"
        "print(json.dumps([c.choose(np.arange(20)).tolist(), c.draw(stream(7, 'corruption', 3))]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    rows, parameters = json.loads(found.stdout)
    settings = Corruption(0.3, 7)
    assert rows == settings.choose(np.arange(20)).tolist()
    assert tuple(parameters) == settings.draw(stream(7, "corruption", 3))


def test_a_part_of_the_images(monai: ModuleType) -> None:
    images = CorruptedImages(photos(), replace(ALL, share=0.5), np.arange(30))
    rows = np.array([29, 3, 35, 3, 0])
    for part in (images.take(rows), CorruptedImages(list(photos()), images.corruption, images.rows).take(rows)):
        assert np.array_equal(np.asarray(part), np.stack([images[row] for row in rows]))
        assert np.array_equal(part.corrupted, images.corrupted[rows])
        assert part.rows.tolist() == [0, 1, 3, 4]
    assert np.array_equal(np.asarray(images[10:20:3]), np.stack([images[i] for i in (10, 13, 16, 19)]))
    assert np.array_equal(images[-1], images[39])
    with pytest.raises(IndexError):
        images[40]


def test_files_are_read_when_they_are_looked_at(tmp_path: Path, monai: ModuleType) -> None:
    clean = photos(6, 16)
    for i, image in enumerate(clean[:5]):  # the last file is missing
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    files = ImageFiles([f"{i}.png" for i in range(6)], tmp_path)
    images = CorruptedImages(files, ALL)
    assert np.array_equal(images[4], CorruptedImages(clean, ALL)[4])
    part = images.take([2, 4])
    assert isinstance(part.images, ImageFiles)
    assert np.array_equal(part[1], images[4])
    with pytest.raises(DataError, match=r"5\.png"):
        images[5]


def test_global_state_is_left_alone(monai: ModuleType) -> None:
    before, shown = global_state(), warnings.showwarning
    np.asarray(CorruptedImages(photos(), Corruption(0.5)))
    assert global_state() == before
    assert warnings.showwarning is shown


# -- cohorts ----------------------------------------------------------------------------------------------------------


class Unlooked(Sequence[Any]):
    """Images that must not be looked at."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: Any) -> Any:
        pytest.fail("an image was decoded")


@pytest.fixture
def of_images() -> Cohort:
    labels = np.eye(2, dtype=np.int8)[np.arange(40) % 2]
    features, patient = np.ones((40, 3), np.float32), np.arange(40) // 2
    source = Source(name="photos", licence="CC0", notes="made up")
    return Cohort(labels, ("a", "b"), features, photos(), patient=patient, source=source)


def test_a_corrupted_cohort(of_images: Cohort, monai: ModuleType) -> None:
    rows = np.arange(10, 30)
    found = corrupt_cohort(of_images, Corruption(0.5, seed=3), rows)
    assert isinstance(found.images, CorruptedImages)
    assert found.images.corrupted.sum() == 10
    assert found.features is None  # they were those of the clean images
    assert found.source.notes == (
        "made up; images: 50 % corrupted (zoom 0.9 to 1.1, rotation up to 15 degrees, noise 0.1, seed 3) of 20"
    )
    assert replace(found.source, notes="made up") == of_images.source
    assert found.labels is of_images.labels
    assert found.patient is of_images.patient
    taken = found.take(np.array([29, 5]))
    assert np.array_equal(np.asarray(taken.images), np.stack([found.images[29], found.images[5]]))
    again = corrupt_cohort(replace(of_images, images=Unlooked()), ALL)
    assert again.source.notes.endswith("seed 0)")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.5}, "share=1.5"),
        ({"share": float("nan")}, "share=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"zoom": (0.0, 1.0)}, "zoom"),
        ({"zoom": (1.1, 0.9)}, "smallest and the largest"),
        ({"zoom": (1.0, math.inf)}, "zoom"),
        ({"zoom": (1.0,)}, "zoom"),
        ({"rotation": -0.1}, "radians"),
        ({"rotation": 15.0}, "rotation=15.0 must be an angle in radians, 0 to pi"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"noise": float("nan")}, "noise=nan"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Corruption(**{"share": 0.1, **changes})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.float32), "float32"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\(2, 8, 8, 3\)"),
        (np.zeros((0, 8), np.uint8), r"\(0, 8\)"),
        (np.zeros((1, 8), np.uint8), "no pixels left at zoom 0.9"),
    ],
)
def test_images_that_are_none_are_refused(image: NDArray[Any], message: str) -> None:
    small = replace(ALL, zoom=(0.9, 0.9))
    with pytest.raises(DataError, match=message):
        corrupt(image, small, stream(0))


def test_the_message_names_the_image(monai: ModuleType) -> None:
    images = CorruptedImages([photo((8, 8)), np.zeros((8, 8), np.float32)], ALL)
    with pytest.raises(DataError, match="image 1: an image of float32"):
        images[1]
    with pytest.raises(DataError, match="image 1: an image of float32"):
        images.take([1])[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 40], "row 40 to corrupt is none of 40 images"),
        ([-1, 3], "row -1"),
        ([3, 3, 4], "1 of 3 are named twice"),
        ([0.5], "whole numbers"),
        ([[1]], r"\(1, 1\)"),
    ],
)
def test_rows_that_are_none_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CorruptedImages(photos(), Corruption(0.0), rows)


def test_a_cohort_without_images_is_refused(of_images: Cohort) -> None:
    with pytest.raises(DataError, match="photos has no images"):
        corrupt_cohort(replace(of_images, images=None), ALL)


@pytest.fixture
def without_monai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    corruption._monai.cache_clear()
    for name in ("monai", "monai.transforms", "monai.data"):
        monkeypatch.setitem(sys.modules, name, None)
    yield
    corruption._monai.cache_clear()


@pytest.mark.usefixtures("without_monai")
def test_without_monai_the_extra_is_named() -> None:
    with pytest.raises(SettingsError, match=r'pip install "activelabel\[monai\]"'):
        CorruptedImages(photos(), Corruption(0.1))
    assert not CorruptedImages(photos(), Corruption(0.0)).corrupted.any()
