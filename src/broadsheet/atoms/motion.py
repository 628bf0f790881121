"""Molecular dynamics of a batch of structures in one compiled loop: velocity Verlet and Langevin. Å, fs, eV, amu, K."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, fresh_neighbours, predict
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.errors import InputError

BOLTZMANN = 8.617333262e-5
"""eV/K."""
ACCELERATION = 9.648533212e-3
"""(eV/Å/amu) in Å/fs^2."""


class Phase(eqx.Module):
    """Positions (Å), velocities (Å/fs), forces (eV/Å) and energies (eV) of a batch at one time."""

    positions: Float[Array, "atoms 3"]
    velocities: Float[Array, "atoms 3"]
    forces: Float[Array, "atoms 3"]
    energy: Float[Array, " structures"]


class Trajectory(NamedTuple):
    """Frames of `simulate`: times (fs), positions, velocities, potential and kinetic energies of each structure (eV)."""

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    final: Phase


def masses_of(batch: AtomsBatch) -> Float[np.ndarray, " atoms"]:
    """Atomic masses, amu; 1 for padding."""
    from ase.data import atomic_masses

    return np.where(np.asarray(batch.node_mask), atomic_masses[np.asarray(batch.numbers)], 1.0)


def kinetic_energy(
    batch: AtomsBatch, velocities: Float[Array, "atoms 3"], masses: Float[Array, " atoms"] | Float[np.ndarray, " atoms"]
) -> Float[Array, " structures"]:
    """eV."""
    return batch.sum_atoms(jnp.asarray(masses) * jnp.sum(velocities**2, axis=1)) / (2 * ACCELERATION)


def thermal_velocities(
    batch: AtomsBatch, temperature: float, key: PRNGKeyArray, *, still: bool = True
) -> Float[Array, "atoms 3"]:
    """Velocities of the Maxwell-Boltzmann law, Å/fs; `still`: with no total momentum."""
    masses = jnp.asarray(masses_of(batch))
    spread = jnp.sqrt(BOLTZMANN * temperature * ACCELERATION / masses)[:, None]
    drawn = jnp.where(batch.node_mask[:, None], spread * jax.random.normal(key, batch.positions.shape), 0)
    if still:
        mean = batch.sum_atoms(masses[:, None] * drawn) / jnp.maximum(batch.sum_atoms(masses), 1e-9)[:, None]
        drawn = jnp.where(batch.node_mask[:, None], drawn - mean[batch.graph], 0)
    return drawn


@partial(jax.jit, static_argnums=(0, 9))
def _advance(
    static: Potential, arrays: Potential, batch: AtomsBatch, neighbours: Neighbours, phase: Phase, reference: Array,
    steps: Array, key: PRNGKeyArray, numbers: tuple[Array, Array, Array, Array, Array], direct: bool,
) -> tuple[Array, Phase]:  # fmt: skip
    """Up to `steps` steps, fewer where an atom has moved half the skin since the neighbours were found."""
    potential = eqx.combine(arrays, static)
    dt, masses, friction, temperature, half_skin = numbers
    per_mass = (ACCELERATION / masses)[:, None]
    decay = jnp.exp(-friction * dt)
    noise = jnp.sqrt((1 - decay**2) * BOLTZMANN * temperature * per_mass)

    def step(carry: tuple[Array, Phase]) -> tuple[Array, Phase]:
        n, phase = carry
        v = phase.velocities + dt / 2 * phase.forces * per_mass
        x = phase.positions + dt / 2 * v
        v = decay * v + noise * jax.random.normal(jax.random.fold_in(key, n), v.shape, v.dtype)
        x = x + dt / 2 * v
        moved = eqx.tree_at(lambda b: b.positions, batch, x)
        energy, forces, _ = predict(potential, moved, neighbours, direct=direct)
        forces = jnp.where(batch.node_mask[:, None], forces, 0)
        v = v + dt / 2 * forces * per_mass
        return n + 1, Phase(x, jnp.where(batch.node_mask[:, None], v, 0), forces, energy)

    def go_on(carry: tuple[Array, Phase]) -> Array:
        n, phase = carry
        near = jnp.max(jnp.sum((phase.positions - reference) ** 2, axis=1)) < half_skin**2
        return (n < steps) & (near | (n == 0))

    return jax.lax.while_loop(go_on, step, (jnp.zeros((), steps.dtype), phase))


def simulate(
    potential: Potential,
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
    report: Callable[[int, Phase], None] | None = None,
) -> Trajectory:
    """Velocity Verlet (`friction` 0), or Langevin dynamics by BAOAB with `friction` (1/fs) at `temperature` (K).

    Energy is kept without friction; with it, configurations follow exp(-U / kT) up to O(dt^2).
    All structures of the batch move at once; neighbours are found again on the host whenever an atom has moved half the skin.

    **Arguments:** `velocities`: Å/fs, thermal ones by default; `every`: steps between frames; `direct`: forces from the model's
    own head; `report`: called with (steps made, phase) at each frame.

    **Raises:** `InputError` where an energy is no longer finite, with the step.

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
    velocity_key, noise_key = jax.random.split(key)
    masses = jnp.asarray(masses_of(batch), batch.positions.dtype)
    start = thermal_velocities(batch, temperature, velocity_key) if velocities is None else jnp.asarray(velocities)
    arrays, static = eqx.partition(potential, eqx.is_array)
    neighbours = potential.neighbours(batch, skin=skin)
    positions = jnp.asarray(batch.positions)
    phase = Phase(
        positions, start.astype(positions.dtype), jnp.zeros_like(positions), jnp.zeros(batch.structures, positions.dtype)
    )
    numbers = tuple(jnp.asarray(value, batch.positions.dtype) for value in (dt, 1.0, friction, temperature, skin / 2))
    numbers = (numbers[0], masses, *numbers[2:])
    still = (jnp.zeros_like(numbers[0]), *numbers[1:])  # a step of no time finds the first forces
    _, phase = _advance(static, arrays, batch, neighbours, phase, positions, jnp.asarray(1), noise_key, still, direct)
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
        if done % every == 0 or done == steps:
            frames.append(_frame(done * dt, batch, phase, masses))
            if report is not None:
                report(done, phase)
        if float(jnp.max(jnp.sum((phase.positions - reference) ** 2, axis=1))) >= (skin / 2) ** 2:
            moved = eqx.tree_at(lambda b: b.positions, batch, np.asarray(phase.positions))
            neighbours, reference = fresh_neighbours(potential, moved, skin, neighbours.width), phase.positions
    times, places, speeds, energies, kinetic = (np.stack(column) for column in zip(*frames, strict=True))
    return Trajectory(times, places, speeds, energies, kinetic, phase)


def _frame(time: float, batch: AtomsBatch, phase: Phase, masses: Array) -> tuple[np.ndarray, ...]:
    kinetic = kinetic_energy(batch, phase.velocities, masses)
    return tuple(np.asarray(part) for part in (time, phase.positions, phase.velocities, phase.energy, kinetic))
