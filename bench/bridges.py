"""Schrödinger bridges between two snapshots: ours by entropic transport and by drifts, OTT's Sinkhorn, and POT's."""

import numpy as np

from harness import Comparison

SIGMA, STEPS = 0.5, 50
PLAN, DRIFTS = "plan", "drifts"


def inputs(case):
    """Two clouds in a few dimensions."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((case["points"], case["dimensions"]))
    second = rng.standard_normal((case["points"], case["dimensions"])) * 0.6 + 1.0
    return {"x0": first.astype(np.float32), "x1": second.astype(np.float32)}


comparison = Comparison(
    "A Schrödinger bridge of Brownian motion between two snapshots",
    {
        "plan, 1000 points, 5 dimensions": {"points": 1000, "dimensions": 5, "do": PLAN},
        "plan, 4000 points, 5 dimensions": {"points": 4000, "dimensions": 5, "do": PLAN},
        **{
            f"paths, {points} points, 2 dimensions": {"points": points, "dimensions": 2, "do": DRIFTS}
            for points in (1000, 10_000, 100_000)
        },
    },
    inputs,
    text="Plan: potentials until rows are met to 1e-4, with the mean cost of the plan. Paths: fifty steps for each point of the first "
    "snapshot, by plans of groups of 2000 points and by two turns of drifts on 100 chosen points; the cost is linear in points.",
    agree={"cost": 1e-2},
    shown={"cost": "mean squared way", "missed": "distance of means at the end"},
    turns=3,
)


def told(plan, x0, x1):
    """The plan's mean cost, by products in place of the matrix of all squares."""
    rows, columns = plan.sum(1), plan.sum(0)
    return {"cost": float(rows @ (x0**2).sum(1) + columns @ (x1**2).sum(1) - 2 * ((plan @ x1) * x0).sum())}


def only(case, do):
    if case["do"] != do:
        raise RuntimeError("not made for this case")


@comparison.side("broadsheet", packages=("jax", "broadsheet"))
def broadsheet(case, given):
    import jax

    from broadsheet.transport import schrodinger_bridge
    from broadsheet.transport.reference_processes import brownian

    x0, x1, key = given["x0"], given["x1"], jax.random.key(0)
    group = 2000 if case["do"] == DRIFTS else None

    def run():
        bridge = schrodinger_bridge(x0, x1, brownian(SIGMA), dt=1 / STEPS, group=group, key=key)
        if case["do"] == PLAN:
            return told(bridge.coupling(), x0, x1)
        paths, _ = bridge.forth(key)
        return {"missed": float(np.linalg.norm(np.asarray(paths[-1]).mean(0) - x1.mean(0)))}

    return run


@comparison.side("broadsheet, drifts in turns", packages=("jax", "broadsheet"))
def turned(case, given):
    import jax

    from broadsheet.transport import schrodinger_bridge
    from broadsheet.transport.drift_regression import Nystrom
    from broadsheet.transport.reference_processes import brownian

    only(case, DRIFTS)
    x0, x1, key = given["x0"], given["x1"], jax.random.key(0)

    def run():
        bridge = schrodinger_bridge(
            x0, x1, brownian(SIGMA), dt=1 / STEPS, method="ipfp", iterations=2, regressor=Nystrom(100), key=key
        )
        paths, _ = bridge.forth(key)
        return {"missed": float(np.linalg.norm(np.asarray(paths[-1]).mean(0) - x1.mean(0)))}

    return run


@comparison.side("OTT", environment="ott", packages=("ott-jax", "jax"))
def ott(case, given):
    import jax
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    only(case, PLAN)
    x0, x1 = jax.numpy.asarray(given["x0"]), jax.numpy.asarray(given["x1"])
    solver = jax.jit(sinkhorn.Sinkhorn(threshold=1e-4, max_iterations=20_000))

    def run():
        found = solver(linear_problem.LinearProblem(pointcloud.PointCloud(x0, x1, epsilon=2 * SIGMA**2)))
        return told(np.asarray(found.matrix), given["x0"], given["x1"])

    return run


@comparison.side("POT", packages=("POT", "numpy"))
def pot(case, given):
    import ot

    only(case, PLAN)

    def run():
        costs = ot.dist(given["x0"].astype(float), given["x1"].astype(float))
        return told(
            ot.sinkhorn([], [], costs, 2 * SIGMA**2, method="sinkhorn", stopThr=1e-4, numItermax=20_000),
            given["x0"],
            given["x1"],
        )

    return run
