"""Predictors of video that learn picture and dynamics together: of the next picture, and of slots.

The other two families that arXiv 2305.11772 compares, at toy size: a predictor of pixels (as SVG and FitVid are) and a
contrastive structured world model (C-SWM: slots, a graph network for their change, a hinge), both with a window of pictures as
input.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.recordings.frame_encoders import Decoder, PatchNet, linear, videos_of
from broadsheet.recordings.latent_prediction import adam, padded


class NextPicture(eqx.Module):
    """A window of pictures to the next one, through a narrow layer."""

    encoder: PatchNet
    decoder: Decoder

    def __init__(self, side: int, context: int, latents: int, *, key: PRNGKeyArray) -> None:
        encoder, decoder = jax.random.split(key)
        self.encoder = PatchNet(side, latents, channels=context, key=encoder)
        self.decoder = Decoder(latents, side, key=decoder)

    def __call__(self, window: Float[Array, "context side side"]) -> Float[Array, "side side"]:
        return self.decoder(self.encoder(window))

    def loss(self, window: Array, following: Array, spread: Array) -> Array:
        """Squared error in units of the pictures' spread; pictures are (batch, …)."""
        return jnp.mean((jax.vmap(self)(window) - following) ** 2) / spread**2

    def state(self, window: Array) -> Array:
        """What the narrow layer holds."""
        return self.encoder(window)

    def rollout(self, window: Array, steps: int) -> Array:
        """(steps, latents): its own pictures come back in."""

        def step(window: Array, _: None) -> tuple[Array, Array]:
            window = jnp.concatenate([window[1:], self(window)[None]])
            return window, self.state(window)

        return jax.lax.scan(step, window, None, length=steps)[1]


def rectified(x: Array) -> Array:
    """A function by name, which a saved model can hold."""
    return jax.nn.relu(x)


def unchanged(x: Array) -> Array:
    """Likewise."""
    return x


class Slots(eqx.Module):
    """C-SWM: a map for each slot, a vector of each map, and a graph network that says how the vectors change."""

    trunk: PatchNet
    masks: eqx.nn.Linear
    vector: eqx.nn.MLP
    edge: eqx.nn.MLP
    node: eqx.nn.MLP
    hinge: float = eqx.field(static=True)
    sigma: float = eqx.field(static=True)

    def __init__(self, side: int, context: int, latents: int, slots: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 5)
        each = latents // slots
        self.trunk = PatchNet(side, 1, channels=context, width=32, key=keys[0])
        self.masks = eqx.nn.Linear(32, slots, key=keys[1])
        self.vector = eqx.nn.MLP((side // 2) ** 2, each, 64, 1, activation=rectified, final_activation=unchanged, key=keys[2])
        self.edge = eqx.nn.MLP(2 * each, 32, 32, 1, activation=rectified, final_activation=unchanged, key=keys[3])
        self.node = eqx.nn.MLP(each + 32, each, 64, 1, activation=rectified, final_activation=unchanged, key=keys[4])
        self.hinge, self.sigma = 1.0, 0.5

    def slots(self, window: Array) -> Float[Array, "slots each"]:
        """The vectors of a window."""
        maps = jax.nn.sigmoid(linear(self.masks, self.trunk.maps(window)))
        return jax.vmap(self.vector)(jnp.moveaxis(maps, -1, 0).reshape(maps.shape[-1], -1))

    def step(self, vectors: Float[Array, "slots each"]) -> Float[Array, "slots each"]:
        """The vectors one step later."""
        count = len(vectors)
        pairs = jax.vmap(lambda a: jax.vmap(lambda b: self.edge(jnp.concatenate([a, b])))(vectors))(vectors)
        others = jnp.sum(pairs * (1 - jnp.eye(count))[..., None], axis=1)
        return vectors + jax.vmap(self.node)(jnp.concatenate([vectors, others], axis=1))

    def loss(self, window: Array, following: Array, spread: Array) -> Array:
        """Near the vectors of what follows, and these at a distance from those of other examples."""
        now, later = (jax.vmap(self.slots)(x) for x in (window, jnp.concatenate([window[:, 1:], following[:, None]], axis=1)))

        def energy(a: Array, b: Array) -> Array:
            return 0.5 / self.sigma**2 * jnp.mean(jnp.sum((a - b) ** 2, axis=-1), axis=-1)

        others = jnp.roll(now, 1, axis=0)
        return jnp.mean(energy(jax.vmap(self.step)(now), later) + jnp.maximum(0, self.hinge - energy(others, later)))

    def state(self, window: Array) -> Array:
        """All vectors in a row."""
        return self.slots(window).ravel()

    def rollout(self, window: Array, steps: int) -> Array:
        """(steps, latents): pictures are not needed any more."""

        def step(vectors: Array, _: None) -> tuple[Array, Array]:
            vectors = self.step(vectors)
            return vectors, vectors.ravel()

        return jax.lax.scan(step, self.slots(window), None, length=steps)[1]


class VideoPredictor(BaseEstimator):
    """A network that learns from videos what comes next.

    `X`: videos (videos, frames, side, side) of grey values up to 255, the side a multiple of 4; or a list of videos of unequal
    length.

    **Parameters:** `slots`: 0 for a predictor of pixels, or the number of slots of a C-SWM; `latents`: numbers of its state, in
    all; `context`: pictures that it sees; `steps`, `batch`, `learning_rate`: training with Adam; `random_state`: an integer.

    **Attributes:** `model_`, `losses_`, `mean_`, `scale_`: states are centred and divided by one number.
    """

    def __init__(
        self,
        slots: int = 0,
        latents: int = 32,
        *,
        context: int = 7,
        steps: int = 500,
        batch: int = 64,
        learning_rate: float = 2e-3,
        random_state: int = 0,
    ) -> None:
        self.slots = slots
        self.latents = latents
        self.context = context
        self.steps = steps
        self.batch = batch
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> VideoPredictor:
        """Learns one step ahead."""
        videos = [videos_of(video[None])[0] for video in X]
        if self.slots < 0 or (self.slots and self.latents % self.slots):
            raise InputError(f"{self.latents} latents for {self.slots} slots; a multiple is wanted.")
        views = [np.lib.stride_tricks.sliding_window_view(v, self.context + 1, axis=0) for v in videos if len(v) > self.context]
        if not views:
            raise InputError(f"No video is longer than the context of {self.context} frames.")
        windows = np.moveaxis(np.concatenate(views), -1, 1)
        self.side_ = windows.shape[-1]
        start, learn = jax.random.split(jax.random.key(self.random_state))
        sizes = (self.side_, self.context, self.latents)
        model = Slots(*sizes, self.slots, key=start) if self.slots else NextPicture(*sizes, key=start)
        made = fit(
            model,
            _OneStep(jnp.asarray(windows.std())),
            _Windows(padded(windows), jnp.asarray(len(windows)), self.batch),
            optimiser=adam(self.learning_rate, self.steps),
            steps=self.steps,
            key=learn,
        )
        self.model_, self.losses_ = made.model, made.losses
        some = windows[np.linspace(0, len(windows) - 1, 2000).astype(int), : self.context]
        raw = np.asarray(_states(self.model_, jnp.asarray(some)), float)
        self.mean_ = raw.mean(axis=0)
        self.scale_ = max(float(np.sqrt(((raw - self.mean_) ** 2).mean())), 1e-12)
        return self

    def transform(self, windows: Any) -> Float[np.ndarray, "examples latents"]:
        """Its state after videos (examples, frames, side, side), of which the last `context` count."""
        return (np.asarray(_states(self.model_, self._checked(windows)), float) - self.mean_) / self.scale_

    def rollout(self, windows: Any, steps: int) -> Float[np.ndarray, "examples steps latents"]:
        """The states that follow windows of pictures."""
        made = np.asarray(_rollout(self.model_, self._checked(windows), steps), float)
        return (made - self.mean_) / self.scale_

    def _checked(self, windows: Any) -> Array:
        check_is_fitted(self)
        array = videos_of(windows)[:, -self.context :]
        if array.shape[1:] != (self.context, self.side_, self.side_):
            raise InputError(f"Windows are {array.shape}; (examples, {self.context}, {self.side_}, {self.side_}) is wanted.")
        return jnp.asarray(array)


class _Windows(eqx.Module):
    windows: Float[Array, "windows frames side side"]
    count: Array
    batch: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Array:
        return self.windows[jax.random.randint(key, (self.batch,), 0, self.count)]


class _OneStep(eqx.Module):
    spread: Array

    def __call__(self, model: Any, batch: Array, key: PRNGKeyArray) -> Array:
        return model.loss(batch[:, :-1], batch[:, -1], self.spread)


@eqx.filter_jit
def _states(model: Any, windows: Array) -> Array:
    return jax.lax.map(model.state, windows, batch_size=256)


@eqx.filter_jit
def _rollout(model: Any, windows: Array, steps: int) -> Array:
    return jax.vmap(lambda window: model.rollout(window, steps))(windows)
