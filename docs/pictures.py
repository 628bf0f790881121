"""Draws images/verdict.svg, a claim beside its controls, from the ledger: `python docs/pictures.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PICTURE = DOCS / "images" / "verdict.svg"
SLUG, CLAIM, EXPERIMENT, METRIC = "elm-neuron", "C4", "recall", "accuracy"
ARMS = {
    "system": "system: memory of up to 600 ms",
    "fast": "ablation: of up to 10 ms",
    "linear-traces": "null: linear read-out of traces",
}
CHANCE = 0.5


def recorded() -> tuple[dict[str, Any], dict[str, Any]]:
    """The claim as the ledger spells it out, and the experiment that it was judged on."""
    data = json.loads((DOCS / "verdicts" / f"{SLUG}.json").read_text())
    return data["verdicts"][CLAIM], data["experiments"][EXPERIMENT]


def caption() -> str:
    """What the picture shows, in words; it is written into the file, so that a stale picture is found."""
    claim, made = recorded()
    values = "; ".join(f"{arm} {', '.join(str(value) for value in of(arm, made))}" for arm in ARMS)
    return f"{SLUG} {CLAIM} {claim['verdict']}, {METRIC} at {made['preset']} size: {values}."


def of(arm: str, made: dict[str, Any]) -> list[float]:
    return [arms[arm][METRIC] for _, arms in sorted(made["metrics"].items())]


def draw() -> None:
    """One dot a seed, the bounds as lines (a null model's is the system's), chance dotted."""
    import matplotlib
    from matplotlib.figure import Figure

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR

    claim, made = recorded()
    tried = [*claim["checks"], *(check for null in claim["nulls"] for check in null["checks"])]
    bounds = {check["of"]: check["bound"] for check in tried if check["metric"] == METRIC}
    figure = Figure(figsize=(7.4, 2.8), layout="constrained")
    axis = figure.subplots()
    for height, (arm, colour) in enumerate(zip(reversed(ARMS), (COLOURS[1], CONTROL_COLOUR, SYSTEM_COLOUR), strict=True)):
        values = of(arm, made)
        rows = [height + 0.12 * (k - (len(values) - 1) / 2) for k in range(len(values))]
        axis.plot(values, rows, "o", color=colour, markersize=7, clip_on=False)
        sense, bound = bounds[arm].split()
        axis.plot([float(bound)] * 2, [height - 0.35, height + 0.35], color=colour, linewidth=1.5)
        side = {"≥": ("right", -0.01), "≤": ("left", 0.01)}[sense]
        axis.text(float(bound) + side[1], height, f"bound {sense} {float(bound):g}", ha=side[0], va="center", fontsize=9)
    axis.axvline(CHANCE, color="black", linestyle=":", linewidth=1)
    axis.text(CHANCE + 0.005, len(ARMS) - 0.55, "chance", fontsize=8, va="top")
    axis.set_yticks(range(len(ARMS)), list(reversed(ARMS.values())))
    axis.set(xlim=(0.4, 1.0), ylim=(-0.5, len(ARMS) - 0.5))
    axis.set_xlabel(f"share of right answers, one dot a seed ({made['preset']} size)")
    axis.set_title(
        f"{SLUG} {CLAIM}, “{claim['statement']}”: {claim['verdict']} ({made['preset']} size)", fontsize=11, loc="left"
    )
    axis.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "broadsheet"}):
        figure.savefig(PICTURE, metadata={"Date": None, "Description": caption()})


if __name__ == "__main__":
    draw()
