"""Directions in a model that stand for a label of texts: fitted, carried over to another model, saved and read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device, MaxLength, ModelName, Precision
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from broadsheet.language.directions import Direction
    from broadsheet.language.labelled import Labelled
    from broadsheet.language.states import Spool

TEXTS = (
    "CSV or JSON lines with text (or statement), label (1 or 0) and, if any, group and polarity; or a folder of such files, "
    "each a group."
)


def directions(
    model: ModelName,
    texts: Annotated[Path, typer.Option("--texts", metavar="FILE", help=TEXTS)],
    layer: Annotated[int | None, typer.Option(help="Block, from 0; by default the best on texts held out.")] = None,
    position: Annotated[int, typer.Option(max=-1, help="Token at which states are read, from the end: -1 the last.")] = -1,
    kind: Annotated[str, typer.Option(help="mass-mean, or ttpd, which needs negated texts as well.")] = "mass-mean",
    transfer: Annotated[str | None, typer.Option(metavar="OTHER", help="A second model: each direction in the other.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="Where the direction goes.")] = None,
    load: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="A saved direction instead of a new one.")
    ] = None,
    max_length: MaxLength = 128,
    device: Device = "cpu",
    dtype: Precision = "float32",
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """The direction in a model's states that tells two kinds of texts apart, such as true and false statements.

    It is the difference of the labels' mean states, with each group centred; its accuracy is of groups held out in turn (of a
    single group: of five parts). With --transfer also how alike the directions of both models are, block by block, and how well
    each serves in the other. Interrupted, the same command goes on behind the last batch.
    """
    from broadsheet.language.directions import KINDS, Direction
    from broadsheet.language.labelled import read_labelled
    from broadsheet.language.models import model_identity

    check_findings(out)
    if kind not in KINDS:
        raise InputError(f"--kind is {kind!r}; {' or '.join(KINDS)} is wanted.")
    if save is not None and save.suffix != ".safetensors":
        raise InputError(f"--save {save}: directions are written as .safetensors.")
    if load is not None and (save or transfer or layer is not None):
        raise InputError("--load takes a direction as it is, and goes without --layer, --transfer and --save.")
    if transfer == model:
        raise InputError("--transfer names the same model; another is wanted.")
    known = Direction.load(load) if load else None
    found = read_labelled(texts)
    names = [model, *([transfer] if transfer else [])]
    options: dict[str, Any] = {"max_length": max_length, "device": device, "precision": dtype}
    with _spools(names, texts, found, position if known is None else known.position, **options) as spools:
        if known is None:
            made, report, along = _fit(spools, found, layer, position, kind, model_identity(model))
        else:
            if known.model != model_identity(model):
                typer.echo(f"{load} was fitted on another model ({known.model or 'not named'}).", err=True)
            made, report, along = _judge(spools[model], found, known)
    if save is not None:
        report["saved"] = str(made.save(save))
    report = {"model": model, "texts": len(found), "groups": len(set(found.groups)), "layer": made.layer,
              "position": made.position, "kind": made.kind, "length": made.norm, **report}  # fmt: skip
    report = write_findings(out, report, lambda: _figure(report, along, found))
    if as_json:
        print_json(report)
    else:
        _show(report)


@contextmanager
def _spools(
    names: list[str], path: Path, found: Labelled, position: int, *, max_length: int, device: str, precision: str
) -> Iterator[dict[str, Spool]]:
    """The states of the texts in each model, by its name: on the disk until the end."""
    from broadsheet.cache import checksum, unfinished
    from broadsheet.language.anatomy import blocks
    from broadsheet.language.models import load_on, model_identity
    from broadsheet.language.states import Spool
    from broadsheet.language.tracking import token_rows

    made = {}
    with ExitStack() as stack, bar("directions") as tell:
        for k, name in enumerate(names):
            work = {"model": model_identity(name), "texts": checksum(path), "position": position, "length": max_length}
            folder = stack.enter_context(unfinished("directions", {**work, "precision": precision}))
            model, words = load_on(device, name, precision=precision)
            rows = token_rows(model, words, found.texts, max_length)

            def report(done: float, name: str = name, k: int = k) -> None:
                tell((k + done) / len(names), name)

            made[name] = Spool(folder, range(len(blocks(model))), len(rows)).write(
                model, rows, position=position, report=report
            )  # fmt: skip
            del model
        yield made


def _fit(
    spools: dict[str, Spool], found: Labelled, layer: int | None, position: int, kind: str, identity: str
) -> tuple[Direction, dict[str, Any], np.ndarray]:
    """The direction of the first model, what is reported of it, and the texts' places along it; a layer at a time is read."""
    from broadsheet.language.directions import Direction, centred, cosine, mass_mean, separation, transfer_table

    (_, here), *others = spools.items()
    there = others[0][1] if others else None
    blocks = [k for k in here.layers if there is None or k in there.layers]
    if layer is not None and layer not in blocks:
        raise InputError(f"Block {layer} does not exist; there are {len(blocks)}, counted from 0.")
    labels, groups = found.labels, found.groups
    by_block: list[dict[str, Any]] = []
    for k in blocks:
        states = {"own": here.read(k), **({"other": there.read(k)} if there else {})}
        right = transfer_table(states, labels, groups, kind=kind, polarities=found.polarities)
        row: dict[str, Any] = {"layer": k, "accuracy": right["own", "own"]}
        if there is not None:
            row["cosine"] = cosine(*(mass_mean(x, labels, groups) for x in states.values()))
            row["accuracies"] = {f"{a} in {b}": value for (a, b), value in right.items()}
        by_block.append(row)
    chosen = max(by_block, key=lambda row: row["accuracy"])["layer"] if layer is None else layer
    own = here.read(chosen)
    made = Direction.fit(
        own, labels, groups, layer=chosen, position=position, model=identity, kind=kind, polarities=found.polarities
    )
    of = next(row for row in by_block if row["layer"] == chosen)
    report = {"accuracy": of["accuracy"], "separation": separation(own, labels, made.vector, groups)}
    if others:
        report |= {"other": others[0][0], "cosine": of["cosine"], "accuracies": of["accuracies"]}
    return made, report | {"blocks": by_block}, centred(own, groups) @ made.unit


def _judge(spool: Spool, found: Labelled, known: Direction) -> tuple[Direction, dict[str, Any], np.ndarray]:
    """The same of a direction that is known, on texts that it was not fitted on."""
    from broadsheet.language.directions import centred, separation

    if known.layer not in spool.layers:
        raise InputError(f"The direction is of block {known.layer}; the model has {len(spool.layers)}, counted from 0.")
    states = spool.read(known.layer)
    right = known.accuracy(states, found.labels, found.groups)
    report = {"accuracy": right, "separation": separation(states, found.labels, known.vector, found.groups)}
    return known, report, centred(states, found.groups) @ known.unit


def _figure(report: dict[str, Any], along: np.ndarray, found: Labelled) -> Any:
    """The texts along the direction; and by block its accuracy, and how alike two models' are."""
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    rows = report.get("blocks", [])
    fig, axes = figure(2 if rows else 1)
    left = axes[0] if rows else axes
    bins = np.linspace(along.min(), along.max(), 31)
    for value, colour in ((1, SYSTEM_COLOUR), (0, COLOURS[1])):
        left.hist(along[found.labels == value], bins, color=colour, alpha=0.6, label=f"label {value}")
    label(left, f"along the direction, after block {report['layer']}", "texts")
    if rows:
        at = [row["layer"] for row in rows]
        axes[1].plot(at, [row["accuracy"] for row in rows], "o-", color=SYSTEM_COLOUR, label="accuracy, texts held out")
        if "cosine" in report:
            axes[1].plot(at, [row["accuracies"]["own in other"] for row in rows], "^--", color=COLOURS[1],
                         label="in the other model")  # fmt: skip
            axes[1].plot(at, [row["cosine"] for row in rows], "s:", color=COLOURS[2], label="cosine of both directions")
        axes[1].axhline(0.5, color=CONTROL_COLOUR, lw=0.8, label="chance")
        axes[1].xaxis.get_major_locator().set_params(integer=True)
        label(axes[1], "block", "share, or cosine")
    return fig


def _show(report: dict[str, Any]) -> None:
    right = {"justify": "right"}
    if rows := report.get("blocks"):
        columns: list[Any] = ["block", ("accuracy", right)]
        cells = [[f"{row['layer']}{' *' if row['layer'] == report['layer'] else ''}", number(row["accuracy"])] for row in rows]
        if "cosine" in report:
            columns += [("cosine", right), *((name, right) for name in rows[0]["accuracies"] if name != "own in own")]
            for cell, row in zip(cells, rows, strict=True):
                cell += [number(row["cosine"]), *(number(v) for name, v in row["accuracies"].items() if name != "own in own")]
        console().print(table(columns, cells, f"{report['model']}, {report['texts']} texts in {report['groups']} groups"))
    print(
        f"After block {report['layer']} at token {report['position']}: accuracy {number(report['accuracy'])}, "
        f"separation {number(report['separation'])} (d'), length {number(report['length'])}."
        + (f" Saved: {report['saved']}." if "saved" in report else "")
    )
