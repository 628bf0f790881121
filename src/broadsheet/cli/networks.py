"""Networks on a user's own files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from broadsheet.cli.networks_fixed_points import fixed_points
from broadsheet.cli.networks_laziness import laziness
from broadsheet.cli.networks_memory import memory
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError, InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class Row(NamedTuple):
    """Of one way to run: mean steps, accuracy and spikes of a sample."""

    run: str
    steps: float
    accuracy: float
    spikes: float


@app.callback()
def _group() -> None:
    pass


@app.command("convert")
def convert(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A trained network with ReLU or quantised activations: .onnx or .safetensors."),
    ],
    data: Annotated[
        Path, typer.Option(help="A .npz of inputs x (samples, …) and labels y (samples,); half calibrates, half tests.")
    ],
    out: Annotated[Path, typer.Option(help="Where the spiking network goes (NIR).")] = Path("spiking.nir"),
    early_exit: Annotated[
        bool, typer.Option("--early-exit", help="Fit an exit by confidence, written beside the network as .exit.json.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, max=4096, help="Steps of a full run.")] = 32,
    percentile: Annotated[
        float,
        typer.Option(min=50, max=100, help="Thresholds: this percentile of each layer's activations, where the file has none."),
    ] = 99.9,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy that an early exit may lose on the first half.")
    ] = 0.0,
    choice: Annotated[
        Literal["steady", "fastest"],
        typer.Option(
            "--exit-choice",
            help="The exit's threshold: the smallest from which on all keep the accuracy, or the paper's, the fastest one.",
        ),
    ] = "steady",
    as_json: AsJson = False,
) -> None:
    """Turn a trained network into a spiking one, with calibrated early exit.

    From ONNX: linear layers, two-dimensional convolutions of any stride, dilation, groups and padding, average pools, batch
    normalisation, ReLUs and Clips from 0 on (a ceiling bounds the neuron's threshold), flattening; the rest is refused by its
    name. A last softmax or ReLU is left out. From safetensors: linear layers named as PyTorch names them, with ReLUs between,
    or what save_network of broadsheet.conversion wrote.
    """
    import jax.numpy as jnp
    import numpy as np

    from broadsheet.cache import write_atomic
    from broadsheet.conversion.conversion import SpikingNet, balanced_thresholds
    from broadsheet.conversion.early_exit import DynamicConfidence
    from broadsheet.conversion.model_files import read_network
    from broadsheet.files import load_arrays
    from broadsheet.networks.nir_writing import write_nir

    arrays = load_arrays(data)
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"{data} holds {', '.join(arrays) or 'nothing'}; x and y are wanted.")
    if arrays["x"].dtype.kind not in "biuf" or arrays["x"].ndim < 2:
        raise DataError(f"{data}: x holds {arrays['x'].dtype} of {arrays['x'].shape}; real numbers (samples, …) are wanted.")
    x, y = np.asarray(arrays["x"], np.float32), np.ravel(arrays["y"])
    if len(x) != len(y) or len(y) < 20 or not np.isfinite(x).all():
        raise DataError(f"{data}: x has {len(x)} and y {len(y)} samples; as many of both, at least 20, and no NaN are wanted.")
    body, theta = read_network(model, x.shape[1:])
    if not body.ceilings:
        raise DataError(f"{model} has no activation between its layers, so that there is nothing that could spike.")
    order = np.random.default_rng(0).permutation(len(y))
    first, second = order[: len(y) // 2], order[len(y) // 2 :]
    try:
        theta = theta or balanced_thresholds(body, jnp.asarray(x[first]), percentile, body.ceilings)
        net = SpikingNet(body, x.shape[1:], theta)
        total, spikes = (np.asarray(part) for part in net.run(x, steps))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{model} does not take inputs of the shape {x.shape[1:]} ({str(error).splitlines()[0][:100]})."
        ) from None
    if not np.isin(y, np.arange(total.shape[2])).all():
        raise DataError(f"{data}: labels must be whole numbers from 0 to {total.shape[2] - 1}, one a class of the network.")
    write_nir(net, out)

    right = total.argmax(axis=2) == y[:, None]
    per_step = np.cumsum(spikes.sum(axis=2), axis=1)
    shown = sorted({min(2**k, steps) for k in range(13)})
    rows = [
        Row(f"{t} steps", float(t), float(right[second, t - 1].mean()), float(per_step[second, t - 1].mean())) for t in shown
    ]
    result: dict[str, Any] = {"network": str(out), "thresholds": [float(each) for each in theta]}
    if early_exit:
        policy = DynamicConfidence(tolerance=tolerance, choice=choice).fit(total[first], y[first])
        if (policy.exit_times(total[first]) == steps).all():
            typer.echo(
                f"No sample leaves before step {steps}: no threshold does on the first half what is asked"
                f"{'' if choice == 'fastest' else '; --exit-choice fastest takes the first that keeps the accuracy by itself'}"
                f"{'' if tolerance else ', --tolerance 0.01 lets some accuracy go'}.", err=True,
            )  # fmt: skip
        left = policy.exit_times(total[second])
        spent = float(per_step[second][np.arange(len(left)), left - 1].mean())
        rows.append(Row("early exit", float(left.mean()), policy.score(total[second], y[second]), spent))
        settings = {"alpha": policy.alpha_, "threshold": policy.threshold_, "signal": policy.signal, "max_steps": steps}
        exit_file = out.with_suffix(".exit.json")
        write_atomic(exit_file, json.dumps(settings, indent=1) + "\n")
        result |= {"exit": settings, "exit_file": str(exit_file)}
    result["runs"] = [row._asdict() for row in rows]
    if as_json:
        print_json(result)
        return
    right_hand: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = ["run", *((name, right_hand) for name in ("mean steps", "accuracy", "spikes a sample"))]
    cells = [(row.run, *map(number, row[1:])) for row in rows]
    console().print(table(columns, cells, f"{len(second)} test samples"))
    print(f"Written to {out}" + (f" and {result['exit_file']}" if early_exit else "") + ".")


@app.command("recall")
def recall(
    patterns: Annotated[
        Path,
        typer.Argument(metavar="PATTERNS", help="A .npz or .npy of binary contents (cues, bits), stored one after the other."),
    ],
    bits: Annotated[str, typer.Option(help="Bits to ask for, as 0,3,5; by default every content is recalled by its cue.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store binary patterns in a spiking memory after the hippocampus, and recall them."""
    import numpy as np

    from broadsheet.files import load_arrays
    from broadsheet.networks.hippocampus import HippocampalCAM

    arrays = list(load_arrays(patterns).values())
    if len(arrays) != 1 or arrays[0].ndim != 2 or not np.isin(arrays[0], (0, 1)).all():
        raise DataError(f"{patterns} should hold one array (cues, bits) of 0 and 1.")
    contents = arrays[0].astype(bool)
    cam = HippocampalCAM(*contents.shape)
    for cue, content in enumerate(contents):
        cam.store(cue, np.nonzero(content)[0].tolist())
    if bits:
        try:
            asked = [int(part) for part in bits.split(",")]
        except ValueError:
            raise InputError(f"--bits {bits!r}: whole numbers with commas between are wanted.") from None
        cues = cam.recall_cues(asked)
        if as_json:
            print_json({"bits": asked, "cues": cues})
        else:
            print(f"Cues that share a bit with {bits}: {', '.join(map(str, cues)) or 'none'}")
        return
    found = [cam.recall_content(cue) for cue in range(len(contents))]
    exact = [set(each) == set(np.nonzero(content)[0].tolist()) for each, content in zip(found, contents, strict=True)]
    if as_json:
        print_json({"contents": found, "exact": sum(exact), "cues": len(exact)})
        return
    print(f"{sum(exact)} of {len(exact)} contents recalled exactly, {contents.shape[1]} bits each.")


@app.command("places")
def places(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCE_FOLDER", help="Images of a passage of the route, in the order of their names: img2, img10."
        ),
    ],
    query: Annotated[Path, typer.Argument(metavar="QUERY_FOLDER", help="Images to recognise.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="Another passage of the same places to learn from; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the matches go (CSV); a figure goes beside it (.png).")] = Path("places.csv"),
    module_size: Annotated[int, typer.Option(min=1, help="Consecutive places a module learns.")] = 25,
    neurons: Annotated[int, typer.Option(min=2, help="Excitatory neurons a module.")] = 100,
    epochs: Annotated[int, typer.Option(min=1, help="How often each image is shown.")] = 15,
    hyperactive: Annotated[int, typer.Option(min=0, help="Silence neurons that answer to so many references; 0: none.")] = 0,
    tolerance: Annotated[int, typer.Option(min=0, help="Places that a match may be off and still count as right.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Modules that train at a time.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: AsJson = False,
) -> None:
    """Recognise places: learn a route from image folders by spiking modules, and match the images of another passage to it.

    Where the query has as many images as the reference, image k is taken to show place k, and recall is computed.

    PNG, JPEG, BMP, TIFF, WebP, PPM and PGM, of any size, grey (8 or 16 bits) or coloured, turned as EXIF says; an image that
    is transparent, holds several pictures or floating-point numbers is refused. A place takes about a quarter of a second at
    the usual settings.
    """
    import csv
    import io
    from concurrent.futures import ProcessPoolExecutor
    from contextlib import nullcontext
    from multiprocessing import get_context

    import numpy as np

    from broadsheet.cache import write_atomic
    from broadsheet.vision.pictures import other_files
    from broadsheet.vision.place_recognition import ModularVPR
    from broadsheet.vision.places import precision_recall, read_traverse, recall_at, similarity_by_difference

    first, names = read_traverse(reference)
    passages = [first, *(read_traverse(folder)[0] for folder in also or [])]
    for folder in (reference, *(also or []), query):
        if left := other_files(folder):
            typer.echo(
                f"{folder}: {len(left)} without an image are passed over ({', '.join(left[:3])}{', …' * (len(left) > 3)}).",
                err=True,
            )
    for folder, passage in zip(also or [], passages[1:], strict=True):
        if len(passage) != len(first):
            raise DataError(f"{folder} has {len(passage)} images and {reference} {len(first)}; the same places are wanted.")
    images, asked = read_traverse(query)
    model = ModularVPR(module_size, neurons, epochs=epochs, hyperactive=hyperactive, random_state=seed)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else nullcontext()
    modules = -(-len(first) // module_size)
    with pool as executor, bar(f"{modules} modules, {epochs} epochs") as show:
        model.fit(np.stack(passages), executor=executor, report=lambda done: show(done / modules, f"{done:.1f} learned"))
    if hyperactive:
        model.record(np.stack(passages))
    scores = model.scores(images)
    plain = similarity_by_difference(np.stack(passages), images)
    plain = plain - plain.min() + 1
    found = np.where(scores.any(axis=1), scores.argmax(axis=1), -1)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["query", "match", "place", "score", "match_by_difference"])
    for k, place in enumerate(found):
        match = names[place] if place >= 0 else ""
        writer.writerow([asked[k], match, place, f"{scores[k].max():.4g}", names[int(plain[k].argmax())]])
    write_atomic(out, lines.getvalue())
    result: dict[str, Any] = {"matches": str(out), "places": len(names), "modules": len(model.modules_),
                              "unanswered": int((found < 0).sum())}  # fmt: skip
    if len(asked) == len(names):
        if odd := [(a, b) for a, b in zip(names, asked, strict=True) if _counted(a) != _counted(b)]:
            typer.echo(f"Names differ, {odd[0][0]} stands beside {odd[0][1]}: by their order, image k shows place k.", err=True)
        truth = np.arange(len(asked))
        kinds = {"spiking": scores, "difference": plain}
        ks = [k for k in (1, 5, 10, 25) if k <= len(names)]
        result["recall"] = {name: recall_at(each, truth, ks, tolerance) for name, each in kinds.items()}
        curves = {name: precision_recall(each, truth, tolerance) for name, each in kinds.items()}
        result["area"] = {name: curve.area for name, curve in curves.items()}
        result["figure"] = str(_place_figure(out.with_suffix(".png"), curves, scores))
    if as_json:
        print_json(result)
        return
    if "recall" in result:
        columns: list[Any] = [
            "method",
            *((f"recall at {k}", {"justify": "right"}) for k in result["recall"]["spiking"]),
            "area",
        ]
        said = {"spiking": "spiking modules", "difference": "pixel differences"}
        cells = [
            (said[name], *map(number, row.values()), number(result["area"][name])) for name, row in result["recall"].items()
        ]
        console().print(table(columns, cells, f"{len(asked)} queries, {len(names)} places, {len(model.modules_)} modules"))
    print(f"Matches written to {out}" + (f", precision and recall to {result['figure']}" if "figure" in result else "") + ".")


def _counted(name: str) -> int | None:
    """The last number in a file's name."""
    found = re.findall("[0-9]+", Path(name).stem)
    return int(found[-1]) if found else None


def _place_figure(path: Path, curves: dict[str, Any], scores: Any) -> Path:
    """Precision against recall, and the scores of queries for places."""
    from broadsheet.cache import writing
    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, (left, right) = figure(2)
    for (name, curve), colour in zip(curves.items(), (SYSTEM_COLOUR, CONTROL_COLOUR), strict=True):
        left.plot(curve.recall, curve.precision, ".-", color=colour, label=name)
    left.set(xlim=(0, 1.02), ylim=(0, 1.02))
    label(left, "recall", "precision")
    image = right.imshow(scores, aspect="auto", cmap="viridis")
    fig.colorbar(image, ax=right, label="mean spikes")
    label(right, "place", "query")
    with writing(path) as stream:
        fig.savefig(stream, format=path.suffix[1:] or "png", dpi=150)
    return path


app.command("fixed-points")(fixed_points)
app.command("laziness")(laziness)
app.command("memory")(memory)
