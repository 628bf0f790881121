"""Learned rounding of weights to integers: FlexRound (arXiv 2306.00317) and what it is compared with.

Each quantiser has one shape: `init(W) -> params`, `quantize(params, W)`, what is differentiated while it learns, and
`codes(params, W)`, the integers that are kept. W is (out, in) of a linear map or (out, in, ...) of a convolution; the range and
the first step are those of `broadsheet.numerics.quantisation`. A quantised weight is a multiple of its step within [n, p].
Ends of the range belong to it: the gradient passes there, as in torch's clamp.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.numerics.gptq import gptq
from broadsheet.numerics.quantisation import Grid, code_range, search_grid, whole_grid

Params = dict[str, Any]
Weight = Float[Array, "out *in"]


@jax.custom_jvp
def round_through(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The nearest whole number, halves to even; its derivative is taken to be 1."""
    return jnp.round(x)


@round_through.defjvp
def _round_derivative(x: tuple, tangent: tuple) -> tuple:
    return jnp.round(x[0]), tangent[0]


def clip_with_ends(x: Float[Array, "*shape"], low: Array, high: Array) -> Float[Array, "*shape"]:
    """x within [low, high], with derivative 1 at both ends, where `jnp.clip` has a half."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


class Rounding(eqx.Module):
    """A quantiser of weights.

    **Arguments:** `bits`: 2 to 8; `symmetric`: codes around 0, or with a zero point; `per_channel`: a step for each row, or
    one; `clipping`: the first step by search, or from the smallest to the largest weight; `power`: of the error in that search.
    """

    bits: int = eqx.field(default=4, static=True)
    symmetric: bool = eqx.field(default=True, static=True)
    per_channel: bool = eqx.field(default=False, static=True)
    clipping: bool = eqx.field(default=True, static=True)
    power: float = eqx.field(default=2.0, static=True)

    def __check_init__(self) -> None:
        code_range(self.bits, self.symmetric)

    def first_grid(self, w: Float[Array | np.ndarray, "out *in"]) -> Grid:
        """The levels before anything is learned."""
        given, kind = np.asarray(w), {"symmetric": self.symmetric, "per_channel": self.per_channel}
        return (
            search_grid(given, self.bits, power=self.power, **kind) if self.clipping else whole_grid(given, self.bits, **kind)
        )

    def init(self, w: Weight) -> Params:
        """Parameters at which W is rounded to nearest, or nearly so."""
        grid = self.first_grid(w)
        low, high = grid.ends
        fixed = {"step": grid.step, "zero": grid.zero, "low": low, "high": high}
        return {name: jnp.asarray(value) for name, value in fixed.items()}

    def learned(self, params: Params) -> dict[str, bool]:
        """Which parameters are trained."""
        return dict.fromkeys(params, False)

    @abc.abstractmethod
    def multiples(self, params: Params, w: Weight) -> Weight:
        """The weights as multiples of their step, [n, p], differentiable by the parameters."""

    def whole(self, params: Params, w: Weight) -> Weight:
        """`multiples` once nothing is learned any more; whole numbers."""
        return self.multiples(params, w)

    def step(self, params: Params) -> Array:
        """The step, or the steps of the rows."""
        return params["step"] if "step" in params else jnp.exp(params["log_step"])

    def quantize(self, params: Params, w: Weight) -> Weight:
        """The weights that a model computes with while the rounding is learned."""
        return self.step(params) * self.multiples(params, w)

    def penalty(self, params: Params, progress: Array) -> Array | float:
        """What is added to the error of a model, given how far the learning is, from 0 to 1."""
        return 0.0

    def codes(self, params: Params, w: Weight) -> tuple[Integer[np.ndarray, "out *in"], np.ndarray, np.ndarray]:
        """Integers, step and zero: the quantised weights are `step * (integers - zero)`."""
        whole = np.asarray(self.whole(params, w)) + np.asarray(params["zero"])
        step = np.asarray(self.step(params))
        return whole.astype(np.int8 if self.symmetric else np.uint8), step, np.asarray(params["zero"])


class RoundToNearest(Rounding):
    """Ŵ = s clip(round(W / s), n, p): nothing is learned."""

    def multiples(self, params: Params, w: Weight) -> Weight:
        return clip_with_ends(round_through(w / self.step(params)), params["low"], params["high"])


def _with_log_step(params: Params) -> Params:
    """The same with the step as a logarithm, to be learned."""
    return {name: value for name, value in params.items() if name != "step"} | {"log_step": jnp.log(params["step"])}


class FlexRound(Rounding):
    """Ŵ = s1 clip(round(W / S), n, p) with S = s1 S2 s3 s4, all positive and learned as logarithms.

    The division is by S, the multiplication by s1 alone; the derivative by S2 is in proportion to |W|, so that large weights
    can move by several levels. S2 has the shape of W, s3 one number for each row, s4 one for each input of a convolution.

    **Arguments:** `learn_step`, `element_scale`, `row_scale`, `column_scale`: whether s1, S2, s3 and s4 are learned.
    """

    learn_step: bool = eqx.field(default=True, static=True)
    element_scale: bool = eqx.field(default=True, static=True)
    row_scale: bool = eqx.field(default=True, static=True)
    column_scale: bool = eqx.field(default=True, static=True)

    def init(self, w: Weight) -> Params:
        params, ones = _with_log_step(super().init(w)), (1,) * (w.ndim - 2)
        if self.element_scale:
            params["log_elements"] = jnp.zeros_like(w)
        if self.row_scale:
            params["log_rows"] = jnp.zeros((len(w), 1, *ones), w.dtype)
        if self.column_scale and w.ndim > 2:
            params["log_columns"] = jnp.zeros((1, w.shape[1], *ones), w.dtype)
        return params

    def learned(self, params: Params) -> dict[str, bool]:
        return {name: name.startswith("log_") and (self.learn_step or name != "log_step") for name in params}

    def multiples(self, params: Params, w: Weight) -> Weight:
        log_division = sum(params[name] for name in params if name.startswith("log_"))
        return clip_with_ends(round_through(w / jnp.exp(log_division)), params["low"], params["high"])


class LearnedStep(FlexRound):
    """Ŵ = s clip(round(W / s), n, p) with s learned, as in LSQ (arXiv 1902.08153): FlexRound without S2, s3 and s4."""

    element_scale: bool = eqx.field(default=False, static=True)
    row_scale: bool = eqx.field(default=False, static=True)
    column_scale: bool = eqx.field(default=False, static=True)


class AdaQuant(Rounding):
    """Ŵ = s clip(round((W + V) / s), n, p) with V, added to each weight, and s learned (arXiv 2006.10518).

    V is learned in units of the first step, so that one learning rate fits all layers.

    **Arguments:** `learn_step`: whether s is learned.
    """

    learn_step: bool = eqx.field(default=True, static=True)

    def init(self, w: Weight) -> Params:
        params = super().init(w)
        return _with_log_step(params) | {"first_step": params["step"], "offset": jnp.zeros_like(w)}

    def learned(self, params: Params) -> dict[str, bool]:
        return {name: name == "offset" or (self.learn_step and name == "log_step") for name in params}

    def multiples(self, params: Params, w: Weight) -> Weight:
        moved = w + params["offset"] * params["first_step"]
        return clip_with_ends(round_through(moved / self.step(params)), params["low"], params["high"])


class AdaRound(Rounding):
    """Ŵ = s clip(floor(W / s) + h(V), n, p): each weight goes up or down, and s is fixed (arXiv 2004.10568).

    h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1), drawn to 0 and 1 by the sum of 1 - |2 h - 1|^β; β falls from 20 to 2 after a fifth
    of the learning without it.
    """

    strength: float = 0.01
    warm_up: float = 0.2
    first_beta: float = 20.0
    last_beta: float = 2.0

    def init(self, w: Weight) -> Params:
        params = super().init(w)
        scaled = w / params["step"]
        rest = scaled - jnp.floor(scaled)
        return params | {"up": -jnp.log(1.2 / (rest + 0.1) - 1)}

    def learned(self, params: Params) -> dict[str, bool]:
        return {name: name == "up" for name in params}

    def multiples(self, params: Params, w: Weight) -> Weight:
        soft = jnp.floor(w / self.step(params)) + self.share_up(params)
        return clip_with_ends(soft, params["low"], params["high"])

    def whole(self, params: Params, w: Weight) -> Weight:
        hard = jnp.floor(w / self.step(params)) + (params["up"] >= 0)
        return jnp.clip(hard, params["low"], params["high"])

    def share_up(self, params: Params) -> Weight:
        """h(V), from 0 to 1."""
        return jnp.clip(1.2 * jax.nn.sigmoid(params["up"]) - 0.1, 0, 1)

    def penalty(self, params: Params, progress: Array) -> Array:
        after = jnp.clip((progress - self.warm_up) / (1 - self.warm_up), 0, 1)
        beta = self.first_beta + (self.last_beta - self.first_beta) * after
        undecided = jnp.sum(1 - jnp.abs(2 * self.share_up(params) - 1) ** beta)
        return jnp.where(progress < self.warm_up, 0.0, self.strength * undecided)


class SecondOrder(Rounding):
    """GPTQ (arXiv 2210.17323): codes by the second moment of a layer's inputs; nothing is learned by gradient.

    **Arguments:** `damping`: share of the moment's mean diagonal added to it; `by_size`: columns with large inputs first.
    """

    damping: float = eqx.field(default=0.01, static=True)
    by_size: bool = eqx.field(default=False, static=True)

    def init(self, w: Weight) -> Params:
        return self.solve(w, np.eye(w[0].size))

    def solve(self, w: Weight, second_moment: Float[np.ndarray, "in in"]) -> Params:
        """Parameters for a layer whose inputs (of a convolution: patches, flattened as W is) have X^T X = `second_moment`."""
        params = super().init(w)
        grid = self.first_grid(w)
        flat = gptq(np.asarray(w).reshape(len(w), -1), second_moment, grid, damping=self.damping, by_size=self.by_size)
        return params | {"whole": jnp.asarray(flat.reshape(w.shape) - np.asarray(params["zero"]), w.dtype)}

    def multiples(self, params: Params, w: Weight) -> Weight:
        return params["whole"]


class Activations(eqx.Module):
    """A quantiser of activations: one learned step for all, with a zero point (LSQ+); numbers as long as weights' are.

    **Arguments:** `bits`: 2 to 8; `drop`: share of numbers that stay as they are while rounding is learned (QDrop,
    arXiv 2203.05740); `symmetric`: codes around 0.
    """

    bits: int = eqx.field(default=8, static=True)
    drop: float = eqx.field(default=0.5, static=True)
    symmetric: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        code_range(self.bits, self.symmetric)
        if not 0 <= self.drop < 1:
            raise InputError(
                f"Activations: {self.drop:g} of the numbers are to stay as they are; from 0 to below 1 are wanted."
            )

    def init(self, x: Float[Array, "*shape"]) -> Params:
        """A step found on a sample of activations, and the zero point, which stays."""
        grid = search_grid(np.asarray(x), self.bits, symmetric=self.symmetric, per_channel=False)
        low, high = grid.ends
        return {"log_step": jnp.log(jnp.asarray(grid.step)), "low": jnp.asarray(low), "high": jnp.asarray(high)}

    def learned(self, params: Params) -> dict[str, bool]:
        """Which parameters are trained."""
        return {name: name == "log_step" for name in params}

    def quantize(self, params: Params, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Each number at its nearest level."""
        step = jnp.exp(params["log_step"])
        return step * clip_with_ends(round_through(x / step), params["low"], params["high"])

    def dropped(self, params: Params, x: Float[Array, "*shape"], key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """`quantize`, but for a random share `drop` of the numbers."""
        return jnp.where(jax.random.bernoulli(key, self.drop, x.shape), x, self.quantize(params, x))
