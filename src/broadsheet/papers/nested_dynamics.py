"""Deep neural networks as nested dynamical systems, arXiv 2111.01297.

A network that learns is a composite of interactions: values go forward, replies come back, and each event moves the state of
every part from what it was before the event. Composing learners is then the chain rule, and wirings can themselves learn.
The controls compose wrongly (each part answers after it has moved), or take a neighbouring operation for the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from sklearn.datasets import load_digits

from broadsheet.dynamics import Diagram, Lens, System, learner, parallel, respond, rollout, supervised, wire
from broadsheet.dynamics.interactions import InSeries, Interaction, Shared, Wiring
from broadsheet.dynamics.interfaces import Poly, count_maps, hom
from broadsheet.dynamics.learners import Learner, Market, Outcome, TargetLearner
from broadsheet.dynamics.typed_interactions import Mono, typed
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.lab.timing import compare
from broadsheet.numerics import generator

paper = Paper(
    slug="nested-dynamics",
    arxiv="2111.01297",
    title="Deep neural networks as nested dynamical systems",
    published="2021-11-01",
    authors=2,
    basis="reconstructed",
    summary="Brains are said to be like deep networks, with a neuron for a unit. The paper argues that what holds and changes "
    "weights is rather like a synapse, that the wires are like nerve cells, and that networks are dynamical systems nested in "
    "a wiring that is itself dynamical. Here systems, wirings with a state, and learners compose by that rule.",
    topics=("category theory", "dynamical systems", "backpropagation"),
    parts=(
        "broadsheet.dynamics.wire",
        "broadsheet.dynamics.learner",
        "broadsheet.dynamics.interfaces.Poly",
        "broadsheet.dynamics.typed_interactions.typed",
    ),
    tasks={"classify handwritten digits": "digits:accuracy"},
    notes=(
        "The paper has no experiments: the laws are those of the published theory it rests on, and the market of experts is "
        "our example of a wiring that learns.",
        "Other wirings that move follow a change as well: who erred least in the last 20 events loses 1 to 7 beyond a "
        "regime's best expert, fixed share 8 in the first and 17 to 21 in the second (seeds 0 to 7); who was right at the last "
        "event, 114 to 136.",
    ),
)

TANH = jax.nn.tanh


class Layer(eqx.Module):
    """`activation(W x + b)` on a batch."""

    weight: jax.Array
    bias: jax.Array
    activation: Callable = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, activation: Callable, key: Any) -> None:
        self.weight = jax.random.normal(key, (outputs, inputs)) / np.sqrt(inputs)
        self.bias = jnp.zeros(outputs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(x @ self.weight.T + self.bias)


class MovedFirst(InSeries):
    """The mistake: each part moves as soon as it has its reply, and answers with its new state."""

    def react(self, state: Any, value: Any) -> tuple[Any, Callable]:
        values = [value]
        for part, own in zip(self.members, state, strict=True):
            values.append(part.get(own, values[-1]))

        def back(reply: Any) -> tuple[Any, Any]:
            after = []
            for part, own, seen in reversed(list(zip(self.members, state, values[:-1], strict=True))):
                moved = part.update(own, seen, reply)
                reply = part.put(moved, seen, reply)
                after.append(moved)
            return reply, tuple(reversed(after))

        return values[-1], back


def _layers(sizes: tuple[int, ...], key, last: Callable = TANH) -> list[Layer]:
    activations = [TANH] * (len(sizes) - 2) + [last]
    keys = jax.random.split(key, len(sizes) - 1)
    return [Layer(a, b, f, k) for a, b, f, k in zip(sizes, sizes[1:], activations, keys, strict=False)]


def _square(prediction, target):
    return 0.5 * jnp.sum((prediction - target) ** 2) / len(prediction)


def _differences(a: Any, b: Any) -> list[np.ndarray]:
    """Absolute differences of two trees, leaf by leaf."""
    return [np.abs(np.asarray(x) - np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]


def _distance(a: Any, b: Any) -> float:
    """Largest difference between two trees with the same leaves."""
    return max(float(leaf.max()) for leaf in _differences(a, b))


@dataclass(frozen=True)
class Training:
    """A network as a composite of learners, against the gradient of the whole."""

    sizes: tuple[int, ...] = (4, 8, 8, 3)
    steps: int = 200
    batch: int = 16
    rate: float = 0.1


@paper.experiment(
    presets={"smoke": Training(steps=6), "quick": Training(), "paper": Training(sizes=(32, 64, 64, 64, 10), steps=2000)},
    claims=[
        Claim("ND1", "a composite of learners is gradient descent on the whole network", kind="check",
              ablation="moved-first",
              reference="jax.grad of the whole network and a plain loop", checks=[at_most("sgd_difference", 1e-12)]),
        Claim("ND2", "and with Adam in every learner, Adam on the whole tree", kind="check", ablation="moved-first",
              reference="optax.adam on the whole tree", checks=[at_most("adam_difference", 1e-12)]),
        Claim("ND3", "corrected values and cotangents are the same for the quadratic loss", kind="check",
              ablation="quartic",
              reference="the cotangent convention; control: another loss", checks=[at_most("target_difference", 1e-12)]),
        Claim("ND10", "an answer from the updated weights is another algorithm", kind="check",
              reference="jax.grad of the whole network; the right composite is beside it",
              checks=[at_least("difference_after_5", 1e-6, of="moved-first"), at_most("difference_after_5", 1e-12)]),
    ],
    precision="float64",
    cost=4.0,
)  # fmt: skip
def training(config: Training, key, log: Log) -> Report:
    """Weights of the composite against those of plain gradient descent, with the right order of events and the wrong one."""
    net_key, x_key, teacher_key = jax.random.split(key, 3)
    layers = _layers(config.sizes, net_key)
    x = jax.random.normal(x_key, (config.steps, config.batch, config.sizes[0]))
    y = jnp.tanh(x @ jax.random.normal(teacher_key, (config.sizes[0], config.sizes[-1])))

    def composite(optimiser, pattern: type[InSeries]):
        """The layers' weights after each step."""
        network = pattern(tuple(learner(layer, optimiser) for layer in layers))
        trained = rollout(respond(supervised(network, _square), 1.0), (x, y), record=lambda state, _: state)[1]
        return [weights for weights, _ in trained[0][0]]

    def plain(optimiser):
        weights = eqx.filter(layers, eqx.is_inexact_array)

        def loss(weights, x, y):
            for layer in eqx.combine(weights, layers):
                x = layer(x)
            return _square(x, y)

        def step(carry, data):
            weights, memory = carry
            updates, memory = optimiser.update(jax.grad(loss)(weights, *data), memory)
            weights = optax.apply_updates(weights, updates)
            return (weights, memory), weights

        return jax.lax.scan(step, (weights, optimiser.init(weights)), (x, y))[1]

    sgd, adam = optax.sgd(config.rate), optax.adam(config.rate / 10)
    exact, exact_adam = plain(sgd), plain(adam)
    arms: dict[str, dict[str, float]] = {}
    curves = {}
    for arm, pattern in (("system", InSeries), ("moved-first", MovedFirst)):
        apart = _differences(composite(sgd, pattern), exact)
        curves[arm] = np.max([leaf.reshape(config.steps, -1).max(axis=1) for leaf in apart], axis=0)
        arms[arm] = {
            "sgd_difference": curves[arm].max(),
            "difference_after_5": curves[arm][:5].max(),
            "adam_difference": _distance(composite(adam, pattern), exact_adam),
        }
        log.progress(0.4 if arm == "system" else 0.8)
    for arm, power in (("system", 2), ("quartic", 4)):
        arms.setdefault(arm, {})["target_difference"] = _target_difference(layers, x, y, config.rate / config.batch, power)
    return Report(arms=arms, arrays={name.replace("-", "_"): values for name, values in curves.items()})


def _target_difference(layers: list[Layer], x, y, rate: float, power: int) -> float:
    """Weights by corrected values (exact for power 2) less those by cotangents of sum |b - y|^power / power, 100 steps."""
    targets = InSeries(tuple(TargetLearner(layer, jnp.asarray(rate)) for layer in layers))
    cotangents = InSeries(tuple(learner(layer, optax.sgd(rate)) for layer in layers))
    loss = supervised(cotangents, lambda b, y: jnp.sum((b - y) ** power) / power)

    def step(state, data):
        x, y = data
        told, taught = state
        return (targets.update(told, x, y), loss.update(taught, (x, y), 1.0)), None

    (told, taught), _ = jax.lax.scan(step, (targets.init(), loss.init()), (x[:100], y[:100]))
    return _distance(list(told), [weights for weights, _ in taught[0][0]])


@training.figure
def drift(runs: Runs):
    """Largest difference from the weights of plain gradient descent."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.semilogy(np.maximum(data["moved_first"], 1e-17), color=CONTROL_COLOUR, label="answers after it has moved")
    axis.semilogy(np.maximum(data["system"], 1e-17), color=SYSTEM_COLOUR, label="composite of learners")
    label(axis, "step", "largest difference of a weight")
    return fig


@dataclass(frozen=True)
class Laws:
    """Events through random learners, bracketed in different ways."""

    events: int = 50
    steps: int = 100


@paper.experiment(
    presets={"smoke": Laws(events=3, steps=5), "quick": Laws(), "paper": Laws(events=1000, steps=2000)},
    claims=[
        Claim("ND4", "composition is associative and has a unit", kind="check", ablation="moved-first",
              reference="forward, backward and update written out for each part; control: parts that answer after they moved",
              checks=[at_most("associativity_error", 1e-14), at_most("unit_error", 1e-14)]),
        Claim("ND5", "side by side and one after the other can be exchanged", kind="check", ablation="crossed",
              reference="both sides bracketed the other way; control: replies that cross over",
              checks=[at_most("interchange_error", 1e-14)]),
        Claim("ND8", "wiring twice is wiring once with the composite", kind="check", ablation="swapped",
              reference="the trajectory of the system wired in two steps; control: the composite in the wrong order",
              checks=[at_most("wiring_error", 1e-12)]),
    ],
    precision="float64",
    cost=3.0,
)  # fmt: skip
def laws(config: Laws, key, log: Log) -> Report:
    """Values, replies and states of random events, composed in different ways."""
    keys = jax.random.split(key, 8)
    f, g, h = (learner(layer, optax.sgd(0.1)) for layer in _layers((3, 4, 2, 3), keys[0]))
    f2, g2, _ = (learner(layer, optax.sgd(0.1)) for layer in _layers((3, 4, 2, 3), keys[1]))
    values = jax.random.normal(keys[2], (config.events, 1, 3))
    replies = jax.random.normal(keys[3], (config.events, 1, 3))
    pairs = (values, values[::-1]), (replies[..., :2], replies[::-1, ..., :2])

    def trace(interaction: Interaction, values, replies):
        def step(state, event):
            output, back = interaction.react(state, event[0])
            reply, state = back(event[1])
            return state, (output, reply, state)

        return jax.lax.scan(step, interaction.init(), (values, replies))[1]

    def written_out(state, event):
        (s, t, u), (a, e) = state, event
        b, c = f.get(s, a), g.get(t, f.get(s, a))
        m = h.put(u, c, e)
        n = g.put(t, b, m)
        state = (f.update(s, a, n), g.update(t, b, m), h.update(u, c, e))
        return state, (h.get(u, c), f.put(s, a, n), state)

    exact = jax.lax.scan(written_out, (f.init(), g.init(), h.init()), (values, replies))[1]
    brackets = [trace(made, values, replies) for made in ((f >> g) >> h, f >> (g >> h))]
    units = [trace(made, values, replies) for made in (Wiring() >> (f >> g >> h), (f >> g >> h) >> Wiring())]
    one = trace((f >> g) @ (f2 >> g2), *pairs)
    value, reply, ((sf, sf2), (sg, sg2)) = trace((f @ f2) >> (g @ g2), *pairs)
    other = (value, reply, ((sf, sg), (sf2, sg2)))
    crossed = trace((f @ f2) >> (g @ g2) >> Wiring(Lens(lambda a: a, lambda a, e: (e[1], e[0]))), *pairs)
    log.progress(0.5)
    moved = trace(MovedFirst((f, g, h)), values, replies)
    wiring, swapped = _wiring_errors(config.steps, keys[4])
    return Report(
        arms={
            "system": {
                "associativity_error": max(_distance(found, exact) for found in brackets),
                "unit_error": max(_distance(found, exact) for found in units),
                "interchange_error": _distance(one, other),
                "wiring_error": wiring,
            },
            "moved-first": {"associativity_error": _distance(moved, exact), "unit_error": _distance(moved, exact)},
            "crossed": {"interchange_error": _distance(one[:2], crossed[:2])},
            "swapped": {"wiring_error": swapped},
        },
    )


class Oscillator(System):
    """A damped rotation of the plane that is pushed; it shows its first coordinate."""

    turn: jax.Array
    shrink: jax.Array

    def init(self, key=None):
        return jnp.array([1.0, 0.0])

    def step(self, state, inputs, key=None):
        c, s = jnp.cos(self.turn), jnp.sin(self.turn)
        after = self.shrink * jnp.stack([c * state[0] - s * state[1], s * state[0] + c * state[1]])
        return after.at[1].add(inputs), self.readout(state)

    def readout(self, state):
        return state[0]


def _wiring_errors(steps: int, key) -> tuple[float, float]:
    """Difference of trajectories: wired twice against wired once, and against the composite in the wrong order."""
    system = Oscillator(jnp.asarray(0.3), jnp.asarray(0.98))
    inner = Lens(lambda b: 2 * b, lambda b, e: 0.1 * e - 0.05 * b)
    outer = Lens(jnp.tanh, lambda b, e: e + jnp.tanh(b) ** 2)
    pushes = jax.random.normal(key, (steps,))

    def shown(system: System):
        return rollout(system, pushes, key=jax.random.key(0))[1]

    twice = shown(wire(outer, wire(inner, system)))
    return _distance(twice, shown(wire(inner >> outer, system))), _distance(twice, shown(wire(outer >> inner, system)))


@dataclass(frozen=True)
class Counting:
    """Small random polynomials."""

    cases: int = 50


@paper.experiment(
    presets={"smoke": Counting(cases=3), "quick": Counting(), "paper": Counting(cases=500)},
    claims=[
        Claim("ND6", "maps out of p ⊗ q are maps from p into [q, r]", kind="check", ablation=("wrong-product", "wrong-hom"),
              reference="the product formula on one side, [q, r] map by map on the other, where there are maps; "
              "controls: p ∘ q for p ⊗ q, and directions of q for those of r in [q, r]",
              checks=[at_most("hom_mismatches", 0)]),
        Claim("ND7", "substitution evaluates as functions do", kind="check", ablation="wrong-product",
              reference="p(q(n)), n = 0 to 4; control: p ⊗ q for p ∘ q", checks=[at_most("substitution_mismatches", 0)]),
    ],
    cost=2.0,
)  # fmt: skip
def counting(config: Counting, key, log: Log) -> Report:
    """The adjunction of ⊗ and [ , ], and the meaning of ∘, on random polynomials."""
    rng = generator(key)

    def draw() -> Poly:
        return Poly(rng.choice(4, rng.integers(1, 4), p=(0.1, 0.2, 0.4, 0.3)).tolist())

    cases: list[tuple[Poly, Poly, Poly]] = []
    while len(cases) < config.cases:
        p, q, r = draw(), draw(), Poly(draw()[:2])
        if count_maps(p @ q, r) > 1 and count_maps(q, r) < 5000:  # where there is no map, every product counts alike
            cases.append((p, q, r))
    inner = [count_maps(p, hom(q, r)) for p, q, r in cases]
    wrong = [count_maps(p, Poly([sum(q)] * count_maps(q, r))) for p, q, r in cases]
    right = {name: [count_maps(product(p, q), r) for p, q, r in cases] for name, product in PRODUCTS.items()}
    values = {name: [product(p, q)(n) == p(q(n)) for p, q, _ in cases for n in range(5)] for name, product in PRODUCTS.items()}
    return Report(
        arms={
            "system": {"hom_mismatches": _wrong(right["⊗"], inner), "substitution_mismatches": values["∘"].count(False)},
            "wrong-product": {"hom_mismatches": _wrong(right["∘"], inner), "substitution_mismatches": values["⊗"].count(False)},
            "wrong-hom": {"hom_mismatches": _wrong(right["⊗"], wrong)},
        }
    )


PRODUCTS = {"⊗": Poly.__matmul__, "∘": Poly.compose}


def _wrong(found: list[int], expected: list[int]) -> int:
    return sum(a != b for a, b in zip(found, expected, strict=True))


@dataclass(frozen=True)
class Digits:
    """The digits, by a composite of learners and by plain gradient descent."""

    hidden: int = 32
    steps: int = 300
    batch: int = 64
    rate: float = 0.2


def _digits_batches(config: Digits, key):
    digits = load_digits()
    rows = jax.random.randint(key, (config.steps, config.batch), 0, len(digits.target) // 2)
    return jnp.asarray(digits.data / 16.0)[rows], jnp.asarray(digits.target)[rows], digits


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _digit_layers(config: Digits, key) -> list[Layer]:
    return _layers((64, config.hidden, 10), key, last=lambda x: x)


def _plain_sgd(layers: list[Layer], optimiser):
    """(carry, (x, y)) -> (carry, loss): what one writes without interactions."""

    def loss(weights, x, y):
        for layer in eqx.combine(weights, layers):
            x = layer(x)
        return _cross_entropy(x, y)

    def step(carry, data):
        weights, memory = carry
        value, gradient = jax.value_and_grad(loss)(weights, *data)
        updates, memory = optimiser.update(gradient, memory)
        return (optax.apply_updates(weights, updates), memory), value

    weights = eqx.filter(layers, eqx.is_inexact_array)
    return step, (weights, optimiser.init(weights))


@paper.experiment(
    presets={"smoke": Digits(steps=3), "quick": Digits(), "paper": Digits(hidden=128, steps=5000)},
    precision="float64",
    cost=3.0,
)
def digits(config: Digits, key, log: Log) -> Report:
    """A digit classifier that trains itself, beside the plain loop."""
    net_key, data_key = jax.random.split(key)
    layers = _digit_layers(config, net_key)
    x, y, data = _digits_batches(config, data_key)
    optimiser = optax.sgd(config.rate)
    network = InSeries(tuple(learner(layer, optimiser) for layer in layers))
    state, losses = rollout(respond(supervised(network, _cross_entropy), 1.0), (x, y))
    step, start = _plain_sgd(layers, optimiser)
    (weights, _), plain = jax.lax.scan(step, start, (x, y))
    held = slice(len(data.target) // 2, None)
    answers = network.get(state[0][0], jnp.asarray(data.data[held] / 16.0)).argmax(axis=1)
    return Report(
        metrics={
            "weight_difference": _distance([own for own, _ in state[0][0]], weights),
            "accuracy": np.mean(np.asarray(answers) == data.target[held]),
        },
        arrays={"composite": losses, "plain": plain},
    )


@digits.figure
def loss_curves(runs: Runs):
    """The loss of the composite and of the plain loop, one on the other."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.plot(data["plain"], color=CONTROL_COLOUR, lw=3, label="plain gradient descent")
    axis.plot(data["composite"], color=SYSTEM_COLOUR, lw=1, label="composite of learners")
    label(axis, "step", "cross-entropy (nats)")
    return fig


@dataclass(frozen=True)
class Overhead(Digits):
    """Seconds of compiled training, composite over plain."""

    hidden: int = 128
    steps: int = 400
    repeats: int = 15


@paper.experiment(
    presets={"smoke": Overhead(hidden=8, steps=4, repeats=1), "quick": Overhead(), "paper": Overhead(hidden=512, repeats=31)},
    claims=[
        Claim("ND11", "composition costs nothing once compiled", kind="check", ablation="in-parts",
              reference="a plain jitted loop over the same batches; control: learners compiled one by one and composed as they "
              "run, against a plain compiled step that is called as often",
              checks=[at_most("time_ratio", 1.2, over="mean")]),
    ],
    exclusive=True,
    cost=6.0,
)  # fmt: skip
def overhead(config: Overhead, key, log: Log) -> Report:
    """Time of a compiled step, composite and plain in turn; medians."""
    net_key, data_key = jax.random.split(key)
    layers = _digit_layers(config, net_key)
    x, y, _ = _digits_batches(config, data_key)
    optimiser = optax.sgd(config.rate)
    parts = tuple(learner(layer, optimiser) for layer in layers)
    system = respond(supervised(InSeries(parts), _cross_entropy), 1.0)
    step, start = _plain_sgd(layers, optimiser)
    few = min(config.steps, 50)
    events = list(zip(x[:few], y[:few], strict=True))
    gets = [eqx.filter_jit(part.get) for part in parts]
    backs = [eqx.filter_jit(lambda state, value, reply, part=part: part.react(state, value)[1](reply)) for part in parts]
    loss = jax.jit(jax.value_and_grad(_cross_entropy))
    one = jax.jit(step)

    def in_parts():
        states = [part.init() for part in parts]
        for value, target in events:
            values = [value]
            for get, state in zip(gets, states, strict=True):
                values.append(get(state, values[-1]))
            _, reply = loss(values[-1], target)
            for k in reversed(range(len(parts))):
                reply, states[k] = backs[k](states[k], values[k], reply)
        return states

    def plain_calls():
        carry = start
        for event in events:
            carry, _ = one(carry, event)
        return carry

    ways: dict[str, Callable] = {
        "composite": partial(jax.jit(lambda x, y: rollout(system, (x, y))[0]), x, y),
        "plain": partial(jax.jit(lambda x, y: jax.lax.scan(step, start, (x, y))[0]), x, y),
        "parts": in_parts,
        "calls": plain_calls,
    }
    timings = compare(ways, repeats=config.repeats, report=log.progress)
    took = {name: timing.median for name, timing in timings.items()}
    return Report(
        arms={
            "system": {"time_ratio": took["composite"] / took["plain"], "microseconds": 1e6 * took["composite"] / config.steps},
            "in-parts": {"time_ratio": took["parts"] / took["calls"]},
        }
    )


@dataclass(frozen=True)
class Experts:
    """A market of experts, of whom another one is best after a while."""

    rate: float = 0.3
    share: float = 0.002
    experts: int = 4
    period: int = 500
    good: float = 0.1  # chance that the best expert errs, by 1
    bad: float = 0.6  # that another one does
    memory: int = 20  # events, of the wiring that follows the best of the last ones


FIXED = ("uniform", "best-fixed")


@paper.experiment(
    presets={"smoke": Experts(period=20, memory=5), "quick": Experts(), "paper": Experts(experts=16, period=5000)},
    claims=[
        Claim("ND9", "a wiring that learns follows a change that a fixed wiring cannot", kind="paper",
              where="the idea of dynamic interaction patterns", ablation="plain", null=FIXED, grows="period", seeds=8,
              checks=[
                  at_most("of_bound_1", {"quick": 1.0, "paper": 1.0}), at_most("of_bound_2", {"quick": 1.0, "paper": 1.0}),
                  at_least("of_bound_2", {"quick": 1.0, "paper": 1.0}, of="plain"),
                  at_most("times_uniform", {"quick": 1 / 3, "paper": 1 / 3})]),
    ],
    cost=3.0,
)  # fmt: skip
def experts(config: Experts, key, log: Log) -> Report:
    """Cumulative loss of wirings over that of each regime's best expert, and over the bound of fixed share.

    The bound on the regret in a regime of T events, ln(K / alpha) / eta + eta T / 8 + T / eta ln(1 / (1 - alpha)), is
    Herbster and Warmuth's (1998) for a forecaster that starts with a weight of alpha / K on the best expert.
    """
    sign_key, y_key, error_key = jax.random.split(key, 3)
    length = 2 * config.period
    best = jnp.arange(length) // config.period
    chance = jnp.where(jnp.arange(config.experts) == best[:, None], config.good, config.bad)
    losses = jax.random.bernoulli(error_key, chance).astype(float)
    signs = jax.random.rademacher(sign_key, losses.shape, float)
    outcomes = jax.random.uniform(y_key, (length,))
    predictions = tuple((outcomes[:, None] + losses * signs).T)

    def followed(rate: float, share: float) -> Array:
        """Weights before each event."""
        market = Market(lambda prediction, outcome: jnp.abs(prediction - outcome), config.experts, rate=rate, share=share)

        def step(state, event):
            predictions, outcome = event
            return market.react(state, predictions)[1](outcome)[1], market.weights(state)

        return jax.lax.scan(step, market.init(), (predictions, outcomes))[1]

    before = jnp.cumsum(jnp.pad(losses, ((1, 0), (0, 0))), axis=0)[:-1]
    recent = before - jnp.pad(before, ((config.memory, 0), (0, 0)))[:length]
    two = jnp.arange(config.experts) < 2
    weights = {
        "system": followed(config.rate, config.share),
        "plain": followed(config.rate, 0.0),
        "uniform": followed(0.0, 0.0),
        "best-fixed": jnp.broadcast_to(two / 2, losses.shape),
        "last-winner": _leaders(jnp.pad(losses, ((1, 0), (0, 0)))[:-1]),
        "recent-leader": _leaders(recent),
    }
    least = jnp.take_along_axis(losses, best[:, None], axis=1)[:, 0]
    regret = {arm: jnp.sum(each * losses, axis=1) - least for arm, each in weights.items()}
    per_regime = {arm: np.asarray(each.reshape(2, config.period).sum(axis=1)) for arm, each in regret.items()}
    bound = fixed_share_bound(config.experts, config.period, config.rate, config.share)
    return Report(
        arms={
            arm: {
                "regret_1": each[0],
                "regret_2": each[1],
                "of_bound_1": each[0] / bound,
                "of_bound_2": each[1] / bound,
                "times_uniform": (each / per_regime["uniform"]).max(),
            }
            for arm, each in per_regime.items()
        },
        arrays={"weights": weights["system"], **{f"regret {arm}": jnp.cumsum(each) for arm, each in regret.items()}},
    )


def _leaders(losses: Array) -> Array:
    """Equal weights on those with the smallest loss, event by event."""
    least = losses == losses.min(axis=1, keepdims=True)
    return least / least.sum(axis=1, keepdims=True)


def fixed_share_bound(experts: int, period: int, rate: float, share: float) -> float:
    """The most that fixed share can lose beyond the best expert in a regime of so many events; losses are in [0, 1]."""
    return (np.log(experts / share) - period * np.log(1 - share)) / rate + rate * period / 8


@experts.figure
def trust(runs: Runs):
    """Weights of the experts, and the regret of fixed share, of wirings that are fixed and of other wirings that move."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for k, row in enumerate(data["weights"].T):
        left.plot(row, label=f"expert {k + 1}")
    label(left, "event", "weight", "fixed share")
    for name, text, style, colour in (
        ("uniform", "uniform average", ":", CONTROL_COLOUR),
        ("best-fixed", "the two best in equal parts", "-.", CONTROL_COLOUR),
        ("plain", "plain weights", "--", CONTROL_COLOUR),
        ("last-winner", "who was right at last", ":", COLOURS[1]),
        ("recent-leader", "the best of the last 20", "--", COLOURS[1]),
        ("system", "fixed share", "-", SYSTEM_COLOUR),
    ):
        right.plot(data[f"regret {name}"], style, color=colour, label=text)
    label(right, "event", "loss beyond the best expert's")
    return fig


@dataclass(frozen=True)
class Nest:
    """Neurons in layers in networks in a market."""

    experts: int = 3
    neurons: int = 4
    inputs: int = 2
    steps: int = 400


def _scale(b, y):
    return 0.5 * jnp.sum((b - y) ** 2)


@paper.experiment(
    presets={"smoke": Nest(steps=4), "quick": Nest(), "paper": Nest(experts=8, neurons=16, steps=20_000)},
    cost=4.0,
)
def nesting(config: Nest, key, log: Log) -> Report:
    """Four levels in one state: neuron, layer, network, market; each event moves them all."""
    keys = jax.random.split(key, config.experts + 2)
    networks = Shared(tuple(_network(config, keys[k], 0.3 / 10**k) for k in range(config.experts)))
    experts = Market(lambda b, y: jnp.minimum(jnp.abs(b - y).sum(), 1.0), config.experts)
    market = networks >> experts
    x = jax.random.normal(keys[-1], (config.steps, config.inputs))
    y = jnp.sin(x.sum(axis=1, keepdims=True))

    def step(state, event):
        value, back = market.react(state, event[0])
        reply, state = back(event[1])
        return state, (jnp.abs(value - event[1])[0], experts.weights(state[-1]), value, reply)

    state, (error, weights, values, replies) = jax.lax.scan(step, market.init(), (x, y))
    tenth = max(1, config.steps // 10)
    return Report(
        metrics={
            "first_error": error[:tenth].mean(),
            "last_error": error[-tenth:].mean(),
            "leaves": len(jax.tree.leaves(state)),
        },
        arrays={"error": error, "weights": weights, "values": values[-5:], "replies": replies[-5:]},
    )


def _network(config: Nest, key, rate: float) -> Interaction:
    """A layer of neurons, each a learner of its own, and a neuron that reads them."""
    *keys, last = jax.random.split(key, config.neurons + 1)
    optimiser = optax.sgd(rate)
    neurons = Shared(tuple(Learner(Layer(config.inputs, 1, TANH, k), optimiser) for k in keys))
    gather = Wiring(
        Lens(lambda parts: jnp.concatenate(parts), lambda parts, reply: tuple(reply[k : k + 1] for k in range(len(parts))))
    )
    whole = neurons >> gather >> Learner(Layer(config.neurons, 1, lambda b: b, last), optimiser) >> Outcome(_scale)
    return typed(whole, Mono((config.inputs,), (config.inputs,)), Mono((1,), (1,)))


@nesting.figure
def market_of_networks(runs: Runs):
    """The market's error, and whom it trusts: networks that learn at different rates."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    window = min(20, len(data["error"]))
    left.plot(np.convolve(data["error"], np.ones(window) / window, mode="valid"), color=SYSTEM_COLOUR, label="market")
    label(left, "event", "absolute error")
    for k, row in enumerate(data["weights"].T):
        right.plot(row, label=f"network {k + 1}, rate {0.3 / 10**k:g}")
    label(right, "event", "weight in the market")
    return fig


class Controller(System):
    """A proportional-integral controller: the error in, a push out one step later."""

    gain: jax.Array
    integral: jax.Array

    def init(self, key=None):
        return jnp.zeros(2)

    def step(self, state, inputs, key=None):
        total = state[1] + self.integral * inputs
        return jnp.stack([self.gain * inputs + total, total]), state[0]

    def readout(self, state):
        return state[0]


class Plant(System):
    """A leaky integrator that shows the negative of its level, so that a sum is an error."""

    leak: jax.Array

    def init(self, key=None):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        return self.leak * state + inputs, self.readout(state)

    def readout(self, state):
        return -state


class Rate(System):
    """One recurrent layer as a Moore system."""

    weight: jax.Array

    def init(self, key=None):
        return jnp.zeros(len(self.weight))

    def step(self, state, inputs, key=None):
        return jnp.tanh(self.weight @ state + inputs), state

    def readout(self, state):
        return state


@dataclass(frozen=True)
class Gallery:
    """Three diagrams."""

    steps: int = 200


CONTROL_LOOP = Diagram({"plant": ("controller",), "controller": ("plant", "in")}, out=("plant",))
OSCILLATORS = Diagram({"one": ("other",), "other": ("one",)}, out=("one", "other"))
FILTERED = Diagram({"layer": ("in",), "filter": ("layer",)}, out=("filter",))


@paper.experiment(
    presets={"smoke": Gallery(steps=10), "quick": Gallery(), "paper": Gallery(steps=5000)},
    cost=2.0,
)
def gallery(config: Gallery, key, log: Log) -> Report:
    """Two oscillators in a loop, a controller and its plant, a recurrent layer behind a filter: each from its diagram."""
    loop = wire(CONTROL_LOOP, parallel(Plant(jnp.asarray(0.9)), Controller(jnp.asarray(0.2), jnp.asarray(0.02))))
    level = -rollout(loop, jnp.ones(config.steps))[1]
    pair = wire(OSCILLATORS, _coupled())
    one, other = rollout(pair, steps=config.steps)[1]
    weight = 0.9 * jax.random.normal(key, (4, 4)) / 2
    layered = wire(FILTERED, parallel(Rate(weight), Rate(0.9 * jnp.eye(4))))
    filtered = rollout(layered, jnp.sin(jnp.arange(config.steps) / 5)[:, None] * jnp.ones(4))[1]
    return Report(
        metrics={"settled": level[-1], "overshoot": level.max() - 1},
        arrays={"level": level, "one": one, "other": other, "filtered": filtered},
    )


def _coupled() -> System:
    """Two oscillators that push each other a little."""
    gain = Lens(lambda b: b, lambda b, e: 0.05 * e)
    return parallel(*(wire(gain, Oscillator(jnp.asarray(turn), jnp.asarray(0.999))) for turn in (0.30, 0.33)))


@gallery.figure
def diagrams(runs: Runs):
    """Each diagram and what it does."""
    data = runs["system"].arrays
    fig, axes = figure(3)
    axes[0].plot(data["level"], color=SYSTEM_COLOUR, label="plant")
    axes[0].axhline(1.0, color=CONTROL_COLOUR, label="set point")
    label(axes[0], "step", "level", _words(CONTROL_LOOP))
    axes[1].plot(data["one"], color=SYSTEM_COLOUR, label="one")
    axes[1].plot(data["other"], color=CONTROL_COLOUR, label="other")
    label(axes[1], "step", "displacement", _words(OSCILLATORS))
    axes[2].plot(data["filtered"][:, 0], color=SYSTEM_COLOUR, label="filter, unit 1")
    label(axes[2], "step", "rate", _words(FILTERED))
    return fig


def _words(diagram: Diagram) -> str:
    return ";  ".join(f"{' + '.join(sources)} → {box}" for box, sources in diagram.wires.items())
