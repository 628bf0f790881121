"""Checks of users' numbers that stand aside inside a transformation, where numbers are not known yet."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from broadsheet.errors import InputError


def concrete(value: Any) -> np.ndarray | None:
    """The numbers, or None within a transformation."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def positive(name: str, value: Any) -> None:
    """Raises `InputError` where a time (ms) is not above 0; NaN is not."""
    known = concrete(value)
    if known is not None and not np.all(known > 0):
        raise InputError(f"{name} must be above 0 ms.")
