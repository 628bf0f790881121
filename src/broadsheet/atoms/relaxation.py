"""Relaxation of a batch of structures at once: FIRE, and BFGS as ASE does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, fresh_neighbours
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.errors import InputError


class Relaxed(NamedTuple):
    """The relaxed batch, energies (eV), largest force on an atom (eV/Å), steps, and which structures converged."""

    batch: AtomsBatch
    energy: np.ndarray
    fmax: np.ndarray
    steps: np.ndarray
    converged: np.ndarray


class FIREState(eqx.Module):
    """Velocities, and for each structure its time step, mixing, and steps downhill."""

    velocities: Float[Array, "atoms 3"]
    dt: Float[Array, " structures"]
    mixing: Float[Array, " structures"]
    downhill: Float[Array, " structures"]


class BFGSState(eqx.Module):
    """Of each structure, its atoms in a row: the Hessian (eV/Å^2), and where and with which forces it was last."""

    hessian: Float[Array, "structures size size"]
    positions: Float[Array, "structures size"]
    forces: Float[Array, "structures size"]
    fresh: Bool[Array, " structures"]


def _fire_start(batch: AtomsBatch) -> FIREState:
    ones = jnp.ones(batch.structures, batch.positions.dtype)
    return FIREState(jnp.zeros_like(jnp.asarray(batch.positions)), 0.1 * ones, 0.1 * ones, 0 * ones)


def _fire(state: FIREState, batch: AtomsBatch, forces: Array, max_step: Array) -> tuple[FIREState, Array]:
    """Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with ASE's parameters, for each structure by itself."""
    power = batch.sum_atoms(jnp.sum(forces * state.velocities, axis=1))
    speed, force = (jnp.sqrt(batch.sum_atoms(jnp.sum(part**2, axis=1))) for part in (state.velocities, forces))
    good = power > 0
    mix = (state.mixing * speed / jnp.maximum(force, 1e-12))[batch.graph, None]
    mixed = (1 - state.mixing[batch.graph, None]) * state.velocities + mix * forces
    grown = good & (state.downhill > 5)
    dt = jnp.where(good, jnp.where(grown, jnp.minimum(1.1 * state.dt, 1.0), state.dt), 0.5 * state.dt)
    mixing = jnp.where(good, jnp.where(grown, 0.99 * state.mixing, state.mixing), 0.1)
    velocities = jnp.where(good[batch.graph, None], mixed, 0) + dt[batch.graph, None] * forces
    move = dt[batch.graph, None] * velocities
    length = jnp.sqrt(batch.sum_atoms(jnp.sum(move**2, axis=1)))
    move = move * jnp.minimum(1, max_step / jnp.maximum(length, 1e-12))[batch.graph, None]
    return FIREState(velocities, dt, mixing, jnp.where(good, state.downhill + 1, 0)), move


def _rows(batch: AtomsBatch) -> np.ndarray:
    """Places of each structure's atoms, (structures, most atoms), -1 for none."""
    graph, real = np.asarray(batch.graph), np.asarray(batch.node_mask)
    counts = np.bincount(graph[real], minlength=batch.structures)
    rows = np.full((batch.structures, max(1, counts.max())), -1)
    for k in range(batch.structures):
        rows[k, : counts[k]] = np.flatnonzero((graph == k) & real)
    return rows


def _bfgs_start(batch: AtomsBatch, rows: np.ndarray) -> BFGSState:
    size = 3 * rows.shape[1]
    hessian = jnp.broadcast_to(70.0 * jnp.eye(size, dtype=batch.positions.dtype), (batch.structures, size, size))
    zero = jnp.zeros((batch.structures, size), batch.positions.dtype)
    return BFGSState(hessian, zero, zero, jnp.ones(batch.structures, bool))


def _bfgs(state: BFGSState, batch: AtomsBatch, forces: Array, max_step: Array, rows: Array) -> tuple[BFGSState, Array]:
    """The quasi-Newton step of ASE's BFGS: eigenvalues by their size, the largest move of an atom limited."""

    def gathered(values: Array) -> Array:
        return jnp.where(rows[..., None] >= 0, values[rows], 0).reshape(len(rows), -1)

    x, f = gathered(jnp.asarray(batch.positions)), gathered(forces)
    dx, df = x - state.positions, f - state.forces
    moved = (jnp.max(jnp.abs(dx), axis=1) > 1e-7) & ~state.fresh
    a = jnp.sum(dx * df, axis=1)
    dg = jnp.einsum("gij,gj->gi", state.hessian, dx)
    b = jnp.sum(dx * dg, axis=1)
    safe = moved & (jnp.abs(a) > 1e-14) & (jnp.abs(b) > 1e-14)
    a, b = (jnp.where(safe, part, 1)[:, None, None] for part in (a, b))
    change = jnp.einsum("gi,gj->gij", df, df) / a + jnp.einsum("gi,gj->gij", dg, dg) / b
    hessian = jnp.where(safe[:, None, None], state.hessian - change, state.hessian)
    values, vectors = jnp.linalg.eigh(hessian)
    along = jnp.einsum("gij,gi->gj", vectors, f) / jnp.maximum(jnp.abs(values), 1e-8)
    move = jnp.einsum("gij,gj->gi", vectors, along).reshape(len(rows), -1, 3)
    longest = jnp.sqrt(jnp.max(jnp.sum(move**2, axis=-1), axis=1))
    move = move * jnp.minimum(1, max_step / jnp.maximum(longest, 1e-12))[:, None, None]
    flat = jnp.zeros_like(forces).at[jnp.where(rows >= 0, rows, len(forces))].add(move, mode="drop")
    return BFGSState(hessian, x, f, jnp.zeros_like(state.fresh)), flat


@partial(jax.jit, static_argnums=0)
def _descend(
    static: Potential, arrays: Potential, batch: AtomsBatch, neighbours: Neighbours, state: FIREState | BFGSState, rows: Array,
    counted: Array, numbers: tuple[Array, Array, Array, Array],
) -> tuple[AtomsBatch, FIREState | BFGSState, Array, Array, Array]:  # fmt: skip
    """Steps until all have converged or used their steps, or an atom has moved half the skin."""
    potential = eqx.combine(arrays, static)
    fmax, max_step, most, half_skin = numbers
    start = jnp.asarray(batch.positions)

    def look(positions: Array) -> tuple[Array, Array, Array]:
        found = potential.energy_and_forces(eqx.tree_at(lambda b: b.positions, batch, positions), neighbours)
        forces = batch.allowed(jnp.where(batch.node_mask[:, None], found.forces, 0))
        largest = jax.ops.segment_max(jnp.sum(forces**2, axis=1), batch.graph, batch.structures)
        return found.energy, forces, jnp.sqrt(jnp.maximum(largest, 0))

    def active(largest: Array, counted: Array) -> Array:
        return jnp.asarray(batch.graph_mask) & ~(largest < fmax) & (counted < most) & jnp.isfinite(largest)

    def go_on(carry: tuple) -> Array:
        positions, _, counted, _, _, largest = carry
        near = jnp.max(jnp.sum((positions - start) ** 2, axis=1)) < half_skin**2
        return near & active(largest, counted).any()

    def step(carry: tuple) -> tuple:
        positions, state, counted, _, forces, largest = carry
        here = eqx.tree_at(lambda b: b.positions, batch, positions)
        moving = active(largest, counted)
        after, move = _fire(state, here, forces, max_step) if isinstance(state, FIREState) else _bfgs(
            state, here, forces, max_step, rows)  # fmt: skip
        positions = positions + jnp.where(moving[batch.graph, None], batch.allowed(move), 0)
        return positions, after, counted + moving, *look(positions)

    carry = jax.lax.while_loop(go_on, step, (start, state, counted, *look(start)))
    positions, state, counted, energy, _, largest = carry
    return eqx.tree_at(lambda b: b.positions, batch, positions), state, counted, energy, largest


def relax(
    potential: Potential,
    batch: AtomsBatch,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    method: Literal["bfgs", "fire"] = "bfgs",
    max_step: float = 0.2,
    skin: float = 1.0,
    report: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> Relaxed:
    """Moves atoms until the largest force on any atom of a structure is below `fmax` (eV/Å); cells stay as they are, and so do
    atoms where constraints fix them, whose forces along what is fixed do not count.

    **Arguments:** `steps`: at most, for each structure; `max_step`: longest move, Å; `report`: called with (steps, largest
    forces) each time neighbours are found again. BFGS holds a Hessian of (3 atoms)^2 a structure; FIRE needs nothing.
    """
    if not fmax > 0 or steps < 1 or not max_step > 0 or not skin > 0:
        raise InputError("relax: fmax, steps, max_step and skin must be positive.")
    rows = _rows(batch)
    state: FIREState | BFGSState = _fire_start(batch) if method == "fire" else _bfgs_start(batch, rows)
    arrays, static = eqx.partition(potential, eqx.is_array)
    counted = jnp.zeros(batch.structures, int)
    numbers = tuple(jnp.asarray(value, batch.positions.dtype) for value in (fmax, max_step, steps, skin / 2))
    real, width = np.asarray(batch.graph_mask), 0
    while True:
        neighbours = fresh_neighbours(potential, batch, skin, width)
        width = neighbours.width
        found = _descend(static, arrays, batch, neighbours, state, jnp.asarray(rows), counted, numbers)
        batch, state, counted, energy, largest = found
        forces, made = np.asarray(largest)[real], np.asarray(counted)[real]
        if report is not None:
            report(made, forces)
        if (~np.isfinite(forces)).any():
            raise InputError(f"Structure {int(np.flatnonzero(~np.isfinite(forces))[0])} has forces that are not finite.")
        if ((forces < fmax) | (made >= steps)).all():
            return Relaxed(batch, np.asarray(energy)[real], forces, made, forces < fmax)
