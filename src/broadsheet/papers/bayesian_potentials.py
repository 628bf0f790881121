"""Scalable Bayesian uncertainty for network potentials, arXiv 2212.07959.

Weights of a force-matched potential are sampled by preconditioned Langevin dynamics, and the spread of the samples is the
uncertainty of what they predict. Controls: the preconditioner left to follow the gradient, a single chain, losses that are
averaged, a model too poor; and what needs no sampling: ensembles of equal budget, residuals and standard errors of least
squares, a bootstrap, constant spreads and distances to the data, all with the same calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from broadsheet.atoms.calibration import normal_nll, spread_factor
from broadsheet.atoms.dumbbells import CoarseFrames, DumbbellFluid, coarse_frames, read_coarse
from broadsheet.atoms.motion import masses_of
from broadsheet.atoms.observables import angular_distribution, radial_distribution
from broadsheet.atoms.pair import Repulsion, cosine_taper, gaussian_basis
from broadsheet.atoms.pair_dynamics import PairList, pair_dynamics, pair_forces, pair_normal_equations, pair_slopes
from broadsheet.atoms.posterior import (
    DeepEnsemble,
    ForceMatchingPosterior,
    MinibatchDensity,
    Sample,
    calibration_factor,
    coverage,
    sample_chains,
)
from broadsheet.atoms.potential import SumPotential
from broadsheet.atoms.potentials.pairnet import PairConfig, PairNet
from broadsheet.errors import InputError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
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
        "Spreads that have no scale, a constant and distances to the data, get one factor fitted to held-out frames. Others "
        "get one too, and are shown as they are and so scaled (`calibrated_coverage`, `calibrated_nll`).",
        "A low coverage alone shows no systematic error: an ensemble that is too sure has it as well. C8 asks besides that at "
        "least half of the error stays when the model learns forces without noise.",
        "C7 holds by little: one potential run again and again agrees with the ensemble to 0.89 on eight seeds, the noise of "
        "the dynamics.",
        "What short dynamics adds to the spread of a radial distribution is measured on two runs of each potential and taken "
        "away. Bins in which no pairs are count nowhere.",
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
    steps: int = 20_000
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


class AveragedDensity(eqx.Module):
    """A density in which each error counts as `share` of one; as one over their number, it is the loss of force matching."""

    posterior: ForceMatchingPosterior
    share: Array

    def __call__(self, sample: Sample, data: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        return self.posterior.log_density(sample, data, self.share)


def _linear_chains(
    config: Linear, features: np.ndarray, forces: np.ndarray, key, *, step=None, temperature=1.0, batch=None, freeze=True,
    share=1.0,
):  # fmt: skip
    posterior = ForceMatchingPosterior(_linear_forces, prior_scale=50.0, force_scale=GUESS * NOISE)
    density = AveragedDensity(posterior, jnp.asarray(share)) if batch is None else MinibatchDensity(posterior, batch)
    fitted = np.linalg.lstsq(features, forces, rcond=None)[0]
    starts = Sample(jnp.tile(fitted, (config.chains, 1)), jnp.zeros(config.chains))
    return sample_chains(
        density, starts, (jnp.asarray(features), jnp.asarray(forces)), steps=config.steps, burn_in=config.steps // 5,
        keep=config.steps // 50, key=key, step=jnp.asarray(config.step if step is None else step),
        alpha=0.999 if freeze else 0.9, freeze=freeze, temperature=temperature,
    )  # fmt: skip


def _spread_and_noise(config: Linear, found: Sample) -> tuple[float, float]:
    """(mean deviation of a weight, mean noise in units of the true one) of chains."""
    weights = np.asarray(found.weights).reshape(-1, config.degrees)
    return float(weights.std(axis=0).mean()), GUESS * float(np.exp(np.asarray(found.log_noise)).mean())


def _exact(features: np.ndarray, forces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviations of the exact posterior at the true noise."""
    precision = features.T @ features / NOISE**2 + np.eye(features.shape[1]) / 50.0**2
    covariance = np.linalg.inv(precision)
    return covariance @ features.T @ forces / NOISE**2, np.sqrt(np.diag(covariance))


def least_squares(features: np.ndarray, forces: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, their standard errors, and the deviation of the residuals, as any textbook has them."""
    weights = np.linalg.lstsq(features, forces, rcond=None)[0]
    rest = forces - features @ weights
    noise = float(np.sqrt(rest @ rest / (len(forces) - len(weights))))
    return weights, noise * np.sqrt(np.diag(np.linalg.inv(features.T @ features))), noise


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
              ablation="fixed", null="least-squares", grows="steps", seeds=8,
              checks=[at_most("noise_error", {"quick": 0.05})],
              reason="On one of eight seeds the chains err by 5.2 %, where 5 % is allowed, and the residuals of a fit by least "
              "squares by 5.1 %; on the others both err by 2.4 % at most. The residuals know the noise as well."),
        Claim("C5", "epistemic spread falls as one over the root of the data, aleatoric spread stays", kind="paper",
              where="abstract: aleatoric and epistemic uncertainty", ablation="averaged", null=("least-squares", "bootstrap"),
              grows="steps", seeds=8,
              checks=[equals("slope", {"quick": -0.5}, 0.1), equals("noise_slope", {"quick": 0.0}, 0.1)],
              reason="Standard errors of least squares fall alike, with slopes of -0.48 to -0.57 over seven development seeds "
              "for both, and the deviation of their residuals stays: a model that is linear in its weights needs no chains."),
    ],
    cost=12.0,
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
        arms[name] = {
            "mean_error": float(np.abs((weights.mean(axis=0) - mean) / deviation).max()),
            "deviation_error": float(np.abs(weights.std(axis=0) / deviation - 1).max()),
            "noise_error": abs(_spread_and_noise(config, found)[1] - 1),
        }
    arms["fixed"] = {"noise_error": abs(float(forces.std()) / NOISE - 1)}  # the scale of the forces, as one would guess it
    arms["least-squares"] = {"noise_error": abs(least_squares(features, forces)[2] / NOISE - 1)}
    log.progress(0.4)
    curves: dict[str, list[tuple[float, float]]] = {"system": [], "averaged": [], "least-squares": [], "bootstrap": []}
    for amount in config.amounts:
        x, forces = toy_frames(rng, amount)
        features, chain_key = basis(x), jax.random.fold_in(key, amount)
        for name, share in (("system", 1.0), ("averaged", config.amounts[0] / amount)):
            found = _linear_chains(config, features, forces, chain_key, share=share)
            curves[name].append(_spread_and_noise(config, found))
        _, errors, noise = least_squares(features, forces)
        curves["least-squares"].append((float(errors.mean()), noise / NOISE))
        drawn = [rng.integers(0, amount, amount) for _ in range(config.chains)]
        refits = [least_squares(features[rows], forces[rows]) for rows in drawn]
        spread = np.std([refit[0] for refit in refits], axis=0, ddof=1).mean()
        curves["bootstrap"].append((float(spread), float(np.mean([refit[2] for refit in refits])) / NOISE))
    arrays = {"amounts": np.array(config.amounts)}
    for name, rows in curves.items():
        spreads, noises = np.array(rows).T
        slope, noise_slope = (float(np.polyfit(np.log(config.amounts), np.log(part), 1)[0]) for part in (spreads, noises))
        arms.setdefault(name, {}).update(slope=slope, noise_slope=noise_slope)
        arrays |= {f"{name}_spread": spreads, f"{name}_noise": NOISE * noises}
    return Report(arms=arms, arrays=arrays)


@regression.figure
def sources(runs: Runs):
    """Spread of the weights, and the noise, against the amount of data."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=3.6)
    for name, colour, marker, text in (
        ("averaged", CONTROL_COLOUR, "s", "chains, averaged loss"),
        ("system", COLOURS[0], "o", "chains"),
        ("least-squares", COLOURS[1], "x", "least squares"),
        ("bootstrap", COLOURS[2], "+", "bootstrap"),
    ):
        for axis, part in zip(axes, ("spread", "noise"), strict=True):
            axis.loglog(data["amounts"], data[f"{name}_{part}"], marker + "-", color=colour, lw=1, label=text)
    axes[1].axhline(NOISE, color="0.2", lw=1, ls=":", label="true")
    axes[1].set_ylim(NOISE / 2, NOISE * 2)
    label(axes[0], "frames", "epistemic: spread of weights (kT per length)")
    label(axes[1], "frames", "aleatoric: noise of forces (kT per length)")
    return fig


@dataclass(frozen=True)
class Toy:
    """A network potential of one coarse coordinate."""

    frames: int = 400
    held: int = 400  # more frames, with which spreads are calibrated
    hidden: int = 16
    chains: int = 4
    steps: int = 4000
    keep: int = 10
    fit_steps: int = 2000
    step: float = 1e-4
    temperature: float = 1.0
    prior_scale: float = 1.0
    poor: bool = False  # a harmonic potential instead of a network

    @property
    def members(self) -> int:
        """Networks that an ensemble trains in the steps of all chains, of their starts included."""
        return self.chains * (self.fit_steps + self.steps) // self.fit_steps


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


class Fitted(NamedTuple):
    """Networks trained each from its own start, and the frames that they were trained on."""

    config: Toy
    ensemble: DeepEnsemble
    data: tuple[Array, Array]


def _fit(config: Toy, members: int, x: np.ndarray, forces: np.ndarray, key) -> Fitted:
    train_key, *keys = jax.random.split(key, members + 1)
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[_network(config, k) for k in keys])
    data = jnp.asarray(x, jnp.float32), jnp.asarray(forces, jnp.float32)
    predict = _Predict(config.hidden, config.poor)
    ensemble = DeepEnsemble.fit(predict, starts, data, steps=config.fit_steps, key=train_key, learning_rate=1e-2)
    return Fitted(config, ensemble, data)


def _sample(
    fitted: Fitted, chains: int, steps: int, keep: int, key, temperature: float | None = None, share: float | None = None
) -> Sample:
    """Chains that go on from the first networks; `share`: how much a row of data counts, where frames are repeated."""
    config, ensemble, data = fitted
    predict = _Predict(config.hidden, config.poor)
    posterior = ForceMatchingPosterior(predict, prior_scale=config.prior_scale, force_scale=NOISE)
    first = Sample(ensemble.weights, jnp.log(jnp.asarray(ensemble.noise) / NOISE))
    density = MinibatchDensity(posterior, None) if share is None else AveragedDensity(posterior, jnp.asarray(share))
    return sample_chains(
        density, _rows(first, slice(chains)), data, steps=steps,
        burn_in=steps // 4, keep=keep, key=key, step=config.step, alpha=0.99,
        temperature=config.temperature if temperature is None else temperature,
    )  # fmt: skip


def _curves(config: Toy, members, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(energies, forces) of stacked members."""
    energies, forces = _on_points(config.hidden, config.poor, members, jnp.asarray(x, jnp.float32))
    return np.asarray(energies, float), np.asarray(forces, float)


@eqx.filter_jit
def _on_points(hidden: int, poor: bool, members, x):
    form = Toy(hidden=hidden, poor=poor)
    return jax.vmap(lambda member: (jax.vmap(partial(_potential, form, member))(x), _toy_forces(form, member, x)))(members)


def _rows(tree, chosen: slice):
    """Some rows of the first axis of each leaf."""
    return jax.tree.map(lambda leaf: leaf[chosen], tree)


def _merged(weights):
    """(chains, kept, ...) as one axis."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), weights)


GRID = np.linspace(-1.4, 1.4, 57)
FAR = np.linspace(2.0, 2.6, 13)
LEAST_COUNT = 4
"""Frames that a bin of a histogram must have for its logarithm to be used."""


class Band(NamedTuple):
    """Mean and deviation of the potential of mean force on the grid (its mean there 0) and of forces on `points`, and the
    noise of forces. `calibrated`: deviations have no scale of their own.
    """

    potential: np.ndarray
    spread: np.ndarray
    force: np.ndarray
    force_spread: np.ndarray
    noise: float
    calibrated: bool = False


def _band(config: Toy, members, points: np.ndarray, noise: float) -> Band:
    energies, forces = _curves(config, members, points)
    energies = energies[:, : len(GRID)] - energies[:, : len(GRID)].mean(axis=1, keepdims=True)
    return Band(energies.mean(axis=0), energies.std(axis=0, ddof=1), forces.mean(axis=0), forces.std(axis=0, ddof=1), noise)


def _harmonic_band(x: np.ndarray, forces: np.ndarray, points: np.ndarray) -> Band:
    """The harmonic form by least squares, with the standard errors of its two weights, taken for independent."""
    weights, errors, noise = least_squares(-np.stack([np.ones_like(x), x], axis=1), forces)
    energies = np.stack([GRID, GRID**2 / 2], axis=1)
    energies = energies - energies.mean(axis=0)
    slopes = -np.stack([np.ones_like(points), points], axis=1)
    return Band(energies @ weights, np.sqrt(energies**2 @ errors**2), slopes @ weights, np.sqrt(slopes**2 @ errors**2), noise)


def inverted_histogram(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boltzmann inversion of frames: (bins that are used, potential there up to a constant in kT, its deviation)."""
    half = (centres[1] - centres[0]) / 2
    counts = np.histogram(x, np.append(centres - half, centres[-1] + half))[0]
    used = counts >= LEAST_COUNT
    return used, -np.log(counts[used]), 1 / np.sqrt(counts[used])


def _rank(error: np.ndarray, spread: np.ndarray) -> float:
    """Rank correlation of errors with spreads; 0 where all spreads are equal."""
    return float(spearmanr(error.ravel(), spread.ravel()).statistic) if np.ptp(spread) > 0 else 0.0


def _scores(band: Band, held: tuple[np.ndarray, np.ndarray], test_forces: np.ndarray) -> tuple[dict[str, float], float]:
    """Metrics of a band, and its factor; `held` and `test_forces` belong to the last points of its forces."""
    truth = mean_potential(GRID) - mean_potential(GRID).mean()
    used, inverted, error = inverted_histogram(held[0], GRID)
    factor = spread_factor(band.potential[used], band.spread[used], inverted, error, up_to_a_constant=True)
    inside, far = slice(0, len(GRID)), slice(len(GRID), len(GRID) + len(FAR))
    first = len(GRID) + len(FAR)
    known, unknown = slice(first, first + len(held[0])), slice(first + len(held[0]), None)
    force_factor = spread_factor(band.force[known], band.force_spread[known], held[1], band.noise)
    total = np.sqrt(band.noise**2 + (force_factor * band.force_spread[unknown]) ** 2)
    raw, force_raw = (factor, force_factor) if band.calibrated else (1.0, 1.0)
    error_inside = np.abs(band.force[inside] - mean_force(GRID))
    return {
        "coverage": coverage(band.potential, raw * band.spread, truth),
        "calibrated_coverage": coverage(band.potential, factor * band.spread, truth),
        "log_spread": float(np.log(raw * band.spread.mean())),
        "log_error": float(np.log(np.sqrt(np.mean((band.potential - truth) ** 2)))),
        "log_factor": float(np.log(factor)),
        "nll": normal_nll(band.potential, raw * band.spread, truth),
        "calibrated_nll": normal_nll(band.potential, factor * band.spread, truth),
        "force_coverage": coverage(band.force[inside], force_raw * band.force_spread[inside], mean_force(GRID)),
        "force_nll": normal_nll(band.force[unknown], total, test_forces),
        "far_ratio": float(band.force_spread[far].mean() / band.force_spread[inside].mean()),
        "far_coverage": coverage(band.force[far], force_raw * band.force_spread[far], mean_force(FAR)),
        "rank": _rank(error_inside, band.force_spread[inside]),
        "noise": band.noise / NOISE,
    }, raw  # fmt: skip


@paper.experiment(
    presets={"smoke": Toy(frames=40, held=200, steps=40, fit_steps=20, chains=2, keep=2), "quick": Toy(),
             "paper": Toy(frames=2000, held=2000, hidden=64, chains=8, steps=200_000, keep=8, fit_steps=20_000)},
    claims=[
        Claim("C4", "several chains cover the mean potential, where one chain of as many samples is too sure", kind="paper",
              where="abstract: multiple Markov chains are needed", ablation="single",
              null=("constant", "distance", "ensemble"), grows="steps", seeds=8, checks=[
                  at_least("coverage", 0.85),
                  at_least("log_spread", {"quick": 0.1}, minus="single")],
              reason="On one of eight seeds bands of four chains cover 11 % of the bins, and those of one chain 9 %; on the "
              "others all, and 91 % or more. In this network of one coordinate one chain wanders as far: the spread of four is "
              "9 % narrower than its spread (from 35 % narrower to 19 % wider). A constant spread that held-out frames set "
              "covers 99.8 %. An ensemble has a quarter of the spread, and covers 36 %."),
        Claim("C8", "what the model cannot express is not covered, though the spread is small", kind="paper",
              where="abstract: not systematic uncertainty", about="poor", ablation="as-sure",
              null=("ensemble", "least-squares"), grows="steps", seeds=8, checks=[
                  at_most("coverage", 0.5, of="poor"),
                  at_least("systematic", {"quick": 0.5}, of="poor", over="mean"),
                  at_most("log_spread", {"quick": 0.0}, of="poor", minus="system")],
              reason="It is said of any calibrated fit of a form that is too poor, and of chains no more: least squares with "
              "standard errors on the same form meet all of it."),
        Claim("C9", "far from data the spread grows", kind="paper", where="introduction: outside the training domain",
              ablation="poor", null=("distance", "ensemble"), grows="steps", seeds=8, checks=[at_least("far_ratio", 5.0)],
              reason="The spread of chains grows 3.7 times on one of eight seeds and 7 to 15 times on the others, that of an "
              "ensemble 17 to 77 times, and the distance to the nearest frame 24 to 47 times. Nor is it enough: the exact "
              "force lies outside the chains' bands at 103 of 104 points."),
    ],
    cost=12.0,
)  # fmt: skip
def pmf(config: Toy, key, log: Log) -> Report:
    """Potential of mean force and forces with 95 % bands: chains, one chain, an ensemble, spreads without a posterior."""
    rng = generator(key)
    x, forces = toy_frames(rng, config.frames)
    held, test = toy_frames(rng, config.held), toy_frames(rng, 1000)
    points = np.concatenate([GRID, FAR, held[0], test[0]])
    fit_key, chain_key, single_key = jax.random.split(key, 3)
    bands: dict[str, Band] = {}
    without_noise: dict[str, float] = {}  # what error is left where forces are exact: what the form cannot express
    for name, form in (("system", config), ("poor", replace(config, poor=True))):
        members = form.members if name == "system" else form.chains
        fitted = _fit(form, members, x, forces, fit_key)
        without_noise[name] = _error(form, _fit(form, members, x, mean_force(x), fit_key).ensemble.weights)
        found = _sample(fitted, form.chains, form.steps, form.keep, chain_key)
        bands[name] = _sampled_band(form, found, points)
        log.progress(0.3 if name == "system" else 0.6)
        if name == "system":
            one = _sample(fitted, 1, form.chains * form.steps, form.chains * form.keep, single_key)
            bands["single"] = _sampled_band(form, one, points)
            rest = float(np.sqrt(np.mean(fitted.ensemble.noise**2)))
            bands["ensemble"] = _band(form, fitted.ensemble.weights, points, rest)
    best = bands["ensemble"]
    away = np.abs(points[:, None] - x).min(axis=1)
    bands["constant"] = best._replace(spread=np.ones(len(GRID)), force_spread=np.ones(len(points)), calibrated=True)
    bands["distance"] = best._replace(spread=away[: len(GRID)], force_spread=away, calibrated=True)
    bands["least-squares"] = _harmonic_band(x, forces, points)
    bands["as-sure"] = bands["system"]._replace(spread=bands["poor"].spread, force_spread=bands["poor"].force_spread)
    arms, arrays = {}, {"x": GRID, "truth": mean_potential(GRID) - mean_potential(GRID).mean(), "force_truth": mean_force(GRID)}
    for name, band in bands.items():
        arms[name], factor = _scores(band, held, test[1])
        arms[name]["systematic"] = without_noise["poor" if name in ("poor", "least-squares") else "system"] / np.exp(
            arms[name]["log_error"]
        )
        arrays |= {f"{name}_mean": band.potential, f"{name}_deviation": factor * band.spread}
        arrays |= {f"{name}_force": band.force[: len(GRID)], f"{name}_force_deviation": band.force_spread[: len(GRID)]}
    return Report(arms=arms, arrays=arrays)


def _error(config: Toy, members) -> float:
    """RMSE of the potential of mean force by the mean of networks."""
    energies = _curves(config, members, GRID)[0].mean(axis=0)
    return float(np.std(energies - mean_potential(GRID)))


def _sampled_band(config: Toy, found: Sample, points: np.ndarray) -> Band:
    noise = NOISE * float(np.exp(np.asarray(found.log_noise)).mean())
    return _band(config, _merged(found.weights), points, noise)


@pmf.figure
def bands(runs: Runs):
    """Potential of mean force with 95 % bands."""
    fig, axes = figure(2, 2, width=3.6, height=2.6)
    data = runs["system"].arrays
    shown = (("system", "several chains"), ("single", "one chain"), ("ensemble", "ensemble"), ("constant", "constant spread"),
             ("poor", "model too poor"))  # fmt: skip
    for axis, names in ((axes[0, 0], (0, 1)), (axes[0, 1], (2, 3)), (axes[1, 0], (4,))):
        axis.plot(data["x"], data["truth"], color="0.2", lw=1, label="exact")
        for k in names:
            name, text = shown[k]
            mean, spread = data[f"{name}_mean"], 1.96 * data[f"{name}_deviation"]
            colour = CONTROL_COLOUR if name in ("single", "constant", "poor") else COLOURS[2 if name == "ensemble" else 0]
            axis.fill_between(data["x"], mean - spread, mean + spread, color=colour, alpha=0.4, label=text)
        label(axis, "coarse coordinate x", "potential of mean force (kT)")
    axes[1, 1].plot(data["x"], data["force_truth"], color="0.2", lw=1, label="exact")
    for name, colour, text in (("system", COLOURS[0], "several chains"), ("poor", CONTROL_COLOUR, "model too poor")):
        mean, spread = data[f"{name}_force"], 1.96 * data[f"{name}_force_deviation"]
        axes[1, 1].fill_between(data["x"], mean - spread, mean + spread, color=colour, alpha=0.4, label=text)
    label(axes[1, 1], "coarse coordinate x", "mean force (kT per length)", legend=False)
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
        Claim("C6", "a cold posterior predicts better with few data", kind="paper",
              where="abstract: cold posteriors can reduce the required training data size", ablation="warm",
              null=("ensemble", "optimised"), grows="steps", seeds=8,
              checks=[at_most("log_rmse", {"quick": -0.02}, minus="warm")],
              reason="Over eight seeds the cold posterior errs 16 % less than the warm one (9 to 22 %). The same steps without "
              "noise, training that goes on with the prior, err 23 % less: no posterior helps there. Ensembles without the "
              "prior err 8 % more than the warm one (from 24 % less to 38 % more)."),
        Claim("C6b", "a cold posterior is narrower by the root of its temperature", kind="check", ablation="minibatch",
              reference="a linear model: exact; control: gradients of minibatches, whose noise does not cool",
              checks=[equals("deviation_ratio", {"quick": 0.1}, 0.015)]),
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
        spreads[name] = _spread_and_noise(config.linear, _linear_chains(config.linear, features, forces, key, **options))[0]
    log.progress(0.4)
    x, forces = toy_frames(rng, config.frames)
    test, _ = toy_frames(rng, 2000)
    fit_key, chain_key = jax.random.split(key)
    fitted = _fit(config, config.members, x, forces, fit_key)
    members = {"ensemble": fitted.ensemble.weights}
    for name, temperature in (("system", config.temperature), ("warm", 1.0), ("optimised", 0.0)):
        found = _sample(fitted, config.chains, config.steps, config.keep, chain_key, temperature)
        members[name] = _merged(found.weights)
    rmse = {
        name: float(np.sqrt(np.mean((_curves(config, each, test)[1].mean(axis=0) - mean_force(test)) ** 2)))
        for name, each in members.items()
    }
    arms = {name: {"log_rmse": np.log(value)} for name, value in rmse.items()}
    arms["system"] |= {"deviation_ratio": spreads["cold"] / spreads["warm"]}
    return Report(arms=arms | {"minibatch": {"deviation_ratio": spreads["minibatch"] / spreads["warm"]}})


@cold.figure
def cooling(runs: Runs):
    """Spread of the linear posterior and error of networks with few data, cold over warm."""
    arms = runs["system"].arms
    fig, axes = figure(2, width=3.0)
    ratios = [1.0, *(arms[name]["deviation_ratio"] for name in ("system", "minibatch"))]
    axes[0].bar(["warm", "cold", "cold, minibatch"], ratios, color=(CONTROL_COLOUR, COLOURS[0], CONTROL_COLOUR))
    names = ("warm", "system", "ensemble", "optimised")
    colours = (CONTROL_COLOUR, COLOURS[0], COLOURS[2], CONTROL_COLOUR)
    axes[1].bar(["warm", "cold", "ensemble", "T = 0"], [np.exp(arms[name]["log_rmse"]) for name in names], color=colours)
    label(axes[0], "posterior", "spread over that at T = 1", legend=False)
    label(axes[1], "networks", "RMSE of the mean force (kT per length)", legend=False)
    return fig


@dataclass(frozen=True)
class Errors:
    """Frames, widths of the network and temperatures."""

    frames: tuple[int, ...] = (25, 100, 400)  # each divides the last
    widths: tuple[int, ...] = (2, 16)
    temperatures: tuple[float, ...] = (0.01, 1.0)
    toy: Toy = Toy(steps=1000, fit_steps=1000)


@paper.experiment(
    presets={"smoke": Errors(frames=(20,), widths=(2,), toy=Toy(steps=40, fit_steps=20, chains=2, keep=2)), "quick": Errors(),
             "paper": Errors(frames=(50, 200, 800, 3200), widths=(2, 8, 32, 64),
                             toy=Toy(chains=8, steps=100_000, fit_steps=20_000))},
    cost=12.0,
)  # fmt: skip
def sources_of_error(config: Errors, key, log: Log) -> Report:
    """Spread and true error of the mean force over data, capacity and temperature."""
    shape = (len(config.temperatures), len(config.widths), len(config.frames))
    spread, error = np.zeros(shape), np.zeros(shape)
    fit_key, chain_key = jax.random.split(key)
    for k, amount in enumerate(config.frames):
        repeats = config.frames[-1] // amount  # rows that count less in all: one program for any amount
        x, forces = (np.tile(part, repeats) for part in toy_frames(generator(jax.random.fold_in(key, amount)), amount))
        for j, width in enumerate(config.widths):
            toy = replace(config.toy, hidden=width)
            fitted = _fit(toy, toy.chains, x, forces, fit_key)
            for i, temperature in enumerate(config.temperatures):
                found = _sample(fitted, toy.chains, toy.steps, toy.keep, chain_key, temperature, 1 / repeats)
                predicted = _curves(toy, _merged(found.weights), GRID)[1]
                spread[i, j, k] = predicted.std(axis=0, ddof=1).mean()
                error[i, j, k] = np.sqrt(np.mean((predicted.mean(axis=0) - mean_force(GRID)) ** 2))
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
    held: int = 40  # more frames, with which spreads are calibrated
    chains: int = 4
    keep: int = 2
    fit_steps: int = 1000
    steps: int = 1000
    batch: int = 4
    step: float = 1e-4
    runs: int = 2  # of dynamics with each sampled potential, from different frames; what differs between them is no uncertainty
    md_steps: int = 4000
    every: int = 40
    dt: float = 10.0  # fs; beads weigh 84 amu
    data: str | None = None  # a folder with conf_COM.npy, forces_COM.npy and box.npy

    @property
    def members(self) -> int:
        """Networks that an ensemble trains in the steps of all chains, of their starts included."""
        return self.chains * (self.fit_steps + self.steps) // self.fit_steps


KNOTS = 1000
"""Distances at which slopes of pair potentials are tabulated."""
SEEN = 0.05
"""g(r) above which a bin counts: where no pairs are, zeros agree with zeros."""


class Means(NamedTuple):
    """Radial distribution by the members of one kind: its mean and deviation over members without what dynamics of finite
    length adds, the variance that dynamics leaves in the mean, means of each member, and how many failed.
    """

    mean: np.ndarray
    spread: np.ndarray
    sampling: np.ndarray
    members: np.ndarray
    failed: int


def over_members(values: np.ndarray, within: np.ndarray, failed: int = 0) -> Means:
    """Of (members, runs, bins), where one run has the variance `within`."""
    members, runs = values.shape[:2]
    each = values.mean(axis=1)
    variance = each.var(axis=0, ddof=1) if members > 1 else np.zeros(values.shape[2])
    spread = np.sqrt(np.maximum(variance - within / runs, 0))
    return Means(each.mean(axis=0), spread, within / (runs * members), each, failed)


def block_error(frames: np.ndarray, blocks: int, function) -> np.ndarray:
    """Variance of a function's mean over frames, from blocks of them that follow each other."""
    parts = np.stack([function(part) for part in np.array_split(frames, blocks)])
    return parts.var(axis=0, ddof=1) / blocks


def _bootstrapped(frames: CoarseFrames, count: int, members: int, prior: Repulsion, knots: np.ndarray, rng) -> np.ndarray:
    """Slopes of pair forces fitted by least squares to frames drawn with replacement: coarse graining without networks."""
    r = jnp.asarray(knots, jnp.float32)

    def rows(r: Array) -> Array:
        return (gaussian_basis(r, PairConfig().basis, frames.cutoff) * cosine_taper(r, frames.cutoff)[:, None]).T

    tables = np.asarray(jax.jvp(rows, (r,), (jnp.ones_like(r),))[1], float)
    fixed = np.asarray(pair_slopes([prior], r), float)
    part = slice(0, frames.molecules)
    gram, moment = pair_normal_equations(
        frames.positions[:count, part], frames.forces[:count, part], frames.lengths, tables, (knots[0], knots[-1]), fixed
    )
    found = []
    for _ in range(members):
        times = rng.multinomial(count, np.full(count, 1 / count))
        whole = np.tensordot(times, gram, 1)
        ridge = 1e-6 * np.trace(whole) / len(whole) * np.eye(len(whole))
        found.append(np.linalg.solve(whole + ridge, times @ moment) @ tables + fixed)
    return np.stack(found)


def _descriptors(frames: CoarseFrames, chosen: slice) -> np.ndarray:
    """What the network sees of each bead: sums over its neighbours of the features of distances."""
    found = []
    for place in frames.positions[chosen, : frames.molecules]:
        apart = place[:, None] - place[None, :]
        apart -= frames.lengths * np.round(apart / frames.lengths)
        r = jnp.asarray(np.sqrt((apart**2).sum(axis=2) + frames.cutoff**2 * np.eye(len(place))), jnp.float32)
        bells = np.asarray(gaussian_basis(r, PairConfig().basis, frames.cutoff))
        found.append((bells * np.asarray(cosine_taper(r, frames.cutoff))[..., None]).sum(axis=1))
    return np.concatenate(found)


@paper.experiment(
    presets={"smoke": Fluid(frames=10, held=10, chains=2, keep=2, fit_steps=4, steps=8, batch=2, md_steps=40, every=4),
             "quick": Fluid(),
             "paper": Fluid(molecules=108, frames=9000, held=1000, batch=10, chains=8, keep=8, fit_steps=100_000,
                            steps=200_000, md_steps=500_000, every=500, dt=2.0)},
    data="data",
    claims=[
        Claim("C4b", "chains cover the radial distribution, where one chain of as many samples is too sure", kind="paper",
              where="abstract: reliable uncertainty estimates for observables", ablation="single",
              null=("constant", "bootstrap", "same"), grows="steps", seeds=8, checks=[
                  at_least("coverage", {"quick": 0.85, "paper": 0.85}, over="mean"),
                  at_least("log_spread", {"quick": 0.1, "paper": 0.1}, minus="single")],
              reason="The chains cover 0.72 of the bins on eight seeds, and one chain 0.77. A band of one width for all bins "
              "covers 0.90, and bands of bootstrapped least squares, of pair forces that need no network, 0.85."),
        Claim("C7", "ensemble and chains agree on the radial distribution", kind="paper", where="abstract: comparable results",
              ablation="untrained", null=("bootstrap", "same"), grows="steps", seeds=8,
              checks=[at_least("agreement", {"quick": 0.9, "paper": 0.9}, over="mean"),
                      at_least("spread_ratio", {"quick": 0.3, "paper": 0.3}, over="mean"),
                      at_most("spread_ratio", {"quick": 3.0, "paper": 3.0}, over="mean")],
              reason="By little: one potential that is run again and again agrees with the ensemble to 0.89 on the same "
              "eight seeds, so that most of the agreement is the noise of the dynamics. At four times the steps it fails: "
              "0.75 on four seeds, where the one potential has 0.88."),
    ],
    cost=20.0,
)  # fmt: skip
def fluid(config: Fluid, key, log: Log) -> Report:
    """Radial and angular distributions of coarse dynamics with each sampled potential, against those of the full fluid."""
    keys = jax.random.split(key, 8)
    if config.data is None:
        frames = coarse_frames(DumbbellFluid(config.molecules), config.frames + config.held, keys[0])
    else:
        frames = read_coarse(config.data)
    count, beads = len(frames.positions) - config.held, frames.molecules
    if count < config.batch or config.held < 4:
        raise InputError(f"fluid: {len(frames.positions)} frames, {config.held} of them held out, are too few.")
    log.progress(0.2)
    prior = Repulsion(frames.repulsion, frames.size, cutoff=frames.cutoff)
    nets = [
        SumPotential(PairNet(PairConfig(cutoff=frames.cutoff, unit=frames.unit), k), prior)
        for k in jax.random.split(keys[1], config.members)
    ]
    halves = [eqx.partition(net, lambda leaf: eqx.is_inexact_array(leaf) and leaf.ndim > 0) for net in nets]
    static, starts = halves[0][1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[half[0] for half in halves])
    pairs = PairList(*map(jnp.asarray, frames.pairs()))

    def predict(weights, pairs):
        parts = eqx.combine(weights, static).parts
        return jax.vmap(lambda each: pair_forces(pair_slopes(parts, each.r), each, beads))(pairs)

    pairs = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, pairs)
    forces = jnp.asarray(frames.forces[:, :beads], jnp.float32)
    data, held = _rows((pairs, forces), slice(count)), _rows((pairs, forces), slice(count, None))
    scale = float(frames.forces[:count, :beads].std())
    ensemble = DeepEnsemble.fit(
        predict, starts, data, steps=config.fit_steps, key=keys[2], batch=config.batch, learning_rate=3e-3
    )
    log.progress(0.3)
    posterior = ForceMatchingPosterior(predict, prior_scale=1.0, force_scale=scale)
    first = Sample(ensemble.weights, jnp.log(jnp.asarray(ensemble.noise) / scale))
    groups: dict[str, Any] = {"ensemble": ensemble.weights}
    noises = {"ensemble": float(np.sqrt(np.mean(ensemble.noise**2)))}
    for name, chains, chain_key in (("system", config.chains, keys[3]), ("single", 1, keys[4])):
        steps = config.steps * config.chains // chains
        found = sample_chains(
            MinibatchDensity(posterior, config.batch), _rows(first, slice(chains)), data, steps=steps,
            burn_in=steps // 2, keep=config.keep * config.chains // chains, key=chain_key, step=config.step, alpha=0.99,
        )  # fmt: skip
        groups[name] = _merged(found.weights)
        noises[name] = scale * float(np.exp(np.asarray(found.log_noise)).mean())
    groups["untrained"] = starts
    log.progress(0.5)
    force_scores = _force_scores(groups, noises, predict, held, frames, count)
    knots = np.linspace(0.5 * frames.size, frames.cutoff, KNOTS)
    slopes_of = eqx.filter_jit(
        lambda weights: jax.vmap(lambda w: pair_slopes(eqx.combine(w, static).parts, jnp.asarray(knots, jnp.float32)))(weights)
    )
    tables = {name: np.asarray(slopes_of(weights)) for name, weights in groups.items()}
    tables["bootstrap"] = _bootstrapped(frames, count, config.members, prior, knots, generator(keys[5]))
    tables["same"] = np.repeat(tables["ensemble"][:1], config.members, axis=0)  # no uncertainty: what dynamics alone looks like
    log.progress(0.6)
    stacked = np.concatenate(list(tables.values()))
    begin = frames.positions[np.linspace(0, count - 1, config.runs).astype(int), :beads]
    made = pair_dynamics(
        np.repeat(stacked, config.runs, axis=0), (knots[0], knots[-1]), np.tile(begin, (len(stacked), 1, 1)), frames.lengths,
        steps=config.md_steps, every=config.every, temperature=frames.temperature, mass=float(masses_of(frames.batch(0))[0]),
        dt=config.dt, friction=0.002, key=keys[6],
    )  # fmt: skip
    log.progress(0.9)
    edges, angles = np.linspace(2.0, frames.lengths.min() / 2, 40), np.linspace(20, 180, 33)

    def rdf(positions: np.ndarray) -> np.ndarray:
        return radial_distribution(positions, frames.lengths, edges)

    def adf(positions: np.ndarray) -> np.ndarray:
        return angular_distribution(positions[:: max(1, len(positions) // 8)], frames.lengths, angles, 1.5 * frames.size)

    settled = made.positions[:, made.positions.shape[1] // 5 :]
    alive = (np.isfinite(settled).all(axis=(1, 2, 3)) & (made.nearest > knots[0])).reshape(-1, config.runs).all(axis=1)
    g = np.stack([rdf(run) for run in settled]).reshape(len(stacked), config.runs, -1)
    sizes = np.cumsum([0, *map(len, tables.values())])
    parts = {name: slice(*ends) for name, ends in zip(tables, pairwise(sizes), strict=True)}
    trained = np.concatenate([np.flatnonzero(alive[part]) + part.start for name, part in parts.items() if name != "untrained"])
    within = g[trained].var(axis=1, ddof=1).mean(axis=0)
    reference = frames.positions[:count, :beads]
    truth, truth_error = rdf(reference), block_error(reference, 5, rdf)
    held_rdf, held_error = rdf(frames.positions[count:, :beads]), truth_error * count / config.held
    means = {}
    for name, part in parts.items():
        good = g[part][alive[part]]
        if len(good) < 2:
            raise InputError(
                f"fluid: {len(good)} of {len(alive[part])} potentials ({name}) have stable dynamics; two are wanted."
            )
        means[name] = over_members(good, within, int((~alive[part]).sum()))
    seen = truth > SEEN
    best = means["ensemble"]
    means["constant"] = best._replace(spread=np.ones_like(truth))
    arms, arrays = {}, {"edges": edges, "angles": angles, "truth": truth, "truth_error": np.sqrt(truth_error),
                        "truth_angles": adf(reference)}  # fmt: skip
    for name, each in means.items():
        varied = seen & (each.members.var(axis=0) > 0)
        own, known = each.spread[seen], np.sqrt(each.sampling + held_error)[seen]
        factor = spread_factor(each.mean[seen], np.maximum(own, 1e-6), held_rdf[seen], np.maximum(known, 1e-6))
        raw = factor if name == "constant" else 1.0
        sampling = (each.sampling + truth_error)[seen]
        both = raw**2 * own**2 + best.spread[seen] ** 2 + (each.sampling + best.sampling)[seen]
        arms[name] = {
            "coverage": coverage(each.mean[seen], np.sqrt(raw**2 * own**2 + sampling), truth[seen]),
            "calibrated_coverage": coverage(each.mean[seen], np.sqrt(factor**2 * own**2 + sampling), truth[seen]),
            "log_spread": float(np.log(max(raw * own.mean(), 1e-6))),
            "log_factor": float(np.log(factor)),
            "alpha": calibration_factor(each.members[:, varied], truth[varied]) if len(each.members) > 3 else 0.0,
            "nll": normal_nll(each.mean[seen], np.sqrt(raw**2 * own**2 + sampling), truth[seen]),
            "calibrated_nll": normal_nll(each.mean[seen], np.sqrt(factor**2 * own**2 + sampling), truth[seen]),
            "agreement": coverage(each.mean[seen], np.sqrt(both), best.mean[seen]),
            "spread_ratio": float(raw * own.mean() / max(best.spread[seen].mean(), 1e-6)),
            "rdf_error": float(np.abs(each.mean - truth)[seen].mean()),
            "failed": float(each.failed),
        }
        arrays |= {f"{name}_mean": each.mean, f"{name}_deviation": np.sqrt(raw**2 * each.spread**2 + each.sampling)}
    arms["system"]["dynamics_share"] = float(
        within[seen].mean() / config.runs / means["system"].members[:, seen].var(axis=0, ddof=1).mean()
    )
    for name, row in force_scores.items():
        arms.setdefault(name, {}).update(row)
    for name in ("system", "ensemble", "untrained"):
        chosen = settled.reshape(len(stacked), config.runs, *settled.shape[1:])[parts[name]][alive[parts[name]]][:, 0]
        bent = np.stack([adf(run) for run in chosen])
        arrays |= {f"{name}_angles_mean": bent.mean(axis=0), f"{name}_angles_deviation": bent.std(axis=0, ddof=1)}
    return Report(arms=arms, arrays=arrays)


def _force_scores(groups, noises, predict, held, frames: CoarseFrames, count: int) -> dict[str, dict[str, float]]:
    """Likelihood of forces of held-out frames, spreads calibrated on the first half of these and tried on the second."""
    inputs, targets = held
    targets = np.asarray(targets, float)
    many = eqx.filter_jit(lambda weights, inputs: jax.lax.map(lambda w: predict(w, inputs), weights))
    bands = {}
    for name in noises:
        found = np.asarray(many(groups[name], inputs), float)
        bands[name] = found.mean(axis=0), found.std(axis=0, ddof=1), noises[name]
    best = bands["ensemble"]
    tree = cKDTree(_descriptors(frames, slice(0, count, max(1, count * frames.molecules // 20_000))))
    away = tree.query(_descriptors(frames, slice(count, None)))[0].reshape(targets.shape[:2])
    bands["constant"] = best[0], np.ones(targets.shape), best[2]
    bands["distance"] = best[0], np.repeat(away[..., None], 3, axis=2), best[2]
    half, scores = len(targets) // 2, {}
    for name, (mean, spread, noise) in bands.items():
        factor = spread_factor(mean[:half].ravel(), spread[:half].ravel(), targets[:half].ravel(), noise)
        total = np.sqrt(noise**2 + (factor * spread[half:]) ** 2)
        scores[name] = {
            "force_nll": normal_nll(mean[half:], total, targets[half:]),
            "force_rank": _rank(np.abs(mean - targets)[half:], spread[half:]),
        }  # fmt: skip
    return scores


@fluid.figure
def distributions(runs: Runs):
    """Radial and angular distributions of the centres with 95 % bands."""
    data = runs["system"].arrays
    fig, axes = figure(2, 2, width=3.6, height=2.6)
    r, angle = ((data[name][1:] + data[name][:-1]) / 2 for name in ("edges", "angles"))
    shown = (("untrained", CONTROL_COLOUR, "untrained"), ("ensemble", COLOURS[2], "ensemble"), ("system", COLOURS[0], "chains"),
             ("single", COLOURS[1], "one chain"), ("bootstrap", COLOURS[3], "least squares, bootstrap"))  # fmt: skip
    for name, colour, text in shown:
        mean, spread = data[f"{name}_mean"], 1.96 * data[f"{name}_deviation"]
        if name not in ("single", "bootstrap"):
            axes[0, 0].fill_between(r, mean - spread, mean + spread, color=colour, alpha=0.4, label=text)
            bent, bow = data[f"{name}_angles_mean"], 1.96 * data[f"{name}_angles_deviation"]
            axes[0, 1].fill_between(angle, bent - bow, bent + bow, color=colour, alpha=0.4, label=text)
        if name != "untrained":
            axes[1, 0].plot(r, mean - data["truth"], color=colour, lw=1, label=text)
            axes[1, 1].plot(r, spread / 1.96, color=colour, lw=1, label=text)
    axes[0, 0].plot(r, data["truth"], color="0.2", lw=1, label="full fluid")
    axes[0, 1].plot(angle, data["truth_angles"], color="0.2", lw=1)
    axes[1, 0].fill_between(r, -1.96 * data["truth_error"], 1.96 * data["truth_error"], color="0.8", label="known to")
    label(axes[0, 0], "distance (Å)", "g(r)")
    label(axes[0, 1], "angle (degrees)", "density (1/degree)", legend=False)
    label(axes[1, 0], "distance (Å)", "error of g(r)")
    label(axes[1, 1], "distance (Å)", "deviation of g(r)", legend=False)
    return fig
