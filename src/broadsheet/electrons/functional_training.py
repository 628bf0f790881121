"""Training functionals: on energies and densities, at densities that stay or at the functional's own, with exact conditions as
losses; and the constants of a sum by linear least squares, which a network has to beat.

**Source:** arXiv 2309.15127 and its code (XanaduAI/GradDFT, Apache-2.0) for the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.electrons.exact_conditions import ExactConditions
from broadsheet.electrons.functionals import Density, Functional, Sum, b88_correction, lyp, slater, vwn_rpa
from broadsheet.electrons.kohn_sham import (
    Molecule,
    density_error,
    energy,
    energy_without_xc,
    exchange_energy,
    grid_density,
)
from broadsheet.electrons.self_consistency import ground_state
from broadsheet.errors import InputError
from broadsheet.learn import fit

if TYPE_CHECKING:
    from broadsheet.learn.pruning import Sparsifier

F = TypeVar("F", bound=Functional)
Solve = Literal["fixed", "held", "through"]
THINNEST = 1e-7
"""Electrons/Bohr^3; points with less are left out where a network would see them; that moves H2's energies by 1e-7 Hartree."""
TINY = 1e-13
"""Smaller values count as zero where points are compared."""
AT_ONCE = 1 << 14
"""Points that a functional sees at once where it is differentiated; of these a network of 10 layers of 512 keeps about 7 GB, by
arithmetic."""
_grid_density: Any = eqx.filter_jit(grid_density)
_without_xc: Any = eqx.filter_jit(energy_without_xc)
_exchange: Any = eqx.filter_jit(exchange_energy)


class FixedDensities(eqx.Module):
    """What energies at densities that stay need of them: local quantities on the grids of all molecules in a row, the energies
    (Hartree) of each molecule without exchange and correlation, and its exact exchange, where it has integrals for that.
    """

    density: Density
    weights: Float[Array, " points"]
    owner: Int[Array, " points"]
    rest: Float[Array, " molecules"]
    exchange: Float[Array, " molecules"] | None

    @classmethod
    def of(cls, molecules: Sequence[Molecule], densities: Sequence[Float[Array, "_ _ _"]]) -> FixedDensities:
        """Of as many density matrices as molecules."""
        pairs = list(zip(molecules, densities, strict=True))
        parts = [_distinct(_grid_density(molecule, D), molecule.weights) for molecule, D in pairs]
        exact = all(molecule.repulsion.full is not None for molecule in molecules)
        rows = np.concatenate([part[0] for part in parts], axis=1)
        return cls(
            Density(*map(jnp.asarray, (rows[:2], rows[2:5], rows[5:]))),
            jnp.asarray(np.concatenate([part[1] for part in parts])),
            jnp.asarray(np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts])),
            jnp.stack([_without_xc(molecule, D) for molecule, D in pairs]),
            jnp.stack([_exchange(molecule, D) for molecule, D in pairs]) if exact else None,
        )  # fmt: skip

    def xc(self, functional: Functional) -> Float[Array, " molecules"]:
        """Exchange and correlation energies without exact exchange, Hartree; many points in parts that are computed again
        where they are differentiated, so that memory stays bounded."""

        def some(density: Density, weights: Array, owner: Array) -> Array:
            local = weights * functional.energy_density(density)
            return jax.ops.segment_sum(local, owner, len(self.rest), indices_are_sorted=True)

        points = len(self.weights)
        if points <= AT_ONCE:
            return some(self.density, self.weights, self.owner)
        parts = -(-points // AT_ONCE)

        def blocks(leaf: Array) -> Array:
            """Points of no weight at the end, with the last one's density and owner."""
            padded = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, parts * AT_ONCE - points)], mode="edge")
            return jnp.moveaxis(padded.reshape(*leaf.shape[:-1], parts, AT_ONCE), -2, 0)

        given = jax.tree.map(blocks, (self.density, self.weights, self.owner))
        seen = (jnp.arange(parts * AT_ONCE) < points).reshape(parts, AT_ONCE)

        def add(total: Array, part: tuple[tuple[Density, Array, Array], Array]) -> tuple[Array, None]:
            (density, weights, owner), real = part
            return total + some(density, jnp.where(real, weights, 0), owner), None

        return jax.lax.scan(jax.checkpoint(add), jnp.zeros(len(self.rest)), (given, seen))[0]

    def without_xc(self, functional: Functional) -> Float[Array, " molecules"]:
        """What energies have beside `xc`, a hybrid's exact exchange among it, Hartree.

        **Raises:** `InputError` for a hybrid where a molecule has no integrals for exchange.
        """
        if not functional.exact_exchange:
            return self.rest
        if self.exchange is None:
            raise InputError("A hybrid at fixed densities wants molecules with integrals for exchange (exchange=True).")
        return self.rest + functional.exact_exchange * self.exchange

    def energies(self, functional: Functional) -> Float[Array, " molecules"]:
        """Total energies, Hartree; raises as `without_xc` does."""
        return self.without_xc(functional) + self.xc(functional)


def _distinct(density: Density, weights: Float[Array, "blocks points"]) -> tuple[np.ndarray, np.ndarray]:
    """rho, sigma and tau, and weights, of the points that count. Those alike by a molecule's symmetry, to nine digits, are
    taken as one: two atoms keep a tenth to a fifth, an atom of full or half shells one of each radius.
    """
    weight, rows = np.asarray(weights).ravel(), np.concatenate([np.asarray(leaf) for leaf in jax.tree.leaves(density)])
    kept = (weight != 0) & (rows[:2].sum(axis=0) > THINNEST)
    weight, rows = weight[kept], rows[:, kept]
    digits, power = np.frexp(np.where(np.abs(rows) > TINY, rows, 0))
    _, first, of = np.unique(np.ldexp(np.round(digits * 2**30), power), axis=1, return_index=True, return_inverse=True)
    return rows[:, first], np.bincount(of.ravel(), weight)


class Targets(NamedTuple):
    """Energies (Hartree), density matrices where they are fitted, and what each molecule counts."""

    energies: Float[Array, " molecules"]
    densities: list[Float[Array, "_ _ _"]] | Float[Array, "molecules _ _ _"] | None
    shares: Float[Array, " molecules"]


class FunctionalLoss(eqx.Module):
    """Mean square error of the energies, and with weights the error of the densities and violations of exact conditions.

    `response`: what the density's answer to the functional counts in the gradient, where each molecule is solved: 1, or 0 where
    the density is held. All are arrays, so that losses that differ in them are compiled once.
    """

    density_weight: Float[Array, ""]
    condition_weight: Float[Array, ""]
    response: Float[Array, ""]
    conditions: ExactConditions | None

    def __call__(self, model: Functional, batch: tuple[Any, Targets], key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        known, targets = batch
        if isinstance(known, FixedDensities):
            found, apart = known.energies(model), jnp.zeros(len(targets.energies))
        elif isinstance(known, Molecule):  # stacked
            found, apart = jax.lax.map(lambda pair: self._solved(model, *pair), (known, targets.densities))
        else:
            each: Any = targets.densities if targets.densities is not None else [None] * len(known)
            pairs = [self._solved(model, molecule, D) for molecule, D in zip(known, each, strict=True)]
            found, apart = jnp.stack([pair[0] for pair in pairs]), jnp.stack([pair[1] for pair in pairs])
        errors = (found - targets.energies) ** 2 + self.density_weight * apart
        loss = jnp.sum(targets.shares * errors) / jnp.sum(targets.shares)
        if self.conditions is not None:
            loss = loss + self.condition_weight * jnp.sum(self.conditions.squares(model))
        return loss

    def _solved(self, model: Functional, molecule: Molecule, wanted: Array | None) -> tuple[Array, Array]:
        """Energy and the density's error at the functional's own density."""
        found = ground_state(model, molecule, energy_change=1e-9, residual=1e-6).D  # steps of training are far larger
        still = jax.lax.stop_gradient(found)
        D = still + self.response * (found - still)
        value = energy(model, molecule, D)
        return value, jnp.zeros(()) if wanted is None else density_error(molecule, D, wanted)


class _Always(eqx.Module):
    """The same batch at every step."""

    batch: Any

    def __call__(self, key: PRNGKeyArray) -> Any:
        return self.batch


_ADAM = optax.scale_by_adam()


class _Falling(NamedTuple):
    """Adam's state, the first learning rate, and the steps over which it falls to a hundredth."""

    adam: Any
    rate: Float[Array, ""]
    steps: Float[Array, ""]


def _fall(updates: Any, state: _Falling, params: Any = None) -> tuple[Any, _Falling]:
    left = jnp.minimum(state.adam.count / state.steps, 1)
    updates, adam = _ADAM.update(updates, state.adam, params)
    rate = state.rate * (0.01 + 0.99 * (1 + jnp.cos(jnp.pi * left)) / 2)
    return jax.tree.map(lambda one: -rate * one, updates), state._replace(adam=adam)


def _falling_adam(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls on a cosine; rates and steps are in its state, so that trainings that differ in them are compiled
    once."""
    return optax.GradientTransformation(
        lambda params: _Falling(_ADAM.init(params), jnp.asarray(rate, float), jnp.asarray(steps, float)), _fall
    )


def train_functional(
    functional: F,
    molecules: Sequence[Molecule] | FixedDensities,
    energies: Sequence[float] | Float[np.ndarray, " molecules"],
    *,
    densities: Sequence[Float[Array, "_ _ _"]] | None = None,
    solve: Solve | None = None,
    wanted_densities: Sequence[Float[Array, "_ _ _"]] | None = None,
    density_weight: float = 1.0,
    conditions: ExactConditions | None = None,
    condition_weight: float = 0.01,
    shares: Sequence[float] | Float[np.ndarray, " molecules"] | None = None,
    steps: int = 300,
    learning_rate: float = 3e-3,
    sparsifier: Sparsifier | None = None,
    report: Callable[[int, float], None] | None = None,
) -> F:
    """Fits a functional's weights to total energies (Hartree) by Adam, on the mean square error; the rate falls on a cosine.

    **Arguments:**

    - `densities`: density matrices at which the energies are taken; a `FixedDensities` in place of the molecules has them.
    - `solve`: `"fixed"` at these; `"through"`, the default without them, at the functional's own, differentiated through
      the solution; `"held"` at the functional's own as if they did not depend on it, which has the same gradient of the energy
      and none of the density.
    - `wanted_densities`: density matrices to come near to as well, with `density_weight` (Hartree^2 Bohr^3) times
      `density_error`.
    - `conditions`: violations whose squares are added with `condition_weight` (Hartree^2).
    - `shares`: what each molecule's error counts; all the same by default.
    - `sparsifier`, `report`: as in `broadsheet.learn.fit`.

    **Raises:** `InputError` for lists that don't fit each other, and for what fixed densities cannot learn.
    """
    count = len(molecules.rest) if isinstance(molecules, FixedDensities) else len(molecules)
    given = [part for part in (energies, densities, wanted_densities, shares) if part is not None]
    if not count or any(len(part) != count for part in given):
        raise InputError("train_functional: as many energies, and densities, as molecules are wanted.")
    if densities is not None and isinstance(molecules, FixedDensities):
        raise InputError("train_functional: a FixedDensities has densities already; leave densities=… out.")
    still = densities is not None or isinstance(molecules, FixedDensities)
    solve = solve or ("fixed" if still else "through")
    if still != (solve == "fixed"):
        raise InputError(f"train_functional: solve={solve!r} {'takes no densities' if still else 'wants densities'}.")
    if wanted_densities is not None and density_weight and solve != "through":
        raise InputError(f"train_functional: a density that stays learns nothing; solve is {solve!r}, 'through' is wanted.")
    known: Any = molecules
    if not isinstance(molecules, FixedDensities):
        known = FixedDensities.of(molecules, densities) if densities is not None else list(molecules)
    wanted: Any = None if wanted_densities is None else [jnp.asarray(D) for D in wanted_densities]
    if isinstance(known, list) and _alike(known):  # one program for all of them
        known, wanted = (None if each is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
                         for each in (known, wanted))  # fmt: skip
    targets = Targets(jnp.asarray(np.asarray(energies, float)), wanted,
                      jnp.ones(count) if shares is None else jnp.asarray(np.asarray(shares, float)))  # fmt: skip
    loss = FunctionalLoss(
        jnp.asarray(density_weight, float),
        jnp.asarray(condition_weight, float),
        jnp.asarray(float(solve == "through")),
        conditions,
    )
    return fit(
        functional, loss, _Always((known, targets)), optimiser=_falling_adam(learning_rate, steps), steps=steps,
        key=jax.random.key(0), sparsifier=sparsifier, report=report,
    ).model  # fmt: skip


def _alike(molecules: list[Molecule]) -> bool:
    """Whether all have arrays of the same shapes and the same electrons."""
    shapes = [jax.tree.flatten(jax.tree.map(jnp.shape, molecule), is_leaf=lambda leaf: isinstance(leaf, tuple))
              for molecule in molecules]  # fmt: skip
    return all(shape == shapes[0] for shape in shapes)


def fit_weights(
    functional: Sum,
    known: FixedDensities,
    energies: Sequence[float] | Float[np.ndarray, " molecules"],
    *,
    conditions: ExactConditions | None = None,
    condition_weight: float = 0.01,
    shares: Sequence[float] | Float[np.ndarray, " molecules"] | None = None,
) -> Sum:
    """A sum with the weights that fit total energies (Hartree) at fixed densities best, by linear least squares; the smallest
    such weights where several do. What a network learns from these energies should be set beside it.

    **Arguments:** `conditions`, `condition_weight`, `shares`: as in `train_functional`; of the conditions the equalities.

    **Raises:** `InputError` for another number of energies than molecules.
    """
    target = np.asarray(energies, float)
    if len(target) != len(known.rest):
        raise InputError(f"fit_weights: {len(target)} energies for {len(known.rest)} molecules.")
    rows = np.asarray(_columns(functional, known))
    rest = known.without_xc(functional)
    counted = np.ones(len(target)) if shares is None else np.asarray(shares, float)
    root = np.sqrt(counted / counted.sum())
    matrix, right = rows * root[:, None], (target - np.asarray(rest)) * root
    if conditions is not None:
        for parts in _ratio_columns(functional, conditions):
            scale = np.sqrt(condition_weight / len(parts))
            matrix = np.concatenate([matrix, scale * np.asarray(parts)])
            right = np.concatenate([right, np.full(len(parts), scale)])
    found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return eqx.tree_at(lambda f: f.weights, functional, jnp.asarray(found))


@eqx.filter_jit
def _columns(functional: Sum, known: FixedDensities) -> Float[Array, "molecules terms"]:
    """What each term alone makes of each molecule."""
    return jnp.stack([known.xc(Sum((term,), functional.level)) for term in functional.terms], axis=1)


@eqx.filter_jit
def _ratio_columns(functional: Sum, conditions: ExactConditions) -> list[Float[Array, "_ terms"]]:
    """The conditions' ratios of each term alone: of gases, and of one electron."""
    found = [conditions.ratios(Sum((term,), functional.level)) for term in functional.terms]
    return [jnp.stack(parts, axis=1) for parts in zip(*found, strict=True)]


def refit_b3lyp(
    known: FixedDensities,
    energies: Sequence[float] | Float[np.ndarray, " molecules"],
    shares: Sequence[float] | Float[np.ndarray, " molecules"] | None = None,
) -> Sum:
    """B3LYP with its three parameters fitted to total energies (Hartree) at fixed densities by linear least squares:
    LSDA + a0 (exact exchange - LSDA's) + ax B88's correction + ac (LYP - VWN).

    **Raises:** `InputError` where a molecule has no integrals for exchange.
    """
    if known.exchange is None:
        raise InputError("B3LYP is fitted on molecules with integrals for exchange (exchange=True).")
    terms = (slater, b88_correction, vwn_rpa, lyp)
    uniform, gradient, local, whole = np.asarray(_columns(Sum(terms, "gga"), known)).T
    columns = np.stack([np.asarray(known.exchange) - uniform, gradient, whole - local], axis=1)
    root = np.sqrt(np.ones(len(uniform)) if shares is None else np.asarray(shares, float))
    left = np.asarray(energies, float) - np.asarray(known.rest) - uniform - local
    a0, ax, ac = np.linalg.lstsq(columns * root[:, None], left * root, rcond=None)[0]
    return Sum(terms, "gga", (1 - a0, ax, 1 - ac, ac), float(a0))
