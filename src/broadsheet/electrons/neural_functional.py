"""Exchange-correlation energies that a network learns: coefficients of fixed energy densities at every point of the grid.

**Source:** arXiv 2309.15127 and its code (XanaduAI/GradDFT, Apache-2.0), whose network follows DM21
(Kirkpatrick et al., Science 374, 1385, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.electrons.functionals import NOTHING, SMALLEST, Density, Functional, Level
from broadsheet.electrons.kohn_sham import Molecule, energy, grid_density
from broadsheet.electrons.self_consistency import ground_state
from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.learn.layers import Dense, LayerNorm, stacked
from broadsheet.numerics import generator

if TYPE_CHECKING:
    from broadsheet.learn.pruning import Sparsifier

F = TypeVar("F", bound=Functional)
BETA = 1 / 1024
THINNEST = 1e-7
"""Electrons/Bohr^3; points with less are left out where a network would see them; that moves H2's energies by 1e-7 Hartree."""


def basis_densities(density: Density) -> Float[Array, "4 points"]:
    """sum over spins of rho^(4/3) u^i w^j, i and j 0 or 1, the first with the constant of the uniform gas's exchange.

    u grows with the reduced gradient and w with the kinetic energy density over that of the uniform gas, both from 0 to 1.
    """
    rows: list[list[Array]] = [[], [], [], []]
    for spin in range(2):
        rho, sigma, tau = density.of_spin(spin)
        rho = jnp.maximum(rho, SMALLEST)
        square = sigma / rho ** (8 / 3)
        x = jnp.where(square > 1e-24, jnp.sqrt(jnp.where(square > 1e-24, square, 1.0)), 0.0)
        inverse = tau / (0.6 * (6 * math.pi**2) ** (2 / 3) * rho ** (5 / 3))
        u, w = (BETA * part / (1 + BETA * part) for part in (x, inverse))
        base = rho ** (4 / 3)
        for row, part in zip(rows, (-2 * math.pi * (3 / (4 * math.pi)) ** (4 / 3) * base, base * w, base * u, base * u * w),
                             strict=True):  # fmt: skip
            row.append(part)
    return jnp.stack([row[0] + row[1] for row in rows])


@dataclass(frozen=True)
class NeuralConfig:
    """Sizes of the network; the defaults are those that the paper's experiments on molecules use."""

    width: int = 512
    layers: int = 10
    most: float = 2.0  # coefficients lie between 0 and this

    def check(self) -> NeuralConfig:
        """Itself; raises `InputError` for sizes that make no network."""
        if self.width < 1 or self.layers < 0 or not self.most > 0:
            raise InputError("A neural functional needs a width and a largest coefficient above 0.")
        return self


class NeuralFunctional(Functional):
    """sum over the basis densities of c(x) e(x), the coefficients c of a network of the logarithms of seven local quantities.

    The network sees the spins in both orders and the two answers are averaged, so that the energy doesn't tell them apart.
    """

    level: ClassVar[Level] = "mgga"
    exact_exchange: ClassVar[float] = 0.0
    first: Dense
    hidden: Dense
    norms: LayerNorm
    last: Dense
    config: NeuralConfig = eqx.field(static=True)

    def __init__(self, config: NeuralConfig, key: PRNGKeyArray | int):
        self.config = config.check()
        rng, width = generator(key), config.width
        self.first, self.last = Dense(rng, 7, width), Dense(rng, width, 4)
        self.hidden = stacked([Dense(rng, width, width) for _ in range(config.layers)])
        self.norms = stacked([LayerNorm(width) for _ in range(config.layers)])

    def coefficients(self, density: Density) -> Float[Array, "points 4"]:
        """Of the four basis densities, between 0 and `most`."""
        rho, sigma, tau = density.rho, density.sigma, density.tau

        def of_order(a: int, b: int) -> Array:
            seen = jnp.stack([rho[a], rho[b], density.total_sigma, sigma[2 * a], sigma[2 * b], tau[a], tau[b]], axis=-1)
            x = jnp.tanh(self.first(jnp.log(jnp.abs(seen) + 1e-4)))

            def layer(x: Array, parts: tuple[Dense, LayerNorm]) -> tuple[Array, None]:
                dense, norm = parts
                return jax.nn.gelu(norm(dense(x) + x)), None

            x, _ = jax.lax.scan(layer, x, (self.hidden, self.norms), unroll=self.config.layers <= 4)
            return self.config.most * jax.nn.sigmoid(self.last(x) / self.config.most)

        return (of_order(0, 1) + of_order(1, 0)) / 2

    def energy_density(self, density: Density) -> Float[Array, " points"]:
        return jnp.sum(self.coefficients(density).T * basis_densities(density), axis=0)


class FixedDensities(eqx.Module):
    """What energies at densities that stay need of them: local quantities on the grids of all molecules in a row, and the
    energies (Hartree) of each molecule without exchange and correlation.
    """

    density: Density
    weights: Float[Array, " points"]
    owner: Int[Array, " points"]
    rest: Float[Array, " molecules"]

    @classmethod
    def of(cls, molecules: Sequence[Molecule], densities: Sequence[Float[Array, "_ _ _"]]) -> FixedDensities:
        """Of as many density matrices as molecules."""
        pairs = list(zip(molecules, densities, strict=True))
        parts = [grid_density(molecule, D) for molecule, D in pairs]
        owner = np.repeat(np.arange(len(pairs)), [molecule.weights.size for molecule in molecules])
        weights = np.concatenate([np.asarray(molecule.weights).ravel() for molecule in molecules])
        density = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
        kept = np.flatnonzero((weights != 0) & (density.rho.sum(axis=0) > THINNEST))
        return cls(
            jax.tree.map(lambda leaf: jnp.asarray(leaf[:, kept]), density), jnp.asarray(weights[kept]),
            jnp.asarray(owner[kept]),
            jnp.stack([energy(NOTHING, molecule, D) for molecule, D in pairs]),
        )  # fmt: skip

    def xc(self, functional: Functional) -> Float[Array, " molecules"]:
        """Exchange and correlation energies, Hartree."""
        local = self.weights * functional.energy_density(self.density)
        return jax.ops.segment_sum(local, self.owner, len(self.rest), indices_are_sorted=True)

    def energies(self, functional: Functional) -> Float[Array, " molecules"]:
        """Total energies, Hartree."""
        return self.rest + self.xc(functional)


class _Always(eqx.Module):
    """The same batch at every step."""

    batch: Any

    def __call__(self, key: PRNGKeyArray) -> Any:
        return self.batch


def train_functional(
    functional: F,
    molecules: Sequence[Molecule],
    energies: Sequence[float] | Float[np.ndarray, " molecules"],
    *,
    densities: Sequence[Float[Array, "_ _ _"]] | None = None,
    steps: int = 300,
    learning_rate: float = 3e-3,
    sparsifier: Sparsifier | None = None,
    report: Callable[[int, float], None] | None = None,
) -> F:
    """Fits a functional's weights to total energies (Hartree) by Adam, on the mean square error; the rate falls on a cosine.

    **Arguments:** `densities`: density matrices at which the energies are taken; without them each step solves for the
    functional's own, and differentiates through the solution; `sparsifier`, `report`: as in `broadsheet.learn.fit`.

    **Raises:** `InputError` for lists that don't fit each other.
    """
    if len(molecules) != len(energies) or not molecules or (densities is not None and len(densities) != len(molecules)):
        raise InputError("train_functional: as many energies, and densities, as molecules are wanted.")
    known = FixedDensities.of(molecules, densities) if densities is not None else list(molecules)
    targets = jnp.asarray(np.asarray(energies, float))

    def loss(model: F, batch: tuple[FixedDensities | list[Molecule], Array], key: PRNGKeyArray) -> Float[Array, ""]:
        known, targets = batch
        if isinstance(known, FixedDensities):
            found = known.energies(model)
        else:
            found = jnp.stack([ground_state(model, molecule).energy for molecule in known])
        return jnp.mean((found - targets) ** 2)

    falling = optax.cosine_decay_schedule(learning_rate, steps, 0.01)
    return fit(
        functional, loss, _Always((known, targets)), optimiser=optax.adam(falling), steps=steps, key=jax.random.key(0),
        sparsifier=sparsifier, report=report,
    ).model  # fmt: skip
