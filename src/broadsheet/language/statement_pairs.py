"""Pairs of a true and a false statement, of as many tokens and with the same last word: from files, and as prompts.

A prompt is some labelled examples, one a line, in an order drawn for each pair; then the statement and a question that is
answered with TRUE or FALSE. The form, and the way in which statements are matched, are those of the code of arXiv 2504.02904
(MIT).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from broadsheet.errors import DataError, InputError
from broadsheet.language.records import label_of, read_records, text_of

EXAMPLES = 2
"""Pairs that serve as labelled examples where none are given."""


@dataclass(frozen=True)
class Pair:
    """A true statement, and a false one."""

    true: str
    false: str


@dataclass(frozen=True)
class Question:
    """How a statement is asked about: what follows it, the two answers, what stands before everything, and between examples.

    Without `asked`, nothing is: the statement ends before its last word, which the model is to say.
    """

    text: str = " This statement is:"
    true: str = " TRUE"
    false: str = " FALSE"
    start: str = ""
    between: str = "\n"
    asked: bool = True

    def prompt(self, examples: Sequence[tuple[str, bool]]) -> str:
        """The labelled examples; without a question the true ones, as they are."""
        if not self.asked:
            return self.start + "".join(statement + self.between for statement, true in examples if true)
        return self.start + "".join(
            f"{statement}{self.text}{self.true if true else self.false}{self.between}" for statement, true in examples
        )

    def ending(self, statement: str) -> str:
        """What follows the examples."""
        return statement + self.text if self.asked else statement.rstrip().rsplit(maxsplit=1)[0]


@dataclass(frozen=True)
class TokenPairs:
    """Prompts of one length for pairs of statements.

    - `true`, `false`: token ids (pairs, tokens), which differ in the statement alone.
    - `columns`: tokens from the start of the statement to the end of the prompt.
    - `names`: a name for each column: its token where all prompts have it, `[subject]` where the two of a pair differ,
      `[object]` where they do not, but pairs do.
    - `different`: (pairs, columns), where the tokens of the two differ.
    - `answers`: ids of TRUE and FALSE; None where the model is to say the last word.
    - `objects`: (pairs,), the first token of that last word; None where there are answers.
    """

    true: torch.Tensor
    false: torch.Tensor
    columns: int
    names: tuple[str, ...]
    answers: tuple[int, int] | None
    objects: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.true)

    def __getitem__(self, some: slice) -> TokenPairs:
        objects = None if self.objects is None else self.objects[some]
        return replace(self, true=self.true[some], false=self.false[some], objects=objects)

    def with_other_sources(self) -> TokenPairs:
        """The same false statements, each with the true one of the next pair: a control that knows nothing of the pair."""
        return replace(self, true=self.true.roll(-1, 0))

    @property
    def different(self) -> torch.Tensor:
        return (self.true != self.false)[:, -self.columns :]


def read_statement_pairs(path: str | Path, words: Any) -> tuple[list[Pair], Counter[str]]:
    """Pairs of a file, and how many statements were left out, by reason.

    A CSV file with a header (`.csv`, `.tsv`) or a JSON object a line (`.jsonl`). With the columns `true` and `false` each line
    is a pair. With `statement` and `label` (1 or 0) statements are matched by `match_statements`, or, where there is an `id`,
    with the other one that has it.

    **Arguments:** `words`: the tokenizer.

    **Raises:** `DataError` for a file with other columns, an empty statement or an unknown label, with its line; `InputError`
    for one without a pair.
    """
    rows = read_records(Path(path), "pairs of statements")
    known = set(rows[0][1]) if rows else set()
    if {"true", "false"} <= known:
        pairs, left_out = [Pair(text_of(path, row, "true"), text_of(path, row, "false")) for row in rows], Counter[str]()
    elif {"statement", "label"} <= known:
        statements = [text_of(path, row, "statement") for row in rows]
        labels = [label_of(path, row) for row in rows]
        if "id" in known:
            pairs, left_out = _by_id(statements, labels, [str(row["id"]) for _, row in rows])
        else:
            pairs, left_out = match_statements(statements, labels, words)
    else:
        said = ", ".join(sorted(map(str, known))) or "none"
        raise DataError(f"{path} has the columns {said}; true and false, or statement and label, are wanted.")
    if not pairs:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{path} has no pair of a true and a false statement{': ' if reasons else ''}{reasons}.")
    return pairs, left_out


def match_statements(statements: Sequence[str], labels: Sequence[bool], words: Any) -> tuple[list[Pair], Counter[str]]:
    """Pairs of statements of one shape with the same last word, and how many were left out, by reason.

    The shape is the number of tokens that most statements have, with the tokens before the last word that most of these have in
    common (`The city of … is in`). Each true statement takes the last false one with its last word that is not taken, or
    the first of them again.
    """
    tokens = [tuple(row) for row in words(list(statements))["input_ids"]]
    length = Counter(map(len, tokens)).most_common(1)[0][0]
    before = [_ids(words, Question(asked=False).ending(statement)) for statement in statements]
    fitting = [row for row in tokens if len(row) == length]
    ends = [_common(row, start) for row, start in zip(tokens, before, strict=True) if len(row) == length]
    last_word = Counter(ends).most_common(1)[0][0]
    common = [Counter(column).most_common(1)[0] for column in list(zip(*fitting, strict=True))[:last_word]]
    fixed = [(k, token) for k, (token, count) in enumerate(common) if 2 * count > len(fitting)]
    kept = [len(row) == length and all(row[k] == token for k, token in fixed) for row in tokens]
    pool: dict[str, list[str]] = defaultdict(list)
    for statement, label, keep in zip(statements, labels, kept, strict=True):
        if keep and not label:
            pool[_last(statement)].append(statement)
    left_out = Counter({"have another shape than most": kept.count(False)} if not all(kept) else {})
    pairs = []
    for statement, label, keep in zip(statements, labels, kept, strict=True):
        if keep and label:
            if not (rivals := pool[_last(statement)]):
                left_out["are true and end on a word on which no false one ends"] += 1
                continue
            pairs.append(Pair(statement, rivals.pop() if len(rivals) > 1 else rivals[0]))
    return pairs, left_out


def tokenize_pairs(
    words: Any,
    pairs: Sequence[Pair],
    *,
    examples: Sequence[tuple[str, bool]] | None = None,
    question: Question | None = None,
    seed: int = 1,
) -> tuple[list[TokenPairs], Counter[str]]:
    """Prompts of the pairs, by their length, the most frequent length first; and how many pairs were left out, by reason.

    **Arguments:** `examples`: labelled statements, in an order drawn for each pair; by default the first two pairs, which then
    are no prompts.

    **Raises:** `InputError` where too few pairs are given or remain, or the answers begin with the same token.
    """
    question = question or Question()
    if examples is None:
        if len(pairs) <= EXAMPLES:
            said = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
            raise InputError(f"{said} of statements; {EXAMPLES} serve as labelled examples, and others are wanted.")
        examples = [(getattr(pair, kind), kind == "true") for kind in ("true", "false") for pair in pairs[:EXAMPLES]]
        pairs = pairs[EXAMPLES:]
    rng, left_out = np.random.default_rng(seed), Counter[str]()
    groups: dict[tuple[int, int], list[tuple[list[int], list[int], int]]] = defaultdict(list)
    answers, object_id = None, -1
    for pair in pairs:
        start = question.prompt([examples[k] for k in rng.permutation(len(examples))])
        before, true, false = (
            _ids(words, start),
            *(_ids(words, start + question.ending(end)) for end in (pair.true, pair.false)),
        )
        if len(true) != len(false):
            left_out["have two statements of different numbers of tokens"] += 1
        elif _last(pair.true) != _last(pair.false):
            left_out["have two statements with different last words"] += 1
        elif true == false:
            left_out["have the same statement twice"] += 1
        else:
            first = min(_common(before, true), _common(before, false))
            if not question.asked:
                whole = _ids(words, start + pair.true)
                object_id = whole[min(_common(true, whole), len(whole) - 1)]
            elif answers is None:
                answers = _answers(words, start + question.ending(pair.true), question)
            groups[len(true), len(true) - first].append((true, false, object_id))
    if not groups:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"No pair of statements remains: {reasons or 'there was none'}.")
    made = []
    for (_, columns), rows in sorted(groups.items(), key=lambda group: -len(group[1])):
        true_ids, false_ids, objects = (torch.tensor(part) for part in zip(*rows, strict=True))
        names = _names(words, true_ids[:, -columns:], false_ids[:, -columns:])
        made.append(TokenPairs(true_ids, false_ids, columns, names, answers, None if question.asked else objects))
    return made, left_out


def _names(words: Any, true: torch.Tensor, false: torch.Tensor) -> tuple[str, ...]:
    names, counts = [], Counter[str]()
    for a, b in zip(true.T, false.T, strict=True):
        same = bool((a == a[0]).all() and (b == a[0]).all())
        role = "" if same else "subject" if 2 * int((a != b).sum()) > len(a) else "object"
        counts[role] += 1
        names.append((words.decode([int(a[0])]).strip() or "·") if same else f"[{role} {counts[role]}]")
    return tuple(name.replace(" 1]", "]") if counts[name[1:].split(" ")[0]] == 1 else name for name in names)


def _ids(words: Any, text: str) -> list[int]:
    return words(text)["input_ids"]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def _answers(words: Any, prompt: str, question: Question) -> tuple[int, int]:
    """The token that follows a prompt in each of the two answers."""
    asked = _ids(words, prompt)
    after = [_ids(words, prompt + answer) for answer in (question.true, question.false)]
    at = min(_common(asked, row) for row in after)
    if any(len(row) <= at for row in after) or after[0][at] == after[1][at]:
        raise InputError(
            f"The answers {question.true!r} and {question.false!r} begin with the same token behind {question.text!r}; "
            "a blank before them may be missing."
        )
    return after[0][at], after[1][at]


def _last(statement: str) -> str:
    return statement.split()[-1]


def _by_id(statements: Sequence[str], labels: Sequence[bool], names: Sequence[str]) -> tuple[list[Pair], Counter[str]]:
    """Pairs of a true and a false statement with the same id, where there is one of each."""
    found: dict[str, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
    for statement, label, name in zip(statements, labels, names, strict=True):
        found[name][label].append(statement)
    whole = [kinds for kinds in found.values() if len(kinds[True]) == len(kinds[False]) == 1]
    left_out = Counter({"ids have no true and false statement, one each": len(found) - len(whole)})
    return [Pair(kinds[True][0], kinds[False][0]) for kinds in whole], +left_out
