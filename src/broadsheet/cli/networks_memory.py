"""A dense associative memory on patterns of a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError


def memory(
    patterns: Annotated[
        Path, typer.Argument(metavar="PATTERNS", help="Patterns, one a row, of -1 and 1 or of 0 and 1: .csv, .npy or .npz.")
    ],
    order: Annotated[int, typer.Option(help="Neurons that a coupling joins; 2 is the classical network.")] = 4,
    flips: Annotated[str, typer.Option(help="Shares of entries flipped in the cues.")] = "0,0.05,0.1,0.2",
    cues: Annotated[int, typer.Option(min=1, help="Patterns that are cued at most.")] = 100,
    ask: Annotated[Path | None, typer.Option(metavar="CUES", help="Cues of your own, in the patterns' form.")] = None,
    table_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Where what is recalled from --ask goes, a row a cue.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Thermal noise T' = P! / (2 beta).")] = 0.0,
    sweeps: Annotated[int, typer.Option(min=1, help="Sweeps over all neurons, at most.")] = 50,
    out: Findings = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Store patterns in a dense Hebbian memory, recall them from corrupted cues, and set its load beside theory.

    Beside it: a pairwise network on the same neurons, pairwise networks of as many numbers in all, and a search for the nearest
    stored pattern. Theory, and the capacity that is measured where it is small enough, are for random patterns: how like each
    other yours are is said. With --out the findings go to a JSON file, and to a figure beside it. A run that was interrupted
    goes on where it was.
    """
    import numpy as np

    from broadsheet.cache import checksum, unfinished, write_atomic
    from broadsheet.networks.pattern_memory import (
        answers,
        check_patterns,
        likeness,
        measure_capacity,
        read_patterns,
        recall_table,
    )

    check_findings(out)
    shares = _shares(flips)
    stored = read_patterns(patterns)
    check_patterns(patterns, stored, order)
    asked = None if ask is None else read_patterns(ask, neurons=stored.shape[1])
    if table_file is not None and asked is None:
        raise InputError("--csv is for what is recalled from cues of your own; name them with --ask.")
    options: dict[str, Any] = {"temperature": temperature, "sweeps": sweeps, "key": seed}
    work = {"patterns": checksum(patterns), "order": order, "flips": shares, "cues": cues, **options}
    with unfinished("memory", work) as folder, bar(f"{len(stored)} patterns, {stored.shape[1]} neurons") as show:
        rows = _kept(
            folder / "recall.json",
            lambda: [row._asdict() for row in recall_table(stored, order, flipped=shares, cues=cues, **options)],
        )
        show(0.5, "capacity")
        capacity = _kept(
            folder / "capacity.json", lambda: measure_capacity(len(stored), stored.shape[1], order, **options)._asdict()
        )
    result: dict[str, Any] = {
        "patterns": len(stored), "neurons": stored.shape[1], "order": order, "likeness": likeness(stored), "recall": rows,
        "capacity": capacity,
    }  # fmt: skip
    if asked is not None:
        found, best, overlap = answers(stored, asked, order, **options)
        result["asked"] = [{"row": int(row) + 1, "overlap": float(m)} for row, m in zip(best, overlap, strict=True)]
        if table_file is not None:
            write_atomic(table_file, "".join(",".join(f"{spin:.0f}" for spin in row) + "\n" for row in np.asarray(found)))
            result["table"] = str(table_file)
    result = write_findings(out, result, lambda: _figure(result))
    if as_json:
        print_json(result)
        return
    _print(result)


def _shares(flips: str) -> list[float]:
    try:
        shares = [float(each) for each in flips.split(",")]
    except ValueError:
        raise InputError(f"--flips {flips!r}: numbers with commas between are wanted.") from None
    if not all(0 <= each <= 0.5 for each in shares):
        raise InputError(f"--flips {flips!r}: shares from 0 to 0.5 are wanted.")
    return shares


def _kept(path: Path, work: Any) -> Any:
    """What an interrupted run had found already, or is found now."""
    import json

    from broadsheet.cache import write_atomic

    if path.is_file():
        return json.loads(path.read_text())
    found = work()
    write_atomic(path, json.dumps(found))
    return found


def _print(result: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    cells = [
        (row["memory"], f"{row['flipped']:.0%}", number(row["overlap"]), f"{row['exact']:.0%}") for row in result["recall"]
    ]
    columns: list[Any] = ["memory", ("flipped", right), ("mean overlap", right), ("exact", right)]
    console().print(table(columns, cells, f"{result['patterns']} patterns on {result['neurons']} neurons"))
    capacity, alike = result["capacity"], result["likeness"]
    print(
        f"Load {number(capacity['load'])} of at most {number(capacity['limit'])} for random patterns in theory, which is "
        f"{number(capacity['most'])} patterns; overlap {number(capacity['predicted'])} at yours, for many neurons."
    )
    print(f"Two patterns overlap by {number(alike['largest_overlap'])} at most; their mean entry is {number(alike['mean'])}.")
    for count, m, theory in zip(capacity["counts"], capacity["measured"], capacity["theory"], strict=True):
        print(f"  {count} random patterns: overlap {number(m)}, in theory {number(theory)}")
    for k, each in enumerate(result.get("asked", ()), start=1):
        print(f"Cue {k}: row {each['row']}, overlap {number(each['overlap'])}")
    for name in ("findings", "figure", "table"):
        if name in result:
            print(f"Written to {result[name]}.")


def _figure(result: dict[str, Any]) -> Any:
    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, (left, right) = figure(2)
    names = list(dict.fromkeys(row["memory"] for row in result["recall"]))
    for name, colour in zip(names, (SYSTEM_COLOUR, "#c2571a", "#b8860b", CONTROL_COLOUR), strict=False):
        rows = [row for row in result["recall"] if row["memory"] == name]
        left.plot([row["flipped"] for row in rows], [row["overlap"] for row in rows], "o-", ms=4, color=colour, label=name)
    left.set_ylim(-0.05, 1.05)
    label(left, "share of entries flipped in the cue", "mean overlap with the pattern")
    capacity = result["capacity"]
    if capacity["counts"]:
        right.plot(capacity["counts"], capacity["measured"], "o", color=SYSTEM_COLOUR, label="random patterns, measured")
        right.plot(capacity["counts"], capacity["theory"], color="black", label="theory, many neurons")
    right.axvline(result["patterns"], color="#c2571a", lw=0.8, ls="--", label="your patterns")
    right.axvline(capacity["most"], color="black", lw=0.8, ls=":", label="capacity in theory")
    right.set_ylim(-0.05, 1.05)
    label(right, "patterns", "overlap, begun on the pattern")
    return fig
