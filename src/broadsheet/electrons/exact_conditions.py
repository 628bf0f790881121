"""Exact conditions on exchange and correlation, each as a violation that is zero where it is met: tests, and losses.

Energies are integrals over a grid's points with `weights`. **Source:** arXiv 2309.15127's code lists them; see Kaplan, Levy and
Perdew, Annu. Rev. Phys. Chem. 74, 193 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.electrons.functionals import Density, Formula, Functional, Sum, pw92, slater
from broadsheet.errors import InputError

LIEB_OXFORD = 2.27
LDA, LDA_EXCHANGE = Sum((slater, pw92), "lda"), Sum((slater,), "lda")
_energy_density: Any = eqx.filter_jit(lambda functional, density: functional.energy_density(density))


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


class ExactConditions(eqx.Module):
    """What an exchange-correlation energy must be for densities with closed forms: equalities and bounds, as losses.

    - The uniform gas of radii r_s, unpolarised and polarised: that of PW92.
    - One electron, Z^3/pi exp(-2 Z r): minus its own repulsion, -5 Z / 16.
    - Two electrons in that orbital: at most their exchange, -5 Z / 8, at least 2.27 times the uniform gas's, and over Z not
      falling with Z, since E_xc[rho_gamma] >= gamma E_xc[rho] for gamma above 1.

    **Arguments:** `radii` (Bohr), `charges`: at least two, rising.

    **Raises:** `InputError` for others.
    """

    gas: Density
    gas_energy: Float[Array, " gases"]
    one: Density
    two: Density
    weights: Float[Array, "charges points"]
    charges: Float[Array, " charges"]

    def __init__(self, radii: Sequence[float] = (0.5, 1.0, 2.0, 4.0), charges: Sequence[float] = (0.7, 1.0, 1.6, 2.5)):
        rs, Z = np.asarray(radii, float), np.asarray(charges, float)
        if not len(rs) or not (rs > 0).all() or len(Z) < 2 or not (Z > 0).all() or not (np.diff(Z) > 0).all():
            raise InputError("Exact conditions want radii above 0, and two or more charges above 0, the smaller first.")
        rho = 3 / (4 * math.pi * rs**3)
        rows = np.concatenate([np.stack([rho, rho]) / 2, np.stack([rho, 0 * rho])], axis=1)
        self.gas = Density(jnp.asarray(rows), jnp.zeros((3, rows.shape[1])),
                           jnp.asarray(0.3 * (6 * math.pi**2) ** (2 / 3) * rows ** (5 / 3)))  # fmt: skip
        self.gas_energy = _energy_density(LDA, self.gas)
        nodes, shares = np.polynomial.legendre.leggauss(48)
        u = (nodes + 1) / 2
        r = (u / (1 - u))[None] / Z[:, None]
        self.weights = jnp.asarray(4 * math.pi * r**2 * (shares / 2 / (1 - u) ** 2)[None] / Z[:, None])
        alone = (Z[:, None] ** 3 / math.pi * np.exp(-2 * Z[:, None] * r)).ravel()
        steep = np.repeat(Z, len(u)) ** 2
        square, kinetic, none = 4 * steep * alone**2, steep * alone / 2, 0 * alone
        self.one = Density(
            *map(jnp.asarray, (np.stack([alone, none]), np.stack([square, none, none]), np.stack([kinetic, none])))
        )
        self.two = Density(*map(jnp.asarray, (np.stack([alone] * 2), np.stack([square] * 3), np.stack([kinetic] * 2))))
        self.charges = jnp.asarray(Z)

    def ratios(self, functional: Functional) -> tuple[Float[Array, " gases"], Float[Array, " charges"]]:
        """Energies over what they must be, of the uniform gases and of one electron; linear in the functional."""
        gas, one, _ = self._energies(functional)
        return gas / self.gas_energy, one / (-5 / 16 * self.charges)

    def squares(self, functional: Functional) -> Float[Array, "3"]:
        """Mean squares of the relative violations: uniform gas, one electron, bounds on two."""
        gas, one, two = self._energies(functional)
        gas, one, found = gas / self.gas_energy, one / (-5 / 16 * self.charges), two / self.charges
        lowest = LIEB_OXFORD * self._integrals(LDA_EXCHANGE.energy_density(self.two)) / self.charges
        missed = [found + 5 / 8, lowest - found, found[:-1] - found[1:]]
        bounds = jnp.concatenate([jnp.maximum(each, 0) for each in missed]) / (5 / 8)
        return jnp.stack([jnp.mean((gas - 1) ** 2), jnp.mean((one - 1) ** 2), jnp.mean(bounds**2)])

    def violations(self, functional: Functional) -> Float[Array, "3"]:
        """Their roots: by how much of itself each is missed, zero where it is met."""
        return jnp.sqrt(self.squares(functional))

    def _energies(self, functional: Functional) -> tuple[Array, Array, Array]:
        """Per volume of the gases, and of one and of two electrons for each charge; the functional is asked once for all."""
        every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), self.gas, self.one, self.two)
        gases = len(self.gas_energy)
        gas, one, two = jnp.split(functional.energy_density(every), [gases, gases + self.weights.size])
        return gas, self._integrals(one), self._integrals(two)

    def _integrals(self, local: Float[Array, " points"]) -> Float[Array, " charges"]:
        return jnp.sum(self.weights * local.reshape(self.weights.shape), axis=1)
