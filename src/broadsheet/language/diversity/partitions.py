"""Partitions of answers into classes of equal meaning (DARLING, arXiv 2509.02534).

Which pairs are the same is asked of a key or a classifier; union-find makes "same" transitive, as the authors' code does.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations

from broadsheet.errors import InputError

ROUND = 512
"""Pairs that a classifier judges in one call; before the next, pairs that are joined already are left out."""

SHORT = 5
"""Words up to which an answer is short."""

Pair = tuple[str, str]


class UnionFind:
    """Sets of 0 … n-1 that grow together."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, k: int) -> int:
        """The representative of the set of `k`."""
        while self.parent[k] != k:
            self.parent[k] = self.parent[self.parent[k]]
            k = self.parent[k]
        return k

    def join(self, one: int, other: int) -> None:
        self.parent[self.find(one)] = self.find(other)

    def classes(self) -> list[int]:
        """Class of each, numbered 0, 1, … in the order in which they first appear."""
        return numbered([self.find(k) for k in range(len(self.parent))])


def numbered(keys: Iterable[Hashable]) -> list[int]:
    """Keys as 0, 1, … in the order in which they first appear."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


def closed(n: int, same: Iterable[tuple[int, int]]) -> list[int]:
    """Class ids of n things of which the pairs `same` are alike, and all that follows from them."""
    sets = UnionFind(n)
    for one, other in same:
        sets.join(one, other)
    return sets.classes()


def short_answers_alike(one: str, other: str) -> bool | None:
    """Whether two answers of five words or fewer share half of their words; None where one is longer.

    The authors' rule: words in lower case, 2 * |distinct words in common| >= the larger number of words. It calls "New York"
    and "New Delhi" the same.
    """
    words = [text.lower().split() for text in (one, other)]
    longest = max(map(len, words))
    return None if longest > SHORT else 2 * len(set(words[0]) & set(words[1])) >= longest


class Partitioner(abc.ABC):
    """Puts answers to one prompt into classes of equal meaning."""

    @abc.abstractmethod
    def partition_groups(self, groups: Sequence[Sequence[str]]) -> list[list[int]]:
        """Class ids of each answer of each group: all groups of a step at once, so that a classifier is called seldom."""

    def partition(self, responses: Sequence[str]) -> list[int]:
        """Class ids, 0, 1, … in the order in which the classes first appear, of the answers to one prompt."""
        return self.partition_groups([responses])[0]


class OraclePartitioner(Partitioner):
    """Answers with the same key are the same; where the key is None, an answer is a class of its own."""

    def __init__(self, key: Callable[[str], Hashable | None]) -> None:
        self.key = key

    def partition_groups(self, groups: Sequence[Sequence[str]]) -> list[list[int]]:
        return [numbered(_alone_where_none([self.key(text) for text in group])) for group in groups]


class PairPartitioner(Partitioner):
    """Asks of pairs whether they are the same, and closes the answers under transitivity.

    **Arguments:** `short_rule`: pairs of short answers are decided by the words that they share (`short_answers_alike`), as in
    the authors' code; `False` asks of these too.
    """

    def __init__(self, short_rule: bool = True) -> None:
        self.short_rule = short_rule
        self.asked = 0
        """Pairs judged so far, those decided without being asked left out."""

    @abc.abstractmethod
    def same(self, pairs: Sequence[Pair]) -> Sequence[bool]:
        """Whether the two texts of each pair are the same."""

    def partition_groups(self, groups: Sequence[Sequence[str]]) -> list[list[int]]:
        """As `Partitioner` says. A text that a group has twice is judged once, and so is a pair that two groups have."""
        texts = [list(dict.fromkeys(group)) for group in groups]
        sets = [UnionFind(len(group)) for group in texts]
        open_pairs: dict[Pair, list[tuple[int, int, int]]] = {}
        for g, group in enumerate(texts):
            for i, j in combinations(range(len(group)), 2):
                alike = short_answers_alike(group[i], group[j]) if self.short_rule else None
                if alike is None:
                    open_pairs.setdefault((group[i], group[j]), []).append((g, i, j))
                elif alike:
                    sets[g].join(i, j)
        left = list(open_pairs)
        while left:
            left = [pair for pair in left if any(sets[g].find(i) != sets[g].find(j) for g, i, j in open_pairs[pair])]
            now, left = left[:ROUND], left[ROUND:]
            self.asked += len(now)
            for pair, alike in zip(now, self.same(now) if now else (), strict=True):
                for g, i, j in open_pairs[pair] if alike else ():
                    sets[g].join(i, j)
        found = [dict(zip(group, numbers.classes(), strict=True)) for group, numbers in zip(texts, sets, strict=True)]
        return [numbered([ids[text] for text in group]) for group, ids in zip(groups, found, strict=True)]


class FunctionPartitioner(PairPartitioner):
    """Asks a function of two texts."""

    def __init__(self, alike: Callable[[str, str], bool], short_rule: bool = True) -> None:
        super().__init__(short_rule)
        self.alike = alike

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        return [bool(self.alike(*pair)) for pair in pairs]


def _alone_where_none(keys: Sequence[Hashable | None]) -> list[Hashable]:
    return [(False, k) if key is None else (True, key) for k, key in enumerate(keys)]


def group_rows(prompts: Sequence[object], size: int | None = None) -> list[range]:
    """Rows that belong together: those side by side with equal prompts, cut into groups of `size` where that is given.

    **Raises:** `InputError` where the rows of a prompt are no multiple of `size`: a group was split.
    """
    starts = [k for k, prompt in enumerate(prompts) if k == 0 or prompt != prompts[k - 1]]
    found = []
    for start, end in zip(starts, [*starts[1:], len(prompts)], strict=True):
        step = size or end - start
        if (end - start) % step:
            raise InputError(
                f"A prompt has {end - start} answers side by side, which are no groups of {step}; choose batches on each "
                "process that hold whole groups (per_device_train_batch_size a multiple of num_generations)."
            )
        found += [range(k, k + step) for k in range(start, end, step)]
    return found
