"""Where a user's recurrent network stands still, and what it does around these points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError


def fixed_points(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A recurrent network of one layer: .safetensors, described, or .onnx.")
    ],
    inputs: Annotated[
        Path,
        typer.Option(help="A .npy, or a .npz with one array: constant inputs (conditions, inputs), or sequences of them "
                     "(sequences, steps, inputs)."),
    ],
    hold: Annotated[
        Literal["mean", "zero", "last"], typer.Option(help="Which constant input the points of sequences are sought under.")
    ] = "mean",
    starts: Annotated[int, typer.Option(min=1, max=100_000, help="Starts for each constant input.")] = 200,
    spread: Annotated[
        float, typer.Option(min=0, help="Starts are visited states and noise, so many standard deviations of the states.")
    ] = 0.5,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="First steps that no start is taken from.")] = 10,
    steps: Annotated[int, typer.Option(min=2, help="Steps under each constant input.")] = 200,
    slow: Annotated[float, typer.Option(min=0, help="Largest change a step of a slow point, as a share of 1 + |h|.")] = 0.02,
    out: Findings = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Fixed and slow points of a recurrent network, and the spectra of its Jacobian there.

    Under each constant input the speed |f(h) - h|² / 2 is minimised from states that the network visits (by Adam, then
    Newton's method). With --out the findings go to a JSON file, and to a figure beside it: points in the plane of the
    trajectories' first two principal components, and eigenvalues in the complex plane.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from broadsheet.conversion.rnn_files import read_rnn
    from broadsheet.dynamics.fixed_points import FlatUpdate, find_fixed_points
    from broadsheet.files import load_arrays

    check_findings(out)
    net = read_rnn(model)
    arrays = list(load_arrays(inputs).values())
    if len(arrays) != 1 or arrays[0].ndim not in (2, 3) or arrays[0].dtype.kind not in "biuf" or not arrays[0].size:
        raise DataError(f"{inputs} should hold one array of numbers, (conditions, inputs) or (sequences, steps, inputs).")
    given = np.asarray(arrays[0], np.float64)
    width = int((net.w_in if hasattr(net, "w_in") else net.cell.weight_ih).shape[1])
    if given.shape[-1] != width:
        raise DataError(f"{inputs} has {given.shape[-1]} inputs a step, and {model} takes {width}.")
    if not np.isfinite(given).all():
        raise DataError(f"{inputs} holds NaN or infinity; finite numbers are wanted.")
    if given.ndim == 2:
        held, driven = given, np.repeat(given[:, None], max(steps, warm_up + 2), axis=1)
    else:
        if given.shape[1] <= warm_up:
            raise DataError(f"{inputs}: sequences of {given.shape[1]} steps are not longer than the warm-up of {warm_up}.")
        kept = {"mean": given.mean(axis=(0, 1))[None], "zero": np.zeros((1, width)), "last": np.unique(given[:, -1], axis=0)}
        held, driven = kept[hold], given
    with jax.enable_x64(True):
        update = FlatUpdate(jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, net))
        first = update.start()

        @jax.jit
        def paths(driven: Any) -> Any:
            def step(h: Any, x: Any) -> tuple[Any, Any]:
                h = update(h, x)
                return h, h

            return jax.vmap(lambda one: jax.lax.scan(step, first, one)[1])(driven)

        visited = np.asarray(paths(jnp.asarray(driven)))
        if not np.isfinite(visited).all() or np.abs(visited).max() > 1e8:
            raise DataError(
                f"{model}: its states grow without bound on these inputs (spectral radius of its recurrent weights "
                f"{_radius(net):.3g}), so that there are no trajectories to start from."
            )
        rng = np.random.default_rng(seed)
        found = []
        with bar(f"{len(held)} inputs, {starts} starts each") as show:
            for k, x in enumerate(held):
                pool = visited[k if given.ndim == 2 else slice(None), ..., warm_up:, :].reshape(-1, visited.shape[-1])
                drawn = pool[rng.integers(len(pool), size=starts)]
                drawn = drawn + spread * (visited.std() or 1.0) * rng.standard_normal(drawn.shape)
                found.append(find_fixed_points(update, jnp.asarray(drawn), jnp.asarray(x), slow=slow, tolerance=1e-8))
                show((k + 1) / len(held), f"{len(found[-1].points)} points")
    points = [_point(each, i, k) for k, each in enumerate(found) for i in range(len(each.points))]
    result: dict[str, Any] = {
        "model": str(model), "units": int(visited.shape[-1]), "inputs": held.tolist(), "starts": starts,
        "lost": [each.lost for each in found], "recurrent_radius": _radius(net), "points": points,
    }  # fmt: skip
    result = write_findings(out, result, lambda: _figure(found, visited[:, warm_up:]))
    if as_json:
        print_json(result)
        return
    _print(result)


def _radius(net: Any) -> float:
    """Spectral radius of the recurrent weights; of gated networks the largest of their blocks."""
    import numpy as np

    weights = np.asarray(net.w_rec if hasattr(net, "w_rec") else net.cell.weight_hh, np.float64)
    blocks = weights.reshape(-1, weights.shape[1], weights.shape[1])
    return float(np.abs(np.linalg.eigvals(blocks)).max())


def _point(found: Any, i: int, k: int) -> dict[str, Any]:
    return {
        "input": k, "kind": "fixed" if found.fixed[i] else "slow", "stable": bool(found.stable[i]),
        "speed": float(found.speeds[i]), "radius": float(found.radius[i]), "unstable": int(found.unstable[i]),
        "starts": int(found.starts[i]), "state": found.points[i].tolist(),
        "eigenvalues": [[float(z.real), float(z.imag)] for z in found.eigenvalues[i]],
    }  # fmt: skip


def _figure(found: list[Any], visited: Any) -> Any:
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, figure, label

    states = visited.reshape(-1, visited.shape[-1])
    centre = states.mean(axis=0)
    axes_of = np.linalg.svd(states - centre, full_matrices=False)[2]
    plane = np.zeros((2, states.shape[1]))
    plane[: min(2, len(axes_of))] = axes_of[:2]
    fig, (left, right) = figure(2)
    for path in visited[:50]:
        left.plot(*((path - centre) @ plane.T).T, color=CONTROL_COLOUR, lw=0.4, zorder=1)
    points = np.concatenate([each.points for each in found])
    fixed, stable = (np.concatenate([getattr(each, name) for each in found]) for name in ("fixed", "stable"))
    values = np.concatenate([each.eigenvalues for each in found])
    kinds = (
        ("stable", stable, {"marker": "o"}), ("unstable", fixed & ~stable, {"marker": "o", "facecolors": "none"}),
        ("slow", ~fixed, {"marker": "x"}),
    )  # fmt: skip
    for (name, chosen, style), colour in zip(kinds, COLOURS, strict=False):
        if chosen.any():
            shown = style | ({"edgecolors": colour} if "facecolors" in style else {"color": colour})
            left.scatter(*((points[chosen] - centre) @ plane.T).T, s=24, zorder=2, label=f"{name} ({chosen.sum()})", **shown)
            z = values[chosen].ravel()
            right.plot(z.real, z.imag, ".", ms=4, color=colour, label=name)
    turn = np.linspace(0, 2 * np.pi, 200)
    right.plot(np.cos(turn), np.sin(turn), color="k", lw=0.6)
    right.set_aspect("equal")
    label(left, "first principal component", "second principal component", "points, and trajectories in grey")
    label(right, "real part", "imaginary part", "eigenvalues, and the unit circle")
    return fig


def _print(result: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = [
        ("input", right), "kind", *((name, right) for name in ("speed", "largest |λ|", "unstable directions", "starts")),
    ]  # fmt: skip
    rows = [
        (str(each["input"] + 1), f"{'stable' if each['stable'] else 'unstable'} fixed" if each["kind"] == "fixed" else "slow",
         number(each["speed"]), number(each["radius"]), str(each["unstable"]), str(each["starts"]))
        for each in result["points"][:40]
    ]  # fmt: skip
    lost = sum(result["lost"])
    tried = result["starts"] * len(result["inputs"])
    title = f"{len(result['points'])} points of {result['units']} units; {lost} of {tried} starts lost"
    console().print(table(columns, rows, title))
    if len(result["points"]) > len(rows):
        print(f"{len(result['points']) - len(rows)} more are in the JSON.")
    if "findings" in result:
        print(f"Written to {result['findings']}, {result['figure']}.")
