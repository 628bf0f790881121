"""Texts with a label, from files; requests, from files; and labelled statements as questions with examples before them.

Formats: those of the code of arXiv 2504.02904 (MIT), AdvBench and Alpaca, and plain CSV or JSON lines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import MIB, read_json
from broadsheet.language.records import label_of, read_records, text_of
from broadsheet.language.statement_pairs import Question

NEGATED = "neg_"
"""How the name of a file of negated statements begins; those belong to the group of the file without it."""


@dataclass(frozen=True)
class Labelled:
    """Texts with labels 0 or 1, groups (topics, data sets) and polarities (1, or -1 for a negated text)."""

    texts: list[str]
    labels: np.ndarray
    groups: np.ndarray
    polarities: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, chosen: np.ndarray) -> Labelled:
        """Those that a mask names."""
        kept = [text for text, keep in zip(self.texts, chosen, strict=True) if keep]
        return Labelled(kept, self.labels[chosen], self.groups[chosen], self.polarities[chosen])


def read_labelled(path: str | Path) -> Labelled:
    """Texts of a CSV file with a header, of JSON lines, or of a folder of such files, each a group.

    Columns: `text` or `statement`, `label` (1 or 0), and, where there are any, `group` and `polarity` (1 or -1). The name of a
    file is its group; one that begins with `neg_` holds negated statements of the group without it.

    **Raises:** `DataError` for other columns, an empty text or an unknown label, with its line; `InputError` for a file or a
    group with one label alone.
    """
    path = Path(path)
    files = sorted(file for file in path.iterdir() if file.suffix in (".csv", ".tsv", ".jsonl")) if path.is_dir() else [path]
    if not files:
        raise MissingDataError(f"{path} has no .csv, .tsv or .jsonl file.")
    made: list[tuple[str, int, str, int]] = []
    for file in files:
        made += _labelled(file)
    texts, labels, groups, polarities = (list(column) for column in zip(*made, strict=True)) if made else ([], [], [], [])
    found = Labelled(texts, np.array(labels, int), np.array(groups, str), np.array(polarities, int))
    for group in np.unique(found.groups):
        if len(set(found.labels[found.groups == group])) < 2:
            raise InputError(f"{path}: the texts of {str(group)!r} have one label alone; each group needs both.")
    if not made:
        raise InputError(f"{path} has no text.")
    return found


def _labelled(path: Path) -> list[tuple[str, int, str, int]]:
    rows = read_records(path, "labelled texts")
    known = set(rows[0][1]) if rows else set()
    column = next((name for name in ("text", "statement") if name in known), None)
    if rows and (column is None or "label" not in known):
        said = ", ".join(sorted(map(str, known)))
        raise DataError(f"{path} has the columns {said}; text (or statement) and label are wanted.")
    negated, name = path.stem.startswith(NEGATED), path.stem.removeprefix(NEGATED)
    made = []
    for row in rows:
        polarity = str(row[1].get("polarity", -1 if negated else 1)).strip()
        if polarity not in ("1", "-1", "0"):
            raise DataError(f"{path}, line {row[0]}: the polarity is {polarity!r}; 1 or -1 is wanted.")
        group = str(row[1].get("group") or name)
        made.append((text_of(path, row, str(column)), int(label_of(path, row)), group, 1 if polarity == "1" else -1))
    return made


def read_requests(path: str | Path) -> list[str]:
    """Requests of AdvBench's CSV (`goal`), of Alpaca's JSON (`instruction`, those without an input), or one a line (.txt).

    **Raises:** `DataError` for a file without these columns; `InputError` for one without a request.
    """
    path = Path(path)
    if path.suffix == ".json":
        rows = read_json(path, 256 * MIB)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "instruction" in row for row in rows):
            raise DataError(f"{path}: a list of objects with an instruction is wanted, as Alpaca has.")
        found = [str(row["instruction"]).strip() for row in rows if not str(row.get("input", "")).strip()]
    elif path.suffix == ".txt":
        found = [line.strip() for line in path.read_text("utf-8").splitlines()]
    else:
        records = read_records(path, "requests")
        if records and "goal" not in records[0][1]:
            raise DataError(f"{path} has the columns {', '.join(map(str, records[0][1]))}; goal is wanted, as AdvBench has.")
        found = [text_of(path, row, "goal") for row in records]
    found = [request for request in found if request]
    if not found:
        raise InputError(f"{path} has no request.")
    return found


def few_shot(statements: Sequence[str], examples: Sequence[str], question: Question, *, seed: int = 1) -> list[str]:
    """Prompts: the labelled examples, shuffled for each statement, then the statement and what is asked.

    **Arguments:** `examples`: with their labels, as `The city of … is in …. This statement is: TRUE`; a statement that is among
    them is left out. The k-th statement's order is that of Python's `random` at the seed `seed + k`.
    """
    prompts = []
    for k, statement in enumerate(statements):
        order = list(examples)
        random.Random(seed + k).shuffle(order)
        before = question.between.join(order)
        if statement not in before:
            prompts.append(f"{question.start}{before}{question.between if order else ''}{statement}{question.text}")
    return prompts


def read_examples(path: str | Path) -> dict[str, list[str]]:
    """Data set -> its labelled examples, of a JSON list of objects with `dataset_name` and `few_shot_examples`.

    **Raises:** `DataError` for anything else.
    """
    rows = read_json(Path(path))
    try:
        return {str(row["dataset_name"]): [str(text) for text in row["few_shot_examples"]] for row in rows}
    except (TypeError, KeyError):
        raise DataError(f"{path}: a list of objects with dataset_name and few_shot_examples is wanted.") from None
