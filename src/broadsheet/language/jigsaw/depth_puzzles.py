"""Points of a picture with depths: which of them is nearer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from broadsheet.language.jigsaw.unfit import UnfitError

if TYPE_CHECKING:
    from PIL.Image import Image


class Point(NamedTuple):
    """A pixel and its depth: column, row, metres."""

    x: int
    y: int
    depth: float


@dataclass(frozen=True)
class Constraints:
    """What points have to keep (section 4.3). Depths in metres, distances in pixels."""

    nearest: float = 0.1
    farthest: float = 10.0
    apart: float = 40.0  # in the picture, at least
    step: float = 0.2  # in depth, more than
    margin: int = 15  # from the border, at least: as much as a disc's radius, so that its number is seen (ours)


CONSTRAINTS = Constraints()


def sample_points(
    depth: Float[np.ndarray, "height width"],
    count: int = 6,
    dice: np.random.Generator | None = None,
    constraints: Constraints = CONSTRAINTS,
    tries: int = 50,
) -> list[Point]:
    """Points of a depth map (m) that keep the constraints, from the nearest to the farthest.

    Each is drawn uniformly from the pixels that the ones before leave.

    **Raises:** `UnfitError` where the picture has no such points, or `tries` draws have found none.
    """
    dice = np.random.default_rng(0) if dice is None else dice
    rows, columns = depth.shape
    free = np.isfinite(depth) & (depth >= constraints.nearest) & (depth <= constraints.farthest)
    inner = np.zeros_like(free)
    inner[constraints.margin : rows - constraints.margin, constraints.margin : columns - constraints.margin] = True
    y, x = np.nonzero(free & inner)
    z = depth[y, x].astype(float)
    levels = _levels(z, constraints.step)
    if levels < count:
        raise UnfitError(
            "no points",
            f"The depths from {constraints.nearest:g} to {constraints.farthest:g} m have only {levels} values more than "
            f"{constraints.step:g} m apart; {count} points are wanted.",
        )
    for _ in range(tries):
        found: list[Point] = []
        left = np.arange(len(z))
        while len(left) and len(found) < count:
            one = left[dice.integers(len(left))]
            found.append(Point(int(x[one]), int(y[one]), float(z[one])))
            far = (x[left] - x[one]) ** 2 + (y[left] - y[one]) ** 2 >= constraints.apart**2
            left = left[far & (np.abs(z[left] - z[one]) > constraints.step)]
        if len(found) == count:
            return sorted(found, key=lambda point: point.depth)
    raise UnfitError(
        "no points",
        f"No {count} points at least {constraints.apart:g} px and more than {constraints.step:g} m apart were found in "
        f"{tries} draws.",
    )


def _levels(depths: np.ndarray, step: float) -> int:
    """How many depths can be more than `step` apart; taking the least that is possible, again and again, gives the most."""
    values = np.unique(depths)
    count, at = 0, 0
    while at < len(values):
        count += 1
        at = int(np.searchsorted(values - values[at], step, "right"))
    return count


def draw_discs(image: Image, points: Sequence[Point], radius: int = 15, alpha: int = 120) -> Image:
    """The picture with a numbered, half transparent red disc at each point; the first has the number 1."""
    from PIL import Image, ImageDraw, ImageFont

    whole = image.convert("RGBA")
    discs = Image.new("RGBA", whole.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(discs)
    font = ImageFont.load_default(radius)
    for number, point in enumerate(points, start=1):
        box = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
        pen.ellipse(box, fill=(255, 0, 0, alpha), outline=(255, 0, 0, 255), width=2)
        pen.text((point.x, point.y), str(number), fill="white", font=font, anchor="mm")
    return Image.alpha_composite(whole, discs).convert("RGB")


def lower_is_nearer(points: Sequence[Point]) -> list[int]:
    """An answer without depths: labels of the shown points from the lowest in the picture to the highest."""
    return [label + 1 for label in sorted(range(len(points)), key=lambda label: -points[label].y)]
