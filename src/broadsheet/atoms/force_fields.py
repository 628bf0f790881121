"""Relaxation of molecules by a classical force field: MMFF94, or UFF where MMFF94 has no parameters; both RDKit's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broadsheet.errors import MissingExtraError

if TYPE_CHECKING:
    from ase import Atoms


def relax_by_force_field(start: Atoms, bonded_as: Atoms, steps: int = 2000) -> tuple[Atoms, bool, str]:
    """The molecule relaxed from `start`, whether that converged, and the name of the force field.

    **Arguments:** `bonded_as`: a geometry of the same molecule, atoms in the same order, whose distances say which are bonded;
    `steps`: at most. Where an atom is found no bond, or bonds that don't fit its valence, the molecule stays where it is.

    **Raises:** `MissingExtraError` without RDKit.

    **Source:** Halgren, J. Comput. Chem. 17, 490 (1996); Rappé et al., J. Am. Chem. Soc. 114, 10024 (1992).
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDetermineBonds, rdForceFieldHelpers
        from rdkit.Geometry import Point3D
        from rdkit.rdBase import BlockLogs
    except ImportError:
        raise MissingExtraError("Force fields (RDKit)", "atoms") from None

    quiet = BlockLogs()
    lines = [
        f"{symbol} {x:.6f} {y:.6f} {z:.6f}" for symbol, (x, y, z) in zip(bonded_as.symbols, bonded_as.positions, strict=True)
    ]
    made = start.copy()
    try:
        molecule = Chem.MolFromXYZBlock("\n".join([str(len(lines)), "", *lines]))
        rdDetermineBonds.DetermineBonds(molecule, charge=int(start.info.get("charge", 0)))
        Chem.SanitizeMol(molecule)
    except ValueError:
        return made, False, "none"
    finally:
        del quiet
    if len(start) > 1 and any(atom.GetDegree() == 0 for atom in molecule.GetAtoms()):
        return made, False, "none"
    shape = molecule.GetConformer()
    for k, (x, y, z) in enumerate(start.positions.tolist()):
        shape.SetAtomPosition(k, Point3D(x, y, z))
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        name, left = "MMFF94", rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=steps)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
        name, left = "UFF", rdForceFieldHelpers.UFFOptimizeMolecule(molecule, maxIters=steps)
    else:
        return made, False, "none"
    made.positions = molecule.GetConformer().GetPositions()
    return made, left == 0, name
