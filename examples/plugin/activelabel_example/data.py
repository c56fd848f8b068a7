"""A data set: 16 x 16 images with stripes that lie, stand, or are not there."""

import numpy as np

from activelabel import Cohort
from activelabel.data import Source


def stripes(*, n=600):
    """Return n images; n is an option, load("stripes", n=900)."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    images = rng.normal(128, 40, (n, 16, 16, 1))
    waves = 25 * np.sin(np.arange(16) + rng.uniform(0, 6, (n, 1)))
    images += waves[:, :, None, None] * (label == 0)[:, None, None, None]
    images += waves[:, None, :, None] * (label == 1)[:, None, None, None]
    pixels = images.clip(0, 255).astype(np.uint8)
    small = pixels[..., 0].astype(np.float32)
    features = np.abs(np.fft.rfft(np.stack([small.mean(axis=1), small.mean(axis=2)], axis=1))).reshape(n, -1)
    return Cohort(
        labels=np.eye(3, dtype=np.int8)[label],
        classes=("lying", "standing", "none"),
        features=features.astype(np.float32),
        images=pixels,
        normal=2,
        source=Source(name="stripes", licence="CC0"),
    )
