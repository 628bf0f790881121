"""Videos cut into clips, uniformly in time, with a share of each clip left out at both its ends, so that the frames at the
borders of two clips cannot simply be matched."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.unfit import UnfitError

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_FRAMES = 12
CLIP_PIXELS = 128 * 28 * 28
"""Frames of a clip and pixels of a frame, at most (section 4.2)."""
RATE = 2.0
"""Frames of a clip that are taken a second."""
SHORTEST = 24.0
"""Seconds of a video, at least (section 4.2)."""
ROUNDING = 1e-9
"""Of a video's length: what two times may be apart and still be the same."""


def clip_ranges(times: Sequence[float] | np.ndarray, clips: int, trim: float = 0.05) -> list[tuple[int, int]]:
    """First frame of each clip and the one behind its last, when a video is cut uniformly in time.

    A frame counts where it is shown wholly within a clip, less `trim` of the clip's length at both ends.

    **Arguments:** `times`: when each frame is shown and, one more, when the video ends; `range(frames + 1)` for equal steps.

    **Raises:** `UnfitError` where a clip keeps no frame, `InputError` for a share that is not from 0 to below a half.
    """
    if not 0 <= trim < 0.5:
        raise InputError(f"trim={trim}: a share from 0 to below 0.5 is wanted.")
    if clips < 2:
        raise InputError(f"{clips} clips make no puzzle; at least 2 are wanted.")
    shown = np.asarray(times, float)
    begin, length = shown[0], (shown[-1] - shown[0]) / clips
    slack = ROUNDING * (shown[-1] - shown[0])
    ranges = []
    for clip in range(clips):
        start = np.searchsorted(shown[:-1], begin + (clip + trim) * length - slack, "left")
        end = np.searchsorted(shown[1:], begin + (clip + 1 - trim) * length + slack, "right")
        if end <= start:
            raise UnfitError("too short", f"A video of {len(shown) - 1} frames has none left in clip {clip + 1} of {clips}.")
        ranges.append((int(start), int(end)))
    return ranges


def released_ranges(frames: int, clips: int, trim: float = 0.1) -> list[tuple[int, int]]:
    """The same as the released code has it: of equal numbers of frames, the first ones left out until the number of frames is
    a multiple of `clips` times the denominator of `trim`."""
    share = Fraction(trim).limit_denominator()
    if not 0 <= share < Fraction(1, 2):
        raise InputError(f"trim={trim}: a share from 0 to below 0.5 is wanted.")
    left_out = frames % (clips * share.denominator) if clips > 1 else 0
    length = (frames - left_out) // clips
    cut = int(length * share)
    if length - 2 * cut < 1:
        raise UnfitError("too short", f"A video of {frames} frames has none left in its {clips} clips.")
    return [(left_out + clip * length + cut, left_out + (clip + 1) * length - cut) for clip in range(clips)]


def chosen_frames(
    ranges: Sequence[tuple[int, int]], most: int = CLIP_FRAMES, seconds: float | None = None, rate: float = RATE
) -> list[list[int]]:
    """The frames of each clip that are shown, spread evenly: as many in all clips, so that their number says nothing.

    **Arguments:** `most`: frames of a clip; `seconds`: length of a clip, where it is known: then `rate` frames a second, but at
    least 2 where there are as many.
    """
    count = min(most, min(end - start for start, end in ranges))
    if seconds is not None:
        count = min(count, max(2, round(seconds * rate)))
    return [np.linspace(start, end - 1, count).round().astype(int).tolist() for start, end in ranges]


def within(image: Image, pixels: int) -> Image:
    """The picture, made smaller where it has more than `pixels`."""
    if image.width * image.height <= pixels:
        return image
    scale = (pixels / (image.width * image.height)) ** 0.5
    from PIL import Image

    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)
