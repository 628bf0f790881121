"""The verb that makes a training set of visual puzzles from a folder of pictures, videos, or pictures with depths."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from broadsheet.cli.output import bar, print_json
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.language.jigsaw.data import Sample
    from broadsheet.language.jigsaw.puzzles import JigsawTask
    from broadsheet.language.jigsaw.training_sets import Written

NAMED = 5
"""Files of each reason that are named on the terminal; all are in the findings."""
SHOWN = 3
"""Puzzles of the figure."""


def jigsaw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures or videos, in it or in folders within.")],
    out: Annotated[Path, typer.Option(metavar="DATASET", help="A new folder for the training set, the findings and a figure.")],
    kind: Annotated[
        str, typer.Option(help="image, video or depth (folders color and depth, or NYU Depth V2's file).")
    ] = "image",
    grid: Annotated[str, typer.Option(metavar="ROWSxCOLUMNS", help="Tiles of a picture.")] = "3x3",
    clips: Annotated[int, typer.Option(min=2, help="Clips of a video.")] = 6,
    trim: Annotated[float, typer.Option(help="Share of a clip that is left out at both its ends.")] = 0.05,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip, at most.")] = 12,
    shortest: Annotated[float, typer.Option(min=0, help="Seconds of a video, at least.")] = 24.0,
    smallest: Annotated[int, typer.Option(min=1, help="Pixels of a picture's shorter side, at least.")] = 84,
    points: Annotated[int, typer.Option(min=2, help="Points of a picture with depths.")] = 6,
    even: Annotated[
        bool, typer.Option("--even", help="Cut off what makes tiles unequal: larger ones tell that they are of the first rows.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Puzzles of each sample, with permutations of their own.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples that make puzzles, at most.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the permutations and points.")] = 0,
    variant: Annotated[
        str, typer.Option(help=r"paper (<answer>…</answer>) or released (\boxed{…}): what the question asks for.")
    ] = "paper",
    as_json: AsJson = False,
) -> None:
    """A training set of puzzles, with the columns that TRL's GRPOTrainer takes: prompt, images, and target for the reward.

    Written in the format of `datasets`; what makes no puzzle is counted, and named. Interrupted, the same command goes on.
    """
    import json

    from broadsheet.cache import unfinished, write_atomic, writing
    from broadsheet.language.jigsaw.data import samples
    from broadsheet.language.jigsaw.puzzles import JigsawTask
    from broadsheet.language.jigsaw.training_sets import write_training_set

    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} is there already; a new folder is wanted.")
    task = JigsawTask(
        cast(Any, kind), _grid(grid), clips, trim, seed, frames=frames, shortest=shortest, smallest=smallest, points=points,
        even=even, variant=cast(Any, variant),
    )  # fmt: skip
    found = samples(folder, kind)
    work = {"task": _plain(task), "epochs": epochs, "limit": limit, "samples": [_identity(sample) for sample in found]}
    with unfinished("jigsaw", work) as parts, bar("jigsaw") as tell:
        written = write_training_set(out, found, task, parts, epochs=epochs, limit=limit, report=tell)
    picture = out / "puzzles.png"
    with writing(picture) as stream:
        _figure(found, task, written).savefig(stream, format="png", dpi=130, bbox_inches="tight")
    findings = {
        "folder": str(folder), "dataset": str(out), "task": _plain(task), "epochs": epochs, "samples": written.samples,
        "puzzles": written.puzzles, "skipped": written.skipped, "figure": str(picture),
    }  # fmt: skip
    write_atomic(out / "jigsaw.json", json.dumps(findings, indent=1, ensure_ascii=False) + "\n")
    _say_skipped(written)
    if as_json:
        print_json(findings)
        return
    print(f"{written.puzzles} puzzles of {written.samples} samples in {out}; {picture.name} shows the first.")


def _grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if len(text) > 9 or not (rows.isascii() and columns.isascii() and rows.isdigit() and columns.isdigit()):
        raise InputError(f"--grid {text!r}: rows and columns are wanted, such as 3x3.")
    return int(rows), int(columns)


def _plain(task: JigsawTask) -> dict[str, Any]:
    """The task as JSON has it."""
    return asdict(task) | {"grid": list(task.grid)}


def _identity(sample: Sample) -> list[Any]:
    """What tells whether a sample is the same as before an interruption."""
    about = [file.stat() for file in (sample.file, sample.beside) if file is not None]
    return [sample.name, *((each.st_size, each.st_mtime_ns) for each in about)]


def _say_skipped(written: Written) -> None:
    for why, names in written.skipped.items():
        some = ", ".join(islice(names, NAMED))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        first = next(iter(names.values()))
        typer.echo(f"{len(names)} left out, {why}: {some}{more}. {first}", err=True)


def _figure(found: list[Sample], task: JigsawTask, written: Written) -> Any:
    """The first puzzles: as they are shown, and in order."""
    from broadsheet.lab.plots import figure
    from broadsheet.language.jigsaw.image_puzzles import join
    from broadsheet.language.jigsaw.permutations import restore

    skipped = {name for names in written.skipped.values() for name in names}
    good = (sample for sample in enumerate(found) if sample[1].name not in skipped)
    chosen = list(islice(good, min(SHOWN, written.samples)))
    fig, axes = figure(2, len(chosen), width=4.0, height=3.2)
    for row, (index, sample) in enumerate(chosen):
        item = task.make(sample.read(), 0, index)
        left, right = axes[row] if len(chosen) > 1 else axes
        labels, ordered = list(range(1, task.size + 1)), restore(item.pieces, item.target)
        if task.kind == "image":
            _sheet(left, item.pieces, task.grid, labels)
            right.imshow(join(ordered, task.grid))
        elif task.kind == "video":
            shape = -(-task.clips // 3), min(3, task.clips)
            _sheet(left, [clip[0] for clip in item.pieces], shape, labels)
            _sheet(right, [clip[0] for clip in ordered], shape, item.target)
        else:
            left.imshow(item.images[0])
            right.barh([str(label) for label in item.target], [point.depth for point in ordered], color="tab:blue")
            right.invert_yaxis()
            right.set(xlabel="depth (m)", ylabel="label, nearest first")
        left.set_title(f"{sample.name[-32:]}, as shown", fontsize=8)
        right.set_title("answer " + ", ".join(map(str, item.target)), fontsize=8)
        for axis in (left, right) if task.kind != "depth" else (left,):
            axis.set_axis_off()
    return fig


def _sheet(axis: Any, pictures: list[Any], grid: tuple[int, int], labels: list[int]) -> None:
    """Pictures in a grid with gaps between them and their labels on them."""
    gap = max(2, max(picture.width for picture in pictures) // 20)
    width, height = max(picture.width for picture in pictures) + gap, max(picture.height for picture in pictures) + gap
    for place, picture in enumerate(pictures):
        row, column = divmod(place, grid[1])
        left, top = column * width, row * height
        axis.imshow(picture, extent=(left, left + picture.width, top + picture.height, top))
        axis.text(
            left + gap, top + gap, str(labels[place]), color="white", va="top", fontsize=8, bbox={"color": "black", "pad": 1.5}
        )
    axis.set(xlim=(0, grid[1] * width), ylim=(grid[0] * height, 0))
