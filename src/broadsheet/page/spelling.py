"""Words of English as the search sees them: which are common, their stems, two ways of spelling them, and abbreviations."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from broadsheet.page.names import folded

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
COMMON = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "has", "have", "how", "i", "in",
    "into", "is", "it", "its", "me", "not", "no", "of", "on", "one", "or", "so", "some", "than", "that", "the", "their",
    "then", "there", "these", "they", "this", "to", "use", "used", "using", "via", "we", "what", "when", "where", "which",
    "who", "why", "with", "without", "you", "your",
})  # fmt: skip
"""Words that say nothing about a paper."""
_SHORT = re.compile(r"\(([A-Z][A-Za-z]{0,7}[A-Z])s?\)")
_SPELLINGS = tuple(
    (re.compile(british), american)
    for british, american in (
        (r"(?<=..)our(?=(?:s|ed|ing|al|ally|less|ful|ite|able|hood|ist|er|ers)?$)", "or"),
        (r"(?<=...)is(?=(?:e|ed|es|ing|ation|ations|er|ers)$)", "iz"),
        (r"(?<=.)lys(?=(?:e|ed|es|ing|er|ers)$)", "lyz"),
        (r"(?<=..[eo])ll(?=(?:ed|ing|er|ers)$)", "l"),
        (r"(?<=igna)ll(?=(?:ed|ing)$)", "l"),
        (r"(?<=[^aeiou])re(?=s?$)", "er"),
        (r"(?<=...)ogue(?=s?$)", "og"),
        (r"(?<=neuron)e(?=s?$)", ""),
        (r"^grey", "gray"),
        (r"^sulph", "sulf"),
        (r"^artefact", "artifact"),
    )
)


def abbreviations(text: str) -> Iterator[tuple[str, str]]:
    """(abbreviation, words) of a text that has them in the form `spiking neural networks (SNNs)`."""
    for found in _SHORT.finditer(text):
        short = found[1].lower()
        words = folded(text[max(0, found.start() - 120) : found.start()])[-len(short) :]
        if "".join(word[0] for word in words) == short:
            yield short, " ".join([*words[:-1], words[-1].removesuffix("s")])


class Stems(dict[str, str]):
    """word -> its stem by Porter's rules, as SQLite has them, once British spellings are American ones."""

    def __init__(self) -> None:
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        self._index.execute("CREATE VIRTUAL TABLE words USING fts5(word, tokenize='porter unicode61', content='')")
        self._index.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, 'instance')")

    def learn(self, words: Iterable[str]) -> None:
        """Keeps the stems of words."""
        self.update(self.of([word for word in words if word not in self]))

    def of(self, words: Sequence[str]) -> dict[str, str]:
        """word -> stem, without keeping those that were not known."""
        new = [word for word in words if word not in self]
        found: dict[int, str] = {}
        if new:
            with self._index:
                self._index.executemany("INSERT INTO words(rowid, word) VALUES (?, ?)", enumerate(map(american, new)))
                for place, stem in self._index.execute("SELECT doc, term FROM stems ORDER BY doc, offset"):
                    found[place] = found.get(place, "") + stem
                self._index.execute("INSERT INTO words(words) VALUES ('delete-all')")
        stems = {word: found.get(place, word) for place, word in enumerate(new)}
        return {word: self.get(word) or stems[word] for word in words}


def american(word: str) -> str:
    """A word as Americans spell it."""
    for british, american in _SPELLINGS:
        word = british.sub(american, word)
    return word
