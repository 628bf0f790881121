"""Exponentially filtered inputs: what a synapse keeps, before any interaction of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter


def synaptic_traces(
    inputs: Float[np.ndarray, "time channels"], tau: Sequence[float] = (5.0, 20.0, 60.0), dt: float = 1.0
) -> Float[np.ndarray, "time features"]:
    """Each channel low-passed at each time constant (ms): `s_t = exp(-dt / tau) s_{t-1} + x_t`; channels within taus."""
    decays = np.exp(-dt / np.asarray(tau))
    return np.concatenate([lfilter([1.0], [1.0, -a], inputs, axis=0) for a in decays], axis=1).astype(np.float32)
