"""A pair energy for each two elements, fitted by least squares: what distances alone explain, without training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from broadsheet.atoms.neighbours import Neighbours, pairs, separations
from broadsheet.atoms.pair import cosine_taper, gaussian_basis
from broadsheet.atoms.potential import Potential, ScaledPotential
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch, energies_of, forces_of
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties that are tried, in units of the mean square of a feature; what is rarely seen stays near 0."""


class PairTable(Potential):
    """Sum over pairs of a row of coefficients by their elements (eV) times tapered Gaussians of their distance.

    `row`: place of each atomic number in the table; `table`: symmetric in its first two axes.
    """

    row: Int[np.ndarray, " numbers"]
    table: Float[Array, "elements elements basis"] | Float[np.ndarray, "elements elements basis"]
    cutoff: float = eqx.field(static=True)

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        square = sum(part**2 for part in separations(batch, neighbours))
        near = jnp.asarray(neighbours.mask) & (square < self.cutoff**2)
        r = jnp.sqrt(jnp.where(near, square, (self.cutoff / 2) ** 2))
        row = jnp.asarray(self.row)[batch.numbers]
        weights = jnp.asarray(self.table, r.dtype)[row[:, None], row[neighbours.index]]
        pair = jnp.sum(weights * gaussian_basis(r, self.table.shape[2], self.cutoff), axis=2) * cosine_taper(r, self.cutoff)
        return batch.sum_atoms(jnp.sum(jnp.where(near, pair, 0), axis=1) / 2)  # each pair lies in both rows


def fit_pair_table(
    structures: Sequence[Atoms], validation: Sequence[Atoms], *, cutoff: float = 4.5, basis: int = 16
) -> ScaledPotential:
    """The table and the elements' energies that fit energies an atom and forces best, by ridge regression.

    Structures are taken one at a time, so that memory does not grow with their number. The penalty is the one of `RIDGES`
    that fits the validation structures best.

    **Raises:** `InputError` where validation has elements that were not seen.
    """
    elements = sorted({int(z) for each in structures for z in each.numbers})
    if unseen := {int(z) for each in validation for z in each.numbers} - set(elements):
        raise InputError(f"fit_pair_table: validation has the element {min(unseen)}, which training has not.")
    gram, moment, _ = _normal(structures, elements, cutoff, basis)
    held = _normal(validation, elements, cutoff, basis)
    penalty = np.full(len(moment), np.diag(gram)[len(elements) :].mean())
    penalty[: len(elements)] = 0  # the elements' own energies are free
    best, least = np.zeros(len(moment)), np.inf
    for ridge in RIDGES:
        found = np.linalg.lstsq(gram + np.diag(ridge * penalty), moment, rcond=1e-12)[0]
        error = found @ held[0] @ found - 2 * found @ held[1] + held[2]
        if error < least:
            best, least = found, error
    n = len(elements)
    table = np.zeros((n, n, basis))
    above = np.triu_indices(n)
    table[above] = best[n:].reshape(-1, basis)
    table[above[::-1]] = table[above]
    row, references = np.zeros(MAX_NUMBER + 1, int), np.full(MAX_NUMBER + 1, np.nan)
    row[elements], references[elements], references[0] = np.arange(n), best[:n], 0.0
    return ScaledPotential(PairTable(row=row, table=table, cutoff=cutoff), references)


def _normal(
    structures: Iterable[Atoms], elements: list[int], cutoff: float, basis: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gram matrix, moments and squared labels of a row an energy (an atom) and three a force (an atom's share)."""
    n = len(elements)
    kind = np.zeros((n, n), int)
    kind[np.triu_indices(n)] = kind.T[np.triu_indices(n)] = np.arange(n * (n + 1) // 2)
    columns = n + basis * (n * (n + 1) // 2)
    gram, moment, square = np.zeros((columns, columns)), np.zeros(columns), 0.0
    centres = np.linspace(0, cutoff, basis)
    width = cutoff / (basis - 1)
    for each in structures:
        atoms = len(each)
        where = np.searchsorted(elements, each.numbers)
        i, j, shifts, _ = pairs(each.positions, each.cell.array, each.pbc, cutoff)  # both directions
        apart = each.positions[j] - each.positions[i] + shifts @ each.cell.array
        r = np.linalg.norm(apart, axis=1, keepdims=True)
        bell, taper = np.exp(-((r - centres) ** 2) / (2 * width**2)), (1 + np.cos(np.pi * r / cutoff)) / 2
        slope = -(r - centres) / width**2 * bell * taper - np.pi / (2 * cutoff) * np.sin(np.pi * r / cutoff) * bell
        rows = np.zeros((1 + 3 * atoms, columns))
        np.add.at(rows[0], where, 1 / atoms)
        at = n + basis * kind[where[i], where[j]][:, None] + np.arange(basis)
        np.add.at(rows[0], at, bell * taper / (2 * atoms))
        for axis in range(3):
            np.add.at(rows, (1 + 3 * i[:, None] + axis, at), slope * (apart / r)[:, axis, None] / np.sqrt(atoms))
        labels = np.concatenate([energies_of([each]) / atoms, forces_of([each])[0].ravel() / np.sqrt(atoms)])
        gram += rows.T @ rows
        moment += rows.T @ labels
        square += float(labels @ labels)
    return gram, moment, square
