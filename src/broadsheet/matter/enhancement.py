"""How much an attraction in the final state raises a production rate, by formulas that know little of it.

Factors that multiply a rate that was computed without the interaction: `|psi(0)|²`, or what a scattering length says.
"""

from __future__ import annotations

import numpy as np

from broadsheet.matter.charmonium import HBARC
from broadsheet.matter.lippmann_schwinger import LippmannSchwinger


def zero_range_factor(pair: LippmannSchwinger, k: np.ndarray) -> np.ndarray:
    """`1 / |1 + i k a|²` at momenta `k`, GeV: the scattering length alone."""
    return 1 / (1 + (k * pair.scattering_length() / HBARC) ** 2)


def effective_range(pair: LippmannSchwinger, k: float = 0.02) -> float:
    """Effective range, GeV⁻¹, of the S wave, from the phase shift at a small momentum, GeV."""
    a = pair.scattering_length() / HBARC
    return 2 * (k / np.tan(pair.phase(float(pair.body.energy(k)))) + 1 / a) / k**2


def effective_range_factor(pair: LippmannSchwinger, k: np.ndarray) -> np.ndarray:
    """`1 / |Jost function|²` of a potential without bound state that has the pair's scattering length and effective range.

    Bargmann's potential: `(k² + beta²) / (k² + alpha²)`, with -1/a + r k²/2 for k cot(delta). For attraction (a < 0, r > 0).
    """
    a, r = abs(pair.scattering_length()) / HBARC, effective_range(pair)
    root = np.sqrt(1 + 2 * r / a)
    return (k**2 + ((1 + root) / r) ** 2) / (k**2 + ((1 - root) / r) ** 2)


def sommerfeld_factor(strength: float, mass: float, k: np.ndarray) -> np.ndarray:
    """`x / (1 - exp(-x))`, `x = 2π strength mass / k`: the potential `-strength / r`, of no range; reduced `mass`, GeV."""
    x = 2 * np.pi * strength * mass / k
    return x / -np.expm1(-x)
