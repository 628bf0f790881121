"""Answers in mathematics: found in the text, and compared with the label as LaTeX, as strings and by value.

After the official program of arXiv 2411.15124, which follows Minerva (arXiv 2206.14858, appendix D) and MATH (2103.03874).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language.verifiers.latex import same_value
from broadsheet.language.verifiers.registry import verifier

LONGEST = 1000
"""Characters of an answer that is compared; a longer one is wrong."""
SAID = ("Final Answer: The final answer is", " I hope it is correct")
REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
"""In this order, as the next ones: what is left of one may be another."""
WORDS = (
    "square ways integers dollars mph inches ft hours km units \\ldots sue points feet minutes digits cents degrees cm gm "
    "pounds meters meals edges students childrentickets multiples \\text{s} \\text{.}"
)
MARKS = '\\text{} \\mathrm{th} ^\\circ ^{\\circ} \\; ,\\! {,} " \\dots'
UNITS = (*WORDS.split(), "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", *MARKS.split())


@verifier("math")
def math(text: str, label: Any) -> float:
    """1 where an answer in the text equals the label, a text in LaTeX.

    Answers are the content of the last `\\boxed` (or `\\fbox`) and what Minerva's phrase says; where there is neither, what is
    between the last two dollar signs; where these are missing too, the whole text. Equal are texts that are the same once
    spaces, signs and ways to write a fraction or root are alike (as in MATH), and expressions of the same value
    (`broadsheet.language.verifiers.latex`). An answer of more than 1000 characters is wrong.

    **Raises:** `InputError` for a label that is no text or number.
    """
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        raise InputError(f"The label of a mathematical answer is {label!r}; LaTeX, or a number, is wanted.")
    wanted = str(label)
    if len(wanted) > LONGEST:
        raise InputError(f"The label of a mathematical answer has {len(wanted)} characters; at most {LONGEST} are compared.")
    found = [answer for answer in answers(text) if len(answer) <= LONGEST]
    return float(any(_alike(answer, wanted) or same_value(answer, wanted) for answer in found))


def answers(text: str) -> Iterator[str]:
    """The candidates, best first."""
    found = [answer for answer in (boxed(text), _minerva(text)) if answer is not None]
    if not found:
        last = text.rfind("$")
        before = text.rfind("$", 0, last) if last > 0 else -1
        found = [_tidied(text[before + 1 : last])] if before >= 0 else [_tidied(text), text]
    yield from found


def boxed(text: str) -> str | None:
    """What the last `\\boxed{…}` holds, or follows the last `\\boxed ` up to a dollar sign; None where no brace closes it."""
    if "\\boxed " in text:
        return text.rpartition("\\boxed ")[2].partition("$")[0]
    begin = text.rfind("\\boxed")
    if not text.startswith("\\boxed{", begin) or begin < 0:  # the content of \fbox is not read, nor is \boxed2
        return None
    depth = 0
    for brace in re.finditer("[{}]", text[begin:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[begin + len("\\boxed{") : begin + brace.start()]
    return None


def _minerva(text: str) -> str | None:
    """What stands between Minerva's phrases on one line, less the sign before the second; its end may be missing."""
    opening, closing = SAID
    for line in (text + closing[1:] + ".").split("\n"):
        begin = line.find(opening)
        end = line.find(closing, begin + len(opening) + 1, len(line) - 1) if begin >= 0 else -1
        if end >= 0:
            said = _tidied(line[begin + len(opening) : end - 1].strip())
            return None if said == "[invalidanswer]" else said
    return None


def _tidied(answer: str) -> str:
    """Minerva's form of an answer: what follows the last equals sign, without units, text marks and dollar signs."""
    answer = answer.rpartition("=")[2]
    if len(answer) > LONGEST:
        return answer
    for before, after in (*REPLACED, *((unit, "") for unit in UNITS)):
        answer = answer.replace(before, after)
    answer = re.sub(r".*?\$(.*?)\$.*", r"$\1$", answer)
    for mark in ("text", "textbf", "overline"):
        answer = re.sub(rf"\\{mark}\{{(.*?)\}}", r"\1", answer)
    answer = re.sub(r"\\boxed\{(.*)\}", r"\1", answer)
    answer = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", answer)
    answer = re.sub(r"sqrt([^{])", r"sqrt{\1}", answer).replace("$", "")
    plain = answer.replace(",", "")
    return plain if plain.isdigit() else answer


def _alike(answer: str, label: str) -> bool:
    """Whether both are the same in MATH's form; where one has none, as they are."""
    try:
        return _plain(answer) == _plain(label)
    except ValueError:
        return answer == label


def _plain(text: str) -> str:
    """MATH's form of an answer.

    **Raises:** `ValueError` where a fraction or root has nothing in it, there are two units, or a quotient of no whole numbers.
    """
    for before, after in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
        ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(before, after)
    if text.count("\\text{ ") > 1:
        raise ValueError("two units")
    text = text.partition("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = "0" + text if text[0] == "." else text
    left, equals, right = text.partition("=")
    text = right if equals and "=" not in right and len(left) <= 2 else text
    text = _fractions(_roots(text).replace(" ", ""))
    return _quotient("\\frac{1}{2}" if text == "0.5" else text)


def _roots(text: str) -> str:
    """`\\sqrt3` as `\\sqrt{3}`."""
    before, *parts = text.split("\\sqrt")
    if not all(parts):
        raise ValueError("a root of nothing")
    return before + "".join("\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in parts)


def _fractions(text: str) -> str:
    """`\\frac12` as `\\frac{1}{2}`, `\\frac1{72}` as `\\frac{1}{72}`."""
    made, *parts = text.split("\\frac")
    for part in parts:
        if not part:
            raise ValueError("a fraction of nothing")
        if part[0] == "{":
            made += "\\frac" + part
        elif len(part) < 2:
            return text
        else:
            made += f"\\frac{{{part[0]}}}" + (part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}")
    return made


def _quotient(text: str) -> str:
    """`3/4` as `\\frac{3}{4}`."""
    if text.count("/") != 1:
        return text
    above, below = map(int, text.split("/"))
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text
