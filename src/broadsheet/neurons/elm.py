"""The Expressive Leaky Memory neuron, arXiv 2306.16922; equations as in its official code (v1: the paper's, v2: later).

With branch input b, memory m, read-out y and decay factors kappa = exp(-dt / tau):

    b_t  = kappa_s b_{t-1} + sum over the branch of w_s x_t                  w_s = relu(raw weights)
    dm_t = g(MLP([b_t, kappa_m m_{t-1}]))                                    g(z) = 1.7159 tanh(2 z / 3)
    v1:  m_t = kappa_m m_{t-1} + lam (1 - kappa_m) dm_t
    v2:  m_t = kappa_m m_{t-1} + (1 - exp(-lam dt / tau_m)) dm_t
    y_t  = W_y m_t + bias
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.dynamics import System, fixed, rollout, trainable
from broadsheet.dynamics.system import as_array
from broadsheet.errors import DataError, InputError


def relu(x: Array) -> Array:
    """JAX's, under a name by which a pickle finds it."""
    return jax.nn.relu(x)


def silu(x: Array) -> Array:
    """JAX's, under a name by which a pickle finds it."""
    return jax.nn.silu(x)


def same(x: Array) -> Array:
    """What comes in."""
    return x


ACTIVATIONS = {"relu": relu, "silu": silu}


def scaled_tanh(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """`1.7159 tanh(2 z / 3)`: bounds the memory's increments."""
    return 1.7159 * jnp.tanh(2 / 3 * z)


class ELMState(NamedTuple):
    """Synaptic traces (per branch, or per synapse where their time constants differ), and memory."""

    trace: Float[Array, " traces"]
    memory: Float[Array, " d_m"]


class ELMCell(System):
    """One ELM neuron: inputs (d_in,) to read-outs (d_out,) each step; spikes are 1, inhibitory ones -1.

    **Arguments:**

    - `d_in`, `d_out`, `d_m`: input channels, outputs, memory units.
    - `lam`: gain of the memory's increments.
    - `tau_s`: synaptic time constant(s), ms, never trained; one number, or one per synapse slot (v1 only).
    - `tau_m`: smallest and largest memory time constant, ms; they start log-spaced and are trained with `learn_tau`.
    - `d_tree`, `d_brch`: branches and synapse slots a branch; by default one synapse per channel and no branches.
    - `routing`: which channel a slot listens to: `"neighbour"` (overlapping windows over interleaved excitatory and
      inhibitory channels; d_in even), `"random"`, or None (slot i listens to channel i; needs d_tree d_brch = d_in).
    - `mlp_layers`, `mlp_width` (default 2 d_m), `activation`: hidden layers; 0 layers make it a linear map.
    - `bounded`: False replaces g by the identity; with `mlp_layers=0` the cell is then linear, the control.
    - `dt`: time step, ms. `variant`: see the module.

    **Raises:** `InputError` where sizes and routing do not fit.

    **Example:**

        >>> cell = ELMCell(d_in=8, d_out=2, d_m=5, key=jax.random.key(0))
        >>> cell(jnp.zeros((100, 8))).shape  # (time, d_out)
        (100, 2)
    """

    raw_weights: Float[Array, " n_syn"]
    mlp: eqx.nn.MLP
    head: eqx.nn.Linear
    tau_logit: Float[Array, " d_m"]
    tau_s: Float[Array, "*n_syn"] = fixed()
    channel: Int[Array, " n_syn"] = fixed()
    connected: Bool[Array, " n_syn"] = fixed()
    lam: Float[Array, ""] = fixed()
    tau_range: Float[Array, " 2"] = fixed()
    dt: float = eqx.field(static=True)
    d_in: int = eqx.field(static=True)
    d_tree: int = eqx.field(static=True)
    variant: str = eqx.field(static=True)
    learn_tau: bool = eqx.field(static=True)
    bounded: bool = eqx.field(static=True)

    def __init__(
        self,
        d_in: int,
        d_out: int,
        d_m: int = 100,
        *,
        lam: float = 5.0,
        tau_s: Any = 5.0,
        tau_m: tuple[float, float] = (1.0, 1000.0),
        learn_tau: bool = False,
        d_tree: int | None = None,
        d_brch: int = 1,
        routing: str | None = None,
        mlp_layers: int = 1,
        mlp_width: int | None = None,
        activation: str = "relu",
        bounded: bool = True,
        dt: float = 1.0,
        variant: str = "v1",
        key: PRNGKeyArray,
    ) -> None:
        mlp_key, head_key, route_key = jax.random.split(key, 3)
        d_tree = d_in if d_tree is None else d_tree
        if variant not in ("v1", "v2"):
            raise InputError(f"variant is {variant!r}; v1 or v2 is wanted.")
        if activation not in ACTIVATIONS:
            raise InputError(f"activation is {activation!r}; one of {', '.join(ACTIVATIONS)} is wanted.")
        self.channel, self.connected = route(d_in, d_tree, d_brch, routing, route_key)
        self.tau_s = as_array(tau_s)
        if self.tau_s.ndim and (variant != "v1" or self.tau_s.shape != (d_tree * d_brch,)):
            raise InputError("A time constant for each synapse needs variant v1 and d_tree * d_brch values.")
        width = 2 * d_m if mlp_width is None else mlp_width
        self.mlp = eqx.nn.MLP(d_tree + d_m, d_m, width, mlp_layers, ACTIVATIONS[activation], same, key=mlp_key)
        self.head = eqx.nn.Linear(d_m, d_out, key=head_key)
        self.raw_weights = jnp.full(d_tree * d_brch, 0.5, jnp.result_type(float))
        self.tau_range = as_array(tau_m)
        self.tau_logit = spaced_logits(*tau_m, d_m)
        self.lam = as_array(lam)
        self.dt, self.d_in, self.d_tree = dt, d_in, d_tree
        self.variant, self.learn_tau, self.bounded = variant, learn_tau, bounded

    @property
    def held(self) -> frozenset[str]:
        """Fields that `trainable` leaves out."""
        return super().held | (frozenset() if self.learn_tau else frozenset({"tau_logit"}))

    @property
    def d_m(self) -> int:
        return len(self.tau_logit)

    @property
    def tau_m(self) -> Float[Array, " d_m"]:
        """Memory time constants, ms."""
        low, high = self.tau_range
        return low + (high - low) * jax.nn.sigmoid(self.tau_logit)

    def init(self, key: PRNGKeyArray | None = None) -> ELMState:
        traces = len(self.raw_weights) if self.tau_s.ndim else self.d_tree
        return ELMState(jnp.zeros(traces), jnp.zeros(self.d_m))

    def init_state(self, batch: int) -> ELMState:
        """Zero states for a batch, to be stepped with `jax.vmap(cell.step)`."""
        return jax.tree.map(lambda leaf: jnp.zeros((batch, *leaf.shape)), self.init())

    def step(
        self, state: ELMState, inputs: Float[Array, " d_in"], key: PRNGKeyArray | None = None
    ) -> tuple[ELMState, Float[Array, " d_out"]]:
        drive = self.synapses * inputs[self.channel]
        decay = jnp.exp(-self.dt / self.tau_s)
        if self.tau_s.ndim:
            trace = decay * state.trace + drive
            branch = self._branches(trace)
        else:
            trace = branch = decay * state.trace + self._branches(drive)
        decayed = self.decay * state.memory
        memory = decayed + self.gain * self._bound(self.mlp(jnp.concatenate([branch, decayed])))
        return ELMState(trace, memory), self.head(memory)

    def __call__(self, xs: Float[Array, "time d_in"]) -> Float[Array, "time d_out"]:
        """Outputs for a whole input, from the zero state: `rollout(cell, xs)[1]`, computed with fewer operations a step.

        Branch sums, the synaptic filter's projection on the first layer, and the read-out leave the scan.
        """
        if self.tau_s.ndim or self.mlp.depth == 0:
            return rollout(self, xs, state=self.init())[1]
        mixing = jnp.zeros((self.d_in, self.d_tree)).at[self.channel, self._branch_of_slot].add(self.synapses)
        first, *rest = self.mlp.layers  # at least two: depth 0 was handled above
        drive = (xs @ mixing) @ first.weight[:, : self.d_tree].T
        recurrent, bias = first.weight[:, self.d_tree :], jnp.asarray(first.bias)
        kappa_s, kappa_m, gain = jnp.exp(-self.dt / self.tau_s), self.decay, self.gain

        def one(carry: tuple, u: Array) -> tuple[tuple, Array]:
            trace, memory = carry
            trace = kappa_s * trace + u
            decayed = kappa_m * memory
            hidden = self.mlp.activation(trace + recurrent @ decayed + bias)
            for layer in rest[:-1]:
                hidden = self.mlp.activation(layer(hidden))
            memory = decayed + gain * self._bound(rest[-1](hidden))
            return (trace, memory), memory

        start = (jnp.zeros(first.weight.shape[0]), jnp.zeros(self.d_m))
        _, memory = jax.lax.scan(one, start, drive)
        return memory @ self.head.weight.T + jnp.asarray(self.head.bias)

    @property
    def synapses(self) -> Float[Array, " n_syn"]:
        """Synaptic weights, never negative; 0 in slots without a channel."""
        return jax.nn.relu(self.raw_weights) * self.connected

    @property
    def decay(self) -> Float[Array, " d_m"]:
        """kappa_m, the share of memory that is left after one step."""
        return jnp.exp(-self.dt / jnp.maximum(self.tau_m, 1e-6))

    @property
    def gain(self) -> Float[Array, " d_m"]:
        """The factor of the memory's increment."""
        if self.variant == "v1":
            return self.lam * (1 - self.decay)
        return 1 - jnp.exp(-self.lam * self.dt / jnp.maximum(self.tau_m, 1e-6))

    @property
    def _branch_of_slot(self) -> Int[np.ndarray, " n_syn"]:
        n_syn = len(self.raw_weights)
        return np.arange(n_syn) // (n_syn // self.d_tree)

    def _branches(self, slots: Float[Array, " n_syn"]) -> Float[Array, " d_tree"]:
        return slots.reshape(self.d_tree, -1).sum(axis=1)

    def _bound(self, z: Float[Array, " d_m"]) -> Float[Array, " d_m"]:
        return scaled_tanh(z) if self.bounded else z


def route(
    d_in: int, d_tree: int, d_brch: int, routing: str | None, key: PRNGKeyArray
) -> tuple[Int[Array, " n_syn"], Bool[Array, " n_syn"]]:
    """The channel that each synapse slot listens to, and whether it is connected at all."""
    slots = d_tree * d_brch
    if routing is None:
        if slots != d_in:
            raise InputError(f"Without routing, d_tree * d_brch = {slots} must equal d_in = {d_in}.")
        return jnp.arange(d_in), jnp.ones(d_in, bool)
    if routing == "random":
        return jax.random.randint(key, (slots,), 0, d_in), jnp.ones(slots, bool)
    if routing != "neighbour":
        raise InputError(f"routing is {routing!r}; neighbour, random or None is wanted.")
    if d_in % 2:
        raise InputError(f"Neighbour routing interleaves excitatory and inhibitory channels: d_in = {d_in} is odd.")
    order = np.arange(d_in) % 2 * (d_in // 2) + np.arange(d_in) // 2
    place = np.arange(d_tree)[:, None] * math.ceil(d_in / d_tree) + np.arange(d_brch)
    inside = place < d_in
    return jnp.asarray(order[np.minimum(place, d_in - 1)].ravel()), jnp.asarray(inside.ravel())


def spaced_logits(low: float, high: float, count: int) -> Float[Array, " count"]:
    """Logits of log-spaced time constants between the bounds."""
    if not 0 <= low < high:
        raise InputError(f"tau_m is ({low:g}, {high:g}); 0 <= smallest < largest is wanted.")
    tau = np.logspace(np.log10(low + 1e-6), np.log10(high - 1e-6), count)
    tau = np.clip(tau, low + 1e-6, high - 1e-6)
    return as_array(np.log((tau - low) / (high - tau)))


def count_params(cell: ELMCell) -> int:
    """Number of trainable parameters, masked slots included, as the paper counts."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(cell, trainable(cell))))


def load_official(state: Mapping[str, Any], d_in: int, **options: Any) -> ELMCell:
    """A cell with the weights of an official checkpoint.

    **Arguments:** `state`: name -> array, the keys of the PyTorch code (`_proto_w_s`, `mlp.network.0.weight`, …,
    `w_y.weight`, `tau_s`, `_proto_tau_m`), for instance from `broadsheet.language.checkpoints.read_state`; `d_in` and
    `options`: what a checkpoint does not hold (`routing`, `tau_m`, `lam`, `dt`, `variant`, `activation`).

    **Raises:** `DataError` where keys are missing or shapes do not fit.
    """
    state = {name: np.asarray(value) for name, value in state.items()}
    layers = sorted({int(name.split(".")[2]) for name in state if name.startswith("mlp.network.")})
    needed = ["_proto_w_s", "w_y.weight", "w_y.bias", "_proto_tau_m"]
    missing = [name for name in needed if name not in state]
    if missing or not layers:
        raise DataError(f"No ELM checkpoint: {', '.join(missing or ['mlp.network.*'])} is missing.")
    d_out, d_m = state["w_y.weight"].shape
    d_tree = state[f"mlp.network.{layers[0]}.weight"].shape[1] - d_m
    n_syn = state["_proto_w_s"].size
    if d_tree < 1 or n_syn % d_tree:
        raise DataError(f"No ELM checkpoint: {n_syn} synapses do not divide into {d_tree} branches.")
    width = state[f"mlp.network.{layers[0]}.weight"].shape[0] if len(layers) > 1 else None
    cell = ELMCell(
        d_in, d_out, d_m, d_tree=d_tree, d_brch=n_syn // d_tree, mlp_layers=len(layers) - 1, mlp_width=width,
        key=jax.random.key(0), **options,
    )  # fmt: skip
    new = [state["_proto_w_s"].ravel(), state["w_y.weight"], state["w_y.bias"], state["_proto_tau_m"].ravel()]
    new += [state[f"mlp.network.{layer}.{part}"] for layer in layers for part in ("weight", "bias")]

    def leaves(cell: ELMCell) -> list:
        mlp = [leaf for layer in cell.mlp.layers for leaf in (layer.weight, layer.bias)]
        return [cell.raw_weights, cell.head.weight, cell.head.bias, cell.tau_logit, *mlp]

    for old, value in zip(leaves(cell), new, strict=True):
        if old.shape != value.shape:
            raise DataError(f"No ELM checkpoint for these options: {value.shape} found where {old.shape} is wanted.")
    cell = eqx.tree_at(leaves, cell, [as_array(value) for value in new])
    tau_s = np.unique(state["tau_s"]) if "tau_s" in state else np.array([5.0])
    value = as_array(float(tau_s[0])) if len(tau_s) == 1 else as_array(state["tau_s"].ravel())
    return eqx.tree_at(lambda cell: cell.tau_s, cell, value)


def to_official(cell: ELMCell) -> dict[str, np.ndarray]:
    """The cell's weights under the official names, ready for safetensors; the inverse of `load_official`."""
    state = {
        "_proto_w_s": cell.raw_weights,
        "_proto_tau_m": cell.tau_logit,
        "tau_s": jnp.broadcast_to(cell.tau_s, cell.raw_weights.shape),
        "w_y.weight": cell.head.weight,
        "w_y.bias": cell.head.bias,
    }
    for k, layer in enumerate(cell.mlp.layers):
        state[f"mlp.network.{2 * k}.weight"], state[f"mlp.network.{2 * k}.bias"] = layer.weight, layer.bias
    return {name: np.array(value) for name, value in state.items()}
