"""Spikes with a derivative: the step function forward, a smooth bump backward.

Each function here makes a `spike(x)`, x being the distance of the membrane potential from its threshold. `inclusive=True`
fires at the threshold itself, as integrate-and-fire neurons of converted networks must.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.errors import InputError

Spike = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Surrogate:
    """1 where x > 0 (x >= 0 where inclusive), else 0; its derivative is what `derivative(x)` says.

    One that was `made` by a function here from a number equals all others that were, so that no program is compiled twice, and
    a pickle names that function; another one is pickled with its derivative.
    """

    def __init__(
        self,
        derivative: Callable[[Array], Array],
        inclusive: bool = False,
        made: tuple[Callable[..., Any], float] | None = None,
    ) -> None:
        @jax.custom_jvp
        def step(x: Array) -> Array:
            return (x >= 0 if inclusive else x > 0).astype(x.dtype)

        @step.defjvp
        def _(primals: tuple, tangents: tuple) -> tuple:
            (x,), (dx,) = primals, tangents
            return step(x), dx * derivative(x)

        self._step, self._inclusive = step, inclusive
        self._from: tuple[Callable[..., Any], float | None] = made or (derivative, None)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._step(x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surrogate) and (self._from, self._inclusive) == (other._from, other._inclusive)

    def __hash__(self) -> int:
        return hash((self._from, self._inclusive))

    def __reduce__(self) -> tuple:
        source, number = self._from
        if number is None:
            return Surrogate, (source, self._inclusive)
        return partial(source, number, inclusive=self._inclusive), ()


def surrogate(derivative: Callable[[Array], Array], *, inclusive: bool = False) -> Spike:
    """1 where x > 0 (x >= 0 where inclusive), else 0; its derivative is what `derivative(x)` says."""
    return Surrogate(derivative, inclusive)


@lru_cache
def fast_sigmoid(slope: float = 25.0, *, inclusive: bool = False) -> Spike:
    """Derivative `1 / (1 + slope |x|)²` (Zenke and Ganguli, 2018)."""
    _above_zero("slope", slope)
    return Surrogate(lambda x: 1 / (1 + slope * jnp.abs(x)) ** 2, inclusive, (fast_sigmoid, slope))


@lru_cache
def arctan(width: float = 2.0, *, inclusive: bool = False) -> Spike:
    """Derivative of `arctan(π width x / 2) / π`: `width / 2 / (1 + (π width x / 2)²)` (Fang et al., 2021)."""
    _above_zero("width", width)
    return Surrogate(lambda x: width / 2 / (1 + (jnp.pi * width * x / 2) ** 2), inclusive, (arctan, width))


@lru_cache
def triangle(width: float = 1.0, *, inclusive: bool = False) -> Spike:
    """Derivative `max(0, 1 - |x| / width) / width` (Bellec et al., 2018)."""
    _above_zero("width", width)
    return Surrogate(lambda x: jnp.maximum(0.0, 1 - jnp.abs(x) / width) / width, inclusive, (triangle, width))


@lru_cache
def rectangle(width: float = 1.0, *, inclusive: bool = False) -> Spike:
    """Derivative `1 / width` within `width / 2` of the threshold, else 0 (Wu et al., 2018)."""
    _above_zero("width", width)
    return Surrogate(lambda x: (jnp.abs(x) < width / 2) / width, inclusive, (rectangle, width))


@lru_cache
def sigmoid(slope: float = 4.0, *, inclusive: bool = False) -> Spike:
    """Derivative of the logistic function of `slope * x`."""
    _above_zero("slope", slope)

    def derivative(x: Array) -> Array:
        s = jax.nn.sigmoid(slope * x)
        return slope * s * (1 - s)

    return Surrogate(derivative, inclusive, (sigmoid, slope))


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} = {value} of a surrogate derivative; a number above 0 is wanted.")


spike = fast_sigmoid()
at_threshold = fast_sigmoid(inclusive=True)
