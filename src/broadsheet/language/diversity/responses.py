"""Answers to prompts in a file, a row an answer: read, grouped by prompt, and measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.language.diversity.scores import distinct_at_k, diversity, pass_at_k


@dataclass
class Group:
    """The answers to one prompt: texts, and where columns for them were named keys and whether they are right."""

    prompt: str
    texts: list[str] = field(default_factory=list)
    keys: list[Hashable] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)


def grouped(
    rows: Iterable[Mapping[str, Any]], where: str, *, prompt: str = "prompt", response: str = "response",
    key: str | None = None, correct: str | None = None,
) -> list[Group]:  # fmt: skip
    """Groups in the order in which their prompts first appear.

    **Arguments:** `where`: what the rows come from, for errors; the others are names of columns. `key`: of what makes answers
    the same; `correct`: true or false, 1 or 0.

    **Raises:** `DataError`, with the row, where a column is missing or holds something else; `InputError` for no rows.
    """
    found: dict[str, Group] = {}
    for number, row in enumerate(rows, 1):
        for name in filter(None, (prompt, response, key, correct)):
            if name not in row:
                raise DataError(f"{where}, row {number} has no column {name!r}; it has {', '.join(row)}.")
        asked, text = row[prompt], row[response]
        if not isinstance(text, str):
            raise DataError(f"{where}, row {number}: {response} is {str(text)[:40]!r}; a text is wanted.")
        if asked is None:
            raise DataError(f"{where}, row {number}: {prompt} is empty.")
        name = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False, sort_keys=True, default=str)
        group = found.setdefault(name, Group(name))
        group.texts.append(text)
        if key:
            group.keys.append(_key(row[key], f"{where}, row {number}: {key}"))
        if correct:
            group.correct.append(_right(row[correct], f"{where}, row {number}: {correct}"))
    if not found:
        raise InputError(f"{where} has no rows.")
    return list(found.values())


def _key(value: Any, place: str) -> Hashable:
    if isinstance(value, float) and math.isnan(value):
        raise DataError(f"{place} is NaN.")
    return value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True, default=str)


def _right(value: Any, place: str) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    told = known.get(str(value).strip().lower())
    if told is None:
        raise DataError(f"{place} is {str(value)[:40]!r}; true or false, 1 or 0, is wanted.")
    return told


def measured(groups: Sequence[Group], classes: Sequence[Sequence[int]], ks: Sequence[int]) -> dict[str, Any]:
    """Means over the prompts: classes, Div, distinct@k, and where it is known which answers are right, pass@k and distinct@k of
    the right ones; prompts with fewer than k answers are left out of it, and counted.

    **Raises:** `InputError` for a k beyond the answers of every prompt.
    """
    most = max(len(group.texts) for group in groups)
    if wrong := [k for k in ks if not 1 <= k <= most]:
        raise InputError(f"k is {wrong[0]}; from 1 to the largest number of answers to a prompt, {most}, is wanted.")
    found: dict[str, Any] = {
        "prompts": len(groups), "responses": sum(len(group.texts) for group in groups),
        "classes": float(np.mean([len(set(ids)) for ids in classes])),
        "diversity": float(np.mean([diversity(ids, 0.0).mean() for ids in classes])),
    }  # fmt: skip

    def over(k: int, value: Callable[[Group, Sequence[int]], float]) -> float:
        return float(np.mean([value(g, ids) for g, ids in zip(groups, classes, strict=True) if len(ids) >= k]))

    found["prompts_at"] = {str(k): sum(len(ids) >= k for ids in classes) for k in ks}
    found["distinct"] = {str(k): over(k, lambda _, ids, k=k: distinct_at_k(ids, k)) for k in ks}
    if groups[0].correct:
        found["pass"] = {str(k): over(k, lambda g, _, k=k: pass_at_k(len(g.texts), sum(g.correct), k)) for k in ks}
        found["distinct_correct"] = {
            str(k): over(
                k, lambda g, ids, k=k: distinct_at_k([one if ok else None for one, ok in zip(ids, g.correct, strict=True)], k)
            )
            for k in ks
        }
    return found
