"""How a paper is cited."""

from __future__ import annotations

from broadsheet.page.catalogue import ListedPaper

SPECIAL = str.maketrans({char: f"\\{char}" for char in "&%#_"})


def bibtex(paper: ListedPaper) -> str:
    """A BibTeX entry of what is known; the names of authors come with an import from arXiv or the Hub."""
    fields = {"title": f"{{{_escaped(paper.title)}}}"}
    fields["author"] = " and ".join(_escaped(name) for name in paper.names) if paper.names else "others"
    if paper.published:
        fields["year"] = paper.published[:4]
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{paper.arxiv}"}
    if not paper.names:
        fields["note"] = f"author names: broadsheet import {paper.arxiv}" if paper.arxiv else "author names unknown"
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{paper.slug},\n{lines}\n}}"


def _escaped(text: str) -> str:
    """Signs that mean something to LaTeX; what is LaTeX already, or unbalanced, stays or loses its braces."""
    if "$" in text or "\\" in text:
        return text if text.count("{") == text.count("}") else text.replace("{", "").replace("}", "")
    return text.translate(SPECIAL).replace("{", "").replace("}", "")
