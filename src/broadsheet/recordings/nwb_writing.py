"""A session as an NWB 2 file that other programs read."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.recordings.nwb_series import CHANNELS, OWN_NAMES
from broadsheet.recordings.sessions import CELLS, Session
from broadsheet.recordings.traces import BLOCK_BYTES, Traces
from broadsheet.recordings.trials import Trials

CONTAINERS = {
    "RoiResponseSeries": ("Fluorescence", "DfOverF"),
    "SpatialSeries": ("Position", "CompassDirection", "EyeTracking"),
    "TimeSeries": ("BehavioralTimeSeries", "BehavioralEvents", "PupilTracking"),
}
"""Interfaces of NWB that take a kind of series, the usual one first."""
RESERVED = ("spike_times", "obs_intervals", "electrodes", "electrode_group", "waveforms", "waveform_mean", "waveform_sd")
"""Columns of units that NWB has, of which a session has no use."""


def write_nwb(session: Session, path: str | Path) -> Path:
    """Writes a session: spikes with when each unit was observed, traces, trials, other tables, and what is known of each.

    The file appears when it is whole. Traces `module/interface/name` go there; a name without a place goes into `acquisition`.
    What `session.unused` names was not read, so it is not written either. Traces of a file are copied by stretches; other kinds
    than cells and positions become plain series.

    **Raises:** `InputError` for names that NWB cannot have, `MissingExtraError` without pynwb.
    """
    try:
        import pynwb
    except ImportError:
        raise MissingExtraError("Writing NWB", "recordings") from None
    path = Path(path)
    if path.suffix != ".nwb":
        raise InputError(f"{path}: sessions are written as .nwb.")
    try:
        nwb = _file(session)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # pynwb's, for names and values that it does not take
        said = " ".join((str(error).splitlines() or [""])[0].split())[:160]
        raise InputError(f"{session.name} cannot be written as NWB ({said}).") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pynwb.NWBHDF5IO(str(part), "w") as io:
                io.write(nwb)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return path


def _file(session: Session) -> Any:
    """The session as pynwb's object."""
    import pynwb

    about = dict(session.about)
    nwb = pynwb.NWBFile(
        session_description=about.pop("session_description", "") or session.name or "a session",
        identifier=about.pop("identifier", "") or str(uuid.uuid4()),
        session_start_time=_start(about.pop("session_start_time", "")),
        experimenter=[each] if (each := about.pop("experimenter", "")) else None,
        **{key: about.pop(key) for key in ("experiment_description", "lab", "institution") if key in about},
    )
    animal = {key.removeprefix("subject "): value for key, value in about.items() if key.startswith("subject ")}
    if animal:
        nwb.subject = _subject(animal)
    left = [f"{key}: {value}" for key, value in about.items() if not key.startswith("subject ")]
    nwb.notes = "\n".join(left) or None
    if session.spikes is not None:
        _units(nwb, session.spikes)
    for name in session.traces:
        _series(nwb, name, session.traces[name])
    tables = {} if session.trials is None else {"trials": session.trials}
    tables |= {name: session.intervals[name] for name in session.intervals}
    for name, table in tables.items():
        _table(nwb, name, table)
    return nwb


def _start(text: str) -> datetime.datetime:
    """When the session began; the epoch where that is not known, since NWB wants a date."""
    try:
        made = datetime.datetime.fromisoformat(text)
    except ValueError:
        made = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return made if made.tzinfo else made.replace(tzinfo=datetime.UTC)


def _subject(animal: dict[str, str]) -> Any:
    from pynwb.file import Subject

    fields: dict[str, Any] = {
        key: animal[key]
        for key in ("subject_id", "species", "strain", "genotype", "sex", "age", "description")
        if key in animal
    }
    with contextlib.suppress(KeyError, ValueError):
        fields["date_of_birth"] = _start(animal["date_of_birth"])
    return Subject(**fields)


def _units(nwb: Any, spikes: Any) -> None:
    for name in spikes.columns:
        if name in RESERVED:
            raise InputError(f"A column of units cannot be called {name!r} in NWB, which has one of its own.")
        if name != "unit_name":
            nwb.add_unit_column(name, name, data=[])
    nwb.add_unit_column("unit_name", "the unit's name")
    for k, name in enumerate(spikes.names):
        more = {column: _scalar(values[k]) for column, values in spikes.columns.items() if column != "unit_name"}
        nwb.add_unit(spike_times=spikes.times[k], obs_intervals=spikes.stretches(k), unit_name=name, **more)


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _series(nwb: Any, name: str, traces: Traces) -> None:
    """One series at the place that its name says."""
    from pynwb import TimeSeries
    from pynwb.behavior import SpatialSeries
    from pynwb.core import DynamicTable, DynamicTableRegion, VectorData
    from pynwb.ophys import RoiResponseSeries

    *place, last = [each for each in name.split("/") if each]
    if not 0 <= len(place) <= 2 or not last:
        raise InputError(f"The traces {name!r}: a name, module/name or module/interface/name is wanted.")
    options: dict[str, Any] = {"name": last, "data": _data(traces), "unit": traces.unit or "unknown", **_clock(traces)}
    if traces.kind == CELLS:
        columns = [VectorData(name=OWN_NAMES, description="names of cells, each once", data=list(traces.names))]
        columns += [
            VectorData(name=column, description=column, data=list(values))
            for column, values in traces.columns.items()
            if np.asarray(values).dtype.kind in "biufU"
        ]
        cells = DynamicTable(name=f"{last}_cells", description="cells of the traces", columns=columns)
        _module(nwb, place[0] if place and place[0] not in ("acquisition", "stimulus", "analysis") else "ophys").add(cells)
        region = DynamicTableRegion(name="rois", data=list(range(len(traces.names))), description="all", table=cells)
        made: Any = RoiResponseSeries(rois=region, **options)
    else:
        options["comments"] = CHANNELS + json.dumps(traces.names)
        place_series = traces.kind == "SpatialSeries" and len(traces.names) <= 3
        made = SpatialSeries(reference_frame="unknown", **options) if place_series else TimeSeries(**options)
    if not place or place == ["acquisition"]:
        nwb.add_acquisition(made)
    elif place == ["stimulus"]:
        nwb.add_stimulus(made)
    elif place == ["analysis"]:
        nwb.add_analysis(made)
    elif len(place) == 1:
        _module(nwb, place[0]).add(made)
    else:
        _interface(nwb, place, type(made).__name__, made)


def _module(nwb: Any, name: str) -> Any:
    return nwb.processing[name] if name in nwb.processing else nwb.create_processing_module(name, f"{name} data")


def _interface(nwb: Any, place: list[str], kind: str, series: Any) -> None:
    """Puts a series into the interface that its name says, which is made where it is missing."""
    from pynwb import behavior, ophys

    where = _module(nwb, place[0])
    if place[1] in where.data_interfaces:
        held = where.data_interfaces[place[1]]
    else:
        usual, *others = CONTAINERS[kind]
        known = place[1] if place[1] in others else usual
        held = getattr(ophys if kind == CELLS else behavior, known)(name=place[1])
        where.add(held)
    add = {"SpatialSeries": "add_spatial_series", CELLS: "add_roi_response_series"}
    getattr(held, add.get(kind, "add_timeseries"))(series)


def _clock(traces: Traces) -> dict[str, Any]:
    """A rate where it gives the same times to the last bit, else the times."""
    times = traces.times
    if len(times) > 1:
        rate = (len(times) - 1) / (times[-1] - times[0])
        for guess in (rate, round(rate, 6), float(round(rate))):
            if guess > 0 and np.array_equal(times[0] + np.arange(len(times)) / guess, times):
                return {"rate": float(guess), "starting_time": float(times[0])}
    return {"timestamps": times}


def _data(traces: Traces) -> Any:
    """The values; those that are large by stretches, so that they are never in memory as a whole."""
    shape = (len(traces), len(traces.names))
    if 8 * shape[0] * shape[1] <= BLOCK_BYTES or "values" in traces.__dict__:
        return traces.values if shape[1] > 1 or traces.kind == CELLS else traces.values[:, 0]
    from hdmf.data_utils import GenericDataChunkIterator

    class Stretches(GenericDataChunkIterator):
        def _get_data(self, selection: tuple[slice, ...]) -> np.ndarray:
            return traces.rows(selection[0].start, selection[0].stop)[:, selection[1]]

        def _get_maxshape(self) -> tuple[int, ...]:
            return shape

        def _get_dtype(self) -> np.dtype:
            return np.dtype(float)

    rows = max(1, BLOCK_BYTES // (8 * shape[1]))
    return Stretches(buffer_shape=(min(rows, shape[0]), shape[1]), chunk_shape=(min(max(1, rows // 32), shape[0]), shape[1]))


def _table(nwb: Any, name: str, table: Trials) -> None:
    from pynwb.epoch import TimeIntervals

    *place, last = name.split("/")
    made = TimeIntervals(name=last, description=f"{last} of the session")
    kept = dict(table.columns)
    lists = {column: values for column, values in kept.items() if np.asarray(values).dtype == object}
    for column in kept:
        made.add_column(column, column, index=column in lists)
    for k in range(len(table)):
        more = {column: list(values[k]) if column in lists else _scalar(values[k]) for column, values in kept.items()}
        made.add_interval(start_time=float(table.start[k]), stop_time=float(table.stop[k]), **more)
    if place:
        _module(nwb, place[0]).add(made)
    elif last == "trials":
        nwb.trials = made
    elif last == "epochs":
        nwb.epochs = made
    elif last == "invalid_times":
        nwb.invalid_times = made
    else:
        nwb.add_time_intervals(made)
