"""Potentials under the protocol of a published benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.atoms.registry import own_names
from broadsheet.cli.output import console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Potentials under the protocol of a published benchmark.")


class Stage(StrEnum):
    """Which part of the published relaxations."""

    pm3 = "pm3"
    hf = "hf"
    first = "1st"
    first_smash = "1st_smash"
    second = "2nd"
    mixing = "mixing"


@app.callback()
def _group() -> None:
    pass


@app.command("pubchemqcr")
def pubchemqcr(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help=f"A trained potential (.safetensors), or {', '.join(own_names())}: trained here first."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="PubChemQCR's LMDB files; GFN2-xTB relaxations of small molecules made here by default.")
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Which relaxations of --data.")] = Stage.first,
    limit: Annotated[int | None, typer.Option(min=5, help="Molecules of --data at most.")] = None,
    most: Annotated[int, typer.Option(min=2, help="Frames of a trajectory, evenly spaced.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Frames a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    width: Annotated[
        int | None, typer.Option(min=8, help="Features of an atom, of a network that is trained here; a tiny one by default.")
    ] = None,
    relaxations: Annotated[int, typer.Option(min=0, help="Unseen start geometries to relax; 0: none.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Where a potential trained here goes (.safetensors).")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    trust: Annotated[bool, typer.Option("--trust", help="Read --data, whose records are Python pickles.")] = False,
    as_json: AsJson = False,
) -> None:
    """Errors along unseen relaxations, and relaxations of unseen molecules, beside the published table."""
    import warnings

    import numpy as np

    from broadsheet.atoms.checkpoints import save_potential
    from broadsheet.atoms.relaxation_benchmark import PUBLISHED, frame_errors, relaxation_report
    from broadsheet.atoms.trajectories import g2_relaxations, label_from_atoms, read_pubchemqcr

    if out is not None and out.suffix != ".safetensors":
        raise InputError(f"--out {out}: potentials are written as .safetensors.")
    reference: Any = "gfn2"
    if data is not None:
        if relaxations and stage in (Stage.pm3, Stage.hf):
            raise InputError(f"Relaxations are judged by B3LYP, and {stage.value} labels aren't its own: give --relaxations 0.")
        found, reference = read_pubchemqcr(data, stage.value, limit=limit, trust=trust or None), label_from_atoms
    else:
        found = g2_relaxations()
    shares = (0.6, 0.2, 0.2) if data is not None else (0.7, 0.1, 0.2)
    training, validation, test = found.thinned(most).split(shares, np.random.default_rng(seed))
    potential = _potential(model, training, validation, steps, batch, learning_rate, width, seed)
    if out is not None:
        save_potential(potential, out, {"benchmark": "pubchemqcr", "seed": seed})
    errors = frame_errors(potential, test.frames())
    thirds = [errors.force[(test.place() >= k / 3) & (test.place() <= (k + 1) / 3)].mean() for k in range(3)]
    result: dict[str, Any] = {
        "model": model, "molecules": len(np.unique(test.molecule)), "frames": len(test),
        "energy_mae": float(errors.energy.mean()), "force_rmse": float(errors.force.mean()),
        "force_rmse_by_third": [float(each) for each in thirds],
    }  # fmt: skip
    if relaxations:
        warnings.filterwarnings("ignore", "Optimal rotation")  # of a linear molecule there are many, all alike
        starts, ends = test.frames(test.starts()[:relaxations]), test.frames(test.ends()[:relaxations])
        result["relaxations"] = len(starts)
        result |= relaxation_report(potential, starts, ends, reference=reference).summary()
    if as_json:
        print_json(result | {"published": {name: dict(zip(("energy_mae", "force_rmse"), row, strict=True))
                                           for name, row in PUBLISHED.items()}})  # fmt: skip
        return
    right: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = ["potential", ("energy MAE (meV/atom)", right), ("force RMSE (meV/Å)", right), "data"]
    here = "PubChemQCR" if data is not None else "GFN2-xTB, made here"
    rows = [(model, number(result["energy_mae"]), number(result["force_rmse"]), here)]
    rows += [(name, number(e), number(f), "PubChemQCR-S, published") for name, (e, f) in PUBLISHED.items()]
    console().print(table(columns, rows))
    print(f"Along the trajectory: {', '.join(number(each) for each in thirds)} meV/Å in its first, middle and last third.")
    if relaxations:
        print(f"{result['relaxations']} relaxations of unseen molecules: {100 * result['success']:.0f} % converge in place, "
              f"{100 * result['relaxed']:.0f} % end within 30 meV/atom with more than 0.8 of the energy gained; median "
              f"{number(result['excess'])} meV/atom above the minimum, RMSD {number(result['rmsd'])} Å, "
              f"{result['steps']:.0f} steps.")  # fmt: skip


def _potential(model: str, training: Any, validation: Any, steps: int, batch: int, learning_rate: float, width: int | None,
               seed: int) -> Any:  # fmt: skip
    import jax

    from broadsheet.atoms.checkpoints import load_potential
    from broadsheet.atoms.relaxation_benchmark import fitted, untrained
    from broadsheet.atoms.training import Training

    if model.endswith(".safetensors"):
        return load_potential(model)
    settings = Training(steps=steps, batch=min(batch, len(training)), learning_rate=learning_rate, force_weight=1.0,
                        evaluate=max(1, steps // 10)).check()  # fmt: skip
    return fitted(untrained(model, seed, width), training, validation, settings, jax.random.key(seed)).potential
