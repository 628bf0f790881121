"""Constraints on an answer's form, checked by program, as in IFEval (arXiv 2311.07911): strict and loose.

A label is one of arXiv 2411.15124's data, `{"func_name": "validate_word_constraint", "N": 50, "quantifier": "at most"}`: an
object or its JSON, in which arguments that are null count as not given. Names and arguments are those of `constraints`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language.verifiers.constraints import CONSTRAINTS
from broadsheet.language.verifiers.registry import verifier

KINDS = {"N": (int, float), "i": (int,), "keyword_list": (list, tuple, str), "forbidden_words": (list, tuple, str)}
KINDS["options"] = KINDS["keyword_list"]
"""Argument -> its types; the others are texts."""


def without_thinking(text: str) -> str:
    """What is behind the last `</think>`, without the marks of an answer and of its speaker, as the official program has it."""
    said = text.replace("<|assistant|>", "").strip().rpartition("</think>")[2]
    return said.replace("<answer>", "").replace("</answer>", "").strip()


def loosened(text: str) -> Iterator[str]:
    """The text as loose verification tries it: without its first line, its last, both, and all of these without asterisks."""
    lines = text.split("\n")
    for part in (text, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))):
        yield part
        yield part.replace("*", "")


def read_constraint(label: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a constraint.

    **Raises:** `InputError` for what is no constraint: no JSON, an unknown name, and arguments that are missing, unknown or of
    another type.
    """
    try:
        found = json.loads(label) if isinstance(label, str) else label
    except (ValueError, RecursionError):
        raise InputError(f"The label {label[:60]!r} is no JSON; a constraint with func_name is wanted.") from None
    if not isinstance(found, Mapping) or not isinstance(found.get("func_name"), str):
        raise InputError(f"The label {str(label)[:60]!r} is no constraint: an object with func_name is wanted.")
    name = found["func_name"]
    if name not in CONSTRAINTS:
        raise InputError(f"There is no constraint {name!r}; there are {', '.join(CONSTRAINTS)}.")
    given = {key: value for key, value in found.items() if key != "func_name" and value is not None}
    wanted = list(inspect.signature(CONSTRAINTS[name]).parameters)[1:]
    if set(given) != set(wanted):
        raise InputError(f"{name} takes {', '.join(wanted) or 'no arguments'}; the label has {', '.join(given) or 'none'}.")
    for key, value in given.items():
        texts = isinstance(value, list | tuple) and not all(isinstance(part, str) for part in value)
        if not isinstance(value, KINDS.get(key, (str,))) or isinstance(value, bool) or texts:
            raise InputError(f"{name}: {key} is {value!r}, which is of another type.")
    return name, given


@verifier("ifeval")
def ifeval(text: str, label: Any) -> float:
    """1 where the answer, its thinking left out, meets the constraint; an empty one meets none."""
    name, given = read_constraint(label)
    answer = without_thinking(text)
    return float(bool(answer) and CONSTRAINTS[name](answer, **given))


@verifier("ifeval_loose")
def ifeval_loose(text: str, label: Any) -> float:
    """1 where the answer, or what is left of it without its first or last line or its asterisks, meets the constraint."""
    name, given = read_constraint(label)
    parts = dict.fromkeys(loosened(without_thinking(text)))
    return float(any(part.strip() and CONSTRAINTS[name](part, **given) for part in parts))
