"""Pomeron exchange in the photoproduction of J/psi, after Donnachie and Landshoff, with explicit Dirac matrices.

`M = G(s, t) 12 i (e M_V²/f_V) beta_c F_V(t) beta_ud F_1(t) ū' {k̸ g - k gamma} u`, contracted with both polarisations.
Spinors are boosted from rest, with ū u = 2 M_N; polarisations of the vector meson are those of its rest frame, along x, y and
z, so that the spins are the same as in a model that is not relativistic. Units: GeV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ALPHA = 1 / 137.036
CHARGE = np.sqrt(4 * np.pi * ALPHA)
NUCLEON_MASS = 0.938272
"""GeV."""

SIGMA = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_ZERO = np.zeros((2, 2))
GAMMA = np.array([np.diag([1, 1, -1, -1]).astype(complex)] + [np.block([[_ZERO, each], [-each, _ZERO]]) for each in SIGMA])
"""Dirac matrices with upper index, in Dirac's representation."""

METRIC = np.array([1.0, -1.0, -1.0, -1.0])


def slash(vector: np.ndarray) -> np.ndarray:
    """`gamma · vector` of four-vectors (…, 4)."""
    return np.einsum("...m,mij->...ij", METRIC * vector, GAMMA)


def spinors(momentum: np.ndarray, mass: float) -> np.ndarray:
    """Spinors (…, 4, 2) of both spins, boosted from rest to three-momenta (…, 3)."""
    energy = np.sqrt(mass**2 + np.sum(momentum**2, axis=-1))[..., None, None]
    small = np.einsum("...a,aij->...ij", momentum, SIGMA) / (energy + mass)
    return np.sqrt(energy + mass) * np.concatenate([np.broadcast_to(np.eye(2), small.shape), small], axis=-2)


def polarisations(momentum: np.ndarray, mass: float) -> np.ndarray:
    """Polarisation four-vectors (…, 3, 4) of a vector meson, boosted from those along x, y and z at rest."""
    energy = np.sqrt(mass**2 + np.sum(momentum**2, axis=-1))[..., None, None]
    along = momentum[..., None]
    space = np.eye(3) + along * momentum[..., None, :] / (mass * (energy + mass))
    return np.concatenate([along / mass, space], axis=-1)


class SpinSums(NamedTuple):
    """Of the invariant amplitude M, averaged over incoming and summed over outgoing spins: |M|², and its product with the
    conserved-spin structure `eps_V · eps_gamma delta` of a loop amplitude; both at cosines (…)."""

    squared: np.ndarray
    overlap: np.ndarray


@dataclass(frozen=True)
class Pomeron:
    """Constants of the exchange: trajectory, vertices and the coupling of the photon to J/psi."""

    vector_mass: float = 3.0969  # GeV
    intercept: float = 1.25
    slope: float = 0.25  # GeV⁻²
    s_0: float = 4.0  # GeV²
    f_v: float = 11.2
    beta_c: float = 0.32  # GeV⁻¹
    beta_ud: float = 2.07  # GeV⁻¹
    mu_0_squared: float = 1.1  # GeV²

    def vertex(self, t: Any) -> Any:
        """Form factor of the vertex with the quark loop, GeV⁻²."""
        mass = self.vector_mass**2
        return 1 / (mass - t) * 2 * self.mu_0_squared / (2 * self.mu_0_squared + mass - t)

    def strength(self, s: Any, t: Any) -> Any:
        """All that multiplies the Dirac structure."""
        four = 4 * NUCLEON_MASS**2
        isoscalar = (four - 2.8 * t) / ((four - t) * (1 - t / 0.71) ** 2)
        power = self.intercept - 1 + self.slope * t
        regge = (s / self.s_0) ** power * np.exp(-0.5j * np.pi * power)
        coupling = 12j * CHARGE * self.vector_mass**2 / self.f_v * self.beta_c * self.beta_ud
        return coupling * self.vertex(t) * isoscalar * regge

    def forward(self, s: float) -> float:
        """dsigma/dt at t = 0 and high energy, GeV⁻⁴, in closed form."""
        coupling = 12 * CHARGE * self.vector_mass**2 * self.beta_c * self.beta_ud * self.vertex(np.zeros(())) / self.f_v
        return float(coupling**2 * (s / self.s_0) ** (2 * self.intercept - 2) / (16 * np.pi))

    def amplitude(self, k: np.ndarray, q: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """Invariant amplitude (…, photon x and y, vector x, y and z, nucleon after, nucleon before).

        `k`, `q`: momenta of photon and vector meson in the centre of mass, GeV; `cosine` of the angle between them; one shape.
        """
        k, q, cosine = np.broadcast_arrays(k, q, cosine)
        zero = np.zeros_like(k)
        sine = np.sqrt(np.maximum(1 - cosine**2, 0))
        photon = np.stack([k, zero, zero, k], axis=-1)
        vector = np.stack([q * sine, zero, q * cosine], axis=-1)
        energy = np.sqrt(self.vector_mass**2 + q**2)
        t = self.vector_mass**2 - 2 * (k * energy - k * q * cosine)
        s = (k + np.sqrt(NUCLEON_MASS**2 + k**2)) ** 2
        before = spinors(-photon[..., 1:], NUCLEON_MASS)
        after = spinors(-vector, NUCLEON_MASS)
        adjoint = np.conj(np.swapaxes(after, -1, -2)) @ GAMMA[0]
        light = np.eye(4)[1:3]
        meson = polarisations(vector, self.vector_mass)
        number = np.einsum("...vm,m,pm->...pv", meson, METRIC, light)
        drag = np.einsum("...vm,m,...m->...v", meson, METRIC, photon)
        current = np.einsum("...ai,...ij,...jb->...ab", adjoint, slash(photon), before)
        transverse = np.einsum("...ai,pij,...jb->...pab", adjoint, slash(light), before)
        made = number[..., None, None] * current[..., None, None, :, :]
        made = made - drag[..., None, :, None, None] * transverse[..., :, None, :, :]
        return self.strength(s, t)[..., None, None, None, None] * made

    def spin_sums(self, k: np.ndarray, q: np.ndarray, cosine: np.ndarray) -> SpinSums:
        """Sums over spins at momenta and cosines of one shape."""
        amplitude = self.amplitude(k, q, cosine)
        squared = np.sum(np.abs(amplitude) ** 2, axis=(-1, -2, -3, -4)) / 4
        overlap = np.einsum("...ppaa->...", amplitude[..., :2, :, :]) / 4
        return SpinSums(squared, overlap)

    def normalisation(self, k: np.ndarray, q: np.ndarray) -> np.ndarray:
        """What turns M into the amplitude T of states that are normalised to delta functions."""
        energies = k * np.sqrt(NUCLEON_MASS**2 + k**2) * np.sqrt(self.vector_mass**2 + q**2) * np.sqrt(NUCLEON_MASS**2 + q**2)
        return (2 * np.pi) ** -3 / (4 * np.sqrt(energies))
