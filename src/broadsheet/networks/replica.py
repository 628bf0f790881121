"""Replica-symmetric theory of dense Hebbian memories: order parameters, pressure, capacities and phase diagrams.

Energies as in `broadsheet.networks.dense_memory`: couplings of `order` (P) distinct neurons, `load` alpha = K / N^(P-1),
`temperature` T' = P! / (2 beta), and `rho`, the entropy (1 - r²) / (M r²) of M examples of quality r. The order parameters are
m, the overlap with the archetype, n, that with its examples, and q, between replicas:

    g = kappa (1 + sqrt(rho) z1) + sqrt(V) z2 / T'
    kappa = (P/2) (1 + rho)^(P/2 - 1) n^(P-1) / T',   V = (alpha P P! / 4) q^(P-1)
    m = E tanh g,   q = E tanh² g,   (1 + rho) n = m + rho kappa (1 - q)

with standard normal z. Derived after the idea of arXiv 2212.00606, whose text we had not; the formulas are for P > 2 (at 2 the
interference has a further factor).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq, minimize_scalar
from scipy.special import erf
from scipy.stats import binom

from broadsheet.errors import InputError

PHASES = ("ergodic", "spin glass", "retrieval, metastable", "retrieval, stable")
"""What the numbers of a `PhaseDiagram` stand for."""


class RSState(NamedTuple):
    """Order parameters of one branch and its pressure a spin (NaN at temperature 0)."""

    m: float
    n: float
    q: float
    pressure: float


class PhaseDiagram(NamedTuple):
    """Phases on a grid, and the lines between them as loads, one a temperature (NaN where there is none).

    `spinodal`: retrieval exists below it; `stable`: it has the larger pressure below it; `glass`: the glass replaces the
    ergodic phase above it.
    """

    temperatures: Float[np.ndarray, " temperatures"]
    loads: Float[np.ndarray, " loads"]
    phase: Int[np.ndarray, "temperatures loads"]
    spinodal: Float[np.ndarray, " temperatures"]
    stable: Float[np.ndarray, " temperatures"]
    glass: Float[np.ndarray, " temperatures"]


def check_order(order: int, least: int = 3) -> None:
    """Raises `InputError` where the order of the interaction is not a whole number from `least` on."""
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < least:
        raise InputError(f"order is {order!r}; a whole number from {least} on is wanted.")


def dataset_entropy(quality: float, examples: int) -> float:
    """rho = (1 - r²) / (M r²), 0 for perfect data."""
    if not 0 < quality <= 1 or examples < 1:
        raise InputError(
            f"quality is {quality} and examples {examples}; a quality in (0, 1] and at least one example are wanted."
        )
    return (1 - quality**2) / (examples * quality**2)


def effective_load(order: int, load: float, *, neurons: int, exponent: float | None = None, omega: float = 0.0) -> float:
    """Load that acts like K = load N^exponent archetypes of which each leaves Gaussian noise of deviation `omega` in every
    coupling; without an exponent K = load N^(P-1)."""
    exponent = order - 1 if exponent is None else exponent
    return load * (1 + omega**2) * neurons ** (exponent - order + 1)


def snr(order: int, load: float, *, neurons: int, rho: float = 0.0, exponent: float | None = None, omega: float = 0.0) -> float:
    """Overlap with the archetype after one parallel step without thermal noise that begins on it, for Gaussian averages."""
    interference = math.factorial(order - 1) * effective_load(order, load, neurons=neurons, exponent=exponent, omega=omega)
    variance = rho + interference * (1 + rho) ** order
    return float(erf(1 / np.sqrt(2 * variance))) if variance else 1.0


def snr_binomial(order: int, load: float, *, quality: float, examples: int) -> float:
    """The same for K = load N^(P-1), averaged exactly over the M + 1 values that the mean of M examples takes."""
    rho = dataset_entropy(quality, examples)
    flips = np.arange(examples + 1)
    signal = (2 * flips - examples) / examples / (quality * np.sqrt(1 + rho)) * (1 + rho) ** (-(order - 1) / 2)
    noise = np.sqrt(2 * math.factorial(order - 1) * load)
    step = erf(signal / noise) if noise else np.sign(signal)
    return float(np.sum(binom.pmf(flips, examples, (1 + quality) / 2) * step))


def examples_needed(order: int, load: float, quality: float, overlap: float) -> float:
    """Examples from which on one step keeps `overlap` (`snr` at K = load N^(P-1)); infinite where no number does."""
    from scipy.special import erfinv

    wanted = 1 / (2 * erfinv(overlap) ** 2)
    interference = math.factorial(order - 1) * load
    if interference >= wanted:
        return math.inf
    if quality == 1:
        return 1.0
    largest = brentq(lambda rho: rho + interference * (1 + rho) ** order - wanted, 0.0, wanted)
    return (1 - quality**2) / (quality**2 * largest)


def rs_pressure(n: Any, q: Any, order: int, load: float, rho: float, temperature: float) -> Any:
    """Pressure a spin at any n and q. Its derivatives vanish at the order parameters; takes JAX numbers too, for these."""
    xp = jnp if isinstance(n, jax.Array) or isinstance(q, jax.Array) else np
    beta, noise = 1 / temperature, math.factorial(order) * load
    kappa = beta * (order / 2) * (1 + rho) ** (order / 2 - 1) * n ** (order - 1)
    spread = xp.sqrt(rho * kappa**2 + beta**2 * (order / 4) * noise * q ** (order - 1))
    largest = 12.0 if xp is jnp else float(np.max(spread))
    z, weights = _nodes(_steps(largest))
    g = xp.abs(xp.asarray(kappa)[..., None] + xp.asarray(spread)[..., None] * z)
    entropic = (g + xp.log1p(xp.exp(-2 * g))) @ weights
    interference = beta**2 * noise / 8 * (1 - order * q ** (order - 1) + (order - 1) * q**order)
    return entropic + interference - beta * (order - 1) / 2 * (1 + rho) ** (order / 2) * n**order


def rs_solve(
    order: int, load: float, rho: float = 0.0, temperature: float = 0.0, branch: Literal["retrieval", "glass"] = "retrieval"
) -> RSState:
    """The order parameters of a branch; `temperature` 0 by the formulas of that limit.

    Without retrieval it is the glass, and without a glass the ergodic phase (all 0). A root of the solutions' explicit form,
    since the usual iteration oscillates away from some solutions of noisy data.

    **Raises:** `InputError` for an order below 3, a load, rho or temperature below 0.
    """
    _check(order, load, rho, temperature)
    end, last = _spinodal(order, float(rho), float(temperature))
    if branch == "retrieval" and load < end:
        n, q = _on_curve(order, load, rho, temperature, last)
    else:
        n, q = 0.0, _glass_overlap(order, load, temperature)
    m = 0.0
    for _ in range(60 if n else 0):
        m, new_n, new_q = _update(n, q, order, load, rho, temperature)
        moved = max(abs(new_n - n), abs(new_q - q))
        n, q = new_n, new_q
        if moved < 1e-15:
            break
    pressure = float(rs_pressure(n, q, order, load, rho, temperature)) if temperature else math.nan
    return RSState(float(m), float(n), float(q), pressure)


def _on_curve(order: int, load: float, rho: float, temperature: float, last: float) -> tuple[float, float]:
    """n and q of the retrieval solution at a load, between the end of the branch and the load 0."""
    if temperature:
        n = brentq(lambda n: float(_load(n, order, rho, temperature)[0]) - load, last, 1.0, xtol=1e-15)
        return n, float(_load(n, order, rho, temperature)[1])
    if not load and not rho:
        return 1.0, 1.0
    ratio = 1 / math.sqrt(2 * rho) if rho else 1 / math.sqrt(2 * math.factorial(order - 1) * load)
    if load:
        most = ratio * (1 + 1e-9)  # beyond the ratio at this load, whatever is rounded
        ratio = brentq(lambda each: float(_ground_load(np.array(each), order, rho)) - load, last, most, xtol=1e-15)
    return float(_ground_overlap(np.array(ratio), rho)), 1.0


def _glass_overlap(order: int, load: float, temperature: float) -> float:
    """q of the glass; 0 where there is none."""
    if not temperature:
        return float(load > 0)
    scaled, onset = load / temperature**2, _glass_lines(order)[0]
    return float(_moments(0.0, _glass_spread(order, scaled))[1]) if scaled >= onset else 0.0


def _update(n: float, q: float, order: int, load: float, rho: float, temperature: float) -> tuple[float, float, float]:
    field = (order / 2) * (1 + rho) ** (order / 2 - 1) * n ** (order - 1)
    variance = rho * field**2 + load * order * math.factorial(order) / 4 * q ** (order - 1)
    if temperature:
        m, q = (float(each) for each in _moments(field / temperature, math.sqrt(variance) / temperature))
        return m, (m + rho * field / temperature * (1 - q)) / (1 + rho), q
    if not variance:
        return float(field > 0), float(field > 0) / (1 + rho), 1.0
    ratio = np.array(field / math.sqrt(2 * variance))
    return float(erf(ratio)), float(_ground_overlap(ratio, rho)), 1.0


def alpha_c(order: int, rho: float = 0.0, temperature: float = 0.0) -> float:
    """The largest load at which a retrieval solution exists (the spinodal); 0 above the highest temperature of retrieval.

    By the solutions' explicit form, not by bisection: at temperature 0 they are numbered by the ratio of signal to noise, above
    it by n.
    """
    _check(order, 0.0, rho, temperature)
    return _spinodal(order, float(rho), float(temperature))[0]


@lru_cache(maxsize=4096)
def _spinodal(order: int, rho: float, temperature: float) -> tuple[float, float]:
    """Load and n at the end of the retrieval branch; (0, NaN) where there is none."""
    if temperature == 0:
        largest = 1 / math.sqrt(2 * rho) if rho else 6.0
        grid = np.linspace(0, min(largest, 6.0), 402)[1:]
        return _largest(lambda ratio: _ground_load(ratio, order, rho), grid)
    grid = np.linspace(0, 1.0, 402)[1:]
    return _largest(lambda n: _load(n, order, rho, temperature)[0], grid)


def _largest(function: Callable[[Any], Any], grid: np.ndarray) -> tuple[float, float]:
    """The last maximum of a function of an array, and where it is; (0, NaN) where it is nowhere above 0.

    Others lie on branches of small q, which nothing joins to the retrieval of few archetypes.
    """
    values = function(grid)
    if not np.max(values) > 0:
        return 0.0, math.nan
    rises = np.flatnonzero((values[:-1] < values[1:]) & (values[1:] > 0))
    best = int(rises[-1]) + 1 if len(rises) else 0
    ends = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(lambda at: -float(function(np.array([at]))[0]), bounds=ends, method="bounded",
                            options={"xatol": 1e-12})  # fmt: skip
    return max((float(-found.fun), float(found.x)), (float(values[best]), float(grid[best])))


def _ground_load(ratio: Any, order: int, rho: float) -> Any:
    """Load at temperature 0 whose solution has this ratio of signal to sqrt(2) times the noise."""
    field = (order / 2) * (1 + rho) ** (order / 2 - 1) * _ground_overlap(ratio, rho) ** (order - 1)
    return 4 * field**2 * (1 / (2 * ratio**2) - rho) / (order * math.factorial(order))


def _ground_overlap(ratio: Any, rho: float) -> Any:
    """n at temperature 0."""
    return (erf(ratio) + rho * 2 * ratio / np.sqrt(np.pi) * np.exp(-(ratio**2))) / (1 + rho)


def _load(n: Any, order: int, rho: float, temperature: float) -> tuple[Any, Any]:
    """Load and q of the retrieval solution with this n; the load is -1 where there is none."""
    n = np.asarray(n, float)
    kappa = (order / 2) * (1 + rho) ** (order / 2 - 1) * n ** (order - 1) / temperature

    def excess(spread: Any) -> Any:
        m, q = _moments(kappa, spread)
        return m + rho * kappa * (1 - q) - (1 + rho) * n

    low, high = math.sqrt(rho) * kappa, kappa / n + 1e-12
    exists = excess(low) >= 0
    for _ in range(56):  # excess falls with the spread
        middle = (low + high) / 2
        above = excess(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    q = _moments(kappa, low)[1]
    noise = temperature**2 * (low**2 - rho * kappa**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(exists, 4 * noise / (order * math.factorial(order) * q ** (order - 1)), -1.0), q


def highest_temperature(order: int) -> float:
    """Temperature above which one archetype without noise is not retrieved: max over x of (P/2) tanh(x)^(P-1) / x."""
    check_order(order)
    return _largest(lambda x: (order / 2) * np.tanh(x) ** (order - 1) / x, np.linspace(0.01, 12, 400))[0]


def glass_onset(order: int) -> tuple[float, float]:
    """load / temperature² from which a glass solution exists, and from which the glass replaces the ergodic phase.

    Of the two solutions in q the one of smaller pressure counts: both bound the pressure from above (Guerra). With replica
    symmetry broken the second line lies lower still.
    """
    check_order(order)
    return _glass_lines(order)[:2]


@lru_cache(maxsize=64)
def _glass_lines(order: int) -> tuple[float, float, float]:
    """The two lines, and the spread at which the solution begins."""
    found = minimize_scalar(lambda spread: _glass_load(spread, order), bounds=(0.1, 20.0), method="bounded",
                            options={"xatol": 1e-12})  # fmt: skip
    begins = float(found.x)
    crossing = brentq(lambda spread: _glass_gain(spread, order), begins, 50.0, xtol=1e-12)
    return float(found.fun), _glass_load(crossing, order), begins


def _glass_load(spread: float, order: int) -> float:
    """load / temperature² of the glass whose fields over temperature have this deviation."""
    q = float(_moments(0.0, spread)[1])
    return 4 * spread**2 / (order * math.factorial(order) * q ** (order - 1))


def _glass_gain(spread: float, order: int) -> float:
    """Its pressure less that of the ergodic phase."""
    q, scaled = float(_moments(0.0, spread)[1]), _glass_load(spread, order)
    return float(rs_pressure(0.0, q, order, scaled, 0.0, 1.0)) - float(rs_pressure(0.0, 0.0, order, scaled, 0.0, 1.0))


def _disordered(order: int, load: float, temperature: float) -> float:
    """Pressure without retrieval: of the ergodic phase, or of the glass where that is lower."""
    ergodic = float(rs_pressure(0.0, 0.0, order, load, 0.0, temperature))
    scaled, (_, static, _) = load / temperature**2, _glass_lines(order)
    if scaled <= static:
        return ergodic
    return ergodic + _glass_gain(_glass_spread(order, scaled), order)


def _glass_spread(order: int, scaled: float) -> float:
    """Deviation of the fields over temperature at load / temperature², on the branch of larger q."""
    low = high = _glass_lines(order)[2]
    while _glass_load(high, order) < scaled:
        high *= 2
    return low if high == low else brentq(lambda spread: _glass_load(spread, order) - scaled, low, high, xtol=1e-12)


def retrieval_limit(order: int, rho: float, temperature: float) -> float:
    """The load below which retrieval has the larger pressure; 0 where it never has, at most `alpha_c`."""
    _check(order, 0.0, rho, temperature)
    if temperature == 0:
        raise InputError("temperature is 0, where the pressure diverges; a temperature above 0 is wanted.")
    end, last = _spinodal(order, float(rho), float(temperature))
    if not end:
        return 0.0

    def gain(n: float) -> float:
        load, q = (float(each) for each in _load(n, order, rho, temperature))
        return float(rs_pressure(n, q, order, max(load, 0.0), rho, temperature)) - _disordered(
            order, max(load, 0.0), temperature
        )

    if gain(last) >= 0:
        return end
    whole = rs_solve(order, 0.0, rho, temperature).n
    if gain(whole) <= 0:
        return 0.0
    return float(_load(brentq(gain, last, whole, xtol=1e-12), order, rho, temperature)[0])


def phase_diagram(order: int, rho: float, temperatures: Any, loads: Any) -> PhaseDiagram:
    """Which phase each pair of temperature (above 0) and load is in, with the lines between."""
    temperatures, loads = np.asarray(temperatures, float), np.asarray(loads, float)
    if not np.all(temperatures > 0) or not np.all(loads >= 0):
        raise InputError("Temperatures of a phase diagram must be above 0 and loads at least 0.")
    spinodal = np.array([alpha_c(order, rho, each) for each in temperatures])
    stable = np.array([retrieval_limit(order, rho, each) for each in temperatures])
    glass = glass_onset(order)[1] * temperatures**2
    phase = np.where(loads >= glass[:, None], 1, 0)
    phase = np.where(loads < spinodal[:, None], 2, phase)
    phase = np.where(loads < stable[:, None], 3, phase)
    gone = np.where(spinodal > 0, 1.0, np.nan)
    return PhaseDiagram(temperatures, loads, phase, spinodal * gone, stable * gone, glass)


def _moments(signal: Any, spread: Any) -> tuple[Any, Any]:
    """E tanh and E tanh² of signal + spread z, on nodes that are dense enough for rounding error at this spread."""
    z, weights = _nodes(_steps(float(np.max(spread))))
    g = np.tanh(np.asarray(signal, float)[..., None] + np.asarray(spread, float)[..., None] * z)
    return g @ weights, g**2 @ weights


def _steps(spread: float) -> int:
    """Nodes a side: the trapezoidal rule's error falls as exp(-pi² / (spread step)), for tanh's poles."""
    wanted = min(0.4, 0.27 / max(spread, 1e-9))
    return 2 ** math.ceil(math.log2(min(9.5 / wanted, 2**17)))


@lru_cache(maxsize=32)
def _nodes(steps: int) -> tuple[np.ndarray, np.ndarray]:
    z = np.linspace(-9.5, 9.5, 2 * steps + 1)
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


def _check(order: int, load: float, rho: float, temperature: float) -> None:
    check_order(order)
    for name, value in (("load", load), ("rho", rho), ("temperature", temperature)):
        if not (value >= 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}; a number from 0 on is wanted.")
