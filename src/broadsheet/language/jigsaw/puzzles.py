"""Puzzles of pictures, videos and depths: pieces out of order, the question, and the answer (arXiv 2509.25190, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.depth_puzzles import CONSTRAINTS, Constraints, Point, draw_discs, sample_points
from broadsheet.language.jigsaw.image_puzzles import SMALLEST_SIDE, cut, even, join
from broadsheet.language.jigsaw.permutations import dice, draw_order, restore, target_of
from broadsheet.language.jigsaw.rewards import Variant
from broadsheet.language.jigsaw.unfit import UnfitError
from broadsheet.language.jigsaw.video_puzzles import (
    CLIP_FRAMES,
    CLIP_PIXELS,
    RATE,
    SHORTEST,
    chosen_frames,
    clip_ranges,
    within,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["image", "video", "depth"]
Message = dict[str, Any]
FORMS = {
    "paper": "First think, between <think> and </think>; then give the answer between <answer> and </answer>.",
    "released": "First think, between <think> and </think>; then give the answer in \\boxed{}.",
}


@dataclass(frozen=True)
class Wording:
    """The question's text. In each part `{count}`, `{rows}`, `{columns}`, `{example}`, `{form}` are filled in, in `piece`
    also `{number}`; behind `piece` come the pictures of what it names."""

    before: str
    piece: str
    after: str


WORDINGS: dict[str, Wording] = {
    "image": Wording(
        "A picture was cut into {count} tiles, in a grid of {rows} x {columns} (rows x columns), which were shuffled.\n",
        "Tile {number}: ",
        "\nName the tiles in the order that gives the picture back, row by row from the upper left to the lower right, with "
        "commas between their numbers, such as {example}. {form}",
    ),
    "video": Wording(
        "A video was cut into {count} clips, which were shuffled.\n",
        "Clip {number}: ",
        "\nName the clips in the order of time, with commas between their numbers, such as {example}. {form}",
    ),
    "depth": Wording(
        "",
        "",
        "\nIn the picture are {count} points with numbers. Name them from the one nearest to the camera to the farthest, with "
        "commas between their numbers, such as {example}. {form}",
    ),
}


@dataclass(frozen=True)
class JigsawItem:
    """A puzzle.

    `pieces` are those that the labels 1, 2, … name, in that order: tiles, clips (lists of frames) or `Point`s; `images` are the
    pictures that the prompt shows, in its order; `prompt` are messages as TRL and chat templates take them, with a place
    `{"type": "image"}` for each; `target` holds, for each true place, the label of its piece; `order`, for each label, the true
    place, from 0.
    """

    pieces: list[Any]
    images: list[Any]
    prompt: list[Message]
    target: list[int]
    order: list[int]

    @property
    def row(self) -> dict[str, Any]:
        """The columns that TRL's `GRPOTrainer` and `as_trl_reward` take."""
        return {"prompt": self.prompt, "images": self.images, "target": self.target}


@dataclass(frozen=True)
class JigsawTask:
    """What puzzles are made of, and how answers are rewarded.

    **Arguments:** `kind`: image, video or depth; `grid`: rows and columns of tiles; `clips` of a video, `trim`: the share of a
    clip that is left out at each end, `frames` of a clip at most, `rate` frames a second, `pixels` of a frame at most,
    `shortest`: seconds of a video file at least; `points` of a depth puzzle, with their `constraints`; `smallest`: pixels of a
    picture's shorter side at least; `even`: whether up to `rows - 1` and `columns - 1` pixels are cut off, since otherwise
    tiles of the first rows and columns are larger, which tells their places; `seed` of all permutations and points; `gamma`,
    `format_score` and `variant` as of `jigsaw_reward`; `wording` of the question.
    """

    kind: Kind = "image"
    grid: tuple[int, int] = (3, 3)
    clips: int = 6
    trim: float = 0.05
    seed: int = 0
    frames: int = CLIP_FRAMES
    rate: float = RATE
    pixels: int = CLIP_PIXELS
    shortest: float = SHORTEST
    points: int = 6
    constraints: Constraints = field(default=CONSTRAINTS)
    smallest: int = SMALLEST_SIDE
    even: bool = False
    gamma: float = 0.2
    format_score: float = 0.2
    variant: Variant = "paper"
    wording: Wording | None = None

    def __post_init__(self) -> None:
        if self.kind not in WORDINGS:
            raise InputError(f"kind={self.kind!r}: image, video or depth is wanted.")
        if self.variant not in FORMS:
            raise InputError(f"variant={self.variant!r}: 'paper' or 'released' is wanted.")
        if not 0 <= self.trim < 0.5:
            raise InputError(f"trim={self.trim}: a share from 0 to below 0.5 is wanted.")
        if min(self.grid) < 1 or self.size < 2:
            raise InputError(f"A puzzle of {self.size} pieces ({self._what()}) is none; at least 2 are wanted.")
        dice(self.seed)

    @property
    def size(self) -> int:
        """Pieces of a puzzle, K."""
        return {"image": self.grid[0] * self.grid[1], "video": self.clips, "depth": self.points}[self.kind]

    def make(self, sample: Any, epoch: int = 0, index: int = 0) -> JigsawItem:
        """The puzzle of a sample, with a new permutation for each epoch and index.

        **Arguments:** `sample`: a picture (Pillow's, or an array (height, width[, 3]) of 8 bits, or a file) for images; frames
        (pictures, or an array (time, height, width[, 3])) or a file for videos; a picture and, for depths, an array of the same
        shape in metres, or a list of `Point`s from the nearest to the farthest; `index`: the sample's number, which with `seed`
        decides on a depth puzzle's points.

        **Raises:** `UnfitError` where the sample makes no such puzzle: too small, too short, no points; `DataError` for a file
        that cannot be read; `InputError` for anything else.
        """
        pieces: list[Any]
        if self.kind == "image":
            pieces = self._tiles(sample)
        elif self.kind == "video":
            pieces = self._clips(sample)
        else:
            pieces = self._points(sample, index)
        order = draw_order(self.size, seed=self.seed, epoch=epoch, index=index)
        shown: list[Any] = [pieces[place] for place in order]
        images, counts = shown, [1] * self.size
        if self.kind == "video":
            images, counts = [frame for clip in shown for frame in clip], [len(clip) for clip in shown]
        elif self.kind == "depth":
            images, counts = [draw_discs(picture(sample[0]), shown)], []
        return JigsawItem(shown, images, self._prompt(counts), target_of(order), order)

    def _tiles(self, sample: Any) -> list[Image]:
        whole = picture(sample)
        if min(whole.size) < self.smallest:
            raise UnfitError(
                "too small", f"A picture of {whole.width} x {whole.height} pixels has a side below {self.smallest}."
            )
        return cut(even(whole, self.grid) if self.even else whole, self.grid)

    def _clips(self, sample: Any) -> list[list[Image]]:
        if isinstance(sample, str | Path):
            from broadsheet.language.jigsaw.sources import read_clips

            return read_clips(sample, self)
        chosen = chosen_frames(clip_ranges(range(len(sample) + 1), self.clips, self.trim), self.frames)
        return [[within(picture(sample[frame]), self.pixels) for frame in clip] for clip in chosen]

    def _points(self, sample: Any, index: int) -> list[Point]:
        image, depth = picture(sample[0]), sample[1]
        if isinstance(depth, list):
            if len(depth) != self.points:
                raise InputError(f"{len(depth)} points were given for a puzzle of {self.points}.")
            return [Point(*point) for point in depth]
        depth = np.asarray(depth)
        if depth.shape != (image.height, image.width):
            raise InputError(f"A picture of {image.height} x {image.width} pixels has depths of shape {depth.shape}.")
        return sample_points(depth, self.points, dice(self.seed, index), self.constraints)

    def _prompt(self, counts: Sequence[int]) -> list[Message]:
        """The question; `counts`: pictures of each piece, none where there is one picture for all."""
        wording = self.wording or WORDINGS[self.kind]
        filled = {
            "count": self.size, "rows": self.grid[0], "columns": self.grid[1],
            "example": ", ".join(map(str, range(self.size, 0, -1))), "form": FORMS[self.variant],
        }  # fmt: skip
        content = [_text(wording.before.format(**filled))]
        for number, count in enumerate(counts, start=1):
            content += [_text(wording.piece.format(number=number, **filled)), *[{"type": "image"}] * count]
        if not counts:
            content.append({"type": "image"})
        content.append(_text(wording.after.format(**filled)))
        return [{"role": "user", "content": [part for part in content if part.get("text") != ""]}]

    def _what(self) -> str:
        return {"image": f"a grid of {self.grid[0]} x {self.grid[1]}", "video": "clips", "depth": "points"}[self.kind]


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def picture(value: Any) -> Image:
    """A picture in RGB: Pillow's own, an array (height, width[, 3]) of 8 bits, or a file; raises `InputError` for others."""
    from PIL import Image

    if isinstance(value, Image.Image):
        return value if value.mode == "RGB" else value.convert("RGB")
    if isinstance(value, str | Path):
        from broadsheet.language.jigsaw.sources import read_picture

        return read_picture(value)
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise InputError(f"An array {array.shape} of {array.dtype} is no picture; (height, width[, 3]) of uint8 is wanted.")
    return Image.fromarray(array).convert("RGB")


def reassemble(pieces: Sequence[Any], answer: Sequence[int], grid: tuple[int, int] | None = None) -> Any:
    """What an answer makes of the shown pieces: a picture for tiles (with their grid), all frames for clips, else the pieces
    themselves in that order.

    **Raises:** `InputError` where the answer is no permutation of the labels.
    """
    ordered = restore(pieces, answer)
    if grid is not None:
        return join(ordered, grid)
    if isinstance(ordered[0], list):
        return [frame for clip in ordered for frame in clip]
    return ordered
