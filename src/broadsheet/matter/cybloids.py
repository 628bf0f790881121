"""Cybernetic colloids: Brownian particles in potentials that a computer programmes from their own past.

After arXiv 2408.00336. A camera sees where the particles were a delay ago, and traps act on where they are now:
`friction dr/dt = F_core(r) + F_feedback(r(t), r(t - delay)) + friction sqrt(2 D0) xi`. Any consistent units do; with the
particle's diameter d, kT and the Brownian time d^2/D0 as units, forces are in kT/d.

A *force law* maps displacements (…, dim) to forces. A *rule* maps (positions now, delayed positions, history) to forces on
all particles: a law is the rule in which each particle sees its own past, `Pair(law)` the one in which it sees all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics import RingBuffer, System, overdamped_step, rollout
from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError
from broadsheet.numerics import direction, norm, pair_displacements

Positions = Float[Array, "particles dim"]


class Rule(eqx.Module):
    """What the computer does: forces from positions now, a delay ago, and all in between."""

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        raise TypeError(f"{type(self).__name__} defines no force.")

    @property
    def hold(self) -> float:
        """For how long one image is used (0: every step has a new one)."""
        return 0.0

    def __add__(self, other: Rule) -> Rule:
        return Sum((self, other))


class Sum(Rule):
    """Several rules at once."""

    rules: tuple[Rule, ...]

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        return jnp.sum(jnp.stack([rule(now, delayed, history) for rule in self.rules]), axis=0)

    @property
    def hold(self) -> float:
        return max(rule.hold for rule in self.rules)


class Law(Rule):
    """A force that depends on the displacement from a centre; as a rule, the centre is the particle's own past."""

    def force(self, delta: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """The force at displacement `delta` from the centre."""
        raise TypeError(f"{type(self).__name__} defines no force.")

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        return self.force(now - delayed)


class Harmonic(Law):
    """U = k |Δ|² / 2."""

    k: Float[Array, ""] = eqx.field(converter=as_array)

    def force(self, delta: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        return -self.k * delta


class Ring(Law):
    """U = k (|Δ| - R)² / 2: an annular well."""

    k: Float[Array, ""] = eqx.field(converter=as_array)
    radius: Float[Array, ""] = eqx.field(converter=as_array)

    def force(self, delta: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        return -self.k * (norm(delta) - self.radius)[..., None] * direction(delta)


class GaussianRing(Law):
    """U = -A exp(-(|Δ| - R)² / 2b²): an annular well of finite range, as a scanned optical trap makes it."""

    depth: Float[Array, ""] = eqx.field(converter=as_array)
    radius: Float[Array, ""] = eqx.field(converter=as_array)
    width: Float[Array, ""] = eqx.field(converter=as_array)

    def force(self, delta: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        off = norm(delta) - self.radius
        size = -self.depth / self.width**2 * off * jnp.exp(-(off**2) / (2 * self.width**2))
        return size[..., None] * direction(delta)


class WCA(Law):
    """Purely repulsive Lennard-Jones core of diameter d, cut at its minimum; `cap` limits the force of overlaps."""

    epsilon: Float[Array, ""] = eqx.field(converter=as_array, default=1.0)
    diameter: Float[Array, ""] = eqx.field(converter=as_array, default=1.0)
    cap: Float[Array, ""] = eqx.field(converter=as_array, default=500.0)

    def force(self, delta: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        r = norm(delta, floor=1e-6)
        inverse6 = (self.diameter / r) ** 6
        size = 24 * self.epsilon / r * (2 * inverse6**2 - inverse6)
        size = jnp.where(r < 2 ** (1 / 6) * self.diameter, jnp.minimum(size, self.cap), 0.0)
        return size[..., None] * direction(delta, floor=1e-6)


class Pair(Rule):
    """Each particle feels the law around the delayed positions of all others (and its own with `include_self`)."""

    law: Law | Sum
    include_self: bool = eqx.field(static=True, default=False)

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        delta = pair_displacements(now, delayed)
        laws = self.law.rules if isinstance(self.law, Sum) else (self.law,)
        forces = jnp.sum(jnp.stack([law.force(delta) for law in laws]), axis=0)  # type: ignore[attr-defined]
        if not self.include_self:
            forces = jnp.where(jnp.eye(len(now), dtype=bool)[..., None], 0.0, forces)
        return jnp.sum(forces, axis=1)


class Bias(Rule):
    """A force of fixed size along a heading that is any function of the past; by default the last displacement."""

    strength: Float[Array, ""] = eqx.field(converter=as_array)
    heading: Callable[[Positions, Positions, RingBuffer], Positions] = eqx.field(
        static=True, default=lambda now, delayed, history: direction(now - delayed)
    )

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        return self.strength * self.heading(now, delayed, history)


class SampleAndHold(Rule):
    """The rule with an image only every `period`: the delay runs from `delay` to `delay + period`."""

    rule: Rule
    period: float = eqx.field(static=True)

    def __call__(self, now: Positions, delayed: Positions, history: RingBuffer) -> Positions:
        return self.rule(now, delayed, history)

    @property
    def hold(self) -> float:
        return self.period


def harmonic(k: float) -> Harmonic:
    """A harmonic well of stiffness `k` around the delayed position."""
    return Harmonic(as_array(k))


def ring(k: float, radius: float) -> Ring:
    """An annular well of stiffness `k` and radius `radius` around the delayed position."""
    return Ring(as_array(k), as_array(radius))


def gaussian_ring(depth: float, radius: float, width: float) -> GaussianRing:
    """An annular well of finite depth and width around the delayed position."""
    return GaussianRing(as_array(depth), as_array(radius), as_array(width))


def pair(law: Law | Sum, include_self: bool = False) -> Pair:
    """The law as an interaction of each particle with the delayed positions of the others."""
    return Pair(law, include_self)


def sample_and_hold(rule: Rule, period: float) -> SampleAndHold:
    """The rule with a new image only every `period` (time)."""
    return SampleAndHold(rule, period)


class CybloidState(NamedTuple):
    """Positions, the images on their way through the computer, and the number of the step."""

    position: Positions
    history: RingBuffer
    t: Int[Array, ""]


class CybloidSim(System):
    """N Brownian particles under a feedback rule; the output is the positions after the step, (N, dim).

    Before time 0 the history is frozen at the starting positions, so a transient of a few delays should be left out.

    **Arguments:**

    - `n`, `dim`: particles and dimensions.
    - `D0`: diffusion constant, length²/time; `friction`: zeta = kT/D0.
    - `dt`: time step; `delay`: a whole number of steps.
    - `rule`: feedback; `core`: `"wca"` (d = 1, epsilon = 1), a force law, or None for particles that do not touch.
    - `start`: positions (N, dim) at time 0; by default at random in a box of side `box`, or at the origin.

    **Raises:** `InputError` where the delay is not a whole number of steps.
    """

    rule: Rule | None
    core: Law | None
    D0: Float[Array, ""]
    friction: Float[Array, ""]
    start: Positions | None
    box: Float[Array, ""]
    n: int = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    delay_steps: int = eqx.field(static=True)
    hold_steps: int = eqx.field(static=True)

    def __init__(
        self,
        n: int,
        dim: int = 2,
        *,
        D0: float | Array = 1.0,
        dt: float,
        delay: float = 0.0,
        rule: Rule | None = None,
        core: str | Law | None = "wca",
        friction: float = 1.0,
        start: Any = None,
        box: float = 0.0,
    ) -> None:
        self.n, self.dim, self.dt = n, dim, dt
        self.rule = rule
        if isinstance(core, str) and core != "wca":
            raise InputError(f"core is {core!r}; 'wca', a force law or None is wanted.")
        self.core = WCA() if isinstance(core, str) else core
        self.D0, self.friction, self.box = as_array(D0), as_array(friction), as_array(box)
        self.start = None if start is None else jnp.asarray(start)
        if self.start is not None and self.start.shape != (n, dim):
            raise InputError(f"start has the shape {self.start.shape}; ({n}, {dim}) is wanted.")
        self.delay_steps = _whole_steps(delay, dt, "delay")
        self.hold_steps = max(1, _whole_steps(0.0 if rule is None else rule.hold, dt, "period"))

    def init(self, key: PRNGKeyArray) -> CybloidState:
        if self.start is None:
            position = self.box * jax.random.uniform(key, (self.n, self.dim))
        else:
            position = self.start
        return self.frozen(position)

    def frozen(self, position: Positions) -> CybloidState:
        """The state at time 0 with the history frozen at `position`."""
        length = max(1, self.delay_steps + self.hold_steps - 1)
        return CybloidState(position, RingBuffer.filled(position, length), jnp.zeros((), jnp.int32))

    def force(self, state: CybloidState) -> Positions:
        """Core and feedback force on each particle, friction x length / time."""
        total = jnp.zeros_like(state.position)
        if self.rule is not None:
            total += self.rule(state.position, self.image(state), state.history)
        if self.core is not None:
            contact = self.core.force(pair_displacements(state.position, state.position))
            total += jnp.sum(jnp.where(jnp.eye(self.n, dtype=bool)[..., None], 0.0, contact), axis=1)
        return total

    def image(self, state: CybloidState) -> Positions:
        """The positions that the computer acts on: `delay` ago, or longer while an image is held."""
        age = self.delay_steps + state.t % self.hold_steps
        past = state.history.ago(jnp.maximum(age, 1))
        return jnp.where(age == 0, state.position, past)

    def step(
        self, state: CybloidState, inputs: Positions | None = None, key: PRNGKeyArray | None = None
    ) -> tuple[CybloidState, Positions]:
        force = self.force(state) if inputs is None else self.force(state) + inputs
        mobility = 1 / self.friction
        if key is None:
            after = state.position + mobility * force * self.dt
        else:
            after = overdamped_step(state.position, force, key, dt=self.dt, mobility=mobility, diffusion=self.D0)
        return CybloidState(after, state.history.push(state.position), state.t + 1), after

    @eqx.filter_jit
    def run(self, key: PRNGKeyArray, steps: int, record_every: int = 1) -> Float[Array, "frames particles dim"]:
        """Positions after every `record_every`-th of `steps` steps, from `init(key)`."""
        return rollout(self, steps=steps, key=key, every=record_every)[1]


def _whole_steps(time: float, dt: float, name: str) -> int:
    steps = round(time / dt)
    if steps < 0 or abs(steps * dt - time) > 1e-6 * max(dt, abs(time)):
        raise InputError(f"The {name} of {time:g} is not a whole number of steps of dt = {dt:g}.")
    return steps
