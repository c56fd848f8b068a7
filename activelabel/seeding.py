"""Named random streams: no global generator is read or written anywhere in the package.

A stream is identified by integers and names, such as ``stream(seed, "task", 7)``. The same identity gives the same
numbers in every process and in every order of use, so that task 7 is task 7 whether it is drawn first or last,
alone or in a batch.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from activelabel.errors import SettingsError


def _sequence(*identity: int | str) -> np.random.SeedSequence:
    for part in identity:
        if not isinstance(part, str) and part < 0:
            raise SettingsError(f"seed {part} must not be negative.")
    # The length goes first: a seed sequence is padded with zeros, so (0,) and (0, 0) would be one stream.
    words = [len(identity)] + [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in identity]
    return np.random.SeedSequence(words)


def stream(*identity: int | str) -> np.random.Generator:
    """Return the NumPy generator of an identity.

    Parameters
    ----------
    *identity: non-negative integers and names; the order counts.
    """
    return np.random.Generator(np.random.PCG64(_sequence(*identity)))


def torch_stream(*identity: int | str) -> torch.Generator:
    """Return the torch generator of an identity, always on the CPU.

    Random numbers are drawn on the CPU and moved, so that a run on a GPU draws what a run on a CPU draws.
    """
    generator = torch.Generator(device="cpu")
    generator.manual_seed(int(_sequence(*identity).generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return generator
