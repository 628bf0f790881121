"""Plain decoders of behaviour from counts with history: ridge regression, the lasso, a small network, a gated recurrent
unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.learn.layers import Dense

Kind = Literal["ridge", "lasso", "mlp"]
GRU_UPDATE = optax.adamw(3e-3, weight_decay=1e-2)


def history(counts: Num[np.ndarray, "bins neurons"], lags: int) -> Float[np.ndarray, "bins lags neurons"]:
    """Each bin with the `lags - 1` before it, the oldest first; zeros before the start."""
    if lags < 1:
        raise InputError(f"{lags} bins of history; at least the present one is wanted.")
    padded = np.concatenate([np.zeros((lags - 1, counts.shape[1])), counts])
    return np.stack([padded[k : k + len(counts)] for k in range(lags)], axis=1)


def plain_decoder(kind: Kind, random_state: int = 0) -> Any:
    """A scikit-learn pipeline on standardised features; penalties are chosen by cross-validation (of ridge by leaving one
    out, of the lasso over stretches)."""
    from sklearn.linear_model import LassoCV, RidgeCV
    from sklearn.model_selection import KFold
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = KFold(4)  # stretches: neighbours in time are alike
    made = {
        "ridge": lambda: RidgeCV(np.logspace(-1, 6, 15)),
        "lasso": lambda: LassoCV(cv=folds, alphas=20, random_state=random_state),
        "mlp": lambda: MLPRegressor(
            hidden_layer_sizes=(64,), alpha=1e-2, early_stopping=True, max_iter=300, random_state=random_state
        ),
    }
    if kind not in made:
        raise InputError(f"There is no decoder {kind!r}; there are {', '.join(made)}.")
    return make_pipeline(StandardScaler(), made[kind]())


class GRU(eqx.Module):
    """A gated recurrent unit over bins, and a linear read-out of its last state."""

    inputs: Dense
    hidden: Dense
    out: Dense
    size: int = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, inputs: int, size: int, outputs: int):
        self.inputs, self.hidden, self.out = Dense(rng, inputs, 3 * size), Dense(rng, size, 3 * size), Dense(rng, size, outputs)
        self.size = size

    def __call__(self, x: Float[Array, "samples lags inputs"]) -> Float[Array, "samples outputs"]:
        def step(h: Array, drive: Array) -> tuple[Array, None]:
            back = self.hidden(h)
            update, reset = (
                jax.nn.sigmoid(drive[:, : 2 * self.size] + back[:, : 2 * self.size]).reshape(len(h), 2, -1).swapaxes(0, 1)
            )
            new = jnp.tanh(drive[:, 2 * self.size :] + reset * back[:, 2 * self.size :])
            return update * h + (1 - update) * new, None

        h, _ = jax.lax.scan(step, jnp.zeros((len(x), self.size)), jnp.swapaxes(self.inputs(x), 0, 1))
        return self.out(h)


class _Examples(eqx.Module):
    x: Array
    y: Array
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        which = jax.random.randint(key, (self.size,), 0, len(self.x))
        return self.x[which], self.y[which]


class _SquaredError(eqx.Module):
    def __call__(self, model: GRU, batch: tuple[Array, Array], key: Any) -> Array:
        return jnp.mean((model(batch[0]) - batch[1]) ** 2)


def fit_gru(
    x: Float[np.ndarray, "samples lags inputs"], y: Float[np.ndarray, "samples outputs"], *, size: int = 32, steps: int = 300,
    batch: int = 64, key: PRNGKeyArray,
) -> Callable[[Float[np.ndarray, "some lags inputs"]], Float[np.ndarray, "some outputs"]]:  # fmt: skip
    """The trained unit as a function; inputs and outputs are standardised inside."""
    mean, scale = x.mean(axis=(0, 1)), np.maximum(x.std(axis=(0, 1)), 1e-9)
    low, wide = y.mean(axis=0), np.maximum(y.std(axis=0), 1e-9)
    net = GRU(np.random.default_rng(np.asarray(jax.random.key_data(key))), x.shape[2], size, y.shape[1])
    scaled, wanted = (jnp.asarray(part, jnp.float32) for part in ((x - mean) / scale, (y - low) / wide))
    given = _Examples(scaled, wanted, batch)
    trained = fit(net, _SquaredError(), given, optimiser=GRU_UPDATE, steps=steps, key=key, chunk=100).model
    run = eqx.filter_jit(lambda model, x: model(x))
    return lambda x: np.asarray(run(trained, jnp.asarray((x - mean) / scale, jnp.float32))) * wide + low
