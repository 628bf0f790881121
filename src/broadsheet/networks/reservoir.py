"""A reservoir of heterogeneous Izhikevich neurons, and the features that a read-out takes from its spikes."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from broadsheet.dynamics import rollout
from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.networks.projections import Dense
from broadsheet.neurons.codes import double_exponential
from broadsheet.neurons.integrate_and_fire import Izhikevich

Neurons = Float[Array, " neurons"]


class ReservoirState(NamedTuple):
    """Of the neurons (v, u), the synaptic current, and the spikes that arrive in the next step."""

    cells: tuple[Neurons, Neurons]
    current: Neurons
    spikes: Neurons


class Reservoir(System):
    """Izhikevich neurons with fixed recurrent weights, exponential synaptic currents, a bias and noise.

    Input: strength of each cue (cues,). Output: spikes (neurons,). A spike adds its weights to the currents a step later.
    With noise the rollout needs a key.

    **Arguments:** `cells`: `Izhikevich`; `weights` (post, pre); `cue` (neurons, cues); `bias` (neurons,); `tau_syn`: ms;
    `noise`: standard deviation of a current that is drawn anew each step.
    """

    cells: Izhikevich
    recurrent: Dense = fixed()
    cue: Float[Array, "neurons cues"] = fixed()
    bias: Neurons = fixed()
    tau_syn: Array = fixed()
    noise: Array = fixed()
    dt: float = eqx.field(static=True)

    def __init__(self, cells: Izhikevich, weights: Any, cue: Any, bias: Any, *, tau_syn: Any = 5.0, noise: Any = 0.2) -> None:
        self.cells, self.dt = cells, cells.dt
        self.recurrent, self.cue, self.bias = Dense(as_array(weights)), as_array(cue), as_array(bias)
        self.tau_syn, self.noise = as_array(tau_syn), as_array(noise)
        size = cells.size
        if self.weights.shape != (size, size) or self.cue.ndim != 2 or self.cue.shape[0] != size or self.bias.shape != (size,):
            raise InputError(
                f"weights are {self.weights.shape}, cue {self.cue.shape} and bias {self.bias.shape}; ({size}, {size}), "
                f"({size}, cues) and ({size},) are wanted."
            )

    @property
    def weights(self) -> Float[Array, "post pre"]:
        """The recurrent weights."""
        return self.recurrent.weights

    def init(self, key: PRNGKeyArray) -> ReservoirState:
        silence = jnp.zeros(self.cells.size)
        return ReservoirState(self.cells.init(key), silence, silence)

    def step(
        self, state: ReservoirState, inputs: Float[Array, " cues"], key: PRNGKeyArray | None = None
    ) -> tuple[ReservoirState, Neurons]:
        if key is None:
            raise InputError("A reservoir is noisy: give rollout a key.")
        current = jnp.exp(-self.dt / self.tau_syn) * state.current + self.recurrent.readout(state.spikes)
        noise = self.noise * jax.random.normal(key, (self.cells.size,))
        cells, spikes = self.cells.step(state.cells, current + self.cue @ inputs + self.bias + noise)
        return ReservoirState(cells, current, spikes), spikes


def heterogeneous_cells(
    key: PRNGKeyArray, size: int, *, excitatory: float = 0.8, substeps: int = 4, alike: bool = False
) -> Izhikevich:
    """Izhikevich's recipe of 2003 for a cortex: excitatory neurons (regular spiking to chattering), then inhibitory ones.

    Steps of 1 ms of `substeps` Euler steps each, stopped at the spike's height. `alike` gives all of a kind the parameters of
    the recipe's first cell.
    """
    r = jnp.zeros(size) if alike else jax.random.uniform(key, (size,))
    first = jnp.arange(size) < round(excitatory * size)
    return Izhikevich(
        size,
        a=jnp.where(first, 0.02, 0.02 + 0.08 * r),
        b=jnp.where(first, 0.2, 0.25 - 0.05 * r),
        c=jnp.where(first, -65.0 + 15.0 * r**2, -65.0),
        d=jnp.where(first, 8.0 - 6.0 * r**2, 2.0),
        substeps=substeps,
        cap=True,
        dt=1.0,
    )


def reservoir(
    key: PRNGKeyArray, size: int = 400, *, cues: int = 1, connection: float = 0.1, gain: float = 0.5,
    bias: tuple[float, float] = (3.0, 6.0), cue: float = 12.0, noise: float = 0.2, excitatory: float = 0.8, alike: bool = False,
) -> Reservoir:  # fmt: skip
    """A random reservoir: sparse weights from 0 to 1 (excitatory) or -2 to 0, times `gain / sqrt(connection * size)`.

    Each neuron gets each cue with probability 1/2 and a weight from 0 to `cue`, and a constant bias from an interval.
    """
    k_cells, k_weights, k_links, k_bias, k_cue, k_who = jax.random.split(key, 6)
    cells = heterogeneous_cells(k_cells, size, excitatory=excitatory, alike=alike)
    signs = jnp.where(jnp.arange(size) < round(excitatory * size), 1.0, -2.0)
    links = (jax.random.uniform(k_links, (size, size)) < connection) & ~jnp.eye(size, dtype=bool)
    weights = links * signs * jax.random.uniform(k_weights, (size, size)) * gain / jnp.sqrt(connection * size)
    strength = jax.random.uniform(k_cue, (size, cues), maxval=cue) * (jax.random.uniform(k_who, (size, cues)) < 0.5)
    return Reservoir(cells, weights, strength, jax.random.uniform(k_bias, (size,), minval=bias[0], maxval=bias[1]), noise=noise)


def cue_course(
    steps: int, which: int = 0, cues: int = 1, *, onset: int = 50, length: int = 100, tonic: float = 0.3
) -> Float[Array, "time cues"]:
    """Strength of the cues in each ms: one of them at full strength for a while, then a tonic context to the end."""
    t = jnp.arange(steps)
    strength = jnp.where(t < onset, 0.0, jnp.where(t < onset + length, 1.0, tonic))
    return strength[:, None] * (jnp.arange(cues) == which)


class Features(eqx.Module):
    """Filtered spikes less their mean over time, divided by their mean norm: without the centring all times look alike."""

    mean: Neurons
    scale: Float[Array, ""]

    @classmethod
    def of(cls, filtered: Float[Array, "trials time neurons"]) -> Features:
        """Mean and scale of some trials."""
        mean = filtered.mean(axis=(0, 1))
        return cls(mean, jnp.linalg.norm(filtered - mean, axis=-1).mean())

    def __call__(self, filtered: Float[Array, "*batch neurons"]) -> Float[Array, "*batch neurons"]:
        return (filtered - self.mean) / self.scale


@eqx.filter_jit
def trajectories(
    system: Reservoir, course: Float[Array, "time cues"], keys: Key[Array, " trials"], every: int = 1
) -> tuple[Float[Array, "trials time neurons"], Float[Array, "trials taken neurons"]]:
    """(spikes in each step, filtered spikes in each `every`-th) of trials that start from rest, with the noise of each key."""

    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        _, spikes = rollout(system, course, key=key)
        return spikes, double_exponential(spikes, dt=system.dt)[every - 1 :: every]

    return jax.vmap(one)(keys)
