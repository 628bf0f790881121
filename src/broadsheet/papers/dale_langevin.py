"""Dale meets Langevin: A Multiplicative Denoising Diffusion Model, arXiv 2510.02730.

Positive data are noised by geometric Brownian motion and made again by multiplicative steps, with a score that is learnt by
denoising. Controls: the same network as additive diffusion of log x and of x, Itô's terms left out, Euler's ambient steps, the
authors' schedule without annealing, and gradient descent by other ways of keeping weights positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from scipy.spatial.distance import cdist
from scipy.stats import kstest, norm, skew
from sklearn.linear_model import LogisticRegression

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.learn import fit
from broadsheet.learn.exponentiated import exponentiated_gradient
from broadsheet.numerics import generator
from broadsheet.transport import GBM, PositiveDiffusion
from broadsheet.transport.additive_diffusion import AdditiveDiffusion
from broadsheet.transport.multiplicative_samplers import Annealing, Method, lognormal_start, sample_reverse
from broadsheet.transport.score_matching import explicit_loss, implicit_loss
from broadsheet.transport.two_samples import energy_distance
from broadsheet.vision.images import digits, mnist

paper = Paper(
    slug="dale-langevin",
    arxiv="2510.02730",
    title="Dale meets Langevin: A Multiplicative Denoising Diffusion Model",
    published="2025-10-03",
    authors=3,
    basis="code",
    code="github.com/Madhavaprasath23/Dale-Meets-Langevin (no licence found)",
    summary="Synapses keep their sign, and so do weights that are multiplied in each step of learning. A diffusion model built "
    "the same way: positive data are noised by geometric Brownian motion, a network learns the score of what is noised, and "
    "samples are made by multiplicative steps, which never leave the positive half line.",
    topics=("diffusion models", "score matching", "Dale's law"),
    parts=(
        "broadsheet.transport.PositiveDiffusion",
        "broadsheet.transport.GBM",
        "broadsheet.learn.exponentiated.exponentiated_gradient",
    ),
    verbs=("broadsheet transport sample RATES.csv",),
    notes="The multiplicative sampler is Euler's step of the usual reverse equation of log x, so that whatever it reaches an "
    "additive diffusion of log x reaches as well; that is run beside it everywhere. The authors weight the error of the "
    "predicted noise by sigma² t; their training takes times t + 1 where it meant t, which is not done here; their sampler is "
    "annealed Langevin dynamics whose steps add up to .6 of the time, not the reverse equation. Their networks (NCSN and its "
    "kin, 200 000 to 1.3 million steps) are not rebuilt: images are learnt by a U-Net of three levels.",
)


@dataclass(frozen=True)
class Forward:
    """Paths of the equation, by Euler and Maruyama."""

    sigma: float = 0.8
    drifts: tuple[float, ...] = (0.32, 0.1)  # mu, a unit of time
    paths: int = 40_000
    steps: int = 1000
    start: tuple[float, float] = (0.3, 0.5)  # mean and spread of log x_0


@paper.experiment(
    presets={"smoke": Forward(paths=2000, steps=50), "quick": Forward(), "paper": Forward(paths=400_000, steps=4000)},
    claims=[
        Claim("D1", "noised data follow the log-normal law of geometric Brownian motion", kind="check",
              reference="paths of the stochastic equation by small steps; control: the mean of log x without Itô's term",
              ablation="without-ito", checks=[at_most("mean_error", 0.02), at_most("spread_error", 0.02)]),
    ],
    cost=3.0,
)  # fmt: skip
def forward(config: Forward, key: Any, log: Log) -> Report:
    """log X at T = 1 of paths, against the closed form."""
    first, later = jax.random.split(key)
    mean, spread = config.start
    x0 = jnp.exp(mean + spread * jax.random.normal(first, (config.paths,)))
    errors: dict[str, list[float]] = {"mean": [], "spread": [], "without": [], "p": []}
    arrays: dict[str, Any] = {"drifts": config.drifts, "law": (*config.start, config.sigma)}
    for mu in config.drifts:
        logs = np.log(np.asarray(_paths(x0, later, mu, config.sigma, config.steps)))
        law = (mean + mu - config.sigma**2 / 2, np.sqrt(spread**2 + config.sigma**2))
        errors["mean"].append(abs(logs.mean() - law[0]))
        errors["spread"].append(abs(logs.std() - law[1]))
        errors["without"].append(abs(logs.mean() - mean - mu))
        errors["p"].append(kstest(logs, norm(*law).cdf).pvalue)
        arrays[f"mu_{mu:g}"], arrays["edges"] = np.histogram(logs, bins=80, range=(-4, 4), density=True)
    return Report(
        arms={
            "system": {"mean_error": max(errors["mean"]), "spread_error": max(errors["spread"]), "least_p": min(errors["p"])},
            "without-ito": {"mean_error": max(errors["without"]), "spread_error": max(errors["spread"])},
        },
        arrays=arrays,
    )


@jax.jit
def _euler(x: Array, key: Array, mu: Array, sigma: Array, steps: Array) -> Array:
    d = 1 / steps

    def step(k: Array, x: Array) -> Array:
        z = jax.random.normal(jax.random.fold_in(key, k), x.shape)
        return x * (1 + mu * d + sigma * jnp.sqrt(d) * z)

    return jax.lax.fori_loop(0, steps, step, x)


def _paths(x: Array, key: Any, mu: float, sigma: float, steps: int) -> Array:
    return _euler(x, key, jnp.asarray(mu), jnp.asarray(sigma), jnp.asarray(steps))


@forward.figure
def marginals(runs: Runs):
    """Histograms of log X at T and the closed form."""
    data = runs["system"].arrays
    fig, axis = figure()
    edges = data["edges"]
    middle = (edges[1:] + edges[:-1]) / 2
    mean, spread, sigma = data["law"]
    for mu, colour in zip(data["drifts"], COLOURS, strict=False):
        axis.stairs(data[f"mu_{mu:g}"], edges, color=colour, fill=True, alpha=0.4, label=f"paths, mu = {mu:g}")
        law = norm(mean + mu - sigma**2 / 2, np.hypot(spread, sigma))
        axis.plot(middle, law.pdf(middle), color=colour)
    label(axis, "log x at T", "density")
    return fig


@dataclass(frozen=True)
class Exact:
    """Samplers with the exact score of log-normal data."""

    sigma: float = 0.8
    law: tuple[float, float] = (0.3, 0.5)  # mean and spread of log x
    samples: int = 40_000
    steps: tuple[int, ...] = (10, 20, 50, 100, 500)


@paper.experiment(
    presets={"smoke": Exact(samples=2000, steps=(5,)), "quick": Exact(), "paper": Exact(samples=400_000)},
    claims=[
        Claim("D2", "both samplers with the exact score give the law of the data back", kind="check",
              reference="the log-normal law; control: the drift without the 1 of 1 + h, which comes of Itô's formula",
              ablation="without-one", checks=[at_most("dale_error", 0.01), at_most("ambient_error", 0.01)]),
        Claim("D3", "multiplicative steps never leave the positive half line, where ambient ones do", kind="paper",
              where="abstract; the sign-preserving sampler", ablation="ambient", null="log-exploding",
              checks=[at_most("outside", 0), at_least("outside", 1, of="ambient")],
              reason="An additive diffusion of log x, exponentiated, cannot leave it either: the step is the same one."),
    ],
    cost=3.0,
)  # fmt: skip
def exact_scores(config: Exact, key: Any, log: Log) -> Report:
    """Mean and spread of log x of samples, by sampler and number of steps."""
    gbm, (mean, spread) = GBM(config.sigma), config.law
    center, variance = jnp.full(1, mean), jnp.full(1, spread**2)
    first, later = jax.random.split(key)
    start = lognormal_start(gbm, center, variance, config.samples, first)

    def exact(x: Array, t: Array) -> Array:
        return gbm.lognormal_score(x, t, center, variance)

    def draw(steps: int, method: Method, score: Any = exact) -> np.ndarray:
        return np.asarray(sample_reverse(score, gbm, start, later, steps=steps, method=method))[:, 0]

    methods: tuple[Method, ...] = ("dale", "ambient", "flow")
    found = {(method, steps): draw(steps, method) for method in methods for steps in config.steps}
    log.progress(0.7)
    errors = {method: [_log_error(found[method, steps], mean, spread) for steps in config.steps] for method in methods}
    outside = {method: [int((found[method, steps] <= 0).sum()) for steps in config.steps] for method in methods}
    shifted = draw(config.steps[-1], "dale", lambda x, t: exact(x, t) - 1)
    gone = 100 * np.array(outside["ambient"]) / config.samples
    log_x = _exploding(config, jnp.log(start), later, config.steps[0])
    return Report(
        arms={
            "system": {"dale_error": errors["dale"][-1], "ambient_error": errors["ambient"][-1], "outside": outside["dale"][0]},
            "without-one": {name: _log_error(shifted, mean, spread) for name in ("dale_error", "ambient_error")},
            "ambient": {"outside": outside["ambient"][0]},
            "log-exploding": {"outside": int((np.exp(log_x) <= 0).sum())},
        },
        arrays={"steps": config.steps, **{f"{m}_error": errors[m] for m in methods}, "ambient_outside": gone},
    )  # fmt: skip


def _log_error(x: np.ndarray, mean: float, spread: float) -> float:
    logs = np.log(x[x > 0])
    return float(max(abs(logs.mean() - mean), abs(logs.std() - spread)))


def _exploding(config: Exact, y: Array, key: Any, steps: int) -> np.ndarray:
    """Log-normal data as the additive diffusion of y = log x: the reverse equation as textbooks have it."""
    mean, spread = config.law
    d = 1 / steps
    for k in range(steps):
        noised = spread**2 + config.sigma**2 * (1 - k * d)
        drift = -(config.sigma**2) * (y - mean) / noised
        y = y + d * drift + config.sigma * np.sqrt(d) * jax.random.normal(jax.random.fold_in(key, k), y.shape)
    return np.asarray(y)


@exact_scores.figure
def samplers(runs: Runs):
    """Error of the law against the number of steps, and how many ambient samples left the half line."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    names = {"dale": "multiplicative", "flow": "flow, no noise", "ambient": "ambient"}
    for (method, name), colour in zip(names.items(), (SYSTEM_COLOUR, COLOURS[1], CONTROL_COLOUR), strict=True):
        left.loglog(data["steps"], data[f"{method}_error"], "o-", color=colour, label=name)
    label(left, "steps", "largest error of mean and spread of log x")
    right.semilogx(data["steps"], data["ambient_outside"], "o-", color=CONTROL_COLOUR, label="ambient")
    right.axhline(0, color=SYSTEM_COLOUR, label="multiplicative: 0")
    label(right, "steps", "samples at or below 0 (%)")
    return fig


@dataclass(frozen=True)
class Losses:
    """Three losses on log-normal data."""

    sigma: float = 0.8
    drift: float = 0.1  # mu, for which log x drifts
    spread: float = 0.5  # of log x_0
    draws: int = 1_000_000
    at: tuple[float, float] = (-0.3, -0.7)  # a, b of h = a + b log x, away from the best


@paper.experiment(
    presets={"smoke": Losses(draws=20_000), "quick": Losses(), "paper": Losses(draws=4_000_000)},
    claims=[
        Claim("D4", "the denoising loss is least at the score, with the floor that log-normal data have", kind="check",
              reference="s0²/((s0² + sigma² t) sigma² t); control: a target without Itô's term",
              ablation="without-ito", checks=[equals("floor_over_exact", 1.0, 0.03), at_most("slope_at_score", 0.01)]),
        Claim("D5", "non-negative score matching is the explicit loss less a constant", kind="check",
              reference="gradients with respect to the parameters of h = a + b log x; control: without its term h",
              ablation="without-h", checks=[at_least("cosine", 0.999), equals("length_ratio", 1.0, 0.02)]),
    ],
    cost=3.0,
)  # fmt: skip
def losses(config: Losses, key: Any, log: Log) -> Report:
    """The floor of the denoising loss and its slope there, and gradients of the implicit and explicit losses."""
    gbm, variance = GBM(config.sigma, config.drift), config.spread**2
    first, second = jax.random.split(key)
    x0 = jnp.exp(config.spread * jax.random.normal(first, (config.draws, 1)))
    t = jnp.ones((config.draws, 1))
    xt = gbm.marginal(x0, t, second)
    exact = gbm.lognormal_score(xt, t, jnp.zeros(1), jnp.full(1, variance))
    noised = config.sigma**2
    floor = variance / ((variance + noised) * noised)
    slip = config.sigma / 2  # what the noise is off by where log x is thought to drift by mu
    targets = {"system": gbm.target(x0, xt, t), "without-ito": gbm.target(x0, xt, t) + slip / config.sigma}
    arms: dict[str, dict[str, float]] = {}
    for arm, target in targets.items():
        away = exact - target
        arms[arm] = {
            "floor_over_exact": float(jnp.mean(away**2)) / floor, "slope_at_score": abs(float(2 * jnp.mean(away))) * floor
        }  # fmt: skip
    at = jnp.array(config.at)
    slopes = {
        "explicit": jax.grad(
            lambda p: explicit_loss(lambda x: p[0] + p[1] * jnp.log(x), lambda x: -1 - jnp.log(x) / variance, x0)
        ),
        "system": jax.grad(lambda p: implicit_loss(lambda x: p[0] + p[1] * jnp.log(x), x0)),
        "without-h": jax.grad(
            lambda p: implicit_loss(lambda x: p[0] + p[1] * jnp.log(x), x0) - 2 * jnp.mean(p[0] + p[1] * jnp.log(x0))
        ),
    }
    found = {name: np.asarray(slope(at), float) for name, slope in slopes.items()}
    wanted = found.pop("explicit")
    for arm, gradient in found.items():
        size = np.linalg.norm(gradient) * np.linalg.norm(wanted)
        arms.setdefault(arm, {})
        arms[arm] |= {"cosine": float(gradient @ wanted / size)}
        arms[arm] |= {"length_ratio": float(np.linalg.norm(gradient) / np.linalg.norm(wanted))}
    return Report(arms=arms, arrays={"explicit": wanted, **{name.replace("-", "_"): g for name, g in found.items()}})


@losses.figure
def gradients(runs: Runs):
    """Gradients of the losses in the plane of the score's two parameters."""
    data = runs["system"].arrays
    fig, axis = figure()
    rows = (("explicit", "explicit, density known", COLOURS[1], 3.0), ("system", "implicit", SYSTEM_COLOUR, 1.2),
            ("without_h", "implicit, without its term h", CONTROL_COLOUR, 1.2))  # fmt: skip
    for name, text, colour, width in rows:
        axis.plot([0, data[name][0]], [0, data[name][1]], "-o", lw=width, markevery=[1], color=colour, label=text)
    label(axis, "slope along a", "slope along b", "h = a + b log x")
    return fig


@dataclass(frozen=True)
class Skewed:
    """A mixture of two gammas in two dimensions, and the same small network for all."""

    train: int = 4000
    test: int = 4000
    sigma: float = 2.0  # about twice the spread of log x
    hidden: int = 64
    depth: int = 2
    training_steps: int = 3000
    rate: float = 3e-3
    average: float = 0.998
    steps: int = 200


@paper.experiment(
    presets={"smoke": Skewed(train=200, test=200, hidden=16, training_steps=400, average=0.99, steps=20), "quick": Skewed(),
             "paper": Skewed(train=40_000, test=20_000, hidden=256, training_steps=20_000, steps=500)},
    claims=[
        Claim("D6", "on skewed positive data the multiplicative model is no worse than an additive one of its size, without "
              "negative samples", kind="paper", where="abstract", ablation="preserving",
              null=("log-exploding", "log-preserving"), seeds=8, grows="training_steps",
              checks=[at_most("energy", 0.0, minus="preserving"), at_most("negatives", 0)],
              reason="The distances are not told apart; the additive model of x puts 6 % of its samples at or below 0, that "
              "of log x none, and it is as near."),
    ],
    cost=14.0,
)  # fmt: skip
def skewed(config: Skewed, key: Any, log: Log) -> Report:
    """Energy distance of samples to held-out data, of four models with one network."""
    rng, seed = generator(key), int(generator(jax.random.fold_in(key, 1)).integers(2**31 - 1))
    train, test = _gammas(rng, config.train), _gammas(rng, config.test)
    options: dict[str, Any] = {
        "hidden": config.hidden, "depth": config.depth, "steps": config.training_steps, "rate": config.rate,
        "average": config.average, "random_state": seed,
    }  # fmt: skip
    models: dict[str, Any] = {
        "system": PositiveDiffusion(config.sigma, weight="noise", **options),
        "preserving": AdditiveDiffusion("preserving", **options),
        "log-exploding": AdditiveDiffusion("exploding", config.sigma, log=True, **options),
        "log-preserving": AdditiveDiffusion("preserving", log=True, **options),
    }
    arms, arrays = {}, {"train": train[:1000]}
    for k, (arm, model) in enumerate(models.items()):
        made = model.fit(train).sample(config.test, steps=config.steps)
        arms[arm] = {"energy": energy_distance(made, test), "negatives": int((made <= 0).any(axis=1).sum())}
        arrays[arm.replace("-", "_")] = made[:1000]
        log.progress((k + 1) / len(models))
    arms["system"]["energy_of_data"] = energy_distance(train, test)
    return Report(arms=arms, arrays=arrays)


def _gammas(rng: np.random.Generator, count: int) -> np.ndarray:
    pairs = rng.gamma((2.0, 6.0), (0.25, 0.5), (count, 2))
    return np.where(rng.random((count, 1)) < 0.5, pairs, pairs[:, ::-1])


@skewed.figure
def mixtures(runs: Runs):
    """Samples of the four models, with the data in grey beneath."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, axes = figure(4, width=2.8)
    names = {"system": "multiplicative", "preserving": "additive, of x", "log_exploding": "additive, of log x (exploding)",
             "log_preserving": "additive, of log x (preserving)"}  # fmt: skip
    for axis, (arm, name) in zip(axes, names.items(), strict=True):
        axis.plot(*np.asarray(data["train"]).T, ".", ms=2, color=CONTROL_COLOUR, alpha=0.5)
        axis.plot(*np.asarray(data[arm]).T, ".", ms=2, color=SYSTEM_COLOUR if arm == "system" else COLOURS[1])
        axis.axhline(0, color="k", lw=0.5)
        axis.axvline(0, color="k", lw=0.5)
        axis.set(xlim=(-1, 8), ylim=(-1, 8))
        label(axis, "x", "y", f"{name}\nenergy distance {1000 * arms[arm.replace('_', '-')]['energy']:.1f}e-3")
    return fig


@dataclass(frozen=True)
class Handwritten:
    """Images in [1, 2], learnt and drawn."""

    images: Literal["digits", "mnist"] = "digits"  # of scikit-learn, or MNIST's
    data: str | None = None  # a folder with MNIST's files
    train: int = 1400
    sigma: float = 0.8
    hidden: int = 256
    depth: int = 3
    image: bool = False  # whether the network is a U-Net
    training_steps: int = 3000
    samples: int = 256
    levels: int = 1000
    stride: float = 6.165e-4  # of an annealed step
    factor: float = 0.995
    steps: int = 500  # of the reverse equation


@paper.experiment(
    presets={"smoke": Handwritten(train=64, hidden=8, depth=1, training_steps=10, samples=16, levels=10, steps=10),
             "quick": Handwritten(),
             "paper": Handwritten(images="mnist", train=60_000, hidden=32, image=True, training_steps=50_000, samples=4096)},
    claims=[
        Claim("D7", "samples are clear digits, and not copies", kind="paper", where="figures of samples",
              ablation="unlearnt", null=("log-exploding", "copies"),
              checks=[at_least("confidence", {"paper": 0.8}), at_least("nearest_over_data", {"paper": 0.5})]),
        Claim("D9", "it is the annealing of the noise that makes samples of the authors' schedule clear", kind="paper",
              where="the authors' code", ablation="factor-1", null="reverse", grows="training_steps", seeds=8,
              checks=[at_least("confidence", 0.02, minus="factor-1")],
              reason="With as much noise at the last level as at the first, samples of the same network are told apart a "
              "little better by a classifier, and are as spread as the data; annealed ones lack a tenth of the spread."),
    ],
    cost=40.0,
)  # fmt: skip
def handwritten(config: Handwritten, key: Any, log: Log) -> Report:
    """How clearly a classifier tells samples, how spread they are, and how near the nearest image is, by schedule."""
    images = digits(generator(key), train=config.train) if config.images == "digits" else mnist(config.data)
    x, test = (1 + part.reshape(len(part), -1) for part in (images.x, images.test_x))
    seed = int(generator(jax.random.fold_in(key, 1)).integers(2**31 - 1))
    options: dict[str, Any] = {
        "hidden": config.hidden, "depth": config.depth, "shape": (*images.x.shape[1:3], 1) if config.image else None,
        "steps": config.training_steps, "random_state": seed,
    }  # fmt: skip
    model = PositiveDiffusion(config.sigma, **options).fit(x)
    log.progress(0.3)
    even = PositiveDiffusion(config.sigma, weight="noise", **options).fit(x)
    log.progress(0.6)
    additive = AdditiveDiffusion("exploding", config.sigma, log=True, **options).fit(x)
    log.progress(0.8)
    annealed = Annealing(config.stride, factor=config.factor, levels=config.levels)
    rng, count = generator(jax.random.fold_in(key, 2)), config.samples
    made = {
        "system": model.sample(count, annealing=annealed, random_state=seed),
        "factor-1": model.sample(count, annealing=annealed._replace(factor=1.0), random_state=seed),
        "reverse": model.sample(count, steps=config.steps, random_state=seed),
        "even-weight": even.sample(count, steps=config.steps, random_state=seed),
        "log-exploding": additive.sample(count, steps=config.steps, random_state=seed),
        "unlearnt": np.exp(rng.normal(model.log_mean_, np.sqrt(model.log_variance_), (count, x.shape[1]))),
        "copies": x[rng.integers(0, len(x), count)],
    }
    judge = LogisticRegression(max_iter=2000).fit(x, images.y)
    near = np.median(_nearest(test, x))
    arms = {
        arm: {
            "confidence": judge.predict_proba(np.clip(drawn, 1, 2)).max(axis=1).mean(),
            "spread_over_data": np.log(drawn).std() / np.log(x).std(),
            "nearest_over_data": np.median(_nearest(drawn, x)) / near,
        }
        for arm, drawn in made.items()
    }
    arms["system"]["confidence_of_data"] = judge.predict_proba(test).max(axis=1).mean()
    shown = {arm.replace("-", "_"): drawn[:8] for arm, drawn in made.items()}
    return Report(arms=arms, arrays={**shown, "strip": _strip(model, x[:1], config.steps, seed)})


def _nearest(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    return cdist(rows, among).min(axis=1)


STOPS = (1.0, 0.6, 0.3, 0.1, 0.03, 0.001)
"""Times that are shown of an image on its way to noise and of one on its way back."""


def _strip(model: PositiveDiffusion, image: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """An image noised up to six times, and a sample stopped at the same times."""
    gbm, key = model.gbm_, jax.random.key(seed)
    noised = gbm.marginal(jnp.asarray(np.repeat(image, len(STOPS), axis=0)), jnp.array(STOPS[::-1])[:, None], key)
    drawn = [jnp.asarray(noised[-1:])]
    for k, (now, then) in enumerate(pairwise(STOPS)):
        drawn.append(sample_reverse(model.score_, gbm, drawn[-1], jax.random.fold_in(key, k), steps=max(1, steps // 5),
                                    t_max=jnp.asarray(now), t_min=jnp.asarray(then)))  # fmt: skip
    return np.stack([np.asarray(noised), np.concatenate(drawn)])


@handwritten.figure
def samples(runs: Runs):
    """Samples by schedule, and what of the data they have."""
    data, arms = runs["system"].arrays, runs["system"].arms
    names = {"copies": "data", "system": "annealed", "factor_1": "annealed, factor 1", "reverse": "reverse equation",
             "even_weight": "reverse, even weight", "log_exploding": "additive, of log x"}  # fmt: skip
    fig, (left, middle, right) = figure(3, width=4.6)
    side = int(np.sqrt(np.asarray(data["copies"]).shape[1])) + 1
    left.imshow(_mosaic([np.clip(data[name], 1, 2) for name in names], 1.0), cmap="gray_r", vmin=1, vmax=2)
    left.set_yticks(side * (np.arange(len(names)) + 0.5), list(names.values()), fontsize="small")
    left.set_xticks([])
    label(left, "eight samples", "schedule")
    middle.imshow(_mosaic(np.clip(data["strip"], 0.5, 3), 0.5), cmap="gray_r", vmin=0.5, vmax=3)
    middle.set_xticks(side * (np.arange(len(STOPS)) + 0.5), [f"{t:g}" for t in STOPS[::-1]])
    middle.set_yticks([side / 2, 3 * side / 2], ["noised", "made again"])
    label(middle, "time (below: from the right, 1 back to .001)", "direction")
    at, arm_names = np.arange(len(names)), [name.replace("_", "-") for name in names]
    for shift, (metric, text) in zip((-0.27, 0.0, 0.27), METRICS.items(), strict=True):
        right.barh(at + shift, [arms[name][metric] for name in arm_names], 0.25, label=text)
    right.set_ylim(len(names) - 0.5, -1.9)
    right.set_yticks([])
    label(right, "value", "schedule, as on the left")
    return fig


def _mosaic(rows: Any, blank: float) -> np.ndarray:
    """Rows of square images side by side, with a line of `blank` between."""
    side = int(np.sqrt(np.shape(rows)[-1]))
    padded = np.pad(
        np.reshape(rows, (*np.shape(rows)[:2], side, side)), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=blank
    )
    return padded.swapaxes(1, 2).reshape(len(padded) * (side + 1), -1)


METRICS = {
    "confidence": "classifier's mean top probability",
    "spread_over_data": "spread of log x over the data's",
    "nearest_over_data": "distance to nearest image over held-out ones'",
}


@dataclass(frozen=True)
class Regression:
    """Positive least squares, from weights of 1."""

    weights: int = 400
    rows: int = 600
    noise: float = 0.05
    steps: int = 3000
    rate: float = 0.1  # over the largest curvature; five times as much for gradient descent
    floor: float = 1e-6  # of clipped weights
    teachers: tuple[str, ...] = ("lognormal", "uniform", "exponential")


@paper.experiment(
    presets={"smoke": Regression(weights=20, rows=30, steps=20), "quick": Regression(),
             "paper": Regression(weights=2000, rows=3000, steps=20_000)},
    claims=[
        Claim("D8", "exponentiated gradient descent gives weights nearer to log-normal than gradient descent clipped at a "
              "floor",
              kind="paper", where="introduction", ablation="clipped", null=("log-weights", "softplus", "above-the-floor"),
              seeds=8, grows="steps",
              checks=[at_most("skew_uniform", -0.1, minus="clipped"), at_most("skew_exponential", -0.1, minus="clipped")],
              reason="Gradient descent on log w or through a softplus gives the same or less skewness, and so does gradient "
              "descent once the 1 to 4 % of weights on its floor are left out: it is the floor that is skewed."),
    ],
    cost=6.0,
)  # fmt: skip
def exponentiated(config: Regression, key: Any, log: Log) -> Report:
    """Skewness of log w at the end, by rule and teacher."""
    arms: dict[str, dict[str, float]] = {arm: {} for arm in ("system", *RULES, "above-the-floor")}
    arrays = {}
    for teacher in config.teachers:
        rng = generator(jax.random.fold_in(key, config.teachers.index(teacher)))
        hidden = {"lognormal": rng.lognormal(-0.5, 1.0, config.weights), "uniform": rng.uniform(0, 2, config.weights),
                  "exponential": rng.exponential(1.0, config.weights)}[teacher]  # fmt: skip
        A = rng.standard_normal((config.rows, config.weights)) / np.sqrt(config.rows)
        y = A @ hidden + config.noise * rng.standard_normal(config.rows)
        rate = config.rate / np.linalg.norm(A, 2) ** 2
        for arm in ("system", *RULES):
            w = np.asarray(_descend(arm, jnp.asarray(A), jnp.asarray(y), jnp.asarray(rate), config.steps, config.floor), float)
            arms[arm][f"skew_{teacher}"] = abs(skew(np.log(w)))
            arms[arm][f"error_{teacher}"] = np.mean((A @ w - y) ** 2)
            arrays[f"{arm.replace('-', '_')}_{teacher}"] = np.log(w)
            if arm == "clipped":
                above = w[w > 2 * config.floor]
                arms["above-the-floor"][f"skew_{teacher}"] = abs(skew(np.log(above)))
                arms["clipped"][f"floored_{teacher}"] = 1 - len(above) / len(w)
    return Report(arms=arms, arrays=arrays)


RULES = ("clipped", "log-weights", "softplus")
"""Other ways to keep weights positive."""


def _descend(arm: str, A: Array, y: Array, rate: Array, steps: int, floor: float) -> Array:
    """Weights after `steps` steps of a rule."""
    start = jnp.ones(A.shape[1])
    if arm == "system":
        return _train(lambda w: w, start, exponentiated_gradient(rate), A, y, steps)
    if arm == "clipped":
        return _train(lambda w: w, start, optax.sgd(5 * rate), A, y, steps, lambda w: jnp.maximum(w, floor))
    if arm == "log-weights":
        return _train(jnp.exp, jnp.log(start), optax.sgd(rate), A, y, steps)
    return _train(jax.nn.softplus, jnp.log(jnp.expm1(start)), optax.sgd(5 * rate), A, y, steps)


def _train(
    of: Any, start: Array, rule: optax.GradientTransformation, A: Array, y: Array, steps: int, project: Any = None
) -> Array:
    def loss(w: Array, batch: Any, key: Any) -> Array:
        return jnp.sum((batch[0] @ of(w) - batch[1]) ** 2) / 2

    return of(fit(start, loss, lambda key: (A, y), optimiser=rule, steps=steps, key=jax.random.key(0), project=project,
                  chunk=steps).model)  # fmt: skip


@exponentiated.figure
def weights(runs: Runs):
    """Histograms of log w by teacher: exponentiated, clipped and through a softplus."""
    data = runs["system"].arrays
    teachers = [name.removeprefix("system_") for name in data if name.startswith("system_")]
    fig, axes = figure(len(teachers), width=3.4)
    rows = (("clipped", "gradient descent, clipped", CONTROL_COLOUR), ("softplus", "through a softplus", COLOURS[1]),
            ("system", "exponentiated", SYSTEM_COLOUR))  # fmt: skip
    for axis, teacher in zip(axes, teachers, strict=True):
        for arm, text, colour in rows:
            logs = np.clip(data[f"{arm}_{teacher}"], -8, 3)
            axis.hist(logs, bins=np.linspace(-8, 3, 56), histtype="step", lw=1.6, color=colour, label=text)
        label(axis, "log w (below -8: at the left edge)", "weights", f"{teacher} teacher", legend=teacher == teachers[0])
    return fig
