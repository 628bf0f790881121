"""Laws of a user's own data, learnt and drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.cli.transport_trajectories import trajectories
from broadsheet.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command("sample")
def sample(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Positive numbers, a row a sample: .csv, .tsv, .npy or .npz.")],
    count: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 1000,
    samples: Annotated[Path, typer.Option(help="Where they go: .csv or .npy.")] = Path("samples.csv"),
    shift: Annotated[
        float, typer.Option(help="Added to all numbers before the training and taken off the samples; 1 makes zeros positive.")
    ] = 0.0,
    sigma: Annotated[
        float | None,
        typer.Option(min=0.01, help="Volatility of the noise; by default twice the largest spread of log x, at least 0.8."),
    ] = None,
    training_steps: Annotated[int, typer.Option(min=1, help="Steps of Adam.")] = 5000,
    steps: Annotated[int, typer.Option(min=1, help="Steps from noise to a sample.")] = 500,
    hidden: Annotated[int, typer.Option(min=1, help="Units of a layer of the network.")] = 256,
    out: Findings = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the training and of the samples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn the law of positive data by multiplicative diffusion, draw from it, and compare with a fifth that was held out.

    All samples are positive. Printed are the energy distance of the samples to the rows held out, beside that of the rows
    trained on and of a log-normal law with the data's means and variances; mean and spread of each column's logarithm; and how
    near the samples lie to rows trained on, beside how near held-out rows do: far nearer they are copies.
    """
    import numpy as np
    from scipy.spatial.distance import cdist

    from broadsheet.cache import writing
    from broadsheet.numerics.number_tables import read_numbers
    from broadsheet.transport import PositiveDiffusion
    from broadsheet.transport.two_samples import energy_distance

    check_findings(out)
    if samples.suffix not in (".csv", ".npy"):
        raise InputError(f"--samples {samples}: samples are written as .csv or .npy.")
    read = read_numbers(data)
    x = read.values + shift
    if len(x) < 20:
        raise InputError(f"{data} has {len(x)} rows; at least 20 are wanted.")
    bad = np.argwhere(~(np.isfinite(x) & (x > 0)))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{data} has {read.values[row, column]:g} in row {row + 1}, column {read.names[column]}, and {len(bad) - 1} more "
            "that are not positive numbers; leave these rows out, or --shift all."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    test, train = x[order[: len(x) // 5]], x[order[len(x) // 5 :]]
    logs = np.log(train)
    noise = max(0.8, 2 * float(logs.std(axis=0).max())) if sigma is None else sigma
    model = PositiveDiffusion(noise, weight="noise", hidden=hidden, steps=training_steps, random_state=seed)
    with bar(f"{len(train)} rows of {x.shape[1]} numbers") as tick:
        model.fit(train, report=lambda done, loss: tick(done / training_steps, f"loss {loss:.3f}"))
    drawn = model.sample(count, steps=steps)
    made = drawn - shift
    with writing(samples) as stream:
        if samples.suffix == ".npy":
            np.save(stream, made)
        else:
            np.savetxt(stream, made, delimiter=",", header=",".join(read.names), comments="", fmt="%.8g")

    def near(rows: Any) -> float:
        return float(np.median(cdist(rows, train).min(axis=1)))

    several, held, known = drawn[:2000], test[:2000], train[:2000]
    plain = np.exp(rng.normal(logs.mean(axis=0), logs.std(axis=0), several.shape))
    found: dict[str, Any] = {
        "data": str(data), "rows": len(x), "columns": list(read.names), "samples": str(samples), "sigma": noise,
        "energy_distance": energy_distance(several, held), "energy_distance_of_training_rows": energy_distance(known, held),
        "energy_distance_of_log_normal": energy_distance(plain, held),
        "nearest": near(several), "nearest_of_held_out": near(held), "loss": -model.score(test),
        "log_means": np.log(drawn).mean(axis=0).tolist(), "log_spreads": np.log(drawn).std(axis=0).tolist(),
        "log_means_of_data": np.log(x).mean(axis=0).tolist(), "log_spreads_of_data": np.log(x).std(axis=0).tolist(),
    }  # fmt: skip
    found = write_findings(out, found, lambda: _figure(drawn - shift, x - shift, read.names))
    if as_json:
        print_json(found)
        return
    right: dict[str, Any] = {"justify": "right"}
    columns = ("log_means_of_data", "log_means", "log_spreads_of_data", "log_spreads")
    rows = [(name, *(number(found[each][k]) for each in columns)) for k, name in enumerate(read.names[:12])]
    heads: list[Any] = ["column", *((head, right) for head in ("mean of log x", "of samples", "spread of log x", "of samples"))]
    console().print(table(heads, rows, f"{count} samples of {data.name}"))
    if len(read.names) > 12:
        print(f"{len(read.names) - 12} more columns: with --json.")
    print(
        f"Energy distance to held-out rows: samples {found['energy_distance']:.3g}, rows trained on "
        f"{found['energy_distance_of_training_rows']:.3g}, log-normal {found['energy_distance_of_log_normal']:.3g}."
    )
    print(
        f"Distance to the nearest row trained on: {found['nearest']:.3g}; of held-out rows {found['nearest_of_held_out']:.3g}."
    )
    print(f"Written to {samples}." if out is None else f"Written to {samples}, {found['findings']} and {found['figure']}.")


def _figure(drawn: Any, x: Any, names: tuple[str, ...]) -> Any:
    """Histograms of up to six columns, data and samples."""
    import numpy as np

    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    shown = min(len(names), 6)
    fig, axes = figure(shown, width=3.2)
    for k, axis in enumerate(np.atleast_1d(axes)):
        low, high = np.quantile(x[:, k], [0.0, 0.995])
        edges = np.linspace(low, high, 41)
        axis.hist(x[:, k], edges, density=True, color=CONTROL_COLOUR, alpha=0.6, label="data")
        axis.hist(drawn[:, k], edges, density=True, histtype="step", color=SYSTEM_COLOUR, lw=1.6, label="samples")
        label(axis, names[k], "density", legend=k == 0)
    return fig


app.command("trajectories")(trajectories)
