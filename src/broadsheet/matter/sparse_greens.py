"""Formulas for tractions: local functions of the image, convolved with a few kernels, and a sparse regression over them.

F = sum c_a grad P_a + sum c_ab P_a grad P_b, where each potential P is one of six sources convolved with one kernel of the
distance, after the published code of arXiv 2303.00176.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.matter.traction_baselines import ForceEstimator, as_images, paired
from broadsheet.matter.traction_errors import nmse

SOURCES = ("z", "|grad z|^2", "lap z", "z^2", "z |grad z|^2", "z lap z")
"""Local functions of an image z."""

KERNELS = ("1/r", "r", "log r")
"""Without a length; exponentials exp(-r / l) have one."""


def local_sources(images: Float[np.ndarray, "cells height width"], cutoff: float) -> Float[np.ndarray, "cells 6 height width"]:
    """The six sources; waves beyond `cutoff` cycles a pixel are left out of the image first."""
    height, width = images.shape[1:]
    sides = (2 * height, 2 * width)
    qy, qx = np.fft.fftfreq(sides[0])[:, None], np.fft.rfftfreq(sides[1])[None]
    modes = np.fft.rfft2(images, sides) * (np.hypot(qy, qx) <= cutoff)

    def back(values: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(values, sides)[:, :height, :width]

    z, lap = back(modes), back(-4 * np.pi**2 * (qx**2 + qy**2) * modes)
    slope = back(2j * np.pi * qx * modes) ** 2 + back(2j * np.pi * qy * modes) ** 2
    return np.stack([z, slope, lap, z**2, z * slope, z * lap], axis=1)


def kernel_modes(size: tuple[int, int], kernels: tuple[str, ...], lengths: tuple[float, ...]) -> tuple[list[str], np.ndarray]:
    """Names and Fourier modes of kernels on twice the size; each has a sum of squares of 1."""
    rows, columns = (np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side)) for side in size)
    r = np.hypot(rows[:, None], columns)
    soft = np.maximum(r, 0.5)
    known = {"1/r": 1 / soft, "r": r, "log r": np.log(soft)}
    unknown = set(kernels) - set(known)
    if unknown or not all(length > 0 for length in lengths) or not (kernels or lengths):
        raise InputError(
            f"Kernels {kernels} with lengths {lengths}: some of {', '.join(KERNELS)}, or positive lengths, are wanted."
        )
    made = {name: known[name] for name in kernels} | {f"exp(-r/{length:g})": np.exp(-r / length) for length in lengths}
    return list(made), np.stack([np.fft.rfft2(each / np.linalg.norm(each)) for each in made.values()])


class SparseGreens(ForceEstimator, BaseEstimator):
    """Tractions by a formula of few terms, chosen by an elastic net.

    **Parameters:**

    - `lengths`: of exponential kernels, pixels; `kernels`: more of them, of `"1/r"`, `"r"` and `"log r"`.
    - `products`: whether P grad P' are candidates too.
    - `alphas`: penalties, of which the one that predicts held-out cells best is taken; `l1_ratio`: as in scikit-learn.
    - `cutoff`: of waves of the image, cycles a pixel; `pixels`: drawn from each cell; `random_state`.

    **Attributes:** `terms_`, names of all candidates; `coef_`, in kPa; `alpha_`.
    """

    def __init__(
        self, lengths: tuple[float, ...] = (9.0, 26.0), kernels: tuple[str, ...] = KERNELS, *, products: bool = True,
        alphas: tuple[float, ...] = (0.1, 0.01, 1e-3, 1e-4), l1_ratio: float = 0.5, cutoff: float = 0.25, pixels: int = 400,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.lengths = lengths
        self.kernels = kernels
        self.products = products
        self.alphas = alphas
        self.l1_ratio = l1_ratio
        self.cutoff = cutoff
        self.pixels = pixels
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SparseGreens:
        """Chooses terms by pixels of all cells; with one penalty or one cell nothing is held out."""
        X, F = paired(X, y, channels=1)
        self.image_scale_ = float(np.sqrt((X**2).mean()))
        if not self.image_scale_ > 0:
            raise InputError("SparseGreens: the images are 0 everywhere.")
        names, _ = kernel_modes(X.shape[2:], tuple(self.kernels), tuple(self.lengths))
        potentials = [f"({source} * {name})" for source in SOURCES for name in names]
        self.terms_ = [f"grad {p}" for p in potentials]
        if self.products:
            self.terms_ += [f"{p} grad {q}" for p in potentials for q in potentials]
        rng = np.random.default_rng(self.random_state)
        chosen = [rng.choice(F[0, 0].size, min(self.pixels, F[0, 0].size), replace=False) for _ in X]
        rows = [self._candidates(image, at) for image, at in zip(X, chosen, strict=True)]
        targets = [force.reshape(2, -1)[:, at].ravel() for force, at in zip(F, chosen, strict=True)]
        grams, crosses = [a @ a.T for a in rows], [a @ b for a, b in zip(rows, targets, strict=True)]
        counts = [len(b) for b in targets]
        self.alpha_ = self.alphas[0]
        if len(self.alphas) > 1 and len(X) > 1:
            cut = max(1, len(X) // 5)
            found = [self._solved(sum(grams[cut:]), sum(crosses[cut:]), sum(counts[cut:]), alpha) for alpha in self.alphas]
            errors = [self._error(X[:cut], F[:cut], coef) for coef in found]
            self.alpha_ = self.alphas[int(np.argmin(errors))]
        self.coef_ = self._solved(sum(grams), sum(crosses), sum(counts), self.alpha_)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "cells 2 height width"]:
        check_is_fitted(self, "coef_")
        return self._predicted(as_images(X, 1), self.coef_)

    def formula(self, count: int = 5) -> list[tuple[str, float]]:
        """The terms with the largest coefficients; each potential has about unit scale, so that they can be compared."""
        check_is_fitted(self, "coef_")
        order = np.argsort(-np.abs(self.coef_))[:count]
        return [(self.terms_[k], float(self.coef_[k])) for k in order if self.coef_[k]]

    def _potentials(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P (potentials, height, width) and its gradients (potentials, 2, height, width) of one cell."""
        height, width = image.shape[1:]
        sides = (2 * height, 2 * width)
        _, kernels = kernel_modes((height, width), tuple(self.kernels), tuple(self.lengths))
        sources = local_sources(image / self.image_scale_, self.cutoff)[0]
        sources = sources / np.array([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])[:, None, None]
        modes = (np.fft.rfft2(sources, sides)[:, None] * kernels).reshape(-1, sides[0], width + 1)
        qy, qx = np.fft.fftfreq(sides[0])[:, None], np.fft.rfftfreq(sides[1])[None]
        slope = 2j * np.pi * np.stack(np.broadcast_arrays(qx, qy))
        whole = np.fft.irfft2(np.concatenate([modes[:, None], modes[:, None] * slope], axis=1), sides)
        whole = whole[..., :height, :width]
        return whole[:, 0], whole[:, 1:]

    def _candidates(self, image: np.ndarray, at: np.ndarray | slice) -> Float[np.ndarray, "terms values"]:
        values, slopes = self._potentials(image)
        values = values.reshape(len(values), -1)[:, at]
        slopes = slopes.reshape(len(slopes), 2, -1)[:, :, at]
        made = slopes.reshape(len(slopes), -1)
        if not self.products:
            return made
        pairs = (values[:, None, None] * slopes[None]).reshape(len(values) ** 2, -1)
        return np.concatenate([made, pairs])

    def _solved(self, gram: np.ndarray, cross: np.ndarray, count: int, alpha: float) -> np.ndarray:
        """Coefficients for a penalty, with each candidate scaled to unit power and in proportion to the forces' scale."""
        scale = np.sqrt(np.maximum(np.diag(gram) / count, 1e-300))
        inner, outer = gram / np.outer(scale, scale), cross / scale
        size = np.abs(outer).max() / count or 1.0
        values, vectors = np.linalg.eigh(inner)
        keep = values > 1e-10 * values[-1]
        root = np.sqrt(values[keep])
        design, target = root[:, None] * vectors[:, keep].T, (vectors[:, keep].T @ outer) / root
        rule = ElasticNet(alpha=alpha * size * count / len(target), l1_ratio=self.l1_ratio, fit_intercept=False, max_iter=300,
                          tol=1e-3, precompute=inner, selection="cyclic")  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            rule.fit(np.asfortranarray(design), target)
        return rule.coef_ / scale

    def _predicted(self, X: np.ndarray, coef: np.ndarray) -> np.ndarray:
        kept = np.flatnonzero(coef)
        made = np.zeros((len(X), 2, *X.shape[2:]))
        if not kept.size:
            return made
        for k, image in enumerate(X):
            values, slopes = self._potentials(image)
            made[k] = np.einsum("a,acyx->cyx", coef[: len(values)], slopes)
            if self.products:
                table = coef[len(values) :].reshape(len(values), len(values))
                made[k] += np.einsum("byx,bcyx->cyx", np.einsum("ab,ayx->byx", table, values), slopes)
        return made

    def _error(self, X: np.ndarray, F: np.ndarray, coef: np.ndarray) -> float:
        return float(nmse(F, self._predicted(X, coef)).mean())
