"""Langevin dynamics of beads under tabulated pair potentials, many of them at once. Å, fs, eV, amu, K.

What `simulate` does with neighbour lists for any potential, for the few beads and the many sampled potentials of a coarse
model: all pairs, forces read from tables, one compiled loop for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.motion import ACCELERATION, BOLTZMANN
from broadsheet.atoms.pair import PairPotential
from broadsheet.errors import InputError

PAIRS_AT_ONCE = 4_000_000
"""Pairs of all runs whose distances are held in memory together."""


class PairRuns(NamedTuple):
    """Frames of each run: positions (Å, not wrapped into the box) and forces (eV/Å), and the shortest distance of two beads
    without a bond that the run came to (Å).
    """

    positions: Float[np.ndarray, "runs frames beads 3"]
    forces: Float[np.ndarray, "runs frames beads 3"]
    nearest: Float[np.ndarray, " runs"]


class PairList(NamedTuple):
    """Pairs of beads i, j; their distance (Å) and the unit vector from j to i; frames may be stacked in front."""

    i: Any
    j: Any
    r: Any
    unit: Any


def pair_list(positions: Float[np.ndarray, "beads 3"], lengths: Float[np.ndarray, "3"], cutoff: float) -> PairList:
    """Pairs of one frame that are nearer than the cutoff in an orthogonal periodic box."""
    apart = positions[:, None] - positions[None, :]
    apart -= lengths * np.round(apart / lengths)
    i, j = np.nonzero(np.triu((apart**2).sum(axis=2) < cutoff**2, 1))
    r = np.linalg.norm(apart[i, j], axis=1)
    return PairList(i.astype(np.int32), j.astype(np.int32), r, apart[i, j] / r[:, None])


def pair_forces(slopes: Float[Array, " pairs"], pairs: PairList, beads: int) -> Float[Array, "beads 3"]:
    """Forces of one frame from dU/dr of its pairs, eV/Å."""
    push = -slopes[:, None] * pairs.unit
    return jnp.zeros((beads, 3), push.dtype).at[pairs.i].add(push).at[pairs.j].add(-push)


def pair_slopes(potentials: Sequence[PairPotential], r: Float[Array, " knots"]) -> Float[Array, " knots"]:
    """dU/dr of a sum of pair potentials at the distances r (Å), eV/Å; each is 0 beyond its cutoff."""
    found = jnp.zeros_like(r)
    for each in potentials:

        def energy(r: Array, each: PairPotential = each) -> Array:
            return (each.pair(r[None]) * each.taper(r[None]))[0]

        found = found + jnp.where(r < each.cutoff, jax.jvp(energy, (r,), (jnp.ones_like(r),))[1], 0)
    return found


def pair_dynamics(
    slopes: Float[Array, "tables knots"] | Float[np.ndarray, "tables knots"],
    span: tuple[float, float],
    positions: Float[np.ndarray, "runs beads 3"],
    lengths: Float[np.ndarray, "3"],
    *,
    steps: int,
    every: int,
    temperature: float,
    mass: float,
    dt: float,
    friction: float,
    key: PRNGKeyArray,
    bond: tuple[float, float] | None = None,
) -> PairRuns:
    """BAOAB as in `simulate`, each run with its own table, start and noise, in one orthogonal periodic box.

    **Arguments:** `slopes`: dU/dr at even distances over `span` (Å), between which it is interpolated; below the first it stays
    as it is there, from the last on it is 0; `every`: steps between frames, of which the start is none; `friction`: 1/fs;
    `bond`: length (Å) and stiffness (eV/Å^2) of a spring between beads 2k and 2k + 1, in place of the table.

    **Raises:** `InputError` for sizes that do not fit, and for a table longer than half the box.
    """
    runs, beads, _ = np.shape(positions)
    if len(slopes) != runs or steps < every or every < 1 or not dt > 0:
        raise InputError(f"pair_dynamics: {len(slopes)} tables, {runs} starts, {steps} steps, a frame every {every}.")
    if span[1] > np.min(lengths) / 2 + 1e-6:
        raise InputError(f"pair_dynamics: tables up to {span[1]:g} Å; half the box is {np.min(lengths) / 2:g} Å.")
    start = jnp.asarray(positions, jnp.float32)
    numbers = (*span, temperature, mass, dt, friction)
    found, forces, nearest = _all_runs(
        jnp.asarray(slopes, jnp.float32), start, jax.random.split(key, runs), jnp.asarray(lengths, jnp.float32),
        tuple(jnp.asarray(number, jnp.float32) for number in numbers), steps // every, every,
        max(1, min(runs, PAIRS_AT_ONCE // beads**2)), bond,
    )  # fmt: skip
    return PairRuns(np.asarray(found), np.asarray(forces), np.asarray(nearest))


@eqx.filter_jit
def _all_runs(
    slopes: Array, positions: Array, keys: Array, lengths: Array, numbers: tuple[Array, ...], frames: int, every: int,
    at_once: int, bond: tuple[float, float] | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    low, high, temperature, mass, dt, friction = numbers
    decay = jnp.exp(-friction * dt)
    thermal = jnp.sqrt(BOLTZMANN * temperature * ACCELERATION / mass)
    noise = jnp.sqrt(1 - decay**2) * thermal

    def one(run: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        table, start, key = run
        start_key, key = jax.random.split(key)
        knots = len(table)
        table = jnp.append(table, 0.0)
        itself = jnp.eye(len(start), dtype=start.dtype)
        partner = jnp.arange(len(start))[:, None] ^ 1 == jnp.arange(len(start))

        def look(x: Array) -> tuple[Array, Array]:
            apart = [x[:, None, k] - x[None, :, k] for k in range(3)]
            apart = [part - lengths[k] * jnp.round(part / lengths[k]) for k, part in enumerate(apart)]
            square = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2 + high**2 * itself
            inverse = jax.lax.rsqrt(square)
            at = jnp.clip((square * inverse - low) * ((knots - 1) / (high - low)), 0, knots - 1e-3)
            k = at.astype(jnp.int32)
            slope = table[k] + (at - k) * (table[jnp.minimum(k + 1, knots)] - table[k])
            pull = jnp.where(square < high**2, slope * inverse, 0)
            if bond:
                pull = jnp.where(partner, bond[1] * (1 - bond[0] * inverse), pull)
                square = jnp.where(partner, high**2, square)
            return -jnp.stack([jnp.sum(pull * part, axis=1) for part in apart], axis=1), jnp.sqrt(jnp.min(square))

        def step(n: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            x, v, forces, nearest, made = carry
            v = v + dt / 2 * forces * ACCELERATION / mass
            x = x + dt / 2 * v
            v = decay * v + noise * jax.random.normal(jax.random.fold_in(key, made), v.shape, v.dtype)
            x = x + dt / 2 * v
            forces, here = look(x)
            return x, v + dt / 2 * forces * ACCELERATION / mass, forces, jnp.minimum(nearest, here), made + 1

        def frame(carry: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            carry = jax.lax.fori_loop(0, every, step, carry)
            return carry, (carry[0], carry[2])

        v = thermal * jax.random.normal(start_key, start.shape, start.dtype)
        forces, nearest = look(start)
        last, made = jax.lax.scan(frame, (start, v - v.mean(axis=0), forces, nearest, jnp.zeros((), jnp.int32)), None, frames)
        return *made, last[3]

    return jax.lax.map(one, (slopes, positions, keys), batch_size=at_once)


def pair_normal_equations(
    positions: Float[np.ndarray, "frames beads 3"],
    forces: Float[np.ndarray, "frames beads 3"],
    lengths: Float[np.ndarray, "3"],
    tables: Float[np.ndarray, "basis knots"],
    span: tuple[float, float],
    fixed: Float[np.ndarray, " knots"],
) -> tuple[Float[np.ndarray, "frames basis basis"], Float[np.ndarray, "frames basis"]]:
    """Gram matrix and moments of each frame for forces that are linear in tabulated slopes: force matching by least squares.

    `gram.sum(0)` and `moment.sum(0)` give the coefficients of `tables` that fit the forces best, beside those of the `fixed`
    slopes; sums over frames drawn with replacement give those of a bootstrap.

    **Source:** S. Izvekov and G. A. Voth, J. Phys. Chem. B 109, 2469 (2005).
    """
    knots = np.linspace(*span, tables.shape[1])
    grams, moments = [], []
    for place, force in zip(positions, forces, strict=True):
        i, j, r, unit = pair_list(place, lengths, span[1])
        slopes = np.stack([np.interp(r, knots, row) for row in (*tables, fixed)], axis=1)
        design = np.zeros((len(place), 3, len(tables) + 1))
        push = -unit[:, :, None] * slopes[:, None, :]
        np.add.at(design, i, push)
        np.add.at(design, j, -push)
        rows = design.reshape(-1, len(tables) + 1)
        rest = force.ravel() - rows[:, -1]
        grams.append(rows[:, :-1].T @ rows[:, :-1])
        moments.append(rows[:, :-1].T @ rest)
    return np.array(grams), np.array(moments)
