"""A small elastic sheet solved inside a JAX program: a few hundred unknowns take less time than the way to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.matter.sheet_element import BULK, MASS, SHEAR, STRAIN
from broadsheet.numerics.block_tridiagonal import block_cholesky, block_solve

if TYPE_CHECKING:
    from broadsheet.matter.elastic_sheet import _Lattice


def displacement_in_program(
    lattice: _Lattice, h: float, Y: Float[Array, "height width"], active: Float[Array, "3 height width"], alpha: Array
) -> Float[Array, "2 height+1 width+1"]:
    """As `node_displacement` has it, of a lattice with a band, in the precision of the program; differentiable both ways.

    The band is cut into blocks as high as it reaches, so that each meets its neighbours alone.
    """
    rows, count = lattice.rows, -(-lattice.size // lattice.rows)
    row, column = np.broadcast_arrays(lattice.dof[:, :, None], lattice.dof[:, None, :])
    place = ((row // rows > column // rows) * count + row // rows) * rows**2 + row % rows * rows + column % rows
    shear, bulk = (
        np.bincount(place[lattice.wanted], np.broadcast_to(each, row.shape)[lattice.wanted], 2 * count * rows**2)
        for each in (SHEAR, BULK)
    )
    beyond = np.arange(lattice.size, count * rows)
    shear[beyond // rows * rows**2 + beyond % rows * (rows + 1)] = 1.0  # the last block is full
    stiffness, entries = h * h * Y[lattice.pixels], lattice.wanted & (MASS != 0)
    pixel, one, other = np.nonzero(entries)
    whole = (jnp.asarray(shear) + alpha * bulk).at[place[entries]].add(stiffness[pixel] * MASS[one, other])
    factor = block_cholesky(*jax.lax.stop_gradient(whole).reshape(2, count, rows, rows))

    def pulled(u: Array) -> Array:
        moved = u[lattice.dof]
        forces = moved @ (SHEAR + alpha * BULK) + stiffness[:, None] * (moved @ MASS)
        return jnp.zeros(lattice.size).at[lattice.dof].add(forces)

    def solved(_: Any, b: Array) -> Array:
        padded = jnp.zeros(count * rows).at[: lattice.size].set(b)
        return block_solve(factor, padded.reshape(count, rows)).ravel()[: lattice.size]

    load = jnp.zeros(lattice.size).at[lattice.dof].add(-h * (active[:, *lattice.pixels].T @ STRAIN))
    load = jnp.where((stiffness > 0).all() & (alpha > -0.5), load, jnp.nan)
    found = jax.lax.custom_linear_solve(pulled, load, solved, symmetric=True)
    corners = jnp.zeros((2, Y.shape[0] + 1, Y.shape[1] + 1))
    return corners.at[:, *lattice.nodes].set(found.reshape(-1, 2).T)
