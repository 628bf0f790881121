"""Tracked particles, cells that pull on what they lie on, and charmonium on the nucleon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broadsheet.cli.matter_forces import forces
from broadsheet.cli.matter_photoproduction import photoproduction
from broadsheet.cli.output import console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command("msd")
def msd(
    tracks: Annotated[
        Path,
        typer.Argument(
            metavar="TRACKS.csv",
            help="A table with columns frame (or t), particle (or id, track), x, y and perhaps z, or TrackMate's; a unit may "
            "stand in brackets behind a name.",
        ),
    ],
    dt: Annotated[
        float | None,
        typer.Option(min=0, help="Time of one frame; by default what a column t beside the frames says, else 1."),
    ] = None,
    scale: Annotated[float, typer.Option(min=0, help="Length of one unit of the file.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Mean squared displacement, local exponent and late diffusion constant of tracked particles in 2 or 3 dimensions."""
    import numpy as np

    from broadsheet.matter.observables import lags_seen
    from broadsheet.matter.observables import msd as displacement
    from broadsheet.matter.tracks import track_file

    if dt == 0 or not scale:
        raise InputError("--dt and --scale are positive numbers.")
    found = track_file(tracks)
    positions = scale * found.positions
    longest = len(positions) - 1
    if longest < 2:
        raise InputError(f"{tracks} has {longest + 1} frames; at least 3 are wanted.")
    known = lags_seen(positions)
    if len(known) < 2:
        raise InputError(f"{tracks} has no particle that is seen at two lags or more; at least two are wanted.")
    wanted = np.round(np.geomspace(1, max(2, longest // 2), 20)).astype(int)
    lags = known[np.unique(np.minimum(np.searchsorted(known, wanted), len(known) - 1))]
    values = displacement(positions, lags.tolist())
    times = lags * found.step * (dt or found.interval or 1.0)
    exponent = np.gradient(np.log(np.maximum(values, 1e-300)), np.log(lags)) if len(lags) > 1 else np.full(len(lags), np.nan)
    late, dim = len(lags) // 2, positions.shape[-1]
    diffusion = float((values[-1] - values[late - 1]) / (times[-1] - times[late - 1]) / (2 * dim)) if late else float("nan")
    notes = list(found.notes)
    if dt and found.interval and abs(dt / found.interval - 1) > 1e-3:
        notes.append(f"a frame takes {found.interval:g} by the times in the file; --dt {dt:g} counts")
    units = {"length": found.length_unit, "time": found.time_unit} if scale == 1 else {"time": found.time_unit}
    if as_json:
        sizes = {"particles": positions.shape[1], "frames": len(positions), "dimensions": dim}
        curve = {"lag": times.tolist(), "msd": values.tolist(), "exponent": exponent.tolist()}
        print_json({**sizes, "units": units, "notes": notes, **curve, "late_diffusion": diffusion})
        return
    rows = [(number(time), number(value), number(e)) for time, value, e in zip(times, values, exponent, strict=True)]
    right = {"justify": "right"}
    columns = [("lag", right), ("MSD", right), ("exponent", right)]
    title = f"{positions.shape[1]} particles, {len(positions)} frames"
    console().print(table(columns, rows, title))
    for note in notes:
        print(f"{note[0].upper()}{note[1:]}.")
    print(f"Late diffusion constant (slope / {2 * dim}): {number(diffusion)}")


app.command("forces")(forces)
app.command("photoproduction")(photoproduction)
