"""Spiking units whose synapses an astrocyte modulates, after the idea of arXiv 2312.07625 (read as an abstract only).

The equations are ours. One token is one time step. With the normalised input h of `width` channels in `heads` parts:

    a_t = LIF(2 (W_k hbar_t + b_k)),  b_t = LIF(2 (W_q h_t + b_q))   presynaptic and probing spikes; hbar: h and the last h
    C_t = lambda C_{t-1} + a_t v_t^T,  z_t = lambda z_{t-1} + a_t    calcium; v_t = W_v h_t is the transmitter
    g_t = C_t^T b_t / (1 + z_t . b_t)                                what the astrocyte releases
    o_t = LIF(W_p h_t + b_p + alpha W_o g_t),  y_t = x_t + o_t       postsynaptic spikes

The astrocyte is linear attention with a decay, on spikes: its sum over the past can be taken step by step, all at once, or in
chunks. The two forms are what Kozachkov, Kastanenka and Krotov (2023) made of neurons and astrocytes, here with a decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.rollout import rollout
from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, RMSNorm
from broadsheet.neurons.integrate_and_fire import LIF, Membrane
from broadsheet.neurons.surrogates import arctan
from broadsheet.numerics import generator

Heads = Float[Array, "heads channels"]
Sequences = Float[Array, "time heads channels"]
Beta = float | Sequence[float]


class Calcium(NamedTuple):
    """What an astrocyte has integrated: of spikes and transmitter, and of spikes alone."""

    bound: Float[Array, "heads channels channels"]
    free: Heads


class Astrocyte(System):
    """Calcium that integrates transmitter where presynaptic neurons spike, and releases it where probing neurons do.

    Inputs of a step: presynaptic spikes a, probing spikes b, transmitter v, each (heads, channels); so is what is released.

    **Arguments:**

    - `tau`: time constants in steps, one a head.
    - `learn_tau`: whether they are parameters, through a softplus.
    - `normalise`: divide what is released by one and the calcium that is probed.
    """

    raw_tau: Float[Array, "*layers heads"]
    normalise: Float[Array, ""] = fixed()  # 1 or 0
    channels: int = eqx.field(static=True)
    learn_tau: bool = eqx.field(static=True)

    def __init__(self, channels: int, tau: Any, *, learn_tau: bool = False, normalise: bool = True) -> None:
        taus = np.atleast_1d(np.asarray(tau, float))
        if taus.ndim > 1 or not np.all((taus > 0) & np.isfinite(taus)):
            raise InputError(f"tau = {tau}; the astrocyte's time constants are numbers of steps above 0.")
        self.raw_tau = as_array(taus + np.log(-np.expm1(-taus)))
        self.normalise, self.channels, self.learn_tau = as_array(normalise), channels, learn_tau

    @property
    def held(self) -> frozenset[str]:
        return super().held if self.learn_tau else super().held | {"raw_tau"}

    @property
    def tau(self) -> Float[Array, "*layers heads"]:
        """Time constants, steps."""
        return jax.nn.softplus(self.raw_tau)

    def init(self, key: PRNGKeyArray) -> Calcium:
        heads = len(self.raw_tau)
        return Calcium(jnp.zeros((heads, self.channels, self.channels)), jnp.zeros((heads, self.channels)))

    def step(self, state: Calcium, inputs: tuple[Heads, ...], key: PRNGKeyArray | None = None) -> tuple[Calcium, Heads]:
        a, b, v = inputs
        left = jnp.exp(-1 / self.tau)[:, None]
        state = Calcium(left[..., None] * state.bound + a[..., None] * v[:, None], left * state.free + a)
        released = jnp.einsum("hde,hd->he", state.bound, b)
        return state, released / (1 + self.normalise * jnp.sum(state.free * b, axis=-1, keepdims=True))

    def sequence(self, state: Calcium, a: Sequences, b: Sequences, v: Sequences, chunk: int = 64) -> tuple[Calcium, Sequences]:
        """All steps, `chunk` of them at once: what rolling out gives, by products of matrices. Its cost grows as T * chunk.

        With a chunk of the whole length it is the parallel form, with one of 1 the recurrent one.
        """
        if chunk < 1:
            raise InputError(f"chunk = {chunk} steps; at least 1 is wanted.")
        steps, outputs = len(a), []
        whole = steps - steps % chunk
        if whole:
            parts = [x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]) for x in (a, b, v)]
            state, out = jax.lax.scan(lambda calcium, some: self._chunk(calcium, some), state, tuple(parts))
            outputs.append(out.reshape(whole, *a.shape[1:]))
        if whole < steps:
            state, out = self._chunk(state, (a[whole:], b[whole:], v[whole:]))
            outputs.append(out)
        return state, outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)

    def _chunk(self, state: Calcium, inputs: tuple[Sequences, ...]) -> tuple[Calcium, Sequences]:
        a, b, v = inputs
        t, tau = jnp.arange(len(a)), self.tau[:, None]
        gap = t[:, None] - t
        within = jnp.einsum("thd,ihd->hti", b, a) * jnp.where(gap >= 0, jnp.exp(-jnp.maximum(gap, 0) / tau[..., None]), 0.0)
        kept = jnp.exp(-(t + 1) / tau).T  # of what the chunk started with
        released = jnp.einsum("hti,ihe->the", within, v) + kept[..., None] * jnp.einsum("hde,thd->the", state.bound, b)
        probed = jnp.sum(within, axis=-1).T + kept * jnp.einsum("hd,thd->th", state.free, b)
        released = released / (1 + self.normalise * probed[..., None])
        recent = jnp.exp(-(len(a) - 1 - t) / tau).T[..., None] * a
        bound = kept[-1][:, None, None] * state.bound + jnp.einsum("ihd,ihe->hde", recent, v)
        return Calcium(bound, kept[-1][:, None] * state.free + jnp.sum(recent, axis=0)), released


class UnitState(NamedTuple):
    """The last normalised input, the calcium, and the membranes of presynaptic and probing neurons and of postsynaptic ones."""

    before: Float[Array, " width"]
    calcium: Calcium
    synaptic: Membrane
    output: Membrane


class UnitTrace(NamedTuple):
    """What happens inside a unit, time first: the three kinds of spikes, and what the astrocyte releases."""

    a: Float[Array, "time width"]
    b: Float[Array, "time width"]
    o: Float[Array, "time width"]
    released: Float[Array, "time width"]


class AMSU(System):
    """An astrocyte-modulated spiking unit: (width,) to (width,) each step, or a sequence at once.

    **Arguments:**

    - `width`, `heads`: channels, and the astrocyte's processes, each with its part of the channels.
    - `tau`: the astrocyte's time constants in steps, from shortest to longest, log-spaced over the heads; or one a head.
    - `alpha`: strength of gliotransmission. With 0, W_o takes the presynaptic spikes instead: a spiking network without
      astrocyte and with as many parameters, of which W_q and W_v then do nothing.
    - `beta`: what a membrane keeps each step; two numbers are spread over the neurons, their time constants log-spaced.
    - `soft`: a spike takes the threshold off the membrane; else it sets it to 0.
    - `learn_tau`, `normalise`: of the astrocyte.
    """

    norm: RMSNorm
    mix: Float[Array, " width"]
    keys: Dense
    queries: Dense
    transmitter: Float[Array, "width width"]
    drive: Dense
    release: Float[Array, "width width"]
    alpha: Float[Array, ""] = fixed()
    astrocyte: Astrocyte
    synaptic: LIF
    output: LIF
    chunk: int = eqx.field(static=True)

    def __init__(
        self, width: int, heads: int = 4, *, tau: Sequence[float] = (8.0, 512.0), alpha: float = 1.0, beta: Beta = 0.8,
        theta: float = 1.0, soft: bool = True, learn_tau: bool = False, normalise: bool = True, chunk: int = 64,
        key: PRNGKeyArray,
    ) -> None:  # fmt: skip
        if heads < 1 or width % heads:
            raise InputError(f"A width of {width} does not fall into {heads} heads.")
        if len(tau) not in (2, heads):
            raise InputError(f"{len(tau)} time constants; the shortest and the longest, or one for each of {heads} heads.")
        rng = generator(key)
        self.norm, self.mix = RMSNorm(width), jnp.zeros(width)
        self.keys, self.queries, self.drive = (Dense(rng, width, width) for _ in range(3))
        self.transmitter, self.release = (weights(rng, width, width) for _ in range(2))
        if not min(tau) > 0:
            raise InputError(f"tau = {tau}; the astrocyte's time constants are numbers of steps above 0.")
        spread = tau if len(tau) == heads else np.geomspace(tau[0], tau[1], heads)
        self.astrocyte = Astrocyte(width // heads, spread, learn_tau=learn_tau, normalise=normalise)
        self.synaptic, self.output = (spiking_units(n, beta=beta, theta=theta, soft=soft) for n in (2 * width, width))
        self.alpha, self.chunk = as_array(alpha), chunk

    def init(self, key: PRNGKeyArray) -> UnitState:
        return UnitState(jnp.zeros(len(self.mix)), self.astrocyte.init(key), self.synaptic.init(key), self.output.init(key))

    def step(
        self, state: UnitState, inputs: Float[Array, " width"], key: PRNGKeyArray | None = None
    ) -> tuple[UnitState, Float[Array, " width"]]:
        h = self.norm(inputs)
        synaptic, fired = self.synaptic.step(state.synaptic, self._currents(h, state.before))
        a, b = jnp.split(fired, 2)
        calcium, parts = self.astrocyte.step(state.calcium, tuple(map(self._parts, (a, b, self.transmitter @ h))))
        released = self._released(parts.reshape(-1), a)
        output, o = self.output.step(state.output, self.drive(h) + self.release @ released)
        return UnitState(h, calcium, synaptic, output), inputs + o

    def __call__(self, x: Float[Array, "time width"]) -> Float[Array, "time width"]:
        return self.sequence(self.init(jax.random.key(0)), x)[1]

    def sequence(
        self, state: UnitState, x: Float[Array, "time width"]
    ) -> tuple[UnitState, Float[Array, "time width"], UnitTrace]:
        """All steps at once: the state after them, the outputs, and what happened inside."""
        h = self.norm(x)
        before = jnp.concatenate([state.before[None], h[:-1]])
        synaptic, fired = rollout(self.synaptic, self._currents(h, before), state=state.synaptic)
        a, b = jnp.split(fired, 2, axis=-1)
        v = self._parts(h @ self.transmitter.T)
        calcium, g = self.astrocyte.sequence(state.calcium, self._parts(a), self._parts(b), v, chunk=self.chunk)
        released = self._released(g.reshape(x.shape), a)
        output, o = rollout(self.output, self.drive(h) + released @ self.release.T, state=state.output)
        return UnitState(h[-1], calcium, synaptic, output), x + o, UnitTrace(a, b, o, released)

    def _currents(self, h: Array, before: Array) -> Array:
        """Of presynaptic and of probing neurons, along the last axis."""
        share = jax.nn.sigmoid(self.mix)
        return 2 * jnp.concatenate([self.keys(share * h + (1 - share) * before), self.queries(h)], axis=-1)

    def _released(self, g: Array, a: Array) -> Array:
        return jnp.where(self.alpha == 0, a, self.alpha * g)

    def _parts(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], len(self.astrocyte.raw_tau), -1)


class SpikingMLP(System):
    """`x + W_2 LIF(W_1 RMSNorm(x) + b_1)`, with `multiplier` times as many spiking neurons as channels."""

    norm: RMSNorm
    up: Dense
    down: Float[Array, "width hidden"]
    neurons: LIF

    def __init__(
        self, width: int, multiplier: int = 2, *, beta: Beta = 0.8, theta: float = 1.0, soft: bool = True, key: PRNGKeyArray
    ) -> None:
        rng, hidden = generator(key), multiplier * width
        self.norm, self.up, self.down = RMSNorm(width), Dense(rng, width, hidden), weights(rng, hidden, width)
        self.neurons = spiking_units(hidden, beta=beta, theta=theta, soft=soft)

    def init(self, key: PRNGKeyArray) -> Membrane:
        return self.neurons.init(key)

    def step(
        self, state: Membrane, inputs: Float[Array, " width"], key: PRNGKeyArray | None = None
    ) -> tuple[Membrane, Float[Array, " width"]]:
        state, spikes = self.neurons.step(state, self.up(self.norm(inputs)))
        return state, inputs + self.down @ spikes

    def sequence(
        self, state: Membrane, x: Float[Array, "time width"]
    ) -> tuple[Membrane, Float[Array, "time width"], Float[Array, "time hidden"]]:
        """All steps at once: the state after them, the outputs, and the spikes."""
        state, spikes = rollout(self.neurons, self.up(self.norm(x)), state=state)
        return state, x + spikes @ self.down.T, spikes


class BlockState(NamedTuple):
    """Of a unit and of the neurons behind it."""

    unit: UnitState
    mlp: Membrane


class Block(System):
    """An `AMSU` and a `SpikingMLP` behind it."""

    unit: AMSU
    mlp: SpikingMLP

    def init(self, key: PRNGKeyArray) -> BlockState:
        return BlockState(self.unit.init(key), self.mlp.init(key))

    def step(
        self, state: BlockState, inputs: Float[Array, " width"], key: PRNGKeyArray | None = None
    ) -> tuple[BlockState, Float[Array, " width"]]:
        unit, x = self.unit.step(state.unit, inputs)
        mlp, x = self.mlp.step(state.mlp, x)
        return BlockState(unit, mlp), x

    def sequence(
        self, state: BlockState, x: Float[Array, "time width"]
    ) -> tuple[BlockState, Float[Array, "time width"], tuple[UnitTrace, Float[Array, "time hidden"]]]:
        """All steps at once: the state after them, the outputs, and what happened inside both."""
        unit, x, trace = self.unit.sequence(state.unit, x)
        mlp, x, spikes = self.mlp.sequence(state.mlp, x)
        return BlockState(unit, mlp), x, (trace, spikes)


def spiking_units(size: int, *, beta: Beta = 0.8, theta: float = 1.0, soft: bool = True) -> LIF:
    """`u_t = beta u_{t-1} + I_t - theta s_{t-1}`, `s_t = 1` where `u_t >= theta`, without units of time or voltage.

    The leak does not touch what a spike takes off. The derivative of a spike is `1 / (1 + (pi (u - theta))^2)`.

    **Arguments:** `beta`: one number, or two whose time constants `-1 / ln(beta)` are log-spaced over the neurons.
    """
    betas = np.atleast_1d(np.asarray(beta, float))
    if not (len(betas) <= 2 and np.all((betas > 0) & (betas < 1))):
        raise InputError(f"beta = {beta}; one or two numbers between 0 and 1 are wanted.")
    if not theta > 0:
        raise InputError(f"theta = {theta}; a threshold above 0 is wanted.")
    taus = -1 / np.log(betas)
    tau = np.geomspace(taus[0], taus[1], size) if len(betas) == 2 else np.full(size, taus[0])
    reset, drop = (None, theta * np.exp(1 / tau)) if soft else (0.0, None)
    return LIF(
        size, tau=tau, rest=0.0, threshold=theta, reset=reset, drop=drop, spike=arctan(2.0, inclusive=True), dt=1.0,
    )  # fmt: skip


def weights(rng: np.random.Generator, inputs: int, outputs: int) -> Float[Array, "outputs inputs"]:
    """Uniform within 1 / sqrt(inputs)."""
    return as_array(rng.uniform(-1, 1, (outputs, inputs)) / np.sqrt(inputs))
