"""Layers of spiking networks: weights onto neurons, fixed, trained or plastic, and read-outs of what the neurons fire.

Spiking networks of several kinds are put together from these: `SNNClassifier` of one layer, `ContinualClassifier` of many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.rollout import rollout
from broadsheet.dynamics.system import State, System, split
from broadsheet.errors import CompositionError
from broadsheet.networks.nir_graph import Chain, Graph, reset_of
from broadsheet.neurons.codes import spike_count
from broadsheet.neurons.integrate_and_fire import LIF, Membrane
from broadsheet.neurons.intrinsics import Intrinsic
from broadsheet.plasticity.rule import LearningRule

Patterns = Float[Array, "samples time inputs"]
Train = Float[Array, "time batch neurons"]


class SpikingLayer(System):
    """Weights onto neurons, behind synapses that may fail: spikes (inputs,) to spikes (neurons,)."""

    weights: eqx.nn.Linear
    neurons: Any  # a system
    release: System | None = None

    def init(self, key: PRNGKeyArray) -> State:
        return self.neurons.init(key)

    def step(
        self, state: State, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[State, Float[Array, " neurons"]]:
        released, fired = split(key, 2)
        if self.release is not None:
            _, inputs = self.release.step(None, inputs, released)
        return self.neurons.step(state, self.weights(inputs), fired)


class PlasticState(NamedTuple):
    """Of the learning rule, weights among it, and of the neurons."""

    rule: Any
    neurons: Any


class PlasticLayer(System):
    """Weights that learn while they drive neurons: spikes (inputs,) to spikes (neurons,), of which the rule sees both.

    The drive is `gain` times the weights, as they were before the step, of the inputs that spike, and a `bias` (neurons,).
    """

    rule: LearningRule
    neurons: Any  # a system
    bias: Float[Array, " neurons"]
    gain: Array

    def init(self, key: PRNGKeyArray) -> PlasticState:
        return PlasticState(self.rule.init(key), self.neurons.init(key))

    def step(
        self, state: PlasticState, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[PlasticState, Float[Array, " neurons"]]:
        drive = self.gain * inputs @ self.rule.learned(state.rule) + self.bias
        neurons, fired = self.neurons.step(state.neurons, drive, key)
        rule, _ = self.rule.step(state.rule, (inputs, fired))
        return PlasticState(rule, neurons), fired

    def consolidate(self, state: PlasticState) -> PlasticLayer:
        return eqx.tree_at(lambda layer: layer.rule, self, self.rule.consolidate(state.rule))


class SNN(eqx.Module):
    """A spiking layer whose spikes are counted, and a linear read-out of the counts."""

    hidden: Any  # a system: SpikingLayer, or neurons that have their weights
    head: eqx.nn.Linear
    scale: float = eqx.field(static=True, default=10.0)

    def spikes(self, X: Patterns, key: PRNGKeyArray) -> Float[Array, "samples time neurons"]:
        """Spikes of the hidden layer."""
        return jax.vmap(lambda x, k: rollout(self.hidden, x, key=k)[1])(X, jax.random.split(key, X.shape[0]))

    def logits(self, X: Patterns, key: PRNGKeyArray) -> Float[Array, "samples classes"]:
        """Read-out of the counts, each divided by `scale`."""
        return jax.vmap(self.head)(jax.vmap(spike_count)(self.spikes(X, key)) / self.scale)

    def nir_graph(self, nir: Any) -> Graph:
        """Nodes, edges and note for `broadsheet.networks.to_nir`: its output at the last step of a pattern are the logits.

        Raises `CompositionError` for neurons or synapses that NIR has no word for.
        """
        layer = self.hidden
        if not isinstance(layer, SpikingLayer) or layer.release is not None:
            raise CompositionError("NIR has synapses that always transmit; these fail at random.")
        cell = layer.neurons.built() if isinstance(layer.neurons, Intrinsic) else layer.neurons
        if not isinstance(cell, LIF):
            raise CompositionError(f"NIR has no {type(cell).__name__}.")
        chain = Chain(nir, (layer.weights.weight.shape[1],))
        chain.linear("weights", layer.weights.weight, layer.weights.bias)
        chain.spiking("neurons", cell)
        per_spike = jnp.full(cell.size, 1000 / (cell.dt * self.scale))
        chain.add("counts", nir.I(r=jax.device_get(per_spike)))
        chain.linear("head", self.head.weight, self.head.bias)
        return chain.graph((self.head.weight.shape[0],), reset=reset_of(cell))


def linear(weights: Float[Array, "outputs inputs"], bias: Float[Array, " outputs"]) -> eqx.nn.Linear:
    """A linear map with these numbers."""
    blank = eqx.nn.Linear(weights.shape[1], weights.shape[0], key=jax.random.key(0))
    return eqx.tree_at(lambda one: (one.weight, one.bias), blank, (weights, bias))


def fire(cell: System, drive: Train) -> Train:
    """Spikes of a layer under a drive, example by example."""
    return jax.vmap(lambda one: rollout(cell, one, unroll=min(len(drive), 20))[1], in_axes=1, out_axes=1)(drive)


def fire_online(cell: LIF, drive: Train) -> Train:
    """The same spikes, whose derivative is that by the present input alone: none flows back through the membrane's past."""

    def one(drive: Array) -> Array:
        def step(state: Membrane, x: Array) -> tuple[Membrane, Array]:
            return cell.step(jax.tree.map(jax.lax.stop_gradient, state), x)

        return jax.lax.scan(step, cell.at_rest(), drive, unroll=min(len(drive), 20))[1]

    return jax.vmap(one, in_axes=1, out_axes=1)(drive)


def cross_entropy(logits: Float[Array, "samples classes"], y: Array, allowed: Array | None = None) -> Float[Array, ""]:
    """Mean cross-entropy of answers with their labels, among the classes that are allowed."""
    among = logits if allowed is None else jnp.where(allowed, logits, -1e9)
    return optax.softmax_cross_entropy_with_integer_labels(among, y).mean()
