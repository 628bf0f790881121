"""Live sources: the Hub's daily papers and paper search, arXiv's search, and lists of arXiv ids.

A source that cannot be reached raises `SourceError` before anything is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from typing import Any

from broadsheet.errors import InputError, SourceError
from broadsheet.page.facts import Facts, arxiv_id
from broadsheet.page.identifiers import identifier

MOST = 200
"""Papers that one import takes from a live source at the most."""


@contextlib.contextmanager
def _reaching(name: str) -> Iterator[None]:
    """Anything that goes wrong on the network becomes one sentence."""
    try:
        yield
    except (InputError, SourceError):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise SourceError(f"{name} could not be read ({reason}); nothing was changed.") from error


def hub_daily(day: date | None = None, endpoint: str | None = None) -> list[Facts]:
    """The Hub's daily papers, of one day or the latest."""
    from huggingface_hub import HfApi

    with _reaching("The Hub's daily papers"):
        found = HfApi(endpoint=endpoint).list_daily_papers(date=day.isoformat() if day else None, limit=MOST)
        return [_from_hub(info) for info in islice(found, MOST)]


def hub_search(query: str, endpoint: str | None = None) -> list[Facts]:
    """Papers of the Hub that match a query."""
    from huggingface_hub import HfApi

    with _reaching("The Hub's paper search"):
        return [_from_hub(info) for info in islice(HfApi(endpoint=endpoint).list_papers(query=query, limit=MOST), MOST)]


def arxiv_search(query: str, most: int = 50, endpoint: str | None = None) -> list[Facts]:
    """Papers of arXiv that match a query in arXiv's syntax (`cat:q-bio.NC AND ti:dendrites`), newest first."""
    import arxiv

    search = arxiv.Search(query=query, max_results=min(most, MOST), sort_by=arxiv.SortCriterion.SubmittedDate)
    return _from_arxiv(search, endpoint)


def arxiv_ids(ids: Sequence[str], endpoint: str | None = None) -> list[Facts]:
    """The papers of arXiv identifiers in any spelling; raises `InputError` where arXiv does not know one."""
    import arxiv

    wanted = list(dict.fromkeys(arxiv_id(text) for text in ids))
    found = _from_arxiv(arxiv.Search(id_list=wanted, max_results=len(wanted)), endpoint)
    missing = sorted(set(wanted) - {paper.arxiv for paper in found})
    if missing:
        raise InputError(f"arXiv does not know {', '.join(missing)}; nothing was changed.")
    return found


def _from_arxiv(search: Any, endpoint: str | None) -> list[Facts]:
    import arxiv

    client = arxiv.Client(page_size=100, delay_seconds=3 if endpoint is None else 0, num_retries=2)
    if endpoint is not None:
        client.query_url_format = f"{endpoint}/api/query?{{}}"
    with _reaching("arXiv"):
        return [
            Facts(
                title=" ".join(result.title.split()),
                arxiv=arxiv_id(result.get_short_id()),
                abstract=" ".join(result.summary.split()),
                authors=len(result.authors),
                names=tuple(author.name for author in result.authors),
                published=result.published.date().isoformat(),
            )
            for result in islice(client.results(search), MOST)
        ]


def _from_hub(info: Any) -> Facts:
    if not info.id or not info.title:
        raise SourceError("The Hub's answer holds a paper without id or title; nothing was changed.")
    names = tuple(author.name for author in info.authors or () if author.name)
    return Facts(
        title=" ".join(info.title.split()),
        arxiv=arxiv_id(info.id),
        abstract=" ".join((info.summary or "").split()) or None,
        authors=len(names) or None,
        names=names or None,
        published=info.published_at.date().isoformat() if info.published_at else None,
        comments=getattr(info, "comments", None),
        upvotes=getattr(info, "upvotes", None),
    )


def looks_like_ids(words: Iterable[str]) -> bool:
    """Whether all words are arXiv identifiers, however they are spelt."""
    return all(identifier(word) for word in words)
