"""Language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device, Layer, MaxLength, ModelName, Pool, Precision, Texts, read_texts
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from broadsheet.language.labelled import Labelled

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

LEAST, WHY = 10, ", and several times the width"
READINGS = ("rankme", "alpha", "r2", "participation_ratio", "stable_rank")


@app.callback()
def _group() -> None:
    pass


@app.command("geometry")
def geometry(
    model: ModelName,
    texts: Texts,
    revisions: Annotated[str | None, typer.Option(metavar="A,B,C", help="Revisions to follow, in order.")] = None,
    pool: Pool = "last",
    layer: Layer = -1,
    max_length: MaxLength = 128,
    as_json: AsJson = False,
) -> None:
    """Effective rank and spectral decay of a model's representations, over its revisions where some are named.

    Causal language models and encoders; of an encoder-decoder model (T5, BART) the encoder. The decay is fitted over the ranks
    that the texts have: one less than their number at most, and none that is rounding noise.
    """
    from broadsheet.language.geometry import measure, spectrum

    names = [name.strip() or None for name in revisions.split(",")] if revisions else [None]
    rows = read_texts(texts, LEAST, WHY)
    options: dict[str, Any] = {"pool": pool, "layer": layer, "max_length": max_length}
    found = [{"revision": name, **measure(spectrum(_states(model, name, rows, **options)[0]))} for name in names]
    if as_json:
        print_json({"model": model, "texts": len(rows), "pool": pool, "layer": layer, "checkpoints": found})
        return
    _show(f"{model}, {len(rows)} texts", "revision", [(row["revision"] or "default", row) for row in found])


@app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(metavar="MODEL")],
    second: Annotated[str, typer.Argument(metavar="MODEL")],
    texts: Texts,
    labelled: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled texts, as of `directions`: how alike both models' are.")
    ] = None,
    pool: Pool = "last",
    layer: Layer = -1,
    max_length: MaxLength = 128,
    draws: Annotated[int, typer.Option(min=20, help="Resamples of the texts, for the intervals.")] = 100,
    device: Device = "cpu",
    dtype: Precision = "float32",
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """Two models on the same texts: their readings, and the direction in which the second has moved.

    Of causal language models also how sure they are of the texts (entropy of the next token, nats; largest probability;
    calibration error), the overlap of their entropy neurons, and with --labelled the cosine of their directions, by block.
    Interrupted, the same command goes on with the model that was not done.
    """
    from broadsheet.cache import checksum, unfinished
    from broadsheet.language.geometry import bootstrap, direction, measure, spectrum
    from broadsheet.language.labelled import read_labelled
    from broadsheet.language.models import model_identity

    check_findings(out)
    rows = read_texts(texts, LEAST, WHY)
    apart = read_labelled(labelled) if labelled else None
    options: dict[str, Any] = {"pool": pool, "layer": layer, "max_length": max_length, "device": device, "dtype": dtype}
    work = options | {
        "models": [model_identity(name) for name in (first, second)], "texts": checksum(texts),
        "labelled": checksum(labelled) if labelled else None,
    }  # fmt: skip
    states, inside = [], []
    with unfinished("compare", work) as folder, bar("compare") as tell:
        for k, name in enumerate((first, second)):
            tell(k / 2, name)
            one, own = _kept(
                folder / f"{k}.npz", lambda name=name: _states(name, None, rows, apart=apart, inside=True, **options)
            )
            states.append(one)
            inside.append(own)
        change = bootstrap(*states, draws=draws)
    spectra = [spectrum(part) for part in states]
    found = list(zip((first, second), map(measure, spectra), strict=True))
    alike = _alike(*inside)
    models = [
        {"model": name, **readings, **({"confidence": own["confidence"]} if own else {})}
        for (name, readings), own in zip(found, inside, strict=True)
    ]
    findings = {"texts": len(rows), "models": models, "change": change, "direction": direction(change), **alike}
    findings = write_findings(out, findings, lambda: _picture((first, second), spectra, inside, alike))
    if as_json:
        print_json(findings)
        return
    _show(f"{len(rows)} texts", "model", found)
    said = ", ".join(f"{name} {number(low)} to {number(high)}" for name, (low, high) in change.items())
    print(f"From the first to the second: {direction(change)} (95 % intervals of the change: {said}).")
    for name, own in zip((first, second), inside, strict=True):
        if own:
            print(f"{name}: {', '.join(f'{key} {number(value)}' for key, value in own['confidence'].items())}.")
    if (overlap := alike.get("entropy_neurons")) is not None:
        print(f"Entropy neurons in common: {number(overlap['overlap'])} of those of either (intersection over union).")
    if "cosines" in alike:
        print(f"Cosine of the directions of {labelled}, by block: {', '.join(map(number, alike['cosines']))}.")
    if out is not None:
        print(f"Written to {findings['findings']} and {findings['figure']}.")


def _inside(model: Any, words: Any, texts: list[str], apart: Labelled | None, max_length: int) -> dict[str, Any]:
    """How sure a causal model is of texts, its entropy neurons where it has an MLP for them, and its directions by block."""
    from broadsheet.language.confidence import entropy_neurons, read_confidence
    from broadsheet.language.directions import mass_mean_by_block
    from broadsheet.language.tracking import token_rows

    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        if apart is not None:
            typer.echo(f"A {type(model).__name__} is no causal language model: no directions are looked at.", err=True)
        return {}
    rows = [row for row in token_rows(model, words, texts, max_length) if len(row) > 1]
    found: dict[str, Any] = {"confidence": read_confidence(model, rows).summary() if rows else {}}
    try:
        found["neurons"] = entropy_neurons(model).candidates
    except InputError as error:
        typer.echo(f"Entropy neurons are left out. {error}", err=True)
    if apart is not None:
        rows = token_rows(model, words, apart.texts, max_length)
        found["directions"] = mass_mean_by_block(model, rows, apart.labels, apart.groups)
    return found


def _alike(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two models' neurons and directions have in common."""
    from broadsheet.language.confidence import iou
    from broadsheet.language.directions import cosines

    found: dict[str, Any] = {}
    if "neurons" in one and "neurons" in other:
        sets = [sorted(map(int, each["neurons"])) for each in (one, other)]
        found["entropy_neurons"] = {"overlap": iou(*sets), "candidates": sets}
    if "directions" in one and "directions" in other:
        if one["directions"].shape != other["directions"].shape:
            typer.echo("The models differ in blocks or width: their directions are not compared.", err=True)
        else:
            found["cosines"] = cosines(one["directions"], other["directions"]).tolist()
    return found


def _states(
    name: str,
    revision: str | None,
    texts: list[str],
    *,
    inside: bool = False,
    apart: Labelled | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    **options: Any,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features (texts, width) of a model, and what `_inside` finds where that is asked for."""
    import numpy as np

    from broadsheet.language.models import load, load_on, positions
    from broadsheet.language.tracking import model_features

    model, words = load(name, revision) if revision else load_on(device, name, precision=dtype)
    if (most := positions(model)) is not None and most < options["max_length"]:
        typer.echo(f"{name} has {most} positions: longer texts are cut there.", err=True)
    if model.config.is_encoder_decoder:
        typer.echo(f"{name} is an encoder-decoder model: its encoder is read.", err=True)
    found = np.concatenate(list(model_features(model, words, texts, **options)))
    if len(found) < 3 * found.shape[1]:
        typer.echo(
            f"{len(found)} texts for a width of {found.shape[1]}: the rank is biased low, compare at equal texts.", err=True
        )
    return found, _inside(model, words, texts, apart, options["max_length"]) if inside else {}


def _kept(file: Path, look: Callable[[], tuple[np.ndarray, dict[str, Any]]]) -> tuple[np.ndarray, dict[str, Any]]:
    """What was found of a model: from the file of an unfinished work, or looked at now and kept there."""
    import json

    import numpy as np

    from broadsheet.cache import writing
    from broadsheet.files import load_arrays

    if not file.is_file():
        states, own = look()
        arrays: dict[str, Any] = {f"own_{key}": np.asarray(value) for key, value in own.items() if key != "confidence"}
        said = np.frombuffer(json.dumps(own.get("confidence")).encode(), np.uint8)
        with writing(file) as stream:
            np.savez(stream, states=states, confidence=said, **arrays)
    held = load_arrays(file)
    own = {key.removeprefix("own_"): value for key, value in held.items() if key.startswith("own_")}
    confidence = json.loads(held["confidence"].tobytes())
    return held["states"], own if confidence is None else own | {"confidence": confidence}


def _picture(names: tuple[str, str], spectra: list[Any], inside: list[dict[str, Any]], alike: dict[str, Any]) -> Any:
    """The spectra of both models, and how alike their directions are by block, or how sure the models are."""
    import numpy as np

    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    colours = (CONTROL_COLOUR, SYSTEM_COLOUR)
    fig, (left, right) = figure(2)
    for values, colour, name in zip(spectra, colours, names, strict=True):
        left.loglog(np.arange(1, len(values) + 1), values / values.sum(), color=colour, label=name)
    label(left, "rank", "share of the variance")
    if "cosines" in alike:
        right.plot(alike["cosines"], "o-", color=SYSTEM_COLOUR)
        right.axhline(0, color="k", lw=0.6)
        right.set_xticks(range(0, len(alike["cosines"]), -(-len(alike["cosines"]) // 12)))
        label(right, "block", "cosine of the directions", legend=False)
        return fig
    for shift, own, colour, name in zip((-0.2, 0.2), inside, colours, names, strict=True):
        sure = own.get("confidence", {})
        right.bar(np.arange(len(sure)) + shift, list(sure.values()), 0.4, color=colour, label=name)
        right.set_xticks(range(len(sure)), [key.replace("_", " ") for key in sure])
    label(right, "on the texts", "nats (entropy), or a share")
    return fig


def _show(title: str, name: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    right = {"justify": "right"}
    columns: list[str | tuple[str, dict[str, Any]]] = [name, *((reading.replace("_", " "), right) for reading in READINGS)]
    console().print(table(columns, [(key, *(number(row[r]) for r in READINGS)) for key, row in rows], title))
