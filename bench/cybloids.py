"""Brownian particles under feedback: steps of many interacting particles, with the delay and without."""

import numpy as np

from harness import Comparison

DT, STIFFNESS, RADIUS, WIDTH, DEPTH = 1e-4, 5.0, 1.2, 0.2, 5.0


def inputs(case):
    """Positions at the start on a loose square lattice, (particles, 2)."""
    side = int(np.ceil(np.sqrt(case["particles"])))
    lattice = 1.3 * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[: case["particles"]]
    return {"start": lattice + 0.05 * np.random.default_rng(0).standard_normal(lattice.shape)}


comparison = Comparison(
    "Cybloids: pair feedback on N Brownian particles in the plane, 2000 steps",
    {
        f"N = {n}, {'delay of 200 steps' if delay else 'no delay'}": {"particles": n, "steps": 2000, "delay": delay}
        for n in (64, 256)
        for delay in (0, 200)
    },
    inputs,
    text="Gaussian ring potentials between all pairs, WCA cores, overdamped Langevin steps; every side computes all pairs. JAX MD "
    "has no feedback delay, so it is there without one; it runs its Brownian dynamics with the same energies. Noise differs, so "
    "the radius of gyration is what has to agree.",
    agree={"gyration": 0.02},
)


def gyration(positions):
    return float(np.sqrt(np.mean(np.sum((positions - positions.mean(0)) ** 2, -1))))


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax

    from broadsheet.matter import CybloidSim, gaussian_ring, pair

    sim = CybloidSim(
        case["particles"], D0=1.0, dt=DT, delay=case["delay"] * DT, rule=pair(gaussian_ring(DEPTH, RADIUS, WIDTH)),
        core="wca", start=given["start"],
    )  # fmt: skip

    def run():
        path = sim.run(jax.random.key(0), case["steps"], case["steps"])
        return {"gyration": gyration(np.asarray(path[-1]))}

    return run


@comparison.side("NumPy", packages=("numpy",))
def plain(case, given):
    n = case["particles"]

    def run():
        rng = np.random.default_rng(1)
        position = given["start"].copy()
        history = [position] * max(1, case["delay"])
        for t in range(case["steps"]):
            delayed = history[t % len(history)] if case["delay"] else position
            delta = position[:, None] - delayed[None]
            r = np.sqrt(np.sum(delta**2, -1))
            np.fill_diagonal(r, np.inf)
            off = r - RADIUS
            with np.errstate(invalid="ignore"):
                size = -DEPTH / WIDTH**2 * off * np.exp(-(off**2) / (2 * WIDTH**2))
            force = np.sum((np.where(np.isfinite(r), size, 0) / r)[..., None] * delta, 1)
            delta = position[:, None] - position[None]
            r = np.sqrt(np.sum(delta**2, -1))
            np.fill_diagonal(r, np.inf)
            six = r**-6.0
            size = np.where(r < 2 ** (1 / 6), np.minimum(24 / r * (2 * six**2 - six), 500.0), 0.0)
            force += np.sum((size / r)[..., None] * delta, 1)
            moved = position + force * DT + np.sqrt(2 * DT) * rng.standard_normal((n, 2))
            history[t % len(history)] = position
            position = moved
        return {"gyration": gyration(position)}

    return run


@comparison.side("JAX MD", environment="jaxmd", packages=("jax-md", "jax"), devices=("cpu", "gpu"))
def jax_md(case, given):
    import jax
    import jax.numpy as jnp
    from jax_md import simulate, smap, space

    if case["delay"]:
        raise RuntimeError("JAX MD has no delayed feedback")
    displacement, shift = space.free()

    def energy_of(r, **_):
        ring = -DEPTH * jnp.exp(-((r - RADIUS) ** 2) / (2 * WIDTH**2))
        six = jnp.where(r < 2 ** (1 / 6), jnp.maximum(r, 0.6), 2 ** (1 / 6)) ** -6.0
        return ring + 4 * (six**2 - six)

    energy = smap.pair(energy_of, space.metric(displacement))
    init, apply = simulate.brownian(energy, shift, dt=DT, kT=1.0, gamma=1.0)
    start = jnp.asarray(given["start"], jnp.float32)

    @jax.jit
    def path(key):
        return jax.lax.fori_loop(0, case["steps"], lambda _, state: apply(state), init(key, start))

    def run():
        return {"gyration": gyration(np.asarray(path(jax.random.PRNGKey(0)).position))}

    return run
