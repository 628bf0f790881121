"""How a paper is cited: as BibTeX, CSL-JSON and RIS, and as tags of its page, which Zotero and Google Scholar read."""

from __future__ import annotations

import re
from typing import Any

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


def csl(paper: ListedPaper, title: str) -> dict[str, Any]:
    """An item of CSL-JSON (schema 1.0.2); `title` is the paper's without markup."""
    item: dict[str, Any] = {"id": paper.slug, "type": "article", "title": title}
    if paper.names:
        item["author"] = [_csl_name(name) for name in paper.names]
    if paper.published:
        item["issued"] = {"date-parts": [[int(part) for part in paper.published.split("-")]]}
    if paper.arxiv:
        item |= {"number": f"arXiv:{paper.arxiv}", "publisher": "arXiv", "URL": abstract_url(paper.arxiv)}
    if paper.abstract:
        item["abstract"] = paper.abstract
    return item


def ris(paper: ListedPaper, title: str) -> str:
    """An entry of RIS, its lines ended by CR LF; `title` is the paper's without markup."""
    lines = [("TY", "GEN"), ("ID", paper.slug), ("TI", title)]
    for name in map(_csl_name, paper.names):
        lines.append(
            ("AU", ", ".join(name[key] for key in ("family", "given", "suffix") if key in name) or name.get("literal", ""))
        )
    if paper.published:
        lines += [("PY", paper.published[:4]), ("DA", paper.published.replace("-", "/"))]
    if paper.arxiv:
        lines += [("PB", "arXiv"), ("M1", f"arXiv:{paper.arxiv}"), ("UR", abstract_url(paper.arxiv))]
    if paper.abstract:
        lines.append(("AB", paper.abstract))
    return "".join(f"{tag}  - {' '.join(value.split())}\r\n" for tag, value in [*lines, ("ER", "")])


def _csl_name(name: str) -> dict[str, str]:
    """A name in parts; that of a group, or a single word, as it stands."""
    if CORPORATE.search(name) or " " not in name.strip():
        return {"literal": name}
    found = SUFFIX.match(name)
    if found:
        return {"family": found["last"], "given": found["first"], "suffix": found["suffix"]}
    given, _, family = name.rpartition(" ")
    return {"family": family, "given": given}


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
