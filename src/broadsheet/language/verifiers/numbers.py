"""Sums told in words, as in GSM8K: the last number of the answer is the answer.

As in the official program of arXiv 2411.15124: `gsm8k` in the form that the paper's runs had, `gsm8k_signed` in its present.
"""

from __future__ import annotations

import re
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language.verifiers.registry import verifier

THOUSANDS = re.compile(r"(\d),(\d)")
UNSIGNED = re.compile(r"[-+]?\d*\.\d+|\d+")
SIGNED = re.compile(r"[-+]?(?:\d*\.\d+|\d+)")


def last_number(text: str, *, signed: bool = False) -> str:
    """The last number as it is written, commas between digits left out; the whole text where there is none.

    Without `signed` the sign is read before a decimal fraction alone: `-3.5` is -3.5, but `-7` is 7.
    """
    found = (SIGNED if signed else UNSIGNED).findall(THOUSANDS.sub(r"\1\2", text))
    return found[-1] if found else text


def _same(said: str, label: Any) -> float:
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        raise InputError(f"The label of a sum is {label!r}; a number, or its text, is wanted.")
    return float(said.lower() == str(label).lower())


@verifier("gsm8k")
def gsm8k(text: str, label: Any) -> float:
    """1 where the last number of the text, its sign before decimals alone, is the label, letter by letter.

    So `7` is right for 7 and `7.0` is not, a negative whole number can never be right, and `-7` is right for 7: as in the
    paper's runs. A label with a comma, as GSM8K writes 1,080, is met by nothing: take commas out of labels. A prompt before
    the mark of the assistant is not read.
    """
    return _same(last_number(text.rpartition("<|assistant|>\n")[2].strip()), label)


@verifier("gsm8k_signed")
def gsm8k_signed(text: str, label: Any) -> float:
    """1 where the last number of the text, with its sign, is the label, letter by letter; but `10-7` reads -7."""
    return _same(last_number(text, signed=True), label)
