"""Recordings of event cameras and silicon cochleas in the formats in which data sets publish them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import DataError, EventOverflowError, InputError, MissingDataError, MissingExtraError
from broadsheet.files import MIB, existing, load_arrays, read_bytes
from broadsheet.numerics.bins import bin_of, bins_in

MAX_BYTES = 2048 * MIB
NMNIST = (
    "N-MNIST is needed: unpack Train.zip and Test.zip (garrickorchard.com/datasets/n-mnist) and pass their folder with --data."
)


class Events(NamedTuple):
    """Address events: time (µs), column, row and polarity (1 ON, 0 OFF) of each, ordered by time."""

    t: Int[np.ndarray, " events"]
    x: Int[np.ndarray, " events"]
    y: Int[np.ndarray, " events"]
    p: Int[np.ndarray, " events"]

    def frames(
        self, size: tuple[int, int], bin_ms: float, *, bins: int | None = None, counts: bool = False
    ) -> Float[np.ndarray, "time 2 height width"]:
        """Events binned into frames (time, polarity, row, column), OFF first; 1 where there is any, or their number.

        **Arguments:** `size`: (width, height) of the sensor; `bins`: number of frames, by default up to the last event.

        **Raises:** `EventOverflowError` where events lie outside the sensor or after the last bin.
        """
        if not bin_ms > 0:
            raise InputError(f"bin_ms = {bin_ms}; a number above 0 is wanted.")
        width, height = size
        at = bin_of(self.t - (self.t[0] if len(self.t) else 0), 1000 * bin_ms)
        last = int(at.max(initial=0)) + 1
        total = last if bins is None else bins
        outside = (self.x < 0) | (self.x >= width) | (self.y < 0) | (self.y >= height) | (at >= total) | (at < 0)
        if outside.any():
            raise EventOverflowError(
                f"{int(outside.sum())} events lie outside {width} x {height} pixels or after {total} bins; there are {last}."
            )
        if total * 2 * width * height * 4 > MAX_BYTES:
            raise InputError(f"{total} frames of {width} x {height} pixels need more than {MAX_BYTES / MIB:g} MiB.")
        out = np.zeros((total, 2, height, width), np.float32)
        np.add.at(out, (at, self.p, self.y, self.x), 1)
        return out if counts else np.minimum(out, 1)


def read_nmnist(path: str | Path) -> Events:
    """One N-MNIST file (.bin): 40 bits an event, big-endian: column, row, polarity, 23 bits of time in µs."""
    raw = np.frombuffer(read_bytes(path, MAX_BYTES), np.uint8)
    if not len(raw) or len(raw) % 5:
        raise DataError(f"{path} has {len(raw)} bytes, no multiple of 5: it is not an N-MNIST file.")
    rows = raw.reshape(-1, 5).astype(np.int64)
    t = (rows[:, 2] & 0x7F) << 16 | rows[:, 3] << 8 | rows[:, 4]
    events = Events(t, rows[:, 0], rows[:, 1], rows[:, 2] >> 7)
    if max(events.x.max(), events.y.max()) > 33:
        raise DataError(f"{path} has events at ({events.x.max()}, {events.y.max()}); N-MNIST's sensor has 34 x 34 pixels.")
    return _ordered(events)


def nmnist_files(folder: str | Path | None, part: str = "Train") -> list[tuple[Path, int]]:
    """Files of N-MNIST with their labels, which are the names of their folders."""
    if folder is None:
        raise MissingDataError(NMNIST)
    files = [(file, int(file.parent.name)) for file in sorted((existing(folder) / part).glob("[0-9]/*.bin"))]
    if not files:
        raise MissingDataError(f"{Path(folder) / part} holds no files in folders 0 to 9. {NMNIST}")
    return files


def read_aedat(path: str | Path) -> Events:
    """Polarity events of an AEDAT 3.1 file, the format of the DVS128 Gesture data set.

    Other packets (frames, inertial sensors, special events) are skipped, and so are events that the camera marked as invalid.
    """
    raw = read_bytes(path, MAX_BYTES)
    if not raw.startswith(b"#!AER-DAT3.1"):
        raise DataError(f"{path} does not start as an AEDAT 3.1 file does.")
    end = raw.find(b"#!END-HEADER\r\n")
    if end < 0:
        raise DataError(f"{path}: its header has no end.")
    parts = list(_packets(raw, end + len(b"#!END-HEADER\r\n"), path))
    if not parts:
        raise DataError(f"{path} holds no polarity events.")
    data, times = (np.concatenate(each) for each in zip(*parts, strict=True))
    valid = (data & 1).astype(bool)
    return _ordered(Events(times[valid], (data >> 17 & 0x7FFF)[valid], (data >> 2 & 0x7FFF)[valid], (data >> 1 & 1)[valid]))


def _packets(raw: bytes, at: int, path: str | Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(data words, times in µs) of each polarity packet."""
    while at < len(raw):
        try:
            kind, _, size, _, overflow, capacity, number, _ = struct.unpack_from("<HHIIIIII", raw, at)
        except struct.error:
            raise DataError(f"{path} ends within the header of a packet.") from None
        at += 28
        if size < 8 or number > capacity or at + size * number > len(raw):
            raise DataError(f"{path} has a damaged packet at byte {at - 28}: {number} events of {size} bytes.")
        if kind == 1:
            if size != 8:
                raise DataError(f"{path} has polarity events of {size} bytes; 8 are wanted.")
            words = np.frombuffer(raw, "<u4", 2 * number, at).reshape(-1, 2).astype(np.int64)
            yield words[:, 0], words[:, 1] + (overflow << 31)
        at += size * capacity


def read_events(path: str | Path) -> Events:
    """Events from `.bin` (N-MNIST), `.aedat` (3.1), or arrays t, x, y and p in a `.npz`, `.safetensors` or structured `.npy`.

    Times are whole microseconds from 0 on, in any order and of any type; columns and rows are whole numbers; polarities 0
    and 1, false and true, or -1 and 1.

    **Raises:** `DataError` where something else is there, as times in seconds are.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".bin":
        return read_nmnist(path)
    if suffix == ".aedat":
        return read_aedat(path)
    arrays = load_arrays(path)
    if len(arrays) == 1 and (only := next(iter(arrays.values()))).dtype.names:
        arrays = {name: only[name] for name in only.dtype.names}
    if not {"t", "x", "y", "p"} <= arrays.keys():
        raise DataError(f"{path} holds {', '.join(filter(None, arrays)) or 'no named arrays'}; t (µs), x, y and p are wanted.")
    if strange := sorted(arrays.keys() - {*Events._fields}):
        raise DataError(f"{path} holds {strange[0]!r} beside t, x, y and p, which is not read.")
    parts = {name: np.ravel(arrays[name]) for name in Events._fields}
    if len({len(part) for part in parts.values()}) > 1:
        raise DataError(f"{path}: t, x, y and p have the lengths {[len(part) for part in parts.values()]}; they must agree.")
    return _ordered(Events(*(_whole(part, name, path) for name, part in parts.items())))


def _whole(values: np.ndarray, name: str, path: str | Path) -> np.ndarray:
    """One array of events as whole numbers; raises `DataError` where that would change a value."""
    if values.dtype.kind not in "iuf" + "b" * (name == "p"):
        raise DataError(f"{path}: {name} is of the type {values.dtype}; numbers are wanted.")
    if values.dtype.kind == "f" and len(values):
        broken = ~(np.isfinite(values) & (values == np.floor(values)))
        if broken.any():
            k = int(broken.argmax())
            unit = " of µs; times in seconds or ms are multiplied first" if name == "t" else ""
            raise DataError(f"{path}: {name} of event {k} is {values[k]}; whole numbers are wanted{unit}.")
    if name == "p" and values.dtype.kind != "b":
        low, high = (values.min(), values.max()) if len(values) else (0, 1)
        if not -1 <= low <= high <= 1 or (low == -1 and (values == 0).any()):
            raise DataError(f"{path}: polarities must be 0 or 1, or -1 or 1 throughout.")
        values = values == 1 if low == -1 else values
    elif name != "p" and len(values) and not 0 <= values.min() <= values.max() < 2**62:
        k = int(((values < 0) | (values >= 2**62)).argmax())
        raise DataError(f"{path}: {name} of event {k} is {values[k]}; it must not be negative.")
    return values.astype(np.int64)


def _ordered(events: Events) -> Events:
    order = np.argsort(events.t, kind="stable")
    return Events(*(part[order] for part in events))


def read_spiking_speech(
    path: str | Path, *, bin_ms: float = 10.0, duration_ms: float = 1000.0, channels: int = 700
) -> tuple[Float[np.ndarray, "samples time channels"], Int[np.ndarray, " samples"]]:
    """A file of the Heidelberg sets, Digits (SHD) or Speech Commands (SSC), binned: 1 where a channel fired in a bin.

    The file has spikes/times (s, of any precision, in any order), spikes/units (channels) and labels. Spikes from `duration_ms`
    on are left out; where it is no multiple of `bin_ms`, the last bin is cut short. **Returns:** (spikes, labels).

    **Raises:** `DataError` where the file is none of these, or a sample has a negative time or a channel beyond `channels`.
    """
    found = existing(path)
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("Reading HDF5", "data") from None
    if not bin_ms > 0 or not duration_ms >= bin_ms:
        raise InputError(f"bin_ms = {bin_ms} and duration_ms = {duration_ms}; above 0, and at least one bin, are wanted.")
    bins = bins_in(duration_ms, bin_ms)
    try:
        with h5py.File(found, "r") as file:
            times, units, labels = file["spikes/times"], file["spikes/units"], np.asarray(file["labels"], int)
            if not len(times) == len(units) == len(labels):
                raise DataError(
                    f"{found} has {len(times)} times, {len(units)} units and {len(labels)} labels; they must agree."
                )
            if len(labels) * bins * channels * 4 > 16 * MAX_BYTES:
                raise InputError(f"{found}: {len(labels)} samples of {bins} bins are too large; take longer bins.")
            out = np.zeros((len(labels), bins, channels), np.float32)
            for k in range(len(labels)):
                _fill(out[k], np.asarray(times[k]), np.asarray(units[k]), bin_ms, duration_ms, f"{found}, sample {k}")
    except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{found} is not a file of the Heidelberg spiking data sets ({error}).") from None
    return out, labels


def _fill(out: np.ndarray, times: np.ndarray, units: np.ndarray, bin_ms: float, duration_ms: float, where: str) -> None:
    """Sets the bins (time, channels) of one sample in which its channels fire; `times`: s."""
    if len(times) != len(units):
        raise DataError(f"{where} has {len(times)} times and {len(units)} units; they must agree.")
    if not len(times):
        return
    broken = ~((times >= 0) & np.isfinite(times))
    if broken.any():
        raise DataError(f"{where} has a spike at {times[broken][0]} s; times from 0 on are wanted.")
    strange = (units != np.floor(units)) | (units < 0) | (units >= out.shape[1])
    if strange.any():
        raise DataError(
            f"{where} has a spike of unit {units[strange][0]}; whole numbers from 0 to {out.shape[1] - 1} are wanted."
        )
    inside = bin_of(times, duration_ms / 1000) == 0
    out[bin_of(times[inside], bin_ms / 1000), units[inside].astype(int)] = 1
