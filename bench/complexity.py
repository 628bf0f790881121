"""Lempel-Ziv complexity of spike trains."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Trains of independent spikes, one in ten steps."""
    rng = np.random.default_rng(0)
    return {"trains": rng.random((case["trains"], case["length"])) < 0.1}


comparison = Comparison(
    "Lempel-Ziv complexity of spike trains",
    {"1000 trains of 1000 steps": {"trains": 1000, "length": 1000}, "one train of 1000 steps": {"trains": 1, "length": 1000},
     "100 trains of 10 000 steps": {"trains": 100, "length": 10_000}},
    inputs,
    text="Components of the exhaustive history (1976), the same number for all. antropy scans by Kaspar and Schuster's algorithm, "
    "compiled by Numba, one train a call; here all trains go through one compiled scan of shift-and matching, or one through the "
    "integers of Python.",
    agree={"components": 0.0},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    from broadsheet.neurons.complexity import components, lz76

    trains = given["trains"]

    def run():
        return {"components": lz76(trains[0]) if len(trains) == 1 else components(trains).sum()}

    return run


@comparison.side("antropy", environment="antropy", packages=("antropy", "numba"))
def antropy(case, given):
    from antropy import lziv_complexity

    trains = given["trains"].astype(int)

    def run():
        return {"components": sum(lziv_complexity(train, normalize=False) for train in trains)}

    return run
