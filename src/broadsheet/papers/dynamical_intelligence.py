"""A brain basis of dynamical intelligence, arXiv 2105.07284.

A position paper without equations or experiments: what runs here is ours, after its programme. Sparse codes in binary memories,
a clock of nested oscillations that writes and reads them, and an agent that learns by acting. Most is explained as well by
something simpler (a table, a list, a phase that is divided by seven), and the verdicts say so.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from broadsheet.dynamics import Lens, parallel, rollout, wire
from broadsheet.dynamics.phases import (
    TURN,
    Clock,
    Kuramoto,
    Ticks,
    adler,
    kuramoto_order,
    lorentzian_frequencies,
    phase_locking_value,
)
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.networks.graph_worlds import GraphWorld, random_goals, ring_of_paths
from broadsheet.networks.tabular_agents import TabularAgent, relearns
from broadsheet.networks.theta_gamma import FORWARD, Request, ThetaGammaMemory
from broadsheet.networks.theta_gamma_agent import TGA, inhabit, live
from broadsheet.networks.willshaw import Willshaw, bit_density, largest_load, spurious_units, spurious_units_by_usage
from broadsheet.numerics import generator
from broadsheet.numerics.sparse_codes import SparseCode, k_winners, shared

paper = Paper(
    slug="dynamical-intelligence",
    arxiv="2105.07284",
    title="A brain basis of dynamical intelligence for AI and computational neuroscience",
    published="2021-05-15",
    authors=3,
    basis="reconstructed",
    summary="A position on what brains have and networks lack: sparse structure, nested oscillations that read and update "
    "long-term memory, and learning by interaction. Ours, after it: a binary memory of sparse codes that a theta-gamma clock "
    "writes and reads in one shot, and an agent that plans by sweeps and replays of it.",
    topics=("theta-gamma oscillations", "world models", "memory"),
    parts=(
        "broadsheet.dynamics.phases.Clock",
        "broadsheet.networks.willshaw.Willshaw",
        "broadsheet.networks.theta_gamma.ThetaGammaMemory",
        "broadsheet.networks.theta_gamma_agent.TGA",
        "broadsheet.networks.graph_worlds.GraphWorld",
    ),
    notes=(
        "The paper has no equations and no experiments: every number here is of our embodiment of its programme, none is the "
        "paper's.",
        "Conjunctive units multiply their inputs from item and context. With the sum, keys of one context share a third of "
        "their units: harmless for thirty contexts with seven items each, and not for two actions with 140.",
        "With conjunctive units the transpose of the forward synapses does not read backward; a second projection, written at "
        "the same time, does.",
        "More units than (N - k) p^k are spurious, since a unit that was active in many patterns has many synapses; averaged "
        "over how often units were active, the closed form gives what is counted.",
        "Sparse is not enough: digits, projected onto codes of ten units, share so many of them that sequences of 1400 digits "
        "are not recalled, where random codes are.",
    ),
)  # fmt: skip

POSITION = "the position, in our embodiment"


@dataclass(frozen=True)
class Locking:
    """Detunings and couplings, rad/s."""

    detunings: int = 17  # of the map
    couplings: int = 13
    seconds: float = 20.0
    coupled: float = 1.0  # 0 takes the coupling away


@paper.experiment(
    presets={"smoke": Locking(detunings=3, couplings=2, seconds=9.0), "quick": Locking(),
             "paper": Locking(detunings=61, couplings=41, seconds=120.0)},
    variants={"uncoupled": {"coupled": 0.0}},
    deterministic=True,
    precision="float64",
    claims=[
        Claim("DI1", "gamma locks to theta as Adler's equation says", kind="check", ablation="uncoupled",
              reference="closed forms of the phase-locking value and of the drift; control: no coupling",
              checks=[at_most("plv_error", 0.01), at_most("drift_error", 0.01)]),
    ],
    cost=4.0,
)  # fmt: skip
def locking(config: Locking, key, log: Log) -> Report:
    """Phase-locking value and drift of two oscillators over detuning and coupling, beside Adler's closed forms."""
    points = np.array([(1.0, 2.0), (2.5, 2.0), (3.0, 1.0)])
    detunings, couplings = np.linspace(-4, 4, config.detunings), np.linspace(0.25, 3, config.couplings)
    grid = np.stack(np.meshgrid(detunings, couplings), axis=-1).reshape(-1, 2)
    found = np.array([_locked(pair, config) for pair in _phases(np.concatenate([points, grid]), config)])
    expected = np.stack(adler(*np.concatenate([points, grid]).T), axis=1)
    error = np.abs(found[:, 0] / expected[:, 0] - 1)
    drift = np.abs(found[:, 1] - expected[:, 1]) / np.maximum(expected[:, 1], 1.0)
    shape = (config.couplings, config.detunings)
    return Report(
        metrics={"plv_error": error[:3].max(), "drift_error": drift[:3].max(), "map_error": np.median(error[3:])},
        arrays={"detunings": detunings, "couplings": couplings, "plv": found[3:, 0].reshape(shape),
                "closed": expected[3:, 0].reshape(shape)},
    )  # fmt: skip


def _phases(pairs: np.ndarray, config: Locking) -> np.ndarray:
    """Phases of both oscillators at 8 Hz for each (D, kappa): (pairs, 2, time)."""

    @jax.jit
    def run(detuning, coupling):
        clock = Clock(f_gamma=8.0 - detuning / TURN, n=1, kappa=config.coupled * coupling)
        steps = round(config.seconds * 1000 / clock.dt) // 20 * 20
        return jnp.stack(rollout(clock, steps=steps, every=20, record=lambda tick, _: (tick.theta, tick.gamma))[1])

    return np.asarray(jax.vmap(run)(*jnp.asarray(pairs).T))


def _locked(phases: np.ndarray, config: Locking) -> tuple[float, float]:
    """(phase-locking value, drift in rad/s)."""
    value, rate = phase_locking_value(*phases)
    return value, abs(rate) / 0.01  # a sample is 10 ms


@locking.figure
def tongue(runs: Runs):
    """The Arnold tongue: phase-locking value over detuning and coupling, and the closed-form border."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    image = left.pcolormesh(data["detunings"], data["couplings"], data["plv"], vmin=0, vmax=1, cmap="Blues", shading="nearest")
    edge = data["couplings"]
    left.plot(edge, edge, color=COLOURS[1], label="|D| = κ")
    left.plot(-edge, edge, color=COLOURS[1])
    left.set_xlim(data["detunings"][0], data["detunings"][-1])
    label(left, "detuning D (rad/s)", "coupling κ (rad/s)")
    fig.colorbar(image, ax=left, label="phase-locking value")
    row = len(data["couplings"]) // 2
    right.plot(data["detunings"], data["closed"][row], color="k", lw=0.8, label="Adler")
    right.plot(data["detunings"], data["plv"][row], "o", color=SYSTEM_COLOUR, ms=4, label="coupled")
    right.plot(data["detunings"], runs["uncoupled"].arrays["plv"][row], "s", color=CONTROL_COLOUR, ms=3, label="uncoupled")
    label(right, "detuning D (rad/s)", "phase-locking value", f"κ = {data['couplings'][row]:.2g} rad/s")
    return fig


@dataclass(frozen=True)
class Synchrony:
    """Gamma oscillators with Lorentzian frequencies."""

    oscillators: int = 2000
    width: float = 0.5  # rad/s
    strength: float = 2.0  # in units of the critical coupling
    seconds: float = 30.0
    strengths: int = 9


@paper.experiment(
    presets={"smoke": Synchrony(oscillators=50, seconds=1.0, strengths=2), "quick": Synchrony(),
             "paper": Synchrony(oscillators=20_000, seconds=400.0, strengths=25)},
    variants={"subcritical": {"strength": 0.5}},
    claims=[
        Claim("DI10", "a population synchronises as Kuramoto's theory says", kind="check", ablation="subcritical",
              reference="R = sqrt(1 - K_c/K) at twice the critical coupling; control: half of it",
              checks=[at_most("distance", 0.06)]),
    ],
    cost=4.0,
)  # fmt: skip
def synchrony(config: Synchrony, key, log: Log) -> Report:
    """Order of a Kuramoto population over the strength of its coupling."""
    frequencies = jnp.asarray(lorentzian_frequencies(config.oscillators, config.width))
    critical = 2 * config.width
    strengths = np.append(np.linspace(0.4, 3.0, config.strengths), config.strength)

    @jax.jit
    def order(strength):
        system = Kuramoto(frequencies, strength * critical)
        steps = round(config.seconds * 1000 / system.dt)
        return jnp.abs(rollout(system, steps=steps, key=key)[1])[steps // 2 :].mean()

    found = np.array([order(strength) for strength in strengths])
    closed = kuramoto_order(strengths * critical, config.width)
    at_twice = kuramoto_order(2 * critical, config.width)
    return Report(
        metrics={"order": found[-1], "distance": abs(found[-1] - at_twice)},
        arrays={"strengths": strengths[:-1], "order": found[:-1], "closed": closed[:-1]},
    )


@synchrony.figure
def transition(runs: Runs):
    """Order over coupling, beside the closed form."""
    data = runs["system"].arrays
    fig, axis = figure()
    finely = np.linspace(np.min(data["strengths"]), np.max(data["strengths"]), 200)
    axis.plot(finely, np.sqrt(np.maximum(0, 1 - 1 / finely)), color="k", lw=0.8, label="infinitely many")
    axis.plot(data["strengths"], data["order"], "o", color=SYSTEM_COLOUR, label="simulated")
    label(axis, "coupling K / K_c", "order parameter R")
    return fig


@dataclass(frozen=True)
class Slots:
    """A clock with noise, which reads a sequence of seven in each theta cycle."""

    kappa: float = 30.0  # rad/s; the paper's mechanism: gamma nested in theta
    detuning: float = 15.0  # rad/s
    noise: float = 0.5  # rad/sqrt(s)
    cycles: int = 200
    units: int = 1000
    active: int = 10


@paper.experiment(
    presets={"smoke": Slots(cycles=4, units=100, active=5), "quick": Slots(), "paper": Slots(cycles=10_000, units=4000)},
    variants={"uncoupled": {"kappa": 0.0}, "detuned": {"detuning": 90.0}},
    claims=[
        Claim("DI6", "nested oscillations keep the order within a theta cycle", kind="paper", where=POSITION,
              ablation=("uncoupled", "detuned"), null="theta-alone", grows="cycles",
              reason="slots counted off theta alone, its phase times seven, are never wrong: nothing here needs a second "
              "oscillator", checks=[
                  at_most("errors", 0.0), at_least("errors", 0.2, of="uncoupled"), at_least("errors", 0.2, of="detuned")]),
    ],
    cost=4.0,
)  # fmt: skip
def slots(config: Slots, key, log: Log) -> Report:
    """Slots missed or doubled in a theta cycle, and which item of a remembered sequence is read in which slot."""
    clock = Clock(f_gamma=56.0 - config.detuning / TURN, kappa=config.kappa, noise=config.noise)
    clock_key, code_key, run_key = jax.random.split(key, 3)
    events = clock.events(config.cycles / 8.0, clock_key)
    ticks, counts = _clocked_reading(config, clock, code_key, run_key)
    metrics = {"errors": events.slot_errors() / config.cycles, "slots_a_cycle": len(events.slot) / config.cycles}
    turns = np.arange(0, config.cycles / 8.0, clock.dt / 1000) * 8.0
    alone = np.unique(np.floor(clock.n * turns + 0.5))
    return Report(
        metrics=metrics,
        arms={"theta-alone": {"errors": np.abs(np.diff(alone) - 1).sum() / config.cycles}},
        arrays={"time": events.time, "slot": events.slot % clock.n, "read_slot": ticks.slot, "read_count": counts},
    )


def _clocked_reading(config: Slots, clock: Clock, code_key, run_key) -> tuple[Any, np.ndarray]:
    """(ticks, items read so far) of a memory of one sequence, wired behind the clock, that reads from its first item on."""
    items, contexts = SparseCode(config.units, config.active), SparseCode(max(config.units // 4, 20), 8)
    sequence = items.draw(code_key, 4 * clock.n)
    memory = ThetaGammaMemory(items, contexts).encode(sequence)
    one, blank = jnp.ones((), jnp.int32), jnp.arange(8)
    ask = Request(one, one * FORWARD, sequence[0], blank, blank, sequence[0], jnp.zeros((), bool))

    def inputs(outputs: tuple, _: Any) -> tuple:
        return None, (outputs[0], ask)

    system = wire(Lens(lambda outputs: outputs, inputs), parallel(Ticks(clock), memory))
    ticks, recalls = jax.jit(lambda: rollout(system, steps=6 * clock.n, key=run_key)[1])()
    return jax.tree.map(np.asarray, ticks), np.asarray(recalls.found)


@slots.figure
def raster(runs: Runs):
    """Slots of the gamma events of ten theta cycles, and items that the memory behind the clock reads."""
    fig, axes = figure(4, width=3.2)
    names = {"system": "coupled", "uncoupled": "κ = 0", "detuned": "D = 3κ"}
    for axis, (name, run) in zip(axes, runs.items(), strict=False):
        shown = run.arrays["time"] < 10 / 8.0
        colour = SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR
        axis.plot(run.arrays["time"][shown], run.arrays["slot"][shown], ".", color=colour)
        label(axis, "time (s)", "slot in the theta cycle", names[name])
        axes[3].plot(run.arrays["read_slot"], run.arrays["read_count"], drawstyle="steps-post", color=colour,
                     ls="-" if name != "detuned" else ":", label=names[name])  # fmt: skip
    label(axes[3], "slot since the start", "items read", "flat: theta's half for writing")
    return fig


@dataclass(frozen=True)
class Storage:
    """Random pairs in a binary memory."""

    units: int = 1000
    active: int = 10
    few: int = 2000  # pairs, for the density
    many: int = 6000  # pairs, for spurious units
    cues: int = 1000
    actives: tuple[int, ...] = (5, 10, 20, 50, 250)  # of the capacity curves
    chunk: int = 500  # pairs that are stored at once there
    chunks: int = 16


@paper.experiment(
    presets={"smoke": Storage(units=100, active=5, few=20, many=60, cues=20, actives=(5, 25), chunk=20, chunks=2),
             "quick": Storage(),
             "paper": Storage(units=4000, active=12, few=22_000, many=66_000, cues=2000, actives=(6, 12, 24, 60, 1000),
                              chunk=5000, chunks=20)},
    claims=[
        Claim("DI2", "a sparse memory fills and errs as the closed forms say", kind="check", ablation="auto",
              reference="1 - (1 - k²/N²)^M; control: the same patterns with themselves, whose pairs are symmetric", checks=[
                  at_most("density_error", {"quick": 0.02, "paper": 0.02}),
                  at_least("spurious", {"quick": 0.1, "paper": 0.1}), at_most("spurious", {"quick": 0.7, "paper": 0.7})]),
    ],
    cost=6.0,
)  # fmt: skip
def storage(config: Storage, key, log: Log) -> Report:
    """Density and spurious units of a Willshaw memory beside their closed forms; recall over load for five sparsities."""
    n, k = config.units, config.active
    one, other, *rest = jax.random.split(key, 2 + len(config.actives))
    code = SparseCode(n, k)
    x, y = code.draw(one, config.many), code.draw(other, config.many)
    reaches = jax.jit(lambda memory, cues, k: jax.vmap(lambda cue: (memory.drive(cue) >= k).sum())(cues))
    arms = {}
    for arm, auto in (("system", False), ("auto", True)):

        def stored(pairs: int, auto: bool = auto) -> Willshaw:
            return Willshaw(n, n, auto=auto).store(x[:pairs], x[:pairs] if auto else y[:pairs])

        density = float(stored(config.few).density)
        full = stored(config.many)
        reached = reaches(full, x[: config.cues], k - auto)
        arms[arm] = {
            "density_error": abs(density / bit_density(config.few, n, n, k, k) - 1),
            "spurious": float(jnp.maximum(reached - k, 0).mean()),
        }
    full_density = float(bit_density(config.many, n, n, k, k))
    arms["system"]["spurious_formula"] = float(spurious_units(n, k, full_density))
    arms["system"]["spurious_by_usage"] = spurious_units_by_usage(config.many, n, n, k)
    log.progress(0.4)
    curves = np.stack([_capacity(config, active, rng) for active, rng in zip(config.actives, rest, strict=True)])
    loads = config.chunk * np.arange(1, config.chunks + 1)
    return Report(
        arms=arms, arrays={"recall": curves, "loads": loads, "actives": np.array(config.actives), "units": np.array(n)}
    )


def _capacity(config: Storage, active: int, key) -> np.ndarray:
    """Share of exact recalls of pairs stored so far, after each chunk."""
    code = SparseCode(config.units, active)
    x, y = (np.asarray(code.draw(k, config.chunk * config.chunks)).reshape(config.chunks, config.chunk, active)
            for k in jax.random.split(key))  # fmt: skip
    few = min(100, config.chunk)

    @jax.jit
    def after(memory, x, y):
        memory = memory.store(x, y)
        found = memory.recall(first_x, active)[0]
        return memory, (shared(found, first_y) == active).mean()

    first_x, first_y = jnp.asarray(x[0, :few]), jnp.asarray(y[0, :few])
    memory, curve = Willshaw(config.units, config.units), []
    for some_x, some_y in zip(x, y, strict=True):
        memory, right = after(memory, some_x, some_y)
        curve.append(float(right))
    return np.array(curve)


@storage.figure
def capacity(runs: Runs):
    """Exact recall over load, for each sparsity; lines: half of the synapses used."""
    data = runs["system"].arrays
    fig, axis = figure()
    for colour, active, curve in zip(COLOURS, data["actives"], data["recall"], strict=False):
        axis.plot(data["loads"], curve, ".-", color=colour, label=f"k = {active}")
        load = largest_load(int(data["units"]), int(active))
        if load < data["loads"][-1]:
            axis.axvline(load, color=colour, lw=0.6, ls=":")
    axis.set_ylim(-0.03, 1.03)
    label(axis, "pairs stored", "pairs recalled exactly", "dotted: ln 2 (N/k)²")
    return fig


@dataclass(frozen=True)
class Sequences:
    """Sequences of different items, seen once."""

    sequences: int = 200
    length: int = 7
    units: int = 1000
    active: int = 10
    dense: int = 250  # active units of the dense code
    wrong: int = 6  # at most so many units of a cue are wrong, in the figure


@paper.experiment(
    presets={"smoke": Sequences(sequences=5, length=3, units=24, active=6, dense=6, wrong=1), "quick": Sequences(),
             "paper": Sequences(sequences=2000, units=4000, active=12, dense=1000)},
    claims=[
        Claim("DI3", "sequences are recalled after one presentation, forward and in reverse", kind="paper", where=POSITION,
              ablation="dense", null="table", grows="sequences",
              reason="a table from each item to the next and the one before does as well, from one presentation too",
              checks=[at_least("forward", 0.99), at_least("reverse", 0.99)]),
        Claim("DI4", "of sparse and dense codes in equally many synapses, only the sparse ones are recalled", kind="paper",
              where=POSITION, ablation=("dense", "signed"), null="nearest-dense", grows="sequences",
              reason="dense codes fail in one matrix of synapses, not as such: kept one by one, the nearest is the right one",
              checks=[at_least("forward", 0.99), at_most("forward", 0.1, of="dense")]),
    ],
    cost=8.0,
)  # fmt: skip
def sequences(config: Sequences, key, log: Log) -> Report:
    """One-shot sequences of random items and of digits, forward and in reverse, beside dense codes and tables."""
    code_key, dense_key, digit_key, noise_key = jax.random.split(key, 4)
    count = config.sequences * config.length
    shape = (config.sequences, config.length, -1)
    sparse, dense = SparseCode(config.units, config.active), SparseCode(config.units, config.dense)
    items, dense_items = sparse.draw(code_key, count).reshape(shape), dense.draw(dense_key, count).reshape(shape)
    contexts = SparseCode(max(config.units // 4, 20), 8)
    memory = ThetaGammaMemory(sparse, contexts).encode(items)
    arms = {"system": _both_ways(memory, items)}
    arms["dense"] = _both_ways(ThetaGammaMemory(dense, contexts).encode(dense_items), dense_items)
    log.progress(0.5)
    arms["signed"] = {"forward": _signed(dense_items, config.units), "reverse": _signed(dense_items[:, ::-1], config.units)}
    arms["nearest-dense"] = {"forward": _nearest(dense.bits(dense_items), dense.bits(dense_items))}
    arms["table"] = {"forward": _table(items, items), "reverse": _table(items[:, ::-1], items[:, ::-1])}
    digits = jnp.asarray(load_digits().data)[:count]
    if count > len(digits):
        digits = digits[: len(digits) // config.length * config.length]
    drawn = sparse.project(digit_key, digits).reshape(-1, config.length, config.active)
    arms["digits"] = _both_ways(ThetaGammaMemory(sparse, contexts).encode(drawn), drawn)
    arms["system"]["density"] = float(memory.synapses.following.density)
    curves = np.zeros((3, config.wrong + 1))
    for wrong in range(config.wrong + 1):
        cues = sparse.noisy(noise_key, items[:, 0], wrong)
        noisy = np.asarray(items).copy()
        noisy[:, 0] = cues
        found = memory.read(cues, steps=config.length - 1)[0]
        curves[:, wrong] = (
            _exact(found, items[:, 1:]),
            _table(items, noisy),
            _nearest(sparse.bits(items), sparse.bits(jnp.asarray(noisy))),
        )
    return Report(arms=arms, arrays={"noisy": curves})


def _exact(found: Any, expected: Any) -> float:
    """Share of sequences that were recalled without an error."""
    return float((shared(found, expected) == expected.shape[-1]).all(axis=1).mean())


def _both_ways(memory: ThetaGammaMemory, items: Any) -> dict[str, float]:
    steps = items.shape[1] - 1
    ahead, back = memory.read(items[:, 0], steps=steps)[0], memory.read(items[:, -1], None, "reverse", steps)[0]
    return {"forward": _exact(ahead, items[:, 1:]), "reverse": _exact(back, items[:, ::-1][:, 1:])}


def _table(stored: Any, asked: Any) -> float:
    """Exact recall of a table from item to next item."""
    rows = [[tuple(sorted(code)) for code in sequence] for sequence in np.asarray(stored).tolist()]
    after = {item: following for row in rows for item, following in pairwise(row)}
    right = 0
    for row, first in zip(rows, np.asarray(asked)[:, 0].tolist(), strict=True):
        item: Any = tuple(sorted(first))
        right += all((item := after.get(item)) == expected for expected in row[1:])
    return right / len(rows)


def _nearest(stored: np.ndarray, asked: np.ndarray) -> float:
    """Exact recall of the same table asked by the stored item that shares most units with the cue."""
    flat = stored[:, :-1].reshape(-1, stored.shape[-1]).astype(np.float32)
    nearest = (asked[:, 0].astype(np.float32) @ flat.T).argmax(axis=1)
    return float((nearest == np.arange(len(asked)) * (stored.shape[1] - 1)).mean())


def _signed(items: Any, units: int) -> float:
    """Exact recall by one bit a synapse, the sign of Hebb's sum, of dense patterns of ±: the usual rule for dense codes."""
    centred = SparseCode(units, items.shape[-1]).bits(items).astype(np.float32)
    centred -= items.shape[-1] / units
    weights = np.sign(np.einsum("sti,stj->ij", centred[:, :-1], centred[:, 1:], optimize=True))
    state, right = centred[:, 0], np.ones(len(items), bool)
    for step in range(1, items.shape[1]):
        found = k_winners(jnp.asarray(state @ weights), items.shape[-1])
        right &= np.asarray(shared(found, items[:, step])) == items.shape[-1]
        state = SparseCode(units, items.shape[-1]).bits(found) - items.shape[-1] / units
    return float(right.mean())


@sequences.figure
def noisy_cues(runs: Runs):
    """Exact recall of whole sequences: by code, and over the number of wrong units in the cue."""
    run = runs["system"]
    fig, (left, right) = figure(2)
    names = ["system", "digits", "table", "dense", "signed"]
    at = np.arange(len(names))
    left.bar(at - 0.2, [run.arms[name]["forward"] for name in names], 0.4, color=SYSTEM_COLOUR, label="forward")
    left.bar(at + 0.2, [run.arms[name]["reverse"] for name in names], 0.4, color=CONTROL_COLOUR, label="reverse")
    left.set_xticks(at, names)
    label(left, "code", "sequences recalled exactly")
    for curve, name, colour in zip(run.arrays["noisy"], ("memory", "table", "nearest item"), COLOURS, strict=False):
        right.plot(curve, ".-", color=colour, label=name)
    label(right, "wrong units in the cue", "sequences recalled exactly")
    return fig


@dataclass(frozen=True)
class Crossing:
    """Sequences that all pass through one item, each in a context of its own."""

    sequences: int = 30
    length: int = 7
    units: int = 1000
    active: int = 10
    key_units: int = 1000
    key_active: int = 20


@paper.experiment(
    presets={"smoke": Crossing(sequences=3, units=100, active=5, key_units=100, key_active=8), "quick": Crossing(),
             "paper": Crossing(sequences=300, units=4000, key_units=4000)},
    claims=[
        Claim("DI5", "a context keeps apart what follows a shared item", kind="paper", where=POSITION,
              ablation="context-free", null="last-two", grows="sequences",
              reason="a table that is asked with the last two items keeps them apart without any context",
              checks=[at_least("continued", 0.95), at_most("continued", 0.2, of="context-free")]),
    ],
    cost=5.0,
)  # fmt: skip
def crossing(config: Crossing, key, log: Log) -> Report:
    """Reading through a shared item: in the context, in reverse, without it, and with the context switched on the way."""
    code_key, context_key, memory_key = jax.random.split(key, 3)
    sparse, contexts = SparseCode(config.units, config.active), SparseCode(400, 8)
    keys = SparseCode(config.key_units, config.key_active)
    middle, steps = config.length // 2, config.length - 1
    items = sparse.draw(code_key, config.sequences * config.length).reshape(config.sequences, config.length, -1)
    items = items.at[:, middle].set(items[0, middle])
    labels = contexts.draw(context_key, config.sequences)
    memory = ThetaGammaMemory(sparse, contexts, keys, key=memory_key)
    known = memory.encode(items, labels)
    other = jnp.roll(jnp.arange(config.sequences), -1)
    switched = jnp.where(jnp.arange(steps)[:, None] < middle, labels[:, None], labels[other][:, None])
    recombined = jnp.concatenate([items[:, 1 : middle + 1], items[other][:, middle + 1 :]], axis=1)
    back = known.read(items[:, -1], labels, "reverse", steps)[0]
    free = memory.encode(items).read(items[:, 0], steps=steps)[0]
    rows = [[tuple(sorted(code)) for code in row] for row in np.asarray(items).tolist()]
    after = {(row[t - 1], row[t]): row[t + 1] for row in rows for t in range(1, steps)}
    by_two = np.mean([all(after[row[t - 1], row[t]] == row[t + 1] for t in range(1, steps)) for row in rows])
    return Report(
        arms={
            "system": {
                "continued": _exact(known.read(items[:, 0], labels, steps=steps)[0], items[:, 1:]),
                "reverse": _exact(back, items[:, ::-1][:, 1:]),
                "recombined": _exact(known.read(items[:, 0], switched, steps=steps)[0], recombined),
            },
            "context-free": {"continued": _exact(free, items[:, 1:])},
            "last-two": {"continued": by_two},
        }
    )


@crossing.figure
def flexible(runs: Runs):
    """Sequences read without an error, in each way of reading."""
    arms = runs["system"].arms
    bars = {"forward": arms["system"]["continued"], "reverse": arms["system"]["reverse"],
            "context switched\non the way": arms["system"]["recombined"], "without\ncontext": arms["context-free"]["continued"],
            "table of the\nlast two": arms["last-two"]["continued"]}  # fmt: skip
    fig, axis = figure(width=5.6)
    axis.bar(list(bars), list(bars.values()), color=[SYSTEM_COLOUR] * 3 + [CONTROL_COLOUR] * 2)
    label(axis, "way of reading", "sequences read exactly")
    return fig


@dataclass(frozen=True)
class Gating:
    """New pairs whose cues look like old cues."""

    old: int = 60
    new: int = 300
    common: int = 8  # units that a new cue shares with an old one
    units: int = 1000
    active: int = 10


@paper.experiment(
    presets={"smoke": Gating(old=4, new=8, common=4, units=100, active=5), "quick": Gating(),
             "paper": Gating(old=240, new=1200, units=4000)},
    claims=[
        Claim("DI7", "phases for writing and for reading keep old memories from new ones", kind="paper", where=POSITION,
              ablation="ungated", null="clamped", grows="new",
              reason="an input that is simply stronger than what is recalled protects as well, without any phase",
              checks=[at_least("old_recalled", 0.1, minus="ungated")]),
    ],
    cost=3.0,
)  # fmt: skip
def gating(config: Gating, key, log: Log) -> Report:
    """Old pairs after new ones with similar cues: written in theta's encoding half, half open all the time, or clamped."""
    one, other, third = jax.random.split(key, 3)
    sparse = SparseCode(config.units, config.active)
    old, new = sparse.draw(one, 2 * config.old).reshape(config.old, 2, -1), sparse.draw(other, config.new)
    cues = sparse.noisy(third, old[jnp.arange(config.new) % config.old, 0], config.active - config.common)
    pairs = jnp.concatenate([old, jnp.stack([cues, new], axis=1)])
    memory = ThetaGammaMemory(sparse, SparseCode(max(config.units // 4, 20), 8))
    seen = Clock().events(2.0)
    open_half = np.resize(seen.encode[seen.encode > 0.5], len(pairs))

    @jax.jit
    def recalled(gates):
        def write(synapses, pair_gate):
            pair, gate = pair_gate
            return memory.write(synapses, pair[0], pair[1], None, gate), None

        synapses, _ = jax.lax.scan(write, memory.synapses, (pairs, gates))
        winners, _ = synapses.following.recall(old[:, 0], config.active)
        right = (shared(winners, old[:, 1]) == config.active).mean()
        return right, synapses.following.density

    gates = {"system": open_half, "ungated": np.full(len(pairs), 0.5), "clamped": np.ones(len(pairs))}
    found = {arm: recalled(jnp.asarray(gate, jnp.float32)) for arm, gate in gates.items()}
    return Report(arms={arm: {"old_recalled": right, "density": density} for arm, (right, density) in found.items()})


@gating.figure
def interference(runs: Runs):
    """Old pairs that are still recalled, and synapses used."""
    arms = runs["system"].arms
    names = {"system": "gated by theta", "ungated": "half open\nall the time", "clamped": "clamped input,\nno clock"}
    fig, (left, right) = figure(2)
    colours = [SYSTEM_COLOUR, CONTROL_COLOUR, CONTROL_COLOUR]
    for axis, metric, text in ((left, "old_recalled", "old pairs recalled exactly"), (right, "density", "synapses used")):
        axis.bar([names[arm] for arm in arms], [row[metric] for row in arms.values()], color=colours)
        label(axis, "writing", text)
    return fig


@dataclass(frozen=True)
class Replay:
    """One way of so many places, with the reward at its end."""

    length: int = 20
    discount: float = 0.95
    sweeps: int = 20  # of the figure
    units: int = 1000
    active: int = 10


@paper.experiment(
    presets={"smoke": Replay(length=3, sweeps=2, units=24, active=6), "quick": Replay(),
             "paper": Replay(length=100, sweeps=100, units=4000)},
    claims=[
        Claim("DI8", "one reverse replay carries the reward's value to the start", kind="paper", where=POSITION,
              ablation="forward", null=("dyna", "return"),
              reason="discounting a list of the places by their distance from its end gives the same values",
              checks=[at_most("distance", {"quick": 1e-6, "paper": 1e-6})]),
    ],
    cost=2.0,
)  # fmt: skip
def replay(config: Replay, key, log: Log) -> Report:
    """Value of the start after one sweep: places read from the memory in reverse, forward, drawn at random, or from a list."""
    code_key, draw_key = jax.random.split(key)
    sparse = SparseCode(config.units, config.active)
    path = sparse.draw(code_key, config.length)
    memory = ThetaGammaMemory(sparse, SparseCode(400, 8)).encode(path)
    steps = config.length - 1
    place = {tuple(sorted(code)): index for index, code in enumerate(np.asarray(path).tolist())}

    def places(cue: int, direction: str) -> list[int]:
        found, accepted = memory.read(path[cue], None, direction, steps)
        kept = np.asarray(found)[np.asarray(accepted)].tolist()
        return [cue, *(place.get(tuple(sorted(code)), cue) for code in kept)]

    back, ahead = places(steps, "reverse"), places(0, "forward")
    orders = {
        "system": [(place, after) for after, place in pairwise(back)],
        "forward": list(pairwise(ahead)),
    }
    rng = generator(draw_key)
    aim, curves, arms = config.discount**steps, {}, {}
    for arm in ("system", "forward", "dyna"):
        values = np.zeros(config.length)
        values[-1] = 1.0
        starts = []
        for _ in range(config.sweeps):
            drawn = [(int(x), int(x) + 1) for x in rng.integers(steps, size=steps)]
            for earlier, later in orders.get(arm, drawn):
                values[earlier] = max(values[earlier], config.discount * values[later])
            starts.append(values[0])
        curves[arm] = starts
        arms[arm] = {"start": starts[0], "distance": abs(starts[0] - aim)}
    by_list = config.discount ** np.arange(config.length)[::-1]
    arms["return"] = {"start": by_list[0], "distance": abs(by_list[0] - aim)}
    return Report(arms=arms, arrays={arm: np.array(curve) for arm, curve in curves.items()})


@replay.figure
def sweeps(runs: Runs):
    """Value of the start over sweeps of as many backups."""
    fig, axis = figure()
    names = {"system": "reverse replay", "forward": "forward replay", "dyna": "random backups"}
    for (arm, name), style in zip(names.items(), ("o-", "s-", "^-"), strict=True):
        colour = SYSTEM_COLOUR if arm == "system" else CONTROL_COLOUR
        curve = runs["system"].arrays[arm]
        axis.plot(1 + np.arange(len(curve)), curve, style, ms=4, color=colour, label=name)
    label(axis, "sweeps", "value of the start")
    return fig


@dataclass(frozen=True)
class Learning:
    """A ring of rooms, in which the reward moves."""

    rooms: int = 20
    places: int = 7
    units: int = 1000
    active: int = 10
    sweep: int = 7
    moved: int = 6  # episodes before the reward moves
    after: int = 150  # episodes at most, of the agent; `events` mostly ends first
    tabular: int = 500  # at most, of the tables; charged to each that has not relearned
    repeats: int = 8  # tables that are run
    events: int = 100_000  # gamma cycles, at most


ABLATIONS: dict[str, dict[str, Any]] = {
    "system": {},
    "forward": {"replay": "forward"},
    "no-replay": {"replay": "none"},
    "uncoupled": {"kappa": 0.0},
    "ungated": {"gated": False},
    "dense": {"dense": True},
}
TABLES: dict[str, dict[str, Any]] = {
    "q-learning": {"persist": 0.0},  # ties at random, as usual
    "q-heading": {},  # of equal actions it keeps to the last, as the agent does
    "dyna-q": {"backups": 45, "drop": True},  # as many as a replay has on average
    "iterated": {"iterate": True, "drop": True, "curiosity": 0.1},
}


@paper.experiment(
    presets={"smoke": Learning(rooms=2, places=3, units=24, active=6, sweep=2, moved=1, after=6, tabular=6, repeats=1,
                               events=60),
             "quick": Learning(), "paper": Learning(units=4000, active=12, moved=20, repeats=50, events=1_000_000)},
    claims=[
        Claim("DI9", "an agent that learns by interacting relearns a moved reward in a third of Q-learning's episodes",
              kind="paper", where=POSITION, seeds=8, grows="rooms",
              ablation=("no-replay", "dense", "forward", "uncoupled", "ungated"), null=("iterated", "dyna-q", "q-heading"),
              reason="a table meets it, even one that learns by Q-learning alone, if of equal actions it keeps to the last as "
              "the agent does: most of the gain is how ties are broken",
              checks=[at_most("share", 0.3, over="mean")]),
        Claim("DI9b", "reverse replay relearns sooner than forward replay", kind="paper", where=POSITION, seeds=8,
              ablation="forward", null="no-replay", grows="rooms",
              reason="episodes vary much from seed to seed, and where forward replay has not relearned within its gamma cycles "
              "the cap that it is charged with decides the mean",
              checks=[at_most("episodes", -0.5, minus="forward", over="mean")]),
    ],
    cost=60.0,
)  # fmt: skip
def learning(config: Learning, key, log: Log) -> Report:
    """Episodes until a moved reward is relearned: the agent, without one of its parts each, and tabular agents.

    Agents and tables that have not relearned in time are all charged with as many episodes as the tables may take.
    """
    layout = ring_of_paths(config.rooms, config.places)
    goal_key, table_key, life_key = jax.random.split(key, 3)
    goals = random_goals(layout, 2, goal_key)
    rng = random.Random(int(generator(table_key).integers(2**31)))
    arms: dict[str, dict[str, float]] = {}
    for name, options in TABLES.items():
        needed = [
            relearns(TabularAgent(layout, random.Random(rng.random()), **options), goals, config.moved, config.tabular)
            for _ in range(config.repeats)
        ]
        arms[name] = {"episodes": float(np.mean(needed))}
    arrays = {}
    for k, (name, options) in enumerate(ABLATIONS.items()):
        found = live(_agent(config, goals, life_key, **options), jax.random.fold_in(life_key, 1), config.moved, config.events)
        arms[name] = {
            "episodes": config.tabular if found.relearned is None else found.relearned,
            "late": found.relearned is None,
            "events": found.events,
            "moves": int(found.taken.sum()),
        }
        ratio = found.shortest / np.maximum(found.taken, 1)
        arrays[name] = np.pad(ratio, (0, config.moved + config.after - len(ratio)), constant_values=np.nan)
        log.progress((k + 1) / len(ABLATIONS))
    for row in arms.values():
        row["share"] = row["episodes"] / arms["q-learning"]["episodes"]
    return Report(arms=arms, arrays={name: ratio for name, ratio in arrays.items() if np.isfinite(ratio).any()})


def _agent(
    config: Learning,
    goals: list[int],
    key,
    replay: str = "reverse",
    kappa: float = 30.0,
    gated: bool = True,
    dense: bool = False,
) -> Any:
    """Clock, memory, agent and world in one wiring; the clock is detuned, so that without coupling it drifts."""
    items = SparseCode(config.units, config.units // 4 if dense else config.active)
    contexts, keys = SparseCode(400, 8), SparseCode(config.units, 2 * config.active)
    one, other, third = jax.random.split(key, 3)
    layout = ring_of_paths(config.rooms, config.places)
    world = GraphWorld(layout, items, contexts, goals, per_goal=config.moved, episodes=config.moved + config.after,
                       wrong=max(1, items.active // 10), key=one)  # fmt: skip
    agent = TGA(items, contexts, 2, config.rooms * config.places, sweep=config.sweep, replay=replay, key=other)
    clock = Clock(f_gamma=56.0 - 15.0 / TURN, kappa=kappa, noise=0.5, dt=1.0)
    return inhabit(clock, ThetaGammaMemory(items, contexts, keys, gated=gated, key=third), agent, world)


@learning.figure
def curves(runs: Runs):
    """How short the agent's ways are, before the reward moves and after; and episodes until relearned."""
    run = runs["system"]
    fig, (left, right) = figure(2, width=5.0)
    for name, colour in zip(("system", "forward", "no-replay", "dense"), (SYSTEM_COLOUR, *COLOURS[1:]), strict=False):
        if name not in run.arrays:
            continue
        ratio = run.arrays[name]
        smooth = np.array([np.nanmean(ratio[max(0, end - 5) : end]) for end in range(1, 1 + np.isfinite(ratio).sum())])
        left.plot(1 + np.arange(len(smooth)), smooth, color=colour, label=name)
    left.axhline(0.9, color="k", lw=0.6)
    label(left, "episode", "shortest / actual way, last five")
    names = [name for name in run.arms if name != "q-learning"]
    colours = [SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in names]
    right.barh(names, [run.arms[name]["share"] for name in names], color=colours)
    right.axvline(0.3, color="k", lw=0.6)
    label(right, "episodes to relearn / Q-learning's", "agent")
    return fig


@dataclass(frozen=True)
class Energy:
    """Sequences in codes of several sparsities."""

    sequences: int = 200
    length: int = 7
    units: int = 1000
    actives: tuple[int, ...] = (10, 5, 250)  # the first is the system's, the last the dense one


@paper.experiment(
    presets={"smoke": Energy(sequences=5, length=3, units=24, actives=(6, 6)), "quick": Energy(),
             "paper": Energy(sequences=2000, units=4000, actives=(12, 6, 50, 200, 1000))},
    claims=[
        Claim("DI11", "sparse activity needs few synaptic events, next to the multiplications of a network of as many units",
              kind="paper", where=POSITION, ablation="dense", null="inverted-index",
              reason="an index from units to the items that they are active in finds the item with fewer steps still",
              checks=[at_most("events", 0.05), at_least("events", 0.5, of="dense")]),
    ],
    cost=6.0,
)  # fmt: skip
def energy(config: Energy, key, log: Log) -> Report:
    """Synaptic events a retrieval, in multiplications of one step of a dense recurrent network, and recall, by sparsity.

    Events are active inputs times full fan-out: of an item's units onto all others, of what was found in the clean-up, and of
    the context's onto all items. They stand for energy, and are none.
    """
    n, contexts, points = config.units, SparseCode(400, 8), []
    for k, active in enumerate(config.actives):
        code = SparseCode(n, active)
        items = code.draw(jax.random.fold_in(key, k), config.sequences * config.length)
        items = items.reshape(config.sequences, config.length, active)
        memory = ThetaGammaMemory(code, contexts).encode(items)
        points.append(
            ((2 * active + contexts.active) / n, _exact(memory.read(items[:, 0], steps=config.length - 1)[0], items[:, 1:]))
        )
        if k == 0:
            used = np.bincount(np.asarray(items).ravel(), minlength=n)
            index = used[np.asarray(items)].sum(axis=-1).mean() / n**2
        log.progress((k + 1) / len(config.actives))
    events, recall = np.array(points).T
    return Report(
        arms={
            "system": {"events": events[0], "recall": recall[0], "decision": 14 * events[0]},
            "dense": {"events": events[-1], "recall": recall[-1]},
            "inverted-index": {"events": index},
        },
        arrays={"events": events, "recall": recall, "actives": np.array(config.actives)},
    )


@energy.figure
def plane(runs: Runs):
    """Recall over synaptic events."""
    data = runs["system"].arrays
    fig, axis = figure()
    for x, y, active in zip(data["events"], data["recall"], data["actives"], strict=True):
        axis.plot(x, y, "o", color=SYSTEM_COLOUR if active == data["actives"][0] else CONTROL_COLOUR, label=f"k = {active}")
    axis.axvline(1.0, color="k", lw=0.6, label="dense network, one step")
    axis.set_xscale("log")
    label(axis, "synaptic events a retrieval / N²", "sequences recalled exactly")
    return fig
