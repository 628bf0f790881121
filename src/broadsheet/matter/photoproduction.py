"""Photoproduction of charmonium on the nucleon: quark loop, final-state interaction and Pomeron exchange.

arXiv 2403.01958, with the leading vertex of the photon: it becomes a quark and an antiquark, one of which meets the nucleon by
a potential, and the pair is projected on the charmonium's wave function. The same potential, folded with the density of the
pair, scatters the charmonium off the nucleon on the way out. Energies are in GeV, t in GeV², cross sections in nb.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.special import eval_legendre

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import CharmoniumCQM, CharmoniumState
from broadsheet.matter.lippmann_schwinger import (
    LippmannSchwinger,
    TwoBody,
    bordered,
    k_matrix,
    momentum_grid,
    propagator,
    stretched_grid,
    transfer_grid,
)
from broadsheet.matter.pomeron import CHARGE, NUCLEON_MASS, Pomeron
from broadsheet.matter.quark_nucleon import FoldedPotential, QuarkNucleonPotential, yukawa

NANOBARN = 3.893794e5
"""nb GeV²."""

JPSI_MASS, PSI2S_MASS = 3.0969, 3.6861
"""GeV."""

LOOP_ENDS = (4.8, 7.0)
"""GeV; between these energies W the loop is turned off: it keeps growing, and Pomeron exchange would count twice."""

BORN = ("loop", "vmd")


def photon_energy(W: Any) -> Any:
    """Energy of the photon in the laboratory, GeV, at total energies `W`, GeV, on a proton at rest."""
    return (W**2 - NUCLEON_MASS**2) / (2 * NUCLEON_MASS)


def total_energy(photon: Any) -> Any:
    """Total energy W in the centre of mass, GeV, for photons of these energies, GeV, on a proton at rest."""
    return np.sqrt(NUCLEON_MASS**2 + 2 * NUCLEON_MASS * photon)


class Tables(NamedTuple):
    """All that does not depend on the potential, for some energies. Momenta of the final state are nodes, the last on shell.

    The amplitude without rescattering is `born * v(transfer)`; at the angles that are wanted it is `seen * v(seen_transfer)`.
    """

    transfer: Any  # (energies, momenta, cosines), GeV
    born: Any  # (energies, momenta, cosines)
    born_waves: Any  # (waves, energies, momenta, cosines): weights of the projection
    seen_transfer: Any  # (energies, angles), GeV
    seen: Any  # (energies, angles)
    legendre: Any  # (waves, energies, angles), times (2 l + 1) / 4 pi
    exchange: Any  # (grid, grid, nodes), GeV: momentum transfers of the folded potential between momenta off shell
    exchange_waves: Any  # (waves, grid, grid, nodes)
    edge: Any  # (energies, momenta, nodes), GeV: those to the momentum on shell
    edge_waves: Any  # (waves, energies, momenta, nodes)
    propagator: Any  # (energies, momenta)
    rho: Any  # (energies,)
    pomeron: Any  # (energies, angles): spin sum of |T|²
    pomeron_overlap: Any  # (energies, angles), complex
    cosine: Any  # (energies, angles)
    weight: Any  # (energies, angles): of dsigma/dOmega to the total cross section, phase space and nb included


class Waves(NamedTuple):
    """The amplitude of loop and rescattering: at the angles seen, and in partial waves with (`full`) and without (`born`)."""

    seen: Any
    full: Any
    born: Any


def amplitudes(tables: Tables, potential: Any, fsi: bool = True) -> Waves:
    """Production amplitude for the potential's parameters (alpha, mu, core, ratio), for NumPy and JAX arrays.

    With K half off shell it is `(B + P∫ K G B) / (1 + iπ rho K)`, whose phase is the phase shift (Watson's theorem).
    """
    xp = tables.born.__array_namespace__()
    waves = xp.sum(tables.born_waves * (tables.born * yukawa(tables.transfer, *potential)), axis=-1)
    seen = tables.seen * yukawa(tables.seen_transfer, *potential)
    born = waves[..., -1]
    if not fsi:
        return Waves(seen + 0j, born + 0j, born)
    inner = xp.sum(tables.exchange_waves * yukawa(tables.exchange, *potential), axis=-1)
    edge = xp.sum(tables.edge_waves * yukawa(tables.edge, *potential), axis=-1)
    K = k_matrix(bordered(inner[:, None], edge), tables.propagator)
    rescattered = born + xp.sum(K * tables.propagator * waves, axis=-1)
    full = rescattered / (1 + 1j * np.pi * tables.rho * K[..., -1])
    return Waves(seen + xp.sum(tables.legendre * (full - born)[..., None], axis=0), full, born)


def angular(tables: Tables, potential: Any, fsi: bool = True, strength: Any = 1.0) -> Any:
    """Spin sum of |T|² (energies, angles); `strength` multiplies loop and rescattering."""
    xp = tables.born.__array_namespace__()
    T = strength * amplitudes(tables, potential, fsi).seen
    return xp.abs(T) ** 2 + 2 * xp.real(xp.conj(T) * tables.pomeron_overlap) + tables.pomeron


def total(tables: Tables, potential: Any, fsi: bool = True, strength: Any = 1.0) -> Any:
    """Total cross sections (energies,), nb."""
    xp = tables.born.__array_namespace__()
    return xp.sum(tables.weight * angular(tables, potential, fsi, strength), axis=-1)


@dataclass(frozen=True)
class Photoproduction:
    """The model of a charmonium's photoproduction with everything but the potential's parameters.

    **Arguments:** `state`: the wave function, by default J/psi of the quark model; `mass`: of the charmonium, GeV; `born`: the
    quark loop, or vector-meson dominance (`"vmd"`: the photon is J/psi with amplitude e/f_V, and scatters); `fsi`: final-state
    interaction; `pomeron`: its constants, or None; `waves`: partial waves that rescatter; `nodes`, `scale`: grid of momenta;
    `colour`: factor of the colour sum, √3 unless another convention is wanted.
    """

    state: CharmoniumState = field(default_factory=lambda: CharmoniumCQM().solve())
    mass: float = JPSI_MASS
    born: str = "loop"
    fsi: bool = True
    pomeron: Pomeron | None = field(default_factory=Pomeron)
    waves: int = 2
    nodes: int = 24
    scale: float = 0.7
    colour: float = 3**0.5
    angles: int = 32

    def __post_init__(self) -> None:
        if self.born not in BORN:
            raise InputError(f"The amplitude is {self.born!r}; {' and '.join(BORN)} are known.")

    @cached_property
    def body(self) -> TwoBody:
        """Nucleon and charmonium."""
        return TwoBody(NUCLEON_MASS, self.mass)

    def loop(self, k: np.ndarray, transfer: np.ndarray, along: np.ndarray, radial: int = 24) -> np.ndarray:
        """The integral over the pair's relative momentum, GeV^(1/2), for a photon of momentum `k` and a momentum transfer of
        size `transfer` with cosine `along` to it; all of one shape.

        The polar axis lies along the transfer; the energy denominator never vanishes, as k < 2 E_c always.
        """
        y, weight = stretched_grid(radial, 40.0)  # beyond, the wave function adds 1e-4, and the grid in r does not resolve it
        weight = weight * y**2 * self.state.wave_function(y)
        cosine, cosine_weight = np.polynomial.legendre.leggauss(8)
        azimuth = np.cos(np.pi * (np.arange(6) + 0.5) / 6)
        mass = self.state.quark_mass
        found = np.zeros(np.shape(transfer))
        across = np.sqrt(np.maximum(1 - along**2, 0))
        for c, c_weight in zip(cosine, cosine_weight, strict=True):
            square = y**2 + transfer[..., None] ** 2 / 4 - y * transfer[..., None] * c
            even = mass**2 + k[..., None] ** 2 / 4 + square
            for cos_phi in azimuth:
                dot = y * (c * along + np.sqrt(1 - c**2) * across * cos_phi)[..., None] - (transfer * along / 2)[..., None]
                odd = k[..., None] * dot
                energies = np.sqrt(even + odd) + np.sqrt(even - odd)
                found += 2 * np.pi / 6 * c_weight * np.sum(weight / (k[..., None] - energies), axis=-1)
        return found

    def _born(self, W: np.ndarray, k: np.ndarray, p: np.ndarray, transfer: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """What multiplies v(transfer) in the amplitude without rescattering; all of one shape."""
        share = np.clip((W - LOOP_ENDS[0]) / (LOOP_ENDS[1] - LOOP_ENDS[0]), 0, 1)
        fade = 0.5 * (1 + np.cos(np.pi * share))
        if self.born == "vmd":
            return fade * CHARGE / Pomeron().f_v * 2 * self.state.form_factor(transfer)
        along = (p * cosine - k) / np.maximum(transfer, 1e-12)
        vertex = self.colour * np.sqrt(2) * 2 / 3 * CHARGE / ((2 * np.pi) ** 1.5 * np.sqrt(2 * k))
        return fade * vertex * 2 * self.loop(k, transfer, np.clip(along, -1, 1))

    def _exchange(self, p_out: np.ndarray, p_in: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Momentum transfers, and the weights that make `V_l` of v there."""
        transfer, cosine, weight = transfer_grid(p_out, p_in, 16)
        folded = 2 * np.pi * weight * 2 * self.state.form_factor(transfer)
        return transfer, np.stack([folded * eval_legendre(l, cosine) for l in range(self.waves)])

    def tables(self, W: np.ndarray, cosine: np.ndarray | None = None) -> Tables:
        """Tables for total energies `W`, GeV, and cosines (energies, angles); by default those that integrate to the total.

        **Raises:** `InputError` at or below threshold.
        """
        W = np.atleast_1d(np.asarray(W, float))
        q = self.body.momentum(W)
        if not np.all(q > 1e-4):
            raise InputError(
                f"Total energies must lie above the threshold at {self.body.threshold:.5f} GeV (photons of "
                f"{photon_energy(self.body.threshold):.4f} GeV); {float(W.min()):g} GeV does not."
            )
        k = (W**2 - NUCLEON_MASS**2) / (2 * W)
        grid, weight = momentum_grid(self.nodes, self.scale)
        p = np.concatenate([np.broadcast_to(grid, (len(W), self.nodes)), q[:, None]], axis=1)
        degrees = range(self.waves)
        transfer, inner, inner_weight = transfer_grid(p, k[:, None], 16)
        W_inner, k_inner, p_inner = np.broadcast_arrays(W[:, None, None], k[:, None, None], p[..., None], transfer)[:3]
        seen_transfer, seen_cosine, seen_weight = transfer_grid(q, k, self.angles)
        if cosine is not None:
            seen_cosine, seen_weight = np.asarray(cosine, float), np.ones(np.shape(cosine))
            seen_transfer = np.sqrt(np.maximum(q[:, None] ** 2 + k[:, None] ** 2 - 2 * (q * k)[:, None] * seen_cosine, 0))
        k_seen, q_seen, W_seen = (np.broadcast_to(each[:, None], seen_cosine.shape) for each in (k, q, W))
        exchange, exchange_waves = self._exchange(grid[:, None], grid)
        edge, edge_waves = self._exchange(p, q[:, None])
        nucleon = np.sqrt(NUCLEON_MASS**2 + k**2)
        flux = (2 * np.pi) ** 4 * nucleon / W * self.body.rho(q) * NANOBARN
        squared, overlap = np.zeros(seen_cosine.shape), np.zeros(seen_cosine.shape, complex)
        if self.pomeron is not None:
            sums, unit = self.pomeron.spin_sums(k_seen, q_seen, seen_cosine), self.pomeron.normalisation(k_seen, q_seen)
            squared, overlap = unit**2 * sums.squared, unit * sums.overlap
        return Tables(
            transfer, self._born(W_inner, k_inner, p_inner, transfer, inner),
            2 * np.pi * np.stack([inner_weight * eval_legendre(l, inner) for l in degrees]),
            seen_transfer, self._born(W_seen, k_seen, q_seen, seen_transfer, seen_cosine),
            np.stack([(2 * l + 1) / (4 * np.pi) * eval_legendre(l, seen_cosine) for l in degrees]),
            exchange, exchange_waves, edge, edge_waves,
            propagator(self.body, q, grid, weight), self.body.rho(q), squared, overlap, seen_cosine,
            2 * np.pi * flux[:, None] * seen_weight,
        )  # fmt: skip

    def sigma(self, W: np.ndarray, potential: QuarkNucleonPotential) -> np.ndarray:
        """Total cross sections, nb, at total energies `W`, GeV."""
        return total(self.tables(W), potential.parameters, self.fsi)

    def dsigma_dt(self, W: float, t: np.ndarray, potential: QuarkNucleonPotential) -> np.ndarray:
        """Differential cross sections, nb/GeV², at one energy `W`, GeV, and momentum transfers `t`, GeV² (negative)."""
        k, q = (W**2 - NUCLEON_MASS**2) / (2 * W), float(self.body.momentum(W))
        cosine = (np.asarray(t, float) - self.mass**2 + 2 * k * np.sqrt(self.mass**2 + q**2)) / (2 * k * q)
        if np.any(np.abs(cosine) > 1 + 1e-9):
            least, most = self.t_range(W)
            raise InputError(f"At W = {W:g} GeV, t lies between {least:.4f} and {most:.4f} GeV².")
        tables = self.tables(np.array([W]), np.clip(cosine, -1, 1)[None])
        return (tables.weight * angular(tables, potential.parameters, self.fsi))[0] / (2 * k * q)

    def t_range(self, W: float) -> tuple[float, float]:
        """Least and greatest t, GeV², at the total energy `W`, GeV."""
        k, q = (W**2 - NUCLEON_MASS**2) / (2 * W), float(self.body.momentum(W))
        middle = self.mass**2 - 2 * k * np.sqrt(self.mass**2 + q**2)
        return float(middle - 2 * k * q), float(middle + 2 * k * q)

    def scattering(self, potential: QuarkNucleonPotential) -> LippmannSchwinger:
        """The charmonium on the nucleon."""
        return LippmannSchwinger(FoldedPotential(potential, self.state), NUCLEON_MASS, self.mass, self.nodes, self.scale)
