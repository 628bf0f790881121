"""Spike-timing-dependent plasticity: pair and triplet rules on traces, with delays along axon and dendrite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from broadsheet.dynamics.delay import RingBuffer
from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError


class STDPState(NamedTuple):
    """Plastic weights, what the synapses remember of past spikes, and spikes that are on their way to them."""

    weights: Float[Array, "pre post"]
    pre: Float[Array, "2 pre"]
    post: Float[Array, "2 post"]
    axon: RingBuffer | None
    dendrite: RingBuffer | None


class STDP(System):
    """A dense plastic projection. Input: spikes (pre,) and (post,) of this step. Output: what its spikes send, (post,).

    At a postsynaptic spike a synapse grows by `a_plus r1 (1 + triplet_plus o2)`, at a presynaptic one it shrinks by
    `a_minus o1 (1 + triplet_minus r2)`, where r1, r2 (time constants `tau_plus`, `tau_x`) and o1, o2 (`tau_minus`, `tau_y`)
    are traces of earlier pre- and postsynaptic spikes (Pfister and Gerstner, 2006). Without triplet terms this is the pair
    rule. The synapse sees spikes that have travelled along axon and dendrite; where both arrive in one step, the
    postsynaptic one counts as the earlier.

    **Arguments:**

    - `weights` (pre, post), at the start.
    - `a_plus`, `a_minus`: change for a pair at no distance, in the unit of the weights.
    - `tau_plus`, `tau_minus`, `tau_x`, `tau_y`: ms.
    - `bounds`: weights stay between them. `soft=True` scales growth by the distance from the upper and decay by that from
      the lower bound (multiplicative); otherwise changes are additive and clipped.
    - `axonal`, `dendritic`: delays of the spikes that the synapse sees, in steps; its output leaves at the arrival.
    - `pairing`: `"all"` earlier spikes count, or the `"nearest"` alone (traces are set to 1, not raised by it).
    - `zero_lag`: whether a pair that meets in one step depresses.
    - `skip_silence`: whether to ask in each step for spikes, and to leave the weights alone where there are none; by default
      where there are more than 4096 weights, as for fewer to ask takes longer than to change them.
    - `dt`: ms.
    """

    weights: Float[Array, "pre post"]
    a: Float[Array, "2"] = fixed()
    triplet: Float[Array, "2"] = fixed()
    tau_pre: Float[Array, "2 1"] = fixed()
    tau_post: Float[Array, "2 1"] = fixed()
    bounds: Float[Array, "2"] = fixed()
    soft: bool = eqx.field(static=True)
    axonal: int = eqx.field(static=True)
    dendritic: int = eqx.field(static=True)
    pairing: Literal["all", "nearest"] = eqx.field(static=True)
    zero_lag: Bool[Array, ""] = fixed()
    skip_silence: bool = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, weights: Any, *, a_plus: Any = 0.01, a_minus: Any = 0.012, tau_plus: float = 20.0, tau_minus: float = 20.0,
        triplet_plus: float = 0.0, triplet_minus: float = 0.0, tau_x: float = 101.0, tau_y: float = 125.0,
        bounds: tuple[float, float] = (0.0, 1.0), soft: bool = False, axonal: int = 0, dendritic: int = 0,
        pairing: Literal["all", "nearest"] = "all", zero_lag: bool = True, skip_silence: bool | None = None, dt: float = 1.0,
    ) -> None:  # fmt: skip
        self.weights = as_array(weights)
        if self.weights.ndim != 2:
            raise InputError(f"weights have the shape {self.weights.shape}; (pre, post) is wanted.")
        times = {"tau_plus": tau_plus, "tau_minus": tau_minus, "tau_x": tau_x, "tau_y": tau_y, "dt": dt}
        for name, value in times.items():
            if not value > 0:
                raise InputError(f"{name} = {value} ms; a time above 0 is wanted.")
        if min(axonal, dendritic) < 0:
            raise InputError(f"axonal = {axonal} and dendritic = {dendritic} steps; delays are not negative.")
        if pairing not in ("all", "nearest"):
            raise InputError(f"pairing = {pairing!r}; 'all' or 'nearest' is wanted.")
        if not bounds[0] < bounds[1]:
            raise InputError(f"bounds = {bounds}; the lower one has to be below the upper one.")
        self.a, self.triplet = as_array([a_plus, a_minus]), as_array([triplet_plus, triplet_minus])
        self.tau_pre, self.tau_post = as_array([[tau_plus], [tau_x]]), as_array([[tau_minus], [tau_y]])
        self.bounds, self.soft, self.axonal, self.dendritic = as_array(bounds), soft, axonal, dendritic
        self.pairing, self.zero_lag, self.dt = pairing, jnp.asarray(zero_lag), dt
        self.skip_silence = self.weights.size > 4096 if skip_silence is None else skip_silence

    def init(self, key: PRNGKeyArray) -> STDPState:
        pre, post = (jnp.zeros(count, self.weights.dtype) for count in self.weights.shape)
        lines = [
            RingBuffer.filled(silence, delay) if delay else None
            for silence, delay in ((pre, self.axonal), (post, self.dendritic))
        ]
        return STDPState(self.weights, jnp.stack([pre, pre]), jnp.stack([post, post]), *lines)

    def step(
        self, state: STDPState, inputs: tuple[Array, Array], key: PRNGKeyArray | None = None
    ) -> tuple[STDPState, Float[Array, " post"]]:
        (pre, axon), (post, dendrite) = _arrive(state.axon, inputs[0]), _arrive(state.dendrite, inputs[1])
        before = jnp.exp(-self.dt / self.tau_pre) * state.pre
        after = jnp.exp(-self.dt / self.tau_post) * state.post
        with_post = self._remember(after, post)
        seen = jnp.where(self.zero_lag, with_post[0], after[0])

        def grown(weights: Array) -> Array:
            return self._grow(weights, before[0], post * (1 + self.triplet[0] * after[1]))

        def shrunk_and_sent(both: tuple[Array, Array]) -> tuple[Array, Array]:
            weights = self._shrink(both[0], pre * (1 + self.triplet[1] * before[1]), seen)
            return weights, pre @ weights

        weights = self._where_any(post, grown, state.weights)
        nothing = jnp.zeros(weights.shape[1], jnp.result_type(pre, weights))
        weights, sent = self._where_any(pre, shrunk_and_sent, (weights, nothing))
        return STDPState(weights, self._remember(before, pre), with_post, axon, dendrite), sent

    def consolidate(self, state: STDPState) -> STDP:
        return eqx.tree_at(lambda rule: rule.weights, self, state.weights)

    def _remember(self, trace: Array, spikes: Array) -> Array:
        return trace + spikes if self.pairing == "all" else jnp.where(spikes > 0, 1.0, trace)

    def _grow(self, weights: Array, trace: Array, post: Array) -> Array:
        step = self.a[0] * trace[:, None] * post
        return jnp.minimum(weights + (step * (self.bounds[1] - weights) if self.soft else step), self.bounds[1])

    def _shrink(self, weights: Array, pre: Array, trace: Array) -> Array:
        step = self.a[1] * pre[:, None] * trace
        return jnp.maximum(weights - (step * (weights - self.bounds[0]) if self.soft else step), self.bounds[0])

    def _where_any(self, spikes: Array, change: Callable[[Any], Any], before: Any) -> Any:
        """What is changed; where silence is skipped, as it was before in a step without spikes."""
        if not self.skip_silence:
            return change(before)
        return jax.lax.cond(jnp.any(spikes != 0), change, lambda before: before, before)


def _arrive(line: RingBuffer | None, spikes: Array) -> tuple[Array, RingBuffer | None]:
    """What has travelled the line, and the line with this step's spikes on it."""
    return (spikes, None) if line is None else (line.oldest(), line.push(spikes))
