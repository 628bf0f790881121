"""The verb that takes evaluation prompts out of training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.language.decontamination import Evaluations, Row, Tally

TOGETHER = 4096
"""Rows that are kept as one part: what is lost at most by an interruption."""
MATCHES = 10_000
"""Matches that a report names; it counts all."""


def decontaminate(
    train: Annotated[
        list[str], typer.Argument(metavar="TRAIN", help="A file, folder or Hub name of training rows; or several.")
    ],
    against: Annotated[
        list[str],
        typer.Option(
            metavar="EVAL", help="Prompts of an evaluation, likewise; again for more. EVAL:COLUMN,… names its columns."
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN,…", help="Columns of the training rows with prompts: texts, or messages, of which the user's count."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Tokens of an n-gram.")] = 8,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="A prompt is matched where more than this share of it is found.")
    ] = 0.5,
    tolerate: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Keep what matches an evaluation of which no more than this share is matched (the paper: 0.02)."
        ),
    ] = 0.0,
    split: Annotated[str, typer.Option(help="Of training rows from a folder or the Hub.")] = "train",
    eval_split: Annotated[str, typer.Option("--eval-split", help="Of evaluations from a folder or the Hub.")] = "test",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the clean rows go: .jsonl, .csv, .tsv or .parquet.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.json", help="Where the findings go; a figure goes beside them (.png)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find training prompts that contain evaluation prompts, and leave them out.

    Rows are read one by one from .jsonl, .csv, .tsv and .parquet files, folders of the package datasets and the Hub; of the
    latter two NAME@CONFIGURATION/SPLIT says which. Interrupted, the same command goes on where it was.
    """
    from broadsheet.cache import unfinished
    from broadsheet.language.decontamination import Report
    from broadsheet.language.rows import check_written

    check_findings(report)
    if out is not None:
        check_written(out)
        if len(train) > 1:
            raise InputError(f"--out {out}: clean rows of one training set are written; {len(train)} are named.")
    chosen = columns.split(",") if columns else None
    sets, asked = [Source.of(name, split, chosen) for name in train], [Source.of(name, eval_split) for name in against]
    for names in (train, against):
        if len(set(names)) < len(names):
            raise InputError(f"{max(names, key=names.count)} is named twice.")
    known = _evaluations(asked, n)
    made, pairs, kept = Report(n, threshold, tolerate), 0, None
    for source in sets:
        work = {"train": source.identity, "against": [each.identity for each in asked], "n": n, "threshold": threshold}
        with unfinished("decontaminate", work) as folder:
            tally = _searched(source, known, threshold, folder)
            gone = tally.removed(tolerate)
            if out is not None:
                kept = _write_clean(source, out, set(gone.tolist()))
        made.add(tally, gone)
        pairs += tally.pairs
    found = made.to_dict()
    found |= {"matches_counted": pairs, "removed": {name: len(some) for name, some in made.removed.items()}}
    found |= {} if out is None else {"clean": str(out), "kept": kept}
    found = write_findings(report, found, lambda: _figure(made.rows))
    if as_json:
        print_json(found)
        return
    _show(made.rows, found)


@dataclass(frozen=True)
class Source:
    """Where rows are read: a file, a folder or a name on the Hub with its configuration; the columns with prompts, if named."""

    name: str
    place: str
    split: str
    configuration: str | None = None
    columns: tuple[str, ...] | None = None

    @classmethod
    def of(cls, text: str, split: str, columns: Sequence[str] | None = None) -> Source:
        """From what the user wrote: PLACE, PLACE@CONFIGURATION or PLACE@CONFIGURATION/SPLIT, and behind it maybe :COLUMN,…"""
        place, configuration = text, ""
        if not Path(text).exists():
            head, colon, tail = text.rpartition(":")
            if colon and "/" not in tail and "\\" not in tail and len(head) > 1:
                place, columns = head, tail.split(",")
            if not Path(place).exists():
                place, _, which = place.partition("@")
                configuration, _, named = which.partition("/")
                split = named or split
        return cls(text, place, split, configuration or None, tuple(columns) if columns else None)

    def rows(self) -> Iterator[dict[str, Any]]:
        from broadsheet.language.rows import read_rows

        return read_rows(self.place, self.split, self.configuration)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from another, or from what was there before."""
        path = Path(self.place)
        files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
        return asdict(self) | {"files": [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]}


def _evaluations(sources: Sequence[Source], n: int) -> Evaluations:
    """The index of all prompts; rows with a null in a named column are left out and said so."""
    from broadsheet.language.decontamination import Evaluations, turns_of

    def prompts(source: Source) -> Iterator[list[str]]:
        left = 0
        for k, row in enumerate(source.rows()):
            if any(row.get(name, "") is None for name in source.columns or ()):
                left += 1
            else:
                yield turns_of(row, f"{source.name}, row {k},", source.columns)
        if left:
            typer.echo(f"{source.name}: {left} without a text: left out.", err=True)

    return Evaluations({source.name: prompts(source) for source in sources}, n)


def _searched(source: Source, evaluations: Evaluations, threshold: float, folder: Path) -> Tally:
    """What the training set has of the evaluations; what an earlier run left in the folder is not looked for again."""
    import numpy as np

    from broadsheet.cache import writing
    from broadsheet.language.decontamination import Tally, turns_of
    from broadsheet.language.ngram_index import Overlaps
    from broadsheet.language.rows import count_rows

    tally, rows, whole = Tally(evaluations, source.name, MATCHES), source.rows(), count_rows(source.place, source.split)
    begin = passed = 0
    with bar(f"decontaminate {source.name}") as tell:
        for part in count():
            file = folder / f"{part}.npz"
            if file.is_file():
                with np.load(file) as kept:
                    found, size = Overlaps(kept["items"], kept["prompts"], kept["overlaps"]), int(kept["size"])
            else:
                some = list(islice(rows, begin - passed, begin - passed + TOGETHER))
                size, passed = len(some), begin + len(some)
                turns = (turns_of(row, f"{source.name}, row {begin + k},", source.columns) for k, row in enumerate(some))
                found = Overlaps.joined([each.above(threshold) for each in evaluations.index.search(turns)])
                found = found._replace(items=found.items + begin)
                with writing(file) as stream:
                    np.savez(stream, size=size, **found._asdict())
            tally.add(found)
            begin += size
            tell(min(1.0, begin / whole) if whole else 0.0, f"{begin} rows")
            if size < TOGETHER:
                return tally
    raise AssertionError("the parts have no end")


def _write_clean(source: Source, out: Path, gone: set[int]) -> int:
    """The rows that stay, lines of JSON as they are; how many."""
    from broadsheet.cache import writing
    from broadsheet.language.rows import kind_of, read_lines, write_rows

    kind = kind_of(source.place)
    if kind == "lines" and out.suffix == ".jsonl":
        kept = 0
        with writing(out) as stream:
            for number, (_, line) in enumerate(read_lines(Path(source.place).expanduser())):
                if number not in gone:
                    stream.write(line.rstrip("\r\n").encode() + b"\n")
                    kept += 1
        return kept
    rows = (row for number, row in enumerate(source.rows()) if number not in gone)
    return write_rows(out, rows, Path(source.place).expanduser() if kind == "parquet" and out.suffix == ".parquet" else None)


def _show(rows: Sequence[Row], found: dict[str, Any]) -> None:
    right = {"justify": "right"}
    several = len(found["removed"]) > 1
    columns: list[str | tuple[str, dict[str, Any]]] = [
        *(["training set"] if several else []), "evaluation", ("prompts", right), ("too short", right), ("matched", right),
        ("%", right), ("rows that match", right),
    ]  # fmt: skip
    cells = [
        (
            *([row.train] if several else []),
            row.evaluation,
            row.prompts,
            row.short,
            row.contaminated,
            number(row.percent),
            row.items,
        )
        for row in rows
    ]
    console().print(table(columns, cells, f"{found['n']}-grams, more than {found['threshold']:g} of a prompt"))
    over = sorted({row.evaluation for row in rows if row.over_rule})
    print(f"More than 2 % matched: {', '.join(over) or 'none'}.")
    if "clean" in found:
        print(f"{found['clean']}: {found['kept']} rows, without {sum(found['removed'].values())} that match.")


def _figure(rows: Sequence[Row]) -> Any:
    """Bars of contaminated prompts, one an evaluation and training set, with the rule's 2 %."""
    import numpy as np

    from broadsheet.lab.plots import CONTROL_COLOUR, figure, label

    names, sets = list(dict.fromkeys(row.evaluation for row in rows)), list(dict.fromkeys(row.train for row in rows))
    fig, axis = figure(width=6.5, height=1.4 + 0.3 * len(rows))
    places = np.arange(len(names))
    for k, train in enumerate(sets):
        values = [row.percent for row in rows if row.train == train]
        axis.barh(places + 0.8 * (k + 0.5) / len(sets) - 0.4, values, 0.75 / len(sets), label=train)
    axis.axvline(2, color=CONTROL_COLOUR, linestyle="--", label="2 %, the paper's rule")
    axis.set_yticks(places, [name if len(name) <= 40 else "…" + name[-39:] for name in names])
    axis.invert_yaxis()
    axis.set_xlim(0, max(2.5, 1.05 * max(row.percent for row in rows)))
    label(axis, "prompts matched (%)", "evaluation", legend=False)
    fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return fig
