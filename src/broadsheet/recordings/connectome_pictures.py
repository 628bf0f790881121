"""A component of a dynamic connectome as a row of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw_component(
    fig: Any, axes: Any, time: np.ndarray, step: float, animals: np.ndarray, pattern: np.ndarray, labels: np.ndarray,
    windows: Any = (), title: str = "", start: float = 0.0, colour: str = "#0b6e8f",
) -> None:  # fmt: skip
    """Its course in time (with stretches in grey), its loadings of animals, and its pattern ordered by community.

    **Arguments:** `axes`: three; `step`: s between frames; `labels`: a community for each neuron, -1 for none, which comes
    last; `windows`: (stretches, 2), s.
    """
    course, loading, matrix = axes
    for first, last in np.reshape(windows, (-1, 2)):
        course.axvspan(first, last, color="0.85", lw=0)
    course.plot(start + step * np.arange(len(time)), time, color=colour, lw=1)
    course.set(xlabel="time (s)", ylabel="affinity")
    course.set_title(title, fontsize="medium")
    loading.bar(np.arange(len(animals)), animals, color=colour)
    loading.set(xlabel="animal", ylabel="loading")
    order = np.argsort(np.where(labels < 0, labels.max() + 1, labels), kind="stable")
    image = matrix.imshow(pattern[np.ix_(order, order)], cmap="viridis", interpolation="nearest")
    for edge in np.flatnonzero(np.diff(labels[order])) + 0.5:
        matrix.axhline(edge, color="w", lw=0.6)
        matrix.axvline(edge, color="w", lw=0.6)
    fig.colorbar(image, ax=matrix, label="affinity")
    matrix.set(xlabel="neuron", ylabel="neuron")
    matrix.set_title(f"{(found := labels.max() + 1)} communit{'y' if found == 1 else 'ies'}", fontsize="medium")
