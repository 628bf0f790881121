"""A charm quark's potential on the nucleon, and charmonium's by folding it with the density of the pair.

arXiv 2403.01958: one Yukawa ("1Y") or the difference of two that is finite at the origin ("2Y"). Momentum-space potentials
contain (2π)⁻³ and are in GeV⁻²; distances are in GeV⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import CharmoniumState

KINDS = ("1Y", "2Y")


def yukawa(q: Any, alpha: Any, mu: Any, core: Any = 0.0, ratio: Any = 2.0) -> Any:
    """`-alpha (exp(-mu r) - core exp(-ratio mu r)) / r` in momentum space, GeV⁻²."""
    square = q * q
    return -alpha / (2 * np.pi**2) * (1 / (square + mu**2) - core / (square + (ratio * mu) ** 2))


def yukawa_parts(square: np.ndarray, mu: float, core: float = 0.0, ratio: float = 2.0) -> np.ndarray:
    """`yukawa` at alpha = 1, GeV⁻², and its slope by mu, GeV⁻³, (2, ...) at squares of the momentum transfer, GeV² (...)."""
    parts = np.empty((2, *square.shape))
    value, slope = parts
    np.divide(-1 / (2 * np.pi**2), square + mu**2, out=value)
    np.multiply(value, value, out=slope)
    if core:
        other = -1 / (2 * np.pi**2) / (square + (ratio * mu) ** 2)
        value -= core * other
        slope -= core * ratio**2 * (other * other)
    slope *= 4 * np.pi**2 * mu
    return parts


@dataclass(frozen=True)
class QuarkNucleonPotential:
    """`-alpha (exp(-mu r) - core exp(-ratio mu r)) / r`; "1Y" has no core. `mu` in GeV."""

    kind: str = "1Y"
    alpha: float = 0.03
    mu: float = 0.3
    core: float = 1.0
    ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"The potential is of kind {self.kind!r}; 1Y and 2Y are known.")
        if not (self.mu > 0 and self.ratio > 1 and np.isfinite(self.alpha)):
            raise InputError("A quark-nucleon potential has a positive mu (GeV), a ratio above 1 and a finite alpha.")

    @classmethod
    def with_tail(cls, strength: float, mu: float, state: CharmoniumState, kind: str = "1Y", **shape: float) -> Any:
        """The potential whose folding with `state` has the tail `-strength exp(-mu r)/r`, as lattice QCD gives it."""
        return cls(kind, strength / (2 * state.tail_factor(mu)), mu, **shape)

    @property
    def parameters(self) -> tuple[float, float, float, float]:
        """What `yukawa` takes: alpha, mu, core (0 for "1Y"), ratio."""
        return self.alpha, self.mu, self.core if self.kind == "2Y" else 0.0, self.ratio

    def __call__(self, q: Any) -> Any:
        """At momentum transfers `q`, GeV."""
        return yukawa(q, *self.parameters)

    def at(self, r: Any) -> Any:
        """At distances `r`, GeV⁻¹; GeV."""
        alpha, mu, core, ratio = self.parameters
        return -alpha * (np.exp(-mu * r) - core * np.exp(-ratio * mu * r)) / r

    def scaled(self, factor: float) -> QuarkNucleonPotential:
        """With the strength times `factor`."""
        return replace(self, alpha=factor * self.alpha)


@dataclass(frozen=True)
class FoldedPotential:
    """Charmonium on the nucleon: quark and antiquark, half their distance from the centre of mass, feel `quark` each."""

    quark: QuarkNucleonPotential
    state: CharmoniumState

    def __call__(self, q: Any) -> Any:
        """At momentum transfers `q`, GeV; GeV⁻²."""
        return 2 * self.quark(q) * self.state.form_factor(q)

    def at(self, r: Any) -> Any:
        """At distances `r`, GeV⁻¹; GeV. A Yukawa's mean over a sphere is known in closed form, the rest is a sum."""
        r = np.asarray(r, float)
        alpha, mu, core, ratio = self.quark.parameters
        radius = self.state.r / 2
        below, above = np.minimum(r[..., None], radius), np.maximum(r[..., None], radius)

        def mean(mass: float) -> Any:  # sinh(m a)/(m a) exp(-m b)/b, without overflow
            return (
                np.exp(mass * (below - above)) * -np.expm1(-2 * mass * below) / (2 * mass * below * above) @ self.state.density
            )

        return -2 * alpha * (mean(mu) - (core * mean(ratio * mu) if core else 0.0))

    def by_quadrature(self, r: float, angles: int = 64) -> float:
        """At one distance, GeV⁻¹, by brute force: a sum over the pair's distance and direction; GeV."""
        cosine, weight = np.polynomial.legendre.leggauss(angles)
        radius = self.state.r[:, None] / 2
        apart = np.sqrt(r**2 + radius**2 - 2 * r * radius * cosine)
        return float(2 * self.state.density @ (self.quark.at(apart) @ weight) / 2)
