"""Exchange and correlation energy densities: LDA, GGA, meta-GGA, and the share of exact exchange that hybrids add.

All are energies per volume (Hartree/Bohr^3) of spin densities at points of a grid, and plain formulas, so that JAX
differentiates them as often as wanted. Constants are those of libxc, with which they agree to rounding.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.errors import InputError

Level = Literal["lda", "gga", "mgga"]
SMALLEST = 1e-14
"""Electrons/Bohr^3; thinner spin densities count as this many."""


class Density(eqx.Module):
    """Spin densities at points of a grid, in atomic units.

    `rho`: electrons/Bohr^3; `sigma`: products of the gradients, up-up, up-down and down-down; `tau`: kinetic energy densities,
    (1/2) sum of squared orbital gradients. What a level does not need may be zero.
    """

    rho: Float[Array, "2 points"]
    sigma: Float[Array, "3 points"]
    tau: Float[Array, "2 points"]

    @property
    def total(self) -> Float[Array, " points"]:
        return jnp.sum(self.rho, axis=0)

    @property
    def total_sigma(self) -> Float[Array, " points"]:
        """|grad rho|^2 of both spins together."""
        return self.sigma[0] + 2 * self.sigma[1] + self.sigma[2]

    def of_spin(self, spin: int) -> tuple[Array, Array, Array]:
        """(rho, |grad rho|^2, tau) of one spin."""
        return self.rho[spin], self.sigma[2 * spin], self.tau[spin]


Formula = Callable[[Density], Float[Array, " points"]]


class Functional(eqx.Module):
    """An exchange-correlation energy. A subclass says with `level` what it reads of the density."""

    level: eqx.AbstractVar[Level]
    exact_exchange: eqx.AbstractVar[float]

    @abstractmethod
    def energy_density(self, density: Density) -> Float[Array, " points"]:
        """Exchange and correlation energy per volume, Hartree/Bohr^3."""


class Sum(Functional):
    """A weighted sum of formulas, and `exact_exchange` times the exchange of the orbitals.

    `weights` are array leaves, so that they can be fitted.
    """

    weights: Float[Array, " terms"]
    terms: tuple[Formula, ...] = eqx.field(static=True)
    level: Level = eqx.field(static=True)
    exact_exchange: float = eqx.field(static=True)

    def __init__(
        self, terms: tuple[Formula, ...], level: Level, weights: tuple[float, ...] | None = None, exact_exchange: float = 0.0
    ):
        self.terms, self.level, self.exact_exchange = terms, level, exact_exchange
        self.weights = jnp.asarray(weights if weights is not None else (1.0,) * len(terms), float)

    def energy_density(self, density: Density) -> Float[Array, " points"]:
        density = eqx.tree_at(lambda d: d.rho, density, jnp.maximum(density.rho, SMALLEST))
        parts = [weight * term(density) for weight, term in zip(self.weights, self.terms, strict=True)]
        return sum(parts[1:], parts[0])


def _nothing(density: Density) -> Float[Array, " points"]:
    return 0 * density.total


NOTHING = Sum((_nothing,), "lda", (0.0,))
"""No exchange and no correlation."""

# Exchange scales with spin: E_x[up, down] = (E_x[2 up] + E_x[2 down]) / 2.


def slater(density: Density) -> Float[Array, " points"]:
    """Exchange of the uniform gas."""
    return -1.5 * (3 / (4 * math.pi)) ** (1 / 3) * jnp.sum(density.rho ** (4 / 3), axis=0)


def _by_spin(density: Density, enhancement: Callable[[Array, Array, Array], Array]) -> Array:
    """Uniform exchange of each spin times F(rho, s^2, tau) of twice that spin's density."""
    parts = []
    for spin in range(2):
        rho, sigma, tau = (2 * density.of_spin(spin)[0], 4 * density.of_spin(spin)[1], 2 * density.of_spin(spin)[2])
        square = sigma / (4 * (3 * math.pi**2) ** (2 / 3) * rho ** (8 / 3))
        parts.append(-0.375 * (3 / math.pi) ** (1 / 3) * rho ** (4 / 3) * enhancement(rho, square, tau))
    return parts[0] + parts[1]


def pbe_exchange(density: Density) -> Float[Array, " points"]:
    """Perdew, Burke and Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996)."""
    kappa, mu = 0.804, 0.2195149727645171
    return _by_spin(density, lambda rho, square, tau: 1 + kappa - kappa / (1 + mu * square / kappa))


def b88_correction(density: Density) -> Float[Array, " points"]:
    """The gradient correction of Becke, Phys. Rev. A 38, 3098 (1988), without the uniform gas."""
    beta = 0.0042
    parts = []
    for spin in range(2):
        rho, sigma, _ = density.of_spin(spin)
        square = sigma / rho ** (8 / 3)
        x = jnp.sqrt(jnp.where(square > 1e-30, square, 1.0))
        x = jnp.where(square > 1e-30, x, 0.0)
        parts.append(-beta * rho ** (4 / 3) * square / (1 + 6 * beta * x * jnp.arcsinh(x)))
    return parts[0] + parts[1]


def scan_exchange(density: Density) -> Float[Array, " points"]:
    """Sun, Ruzsinszky and Perdew, Phys. Rev. Lett. 115, 036402 (2015)."""
    k1, b3, mu = 0.065, 0.5, 10 / 81
    b2 = math.sqrt(5913 / 405000)
    b1 = (511 / 13500) / (2 * b2)
    b4 = mu**2 / k1 - 1606 / 18225 - b1**2

    def enhancement(rho: Array, square: Array, tau: Array) -> Array:
        alpha = _alpha(rho, square, tau, jnp.ones_like(rho))
        x = mu * square * (1 + b4 * square / mu * jnp.exp(-b4 * square / mu))
        x = x + (b1 * square + b2 * (1 - alpha) * jnp.exp(-b3 * (1 - alpha) ** 2)) ** 2
        h1 = 1 + k1 - k1 / (1 + x / k1)
        inner = jnp.where(square > 1e-16, square, 1.0)
        g = jnp.where(square > 1e-16, 1 - jnp.exp(-4.9479 / inner**0.25), 1.0)
        return (h1 + _switch(alpha, 0.667, 0.8, 1.24) * (1.174 - h1)) * g

    return _by_spin(density, enhancement)


def _alpha(rho: Array, square: Array, tau: Array, spin_factor: Array) -> Array:
    """(tau - tau of one orbital) / tau of the uniform gas."""
    uniform = 0.3 * (3 * math.pi**2) ** (2 / 3) * rho ** (5 / 3)
    weizsaecker = 5 / 3 * square * uniform
    return jnp.maximum(tau - weizsaecker, 0) / (uniform * spin_factor)


def _switch(alpha: Array, c1: float, c2: float, d: float) -> Array:
    """SCAN's interpolation: exp(-c1 a / (1 - a)) below 1, -d exp(c2 / (1 - a)) above."""
    low, high = alpha < 1 - 1e-3, alpha > 1 + 1e-3  # nearer to 1 both are below 1e-280
    below = jnp.where(low, alpha, 0.0)
    above = jnp.where(high, alpha, 2.0)
    return jnp.where(low, jnp.exp(-c1 * below / (1 - below)), jnp.where(high, -d * jnp.exp(c2 / (1 - above)), 0.0))


def _polarisation(density: Density) -> tuple[Array, Array, Array]:
    """(rho, 1 + zeta, 1 - zeta), the latter two at least 1e-10."""
    rho = density.total
    up, down = (jnp.maximum(2 * part / rho, 1e-10) for part in density.rho)
    return rho, up, down


def _radius(rho: Array) -> Array:
    return (3 / (4 * math.pi * rho)) ** (1 / 3)


def _interpolation(up: Array, down: Array) -> Array:
    """f(zeta): 0 unpolarised, 1 polarised."""
    return (up ** (4 / 3) + down ** (4 / 3) - 2) / (2 ** (4 / 3) - 2)


PW92 = ((0.031091, 0.21370, 7.5957, 3.5876, 1.6382, 0.49294), (0.015545, 0.20548, 14.1189, 6.1977, 3.3662, 0.62517),
        (0.016887, 0.11125, 10.357, 3.6231, 0.88026, 0.49671), 1.709921)  # fmt: skip
PW92_FINE = ((0.0310907, *PW92[0][1:]), (0.01554535, *PW92[1][1:]), (0.0168869, *PW92[2][1:]), 1.709920934161365617563962776245)
"""The same with more digits, as PBE and SCAN use it."""


def _pw92(rho: Array, up: Array, down: Array, constants: tuple) -> Array:
    """Correlation energy of an electron of the uniform gas, Hartree."""
    rs = _radius(rho)
    root = jnp.sqrt(rs)

    def g(A: float, a1: float, b1: float, b2: float, b3: float, b4: float) -> Array:
        inner = 2 * A * root * (b1 + root * (b2 + root * (b3 + root * b4)))
        return -2 * A * (1 + a1 * rs) * jnp.log1p(1 / inner)

    plain, full, stiffness, curvature = g(*constants[0]), g(*constants[1]), -g(*constants[2]), constants[3]
    f, fourth = _interpolation(up, down), ((up - down) / 2) ** 4
    return plain + stiffness * f / curvature * (1 - fourth) + (full - plain) * f * fourth


def pw92(density: Density) -> Float[Array, " points"]:
    """Correlation of the uniform gas; Perdew and Wang, Phys. Rev. B 45, 13244 (1992)."""
    rho, up, down = _polarisation(density)
    return rho * _pw92(rho, up, down, PW92)


def pw92_mod(density: Density) -> Float[Array, " points"]:
    """The same with more digits of its constants, libxc's "pw_mod"."""
    rho, up, down = _polarisation(density)
    return rho * _pw92(rho, up, down, PW92_FINE)


def _vwn(root: Array, A: float, x0: float, b: float, c: float) -> Array:
    Q = math.sqrt(4 * c - b * b)
    X = root**2 + b * root + c
    angle = jnp.arctan(Q / (2 * root + b))
    shift = b * x0 / (x0 * x0 + b * x0 + c)
    tail = jnp.log((root - x0) ** 2 / X) + 2 * (b + 2 * x0) / Q * angle
    return A * (jnp.log(root**2 / X) + 2 * b / Q * angle - shift * tail)


def vwn5(density: Density) -> Float[Array, " points"]:
    """Correlation of the uniform gas; Vosko, Wilk and Nusair, Can. J. Phys. 58, 1200 (1980), their fifth formula."""
    rho, up, down = _polarisation(density)
    root = jnp.sqrt(_radius(rho))
    plain = _vwn(root, 0.0310907, -0.10498, 3.72744, 12.9352)
    full = _vwn(root, 0.01554535, -0.32500, 7.06042, 18.0578)
    stiffness = _vwn(root, -1 / (6 * math.pi**2), -0.0047584, 1.13107, 13.0045)
    f, fourth = _interpolation(up, down), ((up - down) / 2) ** 4
    curvature = 4 / (9 * (2 ** (1 / 3) - 1))
    return rho * (plain + stiffness * f / curvature * (1 - fourth) + (full - plain) * f * fourth)


def vwn_rpa(density: Density) -> Float[Array, " points"]:
    """The same authors' fit to the random-phase approximation, which the common B3LYP has."""
    rho, up, down = _polarisation(density)
    root = jnp.sqrt(_radius(rho))
    plain = _vwn(root, 0.0310907, -0.409286, 13.0720, 42.7198)
    full = _vwn(root, 0.01554535, -0.743294, 20.1231, 101.578)
    return rho * (plain + (full - plain) * _interpolation(up, down))


def lyp(density: Density) -> Float[Array, " points"]:
    """Lee, Yang and Parr without the Laplacian, as Miehlich et al., Chem. Phys. Lett. 157, 200 (1989), write it."""
    a, b, c, d = 0.04918, 0.132, 0.2533, 0.349
    rho, (up, down) = density.total, density.rho
    uu, _, dd = density.sigma
    both = density.total_sigma
    third = rho ** (-1 / 3)
    screen = 1 / (1 + d * third)
    omega = jnp.exp(-c * third) * screen * rho ** (-11 / 3)
    delta = c * third + d * third * screen
    kinetic = 2 ** (11 / 3) * 0.3 * (3 * math.pi**2) ** (2 / 3) * (up ** (8 / 3) + down ** (8 / 3))
    inner = (
        kinetic + (47 - 7 * delta) / 18 * both - (45 - delta) / 18 * (uu + dd) - (delta - 11) / 9 * (up * uu + down * dd) / rho
    )
    outer = -2 / 3 * rho**2 * both + (2 / 3 * rho**2 - up**2) * dd + (2 / 3 * rho**2 - down**2) * uu
    return -4 * a * screen * up * down / rho - a * b * omega * (up * down * inner + outer)


GAMMA = (1 - math.log(2)) / math.pi**2


def _phi(up: Array, down: Array) -> Array:
    return (up ** (2 / 3) + down ** (2 / 3)) / 2


def pbe_correlation(density: Density) -> Float[Array, " points"]:
    """Perdew, Burke and Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996)."""
    beta = 0.06672455060314922
    rho, up, down = _polarisation(density)
    uniform, phi = _pw92(rho, up, down, PW92_FINE), _phi(up, down)
    ks2 = 4 * (3 * math.pi**2 * rho) ** (1 / 3) / math.pi
    t2 = density.total_sigma / (4 * phi**2 * ks2 * rho**2)
    A = beta / GAMMA / jnp.expm1(-uniform / (GAMMA * phi**3))
    ratio = t2 * (1 + A * t2) / (1 + A * t2 + (A * t2) ** 2)
    return rho * (uniform + GAMMA * phi**3 * jnp.log1p(beta / GAMMA * ratio))


def scan_correlation(density: Density) -> Float[Array, " points"]:
    """Sun, Ruzsinszky and Perdew, Phys. Rev. Lett. 115, 036402 (2015)."""
    rho, up, down = _polarisation(density)
    rs, phi = _radius(rho), _phi(up, down)
    square = density.total_sigma / (4 * (3 * math.pi**2) ** (2 / 3) * rho ** (8 / 3))
    alpha = _alpha(rho, square, jnp.sum(density.tau, axis=0), (up ** (5 / 3) + down ** (5 / 3)) / 2)

    uniform = _pw92(rho, up, down, PW92_FINE)
    beta = 0.06672455060314922 * (1 + 0.1 * rs) / (1 + 0.1778 * rs)
    w1 = jnp.expm1(-uniform / (GAMMA * phi**3))
    t2 = (3 * math.pi**2 / 16) ** (2 / 3) * square / (phi**2 * rs)
    e1 = uniform + GAMMA * phi**3 * jnp.log1p(w1 * (1 - (1 + 4 * beta / (GAMMA * w1) * t2) ** -0.25))

    b1, b2, b3 = 0.0285764, 0.0889, 0.125541
    plain = -b1 / (1 + b2 * jnp.sqrt(rs) + b3 * rs)
    w0 = jnp.expm1(-plain / b1)
    h0 = b1 * jnp.log1p(w0 * (1 - (1 + 4 * 0.12802585262625815 * square) ** -0.25))
    zeta = (up - down) / 2
    spin = (1 - 2.363 * ((up ** (4 / 3) + down ** (4 / 3)) / 2 - 1)) * (1 - zeta**12)
    e0 = (plain + h0) * spin
    return rho * (e1 + _switch(alpha, 0.64, 1.5, 0.7) * (e0 - e1))


def named(name: str) -> Sum:
    """A functional by its common name.

    "lda" (Slater and PW92), "svwn" (VWN5), "pbe", "blyp", "scan", "b3lyp" (of Gaussian), "b3lyp5" (with VWN5), "pbe0".

    **Raises:** `InputError` for another name.
    """
    if name not in NAMED:
        raise InputError(f"{name!r} is no functional; {', '.join(NAMED)} are.")
    return NAMED[name]()


NAMED: dict[str, Callable[[], Sum]] = {
    "lda": lambda: Sum((slater, pw92), "lda"),
    "svwn": lambda: Sum((slater, vwn5), "lda"),
    "pbe": lambda: Sum((pbe_exchange, pbe_correlation), "gga"),
    "blyp": lambda: Sum((slater, b88_correction, lyp), "gga"),
    "scan": lambda: Sum((scan_exchange, scan_correlation), "mgga"),
    "b3lyp": lambda: Sum((slater, b88_correction, vwn_rpa, lyp), "gga", (0.8, 0.72, 0.19, 0.81), 0.2),
    "b3lyp5": lambda: Sum((slater, b88_correction, vwn5, lyp), "gga", (0.8, 0.72, 0.19, 0.81), 0.2),
    "pbe0": lambda: Sum((pbe_exchange, pbe_correlation), "gga", (0.75, 1.0), 0.25),
}
