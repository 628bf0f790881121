"""Cheaper accounts of adaptation, to set beside gains that are optimised within a network.

One gain for all neurons; gains that divide by the mean response and know of no objective; divisive normalisation whose pool
weights are tuned under the same objective, or follow co-activity; and synapses that are optimised in place of gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize, minimize_scalar

from broadsheet.errors import InputError
from broadsheet.networks.gain_control import ALPHA, BOUNDS, GAMMA, Ensemble, GainNetwork, Gains, ridge_decoder

Responses = Float[np.ndarray, "neurons stimuli"]


def uniform_gain(network: GainNetwork, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA) -> Gains:
    """One number for all gains, the one of least loss."""
    ones = np.ones(network.neurons)
    low, high = BOUNDS[0], _largest_gain(network)
    found = minimize_scalar(
        lambda c: network.loss(c * ones, p, alpha, gamma), bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    return found.x * ones


def uniform_gain_of_activity(network: GainNetwork, p: Ensemble, activity: float) -> Gains:
    """One number for all gains, the one at which the network spends this activity.

    **Raises:** `InputError` for an activity that no gain within bounds and stability spends.
    """
    ones, low, high = np.ones(network.neurons), BOUNDS[0], _largest_gain(network)

    def excess(c: float) -> float:
        return network.cost(c * ones, p).activity - activity

    if not excess(low) <= 0 <= excess(high):
        raise InputError(f"No gain from {low:g} to {high:.3g} spends an activity of {activity:g}.")
    return brentq(excess, low, high, xtol=1e-14) * ones


def _largest_gain(network: GainNetwork) -> float:
    """The upper bound of gains, or a little less than what all may be together within stability."""
    edge = np.linalg.eigvals(network.W).real.max()
    return min(BOUNDS[1], (1 - 1e-4) / edge) if edge > 0 else BOUNDS[1]


def weber_gains(network: GainNetwork, p: Ensemble, reference: Ensemble, gains: Gains) -> Gains:
    """Gains as the reciprocal of each neuron's mean response: `gains`, times its mean under `reference` over that under p.

    Nothing is optimised and nothing is free. Gains stay within the bounds of adapted ones, also where inhibition turns a mean
    response negative; where the network would leave stability all are shrunk until it does not.
    """
    responses = network.steady(gains)
    out = np.clip(gains * (responses @ reference) / (responses @ p), *BOUNDS)
    while not network.stable(out):
        out = 0.99 * out
    return out


@dataclass(frozen=True)
class Normalisation:
    """Divisive normalisation: h_is = scale F_is^n / (sigma^n + sum_j k_ij w_j F_js^n), with a weight w_j a neuron of the pool.

    **Arguments:** `F`: drives; `pool`: k, (neurons, neurons), rows that sum to 1; `sigma`, `exponent`, `scale`: the usual
    constants, shared by all neurons. On a ring of alike neurons these cannot tell a biased ensemble from a uniform one; the
    weights of the pool can.
    """

    F: Responses
    pool: Float[np.ndarray, "neurons neurons"]
    sigma: float = 0.5
    exponent: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.exponent > 0 and self.scale > 0):
            raise InputError(f"sigma = {self.sigma:g}, exponent = {self.exponent:g}, scale = {self.scale:g}; all are positive.")

    def respond(self, weights: np.ndarray | None = None) -> Responses:
        """Tuning curves at pool weights, (neurons,) or one for each pair, (neurons, neurons); by default all 1."""
        power = self.F**self.exponent
        w = np.ones(len(power)) if weights is None else weights
        return self.scale * power / (self.sigma**self.exponent + (self.pool * w) @ power)

    def adapt(self, p: Ensemble, D: np.ndarray, alpha: float = ALPHA, gamma: float = GAMMA) -> np.ndarray:
        """Weights, one a neuron, that minimise error + alpha activity + gamma |w - 1|^2: the objective of the gains."""
        power = self.F**self.exponent
        floor = self.sigma**self.exponent

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            below = floor + (self.pool * w) @ power
            h = self.scale * power / below
            missed = self.F - D @ h
            value = (p * (missed**2).sum(axis=0)).sum() + alpha * (p * (h**2).sum(axis=0)).sum()
            slope = 2 * (alpha * h - D.T @ missed) * -h / below * p
            return value + gamma * ((w - 1) ** 2).sum(), (power * (self.pool.T @ slope)).sum(axis=1) + 2 * gamma * (w - 1)

        start = np.ones(len(power))
        return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(start), options=_EXACT).x

    def co_activity(self, p: Ensemble, reference: Ensemble) -> np.ndarray:
        """Weights (neurons, neurons) that follow how strongly each pair is driven together, over the same under `reference`."""
        return ((self.F * p) @ self.F.T) / ((self.F * reference) @ self.F.T)

    def decoder(self, p: Ensemble) -> np.ndarray:
        """The linear decoder of the drives, fixed in the context of p at weights of 1."""
        return ridge_decoder(self.F, self.respond(), p)


def fit_normalisation(network: GainNetwork, p: Ensemble, exponents: tuple[float, float] = (1.0, 4.0)) -> Normalisation:
    """The normalisation that comes closest to the network's own tuning curves at gains of 1, so that both codes start alike.

    Its semi-saturation, exponent and scale are fitted; the pool takes all orientations alike, as the classical one does.
    """
    wanted, n = network.steady(), network.neurons
    pool = np.full((n, n), 1 / n)

    def made(x: np.ndarray) -> Normalisation:
        return Normalisation(network.F, pool, *(float(value) for value in np.exp(x)))

    def loss(x: np.ndarray) -> float:
        return float((p * (made(x).respond() - wanted) ** 2).sum())

    bounds = [np.log((0.05, 5.0)), np.log(exponents), np.log((0.1, 100.0))]
    found = minimize(loss, np.log([0.5, exponents[0], 3.0]), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12})
    return made(found.x)


def adapt_synapses(
    network: GainNetwork, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA, start: np.ndarray | None = None
) -> Float[np.ndarray, "neurons neurons"]:
    """Recurrent weights, all N^2 of them, that minimise error + alpha activity + gamma |W - W0|^2 at gains of 1.

    The network's own decoder stays, as it does for gains.
    """
    C = (network.F * p) @ network.F.T
    D, n = network.D, network.neurons
    Q = D.T @ D + alpha * np.eye(n)
    first = network.W if start is None else start

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W = flat.reshape(n, n)
        if np.linalg.eigvals(W).real.max() >= 1:
            return 1e6, np.zeros(n * n)
        A = np.linalg.inv(np.eye(n) - W)
        S = Q @ A @ C - D.T @ C
        value = C.trace() - ((D.T @ C) * A).sum() + (S * A).sum() + gamma * ((W - network.W) ** 2).sum()
        return value, (2 * A.T @ S @ A.T + 2 * gamma * (W - network.W)).ravel()

    return minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=_EXACT).x.reshape(n, n)


_EXACT = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 2000, "maxfun": 5000}
