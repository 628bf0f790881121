"""Diversity of wording: n-grams that no other answer of the group has (the baseline of DARLING, arXiv 2509.02534)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from broadsheet.errors import InputError


class NGramDiversity:
    """For each answer, its n-grams that no other answer of the group has, over the number of its n-grams.

    Answers of fewer than `n` words have none, and score 0: there the measure says nothing, whatever the answers are.

    **Arguments:** `n`: words of an n-gram; `characters`: take characters in place of words, for answers that are a word long.
    """

    def __init__(self, n: int = 4, *, characters: bool = False) -> None:
        if n < 1:
            raise InputError(f"n is {n}; n-grams have one word at least.")
        self.n, self.characters = n, characters

    def scores(self, responses: Sequence[str]) -> np.ndarray:
        """Share of own n-grams in [0, 1], (answers), of the answers to one prompt."""
        parts = [list(text) if self.characters else text.split() for text in responses]
        grams = [{tuple(part[k : k + self.n]) for k in range(len(part) - self.n + 1)} for part in parts]
        owners = Counter(gram for one in grams for gram in one)
        return np.array(
            [
                sum(owners[gram] == 1 for gram in one) / max(1, len(part) - self.n + 1)
                for one, part in zip(grams, parts, strict=True)
            ]
        )
