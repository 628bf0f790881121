"""How far training moved a user's network: its weights, its features and its tangent kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError, InputError

FAMILIES: tuple[Literal["recurrent", "input", "output"], ...] = ("recurrent", "input", "output")
MOST_ROWS = 12_000
"""Of a kernel: examples x steps x outputs; its numbers take 4 bytes each, 0.6 GB at most."""


def laziness(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The network before training: .safetensors or .onnx.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The same network after it.")],
    inputs: Annotated[
        Path, typer.Option("--inputs", metavar="FILE", help="A .npy or .npz of inputs (examples, time, inputs).")
    ],
    description: Annotated[
        Path | None,
        typer.Option("--description", metavar="FILE.json", help="What the .safetensors do not say: activation, alpha, names."),
    ] = None,
    step: Annotated[int, typer.Option(help="The step whose features are compared; -1: the last.")] = -1,
    kernel_steps: Annotated[
        int, typer.Option(min=1, help="Steps whose outputs make the kernels, evenly spread, the last among them.")
    ] = 8,
    examples: Annotated[int, typer.Option(min=2, help="So many first examples make the kernels.")] = 32,
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """How far did training move a recurrent network: weights, features and tangent kernels of two checkpoints.

    Alignments near 1 say that training was lazy: the network learned with the features it had. Small ones say that it was
    rich. Each kernel's alignment stands beside that with the trained network whose recurrent weights were shuffled, which
    keeps their sizes alone; the training kept nothing of the kernel that two unrelated networks do not share where the two
    are alike. Rate networks of any size are exact and need no Jacobians; LSTMs and GRUs go by these.
    """
    import numpy as np

    from broadsheet.conversion.rnn_files import read_rnn
    from broadsheet.files import load_arrays
    from broadsheet.networks.laziness import check_pair

    check_findings(out)
    nets = [read_rnn(path, description if path.suffix == ".safetensors" else None) for path in (before, after)]
    arrays = list(load_arrays(inputs).values())
    if len(arrays) != 1 or arrays[0].dtype.kind not in "biuf" or arrays[0].ndim != 3:
        said = ", ".join(f"{each.dtype} of {each.shape}" for each in arrays) or "nothing"
        raise DataError(f"{inputs} holds {said}; one array of real numbers (examples, time, inputs) is wanted.")
    x = np.asarray(arrays[0], np.float32)
    check_pair(nets[0], nets[1], x)
    time = x.shape[1]
    if not -time <= step < time:
        raise InputError(f"--step {step}: the inputs have {time} steps.")
    count = min(kernel_steps, time)
    chosen = sorted(time - 1 - k * time // count for k in range(count))
    with bar("weights, features and three kernels") as show:
        found = _compared(nets, x, step, chosen, examples, lambda share: show(share, f"{share:.0%}"))
    result = {"before": str(before), "after": str(after), "inputs": str(inputs), **found}
    curves = {name: result.pop(name) for name in ("spectra", "representation_by_step")}
    result = write_findings(out, result | (curves if out else {}), lambda: _figure(result, curves))
    if as_json:
        print_json(result)
        return
    _print(result)


def _compared(nets: list[Any], x: Any, step: int, steps: list[int], examples: int, report: Any) -> dict[str, Any]:
    import numpy as np

    from broadsheet.networks.laziness import alignment_or_nan, hidden_states, network_kernel, weights_of, with_shuffled

    outputs = len(weights_of(nets[0], "output"))
    few = x[:examples]
    rows = len(few) * len(steps) * outputs
    if rows > MOST_ROWS:
        raise InputError(
            f"{len(few)} examples, {len(steps)} steps and {outputs} outputs make kernels of {rows} rows; choose fewer with "
            f"--examples or --kernel-steps, {MOST_ROWS} at most."
        )
    states = [np.asarray(hidden_states(net, x), float) for net in nets]
    grams = [np.einsum("bti,cti->tbc", each, each) for each in states]
    dead = [not (gram[step] != 0).any() for gram in grams]
    if any(dead):
        raise DataError(f"No unit is active at step {step} {'before' if dead[0] else 'after'} training, on no example.")
    by_step = [alignment_or_nan(old, new) for old, new in zip(*grams, strict=True)]
    other = with_shuffled(nets[1], 0)
    kernels: dict[str, dict[str, float]] = {}
    for k, family in enumerate(FAMILIES):
        first, last, chance = (network_kernel(net, few, weights=family, steps=steps) for net in (*nets, other))
        kernels[family] = {"alignment": alignment_or_nan(first, last),
                           "shuffled": alignment_or_nan(first, chance)}  # fmt: skip
        report((k + 1) / 3)
    features = {
        "step": step, "representation": by_step[step],
        "signs": float((np.sign(states[0][:, step]) == np.sign(states[1][:, step])).mean()),
    }  # fmt: skip
    weights, spectra = _weights(nets)
    return {
        "units": states[0].shape[2], "examples": len(x), "steps": x.shape[1], "weights": weights, "features": features,
        "kernels": kernels, "kernel_examples": len(few), "kernel_steps": steps, "spectra": spectra,
        "representation_by_step": by_step,
    }  # fmt: skip


def _weights(nets: list[Any]) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Change of each family of weights, and the singular values of the recurrent ones and of their change."""
    import numpy as np

    from broadsheet.networks.laziness import weights_of
    from broadsheet.numerics.ranks import effective_rank

    def rank(matrix: Any) -> float:
        return effective_rank(matrix) if matrix.any() else float("nan")

    changes: dict[str, dict[str, float]] = {}
    spectra: dict[str, list[float]] = {}
    for family in FAMILIES:
        old, new = (np.asarray(weights_of(net, family), float) for net in nets)
        norm = np.linalg.norm(old)
        changes[family] = {
            "change": float(np.linalg.norm(new - old)),
            "relative_change": float(np.linalg.norm(new - old) / norm) if norm else float("nan"),
            "rank_before": rank(old), "rank_after": rank(new), "rank_of_change": rank(new - old),
        }  # fmt: skip
        if family == "recurrent":
            named = {"before": old, "after": new, "change": new - old}
            spectra = {name: np.linalg.svd(each, compute_uv=False).tolist() for name, each in named.items()}
    return changes, spectra


def _figure(result: dict[str, Any], curves: dict[str, Any]) -> Any:
    import numpy as np

    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, (left, middle, right) = figure(3, width=3.6)
    for (name, values), style in zip(curves["spectra"].items(), ("--", "-", ":"), strict=True):
        left.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-12), style, color=SYSTEM_COLOUR, label=name)
    left.set_ylim(bottom=max(min(values[-1] for values in curves["spectra"].values()), curves["spectra"]["after"][0] / 1e4))
    label(left, "place in order of size", "singular value", "recurrent weights")
    middle.plot(np.arange(len(curves["representation_by_step"])), curves["representation_by_step"], ".-", color=SYSTEM_COLOUR)
    middle.set_ylim(0, 1.05)
    label(middle, "step", "alignment of representations", "features, before and after", legend=False)
    families = list(result["kernels"])
    places = np.arange(len(families))
    for name, colour, aside in (("alignment", SYSTEM_COLOUR, -0.2), ("shuffled", CONTROL_COLOUR, 0.2)):
        heights = [result["kernels"][family][name] for family in families]
        said = {"alignment": "after training", "shuffled": "the same, recurrent weights shuffled"}[name]
        right.bar(places + aside, heights, 0.38, color=colour, label=said)
    right.set_xticks(places, families)
    right.set_ylim(0, 1.35)
    label(right, "kernel by the weights", "alignment with before", "tangent kernels")
    return fig


def _print(result: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = ["weights", *((name, right) for name in (
        "change", "relative", "rank before", "after", "of the change", "kernel alignment", "shuffled"))]  # fmt: skip
    rows = [
        (family, *map(number, each.values()), number(result["kernels"][family]["alignment"]),
         number(result["kernels"][family]["shuffled"]))
        for family, each in result["weights"].items()
    ]  # fmt: skip
    title = f"{result['units']} units, {result['examples']} examples of {result['steps']} steps; effective ranks"
    console().print(table(columns, rows, title))
    features = result["features"]
    print(
        f"Features at step {features['step']}: alignment {number(features['representation'])}, "
        f"{features['signs']:.0%} of the signs kept."
    )
    if "findings" in result:
        print(f"Written to {result['findings']}, {result['figure']}.")
