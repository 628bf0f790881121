"""How a paper is cited: as BibTeX, and as tags of its page, from which reference managers and Google Scholar read it."""

from __future__ import annotations

import re

from broadsheet.page.catalogue import ListedPaper

SPECIAL = str.maketrans({char: f"\\{char}" for char in "&%#_"})
CORPORATE = re.compile(
    r"\b(and|collaboration|consortium|team|group|project|initiative|network|institute|university)\b", re.IGNORECASE
)
"""What makes a name one that has no last name; it goes into braces."""

SUFFIX = re.compile(r"^(?P<first>[^,]+) (?P<last>[^\s,]+),? (?P<suffix>Jr\.?|Sr\.?|I{2,3}|IV)$")


def bibtex(paper: ListedPaper) -> str:
    """A BibTeX entry of what is known: names in the paper's own order, `and others` where only some of them are known."""
    fields = {"title": f"{{{_escaped(paper.title)}}}"}
    if paper.names:
        more = ["others"] if paper.names_cut or len(paper.names) < (paper.authors or 0) else []
        fields["author"] = " and ".join([*map(_name, paper.names), *more])
    if paper.published:
        fields["year"] = paper.published[:4]
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv", "url": abstract_url(paper.arxiv)}
    if not paper.names:
        fields["note"] = f"author names: broadsheet import {paper.arxiv}" if paper.arxiv else "author names unknown"
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{paper.slug},\n{lines}\n}}"


def abstract_url(arxiv: str) -> str:
    return f"https://arxiv.org/abs/{arxiv}"


def pdf_url(arxiv: str) -> str:
    return f"https://arxiv.org/pdf/{arxiv}"


def citation_tags(paper: ListedPaper, title: str) -> list[tuple[str, str]]:
    """(name, content) of the `<meta>` elements that Google Scholar and Zotero read: Highwire Press tags, as arXiv has them.

    One `citation_author` for each name, in order; `title` is the paper's without markup.
    """
    tags = [("citation_title", title), *(("citation_author", name) for name in paper.names)]
    if paper.published:
        day = paper.published.replace("-", "/")
        tags += [("citation_publication_date", day), ("citation_online_date", day)]
    if paper.arxiv:
        tags += [
            ("citation_arxiv_id", paper.arxiv),
            ("citation_pdf_url", pdf_url(paper.arxiv)),
            ("citation_abstract_html_url", abstract_url(paper.arxiv)),
        ]
    if paper.abstract:
        tags.append(("citation_abstract", paper.abstract))
    return tags


def _name(name: str) -> str:
    """A name as BibTeX takes it apart: that of a group is one word, what follows a last name stands behind a comma."""
    name = _escaped(name)
    if CORPORATE.search(name):
        return f"{{{name}}}"
    found = SUFFIX.match(name)
    return f"{found['last']}, {found['suffix']}, {found['first']}" if found else name


def _escaped(text: str) -> str:
    """Signs that mean something to LaTeX; what is LaTeX already, or unbalanced, stays or loses its braces."""
    if "$" in text or "\\" in text:
        return text if text.count("{") == text.count("}") else text.replace("{", "").replace("}", "")
    return text.translate(SPECIAL).replace("{", "").replace("}", "")
