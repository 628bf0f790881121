"""Trajectories of a population from snapshots at several times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

Family = Literal["brownian", "linear", "gradient", "lotka-volterra", "repressilator", "vortex", "lamb-oseen"]


def trajectories(
    cells: Annotated[
        Path, typer.Argument(metavar="CELLS", help="A row a cell: .h5ad, .csv, .tsv, .npz, or snapshots in one .npy.")
    ],
    time: Annotated[
        str | None, typer.Option(help="What holds each cell's time: a column of obs or of the table, or an array; numbers.")
    ] = None,
    basis: Annotated[
        str | None, typer.Option(help="Where cells are: an entry of obsm, by default X_pca, or an array of the .npz.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Columns of the basis that are used; by default the first 5 of more.")
    ] = None,
    family: Annotated[Family, typer.Option(help="Laws of motion from which one is learnt beside the bridges.")] = "linear",
    sigma: Annotated[
        float | None,
        typer.Option(help="Volatility, known; by default a tenth of the cells' spread over the root of the median interval."),
    ] = None,
    outer: Annotated[int, typer.Option(min=1, help="Turns of bridging and refitting.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of time between the two nearest snapshots.")] = 20,
    group: Annotated[
        int | None, typer.Option(min=2, help="Cells that share a plan; by default 2000, and all where snapshots are smaller.")
    ] = 2000,
    hold_out: Annotated[
        list[float] | None,
        typer.Option(help="A time to be left out and predicted; again for more; by default every second."),
    ] = None,
    to: Annotated[Path, typer.Option(help="Where trajectories go: .h5ad, .npz or .csv.")] = Path("trajectories.h5ad"),
    out: Findings = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the paths.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Bridge snapshots of cells in time, learn a law of motion, and see how well times that were left out are predicted.

    Held-out times are predicted from the others first: printed is the earth mover's distance of the predicted cells to the real
    ones, beside that of Brownian bridges, of splines through matched cells, of the snapshots before and after, and of the real
    cells' two halves, below which nothing can be expected. Then all times are bridged, and a trajectory through each cell is
    written, with the learnt drift at each.
    """
    import numpy as np

    from broadsheet.transport.snapshot_files import read_cells, write_trajectories

    check_findings(out)
    if to.suffix not in (".h5ad", ".npz", ".csv"):
        raise InputError(f"--to {to}: trajectories are written as .h5ad, .npz or .csv.")
    read = read_cells(cells, time, basis, dims)
    if dims is None and read.width > 5:
        read = read_cells(cells, time, basis, 5)
    times, counts = np.unique(read.t, return_counts=True)
    if len(times) < 2:
        raise InputError(f"{cells}: all cells are of time {times[0]:g}; two times or more are wanted.")
    if counts.min() < 2:
        raise InputError(f"{cells}: time {times[counts.argmin()]:g} has one cell; two or more a time are wanted.")
    held = np.array(times[1:-1:2] if not hold_out else sorted(set(hold_out)))
    for each in held:
        if each not in times[1:-1]:
            inner = ", ".join(f"{t:g}" for t in times[1:-1]) or "there is none"
            raise InputError(f"--hold-out {each:g}: a time between the first and the last is wanted: {inner}.")
    spread = float(np.sqrt(read.x.var(axis=0).mean()))
    volatility = 0.1 * spread / float(np.sqrt(np.median(np.diff(times)))) if sigma is None else sigma
    if not volatility > 0:
        raise InputError(f"The volatility is {volatility:g}; a number above 0 is wanted.")
    options: dict[str, Any] = {"dt": float(np.diff(times).min()) / steps, "group": group, "random_state": seed}
    with bar(f"{len(read.x)} cells at {len(times)} times") as tick:
        report = _held_out(read, held, family, volatility, outer, options, lambda share, said: tick(0.5 * share, said))
        model = _fitted(read.x, read.t, family, volatility, outer, options, lambda share, said: tick(0.5 + 0.5 * share, said))
    drift = model.predict(read.x, read.t)
    write_trajectories(to, read, time or "time", drift, model.grid_, model.paths_)
    found: dict[str, Any] = {
        "cells": str(cells), "basis": read.basis, "columns": list(read.columns), "columns_of_basis": read.width,
        "times": times.tolist(), "counts": counts.tolist(), "family": family, "sigma": volatility, "held_out": report,
        "misfit": model.misfits_[-1], "params": _numbers(model.params_), "trajectories": str(to), "steps": len(model.grid_),
    }  # fmt: skip
    found = write_findings(out, found, lambda: _figure(read, model))
    if as_json:
        print_json(found)
        return
    right: dict[str, Any] = {"justify": "right"}
    if report:
        names = ("bridged", "brownian", "splines", "before", "after", "halves")
        rows = [(f"{each['time']:g}", *(number(each[name]) for name in names)) for each in report]
        heads: list[Any] = ["time held out", *((name, right) for name in names)]
        console().print(table(heads, rows, f"Distance to the cells of times held out, {family} family"))
    used = f"{len(read.columns)} of {read.width} columns of {read.basis}" if len(read.columns) < read.width else read.basis
    print(f"Used {used}, volatility {volatility:.3g}. Misfit of the paths {found['misfit']:.3g} (1: as the law says).")
    if found["params"]:
        print("Law: " + ", ".join(f"{name} {value:.4g}" for name, value in found["params"].items()) + ".")
    print(f"Written to {to}." if out is None else f"Written to {to}, {found['findings']} and {found['figure']}.")


def _fitted(x: Any, t: Any, family: str, sigma: float, outer: int, options: dict[str, Any], tick: Any) -> Any:
    import jax

    from broadsheet.transport import SBIRR
    from broadsheet.transport.reference_processes import family as references

    reference = references(family, x.shape[1], sigma, jax.random.key(options["random_state"]))
    model = SBIRR(reference, outer=outer, rate=0.01, batch=1000, **options)
    return model.fit(x, t, report=lambda turn, misfit: tick(turn / outer, f"misfit {misfit:.3g}"))


def _held_out(
    read: Any, held: Any, family: str, sigma: float, outer: int, options: dict[str, Any], tick: Any
) -> list[dict[str, float]]:
    """Distances at times left out, of samples of one size each."""
    import numpy as np

    from broadsheet.transport.trajectory_baselines import spline_paths
    from broadsheet.transport.two_samples import wasserstein1

    if not len(held):
        return []
    kept = ~np.isin(read.t, held)
    x, t = read.x[kept], read.t[kept]
    times = np.unique(t)
    parts = [x[t == each] for each in times]
    model = _fitted(x, t, family, sigma, outer, options, lambda share, said: tick(0.7 * share, said))
    plain = _fitted(x, t, "brownian", sigma, 1, options, lambda share, said: tick(0.7 + 0.2 * share, said))
    curves = spline_paths(parts, times, held)
    rng, rows = np.random.default_rng(options["random_state"]), []
    for k, when in enumerate(held):
        real = rng.permutation(read.x[read.t == when])[:1000]
        first = int(np.searchsorted(times, when)) - 1
        half = len(real) // 2
        places = {
            "bridged": model.interpolate(when), "brownian": plain.interpolate(when), "splines": curves[k],
            "before": parts[first], "after": parts[first + 1], "halves": real[half : 2 * half],
        }  # fmt: skip
        row = {"time": float(when)}
        size = min(half, *map(len, places.values()))
        for name, points in places.items():
            row[name] = wasserstein1(rng.permutation(points)[:size], real[:size])
        rows.append(row)
    return rows


def _numbers(params: Any) -> dict[str, float]:
    """Parameters of a family that has names for them; none for matrices and networks."""
    import numpy as np

    if not isinstance(params, dict):
        return {}
    return {name: float(value) for name, value in params.items() if np.ndim(value) == 0}


def _figure(read: Any, model: Any) -> Any:
    """Cells by time in the first two columns, and trajectories through some of them."""
    import numpy as np

    from broadsheet.lab.plots import figure, label

    fig, axis = figure()
    rng = np.random.default_rng(0)
    shown = rng.permutation(model.paths_.shape[1])[:60]
    second = min(1, read.x.shape[1] - 1)
    axis.plot(model.paths_[:, shown, 0], model.paths_[:, shown, second], color="0.6", lw=0.5)
    some = rng.permutation(len(read.x))[:3000]
    drawn = axis.scatter(read.x[some, 0], read.x[some, second], c=read.t[some], s=4, cmap="viridis")
    fig.colorbar(drawn, ax=axis, label="time")
    label(axis, read.columns[0], read.columns[second], "trajectories", legend=False)
    return fig
