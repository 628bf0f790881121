"""From classes to rewards and to counts: Div, its fusion with quality, distinct@k and pass@k (DARLING, arXiv 2509.02534)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb
from typing import Literal

import numpy as np

from broadsheet.errors import InputError

Fusion = Literal["multiply", "add", "zscore"]
FUSIONS: tuple[Fusion, ...] = ("multiply", "add", "zscore")
FLOOR = 0.1


def diversity(class_ids: Sequence[int] | np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Div of each answer, (answers): the share of the *other* answers of its group that mean something else.

    `(n - c) / (n - 1)` for a class of c of n answers, at least `floor`; of a single answer, which has no others, `floor`.
    """
    n, sizes = len(class_ids), Counter(class_ids)
    shares = np.array([(n - sizes[k]) / (n - 1) if n > 1 else 0.0 for k in class_ids])
    return np.maximum(shares, floor)


def diversity_of_correct(class_ids: Sequence[int], correct: Sequence[bool], floor: float = FLOOR) -> np.ndarray:
    """Div among the correct answers alone, (answers); wrong ones have `floor`, and all where one is correct or none.

    The authors' variant for verifiable tasks. `class_ids` of wrong answers are not looked at.
    """
    right = np.asarray(correct, bool)
    found = np.full(len(right), floor)
    found[right] = diversity([k for k, one in zip(class_ids, right, strict=True) if one], floor)
    return found


def darling_reward(
    quality: Sequence[float] | np.ndarray,
    class_ids: Sequence[int] | np.ndarray,
    fusion: Fusion = "multiply",
    bias: bool = False,
    *,
    floor: float = FLOOR,
    weights: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Quality and diversity of the answers to one prompt as one reward, (answers); see `fuse`."""
    return fuse(quality, diversity(class_ids, floor), fusion, bias, weights=weights)


def fuse(
    quality: Sequence[float] | np.ndarray,
    div: Sequence[float] | np.ndarray,
    fusion: Fusion = "multiply",
    bias: bool = False,
    *,
    weights: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """One reward of the quality and the diversity of a group's answers.

    - `multiply`: the product. With `bias` the group's smallest quality is subtracted first: a negative quality times a small
      Div would be better than times a large one.
    - `add`: the sum, each with its weight.
    - `zscore`: the sum of both as z-scores in the group (of the population, 1e-6 beside the deviation; all alike: 0).

    **Raises:** `InputError` for a product with a negative quality, for values that are not finite, and for lengths that differ.
    """
    q, d = (np.asarray(values, float) for values in (quality, div))
    if q.shape != d.shape or q.ndim != 1:
        raise InputError(f"There are {q.size} values of quality and {d.size} of diversity; one a generation is wanted.")
    if not (np.isfinite(q).all() and np.isfinite(d).all()):
        raise InputError("A quality or a diversity is not a finite number.")
    if fusion == "multiply":
        if bias and len(q):
            q = q - q.min()
        if (q < 0).any():
            raise InputError(
                f"The quality {q.min():g} is negative: a product would favour answers that are alike; shift it with bias=True."
            )
        return q * d
    if fusion == "add":
        return weights[0] * q + weights[1] * d
    if fusion == "zscore":
        return weights[0] * _zscore(q) + weights[1] * _zscore(d)
    raise InputError(f"fusion is {fusion!r}; {', '.join(FUSIONS)} are there.")


def _zscore(values: np.ndarray) -> np.ndarray:
    """Of a single value, that value, as the authors' code has it."""
    if len(values) < 2:
        return values
    spread = values.std()
    return (values - values.mean()) / (spread + 1e-6) if spread else np.zeros(len(values))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that of k answers, drawn without replacement from n of which `correct` are right, one is right at least.

    The unbiased estimate `1 - C(n - c, k) / C(n, k)` (Chen et al. 2021, arXiv 2107.03374), in exact integers.
    """
    _check_draw(n, k)
    if not 0 <= correct <= n:
        raise InputError(f"{correct} of {n} answers cannot be right.")
    return 1 - comb(n - correct, k) / comb(n, k)


def distinct_at_k(class_ids: Sequence[Hashable | None], k: int | None = None) -> float:
    """Number of classes that k of the answers are expected to show, drawn without replacement; by default of all.

    A class of c of n answers is seen with the chance of `pass_at_k(n, c, k)`; the expectation is their sum, unbiased. None
    is no class: an answer that is wrong, where only right ones count.
    """
    n = len(class_ids)
    k = n if k is None else k
    _check_draw(n, k)
    sizes = Counter(key for key in class_ids if key is not None)
    return float(sum(1 - comb(n - size, k) / comb(n, k) for size in sizes.values()))


def _check_draw(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise InputError(f"{k} answers cannot be drawn from {n}.")
