"""Orders of shuffled pieces and the answers that undo them.

Two lists of the same numbers, which are each other's inverse and are easily taken for one another:

- the *order* of a puzzle, from 0: slot j shows the piece whose true place is `order[j]`;
- its *target*, from 1: true place i holds the piece with label `target[i]`. This is the answer that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from broadsheet.errors import InputError

Piece = TypeVar("Piece")


def draw_order(pieces: int, *, seed: int = 0, epoch: int = 0, index: int = 0) -> list[int]:
    """A uniformly drawn order of `pieces` pieces, the identity among them: the same for the same seed, epoch and index.

    **Raises:** `InputError` for fewer than two pieces or a negative number.
    """
    if pieces < 2:
        raise InputError(f"{pieces} pieces make no puzzle; at least 2 are wanted.")
    return dice(seed, epoch, index).permutation(pieces).tolist()


def dice(*numbers: int) -> np.random.Generator:
    """A generator of random numbers for whole numbers from 0 on; raises `InputError` for others."""
    if any(number < 0 for number in numbers):
        raise InputError(f"Seed, epoch and index are whole numbers from 0 on; {min(numbers)} is among them.")
    return np.random.default_rng(list(numbers))


def target_of(order: Sequence[int]) -> list[int]:
    """The answer that undoes an order: for each true place, the label (from 1) of the slot that shows its piece."""
    target = [0] * len(order)
    for slot, place in enumerate(order):
        target[place] = slot + 1
    return target


def order_of(target: Sequence[int]) -> list[int]:
    """The order that a target undoes."""
    order = [0] * len(target)
    for place, label in enumerate(target):
        order[label - 1] = place
    return order


def places_of(order: Sequence[int]) -> list[int]:
    """For each slot, the true place (from 1) of what it shows: the inverse of the target, which is NOT the answer asked for."""
    return [place + 1 for place in order]


def restore(shown: Sequence[Piece], answer: Sequence[int]) -> list[Piece]:
    """The shown pieces in the order that an answer says; raises `InputError` where it is no permutation of their labels."""
    if not is_permutation(answer, len(shown)):
        raise InputError(f"The answer {list(answer)[:20]} is no order of {len(shown)} pieces, numbered from 1.")
    return [shown[label - 1] for label in answer]


def is_permutation(numbers: Sequence[int], pieces: int) -> bool:
    """Whether these are the numbers from 1 to `pieces`, each once."""
    return len(numbers) == pieces and sorted(numbers) == list(range(1, pieces + 1))


def right_places(answer: Sequence[int], target: Sequence[int]) -> int:
    """How many places have the right label."""
    return sum(given == wanted for given, wanted in zip(answer, target, strict=False))


def checked_target(target: Iterable[Any]) -> list[int]:
    """A target as a list of Python's integers; raises `InputError` where it is no permutation of 1, 2, …"""
    try:
        numbers = [int(label) for label in target]
    except (TypeError, ValueError):
        raise InputError(f"The target {target!r:.60} is no list of whole numbers.") from None
    if len(numbers) < 2 or not is_permutation(numbers, len(numbers)):
        raise InputError(f"The target {numbers[:20]} is no permutation of 1 to {len(numbers)}.")
    return numbers
