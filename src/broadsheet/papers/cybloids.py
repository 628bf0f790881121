"""Cybloids, arXiv 2408.00336: colloids whose interaction is software.

One particle in a well around its own delayed position diffuses slower (harmonic) or swims (annular); many particles in
programmed pair potentials crystallise as programmed, until the delay melts them. The control is the same particles with
the feedback off, or with an instant computer. Units: diameter d = 1; for one particle D0 and the delay give the scale; for
many, friction 1 and core energy 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.matter import CybloidSim, gaussian_ring, harmonic, pair, ring
from broadsheet.matter.observables import (
    bond_fluctuation,
    bond_order,
    diffusion_constant,
    heading_autocorrelation,
    log_slope,
    mean_speed,
    msd,
    nearest_distance,
    radial_distribution,
)

paper = Paper(
    slug="cybloids",
    arxiv="2408.00336",
    title="Cybloids - Creation and Control of Cybernetic Colloids",
    published="2024-08-01",
    authors=4,
    basis="reconstructed",
    summary="Colloids are tracked by a camera, and a computer moves optical traps by any rule it is given, so that the "
    "particles interact by software and with a delay. A particle tied to its own past diffuses slower in a harmonic well and "
    "swims in an annular one; many build the crystal that the programmed pair potential selects.",
    topics=("soft matter", "active matter", "feedback control"),
    parts=("broadsheet.matter.CybloidSim", "broadsheet.matter.observables", "broadsheet.matter.read_tracks"),
    verbs=("broadsheet matter msd TRACKS.csv",),
    notes=(
        "The abstract was read, and that of a sequel; functional forms, sizes and all numbers but the exact results of the "
        "delayed Langevin equation are ours.",
        "The spacing of the crystal is the programmed radius itself: a mean over all particles is about 5 % larger, because "
        "those on the edge count a neighbour of the next shell.",
    ),
)


@dataclass(frozen=True)
class Single:
    """Independent particles tied to their own delayed position; the delay is the unit of time."""

    kappa_tau: tuple[float, ...] = (1.0, 4.0, 10.0)  # stiffness / friction x delay
    feedback: float = 1.0  # 0 switches it off
    particles: int = 1000
    duration: float = 100.0  # delays, after the transient
    transient: float = 10.0  # delays
    dt: float = 0.005  # delays


LAGS = np.array([0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0])
"""Lags of the displacement, in delays."""


@paper.experiment(
    presets={
        "smoke": Single(kappa_tau=(4.0,), particles=20, duration=45.0, transient=1.0, dt=0.01),
        "quick": Single(),
        "paper": Single(kappa_tau=(0.5, 1.0, 4.0, 10.0), particles=5000, duration=500.0),
    },
    variants={"free": {"feedback": 0.0}},
    claims=[
        Claim("C1", "a harmonic tie slows diffusion by exactly (1 + κτ)⁻²", kind="paper", where="abstract (subdiffusion)",
              ablation="free", null=NONE_YET, grows="duration", checks=[equals("diffusion_4", 0.040, tol=0.004)]),
        Claim("C2", "motion is subdiffusive between free diffusion and the slowed one", kind="paper", where="abstract",
              ablation="free", null=NONE_YET, grows="duration", checks=[at_most("exponent_4", 0.5), at_most("exponent_10", 0.5),
                                      at_least("short_exponent_4", 0.95), at_least("short_exponent_10", 0.95)]),
    ],
    cost=14.0,
)  # fmt: skip
def harmonic_tie(config: Single, key, log: Log) -> Report:
    """Mean squared displacement in a harmonic well around the particle's own past."""
    metrics: dict[str, float] = {}
    curves = []
    for k, kappa_tau in enumerate(config.kappa_tau):
        if k == 0 or config.feedback:  # without feedback they are all the same
            x = _single(harmonic(config.feedback * kappa_tau), 1.0, config, jax.random.fold_in(key, k), frame=0.01)
            values = msd(x, np.round(LAGS / 0.01).astype(int).tolist())
        curves.append(values)
        at = dict(zip(LAGS.tolist(), values, strict=True))
        metrics |= {
            f"diffusion_{kappa_tau:g}": (at[40.0] - at[20.0]) / 20 / 4,
            f"exponent_{kappa_tau:g}": log_slope(np.array([0.1, 10.0]), np.array([at[0.1], at[10.0]])),
            f"short_exponent_{kappa_tau:g}": log_slope(np.array([0.01, 0.05]), np.array([at[0.01], at[0.05]])),
        }
        log.progress((k + 1) / len(config.kappa_tau))
    return Report(metrics=metrics, arrays={"lags": LAGS, "msd": curves, "kappa_tau": config.kappa_tau})


def _single(rule, D0: float, config: Single | Swim | Map, key, *, frame: float) -> np.ndarray:
    """Trajectories (frames, particles, 2) of independent particles, `frame` delays apart, after the transient."""
    every = round(frame / config.dt)
    steps = round((config.transient + config.duration) / config.dt)
    start = jnp.zeros((config.particles, 2))
    sim = CybloidSim(config.particles, D0=D0, dt=config.dt, delay=1.0, rule=rule, core=None, start=start)
    return np.asarray(sim.run(key, steps - steps % every, every))[round(config.transient / frame) :]


@harmonic_tie.figure
def subdiffusion(runs: Runs):
    """Mean squared displacement against lag, with the exact late diffusion."""
    fig, axis = figure()
    data, free = runs["system"].arrays, runs["free"].arrays
    axis.loglog(free["lags"], free["msd"][0], color=CONTROL_COLOUR, label="feedback off")
    for kappa_tau, values in zip(data["kappa_tau"], data["msd"], strict=True):
        (line,) = axis.loglog(data["lags"], values, "o-", ms=3, label=f"κτ = {kappa_tau:g}")
        late = data["lags"] >= 5
        slope = 4 * data["lags"] / (1 + kappa_tau) ** 2
        axis.loglog(data["lags"][late], slope[late], "--", color=line.get_color(), lw=0.8)
    label(axis, "lag (delays)", "MSD (D₀ × delay)", "dashed: 4 D₀ t / (1 + κτ)²")
    return fig


@dataclass(frozen=True)
class Swim:
    """Independent particles in an annular well around their own past; delay and radius are the units."""

    kappa_tau: float = 5.0
    feedback: float = 1.0
    noise_speed: float = 0.003  # D0 delay / radius², for the speed
    noise_heading: float = 0.001  # the same, for the heading
    small: float = 0.05  # radius² / (4 D0 delay) of a ring below the noise
    large: float = 20.0  # and above
    particles: int = 1000
    duration: float = 100.0
    transient: float = 10.0
    dt: float = 0.01


@paper.experiment(
    presets={
        "smoke": Swim(particles=20, duration=45.0, transient=2.0, dt=0.05),
        "quick": Swim(),
        "paper": Swim(particles=5000, duration=500.0, dt=0.005),
    },
    variants={"off": {"feedback": 0.0}},
    claims=[
        Claim("C3", "an annular tie swims at κR / (1 + κτ)", kind="paper", where="abstract (activity)", ablation="off",
              null=NONE_YET, grows="duration",
              checks=[equals("speed_ratio", 1.0, tol=0.02)]),
        Claim("C4", "its heading diffuses at 4 D₀ / (vτ)²", kind="paper", where="abstract (activity)", ablation="off",
              null=NONE_YET, grows="duration",
              checks=[equals("heading_ratio", 1.0, tol=0.1, over="mean")]),
        Claim("C5", "a ring below the noise slows a particle, a ring above it makes it active", kind="paper",
              where="abstract of the sequel", ablation="off", null=NONE_YET, grows="duration",
              checks=[at_most("small_ring", 0.2), at_least("large_ring", 100)]),
    ],
    cost=16.0,
)  # fmt: skip
def annular_tie(config: Swim, key, log: Log) -> Report:
    """Speed, persistence and late diffusion in an annular well around the particle's own past."""
    kappa = config.kappa_tau
    speed = kappa / (1 + kappa)
    rule = ring(config.feedback * kappa, 1.0)
    keys = jax.random.split(key, 4)
    swimming = _single(rule, config.noise_speed, config, keys[0], frame=0.5)
    log.progress(0.25)
    turning = _single(rule, config.noise_heading, config, keys[1], frame=0.5)
    log.progress(0.5)
    lags = np.arange(8, 33, 4)
    memory = heading_autocorrelation(turning, 2, lags.tolist())
    rate = np.polyfit(lags * 0.5, -np.log(np.maximum(memory, 1e-3)), 1)[0]
    late = {}
    for k, (name, size) in enumerate({"small_ring": config.small, "large_ring": config.large}.items()):
        D0 = 1 / (4 * size)
        late[name] = diffusion_constant(_single(rule, D0, config, keys[2 + k], frame=0.5), (40, 80), 0.5) / D0
        log.progress(0.75 + 0.25 * k)
    return Report(
        metrics={
            "speed_ratio": mean_speed(swimming, 2, 0.5) / speed,
            "heading_ratio": rate / (4 * config.noise_heading / speed**2),
            **late,
        },
        arrays={
            "path": swimming[:80, :6],
            "lags": lags * 0.5,
            "memory": memory,
            "predicted": np.exp(-lags * 0.5 * 4 * config.noise_heading / speed**2),
        },
    )


@annular_tie.figure
def swimmers(runs: Runs):
    """Trajectories with the ring and without, and the memory of the heading."""
    fig, (left, right) = figure(2)
    for name, colour in (("off", CONTROL_COLOUR), ("system", SYSTEM_COLOUR)):
        for k, path in enumerate(np.swapaxes(runs[name].arrays["path"], 0, 1)):
            left.plot(*(path - path[0]).T, color=colour, lw=1, label=name if k == 0 else None)
        right.plot(runs[name].arrays["lags"], runs[name].arrays["memory"], "o-", color=colour, label=name)
    right.plot(runs["system"].arrays["lags"], runs["system"].arrays["predicted"], "k--", lw=0.8, label="exp(−4 D₀ t / (vτ)²)")
    left.set_aspect("equal")
    label(left, "x (ring radii)", "y (ring radii)", "40 delays")
    label(right, "lag (delays)", "heading autocorrelation")
    return fig


@dataclass(frozen=True)
class Map:
    """Late diffusion over ring size and stiffness."""

    sizes: tuple[float, ...] = (0.05, 0.5, 2.0, 20.0)  # radius² / (4 D0 delay)
    kappa_taus: tuple[float, ...] = (1.0, 5.0)
    particles: int = 200
    duration: float = 60.0
    transient: float = 10.0
    dt: float = 0.02


@paper.experiment(
    presets={
        "smoke": Map(sizes=(1.0,), kappa_taus=(1.0,), particles=10, duration=41.0, transient=1.0),
        "quick": Map(),
        "paper": Map(sizes=tuple(np.logspace(-1.5, 1.5, 13).round(6).tolist()), kappa_taus=(0.5, 1.0, 2.0, 5.0, 10.0),
                     particles=2000, duration=500.0, dt=0.005),
    },
    cost=5.0,
)  # fmt: skip
def phase_map(config: Map, key, log: Log) -> Report:
    """Where a ring slows and where it drives: late diffusion over free diffusion, by ring size and stiffness."""
    found = np.zeros((len(config.kappa_taus), len(config.sizes)))
    for i, kappa_tau in enumerate(config.kappa_taus):
        for j, size in enumerate(config.sizes):
            D0 = 1 / (4 * size)
            x = _single(ring(kappa_tau, 1.0), D0, config, jax.random.fold_in(key, i * 100 + j), frame=0.5)
            found[i, j] = diffusion_constant(x, (40, 80), 0.5) / D0
        log.progress((i + 1) / len(config.kappa_taus))
    return Report(
        metrics={"slowest": found.min(), "fastest": found.max()},
        arrays={"ratio": found, "sizes": config.sizes, "kappa_taus": config.kappa_taus},
    )


@phase_map.figure
def regimes(runs: Runs):
    """Late diffusion by ring size, for each stiffness."""
    data = runs["system"].arrays
    fig, axis = figure()
    for kappa_tau, row in zip(data["kappa_taus"], data["ratio"], strict=True):
        axis.loglog(data["sizes"], row, "o-", label=f"κτ = {kappa_tau:g}")
    axis.axhline(1.0, color=CONTROL_COLOUR, label="feedback off")
    label(axis, "R² / (4 D₀ τ)", "late diffusion / D₀")
    return fig


@dataclass(frozen=True)
class Crystal:
    """Many particles with a programmed pair potential; time in friction d² / energy."""

    radii: tuple[float, ...] = (1.3, 1.45, 1.6)  # d
    depth: float = 2.0  # energy; 0 switches the feedback off
    width: float = 0.2  # d
    particles: int = 37
    kT: float = 0.05  # energy
    duration: float = 20.0
    dt: float = 1e-3


@paper.experiment(
    presets={
        "smoke": Crystal(radii=(1.3, 1.6), particles=9, duration=0.2),
        "quick": Crystal(),
        "paper": Crystal(radii=(1.3, 1.45, 1.6, 2.0), particles=400, duration=200.0),
    },
    variants={"off": {"depth": 0.0}},
    claims=[
        Claim("C6", "the programmed radius sets the spacing of a hexagonal crystal", kind="paper", where="abstract",
              ablation="off", null=NONE_YET, grows="duration",
              checks=[equals("spacing_slope", 1.05, tol=0.15), at_least("hexatic", 0.85)]),
    ],
    cost=6.0,
)  # fmt: skip
def crystals(config: Crystal, key, log: Log) -> Report:
    """Spacing and order of the crystal against the programmed radius, from one random start."""
    spacing, order, final, curves = [], [], [], []
    edges = np.linspace(0.7, 5.0, 60)
    for k, radius in enumerate(config.radii):
        x = _many(pair(gaussian_ring(config.depth, radius, config.width)), config, key, 0.0, config.duration)
        spacing.append(np.mean([nearest_distance(points) for points in x[-5:]]))
        order.append(np.mean([bond_order(points, 6, 1.3 * radius).mean() for points in x[-5:]]))
        final.append(x[-1])
        curves.append(radial_distribution(x[-20:], edges)[1])
        log.progress((k + 1) / len(config.radii))
    slope = np.polyfit(config.radii, spacing, 1)[0]
    return Report(
        metrics={
            "spacing_slope": slope,
            "hexatic": np.mean(order),
            **{f"spacing_{r:g}": s for r, s in zip(config.radii, spacing, strict=True)},
        },
        arrays={
            "radii": config.radii,
            "spacing": spacing,
            "final": final,
            "r": (edges[1:] + edges[:-1]) / 2,
            "g": curves,
        },
    )


def _many(rule, config: Crystal, key, delay: float, duration: float) -> np.ndarray:
    """Trajectory (frames, particles, 2), 0.1 time units apart, from random positions in a box of side 1.5 d sqrt(N)."""
    side = 1.5 * np.sqrt(config.particles)
    sim = CybloidSim(config.particles, D0=config.kT, dt=config.dt, delay=delay, rule=rule, box=side)
    every = round(0.1 / config.dt)
    steps = round(duration / config.dt)
    return np.asarray(sim.run(key, steps - steps % every, every))


@crystals.figure
def snapshots(runs: Runs):
    """The crystals, their radial distribution, and the feedback-free control."""
    data, off = runs["system"].arrays, runs["off"].arrays
    fig, axes = figure(len(data["radii"]) + 1, width=3.2)
    for axis, radius, points, free in zip(axes, data["radii"], data["final"], off["final"], strict=False):
        axis.plot(*free.T, "o", color=CONTROL_COLOUR, ms=4, alpha=0.5, label="feedback off")
        axis.plot(*points.T, "o", color=SYSTEM_COLOUR, ms=5, label="crystal")
        axis.set_aspect("equal")
        label(axis, "x (d)", "y (d)", f"programmed radius {radius:g} d", legend=bool(radius == data["radii"][0]))
    for radius, curve in zip(data["radii"], data["g"], strict=True):
        axes[-1].plot(data["r"], curve, label=f"R = {radius:g} d")
    axes[-1].plot(off["r"], off["g"][0], color=CONTROL_COLOUR, label="feedback off")
    label(axes[-1], "distance (d)", "g(r)")
    return fig


@dataclass(frozen=True)
class Melting(Crystal):
    """One crystal under a slower and slower computer."""

    radii: tuple[float, ...] = (1.6,)
    delays: tuple[float, ...] = (0.0, 0.1, 1.0, 5.0)  # the last two are judged
    duration: float = 40.0


@paper.experiment(
    presets={
        "smoke": Melting(particles=9, duration=1.2, delays=(0.0, 0.1)),
        "quick": Melting(),
        "paper": Melting(particles=100, duration=200.0, delays=(0.0, 0.1, 0.3, 1.0, 3.0, 5.0)),
    },
    claims=[
        Claim("C7", "delay shakes the crystal and then collapses it", kind="paper", where="abstract of the sequel",
              ablation="instant", null=NONE_YET, grows="duration", checks=[at_least("shaking", 3.0), at_most("collapse", 0.9)]),
    ],
    cost=8.0,
)  # fmt: skip
def melting(config: Melting, key, log: Log) -> Report:
    """Bond fluctuations and spacing of a crystal against the delay; a second instant run is the control."""
    radius = config.radii[0]
    rule = pair(gaussian_ring(config.depth, radius, config.width))
    again, first = jax.random.split(key)
    runs = [(delay, first) for delay in config.delays] + [(0.0, again)]
    shaking, spacing, final = [], [], []
    for k, (delay, run_key) in enumerate(runs):
        x = _many(rule, config, run_key, delay, config.duration)
        late = x[-len(x) // 4 :]
        shaking.append(bond_fluctuation(late, 1.3 * radius))
        spacing.append(np.mean([nearest_distance(points, 1) for points in late[::10]]))
        final.append(x[-1])
        log.progress((k + 1) / len(runs))
    middle = config.delays.index(1.0) if 1.0 in config.delays else -1
    return Report(
        arms={
            "system": {
                "shaking": shaking[middle] / shaking[0],
                "collapse": spacing[len(config.delays) - 1] / spacing[0],
                "sd_instant": shaking[0],
            },
            "instant": {"shaking": shaking[-1] / shaking[0], "collapse": spacing[-1] / spacing[0]},
        },
        arrays={"delays": config.delays, "sd": shaking[:-1], "spacing": spacing[:-1], "final": final[:-1]},
    )


@melting.figure
def delay_series(runs: Runs):
    """Bond fluctuation and spacing against delay, and the last crystal."""
    data = runs["system"].arrays
    fig, (left, middle, right) = figure(3)
    left.plot(data["delays"], data["sd"], "o-", color=SYSTEM_COLOUR, label="under delay")
    left.axhline(data["sd"][0], color=CONTROL_COLOUR, label="instant computer")
    left.set_ylim(0)
    label(left, "delay (time units)", "fluctuation of bond lengths (d)")
    middle.plot(data["delays"], data["spacing"], "o-", color=SYSTEM_COLOUR, label="under delay")
    middle.axhline(data["spacing"][0], color=CONTROL_COLOUR, label="instant computer")
    middle.set_ylim(0.9)
    label(middle, "delay (time units)", "nearest distance (d)")
    right.plot(*data["final"][0].T, "o", color=CONTROL_COLOUR, label="instant")
    right.plot(*data["final"][-1].T, "o", color=SYSTEM_COLOUR, label=f"delay {data['delays'][-1]:g}")
    right.set_aspect("equal")
    label(right, "x (d)", "y (d)")
    return fig


@dataclass(frozen=True)
class Shells(Crystal):
    """Two wells, at R and at sqrt(2) R: the distances of a square lattice."""

    radii: tuple[float, ...] = (1.3,)
    second: float = 1.41421356  # position of the second well, in R; 0 leaves it out
    width: float = 0.15


@paper.experiment(
    presets={
        "smoke": Shells(particles=9, duration=0.2),
        "quick": Shells(duration=40.0),
        "paper": Shells(particles=400, duration=200.0),
    },
    variants={"one-well": {"second": 0.0}},
    claims=[
        Claim("C8", "a second well programmes a square lattice", kind="paper", where="abstract (structure at will)",
              ablation="one-well", null=NONE_YET, grows="duration", checks=[
                  at_least("square", {"paper": 0.7}), at_least("square_over_hexagonal", {"paper": 0.0})]),
    ],
    cost=3.0,
)  # fmt: skip
def square(config: Shells, key, log: Log) -> Report:
    """Square or hexagonal? One programmed well against two."""
    radius = config.radii[0]
    law = gaussian_ring(config.depth, radius, config.width)
    if config.second:
        law = law + gaussian_ring(config.depth, config.second * radius, config.width)  # type: ignore[assignment]
    x = _many(pair(law), config, key, 0.0, config.duration)
    four, six = (np.mean([bond_order(points, k, 1.2 * radius).mean() for points in x[-5:]]) for k in (4, 6))
    return Report(metrics={"square": four, "hexagonal": six, "square_over_hexagonal": four - six}, arrays={"final": x[-1]})


@square.figure
def lattices(runs: Runs):
    """The lattice with two wells and with one."""
    fig, axis = figure()
    axis.plot(*runs["one-well"].arrays["final"].T, "o", color=CONTROL_COLOUR, ms=4, label="one well")
    axis.plot(*runs["system"].arrays["final"].T, "o", color=SYSTEM_COLOUR, label="two wells")
    axis.set_aspect("equal")
    label(axis, "x (d)", "y (d)")
    return fig
