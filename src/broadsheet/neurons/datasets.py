"""Loader of the Spiking Heidelberg Digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import MissingDataError
from broadsheet.files import existing
from broadsheet.neurons.event_data import read_spiking_speech

SHD = "The Spiking Heidelberg Digits are needed: download shd_train.h5 and shd_test.h5 (zenkelab.org) and pass --data FOLDER."


def read_shd(
    folder: str | Path | None, part: str = "train", *, bin_ms: float = 10.0, duration_ms: float = 1000.0
) -> tuple[Float[np.ndarray, "samples time 700"], Int[np.ndarray, " samples"]]:
    """The Spiking Heidelberg Digits, binned: 1 where a channel fired in a bin; labels 0-9 English, 10-19 German."""
    if folder is None:
        raise MissingDataError(SHD)
    path = existing(folder) / f"shd_{part}.h5"
    if not path.exists():
        raise MissingDataError(f"{path} is missing. {SHD}")
    return read_spiking_speech(path, bin_ms=bin_ms, duration_ms=duration_ms)
