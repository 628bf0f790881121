"""Neurons that learn their own parameters, and spike trains told apart by their complexity, arXiv 2508.11674.

Weights alone are usually trained; here time constants, thresholds and the constants of a second-order meta neuron are too.
Classes are read out by spike counts, or by the Lempel-Ziv complexity of the spike trains. The control has the same network,
data and number of updates with its neurons left as they were set, or reads rates where the complexity is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from broadsheet.dynamics import rollout
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
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
        "both arms stand at the Bayes limit. The gain on bursts is the repair of a badly set time constant, which time "
        "constants drawn at random repair as well; with one near its best it is small.",
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
        Claim("C4", "the complexity sees structure that the rate misses", kind="paper", ablation="shuffled",
              null=("rate", "pairs"), where="abstract: complexity-based encoding",
              reason="One count sees this structure too: spikes that follow a spike at once tell the trains apart with an "
              "area of 1.00, the complexity with 0.98 (three development seeds).", checks=[
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
    seen = parts | {"pairs": lambda trains: -(trains[:, 1:] * trains[:, :-1]).sum(axis=-1),
                    "shuffled": lambda trains: lzc(generator(k_structure).permuted(trains, axis=-1))}  # fmt: skip
    counts = {name: (measure(flat), measure(bursting)) for name, measure in seen.items()}
    log.progress(0.5)
    arms = {
        name: {"entropy_error": np.abs(found / truth - 1).max(), "smallest_rise": np.diff(found).min(),
               "miscounted": sum(parse(np.array([int(c) for c in text])) != known for text, known in STRINGS)}
        for (name, found), parse in zip(estimates.items(), (lz76, lz78), strict=True)
    }  # fmt: skip
    for name, (less, more) in counts.items():
        arms.setdefault(name, {})["structure_auc"] = area_under_curve(less, more)
    for name in parts:
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
    few: int = 10  # spikes of samples that are harder to tell apart
    train: int = 400  # samples
    test: int = 1000
    hidden: int = 8
    epochs: int = 20
    taus: tuple[float, ...] = (1.0, 2.0, 20.0)  # ms, at the start
    longest: float = 40.0  # ms, of time constants drawn at random
    networks: int = 4  # over which a gain is averaged


def burst_samples(count: int, config: Bursts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patterns (samples, time, channels) and which of them burst. No two spikes fall on one another: all have as many."""
    y = rng.integers(0, 2, count)
    begin = np.where(y == 1, rng.integers(0, config.steps - config.window + 1, count), 0)
    span = np.where(y == 1, config.window, config.steps)
    order = rng.random((count, config.steps * config.channels), np.float32)
    order[np.arange(order.shape[1]) // config.channels >= span[:, None]] = 2  # outside
    times, channels = np.divmod(np.argpartition(order, config.spikes)[:, : config.spikes], config.channels)
    X = np.zeros((count, config.steps, config.channels), np.float32)
    X[np.arange(count)[:, None], begin[:, None] + times, channels] = 1
    return X, y


@paper.experiment(
    presets={"smoke": Bursts(train=40, test=40, epochs=1, hidden=4, taus=(1.0,), networks=1), "quick": Bursts(),
             "paper": Bursts(train=4000, test=10_000, hidden=64, epochs=100, taus=(1.0, 2.0, 5.0, 10.0, 20.0, 40.0))},
    claims=[
        Claim("C5", "neurons that learn their time constants and thresholds repair a bad setting", kind="paper", seeds=12,
              where="abstract: learned internal parameters",
              published="up to 13.5 points for LIF neurons, on other data",
              ablation="fixed", null=("random-taus", "chosen", "wider"), grows="epochs",
              reason="Any better setting repairs it, and better. On eight development seeds learning gains 6.1 points, to "
              "0.946; neurons left with time constants drawn at random between 1 and 40 ms reach 0.986, with the best of "
              "three on samples of its own 0.995. Twice as many neurons gain 2.6 points.",
              checks=[at_least("accuracy_1", {"quick": 0.03}, minus="fixed")]),
        Claim("C7", "with a time constant near its best there is nothing to gain, though there is room", kind="check", seeds=8,
              ablation="mis-set", reference="the same networks with their neurons as they were set; control: from 2 ms",
              reason="Not shown to be nothing: where samples have ten spikes, fixed neurons reach 0.89, and learning adds "
              "1.6 points with an interval from 0.0 to 3.2 (eight development seeds); from 2 ms it adds 5.9.",
              checks=[at_most("gain", {"quick": 0.02}, over="mean"), at_most("accuracy_few", {"quick": 0.96}, over="mean",
                                                                             of="fixed")]),
    ],
    cost=8.0,
)  # fmt: skip
def bursts(config: Bursts, key, log: Log) -> Report:
    """The same LIF network from several first time constants, its neurons learned or left as they are.

    Beside it, neurons left as they are: with time constants drawn at random, with the one that is best on samples of its own,
    and twice as many. `gain` is what learning adds, over several networks, where samples have
    fewer spikes: from 20 ms, and from 2 ms.
    """
    rng = generator(key)
    train, test, check = (burst_samples(count, config, rng) for count in (config.train, config.test, config.train))
    sparse = replace(config, spikes=config.few)
    hard, hard_test = burst_samples(config.train, sparse, rng), burst_samples(config.test, sparse, rng)
    total = 2 * len(config.taus) + 2 + 4 * config.networks
    done = iter(range(1, total + 1))

    def trained(samples: tuple, taus: Any, learn: bool, *, hidden: int = config.hidden, network: int = 0) -> SNNClassifier:
        model = SNNClassifier("lif", learn_intrinsic=learn, hidden=hidden, tau=np.broadcast_to(taus, hidden),
                              epochs=config.epochs, random_state=seed_of(jax.random.fold_in(key, network)))  # fmt: skip
        model.fit(*samples)
        log.progress(next(done) / total)
        return model

    arms: dict[str, dict[str, float]] = {"system": {}, "fixed": {}}
    arrays: dict[str, Any] = {"taus": config.taus, "example": train[0][[train[1].argmin(), train[1].argmax()]]}
    checked = []
    for k, tau in enumerate(config.taus):
        for name in ("system", "fixed"):
            model = trained(train, tau, name == "system")
            arms[name][f"accuracy_{tau:g}"] = model.score(*test)
            if name == "system":
                arrays[f"learned_{k}"] = model.network_.hidden.neurons.built().tau
        checked.append(model.score(*check))
    best = config.taus[int(np.argmax(checked))]
    drawn = np.exp(rng.uniform(0.0, np.log(config.longest), config.hidden))
    arms["chosen"] = {"accuracy_1": arms["fixed"][f"accuracy_{best:g}"]}
    arms["random-taus"] = {"accuracy_1": trained(train, drawn, False).score(*test)}
    arms["wider"] = {"accuracy_1": trained(train, 1.0, False, hidden=2 * config.hidden).score(*test)}
    for name, tau in (("system", 20.0), ("mis-set", 2.0)):
        scores = np.array([[trained(hard, tau, learn, network=k).score(*hard_test) for learn in (True, False)]
                           for k in range(config.networks)]).mean(axis=0)  # fmt: skip
        arms.setdefault(name, {})["gain"] = scores[0] - scores[1]
        if name == "system":
            arms["system"]["accuracy_few"], arms["fixed"]["accuracy_few"] = scores
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
    for k, (name, text) in enumerate((("random-taus", "random time constants"), ("chosen", "one chosen"),
                                      ("wider", "twice the neurons"))):  # fmt: skip
        middle.axhline(arms[name]["accuracy_1"], color=COLOURS[k + 1], ls=":", label=f"as set, {text}")
    middle.set_xscale("log")
    middle.set_ylim(bottom=middle.get_ylim()[0] - 0.1)
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
    """Gradient steps on the neurons' parameters of random networks, all weights held."""

    networks: int = 100
    rate: float = 1e-3
    samples: int = 50  # of the burst task, in the batch
    hidden: int = 8
    slope: float = 10.0  # of the fast sigmoid
    spread: float = 0.5  # of the weights onto the hidden layer
    walks: int = 24  # networks that take many steps
    steps: int = 40
    length: float = 0.1  # of a step: a tenth of a time constant, or of the first threshold


@paper.experiment(
    presets={"smoke": Descent(networks=4, samples=10, walks=2, steps=2), "quick": Descent(),
             "paper": Descent(networks=2000, samples=400, walks=200, steps=400)},
    claims=[
        Claim("C8", "a small gradient step on the neurons' parameters lowers the smooth loss", kind="check", ablation="random",
              reference="the derivative: a short step lowers a smooth loss by its length times the gradient's; control: a step "
              "as long in a random direction", checks=[at_least("lowered", 0.95), at_most("from_first_order", 0.1)]),
        Claim("M3", "steps down the surrogate gradient of the neurons' parameters lower the loss of the spiking network itself",
              kind="paper", where="v2: theory", seeds=8, ablation="random", null="climbing", grows="steps",
              reason="It does in 94 % of networks (interval 90 to 98, eight development seeds): later steps overshoot. The "
              "loss falls by 0.036 nats, by 0.009 where random steps are kept if they lower it, which they do in 99 % of "
              "networks.", checks=[
                  at_least("spikes_lowered", 0.95, over="mean"), at_least("fall", 0.01, minus="climbing")]),
    ],
    cost=8.0,
)  # fmt: skip
def descent(config: Descent, key, log: Log) -> Report:
    """One step with spikes replaced by their smooth stand-in, and many with spikes as they are; the controls step at random.

    `climbing` tries as many random steps of the same length, and keeps those that lower the loss: it needs no gradient.
    """
    X, y = burst_samples(config.samples, Bursts(), generator(key))
    batch = (jnp.asarray(X), jnp.asarray(y))

    def smooth(x: jax.Array) -> jax.Array:
        return 0.5 + 0.5 * config.slope * x / (1 + config.slope * jnp.abs(x))

    def made(k: jax.Array) -> SNN:
        k_net, k_tau = jax.random.split(k)
        net = network("lif", X.shape[2], config.hidden, 2, k_net, spread=config.spread)
        return eqx.tree_at(lambda n: n.hidden.neurons.free["tau"], net, jax.random.uniform(k_tau, (config.hidden,), maxval=3.0))

    def loss(free: dict, base: SNN) -> jax.Array:
        return surprise(eqx.tree_at(lambda n: n.hidden.neurons.free, base, free), batch, key)

    def one_step(k: jax.Array) -> jax.Array:
        net = made(k)
        soft = eqx.tree_at(lambda n: n.hidden.neurons.neuron, net, _with_spike(net.hidden.neurons.neuron, smooth))
        free = net.hidden.neurons.free
        before, gradient = jax.value_and_grad(loss)(free, soft)
        size = optax.global_norm(gradient)
        expected = -config.rate * size**2
        down = loss(_moved(free, gradient, -config.rate), soft) - before
        aside = loss(_moved(free, _direction(free, k), config.rate * size), soft) - before
        return jnp.stack([down, aside, down / expected, aside / expected])

    def walk(k: jax.Array) -> tuple[jax.Array, jax.Array]:
        net = made(k)

        def step(carry: tuple, k: jax.Array) -> tuple[tuple, jax.Array]:
            descending, wandering, climbing, best = carry
            now, gradient = jax.value_and_grad(loss)(descending, net)
            direction = _direction(descending, k)
            tried = _moved(climbing, direction, config.length)
            found = loss(tried, net)
            climbing = jax.tree.map(lambda new, old: jnp.where(found < best, new, old), tried, climbing)
            descending = _moved(descending, gradient, -config.length / jnp.maximum(optax.global_norm(gradient), 1e-12))
            wandering = _moved(wandering, direction, config.length)
            return (descending, wandering, climbing, jnp.minimum(found, best)), jnp.stack([now, best])

        free = net.hidden.neurons.free
        start = loss(free, net)
        (descending, wandering, _, best), path = jax.lax.scan(
            step, (free, free, free, start), jax.random.split(k, config.steps)
        )
        last = jnp.stack([loss(descending, net), best])
        return jnp.concatenate([path, last[None]]).T, jnp.stack([start, loss(wandering, net)])

    found = np.asarray(jax.lax.map(jax.jit(one_step), jax.random.split(key, config.networks)))
    log.progress(0.3)
    paths, ends = map(np.asarray, jax.lax.map(jax.jit(walk), jax.random.split(key, config.walks)))
    falls = {"system": paths[:, 0, 0] - paths[:, 0, -1], "climbing": paths[:, 1, 0] - paths[:, 1, -1],
             "random": ends[:, 0] - ends[:, 1]}  # fmt: skip
    arms = {name: {"spikes_lowered": (fall > 0).mean(), "fall": fall.mean()} for name, fall in falls.items()}
    for k, name in enumerate(("system", "random")):
        off = np.median(np.abs(found[:, 2 + k] - 1))
        arms[name] |= {"lowered": (found[:, k] < 0).mean(), "from_first_order": off}
    return Report(arms=arms, arrays={"changes": found[:, :2], "paths": paths.mean(axis=0)})


def _direction(free: dict, key: jax.Array) -> dict:
    """A random direction of length 1."""
    keys = jax.random.split(key, len(free))
    drawn = {name: jax.random.normal(k, free[name].shape) for name, k in zip(sorted(free), keys, strict=True)}
    return jax.tree.map(lambda x: x / optax.global_norm(drawn), drawn)


def _moved(free: dict, direction: dict, by: Any) -> dict:
    return jax.tree.map(lambda value, change: value + by * change, free, direction)


def _with_spike(neuron: Any, spike: Any) -> Any:
    """The neuron with another function in the place of its spike."""
    import copy

    made = copy.copy(neuron)
    object.__setattr__(made, "spike", spike)
    return made


@descent.figure
def step(runs: Runs):
    """Change of the smooth loss by one step, sorted over networks, and the loss of spiking networks over many."""
    data = runs["system"].arrays
    changes = np.sort(data["changes"], axis=0)
    fig, (left, right) = figure(2)
    for k, (name, colour) in enumerate((("downhill", SYSTEM_COLOUR), ("a random direction", CONTROL_COLOUR))):
        left.plot(np.arange(len(changes)), 1e6 * changes[:, k], color=colour, label=name)
    left.set_yscale("symlog", linthresh=0.1)
    label(left, "network, sorted", "change of smooth loss (1e-6 nats)")
    for path, name, colour in zip(data["paths"], ("surrogate gradient", "random steps, kept if better"),
                                  (SYSTEM_COLOUR, CONTROL_COLOUR), strict=True):  # fmt: skip
        right.plot(np.arange(len(path)), path, color=colour, label=name)
    label(right, "step", "loss of spiking networks (nats)")
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

    kinds: tuple[str, ...] = ("meta_backprop", "lif_tempotron", "lif_stdp")
    test: int = 400
    sizes: tuple[int, ...] = (16,)  # hidden neurons to choose from
    rates: tuple[float, ...] = (0.02,)  # learning rates to choose from
    tau: float = 2.0  # ms, of LIF neurons at the start; a tempotron starts at twice that
    draws: int = 4  # averaged where neurons are random


@paper.experiment(
    presets={"smoke": Rules(train=20, test=20, steps=40, window=10,
                            epochs=1, sizes=(4,)),
             "quick": Rules(),
             "paper": Rules(kinds=tuple(CELLS), steps=1000, spikes=200, window=400, train=2000, test=2000, epochs=50,
                            sizes=(8, 16, 32, 64, 128), rates=(0.005, 0.01, 0.02, 0.05), draws=8)},
    claims=[
        Claim("C6", "meta neurons, tempotrons and networks under STDP gain by learning their parameters", kind="paper", seeds=8,
              where="abstract: three learning rules", published="up to 8.5 points for the meta neuron, on other data",
              ablation="fixed", null="retuned", grows="epochs",
              reason="On eight development seeds meta neurons gain 1.3 points (interval -2.7 to 5.3), tempotrons 0.5 (-0.8 "
              "to 1.9), and networks under STDP, whose neurons learn to keep a rate, lose 2.7 (0.5 to 4.9). Without learning "
              "any of it, twice the hidden neurons bring 3.6 and 2.3 points, four times the time constant of a tempotron "
              "7.5. In four times the epochs meta neurons gain 7.4 points and tempotrons 2.6, and networks under STDP lose "
              "8.6 (four development seeds).",
              checks=[at_least(kind, {"quick": 0.01, "paper": 0.01}, minus="fixed")
                      for kind in ("meta_backprop", "lif_tempotron", "lif_stdp")]),
    ],
    cost=20.0,
)  # fmt: skip
def rules(config: Rules, key, log: Log) -> Report:
    """Accuracy on bursts of each kind of neuron under each rule: learned, fixed, and fixed in another setting.

    The other setting has twice the hidden neurons, or four times a tempotron's time constant; of it and the fixed neurons the
    better one on samples of their own is taken.
    """
    rng = generator(key)
    train, check, test = (burst_samples(count, config, rng) for count in (config.train, config.test, config.test))
    arms: dict[str, dict[str, float]] = {"system": {}, "fixed": {}, "retuned": {}}
    for k, name in enumerate(config.kinds):
        best: dict[str, SNNClassifier] = {}
        other = {"tau": 4.0} if CELLS[name].get("rule") == "tempotron" else {"hidden": 2}
        for arm, factors in (("system", {}), ("fixed", {}), ("retuned", other)):
            fitted = [model.fit(*train) for model in candidates(CELLS[name], arm == "system", config, seed_of(key), **factors)]
            fitted += [best["fixed"]] if arm == "retuned" else []
            best[arm] = max(fitted, key=lambda model: model.score(*check)) if len(fitted) > 1 else fitted[0]
            arms[arm][name] = best[arm].score(*test)
        log.progress((k + 1) / len(config.kinds))
    return Report(arms=arms)


def candidates(
    options: dict[str, Any], learn: bool, config: Rules, seed: int, *, tau: float = 1.0, hidden: int = 1
) -> list[SNNClassifier]:
    """A classifier for each size and learning rate; `tau` and `hidden` are factors on the time constant and the sizes."""
    factor = SLOWER.get(options.get("rule", ""), {"rate": 1.0, "tau": 1.0, "epochs": 1.0})
    return [
        SNNClassifier(**options, learn_intrinsic=learn, hidden=hidden * size, tau=tau * config.tau * factor["tau"],
                      epochs=max(1, round(config.epochs * factor["epochs"])), rate=rate * factor["rate"],
                      rate_intrinsic=rate * factor["rate"], draws=config.draws, random_state=seed)
        for size in config.sizes for rate in config.rates
    ]  # fmt: skip


@rules.figure
def gains(runs: Runs):
    """Accuracy of each kind and rule, and what learning the neurons adds to it."""
    arms = runs["system"].arms
    fig, (left, right) = figure(2, width=5)
    names = [name.replace("_", ", ").replace("lzc", "complexity") for name in arms["system"]]
    places = np.arange(len(names))
    texts = {"fixed": "neurons as set", "retuned": "as set, another setting", "system": "neurons learned"}
    for k, (arm, colour) in enumerate((("fixed", CONTROL_COLOUR), ("retuned", COLOURS[1]), ("system", SYSTEM_COLOUR))):
        left.barh(places + 0.27 * k, list(arms[arm].values()), 0.27, color=colour, label=texts[arm])
    left.set_yticks(places + 0.27, names)
    left.axvline(0.5, color="k", lw=0.8, ls=":")
    label(left, "accuracy on test samples", "neuron, rule", legend=False)
    fig.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
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
        Claim("M2", "the complexity of hidden trains classifies a real table coded as rates", kind="paper", seeds=8,
              where="abstract: SNN-LZC", published="up to 99.5 %, on other data",
              ablation=("counts", "time-shuffled", "untrained"), null="input-count", grows="epochs",
              reason="It is the rates that are read. On eight development seeds the complexity has 0.939, counts of the same "
              "trains 0.942, the complexity of trains whose steps are shuffled 0.944, of a network before training 0.904, "
              "and all spikes that come in against one threshold 0.901.",
              checks=[at_least("accuracy", {"quick": 0.85}, over="mean")]),
    ],
    cost=5.0,
)  # fmt: skip
def breast(config: Breast, key, log: Log) -> Report:
    """A real table of numbers as spikes, read by the complexity of hidden trains.

    The same network is read by the counts of its trains, and by the complexity of trains whose steps are shuffled; a network
    before training by the complexity; and the spikes that come in are counted, with one threshold on their sum. Beside them the
    network's own read-out, and logistic regression on the numbers.
    """
    from sklearn.datasets import load_breast_cancer
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    features, y = load_breast_cancer(return_X_y=True)
    train, test, y_train, y_test = train_test_split(features, y, test_size=config.test, random_state=seed_of(key), stratify=y)
    low, high = np.quantile(train, [0.01, 0.99], axis=0)
    rates = [config.low + (config.high - config.low) * np.clip((part - low) / (high - low), 0, 1) for part in (train, test)]
    spikes = [np.asarray(poisson_trains(jnp.asarray(part), config.steps, k)).swapaxes(0, 1)
              for part, k in zip(rates, jax.random.split(key), strict=True)]  # fmt: skip

    def read(features: list[np.ndarray]) -> dict[str, float]:
        reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[0], y_train)
        return {"accuracy": reader.score(features[1], y_test)}

    model = SNNClassifier("lif", hidden=config.hidden, tau=config.tau, epochs=config.epochs, rate=0.01, rate_intrinsic=0.01,
                          random_state=seed_of(key)).fit(spikes[0], y_train)  # fmt: skip
    log.progress(0.6)
    blank = network("lif", features.shape[1], config.hidden, 2, key, tau=config.tau)
    hidden = [model.hidden_spikes(part).swapaxes(1, 2) for part in spikes]
    untrained = [np.asarray(blank.spikes(jnp.asarray(part, jnp.float32), key)).swapaxes(1, 2) for part in spikes]
    totals = [part.sum(axis=(1, 2)) for part in spikes]
    rng = generator(key)
    regression = LogisticRegression(max_iter=5000).fit(rates[0] / config.high, y_train)
    arms = {
        "system": read([lzc(part) for part in hidden]),
        "counts": read([part.sum(axis=2) for part in hidden]),
        "time-shuffled": read([lzc(rng.permuted(part, axis=2)) for part in hidden]),
        "untrained": read([lzc(part) for part in untrained]),
        "input-count": {"accuracy": best_threshold(-totals[0], y_train, -totals[1], y_test)},
    }
    arms["system"] |= {"readout": model.score(spikes[1], y_test),
                       "regression": regression.score(rates[1] / config.high, y_test)}  # fmt: skip
    return Report(arms=arms, arrays={"example": spikes[1][[int(y_test.argmin()), int(y_test.argmax())]]})


@breast.figure
def tumours(runs: Runs):
    """A malignant and a benign sample as spikes, and accuracy of the decisions."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, right) = figure(2, width=4.6)
    for row, (name, colour) in enumerate((("malignant", COLOURS[1]), ("benign", COLOURS[2]))):
        t, channel = np.nonzero(data["example"][row])
        left.scatter(t, channel + 33 * row, s=3, color=colour, label=name)
    left.set_ylim(-2, 78)
    label(left, "time (ms)", "feature, one sample a class")
    names = {"input-count": "all spikes in, one threshold", "untrained": "complexity, before training",
             "time-shuffled": "complexity, time shuffled", "counts": "counts of hidden trains",
             "system": "complexity of hidden trains"}  # fmt: skip
    colours = [SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in names]
    right.barh(list(names.values()), [arms[name]["accuracy"] for name in names], color=colours)
    right.axvline(arms["system"]["regression"], color="k", ls=":", label="logistic regression on the features")
    right.set_xlim(0.5, 1)
    label(right, "accuracy on test samples", "decision", legend=False)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize="small")
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
              ablation="substrings", null="count", published="inference in less than 1 ms",
              reason="Python's own search for bytes in bytes takes 0.66 ms a train, compiled bit sets 0.02 ms; a spike count "
              "less than a ten-thousandth.",
              checks=[at_most("milliseconds", {"quick": 1.0})]),
    ],
    exclusive=True,
    cost=3.0,
)  # fmt: skip
def speed(config: Speed, key, log: Log) -> Report:
    """Time a train: compiled over many trains, one by one on the host, and by Python's own search; and the time of a count."""
    trains = np.asarray(markov_trains(jnp.full(config.trains, 0.1), 0.0, config.length, key)).T
    few = trains[:20]
    compiled = measure(lambda: lzc(trains), repeats=config.repeats)
    one_by_one = measure(lambda: [lz76(row) for row in few], repeats=config.repeats)
    searching = measure(lambda: [by_substrings(row) for row in few], repeats=config.repeats)
    counting = measure(lambda: trains.sum(axis=1), repeats=config.repeats)
    if searching.result != one_by_one.result:
        raise ArithmeticError("The two ways to count components differ.")
    return Report(arms={
        "system": {"milliseconds": 1000 * compiled.minimum / len(trains),
                   "milliseconds_one_by_one": 1000 * one_by_one.minimum / len(few)},
        "substrings": {"milliseconds": 1000 * searching.minimum / len(few)},
        "count": {"milliseconds": 1000 * counting.minimum / len(trains)},
    })  # fmt: skip


def by_substrings(bits: Any) -> int:
    """Components by the search of bytes in bytes: one grows while it is found in what comes before its last bit."""
    train = np.asarray(bits, np.uint8).tobytes()
    begin, count = 0, 0
    for end in range(1, len(train) + 1):
        if train.find(train[begin:end], 0, end - 1) < 0:
            begin, count = end, count + 1
    return count + (begin < len(train))
