"""Self-consistent fields of density functionals, integrals and grid made before."""

from harness import Comparison


def inputs(case):
    """The structure by its SMILES or name; both sides make the same integrals of it."""
    import numpy as np
    from ase.build import molecule

    made = molecule(case["molecule"])
    return {"numbers": np.asarray(made.numbers), "positions": made.positions}


def field_of(given):
    from ase import Atoms

    from broadsheet.electrons.kohn_sham import mean_field

    field = mean_field(Atoms(given["numbers"], given["positions"]), grid=3, fitted=False)
    field._eri = field.mol.intor("int2e", aosym="s8")
    field.conv_tol = 1e-9
    return field


comparison = Comparison(
    "Self-consistent Kohn-Sham energies",
    {"benzene, PBE": {"molecule": "C6H6", "functional": "pbe"}, "benzene, B3LYP": {"molecule": "C6H6", "functional": "b3lyp"},
     "dimethylamine, SCAN": {"molecule": "C2H6NH", "functional": "scan"}},
    inputs,
    text="def2-SVP, grid 3, from the same start density to 1e-9 Hartree; integrals and grids are made before, ours are compiled "
    "before, and both use both cores. PySCF evaluates basis functions on the grid anew in each cycle, here they are kept.",
    agree={"energy": 1e-9},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax

    jax.config.update("jax_enable_x64", True)
    from broadsheet.electrons.functionals import named
    from broadsheet.electrons.kohn_sham import Molecule
    from broadsheet.electrons.self_consistency import converge

    functional = named(case["functional"])
    molecule = Molecule.from_pyscf(field_of(given), exchange=functional.exact_exchange > 0)
    return lambda: {"energy": converge(functional, molecule, residual=3e-5).energy}


@comparison.side("PySCF", packages=("pyscf",))
def pyscf(case, given):
    field = field_of(given)
    field.xc = {"pbe": "pbe,pbe", "b3lyp": "b3lyp", "scan": "scan,scan"}[case["functional"]]
    start = field.get_init_guess()
    return lambda: {"energy": field.kernel(dm0=start)}
