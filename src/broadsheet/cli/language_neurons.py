"""Neurons that are named for a word: found from the weights alone, and held at values while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device, ModelName, Precision, read_texts
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError, MissingDataError

if TYPE_CHECKING:
    import numpy as np

    from broadsheet.language.clamp_effects import ClampCurve

VALUES = "-20,-10,-5,0,5,10,20"


def neurons(
    model: ModelName,
    token: Annotated[str, typer.Option("--token", metavar="TEXT", help="A word that is one token, in any spelling.")],
    site: Annotated[str, typer.Option(help="The vector that names a neuron: up, gate (rows) or down (columns).")] = "up",
    norm: Annotated[str, typer.Option(help="raw, final_norm or cosine.")] = "raw",
    fold: Annotated[bool, typer.Option("--fold", help="Multiply rows with the gain of the norm before the MLP.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Neurons to list.")] = 10,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Clamp neurons after it; may be given again.")
    ] = None,
    clamped: Annotated[int, typer.Option("--clamp", min=1, help="How many of the neurons are clamped.")] = 3,
    values: Annotated[str, typer.Option(metavar="A,B,C", help="Values that they are held at.")] = VALUES,
    hold: Annotated[str, typer.Option(help="up (before the gate) or hidden (the whole activation).")] = "up",
    controls: Annotated[int, typer.Option(min=0, help="Random neurons beside each.")] = 20,
    texts: Annotated[
        Path | None, typer.Option("--texts", metavar="FILE", help="Other texts, one a line: what the clamps do to them.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="OTHER", help="A second model: how many neurons share their name.")
    ] = None,
    device: Device = "cpu",
    dtype: Precision = "float32",
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """The MLP neurons whose weights point to a word, and with --prompt what holding them at values does to it.

    Finding reads the weights layer by layer from safetensors, without loading the model; --prompt loads it. Interrupted, the
    same command goes on behind the last layer.
    """
    from broadsheet.language.feature_neurons import agreement
    from broadsheet.language.models import load_tokenizer
    from broadsheet.language.word_variants import variants

    check_findings(out)
    held_at = _numbers(values)
    if hold not in ("up", "hidden"):
        raise InputError(f"--hold is {hold!r}; up or hidden can be held.")
    if texts is not None and not prompt:
        raise InputError("--texts says what the clamps do to other texts; it goes with --prompt.")
    if against == model:
        raise InputError("--against names the same model; another is wanted.")
    others = read_texts(texts, 1) if texts is not None else []
    words = load_tokenizer(model)
    tokens = variants(words, token)
    found, layers = _find(model, tokens, site, norm, fold, top)
    rows = [{"layer": each.layer, "neuron": each.neuron, "token": words.decode([each.token]), "score": each.score, "z": each.z}
            for each in found]  # fmt: skip
    report: dict[str, Any] = {"model": model, "token": token, "tokens": words.batch_decode([[each] for each in tokens]),
                              "site": site, "norm": norm, "folded": fold, "neurons": rows, "layers": layers}  # fmt: skip
    curves: list[tuple[str, ClampCurve]] = []
    if prompt:
        chosen = [(each.layer, each.neuron, each.token) for each in found[:clamped]]
        curves, report["side_effects"] = _clamp(model, prompt, chosen, held_at, hold, controls, others, device, dtype)
        report["clamps"] = [_curve_row(text, curve) for text, curve in curves]
    if against is not None:
        total, by_layer = agreement(*(_map(name, site, norm, fold) for name in (model, against)))
        report |= {"against": against, "agreement": total, "agreement_by_layer": by_layer.tolist()}
    report = write_findings(out, report, lambda: _figure(report, curves))
    if as_json:
        print_json(report)
    else:
        _show(report)


def _numbers(text: str) -> list[float]:
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        raise InputError(f"--values {text}: numbers with commas between them are wanted.") from None
    if any(not -1e6 < each < 1e6 for each in found):
        raise InputError(f"--values {text}: finite numbers, of a size below a million, are wanted.")
    return sorted(set(found))


def _source(name: str) -> Any:
    """A folder with safetensors as it is; a model of any other file is loaded."""
    from broadsheet.language.models import load, model_folder
    from broadsheet.language.neuron_weights import neuron_weights

    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise MissingDataError(f"{name} has no config.json; a folder with a Hugging Face model is wanted.")
    return neuron_weights(folder if any(folder.glob("*.safetensors")) else load(name)[0])


def _find(name: str, tokens: list[int], site: str, norm: str, fold: bool, top: int) -> tuple[list[Any], list[float]]:
    """The neurons furthest out for any of some tokens, and the largest |z| of each layer."""
    import numpy as np

    from broadsheet.cache import unfinished
    from broadsheet.language.feature_neurons import named, token_z
    from broadsheet.language.models import model_identity

    work = {"model": model_identity(name), "tokens": tokens, "site": site, "norm": norm, "fold": fold}
    with unfinished("neurons", work) as folder, bar("neurons") as tell:
        scores, z = token_z(_source(name), tokens, site, norm, fold_layer_norm=fold, parts=folder, report=tell)
    return named(tokens, scores, z, top), np.abs(z).max((1, 2)).tolist()


def _map(name: str, site: str, norm: str, fold: bool) -> Any:
    """The first names of all neurons of a model."""
    from broadsheet.cache import unfinished
    from broadsheet.language.feature_neurons import decode_neurons
    from broadsheet.language.models import model_identity

    work = {"model": model_identity(name), "site": site, "norm": norm, "fold": fold}
    with unfinished("neuron-map", work) as folder, bar(f"names of {name}") as tell:
        return decode_neurons(_source(name), site, norm, topk=1, fold_layer_norm=fold, parts=folder, report=tell)


def _clamp(
    name: str,
    prompts: list[str],
    chosen: list[tuple[int, int, int]],
    values: list[float],
    hold: str,
    controls: int,
    others: list[str],
    device: str,
    precision: str,
) -> tuple[list[tuple[str, ClampCurve]], list[dict[str, float]]]:
    """A curve for each prompt and neuron, and what each neuron at each value does to other texts."""
    from broadsheet.language.clamp_effects import clamp_curve
    from broadsheet.language.clamps import side_effects
    from broadsheet.language.models import load_on
    from broadsheet.language.tracking import token_rows

    model, words = load_on(device, name, precision=precision)
    curves, effects = [], []
    rows = token_rows(model, words, others, 512) if others else []
    with bar("clamps") as tell:
        for k, (layer, neuron, token) in enumerate(chosen):
            for text in prompts:
                curve = clamp_curve(model, words, text, token, (layer, neuron), values, site=hold, controls=controls)
                curves.append((text, curve))
            for value in values if rows else ():
                effect = side_effects(model, rows, {(layer, neuron): value}, hold)
                effects.append({"layer": layer, "neuron": neuron, "value": value, **effect})
            tell((k + 1) / len(chosen), f"neuron {neuron} of layer {layer}")
    return curves, effects


def _curve_row(text: str, curve: ClampCurve) -> dict[str, Any]:
    """A curve as JSON."""
    import numpy as np

    def middle(values: np.ndarray) -> list[float]:
        return np.median(np.abs(values), axis=0).tolist() if len(values) else []

    return {
        "prompt": text, "layer": curve.neuron[0], "neuron": curve.neuron[1],
        "unclamped": curve.plain, "monotone": curve.monotone,
        **{name: getattr(curve, name).tolist() for name in ("values", "p", "rank", "kl", "effect")},
        "random": middle(curve.change), "random_same_push": middle(curve.matched),
    }  # fmt: skip


def _figure(report: dict[str, Any], curves: list[tuple[str, ClampCurve]]) -> Any:
    """Where named neurons are; p of the word over the clamps; names shared with the other model, by layer."""
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    panels: list[Callable[[Any], None]] = []

    def by_layer(axis: Any) -> None:
        axis.plot(report["layers"], "o-", ms=3, color=CONTROL_COLOUR, label="furthest of the layer")
        axis.plot([row["layer"] for row in report["neurons"]], [abs(row["z"]) for row in report["neurons"]], "D",
                  color=SYSTEM_COLOUR, ms=4, label="listed neurons")  # fmt: skip
        label(axis, "layer", f"|z| with {report['token']!r}"[:40])

    def clamps(axis: Any, text: str) -> None:
        mine = [curve for prompt, curve in curves if prompt == text]
        for k, curve in enumerate(mine):
            if len(curve.change) and k == 0:
                for values, style, name in ((curve.change, "--", "same value"), (curve.matched, ":", "same push")):
                    low, high = curve.plain * np.exp(np.quantile(values, [0.1, 0.9], axis=0))
                    axis.fill_between(curve.values, low, high, color=CONTROL_COLOUR, alpha=0.25, lw=0)
                    middle = curve.plain * np.exp(np.median(values, axis=0))
                    axis.plot(curve.values, middle, style, color=CONTROL_COLOUR, label=f"random, {name} (80 %)")
            axis.plot(curve.values, curve.p, "o-", ms=3, color=COLOURS[k % len(COLOURS)],
                      label=f"layer {curve.neuron[0]}, {curve.neuron[1]}")  # fmt: skip
        axis.axhline(mine[0].plain, color="black", lw=0.7, ls=":", label="no clamp")
        axis.set_yscale("log")
        label(axis, "value of the clamp", f"p of {report['token']!r}", text[-40:])

    def shared(axis: Any) -> None:
        axis.plot(report["agreement_by_layer"], "o-", ms=3, color=SYSTEM_COLOUR)
        axis.set_ylim(0, 1)
        label(axis, "layer", "same first name (share)", f"as {Path(report['against']).name[-30:]}")

    panels.append(by_layer)
    for text in dict.fromkeys(prompt for prompt, _ in curves):
        panels.append(lambda axis, text=text: clamps(axis, text))
    if "against" in report:
        panels.append(shared)
    fig, axes = figure(len(panels))
    for axis, draw in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
        draw(axis)
        if axis.get_xlabel() == "layer":
            axis.xaxis.get_major_locator().set_params(integer=True)
    return fig


def _show(report: dict[str, Any]) -> None:
    right = {"justify": "right"}
    rows = [(row["layer"], row["neuron"], row["token"], number(row["score"]), number(row["z"])) for row in report["neurons"]]
    named = ", ".join(repr(each) for each in report["tokens"])
    columns: list[Any] = [("layer", right), ("neuron", right), "token", ("score", right), ("z", right)]
    console().print(table(columns, rows, f"{report['model']}: {report['site']} and {report['norm']}, of {named}"))
    for curve in report.get("clamps", ()):
        steps = [(number(v), number(p), rank + 1, number(kl)) for v, p, rank, kl
                 in zip(curve["values"], curve["p"], curve["rank"], curve["kl"], strict=True)]  # fmt: skip
        title = f"neuron {curve['neuron']} of layer {curve['layer']} after {curve['prompt']!r}; p {number(curve['unclamped'])}"
        console().print(table([("value", right), ("p", right), ("rank", right), ("KL (nats)", right)], steps, title))
    if "against" in report:
        print(f"{report['agreement']:.1%} of the neurons have the same first name in {report['against']}.")
    for place in ("findings", "figure"):
        if place in report:
            print(f"{place}: {report[place]}")
