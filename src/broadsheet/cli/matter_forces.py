"""Traction forces from images of adhesions, after calibration on frames whose forces were measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from broadsheet.matter.traction_estimators import NetForce
    from broadsheet.matter.traction_files import Frames

Kind = Literal["unet", "pbnn", "gfnn"]


def forces(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES.npy",
            help="Frames [L, L] or [frames, L, L]; a movie [frames, C, L, L] with channels u_x, u_y, F_x, F_y (Pa), mask, "
            "force mask, zyxin and perhaps another; or a folder of such frames, or of folders, one a cell.",
        ),
    ],
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", metavar="MEASURED", help="Frames with measured forces, to learn from first.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="FILE.safetensors", help="Where a calibration is written; without --calibrate, one to use."
        ),
    ] = None,
    pixel: Annotated[
        float, typer.Option("--pixel", min=0, help="Size of a pixel of the files, µm; wanted to calibrate.")
    ] = 0.0,
    kind: Annotated[
        Kind, typer.Option(help="U-Net, elastic sheet behind a network (masks wanted), or Green's functions.")
    ] = "unet",
    masks: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Masks of plain images: [frames, L, L].")] = None,
    measured_masks: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Masks of plain images in MEASURED.")] = None,
    measured_forces: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Forces of plain images in MEASURED, kPa: [frames, 2, L, L], x first."),
    ] = None,
    shrink: Annotated[int, typer.Option(min=1, help="Work on means over so many pixels a side.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 1000,
    channels: Annotated[int, typer.Option(min=1, help="Of the network.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights and batches.")] = 0,
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """Predict the traction forces of cells from images of zyxin or another protein of adhesions.

    Calibrate once, on frames with measured forces; what is learned is kept in --model and used on other frames of the same
    microscope. A fifth of the cells, or of the frames of a single one, is held out to say how far predictions can be trusted,
    beside two predictions that need no network. Forces are written as .npz beside --out, in kPa.
    """
    from broadsheet.matter.traction_estimators import load_forces
    from broadsheet.matter.traction_files import read_frames

    check_findings(out)
    if calibrate is None and model is None:
        raise InputError("Say what to learn from (--calibrate MEASURED) or what was learned before (--model FILE.safetensors).")
    if model is not None and model.suffix != ".safetensors":
        raise InputError(f"--model {model}: models are kept as .safetensors.")
    if calibrate is None and (measured_masks or measured_forces):
        raise InputError("--measured-masks and --measured-forces belong to --calibrate.")
    frames = read_frames(images, masks=masks)
    held_out: dict[str, Any] = {}
    if calibrate is not None:
        if not pixel > 0:
            raise InputError("--pixel is wanted to calibrate: the size of a pixel of the files in µm.")
        measured = read_frames(calibrate, masks=measured_masks, forces=measured_forces)
        net, facts = _calibrated(measured, calibrate, kind, pixel, shrink, steps, channels, seed, model)
        held_out = facts["held_out"]
    else:
        assert model is not None
        net, facts = load_forces(model)
        held_out = facts["held_out"]
        if pixel and abs(pixel / facts["pixel"] - 1) > 0.01:
            raise InputError(f"{model} was calibrated at {facts['pixel']:g} µm a pixel, and --pixel says {pixel:g}.")
        if shrink not in (1, facts["shrink"]):
            raise InputError(f"{model} was calibrated with --shrink {facts['shrink']}.")
    h = facts["pixel"] * facts["shrink"]
    ready = _ready(frames, facts["shrink"], facts["masks"], facts["kind"], images)
    predicted = net.predict(_inputs(ready, facts["kind"]))
    found = _described(images, ready, predicted, h, facts, held_out)
    report = write_findings(out, found, lambda: _figure(ready, predicted, h, found))
    if out is not None:
        arrays = out.with_suffix(".npz")
        _write_arrays(arrays, ready, predicted, h)
        report["arrays"] = str(arrays)
    if model is not None and calibrate is not None:
        report["model"] = str(model)
    if as_json:
        print_json(report)
        return
    _print(report)


def _ready(frames: Frames, shrink: int, with_masks: bool, kind: str, name: Any) -> Frames:
    """Shrunk and normalised as the calibration was, or refused."""
    if with_masks and frames.masks is None:
        raise InputError(f"{name} has no masks, and the calibration had: brightness is set by them (--masks FILE.npy).")
    if not with_masks and frames.masks is not None:
        raise InputError(f"{name} has masks, and the calibration had none: brightness is set by them, so give both or neither.")
    ready = frames.shrunk(shrink).normalised()
    if kind == "pbnn":
        ready.check_masks()
    return ready


def _inputs(frames: Frames, kind: str) -> np.ndarray:
    import numpy as np

    if kind != "pbnn":
        return frames.images[:, None]
    assert frames.masks is not None
    return np.stack([frames.images, frames.masks], axis=1)


def _calibrated(
    measured: Frames,
    name: Path,
    kind: Kind,
    pixel: float,
    shrink: int,
    steps: int,
    channels: int,
    seed: int,
    model: Path | None,
) -> tuple[NetForce, dict[str, Any]]:
    """Learns twice: without a fifth of the cells, to say how well it predicts, and from all."""
    import numpy as np

    from broadsheet.matter.traction_baselines import CentralForce, WienerForce
    from broadsheet.matter.traction_estimators import save_forces

    if measured.forces is None:
        raise InputError(
            f"{name} has no measured forces to calibrate on (--measured-forces FILE.npy, or movies that hold them)."
        )
    if len(measured) < 2:
        raise InputError(f"{name} has one frame; two at least are wanted, of which one is held out.")
    silent = ~np.any(measured.forces, axis=(1, 2, 3))
    if silent.any():
        raise InputError(f"{measured.names[int(np.argmax(silent))]}: the measured forces are 0 everywhere.")
    ready = _ready(measured, shrink, measured.masks is not None, kind, name)
    assert ready.forces is not None
    X, F = _inputs(ready, kind), np.asarray(ready.forces, float)
    cells = np.unique(ready.cells)
    held = np.isin(ready.cells, cells[::5]) if len(cells) > 1 else np.arange(len(X)) < max(1, len(X) // 5)
    scores: dict[str, float] = {}
    with bar("calibrating") as show:
        first = _network(kind, pixel * shrink, steps, channels, seed)
        first.fit(X[~held], F[~held], report=lambda share, loss: show(share / 2, f"loss {loss:.3f}"))
        scores[kind] = first.score(X[held], F[held])
        scores["linear filter"] = WienerForce().fit(ready.images[~held], F[~held]).score(ready.images[held], F[held])
        if ready.masks is not None:
            both = _inputs(ready, "pbnn")
            scores["towards the middle"] = CentralForce().fit(both[~held], F[~held]).score(both[held], F[held])
        net = _network(kind, pixel * shrink, steps, channels, seed)
        net.fit(X, F, report=lambda share, loss: show(0.5 + share / 2, f"loss {loss:.3f}"))
    facts = {
        "kind": kind, "pixel": pixel, "shrink": shrink, "masks": ready.masks is not None, "frames": len(X), "cells": len(cells),
        "held_out": {each: 1 - value for each, value in scores.items()}, "held_out_frames": int(held.sum()),
    }  # fmt: skip
    if model is not None:
        save_forces(model, net, **facts)
    return net, facts


def _network(kind: Kind, h: float, steps: int, channels: int, seed: int) -> NetForce:
    from broadsheet.matter.traction_estimators import GFNN, PBNN, UNetForce

    common: dict[str, Any] = {"channels": channels, "steps": steps, "random_state": seed, "batch": 4}
    if kind == "pbnn":
        return PBNN(h, **common)
    return GFNN(**common) if kind == "gfnn" else UNetForce(blocks=1, rate=1e-2, **common)


def _described(
    images: str, frames: Frames, predicted: np.ndarray, h: float, facts: dict[str, Any], held_out: dict[str, float]
) -> dict[str, Any]:
    import numpy as np

    from broadsheet.matter.traction_errors import dipole, net_force, nmse

    sizes = np.linalg.norm(predicted, axis=1)
    columns = {
        "mean_kPa": [float(size[mask].mean()) for size, mask in zip(sizes, _inside(frames), strict=True)],
        "largest_kPa": sizes.max(axis=(1, 2)), "total_nN": sizes.sum(axis=(1, 2)) * h * h,
        "contraction_nN_um": dipole(predicted, h), "net_force": net_force(predicted),
    }  # fmt: skip
    rows = [
        {"frame": name, "cell": int(cell), **{key: float(values[k]) for key, values in columns.items()}}
        for k, (name, cell) in enumerate(zip(frames.names, frames.cells, strict=True))
    ]
    if frames.forces is not None and np.any(frames.forces, axis=(1, 2, 3)).all():
        for row, error in zip(rows, nmse(frames.forces, predicted), strict=True):
            row["error"] = float(error)
    return {
        "images": images, "network": facts["kind"], "pixel_um": h,
        "calibrated_on": {"frames": facts["frames"], "cells": facts["cells"]}, "held_out_error": held_out, "frames": rows,
        "notes": list(frames.notes),
    }  # fmt: skip


def _inside(frames: Frames) -> np.ndarray:
    import numpy as np

    return np.ones(frames.images.shape, bool) if frames.masks is None else frames.masks


def _write_arrays(path: Path, frames: Frames, predicted: np.ndarray, h: float) -> None:
    import numpy as np

    from broadsheet.cache import writing

    with writing(path) as stream:
        np.savez_compressed(
            stream, forces=predicted.astype(np.float32), pixel_um=h, frames=np.array(frames.names), cells=frames.cells
        )


def _print(report: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    calibrated = report["calibrated_on"]
    print(f"{len(report['frames'])} frames of {report['pixel_um']:g} µm a pixel; {report['network']}, calibrated on "
          f"{calibrated['frames']} frames of {calibrated['cells']} cells")  # fmt: skip
    held = [(name, number(value)) for name, value in report["held_out_error"].items()]
    console().print(table(["held-out frames", ("normalised squared error", right)], held, "0 is perfect, 1 is no force at all"))
    names = {"mean_kPa": "mean (kPa)", "largest_kPa": "largest (kPa)", "total_nN": "total (nN)",
             "contraction_nN_um": "contraction (nN µm)", "net_force": "net / total", "error": "error"}  # fmt: skip
    known = [key for key in names if key in report["frames"][0]]
    rows = [(row["frame"], *(number(row[key]) for key in known)) for row in report["frames"][:40]]
    console().print(table(["frame", *((names[key], right) for key in known)], rows))
    if len(report["frames"]) > 40:
        print(f"… and {len(report['frames']) - 40} more; --out or --json has all.")
    for note in report["notes"]:
        print(f"{note[0].upper()}{note[1:]}.")
    for key, text in (("model", "The calibration is kept in"), ("findings", "Findings are in"), ("arrays", "Forces are in")):
        if key in report:
            print(f"{text} {report[key]}.")


def _figure(frames: Frames, predicted: np.ndarray, h: float, found: dict[str, Any]) -> Any:
    """Up to three frames with their forces, the errors on held-out frames, and the contraction over frames."""
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    shown = np.unique(np.linspace(0, len(predicted) - 1, 3).astype(int))
    fig, axes = figure(3, len(shown) + 1, width=4.0, height=3.2)
    height, width = frames.images.shape[1:]
    extent, step = (0, width * h, 0, height * h), max(1, max(height, width) // 28)
    x, y = np.meshgrid(h * (np.arange(0, width, step) + 0.5), h * (np.arange(0, height, step) + 0.5))
    for row, k in zip(axes[:-1], shown, strict=True):
        size, measured = np.linalg.norm(predicted[k], axis=0), frames.forces
        top = float(size.max()) or 1.0
        fig.colorbar(
            row[0].imshow(frames.images[k], origin="lower", cmap="gray", extent=extent),
            ax=row[0],
            label="intensity",
            shrink=0.8,
        )
        label(row[0], "x (µm)", "y (µm)", frames.names[k], legend=False)
        for axis, force, title in (
            (row[1], predicted[k], "predicted"),
            (row[2], None if measured is None else measured[k], "measured"),
        ):
            if force is None:
                axis.set_visible(False)
                continue
            image = axis.imshow(np.linalg.norm(force, axis=0), origin="lower", cmap="inferno", vmin=0, vmax=top, extent=extent)
            arrows = [part[::step, ::step] for part in force]
            strong = np.hypot(*arrows) > 0.1 * top
            axis.quiver(
                x[strong], y[strong], *(part[strong] for part in arrows), color="w", angles="xy", scale=10 * top, width=0.006
            )
            fig.colorbar(image, ax=axis, label="traction (kPa)", shrink=0.8)
            label(axis, "x (µm)", "y (µm)", title, legend=False)
    left, middle, right = axes[-1]
    names = list(found["held_out_error"])
    left.barh(
        range(len(names)), list(found["held_out_error"].values()), color=[SYSTEM_COLOUR, *[CONTROL_COLOUR] * 2][: len(names)]
    )
    left.set_yticks(range(len(names)), names)
    label(left, "normalised squared error", "held-out frames", legend=False)
    for cell in np.unique(frames.cells)[: len(COLOURS)]:
        rows = [row["contraction_nN_um"] for row in found["frames"] if row["cell"] == cell]
        middle.plot(rows, "o-", color=COLOURS[cell % len(COLOURS)], markersize=3, label=f"cell {cell}")
    label(middle, "frame", "contraction (nN µm)")
    right.hist(np.linalg.norm(predicted, axis=1)[_inside(frames)], bins=40, color=SYSTEM_COLOUR)
    right.set_yscale("log")
    label(right, "predicted traction (kPa)", "pixels", legend=False)
    return fig
