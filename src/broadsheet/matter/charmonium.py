"""Charmonium in the constituent quark model of Segovia, Entem, Fernández and Hernández (2013).

S waves of two heavy quarks in a screened linear potential and one-gluon exchange with a contact term. Units: GeV and GeV⁻¹;
lengths that are given in fm say so. `HBARC` turns one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh_tridiagonal

from broadsheet.errors import InputError

HBARC = 0.1973269804
"""GeV fm."""

STRETCH = 0.5
"""GeV; form factors are known at momenta that are even in asinh(q / STRETCH)."""

LAMBDA_DOT_LAMBDA = -16.0 / 3.0
"""Colour factor of a quark and an antiquark in a singlet."""


@dataclass(frozen=True)
class QuarkModel:
    """Constants of the interaction, as published in 2013 (Int. J. Mod. Phys. E 22, 1330026)."""

    quark_mass: float = 1.763  # GeV
    confinement: float = 0.5074  # GeV
    screening: float = 0.576  # fm⁻¹
    offset: float = 0.184432  # GeV
    alpha_0: float = 2.118
    mu_0: float = 0.036976  # GeV
    lambda_0: float = 0.113  # fm⁻¹
    contact_range: float = 0.181  # fm, for two light quarks
    light_reduced_mass: float = 0.1565  # GeV
    contact: bool = True  # without it the spin-spin term is off

    @property
    def reduced_mass(self) -> float:
        return self.quark_mass / 2

    @property
    def alpha_s(self) -> float:
        """The strong coupling at the scale of the reduced mass."""
        scale = (self.reduced_mass**2 + self.mu_0**2) / (self.lambda_0 * HBARC) ** 2
        return self.alpha_0 / float(np.log(scale))

    def potential(self, r: np.ndarray, spin: int) -> np.ndarray:
        """Potential of a quark and an antiquark, GeV, at distances `r`, GeV⁻¹, for total spin 0 or 1."""
        confining = -self.confinement * (1 - np.exp(-self.screening * HBARC * r)) + self.offset
        r_0 = self.contact_range / HBARC * self.light_reduced_mass / self.reduced_mass
        spin_spin = (1.0 if spin else -3.0) if self.contact else 0.0
        exchange = 1 / r - spin_spin / (6 * self.quark_mass**2) * np.exp(-r / r_0) / (r * r_0**2)
        return LAMBDA_DOT_LAMBDA * (confining + self.alpha_s / 4 * exchange)


@dataclass(frozen=True)
class CharmoniumState:
    """An S wave: `mass`, GeV; `u(r) = r R(r)` with unit norm on the uniform grid `r`, GeV⁻¹."""

    mass: float
    r: np.ndarray
    u: np.ndarray
    quark_mass: float

    @property
    def density(self) -> np.ndarray:
        """Weights of a sum over `r` that is the mean over the wave function."""
        return self.u**2 * (self.r[1] - self.r[0])

    @property
    def rms_radius(self) -> float:
        """Root of the mean squared distance of the quarks, fm."""
        return HBARC * float(np.sqrt(np.sum(self.density * self.r**2)))

    def wave_function(self, k: Any) -> Any:
        """Momentum-space wave function at relative momenta `k`, GeV; GeV^(-3/2), its square integrates to 1 over d³k.

        Up to about 100 GeV; beyond, the grid does not resolve it.
        """
        k = np.asarray(k, float)
        bessel = np.sinc(k[..., None] * self.r / np.pi)
        return bessel @ (self.r * self.u) * (self.r[1] - self.r[0]) / (np.pi * np.sqrt(2))

    def form_factor(self, q: Any) -> Any:
        """Fourier transform of the density of one quark about the centre of mass, at momentum transfers `q`, GeV; 1 at 0.

        From a spline that is right to 1e-9; above 200 GeV it is 0.
        """
        stretched = np.arcsinh(np.asarray(q, float) / STRETCH)
        return np.nan_to_num(self._form_factors(stretched))

    @cached_property
    def _form_factors(self) -> CubicSpline:
        stretched = np.linspace(0, np.arcsinh(200 / STRETCH), 1200)
        q = STRETCH * np.sinh(stretched)
        values = [np.sinc(part[:, None] * self.r / (2 * np.pi)) @ self.density for part in np.array_split(q, 12)]
        return CubicSpline(stretched, np.concatenate(values), extrapolate=False)

    def tail_factor(self, mu: float) -> float:
        """How much stronger than a point's the Yukawa tail of range 1/`mu`, GeV⁻¹, of a potential folded with it is."""
        x = mu * self.r / 2
        return float(np.sum(self.density * np.sinh(x) / x))


class CharmoniumCQM:
    """Solves the radial Schrödinger equation of the quark model on a uniform grid, by the three-point Laplacian."""

    def __init__(self, model: QuarkModel | None = None, points: int = 3000, radius: float = 6.0) -> None:
        """`points` of the grid, up to `radius`, fm."""
        self.model, self.points, self.radius = model or QuarkModel(), points, radius

    def solve(self, spin: int = 1, n: int = 1) -> CharmoniumState:
        """The state with total spin 0 or 1 and principal number `n` (1 for J/psi and eta_c, 2 for psi(2S))."""
        if spin not in (0, 1) or n < 1:
            raise InputError(f"A charmonium S wave has spin 0 or 1 and n from 1 on; spin {spin} and n {n} were asked for.")
        step = self.radius / HBARC / self.points
        r = step * np.arange(1, self.points)
        kinetic = 1 / (2 * self.model.reduced_mass * step**2)
        diagonal = 2 * kinetic + self.model.potential(r, spin)
        values, vectors = eigh_tridiagonal(diagonal, np.full(len(r) - 1, -kinetic), select="i", select_range=(n - 1, n - 1))
        u = vectors[:, 0] / np.sqrt(step)
        u = u * np.sign(u[np.argmax(np.abs(u) > 1e-3 * np.abs(u).max())])
        return CharmoniumState(2 * self.model.quark_mass + float(values[0]), r, u, self.model.quark_mass)
