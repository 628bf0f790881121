"""GPTQ (arXiv 2210.17323): rounding column by column, each error made good by the columns that are left. Plain NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from broadsheet.errors import InputError
from broadsheet.numerics.quantisation import Grid, from_codes, to_codes


def gptq(
    w: Float[np.ndarray, "out in"],
    second_moment: Float[np.ndarray, "in in"],
    grid: Grid,
    *,
    damping: float = 0.01,
    by_size: bool = False,
    block: int = 128,
) -> Integer[np.ndarray, "out in"]:
    """The codes of a linear map's weights.

    **Arguments:** `second_moment`: X^T X of the map's inputs (any multiple); `grid`: with a step for all, for each row, or
    (out, groups) for as many equal groups of inputs of each row; `damping`: share of its mean diagonal that is added to it;
    `by_size`: take columns with large inputs first ("act order"); `block`: columns whose errors go on together.

    **Raises:** `InputError` where the moment has another size or is not finite.
    """
    w = np.array(w, np.float64)
    h = np.array(second_moment, np.float64)
    if h.shape != (w.shape[1],) * 2 or not np.isfinite(h).all():
        raise InputError(f"GPTQ: a finite second moment ({w.shape[1]}, {w.shape[1]}) is wanted; this one is {h.shape}.")
    silent = np.diag(h) == 0
    h[silent, silent] = 1.0
    w[:, silent] = 0.0
    order = np.argsort(-np.diag(h), kind="stable") if by_size else np.arange(len(h))
    w, h = w[:, order], h[np.ix_(order, order)]
    h[np.diag_indices_from(h)] += damping * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    step, zero = (np.reshape(part, (-1, part.shape[-1] if part.ndim > 1 else 1)) for part in (grid.step, grid.zero))
    group_of = order * step.shape[1] // w.shape[1]
    codes = np.empty(w.shape, np.int8 if grid.symmetric else np.uint8)
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        errors = np.empty((len(w), end - start))
        for k in range(start, end):
            column_grid = grid._replace(step=step[:, group_of[k]], zero=zero[:, group_of[k]])
            codes[:, k] = to_codes(w[:, k], column_grid)
            errors[:, k - start] = (w[:, k] - from_codes(codes[:, k], column_grid)) / upper[k, k]
            w[:, k:end] -= errors[:, k - start, None] * upper[k, k:end]
        w[:, end:] -= errors @ upper[start:end, end:]
    return codes[:, np.argsort(order)]
