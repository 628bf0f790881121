"""Pictures cut into a grid of tiles, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.unfit import UnfitError

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST_SIDE = 84
"""Pixels; pictures with a shorter side make no puzzle (section 4.1)."""


def edges(size: int, parts: int) -> list[int]:
    """Where `size` pixels are cut into `parts`; what is left over goes to the first parts, a pixel each."""
    each, more = divmod(size, parts)
    return [part * each + min(part, more) for part in range(parts + 1)]


def cut(image: Image, grid: tuple[int, int]) -> list[Image]:
    """The tiles of a picture, row by row.

    **Arguments:** `grid`: rows and columns.

    **Raises:** `UnfitError` where there are fewer pixels than tiles.
    """
    rows, columns = grid
    if rows < 1 or columns < 1 or image.height < rows or image.width < columns:
        raise UnfitError(
            "too small", f"A picture of {image.width} x {image.height} pixels is not cut into {rows} x {columns} tiles."
        )
    x, y = edges(image.width, columns), edges(image.height, rows)
    return [image.crop((x[k], y[i], x[k + 1], y[i + 1])) for i in range(rows) for k in range(columns)]


def even(image: Image, grid: tuple[int, int]) -> Image:
    """The picture without the pixels at its right and lower end that would make some tiles larger than others."""
    return image.crop((0, 0, image.width - image.width % grid[1], image.height - image.height % grid[0]))


def join(tiles: Sequence[Image], grid: tuple[int, int]) -> Image:
    """The picture that tiles make, row by row; in a wrong place a tile that is too large is cut, one too small leaves black."""
    from PIL import Image

    rows, columns = grid
    if len(tiles) != rows * columns:
        raise InputError(f"{len(tiles)} tiles make no grid of {rows} x {columns}.")
    heights = sorted((tile.height for tile in tiles), reverse=True)[::columns]
    widths = sorted((tile.width for tile in tiles), reverse=True)[::rows]
    whole = Image.new(tiles[0].mode, (sum(widths), sum(heights)))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        fitting = tile.crop((0, 0, min(tile.width, widths[column]), min(tile.height, heights[row])))
        whole.paste(fitting, (sum(widths[:column]), sum(heights[:row])))
    return whole
