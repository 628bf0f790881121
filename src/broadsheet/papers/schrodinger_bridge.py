"""Multi-marginal Schrödinger Bridges with Iterative Reference Refinement, arXiv 2408.06277.

Snapshots of a population at several times are bridged under a reference process, the reference's parameters are fitted to the
bridges' paths, and so on in turns. Every second snapshot is held out. Controls: the reference left at Brownian motion, a family
that does not hold the truth, splines through matched points, and the family's own equations fitted to means without a bridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator
from broadsheet.transport.bridges import GaussianBridge, Method, schrodinger_bridge
from broadsheet.transport.drift_regression import Nystrom
from broadsheet.transport.reference_processes import ReferenceSDE, brownian, euler_paths, family, grid
from broadsheet.transport.reference_refinement import SBIRR, increments_of, refit, stack_snapshots
from broadsheet.transport.snapshot_files import read_cells
from broadsheet.transport.snapshot_series import SnapshotSeries, branching, drifters, gene_ring, observe, predator_prey
from broadsheet.transport.trajectory_baselines import shoot, spline_paths
from broadsheet.transport.two_samples import wasserstein1

paper = Paper(
    slug="schrodinger-bridge",
    arxiv="2408.06277",
    title="Multi-marginal Schrödinger Bridges with Iterative Reference Refinement",
    published="2024-08-12",
    authors=3,
    basis="code",
    code="github.com/YunyiShen/SBIRR (no licence file found)",
    summary="Trajectories of a population from unpaired snapshots at several times, each individual seen once: the snapshots "
    "are bridged under a reference dynamics out of a family that the user names, the reference is refitted to the bridges' "
    "paths, and both are repeated, until bridges and law of motion agree.",
    topics=("Schrödinger bridges", "trajectory inference"),
    parts=(
        "broadsheet.transport.SBIRR",
        "broadsheet.transport.schrodinger_bridge",
        "broadsheet.transport.ReferenceSDE",
    ),
    verbs=("broadsheet transport trajectories CELLS.h5ad --time day",),
    requires=("transport",),
    notes='The authors\' bridges are two drifts, fitted in turns by Gaussian processes (`method="ipfp"`); here most runs take '
    "entropic transport with the reference's linear-noise transition density, exact for linear drifts and tens of times "
    "cheaper. Their refit is 20 steps of Adam, here least squares for families with few parameters; their kernel has unit "
    "length in x and t, here twice the spread of the snapshots and the time between them.",
)


@dataclass(frozen=True)
class Marginals:
    """Two normal laws, on the points of their quantiles."""

    points: int = 400
    spreads: tuple[float, float] = (1.0, 0.5)
    sigma: float = 1.0
    dt: float = 0.02
    turns: tuple[int, ...] = (1, 3, 10)  # of the drifts in turns; the last is the authors'
    simulated: int = 1000  # paths on which a drift is fitted
    turned_dt: float = 0.05
    support: int = 300  # points of their Gaussian process
    copies: int = 100  # paths from each point, for variances


@paper.experiment(
    presets={"smoke": Marginals(points=40, dt=0.2, turns=(1, 2), simulated=40, turned_dt=0.2, support=20, copies=2),
             "quick": Marginals(), "paper": Marginals(points=2000)},
    claims=[
        Claim("S1", "a bridge of two marginals is the Schrödinger bridge", kind="check", ablation="independent",
              reference="the closed form for normal laws; controls: pairs at random, and transport without noise",
              null="transport",
              checks=[at_most("covariance_error", 0.03), at_most("middle_error", 0.03)]),
        Claim("S1b", "drifts fitted in turns approach it", kind="check", ablation="independent",
              reference="the closed form for normal laws; control: pairs at random",
              checks=[at_most("ipfp_covariance_error", 0.1), at_most("ipfp_middle_error", 0.1)],
              reason="Over three seeds the covariance is off by 13 % and the variance by 15 % after ten turns, more than "
              "after three: what each regression errs adds up, and nothing after the first turn knows the reference."),
    ],
    cost=8.0,
)  # fmt: skip
def marginals(config: Marginals, key: Any, log: Log) -> Report:
    """Covariance of the ends and variance in the middle, against the closed form."""
    quantiles = norm.ppf((np.arange(config.points) + 0.5) / config.points)[:, None]
    x0, x1 = (spread * quantiles for spread in config.spreads)
    reference, keys = brownian(config.sigma), jax.random.split(key, 5)
    v0, v1, noise = float(np.var(x0)), float(np.var(x1)), config.sigma**2
    ends = (np.sqrt(4 * v0 * v1 + noise**2) - noise) / 2
    middle = (v0 + v1 + 2 * ends) / 4 + noise / 4

    def errors(first: np.ndarray, half: np.ndarray, last: np.ndarray, name: str = "") -> dict[str, float]:
        covariance = np.mean((first - first.mean()) * (last - last.mean()))
        return {
            f"{name}covariance_error": abs(float(covariance) / ends - 1),
            f"{name}middle_error": abs(float(np.var(half)) / middle - 1),
        }

    def many(bridge: Any, k: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = np.asarray(bridge.forth(k, bridge.first.repeat(config.copies, axis=0))[0], float)
        return path[0], path[len(path) // 2], path[-1]

    bridge = schrodinger_bridge(x0, x1, reference, dt=config.dt, key=keys[0])
    assert isinstance(bridge, GaussianBridge)
    coupling, paths = bridge.coupling(), many(bridge, keys[1])
    system = errors(*paths)
    system["covariance_error"] = abs(float(x0[:, 0] @ coupling @ x1[:, 0]) / ends - 1)
    log.progress(0.3)
    regressor = Nystrom(config.support)
    curve = []
    for turns in config.turns:
        turned = schrodinger_bridge(
            x0, x1, reference, dt=config.turned_dt, method="ipfp", iterations=turns, regressor=regressor,
            simulated=config.simulated, key=keys[2],
        )  # fmt: skip
        curve.append(errors(*many(turned, keys[3]), "ipfp_"))
    rng = generator(keys[4])
    other = rng.permutation(np.repeat(x1, config.copies, axis=0))
    start = np.repeat(x0, config.copies, axis=0)
    bent = config.sigma / 2 * rng.standard_normal(start.shape)
    arms = {
        "system": system | curve[-1],
        "independent": errors(start, (start + other) / 2 + bent, other),
        "transport": errors(x0, (x0 + x1) / 2, x1),
    }
    arms["independent"] |= {f"ipfp_{name}": value for name, value in arms["independent"].items()}
    at = np.linspace(-2, 2, 41)
    drift = np.stack([np.asarray(each.drift(at[:, None], 0.5))[:, 0] for each in (bridge, turned)])
    return Report(
        arms=arms,
        arrays={
            "at": at, "drift": drift, "exact": _exact_drift(at, v0, v1, ends, noise), "turns": config.turns,
            **{name[5:]: [each[name] for each in curve] for name in curve[0]},
        },
    )  # fmt: skip


def _exact_drift(x: np.ndarray, v0: float, v1: float, ends: float, noise: float) -> np.ndarray:
    """Of the bridge of normal laws at half its time: how far the last point is on average from this one, over the time left."""
    here = (v0 + v1 + 2 * ends) / 4 + noise / 4
    onward = (ends + v1) / 2 / here  # covariance with the last point, over the variance here
    return (onward - 1) * x / 0.5


@marginals.figure
def half_way(runs: Runs):
    """The bridge's drift at half its time, and errors over the turns of two drifts."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.plot(data["at"], data["exact"], "k--", label="closed form")
    for drift, colour, name in zip(
        data["drift"], (SYSTEM_COLOUR, COLOURS[1]), ("entropic transport", "drifts in turns"), strict=True
    ):
        left.plot(data["at"], drift, color=colour, label=name)
    label(left, "x", "drift at t = 1/2 (per unit of time)")
    for name, colour, text in (
        ("covariance_error", COLOURS[1], "covariance of the ends"),
        ("middle_error", COLOURS[2], "variance half-way"),
    ):
        right.plot(data["turns"], data[name], "o-", color=colour, label=text)
    right.axhline(0.1, color="k", lw=0.8, ls="--", label="bound")
    label(right, "turns of two drifts", "relative error")
    return fig


@dataclass(frozen=True)
class Population:
    """Snapshots of a simulated population, every second one held out."""

    points: int = 50
    snapshots: int = 9
    outer: int = 5  # turns, of the linear family too
    dt: float = 0.02
    turned_outer: int = 0  # of bridges by drifts in turns; 0: left out
    inner: int = 10  # turns of the drifts
    support: int = 300  # points of the drifts' Gaussian process
    starts: int = 20  # of the equations' fit to means
    draws: int = 5  # of as many paths as a snapshot has points, over which distances are averaged


@paper.experiment(
    presets={"smoke": Population(points=8, snapshots=5, outer=2, turned_outer=1, inner=1, support=20, starts=1, draws=1),
             "quick": Population(turned_outer=5), "paper": Population(outer=10, turned_outer=10)},
    claims=[
        Claim("S2", "the refit finds the rates from whole paths", kind="check", ablation="shuffled",
              reference="the rates of the simulation; control: the same steps, each given to another state",
              checks=[at_most("refit_error", 0.03)]),
        Claim("S3", "bridges of a refined reference are nearer than Brownian ones at times held out", kind="paper",
              where="abstract; Lotka-Volterra", ablation="linear", null=("splines", "shooting"), seeds=8, grows="outer",
              checks=[at_least("ratio", 2.0)],
              reason="The family's equations without noise, fitted to the means of the five snapshots in a second, do as "
              "well: 3.2 where the bridges do 3.1. What gains is that the family is known."),
        Claim("S3b", "so are they where drifts are fitted in turns, as the authors do", kind="paper",
              where="abstract; Lotka-Volterra", ablation="linear", null=("splines", "shooting"), seeds=8, grows="outer",
              checks=[at_least("turned_ratio", 2.0)],
              reason="1.7 over eight seeds, where entropic transport reaches 3.1: the noise is small against the way, and "
              "drifts fitted where paths went say little of where they should go. The equations fitted to the means reach "
              "3.2."),
        Claim("S5", "the misfit of paths falls over the turns", kind="check",
              reference="both halves of a turn lower one objective",
              no_ablation="It falls for any family, the linear one too: it is of the alternation, not of the family.",
              checks=[at_most("misfit_change", 0.0), at_most("largest_rise", 0.05)]),
        Claim("S6", "rates are learnt from snapshots alone", kind="paper", where="Lotka-Volterra; the refined reference",
              ablation="one-turn", null="shooting", seeds=8, grows="outer", checks=[at_most("rate_error", 0.12)],
              reason="The equations fitted to the means learn them as well: the worst rate is off by 3.8 %, here by 3.6 %."),
        Claim("S7", "paths meet the snapshots that were bridged", kind="check", ablation="unbridged",
              reference="the distance of two samples of the truth; control: paths without a drift from the snapshot before",
              checks=[at_most("met_over_floor", 1.5)]),
        Claim("S8", "the family that holds the truth gains more than one that does not", kind="paper",
              where="the choice of reference families", ablation="one-turn", null=("splines", "shooting"), seeds=8,
              grows="outer", checks=[at_most("over_linear", 1.0)],
              reason="So do splines through matched points, which know no family: 0.71 of the linear family's distance, "
              "where the right one has 0.39 and its equations fitted to the means 0.37."),
    ],
    cost=40.0,
)  # fmt: skip
def predators(config: Population, key: Any, log: Log) -> Report:
    """Lotka and Volterra's prey and predators."""
    simulated, again, inferred, walked = jax.random.split(key, 4)
    series, fresh = (predator_prey(k, config.points, config.snapshots) for k in (simulated, again))
    arms, arrays = infer(config, series, fresh, "lotka-volterra", inferred, log)
    times = grid(series.times[0], series.times[-1], config.dt)
    start = jnp.asarray(series.snapshots[0], jnp.float32)
    paths = euler_paths(series.truth, series.truth.sigma, start, jnp.asarray(times, jnp.float32), walked)
    steps = increments_of(paths, times)
    order = np.asarray(jax.random.permutation(walked, len(steps.x)))
    begin = family("lotka-volterra", 2, float(series.truth.sigma), walked)
    for arm, seen in (("system", steps), ("shuffled", steps._replace(v=jnp.asarray(np.asarray(steps.v)[order])))):
        arms.setdefault(arm, {})["refit_error"] = rate_error(refit(begin, seen), series.truth)
    return Report(arms=arms, arrays=arrays)


@paper.experiment(
    presets={"smoke": Population(points=8, snapshots=5, outer=2, dt=0.01, starts=1, draws=1),
             "quick": Population(snapshots=11, outer=6, dt=0.025),
             "paper": Population(snapshots=11, outer=10, dt=0.01, turned_outer=10)},
    claims=[
        Claim("S4", "bridges of a refined ring of three genes are nearer than Brownian ones", kind="paper",
              where="repressilator", ablation="linear", null=("splines", "shooting"), seeds=8, grows="outer",
              checks=[at_least("ratio", 2.0)],
              reason="The equations fitted to the means of the six snapshots do better, 4.3 against 3.7: after six turns the "
              "worst rate of the bridges' is still further off than theirs."),
    ],
    cost=25.0,
)  # fmt: skip
def genes(config: Population, key: Any, log: Log) -> Report:
    """The repressilator."""
    simulated, again, inferred = jax.random.split(key, 3)
    series, fresh = (gene_ring(k, config.points, config.snapshots) for k in (simulated, again))
    arms, arrays = infer(config, series, fresh, "repressilator", inferred, log)
    return Report(arms=arms, arrays=arrays)


@paper.experiment(
    presets={"smoke": Population(points=8, snapshots=5, outer=2, starts=1, draws=1),
             "quick": Population(points=111), "paper": Population(points=111, outer=10, turned_outer=10)},
    cost=15.0,
)  # fmt: skip
def currents(config: Population, key: Any, log: Log) -> Report:
    """Floats on a rotating current, generated: distances at times held out, and the current's parameters."""
    simulated, again, inferred = jax.random.split(key, 3)
    series, fresh = (drifters(k, config.points, config.snapshots) for k in (simulated, again))
    arms, arrays = infer(config, series, fresh, "vortex", inferred, log)
    return Report(arms=arms, arrays=arrays)


def rate_error(found: ReferenceSDE, truth: ReferenceSDE) -> float:
    """The largest relative error of a parameter, signs left out."""
    return max(abs(abs(float(found.params[name])) / abs(float(value)) - 1) for name, value in truth.params.items())


def infer(
    config: Population, series: SnapshotSeries, fresh: SnapshotSeries, name: str, key: Any, log: Log
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """All arms on one population, seen at every second time; `fresh` is another sample of it, for the floor."""
    seen, held = series.every(2), series.every(2, 1)
    rng = generator(key)
    seed, d, sigma = int(rng.integers(2**31)), seen.snapshots[0].shape[1], float(series.truth.sigma)
    x, t = stack_snapshots(seen.snapshots, seen.times)
    begin = {each: family(each, d, sigma, key) for each in (name, "linear")}

    def model(reference: ReferenceSDE, outer: int, method: Method = "gaussian") -> SBIRR:
        return SBIRR(
            reference, outer=outer, method=method, inner=config.inner, regressor=Nystrom(config.support), dt=config.dt,
            random_state=seed,
        ).fit(x, t)  # fmt: skip

    models = {"vanilla": model(brownian(sigma), 1), "system": model(begin[name], config.outer)}
    log.progress(0.3)
    models["linear"] = model(begin["linear"], config.outer)
    if config.turned_outer:
        log.progress(0.5)
        models["turned-vanilla"] = model(brownian(sigma), 1, "ipfp")
        models["turned"] = model(begin[name], config.turned_outer, "ipfp")
    log.progress(0.8)
    shot, missed = shoot(begin[name], seen.snapshots, seen.times, dt=config.dt, starts=config.starts, seed=seed)
    begin_at = jnp.tile(jnp.asarray(seen.snapshots[0], jnp.float32), (len(series.times), 1))
    pushed = observe(shot, begin_at, series.times, key, config.dt)
    places = {arm: [found.interpolate(when) for when in held.times] for arm, found in models.items()}
    places["splines"] = list(spline_paths(seen.snapshots, seen.times, held.times))
    places["shooting"] = pushed.every(2, 1).snapshots
    places["floor"] = fresh.every(2, 1).snapshots

    def distance(points: Float[np.ndarray, "paths d"], wanted: Float[np.ndarray, "points d"]) -> float:
        """Of as many paths as there are points, so that all arms have samples of one size."""
        size = min(len(points), len(wanted))
        draws = config.draws if len(points) > size else 1
        return float(np.mean([wasserstein1(rng.permutation(points)[:size], wanted) for _ in range(draws)]))

    far = {arm: np.array([distance(*both) for both in zip(at, held.snapshots, strict=True)]) for arm, at in places.items()}
    mean = {arm: float(each.mean()) for arm, each in far.items()}
    arms = {
        arm: {"distance": mean[arm], "ratio": mean["vanilla"] / mean[arm], "over_linear": mean[arm] / mean["linear"]}
        for arm in ("system", "linear", "splines", "shooting")
    }
    arms["one-turn"] = {"distance": mean["vanilla"], "ratio": 1.0, "over_linear": mean["vanilla"] / mean["linear"]}
    arms["system"]["floor"] = mean["floor"]
    arms["shooting"]["missed"] = missed
    if config.turned_outer:
        for arm, each in arms.items():
            each["turned_ratio"] = mean["vanilla"] / (mean["turned"] if arm == "system" else each["distance"])
        arms["system"]["turned_rate_error"] = rate_error(models["turned"].reference_, series.truth)
    for arm in ("system", "linear"):
        misfits = np.array(models[arm].misfits_)
        arms[arm] |= {
            "misfit_change": float(misfits[-1] - misfits[0]), "last_misfit": float(misfits[-1]),
            "largest_rise": float(np.max(misfits[1:] / misfits[:-1] - 1)),
        }  # fmt: skip
    history = [ReferenceSDE(series.truth.drift, params, sigma) for params in models["system"].history_]
    errors = [rate_error(each, series.truth) for each in history]
    arms["system"]["rate_error"], arms["one-turn"]["rate_error"] = errors[-1], errors[0]
    arms["shooting"]["rate_error"] = rate_error(shot, series.truth)
    inner = list(zip(seen.times, seen.snapshots, fresh.every(2).snapshots, strict=True))[1:]
    met = [(distance(models["system"].interpolate(when), points), distance(other, points)) for when, points, other in inner]
    arms["system"]["met_over_floor"] = max(here / floor for here, floor in met)
    arms["unbridged"] = {
        "met_over_floor": min(_unbridged(seen, k + 1, sigma, rng, distance) / met[k][1] for k in range(len(met)))
    }
    names = list(series.truth.params)
    return arms, {
        "times": series.times, "grid": models["system"].grid_, "held_times": held.times,
        "paths": np.float32(models["system"].paths_[:, ::5]), "brownian": np.float32(models["vanilla"].paths_[:, ::5]),
        **{f"snapshot_{k}": points for k, points in enumerate(series.snapshots)},
        **{f"far_{arm.replace('-', '_')}": each for arm, each in far.items()},
        "parameters": np.array([[abs(float(each.params[n])) for n in names] for each in history]),
        "truth": np.array([abs(float(series.truth.params[n])) for n in names]), "parameter_names": np.array(names),
    }  # fmt: skip


def _unbridged(seen: SnapshotSeries, k: int, sigma: float, rng: np.random.Generator, distance: Any) -> float:
    before = seen.snapshots[k - 1]
    moved = before + sigma * np.sqrt(seen.times[k] - seen.times[k - 1]) * rng.standard_normal(before.shape)
    return distance(moved, seen.snapshots[k])


@predators.figure
@genes.figure
@currents.figure
def trajectories(runs: Runs):
    """Paths through the snapshots in the first two dimensions, distances at times held out, and parameters over the turns."""
    data = runs["system"].arrays
    fig, axes = figure(2, 2)
    for axis, name, text in ((axes[0, 0], "paths", "refined reference"), (axes[0, 1], "brownian", "Brownian reference")):
        axis.plot(data[name][:, :, 0], data[name][:, :, 1], color="0.6", lw=0.4)
        for k in range(len(data["times"])):
            points, colour = data[f"snapshot_{k}"], COLOURS[k % 2]
            said = {0: "bridged", 1: "held out"}.get(k)
            axis.plot(points[:, 0], points[:, 1], "o" if k % 2 == 0 else "x", color=colour, ms=2.5, label=said)
        label(axis, "x1", "x2", text, legend=name == "paths")
    arms = [
        ("vanilla", "Brownian", CONTROL_COLOUR), ("linear", "linear family", COLOURS[3]), ("splines", "splines", COLOURS[2]),
        ("shooting", "equations fitted to means", COLOURS[4]), ("system", "refined", SYSTEM_COLOUR),
        ("floor", "truth again", "k"),
    ]  # fmt: skip
    width = 0.8 / len(arms) * np.diff(data["held_times"]).min()
    for k, (arm, name, colour) in enumerate(arms):
        axes[1, 0].bar(data["held_times"] + (k - 2.5) * width, data[f"far_{arm}"], width, color=colour, label=name)
    axes[1, 0].set_ylim(top=1.6 * axes[1, 0].get_ylim()[1])
    label(axes[1, 0], "time held out", "Wasserstein distance 1")
    turns = np.arange(1, len(data["parameters"]) + 1)
    for k, name in enumerate(data["parameter_names"]):
        axes[1, 1].plot(turns, data["parameters"][:, k] / data["truth"][k], "o-", color=COLOURS[k], ms=3, label=str(name))
    axes[1, 1].axhline(1, color="k", lw=0.8, ls="--")
    label(axes[1, 1], "turn", "parameter / truth")
    return fig


@dataclass(frozen=True)
class Fates:
    """Cells that choose between two fates, or a file of real ones; the times at odd places are held out."""

    data: str | None = None
    source: Literal["generated", "file"] = "generated"
    time: str | None = None  # column or array of the file that holds the times
    basis: str | None = None
    dims: int = 5
    points: int = 100
    sigma: float = 0.3
    dt: float = 0.05
    outer: int = 4
    epochs: int = 20  # of Adam, on batches of 1000 steps
    rate: float = 0.01
    draws: int = 5


@paper.experiment(
    presets={"smoke": Fates(dims=2, points=8, dt=0.02, outer=1, epochs=1, draws=1), "quick": Fates(),
             "paper": Fates(source="file", sigma=0.1, outer=10)},
    cost=25.0,
)  # fmt: skip
def fates(config: Fates, key: Any, log: Log) -> Report:
    """A potential learnt from snapshots: distances at times held out beside Brownian bridges and splines."""
    made, learnt = jax.random.split(key)
    if config.source == "file":
        if config.data is None:
            raise MissingDataError(
                "The paper's size needs embryoid bodies: eb_velocity_v5.npz of github.com/KrishnaswamyLab/TrajectoryNet "
                "(--set time=sample_labels --set basis=pcs) or eb_data.npy of the authors' repository; --data FILE."
            )
        cells = read_cells(config.data, config.time, config.basis, config.dims)
        times = np.unique(cells.t)
        snapshots = [cells.x[cells.t == when] for when in times]
    else:
        times, snapshots, _ = branching(made, config.points, dimensions=config.dims)
    x, t = stack_snapshots(snapshots[::2], times[::2])
    rng = generator(learnt)
    seed = int(rng.integers(2**31))
    common: dict[str, Any] = {"dt": config.dt, "random_state": seed}
    models = {
        "vanilla": SBIRR(brownian(config.sigma), outer=1, **common),
        "system": SBIRR(family("gradient", x.shape[1], config.sigma, learnt), outer=config.outer, rate=config.rate,
                        epochs=config.epochs, batch=1000, **common),
        "linear": SBIRR(family("linear", x.shape[1], config.sigma, learnt), outer=config.outer, **common),
    }  # fmt: skip
    for k, each in enumerate(models.values()):
        each.fit(x, t)
        log.progress((k + 1) / 4)
    places = {arm: [each.interpolate(when) for when in times[1::2]] for arm, each in models.items()}
    places["splines"] = list(spline_paths(snapshots[::2], times[::2], times[1::2]))

    def distance(points: np.ndarray, wanted: np.ndarray) -> float:
        size = min(len(points), len(wanted), 500)
        one = [wasserstein1(rng.permutation(points)[:size], rng.permutation(wanted)[:size]) for _ in range(config.draws)]
        return float(np.mean(one))

    far = {arm: np.array([distance(*both) for both in zip(at, snapshots[1::2], strict=True)]) for arm, at in places.items()}
    arms = {
        arm: {"distance": float(each.mean()), "ratio": float(far["vanilla"].mean() / each.mean())} for arm, each in far.items()
    }
    arms["system"]["last_misfit"] = models["system"].misfits_[-1]
    shown = slice(None, None, max(1, len(x) // 60))
    return Report(
        arms=arms,
        arrays={
            "held_times": times[1::2], **{f"far_{arm}": each for arm, each in far.items()},
            "paths": models["system"].paths_[:, shown, :2], "brownian": models["vanilla"].paths_[:, shown, :2],
            "cells": np.concatenate([part[:300, :2] for part in snapshots]),
            "when": np.repeat(times, [min(300, len(part)) for part in snapshots]),
        },
    )  # fmt: skip


@fates.figure
def branches(runs: Runs):
    """Paths in the first two dimensions, and distances at times held out."""
    data = runs["system"].arrays
    fig, axes = figure(3)
    for axis, name, text in ((axes[0], "paths", "learnt potential"), (axes[1], "brownian", "Brownian reference")):
        axis.plot(data[name][:, :, 0], data[name][:, :, 1], color="0.6", lw=0.4)
        drawn = axis.scatter(*data["cells"].T, c=data["when"], s=3, cmap="viridis")
        label(axis, "x1", "x2", text, legend=False)
    fig.colorbar(drawn, ax=axes[1], label="time")
    arms = (("vanilla", "Brownian", CONTROL_COLOUR), ("linear", "linear family", COLOURS[3]),
            ("splines", "splines", COLOURS[2]), ("system", "learnt potential", SYSTEM_COLOUR))  # fmt: skip
    for k, (arm, name, colour) in enumerate(arms):
        axes[2].bar(data["held_times"] + 0.2 * (k - 1.5), data[f"far_{arm}"], 0.2, color=colour, label=name)
    label(axes[2], "time held out", "Wasserstein distance 1")
    return fig
