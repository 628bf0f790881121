"""How many directions a matrix uses."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from broadsheet.errors import InputError

RankKind = Literal["participation", "entropy"]


def effective_rank(matrix: ArrayLike, kind: RankKind = "participation") -> float:
    """The effective rank of a matrix with singular values s: from 1 to its rank, whatever its scale.

    - `"participation"`: `(Σ s²)² / Σ s⁴`, the participation ratio of the squared singular values (Gao et al., bioRxiv 214262);
      2 for [1, 1, 0], and half the size for a square Gaussian matrix.
    - `"entropy"`: `exp(-Σ p log p)` with `p = s / Σ s` (Roy & Vetterli, EUSIPCO 2007). The two are different numbers.

    **Raises:** `InputError` for what is no matrix, for NaN, and for a matrix of zeros, which has no rank to speak of.
    """
    values = np.asarray(matrix, float)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise InputError(f"The effective rank is that of a matrix of finite numbers; an array of {values.shape} was given.")
    if kind not in ("participation", "entropy"):
        raise InputError(f"The effective rank has the kinds participation and entropy; {kind!r} was given.")
    s = np.linalg.svd(values, compute_uv=False)
    if s[0] == 0:
        raise InputError("The effective rank of a matrix of zeros is not defined.")
    s = s / s[0]
    if kind == "participation":
        return float((s**2).sum() ** 2 / (s**4).sum())
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
