"""Spikes and traces on the same bins, and splits of time for testing.

Neighbouring bins are alike, so a test set that is drawn bin by bin repeats what was trained on; blocks with gaps between do not
(Roberts et al. 2017, Ecography 40:913).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError
from broadsheet.numerics.bins import SLACK, bin_of
from broadsheet.recordings.sessions import Session
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.traces import Traces

Missing = Literal["refuse", "nan", "interpolate", "drop"]


class Aligned(NamedTuple):
    """Bins of a session.

    - `counts`: (bins, units) spikes in each bin, or (bins, cells) means of their traces.
    - `values`: (bins, channels) means of the target's samples in each bin.
    - `times`: (bins,) centres (s); with `missing="drop"` they have gaps, see `runs`.
    - `units`, `channels`: their names; `dt`: the bins' width (s).
    """

    counts: np.ndarray
    values: np.ndarray
    times: np.ndarray
    units: tuple[str, ...]
    channels: tuple[str, ...]
    dt: float

    def runs(self) -> list[slice]:
        """Stretches without a gap between bins: what estimators take as sequences."""
        return runs(np.round((self.times - self.times[0]) / self.dt).astype(int)) if len(self.times) else []


def aligned(
    session: Session, dt: float, target: str | Sequence[str] | None = None, *, activity: str | None = None,
    missing: Missing = "refuse", start: float | None = None, stop: float | None = None,
) -> Aligned:  # fmt: skip
    """Activity and traces in the same bins of `dt` seconds, from when the last of them begins to when the first ends.

    **Arguments:** `target`: names of traces, as `Session.trace` takes them; `activity`: traces of cells, in place of spikes
    (where there are no spikes, the only traces of cells are taken); `start`, `stop`: a stretch (s); `missing`: what happens
    where a unit was not observed or a sample is missing: "refuse" raises, "nan" leaves NaN, "drop" leaves out these bins,
    "interpolate" draws straight lines through the gaps of traces, and refuses where spikes are missing, of which nothing can be
    said.

    Bins are whole. A sample belongs to the bin that its time lies in and holds until the next one; traces slower than the bins
    are interpolated between neighbouring samples.

    **Raises:** `InputError` where nothing is shared, where something is missing that should not be, and for unknown names.
    """
    if not dt > 0:
        raise InputError(f"Bins of {dt} s; a number above 0 is wanted.")
    if missing not in ("refuse", "nan", "interpolate", "drop"):
        raise InputError(f"missing={missing!r}: refuse, nan, interpolate or drop is wanted.")
    asked = [] if target is None else [target] if isinstance(target, str) else target
    names = list(dict.fromkeys(session.trace_name(each) for each in asked))
    parts = {name: session.traces[name] for name in names}
    source: Spikes | Traces
    if activity is None and session.spikes is not None:
        source, what = session.spikes, "the spikes"
    else:
        source, what = session.cells(activity), "the cells"
    ends = [(what, source.start, source.stop if isinstance(source, Spikes) else _end(source))]
    ends += [(name, part.start, _end(part)) for name, part in parts.items()]
    first = max([each[1] for each in ends] + ([] if start is None else [start]))
    last = min([each[2] for each in ends] + ([] if stop is None else [stop]))
    bins = int(np.floor((last - first) / dt + SLACK)) if last > first else 0
    if bins < 1:
        said = ", ".join(f"{name} from {a:g} to {b:g} s" for name, a, b in ends)
        raise InputError(f"{session.name}: no bin of {dt:g} s is shared: {said}.")
    times = first + dt * (np.arange(bins) + 0.5)
    if isinstance(source, Spikes):
        counts = source.between(first, first + bins * dt).counts(dt, missing="nan")[:bins]
    else:
        counts = on_bins(source, first, dt, bins)
    columns = [on_bins(part, first, dt, bins) for part in parts.values()]
    values = np.concatenate(columns, axis=1) if columns else np.empty((bins, 0))
    channels = tuple(
        channel if len(parts) == 1 else short if len(part.names) == 1 else f"{short}/{channel}"
        for short, part in zip([name.rpartition("/")[2] for name in names], parts.values(), strict=True)
        for channel in part.names
    )
    spikes = isinstance(source, Spikes)
    if missing == "interpolate":
        if not spikes:
            counts = interpolated(counts, times, what)
        values = interpolated(values, times, ", ".join(names))
    keep = np.ones(bins, bool)
    for array, of in ((counts, what), (values, ", ".join(names))):
        bad = np.isnan(array).any(axis=1) if array.dtype.kind == "f" and array.shape[1] else np.zeros(bins, bool)
        if missing == "drop":
            keep &= ~bad
        elif bad.any() and missing != "nan":
            again = "nan or drop" if of == what and spikes else "interpolate, nan or drop"
            at = first + dt * int(bad.argmax())
            raise InputError(
                f"{session.name}: {of} miss {int(bad.sum())} of {bins} bins, the first at {at:g} s; {again} allows that."
            )
    if not keep.any():
        raise InputError(f"{session.name}: something is missing in each of the {bins} bins.")
    if not keep.all():
        counts, values, times = counts[keep], values[keep], times[keep]
    if spikes and counts.dtype.kind == "f" and not np.isnan(counts).any():
        counts = counts.astype(np.int32)
    return Aligned(counts, values, times, source.names, channels, float(dt))


def _end(traces: Traces) -> float:
    """A sample holds for a step: where the last one ends (s)."""
    return traces.stop + (traces.dt if np.isfinite(traces.dt) else 0.0)


def on_bins(traces: Traces, start: float, dt: float, bins: int) -> Float[np.ndarray, "bins channels"]:
    """Means of the samples in each bin; NaN where one of them is NaN or none lies there. Of traces slower than the bins,
    straight lines between neighbouring samples, at the bins' centres; NaN where those are more than one and a half steps apart.

    Traces of a file are read by stretches, in bounded memory.
    """
    if traces.dt > dt * (1 + SLACK):
        return _between_samples(traces, start + dt * (np.arange(bins) + 0.5))
    total, many = np.zeros((bins, len(traces.names))), np.zeros(bins, int)
    for times, values in traces.blocks():
        at = bin_of(times - start, dt)
        inside = slice(*np.searchsorted(at, [0, bins]))
        at, values = at[inside], values[inside]
        if at.size:
            edges = np.concatenate([[0], np.flatnonzero(np.diff(at)) + 1])
            total[at[edges]] += np.add.reduceat(values, edges, axis=0)
            many[at[edges]] += np.diff(np.append(edges, len(at)))
    with np.errstate(invalid="ignore"):
        total /= many[:, None]
    return total


def _between_samples(traces: Traces, at: np.ndarray) -> np.ndarray:
    """Straight lines between neighbouring samples that are no more than one and a half steps apart."""
    times, longest = traces.times, 1.5 * traces.dt
    right = np.clip(np.searchsorted(times, at, "right"), 1, len(times) - 1)
    low, high = int(right.min()) - 1, int(right.max()) + 1
    values = traces.rows(low, high)
    left_time, step = times[right - 1], times[right] - times[right - 1]
    share = np.clip((at - left_time) / step, 0.0, 1.0)[:, None]
    out = (1 - share) * values[right - 1 - low] + share * values[right - low]
    far = (step > longest) | (at < times[0] - longest) | (at > times[-1] + longest)
    return np.where(far[:, None], np.nan, out)


def interpolated(values: np.ndarray, times: np.ndarray, what: str = "the traces") -> np.ndarray:
    """Straight lines through what is NaN, channel by channel.

    **Raises:** `InputError` where a channel begins or ends with NaN, for which there is no line.
    """
    bad = np.isnan(values)
    if not bad.any():
        return values
    if bad[0].any() or bad[-1].any():
        where = "begin" if bad[0].any() else "end"
        raise InputError(
            f"{what} {where} with missing values, which cannot be interpolated; choose a stretch by start and stop."
        )
    out = values.copy()
    for channel in np.flatnonzero(bad.any(axis=0)):
        miss = bad[:, channel]
        out[miss, channel] = np.interp(times[miss], times[~miss], values[~miss, channel])
    return out


def runs(numbers: Any) -> list[slice]:
    """Stretches of numbers that rise by one, as slices; of a mask, the stretches where it is true.

    >>> runs([3, 4, 5, 9, 10])
    [slice(0, 3, None), slice(3, 5, None)]
    """
    array = np.asarray(numbers)
    if array.dtype == bool:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], array, [False]]).astype(int)))
        return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    if not array.size:
        return []
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(array) != 1) + 1, [len(array)]])
    return [slice(int(a), int(b)) for a, b in pairwise(cuts)]


class BlockedSplit:
    """Folds of contiguous time for scikit-learn's `cv=`: each is one block, and training leaves out `gap` bins beside it.

    **Arguments:** `folds`: 2 or more; `gap`: bins on either side of a test block that nobody sees.
    """

    def __init__(self, folds: int = 5, gap: int = 0) -> None:
        if folds < 2 or gap < 0:
            raise InputError(f"{folds} folds with gaps of {gap} bins; 2 or more, and 0 or more, are wanted.")
        self.folds, self.gap = folds, gap

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds."""
        return self.folds

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(train, test) bins of each fold."""
        bins = len(X)
        edges = np.round(np.linspace(0, bins, self.folds + 1)).astype(int)
        if np.diff(edges).min() < 1 or bins - int(np.diff(edges).max()) - 2 * self.gap < 1:
            raise InputError(f"{bins} bins are too few for {self.folds} folds with gaps of {self.gap} bins.")
        everything = np.arange(bins)
        for a, b in pairwise(edges):
            yield everything[(everything < a - self.gap) | (everything >= b + self.gap)], everything[a:b]


def blocked_split(
    bins: int, *, test: float = 0.2, blocks: int = 10, gap: int = 0, random_state: int | None = None
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Bins for training and for testing: time is cut into equal blocks, some of them are tested, and `gap` bins on the training
    side of each border belong to neither.

    **Arguments:** `test`: share of the blocks, at least one; `random_state`: draws the tested blocks; None spreads them evenly.
    """
    if not 0 < test < 1 or blocks < 2 or gap < 0:
        raise InputError(
            f"A share {test} of {blocks} blocks with gaps of {gap}; a share between 0 and 1 of 2 or more is wanted."
        )
    edges = np.round(np.linspace(0, bins, blocks + 1)).astype(int)
    if np.diff(edges).min() < 1:
        raise InputError(f"{bins} bins are too few for {blocks} blocks.")
    count = min(max(1, round(test * blocks)), blocks - 1)
    if random_state is None:
        chosen = np.unique(np.floor((np.arange(count) + 0.5) * blocks / count).astype(int))
    else:
        chosen = np.random.default_rng(random_state).choice(blocks, count, replace=False)
    tested, near = np.zeros(bins, bool), np.zeros(bins, bool)
    for block in chosen:
        a, b = edges[block], edges[block + 1]
        tested[a:b] = True
        near[max(0, a - gap) : b + gap] = True
    train, held = np.flatnonzero(~near), np.flatnonzero(tested)
    if not train.size:
        raise InputError(f"Gaps of {gap} bins leave nothing of {bins} bins to train on.")
    return train, held
