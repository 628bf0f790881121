"""One format for a worm's traces: z-scored, at one rate, in 300 slots; after arXiv 2411.12091.

Traces are handled with neurons first and a few at a time, so that a block stays in the processor's cache through all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.errors import InputError
from broadsheet.recordings.worm.names import canonicalise, slots

SMOOTHINGS = ("none", "gaussian", "moving", "exponential")
AMOUNTS = {"gaussian": 5.0, "moving": 21.0, "exponential": 0.1}
"""Defaults of `smooth`: samples (standard deviation, window) and the weight of the newest sample."""
BLOCK = 8  # neurons handled at a time
STRETCH = 16  # samples that a recursion takes at once


@dataclass(frozen=True)
class Raw:
    """Traces as a laboratory gives them: (samples, cells), times in seconds, one name a cell (None where it has none)."""

    traces: np.ndarray
    times: np.ndarray
    names: tuple[str | None, ...]
    source: str = ""
    worm: str = ""
    file: str = ""


@dataclass(frozen=True)
class Recording:
    """A worm in the common format.

    - `calcium`, `residual`, `smooth_calcium`, `smooth_residual`: (samples, 300), zeros in slots without a trace; residual is
      the derivative (z-scores a second). Without smoothing the smooth arrays are the others; where the z-score comes last
      `smooth_calcium` is `calcium`, one array.
    - `mask`: (300,) slots with an identified neuron.
    - `time`: (samples,) s; `dt`: its step; `original_dt`: the median step of the file.
    - `others`: (samples, cells) z-scored traces of cells without an identity, `other_names` what the file calls them.
    - `causal`: whether each sample rests on what came before it alone.
    """

    calcium: np.ndarray
    residual: np.ndarray
    smooth_calcium: np.ndarray
    smooth_residual: np.ndarray
    mask: np.ndarray
    time: np.ndarray
    dt: float
    original_dt: float
    causal: bool
    smooth: str
    others: np.ndarray
    other_names: tuple[str, ...]
    source: str = ""
    worm: str = ""
    file: str = ""

    def masked(self) -> Float[np.ndarray, "samples 300"]:
        """`calcium` with NaN in slots without an identified neuron, as estimators take it."""
        return np.where(self.mask, self.calcium, np.nan)


def check_raw(traces: np.ndarray, times: np.ndarray, names: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Traces and times as float64; raises `InputError` for what cannot be homogenised."""
    traces, times = np.asarray(traces), np.asarray(times, float).ravel()
    if traces.ndim != 2 or traces.dtype.kind not in "biuf" or traces.shape != (len(times), len(names)):
        raise InputError(
            f"Traces are {traces.shape} with {len(times)} times and {len(names)} names; numbers (samples, cells) with a time a "
            "sample and a name a cell are wanted."
        )
    if len(times) < 3:
        raise InputError(f"The traces have {len(times)} samples; 3 or more are wanted.")
    if not np.isfinite(times).all():
        raise InputError(f"The time of sample {int(np.argmin(np.isfinite(times)))} is {times[~np.isfinite(times)][0]}.")
    if (np.diff(times) <= 0).any():
        k = int(np.argmax(np.diff(times) <= 0))
        raise InputError(f"Sample {k + 1} is at {times[k + 1]:g} s and the one before it at {times[k]:g} s; times must rise.")
    bad = ~np.isfinite(traces).all(0)
    if bad.any():
        k = int(bad.argmax())
        sample = int(np.argmin(np.isfinite(traces[:, k])))
        raise InputError(
            f"The trace of {names[k] or f'cell {k}'} is {traces[sample, k]} in sample {sample} ({int(bad.sum())} traces have "
            "such samples); fill the gaps or leave these cells out."
        )
    return traces, times


def homogenise(
    traces: Float[np.ndarray, "samples cells"],
    times: Float[np.ndarray, " samples"],
    names: Sequence[str | None],
    dt: float = 0.333,
    smooth: str | None = None,
    *,
    amount: float | None = None,
    causal: bool = False,
    average: bool = False,
    start: float | None = None,
    zscore: str = "first",
    source: str = "",
    worm: str = "",
    file: str = "",
) -> Recording:
    """Brings traces to the common format: z-score, derivative, smoothing, resampling, slots.

    **Arguments:**

    - `times`: s, rising, steps of any length; `names`: of the cells, None or any text where a cell has no identity. Of two
      traces of one name the first is kept.
    - `dt`: step of the result (s); its grid begins at the first sample, or at `start + k dt` where `start` is given, so that
      recordings share a grid.
    - `smooth`, `amount`: `"gaussian"` (standard deviation in samples), `"moving"` (odd window; beyond the ends there are
      zeros), `"exponential"` (weight of the newest sample); applied to the z-scores and to the derivative.
    - `causal`: every sample of the result rests on samples up to its time alone: mean and deviation of the z-score are running
      ones, the derivative looks back, smoothing takes past samples, resampling the newest sample.
    - `average`: before interpolation to a coarser grid, a mean over as many samples as fall on a step, against aliasing.
    - `zscore`: `"last"` takes the z-score of what was smoothed and resampled, as the authors' newest code does; the derivative
      then is one of the traces as given, and weighs neighbours by how near they are.

    **Raises:** `InputError` for NaN, times that do not rise, shapes that do not fit.
    """
    traces, times = check_raw(traces, times, names)
    if not dt > 0:
        raise InputError(f"A step of {dt} s; a number above 0 is wanted.")
    smooth = smooth or "none"
    if smooth not in SMOOTHINGS:
        raise InputError(f"smooth={smooth!r}; {', '.join(SMOOTHINGS)} are there.")
    if zscore not in ("first", "last"):
        raise InputError(f"zscore={zscore!r}; first or last is wanted.")
    kept, place, others, labels = _assign(names)
    grid = _grid(times, dt, start)
    weights = _hold(times, grid) if causal else _linear(times, grid)
    width = max(1, round(dt / float(np.median(np.diff(times))))) if average else 1
    kinds = 2 if smooth == "none" else 4 if zscore == "first" else 3
    out = [np.zeros((len(slots()), len(grid))) for _ in range(kinds)]
    loose = np.zeros((len(others), len(grid)))
    for columns, rows, targets in ((kept, place, out), (others, np.arange(len(others)), [loose])):
        for first in range(0, len(columns), BLOCK):
            part = slice(first, first + BLOCK)
            made = _block(traces[:, columns[part]].T, times, smooth, amount, causal, width, weights, zscore == "first",
                          len(targets))  # fmt: skip
            for target, values in zip(targets, made, strict=True):
                target[rows[part]] = values
    calcium, residual, *rest = (each.T for each in out)
    mask = np.zeros(len(slots()), bool)
    mask[place] = True
    smooth_calcium, smooth_residual = rest[0] if kinds == 4 else calcium, rest[-1] if rest else residual
    return Recording(
        calcium, residual, smooth_calcium, smooth_residual, mask, grid, dt, float(np.median(np.diff(times))), causal,
        smooth, loose.T, labels, source, worm, file,
    )  # fmt: skip


def _assign(names: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Columns of identified cells, their slots, columns of the others, and what these are called."""
    found: dict[str, int] = {}
    others: list[int] = []
    for column, name in enumerate(names):
        plain = canonicalise(name)
        if plain is None:
            others.append(column)
        elif plain not in found:
            found[plain] = column
    labels = tuple(str(names[k]) if names[k] not in (None, "") else str(k) for k in others)
    columns, place = np.array([*found.values()], int), np.array([slots()[name] for name in found], int)
    return columns, place, np.array(others, int), labels


def _block(x: np.ndarray, times: np.ndarray, smooth: str, amount: float | None, causal: bool, width: int,
           weights: tuple[np.ndarray, np.ndarray], first: bool, kinds: int) -> list[np.ndarray]:  # fmt: skip
    """The arrays of a few cells (cells, samples), resampled: calcium, residual, and both smoothed; where the z-score comes last
    both kinds of calcium are one. Fewer where they are not asked for."""
    x = np.ascontiguousarray(x, float)
    normalise = running_zscore if causal else whole_zscore
    x = normalise(x) if first else x
    parts = [x]
    if kinds > 1:
        parts.append(backward_difference(x, times) if causal else gradient(x, times, weighted=not first))
    if smooth != "none" and not first:
        parts = [smoothed(x, smooth, amount, causal), *parts[1:]]
    if kinds > 2:
        parts += [smoothed(each, smooth, amount, causal) for each in (parts if first else parts[1:])]
    if width > 1:
        parts = [_past_mean(each, width) if causal else _centred_mean(each, width) for each in parts]
    made = [_resample(each, *weights) for each in parts]
    if not first:
        made[0] = normalise(made[0])
    return made


def whole_zscore(x: Float[np.ndarray, "cells samples"]) -> Float[np.ndarray, "cells samples"]:
    """Each row less its mean, over its standard deviation (population; a constant row stays 0)."""
    centred = x - x.mean(1, keepdims=True)
    scale = np.sqrt(np.einsum("ij,ij->i", centred, centred) / x.shape[1])
    centred /= np.where(scale > 0, scale, 1.0)[:, None]
    return centred


def running_zscore(x: Float[np.ndarray, "cells samples"]) -> Float[np.ndarray, "cells samples"]:
    """Each sample less the mean of the samples up to it, over their standard deviation; no sample sees a later one. Where the
    deviation is 0 it counts as 1, as at the start."""
    count = np.arange(1, x.shape[1] + 1)
    moved = x - x[:, :1]  # small numbers: squares of large ones would lose the variance
    mean = np.cumsum(moved, 1)
    mean /= count
    variance = np.cumsum(moved * moved, 1)
    variance /= count
    variance -= mean * mean
    scale = np.sqrt(np.maximum(variance, 0.0))
    moved -= mean
    moved /= np.where(scale > 1e-12, scale, 1.0)
    return moved


def gradient(
    x: Float[np.ndarray, "cells samples"], times: np.ndarray, weighted: bool = False
) -> Float[np.ndarray, "cells samples"]:
    """The derivative by differences of neighbours over the difference of their times, one-sided at the ends; `weighted` is
    exact for parabolas at uneven times too."""
    steps = np.diff(times)
    out = np.empty_like(x)
    if weighted:
        before, after = steps[:-1], steps[1:]
        out[:, 1:-1] = (x[:, 1:-1] - x[:, :-2]) * (after / (before * (before + after)))
        out[:, 1:-1] += (x[:, 2:] - x[:, 1:-1]) * (before / (after * (before + after)))
    else:
        np.subtract(x[:, 2:], x[:, :-2], out=out[:, 1:-1])
        out[:, 1:-1] /= times[2:] - times[:-2]
    out[:, 0] = (x[:, 1] - x[:, 0]) / steps[0]
    out[:, -1] = (x[:, -1] - x[:, -2]) / steps[-1]
    return out


def backward_difference(x: Float[np.ndarray, "cells samples"], times: np.ndarray) -> Float[np.ndarray, "cells samples"]:
    """The derivative by the sample before; 0 at the first one."""
    out = np.zeros_like(x)
    np.subtract(x[:, 1:], x[:, :-1], out=out[:, 1:])
    out[:, 1:] /= np.diff(times)
    return out


def smoothed(
    x: Float[np.ndarray, "cells samples"], kind: str, amount: float | None = None, causal: bool = False
) -> Float[np.ndarray, "cells samples"]:
    """Rows smoothed as `homogenise` says; causal ones take the past half of the kernel, with its weights summing to one over
    the samples there are."""
    if kind == "none":
        return x
    amount = AMOUNTS[kind] if amount is None else float(amount)
    if kind == "exponential":
        if not 0 < amount <= 1:
            raise InputError(f"The weight of the newest sample is {amount}; a number above 0 and up to 1 is wanted.")
        return _decaying_mean(x, amount)
    if not amount > 0:
        raise InputError(f"Smoothing over {amount} samples; a number above 0 is wanted.")
    if kind == "moving":
        width = max(int(amount), 1)
        return _past_mean(x, width) if causal else _zero_padded_mean(x, width | 1)
    from scipy.ndimage import convolve1d, gaussian_filter1d

    if not causal:
        return gaussian_filter1d(x, amount, axis=1)
    reach = int(6 * amount + 0.5)
    kernel = np.exp(-0.5 * (np.arange(reach + 1) / amount) ** 2)  # kernel[k]: weight of k samples ago
    full = np.concatenate([np.zeros(reach), kernel])
    past = convolve1d(x, full, axis=1, mode="constant")
    return past / np.minimum(np.cumsum(np.pad(kernel, (0, max(0, x.shape[1] - reach - 1))))[: x.shape[1]], kernel.sum())


def _decaying_mean(x: np.ndarray, weight: float) -> np.ndarray:
    """`y_t = weight x_t + (1 - weight) y_{t-1}` from `y_0 = x_0`: within stretches by one matrix product with the end of the
    stretch before as one more sample, so that the recursion, which is slow, goes from end to end alone."""
    from scipy.signal import lfilter

    rows, samples = x.shape
    decay, after = (1 - weight) ** np.arange(STRETCH + 1), np.arange(STRETCH) - np.arange(STRETCH)[:, None]
    kernel = np.vstack([np.where(after >= 0, weight * decay[abs(after)], 0.0), decay[1:]])
    full = samples // STRETCH
    parts = np.zeros((rows, full + 1, STRETCH + 1))
    parts[:, :full, :-1] = x[:, : full * STRETCH].reshape(rows, full, STRETCH)
    parts[:, full, : samples - full * STRETCH] = x[:, full * STRETCH :]
    parts[:, 0, -1] = x[:, 0]
    if full:
        ends = parts[:, :-1, :-1] @ kernel[:-1, -1]
        parts[:, 1:, -1] = lfilter([1.0], [1.0, -decay[-1]], ends, axis=1, zi=decay[-1] * x[:, :1])[0]
    return (parts @ kernel).reshape(rows, -1)[:, :samples]


def _windowed_sum(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Sums over samples t - before to t + after, as far as there are."""
    total = np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, 1)], 1)
    at = np.arange(x.shape[1])
    return total[:, np.minimum(at + after + 1, x.shape[1])] - total[:, np.maximum(at - before, 0)]


def _zero_padded_mean(x: np.ndarray, width: int) -> np.ndarray:
    return _windowed_sum(x, width // 2, width // 2) / width


def _past_mean(x: np.ndarray, width: int) -> np.ndarray:
    return _windowed_sum(x, width - 1, 0) / np.minimum(np.arange(1, x.shape[1] + 1), width)


def _centred_mean(x: np.ndarray, width: int) -> np.ndarray:
    before, after = (width - 1) // 2, width // 2
    at = np.arange(x.shape[1])
    count = np.minimum(at + after + 1, x.shape[1]) - np.maximum(at - before, 0)
    return _windowed_sum(x, before, after) / count


def _grid(times: np.ndarray, dt: float, start: float | None) -> np.ndarray:
    first = times[0] if start is None else start + dt * np.ceil((times[0] - start) / dt - 1e-9)
    grid = np.arange(first, times[-1], dt)
    if len(grid) < 2:
        raise InputError(
            f"The recording of {times[-1] - times[0]:g} s has {len(grid)} samples at steps of {dt:g} s; 2 are wanted."
        )
    return grid


def _linear(times: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each point of the grid the sample before it, and the share of the way to the next one."""
    before = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(times) - 2)
    return before, (grid - times[before]) / (times[before + 1] - times[before])


def _hold(times: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each point of the grid the newest sample, itself."""
    newest = np.clip(np.searchsorted(times, grid + 1e-9, side="right") - 1, 0, len(times) - 1)
    return newest, np.zeros(len(grid))


def _resample(x: np.ndarray, before: np.ndarray, share: np.ndarray) -> np.ndarray:
    low = x.take(before, axis=1, mode="clip")  # the fastest of NumPy's ways to gather
    if not share.any():
        return low
    rise = x.take(before + 1, axis=1, mode="clip")
    rise -= low
    rise *= share
    rise += low
    return rise


def interpolate(
    x: Float[np.ndarray, "samples channels"], times: Float[np.ndarray, " samples"], grid: Float[np.ndarray, " points"]
) -> Float[np.ndarray, "points channels"]:
    """Traces at other times by straight lines between samples; beyond the ends the last lines go on.

    **Raises:** `InputError` where there are not two samples or more, one a time, or the times do not rise.
    """
    from scipy.interpolate import BSpline

    x, times = np.ascontiguousarray(x, float), np.asarray(times, float)
    if x.ndim != 2 or times.shape != x.shape[:1] or len(times) < 2 or not (times[1:] > times[:-1]).all():
        raise InputError(f"Traces {x.shape} at times {times.shape}: two or more samples at rising times, one each, are wanted.")
    return BSpline.construct_fast(np.concatenate([times[:1], times, times[-1:]]), x, 1)(grid)  # checked above, in less time


def coverage(recordings: Sequence[Recording]) -> Bool[np.ndarray, "worms 300"]:
    """Which neurons are identified in which worm."""
    return np.array([each.mask for each in recordings]).reshape(len(recordings), len(slots()))
