"""How cost grows: the cases of a comparison that differ in one number alone, as curves of seconds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from io import StringIO
from itertools import cycle
from typing import Any

import numpy as np

FEWEST = 3
"""Sizes that make a curve."""

UNSAID = ("repeat", "task", "do", "what")
"""Settings that say which work it is, as the title does."""


@dataclass(frozen=True)
class Curve:
    """Median seconds of each side by a setting that grows, in its order; all other settings stay."""

    setting: str
    others: dict[str, Any]
    sides: dict[str, tuple[list[float], list[float]]]

    @property
    def caption(self) -> str:
        """What is drawn, with the power of the setting that each side's seconds grow with from its first size to its last."""
        powers = [
            f"{side} {np.log(seconds[-1] / seconds[0]) / np.log(sizes[-1] / sizes[0]):.2f}"
            for side, (sizes, seconds) in self.sides.items()
        ]
        held = ", ".join(f"{name} {value}" for name, value in self.others.items())
        by = f"{self.setting} ({held})" if held else self.setting
        return f"Seconds by {by}. Power from the first size to the last: {'; '.join(powers)}."


def curves(data: dict[str, Any]) -> list[Curve]:
    """The curves in a comparison: at least three sizes of one number, everything else alike."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], dict[float, dict[str, Any]]] = defaultdict(dict)
    for case in data["cases"].values():
        parameters = case["parameters"]
        for name, value in parameters.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = tuple((other, str(held)) for other, held in sorted(parameters.items()) if other != name)
                groups[name, rest][value] = case["sides"]
    found = []
    for (name, rest), by_size in groups.items():
        sides: dict[str, tuple[list[float], list[float]]] = {}
        for size, run in sorted(by_size.items()):
            for side, row in run.items():
                if "median" in row:
                    sizes, seconds = sides.setdefault(side, ([], []))
                    sizes.append(size)
                    seconds.append(row["median"])
        whole = {side: values for side, values in sides.items() if len(values[0]) >= FEWEST}
        if whole:
            found.append(
                Curve(name, {other: held for other, held in rest if other not in ("repeat", "task", "do", "what")}, whole)
            )
    return found


def svg(curve: Curve) -> str:
    """The curve as SVG, both axes logarithmic, with a line of seconds that grow in proportion."""
    import matplotlib as mpl

    from broadsheet.lab.plots import COLOURS, figure, label

    made, axis = figure()
    for (side, (sizes, seconds)), colour in zip(curve.sides.items(), cycle(COLOURS), strict=False):
        axis.loglog(sizes, seconds, "o-", label=side, color=colour)
    sizes, seconds = next(iter(curve.sides.values()))
    axis.loglog(sizes, seconds[0] * np.asarray(sizes) / sizes[0], ":", color="grey", label="in proportion")
    axis.minorticks_off()
    axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
    label(axis, curve.setting, "seconds")
    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": curve.setting, "svg.fonttype": "none"}):
        made.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
