"""What is in a session, and what looks like a mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from broadsheet.errors import BroadsheetError
from broadsheet.files import MIB
from broadsheet.recordings.sessions import Session
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.traces import Traces
from broadsheet.recordings.trials import Trials

LARGEST_COUNTED = 2048 * MIB
"""Traces of more bytes are not read for their missing share."""
SHORTEST_ISI = 0.5e-3
LONGEST_SESSION = 3 * 24 * 3600.0


@dataclass(frozen=True)
class UnitRow:
    """A unit: its spikes, their rate (1/s) in the time that it was observed (s), and what is odd about it."""

    name: str
    spikes: int
    rate: float
    observed: float
    note: str


@dataclass(frozen=True)
class TraceRow:
    """Traces: channels and samples, the median step and the ends (s), the share of values that are missing (None: not counted)
    and the number of steps longer than one and a half of the median."""

    name: str
    kind: str
    channels: int
    samples: int
    unit: str
    dt: float
    start: float
    stop: float
    missing: float | None
    gaps: int


@dataclass(frozen=True)
class TableRow:
    """A table of stretches: rows, ends and median length (s), and what each column holds."""

    name: str
    rows: int
    start: float
    stop: float
    median: float
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Description:
    """What is in a session."""

    name: str
    about: Mapping[str, str]
    start: float = float("nan")
    stop: float = float("nan")
    units: tuple[UnitRow, ...] = ()
    unit_columns: Mapping[str, str] = field(default_factory=dict)
    traces: tuple[TraceRow, ...] = ()
    tables: tuple[TableRow, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line."""
        parts = []
        if self.units:
            rates = np.array([unit.rate for unit in self.units])
            parts.append(
                f"{len(self.units)} units, median {np.median(rates):.3g} spikes/s, {self.stop - self.start:.4g} s of spikes"
            )
        if self.traces:
            parts.append(f"{len(self.traces)} traces with {sum(each.channels for each in self.traces)} channels")
        parts += [f"{each.rows} {each.name.rpartition('/')[2]}" for each in self.tables]
        return "; ".join(parts) or "nothing that is read"

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "summary": self.summary()}


def describe_session(session: Session, tick: Callable[[float, str], None] = lambda share, live: None) -> Description:
    """What is in a session. What cannot be read is a warning in its own words; the rest is described all the same.

    **Arguments:** `tick`: told the share that is done and what is looked at.
    """
    warnings: list[str] = []

    def attempt(read: Callable[[], Any], otherwise: Any = None) -> Any:
        try:
            return read()
        except BroadsheetError as error:
            warnings.append(str(error))
            return otherwise

    units: tuple[UnitRow, ...] = ()
    columns: dict[str, str] = {}
    ends = [float("nan")] * 2
    spikes: Spikes | None = attempt(lambda: session.spikes)
    names = list(session.traces)
    steps = max(1, len(names) + (len(spikes) if spikes is not None else 0))
    done = 0
    if spikes is not None:
        rows = []
        seconds = spikes.seconds()
        for k, name in enumerate(spikes.names):
            tick(done / steps, f"unit {name}")
            done += 1
            rows.append(attempt(lambda k=k: _unit(spikes, k, float(seconds[k]))))
        units = tuple(row for row in rows if row is not None)
        columns = {name: _column(values) for name, values in spikes.columns.items()}
        ends = [spikes.start, spikes.stop]
        warnings += _doubts(spikes, units)
    traces = []
    for name in names:
        tick(done / steps, name)
        done += 1
        row = attempt(lambda name=name: _trace(name, session.traces[name]))
        if row is not None:
            traces.append(row)
            if row.missing:
                warnings.append(f"{name}: {row.missing:.3%} of the values are missing (NaN).")
            if row.gaps:
                warnings.append(f"{name}: {row.gaps} steps are longer than one and a half times the median of {row.dt:.4g} s.")
    tables = [("trials", lambda: session.trials)] if attempt(lambda: session.trials) is not None else []
    tables += [(name, lambda name=name: session.intervals[name]) for name in session.intervals]
    found = [attempt(lambda name=name, read=read: _table(name, read())) for name, read in tables]
    return Description(
        session.name, dict(session.about), ends[0], ends[1], units, columns, tuple(traces),
        tuple(each for each in found if each is not None), dict(session.unused), tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _unit(spikes: Spikes, k: int, seconds: float) -> UnitRow:
    times = spikes.times[k]
    short = int((np.diff(times) < SHORTEST_ISI).sum())
    note = "" if times.size else "no spike"
    if short:
        note = f"{short} interval{'s' * (short > 1)} below {1e3 * SHORTEST_ISI:g} ms"
    return UnitRow(spikes.names[k], int(times.size), times.size / seconds if seconds else float("nan"), seconds, note)


def _doubts(spikes: Spikes, units: tuple[UnitRow, ...]) -> list[str]:
    """What of the spikes is hard to believe."""
    made = []
    rates = np.array([unit.rate for unit in units])
    if spikes.duration > LONGEST_SESSION and np.median(rates, axis=0) < 0.1:
        made.append(
            f"The spikes last {spikes.duration / 3600:.0f} h and most units fire less than once in 10 s; are these times ms?"
        )
    if rates.size and np.nanmedian(rates) > 500:
        made.append(f"The median unit fires {np.nanmedian(rates):.0f} spikes a second; are the times in another unit than s?")
    if len(spikes) == 1:
        made.append("There is one unit; verbs that want a population refuse it.")
    if spikes.observed is not None:
        covered = spikes.seconds() / spikes.duration
        made.append(
            f"Units were observed for {covered.min():.1%} to {covered.max():.1%} of the time; the rest is missing, not silent."
        )
    return made


def _trace(name: str, traces: Traces) -> TraceRow:
    channels, samples = len(traces.names), len(traces)
    missing = None
    if 8 * channels * samples <= LARGEST_COUNTED:
        missing = sum(int(np.isnan(values).sum()) for _, values in traces.blocks()) / max(1, channels * samples)
    return TraceRow(
        name, traces.kind, channels, samples, traces.unit, traces.dt, traces.start, traces.stop, missing, traces.gaps()
    )


def _table(name: str, table: Trials) -> TableRow:
    columns = {column: _column(values) for column, values in table.columns.items()}
    lengths = table.stop - table.start
    if not len(table):
        return TableRow(name, 0, float("nan"), float("nan"), float("nan"), columns)
    return TableRow(name, len(table), float(table.start.min()), float(table.stop.max()), float(np.median(lengths)), columns)


def _column(values: Any) -> str:
    """What a column holds, in a few words."""
    values = np.asarray(values)
    if values.dtype == object:
        return f"lists of {min(map(np.size, values), default=0)} to {max(map(np.size, values), default=0)} entries"
    if values.dtype.kind in "USb" or (values.dtype.kind in "iu" and len(np.unique(values)) <= 8):
        kinds, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:5]
        more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
        return ", ".join(f"{kinds[k]} ({counts[k]})" for k in order) + more
    finite = values[np.isfinite(values)]
    absent = len(values) - len(finite)
    said = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no number"
    return said + (f", {absent} missing" if absent else "")
