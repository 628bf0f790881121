"""Pictures and videos that are made here, for puzzles without any data."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.permutations import dice


def colour_ramps(
    seed: int, count: int, height: int = 28, width: int = 84, noise: float = 10.0, both: bool = False
) -> UInt8[np.ndarray, "count height width 3"]:
    """Pictures whose colour, not their brightness, says where a pixel is: red grows and blue falls from left to right, by a
    contrast of 0.7 to 1, with Gaussian noise (levels of 255).

    **Arguments:** `both`: green grows from the top to the bottom too; else it stays.
    """
    numbers = dice(seed)
    contrast = numbers.uniform(0.7, 1.0, (count, 1, 1))
    x, y = np.broadcast_to(np.arange(width) / width, (height, width)), np.arange(height)[:, None] / height
    red = 20 + contrast * 220 * x
    green = 20 + contrast * 220 * y + 0 * x if both else np.full_like(red, 120.0)
    clean = np.stack([red, green, 240 - contrast * 220 * x], -1)
    return np.clip(np.rint(clean + numbers.normal(0, noise, clean.shape)), 0, 255).astype(np.uint8)


def photo_crops(seed: int, count: int, size: tuple[int, int] = (168, 168)) -> UInt8[np.ndarray, "count height width 3"]:
    """Crops of the two photographs that scikit-learn carries; `size`: height and width, px."""
    from sklearn.datasets import load_sample_images

    photographs, numbers = load_sample_images().images, dice(seed)
    height, width = size
    if height > photographs[0].shape[0] or width > photographs[0].shape[1]:
        raise InputError(f"The photographs have 427 x 640 pixels; crops of {height} x {width} are too large.")
    made = []
    for _ in range(count):
        whole = photographs[numbers.integers(len(photographs))]
        top, left = (numbers.integers(0, room + 1) for room in (whole.shape[0] - height, whole.shape[1] - width))
        made.append(whole[top : top + height, left : left + width])
    return np.array(made)


@cache
def digit_images() -> Float[np.ndarray, "digits 8 8"]:
    """The digits that scikit-learn carries, in levels from 0 to 16."""
    from sklearn.datasets import load_digits

    return load_digits().images


def moving_digits(
    seed: int, frames: int = 72, side: int = 56, digits: int = 2, speed: float = 1.5
) -> UInt8[np.ndarray, "frames side side"]:
    """A video of scikit-learn's digits, twice their size, which move straight on and are reflected by the borders.

    **Arguments:** `side` of the square, px; `speed`: px a frame, of each digit between half and all of it.
    """
    numbers, shapes = dice(seed), digit_images()
    video = np.zeros((frames, side, side))
    room = side - 16
    for _ in range(digits):
        shape = np.kron(shapes[numbers.integers(len(shapes))], np.ones((2, 2))) * (255 / 16)
        angle, pace = numbers.uniform(0, 2 * np.pi), speed * numbers.uniform(0.5, 1.0)
        straight = numbers.uniform(0, room, 2) + np.arange(frames)[:, None] * pace * np.array([np.cos(angle), np.sin(angle)])
        folded = room - np.abs(straight % (2 * room) - room)
        for frame, (top, left) in enumerate(np.rint(folded).astype(int)):
            part = video[frame, top : top + 16, left : left + 16]
            np.maximum(part, shape, out=part)
    return video.astype(np.uint8)
