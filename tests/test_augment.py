"""Views of images: the batch agrees with a slow reference, image by image and pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from torch import Tensor

from activelabel.data.augment import Augmentation, Changes, apply_changes, augment, draw_changes
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import torch_stream

EVERYTHING = Augmentation(rotation=25, flip=0.5, crop=(0.3, 0.8), brightness=0.4, contrast=0.6)


def images(n: int = 4, channels: int = 1, height: int = 9, width: int = 9) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), generator=torch_stream(0, "images"), dtype=torch.uint8)


def changes(**given: float) -> Changes:
    """One image's, that change nothing but what is given."""
    plain = {"angle": 0.0, "mirror": 1.0, "scale": 1.0, "x": 0.0, "y": 0.0, "brightness": 1.0, "contrast": 1.0}
    return Changes(**{name: torch.tensor([value]) for name, value in {**plain, **given}.items()})


def slow_view(image: Tensor, angle: float, mirror: float, scale: float, x: float, y: float) -> list[list[list[float]]]:
    """Each pixel of the view looks at one point of the image and mixes the four pixels around it."""
    channels, height, width = image.shape
    view = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
    for row in range(height):
        for column in range(width):
            across = mirror * (column + 0.5 - width / 2) * scale
            down = (row + 0.5 - height / 2) * scale
            at_x = math.cos(angle) * across - math.sin(angle) * down + (1 + x) * width / 2 - 0.5
            at_y = math.sin(angle) * across + math.cos(angle) * down + (1 + y) * height / 2 - 0.5
            left, top = math.floor(at_x), math.floor(at_y)
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= i < height and 0 <= j < width:
                    weight = (1 - abs(at_y - i)) * (1 - abs(at_x - j))
                    for c in range(channels):
                        view[c][row][column] += weight * float(image[c, i, j]) / 255
    return view


def slow(batch: Tensor, drawn: Changes) -> Tensor:
    views = []
    for i, image in enumerate(batch):
        geometry = (float(v[i]) for v in (drawn.angle, drawn.mirror, drawn.scale, drawn.x, drawn.y))
        view = torch.tensor(slow_view(image, *geometry), dtype=torch.float64) * float(drawn.brightness[i])
        mean = view.mean()
        views.append(((view - mean) * float(drawn.contrast[i]) + mean).clamp(0, 1))
    return torch.stack(views)


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(),
        Augmentation(rotation=180, flip=0),
        Augmentation(rotation=0, flip=0.5, crop=(0.2, 0.9)),
        Augmentation(rotation=0, flip=0, brightness=0.9, contrast=0.9),
        EVERYTHING,
    ],
)
@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 6, 11), (1, 10, 5)])
def test_the_batch_agrees_with_the_slow_reference(settings: Augmentation, shape: tuple[int, int, int]) -> None:
    batch = images(5, *shape)
    drawn = draw_changes(settings, 5, torch_stream(1, "views"))
    found = apply_changes(batch, drawn)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), slow(batch, drawn), atol=2e-5, rtol=0)
    torch.testing.assert_close(augment(batch, settings, torch_stream(1, "views")), found, rtol=0, atol=0)


def test_nothing_switched_on_changes_nothing() -> None:
    nothing = Augmentation(rotation=0, flip=0)
    torch.testing.assert_close(augment(images(), nothing, torch_stream(0)), images().float() / 255, atol=1e-5, rtol=0)


def test_floats_and_bytes_give_the_same_views() -> None:
    one, other = (augment(b, EVERYTHING, torch_stream(3)) for b in (images(), images().double() / 255))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_a_mirror_image_is_left_to_right() -> None:
    seen = augment(images(), Augmentation(rotation=0, flip=1), torch_stream(0))
    torch.testing.assert_close(seen, images().flip(-1).float() / 255, atol=1e-5, rtol=0)


def test_a_quarter_turn() -> None:
    seen = apply_changes(images(1), changes(angle=math.pi / 2))
    torch.testing.assert_close(seen, images(1).rot90(1, (2, 3)).float() / 255, atol=1e-5, rtol=0)


def test_a_crop_is_enlarged() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., :4, :4] = 1
    upper_left = apply_changes(image, changes(scale=0.5, x=-0.5, y=-0.5))
    assert float(upper_left[..., 1:7, 1:7].min()) == pytest.approx(1, abs=1e-5)
    assert float(apply_changes(image, changes(scale=0.5, x=0.5, y=0.5))[..., 1:, 1:].abs().max()) < 1e-5


def test_draws_stay_in_range_and_fill_it() -> None:
    drawn = draw_changes(EVERYTHING, 4000, torch_stream(2))
    area = drawn.scale**2
    for values, low, high in (
        (torch.rad2deg(drawn.angle), -25, 25),
        (area, 0.3, 0.8),
        (drawn.brightness, 0.6, 1.4),
        (drawn.contrast, 0.4, 1.6),
    ):
        width = high - low
        assert low - 1e-4 <= float(values.min()) < low + width / 100
        assert high - width / 100 < float(values.max()) <= high + 1e-4
    assert float((drawn.x.abs() + drawn.scale).max()) <= 1 + 1e-6
    assert float((drawn.y.abs() + drawn.scale).max()) <= 1 + 1e-6
    assert float((drawn.mirror == -1).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(torch.corrcoef(torch.stack([drawn.x, drawn.y]))[0, 1]) == pytest.approx(0, abs=0.05)


def test_images_are_changed_each_by_itself_and_views_differ() -> None:
    same = images(1).expand(6, -1, -1, -1)
    generator = torch_stream(0)
    first, second = augment(same, EVERYTHING, generator), augment(same, EVERYTHING, generator)
    assert len({reference.digest({"v": v.contiguous()}) for v in (*first, *second)}) == 12


def test_the_generator_decides_and_no_global_one_is_used() -> None:
    with reference.global_rng_untouched():
        views = [augment(images(), EVERYTHING, torch_stream(seed)) for seed in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rotation": -1.0}, "rotation=-1.0"),
        ({"rotation": float("nan")}, "rotation=nan"),
        ({"rotation": 181.0}, "rotation=181"),
        ({"flip": 1.5}, "flip=1.5"),
        ({"brightness": -0.1}, "brightness=-0.1"),
        ({"contrast": 2.0}, "contrast=2.0"),
        ({"crop": (0.0, 1.0)}, "crop="),
        ({"crop": (0.8, 0.5)}, "crop="),
        ({"crop": (0.5, 1.1)}, "crop="),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Augmentation(**given)


@pytest.mark.parametrize("batch", [torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)])
def test_other_tensors_are_refused(batch: Tensor) -> None:
    with pytest.raises(DataError, match="uint8 or float"):
        apply_changes(batch, changes())
