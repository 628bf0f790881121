"""Data-set compression: descriptors of environments, the entropy of a set, and greedy cover."""

import numpy as np

from harness import Comparison

H = 0.015


def structures(count, seed=0):
    """Rattled copper cells of 32 atoms, some with a vacancy or strained."""
    from ase.build import bulk

    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        cell = bulk("Cu", cubic=True, a=3.6 * (1 + rng.uniform(-0.04, 0.04))).repeat((2, 2, 2))
        cell.positions += rng.uniform(0.01, 0.3) * rng.standard_normal(cell.positions.shape)
        if rng.random() < 0.2:
            del cell[int(rng.integers(len(cell)))]
        made.append(cell)
    return made


def inputs(case):
    """Descriptors of all environments, and how many each structure has; none where descriptors are the question."""
    if case["task"] == "describe":
        return {}
    from broadsheet.atoms.compression import structure_entropies
    from broadsheet.atoms.environments import describe_all

    found = describe_all(structures(case["structures"]))
    return {"X": found.X, "counts": np.bincount(found.owner), "own": structure_entropies(found)}


comparison = Comparison(
    "Compression of atomistic data sets: descriptors, entropy and greedy cover",
    {
        "descriptors, 6 000 environments": {"task": "describe", "structures": 200},
        "entropy, 6 000 environments": {"task": "entropy", "structures": 200},
        "entropy, 24 000 environments": {"task": "entropy", "structures": 800},
        "cover, 200 of 800 structures": {"task": "cover", "structures": 800, "size": 200},
    },
    inputs,
    text="Rattled, strained and defective copper, 32 neighbours, cutoff 5 Å, width 0.015 1/Å, float64 on both sides. `quests` is the "
    "authors' package, compiled by numba. The cover starts from the entropies of the structures, which quests is given and ours finds on the way.",
    agree={"value": 1e-6},
)


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    from broadsheet.atoms.compression import select
    from broadsheet.atoms.environments import EnvironmentSet, describe_all, entropy

    if case["task"] == "describe":
        made = structures(case["structures"])
        return lambda: {"value": describe_all(made, whole_shells=False).X.sum()}
    if case["task"] == "entropy":
        return lambda: {"value": entropy(given["X"], H)}
    environments = EnvironmentSet(given["X"], np.repeat(np.arange(len(given["counts"])), given["counts"]))
    return lambda: {"value": weighted(select(environments, case["size"], underflow=True).indices)}


@comparison.side("quests", environment="quests", packages=("quests", "numba"))
def authors(case, given):
    from quests.compression.fps import msc
    from quests.descriptor import get_descriptors
    from quests.entropy import entropy

    if case["task"] == "describe":
        made = structures(case["structures"])
        return lambda: {"value": get_descriptors(made, k=32, cutoff=5.0).sum()}
    if case["task"] == "entropy":
        return lambda: {"value": entropy(given["X"], h=H)}
    parts = np.split(given["X"], np.cumsum(given["counts"])[:-1])
    return lambda: {"value": weighted(msc(parts, given["own"], case["size"], h=H))}


def weighted(picks):
    """A number that tells orders of picks apart."""
    return float(np.dot(np.asarray(picks), np.sqrt(np.arange(1, len(picks) + 1))))
