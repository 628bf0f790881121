"""Language models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.language_input import Layer, MaxLength, ModelName, Pool, Texts, read_texts
from broadsheet.cli.output import console, number, print_json, table
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
    found = [{"revision": name, **measure(spectrum(_states(model, name, rows, **options)))} for name in names]
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
    as_json: AsJson = False,
) -> None:
    """Two models on the same texts: their readings, and the direction in which the second has moved.

    Of causal language models also how sure they are of the texts (entropy of the next token, nats; largest probability;
    calibration error), the overlap of their entropy neurons, and with --labelled the cosine of their directions, by block.
    """
    from broadsheet.language.geometry import bootstrap, direction, measure, spectrum
    from broadsheet.language.labelled import read_labelled

    rows = read_texts(texts, LEAST, WHY)
    apart = read_labelled(labelled) if labelled else None
    inside: list[dict[str, Any]] = []
    states = []
    for name in (first, second):
        states.append(_states(name, None, rows, inside=(inside, apart), pool=pool, layer=layer, max_length=max_length))
    change = bootstrap(*states, draws=draws)
    found = list(zip((first, second), (measure(spectrum(part)) for part in states), strict=True))
    alike = _alike(*inside)
    if as_json:
        models = [
            {"model": name, **readings, **({"confidence": own["confidence"]} if own else {})}
            for (name, readings), own in zip(found, inside, strict=True)
        ]
        print_json({"texts": len(rows), "models": models, "change": change, "direction": direction(change), **alike})
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
    inside: tuple[list[dict[str, Any]], Labelled | None] | None = None,
    **options: Any,
) -> np.ndarray:
    """Features (texts, width) of a model; what `_inside` finds is put into a list where one is given."""
    import numpy as np

    from broadsheet.language.models import load, positions
    from broadsheet.language.tracking import model_features

    model, words = load(name, revision)
    if (most := positions(model)) is not None and most < options["max_length"]:
        typer.echo(f"{name} has {most} positions: longer texts are cut there.", err=True)
    if model.config.is_encoder_decoder:
        typer.echo(f"{name} is an encoder-decoder model: its encoder is read.", err=True)
    found = np.concatenate(list(model_features(model, words, texts, **options)))
    if inside is not None:
        inside[0].append(_inside(model, words, texts, inside[1], options["max_length"]))
    if len(found) < 3 * found.shape[1]:
        typer.echo(
            f"{len(found)} texts for a width of {found.shape[1]}: the rank is biased low, compare at equal texts.", err=True
        )
    return found


def _show(title: str, name: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    right = {"justify": "right"}
    columns: list[str | tuple[str, dict[str, Any]]] = [name, *((reading.replace("_", " "), right) for reading in READINGS)]
    console().print(table(columns, [(key, *(number(row[r]) for r in READINGS)) for key, row in rows], title))
