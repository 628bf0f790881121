"""Self-consistency, and gradients through it that are right where levels are degenerate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from broadsheet.electrons.functionals import Functional
from broadsheet.electrons.kohn_sham import Molecule, energy, energy_and_fock_of_orbitals, fock
from broadsheet.errors import InputError

HISTORY = 8
"""Fock matrices that extrapolation looks back on."""
DIRECTIONS = 60
"""Of the linear solve behind a ground state's derivative, at most."""
GAP = 1e-5
"""Hartree; an occupied and an empty level nearer than this are a degenerate shell, filled in part."""


@jax.custom_vjp
def occupied_density(F: Float[Array, "n n"], X: Float[Array, "n m"], occupations: Float[Array, " m"]) -> Float[Array, "n n"]:
    """sum_i n_i C_i C_i^T of the eigenvectors of F in the basis X.

    Its derivative knows only pairs of levels with different occupations, (n_i - n_j) / (e_i - e_j): within a degenerate shell
    that is full or empty nothing depends on which eigenvectors the solver picks, and nothing is divided by zero.
    """
    C = X @ jnp.linalg.eigh(X.T @ F @ X)[1]
    return (C * occupations) @ C.T


def _density_forward(F: Array, X: Array, occupations: Array) -> tuple[Array, tuple]:
    values, vectors = jnp.linalg.eigh(X.T @ F @ X)
    C = X @ vectors
    return (C * occupations) @ C.T, (values, C, X, occupations)


def _density_backward(kept: tuple, slope: Array) -> tuple[Array, Array, Array]:
    values, C, X, occupations = kept
    difference = values[:, None] - values[None, :]
    filled = occupations[:, None] - occupations[None, :]
    near = jnp.abs(difference) < GAP
    ratio = filled * jnp.where(near, difference / (difference**2 + GAP**2), 1 / jnp.where(near, 1.0, difference))
    symmetric = (slope + slope.T) / 2
    return C @ (ratio * (C.T @ symmetric @ C)) @ C.T, jnp.zeros_like(X), jnp.zeros_like(occupations)


occupied_density.defvjp(_density_forward, _density_backward)


@jax.custom_vjp
def safe_eigh(A: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues and eigenvectors of a symmetric matrix; the derivative leaves pairs of equal eigenvalues out.

    That is the derivative of whatever does not depend on the choice within a degenerate shell.
    """
    values, vectors = jnp.linalg.eigh(A)
    return values, vectors


def _eigh_forward(A: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    values, vectors = jnp.linalg.eigh(A)
    return (values, vectors), (values, vectors)


def _eigh_backward(kept: tuple[Array, Array], slopes: tuple[Array, Array]) -> tuple[Array]:
    values, V = kept
    difference = values[None, :] - values[:, None]
    near = jnp.abs(difference) < 1e-6
    ratio = jnp.where(near, difference / (difference**2 + 1e-10), 1 / jnp.where(near, 1.0, difference))
    inner = jnp.diag(slopes[0]) + ratio * (V.T @ slopes[1])
    slope = V @ inner @ V.T
    return ((slope + slope.T) / 2,)


safe_eigh.defvjp(_eigh_forward, _eigh_backward)


def next_density(functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, "spins n n"]:
    """The density of the lowest orbitals in the field of D; differentiable in both."""
    F = fock(functional, molecule, D)
    pairs = zip(F, jnp.asarray(molecule.occupations()), strict=True)
    return jnp.stack([occupied_density(one, molecule.orthogonal, filled) for one, filled in pairs])


class Iterated(NamedTuple):
    """Energy and density matrix after a number of cycles, and the energy after each, Hartree."""

    energy: Float[Array, ""]
    D: Float[Array, "spins n n"]
    energies: Float[Array, " cycles"]


def scf(
    functional: Functional,
    molecule: Molecule,
    *,
    cycles: int = 25,
    mixing: float = 0.4,
    start: Float[Array, "spins n n"] | None = None,
) -> Iterated:
    """A fixed number of cycles with linear mixing, D <- (1 - mixing) D + mixing D_new; differentiable through all of them.

    It need not have converged: `ground_state` does that, with a gradient that costs no memory per cycle.
    """

    def cycle(D: Array, _: None) -> tuple[Array, Array]:
        D = (1 - mixing) * D + mixing * next_density(functional, molecule, D)
        return D, energy(functional, molecule, D)

    D, energies = jax.lax.scan(jax.checkpoint(cycle), molecule.guess if start is None else start, None, cycles)
    return Iterated(energies[-1], D, energies)


class GroundState(eqx.Module):
    """A converged calculation; energies in Hartree.

    `D`: density matrix; `orbitals`, `levels`: molecular orbitals (spins, n, m) and their energies; `residual`: largest element
    of the commutator of Fock and density matrix; `cycles`.
    """

    energy: Float[Array, ""]
    D: Float[Array, "spins n n"]
    orbitals: Float[Array, "spins n m"]
    levels: Float[Array, "spins m"]
    residual: Float[Array, ""]
    cycles: Int[Array, ""]


class _Search(NamedTuple):
    """The state of the iteration: its orbitals, Fock matrices and their residuals so far. `filled`: orbitals by the root of
    their occupation.
    """

    C: Array
    levels: Array
    F: Array
    residuals: Array
    energy: Array
    change: Array
    largest: Array
    done: Array
    filled: Array


def _extrapolated(F: Array, residuals: Array, done: Array) -> Array:
    """Pulay's combination of the Fock matrices so far: weights of sum one that make the combined residual smallest."""
    known = jnp.arange(HISTORY) < done
    B = jnp.einsum("ka,la->kl", residuals.reshape(HISTORY, -1), residuals.reshape(HISTORY, -1))
    B = jnp.where(known[:, None] & known[None, :], B, 0)
    scale = jnp.max(jnp.diag(B))
    B = B / jnp.maximum(scale, 1e-300) + jnp.diag(jnp.where(known, 1e-14, 1.0))
    weights = jnp.where(known, jnp.linalg.solve(B, known.astype(B.dtype)), 0)
    return jnp.einsum("k,ksnm->snm", weights / jnp.sum(weights), F)


@eqx.filter_jit
def _search(
    functional: Functional, molecule: Molecule, start: Array | None, most: Array, energy_change: Array, residual: Array
) -> _Search:
    """One Fock matrix in the program, that of the start included: it is most of what there is to compile."""
    X, S = molecule.orthogonal, molecule.overlap
    spins, n, m = len(molecule.guess), molecule.size, X.shape[1]
    occupations = jnp.asarray(molecule.occupations())
    most_filled = max(molecule.electrons)

    def filled(C: Array) -> Array:
        return jnp.pad(C * jnp.sqrt(occupations)[:, None], [(0, 0), (0, 0), (0, n - m)])

    def cycle(state: _Search) -> _Search:
        starts = state.done < 0  # from the natural orbitals of the start, of which more are filled; it is none of the history
        C = state.filled
        found, F = energy_and_fock_of_orbitals(functional, molecule, C, (~starts, most_filled))
        D = jnp.einsum("sni,smi->snm", C, C)
        FDS = jnp.einsum("snp,spq,qm->snm", F, D, S)
        error = jnp.einsum("nm,snp,pq->smq", X, FDS - jnp.swapaxes(FDS, 1, 2), X)
        done, place = state.done + 1, jnp.maximum(state.done, 0) % HISTORY
        Fs, errors = state.F.at[place].set(F), state.residuals.at[place].set(error)
        used = jnp.where(starts, F, _extrapolated(Fs, errors, jnp.maximum(done, 1)))
        levels, vectors = jnp.linalg.eigh(jnp.einsum("nm,snp,pq->smq", X, used, X))
        C = jnp.einsum("nm,smk->snk", X, vectors)
        change, energy = jnp.abs(found - state.energy), jnp.where(starts, jnp.inf, found)
        return _Search(C, levels, Fs, errors, energy, change, jnp.max(jnp.abs(error)), done, filled(C))

    def unfinished(state: _Search) -> Array:
        return (state.done < most) & ~((state.change < energy_change) & (state.largest < residual))

    shares, natural = jnp.linalg.eigh(molecule.guess if start is None else start)
    first = natural * jnp.sqrt(jnp.maximum(shares, 0))[:, None]
    nothing = jnp.zeros((HISTORY, spins, n, n)), jnp.zeros((HISTORY, spins, m, m))
    big = jnp.asarray(jnp.inf)
    empty = jnp.zeros((spins, n, m)), jnp.zeros((spins, m))
    return jax.lax.while_loop(unfinished, cycle, _Search(*empty, *nothing, big, big, big, jnp.asarray(-1), first))


def converge(
    functional: Functional,
    molecule: Molecule,
    *,
    start: Float[Array, "spins n n"] | None = None,
    cycles: int = 100,
    energy_change: float = 1e-9,
    residual: float = 1e-5,
) -> GroundState:
    """Direct inversion in the iterative subspace until the energy changes by less than `energy_change` (Hartree) and the
    commutator is below `residual`. No gradient: see `ground_state`.

    **Raises:** `InputError` where `cycles` are not enough; inside `jax.jit`, where nothing can be raised, energy and density
    are NaN then.
    """
    found = _search(functional, molecule, start, *map(jnp.asarray, (cycles, energy_change, residual)))
    reached = (found.change < energy_change) & (found.largest < residual)
    if not isinstance(reached, jax.core.Tracer) and not reached:
        raise InputError(
            f"The self-consistent field isn't converged in {cycles} cycles (commutator {float(found.largest):.1e}): allow more "
            "cycles or give another start."
        )
    C = found.C * jnp.sqrt(jnp.asarray(molecule.occupations()))[:, None]
    told = jnp.where(reached, 0.0, jnp.nan)
    D = jnp.einsum("sni,smi->snm", C, C)
    return GroundState(found.energy + told, D + told, found.C, found.levels, found.largest, found.done)


def _solved(operator: Callable[[Array], Array], right: Array) -> Array:
    """The x with operator(x) = right, by GMRES without restarts: one application a step, written once to compile fast.

    It ends at a residual of 1e-11 of `right`, where a step brings no new direction, or after `DIRECTIONS`.
    """
    flat = right.ravel()
    most, size = min(DIRECTIONS, flat.size), jnp.linalg.norm(flat)
    wanted = jnp.zeros(most + 1).at[0].set(size)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        done, Q, H, *_ = state
        made = operator(Q[done].reshape(right.shape)).ravel()
        along = Q @ made
        made = made - along @ Q
        rest = Q @ made  # once more, against rounding
        made = made - rest @ Q
        new = jnp.linalg.norm(made)
        H = H.at[:, done].set((along + rest).at[done + 1].set(new))
        y = jnp.linalg.lstsq(H, wanted)[0]
        return done + 1, Q.at[done + 1].set(made / jnp.maximum(new, 1e-300)), H, y, new, jnp.linalg.norm(H @ y - wanted)

    def unfinished(state: tuple[Array, ...]) -> Array:
        done, _, _, _, new, residual = state
        return (done < most) & (new > 1e-12) & (residual > 1e-11 * size)

    Q = jnp.zeros((most + 1, flat.size)).at[0].set(flat / jnp.maximum(size, 1e-300))
    first: tuple[Array, ...] = jnp.asarray(0), Q, jnp.zeros((most + 1, most)), jnp.zeros(most), jnp.ones(()), size
    _, Q, _, y, _, _ = jax.lax.while_loop(unfinished, step, first)
    return (y @ Q[:most]).reshape(right.shape)


@eqx.filter_custom_vjp
def _fixed_point(functional: Functional, molecule: Molecule, D: Array) -> Array:
    """D, which `next_density` leaves as it is; its derivative in the functional is that of the fixed point."""
    return D


@_fixed_point.def_fwd
def _fixed_forward(perturbed: Functional, functional: Functional, molecule: Molecule, D: Array) -> tuple[Array, None]:
    return D, None


@_fixed_point.def_bwd
def _fixed_backward(
    kept: None, slope: Array, perturbed: Functional, functional: Functional, molecule: Molecule, D: Array
) -> Functional:
    """(1 - d next / d D)^T u = slope, then u times d next / d functional."""
    weights, fixed = eqx.partition(functional, eqx.is_inexact_array)
    _, back = jax.vjp(lambda weights, D: next_density(eqx.combine(weights, fixed), molecule, D), weights, D)
    u = _solved(lambda u: u - back(u)[1], slope)
    return back(u)[0]


def ground_state(functional: Functional, molecule: Molecule, *, start: Array | None = None, cycles: int = 100,
                 energy_change: float = 1e-11, residual: float = 1e-8) -> Iterated:  # fmt: skip
    """The self-consistent energy and density, differentiable in the functional's weights.

    The derivative is that of the fixed point, by one linear solve, whatever the number of cycles was.
    """
    weights, fixed = eqx.partition(functional, eqx.is_inexact_array)
    still = eqx.combine(jax.lax.stop_gradient(weights), fixed)
    found = converge(still, molecule, start=start, cycles=cycles, energy_change=energy_change, residual=residual)
    D = _fixed_point(functional, molecule, jax.lax.stop_gradient(found.D))
    total = energy(functional, molecule, D)
    return Iterated(total, D, total[None])
