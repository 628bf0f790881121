"""Examples for Neuroformer: a window of spikes to be written, and the window before it; several share a row without seeing each
other, so that little of a row is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError
from broadsheet.recordings.neuroformer.tokens import Order, SpikeTokenizer, events


class Rows(NamedTuple):
    """Windows packed into rows. Segment k of a row holds one window: its tokens, its past, its stimulus; -1 is padding.
    Arrays of whole numbers, of NumPy on the host and of JAX within a program.

    - `ids`, `offsets`, `place`, `segment`: (rows, tokens) of the input, SOS first; `place` counts from the window's SOS.
    - `target_ids`, `target_offsets`: what follows each token, EOS last.
    - `past_ids`, `past_offsets`, `past_place`, `past_segment`: (rows, past tokens).
    - `window`: (rows, segments), the number of the window, or -1.
    """

    ids: Any
    offsets: Any
    place: Any
    segment: Any
    target_ids: Any
    target_offsets: Any
    past_ids: Any
    past_offsets: Any
    past_place: Any
    past_segment: Any
    window: Any


class Windows(NamedTuple):
    """Windows of a session, or of several, before they are packed.

    - `current`, `past`: for each window (offsets, neurons) of its spikes, in bins from the start of the part.
    - `stop`: (windows,) the bin at which each ends; `session`: which one it is of.
    - `cut`, `past_cut`: how many windows lost their first spikes because a block is too short for them.
    - `spikes`: how many spikes there are to write.
    """

    current: list[tuple[np.ndarray, np.ndarray]]
    past: list[tuple[np.ndarray, np.ndarray]]
    stop: Int[np.ndarray, " windows"]
    session: Int[np.ndarray, " windows"]
    cut: int
    past_cut: int
    spikes: int

    def __len__(self) -> int:
        return len(self.stop)

    def choose(self, which: Sequence[int] | np.ndarray) -> Windows:
        """Some of the windows."""
        current, past = [self.current[k] for k in which], [self.past[k] for k in which]
        spikes = sum(len(neurons) for _, neurons in current)
        return Windows(current, past, self.stop[which], self.session[which], self.cut, self.past_cut, spikes)


def cut_windows(
    sessions: Sequence[Int[np.ndarray, "_ neurons"]], tokenizer: SpikeTokenizer, past: int, *, block: int, past_block: int,
    order: Order = "sorted", key: Any = 0, first: int = 0,
) -> Windows:  # fmt: skip
    """Windows at a stride of their own length, with `past` bins before each, from bin `first` on.

    A window keeps its last `block - 2` spikes, and its past the last `past_block`, as the authors' program does; how many lost
    some is counted.

    **Raises:** `InputError` where a session is shorter than one window and its past.
    """
    width = tokenizer.bins
    current, before, stops, numbers, cut, past_cut = [], [], [], [], 0, 0
    for number, counts in enumerate(sessions):
        made = events(np.asarray(counts), order, key)
        begin = max(past, -(-first // width) * width)
        if begin + width > len(counts):
            raise InputError(f"Session {number} has {len(counts)} bins; {begin + width} or more are wanted.")
        for start in range(begin, len(counts) - width + 1, width):
            bins, neurons = made.slice(start, start + width)
            past_bins, past_neurons = made.slice(start - past, start)
            cut += len(bins) > block - 2
            past_cut += len(past_bins) > past_block
            current.append((bins[-(block - 2) :] - start, neurons[-(block - 2) :]))
            before.append((past_bins[-past_block:] - (start - past), past_neurons[-past_block:]))
            stops.append(start + width)
            numbers.append(number)
    spikes = sum(len(neurons) for _, neurons in current)
    return Windows(current, before, np.array(stops), np.array(numbers), cut, past_cut, spikes)


def pack(windows: Windows, tokenizer: SpikeTokenizer, *, block: int, past_block: int, segments: int = 1) -> Rows:
    """Windows into rows of `block` tokens with `past_block` tokens of the past, at most `segments` windows each.

    With one segment a row has one window, in their order.
    """
    need, past_need = (np.array([len(neurons) + extra for _, neurons in part])
                       for part, extra in ((windows.current, 1), (windows.past, 0)))  # fmt: skip
    for tokens, before in zip(need, past_need, strict=True):
        if tokens > block or before > past_block:
            raise InputError(
                f"A window of {tokens} tokens with {before} before it does not fit a row of {block} and {past_block}."
            )
    filled = [[k] for k in range(len(windows))] if segments == 1 else _best_fit(need, past_need, block, past_block, segments)
    n, pad, offset_pad = len(filled), tokenizer.pad, tokenizer.offset_pad
    whole, behind = (n, block), (n, past_block)
    empty = [np.full(whole, value, np.int32) for value in (pad, offset_pad, 0, -1, pad, offset_pad)]
    empty += [np.full(behind, value, np.int32) for value in (pad, offset_pad, 0, -1)]
    rows = Rows._make([*empty, np.full((n, segments), -1, np.int32)])
    for row, members in enumerate(filled):
        at = past_at = 0
        for segment, k in enumerate(members):
            offsets, neurons = windows.current[k]
            here = slice(at, at + len(neurons) + 1)
            rows.ids[row, here], rows.offsets[row, here] = np.r_[tokenizer.sos, neurons], np.r_[0, offsets]
            rows.place[row, here], rows.segment[row, here] = np.arange(len(neurons) + 1), segment
            rows.target_ids[row, here] = np.r_[neurons, tokenizer.eos]
            rows.target_offsets[row, here] = np.r_[offsets, tokenizer.offset_eos]
            offsets, neurons = windows.past[k]
            there = slice(past_at, past_at + len(neurons))
            rows.past_ids[row, there], rows.past_offsets[row, there] = neurons, offsets
            rows.past_place[row, there], rows.past_segment[row, there] = np.arange(len(neurons)), segment
            rows.window[row, segment] = k
            at, past_at = here.stop, there.stop
    return rows


def _best_fit(need: np.ndarray, past_need: np.ndarray, block: int, past_block: int, segments: int) -> list[list[int]]:
    """Which windows share a row: the longest go first, each into the fullest row that has room for it."""
    rows: list[list[int]] = []
    room, past_room, free = (np.full(len(need), size) for size in (block, past_block, segments))
    for k in np.argsort(-np.maximum(need, past_need), kind="stable"):
        n = len(rows)
        fits = (room[:n] >= need[k]) & (past_room[:n] >= past_need[k]) & (free[:n] > 0)
        if fits.any():
            row = int(np.where(fits, room[:n] + past_room[:n], np.iinfo(int).max).argmin())
            rows[row].append(int(k))
        else:
            row = n
            rows.append([int(k)])
        room[row], past_room[row], free[row] = room[row] - need[k], past_room[row] - past_need[k], free[row] - 1
    return rows


def frames_of(
    stop: Int[np.ndarray, " windows"], frames: Float[np.ndarray, "frames height width"], bins_per_frame: int, depth: int
) -> Int[np.ndarray, "windows depth"]:
    """For each window the numbers of the last `depth` frames shown before it ends; frame k is shown in the bins from
    `k bins_per_frame` on."""
    last = -(-np.asarray(stop) // bins_per_frame)  # frames begun before the end
    return np.clip(last[:, None] + np.arange(-depth, 0), 0, len(frames) - 1)
