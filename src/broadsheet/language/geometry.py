"""The spectrum of a model's representations and two readings of it, arXiv 2509.23024; definitions as in its official code.

RankMe is exp of the entropy of the normalised eigenvalues of the centred covariance (an effective rank), alpha-ReQ the exponent
of their power-law decay. RankMe up and alpha down is an expansion of the representation, the reverse a compression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh
from scipy.ndimage import median_filter

from broadsheet.errors import InputError

Spectrum = Float[np.ndarray, " d"]
Features = Float[np.ndarray, "samples d"]
EPSILON = float(np.finfo(np.float64).eps)
PAPER_RANKS = (12, 100)
"""Ranks over which the decay is fitted, both included."""


def spectrum(
    features: Features,
    *,
    center: bool = True,
    kind: Literal["eigenvalues", "singular"] = "eigenvalues",
    most: int | None = None,
) -> Spectrum:
    """Descending eigenvalues of the covariance of the features, or the singular values of the feature matrix.

    **Arguments:** `features`: (samples, d), cast to float64; `center`: subtract the mean first; `kind`: `"singular"` with
    `center=False` is the original RankMe; `most`: keep so many (the official code keeps 2048).

    **Raises:** `InputError` for fewer than two samples, or numbers that are not finite.
    """
    if kind not in ("eigenvalues", "singular"):
        raise InputError(f"kind is {kind!r}; eigenvalues or singular is wanted.")
    made = StreamingCovariance(np.shape(features)[1]).update(features)
    values = made.spectrum(center=center)
    values = values if kind == "eigenvalues" else np.sqrt(values * (made.count - 1))
    return values[:most]


class StreamingCovariance:
    """Covariance of features that arrive in batches, in float64; no more than (d, d) is held at once.

    Sums are taken around the first batch's mean, so that a large common offset costs no precision. `rounding` is the relative
    precision of the coarsest batch.
    """

    def __init__(self, d: int) -> None:
        self.count = 0
        self.rounding = EPSILON
        self._origin = np.zeros(d)
        self._sum = np.zeros(d)
        self._products = np.zeros((d, d))

    def update(self, features: Features) -> StreamingCovariance:
        """Takes in a batch (samples, d)."""
        kind = np.asarray(features).dtype
        self.rounding = max(self.rounding, float(np.finfo(kind).eps) if kind.kind == "f" else EPSILON)
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or batch.shape[1] != len(self._sum):
            raise InputError(f"Features have the shape {batch.shape}; (samples, {len(self._sum)}) is wanted.")
        if not np.isfinite(batch).all():
            raise InputError("Features hold NaN or infinity (half precision overflows: read them as float32).")
        if self.count == 0:
            self._origin = batch.mean(axis=0)
        batch = batch - self._origin
        self.count += len(batch)
        self._sum += batch.sum(axis=0)
        self._products += batch.T @ batch
        return self

    def matrix(self, *, center: bool = True) -> Float[np.ndarray, "d d"]:
        """The covariance (d, d), or with `center=False` the second moment, both over count - 1."""
        if self.count < 2:
            raise InputError(f"{self.count} samples have no covariance; at least 2 are wanted.")
        mean = self._sum / self.count
        total = self._products - self.count * np.outer(mean, mean)
        if not center:
            shift = self._origin + mean
            total = total + self.count * np.outer(shift, shift)
        return total / (self.count - 1)

    def spectrum(self, *, center: bool = True) -> Spectrum:
        """Descending eigenvalues; those beyond the rank are 0.

        The rank is no more than the samples (less one where they are centred), and what lies below the rounding of the
        features or of the decomposition (as in `numpy.linalg.matrix_rank`) does not count.
        """
        values = eigh(self.matrix(center=center), eigvals_only=True)[::-1]
        squares = np.diag(self.matrix(center=False)).max()
        noise = len(values) * max(self.rounding**2 * squares, EPSILON * values[0])
        rank = min(int(np.sum(values > noise)), self.count - center)
        return np.where(np.arange(len(values)) < rank, values, 0.0)


def rankme(values: Spectrum, eps: float = 1e-7) -> float:
    """exp(-sum p ln p) with p = values / sum + eps, not normalised again.

    A flat spectrum of d values gives d (1 + d eps (ln d - 1)).
    """
    p = np.asarray(values, np.float64) / np.sum(np.abs(values)) + eps
    return float(np.exp(-np.sum(p * np.log(p))))


def alpha_req(values: Spectrum, ranks: tuple[int, int] | None = None) -> tuple[float, float]:
    """(alpha, R²): the exponent of `values ~ rank^-alpha`, by least squares on logarithms with weights 1 / rank.

    **Arguments:** `ranks`: first and last rank of the fit, counted from 1; by default 12 to 100, less where there are
    fewer than 110 values. Ranks whose values are rounding noise (as in `numpy.linalg.matrix_rank`) are left out.

    **Raises:** `InputError` where the window holds fewer than three values above that.
    """
    values = np.asarray(values, np.float64)
    low, high = ranks or default_ranks(len(values))
    chosen = np.arange(low, min(high, len(values)) + 1)
    real = values > len(values) * EPSILON * values.max(initial=0.0)
    chosen = chosen[real[chosen - 1]]
    if len(chosen) < 3:
        raise InputError(
            f"Ranks {low} to {high} hold {len(chosen)} of the {int(real.sum())} that are no rounding noise; a decay needs 3: "
            "take more texts."
        )
    x, y, weight = np.log(chosen), np.log(values[chosen - 1]), 1 / chosen
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = np.sum(weight * (x - mean_x) * (y - mean_y)) / np.sum(weight * (x - mean_x) ** 2)
    left = y - mean_y - slope * (x - mean_x)
    spread = np.sum((y - y.mean()) ** 2)
    return float(-slope), float(1 - np.sum(left**2) / spread) if spread > 0 else 1.0


def default_ranks(d: int) -> tuple[int, int]:
    """The paper's window where it fits, else what leaves out the head and the last ranks."""
    if d >= 110:
        return PAPER_RANKS
    return (12, d - 4) if d > 20 else (2, d - 1)


def participation_ratio(values: Spectrum) -> float:
    """(sum)² / sum of squares: another effective rank, dominated by the head."""
    return float(np.sum(values) ** 2 / np.sum(np.square(values)))


def stable_rank(values: Spectrum) -> float:
    """Sum over the largest."""
    return float(np.sum(values) / np.max(values))


def project_topk(features: Features, k: int) -> Features:
    """The features with all but the top `k` directions of their covariance removed; the mean stays."""
    mean = features.mean(axis=0)
    _, _, axes = np.linalg.svd(features - mean, full_matrices=False)
    return mean + (features - mean) @ axes[:k].T @ axes[:k]


def measure(values: Spectrum) -> dict[str, float]:
    """All readings of a spectrum."""
    alpha, r2 = alpha_req(values)
    return {
        "rankme": rankme(values),
        "alpha": alpha,
        "r2": r2,
        "participation_ratio": participation_ratio(values),
        "stable_rank": stable_rank(values),
    }


@dataclass
class GeometryTrace:
    """Readings by checkpoint: `steps` in order, a spectrum and the readings of each."""

    steps: list[int] = field(default_factory=list)
    spectra: list[np.ndarray] = field(default_factory=list)
    readings: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: int, values: Spectrum) -> None:
        """Records a checkpoint."""
        self.steps.append(step)
        self.spectra.append(values)
        for name, value in measure(values).items():
            self.readings.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.array(self.readings[name])

    def phases(self) -> dict[str, tuple[int, int] | None]:
        """First and last step of each phase, None for one that was not reached."""
        return phases(self.steps, self["rankme"])

    def plot(self) -> Any:
        """RankMe and alpha by step, with the phases, as a Matplotlib figure."""
        return plot_trace(self.steps, self["rankme"], self["alpha"])


def phases(steps: Iterable[int], values: Iterable[float]) -> dict[str, tuple[int, int] | None]:
    """Warm-up, entropy-seeking and compression-seeking phases of a trace of RankMe; the segmentation is ours.

    Warm-up ends at the minimum within the first fifth of training, expansion at the largest value after that; compression
    counts where RankMe ends below 99 % of that value. All after a median over three checkpoints.
    """
    at, curve = np.asarray(list(steps)), np.asarray(list(values))
    if len(at) < 3:
        raise InputError(f"{len(at)} checkpoints have no phases; at least 3 are wanted.")
    smooth = median_filter(curve, 3, mode="nearest")
    first = int(np.argmin(smooth[at <= max(0.2 * at[-1], at[1])]))
    second = first + int(np.argmax(smooth[first:]))
    compressed = second < len(at) - 1 and smooth[-1] < 0.99 * smooth[second]
    return {
        "warm-up": (int(at[0]), int(at[first])) if first > 0 else None,
        "entropy-seeking": (int(at[first]), int(at[second])) if second > first else None,
        "compression-seeking": (int(at[second]), int(at[-1])) if compressed else None,
    }


def plot_trace(steps: Iterable[int], ranks: Iterable[float], alphas: Iterable[float]) -> Any:
    """A Matplotlib figure of RankMe and alpha by step, on a logarithmic axis, with the phases shaded where there are any."""
    from matplotlib.figure import Figure

    at = np.asarray(list(steps))
    made = Figure(figsize=(8.4, 3.1), layout="constrained")
    left, right = made.subplots(1, 2)
    for axis, values, name in ((left, ranks, "RankMe"), (right, alphas, "decay exponent α")):
        axis.semilogx(at + 1, list(values), "o-", ms=3, color="#0b6e8f")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step (+ 1)")
        axis.set_ylabel(name)
    found = {} if len(at) < 3 else phases(at, ranks)
    for (name, span), colour in zip(found.items(), ("#c2571a", "#4b8b3b", "#7a4fa3"), strict=False):
        if span is not None:
            left.axvspan(span[0] + 1, span[1] + 1, color=colour, alpha=0.1, label=name)
    if left.get_legend_handles_labels()[0]:
        left.legend(frameon=False, fontsize="small")
    return made


def bootstrap(
    features: Features, other: Features | None = None, *, draws: int = 200, seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """95 % intervals of RankMe and alpha over the texts; with `other`, of other minus features on the same texts.

    **Raises:** `InputError` where the two have different numbers of texts.
    """
    sides = [features] if other is None else [features, other]
    if len({len(side) for side in sides}) > 1:
        raise InputError(f"{len(sides[0])} texts against {len(sides[1])}; a difference needs the same texts.")
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"rankme": [], "alpha": []}
    for _ in range(draws):
        drawn = rng.integers(0, len(features), len(features))
        read = [measure(spectrum(side[drawn])) for side in sides]
        for name, values in found.items():
            values.append(read[-1][name] - (read[0][name] if other is not None else 0.0))
    return {name: tuple(float(v) for v in np.quantile(values, (0.025, 0.975))) for name, values in found.items()}


def direction(change: Mapping[str, tuple[float, float]]) -> Literal["expansion", "compression", "neither"]:
    """What the intervals of a change say: expansion is RankMe up and alpha down, compression the reverse."""
    (rank_low, rank_high), (alpha_low, alpha_high) = change["rankme"], change["alpha"]
    if rank_low > 0 > alpha_high:
        return "expansion"
    return "compression" if rank_high < 0 < alpha_low else "neither"


def spectrum_of(batches: Iterable[Any]) -> Spectrum:
    """The spectrum of features that come in batches."""
    made: StreamingCovariance | None = None
    for batch in batches:
        made = made or StreamingCovariance(np.shape(batch)[1])
        made.update(batch)
    if made is None:
        raise InputError("There are no features.")
    return made.spectrum()
