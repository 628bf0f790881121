"""The saved HTML of a papers page: the Hub's daily page, one of its days, trending papers, or results of its search.

The page carries its papers as JSON for its own scripts; where that is missing (a page printed or cleaned by a browser) the
articles themselves are read. Nothing of the page is kept but text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.page.facts import Facts, plain
from broadsheet.page.identifiers import identifier
from broadsheet.page.records import from_hub
from broadsheet.page.saved import DATE, MONTHS, Page, resolve_date

MARK = re.compile(r"<(!doctype html|html|head|body|main|article)\b", re.IGNORECASE)
AUTHORS = re.compile(r"(\d{1,5})\s+authors?\b")
MOST = 5_000
"""Papers of one page at the most."""


def is_html(text: str) -> bool:
    """Whether a file's text is HTML."""
    return MARK.search(text[:20_000]) is not None


def parse_html(text: str, name: str, as_of: date | None, today: date) -> Page:
    """The papers of a saved page.

    **Raises:** `DataError`, in one sentence, where it holds no papers.
    """
    from bs4 import BeautifulSoup

    try:
        tree = BeautifulSoup(text, "html.parser")
        own_day = _day(tree)
        day = as_of or own_day or today
        papers = list(_from_data(tree)) or list(_from_articles(tree, day))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is HTML that cannot be read ({type(error).__name__}: {str(error)[:80]}).") from None
    if not papers:
        raise DataError(f"{name} is HTML, but holds no papers: save the page of daily papers itself.")
    if len(papers) > MOST:
        raise DataError(f"{name} holds {len(papers)} papers; {MOST} of one page are allowed.")
    once = {paper.arxiv or paper.title: paper for paper in papers}
    return Page(day, tuple(once.values()), as_of is not None or own_day is not None)


def _from_data(tree: Any) -> Iterator[Facts]:
    """Papers of the JSON that the page's scripts start from."""
    for element in tree.find_all(attrs={"data-props": True}):
        try:
            props = json.loads(element["data-props"])
        except (ValueError, RecursionError):
            continue
        if not isinstance(props, dict):
            continue
        for key in ("dailyPapers", "papers", "trendingPapers"):
            found = props.get(key)
            for item in found if isinstance(found, list) else []:
                if isinstance(item, dict) and ("title" in item or "paper" in item):
                    yield from_hub(item)


def _from_articles(tree: Any, day: date) -> Iterator[Facts]:
    for article in tree.find_all("article"):
        link = article.find("a", href=re.compile(r"(^|huggingface\.co|arxiv\.org)/(papers|abs)/"), string=True)
        heading = article.find(["h2", "h3", "h4"])
        title = plain((heading or link).get_text(" ")) if heading or link else ""
        if not title:
            continue
        href = (link or {}).get("href", "") if link else next((a.get("href", "") for a in article.find_all("a")), "")
        said = article.get_text(" ", strip=True)
        authors = AUTHORS.search(said)
        paragraphs = [plain(p.get_text(" ")) for p in article.find_all("p")]
        abstract = max((p for p in paragraphs if p != title), key=len, default="")
        talk = article.find("a", href=re.compile(r"#community"))
        comments = re.search(r"\d{1,5}", talk.get_text()) if talk else None
        yield Facts(
            title=title,
            arxiv=identifier(str(href)),
            abstract=abstract if len(abstract) > 40 else None,
            authors=int(authors[1]) if authors else None,
            published=_published(article, said, day),
            comments=int(comments[0]) if comments else None,
        )


def _published(article: Any, said: str, day: date) -> str | None:
    stamp = article.find("time")
    if stamp is not None and re.match(r"\d{4}-\d{2}-\d{2}", str(stamp.get("datetime", ""))):
        return str(stamp["datetime"])[:10]
    for found in DATE.finditer(said):
        if found["month"][:3].lower() in MONTHS:
            try:
                return resolve_date(found, day).isoformat()
            except InputError:
                continue
    return None


def _day(tree: Any) -> date | None:
    """The day that the page says it is of: of its own address, or of its first `<time>` outside the articles."""
    addresses = [element.get("href") for element in tree.find_all("link", rel="canonical")]
    addresses += [element.get("content") for element in tree.find_all("meta", property="og:url")]
    stamps = [element.get("datetime") for element in tree.find_all("time") if element.find_parent("article") is None]
    for text in [*addresses, *stamps]:
        found = re.search(r"\d{4}-\d{2}-\d{2}", str(text))
        if found:
            try:
                return date.fromisoformat(found[0])
            except ValueError:
                continue
    return None
