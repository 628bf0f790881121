"""Puzzles solved without a model: by how well colours go on across the seams. What a model learns of seams alone, this knows.

The measure between two tiles is Gallagher's (2012): how far the colour step across the seam is from the steps just before it,
in units of their spread. The arrangement with the best seams is found exactly for small puzzles, by beam search for large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError

BEAM = 512
STATES = 1_000_000
"""Partial arrangements that the exact search keeps at most; where more would be wanted, it is a beam search of this width."""
MISFIT = 1e9
"""Of two tiles whose sides have unequal lengths, or a tile in a place of another size."""


def solve_tiles(tiles: Sequence[Any], grid: tuple[int, int]) -> list[int]:
    """The answer with the smoothest seams.

    **Arguments:** `tiles`: pictures, or arrays (height, width, channels), as they are shown; `grid`: rows and columns.
    """
    arrays = [_colours(tile) for tile in tiles]
    turned = [array.transpose(1, 0, 2) for array in arrays]
    return arrange(_seams(arrays), _seams(turned), grid, _fits(arrays, grid))


def answer_by_size(tiles: Sequence[Any], grid: tuple[int, int], dice: np.random.Generator) -> list[int]:
    """An answer that knows the tiles' sizes alone, which tell where those of the first rows and columns belong."""
    fits = _fits([_colours(tile) for tile in tiles], grid)
    return arrange(np.zeros_like(fits), np.zeros_like(fits), grid, fits + dice.random(fits.shape))


def solve_clips(clips: Sequence[Sequence[Any]]) -> list[int]:
    """The answer in which each clip's first frame is most like the last one of the clip before.

    **Arguments:** `clips`: frames of each, as they are shown. Frames are compared at several degrees of blur, so that what has
    moved a little is alike still.
    """
    first, last = ([_blurred(clip[k]) for clip in clips] for k in (0, -1))
    costs = np.array([[np.abs(before - after).mean() for after in first] for before in last])
    return arrange(costs, np.zeros_like(costs), (1, len(clips)))


def _colours(tile: Any) -> np.ndarray:
    array = np.asarray(tile, float)
    return array[:, :, None] if array.ndim == 2 else array


def _seams(tiles: Sequence[np.ndarray]) -> Float[np.ndarray, "tiles tiles"]:
    """Cost of the second tile at the right of the first; per pixel."""
    count = len(tiles)
    costs = np.full((count, count), MISFIT)
    right, left = ([_steps(tile, side) for tile in tiles] for side in (-1, 0))
    for a, before in enumerate(tiles):
        for b, after in enumerate(tiles):
            if a != b and len(before) == len(after):
                step = after[:, 0] - before[:, -1]
                costs[a, b] = _distance(step, *right[a]) + _distance(-step, *left[b])
    return costs


def _steps(tile: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the colour steps towards a side of a tile, and the inverse of their covariance, with one level of noise."""
    if tile.shape[1] < 2:
        return np.zeros(tile.shape[2]), np.eye(tile.shape[2])
    steps = tile[:, -1] - tile[:, -2] if side else tile[:, 0] - tile[:, 1]
    away = steps - steps.mean(0)
    return steps.mean(0), np.linalg.inv(away.T @ away / len(steps) + np.eye(tile.shape[2]))


def _distance(steps: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> float:
    away = steps - mean
    return float(np.sqrt(np.einsum("ic,cd,id->i", away, inverse, away)).mean())


def _fits(tiles: Sequence[np.ndarray], grid: tuple[int, int]) -> Float[np.ndarray, "tiles places"]:
    """0 where a tile has the size of a place, else `MISFIT`."""
    rows, columns = grid
    heights = sorted((tile.shape[0] for tile in tiles), reverse=True)[::columns]
    widths = sorted((tile.shape[1] for tile in tiles), reverse=True)[::rows]
    sizes = [(height, width) for height in heights for width in widths]
    return np.array([[0.0 if tile.shape[:2] == size else MISFIT for size in sizes] for tile in tiles])


def _blurred(frame: Any) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    grey = _colours(frame).mean(2)
    return np.stack([gaussian_filter(grey, width) for width in (0, 1, 2, 4)])


def arrange(
    right: Float[np.ndarray, "pieces pieces"],
    below: Float[np.ndarray, "pieces pieces"],
    grid: tuple[int, int],
    fits: Float[np.ndarray, "pieces places"] | None = None,
    states: int = STATES,
) -> list[int]:
    """The cheapest arrangement, as an answer: the label of the piece in each place, row by row.

    Exact where no more than `states` partial arrangements are cheaper than what a narrow beam search found, which holds for
    nine pieces.

    **Arguments:** `right[a, b]`, `below[a, b]`: cost of b at the right of a, or below it; `fits[a, place]`: cost of a there.
    """
    fits = np.zeros((len(right), grid[0] * grid[1])) if fits is None else fits
    if fits.shape != (len(right), grid[0] * grid[1]) or len(right) != grid[0] * grid[1]:
        raise InputError(f"{len(right)} pieces do not fill a grid of {grid[0]} x {grid[1]}.")
    found, cost = _search(right, below, grid[1], fits, min(BEAM, states), np.inf)
    better, less = _search(right, below, grid[1], fits, states, cost)
    return [int(piece) + 1 for piece in (better if less < cost else found)]


def _search(
    right: np.ndarray, below: np.ndarray, columns: int, fits: np.ndarray, width: int, bound: float
) -> tuple[np.ndarray, float]:
    """The cheapest of the arrangements that are filled row by row, those beyond the `width` cheapest and not below `bound` left
    out; infinite where none is left."""
    pieces = len(right)
    placed, costs = np.zeros((1, 0), np.int16), np.zeros(1)
    free = np.ones((1, pieces), bool)
    for place in range(pieces):
        more = costs[:, None] + fits[None, :, place]
        if place % columns:
            more = more + right[placed[:, -1]]
        if place >= columns:
            more = more + below[placed[:, place - columns]]
        row, piece = np.nonzero(free & (more < bound))
        values = more[row, piece]
        if len(values) > width:
            kept = np.argpartition(values, width)[:width]
            row, piece, values = row[kept], piece[kept], values[kept]
        placed = np.column_stack([placed[row], piece.astype(np.int16)])
        free, costs = free[row], values
        free[np.arange(len(row)), piece] = False
    if not len(costs):
        return np.zeros(0, np.int16), np.inf
    return placed[costs.argmin()], float(costs.min())
