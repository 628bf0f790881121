"""Reading a model's answer: in time that grows with the text's length alone, and never an exception, whatever the text."""

from __future__ import annotations

from typing import Any

PYTHON_DIGITS = 4300
"""More digits `int` refuses, unless it is told otherwise."""
LABEL_DIGITS = 9
"""A label with more digits is none."""


def answer_in_tags(text: Any) -> str | None:
    """What stands in the last whole <answer> block behind the first </think>; None where the form is not kept.

    The text, blanks aside, begins with <think>; behind the first </think> there is an <answer> block. Anything may stand
    between them and behind. A block ends at the first </answer>, so that `<answer><answer>1</answer>` holds `1`.
    """
    if not isinstance(text, str):
        return None
    text = text.lstrip()
    thought = text.find("</think>") if text.startswith("<think>") else -1
    last = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, last) if last >= 0 else -1
    if thought < 0 or start < thought:
        return None
    start += len("<answer>")
    return text[start : text.find("</answer>", start)]


def answer_in_box(text: Any) -> str | None:
    r"""What stands in the last `\boxed{…}`, as the released reward reads it; None where the form is not kept.

    The text begins with <think>; behind a </think> there are a `\boxed{` and, anywhere behind that, a `}`. Braces in the last
    box are counted; one that is not closed gives the word `None`.
    """
    if not isinstance(text, str) or not text.startswith("<think>"):
        return None
    thought = text.find("</think>", len("<think>"))
    box = text.find(r"\boxed{", thought + len("</think>")) if thought >= 0 else -1
    if box < 0 or text.rfind("}") < box + len(r"\boxed{"):
        return None
    inside = text[text.rfind(r"\boxed{") + len(r"\boxed{") :]
    closed = _closing_brace(inside)
    return "None" if closed < 0 else inside[:closed].strip()


def _closing_brace(text: str) -> int:
    """Where the brace that was opened before `text` is closed; -1 where it is not."""
    depth, at = 0, text.find("}")
    seen = 0
    while at >= 0:
        depth += text.count("{", seen, at) - 1
        if depth < 0:
            return at
        seen, at = at + 1, text.find("}", at + 1)
    return -1


def labels(answer: str, most: int) -> list[int]:
    """The labels of an answer, with commas between: ASCII digits, blanks around them; [] where one is none, or there are more
    than `most`. Signs, Unicode's other digits and commas, and empty entries are no labels."""
    if answer.count(",") >= most:
        return []
    parts = [part.strip() for part in answer.split(",")]
    if not all(len(part) <= LABEL_DIGITS and part.isascii() and part.isdigit() for part in parts):
        return []
    return [int(part) for part in parts]


def python_integers(answer: str) -> list[int]:
    """The entries between commas as `int` reads them (signs, underscores, Unicode's digits), as the released reward does; []
    where one is none."""
    found = []
    for part in answer.split(","):
        if len(part) > PYTHON_DIGITS and sum(map(str.isdecimal, part)) > PYTHON_DIGITS:
            return []
        try:
            found.append(int(part))
        except ValueError:
            return []
    return found


def repeats_itself(text: str, words: int = 7, times: int = 3) -> bool:
    """Whether a line of at least so many words follows itself more than so often; empty lines are not counted."""
    before, run = "", 0
    for line in map(str.strip, text.lower().splitlines()):
        if not line:
            continue
        before, run = line, run + 1 if line == before else 1
        if run > times and len(line.split(None, words - 1)) == words:
            return True
    return False
