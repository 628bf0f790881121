"""Generated spike trains whose couplings change with a hidden state: the paper's synthetic study, and a rat with two rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from broadsheet.recordings.sequences import with_history
from broadsheet.recordings.switching_em import Link


@dataclass(frozen=True)
class Switching:
    """A switching Poisson GLM. Rows of couplings are targets.

    - `weights`: (states, neurons, neurons); `biases`: (states, neurons); `transition`: (states, states).
    - `filter_`: (lags,) weights of the bins before, the last one first; `link`: from drive to spikes a bin.
    - `types`: (states, neurons, neurons) -1, 0, 1, where couplings are types times strengths.
    """

    weights: Float[np.ndarray, "states targets sources"]
    biases: Float[np.ndarray, "states neurons"]
    transition: Float[np.ndarray, "states states"]
    filter_: Float[np.ndarray, " lags"]
    link: Link
    types: Int[np.ndarray, "states targets sources"] | None = None

    def states(self, bins: int, trials: int, rng: np.random.Generator) -> Int[np.ndarray, "trials bins"]:
        """Paths of the chain; the first state is uniform."""
        out = np.empty((trials, bins), int)
        edges = self.transition.cumsum(axis=1)
        draws = rng.random((bins, trials))
        out[:, 0] = rng.integers(len(edges), size=trials)
        for t in range(1, bins):
            out[:, t] = np.minimum((draws[t, :, None] > edges[out[:, t - 1]]).sum(axis=1), len(edges) - 1)
        return out

    def counts(
        self, states: Int[np.ndarray, "trials bins"], rng: np.random.Generator
    ) -> Int[np.ndarray, "trials bins neurons"]:
        """Spike counts along given states."""
        trials, bins = states.shape
        lags, neurons = len(self.filter_), self.weights.shape[1]
        x = np.zeros((trials, lags + bins, neurons))
        latest_last = self.filter_[::-1]
        for t in range(bins):
            history = np.einsum("k,rkn->rn", latest_last, x[:, t : t + lags])
            drive = self.biases[states[:, t]] + np.einsum("rij,rj->ri", self.weights[states[:, t]], history)
            x[:, lags + t] = rng.poisson(np.minimum(_rate(drive, self.link), 1e4))
        return x[:, lags:].astype(int)

    def log_emissions(self, counts: np.ndarray) -> Float[np.ndarray, "bins states"]:
        """Log-likelihood of each bin (bins, neurons) in each state, plainly computed."""
        from scipy.special import gammaln

        history = with_history(counts, self.filter_)
        f = np.stack([_rate(history @ w.T + b, self.link) for w, b in zip(self.weights, self.biases, strict=True)], axis=1)
        return (counts[:, None] * np.log(f) - f - gammaln(counts[:, None] + 1.0)).sum(axis=2)


def _rate(drive: np.ndarray, link: Link) -> np.ndarray:
    if link == "exp":
        return np.exp(drive)
    return 1 / (1 + np.exp(-drive)) if link == "sigmoid" else np.logaddexp(drive, 0.0)


def exponential_filter(lags: int = 5) -> Float[np.ndarray, " lags"]:
    """`exp(-k)` for the bin k before, summing to 1."""
    weights = np.exp(-np.arange(1.0, lags + 1))
    return weights / weights.sum()


def sticky(states: int, stay: float = 0.98) -> Float[np.ndarray, "states states"]:
    """Transitions that stay with a probability, and else go to any other state alike."""
    if states == 1:
        return np.ones((1, 1))
    return np.where(np.eye(states, dtype=bool), stay, (1 - stay) / (states - 1))


def synthetic(states: int, neurons: int, rng: np.random.Generator, *, tau: float = 0.2, stay: float = 0.98) -> Switching:
    """The paper's: types of a coupling drawn around probabilities that all states share (a Dirichlet with a tenth inhibitory,
    a tenth excitatory), strengths `log(1 + 3u)` from 0 to 1.39, sigmoid rates; about half a spike a bin."""
    pi = rng.dirichlet(2 * np.array([0.1, 0.8, 0.1]), (neurons, neurons))
    noise = rng.gumbel(size=(states, neurons, neurons, 3))
    types = ((np.log(np.maximum(pi, 1e-300)) + noise) / tau).argmax(axis=-1) - 1
    strengths = np.log1p(3 * rng.random((states, neurons, neurons)))
    biases = np.broadcast_to(rng.uniform(-0.05, 0.05, neurons), (states, neurons))
    return Switching(types * strengths, biases, sticky(states, stay), exponential_filter(), "sigmoid", types)


@dataclass(frozen=True)
class RuleTask:
    """Trials of a task with two rules.

    - `counts`: (trials, bins, neurons); `states`: (trials, bins) 0 waiting, 1 running under rule one, 2 running under rule
      two, 3 reward.
    - `rules`: (trials,) 0 or 1; `start`, `choice`: (trials,) bins in which the trial begins and the choice is made; `dt`: s.
    """

    counts: Int[np.ndarray, "trials bins neurons"]
    states: Int[np.ndarray, "trials bins"]
    rules: Int[np.ndarray, " trials"]
    start: Int[np.ndarray, " trials"]
    choice: Int[np.ndarray, " trials"]
    system: Switching
    dt: float = 0.02


def rule_task(trials: int, bins: int, neurons: int, rng: np.random.Generator) -> RuleTask:
    """A stand-in for prefrontal recordings: a third of each trial waits, then the rat runs under the rule of its half of the
    session, chooses after a time that varies, and is rewarded to the end. Couplings share their types, strengths and rates
    differ."""
    base = synthetic(4, neurons, rng)
    rates = np.log(rng.uniform(0.04, 0.2, neurons))
    biases = rates + 0.6 * rng.normal(size=(4, neurons))
    system = Switching(0.8 * base.weights, biases, base.transition, base.filter_, "softplus", base.types)
    rules = (np.arange(trials) >= trials // 2).astype(int)
    start = np.full(trials, bins // 3)
    choice = start + rng.integers(bins // 6, bins // 3 + 1, trials)
    t = np.arange(bins)
    states = np.where(t < start[:, None], 0, np.where(t < choice[:, None], 1 + rules[:, None], 3))
    return RuleTask(system.counts(states, rng), states, rules, start, choice, system)
