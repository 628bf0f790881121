"""Series of an NWB file as traces."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from broadsheet.errors import DataError
from broadsheet.files import MIB
from broadsheet.recordings.nwb_tables import LARGEST_COLUMN, plain, texts
from broadsheet.recordings.traces import LARGEST_READ, StoredTraces, check_clock

IMAGES = ("ImageSeries", "IndexSeries", "ImageMaskSeries", "OpticalSeries", "TwoPhotonSeries", "OnePhotonSeries")
OWN_NAMES, CHANNELS = "cell_name", "channels: "
"""Where `write_nwb` keeps names: a column of the table of cells, and the comments of a series, which has no other place."""
LABELS = (
    OWN_NAMES, "ID_labels", "ID_label", "Neuron_IDs", "neuron_ids", "neuron_id", "neuron_name", "neuron", "labels", "label",
    "name", "cell_specimen_id",
)  # fmt: skip
"""Columns that name cells, the best first."""


class Place(NamedTuple):
    """A series and the processing module that it lies in."""

    series: Any
    module: Any


def kind_of(item: Any) -> str:
    """The NWB type of an object."""
    return str(getattr(item, "neurodata_type", type(item).__name__))


def why_unused(series: Any) -> str:
    """Why a series is no trace; "" where it is one."""
    kind = kind_of(series)
    bases = {base.__name__ for base in type(series).__mro__}
    if bases & set(IMAGES):
        shape = tuple(np.shape(series.data)) if series.data is not None else ()
        return f"images ({kind}{', ' + ' x '.join(map(str, shape)) if shape and shape[0] else ''})"
    if kind in ("AnnotationSeries", "IntervalSeries"):
        return f"of the type {kind}, marks in time without values"
    shape = np.shape(series.data)
    if len(shape) not in (1, 2):
        return f"an array of {len(shape)} dimensions ({' x '.join(map(str, shape))})"
    dtype = np.dtype(getattr(series.data, "dtype", np.asarray(series.data[:1]).dtype))
    if dtype.kind not in "biuf":
        return f"no numbers but {'text' if dtype.kind in 'OSU' else dtype}"
    return "" if shape[0] else "empty"


def read_series(place: Place, told: Callable[[], AbstractContextManager[None]]) -> StoredTraces:
    """The traces of a series: values times its conversion plus its offset, read by stretches.

    Data that lie as (cells, samples) are turned, where the times or the table of cells say so.
    """
    series, data = place.series, place.series.data
    shape = tuple(np.shape(data))
    rows = _rows(series)
    stamps = series.timestamps
    wide = shape if len(shape) == 2 else (shape[0], 1)
    if stamps is not None:
        turned = len(shape) == 2 and len(stamps) != wide[0] and len(stamps) == wide[1]
    else:
        turned = len(shape) == 2 and rows is not None and len(rows) == wide[0] and len(rows) != wide[1]
    samples, channels = wide[::-1] if turned else wide
    if stamps is not None and len(stamps) != samples:
        raise DataError(f"{samples} samples have {len(stamps)} timestamps; one each is wanted.")
    if channels > LARGEST_COLUMN:
        raise DataError(f"it has {channels} channels; at most {LARGEST_COLUMN} are read.")
    numbers = {
        "conversion": 1.0 if series.conversion is None else float(series.conversion),
        "offset": float(getattr(series, "offset", 0.0) or 0.0),
        "starting_time": float(series.starting_time or 0.0),
        "rate": 1.0 if stamps is not None else float("nan") if series.rate is None else float(series.rate),
    }
    for name, value in numbers.items():
        if not np.isfinite(value) or (name == "rate" and value <= 0):
            raise DataError(
                f"its {name} is {value:g}; {'a rate above 0 or timestamps are' if name == 'rate' else 'a number is'} wanted."
            )
    scale, offset = np.full(channels, numbers["conversion"]), numbers["offset"]
    factors = getattr(series, "channel_conversion", None)
    if factors is not None:
        scale = scale * np.asarray(factors[:], float)

    def read(first: int, last: int) -> np.ndarray:
        if (last - first) * channels * 8 > LARGEST_READ:
            size = (last - first) * channels * 8 / MIB
            raise DataError(f"{size:.0f} MiB are asked for at once; read stretches by between() or blocks().")
        with told():
            part = data[:, first:last].T if turned else data[first:last]
            values = np.asarray(part, float).reshape(-1, channels)
            if (scale != 1).any() or offset:
                values = values * scale + offset
            return values

    def clock() -> np.ndarray:
        with told():
            if 8 * samples > LARGEST_READ:
                raise DataError(f"{samples} timestamps are more than is read.")
            times = np.asarray(stamps[:], float)
            check_clock(times)
            return times

    even = (numbers["starting_time"], numbers["rate"])
    names, columns = _channels(place, rows, channels)
    return StoredTraces(
        read,
        even if stamps is None else clock,
        samples,
        names,
        "" if series.unit in (None, "unknown") else str(series.unit),
        kind_of(series),
        columns,
    )


def _rows(series: Any) -> np.ndarray | None:
    """The rows of a table that the channels of a series are."""
    region = getattr(series, "rois", None)
    region = getattr(series, "electrodes", None) if region is None else region
    if region is None:
        return None
    return np.asarray(region.data[:], int)


def _channels(place: Place, rows: np.ndarray | None, count: int) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the channels, each once, and what is known of each."""
    series = place.series
    if rows is None:
        return _plain_names(series, count), {}
    if len(rows) != count:
        raise DataError(f"{count} channels are named by {len(rows)} rows of a table; one each is wanted.")
    region = series.rois if getattr(series, "rois", None) is not None else series.electrodes
    table = region.table
    if rows.size and (rows.min() < 0 or rows.max() >= len(table.id)):
        raise DataError(f"a channel is row {int(rows.max())} of the table {table.name!r}, which has {len(table.id)}.")
    ids = np.asarray(table.id[:])[rows]
    columns = {}
    for name in table.colnames:
        entries = plain(table, name) if len(table.id) <= LARGEST_COLUMN else None
        if entries is not None:
            columns[name] = entries[rows]
    label = next((name for name in LABELS if name in columns), None)
    if label is None and kind_of(series) == "RoiResponseSeries":
        beside = _labels_beside(place.module, len(table.id), count)
        if beside is not None:
            columns["label"] = beside[rows] if len(beside) == len(table.id) else beside
            label = "label"
    if label is None:
        return unique([""] * count, ids), columns
    labels = texts(columns[label])
    if label == OWN_NAMES:
        del columns[label]
    else:
        columns.setdefault("label", labels)
    return unique([each.strip() for each in labels.tolist()], ids), columns


def _labels_beside(module: Any, rows: int, channels: int) -> np.ndarray | None:
    """Names of cells that lie beside the traces, as in WormID's `NeuronIDs`: a table or an object with `labels`."""
    for item in module.data_interfaces.values() if module is not None else ():
        found = getattr(item, "labels", None)
        if found is None and hasattr(item, "colnames"):
            name = next((each for each in LABELS if each in item.colnames), None)
            found = plain(item, name) if name else None
        if found is not None and len(found) in (rows, channels):
            return texts(np.asarray(found[:]))
    return None


def unique(labels: Sequence[str], ids: Any) -> tuple[str, ...]:
    """Labels as names, each once: the unnamed by their numbers, those that come twice with their numbers behind."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return tuple(
        str(number) if not label or label == "nan" else label if counts[label] == 1 else f"{label} ({number})"
        for label, number in zip(labels, ids, strict=True)
    )


def _plain_names(series: Any, count: int) -> tuple[str, ...]:
    comments = str(getattr(series, "comments", "") or "")
    if comments.startswith(CHANNELS):
        with contextlib.suppress(ValueError, RecursionError):
            names = json.loads(comments.removeprefix(CHANNELS))
            if isinstance(names, list) and len(names) == count:
                return unique([str(each) for each in names], range(count))
    if count == 1:
        return (series.name,)
    features = getattr(series, "features", None)
    if features is not None and len(features) == count:
        return unique([str(each) for each in features[:]], range(count))
    if kind_of(series) == "SpatialSeries" and count <= 3:
        return ("x", "y", "z")[:count]
    return tuple(map(str, range(count)))
