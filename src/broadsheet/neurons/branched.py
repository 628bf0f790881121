"""A neuron with nonlinear dendritic branches: a small biophysical generator of input/output recordings.

Each branch has AMPA, NMDA (magnesium block after Jahr and Stevens, 1990) and inhibitory conductances and is coupled to a
soma that integrates, fires and adapts. Conductances are per branch capacitance, in 1/ms; potentials in mV; times in ms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics import System, fixed, rollout
from broadsheet.dynamics.system import as_array
from broadsheet.numerics import generator

LEAK, EXCITATORY, INHIBITORY = -67.7, 0.0, -75.0
"""Reversal potentials, mV."""


class BranchedState(NamedTuple):
    """Conductances and potential of each branch, potential of the soma, adaptation current."""

    ampa: Float[Array, " branches"]
    nmda: Float[Array, " branches"]
    gaba: Float[Array, " branches"]
    v: Float[Array, " branches"]
    soma: Float[Array, ""]
    adaptation: Float[Array, ""]


class BranchedNeuron(System):
    """Spikes in (channels,), the first half excitatory and the second inhibitory (given as -1), to (voltage, spike).

    Excitatory channels are dealt to the branches in blocks, the inhibitory ones likewise. One step is `dt` of input,
    integrated in `substeps` by exponential Euler.

    **Arguments:** `channels`, `branches`: divisible; `g_ampa`, `g_nmda`, `g_gaba`: peak conductance of one spike, 1/ms;
    `couple`: conductance between branch and soma, 1/ms; `nmda=False` makes the branches nearly linear.
    """

    g_ampa: Float[Array, ""]
    g_nmda: Float[Array, ""]
    g_gaba: Float[Array, ""]
    couple: Float[Array, ""]
    branch: Float[Array, "channels branches"] = fixed()
    channels: int = eqx.field(static=True)
    branches: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, channels: int = 128, branches: int = 8, *, g_ampa: float = 0.05, g_nmda: float = 0.14,
        g_gaba: float = 0.06, couple: float = 0.05, nmda: bool = True, substeps: int = 5, dt: float = 1.0,
    ) -> None:  # fmt: skip
        half = channels // 2
        owner = np.tile(np.arange(half) * branches // half, 2)
        self.branch = as_array(np.eye(branches)[owner])
        self.g_ampa, self.g_gaba, self.couple = as_array(g_ampa), as_array(g_gaba), as_array(couple)
        self.g_nmda = as_array(g_nmda if nmda else 0.0)
        self.channels, self.branches, self.substeps, self.dt = channels, branches, substeps, dt

    def init(self, key: PRNGKeyArray) -> BranchedState:
        zeros = jnp.zeros(self.branches)
        return BranchedState(zeros, zeros, zeros, zeros + LEAK, as_array(LEAK), as_array(0.0))

    def step(
        self, state: BranchedState, inputs: Float[Array, " channels"], key: PRNGKeyArray | None = None
    ) -> tuple[BranchedState, tuple[Float[Array, ""], Float[Array, ""]]]:
        excitation = jnp.maximum(inputs, 0) @ self.branch
        inhibition = jnp.maximum(-inputs, 0) @ self.branch
        ampa = state.ampa + self.g_ampa * excitation
        nmda = state.nmda + self.g_nmda * excitation
        gaba = state.gaba + self.g_gaba * inhibition
        h = self.dt / self.substeps

        def sub(carry: tuple, _: None) -> tuple[tuple, Array]:
            ampa, nmda, gaba, v, soma, adaptation, fired = carry
            open_nmda = nmda / (1 + 0.28 * jnp.exp(-0.062 * v))
            total = 0.05 + self.couple + ampa + open_nmda + gaba
            target = (0.05 * LEAK + self.couple * soma + (ampa + open_nmda) * EXCITATORY + gaba * INHIBITORY) / total
            v_next = target + (v - target) * jnp.exp(-total * h)
            pull = 4 * self.couple / self.branches
            soma_total = 0.05 + pull * self.branches
            soma_target = (0.05 * LEAK + pull * v.sum() - adaptation) / soma_total
            soma = soma_target + (soma - soma_target) * jnp.exp(-soma_total * h)
            crossed = soma > -50.0
            shown = jnp.where(crossed, 0.0, soma)
            soma = jnp.where(crossed, -62.0, soma)
            adaptation = adaptation * jnp.exp(-h / 150.0) + crossed * 0.25
            carry = (
                ampa * jnp.exp(-h / 2), nmda * jnp.exp(-h / 40), gaba * jnp.exp(-h / 8),
                v_next, soma, adaptation, fired | crossed,
            )  # fmt: skip
            return carry, shown

        start = (ampa, nmda, gaba, state.v, state.soma, state.adaptation, jnp.asarray(False))
        (*rest, fired), shown = jax.lax.scan(sub, start, None, length=self.substeps)
        spike = fired.astype(shown.dtype)
        voltage = jnp.where(fired, 0.0, shown[-1])
        return BranchedState(*rest), (voltage, spike)


class Recording(NamedTuple):
    """Input spikes (time, channels), ±1; soma voltage (time,) in mV; output spikes (time,)."""

    inputs: np.ndarray
    voltage: np.ndarray
    spikes: np.ndarray


def record(key: Any, neuron: BranchedNeuron, duration: int, *, rate: tuple[float, float] = (2.0, 8.0)) -> Recording:
    """A recording of `duration` ms under Poisson inputs whose rates jump.

    Excitatory and inhibitory rates, in Hz, are uniform in `rate` (inhibitory ones by half higher), common to a branch,
    and constant for 50 to 500 ms.
    """
    rng = generator(key)
    half = neuron.channels // 2
    owner = np.arange(half) * neuron.branches // half
    rates = np.zeros((2, neuron.branches, duration))
    for kind in range(2):
        for branch in range(neuron.branches):
            t = 0
            while t < duration:
                stay = int(rng.integers(50, 501))
                rates[kind, branch, t : t + stay] = rng.uniform(*rate) * (1.0, 1.5)[kind]
                t += stay
    p = np.concatenate([rates[0][owner], rates[1][owner]]).T / 1000
    spikes = (rng.random((duration, neuron.channels)) < p).astype(np.float32)
    spikes[:, half:] *= -1
    _, (voltage, out) = eqx.filter_jit(rollout)(neuron, jnp.asarray(spikes))
    return Recording(spikes, np.asarray(voltage), np.asarray(out))
