"""Phase oscillators: n:m locking after Adler, a population after Kuramoto, and a theta-gamma clock with its events.

Adler (1946): psi = n theta - m gamma obeys d psi/dt = D - kappa sin psi and locks where |D| <= kappa. Kuramoto (1984), with
frequencies spread as a Lorentzian. The clock counts the crossings of 0 by gamma in the slots of theta's cycles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.dynamics.rollout import rollout, rollout_until
from broadsheet.dynamics.system import System, as_array
from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete

TURN = 2 * np.pi


class Tick(NamedTuple):
    """What a clock shows: its phases, and the last crossing of 0 by gamma."""

    theta: Float[Array, ""]  # rad, in [0, 2 pi)
    gamma: Float[Array, ""]  # rad, in [0, 2 pi)
    cycle: Int[Array, ""]  # theta cycles so far
    event: Bool[Array, ""]  # whether gamma crossed 0 in the last step
    within: Float[Array, ""]  # where in that step, 0 to 1
    slot: Int[Array, ""]  # of the last crossing, counted from the start: n for each theta cycle
    encode: Float[Array, ""]  # (1 + cos theta) / 2 at the last crossing: how open the cycle's half for encoding is

    @property
    def writing(self) -> Bool[Array, ""]:
        """Whether the last crossing was in the half for encoding."""
        return self.encode > 0.5


class Clock(System):
    """Theta and gamma phases, gamma pulled towards n/m of theta: a Moore system that shows its `Tick`.

        d theta/dt = 2 pi f_theta,   d gamma/dt = 2 pi f_gamma + (kappa / m) sin(n theta - m gamma) + noise

    A crossing of gamma is put into the nearest of the n slots of a cycle, `floor(n theta / 2 pi + 1/2)`: at zero detuning
    crossings lie on the borders of `floor(n theta / 2 pi)`. An input, where there is one, is a detuning of gamma, rad/s.

    **Arguments:** `f_theta`, `f_gamma`: Hz; `kappa`: coupling, rad/s, 0 for none; `noise`: of gamma, rad/sqrt(s);
    `n`, `m`: which multiples of the phases lock; `dt`: ms.

    **Raises:** `InputError` where n, m or dt are not positive, where dt is above 1 ms (Euler steps then lock falsely), or
    where a number is not finite.
    """

    f_theta: Float[Array, ""] = eqx.field(converter=as_array)
    f_gamma: Float[Array, ""] = eqx.field(converter=as_array)
    kappa: Float[Array, ""] = eqx.field(converter=as_array)
    noise: Float[Array, ""] = eqx.field(converter=as_array)
    n: int = eqx.field(static=True)
    m: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self,
        f_theta: Any = 8.0,
        f_gamma: Any = 56.0,
        n: int = 7,
        kappa: Any = 30.0,
        *,
        noise: Any = 0.0,
        m: int = 1,
        dt: float = 0.5,
    ) -> None:
        for name, given in {"f_theta": f_theta, "f_gamma": f_gamma, "kappa": kappa, "noise": noise}.items():
            known = concrete(given)
            if known is not None and not np.isfinite(known).all():
                raise InputError(f"Clock: {name} is {given}; a finite number is wanted.")
        if n < 1 or m < 1 or not 0 < dt <= 1:
            raise InputError(f"Clock: n = {n}, m = {m}, dt = {dt} ms; n ≥ 1, m ≥ 1 and 0 < dt ≤ 1 ms are wanted.")
        self.f_theta, self.f_gamma, self.kappa, self.noise = map(as_array, (f_theta, f_gamma, kappa, noise))
        self.n, self.m, self.dt = n, m, dt

    @property
    def detuning(self) -> Float[Array, ""]:
        """D = 2 pi (n f_theta - m f_gamma), rad/s."""
        return TURN * (self.n * self.f_theta - self.m * self.f_gamma)

    def init(self, key: PRNGKeyArray | None = None) -> Tick:
        zero, none = as_array(0.0), jnp.zeros((), jnp.int32)
        return Tick(zero, zero, none, jnp.zeros((), bool), zero, none, as_array(1.0))

    def step(self, state: Tick, inputs: Any = None, key: PRNGKeyArray | None = None) -> tuple[Tick, Tick]:
        seconds = self.dt / 1000
        pull = self.kappa / self.m * jnp.sin(self.n * state.theta - self.m * state.gamma)
        rates = jnp.stack([TURN * self.f_theta, TURN * self.f_gamma + pull + (0.0 if inputs is None else inputs)])
        moves = rates * seconds
        if key is not None:
            moves = moves.at[1].add(self.noise * np.sqrt(seconds) * jax.random.normal(key, (), moves.dtype))
        theta, gamma = state.theta + moves[0], state.gamma + moves[1]
        event = gamma >= TURN
        within = jnp.where(event, (TURN - state.gamma) / jnp.where(event, moves[1], 1.0), state.within)
        crossed = state.theta + within * moves[0]
        slot = state.cycle * self.n + jnp.floor(self.n * crossed / TURN + 0.5).astype(jnp.int32)
        turns = jnp.floor(theta / TURN)
        after = Tick(
            theta - turns * TURN,
            gamma % TURN,
            state.cycle + turns.astype(jnp.int32),
            event,
            within,
            jnp.where(event, slot, state.slot),
            jnp.where(event, (1 + jnp.cos(crossed)) / 2, state.encode),
        )
        return after, state

    def readout(self, state: Tick) -> Tick:
        return state

    def events(self, seconds: float, key: PRNGKeyArray | None = None) -> Events:
        """The crossings of a run of so many seconds, from phases of 0; with noise where there is a key."""
        steps = round(1000 * seconds / self.dt)
        if steps < 1:
            raise InputError(f"Clock.events: {seconds} s is no time; at least {self.dt} ms is wanted.")
        seen = jax.tree.map(np.asarray, _run(self, steps, key))
        at = np.flatnonzero(seen.event)
        return Events((at + seen.within[at]) * self.dt / 1000, seen.slot[at], seen.encode[at])


class Events(NamedTuple):
    """Crossings of gamma: when, in which slot, and how open the half for encoding was."""

    time: np.ndarray  # s
    slot: np.ndarray  # counted from the start
    encode: np.ndarray  # 0 to 1

    def slot_errors(self) -> int:
        """How many slots were missed or doubled: the sum of |step - 1| over the steps from one event's slot to the next."""
        return int(np.abs(np.diff(self.slot) - 1).sum())


@eqx.filter_jit
def _run(clock: Clock, steps: int, key: PRNGKeyArray | None) -> Tick:
    return rollout(clock, steps=steps, key=key, record=lambda state, _: state)[1]


class Ticks(System):
    """A clock that steps from event to event: each step runs it until gamma crosses 0, for at most `limit` steps of its own.

    Where no crossing came within the limit, `event` is false.
    """

    clock: Clock
    limit: int = eqx.field(static=True, default=200)

    def init(self, key: PRNGKeyArray) -> Tick:
        return self.clock.init(key)

    def step(self, state: Tick, inputs: Any = None, key: PRNGKeyArray | None = None) -> tuple[Tick, Tick]:
        after, _, _ = rollout_until(self.clock, lambda tick, _: tick.event, self.limit, state=state, key=key)
        return after, state

    def readout(self, state: Tick) -> Tick:
        return state


class Kuramoto(System):
    """Oscillators that are all pulled to their mean phase: d theta_i/dt = omega_i + K R sin(Psi - theta_i).

    The state is the phases, the readout the order parameter R e^{i Psi}; an input is added to all frequencies.

    **Arguments:** `frequencies`: omega, rad/s; `coupling`: K, rad/s; `dt`: ms.
    """

    frequencies: Float[Array, " oscillators"] = eqx.field(converter=as_array)
    coupling: Float[Array, ""] = eqx.field(converter=as_array)
    dt: float = eqx.field(static=True, default=10.0)

    def init(self, key: PRNGKeyArray) -> Float[Array, " oscillators"]:
        return jax.random.uniform(key, self.frequencies.shape, self.frequencies.dtype, maxval=TURN)

    def step(self, state: Array, inputs: Any = None, key: PRNGKeyArray | None = None) -> tuple[Array, Array]:
        mean = self.readout(state)
        pull = mean.imag * jnp.cos(state) - mean.real * jnp.sin(state)
        rate = self.frequencies + self.coupling * pull + (0.0 if inputs is None else inputs)
        return (state + rate * self.dt / 1000) % TURN, mean

    def readout(self, state: Array) -> Array:
        return jnp.exp(1j * state).mean()


def phase_locking_value(a: Any, b: Any, n: int = 1, m: int = 1, whole: bool = True) -> tuple[float, float]:
    """(|mean of e^{i psi}|, mean rate of psi in rad a sample) of psi = n a - m b, both phases in rad.

    With `whole`, only whole turns of psi are averaged, from the first time it passes a multiple of 2 pi to the last: a window
    that cuts a turn biases the value upward. Where psi makes no whole turn, the second half of the samples is taken (rate 0).

    **Raises:** `InputError` where the phases differ in length, are fewer than two, or not finite.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("phase_locking_value: two equally long series of finite phases are wanted, of two samples or more.")
    psi = np.unwrap(n * a - m * b)
    if not whole:
        return float(np.abs(np.exp(1j * psi).mean())), float((psi[-1] - psi[0]) / (len(psi) - 1))
    passed = np.flatnonzero(np.diff(np.floor(psi / TURN)))
    if len(passed) < 2:
        return float(np.abs(np.exp(1j * psi[len(psi) // 2 :]).mean())), 0.0
    first, last = passed[0], passed[-1]
    turns = round((psi[last + 1] - psi[first + 1]) / TURN)
    return float(np.abs(np.exp(1j * psi[first + 1 : last + 1]).mean())), float(turns * TURN / (last - first))


def adler(detuning: Any, coupling: Any) -> tuple[np.ndarray, np.ndarray]:
    """(phase-locking value, |drift rate|) of d psi/dt = D - kappa sin psi: (1, 0) where |D| <= kappa."""
    d, kappa = np.broadcast_arrays(np.abs(np.asarray(detuning, float)), np.abs(np.asarray(coupling, float)))
    drift = np.sqrt(np.maximum(d**2 - kappa**2, 0.0))
    value = np.divide(d - drift, kappa, out=np.zeros(d.shape), where=kappa > 0)
    return np.where(d <= kappa, 1.0, value), np.asarray(drift)


def lorentzian_frequencies(count: int, width: float, centre: float = 0.0) -> np.ndarray:
    """Frequencies (rad/s) at the quantiles of a Lorentzian of half-width `width`."""
    return centre + width * np.tan(np.pi * ((np.arange(count) + 0.5) / count - 0.5))


def kuramoto_order(coupling: Any, width: float) -> np.ndarray:
    """R of infinitely many oscillators with Lorentzian frequencies: sqrt(1 - 2 width / K), 0 below K = 2 width."""
    return np.asarray(np.sqrt(np.maximum(1 - 2 * width / np.asarray(coupling, float), 0.0)))
