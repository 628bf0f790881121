"""Spikes as tokens: which neuron, and how many bins after the start of its window (Neuroformer, arXiv 2311.00136)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from broadsheet.errors import InputError
from broadsheet.numerics import generator

Order = Literal["sorted", "random"]


class Events(NamedTuple):
    """Spikes of a stretch in the order in which they are written: by bin, and within a bin by neuron or at random. A count
    of k is k events.

    - `bins`, `neurons`: (spikes,).
    - `edges`: (bins + 1,), the first event of each bin.
    """

    bins: Int[np.ndarray, " spikes"]
    neurons: Int[np.ndarray, " spikes"]
    edges: Int[np.ndarray, " bins_and_one"]

    def slice(self, start: int, stop: int) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
        """(bins, neurons) of the events in the bins from `start` on, before `stop`."""
        chosen = slice(self.edges[max(start, 0)], self.edges[max(stop, 0)])
        return self.bins[chosen], self.neurons[chosen]


def events(counts: Int[np.ndarray, "bins neurons"], order: Order = "sorted", key: object = 0) -> Events:
    """The events of counts."""
    if order not in ("sorted", "random"):
        raise InputError(f"order = {order!r}; sorted or random is wanted.")
    bins, neurons = np.nonzero(counts)
    times = counts[bins, neurons]
    bins, neurons = np.repeat(bins, times), np.repeat(neurons, times)
    if order == "random":
        shuffled = np.lexsort((generator(key).random(len(bins)), bins))
        neurons = neurons[shuffled]
    return Events(bins, neurons, np.searchsorted(bins, np.arange(len(counts) + 1)))


@dataclass(frozen=True)
class SpikeTokenizer:
    """Two vocabularies: neurons, and offsets of 0, dt, …, window; each is followed by SOS, EOS and PAD.

    **Arguments:** `n_neurons`; `dt`: of the bins, s; `window`: the longest window that offsets have to span, s.
    """

    n_neurons: int
    dt: float = 0.01
    window: float = 0.05

    def __post_init__(self) -> None:
        if self.n_neurons < 1 or not 0 < self.dt <= self.window:
            raise InputError(
                f"{self.n_neurons} neurons, bins of {self.dt} s, a window of {self.window} s; at least one neuron and a window "
                "no shorter than a bin are wanted."
            )

    @property
    def bins(self) -> int:
        """Of the window."""
        return round(self.window / self.dt)

    @property
    def n_ids(self) -> int:
        return self.n_neurons + 3

    @property
    def n_offsets(self) -> int:
        return self.bins + 1 + 3

    sos = property(lambda self: self.n_neurons)
    eos = property(lambda self: self.n_neurons + 1)
    pad = property(lambda self: self.n_neurons + 2)
    offset_eos = property(lambda self: self.bins + 2)
    offset_pad = property(lambda self: self.bins + 3)

    def encode(
        self, counts: Int[np.ndarray, "bins neurons"], t: float | None = None, order: Order = "sorted", key: object = 0
    ) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
        """The tokens of the window that ends at `t` (s; by default with the counts): SOS, spikes, EOS; the offset of SOS is
        0."""
        counts = np.asarray(counts)
        if counts.ndim != 2 or counts.shape[1] != self.n_neurons:
            raise InputError(f"The counts are {counts.shape}; (bins, {self.n_neurons}) is wanted.")
        stop = len(counts) if t is None else round(t / self.dt)
        start = stop - self.bins
        if start < 0 or stop > len(counts):
            raise InputError(f"The window ends at bin {stop} and has {self.bins} bins; there are {len(counts)}.")
        bins, neurons = events(counts[start:stop], order, key).slice(0, self.bins)
        return np.r_[self.sos, neurons, self.eos], np.r_[0, bins, self.offset_eos]

    def decode(self, ids: Int[np.ndarray, " tokens"], offsets: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, "bins neurons"]:
        """The counts of a window's tokens; what is no neuron is passed over, and nothing after the first EOS is read."""
        ids, offsets = np.asarray(ids), np.asarray(offsets)
        if (ends := np.flatnonzero(ids == self.eos)).size:
            ids, offsets = ids[: ends[0]], offsets[: ends[0]]
        spikes = ids < self.n_neurons
        if (offsets[spikes] >= self.bins).any():
            raise InputError(f"An offset of {offsets[spikes].max()} bins lies outside the window of {self.bins}.")
        counts = np.zeros((self.bins, self.n_neurons), np.int32)
        np.add.at(counts, (offsets[spikes], ids[spikes]), 1)
        return counts


def ordering_term(counts: Int[np.ndarray, "bins neurons"]) -> float:
    """`sum over bins of log(n_bin! / product of k!)`: by how much the log-likelihood of counts exceeds that of one of their
    orders, where the order within a bin is random. Where spikes of a bin are sorted by neuron there is one order, and no term.
    """
    from scipy.special import gammaln

    counts = np.asarray(counts, float)
    return float(gammaln(counts.sum(axis=1) + 1).sum() - gammaln(counts + 1).sum())
