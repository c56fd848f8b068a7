"""Random views of X-rays, a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from activelabel.errors import DataError, SettingsError


@dataclass(frozen=True)
class Augmentation:
    """What differs between two views of an image.

    The defaults are MoCo-CXR's (Sowrirajan et al. 2021, §3.2): a crop may cut off the disease, blur may hide it, and an
    X-ray has no colours to change. Crops and changes of the grey values can be switched on.

    Raises
    ------
    SettingsError: if a value is out of range.
    """

    rotation: float = 10.0
    """Largest rotation to either side, degrees, 0 to 180; what comes in from outside is black."""
    flip: float = 0.5
    """Probability of a mirror image, left to right."""
    crop: tuple[float, float] = (1.0, 1.0)
    """Least and largest share of the image's area that is seen, above 0 to 1; it is scaled to the size of the whole."""
    brightness: float = 0.0
    """Pixels are multiplied by a factor within 1 plus or minus this, 0 to 1."""
    contrast: float = 0.0
    """Distances from the view's mean are multiplied by a factor within 1 plus or minus this, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise SettingsError(f"rotation={self.rotation} must be 0 to 180 degrees.")
        for name in ("flip", "brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be 0 to 1.")
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise SettingsError(f"crop={self.crop} must be two shares of the area, 0 < least <= largest <= 1.")


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to each of ``B`` images, all float32 ``(B,)`` on the CPU.

    Parameters
    ----------
    angle: radians by which the point that is looked at turns, from x (right) to y (down).
    mirror: -1 for a mirror image, else 1.
    scale: side of the crop as a share of the image's, above 0 to 1.
    x, y: centre of the crop, in half widths and half heights from the image's centre.
    brightness, contrast: factors.
    """

    angle: Tensor
    mirror: Tensor
    scale: Tensor
    x: Tensor
    y: Tensor
    brightness: Tensor
    contrast: Tensor


def draw_changes(settings: Augmentation, n: int, generator: torch.Generator) -> Changes:
    """Draw what is done to ``n`` images.

    Seven numbers an image are taken from ``generator``, whatever is switched on.
    """
    uniform = torch.rand((7, n), generator=generator)
    around = 2 * uniform - 1
    least, largest = settings.crop
    scale = torch.sqrt(least + (largest - least) * uniform[2])
    return Changes(
        angle=torch.deg2rad(settings.rotation * around[0]),
        mirror=torch.where(uniform[1] < settings.flip, -1.0, 1.0),
        scale=scale,
        x=(1 - scale) * around[3],
        y=(1 - scale) * around[4],
        brightness=1 + settings.brightness * around[5],
        contrast=1 + settings.contrast * around[6],
    )


def apply_changes(images: Tensor, changes: Changes) -> Tensor:
    """Return the views: first the geometry, bilinear, then brightness, then contrast, cut off at 0 and 1.

    Parameters
    ----------
    images: ``(B, C, H, W)`` of uint8, or of floats 0 to 1.
    changes: one for each image.

    Returns
    -------
    float32 ``(B, C, H, W)``, 0 to 1, on the device of ``images``.

    Raises
    ------
    DataError: for images of another shape or type.
    """
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise DataError(f"images of {images.dtype} {tuple(images.shape)}; expected uint8 or float (B, C, H, W).")
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    height, width = images.shape[2:]
    c = changes
    # affine_grid counts in half widths and half heights, a rotation in pixels: the ratio of the sides goes between.
    cos, sin = c.scale * torch.cos(c.angle), c.scale * torch.sin(c.angle)
    rows = [
        torch.stack([c.mirror * cos, -sin * (height / width), c.x], dim=1),
        torch.stack([c.mirror * sin * (width / height), cos, c.y], dim=1),
    ]
    grid = F.affine_grid(
        torch.stack(rows, dim=1).to(images.device), [len(images), 1, height, width], align_corners=False
    )
    seen = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    brightness, contrast = (f.to(images.device).view(-1, 1, 1, 1) for f in (c.brightness, c.contrast))
    seen = seen * brightness
    # Written as a difference, so that a factor of 1 changes no bit.
    seen = seen + (contrast - 1) * (seen - seen.mean(dim=(1, 2, 3), keepdim=True))
    return seen.clamp(0, 1)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return one random view of each image.

    Parameters
    ----------
    images: ``(B, C, H, W)`` of uint8, or of floats 0 to 1.
    settings: what may differ.
    generator: of the random numbers, on the CPU: a GPU then draws what a CPU draws.

    Returns
    -------
    float32 ``(B, C, H, W)``, 0 to 1, on the device of ``images``.
    """
    return apply_changes(images, draw_changes(settings, len(images), generator))
