"""An exact index of the n-grams of prompts, past which other texts stream: which share an n-gram, and how much of a prompt.

A token is a run of letters, digits and underscores, or any other sign by itself, in lower case. An n-gram is found by a hash
and then compared token by token, so that what is found does not depend on the hash. Memory: some 50 bytes for each token of
the prompts, 80 while the index is made, and what a block of texts takes, however many there are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, repeat
from typing import NamedTuple

import numpy as np

from broadsheet.errors import InputError

TOKEN = re.compile(r"\w+|[^\w\s]")
BLOCK = 2**20
"""Characters that are looked up at a time; or one item, if it is longer."""
EXPANDED = 2**20
"""Places in prompts that are in memory at a time; or those of one item."""
BITS_A_KEY = 8
"""Size of the table of hashes that are there, in entries for each n-gram: seven of eight others end at it."""


def tokens(text: str) -> list[str]:
    """Words and signs of a text, in lower case."""
    return TOKEN.findall(text.lower())


class Overlaps(NamedTuple):
    """Pairs of an item and a prompt that share an n-gram, ordered by item and prompt.

    `items`, `prompts`: numbers; `overlaps`: the share of the prompt's tokens that the item's best text marks, (pairs,).
    """

    items: np.ndarray
    prompts: np.ndarray
    overlaps: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Overlaps]) -> Overlaps:
        """Those of several blocks."""
        if not parts:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def above(self, threshold: float) -> Overlaps:
        """Those with a larger overlap."""
        kept = self.overlaps > threshold
        return Overlaps(self.items[kept], self.prompts[kept], self.overlaps[kept])


class PromptIndex:
    """The n-grams of prompts, each a tuple of fields (a passage and a question, or one text).

    `lengths`: tokens of each field; `short`: whether a prompt has no n-gram at all, so that nothing can match it, (prompts,).

    **Raises:** `InputError` for an `n` below 1 and prompts of 2^31 tokens or more.
    """

    def __init__(self, prompts: Iterable[Sequence[str]], n: int = 8) -> None:
        if n < 1:
            raise InputError(f"n is {n}; n-grams of 1 token or more are wanted.")
        self.n = n
        known: defaultdict[str, int] = defaultdict(count(1).__next__)  # a new token gets the next number
        parts, lengths, owners, fields = [], [], [], []
        for owner, prompt in enumerate(prompts):
            fields.append(len(prompt))
            for text in prompt:
                ids = [known[token] for token in tokens(text)]
                parts.append(np.array([*ids, 0], np.int32))  # no n-gram reaches over the 0 that ends a field
                lengths.append(len(ids))
                owners.append(owner)
        self._words = dict(known)
        self.fields = np.array(fields, np.int64)
        self.lengths = np.array(lengths, np.int64)
        self._owners = np.array(owners, np.int64)
        self._ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        if len(self._ids) >= 2**31:
            raise InputError(f"The prompts have {len(self._ids)} tokens; fewer than 2^31 are wanted.")
        self._field_of = np.repeat(np.arange(len(lengths), dtype=np.int32), self.lengths + 1)
        longest = np.zeros(len(fields), np.int64)
        np.maximum.at(longest, self._owners, self.lengths)
        self.short = longest < n
        while not self._hash():
            pass

    def __len__(self) -> int:
        return len(self.fields)

    def _hash(self) -> bool:
        """Draws a hash and sorts the n-grams by it; whether no two different ones share a value."""
        rng = np.random.default_rng()  # what is found is the same under any
        self._codes = rng.integers(0, 2**64, len(self._words) + 1, np.uint64)
        self._factors = rng.integers(0, 2**63, self.n, np.uint64) * np.uint64(2) + np.uint64(1)
        places, hashes = self._windows(self._ids)
        order = np.argsort(hashes, kind="stable")
        self._places, hashes = places[order].astype(np.int32), hashes[order]
        new = np.ones(len(hashes), bool)
        new[1:] = hashes[1:] != hashes[:-1]
        self._starts = np.append(np.flatnonzero(new), len(hashes)).astype(np.int32)
        self._keys = hashes[new]
        firsts = np.repeat(self._places[self._starts[:-1]], np.diff(self._starts))
        if not self._same(self._ids, self._places, firsts).all():
            return False
        size = max(16, (BITS_A_KEY * len(self._keys)).bit_length())
        self._shift = np.uint64(64 - size)
        self._there = np.zeros(2**size, bool)
        self._there[self._keys >> self._shift] = True
        return True

    def _windows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places where n known tokens begin, and the hashes of these."""
        size = len(ids) - self.n + 1
        if size < 1:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        unknown = np.zeros(len(ids) + 1, np.int32)
        np.cumsum(ids == 0, out=unknown[1:])
        places = np.flatnonzero(unknown[self.n :] == unknown[: -self.n])
        codes, hashes = self._codes[ids], np.zeros(size, np.uint64)
        for k, factor in enumerate(self._factors):
            hashes += codes[k : k + size] * factor
        return places, hashes[places]

    def _same(self, ids: np.ndarray, places: np.ndarray, ours: np.ndarray) -> np.ndarray:
        """Whether the n tokens at places of `ids` are those at places of the prompts."""
        same = np.ones(len(places), bool)
        for k in range(self.n):
            same &= ids[places + k] == self._ids[ours + k]
        return same

    def search(self, items: Iterable[Sequence[str]]) -> Iterator[Overlaps]:
        """What items share with the prompts, a block at a time; each item is the texts that count, one by one.

        A token of a field is marked where it belongs to an n-gram that a text has too. A text's overlap with a prompt is the
        mean over the fields of the share of tokens marked; an item's is that of its best text. Empty blocks are left out.
        """
        texts: list[str] = []
        owners: list[int] = []
        size = 0
        for item, some in enumerate(items):
            texts += some
            owners += [item] * len(some)
            size += sum(map(len, some))
            if size >= BLOCK:
                yield from self._block(texts, owners)
                texts, owners, size = [], [], 0
        yield from self._block(texts, owners)

    def _block(self, texts: list[str], owners: list[int]) -> Iterator[Overlaps]:
        words = [tokens(text) for text in texts]
        ends = np.cumsum([len(some) + 1 for some in words])
        ends_marked = chain.from_iterable(chain(some, ("",)) for some in words)
        ids = np.fromiter(map(self._words.get, ends_marked, repeat(0)), np.int32, ends[-1] if words else 0)
        found, keys = self._look_up(ids)
        if not len(found):
            return
        numbers, keys = np.unique(np.stack([np.searchsorted(ends, found, side="right"), keys]), axis=1)
        of = np.array(owners)
        for some in self._together(of[numbers], keys):
            which, prompts, overlaps = self._marked(*self._expanded(numbers[some], keys[some]))
            order = np.lexsort((prompts, of[which]))
            items, prompts, overlaps = of[which][order], prompts[order], overlaps[order]
            new = _changes(items, prompts)
            yield Overlaps(items[new], prompts[new], np.maximum.reduceat(overlaps, new))

    def _look_up(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of n-grams that the prompts have, and their keys."""
        places, hashes = self._windows(ids)
        there = self._there[hashes >> self._shift]
        places, hashes = places[there], hashes[there]
        keys = np.minimum(np.searchsorted(self._keys, hashes), max(len(self._keys) - 1, 0))
        if not len(places):
            return places, keys
        right = self._keys[keys] == hashes
        places, keys = places[right], keys[right]
        right = self._same(ids, places, self._places[self._starts[keys]])
        return places[right], keys[right]

    def _together(self, items: np.ndarray, keys: np.ndarray) -> Iterator[slice]:
        """Stretches of n-grams found, ordered by item: whole items, with as many places as are to be in memory."""
        whole = np.cumsum(self._starts[keys + 1] - self._starts[keys])
        firsts = np.append(_changes(items), len(items))
        begin = 0
        while begin < len(items):
            before = whole[begin - 1] if begin else 0
            end = firsts[np.searchsorted(firsts, np.searchsorted(whole, before + EXPANDED, side="right"), side="right") - 1]
            end = max(end, firsts[np.searchsorted(firsts, begin, side="right")])
            yield slice(begin, end)
            begin = end

    def _expanded(self, texts: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(text, place in the prompts) of n-grams found, ordered by both."""
        counts = self._starts[keys + 1] - self._starts[keys]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self._places[np.repeat(self._starts[keys], counts) + within]
        texts = np.repeat(texts, counts)
        order = np.lexsort((places, texts))
        return texts[order], places[order]

    def _marked(self, texts: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Text, prompt and overlap; of places where an n-gram of the text begins, ordered by text and place."""
        fields = self._field_of[places]
        new = _changes(texts, fields)
        marked = np.full(len(places), self.n)
        marked[:-1] = np.minimum(np.diff(places), self.n)  # up to the next n-gram of the same field
        marked[np.append(new[1:], len(places)) - 1] = self.n
        shares = np.add.reduceat(marked, new) / self.lengths[fields[new]]
        texts, prompts = texts[new], self._owners[fields[new]]
        new = _changes(texts, prompts)
        of = np.repeat(np.arange(len(new)), np.diff(new, append=len(texts)))
        sums = np.bincount(of, shares)  # one field after the other, as a plain scan adds them
        return texts[new], prompts[new], sums / self.fields[prompts[new]]


def _changes(*columns: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before, the first included."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)
