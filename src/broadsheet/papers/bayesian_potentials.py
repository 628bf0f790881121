"""Scalable Bayesian uncertainty for network potentials, arXiv 2212.07959.

Weights of a force-matched potential are sampled by preconditioned Langevin dynamics, and the spread of the samples is the
uncertainty of what they predict. Controls: the preconditioner left to follow the gradient, a single chain, a model too poor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.atoms.dumbbells import DumbbellFluid, coarse_frames, read_coarse
from broadsheet.atoms.motion import simulate
from broadsheet.atoms.observables import angular_distribution, radial_distribution
from broadsheet.atoms.pair import Repulsion
from broadsheet.atoms.posterior import (
    DeepEnsemble,
    ForceMatchingPosterior,
    MinibatchDensity,
    Sample,
    coverage,
    propagate,
    sample_chains,
    summarised,
)
from broadsheet.atoms.potential import SumPotential
from broadsheet.atoms.potentials.pairnet import PairConfig, PairNet
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, figure, label
from broadsheet.numerics import generator

paper = Paper(
    slug="bayesian-potentials",
    arxiv="2212.07959",
    title="Scalable Bayesian Uncertainty Quantification for Neural Network Potentials: Promise and Pitfalls",
    published="2022-12-15",
    authors=3,
    basis="code",
    code="github.com/tummfm/jax-sgmc and tummfm/chemtrain (Apache-2.0)",
    summary="A network potential gives a number where it knows nothing, without a warning. Here its weights are a posterior, "
    "sampled by stochastic-gradient Langevin chains, and what molecular dynamics computes gets an interval: several chains, "
    "cold posteriors and deep ensembles side by side, on systems where truth and noise are known.",
    topics=("interatomic potentials", "uncertainty", "stochastic-gradient MCMC"),
    parts=("broadsheet.atoms.ForceMatchingPosterior", "broadsheet.atoms.sample_chains", "broadsheet.atoms.DeepEnsemble"),
    verbs=("broadsheet atoms md STRUCTURES.xyz --potential MODEL",),
    notes=(
        "The authors' preconditioner follows the gradient for ever and leaves out the term that mends it: on a normal target "
        "the variance is up to twice too large. Ours stays as it is after the burn-in; theirs is the control.",
        "The paper's water and alanine dipeptide were not reproduced: the trajectories do not ship. A fluid of dumbbells, "
        "whose coarse forces have known noise, stands in; water in the authors' three files is read by --data. Alanine needs "
        "bonded terms, which are not built.",
    ),
)


@dataclass(frozen=True)
class Normal:
    """One normal law per chain coordinate."""

    deviation: float = 0.1
    step: float = 1e-3  # of plain SGLD; a tenth of the deviation's square
    scaled_step: float = 1e-2  # of the preconditioned chain, whose G is about the deviation
    steps: int = 20_000
    chains: int = 64


@paper.experiment(
    presets={"smoke": Normal(steps=400, chains=2), "quick": Normal(), "paper": Normal(steps=200_000, chains=256)},
    precision="float64",
    claims=[
        Claim("C1", "chains with a frozen preconditioner have the variance of the target", kind="check",
              reference="variance / (1 - eps G / (2 variance)), exact for a normal target; control: the preconditioner "
                        "follows the gradient",
              ablation="live", checks=[at_most("variance_error", {"quick": 0.05}),
                                      at_most("variance_error", {"quick": 0.05}, of="plain"),
                                      at_least("variance_ratio", {"quick": 1.4}, of="live")]),
    ],
    cost=4.0,
)  # fmt: skip
def normal(config: Normal, key, log: Log) -> Report:
    """Variance of the samples over the target's, for plain, frozen and live chains."""
    sd = config.deviation
    arms, arrays = {}, {}
    kinds: dict[str, dict[str, Any]] = {
        "system": {"step": config.scaled_step, "alpha": 0.999, "freeze": True},
        "plain": {"step": config.step, "preconditioned": False},
        "live": {"step": config.scaled_step / 2, "alpha": 0.9, "freeze": False},
    }
    starts = sd * jax.random.normal(jax.random.fold_in(key, 1), (config.chains,))
    for k, (name, options) in enumerate(kinds.items()):
        burn = config.steps // 5
        found = np.asarray(sample_chains(
            lambda sample, data, key: -(sample**2) / (2 * data**2), starts, jnp.asarray(sd), steps=config.steps, burn_in=burn,
            keep=(config.steps - burn) // 10, key=jax.random.fold_in(key, 10 + k), **options,
        ))  # fmt: skip
        size = options["step"] * (sd if name == "system" else 1.0)
        wanted = 1 / (1 - size / (2 * sd**2))
        ratio = float((found**2).mean() / sd**2)
        arms[name] = {"variance_ratio": ratio, "variance_error": abs(ratio / (wanted if name != "live" else 1.0) - 1)}
        arrays[name] = found.ravel()[:: max(1, found.size // 5000)]
        log.progress((k + 1) / len(kinds))
    return Report(arms=arms, arrays=arrays)


@normal.figure
def laws(runs: Runs):
    """Samples against the law they should have."""
    fig, axis = figure()
    data = runs["system"].arrays
    bins = np.linspace(-0.5, 0.5, 81)
    for name, colour, text in (
        ("live", CONTROL_COLOUR, "follows the gradient"),
        ("system", COLOURS[0], "frozen"),
        ("plain", COLOURS[2], "plain SGLD"),
    ):
        axis.hist(data[name], bins, density=True, histtype="step", color=colour, label=text)
    axis.plot(bins, np.exp(-(bins**2) / 0.02) / np.sqrt(0.02 * np.pi), color="0.3", lw=1, label="target")
    label(axis, "coordinate", "density")
    return fig


# U(x, y) = 5 (x^2 - 1)^2 + k/2 (y - x/2)^2 at kT = 1; x is the coarse variable: its mean force is -20 x (x^2 - 1) exactly, and
# what y adds is normal noise of deviation sqrt(k) / 2.
STIFFNESS = 100.0
NOISE = float(np.sqrt(STIFFNESS) / 2)


def toy_frames(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, force on x) of independent frames."""
    grid = np.linspace(-2.5, 2.5, 20_001)
    weights = np.cumsum(np.exp(-5 * (grid**2 - 1) ** 2))
    x = np.interp(rng.random(count), weights / weights[-1], grid)
    y = 0.5 * x + rng.standard_normal(count) / np.sqrt(STIFFNESS)
    return x, mean_force(x) + 0.5 * STIFFNESS * (y - 0.5 * x)


def mean_force(x: np.ndarray) -> np.ndarray:
    """Exact."""
    return -20 * x * (x**2 - 1)


def mean_potential(x: np.ndarray) -> np.ndarray:
    """Exact, kT = 1."""
    return 5 * (x**2 - 1) ** 2


@dataclass(frozen=True)
class Linear:
    """Forces linear in the weights: what the exact posterior is, is known."""

    frames: int = 1000
    degrees: int = 6
    chains: int = 8
    steps: int = 40_000
    step: float = 1e-2
    amounts: tuple[int, ...] = (100, 300, 1000, 3000)


def _features(rng: np.random.Generator, config: Linear):
    """Polynomials orthonormal under the data, as a function of x."""
    x, _ = toy_frames(rng, 20_000)
    triangle = np.linalg.qr(np.vander(x, config.degrees, increasing=True))[1] / np.sqrt(len(x))
    return lambda x: np.linalg.solve(triangle.T, np.vander(x, config.degrees, increasing=True).T).T


GUESS = 2.0
"""Where chains start to look for the noise, in units of the true one."""


def _linear_forces(weights, features):
    return features @ weights


def _linear_chains(
    config: Linear, features: np.ndarray, forces: np.ndarray, key, *, step=None, temperature=1.0, batch=None, freeze=True
):
    posterior = ForceMatchingPosterior(_linear_forces, prior_scale=50.0, force_scale=GUESS * NOISE)
    density = MinibatchDensity(posterior, batch)
    fitted = np.linalg.lstsq(features, forces, rcond=None)[0]
    starts = Sample(jnp.tile(fitted, (config.chains, 1)), jnp.zeros(config.chains))
    return sample_chains(
        density, starts, (jnp.asarray(features), jnp.asarray(forces)), steps=config.steps, burn_in=config.steps // 5,
        keep=config.steps // 50, key=key, step=config.step if step is None else step, alpha=0.999 if freeze else 0.9,
        freeze=freeze, temperature=temperature,
    )  # fmt: skip


def _exact(features: np.ndarray, forces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviations of the exact posterior at the true noise."""
    precision = features.T @ features / NOISE**2 + np.eye(features.shape[1]) / 50.0**2
    covariance = np.linalg.inv(precision)
    return covariance @ features.T @ forces / NOISE**2, np.sqrt(np.diag(covariance))


@paper.experiment(
    presets={"smoke": Linear(frames=50, steps=200, chains=2, amounts=(20, 40)), "quick": Linear(),
             "paper": Linear(steps=400_000)},
    precision="float64",
    claims=[
        Claim("C2", "chains have the mean and the deviations of the exact regression", kind="check",
              reference="closed form of Bayesian linear regression; control: the preconditioner follows the gradient",
              ablation="live",
              checks=[at_most("mean_error", {"quick": 0.1}), at_most("deviation_error", {"quick": 0.15})]),
        Claim("C3", "the sampled noise is that of the coarse forces", kind="paper", where="abstract: aleatoric uncertainty",
              ablation="unsampled", null=NONE_YET, grows="steps", checks=[at_most("noise_error", {"quick": 0.05})]),
        Claim("C5", "epistemic spread falls as one over the root of the data, aleatoric spread stays", kind="paper",
              where="abstract: aleatoric and epistemic uncertainty", ablation="aleatoric", null=NONE_YET, grows="steps",
              checks=[equals("slope", {"quick": -0.5}, 0.1)]),
    ],
    cost=8.0,
)  # fmt: skip
def regression(config: Linear, key, log: Log) -> Report:
    """Posterior of a linear force model against its closed form, its noise, and its spread against the amount of data."""
    rng = generator(key)
    basis = _features(rng, config)
    x, forces = toy_frames(rng, config.frames)
    features = basis(x)
    mean, deviation = _exact(features, forces)
    arms: dict[str, dict[str, float]] = {}
    for name, options in (("system", {}), ("live", {"freeze": False, "step": config.step / 10})):
        found = _linear_chains(config, features, forces, key, **options)
        weights = np.asarray(found.weights).reshape(-1, config.degrees)
        noise = GUESS * float(np.exp(np.asarray(found.log_noise)).mean())
        arms[name] = {
            "mean_error": float(np.abs((weights.mean(axis=0) - mean) / deviation).max()),
            "deviation_error": float(np.abs(weights.std(axis=0) / deviation - 1).max()),
            "noise_error": abs(noise - 1),
        }
    arms["unsampled"] = {"noise_error": abs(GUESS - 1)}  # the noise left where the chains start
    log.progress(0.5)
    spreads, noises = [], []
    for amount in config.amounts:
        x, forces = toy_frames(rng, amount)
        found = _linear_chains(config, basis(x), forces, jax.random.fold_in(key, amount))
        spreads.append(np.asarray(found.weights).reshape(-1, config.degrees).std(axis=0).mean())
        noises.append(GUESS * np.exp(np.asarray(found.log_noise)).mean())
    arms["system"]["slope"] = float(np.polyfit(np.log(config.amounts), np.log(spreads), 1)[0])
    arms["aleatoric"] = {"slope": float(np.polyfit(np.log(config.amounts), np.log(noises), 1)[0])}
    return Report(
        arms=arms, arrays={"amounts": np.array(config.amounts), "spread": np.array(spreads), "noise": NOISE * np.array(noises)}
    )


@regression.figure
def sources(runs: Runs):
    """Spread of the weights, and the noise, against the amount of data."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.loglog(data["amounts"], data["spread"], "o-", color=COLOURS[0], label="epistemic: spread of weights")
    axis.loglog(data["amounts"], data["noise"], "o-", color=CONTROL_COLOUR, label="aleatoric: noise of forces")
    label(axis, "frames", "deviation (kT per unit of length)")
    return fig


@dataclass(frozen=True)
class Toy:
    """A network potential of one coarse coordinate."""

    frames: int = 400
    hidden: int = 16
    chains: int = 4
    steps: int = 4000
    keep: int = 10
    fit_steps: int = 2000
    step: float = 1e-4
    temperature: float = 1.0
    prior_scale: float = 1.0
    poor: bool = False  # a harmonic potential instead of a network


def _network(config: Toy, key):
    if config.poor:
        return {"harmonic": jax.random.normal(key, (2,))}
    return eqx.partition(eqx.nn.MLP("scalar", "scalar", config.hidden, 2, jax.nn.silu, key=key), eqx.is_array)[0]


def _potential(config: Toy, weights, x):
    """Energy at x, in units of 10 kT."""
    if config.poor:
        return 10 * (weights["harmonic"][0] * x**2 + weights["harmonic"][1] * x)
    skeleton = eqx.filter_eval_shape(eqx.nn.MLP, "scalar", "scalar", config.hidden, 2, jax.nn.silu, key=jax.random.key(0))
    static = eqx.partition(skeleton, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))[1]
    return 10 * eqx.combine(weights, static)(x)


def _toy_forces(config: Toy, weights, x):
    return -jax.vmap(jax.grad(partial(_potential, config, weights)))(x)


@dataclass(frozen=True)
class _Predict:
    """Forces by networks of one form; equal ones share what is compiled."""

    hidden: int
    poor: bool

    def __call__(self, weights, x):
        return _toy_forces(Toy(hidden=self.hidden, poor=self.poor), weights, x)


def _toy_posteriors(
    config: Toy, temperatures: Sequence[float], x: np.ndarray, forces: np.ndarray, key
) -> tuple[DeepEnsemble, list[Sample]]:
    """Members trained each from its own start, and chains that go on from them, at each temperature."""
    predict = _Predict(config.hidden, config.poor)
    keys = jax.random.split(key, config.chains + 2)
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[_network(config, k) for k in keys[2:]])
    data = jnp.asarray(x, jnp.float32), jnp.asarray(forces, jnp.float32)
    ensemble = DeepEnsemble.fit(predict, starts, data, steps=config.fit_steps, key=keys[0], learning_rate=1e-2)
    posterior = ForceMatchingPosterior(predict, prior_scale=config.prior_scale, force_scale=NOISE)
    first = Sample(ensemble.weights, jnp.log(jnp.asarray(ensemble.noise) / NOISE))
    return ensemble, [
        sample_chains(
            MinibatchDensity(posterior, None), first, data, steps=config.steps, burn_in=config.steps // 4, keep=config.keep,
            key=keys[1], step=config.step, alpha=0.99, temperature=temperature,
        )
        for temperature in temperatures
    ]  # fmt: skip


def _curves(config: Toy, members, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(potentials of mean zero, forces) of stacked members on a grid."""
    energies, forces = _on_grid(config.hidden, config.poor, members, jnp.asarray(grid, jnp.float32))
    return np.asarray(energies, float), np.asarray(forces, float)


@eqx.filter_jit
def _on_grid(hidden: int, poor: bool, members, x):
    form = Toy(hidden=hidden, poor=poor)

    def one(member):
        energy = jax.vmap(partial(_potential, form, member))(x)
        return energy - energy.mean(), _toy_forces(form, member, x)

    return jax.vmap(one)(members)


def _merged(weights):
    """(chains, kept, ...) as one axis."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), weights)


GRID = np.linspace(-1.4, 1.4, 57)
FAR = np.linspace(2.0, 2.6, 13)


@paper.experiment(
    presets={"smoke": Toy(frames=40, steps=40, fit_steps=20, chains=2, keep=2), "quick": Toy(),
             "paper": Toy(frames=2000, hidden=64, chains=8, steps=200_000, keep=8, fit_steps=20_000)},
    variants={"poor": {"poor": True}},
    claims=[
        Claim("C4", "several chains cover the mean potential, where one chain of as many samples is too sure", kind="paper",
              where="abstract: multiple Markov chains are needed", ablation="single", null=NONE_YET, grows="steps", checks=[
                  at_least("coverage", 0.85), at_least("log_spread", {"quick": 0.1}, minus="single", over="each")],
              reason="With this network of one coordinate a single long chain wanders as far as four short ones, so that its "
              "spread is no smaller; and on one seed of three the potential of mean force is off by a step between the wells, "
              "where there are hardly any data, and its bands miss it."),
        Claim("C8", "what the model cannot express is not covered, though the spread is small", kind="paper",
              where="abstract: not systematic uncertainty", about="poor", ablation="system", null=NONE_YET, grows="steps",
              checks=[
                  at_most("coverage", 0.5, of="poor"),
                  at_most("log_spread", {"quick": 0.0}, of="poor", minus="system", over="each")]),
        Claim("C9", "far from data the spread grows", kind="paper", where="introduction: outside the training domain",
              ablation="poor", null=NONE_YET, grows="steps", checks=[at_least("far_ratio", 5.0)]),
    ],
    cost=10.0,
)  # fmt: skip
def pmf(config: Toy, key, log: Log) -> Report:
    """Potential of mean force and forces with 95 % bands: chains, a single chain, an ensemble."""
    x, forces = toy_frames(generator(key), config.frames)
    truth = mean_potential(GRID) - mean_potential(GRID).mean()
    ensemble, (chains,) = _toy_posteriors(config, [config.temperature], x, forces, key)
    log.progress(0.6)
    single_config = replace(config, chains=1, steps=config.chains * config.steps, keep=config.chains * config.keep)
    _, (single,) = _toy_posteriors(single_config, [config.temperature], x, forces, jax.random.fold_in(key, 1))
    samples = {"": _merged(chains.weights), "single": _merged(single.weights), "ensemble": ensemble.weights}
    arms, arrays = {}, {"x": GRID, "far": FAR, "truth": truth, "force_truth": mean_force(GRID)}
    for name, members in samples.items():
        energies, predicted = _curves(config, members, GRID)
        found, beyond = summarised(energies), _curves(config, members, FAR)[1].std(axis=0, ddof=1)
        inside = summarised(predicted)
        arms[name] = {
            "coverage": coverage(found.mean, found.deviation, truth),
            "log_spread": float(np.log(found.deviation.mean())),
            "far_ratio": float(beyond.mean() / inside.deviation.mean()),
        }
        label_ = name or "chains"
        arrays |= {f"{label_}_mean": found.mean, f"{label_}_deviation": found.deviation,
                   f"{label_}_force": inside.mean, f"{label_}_force_deviation": inside.deviation}  # fmt: skip
    metrics = arms.pop("")
    noise = float(np.exp(np.asarray(chains.log_noise)).mean())
    if config.poor:
        return Report(metrics=metrics | {"noise": noise}, arrays=arrays)
    return Report(arms={"system": metrics | {"noise": noise}, **arms}, arrays=arrays)


@pmf.figure
def bands(runs: Runs):
    """Potential of mean force with 95 % bands."""
    fig, axes = figure(2, width=3.6)
    data, poor = runs["system"].arrays, runs["poor"].arrays
    for axis, what, truth in ((axes[0], "", "truth"), (axes[1], "_force", "force_truth")):
        axis.plot(data["x"], data[truth], color="0.2", lw=1, label="exact")
        for source, name, colour, text in ((data, "chains", COLOURS[0], "several chains"),
                                           (data, "ensemble", COLOURS[2], "ensemble"),
                                           (poor, "chains", CONTROL_COLOUR, "model too poor")):  # fmt: skip
            mean = source[f"{name}{what or '_mean'}"] if what == "" else source[f"{name}_force"]
            spread = 1.96 * source[f"{name}_deviation" if what == "" else f"{name}_force_deviation"]
            axis.fill_between(data["x"], mean - spread, mean + spread, color=colour, alpha=0.35, label=text)
    label(axes[0], "coarse coordinate x", "potential of mean force (kT)")
    label(axes[1], "coarse coordinate x", "mean force (kT per length)", legend=False)
    return fig


@dataclass(frozen=True)
class Cold(Toy):
    """Few frames, and a posterior that is cooled."""

    frames: int = 40
    temperature: float = 0.01
    linear: Linear = Linear(frames=1000, steps=20_000)


@paper.experiment(
    presets={"smoke": Cold(steps=40, fit_steps=20, chains=2, keep=2, linear=Linear(frames=50, steps=200, chains=2)),
             "quick": Cold(),
             "paper": Cold(hidden=64, chains=8, steps=200_000)},
    claims=[
        Claim("C6", "a cold posterior is narrower by the root of its temperature, and better with few data", kind="paper",
              where="abstract: cold posteriors can reduce the required training data size", ablation="warm", null=NONE_YET,
              grows="steps", checks=[
                  equals("deviation_ratio", {"quick": 0.1}, 0.015),
                  at_most("log_rmse", {"quick": -0.02}, minus="warm", over="each")]),
    ],
    cost=10.0,
)  # fmt: skip
def cold(config: Cold, key, log: Log) -> Report:
    """Spread of the cold linear posterior over the warm one's; error of the mean force of networks with few data."""
    rng = generator(key)
    basis = _features(rng, config.linear)
    x, forces = toy_frames(rng, config.linear.frames)
    features = basis(x)
    # a cold chain's gradients are smaller and its preconditioner larger by the root of the temperature: the step makes up for
    # it
    cooled = {"temperature": config.temperature, "step": config.linear.step * np.sqrt(config.temperature)}
    spreads = {}
    for name, options in (
        ("cold", cooled),
        ("warm", {}),
        ("minibatch", cooled | {"batch": max(2, config.linear.frames // 10)}),
    ):
        found = _linear_chains(config.linear, features, forces, key, **options)
        spreads[name] = np.asarray(found.weights).reshape(-1, config.linear.degrees).std(axis=0).mean()
    log.progress(0.4)
    x, forces = toy_frames(rng, config.frames)
    test, _ = toy_frames(rng, 2000)
    rmse = {}
    _, sampled = _toy_posteriors(config, [config.temperature, 1.0], x, forces, key)
    for name, found in zip(("system", "warm"), sampled, strict=True):
        predicted = _curves(config, _merged(found.weights), test)[1]
        rmse[name] = float(np.sqrt(np.mean((predicted - mean_force(test)) ** 2)))
    return Report(arms={
        "system": {"deviation_ratio": spreads["cold"] / spreads["warm"], "log_rmse": np.log(rmse["system"])},
        "warm": {"deviation_ratio": 1.0, "log_rmse": np.log(rmse["warm"])},
        "minibatch": {"deviation_ratio": spreads["minibatch"] / spreads["warm"]},
    })  # fmt: skip


@cold.figure
def cooling(runs: Runs):
    """Spread of the linear posterior and error of networks with few data, cold over warm."""
    arms = runs["system"].arms
    fig, axes = figure(2, width=3.0)
    names, colours = ("warm", "system", "minibatch"), (CONTROL_COLOUR, COLOURS[0], COLOURS[2])
    axes[0].bar(["warm", "cold", "cold, minibatch"], [arms[name]["deviation_ratio"] for name in names], color=colours)
    axes[1].bar(["warm", "cold"], [np.exp(arms[name]["log_rmse"]) for name in names[:2]], color=colours[:2])
    label(axes[0], "posterior", "spread over that at T = 1", legend=False)
    label(axes[1], "posterior", "RMSE of the mean force (kT per length)", legend=False)
    return fig


@dataclass(frozen=True)
class Errors:
    """Frames, widths of the network and temperatures."""

    frames: tuple[int, ...] = (50, 200, 800)
    widths: tuple[int, ...] = (2, 8, 32)
    temperatures: tuple[float, ...] = (0.01, 1.0)
    toy: Toy = Toy(steps=1500, fit_steps=1000)


@paper.experiment(
    presets={"smoke": Errors(frames=(20,), widths=(2,), toy=Toy(steps=40, fit_steps=20, chains=2, keep=2)), "quick": Errors(),
             "paper": Errors(toy=Toy(chains=8, steps=100_000, fit_steps=20_000))},
    cost=20.0,
)  # fmt: skip
def sources_of_error(config: Errors, key, log: Log) -> Report:
    """Spread and true error of the mean force over data, capacity and temperature."""
    shape = (len(config.temperatures), len(config.widths), len(config.frames))
    spread, error = np.zeros(shape), np.zeros(shape)
    for k, amount in enumerate(config.frames):
        x, forces = toy_frames(generator(jax.random.fold_in(key, amount)), amount)
        for j, width in enumerate(config.widths):
            toy = replace(config.toy, hidden=width)
            for i, chains in enumerate(_toy_posteriors(toy, config.temperatures, x, forces, key)[1]):
                found = summarised(_curves(toy, _merged(chains.weights), GRID)[1])
                spread[i, j, k] = found.deviation.mean()
                error[i, j, k] = np.sqrt(np.mean((found.mean - mean_force(GRID)) ** 2))
        log.progress((k + 1) / len(config.frames))
    return Report(metrics={"spread": spread[-1].mean(), "error": error[-1].mean()},
                  arrays={"spread": spread, "error": error, "frames": np.array(config.frames),
                          "widths": np.array(config.widths)})  # fmt: skip


@sources_of_error.figure
def maps(runs: Runs):
    """Spread (top) and true error (bottom) of the mean force at the warmest temperature."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=3.2)
    for axis, name in zip(axes, ("spread", "error"), strict=True):
        image = axis.imshow(data[name][-1], cmap="viridis", norm="log", aspect="auto")
        axis.set_xticks(range(len(data["frames"])), data["frames"])
        axis.set_yticks(range(len(data["widths"])), data["widths"])
        label(axis, "frames", "width of the network", legend=False)
        fig.colorbar(image, ax=axis, label=f"{name} of the mean force")
    return fig


@dataclass(frozen=True)
class Fluid:
    """A fluid of dumbbells, seen through their centres."""

    molecules: int = 32
    frames: int = 100
    chains: int = 4
    keep: int = 2
    fit_steps: int = 500
    steps: int = 500
    batch: int = 4
    step: float = 1e-4
    md_steps: int = 1500
    dt: float = 4.0  # fs
    data: str | None = None  # a folder with conf_COM.npy, forces_COM.npy and box.npy


@paper.experiment(
    presets={"smoke": Fluid(frames=6, chains=2, keep=1, fit_steps=4, steps=10, batch=2, md_steps=20), "quick": Fluid(),
             "paper": Fluid(molecules=108, frames=10_000, batch=10, chains=8, keep=8, fit_steps=100_000, steps=200_000,
                            md_steps=500_000)},
    data="data",
    claims=[
        Claim("C7", "ensemble and chains agree on the radial distribution", kind="paper", where="abstract: comparable results",
              ablation="untrained", null=NONE_YET, grows="steps",
              checks=[at_least("agreement", {"paper": 0.9}), at_least("spread_ratio", {"paper": 0.3}),
                                           at_most("spread_ratio", {"paper": 3.0})]),
    ],
    cost=40.0,
)  # fmt: skip
def fluid(config: Fluid, key, log: Log) -> Report:
    """Radial and angular distributions of coarse dynamics with each sampled potential, against those of the full fluid."""
    keys = jax.random.split(key, 6)
    if config.data is None:
        frames = coarse_frames(DumbbellFluid(config.molecules), config.frames, keys[0])
    else:
        frames = read_coarse(config.data)
    log.progress(0.2)
    template = frames.batch(0)
    prior = Repulsion(frames.repulsion, frames.size, cutoff=frames.cutoff)
    nets = [
        SumPotential(PairNet(PairConfig(cutoff=frames.cutoff, unit=frames.unit), k), prior)
        for k in jax.random.split(keys[1], config.chains)
    ]
    pairs = [eqx.partition(net, lambda leaf: eqx.is_inexact_array(leaf) and leaf.ndim > 0) for net in nets]
    static, starts = pairs[0][1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[pair[0] for pair in pairs])
    near, inputs = frames.neighbours(nets[0])

    def predict(weights, inputs):
        def one(positions, index, shift, mask):
            batch = eqx.tree_at(lambda b: b.positions, template, positions)
            return eqx.combine(weights, static).energy_and_forces(batch, near(index, shift, mask)).forces

        return jax.vmap(one)(*inputs)

    data = inputs, jnp.asarray(frames.forces, jnp.float32)
    ensemble = DeepEnsemble.fit(
        predict, starts, data, steps=config.fit_steps, key=keys[2], batch=config.batch, learning_rate=3e-3
    )
    log.progress(0.4)
    posterior = ForceMatchingPosterior(predict, prior_scale=1.0, force_scale=float(frames.forces.std()))
    first = Sample(ensemble.weights, jnp.log(jnp.asarray(ensemble.noise) / float(frames.forces.std())))
    sampled = sample_chains(
        MinibatchDensity(posterior, config.batch), first, data, steps=config.steps, burn_in=config.steps // 2,
        keep=config.keep, key=keys[3], step=config.step, alpha=0.99,
    )  # fmt: skip
    log.progress(0.6)
    edges, angles = np.linspace(2.0, frames.lengths.min() / 2, 40), np.linspace(20, 180, 33)

    def distributions(weights) -> np.ndarray:
        made = simulate(eqx.combine(weights, static), template, steps=config.md_steps, dt=config.dt,
                        temperature=frames.temperature, friction=0.005, key=keys[4], skin=1.0,
                        every=max(1, config.md_steps // 100))  # fmt: skip
        positions = made.positions[len(made.positions) // 5 :, : frames.molecules]
        rdf = radial_distribution(positions, frames.lengths, edges)
        return np.concatenate([rdf, angular_distribution(positions[::5], frames.lengths, angles, 1.5 * frames.size)])

    def members(weights, count: int):
        return [jax.tree.map(lambda leaf: leaf[k], weights) for k in range(count)]  # noqa: B023

    groups = {"system": members(_merged(sampled.weights), config.chains * config.keep),
              "ensemble": members(ensemble.weights, config.chains), "untrained": members(starts, 2)}  # fmt: skip
    found = {name: propagate(each, distributions) for name, each in groups.items()}
    reference = frames.positions[:, : frames.molecules]
    truth = np.concatenate([radial_distribution(reference, frames.lengths, edges),
                            angular_distribution(reference, frames.lengths, angles, 1.5 * frames.size)])  # fmt: skip
    arms, arrays = {}, {"edges": edges, "angles": angles, "truth": truth}
    for name, each in found.items():
        joint = np.sqrt(each.deviation**2 + found["ensemble"].deviation ** 2)
        bins = slice(0, len(edges) - 1)
        arms[name] = {
            "agreement": float(np.mean(np.abs(each.mean - found["ensemble"].mean)[bins] <= 1.96 * joint[bins] + 1e-12)),
            "spread_ratio": float(each.deviation[bins].mean() / found["ensemble"].deviation[bins].mean()),
            "rdf_error": float(np.abs(each.mean - truth)[bins].mean()),
            "failed": float(len(each.failed)),
        }
        arrays |= {f"{name}_mean": each.mean, f"{name}_deviation": each.deviation}
    return Report(arms=arms, arrays=arrays)


@fluid.figure
def distributions(runs: Runs):
    """Radial and angular distributions of the centres with 95 % bands."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=3.6)
    split = len(data["edges"]) - 1
    for axis, edges, part in ((axes[0], data["edges"], slice(0, split)), (axes[1], data["angles"], slice(split, None))):
        centres = (edges[1:] + edges[:-1]) / 2
        axis.plot(centres, data["truth"][part], color="0.2", lw=1, label="full fluid")
        for name, colour, text in (
            ("system", COLOURS[0], "chains"),
            ("ensemble", COLOURS[2], "ensemble"),
            ("untrained", CONTROL_COLOUR, "untrained"),
        ):
            mean, spread = data[f"{name}_mean"][part], 1.96 * data[f"{name}_deviation"][part]
            axis.fill_between(centres, mean - spread, mean + spread, color=colour, alpha=0.35, label=text)
    label(axes[0], "distance (Å)", "g(r)")
    label(axes[1], "angle (degrees)", "density (1/degree)", legend=False)
    return fig
