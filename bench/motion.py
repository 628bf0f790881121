"""Molecular dynamics: steps of velocity Verlet in Lennard-Jones argon."""

import numpy as np

from harness import Comparison

EPSILON, SIGMA, CUTOFF, DT, TEMPERATURE = 0.0103, 3.4, 8.5, 2.0, 60.0


def crystal(cells):
    """A periodic face-centred crystal of argon."""
    from ase.build import bulk

    made = bulk("Ar", cubic=True, a=5.3).repeat((cells, cells, cells))
    made.pbc = True
    return made


def inputs(case):
    """Velocities at 60 K, Å/fs, without total momentum."""
    atoms = crystal(case["cells"])
    spread = np.sqrt(8.617333262e-5 * TEMPERATURE * 9.648533212e-3 / atoms.get_masses())[:, None]
    drawn = spread * np.random.default_rng(0).standard_normal((len(atoms), 3))
    return {"velocities": drawn - drawn.mean(axis=0)}


comparison = Comparison(
    "Molecular dynamics: 200 steps of velocity Verlet, Lennard-Jones argon",
    {f"{4 * n**3} atoms": {"cells": n, "steps": 200} for n in (5, 8, 14)},
    inputs,
    text="Periodic crystals at 60 K, cutoff 2.5 sigma, shifted to 0 there, steps of 2 fs, all neighbours in lists with a skin of 1 Å "
    "that are found again as atoms move. float64 in ASE, float32 in the others. The potential energy after the last step has to agree.",
    agree={"potential": 1e-4},
)


@comparison.side("broadsheet", packages=("jax", "vesin"), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    from broadsheet.atoms.motion import simulate
    from broadsheet.atoms.pair import LennardJones
    from broadsheet.atoms.structures import batch_atoms

    batch = batch_atoms([crystal(case["cells"])], count=1)
    potential = LennardJones(EPSILON, SIGMA, CUTOFF)
    start = jnp.zeros_like(batch.positions).at[: len(given["velocities"])].set(given["velocities"])

    def run():
        found = simulate(
            potential, batch, steps=case["steps"], every=case["steps"], dt=DT, velocities=start, skin=1.0, key=jax.random.key(0)
        )
        return {"potential": found.potential[-1][0]}

    return run


@comparison.side("ASE", packages=("ase",))
def ase(case, given):
    from ase import units
    from ase.calculators.lj import LennardJones
    from ase.md.verlet import VelocityVerlet

    def run():
        atoms = crystal(case["cells"])
        atoms.calc = LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF, smooth=False)
        atoms.set_velocities(given["velocities"] / units.fs)
        VelocityVerlet(atoms, DT * units.fs).run(case["steps"])
        return {"potential": atoms.get_potential_energy()}

    return run


@comparison.side("JAX MD", environment="jaxmd", packages=("jax-md", "jax"), devices=("cpu", "gpu"))
def jax_md(case, given):
    import dataclasses

    import jax
    import jax.numpy as jnp
    from jax_md import partition, simulate, smap, space

    side, mass = 5.3 * case["cells"], 39.948 / 9.648533212e-3  # Å, eV fs^2/Å^2
    displacement, shift = space.periodic(side)
    basis = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) * 2.65
    corners = 5.3 * np.stack(np.meshgrid(*[np.arange(case["cells"])] * 3, indexing="ij"), -1).reshape(-1, 3)
    start = jnp.asarray((corners[:, None] + basis).reshape(-1, 3), jnp.float32)
    at_cutoff = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)

    def pair(r, **_):
        near = r < CUTOFF
        six = (SIGMA / jnp.where(near, r, CUTOFF)) ** 6
        return jnp.where(near, 4 * EPSILON * (six**2 - six) - at_cutoff, 0)

    neighbour = partition.neighbor_list(displacement, side, CUTOFF, 1.0, format=partition.Sparse)
    energy = smap.pair_neighbor_list(pair, space.canonicalize_displacement_or_metric(displacement))
    init, apply = simulate.nve(energy, shift, DT)
    list_ = neighbour.allocate(start)

    @jax.jit
    def path(position, velocity, list_):
        def step(_, state):
            moved, list_ = state
            moved = apply(moved, neighbor=list_)
            return moved, list_.update(moved.position)

        first = init(jax.random.PRNGKey(0), position, 0.0, mass=mass, neighbor=list_)
        first = dataclasses.replace(first, momentum=mass * velocity)
        last, list_ = jax.lax.fori_loop(0, case["steps"], step, (first, list_))
        return energy(last.position, neighbor=list_), list_.did_buffer_overflow

    velocity = jnp.asarray(given["velocities"], jnp.float32)

    def run():
        found, overflow = path(start, velocity, list_)
        assert not overflow
        return {"potential": found}

    return run
