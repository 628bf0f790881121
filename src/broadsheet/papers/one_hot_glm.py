"""One-hot Generalized Linear Model for Switching Brain State Discovery, arXiv 2310.15263.

Spikes come from a hidden Markov chain whose states are coupled Poisson GLMs. A coupling is a type (inhibitory, none,
excitatory) times a strength; states share a prior of the types, not the strengths. Beside it: free couplings, couplings around
a shared mean, the prior switched off, and free couplings with the penalty that held-out trials choose.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator
from broadsheet.numerics.hidden_markov import smoothed
from broadsheet.numerics.smoothed_sequences import smoothed_sequences
from broadsheet.recordings.concrete import concrete_log_density, concrete_sample
from broadsheet.recordings.prefrontal_files import counts_around, read_prefrontal
from broadsheet.recordings.switching_glm import HMMGLM
from broadsheet.recordings.switching_metrics import (
    aligned_states,
    bits_per_spike,
    correlation_of_states,
    off_diagonal,
    state_accuracy,
    thresholded_types,
    weight_error,
)
from broadsheet.recordings.switching_tasks import Switching, rule_task, synthetic

paper = Paper(
    slug="one-hot-glm",
    arxiv="2310.15263",
    title="One-hot Generalized Linear Model for Switching Brain State Discovery",
    published="2023-10-23",
    authors=5,
    basis="code",
    code="github.com/JerrySoybean/onehot-hmmglm (no licence)",
    summary="Spike trains of a long session come from one circuit whose effective couplings change with the state of the "
    "brain. A hidden Markov chain of Poisson GLMs finds states and couplings together. Here each coupling is nearly one-hot "
    "in its type, with a prior of the types that all states share, times a strength of its own in each state.",
    topics=("neural data analysis", "state space models"),
    parts=(
        "broadsheet.recordings.HMMGLM",
        "broadsheet.numerics.hidden_markov",
        "broadsheet.numerics.smoothed_sequences",
        "broadsheet.recordings.concrete_log_density",
    ),
    verbs=("broadsheet recordings states FILE --states 3",),
    notes=(
        "The official program takes the class probabilities where the Concrete density expects their logs, which flattens "
        "the prior, and works through sequences one at a time, overwriting the transitions with each. Here the density has the "
        "logs, and EM is over all sequences at once.",
        "The Concrete density grows without bound towards the corners of the simplex, so that its MAP is degenerate; the "
        "types' prior is the categorical one of the authors' later program unless asked for. Couplings of a neuron with its "
        "own history are fitted too.",
        "Likelihood, couplings and states are reported together: a fit that wins on one may lose on another.",
        "The recordings (CRCNS pfc-6, barrel cortex) are not shipped; at quick a generated task with two rules stands in.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Inference:
    """Random small chains, enumerated."""

    chains: int = 20
    states: int = 3
    bins: int = 8
    offset: float = -60.0  # nats a bin, as of 30 neurons and more


@paper.experiment(
    presets={"smoke": Inference(chains=2, bins=4), "quick": Inference(), "paper": Inference(chains=200)},
    claims=[
        Claim("O1", "the E-step is exact", kind="check", ablation="clamped",
              reference="enumeration of all paths; control: emissions clamped at 1e-16, as the official scaling does",
              checks=[at_most("error", 1e-8)]),
    ],
    precision="float64",
    cost=3.0,
)  # fmt: skip
def inference(config: Inference, key, log: Log) -> Report:
    """Probabilities of states, expected transitions and likelihood, against the sum over all paths."""
    rng = generator(key)
    paths = np.array(list(itertools.product(range(config.states), repeat=config.bins)))
    given, exact = [], []
    for k in range(config.chains):
        initial = rng.dirichlet(np.ones(config.states))
        transition = rng.dirichlet(np.ones(config.states), config.states)
        emission = config.offset + 5 * rng.normal(size=(config.bins, config.states))
        emission[rng.integers(config.bins)] = 0.0  # a missing bin
        joint = np.log(initial)[paths[:, 0]] + np.log(transition)[paths[:, :-1], paths[:, 1:]].sum(axis=1)
        joint = joint + emission[np.arange(config.bins), paths].sum(axis=1)
        total = np.logaddexp.reduce(joint)
        weight = np.exp(joint - total)
        states = np.stack([np.bincount(column, weight, config.states) for column in paths.T])
        steps = np.zeros((config.states, config.states))
        np.add.at(steps, (paths[:, :-1], paths[:, 1:]), weight[:, None])
        given.append((np.log(initial), np.log(transition), emission))
        exact.append((states, steps, total))
        log.progress((k + 1) / config.chains)
    initials, transitions, emissions = map(np.stack, zip(*given, strict=True))
    worst = {}
    for arm in ("system", "bin-by-bin", "clamped"):
        e = np.log(np.maximum(np.exp(emissions), 1e-16)) if arm == "clamped" else emissions
        smooth = smoothed if arm == "bin-by-bin" else _in_blocks
        found = jax.jit(jax.vmap(smooth))(initials, transitions, e)
        pairs = zip(found, map(np.stack, zip(*exact, strict=True)), strict=True)
        worst[arm] = np.array([np.abs(np.asarray(a) - b).max() for a, b in pairs])
    return Report(
        arms={arm: {"error": gaps.max()} for arm, gaps in worst.items()},
        arrays={f"errors_{arm}": np.maximum(gaps, 1e-18) for arm, gaps in worst.items()},
    )


def _in_blocks(initial: jax.Array, transition: jax.Array, emission: jax.Array) -> Any:
    """The E-step of one sequence, as the fits have it."""
    return jax.tree.map(lambda each: each[0], smoothed_sequences(initial, transition, emission[None]))


@inference.figure
def errors(runs: Runs):
    """Largest difference from enumeration."""
    fig, axis = figure()
    for k, (arm, colour) in enumerate({"system": SYSTEM_COLOUR, "bin-by-bin": COLOURS[1], "clamped": CONTROL_COLOUR}.items()):
        axis.bar(np.arange(3) + 0.25 * k, runs["system"].arrays[f"errors_{arm}"], 0.25, color=colour, label=arm)
    axis.set(yscale="log", xticks=np.arange(3) + 0.25, xticklabels=["states", "transitions", "log-likelihood"])
    label(axis, "what is expected", "largest difference (nats for the last)")
    return fig


@dataclass(frozen=True)
class Density:
    """Points drawn from the Concrete distribution, and its density over log-ratios of two classes to the third."""

    draws: int = 200_000
    step: float = 0.25
    reach: float = 60.0  # at tau = 0.2 a grid on the simplex itself sees 0.4 of the mass
    taus: tuple[float, ...] = (0.2, 0.5)


@paper.experiment(
    presets={"smoke": Density(draws=5000, step=1.0), "quick": Density(), "paper": Density(draws=5_000_000, step=0.1)},
    claims=[
        Claim("O2", "the Concrete density is that of relaxed one-hot vectors", kind="check", ablation="official",
              reference="samples made with Gumbel noise; control: the class probabilities in place of their logs, as in the "
              "official code, which still integrates to 1",
              checks=[at_most("integral_error", 0.02), at_most("histogram_error", 0.02)]),
    ],
    precision="float64",
    cost=2.0,
)  # fmt: skip
def density(config: Density, key, log: Log) -> Report:
    """Its integral over the simplex, and its mass in 36 cells against the frequency of samples."""
    axis = np.arange(-config.reach, config.reach, config.step) + config.step / 2
    ratios = jnp.stack(jnp.meshgrid(axis, axis, jnp.zeros(1), indexing="ij"), axis=-1)[:, :, 0]
    log_a = ratios - logsumexp(ratios, axis=-1, keepdims=True)
    log_pi = jnp.log(jnp.array([0.15, 0.6, 0.25]))
    worst: dict[str, dict[str, float]] = {
        arm: {"integral_error": 0.0, "histogram_error": 0.0} for arm in ("system", "official")
    }
    arrays = {}
    for k, tau in enumerate(config.taus):
        drawn = concrete_sample(jnp.broadcast_to(log_pi, (config.draws, 3)), tau, jax.random.fold_in(key, k))
        inside = np.clip(np.asarray(drawn[:, :2] - drawn[:, 2:]), -config.reach, config.reach)
        edges = np.concatenate([[-config.reach], np.quantile(axis, [0.4, 0.46, 0.5, 0.54, 0.6]).round(), [config.reach]])
        frequency = np.histogram2d(inside[:, 0], inside[:, 1], bins=edges)[0] / config.draws
        cells = np.searchsorted(edges, axis) - 1
        for arm, given in (("system", log_pi), ("official", jnp.exp(log_pi))):
            mass = jnp.exp(concrete_log_density(log_a, given, tau) + log_a.sum(axis=-1)) * config.step**2
            summed = np.zeros((len(edges) - 1, len(edges) - 1))
            np.add.at(summed, (cells[:, None], cells[None]), np.asarray(mass))
            gaps = {"integral_error": abs(summed.sum() - 1), "histogram_error": np.abs(summed - frequency).max()}
            worst[arm] = {name: max(value, gaps[name]) for name, value in worst[arm].items()}
            arrays[f"mass_{arm}_{k}"] = summed.ravel()
        arrays[f"frequency_{k}"] = frequency.ravel()
    return Report(arms=worst, arrays=arrays)


@density.figure
def cells(runs: Runs):
    """Mass of each cell against how often samples fell in it."""
    fig, axis = figure()
    data = runs["system"].arrays
    for arm, colour, mark in (("official", CONTROL_COLOUR, "s"), ("system", SYSTEM_COLOUR, "o")):
        axis.plot(data["frequency_0"], data[f"mass_{arm}_0"], mark, color=colour, label=arm)
    axis.plot([0, data["frequency_0"].max()], [0, data["frequency_0"].max()], color="k", lw=0.6)
    label(axis, "share of samples in a cell", "mass of the density", "temperature 0.2")
    return fig


@dataclass(frozen=True)
class Climb:
    """A synthetic data set, and rounds of EM over it."""

    states: int = 3
    neurons: int = 10
    bins: int = 1000
    sequences: int = 6
    rounds: int = 12


@paper.experiment(
    presets={"smoke": Climb(2, 3, 80, 2, 2), "quick": Climb(),
             "paper": Climb(5, 20, 2000, 30, 30)},
    claims=[
        Claim("O3", "the objective of EM never drops", kind="check", ablation="in-turn",
              reference="the objective itself; control: one sequence at a time, each overwriting the transitions, as the "
              "official loop does",
              checks=[at_least("smallest_rise", -1e-6)]),
    ],
    cost=8.0,
)  # fmt: skip
def climb(config: Climb, key, log: Log) -> Report:
    """Smallest change of the objective between rounds, as a share of it: free and Gaussian couplings."""
    rng = generator(key)
    system = synthetic(config.states, config.neurons, rng)
    x = system.counts(system.states(config.bins, config.sequences, rng), rng)
    common: dict[str, Any] = {"link": "sigmoid", "max_iter": config.rounds, "tol": 0.0, "restarts": 1, "random_state": 0}
    free = HMMGLM(config.states, **common).fit(x)
    gaussian = HMMGLM(config.states, weights="gaussian", **common).fit(x)
    turns = HMMGLM(config.states, **(common | {"max_iter": 1, "warm_start": True}))
    in_turn = []
    for k in range(config.rounds):
        turns.fit(x[k % config.sequences][None])
        in_turn.append(turns.log_prob(x).sum())
        log.progress((k + 1) / config.rounds, log_likelihood=in_turn[-1])
    paths = {"free": free.history_, "gaussian": gaussian.history_, "in-turn": np.array(in_turn)}
    least = {name: (np.diff(path) / np.abs(path[:-1])).min() for name, path in paths.items()}
    return Report(
        arms={
            "system": {"smallest_rise": min(least["free"], least["gaussian"])},
            "in-turn": {"smallest_rise": least["in-turn"]},
        },
        arrays=paths,
    )


@climb.figure
def objectives(runs: Runs):
    """The objective over rounds."""
    fig, axis = figure()
    for name, colour in (("free", SYSTEM_COLOUR), ("gaussian", COLOURS[1]), ("in-turn", CONTROL_COLOUR)):
        axis.plot(runs["system"].arrays[name] / 1e3, ".-", color=colour, label=name)
    label(axis, "round of EM", "objective (1000 nats)")
    return fig


@dataclass(frozen=True)
class Synthetic:
    """The paper's generator, and how models of it are fitted."""

    states: int = 3
    neurons: int = 10
    bins: int = 1000
    train: int = 10
    test: int = 10
    restarts: int = 2
    rounds: int = 20
    lassos: tuple[float, ...] = (3.0, 5.6, 10.0, 18.0)
    ridges: tuple[float, ...] = (5.6, 18.0)


def _candidates(config: Any, x: np.ndarray, seed: int, log: Log, gaussian: bool = True) -> dict[str, HMMGLM]:
    """The system and its controls, all from the same data: types start from free couplings, penalties are chosen by a third of
    the training sequences."""
    common: dict[str, Any] = {"link": "sigmoid", "restarts": config.restarts, "random_state": seed, "rounds": config.rounds}
    fits = {"free": HMMGLM(config.states, **common).fit(x)}
    log.progress(0.2)
    kinds: dict[str, dict[str, Any]] = {"gaussian": {"weights": "gaussian"}} if gaussian else {}
    kinds |= {"system": {"weights": "onehot"}, "own-prior": {"weights": "onehot", "share_prior": False}}
    for name, options in kinds.items():
        fits[name] = HMMGLM(config.states, **(common | options)).fit(x, start=fits["free"])
    log.progress(0.7)
    held = max(1, len(x) // 3)
    tried = [{"lasso": value} for value in config.lassos] + [{"penalty": value} for value in config.ridges]
    scores = [
        HMMGLM(config.states, **(common | options)).fit(x[held:], start=fits["free"]).score(x[:held]) for options in tried
    ]
    fits["penalised"] = HMMGLM(config.states, **(common | tried[int(np.argmax(scores))])).fit(x, start=fits["free"])
    log.progress(0.9)
    return fits


def _oracle(system: Switching) -> HMMGLM:
    """The model that made the data."""
    made = HMMGLM(len(system.weights), link=system.link)
    made.weights_, made.biases_, made.transition_ = system.weights, np.array(system.biases), system.transition
    made.filter_, made.n_features_in_ = system.filter_, system.weights.shape[1]
    return made


def _types_of(model: HMMGLM, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Types by the threshold on couplings that suits the truth best (states aligned), and the share that is right."""
    best = (np.zeros_like(truth), -1.0)
    for threshold in np.concatenate([[0.0], np.quantile(np.abs(model.weights_), np.linspace(0.05, 0.99, 40))]):
        found = thresholded_types(model.weights_, threshold)
        right = float((off_diagonal(found) == off_diagonal(truth)).mean())
        best = max(best, (found, right), key=lambda each: each[1])
    return best


@paper.experiment(
    presets={
        "smoke": Synthetic(2, 3, 80, 2, 2, 1, 2, (3.0,), ()),
        "quick": Synthetic(),
        "paper": Synthetic(5, 20, 2000, 30, 20, 3, 20),
    },
    claims=[
        Claim("O4", "by the shared prior, one-hot couplings are closer to the truth and predict better than free ones",
              kind="paper", where="synthetic study", ablation=("own-prior", "free"), null="penalised", seeds=8, checks=[
                  at_most("error_over_free", 0.9, over="mean"), at_least("log_likelihood", 0.0, minus="free")],
              reason="Types without a shared prior meet it too, and so do free couplings with the penalty that held-out trials "
              "choose: most of the gain over free couplings is of noisy types times strengths, and of sparsity. What the "
              "shared prior adds is O4b."),
        Claim("O4b", "a prior that states share brings couplings and predictions closer to the truth than their own",
              kind="paper", where="model", ablation="own-prior", null="penalised", seeds=8, checks=[
                  at_most("error", -0.003, minus="own-prior"), at_least("log_likelihood", 5e-4, minus="own-prior")],
              reason="Sharing the prior helps on every seed, but free couplings with an L1 penalty come about as close."),
        Claim("O5", "one-hot types are right more often than free couplings beyond the best threshold", kind="paper",
              where="synthetic study", ablation="own-prior", null=("penalised", "none"), seeds=8, checks=[
                  at_least("type_accuracy", 0.05, minus="free", within=(-1.0, 1.0))],
              reason="The type of a coupling without strength changes nothing, and is not found: the likeliest types are right "
              "less often than “none” everywhere. Effective couplings beyond a threshold are right as often as free ones."),
        Claim("O7", "states share the types and not the strengths", kind="paper", where="model", ablation="own-prior",
              null="penalised", seeds=8, checks=[
                  at_least("type_correlation", 0.5, over="mean", within=(-1.0, 1.0)),
                  at_most("strength_correlation", 0.5, over="mean", within=(-1.0, 1.0)),
                  at_most("type_correlation", 0.35, of="own-prior", over="mean")],
              reason="Types of penalised couplings beyond a threshold are as alike between states: that states share types is "
              "to be seen without a prior that says so."),
        Claim("O9", "one-hot is ahead of Gaussian, Gaussian of free couplings, and one-hot of free in states", kind="paper",
              where="synthetic study", ablation="own-prior", null="penalised", seeds=10, checks=[
                  at_most("error", {"paper": 0.0}, minus="gaussian"),
                  at_most("error", {"paper": 0.0}, of="gaussian", minus="free"),
                  at_least("log_likelihood", {"paper": 0.0}, minus="gaussian"),
                  at_least("log_likelihood", {"paper": 0.0}, of="gaussian", minus="free"),
                  at_least("state_accuracy", {"paper": 0.0}, minus="free")]),
    ],
    cost=15.0,
)  # fmt: skip
def synthetic_study(config: Synthetic, key, log: Log) -> Report:
    """Likelihood, couplings, types and states of generated data, one-hot couplings against the others."""
    rng = generator(key)
    system = synthetic(config.states, config.neurons, rng)
    states = system.states(config.bins, config.train + config.test, rng)
    true_types = np.sign(system.weights).astype(int)
    x = system.counts(states, rng)
    train, test, truth = x[: config.train], x[config.train :], list(states[config.train :])
    fits = _candidates(config, train, int(rng.integers(2**31)), log) | {"oracle": _oracle(system)}
    rates = train.mean(axis=(0, 1))
    arms: dict[str, dict[str, float]] = {"none": {"type_accuracy": float((off_diagonal(true_types) == 0).mean())}}
    arrays: dict[str, np.ndarray] = {"true_states": states[config.train], "true_weights": system.weights}
    for name, model in fits.items():
        probable = list(model.predict_proba(test))
        order = aligned_states(truth, probable, config.states)
        types, right = _types_of(model, true_types[np.argsort(order)])
        score = model.score(test)
        row = {
            "log_likelihood": score,
            "bits_per_spike": bits_per_spike(score * test[..., 0].size, list(test), rates),
            "error": weight_error(system.weights, model.weights_, order),
            "state_accuracy": state_accuracy(truth, probable, order),
            "type_accuracy": right,
            "thresholded_accuracy": right,
        }
        if name != "oracle":
            row["type_correlation"] = correlation_of_states(np.eye(3)[types + 1])
            row["strength_correlation"] = correlation_of_states(np.abs(model.weights_))
        if model.weights == "onehot":
            row["type_accuracy"] = float((off_diagonal(model.types_[order]) == off_diagonal(true_types)).mean())
            row["type_correlation"] = correlation_of_states(model.type_probs_)
            row["strength_correlation"] = correlation_of_states(model.strengths_)
        if name == "system":
            hard = model.hardened(train)
            row |= {"hard_log_likelihood": hard.score(test), "hard_error": weight_error(system.weights, hard.weights_, order)}
        arms[name] = row
        if name in ("system", "free", "penalised"):
            arrays |= {
                f"weights_{name}": model.weights_[order],
                f"states_{name}": np.argsort(order)[probable[0].argmax(axis=1)],
            }
    for row in arms.values():
        if "error" in row:
            row["error_over_free"] = row["error"] / arms["free"]["error"]
    return Report(arms=arms, arrays=arrays)


NAMES = {"oracle": "truth", "free": "free", "gaussian": "Gaussian", "penalised": "penalised", "own-prior": "own prior",
         "system": "one-hot"}  # fmt: skip


@synthetic_study.figure
def couplings(runs: Runs):
    """True and fitted couplings of each state; rows are targets."""
    data = runs["system"].arrays
    rows = ("true", "free", "penalised", "system")
    states = len(data["true_weights"])
    fig, axes = figure(states, len(rows), width=2.4, height=2.2)
    for row, line in zip(rows, np.reshape(axes, (len(rows), states)), strict=True):
        for s, axis in enumerate(line):
            image = axis.imshow(
                data["true_weights" if row == "true" else f"weights_{row}"][s], cmap="seismic", vmin=-1.4, vmax=1.4
            )
            label(axis, "source", "target", f"{NAMES.get(row, row)}, state {s + 1}")
    fig.colorbar(image, ax=axes, label="coupling", shrink=0.5)
    return fig


@synthetic_study.figure
def state_paths(runs: Runs):
    """The states of a test sequence, and what each model says of them."""
    data = runs["system"].arrays
    rows = {"true": data["true_states"], "free": data["states_free"], "one-hot": data["states_system"]}
    fig, axis = figure(width=7.5, height=2.0)
    axis.imshow(np.stack(list(rows.values())), aspect="auto", cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
    axis.set_yticks(range(len(rows)), list(rows))
    label(axis, "bin", "states by")
    return fig


@synthetic_study.figure
def scores(runs: Runs):
    """Errors, likelihood, states and types of all models."""
    arms = runs["system"].arms
    shown = {
        "error": "mean error of couplings",
        "log_likelihood": "held-out log-likelihood (nats a bin)",
        "state_accuracy": "bins in the right state",
        "type_accuracy": "types right",
    }
    fig, axes = figure(len(shown), width=3.4)
    for axis, (metric, title) in zip(axes, shown.items(), strict=True):
        colours = [SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in NAMES]
        axis.scatter(range(len(NAMES)), [arms[name][metric] for name in NAMES], c=colours, s=60)
        axis.set_xticks(range(len(NAMES)), list(NAMES.values()), rotation=60, fontsize="small")
        label(axis, "model", title)
    return fig


@dataclass(frozen=True)
class Scarce:
    """A synthetic data set with few training sequences, and with many."""

    states: int = 3
    neurons: int = 10
    bins: int = 1000
    train: int = 5
    many: int = 50
    test: int = 20
    restarts: int = 2
    rounds: int = 20
    lassos: tuple[float, ...] = (3.0, 5.6, 10.0, 18.0)
    ridges: tuple[float, ...] = (5.6, 18.0)


@paper.experiment(
    presets={
        "smoke": Scarce(2, 3, 80, 2, 2, 2, 1, 2, (3.0,), ()),
        "quick": Scarce(),
        "paper": Scarce(5, 20, 2000, 5, 50, 20, 3, 20),
    },
    claims=[
        Claim("O6", "with few data one-hot couplings predict better than free ones, the truth better; more data close the gap",
              kind="paper", where="synthetic study", ablation="own-prior", null="penalised", seeds=8, checks=[
                  at_least("below_truth", 0.0, over="mean"), at_least("log_likelihood", 0.0, minus="free"),
                  at_most("gap_left", 0.25, of="free", over="mean")],
              reason="Types without a shared prior, and an L1 penalty chosen by held-out trials, predict better than free "
              "couplings as well; the penalty better than one-hot types on most seeds."),
    ],
    cost=12.0,
)  # fmt: skip
def scarce(config: Scarce, key, log: Log) -> Report:
    """Held-out log-likelihood after few sequences and after many."""
    rng = generator(key)
    system = synthetic(config.states, config.neurons, rng)
    x = system.counts(system.states(config.bins, config.many + config.test, rng), rng)
    many, test = x[: config.many], x[config.many :]
    fits = _candidates(config, many[: config.train], int(rng.integers(2**31)), log, gaussian=False)
    truth = _oracle(system).score(test)
    arms = {name: {"log_likelihood": score, "below_truth": truth - score} for name, score in
            ((name, model.score(test)) for name, model in fits.items())}  # fmt: skip
    later = HMMGLM(config.states, link="sigmoid", restarts=1).fit(many, start=fits["free"])
    arms["free"]["gap_left"] = (truth - later.score(test)) / arms["free"]["below_truth"]
    arms["oracle"] = {"log_likelihood": truth}
    return Report(arms=arms, arrays={"below": np.array([arms[name]["below_truth"] for name in fits])})


@scarce.figure
def gaps(runs: Runs):
    """How far below the truth each model predicts after few sequences."""
    arms = runs["system"].arms
    names = [name for name in NAMES if name in arms and name != "oracle"]
    fig, axis = figure()
    colours = [SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in names]
    axis.bar(range(len(names)), [arms[name]["below_truth"] for name in names], color=colours)
    axis.axhline(arms["free"]["gap_left"] * arms["free"]["below_truth"], color="k", lw=0.8, label="free, many sequences")
    axis.set_xticks(range(len(names)), [NAMES[name] for name in names], rotation=45)
    label(axis, "model", "below the truth (nats a bin)")
    return fig


@dataclass(frozen=True)
class Dynamics:
    """A synthetic data set whose states follow the chain, and one whose states are drawn anew in each bin."""

    states: int = 3
    neurons: int = 10
    bins: int = 1000
    train: int = 10
    test: int = 10
    restarts: int = 2


@paper.experiment(
    presets={"smoke": Dynamics(2, 3, 80, 2, 2, 1), "quick": Dynamics(), "paper": Dynamics(5, 20, 2000, 30, 20, 3)},
    claims=[
        Claim("O8", "several states predict better than one, where states last", kind="paper", where="model",
              ablation="shuffled", null="rates-only", checks=[at_least("gain", 0.05), at_most("gain", 1e-3, of="shuffled")],
              reason="States drawn anew in each bin are still several: on some seeds EM finds part of that mixture in ten "
              "sequences, and gains up to 0.02 nats a bin without any dynamics."),
    ],
    cost=10.0,
)  # fmt: skip
def dynamics(config: Dynamics, key, log: Log) -> Report:
    """What several states gain over one, held out: with the chain, with states shuffled over bins, and with rates alone."""
    rng = generator(key)
    system = synthetic(config.states, config.neurons, rng)
    lasting = system.states(config.bins, config.train + config.test, rng)
    common: dict[str, Any] = {"link": "sigmoid", "restarts": config.restarts, "random_state": 0}
    arms: dict[str, dict[str, float]] = {}
    for arm, states in (("system", lasting), ("shuffled", rng.permuted(lasting.ravel()).reshape(lasting.shape))):
        x = system.counts(states, rng)
        train, test = x[: config.train], x[config.train :]
        one = HMMGLM(1, **common).fit(train).score(test)
        several = HMMGLM(config.states, **common).fit(train).score(test)
        arms[arm] = {"gain": several - one, "log_likelihood": several, "one_state": one, "truth": _oracle(system).score(test)}
        log.progress(0.45 * (1 + (arm != "system")))
        if arm == "system":  # couplings are held at 0, states have rates of their own: a Poisson HMM
            rates = HMMGLM(config.states, **common, share_bias=False, penalty=1e7).fit(train).score(test)
            arms["rates-only"] = {"gain": rates - one, "log_likelihood": rates}
    return Report(arms=arms, arrays={"gains": np.array([arms[name]["gain"] for name in ("system", "shuffled", "rates-only")])})


@dynamics.figure
def gains(runs: Runs):
    """Gain of several states over one."""
    fig, axis = figure()
    axis.bar(range(3), runs["system"].arrays["gains"], color=[SYSTEM_COLOUR, CONTROL_COLOUR, CONTROL_COLOUR])
    axis.axhline(0.0, color="k", lw=0.6)
    axis.set_xticks(range(3), ["coupled states", "states shuffled", "rates only"])
    label(axis, "model or data", "held-out gain over one state (nats a bin)")
    return fig


@dataclass(frozen=True)
class Maze:
    """Prefrontal neurons of a rat in a maze, or a generated stand-in."""

    source: Literal["generator", "pfc-6"] = "generator"
    data: str | None = None  # the folder of a session of CRCNS pfc-6
    trials: int = 24
    bins: int = 300  # of 20 ms; the paper's window is 15 s
    neurons: int = 12
    states: tuple[int, ...] = (1, 2, 4)
    drawn: int = 4  # states of the model whose states are shown, fitted without the first block of trials
    folds: int = 2
    restarts: int = 1


@paper.experiment(
    presets={
        "smoke": Maze(trials=4, bins=80, neurons=3, states=(1, 2), drawn=2),
        "quick": Maze(),
        "paper": Maze("pfc-6", trials=54, bins=750, neurons=18, states=(1, 2, 3, 4, 5, 6), folds=6, restarts=3),
    },
    cost=10.0,
)
def maze(config: Maze, key, log: Log) -> Report:
    """Likelihood of held-out trials against the number of states, and which states are visited around the choice."""
    rng = generator(key)
    if config.source == "generator":
        task = rule_task(config.trials, config.bins, config.neurons, rng)
        x, choice = task.counts, task.choice
    else:
        session = read_prefrontal(config.data or "200104")
        spikes, trials = session.units(), session.trials
        if trials is None:
            raise MissingDataError(f"{session.name} has no table of trials (…_Behavior.dat) beside its spikes.")
        x = counts_around(spikes, trials.start, 5.0, 0.02 * config.bins - 5.0, 0.02)
        choice = np.minimum(((trials.stop - trials.start + 5.0) / 0.02).astype(int), config.bins - 1)
    blocks = np.array_split(np.arange(len(x)), config.folds)  # trials that follow each other are held out together
    common: dict[str, Any] = {"share_bias": False, "restarts": config.restarts, "penalty": 10.0, "random_state": 0}
    curves: dict[str, list[float]] = {"one-hot": [], "free": []}
    bits, probable = [], np.empty(0)
    for states in config.states:
        found: dict[str, list[float]] = {name: [] for name in curves if states > 1 or name == "free"}
        for held in blocks:
            train, test = np.delete(x, held, axis=0), x[held]
            free = HMMGLM(states, **common).fit(train)
            found["free"].append(free.score(test))
            if states == 1:
                continue
            onehot = HMMGLM(states, weights="onehot", **common).fit(train, start=free)
            found["one-hot"].append(onehot.score(test))
            if states == config.drawn and held[0] == 0:
                probable = onehot.predict_proba(x)
            bits.append(bits_per_spike(found["one-hot"][-1] * test[..., 0].size, list(test), train.mean(axis=(0, 1)) + 1e-6))
        for name, values in found.items():
            curves[name].append(float(np.mean(values)))
        log.progress(len(curves["free"]) / len(config.states))
    around = np.arange(-min(100, choice.min()), min(150, config.bins - choice.max()))
    occupancy = np.stack(
        [each[at + around] for each, at in zip(probable, choice, strict=True)]  # type: ignore[index]
    ).mean(axis=0)
    best, several = curves["one-hot"], [states for states in config.states if states > 1]
    return Report(
        metrics={"gain_over_one_state": max(best) - curves["free"][0], "best_states": several[int(np.argmax(best))],
                 "bits_per_spike": max(np.mean(np.split(np.array(bits), len(several)), axis=1))},
        arrays={"states": np.array(config.states), **{f"score_{name}": np.array(each) for name, each in curves.items()},
                "time": around * 0.02, "occupancy": occupancy},
    )  # fmt: skip


@maze.figure
def number_of_states(runs: Runs):
    """Likelihood against the number of states, and the states around the choice."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for name, colour in (("one-hot", SYSTEM_COLOUR), ("free", CONTROL_COLOUR)):
        left.plot(data["states"][-len(data[f"score_{name}"]) :], data[f"score_{name}"], "o-", color=colour, label=name)
    label(left, "states", "held-out log-likelihood (nats a bin)")
    right.stackplot(
        data["time"], data["occupancy"].T, colors=COLOURS, labels=[f"state {s + 1}" for s in range(len(data["occupancy"].T))]
    )
    right.axvline(0.0, color="k", lw=0.8)
    right.set_ylim(0, 1)
    label(right, "time from the choice (s)", "probability of the states", legend=False)
    right.legend(
        frameon=False, fontsize="x-small", ncols=len(data["occupancy"].T), loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return fig


@dataclass(frozen=True)
class Scaling:
    """Sizes at which an iteration of EM is timed."""

    neurons: tuple[int, ...] = (10, 30, 100)
    bins: tuple[int, ...] = (1000, 16_000)
    states: int = 3
    iterations: int = 3


@paper.experiment(
    presets={
        "smoke": Scaling((3, 34), (400, 800), 2, 2),
        "quick": Scaling(),
        "paper": Scaling((10, 30, 100, 300, 1000), (10_000, 100_000, 1_000_000), iterations=10),
    },
    cost=8.0,
)
def scaling(config: Scaling, key, log: Log) -> Report:
    """Seconds of an iteration of EM against bins (with the fewest neurons) and against neurons (with the fewest bins)."""
    rng = generator(key)
    cases = [(bins, config.neurons[0]) for bins in config.bins] + [(config.bins[0], neurons) for neurons in config.neurons[1:]]
    seconds = {}
    for bins, neurons in cases:
        x = rng.poisson(0.3, (bins, neurons))
        stamps: list[float] = []
        model = HMMGLM(config.states, restarts=1, max_iter=config.iterations, tol=0.0, random_state=0)
        model.fit(x)  # compiles
        with log.alone():
            model.fit(x, report=lambda share, objective, stamps=stamps: stamps.append(time.perf_counter()))
        seconds[bins, neurons] = float(np.min(np.diff(stamps)))
        log.progress(len(seconds) / len(cases))
    of_bins = np.array([seconds[bins, config.neurons[0]] for bins in config.bins])
    of_neurons = np.array([seconds[config.bins[0], neurons] for neurons in config.neurons])
    return Report(
        metrics={"power_of_bins": _power(config.bins, of_bins), "power_of_neurons": _power(config.neurons, of_neurons)},
        arrays={
            "bins": np.array(config.bins),
            "neurons": np.array(config.neurons),
            "of_bins": of_bins,
            "of_neurons": of_neurons,
        },
    )


def _power(x: Any, y: np.ndarray) -> float:
    """The slope of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@scaling.figure
def cost(runs: Runs):
    """Time of an iteration against bins and against neurons."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    for axis, x, power, name in ((left, "bins", 1, "bins"), (right, "neurons", 2, "neurons")):
        y = data[f"of_{x}"]
        axis.loglog(data[x], y, "o-", color=SYSTEM_COLOUR, label="measured")
        axis.loglog(
            data[x], y[-1] * (data[x] / data[x][-1]) ** power, color=CONTROL_COLOUR, label=f"{name} to the power {power}"
        )
        label(axis, name, "an iteration of EM (s)")
    return fig
