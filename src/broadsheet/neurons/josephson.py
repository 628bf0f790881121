"""Circuits of Josephson junctions, inductors and bias currents: single-flux-quantum logic, simulated by node phases.

A junction is resistively and capacitively shunted (Stewart 1968; McCumber 1968),
`I = Ic sin(phi) + V / R + C dV/dt + noise` with `V = (Phi0 / 2 pi) dphi/dt`, and the thermal current of its shunt has the
spectral density `2 k T / R`. Units fit together without factors: ps, µA, µV, Ω, pH, pF; a flux quantum is 2067.83 µV ps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError

FLUX_QUANTUM = 2067.833848
"""Phi0 = h / 2e, in µV ps."""

BOLTZMANN = 13.80649
"""k, in µA² Ω ps / K: twice it times T / (R dt) is the variance of a shunt's current over one step."""

GROUND = "0"


@dataclass(frozen=True)
class Junction:
    """From node `a` to `b`: critical current µA, shunt Ω, capacitance pF."""

    a: str
    b: str
    critical: float
    shunt: float
    capacitance: float

    @property
    def damping(self) -> float:
        """The Stewart-McCumber parameter `2 pi Ic R² C / Phi0`: 1 is critical."""
        return 2 * math.pi * self.critical * self.shunt**2 * self.capacitance / FLUX_QUANTUM


@dataclass
class Circuit:
    """A netlist of named nodes. Elements are added one by one; `build` makes a system of it.

    `groups`: name -> bias sources, so that a designer's supply lines can be scaled one by one.
    """

    junctions: list[Junction] = field(default_factory=list)
    inductors: list[tuple[str, str, float]] = field(default_factory=list)
    branches: list[tuple[str, str, float, float]] = field(default_factory=list)
    biases: list[tuple[str, float, str]] = field(default_factory=list)
    drives: list[str] = field(default_factory=list)

    def junction(
        self, a: str, b: str = GROUND, *, critical: float = 100.0, damping: float = 1.0, capacitance: float | None = None
    ) -> str:
        """A junction of `critical` µA, by default with 0.7 fF a µA and the shunt that damps it critically; returns `a`."""
        if critical <= 0 or damping <= 0:
            raise InputError(f"A junction of {critical:g} µA and damping {damping:g}: both have to be positive.")
        c = 0.0007 * critical if capacitance is None else capacitance
        if c <= 0:
            raise InputError(f"A junction's capacitance is {c:g} pF; it has to be positive.")
        shunt = math.sqrt(damping * FLUX_QUANTUM / (2 * math.pi * critical * c))
        self.junctions.append(Junction(a, b, critical, shunt, c))
        return a

    def inductor(self, a: str, b: str, inductance: float) -> None:
        """An inductor, pH."""
        if inductance <= 0:
            raise InputError(f"An inductor between {a} and {b} has {inductance:g} pH; it has to be positive.")
        self.inductors.append((a, b, inductance))

    def branch(self, a: str, b: str, inductance: float, resistance: float) -> None:
        """An inductor, pH, and a resistor, Ω, in series: current through it decays with `L / R`."""
        if inductance <= 0 or resistance < 0:
            raise InputError(f"A branch between {a} and {b} has {inductance:g} pH and {resistance:g} Ω.")
        self.branches.append((a, b, inductance, resistance))

    def bias(self, node: str, current: float, group: str = "bias") -> None:
        """A constant current into a node, µA, on the supply line `group`."""
        self.biases.append((node, current, group))

    def drive(self, node: str) -> int:
        """A node into which currents are fed from outside; returns the number of the input."""
        self.drives.append(node)
        return len(self.drives) - 1

    def groups(self) -> list[str]:
        """The supply lines, in the order in which they came."""
        return list(dict.fromkeys(group for *_, group in self.biases))

    def nodes(self) -> list[str]:
        """All nodes but the ground. Raises `InputError` where one touches no junction: it would have no capacitance."""
        held = dict.fromkeys(node for made in self.junctions for node in (made.a, made.b) if node != GROUND)
        for node in (
            [n for a, b, *_ in self.inductors + self.branches for n in (a, b)] + [n for n, *_ in self.biases] + self.drives
        ):
            if node != GROUND and node not in held:
                raise InputError(f"The node {node!r} touches no junction.")
        return list(held)

    def build(self, *, dt: float = 0.05, temperature: float = 0.0) -> Josephson:
        """The circuit as a system that steps in time; `dt` in ps, `temperature` in K."""
        if not self.junctions:
            raise InputError("A circuit without junctions cannot be simulated.")
        if dt <= 0 or temperature < 0:
            raise InputError(f"dt is {dt:g} ps and the temperature {temperature:g} K; neither can be negative, dt not zero.")
        return Josephson(self, dt, temperature)

    def to_spice(self, stop: float = 400.0, pulses: Mapping[int, Sequence[float]] | None = None) -> str:
        """A deck for JoSIM or another SPICE with junctions; `stop` in ps, `pulses`: input -> times of fluxons, ps."""
        names = {GROUND: "0", **{node: str(k + 1) for k, node in enumerate(self.nodes())}}
        lines = ["* " + ", ".join(f"{number} = {name}" for name, number in names.items() if name != GROUND)]
        models: dict[tuple[float, float], str] = {}
        for k, made in enumerate(self.junctions):
            model = models.setdefault((made.critical, made.capacitance), f"jj{len(models)}")
            a, b = names[made.a], names[made.b]
            lines += [f"B{k} {a} {b} {model}", f"RS{k} {a} {b} {made.shunt:.6g}"]
        for (critical, capacitance), model in models.items():
            lines.append(f".model {model} jj(rtype=0, cap={capacitance:.6g}p, icrit={critical:.6g}u)")
        lines += [f"L{k} {names[a]} {names[b]} {value:.6g}p" for k, (a, b, value) in enumerate(self.inductors)]
        for k, (a, b, inductance, resistance) in enumerate(self.branches):
            lines += [f"LB{k} {names[a]} b{k} {inductance:.6g}p", f"RB{k} b{k} {names[b]} {resistance:.6g}"]
        lines += [f"IB{k} 0 {names[node]} pwl(0 0 {RAMP:g}p {value:.6g}u)" for k, (node, value, _) in enumerate(self.biases)]
        for k, node in enumerate(self.drives):
            points = "0 0"
            for at in sorted((pulses or {}).get(k, ())):
                shape = np.linspace(-PULSE_WIDTH, PULSE_WIDTH, 17)
                points += "".join(f" {at + x:.4g}p {raised_cosine(x):.5g}u" for x in shape)
            lines.append(f"ID{k} 0 {names[node]} pwl({points})")
        lines += [f".tran 0.05p {stop:g}p", *(f".print phase {number}" for number in names.values() if number != "0"), ".end"]
        return "\n".join(lines) + "\n"


RAMP = 20.0
"""Biases rise over so many ps: switched on at once they would set off pulses."""

PULSE_HEIGHT, PULSE_WIDTH = 150.0, 4.0
"""µA and half of the width in ps of a stimulus that sets off one fluxon in a biased transmission line."""


def raised_cosine(x: float) -> float:
    """The stimulus `x` ps from its middle, µA."""
    return PULSE_HEIGHT * 0.5 * (1 + math.cos(math.pi * x / PULSE_WIDTH)) if abs(x) < PULSE_WIDTH else 0.0


class JosephsonState(NamedTuple):
    """Node phases, node voltages in µV, currents of L-R branches in µA, and the time in ps."""

    phase: Float[Array, " nodes"]
    voltage: Float[Array, " nodes"]
    branch: Float[Array, " branches"]
    time: Float[Array, ""]


class Josephson(System):
    """A built `Circuit`: currents in µA of its inputs go in, node phases come out, `dt` in ps.

    One step is semi-implicit: conductances at the new voltage, phases and branch currents at the old, then phases with the
    new voltage. Pulses are counted right up to about 0.1 ps; with noise a larger step heats the circuit.
    """

    bias: Float[Array, " nodes"]
    group: Float[Array, "groups nodes"]
    critical: Float[Array, " junctions"]
    incidence: Float[Array, "junctions nodes"] = fixed()
    stiffness: Float[Array, "nodes nodes"] = fixed()
    solve: Float[Array, "nodes nodes"] = fixed()
    capacitance: Float[Array, "nodes nodes"] = fixed()
    branches: Float[Array, "branches nodes"] = fixed()
    inductance: Float[Array, " branches"] = fixed()
    resistance: Float[Array, " branches"] = fixed()
    inputs: Float[Array, "drives nodes"] = fixed()
    noise: Float[Array, " junctions"] = fixed()
    names: tuple[str, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, circuit: Circuit, dt: float, temperature: float) -> None:
        names = circuit.nodes()
        place = {name: k for k, name in enumerate(names)}

        def between(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            rows = np.zeros((len(pairs), len(names)))
            for row, (a, b) in zip(rows, pairs, strict=True):
                for node, sign in ((a, 1.0), (b, -1.0)):
                    if node != GROUND:
                        row[place[node]] += sign
            return rows

        made = circuit.junctions
        incidence = between([(j.a, j.b) for j in made])
        coils = between([(a, b) for a, b, _ in circuit.inductors])
        capacitance = incidence.T @ np.diag([j.capacitance for j in made]) @ incidence
        conductance = incidence.T @ np.diag([1 / j.shunt for j in made]) @ incidence
        stiffness = coils.T @ np.diag([1 / value for *_, value in circuit.inductors]) @ coils
        group = np.zeros((len(circuit.groups()), len(names)))
        for node, current, name in circuit.biases:
            group[circuit.groups().index(name), place[node]] += current
        self.group = as_array(group)
        self.bias = as_array(group.sum(0))
        self.critical = as_array(np.array([j.critical for j in made]))
        self.incidence = as_array(incidence)
        self.stiffness = as_array(FLUX_QUANTUM / (2 * math.pi) * stiffness)
        self.solve = as_array(np.linalg.inv(capacitance + dt * conductance))
        self.capacitance = as_array(capacitance)
        self.branches = as_array(between([(a, b) for a, b, *_ in circuit.branches]))
        self.inductance = as_array(np.array([value for *_, value, _ in circuit.branches]))
        self.resistance = as_array(np.array([value for *_, value in circuit.branches]))
        self.inputs = as_array(between([(node, GROUND) for node in circuit.drives]))
        self.noise = as_array(np.sqrt([2 * BOLTZMANN * temperature / (j.shunt * dt) for j in made]))
        self.names, self.dt = tuple(names), dt

    def node(self, name: str) -> int:
        """The place of a node among the outputs; raises `InputError` where there is none."""
        if name not in self.names:
            raise InputError(f"There is no node {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)

    def scaled(self, factors: Float[Array, " groups"]) -> Josephson:
        """The circuit with each supply line's currents multiplied."""
        return eqx.tree_at(lambda system: system.bias, self, factors @ self.group)

    def init(self, key: PRNGKeyArray | None = None) -> JosephsonState:
        zeros = jnp.zeros_like(self.bias)
        return JosephsonState(zeros, zeros, jnp.zeros_like(self.inductance), jnp.zeros((), zeros.dtype))

    def step(
        self, state: JosephsonState, inputs: Float[Array, " drives"] | None = None, key: PRNGKeyArray | None = None
    ) -> tuple[JosephsonState, Float[Array, " nodes"]]:
        """One step of `dt`; without a key there is no noise."""
        phase, voltage, branch, time = state
        through = self.critical * jnp.sin(self.incidence @ phase)
        if key is not None:
            through = through + self.noise * jax.random.normal(key, through.shape, through.dtype)
        current = self.bias * jnp.minimum(1.0, time / RAMP)
        current = current - through @ self.incidence - self.stiffness @ phase - branch @ self.branches
        if inputs is not None:
            current = current + inputs @ self.inputs
        voltage = self.solve @ (self.capacitance @ voltage + self.dt * current)
        phase = phase + self.dt * (2 * math.pi / FLUX_QUANTUM) * voltage
        branch = (branch + self.dt * (self.branches @ voltage) / self.inductance) / (
            1 + self.dt * self.resistance / self.inductance
        )
        return JosephsonState(phase, voltage, branch, time + self.dt), phase


def fluxons(phase: Float[Array, "..."]) -> Int[Array, "..."]:
    """How many flux quanta have passed a node of that phase: `floor((phase + pi) / 2 pi)`.

    A biased junction rests as far as 1.5 rad from its multiple of 2 pi; rounding would miscount it.
    """
    return jnp.floor((phase + jnp.pi) / (2 * jnp.pi)).astype(int)


def pulse_train(times: Sequence[float], steps: int, dt: float) -> Float[np.ndarray, " steps"]:
    """Stimuli at given times, ps, as currents at each step, µA."""
    at = np.arange(steps) * dt
    x = (at[:, None] - np.asarray(times, float)[None, :]) / PULSE_WIDTH
    return (PULSE_HEIGHT * 0.5 * (1 + np.cos(np.pi * np.clip(x, -1, 1)))).sum(1)


def transmission_line(circuit: Circuit, name: str, stages: int, *, bias: float = 70.0, group: str = "lines") -> tuple[str, str]:
    """A Josephson transmission line, which carries fluxons on: junctions of 100 µA, 8 pH apart; (first node, last node)."""
    if stages < 1:
        raise InputError(f"A line of {stages} stages; at least 1 is wanted.")
    nodes = [circuit.junction(f"{name}.{k}") for k in range(stages)]
    for node in nodes:
        circuit.bias(node, bias, group)
    for a, b in pairwise(nodes):
        circuit.inductor(a, b, 8.0)
    return nodes[0], nodes[-1]


def splitter(
    circuit: Circuit, name: str, source: str, *, critical: float = 140.0, bias: float = 98.0, group: str = "lines"
) -> tuple[str, str]:
    """Makes two fluxons of one: a junction of `critical` µA under `bias` µA that drives two lines; their last nodes."""
    node = circuit.junction(f"{name}.split", critical=critical)
    circuit.bias(node, bias, group)
    circuit.inductor(source, node, 8.0)
    ends = []
    for side in ("left", "right"):
        first, last = transmission_line(circuit, f"{name}.{side}", 2, group=group)
        circuit.inductor(node, first, 8.0)
        ends.append(last)
    return ends[0], ends[1]


def flux_neuron(
    circuit: Circuit, name: str, sources: Sequence[str], *, bias: float, inductance: float = 20.0, resistance: float = 1.0,
    group: str = "thresholds",
) -> str:  # fmt: skip
    """A leaky integrate-and-fire neuron of one junction: its `bias`, µA, sets how many coincident fluxons make it fire.

    Each source feeds it through `inductance` pH and `resistance` Ω, whose current decays with `L / R`, the membrane time
    constant in ps. When it fires it takes a flux quantum from every branch, a reset. Returns the last node of its output
    line of two junctions.
    """
    node = circuit.junction(f"{name}.threshold")
    circuit.bias(node, bias, group)
    for source in sources:
        circuit.branch(source, node, inductance, resistance)
    first, last = transmission_line(circuit, f"{name}.out", 2)
    circuit.inductor(node, first, 8.0)
    return last


def flux_synapse(circuit: Circuit, name: str, source: str, *, weight: float, escape: float = 60.0) -> str:
    """A synapse of two junctions that decide over each fluxon: its `weight`, µA, sets how probably one passes.

    A fluxon flips the deciding junction and goes on, or the `escape` junction (µA) and leaves. Returns the last node of its
    output line.
    """
    inner, outer = f"{name}.in", f"{name}.decide"
    circuit.junction(inner, outer, critical=escape)
    circuit.junction(outer, critical=80.0)
    circuit.inductor(source, inner, 8.0)
    circuit.bias(outer, weight, "weights")
    first, last = transmission_line(circuit, f"{name}.out", 2)
    circuit.inductor(outer, first, 8.0)
    return last


def xor_network(*, hidden: float = 45.0, output: float = 105.0) -> tuple[Circuit, str]:
    """Exclusive or of two dual-rail inputs in two layers of neurons, 21 junctions. Returns (circuit, its output node).

    Inputs 0 to 3 are A, not A, B, not B. Biases in µA: `hidden` makes coincidence detectors, `output` a neuron that one
    fluxon fires.
    """
    circuit = Circuit()
    ends = {}
    for name in ("A", "notA", "B", "notB"):
        first, ends[name] = transmission_line(circuit, name, 3)
        circuit.drive(first)
    one = flux_neuron(circuit, "H1", (ends["A"], ends["notB"]), bias=hidden, group="hidden")
    two = flux_neuron(circuit, "H2", (ends["notA"], ends["B"]), bias=hidden, group="hidden")
    return circuit, flux_neuron(circuit, "OUT", (one, two), bias=output, group="output")
