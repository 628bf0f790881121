"""Deep networks of single flux quanta, arXiv 2311.10721: neurons and synapses of Josephson junctions, tuned by bias currents.

A neuron is one junction that collects decaying currents; its bias says how many coincident fluxons make it fire. A synapse
is a pair of junctions that decide over each fluxon; its bias says how probably one passes. Two layers compute exclusive or.
Circuits and values are ours: the paper's schematics and margins were not at hand. The control has the bias, the leak, the
decision or the layer missing. Units: ps, µA, µV, Ω, pH.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.dynamics import rollout
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.neurons.flux_rates import RateNetwork, rate_xor
from broadsheet.neurons.josephson import (
    FLUX_QUANTUM,
    Circuit,
    Josephson,
    flux_neuron,
    flux_synapse,
    fluxons,
    pulse_train,
    transmission_line,
    xor_network,
)

paper = Paper(
    slug="sfq-neuromorphic",
    arxiv="2311.10721",
    title="Deep Neuromorphic Networks with Superconducting Single Flux Quanta",
    published="2023-09-21",
    authors=4,
    basis="reconstructed",
    summary="Neural networks of ordinary single-flux-quantum logic: a fluxon is a spike, a junction that collects decaying "
    "currents is a neuron, a pair of junctions that decides over each fluxon is a synapse. Threshold and weight are bias "
    "currents; two layers compute exclusive or with picosecond pulses.",
    topics=("superconducting circuits", "neuromorphic hardware", "spiking networks"),
    parts=("broadsheet.neurons.Circuit", "broadsheet.neurons.RateNetwork", "broadsheet.neurons.josephson.xor_network"),
    verbs=("broadsheet neurons spice xor --out xor.cir",),
    notes=(
        "The abstract was read, and that of a sequel; circuits, component values, margins and rates are ours, and say nothing "
        "about the authors' own.",
        "Pulses were not compared with JoSIM, which could not be had; decks for it are written by `broadsheet neurons spice`.",
    ),
)

CASES = ((0, 0), (0, 1), (1, 0), (1, 1))
TRAIN = (60.0, 160.0, 260.0)  # ps
LENGTH = 400.0  # ps


def drives(trains: Sequence[Sequence[float]], dt: float, length: float = LENGTH) -> jax.Array:
    """[steps, inputs] currents of pulse trains."""
    steps = round(length / dt)
    return jnp.asarray(np.stack([pulse_train(times, steps, dt) for times in trains], 1), float)


@eqx.filter_jit
def last_phase(system: Josephson, inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Node phases at the end."""
    return rollout(system, inputs, key=key, record=lambda state, phase: None)[0].phase


def dual_rail(a: int, b: int) -> list[Sequence[float]]:
    """Pulse trains of A, not A, B, not B."""
    return [TRAIN if on else () for on in (a, not a, b, not b)]


@dataclass(frozen=True)
class Primitives:
    """Lines, a bare junction, and a neuron of two inputs, without noise."""

    dt: float = 0.05  # ps
    heights: tuple[float, ...] = (0.9, 1.0, 1.1, 1.2)  # of the stimulus
    lines: tuple[float, ...] = (60.0, 70.0, 80.0)  # bias of the line, µA
    delays: tuple[float, ...] = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)  # ps between the two inputs
    rsj_length: float = 2000.0  # ps


@paper.experiment(
    presets={
        "smoke": Primitives(heights=(1.0,), lines=(70.0,), delays=(0.0, 30.0), rsj_length=400.0),
        "quick": Primitives(),
        "paper": Primitives(dt=0.02, delays=tuple(float(d) for d in range(0, 61, 2)), rsj_length=10_000.0),
    },
    claims=[
        Claim("C1", "a pulse carries one flux quantum, whatever set it off and whatever the line's bias", kind="check",
              ablation="height", reference="h / 2e; the pulses' height is not fixed", checks=[at_most("spread", 0.005)]),
        Claim("C2", "an overdamped junction follows the resistively shunted one", kind="check", ablation="underdamped",
              reference="V = Ic R sqrt(i² - 1)", checks=[at_most("rsj_error", 0.01)]),
        Claim("C3", "the bias tunes the neuron's threshold: never, on coincidence, on any pulse", kind="paper",
              where="abstract", ablation="one-bias", null=NONE_YET, checks=[equals("table_errors", 0)]),
        Claim("C4", "the neuron leaks: pulses that lie apart do not add up", kind="paper", where="abstract: neuron",
              ablation="no-leak", null=NONE_YET,
              checks=[at_least("window", 15.0), at_most("window", 20.0), at_most("window_fast", 5.0)]),
    ],
    deterministic=True,
    cost=15.0,
)  # fmt: skip
def primitives(config: Primitives, key, log: Log) -> Report:
    """Pulse areas, a bare junction against its closed form, and a neuron's threshold and window of coincidence."""
    areas, heights = pulse_shapes(config)
    log.progress(0.2)
    biases = jnp.array([0.0, 45.0, 100.0])
    expected = np.array([[0, 0, 0], [0, 0, 3], [3, 3, 3]])
    table = neuron_table(biases, config.dt)
    log.progress(0.5)
    windows = {name: window(config, resistance) for name, resistance in (("system", 1.0), ("fast", 2.0), ("no-leak", 0.02))}
    arms = {
        "system": {
            "spread": np.abs(areas / FLUX_QUANTUM - 1).max(),
            "rsj_error": max(abs(rsj_voltage(i, 0.005, config) / math.sqrt(i * i - 1) - 1) for i in (1.5, 2.0)),
            "table_errors": (table != expected).sum(),
            "window": windows["system"],
            "window_fast": windows["fast"],
        },
        "height": {"spread": np.abs(heights / heights.mean() - 1).max()},
        "underdamped": {"rsj_error": max(abs(rsj_voltage(i, 4.0, config) / math.sqrt(i * i - 1) - 1) for i in (1.5, 2.0))},
        "one-bias": {"table_errors": (np.tile(table[1], (3, 1)) != expected).sum()},
        "no-leak": {"window": windows["no-leak"], "window_fast": windows["no-leak"]},
    }
    sweep = np.linspace(0.0, 120.0, 13)
    return Report(arms=arms, arrays={"bias": sweep, "fired": neuron_table(jnp.asarray(sweep), config.dt), **_waveform(config)})


def pulse_shapes(config: Primitives) -> tuple[np.ndarray, np.ndarray]:
    """(areas in µV ps, heights in µV) of pulses on a line, for each height of the stimulus and each bias."""
    areas, heights = [], []
    for bias in config.lines:
        circuit = Circuit()
        first, _ = transmission_line(circuit, "line", 8, bias=bias)
        circuit.drive(first)
        system = circuit.build(dt=config.dt)
        for height in config.heights:
            inputs = height * drives([(60.0,)], config.dt, 120.0)
            _, voltage = rollout(system, inputs, record=lambda state, phase: state.voltage[5])
            pulse = np.asarray(voltage)[round(40.0 / config.dt) :]
            areas.append(pulse.sum() * config.dt)
            heights.append(pulse.max())
    return np.array(areas), np.array(heights)


def rsj_voltage(i: float, damping: float, config: Primitives) -> float:
    """Mean voltage of one junction under a constant current, over Ic R, from whole turns of its phase."""
    circuit = Circuit()
    node = circuit.junction("j", damping=damping)
    circuit.bias(node, 100.0 * i)
    steps = round(config.rsj_length / config.dt)
    _, phase = rollout(circuit.build(dt=config.dt), steps=steps, record=lambda state, phase: phase[0])
    turns = np.diff(np.asarray(fluxons(phase))[steps // 5 :]).nonzero()[0]
    mean = FLUX_QUANTUM * (len(turns) - 1) / ((turns[-1] - turns[0]) * config.dt)
    return mean / (100.0 * circuit.junctions[0].shunt)


def two_input_neuron(resistance: float, dt: float, bias: float = 45.0) -> tuple[Josephson, int]:
    """A neuron of two lines; its threshold is the second supply line."""
    circuit = Circuit()
    ends = []
    for name in ("A", "B"):
        first, last = transmission_line(circuit, name, 3)
        circuit.drive(first)
        ends.append(last)
    out = flux_neuron(circuit, "N", ends, bias=bias, resistance=resistance)
    system = circuit.build(dt=dt)
    return system, system.node(out)


def neuron_table(biases: jax.Array, dt: float) -> np.ndarray:
    """[biases, 3] pulses out of the neuron for three pulses on A, on B, on both."""
    system, out = two_input_neuron(1.0, dt, bias=1.0)
    inputs = jnp.stack([drives(trains, dt) for trains in ((TRAIN, ()), ((), TRAIN), (TRAIN, TRAIN))])
    run = jax.vmap(
        jax.vmap(lambda bias, x: last_phase(system.scaled(jnp.stack([jnp.ones(()), bias])), x)[out], (None, 0)), (0, None)
    )
    return np.asarray(fluxons(run(biases, inputs)))


def window(config: Primitives, resistance: float) -> float:
    """The largest delay, ps, at which two pulses still make the neuron fire."""
    system, out = two_input_neuron(resistance, config.dt)
    inputs = jnp.stack([drives(((60.0,), (60.0 + delay,)), config.dt, 200.0) for delay in config.delays])
    fired = np.asarray(fluxons(jax.vmap(lambda x: last_phase(system, x)[out])(inputs)))
    return max((delay for delay, count in zip(config.delays, fired, strict=True) if count), default=-1.0)


def _waveform(config: Primitives) -> dict[str, np.ndarray]:
    """Voltages of inputs and output of the neuron for a coincidence and for pulses apart."""
    system, out = two_input_neuron(1.0, config.dt)
    nodes = jnp.array([system.node("A.2"), system.node("B.2"), out])
    inputs = drives(((60.0, 120.0), (60.0, 150.0)), config.dt, 200.0)
    _, voltage = rollout(system, inputs, record=lambda state, phase: state.voltage[nodes], every=4)
    return {"voltage": np.asarray(voltage), "time": np.arange(len(voltage)) * 4 * config.dt}


@primitives.figure
def neuron(runs: Runs):
    """One fluxon on each input: together they make the neuron fire, apart they do not; and how its bias sets the threshold."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for k, (name, colour) in enumerate((("A", "#c2571a"), ("B", "#4b8b3b"), ("output", SYSTEM_COLOUR))):
        left.plot(data["time"], data["voltage"][:, k] / 1000 + 1.2 * (2 - k), color=colour, label=name)
    left.set_xlim(40, 190)
    label(left, "time (ps)", "voltage (mV), shifted")
    for k, name in enumerate(("A alone", "B alone", "both")):
        right.plot(data["bias"], data["fired"][:, k] + 0.04 * k, marker="o", ms=4, label=name)
    label(right, "bias of the neuron (µA)", "pulses out of three")
    return fig


@dataclass(frozen=True)
class Synapse:
    """Pulses through a synapse at finite temperature."""

    weights: tuple[float, ...] = (44.0, 48.0, 50.0, 52.0, 54.0, 56.0, 58.0, 60.0, 62.0, 64.0, 66.0, 70.0)  # µA
    temperatures: tuple[float, ...] = (4.2, 10.0)  # K
    pulses: int = 12
    trains: int = 8
    period: float = 60.0  # ps
    dt: float = 0.05  # ps


@paper.experiment(
    presets={
        "smoke": Synapse(weights=(44.0, 56.0, 70.0), pulses=2, trains=2),
        "quick": Synapse(),
        "paper": Synapse(pulses=50, trains=40, period=100.0, weights=tuple(float(w) for w in range(40, 76, 2))),
    },
    claims=[
        Claim("C5", "the bias is the weight: it sets how probably a pulse passes, and heat softens the step", kind="paper",
              where="abstract: bias currents as weights; the sequel: stochastic synapses", ablation="no-escape",
              null=NONE_YET,
              answers_to={"no-escape": "Without a junction to escape through each pulse passes at any bias: there is no step, "
                          "and it has no width."},
              checks=[at_most("passed_low", 0.02), at_least("passed_high", 0.98), at_most("largest_fall", 0.15),
                      at_least("width_ratio", 1.2)]),
    ],
    cost=20.0,
)  # fmt: skip
def synapse(config: Synapse, key, log: Log) -> Report:
    """Share of pulses that pass against the bias, at two temperatures; the control has no junction to escape through."""
    arms, arrays = {}, {"weights": np.array(config.weights)}
    for name, escape in (("system", 60.0), ("no-escape", 1000.0)):
        passed = np.stack([pass_rates(config, escape, temperature, key) for temperature in config.temperatures])
        arrays[name] = passed
        widths = [grey_zone(np.array(config.weights), row) for row in passed]
        arms[name] = {
            "passed_low": passed[0, 0],
            "passed_high": passed[0, list(config.weights).index(max(w for w in config.weights if w <= 70))],
            "largest_fall": max(0.0, -np.diff(passed[0]).min()),
            "width": widths[0],
            "width_ratio": widths[1] / widths[0] if widths[0] > 0 else float("nan"),
        }
        log.progress(0.5 if name == "system" else 1.0)
    return Report(arms=arms, arrays=arrays)


def pass_rates(config: Synapse, escape: float, temperature: float, key: jax.Array) -> np.ndarray:
    """[weights] share of pulses that pass."""
    circuit = Circuit()
    first, last = transmission_line(circuit, "in", 3)
    circuit.drive(first)
    out = flux_synapse(circuit, "S", last, weight=1.0, escape=escape)
    system = circuit.build(dt=config.dt, temperature=temperature)
    line, place = circuit.groups().index("weights"), system.node(out)
    times = [60.0 + config.period * k for k in range(config.pulses)]
    inputs = drives([times], config.dt, 100.0 + config.period * config.pulses)
    factors = jnp.ones((len(config.weights), 2)).at[:, line].set(jnp.array(config.weights))
    keys = jax.random.split(key, (len(config.weights), config.trains))
    run = jax.vmap(jax.vmap(lambda f, k: last_phase(system.scaled(f), inputs, k)[place], (None, 0)))
    return np.asarray(fluxons(run(factors, keys))).mean(1) / config.pulses


def grey_zone(weights: np.ndarray, passed: np.ndarray) -> float:
    """The width of the error function that fits the passing probability, µA; 0 where there is no step."""
    from scipy.optimize import curve_fit
    from scipy.special import erf

    if passed.max() - passed.min() < 0.5:
        return 0.0
    start = (float(np.interp(0.5, np.maximum.accumulate(passed), weights)), 5.0)
    (_, width), _ = curve_fit(lambda w, m, d: 0.5 * (1 + erf(math.sqrt(math.pi) * (w - m) / d)), weights, passed, start)
    return abs(float(width))


@synapse.figure
def weight(runs: Runs):
    """Probability that a fluxon passes against the bias: a step that heat softens; without the escape junction all pass."""
    data = runs["system"].arrays
    fig, axis = figure()
    for row, (name, colour) in enumerate((("4.2 K", SYSTEM_COLOUR), ("10 K", "#c2571a"))):
        axis.plot(data["weights"], data["system"][row], "o-", ms=4, color=colour, label=name)
    axis.plot(data["weights"], data["no-escape"][0], "s--", ms=3, color=CONTROL_COLOUR, label="no escape junction, 4.2 K")
    label(axis, "bias of the synapse (µA)", "share of pulses that pass")
    return fig


@dataclass(frozen=True)
class Xor:
    """Exclusive or of two dual-rail pulse trains."""

    hidden: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)  # factors of a supply line
    output: tuple[float, ...] = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12, 1.16, 1.2)
    lines: tuple[float, ...] = (0.5, 0.6, 0.7, 0.76, 0.8, 0.9, 1.0, 1.1, 1.2, 1.24, 1.3)
    single: tuple[float, ...] = (10.0, 30.0, 45.0, 60.0, 80.0, 90.0, 105.0, 115.0)  # biases of the one-layer control, µA
    noisy: int = 10  # runs of each case at 4.2 K
    dt: float = 0.05  # ps


EXPECTED = np.array([0, 3, 3, 0])


def _factors(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(round(first + k * step, 4) for k in range(round((last - first) / step) + 1))


@paper.experiment(
    presets={
        "smoke": Xor(hidden=(0.9, 1.0), output=(1.0,), lines=(1.0,), single=(45.0,), noisy=1),
        "quick": Xor(),
        "paper": Xor(
            hidden=_factors(0.2, 2.0, 0.05), output=_factors(0.6, 1.4, 0.02), lines=_factors(0.3, 1.5, 0.05), noisy=250
        ),
    },
    claims=[
        Claim("C6", "two layers of neurons compute exclusive or", kind="paper", where="abstract: XOR at circuit level",
              ablation="one-layer", null=NONE_YET, checks=[equals("errors", 0), at_most("noisy_errors", 0.0)]),
        Claim("C7", "with wide margins of the bias currents", kind="paper", where="abstract: wide margins",
              ablation="one-layer", null=NONE_YET,
              checks=[at_least("hidden_margin", 0.4), at_least("output_margin", 0.12), at_least("line_margin", 0.2)]),
    ],
    cost=30.0,
)  # fmt: skip
def xor(config: Xor, key, log: Log) -> Report:
    """Pulses out for the four inputs, without noise and at 4.2 K, and how far each supply line may be off."""
    circuit, out = xor_network()
    system = circuit.build(dt=config.dt)
    place, groups = system.node(out), circuit.groups()
    inputs = jnp.stack([drives(dual_rail(a, b), config.dt) for a, b in CASES])

    def counts(system: Josephson, factors: jax.Array, keys: jax.Array | None = None) -> np.ndarray:
        """[settings, cases] pulses out."""

        def one(factor: jax.Array, x: jax.Array, k: jax.Array | None) -> jax.Array:
            return last_phase(system.scaled(factor), x, k)[place]

        axis = None if keys is None else 0
        return np.asarray(fluxons(jax.vmap(jax.vmap(one, (None, 0, axis)), (0, None, axis))(factors, inputs, keys)))

    nominal = counts(system, jnp.ones((1, len(groups))))[0]
    log.progress(0.1)
    hot = circuit.build(dt=config.dt, temperature=4.2)
    noisy = counts(hot, jnp.ones((config.noisy, len(groups))), jax.random.split(key, (config.noisy, 4)))
    log.progress(0.3)
    arrays, metrics = {}, {"errors": (nominal != EXPECTED).sum(), "noisy_errors": (noisy != EXPECTED).mean()}
    for name, factors in (("hidden", config.hidden), ("output", config.output), ("lines", config.lines)):
        settings = jnp.ones((len(factors), len(groups))).at[:, groups.index(name)].set(jnp.array(factors))
        works = (counts(system, settings) == EXPECTED).all(1)
        arrays[f"{name}_factors"], arrays[f"{name}_works"] = np.array(factors), works
        metrics[f"{name.removesuffix('s')}_margin"] = margin(np.array(factors), works)
    log.progress(0.8)
    single = one_layer(config)
    width = margin(np.array(config.single) / 45.0, (single == EXPECTED).all(1))
    control = {
        "errors": (single != EXPECTED).sum(1).min(),
        "noisy_errors": (single != EXPECTED).mean(1).min(),
        **dict.fromkeys(("hidden_margin", "output_margin", "line_margin"), width),
    }
    nodes = jnp.array([system.node(name) for name in ("A.2", "B.2", "H1.out.1", "H2.out.1", out)])
    traces = jax.vmap(lambda x: rollout(system, x, record=lambda state, phase: state.voltage[nodes], every=8)[1])(inputs)
    arrays |= {"traces": np.asarray(traces), "time": np.arange(traces.shape[1]) * 8 * config.dt}
    return Report(arms={"system": metrics, "one-layer": control}, arrays=arrays)


def margin(factors: np.ndarray, works: np.ndarray) -> float:
    """How far a supply line may be off to either side, as a share, with everything in between working."""
    nominal = int(np.argmin(np.abs(factors - 1.0)))
    if not works[nominal]:
        return 0.0
    low = high = nominal
    while low > 0 and works[low - 1]:
        low -= 1
    while high + 1 < len(works) and works[high + 1]:
        high += 1
    return round(float(min(1.0 - factors[low], factors[high] - 1.0)), 6)


def one_layer(config: Xor) -> np.ndarray:
    """[biases, cases] pulses out of one neuron that gets A and B."""
    system, out = two_input_neuron(1.0, config.dt, bias=1.0)
    inputs = jnp.stack([drives([TRAIN if a else (), TRAIN if b else ()], config.dt) for a, b in CASES])
    run = jax.vmap(
        jax.vmap(lambda bias, x: last_phase(system.scaled(jnp.stack([jnp.ones(()), bias])), x)[out], (None, 0)), (0, None)
    )
    return np.asarray(fluxons(run(jnp.array(config.single), inputs)))


@xor.figure
def waveforms(runs: Runs):
    """Voltages of inputs, hidden neurons and output: the output answers where exactly one input has pulses."""
    data = runs["system"].arrays
    fig, axes = figure(4, width=2.6, height=3.4)
    names = ("A", "B", "hidden 1", "hidden 2", "output")
    colours = ("#c2571a", "#4b8b3b", "#7a4fa3", "#b8860b", SYSTEM_COLOUR)
    for axis, case, traces in zip(axes, CASES, data["traces"], strict=True):
        for k, colour in enumerate(colours):
            axis.plot(data["time"], traces[:, k] / 1000 + 1.2 * (4 - k), color=colour, lw=1)
        axis.set_ylim(-0.4, 6.2)
        axis.set_yticks([1.2 * (4 - k) for k in range(5)], names if case == (0, 0) else [""] * 5)
        label(axis, "time (ps)", "voltage (1.2 mV between lines)", f"A = {case[0]}, B = {case[1]}")
    return fig


@xor.figure
def margins(runs: Runs):
    """For which factors of each supply line the network still computes exclusive or (all others at their nominal values)."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.0, height=2.2)
    for row, name in enumerate(("lines", "output", "hidden")):
        factors, works = data[f"{name}_factors"], data[f"{name}_works"].astype(bool)
        axis.plot(factors[works], np.full(works.sum(), row), "s", color=SYSTEM_COLOUR, label="works" if row == 0 else None)
        axis.plot(factors[~works], np.full((~works).sum(), row), "x", color=CONTROL_COLOUR, label="fails" if row == 0 else None)
    axis.set_yticks(range(3), ["lines", "output neuron", "hidden neurons"])
    axis.axvline(1.0, color="#999999", lw=0.8)
    label(axis, "bias over its nominal value", "supply line")
    return fig


@dataclass(frozen=True)
class Rates:
    """Exclusive or of rates, and two digits told apart by a network whose weights are bias currents."""

    probability: float = 0.95  # that a synapse passes a pulse
    low: float = 0.1  # rate of a 0, pulses a slot
    high: float = 0.9
    slots: int = 10_000
    steps: int = 150
    hidden: int = 8


@paper.experiment(
    presets={"smoke": Rates(slots=500, steps=3), "quick": Rates(), "paper": Rates(slots=1_000_000, steps=3000, hidden=32)},
    claims=[
        Claim("C8", "a deep network of stochastic synapses computes exclusive or of rates", kind="paper",
              where="abstract: XOR at architecture level", ablation="half", null=NONE_YET, grows="steps",
              checks=[at_most("sampling_error", 4.0), at_least("margin", 0.4)]),
    ],
    cost=10.0,
)  # fmt: skip
def rates(config: Rates, key, log: Log) -> Report:
    """Sampled rates against expected ones, the margin of the answer, and digits 0 and 1 learned by bias currents."""
    answers = {"system": xor_rates(config, config.probability, key), "half": xor_rates(config, 0.5, key)}
    arms = {}
    for name, (expected, sampled) in answers.items():
        error = np.abs(sampled - expected) / np.sqrt(expected * (1 - expected) / config.slots)
        arms[name] = {"sampling_error": error.max(), "margin": sampled[[1, 2]].min() - sampled[[0, 3]].max()}
    log.progress(0.3)
    arms["system"] |= learn_digits(config, key)
    arrays = {
        f"{name}_{kind}": values
        for name, pair in answers.items()
        for kind, values in zip(("expected", "sampled"), pair, strict=True)
    }
    return Report(arms=arms, arrays=arrays)


def xor_rates(config: Rates, probability: float, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """(expected, sampled) output rates of the four inputs."""
    network = rate_xor(probability)
    level = {0: config.low, 1: config.high}
    inputs = jnp.array([[level[a], level[1 - a], level[b], level[1 - b]] for a, b in CASES])
    expected = jax.vmap(network.rates)(inputs)[:, 0]
    sampled = jnp.stack(
        [network.sample(x, config.slots, k).mean(0)[0] for x, k in zip(inputs, jax.random.split(key, 4), strict=True)]
    )
    return np.asarray(expected, float), np.asarray(sampled, float)


def learn_digits(config: Rates, key: jax.Array) -> dict[str, float]:
    """Accuracy on held-out zeros and ones of scikit-learn's digits, by expected rates and in 50 slots of pulses."""
    import optax
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(n_class=2, return_X_y=True)
    rates_in = np.concatenate([pixels / 16, 1 - pixels / 16], 1)
    order = np.asarray(jax.random.permutation(key, len(digit)))
    train, test = order[:240], order[240:]
    k1, k2, k3 = jax.random.split(key, 3)
    first = 53.0 + 3.0 * jax.random.normal(k1, (config.hidden, 128))
    second = 57.0 + 3.0 * jax.random.normal(k2, (1, config.hidden))
    network = RateNetwork((first, second), (20, max(1, config.hidden // 3)))
    x, y = jnp.asarray(rates_in), jnp.asarray(digit, float)

    def loss(biases: tuple, inputs: jax.Array, wanted: jax.Array) -> jax.Array:
        out = jax.vmap(eqx.tree_at(lambda n: n.biases, network, biases).rates)(inputs)[:, 0]
        out = jnp.clip(out, 1e-5, 1 - 1e-5)
        return -(wanted * jnp.log(out) + (1 - wanted) * jnp.log(1 - out)).mean()

    rule = optax.adam(0.3)
    biases, state = network.biases, rule.init(network.biases)

    @jax.jit
    def step(biases: tuple, state: optax.OptState) -> tuple:
        updates, state = rule.update(jax.grad(loss)(biases, x[train], y[train]), state)
        return optax.apply_updates(biases, updates), state

    for _ in range(config.steps):
        biases, state = step(biases, state)
    learned = eqx.tree_at(lambda n: n.biases, network, biases)
    expected = jax.vmap(learned.rates)(x[test])[:, 0]
    pulses = jax.vmap(lambda one, k: learned.sample(one, 50, k).mean(0)[0])(x[test], jax.random.split(k3, len(test)))
    return {
        "digits_accuracy": float(((expected > 0.5) == y[test]).mean()),
        "digits_accuracy_50_slots": float(((pulses > 0.5) == y[test]).mean()),
    }


@rates.figure
def rate_table(runs: Runs):
    """Output rate for the four inputs, expected and sampled; with synapses that pass half of the pulses the answer drowns."""
    data = runs["system"].arrays
    fig, axis = figure()
    at = np.arange(4)
    axis.bar(at - 0.2, data["system_expected"], 0.38, color=SYSTEM_COLOUR, label="95 % pass")
    axis.bar(at + 0.2, data["half_expected"], 0.38, color=CONTROL_COLOUR, label="50 % pass")
    axis.plot(at - 0.2, data["system_sampled"], "k_", ms=14)
    axis.plot(at + 0.2, data["half_sampled"], "k_", ms=14, label="sampled")
    axis.set_xticks(at, [f"{a}{b}" for a, b in CASES])
    label(axis, "inputs A B", "output rate (pulses a slot)")
    return fig


@dataclass(frozen=True)
class Yield:
    """Exclusive or with components that differ from what was drawn."""

    spreads: tuple[float, ...] = (0.02, 0.05, 0.1)  # standard deviation of critical currents, inductances and resistances
    circuits: int = 12
    dt: float = 0.1  # ps


@paper.experiment(
    presets={"smoke": Yield(spreads=(0.02,), circuits=1), "quick": Yield(), "paper": Yield(circuits=500, dt=0.05)},
    claims=[
        Claim("C9", "nine of ten circuits work where components spread by 2 %", kind="check", seeds=1,
              reference="the nominal circuit", checks=[at_least("yield_2", {"paper": 0.9})]),
    ],
    cost=10.0,
)  # fmt: skip
def component_spread(config: Yield, key, log: Log) -> Report:
    """The share of circuits that compute exclusive or with random components."""
    inputs = jnp.stack([drives(dual_rail(a, b), config.dt) for a, b in CASES])
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    works = {}
    for spread in config.spreads:
        made = [spread_out(draw, spread) for _ in range(config.circuits)]
        systems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[circuit.build(dt=config.dt) for circuit, _ in made])
        last = eqx.filter_vmap(lambda system: jax.vmap(lambda x: last_phase(system, x))(inputs))(systems)
        counts = fluxons(last[..., systems.node(made[0][1])])
        works[f"yield_{spread * 100:g}"] = float((np.asarray(counts) == EXPECTED).all(1).mean())
        log.progress(len(works) / len(config.spreads))
    return Report(works)


def spread_out(draw: np.random.Generator, spread: float) -> tuple[Circuit, str]:
    """The network with normally distributed critical currents, inductances and resistances."""
    circuit, out = xor_network()

    def off(value: float) -> float:
        return value * max(0.1, 1 + spread * draw.standard_normal())

    circuit.junctions = [replace(j, critical=off(j.critical), shunt=off(j.shunt)) for j in circuit.junctions]
    circuit.inductors = [(a, b, off(value)) for a, b, value in circuit.inductors]
    circuit.branches = [(a, b, off(inductance), off(resistance)) for a, b, inductance, resistance in circuit.branches]
    return circuit, out
