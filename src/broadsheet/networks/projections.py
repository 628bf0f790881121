"""Projections between populations: sparse and event-driven, dense, of synapses that are alike, and a Poisson background."""

from __future__ import annotations

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.delay import RingBuffer
from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.networks.spikes import for_each_spike, pack


class Projection(System):
    """A sparse projection with one delay; only the rows of neurons that fire are read.

    Input: spikes (pre,). Output: what arrives in this step, of the shape `out`: (post,), or (ports, post) where synapses
    of several kinds reach the same neurons. Work a step is the number of spikes times the largest fan-out. A Moore system:
    it closes loops. Forward only: spikes carry no derivative through it; train with `Dense`.

    **Arguments:** `targets` (pre, fan-out): flat indices into `out`, padded with its size; `weights`: of the shape of
    `targets`, or (pre, 1) where a neuron's synapses are alike; `out`: shape of the output; `delay`: steps, at least 1.
    """

    targets: Int[Array, "pre fan_out"] = fixed()
    weights: Float[Array, "pre _"]
    out: tuple[int, ...] = eqx.field(static=True)
    delay: int = eqx.field(static=True)

    def __init__(self, targets: Any, weights: Any, out: tuple[int, ...], *, delay: int = 1) -> None:
        self.targets = jnp.asarray(targets, jnp.int32)
        self.weights = as_array(weights)
        self.out, self.delay = tuple(out), delay
        if delay < 1:
            raise InputError(f"delay = {delay} steps; a projection has at least 1.")
        if self.weights.shape not in (self.targets.shape, (self.targets.shape[0], 1)):
            raise InputError(
                f"weights are {self.weights.shape}; {self.targets.shape} or ({self.targets.shape[0]}, 1) is wanted."
            )
        if self.targets.size and not 0 <= int(self.targets.min()) <= int(self.targets.max()) <= np.prod(out):
            raise InputError(f"targets must lie between 0 and {np.prod(out)}, the padding.")

    @classmethod
    def from_pairs(cls, pre: Any, post: Any, weights: Any, *, size: int, out: tuple[int, ...], delay: int = 1) -> Projection:
        """From synapses in any order: `pre`, `post` (flat indices into `out`) and `weights`, each (synapses,).

        `size`: presynaptic neurons. Synapses between the same two neurons add up. Where all synapses of each neuron are
        alike, one weight a neuron is kept.
        """
        pre, post = (np.asarray(each, None if np.size(each) else int) for each in (pre, post))  # no synapses are no floats
        if pre.shape != post.shape or pre.ndim != 1:
            raise InputError(f"pre is {pre.shape} and post {post.shape}; (synapses,) of both is wanted.")
        if pre.size and not 0 <= pre.min() <= pre.max() < size:
            raise InputError(f"pre must lie between 0 and {size - 1}.")
        order = np.lexsort((post, pre))
        counts = np.bincount(pre, minlength=size)
        place = np.arange(len(pre)) - np.repeat(np.cumsum(counts) - counts, counts)
        targets = np.full((size, max(1, int(counts.max(initial=0)))), int(np.prod(out)), np.int32)
        targets[pre[order], place] = post[order]
        strength = np.zeros(targets.shape)
        strength[pre[order], place] = np.broadcast_to(weights, pre.shape)[order]
        alike = np.all((strength == strength[:, :1]) | (targets == np.prod(out)), axis=1).all()
        return cls(targets, strength[:, :1] if alike else strength, out, delay=delay)

    def init(self, key: PRNGKeyArray) -> RingBuffer:
        return RingBuffer.filled(jnp.zeros(-(-self.targets.shape[0] // 32), jnp.uint32), self.delay)

    def step(
        self, state: RingBuffer, inputs: Float[Array, " pre"], key: PRNGKeyArray | None = None
    ) -> tuple[RingBuffer, Array]:
        return state.push(pack(inputs)), self.readout(state)

    def readout(self, state: RingBuffer) -> Array:
        def deliver(neuron: Array, arriving: Array) -> Array:
            return arriving.at[self.targets[neuron]].add(self.weights[neuron], mode="promise_in_bounds")

        size = int(np.prod(self.out))
        empty = jnp.zeros(size + 1, self.weights.dtype)  # the last place takes the padding
        return for_each_spike(state.oldest(), deliver, empty)[:size].reshape(self.out)


Late = RingBuffer | Array
"""Spikes on their way: those of the last step where the delay is one, else a buffer."""


def _silence(spikes: Float[Array, " pre"], delay: int) -> Late:
    return spikes if delay == 1 else RingBuffer.filled(spikes, delay)


def _after(state: Late, spikes: Float[Array, " pre"]) -> Late:
    return state.push(spikes) if isinstance(state, RingBuffer) else spikes


def _arriving(state: Late) -> Float[Array, " pre"]:
    return state.oldest() if isinstance(state, RingBuffer) else state


@jax.custom_jvp
def _product(weights: Float[Array, "post pre"], spikes: Float[Array, " pre"]) -> Float[Array, " post"]:
    return weights @ spikes


@_product.defjvp
def _product_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (weights, spikes), (turn_weights, turn_spikes) = primals, tangents
    columns = weights.T  # a copy, made once before a scan, of which the backward pass reads rows
    turn = jax.lax.dot_general(columns, turn_spikes, (((0,), (0,)), ((), ())))
    return _product(weights, spikes), turn + turn_weights @ spikes


class Dense(System):
    """A dense projection with one delay: (pre,) to (post,); derivatives go through it.

    **Arguments:** `weights` (post, pre); `delay`: steps, at least 1.
    """

    weights: Float[Array, "post pre"]
    delay: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        if self.delay < 1:
            raise InputError(f"delay = {self.delay} steps; a projection has at least 1.")

    def init(self, key: PRNGKeyArray) -> Late:
        return _silence(jnp.zeros(self.weights.shape[1], self.weights.dtype), self.delay)

    def step(
        self, state: Late, inputs: Float[Array, " pre"], key: PRNGKeyArray | None = None
    ) -> tuple[Late, Float[Array, " post"]]:
        return _after(state, inputs), self.readout(state)

    def readout(self, state: Late) -> Float[Array, " post"]:
        return _product(self.weights, _arriving(state))


Pattern = Literal["one to one", "all to others", "all to all"]


class Uniform(System):
    """A projection of synapses that are all alike, (pre,) to (post,): what it costs is a sum, not a matrix.

    **Arguments:** `weight`; `pre`, `post`: neurons on either side; `pattern`: `"one to one"` and `"all to others"` (all but the
    neuron of the same number) join populations of one size, `"all to all"` any; `delay`: steps, at least 1.
    """

    weight: Array
    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    pattern: Pattern = eqx.field(static=True)
    delay: int = eqx.field(static=True)

    def __init__(self, weight: Any, pre: int, post: int, pattern: Pattern, *, delay: int = 1) -> None:
        if pattern not in get_args(Pattern):
            raise InputError(f"pattern = {pattern!r}; one of {', '.join(get_args(Pattern))} is wanted.")
        if pattern != "all to all" and pre != post:
            raise InputError(f"{pattern} joins as many neurons as there are; {pre} and {post} are not.")
        if delay < 1:
            raise InputError(f"delay = {delay} steps; a projection has at least 1.")
        self.weight, self.pre, self.post, self.pattern, self.delay = as_array(weight), pre, post, pattern, delay

    def send(self, spikes: Float[Array, " pre"]) -> Float[Array, " post"]:
        """What these spikes bring when they arrive."""
        if self.pattern == "one to one":
            return self.weight * spikes
        total = jnp.sum(spikes)
        if self.pattern == "all to others":
            return self.weight * (total - spikes)
        return jnp.broadcast_to(self.weight * total, (self.post,))

    def init(self, key: PRNGKeyArray) -> Late:
        return _silence(jnp.zeros(self.pre), self.delay)

    def step(
        self, state: Late, inputs: Float[Array, " pre"], key: PRNGKeyArray | None = None
    ) -> tuple[Late, Float[Array, " post"]]:
        return _after(state, inputs), self.readout(state)

    def readout(self, state: Late) -> Float[Array, " post"]:
        return self.send(_arriving(state))


class PoissonBackground(System):
    """Adds a Poisson number of spikes of one weight to each neuron's input (neurons,), independently each step.

    **Arguments:** `rate`: spikes a step that each neuron gets on average; `weight`: of one spike, in the input's unit.
    """

    weight: Array
    cumulative: Float[Array, " counts"] = fixed()
    size: int = eqx.field(static=True)

    def __init__(self, size: int, rate: float, weight: float) -> None:
        from scipy.stats import poisson

        if not rate > 0:
            raise InputError(f"rate = {rate} spikes a step; a number above 0 is wanted.")
        self.cumulative = as_array(poisson.cdf(np.arange(poisson.isf(2.0**-24, rate)), rate))
        self.weight, self.size = as_array(weight), size

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def step(self, state: None, inputs: Float[Array, " neurons"], key: PRNGKeyArray | None = None) -> tuple[None, Array]:
        if key is None:
            raise InputError("A Poisson background is random: give rollout a key.")
        u = jax.random.uniform(key, (self.size,))
        counts = jnp.sum(u[None] >= self.cumulative[:, None], axis=0)
        return state, inputs + self.weight * counts
