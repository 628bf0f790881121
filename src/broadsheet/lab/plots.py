"""Helpers for figures: one look, the control in grey beside the system."""

from __future__ import annotations

from typing import Any

SYSTEM_COLOUR = "#0b6e8f"
CONTROL_COLOUR = "#9a9a9a"
COLOURS = ("#0b6e8f", "#c2571a", "#4b8b3b", "#7a4fa3", "#b8860b", "#a83254")


def figure(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.1) -> tuple[Any, Any]:
    """A Matplotlib figure and its axes (an array where there are several), drawn without a display."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = made.subplots(rows, columns)
    for axis in [axes] if rows * columns == 1 else axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_prop_cycle(color=COLOURS)
    return made, axes


def label(axis: Any, x: str, y: str, title: str = "", legend: bool = True) -> None:
    """Axis labels with units, a title, and a legend where anything is labelled."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if title:
        axis.set_title(title, fontsize="medium")
    if legend and axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="small")
