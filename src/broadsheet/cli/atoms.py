"""Potentials and sets of structures, on extended XYZ or anything else that ASE reads."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.atoms.registry import build, own_loss, own_names
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import DataError, InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Structures: extended XYZ, ASE database, LMDB, or what else ASE reads.")
]
Potentials = Annotated[
    list[Path], typer.Option("--potential", "-p", help="A trained potential (.safetensors); repeat for an ensemble.")
]


class Optimiser(StrEnum):
    """How to relax."""

    bfgs = "bfgs"
    fire = "fire"


@app.callback()
def _group() -> None:
    pass


EnergyKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Where FILE has energies: energy, REF_energy, dft_energy … if it has but one.")
]
ForcesKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Where it has forces: forces or force, marked as the energies are.")
]
StressKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Where it has stress or a virial: stress or virial, marked as energies are.")
]


@app.command("train")
def train(
    file: File,
    out: Annotated[Path, typer.Option(help="Where the potential goes (.safetensors).")] = Path("potential.safetensors"),
    validation: Annotated[Path | None, typer.Option(help="Structures to validate on; a tenth of FILE by default.")] = None,
    network: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(own_names())}, or a potential of another package.")
    ] = "escaip",
    size: Annotated[
        str | None, typer.Option(metavar="NAME", help="A size that it names: of escaip small, the default, tiny, and S, M, L.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=2, help="Features of an atom; those of its size by default.")] = None,
    cutoff: Annotated[float | None, typer.Option(min=1, max=20, help="Å; 6 by default, and transip has none.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 5000,
    batch: Annotated[int, typer.Option(min=1, help="Structures a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    energy_weight: Annotated[float, typer.Option(min=0)] = 1.0,
    force_weight: Annotated[float, typer.Option(min=0)] = 10.0,
    stress_weight: Annotated[float, typer.Option(min=0, help="Above 0 where FILE has stress.")] = 0.0,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    direct: Annotated[bool, typer.Option("--direct", help="Forces from a head of their own, which keeps no energy.")] = False,
    equivariance: Annotated[
        float | None, typer.Option(min=0, help="Weight of transip's second objective, 3 by default; 0: augmentation.")
    ] = None,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between validations and checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the checkpoint of an interrupted training.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a potential on labelled structures; an interrupted training goes on where it was.

    Labels are energies in eV, forces in eV/Å and, with --stress-weight, stress in eV/Å^3 or virials in eV, all of one level of
    theory: where FILE has several, name the keys. Charge and multiplicity are read from charge and spin (or multiplicity).
    """
    import jax
    import numpy as np

    from broadsheet.atoms.files import read_structures
    from broadsheet.atoms.label_names import LabelNames
    from broadsheet.atoms.potential import check_energy, scaled
    from broadsheet.atoms.training import Errors, LabelledSet, Training
    from broadsheet.atoms.training import train as train_potential

    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: potentials are written as .safetensors.")
    names = LabelNames(energy_key, forces_key, stress_key, _wanted(stress_weight > 0))
    structures = read_structures(file, labels=names)
    if validation is None:
        if len(structures) < 10:
            raise InputError(f"{file} has {len(structures)} structures; give --validation, or 10 structures at least.")
        order = np.random.default_rng(seed).permutation(len(structures))
        cut = max(1, len(structures) // 10)
        held, structures = [structures[k] for k in order[:cut]], [structures[k] for k in order[cut:]]
    else:
        held = read_structures(validation, labels=names)
    settings = Training(
        steps=steps, batch=min(batch, len(structures)), learning_rate=learning_rate, energy_weight=energy_weight,
        force_weight=force_weight, stress_weight=stress_weight, direct=direct, evaluate=evaluate_every,
    ).check()  # fmt: skip
    untrained = build(network, seed, size=size, width=width, cutoff=cutoff, direct=direct)
    loss = own_loss(untrained, settings, equivariance)
    potential = scaled(untrained, structures)
    first, second = (LabelledSet(part, potential, stress_weight > 0) for part in (structures, held))
    check_energy(untrained, *first.batch([0]))
    checkpoint = out.with_suffix(".checkpoint")
    if restart:
        checkpoint.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
    with bar("training") as show:

        def report(done: int, loss: float, errors: Errors) -> None:
            show(done / steps, f"loss {loss:.3g}, forces {errors.force_mae:.3g} meV/Å")

        found = train_potential(
            potential, first, second, settings, jax.random.key(seed), loss=loss, checkpoint=checkpoint, keep=out, report=report
        )
    checkpoint.unlink(missing_ok=True)
    result = {"potential": str(out), "structures": len(structures), "validation": len(held), **_errors(found.errors)}
    if as_json:
        print_json(result)
        return
    console().print(_error_table({"validation": result}))
    print(f"Written to {out}.")


def _wanted(stress: bool) -> tuple[Any, ...]:
    return ("energy", "forces", "stress") if stress else ("energy", "forces")


def _errors(errors: Any) -> dict[str, float]:
    return {name: float(value) for name, value in errors._asdict().items()}


def _error_table(rows: dict[str, dict[str, Any]]) -> Any:
    right: dict[str, Any] = {"justify": "right"}
    names = {"energy_mae": "energy MAE (meV/atom)", "force_mae": "force MAE (meV/Å)", "force_rmse": "force RMSE (meV/Å)",
             "force_cosine": "cosine", "stress_mae": "stress MAE (meV/Å³)"}  # fmt: skip
    columns: list[Any] = ["set", *((text, right) for text in names.values())]
    return table(columns, [(name, *(number(row[key]) for key in names)) for name, row in rows.items()])


def _load(paths: list[Path]) -> list[Any]:
    from broadsheet.atoms.checkpoints import load_potential

    if not paths:
        raise InputError("Name a trained potential with --potential FILE.safetensors.")
    return [load_potential(path) for path in paths]


@app.command("evaluate")
def evaluate(
    file: File,
    potential: Potentials,
    direct: Annotated[bool, typer.Option("--direct", help="Judge the direct forces.")] = False,
    stress: Annotated[bool, typer.Option("--stress", help="Judge the stress too.")] = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    as_json: AsJson = False,
) -> None:
    """Errors of potentials on labelled structures, whose labels are read as by `train`."""
    from broadsheet.atoms.files import read_structures
    from broadsheet.atoms.label_names import LabelNames
    from broadsheet.atoms.training import LabelledSet
    from broadsheet.atoms.training import evaluate as errors_of

    names = LabelNames(energy_key, forces_key, stress_key, _wanted(stress))
    structures = read_structures(file, labels=names)
    rows = {}
    for path, model in zip(potential, _load(potential), strict=True):
        rows[str(path)] = _errors(errors_of(model, LabelledSet(structures, model, stress), direct=direct, size=16))
    if as_json:
        print_json(rows)
        return
    console().print(_error_table(rows))


@app.command("relax")
def relax(
    file: File,
    potential: Potentials,
    out: Annotated[Path, typer.Option(help="Where relaxed structures go.")] = Path("relaxed.extxyz"),
    fmax: Annotated[float, typer.Option(min=0, help="Largest force left, eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(min=1)] = 500,
    method: Annotated[Optimiser, typer.Option()] = Optimiser.bfgs,
    together: Annotated[int, typer.Option(min=1, help="Structures relaxed at once.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Relax structures, many at once; cells stay. Those in OUT already are not relaxed again.

    Atoms that FILE fixes (move_mask, or ASE's FixAtoms, FixCartesian, FixScaled, FixedPlane and FixedLine) stay where they are
    fixed, and only forces along which they may move count; any other constraint is refused.
    """
    import numpy as np

    from broadsheet.atoms.constraints import check_written, freedom
    from broadsheet.atoms.files import read_structures, write_structures
    from broadsheet.atoms.label_names import without_labels
    from broadsheet.atoms.neighbours import check_overlap
    from broadsheet.atoms.relaxation import relax as relax_batch
    from broadsheet.atoms.structures import batch_atoms, labelled

    if len(potential) != 1:
        raise InputError("relax takes one potential.")
    model, structures = _load(potential)[0], read_structures(file, labels=False)
    kind = {"potential": potential[0].name, "fmax": fmax, "method": method.value, "steps": steps}
    done = _resumable(out, kind)
    if len(done) > len(structures):
        raise InputError(f"{out} has {len(done)} structures and {file} only {len(structures)}: it belongs to another file.")
    for k, each in enumerate(structures):
        where = f"{file}: structure {k}"
        check_overlap(each, where)
        check_written(each, out, where)
        freedom(each, where)
    with bar("relaxing") as show:
        for start in range(len(done), len(structures), together):
            some = structures[start : start + together]
            batch = batch_atoms(some)
            found = relax_batch(model, batch, fmax=fmax, steps=steps, method=method.value)
            shift, first = np.asarray(found.batch.positions - batch.positions, float), 0
            for k, each in enumerate(some):
                made = without_labels(each)
                made.positions = each.positions + shift[first : first + len(each)]
                first += len(each)
                made.info |= {"steps": int(found.steps[k]), "fmax": float(found.fmax[k]), "converged": bool(found.converged[k])}
                made.info |= {f"relax_{name}": value for name, value in kind.items()}
                done.append(labelled(made, float(found.energy[k])))
            write_structures(done, out)
            show(len(done) / len(structures), f"{len(done)} of {len(structures)}")
    converged = sum(bool(each.info["converged"]) for each in done)
    if as_json:
        print_json({"out": str(out), "structures": len(done), "converged": converged,
                    "steps": [int(each.info["steps"]) for each in done]})  # fmt: skip
        return
    print(f"{converged} of {len(done)} structures converged to {fmax:g} eV/Å; written to {out}.")


def _resumable(out: Path, kind: dict[str, Any]) -> list[Any]:
    """Structures of an earlier run with the same settings; none for another."""
    from broadsheet.atoms.files import read_structures

    if not out.exists():
        return []
    found = read_structures(out, labels=False)
    if any(str(each.info.get(f"relax_{name}")) != str(value) for each in found for name, value in kind.items()):
        raise InputError(f"{out} is there and was made with other settings; name another --out or remove it.")
    return found


@app.command("md")
def md(
    file: File,
    potential: Potentials,
    out: Annotated[Path, typer.Option(help="Where frames go (extended XYZ); a run that was stopped goes on.")] = Path(
        "md.extxyz"
    ),
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    dt: Annotated[float, typer.Option(min=0, help="fs.")] = 0.5,
    temperature: Annotated[float, typer.Option(min=0, help="K.")] = 300.0,
    friction: Annotated[float, typer.Option(min=0, help="1/fs; 0 keeps the energy.")] = 0.01,
    every: Annotated[int, typer.Option(min=1, help="Steps between frames.")] = 20,
    stop_above: Annotated[
        float | None, typer.Option(min=0, help="Stop where an ensemble's forces on an atom differ by more, eV/Å.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Molecular dynamics of the first structure of FILE; with several potentials their mean, and a stop where they disagree.

    Masses and fixed atoms (move_mask, or ASE's FixAtoms and FixCartesian) are those of FILE, and momenta, where it has them,
    the velocities at the start; else these are drawn at --temperature. Charge, spin and other info go to every frame.
    """
    from ase.io import write

    from broadsheet.atoms.calculator import check_stop
    from broadsheet.atoms.constraints import check_written, velocities_of
    from broadsheet.atoms.files import iterate_structures
    from broadsheet.atoms.label_names import without_labels
    from broadsheet.atoms.neighbours import check_overlap
    from broadsheet.atoms.structures import check_structure

    models = _load(potential)
    check_stop(stop_above, len(models))
    if out.suffix.lower() not in (".xyz", ".extxyz"):
        raise InputError(f"--out {out}: frames are written as .extxyz.")
    kind = f"{dt:g} {temperature:g} {friction:g} {seed} {' '.join(path.name for path in potential)}"
    written, start = _whole_frames(out)
    if start is not None and start.info.get("run") != kind:
        raise InputError(f"{out} is there and was made with other settings; name another --out or remove it.")
    made = int(start.info["step"]) if start is not None else 0
    again = start is not None
    if start is None:
        start = next(iterate_structures(file), None)
    if start is None:
        raise InputError(f"{file} holds no structures.")
    check_structure(start, str(file))
    check_overlap(start, str(file))
    check_written(start, out, str(file))
    start = without_labels(start)
    velocities = velocities_of(start, str(out if again else file))
    if again and velocities is None:
        velocities = start.get_velocities()
    with bar("dynamics") as show:

        def keep(step: int, frame: Any) -> None:
            nonlocal written
            frame.info |= {"step": step, "time_fs": step * dt, "run": kind}
            write(out, frame, format="extxyz", append=written > 0)
            written += 1
            warmth = f", {frame.get_temperature():.0f} K" if frame.get_number_of_degrees_of_freedom() else ""
            show(step / steps, f"{frame.get_potential_energy():.3f} eV{warmth}")

        if made < steps:
            _motion(models, start, velocities, made, steps, dt, temperature, friction, every, stop_above, seed, keep)
    first = "drawn" if velocities is None else str(out if again else file)
    if as_json:
        print_json({"out": str(out), "frames": written, "steps": max(made, steps), "velocities": first})
        return
    begun = "" if velocities is None or again else f"; it began with the velocities of {file}"
    print(f"{written} frames in {out}, up to {max(made, steps) * dt:g} fs{begun}.")


def _whole_frames(out: Path) -> tuple[int, Any]:
    """(frames in a trajectory, the last one); what a killed run left of a frame is cut off first."""
    from broadsheet.atoms.files import iterate_structures, write_structures

    if not out.exists():
        return 0, None
    count, last, kept, whole = 0, None, [], True
    try:
        for last in iterate_structures(out):
            count += 1
            kept.append(last)
    except DataError:
        whole = False
    if not whole:
        with out.open(errors="replace") as stream:
            if " run=" not in stream.read(100_000):
                raise InputError(f"{out} is there and is no trajectory of this command; name another --out or remove it.")
        out.unlink()
        if kept:
            write_structures(kept, out)
    return count, last


def _motion(models: list[Any], start: Any, velocities: Any, made: int, steps: int, dt: float, temperature: float,
            friction: float, every: int, stop_above: float | None, seed: int, keep: Callable[[int, Any], None],
            ) -> None:  # fmt: skip
    """All steps compiled, by one potential or the mean of several."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from ase import units

    from broadsheet.atoms.motion import Phase, simulate
    from broadsheet.atoms.structures import batch_atoms, labelled

    batch = batch_atoms([start], count=1)
    n = len(start)
    if velocities is not None:
        velocities = jnp.asarray(np.pad(velocities, [(0, len(batch.positions) - n), (0, 0)]), batch.positions.dtype)

    def report(done: int, phase: Phase) -> None:
        frame = start.copy()
        frame.positions = start.positions + np.asarray(phase.positions - batch.positions, float)[:n]
        frame.set_velocities(np.asarray(phase.velocities[:n], float) / units.fs)
        frame = labelled(frame, float(phase.energy[0]), np.asarray(phase.forces[:n], float))
        if phase.forces_std is not None:
            frame.arrays["forces_std"] = np.asarray(phase.forces_std[:n], float)
        keep(made + done, frame)

    simulate(models, batch, steps=steps - made, dt=dt, temperature=temperature, friction=friction, velocities=velocities,
             every=every, key=jax.random.fold_in(jax.random.key(seed), made), stop_above=stop_above, report=report)  # fmt: skip
