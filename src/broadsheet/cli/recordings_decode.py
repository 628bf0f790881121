"""Behaviour decoded from the spikes of a user's own recording, by Neuroformer from few labels and by plain decoders."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.cli.recordings import Recording, Seed, Target
from broadsheet.errors import InputError


def decode(
    recording: Recording,
    target: Target,
    labels: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of the training windows with a label.")] = 0.1,
    units: Annotated[int, typer.Option(min=2, help="Use at most so many units, those that fire most.")] = 200,
    dt: Annotated[float, typer.Option("--dt", min=1e-3, help="Bins of the spikes, s; a window has five.")] = 0.01,
    past: Annotated[float, typer.Option(min=0.01, help="What Neuroformer sees before a window, s.")] = 0.15,
    history: Annotated[float, typer.Option(min=0.05, help="What the plain decoders see before a window ends, s.")] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of pretraining.")] = 900,
    tuning: Annotated[int, typer.Option(min=0, help="Steps of tuning on the labels; 0: only a ridge head.")] = 150,
    blocks: Annotated[int, typer.Option(min=4, help="Blocks of time; a fifth of them is for testing.")] = 10,
    gap: Annotated[float, typer.Option(min=0, help="What is left out beside a test block, s.")] = 2.0,
    out: Findings = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Decode behaviour from spikes: Neuroformer, pretrained on the spikes of the training blocks and tuned on few labels,
    beside ridge regression with history, the lasso, a small network and a gated recurrent unit on the same labels.

    Tested on blocks of time that nobody saw, with gaps. Ridge regression is the rival to beat: on rates that follow behaviour
    it is hard to beat. A run that was interrupted goes on where it was.
    """
    import numpy as np

    from broadsheet.recordings import Session, aligned, open_session
    from broadsheet.recordings.decoding_rivals import compare

    check_findings(out)
    with open_session(recording) as session:
        if session.spikes is None:
            raise InputError(f"{session.name} has no spikes; Neuroformer reads spikes of sorted units.")
        spikes = session.spikes
        if len(spikes) < 2:
            raise InputError(f"{session.name} has {len(spikes)} unit; two or more are wanted.")
        rates = np.nan_to_num(np.asarray(spikes.rates()))
        kept = np.sort(np.argsort(-rates, kind="stable")[:units])
        if len(spikes) > units:
            typer.echo(f"The {units} units that fire most of {len(spikes)} are used (--units).", err=True)
        chosen = spikes.choose([spikes.names[k] for k in kept])
        bins = aligned(Session(session.name, chosen, session.traces), dt, target, missing="drop")
    with bar(f"{len(kept)} units, {len(bins.counts)} bins") as tick:
        found = compare(
            bins, labels=labels, past=past, history=history, steps=steps, tuning=tuning, blocks=blocks,
            gap=max(gap, history, past), seed=seed, tick=tick,
        )  # fmt: skip
    report = write_findings(out, {"recording": recording, "target": target} | found.as_json(), lambda: _figure(found))
    if as_json:
        print_json(report)
        return
    right: dict[str, Any] = {"justify": "right"}
    rows: list[Any] = [
        (name, number(row["r"]), number(row["r2"]), number(row["error"]))
        for name, row in found.scores[found.channels[0]].items()
    ]
    known = f"{found.labelled} of {found.trained} training windows with a label"
    title = f"{found.channels[0]}: {found.tested} test windows, {known}"
    console().print(table(["decoder", ("correlation", right), ("R²", right), ("mean error", right)], rows, title))
    if len(found.channels) > 1:
        print(f"Of {', '.join(found.channels[1:])}: with --json.")
    if found.cut:
        print(f"{found.cut} windows were longer than the model's block and lost their first spikes.")
    if out is not None:
        print(f"Written to {report['findings']}, the figure to {report['figure']}.")


def _figure(found: Any) -> Any:
    """A raster of held-out time, true and decoded behaviour beneath."""
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    shown = found.times < found.times[0] + 60
    fig, (above, below) = figure(1, 2, width=9.0, height=2.6)
    at, unit = np.nonzero(found.counts[shown])
    above.plot(found.times[shown][at], unit, "|", color="k", ms=2, alpha=0.6)
    below.plot(found.times[shown], found.true[shown, 0], color="k", lw=1.2, label="true")
    for name, colour in (("neuroformer", SYSTEM_COLOUR), ("ridge", CONTROL_COLOUR), ("gru", COLOURS[1])):
        below.plot(found.times[shown], found.decoded[name][shown, 0], color=colour, lw=1, label=name)
    for axis in (above, below):
        axis.set_xlim(found.times[shown][0], found.times[shown][-1])
    label(above, "time (s)", "unit", "held-out time; blocks follow each other", legend=False)
    label(below, "time (s)", found.channels[0])
    return fig
