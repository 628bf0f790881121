"""Neurons on a user's own recordings and networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.output import console, number, print_json, table
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

    from safetensors.numpy import save

    from broadsheet.cache import write_atomic
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
    write_atomic(out, save(to_official(neuron.cell_), metadata={"elm": json.dumps(options)}))
    if as_json:
        print_json({"weights": str(out), "parameters": neuron.n_parameters_, "scores": scores})
        return
    print(f"{neuron.n_parameters_} parameters, written to {out}; on the held-out {test:.0%} of the time:")
    for name, value in scores.items():
        print(f"  {name}: {number(value)}")


@app.command("simulate")
def simulate(
    network: Annotated[
        Path,
        typer.Argument(
            metavar="NETWORK.nir",
            help="A network in the Neuromorphic Intermediate Representation, of all its nodes, with one input and one output.",
        ),
    ],
    inputs: Annotated[
        Path,
        typer.Option(
            "--input", help="A .npz of spike trains (times in ms, neurons), or one array (time, …) of input for each step."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Where the output goes: .npz of spike trains where neurons fire, of the array where it is graded."),
    ],
    dt: Annotated[float, typer.Option(min=1e-6, help="Step, ms.")] = 0.1,
    method: Annotated[str, typer.Option(help="How equations are stepped: euler or exact.")] = "euler",
    reset: Annotated[str, typer.Option(help="value or subtract; by default what the file says.")] = "",
    sweep: Annotated[
        str,
        typer.Option(help="NODE.PARAMETER=a,b,c: one run for each value, which replaces the parameter everywhere in the node."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Run a spiking network from a file on spikes from a file."""
    import equinox as eqx
    import jax.numpy as jnp
    import numpy as np

    from broadsheet.cache import writing
    from broadsheet.dynamics import rollout
    from broadsheet.networks.nir import from_nir
    from broadsheet.neurons.spike_trains import SpikeTrains

    if method not in ("euler", "exact"):
        raise InputError(f"--method {method!r}: euler or exact is wanted.")
    if reset not in ("", "value", "subtract"):
        raise InputError(f"--reset {reset!r}: value or subtract is wanted.")
    loaded = from_nir(network, dt=dt, method=method, reset={"": None, "value": "to value", "subtract": "subtract"}[reset])  # type: ignore[arg-type]
    if len(loaded.inputs) > 1 or len(loaded.outputs) > 1:
        raise InputError(
            f"{network} has {len(loaded.inputs)} inputs and {len(loaded.outputs)} outputs; one of each is run here."
        )
    drive = _drive(inputs, loaded.shape(loaded.inputs[0]), dt)
    values, name, parameter = _sweep(sweep, loaded)
    run = eqx.filter_jit(lambda system, x: rollout(system, x)[1])
    results: list[dict[str, float]] = []
    kept: dict[str, Any] = {}
    for value in values:
        changed = loaded if value is None else loaded.replaced(name, parameter, value)
        array = np.asarray(run(changed, jnp.asarray(drive)))
        flat = array.reshape(len(array), -1)
        row: dict[str, float] = {} if value is None else {f"{name}.{parameter}": value}
        suffix = "" if value is None else f"_{value:g}"
        if loaded.spiking(loaded.outputs[0]):
            trains = SpikeTrains.from_dense(flat, dt=dt)
            row |= {"spikes": len(trains), "rate_hz": float(trains.rates().mean()), "irregularity": trains.irregularity()}
            kept |= {f"times{suffix}": trains.times, f"neurons{suffix}": trains.neurons}
            kept |= {"size": np.array(trains.size), "duration": np.array(trains.duration)}
        else:
            row |= {"mean": float(flat.mean()), "largest": float(flat.max())}
            kept[f"output{suffix}"] = array
        results.append(row)
    with writing(out) as stream:
        np.savez_compressed(stream, **kept)
    if as_json:
        print_json({"out": str(out), "steps": len(drive), "runs": results})
        return
    for row in results:
        print(", ".join(f"{key} {number(found)}" for key, found in row.items()))
    print(f"{len(drive)} steps of {dt:g} ms, written to {out}.")


def _drive(path: Path, shape: tuple[int, ...], dt: float) -> Any:
    """Input of each step from a file of spike trains or of one array."""
    import numpy as np

    from broadsheet.files import load_arrays
    from broadsheet.neurons.spike_trains import SpikeTrains

    arrays = load_arrays(path)
    if {"times", "neurons"} <= arrays.keys():
        trains = SpikeTrains.load(path)
        size = int(np.prod(shape))
        if trains.size > size:
            raise DataError(f"{path} has {trains.size} neurons; the network takes {size}.")
        dense = SpikeTrains(trains.times, trains.neurons, size, trains.duration).to_dense(dt=dt, counts=True)
        return dense.reshape(-1, *shape)
    if len(arrays) != 1:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; times and neurons, or one array, are wanted.")
    found = next(iter(arrays.values()))
    if found.dtype.kind not in "biuf":
        raise DataError(f"{path} is of the type {found.dtype}; numbers are wanted.")
    drive = np.asarray(found, np.float32)
    if drive.ndim < 1 or drive.shape[1:] != shape or not len(drive):
        raise DataError(f"{path} has the shape {drive.shape}; (time, {', '.join(map(str, shape))}) is wanted.")
    if not np.isfinite(drive).all():
        raise DataError(f"{path} holds NaN or infinity.")
    return drive


def _sweep(text: str, network: Any) -> tuple[list[float | None], str, str]:
    """(values, node, parameter) of NODE.PARAMETER=a,b,c; one None where nothing is swept."""
    if not text:
        return [None], "", ""
    target, _, listed = text.partition("=")
    name, _, parameter = target.rpartition(".")
    if name not in network.nodes:
        raise InputError(f"--sweep {text!r}: there is no node {name!r}; there are {', '.join(network.nodes)}.")
    if parameter not in network.nodes[name].arrays:
        known = ", ".join(network.nodes[name].arrays) or "no parameters"
        raise InputError(f"--sweep {text!r}: node {name!r} has {known}, not {parameter!r}.")
    try:
        values: list[float | None] = [float(part) for part in listed.split(",")]
    except ValueError:
        raise InputError(f"--sweep {text!r}: numbers with commas between are wanted after '='.") from None
    return values, name, parameter


@app.command("complexity")
def complexity(
    spikes: Annotated[
        Path,
        typer.Argument(
            metavar="SPIKES",
            help="A .npz of spike trains (times in ms, neurons; size and duration in ms may be there), or of one array "
            "(time, neurons) of 0 and 1, dense or saved by SciPy as a sparse one.",
        ),
    ],
    dt: Annotated[float, typer.Option(min=1e-6, help="Bin, ms, of which each holds a spike or none.")] = 1.0,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge/--no-merge", help="Count several spikes of a neuron in one bin as one, and say so; or refuse them."
        ),
    ] = True,
    shuffles: Annotated[
        int, typer.Option(min=0, max=10_000, help="Shuffled trains of the same rate to compare each with.")
    ] = 20,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: AsJson = False,
) -> None:
    """Lempel-Ziv complexity of spike trains: their entropy rate, and what is left of it to trains without memory."""
    import numpy as np

    from broadsheet.files import load_arrays
    from broadsheet.neurons.complexity import entropy, lzc
    from broadsheet.neurons.spike_trains import SpikeTrains, read_dense

    arrays, crowded = load_arrays(spikes), 0
    if {"times", "neurons"} <= arrays.keys():
        dense = SpikeTrains.load(spikes).to_dense(dt=dt, counts=True)
        crowded = int((dense > 1).sum())
        if crowded and not merge:
            raise DataError(
                f"{spikes}: {crowded} times a neuron fires more than once in a bin of {dt:g} ms; take a smaller dt (--dt), "
                "or --merge, which counts them as one."
            )
        if crowded:
            typer.echo(
                f"{spikes}: {crowded} times a neuron fires more than once in a bin of {dt:g} ms, which counts as one spike; "
                "a smaller --dt keeps them apart.", err=True,
            )  # fmt: skip
        dense = np.minimum(dense, 1)
    else:
        dense = read_dense(spikes)
    if len(dense) < 20 or not dense.shape[1]:
        raise DataError(
            f"{spikes} has {len(dense)} bins of {dt:g} ms of {dense.shape[1]} neurons; at least 20 of one are wanted."
        )
    rng = np.random.default_rng(seed)
    trains = dense.T
    found, limit = lzc(trains), entropy(trains.mean(axis=1))
    mixed = np.stack([lzc(rng.permuted(trains, axis=1)) for _ in range(shuffles)]) if shuffles else np.empty((0, len(trains)))
    rows = []
    for k, train in enumerate(trains):
        row = {"neuron": k, "rate_hz": float(train.mean() * 1000 / dt), "bits_a_bin": float(found[k]),
               "bits_a_second": float(found[k] * 1000 / dt), "entropy_of_rate": float(limit[k])}  # fmt: skip
        if shuffles:
            row |= {"shuffled": float(mixed[:, k].mean()), "share_below": float((mixed[:, k] < found[k]).mean())}
        rows.append(row)
    if as_json:
        print_json({"bins": len(dense), "dt_ms": dt, "merged": crowded, "shuffles": shuffles, "neurons": rows})
        return
    right_hand: dict[str, Any] = {"justify": "right"}
    names = ("rate (Hz)", "complexity (bits/bin)", "bits/s", "entropy of rate", "shuffled", "shuffles below")
    columns: list[Any] = ["neuron", *((name, right_hand) for name in names[: len(rows[0]) - 1])]
    cells = [(str(row["neuron"]), *(number(value) for value in list(row.values())[1:])) for row in rows]
    console().print(table(columns, cells, f"{len(dense)} bins of {dt:g} ms"))


@app.command("spice")
def spice(
    what: Annotated[Literal["line", "neuron", "synapse", "xor"], typer.Argument(help="Which circuit of single flux quanta.")],
    out: Annotated[Path | None, typer.Option(help="Where the deck goes; by default it is printed.")] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=µA", help="neuron: bias; synapse: weight; xor: hidden, output; line: bias."),
    ] = None,
    stop: Annotated[float, typer.Option(min=1, help="How long the deck simulates, ps.")] = 400.0,
    pulse: Annotated[list[float] | None, typer.Option(help="When a fluxon comes to the inputs, ps; may be repeated.")] = None,
) -> None:
    """Write a circuit of Josephson junctions as a deck for JoSIM or another SPICE."""
    from broadsheet.cache import write_atomic
    from broadsheet.neurons import josephson

    given = {}
    for text in bias or []:
        name, sign, value = text.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise InputError(f"{text!r} is not NAME=µA.") from None
        if not sign:
            raise InputError(f"{text!r} is not NAME=µA.")
    known = {"line": ("bias",), "neuron": ("bias",), "synapse": ("weight",), "xor": ("hidden", "output")}[what]
    wrong = set(given) - set(known)
    if wrong:
        raise InputError(f"The circuit {what!r} has no bias {sorted(wrong)[0]!r}; it has {', '.join(known)}.")
    circuit = josephson.Circuit()
    if what == "xor":
        circuit, _ = josephson.xor_network(**given)
    elif what == "line":
        circuit.drive(josephson.transmission_line(circuit, "line", 8, bias=given.get("bias", 70.0))[0])
    else:
        ends = []
        for name in ("A", "B") if what == "neuron" else ("A",):
            first, last = josephson.transmission_line(circuit, name, 3)
            circuit.drive(first)
            ends.append(last)
        if what == "neuron":
            josephson.flux_neuron(circuit, "N", ends, bias=given.get("bias", 45.0))
        else:
            josephson.flux_synapse(circuit, "S", ends[0], weight=given.get("weight", 57.0))
    deck = circuit.to_spice(stop, dict.fromkeys(range(len(circuit.drives)), pulse or (60.0,)))
    if out is None:
        print(deck, end="")
        return
    write_atomic(out, deck)
    print(f"{out}: {len(circuit.junctions)} junctions, {len(circuit.nodes())} nodes.")
