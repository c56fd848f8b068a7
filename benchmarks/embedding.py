"""Embedding against the bare forward pass, and its peak memory as the number of images grows.

``python -m benchmarks.embedding``: JPEG files are written, and embedded with EfficientNet-Lite0 in batches; the same
network is run on one batch that lies in memory already. Peak memory is that of a fresh process each, with a small
network so that many images can be embedded.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from activelabel.data import Cohort
from activelabel.data.backbones import make_backbone
from activelabel.data.embedding import EmbedSettings, embed_file
from activelabel.data.images import ImageFiles


class Small(nn.Module):
    """A network that costs next to nothing."""

    size = 64

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 512, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, 512)``."""
        out: Tensor = self.layers(x)
        return out


def write_images(folder: Path, n: int, side: int) -> Cohort:
    """Write grey JPEGs that look a little like X-rays, each different; returns their cohort."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    names = []
    for i in range(n):
        waves = sum(np.sin(2 * np.pi * (rng.normal() * 3 * x + rng.normal() * 3 * y + rng.random())) for _ in range(4))
        image = 128 + 25 * waves + rng.normal(0, 4, (side, side))
        names.append(f"{i:06}.jpg")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / names[-1], quality=90)
    labels = np.eye(2, dtype=np.int8)[np.arange(n) % 2]
    return Cohort(labels, ("a", "b"), images=ImageFiles(names, folder), names=np.array(names))


def throughput(n: int, side: int, batch_size: int, workers: int, repeats: int) -> None:
    """Print images a second of both, in turns."""
    backbone = make_backbone("efficientnet-lite0", device="auto")
    batch = np.random.default_rng(1).integers(0, 256, (batch_size, 224, 224, 3), dtype=np.uint8)
    backbone(batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort = write_images(folder, n, side)
        ratios = []
        for turn in range(repeats):
            start = time.perf_counter()
            for _ in range(-(-n // batch_size)):
                backbone(batch)
            bare = -(-n // batch_size) * batch_size / (time.perf_counter() - start)
            start = time.perf_counter()
            embed_file(cohort, backbone, folder / f"{turn}.npz", settings=EmbedSettings(batch_size, workers))
            whole = n / (time.perf_counter() - start)
            ratios.append(whole / bare)
            print(
                f"  turn {turn + 1}: bare {bare:.1f} img/s, embedding {whole:.1f} img/s, {whole / bare:.2f}", flush=True
            )
    print(f"embedding / bare forward pass, median of {repeats}: {np.median(ratios):.2f}")


def memory(sizes: list[int], side: int) -> None:
    """Print the peak memory of fresh processes that embed more and more images."""
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), max(sizes), side)
        for n in sizes:
            command = [sys.executable, "-m", "benchmarks.embedding", "--peak", name, "--images", str(n)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"{n:>7} images of {side} x {side}: peak memory {told.strip()}", flush=True)


def peak(folder: Path, n: int) -> None:
    """Embed ``n`` images of a folder and print this process's peak memory."""
    names = [f"{i:06}.jpg" for i in range(n)]
    labels = np.eye(2, dtype=np.int8)[np.arange(n) % 2]
    cohort = Cohort(labels, ("a", "b"), images=ImageFiles(names, folder), names=np.array(names))
    embed_file(cohort, make_backbone("benchmarks.embedding:Small"), folder / f"peak{n}.npz")
    size = (folder / f"peak{n}.npz").stat().st_size / 2**20
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB (features {size:.0f} MiB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[2000, 8000, 32000])
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak is not None:
        peak(given.peak, given.images)
        return
    print(f"{torch.get_num_threads()} threads, {given.images} JPEGs of {given.side} x {given.side}")
    throughput(given.images, given.side, given.batch_size, given.workers, given.repeats)
    if given.memory:
        memory(given.memory, 64)


if __name__ == "__main__":
    main()
