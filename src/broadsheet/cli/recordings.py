"""Recordings of neurons and behaviour: the group, what its verbs have in common, and what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson

if TYPE_CHECKING:
    from broadsheet.recordings import Session
    from broadsheet.recordings.description import Description

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Recording = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="An NWB 2 file, .npz or .csv; or dandi://DANDISET/PATH.nwb or the address of an NWB file, streamed.",
    ),
]
Target = Annotated[str, typer.Option("--target", metavar="TRACE", help="The trace: its name, or a part that only one has.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]


@app.callback()
def _group() -> None:
    pass


def describe(
    recording: Recording,
    out: Findings = None,
    mend: Annotated[
        Path | None,
        typer.Option(
            metavar="COPY.nwb",
            help="Write a copy with spikes in order, without those that come twice or lie outside what was observed, and "
            "without trials of no length; it is described in place of the file.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is in a recording: units with their rates, traces with their steps and missing shares, trials and other tables, and
    what the reader does not use.

    What looks like a mistake (times in ms, units that hardly fire, gaps) is said below. The figure is a raster with the
    behaviour beneath.
    """
    from broadsheet.recordings import open_session, write_nwb
    from broadsheet.recordings.description import describe_session

    check_findings(out)
    if mend is not None:
        with open_session(recording, mend=True) as session:
            recording = str(write_nwb(session, mend))
    with open_session(recording) as session:
        with bar("describing") as tick:
            found = describe_session(session, tick)
        report = write_findings(out, found.as_json(), lambda: _figure(session, found))
    if as_json:
        print_json(report)
        return
    _print(found)
    if out is not None:
        print(f"Written to {report['findings']}, the figure to {report['figure']}.")


def _print(found: Description) -> None:
    right: dict[str, Any] = {"justify": "right"}
    print(f"{found.name}: {found.summary()}")
    for key, value in found.about.items():
        print(f"  {key}: {value[:100]}")
    if found.units:
        shown = sorted(found.units, key=lambda unit: -unit.rate)
        rows: list[Any] = [(u.name, u.spikes, number(u.rate), number(u.observed), u.note) for u in shown[:12]]
        more = f" (the 12 that fire most of {len(shown)})" if len(shown) > 12 else ""
        columns: list[Any] = ["unit", *((each, right) for each in ("spikes", "rate (1/s)", "observed (s)")), ""]
        console().print(table(columns, rows, f"Units{more}"))
    if found.traces:
        columns = [
            "traces",
            ("channels", right),
            "unit",
            ("dt (s)", right),
            ("from (s)", right),
            ("to (s)", right),
            ("missing", right),
        ]
        rows = [
            (t.name, t.channels, t.unit, number(t.dt), number(t.start), number(t.stop), share(t.missing)) for t in found.traces
        ]
        console().print(table(columns, rows, "Traces"))
    for tab in found.tables:
        print(f"{tab.name}: {tab.rows} from {number(tab.start)} to {number(tab.stop)} s, {number(tab.median)} s long (median)")
        for name, what in tab.columns.items():
            print(f"  {name}: {what}")
    for place, why in found.unused.items():
        print(f"Not used: {place}, {why}.")
    for warning in found.warnings:
        print(f"Look: {warning}")


def share(missing: float | None) -> str:
    """A share in percent; a dash where it was not counted."""
    return "–" if missing is None else f"{missing:.2%}"


def _figure(session: Session, found: Description) -> Any:
    """A raster, or the cells' traces as an image, with up to three traces of behaviour beneath."""
    from broadsheet.lab.plots import COLOURS, figure, label
    from broadsheet.recordings.pictures import draw_cells, draw_raster

    cells = [row for row in found.traces if row.kind == "RoiResponseSeries"]
    behaviour = [row for row in found.traces if row.kind != "RoiResponseSeries" and row.channels <= 3 and row.samples > 1][:3]
    rows = max(1, (1 if found.units or cells else 0) + len(behaviour))
    fig, axes = figure(1, rows, width=9.0, height=2.2 if rows > 1 else 3.0)
    axes = list(axes) if rows > 1 else [axes]
    start, stop = window(found, cells + behaviour)
    if found.units and session.spikes is not None:
        axis = axes.pop(0)
        known = session.spikes.choose([unit.name for unit in found.units])
        stop = draw_raster(axis, known, start, stop)
        grey = "" if known.observed is None else "; grey: not observed"
        label(axis, "time (s)", "unit", f"{len(known)} units, those that fire most on top{grey}")
    elif cells:
        axis = axes.pop(0)
        image = draw_cells(axis, session.traces[cells[0].name], start, stop)
        fig.colorbar(image, ax=axis, label="standard deviations")
        label(axis, "time (s)", "cell", cells[0].name)
    for axis, row in zip(axes, behaviour, strict=False):
        part = session.traces[row.name].between(start, stop)
        for channel, colour in zip(range(row.channels), COLOURS, strict=False):
            axis.plot(part.times, part.values[:, channel], color=colour, linewidth=0.8, label=part.names[channel])
        axis.set_xlim(start, stop)
        label(axis, "time (s)", row.unit or "value", row.name, legend=row.channels > 1)
    return fig


def window(found: Description, rows: list[Any], longest: float = 60.0) -> tuple[float, float]:
    """The stretch that is drawn: a minute from when all that is drawn has begun."""
    starts = [row.start for row in rows] + ([found.start] if found.units else [])
    stops = [row.stop for row in rows] + ([found.stop] if found.units else [])
    start = max(starts, default=0.0)
    stop = min([*stops, start + longest], default=start + 1.0)
    return (start, stop) if stop > start else (min(starts), max(stops))
