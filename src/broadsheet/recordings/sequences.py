"""What estimators of this room take: one sequence or several, of equal length or not, with or without missing bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from broadsheet.errors import InputError


def sequences(
    x: Any, *, what: str = "counts", missing: bool = False, counts: bool = False, shortest: int = 1
) -> list[np.ndarray]:
    """A list of arrays (bins, channels): of one such array, of (trials, bins, channels), or of a list of arrays of unequal
    length.

    **Arguments:** `what`: the word for messages; `missing`: NaN is let through (a whole bin of NaN is a missing bin); `counts`:
    whole numbers from 0 on are wanted; `shortest`: bins that each sequence must have.

    **Raises:** `InputError` that names the sequence and the bin.
    """
    if isinstance(x, np.ndarray) or hasattr(x, "__array__"):
        array = np.asarray(x)
        if array.dtype == object or array.ndim not in (2, 3):
            raise InputError(
                f"{what} are {array.shape}; (bins, channels), (trials, bins, channels) or a list of arrays is wanted."
            )
        parts = [array] if array.ndim == 2 else list(array)
    else:
        try:
            parts = [np.asarray(each) for each in x]
            if parts and all(part.ndim == 1 for part in parts):  # a list of rows
                parts = [np.stack(parts)]
        except (TypeError, ValueError):
            raise InputError(f"{what} are neither an array nor a list of arrays (bins, channels).") from None
    if not parts:
        raise InputError(f"No {what} were given.")
    out = []
    for k, part in enumerate(parts):
        where = f"sequence {k}: " if len(parts) > 1 else ""
        if part.ndim != 2 or part.shape[1] != parts[0].shape[-1] or not part.shape[1]:
            raise InputError(f"{where}{what} are {part.shape}; (bins, {parts[0].shape[-1]}) is wanted, as in the first one.")
        if part.dtype.kind not in "biuf":
            raise InputError(f"{where}{what} are of type {part.dtype}; numbers are wanted.")
        if len(part) < shortest:
            raise InputError(f"{where}{what} have {len(part)} bins; {shortest} or more are wanted.")
        values = part.astype(float)
        bad = ~np.isfinite(values) & ~(np.isnan(values) & missing)
        if counts:
            with np.errstate(invalid="ignore"):
                bad |= (values < 0) | (values != np.floor(values)) & ~np.isnan(values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            wanted = "whole numbers from 0 on are wanted" if counts else "finite numbers are wanted"
            raise InputError(f"{where}{what} hold {values[row, column]:g} in bin {row}, channel {column}; {wanted}.")
        out.append(values)
    return out


def with_history(x: np.ndarray, filter_: np.ndarray) -> np.ndarray:
    """Each channel filtered by what came before: `y_t = sum over k of filter_[k - 1] x_(t - k)`, with zeros before the start.

    **Arguments:** `x`: (bins, channels); NaN counts as 0; `filter_`: (lags,), the weight of lag 1 first.
    """
    x = np.nan_to_num(x)
    out = np.zeros(x.shape)
    for k, weight in enumerate(filter_, start=1):
        out[k:] += weight * x[:-k]
    return out
