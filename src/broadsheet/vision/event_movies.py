"""Movies as events: natural images or textures that move, seen by an event camera (arXiv 2307.14077).

A movie of events is an array (2, time, x, y) of booleans, OFF events first, at 1 ms a bin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import existing, load_arrays
from broadsheet.vision.pictures import photographs, picture_files, read_grey, whiten

MARGIN = 8
"""Pixels around a crop: the Fourier shift wraps at the border."""
IMAGES = (
    "Natural images are needed: pass a folder of grey .png, .jpg or .tif images, or a .npz of arrays (van Hateren's set, for "
    "instance), with --data."
)


class Movie(NamedTuple):
    """Events (polarity, time, x, y), OFF first, and the label of the motion in each bin."""

    events: Bool[np.ndarray, "2 time x y"]
    labels: Int[np.ndarray, " time"]


def motions(directions: int, speeds: tuple[float, ...]) -> Float[np.ndarray, "motions 2"]:
    """Velocities (px/ms) by label: directions within speeds; every second ring of speeds is turned by half a step."""
    found = []
    for ring, speed in enumerate(speeds):
        angle = 2 * np.pi * (np.arange(directions) + 0.5 * (ring % 2)) / directions
        found.append(speed * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.concatenate(found)


def sample_images() -> list[np.ndarray]:
    """scikit-learn's two photographs, grey and whitened."""
    return [whiten(image.mean(axis=2)) for image in photographs()]


def read_images(path: str | Path | None) -> list[np.ndarray]:
    """Grey images of a folder, or arrays of a .npz file, whitened; raises `MissingDataError` where there are none."""
    if path is None:
        raise MissingDataError(IMAGES)
    found = existing(path)
    if found.is_dir():
        images = [np.asarray(read_grey(file), float) for file in picture_files(found)]
        if not images:
            raise MissingDataError(f"{found} holds no images. {IMAGES}")
    else:
        images = [np.asarray(array, float) for array in load_arrays(found).values()]
        images = [image for array in images for image in (array if array.ndim == 3 else [array])]
    for image in images:
        if image.ndim != 2 or min(image.shape) < 32 or not np.isfinite(image).all() or image.std() == 0:
            raise DataError(
                f"{found} holds an image of the shape {image.shape}; grey images of 32 x 32 pixels or more are wanted."
            )
    return [whiten(image) for image in images]


def label_path(rng: np.random.Generator, steps: int, count: int, switch: float) -> Int[np.ndarray, " time"]:
    """A label for each bin: drawn anew with the probability `switch` a bin, from all."""
    labels = rng.integers(0, count, steps)
    changes = rng.random(steps) < switch
    changes[0] = True
    return labels[np.maximum.accumulate(np.where(changes, np.arange(steps), 0))]


def natworld(
    rng: np.random.Generator, image: Float[np.ndarray, "x y"], velocities: Float[np.ndarray, "motions 2"], *, side: int = 48,
    steps: int = 80, switch: float = 1 / 24, noise: float = 0.001, mode: Literal["code", "accumulate"] = "code",
) -> Movie:  # fmt: skip
    """An image moved along a random path of motions, as events.

    **Arguments:** `velocities`: px/ms by label; `side`: px of the square crop; `steps`: ms; `switch`: probability of a new
    label in each ms; `noise`: deviation of the noise on contrasts from -1 to 1; `mode`: of `frames_to_events`.

    **Raises:** `InputError` where the path does not stay within the image.
    """
    labels = label_path(rng, steps, len(velocities), switch)
    path = np.cumsum(-velocities[labels], axis=0)
    low, high = path.min(axis=0), path.max(axis=0)
    room = np.array(image.shape) - side - 2 * MARGIN - 2 - (high - low)
    if (room < 0).any():
        raise InputError(f"An image of {image.shape} pixels is too small for {side} pixels that move by {high - low}.")
    corner = MARGIN + 1 + rng.random(2) * room - low
    frames = np.stack([_cut(image, position, side) for position in corner + path])
    frames = (frames - frames.mean()) / np.abs(frames - frames.mean()).max()
    frames = np.clip(frames + noise * rng.standard_normal(frames.shape), -1, 1)
    return Movie(frames_to_events(frames, mode=mode), labels)


def _cut(image: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """The square at a corner between pixels: whole pixels by cutting, the rest by a phase in Fourier space."""
    whole = np.floor(corner).astype(int)
    x, y = whole - MARGIN
    part = image[x : x + side + 2 * MARGIN, y : y + side + 2 * MARGIN]
    fx, fy = np.meshgrid(*map(np.fft.fftfreq, part.shape), indexing="ij")
    rest = corner - whole
    moved = np.fft.ifft2(np.fft.fft2(part) * np.exp(2j * np.pi * (rest[0] * fx + rest[1] * fy))).real
    return moved[MARGIN:-MARGIN, MARGIN:-MARGIN]


def frames_to_events(
    frames: Float[np.ndarray, "time x y"], selectivity: float = 1.0, mode: Literal["code", "accumulate"] = "code"
) -> Bool[np.ndarray, "2 time x y"]:
    """Events where the change of a pixel passes `selectivity` times the deviation of all changes from one frame to the next.

    `mode="code"`, as the authors' program: after an event the threshold is taken off the next change only. `"accumulate"`, as
    an event camera: what is left after an event is carried on.
    """
    if mode not in ("code", "accumulate"):
        raise InputError(f"mode = {mode!r}; 'code' or 'accumulate' is wanted.")
    if frames.ndim != 3 or not np.isfinite(frames).all():
        raise InputError(f"frames are {frames.shape} or hold NaN; (time, x, y) of finite numbers is wanted.")
    changes = np.diff(frames, axis=0)
    threshold = selectivity * changes.std() if len(changes) else 0.0
    signs = np.zeros(frames.shape, np.int8)
    kept = np.zeros(frames.shape[1:])
    for t in range(1, len(frames)):
        gone = changes[t - 1] - threshold * signs[t - 1] if mode == "code" else kept + changes[t - 1]
        signs[t] = (gone > threshold).astype(np.int8) - (gone < -threshold)
        kept = gone - threshold * signs[t]
    return np.stack([signs < 0, signs > 0])


def motion_cloud(
    rng: np.random.Generator, velocity: tuple[float, float], *, side: int = 48, steps: int = 80, frequency: float = 0.15,
    bandwidth: float = 0.1, orientation: float | None = None, orientation_width: float = 0.2, speed_width: float = 0.05,
) -> Float[np.ndarray, "time x y"]:  # fmt: skip
    """A random texture that moves: Gaussian noise whose spectrum lies around the plane of a velocity (px/ms).

    **Arguments:** `frequency`, `bandwidth`: cycles a pixel; `orientation`: of the texture's waves (rad), None for all;
    `orientation_width`: rad; `speed_width`: cycles/ms around the plane, relative to the frequency.

    **Source:** Sanz Leon et al. (2012), Motion Clouds.
    """
    ft, fx, fy = np.meshgrid(np.fft.fftfreq(steps), np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius = np.hypot(fx, fy)
    safe = np.maximum(radius, 1e-9)
    envelope = np.exp(-0.5 * (np.log(safe / frequency) / np.log1p(bandwidth / frequency)) ** 2) * (radius > 0)
    envelope *= np.exp(-0.5 * ((ft + velocity[0] * fx + velocity[1] * fy) / (speed_width * safe + 1 / steps / 2)) ** 2)
    if orientation is not None:
        envelope *= np.exp((np.cos(2 * (np.arctan2(fy, fx) - orientation)) - 1) / (4 * orientation_width**2))
    noise = np.fft.fftn(rng.standard_normal(envelope.shape))
    movie = np.fft.ifftn(noise * envelope).real
    return movie / np.abs(movie).max()
