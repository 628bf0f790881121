"""Seeds for programs that know no JAX keys."""

from __future__ import annotations

import jax
import numpy as np


def seed_of(key: jax.Array) -> int:
    """The integer behind `jax.random.key(seed)`."""
    return int(np.asarray(jax.random.key_data(key)).ravel()[-1])
