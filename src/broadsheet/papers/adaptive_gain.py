"""Adaptive coding efficiency in recurrent cortical circuits via gain control, arXiv 2305.19869.

One gain a neuron within fixed recurrent synapses, set by an objective: a decodable stimulus, little activity, gains near 1.
Gains for a biased ensemble of orientations are compared with those for a uniform one. Ablations: no recurrence, no price on
activity, hardly any on gains, an ensemble that is not the one at hand. Null models: one gain for all, gains that divide by the
mean response, divisive normalisation with tuned pool weights or with weights that follow co-activity, optimised synapses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError, MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.networks.adaptation_controls import (
    adapt_synapses,
    fit_normalisation,
    uniform_gain,
    uniform_gain_of_activity,
    weber_gains,
)
from broadsheet.networks.adaptation_effects import effects, preferred_orientations, wrapped
from broadsheet.networks.adaptation_files import (
    AdaptedPopulation,
    explained_change,
    mean_effects,
    noisy_population,
    read_population,
)
from broadsheet.networks.gain_control import GainCircuit, GainNetwork, online, response_cost, without_recurrence
from broadsheet.networks.orientations import biased, grid, image_orientations, ring_network, uniform, weights_between
from broadsheet.numerics import generator

paper = Paper(
    slug="adaptive-gain",
    arxiv="2305.19869",
    title="Adaptive coding efficiency in recurrent cortical circuits via gain control",
    published="2023-05-31",
    authors=4,
    basis="reconstructed",
    summary="Sensory adaptation without synaptic change, after the paper's idea: in a recurrent circuit of orientation-tuned "
    "neurons only one gain a neuron is adjusted, by an objective that wants stimuli decodable at little activity. Gains for an "
    "ensemble with a frequent adapter are found by closed-form Newton steps or by a local online rule, and what they do to "
    "tuning curves is measured as it is in recordings, beside cheaper accounts of the same effects.",
    topics=("gain control", "sensory adaptation", "recurrent circuits"),
    parts=(
        "broadsheet.networks.GainNetwork",
        "broadsheet.networks.gain_control.online",
        "broadsheet.networks.adaptation_effects.effects",
        "broadsheet.networks.adaptation_files.read_population",
    ),
    notes=(
        "Only the abstract could be read. The form of the objective, its constants and the connectivity are ours, chosen so "
        "that the effects appear together; no figure of the authors' is looked for.",
        "What makes gains depend on the ensemble is the price of leaving 1, not the trade of error against activity: with a "
        "small gamma an adapter's probability scales fidelity and cost alike, and the gain at the adapter rises.",
        "Divisive normalisation whose pool weights follow co-activity, feed-forward and without an objective, shows the dip, "
        "the repulsion, the homeostasis and the fall of activity too. Gains that divide by the mean response show the dip and "
        "the repulsion, overdo the homeostasis, and spend more. The effects do not single out the objective.",
        "Constants that all neurons share (one gain, a semi-saturation, an exponent) cannot tell a biased ensemble from a "
        "uniform one on a ring of alike neurons: each stimulus costs the same.",
        "At equal activity one gain for all decodes better than the adapted gains do: what falls in activity is paid for, and "
        "more, in error.",
    ),
)  # fmt: skip

DEGREES = np.linspace(-90, 90, 181)


@dataclass(frozen=True)
class Ring:
    """Neurons and stimuli on the ring of orientations, a frequent adapter, and the prices of the objective."""

    neurons: int = 24
    stimuli: int = 24  # a multiple of the neurons
    excitation: float = 0.85  # local recurrent weights sum to this; the paper's mechanism with the gains
    inhibition: float = 0.0
    share: float = 0.35  # of the adapter
    alpha: float = 0.7  # price of activity
    gamma: float = 2.4  # price of gains that are not 1

    def __post_init__(self) -> None:
        if self.stimuli % self.neurons:
            raise InputError(f"{self.stimuli} stimuli and {self.neurons} neurons; a multiple is wanted, so that the adapter is "
                             "the stimulus that a neuron prefers.")  # fmt: skip


class Setting:
    """A ring with its two ensembles."""

    def __init__(self, config: Ring, **changes: float) -> None:
        self.prices = changes.get("alpha", config.alpha), changes.get("gamma", config.gamma)
        excitation = changes.get("excitation", config.excitation)
        self.network = ring_network(config.neurons, config.stimuli, excitation=excitation, inhibition=config.inhibition)
        self.neuron = config.neurons // 2
        self.adapter = np.pi * self.neuron / config.neurons
        self.stimulus = self.neuron * (config.stimuli // config.neurons)
        self.orientations = grid(config.stimuli)
        self.uniform = uniform(config.stimuli)
        self.biased = biased(config.stimuli, self.stimulus, config.share)
        self.opposite = biased(config.stimuli, (self.stimulus + config.stimuli // 2) % config.stimuli, config.share)

    def gains(self, p: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        return self.network.adapt(p, *self.prices, start=start)

    def contexts(self, make: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What `make` makes of the uniform ensemble and of the biased one; by default the gains."""
        made = make or self.gains
        return made(self.uniform), made(self.biased)

    def tuning(self) -> tuple[np.ndarray, np.ndarray]:
        """Tuning curves at the gains of the two contexts."""
        before, after = self.contexts()
        return self.network.steady(before), self.network.steady(after)

    def compared(self, before: np.ndarray, after: np.ndarray, D: np.ndarray) -> dict[str, float]:
        """Effects and costs of tuning curves in the two contexts; the gain of a curve is its slope on the one before."""
        found = effects(before, after, self.biased, self.adapter, self.orientations).summary()
        was, now = (response_cost(self.network.F, each, D, self.biased) for each in (before, after))
        return found | {
            "gain_adapter": found["slope_adapter"], "gain_orthogonal": found["slope_orthogonal"],
            "activity": now.activity, "activity_ratio": now.activity / was.activity, "error": now.error,
            "error_before": was.error,
        }  # fmt: skip

    def adapted(self, before: np.ndarray, after: np.ndarray) -> dict[str, float]:
        """The same of gains."""
        network, opposite = self.network, (self.neuron + self.network.neurons // 2) % self.network.neurons
        row = self.compared(network.steady(before), network.steady(after), network.D)
        alike = uniform_gain_of_activity(network, self.biased, row["activity"])
        return row | {
            "gain_adapter": after[self.neuron] / before[self.neuron],
            "gain_orthogonal": after[opposite] / before[opposite],
            "loss": network.loss(after, self.biased, *self.prices),
            "error_over_uniform": row["error"] / max(network.cost(alike, self.biased).error, 1e-12),
        }


def both(value: float) -> dict[str, float]:
    """A bound for the small ring and for the large one."""
    return {"quick": value, "paper": value}


@dataclass(frozen=True)
class Identities(Ring):
    """What has to be so whatever the paper says."""

    draws: int = 5
    dt: float = 1.0  # ms


@paper.experiment(
    presets={"smoke": Identities(8, 8, draws=1), "quick": Identities(), "paper": Identities(255, 510)},
    claims=[
        Claim("AG1", "the closed-form gradient is that of automatic differentiation", kind="check", ablation="own-output",
              reference="JAX through a linear solve of the other form of the steady state, (I - diag(g) W)^-1 diag(g) f; "
              "control: each gain moved by the cost at its own output, without the way through the network",
              checks=[at_most("gradient_error", 1e-8)]),
        Claim("AG2", "a uniform ensemble gives equal gains", kind="check", ablation="biased",
              reference="the symmetry of the ring", checks=[at_most("gain_spread", 1e-5)]),
        Claim("AG3", "without recurrence the gains are those of the formula", kind="check", ablation="no-homeostasis",
              reference="(mu + gamma) / ((1 + alpha) mu + gamma); control: 1 / (1 + alpha), its limit for strong drives",
              checks=[at_most("formula_error", 1e-6)]),
        Claim("AG8", "activity in time reaches the algebraic steady state", kind="check", ablation=("ungained", "too-short"),
              reference="a linear solve; controls: recurrence that sees activity before the gain, and gains of 1 after the "
              "same 50 time constants, where the slowest mode decays as exp(-0.15 t / tau)",
              checks=[at_most("steady_error", 1e-6)]),
    ],
    precision="float64",
    deterministic=True,
    cost=6.0,
)  # fmt: skip
def identities(config: Identities, key, log: Log) -> Report:
    """Gradient, symmetry, the closed form without recurrence, and the steady state of the dynamics."""
    ring = Setting(config)
    network, p = ring.network, ring.biased
    rng = generator(key)
    arms: dict[str, dict[str, float]] = {"system": {}, "own-output": {"gradient_error": 0.0}}
    worst = 0.0
    for _ in range(config.draws):
        g = 0.4 + 0.5 * rng.random(config.neurons)
        automatic = np.asarray(jax.grad(objective)(g, network.F, network.W, network.D, p, config.alpha, config.gamma))
        H = network.steady(g)
        cost = 2 * (config.alpha * H - network.D.T @ (network.F - network.D @ H))
        local = (cost * H) @ p / g**2 + 2 * config.gamma * (g - 1)
        size = np.abs(automatic).max()
        worst = max(worst, np.abs(network.grad(g, p, config.alpha, config.gamma) - automatic).max() / size)
        arms["own-output"]["gradient_error"] = max(arms["own-output"]["gradient_error"], np.abs(local - automatic).max() / size)
    log.progress(0.4)

    before, after = ring.contexts()
    alone = Setting(config, excitation=0.0)
    formula = without_recurrence(network.F, p, config.alpha, config.gamma)
    apart = alone.gains(p)
    arms["biased"] = {"gain_spread": float(after.std())}
    arms["no-homeostasis"] = {"formula_error": float(np.abs(apart - 1 / (1 + config.alpha)).max())}

    lengths = {"50": round(50 * network.tau / config.dt), "150": round(150 * network.tau / config.dt)}
    ones = np.ones(config.neurons)
    courses = {
        "uniform": settling(network, before, lengths["50"], config.dt),
        "biased": settling(network, after, lengths["50"], config.dt),
        "ones": settling(network, ones, lengths["150"], config.dt),
        "ungained": settling(network, after, lengths["50"], config.dt, gained=False),
    }
    arms["system"] |= {
        "gradient_error": worst, "gain_spread": float(before.std()), "formula_error": float(np.abs(apart - formula).max()),
        "steady_error": max(courses[name][-1] for name in ("uniform", "biased", "ones")), "gain_uniform": float(before.mean()),
    }  # fmt: skip
    arms["ungained"] = {"steady_error": courses["ungained"][-1]}
    arms["too-short"] = {"steady_error": courses["ones"][lengths["50"] - 1]}
    times = {f"time_{name}": config.dt / network.tau * np.arange(1, len(course) + 1) for name, course in courses.items()}
    return Report(arms=arms, arrays=times | courses)


def objective(g, F, W, D, p, alpha, gamma):
    """L(g) as it is written, for automatic differentiation."""
    h = jnp.linalg.solve(jnp.eye(len(g)) - g[:, None] * W, g[:, None] * F)
    cost = ((F - D @ h) ** 2).sum(axis=0) + alpha * (h**2).sum(axis=0)
    return (p * cost).sum() + gamma * ((g - 1) ** 2).sum()


@eqx.filter_jit
def _outputs(circuit: GainCircuit, drives, gains, steps: int):
    def one(drive):
        inputs = jnp.broadcast_to(drive, (steps, len(drive))), jnp.broadcast_to(gains, (steps, len(gains)))
        return rollout(circuit, inputs)[1]

    return jax.vmap(one, in_axes=1, out_axes=2)(drives)


def settling(network: GainNetwork, gains: np.ndarray, steps: int, dt: float, gained: bool = True) -> np.ndarray:
    """Largest distance from the steady state over neurons and stimuli, step by step."""
    circuit = GainCircuit(network.W, network.tau, dt)
    wanted, out = network.steady(gains), np.zeros(steps)
    for k in range(0, network.stimuli, 32):  # stimuli, so that a large ring fits
        some = network.F[:, k : k + 32]
        seen = gains if gained else np.ones_like(gains)
        course = np.asarray(_outputs(circuit, some, seen, steps)) * (1 if gained else gains[:, None])
        out = np.maximum(out, np.abs(course - wanted[:, k : k + 32]).max(axis=(1, 2)))
    return out


@identities.figure
def relaxation(runs: Runs):
    """How activity comes to rest at adapted gains and at gains of 1, and where it rests if recurrence sees no gain."""
    data = runs["system"].arrays
    fig, axis = figure()
    for name, said, colour in (("uniform", "gains for the uniform ensemble", COLOURS[0]),
                               ("biased", "gains for the biased ensemble", COLOURS[1]), ("ones", "gains of 1", COLOURS[2]),
                               ("ungained", "recurrence without the gain", CONTROL_COLOUR)):  # fmt: skip
        axis.semilogy(data[f"time_{name}"], np.maximum(data[name], 1e-16), color=colour, label=said)
    axis.axhline(1e-6, color="black", linewidth=0.8, linestyle=":")
    label(axis, "time (time constants)", "largest distance from h*")
    return fig


@paper.experiment(
    presets={"smoke": Ring(8, 8), "quick": Ring(), "paper": Ring(255, 510)},
    claims=[
        Claim("AG4", "the gain dips at the adapter and rises far from it", kind="paper", where="abstract",
              ablation=("free-activity", "cheap-gains"), null=("uniform-gain", "weber", "normalisation", "co-activity"),
              reason="gains that divide by the mean response and normalisation whose weights follow co-activity do the same "
              "without an objective",
              checks=[at_most("gain_adapter", both(0.95)), at_least("gain_orthogonal", both(1.0))]),
        Claim("AG5", "tuning curves are repelled from the adapter, which takes recurrence", kind="paper", where="abstract",
              ablation="no-recurrence", null=("uniform-gain", "weber", "normalisation", "co-activity"),
              reason="in this network gains that dip at the adapter repel, also those that divide by the mean response; and "
              "normalisation whose weights follow co-activity repels without recurrence",
              checks=[at_least("repulsion_15", both(0.5)), equals("repulsion_15", both(0.0), tol=1e-9, of="no-recurrence")]),
        Claim("AG6", "mean responses to the biased ensemble differ less between neurons after adaptation", kind="paper",
              where="abstract", ablation="no-recurrence", null=("uniform-gain", "weber", "normalisation", "co-activity"),
              reason="normalisation whose weights follow co-activity evens them out further",
              checks=[at_most("variation_ratio", both(0.7)), at_least("variation_ratio", both(0.85), of="no-recurrence")]),
        Claim("AG9", "adaptation is undone when the ensemble is uniform again", kind="paper", where="abstract",
              no_ablation="what makes it so is that the objective has one minimum, wherever gains start; there is no part to "
              "switch off", null="synapses", reason="synapses under the same objective return as exactly",
              checks=[at_most("reversal_error", both(1e-3))]),
        Claim("AG10", "adapted gains spend less activity under the ensemble at hand", kind="paper", where="abstract",
              ablation="other-adapter", null=("uniform-gain", "weber", "normalisation", "co-activity"),
              reason="normalisation spends less too, with weights tuned under the same objective and with weights that follow "
              "co-activity; and the error rises, from 1.97 to 2.07",
              checks=[at_most("activity_ratio", both(0.999))]),
        Claim("AG10b", "and decode no worse than one gain for all does at the same activity", kind="paper", where="abstract",
              ablation="other-adapter", no_null="one gain for all is what it is compared with",
              reason="one gain for all at the same activity has the smaller error, 2.00 against 2.07: the price of gains that "
              "differ from 1 holds the others up",
              checks=[at_most("error_over_uniform", both(1.0))]),
    ],
    precision="float64",
    deterministic=True,
    cost=2.0,
)  # fmt: skip
def adaptation(config: Ring, key, log: Log) -> Report:
    """From a uniform ensemble to one with a frequent adapter: gains, tuning curves and what they cost, and cheaper accounts."""
    ring = Setting(config)
    network, p = ring.network, ring.biased
    before, after = ring.contexts()
    arms = {"system": ring.adapted(before, after)}
    arms["system"]["reversal_error"] = np.abs(ring.gains(ring.uniform, start=after) - before).max()
    for arm, changes in (("no-recurrence", {"excitation": 0.0}), ("free-activity", {"alpha": 0.0}),
                         ("cheap-gains", {"gamma": 0.02})):  # fmt: skip
        other = Setting(config, **changes)
        arms[arm] = other.adapted(*other.contexts())
    arms["other-adapter"] = ring.adapted(before, ring.gains(ring.opposite))
    arms["weber"] = ring.adapted(before, weber_gains(network, p, ring.uniform, before))
    arms["uniform-gain"] = ring.adapted(*ring.contexts(lambda each: uniform_gain(network, each, *ring.prices)))
    log.progress(0.5)

    normalised = fit_normalisation(network, ring.uniform)
    D = normalised.decoder(ring.uniform)
    tuned = ring.contexts(lambda each: normalised.respond(normalised.adapt(each, D, *ring.prices)))
    arms["normalisation"] = ring.compared(*tuned, D)
    follows = normalised.respond(), normalised.respond(normalised.co_activity(p, ring.uniform))
    arms["co-activity"] = ring.compared(*follows, D)
    first, second = ring.contexts(lambda each: adapt_synapses(network, each, *ring.prices))
    rested = [np.linalg.solve(np.eye(config.neurons) - W, network.F) for W in (first, second)]
    again = adapt_synapses(network, ring.uniform, *ring.prices, start=second)
    arms["synapses"] = ring.compared(rested[0], rested[1], network.D) | {"reversal_error": np.abs(again - first).max()}

    shifts = {}
    for strength in (0.0, 0.3, 0.6, 0.85):
        other = Setting(config, excitation=strength)
        shifts[f"shift_{strength:g}"] = _curve(effects(*other.tuning(), p, ring.adapter, ring.orientations), "repulsion")
    weber = network.steady(before), network.steady(weber_gains(network, p, ring.uniform, before))
    shifts["shift_weber"] = _curve(effects(*weber, p, ring.adapter, ring.orientations), "repulsion")
    shifts["shift_co-activity"] = _curve(effects(*follows, p, ring.adapter, ring.orientations), "repulsion")
    arrays = {"before": network.steady(before), "after": network.steady(after), "gains_before": before, "gains_after": after,
              "mean_before": network.steady(before) @ p, "mean_after": network.steady(after) @ p, "adapter": ring.adapter,
              "orientations": ring.orientations, "preferred": grid(config.neurons)}  # fmt: skip
    return Report(arms=arms, arrays=arrays | shifts)


def _curve(found: Any, effect: str) -> np.ndarray:
    """An effect at all distances from 0 to 90 degrees, shifts in degrees."""
    return np.array([np.rad2deg(found.at(effect, d)) for d in DEGREES[90:]])


def _from_adapter(data: Any, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees from the adapter, and their order."""
    degrees = np.rad2deg(wrapped(angles - data["adapter"]))
    return degrees, np.argsort(degrees)


@adaptation.figure
def tuning_curves(runs: Runs):
    """Tuning curves before and after, and the gains that make the difference."""
    data = runs["system"].arrays
    fig, axes = figure(3)
    x, order = _from_adapter(data, data["orientations"])
    where, by_neuron = _from_adapter(data, data["preferred"])
    for axis, name, title in ((axes[0], "before", "uniform ensemble"), (axes[1], "after", "frequent adapter")):
        for k in by_neuron[:: max(1, len(where) // 12)]:
            axis.plot(x[order], data[name][k, order], color=COLOURS[0], alpha=0.35 + 0.6 * (abs(where[k]) < 1))
        axis.axvline(0, color=COLOURS[1], linestyle=":", label="adapter")
        axis.set_ylim(0, 1.15 * max(data["before"].max(), data["after"].max()))
        label(axis, "stimulus from the adapter (degrees)", "response", title)
    axes[2].plot(where[by_neuron], data["gains_before"][by_neuron], color=CONTROL_COLOUR, label="uniform ensemble")
    axes[2].plot(where[by_neuron], data["gains_after"][by_neuron], color=SYSTEM_COLOUR, label="frequent adapter")
    label(axes[2], "neuron from the adapter (degrees)", "gain")
    return fig


@adaptation.figure
def response_ratios(runs: Runs):
    """Responses after over before: a row for what a neuron does to all stimuli, a column for what becomes of one."""
    data = runs["system"].arrays
    fig, axis = figure(width=4.8, height=4.0)
    x, order = _from_adapter(data, data["orientations"])
    y, by_neuron = _from_adapter(data, data["preferred"])
    ratio = (data["after"] / data["before"])[np.ix_(by_neuron, order)]
    largest = np.abs(ratio - 1).max()
    drawn = axis.pcolormesh(x[order], y[by_neuron], ratio, cmap="RdBu_r", vmin=1 - largest, vmax=1 + largest, shading="nearest")
    fig.colorbar(drawn, ax=axis, label="response after / before")
    label(axis, "stimulus from the adapter (degrees)", "neuron from the adapter (degrees)")
    return fig


@adaptation.figure
def repulsion(runs: Runs):
    """Shift of the preferred orientation by distance from the adapter and strength of recurrence, with two cheaper accounts."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    for strength, colour in zip((0.0, 0.3, 0.6, 0.85), (CONTROL_COLOUR, *COLOURS[1:3], SYSTEM_COLOUR), strict=True):
        axes[0].plot(DEGREES[90:], data[f"shift_{strength:g}"], color=colour, label=f"excitation {strength:g}")
    axes[0].axhline(0, color="black", linewidth=0.5)
    label(axes[0], "distance from the adapter (degrees)", "repulsion (degrees)", "gains by the objective")
    axes[1].plot(DEGREES[90:], data["shift_0.85"], color=SYSTEM_COLOUR, label="objective, excitation 0.85")
    axes[1].plot(DEGREES[90:], data["shift_weber"], color=COLOURS[3], label="1 / mean response, same network")
    axes[1].plot(DEGREES[90:], data["shift_co-activity"], color=COLOURS[4], label="normalisation by co-activity")
    label(axes[1], "distance from the adapter (degrees)", "repulsion (degrees)", "without an objective")
    return fig


@adaptation.figure
def costs_and_homeostasis(runs: Runs):
    """What adaptation does to the spread of mean responses, to activity and to error, of each account."""
    fig, axes = figure(3, width=4.6)
    arms = {arm: row for arm, row in runs["system"].arms.items() if arm not in ("free-activity", "cheap-gains")}
    place = np.arange(len(arms))
    for axis, name, said in ((axes[0], "variation_ratio", "variation of mean responses, after / before"),
                             (axes[1], "activity_ratio", "activity, after / before"),
                             (axes[2], "error", "decoding error, after")):  # fmt: skip
        colours = [SYSTEM_COLOUR if arm == "system" else CONTROL_COLOUR for arm in arms]
        axis.barh(place, [row[name] for row in arms.values()], color=colours)
        if name == "error":
            axis.plot([row["error_before"] for row in arms.values()], place, "k|", markersize=10, label="before (line)")
            axis.set_xlim(0, 1.6 * max(row["error"] for row in arms.values()))
        else:
            axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(place, list(arms))
        axis.invert_yaxis()
        label(axis, said, "account")
    return fig


@dataclass(frozen=True)
class Scan(Ring):
    """Random networks, ensembles and prices."""

    points: int = 400


@paper.experiment(
    presets={"smoke": Scan(8, 8, points=4), "quick": Scan(), "paper": Scan(255, 510, points=200)},
    claims=[
        Claim("AG7", "adaptation decorrelates responses over stimuli", kind="paper", where="abstract",
              ablation="no-recurrence", null="co-activity",
              reason="of all random points none lowers correlations by a hundredth: gains scale rows, and the little that "
              "recurrence mixes in goes up as often as down. Gains of 1 / mean response, which differ more, get below the "
              "bound at single points. Covariances do fall, by about an eighth at most, and without recurrence as far",
              answers_to={"no-recurrence": "gains that only scale a row cannot change a correlation, whatever they are"},
              checks=[at_most("least_correlation_ratio", both(0.95))]),
    ],
    precision="float64",
    cost=4.0,
)  # fmt: skip
def decorrelation(config: Scan, key, log: Log) -> Report:
    """Correlations off the diagonal after over before, under the biased ensemble, at random points of all constants."""
    rng = generator(key)
    n, rows = config.neurons, []
    nulls: dict[str, list[tuple[float, float]]] = {"no-recurrence": [], "weber": [], "co-activity": []}
    ring = Setting(config)

    def measured(before: np.ndarray, after: np.ndarray, p: np.ndarray) -> dict[str, float]:
        return effects(before, after, p, ring.adapter, ring.orientations).summary()

    for k in range(config.points):
        excitation, inhibition = rng.uniform(0, 0.9), rng.uniform(0, 1)
        drive, narrow, wide = rng.uniform(0.5, 4, size=3)
        prices = rng.uniform(0.1, 3), rng.uniform(0.1, 10)
        p = biased(config.stimuli, ring.stimulus, rng.uniform(0.1, 0.6))
        network = ring_network(n, config.stimuli, excitation=excitation, inhibition=inhibition, drive_concentration=drive,
                               excitation_concentration=narrow, inhibition_concentration=wide)  # fmt: skip
        before, after = network.adapt(ring.uniform, *prices), network.adapt(p, *prices)
        row = measured(network.steady(before), network.steady(after), p)
        together = (
            after[ring.neuron] < 0.95 * before[ring.neuron] and row["repulsion_15"] > 0.1 and row["variation_ratio"] < 0.9
        )
        rows.append((row["correlation_ratio"], row["covariance_ratio"], row["repulsion_15"], float(together)))
        weber = weber_gains(network, p, ring.uniform, before)
        alone = GainNetwork(network.F, np.zeros((n, n)))
        pool = fit_normalisation(network, ring.uniform)
        others = {
            "weber": (network.steady(before), network.steady(weber)),
            "no-recurrence": (alone.steady(alone.adapt(ring.uniform, *prices)), alone.steady(alone.adapt(p, *prices))),
            "co-activity": (pool.respond(), pool.respond(pool.co_activity(p, ring.uniform))),
        }
        for arm, curves in others.items():
            row = measured(*curves, p)
            nulls[arm].append((row["correlation_ratio"], row["covariance_ratio"]))
        log.progress((k + 1) / config.points)
    correlation, covariance, shift, together = np.array(rows).T
    chosen = together > 0
    system = {
        "least_correlation_ratio": correlation.min(), "largest_correlation_ratio": correlation.max(),
        "least_covariance_ratio": covariance.min(), "points_with_all_other_effects": float(chosen.sum()),
        "least_covariance_ratio_with_them": covariance[chosen].min() if chosen.any() else covariance.max(),
    }  # fmt: skip
    arms = {"system": system}
    for arm, values in nulls.items():
        least = np.min(values, axis=0)
        arms[arm] = {"least_correlation_ratio": least[0], "least_covariance_ratio": least[1]}
    arrays = {"correlation": correlation, "covariance": covariance, "repulsion": shift, "together": together}
    return Report(arms=arms, arrays=arrays | {arm: np.array(values)[:, 0] for arm, values in nulls.items()})


@decorrelation.figure
def correlations(runs: Runs):
    """Ratios of correlations and of covariances at each point; what the claim asks for is left of the dotted line."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    with_all = data["together"] > 0
    axes[0].scatter(
        data["correlation"][~with_all], data["repulsion"][~with_all], s=8, color=COLOURS[0], alpha=0.4, label="gains"
    )
    axes[0].scatter(data["correlation"][with_all], data["repulsion"][with_all], s=14, color=COLOURS[1],
                    label="gains, with all other effects")  # fmt: skip
    axes[0].axvline(0.95, color="black", linestyle=":", label="claimed")
    label(axes[0], "correlation after / before", "repulsion at 15 degrees (degrees)")
    bins = np.linspace(0.87, 1.05, 73)
    for name, said, colour in (("correlation", "gains, correlation", COLOURS[0]),
                               ("covariance", "gains, covariance", COLOURS[1]),
                               ("weber", "1 / mean response, correlation", COLOURS[3]),
                               ("co-activity", "normalisation by co-activity, correlation", COLOURS[4])):  # fmt: skip
        axes[1].hist(np.clip(data[name], bins[0], bins[-1]), bins, histtype="step", color=colour, label=said)
    axes[1].set(yscale="log", ylim=(0.7, 30 * len(data["correlation"])))
    axes[1].axvline(0.95, color="black", linestyle=":")
    label(axes[1], "after / before (what lies outside at the edges)", "points")
    return fig


@dataclass(frozen=True)
class Prices(Ring):
    """A grid of prices."""

    alphas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.2, 2.0, 4.0)
    gammas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 2.4, 5.0, 10.0)


@paper.experiment(
    presets={"smoke": Prices(8, 8, alphas=(0.2, 0.7), gammas=(0.1, 2.4)), "quick": Prices(), "paper": Prices(255, 510)},
    precision="float64",
    deterministic=True,
    cost=1.0,
)
def trade_off(config: Prices, key, log: Log) -> Report:
    """Error against activity over the prices of activity and of gains, and where the effects of adaptation live."""
    shape = len(config.alphas), len(config.gammas)
    names = ("error", "activity", "error_over_uniform", "gain_adapter", "repulsion_15")
    maps = {name: np.zeros(shape) for name in names}
    for i, alpha in enumerate(config.alphas):
        for j, gamma in enumerate(config.gammas):
            ring = Setting(config, alpha=alpha, gamma=gamma)
            row = ring.adapted(ring.gains(ring.uniform), ring.gains(ring.biased))
            for name in names:
                maps[name][i, j] = row[name]
        log.progress((i + 1) / shape[0])
    ring = Setting(config)
    scaled = [ring.network.cost(c * np.ones(config.neurons), ring.biased) for c in np.linspace(0.2, 0.98, 60)]
    metrics = {
        "least_error_over_uniform": maps["error_over_uniform"].min(),
        "largest_error_over_uniform": maps["error_over_uniform"].max(),
        "dips": float((maps["gain_adapter"] < 0.95).sum()),
        "repels": float((maps["repulsion_15"] > 0.5).sum()),
    }
    line = {"uniform_error": np.array([cost.error for cost in scaled]), "uniform_activity": [cost.activity for cost in scaled]}
    return Report(metrics=metrics, arrays=maps | line | {"alphas": config.alphas, "gammas": config.gammas})


@trade_off.figure
def pareto(runs: Runs):
    """Error against activity beside one gain for all, and gain at the adapter and repulsion over both prices."""
    data = runs["system"].arrays
    fig, axes = figure(3, width=4.6)
    for j, gamma in enumerate(data["gammas"]):
        shade = 0.2 + 0.8 * j / max(1, len(data["gammas"]) - 1)
        axes[0].plot(data["activity"][:, j], data["error"][:, j], "o-", markersize=3, color=SYSTEM_COLOUR, alpha=shade,
                     label=f"gamma {gamma:g}" if j in (0, len(data["gammas"]) - 1) else None)  # fmt: skip
    axes[0].plot(data["uniform_activity"], data["uniform_error"], color=COLOURS[1], linestyle="--", label="one gain for all")
    axes[0].set(xscale="log", yscale="log")
    label(axes[0], "activity", "decoding error")
    for axis, name, said, middle in ((axes[1], "gain_adapter", "gain at the adapter, after / before", 1.0),
                                     (axes[2], "repulsion_15", "repulsion at 15 degrees (degrees)", 0.0)):  # fmt: skip
        reach = np.abs(data[name] - middle).max() or 1.0
        drawn = axis.imshow(data[name], cmap="RdBu_r", vmin=middle - reach, vmax=middle + reach, origin="lower", aspect="auto")
        axis.set_xticks(range(len(data["gammas"])), [f"{gamma:g}" for gamma in data["gammas"]])
        axis.set_yticks(range(len(data["alphas"])), [f"{alpha:g}" for alpha in data["alphas"]])
        fig.colorbar(drawn, ax=axis, label=said)
        label(axis, "gamma: price of gains", "alpha: price of activity")
    return fig


@dataclass(frozen=True)
class Online(Ring):
    """Stimuli in a row, 100 ms each: uniform, biased, uniform again."""

    presentations: int = 1200  # with the biased ensemble, as many after it, a third before it
    rate: float = 0.005  # of a gain, a presentation
    hold: float = 100.0  # ms
    dt: float = 2.0  # ms


@paper.experiment(
    presets={"smoke": Online(8, 8, presentations=30), "quick": Online(), "paper": Online(255, 510, presentations=4000)},
    claims=[
        Claim("AG11", "gains that learn while stimuli come and go settle at the optimum, and return", kind="check",
              ablation="no-adjoint", reference="Newton's optimum; control: the same rule without the second relaxation, which "
              "tells a neuron what its output costs elsewhere", grows="presentations",
              checks=[at_most("distance_biased", {"quick": 0.03}), at_most("distance_return", {"quick": 0.03})]),
    ],
    cost=8.0,
)  # fmt: skip
def online_rule(config: Online, key, log: Log) -> Report:
    """The local rule, a slow system in a loop with fast activity: gains over time as the ensemble changes and changes back."""
    ring = Setting(config)
    rng = generator(key)
    blocks = (
        (config.presentations // 3, ring.uniform),
        (config.presentations, ring.biased),
        (config.presentations, ring.uniform),
    )
    shown = np.concatenate([rng.choice(config.stimuli, count, p=p) for count, p in blocks])
    first, second = blocks[0][0], blocks[0][0] + config.presentations
    before, after = ring.contexts()
    drives = jnp.asarray(ring.network.F.T[shown])
    arms, traces = {}, {}
    for arm, adjoint in (("system", True), ("no-adjoint", False)):
        alpha, gamma = ring.prices
        learner = online(ring.network, config.rate, alpha=alpha, gamma=gamma, hold=config.hold, dt=config.dt, adjoint=adjoint)
        trace = np.asarray(_gains_over_time(learner, drives))
        settled = trace[(first + second) // 2 : second].mean(axis=0), trace[-(config.presentations // 2) :].mean(axis=0)
        arms[arm] = {"distance_biased": np.abs(settled[0] - after).max(), "distance_return": np.abs(settled[1] - before).max()}
        traces[arm] = trace
        log.progress(0.5 if adjoint else 1.0)
    way = (traces["system"][first:second] - before) @ (after - before) / ((after - before) ** 2).sum()
    there = np.nonzero(np.convolve(way, np.full(10, 0.1), "valid") > 0.8)[0]  # mean of ten presentations
    arms["system"]["presentations_to_adapt"] = float(there[0] + 5 if len(there) else config.presentations)
    every = max(1, len(shown) // 300)
    arrays: dict[str, Any] = {arm: trace[::every] for arm, trace in traces.items()}
    arrays |= {
        "shown": np.arange(0, len(shown), every),
        "switches": np.array([first, second]),
        "before": before,
        "after": after,
        "neuron": ring.neuron,
        "orthogonal": (ring.neuron + config.neurons // 2) % config.neurons,
    }
    return Report(arms=arms, arrays=arrays)


@eqx.filter_jit
def _gains_over_time(learner, drives):
    return rollout(learner, drives, record=lambda state, _: state[1])[1]


@online_rule.figure
def gains_over_time(runs: Runs):
    """Gains at the adapter and orthogonal to it, with the optimum dotted, and the rule without its second relaxation."""
    data = runs["system"].arrays
    fig, axis = figure(width=6.0)
    for place, said, colour in (("neuron", "at the adapter", COLOURS[0]), ("orthogonal", "orthogonal to it", COLOURS[1])):
        k = int(data[place])
        axis.plot(data["shown"], data["system"][:, k], color=colour, label=said)
        axis.plot(data["shown"], data["no-adjoint"][:, k], color=CONTROL_COLOUR, linewidth=0.8,
                  label="without the second relaxation" if place == "neuron" else None)  # fmt: skip
        start, end = data["switches"]
        optimum = np.where((data["shown"] >= start) & (data["shown"] < end), data["after"][k], data["before"][k])
        axis.plot(data["shown"], optimum, color=colour, linestyle=":", label="optimum")
    for switch in data["switches"]:
        axis.axvline(switch, color="black", linewidth=0.6)
    label(axis, "presentations (100 ms each)", "gain")
    return fig


@dataclass(frozen=True)
class Natural(Ring):
    """An ensemble from a picture: how often its edges have each orientation."""

    picture: str = "china"  # of scikit-learn's two: china, flower
    scale: float = 2.0  # pixels, of the edge filters


@paper.experiment(
    presets={"smoke": Natural(8, 8), "quick": Natural(), "paper": Natural(255, 510)},
    variants={"flower": {"picture": "flower"}},
    precision="float64",
    deterministic=True,
    cost=2.0,
)
def natural(config: Natural, key, log: Log) -> Report:
    """Gains for the orientations of a photograph."""
    from sklearn.datasets import load_sample_image

    if config.picture not in ("china", "flower"):
        raise InputError(f"picture = {config.picture!r}; scikit-learn has china and flower.")
    ring = Setting(config)
    p = image_orientations(load_sample_image(f"{config.picture}.jpg"), config.stimuli, config.scale)
    before, after = ring.gains(ring.uniform), ring.gains(p)
    responses = [ring.network.steady(g) for g in (before, after)]
    driven = ring.network.F @ p
    metrics = {
        "gain_least": (after / before).min(), "gain_most": (after / before).max(),
        "follows_drive": np.corrcoef(after, driven)[0, 1],
        "variation_ratio": np.std(responses[1] @ p) / np.mean(responses[1] @ p) * np.mean(responses[0] @ p)
        / np.std(responses[0] @ p),
    }  # fmt: skip
    arrays = {"p": p, "orientations": ring.orientations, "gains": after / before, "preferred": grid(config.neurons)}
    return Report(metrics=metrics, arrays=arrays)


@natural.figure
def photograph(runs: Runs):
    """How often each orientation comes in the two photographs, and the gains for them."""
    fig, axes = figure(2)
    for run, said, colour in ((runs["system"], "china", SYSTEM_COLOUR), (runs["flower"], "flower", COLOURS[1])):
        axes[0].plot(np.rad2deg(run.arrays["orientations"]), len(run.arrays["p"]) * run.arrays["p"], color=colour, label=said)
        axes[1].plot(np.rad2deg(run.arrays["preferred"]), run.arrays["gains"], color=colour, label=said)
    for axis in axes:
        axis.axhline(1, color=CONTROL_COLOUR, linestyle=":")
    label(axes[0], "orientation of edges (degrees)", "frequency, over uniform")
    label(axes[1], "preferred orientation (degrees)", "gain, over uniform ensemble")
    return fig


@dataclass(frozen=True)
class Recorded(Ring):
    """Recorded populations in two contexts; a generated one stands in for them."""

    neurons: int = 12
    sessions: int = 4
    noise: float = 0.01  # of the largest response, in each mean response
    strengths: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)  # of recurrence as it is in the uniform context
    recordings: bool = False  # read --data
    data: str | None = None


@paper.experiment(
    presets={"smoke": Recorded(sessions=1), "quick": Recorded(), "paper": Recorded(recordings=True)},
    claims=[
        Claim("AG12", "from noisy responses in two contexts the gains come back", kind="check", ablation="no-recurrence",
              reference="the gains of the generated population; control: what a neuron's own tuning curve is scaled by",
              checks=[at_most("gain_error", {"quick": 0.03})]),
        Claim("AG13", "gains within a network explain more of how responses changed than gains alone", kind="paper",
              where="abstract", ablation="no-recurrence", null="uniform-gain",
              checks=[at_least("explained", {"paper": 0.01}, minus="no-recurrence"), at_least("explained", {"paper": 0.0})]),
    ],
    precision="float64",
    data="data",
    cost=2.0,
)  # fmt: skip
def population(config: Recorded, key, log: Log) -> Report:
    """Effects in recorded responses, and what gains explain of them on stimuli that they were not fitted to."""
    known: dict[str, np.ndarray | float] = {}
    if config.data is not None:
        recorded = read_population(config.data)
    elif config.recordings:
        raise MissingDataError(
            "The paper's size needs V1 responses in a uniform and in a biased context (Benucci, Saleem and Carandini 2013, "
            "from its authors on request): --data FILE, their BenucciTuningData.mat or an .npz or CSV of your own."
        )
    else:
        ring, rng = Setting(config), generator(key)
        before, after = ring.contexts()
        curves = ring.tuning()
        recorded = [noisy_population(*curves, ring.biased, ring.adapter, ring.orientations, config.noise, rng)
                    for _ in range(config.sessions)]  # fmt: skip
        known = {"gains": after / before, "strength": config.excitation * float(before.mean())}
    found = [[explained(each, strength) for strength in config.strengths] for each in recorded]
    table = np.array([[held_out for held_out, _ in row] for row in found])
    best = int(table.mean(axis=0)[1:].argmax()) + 1 if len(config.strengths) > 1 else 0
    arms: dict[str, dict[str, Any]] = {
        "system": mean_effects(recorded) | {"explained": table[:, best].mean(), "strength": config.strengths[best]},
        "no-recurrence": {"explained": explained_by(recorded, config, 0.0)},
        "uniform-gain": {"explained": float(np.mean([explained_change(each, one_gain(each)) for each in recorded]))},
    }
    if known:
        for arm, strength in (("system", known["strength"]), ("no-recurrence", 0.0)):
            fitted = np.mean([explained(each, float(strength))[1] for each in recorded], axis=0)
            arms[arm]["gain_error"] = float(np.abs(fitted - known["gains"]).max())
    shown = [each.effects() for each in recorded]
    arrays = {name: np.concatenate([getattr(each, name) for each in shown]) for name in ("distance", "slope", "repulsion")}
    return Report(arms=arms, arrays=arrays | {"explained": table, "strengths": config.strengths})


def explained(population: AdaptedPopulation, strength: float) -> tuple[float, np.ndarray]:
    """Share of the change at stimuli left out in turn (odd, even) that fitted gains explain, and gains fitted to all.

    Synapses fall off with the difference of preferred orientations; drives are what makes the responses before, at gains of 1.
    """
    preferred = preferred_orientations(population.before, population.orientations)
    W = weights_between(preferred, strength)
    F = (np.eye(len(W)) - W) @ population.before
    fitted = np.zeros_like(population.after)
    for held in (0, 1):
        left = np.arange(F.shape[1]) % 2 == held
        gains = GainNetwork(F[:, ~left], W).fit(population.after[:, ~left])
        fitted[:, left] = GainNetwork(F[:, left], W).steady(gains)
    return explained_change(population, fitted), GainNetwork(F, W).fit(population.after)


def explained_by(recorded: list[AdaptedPopulation], config: Recorded, strength: float) -> float:
    return float(np.mean([explained(each, strength)[0] for each in recorded]))


def one_gain(population: AdaptedPopulation) -> np.ndarray:
    """The responses before, scaled by the one number that fits best."""
    return population.before * (population.before * population.after).sum() / (population.before**2).sum()


@population.figure
def recorded_effects(runs: Runs):
    """Scale and shift of each neuron's tuning curve, and what gains explain by strength of recurrence."""
    data = runs["system"].arrays
    fig, axes = figure(3)
    degrees = np.rad2deg(data["distance"])
    for axis, values, said in ((axes[0], data["slope"], "scale of tuning curve, after / before"),
                               (axes[1], np.rad2deg(data["repulsion"]), "repulsion (degrees)")):  # fmt: skip
        axis.scatter(degrees, values, s=10, color=SYSTEM_COLOUR)
        axis.axhline(1 if axis is axes[0] else 0, color=CONTROL_COLOUR, linestyle=":", label="no adaptation")
        label(axis, "neuron from the adapter (degrees)", said)
    axes[2].plot(data["strengths"], np.transpose(data["explained"]), color=SYSTEM_COLOUR, alpha=0.4)
    axes[2].plot(data["strengths"], np.mean(data["explained"], axis=0), "o-", color=SYSTEM_COLOUR, label="mean of sessions")
    axes[2].axhline(float(runs["system"].arms["uniform-gain"]["explained"]), color=CONTROL_COLOUR, label="one gain for all")
    label(axes[2], "strength of recurrence", "change explained, stimuli held out")
    return fig
