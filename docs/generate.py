"""Pages that are made when the documentation is built: one a paper, the commands, and the tables of benchmarks."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import curves
from markupsafe import Markup
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from broadsheet.lab import ledger
from broadsheet.lab.registry import Entry, entries
from broadsheet.page import reading

DOCS = Path(__file__).parent


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the papers into the navigation."""
    papers = [{"All papers": "papers/index.md"}] + [{slug: f"papers/{slug}.md"} for slug in sorted(entries())]
    config.nav.insert(4, {"Papers": papers})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    known = ledger.latest(list(entries()))
    pages = {"papers/index.md": papers_page(known), "benchmarks.md": benchmarks_page(), "guide/commands.md": commands_page()}
    pages["claims.css"] = reading.STYLES.read_text()
    pages |= {path: curves.svg(one) for of_one in cost_curves().values() for path, one in of_one.items()}
    pages |= {f"papers/{slug}.md": paper_page(entry, known.get(slug)) for slug, entry in entries().items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def papers_page(known: dict[str, Any]) -> str:
    """All papers that run, with counts of verdicts by basis."""
    lines = ["# Papers", "", f"Counts are of the papers' own claims. {reading.HOLDS}", ""]
    lines += ["| paper | published | basis | claims |", "| --- | --- | --- | --- |"]
    for slug, entry in sorted(entries().items(), key=lambda item: item[1].facts["published"], reverse=True):
        counts = ledger.counts(ledger.states(entry, known.get(slug)))
        said = ", ".join(f"{count} {verdict(name)}" for name, count in counts.items())
        facts = entry.facts
        lines.append(
            f"| [{cell(facts['title'])}]({slug}.md) | {facts['published']} | {ledger.BASES[facts['basis']]} | {said} |"
        )
    return "\n".join(lines) + "\n"


def paper_page(entry: Entry, data: dict[str, Any] | None) -> str:
    """One paper: facts, how to use it, its claims with their verdicts, its experiments with figures."""
    facts, recorded = entry.facts, ledger.states(entry, data)
    lines = [f"# {facts['title']}", ""]
    about = [
        f"[arXiv {facts['arxiv']}](https://arxiv.org/abs/{facts['arxiv']})",
        facts["published"],
        f"{facts['authors']} authors",
    ]
    lines += [" · ".join(about + list(facts["topics"])), "", facts["summary"], ""]
    lines += [f"Basis: {ledger.BASES[facts['basis']]}." + (f" Authors' code: {facts['code']}." if facts["code"] else ""), ""]
    lines += ["```python", *imports(facts["parts"]), "```", "", "```python", "import broadsheet", ""]
    first = next(iter(entry.experiments))
    lines += [f'result = broadsheet.load("{entry.slug}").run("{first}", preset="quick", seed=0)', "```", ""]
    lines += ["```sh", f"broadsheet verify {entry.slug}", "```", "", "## Claims", ""]
    if data:
        scales = "; ".join(sorted({state.scale for state in recorded if state.scale}))
        lines += [f"Verdicts of {data['made'][:10]}: {scales}. ([ledger](../verdicts/{entry.slug}.json))", ""]
    lines += [reading.HOW_TO_READ, "", reading.TOY, ""]
    for state in sorted(recorded, key=lambda state: state.claim.kind != "paper"):
        task = entry.experiments[state.experiment].summary if state.experiment else ""
        lines += [markup(reading.html(state, lambda experiment, name: curve(entry.slug, experiment, name), task)), ""]
    lines += ["## Experiments", ""]
    for name, made in entry.experiments.items():
        lines += [f"### {name}", "", made.summary, ""]
        folder = ledger.shown_figures(DOCS / "verdicts", entry.slug, name)
        for file in sorted(folder.glob("*.svg")):
            if not file.name.startswith(ledger.CURVES):
                lines += [figure(file), ""]
        sizes = ", ".join(f"`{preset}`" for preset in made.presets)
        variants = ", ".join(f"`{variant}`" for variant in made.variants) or "none"
        lines += [f"Presets: {sizes}. Variants: {variants}.", ""]
        lines += ["```sh", f"broadsheet run {entry.slug} -e {name}", "```", ""]
    if facts["notes"]:
        lines += ["## Notes", "", *(f"- {note}" for note in facts["notes"]), ""]
    return "\n".join(lines)


def abstract(facts: Any) -> str:
    return f"https://arxiv.org/abs/{facts['arxiv']}"


def imports(parts: list[str]) -> list[str]:
    """Import statements of a paper's parts."""
    return [f"from {module} import {name}" for module, _, name in (part.rpartition(".") for part in parts)]


def figure(file: Path) -> str:
    """A figure of the ledger with its caption, on a paper's page; addresses are those of the built site."""
    caption = escape(file.with_suffix(".txt").read_text())
    return f'<figure><img src="../../{file.relative_to(DOCS)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def curve(slug: str, experiment: str, name: str) -> Markup | str:
    """The figure of a claim at growing sizes, where it has been drawn."""
    file = ledger.shown_figures(DOCS / "verdicts", slug, experiment) / f"{name}.svg"
    return Markup(figure(file)) if file.exists() else ""


def markup(html: str) -> str:
    """HTML in the middle of Markdown: without empty lines, which would end it."""
    return "\n".join(line for line in html.splitlines() if line.strip())


def verdict(name: str | None) -> str:
    return f'<span class="verdict {(name or "none").replace(" ", "")}">{name or "not run"}</span>'


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def benchmarks_page() -> str:
    """A table of each comparison, for each device that it was measured on."""
    lines = ["# Benchmarks", "", (DOCS / "benchmarks" / "about.txt").read_text().strip(), ""]
    for device, title in (("cpu", "On a CPU"), ("gpu", "On a GPU")):
        files = sorted((DOCS / "benchmarks").glob(f"*.{device}.json"))
        if not files:
            continue
        lines += [f"## {title}", ""]
        for file in files:
            name = file.name.split(".")[0]
            lines += comparison_table(name, json.loads(file.read_text()))
            for path, one in cost_curves()[file.stem].items():
                lines += [f"![{one.caption}]({path})", "", f"*{one.caption}*", ""]
    return "\n".join(lines)


@cache
def cost_curves() -> dict[str, dict[str, curves.Curve]]:
    """Of each comparison's file, the path of a picture -> its curve of cost."""
    return {
        file.stem: {f"benchmarks/{file.stem}.{k}.svg": one for k, one in enumerate(curves.curves(json.loads(file.read_text())))}
        for file in sorted((DOCS / "benchmarks").glob("*.json"))
    }


def comparison_table(name: str, data: dict[str, Any]) -> list[str]:
    """One comparison: a row for each case and side."""
    lines = [f"### {data['title']}", "", data["text"], "", f"`make bench ONLY={name}`", ""]
    shown = data.get("shown", {})
    titles = ["case", "program", "seconds", "against ours", "set-up and first run, s", "peak memory, MB", *shown.values()]
    lines += [f"| {' | '.join(titles)} |", f"| --- | --- |{' ---: |' * (len(titles) - 2)}"]
    versions: dict[str, str] = {}
    for case, found in data["cases"].items():
        for k, (side, row) in enumerate(found["sides"].items()):
            label = "" if k else f"**{case}**"
            if "median" not in row:
                lines.append(f"| {label} | {side} | {cell(row['failed'].rsplit('Error: ', 1)[-1])} |{' |' * (len(titles) - 3)}")
                continue
            versions |= row["versions"]
            took = spread({"median": row["median"], "low": min(row["seconds"]), "high": max(row["seconds"])}, ".4g")
            against = spread(row["ratio"], ".2f") if "ratio" in row else ""
            start = f"{row['setup']:.1f} + {row['first']:.2f}"
            values = [reading.number(row["values"].get(name)) for name in shown]
            columns = [label, side, took, against, start, f"{row['peak_mb']:.0f}", *values]
            lines.append(f"| {' | '.join(columns)} |")
        lines += [f"| {case} | | disagrees: {cell(line)} |{' |' * (len(titles) - 3)}" for line in found["disagreements"]]
    machine = data["machine"]
    used = ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
    where = f"{machine.get('gpu') or machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}"
    return [*lines, "", f"Medians and ranges of {data['runs']} runs in turn. {where}; {used}.", ""]


def spread(values: dict[str, float], style: str) -> str:
    return f"{values['median']:{style}} ({values['low']:{style}} to {values['high']:{style}})"


def commands_page() -> str:
    """The commands, from their own help."""
    import click
    import typer

    from broadsheet.cli.app import app

    lines = ["# Commands", "", (DOCS / "guide" / "commands.txt").read_text().strip(), ""]

    def describe(command: click.Command, path: str, level: int) -> None:
        context = click.Context(command, info_name=path)
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                describe(inner, f"{path} {name}", level)
            return
        lines.extend([f"{'#' * level} {path}", "", re.sub(r"\s+", " ", command.help or ""), ""])
        rows = [record for p in command.get_params(context) if (record := p.get_help_record(context)) and p.name != "help"]
        usage = " ".join(command.collect_usage_pieces(context))
        lines.extend(["```text", f"{path} {usage}", "```", ""])
        if rows:
            lines.extend(["| | |", "| --- | --- |", *(f"| `{cell(flag)}` | {cell(text)} |" for flag, text in rows), ""])

    describe(typer.main.get_command(app), "broadsheet", 2)
    return "\n".join(lines)
