"""Will they touch? Two balls between walls, as pictures, with the answer and what an observer of noisy physics would say.

The question of Physion's object contact prediction, in two dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from broadsheet.errors import InputError
from broadsheet.recordings.mental_pong import MentalPong, folded


class Scenes(NamedTuple):
    """Two balls each: positions (scenes, 2 balls, frames), the frame of the question, and whether they touch after it.

    After a touch the balls go through each other: the answer is known by then.
    """

    x: Float[np.ndarray, "scenes 2 frames"]
    y: Float[np.ndarray, "scenes 2 frames"]
    shown: int
    contact: Bool[np.ndarray, " scenes"]


def colliding_balls(
    scenes: int, shown: int, frames: int, seed: int | np.random.Generator, *, touch: float = 4.0, size: float = 32.0,
    radius: float = 0.64,
) -> Scenes:  # fmt: skip
    """Scenes of which half end in contact, none before the question.

    **Arguments:** `shown`: frames before the question, of `frames`; `touch`: distance of the centres at which balls touch
    (units).
    """
    if not 0 < shown < frames or scenes < 2:
        raise InputError(
            f"{scenes} scenes of {frames} frames, {shown} shown; 2 scenes and fewer shown than there are, are wanted."
        )
    rng = np.random.default_rng(seed)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    wanted = {True: scenes // 2, False: scenes - scenes // 2}
    while min(wanted.values()) >= 0 and max(wanted.values()) > 0:
        start = rng.uniform(radius, size - radius, (2, 4 * scenes, 2))
        heading, speed = rng.uniform(0, 2 * np.pi, start.shape[1:]), rng.uniform(0.3, 0.8, start.shape[1:])
        x, y = flown(start, speed * np.array([np.cos(heading), np.sin(heading)]), frames, size, radius)
        near = np.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]) < touch
        fair = ~near[:, :shown].any(axis=1)
        for answer in (True, False):
            chosen = np.flatnonzero(fair & (near.any(axis=1) == answer))[: wanted[answer]]
            wanted[answer] -= len(chosen)
            kept.append((x[chosen], y[chosen], np.full(len(chosen), answer)))
    x, y, contact = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = rng.permutation(scenes)
    return Scenes(x[order], y[order], shown, contact[order])


def flown(start: np.ndarray, velocity: np.ndarray, frames: int, size: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Paths between four walls: (…, frames) x and y from (2, …) starts and velocities."""
    way = start[..., None] + velocity[..., None] * np.arange(frames)
    x, y = folded(way, radius, size - radius)
    return x, y


def noisy_observer(
    scenes: Scenes, repeats: int, seed: int | np.random.Generator, *, noise: float = 0.1, touch: float = 4.0, size: float =
    32.0, radius: float = 0.64,
) -> Float[np.ndarray, "repeats scenes"]:  # fmt: skip
    """Answers (0 or 1) of an observer that knows physics, but misjudges the velocities by this share of the speed."""
    rng = np.random.default_rng(seed)
    last = scenes.shown - 1
    start = np.stack([scenes.x[..., last], scenes.y[..., last]])
    speed = start - np.stack([scenes.x[..., last - 1], scenes.y[..., last - 1]])
    length = np.sqrt((speed**2).sum(axis=0))
    guesses = speed[:, None] + noise * length * rng.standard_normal((2, repeats, *length.shape))
    x, y = flown(np.broadcast_to(start[:, None], guesses.shape), guesses, scenes.x.shape[-1] - last, size, radius)
    return (np.hypot(x[..., 0, :] - x[..., 1, :], y[..., 0, :] - y[..., 1, :]) < touch).any(axis=-1).astype(float)


def scene_pictures(scenes: Scenes, every: int, size: int, *, spot: float) -> UInt8[np.ndarray, "scenes frames side side"]:
    """Every so many frames as a picture of both balls."""
    pong = MentalPong()
    each = [
        pong.render(scenes.x[:, k, ::every], scenes.y[:, k, ::every], size, occluder=False, spot=spot).astype(np.uint16)
        for k in range(2)
    ]
    return np.minimum(each[0] + each[1], 255).astype(np.uint8)
