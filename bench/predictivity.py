"""Predictivity of neurons: fits, halves and correlations of a thousand units, and of features more and fewer."""

import sys

import numpy as np

from harness import Comparison

HALVES, SPLITS, TRIALS = 5, 2, 20


def inputs(case):
    """Features, single trials, halves of trials, and splits that keep conditions whole."""
    rng = np.random.default_rng(0)
    samples, units = case["samples"], case["units"]
    X = rng.standard_normal((samples, case["features"]))
    mean = X @ rng.standard_normal((case["features"], units)) / np.sqrt(case["features"])
    halves = np.zeros((HALVES, TRIALS), bool)
    for k in range(HALVES):
        order = list(range(TRIALS))
        np.random.RandomState(seed=1234 + k).shuffle(order)  # as the lab's program draws them
        halves[k, order[: TRIALS // 2]] = True
    condition = np.repeat(np.arange(samples // 10), 10)
    train = np.array([np.isin(condition, rng.permutation(samples // 10)[: samples * 4 // 50]) for _ in range(SPLITS)])
    alphas = np.sort(np.concatenate([np.geomspace(1e-9, 1e5, 15), 5 * np.geomspace(1e-4, 1e4, 9)]))
    return {
        "X": X,
        "Y": mean + 2 * rng.standard_normal((TRIALS, samples, units)),
        "halves": halves,
        "train": train,
        "alphas": alphas,
    }


SIZES = {
    **{f"{units} units": {"samples": 800, "features": 64, "units": units} for units in (100, 300, 1000)},
    "1000 units, 200 features": {"samples": 800, "features": 200, "units": 1000},
    "1000 units, 2400 samples": {"samples": 2400, "features": 64, "units": 1000},
}
comparison = Comparison(
    "Neural predictivity, corrected for noise: 2 splits, 5 pairs of halves, 24 penalties",
    SIZES,
    inputs,
    text="The same splits, halves and penalties; the value is the mean over units. The lab's program also scores the training samples. "
    "RidgeCV is a loop over splits and halves with scikit-learn, its correlations vectorised.",
    agree={"rho": 1e-6},
    turns=3,
)


@comparison.side("broadsheet", packages=("numpy",))
def ours(case, given):
    from broadsheet.recordings import neural_predictivity

    splits = [(np.flatnonzero(train), np.flatnonzero(~train)) for train in given["train"]]

    def run():
        found = neural_predictivity(
            given["X"], given["Y"], splits=splits, halves=given["halves"], alphas=given["alphas"], leave_out="samples"
        )
        return {"rho": np.nanmean(found.each)}

    return run


@comparison.side("brainmodel_utils", packages=("scikit-learn", "scipy"), environment="predictivity")
def lab(case, given):
    """From the folder that BRAINMODEL_UTILS names: it is in no registry."""
    import os

    sys.path.insert(0, os.environ["BRAINMODEL_UTILS"])
    from brainmodel_utils.metrics.consistency import get_linregress_consistency

    splits = [{"train": np.flatnonzero(train), "test": np.flatnonzero(~train)} for train in given["train"]]
    kwargs = {"regression_type": "RidgeCV", "regression_kwargs": {"alphas": given["alphas"]}}

    def run():
        mapping = {"map_type": "sklinear", "map_kwargs": kwargs}
        found = get_linregress_consistency(given["X"], given["Y"], mapping, num_bootstrap_iters=HALVES, splits=splits)
        return {"rho": np.nanmean(found["test"]["r_xy_n_sb"])}

    return run


@comparison.side("scikit-learn RidgeCV", packages=("scikit-learn",))
def ridge_cv(case, given):
    from sklearn.linear_model import RidgeCV

    def correlation(a, b):
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))

    def run():
        X, rho = given["X"], []
        parts = [(given["Y"][way].mean(axis=0), given["Y"][~way].mean(axis=0)) for way in given["halves"]]
        whole = given["Y"].mean(axis=0)
        for train in given["train"]:
            made = [RidgeCV(given["alphas"]).fit(X[train], y[train]).predict(X[~train]) for y in (whole, *sum(parts, ()))]
            r = correlation(made[0], whole[~train])
            for k, (first, second) in enumerate(parts):
                pairs = (made[2 * k + 1], made[2 * k + 2]), (first[~train], second[~train])
                xx, yy = (2 * part / (1 + part) for part in (correlation(*pair) for pair in pairs))
                rho.append(r / np.sqrt(xx * yy))
        return {"rho": np.nanmean(rho)}

    return run
