"""BibTeX: titles, authors in their order, identifiers and, where the whole day is given, dates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from broadsheet.errors import DataError
from broadsheet.page.facts import Facts
from broadsheet.page.identifiers import identifier

MARKS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "=": "\u0304", "u": "\u0306", ".": "\u0307", '"': "\u0308",
    "r": "\u030a", "H": "\u030b", "v": "\u030c", "d": "\u0323", "c": "\u0327", "k": "\u0328", "b": "\u0331",
}  # fmt: skip
"""LaTeX's accents as characters that join the letter before them."""

LETTERS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "aa": "å", "AA": "Å",
    "i": "i", "j": "j",
}  # fmt: skip
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ACCENT = re.compile(r"""\\(?:([`'^~=."])\s*|([uvHcdbkr])(?=\s*\{|\s+))\{?\s*(\\?[A-Za-z])\s*\}?""")
ENTRY = re.compile(r"@\s*(\w+)\s*[{(]\s*([^,{}()\s\"]*)\s*,")
NO_ENTRY = ("comment", "preamble", "string")


def entries(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(key, field -> value) of each entry; raises `DataError` that names the entry which does not end."""
    place = 0
    while found := ENTRY.search(text, place):
        place = found.end()
        if found[1].lower() not in NO_ENTRY:
            fields, place = _fields(text, place, found[2])
            yield found[2], fields


def facts(fields: dict[str, str]) -> Facts:
    """The paper of an entry; raises `DataError` where it has no title."""
    names = tuple(name for part in re.split(r"\s+and\s+", fields.get("author", "")) if (name := _name(part)))
    spelt = [fields.get(name, "") for name in ("eprint", "doi", "url", "journal", "note", "howpublished")]
    arxiv = next((found for text in spelt for word in (text, *text.split()) if (found := identifier(word))), None)
    cut = bool(names) and names[-1] == "others"
    return Facts(
        title=plain(fields.get("title", "")),
        arxiv=arxiv,
        abstract=plain(fields["abstract"]) if fields.get("abstract") else None,
        authors=None if cut else len(names) or None,
        names=names or None,
        published=_day(fields),
    )


def plain(text: str) -> str:
    """A text of LaTeX as characters: accents are joined to their letters, braces and dashes are what they stand for."""
    text = ACCENT.sub(lambda found: _joined(found[3].lstrip("\\"), found[1] or found[2]), text)
    text = re.sub(r"\\([A-Za-z]{1,2})(?![A-Za-z])\s*(?:\{\})?", lambda found: LETTERS.get(found[1], found[0]), text)
    if "$" not in text:  # formulas are shown as such
        text = re.sub(r"(?<!\\)[{}]", "", text).replace("---", "\u2014").replace("--", "\u2013").replace("~", " ")
    return re.sub(r"\\([&%#_{}])", r"\1", text)


def _joined(letter: str, mark: str) -> str:
    return unicodedata.normalize("NFC", letter + MARKS[mark])


def _name(text: str) -> str:
    """A name in the order in which it is said: `Last, First` and `Last, Jr, First` are turned round."""
    whole = re.fullmatch(r"\s*\{([^{}]*)\}\s*", text)
    if whole:  # a group's
        return " ".join(plain(whole[1]).split())
    parts = [" ".join(plain(part).split()) for part in text.split(",")]
    if len(parts) == 2:
        parts = [parts[1], parts[0]]
    elif len(parts) == 3:
        parts = [parts[2], parts[0], parts[1]]
    return " ".join(part for part in parts if part)


def _day(fields: dict[str, str]) -> str | None:
    """The day, where all of it is given: `date`, or `year`, `month` and `day`."""
    date = re.match(r"\d{4}-\d{2}-\d{2}", fields.get("date", ""))
    if date:
        return date[0]
    month = fields.get("month", "").strip().lower()
    number = MONTHS.index(month[:3]) + 1 if month[:3] in MONTHS else int(month) if month.isdecimal() else 0
    year, day = fields.get("year", ""), fields.get("day", "")
    return f"{int(year):04}-{number:02}-{int(day):02}" if number and year.isdecimal() and day.isdecimal() else None


def _fields(text: str, place: int, key: str) -> tuple[dict[str, str], int]:
    """The fields of an entry, and where it ends."""
    fields: dict[str, str] = {}
    name = re.compile(r"\s*,?\s*([\w-]+)\s*=\s*")
    while found := name.match(text, place):
        value, place = _value(text, found.end(), key)
        fields.setdefault(found[1].lower(), " ".join(value.split()))
    end = re.compile(r"\s*,?\s*[})]").match(text, place)
    if end is None:
        raise DataError(f"the entry {key[:60]!r} is not whole")
    return fields, end.end()


def _value(text: str, place: int, key: str) -> tuple[str, int]:
    """A value in braces or quotes, or a word, and where it ends."""
    opening = text[place : place + 1]
    if opening not in ("{", '"'):
        word = re.compile(r"[^\s,{}()\"]+").match(text, place)
        if word is None:
            raise DataError(f"the entry {key[:60]!r} is not whole")
        return word[0], word.end()
    depth = 0
    for found in re.compile(r"\\.|[{}\"]", re.DOTALL).finditer(text, place + 1):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}" and depth:
            depth -= 1
        elif depth == 0 and found[0] == ("}" if opening == "{" else '"'):
            return text[place + 1 : found.start()], found.end()
    raise DataError(f"the entry {key[:60]!r} is not whole")
