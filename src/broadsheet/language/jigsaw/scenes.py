"""Rooms of spheres and boxes over a plane, with the exact depth of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from broadsheet.language.jigsaw.permutations import dice


class Rendered(NamedTuple):
    """A picture and, for each pixel, the distance along the camera's axis, m; infinite where nothing is."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class Sphere:
    """Camera's axes: x to the right, y down, z away from it; metres."""

    centre: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)


@dataclass(frozen=True)
class Box:
    """A cuboid with sides along the camera's axes."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)


LIGHT = np.array([-0.4, -0.8, -0.45]) / np.linalg.norm([0.4, 0.8, 0.45])
AMBIENT = 0.35


def render(
    things: list[Sphere | Box], size: tuple[int, int] = (240, 320), floor: float = 1.2, focal: float = 1.0, wall: float = 12.0
) -> Rendered:
    """What a camera sees that looks along z at things over a chequered floor, in front of a wall.

    Each thing's depth is computed in closed form for every pixel's ray, and a buffer of depths keeps the nearest.

    **Arguments:** `size`: height and width, px; `floor`: how far the floor is below the camera, m; `focal`: focal length, in
    widths of the picture; `wall`: how far the wall is, m.
    """
    height, width = size
    rays = np.stack(np.broadcast_arrays(
        ((np.arange(width) + 0.5) / width - 0.5)[None] / focal,
        ((np.arange(height) + 0.5 - height / 2) / width)[:, None] / focal,
        1.0,
    ), -1)  # fmt: skip
    depth = np.full(size, wall)
    colour = np.broadcast_to(np.array([0.55, 0.6, 0.7]), (*size, 3)) * (0.8 + 0.2 * rays[..., 1:2])
    down = rays[..., 1] > floor / wall / 2  # what is farther is behind the wall
    ground = np.where(down, floor / np.where(down, rays[..., 1], 1), np.inf)
    at = np.where(down, ground, 0)
    chequered = (np.floor(at * rays[..., 0]) + np.floor(at)) % 2
    tiles = np.where(chequered[..., None] > 0, 0.75, 0.5) * np.array([1.0, 0.95, 0.85])
    depth, colour = _nearer(depth, colour, ground, tiles)
    for thing in things:
        distance, normals = _sphere(thing, rays) if isinstance(thing, Sphere) else _box(thing, rays)
        light = AMBIENT + (1 - AMBIENT) * np.clip(normals @ LIGHT, 0, 1)
        depth, colour = _nearer(depth, colour, distance, light[..., None] * np.array(thing.colour))
    return Rendered(np.rint(255 * np.clip(colour, 0, 1)).astype(np.uint8), depth)


def _nearer(depth: np.ndarray, colour: np.ndarray, distance: np.ndarray, paint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both buffers, with what is nearer than what they hold."""
    first = distance < depth
    return np.where(first, distance, depth), np.where(first[..., None], paint, colour)


def _sphere(thing: Sphere, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays of depth 1 meet a sphere, as multiples of them, and the normals there; infinite where they do not."""
    centre = np.array(thing.centre)
    square, along = (rays**2).sum(-1), rays @ centre
    room = along**2 - square * (centre @ centre - thing.radius**2)
    distance = (along - np.sqrt(np.maximum(room, 0))) / square
    distance = np.where((room > 0) & (distance > 0), distance, np.inf)
    meeting = np.where(np.isfinite(distance), distance, 0)[..., None] * rays
    return distance, (meeting - centre) / thing.radius


def _box(thing: Box, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of a box: a ray is in it from where it has entered all three slabs to where it leaves the first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.stack([(np.array(thing.centre) + sign * np.array(thing.half)) / rays for sign in (-1, 1)])
    enters, leaves = np.nanmin(sides, 0), np.nanmax(sides, 0)
    distance, axis = enters.max(-1), enters.argmax(-1)
    distance = np.where((distance <= leaves.min(-1)) & (distance > 0), distance, np.inf)
    return distance, -np.sign(np.take_along_axis(rays, axis[..., None], -1)) * np.eye(3)[axis]


def random_scene(seed: int, size: tuple[int, int] = (240, 320), things: int = 8) -> Rendered:
    """A room with so many spheres and boxes, some on the floor and some in the air, so that what is lower in the picture need
    not be nearer."""
    numbers = dice(seed)
    made: list[Sphere | Box] = []
    for _ in range(things):
        z, reach = numbers.uniform(2.0, 9.0), numbers.uniform(0.15, 0.6)
        x = numbers.uniform(-0.45, 0.45) * z
        y = 1.2 - reach if numbers.random() < 0.5 else numbers.uniform(-0.35 * z, 1.2 - reach)
        colour = tuple(numbers.uniform(0.25, 1.0, 3).tolist())
        if numbers.random() < 0.5:
            made.append(Sphere((x, y, z), reach, colour))
        else:
            made.append(Box((x, y, z), (reach * numbers.uniform(0.5, 1.5), reach, reach * numbers.uniform(0.5, 1.5)), colour))
    return render(made, size)
