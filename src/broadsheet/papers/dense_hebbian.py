"""Dense Hebbian neural networks: a replica symmetric picture of supervised learning, arXiv 2212.00606.

A memory of N spins with couplings of P > 2 neurons sees only noisy copies of its archetypes, averaged by a teacher. Theory
(order parameters, capacities, phases) stands beside Monte Carlo; two regimes: as many archetypes as N^(P-1), or few of them
under noise in the couplings. Controls: pairwise couplings, on the same neurons and with as many numbers in all; the list of
what was stored; staying where one starts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erf

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.networks.dense_memory import (
    DenseHebbian,
    ExampleSet,
    archetypes,
    corrupted,
    coupling_noise,
    sign_overlap,
    stored_numbers,
)
from broadsheet.networks.memory_baselines import PairwiseBank, nearest, overlaps, softmax_recall
from broadsheet.networks.replica import (
    PHASES,
    alpha_c,
    dataset_entropy,
    effective_load,
    examples_needed,
    phase_diagram,
    rs_pressure,
    rs_solve,
    snr,
    snr_binomial,
)
from broadsheet.numerics import generator
from broadsheet.vision.images import digits, mnist

paper = Paper(
    slug="dense-hebbian",
    arxiv="2212.00606",
    title="Dense Hebbian neural networks: a replica symmetric picture of supervised learning",
    published="2022-11-25",
    authors=8,
    basis="reconstructed",
    summary="Associative memories whose couplings join P > 2 neurons, learned from labelled noisy examples of archetypes that "
    "they never see. Statistical mechanics tells when they retrieve, by load, noise, and quality and number of the examples; "
    "load can be traded for robustness against noise in the couplings.",
    topics=("associative memory", "spin glasses", "supervised learning"),
    parts=(
        "broadsheet.networks.DenseHebbian",
        "broadsheet.networks.dense_memory.ExampleSet",
        "broadsheet.networks.replica.rs_solve",
        "broadsheet.networks.replica.phase_diagram",
    ),
    verbs=("broadsheet networks memory PATTERNS.csv",),
    notes=(
        "The abstract and the first lines were read; order parameters, pressure and the formulas for one step were derived "
        "anew from the model and compared with simulation. None of the paper's own numbers are shown.",
        "The glass is that of replica symmetry, which is not stable there; so is the bend of the capacity at low temperature.",
        "Couplings join distinct neurons. Where sums run over repeated indices too, capacities are 2.5 times smaller at P = 4.",
    ),
)

TABLE = {
    3: {0.0: 0.126095, 0.1: 0.099565, 0.3: 0.076962, 0.6: 0.064633, 1.0: 0.058384, 2.0: 0.053600},
    4: {0.0: 0.032977, 0.1: 0.021763, 0.3: 0.013550, 0.6: 0.009811, 1.0: 0.008153, 2.0: 0.007008},
}
"""Capacities without thermal noise by order and entropy of the data, from damped iteration of the equations and bisection."""


@dataclass(frozen=True)
class Field:
    """Small networks against the sum over all sets of neurons, a large one against a recursion in extended precision."""

    sizes: tuple[int, ...] = (6, 7, 8)
    orders: tuple[int, ...] = (3, 4, 5)
    patterns: int = 5
    large: int = 10_000  # neurons, P = 4
    large_patterns: int = 20


@paper.experiment(
    presets={"smoke": Field(sizes=(6,), orders=(4,), large=50), "quick": Field(), "paper": Field(large_patterns=1000)},
    claims=[
        Claim("DH1", "the field without the tensor is the sum over all sets of neurons", kind="check",
              reference="loops over sets of neurons; for 10 000 neurons the recursion of elementary symmetric polynomials in "
              "extended precision; control: the cheaper sum that lets indices repeat", ablation="repeated-indices",
              checks=[at_most("max_error", 1e-10), at_most("energy_error", 1e-10), at_most("large_error", 1e-10)]),
    ],
    precision="float64",
    cost=4.0,
)  # fmt: skip
def field(config: Field, key, log: Log) -> Report:
    """The largest difference of fields and energies from brute force; of a large network relative to its largest field."""
    rng = generator(key)
    arms: dict[str, dict[str, float]] = {"system": {}, "repeated-indices": {}}
    errors = []
    for name, distinct in (("system", True), ("repeated-indices", False)):
        found = []
        for neurons in config.sizes:
            for order in config.orders:
                x, sigma = rng.standard_normal((config.patterns, neurons)), rng.choice([-1.0, 1.0], neurons)
                h, energy = _brute_force(x, sigma, order)
                ours, its_energy = _field_and_energy(DenseHebbian(x, order, distinct=distinct), jnp.asarray(sigma))
                found.append((np.abs(ours - h).max(), abs(float(its_energy) - energy)))
        x = archetypes(rng, config.large_patterns, config.large).astype(float)
        probes, sigma = rng.choice(config.large, 10, replace=False), rng.choice([-1.0, 1.0], config.large)
        h = np.asarray(_field(DenseHebbian(x, distinct=distinct), jnp.asarray(sigma)))[probes]
        wanted = _extended_field(x, sigma, probes)
        arms[name] = {
            "max_error": max(row[0] for row in found), "energy_error": max(row[1] for row in found),
            "large_error": float(np.abs(h - wanted).max() / np.abs(wanted).max()),
        }  # fmt: skip
        errors.append([max(row[0], 1e-18) for row in found])
    return Report(arms=arms, arrays={"errors": errors})


@eqx.filter_jit
def _field(net: DenseHebbian, sigma: Any) -> Any:
    return net.field(sigma)


@eqx.filter_jit
def _field_and_energy(net: DenseHebbian, sigma: Any) -> Any:
    return net.field(sigma), net.energy(sigma)


def _brute_force(x: np.ndarray, sigma: np.ndarray, order: int) -> tuple[np.ndarray, float]:
    """Field and energy by a loop over the sets of neurons."""
    h, energy = np.zeros(len(sigma)), 0.0
    for members in combinations(range(len(sigma)), order):
        product = np.prod(x[:, members] * sigma[list(members)], axis=1).sum() / len(sigma) ** (order - 1)
        energy -= product
        h[list(members)] += math.factorial(order - 1) * product * sigma[list(members)]
    return h, energy


def _extended_field(x: np.ndarray, sigma: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Field of order 4 on some neurons, by adding one neuron after the other to e_1 … e_3, in extended precision."""
    u = (x * sigma).astype(np.longdouble)
    e = np.zeros((4, len(probes), len(x)), np.longdouble)
    e[0] = 1
    for i in range(u.shape[1]):
        e[1:] += np.where(probes == i, 0, 1)[:, None] * u[:, i] * e[:-1]
    return (6 * (x.T[probes] * e[3]).sum(axis=1) / np.longdouble(u.shape[1]) ** 3).astype(float)


@field.figure
def field_errors(runs: Runs):
    """Difference from brute force, one network a point."""
    system, control = runs["system"].arrays["errors"]
    fig, axis = figure()
    axis.semilogy(control, "s", color=CONTROL_COLOUR, label="indices may repeat")
    axis.semilogy(system, "o", color=SYSTEM_COLOUR, label="distinct neurons")
    axis.axhline(1e-10, color="black", lw=0.8, ls="--")
    label(axis, "network", "largest difference of fields")
    return fig


@dataclass(frozen=True)
class Theory:
    """Phase diagrams of load and temperature at several entropies of the data, and where to look closer."""

    order: int = 4
    more_orders: tuple[int, ...] = ()
    entropies: tuple[float, ...] = (0.0, 0.1, 0.3)
    grid: int = 25
    top_load: float = 0.045


@paper.experiment(
    presets={"smoke": Theory(grid=3), "quick": Theory(), "paper": Theory(more_orders=(3, 6), grid=100)},
    claims=[
        Claim("DH2", "the solver's order parameters are where the pressure's derivatives vanish", kind="check",
              reference="automatic differentiation of the pressure, P = 4, alpha = 0.02, rho = 0.2, T' = 0.2; control: the "
              "solution of equations without the examples' noise", ablation="no-example-noise",
              checks=[at_most("gradient_n", 1e-6), at_most("gradient_q", 1e-6)]),
        Claim("DH3", "capacities without thermal noise", kind="check",
              reference="max over t of erf(t)^(2(P-1)) / (2 t²) by SciPy, over (P-1)!; control: sums whose indices may repeat, "
              "(2P-3)!! for (P-1)!", ablation="repeated-indices",
              checks=[at_most("capacity_error_3", 1e-4), at_most("capacity_error_4", 1e-4)]),
        Claim("DH9", "the region of retrieval shrinks as the data's entropy grows, with the table's capacities", kind="check",
              reference="capacities by damped iteration and bisection, P = 3 and 4, entropies 0 to 2; control: equations "
              "without the examples' noise", ablation="no-example-noise",
              checks=[at_most("table_error", 0.01), at_least("smallest_shrinkage", 1e-6)]),
    ],
    precision="float64",
    deterministic=True,
    cost=8.0,
)  # fmt: skip
def theory(config: Theory, key, log: Log) -> Report:
    """Capacities, derivatives of the pressure, and phase diagrams."""
    point: dict[str, Any] = {"order": 4, "load": 0.02, "rho": 0.2, "temperature": 0.2}
    slope = jax.jit(jax.grad(lambda n, q: rs_pressure(n, q, **point), argnums=(0, 1)))
    solved = rs_solve(**point)
    blind = rs_solve(4, 0.02, 0.0, 0.2)
    gradients = {
        name: [abs(float(each)) for each in slope(jnp.asarray(n), jnp.asarray(q))]
        for name, n, q in (("system", solved.n, solved.q), ("no-example-noise", blind.n / 1.2, blind.q))
    }
    closed = {order: _closed_capacity(order) for order in (3, 4)}
    ratio = {order: math.factorial(order - 1) / math.prod(range(2 * order - 3, 0, -2)) for order in (3, 4)}
    table = {
        "system": [alpha_c(order, rho) / wanted - 1 for order, row in TABLE.items() for rho, wanted in row.items()],
        "no-example-noise": [
            alpha_c(order) * (1 + rho) ** -order / wanted - 1 for order, row in TABLE.items() for rho, wanted in row.items()
        ],
    }
    temperatures = np.linspace(1, config.grid, config.grid) / config.grid
    diagrams: dict[str, Any] = {}
    for order in (config.order, *config.more_orders):
        loads = np.linspace(0, config.top_load * alpha_c(order) / alpha_c(4), config.grid)
        for k, rho in enumerate(config.entropies):
            found = phase_diagram(order, rho, temperatures, loads)
            prefix = f"order{order}_{k}_"
            diagrams |= {prefix + "phase": found.phase, prefix + "loads": loads}
            diagrams |= {prefix + name: np.nan_to_num(getattr(found, name)) for name in ("spinodal", "stable", "glass")}
            log.progress((k + 1) / len(config.entropies) / (1 + len(config.more_orders)))
    regions = np.array([diagrams[f"order{config.order}_{k}_spinodal"] for k in range(len(config.entropies))])
    shrinkage = {"smallest_shrinkage": np.min(-np.diff(regions, axis=0)[regions[:-1] > 0])}
    return Report(
        arms={
            name: {
                "gradient_n": gradients.get(name, gradients["system"])[0],
                "gradient_q": gradients.get(name, gradients["system"])[1],
                "table_error": np.abs(table.get(name, table["system"])).max(),
                "capacity_error_3": abs(alpha_c(3) * factor[3] / closed[3] - 1),
                "capacity_error_4": abs(alpha_c(4) * factor[4] / closed[4] - 1),
                **shrinkage,
            }
            for name, factor in (("system", {3: 1, 4: 1}), ("no-example-noise", {3: 1, 4: 1}), ("repeated-indices", ratio))
        },
        arrays={"temperatures": temperatures, "entropies": config.entropies, **diagrams},
    )


def _closed_capacity(order: int) -> float:
    found = minimize_scalar(lambda t: -(erf(t) ** (2 * (order - 1))) / (2 * t**2), bounds=(0.5, 4), method="bounded",
                            options={"xatol": 1e-10})  # fmt: skip
    return -found.fun / math.factorial(order - 1)


@theory.figure
def phases(runs: Runs):
    """Load against temperature: which phase, at three entropies of the data."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    data = runs["system"].arrays
    entropies, temperatures = data["entropies"], data["temperatures"]
    fig, axes = figure(len(entropies), width=3.4, height=3.3)
    colours = ("#f2f2f2", "#c9c9c9", "#a8d3e0", "#3f93b0")
    order = min(int(name[5 : name.index("_")]) for name in data if name.startswith("order") and name.endswith("_0_phase"))
    order = 4 if "order4_0_phase" in data else order
    for k, (axis, rho) in enumerate(zip(np.atleast_1d(axes), entropies, strict=True)):
        loads = data[f"order{order}_{k}_loads"]
        axis.pcolormesh(loads, temperatures, data[f"order{order}_{k}_phase"], cmap=ListedColormap(colours), vmin=-0.5, vmax=3.5,
                        shading="nearest")  # fmt: skip
        for name, colour, style in (("spinodal", COLOURS[1], "-"), ("stable", "black", "--"), ("glass", COLOURS[3], ":")):
            line = data[f"order{order}_{k}_{name}"]
            shown = line > 0
            axis.plot(line[shown], temperatures[shown], color=colour, ls=style)
        axis.set(xlim=(0, loads[-1]), ylim=(temperatures[0], 1))
        label(axis, "load α = K / N³", "temperature T'", title=f"entropy of the data ρ = {rho:g}")
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, PHASES, strict=True)]
    np.atleast_1d(axes)[-1].legend(handles=handles, frameon=True, fontsize="small", loc="upper right")
    return fig


@dataclass(frozen=True)
class Signal:
    """One parallel step from the archetype, P = 3, at three qualities of the data."""

    neurons: int = 150
    interference: float = 0.3  # (P - 1)! alpha
    samples: int = 24
    settings: tuple[tuple[float, int], ...] = ((1.0, 10), (0.6, 20), (0.4, 10))  # quality, examples


@paper.experiment(
    presets={"smoke": Signal(neurons=20, samples=2), "quick": Signal(), "paper": Signal(neurons=400, samples=100)},
    claims=[
        Claim("DH4", "the law of signal to noise for one step", kind="check",
              reference="mean overlap of 24 simulated steps with averages of real examples; control: the law without the power "
              "(1 + rho)^P of the interference, which is as good at perfect data", ablation="no-power",
              checks=[at_most("poor", 0.08), at_most("perfect", 0.04), at_least("poor", 0.1, of="no-power")]),
    ],
    cost=6.0,
)  # fmt: skip
def signal(config: Signal, key, log: Log) -> Report:
    """Overlap after one step without thermal noise, simulated and by the law."""
    order, rng = 3, generator(key)
    load = config.interference / math.factorial(order - 1)
    count = round(load * config.neurons ** (order - 1))
    means, spreads = [], []
    laws: dict[str, list[float]] = {"system": [], "no-power": [], "binomial": []}
    for quality, examples in config.settings:
        found = []
        for _ in range(config.samples):
            examples_of = ExampleSet(archetypes(rng, count, config.neurons), quality, examples)
            start = examples_of.archetypes[0].astype(float)
            h = _field(DenseHebbian(examples_of.means(rng) * (1 + 1e-6), order), jnp.asarray(start, jnp.float32))
            found.append(np.mean(np.sign(h) * start))
        rho = dataset_entropy(quality, examples)
        means.append(np.mean(found))
        spreads.append(np.std(found) / np.sqrt(config.samples))
        laws["system"].append(snr(order, load, neurons=config.neurons, rho=rho))
        laws["no-power"].append(float(erf(1 / np.sqrt(2 * (rho + config.interference)))))
        laws["binomial"].append(snr_binomial(order, load, quality=quality, examples=examples))
    names = ("perfect", "fair", "poor")
    return Report(
        arms={arm: {name: abs(a - b) for name, a, b in zip(names, law, means, strict=True)} for arm, law in laws.items()},
        arrays={"simulated": means, "standard_error": spreads, **laws},
    )


@signal.figure
def one_step(runs: Runs):
    """Simulated overlaps after one step, the law, and the law without its power."""
    data = runs["system"].arrays
    fig, axis = figure()
    at = np.arange(len(data["simulated"]))
    axis.errorbar(at, data["simulated"], 2 * data["standard_error"], fmt="o", color="black", label="simulated, 2 s.e.")
    axis.plot(at, data["system"], "_", ms=22, mew=2, color=SYSTEM_COLOUR, label="law")
    axis.plot(at, data["binomial"], "x", ms=8, color=COLOURS[1], label="law, averaged over binomial counts")
    axis.plot(at, data["no-power"], "_", ms=22, mew=2, color=CONTROL_COLOUR, label="without (1 + ρ)^P")
    axis.set_xticks(at, ["r = 1", "r = 0.6, M = 20", "r = 0.4, M = 10"][: len(at)])
    axis.set_ylim(0.4, 1)
    label(axis, "quality and number of examples", "overlap after one step")
    return fig


@dataclass(frozen=True)
class Storage:
    """More archetypes than neurons, and the fall of retrieval with load at several sizes."""

    neurons: int = 48
    order: int = 4
    load: float = 0.01
    cues: int = 16
    sets: int = 2  # of archetypes
    sweeps: int = 30
    temperature: float = 0.2  # of the curves
    sizes: tuple[int, ...] = (24, 48)
    loads: tuple[float, ...] = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.0363, 0.045)
    samples: int = 2
    replicas: int = 8
    curve_sweeps: int = 40


@paper.experiment(
    presets={"smoke": Storage(neurons=12, cues=2, sets=1, sizes=(10,), loads=(0.01, 0.1), samples=1, replicas=2, sweeps=2),
             "quick": Storage(),
             "paper": Storage(sets=8, sizes=(50, 100, 200), samples=20, curve_sweeps=100)},
    claims=[
        Claim("DH5", "ultra-storage: 1105 archetypes on 48 neurons are stable", kind="paper", where="abstract",
              ablation="pairwise", null=("stays", "nearest", "pairwise-bank"),
              checks=[at_least("from_archetype", 0.97), at_most("from_archetype", 0.6, of="pairwise")],
              reason="Begun on the archetype it is met by what never moves, by a list of the archetypes, which has a quarter "
              "of the couplings' numbers, and by 172 pairwise networks of as many numbers in all with 6 or 7 archetypes each."),
        Claim("DH5b", "and are recalled from cues of overlap 0.8", kind="paper", where="abstract; from cues",
              ablation="pairwise", null=("stays", "nearest", "pairwise-bank"),
              checks=[at_least("from_cue", 0.97, over="mean"), at_most("from_cue", 0.6, of="pairwise")],
              reason="The list of archetypes, searched for the nearest, recalls all of them, from a quarter of the numbers. "
              "Pairwise networks of as many numbers in all come near."),
        Claim("DH8", "Monte Carlo magnetisation is the theory's away from the transition", kind="check",
              reference="Glauber dynamics of the largest size at T' = 0.2 below 0.8 of the capacity (above it a network that "
              "begins on the archetype keeps a part of it, out of equilibrium); control: theory without interference",
              ablation="no-interference",
              checks=[at_most("rs_error", {"paper": 0.05})]),
    ],
    cost=12.0,
)  # fmt: skip
def storage(config: Storage, key, log: Log) -> Report:
    """Overlap with an archetype that was the start, or 0.8 of it; and against load at a temperature, beside theory."""
    rng, order = generator(key), config.order
    count = round(config.load * config.neurons ** (order - 1))
    found: dict[str, dict[str, list]] = {}
    for _ in range(config.sets):
        xi = archetypes(rng, count, config.neurons)
        for metric, overlap in (("from_archetype", 1.0), ("from_cue", 0.8)):
            wanted = xi[: config.cues]
            cues = corrupted(rng, wanted, overlap).astype(float)
            ends = {
                "system": _settle(DenseHebbian(xi, order), cues, rng, config.sweeps),
                "pairwise": _settle(DenseHebbian(xi, 2), cues, rng, config.sweeps),
                "stays": cues, "nearest": nearest(xi, cues), "softmax": softmax_recall(xi, cues, beta=1.0),
                "pairwise-bank": PairwiseBank(xi, order, sweeps=config.sweeps).recall(cues),
            }  # fmt: skip
            for arm, states in ends.items():
                found.setdefault(arm, {}).setdefault(metric, []).append(overlaps(states, wanted).mean())
    arms = {arm: {name: np.mean(values) for name, values in row.items()} for arm, row in found.items()}
    end = alpha_c(order, 0.0, config.temperature)
    theory_m = np.array([rs_solve(order, load, 0.0, config.temperature).m for load in config.loads])
    fine = np.linspace(0, max(config.loads), 46)
    theory_line = [rs_solve(order, load, 0.0, config.temperature).m for load in fine]
    curves = []
    for k, neurons in enumerate(config.sizes):
        curves.append(_load_curve(config, neurons, rng))
        log.progress((k + 1) / len(config.sizes))
    below = np.array(config.loads) < 0.8 * end
    free = rs_solve(order, 0.0, 0.0, config.temperature).m
    cold, _, full, naive = curves[-1]
    arms["system"] |= {"rs_error": _largest(cold - theory_m, below), "plefka_error": _largest(full - cold, below)}
    arms["no-interference"] = {"rs_error": _largest(cold - free, below), "plefka_error": _largest(naive - cold, below)}
    return Report(
        arms=arms,
        arrays={
            "loads": config.loads, "theory": theory_line, "theory_loads": fine, "sizes": config.sizes,
            "monte_carlo": [each[0] for each in curves],
            "spread": [each[1] for each in curves], "plefka": full, "naive": naive, "capacity": end,
        },
    )  # fmt: skip


def _settle(net: DenseHebbian, cues: np.ndarray, rng: np.random.Generator, sweeps: int) -> np.ndarray:
    return np.asarray(net.glauber(int(rng.integers(2**31)), cues, sweeps))


def _largest(difference: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(difference[where]).max())


def _load_curve(config: Storage, neurons: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Overlap from the archetype and its standard error over samples, and by Plefka's equations with and without reaction, for
    each load. Missing archetypes are rows of zeros, so that one program serves all loads."""
    cells = neurons ** (config.order - 1)
    most = round(max(config.loads) * cells)
    rows = []
    for load in config.loads:
        count = round(load * cells)
        values: dict[str, list] = {"glauber": [], "plefka": [], "naive": []}
        for _ in range(config.samples):
            xi = archetypes(rng, count, neurons)
            padded = np.zeros((most, neurons), np.float32)
            padded[:count] = xi
            net = DenseHebbian(padded, config.order, temperature=config.temperature)
            start = xi[: config.replicas].astype(float)
            values["glauber"].append(overlaps(_settle(net, start, rng, config.curve_sweeps), start).mean())
            for name, reaction in (("plefka", load), ("naive", 0.0)):
                means = jax.vmap(lambda one, reaction=reaction, net=net: net.plefka(one, 60, load=reaction))(jnp.asarray(start))
                values[name].append(overlaps(means, start).mean())
        error = np.std(values["glauber"]) / np.sqrt(config.samples)
        rows.append((np.mean(values["glauber"]), error, np.mean(values["plefka"]), np.mean(values["naive"])))
    return tuple(np.array(rows).T)


@storage.figure
def load_curves(runs: Runs):
    """Overlap against load: sizes beside theory; and how memories compare at 23 archetypes a neuron."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.2, height=3.4)
    axis.plot(data["theory_loads"], data["theory"], color="black", label="theory, N → ∞")
    axis.axvline(float(data["capacity"]), color="black", lw=0.8, ls=":")
    for size, m, error, colour in zip(data["sizes"], data["monte_carlo"], data["spread"], COLOURS, strict=False):
        axis.errorbar(data["loads"], m, error, fmt="o", ms=4, color=colour, label=f"Monte Carlo, N = {size}")
    axis.plot(data["loads"], data["plefka"], "+", color=COLOURS[3], label="Plefka, second order")
    axis.plot(data["loads"], data["naive"], "x", ms=4, color=CONTROL_COLOUR, label="naive mean field")
    axis.set_ylim(-0.05, 1.05)
    label(axis, "load α = K / N³", "overlap with the archetype", title="started on it, T' = 0.2")
    return fig


@dataclass(frozen=True)
class Detection:
    """Few archetypes under noise of omega = w N in every coupling, for each archetype; P = 4."""

    neurons: int = 48
    noise: float = 0.2  # w
    strong: float = 0.4
    cues: int = 8
    sets: int = 3
    sweeps: int = 20
    sizes: tuple[int, ...] = (24, 36, 48)
    widths: tuple[float, ...] = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


@paper.experiment(
    presets={"smoke": Detection(neurons=12, cues=2, sets=1, sweeps=2, sizes=(10,), widths=(0.0, 0.5)), "quick": Detection(),
             "paper": Detection(neurons=64, sets=12, sizes=(24, 32, 48, 64))},
    claims=[
        Claim("DH6", "ultra-detection: archetypes are stable under noise of 0.2 N in the couplings, 47 times their signal",
              kind="paper", where="abstract", ablation="pairwise", null=("stays", "repetition", "pairwise-bank"),
              checks=[at_least("from_archetype", 0.98, over="mean"), at_most("from_archetype", 0.6, of="pairwise")],
              reason="Begun on the archetype it is met by what never moves. As many numbers spent on copies of each bit, under "
              "the noise of one archetype a number, do not meet it, nor do pairwise networks."),
        Claim("DH6b", "and are recalled under it from cues of overlap 0.8", kind="paper", where="abstract; from cues",
              ablation="pairwise", null=("stays", "repetition", "pairwise-bank"),
              checks=[at_least("from_cue", 0.98, over="mean"), at_most("from_cue", 0.6, of="pairwise")],
              reason="At 48 neurons some cues lie outside the basins: 0.91 in the mean, 0.94 and 0.95 with other draws, about "
              "the 0.92 of pairwise networks of as many numbers with the noise averaged out, and above the 0.83 of copies."),
        Claim("DH6c", "but not under noise of 0.4 N", kind="check",
              reference="(P - 1)! times the effective load is 0.48 there, above its largest value, 0.198; control: staying",
              ablation="stays", checks=[at_most("strong", 0.95)]),
    ],
    cost=8.0,
)  # fmt: skip
def detection(config: Detection, key, log: Log) -> Report:
    """Overlaps at two strengths of noise, and against the strength at several sizes with K = N / 2."""
    rng, order = generator(key), 4
    neurons, count = config.neurons, config.neurons // 2
    found: dict[str, dict[str, list]] = {}
    for _ in range(config.sets):
        xi = archetypes(rng, count, neurons)
        wanted = xi[: config.cues]
        noise, pair_noise = coupling_noise(rng, neurons, order), coupling_noise(rng, neurons, 2)
        for metric, width, overlap in (
            ("from_archetype", config.noise, 1.0), ("from_cue", config.noise, 0.8), ("strong", config.strong, 1.0),
        ):  # fmt: skip
            omega = width * neurons
            cues = corrupted(rng, wanted, overlap).astype(float)
            size = omega * np.sqrt(count)
            copies = stored_numbers(neurons, order) // (count * neurons)
            repeated = wanted + omega / np.sqrt(copies) * rng.standard_normal(wanted.shape)
            bank = PairwiseBank(xi, order, groups=min(24, count), omega=omega, key=rng, sweeps=config.sweeps)
            ends = {
                "system": _settle(DenseHebbian(xi, order, noise=noise, noise_scale=size), cues, rng, config.sweeps),
                "pairwise": _settle(DenseHebbian(xi, 2, noise=pair_noise, noise_scale=size), cues, rng, config.sweeps),
                "stays": cues, "repetition": np.sign(repeated), "pairwise-bank": bank.recall(cues),
            }  # fmt: skip
            for arm, states in ends.items():
                found.setdefault(arm, {}).setdefault(metric, []).append(overlaps(states, wanted).mean())
    curves = np.zeros((len(config.sizes), len(config.widths)))
    for k, size in enumerate(config.sizes):
        xi = archetypes(rng, size // 2, size)
        noise, start = coupling_noise(rng, size, order), xi[: config.cues].astype(float)
        for j, width in enumerate(config.widths):
            net = DenseHebbian(xi, order, noise=noise, noise_scale=width * size * np.sqrt(len(xi)))
            curves[k, j] = overlaps(_settle(net, start, rng, config.sweeps), start).mean()
        log.progress((k + 1) / len(config.sizes))
    fine = np.linspace(0, max(config.widths), 101)
    loads = [effective_load(order, 0.5, neurons=neurons, exponent=1.0, omega=neurons * width) for width in fine]
    theory_m = [rs_solve(order, load).m for load in loads]
    return Report(
        arms={arm: {name: np.mean(values) for name, values in row.items()} for arm, row in found.items()},
        arrays={"sizes": config.sizes, "widths": config.widths, "curves": curves, "theory": theory_m, "fine": fine},
    )


@detection.figure
def noise_curves(runs: Runs):
    """Overlap against the noise's deviation over the number of neurons: sizes beside theory."""
    data = runs["system"].arrays
    fig, axis = figure()
    for size, curve, colour in zip(data["sizes"], data["curves"], COLOURS, strict=False):
        axis.plot(data["widths"], curve, "o-", ms=4, lw=0.8, color=colour, label=f"N = {size}, K = {size // 2}")
    axis.plot(data["fine"], data["theory"], color="black", label="theory, N → ∞")
    axis.set_ylim(-0.05, 1.05)
    label(axis, "noise in the couplings, ω / N", "overlap with the archetype", title="started on it, no thermal noise")
    return fig


@dataclass(frozen=True)
class Teaching:
    """What a teacher's averages are worth: few and poor examples, and learning curves."""

    neurons: int = 40
    archetypes: int = 10
    poor: float = 0.3  # quality
    good: float = 0.9
    examples: int = 20
    samples: int = 8
    sweeps: int = 20
    curve_neurons: int = 48
    curve_archetypes: int = 24
    curve_samples: int = 4
    qualities: tuple[float, ...] = (0.2, 0.4, 0.6)
    numbers: tuple[int, ...] = (2, 3, 5, 9, 17, 33, 65, 129)


@paper.experiment(
    presets={"smoke": Teaching(neurons=12, archetypes=2, samples=1, sweeps=2, curve_neurons=12, curve_archetypes=3,
                               curve_samples=1, qualities=(0.4,), numbers=(2, 9)),
             "quick": Teaching(),
             "paper": Teaching(samples=64, curve_neurons=200, curve_archetypes=100, curve_samples=20)},
    claims=[
        Claim("DH7", "with poor examples a taught network retrieves better than an untaught one", kind="paper",
              where="title and abstract, with the unsupervised twin, arXiv 2211.14067", ablation="blind",
              null=("class-mean", "nearest", "stays"), seeds=8,
              checks=[at_least("poor", 0.15, minus="unsupervised"), at_most("good", 0.05, minus="unsupervised")],
              reason="The sign of the teacher's average is as near to the archetype as what the network makes of it: it is the "
              "average that does it, whatever is built on it. From the archetype, staying does too."),
        Claim("DH7b", "also from cues of overlap 0.8", kind="paper",
              where="title and abstract, with the unsupervised twin, arXiv 2211.14067; from cues", ablation="blind",
              null=("class-mean", "nearest", "stays"), seeds=8,
              checks=[at_least("poor_from_cue", 0.15, minus="unsupervised")],
              reason="As above: the sign of the average has the overlap without a network."),
    ],
    cost=6.0,
)  # fmt: skip
def teaching(config: Teaching, key, log: Log) -> Report:
    """Overlap with the archetype of networks taught and untaught, and against the number of examples, beside theory."""
    rng, order = generator(key), 4
    found: dict[str, dict[str, list]] = {}
    for _ in range(config.samples):
        xi = archetypes(rng, config.archetypes, config.neurons)
        for metric, quality, overlap in (
            ("poor", config.poor, 1.0), ("poor_from_cue", config.poor, 0.8), ("good", config.good, 1.0),
        ):  # fmt: skip
            copies = ExampleSet(xi, quality, config.examples).copies(rng)
            means = copies.mean(axis=1)
            taught, cues = means / np.sqrt(np.mean(means**2)), corrupted(rng, xi, overlap).astype(float)
            shuffled = copies.reshape(-1, config.neurons)[rng.permutation(len(xi) * config.examples)]
            blind = shuffled.reshape(copies.shape).mean(axis=1)
            sides = {
                "system": _settle(DenseHebbian(taught, order), cues, rng, config.sweeps),
                "unsupervised": _settle(DenseHebbian.unsupervised(copies, order), cues, rng, config.sweeps),
                "blind": _settle(DenseHebbian(blind / np.sqrt(np.mean(blind**2)), order), cues, rng, config.sweeps),
                "class-mean": _class_means(means, cues), "nearest": nearest(shuffled, cues), "stays": cues,
            }  # fmt: skip
            for arm, states in sides.items():
                found.setdefault(arm, {}).setdefault(metric, []).append(overlaps(states, xi).mean())
    arms = {arm: {name: np.mean(values) for name, values in row.items()} for arm, row in found.items()}
    shape = (len(config.qualities), len(config.numbers))
    curves, lines, exact = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    load = config.curve_archetypes / config.curve_neurons ** (order - 1)
    for k, quality in enumerate(config.qualities):
        for j, number in enumerate(config.numbers):
            lines[k, j] = rs_solve(order, load, dataset_entropy(quality, number)).m
            exact[k, j] = sign_overlap(quality, number)
            for _ in range(config.curve_samples):
                xi = archetypes(rng, config.curve_archetypes, config.curve_neurons)
                net = DenseHebbian(ExampleSet(xi, quality, number).means(rng), order)
                start = xi[:8].astype(float)
                curves[k, j] += overlaps(_settle(net, start, rng, config.sweeps), start).mean() / config.curve_samples
        log.progress((k + 1) / len(config.qualities))
    return Report(
        arms=arms,
        arrays={
            "qualities": config.qualities, "numbers": config.numbers, "curves": curves, "theory": lines, "sign": exact,
            "needed": [examples_needed(order, load, quality, float(erf(1))) for quality in config.qualities],
        },
    )  # fmt: skip


def _class_means(means: np.ndarray, cues: np.ndarray) -> np.ndarray:
    """The sign of the teacher's average that is nearest to each cue."""
    return nearest(np.where(means >= 0, 1.0, -1.0), cues)


@teaching.figure
def learning_curves(runs: Runs):
    """Overlap with the archetype against the number of examples."""
    data = runs["system"].arrays
    fig, axis = figure(width=5.2, height=3.4)
    for k, (quality, colour) in enumerate(zip(data["qualities"], COLOURS, strict=False)):
        axis.semilogx(data["numbers"], data["theory"][k], color=colour, label=f"theory, r = {quality:g}")
        axis.plot(data["numbers"], data["curves"][k], "o", ms=4, color=colour)
        axis.plot(data["numbers"], data["sign"][k], "x", ms=4, color=CONTROL_COLOUR)
        axis.axvline(data["needed"][k], color=colour, lw=0.8, ls=":")
    axis.plot([], [], "ko", ms=4, label="Monte Carlo")
    axis.plot([], [], "x", ms=4, color=CONTROL_COLOUR, label="sign of the average alone")
    axis.set_ylim(0, 1.05)
    label(axis, "examples of each archetype, M", "overlap with the archetype", title="dotted: M at which a step keeps 0.84")
    return fig


@dataclass(frozen=True)
class Pictures:
    """Handwritten digits: archetypes are the signs of the classes' means, examples are images."""

    images: Literal["digits", "mnist"] = "digits"
    data: str | None = None  # folder of MNIST or Fashion-MNIST
    order: int = 4
    examples: tuple[int, ...] = (1, 3, 10, 30, 100)
    cues: int = 200
    sweeps: int = 20


@paper.experiment(
    presets={"smoke": Pictures(examples=(3,), cues=20, sweeps=2), "quick": Pictures(),
             "paper": Pictures(images="mnist", examples=(1, 10, 100, 1000), cues=2000)},
    data="data",
    cost=6.0,
)  # fmt: skip
def pictures(config: Pictures, key, log: Log) -> Report:
    """Overlap with a class's archetype, from it and from new images, against the number of examples of each class."""
    rng = generator(key)
    images = mnist(config.data) if config.images == "mnist" else digits(rng)
    flat = [part.reshape(len(part), -1) for part in (images.x, images.test_x)]
    middle = np.median(flat[0], axis=0) if config.images == "digits" else np.full(flat[0].shape[1], 0.5)
    kept = np.mean(flat[0] > middle, axis=0).clip(0.02, 0.98) == np.mean(flat[0] > middle, axis=0)
    x, test_x = (np.where(part > middle, 1.0, -1.0)[:, kept] for part in flat)
    classes = np.unique(images.y)
    prototypes = np.stack([np.where(x[images.y == each].mean(axis=0) >= 0, 1.0, -1.0) for each in classes])
    test_x, test_y = test_x[: config.cues], images.test_y[: config.cues]
    sides = ("system", "pairwise", "class-mean", "nearest")
    curves = {side: np.zeros((len(config.examples), len(classes))) for side in sides}
    right = {side: np.zeros(len(config.examples)) for side in sides}
    for k, number in enumerate(config.examples):
        rows = [rng.choice(np.flatnonzero(images.y == each), number, replace=False) for each in classes]
        means = np.stack([x[each].mean(axis=0) for each in rows])
        taught = means / np.sqrt(np.mean(means**2, axis=1, keepdims=True))
        nets = {"system": DenseHebbian(taught, config.order), "pairwise": DenseHebbian(taught, 2)}
        cues = np.concatenate([prototypes, test_x])
        shown = {side: _settle(net, cues, rng, config.sweeps) for side, net in nets.items()}
        shown |= {"class-mean": _class_means(means, cues), "nearest": nearest(x[np.concatenate(rows)], cues)}
        for side, states in shown.items():
            curves[side][k] = overlaps(states[: len(classes)], prototypes)
            guessed = classes[np.argmax(states[len(classes) :] @ prototypes.T, axis=1)]
            right[side][k] = np.mean(guessed == test_y)
        log.progress((k + 1) / len(config.examples))
    guessed = np.argmax(shown["system"][len(classes) :] @ prototypes.T, axis=1)
    confusion = np.zeros((len(classes), len(classes)))
    np.add.at(confusion, (np.searchsorted(classes, test_y), guessed), 1)
    return Report(
        arms={side: {"overlap": curves[side][-1].mean(), "accuracy": right[side][-1]} for side in sides},
        arrays={"examples": config.examples, "confusion": confusion}
        | {f"overlap_{side}": curves[side] for side in sides} | {f"accuracy_{side}": right[side] for side in sides},
    )  # fmt: skip


@pictures.figure
def digits_learned(runs: Runs):
    """Overlap with the class's archetype and share of new images told right, by number of examples; and the confusion."""
    data = runs["system"].arrays
    fig, (left, middle, last) = figure(3, width=3.6)
    for (side, name), colour in zip(
        {"system": "P = 4", "pairwise": "P = 2", "class-mean": "nearest class mean", "nearest": "nearest example"}.items(),
        (SYSTEM_COLOUR, COLOURS[1], CONTROL_COLOUR, COLOURS[3]), strict=True,
    ):  # fmt: skip
        left.semilogx(data["examples"], data[f"overlap_{side}"].mean(axis=1), "o-", ms=4, color=colour, label=name)
        middle.semilogx(data["examples"], data[f"accuracy_{side}"], "o-", ms=4, color=colour, label=name)
    label(left, "examples of each class", "overlap with the archetype", title="from the archetype")
    label(middle, "examples of each class", "share of new images told right", legend=False)
    shown = last.imshow(data["confusion"], cmap="Blues")
    fig.colorbar(shown, ax=last, label="images")
    label(last, "class of the nearest archetype", "class", title="P = 4, most examples")
    return fig


@dataclass(frozen=True)
class Cost:
    """Time of a field, without the tensor and with it."""

    order: int = 4
    counts: tuple[int, ...] = (250, 500, 1000, 2000, 4000)  # at `neurons`
    neurons: int = 200
    sizes: tuple[int, ...] = (50, 100, 200, 400, 800)  # with `patterns`
    patterns: int = 1000
    tensor_sizes: tuple[int, ...] = (12, 18, 24, 36)
    repeats: int = 5


@paper.experiment(
    presets={"smoke": Cost(counts=(10, 20), sizes=(10, 20), neurons=10, patterns=10, tensor_sizes=(6, 8), repeats=1),
             "quick": Cost(), "paper": Cost(sizes=(100, 400, 1600, 6400), tensor_sizes=(12, 24, 48, 72))},
    cost=6.0,
)  # fmt: skip
def cost(config: Cost, key, log: Log) -> Report:
    """Seconds of one field on all neurons, against the number of patterns and of neurons."""
    rng = generator(key)
    with log.alone():
        by_count = [_seconds(config, count, config.neurons, rng) for count in config.counts]
        by_size = [_seconds(config, config.patterns, neurons, rng) for neurons in config.sizes]
        tensor = [_tensor_seconds(config, neurons, rng) for neurons in config.tensor_sizes]
    slopes = {
        "slope_patterns": np.polyfit(np.log(config.counts), np.log(by_count), 1)[0],
        "slope_neurons": np.polyfit(np.log(config.sizes), np.log(by_size), 1)[0],
    }
    return Report(
        arms={"system": slopes, "tensor": {"slope_neurons": np.polyfit(np.log(config.tensor_sizes), np.log(tensor), 1)[0]}},
        arrays={
            "counts": config.counts, "by_count": by_count, "sizes": config.sizes, "by_size": by_size,
            "tensor_sizes": config.tensor_sizes, "tensor": tensor,
        },
    )  # fmt: skip


def _seconds(config: Cost, count: int, neurons: int, rng: np.random.Generator) -> float:
    net = DenseHebbian(rng.standard_normal((count, neurons)), config.order)
    sigma = jnp.asarray(rng.choice([-1.0, 1.0], neurons), jnp.float32)
    return _least(lambda: _field(net, sigma).block_until_ready(), config.repeats)


def _tensor_seconds(config: Cost, neurons: int, rng: np.random.Generator) -> float:
    """The same field from the whole tensor of couplings, which is built outside the time."""
    tensor = coupling_noise(rng, neurons, config.order)
    sigma = rng.choice([-1.0, 1.0], neurons).astype(np.float32)

    def contract() -> None:
        rest = tensor
        for _ in range(config.order - 1):
            rest = rest @ sigma

    return _least(contract, config.repeats)


def _least(work: Any, repeats: int) -> float:
    work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


@cost.figure
def time_of_a_field(runs: Runs):
    """Time of a field against neurons and patterns, without the tensor and with it."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.loglog(data["sizes"], data["by_size"], "o-", color=SYSTEM_COLOUR, label="power sums, 1000 patterns")
    left.loglog(data["tensor_sizes"], data["tensor"], "s-", color=CONTROL_COLOUR, label="tensor, P = 4, built before")
    label(left, "neurons N", "time of a field, s")
    right.loglog(data["counts"], data["by_count"], "o-", color=SYSTEM_COLOUR, label="power sums, 200 neurons")
    right.minorticks_off()
    label(right, "patterns K", "time of a field, s")
    return fig
