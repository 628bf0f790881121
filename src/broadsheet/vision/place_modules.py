"""Small spiking networks that each learn a region of places without labels, and vote together (arXiv 2209.08723).

A module is Diehl and Cook's network (2015): Poisson inputs with a delay on every synapse, excitatory neurons with conductances
and adaptive thresholds, one inhibitory neuron for each that silences all others, and nearest-spike triplet STDP.

Inputs do not depend on the network, so what arrives at each neuron in each step is summed before a presentation; a spike
changes one neuron's weights, and only what is still to arrive at it is corrected. Between spikes only neurons are stepped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.system import System, common_dt, fixed
from broadsheet.errors import EventOverflowError, InputError
from broadsheet.networks.projections import Uniform
from broadsheet.neurons.codes import PoissonEvents, poisson_events
from broadsheet.neurons.integrate_and_fire import Adapted, AdaptiveThreshold, ConductanceLIF, Synapses
from broadsheet.plasticity.rule import LearningRule, of_two_factors
from broadsheet.plasticity.stdp import STDP
from broadsheet.plasticity.triplet import Triplet

Neurons = Float[Array, " neurons"]
PIXELS = 784
IMAGE, REST = 350.0, 150.0
"""How long an image is shown, and the rest after it, ms."""
CHUNK = 1024
"""Input spikes that are looked at together."""
ROOM = 256
"""Images are padded to a multiple of so many, so that modules of more or less places, and their queries, share a program."""


class PlaceState(NamedTuple):
    """Excitatory and inhibitory neurons, and the spikes of either, which arrive at the other in the next step."""

    exc: Adapted
    inh: Synapses
    fired: Neurons
    inhibited: Neurons


class PlaceCells(System):
    """Excitatory neurons that silence each other through inhibitory ones. Input: conductance that arrives at each excitatory
    neuron (neurons,), relative to the leak. Output: their spikes.

    **Arguments:**

    - `size`: excitatory neurons, and as many inhibitory ones.
    - `theta_plus`: what a spike adds to its neuron's threshold, mV; it falls back with `theta_tau`, ms.
    - `pause`: ms between two spikes of a neuron at least. The authors' program counts its timer in tenths, so that "5 ms"
      are 50.
    - `excite`, `inhibit`: weights to the neuron's own inhibitory neuron, and from it to all other neurons.
    - `dt`: ms.
    """

    exc: AdaptiveThreshold
    inh: ConductanceLIF
    excite: Uniform = fixed()
    inhibit: Uniform = fixed()
    size: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, size: int, *, theta_plus: Any = 0.05, theta_tau: Any = 1e7, pause: Any = 50.0, excite: Any = 10.4,
        inhibit: Any = 17.0, dt: float = 0.5,
    ) -> None:  # fmt: skip
        settled = -65.0 - 40.0 * np.exp(-5.0)  # half a second after a start at -105 mV
        synapses: dict[str, Any] = {"tau_syn": (1.0, 0.5), "dt": dt}
        exc = ConductanceLIF(
            size, tau=100.0, rest=-65.0, threshold=-52.0, reset=-65.0, refractory=5.0, v0=settled, reversal=(0.0, -100.0),
            **synapses,
        )  # fmt: skip
        self.exc = AdaptiveThreshold(exc, increment=theta_plus, tau=theta_tau, pause=pause)
        self.inh = ConductanceLIF(
            size, tau=10.0, rest=-60.0, threshold=-40.0, reset=-45.0, refractory=2.0, reversal=(0.0, -85.0), **synapses
        )
        self.excite = Uniform(excite, size, size, "one to one")
        self.inhibit = Uniform(inhibit, size, size, "all to others")
        self.size, self.dt = size, dt

    def init(self, key: PRNGKeyArray) -> PlaceState:
        silence = jnp.zeros(self.size)
        return PlaceState(self.exc.init(key), self.inh.init(key), silence, silence)

    def step(self, state: PlaceState, inputs: Neurons, key: PRNGKeyArray | None = None) -> tuple[PlaceState, Neurons]:
        exc, fired = self.exc.step(state.exc, jnp.stack([inputs, self.inhibit.readout(state.inhibited)]))
        arriving = jnp.stack([self.excite.readout(state.fired), jnp.zeros(self.size)])
        inh, inhibited = self.inh.step(state.inh, arriving)
        return PlaceState(exc, inh, fired, inhibited), fired

    def start(self, rise: Neurons) -> PlaceState:
        """At rest, but for the rise of the thresholds (mV)."""
        state = self.init(jax.random.key(0))
        return state._replace(exc=state.exc._replace(rise=rise))

    def frozen(self) -> PlaceCells:
        """With thresholds that stay where they are."""
        return eqx.tree_at(lambda cells: cells.exc, self, self.exc.frozen())


def diehl_cook(sign: float = -1.0, dt: float = 0.5) -> Triplet:
    """Diehl and Cook's rule (2015): the nearest triplets of two postsynaptic spikes and a presynaptic one between them
    potentiate, the nearest pairs depress at presynaptic spikes.

    **Arguments:** `sign`: of the change at presynaptic spikes; in the authors' program of arXiv 2209.08723 it is +1; `dt`: ms.
    """
    return Triplet(
        a_plus=0.0, a_minus=-1e-4 * sign, triplet_plus=0.01, triplet_minus=0.0, tau_plus=20.0, tau_minus=20.0, tau_y=40.0,
        pairing="nearest", bounds=(0.0, 1.0), dt=dt,
    )  # fmt: skip


class Module(NamedTuple):
    """Weights (inputs, neurons), delays in steps, and the neurons as the last presentation left them."""

    weights: Float[Array, "inputs neurons"]
    delays: Int[Array, "inputs neurons"]
    cells: PlaceState

    @property
    def rise(self) -> Neurons:
        """Rise of each threshold, mV."""
        return self.cells.exc.rise

    @property
    def since(self) -> Neurons:
        """Time since the last spike of each excitatory neuron, ms."""
        return self.cells.exc.since


class PlaceModule(eqx.Module):
    """One module: it learns images without labels and answers each with spike counts.

    **Arguments:**

    - `cells`: whose `dt` is the rule's too.
    - `rule`: `STDP` or `Triplet` of nearest spikes, by default `diehl_cook()`; a synapse is changed when its neuron fires, by
      all that has arrived since, so that changes by presynaptic spikes have to add up, which other rules do not promise.
      Where both spikes meet in one step the presynaptic one counts as the earlier. Weights that `norm` lifts above the rule's
      limit, as it can with few inputs, are cut to it then too.
    - `norm`: sum to which a neuron's weights are scaled before each image.
    - `intensity`: pixels of 0 to 255 over it are rates in spikes/s.
    - `max_delay`: ms.
    """

    cells: PlaceCells
    rule: STDP
    norm: float
    intensity: float
    max_delay: float

    def __init__(
        self, cells: PlaceCells, rule: LearningRule | None = None, *, norm: float = 78.0, intensity: float = 4.0,
        max_delay: float = 10.0,
    ) -> None:  # fmt: skip
        self.cells, self.rule = cells, diehl_cook(dt=cells.dt) if rule is None else _event_driven(rule)
        self.norm, self.intensity, self.max_delay = norm, intensity, max_delay
        common_dt(self.cells, self.rule)

    def init(self, key: PRNGKeyArray, inputs: int = PIXELS) -> Module:
        """Weights from 0.003 to 0.303 and delays from 0 to `max_delay`, both uniform."""
        k_weights, k_delays = jax.random.split(key)
        shape = (inputs, self.cells.size)
        weights = 0.3 * (jax.random.uniform(k_weights, shape) + 0.01)
        steps = jnp.floor(jax.random.uniform(k_delays, shape, maxval=self.max_delay) / self.cells.dt).astype(jnp.int32)
        return Module(weights, steps, self.cells.start(jnp.zeros(self.cells.size)))

    def normalised(self, weights: Float[Array, "inputs neurons"]) -> Float[Array, "inputs neurons"]:
        """Each neuron's weights scaled to the sum `norm`."""
        return weights * (self.norm / jnp.maximum(weights.sum(axis=0), 1e-6))

    def train(self, module: Module, images: Any, key: PRNGKeyArray) -> tuple[Module, Float[np.ndarray, "images neurons"]]:
        """Shows images (images, pixels) of 0 to 255 one after the other; (what was learned, spike counts)."""
        rates = self._rates(images, module)
        module, counts, lost = _train(self, module, _roomy(rates), jnp.asarray(len(rates)), key, _most_events(rates))
        _no_loss(lost)
        return module, np.asarray(counts)[: len(rates)]

    def respond(self, module: Module, images: Any, key: PRNGKeyArray) -> Float[np.ndarray, "images neurons"]:
        """Spike counts for images (images, pixels) in turn, with weights and thresholds as they are; the rest after an image
        lets potentials fall, not quite to where they were, before the next one."""
        rates = self._rates(images, module)
        counts, lost = _respond(self, module, _roomy(rates), jnp.asarray(len(rates)), key, _most_events(rates))
        _no_loss(lost)
        return np.asarray(counts)[: len(rates)]

    def _rates(self, images: Any, module: Module) -> Float[np.ndarray, "images pixels"]:
        array = np.asarray(images, np.float32)
        array = array.reshape(len(array), -1)
        if array.shape[1] != module.weights.shape[0]:
            raise InputError(f"Images have {array.shape[1]} pixels; the module takes {module.weights.shape[0]}.")
        if not np.isfinite(array).all() or array.min(initial=0) < 0 or array.max(initial=0) > 255:
            raise InputError("Pixels must lie between 0 and 255.")
        return array / self.intensity


def _event_driven(rule: Any) -> STDP:
    """The rule, where the change by all presynaptic spikes between two postsynaptic ones is one sum over them."""
    of_two_factors(rule, "a place module")
    plain = isinstance(rule, STDP) and rule.pairing == "nearest" and not (rule.soft or rule.axonal or rule.dendritic)
    if not plain or getattr(rule, "triplet_minus", None) is not None:
        raise InputError(
            f"{type(rule).__name__} cannot be summed between spikes: a place module takes STDP or Triplet of nearest spikes, "
            "without soft bounds, delays of the rule or presynaptic triplets."
        )
    return rule


def _most_events(rates: Float[np.ndarray, "images pixels"]) -> int:
    """More input spikes than any image gives, but once in a thousand million; a round number, so that it compiles once."""
    mean = float(rates.sum(axis=1).max(initial=1.0)) * IMAGE / 1000
    return int(-(-(mean + 6.2 * np.sqrt(mean) + 20) // (4 * CHUNK)) * 4 * CHUNK)


def _roomy(rates: Float[np.ndarray, "images pixels"]) -> Float[Array, "room pixels"]:
    """The rates, with rows of zeros after them that are never shown."""
    return jnp.asarray(np.pad(rates, ((0, -len(rates) % ROOM), (0, 0))))


def _no_loss(lost: Any) -> None:
    if int(lost):
        raise EventOverflowError(f"{int(lost)} input spikes were more than a presentation holds; try another key.")


def _draw(rates: Float[Array, " pixels"], key: PRNGKeyArray, dt: float, size: int) -> PoissonEvents:
    """A Poisson process of all inputs while the image is shown."""
    return poisson_events(rates, round(IMAGE / dt), key, dt=dt, size=size)


def _summed(module: Module, given: PoissonEvents, steps: int) -> Float[Array, "time neurons"]:
    """What arrives at each neuron in each step."""
    neurons = module.weights.shape[1]
    places = module.delays * neurons + jnp.arange(neurons)

    def add(k: Array, flat: Array) -> Array:
        i = given.inputs[k]
        at = given.steps[k] * neurons + places[i]
        return flat.at[at].add(module.weights[i], mode="drop", unique_indices=True)

    return jax.lax.fori_loop(0, given.drawn, add, jnp.zeros(steps * neurons)).reshape(steps, neurons)


class _Past(NamedTuple):
    """Of each input, for each step: the step of its latest spike up to then (long before the start where there is none), and
    the sum of `exp(-s dt / tau)` over its spikes s after then."""

    latest: Float[Array, "time inputs"]
    ahead: Float[Array, "time inputs"]


def _past(given: PoissonEvents, steps: int, inputs: int, decay: Array) -> _Past:
    real = jnp.arange(given.steps.shape[0]) < given.drawn
    count = jnp.zeros((steps, inputs)).at[given.steps, given.inputs].add(real)
    time = jnp.arange(steps, dtype=count.dtype)

    def onward(latest: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        t, sent = at
        latest = jnp.where(sent > 0, t, latest)
        return latest, latest

    def back(ahead: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        t, sent = at
        return ahead + sent * jnp.exp(-t * decay), ahead

    # step by step, which takes a twelfth of the time of cumulative operations on a CPU
    latest = jax.lax.scan(onward, jnp.full(inputs, -1e9), (time, count))[1]
    ahead = jax.lax.scan(back, jnp.zeros(inputs), (time, count), reverse=True)[1]
    return _Past(latest, ahead)


class _Showing(NamedTuple):
    """Within a presentation: weights, what is still to arrive, and of each neuron the step of its last spike and the one up
    to which presynaptic spikes have changed its weights."""

    weights: Float[Array, "inputs neurons"]
    arriving: Float[Array, "time neurons"]
    last: Neurons
    settled: Neurons


def _present(net: PlaceModule, module: Module, given: PoissonEvents) -> tuple[Module, Neurons]:
    """One image and the rest after it, with plastic weights; potentials go on from the presentation before."""
    cells, rule, dt, n = net.cells, net.rule, net.cells.dt, net.cells.size
    shown, steps = round(IMAGE / dt), round((IMAGE + REST) / dt)
    module = module._replace(weights=net.normalised(module.weights))
    tau_plus, tau_post = rule.tau_pre[0, 0], rule.tau_post
    past = _past(given, steps, module.weights.shape[0], dt / tau_post[0, 0])
    every = jnp.arange(module.weights.shape[0])
    longest = round(net.max_delay / dt)
    none = jnp.zeros((1, 1))  # of presynaptic triplets, which the rule does not have

    def pushed(state: _Showing, k: Array, now: Array, delays: Array) -> Array:
        """Weights of neuron k after the presynaptic spikes that arrived since they were last looked at."""
        sent = past.ahead.at[(state.settled[k] - delays).astype(jnp.int32), every].get(mode="clip")
        sent = jnp.where(state.settled[k] < delays, past.ahead[0] + (past.latest[0] == 0), sent)
        sent = sent - jnp.where(now < delays, sent, past.ahead.at[(now - delays).astype(jnp.int32), every].get(mode="clip"))
        traces = sent * jnp.exp((state.last[k] - delays) * dt / tau_post[0])
        return jnp.clip(state.weights[:, k] - rule.depression(none, traces[None]), *rule.limits)

    def spiked(state: _Showing, k: Array, now: Array) -> _Showing:
        """The state after a spike of neuron k."""
        delays = module.delays[:, k]
        old = state.weights[:, k]
        latest = jnp.where(now < delays, -1e9, past.latest.at[now - delays, every].get(mode="clip") + delays)
        pre = jnp.exp(-(now - latest) * dt / tau_plus)
        post = jnp.exp(-(now - state.last[k]) * dt / tau_post)
        new = jnp.clip(pushed(state, k, now, delays) + rule.potentiation(pre[None], post), *rule.limits)
        change = new - old

        def correct(chunk: Array, arriving: Array) -> Array:
            sent, inputs = (jax.lax.dynamic_slice(part, (chunk * CHUNK,), (CHUNK,)) for part in (given.steps, given.inputs))
            arrival = sent + delays[inputs]
            coming = (arrival > now) & (chunk * CHUNK + jnp.arange(CHUNK) < given.drawn)
            return arriving.at[arrival, k].add(jnp.where(coming, change[inputs], 0.0), mode="drop")

        first = jnp.searchsorted(given.steps, now - longest) // CHUNK
        arriving = jax.lax.fori_loop(first, -(-given.drawn // CHUNK), correct, state.arriving)
        return _Showing(state.weights.at[:, k].set(new), arriving, state.last.at[k].set(now), state.settled.at[k].set(now))

    def until_spike(moving: tuple, arriving: Array) -> tuple:
        def one(moving: tuple) -> tuple:
            t, state, counts = moving
            state, fired = cells.step(state, arriving[t])
            return t + 1, state, counts + fired * (t < shown)

        return jax.lax.while_loop(lambda c: (c[0] < steps) & ~jnp.any(c[1].fired > 0), one, one(moving))

    def each_spike(state: _Showing, fired: Array, now: Array) -> _Showing:
        def one(carry: tuple) -> tuple:
            state, left = carry
            k = jnp.argmax(left)
            return spiked(state, k, now), left.at[k].set(False)

        return jax.lax.while_loop(lambda c: jnp.any(c[1]), one, (state, fired > 0))[0]

    def segment(carry: tuple) -> tuple:
        moving, state = carry
        moving = until_spike(moving, state.arriving)
        return moving, each_spike(state, moving[1].fired, moving[0] - 1)

    state = _Showing(module.weights, _summed(module, given, steps), -module.since / dt, jnp.full(n, -1.0))
    moving = (jnp.zeros((), jnp.int32), module.cells, jnp.zeros(n))
    (_, last, counts), state = jax.lax.while_loop(lambda c: c[0][0] < steps, segment, (moving, state))
    end = jnp.asarray(steps - 1)
    final = jax.vmap(lambda k: pushed(state, k, end, module.delays[:, k]), out_axes=1)(jnp.arange(n))
    weights = jnp.where(state.last >= 0, final, state.weights)  # who has not fired here has no trace left
    return Module(weights, module.delays, last), counts


@eqx.filter_jit
def _train(
    net: PlaceModule, module: Module, rates: Array, images: Array, key: PRNGKeyArray, size: int
) -> tuple[Module, Array, Array]:
    def one(t: Array, carry: tuple) -> tuple:
        module, counts, lost = carry
        given = _draw(rates[t], jax.random.fold_in(key, t), net.cells.dt, size)
        module, count = _present(net, module, given)
        return module, counts.at[t].set(count), lost + given.lost

    start = (module, jnp.zeros((rates.shape[0], net.cells.size)), jnp.zeros((), jnp.int32))
    return jax.lax.fori_loop(0, images, one, start)


@eqx.filter_jit
def _respond(
    net: PlaceModule, module: Module, rates: Array, images: Array, key: PRNGKeyArray, size: int
) -> tuple[Array, Array]:
    cells = net.cells.frozen()
    shown, steps = round(IMAGE / cells.dt), round((IMAGE + REST) / cells.dt)
    module = module._replace(weights=net.normalised(module.weights))

    def one(t: Array, carry: tuple) -> tuple[PlaceState, Array, Array]:
        state, counts, lost = carry
        given = _draw(rates[t], jax.random.fold_in(key, t), cells.dt, size)

        def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
            state, counts = carry
            drive, counted = now
            state, fired = cells.step(state, drive)
            return (state, counts + counted * fired), None

        now = (_summed(module, given, steps), jnp.arange(steps) < shown)
        (state, count), _ = jax.lax.scan(step, (state, jnp.zeros(cells.size)), now)
        return state, counts.at[t].set(count), lost + given.lost

    start = (cells.start(module.rise), jnp.zeros((rates.shape[0], cells.size)), jnp.zeros((), jnp.int32))
    return jax.lax.fori_loop(0, images, one, start)[1:]
