"""A recording cut into windows, split by blocks, packed for training, and one window a row for writing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from broadsheet.recordings.alignment import blocked_split
from broadsheet.recordings.neuroformer.model import Config
from broadsheet.recordings.neuroformer.tokens import Order, SpikeTokenizer
from broadsheet.recordings.neuroformer.training import Data
from broadsheet.recordings.neuroformer.windows import Windows, cut_windows, frames_of, pack


@dataclass(frozen=True)
class Recording:
    """Counts of a population with what its windows come with.

    - `counts`: (bins, neurons) in bins of `dt`; `window`, `past`: in bins; `block`, `past_block`: the most tokens of a window,
      with
      SOS, and of its past.
    - `frames`: (frames, height, width) of a film, each `bins_per_frame` bins long; `depth`: how many of them a window sees.
    - `behaviour`: (windows, numbers), of all windows of the recording.
    - `packed`: how many windows may share a row in training.
    """

    counts: Int[np.ndarray, "bins neurons"]
    dt: float = 0.01
    window: int = 5
    past: int = 5
    block: int = 80
    past_block: int = 160
    frames: Float[np.ndarray, "frames height width"] | None = None
    bins_per_frame: int = 5
    depth: int = 3
    behaviour: Float[np.ndarray, "windows numbers"] | None = None
    order: Order = "sorted"
    packed: int = 8
    gap: int = 4
    seed: int = 0

    @cached_property
    def tokenizer(self) -> SpikeTokenizer:
        return SpikeTokenizer(self.counts.shape[1], self.dt, self.window * self.dt)

    @cached_property
    def windows(self) -> Windows:
        return cut_windows([self.counts], self.tokenizer, self.past, block=self.block, past_block=self.past_block,
                           order=self.order, key=self.seed)  # fmt: skip

    @cached_property
    def split(self) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
        """Numbers of the windows to train on and of those to test."""
        return blocked_split(len(self.windows), gap=self.gap, random_state=self.seed)

    def config(self, **sizes: object) -> Config:
        """Of a network for it."""
        seen = None if self.frames is None else (self.depth, *self.frames.shape[1:])
        behaviours = 0 if self.behaviour is None else self.behaviour.shape[1]
        return Config(self.tokenizer.n_ids, self.tokenizer.n_offsets, self.past, self.block, self.past_block, frames=seen,
                      behaviours=behaviours, in_order=self.order == "sorted", **sizes)  # type: ignore[arg-type]  # fmt: skip

    def data(self, which: Int[np.ndarray, " some"], packed: bool = True) -> Data:
        """Some windows, numbered anew from 0."""
        windows = self.windows.choose(which)
        size = self._row if packed else (self.block, self.past_block)
        rows = pack(windows, self.tokenizer, block=size[0], past_block=size[1], segments=self.packed if packed else 1)
        shown = None if self.frames is None else frames_of(windows.stop, self.frames, self.bins_per_frame, self.depth)
        frames = None if self.frames is None else np.asarray(self.frames, np.float32)
        return Data(rows, frames, shown, None if self.behaviour is None else np.asarray(self.behaviour[which], np.float32))

    @cached_property
    def _row(self) -> tuple[int, int]:
        """Tokens of a row of several windows, and of their pasts: room for the longest, as attention costs a row's square."""
        longest = (max(len(neurons) for _, neurons in part) for part in (self.windows.current, self.windows.past))
        row, past = (-(-(most + 1) // 16) * 16 for most in longest)
        return row, past

    def bins(self, which: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " bins"]:
        """Which bins lie in some windows."""
        stop = self.windows.stop[which]
        inside = np.zeros(len(self.counts), bool)
        for k in range(1, self.window + 1):
            inside[stop - k] = True
        return inside

    def of(self, which: Int[np.ndarray, " some"]) -> Int[np.ndarray, "some bins neurons"]:
        """Counts of some windows."""
        return np.stack([self.counts[stop - self.window : stop] for stop in self.windows.stop[which]])

    def unigram(self, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float:
        """Minus the log-likelihood of the test windows, a spike, where each token and each offset is drawn from what was seen
        in
        training, whatever came before."""
        tokenizer, total = self.tokenizer, 0.0
        ends = (tokenizer.offset_eos, tokenizer.eos)
        spikes = 0
        for part, size in ((0, tokenizer.n_offsets), (1, tokenizer.n_ids)):
            seen, asked = (
                np.concatenate([np.r_[self.windows.current[k][part], ends[part]] for k in which]) for which in (train, test)
            )
            share = (np.bincount(seen, minlength=size) + 0.5) / (len(seen) + 0.5 * size)
            total -= np.log(share[asked]).sum()
            spikes = len(asked) - len(test)
        return float(total / spikes)
