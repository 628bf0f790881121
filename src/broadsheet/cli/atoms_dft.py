"""Energies by density functionals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cli.output import console, number, print_json, table
from broadsheet.cli.pages import AsJson


def dft(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Molecules: extended XYZ or what else ASE reads, with their charge and spin (2S + 1).",
        ),
    ],
    functional: Annotated[
        str, typer.Option("--functional", "-f", help="lda, svwn, pbe, blyp, scan, b3lyp, b3lyp5 or pbe0.")
    ] = "pbe",
    basis: Annotated[str, typer.Option(help="As PySCF names them.")] = "def2-svp",
    grid: Annotated[int, typer.Option(min=0, max=9, help="Finer with the number.")] = 3,
    forces: Annotated[bool, typer.Option("--forces", help="Forces too, of fixed atoms as of others.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where structures with their labels go.")] = None,
    as_json: AsJson = False,
) -> None:
    """Self-consistent energies of molecules, and forces.

    Charge and multiplicity are those of FILE, by name or as sums of initial charges and magnetic moments; whole numbers are
    wanted. Heavy elements have the core potential that the basis was made for.
    """
    import jax
    import numpy as np

    from broadsheet.atoms.files import read_structures, write_structures
    from broadsheet.atoms.label_names import without_labels
    from broadsheet.atoms.structures import labelled
    from broadsheet.electrons.calculator import KohnShamCalculator
    from broadsheet.electrons.functionals import named
    from broadsheet.electrons.kohn_sham import check_molecule

    named(functional)
    structures = read_structures(file, labels=False)
    for k, each in enumerate(structures):
        check_molecule(each, basis, f"{file}: structure {k}")
    rows: list[dict[str, Any]] = []
    made = []
    for k, each in enumerate(structures):
        each = without_labels(each)
        each.calc = calculator = KohnShamCalculator(functional, basis=basis, grid=grid, where=f"{file}: structure {k}")
        with jax.enable_x64(True):
            pull = each.get_forces(apply_constraint=False) if forces else None
            energy = each.get_potential_energy()
        rows.append({"structure": k, "formula": each.get_chemical_formula(), "energy": float(energy),
                     "cycles": int(calculator.ground.cycles) if calculator.ground is not None else 0,
                     "fmax": None if pull is None else float(np.linalg.norm(pull, axis=1).max())})  # fmt: skip
        made.append(labelled(each, float(energy), pull))
    if out is not None:
        write_structures(made, out)
    if as_json:
        print_json({"functional": functional, "basis": basis, "structures": rows, "out": None if out is None else str(out)})
        return
    right: dict[str, Any] = {"justify": "right"}
    columns: list[Any] = [
        ("structure", right), "formula", ("energy (eV)", right), ("cycles", right), ("largest force (eV/Å)", right)
    ]  # fmt: skip
    cells = [(row["structure"], row["formula"], f"{row['energy']:.6f}", row["cycles"],
              "" if row["fmax"] is None else number(row["fmax"])) for row in rows]  # fmt: skip
    console().print(table(columns, cells))
    if out is not None:
        print(f"Written to {out}.")
