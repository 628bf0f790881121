"""Frames of cells from files: the layout of the movies of arXiv 2303.00176, or plain images with masks and forces beside.

A frame of theirs is an array `[C, L, L]` with 7 or 8 channels: u_x, u_y, F_x, F_y, mask, force mask, zyxin, and perhaps a
second protein; forces are in Pa there. A movie is a folder of them, numbered; a data set is a folder of such folders, one a
cell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.errors import DataError, InputError
from broadsheet.matter.elastic_sheet import checked_mask

CHANNELS = ("u_x", "u_y", "F_x", "F_y", "mask", "forcemask", "zyxin", "protein")
PASCAL = 1e-3
"""kPa."""

MOST_BYTES = 16 * 2**30
"""Of all frames together."""

Layout = Literal["auto", "movie", "images"]


@dataclass(frozen=True)
class Frames:
    """Frames of one or several cells, in their order."""

    images: Float[np.ndarray, "frames height width"]
    masks: Bool[np.ndarray, "frames height width"] | None
    forces: Float[np.ndarray, "frames 2 height width"] | None
    """kPa, 0 outside the force mask."""
    protein: Float[np.ndarray, "frames height width"] | None
    cells: np.ndarray
    """Which cell each frame shows: numbers from 0."""
    names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    def shrunk(self, factor: int) -> Frames:
        """Means over blocks of factor x factor pixels; rows and columns that do not fill a block go."""
        if factor == 1:
            return self
        if factor < 1 or min(self.images.shape[1:]) // factor < 16:
            raise InputError(f"Frames of {self.images.shape[1:]} pixels cannot be shrunk by {factor}: 16 pixels at least must "
                             "be left.")  # fmt: skip

        def means(values: np.ndarray) -> np.ndarray:
            rows, columns = values.shape[-2] // factor, values.shape[-1] // factor
            cut = values[..., : rows * factor, : columns * factor]
            return cut.reshape(*values.shape[:-2], rows, factor, columns, factor).mean(axis=(-3, -1))

        return replace(
            self, images=means(self.images), masks=None if self.masks is None else means(self.masks) >= 0.5,
            forces=None if self.forces is None else means(self.forces),
            protein=None if self.protein is None else means(self.protein),
        )  # fmt: skip

    def normalised(self) -> Frames:
        """Images such that over all frames of a cell the mean outside the mask is 0 and that inside is 1, cut at 0, as
        published; without masks as they are.
        """
        if self.masks is None:
            return self
        made = np.empty_like(self.images)
        for cell in np.unique(self.cells):
            rows = self.cells == cell
            images, inside = self.images[rows], self.masks[rows]
            low = np.mean([image[~mask].mean() for image, mask in zip(images, inside, strict=True)])
            high = np.mean([image[mask].mean() for image, mask in zip(images, inside, strict=True)])
            if not high > low:
                raise DataError(f"{self.names[int(np.flatnonzero(rows)[0])]}: the image is no brighter inside the mask "
                                f"({high:.4g}) than outside ({low:.4g}).")  # fmt: skip
            made[rows] = np.maximum((images - low) / (high - low), 0)
        return replace(self, images=made)

    def check_masks(self) -> None:
        """Raises `InputError` where a mask is missing, is empty or touches the border."""
        if self.masks is None:
            raise InputError(
                "The frames have no masks; the elastic sheet needs one for each (--masks, or movies that hold them)."
            )
        for name, mask in zip(self.names, self.masks, strict=True):
            checked_mask(mask, name)


def read_frames(
    path: str | Path, *, layout: Layout = "auto", masks: str | Path | None = None, forces: str | Path | None = None
) -> Frames:
    """Reads frames from a `.npy` file, or a folder of frames, or of folders of frames.

    A file holds `[C, L, L]` or `[frames, C, L, L]` with 7 or 8 channels (`layout="movie"`), or plain images `[L, L]` or
    `[frames, L, L]` (`"images"`); by default it is told by its shape and by the mask in channel 4. `masks` and `forces` (kPa,
    `[frames, 2, L, L]`, x before y) belong to plain images.

    **Raises:** `InputError` or `DataError`, in a sentence that names the file, where a shape, a value or a layout is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; a .npy of frames is wanted.")
    if not path.is_dir():
        found = _file(path, layout, masks, forces)
    else:
        if masks is not None or forces is not None:
            raise InputError(
                f"{path} is a folder of movies, which hold masks and forces; those of files belong to plain images."
            )
        found = _folder(path, "movie" if layout == "auto" else layout)
    return found


def _folder(path: Path, layout: Layout) -> Frames:
    files = _numbered(path)
    movies = [files] if files else [each for each in map(_numbered, sorted(p for p in path.iterdir() if p.is_dir())) if each]
    if not movies:
        raise InputError(f"{path} holds no .npy frames, nor folders of them.")
    if sum(file.stat().st_size for movie in movies for file in movie) > MOST_BYTES:
        raise DataError(f"{path} holds more than 16 GB of frames; take a part of them.")
    parts, cells = [], []
    for cell, movie in enumerate(movies):
        for file in movie:
            part = _file(file, layout, None, None)
            parts.append(part)
            cells.extend([cell] * len(part))
    shapes = sorted({part.images.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise DataError(
            f"{path}: frames of different sizes ({' and '.join(f'{a} x {b}' for a, b in shapes[:3])}); crop them to one."
        )

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else np.concatenate(values)

    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    if any(part.protein is None for part in parts) and any(part.protein is not None for part in parts):
        notes += ("a second protein is in some frames only and is left out",)
    images = joined("images")
    assert images is not None
    return Frames(images, joined("masks"), joined("forces"), joined("protein"), np.array(cells),
                  tuple(name for part in parts for name in part.names), notes)  # fmt: skip


def _numbered(folder: Path) -> list[Path]:
    """The .npy files of a folder, by the last number in their names."""

    def key(file: Path) -> tuple[int, str]:
        numbers = re.findall(r"\d+", file.stem)
        return (int(numbers[-1]) if numbers else -1, file.name)

    return sorted((p for p in folder.glob("*.npy") if not p.name.startswith(".")), key=key)


def _load(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than 16 GB; take a part of it.")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is no .npy array of numbers.") from None
    if not isinstance(values, np.ndarray) or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise DataError(f"{path} is no .npy array of numbers.")
    if np.iscomplexobj(values) or not values.size:
        raise DataError(f"{path} holds an array of {values.dtype} of shape {values.shape}; real numbers are wanted.")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        where = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise DataError(f"{path}: the value at {where} is not a finite number.")
    return values


def _file(path: Path, layout: Layout, masks: str | Path | None, forces: str | Path | None) -> Frames:
    values = _load(path)
    if values.ndim not in (2, 3, 4):
        raise DataError(f"{path} has shape {values.shape}; [C, L, L], [frames, C, L, L], [L, L] or [frames, L, L] is wanted.")
    channels = values.shape[-3] if values.ndim > 2 else 0
    may_be = channels in (7, 8) and _is_mask(values[..., 4, :, :])
    if layout == "movie" or (layout == "auto" and (values.ndim == 4 or may_be)):
        if channels not in (7, 8):
            raise DataError(f"{path} has shape {values.shape}; a frame has 7 or 8 channels: {', '.join(CHANNELS)}.")
        if not _is_mask(values[..., 4, :, :]):
            raise DataError(
                f"{path}: channel 4 is no mask of 0 and one other value, so that this is not [{', '.join(CHANNELS)}]."
            )
        if masks is not None or forces is not None:
            raise InputError(f"{path} holds masks and forces itself; --masks and --forces belong to plain images.")
        return _movie(path, values[None] if values.ndim == 3 else values)
    images = values[None] if values.ndim == 2 else values
    if images.ndim != 3:
        raise DataError(f"{path} has shape {values.shape}; plain images are [frames, L, L].")
    names = tuple(f"{path.name}, frame {k}" for k in range(len(images)))
    _check_images(images, names)
    known_masks = known_forces = None
    if masks is not None:
        known_masks = (
            _load(Path(masks)).reshape(-1, *images.shape[1:]) if _load(Path(masks)).shape[-2:] == images.shape[1:] else None
        )
        if known_masks is None or len(known_masks) != len(images):
            raise DataError(f"{masks} does not hold a mask for each of the {len(images)} images of {images.shape[1:]} pixels.")
        known_masks = known_masks != 0
        _check_masks(known_masks, names)
    if forces is not None:
        known_forces = _load(Path(forces))
        known_forces = known_forces[None] if known_forces.ndim == 3 else known_forces
        if known_forces.shape != (len(images), 2, *images.shape[1:]):
            raise DataError(f"{forces} has shape {known_forces.shape}; {(len(images), 2, *images.shape[1:])} is wanted.")
    return Frames(images, known_masks, known_forces, None, np.zeros(len(images), int), names)


def _movie(path: Path, values: np.ndarray) -> Frames:
    names = tuple(path.name if len(values) == 1 else f"{path.name}, frame {k}" for k in range(len(values)))
    masks, images = values[:, 4] != 0, values[:, 6]
    _check_images(images, names)
    _check_masks(masks, names)
    forces, notes = PASCAL * values[:, 2:4], []
    measured = values[:, 5] != 0
    if not measured.any():
        notes.append("the force mask is empty, and all measured forces are used")
    else:
        forces = forces * measured[:, None]
    protein = values[:, 7] if values.shape[1] == 8 else None
    known = None if not values[:, 2:4].any() else forces
    if known is None:
        notes.append("the forces are 0 everywhere and count as not measured")
    return Frames(images, masks, known, protein, np.zeros(len(values), int), names, tuple(notes))


def _is_mask(values: np.ndarray) -> bool:
    low, high = values.min(axis=(-2, -1), keepdims=True), values.max(axis=(-2, -1), keepdims=True)
    return bool((low == 0).all() and (high > 0).all() and ((values == low) | (values == high)).all())


def _check_images(images: np.ndarray, names: tuple[str, ...]) -> None:
    if min(images.shape[1:]) < 16:
        raise DataError(f"{names[0]}: an image of {images.shape[1:]} pixels; 16 x 16 at least is wanted.")
    flat = np.ptp(images, axis=(1, 2)) == 0
    if flat.any():
        raise DataError(f"{names[int(np.argmax(flat))]}: the image is the same everywhere; there is nothing to see in it.")


def _check_masks(masks: np.ndarray, names: tuple[str, ...]) -> None:
    share = masks.mean(axis=(1, 2))
    bad = (share == 0) | (share == 1)
    if bad.any():
        k = int(np.argmax(bad))
        raise DataError(
            f"{names[k]}: the mask is {'empty' if share[k] == 0 else 'full'}; a cell with something around it is wanted."
        )


def write_frame(
    path: Path, *, force: np.ndarray, mask: np.ndarray, zyxin: np.ndarray, protein: np.ndarray | None = None
) -> None:
    """Writes one frame in the authors' layout; `force` (2, L, L) in kPa. Displacements are 0, the force mask is all of it."""
    from broadsheet.cache import writing

    rows = [np.zeros_like(zyxin), np.zeros_like(zyxin), *(np.asarray(force) / PASCAL), mask, np.ones_like(zyxin), zyxin]
    if protein is not None:
        rows.append(protein)
    with writing(path) as stream:
        np.save(stream, np.stack([np.asarray(row, np.float32) for row in rows]))
