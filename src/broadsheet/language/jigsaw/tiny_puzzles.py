"""Puzzles that a tiny model can learn in seconds: what they show is made here, and they are worded in its few words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.generated import colour_ramps, moving_digits
from broadsheet.language.jigsaw.permutations import dice
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask, Wording
from broadsheet.language.jigsaw.scenes import random_scene
from broadsheet.language.jigsaw.unfit import UnfitError

WORDING = Wording("", "Tile {number} : ", "order")
PARTS = ("start", "train", "test")
TILE = 28

TASKS = {
    "strips": JigsawTask(grid=(1, 3), smallest=TILE, wording=WORDING),
    "six": JigsawTask(grid=(1, 6), smallest=TILE, wording=WORDING),
    "squares": JigsawTask(grid=(2, 2), smallest=TILE, wording=WORDING),
    "grid": JigsawTask(grid=(3, 3), smallest=TILE, wording=WORDING),
    "video": JigsawTask(kind="video", clips=6, frames=2, trim=0.05, wording=WORDING),
    "depth": JigsawTask(kind="depth", points=6, wording=WORDING),
}
"""Colour ramps in 1 x 3, 1 x 6, 2 x 2 and 3 x 3 tiles of 28 pixels, digits that move, and rooms with numbered points."""


def tiny_task(name: str) -> JigsawTask:
    """The task of this name; raises `InputError` where there is none."""
    if name not in TASKS:
        raise InputError(f"There are no puzzles {name!r}; {', '.join(TASKS)} are there.")
    return TASKS[name]


def tiny_puzzles(name: str, count: int, seed: int = 0, part: str = "train") -> list[JigsawItem]:
    """So many puzzles: other ones for each seed and each of the parts `start`, `train`, `test`."""
    task = replace(tiny_task(name), seed=len(PARTS) * seed + PARTS.index(part))
    found: list[JigsawItem] = []
    for index, sample in enumerate(_samples(task, count)):
        with contextlib.suppress(UnfitError):  # a room without as many points far enough apart
            found.append(task.make(sample, index=index))
        if len(found) == count:
            break
    return found


def _samples(task: JigsawTask, count: int) -> Iterator[Any]:
    """What so many puzzles, or more, are made of."""
    if task.kind == "image":
        rows, columns = task.grid
        yield from colour_ramps(task.seed, count, TILE * rows, TILE * columns, both=rows > 1)
        return
    numbers = dice(task.seed)
    while True:
        number = int(numbers.integers(2**31))
        if task.kind == "video":
            yield moving_digits(number, frames=36, side=TILE, digits=1, speed=0.6)
        else:
            yield random_scene(number, size=(168, 224))
