"""An elastic sheet that contracts on a substrate of springs: what an adherent cell is in its simplest mechanical model.

In the cell, `div s(u) = Y u` with the stress `s(u) = alpha (div u) I + e(u)`, strain `e(u)` and adhesion stiffness Y > 0; on
its edge `(s(u) + active) n = 0`. The cell pulls on the substrate with the traction F = Y u. Weak form:
`int s(u) : e(v) + int Y u v = - int active : e(v)`, from arXiv 2303.00176 and its published code.

Lengths are in µm, Y in 1/µm², tractions in kPa, the active stress in kPa µm. Stresses are in units of the sheet's 2 mu, so that
u is in µm where 2 mu = 1 kPa µm. Vectors are (x, y): x grows along columns, y along rows.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu
from scipy.special import i0, i1

from broadsheet.errors import InputError
from broadsheet.matter.sheet_element import BULK, MASS, SHEAR, STRAIN
from broadsheet.matter.sheet_in_program import displacement_in_program
from broadsheet.numerics.blas import one_thread

BAND_LIMIT = 8_000_000
"""Entries of a band matrix up to which it is factored as such; above, SuperLU with a dissection of the lattice is faster."""

SMALL = 31
"""Rows of the band's blocks up to which a program in float64 solves a sheet itself: from 32 on, XLA's BLAS takes threads."""

LEAF = 8
"""Nodes that are dissected no further."""

KEPT_BYTES = 256 * 2**20
"""Of factors that are kept between a solution and its gradient."""


class _Factor:
    """A factored stiffness matrix."""

    def __init__(self, lattice: _Lattice, blocks: Float[np.ndarray, "pixels 8 8"]):
        values = np.bincount(lattice.place, blocks[lattice.wanted], minlength=lattice.entries)
        with one_thread():
            if lattice.banded:
                band = values.reshape(lattice.size, -1).T
                self._band = cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
                self._lu, self.nbytes = None, values.nbytes
            else:
                whole = csc_array((values, *lattice.columns), shape=(lattice.size, lattice.size))
                self._lu = splu(whole, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
                self.nbytes = 12 * self._lu.nnz

    def solve(self, b: np.ndarray) -> np.ndarray:
        with one_thread():
            if self._lu is not None:
                return self._lu.solve(b)
            return cho_solve_banded((self._band, True), b, check_finite=False)


def _dissected(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Nested dissection: the order of nodes in which each line that cuts the rest in two comes after both halves."""

    def order(nodes: np.ndarray) -> list[np.ndarray]:
        across = max(rows[nodes], columns[nodes], key=np.ptp)
        middle = int(np.median(across))
        before, after = nodes[across < middle], nodes[across > middle]
        if len(nodes) <= LEAF or not (len(before) and len(after)):
            return [nodes]
        return [*order(before), *order(after), nodes[across == middle]]

    return np.concatenate(order(np.arange(len(rows))))


class _Lattice:
    """The pixels of a mask as bilinear elements, their corners as nodes; numbered along the shorter side, or by dissection.

    `place` tells which of the `entries` of the matrix each of the blocks' `wanted` entries is added to: of its lower band,
    column by column, or of its compressed `columns` (rows of the entries, where columns begin). The band reaches `rows` below
    the diagonal.
    """

    def __init__(self, mask: np.ndarray):
        rows, columns = np.nonzero(mask)
        self.pixels, self.shape = (rows, columns), mask.shape
        tall = np.ptp(rows) >= np.ptp(columns)
        height, width = mask.shape[0] + 1, mask.shape[1] + 1
        corner_rows = rows[:, None] + np.array([0, 0, 1, 1])
        corner_columns = columns[:, None] + np.array([0, 1, 0, 1])
        number = corner_rows * width + corner_columns if tall else corner_columns * height + corner_rows
        nodes, corners = np.unique(number, return_inverse=True)
        corners = corners.reshape(-1, 4)
        self.nodes = (nodes // width, nodes % width) if tall else (nodes % height, nodes // height)
        self.size, band = 2 * len(nodes), 2 * int(np.ptp(corners, axis=1).max()) + 2
        self.banded, self.rows = band * self.size <= BAND_LIMIT, band - 1
        if not self.banded:
            order = _dissected(*self.nodes)
            self.nodes = (self.nodes[0][order], self.nodes[1][order])
            corners = np.argsort(order)[corners]
        self.dof = (2 * corners[:, :, None] + np.arange(2)).reshape(-1, 8)
        row, column = np.broadcast_arrays(self.dof[:, :, None], self.dof[:, None, :])
        self.wanted = row >= column if self.banded else np.ones(row.shape, bool)
        row, column = row[self.wanted], column[self.wanted]
        if self.banded:
            self.entries, self.place = band * self.size, column * band + row - column
        else:
            entries, self.place = np.unique(column * self.size + row, return_inverse=True)
            starts = np.searchsorted(entries, self.size * np.arange(self.size + 1))
            self.entries, self.columns = len(entries), (entries % self.size, starts)

    def factor(self, h: float, stiffness: np.ndarray, alpha: float) -> _Factor:
        """Of K, for the stiffness of each pixel of the mask."""
        return _Factor(self, (SHEAR + alpha * BULK) + (h * h * stiffness)[:, None, None] * MASS)

    def load(self, h: float, active: Float[np.ndarray, "3 pixels"]) -> np.ndarray:
        """Right-hand side: - int active : e(v)."""
        return np.bincount(self.dof.ravel(), (-h * (active.T @ STRAIN)).ravel(), minlength=self.size)

    def on_nodes(self, values: np.ndarray) -> Float[np.ndarray, "2 nodes_y nodes_x"]:
        """A vector of unknowns as two images of corners, 0 outside."""
        made = np.zeros((2, self.shape[0] + 1, self.shape[1] + 1))
        made[:, self.nodes[0], self.nodes[1]] = values.reshape(-1, 2).T
        return made

    def from_nodes(self, images: np.ndarray) -> np.ndarray:
        return images[:, self.nodes[0], self.nodes[1]].T.reshape(-1)


@functools.lru_cache(maxsize=512)
def _lattice(mask: bytes, shape: tuple[int, int]) -> _Lattice:
    return _Lattice(np.frombuffer(mask, bool).reshape(shape))


class _Kept:
    """The latest factors: a gradient needs that of its solution once more, and leaves it to go at the next factorisation."""

    def __init__(self) -> None:
        self._factors: OrderedDict[tuple, _Factor] = OrderedDict()
        self._spent: set[tuple] = set()
        self._lock = threading.Lock()

    def factor(
        self, lattice: _Lattice, mask: bytes, h: float, stiffness: np.ndarray, alpha: float, spend: bool
    ) -> _Factor:  # fmt: skip
        key = (mask, lattice.shape, h, alpha, stiffness.tobytes())
        with self._lock:
            found = self._factors.pop(key, None)
            if found is None:  # before, for the memory to be used again
                for old in self._spent:
                    self._factors.pop(old, None)
                self._spent.clear()
        found = found or lattice.factor(h, stiffness, alpha)
        with self._lock:
            self._factors[key] = found
            if spend:
                self._spent.add(key)
            while len(self._factors) > 1 and sum(each.nbytes for each in self._factors.values()) > KEPT_BYTES:
                self._factors.popitem(last=False)
        return found


_kept = _Kept()


def _each(function, outputs: int):
    """A function of one cell as one of batches: leading axes are those of the mask before its last two."""

    def batched(h: float, mask, *arguments):
        mask = np.asarray(mask, bool)
        lead = mask.shape[:-2]
        given = [np.asarray(each, float) for each in arguments]
        found = [function(h, mask[at], *(each[at] for each in given)) for at in np.ndindex(*lead)]
        return tuple(np.stack([one[k] for one in found]).reshape(lead + np.shape(found[0][k])) for k in range(outputs))

    return batched


def _prepared(h: float, mask: np.ndarray, Y: np.ndarray, alpha: float, spend: bool) -> tuple[_Lattice, _Factor | None]:
    """Lattice and factor, or none where the matrix would not be positive: NaN then stands for the solution."""
    key = mask.tobytes()
    lattice = _lattice(key, mask.shape)
    stiffness = Y[lattice.pixels]
    if not (np.isfinite(stiffness).all() and (stiffness > 0).all() and np.isfinite(alpha) and alpha > -0.5):
        return lattice, None
    return lattice, _kept.factor(lattice, key, h, stiffness, float(alpha), spend)


@functools.partial(_each, outputs=1)
def _solution(h: float, mask, Y, active, alpha) -> tuple[np.ndarray]:
    lattice, factor = _prepared(h, mask, Y, alpha, spend=False)
    if factor is None:
        return (np.full((2, mask.shape[0] + 1, mask.shape[1] + 1), np.nan),)
    return (lattice.on_nodes(factor.solve(lattice.load(h, active[:, *lattice.pixels]))),)


@functools.partial(_each, outputs=3)
def _gradient(h: float, mask, Y, alpha, u, g) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a scalar with gradient g in u, by the discrete adjoint: with K m = g, dY = -m M u, d active = -h B m, and
    d alpha = -m K_div u."""
    lattice, factor = _prepared(h, mask, Y, alpha, spend=True)
    to_stiffness, to_active = np.zeros(mask.shape), np.zeros((3, *mask.shape))
    if factor is None:
        return to_stiffness * np.nan, to_active * np.nan, np.asarray(np.nan)
    adjoint = factor.solve(lattice.from_nodes(g))[lattice.dof]
    moved = lattice.from_nodes(u)[lattice.dof]
    to_stiffness[lattice.pixels] = -h * h * np.sum(adjoint @ MASS * moved, axis=1)
    to_active[:, *lattice.pixels] = -h * STRAIN @ adjoint.T
    return to_stiffness, to_active, np.asarray(-np.sum(adjoint @ BULK * moved))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def node_displacement(
    h: float, mask: ArrayLike, Y: Float[Array, "height width"], active: Float[Array, "3 height width"], alpha: ArrayLike
) -> Float[Array, "2 height+1 width+1"]:
    """Displacement of the corners of pixels, 0 outside the mask; differentiable in Y, active (xx, yy, xy) and alpha.

    A sparse direct solution on the host, in float64, whatever the precision of what goes in and out; vmap goes through it,
    over masks too. Where a stiffness in the mask is not positive, the result is NaN.
    """
    shape = (2, Y.shape[-2] + 1, Y.shape[-1] + 1)
    kind = jax.ShapeDtypeStruct(shape, Y.dtype)

    def call(*arguments):
        return _solution(h, *arguments)[0].astype(kind.dtype)

    return jax.pure_callback(call, kind, mask, Y, active, jnp.asarray(alpha, Y.dtype), vmap_method="broadcast_all")


def _forward(h, mask, Y, active, alpha):
    u = node_displacement(h, mask, Y, active, alpha)
    return u, (mask, Y, jnp.asarray(alpha, Y.dtype), u)


def _backward(h, kept, g):
    mask, Y, alpha, u = kept
    kinds = tuple(jax.ShapeDtypeStruct(shape, Y.dtype) for shape in (Y.shape, (3, *Y.shape), ()))

    def call(*arguments):
        return tuple(each.astype(kind.dtype) for each, kind in zip(_gradient(h, *arguments), kinds, strict=True))

    return None, *jax.pure_callback(call, kinds, mask, Y, alpha, u, g, vmap_method="broadcast_all")


node_displacement.defvjp(_forward, _backward)


def pixel_means(corners: Any) -> Any:
    """Mean over each pixel (2, height, width) of a field that is bilinear between corners (2, height + 1, width + 1)."""
    return (corners[:, :-1, :-1] + corners[:, 1:, :-1] + corners[:, :-1, 1:] + corners[:, 1:, 1:]) / 4


class Equilibrium(NamedTuple):
    """What `ElasticSheet.equilibrium` found, in float64."""

    displacement: Float[np.ndarray, "2 height width"]
    """Mean over each pixel, µm."""
    traction: Float[np.ndarray, "2 height width"]
    """Y times it, kPa."""
    positions: Float[np.ndarray, "nodes 2"]
    """Of the corners of pixels, (x, y) in µm from the image's first corner."""
    forces: Float[np.ndarray, "nodes 2"]
    """Force on the substrate at each corner, kPa µm²; these, and not the pixels' means, are in balance to rounding."""


class ElasticSheet:
    """The sheet on the pixels of a mask of side `h` (µm); bilinear finite elements, one a pixel.

    **Raises:** `InputError` where the mask is empty, is no image, or touches the image's border: a cell that is cut off is not
    in balance.

    **Example:**

        >>> import numpy as np
        >>> from broadsheet.matter import ElasticSheet
        >>> rows, columns = np.mgrid[:40, :40] - 19.5
        >>> sheet = ElasticSheet(np.hypot(rows, columns) < 15, h=1.0)
        >>> found = sheet.equilibrium(np.full((40, 40), 0.02))
        >>> bool(abs(found.forces.sum(axis=0)).max() < 1e-9), bool(found.traction[0, 20, 10] > 0)  # inward
        (True, True)
    """

    def __init__(self, mask: ArrayLike, h: float):
        self.mask = checked_mask(mask)
        if not (np.isfinite(h) and h > 0):
            raise InputError(f"ElasticSheet: pixels of {h} µm; a positive size is wanted.")
        self.h = float(h)

    def solve(
        self,
        Y: Float[ArrayLike, "height width"],
        sigma_a: ArrayLike = 1.0,
        alpha: ArrayLike = 0.5,
        active: Float[ArrayLike, "3 height width"] | None = None,
    ) -> tuple[Float[Array, "2 height width"], Float[Array, "2 height width"]]:
        """Displacement u and traction F = Y u, means over pixels, 0 outside the mask; in JAX's precision, differentiable.

        `sigma_a`: isotropic active stress, a number or an image; `active`: more of it, as xx, yy and xy. `alpha`: the ratio
        of Lamé's constants, lambda / (2 mu).
        """
        Y, sigma_a = jnp.asarray(Y, float), jnp.asarray(sigma_a, float)
        self._check_shape(np.shape(Y))
        pull = jnp.broadcast_to(sigma_a, Y.shape)
        stress = jnp.stack([pull, pull, jnp.zeros_like(pull)])
        if active is not None:
            stress = stress + jnp.asarray(active, float)
        ratio, lattice = jnp.asarray(alpha, float), _lattice(self.mask.tobytes(), self.mask.shape)
        traced = any(isinstance(each, jax.core.Tracer) for each in (Y, stress, ratio))
        if traced and Y.dtype == np.float64 and lattice.banded and lattice.rows <= SMALL:
            nodes = displacement_in_program(lattice, self.h, Y, stress, ratio)
        else:
            nodes = node_displacement(self.h, self.mask, Y, stress, ratio)
        u: Array = pixel_means(nodes) * self.mask
        return u, Y * u

    def equilibrium(
        self,
        Y: Float[ArrayLike, "height width"],
        sigma_a: ArrayLike = 1.0,
        alpha: float = 0.5,
        active: Float[ArrayLike, "3 height width"] | None = None,
    ) -> Equilibrium:
        """The same in float64 NumPy, with the forces at the corners of pixels.

        **Raises:** `InputError` where a stiffness inside the mask is not positive, or a number is not finite.
        """
        Y = np.asarray(Y, float)
        self._check_shape(Y.shape)
        inside = Y[self.mask]
        if not (np.isfinite(inside).all() and (inside > 0).all()):
            raise InputError(f"ElasticSheet: the smallest stiffness in the mask is {inside.min():g} per µm²; positive finite "
                             "values are wanted, as without adhesion the sheet is free to move.")  # fmt: skip
        if not (np.isfinite(alpha) and alpha > -0.5):
            raise InputError(f"ElasticSheet: alpha = {alpha}; a number above -0.5 is wanted, else the sheet is not stable.")
        pull = np.broadcast_to(np.asarray(sigma_a, float), Y.shape)
        stress = np.stack([pull, pull, np.zeros(Y.shape)])
        if active is not None:
            stress = stress + np.asarray(active, float)
        if not np.isfinite(stress[:, self.mask]).all():
            raise InputError("ElasticSheet: an active stress in the mask is not a finite number.")
        lattice = _lattice(self.mask.tobytes(), self.mask.shape)
        moved = lattice.factor(self.h, inside, alpha).solve(lattice.load(self.h, stress[:, *lattice.pixels]))
        blocks = self.h**2 * inside[:, None] * (moved[lattice.dof] @ MASS)
        forces = np.bincount(lattice.dof.ravel(), blocks.ravel(), minlength=lattice.size).reshape(-1, 2)
        u = np.asarray(pixel_means(lattice.on_nodes(moved))) * self.mask
        return Equilibrium(u, np.where(self.mask, Y, 0) * u, self.h * np.stack(lattice.nodes[::-1], axis=1), forces)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.mask.shape:
            raise InputError(f"ElasticSheet: a stiffness of shape {shape} for a mask of shape {self.mask.shape}.")


def checked_mask(mask: ArrayLike, what: str = "ElasticSheet") -> np.ndarray:
    """A mask as booleans; raises `InputError` where it is no image, is empty or touches the border."""
    mask = np.ascontiguousarray(np.asarray(mask) != 0)
    if mask.ndim != 2 or min(mask.shape) < 3:
        raise InputError(f"{what}: a mask of shape {mask.shape}; an image of at least 3 x 3 pixels is wanted.")
    if not mask.any():
        raise InputError(f"{what}: the mask is empty; one pixel of a cell at least is wanted.")
    if mask[[0, -1]].any() or mask[:, [0, -1]].any():
        raise InputError(f"{what}: the mask touches the border of the image; a cell that is cut off is not in balance, so crop "
                         "wider or leave the frame out.")  # fmt: skip
    return mask


def penetration_length(Y: ArrayLike, alpha: float) -> Any:
    """How far a boundary is felt, sqrt((1 + alpha) / Y), µm."""
    return np.sqrt((1 + alpha) / np.asarray(Y, float))


def disc_displacement(r: ArrayLike, R: float, Y: float, sigma_a: float = 1.0, alpha: float = 0.5) -> np.ndarray:
    """Radial displacement in a disc of radius R with uniform stiffness, at distance r from its centre."""
    length = float(penetration_length(Y, alpha))
    z = R / length
    slope = i0(z) - i1(z) / z
    amplitude = -sigma_a / ((1 + alpha) * slope / length + alpha * i1(z) / R)
    return amplitude * i1(np.asarray(r, float) / length)


def strip_displacement(x: ArrayLike, half_width: float, Y: float, sigma_a: float = 1.0, alpha: float = 0.5) -> np.ndarray:
    """Displacement across an endless strip |x| < half_width with uniform stiffness."""
    length = float(penetration_length(Y, alpha))
    scale = np.sqrt((1 + alpha) * Y) * np.cosh(half_width / length)
    return -sigma_a * np.sinh(np.asarray(x, float) / length) / scale
