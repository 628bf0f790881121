"""Language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.language_input import Layer, MaxLength, ModelName, Pool, Texts, read_texts
from broadsheet.cli.output import console, number, print_json, table
from broadsheet.cli.pages import AsJson

if TYPE_CHECKING:
    import numpy as np

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
    rows, options = read_texts(texts, LEAST, WHY), {"pool": pool, "layer": layer, "max_length": max_length}
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
    pool: Pool = "last",
    layer: Layer = -1,
    max_length: MaxLength = 128,
    draws: Annotated[int, typer.Option(min=20, help="Resamples of the texts, for the intervals.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Two models on the same texts: their readings, and the direction in which the second has moved."""
    from broadsheet.language.geometry import bootstrap, direction, measure, spectrum

    rows = read_texts(texts, LEAST, WHY)
    states = [_states(name, None, rows, pool=pool, layer=layer, max_length=max_length) for name in (first, second)]
    change = bootstrap(*states, draws=draws)
    found = list(zip((first, second), (measure(spectrum(part)) for part in states), strict=True))
    if as_json:
        models = [{"model": name, **readings} for name, readings in found]
        print_json({"texts": len(rows), "models": models, "change": change, "direction": direction(change)})
        return
    _show(f"{len(rows)} texts", "model", found)
    said = ", ".join(f"{name} {number(low)} to {number(high)}" for name, (low, high) in change.items())
    print(f"From the first to the second: {direction(change)} (95 % intervals of the change: {said}).")


def _states(name: str, revision: str | None, texts: list[str], **options: Any) -> np.ndarray:
    """Features (texts, width) of a model."""
    import numpy as np

    from broadsheet.language.models import load, positions
    from broadsheet.language.tracking import model_features

    model, words = load(name, revision)
    if (most := positions(model)) is not None and most < options["max_length"]:
        typer.echo(f"{name} has {most} positions: longer texts are cut there.", err=True)
    if model.config.is_encoder_decoder:
        typer.echo(f"{name} is an encoder-decoder model: its encoder is read.", err=True)
    found = np.concatenate(list(model_features(model, words, texts, **options)))
    if len(found) < 3 * found.shape[1]:
        typer.echo(
            f"{len(found)} texts for a width of {found.shape[1]}: the rank is biased low, compare at equal texts.", err=True
        )
    return found


def _show(title: str, name: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    right = {"justify": "right"}
    columns: list[str | tuple[str, dict[str, Any]]] = [name, *((reading.replace("_", " "), right) for reading in READINGS)]
    console().print(table(columns, [(key, *(number(row[r]) for r in READINGS)) for key, row in rows], title))
