"""Pair potentials: Lennard-Jones, Morse and soft repulsion."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.atoms.neighbours import Neighbours, separations
from broadsheet.atoms.potential import Potential, Prediction
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.errors import InputError


class PairPotential(Potential):
    """Half the sum over neighbours of `pair(r)`, times `taper(r)`, which goes to 0 at the cutoff."""

    @abstractmethod
    def pair(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        """Energy of a pair at distance r (Å), eV."""

    def taper(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        return cosine_taper(r, self.cutoff)

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        r, near = self._distances(neighbours, separations(batch, neighbours))
        return batch.sum_atoms(jnp.sum(jnp.where(near, self.pair(r) * self.taper(r), 0), axis=1) / 2)

    def energy_and_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        """Forces are sums along rows, since each pair lies in both rows: nothing is scattered."""
        parts = separations(batch, neighbours)
        r, near = self._distances(neighbours, parts)
        energy, slope = jax.jvp(lambda r: self.pair(r) * self.taper(r), (r,), (jnp.ones_like(r),))
        pull = jnp.where(near, slope / r, 0)
        forces = jnp.stack([jnp.sum(pull * part, axis=1) for part in parts], axis=1)
        return Prediction(batch.sum_atoms(jnp.sum(jnp.where(near, energy, 0), axis=1) / 2), forces)

    def _distances(self, neighbours: Neighbours, parts: list[Array]) -> tuple[Array, Array]:
        """Distances, and which are within the cutoff; the others are put inside, where energies are finite."""
        square = sum((part**2 for part in parts[1:]), parts[0] ** 2)
        near = jnp.asarray(neighbours.mask) & (square < self.cutoff**2)
        return jnp.sqrt(jnp.where(near, square, (self.cutoff / 2) ** 2)), near


def cosine_taper(r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
    """(1 + cos(pi r / cutoff)) / 2 inside the cutoff, 0 outside."""
    return jnp.where(r < cutoff, (1 + jnp.cos(jnp.pi * r / cutoff)) / 2, 0)


class LennardJones(PairPotential):
    """4 epsilon ((sigma/r)^12 - (sigma/r)^6), as ASE's: shifted to 0 at the cutoff, or `smooth` between `onset` and the cutoff.

    **Arguments:** `epsilon`: eV; `sigma`, `cutoff`, `onset`: Å (3 sigma and two thirds of the cutoff by default).

    **Example:**

        >>> from ase import Atoms
        >>> from broadsheet.atoms import PotentialCalculator
        >>> argon = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.4 * 2 ** (1 / 6)]])
        >>> argon.calc = PotentialCalculator(LennardJones(epsilon=0.01, sigma=3.4, cutoff=100.0))
        >>> round(argon.get_potential_energy(), 4), bool(abs(argon.get_forces()).max() < 1e-6)
        (-0.01, True)
    """

    epsilon: Float[Array, ""]
    sigma: Float[Array, ""]
    cutoff: float = eqx.field(static=True)
    onset: float = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)

    def __init__(self, epsilon: float = 1.0, sigma: float = 1.0, cutoff: float | None = None, smooth: bool = False,
                 onset: float | None = None):  # fmt: skip
        self.cutoff = float(3 * sigma if cutoff is None else cutoff)
        self.onset = float(0.66 * self.cutoff if onset is None else onset)
        if not self.cutoff > 0 or not 0 < self.onset < self.cutoff:
            raise InputError(f"LennardJones: cutoff {self.cutoff:g} and onset {self.onset:g} Å; 0 < onset < cutoff is wanted.")
        self.epsilon, self.sigma = jnp.asarray(epsilon, float), jnp.asarray(sigma, float)
        self.smooth = smooth

    def _bare(self, r: Array) -> Array:
        c6 = (self.sigma / r) ** 6
        return 4 * self.epsilon * (c6**2 - c6)

    def pair(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        return self._bare(r) if self.smooth else self._bare(r) - self._bare(jnp.asarray(self.cutoff, r.dtype))

    def taper(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        if not self.smooth:
            return jnp.ones_like(r)
        low, high, r2 = self.onset**2, self.cutoff**2, r**2
        inner = (high - r2) ** 2 * (high + 2 * r2 - 3 * low) / (high - low) ** 3
        return jnp.where(r < self.onset, 1.0, inner)


class Morse(PairPotential):
    """epsilon (exp(-2 rho (r/r0 - 1)) - 2 exp(-rho (r/r0 - 1))), eV and Å, tapered to 0 at the cutoff."""

    epsilon: Float[Array, ""]
    rho: Float[Array, ""]
    r0: Float[Array, ""]
    cutoff: float = eqx.field(static=True)

    def __init__(self, epsilon: float = 1.0, rho: float = 6.0, r0: float = 1.0, cutoff: float = 5.0):
        self.epsilon, self.rho, self.r0 = (jnp.asarray(value, float) for value in (epsilon, rho, r0))
        self.cutoff = float(cutoff)

    def pair(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        bond = jnp.exp(-self.rho * (r / self.r0 - 1))
        return self.epsilon * (bond**2 - 2 * bond)


class Repulsion(PairPotential):
    """epsilon (sigma/r)^power, a prior that keeps atoms apart where there are no data; shifted to 0 at the cutoff."""

    epsilon: Float[Array, ""]
    sigma: Float[Array, ""]
    power: int = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, epsilon: float, sigma: float, cutoff: float, power: int = 12):
        self.epsilon, self.sigma = jnp.asarray(epsilon, float), jnp.asarray(sigma, float)
        self.power, self.cutoff = power, float(cutoff)

    def pair(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        return self.epsilon * ((self.sigma / r) ** self.power - (self.sigma / self.cutoff) ** self.power)

    def taper(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        return jnp.ones_like(r)


def gaussian_basis(r: Float[Array, "*shape"], size: int, cutoff: float, width: float = 1.0) -> Float[Array, "*shape size"]:
    """Gaussians at `size` even distances from 0 to the cutoff (Å); `width` in units of their spacing."""
    centres = jnp.linspace(0, cutoff, size, dtype=r.dtype)
    spacing = cutoff / (size - 1)
    return jnp.exp(-((r[..., None] - centres) ** 2) / (2 * (width * spacing) ** 2))
