"""Neurons that learn their own parameters, and spike trains told apart by their complexity, arXiv 2508.11674.

Weights alone are usually trained; here time constants, thresholds and the constants of a second-order meta neuron are too.
Classes are read out by spike counts, or by the Lempel-Ziv complexity of the spike trains. The control has the same network,
data and number of updates with its neurons left as they were set, or reads rates where the complexity is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.dynamics import rollout
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.lab.timing import measure
from broadsheet.networks.layers import SNN
from broadsheet.networks.spiking_classifier import SNNClassifier, cells, network, surprise
from broadsheet.neurons.codes import markov_trains, poisson_trains
from broadsheet.neurons.complexity import entropy, lz76, lzc, markov_entropy
from broadsheet.neurons.meta_neuron import MetaNeuron
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="meta-neuron",
    arxiv="2508.11674",
    title="Learning Internal Biological Neuron Parameters and Complexity-Based Encoding for Improved Spiking Neural Networks "
    "Performance",
    published="2025-08-08",
    authors=3,
    basis="reconstructed",
    summary="Spiking networks train their weights and leave each neuron as it was set. Here time constants, thresholds and the "
    "recovery of a meta neuron are trained along, under gradients, the tempotron's errors or spike timing; and spike trains "
    "are classified by their Lempel-Ziv complexity, an estimate of their entropy rate.",
    topics=("spiking networks", "intrinsic plasticity", "spike train complexity"),
    parts=("broadsheet.networks.SNNClassifier", "broadsheet.neurons.MetaNeuron", "broadsheet.neurons.LevyBaxter",
           "broadsheet.neurons.Intrinsic", "broadsheet.neurons.complexity.lzc", "broadsheet.plasticity.Tempotron"),
    verbs=("broadsheet neurons complexity SPIKES.npz",),
    notes=(
        "The abstracts of both versions were read, not the tables: networks, rates and tasks are ours, and the meta neuron has "
        "the form of the public code of that line of work. The gains of up to 13.5 points and the accuracy of 99.5 % are the "
        "authors' maxima over conditions that were not at hand, and were not looked for.",
        "Where a spike count separates the classes, neurons that learn have nothing to gain, and neither has the complexity: "
        "both arms stand at the Bayes limit. The gain on bursts is the repair of a badly set time constant; with one near its "
        "best there is none.",
        "Homeostasis lowers the time constant of a neuron that fires too much; raising it, as raising the threshold is, would "
        "make it fire more.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Complexity:
    """Trains of 0 and 1, one step a ms."""

    length: int = 1000  # steps
    probabilities: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    draws: int = 100  # trains a probability
    probability: float = 0.1  # of trains with equal rate and different structure
    after_spike: float = 0.6  # probability of a spike after a spike in the bursting trains
    samples: int = 500  # trains a class, to set the threshold, and as many to test it
    gaps: tuple[float, ...] = (20.0, 25.0, 30.0, 40.0)  # spikes/s against 20
    lengths: tuple[int, ...] = (100, 300, 1000)  # steps


STRINGS = (("0001101001000101", 6), ("0" * 64, 2), ("01" * 32, 3))


@paper.experiment(
    presets={
        "smoke": Complexity(length=100, draws=2, samples=10, gaps=(40.0,), lengths=(100,)),
        "quick": Complexity(),
        "paper": Complexity(length=10_000, draws=200, samples=5000, lengths=(100, 300, 1000, 3000, 10_000)),
    },
    claims=[
        Claim("C1", "a train is cut into the components of its exhaustive history", kind="check", ablation="lz78",
              reference="three strings with known counts; LZ78 is another parsing", checks=[equals("miscounted", 0)]),
        Claim("C2", "the complexity tracks the entropy rate", kind="check", ablation="lz78",
              reference="the entropy of independent steps",
              checks=[at_most("entropy_error", 0.10), at_least("smallest_rise", 0.0)]),
        Claim("C3", "the complexity of one train separates two rates, untrained but for a threshold", kind="check",
              reference="the spike count, which does as well", checks=[at_least("rates_20_40", {"quick": 0.92}),
                                                                       at_least("rates_50_100", {"quick": 0.99})]),
        Claim("C4", "the complexity sees structure that the rate misses", kind="paper", null="rate",
              no_ablation="the measure is one piece: nothing of it can be switched off",
              where="abstract: complexity-based encoding", checks=[
                  at_least("structure_auc", 0.95), at_most("structure_auc", 0.6, of="rate"),
                  at_least("structure_auc", 0.4, of="rate")]),
    ],
    cost=6.0,
)  # fmt: skip
def complexity(config: Complexity, key, log: Log) -> Report:
    """Complexity of independent and of bursting trains, against their entropy, their rate and another parsing."""
    k_draws, k_structure, k_rates, k_gaps = jax.random.split(key, 4)
    keys = jax.random.split(k_draws, len(config.probabilities))
    sources = [
        np.asarray(markov_trains(jnp.full(config.draws, p), 0.0, config.length, k)).T
        for p, k in zip(config.probabilities, keys, strict=True)
    ]
    truth = entropy(config.probabilities)
    estimates = {
        "system": np.array([lzc(trains).mean() for trains in sources]),
        "lz78": np.array([np.mean([lz78(train) for train in trains]) for trains in sources])
        * np.log2(config.length) / config.length,
    }  # fmt: skip
    log.progress(0.3)
    correlation = (config.after_spike - config.probability) / (1 - config.probability)
    flat, bursting = (np.asarray(markov_trains(jnp.full(config.samples, config.probability), c, config.length, k)).T
                      for c, k in zip((0.0, correlation), jax.random.split(k_structure), strict=True))  # fmt: skip
    parts = {"system": lzc, "rate": lambda trains: trains.sum(axis=-1)}
    counts = {name: (measure(flat), measure(bursting)) for name, measure in parts.items()}
    log.progress(0.5)
    arms = {
        name: {"entropy_error": np.abs(found / truth - 1).max(), "smallest_rise": np.diff(found).min(),
               "miscounted": sum(parse(np.array([int(c) for c in text])) != known for text, known in STRINGS)}
        for (name, found), parse in zip(estimates.items(), (lz76, lz78), strict=True)
    }  # fmt: skip
    arms["rate"] = {}
    for name, (less, more) in counts.items():
        arms[name]["structure_auc"] = area_under_curve(less, more)
        for low, high in ((20.0, 40.0), (50.0, 100.0)):
            arms[name][f"rates_{low:g}_{high:g}"] = told_apart(parts[name], low, high, config.length, config, k_rates)
    grid = {name: np.array([[told_apart(measure, 20.0, gap, n, config, k_gaps) for gap in config.gaps] for n in config.lengths])
            for name, measure in parts.items()}  # fmt: skip
    arrays = {"probabilities": config.probabilities, "entropy": truth, "lzc": estimates["system"], "lz78": estimates["lz78"],
              "flat": counts["system"][0], "bursting": counts["system"][1], "gaps": config.gaps, "lengths": config.lengths,
              "grid": grid["system"], "grid_rate": grid["rate"], "limit_flat": entropy(config.probability),
              "limit_bursting": markov_entropy(config.probability, correlation)}  # fmt: skip
    return Report(arms=arms, arrays=arrays)


def lz78(bits: Any) -> int:
    """Phrases of Lempel and Ziv's parsing of 1978: each is the longest known phrase and one bit more."""
    known: set[tuple[bool, ...]] = set()
    phrase: tuple[bool, ...] = ()
    count = 0
    for bit in np.asarray(bits).tolist():
        phrase += (bool(bit),)
        if phrase not in known:
            known.add(phrase)
            phrase, count = (), count + 1
    return count + bool(phrase)


def area_under_curve(less: np.ndarray, more: np.ndarray) -> float:
    """Probability that a value of the first class is larger than one of the second."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(less, more).statistic / (len(less) * len(more)))


def told_apart(measure: Any, low: float, high: float, steps: int, config: Complexity, key: jax.Array) -> float:
    """Accuracy on new trains of a threshold halfway between the class means, for two rates in spikes/s."""
    rates = jnp.repeat(jnp.array([low, high]), config.samples)
    y = np.repeat([False, True], config.samples)
    train, test = (measure(np.asarray(poisson_trains(rates, steps, k)).T) for k in jax.random.split(key))
    return float(((test > (train[y].mean() + train[~y].mean()) / 2) == y).mean())


@complexity.figure
def parsing(runs: Runs):
    """Complexity against entropy, histograms of trains of one rate, and accuracy by rate gap and length; counts dashed."""
    data = runs["system"].arrays
    fig, (left, middle, right) = figure(3)
    left.plot(data["entropy"], data["lzc"], "o-", color=SYSTEM_COLOUR, label="Lempel-Ziv 1976")
    left.plot(data["entropy"], data["lz78"], "s--", color=CONTROL_COLOUR, label="Lempel-Ziv 1978")
    left.plot([0, 1], [0, 1], color="k", lw=0.8)
    label(left, "entropy rate (bits a step)", "complexity (bits a step)")
    for name, colour in (("flat", CONTROL_COLOUR), ("bursting", SYSTEM_COLOUR)):
        middle.hist(data[name], 25, alpha=0.7, color=colour, label={"flat": "independent", "bursting": "bursts"}[name])
        middle.axvline(float(data[f"limit_{name}"]), color=colour, ls=":")
    label(middle, "complexity (bits a step); entropy rate dotted", "trains")
    for k, length in enumerate(data["lengths"]):
        right.plot(data["gaps"], data["grid"][k], "o-", ms=4, color=COLOURS[k], label=f"{length} ms")
        right.plot(data["gaps"], data["grid_rate"][k], "--", color=COLOURS[k])
    label(right, "rate against 20 spikes/s", "accuracy on one train")
    return fig


@dataclass(frozen=True)
class Bursts:
    """Twenty spikes on ten channels, spread over the whole sample or within a window: counts say nothing."""

    steps: int = 100  # ms
    channels: int = 10
    spikes: int = 20
    window: int = 40  # ms
    train: int = 400  # samples
    test: int = 1000
    hidden: int = 8
    epochs: int = 20
    taus: tuple[float, ...] = (1.0, 2.0, 20.0)  # ms, at the start


def burst_samples(count: int, config: Bursts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patterns (samples, time, channels) and which of them burst."""
    y = rng.integers(0, 2, count)
    begin = np.where(y == 1, rng.integers(0, config.steps - config.window + 1, count), 0)
    span = np.where(y == 1, config.window, config.steps)
    times = begin[:, None] + (rng.random((count, config.spikes)) * span[:, None]).astype(int)
    X = np.zeros((count, config.steps, config.channels), np.float32)
    X[np.arange(count)[:, None], times, rng.integers(0, config.channels, times.shape)] = 1
    return X, y


@paper.experiment(
    presets={"smoke": Bursts(train=40, test=40, epochs=1, hidden=4, taus=(1.0,)), "quick": Bursts(),
             "paper": Bursts(train=4000, test=10_000, hidden=64, epochs=100, taus=(1.0, 2.0, 5.0, 10.0, 20.0, 40.0))},
    claims=[
        Claim("C5", "neurons that learn their time constants and thresholds repair a bad setting", kind="paper", seeds=12,
              where="abstract: learned internal parameters",
              published="up to 13.5 points for LIF neurons, on other data",
              reason="The mean gain over twelve seeds is 6.8 points, but its interval starts at 2.1: one network that learned "
              "its neurons got stuck at 0.72, where the others reach 0.91 to 0.98. Six seeds, with which it began, held zero. "
              "From 2 ms on every seed gains.",
              ablation="fixed", null=NONE_YET, grows="epochs", checks=[at_least("accuracy_1", {"quick": 0.03}, minus="fixed")]),
        Claim("C7", "with a time constant near its best there is nothing to gain", kind="check", seeds=6,
              checks=[at_most("accuracy_20", {"quick": 0.02}, minus="fixed")]),
    ],
    cost=8.0,
)  # fmt: skip
def bursts(config: Bursts, key, log: Log) -> Report:
    """The same LIF network from several first time constants, its neurons learned or left as they are."""
    rng = generator(key)
    train, test = burst_samples(config.train, config, rng), burst_samples(config.test, config, rng)
    arms: dict[str, dict[str, float]] = {"system": {}, "fixed": {}}
    arrays: dict[str, Any] = {"taus": config.taus, "example": train[0][[train[1].argmin(), train[1].argmax()]]}
    for k, tau in enumerate(config.taus):
        for name in arms:
            model = SNNClassifier("lif", learn_intrinsic=name == "system", hidden=config.hidden, tau=tau, epochs=config.epochs,
                                  random_state=seed_of(key)).fit(*train)  # fmt: skip
            arms[name][f"accuracy_{tau:g}"] = model.score(*test)
            if name == "system":
                arrays[f"learned_{k}"] = model.network_.hidden.neurons.built().tau
            log.progress((2 * k + (name == "fixed") + 1) / (2 * len(config.taus)))
    return Report(arms=arms, arrays=arrays)


@bursts.figure
def repair(runs: Runs):
    """A sample of each class, accuracy by the first time constant, and where the time constants went."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, middle, right) = figure(3)
    for row, (colour, name) in enumerate(((CONTROL_COLOUR, "spread"), (SYSTEM_COLOUR, "burst"))):
        t, channel = np.nonzero(data["example"][row])
        left.scatter(t, channel + 12 * row, s=8, color=colour, label=name)
    label(left, "time (ms)", "channel, one sample a class")
    for name, colour in (("fixed", CONTROL_COLOUR), ("system", SYSTEM_COLOUR)):
        middle.plot(data["taus"], [arms[name][f"accuracy_{tau:g}"] for tau in data["taus"]], "o-", color=colour,
                    label={"fixed": "neurons as set", "system": "neurons learned"}[name])  # fmt: skip
    middle.set_xscale("log")
    label(middle, "time constant at the start (ms)", "accuracy on test samples")
    for k, tau in enumerate(data["taus"]):
        learned = np.asarray(data[f"learned_{k}"])
        right.scatter(np.full(len(learned), tau), learned, s=12, color=SYSTEM_COLOUR)
    right.plot(data["taus"], data["taus"], color=CONTROL_COLOUR, label="as set")
    right.set(xscale="log", yscale="log")
    label(right, "time constant at the start (ms)", "time constant learned (ms)")
    return fig


@dataclass(frozen=True)
class Counts:
    """Two Poisson rates: all that can be known is in the spike count."""

    rates: tuple[float, ...] = (20.0, 30.0)  # spikes/s
    channels: int = 10
    steps: int = 100  # ms
    train: int = 400  # samples
    test: int = 4000
    hidden: int = 8
    epochs: int = 20
    tau: float = 10.0  # ms
    rate: float = 0.01  # of learning


@paper.experiment(
    presets={"smoke": Counts(train=40, test=40, epochs=1, hidden=4), "quick": Counts(),
             "paper": Counts(steps=1000, rates=(20.0, 22.0), train=4000, test=20_000, hidden=64, epochs=100)},
    claims=[
        Claim("C7b", "where the count says it all, neurons that learn gain nothing", kind="check", seeds=6,
              reference="the accuracy of the best threshold on the count", checks=[
                  at_least("accuracy", {"quick": 0.80}, over="mean"), at_most("accuracy", {"quick": 0.86}, over="mean"),
                  at_most("accuracy", {"quick": 0.02}, minus="fixed"), at_least("accuracy", {"quick": -0.02}, minus="fixed")]),
    ],
    cost=4.0,
)  # fmt: skip
def counts(config: Counts, key, log: Log) -> Report:
    """Both arms on homogeneous trains, beside the Bayes limit."""
    train, test = (poisson_samples(count, config, k) for count, k in zip((config.train, config.test), jax.random.split(key),
                                                                         strict=True))  # fmt: skip
    arms = {}
    for name in ("system", "fixed"):
        model = SNNClassifier("lif", learn_intrinsic=name == "system", hidden=config.hidden, tau=config.tau,
                              epochs=config.epochs, rate=config.rate, rate_intrinsic=config.rate,
                              random_state=seed_of(key)).fit(*train)  # fmt: skip
        arms[name] = {"accuracy": model.score(*test), "limit": bayes_limit(config)}
    totals = test[0].sum(axis=(1, 2))
    arms["count"] = {"accuracy": best_threshold(train[0].sum(axis=(1, 2)), train[1], totals, test[1])}
    return Report(arms=arms, arrays={"totals": totals, "y": test[1]})


def poisson_samples(count: int, config: Counts, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Patterns (samples, time, channels) of two rates, and which rate each has."""
    k_y, k_x = jax.random.split(key)
    y = jax.random.randint(k_y, (count,), 0, 2)
    rates = jnp.broadcast_to(jnp.asarray(config.rates)[y][:, None], (count, config.channels))
    return np.asarray(poisson_trains(rates, config.steps, k_x)).swapaxes(0, 1), np.asarray(y)


def bayes_limit(config: Counts) -> float:
    """Accuracy of the likelihood ratio of two binomial counts."""
    from scipy.stats import binom

    size = config.steps * config.channels
    chances = [binom.pmf(np.arange(size + 1), size, -np.expm1(-rate / 1000)) for rate in config.rates]
    return float(np.maximum(*chances).sum() / 2)


def best_threshold(train: np.ndarray, y: np.ndarray, test: np.ndarray, test_y: np.ndarray) -> float:
    """Test accuracy of the threshold on a number that is best on the training samples."""
    at = max(np.unique(train), key=lambda edge: ((train >= edge) == y).mean())
    return float(((test >= at) == test_y).mean())


@counts.figure
def no_room(runs: Runs):
    """Spike counts of the two classes, and the accuracy of both arms beside the Bayes limit."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, right) = figure(2)
    for k, colour in enumerate((CONTROL_COLOUR, COLOURS[1])):
        totals = np.asarray(data["totals"])[np.asarray(data["y"]) == k]
        left.hist(totals, np.arange(-0.5, totals.max() + 1), alpha=0.6, color=colour, label=f"class {k}")
    label(left, "spikes in a sample", "samples")
    names = {"count": "best count", "fixed": "neurons as set", "system": "neurons learned"}
    colours = (COLOURS[1], CONTROL_COLOUR, SYSTEM_COLOUR)
    right.bar(list(names.values()), [arms[name]["accuracy"] for name in names], color=colours)
    right.axhline(arms["system"]["limit"], color="k", ls=":", label="Bayes limit")
    right.set_ylim(0.5, 1)
    label(right, "classifier", "accuracy on test samples")
    return fig


@dataclass(frozen=True)
class Descent:
    """One gradient step on the neurons' parameters of random networks."""

    networks: int = 100
    rate: float = 1e-3
    samples: int = 50  # of the burst task, in the batch
    hidden: int = 8
    slope: float = 10.0  # of the fast sigmoid
    spread: float = 0.5  # of the weights onto the hidden layer


@paper.experiment(
    presets={"smoke": Descent(networks=4, samples=10), "quick": Descent(), "paper": Descent(networks=2000, samples=400)},
    claims=[
        Claim("C8", "a gradient step on the neurons' parameters lowers the smooth loss", kind="paper", where="v2: theory",
              ablation="uphill", null=NONE_YET, checks=[at_least("lowered", 0.95)]),
    ],
    cost=4.0,
)  # fmt: skip
def descent(config: Descent, key, log: Log) -> Report:
    """Share of random networks whose loss falls, with spikes replaced by their smooth stand-in, downhill, uphill, and hard."""
    X, y = burst_samples(config.samples, Bursts(), generator(key))
    batch = (jnp.asarray(X), jnp.asarray(y))

    def smooth(x: jax.Array) -> jax.Array:
        return 0.5 + 0.5 * config.slope * x / (1 + config.slope * jnp.abs(x))

    def changes(k: jax.Array) -> jax.Array:
        k_net, k_tau = jax.random.split(k)
        net = network("lif", X.shape[2], config.hidden, 2, k_net, spread=config.spread)
        net = eqx.tree_at(lambda n: n.hidden.neurons.free["tau"], net, jax.random.uniform(k_tau, (config.hidden,), maxval=3.0))
        soft = eqx.tree_at(lambda n: n.hidden.neurons.neuron, net, _with_spike(net.hidden.neurons.neuron, smooth))

        def loss(free: dict, base: SNN) -> jax.Array:
            return surprise(eqx.tree_at(lambda n: n.hidden.neurons.free, base, free), batch, k)

        free = net.hidden.neurons.free
        before, gradient = jax.value_and_grad(loss)(free, soft)
        stepped = [jax.tree.map(lambda f, g, s=sign: f - s * config.rate * g, free, gradient) for sign in (1.0, -1.0)]
        hard = loss(stepped[0], net) - loss(free, net)
        return jnp.stack([loss(stepped[0], soft) - before, loss(stepped[1], soft) - before, hard])

    found = np.asarray(jax.lax.map(jax.jit(changes), jax.random.split(key, config.networks)))
    names = ("system", "uphill", "hard")
    arms = {name: {"lowered": (found[:, k] < 0).mean(), "unchanged": (found[:, k] == 0).mean()} for k, name in enumerate(names)}
    return Report(arms=arms, arrays={"changes": found})


def _with_spike(neuron: Any, spike: Any) -> Any:
    """The neuron with another function in the place of its spike."""
    import copy

    made = copy.copy(neuron)
    object.__setattr__(made, "spike", spike)
    return made


@descent.figure
def step(runs: Runs):
    """Change of the loss by one step on the neurons' parameters, sorted over networks."""
    changes = np.sort(runs["system"].arrays["changes"], axis=0)
    fig, axis = figure()
    for k, (name, colour) in enumerate(
        (("downhill", SYSTEM_COLOUR), ("uphill", CONTROL_COLOUR), ("downhill, hard spikes", COLOURS[1]))
    ):
        axis.plot(np.arange(len(changes)), changes[:, k], color=colour, label=name)
    axis.set_yscale("symlog", linthresh=1e-7)
    label(axis, "network, sorted", "change of the loss")
    return fig


CELLS: dict[str, dict[str, Any]] = {
    "lif_backprop": {"neuron": "lif"},
    "meta_backprop": {"neuron": "meta", "spread": 1.0},
    "probabilistic_backprop": {"neuron": "probabilistic", "spread": 2.0},
    "lif_tempotron": {"neuron": "lif", "rule": "tempotron"},
    "lif_stdp": {"neuron": "lif", "rule": "stdp", "decision": "lzc"},
    "meta_stdp": {"neuron": "meta", "rule": "stdp", "decision": "lzc"},
    "lif_backprop_lzc": {"neuron": "lif", "decision": "lzc"},
}
"""What is crossed with learned and fixed neurons."""
SLOWER = {"tempotron": {"rate": 0.25, "tau": 2.0, "epochs": 1.0}, "stdp": {"rate": 1.0, "tau": 1.0, "epochs": 0.1}}
"""Factors on learning rate, time constant and epochs: a tempotron moves for each pattern, STDP for each pair of spikes."""


@dataclass(frozen=True)
class Rules(Bursts):
    """Kinds of neurons under three rules of learning; sizes and rates are chosen for each arm on samples of their own."""

    kinds: tuple[str, ...] = tuple(CELLS)
    test: int = 400
    sizes: tuple[int, ...] = (16,)  # hidden neurons to choose from
    rates: tuple[float, ...] = (0.02,)  # learning rates to choose from
    tau: float = 2.0  # ms, of LIF neurons at the start; a tempotron starts at twice that
    draws: int = 4  # averaged where neurons are random


@paper.experiment(
    presets={"smoke": Rules(kinds=("lif_tempotron", "lif_stdp"), train=20, test=20, steps=40, window=10, epochs=1, sizes=(4,)),
             "quick": Rules(),
             "paper": Rules(steps=1000, spikes=200, window=400, train=2000, test=2000, epochs=50, sizes=(8, 16, 32, 64, 128),
                            rates=(0.005, 0.01, 0.02, 0.05), draws=8)},
    claims=[
        Claim("C6", "meta neurons and tempotrons that learn their parameters do no worse", kind="paper", seeds=5,
              where="abstract: three learning rules", published="up to 8.5 points for the meta neuron, on other data",
              ablation="fixed", null=NONE_YET, grows="epochs", checks=[at_least("meta_backprop", {"paper": 0.0}, minus="fixed"),
                      at_least("lif_tempotron", {"paper": 0.0}, minus="fixed")]),
    ],
    cost=30.0,
)  # fmt: skip
def rules(config: Rules, key, log: Log) -> Report:
    """Accuracy on bursts of each kind of neuron under each rule, learned and fixed."""
    rng = generator(key)
    train, check, test = (burst_samples(count, config, rng) for count in (config.train, config.test, config.test))
    arms: dict[str, dict[str, float]] = {"system": {}, "fixed": {}}
    for k, name in enumerate(config.kinds):
        for arm in arms:
            made = candidates(CELLS[name], arm == "system", config, seed_of(key))
            fitted = [model.fit(*train) for model in made]
            best = max(fitted, key=lambda model: model.score(*check)) if len(fitted) > 1 else fitted[0]
            arms[arm][name] = best.score(*test)
        log.progress((k + 1) / len(config.kinds))
    return Report(arms=arms)


def candidates(options: dict[str, Any], learn: bool, config: Rules, seed: int) -> list[SNNClassifier]:
    """A classifier for each size and learning rate."""
    factor = SLOWER.get(options.get("rule", ""), {"rate": 1.0, "tau": 1.0, "epochs": 1.0})
    return [
        SNNClassifier(**options, learn_intrinsic=learn, hidden=hidden, tau=config.tau * factor["tau"],
                      epochs=max(1, round(config.epochs * factor["epochs"])), rate=rate * factor["rate"],
                      rate_intrinsic=rate * factor["rate"], draws=config.draws, random_state=seed)
        for hidden in config.sizes for rate in config.rates
    ]  # fmt: skip


@rules.figure
def gains(runs: Runs):
    """Accuracy of each kind and rule, and what learning the neurons adds to it."""
    arms = runs["system"].arms
    fig, (left, right) = figure(2, width=5)
    names = [name.replace("_", ", ").replace("lzc", "complexity") for name in arms["system"]]
    places = np.arange(len(names))
    for k, (arm, colour) in enumerate((("fixed", CONTROL_COLOUR), ("system", SYSTEM_COLOUR))):
        left.barh(places + 0.4 * k, list(arms[arm].values()), 0.4, color=colour,
                  label={"fixed": "neurons as set", "system": "neurons learned"}[arm])  # fmt: skip
    left.set_yticks(places + 0.2, names)
    left.axvline(0.5, color="k", lw=0.8, ls=":")
    label(left, "accuracy on test samples", "neuron, rule", legend=False)
    fig.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    right.barh(places, [100 * (value - arms["fixed"][name]) for name, value in arms["system"].items()], color=SYSTEM_COLOUR)
    right.set_yticks(places, names)
    right.axvline(0, color="k", lw=0.8)
    label(right, "gain (points)", "neuron, rule")
    return fig


@dataclass(frozen=True)
class Dynamics(Bursts):
    """A network of meta neurons before and after training, and its neurons under constant current."""

    currents: int = 61  # from 0 to 0.6
    long: int = 2000  # steps at each current
    spread: float = 1.0  # of the weights onto the hidden layer


@paper.experiment(
    presets={"smoke": Dynamics(train=40, epochs=1, hidden=4, currents=4, long=100), "quick": Dynamics(),
             "paper": Dynamics(train=4000, hidden=64, epochs=100, currents=601, long=20_000)},
    claims=[
        Claim("M1", "a meta neuron fires above the current at which its resting potential passes the threshold", kind="check",
              reference="threshold (1 + b - threshold), where V² - (1 + b) V + I = 0",
              checks=[at_most("rheobase_error", 0.011)]),
    ],
    cost=5.0,
)  # fmt: skip
def dynamics(config: Dynamics, key, log: Log) -> Report:
    """Rates against current, and orbits in the plane of V and U, of neurons as set and as learned."""
    currents = jnp.linspace(0.0, 0.6, config.currents)
    train = burst_samples(config.train, config, generator(key))
    trained = SNNClassifier("meta", hidden=config.hidden, epochs=config.epochs, spread=config.spread, random_state=seed_of(key))
    after = trained.fit(*train).network_.hidden.neurons.built()
    log.progress(0.6)
    before = cells("meta", config.hidden, learn=False).built()
    arrays: dict[str, Any] = {"currents": currents}
    for name, neurons in (("before", before), ("after", after)):
        rates, orbit = responses(_unsquashed(neurons), currents, config.long)
        arrays |= {f"rate_{name}": rates, f"orbit_{name}": orbit}
    first = float(currents[int(np.argmax(np.asarray(arrays["rate_before"])[:, 0] > 0))])
    expected = float(before.threshold * (1 + before.b - before.threshold))
    return Report(metrics={"rheobase": first, "rheobase_error": abs(first - expected)}, arrays=arrays)


def _unsquashed(neurons: MetaNeuron) -> MetaNeuron:
    """The neurons as they answer to a current itself."""
    given = {name: getattr(neurons, name) for name in ("a", "b", "c", "d", "threshold", "u0", "kappa")}
    return MetaNeuron(neurons.size, **given, squash=False)


@eqx.filter_jit
def responses(neurons: MetaNeuron, currents: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """(rates (currents, neurons) in spikes a step, once settled; orbits (steps, 2, neurons) at a current of 0.45)."""

    def rate(current: jax.Array) -> jax.Array:
        return rollout(neurons, jnp.full((steps, neurons.size), current))[1][steps // 2 :].mean(axis=0)

    _, orbit = rollout(neurons, jnp.full((min(steps, 200), neurons.size), 0.45), record=lambda state, _: jnp.stack(state))
    return jax.lax.map(rate, currents), orbit


@dynamics.figure
def plane(runs: Runs):
    """Rate against current, and the orbit of a neuron at a current of 0.45, before and after learning."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for name, colour in (("after", SYSTEM_COLOUR), ("before", CONTROL_COLOUR)):
        rates = np.asarray(data[f"rate_{name}"])
        for k in range(rates.shape[1] if name == "after" else 1):
            left.plot(data["currents"], rates[:, k], color=colour, lw=1,
                      label={"before": "as set", "after": "learned"}[name] if k == 0 else None)  # fmt: skip
        orbit = np.asarray(data[f"orbit_{name}"])[:, :, 0]
        right.plot(orbit[:, 0], orbit[:, 1], ".-", ms=3, lw=0.5, color=colour)
    v = np.linspace(-0.2, 0.6, 50)
    right.plot(v, v * v - v + 0.45, "k:", lw=1, label="V at rest")
    right.plot(v, 0.2 * v, "k--", lw=1, label="U at rest, as set")
    label(left, "current", "rate (spikes a step)")
    label(right, "potential V", "recovery U")
    return fig


@dataclass(frozen=True)
class Breast:
    """Scikit-learn's breast cancer features as rates of Poisson trains."""

    steps: int = 200  # ms
    low: float = 2.0  # spikes/s, of a feature at its 1 % quantile
    high: float = 100.0  # spikes/s, at its 99 % quantile
    test: float = 0.3  # share
    hidden: int = 16
    epochs: int = 40
    tau: float = 10.0  # ms


@paper.experiment(
    presets={"smoke": Breast(steps=40, hidden=4, epochs=1), "quick": Breast(),
             "paper": Breast(steps=1000, hidden=64, epochs=100)},
    claims=[
        Claim("M2", "the complexity of hidden trains classifies a real table coded as rates", kind="paper",
              where="abstract: SNN-LZC", published="up to 99.5 %, on other data", null="shuffled",
              no_ablation="the measure is one piece: nothing of it can be switched off", grows="epochs",
              checks=[at_least("lzc", {"quick": 0.85}, over="mean")]),
    ],
    cost=8.0,
)  # fmt: skip
def breast(config: Breast, key, log: Log) -> Report:
    """A real table of numbers as spikes: read-out, complexity, and logistic regression on the numbers; labels shuffled too."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    features, y = load_breast_cancer(return_X_y=True)
    train, test, y_train, y_test = train_test_split(features, y, test_size=config.test, random_state=seed_of(key), stratify=y)
    low, high = np.quantile(train, [0.01, 0.99], axis=0)
    rates = [config.low + (config.high - config.low) * np.clip((part - low) / (high - low), 0, 1) for part in (train, test)]
    spikes = [np.asarray(poisson_trains(jnp.asarray(part), config.steps, k)).swapaxes(0, 1)
              for part, k in zip(rates, jax.random.split(key), strict=True)]  # fmt: skip
    shuffled = generator(key).permutation(y_train)
    arms = {}
    for name, labels in (("system", y_train), ("shuffled", shuffled)):
        row = {}
        for decision in ("readout", "lzc"):
            model = SNNClassifier("lif", decision=decision, hidden=config.hidden, tau=config.tau, epochs=config.epochs,
                                  rate=0.01, rate_intrinsic=0.01, random_state=seed_of(key))  # fmt: skip
            row[decision] = model.fit(spikes[0], labels).score(spikes[1], y_test)
        arms[name] = row
        log.progress(0.5 if name == "system" else 1.0)
    regression = LogisticRegression(max_iter=5000).fit(rates[0] / config.high, y_train)
    arms["system"]["regression"] = regression.score(rates[1] / config.high, y_test)
    return Report(arms=arms, arrays={"example": spikes[1][[int(y_test.argmin()), int(y_test.argmax())]]})


@breast.figure
def tumours(runs: Runs):
    """A malignant and a benign sample as spikes, and accuracy of the decisions."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, right) = figure(2)
    for row, (name, colour) in enumerate((("malignant", COLOURS[1]), ("benign", COLOURS[2]))):
        t, channel = np.nonzero(data["example"][row])
        left.scatter(t, channel + 33 * row, s=3, color=colour, label=name)
    label(left, "time (ms)", "feature, one sample a class")
    names = {"readout": "counts", "lzc": "complexity", "regression": "logistic regression\non the features"}
    right.bar(list(names.values()), [arms["system"][name] for name in names], color=(SYSTEM_COLOUR, COLOURS[3], COLOURS[4]))
    right.plot(["counts", "complexity"], [arms["shuffled"][name] for name in ("readout", "lzc")], "o", color=CONTROL_COLOUR,
               label="labels shuffled")  # fmt: skip
    right.set_ylim(0, 1.2)
    label(right, "decision", "accuracy on test samples")
    left.set_ylim(-2, 78)
    return fig


@dataclass(frozen=True)
class Speed:
    """Trains of a length, and how many of them."""

    length: int = 1000  # steps
    trains: int = 1000
    repeats: int = 5


@paper.experiment(
    presets={"smoke": Speed(length=50, trains=5, repeats=1), "quick": Speed(), "paper": Speed(length=10_000)},
    claims=[
        Claim("C9", "the complexity of a train of 1000 bins takes less than a millisecond", kind="paper", where="v2: abstract",
              ablation="scanning", no_null="a time is a program's: there is none without the system",
              published="inference in less than 1 ms", checks=[at_most("milliseconds", {"quick": 1.0})]),
    ],
    exclusive=True,
    cost=3.0,
)  # fmt: skip
def speed(config: Speed, key, log: Log) -> Report:
    """Time a train: compiled over many trains, one by one on the host, and by scanning for the longest match in Python."""
    trains = np.asarray(markov_trains(jnp.full(config.trains, 0.1), 0.0, config.length, key)).T
    few = trains[:3]
    compiled = measure(lambda: lzc(trains), repeats=config.repeats)
    one_by_one = measure(lambda: [lz76(row) for row in few], repeats=config.repeats)
    scanning = measure(lambda: [kaspar_schuster(row) for row in few], repeats=1, warm_up=0)
    if scanning.result != one_by_one.result:
        raise ArithmeticError("The two ways to count components differ.")
    return Report(arms={
        "system": {"milliseconds": 1000 * compiled.minimum / len(trains),
                   "milliseconds_one_by_one": 1000 * one_by_one.minimum / len(few)},
        "scanning": {"milliseconds": 1000 * scanning.minimum / len(few)},
    })  # fmt: skip


def kaspar_schuster(bits: Any) -> int:
    """Components by comparing with every earlier start in turn (Kaspar and Schuster, 1987)."""
    train = np.asarray(bits).tolist()
    size, begin, count = len(train), 0, 0
    while begin < size:
        longest = 0
        for start in range(begin):
            match = 0
            while begin + match < size and train[start + match] == train[begin + match]:
                match += 1
            longest = max(longest, match)
        begin += longest + 1
        count += 1
    return count
