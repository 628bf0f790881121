"""Adherent cells made on the computer: a contracting elastic sheet on adhesions, imaged and measured with noise.

Adhesions, contour and camera are drawn at random; tractions then follow from the mechanics of `ElasticSheet`, exactly. Two
lengths are built in: about 3 µm on adhesions and about 27 µm between them. That tractions come from adhesions is put in here;
real cells may differ. Lengths in µm, tractions in kPa.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import ConvexHull

from broadsheet.errors import InputError
from broadsheet.matter.elastic_sheet import ElasticSheet


@dataclass(frozen=True)
class Cells:
    """Images of cells with what is true of them."""

    zyxin: Float[np.ndarray, "cells height width"]
    """About 1 on an adhesion, as a camera sees it."""
    actin: Float[np.ndarray, "cells height width"]
    """Density of stress fibres, smoothed; of a cell without fibres, where these would be."""
    mask: Bool[np.ndarray, "cells height width"]
    force: Float[np.ndarray, "cells 2 height width"]
    """Tractions (x, y) as measured: with noise and the resolution of the measurement, kPa."""
    true_force: Float[np.ndarray, "cells 2 height width"]
    Y: Float[np.ndarray, "cells height width"]
    """Stiffness of the adhesions, 1/µm²."""
    sigma_a: Float[np.ndarray, " cells"]
    """Isotropic active stress, kPa µm."""
    active: Float[np.ndarray, "cells 3 height width"]
    """Further active stress, of fibres: xx, yy, xy."""
    imbalance: Float[np.ndarray, " cells"]
    """Sum of the true forces over the sum of their amounts."""
    torque: Float[np.ndarray, " cells"]
    """Sum of the true torques around the image's centre, over that of their amounts."""

    def __len__(self) -> int:
        return len(self.zyxin)

    def __getitem__(self, which: slice | np.ndarray) -> Cells:
        return Cells(**{name: value[which] for name, value in vars(self).items()})


class _Drawn(NamedTuple):
    mask: np.ndarray
    bumps: np.ndarray
    fibres: np.ndarray
    sigma_a: float


@dataclass
class SyntheticCells:
    """A generator of cells; each call of `sample` goes on where the last one stopped.

    - `seed`; `size`: pixels a side; `h`: µm a pixel.
    - `radius`: mean radii are drawn from this range, µm; `stretch`: factor along a random direction, at constant area.
    - `hulls`: share of cells that are the hull of 4 to 7 spikes; the others have a wavy contour.
    - `background`, `adhesion`: stiffness between and on adhesions, 1/µm²; `alpha`: lambda / (2 mu).
    - `fibres`: tension of stress fibres, in units of the isotropic stress; 0: they are drawn, and do not pull.
    - `noise`: of measured tractions, in units of the largest; `camera`: of images; `resolution`: blur of tractions, µm.
    """

    seed: int
    size: int = 64
    h: float = 1.0
    radius: tuple[float, float] = (14.0, 22.0)
    stretch: float = 1.0
    hulls: float = 0.5
    background: float = 2e-3
    adhesion: float = 0.1
    alpha: float = 0.5
    fibres: float = 0.0
    noise: float = 0.03
    camera: float = 0.02
    resolution: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        if self.radius[0] * 2.2 > self.size * self.h:
            raise InputError(f"Cells of radius {self.radius[0]:g} µm do not fit in {self.size} pixels of {self.h:g} µm.")

    def sample(self, n: int) -> Cells:
        """`n` cells."""
        return self._cells([self._draw() for _ in range(n)])

    def washout(self, levels: Float[np.ndarray, " frames"], follows: float = 1.0) -> Cells:
        """One cell whose active stress takes these levels in turn, as when a drug that stops contraction comes and goes.

        `follows`: how far adhesions follow the tension: with 1 they grow and shrink with it, with 0 they stay.
        """
        drawn = self._draw()
        frames = [
            drawn._replace(sigma_a=drawn.sigma_a * s, bumps=drawn.bumps * (1 + follows * (s - 1)), fibres=drawn.fibres * s)
            for s in levels
        ]
        return self._cells(frames)

    def _cells(self, drawn: list[_Drawn]) -> Cells:
        made = [self._measured(each) for each in drawn]
        return Cells(**{name: np.stack([one[name] for one in made]) for name in made[0]})

    def _draw(self) -> _Drawn:
        rng, side = self.rng, self.size * self.h
        angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        mean = rng.uniform(*self.radius)
        shape = _hull(rng, angles) if rng.random() < self.hulls else _waves(rng, angles)
        tilt, axis = rng.uniform(0, np.pi), np.sqrt(self.stretch)
        oval = 1 / np.hypot(np.cos(angles - tilt) / axis, np.sin(angles - tilt) * axis)
        contour = np.minimum(mean * oval * shape, side / 2 - 2.5 * self.h)
        centres = self.h * (np.arange(self.size) + 0.5) - side / 2
        x, y = np.meshgrid(centres, centres)
        edge = np.interp(np.arctan2(y, x), angles, contour, period=2 * np.pi)
        mask = np.hypot(x, y) < edge
        return _Drawn(mask, *self._adhesions(angles, contour, mean, x, y), 1 + 0.2 * np.clip(rng.normal(), -3, 3))

    def _adhesions(self, angles, contour, mean, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Adhesions in units of a typical one, and the tensor of the fibres that join pairs of them."""
        rng, step = self.rng, angles[1]
        slope = (np.roll(contour, -1) - np.roll(contour, 1)) / (2 * step)
        bend = (np.roll(contour, -1) - 2 * contour + np.roll(contour, 1)) / step**2
        line = np.hypot(contour, slope)
        curvature = (contour**2 + 2 * slope**2 - contour * bend) / line**3
        weight = line * (1 + 2 * np.maximum(curvature, 0) * mean)
        count = int(rng.integers(15, 41))
        theta = rng.choice(len(angles), count, p=weight / weight.sum())
        near = rng.random(count) < 0.8
        distance = np.where(near, contour[theta] - rng.uniform(0, 4, count), contour[theta] * np.sqrt(rng.random(count)))
        direction = np.stack([np.cos(angles[theta]), np.sin(angles[theta])], axis=1)
        places, size = distance[:, None] * direction, np.exp(rng.normal(0, 0.5, count))
        dx, dy = x - places[:, 0, None, None], y - places[:, 1, None, None]
        e = direction[:, :, None, None]
        along, across = dx * e[:, 0] + dy * e[:, 1], dx * e[:, 1] - dy * e[:, 0]
        pixel = self.h**2 / 12
        bumps = np.exp(-0.5 * (along**2 / (1.5**2 + pixel) + across**2 / (0.5**2 + pixel)))
        return np.einsum("k,kyx->yx", size, bumps), self._fibres(places, x, y)

    def _fibres(self, places: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "3 height width"]:
        """Ridges of width 0.6 µm along segments between adhesions, times e e^T of their direction."""
        order = self.rng.permutation(len(places))
        made, width = np.zeros((3, *x.shape)), max(0.6, self.h / 2)
        for a, b in zip(places[order[: len(order) // 2]], places[order[len(order) // 2 :]], strict=False):
            length = np.hypot(*(b - a))
            if length < 4:
                continue
            e = (b - a) / length
            along = (x - a[0]) * e[0] + (y - a[1]) * e[1]
            beyond = np.maximum(np.maximum(-along, along - length), 0)
            across = (x - a[0]) * e[1] - (y - a[1]) * e[0]
            ridge = np.exp(-0.5 * (across**2 + beyond**2) / width**2)
            made += np.array([e[0] ** 2, e[1] ** 2, e[0] * e[1]])[:, None, None] * ridge
        return made

    def _measured(self, drawn: _Drawn) -> dict[str, np.ndarray]:
        rng, mask = self.rng, drawn.mask
        Y = np.where(mask, self.background + self.adhesion * drawn.bumps, 0.0)
        active = self.fibres * drawn.fibres * mask
        found = ElasticSheet(mask, self.h).equilibrium(Y, drawn.sigma_a, self.alpha, active)
        true, spread = found.traction, self.resolution / self.h
        force = true + self.noise * np.linalg.norm(true, axis=0).max() * rng.normal(size=true.shape)
        if spread:
            force = gaussian_filter(force, (0, spread, spread))
        recruited = drawn.bumps * mask * (1 + 0.1 * rng.normal(size=mask.shape)) + 0.05 * mask
        zyxin = gaussian_filter(recruited + self.camera * rng.normal(size=mask.shape), 0.25 / self.h)
        density = gaussian_filter((drawn.fibres[0] + drawn.fibres[1]) * mask, 1.0 / self.h)
        actin = 0.5 * density + 0.1 * mask + self.camera * rng.normal(size=mask.shape)
        arms = found.positions - self.size * self.h / 2
        torque = arms[:, 0] * found.forces[:, 1] - arms[:, 1] * found.forces[:, 0]
        scale = np.linalg.norm(found.forces, axis=1)
        return {
            "zyxin": zyxin.astype(np.float32), "actin": actin.astype(np.float32), "mask": mask,
            "force": force.astype(np.float32), "true_force": true.astype(np.float32), "Y": Y,
            "sigma_a": np.asarray(drawn.sigma_a), "active": active,
            "imbalance": np.asarray(np.linalg.norm(found.forces.sum(axis=0)) / scale.sum()),
            "torque": np.asarray(abs(torque.sum()) / (np.linalg.norm(arms, axis=1) * scale).sum()),
        }  # fmt: skip


def _waves(rng: np.random.Generator, angles: np.ndarray) -> np.ndarray:
    """Distance of a contour from its centre over the mean: harmonics 2 to 5."""
    waves = sum(rng.normal(0, 0.12 / m) * np.cos(m * angles + rng.uniform(0, 2 * np.pi)) for m in range(2, 6))
    return np.maximum(1 + waves, 0.5)


def _hull(rng: np.random.Generator, angles: np.ndarray) -> np.ndarray:
    """The same of the convex hull of 4 to 7 spikes, with corners a little rounded."""
    count = int(rng.integers(4, 8))
    theta = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count + rng.uniform(0, 2 * np.pi)
    corners = rng.uniform(0.8, 1.4, count)[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    planes = ConvexHull(corners).equations
    slopes = planes[:, :2] @ np.stack([np.cos(angles), np.sin(angles)])
    contour = np.min(np.where(slopes > 1e-9, -planes[:, 2:] / np.maximum(slopes, 1e-9), np.inf), axis=0)
    contour = gaussian_filter1d(contour, 8, mode="wrap")
    return contour / contour.mean()
