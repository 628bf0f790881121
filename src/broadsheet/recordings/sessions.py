"""What a recording holds, in seconds: spikes of sorted units, traces, trials; from and to the field's own objects.

A `Session` is one recording of one animal. Its parts go to pynapple (`TsGroup`, `TsdFrame`, `IntervalSet`) and Neo and back,
and to arrays, which is what estimators take. Files are read by `broadsheet.recordings.open_session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.traces import Traces
from broadsheet.recordings.trials import Trials
from broadsheet.recordings.words import some

__all__ = ["Session", "Spikes", "Traces", "Trials"]

CELLS = "RoiResponseSeries"


@dataclass(frozen=True)
class Session:
    """One recording of one animal. Parts that a file lacks are None or empty.

    - `spikes`, `trials`: where there are any.
    - `traces`: by name; in a name from NWB its place comes first, as in `behavior/BehavioralTimeSeries/running_speed`.
    - `intervals`: other tables of stretches, by name: epochs, presentations of stimuli.
    - `about`: what the file says of the animal and the recording.
    - `unused`: what the file holds and this session does not, with the reason.
    """

    name: str
    spikes: Spikes | None = None
    traces: Mapping[str, Traces] = field(default_factory=dict)
    trials: Trials | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, Trials] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file that the session reads from, if there is one."""

    def load(self) -> Session:
        """The same, all of it in memory."""
        return Session(
            self.name, self.spikes.load() if self.spikes else None,
            {name: Traces(*self.traces[name].__reduce__()[1]) for name in self.traces},
            self.trials, dict(self.about), {name: self.intervals[name] for name in self.intervals}, dict(self.unused),
        )  # fmt: skip

    def units(self, least: int = 1) -> Spikes:
        """The spikes; raises `InputError` where there are none, or fewer than `least` units."""
        if self.spikes is None:
            held = f"it has traces {some(tuple(self.traces))}" if self.traces else "and it has no traces either"
            raise InputError(f"{self.name} has no spike times; {held}.")
        try:
            return self.spikes.population(least)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None

    def trace(self, name: str) -> Traces:
        """The traces of a name: the whole one, the end of it after a `/`, or a word that only one name has in its last part.

        **Raises:** `InputError` where there is none or several.
        """
        return self.traces[self.trace_name(name)]

    def trace_name(self, name: str) -> str:
        """The whole name that `trace` takes a shorter one for."""
        if name in self.traces:
            return name
        last = {each: each.rpartition("/")[2].lower() for each in self.traces}
        for fits in (
            [each for each in last if each.endswith("/" + name)],
            [each for each in last if last[each] == name.lower()],
            [each for each in last if name.lower() in last[each]],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise InputError(f"{self.name} has {len(fits)} traces named {name!r}: {some(fits)}; name one of them whole.")
        raise InputError(f"{self.name} has no trace named {name!r}; it has {some(tuple(self.traces))}.")

    def cells(self, name: str | None = None) -> Traces:
        """The traces of cells: those named, or the only ones of the kind `RoiResponseSeries`."""
        if name is not None:
            return self.trace(name)
        found = [each for each in self.traces if self.traces[each].kind == CELLS]
        if len(found) != 1:
            raise InputError(f"{self.name} has {len(found)} traces of cells; name one of {some(found or tuple(self.traces))}.")
        return self.traces[found[0]]

    def to_pynapple(self) -> dict[str, Any]:
        """pynapple's objects by name, as its `NWBFile` has them: `units`, `trials`, and traces and intervals by the last part
        of their names, or the whole one where that comes twice."""
        made: dict[str, Any] = {}
        if self.spikes is not None:
            made["units"] = self.spikes.to_pynapple()
        if self.trials is not None:
            made["trials"] = self.trials.to_pynapple()
        for part in (self.intervals, self.traces):
            for name in part:
                short = name.rpartition("/")[2]
                alone = sum(each.rpartition("/")[2] == short for each in (*self.intervals, *self.traces)) == 1
                made[short if alone and short not in made else name] = part[name].to_pynapple()
        return made

    @classmethod
    def from_neo(cls, segment: Any, name: str = "") -> Session:
        """From a `neo.Segment`: spike trains, analogue and irregularly sampled signals, and epochs (labels as a column).
        Events are put into `unused`."""
        traces, unused = {}, {}
        for k, signal in enumerate((*segment.analogsignals, *segment.irregularlysampledsignals)):
            channels = signal.array_annotations.get("channel_names", range(signal.shape[1]))
            times, values = signal.times.rescale("s").magnitude, np.asarray(signal.magnitude, float)
            traces[signal.name or f"signal {k}"] = Traces(
                values, times, tuple(map(str, channels)), str(signal.units.dimensionality).strip("()")
            )
        intervals = {}
        for k, epoch in enumerate(segment.epochs):
            start, lasting = (each.rescale("s").magnitude for each in (epoch.times, epoch.durations))
            columns = {column: np.asarray(values) for column, values in epoch.array_annotations.items()}
            if len(epoch.labels) == len(start) and any(epoch.labels):
                columns["label"] = np.asarray(epoch.labels)
            intervals[epoch.name or f"epoch {k}"] = Trials(start, start + lasting, columns)
        for k, event in enumerate(segment.events):
            unused[event.name or f"event {k}"] = f"{len(event)} events without a length"
        spikes = Spikes.from_neo(segment.spiketrains) if len(segment.spiketrains) else None
        return cls(name or segment.name or "session", spikes, traces, intervals.pop("trials", None), {}, intervals, unused)

    def to_neo(self) -> Any:
        """A `neo.Segment`; traces of uneven steps are `IrregularlySampledSignal`s, columns of tables are annotations of epochs
        (lists are left out), and units that Neo does not know become pure numbers."""
        try:
            import neo
            import quantities as pq
        except ImportError:
            raise MissingExtraError("Neo", "recordings") from None
        segment = neo.Segment(name=self.name)
        if self.spikes is not None:
            segment.spiketrains.extend(self.spikes.to_neo())
        for name, each in self.traces.items():
            unit, steps = _known(each.unit, pq), np.diff(each.times)
            channels = {"channel_names": np.array(each.names)}
            if steps.size and np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9):
                clock = {"t_start": each.start * pq.s, "sampling_period": each.dt * pq.s}
                segment.analogsignals.append(
                    neo.AnalogSignal(each.values, unit, name=name, array_annotations=channels, **clock)
                )
            else:
                made = neo.IrregularlySampledSignal(each.times, each.values, unit, "s", name=name, array_annotations=channels)
                segment.irregularlysampledsignals.append(made)
        for name, table in {**({"trials": self.trials} if self.trials else {}), **self.intervals}.items():
            columns = {
                column: values for column, values in table.columns.items() if column != "label" and values.dtype != object
            }
            labels = np.asarray(table.columns.get("label", [""] * len(table))).astype(str)
            lasting = table.stop - table.start
            epoch = neo.Epoch(table.start, lasting, labels, units="s", name=name, array_annotations=columns)
            segment.epochs.append(epoch)
        return segment


def _known(unit: str, quantities: Any) -> Any:
    """A unit as Neo takes it; one that it does not know becomes a pure number."""
    try:
        return quantities.CompoundUnit(unit) if "/" in unit else quantities.Quantity(1.0, unit).units
    except (LookupError, ValueError, SyntaxError, TypeError, AttributeError):
        return quantities.dimensionless
