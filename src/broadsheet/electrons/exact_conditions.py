"""Exact conditions on exchange and correlation, each as a violation that is zero where it is met: tests, and losses.

Energies are integrals over a grid's points with `weights`. **Source:** arXiv 2309.15127's code lists them; see Kaplan, Levy and
Perdew, Annu. Rev. Phys. Chem. 74, 193 (2023).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.electrons.functionals import Density, Formula, slater

LIEB_OXFORD = 2.27


def integral(formula: Formula, density: Density, weights: Float[Array, " points"]) -> Float[Array, ""]:
    """Energy of a density, Hartree; points of no weight count for nothing."""
    return jnp.sum(jnp.where(weights != 0, weights * formula(density), 0))


def scaled_density(density: Density, gamma: float) -> Density:
    """gamma^3 rho(gamma r), at the points r / gamma, whose weights are gamma^-3 of those before."""
    return Density(gamma**3 * density.rho, gamma**8 * density.sigma, gamma**5 * density.tau)


def nonpositivity(formula: Formula, density: Density, weights: Float[Array, " points"]) -> Float[Array, ""]:
    """The positive part of E: exchange and correlation energies are not positive."""
    return jnp.maximum(integral(formula, density, weights), 0)


def exchange_scaling(
    exchange: Formula, density: Density, weights: Float[Array, " points"], gamma: float = 2.0
) -> Float[Array, ""]:
    """|E_x[rho_gamma] / (gamma E_x[rho]) - 1|."""
    squeezed = integral(exchange, scaled_density(density, gamma), weights / gamma**3)
    return jnp.abs(squeezed / (gamma * integral(exchange, density, weights)) - 1)


def correlation_scaling(
    correlation: Formula, density: Density, weights: Float[Array, " points"], gamma: float = 2.0
) -> Float[Array, ""]:
    """How far E_c[rho_gamma] > gamma E_c[rho] for gamma above 1 (< below 1) is missed, Hartree."""
    squeezed = integral(correlation, scaled_density(density, gamma), weights / gamma**3)
    return jnp.maximum((gamma * integral(correlation, density, weights) - squeezed) * math.copysign(1, gamma - 1), 0)


def spin_scaling(exchange: Formula, density: Density, weights: Float[Array, " points"]) -> Float[Array, ""]:
    """|E_x[up, down] - (E_x[2 up] + E_x[2 down]) / 2|, Hartree."""
    alone = []
    for spin in range(2):
        rho, sigma, tau = density.of_spin(spin)
        alone.append(integral(exchange, Density(jnp.stack([rho, rho]), jnp.stack([sigma] * 3), jnp.stack([tau, tau])), weights))
    return jnp.abs(integral(exchange, density, weights) - (alone[0] + alone[1]) / 2)


def lieb_oxford(xc: Formula, density: Density, weights: Float[Array, " points"]) -> Float[Array, ""]:
    """How far E_xc lies below 2.27 times the uniform gas's exchange, Hartree."""
    return jnp.maximum(LIEB_OXFORD * integral(slater, density, weights) - integral(xc, density, weights), 0)


def uniform_gas(xc: Formula, reference: Formula, rho: Float[Array, " points"]) -> Float[Array, ""]:
    """Largest relative difference from `reference` for the unpolarised uniform gas of the densities `rho`."""
    tau = 0.3 * (3 * math.pi**2) ** (2 / 3) * rho ** (5 / 3) / 2
    gas = Density(jnp.stack([rho, rho]) / 2, jnp.zeros((3, *rho.shape)), jnp.stack([tau, tau]))
    return jnp.max(jnp.abs(xc(gas) / reference(gas) - 1))


def self_correlation(correlation: Formula, density: Density, weights: Float[Array, " points"]) -> Float[Array, ""]:
    """|E_c| of a density of one electron, which correlates with nothing, Hartree."""
    return jnp.abs(integral(correlation, density, weights))
