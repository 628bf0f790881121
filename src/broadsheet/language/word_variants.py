"""Tokens that are one word: with or without a blank before it, capital, plural."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from broadsheet.errors import InputError


def variants(words: Any, text: str) -> list[int]:
    """The tokens of a vocabulary that are one word: with or without a blank before it, capital, plural.

    **Arguments:** `words`: a Hugging Face tokenizer.

    **Raises:** `InputError` where no single token is that word.
    """
    wanted = stem(text)
    found = [token for token, each in enumerate(token_texts(words)) if each.strip() and stem(each) == wanted] if wanted else []
    if not found:
        cut = words.tokenize(text)
        raise InputError(
            f"No token is {text!r}, in any spelling; the tokenizer cuts it into {len(cut)}: {' | '.join(cut[:8])}."
        )
    return found


def token_texts(words: Any) -> list[str]:
    """The text of each token of a vocabulary, by id."""
    return words.batch_decode([[token] for token in range(len(words))], clean_up_tokenization_spaces=False)


def stem(text: str) -> str:
    """A word without blanks around it, capitals and a plural's s, so that variants are equal."""
    plain = text.strip().casefold()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain


def share_of_one_word(ids: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """How specialised names are: the share of a neuron's first names that are variants of its first one (layers,
    neurons), from `ids` (layers, neurons, k).

    **Raises:** `InputError` for a token without a text.
    """
    groups: dict[str, int] = {}
    group = np.array([groups.setdefault(stem(text), len(groups)) for text in texts])
    if len(group) <= ids.max():
        raise InputError(f"The map has the token {ids.max()}; texts are given for {len(group)}.")
    named = group[ids]
    return (named == named[..., :1]).mean(-1)
