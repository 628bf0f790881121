"""Recordings of worms from the files of laboratories, brought to one data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import BroadsheetError, InputError

if TYPE_CHECKING:
    from broadsheet.recordings.worm import Recording, Summary


def worm(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Recordings, or folders of them: .nwb, .mat, .h5, .json, .csv, .npz, N_gcamp.txt."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DATASET", help="Where the data set goes: a .parquet with the authors' columns, else a folder."),
    ],
    dt: Annotated[float, typer.Option(min=0.01, help="Step of the data set, s.")] = 0.333,
    smooth: Annotated[
        Literal["none", "gaussian", "moving", "exponential"], typer.Option(help="Smoothing, beside the traces as they are.")
    ] = "none",
    amount: Annotated[
        float | None,
        typer.Option(min=0, help="Of smoothing: standard deviation or window in samples, or the weight of the newest sample."),
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Let every sample rest on what came before it: for tests of forecasts.")
    ] = False,
    gaps: Annotated[
        Literal["refuse", "drop", "hold", "interpolate"],
        typer.Option(help="NaN in a trace: refuse the file, leave the cell out, repeat the last number, or draw a line."),
    ] = "refuse",
    source: Annotated[str, typer.Option(help="Name of the laboratory; by default the folder that a file lies in.")] = "",
    as_json: AsJson = False,
) -> None:
    """Bring recordings of worms to one list of 300 neurons, one scale and one rate.

    Read are the shapes of eleven laboratories' files and plain tables; names in any spelling find their neuron, names that say
    no one cell stay without. Beside the data set go its report (.report.json) and a figure of what it covers. What was done
    before an interruption is kept.
    """
    from broadsheet.cache import write_atomic, writing
    from broadsheet.recordings.worm.tables import Summary, write_folder, write_parquet

    if causal and gaps == "interpolate":
        raise InputError("--gaps interpolate looks ahead, which --causal rules out; hold or drop is wanted.")
    files = _files(recordings)
    settings = {"dt": dt, "smooth": smooth, "amount": amount, "causal": causal, "gaps": gaps, "source": source}
    found = Summary()
    with bar("homogenising") as tick:
        made = (found.add(each) for each in _homogenised(files, settings, lambda k: tick(k / len(files), files[k - 1].name)))
        count = write_parquet(out, made) if out.suffix == ".parquet" else write_folder(out, made)
    report_file, picture = (out.with_name(f"{out.stem}.{end}") for end in ("report.json", "png"))
    report: dict[str, Any] = {"dataset": str(out), "files": len(files), **found.as_json(), "settings": settings,
                              "report": str(report_file), "figure": str(picture)}  # fmt: skip
    import json

    with writing(picture) as stream:
        _figure(found).savefig(stream, format="png", dpi=150, bbox_inches="tight")
    write_atomic(report_file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print_json(report)
        return
    right: dict[str, Any] = {"justify": "right"}
    rows = [(name, worms, cells, number(cells / worms)) for name, (worms, cells) in sorted(found.sources.items())]
    columns: list[Any] = ["source", *((each, right) for each in ("worms", "identified traces", "a worm"))]
    console().print(table(columns, rows, f"{count} worms, {report['neurons']} of 300 neurons identified in one or more"))
    kind = "causal" if causal else "acausal: z-scores know the whole recording"
    print(f"Written to {out} ({kind}), the report to {report_file}, the figure to {picture}.")


def _files(given: list[Path]) -> list[Path]:
    """The recordings named, those of folders in order."""
    from broadsheet.recordings.worm.lab_files import recordings_in

    found = [each for path in given for each in recordings_in(path)]
    if twice := next((path for k, path in enumerate(found) if path.resolve() in {p.resolve() for p in found[:k]}), None):
        raise InputError(f"{twice} is named twice.")
    return found


def _homogenised(files: list[Path], settings: dict[str, Any], told: Any) -> Iterator[Recording]:
    """The worms of files, each homogenised once: parts of an interrupted run are found again."""
    from broadsheet.cache import unfinished
    from broadsheet.recordings.worm.lab_files import fill_gaps, read_recordings
    from broadsheet.recordings.worm.pipeline import homogenise
    from broadsheet.recordings.worm.tables import read_folder, write_folder

    stamps = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    with unfinished("worm-recordings", {**settings, "files": stamps}) as folder:
        for k, path in enumerate(files, start=1):
            part = folder / f"{k:05d}"
            if not (part / "dataset.json").exists():
                worms = []
                for raw in read_recordings(path):
                    raw = fill_gaps(raw, settings["gaps"])
                    try:
                        each = homogenise(
                            raw.traces, raw.times, raw.names, settings["dt"], settings["smooth"], amount=settings["amount"],
                            causal=settings["causal"], source=settings["source"] or raw.source or "unknown", file=path.name,
                            worm=f"{path.stem}-{raw.worm}" if raw.worm else path.stem,
                        )  # fmt: skip
                    except InputError as error:
                        raise InputError(f"{path}: {error}") from None
                    worms.append(each)
                if not worms:
                    raise BroadsheetError(f"{path} holds no worm.")
                write_folder(part, worms)
            told(k)
            yield from read_folder(part)


def _figure(found: Summary) -> Any:
    """Which neurons are identified in which worm, in how many each, and how long and how fine the recordings are."""
    import numpy as np

    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, ((seen, counts), (length, steps)) = figure(2, 2, width=5.2)
    seen.imshow(np.array(found.masks), aspect="auto", cmap="Blues", interpolation="nearest", vmin=0, vmax=1)
    label(seen, "slot (300 neurons, alphabetical)", "worm", "identified neurons", legend=False)
    counts.plot(np.sort(found.coverage)[::-1], color=SYSTEM_COLOUR)
    label(counts, "neuron, most seen first", "worms", "coverage", legend=False)
    length.hist(found.durations, 20, color=SYSTEM_COLOUR)
    label(length, "recording (s)", "worms", "lengths", legend=False)
    edges = np.linspace(0, 1.1 * max(*found.original_steps, *found.steps), 30)
    steps.hist(found.original_steps, edges, color=CONTROL_COLOUR, label="before")
    steps.hist(found.steps, edges, color=SYSTEM_COLOUR, alpha=0.7, label="after")
    label(steps, "median step (s)", "worms", "sampling")
    return fig
