"""Standard networks of excitation and inhibition, as they are used to compare simulators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from broadsheet.dynamics import System, feedback, series
from broadsheet.networks.projections import PoissonBackground, Projection
from broadsheet.neurons.integrate_and_fire import LIF, ConductanceLIF, CurrentLIF


@dataclass(frozen=True)
class Edges:
    """Synapses of a network: (synapses,) each; excitatory neurons come first."""

    pre: np.ndarray
    post: np.ndarray
    excitatory: int
    size: int

    @property
    def port(self) -> np.ndarray:
        """0 for an excitatory synapse, 1 for an inhibitory one."""
        return (self.pre >= self.excitatory).astype(int)


def random_edges(size: int, excitatory: int, probability: float, seed: int) -> Edges:
    """Each ordered pair is joined with a probability, none with itself."""
    joined = np.random.default_rng(seed).random((size, size), dtype=np.float32) < probability
    np.fill_diagonal(joined, False)
    pre, post = np.nonzero(joined)
    return Edges(pre, post, excitatory, size)


def fixed_in_degree(size: int, excitatory: int, indegrees: tuple[int, int], seed: int) -> Edges:
    """Each neuron draws so many excitatory and inhibitory sources, with repetition."""
    rng = np.random.default_rng(seed)
    sources = [rng.integers(0, excitatory, (size, indegrees[0])), rng.integers(excitatory, size, (size, indegrees[1]))]
    pre = np.concatenate(sources, axis=1)
    return Edges(pre.ravel(), np.repeat(np.arange(size), pre.shape[1]), excitatory, size)


@dataclass(frozen=True)
class Cuba:
    """Vogels and Abbott (2005) with currents, the second benchmark of Brette et al. (2007)."""

    size: int = 4000
    share: float = 0.8  # excitatory
    probability: float = 0.02
    weights: tuple[float, float] = (1.62, -9.0)  # mV
    tau: float = 20.0
    tau_syn: tuple[float, float] = (5.0, 10.0)
    rest: float = -49.0
    threshold: float = -50.0
    reset: float = -60.0
    refractory: float = 5.0
    dt: float = 0.1

    @property
    def excitatory(self) -> int:
        return round(self.share * self.size)

    def edges(self, seed: int) -> Edges:
        return random_edges(self.size, self.excitatory, self.probability, seed)

    def start(self, seed: int) -> np.ndarray:
        """Potentials at the start, even between reset and threshold."""
        return np.random.default_rng(seed).uniform(self.reset, self.threshold, self.size)

    def system(self, seed: int) -> System:
        """The network; its output are the spikes (size,)."""
        neurons = CurrentLIF(
            self.size, tau=self.tau, tau_syn=self.tau_syn, rest=self.rest, threshold=self.threshold, reset=self.reset,
            refractory=self.refractory, v0=self.start(seed), dt=self.dt,
        )  # fmt: skip
        return feedback(neurons, _two_ports(self.edges(seed), self.weights, delay=1))


@dataclass(frozen=True)
class Coba(Cuba):
    """Vogels and Abbott (2005) with conductances, the first benchmark of Brette et al. (2007); weights relative to the leak."""

    weights: tuple[float, float] = (0.6, 6.7)
    rest: float = -60.0
    reversal: tuple[float, float] = (0.0, -80.0)

    def start(self, seed: int) -> np.ndarray:
        """Potentials at the start, about 5 mV below rest."""
        return self.rest - 5 + 5 * np.random.default_rng(seed).standard_normal(self.size)

    def conductances(self, seed: int) -> np.ndarray:
        """Conductances at the start (2, size), which set the activity going."""
        rng = np.random.default_rng([seed, 1])
        return np.maximum(0, np.array([[4.0], [20.0]]) + np.array([[1.5], [12.0]]) * rng.standard_normal((2, self.size)))

    def system(self, seed: int) -> System:
        neurons = ConductanceLIF(
            self.size, tau=self.tau, tau_syn=self.tau_syn, rest=self.rest, threshold=self.threshold, reset=self.reset,
            refractory=self.refractory, reversal=self.reversal, v0=self.start(seed), g0=self.conductances(seed), dt=self.dt,
        )  # fmt: skip
        return feedback(neurons, _two_ports(self.edges(seed), self.weights, delay=1))


@dataclass(frozen=True)
class Brunel:
    """Brunel (2000), model A: sparse random connections, delta synapses, a Poisson background; asynchronous irregular state."""

    excitatory: int = 10_000
    inhibitory: int = 2500
    share: float = 0.1  # of sources that reach a neuron
    weight: float = 0.1  # mV
    g: float = 5.0  # inhibition over excitation
    eta: float = 2.0  # background over what takes a neuron to threshold
    tau: float = 20.0
    threshold: float = 20.0
    reset: float = 10.0
    refractory: float = 2.0
    delay: float = 1.5
    dt: float = 0.1

    @property
    def size(self) -> int:
        return self.excitatory + self.inhibitory

    @property
    def background(self) -> float:
        """Spikes a ms that each neuron gets from outside."""
        return self.eta * self.threshold / (self.weight * self.tau)

    def edges(self, seed: int) -> Edges:
        degrees = (round(self.share * self.excitatory), round(self.share * self.inhibitory))
        return fixed_in_degree(self.size, self.excitatory, degrees, seed)

    def system(self, seed: int) -> System:
        """The network; its output are the spikes (size,). It draws random numbers: give `rollout` a key."""
        edges, delay = self.edges(seed), round(self.delay / self.dt)
        weights = np.where(edges.port == 0, self.weight, -self.g * self.weight)
        projection = Projection.from_pairs(edges.pre, edges.post, weights, size=self.size, out=(self.size,), delay=delay)
        neurons = LIF(
            self.size,
            tau=self.tau,
            rest=0.0,
            threshold=self.threshold,
            reset=self.reset,
            refractory=self.refractory,
            dt=self.dt,
        )
        outside = PoissonBackground(self.size, self.background * self.dt, self.weight)
        return feedback(series(outside, neurons), projection)


def _two_ports(edges: Edges, weights: tuple[float, float], delay: int) -> Projection:
    """A projection onto excitatory and inhibitory synapses, (2, size)."""
    post = edges.port * edges.size + edges.post
    strength = np.asarray(weights)[edges.port]
    return Projection.from_pairs(edges.pre, post, strength, size=edges.size, out=(2, edges.size), delay=delay)
