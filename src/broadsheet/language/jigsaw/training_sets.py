"""Training sets for TRL: puzzles of many samples, written a part at a time in the format of `datasets`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broadsheet.cache import write_atomic, writing
from broadsheet.errors import DataError, InputError, MissingExtraError
from broadsheet.language.jigsaw.data import Sample
from broadsheet.language.jigsaw.puzzles import JigsawTask
from broadsheet.language.jigsaw.unfit import UnfitError

try:
    import datasets
    from datasets.arrow_writer import ArrowWriter
except ImportError:
    raise MissingExtraError("Writing training sets", "language") from None

PART = 32
"""Samples of a part; so many are made again after an interruption, at most."""
SHARD = "32MB"
"""Of a file of the set, which is in memory while it is written."""
ROWS = 4
"""Puzzles that are in memory at a time."""


@dataclass
class Written:
    """What became of the samples: how many puzzles were made, and why others were not, by name."""

    samples: int = 0
    puzzles: int = 0
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)

    def skip(self, name: str, error: InputError) -> None:
        """`name` makes no puzzle."""
        why = error.why if isinstance(error, UnfitError) else "unreadable" if isinstance(error, DataError) else "unfit"
        self.skipped.setdefault(why, {})[name] = str(error)


@dataclass(frozen=True)
class Skipped:
    """A sample that makes no puzzle, and why."""

    name: str
    error: InputError


def rows(samples: Sequence[Sample], task: JigsawTask, epochs: int = 1, first: int = 0) -> Iterator[dict[str, Any] | Skipped]:
    """Rows for `GRPOTrainer` and `as_trl_reward` (prompt, images, target) with the sample's name; `epochs` puzzles of each,
    with permutations of their own. What makes no puzzle is yielded as `Skipped`.

    **Arguments:** `first`: the number of the first sample.
    """
    for index, sample in enumerate(samples, start=first):
        try:
            read = sample.read()
            for epoch in range(epochs):
                yield task.make(read, epoch, index).row | {"sample": sample.name}
        except MissingExtraError:
            raise
        except InputError as error:
            yield Skipped(sample.name, error)


def features() -> Any:
    """The columns: prompt (messages of parts), images, target, and the sample's name."""
    text = datasets.Value("string")
    return datasets.Features(
        prompt=datasets.List({"role": text, "content": datasets.List({"type": text, "text": text})}),
        images=datasets.List(datasets.Image()),
        target=datasets.List(datasets.Value("int32")),
        sample=text,
    )


def write_training_set(
    out: str | Path,
    samples: Sequence[Sample],
    task: JigsawTask,
    folder: Path,
    *,
    epochs: int = 1,
    limit: int | None = None,
    report: Callable[[float, str], None] = lambda share, live: None,
) -> Written:
    """Writes the puzzles of all samples into the new folder `out`, for `datasets.load_from_disk`.

    Pictures are stored without loss (PNG). No more than a few puzzles are in memory.

    **Arguments:** `folder`: where parts are kept until all is done (`cache.unfinished`); what an earlier run left there is not
    made again. `limit`: samples that make puzzles, at most.

    **Raises:** `InputError` where no sample makes a puzzle.
    """
    done, files = Written(), []
    for begin in range(0, len(samples), PART):
        if limit is not None and done.samples >= limit:
            break
        file = folder / f"{begin}-{PART}.arrow"
        note = file.with_suffix(".json")
        if not note.is_file():
            part = _write_part(file, samples[begin : begin + PART], task, epochs, begin, limit and limit - done.samples)
            write_atomic(note, json.dumps(part.__dict__))
        part = Written(**json.loads(note.read_text()))
        done.samples += part.samples
        done.puzzles += part.puzzles
        for why, names in part.skipped.items():
            done.skipped.setdefault(why, {}).update(names)
        files += [file] if part.puzzles else []
        share = max((begin + PART) / len(samples), done.samples / limit if limit else 0)
        report(min(1.0, share), f"{done.puzzles} puzzles")
    if not done.puzzles:
        why, names = next(iter(done.skipped.items()))
        name, reason = next(iter(names.items()))
        raise InputError(f"None of {len(samples)} samples makes a puzzle; {name}, for one, is {why}: {reason}")
    place = Path(out).absolute()
    building = place.with_name(f".{place.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    with _without_bars():
        whole = datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
        whole.save_to_disk(building, max_shard_size=SHARD)
    if place.is_dir():
        place.rmdir()  # an empty one
    os.replace(building, place)
    return done


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Without the progress bars of `datasets`."""
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _write_part(file: Path, samples: Sequence[Sample], task: JigsawTask, epochs: int, first: int, limit: int | None) -> Written:
    columns, made, names = features(), Written(), set[str]()
    with writing(file) as stream, ArrowWriter(stream=stream, features=columns, writer_batch_size=ROWS) as writer:
        for row in rows(samples, task, epochs, first):
            if isinstance(row, Skipped):
                made.skip(row.name, row.error)
                continue
            if limit is not None and row["sample"] not in names and len(names) >= limit:
                break
            names.add(row["sample"])
            pictures = [{"bytes": _png(image), "path": None} for image in row["images"]]
            writer.write(columns.encode_example(row | {"images": pictures}))
            made.puzzles += 1
        made.samples = len(names)
        if made.puzzles:
            writer.finalize(close_stream=False)
    return made


def _png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
