"""Tracked particles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broadsheet.cli.output import console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command("msd")
def msd(
    tracks: Annotated[Path, typer.Argument(metavar="TRACKS.csv", help="Columns frame, particle (or id), x, y.")],
    dt: Annotated[float, typer.Option(min=0, help="Time of one frame.")] = 1.0,
    scale: Annotated[float, typer.Option(min=0, help="Length of one unit of the file.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Mean squared displacement, local exponent and late diffusion constant of tracked particles."""
    import numpy as np

    from broadsheet.matter.observables import msd as displacement
    from broadsheet.matter.tracks import read_tracks

    if not dt or not scale:
        raise InputError("--dt and --scale are positive numbers.")
    positions = scale * read_tracks(tracks)
    longest = len(positions) - 1
    if longest < 2:
        raise InputError(f"{tracks} has {longest + 1} frames; at least 3 are wanted.")
    lags = np.unique(np.round(np.geomspace(1, max(2, longest // 2), 20)).astype(int))
    with np.errstate(invalid="ignore"):
        values = displacement(positions, lags.tolist())
    exponent = np.gradient(np.log(np.maximum(values, 1e-300)), np.log(lags)) if len(lags) > 1 else np.full(len(lags), np.nan)
    late = len(lags) // 2
    diffusion = float((values[-1] - values[late - 1]) / ((lags[-1] - lags[late - 1]) * dt) / 4) if late else float("nan")
    if as_json:
        sizes = {"particles": positions.shape[1], "frames": len(positions)}
        curve = {"lag": (lags * dt).tolist(), "msd": values.tolist(), "exponent": exponent.tolist()}
        print_json({**sizes, **curve, "late_diffusion": diffusion})
        return
    rows = [(number(lag * dt), number(value), number(e)) for lag, value, e in zip(lags, values, exponent, strict=True)]
    right = {"justify": "right"}
    columns = [("lag", right), ("MSD", right), ("exponent", right)]
    console().print(table(columns, rows, f"{positions.shape[1]} particles, {len(positions)} frames"))
    print(f"Late diffusion constant (slope / 4): {number(diffusion)}")
