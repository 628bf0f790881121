"""The verb that post-trains a language model by a recipe."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson

if TYPE_CHECKING:
    from broadsheet.language.post_training.following import Plan

CURVES = {
    "loss": "loss",
    "rewards/margins": "implicit reward, chosen less rejected",
    "reward": "reward",
    "kl": "KL to the model before, nats",
    "completions/mean_length": "answer, tokens",
}
"""What is recorded in training and drawn, and how it is called there."""


def posttrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="Model, folder, stages with data and settings.")],
    stage: Annotated[str | None, typer.Option(metavar="NAME", help="The last stage that is wanted; by default all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read everything, say what it will take, train nothing.")] = False,
    out: Findings = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Post-trains a causal language model: fine-tuning, preferences, verifiable rewards, in stages.

    Each stage is a folder that Transformers loads. A stage that is there and whose settings, data and start are the same is
    taken as it is. Interrupted, the same command goes on from the last checkpoint.
    """
    from broadsheet.language.post_training.recipes import read_recipe

    check_findings(out)
    read = read_recipe(recipe)
    from broadsheet.language.post_training.following import estimates, expected, follow, plan, summary

    made = plan(read, stage)
    if dry_run:
        _expected(made, expected(made, estimates(made, device)), out, as_json)
        return
    trackers = _trackers(read.tracker)
    with bar("posttrain") as tell, contextlib.redirect_stdout(sys.stderr):  # what trackers print is no result

        def report(name: str, share: float, latest: dict[str, float]) -> None:
            tell(share, " ".join([name, *(f"{key} {latest[key]:.3g}" for key in ("loss", "reward") if key in latest)]))

        trained = follow(made, device=device, trackers=trackers, report=report)
    found = summary(made, trained)
    found = write_findings(out or Path(read.folder) / "posttraining.json", found, lambda: _figure(found))
    if as_json:
        print_json(found)
        return
    right = {"justify": "right"}
    rows = [
        (one["stage"], "found" if one["found"] else "trained", number(one["seconds"]), one["folder"]) for one in found["stages"]
    ]
    console().print(table(["stage", "", ("seconds", right), "folder"], rows, str(read.model)))
    if found["scores"]:
        names = list(found["scores"][0]["mean"])
        scored = [(one["stage"], *(number(one["mean"][name]) for name in names)) for one in found["scores"]]
        console().print(table(["mean score after", *((name, right) for name in names)], scored))
    print(f"The model is in {found['trained']}, findings are in {found['findings']}, the figure is {found['figure']}.")


def _expected(made: Plan, found: list[dict[str, Any]], out: Path | None, as_json: bool) -> None:
    """What the dry run says."""
    import json

    from broadsheet.cache import write_atomic

    said = {"model": made.recipe.model, "folder": str(made.recipe.folder), "stages": found}
    if out is not None:
        write_atomic(out, json.dumps(said, indent=1) + "\n")
    if as_json:
        print_json(said)
        return
    right = {"justify": "right"}
    columns: list[Any] = [
        "stage",
        *((name, right) for name in ("rows", "steps", "tokens", "longest", "cut", "trained", "memory, MB")),
    ]
    rows = [
        (
            one["stage"], f"{one['rows']:,}", f"{one['steps']:,}", f"{one['tokens']:,}", one["longest"], f"{one['cut']:.1%}",
            f"{one['trained']:,}", f"{one['peak'] / 1e6:,.0f}",
        )
        for one in found
    ]  # fmt: skip
    console().print(table(columns, rows, f"{made.recipe.model}, {found[0]['parameters']:,} parameters"))
    print("Memory is what the training holds at most, beside Python and its libraries. Nothing was trained.")


def _trackers(named: str | None) -> list[str]:
    """The tracker that a recipe names, or Trackio where it is installed."""
    from importlib.util import find_spec

    from broadsheet.errors import InputError

    if named == "none" or (named is None and find_spec("trackio") is None):
        return []
    tracker = named or "trackio"
    if find_spec(tracker) is None:
        raise InputError(f'The recipe\'s tracker {tracker} is not installed: pip install {tracker}, or tracker = "none".')
    return [tracker]


def _figure(found: dict[str, Any]) -> Any:
    """Loss, reward, KL divergence and length against steps, stage after stage; scores by stage."""
    import math

    from broadsheet.lab.plots import COLOURS, figure, label

    logs = {stage["stage"]: stage["log"] for stage in found["stages"]}
    curves = [name for name in CURVES if any(name in record for log in logs.values() for record in log)]
    panels = len(curves) + bool(found["scores"])
    columns = min(panels, 3)
    fig, axes = figure(columns, math.ceil(panels / columns))
    axes = [axes] if panels == 1 else list(axes.flat)
    for axis, name in zip(axes, curves, strict=False):
        start = 0
        for (stage, log), colour in zip(logs.items(), COLOURS * len(logs), strict=False):
            points = [(start + record["step"], record[name]) for record in log if name in record]
            if points:
                axis.plot(*zip(*points, strict=True), "o-", markersize=2.5, color=colour, label=stage)
            start += max((int(record["step"]) for record in log if "step" in record), default=0)
        label(axis, "steps, all stages", CURVES[name])
    if found["scores"]:
        _bars(axes[len(curves)], found["scores"])
    for axis in axes[panels:]:
        axis.set_visible(False)
    return fig


def _bars(axis: Any, scores: list[dict[str, Any]]) -> None:
    """Mean scores, a group of bars a stage; of the first answer alone only once."""
    from broadsheet.lab.plots import label

    names = [name for name in scores[0]["mean"] if not name.endswith("@1")]
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        places = [number + (k - (len(names) - 1) / 2) * width for number in range(len(scores))]
        axis.bar(places, [one["mean"][name] for one in scores], width, label=name)
    axis.set_xticks(range(len(scores)), [one["stage"] for one in scores])
    axis.set_ylim(0, 1)
    label(axis, "after the stage", f"mean score, {scores[0]['split']} tasks", legend=False)
    axis.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
