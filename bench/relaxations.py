"""Many relaxations with one potential."""

import numpy as np

from harness import Comparison

WELL = {"epsilon": 1.0, "rho": 6.0, "r0": 1.5, "cutoff": 6.0}


def inputs(case):
    """Pieces of a close-packed crystal, each rattled in its own way."""
    from ase.build import bulk

    rng = np.random.default_rng(0)
    crystal = bulk("Cu", cubic=True, a=1.5 * np.sqrt(2)).repeat((3, 3, 3))
    place = crystal.positions - crystal.positions.mean(axis=0) + 0.1
    core = place[np.argsort(np.linalg.norm(place, axis=1))[: case["atoms"]]]
    return {"positions": core + 0.08 * rng.standard_normal((case["count"], *core.shape))}


def structures(given):
    from ase import Atoms

    return [Atoms(f"C{len(each)}", each) for each in given["positions"]]


comparison = Comparison(
    "Relaxation of 200 clusters",
    {"13 atoms": {"count": 200, "atoms": 13}, "6 atoms": {"count": 200, "atoms": 6}},
    inputs,
    text="A Morse potential, double precision, BFGS to 0.01 eV/Å: all clusters at once, against ASE's BFGS one by one with the "
    "same potential as its calculator. Every cluster ends in the same minimum.",
    agree={"lowest energy": 1e-4, "mean energy": 1e-4, "spread of energies": 1e-4, "spread of positions": 1e-3},
)


def summary(energies, positions):
    """Of the minima that were found, eV and Å."""
    return {"lowest energy": energies.min(), "mean energy": energies.mean(), "spread of energies": energies.std(),
            "spread of positions": positions.std()}  # fmt: skip


def potential():
    import jax

    jax.config.update("jax_enable_x64", True)
    from broadsheet.atoms.pair import Morse

    return Morse(**WELL)


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    well = potential()
    from broadsheet.atoms.relaxation import relax
    from broadsheet.atoms.structures import batch_atoms

    batch = batch_atoms(structures(given))

    def run():
        found = relax(well, batch, fmax=0.01, steps=500)
        atoms = case["count"] * case["atoms"]
        return summary(np.asarray(found.energy), np.asarray(found.batch.positions)[:atoms])

    return run


@comparison.side("ASE", packages=("ase",))
def ase(case, given):
    well = potential()
    from ase.optimize import BFGS

    from broadsheet.atoms.calculator import PotentialCalculator

    def run():
        made = structures(given)
        for each in made:
            each.calc = PotentialCalculator(well, skin=1.0)
            BFGS(each, logfile=None).run(fmax=0.01, steps=500)
        return summary(
            np.array([each.get_potential_energy() for each in made]), np.concatenate([each.positions for each in made])
        )

    return run
