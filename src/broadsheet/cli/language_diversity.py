"""The verb that measures how many different things a model's answers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.language.diversity.responses import Group

AT_ONCE = 32
"""Prompts whose pairs are classified together, and kept where the work is interrupted."""


def diversity(
    responses: Annotated[
        Path, typer.Argument(metavar="RESPONSES.jsonl", help="A row an answer: prompt, response; JSON lines, CSV or Parquet.")
    ],
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Answers with the same value in this column are the same.")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A classifier of pairs, a folder or a name on the Hub, says which are.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Probability above which two answers are the same.")] = 0.5,
    short_rule: Annotated[
        bool, typer.Option(help="Answers of five words or fewer are the same where they share half of them.")
    ] = True,
    ngrams: Annotated[int, typer.Option(min=1, help="Words of the n-grams of the wording.")] = 4,
    ks: Annotated[str | None, typer.Option("--k", metavar="A,B,C", help="Numbers of draws; by default 1, 2, 4, … .")] = None,
    correct: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Whether an answer is right; by default `correct`, where it is there.")
    ] = None,
    prompt: Annotated[str, typer.Option(metavar="COLUMN", help="The column of the prompts.")] = "prompt",
    response: Annotated[str, typer.Option(metavar="COLUMN", help="The column of the answers.")] = "response",
    device: Device = "cpu",
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """distinct@k, classes and, where it is known which answers are right, pass@k of a model's answers to prompts.

    Answers are put into classes by a key column or a classifier of pairs; without either, equal texts are the same. The share
    of n-grams that no other answer has, the diversity of wording, is told in any case. Interrupted, the same command goes on.
    """
    import itertools

    import numpy as np

    from broadsheet.language.diversity.ngrams import NGramDiversity
    from broadsheet.language.diversity.partitions import numbered
    from broadsheet.language.diversity.responses import grouped, measured
    from broadsheet.language.rows import read_rows

    check_findings(out)
    if key and classifier:
        raise InputError("--key and --classifier both say which answers are the same; one of them is wanted.")
    rows = read_rows(responses)
    first = list(itertools.islice(rows, 1))
    right = correct or ("correct" if first and "correct" in first[0] else None)
    groups = grouped(
        itertools.chain(first, rows), str(responses), prompt=prompt, response=response, key=key, correct=right
    )  # fmt: skip
    chosen = _ks(ks, max(len(group.texts) for group in groups))
    measured(groups, [[0] * len(group.texts) for group in groups], chosen)  # a wrong k is told before the work
    if classifier:
        classes = _classified(groups, classifier, threshold, short_rule, device)
    else:
        classes = [numbered(group.keys if key else group.texts) for group in groups]
    wording = float(np.mean([NGramDiversity(ngrams).scores(group.texts).mean() for group in groups]))
    by = f"column {key}" if key else f"classifier {classifier}" if classifier else "equal texts"
    findings: dict[str, Any] = {"responses_file": str(responses), "by": by, **measured(groups, classes, chosen)}
    findings |= {"ngrams": {"n": ngrams, "own": wording}} | ({"threshold": threshold} if classifier else {})
    findings["groups"] = [
        {"prompt": group.prompt, "classes": list(ids)} for group, ids in zip(groups, classes, strict=True)
    ]  # fmt: skip
    findings = write_findings(out, findings, lambda: _picture(findings))
    if as_json:
        print_json(findings)
        return
    names = [name for name in ("distinct", "pass", "distinct_correct") if name in findings]
    titles = {"distinct": "distinct@k", "pass": "pass@k", "distinct_correct": "distinct right@k"}
    lines = [[k, findings["prompts_at"][k], *(number(findings[name][k]) for name in names)] for k in findings["distinct"]]
    console().print(table(["k", "prompts", *(titles[name] for name in names)], lines))
    count, own = number(findings["classes"]), number(wording)
    print(f"{findings['responses']} answers to {findings['prompts']} prompts, the same by {by}: {count} classes a prompt.")
    print(
        f"{number(findings['diversity'])} of the other answers say something else; {own} of the {ngrams}-grams have one owner."
    )
    if out is not None:
        print(f"Written to {findings['findings']} and {findings['figure']}.")


def _ks(text: str | None, most: int) -> list[int]:
    """The numbers of draws that are asked for, or powers of two and the largest."""
    if text is None:
        return sorted({2**n for n in range(most.bit_length()) if 2**n <= most} | {most})
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"--k {text!r}: whole numbers, separated by commas, are wanted.")
    return sorted({int(part) for part in parts})


def _classified(
    groups: list[Group], name: str, threshold: float, short_rule: bool, device: str
) -> list[list[int]]:  # fmt: skip
    """Classes by a classifier, some prompts at a time; what is done is kept until all is."""
    from broadsheet.cache import digest, unfinished, write_atomic
    from broadsheet.language.diversity.classifier import ClassifierPartitioner
    from broadsheet.language.models import model_identity

    partitioner = ClassifierPartitioner.load(name, device=device, threshold=threshold, short_rule=short_rule)
    texts = [group.texts for group in groups]
    work = {"model": model_identity(name), "threshold": threshold, "short_rule": short_rule, "texts": digest(texts)}
    found: list[list[int]] = []
    with unfinished("diversity", work) as folder, bar("diversity") as tell:
        for start in range(0, len(texts), AT_ONCE):
            file = folder / f"{start}.json"
            found += _kept(file, lambda start=start: partitioner.partition_groups(texts[start : start + AT_ONCE]), write_atomic)
            tell(min(1.0, (start + AT_ONCE) / len(texts)), "")
    return found


def _kept(file: Path, make: Callable[[], list[list[int]]], write: Callable[[Path, str], Any]) -> list[list[int]]:
    """Classes from the file of an unfinished work, or made now and kept there."""
    if not file.is_file():
        write(file, json.dumps(make()))
    return json.loads(file.read_text())


def _picture(findings: dict[str, Any]) -> Any:
    """What k draws are expected to show, and how many classes the prompts have."""
    from collections import Counter

    from matplotlib.ticker import MaxNLocator

    from broadsheet.lab.plots import COLOURS, SYSTEM_COLOUR, figure, label

    fig, axes = figure(3 if "pass" in findings else 2, width=3.6)
    left, right = axes[0], axes[-1]
    k = [int(one) for one in findings["distinct"]]
    shown = (("distinct", "distinct", SYSTEM_COLOUR), ("distinct_correct", "distinct right", COLOURS[2]))
    for name, said, colour in shown:
        if name in findings:
            left.plot(k, list(findings[name].values()), "o-", color=colour, label=said)
    label(left, "answers drawn (k)", "different meanings among them")
    if "pass" in findings:
        axes[1].plot(k, list(findings["pass"].values()), "o-", color=SYSTEM_COLOUR)
        axes[1].set_ylim(0, 1.05)
        label(axes[1], "answers drawn (k)", "pass@k", legend=False)
    counts = Counter(len(set(group["classes"])) for group in findings["groups"])
    right.bar(list(counts), list(counts.values()), color=SYSTEM_COLOUR)
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    label(right, "classes of a prompt's answers", "prompts", legend=False)
    return fig
