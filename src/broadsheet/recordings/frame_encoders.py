"""Encoders of single pictures, one of each family that is compared: linear, untrained, static, dynamic.

Small stand-ins for what arXiv 2305.11772 takes from image and video models: an autoencoder sees each picture by itself; the
dynamic one learns that pictures near in time are alike (as R3M does). Networks see patches, merged twice.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.recordings.latent_prediction import adam, padded

BRIGHT = 255.0


class PatchNet(eqx.Module):
    """Pictures (channels, side, side) to a vector: two layers over patches of 2 x 2, then one over all."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, side: int, out: int, *, channels: int = 1, width: int = 16, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(4 * channels, width, key=keys[0])
        self.second = eqx.nn.Linear(4 * width, 2 * width, key=keys[1])
        self.out = eqx.nn.Linear(2 * width * (side // 4) ** 2, out, key=keys[2])

    def maps(self, picture: Float[Array, "channels side side"]) -> Float[Array, "half half width"]:
        """What the first layer sees."""
        return jax.nn.relu(linear(self.first, patches(jnp.moveaxis(picture, 0, -1))))

    def __call__(self, picture: Float[Array, "channels side side"]) -> Float[Array, " out"]:
        seen = jax.nn.relu(linear(self.second, patches(self.maps(picture))))
        return self.out(seen.ravel())


def linear(layer: eqx.nn.Linear, x: Float[Array, "... inward"]) -> Float[Array, "... out"]:
    """A layer on the last axis."""
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def patches(picture: Float[Array, "side side channels"]) -> Float[Array, "half half patch"]:
    """Squares of 2 x 2 side by side."""
    side, _, channels = picture.shape
    cut = picture.reshape(side // 2, 2, side // 2, 2, channels)
    return cut.swapaxes(1, 2).reshape(side // 2, side // 2, 4 * channels)


class Decoder(eqx.Module):
    """A vector back to a picture."""

    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    side: int = eqx.field(static=True)

    def __init__(self, latents: int, side: int, *, key: PRNGKeyArray) -> None:
        hidden, out = jax.random.split(key)
        self.hidden = eqx.nn.Linear(latents, 128, key=hidden)
        self.out = eqx.nn.Linear(128, side * side, key=out)
        self.side = side

    def __call__(self, latent: Float[Array, " latents"]) -> Float[Array, "side side"]:
        return self.out(jax.nn.relu(self.hidden(latent))).reshape(self.side, self.side)


class FrameEncoder(TransformerMixin, BaseEstimator):
    """Pictures to latents, one by one.

    `X`: videos (videos, frames, side, side) of grey values up to 255, the side a multiple of 4; they are taken as single
    pictures, but for the dynamic encoder.

    **Parameters:**

    - `kind`: `"pca"` of the pixels; `"random"`: a network as it was drawn; `"static"`: an autoencoder of single pictures;
      `"dynamic"`: pictures of one video no more than `near` frames apart are alike, others are not (InfoNCE).
    - `latents`: how many numbers a picture becomes. `near=None`: any two pictures of a video are alike, so that time says
      nothing.
    - `steps`, `batch`, `learning_rate`: training with Adam; `random_state`: an integer.

    **Attributes:** `model_`, `mean_`, `scale_`: latents are centred and divided by one number.
    """

    def __init__(
        self,
        kind: str = "pca",
        latents: int = 32,
        *,
        near: int | None = 2,
        steps: int = 500,
        batch: int = 128,
        learning_rate: float = 2e-3,
        random_state: int = 0,
    ) -> None:
        self.kind = kind
        self.latents = latents
        self.near = near
        self.steps = steps
        self.batch = batch
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> FrameEncoder:
        """Learns from videos."""
        videos = videos_of(X)
        self.side_ = videos.shape[-1]
        key, learn = jax.random.split(jax.random.key(self.random_state))
        if self.kind == "pca":
            pictures = videos.reshape(-1, self.side_**2)[:: max(1, videos[..., 0, 0].size // 5000)]
            if min(pictures.shape) < self.latents:
                raise InputError(f"{len(pictures)} pictures of {self.side_**2} pixels have no {self.latents} components.")
            self.model_: Any = PCA(self.latents, svd_solver="randomized", random_state=self.random_state).fit(pictures)
            self.model_.components_ = np.ascontiguousarray(self.model_.components_)  # as it is when loaded
        elif self.kind in ("random", "static", "dynamic"):
            self.model_ = PatchNet(self.side_, self.latents, key=key)
            if self.kind != "random":
                self.model_ = self._train(videos, learn)
        else:
            raise InputError(f"kind is {self.kind!r}; pca, random, static and dynamic are possible.")
        raw = self._encode(videos)
        self.mean_ = raw.mean(axis=(0, 1))
        self.scale_ = max(float(np.sqrt(((raw - self.mean_) ** 2).mean())), 1e-12)
        return self

    def _train(self, videos: np.ndarray, key: PRNGKeyArray) -> PatchNet:
        scaled = jnp.asarray(videos)
        if self.kind == "static":
            start, key = jax.random.split(key)
            pair = (self.model_, Decoder(self.latents, self.side_, key=start))
            bright = float(videos.std())
            return self._fitted(pair, _Reconstruction(jnp.asarray(bright)), _Near(scaled, jnp.asarray(0), self.batch), key)[0]
        reach = videos.shape[1] - 1 if self.near is None else self.near
        return self._fitted(self.model_, _Alike(), _Near(scaled, jnp.asarray(reach), self.batch), key)

    def _fitted(self, model: Any, loss: Any, data: Any, key: PRNGKeyArray) -> Any:
        return fit(model, loss, data, optimiser=adam(self.learning_rate, self.steps), steps=self.steps, key=key).model

    def _encode(self, videos: np.ndarray) -> np.ndarray:
        flat = videos.reshape(-1, *videos.shape[-2:])
        if self.kind == "pca":
            out = self.model_.transform(flat.reshape(len(flat), -1))
        else:
            out = np.asarray(_encode(self.model_, padded(flat[:, None])))[: len(flat)]
        return out.reshape(*videos.shape[:2], -1).astype(float)

    def transform(self, X: Any) -> Float[np.ndarray, "videos frames latents"]:
        """The latents of each picture."""
        check_is_fitted(self)
        videos = videos_of(X)
        if videos.shape[-1] != self.side_:
            raise InputError(f"Pictures of {videos.shape[-1]} pixels a side; the encoder was fitted to {self.side_}.")
        return (self._encode(videos) - self.mean_) / self.scale_


def videos_of(X: Any) -> Float[np.ndarray, "videos frames side side"]:
    """Videos as numbers from 0 to 1.

    **Raises:** `InputError` for another shape.
    """
    videos = np.asarray(X)
    if videos.ndim != 4 or videos.shape[-1] != videos.shape[-2] or videos.shape[-1] % 4 or not videos.size:
        raise InputError(f"Videos are {videos.shape}; (videos, frames, side, side) is wanted, the side a multiple of 4.")
    if videos.dtype.kind not in "biuf" or not np.isfinite(videos).all():
        raise InputError("Videos must be finite numbers from 0 to 255.")
    return videos.astype(np.float32) / np.float32(BRIGHT)


class _Near(eqx.Module):
    """Pictures of random videos, and for each one that comes up to `reach` frames later or earlier."""

    videos: Float[Array, "videos frames side side"]
    reach: Array
    batch: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        one, two, three = jax.random.split(key, 3)
        count, frames = self.videos.shape[:2]
        which = jax.random.randint(one, (self.batch,), 0, count)
        at = jax.random.randint(two, (self.batch,), 0, frames)
        later = at + jax.random.randint(three, (self.batch,), -self.reach, self.reach + 1)
        later = jnp.clip(later, 0, frames - 1)
        return self.videos[which, at][:, None], self.videos[which, later][:, None]


class _Reconstruction(eqx.Module):
    """Squared error of an autoencoder, in units of the pictures' spread."""

    spread: Array

    def __call__(self, pair: tuple[PatchNet, Decoder], batch: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        encoder, decoder = pair
        made = jax.vmap(lambda picture: decoder(encoder(picture)))(batch[0])
        return jnp.mean((made - batch[0][:, 0]) ** 2) / self.spread**2


class _Alike(eqx.Module):
    """InfoNCE: which picture of the batch is near this one? Likeness is a negative squared distance."""

    def __call__(self, encoder: PatchNet, batch: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        one, other = (jax.vmap(encoder)(part) for part in batch)
        likeness = -jnp.sum((one[:, None] - other[None]) ** 2, axis=-1)
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(likeness, axis=1)))


@eqx.filter_jit
def _encode(encoder: PatchNet, pictures: Array) -> Array:
    return jax.lax.map(encoder, pictures, batch_size=256)
