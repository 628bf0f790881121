"""Molecular dynamics of a batch of structures in one compiled loop: velocity Verlet and Langevin. Å, fs, eV, amu, K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.calculator import check_domain, check_stop
from broadsheet.atoms.constraints import check_velocities
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, fresh_neighbours, members, predict
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.errors import InputError

BOLTZMANN = 8.617333262e-5
"""eV/K."""
ACCELERATION = 9.648533212e-3
"""(eV/Å/amu) in Å/fs^2."""


class Phase(eqx.Module):
    """Positions (Å), velocities (Å/fs), forces (eV/Å) and energies (eV) of a batch at one time.

    `forces` are the potential's, on fixed atoms too; `forces_std`: their standard deviation over several potentials.
    """

    positions: Float[Array, "atoms 3"]
    velocities: Float[Array, "atoms 3"]
    forces: Float[Array, "atoms 3"]
    energy: Float[Array, " structures"]
    forces_std: Float[Array, "atoms 3"] | None = None


class Trajectory(NamedTuple):
    """Frames of `simulate`: times (fs), positions, velocities, potential and kinetic energies of each structure (eV)."""

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    final: Phase


def masses_of(batch: AtomsBatch) -> Float[np.ndarray, " atoms"]:
    """Masses, amu: those that the structures give, else of the elements; 1 for padding."""
    from ase.data import atomic_masses

    if batch.masses is not None:
        return np.where(np.asarray(batch.node_mask), np.asarray(batch.masses), 1.0)
    return np.where(np.asarray(batch.node_mask), atomic_masses[np.asarray(batch.numbers)], 1.0)


def kinetic_energy(
    batch: AtomsBatch, velocities: Float[Array, "atoms 3"], masses: Float[Array, " atoms"] | Float[np.ndarray, " atoms"]
) -> Float[Array, " structures"]:
    """eV."""
    return batch.sum_atoms(jnp.asarray(masses) * jnp.sum(velocities**2, axis=1)) / (2 * ACCELERATION)


def thermal_velocities(
    batch: AtomsBatch, temperature: float, key: PRNGKeyArray, *, still: bool = True
) -> Float[Array, "atoms 3"]:
    """Velocities of the Maxwell-Boltzmann law along all directions that are free, Å/fs; `still`: with no total momentum, in
    structures in which no atom is fixed.
    """
    masses = jnp.asarray(masses_of(batch))
    spread = jnp.sqrt(BOLTZMANN * temperature * ACCELERATION / masses)[:, None]
    drawn = jnp.where(batch.node_mask[:, None], spread * jax.random.normal(key, batch.positions.shape), 0)
    drawn = batch.allowed(drawn)
    if still:
        mean = batch.sum_atoms(masses[:, None] * drawn) / jnp.maximum(batch.sum_atoms(masses), 1e-9)[:, None]
        if batch.free is not None:
            fixed = batch.sum_atoms(3 - jnp.trace(jnp.asarray(batch.free), axis1=1, axis2=2)) > 1e-3
            mean = jnp.where(fixed[:, None], 0, mean)
        drawn = jnp.where(batch.node_mask[:, None], drawn - mean[batch.graph], 0)
    return drawn


@partial(jax.jit, static_argnums=(0, 9))
def _advance(
    static: tuple[Potential, ...], arrays: tuple[Potential, ...], batch: AtomsBatch, neighbours: Neighbours, phase: Phase,
    reference: Array, steps: Array, key: PRNGKeyArray, numbers: tuple[Array, Array, Array, Array, Array, Array], direct: bool,
) -> tuple[Array, Phase]:  # fmt: skip
    """Up to `steps` steps, fewer where an atom has moved half the skin since the neighbours were found, or the potentials'
    forces on one differ by more than the limit.
    """
    potentials = eqx.combine(arrays, static)
    dt, masses, friction, temperature, half_skin, limit = numbers
    per_mass = (ACCELERATION / masses)[:, None]
    decay = jnp.exp(-friction * dt)
    noise = jnp.sqrt((1 - decay**2) * BOLTZMANN * temperature * per_mass)

    def look(positions: Array) -> tuple[Array, Array, Array | None]:
        moved = eqx.tree_at(lambda b: b.positions, batch, positions)
        found = [predict(each, moved, neighbours, direct=direct) for each in potentials]
        forces = jnp.where(batch.node_mask[:, None], jnp.stack([each.forces for each in found]), 0)
        if len(found) == 1:
            return found[0].energy, forces[0], None
        energy = jnp.mean(jnp.stack([each.energy for each in found]), axis=0)
        return energy, jnp.mean(forces, axis=0), jnp.std(forces, axis=0, ddof=1)

    def step(carry: tuple[Array, Phase]) -> tuple[Array, Phase]:
        n, phase = carry
        v = phase.velocities + dt / 2 * batch.allowed(phase.forces) * per_mass
        x = phase.positions + dt / 2 * v
        v = decay * v + batch.allowed(noise * jax.random.normal(jax.random.fold_in(key, n), v.shape, v.dtype))
        x = x + dt / 2 * v
        energy, forces, forces_std = look(x)
        v = v + dt / 2 * batch.allowed(forces) * per_mass
        return n + 1, Phase(x, jnp.where(batch.node_mask[:, None], v, 0), forces, energy, forces_std)

    def go_on(carry: tuple[Array, Phase]) -> Array:
        n, phase = carry
        near = jnp.max(jnp.sum((phase.positions - reference) ** 2, axis=1)) < half_skin**2
        if phase.forces_std is not None:
            near = near & (jnp.max(jnp.sum(phase.forces_std**2, axis=1)) <= limit**2)
        return (n < steps) & (near | (n == 0))

    return jax.lax.while_loop(go_on, step, (jnp.zeros((), steps.dtype), phase))


def simulate(
    potential: Potential | Sequence[Potential],
    batch: AtomsBatch,
    *,
    steps: int,
    key: PRNGKeyArray,
    dt: float = 0.5,
    temperature: float = 300.0,
    friction: float = 0.0,
    velocities: Float[Array, "atoms 3"] | None = None,
    every: int = 1,
    skin: float = 0.5,
    direct: bool = False,
    stop_above: float | None = None,
    report: Callable[[int, Phase], None] | None = None,
) -> Trajectory:
    """Velocity Verlet (`friction` 0), or Langevin dynamics by BAOAB with `friction` (1/fs) at `temperature` (K).

    Energy is kept without friction; with it, configurations follow exp(-U / kT) up to O(dt^2).
    All structures of the batch move at once, with their masses and along directions that their constraints leave free;
    neighbours are found again on the host whenever an atom has moved half the skin.

    **Arguments:** `potential`: one, or several, whose mean moves the atoms; `velocities`: Å/fs, thermal ones by default, also
    where the structures have momenta (`velocities_of` reads them); `every`: steps between frames; `direct`: forces from the
    model's own head; `stop_above`: eV/Å, with several potentials; `report`: called with (steps made, phase) at each frame.

    **Raises:** `InputError` where an energy is no longer finite, with the step, and for velocities along what is fixed;
    `OutsideDomainError` at the step where the potentials' forces on an atom differ by more than `stop_above`.

    **Example:**

        >>> from ase import Atoms
        >>> from broadsheet.atoms import LennardJones, batch_atoms
        >>> batch = batch_atoms([Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]])])
        >>> argon = LennardJones(epsilon=0.0103, sigma=3.4, cutoff=12.0)
        >>> path = simulate(argon, batch, steps=500, dt=2.0, temperature=20.0, key=jax.random.key(0), every=100)
        >>> total = path.potential + path.kinetic
        >>> path.positions.shape[0], bool(abs(total - total[0]).max() < 1e-4)  # frames, with the start; eV
        (6, True)
    """
    if steps < 1 or every < 1 or not dt > 0 or friction < 0 or temperature < 0 or not skin > 0:
        raise InputError("simulate: steps, every, dt and skin must be positive, friction and temperature not negative.")
    potentials = members(potential)
    check_stop(stop_above, len(potentials))
    velocity_key, noise_key = jax.random.split(key)
    masses = jnp.asarray(masses_of(batch), batch.positions.dtype)
    if velocities is None:
        start = thermal_velocities(batch, temperature, velocity_key)
    else:
        check_velocities(np.asarray(velocities), None if batch.free is None else np.asarray(batch.free), "simulate")
        start = batch.allowed(jnp.asarray(velocities))
    arrays, static = eqx.partition(potentials, eqx.is_array)
    neighbours = potentials[0].neighbours(batch, skin=skin)
    positions = jnp.asarray(batch.positions)
    phase = Phase(
        positions, start.astype(positions.dtype), jnp.zeros_like(positions), jnp.zeros(batch.structures, positions.dtype),
        jnp.zeros_like(positions) if len(potentials) > 1 else None,
    )  # fmt: skip
    limit = np.inf if stop_above is None else stop_above
    numbers = tuple(jnp.asarray(value, batch.positions.dtype) for value in (dt, 1.0, friction, temperature, skin / 2, limit))
    numbers = (numbers[0], masses, *numbers[2:])
    still = (jnp.zeros_like(numbers[0]), *numbers[1:])  # a step of no time finds the first forces
    _, phase = _advance(static, arrays, batch, neighbours, phase, positions, jnp.asarray(1), noise_key, still, direct)
    _check_domain(phase, batch, stop_above)
    reference, frames, done, calls = positions, [_frame(0.0, batch, phase, masses)], 0, 0
    while done < steps:
        wanted = min(steps, done + every - done % every) - done
        chunk_key = jax.random.fold_in(noise_key, calls)
        made, phase = _advance(
            static, arrays, batch, neighbours, phase, reference, jnp.asarray(wanted), chunk_key, numbers, direct
        )
        done, calls = done + int(made), calls + 1
        real = np.asarray(batch.graph_mask)
        if not np.isfinite(np.asarray(phase.energy)[real]).all():
            raise InputError(
                f"The energy is no longer finite at step {done}: shorten dt ({dt:g} fs), or train for such structures."
            )
        _check_domain(phase, batch, stop_above)
        if done % every == 0 or done == steps:
            frames.append(_frame(done * dt, batch, phase, masses))
            if report is not None:
                report(done, phase)
        if float(jnp.max(jnp.sum((phase.positions - reference) ** 2, axis=1))) >= (skin / 2) ** 2:
            moved = eqx.tree_at(lambda b: b.positions, batch, np.asarray(phase.positions))
            neighbours, reference = fresh_neighbours(potentials[0], moved, skin, neighbours.width), phase.positions
    times, places, speeds, energies, kinetic = (np.stack(column) for column in zip(*frames, strict=True))
    return Trajectory(times, places, speeds, energies, kinetic, phase)


def _check_domain(phase: Phase, batch: AtomsBatch, stop_above: float | None) -> None:
    if stop_above is None:
        return
    graph, spread = np.asarray(batch.graph), np.asarray(phase.forces_std)
    for k in np.flatnonzero(np.asarray(batch.graph_mask)):
        check_domain(spread[graph == k], stop_above)


def _frame(time: float, batch: AtomsBatch, phase: Phase, masses: Array) -> tuple[np.ndarray, ...]:
    kinetic = kinetic_energy(batch, phase.velocities, masses)
    return tuple(np.asarray(part) for part in (time, phase.positions, phase.velocities, phase.energy, kinetic))
