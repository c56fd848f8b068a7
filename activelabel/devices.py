"""Where tensors live."""

from __future__ import annotations

import torch

from activelabel.errors import SettingsError


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises
    ------
    SettingsError: if torch knows no device of that name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"device '{device}': {str(error).splitlines()[0]}") from None
