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
    momentum_grid,
    propagator,
    stretched_grid,
    transfer_grid,
)
from broadsheet.matter.pomeron import CHARGE, NUCLEON_MASS, Pomeron
from broadsheet.matter.quark_nucleon import FoldedPotential, QuarkNucleonPotential, yukawa_parts

NANOBARN = 3.893794e5
"""nb GeV²."""

JPSI_MASS, PSI2S_MASS = 3.0969, 3.6861
"""GeV."""

LOOP_ENDS = (4.8, 7.0)
"""GeV; between these energies W the loop is turned off: it keeps growing, and Pomeron exchange would count twice."""
LOOP_BLOCK = 1024
"""Points whose loop integral is made at once: as many as the cache holds."""

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

    transfer: np.ndarray  # (energies, momenta, cosines), GeV
    born: np.ndarray  # (energies, momenta, cosines)
    born_waves: np.ndarray  # (waves, energies, momenta, cosines): weights of the projection
    seen_transfer: np.ndarray  # (energies, angles), GeV
    seen: np.ndarray  # (energies, angles)
    legendre: np.ndarray  # (waves, energies, angles), times (2 l + 1) / 4 pi
    exchange: np.ndarray  # (grid, grid, nodes), GeV: momentum transfers of the folded potential between momenta off shell
    exchange_waves: np.ndarray  # (waves, grid, grid, nodes)
    edge: np.ndarray  # (energies, momenta, nodes), GeV: those to the momentum on shell
    edge_waves: np.ndarray  # (waves, energies, momenta, nodes)
    root: np.ndarray  # (grid,), GeV^(3/2): root of the weights of `dp p²`
    free: np.ndarray  # (grid,), GeV: energies of the two particles above threshold at the momenta off shell
    above: np.ndarray  # (energies,), GeV: above threshold
    pole: np.ndarray  # (energies,), complex: iπ rho less the weight of the propagator on shell
    pomeron: np.ndarray  # (energies, angles): spin sum of |T|²
    pomeron_overlap: np.ndarray  # (energies, angles), complex
    cosine: np.ndarray  # (energies, angles)
    weight: np.ndarray  # (energies, angles): of dsigma/dOmega to the total cross section, phase space and nb included

    @property
    def transfers(self) -> tuple[np.ndarray, ...]:
        """Of the angles seen, of production, and of the folded potential off shell and to the momentum on shell."""
        return self.seen_transfer, self.transfer, self.exchange, self.edge


class Waves(NamedTuple):
    """The amplitude of loop and rescattering: at the angles seen, and in partial waves with (`full`) and without (`born`)."""

    seen: np.ndarray
    full: np.ndarray
    born: np.ndarray


class _Projected(NamedTuple):
    """A function of the momentum transfer, in partial waves: all that the amplitude takes from the potential. Linear in it."""

    seen: np.ndarray  # (energies, angles): production at the angles seen
    born: np.ndarray  # (waves, energies, momenta): production
    inner: np.ndarray  # (waves, grid, grid): the folded potential between momenta off shell
    edge: np.ndarray  # (waves, energies, momenta): to the momentum on shell

    @classmethod
    def of(cls, tables: Tables, seen: np.ndarray, born: np.ndarray, inner: np.ndarray, edge: np.ndarray) -> _Projected:
        """Of the function's values at the transfers of the tables; of some functions at once, along an axis before."""
        return cls(
            tables.seen * seen,
            np.einsum("lepc,...epc->...lep", tables.born_waves, tables.born * born),
            np.einsum("lpqc,...pqc->...lpq", tables.exchange_waves, inner),
            np.einsum("lepc,...epc->...lep", tables.edge_waves, edge),
        )

    def times(self, factor: float) -> _Projected:
        return _Projected(*(factor * part for part in self))


class _Amplitude:
    """The production amplitude by the states of the two particles that scatter, which all energies share.

    With the modes of `H = E(p) + V` on the grid, and G = 1/(E(k) - H), production b and potential v to the momentum on shell
    make `(b_k + b G v) / (1 + (iπ rho - g_k) (V_kk + v G v))`, where g_k is the on-shell weight of the principal value: the
    solution of Lippmann and Schwinger's equation, whose phase is the phase shift (Watson's theorem).
    """

    def __init__(self, tables: Tables, given: _Projected):
        root = tables.root
        # from the upper triangle, for large momenta come last: rounding of their energies stays out of those of the small
        energies, modes = np.linalg.eigh(root[:, None] * given.inner * root + np.diag(tables.free), "U")
        self._gap = tables.above[:, None] - energies[:, None]
        self.tables, self.given, self._modes = tables, given, modes
        self._entry, self._exit = (self._resolvent(each[..., :-1]) for each in (given.born, given.edge))
        self._loop = given.edge[..., -1] + np.sum(root * given.edge[..., :-1] * self._exit, axis=-1)
        made = given.born[..., -1] + np.sum(root * given.born[..., :-1] * self._exit, axis=-1)
        self._below = 1 + tables.pole * self._loop
        self.full = made / self._below

    def _resolvent(self, column: np.ndarray) -> np.ndarray:
        """G on a column, by its momenta: both with the root of the measure."""
        return ((self.tables.root * column) @ self._modes / self._gap) @ self._modes.swapaxes(-1, -2)

    def waves(self) -> Waves:
        return Waves(self._seen(self.given, self.full), self.full, self.given.born[..., -1])

    def slopes(self, change: _Projected) -> np.ndarray:
        """How fast the amplitude at the angles seen moves with each part of `change`: first order, as G V G of the modes."""
        root = self.tables.root
        moved = self._exit @ (root[:, None] * change.inner * root)
        u, b = root * change.edge[..., :-1], root * change.born[..., :-1]
        loop = change.edge[..., -1] + np.sum((2 * u + moved) * self._exit, axis=-1)
        made = change.born[..., -1] + np.sum(b * self._exit + (u + moved) * self._entry, axis=-1)
        return self._seen(change, (made - self.full * self.tables.pole * loop) / self._below)

    def _seen(self, given: _Projected, full: np.ndarray) -> np.ndarray:
        return given.seen + np.sum(self.tables.legendre * (full - given.born[..., -1])[..., None], axis=-3)


def amplitudes(tables: Tables, potential: tuple[float, ...], fsi: bool = True) -> Waves:
    """Production amplitude for the potential's parameters (alpha, mu, core, ratio)."""
    alpha, *shape = potential
    given = _Projected.of(tables, *(yukawa_parts(q * q, *shape)[0] for q in tables.transfers)).times(alpha)
    if not fsi:
        born = given.born[..., -1]
        return Waves(given.seen + 0j, born + 0j, born)
    return _Amplitude(tables, given).waves()


def angular(tables: Tables, potential: tuple[float, ...], fsi: bool = True, strength: float = 1.0) -> np.ndarray:
    """Spin sum of |T|² (energies, angles); `strength` multiplies loop and rescattering."""
    T = strength * amplitudes(tables, potential, fsi).seen
    return np.abs(T) ** 2 + 2 * np.real(np.conj(T) * tables.pomeron_overlap) + tables.pomeron


def total(tables: Tables, potential: tuple[float, ...], fsi: bool = True, strength: float = 1.0) -> np.ndarray:
    """Total cross sections (energies,), nb."""
    return np.sum(tables.weight * angular(tables, potential, fsi, strength), axis=-1)


def total_and_slopes(
    tables: Tables, potential: tuple[float, ...], fsi: bool = True, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Total cross sections (energies,), nb, and their slopes by alpha, mu and `strength` (energies, 3)."""
    alpha, mu, *shape = potential
    by_each = _Projected.of(tables, *(yukawa_parts(q * q, mu, *shape) for q in tables.transfers))
    given = _Projected(*(alpha * part[0] for part in by_each))
    if fsi:
        made = _Amplitude(tables, given)
        seen, slopes = made.waves().seen, made.slopes(by_each)
    else:
        seen, slopes = given.seen, by_each.seen
    moved = np.stack([strength * slopes[0], strength * alpha * slopes[1], seen])
    T, pull = strength * seen, tables.weight * np.conj(strength * seen + tables.pomeron_overlap)
    values = tables.weight * (np.real(T * np.conj(T + 2 * tables.pomeron_overlap)) + tables.pomeron)
    return np.sum(values, axis=-1), 2 * np.real(np.einsum("kea,ea->ek", moved, pull))


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
        steps = (
            np.repeat(cosine, 6),
            np.outer(np.sqrt(1 - cosine**2), azimuth).ravel(),
            np.repeat(2 * np.pi / 6 * cosine_weight, 6),
        )
        y, found = y[:, None], np.empty(np.size(transfer))
        for start in range(0, len(found), LOOP_BLOCK):
            part = slice(start, start + LOOP_BLOCK)
            k_, q, cos_q = (np.ravel(each)[part] for each in (k, transfer, along))
            sin_q = np.sqrt(np.maximum(1 - cos_q**2, 0))
            still = self.state.quark_mass**2 + k_**2 / 4 + y**2 + q**2 / 4
            sums = np.zeros(len(q))
            for up, side, share in zip(*steps, strict=True):
                even = still - up * (y * q)
                odd = y * (k_ * (up * cos_q + side * sin_q)) - k_ * q * cos_q / 2
                sums += share * (weight @ (1 / (k_ - np.sqrt(even + odd) - np.sqrt(even - odd))))
            found[part] = sums
        return found.reshape(np.shape(transfer))

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
            grid * np.sqrt(weight), self.body.kinetic(grid), self.body.kinetic(q),
            1j * np.pi * self.body.rho(q) - propagator(self.body, q, grid, weight)[:, -1], squared, overlap, seen_cosine,
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
