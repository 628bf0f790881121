"""Loaders of the public data sets for single neurons: NeuronIO and the Spiking Heidelberg Digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import DataError, MissingDataError
from broadsheet.files import existing, load_pickle
from broadsheet.neurons.event_data import read_spiking_speech
from broadsheet.numerics.bins import bin_of

NEURONIO = (
    "NeuronIO is needed: download selfishgene/single-neurons-as-deep-nets-nmda-train-data and -test-data from Kaggle "
    "(115 GB) and pass their folder with --data."
)
SHD = "The Spiking Heidelberg Digits are needed: download shd_train.h5 and shd_test.h5 (zenkelab.org) and pass --data FOLDER."


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


def read_neuronio(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One NeuronIO file (a pickle: needs `--trust`): 128 simulations of 6 s.

    **Returns:** input spikes (simulations, ms, 1278) with inhibitory ones -1, soma voltage (simulations, ms) in mV, output
    spikes (simulations, ms), a spike at t in the bin of t - 0.5 ms.
    """
    content = load_pickle(path)
    try:
        duration = int(content["Params"]["totalSimDurationInSec"] * 1000)
        segments = len(content["Params"]["allSegmentsType"])
        runs = content["Results"]["listOfSingleSimulationDicts"]
        inputs = np.zeros((len(runs), duration, 2 * segments), np.float32)
        voltage = np.zeros((len(runs), duration), np.float32)
        spikes = np.zeros((len(runs), duration), np.float32)
        for k, run in enumerate(runs):
            for sign, offset, name in ((1, 0, "exInputSpikeTimes"), (-1, segments, "inhInputSpikeTimes")):
                for segment, times in run[name].items():
                    inputs[k, bin_of(times, 1.0), offset + int(segment)] = sign
            voltage[k] = np.asarray(run["somaVoltageLowRes"])[:duration]
            late = np.asarray(run["outputSpikeTimes"], float) - 0.5
            spikes[k, bin_of(np.maximum(late, 0.0), 1.0)] = 1
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{path} is not a NeuronIO file ({error!r}).") from None
    return inputs, voltage, spikes


def neuronio_recordings(folder: str | Path | None) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """(inputs, voltage, spikes) of all training files and of all test files, these without their first 500 ms."""
    train, test = (
        tuple(np.concatenate(part) for part in zip(*map(read_neuronio, files), strict=True)) for files in neuronio_files(folder)
    )
    return train, tuple(part[:, 500:] for part in test)


def read_shd(
    folder: str | Path | None, part: str = "train", *, bin_ms: float = 10.0, duration_ms: float = 1000.0
) -> tuple[Float[np.ndarray, "samples time 700"], Int[np.ndarray, " samples"]]:
    """The Spiking Heidelberg Digits, binned: 1 where a channel fired in a bin; labels 0-9 English, 10-19 German."""
    if folder is None:
        raise MissingDataError(SHD)
    path = existing(folder) / f"shd_{part}.h5"
    if not path.exists():
        raise MissingDataError(f"{path} is missing. {SHD}")
    return read_spiking_speech(path, bin_ms=bin_ms, duration_ms=duration_ms)
