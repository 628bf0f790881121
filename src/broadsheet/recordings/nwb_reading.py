"""What is in an open NWB file, as the parts of a session; each is read when it is asked for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from pynwb import NWBFile, TimeSeries
from pynwb.epoch import TimeIntervals

from broadsheet.errors import BroadsheetError, DataError
from broadsheet.recordings.nwb_series import Place, kind_of, read_series, why_unused
from broadsheet.recordings.nwb_tables import read_intervals, read_units
from broadsheet.recordings.sessions import Session
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.trials import Trials

ABOUT = (
    "session_description",
    "identifier",
    "session_start_time",
    "experiment_description",
    "experimenter",
    "lab",
    "institution",
)
ANIMAL = ("subject_id", "species", "strain", "genotype", "sex", "age", "date_of_birth", "growth_stage", "description")


class StoredSession(Session):
    """The session of an open NWB file."""

    _nwb: NWBFile
    _io: Any
    _file: Any
    _mend: bool

    def __init__(self, name: str, nwb: NWBFile, io: Any, file: Any, mend: bool = False) -> None:
        for key, value in {"name": name, "_nwb": nwb, "_io": io, "_file": file, "_mend": mend}.items():
            object.__setattr__(self, key, value)

    def close(self) -> None:
        """Closes the file; what was not read is gone."""
        self._io.close()
        self._file.close()

    def __reduce__(self) -> Any:
        whole = self.load()
        return Session, (whole.name, whole.spikes, whole.traces, whole.trials, whole.about, whole.intervals, whole.unused)

    @cached_property
    def spikes(self) -> Spikes | None:
        """The table of units; times are read unit by unit."""
        table = self._nwb.units
        if table is None or not len(table.id) or "spike_times" not in table.colnames:
            return None
        return self._part("units", lambda: read_units(table, lambda: self._told("units"), self._mend))

    @cached_property
    def trials(self) -> Trials | None:
        """The table of trials."""
        table = self._nwb.trials
        return (
            None if table is None or not len(table.id) else self._part("trials", lambda: read_intervals(table, self._mend)[0])
        )

    @cached_property
    def traces(self) -> Mapping[str, Any]:
        """Series of numbers, by their places."""
        return Parts({
            name: lambda name=name, place=place: self._part(name, lambda: read_series(place, lambda: self._told(name)))
            for name, place in self._found[0].items()
        })  # fmt: skip

    @cached_property
    def intervals(self) -> Mapping[str, Trials]:
        """Tables of stretches other than trials."""
        return Parts({
            name: lambda name=name, table=table: self._part(name, lambda: read_intervals(table, self._mend)[0])
            for name, table in self._found[1].items()
        })  # fmt: skip

    @cached_property
    def unused(self) -> Mapping[str, str]:
        """What the file holds and the session does not."""
        left = dict(self._found[2])
        if self._mend:
            left["what was mended"] = "spikes that come twice or are no numbers, and stretches without a length"
        nwb = self._nwb
        tables = {"trials": nwb.trials, **self._found[1]}
        for name, table in tables.items():
            if table is not None and len(table.id):
                with contextlib.suppress(BroadsheetError):  # said where the table itself is asked for
                    left |= {
                        f"{name}/{column}": why
                        for column, why in self._part(name, lambda t=table: read_intervals(t, mend=True)[1]).items()
                    }
        if nwb.units is not None:
            if "spike_times" not in nwb.units.colnames:
                left["units"] = f"{len(nwb.units.id)} units without spike times"
            left |= {f"units/{name}": why for name, why in unused_unit_columns(nwb.units).items()}
        return left

    @cached_property
    def about(self) -> Mapping[str, str]:
        """What the file says of the animal and the recording."""
        nwb, made = self._nwb, {}
        for key in ABOUT:
            if (value := getattr(nwb, key, None)) is not None and len(value if isinstance(value, str | tuple) else "x"):
                made[key] = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        for key in ANIMAL:
            if nwb.subject is not None and (value := getattr(nwb.subject, key, None)) is not None:
                made[f"subject {key}"] = str(value)
        return made

    @cached_property
    def _found(self) -> tuple[dict[str, Place], dict[str, Any], dict[str, str]]:
        """Series, tables of stretches, and what is neither, by place."""
        nwb = self._nwb
        series: dict[str, Place] = {}
        tables = dict(nwb.intervals or {})
        tables |= {t.name: t for t in (nwb.epochs, nwb.invalid_times) if t is not None}
        tables.pop("trials", None)
        unused: dict[str, str] = {}
        others: dict[str, Any] = {}

        def look(place: str, item: Any, around: Any, depth: int = 0) -> None:
            if isinstance(item, TimeSeries):
                if why := why_unused(item):
                    unused[place] = why
                else:
                    series[place] = Place(item, around)
            elif isinstance(item, TimeIntervals):
                tables[place] = item
            else:
                inner = [child for child in getattr(item, "children", ()) if isinstance(child, TimeSeries | TimeIntervals)]
                for child in inner if depth < 4 else ():
                    look(f"{place}/{child.name}", child, around, depth + 1)
                if kind_of(item) == "ImageSegmentation":
                    unused[place] = "outlines of cells; what its tables say of each cell is read with the traces"
                elif not inner:
                    others[place] = item

        for part in ("acquisition", "stimulus", "analysis"):
            for name, item in getattr(nwb, part).items():
                look(f"{part}/{name}", item, None)
        for module in nwb.processing.values():
            for name, item in module.data_interfaces.items():
                look(f"{module.name}/{name}", item, module)
        for part in ("stimulus_template", "scratch", "lab_meta_data"):
            for name, item in (getattr(nwb, part, None) or {}).items():
                unused[f"{part}/{name}"] = f"of the type {kind_of(item)}"
        if nwb.icephys_electrodes:
            unused["icephys tables"] = "sweeps of single cells; their series are read as traces"
        named = [getattr(each.series, "rois", None) for each in series.values()]
        read = {id(region.table) for region in named if region is not None}
        for place, item in others.items():
            if id(item) not in read and not hasattr(item, "labels"):
                unused[place] = f"of the type {kind_of(item)}"
        return series, tables, unused

    def _part(self, place: str, read: Callable[[], Any]) -> Any:
        with self._told(place):
            return read()

    @contextlib.contextmanager
    def _told(self, place: str) -> Iterator[None]:
        """Errors say which part of which file they are of."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BroadsheetError as error:
            said = str(error)
            raise (error if said.startswith(self.name) else type(error)(f"{self.name}: {place}: {said}")) from None
        except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, AttributeError, MemoryError) as error:
            said = " ".join((str(error).splitlines() or [""])[0].split())[:120]
            raise DataError(f"{self.name}: {place} cannot be read ({said or type(error).__name__}).") from None


def unused_unit_columns(table: Any) -> dict[str, str]:
    """Columns of units that hold lists, with what they are."""
    known = ("spike_times", "obs_intervals", "electrodes", "electrode_group")
    return {
        name: "a list for each unit" for name in table.colnames
        if name not in known and (f"{name}_index" in _columns(table) or np.ndim(table[name].data) > 1)
    }  # fmt: skip


def _columns(table: Any) -> set[str]:
    return {column.name for column in table.columns}


class Parts(Mapping[str, Any]):
    """Parts by name that are made when they are asked for, each time anew, so that none is held for longer than it is used."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
