"""A saved Daily Papers page, as text or as HTML.

Under some furniture the text has its own date, then entries: a title, the start of the abstract, and, mostly, a line of
authors, a dot, and a date with the number of comments behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from broadsheet.errors import DataError
from broadsheet.files import MIB, read_text
from broadsheet.page.facts import Facts

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DATE = re.compile(r"(?P<month>[A-Z][a-z]{2,8})\.? (?P<day>\d{1,2})(?:, (?P<year>\d{4}))?(?: (?P<comments>\d{1,5}))?")
AUTHORS = re.compile(r"[•·*-]\s*(?P<count>\d{1,5}) authors?")
LONGEST_TITLE = 300
LARGEST = 8 * MIB


@dataclass(frozen=True)
class Page:
    """What a saved page holds: its date, and the facts of each entry in order."""

    as_of: date
    papers: tuple[Facts, ...]
    year_was_given: bool


def read_page(path: str | Path, as_of: date | None = None, today: date | None = None) -> Page:
    """The entries of a saved page.

    A date without a year is the latest one on or before the page's own date. The page's date has no year either: it is
    `as_of` where given, else the latest such day on or before `today`.

    **Raises:** `DataError`, in one sentence, where the file is no such page, or ends in the middle of an entry.
    """
    return read_any(read_text(path, LARGEST), str(path), as_of, today or date.today())


def read_any(text: str, name: str, as_of: date | None, today: date) -> Page:
    """The entries of a page saved as HTML or as text, from its content."""
    from broadsheet.page import hypertext

    if hypertext.is_html(text):
        return hypertext.parse_html(text, name, as_of, today)
    return parse_page(text, name, as_of, today)


def parse_page(text: str, name: str, as_of: date | None, today: date) -> Page:
    """As `read_page`, from the text itself."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"{name} is empty; a saved Daily Papers page is wanted.")
    start = next((k for k, line in enumerate(lines) if _bare_date(line) and k + 1 < len(lines)), None)
    if start is None or not any(AUTHORS.fullmatch(line) for line in lines):
        raise DataError(f"{name} is not a saved Daily Papers page: it has no date of its own, or no line of authors.")
    page_date = as_of or resolve_date(_match(lines[start]), today)
    given = as_of is not None or bool(_match(lines[start])["year"])
    papers: list[Facts] = []
    block: list[str] = []
    k = start + 1
    while k < len(lines):
        authors = AUTHORS.fullmatch(lines[k])
        if authors:
            if not block:
                raise DataError(f"{name}: a line of authors ({lines[k]!r}) stands where a title is wanted.")
            dated = _date_after(lines, k, name, block[0])
            papers += _entries(block, name)
            papers[-1] = papers[-1].with_changes(
                authors=int(authors["count"]),
                published=resolve_date(dated, page_date).isoformat(),
                comments=int(dated["comments"]) if dated["comments"] else None,
            )
            block = []
            k += 3
        elif not block and _bare_date(lines[k]):
            page_date = as_of or resolve_date(_match(lines[k]), today)  # a second day on the same page
            k += 1
        else:
            block.append(lines[k])
            k += 1
    if block:
        raise DataError(f"{name} ends in the middle of an entry ({block[-1][:50]!r}…); save the page again.")
    return Page(page_date, tuple(papers), given)


def _date_after(lines: list[str], k: int, name: str, title: str) -> re.Match:
    """The date two lines below the authors; where it is missing the page is cut off or damaged."""
    if k + 2 >= len(lines):
        raise DataError(f"{name} ends in the middle of an entry ({title[:50]!r}…); save the page again.")
    found = DATE.fullmatch(lines[k + 2])
    if lines[k + 1] != "·" or found is None or found["month"][:3].lower() not in MONTHS:
        raise DataError(f"{name}: {lines[k + 2][:40]!r} stands where the date of {title[:50]!r} is wanted.")
    return found


def _entries(block: list[str], name: str) -> list[Facts]:
    """The entries of the lines between two author lines: all but the last came without authors and date."""
    papers: list[Facts] = []
    title: str | None = None
    abstract: list[str] = []
    for line in block:
        starts = title is None or (abstract and len(line) < LONGEST_TITLE and len(abstract[-1]) >= LONGEST_TITLE)
        if starts:
            if title is not None:
                papers.append(Facts(title=title, abstract=" ".join(abstract)))
            title, abstract = line, []
        else:
            abstract.append(line)
    if title is None or len(title) > LONGEST_TITLE:
        raise DataError(f"{name}: {block[0][:50]!r}… is too long for a title.")
    return [*papers, Facts(title=title, abstract=" ".join(abstract))]


def _match(line: str) -> re.Match:
    found = DATE.fullmatch(line)
    assert found is not None
    return found


def _bare_date(line: str) -> bool:
    found = DATE.fullmatch(line)
    return found is not None and found["month"][:3].lower() in MONTHS and found["comments"] is None


def resolve_date(found: re.Match, latest: date) -> date:
    """The day that a date means: its own year, or the latest one that does not lie after `latest`."""
    month, day = MONTHS.index(found["month"][:3].lower()) + 1, int(found["day"])
    try:
        if found["year"]:
            return date(int(found["year"]), month, day)
        for year in range(latest.year, latest.year - 9, -1):
            if (month, day) != (2, 29) or _leap(year):
                here = date(year, month, day)
                if here <= latest:
                    return here
    except ValueError:
        pass
    raise DataError(f"{found[0]!r} is no date.")


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
