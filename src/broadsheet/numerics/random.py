"""One seed for JAX and NumPy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def generator(key: Any) -> np.random.Generator:
    """A NumPy generator from a JAX key, an integer seed, or a generator (which is returned as it is)."""
    if isinstance(key, np.random.Generator):
        return key
    if isinstance(key, jax.Array):
        data = jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        return np.random.default_rng(np.asarray(data).ravel().tolist())
    return np.random.default_rng(key)
