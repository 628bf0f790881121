"""Trajectories from five snapshots of prey and predators: how long it takes, and how far the held-out snapshots are missed."""

import importlib.machinery
import itertools
import os
import sys
import types
from pathlib import Path

import numpy as np

from harness import Comparison

SIGMA, DT, POINTS = 0.1, 0.02, 50
FIRST, WHOLE = "one bridge each", "the law learnt"


def inputs(case):
    """Lotka and Volterra's equations with noise at times 0 to 8, each individual seen once; odd times are held out."""
    rng = np.random.default_rng(0)
    x = np.array([5.0, 4.0]) + 0.1 * rng.random((9 * POINTS, 2))
    seen = [x[:POINTS]]
    for k in range(1, 9):
        for _ in range(round(1 / DT)):
            both = x[:, 0] * x[:, 1]
            rate = np.stack([x[:, 0] - 0.4 * both, 0.1 * both - 0.4 * x[:, 1]], axis=1)
            x = x + DT * rate + SIGMA * np.sqrt(DT) * rng.standard_normal(x.shape)
        seen.append(x[k * POINTS : (k + 1) * POINTS])
    return {"snapshots": np.stack(seen)}


comparison = Comparison(
    "Trajectories between five snapshots, with those between them held out",
    {FIRST: {"do": FIRST}, WHOLE: {"do": WHOLE}},
    inputs,
    text="Fifty points a snapshot, steps of .02. One bridge each: Brownian bridges between neighbours; the authors' program, whose "
    "Gaussian process is exact, makes one turn of its two drifts. The law learnt: five turns of bridging and refitting; flow matching "
    "is trained for 5000 steps a pair of snapshots, without a law. Shown is the mean distance (Wasserstein 1) at the held-out times.",
    shown={"distance": "mean distance at held-out times"},
    turns=3,
)


def missed(given, places):
    """Mean over the held-out times of the distance of fifty predicted points to the fifty real ones."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    rng, found = np.random.default_rng(0), []
    for k, points in zip((1, 3, 5, 7), places, strict=True):
        costs = cdist(rng.permutation(np.asarray(points, float))[:POINTS], given["snapshots"][k])
        found.append(costs[linear_sum_assignment(costs)].mean())
    return {"distance": float(np.mean(found))}


def only(case, do):
    if case["do"] != do:
        raise RuntimeError("not made for this case")


def ours(given, method, outer, inner):
    import jax

    from broadsheet.transport import SBIRR
    from broadsheet.transport.reference_processes import brownian, family
    from broadsheet.transport.reference_refinement import stack_snapshots

    x, t = stack_snapshots(list(given["snapshots"][::2]), 2.0 * np.arange(5))
    reference = brownian(SIGMA) if outer == 1 else family("lotka-volterra", 2, SIGMA, jax.random.key(0))
    model = SBIRR(reference, outer=outer, method=method, inner=inner, dt=DT)

    def run():
        found = model.fit(x, t)
        return missed(given, [found.interpolate(float(k)) for k in (1, 3, 5, 7)])

    return run


@comparison.side("broadsheet", packages=("jax", "broadsheet"))
def entropic(case, given):
    return ours(given, "gaussian", 1 if case["do"] == FIRST else 5, 1)


@comparison.side("broadsheet, drifts in turns", packages=("jax", "broadsheet"))
def turned(case, given):
    return ours(given, "ipfp", *((1, 1) if case["do"] == FIRST else (5, 10)))


@comparison.side("SBIRR (authors)", environment="sbirr", packages=("torch", "pyro-ppl"))
def authors(case, given):
    only(case, FIRST)
    folder = os.environ.get("SBIRR_CODE", "")
    if not Path(folder, "package", "SBIRR").is_dir():
        raise RuntimeError("left out: SBIRR_CODE names no folder with the authors' program")
    sys.meta_path.insert(0, _WithoutPlots())
    sys.path.insert(0, str(Path(folder, "package")))
    import torch
    from SBIRR.experiments_helper import get_settings
    from SBIRR.Schrodinger import SchrodingerTrain, gpIPFP

    parts = [torch.tensor(part) for part in given["snapshots"][::2]]

    def run():
        sigma, _, steps, times, _, drift = get_settings("LV", len(parts))
        make = lambda ref_drift=None: gpIPFP(ref_drift=ref_drift, N=steps, device=torch.device("cpu"))  # noqa: E731
        train = SchrodingerTrain(parts, times, sigma)
        _, paths = train.iter_drift_fit(make, drift, ipfpiter=1, iteration=1, disablebar=True)
        return missed(given, [paths[:, 50 * k, :-1].numpy() for k in (1, 3, 5, 7)])

    return run


class _WithoutPlots:
    """Empty modules in place of those that the authors' program draws with."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("GPy", "pods", "celluloid"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        made = types.ModuleType(spec.name)
        made.__path__ = []
        made.__getattr__ = self.anything
        return made

    @staticmethod
    def anything(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    def exec_module(self, module):
        pass


@comparison.side("OTT, chained", environment="ott", packages=("ott-jax", "jax"))
def ott(case, given):
    import jax.numpy as jnp
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    only(case, FIRST)
    parts = [jnp.asarray(part, jnp.float32) for part in given["snapshots"][::2]]
    solver = sinkhorn.Sinkhorn(threshold=1e-3, max_iterations=20_000)

    def run():
        rng, places = np.random.default_rng(0), []
        for first, second in itertools.pairwise(parts):
            problem = linear_problem.LinearProblem(pointcloud.PointCloud(first, second, epsilon=4 * SIGMA**2))
            plan = np.asarray(solver(problem).matrix, float)
            pairs = rng.choice(plan.size, POINTS, p=(plan / plan.sum()).ravel())
            ends = np.asarray(first)[pairs // POINTS], np.asarray(second)[pairs % POINTS]
            places.append((ends[0] + ends[1]) / 2 + SIGMA * np.sqrt(0.5) * rng.standard_normal((POINTS, 2)))
        return missed(given, places)

    return run


@comparison.side("flow matching (torchcfm)", environment="sbirr", packages=("torchcfm", "torch"))
def flow(case, given):
    import torch
    from torchcfm.conditional_flow_matching import SchrodingerBridgeConditionalFlowMatcher

    only(case, WHOLE)
    parts = [torch.tensor(part, dtype=torch.float32) for part in given["snapshots"][::2]]

    def run():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 64), torch.nn.SELU(), torch.nn.Linear(64, 64), torch.nn.SELU(), torch.nn.Linear(64, 2)
        )
        optimiser, matcher = torch.optim.Adam(net.parameters(), 1e-3), SchrodingerBridgeConditionalFlowMatcher(sigma=SIGMA)
        for _ in range(5000):
            loss = 0.0
            for k, (first, second) in enumerate(itertools.pairwise(parts)):
                t, x, u = matcher.sample_location_and_conditional_flow(first, second)
                loss = loss + ((net(torch.cat([x, t[:, None] + k], dim=1)) - u) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        x, places = parts[0], []
        with torch.no_grad():
            for step in range(400):
                if step % 100 == 50:
                    places.append(x.numpy().copy())
                x = x + 0.01 * net(torch.cat([x, torch.full((POINTS, 1), step / 100)], dim=1))
        return missed(given, places)

    return run
