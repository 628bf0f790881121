"""Which neurons act together, when, and in which animals: on a user's recordings of several animals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError


def connectome(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Recordings with named neurons, one an animal: NWB, .npz or CSV.")
    ],
    rank: Annotated[int, typer.Option(min=1, max=64, help="Components.")] = 5,
    scan: Annotated[
        int, typer.Option(min=0, max=20, help="Fit 1 to so many components as well, and report error and agreement; 0: none.")
    ] = 0,
    kernel: Annotated[
        Literal["geomean", "min", "product"], typer.Option(help="Affinity of two rates of change of one sign.")
    ] = "geomean",
    dt: Annotated[float, typer.Option(min=0, help="Common step, s; 0: the files' median step.")] = 0.0,
    smooth: Annotated[float, typer.Option(min=0, help="Width of the Gaussian over traces, frames.")] = 2.0,
    every: Annotated[int, typer.Option(min=0, help="Frames whose affinities are averaged; 0: as few as memory allows.")] = 0,
    memory: Annotated[float, typer.Option(min=1, help="What the affinities may take, MB.")] = 1000.0,
    starts: Annotated[int, typer.Option(min=1, help="Random starts of the factorisation.")] = 10,
    trace: Annotated[str, typer.Option(help="Which traces of a file, where it has several.")] = "",
    table_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE.csv", help="Where the communities go: a line for each component and neuron."),
    ] = None,
    out: Findings = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Components of pairwise affinity over time and animals, and the communities of neurons in each.

    Neurons are matched by name over the animals; those without a name are left out, and an animal may lack some. Times are
    those of the files: recordings must start together. With --out the findings go to a JSON file, and to a figure beside it:
    the time course of each component, the animals' loadings, and the pairs ordered by community. A run that was interrupted
    goes on where it was.
    """
    import csv
    import io

    from broadsheet.cache import checksum, unfinished, write_atomic
    from broadsheet.recordings.animal_files import read_animals
    from broadsheet.recordings.dynamic_connectome import DynamicConnectome

    check_findings(out)
    for file in files:
        if not file.is_file():
            raise DataError(f"There is no file {file}.")
    recordings = read_animals(files, trace or None)
    atlas = DynamicConnectome(
        rank, kernel=kernel, smooth=smooth, dt=dt or None, every=every or "auto", memory=memory * 1e6, n_starts=starts,
        random_state=seed,
    )  # fmt: skip
    settings = {key: value for key, value in atlas.get_params().items() if not key.startswith("communities")}
    work = {"files": [checksum(file) for file in files], "trace": trace, "scan": scan, **settings}
    with unfinished("connectome", work) as folder, bar(f"{len(files)} animals, {rank} components") as show:
        scanned = _kept(folder / "scan.json", lambda: _scanned(atlas, recordings, scan)) if scan else []
        found = _kept_fit(folder, atlas, recordings, lambda share: show(share, f"{share:.0%}"))
    result: dict[str, Any] = {
        "animals": [str(file) for file in files], "neurons": list(found.names_), "frames": len(found.times_),
        "seconds_a_frame": found.every_ * found.dt_, "error": found.error_, "similarity": found.similarity_,
        "components": [_component(found, k) for k in range(rank)],
    }  # fmt: skip
    if scanned:
        result["scan"] = scanned
    if table_file is not None:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["component", "neuron", "community", "strength"])
        for k, labels in enumerate(found.labels_):
            strength = found.patterns_[k].sum(axis=1)
            for name, community, value in zip(found.names_, labels, strength, strict=True):
                writer.writerow([k + 1, name, community + 1 if community >= 0 else "", f"{value:.6g}"])
        write_atomic(table_file, lines.getvalue())
        result["table"] = str(table_file)
    courses = {"times": found.times_.tolist(), "time": found.time_.T.tolist()} if out else {}
    result = write_findings(out, result | courses, lambda: _figure(found))
    if as_json:
        print_json(result)
        return
    _print(result)


def _kept(path: Path, work: Any) -> Any:
    """What an interrupted run had found already, or is found now."""
    import json

    from broadsheet.cache import write_atomic

    if path.is_file():
        return json.loads(path.read_text())
    found = work()
    write_atomic(path, json.dumps(found))
    return found


def _scanned(atlas: Any, recordings: Any, most: int) -> list[dict[str, float]]:
    return [
        {"components": each.rank, "error": each.error, "similarity": each.similarity}
        for each in atlas.scan(recordings, range(1, most + 1))
    ]


def _kept_fit(folder: Path, atlas: Any, recordings: Any, report: Any) -> Any:
    """The fitted atlas; its factors are kept before communities are looked for."""
    import numpy as np

    from broadsheet.cache import writing
    from broadsheet.files import load_arrays

    path = folder / "factors.npz"
    if path.is_file():
        atlas.set_factors(load_arrays(path))
    else:
        atlas.fit_factors(recordings, report=report)
        with writing(path) as stream:
            np.savez(stream, **atlas.factor_arrays())
    return atlas.fit_communities(report=report)


def _component(atlas: Any, k: int) -> dict[str, Any]:
    """Of one component: when it peaks, its share, the animals' loadings and its communities."""
    import numpy as np

    course, model = atlas.time_[:, k], atlas.models_[k]
    above = np.flatnonzero(course >= course.max() / 2)
    groups = [
        [name for name, label in zip(atlas.names_, atlas.labels_[k], strict=True) if label == community]
        for community in range(atlas.labels_[k].max() + 1)
    ]
    return {
        "weight": float(atlas.weights_[k]), "peak": float(atlas.times_[course.argmax()]),
        "above_half": [float(atlas.times_[above[0]]), float(atlas.times_[above[-1]])],
        "loadings": [float(each) for each in atlas.animals_[:, k]], "communities": groups,
        "description_length": float("nan") if model is None else model.description_length_,
        "degree_corrected": model is not None and model.degree_corrected_,
    }  # fmt: skip


def _figure(atlas: Any) -> Any:
    from broadsheet.lab.plots import figure
    from broadsheet.recordings.connectome_pictures import draw_component

    count = len(atlas.patterns_)
    fig, axes = figure(3, count, width=4.0, height=2.0)
    step = atlas.every_ * atlas.dt_
    for k, row in enumerate([axes] if count == 1 else axes):
        draw_component(fig, row, atlas.time_[:, k], step, atlas.animals_[:, k], atlas.patterns_[k], atlas.labels_[k],
                       title=f"component {k + 1}", start=float(atlas.times_[0]))  # fmt: skip
    return fig


def _print(result: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = [
        "component",
        ("peak (s)", right),
        ("above half (s)", right),
        ("animals", right),
        ("communities", right),
        "strongest",
    ]
    rows = []
    for k, each in enumerate(result["components"]):
        strong = sum(loading >= max(each["loadings"]) / 2 for loading in each["loadings"])
        strongest: list[str] = next(iter(each["communities"]), [])
        names = " ".join(strongest[:8]) + (" …" if len(strongest) > 8 else "")
        first, last = (number(value) for value in each["above_half"])
        rows.append((str(k + 1), number(each["peak"]), f"{first} to {last}", f"{strong} of {len(each['loadings'])}",
                     str(len(each["communities"])), names))  # fmt: skip
    title = (
        f"{len(result['animals'])} animals, {len(result['neurons'])} neurons, {result['frames']} frames of "
        f"{result['seconds_a_frame']:g} s; error {number(result['error'])}, starts agree to {number(result['similarity'])}"
    )
    console().print(table(columns, rows, title))
    if "scan" in result:
        columns = [(name, right) for name in ("components", "error", "similarity")]
        cells = [(str(each["components"]), number(each["error"]), number(each["similarity"])) for each in result["scan"]]
        console().print(table(columns, cells, "Error and agreement of starts"))
    written = [result[key] for key in ("findings", "figure", "table") if key in result]
    if written:
        print(f"Written to {', '.join(written)}.")
