"""Scattering of two particles by a central potential: Lippmann-Schwinger equations of partial waves, variable-phase equation.

`V_l(p', p) = 2π ∫ dx P_l(x) V(|p' - p|)` with (2π)⁻³ within `V`; states are normalised to delta functions of momentum.
`S = 1 - 2πi rho t` and `tan delta = -π rho K` with `rho = k² / (dE/dk)`. Two routes: the real K matrix, whose singular
integral is made regular by a subtraction (Haftel and Tabakin, 1970), and the complex t matrix with its pole term. The
scattering length is `a = -lim tan(delta)/k`: negative for attraction that does not bind. Units: GeV; lengths in fm where said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import eval_legendre, spherical_jn, spherical_yn

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import HBARC

SMOOTHING = 0.4
"""GeV; the quadrature over the momentum transfer q is even in log(q² + SMOOTHING²)."""


def momentum_grid(nodes: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on 0 to infinity, GeV: `p = scale (1 + x) / (1 - x)`."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    return scale * (1 + x) / (1 - x), 2 * scale * weight / (1 - x) ** 2


def stretched_grid(nodes: int, top: float, scale: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on 0 to `top`, GeV, even in asinh(p / scale)."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    half = np.arcsinh(top / scale) / 2
    return scale * np.sinh(half * (1 + x)), weight * half * scale * np.cosh(half * (1 + x))


def transfer_grid(p_out: np.ndarray, p_in: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Momentum transfers, cosines and weights of `∫ dx` between momenta of these sizes, each (…, nodes).

    Even in log(q² + SMOOTHING²), so that the forward peak of a potential of long range is met at any momentum.
    """
    s, weight = np.polynomial.legendre.leggauss(nodes)
    s, weight = (1 + s) / 2, weight / 2
    product = 2 * np.maximum(np.asarray(p_out * p_in, float)[..., None], 1e-30)
    least = np.asarray((p_out - p_in) ** 2, float)[..., None]
    shifted = least + SMOOTHING**2
    length = np.log1p(2 * product / shifted)
    rise = shifted * np.expm1(s * length)
    return np.sqrt(least + rise), 1 - rise / product, weight * length * (rise + shifted) / product


class TwoBody:
    """Energies of two particles of masses `m1` and `m2`, GeV; without `relativistic`, of their reduced mass above threshold."""

    def __init__(self, m1: float, m2: float, relativistic: bool = True) -> None:
        self.m1, self.m2, self.relativistic = m1, m2, relativistic

    @property
    def threshold(self) -> float:
        return self.m1 + self.m2

    @property
    def reduced_mass(self) -> float:
        return self.m1 * self.m2 / self.threshold

    def energy(self, p: Any) -> Any:
        """Total energy, GeV, at relative momenta `p`, GeV."""
        if self.relativistic:
            return np.sqrt(self.m1**2 + p**2) + np.sqrt(self.m2**2 + p**2)
        return self.threshold + p**2 / (2 * self.reduced_mass)

    def kinetic(self, p: Any) -> Any:
        """Energy above threshold, GeV, at relative momenta `p`, GeV, to full relative precision."""
        if self.relativistic:
            return sum(p**2 / (np.sqrt(m**2 + p**2) + m) for m in (self.m1, self.m2))
        return p**2 / (2 * self.reduced_mass)

    def momentum(self, W: Any) -> Any:
        """Relative momentum, GeV, at total energies `W`, GeV; raises `InputError` below threshold."""
        W = np.asarray(W, float)
        if np.any(self.threshold > W) or np.any(np.isnan(W)):
            raise InputError(f"The energy {float(np.min(W)):g} GeV is below the threshold at {self.threshold:.5f} GeV.")
        if self.relativistic:
            return np.sqrt((W**2 - self.threshold**2) * (W**2 - (self.m1 - self.m2) ** 2)) / (2 * W)
        return np.sqrt(2 * self.reduced_mass * (W - self.threshold))

    def rho(self, k: Any) -> Any:
        """Density of states `k² / (dE/dk)`, GeV²."""
        if not self.relativistic:
            return self.reduced_mass * k
        first, second = np.sqrt(self.m1**2 + k**2), np.sqrt(self.m2**2 + k**2)
        return k * first * second / (first + second)


def propagator(body: TwoBody, k: Any, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights (…, nodes + 1) of the principal-value integral `∫ dp p² f(p) / (E(k) - E(p))`; the last is that of `f(k)`.

    The last node takes the singularity away, as the principal value of `∫ dp / (k² - p²)` is zero.
    """
    k = np.asarray(k, float)[..., None]
    regular = weight * p**2 / (body.kinetic(k) - body.kinetic(p))
    subtracted = -2 * k * body.rho(k) * np.sum(weight / ((k - p) * (k + p)), axis=-1, keepdims=True)
    return np.concatenate([regular, subtracted], axis=-1)


def bordered(inner: Any, edge: Any) -> Any:
    """Matrices (…, nodes + 1, nodes + 1) of a symmetric `V_l`, from its part on the grid (nodes, nodes), which all energies
    share, and its on-shell row (…, nodes + 1)."""
    inner = np.broadcast_to(inner, (*edge.shape[:-1], *inner.shape[-2:]))
    upper = np.concatenate([inner, edge[..., :-1, None]], axis=-1)
    return np.concatenate([upper, edge[..., None, :]], axis=-2)


def k_matrix(V: Any, g: Any) -> Any:
    """Column K(p, k) of the K matrix (…, nodes + 1), whose last entry is on shell.

    **Arguments:** `V` (…, nodes + 1, nodes + 1), with the on-shell momentum last; `g`: weights from `propagator`.
    """
    return np.linalg.solve(np.eye(V.shape[-1]) - V * g[..., None, :], V[..., -1:])[..., 0]


class LippmannSchwinger:
    """Partial waves of a central potential between two particles.

    **Arguments:** `potential(q)`: in momentum space, GeV⁻², (2π)⁻³ included; `m1`, `m2`: masses, GeV; `nodes`, `scale` (GeV):
    the grid of momenta; `transfers`: nodes of the projection on partial waves.
    """

    def __init__(
        self, potential: Callable[[np.ndarray], np.ndarray], m1: float, m2: float, nodes: int = 48, scale: float = 0.7,
        transfers: int = 24, relativistic: bool = True,
    ) -> None:  # fmt: skip
        self.potential, self.body, self.transfers = potential, TwoBody(m1, m2, relativistic), transfers
        self.p, self.weight = momentum_grid(nodes, scale)
        self._inner: dict[int, np.ndarray] = {}

    def partial_wave(self, p_out: np.ndarray, p_in: np.ndarray, l: int) -> np.ndarray:
        """`V_l(p_out, p_in)`, GeV⁻²."""
        q, cosine, weight = transfer_grid(p_out, p_in, self.transfers)
        return 2 * np.pi * np.sum(weight * eval_legendre(l, cosine) * self.potential(q), axis=-1)

    def _matrix(self, k: float, l: int) -> np.ndarray:
        if l not in self._inner:
            self._inner[l] = self.partial_wave(self.p[:, None], self.p, l)
        return bordered(self._inner[l], self.partial_wave(np.append(self.p, k), np.array(k), l))

    def k(self, W: float, l: int = 0) -> float:
        """On-shell K matrix, GeV⁻², at the total energy `W`, GeV."""
        k = float(self.body.momentum(W))
        return float(k_matrix(self._matrix(k, l), propagator(self.body, k, self.p, self.weight))[-1])

    def phase(self, W: float, l: int = 0) -> float:
        """Phase shift, radians between -π/2 and π/2, from the K matrix."""
        return float(np.arctan(-np.pi * self.body.rho(self.body.momentum(W)) * self.k(W, l)))

    def t(self, W: float, l: int = 0) -> complex:
        """On-shell t matrix, GeV⁻², from the complex equation with its pole term `-iπ rho`."""
        return complex(self.half_shell_t(W, l)[-1])

    def half_shell_t(self, W: float, l: int = 0) -> np.ndarray:
        """`t_l(p, k)` on the grid of momenta and, last, on shell, from the complex equation; GeV⁻²."""
        k = float(self.body.momentum(W))
        g = propagator(self.body, k, self.p, self.weight).astype(complex)
        g[-1] -= 1j * np.pi * self.body.rho(k)
        V = self._matrix(k, l)
        return np.linalg.solve(np.eye(len(g)) - V * g, V[:, -1])

    def s(self, W: float, l: int = 0) -> complex:
        """S matrix, from the complex equation."""
        return 1 - 2j * np.pi * complex(self.body.rho(self.body.momentum(W))) * self.t(W, l)

    def scattering_length(self) -> float:
        """fm; the equation at threshold itself, where nothing is singular."""
        g = np.append(self.weight * self.p**2 / (self.body.threshold - self.body.energy(self.p)), 0.0)
        return HBARC * np.pi * self.body.reduced_mass * float(k_matrix(self._matrix(0.0, 0), g)[-1])

    def born_length(self) -> float:
        """Scattering length in first order, fm."""
        return HBARC * np.pi * self.body.reduced_mass * float(self.partial_wave(np.zeros(1), np.zeros(1), 0)[0])

    def cross_section(self, W: float, waves: int = 4) -> float:
        """Elastic cross section, GeV⁻², from the first `waves` phase shifts."""
        k = self.body.momentum(W)
        sines = [np.sin(self.phase(W, l)) ** 2 * (2 * l + 1) for l in range(waves)]
        return float(4 * np.pi / k**2 * np.sum(sines))

    def amplitude(self, W: float, cosine: np.ndarray, waves: int = 4) -> np.ndarray:
        """Scattering amplitude, GeV⁻¹, at cosines of the angle, from the complex t matrix of the first `waves` waves."""
        k = self.body.momentum(W)
        t = [-np.pi * self.body.rho(k) / k * self.t(W, l) for l in range(waves)]
        return np.asarray(sum((2 * l + 1) * each * eval_legendre(l, cosine) for l, each in enumerate(t)))


def variable_phase(potential: Callable[[float], float], mass: float, k: float, l: int = 0, radius: float = 200.0) -> float:
    """Phase shift, radians, of a local potential `potential(r)`, GeV, by Calogero's equation, an ODE in the radius.

    `mass`: reduced mass, `k`: momentum, GeV; `radius`: where it stops, GeV⁻¹. Not relativistic.
    """

    def slope(r: float, delta: np.ndarray) -> np.ndarray:
        x = k * r
        wave = x * (np.cos(delta) * spherical_jn(l, x) - np.sin(delta) * spherical_yn(l, x))
        return -2 * mass * potential(r) / k * wave**2

    found = solve_ivp(slope, (1e-8, radius), [0.0], method="DOP853", rtol=1e-11, atol=1e-13)
    return float(found.y[0, -1])


def variable_scattering_length(potential: Callable[[float], float], mass: float, radius: float = 200.0) -> float:
    """Scattering length, fm, of a local potential, by the variable-phase equation in the limit k → 0."""
    found = solve_ivp(
        lambda r, a: 2 * mass * potential(r) * (r - a) ** 2, (1e-8, radius), [0.0], method="DOP853", rtol=1e-11, atol=1e-13
    )
    return HBARC * float(found.y[0, -1])
