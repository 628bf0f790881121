"""Prefrontal recordings of rats that learn rules in a Y maze (CRCNS pfc-6): tab-separated tables of spikes and trials, times
in ms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int

from broadsheet.errors import BroadsheetError, DataError, InputError, MissingDataError
from broadsheet.files import MIB, read_text
from broadsheet.recordings.sessions import Session
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.trials import Trials

COLUMNS = ("start", "stop", "rule", "outcome", "choice", "light")
"""Of the table of trials. Rules: 1 right, 2 light, 3 left, 4 dark; outcome: 1 correct; choice and light: 1 left."""
LARGEST = 512 * MIB


def read_prefrontal(path: str | Path) -> Session:
    """A session of a folder with one `…_SpikeData.dat` (time, cell) and its `…_Behavior.dat`, or of the former file; in
    seconds.

    **Raises:** `MissingDataError` where there is no such file, `DataError` that names file and line.
    """
    path = Path(path).expanduser()
    found = sorted(path.glob("*_SpikeData.dat")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise MissingDataError(
            f"{path} is no folder with one …_SpikeData.dat; a session of CRCNS pfc-6 (crcns.org, free account), such as "
            "200104, is wanted."
        )
    spikes_file = found[0]
    table = _table(spikes_file, 2)
    cells = table[:, 1].astype(int)
    if (cells != table[:, 1]).any():
        raise DataError(f"{spikes_file}: the second column, the cell, must hold whole numbers.")
    names = np.unique(cells)
    behaviour_file = spikes_file.with_name(spikes_file.name.replace("_SpikeData", "_Behavior"))
    try:
        trials = None
        start, stop = table[:, 0].min() / 1e3, table[:, 0].max() / 1e3
        if behaviour_file.is_file():
            rows = _table(behaviour_file, len(COLUMNS))
            columns = {name: rows[:, k].astype(int) for k, name in enumerate(COLUMNS) if k > 1}
            trials = Trials(rows[:, 0] / 1e3, rows[:, 1] / 1e3, columns)
        times = tuple(table[cells == name, 0] / 1e3 for name in names)
        spikes = Spikes(times, tuple(map(str, names)), start, stop)
        return Session(spikes_file.stem.removesuffix("_SpikeData"), spikes, trials=trials)
    except BroadsheetError as error:
        raise DataError(f"{spikes_file}: {error}") from None


def counts_around(
    spikes: Spikes, times: np.ndarray, before: float, after: float, dt: float
) -> Int[np.ndarray, "times bins units"]:
    """Spikes in bins of `dt` from `before` to `after` each of some times (all s); what was not observed counts as silence.

    **Raises:** `InputError` where the window is shorter than two bins.
    """
    bins = round((after + before) / dt)
    if bins < 2:
        raise InputError(f"From {before:g} s before to {after:g} s after are {bins} bins of {dt:g} s; two or more are wanted.")
    edges = np.arange(bins + 1) * dt - before
    out = np.empty((len(times), bins, len(spikes)), np.int32)
    for unit in range(len(spikes)):
        each = spikes.times[unit]
        out[:, :, unit] = np.diff(np.searchsorted(each, np.asarray(times)[:, None] + edges), axis=1)
    return out


def _table(path: Path, columns: int) -> np.ndarray:
    """Numbers (rows, columns) of a file with tabs between."""
    rows = [line.split("\t") for line in read_text(path, LARGEST).splitlines() if line.strip()]
    if wrong := [k for k, row in enumerate(rows, 1) if len(row) != columns]:
        raise DataError(f"{path}, line {wrong[0]}: {len(rows[wrong[0] - 1])} cells; {columns}, with tabs between, are wanted.")
    if not rows:
        raise DataError(f"{path} is empty.")
    try:
        return np.array(rows, float)
    except ValueError:
        pass
    line = next(k for k, row in enumerate(rows, 1) if not all(map(_is_number, row)))
    raise DataError(f"{path}, line {line}: {', '.join(rows[line - 1])[:60]} holds a cell that is no number.")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
