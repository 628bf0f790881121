"""Single cells on a user's own recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from broadsheet.cli.output import number, print_json
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError, InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command("fit-elm")
def fit_elm(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDING",
            help="A .npz or .safetensors file: inputs (recordings, time, channels), inhibitory spikes -1; and voltage "
            "(recordings, time) in mV, spikes (recordings, time), or both. One recording needs no first axis.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the weights go (safetensors).")] = Path("elm.safetensors"),
    d_m: Annotated[int, typer.Option("--d-m", min=1, help="Memory units.")] = 20,
    d_tree: Annotated[int | None, typer.Option("--d-tree", min=1, help="Dendritic branches; none by default.")] = None,
    d_brch: Annotated[int, typer.Option("--d-brch", min=1, help="Synapses a branch.")] = 1,
    dt: Annotated[float, typer.Option(help="Time step, ms.")] = 1.0,
    tau_max: Annotated[float, typer.Option(help="Largest memory time constant, ms.")] = 150.0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500,
    test: Annotated[float, typer.Option(min=0.05, max=0.9, help="Share of the time, at the end, that is held out.")] = 0.25,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit an Expressive Leaky Memory neuron to recordings: spikes in, voltage or spikes out."""
    import numpy as np

    from broadsheet.files import load_arrays

    arrays = load_arrays(recording)
    if "inputs" not in arrays:
        raise DataError(f"{recording} holds {', '.join(arrays) or 'nothing'}; an array 'inputs' is wanted.")
    targets: tuple[str, ...] = tuple(name for name in ("spikes", "voltage") if name in arrays)
    if not targets:
        raise DataError(f"{recording} holds neither 'voltage' nor 'spikes' to be predicted.")
    x = np.asarray(arrays["inputs"], np.float32)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3:
        raise DataError(f"{recording}: inputs have the shape {x.shape}; (recordings, time, channels) is wanted.")
    outputs = [np.atleast_2d(np.asarray(arrays[name], np.float32)) for name in targets]
    for name, values in zip(targets, outputs, strict=True):
        if values.shape != x.shape[:2]:
            raise DataError(f"{recording}: {name} has the shape {values.shape}; {x.shape[:2]} is wanted.")
        if not np.isfinite(values).all():
            raise DataError(f"{recording}: {name} holds NaN or infinity.")
    y = np.stack(outputs, axis=-1)
    cut = int(x.shape[1] * (1 - test))
    if cut < 50 or x.shape[1] - cut < 10:
        raise InputError(f"{recording} has {x.shape[1]} time steps; too few to train and test on.")
    if "spikes" in targets and not (0 < y[:, cut:, 0].sum() < y[:, cut:, 0].size):
        raise InputError(f"{recording}: the held-out part has no output spike; hold out more with --test.")

    from safetensors.numpy import save_file

    from broadsheet.neurons import ELMNeuron, to_official

    neuron = ELMNeuron(
        d_m, targets=targets, d_tree=d_tree, d_brch=d_brch, routing="neighbour" if d_tree else None, tau_m=(1.0, tau_max),
        dt=dt, steps=steps, random_state=seed,
    )  # fmt: skip
    neuron.fit(x[:, :cut], y[:, :cut])
    scores = neuron.scores(x[:, cut:], y[:, cut:])
    options = {
        "d_in": x.shape[2],
        "tau_m": [1.0, tau_max],
        "dt": dt,
        "routing": neuron.routing,
        "targets": list(targets),
    }
    save_file(to_official(neuron.cell_), out, metadata={"elm": json.dumps(options)})
    if as_json:
        print_json({"weights": str(out), "parameters": neuron.n_parameters_, "scores": scores})
        return
    print(f"{neuron.n_parameters_} parameters, written to {out}; on the held-out {test:.0%} of the time:")
    for name, value in scores.items():
        print(f"  {name}: {number(value)}")
