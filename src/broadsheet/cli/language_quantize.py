"""The verb that quantises a language model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import write_findings
from broadsheet.cli.language_input import Device, ModelName, read_texts
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson

if TYPE_CHECKING:
    from broadsheet.language.quantisation import Quantised

HELD_OUT = 8
"""Of so many lines one is held out."""


def quantize(
    model: ModelName,
    calibrate: Annotated[
        Path, typer.Option(metavar="FILE", help="Texts, one a line, UTF-8. Every eighth is held out for the perplexity.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the model, the findings and the figure.")],
    bits: Annotated[int, typer.Option(help="2 to 8; vLLM has kernels for 4 and 8.")] = 4,
    method: Annotated[str, typer.Option(help="flexround, adaround, adaquant, gptq or rtn (round to nearest).")] = "flexround",
    per: Annotated[str, typer.Option(help="What has a step of its own: channel, group or tensor.")] = "channel",
    group_size: Annotated[int, typer.Option(help="Inputs of a group.")] = 128,
    symmetric: Annotated[bool, typer.Option(help="Whether the grid lies around zero.")] = True,
    granularity: Annotated[str, typer.Option(help="What is reconstructed at once: block or layer.")] = "block",
    iters: Annotated[int, typer.Option(min=1, help="Steps of learning for each block (layer).")] = 500,
    lr: Annotated[float | None, typer.Option(help="Rate of Adam; by default the method's.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Windows of a step.")] = 4,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a window.")] = 512,
    most: Annotated[int, typer.Option(min=1, help="Windows that are used, at most.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the order of the windows.")] = 0,
    device: Device = "cpu",
    dtype: Annotated[
        str, typer.Option("--dtype", help="own (as the model is stored), float32, bfloat16 or float16: computed and written.")
    ] = "own",
    as_json: AsJson = False,
) -> None:
    """The weights of a causal language model as small integers, in a folder that Transformers and vLLM load.

    Decoder block by decoder block, so that the outputs on the calibration texts stay what they were; embeddings, norms and the
    unembedding are left alone. Interrupted, the same command goes on behind the last whole block.
    """
    from broadsheet.cache import checksum, unfinished
    from broadsheet.language.anatomy import unembedding
    from broadsheet.language.compressed import check_folder, check_writable, weight_bytes, write_compressed
    from broadsheet.language.models import load_on, model_identity
    from broadsheet.language.quantisation import peak_mb, perplexity, quantise, windows
    from broadsheet.language.quantisers import Scheme
    from broadsheet.language.reconstruction import Plan

    scheme = Scheme(bits=bits, symmetric=symmetric, per=per, group_size=group_size, clip=method not in ("rtn", "gptq"))
    options: dict[str, Any] = {"method": method, "granularity": granularity, "iters": iters, "lr": lr, "batch": batch}
    plan = Plan(scheme, **options, seed=seed)
    check_folder(out)
    texts = read_texts(calibrate, 2 * HELD_OUT, f": of {HELD_OUT} one is held out")
    loaded, words = load_on(device, model, precision=dtype)
    unembedding(loaded)  # an encoder has none
    check_writable(loaded)
    held = windows(loaded, words, texts[HELD_OUT - 1 :: HELD_OUT], length)
    ids = windows(loaded, words, [text for k, text in enumerate(texts) if (k + 1) % HELD_OUT], length)
    if len(ids) > most:
        typer.echo(f"Of {len(ids)} windows of {ids.shape[1]} tokens the first {most} are used (--most).", err=True)
        ids = ids[:most]
    full_bytes = sum(part.numel() * part.element_size() for part in loaded.parameters())
    before = perplexity(loaded, held, batch=batch)
    work = {"model": model_identity(model), "texts": checksum(calibrate), "plan": asdict(plan), "dtype": str(loaded.dtype)}
    with unfinished("quantize", {**work, "tokens": list(ids.shape)}) as folder:
        with bar("quantize") as tell:
            made = quantise(loaded, ids, scheme, **options, seed=seed, folder=folder, report=tell)
        write_compressed(out, loaded, words, made)
    found = {
        "model": model,
        "folder": str(out),
        **asdict(plan),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "calibration_tokens": ids.numel(),
        "held_out_tokens": held.numel(),
        "perplexity": {"before": before, "after": perplexity(loaded, held, batch=batch)},
        "bytes": {"before": full_bytes, "after": weight_bytes(out)},
        "seconds": made.seconds,
        "peak_mb": peak_mb(loaded.device),
        "block_errors": made.errors,
        "block_errors_nearest": made.nearest,
    }
    found = write_findings(out / "quantisation.json", found, lambda: _figure(made))
    if as_json:
        print_json(found)
        return
    rows = [
        ("perplexity, held-out lines", *(number(value) for value in found["perplexity"].values())),
        ("weights, MB", *(number(value / 1e6) for value in found["bytes"].values())),
    ]
    right = {"justify": "right"}
    console().print(table(["", ("before", right), ("after", right)], rows, f"{model}, {bits} bits, {method}"))
    print(f"{number(made.seconds)} s, at most {number(found['peak_mb'])} MB of memory; model and findings are in {out}.")


def _figure(made: Quantised) -> Any:
    """The error of each block, beside what rounding to nearest would have made of it."""
    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, axis = figure()
    counted = range(1, len(made.errors) + 1)
    axis.semilogy(counted, made.nearest, "s--", color=CONTROL_COLOUR, label="round to nearest, behind the same blocks")
    axis.semilogy(counted, made.errors, "o-", color=SYSTEM_COLOUR, label=f"{made.plan.method}, {made.plan.scheme.bits} bits")
    axis.xaxis.get_major_locator().set_params(integer=True)
    label(axis, "block", "relative squared error of its output")
    return fig
