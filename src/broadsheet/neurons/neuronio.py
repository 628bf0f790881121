"""NeuronIO: simulations of a detailed pyramidal cell, 128 in a file, read as lists of spikes and made dense window by window.

A file's inputs would take 3.9 GB as an array (128 simulations, 6000 ms, 1278 channels); as spikes they take some 10 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import existing, load_pickle
from broadsheet.neurons.surrogate import scale_voltage
from broadsheet.numerics.bins import bin_of

NEURONIO = (
    "NeuronIO is needed: download selfishgene/single-neurons-as-deep-nets-nmda-train-data and -test-data from Kaggle "
    "(115 GB) and pass their folder with --data."
)
SETTLING = 500
"""Steps at the start of a test simulation that no score counts."""


@dataclass(frozen=True)
class Simulations:
    """Simulations of one file; time in ms.

    **Fields:** `first`: the first of the spikes of each millisecond of each simulation, and their number in all; `channel`,
    `sign` of each spike, in order of time; soma `voltage` in mV; output `spikes`, one at t in the bin of t - 0.5 ms;
    `channels`: how many there are, inhibitory ones in the second half.
    """

    first: Int[np.ndarray, " starts"]
    channel: Int[np.ndarray, " events"]
    sign: Int[np.ndarray, " events"]
    voltage: Float[np.ndarray, "simulations duration"]
    spikes: Bool[np.ndarray, "simulations duration"]
    channels: int

    @property
    def duration(self) -> int:
        return self.voltage.shape[1]

    def __len__(self) -> int:
        return len(self.voltage)

    def inputs(self, simulation: int, start: int, stop: int) -> Float[np.ndarray, "time channels"]:
        """Input spikes from `start` up to `stop`, inhibitory ones -1."""
        at = simulation * self.duration
        edges = self.first[at + start : at + stop + 1]
        found = slice(edges[0], edges[-1])
        out = np.zeros((stop - start, self.channels), np.float32)
        out[np.repeat(np.arange(stop - start), np.diff(edges)), self.channel[found]] = self.sign[found]
        return out

    def targets(self, simulation: int, start: int, stop: int) -> Float[np.ndarray, "time 2"]:
        """Output spikes and scaled voltage."""
        voltage = scale_voltage(self.voltage[simulation, start:stop])
        return np.stack([self.spikes[simulation, start:stop], voltage], axis=1).astype(np.float32)


def neuronio_files(folder: str | Path | None) -> tuple[list[Path], list[Path]]:
    """(training, test) files below a folder; raises `MissingDataError` where there are none of either."""
    if folder is None:
        raise MissingDataError(NEURONIO)
    files = sorted(existing(folder).rglob("*.p"))
    test = [file for file in files if "test" in str(file.relative_to(folder)).lower()]
    train = [file for file in files if file not in test]
    if not train or not test:
        raise MissingDataError(f"{folder} has {len(train)} training and {len(test)} test files (*.p). {NEURONIO}")
    return train, test


def read_neuronio(path: str | Path) -> Simulations:
    """One file (a pickle: needs `--trust`); raises `DataError` where it is none of NeuronIO."""
    content = load_pickle(path)
    try:
        duration = int(content["Params"]["totalSimDurationInSec"] * 1000)
        segments = len(content["Params"]["allSegmentsType"])
        runs = content["Results"]["listOfSingleSimulationDicts"]
        voltage = np.zeros((len(runs), duration), np.float32)
        spikes = np.zeros((len(runs), duration), bool)
        found = [_events(run, duration, segments) for run in runs]
        for k, run in enumerate(runs):
            voltage[k] = np.asarray(run["somaVoltageLowRes"])[:duration]
            late = np.asarray(run["outputSpikeTimes"], float) - 0.5
            spikes[k, bin_of(np.maximum(late, 0.0), 1.0)] = True
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{path} is not a NeuronIO file ({error!r}).") from None
    counts = np.concatenate([np.bincount(time, minlength=duration) for time, _, _ in found])
    first = np.concatenate([[0], np.cumsum(counts)])
    channel, sign = (np.concatenate([each[k] for each in found]) for k in (1, 2))
    return Simulations(first, channel, sign, voltage, spikes, 2 * segments)


def _events(run: Any, duration: int, segments: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time, channel, sign) of one simulation's input spikes, in order of time."""
    times, channels, signs = [np.zeros(0, int)], [np.zeros(0, np.int16)], [np.zeros(0, np.int8)]
    for sign, offset, name in ((1, 0, "exInputSpikeTimes"), (-1, segments, "inhInputSpikeTimes")):
        for segment, when in run[name].items():
            bins = bin_of(when, 1.0)
            if not 0 <= int(segment) < segments or (bins < 0).any() or (bins >= duration).any():
                raise ValueError(f"a spike of segment {segment} is outside {segments} segments and {duration} ms")
            times.append(bins)
            channels.append(np.full(len(bins), offset + int(segment), np.int16))
            signs.append(np.full(len(bins), sign, np.int8))
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    return time[order], np.concatenate(channels)[order], np.concatenate(signs)[order]


def window_batches(
    files: list[Path], *, batch: int, window: int, seed: int = 0, keep: int = 16
) -> Iterator[tuple[Float[np.ndarray, "batch window channels"], Float[np.ndarray, "batch window 2"]]]:
    """Random windows of files that are read one after the other, in a new order each time around, without end.

    **Arguments:** `keep`: files that windows are drawn from at a time, the last ones read; a file is read when about as many
    windows were drawn as it has.

    **Raises:** `InputError` where simulations are shorter than the window.
    """
    rng = np.random.default_rng(seed)
    pool: list[Simulations] = []
    while True:
        for k in rng.permutation(len(files)):
            pool = [*pool[max(0, len(pool) - keep + 1) :], read_neuronio(files[k])]
            newest = pool[-1]
            if newest.duration < window:
                raise InputError(f"{files[k]}: simulations of {newest.duration} ms are shorter than the window of {window}.")
            for _ in range(max(1, len(newest) * newest.duration // (batch * window))):
                chosen = [pool[i] for i in rng.integers(0, len(pool), batch)]
                places = [(one, int(rng.integers(len(one))), int(rng.integers(one.duration - window + 1))) for one in chosen]
                yield (
                    np.stack([one.inputs(row, start, start + window) for one, row, start in places]),
                    np.stack([one.targets(row, start, start + window) for one, row, start in places]),
                )


def whole_simulations(
    files: list[Path], *, skip: int = 0
) -> Iterator[tuple[Float[np.ndarray, "time channels"], Float[np.ndarray, " time"], Float[np.ndarray, " time"]]]:
    """(inputs, voltage, spikes) of one simulation after the other, without the first `skip` ms."""
    for file in files:
        found = read_neuronio(file)
        for k in range(len(found)):
            inputs = found.inputs(k, skip, found.duration)
            yield inputs, found.voltage[k, skip:], found.spikes[k, skip:].astype(np.float32)
