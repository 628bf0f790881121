"""Tractions from images by what needs no network: a linear filter, and forces towards the middle of the cell.

Images are (cells, channels, height, width), the cell's mask last where it is used; forces (cells, 2, height, width).
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.matter.traction_errors import as_forces, nmse


def as_images(X: Any, channels: int | None = None) -> Float[np.ndarray, "cells channels height width"]:
    """Checked images; a single channel may stand without its axis."""
    X = np.asarray(X, np.float32)
    X = X[:, None] if X.ndim == 3 else X
    if X.ndim != 4 or not X.size or min(X.shape[2:]) < 4:
        raise InputError(f"Images have shape {X.shape}; (cells, channels, height, width) is wanted, of 4 x 4 pixels at least.")
    if not np.isfinite(X).all():
        raise InputError("Images hold values that are not finite.")
    if channels is not None and X.shape[1] != channels:
        raise InputError(f"Images have {X.shape[1]} channels; {channels} are wanted.")
    return X


def paired(X: Any, F: Any, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Checked images with their forces."""
    X, F = as_images(X, channels), as_forces(F)
    if X.shape[0] != F.shape[0] or X.shape[2:] != F.shape[2:]:
        raise InputError(f"Images have shape {X.shape}, forces {F.shape}; as many cells of one size are wanted.")
    return X, F


class ForceEstimator(RegressorMixin, abc.ABC):
    """What predicts tractions from images. `score` is 1 less the mean normalised squared error."""

    @abc.abstractmethod
    def fit(self, X: Any, y: Any) -> ForceEstimator:
        """Learns from images (cells, channels, height, width) and their tractions (cells, 2, height, width), kPa."""

    @abc.abstractmethod
    def predict(self, X: Any) -> Float[np.ndarray, "cells 2 height width"]:
        """Tractions of images, kPa."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        return float(1 - np.average(nmse(y, self.predict(X)), weights=sample_weight))


class WienerForce(ForceEstimator, BaseEstimator):
    """The best linear filter from images to forces, the same everywhere: F(q) = H(q) Z(q), with a ridge.

    **Parameters:** `noise`: the ridge, as shares of the images' mean power; of several the one that predicts blocks of held-out
    cells best is taken. Images are padded to twice their size, so that nothing wraps around.

    **Attributes:** `filter_`, complex (2, channels, modes); `noise_`.
    """

    def __init__(self, noise: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)) -> None:
        self.noise = noise

    def fit(self, X: Any, y: Any) -> WienerForce:
        X, F = paired(X, y)
        self.n_channels_, self.shape_ = X.shape[1], X.shape[2:]
        z, f = self._modes(X), self._modes(F)
        self.noise_ = self.noise[0]
        if len(self.noise) > 1 and len(X) > 1:
            blocks = np.array_split(np.arange(len(X)), min(4, len(X)))
            errors = {each: np.concatenate([self._held_out(each, z, f, F, block) for block in blocks]).mean() for each in
                      self.noise}  # fmt: skip
            self.noise_ = min(errors, key=errors.__getitem__)
        self.filter_ = self._filter(self.noise_, z, f)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "cells 2 height width"]:
        check_is_fitted(self, "filter_")
        X = as_images(X, self.n_channels_)
        if X.shape[2:] != self.shape_:
            raise InputError(f"Images of {X.shape[2:]} pixels; the filter was fitted at {self.shape_}.")
        return self._back(np.einsum("ckyx,nkyx->ncyx", self.filter_, self._modes(X)))

    def _held_out(self, noise: float, z: np.ndarray, f: np.ndarray, F: np.ndarray, block: np.ndarray) -> np.ndarray:
        rest = np.setdiff1d(np.arange(len(z)), block)
        found = self._filter(noise, z[rest], f[rest])
        return nmse(F[block], self._back(np.einsum("ckyx,nkyx->ncyx", found, z[block])))

    def _modes(self, images: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(images, (2 * self.shape_[0], 2 * self.shape_[1]))

    def _back(self, modes: np.ndarray) -> np.ndarray:
        whole = np.fft.irfft2(modes, (2 * self.shape_[0], 2 * self.shape_[1]))
        return whole[:, :, : self.shape_[0], : self.shape_[1]]

    def _filter(self, noise: float, z: np.ndarray, f: np.ndarray) -> np.ndarray:
        power = np.einsum("nkyx,nlyx->yxkl", z, z.conj())
        cross = np.einsum("ncyx,nkyx->yxck", f, z.conj())
        channels = np.arange(self.n_channels_)
        power[..., channels, channels] += noise * power[..., channels, channels].real.mean(axis=(0, 1))
        found = np.linalg.solve(np.swapaxes(power, 2, 3), np.swapaxes(cross, 2, 3))
        return np.transpose(found, (3, 2, 0, 1))


class CentralForce(ForceEstimator, BaseEstimator):
    """Forces towards the middle of the cell and away from its nearest edge, by the distance from that edge.

    By least squares: an amount for each ring of distances, and with `images` one that is proportional to each channel too. It
    is the strongest explanation without mechanics: a mean field, scaled by the image. The last channel is the mask.

    **Parameters:** `images`; `rings`: how many, up to `depth` pixels from the edge and one beyond; `ridge`.

    **Attributes:** `coefficients_`.
    """

    def __init__(self, images: bool = True, rings: int = 6, depth: float = 12.0, ridge: float = 1e-3) -> None:
        self.images = images
        self.rings = rings
        self.depth = depth
        self.ridge = ridge

    def fit(self, X: Any, y: Any) -> CentralForce:
        X, F = paired(X, y)
        self.n_channels_ = X.shape[1]
        size = (self.rings + 1) * 2 * (X.shape[1] if self.images else 1)
        gram, cross = np.zeros((size, size)), np.zeros(size)
        for image, force in zip(X, F, strict=True):
            inside, rows = self._features(image)
            target = force[:, inside].reshape(-1)
            gram, cross = gram + rows @ rows.T, cross + rows @ target
        ridge = self.ridge * np.trace(gram) / size**2
        self.coefficients_ = np.linalg.solve(gram + ridge * np.eye(size), cross)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "cells 2 height width"]:
        check_is_fitted(self, "coefficients_")
        X = as_images(X, self.n_channels_)
        made = np.zeros((len(X), 2, *X.shape[2:]))
        for k, image in enumerate(X):
            inside, rows = self._features(image)
            made[k][:, inside] = (self.coefficients_ @ rows).reshape(2, -1)
        return made

    def _features(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels inside, and features (features, 2 pixels)."""
        inside = image[-1] != 0
        if not inside.any():
            raise InputError("CentralForce: a mask (the last channel) is empty.")
        distance = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        at = np.argwhere(inside)[:, ::-1].T
        middle = at.mean(axis=1, keepdims=True) - at
        inward = np.stack(np.gradient(distance)[::-1])[:, inside]
        directions = [each / np.maximum(np.linalg.norm(each, axis=0), 1e-9) for each in (middle, inward)]
        ring = np.minimum(distance[inside] * self.rings / self.depth, self.rings).astype(int)
        rings = np.eye(self.rings + 1)[:, ring]
        levels = [np.ones(inside.sum()), *(image[:-1][:, inside] if self.images else ())]
        rows = [rings * level * direction[:, None] for level in levels for direction in directions]
        return inside, np.concatenate([each.transpose(1, 0, 2).reshape(self.rings + 1, -1) for each in rows])
