"""Measured total cross sections of J/psi photoproduction: their form, GlueX's of 2019, and a curve without dynamics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from broadsheet.errors import InputError
from broadsheet.matter.photoproduction import JPSI_MASS, photon_energy
from broadsheet.matter.pomeron import NUCLEON_MASS

THRESHOLD = float(photon_energy(NUCLEON_MASS + JPSI_MASS))
"""GeV; the least energy of a photon that makes J/psi on a proton at rest."""

GLUEX_2019 = np.array(
    [
        (8.38, 0.116, 0.033), (8.74, 0.343, 0.105), (9.10, 0.313, 0.137), (9.46, 0.835, 0.278), (9.82, 0.868, 0.224),
        (10.18, 0.949, 0.213), (10.54, 1.383, 0.430), (10.90, 1.274, 0.276), (11.26, 2.158, 0.780), (11.62, 3.245, 1.000),
    ]
)  # fmt: skip
"""Photon energy, GeV; total cross section and its statistical and systematic error in one, nb (Phys. Rev. Lett. 123, 072001).

As analyses of these data have them in their code. A scale that all points share is uncertain by `GLUEX_2019_SCALE`.
"""

GLUEX_2019_SCALE = 0.27


def check_measured(energies: Any, measured: Any) -> tuple[np.ndarray, np.ndarray]:
    """Energies (points,), GeV, and (cross section, upward error, downward error) (points, 3), nb.

    **Raises:** `InputError` where errors are missing or not positive, a number is not finite, a cross section is negative, or
    a photon is below threshold.
    """
    energies = np.asarray(energies, float).reshape(len(energies), -1)[:, 0]
    measured = np.asarray(measured, float)
    if measured.ndim != 2 or measured.shape[1] not in (2, 3) or len(measured) != len(energies):
        raise InputError(
            f"Cross sections come with errors, (points, 2), or with upward and downward ones, (points, 3), nb, for each of "
            f"{len(energies)} energies; got {measured.shape}."
        )
    measured = measured[:, [0, 1, -1]]
    check_energies(energies)
    bad = ~np.isfinite(measured).all(axis=1) | (measured[:, 0] < 0) | (measured[:, 1:] <= 0).any(axis=1)
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(
            f"A cross section is a number from 0 on with positive errors, nb; point {k + 1} has {measured[k, 0]:g}, "
            f"+{measured[k, 1]:g}, -{measured[k, 2]:g}."
        )
    return energies, measured


def check_energies(energies: np.ndarray) -> None:
    """Raises `InputError` where a photon's energy, GeV, is none or not above threshold."""
    bad = ~(energies > THRESHOLD + 1e-3) | ~np.isfinite(energies)
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(
            f"Photons need more than {THRESHOLD:.4f} GeV, the threshold of J/psi on a proton at rest; point {k + 1} has "
            f"{energies[k]:g} GeV."
        )


def pulls(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(model - data) / error, with the upward error where the model lies above the data."""
    apart = predicted - measured[:, 0]
    return apart / np.where(apart > 0, measured[:, 1], measured[:, 2])


class PowerLaw(NamedTuple):
    """`size (1 - E_threshold / E)^exponent`, nb, and its chi squared: a threshold curve without dynamics."""

    size: float
    exponent: float
    chi2: float

    def __call__(self, energies: Any) -> np.ndarray:
        return self.size * (1 - THRESHOLD / np.asarray(energies, float)) ** self.exponent


def power_law(energies: Any, measured: Any, exponent: float | None = None, floor: Any = 0.0) -> PowerLaw:
    """The best threshold curve on top of `floor`, nb; with a fixed `exponent` one parameter is fitted, else two.

    Two gluons in perturbative QCD give the exponent 2.
    """
    energies, measured = check_measured(energies, measured)

    def best(power: float) -> PowerLaw:
        shape = (1 - THRESHOLD / energies) ** power
        error = measured[:, 1:].mean(axis=1)
        start = np.sum(shape * (measured[:, 0] - floor) / error**2) / np.sum((shape / error) ** 2)
        found = least_squares(lambda size: pulls(floor + size * shape, measured), [max(start, 1e-9)])
        return PowerLaw(float(found.x[0]), power, float(2 * found.cost))

    if exponent is not None:
        return best(exponent)
    return best(float(minimize_scalar(lambda power: best(power).chi2, bounds=(0.05, 6.0), method="bounded").x))
