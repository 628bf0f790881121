"""Weights as small integers, in plain NumPy: ranges, steps, codes, and their packing into bytes.

The arithmetic that every quantiser shares, whether it learns in JAX or in torch, and what its results are compared with. A
quantised array is `step * (codes - zero)`. Symmetric codes are signed, -2^(b-1) ... 2^(b-1) - 1, and their zero is 0;
asymmetric ones are 0 ... 2^b - 1 with a whole zero point. Per tensor, step and zero have no axes; per channel they have the
array's number of axes with one entry for each row (the first axis).

The search for the step is the one of the official code of FlexRound (arXiv 2306.00317): a hundred shares of the range and, for
asymmetric codes, every zero point; the power of the error is 2, with the official 2.4 as an option.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt8

from broadsheet.errors import InputError

SMALLEST_STEP = 1e-8


class Grid(NamedTuple):
    """The levels that an array is rounded to: `step * (codes - zero)` with codes of `bits` bits."""

    step: Float[np.ndarray, "*rows"]
    zero: Float[np.ndarray, "*rows"]
    bits: int
    symmetric: bool

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest multiple of the step, [n, p]: codes less zero."""
        low, high = code_range(self.bits, self.symmetric)
        return np.asarray(low - self.zero), np.asarray(high - self.zero)


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """The smallest and the largest code. Raises `InputError` for bits outside 2 to 8."""
    if not 2 <= bits <= 8:
        raise InputError(f"{bits} bits; weights are quantised to 2 to 8.")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def to_codes(w: Float[np.ndarray, "*shape"], grid: Grid) -> Integer[np.ndarray, "*shape"]:
    """The nearest code of each number, halves to even; int8, or uint8 where asymmetric."""
    low, high = grid.ends
    codes = np.clip(np.round(w / grid.step), low, high) + grid.zero
    return np.asarray(codes).astype(np.int8 if grid.symmetric else np.uint8)


def from_codes(codes: Integer[np.ndarray, "*shape"], grid: Grid) -> Float[np.ndarray, "*shape"]:
    """The numbers that codes stand for, in the precision of the step."""
    return np.asarray((codes.astype(grid.step.dtype) - grid.zero) * grid.step)


def range_grid(low: np.ndarray, high: np.ndarray, bits: int, symmetric: bool) -> Grid:
    """The grid whose ends are these: (high - low) / (2^b - 1), or 2 max(|low|, |high|) / (2^b - 1); zero is always a level."""
    last = code_range(bits, symmetric)[1] - code_range(bits, symmetric)[0]
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        step = np.maximum(2 * np.maximum(-low, high) / last, SMALLEST_STEP)
        return Grid(step, np.zeros_like(step), bits, True)
    step = np.maximum((high - low) / last, SMALLEST_STEP)
    return Grid(step, np.clip(-np.round(low / step), 0, last), bits, False)


def whole_grid(w: Float[np.ndarray, "*shape"], bits: int, *, symmetric: bool, per_channel: bool) -> Grid:
    """The grid from the smallest to the largest number: nothing is clipped."""
    rows = _rows(w, per_channel)
    return _shaped(range_grid(rows.min(axis=1), rows.max(axis=1), bits, symmetric), w, per_channel)


def search_grid(
    w: Float[np.ndarray, "*shape"], bits: int, *, symmetric: bool, per_channel: bool, power: float = 2.0, shares: int = 100
) -> Grid:
    """The grid with the least mean |W - quantised W|^power, tried at `shares` equal shares of the range and each zero point.

    For power 2 each row is sorted once and the errors are sums over its cells, so that a candidate costs as many operations as
    there are levels, not as there are weights.
    """
    rows = _rows(w, per_channel)
    low, high = np.minimum(rows.min(axis=1), 0.0), np.maximum(rows.max(axis=1), 0.0)
    last = 2**bits - 1
    first = -code_range(bits, symmetric)[0]
    zeros = np.array([first]) if symmetric else np.arange(last + 1)
    whole = 2 * np.maximum(-low, high) if symmetric else high - low
    part = np.arange(1, shares + 1) / shares / last
    step, zero = np.empty(len(rows)), np.empty(len(rows))
    steps = np.maximum(whole[:, None] * part, SMALLEST_STEP)
    errors = None if power == 2 else _errors(rows, steps, zeros, last, power)
    for k, row in enumerate(rows):
        found = _square_errors(row, steps[k], zeros, last) if errors is None else errors[k]
        best = np.unravel_index(np.argmin(found), found.shape)
        step[k], zero[k] = steps[k, best[0]], zeros[best[1]]
    dtype = np.result_type(w.dtype, np.float32)
    grid = Grid(step.astype(dtype), (zero - first if symmetric else zero).astype(dtype), bits, symmetric)
    return _shaped(grid, w, per_channel)


def _errors(rows: np.ndarray, steps: np.ndarray, zeros: np.ndarray, last: int, power: float) -> np.ndarray:
    """Sums of |x - level|^power, (rows, steps, zeros)."""
    found = np.empty((*steps.shape, len(zeros)))
    for k, step in enumerate(steps.T):
        near = np.round(rows / step[:, None])
        for j, zero in enumerate(zeros):
            found[:, k, j] = np.sum(np.abs(rows - np.clip(near, -zero, last - zero) * step[:, None]) ** power, axis=1)
    return found


def _square_errors(row: np.ndarray, steps: np.ndarray, zeros: np.ndarray, last: int) -> np.ndarray:
    """`_errors` of a row for power 2: the numbers that go to level m lie beside each other in the sorted row."""
    row = np.sort(row.astype(np.float64))
    totals = np.arange(len(row) + 1.0), *(np.concatenate([[0.0], np.cumsum(row**n)]) for n in (1, 2))
    levels = np.arange(-zeros.max(), last - zeros.min() + 1)
    ends = np.searchsorted(row, (levels[:-1] + 0.5) * steps[:, None])  # first number above each level but the last
    edges = np.concatenate([np.zeros((len(steps), 1), int), ends, np.full((len(steps), 1), len(row))], axis=1)
    values = levels * steps[:, None]
    inner = np.cumsum(_cell(totals, values, edges[:, :-1], edges[:, 1:]), axis=1)
    inner = np.concatenate([np.zeros((len(steps), 1)), inner], axis=1)
    at = np.searchsorted(levels, -zeros)  # position of each zero point's lowest level
    top = at + last
    lowest = _cell(totals, values[:, at], 0, edges[:, at + 1])
    highest = _cell(totals, values[:, top], edges[:, top], len(row))
    return np.maximum(inner[:, top] - inner[:, at + 1] + lowest + highest, 0.0)


def _cell(totals: tuple[np.ndarray, ...], at: np.ndarray, first: np.ndarray | int, behind: np.ndarray | int) -> np.ndarray:
    """Sums of (x - at)^2 over numbers of a sorted row, from `first` to before `behind`; `totals`: running sums of 1, x, x^2."""
    n, s, q = (total[behind] - total[first] for total in totals)
    return q - 2 * at * s + at**2 * n


def _rows(w: np.ndarray, per_channel: bool) -> np.ndarray:
    """The array as rows that share a step; raises `InputError` for an empty one and for numbers that are not finite."""
    w = np.asarray(w)
    if not w.size or not np.isfinite(w).all():
        raise InputError(f"An array to quantise {'holds numbers that are not finite' if w.size else 'is empty'}.")
    return w.reshape(len(w), -1) if per_channel else w.reshape(1, -1)


def _shaped(grid: Grid, w: np.ndarray, per_channel: bool) -> Grid:
    shape = (len(w), *[1] * (w.ndim - 1)) if per_channel else ()
    return grid._replace(step=grid.step.reshape(shape), zero=grid.zero.reshape(shape))


def pack(codes: Integer[np.ndarray, "*shape"], bits: int, symmetric: bool) -> UInt8[np.ndarray, " bytes"]:
    """Codes in rows of bits, the lowest first: int4 two a byte, int2 four, int3 eight in three bytes, int8 one.

    The smallest code is stored as 0. Raises `InputError` where a code needs more bits.
    """
    low, high = code_range(bits, symmetric)
    flat = np.asarray(codes).ravel().astype(np.int64)
    if flat.size and (flat.min() < low or flat.max() > high):
        raise InputError(f"A code of {bits} bits lies in [{low}, {high}]; these lie in [{flat.min()}, {flat.max()}].")
    each = np.unpackbits((flat - low).astype(np.uint8)[:, None], axis=1, bitorder="little")[:, :bits]
    return np.packbits(each.ravel(), bitorder="little")


def unpack(
    packed: UInt8[np.ndarray, " bytes"], shape: tuple[int, ...], bits: int, symmetric: bool
) -> Integer[np.ndarray, "..."]:
    """Codes of `pack`, int8, or uint8 where asymmetric. Raises `InputError` where there are fewer or more than `shape` has."""
    low, _ = code_range(bits, symmetric)
    count = int(np.prod(shape))
    if len(packed) != packed_bytes(count, bits):
        raise InputError(f"{len(packed)} bytes hold no {count} codes of {bits} bits; {packed_bytes(count, bits)} would.")
    each = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    found = np.packbits(each, axis=1, bitorder="little")[:, 0].astype(np.int16) + low
    return found.astype(np.int8 if symmetric else np.uint8).reshape(shape)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that so many codes take."""
    return -(-count * bits // 8)
