"""Puzzles to train on and puzzles held out, by name: those that are made here, and those of the paper's data in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from broadsheet.cache import fixture, unfinished
from broadsheet.errors import InputError, MissingDataError
from broadsheet.language.jigsaw.data import Sample, coco, llava_video, nyu_depth, samples, scannet
from broadsheet.language.jigsaw.permutations import dice
from broadsheet.language.jigsaw.puzzles import JigsawItem, JigsawTask
from broadsheet.language.jigsaw.tiny_puzzles import TASKS, tiny_puzzles
from broadsheet.language.jigsaw.training_sets import write_training_set

CACHE = "jigsaw-puzzles"


@dataclass(frozen=True)
class Source:
    """Data of the paper: what they are called, how they are read, and the task that they are for."""

    title: str
    read: Callable[[Path], list[Sample]]
    task: JigsawTask


SOURCES = {
    "coco": Source("COCO 2017 (cocodataset.org)", coco, JigsawTask()),
    "llava-video": Source("LLaVA-Video-178K (lmms-lab on the Hugging Face Hub)", llava_video, JigsawTask(kind="video")),
    "scannet": Source("ScanNet (by its request form)", scannet, JigsawTask(kind="depth")),
    "nyu": Source("NYU Depth V2 (labelled)", nyu_depth, JigsawTask(kind="depth")),
    "pictures": Source("pictures", lambda folder: samples(folder, "image"), JigsawTask()),
}


@dataclass(frozen=True)
class PuzzleSet:
    """Puzzles of one name, one of `tiny_puzzles` or of `SOURCES`.

    **Arguments:** `folder`: that of the data; `grid`: other rows and columns than the task's own; `seed`: decides on what is
    held out, and on all permutations.

    **Raises:** `InputError` for an unknown name, `MissingDataError` where the data are not there.
    """

    name: str
    folder: str | None = None
    grid: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TASKS and self.name not in SOURCES:
            raise InputError(f"There are no puzzles {self.name!r}; {', '.join([*TASKS, *SOURCES])} are there.")
        if self.name in SOURCES and self.folder is None:
            raise MissingDataError(f"{SOURCES[self.name].title} is wanted: say with --data in which folder it is.")

    @property
    def task(self) -> JigsawTask:
        task = TASKS[self.name] if self.name in TASKS else SOURCES[self.name].task
        return replace(task, seed=self.seed, grid=self.grid or task.grid)

    def training(self, count: int, held_out: int) -> Any:
        """So many puzzles to train on, each with a permutation of its own; of data in a folder as a `datasets.Dataset` on disk,
        written once, with several puzzles a sample where there are fewer samples."""
        if self.name in TASKS:
            return tiny_puzzles(self.name, count, self.seed, "train")
        from datasets import load_from_disk

        there = self._samples()[held_out:]
        epochs = -(-count // max(1, len(there)))
        identity = {"name": self.name, "task": repr(self.task), "held_out": held_out, "count": count, "files": _files(there)}

        def build(folder: Path) -> None:
            with unfinished(CACHE, identity) as parts:
                write_training_set(folder / "rows", there, self.task, parts, epochs=epochs, limit=-(-count // epochs))

        return load_from_disk(str(fixture(CACHE, identity, build) / "rows"))

    def held_out(self, count: int) -> list[JigsawItem]:
        """So many puzzles of samples that are not trained on; fewer where some of those make no puzzle."""
        if self.name in TASKS:
            return tiny_puzzles(self.name, count, self.seed, "test")
        found = []
        for index, sample in enumerate(self._samples()[:count]):
            try:
                found.append(self.task.make(sample.read(), index=index))
            except InputError:
                continue
        if not found:
            raise InputError(f"None of the first {count} samples of {self.folder} makes a puzzle.")
        return found

    def _samples(self) -> Sequence[Sample]:
        """All samples, shuffled."""
        there = SOURCES[self.name].read(Path(str(self.folder)))
        return [there[k] for k in dice(self.seed).permutation(len(there))]


def _files(there: Sequence[Sample]) -> list[Any]:
    return [[sample.name, sample.file.stat().st_size] for sample in there]
