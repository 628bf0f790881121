"""Recordings of several animals from files, matched by the names of their neurons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.recordings.nwb import open_session
from broadsheet.recordings.traces import Traces

SUFFIXES = (".nwb", ".npz", ".csv", ".tsv")


def read_animals(files: Sequence[str | Path], trace: str | None = None, least: int = 2) -> list[Traces]:
    """The traces of named neurons of each file (NWB, .npz, CSV): one recording an animal.

    Neurons without a name (empty, a number) and those whose name comes twice in a file are left out.

    **Arguments:** `trace`: which traces of a file, by name, where it has several; `least`: files that have to be there.

    **Raises:** `InputError` for too few files; `DataError` for one without named neurons, for a trace that is NaN in part,
    and for a name in two spellings.
    """
    if len(files) < least:
        raise InputError(f"{len(files)} recordings were given; {least} animals or more are wanted.")
    spelled: dict[str, tuple[str, str]] = {}
    out = []
    for file in files:
        with open_session(file) as session:
            cells = session.cells(trace) if trace or len(session.traces) != 1 else next(iter(session.traces.values()))
            named = [name for name in cells.names if not re.fullmatch(r"[\d.]*|.* \(\d+\)", name)]
            if len(named) < 2:
                raise DataError(f"{file} has {len(named)} neurons with a name of their own; two or more are wanted.")
            traces = cells.choose(named)
            values = np.asarray(traces.values)
        for name in named:
            first, where = spelled.setdefault(_key(name), (name, str(file)))
            if first != name:
                raise DataError(f"{file} spells {name!r} what is {first!r} in {where}; one spelling is wanted.")
        partly = np.isnan(values).any(axis=0) & ~np.isnan(values).all(axis=0)
        if partly.any():
            neuron = int(partly.argmax())
            time = traces.times[int(np.isnan(values[:, neuron]).argmax())]
            raise DataError(
                f"{file}: the trace of {named[neuron]} is NaN at {time:g} s; whole traces are wanted (fill or drop it)."
            )
        if not np.isfinite(values).all(where=~np.isnan(values)):
            raise DataError(f"{file} holds infinite values.")
        out.append(traces)
    return out


def animal_files(folder: str | Path) -> list[Path]:
    """The recordings in a folder, by name."""
    return sorted(each for each in Path(folder).iterdir() if each.suffix.lower() in SUFFIXES)


def _key(name: str) -> str:
    """What spellings of a name have in common: letters without case, numbers without zeros in front, no separators."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_.-]", "", name).upper())
