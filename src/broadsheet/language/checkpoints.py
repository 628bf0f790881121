"""Weights from files, as NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from broadsheet.errors import DataError, MissingExtraError
from broadsheet.files import existing, load_arrays


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> array of a .safetensors, .npz or PyTorch (.pt, .pth, .bin) checkpoint.

    PyTorch files are read with `weights_only=True`, which runs no code of theirs; bfloat16, which NumPy lacks, becomes float32.

    **Raises:** `MissingExtraError` without torch for a PyTorch file, `DataError` for anything that is no state dict.
    """
    path = existing(path)
    if path.suffix in (".safetensors", ".npz"):
        return load_arrays(path)
    try:
        import torch
    except ImportError:
        raise MissingExtraError(f"Reading the PyTorch checkpoint {path}", "language") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path} is not a checkpoint of weights alone ({str(error).splitlines()[0][:120]}).") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} holds no state dict (name -> tensor).")
    return {name: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy() for name, value in state.items()}
