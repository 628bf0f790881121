"""Training items whose prompts contain prompts of an evaluation: found, counted and taken out.

After the decontamination of arXiv 2411.15124. A token of an evaluation prompt is marked where it belongs to an n-gram, n = 8,
that a user turn of a training item has too; answers do not count. The overlap is the share of the prompt's tokens that one turn
marks, averaged over the fields of a prompt that has several. An item matches a prompt where its best turn's overlap is above
0.5. A training set contaminates an evaluation where it matches more than 2 % of its prompts.

The official program parts prompts by spaCy and asks Elasticsearch for phrases, which passes over punctuation, finds the first
hundred items alone, and marks a repeated n-gram where it last comes. Here tokens are words and single signs in lower case,
everything is found, and a repeated n-gram is marked wherever it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.ngram_index import Overlaps, PromptIndex

RULE = 0.02
"""Share of an evaluation's prompts above which a training set contaminates it."""
CONVERSATIONS = ("messages", "conversations", "conversation")
TEXTS = ("prompt", "question", "problem", "instruction", "query", "text")
"""Columns in which prompts are looked for, in this order, where none is named."""


@dataclass(frozen=True)
class Row:
    """What a training set has of an evaluation.

    `prompts`: of the evaluation; `short`: with fewer than n tokens in each field, which nothing can match; `contaminated`:
    matched by an item; `items`: items that match one.
    """

    train: str
    evaluation: str
    prompts: int
    short: int
    contaminated: int
    items: int

    @property
    def percent(self) -> float:
        """Contaminated prompts, percent of all."""
        return 100 * self.contaminated / self.prompts

    @property
    def over_rule(self) -> bool:
        """Whether more than 2 % of the prompts are contaminated."""
        return self.over(RULE)

    def over(self, share: float) -> bool:
        """Whether more than this share of the prompts is contaminated."""
        return self.contaminated / self.prompts > share


@dataclass(frozen=True)
class Match:
    """A training item and an evaluation prompt that match, by their numbers from 0."""

    train: str
    item: int
    evaluation: str
    prompt: int
    overlap: float


@dataclass
class Report:
    """What was found, and what was taken out.

    `rows`: a training set and an evaluation each; `matches`: pairs above the threshold, ordered by item and prompt; `removed`:
    items taken out of each training set.
    """

    n: int
    threshold: float
    tolerated: float
    rows: list[Row] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    removed: dict[str, list[int]] = field(default_factory=dict)

    def add(self, tally: Tally, removed: np.ndarray) -> None:
        """Another training set."""
        self.rows += tally.rows()
        self.matches += tally.matches
        self.removed[tally.train] = removed.tolist()

    def table(self) -> dict[str, dict[str, float]]:
        """Evaluation -> training set -> contaminated prompts, percent."""
        made: dict[str, dict[str, float]] = {}
        for row in self.rows:
            made.setdefault(row.evaluation, {})[row.train] = row.percent
        return made

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        rows = [asdict(row) | {"percent": row.percent, "over_rule": row.over_rule} for row in self.rows]
        return asdict(self) | {"rows": rows}


class Evaluations:
    """Prompts of evaluations, in one index.

    **Arguments:** `evals`: name -> prompts, each a text, the texts of its fields, or a row of a data set (as of `turns_of`).

    **Raises:** `InputError` for an evaluation without a prompt, and one that is no text.
    """

    def __init__(self, evals: Mapping[str, Iterable[Any]], n: int = 8) -> None:
        self.names = list(evals)
        if not self.names:
            raise InputError("There is no evaluation to decontaminate against.")
        self.sizes: list[int] = []
        self.index = PromptIndex(self._prompts(evals), n)
        self.starts = np.cumsum([0, *self.sizes])

    def _prompts(self, evals: Mapping[str, Iterable[Any]]) -> Iterator[Sequence[str]]:
        for name, prompts in evals.items():
            _check_several(prompts, f"The evaluation {name}", "prompts")
            count = -1
            for count, prompt in enumerate(prompts):
                fields = _texts(prompt) if isinstance(prompt, list | tuple) else None
                yield fields or turns_of(prompt, f"prompt {count} of {name}")
            if count < 0:
                raise InputError(f"The evaluation {name} has no prompt.")
            self.sizes.append(count + 1)

    def place(self, prompt: int) -> tuple[str, int]:
        """Evaluation of a prompt of the index, and its number there."""
        which = int(np.searchsorted(self.starts, prompt, side="right")) - 1
        return self.names[which], int(prompt - self.starts[which])

    def of(self, prompts: np.ndarray) -> np.ndarray:
        """The number of the evaluation of each prompt of the index."""
        return np.searchsorted(self.starts, prompts, side="right") - 1


class Tally:
    """What a training set shares with evaluations, added up block by block.

    Memory: a bit a prompt, a pair of numbers for each item and evaluation that match, and the first `most` matches.
    """

    def __init__(self, evaluations: Evaluations, train: str, most: int | None = None) -> None:
        self.evaluations, self.train, self.most = evaluations, train, most
        self.pairs = 0
        self.matches: list[Match] = []
        self._touched = np.zeros(len(evaluations.index), bool)
        self._items: list[np.ndarray] = []

    def add(self, found: Overlaps) -> None:
        """Pairs above the threshold, of items that came in no block before."""
        self.pairs += len(found.items)
        self._touched[found.prompts] = True
        self._items.append(np.unique(np.stack([self.evaluations.of(found.prompts), found.items]), axis=1))
        room = len(found.items) if self.most is None else max(0, self.most - len(self.matches))
        self.matches += [
            Match(self.train, item, *self.evaluations.place(prompt), overlap)
            for item, prompt, overlap in zip(*(column[:room].tolist() for column in found), strict=True)
        ]

    def rows(self) -> list[Row]:
        """A row an evaluation."""
        known = self.evaluations
        prompts = known.of(np.arange(len(known.index)))
        touched, short = (np.bincount(prompts, flags, len(known.names)) for flags in (self._touched, known.index.short))
        items = np.bincount(self._matched()[0], minlength=len(known.names))
        return [
            Row(self.train, name, size, int(few), int(some), int(matched))
            for name, size, few, some, matched in zip(known.names, known.sizes, short, touched, items, strict=True)
        ]

    def removed(self, tolerated: float = 0.0) -> np.ndarray:
        """Items that match a prompt of an evaluation of which more than the share `tolerated` of prompts is contaminated."""
        over = np.array([row.over(tolerated) for row in self.rows()])
        of, items = self._matched()
        return np.unique(items[over[of]])

    def _matched(self) -> np.ndarray:
        return np.concatenate([np.empty((2, 0), np.int64), *self._items], axis=1)


def _check_several(items: Any, what: str, wanted: str) -> None:
    """Raises `InputError` for a text in place of many, whose letters would be taken one by one."""
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise InputError(f"{what} is {str(items)[:60]!r}; {wanted}, in a list or a data set, are wanted.")


def _texts(prompt: Sequence[Any]) -> Sequence[str] | None:
    return prompt if prompt and all(isinstance(part, str) for part in prompt) else None


def turns_of(item: Any, what: str = "the item", columns: Sequence[str] | None = None) -> list[str]:
    """The user's turns of a training item.

    **Arguments:** `item`: a text, which is one turn; the messages of a conversation (`role` and `content`, or `from` and
    `value`); or a row of a data set with one of the columns `CONVERSATIONS` or `TEXTS`, or with the named ones.

    **Raises:** `InputError` for anything else.
    """
    if isinstance(item, str):
        return [item]
    if isinstance(item, Mapping):
        chosen = columns or [name for name in (*CONVERSATIONS, *TEXTS) if item.get(name) is not None][:1]
        missing = [name for name in chosen if item.get(name) is None]
        if missing or not chosen:
            there = ", ".join(map(str, item)) or "none"
            wanted = missing[0] if missing else " or ".join((*CONVERSATIONS, *TEXTS))
            raise InputError(f"{what} has the columns {there}; {wanted} is wanted, with a prompt in it.")
        return [turn for name in chosen for turn in turns_of(item[name], f"{what}, {name}")]
    if isinstance(item, list | tuple) and all(isinstance(turn, Mapping) for turn in item):
        return [_said(turn, what) for turn in item if turn.get("role", turn.get("from")) in ("user", "human")]
    raise InputError(f"{what} is {str(item)[:60]!r}; a text, or messages with role and content, is wanted.")


def _said(turn: Mapping[str, Any], what: str) -> str:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts of text and images
        content = "\n".join(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    if not isinstance(content, str):
        raise InputError(f"{what}: a user's turn has {str(content)[:60]!r} in place of a text.")
    return content


def decontaminate(train: Any, evals: Any, n: int = 8, threshold: float = 0.5, *, tolerated: float = 0.0) -> tuple[Any, Report]:
    """The training items that match no evaluation prompt, and what was found.

    **Arguments:** `train`: items as `turns_of` takes them, in a list or a data set of Hugging Face; or several of these by
    name; `evals`: prompts by the name of their evaluation, or those of one; `tolerated`: the share of an evaluation's prompts
    that a training set may contaminate and still keep what does (the paper's rule: 0.02).

    **Returns:** `train`, in the same form, without these items; the report.

    **Raises:** `InputError` for items and prompts that are none, and a threshold outside [0, 1].
    """
    if not (0 <= threshold <= 1 and 0 <= tolerated <= 1):
        raise InputError(f"threshold is {threshold} and tolerated {tolerated}; shares, from 0 to 1, are wanted.")
    known = Evaluations(evals if isinstance(evals, Mapping) else {"evaluation": evals}, n)
    several = isinstance(train, Mapping)
    report = Report(n, threshold, tolerated)
    clean = {}
    for name, given in (train if several else {"train": train}).items():
        _check_several(given, f"The training set {name}", "items")
        items = given if hasattr(given, "__len__") else list(given)
        turns = (turns_of(item, f"item {number} of {name}") for number, item in enumerate(items))
        tally = Tally(known, name)
        for part in known.index.search(turns):
            tally.add(part.above(threshold))
        gone = tally.removed(tolerated)
        report.add(tally, gone)
        clean[name] = without(items, gone)
    return (clean if several else clean["train"]), report


def without(items: Any, gone: np.ndarray) -> Any:
    """The others, as a data set of Hugging Face where `items` is one, or a list."""
    kept = np.setdiff1d(np.arange(len(items)), gone)
    return items.select(kept) if hasattr(items, "select") else [items[number] for number in kept.tolist()]
