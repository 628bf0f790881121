"""Spike-timing-dependent plasticity: the pair rule on traces, with delays along axon and dendrite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from broadsheet.dynamics.delay import RingBuffer
from broadsheet.dynamics.system import as_array, fixed
from broadsheet.errors import InputError
from broadsheet.plasticity.rule import LearningRule


class STDPState(NamedTuple):
    """Plastic weights, what the synapses remember of past spikes, and spikes that are on their way to them."""

    weights: Float[Array, "pre post"]
    pre: Float[Array, "traces pre"]
    post: Float[Array, "traces post"]
    axon: RingBuffer | None
    dendrite: RingBuffer | None


class STDP(LearningRule):
    """A dense plastic projection. Input: spikes (pre,) and (post,) of this step. Output: what its spikes send, (post,).

    At a postsynaptic spike a synapse grows by `a_plus r`, at a presynaptic one it shrinks by `a_minus o`, where r and o are
    traces of earlier pre- and postsynaptic spikes (Song, Miller and Abbott, 2000). The synapse sees spikes that have travelled
    along axon and dendrite; where both arrive in one step, the postsynaptic one counts as the earlier.

    A variant overrides `potentiation` and `depression`, and brings more traces in `tau_pre` and `tau_post`: see `Triplet`.

    **Arguments:**

    - `weights` (pre, post), at the start.
    - `a_plus`, `a_minus`: change for a pair at no distance, in the unit of the weights.
    - `tau_plus`, `tau_minus`: ms.
    - `bounds`: weights stay between them. `soft=True` scales growth by the distance from the upper and decay by that from
      the lower bound (multiplicative); otherwise changes are additive and clipped.
    - `axonal`, `dendritic`: delays of the spikes that the synapse sees, in steps; its output leaves at the arrival.
    - `pairing`: `"all"` earlier spikes count, or the `"nearest"` alone (traces are set to 1, not raised by it).
    - `zero_lag`: whether a pair that meets in one step depresses.
    - `skip_silence`: whether to ask in each step for spikes, and to leave the weights alone where there are none; by default
      where there are more than 4096 weights, as for fewer to ask takes longer than to change them.
    - `dt`: ms.

    **Example:**

        >>> from broadsheet.dynamics import rollout
        >>> rule = STDP([[0.5]], a_plus=0.01, a_minus=0.012, tau_plus=20.0)
        >>> pre, post = jnp.zeros((20, 1)).at[2].set(1.0), jnp.zeros((20, 1)).at[12].set(1.0)
        >>> state, _ = rollout(rule, (pre, post))
        >>> grown = rule.consolidate(state).weights - rule.weights
        >>> bool(jnp.isclose(grown, 0.01 * jnp.exp(-10 / 20)).all())
        True
    """

    a_plus: Array = fixed()
    a_minus: Array = fixed()
    tau_pre: Float[Array, "traces 1"] = fixed()
    tau_post: Float[Array, "traces 1"] = fixed()
    bounds: Float[Array, "2"] = fixed()
    soft: bool = eqx.field(static=True)
    axonal: int = eqx.field(static=True)
    dendritic: int = eqx.field(static=True)
    pairing: Literal["all", "nearest"] = eqx.field(static=True)
    zero_lag: Bool[Array, ""] = fixed()
    skip_silence: bool | None = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, weights: Any = None, *, a_plus: Any = 0.01, a_minus: Any = 0.012, tau_plus: float = 20.0, tau_minus: float = 20.0,
        bounds: tuple[float, float] = (0.0, 1.0), soft: bool = False, axonal: int = 0, dendritic: int = 0,
        pairing: Literal["all", "nearest"] = "all", zero_lag: bool = True, skip_silence: bool | None = None, dt: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(weights)
        above_zero(tau_plus=tau_plus, tau_minus=tau_minus, dt=dt)
        if min(axonal, dendritic) < 0:
            raise InputError(f"axonal = {axonal} and dendritic = {dendritic} steps; delays are not negative.")
        if pairing not in ("all", "nearest"):
            raise InputError(f"pairing = {pairing!r}; 'all' or 'nearest' is wanted.")
        if not bounds[0] < bounds[1]:
            raise InputError(f"bounds = {bounds}; the lower one has to be below the upper one.")
        self.a_plus, self.a_minus = as_array(a_plus), as_array(a_minus)
        self.tau_pre, self.tau_post = as_array([[tau_plus]]), as_array([[tau_minus]])
        self.bounds, self.soft, self.axonal, self.dendritic = as_array(bounds), soft, axonal, dendritic
        self.pairing, self.zero_lag, self.skip_silence, self.dt = pairing, jnp.asarray(zero_lag), skip_silence, dt

    @property
    def limits(self) -> tuple[Any, Any]:
        return self.bounds[0], self.bounds[1]

    def init(self, key: PRNGKeyArray) -> STDPState:
        weights = self.start
        pre, post = (jnp.zeros(count, weights.dtype) for count in weights.shape)
        lines = [
            RingBuffer.filled(silence, delay) if delay else None
            for silence, delay in ((pre, self.axonal), (post, self.dendritic))
        ]
        traces = (jnp.stack([pre] * len(self.tau_pre)), jnp.stack([post] * len(self.tau_post)))
        return STDPState(weights, *traces, *lines)

    def step(
        self, state: STDPState, inputs: tuple[Array, Array], key: PRNGKeyArray | None = None
    ) -> tuple[STDPState, Float[Array, " post"]]:
        (pre, axon), (post, dendrite) = _arrive(state.axon, inputs[0]), _arrive(state.dendrite, inputs[1])
        before = jnp.exp(-self.dt / self.tau_pre) * state.pre
        after = jnp.exp(-self.dt / self.tau_post) * state.post
        with_post = self._remember(after, post)
        seen = jnp.where(self.zero_lag, with_post, after)

        def grown(weights: Array) -> Array:
            step = self.potentiation(before[:, :, None], after[:, None]) * post
            return jnp.minimum(weights + (step * (self.bounds[1] - weights) if self.soft else step), self.bounds[1])

        def shrunk_and_sent(both: tuple[Array, Array]) -> tuple[Array, Array]:
            weights = both[0]
            step = self.depression(before[:, :, None], seen[:, None]) * pre[:, None]
            weights = jnp.maximum(weights - (step * (weights - self.bounds[0]) if self.soft else step), self.bounds[0])
            return weights, pre @ weights

        weights = self._where_any(post, grown, state.weights)
        nothing = jnp.zeros(weights.shape[1], jnp.result_type(pre, weights))
        weights, sent = self._where_any(pre, shrunk_and_sent, (weights, nothing))
        return STDPState(weights, self._remember(before, pre), with_post, axon, dendrite), sent

    def potentiation(self, pre: Float[Array, "_ *#shape"], post: Float[Array, "_ *#shape"]) -> Float[Array, "..."]:
        """What a postsynaptic spike adds to synapses with these traces of earlier spikes; shapes are broadcast."""
        return self.a_plus * pre[0]

    def depression(self, pre: Float[Array, "_ *#shape"], post: Float[Array, "_ *#shape"]) -> Float[Array, "..."]:
        """What a presynaptic spike takes off synapses with these traces of earlier spikes; shapes are broadcast."""
        return self.a_minus * post[0]

    def _remember(self, trace: Array, spikes: Array) -> Array:
        return trace + spikes if self.pairing == "all" else jnp.where(spikes > 0, 1.0, trace)

    def _where_any(self, spikes: Array, change: Callable[[Any], Any], before: Any) -> Any:
        """What is changed; where silence is skipped, as it was before in a step without spikes."""
        if not (self.start.size > 4096 if self.skip_silence is None else self.skip_silence):
            return change(before)
        return jax.lax.cond(jnp.any(spikes != 0), change, lambda before: before, before)


def above_zero(**times: float) -> None:
    """Raises `InputError` for a time (ms) that is not above 0, by its name."""
    for name, value in times.items():
        if not value > 0:
            raise InputError(f"{name} = {value} ms; a time above 0 is wanted.")


def _arrive(line: RingBuffer | None, spikes: Array) -> tuple[Array, RingBuffer | None]:
    """What has travelled the line, and the line with this step's spikes on it."""
    return (spikes, None) if line is None else (line.oldest(), line.push(spikes))
