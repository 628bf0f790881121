"""From recordings of several animals to groups of neurons that act together: when, and in which animals.

Affinities of all pairs at each moment, their non-negative factors, and communities in the pattern of each (arXiv 2402.14102).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.recordings.affinity import Kernel, differential_affinity, fold
from broadsheet.recordings.block_models import WeightedSBM
from broadsheet.recordings.communities import without_weak
from broadsheet.recordings.sequences import sequences
from broadsheet.recordings.sessions import Traces
from broadsheet.recordings.tensor_factors import NTF, Given, RankResult, checked_tensor, rank_scan, time_curves

_KEPT = (
    "time_", "times_", "animals_", "weights_", "pairs_", "names_", "seen_", "error_", "similarity_", "every_", "dt_",
)  # fmt: skip


class _Tensor(NamedTuple):
    """Affinities (frames, animals, pairs), which pairs each animal has, and what they are of."""

    values: np.ndarray
    mask: np.ndarray
    names: tuple[str, ...]
    seen: Bool[np.ndarray, "animals neurons"]
    times: Float[np.ndarray, " frames"]
    every: int
    dt: float


class DynamicConnectome(BaseEstimator):
    """An atlas of motifs: components of pairwise affinity over time and animals, with the communities of each.

    **Parameters:**

    - `rank`: components; see `scan`.
    - `kernel`, `smooth`: of the affinity (see `differential_affinity`).
    - `dt`: step between frames, s, of arrays; recordings with times of their own are brought to it by linear interpolation,
      or to their median step where it is None.
    - `every`: frames whose affinities are averaged, or `"auto"`: as few as keep the tensor within `memory` bytes.
    - `n_starts`, `random_state`: of the factorisation.
    - `floor`: edges below this share of a component's largest are dropped before communities are looked for.
    - `communities`: the block model, a `WeightedSBM` of default settings where it is None.

    **Attributes:** `time_` (frames, rank), scaled by the weights; `times_` (frames,), s; `animals_` (animals, rank);
    `patterns_` (rank, neurons, neurons); `labels_` (rank, neurons), -1 for neurons without an edge; `models_`: the fitted
    block models, None for a pattern without one; `weights_`; `names_`; `pairs_` (pairs, rank); `seen_` (animals, neurons);
    `error_`; `similarity_`; `every_`; `dt_`.
    """

    def __init__(
        self, rank: int = 5, *, kernel: Kernel = "geomean", smooth: float = 2.0, dt: float | None = None,
        every: int | Literal["auto"] = "auto", memory: float = 1e9, n_starts: int = 10, floor: float = 1e-3,
        communities: WeightedSBM | None = None, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.rank = rank
        self.kernel = kernel
        self.smooth = smooth
        self.dt = dt
        self.every = every
        self.memory = memory
        self.n_starts = n_starts
        self.floor = floor
        self.communities = communities
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any = None, *, names: Sequence[str] | None = None, report: Callable[[float], None] | None = None
    ) -> DynamicConnectome:
        """Fits recordings of several animals on one time base.

        **Arguments:** `X`: (animals, frames, neurons), or a list of (frames, neurons) of unequal length, with columns of NaN
        for neurons that an animal lacks; or a list of `Traces`, which are matched by name; `names`: of the neurons of arrays;
        `report`: is told the share that is done.
        """
        return self.fit_factors(X, names=names, report=report).fit_communities(report=report)

    def fit_factors(
        self, X: Any, *, names: Sequence[str] | None = None, report: Callable[[float], None] | None = None
    ) -> DynamicConnectome:
        """The first half of `fit`: affinities and their factors."""
        tensor = self._tensor(X, names)
        self.names_, self.seen_, self.times_, self.every_, self.dt_ = tensor[2:]
        if report:
            report(0.2)
        factors = NTF(self.rank, n_starts=self.n_starts, random_state=self.random_state).fit(tensor.values, mask=tensor.mask)
        self.time_, self.animals_, self.weights_ = factors.time_ * factors.weights_, factors.animal_, factors.weights_
        self.pairs_, self.error_, self.similarity_ = factors.pair_, factors.error_, factors.similarity_
        if report:
            report(0.7)
        return self

    def fit_communities(self, *, report: Callable[[float], None] | None = None) -> DynamicConnectome:
        """The second half of `fit`: communities in the pattern of each component."""
        check_is_fitted(self, "time_")
        self.patterns_ = fold(self.pairs_.T, len(self.names_))
        found = []
        for k, pattern in enumerate(self.patterns_):
            found.append(self.communities_of(pattern))
            if report:
                report(0.7 + 0.3 * (k + 1) / self.rank)
        self.models_ = [model for model, _ in found]
        self.labels_ = np.stack([labels for _, labels in found])
        return self

    def factor_arrays(self) -> dict[str, np.ndarray]:
        """What `fit_factors` found, to be kept in a file."""
        check_is_fitted(self, "time_")
        return {name: np.asarray(getattr(self, name)) for name in _KEPT}

    def set_factors(self, arrays: Mapping[str, np.ndarray]) -> DynamicConnectome:
        """Takes what `factor_arrays` gave."""
        for name in _KEPT:
            value: Any = np.asarray(arrays[name])
            setattr(self, name, value.item() if value.ndim == 0 else value)
        self.names_ = tuple(map(str, arrays["names_"]))
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "frames rank"]:
        """Time curves of the fitted components in other recordings of the same animals, in the same order."""
        check_is_fitted(self, "time_")
        return self._curves(X)[0]

    def score(self, X: Any, y: Any = None) -> float:
        """Share of the squared affinities of recordings that the fitted animals and patterns account for."""
        check_is_fitted(self, "time_")
        curves, given = self._curves(X)
        left = total = 0.0
        for frame, curve in enumerate(curves):
            seen = given.frames[frame][:, None] * given.pairs
            part = (self.animals_ * curve) @ self.pairs_.T
            left += float((seen * (given.values[frame] - part) ** 2).sum())
            total += float((given.values[frame].astype(float) ** 2).sum())
        return 1 - left / total

    def scan(self, X: Any, ranks: Sequence[int] = tuple(range(1, 9))) -> list[RankResult]:
        """Error and agreement of starts at several ranks, to choose one."""
        tensor = self._tensor(X, None)
        return rank_scan(tensor.values, ranks, mask=tensor.mask, n_starts=self.n_starts, random_state=self.random_state)

    def _curves(self, X: Any) -> tuple[np.ndarray, Given]:
        tensor = self._tensor(X, self.names_, every=self.every_)
        if tensor.mask.shape != (len(self.animals_), len(self.pairs_)):
            raise InputError(f"{tensor.mask.shape[0]} animals are not the {len(self.animals_)} of the atlas.")
        given = checked_tensor(tensor.values, tensor.mask)
        return time_curves(given, self.animals_, self.pairs_), given

    def communities_of(
        self, pattern: Float[np.ndarray, "neurons neurons"]
    ) -> tuple[WeightedSBM | None, Int[np.ndarray, " neurons"]]:
        """The block model of a pattern, None where it has no edge, and each neuron's community, -1 without an edge; that of
        the highest affinity within comes first."""
        labels = np.full(len(pattern), -1)
        if not pattern.any():
            return None, labels
        strong = without_weak(pattern, self.floor)
        joined = np.flatnonzero(strong.any(axis=1))
        model = WeightedSBM(random_state=self.random_state) if self.communities is None else self.communities
        model = type(model)(**model.get_params()).fit(strong[np.ix_(joined, joined)])
        labels[joined] = _by_strength(pattern[np.ix_(joined, joined)], model.labels_)
        return model, labels

    def _tensor(self, X: Any, names: Sequence[str] | None, every: int | None = None) -> _Tensor:
        """Affinities of all animals, with NaN for the frames that one lacks."""
        traces, names, dt, start = self._together(X, names)
        lengths = [len(each) for each in traces]
        longest, neurons, animals = max(lengths), len(names), len(traces)
        if neurons < 2:
            raise InputError(f"{neurons} neurons have no pair; two or more are wanted.")
        size = 4 * animals * neurons * (neurons - 1) // 2
        wanted = every or self.every
        averaged = max(1, -(-longest * size // int(self.memory))) if wanted == "auto" else int(wanted)
        if longest // averaged < 2:
            raise InputError(
                f"{neurons} neurons of {animals} animals take {size / 1e6:.0f} MB a frame; give memory for two frames or more."
            )
        frames = longest // averaged
        values = np.full((frames, animals, neurons * (neurons - 1) // 2), np.nan, np.float32)
        masks = []
        for animal, each in enumerate(traces):
            part = differential_affinity(each.T[None], dt, self.kernel, smooth=self.smooth, every=averaged)
            values[: len(part.values), animal] = part.values[:, 0]
            masks.append(part.mask[0])
        seen = np.array([np.isfinite(each).all(axis=0) for each in traces])
        times = start + (np.arange(frames) + 0.5) * averaged * dt - dt / 2
        return _Tensor(values, np.array(masks), tuple(names), seen, times, averaged, dt)

    def _together(self, X: Any, names: Sequence[str] | None) -> tuple[list[np.ndarray], tuple[str, ...], float, float]:
        """Traces (frames, neurons) of each animal in one order of neurons and on one time base, their names, dt and start
        (s)."""
        if isinstance(X, Sequence) and len(X) and all(isinstance(each, Traces) for each in X):
            return self._aligned(list(X), names)
        traces = sequences(X, what="traces", missing=True, shortest=3)
        neurons = traces[0].shape[1]
        if names is not None and len(set(names)) != neurons:
            raise InputError(f"{neurons} neurons have {len(set(names))} different names; one each is wanted.")
        return traces, tuple(names or map(str, range(neurons))), self.dt or 1.0, 0.0

    def _aligned(
        self, given: list[Traces], names: Sequence[str] | None
    ) -> tuple[list[np.ndarray], tuple[str, ...], float, float]:
        steps = [each.dt for each in given]
        if not np.isfinite(steps).all():
            raise InputError("A recording has one sample; 3 or more are wanted.")
        dt = self.dt or float(np.median(steps))
        union = tuple(names or sorted({name for each in given for name in each.names}))
        start = max(float(each.times[0]) for each in given)
        out = []
        for k, each in enumerate(given):
            count = int(np.floor((each.times[-1] - start) / dt + 1e-9)) + 1
            if count < 3:
                raise InputError(
                    f"Recording {k} has {max(count, 0)} frames of {dt:g} s from {start:g} s on; 3 or more are wanted."
                )
            grid = start + dt * np.arange(count)
            values = np.full((count, len(union)), np.nan)
            for column, name in enumerate(each.names):
                if name not in union:
                    continue
                trace = each.values[:, column]
                if np.isnan(trace).any() and not np.isnan(trace).all():
                    frame = int(np.isnan(trace).argmax())
                    raise InputError(
                        f"Recording {k}: the trace of {name} is NaN at {each.times[frame]:g} s; a whole trace is wanted."
                    )
                values[:, union.index(name)] = np.interp(grid, each.times, trace)
            out.append(values)
        return out, union, dt, start


def _by_strength(pattern: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels in the order of the mean affinity within their communities, the strongest first."""
    member = np.eye(labels.max() + 1)[labels]
    pairs = member.sum(axis=0) * (member.sum(axis=0) - 1)
    inside = np.diag(member.T @ pattern @ member) / np.maximum(pairs, 1)
    return np.argsort(np.argsort(-inside, kind="stable"))[labels]
