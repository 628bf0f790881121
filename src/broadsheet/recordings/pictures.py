"""What of a recording is drawn on an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.stretches import joined
from broadsheet.recordings.traces import Traces

MOST_DOTS, DOTS_A_UNIT = 12_000, 60


def draw_raster(axis: Any, spikes: Spikes, start: float, stop: float, colour: str = "black") -> float:
    """The spikes of one stretch, a row a unit, the one that fires most on top, grey where no unit was observed; where there are
    too many to draw, of a shorter stretch. Returns its end (s)."""
    shown = spikes.between(start, stop)
    sizes = shown.sizes
    most = max(MOST_DOTS, DOTS_A_UNIT * len(spikes))
    if sizes.sum() > most:
        stop = start + (stop - start) * most / float(sizes.sum())
        shown = shown.between(start, stop)
        sizes = shown.sizes
    order = np.argsort(sizes, kind="stable")
    rows = np.concatenate([np.full(sizes[unit], row) for row, unit in enumerate(order)] or [np.empty(0)])
    times = np.concatenate([shown.times[unit] for unit in order] or [np.empty(0)])
    axis.plot(times, rows, linestyle="none", marker="|", markersize=max(1.0, min(6.0, 150 / max(1, len(order)))), color=colour,
              markeredgewidth=0.6, rasterized=True)  # fmt: skip
    if shown.observed is not None:
        seen = joined(np.concatenate(shown.observed))
        edges = np.concatenate([[start], seen.ravel(), [stop]]).reshape(-1, 2)
        for begin, end in edges[edges[:, 1] > edges[:, 0]]:
            axis.axvspan(begin, end, color="0.85", linewidth=0)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_ylim(-0.5, len(order) - 0.5)
    axis.set_xlim(start, stop)
    return stop


def draw_cells(axis: Any, traces: Traces, start: float, stop: float) -> Any:
    """Traces of cells as an image, each in units of its own spread; returns what a colour bar wants."""
    part = traces.between(start, stop)
    step = max(1, len(part) // 2000)
    values = part.values[::step].T
    with np.errstate(invalid="ignore", divide="ignore"):
        centre, spread = np.nanmean(values, axis=1, keepdims=True), np.nanstd(values, axis=1, keepdims=True)
        scaled = (values - centre) / np.where(spread > 0, spread, 1.0)
    if len(values) <= 40:
        axis.set_yticks(np.arange(len(values)) + 0.5, part.names, fontsize=5)
    return axis.imshow(
        scaled, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-3, vmax=3, extent=(start, stop, len(values), 0)
    )
