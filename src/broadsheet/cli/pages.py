"""Commands about the page: import, list, show, search, new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.output import checks_text, console, controls_text, counts_text, print_json, table, verdict, warning_lines
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.lab.ledger import Recorded
    from broadsheet.page.catalogue import Catalogue, ListedPaper

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="A saved page (text or HTML), a file of arXiv ids or of records (.json, .jsonl, .bib); or daily, "
            "daily:YYYY-MM-DD, hub:QUERY, arxiv:QUERY; or arXiv ids, addresses of their pages or their DOIs.",
        ),
    ],
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="The day of a saved page, YYYY-MM-DD.")] = None,
    embed: Annotated[
        bool | None, typer.Option(help="Embed their texts for search by meaning; by default where the extra is installed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring papers into the catalogue. The same again changes nothing."""
    from broadsheet.lab.jobs import tidy
    from broadsheet.page import intake
    from broadsheet.page.catalogue import Catalogue

    name, papers, when = intake.read(sources, intake.day(as_of) if as_of else None)
    catalogue = Catalogue()
    tidy(catalogue.store)
    done = catalogue.add(name, papers, when)
    embedded = _embed(catalogue, embed)
    summary = {
        "source": name,
        "as_of": when.isoformat(),
        "papers": done.seen,
        "dates": sum(paper.published is not None for paper in papers),
        "author_counts": sum(paper.authors is not None for paper in papers),
        "comment_counts": sum(paper.comments is not None for paper in papers),
        "new": done.new,
        "changed": done.changed,
        "embedded": embedded,
    }
    if as_json:
        print_json(summary)
        return
    print(
        f"{done.seen} papers as of {when.isoformat()}: {summary['dates']} with a date, {summary['author_counts']} with "
        f"an author count, {summary['comment_counts']} with a comment count. {len(done.new)} new, "
        f"{len(done.changed)} with news." + (f" {embedded} texts embedded for search by meaning." if embedded else "")
    )


def _embed(catalogue: Catalogue, wanted: bool | None) -> int:
    """Embeds what has no embedding yet; how many there were. Without the extra nothing, unless it was asked for."""
    from broadsheet.page import meaning

    if wanted is False or (wanted is None and not meaning.available()):
        return 0
    texts = meaning.missing(catalogue.store, catalogue.papers().values())
    return meaning.embed(catalogue.store, meaning.Encoder.load(), texts) if texts else 0


def list_(
    running: Annotated[bool, typer.Option("--running", help="Only papers that run here.")] = False,
    as_json: AsJson = False,
) -> None:
    """All papers, and how well each is known."""
    from broadsheet.page.catalogue import Catalogue

    papers = [paper for paper in Catalogue().papers().values() if paper.basis or not running]
    papers.sort(key=lambda paper: (paper.published or "", paper.slug), reverse=True)
    known = recorded_claims([paper.slug for paper in papers if paper.basis])
    from broadsheet.lab.ledger import counts

    if as_json:
        print_json(
            [
                {
                    "slug": paper.slug, "arxiv": paper.arxiv, "title": paper.title, "published": paper.published,
                    "authors": paper.authors, "comments": paper.comments, "basis": paper.basis,
                    "verdicts": counts(known.get(paper.slug, [])),
                }
                for paper in papers
            ]
        )  # fmt: skip
        return
    console().print(papers_table(papers, known))


def recorded_claims(slugs: list[str]) -> dict[str, list[Recorded]]:
    """slug -> claims with their last verdict, for papers that run here."""
    from broadsheet.lab import ledger
    from broadsheet.lab.registry import entries

    known = ledger.latest(slugs)
    return {slug: ledger.states(entries()[slug], known.get(slug)) for slug in slugs if slug in entries()}


def papers_table(papers: list[ListedPaper], known: dict[str, list[Recorded]]) -> Any:
    """The table of `list` and `build`."""
    from broadsheet.lab.ledger import counts

    names = ("paper", "title", "published", "basis", "the paper's claims")
    rows = [
        (
            paper.slug, paper.title, paper.published, paper.basis or "",
            counts_text(counts(known[paper.slug])) if paper.slug in known else "no system yet",
        )
        for paper in papers
    ]  # fmt: skip
    widths = [max(len(row[k] or "") for row in (names, *rows)) for k in range(len(names))]
    widths[-1] = min(widths[-1], 30)  # counts go on in a second line
    gaps = 3 * len(names)
    widths[1] = console().width - (sum(widths) - widths[1]) - gaps  # the title takes what is left
    shown = [k for k in range(len(names)) if k != 1 or widths[1] >= 12]
    if 1 not in shown:  # a narrow terminal
        widths[-1] = max(14, console().width - widths[0] - widths[2] - widths[3] - gaps)
    columns: list[Any] = [
        (name, {"no_wrap": name != names[-1], "overflow": "ellipsis", "width": width})
        for name, width in zip(names, widths, strict=True)
    ]
    return table([columns[k] for k in shown], [[row[k] for k in shown] for row in rows])


def show(
    slug: Annotated[str, typer.Argument(metavar="PAPER", help="A short name, or an arXiv id.")],
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print a BibTeX entry.")] = False,
    as_json: AsJson = False,
) -> None:
    """One paper: facts, claims with their verdicts, and how to run it."""
    from broadsheet.page.catalogue import Catalogue

    paper = Catalogue().paper(slug)
    claims = recorded_claims([paper.slug]).get(paper.slug, []) if paper.basis else []
    if bibtex:
        from broadsheet.page.citation import bibtex as entry_of

        print(entry_of(paper))
    elif as_json:
        from broadsheet.lab.ledger import counts, waiting_for_null
        from broadsheet.page.reading import meaning

        facts = {
            "slug": paper.slug, "arxiv": paper.arxiv, "title": paper.title, "published": paper.published,
            "authors": paper.authors, "comments": paper.comments, "basis": paper.basis, "verdicts": counts(claims),
            "no_null_model_yet": waiting_for_null(claims),
            "summary": paper.summary, "abstract": paper.abstract, "topics": paper.topics, "code": paper.code,
            "parts": paper.parts, "sources": paper.sources, "names": paper.names, "ours": paper.ours,
        }  # fmt: skip
        print_json({**facts, "claims": [{**claim.to_dict(), "means": meaning(claim)} for claim in claims]})
    else:
        _show(paper, claims)


def _show(paper: ListedPaper, claims: list[Recorded]) -> None:
    from rich.markup import escape

    out = console()
    out.print(f"[bold]{escape(paper.title)}[/bold]")
    line = [
        f"arXiv {paper.arxiv}" if paper.arxiv else "",
        paper.published or "",
        f"{paper.authors} authors" if paper.authors else "",
    ]
    out.print(escape(" · ".join(filter(None, line))))
    if paper.names:
        out.print(escape(", ".join(paper.names) + (" and others" if paper.names_cut else "")))
    if paper.ours:
        out.print(f"Our own facts say {', '.join(f'{name} {value}' for name, value in paper.ours.items())}.", style="dim")
    if paper.topics:
        out.print(escape(", ".join(paper.topics)), style="dim")
    out.print()
    out.print(escape(paper.summary or paper.abstract or "No summary: import the page or the arXiv id for its abstract."))
    out.print()
    if paper.code:
        out.print(f"Authors' code: {escape(paper.code)}")
    if not paper.basis:
        out.print("No system of it runs here yet.")
        out.print(f"Add claims to its code: broadsheet new {paper.arxiv or 'ARXIV_ID'}, then broadsheet verify FOLDER")
        return
    from broadsheet.lab.ledger import waiting_for_null
    from broadsheet.lab.registry import entry

    made = entry(paper.slug)
    out.print(f"Import: {escape(', '.join(paper.parts))}")
    for name, experiment in made.experiments.items():
        presets = ", ".join(experiment.presets)
        out.print(f"broadsheet run {paper.slug} -e {name}  [dim]{escape(experiment.summary)} ({presets})[/dim]")
    rows = []
    for state in claims:
        checks = checks_text(state.claim, state.outcomes)
        rows.append((state.claim.id, state.claim.statement, verdict(state.verdict), checks, controls_text(state.trials)))
    columns: list[Any] = ["", ("claim", {"ratio": 1}), "verdict", ("check: value, bound", {"ratio": 1}), "controls"]
    out.print(table(columns, rows))
    scales = sorted({state.scale for state in claims if state.scale})
    if scales:
        out.print(f"Verdicts: {'; '.join(scales)}.")
    for state in claims:
        for said in warning_lines(state.claim, state.trials, state.warnings):
            out.print(escape(said))
        for grown in state.growth:
            out.print(escape(f"{state.claim.id} as {grown.setting} grows: {grown.text}"))
    waiting = waiting_for_null(claims)
    if waiting:
        out.print(f"No null model yet: {', '.join(waiting)}.")
    for state in claims:
        reason = state.claim.reason or state.claim.untested
        if reason:
            out.print(f"{state.claim.id}: {escape(reason)}")
    for note in made.facts["notes"]:
        out.print(f"Note: {escape(note)}", style="dim")


def search(
    query: Annotated[list[str], typer.Argument(metavar="WORDS…", help="Words, or phrases in quotes.")],
    most: Annotated[int, typer.Option(help="At most this many.", min=1)] = 20,
    meaning: Annotated[bool, typer.Option("--meaning", help="By meaning as well; needs the extra 'search'.")] = False,
    as_json: AsJson = False,
) -> None:
    """Papers by words: those with all of them, then those with some; typing errors are forgiven."""
    from broadsheet.page import search as index
    from broadsheet.page.catalogue import Catalogue

    catalogue, words = Catalogue(), " ".join(query)
    near = _near(catalogue, words) if meaning else []
    found = index.search(catalogue.papers().values(), words, most, near)
    if as_json:
        print_json(
            [{"slug": p.slug, "arxiv": p.arxiv, "title": p.title, "published": p.published, "snippet": s} for p, s in found]
        )
        return
    if not found:
        print("Nothing found.")
    for paper, snippet in found:
        print(f"{paper.slug}: {paper.title}\n    {' '.join(snippet.split())}")


def _near(catalogue: Catalogue, words: str) -> list[tuple[str, float]]:
    """(short name, nearness) of papers by meaning; texts without an embedding are embedded first."""
    from broadsheet.page import meaning
    from broadsheet.page.search import DEPTH, UNRELATED

    encoder = meaning.Encoder.load()
    texts = meaning.missing(catalogue.store, catalogue.papers().values())
    if texts:
        meaning.embed(catalogue.store, encoder, texts)
    nearest = meaning.Nearest.of(catalogue.store, encoder)
    return [(slug, near) for slug, near in nearest.search(encoder.query(words), DEPTH) if near > UNRELATED]


DRAFT = """# Claims of this repository, checked with: broadsheet verify .
# A command writes its metrics as JSON to {{out}}. A claim holds when it does and none of its controls meets it: an ablation is
# the same experiment with the mechanism switched off, a null model explains the result without the system.

[repository]
name = "{slug}"
arxiv = "{arxiv}"
title = {title}

[[experiment]]
name = "main"
command = "python experiment.py --seed {{seed}} --steps {{steps}} --out {{out}}"
ablations = {{ off = "python experiment.py --seed {{seed}} --steps {{steps}} --out {{out}} --off" }}
nulls = {{ constant = "python baseline.py --seed {{seed}} --out {{out}}" }}
settings = {{ steps = 1000 }}
timeout = 600

[[experiment.claim]]
id = "C1"
statement = "what the paper asserts, in one sentence"
where = "abstract"
seeds = 3
grows = "steps"
checks = [
  {{ metric = "accuracy", at_least = 0.9 }},
  {{ metric = "accuracy", at_most = 0.6, of = "off" }},
]
"""


def new(
    arxiv: Annotated[str, typer.Argument(metavar="ARXIV_ID", help="The paper that the repository belongs to.")],
    folder: Annotated[Path, typer.Option(help="The repository.")] = Path(),
) -> None:
    """Draft a claims.toml for the code of a paper."""
    import json

    from broadsheet.cache import write_atomic
    from broadsheet.page.catalogue import Catalogue
    from broadsheet.page.facts import arxiv_id

    wanted = arxiv_id(arxiv)
    known = next((paper for paper in Catalogue().papers().values() if paper.arxiv == wanted), None)
    path = folder / "claims.toml"
    if path.exists():
        raise InputError(f"{path} is there already; nothing was changed.")
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.")
    title = json.dumps(known.title if known else f"arXiv {wanted}", ensure_ascii=False)
    write_atomic(path, DRAFT.format(slug=known.slug if known else wanted, arxiv=wanted, title=title))
    print(f"{path} is drafted: write the commands and the claims, then: broadsheet verify {folder}")
