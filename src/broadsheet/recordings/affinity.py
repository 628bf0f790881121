"""Which neurons change together, in the same direction, at each moment: affinities of all pairs, without a window.

After arXiv 2402.14102. Its formula could not be read; what is known of it (from derivatives, non-linear, never negative,
opposite changes count nothing) is met by three kernels, and the geometric mean is the default. Two fields' ways beside it:
correlation in a sliding window, and products of standardised signals (edge time series).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from scipy.ndimage import gaussian_filter1d

from broadsheet.errors import InputError

Kernel = Literal["geomean", "min", "product"]
KERNELS: tuple[Kernel, ...] = ("geomean", "min", "product")


class Affinity(NamedTuple):
    """Of pairs of neurons over time, in several animals.

    - `values`: (frames, animals, pairs), zero where an animal lacks one of the two neurons.
    - `pairs`: (pairs, 2), the upper triangle row by row.
    - `mask`: (animals, pairs), whether both neurons were seen.
    """

    values: Float[np.ndarray, "frames animals pairs"]
    pairs: Int[np.ndarray, "pairs 2"]
    mask: Bool[np.ndarray, "animals pairs"]


def kernel_value(a: Any, b: Any, kernel: Kernel = "geomean") -> Array:
    """Affinity of two rates of change: 0 where they have opposite signs or one is 0.

    `"geomean"`: `sqrt(a b)`; `"min"`: the smaller size; `"product"`: `a b`.
    """
    together = jnp.maximum(a * b, 0.0)
    if kernel == "geomean":
        return jnp.sqrt(together)
    if kernel == "product":
        return together
    if kernel == "min":
        return jnp.where(together > 0, jnp.minimum(jnp.abs(a), jnp.abs(b)), 0.0)
    raise InputError(f"kernel = {kernel!r}; geomean, min or product is wanted.")


def rates_of_change(traces: Any, dt: float, smooth: float = 2.0) -> Float[np.ndarray, "animals neurons frames"]:
    """Derivatives (1/s) of traces scaled to 0..1 and smoothed, divided by their root mean square over time.

    **Arguments:** `traces`: (animals, neurons, frames), a trace of NaN where an animal lacks a neuron; `dt`: s; `smooth`:
    width of the Gaussian in frames, 0 for none. A constant trace has a rate of 0.

    **Raises:** `InputError` for a trace that is NaN in part.
    """
    values, seen = checked_traces(traces)
    if not dt > 0:
        raise InputError(f"dt = {dt} s; a number above 0 is wanted.")
    if values.shape[2] < 3:
        raise InputError(f"Traces have {values.shape[2]} frames; 3 or more are wanted for a rate of change.")
    low, high = values.min(axis=2, keepdims=True), values.max(axis=2, keepdims=True)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    if smooth > 0:
        scaled = gaussian_filter1d(scaled, smooth, axis=2)
    rates = np.gradient(scaled, dt, axis=2)
    size = np.sqrt((rates**2).mean(axis=2, keepdims=True))
    rates = np.where((high > low) & (size > 0), rates / np.where(size > 0, size, 1.0), 0.0)
    return np.where(seen[:, :, None], rates, np.nan)


def differential_affinity(
    traces: Any, dt: float, kernel: Kernel = "geomean", *, smooth: float = 2.0, every: int = 1
) -> Affinity:
    """Affinities of all pairs at each moment, from the traces' rates of change.

    **Arguments:** `traces`, `dt`, `smooth`: as of `rates_of_change`; `every`: frames whose affinities are averaged into one,
    which divides the memory (4 bytes a frame, animal and pair).
    """
    rates = rates_of_change(traces, dt, smooth)
    if not 1 <= every <= rates.shape[2]:
        raise InputError(f"every = {every}; 1 to the {rates.shape[2]} frames of a recording are wanted.")
    return _of_signals(rates, kernel, every)


def edge_series(traces: Any, *, smooth: float = 2.0, every: int = 1) -> Affinity:
    """Products of standardised traces, where positive: the usual window-free measure of co-fluctuation."""
    values, seen = checked_traces(traces)
    smoothed = gaussian_filter1d(values, smooth, axis=2) if smooth > 0 else values
    spread = smoothed.std(axis=2, keepdims=True)
    scores = (smoothed - smoothed.mean(axis=2, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return _of_signals(np.where(seen[:, :, None], scores, np.nan), "product", every)


def _of_signals(signals: np.ndarray, kernel: Kernel, every: int) -> Affinity:
    """The kernel of all pairs of signals (animals, neurons, frames), one animal at a time, in stretches of bounded size."""
    animals, neurons, frames = signals.shape
    pairs = pair_order(neurons)
    seen = np.isfinite(signals).all(axis=2)
    mask = seen[:, pairs[:, 0]] & seen[:, pairs[:, 1]]
    kept = frames // every
    out = np.zeros((kept, animals, len(pairs)), np.float32)
    stretch = max(1, _STRETCH // (every * len(pairs)))
    for animal in range(animals):
        given = np.nan_to_num(signals[animal, :, : kept * every]).astype(np.float32).T.reshape(kept, every, neurons)
        for start in range(0, kept, stretch):
            out[start : start + stretch, animal] = _all_pairs(given[start : start + stretch], pairs[:, 0], pairs[:, 1], kernel)
    out *= mask
    return Affinity(out, pairs, mask)


_STRETCH = 1 << 24
"""Values that are worked on at a time."""


@jax.jit(static_argnames="kernel")
def _all_pairs(signals: Array, first: Array, second: Array, kernel: Kernel) -> Array:
    return kernel_value(signals[:, :, first], signals[:, :, second], kernel).mean(axis=1)


def windowed_correlation(traces: Any, window: int = 30) -> Affinity:
    """Pearson's correlation in a centred window of frames, cut short at the ends, where positive: the usual measure of
    functional connectivity over time."""
    values, seen = checked_traces(traces)
    animals, neurons, frames = values.shape
    if not 2 <= window <= frames:
        raise InputError(f"window = {window}; 2 to the {frames} frames of a recording are wanted.")
    pairs = pair_order(neurons)
    mask = seen[:, pairs[:, 0]] & seen[:, pairs[:, 1]]
    start = np.maximum(np.arange(frames) - window // 2, 0)
    stop = np.minimum(np.arange(frames) + window - window // 2, frames)
    count = stop - start
    out = np.zeros((frames, animals, len(pairs)), np.float32)

    def moving(x: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
        return (total[stop] - total[start]) / count[:, None]

    for animal in range(animals):
        x = values[animal].T - values[animal].mean(axis=1)
        mean, first, second = moving(x), x[:, pairs[:, 0]], x[:, pairs[:, 1]]
        spread = np.sqrt(np.maximum(moving(x**2) - mean**2, 0.0))
        both = spread[:, pairs[:, 0]] * spread[:, pairs[:, 1]]
        together = moving(first * second) - mean[:, pairs[:, 0]] * mean[:, pairs[:, 1]]
        out[:, animal] = np.maximum(np.divide(together, both, out=np.zeros_like(both), where=both > 1e-12), 0.0)
    out *= mask
    return Affinity(out, pairs, mask)


def pair_order(neurons: int) -> Int[np.ndarray, "pairs 2"]:
    """All pairs of different neurons, the upper triangle row by row."""
    if neurons < 2:
        raise InputError(f"{neurons} neurons have no pair; two or more are wanted.")
    return np.stack(np.triu_indices(neurons, 1), axis=1)


def fold(values: Any, neurons: int) -> Shaped[np.ndarray, "*more neurons neurons"]:
    """Values of pairs (…, pairs) as symmetric matrices with zeros on the diagonal."""
    values = np.asarray(values)
    first, second = np.triu_indices(neurons, 1)
    if values.shape[-1] != len(first):
        raise InputError(f"{values.shape[-1]} values are not those of the {len(first)} pairs of {neurons} neurons.")
    out = np.zeros((*values.shape[:-1], neurons, neurons), values.dtype)
    out[..., first, second] = out[..., second, first] = values
    return out


def unfold(matrix: Any) -> Shaped[np.ndarray, "*more pairs"]:
    """The upper triangle of matrices (…, neurons, neurons), row by row."""
    matrix = np.asarray(matrix)
    first, second = np.triu_indices(matrix.shape[-1], 1)
    return matrix[..., first, second]


def checked_traces(traces: Any) -> tuple[np.ndarray, Bool[np.ndarray, "animals neurons"]]:
    """Traces (animals, neurons, frames) with 0 for what an animal lacks, and what each animal has.

    **Raises:** `InputError` for another shape, and for a trace that is NaN in part or infinite.
    """
    values = np.asarray(traces, float)
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"Traces are {values.shape}; (animals, neurons, frames) is wanted.")
    bad = ~np.isfinite(values)
    seen = ~bad.all(axis=2)
    if (bad & seen[:, :, None]).any():
        animal, neuron, frame = np.argwhere(bad & seen[:, :, None])[0]
        raise InputError(
            f"Animal {animal}, neuron {neuron}: the trace is {values[animal, neuron, frame]} in frame {frame}; a whole trace, "
            "or NaN in all frames where the neuron was not seen, is wanted."
        )
    return np.where(seen[:, :, None], values, 0.0), seen
