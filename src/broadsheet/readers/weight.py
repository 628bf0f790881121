"""What the votes of readers count for in trending, so that accounts that vote together count as few.

Two readers are as alike as what they voted for elsewhere: s = cos², the squared cosine of the two sets of papers, 1 for the
same set and 0 for sets without a common paper. The readers of a paper count as their maximum diversity of order 2 (Leinster
and Meckes 2016, arXiv 1512.06314),

    W = 1 / min pᵀ S p   over shares p ≥ 0 that sum to 1,

which is how many readers, none like another, are as diverse. From this follows, for any votes:

- Readers without a common paper elsewhere count as their number, and groups that have none in common add up.
- Readers who always vote together count as one, however many they are.
- One more vote never lowers W, whoever casts it: shares of all are shares of more. So nobody can vote a paper down.
- The order of votes and the names of accounts do not matter (up to `MOST` votes).

Newcomers have nothing to be compared by. However many they are, m of them count as log2(1 + m) together.

What a ring of n accounts can still reach: as newcomers log2(1 + n). With accounts that have waited, of which each has cast k
votes that no other of the ring shares for every m that it cast with them, s is (m / (m + k))² for each two, and W grows with n
towards (1 + k / m)²: to count as w, each account has to cast √w - 1 votes of its own for every one of the ring's. Only for its
first paper, before which the accounts share nothing, do n such accounts count as n.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 200
"""Readers that are compared with each other; of more, each `MOST` in the order of their votes are, and their weights add up."""

SWEEPS, EXACT = 400, 1e-5


def weight(elsewhere: Sequence[Collection[str]], newcomers: int = 0) -> float:
    """The weight of a paper's votes: what each of its voters voted for elsewhere, and how many others are newcomers."""
    parts = [elsewhere[start : start + MOST] for start in range(0, len(elsewhere), MOST)]
    return sum(diversity(overlap(part) ** 2) for part in parts) + math.log2(1 + newcomers)


def overlap(sets: Sequence[Collection[str]]) -> NDArray[np.float64]:
    """The cosine of each two sets, 1 of each with itself."""
    places: dict[str, list[int]] = {}
    for place, found in enumerate(sets):
        for name in found:
            places.setdefault(name, []).append(place)
    common = np.zeros((len(sets), len(sets)))
    for holders in places.values():
        if len(holders) > 1:
            common[np.ix_(holders, holders)] += 1
    sizes = np.sqrt(np.maximum([len(found) for found in sets], 1))
    common /= np.outer(sizes, sizes)
    np.fill_diagonal(common, 1.0)
    return common


def diversity(similarity: NDArray[np.float64]) -> float:
    """1 / min pᵀSp over shares p, for a positive semidefinite S with ones on its diagonal; 0 for nobody.

    With v = W p the minimum is where each v_i is what the others' likeness leaves of one vote, max(0, 1 - Σ_j≠i s_ij v_j);
    this is repeated until it holds.
    """
    count = len(similarity)
    if not count:
        return 0.0
    votes, reached = np.zeros(count), np.zeros(count)
    for _ in range(SWEEPS):
        moved = 0.0
        for place in range(count):
            change = max(0.0, 1.0 - reached[place] + votes[place]) - votes[place]
            if change:
                votes[place] += change
                reached += change * similarity[place]
                moved = max(moved, abs(change))
        if moved < EXACT:
            break
    return float(votes.sum() ** 2 / (votes @ similarity @ votes))
