"""The 25 constraints on an answer's form: by their names and arguments in arXiv 2411.15124's data, after IFEval's.

Each is a function of the text and its arguments. All take time in proportion to the text. What they check is what the official
program checks, in its present form (its first form let any text pass for placeholders, for one), from its description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from broadsheet.errors import InputError

LANGUAGE_LETTERS = 20_000
"""Characters from which a language is read; langdetect itself reads half as many."""
WORD = re.compile(r"\b\w+\b")
CAPITALS = re.compile(r"\b[A-Z]+\b")
SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?!])\s")

Constraint = Callable[..., bool]
CONSTRAINTS: dict[str, Constraint] = {}
"""Name in the data -> function."""


def constraint(check: Constraint) -> Constraint:
    """Makes a function a constraint by its name."""
    CONSTRAINTS[check.__name__] = check
    return check


def compared(count: int, wanted: float, quantifier: str, within: float) -> bool:
    """Whether a count is `at least`, `at most` or `around` (no further than `within` from) a number.

    **Raises:** `InputError` for another quantifier.
    """
    if quantifier == "at least":
        return count >= wanted
    if quantifier == "at most":
        return count <= wanted
    if quantifier == "around":
        return abs(count - wanted) <= within
    raise InputError(f"The quantifier is {quantifier!r}; at least, at most or around is wanted.")


def a_tenth(wanted: float) -> float:
    """How far off a count may be that is around a number: a tenth of it, at least 1."""
    return max(round(wanted * 0.1), 1)


def enclosed(text: str, opening: str, closing: str) -> int:
    """How many stretches lie between two marks on one line, one behind the other, as `opening(.*?)closing` finds them."""
    count = 0
    for line in text.split("\n"):
        at = line.find(opening)
        while at >= 0 and (end := line.find(closing, at + len(opening))) >= 0:
            count += 1
            at = line.find(opening, end + len(closing))
    return count


@constraint
def verify_keywords(text: str, keyword_list: Sequence[str]) -> bool:
    """All keywords are there, in any case."""
    lower = text.lower()
    return all(keyword.lower() in lower for keyword in keyword_list)


@constraint
def verify_keyword_frequency(text: str, word: str, N: int) -> bool:
    """The word, in any case, comes N times."""
    wanted = word.lower()
    return sum(found == wanted for found in WORD.findall(text.lower())) == N


@constraint
def validate_forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    """None is there, in any case, be it inside another word."""
    lower = text.lower()
    return not any(word.lower() in lower for word in forbidden_words)


@constraint
def verify_letter_frequency(text: str, letter: str, N: int) -> bool:
    """The letter, in this case, comes N times."""
    if len(letter) != 1:
        raise InputError(f"The letter is {letter!r}; one character is wanted.")
    return text.count(letter) == N


@constraint
def validate_response_language(text: str, language: str) -> bool:
    """langdetect, from a fixed seed, finds this language (`en`, `de`, …); in a text without letters it finds none."""
    return _language(text[:LANGUAGE_LETTERS]) == language


@constraint
def verify_paragraph_count(text: str, N: int) -> bool:
    """N paragraphs, none empty, with `* * *` between them."""
    stripped = "\n".join(line.strip() for line in text.splitlines())
    parts = [part.strip() for part in stripped.split("* * *")]
    return all(parts) and len(parts) == N


@constraint
def validate_word_constraint(text: str, N: int, quantifier: str) -> bool:
    """At least, around (a tenth of N, at least 1) or at most N words, as white space parts them."""
    return compared(len(text.split()), N, quantifier, a_tenth(N))


@constraint
def verify_sentence_constraint(text: str, N: int, quantifier: str) -> bool:
    """At least, around (1 off) or at most N sentences: these end in `.`, `?` or `!` and white space, abbreviations apart."""
    return compared(1 + sum(1 for _ in SENTENCE_END.finditer(text)), N, quantifier, 1)


@constraint
def validate_paragraphs(text: str, N: int, first_word: str, i: int) -> bool:
    """N paragraphs with an empty line between them, the i-th of which, from 1, begins with these letters."""
    parts = text.split("\n\n")
    return len(parts) == N and 1 <= i <= N and parts[i - 1].strip().startswith(first_word)


@constraint
def verify_postscript(text: str, postscript_marker: str) -> bool:
    """The marker, with something behind where it first comes."""
    at = text.find(postscript_marker)
    return at >= 0 and len(text[at:].strip()) > len(postscript_marker)


@constraint
def validate_placeholders(text: str, N: int) -> bool:
    """At least N places in square brackets."""
    return enclosed(text, "[", "]") >= N


@constraint
def verify_bullet_points(text: str, N: int) -> bool:
    """N lines that begin with `*` or `-`."""
    return sum(line.strip().startswith(("*", "-")) for line in text.split("\n")) == N


@constraint
def validate_title(text: str) -> bool:
    """A title in double angular brackets."""
    return enclosed(text, "<<", ">>") > 0


@constraint
def validate_choice(text: str, options: Sequence[str]) -> bool:
    """One of the options is there, be it inside a word."""
    return any(option in text for option in options)


@constraint
def validate_highlighted_sections(text: str, N: int) -> bool:
    """At least N stretches of a line between asterisks."""
    return enclosed(text, "*", "*") >= N


@constraint
def validate_sections(text: str, N: int, section_splitter: str) -> bool:
    """N parts that the splitter parts, an empty one at the start apart."""
    if not section_splitter:
        raise InputError("The section splitter is empty.")
    return text.count(section_splitter) + 1 - text.startswith(section_splitter) == N


@constraint
def validate_json_format(text: str) -> bool:
    """All of it is a JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@constraint
def validate_repeat_prompt(text: str, original_prompt: str) -> bool:
    """It begins with the prompt."""
    return text.startswith(original_prompt)


@constraint
def validate_two_responses(text: str) -> bool:
    """Two that differ, with `******` once between them."""
    first, _, second = text.partition("******")
    return text.count("******") == 1 and first.strip() != second.strip()


@constraint
def validate_uppercase(text: str) -> bool:
    """No small letter."""
    return text == text.upper()


@constraint
def validate_lowercase(text: str) -> bool:
    """No capital letter."""
    return text == text.lower()


@constraint
def validate_frequency_capital_words(text: str, N: int, quantifier: str) -> bool:
    """At least, around (a tenth of N, at least 1) or at most N words of capital letters A to Z."""
    return compared(sum(1 for _ in CAPITALS.finditer(text)), N, quantifier, a_tenth(N))


@constraint
def validate_end(text: str, end_phrase: str) -> bool:
    """It ends with the phrase."""
    return text.endswith(end_phrase)


@constraint
def validate_quotation(text: str) -> bool:
    """It begins and ends with a double quotation mark."""
    return text.startswith('"') and text.endswith('"')


@constraint
def validate_no_commas(text: str) -> bool:
    """No comma."""
    return "," not in text


def _language(text: str) -> str | None:
    from langdetect.lang_detect_exception import LangDetectException

    detector = _detectors().create()
    detector.append(text)
    try:
        return detector.detect()
    except LangDetectException:  # not a letter in it
        return None


@cache
def _detectors() -> Any:
    """langdetect's factory with its profiles, and a seed of its own: it draws at random."""
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    made = DetectorFactory()
    made.load_profile(PROFILES_DIRECTORY)
    made.set_seed(0)
    return made
