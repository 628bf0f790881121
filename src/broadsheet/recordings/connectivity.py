"""Functional connectivity by plain means: correlation, lagged correlation, partial correlation, and a Poisson regression on
what
all neurons did before. All matrices are [target, source]; what is symmetric tells no direction.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, gammaln

from broadsheet.errors import InputError

Link = Literal["exp", "softplus"]


def correlation(counts: Num[np.ndarray, "bins neurons"]) -> Float[np.ndarray, "neurons neurons"]:
    """Pearson's, at lag 0; 0 for a neuron that never changes."""
    z = _standardised(counts)
    return z.T @ z / len(z)


def lagged_correlation(
    counts: Num[np.ndarray, "bins neurons"], lags: tuple[int, int] = (1, 3)
) -> Float[np.ndarray, "target source"]:
    """The largest correlation of the target with the source some bins before it, over the lags from the first to the last."""
    if not 0 < lags[0] <= lags[1] < len(counts):
        raise InputError(f"Lags of {lags} bins; from 1 on, in rising order and fewer than {len(counts)} bins are wanted.")
    z = _standardised(counts)
    return np.max([z[k:].T @ z[:-k] / len(z) for k in range(lags[0], lags[1] + 1)], axis=0)


def partial_correlation(counts: Num[np.ndarray, "bins neurons"], folds: int = 3) -> Float[np.ndarray, "neurons neurons"]:
    """From a sparse inverse covariance (`GraphicalLassoCV`), at lag 0; the diagonal is 1."""
    from sklearn.covariance import GraphicalLassoCV

    precision = GraphicalLassoCV(alphas=4, n_refinements=2, cv=folds).fit(_standardised(counts)).precision_
    scale = np.sqrt(np.diag(precision))
    made = -precision / np.outer(scale, scale)
    np.fill_diagonal(made, 1.0)
    return made


def _standardised(counts: np.ndarray) -> np.ndarray:
    z = np.asarray(counts, float) - np.mean(counts, axis=0)
    return z / np.maximum(z.std(axis=0), 1e-12)


def past_sums(
    counts: Num[np.ndarray, "bins neurons"], edges: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 10)
) -> Float[np.ndarray, "bins lags neurons"]:
    """What each neuron did before each bin: its spikes at lags from `edges[k] + 1` to `edges[k + 1]`; zeros before the
    start."""
    total = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    at = np.arange(len(counts))
    sums = [total[np.maximum(at - a, 0)] - total[np.maximum(at - b, 0)] for a, b in pairwise(edges)]
    return np.stack(sums, axis=1)


class PoissonRegression(NamedTuple):
    """Counts as Poisson draws with means `link(bias + features @ weights)`.

    - `weights`: (features, neurons); `bias`: (neurons,).
    """

    weights: Float[np.ndarray, "features neurons"]
    bias: Float[np.ndarray, " neurons"]
    link: Link

    def rates(self, features: Float[np.ndarray, "bins features"]) -> Float[np.ndarray, "bins neurons"]:
        """Expected counts."""
        u = features @ self.weights + self.bias
        return np.exp(np.minimum(u, 20.0)) if self.link == "exp" else np.logaddexp(0, u)

    def log_likelihood(
        self, features: Float[np.ndarray, "bins features"], counts: Num[np.ndarray, "bins neurons"]
    ) -> Float[np.ndarray, " bins"]:
        """Of each bin, in nats."""
        return poisson_log_likelihood(counts, self.rates(features))


def poisson_log_likelihood(
    counts: Num[np.ndarray, "bins neurons"], rates: Float[np.ndarray, "*bins neurons"]
) -> Float[np.ndarray, " bins"]:
    """Of each bin, over neurons, in nats."""
    rates = np.maximum(rates, 1e-12)
    return (counts * np.log(rates) - rates - gammaln(counts + 1)).sum(axis=1)


def fit_poisson(
    features: Float[np.ndarray, "bins features"], counts: Num[np.ndarray, "bins neurons"], *, ridge: float = 1.0,
    link: Link = "exp", tolerance: float = 1e-2, iterations: int = 500,
) -> PoissonRegression:  # fmt: skip
    """All neurons at once by L-BFGS; the problem is convex. `tolerance`: the largest slope left, in coordinates in which a
    step of 1
    is a standard error. `ridge`: `ridge / 2` times the squared weights is added to minus the
    log-likelihood (the bias is free)."""
    features, counts = np.asarray(features, float), np.asarray(counts, float)
    if len(features) != len(counts) or link not in ("exp", "softplus"):
        raise InputError(
            f"{len(features)} bins of features, {len(counts)} of counts, link {link!r}; as many, and exp or softplus."
        )
    bins, size, neurons = len(counts), features.shape[1], counts.shape[1]
    totals = counts.sum(axis=0)
    mean = np.maximum(totals / bins, 1e-6)
    # in coordinates in which the curvature at constant rates is the same in all directions, the search takes a few dozen steps
    centre = features.mean(axis=0)
    curvature = features.T @ features - bins * np.outer(centre, centre) + np.eye(size) * (ridge / mean.mean() + 1e-9 * bins)
    root = solve_triangular(cholesky(curvature, lower=True), np.eye(size), lower=True)
    moments = features.T @ counts
    scale = np.sqrt(mean)

    def weights(z: np.ndarray) -> np.ndarray:
        return root.T @ z / scale

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z, b = flat[:-neurons].reshape(size, neurons), flat[-neurons:] / np.sqrt(bins * mean)
        w = weights(z)
        bias = b - centre @ w + start
        np.matmul(features, w, out=u)
        np.add(u, bias, out=u)
        if link == "exp":
            value = -np.vdot(moments, w) - totals @ bias
            slope = np.exp(np.minimum(u, 20.0, out=u), out=u)
            back, sums = features.T @ slope - moments, slope.sum(axis=0)
            value, sums = value + sums.sum(), sums - totals
        else:
            rate = np.logaddexp(0, u) + 1e-12
            value = rate.sum() - (counts * np.log(rate)).sum()
            slope = expit(u) * (1 - counts / rate)
            back, sums = features.T @ slope, slope.sum(axis=0)
        back = back - np.outer(centre, sums) + ridge * w
        value += ridge * np.vdot(w, w) / 2
        return value, np.concatenate([(root @ (back / scale)).ravel(), sums / np.sqrt(bins * mean)])

    u = np.empty(counts.shape)  # one array for all steps: new ones of this size would cost as much as what is done with them
    start = np.log(mean) if link == "exp" else np.log(np.expm1(mean))
    options = {"maxiter": iterations, "gtol": tolerance, "ftol": 1e-13, "maxcor": 20}
    found = minimize(loss, np.zeros((size + 1) * neurons), jac=True, method="L-BFGS-B", options=options).x
    w = weights(found[:-neurons].reshape(size, neurons))
    return PoissonRegression(w, found[-neurons:] / np.sqrt(bins * mean) - centre @ w + start, link)


def coupling(
    counts: Num[np.ndarray, "bins neurons"], edges: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 10), *, ridge: float = 1.0,
    link: Link = "exp", train: Bool[np.ndarray, " bins"] | None = None,
) -> tuple[Float[np.ndarray, "target source"], PoissonRegression]:  # fmt: skip
    """The largest weight of each source on each target over lags, of a Poisson regression of all neurons on the past of all,
    and the
    regression itself (features: `past_sums`, flattened). `train`: the bins to fit."""
    past = past_sums(np.asarray(counts, float), edges)
    features, chosen = past.reshape(len(past), -1), slice(None) if train is None else train
    found = fit_poisson(features[chosen], np.asarray(counts, float)[chosen], ridge=ridge, link=link)
    weights = found.weights.reshape(len(edges) - 1, counts.shape[1], counts.shape[1])
    return weights.max(axis=0).T, found
