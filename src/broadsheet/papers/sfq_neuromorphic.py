"""Deep networks of single flux quanta, arXiv 2311.10721: neurons and synapses of Josephson junctions, tuned by bias currents.

A neuron is one junction that collects decaying currents; its bias says how many coincident fluxons make it fire. A synapse
is a pair of junctions that decide over each fluxon; its bias says how probably one passes. Two layers compute exclusive or.
Circuits and values are ours: the paper's schematics and margins were not at hand. Controls have the bias elsewhere, no leak,
plain inductors in place of neurons, one junction in place of two, or one layer. Units: ps, µA, µV, Ω, pH.
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
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.neurons.flux_margins import Margin, margins, pulses_out, supplied_energy
from broadsheet.neurons.flux_rates import RateNetwork, bias_for, rate_xor
from broadsheet.neurons.josephson import (
    FLUX_QUANTUM,
    Circuit,
    Josephson,
    flux_neuron,
    flux_synapse,
    fluxons,
    pulse_train,
    splitter,
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
    parts=(
        "broadsheet.neurons.Circuit",
        "broadsheet.neurons.RateNetwork",
        "broadsheet.neurons.josephson.xor_network",
        "broadsheet.neurons.flux_margins.margins",
    ),
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
    sweep: tuple[float, ...] = (-60.0, -30.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0, 105.0, 120.0)  # biases of controls, µA
    rsj_length: float = 2000.0  # ps


@paper.experiment(
    presets={
        "smoke": Primitives(heights=(1.0,), lines=(70.0,), delays=(0.0, 30.0), rsj_length=400.0, sweep=(0.0, 45.0)),
        "quick": Primitives(),
        "paper": Primitives(dt=0.02, delays=tuple(float(d) for d in range(0, 61, 2)), rsj_length=10_000.0),
    },
    claims=[
        Claim("C1", "a pulse carries one flux quantum, whatever set it off and whatever the line's bias", kind="check",
              ablation="height", reference="h / 2e; the pulses' height is not fixed", checks=[at_most("spread", 0.005)]),
        Claim("C2", "an overdamped junction follows the resistively shunted one", kind="check", ablation="underdamped",
              reference="V = Ic R sqrt(i² - 1)", checks=[at_most("rsj_error", 0.01)]),
        Claim("C3", "the bias tunes the neuron's threshold: never, on coincidence, on any pulse", kind="paper",
              where="abstract", ablation="no-leak", null=("other-line", "inductors"), checks=[equals("table_errors", 0)]),
        Claim("C4", "the neuron leaks: pulses that lie apart do not add up", kind="paper", where="abstract: neuron",
              ablation="no-leak", null=("inductors", "short"),
              checks=[at_least("window", 15.0), at_most("window", 19.9), at_least("window_fast", 2.0),
                      at_most("window_fast", 4.9)]),
        Claim("S1", "a splitter makes two fluxons of one, on lines of any usual bias", kind="check",
              reference="as many fluxons on each branch as come in",
              checks=[equals("split_errors", 0)]),
    ],
    deterministic=True,
    cost=15.0,
)  # fmt: skip
def primitives(config: Primitives, key, log: Log) -> Report:
    """Pulse areas, a bare junction against its closed form, a splitter, and a neuron's threshold and window of coincidence.

    Controls of the neuron: branches that do not leak, the bias of the lines in place of the neuron's (`other-line`), plain
    inductors for branches, and branches a tenth as long (`short`). For each row of the table, and for the window, they have the
    best bias of a sweep.
    """
    areas, heights = pulse_shapes(config)
    log.progress(0.2)
    biases = np.array([0.0, 45.0, 100.0, *np.linspace(0.0, 120.0, 13)])
    expected = np.array([[0, 0, 0], [0, 0, 3], [3, 3, 3]])
    table = neuron_table(two_input_neuron(1.0, config.dt, bias=1.0), biases, config)
    sweep = np.array(config.sweep)
    tried = {
        "no-leak": neuron_table(two_input_neuron(0.02, config.dt, bias=1.0), sweep, config),
        "other-line": neuron_table(
            two_input_neuron(1.0, config.dt), np.linspace(20.0, 130.0, len(sweep)) / 70, config, "lines"
        ),
        "inductors": neuron_table(two_input_neuron(None, config.dt, bias=1.0), sweep, config),
    }
    log.progress(0.5)
    windows = {
        name: window(two_input_neuron(resistance, config.dt), config) for name, resistance in (("system", 1.0), ("fast", 2.0))
    }
    others = {}
    for name, resistances, inductance in (("no-leak", (0.02, 0.02), 20.0), ("inductors", (None, None), 20.0),
                                          ("short", (1.0, 2.0), 2.0)):  # fmt: skip
        neurons = [two_input_neuron(r, config.dt, bias=1.0, inductance=inductance) for r in resistances]
        others[name] = best_windows(neurons, sweep, config)
    arms: dict[str, dict[str, float]] = {
        "system": {
            "spread": np.abs(areas / FLUX_QUANTUM - 1).max(),
            "rsj_error": max(abs(rsj_voltage(i, 0.005, config) / math.sqrt(i * i - 1) - 1) for i in (1.5, 2.0)),
            "table_errors": (table[:3] != expected).sum(),
            "window": windows["system"],
            "window_fast": windows["fast"],
            "split_errors": split_errors(config),
        },
        "height": {"spread": np.abs(heights / heights.mean() - 1).max()},
        "underdamped": {"rsj_error": max(abs(rsj_voltage(i, 4.0, config) / math.sqrt(i * i - 1) - 1) for i in (1.5, 2.0))},
    }
    arms |= {name: {"window": slow, "window_fast": fast} for name, (slow, fast) in others.items()}
    for name, found in tried.items():
        arms.setdefault(name, {})["table_errors"] = sum((found != row).sum(axis=1).min() for row in expected)
    arrays = {
        "bias": biases[3:],
        "fired": table[3:],
        "sweep": sweep,
        "fired_inductors": tried["inductors"],
        **_waveform(config),
    }
    return Report(arms=arms, arrays=arrays)


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


def split_errors(config: Primitives) -> int:
    """Fluxons too many or too few on the two branches of a splitter, for each bias of the lines about it."""
    wrong = 0
    for line in config.lines:
        circuit = Circuit()
        first, last = transmission_line(circuit, "line", 3, bias=line)
        circuit.drive(first)
        ends = splitter(circuit, "S", last, bias=98.0 * line / 70.0)
        system = circuit.build(dt=config.dt)
        counts = fluxons(last_phase(system, drives([TRAIN], config.dt)))
        wrong += sum(abs(int(counts[system.node(end)]) - len(TRAIN)) for end in ends)
    return wrong


def two_input_neuron(
    resistance: float | None, dt: float, bias: float = 45.0, *, line: float = 70.0, inductance: float = 20.0
) -> tuple[Josephson, int]:
    """A neuron of two lines, and its output; supply lines: `lines` and `thresholds`. Without a resistance, plain inductors."""
    circuit = Circuit()
    ends = []
    for name in ("A", "B"):
        first, last = transmission_line(circuit, name, 3, bias=line)
        circuit.drive(first)
        ends.append(last)
    out = joined(circuit, "N", ends, bias, resistance, inductance=inductance)
    system = circuit.build(dt=dt)
    return system, system.node(out)


def joined(
    circuit: Circuit, name: str, sources: Sequence[str], bias: float, resistance: float | None, *, group: str = "thresholds",
    inductance: float = 20.0,
) -> str:  # fmt: skip
    """A neuron, or without a resistance the same junction behind plain inductors."""
    if resistance is not None:
        return flux_neuron(circuit, name, sources, bias=bias, resistance=resistance, inductance=inductance, group=group)
    node = circuit.junction(f"{name}.threshold")
    circuit.bias(node, bias, group)
    for source in sources:
        circuit.inductor(source, node, inductance)
    first, last = transmission_line(circuit, f"{name}.out", 2)
    circuit.inductor(node, first, 8.0)
    return last


def neuron_table(made: tuple[Josephson, int], biases: np.ndarray, config: Primitives, line: str = "thresholds") -> np.ndarray:
    """[biases, 3] pulses out of the neuron for three pulses on A, on B, on both; the supply line was built with 1 µA."""
    system, out = made
    inputs = jnp.stack([drives(trains, config.dt) for trains in ((TRAIN, ()), ((), TRAIN), (TRAIN, TRAIN))])
    return pulses_out(system, inputs, _on(line, biases))[..., out]


def _on(line: str, biases: np.ndarray) -> jax.Array:
    """Factors on (`lines`, `thresholds`)."""
    ones = np.ones_like(biases)
    return jnp.asarray(np.stack([biases, ones] if line == "lines" else [ones, biases], axis=1))


def _pairs(config: Primitives) -> jax.Array:
    """One pulse on A and none on B, then one on each with each delay."""
    pairs = [((60.0,), ()), *(((60.0,), (60.0 + delay,)) for delay in config.delays)]
    return jnp.stack([drives(trains, config.dt, 200.0) for trains in pairs])


def window(made: tuple[Josephson, int], config: Primitives) -> float:
    """The largest delay, ps, at which two pulses still make the neuron fire."""
    system, out = made
    fired = pulses_out(system, _pairs(config), jnp.ones((1, 2)))[0, 1:, out]
    return max((delay for delay, count in zip(config.delays, fired, strict=True) if count), default=-1.0)


def best_windows(made: list[tuple[Josephson, int]], biases: np.ndarray, config: Primitives) -> tuple[float, float]:
    """The same for two neurons under one bias: that at which one pulse alone does not fire the first, and its window is nearest
    to 15 ps."""
    inputs, factors = _pairs(config), _on("thresholds", biases)
    fired = [pulses_out(system, inputs, factors)[..., out] for system, out in made]
    found = np.array([[max(np.array(config.delays)[row[1:] > 0], default=-1.0) for row in one] for one in fired])
    far = np.where(fired[0][:, 0] > 0, np.inf, np.abs(found[0] - 15.0))
    slow, fast = found[:, int(far.argmin())]
    return float(slow), float(fast)


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
    for k, name in ((0, "A alone, plain inductors"), (2, "both, plain inductors")):
        shown = np.asarray(data["sweep"]) >= 0
        right.plot(data["sweep"][shown], data["fired_inductors"][shown, k] - 0.04 * (k + 1), color=CONTROL_COLOUR,
                   ls="--" if k else ":", label=name)  # fmt: skip
    label(right, "bias of the neuron (µA)", "pulses out of three")
    return fig


@dataclass(frozen=True)
class Synapse:
    """Pulses through a synapse at finite temperature."""

    weights: tuple[float, ...] = (44.0, 48.0, 50.0, 52.0, 54.0, 56.0, 58.0, 60.0, 62.0, 64.0, 66.0, 70.0)  # µA
    single: tuple[float, ...] = tuple(-110.0 + 7.0 * k for k in range(12))  # µA, of one junction alone
    temperatures: tuple[float, ...] = (4.2, 10.0)  # K
    pulses: int = 12
    trains: int = 8
    period: float = 60.0  # ps
    dt: float = 0.05  # ps


@paper.experiment(
    presets={
        "smoke": Synapse(weights=(44.0, 56.0, 70.0), single=(-60.0, 0.0, 45.0), pulses=2, trains=2),
        "quick": Synapse(),
        "paper": Synapse(pulses=50, trains=40, period=100.0, weights=tuple(float(w) for w in range(40, 76, 2))),
    },
    claims=[
        Claim("C5", "the bias is the weight: it sets how probably a pulse passes, and heat softens the step", kind="paper",
              where="abstract: bias currents as weights; the sequel: stochastic synapses", ablation="no-noise",
              null="one-junction",
              answers_to={"no-noise": "without noise the step is sharp, whatever the temperature is called"},
              checks=[at_most("passed_low", 0.02), at_least("passed_high", 0.98), at_most("largest_fall", 0.15),
                      at_least("width_ratio", 1.2)],
              reason="One junction that passes a pulse or keeps it, at biases of its own, is a weight as well: heat widens its "
              "step 1.35 times over three seeds, 1.26 at the least, where it widens the pair's 1.63 times."),
    ],
    cost=20.0,
)  # fmt: skip
def synapse(config: Synapse, key, log: Log) -> Report:
    """Share of pulses that pass against the bias, at two temperatures.

    `one-junction` has nowhere for a pulse to escape to: it passes it or keeps it; its biases are its own. `no-noise` is the
    pair at 0 K.
    """
    arms, arrays = {}, {"weights": np.array(config.weights), "single": np.array(config.single)}
    settings = (("system", 60.0, config.weights, config.temperatures), ("no-noise", 60.0, config.weights, (0.0, 0.0)),
                ("one-junction", 1000.0, config.single, config.temperatures))  # fmt: skip
    for name, escape, weights, temperatures in settings:
        tried = replace(config, weights=weights)
        passed = np.stack([pass_rates(tried, escape, temperature, key) for temperature in temperatures])
        arrays[name] = passed
        widths = [grey_zone(np.array(weights), row) for row in passed]
        arms[name] = {
            "passed_low": passed[0, 0],
            "passed_high": passed[0, -1],
            "largest_fall": max(0.0, -np.diff(passed[0]).min()),
            "width": widths[0],
            "width_ratio": widths[1] / widths[0] if widths[0] > 0 else 1.0,
        }
        log.progress(len(arms) / len(settings))
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
    train = drives([times], config.dt, 100.0 + config.period * config.pulses)
    inputs = jnp.broadcast_to(train, (config.trains, *train.shape))
    factors = jnp.ones((len(config.weights), 2)).at[:, line].set(jnp.array(config.weights))
    keys = jax.random.split(key, (len(config.weights), config.trains))
    return pulses_out(system, inputs, factors, keys)[..., place].mean(1) / config.pulses


def grey_zone(weights: np.ndarray, passed: np.ndarray) -> float:
    """The width of the error function that fits the passing probability, µA; 0 where there is no step, or nothing within it."""
    from scipy.optimize import curve_fit
    from scipy.special import erf

    if passed.max() - passed.min() < 0.5 or not ((passed > 0.02) & (passed < 0.98)).any():
        return 0.0
    start = (float(np.interp(0.5, np.maximum.accumulate(passed), weights)), 5.0)
    (_, width), _ = curve_fit(lambda w, m, d: 0.5 * (1 + erf(math.sqrt(math.pi) * (w - m) / d)), weights, passed, start)
    return abs(float(width))


@synapse.figure
def weight(runs: Runs):
    """Probability that a fluxon passes against the bias: a step that heat softens; and without the escape junction."""
    data = runs["system"].arrays
    fig, (axis, right) = figure(2)
    for row, (name, colour) in enumerate((("4.2 K", SYSTEM_COLOUR), ("10 K", "#c2571a"))):
        axis.plot(data["weights"], data["system"][row], "o-", ms=4, color=colour, label=name)
    axis.plot(data["weights"], data["no-noise"][0], "s--", ms=3, color=CONTROL_COLOUR, label="0 K")
    label(axis, "bias of the synapse (µA)", "share of pulses that pass", "pair of junctions")
    for row, (name, colour) in enumerate((("4.2 K", CONTROL_COLOUR), ("10 K", "#c2571a"))):
        right.plot(data["single"], data["one-junction"][row], "o-", ms=4, color=colour, label=name)
    label(right, "bias of the junction (µA)", "share of pulses that pass", "one junction, no escape")
    return fig


@dataclass(frozen=True)
class Xor:
    """Exclusive or of two dual-rail pulse trains."""

    hidden: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)  # factors of a supply line
    output: tuple[float, ...] = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12, 1.16, 1.2)
    lines: tuple[float, ...] = (0.5, 0.6, 0.7, 0.76, 0.8, 0.9, 1.0, 1.1, 1.2, 1.24, 1.3)
    single: tuple[float, ...] = (10.0, 30.0, 45.0, 60.0, 80.0, 90.0, 105.0, 115.0)  # biases of the one-layer control, µA
    grid_hidden: tuple[float, ...] = (-20.0, 5.0, 25.0, 45.0, 65.0, 85.0, 105.0)  # biases tried together, µA
    grid_output: tuple[float, ...] = (5.0, 30.0, 55.0, 80.0, 105.0, 125.0)
    noisy: int = 10  # runs of each case at 4.2 K
    dt: float = 0.05  # ps


EXPECTED = np.array([0, 3, 3, 0])
KINDS: dict[str, tuple[float | None, float | None]] = {
    "system": (1.0, 1.0), "no-leak": (0.02, 0.02), "inductors": (None, None), "merged": (1.0, None)
}  # fmt: skip
"""Resistances in the branches of hidden neurons and of the output, Ω; None for plain inductors."""


def _factors(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(round(first + k * step, 4) for k in range(round((last - first) / step) + 1))


@paper.experiment(
    presets={
        "smoke": Xor(hidden=(0.9, 1.0), output=(1.0,), lines=(1.0,), single=(45.0,), grid_hidden=(45.0,), grid_output=(105.0,),
                     noisy=1, dt=0.1),
        "quick": Xor(),
        "paper": Xor(
            hidden=_factors(0.2, 2.0, 0.05), output=_factors(0.6, 1.4, 0.02), lines=_factors(0.3, 1.5, 0.05), noisy=250
        ),
    },
    claims=[
        Claim("C6", "two layers of neurons compute exclusive or", kind="paper", where="abstract: XOR at circuit level",
              ablation=("one-layer", "no-leak"), null=("inductors", "merged"),
              reason="The second layer need not be a neuron: plain inductors that merge the outputs of the hidden neurons do "
              "as well. The first must: without its leak, or with inductors there, none of 42 pairs of biases works.",
              checks=[equals("errors", 0), at_most("noisy_errors", 0.0)]),
        Claim("C7", "with wide margins of the bias currents", kind="paper", where="abstract: wide margins",
              ablation="no-leak", null=("inductors", "merged"),
              reason="With inductors in place of the output neuron the margins are wider: 60 % of the hidden neurons' "
              "biases, 20 % of the output's and 24 % of the lines', against 50, 16 and 24 %.",
              checks=[at_least("hidden_margin", 0.4), at_least("output_margin", 0.12), at_least("line_margin", 0.2)]),
    ],
    cost=30.0,
)  # fmt: skip
def xor(config: Xor, key, log: Log) -> Report:
    """Pulses out for the four inputs, without noise and at 4.2 K, how far each supply line may be off, and the energy.

    Controls: one neuron of two inputs and of all four rails; two layers whose branches do not leak; two layers of plain
    inductors; hidden neurons whose outputs plain inductors merge. Each has the biases that are best of a grid.
    """
    inputs = jnp.stack([drives(dual_rail(a, b), config.dt) for a, b in CASES])
    factors = {"hidden": config.hidden, "output": config.output, "lines": config.lines}
    arms: dict[str, dict[str, float]] = {}
    arrays: dict[str, np.ndarray] = {"grid_hidden": np.array(config.grid_hidden), "grid_output": np.array(config.grid_output)}
    for k, name in enumerate(KINDS):
        circuit, out = xor_of(*KINDS[name])
        grid = over_biases(circuit, out, config)
        arrays[f"grid_{name}"] = (grid == EXPECTED).all(-1)
        best = {"hidden": 45.0, "output": 105.0} if name == "system" else best_biases(grid, config)
        widths = dict.fromkeys(factors, 0.0)
        if best:
            arms[name] = answers(circuit, out, best, config, inputs, key)
            found = margins(circuit, out, inputs, EXPECTED.tolist(), factors, nominal=best, dt=config.dt)
            widths = {line: one.width for line, one in found.items()}
        else:
            arms[name] = {"errors": (grid != EXPECTED).sum(-1).min(), "noisy_errors": (grid != EXPECTED).mean(-1).min()}
        if name == "system":
            arrays |= _tried(found)
        arms[name] |= {f"{line.removesuffix('s')}_margin": width for line, width in widths.items()}
        log.progress(0.2 * (k + 1))
    rails = np.concatenate([one_layer(config, 2), one_layer(config, 4)])
    arms["one-layer"] = {"errors": (rails != EXPECTED).sum(1).min(), "noisy_errors": (rails != EXPECTED).mean(1).min()}
    circuit, out = xor_network()
    system = circuit.build(dt=config.dt)
    passed = pulses_out(system, inputs, jnp.ones((1, len(circuit.groups()))))[0]
    energy = supplied_energy(system, passed)
    arms["system"]["energy"] = energy.mean()
    nodes = jnp.array([system.node(name) for name in ("A.2", "B.2", "H1.out.1", "H2.out.1", out)])
    traces = jax.vmap(lambda x: rollout(system, x, record=lambda state, phase: state.voltage[nodes], every=8)[1])(inputs)
    arrays |= {"traces": np.asarray(traces), "time": np.arange(traces.shape[1]) * 8 * config.dt, "energy": energy}
    return Report(arms=arms, arrays=arrays)


def xor_of(hidden: float | None, output: float | None) -> tuple[Circuit, str]:
    """The network of two layers with these resistances in its branches, biased by 1 µA on `hidden` and on `output`."""
    circuit = Circuit()
    ends = {}
    for name in ("A", "notA", "B", "notB"):
        first, ends[name] = transmission_line(circuit, name, 3)
        circuit.drive(first)
    one = joined(circuit, "H1", (ends["A"], ends["notB"]), 1.0, hidden, group="hidden")
    two = joined(circuit, "H2", (ends["notA"], ends["B"]), 1.0, hidden, group="hidden")
    return circuit, joined(circuit, "OUT", (one, two), 1.0, output, group="output")


def over_biases(circuit: Circuit, out: str, config: Xor) -> np.ndarray:
    """[hidden, output, cases] pulses out over the grid of biases, at a step of 0.1 ps."""
    system, groups = circuit.build(dt=0.1), circuit.groups()
    inputs = jnp.stack([drives(dual_rail(a, b), 0.1) for a, b in CASES])
    hidden, output = np.meshgrid(config.grid_hidden, config.grid_output, indexing="ij")
    factors = np.ones((hidden.size, len(groups)))
    factors[:, groups.index("hidden")], factors[:, groups.index("output")] = hidden.ravel(), output.ravel()
    return pulses_out(system, inputs, jnp.asarray(factors))[..., system.node(out)].reshape(*hidden.shape, len(CASES))


def best_biases(grid: np.ndarray, config: Xor) -> dict[str, float]:
    """The working biases farthest from any that fail, in steps of the grid; none where nothing works."""
    works = np.pad((grid == EXPECTED).all(-1), 1)
    if not works.any():
        return {}
    inside = [(np.abs(np.argwhere(~works) - at).max(axis=1).min(), tuple(at - 1)) for at in np.argwhere(works)]
    (i, j) = max(inside)[1]
    return {"hidden": config.grid_hidden[i], "output": config.grid_output[j]}


def answers(
    circuit: Circuit, out: str, nominal: dict[str, float], config: Xor, inputs: jax.Array, key: jax.Array
) -> dict[str, float]:
    """Wrong answers without noise, and their share at 4.2 K."""
    factors = jnp.array([[nominal.get(name, 1.0) for name in circuit.groups()]])
    cold, hot = (circuit.build(dt=config.dt, temperature=temperature) for temperature in (0.0, 4.2))
    place = cold.node(out)
    still = pulses_out(cold, inputs, factors)[..., place]
    keys = jax.random.split(key, (config.noisy, len(CASES)))
    noisy = pulses_out(hot, inputs, jnp.tile(factors, (config.noisy, 1)), keys)[..., place]
    return {"errors": float((still != EXPECTED).sum()), "noisy_errors": float((noisy != EXPECTED).mean())}


def _tried(found: dict[str, Margin]) -> dict[str, np.ndarray]:
    named = {"factors": lambda one: one.factors, "works": lambda one: one.works}
    return {f"{line}_{what}": get(one) for line, one in found.items() for what, get in named.items()}


def one_layer(config: Xor, rails: int) -> np.ndarray:
    """[biases, cases] pulses out of one neuron that gets A and B, or all four rails."""
    circuit = Circuit()
    ends = []
    for name in ("A", "notA", "B", "notB")[:: 4 // rails]:
        first, last = transmission_line(circuit, name, 3)
        circuit.drive(first)
        ends.append(last)
    out = joined(circuit, "N", ends, 1.0, 1.0)
    system = circuit.build(dt=config.dt)
    inputs = jnp.stack([drives(dual_rail(a, b)[:: 4 // rails], config.dt) for a, b in CASES])
    return pulses_out(system, inputs, _on("thresholds", np.array(config.single)))[..., system.node(out)]


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
        energy = float(data["energy"][CASES.index(case)])
        label(axis, "time (ps)", "voltage (1.2 mV between lines)", f"A = {case[0]}, B = {case[1]}: {energy:.1f} aJ")
    return fig


@xor.figure
def shmoo(runs: Runs):
    """Biases of hidden and output neurons at which a network computes exclusive or: with leaky neurons, and without."""
    data = runs["system"].arrays
    texts = {
        "system": "leaky neurons",
        "merged": "output merged by inductors",
        "no-leak": "no leak",
        "inductors": "plain inductors",
    }
    fig, axes = figure(4, width=2.8)
    x, y = np.meshgrid(data["grid_output"], data["grid_hidden"])
    for axis, (name, text) in zip(axes, texts.items(), strict=True):
        works = np.asarray(data[f"grid_{name}"]).astype(bool)
        axis.plot(x[works], y[works], "s", color=SYSTEM_COLOUR, label="works")
        axis.plot(x[~works], y[~works], "x", color=CONTROL_COLOUR, label="fails")
        label(axis, "bias of the output (µA)", "bias of hidden junctions (µA)", text, legend=False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize="small")
    return fig


@xor.figure
def bias_margins(runs: Runs):
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
    levels: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.95)  # probabilities that one layer may choose from
    steps: int = 400  # of learning to tell digits apart
    hidden: int = 8


@paper.experiment(
    presets={"smoke": Rates(slots=500, steps=3), "quick": Rates(), "paper": Rates(slots=1_000_000, steps=3000, hidden=32)},
    claims=[
        Claim("C8", "a deep network of stochastic synapses computes exclusive or of rates", kind="paper",
              where="abstract: XOR at architecture level", ablation="half", null="one-layer",
              answers_to={"one-layer": "with one layer no margin is above 0: to stay silent is best"},
              checks=[at_most("sampling_error", 3.0), at_least("margin", 0.4)]),
    ],
    cost=10.0,
)  # fmt: skip
def rates(config: Rates, key, log: Log) -> Report:
    """Sampled rates against expected ones, the margin of the answer, and digits 0 and 1 learned by bias currents.

    `one-layer` is the neuron whose threshold and four synapses make the margin of expected rates largest.
    """
    networks = {"system": rate_xor(config.probability), "half": rate_xor(0.5), "one-layer": best_single(config)}
    answers = {name: xor_rates(config, network, key) for name, network in networks.items()}
    arms = {}
    for name, (expected, sampled) in answers.items():
        error = np.abs(sampled - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-9) / config.slots)
        arms[name] = {"sampling_error": error.max(), "margin": sampled[[1, 2]].min() - sampled[[0, 3]].max()}
    log.progress(0.3)
    arms["system"] |= learn_digits(config, key)
    arrays = {
        f"{name}_{kind}": values
        for name, pair in answers.items()
        for kind, values in zip(("expected", "sampled"), pair, strict=True)
    }
    return Report(arms=arms, arrays=arrays)


def _dual_rates(config: Rates) -> jax.Array:
    """[cases, 4] rates of A, not A, B, not B."""
    level = {0: config.low, 1: config.high}
    return jnp.array([[level[a], level[1 - a], level[b], level[1 - b]] for a, b in CASES])


def xor_rates(config: Rates, network: RateNetwork, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """(expected, sampled) output rates of the four inputs."""
    inputs = _dual_rates(config)
    expected = jax.vmap(network.rates)(inputs)[:, 0]
    sampled = jax.vmap(lambda x, k: network.sample(x, config.slots, k).mean(0)[0])(inputs, jax.random.split(key, 4))
    return np.asarray(expected, float), np.asarray(sampled, float)


def best_single(config: Rates) -> RateNetwork:
    """One neuron on all four rails, with the threshold and the synapses that make its margin largest."""
    inputs = _dual_rates(config)
    levels = jnp.clip(jnp.array(config.levels), 1e-4, config.probability)
    choices = bias_for(jnp.stack(jnp.meshgrid(*[levels] * 4, indexing="ij"), axis=-1).reshape(-1, 4))
    best = (-1.0, RateNetwork((choices[:1],), (1,)))
    for threshold in range(1, 5):
        out = jax.vmap(lambda bias, t=threshold: jax.vmap(RateNetwork((bias[None],), (t,)).rates)(inputs)[:, 0])(choices)
        margin = out[:, jnp.array([1, 2])].min(1) - out[:, jnp.array([0, 3])].max(1)
        at = int(margin.argmax())
        best = max(best, (float(margin[at]), RateNetwork((choices[at][None],), (threshold,))), key=lambda one: one[0])
    return best[1]


def learn_digits(config: Rates, key: jax.Array) -> dict[str, float]:
    """Accuracy on held-out zeros and ones of scikit-learn's digits, of 4 by 4 pixels: by expected rates, in 50 slots of
    pulses, and of logistic regression."""
    import optax
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    pixels, digit = load_digits(n_class=2, return_X_y=True)
    coarse = pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(digit), 16) / 16
    rates_in = np.concatenate([coarse, 1 - coarse], 1)
    order = np.asarray(jax.random.permutation(key, len(digit)))
    train, test = order[:240], order[240:]
    k1, k2, k3 = jax.random.split(key, 3)
    first = 53.0 + 3.0 * jax.random.normal(k1, (config.hidden, 32))
    second = 57.0 + 3.0 * jax.random.normal(k2, (1, config.hidden))
    network = RateNetwork((first, second), (8, max(1, config.hidden // 3)))
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
        "digits_logistic": float(LogisticRegression().fit(coarse[train], digit[train]).score(coarse[test], digit[test])),
    }


@rates.figure
def rate_table(runs: Runs):
    """Output rate for the four inputs, expected and sampled: two layers, also with synapses that pass half, and one layer."""
    data = runs["system"].arrays
    fig, axis = figure()
    at = np.arange(4)
    shown = (
        ("system", SYSTEM_COLOUR, "95 % pass"),
        ("half", CONTROL_COLOUR, "50 % pass"),
        ("one-layer", COLOURS[1], "one layer"),
    )
    for k, (name, colour, text) in enumerate(shown):
        axis.bar(at + 0.28 * (k - 1), data[f"{name}_expected"], 0.26, color=colour, label=text)
        axis.plot(at + 0.28 * (k - 1), data[f"{name}_sampled"], "k_", ms=10, label="sampled" if k == 2 else None)
    axis.set_xticks(at, [f"{a}{b}" for a, b in CASES])
    label(axis, "inputs A B", "output rate (pulses a slot)")
    return fig


@dataclass(frozen=True)
class Yield:
    """Exclusive or with components that differ from what was drawn."""

    spreads: tuple[float, ...] = (
        0.02,
        0.05,
        0.1,
        0.2,
        0.3,
    )  # standard deviation of critical currents, inductances and resistances
    circuits: int = 40
    dt: float = 0.1  # ps


@paper.experiment(
    presets={"smoke": Yield(spreads=(0.02, 0.3), circuits=1), "quick": Yield(), "paper": Yield(circuits=500, dt=0.05)},
    claims=[
        Claim("C9", "nine of ten circuits work where components spread by 2 %", kind="check", seeds=8, ablation="spread-30",
              reference="the nominal circuit; control: a spread of 30 %", checks=[at_least("yield", 0.9, over="mean")]),
    ],
    cost=10.0,
)  # fmt: skip
def component_spread(config: Yield, key, log: Log) -> Report:
    """The share of circuits that compute exclusive or with random components: 2 % off, and more."""
    inputs = jnp.stack([drives(dual_rail(a, b), config.dt) for a, b in CASES])
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    arms = {}
    for spread in config.spreads:
        made = [spread_out(draw, spread) for _ in range(config.circuits)]
        systems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[circuit.build(dt=config.dt) for circuit, _ in made])
        counts = fluxons(_last_of_each(systems, inputs))[..., systems.node(made[0][1])]
        name = "system" if spread == config.spreads[0] else f"spread-{spread * 100:g}"
        arms[name] = {"yield": float((np.asarray(counts) == EXPECTED).all(1).mean())}
        log.progress(len(arms) / len(config.spreads))
    return Report(arms=arms)


@eqx.filter_jit
def _last_of_each(systems: Josephson, inputs: jax.Array) -> jax.Array:
    """[circuits, cases, nodes] phases at the end."""
    return eqx.filter_vmap(lambda system: jax.vmap(lambda x: last_phase(system, x))(inputs))(systems)


def spread_out(draw: np.random.Generator, spread: float) -> tuple[Circuit, str]:
    """The network with normally distributed critical currents, inductances and resistances."""
    circuit, out = xor_network()

    def off(value: float) -> float:
        return value * max(0.1, 1 + spread * draw.standard_normal())

    circuit.junctions = [replace(j, critical=off(j.critical), shunt=off(j.shunt)) for j in circuit.junctions]
    circuit.inductors = [(a, b, off(value)) for a, b, value in circuit.inductors]
    circuit.branches = [(a, b, off(inductance), off(resistance)) for a, b, inductance, resistance in circuit.branches]
    return circuit, out
