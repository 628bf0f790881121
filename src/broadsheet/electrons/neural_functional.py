"""Exchange-correlation energies that a network learns: coefficients of fixed energy densities at every point of the grid.

**Source:** arXiv 2309.15127 and its code (XanaduAI/GradDFT, Apache-2.0), whose network follows DM21
(Kirkpatrick et al., Science 374, 1385, 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.electrons.functionals import SMALLEST, Density, Formula, Functional, Level, Sum
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, LayerNorm, stacked
from broadsheet.numerics import generator

BETA = 1 / 1024


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


def _row(k: int) -> Formula:
    return lambda density: basis_densities(density)[k]


BASIS = Sum(tuple(_row(k) for k in range(4)), "mgga", (1.0, 0.0, 0.0, 0.0))
"""Constants in place of the network, those of the uniform gas's exchange: what the network weighs, to be weighed by hand."""


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
            return jnp.stack([rho[a], rho[b], density.total_sigma, sigma[2 * a], sigma[2 * b], tau[a], tau[b]], axis=-1)

        seen = jnp.stack([of_order(0, 1), of_order(1, 0)])  # both at once: half as much to compile
        x = jnp.tanh(self.first(jnp.log(jnp.abs(seen) + 1e-4)))

        def layer(x: Array, parts: tuple[Dense, LayerNorm]) -> tuple[Array, None]:
            dense, norm = parts
            return jax.nn.gelu(norm(dense(x) + x)), None

        x, _ = jax.lax.scan(layer, x, (self.hidden, self.norms), unroll=self.config.layers <= 4)
        return jnp.mean(self.config.most * jax.nn.sigmoid(self.last(x) / self.config.most), axis=0)

    def energy_density(self, density: Density) -> Float[Array, " points"]:
        return jnp.sum(self.coefficients(density).T * basis_densities(density), axis=0)
